//! The other side of registrars: advertising, and searching.
//!
//! Both work over [`Classes`]: the nodes that are known, sorted by their distance
//! to the topic into [`BUCKETS`] classes. An [`Advertiser`] keeps [`K_REGISTER`]
//! registrations in each class and carries their tickets back in time; a
//! [`Search`] asks up to [`K_LOOKUP`] of each class, from the far classes, of which
//! nobody can own much, to the near ones, and rests at [`F_LOOKUP`] advertisers.
//! Colluding registrars can name thirty of their own, all signed; whoever finds
//! them worthless has the search go on ([`Search::go_on`]).
//! An answer counts only as far as its signatures do.
//!
//! Absent on purpose: how nodes of a class are found, and sending.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use peerproof_identity::{PeerId, PublicKey};

use super::advert::{Advert, Query};
use super::registrar::{Answer, TICKET_BYTES};
use super::{BUCKETS, EXPIRY_MS, F_LOOKUP, F_RETURN, K_LOOKUP, K_REGISTER, Topic, WINDOW_MS};
use crate::id::Key;
use crate::subnet::Subnet;
use crate::{Chance, Millis};

/// Nodes kept of one class.
pub const CLASS_NODES: usize = 20;
/// Of those, nodes of one /24 or /48.
pub const CLASS_SUBNET_NODES: usize = 2;
/// A registrar that does not answer is asked again after this long.
const SILENT_MS: u64 = 60_000;
/// How often a registrar may be silent before another one is asked.
const MAX_SILENCES: u8 = 2;

/// Nodes by their distance to a topic.
#[derive(Clone, Debug)]
pub struct Classes {
    topic: Topic,
    nodes: Vec<Vec<(PeerId, Option<Subnet>)>>,
}

impl Classes {
    /// None yet.
    #[must_use]
    pub fn new(topic: Topic) -> Self {
        Self { topic, nodes: vec![Vec::new(); BUCKETS] }
    }

    /// Takes in a node that was met at an address; says whether there was room.
    pub fn learn(&mut self, peer: PeerId, at: Option<IpAddr>) -> bool {
        let bucket = self.topic.bucket(&Key::of_peer(&peer));
        let Some(class) = self.nodes.get_mut(bucket) else { return false };
        let subnet = at.map(Subnet::of);
        let neighbours = class.iter().filter(|(_, s)| s.is_some() && *s == subnet).count();
        let room = class.len() < CLASS_NODES && neighbours < CLASS_SUBNET_NODES;
        if !room || class.iter().any(|(known, _)| *known == peer) {
            return false;
        }
        class.push((peer, subnet));
        true
    }

    /// A node that is of no use makes room.
    pub fn forget(&mut self, peer: &PeerId) {
        let bucket = self.topic.bucket(&Key::of_peer(peer));
        if let Some(class) = self.nodes.get_mut(bucket) {
            class.retain(|(known, _)| known != peer);
        }
    }

    /// Nodes of a class.
    #[must_use]
    pub fn held(&self, bucket: usize) -> usize {
        self.nodes.get(bucket).map_or(0, Vec::len)
    }

    /// Some node of a class that `suits`.
    fn draw(
        &self,
        bucket: usize,
        chance: &mut Chance,
        suits: impl Fn(&PeerId) -> bool,
    ) -> Option<PeerId> {
        let class = self.nodes.get(bucket)?;
        let suiting: Vec<PeerId> =
            class.iter().map(|(peer, _)| *peer).filter(|peer| suits(peer)).collect();
        suiting.get(chance.below(suiting.len())).copied()
    }
}

/// Ask a registrar, with the ticket it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whom.
    pub registrar: PeerId,
    /// What it gave last.
    pub ticket: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// It was asked and has not answered.
    Asked,
    /// It is to be asked from then on, with this ticket.
    Waits { from: Millis, ticket: Vec<u8> },
    /// It has the advertisement until then.
    Holds { until: Millis },
    /// It was silent and is asked again then.
    Silent { from: Millis },
}

