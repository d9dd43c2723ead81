//! The auditor's bench: who may ask for a verdict, and in which order.
//!
//! An audit costs a prefill, so the bench is strict: a rate per key and per
//! network group, a bounded queue, and the same question is never computed twice. A question is offer,
//! receipt *and* tokens: with other tokens it is another question, so nobody
//! can have a false case cached against a true receipt.
//!
//! Absent here: whether a case hangs together, and the recomputation. Both are
//! behind [`Out::RunAudit`].

mod rate;

use std::collections::{BTreeMap, VecDeque};

use peerproof_identity::PeerId;
use peerproof_wire::{
    AuditFailure, AuditReply, Case, Digest, DrawRequest, ModelId, NetworkGroup, Signed,
    StatisticalCase, TokenLogprobs, Verdict, VrfDraw,
};

use crate::limits::{
    MAX_CACHED_VERDICTS, MAX_QUEUED_AUDITS, MAX_STREAMS, MAX_STREAMS_PER_PEER,
    MAX_WAITERS_PER_AUDIT,
};
use crate::time::Millis;
use rate::{Prices, Rates};

pub use crate::provider::StreamId;
pub use rate::Allowance;

/// What an auditor bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Audits at once.
    pub max_running: usize,
    /// Longest an audit may take, waiting included, in milliseconds.
    pub audit_ms: u64,
    /// How long a stream may take to ask, in milliseconds.
    pub open_ms: u64,
    /// Audits for a key that brought no sound case yet.
    pub stranger: Allowance,
    /// Audits for a key that brought twelve sound cases; between, a straight line.
    pub known: Allowance,
    /// Audits for all keys of one network group together; a private network has no such limit.
    pub group: Allowance,
    /// Draws for a key, and eight times as many for a network group.
    pub draws: Allowance,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_running: 1,
            audit_ms: 120_000,
            open_ms: 10_000,
            stranger: Allowance { burst: 4, refill_ms: 8_000 },
            known: Allowance { burst: 16, refill_ms: 2_000 },
            group: Allowance { burst: 64, refill_ms: 500 },
            draws: Allowance { burst: 64, refill_ms: 100 },
        }
    }
}

/// Names one question: offer, receipt and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaseId(Digest);

