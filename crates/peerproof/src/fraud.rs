//! Fraud proofs: files that convict a provider before anybody.
//!
//! One holds an answer, one cell of it as its provider committed to it, and the
//! stretches of the model's file that this cell takes, each with its path to the
//! model id. Whoever has the file checks all of it and computes one layer at one
//! position; neither the model nor trust in who wrote it is needed. A file is a
//! line of ASCII that names the format, then the bytes of a
//! [`wire::FraudProof`](peerproof_wire::FraudProof).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use peerproof_engine::spot::{Checker, SpotError};
use peerproof_proof::audit::describe;
use peerproof_proof::ranges::{Group, Mode, RangeError, Shape, Slice, verify};
use peerproof_wire::limits::MAX_FRAUD_FILE_BYTES;
use peerproof_wire::{Digest, FraudProof, Message as _, WeightRange, WireError};

use crate::store::{StoreError, write_atomic};
use crate::verify::Judgement;

/// The first line of every fraud proof.
pub const MAGIC: &[u8] = b"peerproof fraud proof v1\n";

/// Why a fraud proof proves nothing, or could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FraudError {
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
    #[error("fraud proof: {0}")]
    Malformed(#[from] WireError),
    /// It begins as none of the formats that are known.
    #[error("fraud proof: the first line names no format that is known")]
    Unknown,
    /// It is larger than a fraud proof may be.
    #[error("fraud proof: expected at most {expected} bytes, got more")]
    TooLarge {
        /// The limit.
        expected: usize,
    },
    /// Stretches of one file say that it has different lengths.
    #[error("fraud proof, weights: expected a file of {expected} bytes, got {got}")]
    Length {
        /// As the first says.
        expected: u64,
        /// As another says.
        got: u64,
    },
    /// A stretch is not the model's.
    #[error("fraud proof, weights from byte {start}: {source}")]
    Weights {
        /// Where it begins.
        start: u64,
        /// Why.
        source: Box<RangeError>,
    },
    /// Stretches that the cell takes are missing.
    #[error("fraud proof, weights: bytes {start} to {end} of the model file are missing")]
    Missing {
        /// First.
        start: u64,
        /// The one after the last.
        end: u64,
    },
    /// The cell could not be judged.
    #[error("fraud proof: {0}")]
    Cell(Box<SpotError>),
    /// The cell follows from the model: the accusation is false.
    #[error(
        "fraud proof: position {position}, layer {layer} follows from the model; nothing is wrong with it"
    )]
    Holds {
        /// The cell's position.
        position: u32,
        /// The cell's layer.
        layer: u32,
    },
}

impl From<SpotError> for FraudError {
    fn from(error: SpotError) -> Self {
        Self::Cell(Box::new(error))
    }
}

/// Whether a file begins as a fraud proof does.
///
/// # Errors
/// It can't be read.
pub fn is_one(path: &Path) -> io::Result<bool> {
    let mut start = vec![0; MAGIC.len()];
    Ok(File::open(path)?.read_exact(&mut start).is_ok() && start == MAGIC)
}

/// Where a file with this hash lies in `dir`.
#[must_use]
pub fn path_of(dir: &Path, file: &Digest) -> PathBuf {
    dir.join(format!("{}-fraud.proof", &file.to_string()[..16]))
}

/// Writes a file into `dir`, durably, and gives back its path.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(dir: &Path, proof: &FraudProof) -> Result<PathBuf, FraudError> {
    write_bytes(dir, &to_bytes(proof)?)
}

/// A fraud proof as the bytes of its file.
///
/// # Errors
/// It is larger than one may be.
pub fn to_bytes(proof: &FraudProof) -> Result<Vec<u8>, FraudError> {
    Ok([MAGIC, &proof.encode()?].concat())
}

/// Writes the bytes of a file into `dir`, as [`write()`] does.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_bytes(dir: &Path, bytes: &[u8]) -> Result<PathBuf, FraudError> {
    let path = path_of(dir, &Digest::from_bytes(*blake3::hash(bytes).as_bytes()));
    crate::home::make_private_dir(dir)
        .map_err(|e| FraudError::Io { path: dir.to_owned(), source: io::Error::other(e) })?;
    write_atomic(&path, bytes, 0o644)?;
    Ok(path)
}

