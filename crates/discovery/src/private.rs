//! Topics that only those find who share a secret.
//!
//! The topic's id follows from the secret, the epoch and a beacon nobody could
//! know long before (the hash of the last checkpoint a quorum cosigned), and moves
//! every six hours; nobody can grind nodes next to it in advance, and nobody
//! without the secret can tell that two epochs' topics are one. For the first 30
//! minutes of an epoch the one before is served and asked for too, since clocks
//! and beacons arrive late. On the wire goes a hash of the id, and what is
//! advertised is encrypted under a key from the secret: a registrar learns
//! neither.
//!
//! Publishers sign under a key of their own for each epoch, derived from their
//! node's seed, the secret and the epoch, with the node's own advertisement, which
//! names that key, inside what is encrypted. Tor's hidden services blind the
//! identity key itself (rend-spec-v3); that needs signing with raw scalars, which
//! signature libraries keep from their users for good reason, and lets members
//! work out each other's future keys. A derived key with a certificate inside
//! needs nothing but ordinary signatures, costs one more of them, and only who can
//! read it learns whose it is.
//!
//! Plain text is padded to one length. Absent on purpose: how a secret is shared,
//! and agreeing on a beacon.

#[cfg(test)]
mod tests;

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key as CipherKey, Nonce, Tag};
use peerproof_identity::{Keypair, PublicKey};

use crate::topics::Topic;
use crate::topics::advert::{Advert, AdvertError, Offering, Said};

/// Length of an epoch.
pub const EPOCH_S: u64 = 6 * 3600;
/// For so long the epoch before is still served and asked for.
pub const OVERLAP_S: u64 = 30 * 60;
/// Bytes that are encrypted, whatever is said.
pub const PADDED_BYTES: usize = 640;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A secret that a group shares. `Debug` does not print it.
#[derive(Clone)]
pub struct GroupSecret([u8; 32]);

impl std::fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupSecret(..)")
    }
}

/// What nobody could know before the epoch was near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon(pub [u8; 32]);

/// One epoch of a private topic.
#[derive(Clone)]
pub struct Epoch {
    number: u64,
    key: [u8; 32],
}

impl std::fmt::Debug for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoch").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The number of the epoch at a wall-clock time, and that of the one before while
/// it is still served.
///
/// ```
/// use peerproof_discovery::private::{EPOCH_S, OVERLAP_S, epochs_at};
///
/// assert_eq!(epochs_at(7 * EPOCH_S), (7, Some(6)));
/// assert_eq!(epochs_at(7 * EPOCH_S + OVERLAP_S), (7, None));
/// ```
#[must_use]
pub const fn epochs_at(unix_s: u64) -> (u64, Option<u64>) {
    let number = unix_s / EPOCH_S;
    let before = if unix_s % EPOCH_S < OVERLAP_S { number.checked_sub(1) } else { None };
    (number, before)
}

/// Why something that was found is not of the group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// It is not encrypted.
    #[error("a private advertisement is sealed, this one is open")]
    Open,
    /// Not encrypted under this secret and epoch, or changed.
    #[error("not sealed under this group's secret for this epoch")]
    Sealed,
    /// What is inside has no place in it.
    #[error("what is sealed has no form")]
    Form,
    /// The certificate inside is not for this key and topic, or not signed.
    #[error("the certificate inside is not for the key that signed: {0}")]
    Certificate(AdvertError),
    /// Too long to be sealed.
    #[error("at most {limit} bytes are sealed, got {got}")]
    Length {
        /// The most.
        limit: usize,
        /// How many there were.
        got: usize,
    },
    /// It can't be signed.
    #[error(transparent)]
    Advert(#[from] AdvertError),
}

/// A member's advertisement, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The node's own key.
    pub publisher: PublicKey,
    /// What it offers.
    pub offering: Offering,
}

impl GroupSecret {
    /// 32 bytes that the members share.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What follows for one epoch.
    #[must_use]
    pub fn epoch(&self, number: u64, beacon: &Beacon) -> Epoch {
        let mut hasher = blake3::Hasher::new_derive_key("peerproof private topic epoch v1");
        hasher.update(&self.0).update(&number.to_be_bytes()).update(&beacon.0);
        Epoch { number, key: *hasher.finalize().as_bytes() }
    }
}

