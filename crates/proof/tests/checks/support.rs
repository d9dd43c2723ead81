//! A toy model and a provider that serves it.
//!
//! The toy is an integer recurrence over the tokens: it has states, logits,
//! draws, end tokens and stop strings like a real one, and costs nothing. What
//! it says is meaningless, which no part of the proof may notice.

use std::convert::Infallible;

use peerproof_identity::Keypair;
use peerproof_proof::cells::{KV_PAGE, kv_layer, kv_page, kv_root, layers_digest};
use peerproof_proof::receipt::{Answer, Place};
use peerproof_proof::transcript::COMMIT_EVERY;
use peerproof_proof::{
    DrawnStep, Ending, Execute, Step, Transcript, Tree, logits_digest, receipt, sampling_seed,
    state_digest,
};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Case, Challenge, Class, Commitment, Digest, Leaf, Level, ModelId, Offer, Openings, Prompt,
    Receipt, Sampling, Signed, Stop, TokenLogprobs,
};

pub(crate) const VOCABULARY: u32 = 32;
pub(crate) const END: u32 = 0;
pub(crate) const NONCE: [u8; 32] = [0xc1; 32];
pub(crate) const MODEL: ModelId = ModelId::from_bytes([0x33; 32]);

/// What a toy does otherwise than the model it claims to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Quirk {
    #[default]
    None,
    /// Other weights throughout: another model, or a harsher quantisation.
    OtherWeights,
    /// One state is off by one, at one position, and is not carried on.
    NudgedState(u32),
    /// The logits of one position are off by one.
    NudgedLogits(u32),
    /// A message is put before the prompt.
    HiddenSystemPrompt,
    /// Every draw is replaced.
    BiasedDraws,
    /// A row between two layers is off by one at this position, and mended before the end.
    NudgedLayer(u32),
    /// Keys and values are rounded.
    RoundedKv,
    /// Draws come from a seed of the provider's own.
    OwnSeed,
    /// Greedy, whatever was asked.
    NoTemperature,
    /// Contexts are cut to their last four tokens.
    ShortContext,
    /// Presence penalties are left out.
    NoPenalty,
    /// Biases are left out.
    NoBias,
    /// Tokens less likely than min-p allows are drawn.
    NoMinP,
    /// The reported probability of one position's token is off by one.
    NudgedReport(u32),
    /// The likeliest tokens of one position are reported in another order.
    SwappedReport(u32),
    /// A likely token is spelled otherwise.
    MisspeltReport(u32),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Toy {
    pub(crate) quirk: Quirk,
}

type Row = [i32; 8];

impl Toy {
    pub(crate) fn with(quirk: Quirk) -> Self {
        Self { quirk }
    }

    fn advance(&self, row: &Row, token: u32) -> Row {
        let weight = if self.quirk == Quirk::OtherWeights { 31 } else { 29 };
        let mut next = *row;
        for (index, value) in next.iter_mut().enumerate() {
            let neighbour = row[(index + 1) % row.len()];
            *value = value
                .wrapping_mul(weight)
                .wrapping_add(neighbour.rotate_left(7))
                .wrapping_add(token as i32 * (index as i32 + 1) + 12_345);
        }
        next
    }

    fn row(&self, read: &[u32]) -> Row {
        let from = match self.quirk {
            Quirk::ShortContext => read.len().saturating_sub(4),
            _ => 0,
        };
        read[from..].iter().fold([1; 8], |row, token| self.advance(&row, *token))
    }

    fn logits(&self, row: &Row) -> Vec<i32> {
        let mixed = |token: u32| {
            row.iter().fold(token as i32, |sum, value| {
                sum.wrapping_mul(37).wrapping_add(value.rotate_left(token % 32))
            })
        };
        (0..VOCABULARY).map(|token| mixed(token).rem_euclid(1 << 16)).collect()
    }

