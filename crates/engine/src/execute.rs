//! What the model did, step by step: the engine's side of
//! [`peerproof_proof::Execute`].
//!
//! One function turns an output of the forward pass into one [`Step`]; the
//! serving loop and the [`Replayer`] share it, so there is one definition of what
//! a leaf holds. A replay is a single
//! causal prefill over prompt and answer, teacher-forced: the tokens read are
//! those claimed, and beside each stands the token the model would have drawn.
//! Deliberately absent: hashing leaves into trees, and any verdict.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use peerproof_proof::{Ending, Execute, Step, embedding, state_digest};
use peerproof_wire::{Digest, ModelId, Offer};

use crate::constraint::ConstraintError;
use crate::draws::Draws;
use crate::embed::Embedder;
use crate::forward::{ForwardError, Item, Output, Runner};
use crate::kernels::KernelPath;
use crate::kv::{self, Kv};
use crate::model::{Model, PromptError};
use crate::stop::Answer;

/// Items given to the forward pass at once.
pub(crate) const BATCH: usize = 256;

/// Why a replay could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The offer is for another model.
    #[error("the offer names model {expected}, this is {got}")]
    Model {
        /// The offer's.
        expected: ModelId,
        /// The one held here.
        got: ModelId,
    },
    /// Prompt or answer isn't one for this model.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The offer's constraint is one that can't be followed here.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The cache of the replay would be larger than it may be.
    #[error("recomputing needs {got} bytes of cache, and may have {expected}")]
    CacheBudget {
        /// The limit.
        expected: usize,
        /// What prompt and answer need.
        got: usize,
    },
    /// The forward pass refuses the tokens.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Nobody wants it any more.
    #[error("the replay was given up after {read} of {tokens} tokens")]
    Stopped {
        /// Tokens read until then.
        read: usize,
        /// Tokens to read.
        tokens: usize,
    },
}

/// Replays answers for an auditor. One replay runs at a time; further callers wait.
#[derive(Debug)]
pub struct Replayer {
    pub(crate) model: Arc<Model>,
    pub(crate) runner: Mutex<Runner>,
    kv_bytes: usize,
}

impl Replayer {
    /// A replayer of `threads` threads on the fastest kernels of this processor,
    /// whose cache may take what the model's longest context takes.
    ///
    /// # Errors
    /// The kernels can't be used.
    pub fn new(model: Arc<Model>, threads: usize) -> Result<Self, ForwardError> {
        let runner = Runner::new(Arc::clone(model.transformer()), threads, KernelPath::best())?;
        Ok(Self { model, runner: Mutex::new(runner), kv_bytes: usize::MAX })
    }

    /// The same replayer, but the cache of what it recomputes, embeddings among it,
    /// takes at most so many bytes; what needs more is refused.
    #[must_use]
    pub fn limited_to(self, kv_bytes: usize) -> Self {
        Self { kv_bytes, ..self }
    }

    /// Whether the cache for so many positions may be made.
    ///
    /// # Errors
    /// It would be larger than it may be.
    pub fn check_capacity(&self, positions: usize) -> Result<(), ReplayError> {
        let got = kv::bare_bytes(self.model.transformer().shape(), positions);
        let expected = self.kv_bytes;
        if got > expected {
            return Err(ReplayError::CacheBudget { expected, got });
        }
        Ok(())
    }

    /// An empty cache for so many positions.
    pub(crate) fn cache(&self, positions: usize) -> Result<Kv, ReplayError> {
        self.check_capacity(positions)?;
        Ok(Kv::new(self.model.transformer(), positions))
    }

    /// The model it runs.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The same replayer, but what it does is given up, and its memory freed,
    /// soon after `stop` turns true.
    #[must_use]
    pub fn until<'a>(&'a self, stop: &'a AtomicBool) -> Until<'a> {
        Until { replayer: self, stop }
    }

    pub(crate) fn check_model(&self, offer: &Offer) -> Result<(), ReplayError> {
        let (expected, got) = (offer.model_id, self.model.id());
        if expected == got { Ok(()) } else { Err(ReplayError::Model { expected, got }) }
    }
}

impl Execute for Replayer {
    type Error = ReplayError;

    fn model_id(&self) -> ModelId {
        self.model.id()
    }

    fn vocabulary(&self) -> u32 {
        self.model.vocabulary() as u32
    }

    fn spelling(&self, token: u32) -> &[u8] {
        self.model.tokenizer().spelling(token)
    }

    fn prompt_tokens(&self, offer: &Offer) -> Result<Vec<u32>, ReplayError> {
        self.check_model(offer)?;
        Ok(self.model.prompt_tokens(&offer.prompt)?)
    }

