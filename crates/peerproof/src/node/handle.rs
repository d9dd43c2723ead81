//! The handle that programs ask a running node with.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_wire::NetworkGroup;
use tokio::sync::{mpsc, oneshot};

use super::archive::Asker;
use super::directory::{Known, Wanted};
use super::fetching::FetchWatch;
use super::incidents::group_of;
use super::{Inner, asking};
use crate::client::{
    Answer, AskError, Counters, JobSpec, LaterCheck, NodeStatus, PeerStatus, ServedModel,
};
use crate::fetch::{FetchError, PullSpec, Pulled};
use crate::firewall::{self, Change, FirewallError};
use crate::light::{PrepareError, PrepareWatch, Prepared};
use crate::log::{Declined, Piece, Unreadable};
use crate::reputation::{
    Rechecked, Record, ReputationError, accusation, decision, parse_peer, refuting,
};

/// A handle to ask with. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

impl Client {
    /// Starts a job and gives back its events.
    ///
    /// # Errors
    /// When the request cannot become a job; what happens to the job comes as events.
    pub async fn ask(&self, spec: JobSpec) -> Result<Answer, AskError> {
        let (id, name) = self.inner.resolve(&spec.model).await?;
        let prepared = asking::prepare(&self.inner, spec, id, name)?;
        let (events, receiver) = mpsc::channel(prepared.max_tokens() as usize + 64);
        let (cancel, cancelled) = oneshot::channel();
        tokio::spawn(asking::run(Arc::clone(&self.inner), prepared, events, cancelled));
        Ok(Answer::new(receiver, cancel))
    }

    /// Models that somebody serves now.
    #[must_use]
    pub fn models(&self) -> Vec<ServedModel> {
        self.inner.served()
    }

    /// What the node says about itself.
    pub async fn status(&self) -> NodeStatus {
        let peers = self.inner.net.peers().await.map_or(0, |peers| peers.len());
        self.inner.status(peers, self.inner.ledger.len().await)
    }

