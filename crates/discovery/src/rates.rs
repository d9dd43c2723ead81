//! How often: token buckets above the connection, in bounded memory.
//!
//! Whoever asks is counted twice, as a peer and by the [`Subnet`] it asks from,
//! so more connections gain nothing and more keys on the same network gain
//! little. [`Buckets`] is the mechanism, [`Rates`] the table of this protocol.
//!
//! A bucket is one number: the moment at which it is full again (the generic
//! cell rate algorithm, ITU-T I.371). Full buckets say nothing and are
//! forgotten. When the map is full of those that are not, all newcomers share
//! one bucket: memory stays bounded, those who are known keep what is theirs,
//! and a flood of new keys only takes from the flood.
//!
//! Absent on purpose: a clock, and what is done with those who ask too often.

use std::collections::BTreeMap;
use std::net::IpAddr;

use peerproof_identity::PeerId;

use crate::Millis;
use crate::places::Reach;
use crate::subnet::Subnet;

/// Peers whose pace is remembered at once.
pub const MAX_PEER_BUCKETS: usize = 65_536;
/// Subnets whose pace is remembered at once.
pub const MAX_SUBNET_BUCKETS: usize = 16_384;
/// How many times a peer's pace its whole subnet gets.
pub const SUBNET_FACTOR: u32 = 4;
/// Looking through a full map for full buckets happens at most this often.
const SWEEP_MS: u64 = 250;

/// So many at once, and one more after every pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pace {
    /// Microseconds until one more is allowed; at least 1.
    pub pause_us: u64,
    /// How many are allowed at once after a long silence; at least 1.
    pub burst: u32,
}

impl Pace {
    /// So many a second, and a burst.
    #[must_use]
    pub const fn per_second(count: u32, burst: u32) -> Self {
        Self::every(count, 1_000_000, burst)
    }

    /// So many in a span of microseconds, and a burst.
    #[must_use]
    pub const fn every(count: u32, span_us: u64, burst: u32) -> Self {
        let count = if count == 0 { 1 } else { count as u64 };
        let pause_us = span_us / count;
        Self {
            pause_us: if pause_us == 0 { 1 } else { pause_us },
            burst: if burst == 0 { 1 } else { burst },
        }
    }

    /// The same pace so many times over.
    #[must_use]
    pub const fn times(self, factor: u32) -> Self {
        let factor = if factor == 0 { 1 } else { factor };
        let pause_us = self.pause_us / factor as u64;
        Self {
            pause_us: if pause_us == 0 { 1 } else { pause_us },
            burst: self.burst.saturating_mul(factor),
        }
    }

    const fn depth_us(self) -> u64 {
        self.pause_us.saturating_mul(self.burst as u64)
    }
}

/// Token buckets by key, at most `capacity` of them.
///
/// ```
/// use peerproof_discovery::Millis;
/// use peerproof_discovery::rates::{Buckets, Pace};
///
/// let mut buckets = Buckets::new(100);
/// let twice = Pace::per_second(1, 2);
/// assert_eq!(buckets.take("a", twice, Millis(0)), Ok(()));
/// assert_eq!(buckets.take("a", twice, Millis(0)), Ok(()));
/// assert_eq!(buckets.take("a", twice, Millis(0)), Err(1000));
/// assert_eq!(buckets.take("a", twice, Millis(1000)), Ok(()));
/// ```
#[derive(Clone, Debug)]
pub struct Buckets<K> {
    capacity: usize,
    /// When each bucket is full again, in microseconds.
    full_at: BTreeMap<K, u64>,
    /// The bucket of all who found no room.
    shared: u64,
    swept_us: u64,
}

