//! Recomputing answers: for this node's own answers, and for routers that ask.
//!
//! A node that holds the model recomputes by itself; otherwise it looks for an
//! auditor, sends the case, and takes a signed verdict back. One audit runs
//! at a time, since a replay uses all threads. Answers of this node's own
//! provider are put to others, so "audited" always means by somebody else.

use std::sync::Arc;
use std::time::Duration;

use peerproof_identity::{Keypair, PeerId, PublicKey};
use peerproof_job::router::{Audited, Auditor};
use peerproof_net::{FrameLimits, Handle};
use peerproof_proof::audit::{Findings, audit};
use peerproof_proof::verdict;
use peerproof_wire::{
    AUDIT_PROTOCOL, AuditReply, AuditRequest, Case, Message as _, Openings, Outcome, Signed,
    Verdict,
};
use tokio::sync::Semaphore;

use super::directory::{Directory, Wanted};
use super::holdings::Holdings;

/// How long a search for an auditor may take.
const SEARCH: Duration = Duration::from_secs(3);
/// How long an auditor may take for its verdict.
const VERDICT: Duration = Duration::from_secs(110);
/// As long, if others could be asked instead.
const ONE_OF_MANY: Duration = Duration::from_secs(35);
/// Auditors that are tried, one after the other.
const MAX_AUDITORS: usize = 3;

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

    /// Recomputes a case; `None` if this node doesn't hold the model, or never could in its memory.
    pub(crate) async fn audit(
        &self,
        case: Arc<Case>,
        openings: Option<Openings>,
        auditor: PublicKey,
    ) -> Option<Result<Findings, String>> {
        let held = self.holdings.by_id(case.offer.model_id)?;
        self.holdings.check_fit(held).ok()?;
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let lease = match self.holdings.lease(held.id).await {
            Ok(lease) => lease,
            Err(error) => return Some(Err(error.to_string())),
        };
        let replay = move || {
            let _turn = turn;
            audit(&lease.replayer, &case, openings.as_ref(), &auditor)
        };
        let found = tokio::task::spawn_blocking(replay).await;
        Some(match found {
            Ok(found) => found.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        })
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
}

impl Audits {
    /// Has a case recomputed: by the auditor the request names, by this node, or by another
    /// one; never by a peer with a hand in the answer.
    pub(crate) async fn run(
        &self,
        case: Case,
        exclude: &[PeerId],
        named: Option<PeerId>,
    ) -> Audited {
        let case = Arc::new(case);
        if let Some(peer) = named {
            if exclude.contains(&peer) {
                return Audited::Unavailable(format!("auditor {peer} took part in the answer"));
            }
            return match self.ask(peer, &case).await {
                Ok(verdict) => judged(peer, vec![verdict]),
                Err(why) => Audited::Unavailable(format!("auditor {peer}: {why}")),
            };
        }
        if self.own.is_some_and(|own| exclude.contains(&own)) {
            return self.by_others(&case, exclude).await;
        }
        let key = self.session.public();
        match self.replays.audit(Arc::clone(&case), None, key).await {
            Some(Ok(findings)) => match findings.outcome {
                Outcome::Pass => Audited::Passed { by: Auditor::Local },
                Outcome::Fail(mismatch) => {
                    Audited::Failed { by: Auditor::Local, mismatch, verdicts: Vec::new() }
                }
            },
            Some(Err(why)) => Audited::Unavailable(why),
            None => self.by_others(&case, exclude).await,
        }
    }

    /// One auditor's word is enough to accept; a failure is put to a second one if there is one.
    async fn by_others(&self, case: &Arc<Case>, exclude: &[PeerId]) -> Audited {
        let wanted = Wanted::Audited(case.offer.model_id);
        let mut auditors = self.directory.search(wanted, SEARCH, true);
        let (mut reasons, mut against) = (Vec::new(), Vec::new());
        while let Some((peer, _)) = auditors.recv().await {
            if exclude.contains(&peer) || reasons.len() >= MAX_AUDITORS {
                continue;
            }
            let asked = tokio::time::timeout(ONE_OF_MANY, self.ask(peer, case)).await;
            match asked.unwrap_or_else(|_| Err("no verdict in time".into())) {
                Ok(verdict) if verdict.outcome == Outcome::Pass && !against.is_empty() => {
                    return Audited::Unavailable("two auditors disagree".into());
                }
                Ok(verdict) if verdict.outcome == Outcome::Pass => {
                    return judged(peer, vec![verdict]);
                }
                Ok(verdict) => against.push((peer, verdict)),
                Err(why) => reasons.push(format!("{peer}: {why}")),
            }
            if against.len() > 1 {
                break;
            }
        }
        if let Some((first, _)) = against.first() {
            let first = *first;
            return judged(first, against.into_iter().map(|(_, verdict)| verdict).collect());
        }
        Audited::Unavailable(if reasons.is_empty() {
            match self.own.is_some_and(|own| exclude.contains(&own)) {
                true => "this node answered itself and found no other auditor".into(),
                false => "this node does not hold the model and found no auditor of it".into(),
            }
        } else {
            format!("no auditor gave a verdict: {}", reasons.join("; "))
        })
    }

    async fn ask(&self, peer: PeerId, case: &Case) -> Result<Signed<Verdict>, String> {
        let limits = FrameLimits { read_timeout: VERDICT, ..FrameLimits::default() };
        let open = self.net.open(peer, AUDIT_PROTOCOL, SEARCH, limits);
        let mut stream = open.await.map_err(|e| e.to_string())?;
        let request = AuditRequest::Case(Box::new(case.clone()));
        let request = request.encode().map_err(|e| e.to_string())?;
        stream.send(&request).await.map_err(|e| e.to_string())?;
        let frame = stream.recv().await.map_err(|e| e.to_string())?.ok_or("no verdict came")?;
        match AuditReply::decode(&frame).map_err(|e| e.to_string())? {
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

/// What verdicts of one outcome amount to; there is at least one.
fn judged(peer: PeerId, verdicts: Vec<Signed<Verdict>>) -> Audited {
    let by = Auditor::Peer(peer);
    match verdicts.first().map(|verdict| verdict.outcome.clone()) {
        Some(Outcome::Fail(mismatch)) => Audited::Failed { by, mismatch, verdicts },
        Some(Outcome::Pass) | None => Audited::Passed { by },
    }
}
