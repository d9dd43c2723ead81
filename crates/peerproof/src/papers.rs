//! The papers of an answer: what it takes to check it, at any later time.
//!
//! An answer that was used before its check was done may outlive the process that
//! asked. Its papers (offer, receipt, tokens) go into a file first, which goes away
//! when the check has held; what is left of a check that was cut off is judged by
//! [`verify`](crate::verify::answer) by whoever has the model. A file is a line of
//! ASCII that names the format, then the bytes of a [`Case`]. Deliberately absent:
//! the nonce that drew spots, since a whole recomputation draws nothing.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use peerproof_wire::{Case, Message as _, WireError, limits};

use crate::store::{StoreError, write_atomic};

/// The first line of every file.
pub const MAGIC: &[u8] = b"peerproof answer v1\n";
/// Files that are kept; beyond them the oldest goes.
pub const MAX_FILES: usize = 1024;

/// Why papers could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PapersError {
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
    /// It is larger than an answer may be.
    #[error("{path}: expected at most {expected} bytes, got more")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        expected: usize,
    },
    /// Its contents are malformed, or a signature in it does not hold.
    #[error("answer: {0}")]
    Malformed(#[from] WireError),
}

/// Writes the papers of an answer into `dir`, durably, and gives back the file's path.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(dir: &Path, case: &Case) -> Result<PathBuf, PapersError> {
    let body = case.encode()?;
    crate::home::make_private_dir(dir)
        .map_err(|e| PapersError::Io { path: dir.to_owned(), source: io::Error::other(e) })?;
    let path = dir.join(format!("{}.answer", &case.offer.id().to_string()[..16]));
    make_room(dir);
    write_atomic(&path, &[MAGIC, &body].concat(), 0o600)?;
    Ok(path)
}

/// Deletes the oldest files of a folder that is full.
fn make_room(dir: &Path) {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = files
        .filter(|file| file.path().extension().is_some_and(|e| e == "answer"))
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
        .collect();
    files.sort();
    let surplus = (files.len() + 1).saturating_sub(MAX_FILES);
    for (_, path) in &files[..surplus] {
        let _ = fs::remove_file(path);
    }
}

/// Reads a file; both signatures in it hold afterwards. `None` if it is something else.
///
/// # Errors
/// It can't be read, or begins as papers do and is none.
pub fn read(path: &Path) -> Result<Option<Case>, PapersError> {
    let io = |source| PapersError::Io { path: path.to_owned(), source };
    let limit = MAGIC.len() + limits::MAX_FRAME_BYTES;
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    let Some(body) = bytes.strip_prefix(MAGIC) else { return Ok(None) };
    if bytes.len() > limit {
        return Err(PapersError::TooLarge { path: path.to_owned(), expected: limit });
    }
    Ok(Some(Case::decode(body)?))
}
