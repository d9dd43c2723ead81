//! Proofs against keys: what this node holds, and what it takes from others.
//!
//! A proof that stands alone is written to the log once for each key it convicts,
//! bars the key, and goes on to others; what comes from others is checked in full
//! first ([`crate::portable`]). Keys cost nothing, so strangers' proofs are taken at
//! a pace, and only so many for ever. [`run`] is the task between the docket and the
//! network: it judges what peers pass on, passes on what is found here, and asks peers
//! that appear for the proofs they hold, since whoever was away has missed them. A fraud
//! proof is a file, which [`super::proofs`] fetches and judges first.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerproof_identity::{PeerId, PublicKey};
use peerproof_job::reputation::Fault;
use peerproof_net::limits::MAX_GOSSIP_BYTES;
use peerproof_net::{Gossip, Handle, Heard, Judgement};
use peerproof_wire::evidence::{Evidence, LogBody, LogEntry, Observation};
use peerproof_wire::{HeldFrom, LogReply, LogRequest, Message as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ledger::Ledger;
use super::logs::Talk;
use super::proofs::{Looked, Proofs};
use crate::{evidence, portable};

/// Proofs found here that wait to be passed on.
const MAX_PENDING: usize = 64;
/// Keys that strangers' proofs may convict here, for ever.
const MAX_STRANGERS: usize = 1 << 16;
/// Strangers' proofs taken at once, and how many a second after that.
const BURST: f64 = 64.0;
const PER_SECOND: f64 = 0.2;
/// Between two looks for peers to ask and proofs to pass on.
const TICK: Duration = Duration::from_secs(2);
/// A peer is asked again for what it holds after so long.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// Messages that are judged at once.
const MAX_LOOKING: usize = 64;
/// Peers asked at once.
const MAX_ASKED: usize = 32;
/// Peers whose answers are remembered.
const MAX_ASKED_PEERS: usize = 1024;

/// What became of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It convicts a key that was not convicted here.
    New,
    /// Its key is convicted already.
    Known,
    /// Too many came lately, or all in all.
    Full,
    /// It proves nothing by itself.
    Worthless,
}

/// The proofs of one node.
pub(crate) struct Docket {
    ledger: Arc<Ledger>,
    folder: PathBuf,
    /// The networks on which the convicted are not even talked to.
    nets: Mutex<Vec<Handle>>,
    state: Mutex<State>,
    outbox: mpsc::Sender<Evidence>,
}

struct State {
    convicted: HashSet<PeerId>,
    /// Where proofs stand in the log.
    places: BTreeSet<u64>,
    left: f64,
    at: Instant,
}

impl State {
    fn admit(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * PER_SECOND).min(BURST);
        self.at = now;
        let admitted = self.left >= 1.0 && self.convicted.len() < MAX_STRANGERS;
        self.left -= if admitted { 1.0 } else { 0.0 };
        admitted
    }
}

impl Docket {
    /// The docket that a log leaves, and what is to be passed on from it.
    pub(super) fn new(
        ledger: Arc<Ledger>,
        folder: PathBuf,
        history: &[LogEntry],
    ) -> (Arc<Docket>, mpsc::Receiver<Evidence>) {
        let (mut convicted, mut places) = (HashSet::new(), BTreeSet::new());
        for (place, entry) in (0u64..).zip(history) {
            if let LogBody::Evidence(evidence) = &entry.body
                && let Some(key) = convicted_by(evidence)
            {
                convicted.insert(key.peer_id());
                places.insert(place);
            }
        }
        let (outbox, pending) = mpsc::channel(MAX_PENDING);
        let state = State { convicted, places, left: BURST, at: Instant::now() };
        let (nets, state) = (Mutex::default(), Mutex::new(state));
        (Arc::new(Docket { ledger, folder, nets, state, outbox }), pending)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the networks on which the convicted are banned from here on.
    pub(super) fn watch_over<'a>(&self, nets: impl Iterator<Item = &'a Handle>) {
        self.nets.lock().unwrap_or_else(PoisonError::into_inner).extend(nets.cloned());
    }

    /// The first proof at or after a place of the log.
    pub(super) fn next_place(&self, from: u64) -> Option<u64> {
        self.state().places.range(from..).next().copied()
    }

