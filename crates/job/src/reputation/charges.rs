//! What bars a peer, and what lifts a bar.
//!
//! A charge holds until it is refuted (a receipt said to be wrong passes an
//! audit here) or until the user unblocks the peer after it. The user's last
//! word stands against everything older, and only against that.

use std::collections::{BTreeMap, BTreeSet};

use peerproof_wire::Digest;

use crate::limits::{MAX_CHARGES, MAX_REASON_BYTES};
use crate::text::clip;

/// The place of an entry: its time, then its place in the log.
pub(super) type Place = (u64, u64);

#[derive(Clone, Debug)]
struct Charge {
    receipt: Option<Digest>,
    why: String,
}

#[derive(Clone, Debug)]
struct Decision {
    at: Place,
    blocked: bool,
    reason: String,
}

/// All that was brought against one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Charges {
    charges: BTreeMap<Place, Charge>,
    decision: Option<Decision>,
}

impl Charges {
    /// Beyond the limit the first ones and the last one are kept, whatever order they come in.
    pub(super) fn charge(&mut self, at: Place, receipt: Option<Digest>, why: &str) {
        let why = clip(why, MAX_REASON_BYTES);
        self.charges.insert(at, Charge { receipt, why });
        if self.charges.len() > MAX_CHARGES
            && let Some(place) = self.charges.keys().nth_back(1).copied()
        {
            self.charges.remove(&place);
        }
    }

    pub(super) fn decide(&mut self, at: Place, blocked: bool, reason: &str) {
        if self.decision.as_ref().is_none_or(|before| before.at < at) {
            let reason = clip(reason, MAX_REASON_BYTES);
            self.decision = Some(Decision { at, blocked, reason });
        }
    }

    /// Why the peer is barred, if it is: the user's word, or the first charge that stands.
    pub(super) fn bar(&self, refuted: &BTreeSet<Digest>) -> Option<String> {
        if let Some(decision) = self.decision.as_ref().filter(|decision| decision.blocked) {
            return Some(format!("blocked by the user: {}", decision.reason));
        }
        let lifted = self.lifted();
        let mut standing = self.standing(refuted);
        standing
            .find(|(at, _)| lifted.is_none_or(|lifted| **at > lifted))
            .map(|(_, charge)| charge.why.clone())
    }

    /// When the user last unblocked the peer, if that is the user's last word.
    pub(super) fn lifted(&self) -> Option<Place> {
        self.decision.as_ref().filter(|decision| !decision.blocked).map(|decision| decision.at)
    }

    /// When charges came that stand and that the user forgave.
    pub(super) fn forgiven<'a>(
        &'a self,
        refuted: &'a BTreeSet<Digest>,
    ) -> impl Iterator<Item = u64> + 'a {
        let lifted = self.lifted();
        let before = move |at: &Place| lifted.is_some_and(|lifted| *at < lifted);
        self.standing(refuted).filter(move |(at, _)| before(at)).map(|((unix_ms, _), _)| *unix_ms)
    }

    fn standing<'a>(
        &'a self,
        refuted: &'a BTreeSet<Digest>,
    ) -> impl Iterator<Item = (&'a Place, &'a Charge)> + 'a {
        let stands = |charge: &Charge| charge.receipt.is_none_or(|id| !refuted.contains(&id));
        self.charges.iter().filter(move |(_, charge)| stands(charge))
    }

    /// Receipts whose charge stands, for whoever wants to look again.
    pub(super) fn receipts(&self, refuted: &BTreeSet<Digest>) -> Vec<Digest> {
        self.standing(refuted).filter_map(|(_, charge)| charge.receipt).collect()
    }
}
