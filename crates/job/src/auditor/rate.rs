//! How often a key may ask, and how often a network group: token buckets.
//!
//! Keys cost nothing, so a key without a record gets little, and what many of
//! them ask from one place comes out of one bucket. A record here is the number
//! of sound cases a key brought: each makes the next one cheaper, down to a
//! least price. Cases that do not hang together are charged several times.
//! Nothing else is at stake: that is all the bond there is.

use std::collections::BTreeMap;

use peerproof_identity::PeerId;
use peerproof_wire::NetworkGroup;

use crate::limits::{MAX_RATED_GROUPS, MAX_RATED_PEERS};
use crate::time::Millis;

/// Sound cases after which a key pays the least price.
const SOUND: u64 = 12;
/// How often a case that does not hang together is charged.
const UNSOUND_PRICES: u64 = 4;

/// What a bucket gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// So many at once after a pause.
    pub burst: u32,
    /// One more in this time, in milliseconds.
    pub refill_ms: u64,
}

impl Allowance {
    fn window_ms(self) -> u64 {
        u64::from(self.burst.max(1)).saturating_mul(self.refill_ms.max(1))
    }
}

/// The prices of one kind of question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prices {
    pub(super) stranger: Allowance,
    pub(super) known: Allowance,
    pub(super) group: Allowance,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When it is full again.
    full_at: Millis,
    /// Sound cases so far.
    sound: u64,
}

impl Bucket {
    /// When it is full again after taking `count`; or how long until there are so many.
    fn after(&self, now: Millis, allowance: Allowance) -> Result<Millis, u64> {
        let full_at = self.full_at.max(now).after(allowance.refill_ms.max(1));
        let empty_until = now.after(allowance.window_ms());
        if full_at > empty_until { Err(full_at.since(empty_until)) } else { Ok(full_at) }
    }
}

/// A bucket is kept as the moment at which it is full again: one number says
/// both how much is left and when it was last used.
#[derive(Debug)]
pub(super) struct Rates {
    prices: Prices,
    peers: BTreeMap<PeerId, Bucket>,
    groups: BTreeMap<NetworkGroup, Bucket>,
}

impl Rates {
    pub(super) fn new(prices: Prices) -> Self {
        Self { prices, peers: BTreeMap::new(), groups: BTreeMap::new() }
    }

    /// What a key gets, by its record: a straight line between stranger and known.
    fn allowance(&self, sound: u64) -> Allowance {
        let Prices { stranger, known, .. } = self.prices;
        let done = sound.min(SOUND);
        let between = |from: u64, to: u64| (from * (SOUND - done) + to * done) / SOUND;
        Allowance {
            burst: between(stranger.burst.into(), known.burst.into()) as u32,
            refill_ms: between(stranger.refill_ms, known.refill_ms),
        }
    }

    /// Takes one, or says in how many milliseconds there is one. A machine of the private
    /// network pays for itself only.
    pub(super) fn take(
        &mut self,
        peer: PeerId,
        group: NetworkGroup,
        now: Millis,
    ) -> Result<(), u64> {
        make_room(&mut self.peers, &peer, MAX_RATED_PEERS);
        make_room(&mut self.groups, &group, MAX_RATED_GROUPS);
        let mine = self.peers.get(&peer).copied().unwrap_or_default();
        let mine_full_at = mine.after(now, self.allowance(mine.sound))?;
        if group != NetworkGroup::Local {
            let shared = self.groups.entry(group).or_default();
            shared.full_at = shared.after(now, self.prices.group)?;
        }
        self.peers.insert(peer, Bucket { full_at: mine_full_at, ..mine });
        Ok(())
    }

    /// The case was judged.
    pub(super) fn was_sound(&mut self, peer: &PeerId) {
        if let Some(bucket) = self.peers.get_mut(peer) {
            bucket.sound = bucket.sound.saturating_add(1);
        }
    }

