//! Reading a log without writing to it, beside a running node or long after it.

use std::path::Path;

use peerproof_identity::{PeerId, PublicKey};
use peerproof_log::{Checkpoint, LogError, Note, Reader, SignedCheckpoint, Storage as _, Verified};
use peerproof_wire::{LogEntry, Message as _};

use super::disk::DiskStorage;
use super::error::StoreError;

/// A log as it was found.
#[derive(Debug)]
pub struct Contents {
    /// Whose log it is.
    pub peer: PeerId,
    /// The result of checking all of it: every record, root and signature.
    pub verified: Result<Verified, LogError>,
    reader: Reader<DiskStorage>,
}

impl Contents {
    /// The number of readable entries: all, or those before the damage.
    pub fn len(&self) -> u64 {
        self.reader.len()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// The last checkpoint, unless it is what is damaged.
    pub fn checkpoint(&self) -> Option<&SignedCheckpoint> {
        self.reader.checkpoint()
    }

    /// The entry at `index`.
    ///
    /// # Errors
    /// [`StoreError::Log`] if it cannot be read, [`StoreError::Entry`] if this
    /// version does not understand it.
    pub fn entry(&self, index: u64) -> Result<LogEntry, StoreError> {
        let payload = self.reader.entry(index);
        let dir = self.reader.storage().dir();
        decode_entry(index, &payload.map_err(|error| StoreError::log(dir, error))?)
    }

    /// Every readable entry with its position, in order.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (u64, Result<LogEntry, StoreError>)> {
        (0..self.len()).map(|index| (index, self.entry(index)))
    }

    /// Roots and proofs.
    pub fn reader(&self) -> &Reader<DiskStorage> {
        &self.reader
    }
}

/// Reads the log in `dir`, whose key its own checkpoint names, and checks it.
/// Whether that is the key you expect is in [`Contents::peer`].
///
/// # Errors
/// [`StoreError::NoLog`], [`StoreError::UnknownKey`], or what storage says. A
/// damaged log is no error here.
pub fn read(dir: &Path) -> Result<Contents, StoreError> {
    let note = DiskStorage::open_read(dir)?.read_checkpoint()?;
    let key = note.and_then(|note| claimed_key(&note));
    read_of(dir, &key.ok_or_else(|| StoreError::UnknownKey { dir: dir.to_owned() })?)
}

/// As [`read`], for the log of `key`, whatever its checkpoint says.
///
/// # Errors
/// [`StoreError::NoLog`], or what storage says.
pub fn read_of(dir: &Path, key: &PublicKey) -> Result<Contents, StoreError> {
    let storage = DiskStorage::open_read(dir)?;
    let reader = Reader::open(storage, key).map_err(|error| StoreError::log(dir, error))?;
    let verified = reader.verify();
    Ok(Contents { peer: key.peer_id(), verified, reader })
}

/// The key a checkpoint names, before its signature is checked.
fn claimed_key(note: &[u8]) -> Option<PublicKey> {
    let note = Note::parse(note).ok()?;
    let origin = Checkpoint::parse(note.text()).ok()?.origin;
    Some(peerproof_log::checkpoint::peer_of(&origin)?.public_key())
}

pub(super) fn decode_entry(index: u64, payload: &[u8]) -> Result<LogEntry, StoreError> {
    LogEntry::decode(payload)
        .map_err(|error| StoreError::Entry { index, message: error.to_string() })
}
