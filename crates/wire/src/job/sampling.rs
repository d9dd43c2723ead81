//! How tokens are chosen: the part of an offer that a sampler reads.
//!
//! Every number is an integer with 16 fractional bits, so what is signed is
//! what is computed with. A rule that is off is absent from the encoding. What
//! the rules do to a row of logits is in the arithmetic's specification, section 8.

use crate::check::{self, at_most, count, not_empty, within};
use crate::{WireError, limits, proto};

/// How the next token is drawn, and what is reported about it. Fixed point
/// with 16 fractional bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sampling {
    /// 0 is greedy; at most [`limits::MAX_TEMPERATURE_Q16`].
    pub temperature_q16: u32,
    /// Draw among this many likeliest tokens; 0 is off.
    pub top_k: u32,
    /// Draw among the likeliest tokens up to this probability, 1 to 65536; 65536 is off.
    pub top_p_q16: u32,
    /// Draw among tokens with at least this share of the likeliest one's weight;
    /// 0 is off, at most [`limits::MAX_MIN_P_Q16`].
    pub min_p_q16: u32,
    /// Logits of tokens that stand in the prompt or the answer are divided by
    /// this if positive, multiplied if negative; 0 is off, at most
    /// [`limits::MAX_REPETITION_Q16`].
    pub repetition_q16: u32,
    /// Taken from the logits of tokens that stand in the answer; within
    /// [`limits::MAX_PENALTY_Q16`] on either side of zero.
    pub presence_q16: i32,
    /// Taken from the logit of a token once for each time it stands in the
    /// answer; bounded as the presence penalty.
    pub frequency_q16: i32,
    /// Added to logits; at most [`limits::MAX_LOGIT_BIASES`], in ascending order
    /// of tokens, none of them twice and none zero.
    pub bias: Vec<LogitBias>,
    /// What the text must be.
    pub constraint: Option<Constraint>,
    /// How many of the likeliest tokens are reported beside each chosen one,
    /// with the logarithms of their probabilities; at most
    /// [`limits::MAX_TOP_LOGPROBS`]. Changes no token, so it is not part of the
    /// sampling seed.
    pub logprobs: Option<u32>,
}

/// What is added to the logit of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogitBias {
    /// The token.
    pub token: u32,
    /// In units of 2^-16; not zero, within [`limits::MAX_LOGIT_BIAS_Q16`] on
    /// either side.
    pub bias_q16: i32,
}

/// What the text of an answer must be, as far as it goes, and who says which
/// texts those are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// The rules that make masks of it, by name and version: one line of at most
    /// [`limits::MAX_CONSTRAINT_RULES_BYTES`]. Whoever knows other rules only
    /// can neither serve nor audit it.
    pub rules: String,
    /// What is asked for.
    pub form: Form,
}

