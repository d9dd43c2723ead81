//! How a job ended, in full.

use std::fmt;

use peerproof_identity::PeerId;
use peerproof_wire::{Digest, FailureCode, Level, Receipt, Signed, Stop};

use super::Auditor;
use crate::reputation::Fault;

/// How a job ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer's tokens.
    pub tokens: Vec<u32>,
    /// The end itself.
    pub end: End,
    /// Whose tokens were passed on, in order.
    pub served_by: Vec<Segment>,
    /// Every provider that was asked and left, with the reason.
    pub trail: Vec<Attempt>,
    /// What was checked.
    pub verification: Verification,
    /// The receipt, if one came. Signed by the provider that finished the answer.
    pub receipt: Option<Signed<Receipt>>,
    /// Tokens of the prompt, once a provider said.
    pub prompt_tokens: Option<u32>,
    /// Tokens that were passed on.
    pub output_tokens: u32,
    /// From the start to the first token.
    pub first_token_ms: Option<u64>,
    /// From the start to the end, checks included.
    pub total_ms: u64,
}

impl Outcome {
    /// The receipt's id, if one came.
    #[must_use]
    pub fn receipt_id(&self) -> Option<Digest> {
        self.receipt.as_ref().map(Signed::id)
    }
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The whole answer was passed on and nothing speaks against it.
    Answered(Stop),
    /// There is no answer, or it must not be used.
    Failed {
        /// Why.
        reason: Reason,
        /// Who is to blame.
        blame: Blame,
    },
    /// The user did not want it any more.
    Cancelled,
}

/// Who is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// This provider.
    Provider(PeerId),
    /// The request.
    Offer,
    /// Nobody in particular: load, distance, absence.
    Circumstances,
    /// It cannot be told who of several.
    Unknown,
    /// This node.
    Router,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Nobody serves the model.
    #[error("no provider was found")]
    NoProvider,
    /// Providers refuse the request itself.
    #[error("refused: {message}")]
    Refused {
        /// Their code.
        code: FailureCode,
        /// Their words.
        message: String,
    },
    /// All providers have too much to do.
    #[error("every provider is busy, the first is free in {retry_after_ms} ms")]
    Busy {
        /// The shortest wait that one of them named.
        retry_after_ms: u64,
    },
    /// No provider that took part has the memory for it.
    #[error("too large for the providers: {message}")]
    TooLarge {
        /// What the last of them said, with both figures.
        message: String,
    },
    /// Every attempt failed; the trail says how.
    #[error("none of {attempts} attempts finished the answer")]
    Exhausted {
        /// How many there were.
        attempts: u32,
    },
    /// The job took too long.
    #[error("not finished after {total_ms} ms")]
    Deadline {
        /// The limit.
        total_ms: u64,
    },
    /// `k_of_n`: not enough providers answered alike.
    #[error("{equal} of {answered} answers agree, {needed} are needed")]
    NoAgreement {
        /// Size of the largest group of equal answers.
        equal: usize,
        /// How many answered at all.
        answered: usize,
        /// How many had to agree.
        needed: usize,
    },
    /// An answer came and did not survive its check.
    #[error("{fault}: {detail}")]
    Check {
        /// What is wrong.
        fault: Fault,
        /// Place, expected, got.
        detail: String,
    },
    /// Two providers disagree and nobody could say who is right.
    #[error("two providers disagree at token {at}: {detail}")]
    Disputed {
        /// Index in the answer.
        at: usize,
        /// Who, and why it stayed open.
        detail: String,
    },
    /// A check on this node did not come back in time.
    #[error("this node's own check did not finish: {what}")]
    CheckUnfinished {
        /// Which.
        what: &'static str,
    },
}

/// A stretch of the answer that came from one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who.
    pub provider: PeerId,
    /// Index of its first token.
    pub start: u32,
}

/// A provider that was asked and left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who.
    pub provider: PeerId,
    /// How many tokens had been passed on when it was left.
    pub tokens: u32,
    /// What it did wrong; `None` if it was only busy or slower than another.
    pub fault: Option<Fault>,
    /// In words.
    pub why: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} tokens: ", self.provider, self.tokens)?;
        match self.fault {
            Some(fault) => write!(f, "{fault}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// What was asked for, and what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// What the request asked for.
    pub asked: Level,
    /// What was done.
    pub done: Checked,
    /// Whether challenged leaves were opened and lead to the root.
    pub opened: bool,
    /// From the receipt's arrival to the end.
    pub cost_ms: u64,
}

/// The strongest check that was completed. Prints as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Nothing: no receipt came.
    Nothing,
    /// Signatures, bindings and the place in the log.
    Receipt,
    /// As `Receipt`; the lot did not fall on this answer.
    NotDrawn {
        /// Chance in a thousand that it would have.
        permille: u16,
    },
    /// As `Receipt`; an audit was due and nobody could do it.
    NotAudited {
        /// Why.
        why: String,
    },
    /// Some cells were recomputed, and hold. The answer may be wrong in others.
    Spot {
        /// How many.
        held: u32,
        /// Of how many.
        of: u64,
    },
    /// Some cells were checked by the products of their matrices, and hold. The answer may be
    /// wrong in others.
    Light {
        /// How many.
        held: u32,
        /// Of how many.
        of: u64,
    },
    /// Every leaf was recomputed and equal.
    Audited {
        /// By whom.
        by: Auditor,
    },
    /// An answer of the statistical class was tested against the model file, and did not fail.
    Tested {
        /// By whom.
        by: Auditor,
        /// Whether enough was seen to pass it.
        passed: bool,
        /// The figures, in words.
        detail: String,
    },
    /// Several providers gave the same answer and the same transcript.
    Agreed {
        /// How many.
        equal: usize,
        /// Of how many that answered.
        of: usize,
    },
    /// A check failed.
    Refuted,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("not checked: no receipt"),
            Self::Receipt => f.write_str("receipt checked"),
            Self::NotDrawn { permille } => {
                write!(f, "receipt checked, not drawn for an audit ({permille} in 1000)")
            }
            Self::NotAudited { why } => write!(f, "not audited: {why}"),
            Self::Spot { held, of } => {
                write!(f, "spot audit: {held} of {of} cells recomputed, all hold")
            }
            Self::Light { held, of } => {
                write!(f, "light audit: {held} of {of} cells checked by their products, all hold")
            }
            Self::Audited { by } => write!(f, "audited by {by}"),
            Self::Tested { by, passed, detail } => {
                let word = if *passed { "pass" } else { "inconclusive" };
                write!(f, "statistical test by {by}: {word}, {detail}")
            }
            Self::Agreed { equal, of } => write!(f, "{equal} of {of} providers agree"),
            Self::Refuted => f.write_str("refuted"),
        }
    }
}
