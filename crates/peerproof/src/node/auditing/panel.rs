//! What auditors' words amount to.
//!
//! One "passed" accepts an answer. One "failed" refuses it and bars nobody: a
//! second auditor, drawn too and in another part of the network, has to find
//! the same difference at the same place. Whatever this node can recompute
//! itself, it does, and believes nobody about.

use std::sync::Arc;
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_job::router::{Audited, Auditor};
use peerproof_proof::verdict::verify_work;
use peerproof_wire::evidence::{Evidence, LogBody};
use peerproof_wire::{
    AuditedBy, AuditorFinding, Case, FalseVerdict, Mismatch, NetworkGroup, Outcome, Signed, Verdict,
};

use super::drawing::Drawn;
use super::{Audits, Question, VERDICT};
use crate::evidence;
use crate::node::incidents::group_of;

/// How long one of several auditors may take for its verdict.
const ONE_OF_MANY: Duration = Duration::from_secs(35);
/// Auditors that are asked, one after the other.
const MAX_ASKED: usize = 4;

/// An auditor that says that a leaf differs.
struct Accuser {
    peer: PeerId,
    group: NetworkGroup,
    mismatch: Mismatch,
    verdict: Signed<Verdict>,
}

/// What one more verdict settles.
enum Word {
    Settled(Audited, Option<AuditedBy>),
    Accuses(Box<Accuser>),
    Nothing(String),
}

impl Audits {
    /// The user's own choice needs no draw. Alone, it can refuse an answer and bar nobody.
    pub(super) async fn by_named(
        self: &Arc<Self>,
        question: &Question,
        peer: PeerId,
    ) -> (Audited, Option<AuditedBy>) {
        let unavailable = |why: String| Audited::Unavailable(format!("auditor {peer}: {why}"));
        if let Some(why) = self.ledger.auditor(&peer).barred {
            return (unavailable(format!("it is not asked: {why}")), None);
        }
        let asked = tokio::time::timeout(VERDICT, self.ask(peer, &question.case)).await;
        let verdict = match asked.unwrap_or_else(|_| Err("no verdict in time".into())) {
            Ok(verdict) => verdict,
            Err(why) => return (unavailable(why), None),
        };
        let group = group_of(&self.net, peer).await;
        match self.weigh(question, (peer, group, false), verdict, None).await {
            Word::Settled(audited, judge) => (audited, judge),
            Word::Nothing(why) => (unavailable(why), None),
            Word::Accuses(accuser) => match self.panel(question, Some(*accuser)).await {
                // The user asked for this one's word: it stands against another's.
                (Audited::Unavailable(_), Some(accuser)) => (accuser.alone(), None),
                (audited, _) => (audited, None),
            },
        }
    }

    /// Auditors drawn by lot.
    pub(super) async fn by_others(
        self: &Arc<Self>,
        question: &Question,
    ) -> (Audited, Option<AuditedBy>) {
        let (mut asked, mut reasons) = (Vec::new(), Vec::new());
        let mut accuser: Option<Accuser> = None;
        for widen in [false, true] {
            let (drawn, missing) = self.draw(question, &asked, widen).await;
            reasons.extend(missing);
            for auditor in drawn {
                if asked.len() >= MAX_ASKED {
                    break;
                }
                asked.push(auditor.peer);
                match self.ask_drawn(question, &auditor, accuser.as_ref()).await {
                    Word::Settled(audited, judge) => return (audited, judge),
                    Word::Accuses(first) => accuser = Some(*first),
                    Word::Nothing(why) => reasons.push(format!("{}: {why}", auditor.peer)),
                }
            }
        }
        if let Some(accuser) = accuser {
            return (accuser.alone(), None);
        }
        (Audited::Unavailable(self.why_nobody(question, &reasons)), None)
    }

    /// A second opinion on what one auditor says.
    async fn panel(
        self: &Arc<Self>,
        question: &Question,
        accuser: Option<Accuser>,
    ) -> (Audited, Option<Accuser>) {
        let mut asked: Vec<PeerId> = accuser.iter().map(|it| it.peer).collect();
        for widen in [false, true] {
            let (drawn, _) = self.draw(question, &asked, widen).await;
            for auditor in drawn.into_iter().take(MAX_ASKED - 1) {
                asked.push(auditor.peer);
                if let Word::Settled(audited, _) =
                    self.ask_drawn(question, &auditor, accuser.as_ref()).await
                {
                    return (audited, accuser);
                }
            }
        }
        (Audited::Unavailable("no second auditor".into()), accuser)
    }

