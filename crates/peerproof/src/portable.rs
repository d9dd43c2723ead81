//! Proofs that stand alone: who may be convicted by a file from a stranger.
//!
//! [`accused`] is the table of acceptance for proofs that others pass on. Only
//! kinds that anyone can check with nothing else at hand are in it; each is
//! checked in full here, offline. A kind that takes a model, or somebody's word,
//! is none of them. A fraud proof is a file of its own, which `node::proofs` fetches and
//! [`fraud`](crate::fraud) judges; the claim that names it convicts nobody. Absent: where proofs come from, and what follows.

use peerproof_identity::PublicKey;
use peerproof_log::{Fork, ForkError, Hash, SignedCheckpoint};
use peerproof_proof::evidence::{EvidenceError, verify_equivocation};
use peerproof_wire::evidence::{self as wire, Evidence};
use peerproof_wire::{Digest, Message as _};

/// Why evidence convicts nobody by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotPortable {
    /// It takes more than the file: a model, or the observer's word.
    #[error("evidence: expected a proof that stands alone, got {got}")]
    Kind {
        /// What it is.
        got: &'static str,
    },
    /// The two receipts prove nothing.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The two checkpoints prove nothing.
    #[error(transparent)]
    Fork(#[from] ForkError),
}

/// Checks evidence in full and says whom it convicts.
///
/// # Errors
/// [`NotPortable`] if it proves nothing by itself.
pub fn accused(evidence: &Evidence) -> Result<PublicKey, NotPortable> {
    match evidence {
        Evidence::Equivocation(pair) => Ok(verify_equivocation(pair)?.accused),
        Evidence::Fork(two) => Ok(fork(two)?.signer()),
        Evidence::WrongAnswer(_) => Err(NotPortable::Kind { got: "a wrong answer" }),
        Evidence::FalseVerdict(_) => Err(NotPortable::Kind { got: "a false verdict" }),
        Evidence::Fraud(_) => Err(NotPortable::Kind { got: "a claim, whose file is another" }),
        Evidence::Observation(_) => Err(NotPortable::Kind { got: "an observation" }),
    }
}

/// Whether evidence is of a kind that is passed on, whatever it proves.
#[must_use]
pub fn is_portable(evidence: &Evidence) -> bool {
    matches!(evidence, Evidence::Equivocation(_) | Evidence::Fork(_) | Evidence::Fraud(_))
}

/// Checks the two checkpoints of a fork.
///
/// # Errors
/// [`ForkError`] if a signature does not hold or both are of one history.
pub fn fork(two: &wire::Fork) -> Result<Fork, ForkError> {
    let first = SignedCheckpoint::open_of(two.first.as_bytes(), &two.key)?;
    let second = SignedCheckpoint::open_of(two.second.as_bytes(), &two.key)?;
    let path: Vec<Hash> = two.path.iter().map(|hash| *hash.as_bytes()).collect();
    Fork::prove(&first, &second, &path)
}

/// A fork as evidence; `None` if its notes are longer than evidence carries.
#[must_use]
pub fn evidence(fork: &Fork) -> Option<Evidence> {
    let [first, second] = fork.checkpoints().map(|note| note.bare().note().to_owned());
    let path = fork.path().iter().copied().map(Digest::from_bytes).collect();
    let evidence = Evidence::Fork(wire::Fork { key: fork.signer(), first, second, path });
    evidence.encode().is_ok().then_some(evidence)
}
