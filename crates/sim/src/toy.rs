//! A tiny model in integers: states, logits, draws, end tokens and stop strings.
//!
//! It is as deterministic as a real one and costs nothing; what it says is
//! meaningless, which no part of the proof may notice. Its digests, seeds and
//! draws are the real ones. A [`Quirk`] is how a liar's model differs from the
//! one whose name it bears.

use std::convert::Infallible;

use peerproof_proof::cells::{KV_PAGE, kv_layer, kv_page, kv_root, layers_digest};
use peerproof_proof::{DrawnStep, Ending, Execute, Step, logits_digest, seed, state_digest};
use peerproof_wire::{Digest, ModelId, Offer, Prompt, Stop};

/// The model that every node of a simulated world means.
pub(crate) const MODEL: ModelId = ModelId::from_bytes([0x51; 32]);
/// Most tokens of prompt and answer together.
pub(crate) const CONTEXT: u32 = 512;
const VOCABULARY: u32 = 32;
const END: u32 = 0;

/// How a model differs from the one it claims to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Quirk {
    #[default]
    None,
    /// Other weights throughout: another model, or a harsher quantisation.
    OtherWeights,
    /// A row between two layers is off by one at this position, and mended before the end.
    OneLayer(u32),
    /// Keys and values are kept in fewer bits.
    RoundedKv,
    /// Tokens are read before the prompt.
    HiddenPrompt,
    /// Only the last few tokens are read.
    ShortContext,
    /// The draws come from a seed of the provider's own.
    OwnSeed,
    /// Every draw is one the provider likes.
    BiasedDraws,
    /// No draw at all.
    NoTemperature,
}

/// The model.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Toy {
    pub(crate) quirk: Quirk,
}

/// The residual stream: what is left of everything read so far.
#[derive(Clone, Debug)]
pub(crate) struct Row([i32; 8]);

impl Toy {
    pub(crate) const fn with(quirk: Quirk) -> Self {
        Self { quirk }
    }

    /// What one position makes of the tokens up to it, the last of them its own.
    /// `drawn` is the index of the answer's token that it draws, if it draws one.
    pub(crate) fn step(
        &self,
        offer: &Offer,
        key: &Digest,
        seed: &Digest,
        row: &mut Row,
        read: &[u32],
        drawn: Option<u32>,
    ) -> Step {
        let position = read.len() as u32 - 1;
        let token = read.last().copied().unwrap_or_default();
        if self.quirk == Quirk::ShortContext {
            let from = read.len().saturating_sub(5);
            *row = read[from..read.len() - 1].iter().fold(Row::start(), |mut row, token| {
                self.advance(&mut row, *token);
                row
            });
        }
        let before = row.0;
        self.advance(row, token);
        let mut layers = [before, row.0].concat();
        if self.quirk == Quirk::OneLayer(position) {
            layers[7] ^= 1;
        }
        let drawn = drawn.map(|index| {
            let logits = logits(row);
            let draw = self.draw(offer, seed, index);
            DrawnStep {
                logits: logits_digest(key, &logits),
                draw,
                next: choose(&logits, draw),
                logprobs: None,
            }
        });
        let (state, layers) = (state_digest(key, &row.0), layers_digest(&layers));
        Step { position, token, state, layers, drawn }
    }

    /// Root over what the toy has for keys and values: one layer, a row for each token read.
    pub(crate) fn kv_root(&self, read: &[u32]) -> Digest {
        let mask = if self.quirk == Quirk::RoundedKv { 0xf0 } else { 0xff };
        let row = |token: &u32| {
            let mut row = Row::start();
            self.advance(&mut row, *token);
            row.0[0].to_le_bytes().map(|byte| byte & mask)
        };
        let rows: Vec<[u8; 4]> = read.iter().map(row).collect();
        let pages: Vec<Digest> =
            rows.chunks(KV_PAGE).map(|page| kv_page(page.as_flattened())).collect();
        kv_root(&[kv_layer(0, read.len() as u32, &pages)])
    }

    fn advance(&self, row: &mut Row, token: u32) {
        let weight = if self.quirk == Quirk::OtherWeights { 31 } else { 29 };
        let before = row.0;
        for (index, value) in row.0.iter_mut().enumerate() {
            let neighbour = before[(index + 1) % before.len()];
            *value = value
                .wrapping_mul(weight)
                .wrapping_add(neighbour.rotate_left(7))
                .wrapping_add(token as i32 * (index as i32 + 1) + 12_345);
        }
    }

