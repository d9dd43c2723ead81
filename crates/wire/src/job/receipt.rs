//! What a provider says it did.

use peerproof_identity::Domain;

use crate::check::{self, at_most, within};
use crate::codec::Codec;
use crate::job::Class;
use crate::shape::{self, Shape};
use crate::signed::Statement;
use crate::{ARITHMETIC, Digest, ModelId, PROTOCOL, WireError, limits, proto};

/// The provider's statement about one job: what was asked, what came out, and
/// the root over every step between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Id of the signed offer this answers.
    pub offer_id: Digest,
    /// The model that ran.
    pub model_id: ModelId,
    /// Counts this key's receipts from 1.
    pub number: u64,
    /// Id of the receipt before; absent for the first, present for all others.
    pub previous: Option<Digest>,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Why the answer ends.
    pub stop: Stop,
    /// Hash of the answer's token ids.
    pub output_hash: Digest,
    /// Hash of the answer's text.
    pub text_hash: Digest,
    /// Root of the transcript.
    pub transcript_root: Digest,
    /// Leaves under that root, the closing one included.
    pub leaves: u32,
    /// Root over the keys and values of every layer.
    pub kv_root: Digest,
    /// How the answer came about; the offer's.
    pub class: Class,
    /// When it was signed, by the provider's clock.
    pub issued_unix_ms: u64,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// The model said so.
    EndOfText,
    /// `max_tokens` is reached.
    Length,
    /// A stop string of the offer appeared.
    StopString,
}

impl Statement for Receipt {
    const DOMAIN: Domain = Domain::Receipt;
}

impl Codec for Receipt {
    type Proto = proto::Receipt;
    const NAME: &'static str = "receipt";
    const MAX_BYTES: usize = limits::MAX_RECEIPT_BYTES;
    const SHAPE: &'static Shape = &shape::RECEIPT;

    fn to_proto(&self) -> proto::Receipt {
        proto::Receipt {
            protocol: PROTOCOL,
            arithmetic: ARITHMETIC,
            offer_id: self.offer_id.as_bytes().to_vec(),
            model_id: self.model_id.as_bytes().to_vec(),
            number: self.number,
            previous: self.previous.map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            stop: self.stop.to_proto().into(),
            output_hash: self.output_hash.as_bytes().to_vec(),
            text_hash: self.text_hash.as_bytes().to_vec(),
            transcript_root: self.transcript_root.as_bytes().to_vec(),
            leaves: self.leaves,
            issued_unix_ms: self.issued_unix_ms,
            kv_root: self.kv_root.as_bytes().to_vec(),
            class: self.class.to_proto().into(),
        }
    }

    fn from_proto(proto: proto::Receipt) -> Result<Self, WireError> {
        check::version("receipt.protocol", proto.protocol, PROTOCOL)?;
        check::version("receipt.arithmetic", proto.arithmetic, ARITHMETIC)?;
        let previous = if proto.previous.is_empty() {
            None
        } else {
            Some(check::digest("receipt.previous", &proto.previous)?)
        };
        Ok(Self {
            offer_id: check::digest("receipt.offer_id", &proto.offer_id)?,
            model_id: check::model_id("receipt.model_id", &proto.model_id)?,
            number: proto.number,
            previous,
            prompt_tokens: proto.prompt_tokens,
            output_tokens: proto.output_tokens,
            stop: Stop::from_proto(proto.stop)?,
            output_hash: check::digest("receipt.output_hash", &proto.output_hash)?,
            text_hash: check::digest("receipt.text_hash", &proto.text_hash)?,
            transcript_root: check::digest("receipt.transcript_root", &proto.transcript_root)?,
            leaves: proto.leaves,
            kv_root: check::digest("receipt.kv_root", &proto.kv_root)?,
            class: Class::from_proto("receipt.class", proto.class)?,
            issued_unix_ms: proto.issued_unix_ms,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        within("receipt.number", self.number, 1, u64::MAX)?;
        if self.previous.is_some() != (self.number > 1) {
            return Err(WireError::Inconsistent {
                place: "receipt.previous",
                expected: "none with number 1 and one with any other",
                got: self.number,
            });
        }
        at_most(
            "receipt.prompt_tokens",
            self.prompt_tokens.into(),
            limits::MAX_PROMPT_TOKENS.into(),
        )?;
        at_most(
            "receipt.output_tokens",
            self.output_tokens.into(),
            limits::MAX_ANSWER_TOKENS.into(),
        )?;
        within("receipt.leaves", self.leaves.into(), 1, limits::MAX_LEAVES.into())
    }
}

impl Stop {
    fn to_proto(self) -> proto::Stop {
        match self {
            Self::EndOfText => proto::Stop::EndOfText,
            Self::Length => proto::Stop::Length,
            Self::StopString => proto::Stop::String,
        }
    }

    fn from_proto(number: i32) -> Result<Self, WireError> {
        match proto::Stop::try_from(number) {
            Ok(proto::Stop::EndOfText) => Ok(Self::EndOfText),
            Ok(proto::Stop::Length) => Ok(Self::Length),
            Ok(proto::Stop::String) => Ok(Self::StopString),
            Ok(proto::Stop::Unspecified) | Err(_) => {
                Err(WireError::Unnamed { place: "receipt.stop", got: number })
            }
        }
    }
}
