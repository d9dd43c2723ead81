//! From the receipt to a verified answer.
//!
//! Bindings and the place in the log are checked for every receipt. Then the
//! level decides: nothing more, an audit by lot, an audit always, or (in
//! `quorum`) equality among several. An audit that nobody can do does not fail
//! the answer; the outcome says that it was not audited, and why.

use peerproof_wire::{
    AcceptedAnswer, AuditedBy, Case, Challenge, Class, Evidence, Level, LogBody, NetworkGroup,
    Openings, RouterFrame, WrongAnswer,
};

use super::lane::Breach;
use super::roster::Again;
use super::{Audited, Auditor, Blame, Broken, Checked, End, Half, Job, LaneId, Made, Out, Reason};
use crate::planted::planted;
use crate::reputation::Fault;
use crate::time::Millis;

/// What the job waits for after a sound receipt.
pub(super) struct Check {
    lane: LaneId,
    step: Step,
    deadline: Millis,
}

enum Step {
    /// The provider opens leaves; then the answer ends as checked so far.
    Challenge(Checked),
    /// This node checks the opened leaves.
    Openings(Checked),
    /// Somebody recomputes.
    Audit(Why),
}

/// Why a recomputation was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The level or the lot wants it.
    Due,
    /// The provider departs from the beginning it was given.
    Dispute(usize),
    /// The answers of a quorum differ.
    Quorum,
}

impl Check {
    pub(super) fn deadline(&self) -> Millis {
        self.deadline
    }
}

impl Job {
    /// Whether somebody recomputes this lane's answer.
    pub(super) fn is_audited(&self, id: LaneId) -> bool {
        let waiting = self.check.as_ref().filter(|check| check.lane == id);
        waiting.is_some_and(|check| matches!(check.step, Step::Audit(_)))
    }

    /// Waits no longer for what was asked of this lane.
    pub(super) fn forget_check(&mut self, id: LaneId) {
        self.check.take_if(|check| check.lane == id);
    }

    pub(super) fn on_bindings(&mut self, id: LaneId, result: Result<(), Broken>) {
        let Some(lane) = self.lane_mut(id) else { return };
        if lane.receipt.is_none() || lane.is_sound() {
            return;
        }
        match result {
            Ok(()) => self.on_half(id, Half::Bindings),
            // Its text is not known in full; the audit that follows covers it.
            Err(broken) if broken.only_text && lane.disputed_at.is_some() => {
                self.on_half(id, Half::Bindings);
            }
            Err(broken) if broken.only_text && lane.was_resumed() && self.quorum.is_none() => {
                let at = self.answer.tokens.len();
                let reason = Reason::Disputed { at, detail: broken.detail };
                self.fail(reason, Blame::Unknown, Checked::Refuted);
            }
            Err(broken) => self.on_false_receipt(id, Fault::Bindings, &broken.detail),
        }
    }

    pub(super) fn on_log_proof(&mut self, id: LaneId, result: Result<(), String>) {
        let Some(lane) = self.lane(id) else { return };
        if lane.receipt.is_none() || lane.is_sound() {
            return;
        }
        match result {
            Ok(()) => self.on_half(id, Half::Log),
            Err(_) if planted("any place in the log will do") => self.on_half(id, Half::Log),
            Err(detail) => self.on_false_receipt(id, Fault::LogProof, &detail),
        }
    }

    fn on_half(&mut self, id: LaneId, half: Half) {
        let Some(lane) = self.lane_mut(id) else { return };
        if !lane.holds(half) {
            return;
        }
        let dispute = lane.disputed_at;
        if self.quorum.is_some() {
            self.fill();
        } else if let Some(at) = dispute {
            self.start_audit(id, Why::Dispute(at));
        } else {
            self.settle(id);
        }
    }

    pub(super) fn on_false_receipt(&mut self, id: LaneId, fault: Fault, detail: &str) {
        let Some(lane) = self.lane(id) else { return };
        let peer = lane.candidate.peer;
        let case = self.case(id);
        if self.quorum.is_some() {
            // Its copy is worth nothing, the others may still agree.
            return self.leave(id, Some(fault), detail, Again::Never);
        }
        self.observe(fault, peer, detail, case);
        self.refute(fault, detail, Blame::Provider(peer));
    }