impl<K: Ord> Buckets<K> {
    /// Room for so many keys.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, full_at: BTreeMap::new(), shared: 0, swept_us: 0 }
    }

    /// Takes one token, or says after how many milliseconds there is one.
    ///
    /// # Errors
    /// The milliseconds to wait; nothing was taken.
    pub fn take(&mut self, key: K, pace: Pace, now: Millis) -> Result<(), u64> {
        self.look(&key, pace, now)?;
        self.charge(key, pace, now);
        Ok(())
    }

    /// Whether there is a token, without taking it.
    ///
    /// # Errors
    /// The milliseconds to wait.
    pub fn look(&mut self, key: &K, pace: Pace, now: Millis) -> Result<(), u64> {
        let now = now.0.saturating_mul(1000);
        let full_at = match self.full_at.get(key).copied() {
            Some(full_at) => full_at,
            None if self.has_room(now) => 0,
            None => self.shared,
        };
        let after = full_at.max(now).saturating_add(pace.pause_us);
        let latest = now.saturating_add(pace.depth_us());
        if after <= latest { Ok(()) } else { Err((after - latest).div_ceil(1000)) }
    }

    /// Takes a token that [`Buckets::look`] has seen.
    pub fn charge(&mut self, key: K, pace: Pace, now: Millis) {
        let now = now.0.saturating_mul(1000);
        let room = self.has_room(now);
        let full_at = match self.full_at.get_mut(&key) {
            Some(full_at) => full_at,
            None if room => self.full_at.entry(key).or_insert(0),
            None => &mut self.shared,
        };
        *full_at = (*full_at).max(now).saturating_add(pace.pause_us);
    }

    fn has_room(&mut self, now_us: u64) -> bool {
        if self.full_at.len() < self.capacity {
            return true;
        }
        if now_us >= self.swept_us.saturating_add(SWEEP_MS * 1000) {
            self.swept_us = now_us;
            self.full_at.retain(|_, full_at| *full_at > now_us);
        }
        self.full_at.len() < self.capacity
    }

    /// Keys that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }
}

/// What a peer may ask of a node that serves the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// One step of a lookup.
    Lookup,
    /// A registration under a topic, or the request for a ticket.
    Register,
    /// A record to store.
    Put,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 3] = [Self::Lookup, Self::Register, Self::Put];

    /// What one peer may do.
    #[must_use]
    pub const fn pace(self) -> Pace {
        match self {
            Self::Lookup => Pace::per_second(10, 50),
            Self::Register => Pace::per_second(1, 20),
            Self::Put => Pace::per_second(2, 20),
        }
    }
}

/// Whose share is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The peer's own.
    Peer,
    /// That of its whole /24 or /48.
    Subnet,
}

/// Asked too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests of kind {act:?} by this {scope:?}; the next one in {retry_ms} ms")]
pub struct Exceeded {
    /// What was asked.
    pub act: Act,
    /// Whose share is used up.
    pub scope: Scope,
    /// When there is a token again.
    pub retry_ms: u64,
}

