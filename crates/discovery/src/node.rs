//! A node's whole discovery: one machine, told what happened, saying what to do.
//!
//! [`Discovery::handle`] takes an [`Event`] and gives [`Effect`]s: questions to send,
//! answers to give, lookups that ended. It answers others from its table and its store,
//! checks each write (rate, token, record, name, time, region, permission, room, in that
//! order: cheap first), fills its table by probing peers itself, refreshes stale buckets
//! and keeps an estimate of the network's size.
//!
//! The driver owes every [`Effect::Call`] that awaits an answer exactly one
//! [`Event::Answered`] or [`Event::Failed`], within the time the effect names.
//! Absent: sockets, dialling and clocks.

mod serve;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use peerproof_identity::{Domain, Keypair, PeerId, Signature};

use crate::density::Density;
use crate::id::Key;
use crate::limits::{
    CALL_TIMEOUT_MS, MAX_LOOKUPS, MAX_PROBES, MAX_RECORDS, PROBE_TIMEOUT_MS, REFRESH_AFTER_MS,
    STABLE_MS,
};
use crate::lookup::{Goal, Lookup, Outcome};
use crate::message::{Contact, Kind, Message};
use crate::rates::Rates;
use crate::record::Record;
use crate::store::{Providers, Records};
use crate::table::{Considered, Entered, Located, Table};
use crate::{Chance, Millis};

/// Lookups of random places under way at once, for the estimate of the network's size.
const SOUNDINGS: usize = 4;
/// Names of lookups that the machine starts itself have this bit.
const INNER: u64 = 1 << 63;
/// Those of places drawn from the whole key space have this one, too: only they say how
/// large the network is.
const SOUNDING: u64 = 1 << 62;

/// What a node decides for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Answers others once it ran undisturbed for so long; 0 on networks of one's own.
    pub stable_ms: u64,
    /// Records kept for others.
    pub max_records: usize,
    /// Takes records without token and permission where the writer is connected under
    /// the publisher's own key, as stock libp2p nodes write them.
    pub stock_writes: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { stable_ms: STABLE_MS, max_records: MAX_RECORDS, stock_writes: false }
    }
}

/// What the machine is told.
#[derive(Debug)]
pub enum Event {
    /// Somebody heard of a peer.
    Heard(Contact),
    /// Look something up, under a number below 2⁶³ that the caller chose.
    Find(u64, Goal),
    /// A call was answered.
    Answered(u64, Message),
    /// A call was not answered.
    Failed(u64),
    /// A peer asks; its id is proven by the connection.
    Asked {
        /// Names the question.
        request: u64,
        /// Who asks.
        from: PeerId,
        /// From where.
        ip: IpAddr,
        /// What.
        message: Message,
    },
    /// The own addresses changed: serving waits again until it is stable.
    Disturbed,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a question.
    Call {
        /// Names the call in [`Event::Answered`] and [`Event::Failed`].
        call: u64,
        /// To whom.
        to: Arc<Located>,
        /// What.
        message: Message,
        /// Longest wait.
        timeout_ms: u64,
        /// Over a connection that this node dials now, to one of those addresses.
        fresh: bool,
    },
    /// Send a message that has no answer.
    Tell(Arc<Located>, Message),
    /// Answer a question.
    Answer(u64, Message),
    /// Leave a question unanswered and close its stream.
    Ignore(u64),
    /// A lookup found a first valid record; a newer one may follow.
    First(u64, Box<Record>),
    /// A lookup is over.
    Done(u64, Box<Outcome>),
}

#[derive(Debug)]
enum Call {
    Lookup { lookup: u64, to: Arc<Located> },
    Probe { who: Arc<Located>, nonce: [u8; 32] },
}

/// The machine.
#[derive(Debug)]
pub struct Discovery {
    key: Arc<Keypair>,
    peer: PeerId,
    config: Config,
    table: Table,
    density: Density,
    chance: Chance,
    token_seed: [u8; 32],
    records: Records,
    providers: Providers,
    lookups: BTreeMap<u64, Lookup>,
    calls: BTreeMap<u64, Call>,
    probes: BTreeMap<Key, ()>,
    next_call: u64,
    next_inner: u64,
    last_sounding: Millis,
    rates: Rates,
    stable_from: Millis,
}

impl Discovery {
    /// A node that knows nobody, with 32 bytes from a cryptographic source.
    #[must_use]
    pub fn new(key: Arc<Keypair>, config: Config, entropy: [u8; 32], now: Millis) -> Self {
        let peer = key.public().peer_id();
        let mut chance = Chance::new(entropy);
        Self {
            peer,
            table: Table::new(Key::of_peer(&peer)),
            key,
            config,
            density: Density::default(),
            token_seed: chance.bytes(),
            chance,
            records: Records::new(config.max_records),
            providers: Providers::default(),
            lookups: BTreeMap::new(),
            calls: BTreeMap::new(),
            probes: BTreeMap::new(),
            next_call: 0,
            next_inner: INNER,
            last_sounding: now,
            rates: Rates::default(),
            stable_from: now.after(config.stable_ms),
        }
    }

