//! The address book: where peers were seen, and from whom we know.
//!
//! Bounded twice: addresses per peer, and peers in all. When it is full the
//! peer that was stale the longest, and isn't connected, makes room. Nothing
//! here is verified; a dial is what verifies an address.

use std::collections::HashMap;

use peerproof_identity::PeerId;

use crate::limits::{MAX_ADDRESSES_PER_PEER, MAX_KNOWN_PEERS};
use crate::{Address, Source};

#[derive(Debug)]
struct Entry {
    /// Best first: the latest that worked, then the latest heard of.
    addresses: Vec<Address>,
    source: Source,
    /// Position in the order of touches.
    touched: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: HashMap<PeerId, Entry>,
    clock: u64,
}

impl Book {
    /// Takes in an address; says whether it was unknown.
    pub(crate) fn learn(&mut self, peer: PeerId, address: Address, source: Source) -> bool {
        self.make_room(peer);
        self.clock += 1;
        let entry = self.entries.entry(peer).or_insert_with(|| Entry {
            addresses: Vec::new(),
            source,
            touched: 0,
        });
        entry.touched = self.clock;
        let address = address.without_peer();
        if entry.addresses.contains(&address) {
            return false;
        }
        if entry.addresses.len() >= MAX_ADDRESSES_PER_PEER {
            entry.addresses.pop();
        }
        // Behind the one known to work, before older hearsay.
        let at = entry.addresses.len().min(1);
        entry.addresses.insert(at, address);
        true
    }

    /// An address worked: it is tried first next time.
    pub(crate) fn worked(&mut self, peer: PeerId, address: Address, source: Source) {
        let address = address.without_peer();
        self.learn(peer, address.clone(), source);
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.addresses.retain(|known| *known != address);
            entry.addresses.insert(0, address);
        }
    }

    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Address] {
        self.entries.get(peer).map_or(&[], |entry| entry.addresses.as_slice())
    }

    pub(crate) fn source(&self, peer: &PeerId) -> Option<Source> {
        self.entries.get(peer).map(|entry| entry.source)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn make_room(&mut self, newcomer: PeerId) {
        if self.entries.len() < MAX_KNOWN_PEERS || self.entries.contains_key(&newcomer) {
            return;
        }
        let stalest =
            self.entries.iter().min_by_key(|(_, entry)| entry.touched).map(|(peer, _)| *peer);
        if let Some(stalest) = stalest {
            self.entries.remove(&stalest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use peerproof_identity::Keypair;

    fn peer(n: u32) -> PeerId {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        Keypair::from_seed(&seed).public().peer_id()
    }

    fn address(port: usize) -> Address {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn hearsay_does_not_displace_what_worked() {
        let mut book = Book::default();
        book.worked(peer(1), address(1), Source::Given);
        for port in 2..50 {
            book.learn(peer(1), address(port), Source::Kad);
        }
        assert_eq!(book.addresses(&peer(1))[0], address(1));
        assert_eq!(book.addresses(&peer(1)).len(), MAX_ADDRESSES_PER_PEER);
        assert_eq!(book.source(&peer(1)), Some(Source::Given));
        book.worked(peer(1), address(49), Source::Kad);
        assert_eq!(book.addresses(&peer(1))[0], address(49));
    }

    #[test]
    fn the_book_is_finite_and_forgets_the_stalest() {
        let mut book = Book::default();
        for n in 0..=MAX_KNOWN_PEERS as u32 {
            assert!(book.learn(peer(n), address(1), Source::Kad));
        }
        assert_eq!(book.len(), MAX_KNOWN_PEERS);
        assert!(book.addresses(&peer(0)).is_empty());
        assert!(!book.addresses(&peer(1)).is_empty());
    }
}
