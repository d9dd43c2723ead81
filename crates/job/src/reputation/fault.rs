//! What a provider can do wrong, with a stable code for the log.

use std::fmt;

/// A kind of misbehaviour or failure of a provider.
///
/// An observation in the log says it as `code: detail`, so that a restart reads
/// the same record out of the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// No stream could be opened.
    Unreachable,
    /// The stream ended before the receipt.
    Dropped,
    /// Nothing came for longer than allowed.
    Stalled,
    /// Bytes that are no frame, or a frame that breaks its own rules.
    Garbage,
    /// A frame that may not come at that point, or tokens that do not continue the answer.
    OutOfOrder,
    /// Refused a job that it announced to serve.
    Refused,
    /// A challenge was not answered.
    Unanswered,
    /// Receipt, tokens and text do not belong together.
    Bindings,
    /// The receipt is not where the provider says its log holds it.
    LogProof,
    /// Opened leaves do not lead to the root in the receipt.
    Openings,
    /// Text that other providers of the same answer do not give, without a recomputation.
    Minority,
    /// Tokens that a recomputation does not give.
    FalsePrefix,
    /// A signed answer that a recomputation does not give.
    WrongAnswer,
    /// Two receipts with one number.
    Equivocation,
    /// Two histories of one log.
    Fork,
    /// A cell it committed to does not follow from the model, which a file shows.
    FraudProof,
    /// One auditor says that a signed answer is wrong, and nobody else looked.
    Accused,
    /// A signed verdict that a recomputation does not give.
    FalseVerdict,
    /// An accusation, unsigned, of a receipt that passes.
    FalseAccusation,
    /// Answers of the statistical class that are not the model's, as three auditors find.
    Deviates,
}

/// Every fault, for the reverse lookup and for tests.
pub(super) const ALL: [Fault; 20] = [
    Fault::Unreachable,
    Fault::Dropped,
    Fault::Stalled,
    Fault::Garbage,
    Fault::OutOfOrder,
    Fault::Refused,
    Fault::Unanswered,
    Fault::Bindings,
    Fault::LogProof,
    Fault::Openings,
    Fault::Minority,
    Fault::FalsePrefix,
    Fault::WrongAnswer,
    Fault::Equivocation,
    Fault::Fork,
    Fault::FraudProof,
    Fault::Accused,
    Fault::FalseVerdict,
    Fault::FalseAccusation,
    Fault::Deviates,
];

impl Fault {
    /// The word that stands for it in the log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Dropped => "dropped",
            Self::Stalled => "stalled",
            Self::Garbage => "garbage",
            Self::OutOfOrder => "out-of-order",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered-challenge",
            Self::Bindings => "bindings",
            Self::LogProof => "log-proof",
            Self::Openings => "openings",
            Self::Minority => "minority",
            Self::FalsePrefix => "false-prefix",
            Self::WrongAnswer => "wrong-answer",
            Self::Equivocation => "equivocation",
            Self::Fork => "fork",
            Self::FraudProof => "fraud-proof",
            Self::Accused => "accused",
            Self::FalseVerdict => "false-verdict",
            Self::FalseAccusation => "false-accusation",
            Self::Deviates => "deviates",
        }
    }

    /// The fault whose code opens `reason`.
    #[must_use]
    pub fn of_reason(reason: &str) -> Option<Self> {
        let code = reason.split(':').next().unwrap_or_default().trim();
        ALL.into_iter().find(|fault| fault.code() == code)
    }

    /// Whether it proves intent or a broken implementation, so that the
    /// provider is never chosen again. A network cannot cause any of these.
    #[must_use]
    pub const fn bars(self) -> bool {
        matches!(
            self,
            Self::Bindings
                | Self::LogProof
                | Self::Openings
                | Self::FalsePrefix
                | Self::WrongAnswer
                | Self::Equivocation
                | Self::Fork
                | Self::FraudProof
        )
    }

    /// Bad entries it counts for when it does not bar.
    #[must_use]
    pub const fn weight(self) -> u64 {
        match self {
            Self::Refused | Self::Accused => 1,
            Self::Unreachable => 2,
            Self::Dropped | Self::Stalled => 4,
            _ => 16,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back() {
        for fault in ALL {
            assert_eq!(Fault::of_reason(fault.code()), Some(fault));
            assert_eq!(Fault::of_reason(&format!("{fault}: more: text")), Some(fault));
        }
        assert_eq!(Fault::of_reason("nonsense: dropped"), None);
        assert_eq!(Fault::of_reason(""), None);
    }
}
