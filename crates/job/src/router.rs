//! One request's life on the router's side.
//!
//! A [`Job`] is told what happened ([`In`]) and says what to do ([`Out`]): whom
//! to ask, what to send, what to pass on, what to check, when to be woken. It
//! picks providers, asks a second one when the first is late, continues at
//! another one from the next token when one is gone, and ends with an
//! [`Outcome`] that says who answered and what was checked.
//!
//! Three rules hold whatever the network does:
//! - what is passed on is contiguous: `Emit`s continue each other from index 0;
//! - until `Finish`, a timer is always set, so nothing hangs;
//! - after `Finish`, nothing follows.
//!
//! Answers are exact, so the streams of one job are copies of each other: two
//! that differ are a fault of one of them, and a recomputation says whose.
//!
//! Absent here: signatures, hashes and recomputation. They are asked for by
//! events (`CheckBindings`, `Audit`, …) and answered by events.

mod answer;
mod check;
mod event;
mod lane;
mod lanes;
mod options;
mod outcome;
mod quorum;
mod roster;

use peerproof_identity::PeerId;
use peerproof_wire::{FailureCode, Level, LogBody, Offer, RouterFrame, Signed};

use crate::entropy::Entropy;
use crate::limits::MAX_BUSY_TURNS;
use crate::reputation::Fault;
use crate::select::{Candidate, Need};
use crate::time::Millis;
use answer::Answer;
use check::Check;
use lane::{Half, Lane};
use quorum::Quorum;
use roster::Roster;

pub use event::{
    Audited, Auditor, BindingsQuestion, Broken, Closed, In, LaneId, Made, Notice, Out,
};
pub use options::Options;
pub use outcome::{Attempt, Blame, Checked, End, Outcome, Reason, Segment, Verification};

/// Where the search for providers stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// Nobody is looking; more may be out there.
    Idle,
    /// Somebody looks until this moment.
    Until(Millis),
    /// There are no others.
    Over,
}

/// What providers said of the request when they refused it.
#[derive(Default)]
struct Refusals {
    /// The request itself is at fault.
    of_offer: Option<(FailureCode, String)>,
    /// How many said so.
    of_offer_count: u32,
    /// Who called it malformed, and why.
    as_malformed: Vec<(PeerId, String)>,
    /// What one without the memory for it said.
    capacity: Option<String>,
    /// The shortest wait that a busy one named.
    busy_ms: Option<u64>,
}

/// One request, from the first candidate to the outcome.
///
/// ```
/// use peerproof_identity::Keypair;
/// use peerproof_job::router::{End, In, Job, Options, Out, Reason};
/// use peerproof_job::{Entropy, Millis};
/// use peerproof_wire::job::client_nonce_hash;
/// use peerproof_wire::{Class, Level, ModelId, Offer, Prompt, Sampling, Signed};
///
/// let nonce = [3; 32];
/// let offer = Offer {
///     model_id: ModelId::from_bytes([1; 32]),
///     prompt: Prompt::Text("Once upon a time".into()),
///     sampling: Sampling::GREEDY,
///     max_tokens: 64,
///     stop: vec![],
///     level: Level::Receipt,
///     public_nonce: [2; 32],
///     client_nonce_hash: client_nonce_hash(&nonce),
///     deadline_ms: 60_000,
///     pooling: None,
///     class: Class::Exact,
/// };
/// let offer = Signed::sign(&Keypair::from_seed(&[7; 32]), offer)?;
/// let entropy = Entropy::new([9; 32]);
/// let (mut job, outs) = Job::start(offer, nonce, Options::default(), entropy, Millis(0));
/// assert!(matches!(outs[0], Out::FindCandidates));
///
/// let outs = job.handle(Millis(10), In::SearchOver);
/// let Some(Out::Finish(outcome)) = outs.last() else { panic!("nobody to ask") };
/// assert!(matches!(&outcome.end, End::Failed { reason: Reason::NoProvider, .. }));
/// # Ok::<(), peerproof_wire::WireError>(())
/// ```
pub struct Job {
    offer: Signed<Offer>,
    client_nonce: [u8; 32],
    options: Options,
    entropy: Entropy,
    started: Millis,
    now: Millis,
    outs: Vec<Out>,
    roster: Roster,
    search: Search,
    lanes: Vec<Lane>,
    attempts: u32,
    /// Those of them that ended because a provider was busy, as far as they don't count.
    waits: u32,
    leader: Option<LaneId>,
    /// When the asker may hear again how far the prompt is read.
    reading_told: Millis,
    /// Why the last leader was left.
    left: Option<String>,
    answer: Answer,
    trail: Vec<Attempt>,
    refusals: Refusals,
    check: Option<Check>,
    quorum: Option<Quorum>,
    delivered_at: Option<Millis>,
    opened: bool,
    timer: Option<Millis>,
    over: bool,
}

