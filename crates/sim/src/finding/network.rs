//! A network of honest machines and colluders, and one lookup at a time through it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::sync::Arc;

use peerproof_discovery::Millis;
use peerproof_discovery::id::Key;
use peerproof_discovery::lookup::{Goal, Outcome};
use peerproof_discovery::message::{Address, Contact, Kind, Message, Value};
use peerproof_discovery::node::{Config, Discovery, Effect, Event};
use peerproof_discovery::record::{Draft, Record};
use peerproof_discovery::table::Located;
use peerproof_identity::{Keypair, PeerId};

use super::attack::{Liars, closest, subtree};
use super::{Plan, Publication, Size, Trial};
use crate::random::Random;

/// Round trips in milliseconds, each as frequent as the others; the median is 80.
const ROUND_TRIPS_MS: [u64; 16] =
    [22, 31, 38, 46, 53, 61, 69, 77, 83, 94, 108, 124, 145, 172, 215, 290];
/// A question that is not answered costs this.
const TIMEOUT_MS: u64 = 2_000;
/// Room for others' records at a node: small, so that floods are affordable to play.
const MAX_RECORDS: usize = 256;
/// Wall clock when a network begins.
const START_S: u64 = 1_800_000_000;

#[derive(Debug)]
struct Honest {
    who: Arc<Located>,
    seed: [u8; 32],
    machine: Option<Box<Discovery>>,
    dead: bool,
}

/// Who stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Honest(usize),
    Liar,
}

/// Everybody, and the time.
#[derive(Debug)]
pub(crate) struct Network {
    honest: Vec<Honest>,
    liars: Liars,
    /// All by place.
    sorted: Vec<(Key, Arc<Located>)>,
    index: BTreeMap<Key, Who>,
    random: Random,
    now: Millis,
    split: bool,
    seed: u64,
    /// What stock nodes keep: by place, record names.
    pub(super) stock: BTreeMap<Key, BTreeMap<Vec<u8>, Record>>,
}

impl Network {
    pub(crate) fn new(plan: &Plan, size: Size, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let honest: Vec<Honest> = (0..size.nodes)
            .map(|_| {
                let seed = random.bytes();
                let peer = Keypair::from_seed(&seed).public().peer_id();
                let ip = random_ip(&mut random, 0);
                let addresses = vec![Address::quic(ip, 4001)];
                let who = Located::new(Contact { peer, addresses });
                Honest { who, seed, machine: None, dead: false }
            })
            .collect();
        let mut network = Self {
            honest,
            liars: Liars::new(plan, random.fork(7)),
            sorted: Vec::new(),
            index: BTreeMap::new(),
            random,
            now: Millis(100_000_000),
            split: false,
            seed,
            stock: BTreeMap::new(),
        };
        let count = size.nodes as u64 * plan.random_percent / (100 - plan.random_percent);
        network.liars.settle(count);
        for key in 0..size.keys {
            let publication = network.publication(key);
            let place = Key::of(publication.new.name_bytes());
            network.liars.grind(&place, plan, size.nodes as u64);
            network.liars.learn(&publication);
        }
        network.sort();
        // One node's soundings, copied: everybody would come to about the same.
        let density = network.sound();
        network.honest.iter_mut().for_each(|honest| honest.machine = None);
        network.liars.density = density;
        network
    }

    fn sort(&mut self) {
        let honest = self.honest.iter().enumerate();
        self.index = honest.map(|(at, honest)| (*honest.who.key(), Who::Honest(at))).collect();
        self.index.extend(self.liars.all().map(|who| (*who.key(), Who::Liar)));
        let honest = self.honest.iter().map(|honest| &honest.who);
        let all = honest.chain(self.liars.all());
        self.sorted = all.map(|who| (*who.key(), Arc::clone(who))).collect();
        self.sorted.sort_unstable_by_key(|(key, _)| *key);
    }

    /// Lets one node estimate the size of the network.
    fn sound(&mut self) -> u128 {
        let node = self.somebody(None);
        for _ in 0..12 {
            if self.machine(node).density().wanting() == 0 {
                break;
            }
            self.drive(node, Event::Tick);
        }
        self.machine(node).density().peers().unwrap_or(self.sorted.len() as u128)
    }

