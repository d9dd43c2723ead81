//! The frames of a job, either way.

use crate::check::{self, at_most, count, not_empty, within};
use crate::codec::Codec;
use crate::job::{Challenge, Failure, Offer, Openings, Receipt};
use crate::shape::{self, Shape};
use crate::signed::Signed;
use crate::{Digest, WireError, limits, proto};

/// What a router writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterFrame {
    /// Asks for an answer; the first frame of a job.
    Open {
        /// The request.
        offer: Signed<Offer>,
        /// Tokens of the answer that another provider delivered already.
        resume: Vec<u32>,
    },
    /// Gives up.
    Cancel,
    /// Asks to look behind the receipt.
    Challenge(Challenge),
}

/// What a provider writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderFrame {
    /// The offer stands in the queue.
    Accepted(Accepted),
    /// A piece of the answer.
    Tokens(Tokens),
    /// The answer is whole.
    Delivered(Delivered),
    /// The reply to a challenge.
    Openings(Openings),
    /// The end, without what was asked.
    Failure(Failure),
    /// The prompt is being read.
    Progress(Progress),
}

/// The provider takes the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Id of the signed offer.
    pub offer_id: Digest,
    /// Tokens of the prompt, as the provider counts them.
    pub prompt_tokens: u32,
    /// Jobs that come before; 0 runs at once.
    pub queue_position: u32,
}

/// How far a provider is that reads; before its first token of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tokens that were read: of the prompt, then of the beginning it was given to resume.
    pub read: u32,
}

/// A piece of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Index in the answer of the first token here.
    pub start: u32,
    /// The token ids.
    pub tokens: Vec<u32>,
    /// Text these tokens release. A token may release none, when a character
    /// or a stop string could still continue.
    pub text: String,
    /// The transcript so far, every so often.
    pub commitment: Option<Commitment>,
    /// One for each token, if the offer asks for them.
    pub logprobs: Vec<TokenLogprobs>,
}

/// How likely a token of the answer was, and what else was likely there.
///
/// A value is the negative natural logarithm of a probability with 16
/// fractional bits, as section 8 of the arithmetic's specification computes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenLogprobs {
    /// Of the token that was chosen.
    pub chosen_q16: u32,
    /// The likeliest tokens and their values, the likeliest first; at most
    /// [`limits::MAX_TOP_LOGPROBS`].
    pub top: Vec<(u32, u32)>,
    /// How these tokens are spelled, the chosen one first, then those of `top`:
    /// as many of the bytes as [`limits::MAX_SPELLING_BYTES`] allows.
    pub spellings: Vec<Vec<u8>>,
}

/// The root over a transcript's first leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// How many leaves.
    pub leaves: u32,
    /// Their root.
    pub root: Digest,
}

/// The receipt, and where it stands in the provider's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// What the provider says it did.
    pub receipt: Signed<Receipt>,
    /// Proof that it said so in its log.
    pub log: LogProof,
}

/// Inclusion of an entry in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogProof {
    /// Index of the entry.
    pub index: u64,
    /// C2SP signed note over size and root.
    pub checkpoint: String,
    /// RFC 6962 inclusion path.
    pub path: Vec<Digest>,
}

impl Codec for RouterFrame {
    type Proto = proto::RouterFrame;
    const NAME: &'static str = "router frame";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::ROUTER_FRAME;

    fn to_proto(&self) -> proto::RouterFrame {
        use proto::router_frame::Frame;
        let frame = match self {
            Self::Open { offer, resume } => {
                Frame::Open(proto::Open { offer: offer.to_proto(), resume: resume.clone() })
            }
            Self::Cancel => Frame::Cancel(proto::Cancel {}),
            Self::Challenge(challenge) => Frame::Challenge(challenge.to_proto()),
        };
        proto::RouterFrame { frame: Some(frame) }
    }

