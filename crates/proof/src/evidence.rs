//! Evidence: what a file proves, to whom, and what it leaves open.
//!
//! Signatures hold already when a file is decoded. [`verify`] finds out what
//! they convict of without any model; [`verify_with`] also runs the job again.
//! A [`Finding`] says plainly what was proven and what could not be checked; an
//! error means that the file proves nothing, or accuses falsely.

use peerproof_identity::PublicKey;
use peerproof_wire::{
    Case, Digest, Equivocation, Evidence, FalseVerdict, Mismatch, Observation, Openings, Receipt,
    Signed, Verdict, WrongAnswer,
};

use crate::audit::{self, AuditError, Findings};
use crate::challenge::{self, ChallengeError};
use crate::execute::Execute;
use crate::planted::planted;
use crate::receipt::{self, BindingError};
use crate::verdict::{self, VerdictError};

/// What a file says about a key, as far as it could be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose statements the file holds against it.
    pub accused: PublicKey,
    /// What is proven; `None` if nothing is.
    pub proven: Option<Proven>,
    /// What could not be checked.
    pub unchecked: Vec<Unchecked>,
    /// Auditors whose attached verdict is not what a recomputation gives.
    pub idle_auditors: Vec<PublicKey>,
}

/// What a file proves beyond anyone's word.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proven {
    /// The key signed two receipts with one number.
    Equivocation {
        /// The number.
        number: u64,
    },
    /// The signed receipt breaks the terms of the offer it names.
    Terms(BindingError),
    /// The provider's own leaf, opened from the signed root, contradicts receipt or answer.
    Leaf(ChallengeError),
    /// The transcript does not follow from the model; recomputed here.
    WrongAnswer(Mismatch),
    /// The auditor signed a verdict that its case does not bear out; recomputed here.
    FalseVerdict(VerdictError),
}

/// What a file claims and the check could not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unchecked {
    /// That the transcript does not follow from the model: whoever holds the model can check.
    Recomputation,
    /// What attached verdicts say: their signatures hold, their work takes the model.
    Verdicts,
    /// The checkpoints of a fork: whether they are signed and exclude each other is for those
    /// to say who judge logs.
    Checkpoints,
    /// What the fraud proof shows, which is another file.
    File,
    /// The observer's own account of what was not signed.
    Account,
}

/// Why a file proves nothing. Its author is at fault, save for [`Audit`](Self::Audit).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The two receipts are one.
    #[error("equivocation: expected two receipts, got receipt {got} twice")]
    SameReceipt {
        /// Its id.
        got: Digest,
    },
    /// The two receipts are of different keys.
    #[error("equivocation signer: expected {expected}, got {got}")]
    Signers {
        /// Who signed the first.
        expected: PublicKey,
        /// Who signed the second.
        got: PublicKey,
    },
    /// The two receipts have different numbers.
    #[error("equivocation number: expected {expected}, got {got}")]
    Numbers {
        /// Number of the first.
        expected: u64,
        /// Number of the second.
        got: u64,
    },
    /// Offer, receipt and tokens do not belong together.
    #[error("case: {0}")]
    Case(#[source] BindingError),
    /// The opening is not of the receipt's transcript.
    #[error("opening: {0}")]
    Opening(#[source] ChallengeError),
    /// An attached verdict is not about this receipt.
    #[error("verdict {index}: {source}")]
    Verdict {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        source: VerdictError,
    },
    /// The case is another provider's.
    #[error("observation: expected provider {expected}, got a case of {got}")]
    Accused {
        /// Whom the observation names.
        expected: PublicKey,
        /// Who signed the receipt of the case.
        got: PublicKey,
    },
    /// The receipt is right.
    #[error(
        "false accusation: expected a receipt that fails the audit, got {receipt}, which passes"
    )]
    FalseAccusation {
        /// Id of the receipt.
        receipt: Digest,
    },
    /// The verdict is what a recomputation gives, work digest included.
    #[error(
        "false accusation: expected a verdict that the case does not bear out, got {verdict}, which is right"
    )]
    SoundVerdict {
        /// Id of the verdict.
        verdict: Digest,
    },
    /// The job could not be run again here.
    #[error("recomputation: {0}")]
    Audit(#[source] AuditError),
}

