//! The address book: where peers may be, and which of those places this node
//! has been to.
//!
//! Two tables, as Bitcoin Core keeps them (Heilman, Kendler, Zohar & Goldberg,
//! "Eclipse attacks on Bitcoin's peer-to-peer network", USENIX Security 2015):
//! 1,024 buckets of 64 for what others say, 256 of 64 for what answered. Which
//! bucket and slot is a keyed hash of the address, of its [`Group`] and of the
//! group it was heard from, so nobody outside can aim at a slot: all that a
//! group says lands in 64 buckets, and all that is in a group in 8. A slot that
//! is taken stays taken as long as its occupant is any good; before an occupant
//! of the second table gives way it is called once more (test before evict).
//!
//! The book is told what was heard ([`AddressBook::learn`]) and how calls went
//! ([`AddressBook::connected`], [`AddressBook::failed`]); it says whom to call
//! ([`AddressBook::pick`]) and whom to try out ([`AddressBook::feeler`], every
//! two minutes). Two anchors, peers that were connected last, come first after a
//! restart. The whole book goes through `codec` into bytes and back.
//!
//! An [`Endpoint`] is the key, not a peer: whoever knows an address may claim
//! any key for it, and the handshake tells the truth. A machine may say any
//! number of ports, so the book holds two endpoints a public host.
//!
//! Absent on purpose: names; disks and clocks; connections; which peers share
//! their addresses with whom.

mod codec;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use peerproof_identity::PeerId;

use crate::places::{AsnMap, Group, Host, Policy, Reach, group_by};
use crate::rates::{Buckets, Pace};
use crate::{Chance, Millis};

pub use codec::BookError;
use tables::{Home, Tables};

/// Buckets of what others say.
pub const NEW_BUCKETS: usize = 1024;
/// Buckets of what has answered.
pub const TRIED_BUCKETS: usize = 256;
/// Places in a bucket.
pub const BUCKET_SLOTS: usize = 64;
/// Buckets of the first table that one group's word can reach.
pub const NEW_BUCKETS_PER_SOURCE: u64 = 64;
/// Buckets of the second table that one group's addresses can reach.
pub const TRIED_BUCKETS_PER_GROUP: u64 = 8;
/// Endpoints of one public host.
pub const MAX_PER_HOST: usize = 2;
/// Peers whose intake is counted at once.
const MAX_SOURCES: usize = 4096;
/// Addresses taken from one peer: one in ten seconds, and a thousand at once.
const INTAKE: Pace = Pace::every(1, 10_000_000, 1000);
/// Pause between two calls that only try an address out.
pub const FEELER_PAUSE_MS: u64 = 120_000;
/// Newcomers to the second table that wait for their occupant's last call.
pub const MAX_TESTS: usize = 16;
/// An occupant that answered this lately stays without a call.
const FRESH_S: u64 = 4 * 3600;
/// A test that nobody got to is given up in the newcomer's favour.
const TEST_PATIENCE_S: u64 = 40 * 60;
/// What was not heard of for so long is forgotten when its slot is wanted.
const STALE_S: u64 = 30 * 24 * 3600;
/// What failed so often and never answered is no good.
const FAILURES_WITHOUT_SUCCESS: u8 = 3;
/// What failed so often since it last answered, and that more than a week ago, isn't either.
const FAILURES: u8 = 10;
const WEEK_S: u64 = 7 * 24 * 3600;
/// Draws until the book says that it has nobody.
const MAX_DRAWS: usize = 512;
/// Peers that are called first after a restart.
pub const ANCHORS: usize = 2;

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// QUIC v1 over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
}

/// A place where a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// The transport.
    pub carrier: Carrier,
}

impl Endpoint {
    fn to_bytes(self) -> [u8; 19] {
        let mut bytes = [0; 19];
        let ip = match self.ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..18].copy_from_slice(&self.port.to_be_bytes());
        bytes[18] = u8::from(self.carrier == Carrier::Tcp);
        bytes
    }
}

/// The time, twice: one that only goes forward, and one that means the same
/// after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic.
    pub now: Millis,
    /// Seconds since 1970, as the machine believes.
    pub unix_s: u64,
}