    fn from_proto(proto: proto::RouterFrame) -> Result<Self, WireError> {
        use proto::router_frame::Frame;
        Ok(match check::required("router frame", proto.frame)? {
            Frame::Open(open) => Self::Open {
                offer: Signed::from_proto("open.offer", open.offer)?,
                resume: open.resume,
            },
            Frame::Cancel(proto::Cancel {}) => Self::Cancel,
            Frame::Challenge(challenge) => Self::Challenge(Challenge::from_proto(challenge)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Open { offer, resume } => {
                check::tokens("open.resume", resume, limits::MAX_ANSWER_TOKENS as usize)?;
                count("open.resume", resume.len(), offer.max_tokens as usize)
            }
            Self::Cancel => Ok(()),
            Self::Challenge(challenge) => challenge.check(),
        }
    }
}

impl Codec for ProviderFrame {
    type Proto = proto::ProviderFrame;
    const NAME: &'static str = "provider frame";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::PROVIDER_FRAME;

    fn to_proto(&self) -> proto::ProviderFrame {
        use proto::provider_frame::Frame;
        let frame = match self {
            Self::Accepted(accepted) => Frame::Accepted(accepted.to_proto()),
            Self::Tokens(tokens) => Frame::Tokens(tokens.to_proto()),
            Self::Delivered(delivered) => Frame::Delivered(delivered.to_proto()),
            Self::Openings(openings) => Frame::Openings(openings.to_proto()),
            Self::Failure(failure) => Frame::Failure(failure.to_proto()),
            Self::Progress(progress) => Frame::Progress(progress.to_proto()),
        };
        proto::ProviderFrame { frame: Some(frame) }
    }

    fn from_proto(proto: proto::ProviderFrame) -> Result<Self, WireError> {
        use proto::provider_frame::Frame;
        Ok(match check::required("provider frame", proto.frame)? {
            Frame::Accepted(accepted) => Self::Accepted(Accepted::from_proto(accepted)?),
            Frame::Tokens(tokens) => Self::Tokens(Tokens::from_proto(tokens)?),
            Frame::Delivered(delivered) => Self::Delivered(Delivered::from_proto(delivered)?),
            Frame::Openings(openings) => Self::Openings(Openings::from_proto(openings)?),
            Frame::Failure(failure) => Self::Failure(Failure::from_proto(failure)?),
            Frame::Progress(progress) => Self::Progress(Progress::from_proto(progress)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Accepted(accepted) => accepted.check(),
            Self::Tokens(tokens) => tokens.check(),
            Self::Delivered(delivered) => delivered.check(),
            Self::Openings(openings) => openings.check(),
            Self::Failure(failure) => failure.check(),
            Self::Progress(progress) => progress.check(),
        }
    }
}

impl Codec for Accepted {
    type Proto = proto::Accepted;
    const NAME: &'static str = "accepted";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::ACCEPTED;

    fn to_proto(&self) -> proto::Accepted {
        proto::Accepted {
            offer_id: self.offer_id.as_bytes().to_vec(),
            prompt_tokens: self.prompt_tokens,
            queue_position: self.queue_position,
        }
    }

    fn from_proto(proto: proto::Accepted) -> Result<Self, WireError> {
        Ok(Self {
            offer_id: check::digest("accepted.offer_id", &proto.offer_id)?,
            prompt_tokens: proto.prompt_tokens,
            queue_position: proto.queue_position,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        at_most(
            "accepted.prompt_tokens",
            self.prompt_tokens.into(),
            limits::MAX_PROMPT_TOKENS.into(),
        )
    }
}

impl Codec for Progress {
    type Proto = proto::Progress;
    const NAME: &'static str = "progress";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::PROGRESS;

    fn to_proto(&self) -> proto::Progress {
        proto::Progress { read: self.read }
    }

    fn from_proto(proto: proto::Progress) -> Result<Self, WireError> {
        Ok(Self { read: proto.read })
    }

    fn check(&self) -> Result<(), WireError> {
        within("progress.read", self.read.into(), 1, limits::MAX_LEAVES.into())
    }
}

impl Codec for Tokens {
    type Proto = proto::Tokens;
    const NAME: &'static str = "tokens";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::TOKENS;

    fn to_proto(&self) -> proto::Tokens {
        proto::Tokens {
            start: self.start,
            tokens: self.tokens.clone(),
            text: self.text.clone(),
            commitment: self.commitment.map(|commitment| proto::Commitment {
                leaves: commitment.leaves,
                root: commitment.root.as_bytes().to_vec(),
            }),
            logprobs: self.logprobs.iter().map(TokenLogprobs::to_proto).collect(),
        }
    }

    fn from_proto(proto: proto::Tokens) -> Result<Self, WireError> {
        let commitment = proto.commitment.map(|commitment| {
            Ok::<_, WireError>(Commitment {
                leaves: commitment.leaves,
                root: check::digest("tokens.commitment.root", &commitment.root)?,
            })
        });
        Ok(Self {
            start: proto.start,
            tokens: proto.tokens,
            text: proto.text,
            commitment: commitment.transpose()?,
            logprobs: proto
                .logprobs
                .into_iter()
                .map(TokenLogprobs::from_proto)
                .collect::<Result<_, _>>()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let is_empty = self.tokens.is_empty() && self.text.is_empty() && self.commitment.is_none();
        not_empty("tokens", is_empty)?;
        check::tokens("tokens.tokens", &self.tokens, limits::MAX_TOKENS_PER_FRAME)?;
        at_most(
            "tokens.start",
            u64::from(self.start) + self.tokens.len() as u64,
            limits::MAX_ANSWER_TOKENS.into(),
        )?;
        count("tokens.text", self.text.len(), limits::MAX_TEXT_PER_FRAME_BYTES)?;
        let reports = self.tokens.len().min(limits::MAX_LOGPROBS_PER_FRAME);
        count("tokens.logprobs", self.logprobs.len(), reports)?;
        self.logprobs.iter().try_for_each(TokenLogprobs::check)?;
        match self.commitment {
            Some(commitment) => within(
                "tokens.commitment.leaves",
                commitment.leaves.into(),
                1,
                limits::MAX_LEAVES.into(),
            ),
            None => Ok(()),
        }
    }
}

impl TokenLogprobs {
    /// Adds the spellings of `chosen` and of the likeliest tokens, cut to
    /// [`limits::MAX_SPELLING_BYTES`].
    pub fn spell<'a>(&mut self, chosen: u32, spelling: impl Fn(u32) -> &'a [u8]) {
        let cut = |token| {
            let bytes = spelling(token);
            bytes[..bytes.len().min(limits::MAX_SPELLING_BYTES)].to_vec()
        };
        let all = std::iter::once(chosen).chain(self.top.iter().map(|(token, _)| *token));
        self.spellings = all.map(cut).collect();
    }

    pub(crate) fn to_proto(&self) -> proto::TokenLogprobs {
        let (tokens, values_q16) = self.top.iter().copied().unzip();
        let spellings = self.spellings.clone();
        proto::TokenLogprobs { chosen_q16: self.chosen_q16, tokens, values_q16, spellings }
    }

    pub(crate) fn from_proto(proto: proto::TokenLogprobs) -> Result<Self, WireError> {
        let (tokens, values) = (proto.tokens, proto.values_q16);
        if tokens.len() != values.len() {
            let (expected, got) = (tokens.len(), values.len());
            return Err(WireError::Length { place: "tokens.logprobs.values_q16", expected, got });
        }
        Ok(Self {
            chosen_q16: proto.chosen_q16,
            top: tokens.into_iter().zip(values).collect(),
            spellings: proto.spellings,
        })
    }

    pub(crate) fn check(&self) -> Result<(), WireError> {
        count("tokens.logprobs.tokens", self.top.len(), limits::MAX_TOP_LOGPROBS)?;
        self.top.iter().try_for_each(|(id, _)| check::token("tokens.logprobs.tokens", *id))?;
        let (expected, got) = (self.top.len() + 1, self.spellings.len());
        if expected != got {
            return Err(WireError::Length { place: "tokens.logprobs.spellings", expected, got });
        }
        let short = |one: &Vec<u8>| {
            count("tokens.logprobs.spellings", one.len(), limits::MAX_SPELLING_BYTES)
        };
        self.spellings.iter().try_for_each(short)
    }
}

impl Codec for Delivered {
    type Proto = proto::Delivered;
    const NAME: &'static str = "delivered";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::DELIVERED;

    fn to_proto(&self) -> proto::Delivered {
        proto::Delivered { receipt: self.receipt.to_proto(), log: Some(self.log.to_proto()) }
    }

    fn from_proto(proto: proto::Delivered) -> Result<Self, WireError> {
        Ok(Self {
            receipt: Signed::from_proto("delivered.receipt", proto.receipt)?,
            log: LogProof::from_proto(check::required("delivered.log", proto.log)?)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.log.check()
    }
}

impl Codec for LogProof {
    type Proto = proto::LogProof;
    const NAME: &'static str = "log proof";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::LOG_PROOF;

    fn to_proto(&self) -> proto::LogProof {
        proto::LogProof {
            index: self.index,
            checkpoint: self.checkpoint.clone(),
            path: check::join(&self.path),
        }
    }

    fn from_proto(proto: proto::LogProof) -> Result<Self, WireError> {
        Ok(Self {
            index: proto.index,
            checkpoint: proto.checkpoint,
            path: check::digests("log_proof.path", &proto.path, limits::MAX_PATH_HASHES)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let place = "log_proof.checkpoint";
        not_empty(place, self.checkpoint.is_empty())?;
        count(place, self.checkpoint.len(), limits::MAX_CHECKPOINT_BYTES)?;
        count("log_proof.path", self.path.len(), limits::MAX_PATH_HASHES)
    }
}
