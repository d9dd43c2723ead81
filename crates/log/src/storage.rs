//! What the log needs of a disk, as narrow as it can be.
//!
//! The log is a row of numbered segments that only grow at the end, and one
//! checkpoint that is replaced as a whole. Eight operations say so; the disk in
//! `peerproof` and the simulated disks of the tests implement them. Promises the
//! log builds on: what [`Storage::sync`] has confirmed survives a power cut;
//! [`Storage::write_checkpoint`] leaves the old or the new note, never a mixture,
//! and the new one survives a power cut once it has returned. Absent: deletion.

use std::fmt;

/// One segment as the storage finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Counts segments from 0.
    pub number: u32,
    /// Its length.
    pub bytes: u64,
}

/// A disk that holds one log.
pub trait Storage {
    /// Every segment present, by ascending number.
    ///
    /// # Errors
    /// If the segments cannot be listed.
    fn segments(&self) -> Result<Vec<Segment>, StorageError>;

    /// Fills `buffer` from `offset` of a segment.
    ///
    /// # Errors
    /// If that many bytes are not there or cannot be read.
    fn read(&self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError>;

    /// Makes an empty segment whose name survives a power cut.
    ///
    /// # Errors
    /// If it exists already or cannot be made; nothing or an empty segment is left.
    fn create_segment(&mut self, segment: u32) -> Result<(), StorageError>;

    /// Writes `bytes` at the end of a segment, which lies at `offset`.
    ///
    /// # Errors
    /// If `offset` is not the end, or the write fails; any part may be written.
    fn append(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Returns once everything appended to the segment survives a power cut.
    ///
    /// # Errors
    /// If that is not certain.
    fn sync(&mut self, segment: u32) -> Result<(), StorageError>;

    /// Takes everything from `keep_bytes` on out of the segment, durably, and
    /// keeps it aside where a person finds it.
    ///
    /// # Errors
    /// If bytes could not be kept aside or taken out; the log's own bytes before
    /// `keep_bytes` are untouched in any case.
    fn cut(&mut self, segment: u32, keep_bytes: u64) -> Result<(), StorageError>;

    /// The checkpoint, if one was ever written.
    ///
    /// # Errors
    /// If it exists and cannot be read, or is above [`crate::MAX_NOTE_BYTES`].
    fn read_checkpoint(&self) -> Result<Option<Vec<u8>>, StorageError>;

    /// Replaces the checkpoint, atomically and durably.
    ///
    /// # Errors
    /// If that is not certain; old or new may be in place.
    fn write_checkpoint(&mut self, note: &[u8]) -> Result<(), StorageError>;
}

/// Why a storage operation failed, as far as it decides what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageFault {
    /// No space, or a quota reached: waiting or freeing space helps.
    Full,
    /// The storage refuses writes or access.
    Denied,
    /// Anything else: the device or file system failed.
    Failed,
}

impl fmt::Display for StorageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "free some space, the log then goes on by itself or at the next start",
            Self::Denied => {
                "make the directory and its files writable for this user, then start again"
            }
            Self::Failed => "check the device and the file system, then start again",
        })
    }
}

/// A storage operation that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not {operation} {place}: {message}; {fault}")]
pub struct StorageError {
    /// What can be done about it.
    pub fault: StorageFault,
    /// The operation, as a verb: "sync", "append to".
    pub operation: &'static str,
    /// The file or segment.
    pub place: String,
    /// What the system said.
    pub message: String,
}
