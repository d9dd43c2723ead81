//! The libp2p name of a key.
//!
//! For Ed25519 the name holds the key whole: an identity multihash of the
//! protobuf `PublicKey { type: Ed25519, data }`, in base58btc. It reads
//! `12D3KooW…`. Only this kind is accepted; RSA, secp256k1 and hashed ids of
//! other networks are refused.

use std::fmt;
use std::str::FromStr;

use crate::{KeyError, PublicKey};

/// Identity multihash (code 0, 36 bytes) of the protobuf key (field 1 =
/// Ed25519, field 2 = 32 bytes).
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Longest text that is looked at; 38 bytes never need more.
const MAX_TEXT_BYTES: usize = 52;

/// A node's name: its public key in the form libp2p prints.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(PublicKey);

impl PeerId {
    /// Length of the binary form.
    pub const BYTES: usize = PREFIX.len() + PublicKey::BYTES;

    pub(crate) const fn from_key(key: PublicKey) -> Self {
        Self(key)
    }

    /// Reads the binary form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PeerIdError> {
        if bytes.len() != Self::BYTES {
            return Err(PeerIdError::Length { expected: Self::BYTES, got: bytes.len() });
        }
        let (prefix, key) = bytes.split_at(PREFIX.len());
        if prefix != PREFIX {
            return Err(PeerIdError::NotEd25519);
        }
        Ok(Self(PublicKey::from_bytes(key)?))
    }

    /// The binary form: 38 bytes of multihash.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..PREFIX.len()].copy_from_slice(&PREFIX);
        bytes[PREFIX.len()..].copy_from_slice(self.0.as_bytes());
        bytes
    }

    /// The key this names.
    pub const fn public_key(&self) -> PublicKey {
        self.0
    }
}

impl From<PublicKey> for PeerId {
    fn from(key: PublicKey) -> Self {
        Self(key)
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(PeerIdError::TextTooLong { limit: MAX_TEXT_BYTES, got: text.len() });
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| PeerIdError::NotBase58)?;
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_bytes()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// Why a text or bytes are not a peer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// Longer than any id.
    #[error("peer id: expected at most {limit} characters, got {got}")]
    TextTooLong {
        /// Longest accepted text.
        limit: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A character outside the alphabet.
    #[error("peer id: expected base58, got another character")]
    NotBase58,
    /// Not the length of an Ed25519 id.
    #[error("peer id: expected {expected} bytes, got {got}")]
    Length {
        /// Bytes an id has.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// An id of another kind of key.
    #[error("peer id: expected one of an Ed25519 key (12D3KooW…), got another kind")]
    NotEd25519,
    /// The key inside is none.
    #[error("peer id: {0}")]
    Key(#[from] KeyError),
}
