//! One simulated world: nodes, a queue of events, and the time they say it is.
//!
//! The queue is ordered by time and, at one moment, by the order in which
//! events were made; every number comes from the seed. So a world is a function
//! of its scenario and seed, and its [`Trace`] shows it. Nodes are handed one
//! event at a time and put what follows from it back into the queue.

use std::collections::{BTreeMap, BTreeSet};

use peerproof_identity::PeerId;
use peerproof_job::{provider, router};

use crate::cheats;
use crate::check::{self, Violation};
use crate::facts::Facts;
use crate::net::{Arrival, End, Net, Piece, Protocol, StreamNo, Weather};
use crate::node::{Errand, Node};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::trace::{Trace, Words};

/// The most events of one world; more means that something spins.
const MAX_EVENTS: u64 = 400_000;
/// How long a world may go on after its last fault was healed.
const PATIENCE_MS: u64 = 900_000;

/// Something that will happen.
pub(crate) enum Event {
    /// A node is told something, unless it died since.
    Wake { node: usize, boot: u32, what: Wake },
    /// A piece comes out of a stream.
    Arrive { stream: StreamNo, to: End, piece: Piece },
    /// News from another node.
    News { to: usize, from: usize, bytes: Vec<u8> },
    /// Something breaks, or is mended.
    Fault(Fault),
}

impl Event {
    /// Kind and place, for the trace.
    fn kind(&self) -> [u64; 3] {
        match self {
            Self::Wake { node, what, .. } => [what.kind(), *node as u64, 0],
            Self::Arrive { stream, to, piece } => {
                [20 + piece.kind(), stream.0, u64::from(*to == End::Opener)]
            }
            Self::News { to, from, .. } => [30, *to as u64, *from as u64],
            Self::Fault(_) => [31, 0, 0],
        }
    }
}

impl Wake {
    const fn kind(&self) -> u64 {
        match self {
            Self::Ask(_) => 0,
            Self::Desk(_) => 1,
            Self::Engine { .. } => 2,
            Self::DeskTimer(_) => 3,
            Self::Issue(..) => 4,
            Self::BenchTimer(_) => 5,
            Self::Job(..) => 6,
            Self::JobTimer(..) => 7,
            Self::Errand(..) => 8,
            Self::Gossip => 9,
            Self::Trouble => 10,
        }
    }
}

/// What a node is told by itself.
pub(crate) enum Wake {
    /// The next job of its plan is due.
    Ask(usize),
    Desk(provider::In),
    /// Tokens of a job that may have been stopped meanwhile.
    Engine {
        stream: provider::StreamId,
        run: u64,
        event: Box<provider::In>,
    },
    DeskTimer(u64),
    /// A receipt is to be signed and logged.
    Issue(provider::StreamId, Box<provider::Draft>),
    BenchTimer(u64),
    Job(usize, Box<router::In>),
    JobTimer(usize, u64),
    /// An audit that this node does or has done by others.
    Errand(u64, Errand),
    /// Time to tell others.
    Gossip,
    /// Time for a liar that asks to make trouble.
    Trouble,
}

/// What breaks.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A node dies here and now, or inside one of its next writes.
    Crash {
        node: usize,
        power_cut: bool,
        fuse: Option<u64>,
    },
    Restart {
        node: usize,
    },
    Island(BTreeSet<usize>),
    /// Nothing breaks any more.
    Heal,
}

/// What all nodes share.
pub(crate) struct Context {
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) net: Net,
    pub(crate) facts: Facts,
    /// The long-lived key of each node.
    pub(crate) peers: Vec<PeerId>,
    pub(crate) scenario: Scenario,
    /// Nodes that died inside a write and have to be taken down.
    pub(crate) dying: Vec<usize>,
}

impl Context {
    pub(crate) fn at(&mut self, when: u64, event: Event) {
        self.queue.insert((when.max(self.now), self.sequence), event);
        self.sequence += 1;
    }

    pub(crate) fn arrive(&mut self, arrivals: Vec<Arrival>) {
        for (at, stream, to, piece) in arrivals {
            self.at(at, Event::Arrive { stream, to, piece });
        }
    }

    pub(crate) fn open(
        &mut self,
        protocol: Protocol,
        from: usize,
        peer: PeerId,
        to: usize,
    ) -> StreamNo {
        let (stream, arrival) = self.net.open(self.now, protocol, from, peer, to);
        self.arrive(vec![arrival]);
        stream
    }

    pub(crate) fn send(&mut self, stream: StreamNo, from: End, bytes: Vec<u8>) {
        self.trace.absorb(&bytes);
        let arrivals = self.net.send(self.now, stream, from, Piece::Frame(bytes));
        self.arrive(arrivals);
    }

