//! One stream to one provider: what may come on it when, and what has come.
//!
//! A lane judges order and amounts only. Whether its tokens are the right ones
//! is for the checks after the receipt.

use peerproof_wire::{
    Commitment, Delivered, LogProof, Offer, Receipt, Signed, TokenLogprobs, Tokens,
};

use super::answer::Answer;
use super::{LaneId, Options};
use crate::limits::{COMMIT_EVERY, MAX_TEXT_BYTES_PER_TOKEN, READ_FLOOR_MS};
use crate::reputation::Fault;
use crate::select::{Candidate, UNKNOWN_RTT_MS};
use crate::time::Millis;

/// Tokens after which a provider's pace is known.
const PACE_TOKENS: u64 = 8;
/// A provider is left after a silence of so many usual gaps.
const PATIENCE_GAPS: u64 = 50;

/// How far a lane has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The stream is being opened.
    Opening,
    /// The offer was sent.
    Offered,
    /// The offer was accepted; tokens come.
    Running,
    /// The receipt came; whether it holds is being checked.
    Checking {
        /// Bindings hold.
        bindings: bool,
        /// The place in the log holds.
        log: bool,
    },
    /// The receipt holds.
    Sound,
}

/// A breach of the conversation's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) fault: Fault,
    pub(super) why: String,
}

impl Breach {
    fn order(why: impl Into<String>) -> Self {
        Self { fault: Fault::OutOfOrder, why: why.into() }
    }

    fn garbage(why: impl Into<String>) -> Self {
        Self { fault: Fault::Garbage, why: why.into() }
    }
}

pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) candidate: Candidate,
    pub(super) stage: Stage,
    /// When this stage has lasted too long; `None` where something else limits it.
    pub(super) deadline: Option<Millis>,
    /// When another provider is asked as well.
    pub(super) hedge_at: Option<Millis>,
    /// Whether that moment has passed and nobody else was asked yet.
    pub(super) late: bool,
    /// The whole answer as this provider has it, the resumed beginning included.
    pub(super) tokens: Vec<u32>,
    /// The whole text; `None` once this provider departs from the resumed beginning.
    pub(super) text: Option<String>,
    /// How likely its tokens were, one report a token, if the offer asks.
    pub(super) logprobs: Vec<TokenLogprobs>,
    /// Where its answer departs from the beginning it was given.
    pub(super) disputed_at: Option<usize>,
    pub(super) prompt_tokens: u32,
    pub(super) receipt: Option<Signed<Receipt>>,
    pub(super) commitments: Vec<Commitment>,
    /// Tokens it was given to continue.
    resumed: usize,
    /// Tokens it says it has read.
    read: u32,
    /// When it accepted.
    accepted_at: Millis,
    /// Whether a token of its own has come.
    begun: bool,
    /// When the first one came.
    begun_at: Millis,
}

impl Lane {
    pub(super) fn opening(
        id: LaneId,
        candidate: Candidate,
        now: Millis,
        options: &Options,
    ) -> Self {
        let rtt_ms = rtt(&candidate);
        Self {
            id,
            candidate,
            stage: Stage::Opening,
            deadline: Some(now.after(options.open_ms)),
            hedge_at: Some(now.after(options.hedge_accept_ms + 4 * rtt_ms)),
            late: false,
            tokens: Vec::new(),
            text: Some(String::new()),
            logprobs: Vec::new(),
            disputed_at: None,
            prompt_tokens: 0,
            receipt: None,
            commitments: Vec::new(),
            resumed: 0,
            read: 0,
            accepted_at: now,
            begun: false,
            begun_at: now,
        }
    }

    /// The offer goes out, with the beginning of the answer.
    pub(super) fn offered(&mut self, begun: &Answer, now: Millis, options: &Options) {
        self.stage = Stage::Offered;
        self.deadline = Some(now.after(options.accept_ms));
        self.resumed = begun.tokens.len();
        self.tokens = begun.tokens.clone();
        self.text = Some(begun.text.clone());
        self.logprobs = begun.logprobs.clone();
    }

    pub(super) fn accepted(
        &mut self,
        prompt_tokens: u32,
        now: Millis,
        options: &Options,
    ) -> Result<(), Breach> {
        if self.stage != Stage::Offered {
            return Err(Breach::order(format!("acceptance while {}", self.doing())));
        }
        self.stage = Stage::Running;
        self.prompt_tokens = prompt_tokens;
        self.accepted_at = now;
        self.deadline = Some(now.after(options.first_token_ms));
        self.late = false;
        self.hedge_at = Some(now.after(options.hedge_token_ms + 2 * rtt(&self.candidate)));
        Ok(())
    }

