//! From the end of a job to what its asker is told.

use std::sync::atomic::Ordering;

use peerproof_identity::PeerId;
use peerproof_job::Fault;
use peerproof_job::router::{Blame, Checked, End, Outcome as Ended, Reason};
use peerproof_wire::{Case, FailureCode, Level as WireLevel, Stop};

use super::Asking;
use crate::client::{AnswerEvent, AskError, FinishReason, Level, Mode, Outcome, Report};
use crate::node::directory::Wanted;
use crate::price::{self, Cost, Price};

impl Asking {
    /// Tells the asker how it ended. Gives back an answer that counts.
    pub(super) async fn report(&mut self) -> Option<Case> {
        let ended = self.ended.take()?;
        let result = match &ended.end {
            End::Answered(stop) => Ok(self.outcome(&ended, *stop)),
            End::Failed { reason, blame } => Err(self.error(reason, *blame, &ended)),
            End::Cancelled => return None,
        };
        let counts = &self.inner.counts;
        let counter = match &result {
            Ok(_) => &counts.answered,
            Err(AskError::Refused { .. }) => &counts.refused,
            Err(_) => &counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let answered = result.is_ok();
        if let (Ok(outcome), Some(level)) = (&result, self.prepared.follows()) {
            let (job, provider) = (outcome.job_id.clone(), outcome.provider.clone());
            self.inner.checks.begin(job, provider, self::level(level));
        }
        let _ = self.events.send(result.map(|outcome| AnswerEvent::Done(Box::new(outcome)))).await;
        let offer = self.prepared.offer.clone();
        let Ended { receipt, tokens, .. } = *ended;
        receipt.map(|receipt| Case { offer, receipt, tokens }).filter(|_| answered)
    }

    fn outcome(&self, ended: &Ended, stop: Stop) -> Outcome {
        let offer = &self.prepared.offer;
        let provider = ended.receipt.as_ref().map(|receipt| receipt.key().peer_id());
        let reputation = provider.map_or(0, |peer| self.inner.standing(&peer).score);
        let millis = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        Outcome {
            job_id: offer.id().to_string(),
            receipt_id: ended.receipt_id().map(|id| id.to_string()).unwrap_or_default(),
            provider: provider.map(|peer| peer.to_string()).unwrap_or_default(),
            model_id: offer.model_id.to_string(),
            model: self.prepared.model_name.clone(),
            finish_reason: match stop {
                Stop::Length => FinishReason::Length,
                Stop::EndOfText | Stop::StopString => FinishReason::Stop,
            },
            prompt_tokens: ended.prompt_tokens.unwrap_or(0),
            output_tokens: ended.output_tokens,
            verification: Report {
                level: level(self.prepared.later.unwrap_or(ended.verification.asked)),
                mode: match self.prepared.later {
                    Some(_) => Mode::FraudProof,
                    None => Mode::Merkle,
                },
                pending: self.prepared.follows().is_some(),
                audited: matches!(ended.verification.done, Checked::Audited { .. }),
                detail: self.detail(&ended.verification),
                check_ms: millis(ended.verification.cost_ms),
                priced: provider.and_then(|provider| self.priced(&provider, ended)),
            },
            reputation: u32::from(reputation),
            first_token_ms: millis(ended.first_token_ms.unwrap_or(0)),
            total_ms: millis(ended.total_ms),
            trail: ended.trail.iter().map(ToString::to_string).collect(),
        }
    }

    /// What the provider's announced price makes of this answer and its check.
    fn priced(&self, provider: &PeerId, ended: &Ended) -> Option<Cost> {
        let id = self.prepared.offer.model_id;
        let known = self.inner.directory.matching(&Wanted::Served(id));
        let (_, known) = known.into_iter().find(|(peer, _)| peer == provider)?;
        let offer = known.announcement.serves.iter().find(|model| model.model_id == id)?;
        let price = Price::from(offer.price.as_ref()?);
        let wanted = self.prepared.later.unwrap_or(ended.verification.asked);
        price.estimate(&price::Asked {
            level: level(wanted),
            prompt_tokens: ended.prompt_tokens.unwrap_or(0),
            output_tokens: ended.output_tokens,
            audit_per_mille: self.inner.standing(provider).audit_permille.into(),
            n: u8::try_from(self.prepared.options.n).unwrap_or(u8::MAX),
        })
    }

    fn detail(&self, verification: &peerproof_job::router::Verification) -> String {
        let opened = if verification.opened { ", drawn leaves opened" } else { "" };
        let later = match self.prepared.later {
            Some(WireLevel::Spot) => "; a spot audit follows",
            Some(WireLevel::Light) => "; a light audit follows",
            Some(WireLevel::Full) => "; a full audit follows",
            Some(WireLevel::Sampled) => "; an audit by lot follows",
            _ => "",
        };
        format!("{}{opened}{later}", verification.done)
    }

    fn error(&self, reason: &Reason, blame: Blame, ended: &Ended) -> AskError {
        let trail: Vec<String> = ended.trail.iter().map(ToString::to_string).collect();
        let model = self.prepared.model_name.clone();
        match reason {
            Reason::NoProvider => match self.longest_context() {
                Some(limit) if limit < self.prepared.offer.max_tokens => {
                    AskError::ContextLength { limit, requested: self.prepared.offer.max_tokens }
                }
                _ => AskError::NoProvider { model, reason: self.inner.why_nobody() },
            },
            Reason::Refused { code, message } => self.refused_request(*code, message),
            Reason::Busy { retry_after_ms } => AskError::Busy { retry_after_ms: *retry_after_ms },
            Reason::TooLarge { message } => AskError::TooLarge { model, message: message.clone() },
            Reason::Deadline { total_ms } => AskError::Deadline { deadline_ms: *total_ms },
            Reason::Check { .. } | Reason::Disputed { .. } | Reason::NoAgreement { .. } => {
                let (provider, found) = match blame {
                    Blame::Provider(peer) => (peer.to_string(), self.found.get(&peer)),
                    _ => (several(ended), self.found.values().next()),
                };
                let mismatch = found.and_then(|found| found.mismatch.as_ref());
                let reason = match (reason, mismatch) {
                    (Reason::Check { fault, .. }, Some(what)) if *fault != Fault::Accused => {
                        format!("{fault}, {what}")
                    }
                    _ => reason.to_string(),
                };
                let evidence = found.map_or_else(|| "none".into(), |found| found.file.clone());
                AskError::Refused { provider, reason, evidence }
            }
            _ if trail.is_empty() => AskError::Failed { trail: vec![reason.to_string()] },
            _ => AskError::Failed { trail },
        }
    }

    /// Most tokens that any known provider of the model can hold.
    fn longest_context(&self) -> Option<u32> {
        let id = self.prepared.offer.model_id;
        let held = self.inner.directory.matching(&Wanted::Served(id));
        let offers = held.iter().flat_map(|(_, known)| &known.announcement.serves);
        offers.filter(|m| m.model_id == id).map(|m| m.context_length).max()
    }

    fn refused_request(&self, code: FailureCode, message: &str) -> AskError {
        let invalid = |parameter: &str| AskError::Invalid {
            parameter: parameter.into(),
            message: message.into(),
        };
        match code {
            FailureCode::ContextLength => {
                match (self.longest_context(), requested(message)) {
                    // Figures that don't contradict themselves; else the provider's own words.
                    (Some(limit), Some(requested)) if requested > limit => {
                        AskError::ContextLength { limit, requested }
                    }
                    _ => invalid("messages"),
                }
            }
            FailureCode::EmptyPrompt => invalid("messages"),
            FailureCode::Constraint => invalid("response_format"),
            FailureCode::UnknownModel => AskError::NoProvider {
                model: self.prepared.model_name.clone(),
                reason: message.into(),
            },
            _ => invalid("request"),
        }
    }
}

/// Whose answer it is, where nobody is to blame for it.
fn several(ended: &Ended) -> String {
    match &ended.receipt {
        Some(receipt) => receipt.key().peer_id().to_string(),
        None => "several providers".into(),
    }
}

/// The sum of the numbers a provider names after "got": prompt and answer tokens.
fn requested(message: &str) -> Option<u32> {
    let (_, tail) = message.rsplit_once("got ")?;
    let numbers = tail.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    numbers.reduce(u32::saturating_add)
}

fn level(level: WireLevel) -> Level {
    match level {
        WireLevel::Receipt => Level::Receipt,
        WireLevel::Sampled => Level::Sampled,
        WireLevel::Spot => Level::Spot,
        WireLevel::Light => Level::Light,
        WireLevel::Full => Level::Full,
        WireLevel::KOfN => Level::KOfN,
    }
}
