//! Every limit of the log in one place.

/// The longest payload of an entry.
pub const MAX_PAYLOAD_BYTES: usize = 4 << 20;

/// The most entries one batch appends.
pub const MAX_BATCH_ENTRIES: usize = 1024;

/// The most payload bytes one batch appends.
pub const MAX_BATCH_BYTES: usize = 16 << 20;

/// A segment that a batch would push beyond this length is closed, the batch
/// opens the next one.
pub const MAX_SEGMENT_BYTES: u64 = 64 << 20;

/// The most entries a log holds; about 300 MB of hashes in memory.
pub const MAX_ENTRIES: u64 = 1 << 22;

/// The longest signed note that is parsed.
pub const MAX_NOTE_BYTES: usize = 16 << 10;

/// The most signatures on a note: the log's own and its witnesses'.
pub const MAX_NOTE_SIGNATURES: usize = 32;

/// The most extension lines of a checkpoint.
pub const MAX_EXTENSION_LINES: usize = 16;

/// The most logs a witness follows; about 40 MB.
pub const MAX_WITNESSED_LOGS: usize = 1 << 16;

/// How much is read from storage at once.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Bytes of a request to cosign a checkpoint: a note, a path, and the line before them.
pub const MAX_ADD_CHECKPOINT_BYTES: usize = MAX_NOTE_BYTES + 63 * 48 + 64;
