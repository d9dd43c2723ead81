//! Getting this node's log witnessed, and held against what witnesses saw.
//!
//! Before a provider or auditor signs anything after a start, [`Witnessing::before_signing`]
//! asks whom it can reach for the last checkpoint of this log that they cosigned: those
//! who witnessed it before, the peers it is told to start from, and whoever else is
//! connected. One that the log does not continue fences it. Afterwards [`run`] keeps a
//! few connected peers as witnesses and has them cosign the log in the background, so no
//! receipt waits for it; what they refuse with is held against the log again. Who answers
//! "none" or not at all proves nothing: the node goes on and its status says so.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_log::{AddCheckpoint, SignedCheckpoint, witness};
use peerproof_net::{Address, Event, Events, Handle, PeerInfo};
use peerproof_wire::{LogReply, LogRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::archive::Archive;
use super::logs::{Talk, Trouble};
use crate::store::{StoreError, cosigned, write_atomic};

/// How long a start waits for what others saw of the log.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for somebody of the local network to show up at all.
const MDNS_PATIENCE: Duration = Duration::from_millis(1500);
/// Peers asked at a start.
const MAX_ASKED: usize = 16;
/// A peer that does not speak of logs is not asked again for so long.
const LONG_REST: Duration = Duration::from_secs(600);
/// One that did not answer, or refused, at most so long.
const REST: Duration = Duration::from_secs(60);
/// Peers whose refusal is remembered.
const MAX_RESTING: usize = 1024;
/// A peer that has just connected gets so long to be ready.
const SETTLE: Duration = Duration::from_millis(200);

/// The file of those who witnessed this log, one address a line.
const REMEMBERED: &str = "witnesses";
/// Bytes of that file that are read.
const MAX_REMEMBERED_BYTES: usize = 16 << 10;

/// What witnessing needs of the node.
#[derive(Clone)]
pub(super) struct Witnessing {
    pub(super) net: Handle,
    pub(super) archive: Arc<Archive>,
    /// How many witnesses are wanted.
    pub(super) wanted: usize,
    /// Between two rounds while the log grows.
    pub(super) every: Duration,
    /// Whether peers of the local network may show up by themselves.
    pub(super) mdns: bool,
}

impl Witnessing {
    /// Holds the log against what others saw of it. Returns how many could be asked.
    ///
    /// # Errors
    /// The log does not continue what somebody cosigned; it is fenced now.
    pub(super) async fn before_signing(&self, seeds: Vec<Address>) -> Result<usize, StoreError> {
        let mut asking = JoinSet::new();
        for address in seeds.into_iter().chain(self.remembered()).take(MAX_ASKED) {
            let this = self.clone();
            asking.spawn(async move {
                let peer = this.net.dial(address).await.ok()?;
                this.seen_by(peer).await.ok()
            });
        }
        let this = self.clone();
        let patience = if self.mdns { MDNS_PATIENCE } else { Duration::ZERO };
        asking.spawn(async move { this.seen_by_others(patience).await });
        let deadline = Instant::now() + START_PATIENCE;
        let mut asked = BTreeSet::new();
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, asking.join_next()).await {
            for (peer, note) in done.ok().flatten().into_iter().flatten() {
                asked.insert(peer);
                if let Some(note) = note {
                    self.archive.log().confront(note).await?;
                }
            }
        }
        self.archive.started(asked.len());
        // A log that holds nothing is what a new key begins with.
        if asked.is_empty() && self.archive.log().size().await? > 0 {
            tracing::warn!("nobody could be asked what they saw of this node's log");
        }
        Ok(asked.len())
    }

    /// The last checkpoint of this log that a peer cosigned.
    async fn seen_by(&self, peer: PeerId) -> Result<Seen, Trouble> {
        let mut talk = Talk::open(&self.net, peer).await?;
        let note = last_seen(&mut talk, &self.archive).await?;
        Ok(vec![(peer, note)])
    }

    /// The same of those who are connected by other ways.
    async fn seen_by_others(&self, patience: Duration) -> Option<Seen> {
        tokio::time::sleep(patience).await;
        let mut asking = JoinSet::new();
        for peer in self.net.peers().await.ok()?.into_iter().take(MAX_ASKED) {
            let this = self.clone();
            asking.spawn(async move { this.seen_by(peer.peer).await.ok() });
        }
        let all = asking.join_all().await;
        Some(all.into_iter().flatten().flatten().collect())
    }

    fn file(&self) -> PathBuf {
        self.archive.log().dir().join(REMEMBERED)
    }

    fn remembered(&self) -> Vec<Address> {
        let text = std::fs::read(self.file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(MAX_REMEMBERED_BYTES)]);
        text.lines().filter_map(|line| line.parse().ok()).take(MAX_ASKED).collect()
    }
}

