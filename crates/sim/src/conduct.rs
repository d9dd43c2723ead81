//! How a node behaves: honestly, or by one of the scripts of the cheat suite.
//!
//! A liar runs the same machines as everybody else; its script changes what
//! goes into them or what comes out. So it keeps every rule but the one it
//! breaks, which is what a good liar does.

/// A provider's script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProviderLie {
    /// Serves another model under this one's name.
    OtherModel,
    /// Tampers with one layer at one position.
    OneLayer,
    /// Keeps keys and values in fewer bits.
    RoundedKv,
    /// Reads only the end of a long context.
    ShortContext,
    /// Puts a prompt of its own before the client's.
    HiddenPrompt,
    /// Draws from a seed it chose.
    OwnSeed,
    /// Draws what it likes.
    BiasedSampling,
    /// Ignores the temperature.
    WrongTemperature,
    /// Changes one token of the answer.
    AlteredToken,
    /// Has a cheap model write, and the true one only score.
    DraftModel,
    /// Ends the answer early.
    EarlyStop,
    /// Goes on after the end.
    Padding,
    /// Bills more tokens of the prompt than there are.
    OverBilledPrompt,
    /// Bills more tokens of the answer than it sent.
    OverBilledAnswer,
    /// Shows the digests of an earlier job with the same request.
    CachedAnswer,
    /// Changes the text on its way, not what it signs.
    TextInFlight,
    /// Changes the text, and signs the change.
    TextSigned,
    /// Opens leaves with a path that leads elsewhere.
    ForgedPath,
    /// Opens leaves it did not commit to.
    ForgedLeaf,
    /// Makes up the root and computes only when it is asked to open leaves.
    OnlyWhenAudited,
    /// Never opens anything.
    OpeningsWithheld,
    /// Signs every receipt as its first.
    TwoReceipts,
    /// Shows each router another log.
    TwoHistories,
    /// Shows a place in its log where the receipt is not.
    ForgedLogProof,
    /// Delivers a receipt that another key signed.
    OthersReceipt,
    /// Sends a false beginning and goes away.
    FalseBeginning,
    /// Falls silent in the middle.
    Stalls,
    /// Goes away in the middle.
    Leaves,
    /// Sends bytes that are no message.
    Garbage,
    /// Sends the same tokens twice.
    SaysTwice,
    /// Leaves the running commitments out.
    NoCommitments,
}

/// An auditor's script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditorLie {
    /// Passes everything without looking, with the public root as its work.
    Echo,
    /// Computes, and passes whatever it sees.
    Colluder,
    /// Finds a fault in everything.
    FalseAccuser,
    /// Sends the verdict on another receipt.
    OldVerdict,
    /// Takes requests and says nothing.
    Silent,
}

/// A router's script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouterLie {
    /// Asks auditors for more than they can do.
    AuditFlood,
    /// Opens more jobs than a provider can bear.
    OfferFlood,
    /// Sends an offer again that was answered.
    Replay,
    /// Sends offers that others signed.
    Borrow,
    /// Asks for leaves without the offer's nonce.
    WrongNonce,
    /// Asks auditors about answers that were never given.
    FalseCase,
    /// Spreads accusations that are false.
    Slander,
}

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// As the protocol says.
    #[default]
    Honest,
    /// A liar that serves.
    Provider(ProviderLie),
    /// A liar that judges.
    Auditor(AuditorLie),
    /// A liar that asks.
    Router(RouterLie),
}

/// What must come of a cheat that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Whoever checks the answer bars the liar.
    Barred,
    /// The liar's record suffers; no evidence convinces others.
    Marked,
}