    pub(crate) fn publication(&self, key: u64) -> Publication {
        let mut seed = Random::new(self.seed).fork(1_000 + key);
        let keypair = Arc::new(Keypair::from_seed(&seed.bytes()));
        let record = |sequence| {
            let times = (START_S, START_S + 40 * 3_600);
            let draft = Draft { label: b"", sequence, created_s: times.0, expires_s: times.1 };
            draft.sign(&keypair, b"somewhere").expect("within limits")
        };
        Publication { old: record(1), new: record(2), key: keypair }
    }

    /// An honest node that is there, of one half if one is asked for.
    pub(crate) fn somebody(&mut self, half: Option<u64>) -> usize {
        loop {
            let at = self.random.below(self.honest.len() as u64) as usize;
            if !self.honest[at].dead
                && half.is_none_or(|half| side(self.honest[at].who.key()) == half)
            {
                return at;
            }
        }
    }

    pub(crate) const fn set_split(&mut self, split: bool) {
        self.split = split;
    }

    pub(crate) fn kill(&mut self, percent: u64) {
        for at in 0..self.honest.len() {
            self.honest[at].dead = self.random.below(100) < percent;
        }
    }

    pub(crate) fn revive(&mut self) {
        self.honest.iter_mut().for_each(|honest| honest.dead = false);
    }

    pub(crate) fn located(&self, at: usize) -> &Arc<Located> {
        &self.honest[at].who
    }

    pub(crate) const fn now_s(&self) -> u64 {
        START_S + (self.now.0 - 100_000_000) / 1_000
    }

    /// Honest nodes that keep a record.
    pub(crate) fn keepers(&self, record: &Record) -> u64 {
        let now_s = self.now_s();
        let kept = self.honest.iter().filter(|honest| {
            let machine = honest.machine.as_ref();
            let kept = machine.and_then(|m| m.records().find(record.name_bytes(), now_s));
            kept == Some(record)
        });
        kept.count() as u64
    }

    /// The machine of an honest node, made with a converged table when first needed.
    pub(crate) fn machine(&mut self, at: usize) -> &mut Discovery {
        if self.honest[at].machine.is_none() {
            let honest = &self.honest[at];
            let config = Config { stable_ms: 0, max_records: MAX_RECORDS, stock_writes: false };
            let key = Arc::new(Keypair::from_seed(&honest.seed));
            let mut machine = Discovery::new(key, config, honest.seed, self.now);
            self.fill(&mut machine, at);
            if self.liars.density > 0 {
                (0..16).for_each(|_| machine.density_mut().add(self.liars.density));
            }
            self.honest[at].machine = Some(Box::new(machine));
        }
        self.honest[at].machine.as_mut().expect("made above")
    }

    /// Draws twenty peers a bucket from those who belong there.
    fn fill(&self, machine: &mut Discovery, at: usize) {
        let own = *self.honest[at].who.key();
        let mut random = Random::new(self.seed).fork(50_000 + at as u64);
        for bucket in 0..64 {
            let inner = subtree(&self.sorted, &own, bucket + 1);
            let outer = subtree(&self.sorted, &own, bucket);
            let others: Vec<usize> = outer.clone().filter(|at| !inner.contains(at)).collect();
            let mut order: Vec<usize> = Vec::new();
            if others.len() <= 60 {
                order = others;
                random.shuffle(&mut order);
            } else {
                let drawn: BTreeSet<u64> =
                    (0..200).map(|_| random.below(others.len() as u64)).collect();
                order.extend(drawn.into_iter().map(|drawn| others[drawn as usize]));
                random.shuffle(&mut order);
            }
            let before = machine.table().len();
            for other in order {
                if machine.table().len() - before >= 20 {
                    break;
                }
                machine.table_mut().enter(Arc::clone(&self.sorted[other].1), self.now);
            }
            if inner.len() <= 1 {
                return;
            }
        }
    }

    /// Runs one lookup of one node to its end.
    pub(crate) fn run(&mut self, at: usize, goal: Goal) -> (Trial, Outcome) {
        self.now = self.now.after(20_000);
        self.machine(at);
        self.drive(at, Event::Find(1, goal))
    }

