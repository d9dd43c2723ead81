//! The newest checkpoint of the node's own log that others cosigned, or showed it.
//!
//! One signed note in the log's directory, replaced whole. It says up to where
//! others have seen this log: at every opening the log is held against it, so
//! that an older copy that was fenced once stays fenced. A file that is no such
//! note says nothing, and is passed over with a warning.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use peerproof_identity::PublicKey;
use peerproof_log::{MAX_NOTE_BYTES, SignedCheckpoint};

use super::atomic::write_atomic;
use super::error::{StoreError, storage_error};

const FILE: &str = "cosigned";

/// Reads the note in `dir`, if there is one of `key`.
///
/// # Errors
/// [`StoreError::Storage`] if it is there and cannot be read.
pub fn read(dir: &Path, key: &PublicKey) -> Result<Option<SignedCheckpoint>, StoreError> {
    let path = dir.join(FILE);
    let mut bytes = Vec::new();
    let limit = MAX_NOTE_BYTES as u64 + 1;
    let found = File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(storage_error("read", &path, &error).into()),
        Ok(_) => {}
    }
    match SignedCheckpoint::open_of(&bytes, key) {
        Ok(note) => Ok(Some(note)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "not a checkpoint of this log");
            Ok(None)
        }
    }
}

/// Keeps a note in `dir`, durably.
///
/// # Errors
/// [`StoreError::Storage`] if it is not certain to be in place.
pub fn write(dir: &Path, note: &SignedCheckpoint) -> Result<(), StoreError> {
    write_atomic(&dir.join(FILE), note.note().as_bytes(), 0o600)
}
