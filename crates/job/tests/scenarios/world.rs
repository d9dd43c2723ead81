//! One router, some providers, a network and an engine that are made up.
//!
//! Events wait in a queue ordered by time; `run` hands them out until nothing
//! is left. After every event of the job the world checks what must always
//! hold: emitted tokens are contiguous, and a job that is not over has a timer.

use std::collections::{BTreeMap, BTreeSet};

use peerproof_identity::{Keypair, PeerId};
use peerproof_job::provider::{self, Config, Desk, Served, Step, StreamId};
use peerproof_job::router::{
    Audited, Auditor, Broken, Closed, In, Job, LaneId, Notice, Options, Out, Outcome,
};
use peerproof_job::{Candidate, Entropy, Millis, Reputation, Standing};
use peerproof_wire::{
    Case, Commitment, Difference, Digest, Evidence, Failure, FailureCode, Leaf, Level, LogBody,
    LogEntry, LogProof, Message, Mismatch, NetworkGroup, Offer, Opening, Openings, ProviderFrame,
    RouterFrame, Signed, Stop, TokenLogprobs, Verdict,
};

pub(crate) use crate::model::Script;
use crate::model::{
    MODEL, NONCE, PROMPT_TOKENS, answer_of, ending_offer, hash, hash_shown, hash_tokens, offer,
    reference, reports, text_of,
};

/// The most events a scenario may take; more means that something spins.
const MAX_EVENTS: usize = 50_000;

/// Who can recompute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditBy {
    Here,
    /// Another node, which is honest.
    Another,
    Nobody,
    /// Somebody who never answers.
    Silence,
    /// One auditor elsewhere, whose accusations nobody confirms.
    OneStranger,
    /// One auditor elsewhere, who says that everything is wrong.
    OneLiar,
}

enum Event {
    ToJob(In),
    ToDesk(usize, provider::In),
    Step { provider: usize, stream: StreamId },
}

struct Running {
    tokens: Vec<u32>,
    next: usize,
}

pub(crate) struct Provider {
    pub(crate) key: Keypair,
    pub(crate) desk: Desk,
    pub(crate) script: Script,
    pub(crate) latency_ms: u64,
    pub(crate) step_ms: u64,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) ran: u32,
    pub(crate) stopped: u32,
    sent: u32,
    frames: u32,
    held: Option<ProviderFrame>,
    refusals: u32,
    running: BTreeMap<StreamId, Running>,
}

pub(crate) struct World {
    pub(crate) now: Millis,
    pub(crate) router: Keypair,
    pub(crate) providers: Vec<Provider>,
    pub(crate) job: Job,
    pub(crate) offer: Signed<Offer>,
    pub(crate) audit_by: AuditBy,
    pub(crate) answer_checks: bool,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) records: Vec<LogBody>,
    pub(crate) kept: Vec<Evidence>,
    pub(crate) audits: Vec<(LaneId, Vec<PeerId>)>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) emits: usize,
    queue: BTreeMap<(Millis, u64), Event>,
    count: u64,
    lanes: BTreeMap<LaneId, usize>,
    closed: BTreeSet<LaneId>,
    arrival: BTreeMap<(bool, LaneId), Millis>,
}

impl Provider {
    fn new(seed: u8, script: Script) -> Self {
        let served = Served {
            model_id: MODEL,
            context_length: 100_000,
            class: peerproof_wire::Class::Exact,
        };
        Self {
            key: Keypair::from_seed(&[seed; 32]),
            desk: Desk::new(Config::default(), vec![served]),
            script,
            latency_ms: 1,
            step_ms: 5,
            entries: vec![],
            ran: 0,
            stopped: 0,
            sent: 0,
            frames: 0,
            held: None,
            refusals: 0,
            running: BTreeMap::new(),
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.key.public().peer_id()
    }
}

impl World {
    /// A job of 12 tokens over providers with these scripts; the first is preferred, and so on.
    pub(crate) fn new(level: Level, scripts: &[Script]) -> Self {
        Self::with(level, scripts, 12, Options::default())
    }

    pub(crate) fn with(
        level: Level,
        scripts: &[Script],
        max_tokens: u32,
        options: Options,
    ) -> Self {
        let router = Keypair::from_seed(&[200; 32]);
        let offer = offer(&router, level, max_tokens);
        Self::of_offer(offer, router, scripts, options)
    }

