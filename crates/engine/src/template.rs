//! Chat templates: from messages to the one string a model was trained on.
//!
//! The template is a Jinja program inside the model file, so it is a stranger's
//! program. It runs with no loader, no clock and no randomness, within a budget
//! of steps and of output; what transformers offers to such templates
//! (`raise_exception`, `tojson`, Python's string methods, trimmed blocks) is
//! offered here too, `strftime_now` is not: the same messages give the same
//! tokens on any day.
//!
//! [`ChatTemplate::tokens`] is the way from messages to token ids: contents are
//! marked by a [`Shield`](crate::tokenizer::Shield) first, so no message can end
//! its own turn or begin another's.
//!
//! Not bounded: the memory of a single expression. A template that doubles a
//! string step by step can exhaust memory within its budget of steps, so serve
//! a model of unknown origin under a memory limit of the system.

mod json;

use std::io::{self, Write};

use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::{MAX_TEXT_BYTES, Special, Tokenizer, TokenizerError};

/// The longest template taken, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// The longest string a template may render, in bytes.
pub const MAX_RENDERED_BYTES: usize = MAX_TEXT_BYTES;
/// The most messages in a conversation.
pub const MAX_MESSAGES: usize = 4_096;
/// The most steps a template may take.
pub const MAX_STEPS: u64 = 4_000_000;
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
    /// The template isn't valid Jinja.
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
    environment: Environment<'static>,
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
        let mut environment = environment();
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| TemplateError::Syntax { reason: error.to_string() })?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
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
        let template = self.environment.get_template(NAME).map_err(failure)?;
        let variables = context! {
            messages,
            add_generation_prompt => generate,
            bos_token => self.bos,
            eos_token => self.eos,
            tools => Value::from(()),
            documents => Value::from(()),
        };
        let mut out = Capped::default();
        match template.render_captured_to(variables, &mut out) {
            _ if out.full => Err(too_much("the rendered chat", MAX_RENDERED_BYTES, "bytes")),
            Ok(_) => String::from_utf8(out.bytes)
                .map_err(|error| TemplateError::Render { reason: error.to_string() }),
            Err(error) => Err(failure(error)),
        }
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

/// What templates may use, set up as transformers does.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function("raise_exception", raise);
    environment.add_filter("tojson", json::filter);
    environment
}

/// What `raise_exception` carries up to [`failure`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise(reason: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raised by the template");
    Err(error.with_source(Raised(reason)))
}

fn failure(error: Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::TooMuch { place: NAME, expected: MAX_STEPS, unit: "steps" };
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(Raised(reason)) = inner.downcast_ref() {
            return TemplateError::Refused { reason: reason.chars().take(400).collect() };
        }
        cause = inner.source();
    }
    TemplateError::Render { reason: error.to_string() }
}

/// Takes bytes up to [`MAX_RENDERED_BYTES`], then fails.
#[derive(Default)]
struct Capped {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_RENDERED_BYTES {
            self.full = true;
            return Err(io::Error::other("the output limit is reached"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