    /// The routing table.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// The routing table, for a driver that restores what it knew, or a simulation.
    pub const fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// The estimate of the network's size.
    #[must_use]
    pub const fn density(&self) -> &Density {
        &self.density
    }

    /// The same, for a simulation that gives it a head start.
    pub const fn density_mut(&mut self) -> &mut Density {
        &mut self.density
    }

    /// Records kept for others.
    #[must_use]
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// Takes an event; `now_s` is the wall clock in seconds since 1970.
    pub fn handle(&mut self, event: Event, now: Millis, now_s: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Heard(contact) => self.hear(&Located::new(contact), &mut effects),
            Event::Find(name, goal) => self.find(name, goal, now, now_s, &mut effects),
            Event::Answered(call, message) => {
                self.answered(call, &message, now, now_s, &mut effects);
            }
            Event::Failed(call) => self.failed(call, now, &mut effects),
            Event::Asked { request, from, ip, message } => {
                effects.push(self.serve(request, &from, ip, &message, now, now_s));
            }
            Event::Disturbed => self.stable_from = now.after(self.config.stable_ms),
            Event::Tick => self.tick(now, now_s, &mut effects),
        }
        effects
    }

    /// When to send [`Event::Tick`] at the latest.
    #[must_use]
    pub fn next_wake(&self, now: Millis) -> Millis {
        let lookups = self.lookups.values().map(|lookup| lookup.next_wake(now));
        let refresh = self.table.next_refresh();
        let upkeep = now.after(REFRESH_AFTER_MS.min(60_000));
        lookups.chain(refresh).chain([upkeep]).min().unwrap_or(upkeep)
    }

    fn hear(&mut self, who: &Arc<Located>, effects: &mut Vec<Effect>) {
        if self.table.consider(who) == Considered::Probe {
            self.probe(who, effects);
        }
    }

    fn probe(&mut self, who: &Arc<Located>, effects: &mut Vec<Effect>) {
        if self.probes.len() >= MAX_PROBES || self.probes.contains_key(who.key()) {
            return;
        }
        self.probes.insert(*who.key(), ());
        let nonce = self.chance.bytes();
        let call = self.new_call(Call::Probe { who: Arc::clone(who), nonce });
        let message = Message { nonce: Some(nonce), ..Message::new(Kind::Ping, &[]) };
        let (to, timeout_ms) = (Arc::clone(who), PROBE_TIMEOUT_MS);
        effects.push(Effect::Call { call, to, message, timeout_ms, fresh: true });
    }

    fn new_call(&mut self, call: Call) -> u64 {
        self.next_call += 1;
        self.calls.insert(self.next_call, call);
        self.next_call
    }

    fn find(&mut self, name: u64, goal: Goal, now: Millis, now_s: u64, effects: &mut Vec<Effect>) {
        if self.lookups.len() >= MAX_LOOKUPS || self.lookups.contains_key(&name) {
            effects.push(Effect::Done(name, Box::default()));
            return;
        }
        if let Goal::Put(record, _) = &goal
            && self.keeps(&Key::of(record.name_bytes()))
        {
            // Readers ask this node, too; a newer record here is theirs to judge.
            let _ = self.records.put((**record).clone(), IpAddr::from([127, 0, 0, 1]), now_s);
        }
        let kept = match &goal {
            Goal::Get(record) => self.records.find(record, now_s).cloned(),
            _ => None,
        };
        let region = self.density.region();
        let mut lookup = Lookup::new(goal, &self.table, region, &mut self.chance, now);
        if let Some(record) = kept {
            effects.push(Effect::First(name, Box::new(record.clone())));
            lookup.know(record);
        }
        self.lookups.insert(name, lookup);
        self.poll(name, now, effects);
    }

    /// Sends what a lookup wants sent, and ends it if it is over.
    fn poll(&mut self, name: u64, now: Millis, effects: &mut Vec<Effect>) {
        let Some(lookup) = self.lookups.get_mut(&name) else { return };
        let asks = lookup.poll(&self.table, &mut self.chance, now);
        let over = lookup.is_over(now);
        for ask in asks {
            if !ask.answered {
                effects.push(Effect::Tell(ask.to, ask.message));
                continue;
            }
            let call = self.new_call(Call::Lookup { lookup: name, to: Arc::clone(&ask.to) });
            let (to, message, timeout_ms) = (ask.to, ask.message, CALL_TIMEOUT_MS);
            effects.push(Effect::Call { call, to, message, timeout_ms, fresh: false });
        }
        if over && let Some(lookup) = self.lookups.remove(&name) {
            let outcome = lookup.finish();
            if name & INNER == 0 {
                effects.push(Effect::Done(name, Box::new(outcome)));
            } else if name & SOUNDING != 0 {
                self.density.learn(outcome.paths.iter());
            }
        }
    }

    fn answered(
        &mut self,
        call: u64,
        message: &Message,
        now: Millis,
        now_s: u64,
        effects: &mut Vec<Effect>,
    ) {
        match self.calls.remove(&call) {
            None => {}
            Some(Call::Probe { who, nonce }) => {
                self.probes.remove(who.key());
                if self.proves(&who, &nonce, message) {
                    if let Entered::Test(oldest) = self.table.enter(who, now) {
                        self.probe(&oldest, effects);
                    }
                } else {
                    self.table.failed(who.key(), now);
                }
            }
            Some(Call::Lookup { lookup: name, to }) => {
                self.table.seen(to.key(), now);
                if !message.refused && self.table.has_room(&to) {
                    self.hear(&to, effects);
                }
                let Some(lookup) = self.lookups.get_mut(&name) else { return };
                let closer: Vec<Arc<Located>> =
                    message.closer.iter().cloned().map(Located::new).collect();
                let had = lookup.record().is_some();
                lookup.answered(to.key(), message, &closer, &mut self.chance, now_s);
                if let (false, Some(record)) = (had, lookup.record()) {
                    effects.push(Effect::First(name, Box::new(record.clone())));
                }
                self.poll(name, now, effects);
            }
        }
    }

    fn failed(&mut self, call: u64, now: Millis, effects: &mut Vec<Effect>) {
        match self.calls.remove(&call) {
            None => {}
            Some(Call::Probe { who, .. }) => {
                self.probes.remove(who.key());
                self.table.failed(who.key(), now);
            }
            Some(Call::Lookup { lookup: name, to }) => {
                self.table.failed(to.key(), now);
                if let Some(lookup) = self.lookups.get_mut(&name) {
                    lookup.failed(to.key());
                }
                self.poll(name, now, effects);
            }
        }
    }

    /// Whether an answer to a probe is signed by the peer, over our nonce and our name.
    fn proves(&self, who: &Located, nonce: &[u8; 32], message: &Message) -> bool {
        let signature = message.signature.and_then(|bytes| Signature::from_bytes(&bytes).ok());
        let key = who.contact().peer.public_key();
        signature.is_some_and(|signature| {
            key.verify(Domain::Probe, &probed(nonce, &self.peer), &signature).is_ok()
        })
    }

    fn tick(&mut self, now: Millis, now_s: u64, effects: &mut Vec<Effect>) {
        self.records.expire(now_s);
        self.providers.expire(now);
        if !self.table.is_empty() {
            self.sound(now, effects);
            while let Some(place) = self.table.refresh(now, &mut self.chance) {
                self.start_inner(place, 0, now, effects);
            }
        }
        let names: Vec<u64> = self.lookups.keys().copied().collect();
        names.into_iter().for_each(|name| self.poll(name, now, effects));
    }

    /// Looks up random places while the estimate lacks samples, and one an hour after.
    fn sound(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let under_way = self.lookups.range(INNER | SOUNDING..).count();
        let due = now.since(self.last_sounding) >= REFRESH_AFTER_MS;
        let wanting = self.density.wanting().max(usize::from(due));
        for _ in under_way..wanting.min(SOUNDINGS) {
            self.last_sounding = now;
            let place = Key::from_bytes(self.chance.bytes());
            self.start_inner(place, SOUNDING, now, effects);
        }
    }

    fn start_inner(&mut self, place: Key, kind: u64, now: Millis, effects: &mut Vec<Effect>) {
        if self.lookups.len() >= MAX_LOOKUPS {
            return;
        }
        self.next_inner += 1;
        let name = self.next_inner | kind;
        let region = self.density.region();
        let goal = Goal::Locate(place);
        let lookup = Lookup::new(goal, &self.table, region, &mut self.chance, now);
        self.lookups.insert(name, lookup);
        self.poll(name, now, effects);
    }
}

/// What the answer to a probe signs: the nonce, and who sent it.
fn probed(nonce: &[u8; 32], asker: &PeerId) -> Vec<u8> {
    let mut bytes = nonce.to_vec();
    bytes.extend_from_slice(&asker.to_bytes());
    bytes
}

#[cfg(test)]
mod tests;
