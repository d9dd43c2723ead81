//! The key space: 256-bit keys, XOR distances, buckets.
//!
//! As in libp2p's Kademlia: the key of a peer is the SHA-256 of its binary peer id,
//! the key of a record the SHA-256 of its name. Distance is XOR read as a big-endian
//! number (Maymounkov & Mazières 2002). Keys that are made here for a purpose of our
//! own, such as a point at a given distance, need no preimage.

use std::fmt;

use peerproof_identity::PeerId;
use sha2::{Digest, Sha256};

/// Bits of a key, and buckets of a table.
pub const BITS: usize = 256;

/// A point of the key space.
///
/// ```
/// use peerproof_discovery::id::Key;
///
/// let (one, two) = (Key::of(b"one"), Key::of(b"two"));
/// assert_eq!(one.distance(&two), two.distance(&one));
/// assert_eq!(one.distance(&one).bucket(), None);
/// assert_eq!(one.at(one.distance(&two)), two);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// A point as it is.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Where libp2p puts a name: its SHA-256.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self(Sha256::digest(name).into())
    }

    /// Where libp2p puts a peer.
    #[must_use]
    pub fn of_peer(peer: &PeerId) -> Self {
        Self::of(&peer.to_bytes())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// How far the two are from each other.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        Distance(std::array::from_fn(|at| self.0[at] ^ other.0[at]))
    }

    /// The point at that distance.
    #[must_use]
    pub fn at(&self, distance: Distance) -> Self {
        Self(std::array::from_fn(|at| self.0[at] ^ distance.0[at]))
    }

    /// The first `bits` bits, the rest zero: what a reader shows of a key it asks for.
    #[must_use]
    pub fn prefix(&self, bits: usize) -> Self {
        let mut bytes = self.0;
        for (at, byte) in bytes.iter_mut().enumerate() {
            let kept = bits.saturating_sub(at * 8).min(8);
            // Shifting a byte by eight needs the wider type.
            *byte &= (0xff00_u16 >> kept) as u8;
        }
        Self(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(")?;
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

/// XOR of two keys, a number of 256 bits; smaller is closer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; 32]);

impl Distance {
    /// From a key to itself.
    pub const ZERO: Self = Self([0; 32]);
    /// From a key to its complement.
    pub const MAX: Self = Self([0xff; 32]);

    /// A distance as it is, the highest byte first.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, the highest first.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A distance whose first 128 bits are given; the rest are ones, so that nothing
    /// that agrees in those bits is further away.
    #[must_use]
    pub fn from_top(top: u128) -> Self {
        let mut bytes = [0xff; 32];
        bytes[..16].copy_from_slice(&top.to_be_bytes());
        Self(bytes)
    }

    /// The first 128 bits: the distance in units of 2⁻¹²⁸ of the key space.
    #[must_use]
    pub fn top(&self) -> u128 {
        let mut top = [0; 16];
        top.copy_from_slice(&self.0[..16]);
        u128::from_be_bytes(top)
    }

    /// Bits the two keys have in common from the first on; 256 for the same key.
    #[must_use]
    pub fn leading_zeros(&self) -> usize {
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        self.0.get(zeros).map_or(BITS, |byte| zeros * 8 + byte.leading_zeros() as usize)
    }

    /// The bucket of a table, counted by common bits: bucket 0 holds the other half of
    /// the key space, bucket 1 the other half of the near half. None for the same key.
    #[must_use]
    pub fn bucket(&self) -> Option<usize> {
        let zeros = self.leading_zeros();
        (zeros < BITS).then_some(zeros)
    }

    /// The largest distance that falls into a bucket; 0 beyond the last one.
    #[must_use]
    pub fn reach(bucket: usize) -> Self {
        let mut bytes = [0xff_u8; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let cleared = bucket.saturating_sub(at * 8).min(8);
            *byte = (0xff_u16 >> cleared) as u8;
        }
        Self(bytes)
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Distance(2^-{})", self.leading_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerproof_identity::Keypair;

    #[test]
    fn buckets_count_common_bits_and_fill_by_halves() {
        let own = Key::of(b"own");
        let mut seen = [0_usize; BITS];
        for number in 0..4096_u32 {
            let other = Key::of(&number.to_le_bytes());
            let distance = own.distance(&other);
            let bucket = distance.bucket().expect("another key");
            seen[bucket] += 1;
            assert!(distance <= Distance::reach(bucket), "{bucket}");
            assert!(distance > Distance::reach(bucket + 1), "{bucket}");
        }
        // A formula that puts nearly everything into one bucket fails here.
        assert!((1900..2200).contains(&seen[0]), "{}", seen[0]);
        assert!((900..1150).contains(&seen[1]), "{}", seen[1]);
        assert!((430..600).contains(&seen[2]), "{}", seen[2]);
    }

    #[test]
    fn the_ends_of_the_range_hold() {
        let key = Key::from_bytes([0x55; 32]);
        assert_eq!(key.distance(&key).leading_zeros(), BITS);
        assert_eq!(Distance::MAX.bucket(), Some(0));
        assert_eq!(Distance::reach(0), Distance::MAX);
        assert_eq!(Distance::reach(BITS), Distance::ZERO);
        let mut last = [0; 32];
        last[31] = 1;
        assert_eq!(key.distance(&key.at(Distance(last))).bucket(), Some(BITS - 1));
    }

    #[test]
    fn a_distance_reads_as_a_number() {
        for top in [0, 1, u128::MAX / 500, u128::MAX] {
            assert_eq!(Distance::from_top(top).top(), top);
        }
        assert!(Distance::from_top(4) < Distance::from_top(5));
    }

    #[test]
    fn a_prefix_keeps_its_bits_only() {
        let key = Key::from_bytes([0xff; 32]);
        assert_eq!(key.prefix(0), Key::from_bytes([0; 32]));
        assert_eq!(key.prefix(256), key);
        assert_eq!(key.prefix(300), key);
        let mut twelve = [0; 32];
        (twelve[0], twelve[1]) = (0xff, 0xf0);
        assert_eq!(key.prefix(12), Key::from_bytes(twelve));
    }

    /// SHA-256 of the 38 bytes of the peer id, computed apart from this code.
    #[test]
    fn a_peer_stands_where_libp2p_puts_it() {
        let peer = Keypair::from_seed(&[7; 32]).public().peer_id();
        assert_eq!(Key::of_peer(&peer), Key::of(&peer.to_bytes()));
        let expected = Sha256::digest(peer.to_bytes());
        assert_eq!(Key::of_peer(&peer).as_bytes()[..], expected[..]);
        let abc = Key::of(b"abc");
        assert_eq!(abc.as_bytes()[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