/// What the book knows of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Who answered there last.
    peer: Option<PeerId>,
    /// Where it was first heard of.
    source: Group,
    /// When it was last heard of.
    seen_s: u64,
    /// When it last answered; 0 for never.
    answered_s: u64,
    /// When it was last called; 0 for never.
    called_s: u64,
    /// Calls that failed since it last answered.
    failures: u8,
    home: Home,
}

impl Entry {
    /// Whether its slot is free for another. What was called in the last minute
    /// is left alone: the call may be under way.
    fn is_spent(&self, unix_s: u64) -> bool {
        if self.called_s > 0 && unix_s.saturating_sub(self.called_s) < 60 {
            return false;
        }
        let from_the_future = self.seen_s > unix_s.saturating_add(600);
        let stale = unix_s.saturating_sub(self.seen_s) > STALE_S;
        let never = self.answered_s == 0 && self.failures >= FAILURES_WITHOUT_SUCCESS;
        let gone = self.failures >= FAILURES && unix_s.saturating_sub(self.answered_s) > WEEK_S;
        from_the_future || stale || never || gone
    }

    /// How likely it is chosen when it is drawn, in 1/1000.
    fn weight(&self, unix_s: u64) -> usize {
        let rested = self.called_s == 0 || unix_s.saturating_sub(self.called_s) >= 600;
        let base = if rested { 1000 } else { 10 };
        (0..self.failures.min(8)).fold(base, |weight, _| weight * 2 / 3).max(1)
    }
}

/// What became of an address somebody told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It is in the book.
    Taken,
    /// It was already.
    Known,
    /// Its slot has an occupant that is still good.
    NoRoom,
    /// Its host has as many endpoints here as one host gets.
    HostFull,
    /// Its teller has told enough for now.
    TooMany,
    /// It can't be reached from here, or this node wants none of its kind.
    Unwanted,
}

/// Whom to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Where.
    pub endpoint: Endpoint,
    /// Who answered there last, if anybody did.
    pub peer: Option<PeerId>,
    /// Whether it has ever answered.
    pub tried: bool,
}

/// A newcomer that waits for an occupant of the second table to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Test {
    newcomer: Endpoint,
    occupant: Endpoint,
    since_s: u64,
}

/// The book.
///
/// ```
/// use std::sync::Arc;
/// use peerproof_discovery::Chance;
/// use peerproof_discovery::addresses::{AddressBook, Carrier, Endpoint, Intake, Moment};
/// use peerproof_discovery::places::{NoAsnMap, Policy};
/// # use peerproof_identity::Keypair;
///
/// let mut book = AddressBook::new([1; 32], Chance::new([2; 32]), Policy::INTERNET, Arc::new(NoAsnMap));
/// let endpoint = Endpoint { ip: [8, 8, 8, 8].into(), port: 4001, carrier: Carrier::Quic };
/// let (teller, at) = (Keypair::from_seed(&[3; 32]).public().peer_id(), Moment::default());
/// assert_eq!(book.learn(endpoint, teller, [9, 9, 9, 9].into(), at), Intake::Taken);
/// assert_eq!(book.pick(at, &mut |_| true).map(|pick| pick.endpoint), Some(endpoint));
/// ```
pub struct AddressBook {
    secret: [u8; 32],
    chance: Chance,
    policy: Policy,
    asn: Arc<dyn AsnMap + Send + Sync>,
    entries: BTreeMap<Endpoint, Entry>,
    hosts: BTreeMap<Host, usize>,
    tables: Tables,
    intake: Buckets<PeerId>,
    tests: VecDeque<Test>,
    last_feeler: Option<Millis>,
    anchors: Vec<Endpoint>,
}

impl std::fmt::Debug for AddressBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (new, tried) = self.sizes();
        f.debug_struct("AddressBook").field("new", &new).field("tried", &tried).finish()
    }
}

