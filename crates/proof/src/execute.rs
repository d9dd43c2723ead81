//! The seam between reasoning about a computation and doing it.
//!
//! `proof` knows leaves, roots and verdicts; it never multiplies a matrix.
//! Whoever can run a model implements [`Execute`] and hands out one [`Step`]
//! per position; everything else (hashing, committing, comparing, blaming)
//! happens on this side and is the same for provider and auditor.

use peerproof_wire::{Digest, ModelId, Offer, Stop, TokenLogprobs};

/// What the model did at one position of prompt or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Index of the position, counted from the first prompt token.
    pub position: u32,
    /// The token that stands at this position.
    pub token: u32,
    /// [`state_digest`](crate::transcript::state_digest) of the residual stream after the last layer.
    pub state: Digest,
    /// [`layers_digest`](crate::cells::layers_digest) of the residual rows that enter the layers.
    pub layers: Digest,
    /// Present where the position yields a token of the answer.
    pub drawn: Option<DrawnStep>,
}

/// How the next token was chosen at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawnStep {
    /// [`logits_digest`](crate::transcript::logits_digest) of the int32 logits.
    pub logits: Digest,
    /// The random number of this draw; 0 when sampling is greedy.
    pub draw: u64,
    /// The token that the logits, the offer's rules and the draw determine.
    pub next: u32,
    /// How likely it was, if the offer asks, without spellings. No leaf holds
    /// it, but the hash of what is shown of the answer does.
    pub logprobs: Option<TokenLogprobs>,
}

/// Text and end of an answer, as the tokens and the offer determine them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The text a client sees: without special tokens, cut before a stop string.
    pub text: String,
    /// The first rule that ends the answer; `None` if the rules say it should go on.
    pub stop: Option<Stop>,
    /// How many tokens stand when that rule strikes, the one that triggers it
    /// included: all of them in an honest answer, fewer in one that runs on past
    /// its end. Without an ending, the number of tokens given.
    pub tokens: u32,
}

/// Something that can run the model an offer names.
pub trait Execute {
    /// Why a replay could not be done (never: why it differs).
    type Error: std::error::Error + Send + Sync + 'static;

    /// The model this executor holds.
    fn model_id(&self) -> ModelId;

    /// How many tokens the model knows; every id it can read or draw lies below.
    fn vocabulary(&self) -> u32;

    /// What a token adds to a text, or how a control or unknown token is
    /// written; nothing for ids that are no tokens.
    fn spelling(&self, token: u32) -> &[u8];

    /// The prompt's token ids: template and tokenizer of the model applied to the offer.
    fn prompt_tokens(&self, offer: &Offer) -> Result<Vec<u32>, Self::Error>;

    /// Recomputes every position of `prompt` followed by all of `answer` but its
    /// last token, which the model never reads, in order. Positions from the last of the prompt onward carry
    /// `drawn`; `drawn.next` is what the model says, which need not be what `answer` says.
    ///
    /// `key` is the offer id that keys the digests, `seed` the sampling seed. Gives the
    /// [`kv_root`](crate::cells::kv_root) over all these positions.
    fn replay(
        &self,
        offer: &Offer,
        key: &Digest,
        seed: &Digest,
        prompt: &[u32],
        answer: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Digest, Self::Error>;

    /// The embedding of `prompt` that the offer asks for, as the numbers that stand in the answer
    /// (see [`embedding`](crate::embedding)). Recomputes every position of the prompt, in order;
    /// none draws. The digest is the [`kv_root`](crate::cells::kv_root) over these positions.
    fn embed(
        &self,
        offer: &Offer,
        key: &Digest,
        prompt: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<(Vec<u32>, Digest), Self::Error>;

    /// Text and end that `answer` has under the offer's rules, read from its
    /// first token on: the first rule that strikes counts, whatever follows.
    fn ending(&self, offer: &Offer, answer: &[u32]) -> Result<Ending, Self::Error>;
}
