//! What an answer commits its provider to, and how anyone checks it.
//!
//! A provider hashes what the model did at every position into a
//! [`transcript`] and signs its root in a [`receipt`]. Whoever holds the model
//! runs the same positions again and compares: with integer arithmetic there is
//! nothing to compare but equality. This crate owns the hashes, the bindings
//! between offer, receipt and answer, the challenges, the audit and what is
//! kept of its outcome; their byte layouts are `docs/spec/proof.md`.
//!
//! Absent on purpose: models (see [`execute::Execute`]), sockets, clocks, files
//! and randomness. Time and entropy come in as arguments.

pub mod agreement;
pub mod audit;
pub mod cells;
pub mod challenge;
pub mod decoy;
pub mod embedding;
pub mod evidence;
pub mod execute;
mod hash;
pub mod lottery;
#[cfg(all(feature = "planted-bugs", debug_assertions))]
pub mod planted;
#[cfg(not(all(feature = "planted-bugs", debug_assertions)))]
mod planted;
pub mod ranges;
pub mod receipt;
pub mod seed;
pub mod statistical;
pub mod transcript;
pub mod verdict;

pub use audit::{AuditError, Findings, audit};
pub use execute::{DrawnStep, Ending, Execute, Step};
pub use seed::sampling_seed;
pub use transcript::{
    Transcript, Tree, closing_hash, leaf_hash, logits_digest, logits_key, state_digest, state_key,
};
