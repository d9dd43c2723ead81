//! What a job is told, and what it asks for.

use std::fmt;

use peerproof_identity::PeerId;
use peerproof_wire::{
    Case, Commitment, Evidence, LogBody, LogProof, Mismatch, Openings, ProviderFrame, Receipt,
    RouterFrame, Signed, TokenLogprobs, Verdict,
};

use super::Outcome;
use crate::reputation::Fault;
use crate::select::Candidate;
use crate::time::Millis;

/// One stream of a job to one provider. Never used twice in a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u32);

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {}", self.0)
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum In {
    /// Providers of the model; may come again with more, or with fresher figures.
    Candidates(Vec<Candidate>),
    /// The search that [`Out::FindCandidates`] asked for has found all it will find.
    SearchOver,
    /// The stream is open.
    Opened(LaneId),
    /// The stream could not be opened.
    OpenFailed(LaneId, String),
    /// A frame came.
    Frame(LaneId, ProviderFrame),
    /// The stream ended.
    Closed(LaneId, Closed),
    /// The moment of the last [`Out::SetTimer`] has come. Harmless at other times.
    Timer,
    /// Answer to [`Out::CheckBindings`].
    BindingsChecked(LaneId, Result<(), Broken>),
    /// Answer to [`Out::CheckLogProof`].
    LogProofChecked(LaneId, Result<(), String>),
    /// Answer to [`Out::CheckOpenings`].
    OpeningsChecked(LaneId, Result<(), String>),
    /// Answer to [`Out::Audit`].
    AuditDone(LaneId, Audited),
    /// This provider was barred, by another job or by the user: nothing more of it is wanted,
    /// unless a recomputation is under way.
    Barred(PeerId, String),
    /// Nobody wants the answer any more.
    CancelledByUser,
}

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The connection or the stream is gone.
    Gone(String),
    /// Bytes came that are no frame.
    Garbage(String),
}

/// What does not fit in a receipt's bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Whether everything but the text fits. The text of an answer that was
    /// resumed came from two providers, so this alone does not say whose is wrong.
    pub only_text: bool,
    /// Place, expected, got.
    pub detail: String,
}

/// Who recomputed an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auditor {
    /// This node.
    Local,
    /// Another one, by a signed verdict.
    Peer(PeerId),
}

impl fmt::Display for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("this node"),
            Self::Peer(peer) => peer.fmt(f),
        }
    }
}

/// How an audit ended.
#[derive(Clone, Debug)]
pub enum Audited {
    /// Every leaf was recomputed and equal.
    Passed {
        /// By whom.
        by: Auditor,
    },
    /// A leaf differs.
    Failed {
        /// By whom.
        by: Auditor,
        /// The first difference.
        mismatch: Mismatch,
        /// Signed statements to the same effect, if others made any.
        verdicts: Vec<Signed<Verdict>>,
    },
    /// One auditor says that a leaf differs, and nobody could confirm it. The answer is not
    /// to be used; nobody is barred.
    Accused {
        /// Who says so.
        by: PeerId,
        /// What differs, in its words.
        mismatch: Mismatch,
        /// Its signed statement.
        verdict: Box<Signed<Verdict>>,
    },
    /// Some cells were recomputed, and hold.
    Spot {
        /// How many.
        held: u32,
        /// Of how many.
        of: u64,
    },
    /// Some cells were checked by the products of their matrices, and hold.
    Light {
        /// How many.
        held: u32,
        /// Of how many.
        of: u64,
    },
    /// The provider would not open cells, or opened others than it committed to.
    Breach {
        /// Which of the two.
        fault: Fault,
        /// In words.
        detail: String,
    },
    /// An answer of the statistical class was tested, and did not fail.
    Tested {
        /// By whom.
        by: Auditor,
        /// Whether enough was seen to pass it.
        passed: bool,
        /// The figures, in words.
        detail: String,
    },
    /// Nobody could recompute.
    Unavailable(String),
}

