//! Why a range cannot be opened, or an opening is refused.

use peerproof_wire::Digest;

use super::MAX_LENGTH;

/// Why a range cannot be opened, or an opening is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// No string is that long.
    #[error("length of the string: expected at most {MAX_LENGTH} bytes, got {got}")]
    Length {
        /// The length.
        got: u64,
    },
    /// The range has no bytes, or some that the string does not have.
    #[error(
        "range: expected at least one byte within the {length} of the string, got {start}..{end}"
    )]
    Range {
        /// The string's length.
        length: u64,
        /// First byte of the range.
        start: u64,
        /// First byte after the range.
        end: u64,
    },
    /// More than is opened at once.
    #[error("range: expected at most {expected} bytes with its groups, got {got}")]
    TooLong {
        /// The most there may be.
        expected: u64,
        /// Bytes of the groups that the range touches.
        got: u64,
    },
    /// The string has no such group.
    #[error("group: expected less than {expected}, got {got}")]
    Group {
        /// How many there are.
        expected: u64,
        /// The one named.
        got: u64,
    },
    /// Not the bytes of the covered groups.
    #[error("opened bytes: expected {expected}, got {got}")]
    Bytes {
        /// The covered groups' length.
        expected: u64,
        /// How many came.
        got: u64,
    },
    /// Not the number of hashes that range and length fix.
    #[error("hashes beside the range: expected {expected}, got {got}")]
    Hashes {
        /// The number the tree's shape demands.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// Bytes and hashes do not lead to the string's hash.
    #[error("range: expected the root {expected}, got {got}")]
    Root {
        /// The string's hash.
        expected: Digest,
        /// What the opening leads to.
        got: Digest,
    },
    /// What is read for an opening is not what the tree was built over.
    #[error("byte {at}: expected the bytes that the tree was built over, got others")]
    Changed {
        /// First byte of the group.
        at: u64,
    },
    /// A stored tree is not of this form, or not of this string.
    #[error("stored tree, {place}: expected {expected}, got {got}")]
    Stored {
        /// The field.
        place: &'static str,
        /// What belongs there.
        expected: String,
        /// What is there.
        got: String,
    },
}
