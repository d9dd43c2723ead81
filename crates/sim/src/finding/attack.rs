//! Colluders: where they stand and what they answer.
//!
//! They know each other and everybody's tables, answer quickly, never contradict
//! themselves, acknowledge whatever is written to them and keep none of it. Asked who is
//! close to a place, they name the twenty of their own that are closest.

use std::sync::Arc;

use peerproof_discovery::id::Key;
use peerproof_discovery::message::{Address, Contact, Kind, Message, Value};
use peerproof_discovery::table::Located;
use peerproof_identity::{PeerId, PublicKey};

use super::network::random_ip;
use super::{Plan, Publication};
use crate::random::Random;

/// Peers that don't exist, in all.
const GHOSTS: u64 = 20_000;

/// All colluders.
#[derive(Debug)]
pub(crate) struct Liars {
    sorted: Vec<(Key, Arc<Located>)>,
    ghosts: Vec<(Key, Arc<Located>)>,
    /// Names and what is answered for them: an old record, and one with a forged end.
    known: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>,
    random: Random,
    subnets: u64,
    replay: bool,
    haunt: bool,
    /// What one node measured the network's size to be.
    pub(super) density: u128,
}

impl Liars {
    pub(super) fn new(plan: &Plan, random: Random) -> Self {
        Self {
            sorted: Vec::new(),
            ghosts: Vec::new(),
            known: Vec::new(),
            random,
            subnets: plan.subnets,
            replay: plan.replay,
            haunt: plan.ghosts,
            density: 0,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Located>> {
        self.sorted.iter().map(|(_, who)| who)
    }

    /// So many with ids of chance, and names of peers that don't exist.
    pub(super) fn settle(&mut self, count: u64) {
        self.sorted = (0..count).map(|_| self.invent(None)).collect();
        self.sorted.sort_unstable_by_key(|(key, _)| *key);
        if self.haunt {
            self.ghosts = (0..GHOSTS).map(|_| self.invent(None)).collect();
            self.ghosts.sort_unstable_by_key(|(key, _)| *key);
        }
    }

    /// Ids closer to a place than any honest node's: within one part of `nodes` of the
    /// key space, or within twenty where they are spread.
    pub(super) fn grind(&mut self, place: &Key, plan: &Plan, nodes: u64) {
        let reach = u128::MAX / u128::from(nodes) * if plan.spread { 20 } else { 1 };
        let ground: Vec<_> = (0..plan.ground).map(|_| self.invent(Some((place, reach)))).collect();
        self.sorted.extend(ground);
        self.sorted.sort_unstable_by_key(|(key, _)| *key);
    }

    /// An id within a distance of a place. It is the bytes of a key whose secret nobody
    /// knows: grinding is what is simulated, and colluders sign nothing here.
    fn invent(&mut self, near: Option<(&Key, u128)>) -> (Key, Arc<Located>) {
        let mut bytes = self.random.bytes();
        let mut number = 0_u64;
        loop {
            number += 1;
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            let close =
                near.is_none_or(|(place, reach)| id_key(&bytes).distance(place).top() <= reach);
            let Some(key) = close.then(|| PublicKey::from_bytes(&bytes).ok()).flatten() else {
                continue;
            };
            let ip = random_ip(&mut self.random, self.subnets);
            let contact =
                Contact { peer: PeerId::from(key), addresses: vec![Address::quic(ip, 4001)] };
            let who = Located::new(contact);
            return (*who.key(), who);
        }
    }

    pub(super) fn learn(&mut self, publication: &Publication) {
        let mut forged = publication.new.as_bytes().to_vec();
        // The last byte of the moment at which it ends.
        forged[56] ^= 1;
        let old = publication.old.as_bytes().to_vec();
        self.known.push((publication.new.name_bytes().to_vec(), old, forged));
    }

    /// The colluders, or ghosts, closest to a place.
    pub(super) fn closest(&self, place: &Key, but: &Key) -> Vec<Arc<Located>> {
        let mut closest = closest(&self.sorted, place, 21);
        if self.haunt {
            closest.truncate(4);
            closest.extend(self::closest(&self.ghosts, place, 16));
        }
        closest.retain(|who| who.key() != but);
        closest.truncate(20);
        closest
    }

    pub(super) fn answer(&self, own: &Located, message: &Message) -> Message {
        let closer = self.closest(&message.place(), own.key());
        let answer = Message {
            closer: closer.iter().map(|who| who.contact().clone()).collect(),
            token: Some([7; 16]),
            ..Message::new(message.kind, &message.name)
        };
        match message.kind {
            Kind::PutValue => Message { value: message.value.clone(), ..answer },
            Kind::GetValue if self.replay => {
                let forges = own.key().as_bytes()[31].is_multiple_of(4);
                Message { value: self.replayed(&message.name, forges), ..answer }
            }
            Kind::Ping => Message::new(Kind::Ping, &[]),
            _ => answer,
        }
    }

    /// What a colluder shows for a name: an old record that is valid, or a forged one.
    pub(super) fn replayed(&self, name: &[u8], forges: bool) -> Option<Value> {
        let (name, old, forged) = self.known.iter().find(|(known, ..)| known == name)?;
        let bytes = if forges { forged.clone() } else { old.clone() };
        Some(Value { name: name.clone(), bytes })
    }

    pub(super) const fn replays(&self) -> bool {
        self.replay
    }
}

/// Where the peer of a key stands, before it is known to be a key at all.
fn id_key(bytes: &[u8; 32]) -> Key {
    let mut id = [0; PeerId::BYTES];
    id[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
    id[6..].copy_from_slice(bytes);
    Key::of(&id)
}

/// The range of those that share `bits` bits with a place, in a list sorted by place.
pub(super) fn subtree(
    sorted: &[(Key, Arc<Located>)],
    place: &Key,
    bits: usize,
) -> std::ops::Range<usize> {
    let first = place.prefix(bits);
    let last = first.at(peerproof_discovery::id::Distance::reach(bits));
    let from = sorted.partition_point(|(key, _)| *key < first);
    from..from + sorted[from..].partition_point(|(key, _)| *key <= last)
}

/// The `count` closest to a place.
pub(super) fn closest(
    sorted: &[(Key, Arc<Located>)],
    place: &Key,
    count: usize,
) -> Vec<Arc<Located>> {
    let mut bits = 0;
    while subtree(sorted, place, bits + 1).len() >= count && bits < 200 {
        bits += 1;
    }
    let mut near: Vec<&Arc<Located>> =
        sorted[subtree(sorted, place, bits)].iter().map(|(_, who)| who).collect();
    near.sort_unstable_by_key(|who| who.key().distance(place));
    near.into_iter().take(count).cloned().collect()
}
