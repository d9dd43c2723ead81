//! Evidence as files that stand alone.
//!
//! A file is one line of ASCII that names the format, then the bytes of a
//! [`wire::Evidence`](peerproof_wire::evidence::Evidence). Its name says whom it
//! accuses and begins with the hash of its contents, so the same evidence is
//! one file. Whether it proves anything is for [`crate::verify`] to say.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use peerproof_wire::evidence::Evidence;
use peerproof_wire::limits::MAX_EVIDENCE_BYTES;
use peerproof_wire::{Message as _, WireError};

use crate::store::{StoreError, write_atomic};

/// The first line of every evidence file.
pub const MAGIC: &[u8] = b"peerproof evidence v1\n";

/// Why an evidence file could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceFileError {
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
    /// It is something else.
    #[error("{path}: this is no evidence file: it does not begin with \"peerproof evidence v1\"")]
    NotEvidence {
        /// Which.
        path: PathBuf,
    },
    /// It is larger than evidence may be.
    #[error("{path}: expected at most {expected} bytes, got more")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        expected: usize,
    },
    /// Its contents are malformed, or a signature in it does not hold.
    #[error("{path}: {source}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and how.
        source: WireError,
    },
    /// The evidence is too large to be one file.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Writes a file into `dir`, durably, and gives back its path.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(dir: &Path, evidence: &Evidence) -> Result<PathBuf, EvidenceFileError> {
    let body = evidence.encode()?;
    let name = &blake3::hash(&body).to_hex()[..16];
    let kind = match evidence {
        Evidence::WrongAnswer(_) => "wrong-answer",
        Evidence::Equivocation(_) => "equivocation",
        Evidence::Observation(_) => "observation",
        Evidence::FalseVerdict(_) => "false-verdict",
        Evidence::Fork(_) => "fork",
    };
    let path = dir.join(format!("{name}-{kind}.evidence"));
    crate::home::make_private_dir(dir)
        .map_err(|e| EvidenceFileError::Io { path: dir.to_owned(), source: io::Error::other(e) })?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(body);
    write_atomic(&path, &bytes, 0o644)?;
    Ok(path)
}

/// Reads a file; every signature in it holds afterwards.
///
/// # Errors
/// Each names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<Evidence, EvidenceFileError> {
    let io = |source| EvidenceFileError::Io { path: path.to_owned(), source };
    let limit = MAGIC.len() + MAX_EVIDENCE_BYTES;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > limit {
        return Err(EvidenceFileError::TooLarge { path: path.to_owned(), expected: limit });
    }
    let body = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| EvidenceFileError::NotEvidence { path: path.to_owned() })?;
    Evidence::decode(body)
        .map_err(|source| EvidenceFileError::Malformed { path: path.to_owned(), source })
}
