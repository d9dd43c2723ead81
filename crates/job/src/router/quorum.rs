//! Several providers, one answer: equality instead of trust.
//!
//! Every provider computes the whole answer by itself. When all have answered
//! (or k agree and the rest had its grace), equal answers form groups. A group
//! of at least k wins; whoever stands outside it is audited if anybody can,
//! and recorded either way. Without such a group everybody is audited. If an
//! outsider passes, the winners are audited too: a recomputation outranks any
//! majority.

use std::collections::{BTreeMap, VecDeque};

use peerproof_wire::{Digest, Stop};

use super::check::Why;
use super::roster::Again;
use super::{Audited, Auditor, Blame, Checked, End, Job, Lane, LaneId, Reason};
use crate::reputation::Fault;
use crate::time::Millis;

/// What a quorum knows beside its lanes.
#[derive(Default)]
pub(super) struct Quorum {
    /// When the rest has had its time; set once k agree.
    grace: Option<Millis>,
    /// Whether no more answers are waited for.
    closing: bool,
    queue: VecDeque<LaneId>,
    audits: BTreeMap<LaneId, Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Passed(super::Auditor),
    Failed,
    Unknown,
}

/// What must be equal for two answers to be one.
#[derive(PartialEq)]
struct Copy<'a> {
    tokens: &'a [u32],
    root: Digest,
    text_hash: Digest,
    kv_root: Digest,
    stop: Stop,
}

impl Quorum {
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(super) fn grace(&self) -> Option<Millis> {
        self.grace.filter(|_| !self.closing)
    }
}

impl Job {
    /// Looks whether the quorum has all it will get.
    pub(super) fn weigh(&mut self) {
        let Some(quorum) = &self.quorum else { return };
        if self.over || quorum.closing {
            return;
        }
        let agreed = self.largest_group().len() >= self.options.k;
        let running = self.lanes.iter().any(|lane| !lane.is_sound());
        let full = self.lanes.len() >= self.wanted();
        let complete = !running && (full || agreed || !self.more_may_come());
        let hopeless = self.lanes.len() < self.options.k && !self.more_may_come();
        let grace_over = quorum.grace.is_some_and(|at| at <= self.now);
        if complete || grace_over || hopeless {
            return self.close_quorum();
        }
        if agreed && quorum.grace.is_none() {
            let at = self.now.after(self.options.grace_ms);
            self.quorum.get_or_insert_default().grace = Some(at);
        }
    }

    /// Waits for nobody else and compares.
    pub(super) fn close_quorum(&mut self) {
        self.quorum.get_or_insert_default().closing = true;
        let running: Vec<LaneId> =
            self.lanes.iter().filter(|lane| !lane.is_sound()).map(|lane| lane.id).collect();
        for id in running {
            self.drop_lane(id, None, "no longer needed", Again::Never);
        }
        if self.attempts == 0 || self.lanes.is_empty() && self.refusals.of_offer.is_some() {
            return self.give_up();
        }
        let winners = self.winners();
        let outsiders = self.lanes.iter().map(|lane| lane.id).filter(|id| !winners.contains(id));
        let queue = outsiders.collect();
        if let Some(quorum) = &mut self.quorum {
            quorum.queue = queue;
        }
        self.audit_next();
    }

    fn largest_group(&self) -> Vec<LaneId> {
        let groups = self.lanes.iter().filter_map(copy).map(|wanted| self.group(&wanted));
        groups.rev().max_by_key(Vec::len).unwrap_or_default()
    }

    fn group(&self, wanted: &Copy<'_>) -> Vec<LaneId> {
        let equal = |lane: &&Lane| copy(lane).as_ref() == Some(wanted);
        self.lanes.iter().filter(equal).map(|lane| lane.id).collect()
    }

    fn winners(&self) -> Vec<LaneId> {
        let group = self.largest_group();
        if group.len() >= self.options.k { group } else { Vec::new() }
    }

    fn audit_next(&mut self) {
        let next = self.quorum.as_mut().and_then(|quorum| quorum.queue.pop_front());
        match next {
            Some(id) => self.start_audit(id, Why::Quorum),
            None => self.conclude(),
        }
    }

