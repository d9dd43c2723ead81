//! The full audit: run the job again, compare everything.
//!
//! [`recompute`] replays prompt and answer once through an
//! [`Execute`] and keeps what the leaves must be. Comparing
//! that with a receipt is then a matter of equality, for this receipt and for
//! any other of the same offer and answer. [`audit`] does both for one case and
//! returns [`Findings`], from which a verdict is made.
//!
//! Beside the root, two things are looked at that no root can show. Every token
//! must be the canonical draw of its leaf: a transcript that faithfully commits
//! to the model reading tokens it would never have drawn has the right root for
//! those tokens. And the answer must end where the offer's rules end it.
//!
//! Absent here: trust. An error means that nothing could be judged, for want of
//! the model or because the papers do not belong together; it is never a verdict.

mod compare;

use peerproof_identity::PublicKey;
use peerproof_wire::limits::MAX_LEAVES;
use peerproof_wire::{
    Case, Class, Commitment, Digest, Leaf, Mismatch, ModelId, Offer, Openings, Outcome, Receipt,
    Signed, Stop, TokenLogprobs,
};

pub use compare::describe;

use crate::embedding;
use crate::execute::{Ending, Execute, Step};
use crate::hash::Tagged;
use crate::receipt::{self, BindingError, shown_hash};
use crate::sampling_seed;
use crate::transcript::{Tree, absorb_leaf, closing_hash, leaf_hash, stop_code};

