//! The node's log as others read it, and its desk as a witness of theirs.
//!
//! The HTTP API and the protocol between nodes ask here, so one set of rules
//! holds for both: who asks too often is put off before anything is read, a
//! checkpoint goes out with the cosignatures there are of it, and a request to
//! cosign is judged and kept on a thread that may wait for the disk. Absent: how
//! the node gets its own log witnessed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use peerproof_identity::{PeerId, PublicKey};
use peerproof_log::{AddCheckpoint, Refusal, Resource, SignedCheckpoint};
use peerproof_wire::evidence::{Evidence, LogBody};

use super::clock::Clock;
use super::docket::Docket;
use crate::client::{Cosigner, LogStatus};
use crate::log::{Declined, Piece, Unreadable, cosigners};
use crate::portable;
use crate::store::{LogWriter, StoreError, WitnessError, WitnessStore, cosigned};

/// Askers whose pace is remembered; beyond that the one at rest longest is forgotten.
const MAX_PACED: usize = 1024;

/// Who asks, for the pace of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// Anybody, by HTTP.
    Http,
    /// A connected peer.
    Peer(PeerId),
}

/// How much one asker may ask at once, and how much a second from then on.
#[derive(Clone, Copy, Debug)]
struct Pace {
    burst: f64,
    per_second: f64,
}

const READS: Pace = Pace { burst: 128.0, per_second: 32.0 };
const HTTP_READS: Pace = Pace { burst: 1024.0, per_second: 256.0 };
const COSIGNING: Pace = Pace { burst: 8.0, per_second: 0.5 };
const HTTP_COSIGNING: Pace = Pace { burst: 64.0, per_second: 8.0 };

/// Token buckets, one for each asker and kind of question.
#[derive(Debug, Default)]
struct Buckets(HashMap<(Asker, bool), (f64, Instant)>);

impl Buckets {
    fn admit(&mut self, asker: Asker, cosigning: bool, now: Instant) -> bool {
        let pace = match (asker, cosigning) {
            (Asker::Http, false) => HTTP_READS,
            (Asker::Http, true) => HTTP_COSIGNING,
            (Asker::Peer(_), false) => READS,
            (Asker::Peer(_), true) => COSIGNING,
        };
        let key = (asker, cosigning);
        if self.0.len() >= MAX_PACED && !self.0.contains_key(&key) {
            let rested = self.0.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key);
            if let Some(rested) = rested {
                self.0.remove(&rested);
            }
        }
        let (left, at) = self.0.entry(key).or_insert((pace.burst, now));
        let since = now.saturating_duration_since(*at).as_secs_f64();
        *left = (*left + since * pace.per_second).min(pace.burst);
        *at = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

pub(crate) struct Archive {
    clock: Clock,
    key: PublicKey,
    log: Arc<LogWriter>,
    witness: Arc<WitnessStore>,
    docket: Arc<Docket>,
    /// The newest checkpoint of this log with signatures of witnesses.
    cosigned: Mutex<Option<SignedCheckpoint>>,
    /// How many could be asked at the start what they saw of this log; -1 before.
    asked: AtomicI64,
    buckets: Mutex<Buckets>,
}

impl Archive {
    pub(crate) fn new(
        clock: Clock,
        key: PublicKey,
        log: Arc<LogWriter>,
        witness: Arc<WitnessStore>,
        docket: Arc<Docket>,
    ) -> Result<Archive, StoreError> {
        let newest = Mutex::new(cosigned::read(log.dir(), &key)?);
        let buckets = Mutex::default();
        let asked = AtomicI64::new(-1);
        Ok(Archive { clock, key, log, witness, docket, cosigned: newest, asked, buckets })
    }

    fn admit(&self, asker: Asker, cosigning: bool) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.admit(asker, cosigning, Instant::now())
    }

    fn cosigned_slot(&self) -> MutexGuard<'_, Option<SignedCheckpoint>> {
        self.cosigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest checkpoint of this log that others cosigned.
    pub(crate) fn cosigned(&self) -> Option<SignedCheckpoint> {
        self.cosigned_slot().clone()
    }

    /// Takes a newer one in.
    pub(crate) fn vouched(&self, note: SignedCheckpoint) {
        *self.cosigned_slot() = Some(note);
    }

    /// Who cosigned that one, and when, in seconds since 1970.
    pub(crate) fn cosigners(&self) -> Vec<(PeerId, u64)> {
        self.cosigned().map_or_else(Vec::new, |note| cosigners(&note))
    }