    fn replay(
        &self,
        offer: &Offer,
        key: &Digest,
        seed: &Digest,
        prompt: &[u32],
        answer: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Digest, ReplayError> {
        self.until(&AtomicBool::new(false)).replay(offer, key, seed, prompt, answer, on_step)
    }

    fn embed(
        &self,
        offer: &Offer,
        key: &Digest,
        prompt: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<(Vec<u32>, Digest), ReplayError> {
        self.until(&AtomicBool::new(false)).embed(offer, key, prompt, on_step)
    }

    fn ending(&self, offer: &Offer, answer: &[u32]) -> Result<Ending, ReplayError> {
        self.check_model(offer)?;
        let mut text = Answer::new(offer.stop.iter().cloned(), offer.max_tokens);
        for &token in answer {
            if text.push(self.model.tokenizer(), token).stop.is_some() {
                break;
            }
        }
        Ok(Ending { text: text.text_if_ended(), stop: text.stop(), tokens: text.tokens() })
    }
}

/// A [`Replayer`] that can be told to stop; see [`Replayer::until`].
#[derive(Debug)]
pub struct Until<'a> {
    pub(crate) replayer: &'a Replayer,
    pub(crate) stop: &'a AtomicBool,
}

/// Told each position and what came out there.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(u32, &Output<'_>);

impl Until<'_> {
    /// Replays prompt and answer; the cache comes back with the keys and values of all positions.
    pub(crate) fn replay_watched(
        &self,
        offer: &Offer,
        (key, seed): (&Digest, &Digest),
        (prompt, answer): (&[u32], &[u32]),
        watch: Watch<'_>,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Kv, ReplayError> {
        let Replayer { model, runner, .. } = self.replayer;
        self.replayer.check_model(offer)?;
        let read = answer.len().saturating_sub(1);
        model.check_fit(prompt, read as u32)?;
        let masks = model.masks(&offer.sampling)?;
        let end = model.first_end();
        let mut draws = Draws::new(*key, *seed, &offer.sampling, prompt, masks, end);
        let tokens: Vec<u32> = prompt.iter().chain(&answer[..read]).copied().collect();
        let item = |(position, &token): (usize, &u32)| Item {
            sequence: 0,
            token,
            logits: position + 1 >= prompt.len(),
        };
        let items: Vec<Item> = tokens.iter().enumerate().map(item).collect();
        // A panic elsewhere leaves only scratch memory behind, which every pass overwrites; whoever
        // waits for the runner holds no cache.
        let mut runner = runner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kv = self.replayer.cache(items.len())?;
        for (at, batch) in items.chunks(BATCH).enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ReplayError::Stopped { read: at * BATCH, tokens: items.len() });
            }
            runner.forward(&mut [&mut kv], batch, &mut |index, output| {
                let position = at * BATCH + index;
                watch(position as u32, &output);
                on_step(draws.step(position, tokens[position], &output));
            })?;
        }
        Ok(kv)
    }
}

impl Execute for Until<'_> {
    type Error = ReplayError;

    fn model_id(&self) -> ModelId {
        self.replayer.model_id()
    }

    fn vocabulary(&self) -> u32 {
        self.replayer.vocabulary()
    }

    fn spelling(&self, token: u32) -> &[u8] {
        self.replayer.spelling(token)
    }

    fn prompt_tokens(&self, offer: &Offer) -> Result<Vec<u32>, ReplayError> {
        self.replayer.prompt_tokens(offer)
    }

    fn replay(
        &self,
        offer: &Offer,
        key: &Digest,
        seed: &Digest,
        prompt: &[u32],
        answer: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Digest, ReplayError> {
        let watch = &mut |_: u32, _: &Output<'_>| ();
        let kv = self.replay_watched(offer, (key, seed), (prompt, answer), watch, on_step)?;
        Ok(kv.kv_root(kv.position()))
    }

    fn embed(
        &self,
        offer: &Offer,
        key: &Digest,
        prompt: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<(Vec<u32>, Digest), ReplayError> {
        let Replayer { model, runner, .. } = self.replayer;
        self.replayer.check_model(offer)?;
        model.check_fit(prompt, 0)?;
        let transformer = model.transformer();
        let mut embedder = Embedder::new(transformer, model.pooling(offer.pooling));
        let mut runner = runner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kv = self.replayer.cache(prompt.len())?;
        for (at, batch) in prompt.chunks(BATCH).enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ReplayError::Stopped { read: at * BATCH, tokens: prompt.len() });
            }
            let item = |&token: &u32| Item { sequence: 0, token, logits: false };
            let items: Vec<Item> = batch.iter().map(item).collect();
            runner.forward(&mut [&mut kv], &items, &mut |index, output| {
                embedder.push(output.state);
                let position = (at * BATCH + index) as u32;
                let state = state_digest(key, output.state);
                let (token, layers) = (batch[index], output.layers);
                on_step(Step { position, token, state, layers, drawn: None });
            })?;
        }
        let vector = embedder.finish(offer.max_tokens as usize);
        let vector = vector.into_iter().map(embedding::token).collect();
        Ok((vector, kv.kv_root(prompt.len())))
    }

    fn ending(&self, offer: &Offer, answer: &[u32]) -> Result<Ending, ReplayError> {
        self.replayer.ending(offer, answer)
    }
}
