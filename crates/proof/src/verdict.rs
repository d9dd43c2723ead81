//! What an auditor signs, and what can be held against it.
//!
//! A verdict is bound to one receipt and carries a digest that only a replay
//! gives. Without the model a reader checks that the verdict speaks of this
//! receipt, comes from the auditor asked, and, between strangers, that the lot
//! fell on it. With a [`Recomputation`] at hand it checks the rest, so a lazy
//! auditor is found by anyone who looks again.

use peerproof_identity::vrf::{Public, VrfError};
use peerproof_identity::{Keypair, PublicKey};
use peerproof_wire::{
    Case, Class, Digest, Offer, Outcome, Receipt, Signed, Verdict, VrfDraw, WireError,
};

use crate::audit::{Findings, Recomputation};
use crate::lottery::{Rate, Ticket};
use crate::planted::planted;

/// What is wrong with a verdict. The auditor is at fault, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerdictError {
    /// Another key signed it than the auditor's.
    #[error("verdict signer: expected {expected}, got {got}")]
    Signer {
        /// The auditor that was asked.
        expected: PublicKey,
        /// The key that signed.
        got: PublicKey,
    },
    /// A provider has no say about itself.
    #[error("verdict signer: expected another key than the provider's, got {got}")]
    OwnReceipt {
        /// The key of both.
        got: PublicKey,
    },
    /// The verdict speaks of something else.
    #[error("verdict {what}: expected {expected}, got {got}")]
    About {
        /// Which of its ids.
        what: &'static str,
        /// The one at hand.
        expected: Digest,
        /// The verdict's.
        got: Digest,
    },
    /// What is said to differ is equal.
    #[error("verdict mismatch at position {position}: expected two different values, got one")]
    Mismatch {
        /// Position of the mismatch.
        position: u32,
    },
    /// It says of one class what can be said of the other only.
    #[error("verdict outcome: expected one of the {expected} class")]
    Class {
        /// Class of the receipt.
        expected: Class,
    },
    /// The proof of the draw fails.
    #[error("verdict draw: {0}")]
    Draw(#[source] VrfError),
    /// The verdict comes without a draw, and one is due.
    #[error("verdict draw: expected a proof that the lot fell on this auditor, got none")]
    NoDraw,
    /// The draw is made with another key than the auditor announced.
    #[error("verdict draw key: expected {expected}, got {got}")]
    DrawKey {
        /// The key announced before.
        expected: Public,
        /// The key of the draw.
        got: Public,
    },
    /// The lot did not fall on this auditor.
    #[error("verdict draw: expected a lot that wins at {expected} in 65536, got {got} in 65536")]
    NotDrawn {
        /// The rate.
        expected: u32,
        /// The lot, scaled alike.
        got: u32,
    },
    /// The work digest is not that of the recomputed leaves.
    #[error("verdict work digest: expected {expected}, got {got}")]
    Work {
        /// As recomputed for this auditor's key.
        expected: Digest,
        /// As signed.
        got: Digest,
    },
    /// The receipt passes and the verdict says it fails, or the other way round.
    #[error("verdict outcome: expected {}, got {}", outcome(*.expected_pass), outcome(!*.expected_pass))]
    Outcome {
        /// Whether the receipt passes.
        expected_pass: bool,
    },
}

fn outcome(pass: bool) -> &'static str {
    if pass { "pass" } else { "fail" }
}

/// Signs what an audit found. `ticket` shows that the lot fell on this auditor.
pub fn build(
    auditor: &Keypair,
    case: &Case,
    findings: Findings,
    ticket: Option<&Ticket>,
    issued_unix_ms: u64,
) -> Result<Signed<Verdict>, WireError> {
    let verdict = Verdict {
        receipt_id: case.receipt.id(),
        offer_id: case.offer.id(),
        model_id: case.offer.model_id,
        provider: case.receipt.key(),
        outcome: findings.outcome,
        work: findings.work,
        draw: ticket.map(|ticket| VrfDraw { key: *ticket.key(), proof: *ticket.proof() }),
        issued_unix_ms,
    };
    Signed::sign(auditor, verdict)
}