impl CaseId {
    /// `BLAKE3("peerproof case v1" ‖ 0x00 ‖ offer id ‖ receipt id ‖ tokens)`, and the reports of
    /// an answer of the statistical class behind that.
    fn of(case: &Case, reports: &[TokenLogprobs]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"peerproof case v1\0");
        hasher.update(case.offer.id().as_bytes()).update(case.receipt.id().as_bytes());
        for token in &case.tokens {
            hasher.update(&token.to_le_bytes());
        }
        for report in reports {
            hasher.update(&report.chosen_q16.to_le_bytes());
            for (token, value) in &report.top {
                hasher.update(&token.to_le_bytes()).update(&value.to_le_bytes());
            }
        }
        Self(Digest::from_bytes(*hasher.finalize().as_bytes()))
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum In {
    /// A peer opened a stream.
    Opened {
        /// Its name from here on.
        stream: StreamId,
        /// Whose connection it is.
        peer: PeerId,
        /// Where it comes from.
        group: NetworkGroup,
    },
    /// The peer asks what this auditor draws.
    DrawRequested(StreamId, DrawRequest),
    /// Answer to [`Out::Draw`].
    Drawn(StreamId, Result<VrfDraw, String>),
    /// The peer asks.
    Requested(StreamId, Box<Case>),
    /// The peer asks about an answer of the statistical class.
    TestRequested(StreamId, Box<StatisticalCase>),
    /// Bytes came that are no request.
    Unreadable(StreamId, String),
    /// The stream ended.
    Closed(StreamId),
    /// Answer to [`Out::RunAudit`]: a verdict, or why there can be none.
    Done(CaseId, Result<Signed<Verdict>, String>),
    /// The moment of the last [`Out::SetTimer`] has come. Harmless at other times.
    Timer,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Out {
    /// Check the case's bindings, recompute, sign, record.
    RunAudit {
        /// Its name.
        id: CaseId,
        /// All it takes.
        case: Box<Case>,
        /// What the provider reports of each token, if the class is statistical.
        reports: Vec<TokenLogprobs>,
    },
    /// Draw with this auditor's VRF key.
    Draw(StreamId, DrawRequest),
    /// Drop this audit; nobody waits for it.
    StopAudit(CaseId),
    /// Write the reply.
    Reply(StreamId, AuditReply),
    /// Close the stream after what was sent.
    Close(StreamId),
    /// Send [`In::Timer`] at this moment; replaces the one before.
    SetTimer(Millis),
}

#[derive(Debug)]
struct Audit {
    case: Box<Case>,
    reports: Vec<TokenLogprobs>,
    waiters: Vec<StreamId>,
    running: bool,
}

#[derive(Debug)]
struct Stream {
    peer: PeerId,
    group: NetworkGroup,
    waits_for: Option<CaseId>,
    deadline: Millis,
}

/// The auditor's side of all requests.
///
/// ```
/// use peerproof_identity::Keypair;
/// use peerproof_job::Millis;
/// use peerproof_job::auditor::{Bench, Config, In, Out, StreamId};
/// use peerproof_wire::NetworkGroup;
///
/// let mut bench = Bench::new(Config::default(), vec![]);
/// let peer = Keypair::from_seed(&[1; 32]).public().peer_id();
/// let stream = StreamId(1);
/// bench.handle(Millis(0), In::Opened { stream, peer, group: NetworkGroup::Local });
/// let outs = bench.handle(Millis(20_000), In::Timer);
/// assert!(matches!(outs.as_slice(), [Out::Reply(..), Out::Close(_)]), "it never asked");
/// ```
#[derive(Debug)]
pub struct Bench {
    config: Config,
    holds: Vec<ModelId>,
    now: Millis,
    outs: Vec<Out>,
    streams: BTreeMap<StreamId, Stream>,
    audits: BTreeMap<CaseId, Audit>,
    queue: VecDeque<CaseId>,
    verdicts: BTreeMap<CaseId, Signed<Verdict>>,
    verdict_order: VecDeque<CaseId>,
    rates: Rates,
    draw_rates: Rates,
    timer: Option<Millis>,
}

impl Bench {
    /// A bench for these models.
    #[must_use]
    pub fn new(config: Config, holds: Vec<ModelId>) -> Self {
        let draws = config.draws;
        let many =
            Allowance { burst: draws.burst.saturating_mul(8), refill_ms: draws.refill_ms / 8 };
        Self {
            rates: Rates::new(Prices {
                stranger: config.stranger,
                known: config.known,
                group: config.group,
            }),
            draw_rates: Rates::new(Prices { stranger: draws, known: draws, group: many }),
            config,
            holds,
            now: Millis::default(),
            outs: Vec::new(),
            streams: BTreeMap::new(),
            audits: BTreeMap::new(),
            queue: VecDeque::new(),
            verdicts: BTreeMap::new(),
            verdict_order: VecDeque::new(),
            timer: None,
        }
    }

    /// When the bench wants to be woken; `None` if nobody waits.
    #[must_use]
    pub fn timer(&self) -> Option<Millis> {
        self.timer
    }

    /// How many audits run or wait.
    #[must_use]
    pub fn audits(&self) -> usize {
        self.audits.len()
    }

    /// Takes one event in and gives out what is to be done, in order. Events
    /// of streams that were closed change nothing.
    pub fn handle(&mut self, now: Millis, event: In) -> Vec<Out> {
        self.now = self.now.max(now);
        match event {
            In::Opened { stream, peer, group } => self.on_opened(stream, peer, group),
            In::DrawRequested(stream, request) => self.on_draw_requested(stream, request),
            In::Drawn(stream, drawn) => self.on_drawn(stream, drawn),
            In::Requested(stream, case) => self.on_requested(stream, case, Vec::new()),
            In::TestRequested(stream, asked) => {
                let StatisticalCase { case, reports } = *asked;
                self.on_requested(stream, Box::new(case), reports);
            }
            In::Unreadable(stream, why) => self.fail(stream, &why, 0),
            In::Closed(stream) => self.forget(stream),
            In::Done(id, result) => self.on_done(id, result),
            In::Timer => {}
        }
        self.expire();
        self.start_next();
        self.set_timer();
        std::mem::take(&mut self.outs)
    }

    fn on_opened(&mut self, stream: StreamId, peer: PeerId, group: NetworkGroup) {
        let of_peer = self.streams.values().filter(|known| known.peer == peer).count();
        let full = self.streams.len() >= MAX_STREAMS || of_peer >= MAX_STREAMS_PER_PEER;
        if full || self.streams.contains_key(&stream) {
            self.outs.push(Out::Close(stream));
            return;
        }
        let deadline = self.now.after(self.config.open_ms);
        self.streams.insert(stream, Stream { peer, group, waits_for: None, deadline });
    }

    fn on_draw_requested(&mut self, stream: StreamId, request: DrawRequest) {
        let Some(known) = self.streams.get(&stream) else { return };
        if known.waits_for.is_some() {
            return self.fail(stream, "one request a stream", 0);
        }
        match self.draw_rates.take(known.peer, known.group, self.now) {
            Ok(()) => self.outs.push(Out::Draw(stream, request)),
            Err(wait_ms) => self.fail(stream, "too many draws asked for", wait_ms),
        }
    }

    fn on_drawn(&mut self, stream: StreamId, drawn: Result<VrfDraw, String>) {
        match drawn {
            Ok(draw) => self.reply(stream, AuditReply::Draw(draw)),
            Err(why) => self.fail(stream, &why, 0),
        }
    }

    fn on_requested(&mut self, stream: StreamId, case: Box<Case>, reports: Vec<TokenLogprobs>) {
        let Some(known) = self.streams.get(&stream) else { return };
        let (peer, group) = (known.peer, known.group);
        if known.waits_for.is_some() {
            return self.fail(stream, "one request a stream", 0);
        }
        if !self.holds.contains(&case.offer.model_id) {
            let why = format!("model {} is not held here", case.offer.model_id);
            return self.fail(stream, &why, 0);
        }
        if let Err(wait_ms) = self.rates.take(peer, group, self.now) {
            return self.fail(stream, "too many audits asked for", wait_ms);
        }
        let id = CaseId::of(&case, &reports);
        if let Some(verdict) = self.verdicts.get(&id) {
            let reply = AuditReply::Verdict(verdict.clone());
            return self.reply(stream, reply);
        }
        if let Err(why) = self.enlist(id, (case, reports), stream) {
            return self.fail(stream, why, self.config.known.refill_ms);
        }
        if let Some(known) = self.streams.get_mut(&stream) {
            known.waits_for = Some(id);
            known.deadline = self.now.after(self.config.audit_ms);
        }
    }

    fn enlist(
        &mut self,
        id: CaseId,
        (case, reports): (Box<Case>, Vec<TokenLogprobs>),
        stream: StreamId,
    ) -> Result<(), &'static str> {
        if let Some(audit) = self.audits.get_mut(&id) {
            if audit.waiters.len() >= MAX_WAITERS_PER_AUDIT {
                return Err("too many wait for this verdict");
            }
            audit.waiters.push(stream);
            return Ok(());
        }
        if self.queue.len() >= MAX_QUEUED_AUDITS {
            return Err("the queue is full");
        }
        self.audits.insert(id, Audit { case, reports, waiters: vec![stream], running: false });
        self.queue.push_back(id);
        Ok(())
    }

    fn start_next(&mut self) {
        while self.audits.values().filter(|audit| audit.running).count()
            < self.config.max_running.max(1)
            && let Some(id) = self.queue.pop_front()
        {
            let Some(audit) = self.audits.get_mut(&id) else { continue };
            audit.running = true;
            self.outs.push(Out::RunAudit {
                id,
                case: audit.case.clone(),
                reports: audit.reports.clone(),
            });
        }
    }

    fn on_done(&mut self, id: CaseId, result: Result<Signed<Verdict>, String>) {
        let Some(audit) = self.audits.remove(&id) else { return };
        self.rate(&audit.waiters, result.is_ok());
        let reply = match result {
            Ok(verdict) => {
                self.keep(id, verdict.clone());
                AuditReply::Verdict(verdict)
            }
            Err(why) => AuditReply::Failure(AuditFailure::new(why)),
        };
        for stream in audit.waiters {
            self.reply(stream, reply.clone());
        }
    }

    /// Who brought a case that could be judged pays less for the next one.
    fn rate(&mut self, askers: &[StreamId], sound: bool) {
        for asker in askers {
            let Some(known) = self.streams.get(asker) else { continue };
            match sound {
                true => self.rates.was_sound(&known.peer),
                false => self.rates.was_unsound(&known.peer),
            }
        }
    }

    fn keep(&mut self, id: CaseId, verdict: Signed<Verdict>) {
        if self.verdicts.insert(id, verdict).is_none() {
            self.verdict_order.push_back(id);
        }
        if self.verdict_order.len() > MAX_CACHED_VERDICTS
            && let Some(oldest) = self.verdict_order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
    }

    fn reply(&mut self, stream: StreamId, reply: AuditReply) {
        if self.streams.contains_key(&stream) {
            self.forget(stream);
            self.outs.push(Out::Reply(stream, reply));
            self.outs.push(Out::Close(stream));
        }
    }

    fn fail(&mut self, stream: StreamId, why: &str, retry_after_ms: u64) {
        let mut failure = AuditFailure::new(why);
        failure.retry_after_ms = retry_after_ms.min(peerproof_wire::limits::MAX_RETRY_AFTER_MS);
        self.reply(stream, AuditReply::Failure(failure));
    }

    /// Gives back what a stream holds; an audit that nobody waits for is dropped.
    fn forget(&mut self, stream: StreamId) {
        let Some(id) = self.streams.remove(&stream).and_then(|gone| gone.waits_for) else { return };
        let Some(audit) = self.audits.get_mut(&id) else { return };
        audit.waiters.retain(|waiter| *waiter != stream);
        if !audit.waiters.is_empty() {
            return;
        }
        if audit.running {
            self.outs.push(Out::StopAudit(id));
        }
        self.audits.remove(&id);
        self.queue.retain(|queued| *queued != id);
    }

    fn expire(&mut self) {
        let late = self.streams.iter().filter(|(_, known)| known.deadline <= self.now);
        let late: Vec<StreamId> = late.map(|(id, _)| *id).collect();
        for stream in late {
            self.fail(stream, "out of time", self.config.known.refill_ms);
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