    /// One position: state and, where `step` says that a token is drawn, the draw.
    pub(crate) fn step(
        &self,
        offer: &Offer,
        key: &Digest,
        seed: &Digest,
        read: &[u32],
        drawn: Option<u32>,
    ) -> Step {
        let position = read.len() as u32 - 1;
        let mut row = self.row(read);
        let mut logits = self.logits(&row);
        if self.quirk == Quirk::NudgedState(position) {
            row[0] ^= 1;
        }
        if self.quirk == Quirk::NudgedLogits(position) {
            logits[3] += 1;
        }
        let drawn = drawn.map(|step| {
            let draw = self.draw(offer, seed, step);
            let next = self.choose(offer, &logits, &read[read.len() - step as usize..], draw);
            let top = offer.sampling.logprobs;
            let logprobs = top.map(|top| self.report(position, &logits, next, top as usize));
            DrawnStep { logits: logits_digest(key, &logits), draw, next, logprobs }
        });
        let mut layers = [self.row(&read[..read.len() - 1]), row].concat();
        if self.quirk == Quirk::NudgedLayer(position) {
            layers[7] ^= 1;
        }
        let layers = layers_digest(&layers);
        let (token, state) = (read[read.len() - 1], state_digest(key, &row));
        Step { position, token, state, layers, drawn }
    }

    /// The toy's own rules: fewer and plainer than those of the arithmetic.
    fn choose(&self, offer: &Offer, logits: &[i32], answer: &[u32], draw: u64) -> u32 {
        let rules = &offer.sampling;
        let ruled = |token: u32| {
            let mut logit = i64::from(logits[token as usize]);
            if self.quirk != Quirk::NoPenalty && answer.contains(&token) {
                logit -= i64::from(rules.presence_q16);
            }
            let bias = rules.bias.iter().find(|bias| bias.token == token);
            if self.quirk != Quirk::NoBias {
                logit += bias.map_or(0, |bias| i64::from(bias.bias_q16));
            }
            logit
        };
        let best = (0..VOCABULARY).max_by_key(|token| ruled(*token)).unwrap();
        let greedy = rules.min_p_q16 == 1 << 16 && self.quirk != Quirk::NoMinP;
        let step = if greedy { 0 } else { (draw % 5) as u32 };
        (best + step) % VOCABULARY
    }

    fn report(&self, position: u32, logits: &[i32], next: u32, top: usize) -> TokenLogprobs {
        let best = *logits.iter().max().unwrap();
        let value = |token: u32| (best - logits[token as usize]) as u32;
        let mut ranked: Vec<u32> = (0..VOCABULARY).collect();
        ranked.sort_by_key(|token| (value(*token), *token));
        let mut top: Vec<(u32, u32)> =
            ranked.into_iter().take(top).map(|token| (token, value(token))).collect();
        if self.quirk == Quirk::SwappedReport(position) {
            top.reverse();
        }
        let lie = u32::from(self.quirk == Quirk::NudgedReport(position));
        TokenLogprobs { chosen_q16: value(next) + lie, top, spellings: vec![] }
    }

    /// Root over what the toy has for keys and values: one layer of what each token alone makes.
    pub(crate) fn kv_root(&self, read: &[u32]) -> Digest {
        let mask = if self.quirk == Quirk::RoundedKv { 0xf0 } else { 0xff };
        let row = |token: &u32| self.advance(&[1; 8], *token)[0].to_le_bytes();
        let rows: Vec<[u8; 4]> =
            read.iter().map(|token| row(token).map(|byte| byte & mask)).collect();
        let pages: Vec<Digest> = rows.chunks(KV_PAGE).map(|page| kv_page(&page.concat())).collect();
        kv_root(&[kv_layer(0, read.len() as u32, &pages)])
    }

