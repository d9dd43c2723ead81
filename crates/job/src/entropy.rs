//! Randomness as an argument.
//!
//! A job is given 32 random bytes once and derives every choice from them, so
//! that the same bytes and the same events give the same job again. A provider
//! never sees them: whether an answer will be audited is not predictable from
//! outside.

use std::fmt;

/// The seed of all choices of one job. `Debug` does not print it.
///
/// ```
/// use peerproof_job::Entropy;
///
/// let entropy = Entropy::new([7; 32]);
/// assert_eq!(entropy.number("audit", 0), Entropy::new([7; 32]).number("audit", 0));
/// assert_ne!(entropy.number("audit", 0), entropy.number("pick", 0));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Entropy([u8; 32]);

impl Entropy {
    /// Takes 32 bytes from a cryptographic source.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The number that belongs to the `count`-th choice named `label`.
    #[must_use]
    pub fn number(&self, label: &str, count: u64) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&count.to_le_bytes()).update(label.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Whether a chance of `permille` in a thousand comes up.
    #[must_use]
    pub fn lucky(&self, label: &str, count: u64, permille: u16) -> bool {
        // 2^64 is no multiple of 1000; the bias is below 1e-16.
        self.number(label, count) % 1000 < u64::from(permille)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_kept() {
        let entropy = Entropy::new([3; 32]);
        let hits = |permille| (0..10_000).filter(|n| entropy.lucky("x", *n, permille)).count();
        assert_eq!(hits(0), 0);
        assert_eq!(hits(1000), 10_000);
        assert!((400..600).contains(&hits(50)), "{}", hits(50));
    }

    #[test]
    fn debug_hides_the_bytes() {
        assert_eq!(format!("{:?}", Entropy::new([9; 32])), "Entropy(..)");
    }
}
