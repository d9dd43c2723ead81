//! The check of an answer that is in use already (the mode `fraud_proof`).
//!
//! The answer was given out when its receipt was checked. What its level asks for
//! is done here; who is found out is recorded as in any other mode, and so barred
//! and passed on. Nobody waits for it, so nothing is told to the asker.

use std::sync::Arc;

use peerproof_job::router::Audited;
use peerproof_wire::evidence::{Evidence, LogBody, Observation, WrongAnswer};
use peerproof_wire::{Case, Level as WireLevel};

use super::offer::Prepared;
use crate::evidence;
use crate::home::random_seed;
use crate::node::auditing::Question;
use crate::node::{Inner, lighting, spotting};

/// Checks an answer as its level says, and records what is wrong with it.
pub(super) async fn check(inner: &Arc<Inner>, prepared: &Prepared, case: Case, level: WireLevel) {
    let provider = case.receipt.key().peer_id();
    let case = Arc::new(case);
    let audited = match level {
        WireLevel::Receipt | WireLevel::KOfN => return,
        WireLevel::Sampled if !is_drawn(inner, &provider) => return,
        WireLevel::Spot if case.offer.pooling.is_none() => {
            spotting::audit(inner, &case, prepared.client_nonce).await
        }
        WireLevel::Light if case.offer.pooling.is_none() => {
            lighting::audit(inner, &case, prepared.client_nonce).await
        }
        WireLevel::Spot | WireLevel::Light | WireLevel::Sampled | WireLevel::Full => {
            let question = Question {
                case: Arc::clone(&case),
                exclude: vec![provider],
                named: prepared.auditor,
                begun: std::time::Instant::now(),
            };
            inner.audits.run(&question).await.0
        }
    };
    let found = match audited {
        Audited::Failed { mismatch, verdicts, .. } => {
            let case = Case::clone(&case);
            Evidence::WrongAnswer(WrongAnswer { case, mismatch, opening: None, verdicts })
        }
        Audited::Breach { fault, detail } => {
            let reason = format!("{}: {detail}", fault.code());
            let kept = Some(Case::clone(&case));
            Evidence::Observation(Observation::new(case.receipt.key(), reason, kept))
        }
        Audited::Passed { .. } | Audited::Spot { .. } | Audited::Light { .. } => return,
        other => {
            tracing::info!(%provider, ?other, "an answer in use could not be audited");
            return;
        }
    };
    tracing::warn!(%provider, "an answer that is in use is wrong; its provider is barred");
    let dir = inner.home.evidence();
    let entry = inner.ledger.remember(LogBody::Evidence(found.clone()));
    let written = tokio::task::spawn_blocking(move || evidence::write(&dir, &found)).await;
    if !matches!(written, Ok(Ok(_))) {
        tracing::warn!(%provider, "the evidence could not be written as a file");
    }
    if let Err(error) = inner.ledger.append(&entry).await {
        tracing::warn!(%provider, %error, "the evidence could not be logged");
    }
}

/// Whether the lot falls on an answer of this provider.
fn is_drawn(inner: &Inner, provider: &peerproof_identity::PeerId) -> bool {
    let standing = super::sampled(inner.standing(provider), inner.config.ask.audit_per_mille);
    let [low, high, ..] = random_seed();
    let draw = u32::from(u16::from_le_bytes([low, high])) * 1_000 / (1 << 16);
    draw < u32::from(standing.audit_permille)
}
