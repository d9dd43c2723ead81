//! Parameters that would change the answer and that the engine cannot honour.
//!
//! Each stands with the values that mean "as if absent"; any other value is
//! refused by name. Parameters that are neither here nor read elsewhere cannot
//! change an answer, or are unknown to every API this one is compatible with.

use serde_json::{Map, Value};

use super::Shape;
use crate::error::ApiError;

/// Values that leave the answer as it is; `null` always does.
enum Neutral {
    Zero,
    One,
    False,
    Empty,
    Words(&'static [&'static str]),
    /// `["text"]`.
    TextOnly,
    Never,
}

use Neutral::{Empty, False, Never, One, TextOnly, Words, Zero};

const BOTH: &[(&str, Neutral)] = &[
    ("length_penalty", One),
    ("top_a", Zero),
    ("typical_p", One),
    ("min_tokens", Zero),
    ("mirostat", Zero),
    ("ignore_eos", False),
    ("use_beam_search", False),
    ("stop_token_ids", Empty),
    ("bad_words", Empty),
    ("guided_json", Never),
    ("guided_regex", Never),
    ("guided_choice", Never),
    ("guided_grammar", Never),
    ("structured_outputs", Never),
    ("grammar", Words(&[""])),
    ("json_schema", Never),
    ("samplers", Never),
];

const CHAT: &[(&str, Neutral)] = &[
    ("tools", Empty),
    ("tool_choice", Words(&["none", "auto"])),
    ("functions", Empty),
    ("function_call", Words(&["none", "auto"])),
    ("modalities", TextOnly),
    ("audio", Never),
    ("web_search_options", Never),
    ("reasoning_effort", Words(&["none"])),
    ("verbosity", Words(&["medium"])),
    ("chat_template", Never),
    ("chat_template_kwargs", Empty),
    ("continue_final_message", False),
];

const TEXT: &[(&str, Neutral)] = &[("echo", False), ("suffix", Words(&[""])), ("best_of", One)];

/// Refuses the first parameter that asks for more than the engine has.
pub(super) fn check(shape: Shape, body: &Map<String, Value>) -> Result<(), ApiError> {
    let own = match shape {
        Shape::Chat => CHAT,
        Shape::Text => TEXT,
    };
    let asks = |(name, neutral): &&(&str, Neutral)| {
        body.get(*name).is_some_and(|value| !value.is_null() && !neutral.holds(value))
    };
    match BOTH.iter().chain(own).find(asks) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!(
                "{name} would change the answer and is not supported by the engine; leave it out"
            );
            Err(ApiError::unsupported(*name, message))
        }
    }
}

impl Neutral {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Zero => value.as_f64() == Some(0.0),
            One => value.as_f64() == Some(1.0),
            False => value == &Value::Bool(false),
            Empty => {
                value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(Map::is_empty)
            }
            Words(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            TextOnly => value.as_array().is_some_and(|list| list.len() == 1 && list[0] == "text"),
            Never => false,
        }
    }
}