#[derive(Clone, Debug)]
struct Registration {
    bucket: usize,
    phase: Phase,
    silences: u8,
}

/// Keeps an advertisement at registrars of every class.
#[derive(Debug)]
pub struct Advertiser {
    classes: Classes,
    registrations: BTreeMap<PeerId, Registration>,
    chance: Chance,
}

impl Advertiser {
    /// Nowhere yet.
    #[must_use]
    pub fn new(topic: Topic, chance: Chance) -> Self {
        Self { classes: Classes::new(topic), registrations: BTreeMap::new(), chance }
    }

    /// The nodes it knows.
    pub const fn classes(&mut self) -> &mut Classes {
        &mut self.classes
    }

    /// Registrars that hold the advertisement now.
    #[must_use]
    pub fn registered(&self, now: Millis) -> usize {
        let holds = |r: &&Registration| matches!(r.phase, Phase::Holds { until } if until > now);
        self.registrations.values().filter(holds).count()
    }

    /// Whom to ask now. Each is owed one [`Advertiser::answered`] or
    /// [`Advertiser::failed`].
    pub fn due(&mut self, now: Millis) -> Vec<Ask> {
        self.registrations.retain(
            |_, registration| !matches!(registration.phase, Phase::Holds { until } if until <= now),
        );
        let mut asks = Vec::new();
        for (peer, registration) in &mut self.registrations {
            let ticket = match &registration.phase {
                Phase::Waits { from, ticket } if *from <= now => {
                    // Past its window a ticket only costs bytes.
                    let fresh = now.since(*from) <= WINDOW_MS;
                    fresh.then(|| ticket.clone())
                }
                Phase::Silent { from } if *from <= now => None,
                _ => continue,
            };
            registration.phase = Phase::Asked;
            asks.push(Ask { registrar: *peer, ticket });
        }
        for bucket in 0..BUCKETS {
            let placed = self.registrations.values().filter(|r| r.bucket == bucket).count();
            for _ in placed..K_REGISTER {
                let known = &self.registrations;
                let fresh = |peer: &PeerId| !known.contains_key(peer);
                let Some(peer) = self.classes.draw(bucket, &mut self.chance, fresh) else { break };
                let phase = Phase::Asked;
                self.registrations.insert(peer, Registration { bucket, phase, silences: 0 });
                asks.push(Ask { registrar: peer, ticket: None });
            }
        }
        asks
    }

    /// When [`Advertiser::due`] has something next.
    #[must_use]
    pub fn next(&self) -> Option<Millis> {
        let times = self.registrations.values().filter_map(|r| match r.phase {
            Phase::Asked => None,
            Phase::Waits { from, .. } | Phase::Silent { from } => Some(from),
            Phase::Holds { until } => Some(until),
        });
        times.min()
    }

    /// A registrar answered. What it says of times is cut to what it may say.
    pub fn answered(&mut self, registrar: &PeerId, answer: Answer, now: Millis) {
        let Some(registration) = self.registrations.get_mut(registrar) else { return };
        registration.silences = 0;
        registration.phase = match answer {
            Answer::Registered { for_ms } => {
                Phase::Holds { until: now.after(for_ms.clamp(1_000, EXPIRY_MS)) }
            }
            Answer::Wait { ticket, wait_ms } if ticket.len() <= 4 * TICKET_BYTES => {
                Phase::Waits { from: now.after(wait_ms.min(EXPIRY_MS)), ticket }
            }
            Answer::Wait { .. } => Phase::Silent { from: now.after(SILENT_MS) },
        };
    }

    /// A registrar refused, or was silent: another one of its class gets the
    /// turn, at once if it refused.
    pub fn failed(&mut self, registrar: &PeerId, refused: bool, now: Millis) {
        let Some(registration) = self.registrations.get_mut(registrar) else { return };
        registration.silences += 1;
        if refused || registration.silences >= MAX_SILENCES {
            self.registrations.remove(registrar);
            self.classes.forget(registrar);
        } else {
            registration.phase = Phase::Silent { from: now.after(SILENT_MS) };
        }
    }
}

