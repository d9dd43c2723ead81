//! The audit conversation, [`AUDIT_PROTOCOL`](crate::AUDIT_PROTOCOL): a request, a reply.
//!
//! A [`Case`] is all that an auditor with the model needs; the reply is a
//! signed [`Verdict`], or why there is none.

use peerproof_identity::{Domain, PublicKey, vrf};

use crate::check::{self, at_most, count, line};
use crate::codec::Codec;
use crate::job::{Offer, Receipt, TokenLogprobs};
use crate::shape::{self, Shape};
use crate::signed::{Signed, Statement};
use crate::{ARITHMETIC, Digest, ModelId, PROTOCOL, WireError, limits, proto};

/// A job as an auditor sees it: what was asked, what was said, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The request.
    pub offer: Signed<Offer>,
    /// The provider's statement.
    pub receipt: Signed<Receipt>,
    /// Token ids of the answer.
    pub tokens: Vec<u32>,
}

/// An answer of the statistical class, as an auditor sees it. That the reports
/// lead to the receipt's root is not the codec's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatisticalCase {
    /// The job.
    pub case: Case,
    /// What the provider said of each token's probability.
    pub reports: Vec<TokenLogprobs>,
}

/// What a test of one answer of the statistical class found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// Tokens of the answer.
    pub tokens: u32,
    /// Mean difference of the logarithms, each cut at one, at 2^-16.
    pub difference_q16: u32,
    /// Mean place of the tokens among those that the offer's rules allow, at 2^-16.
    pub standing_q16: u32,
    /// What the answer multiplies each stake by, two numbers each.
    pub growth: Vec<u32>,
}

/// What an auditor is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditRequest {
    /// For a verdict on this job.
    Case(Box<Case>),
    /// What it draws, before it learns anything of the job.
    Draw(DrawRequest),
    /// For a verdict on this answer of the statistical class.
    Tested(Box<StatisticalCase>),
}

/// What a lot is drawn over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawRequest {
    /// Root of the transcript to be audited.
    pub transcript_root: Digest,
    /// Id of the offer it answers.
    pub offer_id: Digest,
}

/// What a recomputation found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every leaf follows from the model.
    Pass,
    /// The first thing that does not.
    Fail(Mismatch),
    /// Neither can be said of an answer of the statistical class.
    Tested(Tested),
}

/// Where receipt and recomputation part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Of the first leaf known to differ.
    pub position: u32,
    /// What differs.
    pub what: Difference,
    /// As recomputed; at most [`limits::MAX_MISMATCH_VALUE_BYTES`].
    pub expected: Vec<u8>,
    /// As committed; same bound.
    pub got: Vec<u8>,
}

/// An auditor's statement about one receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Id of the signed receipt.
    pub receipt_id: Digest,
    /// Id of the signed offer.
    pub offer_id: Digest,
    /// The model that was run again.
    pub model_id: ModelId,
    /// Who signed the receipt.
    pub provider: PublicKey,
    /// What was found.
    pub outcome: Outcome,
    /// Digest of the recomputed leaves under the auditor's own key: nobody has
    /// it who didn't recompute.
    pub work: Digest,
    /// That the lot fell on this auditor; absent if the router named it.
    pub draw: Option<VrfDraw>,
    /// When it was signed, by the auditor's clock.
    pub issued_unix_ms: u64,
}

/// A draw that anyone can check and nobody can steer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VrfDraw {
    /// The auditor's VRF key.
    pub key: vrf::Public,
    /// Proof over the transcript root.
    pub proof: vrf::Proof,
}

impl VrfDraw {
    fn into_proto(self) -> proto::VrfDraw {
        proto::VrfDraw { key: self.key.as_bytes().to_vec(), proof: self.proof.as_bytes().to_vec() }
    }

    fn from_proto(proto: proto::VrfDraw) -> Result<Self, WireError> {
        Ok(Self {
            key: check::vrf_key("verdict.draw.key", &proto.key)?,
            proof: check::vrf_proof("verdict.draw.proof", &proto.proof)?,
        })
    }
}

/// The answer to an audit request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditReply {
    /// The job was recomputed.
    Verdict(Signed<Verdict>),
    /// It was not.
    Failure(AuditFailure),
    /// The lot this auditor drew.
    Draw(VrfDraw),
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFailure {
    /// One line for a person.
    pub message: String,
    /// When to try again; 0 gives no advice.
    pub retry_after_ms: u64,
}

