//! Being found: provider records, ours and those kept for others.
//!
//! A record is published when it is new, again whenever the neighbourhood
//! changes (at first after a tenth of a second, then at doubling intervals),
//! and by libp2p every few minutes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use libp2p::kad::store::RecordStore;
use libp2p::kad::{ProviderRecord, RecordKey};

use super::Driver;
use crate::limits::{MAX_ADDRESSES_PER_PEER, MAX_PROVIDED_KEYS, PUBLISH_GAP, PUBLISH_GAP_MAX};
use crate::metrics::count;
use crate::{Address, NetError};

/// Bytes of a key; records under keys of another length aren't ours.
const KEY_BYTES: usize = 32;

/// Our own keys, and when to publish them again.
#[derive(Debug)]
pub(super) struct Publisher {
    keys: BTreeSet<[u8; KEY_BYTES]>,
    due: Option<Instant>,
    gap: Duration,
    last: Option<Instant>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { keys: BTreeSet::new(), due: None, gap: PUBLISH_GAP, last: None }
    }
}

impl Publisher {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) const fn next_wake(&self) -> Option<Instant> {
        self.due
    }

    /// Someone new can keep our records, or our addresses have changed.
    pub(super) fn neighbour_joined(&mut self, now: Instant) {
        if self.keys.is_empty() || self.due.is_some() {
            return;
        }
        let earliest = self.last.map_or(now, |last| last + self.gap);
        self.due = Some(earliest.max(now));
    }

    /// Whether it is time; if so, the next time is further away.
    fn take_due(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.due = None;
        self.last = Some(now);
        self.gap = (self.gap * 2).min(PUBLISH_GAP_MAX);
        true
    }
}

impl Driver {
    pub(super) fn provide(&mut self, key: [u8; KEY_BYTES]) -> Result<(), NetError> {
        let limit = NetError::Limit { what: "provided keys", limit: MAX_PROVIDED_KEYS };
        if self.publisher.len() >= MAX_PROVIDED_KEYS && !self.publisher.keys.contains(&key) {
            return Err(limit);
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        if kad.start_providing(RecordKey::new(&key)).is_err() {
            return Err(limit);
        }
        self.publisher.keys.insert(key);
        self.publisher.gap = PUBLISH_GAP;
        Ok(())
    }

    pub(super) fn stop_providing(&mut self, key: [u8; KEY_BYTES]) {
        if self.publisher.keys.remove(&key) {
            let kad = &mut self.swarm.behaviour_mut().kad;
            kad.stop_providing(&RecordKey::new(&key));
        }
    }

    pub(super) fn tick_publisher(&mut self, now: Instant) {
        if !self.publisher.take_due(now) {
            return;
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        for key in &self.publisher.keys {
            if let Err(error) = kad.start_providing(RecordKey::new(key)) {
                tracing::debug!(%error, "a record could not be published again");
            }
        }
    }

    /// Keeps another node's record, if it is well formed and there is room.
    /// libp2p has checked that the sender is the provider.
    pub(super) fn store_record(&mut self, mut record: ProviderRecord) {
        let Some(provider) = crate::address::from_libp2p(&record.provider) else {
            return;
        };
        let loopback = self
            .neighbours
            .get(&provider)
            .is_some_and(|n| n.links.iter().any(|link| link.loopback));
        let plausible = record
            .addresses
            .iter()
            .filter_map(|address| Address::from_peer(address, loopback))
            .take(MAX_ADDRESSES_PER_PEER)
            .map(|address| address.as_multiaddr().clone());
        record.addresses = plausible.collect();
        let well_formed = record.key.as_ref().len() == KEY_BYTES;
        let store = self.swarm.behaviour_mut().kad.store_mut();
        let stored = well_formed && store.add_provider(record).is_ok();
        count(if stored { &self.counters.records_stored } else { &self.counters.records_refused });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_grow_rarer_while_neighbours_come_and_go() {
        let start = Instant::now();
        let mut publisher = Publisher::default();
        publisher.neighbour_joined(start);
        assert_eq!(publisher.next_wake(), None, "nothing to publish");
        publisher.keys.insert([1; 32]);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..12 {
            publisher.neighbour_joined(now);
            let due = publisher.next_wake().unwrap_or(now);
            waits.push(due - now);
            assert!(publisher.take_due(due));
            assert!(!publisher.take_due(due), "once is enough");
            now = due;
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(waits.last(), Some(&PUBLISH_GAP_MAX));
    }
}
