//! The log on a simulated disk: power cuts, kills, failing operations, flipped bits.
//!
//! Every run is a function of its seed. A failure prints the seed;
//! `PEERPROOF_LOG_SEED=<seed> cargo test -p peerproof-log --test simulation` runs
//! that seed alone, `PEERPROOF_LOG_SEEDS=<count>` sets how many are run. Without
//! either there are as many as two million power cuts take.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]

mod damage;
mod disk;
mod faults;
mod power;
mod vectors;

use std::sync::{Arc, LazyLock};

use peerproof_identity::Keypair;

/// The key of every log here.
fn key() -> Arc<Keypair> {
    static KEY: LazyLock<Arc<Keypair>> = LazyLock::new(|| Arc::new(Keypair::from_seed(&[21; 32])));
    Arc::clone(&KEY)
}

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// From 0 to `limit`, both included.
    fn up_to(&mut self, limit: usize) -> usize {
        self.below(limit as u64 + 1) as usize
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