impl AuditFailure {
    /// A failure without advice. The message is made one line and cut to its limit.
    pub fn new(message: impl AsRef<str>) -> Self {
        Self {
            message: check::to_line(message.as_ref(), limits::MAX_FAILURE_MESSAGE_BYTES),
            retry_after_ms: 0,
        }
    }
}

macro_rules! differences {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What can differ between a receipt and a recomputation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Difference {
            $($(#[$doc])* $name,)*
        }

        impl Difference {
            /// Every difference, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn to_proto(self) -> proto::Difference {
                match self {
                    $(Self::$name => proto::Difference::$name,)*
                }
            }

            fn from_proto(number: i32) -> Result<Self, WireError> {
                match proto::Difference::try_from(number) {
                    $(Ok(proto::Difference::$name) => Ok(Self::$name),)*
                    Ok(proto::Difference::Unspecified) | Err(_) => {
                        Err(WireError::Unnamed { place: "mismatch.what", got: number })
                    }
                }
            }
        }
    };
}

differences! {
    /// The transcript's root, where no single leaf is known.
    Root,
    /// The prompt's token ids or their number.
    Prompt,
    /// The answer's token is not the one the model draws.
    Token,
    /// The residual stream.
    State,
    /// The logits.
    Logits,
    /// The random number of a draw.
    Draw,
    /// The answer's text.
    Text,
    /// The reason the answer ends.
    Stop,
    /// The number of tokens or leaves.
    Length,
    /// A leaf of which only the hash is known.
    Leaf,
    /// The residual rows that enter the layers.
    Layers,
    /// The root over keys and values.
    KeysValues,
}

impl Codec for Case {
    type Proto = proto::Case;
    const NAME: &'static str = "case";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::CASE;

    fn to_proto(&self) -> proto::Case {
        proto::Case {
            offer: self.offer.to_proto(),
            receipt: self.receipt.to_proto(),
            tokens: self.tokens.clone(),
        }
    }