/// Who cosigned what of this log last.
type Seen = Vec<(PeerId, Option<SignedCheckpoint>)>;

async fn last_seen(
    talk: &mut Talk,
    archive: &Archive,
) -> Result<Option<SignedCheckpoint>, Trouble> {
    match talk.ask(&LogRequest::Cosigned(archive.key())).await? {
        LogReply::Found(note) => {
            let opened = SignedCheckpoint::open_of(&note, &archive.key());
            Ok(Some(opened.map_err(|e| e.to_string())?))
        }
        LogReply::Refused(refusal) if refusal.status == 404 => Ok(None),
        LogReply::Refused(refusal) => Err(refusal.message.into()),
        LogReply::Held(_) => Err("an answer to another question".to_owned().into()),
    }
}

/// Keeps the log witnessed until `stop` turns true, or the log is fenced.
pub(super) async fn run(
    witnessing: Witnessing,
    mut events: Events,
    mut stop: watch::Receiver<bool>,
) {
    let mut growth = witnessing.archive.log().growth();
    let every = witnessing.every;
    let mut rounds = Rounds { witnessing, witnesses: Vec::new(), resting: HashMap::new() };
    let mut next = Some(Instant::now());
    let mut last: Option<Instant> = None;
    loop {
        let mut is_due = false;
        let due = tokio::select! {
            event = events.next() => match event {
                Some(Event::PeerConnected { .. } | Event::Missed(_)) if rounds.are_few() => {
                    Some(Instant::now() + SETTLE)
                }
                Some(_) => None,
                None => return,
            },
            changed = growth.changed() => match changed {
                Ok(()) => Some(last.map_or_else(Instant::now, |last| last + every)),
                Err(_) => return,
            },
            () = super::sleep_until(next) => {
                is_due = true;
                None
            }
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Some(due) = due {
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        if !is_due {
            continue;
        }
        (next, last) = (None, Some(Instant::now()));
        let round = tokio::select! {
            round = rounds.round() => round,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = round {
            tracing::error!(%error, "this node's log is not witnessed any more");
            return;
        }
        if rounds.are_few() || rounds.are_behind() {
            next = Some(Instant::now() + every);
        }
    }
}

/// A witness of this log, and how much of it that one cosigned last.
struct Chosen {
    peer: PeerId,
    size: u64,
}

struct Rounds {
    witnessing: Witnessing,
    witnesses: Vec<Chosen>,
    resting: HashMap<PeerId, Instant>,
}

impl Rounds {
    fn are_few(&self) -> bool {
        self.witnesses.len() < self.witnessing.wanted
    }

    fn are_behind(&self) -> bool {
        let size = *self.witnessing.archive.log().growth().borrow();
        self.witnesses.iter().any(|witness| witness.size < size)
    }

    /// Finds witnesses if there are too few, and has all of them cosign the log as it is.
    async fn round(&mut self) -> Result<(), StoreError> {
        let connected = self.witnessing.net.peers().await.unwrap_or_default();
        self.witnesses.retain(|w| connected.iter().any(|peer| peer.peer == w.peer));
        self.choose(&connected).await?;
        if self.witnesses.is_empty() {
            return Ok(());
        }
        let archive = Arc::clone(&self.witnessing.archive);
        let olds = self.witnesses.iter().map(|witness| witness.size).collect();
        let requests = archive.log().requests(olds).await?;
        let mut asking = JoinSet::new();
        for (chosen, request) in self.witnesses.iter().zip(requests) {
            let (net, peer) = (self.witnessing.net.clone(), chosen.peer);
            asking.spawn(async move { (peer, cosign(&net, peer, request).await) });
        }
        let mut vouched: Option<SignedCheckpoint> = None;
        for (peer, answer) in asking.join_all().await {
            match answer {
                Ok(Answer::Cosigned(note)) => {
                    self.advance(peer, note.size());
                    vouched = Some(match vouched {
                        Some(all) => joined(&all, &note),
                        None => *note,
                    });
                }
                Ok(Answer::Saw(note)) => {
                    let size = note.size();
                    archive.log().confront(*note).await?;
                    self.advance(peer, size);
                }
                Err(trouble) => self.dismiss(peer, &trouble),
            }
        }
        if let Some(note) = vouched {
            self.keep(note, &connected).await?;
        }
        Ok(())
    }

    fn advance(&mut self, peer: PeerId, size: u64) {
        for witness in self.witnesses.iter_mut().filter(|witness| witness.peer == peer) {
            witness.size = size;
        }
    }

    fn dismiss(&mut self, peer: PeerId, trouble: &Trouble) {
        tracing::debug!(%peer, reason = trouble.reason, "not a witness of this log");
        self.witnesses.retain(|witness| witness.peer != peer);
        self.resting.retain(|_, until| *until > Instant::now());
        if self.resting.len() < MAX_RESTING {
            let rest = if trouble.is_foreign { LONG_REST } else { self.witnessing.every.min(REST) };
            self.resting.insert(peer, Instant::now() + rest);
        }
    }

    /// Takes connected peers on, those who witnessed this log before first.
    async fn choose(&mut self, connected: &[PeerInfo]) -> Result<(), StoreError> {
        let before: Vec<PeerId> = self.witnessing.archive.cosigners().iter().map(|c| c.0).collect();
        let mut peers: Vec<PeerId> = connected.iter().map(|peer| peer.peer).collect();
        peers.sort_by_key(|peer| !before.contains(peer));
        for peer in peers {
            if !self.are_few() {
                break;
            }
            let resting = self.resting.get(&peer).is_some_and(|until| *until > Instant::now());
            if resting || self.witnesses.iter().any(|witness| witness.peer == peer) {
                continue;
            }
            match self.witnessing.seen_by(peer).await {
                Err(trouble) => self.dismiss(peer, &trouble),
                Ok(seen) => {
                    let mut size = 0;
                    for note in seen.into_iter().filter_map(|(_, note)| note) {
                        size = note.size();
                        self.witnessing.archive.log().confront(note).await?;
                    }
                    self.witnesses.push(Chosen { peer, size });
                }
            }
        }
        Ok(())
    }

    /// Makes a cosigned checkpoint last, and who cosigned it.
    async fn keep(&self, note: SignedCheckpoint, connected: &[PeerInfo]) -> Result<(), StoreError> {
        let of_witness = |peer: &&PeerInfo| self.witnesses.iter().any(|w| w.peer == peer.peer);
        let addresses: String = connected
            .iter()
            .filter(of_witness)
            .filter_map(|peer| Some((peer.peer, peer.addresses.first()?)))
            .map(|(peer, address)| format!("{}\n", address.with_peer(peer)))
            .collect();
        let (dir, file) = (self.witnessing.archive.log().dir().to_owned(), self.witnessing.file());
        let kept = note.clone();
        let writing = tokio::task::spawn_blocking(move || {
            write_atomic(&file, addresses.as_bytes(), 0o600)?;
            cosigned::write(&dir, &kept)
        });
        writing.await.map_err(|_| StoreError::Closed)??;
        self.witnessing.archive.vouched(note);
        Ok(())
    }
}

/// What a witness said.
enum Answer {
    /// The checkpoint, with its cosignature.
    Cosigned(Box<SignedCheckpoint>),
    /// It cosigned another one last.
    Saw(Box<SignedCheckpoint>),
}

async fn cosign(net: &Handle, peer: PeerId, request: AddCheckpoint) -> Result<Answer, Trouble> {
    let mut talk = Talk::open(net, peer).await?;
    let own = SignedCheckpoint::open(&request.checkpoint).map_err(|e| e.to_string())?;
    match talk.ask(&LogRequest::AddCheckpoint(request.to_bytes())).await? {
        LogReply::Found(line) => {
            let line = String::from_utf8(line).map_err(|e| e.to_string())?;
            let note = format!("{}{line}", own.note());
            let note = SignedCheckpoint::open(note.as_bytes()).map_err(|e| e.to_string())?;
            witness::cosigned(&note, &peer.public_key()).map_err(|e| e.to_string())?;
            Ok(Answer::Cosigned(Box::new(note)))
        }
        LogReply::Refused(refusal) if refusal.status == 409 && !refusal.last.is_empty() => {
            let last = SignedCheckpoint::open_of(refusal.last.as_bytes(), &own.signer());
            Ok(Answer::Saw(Box::new(last.map_err(|e| e.to_string())?)))
        }
        LogReply::Refused(refusal) => Err(refusal.message.into()),
        LogReply::Held(_) => Err("an answer to another question".to_owned().into()),
    }
}

/// One checkpoint with the cosignatures of both.
fn joined(one: &SignedCheckpoint, other: &SignedCheckpoint) -> SignedCheckpoint {
    let mut more = other.signatures().unwrap_or_default();
    let have = one.signatures().unwrap_or_default();
    more.retain(|line| !have.contains(line));
    if one.checkpoint() != other.checkpoint() {
        return one.clone();
    }
    one.with_signatures(&more).unwrap_or_else(|_| one.clone())
}
