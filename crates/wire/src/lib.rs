//! Every message and every signed statement of the network, one codec, all limits.
//!
//! Bytes from a peer, a log or an evidence file become a domain type only
//! through [`Message::decode`] or [`Signed::open`]: size, shape, limits, then
//! the signature. A value that came out satisfies every bound in [`limits`],
//! and its encoding is the only one it has. Domain types become bytes through
//! [`Message::encode`] and [`Signed::sign`], which refuse what a peer would.
//!
//! One module a conversation: [`job`], [`audit`], [`announce`], [`range`], [`cells`],
//! [`dispute`]; [`evidence`] for what is kept; [`frame`] for how messages follow each other on a stream.
//! The schemas are in `proto/`; the types generated from them stay inside.
//!
//! Absent on purpose: sockets, time, and any judgement whether a statement is
//! true. That two statements belong together is for `proof` to say.
//!
//! ```
//! use peerproof_identity::Keypair;
//! use peerproof_wire::{Class, Level, Message, ModelId, Offer, Prompt, RouterFrame, Sampling, Signed};
//!
//! let offer = Offer {
//!     model_id: ModelId::from_bytes([1; 32]),
//!     prompt: Prompt::Text("Once upon a time".into()),
//!     sampling: Sampling::GREEDY,
//!     max_tokens: 64,
//!     stop: vec![],
//!     level: Level::Receipt,
//!     public_nonce: [2; 32],
//!     client_nonce_hash: peerproof_wire::job::client_nonce_hash(&[3; 32]),
//!     deadline_ms: 60_000,
//!     pooling: None,
//!     class: Class::Exact,
//! };
//! let offer = Signed::sign(&Keypair::from_seed(&[7; 32]), offer)?;
//! let bytes = RouterFrame::Open { offer: offer.clone(), resume: vec![] }.encode()?;
//!
//! let RouterFrame::Open { offer: received, .. } = RouterFrame::decode(&bytes)? else {
//!     unreachable!("an Open was encoded");
//! };
//! assert_eq!(received.id(), offer.id());
//! assert_eq!(received.max_tokens, 64);
//! # Ok::<(), peerproof_wire::WireError>(())
//! ```

pub mod announce;
pub mod audit;
pub mod cells;
mod check;
mod codec;
mod digest;
pub mod dispute;
mod error;
pub mod evidence;
pub mod frame;
pub mod job;
pub mod limits;
pub mod logs;
mod proto;
pub mod range;
mod record;
mod shape;
mod signed;
#[cfg(test)]
mod tests;

pub use announce::{Announcement, InfoReply, InfoRequest, ModelOffer, Price};
pub use audit::{
    AuditFailure, AuditReply, AuditRequest, Case, Difference, DrawRequest, Mismatch, Outcome,
    StatisticalCase, Tested, Verdict, VrfDraw,
};
pub use cells::{Cell, CellOpening, CellsPart, CellsReply, CellsRequest, FraudProof, WeightRange};
pub use codec::Message;
pub use digest::{Digest, ModelId};
pub use dispute::{
    DisputeOpen, DisputeProof, DisputeReply, DisputeRequest, RowChunk, RowRequest, Stretch, Trace,
    TraceLayout, TracePart, TraceRow, TracedTensor,
};
pub use error::{Fault, WireError};
pub use evidence::{
    AcceptedAnswer, Equivocation, Evidence, FalseVerdict, Fork, FraudClaim, LogBody, LogEntry,
    Observation, WrongAnswer,
};
pub use job::{
    Accepted, Challenge, ChatMessage, Class, Commitment, Constraint, Delivered, Drawn, Failure,
    FailureCode, Form, Leaf, Level, LogProof, LogitBias, Offer, Opening, Openings, Pooling,
    Progress, Prompt, ProviderFrame, Receipt, RouterFrame, Sampling, Stop, TokenLogprobs, Tokens,
};
pub use logs::{HeldFrom, HeldProof, LogRefusal, LogReply, LogRequest};
pub use range::{RangeFailure, RangeRefusal, RangeReply, RangeRequest, RangeSlice};
pub use record::{
    AuditedBy, AuditorCheck, AuditorFinding, Decision, NetworkGroup, Note, Refutation,
};
pub use signed::{Envelope, Signed, Statement};

/// Version of the messages and of the conversations they make.
pub const PROTOCOL: u32 = 1;
/// Version of the integer arithmetic by which answers are computed and audited.
pub const ARITHMETIC: u32 = 1;

/// Stream protocol of a job: one stream, one job.
pub const JOB_PROTOCOL: &str = "/peerproof/job/1";
/// Stream protocol of an audit: a request, a verdict.
pub const AUDIT_PROTOCOL: &str = "/peerproof/audit/1";
/// Stream protocol of a question for a node's announcement.
pub const INFO_PROTOCOL: &str = "/peerproof/info/1";
/// Stream protocol of requests for pieces of model files.
pub const RANGE_PROTOCOL: &str = "/peerproof/range/1";
/// The conversation that moves fraud proofs, by their hash; it speaks as [`RANGE_PROTOCOL`] does.
pub const PROOF_PROTOCOL: &str = "/peerproof/proof/1";
/// One request for openings of cells and its replies.
pub const CELLS_PROTOCOL: &str = "/peerproof/cells/1";
/// Stream protocol by which a cell is narrowed to one operation.
pub const DISPUTE_PROTOCOL: &str = "/peerproof/dispute/1";
/// Stream protocol of questions about logs.
pub const LOG_PROTOCOL: &str = "/peerproof/log/1";
/// Topic on which proofs against a key are passed on, one [`Evidence`] a message.
pub const EVIDENCE_TOPIC: &str = "/peerproof/evidence/1";
/// Name of the distributed hash table.
pub const KAD_PROTOCOL: &str = "/peerproof/kad/1";
/// Protocol version that a node reports in libp2p identify.
pub const IDENTIFY_PROTOCOL: &str = "/peerproof/1";