impl ProviderLie {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 31] = [
        Self::OtherModel,
        Self::OneLayer,
        Self::RoundedKv,
        Self::ShortContext,
        Self::HiddenPrompt,
        Self::OwnSeed,
        Self::BiasedSampling,
        Self::WrongTemperature,
        Self::AlteredToken,
        Self::DraftModel,
        Self::EarlyStop,
        Self::Padding,
        Self::OverBilledPrompt,
        Self::OverBilledAnswer,
        Self::CachedAnswer,
        Self::TextInFlight,
        Self::TextSigned,
        Self::ForgedPath,
        Self::ForgedLeaf,
        Self::OnlyWhenAudited,
        Self::OpeningsWithheld,
        Self::TwoReceipts,
        Self::TwoHistories,
        Self::ForgedLogProof,
        Self::OthersReceipt,
        Self::FalseBeginning,
        Self::Stalls,
        Self::Leaves,
        Self::Garbage,
        Self::SaysTwice,
        Self::NoCommitments,
    ];

    /// What must come of it.
    #[must_use]
    pub const fn consequence(self) -> Consequence {
        match self {
            Self::OpeningsWithheld
            | Self::Stalls
            | Self::Leaves
            | Self::Garbage
            | Self::SaysTwice
            | Self::NoCommitments => Consequence::Marked,
            _ => Consequence::Barred,
        }
    }

    /// Whether it shows only when leaves are opened.
    #[must_use]
    pub const fn needs_challenge(self) -> bool {
        matches!(
            self,
            Self::ForgedPath | Self::ForgedLeaf | Self::OnlyWhenAudited | Self::OpeningsWithheld
        )
    }

    /// Whether it shows only when two routers compare what they hold.
    #[must_use]
    pub const fn needs_two(self) -> bool {
        matches!(self, Self::TwoReceipts | Self::TwoHistories)
    }

    /// The words of the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherModel => "another model",
            Self::RoundedKv => "keys and values in fewer bits",
            Self::OneLayer => "one layer at one position tampered",
            Self::ShortContext => "context truncated",
            Self::HiddenPrompt => "hidden system prompt",
            Self::OwnSeed => "seed ground",
            Self::BiasedSampling => "sampling biased",
            Self::WrongTemperature => "wrong temperature",
            Self::AlteredToken => "token altered",
            Self::DraftModel => "cheap draft model, true model only scores",
            Self::EarlyStop => "early stop",
            Self::Padding => "padding",
            Self::OverBilledPrompt => "prompt over-billed",
            Self::OverBilledAnswer => "answer over-billed",
            Self::CachedAnswer => "cached answer replayed",
            Self::TextInFlight => "text altered on its way",
            Self::TextSigned => "text altered and signed",
            Self::ForgedPath => "opening with a forged path",
            Self::ForgedLeaf => "opening of a forged leaf",
            Self::OnlyWhenAudited => "computes only when asked to open",
            Self::OpeningsWithheld => "openings withheld",
            Self::TwoHistories => "two histories of one log",
            Self::TwoReceipts => "two receipts with one number",
            Self::ForgedLogProof => "forged place in the log",
            Self::OthersReceipt => "receipt of another key",
            Self::FalseBeginning => "false beginning, then gone",
            Self::Stalls => "silent in the middle",
            Self::Leaves => "gone in the middle",
            Self::Garbage => "bytes that are no message",
            Self::SaysTwice => "tokens sent twice",
            Self::NoCommitments => "running commitments left out",
        }
    }
}

impl AuditorLie {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Echo, Self::Colluder, Self::FalseAccuser, Self::OldVerdict, Self::Silent];

    /// The words of the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "lazy auditor, echoes the root",
            Self::Colluder => "colluding auditor, passes everything",
            Self::FalseAccuser => "false accuser",
            Self::OldVerdict => "verdict on another receipt",
            Self::Silent => "auditor that never answers",
        }
    }
}

impl RouterLie {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::AuditFlood,
        Self::OfferFlood,
        Self::Replay,
        Self::Borrow,
        Self::WrongNonce,
        Self::FalseCase,
        Self::Slander,
    ];

    /// The words of the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuditFlood => "flood of audits",
            Self::OfferFlood => "flood of offers",
            Self::Replay => "offer replayed",
            Self::Borrow => "offer borrowed",
            Self::WrongNonce => "challenge without the nonce",
            Self::FalseCase => "audit of an answer never given",
            Self::Slander => "false accusations spread",
        }
    }
}

impl Conduct {
    /// Whether the node keeps all rules.
    #[must_use]
    pub fn is_honest(self) -> bool {
        self == Self::Honest
    }

    pub(crate) const fn provider(self) -> Option<ProviderLie> {
        match self {
            Self::Provider(lie) => Some(lie),
            _ => None,
        }
    }

    pub(crate) const fn auditor(self) -> Option<AuditorLie> {
        match self {
            Self::Auditor(lie) => Some(lie),
            _ => None,
        }
    }

    pub(crate) const fn router(self) -> Option<RouterLie> {
        match self {
            Self::Router(lie) => Some(lie),
            _ => None,
        }
    }
}
