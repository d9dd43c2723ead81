//! Why bytes or values were refused.

use peerproof_identity::{KeyError, SignatureError, vrf::VrfError};

/// What is wrong with a message, and where. Nothing has changed when one of
/// these comes back. `place` reads `message.field`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("{place}: expected {expected} more bytes, got {got}")]
    Truncated {
        /// The field.
        place: &'static str,
        /// Bytes announced.
        expected: u64,
        /// Bytes left.
        got: u64,
    },
    /// A field in a form its schema doesn't give it.
    #[error("{place}: expected wire type {expected}, got {got}")]
    WireType {
        /// The field.
        place: &'static str,
        /// As the schema says (Protocol Buffers' numbering).
        expected: u8,
        /// As it came.
        got: u8,
    },
    /// Text that is not UTF-8.
    #[error("{place}: expected UTF-8, got a bad byte after {valid_bytes} good ones")]
    NotUtf8 {
        /// The field.
        place: &'static str,
        /// Bytes of valid text before the first bad one.
        valid_bytes: usize,
    },
    /// Right in shape, and still refused by the parser.
    #[error("{place}: expected a well-formed message, got: {reason}")]
    Malformed {
        /// The message.
        place: &'static str,
        /// What the parser met.
        reason: String,
    },
    /// A second encoding of the same values: unknown fields, defaults written
    /// out, long varints, another order.
    #[error("{place}: expected {expected} {got}")]
    NotCanonical {
        /// The message or field.
        place: &'static str,
        /// What a canonical encoding has, and what `got` counts.
        expected: &'static str,
        /// What came.
        got: u64,
    },
    /// A required field is absent.
    #[error("{place}: expected a value, got none")]
    Missing {
        /// The field.
        place: &'static str,
    },
    /// A text or list that must hold something is empty.
    #[error("{place}: expected at least one, got an empty value")]
    Empty {
        /// The field.
        place: &'static str,
    },
    /// Bytes of the wrong length.
    #[error("{place}: expected {expected} bytes, got {got}")]
    Length {
        /// The field.
        place: &'static str,
        /// Bytes wanted, or a divisor of their number for a list of hashes.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A size, count or value above its limit.
    #[error("{place}: expected at most {limit}, got {got}")]
    OverLimit {
        /// The field.
        place: &'static str,
        /// The limit, inclusive.
        limit: u64,
        /// What came.
        got: u64,
    },
    /// A value below the least that makes sense.
    #[error("{place}: expected at least {least}, got {got}")]
    TooSmall {
        /// The field.
        place: &'static str,
        /// The least value.
        least: u64,
        /// What came.
        got: u64,
    },
    /// A number that names nothing.
    #[error("{place}: expected one of its named values, got {got}")]
    Unnamed {
        /// The field.
        place: &'static str,
        /// What came.
        got: i32,
    },
    /// Another version of the protocol or of the arithmetic.
    #[error("{place}: expected version {expected}, got {got}")]
    Version {
        /// The field.
        place: &'static str,
        /// The version spoken here.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// A control character where a line of text belongs.
    #[error("{place}: expected printable text, got control character {got:?}")]
    ControlCharacter {
        /// The field.
        place: &'static str,
        /// The character.
        got: char,
    },
    /// Fields that contradict each other.
    #[error("{place}: expected {expected}, got {got}")]
    Inconsistent {
        /// The field.
        place: &'static str,
        /// What the other fields demand.
        expected: &'static str,
        /// What came.
        got: u64,
    },
    /// Text that is not the hexadecimal form of 32 bytes.
    #[error("{place}: expected 64 hexadecimal digits, got {got} characters or another alphabet")]
    NotHex {
        /// The type.
        place: &'static str,
        /// Characters that came.
        got: usize,
    },
    /// Bytes that are no key.
    #[error("{place}: {source}")]
    Key {
        /// The field.
        place: &'static str,
        /// Why not.
        source: KeyError,
    },
    /// Bytes that are no VRF proof.
    #[error("{place}: {source}")]
    Vrf {
        /// The field.
        place: &'static str,
        /// Why not.
        source: VrfError,
    },
    /// The signature does not fit payload, key and kind of statement.
    #[error("{place}: {source}")]
    Signature {
        /// The statement.
        place: &'static str,
        /// Why not.
        source: SignatureError,
    },
    /// A frame's length prefix is longer than the number needs, or than any number may be.
    #[error("frame length: expected a minimal varint, got another")]
    LengthPrefix,
    /// A value of this side breaks a rule; it was not encoded.
    #[error("can't send this: {0}")]
    Unsendable(Box<WireError>),
}

/// Who made the mistake behind an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This side built something it may not send.
    Ours,
    /// Whoever made the bytes.
    Theirs,
}

impl WireError {
    /// Whose mistake this is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unsendable(_) => Fault::Ours,
            _ => Fault::Theirs,
        }
    }
}
