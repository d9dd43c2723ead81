//! Saying what this node does, and hearing what others do.
//!
//! [`answer`] replies to every question with a freshly signed announcement;
//! [`follow`] asks every peer that appears. Routers do not announce themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peerproof_identity::{Keypair, PeerId};
use peerproof_net::{Event, Events, FrameLimits, FrameStream, Handle};
use peerproof_wire::{
    Announcement, INFO_PROTOCOL, InfoReply, InfoRequest, Message as _, ModelOffer, Signed,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clock::Clock;
use super::directory::{Directory, Wanted};
use super::holdings::Held;
use super::roles::Models;
use super::serving::Load;
use super::{NodeError, Settings};

/// One question and its answer take no longer.
const TALK: Duration = Duration::from_secs(5);
/// A peer that appears again within this time is not asked again.
const QUIET: Duration = Duration::from_secs(2);
/// Between two rounds of asking everybody known.
const ROUND: Duration = Duration::from_secs(60);
/// Peers whose last appearance is remembered.
const MAX_APPEARED: usize = 4096;

/// What this node announces.
pub(super) struct Card {
    key: Arc<Keypair>,
    clock: Clock,
    load: Arc<Load>,
    max_jobs: u32,
    serves: Vec<ModelOffer>,
    audits: Vec<ModelOffer>,
    /// Where prices come from.
    held: Vec<Arc<Held>>,
    /// The operator's terms.
    terms: (u64, String),
}

impl Card {
    pub(super) fn new(
        key: &Arc<Keypair>,
        clock: Clock,
        load: &Arc<Load>,
        settings: &Settings,
        models: &Models,
    ) -> Result<Card, NodeError> {
        let (mut serves, mut audits) = (Vec::new(), Vec::new());
        for held in &models.serve {
            serves.push(held.offer()?);
        }
        for held in &models.audit {
            audits.push(held.offer()?);
        }
        let provide = &settings.config.provide;
        let terms = (provide.price_per_million, provide.price_unit.clone());
        let held = models.serve.iter().chain(&models.audit).cloned().collect();
        let (key, load, max_jobs) = (Arc::clone(key), Arc::clone(load), provide.max_jobs);
        Ok(Card { key, clock, load, max_jobs, serves, audits, held, terms })
    }

    /// Under what others find this node.
    pub(super) fn keys(&self) -> Vec<[u8; 32]> {
        let served = self
            .serves
            .iter()
            .flat_map(|m| [Wanted::Served(m.model_id), Wanted::Named(m.name.clone())]);
        let audited = self.audits.iter().map(|m| Wanted::Audited(m.model_id));
        served.chain(audited).map(|wanted| wanted.key()).collect()
    }

    fn priced(&self, offer: &ModelOffer) -> ModelOffer {
        let held = self.held.iter().find(|held| held.id == offer.model_id);
        let (per_million, unit) = &self.terms;
        let price = held.and_then(|held| held.costs.price(*per_million, unit));
        ModelOffer { price, ..offer.clone() }
    }

    fn announcement(&self, nonce: [u8; 32]) -> Announcement {
        Announcement {
            serves: self.serves.iter().map(|offer| self.priced(offer)).collect(),
            audits: self.audits.iter().map(|offer| self.priced(offer)).collect(),
            active_jobs: self.load.active.load(Ordering::Relaxed),
            queued_jobs: self.load.queued.load(Ordering::Relaxed),
            max_jobs: self.max_jobs,
            vrf_key: self.key.vrf().public(),
            issued_unix_ms: self.clock.unix_ms(),
            nonce,
            software: concat!("peerproof/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Answers questions until `stop` turns true.
pub(super) async fn answer(net: Handle, card: Card, mut stop: watch::Receiver<bool>) {
    let limits = FrameLimits { read_timeout: TALK, ..FrameLimits::default() };
    let mut incoming = match net.accept(INFO_PROTOCOL, limits) {
        Ok(incoming) => incoming,
        Err(error) => {
            tracing::error!(%error, "this node cannot announce itself");
            return;
        }
    };
    let card = Arc::new(card);
    let mut talks = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some((_, stream)) => {
                    let card = Arc::clone(&card);
                    talks.spawn(async move {
                        if let Err(reason) = reply(&card, stream).await {
                            tracing::debug!(reason, "a question was not answered");
                        }
                    });
                }
                None => return,
            },
            Some(_) = talks.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn reply(card: &Card, mut stream: FrameStream) -> Result<(), String> {
    let frame = stream.recv().await.map_err(|e| e.to_string())?.ok_or("closed")?;
    let request = InfoRequest::decode(&frame).map_err(|e| e.to_string())?;
    let announcement =
        Signed::sign(&card.key, card.announcement(request.nonce)).map_err(|e| e.to_string())?;
    let bytes = InfoReply { announcement }.encode().map_err(|e| e.to_string())?;
    stream.send(&bytes).await.map_err(|e| e.to_string())?;
    stream.finish().await.map_err(|e| e.to_string())
}

/// Asks every peer that appears what it does, again if it does not answer at first, and
/// everybody known once a minute, until `stop` turns true.
pub(super) async fn follow(
    directory: Directory,
    mut events: Events,
    mut stop: watch::Receiver<bool>,
) {
    let mut appeared: HashMap<PeerId, Instant> = HashMap::new();
    let mut asking = JoinSet::new();
    let mut rounds = tokio::time::interval(ROUND);
    loop {
        let peer = tokio::select! {
            event = events.next() => match event {
                Some(Event::PeerConnected { peer, .. } | Event::PeerFound { peer, .. }) => peer,
                Some(Event::PeerDisconnected { peer }) => {
                    appeared.remove(&peer);
                    continue;
                }
                Some(_) => continue,
                None => return,
            },
            _ = rounds.tick() => {
                for (peer, _) in directory.all() {
                    asking.spawn(once(directory.clone(), peer));
                }
                continue;
            }
            Some(_) = asking.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if appeared.len() >= MAX_APPEARED {
            appeared.retain(|_, at| at.elapsed() < QUIET);
        }
        if appeared.insert(peer, Instant::now()).is_none_or(|at| at.elapsed() > QUIET) {
            asking.spawn(at_last(directory.clone(), peer));
        }
    }
}

async fn once(directory: Directory, peer: PeerId) {
    directory.refresh(peer).await;
}

/// A node that has just started may need a moment before it answers; others never will.
async fn at_last(directory: Directory, peer: PeerId) {
    for pause in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)] {
        tokio::time::sleep(pause).await;
        if directory.refresh(peer).await.is_some() {
            return;
        }
    }
}
