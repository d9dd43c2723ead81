//! What one peer did, by network group and day.

use std::collections::{BTreeMap, BTreeSet};

use peerproof_wire::NetworkGroup;

use super::days::{At, Day, Days};
use super::effect::{Audit, Figures};
use crate::limits::{MAX_DAYS, MAX_GROUPS_PER_RECORD};
use crate::planted::planted;

/// Points of an audit that was passed and done here.
pub(super) const OWN_AUDIT: u64 = 8;
/// Points of an audit that was passed and done by another node.
pub(super) const OTHERS_AUDIT: u64 = 4;

/// Totals that do not fade, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Answers that were accepted.
    pub answers: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Of those answers, the ones that were recomputed, here or elsewhere.
    pub audits: u64,
    /// Entries that count against it.
    pub faults: u64,
    /// Milliseconds to the first token of all answers together.
    pub first_token_ms: u64,
}

/// Good points by their source.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    pub(super) answers: Days,
    pub(super) own_audits: Days,
    pub(super) others_audits: Days,
    /// All of them, weighted.
    pub(super) points: Days,
    /// Days on which auditors of a group have vouched.
    vouched: BTreeSet<(NetworkGroup, Day)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) work: BTreeMap<NetworkGroup, Work>,
    pub(super) bad: Days,
    pub(super) volume: Volume,
    /// Where its last answer came from.
    pub(super) last_group: NetworkGroup,
    pub(super) last_ms: u64,
}

impl Record {
    /// Counts an answer. Returns the group it counts in and its points.
    pub(super) fn answer(
        &mut self,
        group: NetworkGroup,
        audit: Audit,
        day: Day,
        figures: Figures,
    ) -> (NetworkGroup, u64) {
        let known = self.work.len() < MAX_GROUPS_PER_RECORD || self.work.contains_key(&group);
        let group = if known { group } else { NetworkGroup::Unknown };
        let work = self.work.entry(group).or_default();
        let points = work.answer(group, audit, day);
        let volume = &mut self.volume;
        volume.answers += 1;
        volume.tokens += u64::from(figures.tokens);
        volume.audits += u64::from(audit != Audit::None);
        volume.first_token_ms += u64::from(figures.first_token_ms);
        (group, points)
    }
}

impl Work {
    fn answer(&mut self, group: NetworkGroup, audit: Audit, day: Day) -> u64 {
        self.answers.add(day, 1);
        let extra = match audit {
            Audit::None => 0,
            Audit::Here => {
                let audits = 1 + u64::from(planted("an audit counts twice"));
                self.own_audits.add(day, audits);
                audits * OWN_AUDIT
            }
            Audit::Elsewhere(auditor) if self.vouches(group, auditor, day) => {
                self.others_audits.add(day, 1);
                OTHERS_AUDIT
            }
            Audit::Elsewhere(_) => 0,
        };
        self.points.add(day, 1 + extra);
        1 + extra
    }

    /// Whether an audit by somebody of that group counts: not from the provider's own
    /// group, and once a day. Machines of a private network do not limit each other.
    fn vouches(&mut self, group: NetworkGroup, auditor: NetworkGroup, day: Day) -> bool {
        if auditor == NetworkGroup::Local {
            return true;
        }
        if auditor == group || !self.vouched.insert((auditor, day)) {
            return false;
        }
        if self.vouched.len() > MAX_DAYS {
            let oldest = self.vouched.iter().min_by_key(|(_, day)| *day).copied();
            oldest.map(|oldest| self.vouched.remove(&oldest));
        }
        true
    }

    pub(super) fn left(&self, at: At) -> u64 {
        self.points.left(at)
    }
}