    /// Everybody this node knows: connected peers, those who announced something, and those
    /// who are barred.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        let inner = &self.inner;
        let announced: HashMap<PeerId, Known> = inner.directory.all().into_iter().collect();
        let mut all = Vec::new();
        for peer in inner.net.peers().await.unwrap_or_default() {
            let serves = announced
                .get(&peer.peer)
                .map(|known| known.announcement.serves.iter().map(|m| m.name.clone()).collect());
            let explained = inner.ledger.explain(&peer.peer);
            all.push(PeerStatus {
                peer: peer.peer.to_string(),
                address: peer.addresses.first().map(ToString::to_string).unwrap_or_default(),
                transport: peer.transport.to_string(),
                rtt_us: peer.rtt_ms.map(|ms| (ms * 1000.0) as u64),
                source: peer.source.name().to_owned(),
                serves: serves.unwrap_or_default(),
                reputation: u32::from(explained.standing.score),
                barred: explained.standing.barred.clone(),
                record: Record::of(&explained, group_of(&inner.net, peer.peer).await),
            });
        }
        for (peer, why) in inner.ledger.barred() {
            if all.iter().any(|known| known.peer == peer.to_string()) {
                continue;
            }
            all.push(PeerStatus {
                peer: peer.to_string(),
                address: String::new(),
                transport: "–".into(),
                rtt_us: None,
                source: "log".into(),
                serves: Vec::new(),
                reputation: 0,
                barred: Some(why),
                record: Record::of(&inner.ledger.explain(&peer), NetworkGroup::Unknown),
            });
        }
        all
    }

    /// Blocks or unblocks a peer: the user's own decision, which is logged. Jobs with a peer
    /// that is blocked are dropped at once.
    ///
    /// # Errors
    /// The name is none, or the log does not take it.
    pub async fn decide(
        &self,
        peer: &str,
        blocked: bool,
        reason: &str,
    ) -> Result<Record, ReputationError> {
        let peer = parse_peer(peer)?;
        self.inner.ledger.record(decision(&peer, blocked, reason)).await?;
        let group = group_of(&self.inner.net, peer).await;
        Ok(Record::of(&self.inner.ledger.explain(&peer), group))
    }

    /// Recomputes everything a peer is accused of, if the models are here; what passes after
    /// all is logged as refuted, and lifts its bar.
    ///
    /// # Errors
    /// The name is none, or the log cannot be read or written.
    pub async fn recheck(&self, peer: &str) -> Result<Rechecked, ReputationError> {
        let peer = parse_peer(peer)?;
        let ledger = &self.inner.ledger;
        let (accused, mut found) = (ledger.accused_receipts(&peer), Rechecked::default());
        for index in 0..ledger.len().await {
            let entry = ledger.entry(index).await?;
            let Some(wrong) = accusation(&entry.body, &accused) else { continue };
            let id = wrong.case.receipt.id().to_string();
            let case = Arc::new(wrong.case.clone());
            match self.inner.audits.replays.recompute(case).await {
                Some(Ok(recomputed)) => {
                    let bodies = refuting(wrong, &recomputed);
                    if bodies.is_empty() { &mut found.confirmed } else { &mut found.refuted }
                        .push(id);
                    for body in bodies {
                        ledger.record(body).await?;
                    }
                }
                Some(Err(why)) => found.unchecked.push(format!("{id}: {why}")),
                None => found.unchecked.push(format!(
                    "{id}: this node does not hold model {}",
                    wrong.case.offer.model_id
                )),
            }
        }
        Ok(found)
    }

    /// The operator's rules, in the order in which they are asked, with how often each decided.
    pub async fn firewall(&self) -> Vec<firewall::Line> {
        let rules = self.inner.firewall.lock().await;
        let mut decided: Vec<u64> = Vec::new();
        for net in self.inner.nets() {
            for (place, rule) in net.firewall().iter().enumerate() {
                match decided.get_mut(place) {
                    Some(count) => *count += rule.decided,
                    None => decided.push(rule.decided),
                }
            }
        }
        rules.lines(Some(&decided))
    }

    /// Changes the operator's rules: on the disk, then for both networks. Connections that they
    /// no longer allow end; gives back how many.
    ///
    /// # Errors
    /// There is nothing to change, or the disk or a network does not take it.
    pub async fn change_firewall(&self, change: &Change) -> Result<usize, FirewallError> {
        let mut rules = self.inner.firewall.lock().await;
        let changed = rules.changed(change)?;
        changed.save()?;
        let list = changed.list()?;
        *rules = changed;
        let mut ended = 0;
        for net in self.inner.nets() {
            ended += net.set_firewall(list.clone()).await?;
        }
        Ok(ended)
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let counts = &self.inner.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            answered: read(&counts.answered),
            failed: read(&counts.failed),
            refused: read(&counts.refused),
            failovers: read(&counts.failovers),
            audits: read(&counts.audits),
            audit_ms: read(&counts.audit_ms),
            tokens_in: read(&counts.tokens_in),
            tokens_out: read(&self.inner.load.tokens_out),
            dial_failures: self.inner.net.metrics().dial_failures.values().sum(),
        }
    }

    /// What became of the check that follows an answer in use, by its job: once it has ended, or
    /// `patience` (at most a minute) is over. `None` if no check of it is remembered.
    pub async fn later_check(&self, job_id: &str, patience: Duration) -> Option<LaterCheck> {
        self.inner.checks.wait(job_id, patience).await
    }

    /// A piece of this node's log by its path, as C2SP tlog-tiles names it (`checkpoint`,
    /// `tile/…`); `None` if there is no such thing, or not yet.
    ///
    /// # Errors
    /// If it can't be read at the moment.
    pub async fn log_piece(&self, path: &str) -> Result<Option<Piece>, Unreadable> {
        self.inner.archive.read(Asker::Http, path).await
    }

    /// Judges a request to cosign a checkpoint (C2SP tlog-witness); gives back the line with
    /// the cosignature.
    ///
    /// # Errors
    /// Why it is not cosigned.
    pub async fn add_checkpoint(&self, body: &[u8]) -> Result<String, Declined> {
        self.inner.archive.add_checkpoint(Asker::Http, body).await
    }

    /// Looks for providers of a model in the whole network; afterwards [`Client::models`] has
    /// them. Gives back the model's id.
    ///
    /// # Errors
    /// If the name is known to nobody.
    pub async fn find(&self, model: &str) -> Result<String, AskError> {
        let (id, _) = self.inner.resolve(model).await?;
        let deadline = Duration::from_secs(3);
        let mut found = self.inner.directory.search(Wanted::Served(id), deadline, true);
        while found.recv().await.is_some() {}
        Ok(id.to_string())
    }

    /// Makes an installed model of what peers hold of it. Stopped by `watch`, or by an error,
    /// it keeps what came, and the next pull goes on from there.
    ///
    /// # Errors
    /// Nobody has it, everybody who has it was given up, or the disk is in the way.
    pub async fn pull(&self, spec: &PullSpec, watch: FetchWatch<'_>) -> Result<Pulled, FetchError> {
        // A node that has just started hears of some peers only while it searches.
        let (id, _) = match self.inner.resolve(&spec.model).await {
            Err(AskError::UnknownModel { .. }) => self.inner.resolve(&spec.model).await?,
            resolved => resolved?,
        };
        self.inner.fetcher.pull(id, spec, watch).await
    }

    /// Verified bytes of a model's file, by its id or name: of the installed file if there is
    /// one; else what is missing comes from peers, and is kept for the next time.
    ///
    /// # Errors
    /// As [`Client::pull`]; or a range is empty or behind the file's end.
    pub async fn ranges(
        &self,
        model: &str,
        ranges: &[Range<u64>],
        watch: FetchWatch<'_>,
    ) -> Result<Vec<Vec<u8>>, FetchError> {
        let (id, _) = self.inner.resolve(model).await?;
        self.inner.fetcher.read(id, ranges, watch).await
    }

    /// Makes what light audits of a model take, unless it is there: reads the model's file once,
    /// as it is installed or as peers share it, and keeps secret combinations of its rows.
    ///
    /// # Errors
    /// The name is known to nobody, nobody shares the file, or the disk is in the way.
    pub async fn prepare(
        &self,
        model: &str,
        watch: PrepareWatch<'_>,
    ) -> Result<Prepared, PrepareError> {
        let (id, _) = self.inner.resolve(model).await?;
        let inner = Arc::clone(&self.inner);
        let mut parts = inner.lights.parts();
        let mut making =
            tokio::spawn(
                async move { inner.lights.prepare(&inner.spots, &inner.fetcher, id).await },
            );
        let made = loop {
            tokio::select! {
                made = &mut making => break made,
                Ok(()) = parts.changed() => {
                    let (done, of) = *parts.borrow_and_update();
                    if watch(done, of).is_break() {
                        making.abort();
                        return Err(PrepareError::Stopped);
                    }
                }
            }
        };
        let made = made.unwrap_or_else(|error| Err(error.to_string()));
        made.map(|(_, prepared)| prepared)
            .map_err(|reason| PrepareError::Failed { model: id.to_string(), reason })
    }

    /// How many bytes of a model's file are here and how many it has; `None` if none are here.
    ///
    /// # Errors
    /// Another process has the file in the making, or it can't be read.
    pub async fn held(&self, model: &str) -> Result<Option<(u64, u64)>, FetchError> {
        let (id, _) = self.inner.resolve(model).await?;
        self.inner.fetcher.held(id).await
    }

    /// What is known about this node's connection to the network.
    pub async fn diagnose(&self) -> Option<peerproof_net::Diagnosis> {
        self.inner.net.diagnose().await.ok()
    }
}
