//! The log and what is derived from it, kept in step.
//!
//! Whatever this node finds out about others is remembered at once and then
//! appended: a disk that fails does not make a cheat welcome again before the
//! next start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerproof_identity::PeerId;
use peerproof_job::{Reputation, Standing};
use peerproof_wire::evidence::{LogBody, LogEntry};

use super::clock::Clock;
use crate::store::{Appended, LogWriter, StoreError};

/// What this node has done and seen.
pub(super) struct Ledger {
    clock: Clock,
    log: Arc<LogWriter>,
    reputation: Mutex<Reputation>,
}

impl Ledger {
    pub(super) fn new(clock: Clock, log: Arc<LogWriter>, history: &[LogEntry]) -> Ledger {
        Ledger { clock, log, reputation: Mutex::new(Reputation::replay(history)) }
    }

    fn reputation(&self) -> MutexGuard<'_, Reputation> {
        self.reputation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self, peer: &PeerId) -> Standing {
        self.reputation().standing(peer, self.clock.unix_ms())
    }

    /// Everybody who is never chosen, with the reason.
    pub(super) fn barred(&self) -> Vec<(PeerId, String)> {
        self.reputation().barred().map(|(peer, why)| (*peer, why.to_owned())).collect()
    }

    /// Takes something into account; [`Ledger::append`] then makes it last.
    pub(super) fn remember(&self, body: LogBody) -> LogEntry {
        let entry = LogEntry { unix_ms: self.clock.unix_ms(), body };
        self.reputation().note(&entry);
        entry
    }

    pub(super) async fn append(&self, entry: &LogEntry) -> Result<Appended, StoreError> {
        self.log.append(entry).await.inspect_err(|error| {
            tracing::error!(%error, "an entry could not be logged");
        })
    }

    /// Entries of the log.
    pub(super) async fn len(&self) -> u64 {
        self.log.size().await.unwrap_or(0)
    }
}
