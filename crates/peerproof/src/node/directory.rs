//! Who serves and audits what, as far as this node knows.
//!
//! Peers are asked for their announcement when they appear (by mDNS, by a
//! connection, by a search) and again when what they said has aged. A search
//! hands out what is known at once and then what the network adds. An
//! announcement is signed by the peer it speaks for and carries the asker's
//! nonce, so none can be forged, borrowed or replayed. What it says of load is
//! advice; what it says of a model's name binds nobody: jobs name ids.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peerproof_identity::PeerId;
use peerproof_net::{FrameLimits, Handle};
use peerproof_wire::{Announcement, INFO_PROTOCOL, InfoReply, InfoRequest, Message as _, ModelId};
use tokio::sync::{Semaphore, mpsc};

use crate::home::random_seed;

/// An announcement older than this is asked for again before its load is believed.
const FRESH: Duration = Duration::from_secs(5);
/// A peer that has not been heard of for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Most peers that are remembered.
const MAX_KNOWN: usize = 4096;
/// Announcements asked for at once.
const MAX_ASKING: usize = 16;
/// With so many fresh ones at hand the network is asked only after [`LAZY`].
const ENOUGH: usize = 2;
/// Most answers are complete before.
const LAZY: Duration = Duration::from_secs(1);
/// A search that found somebody ends when nobody else was found for so long.
const SETTLE: Duration = Duration::from_millis(700);
/// For one announcement, connection included.
const ASK_TIMEOUT: Duration = Duration::from_secs(4);

/// What one peer said last.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) announcement: Announcement,
    pub(crate) heard: Instant,
    /// Since when its VRF key is this one.
    pub(crate) key_since: Instant,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Providers of a model.
    Served(ModelId),
    /// Providers of anything by this name.
    Named(String),
    /// Auditors of a model.
    Audited(ModelId),
}

impl Wanted {
    /// Where the network keeps the answer.
    pub(crate) fn key(&self) -> [u8; 32] {
        let (tag, name) = match self {
            Wanted::Served(id) => ("peerproof key of a served model v1", id.as_bytes().to_vec()),
            Wanted::Named(name) => {
                ("peerproof key of a model name v1", name.to_ascii_lowercase().into_bytes())
            }
            Wanted::Audited(id) => ("peerproof key of an audited model v1", id.as_bytes().to_vec()),
        };
        blake3::derive_key(tag, &name)
    }

    pub(crate) fn matches(&self, announcement: &Announcement) -> bool {
        match self {
            Wanted::Served(id) => announcement.serves.iter().any(|m| m.model_id == *id),
            Wanted::Named(name) => {
                announcement.serves.iter().any(|m| m.name.eq_ignore_ascii_case(name))
            }
            Wanted::Audited(id) => announcement.audits.iter().any(|m| m.model_id == *id),
        }
    }
}

fn same_key(was: &Known, announcement: &Announcement) -> bool {
    was.announcement.vrf_key == announcement.vrf_key
}

/// The node's knowledge of others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Directory {
    net: Handle,
    known: Arc<Mutex<HashMap<PeerId, Known>>>,
    asking: Arc<Semaphore>,
}