    async fn ask_drawn(
        self: &Arc<Self>,
        question: &Question,
        auditor: &Drawn,
        accuser: Option<&Accuser>,
    ) -> Word {
        // A second one next door to the first could be the same operator.
        let apart = accuser.is_none_or(|first| {
            first.group != auditor.group || auditor.group == NetworkGroup::Local
        });
        if !apart {
            return Word::Nothing("in the network group of the first auditor".into());
        }
        let asking = self.ask(auditor.peer, &question.case);
        let asked = tokio::time::timeout(ONE_OF_MANY, asking).await;
        let verdict = match asked.unwrap_or_else(|_| Err("no verdict in time".into())) {
            Ok(verdict) => verdict,
            Err(why) => return Word::Nothing(why),
        };
        if !auditor.is_shown_in(verdict.draw.as_ref()) {
            self.note_auditor(auditor.peer, &question.case, AuditorFinding::Undrawn).await;
            return Word::Nothing("its verdict carries another draw than it showed".into());
        }
        self.weigh(question, (auditor.peer, auditor.group, true), verdict, accuser).await
    }

    /// Holds a verdict against what this node can compute, and against the one before.
    async fn weigh(
        self: &Arc<Self>,
        question: &Question,
        (peer, group, drawn): (PeerId, NetworkGroup, bool),
        verdict: Signed<Verdict>,
        accuser: Option<&Accuser>,
    ) -> Word {
        if let Err(why) = self.recheck(question, &verdict).await {
            return Word::Nothing(why);
        }
        let judge = AuditedBy { auditor: peer.public_key(), group, drawn };
        let by = Auditor::Peer(peer);
        match (verdict.outcome.clone(), accuser) {
            (Outcome::Tested(_), _) => Word::Nothing("a test in place of an audit".into()),
            (Outcome::Pass, None) => {
                self.watch(peer, &question.case);
                Word::Settled(Audited::Passed { by }, Some(judge))
            }
            (Outcome::Fail(mismatch), None) => {
                Word::Accuses(Box::new(Accuser { peer, group, mismatch, verdict }))
            }
            (Outcome::Fail(mismatch), Some(first)) if mismatch == first.mismatch => {
                let verdicts = vec![first.verdict.clone(), verdict];
                Word::Settled(Audited::Failed { by, mismatch, verdicts }, None)
            }
            (_, Some(first)) => {
                for auditor in [first.peer, peer] {
                    let finding = AuditorFinding::Disagreed;
                    self.note_auditor(auditor, &question.case, finding).await;
                }
                let why = format!("two auditors disagree: {} and {peer}", first.peer);
                Word::Settled(Audited::Unavailable(why), None)
            }
        }
    }

    /// Where this node holds the model, it checks outcome and work digest, and tells on whoever
    /// signed anything else.
    async fn recheck(&self, question: &Question, verdict: &Signed<Verdict>) -> Result<(), String> {
        let case = &question.case;
        let recomputed = match self.replays.recompute(Arc::clone(case)).await {
            Some(Ok(recomputed)) => recomputed,
            // Not here, or not now: the word stands as it is.
            Some(Err(_)) | None => return Ok(()),
        };
        let auditor = verdict.key().peer_id();
        match verify_work(verdict, &case.receipt, &recomputed) {
            Ok(()) => {
                self.note_auditor(auditor, case, AuditorFinding::Confirmed).await;
                Ok(())
            }
            Err(wrong) => {
                self.tell_on(case, verdict.clone()).await;
                Err(format!("its verdict is false: {wrong}"))
            }
        }
    }

    /// Logs a false verdict and keeps it as a file.
    pub(super) async fn tell_on(&self, case: &Case, verdict: Signed<Verdict>) {
        let said = Evidence::FalseVerdict(FalseVerdict { case: case.clone(), verdict });
        let (dir, file) = (self.manner.evidence.clone(), said.clone());
        let _ = self.ledger.record(LogBody::Evidence(said)).await;
        let written = tokio::task::spawn_blocking(move || evidence::write(&dir, &file)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "evidence could not be written");
        }
    }

    fn why_nobody(&self, question: &Question, reasons: &[String]) -> String {
        if !reasons.is_empty() {
            return format!("no auditor gave a verdict: {}", reasons.join("; "));
        }
        match self.own.is_some_and(|own| question.exclude.contains(&own)) {
            true => "this node answered itself and found no other auditor".into(),
            false => "this node does not hold the model and found no auditor of it".into(),
        }
    }
}

impl Accuser {
    /// Nobody confirmed it.
    fn alone(self) -> Audited {
        let Accuser { peer, mismatch, verdict, .. } = self;
        Audited::Accused { by: peer, mismatch, verdict: Box::new(verdict) }
    }
}