/// The paces of this protocol: lookup 10/s burst 50, register 1/s burst 20,
/// put 2/s burst 20 a peer, and four times that a /24 or /48.
#[derive(Clone, Debug)]
pub struct Rates {
    peers: Buckets<(Act, PeerId)>,
    subnets: Buckets<(Act, Subnet)>,
    /// Whether all of this machine counts as one subnet too.
    count_loopback: bool,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Rates {
    /// Empty. On loopback one address stands for every process of the machine:
    /// unless `count_loopback`, only peers are counted there.
    #[must_use]
    pub const fn new(count_loopback: bool) -> Self {
        Self {
            peers: Buckets::new(MAX_PEER_BUCKETS),
            subnets: Buckets::new(MAX_SUBNET_BUCKETS),
            count_loopback,
        }
    }

    /// Counts one request. What one peer asks beyond its own share is not
    /// taken from its subnet's.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing was counted.
    pub fn admit(
        &mut self,
        act: Act,
        peer: PeerId,
        from: IpAddr,
        now: Millis,
    ) -> Result<(), Exceeded> {
        let exceeded = |scope| move |retry_ms| Exceeded { act, scope, retry_ms };
        let (pace, whole) = (act.pace(), act.pace().times(SUBNET_FACTOR));
        let subnet = (self.count_loopback || Reach::of(from) != Reach::Loopback)
            .then(|| (act, Subnet::of(from)));
        if let Some(subnet) = &subnet {
            self.subnets.look(subnet, whole, now).map_err(exceeded(Scope::Subnet))?;
        }
        self.peers.take((act, peer), pace, now).map_err(exceeded(Scope::Peer))?;
        if let Some(subnet) = subnet {
            self.subnets.charge(subnet, whole, now);
        }
        Ok(())
    }

    /// Peers and subnets that are remembered.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        (self.peers.len(), self.subnets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerproof_identity::Keypair;

    fn peer(n: u32) -> PeerId {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        Keypair::from_seed(&seed).public().peer_id()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many of so many requests, one a millisecond, get through.
    fn through(rates: &mut Rates, act: Act, who: impl Fn(u64) -> (PeerId, IpAddr)) -> usize {
        let asked = 0..10_000u64;
        asked.filter(|ms| who_asks(rates, act, who(*ms), *ms)).count()
    }

    fn who_asks(rates: &mut Rates, act: Act, (peer, from): (PeerId, IpAddr), ms: u64) -> bool {
        rates.admit(act, peer, from, Millis(ms)).is_ok()
    }

    #[test]
    fn ten_seconds_of_asking_give_the_burst_and_ten_seconds_worth() {
        let (one, from) = (peer(1), ip("8.8.8.8"));
        for (act, expected) in [(Act::Lookup, 149), (Act::Register, 29), (Act::Put, 39)] {
            let mut rates = Rates::default();
            assert_eq!(through(&mut rates, act, |_| (one, from)), expected, "{act:?}");
        }
    }

    #[test]
    fn many_keys_of_one_subnet_get_four_times_one_keys_share() {
        let peers: Vec<PeerId> = (0..200).map(peer).collect();
        let mut rates = Rates::default();
        let from = |ms: u64| ip(&format!("8.8.8.{}", ms % 256));
        let got = through(&mut rates, Act::Register, |ms| (peers[(ms % 200) as usize], from(ms)));
        assert_eq!(got, 80 + 39);
    }

    #[test]
    fn a_greedy_peer_does_not_use_up_its_subnet() {
        let (greedy, modest, from) = (peer(1), peer(2), ip("8.8.8.8"));
        let mut rates = Rates::default();
        for _ in 0..10_000 {
            let _ = rates.admit(Act::Put, greedy, from, Millis(0));
        }
        assert_eq!(rates.admit(Act::Put, modest, from, Millis(0)), Ok(()));
        let refused = rates.admit(Act::Put, greedy, from, Millis(0)).expect_err("used up");
        assert_eq!((refused.scope, refused.retry_ms), (Scope::Peer, 500));
    }

    #[test]
    fn loopback_counts_by_peer_alone_unless_asked() {
        let from = ip("127.0.0.1");
        let served = |mut rates: Rates| {
            (0..200).filter(|n| rates.admit(Act::Put, peer(*n), from, Millis(0)).is_ok()).count()
        };
        assert_eq!(served(Rates::new(false)), 200);
        assert_eq!(served(Rates::new(true)), 80);
    }

    #[test]
    fn memory_is_bounded_and_the_known_keep_their_share() {
        let mut buckets = Buckets::new(100);
        let pace = Pace::per_second(1, 5);
        assert!(buckets.take(0, pace, Millis(0)).is_ok());
        let flood = (1..100_000).filter(|key| buckets.take(*key, pace, Millis(1)).is_ok()).count();
        assert_eq!(buckets.len(), 100);
        // 99 found room; all others together had one bucket.
        assert_eq!(flood, 99 + 5);
        assert_eq!((0..9).filter(|_| buckets.take(0, pace, Millis(2)).is_ok()).count(), 4);
        // Buckets that are full again make room.
        assert!(buckets.take(7_000_000, pace, Millis(60_000)).is_ok());
        assert_eq!(buckets.len(), 1);
    }

    #[test]
    fn a_clock_that_stands_or_jumps_gives_nothing_away() {
        let mut buckets = Buckets::new(4);
        let pace = Pace::per_second(1, 1);
        assert!(buckets.take("a", pace, Millis(5_000)).is_ok());
        assert!(buckets.take("a", pace, Millis(0)).is_err());
        assert!(buckets.take("a", pace, Millis(u64::MAX)).is_ok());
    }
}
