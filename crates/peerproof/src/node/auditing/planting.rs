//! Receipts known to be wrong, given to auditors that passed others.
//!
//! A case that an auditor passed is kept for a while, so that a later one can be
//! made of it; only cases that were shown to an auditor anyway are used. The
//! plant goes out after a pause of random length, with a draw of its own, like
//! any audit. What an auditor still can tell it by: the key that signed the
//! receipt is nobody's it has heard of.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_proof::decoy::plant;
use peerproof_wire::{AuditRequest, AuditorFinding, Case, DrawRequest, Outcome};

use super::{Audits, VERDICT};
use crate::home::random_seed;

/// Cases that are kept.
const MAX_CASES: usize = 32;
/// Longest answer of one that is kept, in tokens.
const MAX_TOKENS: usize = 4096;

/// Cases that auditors have seen, the oldest first.
#[derive(Default)]
pub(super) struct Shown(Mutex<VecDeque<(PeerId, Arc<Case>)>>);

impl Shown {
    fn add(&self, auditor: PeerId, case: &Arc<Case>) {
        if case.tokens.len() > MAX_TOKENS || case.offer.pooling.is_some() {
            return;
        }
        let mut cases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cases.push_back((auditor, Arc::clone(case)));
        while cases.len() > MAX_CASES {
            cases.pop_front();
        }
    }

    /// A case of the same model to make a plant of: one this auditor has not seen, if there is one.
    fn pick(&self, auditor: PeerId, like: &Case, chance: u64) -> Option<Arc<Case>> {
        let cases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fit = |unseen: bool| -> Vec<&Arc<Case>> {
            let same = cases.iter().filter(|(_, case)| case.offer.model_id == like.offer.model_id);
            same.filter(|(by, _)| !unseen || *by != auditor).map(|(_, case)| case).collect()
        };
        let choice =
            Some(fit(true)).filter(|cases| !cases.is_empty()).unwrap_or_else(|| fit(false));
        let index = (chance % choice.len().max(1) as u64) as usize;
        choice.get(index).map(|case| Arc::clone(case))
    }
}

impl Audits {
    /// After a verdict of "passed": remembers the case, and by chance tests the auditor.
    pub(super) fn watch(self: &Arc<Self>, auditor: PeerId, case: &Arc<Case>) {
        self.manner.shown.add(auditor, case);
        let floor = u64::from(self.manner.terms.plant_per_mille);
        let permille = floor.max(self.ledger.auditor(&auditor).plant_permille.into());
        let [a, b, c] = numbers();
        if floor == 0 || a % 1000 >= permille {
            return;
        }
        let Some(like) = self.manner.shown.pick(auditor, case, b) else { return };
        let pause = Duration::from_millis(c % (u64::from(self.manner.terms.plant_delay_ms) + 1));
        let (audits, mut stopped) = (Arc::clone(self), self.stopped.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => audits.test(auditor, &like).await,
                () = crate::node::stopping(&mut stopped) => {}
            }
        });
    }

    /// Gives an auditor a receipt that no honest one passes.
    async fn test(&self, auditor: PeerId, like: &Case) {
        let entropy = random_seed();
        let Some(case) = plant(like, &self.session, &entropy, self.clock.unix_ms()) else { return };
        let receipt = &case.receipt;
        let draw =
            DrawRequest { transcript_root: receipt.transcript_root, offer_id: receipt.offer_id };
        // As before any audit; what comes back matters no more than that it was asked.
        let _ = super::talk(&self.net, auditor, AuditRequest::Draw(draw), VERDICT).await;
        match self.ask(auditor, &case).await {
            Ok(verdict) if verdict.outcome == Outcome::Pass => {
                tracing::warn!(%auditor, "passed a receipt that is known to be wrong");
                self.tell_on(&case, verdict).await;
            }
            Ok(_) => self.note_auditor(auditor, &case, AuditorFinding::Caught).await,
            // It owes nobody an answer; one that never gives a verdict is of no use either.
            Err(why) => tracing::debug!(%auditor, why, "no verdict on a planted receipt"),
        }
    }
}

/// Three random numbers.
fn numbers() -> [u64; 3] {
    let bytes = random_seed();
    let (words, _) = bytes.as_chunks::<8>();
    [0, 1, 2].map(|at| words.get(at).map_or(0, |word| u64::from_le_bytes(*word)))
}