    /// Tokens it has to read before it can draw one.
    pub(super) fn to_read(&self) -> u32 {
        self.prompt_tokens.saturating_add(self.resumed as u32)
    }

    /// Whether it says that it has read so many tokens.
    pub(super) fn has_read(&self, read: u32) -> bool {
        self.read >= read
    }

    /// It reads: that is life, as long as it gets on.
    pub(super) fn take_progress(
        &mut self,
        read: u32,
        now: Millis,
        options: &Options,
    ) -> Result<(), Breach> {
        if self.stage != Stage::Running || self.begun {
            return Err(Breach::order("progress of the prompt outside its reading"));
        }
        let most = self.to_read();
        if read <= self.read || read > most {
            return Err(Breach::garbage(format!(
                "{read} tokens read, expected more than {} and at most {most}",
                self.read
            )));
        }
        self.read = read;
        let floor_ms = u64::from(read).saturating_mul(READ_FLOOR_MS);
        let slowest = self.accepted_at.after(options.first_token_ms).after(floor_ms);
        self.deadline = Some(now.after(options.first_token_ms).min(slowest));
        Ok(())
    }

    pub(super) fn take_tokens(
        &mut self,
        frame: Tokens,
        offer: &Offer,
        now: Millis,
        options: &Options,
    ) -> Result<(), Breach> {
        if self.stage != Stage::Running {
            return Err(Breach::order(format!("tokens while {}", self.doing())));
        }
        if frame.tokens.is_empty() {
            return Err(Breach::garbage("a frame without tokens"));
        }
        let due = offer.sampling.logprobs.map_or(0, |_| frame.tokens.len());
        if frame.logprobs.len() != due {
            return Err(Breach::garbage(format!(
                "probabilities of {} tokens, expected {due}",
                frame.logprobs.len()
            )));
        }
        self.place(&frame)?;
        let room = (offer.max_tokens as usize).saturating_sub(self.tokens.len());
        if frame.tokens.len() > room {
            return Err(Breach::garbage(format!(
                "more than the {} tokens asked for",
                offer.max_tokens
            )));
        }
        self.tokens.extend_from_slice(&frame.tokens);
        self.logprobs.extend(frame.logprobs);
        self.take_text(&frame.text)?;
        // What an embedding is made from is committed to at its end.
        if offer.pooling.is_none() {
            self.take_commitment(frame.commitment)?;
        }
        if !self.begun {
            self.begun = true;
            self.begun_at = now;
        }
        self.never_mind();
        self.deadline = Some(now.after(self.patience_ms(now, options)));
        Ok(())
    }

    /// How long this provider may be silent: a multiple of the gap that is usual
    /// between its tokens, once there are enough to know it.
    fn patience_ms(&self, now: Millis, options: &Options) -> u64 {
        let own = (self.tokens.len() - self.resumed) as u64;
        if own < PACE_TOKENS {
            return options.stall_ms;
        }
        let usual_ms = now.since(self.begun_at) / own;
        let floor_ms = options.stall_floor_ms.min(options.stall_ms);
        usual_ms.saturating_mul(PATIENCE_GAPS).clamp(floor_ms, options.stall_ms)
    }

    /// A frame continues what came before. Only the first one of a resumed
    /// answer may start earlier, and only to say another token.
    fn place(&mut self, frame: &Tokens) -> Result<(), Breach> {
        let start = frame.start as usize;
        if start == self.tokens.len() {
            return Ok(());
        }
        let departs =
            !self.begun && start < self.resumed && frame.tokens.first() != self.tokens.get(start);
        if !departs {
            return Err(Breach::order(format!(
                "tokens from {start}, expected {}",
                self.tokens.len()
            )));
        }
        self.depart(start);
        Ok(())
    }

    fn take_text(&mut self, released: &str) -> Result<(), Breach> {
        let Some(text) = &mut self.text else { return Ok(()) };
        let limit = (self.tokens.len() + 1) * MAX_TEXT_BYTES_PER_TOKEN;
        if text.len() + released.len() > limit {
            return Err(Breach::garbage(format!(
                "more than {limit} bytes of text for {} tokens",
                self.tokens.len()
            )));
        }
        text.push_str(released);
        Ok(())
    }