    /// The case did not hang together, and cost this auditor something all the same.
    pub(super) fn was_unsound(&mut self, peer: &PeerId) {
        if let Some(bucket) = self.peers.get_mut(peer) {
            let price = self.prices.stranger.refill_ms.saturating_mul(UNSOUND_PRICES - 1);
            *bucket = Bucket { full_at: bucket.full_at.after(price), sound: 0 };
        }
    }
}

/// Forgets whoever's bucket has been full for longest, if there is no room for another.
fn make_room<K: Copy + Ord>(buckets: &mut BTreeMap<K, Bucket>, key: &K, most: usize) {
    if buckets.contains_key(key) || buckets.len() < most {
        return;
    }
    let idle = buckets.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(key, _)| *key);
    if let Some(idle) = idle {
        buckets.remove(&idle);
    }
}

#[cfg(test)]
mod tests {
    use peerproof_identity::Keypair;

    use super::*;

    const CITY: NetworkGroup = NetworkGroup::V4([203, 0]);

    fn peer(number: u64) -> PeerId {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        Keypair::from_seed(&seed).public().peer_id()
    }

    fn rates() -> Rates {
        Rates::new(Prices {
            stranger: Allowance { burst: 3, refill_ms: 100 },
            known: Allowance { burst: 15, refill_ms: 40 },
            group: Allowance { burst: 5, refill_ms: 50 },
        })
    }

    #[test]
    fn a_burst_then_one_at_a_time() {
        let (mut rates, local) = (rates(), NetworkGroup::Local);
        for _ in 0..3 {
            assert_eq!(rates.take(peer(1), local, Millis(1_000)), Ok(()));
        }
        assert_eq!(rates.take(peer(1), local, Millis(1_000)), Err(100));
        assert_eq!(rates.take(peer(2), local, Millis(1_000)), Ok(()), "another peer's own");
        assert_eq!(rates.take(peer(1), local, Millis(1_060)), Err(40));
        assert_eq!(rates.take(peer(1), local, Millis(1_100)), Ok(()));
        assert_eq!(rates.take(peer(1), local, Millis(1_100)), Err(100));
    }

    #[test]
    fn many_keys_of_one_place_share_a_bucket() {
        let mut rates = rates();
        let taken = (0..100).filter(|key| rates.take(peer(*key), CITY, Millis(0)).is_ok()).count();
        assert_eq!(taken, 5);
        assert_eq!(rates.take(peer(200), NetworkGroup::V4([9, 9]), Millis(0)), Ok(()));
        let home = (0..20)
            .filter(|key| rates.take(peer(300 + key), NetworkGroup::Local, Millis(0)).is_ok());
        assert_eq!(home.count(), 20, "machines of the private network");
    }

    #[test]
    fn sound_cases_make_it_cheaper_and_unsound_ones_dear() {
        let (mut rates, local) = (rates(), NetworkGroup::Local);
        let left = |rates: &mut Rates, now| {
            (0..100).take_while(|_| rates.take(peer(1), local, Millis(now)).is_ok()).count()
        };
        assert_eq!(left(&mut rates, 0), 3);
        (0..SOUND).for_each(|_| rates.was_sound(&peer(1)));
        assert_eq!(left(&mut rates, 10_000), 15);
        rates.was_unsound(&peer(1));
        assert_eq!(left(&mut rates, 10_400), 0, "it pays, and begins anew");
        assert_eq!(left(&mut rates, 20_000), 3);
    }

    #[test]
    fn only_so_many_peers_are_tracked() {
        let mut rates = rates();
        for number in 0..=MAX_RATED_PEERS as u64 {
            let group = NetworkGroup::V4((number as u16).to_be_bytes());
            assert_eq!(rates.take(peer(number), group, Millis(number)), Ok(()));
        }
        assert_eq!(rates.peers.len(), MAX_RATED_PEERS);
        assert!(rates.groups.len() <= MAX_RATED_GROUPS);
    }
}
