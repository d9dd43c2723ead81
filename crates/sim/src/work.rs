//! What a provider makes of an offer: tokens, text, leaves, the end.
//!
//! An honest provider's work is a function of the offer. A liar's differs as
//! its script says, and is committed to just as carefully; the same script and
//! offer give the same work again, so a liar that opens leaves opens those it
//! committed to.

use std::collections::BTreeMap;

use peerproof_job::limits::COMMIT_EVERY;
use peerproof_job::provider::{Ended, Step};
use peerproof_proof::receipt::{output_hash, shown_hash};
use peerproof_proof::{Execute as _, Transcript, Tree, sampling_seed};
use peerproof_wire::{Commitment, Digest, Leaf, Offer, Signed, Stop};

use crate::conduct::ProviderLie;
use crate::toy::{Quirk, Row, Toy, another};

/// An answer with everything that is committed to.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) prompt_tokens: u32,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    /// How many bytes of the text are out after so many tokens.
    shown: Vec<usize>,
    commitments: BTreeMap<usize, Commitment>,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) tree: Tree,
    pub(crate) ended: Ended,
}

/// How tokens are chosen and where the answer ends.
struct Script<'a> {
    writer: Toy,
    scorer: Toy,
    offer: &'a Signed<Offer>,
    lie: Option<ProviderLie>,
    /// A number that the offer gives a script which needs one.
    number: u32,
}

impl Work {
    /// The one right answer.
    pub(crate) fn honest(offer: &Signed<Offer>) -> Self {
        Self::of(offer, None)
    }

    /// What a provider with this script makes of the offer.
    pub(crate) fn of(offer: &Signed<Offer>, lie: Option<ProviderLie>) -> Self {
        let number = u32::from(offer.id().as_bytes()[0]);
        let scorer = Toy::with(match lie {
            Some(ProviderLie::OtherModel) => Quirk::OtherWeights,
            Some(ProviderLie::ShortContext) => Quirk::ShortContext,
            Some(ProviderLie::HiddenPrompt) => Quirk::HiddenPrompt,
            Some(ProviderLie::OwnSeed) => Quirk::OwnSeed,
            Some(ProviderLie::BiasedSampling) => Quirk::BiasedDraws,
            Some(ProviderLie::WrongTemperature) => Quirk::NoTemperature,
            // The first positions are there in every job.
            Some(ProviderLie::OneLayer) => Quirk::OneLayer(number % 8),
            Some(ProviderLie::RoundedKv) => Quirk::RoundedKv,
            _ => Quirk::None,
        });
        let writer = match lie {
            Some(ProviderLie::DraftModel) => Toy::with(Quirk::OtherWeights),
            _ => scorer,
        };
        Script { writer, scorer, offer, lie, number }.work()
    }

    /// Whether this is not what an honest provider does.
    pub(crate) fn differs(&self, honest: &Self) -> bool {
        self.ended != honest.ended || self.prompt_tokens != honest.prompt_tokens
    }

    /// What the client is told from token `from` on.
    pub(crate) fn steps(&self, from: usize) -> Vec<Step> {
        (from..self.tokens.len()).map(|index| self.step_at(index)).collect()
    }

    fn step_at(&self, index: usize) -> Step {
        let before = index.checked_sub(1).map_or(0, |index| self.shown[index]);
        Step {
            token: self.tokens[index],
            text: self.text[before..self.shown[index]].to_owned(),
            commitment: self.commitments.get(&(index + 1)).copied(),
            logprobs: None,
        }
    }
}