/// Why a case could not be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Offer, receipt and tokens do not belong together. Whoever put them together is at fault.
    #[error("case: {0}")]
    Case(#[source] BindingError),
    /// The answer is not one that can be recomputed.
    #[error("case: expected an answer of the exact class, got one of the statistical class")]
    Class,
    /// This auditor holds another model.
    #[error("auditor's model: expected {expected}, got {got}")]
    Model {
        /// The model of the offer.
        expected: ModelId,
        /// The model at hand.
        got: ModelId,
    },
    /// Prompt and answer are longer than a transcript can be.
    #[error("positions to replay: expected 1 to {expected}, got {got}")]
    Positions {
        /// The most there may be.
        expected: u32,
        /// How many there are.
        got: usize,
    },
    /// The model could not be run.
    #[error("replay: {0}")]
    Replay(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The executor broke its contract; the fault is on this side.
    #[error("replay step {index} {what}: expected {expected}, got {got}")]
    Executor {
        /// Which step, counted from 0.
        index: usize,
        /// What about it.
        what: &'static str,
        /// What the contract demands.
        expected: u64,
        /// What came.
        got: u64,
    },
}

impl AuditError {
    fn replay(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Replay(Box::new(error))
    }
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Pass, or the first thing known to differ.
    pub outcome: Outcome,
    /// Digest of the recomputed leaves under the auditor's own key.
    pub work: Digest,
}

impl Findings {
    /// The first thing known to differ, if the receipt failed.
    #[must_use]
    pub fn mismatch(&self) -> Option<&Mismatch> {
        match &self.outcome {
            Outcome::Pass | Outcome::Tested(_) => None,
            Outcome::Fail(mismatch) => Some(mismatch),
        }
    }
}

/// Audits one case in full, for the auditor whose public key is `auditor`.
///
/// `openings` is what the provider opened of its transcript; without it a wrong
/// answer is found as surely, but seldom narrowed to a position. Openings only
/// ever narrow a failure: wrong ones are passed over and cannot make one.
pub fn audit<E: Execute>(
    executor: &E,
    case: &Case,
    openings: Option<&Openings>,
    auditor: &PublicKey,
) -> Result<Findings, AuditError> {
    verify_case(&case.offer, &case.receipt, &case.tokens)?;
    if case.receipt.class != Class::Exact {
        return Err(AuditError::Class);
    }
    let recomputation = recompute(executor, &case.offer, &case.tokens)?;
    let outcome = match recomputation.compare(&case.receipt, openings) {
        None => Outcome::Pass,
        Some(mismatch) => Outcome::Fail(mismatch),
    };
    Ok(Findings { outcome, work: recomputation.work(auditor) })
}

/// Checks that there is something to judge: a receipt for this offer, over these tokens.
/// Whether its numbers are right is part of what is judged.
pub fn verify_case(
    offer: &Signed<Offer>,
    receipt: &Signed<Receipt>,
    tokens: &[u32],
) -> Result<(), AuditError> {
    receipt::verify_offer_named(offer, receipt)
        .and_then(|()| receipt::verify_model_named(offer, receipt))
        .and_then(|()| receipt::verify_output_hash(receipt, tokens))
        .map_err(AuditError::Case)
}

/// One replay of an offer and an answer: what any honest receipt for them says.
#[derive(Debug, Clone)]
pub struct Recomputation {
    offer_id: Digest,
    prompt_tokens: u32,
    answer: Vec<u32>,
    leaves: Vec<Leaf>,
    /// One for each token, if the offer asks for them.
    logprobs: Vec<TokenLogprobs>,
    ending: Ending,
    /// Over the keys and values of all positions read.
    kv_root: Digest,
    /// What the answer must be, if it is an embedding.
    vector: Option<Vec<u32>>,
}

/// Replays `answer` as the answer to `offer`.
pub fn recompute<E: Execute>(
    executor: &E,
    offer: &Signed<Offer>,
    answer: &[u32],
) -> Result<Recomputation, AuditError> {
    if executor.model_id() != offer.model_id {
        return Err(AuditError::Model { expected: offer.model_id, got: executor.model_id() });
    }
    let prompt = executor.prompt_tokens(offer).map_err(AuditError::replay)?;
    if offer.pooling.is_some() {
        return embed(executor, offer, answer, &prompt);
    }
    // A token the model does not know cannot be read, and need not be: the
    // position before it draws another one, which settles the case.
    let known = answer.iter().position(|token| *token >= executor.vocabulary());
    let known = known.unwrap_or(answer.len());
    let (leaves, logprobs, kv_root) =
        replay(executor, offer, &prompt, &answer[..answer.len().min(known + 1)])?;
    let ending = executor.ending(offer, &answer[..known]).map_err(AuditError::replay)?;
    if ending.tokens as usize > known || (ending.tokens == 0 && known > 0) {
        return Err(AuditError::Executor {
            index: leaves.len(),
            what: "tokens that stand",
            expected: known as u64,
            got: ending.tokens.into(),
        });
    }
    Ok(Recomputation {
        offer_id: offer.id(),
        prompt_tokens: prompt.len() as u32,
        answer: answer.to_vec(),
        leaves,
        logprobs,
        ending,
        kv_root,
        vector: None,
    })
}

/// Computes the embedding that `answer` should be.
fn embed<E: Execute>(
    executor: &E,
    offer: &Signed<Offer>,
    answer: &[u32],
    prompt: &[u32],
) -> Result<Recomputation, AuditError> {
    if prompt.is_empty() || prompt.len() >= MAX_LEAVES as usize {
        return Err(AuditError::Positions { expected: MAX_LEAVES - 1, got: prompt.len() });
    }
    let mut steps = Steps::new(executor, offer, prompt, prompt.len() + 1);
    let (vector, kv_root) = executor
        .embed(offer, &offer.id(), prompt, &mut |step| steps.take(step))
        .map_err(AuditError::replay)?;
    let ending = Ending {
        text: embedding::text(&vector),
        stop: Some(Stop::EndOfText),
        tokens: vector.len() as u32,
    };
    Ok(Recomputation {
        offer_id: offer.id(),
        prompt_tokens: prompt.len() as u32,
        answer: answer.to_vec(),
        leaves: steps.finish()?.0,
        logprobs: Vec::new(),
        ending,
        kv_root,
        vector: Some(vector),
    })
}

/// Takes an executor's steps and holds it to its contract.
struct Steps<'a, E> {
    executor: &'a E,
    read: &'a [u32],
    /// The first position that draws is the one before this one.
    drawing: usize,
    /// Whether what is drawn comes with probabilities.
    asked: bool,
    leaves: Vec<Leaf>,
    logprobs: Vec<TokenLogprobs>,
    broken: Option<AuditError>,
}

impl<'a, E: Execute> Steps<'a, E> {
    fn new(executor: &'a E, offer: &Offer, read: &'a [u32], drawing: usize) -> Self {
        Self {
            executor,
            read,
            drawing,
            asked: offer.sampling.logprobs.is_some(),
            leaves: Vec::with_capacity(read.len()),
            logprobs: Vec::new(),
            broken: None,
        }
    }

    fn take(&mut self, mut step: Step) {
        if self.broken.is_some() {
            return;
        }
        self.broken =
            verify_step(self.leaves.len(), self.read, self.drawing, self.asked, &step).err();
        if let Some(drawn) = &mut step.drawn
            && let Some(mut report) = drawn.logprobs.take()
        {
            report.spell(drawn.next, |token| self.executor.spelling(token));
            self.logprobs.push(report);
        }
        self.leaves.push(Leaf::from(step));
    }

    fn finish(self) -> Result<(Vec<Leaf>, Vec<TokenLogprobs>), AuditError> {
        match self.broken {
            Some(error) => Err(error),
            None if self.leaves.len() < self.read.len() => Err(AuditError::Executor {
                index: self.leaves.len(),
                what: "count",
                expected: self.read.len() as u64,
                got: self.leaves.len() as u64,
            }),
            None => Ok((self.leaves, self.logprobs)),
        }
    }
}

