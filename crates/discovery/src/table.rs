//! The routing table: peers we dialled ourselves, spread over networks.
//!
//! A peer that is heard of is [considered](Table::consider); the caller probes it with a
//! dial of its own and a fresh nonce, and only then is it [entered](Table::enter). Caps
//! by /24 and /48 hold in each bucket and in the whole table, so that one provider's
//! addresses can't fill it. A full bucket does not give way to a newcomer: its least
//! recently seen peer is tested, and replaced only if it fails (Maymounkov & Mazières
//! 2002, section 2.4).
//!
//! Addresses of the own machine and of private networks are not capped: nobody far away
//! can answer our dial there, and small networks consist of them.
//!
//! Absent: dialling and signatures (`node`), and who is asked when (`walk`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::id::{BITS, Distance, Key};
use crate::limits::{
    BUCKET_PEERS, MAX_PER_SUBNET_IN_BUCKET, MAX_PER_SUBNET_IN_TABLE, MAX_STRIKES, REFRESH_AFTER_MS,
};
use crate::message::Contact;
use crate::subnet::Subnet;
use crate::{Chance, Millis};

/// A contact, with its place computed once.
#[derive(Debug, PartialEq, Eq)]
pub struct Located {
    contact: Contact,
    key: Key,
    group: Group,
}

/// What caps are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// The own machine or a private network: not capped.
    Near,
    /// A neighbourhood.
    Subnet(Subnet),
    /// No host is named; all such are one neighbourhood.
    Nameless,
}

impl Located {
    /// Places a contact.
    #[must_use]
    pub fn new(contact: Contact) -> Arc<Self> {
        let group = match contact.ip() {
            Some(ip) if is_near(ip) => Group::Near,
            Some(ip) => Group::Subnet(Subnet::of(ip)),
            None => Group::Nameless,
        };
        Arc::new(Self { key: contact.key(), group, contact })
    }

    /// Who and where.
    #[must_use]
    pub const fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Its place.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }
}

fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// What shall become of a peer that was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Considered {
    /// Probe it.
    Probe,
    /// It is in the table, or this node itself.
    Known,
    /// Its neighbourhood has its share.
    Crowded,
    /// Its bucket is full and another already waits for a place.
    Full,
}

/// What became of a peer that was probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is in the table.
    Yes,
    /// It was there.
    Known,
    /// Its neighbourhood has its share, or another already waits for a place.
    No,
    /// It waits; this one is to be probed first.
    Test(Arc<Located>),
}

#[derive(Debug)]
struct Entry {
    who: Arc<Located>,
    seen: Millis,
    strikes: u8,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Least recently seen first.
    entries: Vec<Entry>,
    waiting: Option<Arc<Located>>,
    refreshed: Millis,
}

/// The peers a node knows, by common bits with itself.
///
/// ```
/// use peerproof_discovery::message::{Address, Contact};
/// use peerproof_discovery::table::{Entered, Located, Table};
/// use peerproof_discovery::{Millis, id::Key};
/// use peerproof_identity::Keypair;
///
/// let peer = Keypair::from_seed(&[1; 32]).public().peer_id();
/// let addresses = vec![Address::quic([192, 0, 2, 1].into(), 4001)];
/// let mut table = Table::new(Key::of(b"own"));
/// let located = Located::new(Contact { peer, addresses });
/// assert_eq!(table.enter(located.clone(), Millis(0)), Entered::Yes);
/// assert_eq!(table.closest(located.key(), 20), [located]);
/// ```
#[derive(Debug)]
pub struct Table {
    own: Key,
    buckets: Vec<Bucket>,
    groups: BTreeMap<Group, usize>,
}

impl Table {
    /// An empty table around the own place.
    #[must_use]
    pub const fn new(own: Key) -> Self {
        Self { own, buckets: Vec::new(), groups: BTreeMap::new() }
    }

    /// The own place.
    #[must_use]
    pub const fn own(&self) -> &Key {
        &self.own
    }

    /// Peers in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.entries.len()).sum()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a peer that was heard of is worth a probe.
    #[must_use]
    pub fn consider(&self, who: &Located) -> Considered {
        let Some(at) = self.own.distance(&who.key).bucket() else { return Considered::Known };
        let Some(bucket) = self.buckets.get(at) else { return Considered::Probe };
        let waits = bucket.waiting.as_ref();
        if bucket.holds(&who.key) || waits.is_some_and(|waiting| waiting.key == who.key) {
            Considered::Known
        } else if self.is_crowded(bucket, who) {
            Considered::Crowded
        } else if bucket.entries.len() >= BUCKET_PEERS && waits.is_some() {
            Considered::Full
        } else {
            Considered::Probe
        }
    }

    /// Whether a peer would have a place without anybody giving way.
    #[must_use]
    pub fn has_room(&self, who: &Located) -> bool {
        let bucket = self.own.distance(&who.key).bucket().and_then(|at| self.buckets.get(at));
        bucket.is_none_or(|bucket| bucket.entries.len() < BUCKET_PEERS)
    }

