//! The provider's front desk: who is let in, what goes out, what is signed.
//!
//! A [`Desk`] serves many streams at once. An offer is held against the cheap
//! checks first, then prepared (tokenized), accepted, queued, run, and its
//! receipt is issued: numbered, chained to the one before, appended to the log.
//! Only when the log has it does the router get it. Afterwards the desk can
//! open leaves behind the receipt for a while.
//!
//! Everything a stream holds is given back in the same call in which the stream
//! ends, is cancelled, or runs out of time.
//!
//! Absent here: tokens, hashes, signatures, the log itself. They are asked for
//! by [`Out`] and come back by [`In`].

mod admission;
mod book;
mod challenge;
mod event;
mod finished;
mod running;
mod seen;
mod stream;

use std::collections::{BTreeMap, VecDeque};

use peerproof_identity::PeerId;
use peerproof_wire::{Class, Failure, FailureCode, LogEntry, ModelId, ProviderFrame, RouterFrame};

use crate::limits::{MAX_FRAMES_IN_FLIGHT, MAX_STREAMS, MAX_STREAMS_PER_PEER};
use crate::time::Millis;
use book::ReceiptBook;
use finished::FinishedJobs;
use seen::Seen;
use stream::{State, Stream};

pub use book::{BookError, Draft};
pub use event::{Ended, In, LeavesQuestion, Out, Step, StreamId};
pub use finished::kept_bytes;

/// What a provider offers and bears.
///
/// ```
/// use peerproof_job::provider::Config;
///
/// assert!(Config::default().max_running >= 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Jobs that run at once.
    pub max_running: usize,
    /// Jobs that wait.
    pub max_queued: usize,
    /// Jobs of one peer, running or waiting.
    pub max_per_peer: usize,
    /// Longest deadline that is accepted, in milliseconds.
    pub max_deadline_ms: u64,
    /// How long a stream may take to say what it wants, in milliseconds.
    pub open_ms: u64,
    /// How long a stream stays open for a challenge after the receipt, in milliseconds.
    pub linger_ms: u64,
    /// How long opening leaves may take, in milliseconds.
    pub challenge_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_running: 4,
            max_queued: 64,
            max_per_peer: 32,
            max_deadline_ms: 3_600_000,
            open_ms: 10_000,
            linger_ms: 30_000,
            challenge_ms: 60_000,
        }
    }
}

/// A model this provider serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which.
    pub model_id: ModelId,
    /// Most tokens of prompt and answer together.
    pub context_length: u32,
    /// How its answers come about.
    pub class: Class,
}

/// How busy a desk is, for announcements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that run.
    pub active: u32,
    /// Jobs that wait.
    pub queued: u32,
    /// Jobs that run at once.
    pub max: u32,
}

/// The provider's side of all jobs.
///
/// ```
/// use peerproof_identity::Keypair;
/// use peerproof_job::Millis;
/// use peerproof_job::provider::{Config, Desk, In, Out, StreamId};
/// use peerproof_wire::{FailureCode, ProviderFrame, RouterFrame};
///
/// let mut desk = Desk::new(Config::default(), vec![]);
/// let router = Keypair::from_seed(&[1; 32]).public().peer_id();
/// let stream = StreamId(1);
/// desk.handle(Millis(0), In::Opened { stream, peer: router });
/// let outs = desk.handle(Millis(1), In::Frame(stream, RouterFrame::Cancel));
/// assert!(matches!(outs.as_slice(), [Out::Close(_), ..]));
/// ```
#[derive(Debug)]
pub struct Desk {
    config: Config,
    served: Vec<Served>,
    now: Millis,
    outs: Vec<Out>,
    streams: BTreeMap<StreamId, Stream>,
    queue: VecDeque<StreamId>,
    seen: Seen,
    finished: FinishedJobs,
    book: ReceiptBook,
    /// Streams whose receipt is due, the one being written first.
    issuing: VecDeque<StreamId>,
    /// What is being written, kept apart from its stream, which may end before.
    writing: Option<running::Writing>,
    /// Why no receipt can be written any more.
    broken: Option<String>,
    mean_job_ms: u64,
    timer: Option<Millis>,
}