impl AddressBook {
    /// An empty book. The secret decides the places in it and is drawn once, for
    /// as long as the book lives.
    #[must_use]
    pub fn new(
        secret: [u8; 32],
        chance: Chance,
        policy: Policy,
        asn: Arc<dyn AsnMap + Send + Sync>,
    ) -> Self {
        Self {
            secret,
            chance,
            policy,
            asn,
            entries: BTreeMap::new(),
            hosts: BTreeMap::new(),
            tables: Tables::new(),
            intake: Buckets::new(MAX_SOURCES),
            tests: VecDeque::new(),
            last_feeler: None,
            anchors: Vec::new(),
        }
    }

    /// Endpoints heard of, and endpoints that have answered.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.tables.sizes()
    }

    /// The group of an address.
    #[must_use]
    pub fn group(&self, ip: IpAddr) -> Group {
        group_by(&*self.asn, ip)
    }

    /// A peer that is met at `from` tells of an endpoint.
    pub fn learn(
        &mut self,
        endpoint: Endpoint,
        teller: PeerId,
        from: IpAddr,
        at: Moment,
    ) -> Intake {
        let wanted = endpoint.port != 0 && self.policy.takes(endpoint.ip);
        if !wanted {
            return Intake::Unwanted;
        }
        if self.intake.take(teller, INTAKE, at.now).is_err() {
            return Intake::TooMany;
        }
        let source = self.group(from);
        self.take_in(endpoint, source, at)
    }

    /// An endpoint from the operator or a registry, by no pace.
    pub fn seed(&mut self, endpoint: Endpoint, at: Moment) -> Intake {
        if endpoint.port == 0 || !self.policy.takes(endpoint.ip) {
            return Intake::Unwanted;
        }
        let source = self.group(endpoint.ip);
        self.take_in(endpoint, source, at)
    }

    fn take_in(&mut self, endpoint: Endpoint, source: Group, at: Moment) -> Intake {
        let endpoint = Endpoint { ip: endpoint.ip.to_canonical(), ..endpoint };
        if let Some(entry) = self.entries.get_mut(&endpoint) {
            entry.seen_s = at.unix_s;
            return Intake::Known;
        }
        if self.is_host_full(endpoint.ip) {
            return Intake::HostFull;
        }
        let slot = self.new_slot(&endpoint, source);
        if let Some(occupant) = self.tables.at(slot) {
            if self.entries.get(&occupant).is_some_and(|entry| !entry.is_spent(at.unix_s)) {
                return Intake::NoRoom;
            }
            self.forget(&occupant);
        }
        self.put(
            endpoint,
            Entry {
                peer: None,
                source,
                seen_s: at.unix_s,
                answered_s: 0,
                called_s: 0,
                failures: 0,
                home: slot,
            },
        );
        Intake::Taken
    }

    fn is_host_full(&self, ip: IpAddr) -> bool {
        Reach::of(ip) == Reach::Public
            && self.hosts.get(&Host::of(ip)).is_some_and(|count| *count >= MAX_PER_HOST)
    }

    fn put(&mut self, endpoint: Endpoint, entry: Entry) {
        self.tables.set(entry.home, Some(endpoint));
        *self.hosts.entry(Host::of(endpoint.ip)).or_default() += 1;
        self.entries.insert(endpoint, entry);
    }

    fn forget(&mut self, endpoint: &Endpoint) -> Option<Entry> {
        let entry = self.entries.remove(endpoint)?;
        self.tables.set(entry.home, None);
        let host = Host::of(endpoint.ip);
        if let Some(count) = self.hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
        Some(entry)
    }

    /// This node called there, and a peer proved its key.
    pub fn connected(&mut self, endpoint: Endpoint, peer: PeerId, at: Moment) {
        let endpoint = Endpoint { ip: endpoint.ip.to_canonical(), ..endpoint };
        if !self.entries.contains_key(&endpoint) {
            // Known from elsewhere: it is worth a place if there is one.
            self.seed(endpoint, at);
        }
        let Some(entry) = self.entries.get_mut(&endpoint) else { return };
        entry.peer = Some(peer);
        (entry.seen_s, entry.answered_s, entry.called_s) = (at.unix_s, at.unix_s, at.unix_s);
        entry.failures = 0;
        if !entry.home.is_tried() {
            self.promote(endpoint, at);
        }
    }

    /// This node called there, and nobody answered.
    pub fn failed(&mut self, endpoint: Endpoint, at: Moment) {
        let endpoint = Endpoint { ip: endpoint.ip.to_canonical(), ..endpoint };
        if let Some(entry) = self.entries.get_mut(&endpoint) {
            entry.called_s = at.unix_s;
            entry.failures = entry.failures.saturating_add(1);
        }
    }

    /// Moves an endpoint that answered to the second table, or has the occupant
    /// of its slot tested.
    fn promote(&mut self, endpoint: Endpoint, at: Moment) {
        let slot = self.tried_slot(&endpoint);
        let Some(occupant) = self.tables.at(slot) else {
            self.settle(endpoint, slot);
            return;
        };
        let waits = self.tests.iter().any(|test| test.newcomer == endpoint);
        if !waits && self.tests.len() < MAX_TESTS {
            self.tests.push_back(Test { newcomer: endpoint, occupant, since_s: at.unix_s });
        }
    }

    fn settle(&mut self, endpoint: Endpoint, slot: Home) {
        if let Some(entry) = self.forget(&endpoint) {
            self.put(endpoint, Entry { home: slot, ..entry });
        }
    }

    /// Decides the tests whose occupant has been called, or can't be.
    fn resolve_tests(&mut self, at: Moment) {
        for _ in 0..self.tests.len() {
            let Some(test) = self.tests.pop_front() else { return };
            let slot = self.tried_slot(&test.newcomer);
            let newcomer = self.entries.get(&test.newcomer);
            if newcomer.is_none_or(|entry| entry.home.is_tried()) {
                continue;
            }
            let Some(occupant) = self.tables.at(slot).and_then(|o| self.entries.get(&o)) else {
                self.settle(test.newcomer, slot);
                continue;
            };
            if at.unix_s.saturating_sub(occupant.answered_s) < FRESH_S {
                continue;
            }
            let called = occupant.called_s >= test.since_s && occupant.failures > 0;
            if called || at.unix_s.saturating_sub(test.since_s) > TEST_PATIENCE_S {
                self.replace(test.occupant, test.newcomer, slot);
            } else {
                self.tests.push_back(test);
            }
        }
    }

    /// The occupant goes back among what was only heard of.
    fn replace(&mut self, occupant: Endpoint, newcomer: Endpoint, slot: Home) {
        if let Some(entry) = self.forget(&occupant) {
            let back = self.new_slot(&occupant, entry.source);
            if let Some(other) = self.tables.at(back).filter(|other| *other != newcomer) {
                self.forget(&other);
            }
            self.settle(newcomer, slot);
            if self.tables.at(back).is_none() {
                self.put(occupant, Entry { home: back, ..entry });
            }
        } else {
            self.settle(newcomer, slot);
        }
    }

    /// Somebody to try out, if the last one was two minutes ago: an occupant that
    /// is tested, else somebody that was only heard of. How the call went comes
    /// back by [`AddressBook::connected`] or [`AddressBook::failed`]; the
    /// connection itself is of no further use.
    pub fn feeler(&mut self, at: Moment) -> Option<Pick> {
        let due = self.last_feeler.is_none_or(|last| at.now.since(last) >= FEELER_PAUSE_MS);
        if !due {
            return None;
        }
        self.resolve_tests(at);
        let tested = self.tests.front().map(|test| test.occupant);
        let pick = match tested {
            Some(occupant) => self.entries.get(&occupant).map(|entry| Pick {
                endpoint: occupant,
                peer: entry.peer,
                tried: true,
            }),
            None => self.draw(at, false, &mut |_| true),
        };
        if pick.is_some() {
            self.last_feeler = Some(at.now);
        }
        pick
    }

    /// Somebody to connect to, whom `accept` does not refuse: from either table
    /// with the same chance, from each bucket with the same chance.
    pub fn pick(&mut self, at: Moment, accept: &mut dyn FnMut(&Endpoint) -> bool) -> Option<Pick> {
        let (new, tried) = self.sizes();
        let from_tried = tried > 0 && (new == 0 || self.chance.one_in(2));
        let first = self.draw(at, from_tried, accept);
        first.or_else(|| self.draw(at, !from_tried, accept))
    }

    fn draw(
        &mut self,
        at: Moment,
        tried: bool,
        accept: &mut dyn FnMut(&Endpoint) -> bool,
    ) -> Option<Pick> {
        for round in 0..MAX_DRAWS {
            let endpoint = self.tables.draw(tried, &mut self.chance)?;
            let Some(entry) = self.entries.get(&endpoint) else { continue };
            // The longer nobody suits, the less is asked.
            let weight = entry.weight(at.unix_s).saturating_mul(1 + round / 8);
            if accept(&endpoint) && self.chance.below(1000) < weight {
                let tried = entry.home.is_tried();
                return Some(Pick { endpoint, peer: entry.peer, tried });
            }
        }
        None
    }

    /// Who is connected longest: to be called first after a restart.
    pub fn set_anchors(&mut self, anchors: &[Endpoint]) {
        self.anchors = anchors.iter().copied().take(ANCHORS).collect();
    }

    /// Whom to call first after a restart.
    #[must_use]
    pub fn anchors(&self) -> &[Endpoint] {
        &self.anchors
    }

    /// Somebody for each of `wanted` connections, anchors first, each in a group
    /// of its own as far as there are groups.
    pub fn draw_outbound(&mut self, wanted: usize, at: Moment) -> Vec<Pick> {
        let mut groups: Vec<Group> = Vec::new();
        let mut picks: Vec<Pick> = Vec::new();
        for endpoint in self.anchors.clone() {
            let group = self.group(endpoint.ip);
            if picks.len() < wanted && !groups.contains(&group) {
                groups.push(group);
                let entry = self.entries.get(&endpoint);
                let (peer, tried) = (entry.and_then(|entry| entry.peer), entry.is_some());
                picks.push(Pick { endpoint, peer, tried });
            }
        }
        let asn = Arc::clone(&self.asn);
        while picks.len() < wanted {
            let fresh = |endpoint: &Endpoint| !groups.contains(&group_by(&*asn, endpoint.ip));
            let Some(pick) = self.pick(at, &mut { fresh }) else { break };
            groups.push(self.group(pick.endpoint.ip));
            picks.push(pick);
        }
        picks
    }

    fn number(&self, purpose: u8, parts: &[&[u8]]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&[purpose]);
        for part in parts {
            hasher.update(part);
        }
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// What an endpoint shares its buckets with: its group. On one machine and
    /// one private network all nodes are in one group; whoever takes their
    /// addresses at all wants each of them, so there each is its own.
    fn area(&self, endpoint: &Endpoint) -> [u8; 19] {
        if Reach::of(endpoint.ip) != Reach::Public {
            return endpoint.to_bytes();
        }
        let mut area = [0; 19];
        area[..5].copy_from_slice(&self.group(endpoint.ip).to_bytes());
        area
    }

    /// Where an endpoint goes that a group tells of.
    fn new_slot(&self, endpoint: &Endpoint, source: Group) -> Home {
        let (group, source) = (self.area(endpoint), source.to_bytes());
        let share = self.number(0, &[&group, &source]) % NEW_BUCKETS_PER_SOURCE;
        let bucket = self.number(1, &[&source, &share.to_le_bytes()]) % NEW_BUCKETS as u64;
        let place = self.number(2, &[&bucket.to_le_bytes(), &endpoint.to_bytes()]);
        Home::new_at(bucket as usize, (place % BUCKET_SLOTS as u64) as usize)
    }

    /// Where an endpoint goes that has answered.
    fn tried_slot(&self, endpoint: &Endpoint) -> Home {
        let (group, bytes) = (self.area(endpoint), endpoint.to_bytes());
        let share = self.number(3, &[&bytes]) % TRIED_BUCKETS_PER_GROUP;
        let bucket = self.number(4, &[&group, &share.to_le_bytes()]) % TRIED_BUCKETS as u64;
        let place = self.number(5, &[&bucket.to_le_bytes(), &bytes]);
        Home::tried_at(bucket as usize, (place % BUCKET_SLOTS as u64) as usize)
    }
}