impl Script<'_> {
    fn work(&self) -> Work {
        let Ok(prompt) = self.scorer.prompt_tokens(self.offer);
        let (leaves, tokens) = self.answer(&prompt);
        let (text, stop, shown) = self.text(&tokens);
        let read: Vec<u32> = leaves.iter().map(|leaf| leaf.token).collect();
        let mut transcript = Transcript::new();
        let mut commitments = BTreeMap::new();
        for leaf in &leaves {
            transcript.push(leaf).expect("leaves come in order and below the limit");
            let drawn = (transcript.leaves() as usize + 1).saturating_sub(prompt.len());
            if drawn > 0 && drawn.is_multiple_of(COMMIT_EVERY) {
                commitments.insert(drawn, transcript.commitment());
            }
        }
        if self.lie == Some(ProviderLie::NoCommitments) {
            commitments.clear();
        }
        let text_hash = shown_hash(&text, &[]);
        let kv_root = self.scorer.kv_root(&read);
        let tree = transcript
            .close_with(stop, tokens.len() as u32, &text_hash, &kv_root)
            .expect("leaves are below the limit");
        let (root, leaf_count) = self.claim(&tree);
        let ended = Ended {
            tokens: tokens.len() as u32,
            stop,
            output_hash: output_hash(&tokens),
            text_hash,
            transcript_root: root,
            kv_root,
            leaves: leaf_count,
        };
        let billed = if self.lie == Some(ProviderLie::OverBilledPrompt) { 3 } else { 0 };
        let prompt_tokens = prompt.len() as u32 + billed;
        Work { prompt_tokens, tokens, text, shown, commitments, leaves, tree, ended }
    }

    /// Root and number of leaves that the receipt names.
    fn claim(&self, tree: &Tree) -> (Digest, u32) {
        match self.lie {
            // Its own terms must hold, or no audit would be needed.
            Some(ProviderLie::OverBilledPrompt) => (tree.root(), tree.leaves() + 3),
            Some(ProviderLie::OnlyWhenAudited) => (self.offer.id(), tree.leaves()),
            _ => (tree.root(), tree.leaves()),
        }
    }

    /// Leaves of all positions, and the tokens of the answer.
    fn answer(&self, prompt: &[u32]) -> (Vec<Leaf>, Vec<u32>) {
        let (key, seed) = (self.key(), sampling_seed(self.offer));
        let (mut row, mut draft_row) = (Row::start(), Row::start());
        let (mut read, mut leaves) = (Vec::new(), Vec::new());
        let mut tokens: Vec<u32> = Vec::new();
        for token in prompt {
            read.push(*token);
            if read.len() < prompt.len() {
                let (toy, offer) = (&self.scorer, self.offer);
                leaves.push(toy.step(offer, &key, &seed, &mut row, &read, None).into());
                self.writer.step(offer, &key, &seed, &mut draft_row, &read, None);
            }
        }
        loop {
            let index = Some(tokens.len() as u32);
            let mut step = self.scorer.step(self.offer, &key, &seed, &mut row, &read, index);
            let draft = self.writer.step(self.offer, &key, &seed, &mut draft_row, &read, index);
            let canonical = draft.drawn.as_ref().map_or(0, |drawn| drawn.next);
            let next = self.token(tokens.len(), canonical);
            // A leaf that names another token than the answer would give itself away.
            // An audit that only compared leaves would pass it, though.
            if let Some(drawn) = &mut step.drawn
                && self.lie != Some(ProviderLie::AlteredToken)
            {
                drawn.next = next;
            }
            leaves.push(Leaf::from(step));
            tokens.push(next);
            if self.is_over(&tokens) {
                return (leaves, tokens);
            }
            read.push(next);
        }
    }

    /// What keys the digests: the offer, unless they are shown a second time.
    fn key(&self) -> Digest {
        match self.lie {
            Some(ProviderLie::CachedAnswer) => Digest::from_bytes([7; 32]),
            _ => self.offer.id(),
        }
    }

    fn token(&self, index: usize, canonical: u32) -> u32 {
        let at = match self.lie {
            Some(ProviderLie::AlteredToken) => self.number as usize % 4,
            Some(ProviderLie::FalseBeginning) => 0,
            _ => return canonical,
        };
        if index == at { another(canonical) } else { canonical }
    }

    fn is_over(&self, tokens: &[u32]) -> bool {
        let most = self.offer.max_tokens as usize;
        let Ok(ending) = self.scorer.ending(self.offer, tokens);
        match self.lie {
            Some(ProviderLie::EarlyStop) => ending.stop.is_some() || tokens.len() * 3 >= most,
            Some(ProviderLie::Padding) => tokens.len() >= most,
            _ => ending.stop.is_some(),
        }
    }

    /// The text, why it ends, and how much of it is out after each token.
    fn text(&self, tokens: &[u32]) -> (String, Stop, Vec<usize>) {
        let ending = |tokens: &[u32]| {
            let Ok(ending) = self.scorer.ending(self.offer, tokens);
            ending
        };
        let whole = ending(tokens);
        // The beginning of a stop string may not be shown before it is known to be none.
        let held = self.offer.stop.iter().map(|stop| stop.len().saturating_sub(1)).max();
        let mut shown: Vec<usize> = (1..=tokens.len())
            .map(|count| ending(&tokens[..count]).text.len().saturating_sub(held.unwrap_or(0)))
            .map(|length| length.min(whole.text.len()))
            .collect();
        if let Some(last) = shown.last_mut() {
            *last = whole.text.len();
        }
        let stop = whole.stop.unwrap_or(Stop::EndOfText);
        let stop = if self.lie == Some(ProviderLie::Padding) { Stop::Length } else { stop };
        let mut text = whole.text;
        if self.lie == Some(ProviderLie::TextSigned) {
            text = text.to_uppercase();
        }
        (text, stop, shown)
    }
}
