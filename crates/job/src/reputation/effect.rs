//! What one log entry says about whom.
//!
//! The only place that reads entries: records, bars, auditors and the printed
//! arithmetic are all made of these effects.

use peerproof_identity::PeerId;
use peerproof_wire::{
    AcceptedAnswer, AuditorFinding, Digest, Evidence, LogBody, NetworkGroup, Note, Outcome,
};

use super::Fault;
use crate::planted::planted;

/// Who stands behind an accepted answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audit {
    /// Nobody recomputed it.
    None,
    /// This node did.
    Here,
    /// Another node did, reached in this group.
    Elsewhere(NetworkGroup),
}

/// What was found out about an auditor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It was right, and this node knows by itself.
    Right,
    /// Another auditor says otherwise.
    Disagreed,
    /// Its draw does not hold.
    Undrawn,
    /// It signed a verdict on this receipt that is not so.
    False(Digest),
}

/// One consequence of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Answer {
        provider: PeerId,
        group: NetworkGroup,
        audit: Audit,
        figures: Figures,
    },
    Bad {
        peer: PeerId,
        fault: Fault,
    },
    /// `receipt` can be refuted, what has none can't.
    Charge {
        peer: PeerId,
        receipt: Option<Digest>,
        why: String,
    },
    Decision {
        peer: PeerId,
        blocked: bool,
        reason: String,
    },
    Refuted {
        accused: PeerId,
        receipt: Digest,
    },
    Auditor {
        auditor: PeerId,
        judged: Judged,
    },
}

/// Of one answer, for people: they enter no score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) tokens: u32,
    pub(super) first_token_ms: u32,
}

impl Effect {
    /// Whom it concerns.
    pub(super) fn peer(&self) -> PeerId {
        match self {
            Self::Answer { provider: peer, .. }
            | Self::Bad { peer, .. }
            | Self::Charge { peer, .. }
            | Self::Decision { peer, .. }
            | Self::Refuted { accused: peer, .. }
            | Self::Auditor { auditor: peer, .. } => *peer,
        }
    }
}

/// What an entry says; a list of at most two.
pub(super) fn effects(body: &LogBody) -> Vec<Effect> {
    match body {
        // A provider's own receipts say nothing about others.
        LogBody::Receipt(_) => Vec::new(),
        LogBody::Accepted(accepted) => vec![answer(accepted)],
        LogBody::Verdict(verdict) => match &verdict.outcome {
            // Anybody can have any answer audited here, a provider its own ones too.
            Outcome::Pass | Outcome::Tested(_) => Vec::new(),
            Outcome::Fail(mismatch) => vec![Effect::Charge {
                peer: PeerId::from(verdict.provider),
                receipt: Some(verdict.receipt_id),
                why: format!("{}: {:?}", Fault::WrongAnswer, mismatch.what),
            }],
        },
        LogBody::Evidence(evidence) => of_evidence(evidence),
        LogBody::Note(note) => of_note(note),
    }
}

fn answer(accepted: &AcceptedAnswer) -> Effect {
    let audit = match (accepted.audited, accepted.auditor) {
        (false, _) => Audit::None,
        (true, None) => Audit::Here,
        (true, Some(by)) => Audit::Elsewhere(by.group),
    };
    Effect::Answer {
        provider: PeerId::from(accepted.provider),
        group: accepted.group,
        audit,
        figures: Figures {
            tokens: accepted.output_tokens,
            first_token_ms: accepted.first_token_ms,
        },
    }
}

fn of_evidence(evidence: &Evidence) -> Vec<Effect> {
    match evidence {
        Evidence::WrongAnswer(_) if planted("a wrong answer bars nobody") => Vec::new(),
        Evidence::WrongAnswer(wrong) => vec![Effect::Charge {
            peer: PeerId::from(wrong.case.receipt.key()),
            receipt: Some(wrong.case.receipt.id()),
            why: format!("{}: {:?}", Fault::WrongAnswer, wrong.mismatch.what),
        }],
        Evidence::Equivocation(two) => vec![Effect::Charge {
            peer: PeerId::from(two.first.key()),
            receipt: None,
            why: Fault::Equivocation.code().to_owned(),
        }],
        Evidence::Fork(fork) => vec![Effect::Charge {
            peer: PeerId::from(fork.key),
            receipt: None,
            why: Fault::Fork.code().to_owned(),
        }],
        Evidence::Fraud(claim) => vec![Effect::Charge {
            peer: PeerId::from(claim.accused),
            receipt: None,
            why: Fault::FraudProof.code().to_owned(),
        }],
        Evidence::Observation(seen) => {
            let peer = PeerId::from(seen.provider);
            let fault = Fault::of_reason(&seen.reason).unwrap_or(Fault::Garbage);
            match fault.bars() {
                true => vec![Effect::Charge { peer, receipt: None, why: seen.reason.clone() }],
                false => vec![Effect::Bad { peer, fault }],
            }
        }
        Evidence::FalseVerdict(said) => {
            let peer = PeerId::from(said.verdict.key());
            let judged = Judged::False(said.case.receipt.id());
            vec![
                Effect::Auditor { auditor: peer, judged },
                Effect::Bad { peer, fault: Fault::FalseVerdict },
            ]
        }
    }
}

fn of_note(note: &Note) -> Vec<Effect> {
    match note {
        Note::Decision(decision) => vec![Effect::Decision {
            peer: PeerId::from(decision.peer),
            blocked: decision.blocked,
            reason: decision.reason.clone(),
        }],
        Note::Refutation(refuted) => {
            let accused = PeerId::from(refuted.accused);
            let accuser = refuted
                .accuser
                .map(|key| Effect::Bad { peer: PeerId::from(key), fault: Fault::FalseAccusation });
            let refuted = Effect::Refuted { accused, receipt: refuted.receipt_id };
            std::iter::once(refuted).chain(accuser).collect()
        }
        Note::AuditorCheck(check) => vec![Effect::Auditor {
            auditor: PeerId::from(check.auditor),
            judged: match check.finding {
                AuditorFinding::Caught | AuditorFinding::Confirmed => Judged::Right,
                AuditorFinding::Disagreed => Judged::Disagreed,
                AuditorFinding::Undrawn => Judged::Undrawn,
            },
        }],
    }
}
