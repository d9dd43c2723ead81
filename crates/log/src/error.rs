//! Why the log, a proof or a note is refused.

use crate::damage::Damage;
use crate::storage::StorageError;
use crate::tree::Hash;

/// A proof that does not hold, or that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// A size beyond the tree's.
    #[error("tree size: expected at most {limit}, got {got}")]
    Size {
        /// The size asked about.
        got: u64,
        /// The largest one possible.
        limit: u64,
    },
    /// A position outside the tree.
    #[error("leaf index: expected below {size}, got {index}")]
    Index {
        /// The position asked about.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// Too many or too few hashes for the position.
    #[error("proof path: {got} hashes do not lead from this position to a root of this size")]
    PathLength {
        /// Hashes in the path.
        got: usize,
    },
    /// A tile that was not fetched.
    #[error("{path}: expected this tile to be here")]
    Tile {
        /// The tile's path.
        path: String,
    },
    /// The path leads to another root.
    #[error("root: expected {}, got {}", hex(expected), hex(got))]
    Root {
        /// The root stated.
        expected: Hash,
        /// The root computed.
        got: Hash,
    },
}

/// An operation on the log that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The log is damaged: readable, closed to appends. Nothing was written.
    #[error(
        "the log is damaged and takes no more entries: {0}. What was read before the damage stays \
         readable. Restore the directory from a backup that is not older than the last entry you \
         showed anyone, or put it aside and start a new log under a new key; do not edit the files"
    )]
    Damaged(Damage),
    /// An earlier append failed, the log must be opened again. Nothing was written.
    #[error("the log stopped after an error: {0}")]
    Stopped(StorageError),
    /// Storage failed during this call. No entry of it is acknowledged; whether
    /// it is kept is decided when the log is opened again.
    #[error("the log could not be written or read: {0}")]
    Storage(#[from] StorageError),
    /// An entry that is too long. Nothing was written.
    #[error("entry: expected 1 to {limit} bytes, got {got}")]
    PayloadLength {
        /// The longest entry.
        limit: usize,
        /// The length that came.
        got: usize,
    },
    /// A batch that is too large. Nothing was written.
    #[error("batch: expected at most {limit} {unit}, got {got}")]
    Batch {
        /// What is counted.
        unit: &'static str,
        /// The most of it.
        limit: usize,
        /// How much came.
        got: usize,
    },
    /// The log holds as much as it can. Nothing was written.
    #[error("the log is full: it holds at most {limit} entries; start a new one under a new key")]
    Full {
        /// The most entries.
        limit: u64,
    },
    /// No such entry, size or range.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// An entry that was whole when the log was opened no longer is.
    #[error("an entry changed on disk since the log was opened: {0}")]
    Changed(Damage),
    /// The checkpoint could not be made.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
