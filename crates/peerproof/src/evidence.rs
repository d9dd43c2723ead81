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
use peerproof_wire::{Message as _, WireError, frame};

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
    /// It is a bundle of more pieces than a bundle may have.
    #[error("{path}: expected at most {expected} pieces of evidence, got more")]
    TooMany {
        /// Which.
        path: PathBuf,
        /// The limit.
        expected: usize,
    },
    /// A bundle that ends in the middle of a piece, or before the first.
    #[error("{path}: this bundle of evidence is cut short")]
    CutShort {
        /// Which.
        path: PathBuf,
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
        Evidence::Fraud(_) => "fraud-claim",
    };
    let path = dir.join(format!("{name}-{kind}.evidence"));
    crate::home::make_private_dir(dir)
        .map_err(|e| EvidenceFileError::Io { path: dir.to_owned(), source: io::Error::other(e) })?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(body);
    write_atomic(&path, &bytes, 0o644)?;
    Ok(path)
}

/// The first line of every bundle.
pub const BUNDLE_MAGIC: &[u8] = b"peerproof evidence bundle v1\n";
/// Pieces in one bundle.
pub const MAX_BUNDLED: usize = 1024;
/// Bytes of one bundle.
const MAX_BUNDLE_BYTES: usize = 256 << 20;

/// Writes several pieces into one file: [`BUNDLE_MAGIC`], then each in a frame as on a stream,
/// its length before it. Gives back how many there are; of more than [`MAX_BUNDLED`] the newest.
///
/// # Errors
/// When the file cannot be written.
pub fn write_bundle(path: &Path, all: &[&Evidence]) -> Result<usize, EvidenceFileError> {
    let newest = &all[all.len().saturating_sub(MAX_BUNDLED)..];
    let mut bytes = BUNDLE_MAGIC.to_vec();
    for evidence in newest {
        bytes.extend(frame::encode(*evidence)?);
    }
    write_atomic(path, &bytes, 0o644)?;
    Ok(newest.len())
}

/// Reads a file of one piece or a bundle; every signature in it holds afterwards.
///
/// # Errors
/// As [`read`].
pub fn read_all(path: &Path) -> Result<Vec<Evidence>, EvidenceFileError> {
    let io = |source| EvidenceFileError::Io { path: path.to_owned(), source };
    let mut start = vec![0; BUNDLE_MAGIC.len()];
    let mut file = File::open(path).map_err(io)?;
    if file.read_exact(&mut start).is_err() || start != BUNDLE_MAGIC {
        return Ok(vec![read(path)?]);
    }
    let mut bytes = Vec::new();
    file.take(MAX_BUNDLE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > MAX_BUNDLE_BYTES {
        return Err(EvidenceFileError::TooLarge {
            path: path.to_owned(),
            expected: MAX_BUNDLE_BYTES,
        });
    }
    let malformed = |source| EvidenceFileError::Malformed { path: path.to_owned(), source };
    let (mut decoder, mut all) = (frame::Decoder::default(), Vec::new());
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        if all.len() >= MAX_BUNDLED {
            return Err(EvidenceFileError::TooMany {
                path: path.to_owned(),
                expected: MAX_BUNDLED,
            });
        }
        rest = &rest[decoder.push(rest).map_err(malformed)?..];
        if let Some(body) = decoder.poll_frame() {
            all.push(Evidence::decode(&body).map_err(malformed)?);
        }
    }
    if !decoder.is_idle() || all.is_empty() {
        return Err(EvidenceFileError::CutShort { path: path.to_owned() });
    }
    Ok(all)
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