/// Looks for advertisers of a topic that suit a query.
#[derive(Debug)]
pub struct Search {
    classes: Classes,
    query: Query,
    chance: Chance,
    bucket: usize,
    asked: BTreeSet<PeerId>,
    asked_here: usize,
    awaited: BTreeSet<PeerId>,
    found: BTreeMap<PublicKey, Advert>,
    /// Rests at so many.
    wanted: usize,
    /// Answers that held something unsigned, over, or not asked for.
    false_answers: usize,
}

impl Search {
    /// Begins at the far end.
    #[must_use]
    pub fn new(classes: Classes, query: Query, chance: Chance) -> Self {
        Self {
            classes,
            query,
            chance,
            bucket: 0,
            asked: BTreeSet::new(),
            asked_here: 0,
            awaited: BTreeSet::new(),
            found: BTreeMap::new(),
            wanted: F_LOOKUP,
            false_answers: 0,
        }
    }

    /// The nodes it knows; more may be learnt on the way.
    pub const fn classes(&mut self) -> &mut Classes {
        &mut self.classes
    }

    /// Whom to ask next; at most `parallel` are awaited at once. Each is owed one
    /// [`Search::answered`] or [`Search::failed`].
    pub fn due(&mut self, parallel: usize) -> Vec<PeerId> {
        let mut asks = Vec::new();
        while self.awaited.len() < parallel
            && self.found.len() < self.wanted
            && self.bucket < BUCKETS
        {
            let asked = &self.asked;
            let fresh = |peer: &PeerId| !asked.contains(peer);
            let next = (self.asked_here < K_LOOKUP)
                .then(|| self.classes.draw(self.bucket, &mut self.chance, fresh))
                .flatten();
            let Some(peer) = next else {
                self.bucket += 1;
                self.asked_here = 0;
                continue;
            };
            self.asked.insert(peer);
            self.awaited.insert(peer);
            self.asked_here += 1;
            asks.push(peer);
        }
        asks
    }

    /// A registrar answered with the bytes of advertisements. What is not signed,
    /// is over or does not suit is left out; gives back how many were new.
    pub fn answered(&mut self, registrar: &PeerId, adverts: &[Vec<u8>], unix_s: u64) -> usize {
        if !self.awaited.remove(registrar) {
            return 0;
        }
        let topic = self.classes.topic;
        let before = self.found.len();
        let mut honest = adverts.len() <= F_RETURN;
        for bytes in adverts.iter().take(F_RETURN) {
            let read = Advert::decode(topic, bytes);
            let Ok(advert) = read.and_then(|advert| advert.check_time(unix_s).map(|()| advert))
            else {
                honest = false;
                continue;
            };
            if self.query.admits(&advert) {
                self.found.entry(advert.publisher()).or_insert(advert);
            } else {
                honest = false;
            }
        }
        self.false_answers += usize::from(!honest);
        self.found.len() - before
    }

    /// A registrar was silent.
    pub fn failed(&mut self, registrar: &PeerId) {
        self.awaited.remove(registrar);
    }

    /// Whether nobody is awaited and nobody is left to ask, or enough was found.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let enough = self.found.len() >= self.wanted;
        enough || (self.awaited.is_empty() && self.bucket >= BUCKETS)
    }

    /// What was found is no good: looks for as many more. Bounded by the nodes
    /// there are to ask.
    pub fn go_on(&mut self) {
        self.wanted = self.found.len() + F_LOOKUP;
    }

    /// Registrars that were asked, and answers that held something false.
    #[must_use]
    pub fn calls(&self) -> (usize, usize) {
        (self.asked.len(), self.false_answers)
    }

    /// Who was found.
    pub fn found(&self) -> impl Iterator<Item = &Advert> {
        self.found.values()
    }
}
