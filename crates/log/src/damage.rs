//! What is wrong with a log, and where.

use std::fmt;

use crate::checkpoint::CheckpointError;
use crate::error::hex;
use crate::storage::StorageError;
use crate::tree::Hash;

/// A place in the segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: u32,
    /// Bytes from its start.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} at byte {}", self.segment, self.offset)
    }
}

/// The first thing found wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub place: Place,
    /// How many entries before it are whole.
    pub entries_before: u64,
    /// What.
    pub kind: DamageKind,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.kind.concerns_checkpoint() {
            write!(f, "{}, ", self.place)?;
        }
        write!(f, "{} ({} entries before it are whole)", self.kind, self.entries_before)
    }
}

impl std::error::Error for Damage {}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// There are segments and no checkpoint, which is written before the first of them.
    #[error("checkpoint: missing, though there are segments")]
    CheckpointMissing,
    /// The checkpoint is not a note signed by this log's key.
    #[error("checkpoint: {0}")]
    Checkpoint(CheckpointError),
    /// A segment is missing in the row.
    #[error("expected segment {expected}, got segment {got}")]
    Segment {
        /// The number due.
        expected: u32,
        /// The number found.
        got: u32,
    },
    /// Storage could not give the bytes.
    #[error("unreadable: {0}")]
    Unreadable(StorageError),
    /// A record goes on beyond the segment.
    #[error("record: expected {needed} bytes, got {left} to the end of the segment")]
    Truncated {
        /// Bytes the record has.
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
    /// A length no record has.
    #[error("record length: expected at most {limit}, got {got}")]
    Length {
        /// The length found.
        got: u64,
        /// The longest payload.
        limit: u64,
    },
    /// The bytes do not match their checksum.
    #[error("record checksum: expected {expected:08x}, got {got:08x}")]
    Checksum {
        /// Of the bytes.
        expected: u32,
        /// As written beside them.
        got: u32,
    },
    /// A record of another position.
    #[error("record number: expected {expected}, got {got}")]
    Sequence {
        /// The position due.
        expected: u64,
        /// The position found.
        got: u64,
    },
    /// A record that follows another one than the one before it.
    #[error("record chain: expected the hash of the record before, got another")]
    Chain,
    /// Bytes that must be zero and are not, or zeros where a record must be.
    #[error("padding: expected zeros up to the next sector and a record after them")]
    Padding,
    /// More entries than a log holds.
    #[error("entries: expected at most {limit}, got more")]
    TooMany {
        /// The most entries.
        limit: u64,
    },
    /// Entries that the checkpoint counts are not there.
    #[error("entries: expected {expected} by the checkpoint, got {got}")]
    Missing {
        /// Entries in the checkpoint.
        expected: u64,
        /// Entries found.
        got: u64,
    },
    /// Others hold a checkpoint over more entries: this is an older copy.
    #[error(
        "entries: expected {expected}, which a checkpoint that others hold covers, got {got}: \
         this is an older copy of the log"
    )]
    Older {
        /// Entries under the checkpoint of this log that others hold.
        expected: u64,
        /// Entries here.
        got: u64,
    },
    /// Others hold a checkpoint over other entries: this is a second history.
    #[error(
        "the first {size} entries: expected root {}, as a checkpoint that others hold has it, \
         got {}: this is a second history of the log",
        hex(expected),
        hex(got)
    )]
    Other {
        /// Entries under the checkpoint of this log that others hold.
        size: u64,
        /// Its root.
        expected: Hash,
        /// The root here.
        got: Hash,
    },
    /// The entries are not those of the checkpoint.
    #[error("root: expected {} by the checkpoint, got {}", hex(expected), hex(got))]
    Root {
        /// Of the checkpoint.
        expected: Hash,
        /// Of the entries.
        got: Hash,
    },
}

impl DamageKind {
    /// Whether the log is whole in itself, and not what others have seen of it.
    pub fn is_behind(&self) -> bool {
        matches!(self, Self::Older { .. } | Self::Other { .. })
    }

    fn concerns_checkpoint(&self) -> bool {
        matches!(self, Self::CheckpointMissing | Self::Checkpoint(_))
    }
}
