//! Recomputing answers: for this node's own answers, and for routers that ask.
//!
//! A node that holds the model recomputes by itself; otherwise its auditor is
//! drawn by lot among those announced (`drawing`), its "failed" takes a second
//! one to bar anybody (`panel`), and now and then it is given a receipt known to
//! be wrong (`planting`). One audit runs at a time, since a replay uses all
//! threads. Answers of this node's own provider are put to others, so "audited"
//! always means by somebody else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peerproof_identity::{Keypair, PeerId, PublicKey};
use peerproof_job::router::{Audited, Auditor};
use peerproof_net::{FrameLimits, Handle};
use peerproof_proof::audit::{Findings, Recomputation, audit, recompute};
use peerproof_proof::verdict;
use peerproof_wire::{
    AUDIT_PROTOCOL, AuditReply, AuditRequest, AuditedBy, Case, Message as _, ModelId, Openings,
    Outcome, Signed, Verdict,
};
use tokio::sync::{Semaphore, watch};

use super::Settings;
use super::clock::Clock;
use super::directory::Directory;
use super::holdings::{Held, Holdings};
use super::ledger::Ledger;
use crate::config;

mod drawing;
mod panel;
mod planting;

use planting::Shown;

/// How long a search for auditors, or opening a stream to one, may take.
const SEARCH: Duration = Duration::from_secs(3);
/// How long an auditor may take for its verdict.
const VERDICT: Duration = Duration::from_secs(110);

/// Replays what this node holds.
pub(crate) struct Replays {
    holdings: Arc<Holdings>,
    /// Held while a replay runs, also by one that nobody waits for any more.
    turn: Arc<Semaphore>,
}

