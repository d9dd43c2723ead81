//! What is known of auditors, who are believed apart from providers.
//!
//! Nobody's word counts here but this node's own: a planted receipt that was
//! judged, a verdict that was recomputed, two auditors that contradict each
//! other (one of them lies, so it counts a little against both), a draw that
//! does not hold. One false verdict ends the use of an auditor.

use std::collections::BTreeMap;

use peerproof_wire::Digest;

use super::charges::Place;
use super::days::{At, Days, ONE, day};
use super::effect::Judged;
use crate::limits::MAX_CHARGES;

/// Points that every auditor starts with on either side.
const PRIOR: u64 = 4 * ONE;
/// Points against each of two auditors that contradict each other.
const DISAGREED: u64 = 4;
/// Points against an auditor whose draw does not hold.
const UNDRAWN: u64 = 16;
/// Below this score an auditor is not asked.
const LEAST_SCORE: u64 = 250;
/// Chance of a planted receipt for an auditor without a record.
const NEWCOMER_PLANT_PERMILLE: u64 = 250;
/// Points of checks at which that chance is halved.
const HALVING: u64 = 8;

/// What a router needs to know of an auditor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditorStanding {
    /// 0 to 1000; 500 without a record.
    pub score: u16,
    /// Chance in a thousand that it is given a receipt known to be wrong, before the
    /// node's own floor.
    pub plant_permille: u16,
    /// Why it is not asked, if it is not.
    pub barred: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct AuditorRecord {
    right: Days,
    wrong: Days,
    false_verdicts: BTreeMap<Digest, Place>,
    pub(super) checks: u64,
    pub(super) last_ms: u64,
}

impl AuditorRecord {
    pub(super) fn judge(&mut self, place: Place, judged: Judged) {
        let (unix_ms, _) = place;
        self.last_ms = self.last_ms.max(unix_ms);
        self.checks += 1;
        let day = day(unix_ms);
        match judged {
            Judged::Right => self.right.add(day, 1),
            Judged::Disagreed => self.wrong.add(day, DISAGREED),
            Judged::Undrawn => self.wrong.add(day, UNDRAWN),
            Judged::False(receipt) => {
                // The latest of one receipt, so that the order of entries does not matter.
                let at = self.false_verdicts.entry(receipt).or_insert(place);
                *at = place.max(*at);
                if self.false_verdicts.len() > MAX_CHARGES {
                    let first = self.false_verdicts.iter().min_by_key(|(_, at)| **at);
                    let first = first.map(|(receipt, _)| *receipt);
                    first.map(|receipt| self.false_verdicts.remove(&receipt));
                }
            }
        }
    }

    /// `lifted` is when the user last spoke for it.
    pub(super) fn standing(&self, at: At, lifted: Option<Place>) -> AuditorStanding {
        let (right, wrong) = (self.right.left(at), self.wrong.left(at));
        let score = 1000 * (right + PRIOR) / (right + wrong + 2 * PRIOR);
        let stands = |at: &&Place| lifted.is_none_or(|lifted| **at > lifted);
        let lies = self.false_verdicts.values().filter(stands).count();
        let barred = if lies > 0 {
            Some(format!("false-verdict: {lies} times it signed what a recomputation refutes"))
        } else if score < LEAST_SCORE {
            Some(format!("contradicted too often: score {score} as an auditor"))
        } else {
            None
        };
        let known = right / ONE;
        let plant = NEWCOMER_PLANT_PERMILLE * HALVING / (known + HALVING);
        AuditorStanding { score: score as u16, plant_permille: plant as u16, barred }
    }
}