impl Epoch {
    fn derive(&self, purpose: &str, more: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(purpose.as_bytes()).update(&[0]).update(more);
        *hasher.finalize().as_bytes()
    }

    /// The topic as it is asked for on the wire: a hash of the id, which itself
    /// is never sent.
    #[must_use]
    pub fn topic(&self) -> Topic {
        Topic::of("private", &self.derive("id", &[]))
    }

    /// A publisher's key for this epoch. Nobody else can tell whose it is.
    #[must_use]
    pub fn publisher(&self, node: &Keypair) -> Keypair {
        let seed = blake3::derive_key("peerproof private publisher v1", &node.seed()[..]);
        Keypair::from_seed(blake3::keyed_hash(&seed, &self.derive("publisher", &[])).as_bytes())
    }

    /// Where a certificate stands, so that it is for one key in one epoch.
    fn certified(&self, blinded: &PublicKey) -> Topic {
        Topic(self.derive("certificate", blinded.as_bytes()))
    }

    /// Makes a member's advertisement. `entropy` is for this one alone.
    ///
    /// # Errors
    /// [`PrivateError::Length`], [`PrivateError::Advert`].
    pub fn seal(
        &self,
        node: &Keypair,
        offering: Offering,
        times: (u64, u64),
        entropy: [u8; NONCE_BYTES],
    ) -> Result<Advert, PrivateError> {
        let blinded = self.publisher(node);
        let inner = Advert::sign(node, self.certified(&blinded.public()), offering, times)?;
        let (got, limit) = (inner.as_bytes().len(), PADDED_BYTES - 2);
        if got > limit {
            return Err(PrivateError::Length { limit, got });
        }
        let mut text = vec![0; PADDED_BYTES];
        text[..2].copy_from_slice(&(got as u16).to_be_bytes());
        text[2..2 + got].copy_from_slice(inner.as_bytes());
        let public = blinded.public();
        let tag = self
            .cipher(&public)
            .encrypt_in_place_detached(Nonce::from_slice(&entropy), public.as_bytes(), &mut text)
            .map_err(|_| PrivateError::Sealed)?;
        let sealed = [&entropy[..], &text, &tag].concat();
        Ok(Advert::sign_sealed(&blinded, self.topic(), sealed, times)?)
    }

    /// Each publisher's key encrypts under its own.
    fn cipher(&self, blinded: &PublicKey) -> ChaCha20Poly1305 {
        let key = self.derive("cipher", blinded.as_bytes());
        ChaCha20Poly1305::new(CipherKey::from_slice(&key))
    }

    /// Reads what was found under the topic, with the certificate inside.
    ///
    /// # Errors
    /// [`PrivateError`]: it is not of a member.
    pub fn open(&self, advert: &Advert, unix_s: u64) -> Result<Opened, PrivateError> {
        let Said::Sealed(sealed) = advert.said() else { return Err(PrivateError::Open) };
        let blinded = advert.publisher();
        let split = sealed.split_first_chunk::<NONCE_BYTES>();
        let (nonce, rest) = split.ok_or(PrivateError::Sealed)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(PrivateError::Sealed)?;
        let mut text = text.to_vec();
        self.cipher(&blinded)
            .decrypt_in_place_detached(
                Nonce::from_slice(nonce),
                blinded.as_bytes(),
                &mut text,
                Tag::from_slice(tag),
            )
            .map_err(|_| PrivateError::Sealed)?;
        let (length, rest) = text.split_first_chunk::<2>().ok_or(PrivateError::Form)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (inner, padding) = rest.split_at_checked(length).ok_or(PrivateError::Form)?;
        if text.len() != PADDED_BYTES || padding.iter().any(|byte| *byte != 0) {
            return Err(PrivateError::Form);
        }
        let inner = Advert::decode(self.certified(&blinded), inner)
            .and_then(|inner| inner.check_time(unix_s).map(|()| inner))
            .map_err(PrivateError::Certificate)?;
        match inner.said() {
            Said::Open(offering) => {
                Ok(Opened { publisher: inner.publisher(), offering: offering.clone() })
            }
            Said::Sealed(_) => Err(PrivateError::Form),
        }
    }
}