    pub(super) fn refute(&mut self, fault: Fault, detail: &str, blame: Blame) {
        let reason = Reason::Check { fault, detail: detail.to_owned() };
        self.fail(reason, blame, Checked::Refuted);
    }

    pub(super) fn case(&self, id: LaneId) -> Option<Case> {
        let lane = self.lane(id)?;
        let receipt = lane.receipt.clone()?;
        Some(Case { offer: self.offer.clone(), receipt, tokens: lane.tokens.clone() })
    }

    /// What the level asks of a sound receipt.
    fn settle(&mut self, id: LaneId) {
        let Some(lane) = self.lane(id) else { return };
        match self.offer.level {
            Level::Receipt | Level::KOfN => self.settle_unaudited(id, Checked::Receipt),
            Level::Full | Level::Spot | Level::Light => self.start_audit(id, Why::Due),
            Level::Sampled => {
                let own = lane.candidate.standing.audit_permille;
                let permille = self.options.audit_permille.unwrap_or(own).min(1000);
                if self.entropy.lucky("audit", 0, permille) {
                    self.start_audit(id, Why::Due);
                } else {
                    self.settle_unaudited(id, Checked::NotDrawn { permille });
                }
            }
        }
    }

    /// Without a recomputation, openings are the next best thing.
    fn settle_unaudited(&mut self, id: LaneId, done: Checked) {
        let receipt_id =
            self.lane(id).and_then(|lane| lane.receipt.as_ref()).map(|receipt| receipt.id());
        let Some(receipt_id) = receipt_id.filter(|_| self.options.challenge) else {
            return self.succeed(id, done);
        };
        let challenge = Challenge {
            receipt_id,
            client_nonce: self.client_nonce,
            positions: Vec::new(),
            leaf_hashes: false,
        };
        self.outs.push(Out::Send(id, RouterFrame::Challenge(challenge)));
        let deadline = self.now.after(self.options.challenge_ms);
        self.check = Some(Check { lane: id, step: Step::Challenge(done), deadline });
    }

    /// How an answer of the statistical class was made; nothing of another.
    fn made(&self, id: LaneId) -> Made {
        let Some(lane) = self.lane(id).filter(|_| self.offer.class == Class::Statistical) else {
            return Made::default();
        };
        let from = self.answer.first_token_at.unwrap_or(self.now);
        let until = self.delivered_at.unwrap_or(self.now);
        Made { reports: lane.logprobs.clone(), after_first_ms: until.since(from) }
    }

    pub(super) fn start_audit(&mut self, id: LaneId, why: Why) {
        let Some(case) = self.case(id) else { return };
        let made = self.made(id);
        let served = self.answer.segments.iter().map(|segment| segment.provider);
        let asked = self.lanes.iter().map(|lane| lane.candidate.peer);
        let mut exclude: Vec<_> = served.chain(asked).collect();
        exclude.sort_unstable();
        exclude.dedup();
        self.outs.push(Out::Audit { lane: id, case: Box::new(case), exclude, made });
        let deadline = self.now.after(self.options.audit_ms);
        self.check = Some(Check { lane: id, step: Step::Audit(why), deadline });
    }

    pub(super) fn on_openings(&mut self, id: LaneId, openings: Openings) -> Result<(), Breach> {
        let waiting = self
            .check
            .take_if(|check| check.lane == id && matches!(check.step, Step::Challenge(_)));
        let Some(Check { step: Step::Challenge(done), .. }) = waiting else {
            let why = "openings that nobody asked for".to_owned();
            return Err(Breach { fault: Fault::OutOfOrder, why });
        };
        let Some(case) = self.case(id) else { return Ok(()) };
        self.outs.push(Out::CheckOpenings {
            lane: id,
            receipt: case.receipt,
            tokens: case.tokens,
            openings,
            client_nonce: self.client_nonce,
        });
        let deadline = self.now.after(self.options.check_ms);
        self.check = Some(Check { lane: id, step: Step::Openings(done), deadline });
        Ok(())
    }