impl Replays {
    pub(crate) fn new(holdings: Arc<Holdings>) -> Replays {
        Replays { holdings, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The model, if it is here.
    pub(crate) fn held(&self, id: ModelId) -> Option<&Arc<Held>> {
        self.holdings.by_id(id)
    }

    /// Recomputes a case; `None` if this node doesn't hold the model, or never could in its memory.
    pub(crate) async fn audit(
        &self,
        case: Arc<Case>,
        openings: Option<Openings>,
        auditor: PublicKey,
    ) -> Option<Result<Findings, String>> {
        self.replay(case, move |replayer, case| {
            audit(replayer, case, openings.as_ref(), &auditor).map_err(|e| e.to_string())
        })
        .await
    }

    /// All that a recomputation gives, to hold others' words against; `None` as for an audit.
    pub(crate) async fn recompute(&self, case: Arc<Case>) -> Option<Result<Recomputation, String>> {
        self.replay(case, |replayer, case| {
            recompute(replayer, &case.offer, &case.tokens).map_err(|e| e.to_string())
        })
        .await
    }

    /// Has somebody look at a case with the model at hand; `None` as for an audit.
    pub(super) async fn replay<T: Send + 'static>(
        &self,
        case: Arc<Case>,
        look: impl FnOnce(&peerproof_engine::execute::Replayer, &Case) -> Result<T, String>
        + Send
        + 'static,
    ) -> Option<Result<T, String>> {
        let held = self.holdings.by_id(case.offer.model_id)?;
        self.holdings.check_fit(held).ok()?;
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let lease = match self.holdings.lease(held.id).await {
            Ok(lease) => lease,
            Err(error) => return Some(Err(error.to_string())),
        };
        let costs = Arc::clone(held);
        let replay = move || {
            let _turn = turn;
            let (begun, leaves) = (Instant::now(), u64::from(case.receipt.leaves));
            let seen = look(&lease.replayer, &case);
            if seen.is_ok() {
                costs.costs.replayed(begun.elapsed(), leaves);
            }
            seen
        };
        let found = tokio::task::spawn_blocking(replay).await;
        Some(found.unwrap_or_else(|error| Err(error.to_string())))
    }
}

/// What is to be recomputed.
pub(crate) struct Question {
    pub(crate) case: Arc<Case>,
    /// Peers with a hand in the answer.
    pub(crate) exclude: Vec<PeerId>,
    /// The auditor the user named.
    pub(crate) named: Option<PeerId>,
    /// When the job began.
    pub(crate) begun: Instant,
}

/// How auditors are dealt with.
pub(crate) struct Manner {
    /// Folder of evidence files.
    evidence: PathBuf,
    terms: config::Reputation,
    shown: Shown,
}

impl Manner {
    pub(crate) fn of(settings: &Settings) -> Manner {
        let terms = settings.config.reputation.clone();
        Manner { evidence: settings.home.evidence(), terms, shown: Shown::default() }
    }
}

/// Finds somebody who recomputes, this node first.
pub(crate) struct Audits {
    pub(crate) replays: Arc<Replays>,
    pub(crate) directory: Directory,
    pub(crate) net: Handle,
    pub(crate) session: Arc<Keypair>,
    /// This node's own provider, whose answers it does not judge alone.
    pub(crate) own: Option<PeerId>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) clock: Clock,
    pub(crate) manner: Manner,
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Audits {
    /// Has a case recomputed: by the auditor the request names, by this node, or by another
    /// one; never by a peer with a hand in the answer. Says also who passed it, if another did.
    pub(crate) async fn run(self: &Arc<Self>, question: &Question) -> (Audited, Option<AuditedBy>) {
        if let Some(peer) = question.named {
            if question.exclude.contains(&peer) {
                let why = format!("auditor {peer} took part in the answer");
                return (Audited::Unavailable(why), None);
            }
            return self.by_named(question, peer).await;
        }
        if self.own.is_some_and(|own| question.exclude.contains(&own)) {
            return self.by_others(question).await;
        }
        let key = self.session.public();
        match self.replays.audit(Arc::clone(&question.case), None, key).await {
            Some(Ok(findings)) => (here(findings), None),
            Some(Err(why)) => (Audited::Unavailable(why), None),
            None => self.by_others(question).await,
        }
    }

    /// Asks an auditor for its verdict, which is about this case and signed by it.
    async fn ask(&self, peer: PeerId, case: &Case) -> Result<Signed<Verdict>, String> {
        let request = AuditRequest::Case(Box::new(case.clone()));
        match talk(&self.net, peer, request, VERDICT).await? {
            AuditReply::Failure(failure) => Err(failure.message),
            AuditReply::Draw(_) => Err("a draw came in place of a verdict".into()),
            AuditReply::Verdict(signed) => {
                verdict::verify(&signed, &peer.public_key(), &case.offer, &case.receipt)
                    .map_err(|e| e.to_string())?;
                Ok(signed)
            }
        }
    }
}

/// One question and its answer.
async fn talk(
    net: &Handle,
    peer: PeerId,
    request: AuditRequest,
    read_timeout: Duration,
) -> Result<AuditReply, String> {
    let limits = FrameLimits { read_timeout, ..FrameLimits::default() };
    let open = net.open(peer, AUDIT_PROTOCOL, SEARCH, limits);
    let mut stream = open.await.map_err(|e| e.to_string())?;
    let request = request.encode().map_err(|e| e.to_string())?;
    stream.send(&request).await.map_err(|e| e.to_string())?;
    let frame = stream.recv().await.map_err(|e| e.to_string())?.ok_or("no reply came")?;
    AuditReply::decode(&frame).map_err(|e| e.to_string())
}

/// What this node's own recomputation amounts to.
fn here(findings: Findings) -> Audited {
    let by = Auditor::Local;
    match findings.outcome {
        Outcome::Pass => Audited::Passed { by },
        Outcome::Fail(mismatch) => Audited::Failed { by, mismatch, verdicts: Vec::new() },
        Outcome::Tested(_) => Audited::Unavailable("a test in place of an audit".into()),
    }
}
