//! One job in the making: what it has read, drawn and told its client.
//!
//! [`Run::take`] makes a position's step and the events that follow from it; it
//! touches nothing but the job, so a thread of the pass can do it beside those
//! that do the same for other jobs. [`Run::flush`] hands the events to the sink,
//! on the service's own thread. Deliberately absent: the cache.

use std::ops::ControlFlow;

use peerproof_wire::{Digest, Stop};

use crate::draws::Draws;
use crate::forward::Output;
use crate::stop::Answer;
use crate::tokenizer::Tokenizer;

use super::{Event, Refusal, Sink, Waiting, positions};

/// The end of an answer.
struct Ended {
    stop: Stop,
    tokens: u32,
    text: String,
    /// How many were read.
    positions: usize,
}

pub(super) struct Run {
    draws: Draws,
    /// Prompt, then answer: all tokens to read, those to resume from included.
    feed: Vec<u32>,
    prompt: usize,
    /// How many tokens are read at most: the answer's last is drawn only.
    readable: usize,
    /// Tokens of `feed` that the client had already, prompt included.
    given: usize,
    answer: Answer,
    sink: Sink,
    /// Events that the sink has not had yet.
    events: Vec<Event>,
    /// Whether nothing more is to be done.
    over: bool,
    /// Whose it is.
    salt: Digest,
    /// Positions whose steps are told; a job that was set back reads them again.
    told: usize,
    /// How the answer ended, until the client is told.
    ended: Option<Ended>,
    /// From where on the cache holds tokens that turned out wrong.
    wrong_from: Option<usize>,
}

impl Run {
    /// `end` is the model's lowest-numbered token that ends an answer.
    pub(super) fn new(Waiting { job, sink, masks, .. }: Waiting, end: u32) -> Self {
        let (prompt, readable) = (job.prompt.len(), positions(job.prompt.len(), job.max_tokens));
        let draws = Draws::new(job.key, job.seed, &job.sampling, &job.prompt, masks, end);
        let salt = job.salt;
        let mut feed = job.prompt;
        feed.extend_from_slice(&job.resume);
        Self {
            draws,
            prompt,
            readable,
            given: feed.len(),
            feed,
            answer: Answer::new(job.stop, job.max_tokens),
            sink,
            events: Vec::new(),
            over: false,
            salt,
            told: 0,
            ended: None,
            wrong_from: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Tokens not read yet by a cache that stands at `position`.
    pub(super) fn pending(&self, position: usize) -> &[u32] {
        &self.feed[position..self.feed.len().min(self.readable)]
    }

    /// Whether a position is to draw a token.
    pub(super) fn draws(&self, position: usize) -> bool {
        position + 1 >= self.prompt && position >= self.told
    }

    pub(super) fn salt(&self) -> &Digest {
        &self.salt
    }

    /// All tokens known so far.
    pub(super) fn feed(&self) -> &[u32] {
        &self.feed
    }

    /// Positions whose steps are told already.
    pub(super) fn told(&self) -> usize {
        self.told
    }

    /// Positions that needn't be computed if their pages are at hand: the rest
    /// is to draw a token.
    pub(super) fn reusable(&self) -> usize {
        self.told.max(self.prompt - 1)
    }

    /// Ends the job without a word: the client has left.
    pub(super) fn leave(&mut self) {
        self.over = true;
    }

    /// Where the cache must be cut back to, if it must.
    pub(super) fn take_rewind(&mut self) -> Option<usize> {
        self.wrong_from.take()
    }

    /// Tells a client whose answer has ended so, with the root over the keys and
    /// values of the positions that were read.
    pub(super) fn finish(&mut self, kv_root: impl FnOnce(usize) -> Digest) {
        if let Some(Ended { stop, tokens, text, positions }) = self.ended.take() {
            let kv_root = kv_root(positions);
            self.tell(Event::Finished { stop, tokens, text, kv_root });
            self.flush();
        }
    }

    /// Puts an event behind those that wait for [`Run::flush`].
    fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    /// The job leaves the queue.
    pub(super) fn begin(&mut self) {
        self.tell(Event::Started);
        self.flush();
    }

    /// Hands the client what there is to tell; one that left ends the job, and
    /// hears nothing more.
    pub(super) fn flush(&mut self) {
        for event in self.events.drain(..) {
            if (self.sink)(event) == ControlFlow::Break(()) {
                self.over = true;
                break;
            }
        }
    }

    /// Gives the job up.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.tell(Event::Refused(refusal));
        self.flush();
        self.over = true;
    }

    /// Takes what the model did at a position.
    pub(super) fn take(&mut self, tokenizer: &Tokenizer, position: usize, output: &Output<'_>) {
        if self.over || self.wrong_from.is_some() || position < self.told {
            return;
        }
        self.told = position + 1;
        let step = self.draws.step(position, self.feed[position], output);
        let Some(token) = step.drawn.as_ref().map(|drawn| drawn.next) else {
            return self.tell(Event::Prompt { step });
        };
        if let Some(trouble) = self.draws.trouble() {
            self.over = true;
            return self.tell(Event::Refused(trouble.into()));
        }
        let resumed = self.advance(position, token);
        let index = (position + 1 - self.prompt) as u32;
        let piece = self.answer.push(tokenizer, token);
        if piece.stop.is_none() {
            self.draws.expect(token);
        }
        self.tell(Event::Token { index, token, text: piece.text, step, resumed });
        if let Some(stop) = piece.stop {
            self.check_leftover(position, index);
            let (tokens, text) = (self.answer.tokens(), self.answer.text().to_owned());
            self.ended = Some(Ended { stop, tokens, text, positions: position + 1 });
            self.over = true;
        }
    }

    /// Puts the drawn token after `position`, or compares it with the one that
    /// stands there; says whether the client had it.
    fn advance(&mut self, position: usize, token: u32) -> bool {
        let next = position + 1;
        match self.feed.get(next).copied() {
            None => {
                self.feed.push(token);
                false
            }
            Some(got) if got == token => next < self.given,
            Some(got) => {
                let index = (next - self.prompt) as u32;
                self.feed.truncate(next);
                self.feed.push(token);
                self.wrong_from = Some(next);
                self.tell(Event::Diverged { index, expected: Some(token), got });
                false
            }
        }
    }

    /// Tokens to resume from beyond the answer's end are wrong as well.
    fn check_leftover(&mut self, position: usize, index: u32) {
        if let Some(got) = self.feed.get(position + 2).copied() {
            self.tell(Event::Diverged { index: index + 1, expected: None, got });
        }
    }
}
