//! What a desk keeps of one stream.

use std::collections::VecDeque;

use peerproof_identity::PeerId;
use peerproof_wire::limits::{
    MAX_LOGPROBS_PER_FRAME, MAX_TEXT_PER_FRAME_BYTES, MAX_TOKENS_PER_FRAME,
};
use peerproof_wire::{Offer, ProviderFrame, Signed, Tokens};

use super::Ended;
use crate::time::Millis;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) peer: PeerId,
    pub(super) state: State,
    /// From the offer to the receipt.
    pub(super) job: Option<Box<Job>>,
    /// When the stream is closed if nothing changes.
    pub(super) deadline: Millis,
    /// Frames given to the driver and not yet written.
    pub(super) in_flight: usize,
    /// Frames that wait for the driver. Tokens that wait are one frame, as far as it may grow.
    pub(super) pending: VecDeque<ProviderFrame>,
}

/// A job on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) offer: Signed<Offer>,
    pub(super) admitted: Millis,
    pub(super) prompt_tokens: u32,
    /// Tokens of the answer: those given at first, then those drawn here.
    pub(super) tokens: Vec<u32>,
    /// How many were given.
    pub(super) resumed: usize,
    /// Whether a token was drawn here.
    pub(super) begun: bool,
    /// Tokens that the router was told were read.
    pub(super) read: u32,
    /// When it was told, or the engine began.
    pub(super) told: Millis,
    /// What the receipt says, once the answer is complete.
    pub(super) ended: Option<Ended>,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was asked yet.
    Idle,
    /// The prompt is being tokenized.
    Preparing,
    /// Accepted, waiting for a place.
    Queued,
    /// The engine is at it.
    Running,
    /// Complete; the receipt is being written, or waits for it.
    Issuing,
    /// The receipt went out.
    Delivered,
    /// Leaves behind a receipt are being opened.
    Opening,
}

impl Stream {
    pub(super) fn new(peer: PeerId, deadline: Millis) -> Self {
        Self {
            peer,
            state: State::Idle,
            job: None,
            deadline,
            in_flight: 0,
            pending: VecDeque::new(),
        }
    }

    pub(super) fn keeps_engine_busy(&self) -> bool {
        matches!(self.state, State::Preparing | State::Running | State::Opening)
    }

    /// Whether it counts against the bound on waiting and running jobs.
    pub(super) fn is_job(&self) -> bool {
        matches!(self.state, State::Preparing | State::Queued | State::Running)
    }

    /// The job, if the stream has come exactly this far.
    pub(super) fn job_in(&mut self, state: State) -> Option<&mut Job> {
        self.job.as_deref_mut().filter(|_| self.state == state)
    }

    /// Queues a frame; tokens join those that wait already.
    pub(super) fn push(&mut self, frame: ProviderFrame) {
        if matches!(self.pending.back(), Some(ProviderFrame::Progress(_))) {
            // What comes after it says as much.
            self.pending.pop_back();
        }
        let ProviderFrame::Tokens(tokens) = frame else {
            return self.pending.push_back(frame);
        };
        match self.pending.back_mut() {
            Some(ProviderFrame::Tokens(waiting)) if fits(waiting, &tokens) => {
                waiting.tokens.extend(tokens.tokens);
                waiting.text.push_str(&tokens.text);
                waiting.logprobs.extend(tokens.logprobs);
                // A later commitment covers what an earlier one did.
                waiting.commitment = tokens.commitment.or(waiting.commitment);
            }
            _ => self.pending.push_back(ProviderFrame::Tokens(tokens)),
        }
    }
}

fn fits(waiting: &Tokens, more: &Tokens) -> bool {
    waiting.tokens.len() + more.tokens.len() <= MAX_TOKENS_PER_FRAME
        && waiting.logprobs.len() + more.logprobs.len() <= MAX_LOGPROBS_PER_FRAME
        && waiting.text.len() + more.text.len() <= MAX_TEXT_PER_FRAME_BYTES
}