    pub(crate) fn leave(&mut self, stream: StreamNo, end: End) {
        let arrivals = self.net.leave(self.now, stream, end);
        self.arrive(arrivals);
    }

    pub(crate) fn reset(&mut self, stream: StreamNo) {
        let arrivals = self.net.take_down(self.now, stream);
        self.arrive(arrivals);
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Run {
    /// Hash of everything that happened.
    pub trace: [u8; 32],
    /// Its words, if they were kept.
    pub lines: Vec<String>,
    /// Rules that were broken; none in a good world.
    pub violations: Vec<Violation>,
    /// Figures of the run.
    pub figures: Figures,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events handed out.
    pub events: u64,
    /// Jobs that were asked.
    pub jobs: u64,
    /// Jobs that were answered.
    pub answered: u64,
    /// Answers that were recomputed.
    pub audited: u64,
    /// Answers refused because a check failed.
    pub refuted: u64,
    /// Nodes that died and came back.
    pub crashes: u64,
    /// Streams that were reset.
    pub resets: u64,
    /// Log entries that were acknowledged.
    pub entries: u64,
    /// Pairs of an honest node and whoever it bars.
    pub bars: u64,
    /// Positions that were recomputed.
    pub steps: u64,
}

/// Runs one world to its end and checks it.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64, words: Words) -> Run {
    let (world, mut violations) = World::play(scenario, seed, words);
    violations.extend(check::verify(&world));
    violations.extend(cheats::got_away(&world));
    let mut figures = world.context.facts.figures();
    figures.events = world.context.trace.events();
    figures.resets = world.context.net.resets;
    let honest = world.nodes.iter().filter(|node| node.conduct.is_honest());
    figures.bars = honest.map(|node| node.barred().count() as u64).sum();
    let (trace, lines) = world.context.trace.finish();
    Run { trace, lines, violations, figures }
}

/// A world.
pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) nodes: Vec<Node>,
}

impl World {
    /// Builds a world and lets it run; gives it back with what went wrong on the way.
    pub(crate) fn play(scenario: &Scenario, seed: u64, words: Words) -> (Self, Vec<Violation>) {
        let mut world = Self::new(scenario, seed, words);
        world.start();
        let mut violations = world.drain();
        violations.append(&mut world.context.facts.violations);
        (world, violations)
    }

    fn new(scenario: &Scenario, seed: u64, words: Words) -> Self {
        let random = Random::new(seed);
        let nodes: Vec<Node> = scenario
            .nodes
            .iter()
            .enumerate()
            .map(|(index, plan)| Node::new(index, plan.clone(), &random.fork(100 + index as u64)))
            .collect();
        let peers = nodes.iter().map(Node::peer).collect();
        let context = Context {
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            random: random.fork(1),
            trace: Trace::new(words),
            net: Net::new(scenario.weather, random.fork(2)),
            facts: Facts::new(scenario.nodes.len()),
            peers,
            scenario: scenario.clone(),
            dying: Vec::new(),
        };
        Self { context, nodes }
    }

    fn start(&mut self) {
        for node in &mut self.nodes {
            node.boot(&mut self.context);
            node.plan(&mut self.context);
        }
        let faults = self.context.scenario.faults.clone();
        let count = self.nodes.len() as u64;
        let mut random = self.context.random.fork(3);
        for _ in 0..faults.crashes {
            let node = random.below(count) as usize;
            let at = random.below(faults.until_ms);
            let down_ms = random.between(200, 8_000);
            let fuse = random.one_in(2).then(|| random.below(12));
            let crash = Fault::Crash { node, power_cut: !random.one_in(3), fuse };
            self.context.at(at, Event::Fault(crash));
            self.context.at(at + down_ms, Event::Fault(Fault::Restart { node }));
        }
        for _ in 0..faults.power_cuts {
            let node = random.below(count) as usize;
            let at = random.below(faults.until_ms);
            let fuse = Some(random.below(6));
            let crash = Fault::Crash { node, power_cut: true, fuse };
            self.context.at(at, Event::Fault(crash));
        }
        for _ in 0..faults.partitions {
            let at = random.below(faults.until_ms);
            let for_ms = random.between(500, 15_000);
            let island = (0..count as usize).filter(|_| random.one_in(3)).collect();
            self.context.at(at, Event::Fault(Fault::Island(island)));
            self.context.at(at + for_ms, Event::Fault(Fault::Island(BTreeSet::new())));
        }
        self.context.at(faults.until_ms + 10_000, Event::Fault(Fault::Heal));
    }