impl Desk {
    /// A desk without a history.
    #[must_use]
    pub fn new(config: Config, served: Vec<Served>) -> Self {
        Self::with(config, served, ReceiptBook::default(), Seen::default())
    }

    /// A desk that goes on where its log ends: next number, last receipt,
    /// offers that were answered already. Entries come oldest first.
    ///
    /// # Errors
    /// If the receipts in the log are not one chain.
    pub fn restore<'a>(
        config: Config,
        served: Vec<Served>,
        entries: impl IntoIterator<Item = &'a LogEntry>,
    ) -> Result<Self, BookError> {
        let (mut book, mut seen) = (ReceiptBook::default(), Seen::default());
        for entry in entries {
            if let Some(receipt) = book.replay(entry)? {
                seen.insert(receipt.offer_id);
            }
        }
        Ok(Self::with(config, served, book, seen))
    }

    fn with(config: Config, served: Vec<Served>, book: ReceiptBook, seen: Seen) -> Self {
        Self {
            config,
            served,
            now: Millis::default(),
            outs: Vec::new(),
            streams: BTreeMap::new(),
            queue: VecDeque::new(),
            seen,
            finished: FinishedJobs::default(),
            book,
            issuing: VecDeque::new(),
            writing: None,
            broken: None,
            mean_job_ms: 1_000,
            timer: None,
        }
    }

    /// Replaces the list of models; jobs that run are not touched.
    pub fn serve(&mut self, served: Vec<Served>) {
        self.served = served;
    }

    /// How busy this desk is.
    #[must_use]
    pub fn load(&self) -> Load {
        let short = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let running = self.running();
        Load {
            active: short(running),
            queued: short(self.jobs().saturating_sub(running)),
            max: short(self.config.max_running),
        }
    }

    /// When the desk wants to be woken; `None` if nothing is under way.
    #[must_use]
    pub fn timer(&self) -> Option<Millis> {
        self.timer
    }

    /// How many streams hold anything.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Takes one event in and gives out what is to be done, in order. Events
    /// of streams that were closed change nothing.
    pub fn handle(&mut self, now: Millis, event: In) -> Vec<Out> {
        self.now = self.now.max(now);
        match event {
            In::Opened { stream, peer } => self.on_opened(stream, peer),
            In::Frame(stream, frame) => self.on_frame(stream, frame),
            In::Unreadable(stream, error) => self.on_unreadable(stream, &error),
            In::Closed(stream) => self.forget(stream),
            In::Sent(stream) => self.on_sent(stream),
            In::Prepared(stream, prompt_tokens) => self.on_prepared(stream, prompt_tokens),
            In::Read(stream, read) => self.on_read(stream, read),
            In::Steps { stream, start, steps } => self.on_steps(stream, start, steps),
            In::Finished(stream, ended) => self.on_finished(stream, ended),
            In::Refused(stream, failure) => self.refuse(stream, failure),
            In::Logged { stream, receipt, proof } => self.on_logged(stream, receipt, proof),
            In::LogFailed { stream, why } => self.on_log_failed(stream, &why),
            In::LeavesOpened(stream, openings) => self.on_leaves_opened(stream, openings),
            In::Barred(peer) => self.on_barred(&peer),
            In::Timer => {}
        }
        self.expire();
        self.start_next();
        self.issue_next();
        self.set_timer();
        std::mem::take(&mut self.outs)
    }

    fn on_opened(&mut self, stream: StreamId, peer: PeerId) {
        let of_peer = self.streams.values().filter(|known| known.peer == peer).count();
        let full = self.streams.len() >= MAX_STREAMS || of_peer >= MAX_STREAMS_PER_PEER;
        if full || self.streams.contains_key(&stream) {
            self.outs.push(Out::Close(stream));
            return;
        }
        let deadline = self.now.after(self.config.open_ms);
        self.streams.insert(stream, Stream::new(peer, deadline));
    }

    fn on_barred(&mut self, peer: &PeerId) {
        let theirs = self.streams.iter().filter(|(_, known)| known.peer == *peer);
        let theirs: Vec<StreamId> = theirs.map(|(stream, _)| *stream).collect();
        for stream in theirs {
            self.forget(stream);
            self.outs.push(Out::Close(stream));
        }
    }

    fn on_frame(&mut self, stream: StreamId, frame: RouterFrame) {
        let Some(known) = self.streams.get(&stream) else { return };
        match (frame, known.state) {
            (RouterFrame::Cancel, _) => {
                self.forget(stream);
                self.outs.push(Out::Close(stream));
            }
            (RouterFrame::Open { offer, resume }, State::Idle) => {
                self.on_offer(stream, offer, resume)
            }
            (RouterFrame::Challenge(challenge), State::Idle | State::Delivered) => {
                self.on_challenge(stream, challenge);
            }
            (RouterFrame::Open { .. }, _) => {
                self.out_of_order(stream, "a second offer on one stream")
            }
            (RouterFrame::Challenge(_), _) => {
                self.out_of_order(stream, "a challenge before the receipt")
            }
        }
    }

    fn out_of_order(&mut self, stream: StreamId, what: &str) {
        self.refuse(stream, Failure::new(FailureCode::OutOfOrder, what));
    }

    /// Ends a stream with a failure; what waits to be sent is dropped.
    fn refuse(&mut self, stream: StreamId, failure: Failure) {
        if self.streams.contains_key(&stream) {
            self.forget(stream);
            self.outs.push(Out::Send(stream, ProviderFrame::Failure(failure)));
            self.outs.push(Out::Close(stream));
        }
    }

    /// Gives back everything a stream holds.
    fn forget(&mut self, stream: StreamId) {
        let Some(gone) = self.streams.remove(&stream) else { return };
        self.queue.retain(|queued| *queued != stream);
        self.issuing.retain(|issuing| *issuing != stream);
        if gone.keeps_engine_busy() {
            self.outs.push(Out::Stop(stream));
        }
        // Without a receipt the offer was not answered; the router may ask again.
        let writing = self.writing.as_ref().is_some_and(|writing| writing.stream == stream);
        if let (Some(job), false) = (gone.job, writing) {
            self.seen.remove(&job.offer.id());
        }
    }

    /// Queues a frame and sends what the driver has room for.
    fn send(&mut self, stream: StreamId, frame: ProviderFrame) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.push(frame);
            self.flush(stream);
        }
    }

    fn flush(&mut self, stream: StreamId) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        while known.in_flight < MAX_FRAMES_IN_FLIGHT
            && let Some(frame) = known.pending.pop_front()
        {
            known.in_flight += 1;
            self.outs.push(Out::Send(stream, frame));
        }
    }

    fn on_sent(&mut self, stream: StreamId) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.in_flight = known.in_flight.saturating_sub(1);
            self.flush(stream);
        }
    }

    fn expire(&mut self) {
        let late = |known: &Stream| known.deadline <= self.now;
        let late: Vec<StreamId> =
            self.streams.iter().filter(|(_, known)| late(known)).map(|(id, _)| *id).collect();
        for stream in late {
            let Some(known) = self.streams.get(&stream) else { continue };
            if matches!(known.state, State::Idle | State::Delivered) {
                self.forget(stream);
                self.outs.push(Out::Close(stream));
            } else {
                self.refuse(stream, Failure::new(FailureCode::Deadline, "the deadline passed"));
            }
        }
    }

    fn set_timer(&mut self) {
        let next = self.streams.values().map(|known| known.deadline).min();
        if self.timer != next {
            self.timer = next;
            if let Some(at) = next {
                self.outs.push(Out::SetTimer(at));
            }
        }
    }
}