    /// How many keys are convicted.
    pub(super) fn len(&self) -> usize {
        self.state().convicted.len()
    }

    /// Takes in a proof that this node found itself, and has it passed on.
    pub(super) async fn found(&self, evidence: Evidence) -> Admission {
        let Some(key) = convicted_by(&evidence) else { return Admission::Worthless };
        let admission = self.take(&evidence, key.peer_id(), false).await;
        if admission == Admission::New {
            // A fraud proof is a file already.
            if !matches!(evidence, Evidence::Fraud(_)) {
                let folder = self.folder.clone();
                let kept = evidence.clone();
                let writing = tokio::task::spawn_blocking(move || evidence::write(&folder, &kept));
                if let Ok(Err(error)) = writing.await {
                    tracing::warn!(%error, "a proof is in the log only");
                }
            }
            if self.outbox.try_send(evidence).is_err() {
                tracing::warn!("a proof waits for peers to ask for it");
            }
        }
        admission
    }

    /// Checks a proof that somebody passed on, and takes it in.
    async fn heard(&self, proofs: &Proofs, from: PeerId, evidence: &Evidence) -> Admission {
        let accused = match evidence {
            Evidence::Fraud(claim) => {
                let accused = claim.accused.peer_id();
                if self.state().convicted.contains(&accused) {
                    return Admission::Known;
                }
                match proofs.look(from, claim).await {
                    Looked::Convicts => accused,
                    Looked::Unseen(why) => {
                        tracing::debug!(%from, %accused, why, "a fraud proof was not looked at");
                        return Admission::Full;
                    }
                    Looked::False(why) => {
                        tracing::info!(%from, %accused, why, "a fraud proof that is none");
                        return Admission::Worthless;
                    }
                    Looked::Slander(why) => {
                        self.slandered(from, &why).await;
                        return Admission::Worthless;
                    }
                }
            }
            other => match portable::accused(other) {
                Ok(key) => key.peer_id(),
                Err(_) => return Admission::Worthless,
            },
        };
        self.take(evidence, accused, true).await
    }

    /// Whoever passes on an accusation has judged it, or should have.
    async fn slandered(&self, by: PeerId, why: &str) {
        tracing::warn!(%by, why, "a false accusation");
        let reason = format!("{}: {why}", Fault::FalseAccusation.code());
        let seen = Observation::new(by.public_key(), reason, None);
        let entry = self.ledger.remember(LogBody::Evidence(Evidence::Observation(seen)));
        let _ = self.ledger.append(&entry).await;
    }

    async fn take(&self, evidence: &Evidence, accused: PeerId, from_others: bool) -> Admission {
        {
            let mut state = self.state();
            if state.convicted.contains(&accused) {
                return Admission::Known;
            }
            if from_others && !state.admit(Instant::now()) {
                return Admission::Full;
            }
            state.convicted.insert(accused);
        }
        tracing::warn!(%accused, "a key is barred by proof");
        let entry = self.ledger.remember(LogBody::Evidence(evidence.clone()));
        if let Ok(appended) = self.ledger.append(&entry).await {
            self.state().places.insert(appended.index);
        }
        let nets = self.nets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for net in nets {
            let _ = net.ban(accused).await;
        }
        Admission::New
    }
}

/// Whom a proof in this node's own log convicts: files were judged before their claims went
/// there.
fn convicted_by(evidence: &Evidence) -> Option<PublicKey> {
    match evidence {
        Evidence::Fraud(claim) => Some(claim.accused),
        other => portable::accused(other).ok(),
    }
}

