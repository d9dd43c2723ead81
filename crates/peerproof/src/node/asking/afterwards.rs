//! The check of an answer that is in use already (the mode `fraud_proof`).
//!
//! The answer was given out when its receipt was checked. What its level asks for
//! is done here; who is found out is recorded as in any other mode, and so barred
//! and passed on. Nobody waits for it; how far it is stands in `checks`.

use std::path::PathBuf;
use std::sync::Arc;

use peerproof_job::router::Audited;
use peerproof_proof::audit::describe;
use peerproof_wire::evidence::{Evidence, LogBody, Observation, WrongAnswer};
use peerproof_wire::{Case, Level as WireLevel};

use super::offer::Prepared;
use crate::client::CheckState;
use crate::home::random_seed;
use crate::node::auditing::Question;
use crate::node::{Inner, lighting, spotting};
use crate::{evidence, papers};

/// Checks an answer as its level says, and records what is wrong with it. Its papers are on
/// disk meanwhile.
pub(super) async fn check(inner: &Arc<Inner>, prepared: &Prepared, case: Case, level: WireLevel) {
    let job = case.offer.id().to_string();
    let papers = keep_papers(inner, &case).await;
    if let Some(papers) = &papers {
        inner.checks.papers(&job, papers);
    }
    let (state, detail, file) = look(inner, prepared, case, level).await;
    // What holds needs no papers, and what is refuted has better ones.
    if let (CheckState::Held | CheckState::Refuted, Some(papers)) = (state, papers) {
        let _ = tokio::fs::remove_file(papers).await;
    }
    inner.checks.end(&job, state, detail, file);
}

async fn keep_papers(inner: &Inner, case: &Case) -> Option<PathBuf> {
    let (dir, case) = (inner.home.papers(), case.clone());
    match tokio::task::spawn_blocking(move || papers::write(&dir, &case)).await {
        Ok(Ok(path)) => Some(path),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the papers of an answer could not be kept");
            None
        }
        Err(_) => None,
    }
}

type Seen = (CheckState, String, Option<PathBuf>);

async fn look(inner: &Arc<Inner>, prepared: &Prepared, case: Case, level: WireLevel) -> Seen {
    let provider = case.receipt.key().peer_id();
    let case = Arc::new(case);
    if level == WireLevel::Sampled && !is_drawn(inner, &provider) {
        return (CheckState::Unchecked, "it was not drawn for an audit".into(), None);
    }
    let text = case.offer.pooling.is_none();
    let audited = match level {
        WireLevel::Spot if text => {
            let audited = spotting::audit(inner, &case, prepared.client_nonce).await;
            spotting::hold_to_account(inner, &case, audited).await
        }
        WireLevel::Light if text => {
            let audited = lighting::audit(inner, &case, prepared.client_nonce).await;
            spotting::hold_to_account(inner, &case, audited).await
        }
        _ => {
            let question = Question {
                case: Arc::clone(&case),
                exclude: vec![provider],
                named: prepared.auditor,
                begun: std::time::Instant::now(),
            };
            inner.audits.run(&question).await.0
        }
    };
    let (found, detail) = match audited {
        Audited::Failed { mismatch, verdicts, .. } => {
            let (case, detail) = (Case::clone(&case), describe(&mismatch));
            let wrong = WrongAnswer { case, mismatch, opening: None, verdicts };
            (Evidence::WrongAnswer(wrong), detail)
        }
        Audited::Breach { fault, detail } => {
            let reason = format!("{}: {detail}", fault.code());
            let kept = Some(Case::clone(&case));
            (Evidence::Observation(Observation::new(case.receipt.key(), reason, kept)), detail)
        }
        Audited::Passed { by } => {
            return (CheckState::Held, format!("audited by {by}: every position holds"), None);
        }
        Audited::Spot { held, of } => {
            let detail = format!("{held} of {of} cells recomputed, all hold");
            return (CheckState::Held, detail, None);
        }
        Audited::Light { held, of } => {
            let detail = format!("{held} of {of} cells checked by their products, all hold");
            return (CheckState::Held, detail, None);
        }
        Audited::Tested { by, passed, detail } => {
            let state = if passed { CheckState::Held } else { CheckState::Unchecked };
            return (state, format!("tested by {by}: {detail}"), None);
        }
        Audited::Accused { by, mismatch, .. } => {
            let detail = format!("{by} calls it wrong, unconfirmed: {}", describe(&mismatch));
            return (CheckState::Doubted, detail, None);
        }
        Audited::Unavailable(why) => {
            tracing::info!(%provider, why, "an answer in use could not be audited");
            return (CheckState::Unchecked, why, None);
        }
    };
    tracing::warn!(%provider, "an answer that is in use is wrong; its provider is barred");
    (CheckState::Refuted, detail, record(inner, found).await)
}

/// Remembers what was found, makes a file of it and logs it.
async fn record(inner: &Inner, found: Evidence) -> Option<PathBuf> {
    let dir = inner.home.evidence();
    let entry = inner.ledger.remember(LogBody::Evidence(found.clone()));
    let written = tokio::task::spawn_blocking(move || evidence::write(&dir, &found)).await;
    let file = match written {
        Ok(Ok(path)) => Some(path),
        _ => {
            tracing::warn!("the evidence could not be written as a file");
            None
        }
    };
    if let Err(error) = inner.ledger.append(&entry).await {
        tracing::warn!(%error, "the evidence could not be logged");
    }
    file
}

/// Whether the lot falls on an answer of this provider.
fn is_drawn(inner: &Inner, provider: &peerproof_identity::PeerId) -> bool {
    let standing = super::sampled(inner.standing(provider), inner.config.ask.audit_per_mille);
    let [low, high, ..] = random_seed();
    let draw = u32::from(u16::from_le_bytes([low, high])) * 1_000 / (1 << 16);
    draw < u32::from(standing.audit_permille)
}
