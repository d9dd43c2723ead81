//! Disputes: a wrong cell narrowed to one operation, and the referee of that operation.
//!
//! Who gave an answer and is told that a cell of it is wrong traces the cell
//! ([`Traced`]) and signs digests of every row. Who accuses has traced the same cell
//! from what was committed to; an [`Accuser`] finds the first row that differs, asks
//! for the piece of it that does, and is left with one [`Operation`]: its inputs stand
//! under digests that both agree on, its output under one that the accused signed.
//! [`verify`] recomputes it from the [`DisputeProof`](peerproof_wire::DisputeProof) alone,
//! in microseconds.
//!
//! A proof convicts by the accused's own signatures and by bytes under the model's id;
//! nothing in it is the accuser's word. The layout of the file, too, is the
//! accused's: who signs a false one is not convicted here, but by the proof of the
//! whole cell. Deliberately absent: the network, deadlines, and files.

#![deny(clippy::float_arithmetic)]

mod accuse;
mod layout;
mod lies;
mod operation;
mod rows;
mod traced;
mod verify;

use peerproof_proof::challenge::ChallengeError;
use peerproof_proof::ranges::RangeError;
use peerproof_wire::{Digest, WireError};

use crate::forward::ForwardError;

pub use accuse::{Accuser, Next};
pub use lies::Lie;
pub use operation::{Finding, Operation};
pub use traced::{Traced, TracedPart};
pub use verify::{Verdict, verify};

/// Bytes of a row that are asked for at once.
const CHUNK: usize = 1024;
/// What the row of logits is called in a request.
const LOGITS: u32 = 1;

/// Why a dispute leads to nothing, or its proof proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DisputeError {
    /// The leaf is none of the receipt's.
    #[error("leaf: {0}")]
    Leaf(#[from] ChallengeError),
    /// The forward pass refuses.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// What was made is too large.
    #[error("proof of a dispute: {0}")]
    Wire(#[from] WireError),
    /// A statement is about something else, or another's.
    #[error("trace: its {what} is not that of the {of}")]
    Statement {
        /// What of it.
        what: &'static str,
        /// What it should be that of.
        of: &'static str,
    },
    /// A layout that nothing can be computed with.
    #[error("trace's layout: {what} of {got}")]
    Layout {
        /// What of it.
        what: &'static str,
        /// As signed.
        got: u64,
    },
    /// A trace has another number of rows.
    #[error("trace: expected {expected} rows, got {got}")]
    Rows {
        /// How many there must be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// There is no such operation, or not in such a cell.
    #[error("operation {got}: no operation of this cell")]
    Operation {
        /// Its number.
        got: u32,
    },
    /// An operation gives fewer numbers.
    #[error("operation: expected an index below {expected}, got {got}")]
    Index {
        /// How many it gives.
        expected: usize,
        /// The one that is meant.
        got: usize,
    },
    /// An operation of a head without its trace, or the other way round.
    #[error("operation: the trace of a head of attention is missing, or not called for")]
    Part,
    /// Another number of stretches than the operation reads.
    #[error("stretches: expected {expected}, got {got}")]
    Stretches {
        /// How many it reads.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A stretch does not lead to its digest.
    #[error("stretch {at}: {source}")]
    Stretch {
        /// Which, from 0.
        at: usize,
        /// Why.
        source: RangeError,
    },
    /// Keys and values do not lead to the receipt.
    #[error("{what}: expected {expected}, got {got}")]
    Digest {
        /// What.
        what: &'static str,
        /// As committed.
        expected: Digest,
        /// As given.
        got: Digest,
    },
    /// Numbers that no honest computation leads to stand where the operation reads: it can't
    /// be judged. Another operation gave them.
    #[error("the operation reads numbers beyond all bounds")]
    Bounds,
    /// The operation holds.
    #[error("the operation holds: {operation}, index {index}")]
    Holds {
        /// Which.
        operation: &'static str,
        /// Which output.
        index: u32,
    },
    /// The other side does not show what it has to.
    #[error("{0}")]
    Evaded(&'static str),
}