impl Job {
    /// Starts a job. The first events ask for candidates and set a timer.
    ///
    /// `client_nonce` is the preimage of the offer's `client_nonce_hash`.
    #[must_use]
    pub fn start(
        offer: Signed<Offer>,
        client_nonce: [u8; 32],
        options: Options,
        entropy: Entropy,
        now: Millis,
    ) -> (Self, Vec<Out>) {
        let quorum = (offer.level == Level::KOfN).then(Quorum::default);
        let mut job = Self {
            offer,
            client_nonce,
            options: options.bounded(),
            entropy,
            started: now,
            now,
            outs: Vec::new(),
            roster: Roster::default(),
            search: Search::Idle,
            lanes: Vec::new(),
            attempts: 0,
            waits: 0,
            leader: None,
            reading_told: now,
            left: None,
            answer: Answer::default(),
            trail: Vec::new(),
            refusals: Refusals::default(),
            check: None,
            quorum,
            delivered_at: None,
            opened: false,
            timer: None,
            over: false,
        };
        job.fill();
        job.set_timer();
        let outs = std::mem::take(&mut job.outs);
        (job, outs)
    }

    /// The request.
    #[must_use]
    pub fn offer(&self) -> &Signed<Offer> {
        &self.offer
    }

    /// When the job wants to be woken; `None` only when it is over.
    #[must_use]
    pub fn timer(&self) -> Option<Millis> {
        self.timer
    }

    /// Whether the outcome is out.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes one event in and gives out what is to be done, in order.
    ///
    /// Events of lanes that were closed, and answers nobody waits for, change nothing.
    pub fn handle(&mut self, now: Millis, event: In) -> Vec<Out> {
        if self.over {
            return Vec::new();
        }
        self.now = self.now.max(now);
        match event {
            In::Candidates(candidates) => self.on_candidates(candidates),
            In::SearchOver => self.on_search_over(),
            In::Opened(lane) => self.on_opened(lane),
            In::OpenFailed(lane, why) => self.on_open_failed(lane, &why),
            In::Frame(lane, frame) => self.on_frame(lane, frame),
            In::Closed(lane, why) => self.on_closed(lane, why),
            In::Timer => {}
            In::BindingsChecked(lane, result) => self.on_bindings(lane, result),
            In::LogProofChecked(lane, result) => self.on_log_proof(lane, result),
            In::OpeningsChecked(lane, result) => self.on_openings_checked(lane, result),
            In::AuditDone(lane, audited) => self.on_audited(lane, audited),
            In::Barred(peer, why) => self.on_barred(peer, &why),
            In::CancelledByUser => self.finish(End::Cancelled, Checked::Nothing, None),
        }
        self.expire();
        self.set_timer();
        std::mem::take(&mut self.outs)
    }

    fn on_candidates(&mut self, candidates: Vec<Candidate>) {
        if self.roster.merge(candidates) {
            self.search = Search::Idle;
        }
        self.fill();
    }

    fn on_search_over(&mut self) {
        self.search = Search::Over;
        self.fill();
    }

    fn need(&self) -> Need {
        // The components of an embedding take no place in the context.
        let answer = if self.offer.pooling.is_some() { 0 } else { self.offer.max_tokens };
        Need { context_length: answer.saturating_add(1) }
    }

    /// How many lanes this job runs when nothing is late.
    fn wanted(&self) -> usize {
        if self.quorum.is_some() { self.options.n } else { 1 }
    }