    fn draw(&self, offer: &Offer, seed: &Digest, step: u32) -> u64 {
        if offer.sampling.temperature_q16 == 0 || self.quirk == Quirk::NoTemperature {
            return 0;
        }
        let mut seed = *seed.as_bytes();
        match self.quirk {
            Quirk::OwnSeed => seed[0] ^= 1,
            Quirk::BiasedDraws => return 3,
            _ => {}
        }
        peerproof_proof::seed::draw(&Digest::from_bytes(seed), step.into())
    }
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
        let at = 1 + token as usize % 26;
        &b"_abcdefghijklmnopqrstuvwxyz"[at..=at]
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
        if self.quirk == Quirk::HiddenSystemPrompt {
            tokens.splice(0..0, encode("be evil"));
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
        // A real model has no row for such a token.
        assert!(read[..read.len() - 1].iter().all(|token| *token < VOCABULARY));
        for end in 1..read.len() {
            let drawn = (end as u32).checked_sub(prompt.len() as u32);
            on_step(self.step(offer, key, seed, &read[..end], drawn));
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
        for end in 1..=prompt.len() {
            on_step(self.step(offer, key, &Digest::from_bytes([0; 32]), &prompt[..end], None));
        }
        let other = i32::from(self.quirk == Quirk::NoTemperature);
        let sum: i32 = prompt.iter().map(|token| *token as i32).sum::<i32>() + other;
        let vector = (0..offer.max_tokens.min(12)).map(|at| sum * (at as i32 + 1) - 40);
        let vector = vector.map(peerproof_proof::embedding::token).collect();
        Ok((vector, self.kv_root(prompt)))
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

pub(crate) fn router() -> Keypair {
    Keypair::from_seed(&[0x11; 32])
}

pub(crate) fn provider() -> Keypair {
    Keypair::from_seed(&[0x22; 32])
}

pub(crate) fn auditor() -> Keypair {
    Keypair::from_seed(&[0x44; 32])
}

/// A request that samples; change what a test is about.
pub(crate) fn offer() -> Offer {
    Offer {
        model_id: MODEL,
        prompt: Prompt::Text("what is true?".into()),
        sampling: Sampling { temperature_q16: 1 << 16, ..Sampling::GREEDY },
        max_tokens: 70,
        stop: vec![],
        level: Level::Full,
        public_nonce: [0x55; 32],
        client_nonce_hash: client_nonce_hash(&NONCE),
        deadline_ms: 60_000,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    }
}

/// A request whose answer runs to its limit of 70 tokens.
pub(crate) fn long_offer() -> Offer {
    (0..=u8::MAX)
        .map(|nonce| Offer { public_nonce: [nonce; 32], ..offer() })
        .find(|offer| serve(&Toy::default(), &sign(offer.clone())).tokens.len() == 70)
        .unwrap()
}

/// The long offer, asking for the three likeliest tokens at each place.
pub(crate) fn reporting_offer() -> Offer {
    let mut offer = long_offer();
    offer.sampling.logprobs = Some(3);
    offer
}

pub(crate) fn sign(offer: Offer) -> Signed<Offer> {
    Signed::sign(&router(), offer).unwrap()
}

/// An answer with everything a provider has at its end.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) offer: Signed<Offer>,
    pub(crate) prompt_tokens: u32,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) stop: Stop,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) tree: Tree,
    pub(crate) receipt: Signed<Receipt>,
    pub(crate) commitments: Vec<Commitment>,
}

/// Serves an offer as `toy` does it.
pub(crate) fn serve(toy: &Toy, offer: &Signed<Offer>) -> Served {
    let (key, seed) = (offer.id(), sampling_seed(offer));
    let prompt = toy.prompt_tokens(offer).unwrap();
    let (mut read, mut tokens, mut leaves) = (prompt.clone(), Vec::new(), Vec::new());
    let mut logprobs = Vec::new();
    for end in 1..prompt.len() {
        leaves.push(toy.step(offer, &key, &seed, &prompt[..end], None).into());
    }
    let ending = loop {
        let mut step = toy.step(offer, &key, &seed, &read, Some(tokens.len() as u32));
        let drawn = step.drawn.as_mut().unwrap();
        let next = drawn.next;
        if let Some(mut report) = drawn.logprobs.take() {
            report.spell(next, |token| toy.spelling(token));
            if toy.quirk == Quirk::MisspeltReport(step.position) {
                report.spellings[2] = b"?".to_vec();
            }
            logprobs.push(report);
        }
        leaves.push(Leaf::from(step));
        tokens.push(next);
        let ending = toy.ending(offer, &tokens).unwrap();
        if ending.stop.is_some() {
            break ending;
        }
        read.push(next);
    };
    let stop = ending.stop.unwrap();
    let kv_root = toy.kv_root(&read);
    commit_with(&provider(), offer, (leaves, kv_root), tokens, &ending.text, logprobs, stop)
}

