//! Chat templates: from messages to the one string a model was trained on.
//!
//! The template is a Jinja program inside the model file, so it is a stranger's
//! program. It is compiled once (`parse`), where every statement, filter, test,
//! function and method that this renderer lacks is refused by name (the model then
//! takes texts, and no chats); it runs
//! (`run`) with no loader, no clock and no randomness, and every step, every
//! byte made and every byte alive is counted before it is spent (`meter`). What
//! transformers offers to templates (`raise_exception`, `tojson`, Python's string
//! methods, trimmed blocks) is offered here too, `strftime_now` is not: the same
//! messages give the same tokens on any day.
//!
//! [`ChatTemplate::tokens`] is the way from messages to token ids: contents are
//! marked by a [`Shield`](crate::tokenizer::Shield) first, so no message can end
//! its own turn or begin another's.
//!
//! Deliberately absent: other templates (`include`, `import`, `extends`), values
//! that change but for namespaces, and floats in the form Python gives very large
//! and very small ones.

mod arguments;
mod ast;
mod fault;
mod filters;
mod json;
mod lex;
mod math;
mod meter;
mod methods;
mod parse;
mod predicates;
mod run;
mod text;
mod value;

use serde::Serialize;

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::{MAX_TEXT_BYTES, Special, Tokenizer, TokenizerError};
use ast::Program;
use fault::Fault;
use meter::Meter;
use value::Value;

/// The longest template taken, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// The longest string a template may render, in bytes.
pub const MAX_RENDERED_BYTES: usize = MAX_TEXT_BYTES;
/// The most messages in a conversation.
pub const MAX_MESSAGES: usize = 4_096;
/// The most steps a template may take: statements, expressions, items.
pub const MAX_STEPS: u64 = 4_000_000;
/// The most bytes of values a template may make or walk over.
pub const MAX_WORK_BYTES: u64 = 256 << 20;
/// The most bytes that a template's values may take at one time.
pub const MAX_LIVE_BYTES: usize = 32 << 20;
/// The roles a message may have. Templates write a role into their markup as it
/// stands, so it can't be anyone's text.
pub const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

const KEY: &str = "tokenizer.chat_template";
const NAME: &str = "chat template";

/// Why a template can't be used, or doesn't render.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The key has the wrong type.
    #[error(transparent)]
    File(#[from] GgufError),
    /// The rendered text can't be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The template, the conversation or the rendered text is too big.
    #[error("{place}: expected at most {expected} {unit}, got more")]
    TooMuch {
        /// What is too big.
        place: &'static str,
        /// The cap.
        expected: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// The template isn't valid Jinja, or needs what this renderer lacks.
    #[error("the chat template is broken: {reason}")]
    Syntax {
        /// Where and why.
        reason: String,
    },
    /// A role that isn't known.
    #[error("message {index}: expected a role of {}, got {got:?}", ROLES.join(", "))]
    Role {
        /// Which message, counted from 0.
        index: usize,
        /// Its role.
        got: String,
    },
    /// The template itself refuses the conversation.
    #[error("the model's chat template refuses these messages: {reason}")]
    Refused {
        /// In the template's words.
        reason: String,
    },
    /// The template fails on the conversation.
    #[error("the chat template fails on these messages: {reason}")]
    Render {
        /// Where and why.
        reason: String,
    },
}

/// One message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChatMessage<'a> {
    /// Who speaks, one of [`ROLES`].
    pub role: &'a str,
    /// What is said.
    pub content: &'a str,
}