/// Checks what a file proves to someone without the model.
pub fn verify(evidence: &Evidence) -> Result<Finding, EvidenceError> {
    match evidence {
        Evidence::Equivocation(pair) => verify_equivocation(pair),
        Evidence::WrongAnswer(wrong) => verify_wrong_answer(wrong),
        Evidence::Observation(seen) => verify_observation(seen),
        Evidence::FalseVerdict(said) => verify_false_verdict(said),
        Evidence::Fork(fork) => Ok(Finding::new(fork.key, None, vec![Unchecked::Checkpoints])),
        Evidence::Fraud(claim) => Ok(Finding::new(claim.accused, None, vec![Unchecked::File])),
    }
}

/// Checks what a file proves, running the job again where that decides.
pub fn verify_with<E: Execute>(
    evidence: &Evidence,
    executor: &E,
) -> Result<Finding, EvidenceError> {
    let finding = verify(evidence)?;
    match evidence {
        Evidence::WrongAnswer(wrong) if !matches!(finding.proven, Some(Proven::Terms(_))) => {
            recompute_wrong_answer(wrong, executor, finding)
        }
        Evidence::FalseVerdict(said) => recompute_false_verdict(said, executor, finding),
        _ => Ok(finding),
    }
}

/// Checks that two receipts convict their signer.
pub fn verify_equivocation(pair: &Equivocation) -> Result<Finding, EvidenceError> {
    let (first, second) = (&pair.first, &pair.second);
    if first.key() != second.key() {
        return Err(EvidenceError::Signers { expected: first.key(), got: second.key() });
    }
    if first.number != second.number {
        return Err(EvidenceError::Numbers { expected: first.number, got: second.number });
    }
    if first.id() == second.id() {
        return Err(EvidenceError::SameReceipt { got: first.id() });
    }
    let proven = Proven::Equivocation { number: first.number };
    Ok(Finding::new(first.key(), Some(proven), Vec::new()))
}

fn verify_wrong_answer(wrong: &WrongAnswer) -> Result<Finding, EvidenceError> {
    let case = &wrong.case;
    let terms = verify_case(case)?;
    for (index, verdict) in wrong.verdicts.iter().enumerate() {
        verdict::verify(verdict, &verdict.key(), &case.offer, &case.receipt)
            .map_err(|source| EvidenceError::Verdict { index, source })?;
    }
    let proven = match terms {
        Some(broken) => Some(Proven::Terms(broken)),
        None => verify_opened(wrong)?,
    };
    let mut unchecked = Vec::new();
    if proven.is_none() {
        unchecked.push(Unchecked::Recomputation);
    }
    if !wrong.verdicts.is_empty() {
        unchecked.push(Unchecked::Verdicts);
    }
    Ok(Finding::new(case.receipt.key(), proven, unchecked))
}

/// Checks that the papers of a case belong together; returns the term its receipt breaks.
fn verify_case(case: &Case) -> Result<Option<BindingError>, EvidenceError> {
    let Case { offer, receipt, tokens } = case;
    receipt::verify_offer_named(offer, receipt).map_err(EvidenceError::Case)?;
    receipt::verify_output_hash(receipt, tokens).map_err(EvidenceError::Case)?;
    // The receipt covers the tokens by hash, so a miscount is its own.
    let terms = receipt::verify_terms(offer, receipt)
        .and_then(|()| receipt::verify_output_count(receipt, tokens));
    Ok(terms.err())
}

/// What the provider's own leaf proves.
fn verify_opened(wrong: &WrongAnswer) -> Result<Option<Proven>, EvidenceError> {
    let Some(opening) = &wrong.opening else { return Ok(None) };
    let Case { offer, receipt, tokens } = &wrong.case;
    match challenge::verify_opening(receipt, opening) {
        Ok(()) => {}
        Err(broken @ ChallengeError::Closing { .. }) => return Ok(Some(Proven::Leaf(broken))),
        Err(foreign) => return Err(EvidenceError::Opening(foreign)),
    }
    let checked = challenge::verify_leaf(offer, receipt, tokens, &opening.leaf);
    Ok(checked.err().map(Proven::Leaf))
}