    pub(super) fn on_openings_checked(&mut self, id: LaneId, result: Result<(), String>) {
        let waiting =
            self.check.take_if(|check| check.lane == id && matches!(check.step, Step::Openings(_)));
        let Some(Check { step: Step::Openings(done), .. }) = waiting else { return };
        match result {
            Ok(()) => {
                self.opened = true;
                self.succeed(id, done);
            }
            Err(detail) => self.on_false_receipt(id, Fault::Openings, &detail),
        }
    }

    /// The provider will not open leaves.
    pub(super) fn on_challenged_gone(&mut self, id: LaneId, why: &str) {
        let waiting = self
            .check
            .take_if(|check| check.lane == id && matches!(check.step, Step::Challenge(_)));
        if waiting.is_some() {
            self.on_false_receipt(id, Fault::Unanswered, why);
        }
    }

    pub(super) fn on_audited(&mut self, id: LaneId, audited: Audited) {
        let waiting =
            self.check.take_if(|check| check.lane == id && matches!(check.step, Step::Audit(_)));
        let Some(Check { step: Step::Audit(why), .. }) = waiting else { return };
        match why {
            Why::Due => self.on_due_audit(id, audited),
            Why::Dispute(at) => self.on_dispute_audit(id, at, audited),
            Why::Quorum => self.on_quorum_audit(id, audited),
        }
    }

    fn on_due_audit(&mut self, id: LaneId, audited: Audited) {
        match audited {
            Audited::Passed { by } => self.succeed(id, Checked::Audited { by }),
            Audited::Spot { held, of } => self.succeed(id, Checked::Spot { held, of }),
            Audited::Light { held, of } => self.succeed(id, Checked::Light { held, of }),
            Audited::Tested { by, passed, detail } => {
                self.succeed(id, Checked::Tested { by, passed, detail });
            }
            Audited::Breach { fault, detail } => self.on_false_receipt(id, fault, &detail),
            Audited::Unavailable(why) => self.settle_unaudited(id, Checked::NotAudited { why }),
            Audited::Failed { by, .. } if planted("a failed audit passes") => {
                self.succeed(id, Checked::Audited { by });
            }
            Audited::Accused { .. } => {
                let detail = self.keep_accusation(id, audited);
                self.refute(Fault::Accused, &detail, Blame::Unknown);
            }
            Audited::Failed { .. } => {
                let Some(peer) = self.lane(id).map(|lane| lane.candidate.peer) else { return };
                let detail = self.convict(id, audited);
                self.refute(Fault::WrongAnswer, &detail, Blame::Provider(peer));
            }
        }
    }

    /// Another provider continued, and says the beginning was false.
    fn on_dispute_audit(&mut self, id: LaneId, at: usize, audited: Audited) {
        let Some(peer) = self.lane(id).map(|lane| lane.candidate.peer) else { return };
        let audited = audited.whole();
        match audited {
            Audited::Passed { by } => {
                let detail =
                    format!("token {at} differs from {peer}'s answer, which {by} recomputed");
                // An honest provider would not have continued it either.
                let mut authors: Vec<_> = self.answer.authors_from(at).collect();
                let blame =
                    authors.first().map_or(Blame::Unknown, |author| Blame::Provider(*author));
                authors.sort_unstable();
                authors.dedup();
                if planted("whoever disputes is blamed") {
                    authors = vec![peer];
                }
                // To pass here is to accuse the author, and one auditor's word bars nobody.
                let fault = match by {
                    Auditor::Local => Fault::FalsePrefix,
                    Auditor::Peer(_) => Fault::Minority,
                };
                for author in authors {
                    // The case is the other one's, so it does not go with this.
                    self.observe(fault, author, &detail, None);
                }
                self.refute(Fault::FalsePrefix, &detail, blame);
            }
            Audited::Failed { .. } => {
                // The one who disputes is the liar; the beginning stands, a third one continues.
                let detail = self.convict(id, audited);
                self.leave(id, Some(Fault::WrongAnswer), &detail, Again::Never);
            }
            // `whole` has left none.
            Audited::Spot { .. }
            | Audited::Light { .. }
            | Audited::Breach { .. }
            | Audited::Tested { .. } => {}
            Audited::Accused { .. } | Audited::Unavailable(_) => {
                let why = self.unsettled(id, audited);
                let detail = format!("{peer} departs from the answer so far; not audited: {why}");
                self.fail(
                    Reason::Disputed { at, detail },
                    Blame::Unknown,
                    Checked::NotAudited { why },
                );
            }
        }
    }

