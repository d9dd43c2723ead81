//! One node: the machines of `job` and the log, wired as `peerproof` wires them.
//!
//! What a machine asks for, the node does with `proof`, `log` and the virtual
//! network, and reports back. Work that takes time comes back by an event of the
//! world. When a node dies everything is gone but its key and its disk.

mod asking;
mod errand;
mod gossip;
mod judging;
mod ledger;
mod serving;
mod trouble;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use peerproof_identity::{Keypair, PeerId, PublicKey};
use peerproof_job::{Millis, Reputation, auditor, provider};
use peerproof_log::{Log, SignedCheckpoint};
use peerproof_wire::{LogBody, LogEntry, Message as _, Receipt, Signed};

use crate::check::Violation;
use crate::disk::Disk;
use crate::net::{Piece, StreamNo};
use crate::random::Random;
use crate::scenario::NodePlan;
use crate::toy::{CONTEXT, MODEL};
use crate::world::{Context, Event, Wake};

use asking::Asking;
use errand::AuditErrand;
pub(crate) use errand::Errand;
use judging::Judging;
use serving::Serving;
use trouble::Trouble;

/// Segments are small so that a short life crosses several.
const SEGMENT_BYTES: u64 = 8 << 10;
/// The wall clock at the start of every world.
const EPOCH_UNIX_MS: u64 = 1_700_000_000_000;

/// A node.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) conduct: crate::Conduct,
    pub(crate) plan: NodePlan,
    key: Arc<Keypair>,
    disk: Disk,
    random: Random,
    boots: u32,
    /// What the clock of this boot says at the start of the world.
    origin_ms: u64,
    session: Keypair,
    log: Option<Log<Disk>>,
    reputation: Reputation,
    serving: Serving,
    judging: Judging,
    jobs: BTreeMap<usize, Asking>,
    /// Jobs of the plan that were never started, or were.
    started: BTreeSet<usize>,
    errands: BTreeMap<u64, AuditErrand>,
    next_errand: u64,
    /// Whose stream is whose, for those this node opened.
    opened: BTreeMap<StreamNo, Opened>,
    receipts: BTreeMap<(PublicKey, u64), Signed<Receipt>>,
    checkpoints: BTreeMap<(PublicKey, u64), SignedCheckpoint>,
    /// What this node tells others, the oldest first.
    news: VecDeque<Vec<u8>>,
    /// Hashes of news that were looked at.
    heard: BTreeSet<[u8; 32]>,
    distrusted: BTreeSet<usize>,
    trouble: Trouble,
}

/// What a stream was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    Lane { job: usize, lane: peerproof_job::router::LaneId },
    Errand(u64),
    Trouble,
}

