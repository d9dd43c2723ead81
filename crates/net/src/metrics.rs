//! Counters: what has happened since the start.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::DialReason;

/// A snapshot of the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Connections open at this moment.
    pub connections_open: u64,
    /// Connections ever established that others opened.
    pub connections_inbound: u64,
    /// Connections ever established that we opened.
    pub connections_outbound: u64,
    /// Inbound connections turned away or failed in their handshake.
    pub connections_refused: u64,
    /// Peers dropped because they speak another network's protocol.
    pub peers_foreign: u64,
    /// Failed dials by reason; reasons that didn't occur are left out.
    pub dial_failures: BTreeMap<DialReason, u64>,
    /// Streams we opened.
    pub streams_opened: u64,
    /// Streams others opened and we took.
    pub streams_accepted: u64,
    /// Streams others opened and we turned away: over the peer's share, or
    /// nobody took them off the queue.
    pub streams_refused: u64,
    /// Events that were dropped because nobody read them.
    pub events_dropped: u64,
    /// Searches for providers begun.
    pub searches: u64,
    /// Provider records taken in for others.
    pub records_stored: u64,
    /// Provider records of others turned away.
    pub records_refused: u64,
}

/// The live counters, shared by the swarm task and its streams.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicU64,
    pub(crate) inbound: AtomicU64,
    pub(crate) outbound: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) foreign: AtomicU64,
    dial_failures: [AtomicU64; DialReason::ALL.len()],
    pub(crate) streams_opened: AtomicU64,
    pub(crate) streams_accepted: AtomicU64,
    pub(crate) streams_refused: AtomicU64,
    pub(crate) events_dropped: AtomicU64,
    pub(crate) searches: AtomicU64,
    pub(crate) records_stored: AtomicU64,
    pub(crate) records_refused: AtomicU64,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn dial_failed(&self, reason: DialReason) {
        if let Some(counter) = self.dial_failures.get(reason as usize) {
            count(counter);
        }
    }

    pub(crate) fn snapshot(&self) -> Metrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            connections_open: read(&self.open),
            connections_inbound: read(&self.inbound),
            connections_outbound: read(&self.outbound),
            connections_refused: read(&self.refused),
            peers_foreign: read(&self.foreign),
            dial_failures: DialReason::ALL
                .iter()
                .map(|reason| (*reason, read(&self.dial_failures[*reason as usize])))
                .filter(|(_, times)| *times > 0)
                .collect(),
            streams_opened: read(&self.streams_opened),
            streams_accepted: read(&self.streams_accepted),
            streams_refused: read(&self.streams_refused),
            events_dropped: read(&self.events_dropped),
            searches: read(&self.searches),
            records_stored: read(&self.records_stored),
            records_refused: read(&self.records_refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let counters = Counters::default();
        for reason in DialReason::ALL {
            counters.dial_failed(reason);
        }
        let failures = counters.snapshot().dial_failures;
        assert_eq!(failures.len(), DialReason::ALL.len());
        assert!(failures.values().all(|times| *times == 1));
    }
}
