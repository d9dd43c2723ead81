//! How tokens are chosen, from JSON numbers to the integers that are signed.
//!
//! Ranges and defaults are OpenAI's where it has the parameter, and those that
//! are usual among other servers where it has not. Each number is rounded to
//! the nearest 1/65,536 once, here.

use peerproof::client::{LogitBias, Sampling};
use serde_json::Value;

use super::Shape;
use super::fields::{Fields, expected};
use super::format;
use crate::error::ApiError;

const MAX_LIKELIEST: u64 = 20;
const MAX_BIASES: usize = 300;
const MAX_BIAS: f64 = 100.0;
const MAX_PENALTY: f64 = 2.0;
const MAX_REPETITION: f64 = 16.0;
const MAX_TOP_K: u32 = 1 << 24;
const MAX_TOKEN_ID: u32 = (1 << 24) - 1;
const ONE: u32 = 1 << 16;

/// All rules of one request.
pub(super) fn parse(shape: Shape, fields: &Fields<'_>) -> Result<Sampling, ApiError> {
    let top_k = match fields.integer("top_k")? {
        None | Some(-1) => 0,
        Some(k) => u32::try_from(k).ok().filter(|k| *k <= MAX_TOP_K).ok_or_else(|| {
            let message = format!("a whole number up to {MAX_TOP_K}; 0 or -1 is off");
            ApiError::invalid("top_k", message)
        })?,
    };
    Ok(Sampling {
        temperature_q16: fields.q16("temperature", 2)?.unwrap_or(ONE),
        top_k,
        // A mass of zero has no smallest set; the least positive mass keeps one token.
        top_p_q16: fields.q16("top_p", 1)?.unwrap_or(ONE).max(1),
        min_p_q16: fields.q16("min_p", 1)?.unwrap_or(0),
        repetition_q16: repetition(fields)?,
        presence_q16: penalty(fields, "presence_penalty")?,
        frequency_q16: penalty(fields, "frequency_penalty")?,
        bias: bias(fields)?,
        logprobs: logprobs(shape, fields)?,
        constraint: format::parse(fields)?,
    })
}

/// How many of the likeliest tokens are reported at each place; `None` is no report.
fn logprobs(shape: Shape, fields: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    let count = |name| fields.unsigned(name, 0..=MAX_LIKELIEST);
    match shape {
        Shape::Text => Ok(count("logprobs")?.map(|count| count as u32)),
        Shape::Chat => match (fields.boolean("logprobs")?, count("top_logprobs")?) {
            (Some(true), top) => Ok(Some(top.unwrap_or(0) as u32)),
            (_, None | Some(0)) => Ok(None),
            _ => Err(ApiError::invalid("top_logprobs", "logprobs must be true")),
        },
    }
}

/// By either of its two names; 1 is off.
fn repetition(fields: &Fields<'_>) -> Result<u32, ApiError> {
    let named = |name| fields.signed_q16(name, 0.0, MAX_REPETITION);
    let (one, other) = (named("repetition_penalty")?, named("repeat_penalty")?);
    if let (Some(one), Some(other)) = (one, other)
        && one != other
    {
        let message = "differs from repeat_penalty, which is the same";
        return Err(ApiError::invalid("repetition_penalty", message));
    }
    match one.or(other).map(i32::unsigned_abs) {
        None | Some(ONE) => Ok(0),
        // Nothing can be divided by zero.
        Some(0) => Err(ApiError::invalid("repetition_penalty", "a number above 0, at most 16")),
        Some(penalty) => Ok(penalty),
    }
}

fn penalty(fields: &Fields<'_>, name: &str) -> Result<i32, ApiError> {
    Ok(fields.signed_q16(name, -MAX_PENALTY, MAX_PENALTY)?.unwrap_or(0))
}

/// `logit_bias: {"token id": number}`; an entry of 0 is none.
fn bias(fields: &Fields<'_>) -> Result<Vec<LogitBias>, ApiError> {
    let Some(value) = fields.present("logit_bias") else { return Ok(Vec::new()) };
    let entries = match value {
        Value::Object(entries) => entries,
        // What an empty map becomes in some languages.
        Value::Array(list) if list.is_empty() => return Ok(Vec::new()),
        other => return Err(ApiError::invalid("logit_bias", expected("an object", other))),
    };
    if entries.len() > MAX_BIASES {
        return Err(ApiError::invalid("logit_bias", format!("at most {MAX_BIASES} entries")));
    }
    let object = Fields::inner(value, "logit_bias".into())?;
    let mut biases = Vec::with_capacity(entries.len());
    for name in entries.keys() {
        let digits = name.bytes().all(|byte| byte.is_ascii_digit());
        let token = name.parse().ok().filter(|token| digits && *token <= MAX_TOKEN_ID);
        let token = token.ok_or_else(|| {
            ApiError::invalid("logit_bias", "every name is a token id, in decimal digits")
        })?;
        let bias_q16 = object.signed_q16(name, -MAX_BIAS, MAX_BIAS)?.unwrap_or(0);
        if bias_q16 != 0 {
            biases.push(LogitBias { token, bias_q16 });
        }
    }
    biases.sort_unstable_by_key(|bias| bias.token);
    if biases.windows(2).any(|two| two[0].token == two[1].token) {
        return Err(ApiError::invalid("logit_bias", "a token stands there twice"));
    }
    Ok(biases)
}