impl Node {
    pub(crate) fn new(index: usize, plan: NodePlan, random: &Random) -> Self {
        let mut random = random.fork(1);
        let key = Arc::new(Keypair::from_seed(&random.bytes()));
        let session = Keypair::from_seed(&random.bytes());
        Self {
            index,
            conduct: plan.conduct,
            plan,
            key,
            disk: Disk::new(random.fork(2)),
            boots: 0,
            origin_ms: 0,
            session,
            log: None,
            reputation: Reputation::new(),
            serving: Serving::new(provider::Desk::new(serving::config(), Vec::new())),
            judging: Judging::new(auditor::Bench::new(judging::config(), Vec::new())),
            jobs: BTreeMap::new(),
            started: BTreeSet::new(),
            errands: BTreeMap::new(),
            next_errand: 0,
            opened: BTreeMap::new(),
            receipts: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            news: VecDeque::new(),
            heard: BTreeSet::new(),
            distrusted: BTreeSet::new(),
            trouble: Trouble::default(),
            random,
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.key.public().peer_id()
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.log.is_some()
    }

    pub(crate) const fn boots(&self) -> u32 {
        self.boots
    }

    pub(crate) fn light_fuse(&self, operations: u64) {
        self.disk.light_fuse(operations);
    }

    pub(crate) fn snuff_fuse(&self) {
        self.disk.snuff_fuse();
    }

    /// Whether nothing is under way that somebody waits for.
    pub(crate) fn is_idle(&self) -> bool {
        let asked = self.started.len() == self.plan.jobs.len();
        let quiet = !self.conduct.is_honest()
            || (self.serving.desk.streams() == 0 && self.judging.bench.audits() == 0);
        asked && self.jobs.is_empty() && self.errands.is_empty() && quiet
    }

    /// Everybody this node never chooses.
    pub(crate) fn barred(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.reputation.barred().map(|(peer, _)| peer)
    }

    pub(crate) fn reputation(&self) -> &Reputation {
        &self.reputation
    }

    pub(crate) fn desk(&self) -> &provider::Desk {
        &self.serving.desk
    }

    pub(crate) fn log(&self) -> Option<&Log<Disk>> {
        self.log.as_ref()
    }

    /// The clock that machines are told, which is never quite right.
    fn local(&self, now: u64) -> Millis {
        Millis(self.origin_ms.saturating_add(now).saturating_add_signed(self.drift(now)))
    }

    fn drift(&self, ms: u64) -> i64 {
        (ms as i64).saturating_mul(self.plan.drift_ppm) / 1_000_000
    }

    /// When the clock says `at`, or a moment later.
    fn global(&self, now: u64, at: Millis) -> u64 {
        let wait = at.since(self.local(now));
        let wait = wait.saturating_add_signed(-self.drift(wait)).saturating_add(2);
        now.saturating_add(wait)
    }

    pub(crate) fn unix_ms(&self, now: u64) -> u64 {
        (EPOCH_UNIX_MS + now).saturating_add_signed(self.plan.skew_ms)
    }

    fn wake_after(&self, context: &mut Context, ms: u64, what: Wake) {
        let at = context.now + ms;
        context.at(at, Event::Wake { node: self.index, boot: self.boots, what });
    }

    fn wake_at(&self, context: &mut Context, at: Millis, what: Wake) {
        let at = self.global(context.now, at);
        context.at(at, Event::Wake { node: self.index, boot: self.boots, what });
    }

    /// The process starts: everything it knows it reads from its disk.
    pub(crate) fn boot(&mut self, context: &mut Context) {
        self.boots += 1;
        self.origin_ms = self.random.below(1 << 40);
        self.session = Keypair::from_seed(&self.random.bytes());
        let log = match Log::open(self.disk.clone(), Arc::clone(&self.key)) {
            Ok(log) => log.with_segment_bytes(SEGMENT_BYTES),
            Err(error) => {
                let why = error.to_string();
                return context.facts.violate(Violation::NotOpened { node: self.index, why });
            }
        };
        let entries = self.read_back(context, &log);
        self.reputation = Reputation::replay(&entries);
        for entry in &entries {
            if let LogBody::Evidence(evidence) = &entry.body {
                self.spread_evidence(evidence);
            }
        }
        let served = provider::Served {
            model_id: MODEL,
            context_length: CONTEXT,
            class: peerproof_wire::Class::Exact,
        };
        let served = if self.plan.serves { vec![served] } else { Vec::new() };
        match provider::Desk::restore(serving::config(), served, &entries) {
            Ok(desk) => self.serving = Serving::new(desk),
            Err(error) => {
                let why = error.to_string();
                context.facts.violate(Violation::Receipts { node: self.index, why });
            }
        }
        let holds = if self.plan.audits { vec![MODEL] } else { Vec::new() };
        self.judging = Judging::new(auditor::Bench::new(judging::config(), holds));
        self.log = Some(log);
        self.note_checkpoint(context);
        let first_gossip = self.random.below(2_000);
        self.wake_after(context, first_gossip, Wake::Gossip);
        let lost = self.plan.jobs.len();
        for job in (0..lost).filter(|job| !self.started.contains(job)).collect::<Vec<_>>() {
            let wait = self.plan.jobs[job].at_ms.saturating_sub(context.now);
            self.wake_after(context, wait, Wake::Ask(job));
        }
    }

    /// Reads the whole log, and holds it against what the world knows of it.
    fn read_back(&mut self, context: &mut Context, log: &Log<Disk>) -> Vec<LogEntry> {
        let node = self.index;
        if let Some(damage) = log.damage() {
            let why = damage.to_string();
            context.facts.violate(Violation::Fenced { node, why });
        }
        let acknowledged = &context.facts.acknowledged[node];
        if (log.len() as usize) < acknowledged.len() {
            let (expected, got) = (acknowledged.len() as u64, log.len());
            context.facts.violate(Violation::Lost { node, expected, got });
        }
        let mut entries = Vec::new();
        for index in 0..log.len() {
            let payload = log.entry(index).unwrap_or_default();
            let hash = *blake3::hash(&payload).as_bytes();
            match context.facts.acknowledged[node].get(index as usize) {
                Some(known) if *known == hash => {}
                // What survived without having been acknowledged is part of the log.
                None => context.facts.acknowledged[node].push(hash),
                Some(_) => context.facts.violate(Violation::Changed { node, index }),
            }
            entries.extend(LogEntry::decode(&payload));
        }
        entries
    }

    /// Lays out what this node does by itself.
    pub(crate) fn plan(&mut self, context: &mut Context) {
        if self.plan.plants {
            self.plan_plants(context);
        }
        if self.conduct.router().is_some() {
            self.wake_after(context, 500, Wake::Trouble);
        }
    }

    /// The process ends, with or without its power.
    pub(crate) fn die(&mut self, context: &mut Context, power_cut: bool) {
        self.log = None;
        self.disk.crash(power_cut);
        for (job, _) in std::mem::take(&mut self.jobs) {
            let fact = context.facts.jobs.iter_mut().find(|fact| {
                fact.router == self.index && fact.plan == self.plan.jobs[job] && !fact.lost
            });
            if let Some(fact) = fact.filter(|fact| fact.outcome.is_none()) {
                fact.lost = true;
            }
        }
        self.errands.clear();
        self.opened.clear();
        self.receipts.clear();
        self.checkpoints.clear();
        self.news.clear();
        self.heard.clear();
        self.trouble = Trouble::default();
        self.serving = Serving::new(provider::Desk::new(serving::config(), Vec::new()));
        self.judging = Judging::new(auditor::Bench::new(judging::config(), Vec::new()));
    }

    pub(crate) fn wake(&mut self, context: &mut Context, what: Wake) {
        match what {
            Wake::Ask(job) => self.ask(context, job),
            Wake::Desk(event) => self.desk_step(context, event),
            Wake::Engine { stream, run, event } => self.engine(context, stream, run, *event),
            Wake::DeskTimer(set) if self.serving.timer == set => {
                self.desk_step(context, provider::In::Timer);
            }
            Wake::Issue(stream, draft) => self.issue(context, stream, *draft),
            Wake::BenchTimer(set) if self.judging.timer == set => {
                self.bench_step(context, auditor::In::Timer);
            }
            Wake::Job(job, event) => self.job_step(context, job, *event),
            Wake::JobTimer(job, set) => self.job_timer(context, job, set),
            Wake::Errand(errand, what) => self.errand_step(context, errand, what),
            Wake::Gossip => self.gossip(context),
            Wake::Trouble => self.make_trouble(context),
            // A timer that was set again.
            Wake::DeskTimer(_) | Wake::BenchTimer(_) => {}
        }
    }

    /// Something came out of a stream that this node opened for an audit, or for trouble.
    pub(crate) fn errand_piece(&mut self, context: &mut Context, stream: StreamNo, piece: Piece) {
        match self.opened.get(&stream) {
            Some(Opened::Errand(errand)) => self.auditor_piece(context, *errand, stream, piece),
            Some(Opened::Trouble) => self.trouble_piece(context, stream, piece),
            Some(Opened::Lane { .. }) | None => {}
        }
    }

    /// Something came out of a stream that this node opened for a job, or for trouble.
    pub(crate) fn job_piece(&mut self, context: &mut Context, stream: StreamNo, piece: Piece) {
        match self.opened.get(&stream) {
            Some(Opened::Lane { job, lane }) => {
                self.lane_piece(context, *job, *lane, stream, piece);
            }
            Some(Opened::Trouble) => self.trouble_piece(context, stream, piece),
            Some(Opened::Errand(_)) | None => {}
        }
    }
}
