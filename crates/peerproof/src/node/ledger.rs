//! The log and what is derived from it, kept in step.
//!
//! Whatever this node finds out about others is remembered at once and then
//! appended: a disk that fails does not make a cheat welcome again before the
//! next start. Whoever has jobs with a peer hears at once when it is barred or
//! welcome again ([`Ledger::bars`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerproof_identity::PeerId;
use peerproof_job::reputation::{AuditorStanding, Explanation, concerned};
use peerproof_job::{Reputation, Standing};
use peerproof_wire::Digest;
use peerproof_wire::evidence::{LogBody, LogEntry};
use tokio::sync::broadcast;

use super::clock::Clock;
use crate::config;
use crate::store::{Appended, LogWriter, StoreError};

/// Changes that wait for a slow listener; one that misses some hears of them when it looks again.
const MAX_CHANGES: usize = 1024;

/// Somebody is barred, or no longer.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) peer: PeerId,
    /// Why, if it is.
    pub(crate) barred: Option<String>,
}

/// What this node has done and seen.
pub(super) struct Ledger {
    clock: Clock,
    log: Arc<LogWriter>,
    reputation: Mutex<Reputation>,
    changes: broadcast::Sender<Change>,
}

impl Ledger {
    pub(super) fn new(
        clock: Clock,
        log: &Arc<LogWriter>,
        history: &[LogEntry],
        terms: &config::Reputation,
    ) -> Ledger {
        let reputation = Mutex::new(Reputation::replay_with(terms.rules(), history));
        let (changes, _) = broadcast::channel(MAX_CHANGES);
        Ledger { clock, log: Arc::clone(log), reputation, changes }
    }

    fn reputation(&self) -> MutexGuard<'_, Reputation> {
        self.reputation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self, peer: &PeerId) -> Standing {
        self.reputation().standing(peer, self.clock.unix_ms())
    }

    pub(super) fn auditor(&self, peer: &PeerId) -> AuditorStanding {
        self.reputation().auditor(peer, self.clock.unix_ms())
    }

    pub(super) fn explain(&self, peer: &PeerId) -> Explanation {
        self.reputation().explain(peer, self.clock.unix_ms())
    }

    /// Receipts of a peer that are said to be wrong, and not refuted.
    pub(super) fn accused_receipts(&self, peer: &PeerId) -> Vec<Digest> {
        self.reputation().accused_receipts(peer)
    }

    /// Everybody who is never chosen, with the reason.
    pub(super) fn barred(&self) -> Vec<(PeerId, String)> {
        self.reputation().barred().collect()
    }

    /// Whoever is barred or welcome again from here on.
    pub(super) fn bars(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Takes something into account; [`Ledger::append`] then makes it last.
    pub(super) fn remember(&self, body: LogBody) -> LogEntry {
        let unix_ms = self.clock.unix_ms();
        let entry = LogEntry { unix_ms, body };
        let mut reputation = self.reputation();
        let peers = concerned(&entry);
        let bars = |reputation: &Reputation| -> Vec<Option<String>> {
            peers.iter().map(|peer| reputation.standing(peer, unix_ms).barred).collect()
        };
        let before = bars(&reputation);
        reputation.note(&entry);
        let after = bars(&reputation);
        drop(reputation);
        for ((peer, before), barred) in peers.iter().zip(before).zip(after) {
            if before.is_some() != barred.is_some() {
                // Nobody has to listen.
                let _ = self.changes.send(Change { peer: *peer, barred });
            }
        }
        entry
    }

    pub(super) async fn append(&self, entry: &LogEntry) -> Result<Appended, StoreError> {
        self.log.append(entry).await.inspect_err(|error| {
            tracing::error!(%error, "an entry could not be logged");
        })
    }

    /// Remembers and appends.
    pub(super) async fn record(&self, body: LogBody) -> Result<Appended, StoreError> {
        let entry = self.remember(body);
        self.append(&entry).await
    }

    /// Entries of the log.
    pub(super) async fn len(&self) -> u64 {
        self.log.size().await.unwrap_or(0)
    }

    /// An entry by its place.
    pub(super) async fn entry(&self, index: u64) -> Result<LogEntry, StoreError> {
        self.log.entry(index).await
    }
}