    fn draw(&self, offer: &Offer, seed: &Digest, index: u32) -> u64 {
        if offer.sampling.temperature_q16 == 0 || self.quirk == Quirk::NoTemperature {
            return 0;
        }
        let mut seed = *seed.as_bytes();
        match self.quirk {
            Quirk::BiasedDraws => return 3,
            Quirk::OwnSeed => seed[0] ^= 1,
            _ => {}
        }
        seed::draw(&Digest::from_bytes(seed), index.into())
    }
}

impl Row {
    pub(crate) const fn start() -> Self {
        Self([1; 8])
    }
}

fn logits(row: &Row) -> Vec<i32> {
    let mixed = |token: u32| {
        row.0.iter().fold(token as i32, |sum, value| {
            sum.wrapping_mul(37).wrapping_add(value.rotate_left(token % 32))
        })
    };
    (0..VOCABULARY).map(|token| mixed(token).rem_euclid(1 << 16)).collect()
}

fn choose(logits: &[i32], draw: u64) -> u32 {
    let best = (0..VOCABULARY).max_by_key(|token| logits[*token as usize]).unwrap_or_default();
    (best + (draw % 5) as u32) % VOCABULARY
}

/// Another token than this one, and not the end.
pub(crate) const fn another(token: u32) -> u32 {
    1 + token % (VOCABULARY - 1)
}

impl Execute for Toy {
    type Error = Infallible;

    fn model_id(&self) -> ModelId {
        MODEL
    }

    fn vocabulary(&self) -> u32 {
        VOCABULARY
    }

    fn spelling(&self, token: u32) -> &[u8] {
        let at = token as usize % 26;
        &b"abcdefghijklmnopqrstuvwxyz"[at..=at]
    }

    fn prompt_tokens(&self, offer: &Offer) -> Result<Vec<u32>, Infallible> {
        let encode = |text: &str| -> Vec<u32> {
            text.bytes().map(|byte| 1 + u32::from(byte) % (VOCABULARY - 1)).collect()
        };
        let mut tokens = match &offer.prompt {
            Prompt::Text(text) => encode(text),
            Prompt::Tokens(ids) => ids.clone(),
            Prompt::Chat(messages) => {
                let rendered = messages.iter().map(|one| format!("<{}>{}", one.role, one.content));
                encode(&rendered.collect::<String>())
            }
        };
        if self.quirk == Quirk::HiddenPrompt {
            tokens.splice(0..0, encode("sell"));
        }
        Ok(tokens)
    }

    fn replay(
        &self,
        offer: &Offer,
        key: &Digest,
        seed: &Digest,
        prompt: &[u32],
        answer: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Digest, Infallible> {
        let read: Vec<u32> = [prompt, answer].concat();
        let mut row = Row::start();
        for end in 1..read.len() {
            let drawn = (end as u32).checked_sub(prompt.len() as u32);
            on_step(self.step(offer, key, seed, &mut row, &read[..end], drawn));
        }
        Ok(self.kv_root(&read[..read.len() - 1]))
    }

    fn embed(
        &self,
        offer: &Offer,
        key: &Digest,
        prompt: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<(Vec<u32>, Digest), Infallible> {
        let (mut row, none) = (Row::start(), Digest::from_bytes([0; 32]));
        for end in 1..=prompt.len() {
            on_step(self.step(offer, key, &none, &mut row, &prompt[..end], None));
        }
        let components = row.0.iter().take(offer.max_tokens as usize);
        let vector = components.map(|value| peerproof_proof::embedding::token(value % 1000));
        Ok((vector.collect(), self.kv_root(prompt)))
    }

    fn ending(&self, offer: &Offer, answer: &[u32]) -> Result<Ending, Infallible> {
        let mut text = String::new();
        for (index, token) in answer.iter().enumerate() {
            let tokens = index as u32 + 1;
            if *token == END {
                return Ok(Ending { text, stop: Some(Stop::EndOfText), tokens });
            }
            text.push(char::from(b'a' + (token % 26) as u8));
            if let Some(at) = offer.stop.iter().filter_map(|stop| text.find(stop)).min() {
                text.truncate(at);
                return Ok(Ending { text, stop: Some(Stop::StopString), tokens });
            }
            if tokens == offer.max_tokens {
                return Ok(Ending { text, stop: Some(Stop::Length), tokens });
            }
        }
        Ok(Ending { text, stop: None, tokens: answer.len() as u32 })
    }
}