    /// Opens lanes until there are as many as wanted, and gives up if there can be none.
    fn fill(&mut self) {
        if self.over || self.check.is_some() || self.quorum.as_ref().is_some_and(Quorum::is_closing)
        {
            return;
        }
        while self.lanes.len() < self.wanted() && self.open_next() {}
        if self.lanes.len() < self.wanted() {
            self.seek();
        }
        if self.quorum.is_some() {
            self.weigh();
        } else if self.lanes.is_empty() && !self.more_may_come() {
            self.give_up();
        }
    }

    /// Has somebody look for more providers, unless that was done or is of no use.
    fn seek(&mut self) {
        if self.search == Search::Idle && self.may_attempt() {
            self.search = Search::Until(self.now.after(self.options.search_ms));
            self.outs.push(Out::FindCandidates);
        }
    }

    /// Whether the number of attempts allows another one.
    fn may_attempt(&self) -> bool {
        self.attempts - self.waits < self.options.max_attempts
    }

    /// Whether a busy provider's answer is one that takes no attempt and no turn.
    fn waits_on(&mut self) -> bool {
        let free = self.waits < MAX_BUSY_TURNS;
        self.waits += u32::from(free);
        free
    }

    /// Whether another lane may yet be opened.
    fn more_may_come(&self) -> bool {
        let searching = self.search != Search::Over;
        self.may_attempt() && (searching || self.roster.next_ready(self.need()).is_some())
    }

    fn open_next(&mut self) -> bool {
        if !self.may_attempt() {
            return false;
        }
        let Some(candidate) = self.roster.pick(self.now, self.need(), &self.entropy) else {
            return false;
        };
        let lane = LaneId(self.attempts);
        self.attempts += 1;
        self.outs.push(Out::OpenStream { lane, peer: candidate.peer });
        self.lanes.push(Lane::opening(lane, candidate, self.now, &self.options));
        true
    }

    fn give_up(&mut self) {
        let believed = self.believes_refusal();
        let refusals = std::mem::take(&mut self.refusals);
        let of_offer = refusals.of_offer.filter(|_| believed);
        let faultless = self.trail.iter().all(|attempt| attempt.fault.is_none());
        let (reason, blame) = if let Some((code, message)) = of_offer {
            (Reason::Refused { code, message }, Blame::Offer)
        } else if self.attempts == 0 {
            (Reason::NoProvider, Blame::Circumstances)
        } else if let (Some(retry_after_ms), true) = (refusals.busy_ms, faultless) {
            (Reason::Busy { retry_after_ms }, Blame::Circumstances)
        } else if let (Some(message), true) = (refusals.capacity, faultless) {
            (Reason::TooLarge { message }, Blame::Circumstances)
        } else {
            (Reason::Exhausted { attempts: self.attempts }, Blame::Circumstances)
        };
        self.fail(reason, blame, Checked::Nothing);
    }

    /// One provider's word that a request is malformed counts only if no other was asked.
    fn believes_refusal(&self) -> bool {
        let Some((FailureCode::BadOffer, _)) = self.refusals.of_offer else { return true };
        let first = self.trail.first().map(|attempt| attempt.provider);
        let alone = self.trail.iter().all(|attempt| Some(attempt.provider) == first);
        alone || self.refusals.of_offer_count > 1
    }

    /// What one called malformed and another answered was none: that was a refusal.
    fn record_false_refusals(&mut self) {
        for (peer, why) in std::mem::take(&mut self.refusals.as_malformed) {
            self.observe(Fault::Refused, peer, &why, None);
        }
    }

    fn fail(&mut self, reason: Reason, blame: Blame, done: Checked) {
        self.finish(End::Failed { reason, blame }, done, None);
    }

    fn record(&mut self, body: LogBody) {
        self.outs.push(Out::Record(Box::new(body)));
    }