    /// Enters a peer that answered our own dial with a signature over a fresh nonce.
    pub fn enter(&mut self, who: Arc<Located>, now: Millis) -> Entered {
        let Some(at) = self.own.distance(&who.key).bucket() else { return Entered::Known };
        while self.buckets.len() <= at {
            self.buckets.push(Bucket { refreshed: now, ..Bucket::default() });
        }
        if self.buckets[at].holds(&who.key) {
            self.seen(&who.key, now);
            return Entered::Known;
        }
        if self.is_crowded(&self.buckets[at], &who) {
            return Entered::No;
        }
        let bucket = &mut self.buckets[at];
        if bucket.entries.len() < BUCKET_PEERS {
            *self.groups.entry(who.group).or_default() += 1;
            bucket.entries.push(Entry { who, seen: now, strikes: 0 });
            return Entered::Yes;
        }
        if bucket.waiting.is_some() {
            return Entered::No;
        }
        bucket.waiting = Some(who);
        Entered::Test(Arc::clone(&bucket.entries[0].who))
    }

    /// A peer answered: it becomes the most recently seen of its bucket, and who waited
    /// for its place waits no longer.
    pub fn seen(&mut self, key: &Key, now: Millis) {
        let Some(bucket) = self.bucket_of(key) else { return };
        let Some(at) = bucket.entries.iter().position(|entry| entry.who.key == *key) else {
            return;
        };
        if at == 0 && bucket.entries.len() >= BUCKET_PEERS {
            bucket.waiting = None;
        }
        let mut entry = bucket.entries.remove(at);
        (entry.seen, entry.strikes) = (now, 0);
        bucket.entries.push(entry);
    }

    /// A peer did not answer. It goes after [`MAX_STRIKES`] in a row, or at once if
    /// somebody waits for its place.
    pub fn failed(&mut self, key: &Key, now: Millis) {
        let Some(bucket) = self.bucket_of(key) else { return };
        let Some(at) = bucket.entries.iter().position(|entry| entry.who.key == *key) else {
            return;
        };
        bucket.entries[at].strikes += 1;
        if bucket.entries[at].strikes < MAX_STRIKES && bucket.waiting.is_none() {
            return;
        }
        let gone = bucket.entries.remove(at);
        let waiting = bucket.waiting.take();
        if let Some(count) = self.groups.get_mut(&gone.who.group) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&gone.who.group);
            }
        }
        if let Some(waiting) = waiting {
            self.enter(waiting, now);
        }
    }

    /// The `count` peers closest to a place, closest first.
    #[must_use]
    pub fn closest(&self, place: &Key, count: usize) -> Vec<Arc<Located>> {
        let mut all: Vec<(Distance, &Arc<Located>)> =
            self.peers().map(|who| (who.key.distance(place), who)).collect();
        if all.len() > count {
            all.select_nth_unstable_by_key(count, |(distance, _)| *distance);
            all.truncate(count);
        }
        all.sort_unstable_by_key(|(distance, _)| *distance);
        all.into_iter().map(|(_, who)| Arc::clone(who)).collect()
    }

    /// Up to `count` peers drawn from the whole table, each alike.
    pub fn seeds(&self, count: usize, chance: &mut Chance) -> Vec<Arc<Located>> {
        let mut all: Vec<&Arc<Located>> = self.peers().collect();
        let count = count.min(all.len());
        for at in 0..count {
            let other = at + chance.below(all.len() - at);
            all.swap(at, other);
        }
        all.into_iter().take(count).cloned().collect()
    }

    /// A place to look up next so that no bucket grows stale: one in the bucket that
    /// waited longest, if that is long enough.
    pub fn refresh(&mut self, now: Millis, chance: &mut Chance) -> Option<Key> {
        let due = self.buckets.iter().enumerate().min_by_key(|(_, bucket)| bucket.refreshed);
        let (at, bucket) = due?;
        if now.since(bucket.refreshed) < REFRESH_AFTER_MS {
            return None;
        }
        self.buckets[at].refreshed = now;
        Some(place_in(&self.own, at, chance))
    }

    /// When [`refresh`](Self::refresh) has something to do next.
    #[must_use]
    pub fn next_refresh(&self) -> Option<Millis> {
        let oldest = self.buckets.iter().map(|bucket| bucket.refreshed).min();
        oldest.map(|oldest| oldest.after(REFRESH_AFTER_MS))
    }

    /// Every peer, bucket by bucket.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Located>> {
        self.buckets.iter().flat_map(|bucket| bucket.entries.iter().map(|entry| &entry.who))
    }

    fn bucket_of(&mut self, key: &Key) -> Option<&mut Bucket> {
        let at = self.own.distance(key).bucket()?;
        self.buckets.get_mut(at)
    }

    fn is_crowded(&self, bucket: &Bucket, who: &Located) -> bool {
        if who.group == Group::Near {
            return false;
        }
        let in_bucket = bucket.entries.iter().filter(|entry| entry.who.group == who.group);
        self.groups.get(&who.group).is_some_and(|count| *count >= MAX_PER_SUBNET_IN_TABLE)
            || in_bucket.count() >= MAX_PER_SUBNET_IN_BUCKET
    }
}

impl Bucket {
    fn holds(&self, key: &Key) -> bool {
        self.entries.iter().any(|entry| entry.who.key == *key)
    }
}

/// A place of chance that shares exactly `bucket` bits with `own`.
#[must_use]
pub fn place_in(own: &Key, bucket: usize, chance: &mut Chance) -> Key {
    let bucket = bucket.min(BITS - 1);
    let (reach, next) = (Distance::reach(bucket), Distance::reach(bucket + 1));
    let random = chance.bytes();
    // The bucket's first bit is set, those below are of chance, those above zero.
    let bits = std::array::from_fn(|at| {
        let (reach, next) = (reach.as_bytes()[at], next.as_bytes()[at]);
        (reach & !next) | (next & random[at])
    });
    own.at(Distance::from_bytes(bits))
}

#[cfg(test)]
mod tests;
