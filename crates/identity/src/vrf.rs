//! Verifiable random functions: draws that nobody can steer or repeat.
//!
//! ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381 (suite `0x03`). The holder of a
//! [`Secret`] turns any input into 64 bytes that look random and a [`Proof`]
//! that these, and no others, belong to the input and the key. The arithmetic
//! is the crate `vrf-rfc9381`; this module adds what it leaves open: proofs
//! and keys that are a second encoding of the same values are refused.

use std::fmt;

use vrf_rfc9381::ec::edwards25519::EdVrfProof;
use vrf_rfc9381::ec::edwards25519::tai::{
    EdVrfEdwards25519TaiPublicKey, EdVrfEdwards25519TaiSecretKey,
};
use vrf_rfc9381::{Proof as _, Prover as _, Verifier as _};
use zeroize::Zeroizing;

use crate::KeyError;
use crate::key::check_point;

/// A secret VRF key. Wiped from memory when dropped.
///
/// ```
/// use peerproof_identity::Keypair;
///
/// let secret = Keypair::from_seed(&[7; 32]).vrf();
/// let (output, proof) = secret.prove(b"the 12th draw")?;
/// assert_eq!(secret.public().verify(b"the 12th draw", &proof)?, output);
/// # Ok::<(), peerproof_identity::vrf::VrfError>(())
/// ```
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// The key whose secret string `SK` is `seed`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*seed))
    }

    /// The public half.
    pub fn public(&self) -> Public {
        // A VRF key and a signature key grow from their seeds alike (RFC 9381,
        // 5.5: as in RFC 8032), so the signature library can do it.
        let signing = ed25519_dalek::SigningKey::from_bytes(&self.0);
        Public(signing.verifying_key().to_bytes())
    }

    /// The output for `alpha`, with its proof.
    ///
    /// Fails only if 256 tries hit no point of the curve, which has odds of 2⁻²⁵⁶.
    pub fn prove(&self, alpha: &[u8]) -> Result<(Output, Proof), VrfError> {
        let prover = EdVrfEdwards25519TaiSecretKey::from_slice(self.0.as_slice())
            .map_err(|_| VrfError::NoPoint)?;
        let proof = prover.prove(alpha).map_err(|_| VrfError::NoPoint)?;
        let bytes = proof.encode_to_pi();
        Ok((output_of(&proof)?, Proof::from_bytes(&bytes)?))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("public", &self.public()).finish_non_exhaustive()
    }
}

/// A public VRF key: a canonical point of full order.
// INVARIANT: the bytes passed `check_point` or come from a `SigningKey`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Public([u8; Self::BYTES]);

impl Public {
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

    /// The output that `proof` shows to belong to `alpha`.
    pub fn verify(&self, alpha: &[u8], proof: &Proof) -> Result<Output, VrfError> {
        let key = EdVrfEdwards25519TaiPublicKey::from_slice(&self.0)
            .map_err(|_| VrfError::Mismatch { key: *self })?;
        let output = key
            .verify(alpha, decode_canonical(&proof.0)?)
            .map_err(|_| VrfError::Mismatch { key: *self })?;
        Ok(Output(output.into()))
    }
}

impl fmt::Display for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vrf::Public({self})")
    }
}

/// A proof as it travels: 80 bytes, `Gamma ‖ c ‖ s`, canonical but not yet checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proof([u8; Self::BYTES]);

impl Proof {
    /// Length in bytes.
    pub const BYTES: usize = 80;

    /// Accepts the one encoding its values have.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VrfError> {
        let bytes: [u8; Self::BYTES] = bytes
            .try_into()
            .map_err(|_| VrfError::Length { expected: Self::BYTES, got: bytes.len() })?;
        decode_canonical(&bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vrf::Proof(")?;
        for byte in &self.0[..8] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "…)")
    }
}

/// What a key makes of an input: 64 bytes, uniform to everyone without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Output([u8; Self::BYTES]);

impl Output {
    /// Length in bytes.
    pub const BYTES: usize = 64;

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The first eight bytes as a little-endian number, to draw lots with.
    pub fn lot(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }
}

/// Decodes a proof and refuses all but its canonical encoding: RFC 9381, 5.4.4
/// step 8 wants `s` below the group order, and 5.5 points as in RFC 8032.
fn decode_canonical(bytes: &[u8; Proof::BYTES]) -> Result<EdVrfProof, VrfError> {
    let proof = EdVrfProof::decode_pi(bytes).map_err(|_| VrfError::NotAPoint)?;
    if proof.encode_to_pi() == bytes { Ok(proof) } else { Err(VrfError::NotCanonical) }
}

fn output_of(proof: &EdVrfProof) -> Result<Output, VrfError> {
    proof
        .proof_to_hash(vrf_rfc9381::Ciphersuite::ECVRF_EDWARDS25519_SHA512_TAI)
        .map(|hash| Output(hash.into()))
        .map_err(|_| VrfError::NoPoint)
}

/// Why a proof was refused, or could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VrfError {
    /// Not the length of a proof.
    #[error("VRF proof: expected {expected} bytes, got {got}")]
    Length {
        /// Bytes a proof has.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// The first 32 bytes are no point.
    #[error("VRF proof: expected a point of the curve first, got bytes that are none")]
    NotAPoint,
    /// A second encoding of the same values.
    #[error("VRF proof: expected the canonical encoding of its values, got another")]
    NotCanonical,
    /// A proof for another input or by another key.
    #[error("VRF proof: expected one by key {key} over this input, got another")]
    Mismatch {
        /// The key it was checked against.
        key: Public,
    },
    /// The input hashed to no point of the curve, 256 times over.
    #[error("VRF input: expected to reach a point of the curve, got none in 256 tries")]
    NoPoint,
}