    /// Hands out events until none is left that matters.
    fn drain(&mut self) -> Vec<Violation> {
        let healed = self.context.scenario.faults.until_ms + 10_000;
        while let Some(((at, _), event)) = self.context.queue.pop_first() {
            self.context.now = at;
            if self.context.trace.events() > MAX_EVENTS {
                return vec![Violation::Spins { events: MAX_EVENTS }];
            }
            if at > healed + PATIENCE_MS {
                break;
            }
            self.dispatch(event);
            for node in std::mem::take(&mut self.context.dying) {
                self.crash(node, true, true);
            }
            if at > healed && self.is_quiet() {
                break;
            }
        }
        Vec::new()
    }

    /// Whether all jobs are over and all news has had time to get around.
    fn is_quiet(&self) -> bool {
        let told = self.context.facts.gossip_rounds_since_last_news();
        told >= check::GOSSIP_ROUNDS * self.nodes.len() as u64
            && self.nodes.iter().all(|node| node.is_idle())
    }

    fn dispatch(&mut self, event: Event) {
        self.context.trace.step(self.context.now, event.kind());
        match event {
            Event::Wake { node, boot, what } => {
                let node = &mut self.nodes[node];
                if node.is_up() && node.boots() == boot {
                    node.wake(&mut self.context, what);
                }
            }
            Event::Arrive { stream, to, piece } => self.arrive(stream, to, piece),
            Event::News { to, from, bytes } => {
                if self.nodes[to].is_up() {
                    self.nodes[to].hear(&mut self.context, from, &bytes);
                }
            }
            Event::Fault(fault) => self.fault(fault),
        }
    }

    fn arrive(&mut self, stream: StreamNo, to: End, piece: Piece) {
        if !self.context.net.listens(stream, to) {
            return;
        }
        let Some(known) = self.context.net.get(stream) else { return };
        let (protocol, peer, index) = (known.protocol, known.peer, known.node(to));
        let node = &mut self.nodes[index];
        if !node.is_up() {
            // Nobody is there to open it.
            self.context.net.drop_end(stream, to);
            let at = self.context.now + 50;
            let refused = Event::Arrive { stream, to: to.other(), piece: Piece::Refused };
            self.context.at(at, refused);
            return;
        }
        if matches!(piece, Piece::Finished | Piece::Reset | Piece::Refused) {
            self.context.net.drop_end(stream, to);
        }
        if matches!(piece, Piece::Opened) {
            let at = self.context.now + self.context.net.delay();
            let ready = Event::Arrive { stream, to: End::Opener, piece: Piece::Ready };
            self.context.at(at, ready);
        }
        match (to, protocol) {
            (End::Acceptor, Protocol::Job) => node.serve(&mut self.context, stream, peer, piece),
            (End::Acceptor, Protocol::Audit) => node.judge(&mut self.context, stream, peer, piece),
            (End::Opener, Protocol::Job) => node.job_piece(&mut self.context, stream, piece),
            (End::Opener, Protocol::Audit) => node.errand_piece(&mut self.context, stream, piece),
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.context.trace.note(self.context.now, format_args!("{fault:?}"));
        match fault {
            Fault::Crash { node, fuse: Some(operations), .. } => {
                if self.nodes[node].is_up() {
                    self.nodes[node].light_fuse(operations);
                }
            }
            Fault::Crash { node, power_cut, .. } => self.crash(node, power_cut, false),
            Fault::Restart { node } => self.restart(node),
            Fault::Island(nodes) => self.context.net.set_island(nodes),
            Fault::Heal => {
                self.context.net.set_island(BTreeSet::new());
                self.context.net.set_weather(Weather::CALM);
                for node in 0..self.nodes.len() {
                    self.nodes[node].snuff_fuse();
                    self.restart(node);
                }
            }
        }
    }

    fn crash(&mut self, node: usize, power_cut: bool, come_back: bool) {
        if !self.nodes[node].is_up() {
            return;
        }
        let now = self.context.now;
        self.context.trace.note(now, format_args!("node {node} dies, power cut: {power_cut}"));
        self.context.facts.crashes += 1;
        self.nodes[node].die(&mut self.context, power_cut);
        let arrivals = self.context.net.drop_node(now, node);
        self.context.arrive(arrivals);
        if come_back {
            self.context.at(now + 1_000, Event::Fault(Fault::Restart { node }));
        }
    }

    fn restart(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            self.context.trace.note(self.context.now, format_args!("node {node} starts"));
            self.nodes[node].boot(&mut self.context);
        }
    }
}