/// How an answer of the statistical class was made, as far as a test looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// What its provider says of each token's probability.
    pub reports: Vec<TokenLogprobs>,
    /// From the first token to the receipt, in milliseconds.
    pub after_first_ms: u64,
}

impl Audited {
    /// What it amounts to where only a recomputation of everything settles anything.
    pub(super) fn whole(self) -> Self {
        match self {
            Self::Spot { .. } | Self::Light { .. } => {
                Self::Unavailable("an audit of some cells settles no dispute".into())
            }
            Self::Breach { detail, .. } | Self::Tested { detail, .. } => Self::Unavailable(detail),
            audited => audited,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Out {
    /// Look for (more) providers of the model.
    FindCandidates,
    /// Open a stream to this provider.
    OpenStream {
        /// The name of the stream from here on.
        lane: LaneId,
        /// To whom.
        peer: PeerId,
    },
    /// Write a frame.
    Send(LaneId, RouterFrame),
    /// Close the stream after what was sent, or stop opening it. Nothing more
    /// of this lane is of interest.
    CloseStream(LaneId),
    /// The answer goes on.
    Emit {
        /// Index of the first token.
        start: u32,
        /// The tokens.
        tokens: Vec<u32>,
        /// What they add to the text.
        text: String,
        /// How likely they were, one report a token, if the offer asks.
        logprobs: Vec<TokenLogprobs>,
    },
    /// Something a person may want to see.
    Notice(Notice),
    /// Do receipt, tokens, text and commitments belong to this job and to each other?
    CheckBindings(Box<BindingsQuestion>),
    /// Is the receipt where the provider says its log holds it?
    CheckLogProof {
        /// Whose.
        lane: LaneId,
        /// The receipt.
        receipt: Signed<Receipt>,
        /// Its place.
        proof: LogProof,
    },
    /// Do the opened leaves lead to the receipt's root, at the challenged places?
    CheckOpenings {
        /// Whose.
        lane: LaneId,
        /// The receipt.
        receipt: Signed<Receipt>,
        /// The answer.
        tokens: Vec<u32>,
        /// What the provider opened.
        openings: Openings,
        /// What drew the positions.
        client_nonce: [u8; 32],
    },
    /// Recompute this answer, here or by another auditor than `exclude`.
    Audit {
        /// Whose.
        lane: LaneId,
        /// All it takes.
        case: Box<Case>,
        /// Peers with a hand in this answer.
        exclude: Vec<PeerId>,
        /// How it was made, if its class is statistical.
        made: Made,
    },
    /// Append this to the node's log.
    Record(Box<LogBody>),
    /// Keep this as a file for whoever can check it; it bars nobody.
    Keep(Box<Evidence>),
    /// Send [`In::Timer`] at this moment; replaces the one before.
    SetTimer(Millis),
    /// The job is over; nothing follows.
    Finish(Box<Outcome>),
}

/// The contents of [`Out::CheckBindings`].
#[derive(Clone, Debug)]
pub struct BindingsQuestion {
    /// Whose.
    pub lane: LaneId,
    /// Who must have signed.
    pub provider: PeerId,
    /// What was signed.
    pub receipt: Signed<Receipt>,
    /// Tokens of the prompt, as the provider said when it accepted.
    pub prompt_tokens: u32,
    /// The whole answer.
    pub tokens: Vec<u32>,
    /// The whole text; `None` where this provider's view of its beginning is unknown.
    pub text: Option<String>,
    /// How likely the tokens were, as this job saw it; empty unless the offer asks.
    pub logprobs: Vec<TokenLogprobs>,
    /// The running commitments of this provider.
    pub commitments: Vec<Commitment>,
}

/// News of a job that change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A provider reads the prompt.
    Reading {
        /// Tokens it says it has read.
        read: u32,
        /// How many there are.
        of: u32,
    },
    /// The first token comes from this provider.
    Started {
        /// Who.
        provider: PeerId,
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
    /// Another provider continues.
    Switched {
        /// Who answers from here on.
        provider: PeerId,
        /// Why the one before was left.
        why: String,
    },
    /// The answer is complete and being checked.
    Checking,
}