    /// Commitments grow, cover no more than there is, and none is left out.
    fn take_commitment(&mut self, commitment: Option<Commitment>) -> Result<(), Breach> {
        let covered = self.commitments.last().map_or(0, |last| last.leaves);
        if let Some(commitment) = commitment {
            let most = u64::from(self.prompt_tokens) + self.tokens.len() as u64;
            if commitment.leaves <= covered || u64::from(commitment.leaves) > most {
                return Err(Breach::garbage(format!(
                    "a commitment to {} leaves, expected more than {covered} and at most {most}",
                    commitment.leaves
                )));
            }
            self.commitments.push(commitment);
        }
        let covered = self.commitments.last().map_or(0, |last| u64::from(last.leaves));
        let due = self.tokens.len() / COMMIT_EVERY * COMMIT_EVERY;
        let needed = u64::from(self.prompt_tokens) + due as u64;
        if due > self.resumed && covered + 1 < needed {
            return Err(Breach::order(format!("no commitment by token {due}")));
        }
        Ok(())
    }

    pub(super) fn delivered(
        &mut self,
        delivered: Delivered,
        now: Millis,
        options: &Options,
    ) -> Result<(Signed<Receipt>, LogProof), Breach> {
        if self.stage != Stage::Running {
            return Err(Breach::order(format!("a receipt while {}", self.doing())));
        }
        self.stage = Stage::Checking { bindings: false, log: false };
        self.deadline = Some(now.after(options.check_ms));
        self.never_mind();
        self.end_before(delivered.receipt.output_tokens as usize);
        self.receipt = Some(delivered.receipt.clone());
        Ok((delivered.receipt, delivered.log))
    }

    /// An answer that ends inside the beginning it was given departs from it there.
    fn end_before(&mut self, count: usize) {
        if !self.begun && count < self.resumed {
            self.depart(count);
        }
    }

    fn depart(&mut self, at: usize) {
        self.disputed_at = Some(at);
        self.tokens.truncate(at);
        self.logprobs.truncate(at);
        self.resumed = at;
        self.text = None;
    }

    /// It is not late any more.
    fn never_mind(&mut self) {
        self.hedge_at = None;
        self.late = false;
    }

    /// One of the two checks holds; true when both do.
    pub(super) fn holds(&mut self, which: Half) -> bool {
        let Stage::Checking { bindings, log } = &mut self.stage else { return false };
        match which {
            Half::Bindings => *bindings = true,
            Half::Log => *log = true,
        }
        let both = *bindings && *log;
        if both {
            self.stage = Stage::Sound;
            self.deadline = None;
        }
        both
    }

    pub(super) fn is_delivered(&self) -> bool {
        matches!(self.stage, Stage::Checking { .. } | Stage::Sound)
    }

    pub(super) fn is_sound(&self) -> bool {
        self.stage == Stage::Sound
    }

    /// Whether the provider is at work for this job.
    pub(super) fn is_working(&self) -> bool {
        matches!(self.stage, Stage::Offered | Stage::Running)
    }

    /// Whether it continues what others began.
    pub(super) fn was_resumed(&self) -> bool {
        self.resumed > 0
    }

    /// Whether its answer agrees with what was passed on, as far as either goes.
    pub(super) fn continues(&self, answer: &Answer) -> bool {
        let own_text = self.text.as_deref().unwrap_or_default();
        self.disputed_at.is_none()
            && self.tokens.starts_with(&answer.tokens)
            && own_text.starts_with(&answer.text)
            && self.logprobs.starts_with(&answer.logprobs)
    }

    /// What a deadline that passes here means.
    pub(super) fn overdue(&self) -> (Fault, &'static str) {
        match self.stage {
            Stage::Opening => (Fault::Unreachable, "no connection in time"),
            Stage::Offered => (Fault::Stalled, "the offer was not accepted in time"),
            Stage::Running if !self.begun => (Fault::Stalled, "no first token in time"),
            _ => (Fault::Stalled, "silent for too long"),
        }
    }

    fn doing(&self) -> &'static str {
        match self.stage {
            Stage::Opening => "opening",
            Stage::Offered => "waiting for acceptance",
            Stage::Running => "running",
            Stage::Checking { .. } | Stage::Sound => "delivered",
        }
    }
}

/// One of the two checks of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Bindings,
    Log,
}

fn rtt(candidate: &Candidate) -> u64 {
    u64::from(candidate.rtt_ms.unwrap_or(UNKNOWN_RTT_MS)).min(10_000)
}
