//! What a job's steps are made with, and what they remember: the one definition
//! of how a position's output becomes a [`Step`].
//!
//! Provider and auditor share it. [`Draws`] is made of the offer's rules and the
//! prompt, then told each position in order, with the token that was read
//! there; the tokens of the answer feed the penalties' history. So the state
//! follows from the tokens alone, and so do the masks of a constraint. A caller that goes back (a resumed answer that
//! diverged, a job that was put aside) names an earlier position, and the
//! state is made anew from the tokens before it. Deliberately absent: the
//! forward pass, and when an answer ends.

use peerproof_proof::{DrawnStep, Step, logits_digest, state_digest};
use peerproof_wire::Digest;

use crate::constraint::{ConstraintError, Masks};
use crate::forward::Output;
use crate::logprobs;
use crate::sample::{self, History, Sampling};

/// The rules of one job and their state.
#[derive(Debug)]
pub(crate) struct Draws {
    key: Digest,
    seed: Digest,
    sampling: Sampling,
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens of the answer that were read.
    answer: Vec<u32>,
    /// What the penalties know of prompt and answer; empty without penalties.
    history: History,
    /// The same before the answer.
    beginning: History,
    /// Logits after the rules; room that every step uses again.
    adjusted: Vec<i64>,
    /// The tokens that a constraint leaves.
    masks: Option<Masks>,
    /// The lowest-numbered token that ends an answer.
    end: u32,
    /// Why the constraint can't be followed any further.
    trouble: Option<ConstraintError>,
}

impl Draws {
    /// Before the first position of a job with this prompt. `masks` are those of
    /// the offer's constraint, from the answer's beginning; `end` is the
    /// lowest-numbered token that ends an answer.
    pub(crate) fn new(
        key: Digest,
        seed: Digest,
        sampling: &Sampling,
        prompt: &[u32],
        masks: Option<Masks>,
        end: u32,
    ) -> Self {
        let beginning = match sample::has_penalties(sampling) {
            true => History::of_prompt(prompt),
            false => History::default(),
        };
        Self {
            key,
            seed,
            sampling: sampling.clone(),
            prompt: prompt.len(),
            answer: Vec::new(),
            history: beginning.clone(),
            beginning,
            adjusted: Vec::new(),
            masks,
            end,
            trouble: None,
        }
    }

    /// Why a provider should go no further: the constraint's limits are hit, or
    /// no token is left. An auditor needn't ask, steps go on by the rules.
    pub(crate) fn trouble(&mut self) -> Option<ConstraintError> {
        self.trouble.take()
    }

    /// Says that the token drawn last will be read next, so that the mask behind
    /// it can be made meanwhile.
    pub(crate) fn expect(&mut self, token: u32) {
        if let Some(masks) = &mut self.masks {
            masks.expect(token);
        }
    }

    /// The step at `position`, where `token` was read. The last position of the
    /// prompt is the first that draws. Positions of the answer come in order;
    /// one that came before takes back all from there on.
    pub(crate) fn step(&mut self, position: usize, token: u32, out: &Output<'_>) -> Step {
        if let Some(index) = position.checked_sub(self.prompt) {
            self.read(index, token);
        }
        let index = (position + 1).checked_sub(self.prompt);
        let drawn = index.zip(out.logits).map(|(index, logits)| self.drawn(index as u64, logits));
        let (state, layers) = (state_digest(&self.key, out.state), out.layers);
        Step { position: position as u32, token, state, layers, drawn }
    }

    /// Takes the token at `index` of the answer.
    fn read(&mut self, index: usize, token: u32) {
        if index < self.answer.len() {
            self.answer.truncate(index);
            self.history = self.beginning.clone();
            if let Some(masks) = &mut self.masks {
                masks.restart(&self.answer);
            }
            for at in 0..index {
                self.follow(self.answer[at]);
            }
        }
        self.answer.push(token);
        self.follow(token);
        if let Some(masks) = &mut self.masks {
            masks.read(token);
        }
    }

    /// What is drawn from logits behind the first tokens of the answer, whose own
    /// steps nobody asks for.
    pub(crate) fn drawn_after(&mut self, answer: &[u32], logits: &[i32]) -> DrawnStep {
        for (index, &token) in answer.iter().enumerate() {
            self.read(index, token);
        }
        self.drawn(answer.len() as u64, logits)
    }

    fn follow(&mut self, token: u32) {
        if sample::has_penalties(&self.sampling) {
            self.history.push(token);
        }
    }

    fn drawn(&mut self, index: u64, logits: &[i32]) -> DrawnStep {
        let greedy = self.sampling.temperature_q16 == 0;
        let draw = if greedy { 0 } else { sample::draw(self.seed.as_bytes(), index) };
        let next = self.next(logits, draw);
        let top = self.sampling.logprobs;
        DrawnStep {
            logits: logits_digest(&self.key, logits),
            draw,
            next,
            logprobs: top.map(|top| logprobs::report(logits, next, top as usize)),
        }
    }

    fn next(&mut self, logits: &[i32], draw: u64) -> u32 {
        let Self { sampling, history, adjusted, masks, .. } = self;
        let mask = masks.as_mut().map(Masks::mask);
        if mask.is_none() && !sample::has_penalties(sampling) && sampling.bias.is_empty() {
            return sample::choose(logits, sampling, draw);
        }
        let bits = mask.map(|mask| mask.bits.as_slice());
        sample::adjust(logits, sampling, history, bits, adjusted);
        if let Some(token) = sample::choose_adjusted(adjusted, sampling, draw) {
            return token;
        }
        let tokens = self.answer.len();
        let trouble = mask.and_then(|mask| mask.trouble.clone());
        self.trouble = Some(trouble.unwrap_or(ConstraintError::Stuck { tokens }));
        self.end
    }
}
