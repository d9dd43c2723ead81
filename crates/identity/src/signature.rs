//! Signatures and the reasons to refuse one.

use std::fmt;

/// An Ed25519 signature as it travels: 64 bytes, not yet checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; Self::BYTES]);

impl Signature {
    /// Length in bytes.
    pub const BYTES: usize = 64;

    /// Takes 64 bytes as they are; whether they sign anything, verification tells.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SignatureError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| SignatureError::Length { expected: Self::BYTES, got: bytes.len() })
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    pub(crate) fn from_dalek(signature: ed25519_dalek::Signature) -> Self {
        Self(signature.to_bytes())
    }

    pub(crate) fn to_dalek(self) -> ed25519_dalek::Signature {
        ed25519_dalek::Signature::from_bytes(&self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature(")?;
        for byte in &self.0[..8] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "…)")
    }
}

/// Why a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not the length of a signature.
    #[error("signature: expected {expected} bytes, got {got}")]
    Length {
        /// Bytes a signature has.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// Well-formed, but this key did not sign these bytes in this domain; or
    /// the signature is one of the malleable forms that strict verification refuses.
    #[error("signature: expected one by key {key} over these bytes as \"{domain}\", got another")]
    Mismatch {
        /// The key it was checked against.
        key: crate::PublicKey,
        /// Tag of the domain it was checked in.
        domain: &'static str,
    },
}

/// Why a text can't be signed as a note.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not UTF-8.
    #[error("note: expected UTF-8, got an invalid byte at {place}")]
    NotUtf8 {
        /// Index of the first bad byte.
        place: usize,
    },
    /// A control character other than the newline.
    #[error("note: expected printable text, got control byte {got:#04x} at {place}")]
    ControlCharacter {
        /// Index of the byte.
        place: usize,
        /// The byte.
        got: u8,
    },
    /// Empty, or not closed by a newline.
    #[error("note: expected text that ends in a newline")]
    NoFinalNewline,
}

/// Checks that `note` is text as the C2SP signed-note format demands. That it
/// holds no zero byte is what keeps notes apart from every [`Domain`](crate::Domain).
pub(crate) fn check_note(note: &[u8]) -> Result<(), NoteError> {
    let text = std::str::from_utf8(note)
        .map_err(|error| NoteError::NotUtf8 { place: error.valid_up_to() })?;
    if let Some((place, got)) =
        text.bytes().enumerate().find(|&(_, byte)| byte < 0x20 && byte != b'\n')
    {
        return Err(NoteError::ControlCharacter { place, got });
    }
    if text.ends_with('\n') { Ok(()) } else { Err(NoteError::NoFinalNewline) }
}