    fn finish(&mut self, end: End, done: Checked, by: Option<LaneId>) {
        if self.over {
            return;
        }
        if matches!(end, End::Answered(_)) {
            self.record_false_refusals();
        }
        let shown = by.or(self.leader);
        let last = self.lanes.iter().find(|lane| Some(lane.id) == shown);
        let receipt = last.and_then(|lane| lane.receipt.clone());
        let prompt_tokens =
            last.filter(|lane| lane.prompt_tokens > 0).map(|lane| lane.prompt_tokens);
        for lane in std::mem::take(&mut self.lanes) {
            self.dismiss(&lane);
        }
        let outcome = Outcome {
            tokens: self.answer.tokens.clone(),
            end,
            served_by: std::mem::take(&mut self.answer.segments),
            trail: std::mem::take(&mut self.trail),
            verification: Verification {
                asked: self.offer.level,
                done,
                opened: self.opened,
                cost_ms: self.delivered_at.map_or(0, |at| self.now.since(at)),
            },
            receipt,
            prompt_tokens,
            output_tokens: self.answer.tokens.len() as u32,
            first_token_ms: self.answer.first_token_at.map(|at| at.since(self.started)),
            total_ms: self.now.since(self.started),
        };
        self.over = true;
        self.timer = None;
        self.outs.push(Out::Finish(Box::new(outcome)));
    }

    /// Tells a provider that it need not go on, and closes its stream.
    fn dismiss(&mut self, lane: &Lane) {
        if lane.is_working() {
            self.outs.push(Out::Send(lane.id, RouterFrame::Cancel));
        }
        self.outs.push(Out::CloseStream(lane.id));
    }

    /// The moment after which tokens are no longer waited for.
    fn overall(&self) -> Millis {
        self.started.after(self.options.total_ms)
    }

    /// Whether the overall limit still counts: once a receipt is in, its checks
    /// have limits of their own.
    fn overall_counts(&self) -> bool {
        let delivered = self.lanes.iter().any(Lane::is_delivered);
        let closing = self.quorum.as_ref().is_some_and(Quorum::is_closing);
        self.check.is_none() && !closing && (self.quorum.is_some() || !delivered)
    }

    /// Acts on every moment that has passed.
    fn expire(&mut self) {
        if !self.over && self.overall_counts() && self.overall() <= self.now {
            self.on_overall_deadline();
        }
        if matches!(self.search, Search::Until(at) if at <= self.now) {
            self.search = Search::Over;
        }
        self.expire_check();
        self.expire_lanes();
        self.hedge();
        if !self.over {
            self.fill();
        }
    }

    fn on_overall_deadline(&mut self) {
        if self.quorum.is_some() && self.lanes.iter().any(Lane::is_sound) {
            return self.close_quorum();
        }
        if self.lanes.is_empty() && self.refusals.busy_ms.is_some() {
            return self.give_up();
        }
        let reason = Reason::Deadline { total_ms: self.options.total_ms };
        self.fail(reason, Blame::Circumstances, Checked::Nothing);
    }

    fn expire_lanes(&mut self) {
        let late = |lane: &Lane, now| lane.deadline.is_some_and(|at| at <= now);
        while !self.over
            && let Some(lane) = self.lanes.iter().find(|lane| late(lane, self.now))
        {
            let (id, (fault, why)) = (lane.id, lane.overdue());
            if lane.is_delivered() {
                self.own_check_unfinished(id);
            } else {
                self.leave(id, Some(fault), why, roster::Again::Never);
            }
        }
    }

    fn set_timer(&mut self) {
        if self.over {
            return;
        }
        let lanes = self.lanes.iter().flat_map(|lane| [lane.deadline, lane.hedge_at]).flatten();
        let overall = self.overall_counts().then(|| self.overall());
        let search = match self.search {
            Search::Until(at) => Some(at),
            Search::Idle | Search::Over => None,
        };
        let short = self.lanes.len() < self.wanted() && self.may_attempt();
        let ready = short.then(|| self.roster.next_ready(self.need())).flatten();
        let check = self.check.as_ref().map(Check::deadline);
        let grace = self.quorum.as_ref().and_then(Quorum::grace);
        let next = lanes.chain(overall).chain(search).chain(ready).chain(check).chain(grace).min();
        // INVARIANT: a job that is not over has a lane, a search, a check or the overall limit to wait for.
        let next = next.unwrap_or_else(|| self.overall()).max(self.now.after(1));
        if self.timer != Some(next) {
            self.timer = Some(next);
            self.outs.push(Out::SetTimer(next));
        }
    }
}
