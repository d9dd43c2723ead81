//! Choices that nobody outside can foresee.
//!
//! A machine is given 32 bytes from a cryptographic source once; every draw is the
//! BLAKE3 of those bytes and a count. The same bytes and the same events give the
//! same machine again, which is what the simulation replays by.

use std::fmt;

/// A row of numbers that follows from 32 secret bytes. `Debug` does not print them.
///
/// ```
/// use peerproof_discovery::Chance;
///
/// let (mut one, mut two) = (Chance::new([7; 32]), Chance::new([7; 32]));
/// assert_eq!(one.number(), two.number());
/// assert_ne!(one.number(), one.number());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Chance {
    seed: [u8; 32],
    count: u64,
}

impl Chance {
    /// Takes 32 bytes from a cryptographic source.
    #[must_use]
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { seed, count: 0 }
    }

    /// The next 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        self.count += 1;
        *blake3::keyed_hash(&self.seed, &self.count.to_le_bytes()).as_bytes()
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// A number below `limit`; 0 if that is 0. The bias is below `limit` / 2⁶⁴.
    pub fn below(&mut self, limit: usize) -> usize {
        let wide = u128::from(self.number()) * limit as u128;
        (wide >> 64) as usize
    }

    /// Whether a chance of one in `count` comes up; never if that is 0.
    pub fn one_in(&mut self, count: usize) -> bool {
        count > 0 && self.below(count) == 0
    }

    /// Puts `items` into an order of chance.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_limit_and_reach_every_value() {
        let mut chance = Chance::new([3; 32]);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[chance.below(7)] += 1;
        }
        assert!(seen.iter().all(|hits| (800..1_200).contains(hits)), "{seen:?}");
        assert_eq!(chance.below(0), 0);
        assert!(!chance.one_in(0));
    }

    #[test]
    fn shuffling_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Chance::new([5; 32]).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn debug_hides_the_seed() {
        assert_eq!(format!("{:?}", Chance::new([9; 32])), "Chance(..)");
    }
}