/// Reads the bytes of a file that may be a fraud proof.
///
/// # Errors
/// It can't be read, or is larger than a fraud proof may be.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, FraudError> {
    let io = |source| FraudError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(MAX_FRAUD_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    match bytes.len() > MAX_FRAUD_FILE_BYTES {
        true => Err(FraudError::TooLarge { expected: MAX_FRAUD_FILE_BYTES }),
        false => Ok(bytes),
    }
}

/// Reads a file; every signature in it holds afterwards.
///
/// # Errors
/// It can't be read or is no fraud proof.
pub fn read(path: &Path) -> Result<FraudProof, FraudError> {
    let other = |what: &str| FraudError::Io {
        path: path.to_owned(),
        source: io::Error::other(what.to_owned()),
    };
    let bytes = read_bytes(path)?;
    let body = bytes.strip_prefix(MAGIC).ok_or_else(|| other("this is no fraud proof"))?;
    Ok(FraudProof::decode(body)?)
}

/// Judges the bytes of a file, whatever its format, with nothing but them.
///
/// # Errors
/// It is no fraud proof, or proves nothing.
pub fn judge_bytes(bytes: &[u8]) -> Result<Judgement, FraudError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(FraudError::Unknown)?;
    judge(&FraudProof::decode(body)?)
}

/// Judges a fraud proof, with nothing but the proof.
///
/// # Errors
/// It proves nothing; each error says why.
pub fn judge(proof: &FraudProof) -> Result<Judgement, FraudError> {
    let id = proof.case.offer.model_id;
    let length = proof.weights.first().map_or(0, |weight| weight.slice.file_bytes);
    let root = Digest::from_bytes(*id.as_bytes());
    let parts: Vec<(u64, Vec<u8>)> =
        proof.weights.iter().map(|weight| part(&root, length, weight)).collect::<Result<_, _>>()?;
    let parts: Vec<(u64, &[u8])> =
        parts.iter().map(|(start, bytes)| (*start, &bytes[..])).collect();
    let layer = proof.opening.cell.layer;
    // A gap reads as zeros: nothing is made of a header with one, let alone said by it.
    for range in Checker::header_ranges(length, &parts)? {
        covered(&parts, range)?;
    }
    let checker = Checker::open(length, id, &parts)?;
    for range in checker.evidence_ranges(layer)? {
        covered(&parts, range)?;
    }
    checker.load(layer, &parts)?;
    let mismatch = checker
        .judge(&proof.case, &proof.opening)?
        .ok_or(FraudError::Holds { position: proof.opening.cell.position, layer })?;
    Ok(Judgement {
        accused: proof.case.receipt.key().peer_id().to_string(),
        kind: "fraud proof",
        model_id: Some(id.to_string()),
        proven: true,
        statement: format!("layer {layer} does not follow from the model: {}", describe(&mismatch)),
        unchecked: Vec::new(),
        recomputed: false,
    })
}

/// The bytes of a stretch, which are the model's.
fn part(root: &Digest, length: u64, weight: &WeightRange) -> Result<(u64, Vec<u8>), FraudError> {
    let WeightRange { start, length: bytes, slice } = weight;
    if slice.file_bytes != length {
        return Err(FraudError::Length { expected: length, got: slice.file_bytes });
    }
    let wrong = |source| FraudError::Weights { start: *start, source: Box::new(source) };
    let shape = Shape::new(length, Group::KIB_16).map_err(wrong)?;
    let range = *start..start + bytes;
    let slice = Slice { bytes: slice.bytes.clone(), hashes: slice.hashes.clone() };
    let verified = verify(Mode::Plain, root, shape, range, &slice).map_err(wrong)?;
    Ok((verified.cover.start, slice.bytes))
}

/// Whether the parts hold all of a range.
fn covered(parts: &[(u64, &[u8])], range: std::ops::Range<u64>) -> Result<(), FraudError> {
    let mut at = range.start;
    while at < range.end {
        let holds =
            |&&(start, bytes): &&(u64, &[u8])| (start..start + bytes.len() as u64).contains(&at);
        let Some((start, bytes)) = parts.iter().find(holds) else {
            return Err(FraudError::Missing { start: at, end: range.end });
        };
        at = start + bytes.len() as u64;
    }
    Ok(())
}
