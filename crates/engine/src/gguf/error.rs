//! Why a model file was refused, or a key or tensor could not be had.

use std::path::PathBuf;

/// What is wrong with a file, or with a question asked of it. Nothing is
/// changed by any of these: a file is read whole or not at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file can't be opened or mapped.
    #[error("can't read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: expected it to begin with \"GGUF\", got {got:?}")]
    Magic {
        /// The bytes found.
        got: String,
    },
    /// A version this reader doesn't know.
    #[error("GGUF version {got}: expected 2 or 3, little-endian")]
    Version {
        /// The version found.
        got: u32,
    },
    /// The file ends too early.
    #[error("{place}: the file ends there: expected {expected} more bytes, got {got}")]
    Truncated {
        /// What was being read.
        place: String,
        /// Bytes needed.
        expected: u64,
        /// Bytes left.
        got: u64,
    },
    /// A length or count above its cap.
    #[error("{place}: {what} of {got} is above the limit of {limit}")]
    OverLimit {
        /// Where.
        place: String,
        /// What is counted.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What the file says.
        got: u64,
    },
    /// A key or name that is empty, not UTF-8, or has control characters in it.
    #[error("{place}: expected a name in printable UTF-8, got {got:?}")]
    BadName {
        /// Which key or tensor, by number.
        place: String,
        /// The bytes found.
        got: String,
    },
    /// A string that is not UTF-8.
    #[error("key {place:?}: the string is not UTF-8")]
    NotUtf8 {
        /// The key.
        place: String,
    },
    /// A key twice.
    #[error("key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A type number this reader doesn't know.
    #[error("key {key:?}: expected a value type of 0 to 12, got {got}")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The number found.
        got: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("key {key:?}: expected a truth value of 0 or 1, got {got}")]
    BadBool {
        /// The key.
        key: String,
        /// The byte found.
        got: u8,
    },
    /// The key is not in the file.
    #[error("the file has no key {key:?}")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// The value has another type.
    #[error("key {key:?}: expected {expected}, got {got}")]
    WrongType {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What the file holds.
        got: String,
    },
    /// An alignment that is no power of two from 8 to the limit.
    #[error("general.alignment: expected a power of two from 8 to {limit}, got {got}")]
    Alignment {
        /// The limit.
        limit: u32,
        /// What the file says.
        got: u32,
    },
    /// A tensor name twice.
    #[error("tensor {name:?} occurs twice")]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// An element format this reader doesn't know.
    #[error("tensor {name:?}: element format {got} is not known here; known are {known}")]
    UnknownKind {
        /// The tensor.
        name: String,
        /// The number found.
        got: u32,
        /// Every known format.
        known: String,
    },
    /// Dimensions that are zero, or too many elements to count.
    #[error(
        "tensor {name:?}: expected dimensions above zero with a product below 2^63, got {got:?}"
    )]
    Dims {
        /// The tensor.
        name: String,
        /// What the file says.
        got: Vec<u64>,
    },
    /// A row that is not a whole number of blocks.
    #[error("tensor {name:?}: expected rows of a multiple of {expected} elements, got {got}")]
    BrokenBlock {
        /// The tensor.
        name: String,
        /// Elements in a block.
        expected: u64,
        /// Elements in a row.
        got: u64,
    },
    /// A tensor that doesn't begin at a multiple of the alignment.
    #[error("tensor {name:?}: expected an offset that is a multiple of {expected}, got {got}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// The alignment.
        expected: u64,
        /// The offset.
        got: u64,
    },
    /// A tensor that reaches past the end of the file.
    #[error(
        "tensor {name:?} lies beyond the file: expected an end at or before {expected}, got {got}"
    )]
    BeyondFile {
        /// The tensor.
        name: String,
        /// The size of the data section.
        expected: u64,
        /// Where the tensor would end.
        got: u128,
    },
    /// Two tensors that share bytes.
    #[error("tensor {name:?} overlaps tensor {other:?}")]
    Overlap {
        /// The later tensor.
        name: String,
        /// The earlier one.
        other: String,
    },
    /// The tensor is not in the file.
    #[error("the file has no tensor {name:?}")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
}

/// A stranger's bytes made fit for an error message: short, and printable.
pub(super) fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let cut = &bytes[..bytes.len().min(SHOWN)];
    let mut text: String = String::from_utf8_lossy(cut)
        .chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}
