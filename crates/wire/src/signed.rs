//! Statements with a signature, and the envelope they travel in.
//!
//! A [`Signed`] is proof that its key signed its bytes: the only ways to one
//! are to sign and to verify. What is signed is the payload as received, in
//! the statement's own domain; what is hashed to an id is payload and key.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use peerproof_identity::{Domain, Keypair, PublicKey, Signature};

use crate::codec::Codec;
use crate::shape::{self, Shape};
use crate::{Digest, Message, WireError, check, limits, proto};

/// A message that is signed as a whole.
pub trait Statement: Message {
    /// The kind that its signatures name.
    const DOMAIN: Domain;
}

/// Payload, key and signature as they came: the key is a key, nothing else is checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Encoding of a statement.
    pub payload: Vec<u8>,
    /// Who claims to have signed it.
    pub key: PublicKey,
    /// The signature, unverified.
    pub signature: Signature,
}

impl Codec for Envelope {
    type Proto = proto::Envelope;
    const NAME: &'static str = "envelope";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::ENVELOPE;

    fn to_proto(&self) -> proto::Envelope {
        proto::Envelope {
            payload: self.payload.clone(),
            key: self.key.as_bytes().to_vec(),
            signature: self.signature.as_bytes().to_vec(),
        }
    }

    fn from_proto(proto: proto::Envelope) -> Result<Self, WireError> {
        Ok(Self {
            key: check::public_key("envelope.key", &proto.key)?,
            signature: Signature::from_bytes(&proto.signature)
                .map_err(|source| WireError::Signature { place: "envelope.signature", source })?,
            payload: proto.payload,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check::not_empty("envelope.payload", self.payload.is_empty())
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("payload_bytes", &self.payload.len())
            .field("key", &self.key)
            .field("signature", &self.signature)
            .finish()
    }
}

/// A statement whose signature holds. Cheap to clone.
pub struct Signed<T>(Arc<Inner<T>>);

struct Inner<T> {
    statement: T,
    envelope: Envelope,
    id: Digest,
}

impl<T: Statement> Signed<T> {
    /// Signs `statement`, if it keeps every limit.
    pub fn sign(key: &Keypair, statement: T) -> Result<Self, WireError> {
        let payload = statement.encode()?;
        let envelope =
            Envelope { signature: key.sign(T::DOMAIN, &payload), key: key.public(), payload };
        Ok(Self::assemble(statement, envelope))
    }

    /// Opens an envelope: size, decoding, canonical form, then the signature.
    pub fn open(envelope: Envelope) -> Result<Self, WireError> {
        let statement = T::decode(&envelope.payload)?;
        envelope
            .key
            .verify(T::DOMAIN, &envelope.payload, &envelope.signature)
            .map_err(|source| WireError::Signature { place: <T as Message>::NAME, source })?;
        Ok(Self::assemble(statement, envelope))
    }

    fn assemble(statement: T, envelope: Envelope) -> Self {
        let id = statement_id(T::DOMAIN, &envelope.key, &envelope.payload);
        Self(Arc::new(Inner { statement, envelope, id }))
    }

    pub(crate) fn from_proto(
        place: check::Place,
        proto: Option<proto::Envelope>,
    ) -> Result<Self, WireError> {
        let envelope = Envelope::from_proto(check::required(place, proto)?)?;
        Self::open(envelope)
    }

    pub(crate) fn to_proto(&self) -> Option<proto::Envelope> {
        Some(self.0.envelope.to_proto())
    }
}

impl<T> Signed<T> {
    /// What was signed.
    pub fn statement(&self) -> &T {
        &self.0.statement
    }

    /// Who signed it.
    pub fn key(&self) -> PublicKey {
        self.0.envelope.key
    }

    /// The statement's name: a hash of kind, key and payload.
    pub fn id(&self) -> Digest {
        self.0.id
    }

    /// The envelope to send or keep.
    pub fn envelope(&self) -> Envelope {
        self.0.envelope.clone()
    }
}

/// `BLAKE3(tag ‖ " id" ‖ 0x00 ‖ key ‖ length ‖ payload)`, the length as eight
/// little-endian bytes.
fn statement_id(domain: Domain, key: &PublicKey, payload: &[u8]) -> Digest {
    let hash = blake3::Hasher::new()
        .update(domain.tag().as_bytes())
        .update(b" id\0")
        .update(key.as_bytes())
        .update(&(payload.len() as u64).to_le_bytes())
        .update(payload)
        .finalize();
    Digest::from_bytes(hash.into())
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.statement
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.envelope == other.0.envelope
    }
}

impl<T> Eq for Signed<T> {}

impl<T: fmt::Debug> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("id", &self.0.id)
            .field("key", &self.0.envelope.key)
            .field("statement", &self.0.statement)
            .finish()
    }
}