    /// A job of an answer that ends after `ends_at` of 40 tokens.
    pub(crate) fn ending(level: Level, scripts: &[Script], ends_at: u32) -> Self {
        let router = Keypair::from_seed(&[200; 32]);
        let offer = ending_offer(&router, level, 40, ends_at);
        Self::of_offer(offer, router, scripts, Options::default())
    }

    /// A job of 12 tokens that asks how likely they were.
    pub(crate) fn reporting(level: Level, scripts: &[Script]) -> Self {
        let router = Keypair::from_seed(&[200; 32]);
        let mut offer = offer(&router, level, 12).statement().clone();
        offer.sampling.logprobs = Some(1);
        let offer = Signed::sign(&router, offer).unwrap();
        Self::of_offer(offer, router, scripts, Options::default())
    }

    fn of_offer(
        offer: Signed<Offer>,
        router: Keypair,
        scripts: &[Script],
        options: Options,
    ) -> Self {
        let providers =
            (1..).zip(scripts).map(|(seed, script)| Provider::new(seed, *script)).collect();
        let (job, outs) =
            Job::start(offer.clone(), NONCE, options, Entropy::new([1; 32]), Millis(0));
        let mut world = Self {
            now: Millis(0),
            router,
            providers,
            job,
            offer,
            audit_by: AuditBy::Here,
            answer_checks: true,
            tokens: vec![],
            text: String::new(),
            logprobs: vec![],
            notices: vec![],
            records: vec![],
            kept: vec![],
            audits: vec![],
            outcome: None,
            emits: 0,
            queue: BTreeMap::new(),
            count: 0,
            lanes: BTreeMap::new(),
            closed: BTreeSet::new(),
            arrival: BTreeMap::new(),
        };
        world.act(outs);
        world
    }

    /// This provider is barred, by something outside of this job.
    pub(crate) fn bar(&mut self, provider: usize) {
        let peer = self.providers[provider].peer();
        self.tell(In::Barred(peer, "elsewhere".into()));
    }

    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(place, provider): (u16, &Provider)| Candidate {
            peer: provider.peer(),
            context_length: 100_000,
            active_jobs: 0,
            queued_jobs: 0,
            max_jobs: 4,
            rtt_ms: Some(2 * provider.latency_ms as u32),
            standing: Standing::stranger(),
            preferred: Some(place),
            group: NetworkGroup::Local,
        };
        (0..).zip(&self.providers).map(candidate).collect()
    }

    /// Runs until nothing happens any more, and checks what must hold at the end.
    pub(crate) fn run(&mut self) -> &Outcome {
        self.run_until(Millis(u64::MAX));
        for provider in &self.providers {
            let held = provider.desk.load();
            assert_eq!((held.active, held.queued), (0, 0), "{:?} still works", provider.script);
            assert_eq!(provider.desk.streams(), 0, "{:?} holds a stream", provider.script);
        }
        self.outcome.as_ref().expect("a job that came to nothing")
    }

    pub(crate) fn run_until(&mut self, end: Millis) {
        for _ in 0..MAX_EVENTS {
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let desks = self.providers.iter().filter_map(|provider| provider.desk.timer());
            let timers = desks.chain(self.job.timer()).min();
            let Some(at) = queued.into_iter().chain(timers).min().filter(|at| *at <= end) else {
                return;
            };
            self.now = self.now.max(at);
            match self.queue.first_entry() {
                Some(entry) if entry.key().0 <= self.now => {
                    let event = entry.remove();
                    self.deliver(event);
                }
                _ => self.wake(),
            }
        }
        panic!("more than {MAX_EVENTS} events: something spins");
    }

    /// Runs until this many tokens were passed on.
    pub(crate) fn serve_until(&mut self, tokens: usize) {
        while self.tokens.len() < tokens && self.outcome.is_none() {
            self.now = self.now.after(1);
            self.run_until(self.now);
        }
    }

    fn wake(&mut self) {
        if self.job.timer().is_some_and(|at| at <= self.now) {
            self.tell(In::Timer);
        }
        for index in 0..self.providers.len() {
            if self.providers[index].desk.timer().is_some_and(|at| at <= self.now) {
                self.tell_desk(index, provider::In::Timer);
            }
        }
    }

    /// The streams that were opened.
    pub(crate) fn lanes(&self) -> Vec<LaneId> {
        self.lanes.keys().copied().collect()
    }

    pub(crate) fn later(&mut self, ms: u64, event: In) {
        self.push(ms, Event::ToJob(event));
    }