    /// So many could be asked at the start what they saw of this log.
    pub(crate) fn started(&self, asked: usize) {
        self.asked.store(i64::try_from(asked).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// What the status says of the log.
    pub(crate) fn status(&self) -> LogStatus {
        let cosigned = self.cosigned();
        let cosigners = cosigned.as_ref().map_or_else(Vec::new, cosigners);
        LogStatus {
            cosigned_entries: cosigned.map_or(0, |note| note.size()),
            cosigners: cosigners
                .into_iter()
                .map(|(peer, unix_s)| Cosigner { peer: peer.to_string(), unix_s })
                .collect(),
            asked_at_start: u32::try_from(self.asked.load(Ordering::Relaxed)).ok(),
            witnessed: self.witness.followed(),
            convicted: self.docket.len(),
            fault: self.log.damage().map(ToString::to_string),
        }
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.key
    }

    pub(crate) fn log(&self) -> &Arc<LogWriter> {
        &self.log
    }

    /// A piece of this log by its path, as C2SP tlog-tiles names it; `None` if there is no such
    /// thing, or not yet.
    pub(crate) async fn read(&self, asker: Asker, path: &str) -> Result<Option<Piece>, Unreadable> {
        if !self.admit(asker, false) {
            return Err(Unreadable::TooFast);
        }
        let Some(resource) = Resource::parse(path) else { return Ok(None) };
        let Some(bytes) = self.log.resource(resource).await.map_err(failed)? else {
            return Ok(None);
        };
        let is_checkpoint = resource == Resource::Checkpoint;
        let vouched = match is_checkpoint {
            true => self.cosigned().filter(|newest| bytes.starts_with(first_lines(newest))),
            false => None,
        };
        let bytes = vouched.map_or(bytes, |note| note.note().as_bytes().to_vec());
        Ok(Some(Piece { bytes, is_checkpoint }))
    }

    /// The last checkpoint of a log that this node cosigned.
    pub(crate) fn last_seen(
        &self,
        asker: Asker,
        log: &PeerId,
    ) -> Result<Option<String>, Unreadable> {
        if !self.admit(asker, false) {
            return Err(Unreadable::TooFast);
        }
        Ok(self.witness.last(log).map(|note| note.note().to_owned()))
    }

    /// The first proof that stands at or after a place of this log, and where.
    pub(crate) async fn held(
        &self,
        asker: Asker,
        from: u64,
    ) -> Result<Option<(u64, Evidence)>, Unreadable> {
        if !self.admit(asker, false) {
            return Err(Unreadable::TooFast);
        }
        let Some(index) = self.docket.next_place(from) else { return Ok(None) };
        match self.log.entry(index).await.map_err(failed)?.body {
            LogBody::Evidence(evidence) => Ok(Some((index, evidence))),
            _ => Ok(None),
        }
    }

    /// Cosigns a checkpoint of another's log; gives back the line with the signature. A peer may
    /// bring its own log only: who pays with a connection for each log can't fill the table for
    /// others.
    pub(crate) async fn add_checkpoint(
        &self,
        asker: Asker,
        body: &[u8],
    ) -> Result<String, Declined> {
        if !self.admit(asker, true) {
            return Err(Declined::new(429, "too many checkpoints at once; come again later"));
        }
        let request = AddCheckpoint::parse(body).map_err(|refusal| refused(&refusal))?;
        let named = SignedCheckpoint::open(&request.checkpoint).ok().map(|note| note.signer());
        if let (Asker::Peer(peer), Some(signer)) = (asker, named)
            && signer.peer_id() != peer
        {
            return Err(Declined::new(403, "a peer brings checkpoints of its own log only"));
        }
        let (witness, unix_s) = (Arc::clone(&self.witness), self.clock.unix_ms() / 1000);
        let cosigning = tokio::task::spawn_blocking(move || witness.cosign(&request, unix_s));
        match cosigning.await {
            Ok(Ok(line)) => Ok(format!("{line}\n")),
            Ok(Err(WitnessError::Refused(refusal))) => {
                if let Refusal::Fork(fork) = &refusal
                    && let Some(proof) = portable::evidence(fork)
                {
                    self.docket.found(proof).await;
                }
                let last = named.and_then(|signer| self.witness.last(&signer.peer_id()));
                let last = last.map(|note| (note.size(), note.note().to_owned()));
                Err(Declined { last, ..refused(&refusal) })
            }
            Ok(Err(lost @ WitnessError::Lost { .. })) => Err(Declined::new(503, lost.to_string())),
            Ok(Err(error)) => {
                tracing::error!(%error, "a checkpoint could not be kept");
                Err(Declined::new(500, "this witness can't write at the moment"))
            }
            Err(_) => Err(Declined::new(500, "this witness is stopping")),
        }
    }
}

fn failed(error: StoreError) -> Unreadable {
    tracing::error!(%error, "a piece of the log could not be read");
    Unreadable::Failed { message: "the log can't be read at the moment".into() }
}

fn refused(refusal: &Refusal) -> Declined {
    Declined::new(refusal.status(), refusal.to_string())
}

/// What the signatures of a note cover, and the empty line after it.
fn first_lines(note: &SignedCheckpoint) -> &[u8] {
    let text = note.note();
    let end = text.find("\n\n").map_or(text.len(), |end| end + 2);
    &text.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn peer(seed: u8) -> Asker {
        Asker::Peer(peerproof_identity::Keypair::from_seed(&[seed; 32]).public().peer_id())
    }

    #[test]
    fn a_flood_is_put_off_and_others_are_not() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let admitted = (0..100).filter(|_| buckets.admit(peer(1), true, start)).count();
        assert_eq!(admitted, 8);
        assert!(buckets.admit(peer(2), true, start), "another peer");
        assert!(buckets.admit(peer(1), false, start), "another kind of question");
        assert!(buckets.admit(peer(1), true, start + Duration::from_secs(2)), "later");
    }

    #[test]
    fn the_memory_of_paces_is_bounded() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        for number in 0..3 * MAX_PACED {
            let seed = blake3::hash(&number.to_le_bytes());
            let key = peerproof_identity::Keypair::from_seed(seed.as_bytes()).public();
            buckets.admit(Asker::Peer(key.peer_id()), false, start);
        }
        assert_eq!(buckets.0.len(), MAX_PACED);
    }
}
