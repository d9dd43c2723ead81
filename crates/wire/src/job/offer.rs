//! What a router asks for, and under which rules.

use peerproof_identity::Domain;

use crate::check::{self, count, line, not_empty, within};
use crate::codec::Codec;
use crate::job::{Class, Sampling};
use crate::shape::{self, Shape};
use crate::signed::Statement;
use crate::{ARITHMETIC, Digest, ModelId, PROTOCOL, WireError, limits, proto};

/// The router's statement of one request. Everything the answer depends on is
/// in it: two honest providers give the same tokens for the same offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The model that must answer.
    pub model_id: ModelId,
    /// What it is asked.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Longest answer, 1 to [`limits::MAX_ANSWER_TOKENS`] tokens.
    pub max_tokens: u32,
    /// Texts before which the answer ends.
    pub stop: Vec<String>,
    /// How the answer is to be checked.
    pub level: Level,
    /// Enters the sampling seed; the same nonce gives the same answer.
    pub public_nonce: [u8; 32],
    /// [`client_nonce_hash`] of the nonce that will draw the challenge.
    pub client_nonce_hash: Digest,
    /// Milliseconds from acceptance to the receipt, 1 to [`limits::MAX_DEADLINE_MS`].
    pub deadline_ms: u64,
    /// If present, the answer is no text but an embedding of the prompt, of at most `max_tokens`
    /// components; sampling must then be greedy, and there are no stop strings.
    pub pooling: Option<Pooling>,
    /// How the answer comes about.
    pub class: Class,
}

/// Which positions of the prompt an embedding is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// As the model file says, else the mean.
    Model,
    /// All of them.
    Mean,
    /// The last one.
    Last,
}

/// What the model continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Messages, rendered by the model's own template.
    Chat(Vec<ChatMessage>),
    /// Text, tokenized as it stands.
    Text(String),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks, in the template's words: `system`, `user`, `assistant` …
    pub role: String,
    /// What was said.
    pub content: String,
}

/// How an answer is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Signatures and bindings.
    Receipt,
    /// As [`Receipt`](Self::Receipt), and a full audit with some probability.
    Sampled,
    /// Every leaf recomputed before the answer counts as verified.
    Full,
    /// Several providers, equality.
    KOfN,
    /// Drawn cells recomputed, with single layers of the model.
    Spot,
    /// Drawn cells checked by the products of their matrices, without weights.
    Light,
}

/// What an offer shows of the client's nonce: `BLAKE3("peerproof client nonce v1" ‖ 0x00 ‖ nonce)`.
pub fn client_nonce_hash(nonce: &[u8; 32]) -> Digest {
    let hash =
        blake3::Hasher::new().update(b"peerproof client nonce v1\0").update(nonce).finalize();
    Digest::from_bytes(hash.into())
}

impl Statement for Offer {
    const DOMAIN: Domain = Domain::Offer;
}

impl Codec for Offer {
    type Proto = proto::Offer;
    const NAME: &'static str = "offer";
    const MAX_BYTES: usize = limits::MAX_OFFER_BYTES;
    const SHAPE: &'static Shape = &shape::OFFER;

    fn to_proto(&self) -> proto::Offer {
        proto::Offer {
            protocol: PROTOCOL,
            arithmetic: ARITHMETIC,
            model_id: self.model_id.as_bytes().to_vec(),
            prompt: Some(self.prompt.to_proto()),
            sampling: Some(self.sampling.to_proto()),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            level: self.level.to_proto().into(),
            public_nonce: self.public_nonce.to_vec(),
            client_nonce_hash: self.client_nonce_hash.as_bytes().to_vec(),
            deadline_ms: self.deadline_ms,
            pooling: Pooling::to_proto(self.pooling).into(),
            class: self.class.to_proto().into(),
        }
    }

    fn from_proto(proto: proto::Offer) -> Result<Self, WireError> {
        check::version("offer.protocol", proto.protocol, PROTOCOL)?;
        check::version("offer.arithmetic", proto.arithmetic, ARITHMETIC)?;
        Ok(Self {
            model_id: check::model_id("offer.model_id", &proto.model_id)?,
            prompt: Prompt::from_proto(check::required("offer.prompt", proto.prompt)?),
            sampling: Sampling::from_proto(check::required("offer.sampling", proto.sampling)?)?,
            max_tokens: proto.max_tokens,
            stop: proto.stop,
            level: Level::from_proto(proto.level)?,
            public_nonce: check::array("offer.public_nonce", &proto.public_nonce)?,
            client_nonce_hash: check::digest("offer.client_nonce_hash", &proto.client_nonce_hash)?,
            deadline_ms: proto.deadline_ms,
            pooling: Pooling::from_proto(proto.pooling)?,
            class: Class::from_proto("offer.class", proto.class)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.prompt.check()?;
        self.sampling.check()?;
        within("offer.max_tokens", self.max_tokens.into(), 1, limits::MAX_ANSWER_TOKENS.into())?;
        count("offer.stop", self.stop.len(), limits::MAX_STOP_STRINGS)?;
        for stop in &self.stop {
            not_empty("offer.stop[]", stop.is_empty())?;
            count("offer.stop[]", stop.len(), limits::MAX_STOP_STRING_BYTES)?;
        }
        within("offer.deadline_ms", self.deadline_ms, 1, limits::MAX_DEADLINE_MS)?;
        let greedy = self.sampling == Sampling::GREEDY && self.stop.is_empty();
        if self.pooling.is_some() && !greedy {
            return Err(WireError::Inconsistent {
                place: "offer.pooling",
                expected: "greedy sampling and no stop strings beside it",
                got: self.stop.len() as u64,
            });
        }
        self.check_class()
    }
}

impl Offer {
    /// What an engine of another kind can be asked for, and be tested on.
    fn check_class(&self) -> Result<(), WireError> {
        if self.class == Class::Exact {
            return Ok(());
        }
        let refused = |expected: &'static str, got: u64| {
            Err(WireError::Inconsistent { place: "offer.class", expected, got })
        };
        if matches!(self.level, Level::Spot | Level::Light | Level::KOfN) {
            return refused(
                "no audit of cells and no quorum of a statistical answer",
                self.level.to_proto() as u64,
            );
        }
        if self.pooling.is_some() {
            return refused("no embedding of the statistical class", 1);
        }
        let most = limits::MAX_TOP_LOGPROBS as u32;
        if self.sampling.logprobs != Some(most) {
            let got = self.sampling.logprobs.map_or(0, |top| u64::from(top) + 1);
            return refused("the 20 likeliest tokens reported at each place", got);
        }
        let Sampling { temperature_q16, top_k, top_p_q16, min_p_q16, .. } = self.sampling;
        let plain = Sampling {
            temperature_q16,
            top_k,
            top_p_q16,
            min_p_q16,
            logprobs: Some(most),
            ..Sampling::GREEDY
        };
        if self.sampling != plain {
            return refused("no penalties, biases or constraint", self.sampling.bias.len() as u64);
        }
        within("offer.max_tokens", self.max_tokens.into(), 1, limits::MAX_STATISTICAL_TOKENS.into())
    }
}

impl Pooling {
    fn to_proto(pooling: Option<Self>) -> proto::Pooling {
        match pooling {
            None => proto::Pooling::Unspecified,
            Some(Self::Model) => proto::Pooling::Model,
            Some(Self::Mean) => proto::Pooling::Mean,
            Some(Self::Last) => proto::Pooling::Last,
        }
    }