impl Directory {
    pub(crate) fn new(net: Handle) -> Directory {
        Directory { net, known: Arc::default(), asking: Arc::new(Semaphore::new(MAX_ASKING)) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was heard and not forgotten.
    pub(crate) fn all(&self) -> Vec<(PeerId, Known)> {
        let mut known = self.lock();
        known.retain(|_, known| known.heard.elapsed() < FORGET);
        known.iter().map(|(peer, known)| (*peer, known.clone())).collect()
    }

    /// What is known to match, without asking anybody.
    pub(crate) fn matching(&self, wanted: &Wanted) -> Vec<(PeerId, Known)> {
        self.all().into_iter().filter(|(_, known)| wanted.matches(&known.announcement)).collect()
    }

    /// Of those, the ones whose figures can still be believed.
    pub(crate) fn fresh(&self, wanted: &Wanted) -> Vec<(PeerId, Known)> {
        let mut fresh = self.matching(wanted);
        fresh.retain(|(_, known)| known.heard.elapsed() <= FRESH);
        fresh
    }

    /// Asks a peer for its announcement and remembers it.
    pub(crate) async fn refresh(&self, peer: PeerId) -> Option<Known> {
        let _slot = self.asking.acquire().await.ok()?;
        match tokio::time::timeout(ASK_TIMEOUT, self.ask(peer)).await {
            Ok(Ok(announcement)) => {
                let heard = Instant::now();
                let mut all = self.lock();
                let before = all.get(&peer).filter(|was| same_key(was, &announcement));
                let key_since = before.map_or(heard, |was| was.key_since);
                let known = Known { announcement, heard, key_since };
                if all.len() >= MAX_KNOWN && !all.contains_key(&peer) {
                    all.retain(|_, known| known.heard.elapsed() < FRESH);
                }
                if all.len() < MAX_KNOWN {
                    all.insert(peer, known.clone());
                }
                Some(known)
            }
            Ok(Err(reason)) => {
                tracing::debug!(%peer, reason, "no announcement");
                self.lock().remove(&peer);
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "no announcement in time");
                self.lock().remove(&peer);
                None
            }
        }
    }

    async fn ask(&self, peer: PeerId) -> Result<Announcement, String> {
        let nonce = random_seed();
        let mut stream = self
            .net
            .open(peer, INFO_PROTOCOL, ASK_TIMEOUT, FrameLimits::default())
            .await
            .map_err(|e| e.to_string())?;
        let request = InfoRequest { nonce }.encode().map_err(|e| e.to_string())?;
        stream.send(&request).await.map_err(|e| e.to_string())?;
        let frame = stream.recv().await.map_err(|e| e.to_string())?.ok_or("closed")?;
        let reply = InfoReply::decode(&frame).map_err(|e| e.to_string())?;
        if reply.announcement.key().peer_id() != peer {
            return Err("signed by another key".into());
        }
        if reply.announcement.nonce != nonce {
            return Err("answers another question".into());
        }
        Ok(reply.announcement.statement().clone())
    }

    /// Peers that match: those known at once, then those the network finds, each once its
    /// announcement is fresh. Ends when the network has no more or `deadline` passes. If
    /// enough are at hand the network is asked a moment later, unless the search is to `widen`.
    pub(crate) fn search(
        &self,
        wanted: Wanted,
        deadline: Duration,
        widen: bool,
    ) -> mpsc::Receiver<(PeerId, Known)> {
        let (found, results) = mpsc::channel(64);
        let directory = self.clone();
        tokio::spawn(async move {
            let search = directory.clone().run_search(wanted, deadline, widen, found);
            let _ = tokio::time::timeout(deadline, search).await;
        });
        results
    }

    async fn run_search(
        self,
        wanted: Wanted,
        deadline: Duration,
        widen: bool,
        found: mpsc::Sender<(PeerId, Known)>,
    ) {
        let mut seen = Vec::new();
        let mut tasks = tokio::task::JoinSet::new();
        let answered = Arc::new(AtomicUsize::new(0));
        for (peer, known) in self.matching(&wanted) {
            seen.push(peer);
            if known.heard.elapsed() > FRESH {
                tasks.spawn(self.clone().report(
                    peer,
                    wanted.clone(),
                    found.clone(),
                    Arc::clone(&answered),
                ));
            } else if found.send((peer, known)).await.is_err() {
                return;
            } else {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !widen && answered.load(Ordering::Relaxed) >= ENOUGH {
            tokio::time::sleep(LAZY).await;
        }
        if let Ok(mut providers) = self.net.search(wanted.key(), deadline).await {
            // Once somebody has answered, those who matter do so soon or not at all.
            loop {
                let next = tokio::time::timeout(SETTLE, providers.next()).await;
                match next {
                    Ok(Some(peer)) if !seen.contains(&peer) => {
                        seen.push(peer);
                        tasks.spawn(self.clone().report(
                            peer,
                            wanted.clone(),
                            found.clone(),
                            Arc::clone(&answered),
                        ));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) if answered.load(Ordering::Relaxed) > 0 => break,
                    Err(_) => {}
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn report(
        self,
        peer: PeerId,
        wanted: Wanted,
        found: mpsc::Sender<(PeerId, Known)>,
        answered: Arc<AtomicUsize>,
    ) {
        if let Some(known) = self.refresh(peer).await
            && wanted.matches(&known.announcement)
        {
            answered.fetch_add(1, Ordering::Relaxed);
            let _ = found.send((peer, known)).await;
        }
    }

    /// Round trip to a connected peer.
    pub(crate) async fn rtt(&self, peer: PeerId) -> Option<Duration> {
        self.net.rtt(peer).await
    }
}
