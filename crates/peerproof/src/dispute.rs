//! Proofs of disputes: files of a few kilobytes that convict a provider by one operation.
//!
//! One holds a receipt, what its signer signed of one cell in a dispute, and the numbers
//! that one operation reads and gave, each with its path to the receipt, to that statement
//! or to the model id. Whoever has the file recomputes the operation; neither the model nor
//! trust in who wrote it is needed. A file is a line of ASCII that names the format, then
//! the bytes of a [`wire::DisputeProof`](peerproof_wire::DisputeProof).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use peerproof_engine::dispute::{DisputeError, verify};
use peerproof_wire::limits::MAX_DISPUTE_PROOF_BYTES;
use peerproof_wire::{DisputeProof, Message as _, WireError};

use crate::store::{StoreError, write_atomic};
use crate::verify::Judgement;

/// The first line of every proof of a dispute.
pub const MAGIC: &[u8] = b"peerproof dispute proof v1\n";

/// Why a proof of a dispute proves nothing, or could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DisputeFileError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is something else, too large, malformed, or a signature in it does not hold.
    #[error("proof of a dispute: {0}")]
    Malformed(#[from] WireError),
    /// It is larger than such a proof may be.
    #[error("proof of a dispute: expected at most {expected} bytes, got more")]
    TooLarge {
        /// The limit.
        expected: usize,
    },
    /// What it says does not follow from what it holds, or the operation is right.
    #[error("proof of a dispute: {0}")]
    Judged(Box<DisputeError>),
}

impl From<DisputeError> for DisputeFileError {
    fn from(error: DisputeError) -> Self {
        Self::Judged(Box::new(error))
    }
}

/// Whether a file begins as a proof of a dispute does.
///
/// # Errors
/// It can't be read.
pub fn is_one(path: &Path) -> io::Result<bool> {
    let mut start = vec![0; MAGIC.len()];
    Ok(File::open(path)?.read_exact(&mut start).is_ok() && start == MAGIC)
}

/// Writes a file into `dir`, durably, and gives back its path.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(dir: &Path, proof: &DisputeProof) -> Result<PathBuf, DisputeFileError> {
    let body = proof.encode()?;
    let name = &blake3::hash(&body).to_hex()[..16];
    let path = dir.join(format!("{name}-dispute.proof"));
    crate::home::make_private_dir(dir)
        .map_err(|e| DisputeFileError::Io { path: dir.to_owned(), source: io::Error::other(e) })?;
    write_atomic(&path, &[MAGIC, &body].concat(), 0o644)?;
    Ok(path)
}

/// Reads a file; every signature in it holds afterwards.
///
/// # Errors
/// It can't be read or is no proof of a dispute.
pub fn read(path: &Path) -> Result<DisputeProof, DisputeFileError> {
    let io = |source| DisputeFileError::Io { path: path.to_owned(), source };
    let limit = MAGIC.len() + MAX_DISPUTE_PROOF_BYTES;
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > limit {
        return Err(DisputeFileError::TooLarge { expected: limit });
    }
    let body = bytes.strip_prefix(MAGIC);
    let body = body.ok_or_else(|| io(io::Error::other("this is no proof of a dispute")))?;
    Ok(DisputeProof::decode(body)?)
}

/// Judges a proof of a dispute, with nothing but the proof.
///
/// # Errors
/// It proves nothing; each error says why.
pub fn judge(proof: &DisputeProof) -> Result<Judgement, DisputeFileError> {
    let verdict = verify(proof)?;
    let (cell, finding) = (verdict.cell, verdict.finding);
    Ok(Judgement {
        accused: proof.receipt.key().peer_id().to_string(),
        kind: "dispute",
        model_id: Some(proof.receipt.model_id.to_string()),
        proven: true,
        statement: format!(
            "position {}, layer {}: it signed {} as output {} of the operation \"{}\", which gives {}",
            cell.position,
            cell.layer,
            finding.got,
            verdict.index,
            verdict.operation.name(),
            finding.expected,
        ),
        unchecked: Vec::new(),
        recomputed: false,
    })
}