    fn from_proto(number: i32) -> Result<Option<Self>, WireError> {
        match proto::Pooling::try_from(number) {
            Ok(proto::Pooling::Unspecified) => Ok(None),
            Ok(proto::Pooling::Model) => Ok(Some(Self::Model)),
            Ok(proto::Pooling::Mean) => Ok(Some(Self::Mean)),
            Ok(proto::Pooling::Last) => Ok(Some(Self::Last)),
            Err(_) => Err(WireError::Unnamed { place: "offer.pooling", got: number }),
        }
    }
}

impl Prompt {
    fn to_proto(&self) -> proto::offer::Prompt {
        match self {
            Self::Chat(messages) => proto::offer::Prompt::Chat(proto::Chat {
                messages: messages.iter().map(ChatMessage::to_proto).collect(),
            }),
            Self::Text(text) => proto::offer::Prompt::Text(text.clone()),
            Self::Tokens(ids) => proto::offer::Prompt::Tokens(proto::TokenIds { ids: ids.clone() }),
        }
    }

    fn from_proto(proto: proto::offer::Prompt) -> Self {
        match proto {
            proto::offer::Prompt::Chat(chat) => {
                Self::Chat(chat.messages.into_iter().map(ChatMessage::from_proto).collect())
            }
            proto::offer::Prompt::Text(text) => Self::Text(text),
            proto::offer::Prompt::Tokens(tokens) => Self::Tokens(tokens.ids),
        }
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Chat(messages) => check_chat(messages),
            Self::Text(text) => {
                not_empty("offer.text", text.is_empty())?;
                count("offer.text", text.len(), limits::MAX_PROMPT_BYTES)
            }
            Self::Tokens(ids) => {
                not_empty("offer.tokens", ids.is_empty())?;
                check::tokens("offer.tokens", ids, limits::MAX_PROMPT_TOKENS as usize)
            }
        }
    }
}

fn check_chat(messages: &[ChatMessage]) -> Result<(), WireError> {
    not_empty("offer.chat", messages.is_empty())?;
    count("offer.chat", messages.len(), limits::MAX_CHAT_MESSAGES)?;
    let mut bytes = 0;
    for message in messages {
        not_empty("offer.chat.role", message.role.is_empty())?;
        line("offer.chat.role", &message.role, limits::MAX_ROLE_BYTES)?;
        bytes += message.role.len() + message.content.len();
    }
    count("offer.chat", bytes, limits::MAX_PROMPT_BYTES)
}

impl ChatMessage {
    /// A message by `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    fn to_proto(&self) -> proto::ChatMessage {
        proto::ChatMessage { role: self.role.clone(), content: self.content.clone() }
    }

    fn from_proto(proto: proto::ChatMessage) -> Self {
        Self { role: proto.role, content: proto.content }
    }
}

impl Level {
    fn to_proto(self) -> proto::Level {
        match self {
            Self::Receipt => proto::Level::Receipt,
            Self::Sampled => proto::Level::Sampled,
            Self::Full => proto::Level::Full,
            Self::KOfN => proto::Level::KOfN,
            Self::Spot => proto::Level::Spot,
            Self::Light => proto::Level::Light,
        }
    }

    fn from_proto(number: i32) -> Result<Self, WireError> {
        match proto::Level::try_from(number) {
            Ok(proto::Level::Receipt) => Ok(Self::Receipt),
            Ok(proto::Level::Sampled) => Ok(Self::Sampled),
            Ok(proto::Level::Full) => Ok(Self::Full),
            Ok(proto::Level::KOfN) => Ok(Self::KOfN),
            Ok(proto::Level::Spot) => Ok(Self::Spot),
            Ok(proto::Level::Light) => Ok(Self::Light),
            Ok(proto::Level::Unspecified) | Err(_) => {
                Err(WireError::Unnamed { place: "offer.level", got: number })
            }
        }
    }
}
