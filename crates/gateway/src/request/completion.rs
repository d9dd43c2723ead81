//! The `prompt` of a text completion and the `input` of an embedding: text or token ids, one or several.

use peerproof::client::Prompt;
use serde_json::Value;

use super::fields::{Fields, expected};
use crate::error::ApiError;

/// All prompts of a parameter, in order; none is empty.
pub(super) fn prompts(
    fields: &Fields<'_>,
    name: &str,
    most: usize,
) -> Result<Vec<Prompt>, ApiError> {
    match fields.present(name) {
        None => Err(ApiError::invalid(name, format!("{name} is required"))),
        Some(Value::Array(list)) if is_token(list.first()) => Ok(vec![tokens(list, name)?]),
        Some(Value::Array(list)) => several(list, name, most),
        Some(value) => Ok(vec![one(value, name.into())?]),
    }
}

fn several(list: &[Value], name: &str, most: usize) -> Result<Vec<Prompt>, ApiError> {
    if list.is_empty() || list.len() > most {
        return Err(ApiError::invalid(name, format!("a list of 1 to {most} of them")));
    }
    let read = |(i, value)| one(value, format!("{name}[{i}]"));
    list.iter().enumerate().map(read).collect()
}

fn one(value: &Value, at: String) -> Result<Prompt, ApiError> {
    match value {
        Value::String(text) if text.is_empty() => Err(ApiError::invalid(at, "the prompt is empty")),
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(list) => tokens(list, &at),
        other => Err(ApiError::invalid(at, expected("a string or a list", other))),
    }
}

fn is_token(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_number)
}

fn tokens(list: &[Value], at: &str) -> Result<Prompt, ApiError> {
    if list.is_empty() {
        return Err(ApiError::invalid(at, "the prompt is empty"));
    }
    let read = |(i, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| ApiError::invalid(format!("{at}[{i}]"), expected("a token id", value)))
    };
    let ids: Result<Vec<u32>, ApiError> = list.iter().enumerate().map(read).collect();
    Ok(Prompt::Tokens(ids?))
}