/// Runs the model and holds the executor to its contract.
fn replay<E: Execute>(
    executor: &E,
    offer: &Signed<Offer>,
    prompt: &[u32],
    answer: &[u32],
) -> Result<(Vec<Leaf>, Vec<TokenLogprobs>, Digest), AuditError> {
    let got = prompt.len().saturating_add(answer.len());
    if prompt.is_empty() || answer.is_empty() || got > MAX_LEAVES as usize {
        return Err(AuditError::Positions { expected: MAX_LEAVES - 1, got });
    }
    let read: Vec<u32> = prompt.iter().chain(answer).copied().take(got - 1).collect();
    let mut steps = Steps::new(executor, offer, &read, prompt.len());
    let (key, seed) = (offer.id(), sampling_seed(offer));
    let kv_root = executor
        .replay(offer, &key, &seed, prompt, answer, &mut |step| steps.take(step))
        .map_err(AuditError::replay)?;
    let (leaves, logprobs) = steps.finish()?;
    Ok((leaves, logprobs, kv_root))
}

fn verify_step(
    index: usize,
    read: &[u32],
    prompt: usize,
    logprobs: bool,
    step: &Step,
) -> Result<(), AuditError> {
    let same = |what, expected: u64, got: u64| {
        if expected == got {
            Ok(())
        } else {
            Err(AuditError::Executor { index, what, expected, got })
        }
    };
    let Some(&token) = read.get(index) else {
        return same("count", read.len() as u64, index as u64 + 1);
    };
    same("position", index as u64, step.position.into())?;
    same("token", token.into(), step.token.into())?;
    same("draw present", u64::from(index + 1 >= prompt), u64::from(step.drawn.is_some()))?;
    step.drawn.as_ref().map_or(Ok(()), |drawn| {
        same("probabilities present", logprobs.into(), drawn.logprobs.is_some().into())
    })
}

impl Recomputation {
    /// The leaves of all positions, the closing one left out. If the answer holds
    /// a token the model does not know, they end where that token should be drawn.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Text and end of the answer.
    #[must_use]
    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// What an honest provider reports of the tokens' probabilities: one report
    /// a token if the offer asks for them, else none.
    #[must_use]
    pub fn logprobs(&self) -> &[TokenLogprobs] {
        &self.logprobs
    }

    /// How many tokens the prompt has.
    #[must_use]
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    /// The closed transcript of an honest provider; `None` if the answer does
    /// not end with its last token, so that no honest transcript holds it.
    #[must_use]
    pub fn tree(&self) -> Option<Tree> {
        let stop = self.ending.stop?;
        if self.ending.tokens as usize != self.answer.len() {
            return None;
        }
        let closing = closing_hash(stop, self.ending.tokens, &self.shown_hash(), &self.kv_root);
        Tree::from_hashes(self.leaves.iter().map(leaf_hash).chain([closing]).collect()).ok()
    }

    /// What of this receipt differs, if anything. The receipt must have passed
    /// [`verify_case`] with the offer and the answer recomputed here.
    pub fn compare(&self, receipt: &Receipt, openings: Option<&Openings>) -> Option<Mismatch> {
        compare::compare(self, receipt, openings)
    }

    /// The first running commitment that an honest provider would not have sent.
    #[must_use]
    pub fn first_wrong_commitment<'a>(
        &self,
        commitments: &'a [Commitment],
    ) -> Option<&'a Commitment> {
        let tree = Tree::from_hashes(self.leaves.iter().map(leaf_hash).collect()).ok()?;
        commitments.iter().find(|seen| tree.root_at(seen.leaves) != Ok(seen.root))
    }

    /// Digest of everything recomputed, under an auditor's public key. Whoever
    /// has replayed the job can check the digest in another auditor's verdict.
    #[must_use]
    pub fn work(&self, auditor: &PublicKey) -> Digest {
        let hash = Tagged::keyed(auditor.as_bytes(), "peerproof audit work v2")
            .fixed(self.offer_id.as_bytes())
            .u32(self.leaves.len() as u32);
        self.leaves
            .iter()
            .fold(hash, absorb_leaf)
            .u8(self.ending.stop.map_or(0, stop_code))
            .u32(self.ending.tokens)
            .fixed(self.shown_hash().as_bytes())
            .fixed(self.kv_root.as_bytes())
            .finish()
    }

    /// Hash of what an honest provider shows of this answer.
    fn shown_hash(&self) -> Digest {
        shown_hash(&self.ending.text, &self.logprobs)
    }
}
