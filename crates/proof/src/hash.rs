//! The one way this crate hashes: BLAKE3 under a tag.
//!
//! Every hash begins with a tag and a zero byte, so bytes hashed for one
//! purpose never stand for another. Integers are little-endian, and whatever
//! varies in length is preceded by its length. Layouts: `docs/spec/proof.md`.

use peerproof_wire::Digest;

/// A BLAKE3 hasher that has absorbed `tag` and a zero byte.
pub(crate) struct Tagged(blake3::Hasher);

impl Tagged {
    pub(crate) fn new(tag: &str) -> Self {
        Self::start(blake3::Hasher::new(), tag)
    }

    pub(crate) fn keyed(key: &[u8; 32], tag: &str) -> Self {
        Self::start(blake3::Hasher::new_keyed(key), tag)
    }

    fn start(mut hasher: blake3::Hasher, tag: &str) -> Self {
        hasher.update(tag.as_bytes()).update(&[0]);
        Self(hasher)
    }

    /// Bytes whose length the layout fixes.
    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// Bytes of any length, preceded by that length as a u64.
    pub(crate) fn sized(self, bytes: &[u8]) -> Self {
        self.u64(bytes.len() as u64).fixed(bytes)
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.fixed(&[value])
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.fixed(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.fixed(&value.to_le_bytes())
    }

    /// Token ids, preceded by how many there are as a u64.
    pub(crate) fn tokens(self, tokens: &[u32]) -> Self {
        tokens.iter().fold(self.u64(tokens.len() as u64), |hash, token| hash.u32(*token))
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::from_bytes(*self.0.finalize().as_bytes())
    }

    pub(crate) fn stream(self) -> blake3::OutputReader {
        self.0.finalize_xof()
    }
}
