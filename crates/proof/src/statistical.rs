//! The statistical class: answers of an engine whose bits nobody can recompute,
//! and what can be said about them all the same.
//!
//! Such a provider commits to its tokens and to how likely it says they were,
//! with the 20 likeliest at each place ([`transcript`]). An auditor lets the
//! model file read the same tokens ([`Weigh`]) and compares: figures that are
//! off (differences), tokens that the offer's rules would not have
//! chosen (standing), answers faster than the declared hardware (pace). What it
//! finds is bet on, answer after answer, until one side is ruined; the
//! arithmetic of the bets is integers, so two auditors find the same.
//! `docs/spec/statistical.md` has the rules.
//!
//! Deliberately absent: certainty. Nothing here shows that an answer is right.

mod bets;
mod scores;
mod stake;
pub mod transcript;

use peerproof_identity::PublicKey;
use peerproof_wire::{Case, Class, Digest, Offer, TokenLogprobs};

pub use bets::{Account, FAIL_AT, Growth, Judgement, PASS_AT};
pub use scores::{Scores, growth, scores};
pub use stake::Stake;

use crate::audit::{AuditError, verify_case};
use crate::hash::Tagged;

/// What the model file says of one place of an answer that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// The negative natural logarithm, at 2^-16, of the probability of the answer's token.
    pub chosen_q16: u32,
    /// The same of the likeliest token.
    pub best_q16: u32,
    /// The same of each token that the provider reports as the likeliest, in its order.
    pub top_q16: Vec<u32>,
    /// Where the answer's token stands among those the offer's rules allow, from 0 to 1 at 2^-16.
    pub standing_q16: u32,
}

/// Something that can have the model file read an answer it did not make.
pub trait Weigh {
    /// Why it could not be done.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads `prompt` and `answer`, and says of each token of the answer what the model says of
    /// it, and of the tokens that the report beside it names. One report a token.
    ///
    /// # Errors
    /// The model cannot be run on these tokens.
    fn weigh(
        &self,
        offer: &Offer,
        prompt: &[u32],
        answer: &[u32],
        reports: &[TokenLogprobs],
    ) -> Result<Vec<Weighed>, Self::Error>;
}

/// What a test of one answer found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the answer multiplies the stakes by.
    pub growth: Growth,
    /// Means over its tokens.
    pub mean: Scores,
    /// Digest of all that was weighed, under the auditor's key: who has weighed it too can
    /// check it.
    pub work: Digest,
}

/// Has the model file read an answer of the statistical class, and compares.
/// `prompt` is the prompt of the offer, as the model's tokens.
///
/// # Errors
/// The papers do not belong together, or the model could not be run.
pub fn test<W: Weigh>(
    model: &W,
    prompt: &[u32],
    case: &Case,
    reports: &[TokenLogprobs],
    auditor: &PublicKey,
) -> Result<Finding, AuditError> {
    verify_case(&case.offer, &case.receipt, &case.tokens)?;
    crate::receipt::verify_terms(&case.offer, &case.receipt).map_err(AuditError::Case)?;
    transcript::verify(&case.receipt, &case.tokens, reports, &[]).map_err(AuditError::Case)?;
    let counted = prompt.len() as u64 == u64::from(case.receipt.prompt_tokens);
    if !counted || case.offer.class != Class::Statistical {
        return Err(AuditError::Executor {
            index: 0,
            what: "prompt tokens of a statistical answer",
            expected: case.receipt.prompt_tokens.into(),
            got: prompt.len() as u64,
        });
    }
    let weighed = model
        .weigh(&case.offer, prompt, &case.tokens, reports)
        .map_err(|error| AuditError::Replay(Box::new(error)))?;
    let (growth, mean) = growth(&case.offer, reports, &weighed);
    let hash = Tagged::keyed(auditor.as_bytes(), "peerproof statistical work v1")
        .fixed(case.receipt.id().as_bytes())
        .u64(weighed.len() as u64);
    let work = weighed.iter().fold(hash, |hash, it| {
        let hash = hash.u32(it.chosen_q16).u32(it.best_q16).u32(it.standing_q16);
        it.top_q16.iter().fold(hash, |hash, value| hash.u32(*value))
    });
    Ok(Finding { growth, mean, work: work.finish() })
}