    fn from_proto(proto: proto::Case) -> Result<Self, WireError> {
        Ok(Self {
            offer: Signed::from_proto("case.offer", proto.offer)?,
            receipt: Signed::from_proto("case.receipt", proto.receipt)?,
            tokens: proto.tokens,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let limit = limits::MAX_ANSWER_TOKENS as usize;
        check::tokens("case.tokens", &self.tokens, limit)
    }
}

impl Codec for AuditRequest {
    type Proto = proto::AuditRequest;
    const NAME: &'static str = "audit request";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::AUDIT_REQUEST;

    fn to_proto(&self) -> proto::AuditRequest {
        use proto::audit_request::Request;
        let request = match self {
            Self::Case(case) => Request::Case(case.to_proto()),
            Self::Draw(draw) => Request::Draw(draw.to_proto()),
            Self::Tested(case) => Request::Tested(case.to_proto()),
        };
        proto::AuditRequest { request: Some(request) }
    }

    fn from_proto(proto: proto::AuditRequest) -> Result<Self, WireError> {
        use proto::audit_request::Request;
        Ok(match check::required("audit request", proto.request)? {
            Request::Case(case) => Self::Case(Box::new(Case::from_proto(case)?)),
            Request::Draw(draw) => Self::Draw(DrawRequest::from_proto(draw)?),
            Request::Tested(case) => Self::Tested(Box::new(StatisticalCase::from_proto(case)?)),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Case(case) => case.check(),
            Self::Draw(draw) => draw.check(),
            Self::Tested(case) => case.check(),
        }
    }
}

impl Codec for StatisticalCase {
    type Proto = proto::StatisticalCase;
    const NAME: &'static str = "statistical case";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::STATISTICAL_CASE;

    fn to_proto(&self) -> proto::StatisticalCase {
        proto::StatisticalCase {
            case: Some(self.case.to_proto()),
            reports: self.reports.iter().map(TokenLogprobs::to_proto).collect(),
        }
    }

    fn from_proto(proto: proto::StatisticalCase) -> Result<Self, WireError> {
        let reports = proto.reports.into_iter().map(TokenLogprobs::from_proto);
        Ok(Self {
            case: Case::from_proto(check::required("statistical_case.case", proto.case)?)?,
            reports: reports.collect::<Result<_, _>>()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.case.check()?;
        let limit = limits::MAX_STATISTICAL_TOKENS as usize;
        count("statistical_case.reports", self.reports.len(), limit)?;
        self.reports.iter().try_for_each(TokenLogprobs::check)
    }
}

impl Codec for Tested {
    type Proto = proto::Tested;
    const NAME: &'static str = "tested";
    const MAX_BYTES: usize = limits::MAX_VERDICT_BYTES;
    const SHAPE: &'static Shape = &shape::TESTED;

    fn to_proto(&self) -> proto::Tested {
        proto::Tested {
            tokens: self.tokens,
            difference_q16: self.difference_q16,
            standing_q16: self.standing_q16,
            growth: self.growth.clone(),
        }
    }

    fn from_proto(proto: proto::Tested) -> Result<Self, WireError> {
        Ok(Self {
            tokens: proto.tokens,
            difference_q16: proto.difference_q16,
            standing_q16: proto.standing_q16,
            growth: proto.growth,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let limit = limits::MAX_STATISTICAL_TOKENS.into();
        check::within("verdict.tested.tokens", self.tokens.into(), 1, limit)?;
        at_most("verdict.tested.difference_q16", self.difference_q16.into(), 1 << 16)?;
        at_most("verdict.tested.standing_q16", self.standing_q16.into(), 1 << 16)?;
        count("verdict.tested.growth", self.growth.len(), limits::MAX_STAKE_NUMBERS)
    }
}

impl Codec for DrawRequest {
    type Proto = proto::DrawRequest;
    const NAME: &'static str = "draw request";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::DRAW_REQUEST;

    fn to_proto(&self) -> proto::DrawRequest {
        proto::DrawRequest {
            transcript_root: self.transcript_root.as_bytes().to_vec(),
            offer_id: self.offer_id.as_bytes().to_vec(),
        }
    }

    fn from_proto(proto: proto::DrawRequest) -> Result<Self, WireError> {
        Ok(Self {
            transcript_root: check::digest("draw_request.transcript_root", &proto.transcript_root)?,
            offer_id: check::digest("draw_request.offer_id", &proto.offer_id)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

impl Codec for Mismatch {
    type Proto = proto::Mismatch;
    const NAME: &'static str = "mismatch";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::MISMATCH;

    fn to_proto(&self) -> proto::Mismatch {
        proto::Mismatch {
            position: self.position,
            what: self.what.to_proto().into(),
            expected: self.expected.clone(),
            got: self.got.clone(),
        }
    }

    fn from_proto(proto: proto::Mismatch) -> Result<Self, WireError> {
        Ok(Self {
            position: proto.position,
            what: Difference::from_proto(proto.what)?,
            expected: proto.expected,
            got: proto.got,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("mismatch.position", self.position.into(), u64::from(limits::MAX_LEAVES) - 1)?;
        let limit = limits::MAX_MISMATCH_VALUE_BYTES;
        count("mismatch.expected", self.expected.len(), limit)?;
        count("mismatch.got", self.got.len(), limit)
    }
}

impl Statement for Verdict {
    const DOMAIN: Domain = Domain::Verdict;
}

impl Codec for Verdict {
    type Proto = proto::Verdict;
    const NAME: &'static str = "verdict";
    const MAX_BYTES: usize = limits::MAX_VERDICT_BYTES;
    const SHAPE: &'static Shape = &shape::VERDICT;

    fn to_proto(&self) -> proto::Verdict {
        proto::Verdict {
            protocol: PROTOCOL,
            arithmetic: ARITHMETIC,
            receipt_id: self.receipt_id.as_bytes().to_vec(),
            offer_id: self.offer_id.as_bytes().to_vec(),
            model_id: self.model_id.as_bytes().to_vec(),
            provider: self.provider.as_bytes().to_vec(),
            outcome: match &self.outcome {
                Outcome::Pass => Some(proto::verdict::Outcome::Pass(proto::Pass {})),
                Outcome::Fail(mismatch) => Some(proto::verdict::Outcome::Fail(mismatch.to_proto())),
                Outcome::Tested(_) => None,
            },
            work: self.work.as_bytes().to_vec(),
            draw: self.draw.map(VrfDraw::into_proto),
            issued_unix_ms: self.issued_unix_ms,
            tested: match &self.outcome {
                Outcome::Tested(tested) => Some(tested.to_proto()),
                Outcome::Pass | Outcome::Fail(_) => None,
            },
        }
    }

    fn from_proto(proto: proto::Verdict) -> Result<Self, WireError> {
        check::version("verdict.protocol", proto.protocol, PROTOCOL)?;
        check::version("verdict.arithmetic", proto.arithmetic, ARITHMETIC)?;
        let draw = proto.draw.map(VrfDraw::from_proto);
        Ok(Self {
            receipt_id: check::digest("verdict.receipt_id", &proto.receipt_id)?,
            offer_id: check::digest("verdict.offer_id", &proto.offer_id)?,
            model_id: check::model_id("verdict.model_id", &proto.model_id)?,
            provider: check::public_key("verdict.provider", &proto.provider)?,
            outcome: outcome(proto.outcome, proto.tested)?,
            work: check::digest("verdict.work", &proto.work)?,
            draw: draw.transpose()?,
            issued_unix_ms: proto.issued_unix_ms,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match &self.outcome {
            Outcome::Pass => Ok(()),
            Outcome::Fail(mismatch) => mismatch.check(),
            Outcome::Tested(tested) => tested.check(),
        }
    }
}

/// Exactly one of the things a verdict can say.
fn outcome(
    said: Option<proto::verdict::Outcome>,
    tested: Option<proto::Tested>,
) -> Result<Outcome, WireError> {
    match (said, tested) {
        (Some(proto::verdict::Outcome::Pass(proto::Pass {})), None) => Ok(Outcome::Pass),
        (Some(proto::verdict::Outcome::Fail(mismatch)), None) => {
            Ok(Outcome::Fail(Mismatch::from_proto(mismatch)?))
        }
        (None, Some(tested)) => Ok(Outcome::Tested(Tested::from_proto(tested)?)),
        (said, _) => Err(WireError::Inconsistent {
            place: "verdict.outcome",
            expected: "one of pass, fail and tested",
            got: if said.is_some() { 2 } else { 0 },
        }),
    }
}

impl Codec for AuditReply {
    type Proto = proto::AuditReply;
    const NAME: &'static str = "audit reply";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::AUDIT_REPLY;

    fn to_proto(&self) -> proto::AuditReply {
        use proto::audit_reply::Reply;
        let reply = match self {
            Self::Verdict(verdict) => verdict.to_proto().map(Reply::Verdict),
            Self::Failure(failure) => Some(Reply::Failure(failure.to_proto())),
            Self::Draw(draw) => Some(Reply::Draw(draw.into_proto())),
        };
        proto::AuditReply { reply }
    }

    fn from_proto(proto: proto::AuditReply) -> Result<Self, WireError> {
        use proto::audit_reply::Reply;
        Ok(match check::required("audit reply", proto.reply)? {
            Reply::Verdict(verdict) => {
                Self::Verdict(Signed::from_proto("audit_reply.verdict", Some(verdict))?)
            }
            Reply::Failure(failure) => Self::Failure(AuditFailure::from_proto(failure)?),
            Reply::Draw(draw) => Self::Draw(VrfDraw::from_proto(draw)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Verdict(_) | Self::Draw(_) => Ok(()),
            Self::Failure(failure) => failure.check(),
        }
    }
}

impl Codec for AuditFailure {
    type Proto = proto::AuditFailure;
    const NAME: &'static str = "audit failure";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::AUDIT_FAILURE;

    fn to_proto(&self) -> proto::AuditFailure {
        proto::AuditFailure { message: self.message.clone(), retry_after_ms: self.retry_after_ms }
    }

    fn from_proto(proto: proto::AuditFailure) -> Result<Self, WireError> {
        Ok(Self { message: proto.message, retry_after_ms: proto.retry_after_ms })
    }

    fn check(&self) -> Result<(), WireError> {
        check::not_empty("audit_failure.message", self.message.is_empty())?;
        line("audit_failure.message", &self.message, limits::MAX_FAILURE_MESSAGE_BYTES)?;
        at_most("audit_failure.retry_after_ms", self.retry_after_ms, limits::MAX_RETRY_AFTER_MS)
    }
}