fn recompute_wrong_answer<E: Execute>(
    wrong: &WrongAnswer,
    executor: &E,
    finding: Finding,
) -> Result<Finding, EvidenceError> {
    let Case { offer, receipt, tokens } = &wrong.case;
    let recomputation = audit::recompute(executor, offer, tokens).map_err(EvidenceError::Audit)?;
    let openings =
        Openings { openings: wrong.opening.iter().cloned().collect(), leaf_hashes: Vec::new() };
    let proven = match recomputation.compare(receipt, Some(&openings)) {
        Some(mismatch) => Some(Proven::WrongAnswer(mismatch)),
        None if planted("accusations are believed unseen") => {
            Some(Proven::WrongAnswer(wrong.mismatch.clone()))
        }
        None => finding.proven,
    };
    if proven.is_none() {
        return Err(EvidenceError::FalseAccusation { receipt: receipt.id() });
    }
    let idle = wrong
        .verdicts
        .iter()
        .filter(|verdict| verdict::verify_work(verdict, receipt, &recomputation).is_err());
    Ok(Finding {
        accused: finding.accused,
        proven,
        unchecked: Vec::new(),
        idle_auditors: idle.map(Signed::key).collect(),
    })
}

fn verify_false_verdict(said: &FalseVerdict) -> Result<Finding, EvidenceError> {
    let FalseVerdict { case, verdict } = said;
    verify_case(case)?;
    verdict::verify(verdict, &verdict.key(), &case.offer, &case.receipt)
        .map_err(|source| EvidenceError::Verdict { index: 0, source })?;
    Ok(Finding::new(verdict.key(), None, vec![Unchecked::Recomputation]))
}

fn recompute_false_verdict<E: Execute>(
    said: &FalseVerdict,
    executor: &E,
    finding: Finding,
) -> Result<Finding, EvidenceError> {
    let Case { offer, receipt, tokens } = &said.case;
    let recomputation = audit::recompute(executor, offer, tokens).map_err(EvidenceError::Audit)?;
    match verdict::verify_work(&said.verdict, receipt, &recomputation) {
        Err(wrong) => {
            let proven = Some(Proven::FalseVerdict(wrong));
            Ok(Finding { proven, unchecked: Vec::new(), ..finding })
        }
        Ok(()) => Err(EvidenceError::SoundVerdict { verdict: said.verdict.id() }),
    }
}

fn verify_observation(seen: &Observation) -> Result<Finding, EvidenceError> {
    let mut proven = None;
    if let Some(case) = &seen.case {
        let got = case.receipt.key();
        if got != seen.provider {
            return Err(EvidenceError::Accused { expected: seen.provider, got });
        }
        // Tokens that are not the receipt's may be what was seen.
        receipt::verify_offer_named(&case.offer, &case.receipt).map_err(EvidenceError::Case)?;
        proven = receipt::verify_terms(&case.offer, &case.receipt).err().map(Proven::Terms);
    }
    Ok(Finding::new(seen.provider, proven, vec![Unchecked::Account]))
}

impl Finding {
    fn new(accused: PublicKey, proven: Option<Proven>, unchecked: Vec<Unchecked>) -> Self {
        Self { accused, proven, unchecked, idle_auditors: Vec::new() }
    }
}

/// The evidence a failed audit leaves; `None` if the receipt passed.
#[must_use]
pub fn from_audit(
    case: &Case,
    findings: &Findings,
    openings: Option<&Openings>,
    verdicts: Vec<Signed<Verdict>>,
) -> Option<Evidence> {
    let mismatch = findings.mismatch()?.clone();
    let opening = openings
        .and_then(|openings| {
            openings.openings.iter().find(|opening| opening.leaf.position == mismatch.position)
        })
        .cloned();
    let case = case.clone();
    Some(Evidence::WrongAnswer(WrongAnswer { case, mismatch, opening, verdicts }))
}

/// The evidence two receipts make, if they convict their signer.
pub fn from_receipts(
    first: &Signed<Receipt>,
    second: &Signed<Receipt>,
) -> Result<Evidence, EvidenceError> {
    let pair = Equivocation { first: first.clone(), second: second.clone() };
    verify_equivocation(&pair)?;
    Ok(Evidence::Equivocation(pair))
}