/// A model's chat template, compiled.
///
/// ```
/// use peerproof_engine::template::{ChatMessage, ChatTemplate};
///
/// let source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
/// let template = ChatTemplate::new(source, "", "")?;
/// let messages = [ChatMessage { role: "user", content: "Hello" }];
/// assert_eq!(template.render(&messages, false)?, "[user] Hello\n");
/// # Ok::<(), peerproof_engine::template::TemplateError>(())
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    program: Program,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template of a model file, `None` if it has none (a base model).
    ///
    /// # Errors
    /// The template is too long, or isn't valid.
    pub fn from_gguf(file: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>, TemplateError> {
        let Some(source) = file.optional_str(KEY)? else { return Ok(None) };
        let spelling = |token: Option<u32>| {
            let bytes = token.map_or(&[][..], |token| tokenizer.spelling(token));
            String::from_utf8_lossy(bytes)
        };
        Self::new(source, &spelling(tokenizer.bos()), &spelling(tokenizer.eos())).map(Some)
    }

    /// Compiles a template; `bos` and `eos` are what it knows as `bos_token`
    /// and `eos_token`.
    ///
    /// # Errors
    /// The template is too long, or isn't valid.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(too_much(NAME, MAX_TEMPLATE_BYTES, "bytes"));
        }
        let program = parse::parse(source).map_err(|broken| TemplateError::Syntax {
            reason: format!("line {}: {}", broken.line, broken.reason),
        })?;
        Ok(Self { program, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// Renders a conversation; `generate` adds the opening of the assistant's
    /// next turn.
    ///
    /// # Errors
    /// A role is unknown, the template refuses or fails, or a limit is reached.
    pub fn render(
        &self,
        messages: &[ChatMessage<'_>],
        generate: bool,
    ) -> Result<String, TemplateError> {
        check(messages)?;
        let meter = Meter::default();
        let rendered = self.variables(&meter, messages, generate);
        rendered.and_then(|variables| run::run(&self.program, &meter, variables)).map_err(failure)
    }

    /// What the template knows by name.
    fn variables(
        &self,
        meter: &Meter,
        messages: &[ChatMessage<'_>],
        generate: bool,
    ) -> Result<Vec<(&'static str, Value)>, Fault> {
        let message = |message: &ChatMessage<'_>| {
            let entry = |key: &str, value: &str| Ok((meter.text(key)?, meter.text(value)?));
            meter.map(vec![entry("role", message.role)?, entry("content", message.content)?])
        };
        let messages = messages.iter().map(message).collect::<Result<_, _>>()?;
        Ok(vec![
            ("messages", meter.list(messages)?),
            ("add_generation_prompt", Value::Bool(generate)),
            ("bos_token", meter.text(self.bos.as_str())?),
            ("eos_token", meter.text(self.eos.as_str())?),
            ("tools", Value::None),
            ("documents", Value::None),
        ])
    }

    /// The token ids of a conversation, ready for the model. The template's own
    /// control tokens are parsed, those that a message spells are not.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], or the text can't be tokenized.
    pub fn tokens(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage<'_>],
        generate: bool,
    ) -> Result<Vec<u32>, TemplateError> {
        check(messages)?;
        let shield = tokenizer.shield(messages.iter().map(|message| message.content))?;
        let contents: Vec<String> = messages
            .iter()
            .map(|message| match message.role {
                "assistant" => shield.mark_own(message.content),
                _ => shield.mark(message.content),
            })
            .collect();
        let marked: Vec<ChatMessage<'_>> = messages
            .iter()
            .zip(&contents)
            .map(|(message, content)| ChatMessage { role: message.role, content })
            .collect();
        let text = self.render(&marked, generate)?;
        Ok(tokenizer.encode_shielded(&text, Special::Parse, Some(&shield))?)
    }
}

fn check(messages: &[ChatMessage<'_>]) -> Result<(), TemplateError> {
    if messages.len() > MAX_MESSAGES {
        return Err(too_much("the conversation", MAX_MESSAGES, "messages"));
    }
    match messages.iter().position(|message| !ROLES.contains(&message.role)) {
        None => Ok(()),
        Some(index) => {
            let got = messages[index].role.chars().take(40).collect();
            Err(TemplateError::Role { index, got })
        }
    }
}

fn too_much(place: &'static str, expected: usize, unit: &'static str) -> TemplateError {
    TemplateError::TooMuch { place, expected: expected as u64, unit }
}

fn failure(fault: Fault) -> TemplateError {
    match fault {
        Fault::Limit { place, expected, unit } => TemplateError::TooMuch { place, expected, unit },
        Fault::Refused(reason) => TemplateError::Refused { reason },
        Fault::Failed { line, reason } => {
            TemplateError::Render { reason: format!("line {line}: {reason}") }
        }
    }
}
