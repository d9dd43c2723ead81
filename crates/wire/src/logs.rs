//! The log conversation, [`LOG_PROTOCOL`](crate::LOG_PROTOCOL): pieces of a node's log,
//! what it saw of others' logs, cosignatures, and the proofs it holds.
//!
//! A stream carries any number of requests, each answered before the next is
//! read. Notes and tiles travel as the bytes that C2SP defines; this crate bounds
//! them and leaves them to be judged elsewhere. Whatever comes back proves itself
//! or is checked against a signed root, so it does not matter who sent it.

use peerproof_identity::PublicKey;

use crate::check::{self, count, line, not_empty, within};
use crate::codec::Codec;
use crate::evidence::Evidence;
use crate::shape::{self, Shape};
use crate::{WireError, limits, proto};

/// A question about logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRequest {
    /// A piece of the answering node's own log, by its path: `checkpoint`, `tile/…`.
    Piece(String),
    /// The last checkpoint of this key's log that the answering node cosigned.
    Cosigned(PublicKey),
    /// A checkpoint to be cosigned: the body of a C2SP tlog-witness request.
    AddCheckpoint(Vec<u8>),
    /// The first proof that stands at or after this place of the answering node's log.
    Held(HeldFrom),
}

/// Where to look on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldFrom {
    /// A position in the answering node's log.
    pub index: u64,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogReply {
    /// The piece, the note, or the line of the cosignature.
    Found(Vec<u8>),
    /// Why not.
    Refused(LogRefusal),
    /// A proof.
    Held(Box<HeldProof>),
}

/// Says no to one request; the stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRefusal {
    /// The number that HTTP has for it, 400 to 599.
    pub status: u32,
    /// The reason, for a person: one line.
    pub message: String,
    /// The last checkpoint of that log that was cosigned; empty if there is none to show.
    pub last: String,
}

impl LogRefusal {
    /// A refusal without a checkpoint. The message is made one line and cut to its limit.
    pub fn new(status: u32, message: impl AsRef<str>) -> Self {
        let message = check::to_line(message.as_ref(), limits::MAX_FAILURE_MESSAGE_BYTES);
        Self { status, message, last: String::new() }
    }
}

/// Evidence that the answering node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldProof {
    /// Its place in that node's log.
    pub index: u64,
    /// What it is.
    pub evidence: Evidence,
}

impl Codec for LogRequest {
    type Proto = proto::LogRequest;
    const NAME: &'static str = "log request";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::LOG_REQUEST;

    fn to_proto(&self) -> proto::LogRequest {
        use proto::log_request::Question;
        let question = match self {
            Self::Piece(path) => Question::Piece(path.clone()),
            Self::Cosigned(key) => Question::Cosigned(key.as_bytes().to_vec()),
            Self::AddCheckpoint(body) => Question::AddCheckpoint(body.clone()),
            Self::Held(from) => Question::Held(from.to_proto()),
        };
        proto::LogRequest { question: Some(question) }
    }

    fn from_proto(proto: proto::LogRequest) -> Result<Self, WireError> {
        use proto::log_request::Question;
        Ok(match check::required("log_request", proto.question)? {
            Question::Piece(path) => Self::Piece(path),
            Question::Cosigned(key) => {
                Self::Cosigned(check::public_key("log_request.cosigned", &key)?)
            }
            Question::AddCheckpoint(body) => Self::AddCheckpoint(body),
            Question::Held(from) => Self::Held(HeldFrom::from_proto(from)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Piece(path) => {
                not_empty("log_request.piece", path.is_empty())?;
                line("log_request.piece", path, limits::MAX_LOG_PATH_BYTES)
            }
            Self::AddCheckpoint(body) => {
                let place = "log_request.add_checkpoint";
                not_empty(place, body.is_empty())?;
                count(place, body.len(), limits::MAX_ADD_CHECKPOINT_BYTES)
            }
            Self::Cosigned(_) | Self::Held(_) => Ok(()),
        }
    }
}

impl Codec for HeldFrom {
    type Proto = proto::HeldFrom;
    const NAME: &'static str = "held from";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::HELD_FROM;

    fn to_proto(&self) -> proto::HeldFrom {
        proto::HeldFrom { index: self.index }
    }

    fn from_proto(proto: proto::HeldFrom) -> Result<Self, WireError> {
        Ok(Self { index: proto.index })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

impl Codec for LogReply {
    type Proto = proto::LogReply;
    const NAME: &'static str = "log reply";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::LOG_REPLY;

    fn to_proto(&self) -> proto::LogReply {
        use proto::log_reply::Reply;
        let reply = match self {
            Self::Found(bytes) => Reply::Found(bytes.clone()),
            Self::Refused(refusal) => Reply::Refused(refusal.to_proto()),
            Self::Held(proof) => Reply::Held(proof.to_proto()),
        };
        proto::LogReply { reply: Some(reply) }
    }

    fn from_proto(proto: proto::LogReply) -> Result<Self, WireError> {
        use proto::log_reply::Reply;
        Ok(match check::required("log_reply", proto.reply)? {
            Reply::Found(bytes) => Self::Found(bytes),
            Reply::Refused(refusal) => Self::Refused(LogRefusal::from_proto(refusal)?),
            Reply::Held(proof) => Self::Held(Box::new(HeldProof::from_proto(proof)?)),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Found(bytes) => {
                not_empty("log_reply.found", bytes.is_empty())?;
                count("log_reply.found", bytes.len(), limits::MAX_LOG_PIECE_BYTES)
            }
            Self::Refused(refusal) => refusal.check(),
            Self::Held(proof) => proof.check(),
        }
    }
}

impl Codec for LogRefusal {
    type Proto = proto::LogRefusal;
    const NAME: &'static str = "log refusal";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::LOG_REFUSAL;

    fn to_proto(&self) -> proto::LogRefusal {
        proto::LogRefusal {
            status: self.status,
            message: self.message.clone(),
            last: self.last.clone(),
        }
    }

    fn from_proto(proto: proto::LogRefusal) -> Result<Self, WireError> {
        Ok(Self { status: proto.status, message: proto.message, last: proto.last })
    }

    fn check(&self) -> Result<(), WireError> {
        within("log_refusal.status", self.status.into(), 400, 599)?;
        not_empty("log_refusal.message", self.message.is_empty())?;
        line("log_refusal.message", &self.message, limits::MAX_FAILURE_MESSAGE_BYTES)?;
        count("log_refusal.last", self.last.len(), limits::MAX_CHECKPOINT_BYTES)
    }
}

impl Codec for HeldProof {
    type Proto = proto::HeldProof;
    const NAME: &'static str = "held proof";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::HELD_PROOF;

    fn to_proto(&self) -> proto::HeldProof {
        proto::HeldProof { index: self.index, evidence: Some(self.evidence.to_proto()) }
    }

    fn from_proto(proto: proto::HeldProof) -> Result<Self, WireError> {
        let evidence = check::required("held_proof.evidence", proto.evidence)?;
        Ok(Self { index: proto.index, evidence: Evidence::from_proto(evidence)? })
    }

    fn check(&self) -> Result<(), WireError> {
        self.evidence.check()
    }
}
