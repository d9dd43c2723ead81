//! The `messages` of a chat: roles and text, nothing else.

use peerproof::client::ChatMessage;
use serde_json::Value;

use super::fields::{Fields, expected};
use crate::error::ApiError;

const MAX_MESSAGES: usize = 2_048;
const MAX_PARTS: usize = 1_024;

/// All messages, in order; at least one.
pub(super) fn messages(fields: &Fields<'_>) -> Result<Vec<ChatMessage>, ApiError> {
    let list = fields.array("messages")?.map_or(&[][..], Vec::as_slice);
    if list.is_empty() || list.len() > MAX_MESSAGES {
        let message = format!("a list of 1 to {MAX_MESSAGES} messages is required");
        return Err(ApiError::invalid("messages", message));
    }
    let read = |(i, value)| message(&Fields::inner(value, format!("messages[{i}]"))?);
    list.iter().enumerate().map(read).collect()
}

fn message(fields: &Fields<'_>) -> Result<ChatMessage, ApiError> {
    let role = match fields.string("role")? {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => {
            let message = "tool calls are not supported by the engine";
            return Err(ApiError::unsupported(fields.path("role"), message));
        }
        _ => {
            let message = "one of system, developer, user, assistant";
            return Err(ApiError::invalid(fields.path("role"), message));
        }
    };
    for name in ["tool_calls", "function_call", "audio"] {
        let neutral = fields.present(name).is_none_or(|v| v.as_array().is_some_and(Vec::is_empty));
        if !neutral {
            let message = "only text is supported by the engine";
            return Err(ApiError::unsupported(fields.path(name), message));
        }
    }
    Ok(ChatMessage { role: role.to_owned(), content: content(fields)? })
}

/// A string, or text parts joined by a line break. An assistant's refusal
/// stands where its text would.
fn content(fields: &Fields<'_>) -> Result<String, ApiError> {
    match fields.present("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) if parts.len() > MAX_PARTS => {
            Err(ApiError::invalid(fields.path("content"), format!("at most {MAX_PARTS} parts")))
        }
        Some(Value::Array(parts)) => {
            let at = |i| format!("{}[{i}]", fields.path("content"));
            let read = |(i, value)| part(&Fields::inner(value, at(i))?);
            let texts: Result<Vec<&str>, ApiError> = parts.iter().enumerate().map(read).collect();
            Ok(texts?.join("\n"))
        }
        Some(other) => {
            Err(ApiError::invalid(fields.path("content"), expected("a string or a list", other)))
        }
        None => match fields.string("refusal")? {
            Some(refusal) => Ok(refusal.to_owned()),
            None => Err(ApiError::invalid(fields.path("content"), "a text is required")),
        },
    }
}

fn part<'a>(fields: &Fields<'a>) -> Result<&'a str, ApiError> {
    let name = match fields.string("type")? {
        Some("text") => "text",
        Some("refusal") => "refusal",
        Some(other) => {
            let kind: String = other.chars().take(32).collect();
            let message = format!("this engine reads text only, not {kind}");
            return Err(ApiError::unsupported(fields.path("type"), message));
        }
        None => return Err(ApiError::invalid(fields.path("type"), "a type is required")),
    };
    fields.string(name)?.ok_or_else(|| ApiError::invalid(fields.path(name), "a text is required"))
}