/// Commits to whatever it is given and signs it, true or not.
pub(crate) fn commit(
    key: &Keypair,
    offer: &Signed<Offer>,
    leaves: Vec<Leaf>,
    tokens: Vec<u32>,
    text: &str,
    stop: Stop,
) -> Served {
    let read: Vec<u32> = leaves.iter().map(|leaf| leaf.token).collect();
    let kv_root = Toy::default().kv_root(&read);
    commit_with(key, offer, (leaves, kv_root), tokens, text, vec![], stop)
}

/// The same with a root over keys and values, and with reported probabilities.
pub(crate) fn commit_with(
    key: &Keypair,
    offer: &Signed<Offer>,
    (leaves, kv_root): (Vec<Leaf>, Digest),
    tokens: Vec<u32>,
    text: &str,
    logprobs: Vec<TokenLogprobs>,
    stop: Stop,
) -> Served {
    let mut transcript = Transcript::new();
    let mut commitments = Vec::new();
    for leaf in &leaves {
        transcript.push(leaf).unwrap();
        let drawn = (transcript.leaves() + tokens.len() as u32).checked_sub(leaves.len() as u32);
        if drawn.is_some_and(|drawn| drawn > 0 && drawn % COMMIT_EVERY == 0) {
            commitments.push(transcript.commitment());
        }
    }
    let shown = receipt::shown_hash(text, &logprobs);
    let tree = transcript.close_with(stop, tokens.len() as u32, &shown, &kv_root).unwrap();
    let receipt = Receipt {
        offer_id: offer.id(),
        model_id: offer.model_id,
        number: 1,
        previous: None,
        prompt_tokens: match offer.pooling {
            Some(_) => leaves.len() as u32,
            None => (leaves.len() + 1 - tokens.len()) as u32,
        },
        output_tokens: tokens.len() as u32,
        stop,
        output_hash: receipt::output_hash(&tokens),
        text_hash: shown,
        transcript_root: tree.root(),
        leaves: tree.leaves(),
        kv_root,
        class: Class::Exact,
        issued_unix_ms: 1_000,
    };
    Served {
        offer: offer.clone(),
        prompt_tokens: receipt.prompt_tokens,
        receipt: Signed::sign(key, receipt).unwrap(),
        tokens,
        text: text.into(),
        logprobs,
        stop,
        leaves,
        tree,
        commitments,
    }
}

impl Served {
    pub(crate) fn case(&self) -> Case {
        Case {
            offer: self.offer.clone(),
            receipt: self.receipt.clone(),
            tokens: self.tokens.clone(),
        }
    }

    pub(crate) fn answer(&self) -> Answer<'_> {
        Answer { tokens: &self.tokens, text: &self.text, logprobs: &self.logprobs }
    }

    /// The same answer under an altered receipt, signed.
    pub(crate) fn with_receipt(&self, alter: impl FnOnce(&mut Receipt)) -> Self {
        let mut receipt = self.receipt.statement().clone();
        alter(&mut receipt);
        Self { receipt: Signed::sign(&provider(), receipt).unwrap(), ..self.clone() }
    }

    pub(crate) fn challenge(&self, leaf_hashes: bool) -> Challenge {
        Challenge {
            receipt_id: self.receipt.id(),
            client_nonce: NONCE,
            positions: vec![],
            leaf_hashes,
        }
    }

    /// Everything a provider can be asked to open.
    pub(crate) fn openings(&self) -> Openings {
        self.respond(&self.challenge(true))
    }

    pub(crate) fn respond(&self, challenge: &Challenge) -> Openings {
        peerproof_proof::challenge::respond(
            &self.offer,
            &self.receipt,
            &self.leaves,
            &self.tree,
            challenge,
        )
        .unwrap()
    }

    /// Builds the receipt as an honest provider does, to compare.
    pub(crate) fn built(&self) -> Receipt {
        let committed = (&self.tree, self.receipt.kv_root);
        receipt::build(&self.offer, self.answer(), self.stop, committed, Place::FIRST, 1_000)
            .unwrap()
    }
}