    fn push(&mut self, ms: u64, event: Event) {
        self.count += 1;
        self.queue.insert((self.now.after(ms), self.count), event);
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::ToJob(event) => self.tell(event),
            Event::ToDesk(index, event) => self.tell_desk(index, event),
            Event::Step { provider, stream } => self.step(provider, stream),
        }
    }

    /// Tells the job, and checks what must hold after every event.
    pub(crate) fn tell(&mut self, event: In) {
        let was_over = self.job.is_over();
        let outs = self.job.handle(self.now, event);
        assert!(!was_over || outs.is_empty(), "after the end: {outs:?}");
        self.act(outs);
        match self.job.timer() {
            Some(at) => assert!(at > self.now && !self.job.is_over()),
            None => assert!(self.job.is_over(), "nothing would wake the job"),
        }
    }

    fn act(&mut self, outs: Vec<Out>) {
        for out in outs {
            assert!(self.outcome.is_none(), "after the end: {out:?}");
            match out {
                Out::FindCandidates => {
                    let found = self.candidates();
                    self.later(1, In::Candidates(found));
                    self.later(2, In::SearchOver);
                }
                Out::OpenStream { lane, peer } => self.open(lane, peer),
                Out::Send(lane, frame) => self.send_up(lane, frame),
                Out::CloseStream(lane) => self.close(lane),
                Out::Emit { start, tokens, text, logprobs } => {
                    assert_eq!(start as usize, self.tokens.len(), "a token lost or doubled");
                    let due = self.offer.sampling.logprobs.map_or(0, |_| tokens.len());
                    assert_eq!(logprobs.len(), due, "one report a token, or none");
                    self.logprobs.extend(logprobs);
                    self.tokens.extend(tokens);
                    self.text.push_str(&text);
                    self.emits += 1;
                }
                Out::Notice(notice) => self.notices.push(notice),
                Out::Record(body) => self.records.push(*body),
                Out::Keep(evidence) => self.kept.push(*evidence),
                Out::SetTimer(at) => assert!(at > self.now, "a timer in the past"),
                Out::Finish(outcome) => self.outcome = Some(*outcome),
                question => self.check(question),
            }
        }
    }

    fn check(&mut self, question: Out) {
        if !self.answer_checks {
            return;
        }
        match question {
            Out::CheckBindings(question) => {
                let receipt = &question.receipt;
                let broken =
                    |only_text, detail: &str| Err(Broken { only_text, detail: detail.into() });
                let result = if receipt.key().peer_id() != question.provider
                    || receipt.offer_id != self.offer.id()
                    || receipt.prompt_tokens != question.prompt_tokens
                {
                    broken(false, "another job's receipt")
                } else if receipt.output_hash != hash_tokens(&question.tokens) {
                    broken(false, "output hash")
                } else if question
                    .text
                    .is_none_or(|text| receipt.text_hash != hash_shown(&text, &question.logprobs))
                {
                    broken(true, "text hash")
                } else {
                    Ok(())
                };
                self.later(1, In::BindingsChecked(question.lane, result));
            }
            Out::CheckLogProof { lane, .. } => {
                let provider = self.lanes[&lane];
                let holds = self.providers[provider].script != Script::FalseLogProof;
                let result = if holds { Ok(()) } else { Err("no such entry".into()) };
                self.later(1, In::LogProofChecked(lane, result));
            }
            Out::CheckOpenings { lane, openings, client_nonce, .. } => {
                assert_eq!(client_nonce, NONCE);
                let holds = openings.openings[0].leaf.position == 0;
                let result = if holds { Ok(()) } else { Err("another leaf".into()) };
                self.later(1, In::OpeningsChecked(lane, result));
            }
            Out::Audit { lane, case, exclude, .. } => self.audit(lane, &case, exclude),
            other => panic!("no question: {other:?}"),
        }
    }

    fn audit(&mut self, lane: LaneId, case: &Case, exclude: Vec<PeerId>) {
        self.audits.push((lane, exclude));
        let other = Keypair::from_seed(&[201; 32]).public().peer_id();
        let by =
            if self.audit_by == AuditBy::Another { Auditor::Peer(other) } else { Auditor::Local };
        let right = reference(&case.offer);
        let same = case.tokens.iter().zip(&right).take_while(|(got, right)| got == right).count();
        let differs = (case.tokens != right).then_some(same);
        let audited = match (self.audit_by, differs) {
            (AuditBy::Silence, _) => return,
            (AuditBy::Nobody, _) => Audited::Unavailable("nobody holds the model".into()),
            (AuditBy::Here | AuditBy::Another, None) => Audited::Passed { by },
            (AuditBy::OneStranger, None) => {
                Audited::Passed { by: Auditor::Peer(auditor_key().public().peer_id()) }
            }
            (AuditBy::OneStranger | AuditBy::OneLiar, at) => accused(case, at.unwrap_or(0)),
            (AuditBy::Here | AuditBy::Another, Some(at)) => Audited::Failed {
                by,
                mismatch: Mismatch {
                    position: at as u32,
                    what: Difference::Token,
                    expected: vec![],
                    got: vec![],
                },
                verdicts: vec![],
            },
        };
        self.later(20, In::AuditDone(lane, audited));
    }

    fn open(&mut self, lane: LaneId, peer: PeerId) {
        let index = self.providers.iter().position(|provider| provider.peer() == peer).unwrap();
        assert!(self.lanes.insert(lane, index).is_none(), "a lane used twice");
        let (script, ms) = (self.providers[index].script, 2 * self.providers[index].latency_ms);
        match script {
            Script::Unreachable => {
                self.later(ms, In::OpenFailed(lane, "connection refused".into()))
            }
            Script::DiesAt(at) | Script::CheatsThenDies(at)
                if self.providers[index].sent >= at && at > 0 =>
            {
                self.later(ms, In::OpenFailed(lane, "connection refused".into()));
            }
            _ => {
                let (stream, peer) = (StreamId(u64::from(lane.0)), self.router.public().peer_id());
                self.push(ms / 2, Event::ToDesk(index, provider::In::Opened { stream, peer }));
                self.later(ms, In::Opened(lane));
            }
        }
    }

    fn send_up(&mut self, lane: LaneId, frame: RouterFrame) {
        let index = self.lanes[&lane];
        let frame = RouterFrame::decode(&frame.encode().unwrap()).unwrap();
        if !self.closed.contains(&lane) {
            let stream = StreamId(u64::from(lane.0));
            self.push_ordered(true, lane, Event::ToDesk(index, provider::In::Frame(stream, frame)));
        }
    }

    fn close(&mut self, lane: LaneId) {
        let stream = StreamId(u64::from(lane.0));
        if self.closed.insert(lane) {
            self.push_ordered(
                true,
                lane,
                Event::ToDesk(self.lanes[&lane], provider::In::Closed(stream)),
            );
        }
    }

    /// A stream keeps its order, whatever the latency does.
    fn push_ordered(&mut self, up: bool, lane: LaneId, event: Event) {
        let latency_ms = self.providers[self.lanes[&lane]].latency_ms;
        let last = self.arrival.get(&(up, lane)).copied().unwrap_or_default();
        let at = self.now.after(latency_ms).max(last);
        self.arrival.insert((up, lane), at);
        self.push(at.since(self.now), event);
    }

    fn tell_desk(&mut self, index: usize, event: provider::In) {
        let outs = self.providers[index].desk.handle(self.now, event);
        for out in outs {
            self.act_desk(index, out);
        }
    }

    fn act_desk(&mut self, index: usize, out: provider::Out) {
        match out {
            provider::Out::Send(stream, frame) => {
                self.push(0, Event::ToDesk(index, provider::In::Sent(stream)));
                self.send_down(index, stream, frame);
            }
            provider::Out::Close(stream) => {
                let lane = LaneId(stream.0 as u32);
                if !self.closed.contains(&lane) {
                    let closed = In::Closed(lane, Closed::Gone("closed".into()));
                    self.push_ordered(false, lane, Event::ToJob(closed));
                }
            }
            provider::Out::Prepare { stream, .. } => {
                self.push(1, Event::ToDesk(index, provider::In::Prepared(stream, PROMPT_TOKENS)));
            }
            provider::Out::Run { stream, offer, resume } => {
                self.start(index, stream, &offer, &resume)
            }
            provider::Out::Stop(stream) => {
                self.providers[index].stopped += 1;
                self.providers[index].running.remove(&stream);
            }
            provider::Out::Issue { stream, draft } => {
                let provider = &mut self.providers[index];
                let mut receipt = draft.receipt(1_000);
                if provider.script == Script::OtherOffer {
                    receipt.offer_id = Digest::from_bytes([9; 32]);
                }
                let other = Keypair::from_seed(&[99; 32]);
                let others = provider.script == Script::OthersReceipt;
                let key = if others { &other } else { &provider.key };
                let receipt = Signed::sign(key, receipt).unwrap();
                let body = LogBody::Receipt(receipt.clone());
                provider.entries.push(LogEntry { unix_ms: 1_000, body });
                let proof = LogProof { index: 0, checkpoint: "note\n".into(), path: vec![] };
                self.push(2, Event::ToDesk(index, provider::In::Logged { stream, receipt, proof }));
            }
            provider::Out::OpenLeaves { stream, question } => {
                assert_eq!(
                    question.tokens,
                    answer_of(self.providers[index].script, &question.offer)
                );
                let position = u32::from(self.providers[index].script == Script::FalseOpenings);
                let state = Digest::from_bytes([0; 32]);
                let leaf = Leaf { position, token: 0, state, layers: state, drawn: None };
                let openings = Openings {
                    openings: vec![Opening { leaf, path: vec![] }],
                    leaf_hashes: vec![],
                };
                self.push(
                    5,
                    Event::ToDesk(index, provider::In::LeavesOpened(stream, Ok(openings))),
                );
            }
            provider::Out::SetTimer(_) => {}
        }
    }

    fn start(&mut self, index: usize, stream: StreamId, offer: &Offer, resume: &[u32]) {
        let provider = &mut self.providers[index];
        provider.ran += 1;
        let tokens = answer_of(provider.script, offer);
        let next = tokens.iter().zip(resume).take_while(|(own, given)| own == given).count();
        provider.running.insert(stream, Running { tokens, next });
        let ms = provider.step_ms;
        self.push(ms, Event::Step { provider: index, stream });
    }

    fn step(&mut self, index: usize, stream: StreamId) {
        let provider = &mut self.providers[index];
        let Some(running) = provider.running.get_mut(&stream) else { return };
        let (at, all) = (running.next, running.tokens.len());
        if at == all {
            let tokens = provider.running.remove(&stream).unwrap().tokens;
            let logprobs = reports(&self.offer, &tokens);
            let ended = provider::Ended {
                tokens: all as u32,
                stop: Stop::Length,
                output_hash: hash_tokens(&tokens),
                text_hash: hash_shown(&text_of(&tokens, all, all), &logprobs),
                kv_root: Digest::from_bytes([9; 32]),
                transcript_root: hash("root", hash_tokens(&tokens).as_bytes()),
                leaves: PROMPT_TOKENS + all as u32,
            };
            return self.tell_desk(index, provider::In::Finished(stream, ended));
        }
        let before = text_of(&running.tokens, at, all);
        let after = text_of(&running.tokens, at + 1, all);
        let leaves = PROMPT_TOKENS + at as u32;
        let commitment = Commitment { leaves, root: hash_tokens(&running.tokens[..=at]) };
        let step = Step {
            token: running.tokens[at],
            text: after[before.len()..].to_owned(),
            commitment: (at + 1).is_multiple_of(32).then_some(commitment),
            logprobs: reports(&self.offer, &running.tokens[at..=at]).pop(),
        };
        running.next += 1;
        let ms = provider.step_ms;
        self.push(ms, Event::Step { provider: index, stream });
        self.tell_desk(index, provider::In::Steps { stream, start: at as u32, steps: vec![step] });
    }

    /// A frame of a provider, as its script lets it through.
    fn send_down(&mut self, index: usize, stream: StreamId, frame: ProviderFrame) {
        let lane = LaneId(stream.0 as u32);
        let frame = ProviderFrame::decode(&frame.encode().unwrap()).unwrap();
        let provider = &mut self.providers[index];
        let before = provider.sent;
        let mut frames = vec![frame];
        if let ProviderFrame::Tokens(tokens) = &mut frames[0] {
            provider.sent += tokens.tokens.len() as u32;
            match provider.script {
                Script::NoCommitments => tokens.commitment = None,
                Script::FalseText => tokens.text.push('!'),
                Script::FalseReports => {
                    tokens.logprobs.iter_mut().for_each(|report| report.chosen_q16 += 1);
                }
                Script::NoReports => tokens.logprobs.clear(),
                _ => {}
            }
        }
        // Leaving out or holding back the very last tokens makes the receipt false.
        let all = reference(&self.offer).len();
        let is_last = matches!(&frames[0], ProviderFrame::Tokens(tokens)
            if tokens.start as usize + tokens.tokens.len() >= all);
        let is_tokens = matches!(frames[0], ProviderFrame::Tokens(_));
        let is_openings = matches!(frames[0], ProviderFrame::Openings(_));
        let reached = |at: u32| is_tokens && before >= at || provider.sent >= at && !is_tokens;
        match provider.script {
            Script::Mute => return,
            Script::AcceptsOnly if !matches!(frames[0], ProviderFrame::Accepted(_)) => return,
            Script::NoOpenings if is_openings => return,
            Script::DiesAt(at) | Script::CheatsThenDies(at) if reached(at) => {
                let gone = In::Closed(lane, Closed::Gone("connection lost".into()));
                return self.push_ordered(false, lane, Event::ToJob(gone));
            }
            Script::StallsAt(at) if reached(at) => return,
            Script::GarbageAt(at) if reached(at) => {
                let garbage = In::Closed(lane, Closed::Garbage("frame length".into()));
                return self.push_ordered(false, lane, Event::ToJob(garbage));
            }
            Script::Doubles(at) if is_tokens && provider.frames == at => {
                frames.extend_from_within(..);
            }
            Script::Skips(at) if is_tokens && provider.frames == at && !is_last => frames.clear(),
            Script::Swaps(at) if is_tokens && provider.frames == at && !is_last => {
                provider.held = frames.pop();
            }
            Script::Swaps(_) => frames.extend(provider.held.take()),
            Script::Refuses(code) if provider.refusals == 0 => {
                provider.refusals = 1;
                frames = vec![ProviderFrame::Failure(Failure::new(code, "as the script says"))];
            }
            Script::BusyTimes(times)
                if provider.refusals < times && matches!(frames[0], ProviderFrame::Accepted(_)) =>
            {
                provider.refusals += 1;
                let mut busy = Failure::new(FailureCode::Busy, "as the script says");
                busy.retry_after_ms = 100;
                frames = vec![ProviderFrame::Failure(busy)];
            }
            _ => {}
        }
        if is_tokens {
            self.providers[index].frames += 1;
        }
        for frame in frames {
            self.push_ordered(false, lane, Event::ToJob(In::Frame(lane, frame)));
        }
    }

    /// Evidence that was recorded, as `who: what`, in order.
    pub(crate) fn evidence(&self) -> Vec<(usize, String)> {
        let evidence = self.records.iter().filter_map(|body| match body {
            LogBody::Evidence(Evidence::WrongAnswer(wrong)) => {
                Some((wrong.case.receipt.key(), "wrong-answer".to_owned()))
            }
            LogBody::Evidence(Evidence::Observation(seen)) => {
                let code = seen.reason.split(':').next().unwrap();
                Some((seen.provider, code.to_owned()))
            }
            _ => None,
        });
        let number =
            |key| self.providers.iter().position(|provider| provider.key.public() == key).unwrap();
        evidence.map(|(key, what)| (number(key), what)).collect()
    }

    /// The records as this node's log would hold them after a restart.
    pub(crate) fn reputation(&self) -> Reputation {
        let entries: Vec<LogEntry> = self
            .records
            .iter()
            .map(|body| LogEntry { unix_ms: 1_000, body: body.clone() })
            .collect();
        let encoded =
            entries.iter().map(|entry| LogEntry::decode(&entry.encode().unwrap()).unwrap());
        Reputation::replay(&encoded.collect::<Vec<_>>())
    }

    pub(crate) fn is_barred(&self, provider: usize) -> bool {
        let peer = self.providers[provider].peer();
        self.reputation().standing(&peer, 1_000).barred.is_some()
    }

    /// The whole answer was passed on, exactly.
    pub(crate) fn assert_answer(&self) {
        let right = reference(&self.offer);
        assert_eq!(self.tokens, right);
        assert_eq!(self.text, text_of(&right, right.len(), right.len()));
    }
}

pub(crate) fn auditor_key() -> Keypair {
    Keypair::from_seed(&[77; 32])
}

/// What one auditor's word amounts to.
fn accused(case: &Case, at: usize) -> Audited {
    let mismatch =
        Mismatch { position: at as u32, what: Difference::Token, expected: vec![1], got: vec![2] };
    let verdict = Verdict {
        receipt_id: case.receipt.id(),
        offer_id: case.offer.id(),
        model_id: MODEL,
        provider: case.receipt.key(),
        outcome: peerproof_wire::Outcome::Fail(mismatch.clone()),
        work: Digest::from_bytes([4; 32]),
        draw: None,
        issued_unix_ms: 1,
    };
    let verdict = Box::new(Signed::sign(&auditor_key(), verdict).unwrap());
    Audited::Accused { by: auditor_key().public().peer_id(), mismatch, verdict }
}
