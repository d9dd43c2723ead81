//! The node's key pair and its public half.
//!
//! Verification is strict: low-order keys and commitments and non-canonical
//! scalars are refused, so one signature is valid for one message under one
//! key, everywhere.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::signature::check_note;
use crate::{Domain, NoteError, PeerId, Signature, SignatureError, vrf};

/// What BLAKE3 derives the VRF seed under; never used for anything else.
const VRF_SEED_CONTEXT: &str = "peerproof identity v1: VRF seed from node key seed";

/// Name under which a refused note signature is reported.
const NOTE_DOMAIN: &str = "signed note";

/// A secret key with its public half. Wiped from memory when dropped.
pub struct Keypair {
    signing: SigningKey,
}

impl Keypair {
    /// The pair that grows from 32 secret bytes (RFC 8032, 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { signing: SigningKey::from_bytes(seed) }
    }

    /// The seed, for storage or for a transport that signs with the same key.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.signing.as_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    /// Signs `message` as a statement of kind `domain`.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Signature {
        Signature::from_dalek(self.signing.sign(&domain.signed_bytes(message)))
    }

    /// Signs the text of a C2SP signed note, whose format fixes the signed
    /// bytes to the text itself. Refuses anything that is not such a text, so
    /// that this can't be used to sign a statement of another kind.
    pub fn sign_note(&self, note: &[u8]) -> Result<Signature, NoteError> {
        check_note(note)?;
        Ok(Signature::from_dalek(self.signing.sign(note)))
    }

    /// The VRF key that belongs to this key. Its seed is derived, so nothing
    /// either key publishes says anything about the other.
    pub fn vrf(&self) -> vrf::Secret {
        let seed = Zeroizing::new(blake3::derive_key(VRF_SEED_CONTEXT, self.signing.as_bytes()));
        vrf::Secret::from_seed(&seed)
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keypair").field("public", &self.public()).finish_non_exhaustive()
    }
}

/// An Ed25519 public key: a canonical point of full order.
// INVARIANT: the bytes passed `from_bytes` or come from a `SigningKey`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; Self::BYTES]);

impl PublicKey {
    /// Length in bytes.
    pub const BYTES: usize = 32;

    /// Accepts the canonical encoding of a point that is not of low order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; Self::BYTES] = bytes
            .try_into()
            .map_err(|_| KeyError::Length { expected: Self::BYTES, got: bytes.len() })?;
        check_point(&bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The name of this key on the network.
    pub const fn peer_id(&self) -> PeerId {
        PeerId::from_key(*self)
    }

    /// Checks that this key signed `message` as a statement of kind `domain`.
    pub fn verify(
        &self,
        domain: Domain,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        self.verify_strict(&domain.signed_bytes(message), signature, domain.tag())
    }

    /// Checks that this key signed the text of a note.
    pub fn verify_note(&self, note: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let mismatch = SignatureError::Mismatch { key: *self, domain: NOTE_DOMAIN };
        check_note(note).map_err(|_| mismatch)?;
        self.verify_strict(note, signature, NOTE_DOMAIN)
    }

    fn verify_strict(
        &self,
        bytes: &[u8],
        signature: &Signature,
        domain: &'static str,
    ) -> Result<(), SignatureError> {
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(bytes, &signature.to_dalek()))
            .map_err(|_| SignatureError::Mismatch { key: *self, domain })
    }
}

/// Refuses encodings that are no point, not the canonical one, or of low order.
pub(crate) fn check_point(bytes: &[u8; 32]) -> Result<(), KeyError> {
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
    if key.to_edwards().compress().as_bytes() != bytes {
        return Err(KeyError::NotCanonical);
    }
    if key.is_weak() {
        return Err(KeyError::LowOrder);
    }
    Ok(())
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Why bytes are not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the length of a key.
    #[error("public key: expected {expected} bytes, got {got}")]
    Length {
        /// Bytes a key has.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// No point of the curve has this encoding.
    #[error("public key: expected a point of the curve, got bytes that are none")]
    NotAPoint,
    /// A second encoding of a point.
    #[error("public key: expected the canonical encoding of its point, got another")]
    NotCanonical,
    /// A point under which one signature would fit many messages.
    #[error("public key: expected a point of full order, got one of low order")]
    LowOrder,
}
