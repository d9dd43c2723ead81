//! How often each peer may ask: a token bucket a peer.

use std::collections::BTreeMap;

use peerproof_identity::PeerId;

use crate::limits::MAX_RATED_PEERS;
use crate::time::Millis;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it is full again.
    full_at: Millis,
}

/// A bucket is kept as the moment at which it is full again: one number says
/// both how much is left and when it was last used.
#[derive(Debug)]
pub(super) struct Rates {
    burst: u64,
    refill_ms: u64,
    buckets: BTreeMap<PeerId, Bucket>,
}

impl Rates {
    pub(super) fn new(burst: u32, refill_ms: u64) -> Self {
        Self {
            burst: u64::from(burst.max(1)),
            refill_ms: refill_ms.max(1),
            buckets: BTreeMap::new(),
        }
    }

    /// Takes one, or says in how many milliseconds there is one.
    pub(super) fn take(&mut self, peer: PeerId, now: Millis) -> Result<(), u64> {
        if !self.buckets.contains_key(&peer) && self.buckets.len() >= MAX_RATED_PEERS {
            self.make_room();
        }
        let bucket = self.buckets.entry(peer).or_insert(Bucket { full_at: now });
        let full_at = bucket.full_at.max(now).after(self.refill_ms);
        let empty_until = now.after(self.burst.saturating_mul(self.refill_ms));
        if full_at > empty_until {
            return Err(full_at.since(empty_until));
        }
        bucket.full_at = full_at;
        Ok(())
    }

    /// Forgets the peer whose bucket has been full for longest.
    fn make_room(&mut self) {
        let idle =
            self.buckets.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(peer, _)| *peer);
        if let Some(peer) = idle {
            self.buckets.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use peerproof_identity::Keypair;

    use super::*;

    fn peer(seed: u8) -> PeerId {
        Keypair::from_seed(&[seed; 32]).public().peer_id()
    }

    #[test]
    fn a_burst_then_one_at_a_time() {
        let mut rates = Rates::new(3, 100);
        for _ in 0..3 {
            assert_eq!(rates.take(peer(1), Millis(1_000)), Ok(()));
        }
        assert_eq!(rates.take(peer(1), Millis(1_000)), Err(100));
        assert_eq!(rates.take(peer(2), Millis(1_000)), Ok(()), "another peer's own");
        assert_eq!(rates.take(peer(1), Millis(1_060)), Err(40));
        assert_eq!(rates.take(peer(1), Millis(1_100)), Ok(()));
        assert_eq!(rates.take(peer(1), Millis(1_100)), Err(100));
    }

    #[test]
    fn only_so_many_peers_are_tracked() {
        let mut rates = Rates::new(1, 100);
        for number in 0..=MAX_RATED_PEERS as u64 {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            let peer = Keypair::from_seed(&seed).public().peer_id();
            assert_eq!(rates.take(peer, Millis(number)), Ok(()));
        }
        assert_eq!(rates.buckets.len(), MAX_RATED_PEERS);
    }
}