/// Checks that a verdict is `auditor`'s and speaks of this offer and receipt. A
/// draw, if it carries one, is verified; whether one is due is
/// [`verify_drawn`]'s to say.
pub fn verify(
    verdict: &Signed<Verdict>,
    auditor: &PublicKey,
    offer: &Signed<Offer>,
    receipt: &Signed<Receipt>,
) -> Result<(), VerdictError> {
    if verdict.key() != *auditor {
        return Err(VerdictError::Signer { expected: *auditor, got: verdict.key() });
    }
    if verdict.key() == receipt.key() {
        return Err(VerdictError::OwnReceipt { got: verdict.key() });
    }
    if planted("a verdict on another receipt will do") {
        return Ok(());
    }
    about("receipt id", receipt.id(), verdict.receipt_id)?;
    about("offer id", offer.id(), verdict.offer_id)?;
    let digest = |bytes: &[u8; 32]| Digest::from_bytes(*bytes);
    let (expected, got) = (offer.model_id, verdict.model_id);
    about("model id", digest(expected.as_bytes()), digest(got.as_bytes()))?;
    let (expected, got) = (receipt.key(), verdict.provider);
    about("provider", digest(expected.as_bytes()), digest(got.as_bytes()))?;
    if matches!(verdict.outcome, Outcome::Tested(_)) != (receipt.class == Class::Statistical) {
        return Err(VerdictError::Class { expected: receipt.class });
    }
    verify_mismatch(verdict)?;
    match &verdict.draw {
        None => Ok(()),
        Some(draw) => {
            Ticket::verify(&draw.key, &draw.proof, receipt).map(drop).map_err(VerdictError::Draw)
        }
    }
}

fn about(what: &'static str, expected: Digest, got: Digest) -> Result<(), VerdictError> {
    if expected == got { Ok(()) } else { Err(VerdictError::About { what, expected, got }) }
}

fn verify_mismatch(verdict: &Verdict) -> Result<(), VerdictError> {
    match &verdict.outcome {
        Outcome::Fail(mismatch) if mismatch.expected == mismatch.got => {
            Err(VerdictError::Mismatch { position: mismatch.position })
        }
        _ => Ok(()),
    }
}

/// Checks that the lot fell on a verdict's auditor, at `rate` and under the VRF
/// key it announced before the receipt was signed.
pub fn verify_drawn(
    verdict: &Verdict,
    receipt: &Receipt,
    announced: &Public,
    rate: Rate,
) -> Result<Ticket, VerdictError> {
    let draw = verdict.draw.as_ref().ok_or(VerdictError::NoDraw)?;
    if draw.key != *announced {
        return Err(VerdictError::DrawKey { expected: *announced, got: draw.key });
    }
    let ticket = Ticket::verify(&draw.key, &draw.proof, receipt).map_err(VerdictError::Draw)?;
    if ticket.wins(rate) {
        Ok(ticket)
    } else {
        Err(VerdictError::NotDrawn { expected: rate.q16(), got: ticket.lot_q16() })
    }
}

/// Checks a verdict against a replay of the same offer and answer.
pub fn verify_work(
    verdict: &Signed<Verdict>,
    receipt: &Receipt,
    recomputation: &Recomputation,
) -> Result<(), VerdictError> {
    let expected_pass = recomputation.compare(receipt, None).is_none();
    if expected_pass != (verdict.outcome == Outcome::Pass) {
        return Err(VerdictError::Outcome { expected_pass });
    }
    let expected = recomputation.work(&verdict.key());
    if expected == verdict.work {
        Ok(())
    } else {
        Err(VerdictError::Work { expected, got: verdict.work })
    }
}