/// The forms of a constraint. Texts have 1 to
/// [`limits::MAX_CONSTRAINT_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Any JSON object.
    JsonObject,
    /// JSON that this schema allows.
    JsonSchema(String),
    /// Text that this regular expression matches as a whole.
    Regex(String),
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self {
        temperature_q16: 0,
        top_k: 0,
        top_p_q16: limits::MAX_TOP_P_Q16,
        min_p_q16: 0,
        repetition_q16: 0,
        presence_q16: 0,
        frequency_q16: 0,
        bias: Vec::new(),
        constraint: None,
        logprobs: None,
    };

    pub(super) fn to_proto(&self) -> proto::Sampling {
        let bias =
            |bias: &LogitBias| proto::LogitBias { token: bias.token, bias_q16: bias.bias_q16 };
        proto::Sampling {
            temperature_q16: self.temperature_q16,
            top_k: self.top_k,
            top_p_q16: self.top_p_q16,
            min_p_q16: self.min_p_q16,
            repetition_q16: self.repetition_q16,
            presence_q16: self.presence_q16,
            frequency_q16: self.frequency_q16,
            bias: self.bias.iter().map(bias).collect(),
            constraint: self.constraint.as_ref().map(Constraint::to_proto),
            logprobs: self.logprobs.map_or(0, |top| top.saturating_add(1)),
        }
    }

    pub(super) fn from_proto(proto: proto::Sampling) -> Result<Self, WireError> {
        let bias =
            |bias: proto::LogitBias| LogitBias { token: bias.token, bias_q16: bias.bias_q16 };
        Ok(Self {
            temperature_q16: proto.temperature_q16,
            top_k: proto.top_k,
            top_p_q16: proto.top_p_q16,
            min_p_q16: proto.min_p_q16,
            repetition_q16: proto.repetition_q16,
            presence_q16: proto.presence_q16,
            frequency_q16: proto.frequency_q16,
            bias: proto.bias.into_iter().map(bias).collect(),
            constraint: proto.constraint.map(Constraint::from_proto).transpose()?,
            logprobs: proto.logprobs.checked_sub(1),
        })
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        let limit = limits::MAX_TEMPERATURE_Q16;
        at_most("offer.sampling.temperature_q16", self.temperature_q16.into(), limit.into())?;
        at_most("offer.sampling.top_k", self.top_k.into(), limits::MAX_TOP_K.into())?;
        let limit = limits::MAX_TOP_P_Q16;
        within("offer.sampling.top_p_q16", self.top_p_q16.into(), 1, limit.into())?;
        at_most("offer.sampling.min_p_q16", self.min_p_q16.into(), limits::MAX_MIN_P_Q16.into())?;
        let limit = limits::MAX_REPETITION_Q16;
        at_most("offer.sampling.repetition_q16", self.repetition_q16.into(), limit.into())?;
        let limit = limits::MAX_PENALTY_Q16;
        let penalty = |place, value: i32| at_most(place, value.unsigned_abs().into(), limit.into());
        penalty("offer.sampling.presence_q16", self.presence_q16)?;
        penalty("offer.sampling.frequency_q16", self.frequency_q16)?;
        self.check_bias()?;
        if let Some(constraint) = &self.constraint {
            constraint.check()?;
        }
        let top = self.logprobs.unwrap_or(0);
        at_most("offer.sampling.logprobs", top.into(), limits::MAX_TOP_LOGPROBS as u64)
    }

    fn check_bias(&self) -> Result<(), WireError> {
        count("offer.sampling.bias", self.bias.len(), limits::MAX_LOGIT_BIASES)?;
        let mut least = 0;
        for LogitBias { token, bias_q16 } in &self.bias {
            check::token("offer.sampling.bias.token", *token)?;
            within("offer.sampling.bias.token", (*token).into(), least, u64::MAX)?;
            least = u64::from(*token) + 1;
            let (size, limit) = (bias_q16.unsigned_abs(), limits::MAX_LOGIT_BIAS_Q16);
            within("offer.sampling.bias.bias_q16", size.into(), 1, limit.into())?;
        }
        Ok(())
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self::GREEDY
    }
}

impl Constraint {
    /// Its number on the wire and in the sampling seed.
    #[must_use]
    pub fn kind(&self) -> u8 {
        let kind = match self.form {
            Form::JsonObject => proto::ConstraintKind::JsonObject,
            Form::JsonSchema(_) => proto::ConstraintKind::JsonSchema,
            Form::Regex(_) => proto::ConstraintKind::Regex,
        };
        kind as u8
    }

    /// The schema, the expression; empty where the kind says it all.
    #[must_use]
    pub fn text(&self) -> &str {
        match &self.form {
            Form::JsonObject => "",
            Form::JsonSchema(text) | Form::Regex(text) => text,
        }
    }

    fn to_proto(&self) -> proto::Constraint {
        proto::Constraint {
            kind: self.kind().into(),
            text: self.text().to_owned(),
            rules: self.rules.clone(),
        }
    }

    fn from_proto(proto: proto::Constraint) -> Result<Self, WireError> {
        // A text that an object has no place for is lost here and found by the re-encoding.
        let form = match proto::ConstraintKind::try_from(proto.kind) {
            Ok(proto::ConstraintKind::JsonObject) => Form::JsonObject,
            Ok(proto::ConstraintKind::JsonSchema) => Form::JsonSchema(proto.text),
            Ok(proto::ConstraintKind::Regex) => Form::Regex(proto.text),
            Ok(proto::ConstraintKind::Unspecified) | Err(_) => {
                let (place, got) = ("offer.sampling.constraint.kind", proto.kind);
                return Err(WireError::Unnamed { place, got });
            }
        };
        Ok(Self { rules: proto.rules, form })
    }

    fn check(&self) -> Result<(), WireError> {
        let place = "offer.sampling.constraint.rules";
        not_empty(place, self.rules.is_empty())?;
        check::line(place, &self.rules, limits::MAX_CONSTRAINT_RULES_BYTES)?;
        let place = "offer.sampling.constraint.text";
        match &self.form {
            Form::JsonObject => Ok(()),
            Form::JsonSchema(text) | Form::Regex(text) => {
                not_empty(place, text.is_empty())?;
                count(place, text.len(), limits::MAX_CONSTRAINT_BYTES)
            }
        }
    }
}