    /// Why an audit settled nothing.
    pub(super) fn unsettled(&mut self, id: LaneId, audited: Audited) -> String {
        match audited {
            Audited::Unavailable(why) => why,
            other => self.keep_accusation(id, other),
        }
    }

    /// Notes that one auditor accuses, and keeps its word as a file. Returns it in words.
    fn keep_accusation(&mut self, id: LaneId, audited: Audited) -> String {
        let Audited::Accused { by, mismatch, verdict } = audited else { return String::new() };
        let detail = format!(
            "position {}: {:?} differs, says auditor {by} alone, so nobody is barred",
            mismatch.position, mismatch.what
        );
        let Some(peer) = self.lane(id).map(|lane| lane.candidate.peer) else { return detail };
        if let Some(case) = self.case(id) {
            let verdicts = vec![*verdict];
            let wrong = WrongAnswer { case, mismatch, opening: None, verdicts };
            self.outs.push(Out::Keep(Box::new(Evidence::WrongAnswer(wrong))));
        }
        self.observe(Fault::Accused, peer, &detail, None);
        detail
    }

    /// Records the evidence of a failed audit. Returns it in words.
    pub(super) fn convict(&mut self, id: LaneId, audited: Audited) -> String {
        let Audited::Failed { by, mismatch, verdicts } = audited else { return String::new() };
        let detail = format!(
            "position {}: {:?} differs, recomputed by {by}",
            mismatch.position, mismatch.what
        );
        if let Some(case) = self.case(id) {
            let wrong = WrongAnswer { case, mismatch, opening: None, verdicts };
            self.record(LogBody::Evidence(Evidence::WrongAnswer(wrong)));
        }
        detail
    }

    pub(super) fn succeed(&mut self, id: LaneId, done: Checked) {
        let audited = match done {
            Checked::Audited { by } => Some(by),
            _ => None,
        };
        let Some(stop) =
            self.lane(id).and_then(|lane| lane.receipt.as_ref()).map(|receipt| receipt.stop)
        else {
            return;
        };
        self.record_accepted(id, audited);
        self.finish(End::Answered(stop), done, Some(id));
    }

    pub(super) fn record_accepted(&mut self, id: LaneId, audited: Option<Auditor>) {
        let Some((lane, receipt)) =
            self.lane(id).and_then(|lane| Some((lane, lane.receipt.as_ref()?)))
        else {
            return;
        };
        let short = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        let first_token_at = self.answer.first_token_at.unwrap_or(self.now);
        let accepted = AcceptedAnswer {
            receipt_id: receipt.id(),
            provider: lane.candidate.peer.public_key(),
            model_id: receipt.model_id,
            output_tokens: receipt.output_tokens,
            first_token_ms: short(first_token_at.since(self.started)),
            total_ms: short(self.delivered_at.unwrap_or(self.now).since(self.started)),
            audited: audited.is_some(),
            group: lane.candidate.group,
            // Where the auditor is and how it was found is the driver's to say.
            auditor: match audited {
                Some(Auditor::Peer(peer)) => Some(AuditedBy {
                    auditor: peer.public_key(),
                    group: NetworkGroup::Unknown,
                    drawn: false,
                }),
                Some(Auditor::Local) | None => None,
            },
        };
        self.record(LogBody::Accepted(accepted));
    }

    pub(super) fn expire_check(&mut self) {
        let Some(check) = self.check.as_ref().filter(|check| check.deadline <= self.now) else {
            return;
        };
        let id = check.lane;
        match check.step {
            Step::Challenge(_) => {
                let why = format!("no openings within {} ms", self.options.challenge_ms);
                self.on_challenged_gone(id, &why);
            }
            Step::Openings(_) => {
                self.fail(
                    Reason::CheckUnfinished { what: "openings" },
                    Blame::Router,
                    Checked::Receipt,
                );
            }
            Step::Audit(_) => {
                let why = format!("no verdict within {} ms", self.options.audit_ms);
                self.on_audited(id, Audited::Unavailable(why));
            }
        }
    }
}