    fn drive(&mut self, at: usize, event: Event) -> (Trial, Outcome) {
        let start = self.now;
        let from = self.honest[at].who.contact().peer;
        let ip = self.honest[at].who.contact().ip().expect("an address with a host");
        let (mut trial, mut outcome) = (Trial::default(), None);
        let mut pending = BinaryHeap::new();
        let mut met = BTreeSet::new();
        let mut answers: BTreeMap<u64, Option<Message>> = BTreeMap::new();
        let now_s = self.now_s();
        let now = self.now;
        let mut effects = self.machine(at).handle(event, now, now_s);
        loop {
            for effect in effects.drain(..) {
                match effect {
                    Effect::Call { call, to, message, .. } => {
                        trial.calls += 1;
                        let answer = self.ask(&from, ip, side_of(&self.honest[at]), &to, &message);
                        let trips = if met.insert(*to.key()) { 2 } else { 1 };
                        let answered = answer.as_ref();
                        trial.bytes += size(&message) + answered.map_or(0, size);
                        let delay = answered.map_or(TIMEOUT_MS, |_| trips * trip(&from, to.key()));
                        answers.insert(call, answer);
                        pending.push(Reverse((self.now.after(delay), call)));
                    }
                    Effect::First(..) => {
                        trial.first_ms.get_or_insert(self.now.since(start));
                    }
                    Effect::Done(_, done) => {
                        trial.done_ms = self.now.since(start);
                        outcome = Some(*done);
                    }
                    Effect::Tell(..) | Effect::Answer(..) | Effect::Ignore(_) => {}
                }
            }
            let Some(Reverse((due, call))) = pending.pop() else { break };
            self.now = self.now.max(due);
            let (now, now_s) = (self.now, self.now_s());
            let event = match answers.remove(&call).flatten() {
                Some(answer) => Event::Answered(call, answer),
                None => Event::Failed(call),
            };
            effects = self.machine(at).handle(event, now, now_s);
            effects.extend(self.machine(at).handle(Event::Tick, now, now_s));
            if outcome.is_some() {
                // What is still in flight comes back to nobody.
                break;
            }
        }
        let outcome = outcome.unwrap_or_default();
        trial.alarm = outcome.crowded;
        (trial, outcome)
    }

    /// What a peer answers, if it does.
    fn ask(
        &mut self,
        from: &PeerId,
        ip: IpAddr,
        half: u64,
        to: &Arc<Located>,
        message: &Message,
    ) -> Option<Message> {
        if self.split && side(to.key()) != half {
            return None;
        }
        match *self.index.get(to.key())? {
            Who::Liar => Some(self.liars.answer(to, message)),
            Who::Honest(other) if self.honest[other].dead => None,
            Who::Honest(other) => {
                let (now, now_s) = (self.now, self.now_s());
                let (from, message) = (*from, message.clone());
                let asked = Event::Asked { request: 0, from, ip, message };
                match self.machine(other).handle(asked, now, now_s).pop()? {
                    Effect::Answer(_, answer) => Some(answer),
                    _ => None,
                }
            }
        }
    }

    /// Who stands at a place, and whether it can be reached from another.
    pub(super) fn reach(&self, from: usize, to: &Key) -> Option<Who> {
        let split = self.split && side(to) != side(self.honest[from].who.key());
        let who = *self.index.get(to)?;
        let dead = matches!(who, Who::Honest(at) if self.honest[at].dead);
        (!split && !dead).then_some(who)
    }

    pub(super) const fn liars(&self) -> &Liars {
        &self.liars
    }

    pub(super) fn trip_ms(&self, from: usize, to: &Key) -> u64 {
        trip(&self.honest[from].who.contact().peer, to)
    }