    pub(super) fn on_quorum_audit(&mut self, id: LaneId, audited: Audited) {
        let audited = audited.whole();
        let finding = match &audited {
            Audited::Passed { by } => Finding::Passed(*by),
            Audited::Failed { .. } => Finding::Failed,
            _ => Finding::Unknown,
        };
        match audited {
            Audited::Failed { .. } => {
                self.convict(id, audited);
            }
            Audited::Accused { .. } | Audited::Unavailable(_) => {
                let why = self.unsettled(id, audited);
                let detail = format!("differs from the others; not audited: {why}");
                let peer = self.lane(id).map(|lane| lane.candidate.peer);
                if let Some(peer) = peer.filter(|_| !self.winners().is_empty()) {
                    let case = self.case(id);
                    self.observe(Fault::Minority, peer, &detail, case);
                }
            }
            // `whole` has left no other.
            _ => {}
        }
        let winners = self.winners();
        if let Some(quorum) = &mut self.quorum {
            quorum.audits.insert(id, finding);
            if matches!(finding, Finding::Passed(_)) && !winners.contains(&id) {
                let unheard =
                    |id: &LaneId| !quorum.audits.contains_key(id) && !quorum.queue.contains(id);
                let unheard: Vec<LaneId> = winners.into_iter().filter(unheard).collect();
                quorum.queue.extend(unheard);
            }
        }
        self.audit_next();
    }

    /// The copy to believe, and why.
    fn verdict(&self) -> Option<(LaneId, Checked)> {
        let audits = &self.quorum.as_ref()?.audits;
        let passed = audits.iter().find_map(|(id, finding)| match finding {
            Finding::Passed(by) => Some((*id, Checked::Audited { by: *by })),
            Finding::Failed | Finding::Unknown => None,
        });
        let winners = self.winners();
        let agreed = Checked::Agreed { equal: winners.len(), of: self.lanes.len() };
        // Winners are audited only after an outsider passed, who then outranks them.
        passed.or_else(|| winners.first().map(|id| (*id, agreed)))
    }

    fn conclude(&mut self) {
        let Some((id, done)) = self.verdict() else {
            let equal = self.largest_group().len();
            let (answered, needed) = (self.lanes.len(), self.options.k);
            let reason = Reason::NoAgreement { equal, answered, needed };
            // Answers that differ refute each other; too few of them say nothing.
            let done = match (answered, equal) {
                (0, _) => Checked::Nothing,
                _ if answered == equal => Checked::Receipt,
                _ => Checked::Refuted,
            };
            return self.fail(reason, Blame::Unknown, done);
        };
        let Some(lane) = self.lane(id) else { return };
        let (peer, stop) = (lane.candidate.peer, lane.receipt.as_ref().map(|receipt| receipt.stop));
        let Some(stop) = stop else { return };
        if !lane.continues(&self.answer) {
            let at = self.answer.departs_from(&lane.tokens);
            let detail =
                format!("what was passed on departs at token {at} from the answer of {peer}");
            let author = self.answer.author(at);
            let present = |peer| self.lanes.iter().any(|lane| lane.candidate.peer == peer);
            // Whoever is still here was audited, or recorded for want of an audit.
            if let Some(gone) = author.filter(|author| !present(*author)) {
                let proven = done == Checked::Audited { by: Auditor::Local };
                let fault = if proven { Fault::FalsePrefix } else { Fault::Minority };
                self.observe(fault, gone, &detail, None);
            }
            let blame = author.map_or(Blame::Unknown, Blame::Provider);
            return self.refute(Fault::FalsePrefix, &detail, blame);
        }
        let text = lane.text.as_ref().map_or(0, String::len);
        if lane.tokens.len() > self.answer.tokens.len() || text > self.answer.text.len() {
            self.grow(id);
        }
        let believed =
            self.lane(id).and_then(copy).map(|wanted| self.group(&wanted)).unwrap_or_default();
        for id in believed {
            let audits = self.quorum.as_ref().map(|quorum| &quorum.audits);
            let audited = audits.and_then(|audits| match audits.get(&id) {
                Some(Finding::Passed(by)) => Some(*by),
                _ => None,
            });
            self.record_accepted(id, audited);
        }
        self.finish(End::Answered(stop), done, Some(id));
    }
}

fn copy(lane: &Lane) -> Option<Copy<'_>> {
    let receipt = lane.receipt.as_ref().filter(|_| lane.is_sound())?;
    Some(Copy {
        tokens: &lane.tokens,
        root: receipt.transcript_root,
        text_hash: receipt.text_hash,
        kv_root: receipt.kv_root,
        stop: receipt.stop,
    })
}