/// Carries proofs between the docket and the network until `stop` turns true.
pub(super) async fn run(
    docket: Arc<Docket>,
    net: Handle,
    mut outbox: mpsc::Receiver<Evidence>,
    mut stop: watch::Receiver<bool>,
) {
    let mut gossip = match net.gossip().await {
        Ok(gossip) => gossip,
        Err(error) => {
            tracing::error!(%error, "this node hears of no proofs");
            return;
        }
    };
    let mut ticks = tokio::time::interval(TICK);
    let mut pending: Vec<Vec<u8>> = Vec::new();
    let mut asked: HashMap<PeerId, Instant> = HashMap::new();
    let mut asking = JoinSet::new();
    let proofs = Arc::new(Proofs::new(net.clone(), docket.folder.clone()));
    let mut looking: JoinSet<(Heard, Judgement)> = JoinSet::new();
    loop {
        let step = tokio::select! {
            heard = gossip.next() => heard.map_or(Step::Stop, Step::Heard),
            Some(evidence) = outbox.recv() => Step::Found(evidence),
            _ = ticks.tick() => Step::Tick,
            Some(_) = asking.join_next() => continue,
            Some(Ok((heard, judgement))) = looking.join_next() => Step::Judged(heard, judgement),
            _ = stop.wait_for(|stop| *stop) => Step::Stop,
        };
        match step {
            // A file may take minutes to come: others are heard meanwhile.
            Step::Heard(heard) if looking.len() < MAX_LOOKING => {
                looking.spawn(judge(Arc::clone(&docket), Arc::clone(&proofs), heard));
            }
            Step::Heard(heard) => drop(gossip.judge(&heard, Judgement::Ignore).await),
            Step::Judged(heard, judgement) => drop(gossip.judge(&heard, judgement).await),
            Step::Found(evidence) => match evidence.encode() {
                Ok(bytes) if bytes.len() <= MAX_GOSSIP_BYTES => {
                    pending.push(bytes);
                    publish(&gossip, &mut pending).await;
                }
                _ => tracing::warn!("a proof is too large to be passed on"),
            },
            Step::Tick => {
                publish(&gossip, &mut pending).await;
                asked.retain(|_, until| *until > Instant::now());
                for peer in net.peers().await.unwrap_or_default() {
                    let known = asked.contains_key(&peer.peer) || asked.len() >= MAX_ASKED_PEERS;
                    if known || asking.len() >= MAX_ASKED {
                        continue;
                    }
                    asked.insert(peer.peer, Instant::now() + ASK_AGAIN);
                    let (docket, proofs) = (Arc::clone(&docket), Arc::clone(&proofs));
                    asking.spawn(catch_up(docket, proofs, net.clone(), peer.peer));
                }
            }
            Step::Stop => break,
        }
        pending.truncate(MAX_PENDING);
    }
    // What they hold of the node, its log too, is let go of before it has stopped.
    asking.shutdown().await;
    looking.shutdown().await;
}

/// What the task between docket and network does next.
enum Step {
    Heard(Heard),
    Judged(Heard, Judgement),
    Found(Evidence),
    Tick,
    Stop,
}

async fn publish(gossip: &Gossip, pending: &mut Vec<Vec<u8>>) {
    let mut left = Vec::new();
    for bytes in pending.drain(..) {
        match gossip.publish(bytes.clone()).await {
            Ok(true) => {}
            Ok(false) => left.push(bytes),
            Err(error) => tracing::warn!(%error, "a proof was not passed on"),
        }
    }
    *pending = left;
}

async fn judge(docket: Arc<Docket>, proofs: Arc<Proofs>, heard: Heard) -> (Heard, Judgement) {
    let judgement = match Evidence::decode(&heard.data) {
        Ok(evidence) => match docket.heard(&proofs, heard.from, &evidence).await {
            Admission::New => Judgement::Accept,
            Admission::Known | Admission::Full => Judgement::Ignore,
            Admission::Worthless => Judgement::Reject,
        },
        Err(_) => Judgement::Reject,
    };
    if judgement == Judgement::Reject {
        tracing::debug!(from = %heard.from, "a worthless proof");
    }
    (heard, judgement)
}

/// Asks a peer for all proofs it holds, as far as the pace allows.
async fn catch_up(docket: Arc<Docket>, proofs: Arc<Proofs>, net: Handle, peer: PeerId) {
    let Ok(mut talk) = Talk::open(&net, peer).await else { return };
    let mut index = 0;
    for _ in 0..MAX_STRANGERS {
        let Ok(LogReply::Held(proof)) = talk.ask(&LogRequest::Held(HeldFrom { index })).await
        else {
            return;
        };
        let Some(next) = proof.index.checked_add(1).filter(|next| *next > index) else { return };
        index = next;
        match docket.heard(&proofs, peer, &proof.evidence).await {
            Admission::New | Admission::Known => {}
            // A peer that hands out what proves nothing has nothing to say.
            Admission::Full | Admission::Worthless => return,
        }
    }
}