    /// Attackers fill the stores around a key with records of their own.
    pub(crate) fn flood(&mut self, publication: &Publication, count: usize) {
        if count == 0 {
            return;
        }
        let place = Key::of(publication.new.name_bytes());
        let near: Vec<usize> = closest(&self.sorted, &place, 30)
            .iter()
            .filter_map(|who| match self.index.get(who.key()) {
                Some(Who::Honest(at)) => Some(*at),
                _ => None,
            })
            .collect();
        let junk = self.junk(&place, count);
        for (number, (key, record)) in junk.iter().enumerate() {
            let subnet = (number % 64) as u8;
            let ip = IpAddr::from([30, 1, subnet, (number / 64) as u8]);
            for at in &near {
                self.force(*at, key, record, ip);
            }
            self.now = self.now.after(200);
        }
    }

    /// Records whose names fall near a place.
    fn junk(&mut self, place: &Key, count: usize) -> Vec<(Keypair, Record)> {
        let near = closest(&self.sorted, place, 40);
        let reach = near.last().map(|who| who.key().distance(place)).expect("somebody");
        let now_s = self.now_s();
        let mut junk = Vec::new();
        let key = Keypair::from_seed(&self.random.bytes());
        while junk.len() < count {
            let label = self.random.bytes();
            let name = peerproof_discovery::record::Name::of(&key.public(), &label);
            if Key::of(&name.0).distance(place) <= reach {
                let times = (now_s, now_s + 47 * 3_600);
                let draft =
                    Draft { label: &label, sequence: 1, created_s: times.0, expires_s: times.1 };
                let record = draft.sign(&key, &[0; 100]).expect("within limits");
                junk.push((Keypair::from_seed(&key.seed()), record));
            }
        }
        junk
    }

    /// One write as a patient attacker makes it: ask for a token, then write.
    fn force(&mut self, at: usize, key: &Keypair, record: &Record, ip: IpAddr) {
        let from = key.public().peer_id();
        let (holder, now, now_s) = (Arc::clone(&self.honest[at].who), self.now, self.now_s());
        let ask = |message| Event::Asked { request: 0, from, ip, message };
        let find = ask(Message::new(Kind::FindNode, record.name_bytes()));
        let Some(Effect::Answer(_, answer)) = self.machine(at).handle(find, now, now_s).pop()
        else {
            return;
        };
        let token = answer.token.unwrap_or_default();
        let name = record.name_bytes();
        let write = Message {
            value: Some(Value { name: name.to_vec(), bytes: record.as_bytes().to_vec() }),
            token: Some(token),
            signature: Some(record.grant(key, &holder.contact().peer, &token)),
            ..Message::new(Kind::PutValue, name)
        };
        self.machine(at).handle(ask(write), now, now_s);
        let room = self.stock.entry(*holder.key()).or_default();
        if room.len() < MAX_RECORDS {
            room.insert(name.to_vec(), record.clone());
        }
    }

    /// Whether a stock node at a place keeps a record: one that is full ignores newcomers.
    pub(super) fn stock_put(&mut self, at: &Key, record: &Record) -> bool {
        let room = self.stock.entry(*at).or_default();
        let fits = room.len() < MAX_RECORDS || room.contains_key(record.name_bytes());
        if fits {
            room.insert(record.name_bytes().to_vec(), record.clone());
        }
        fits
    }

    pub(super) fn stock_closest(&mut self, at: usize, place: &Key) -> Vec<Arc<Located>> {
        self.machine(at).table().closest(place, 20)
    }
}

/// Bytes of a message on the wire, its length included.
pub(super) fn size(message: &Message) -> u64 {
    message.encode_framed().len() as u64
}

fn side(key: &Key) -> u64 {
    u64::from(key.as_bytes()[31] & 1)
}

fn side_of(honest: &Honest) -> u64 {
    side(honest.who.key())
}

fn trip(from: &PeerId, to: &Key) -> u64 {
    let at = Key::of_peer(from).distance(to).as_bytes()[30] % 16;
    ROUND_TRIPS_MS[usize::from(at)]
}

/// An address of chance, out of so many /24s; 0 is no limit.
pub(super) fn random_ip(random: &mut Random, subnets: u64) -> IpAddr {
    let subnet = if subnets == 0 { random.below(1 << 22) } else { random.below(subnets) };
    let [_, a, b, c] = (subnet as u32).to_be_bytes();
    let first = if subnets == 0 { 40 } else { 150 };
    IpAddr::from([first + a, b, c, random.between(1, 254) as u8])
}
