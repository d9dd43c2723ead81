//! A model file, opened: weights, tokenizer, chat template and id together.
//!
//! [`Model::open`] maps the file once; weights, tokenizer and id are made from
//! the mapping side by side, then the mapping is let go. What remains is
//! immutable and shared by whoever serves or audits with it.
//! Deliberately absent: where files come from, and running anything.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use peerproof_wire::{self as wire, ModelId, Prompt, Sampling};

use crate::constraint::{ConstraintError, Masks, Source, Vocabulary};
use crate::embed::Pooling;
use crate::gguf::{GgmlType, Gguf, GgufError};
use crate::template::{ChatMessage, ChatTemplate, TemplateError};
use crate::tokenizer::{Special, Tokenizer, TokenizerError};
use crate::transformer::{LoadOptions, Part, Transformer};
use crate::weights::LoadError;

/// The architectures that can be served, as files name them.
pub const ARCHITECTURES: [&str; 6] = crate::architecture::NAMES;

/// How files number the pooling of the last position.
const POOLING_LAST: u32 = 3;
const KEY_ARCHITECTURE: &str = "general.architecture";

/// Why a model file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file can't be read or isn't valid.
    #[error(transparent)]
    File(#[from] GgufError),
    /// An architecture that isn't supported.
    #[error("{KEY_ARCHITECTURE}: expected one of {expected}, got {got:?}")]
    Architecture {
        /// What is supported.
        expected: String,
        /// What the file says.
        got: String,
    },
    /// The weights can't be used.
    #[error(transparent)]
    Weights(#[from] LoadError),
    /// The tokenizer can't be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// More tokens than rows of the embedding.
    #[error(
        "tokenizer.ggml.tokens: expected at most {expected} tokens, one per embedding row, got {got}"
    )]
    Vocabulary {
        /// Rows of the embedding.
        expected: u64,
        /// Tokens of the tokenizer.
        got: u64,
    },
}

/// Why a prompt can't be given to a model. It is the asker's fault, always.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The model is a base model: it has no chat template.
    #[error(
        "the model has no chat template: ask for a completion of a text instead \
             (/v1/completions, or ask --text)"
    )]
    NoTemplate,
    /// The model's chat template can't be used by anyone.
    #[error(
        "the model takes no chats here: {reason}; ask for a completion of a text instead \
             (/v1/completions, or ask --text)"
    )]
    BadTemplate {
        /// What is wrong with it.
        reason: String,
    },
    /// The template refuses or fails.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The text can't be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    Empty,
    /// A token id outside the vocabulary.
    #[error("prompt token {index}: expected an id below {expected}, got {got}")]
    Token {
        /// Which token, counted from 0.
        index: usize,
        /// Size of the vocabulary.
        expected: usize,
        /// The id.
        got: u32,
    },
    /// A token to resume from, outside the vocabulary.
    #[error("resumed token {index}: expected an id below {expected}, got {got}")]
    Resumed {
        /// Which token, counted from 0.
        index: usize,
        /// Size of the vocabulary.
        expected: usize,
        /// The id.
        got: u32,
    },
    /// Prompt and answer don't fit the model's context.
    #[error(
        "the context is too long: the model has {expected} positions, \
         got {prompt} of the prompt and up to {answer} of the answer"
    )]
    TooLong {
        /// Positions of the model.
        expected: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens the answer may have.
        answer: u32,
    },
}

/// A model ready to serve or audit.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use peerproof_engine::{transformer::LoadOptions, model::Model};
/// let model = Model::open("model.gguf", &LoadOptions::default())?;
/// println!("{} {} ({})", model.id(), model.name(), model.quantisation());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Model {
    id: ModelId,
    name: String,
    architecture: String,
    quantisation: String,
    tokenizer: Tokenizer,
    /// A template that can't be used, with the reason, leaves a model for texts.
    template: Option<Result<ChatTemplate, String>>,
    transformer: Arc<Transformer>,
    /// For constraints; made beforehand or when the first offer has one.
    masking: OnceLock<Result<Arc<Vocabulary>, ConstraintError>>,
    pooling: Pooling,
}

/// What a model file's header says of it, without its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the file calls itself.
    pub name: String,
    /// One of [`ARCHITECTURES`].
    pub architecture: String,
    /// The format that most of the layers' weights have.
    pub quantisation: String,
    /// Positions that prompt and answer share.
    pub context_length: u32,
}

impl Model {
    /// What a file's header says, so that a model can be announced before it is opened.
    ///
    /// # Errors
    /// The architecture isn't supported, or a key is missing or of another type.
    pub fn facts(file: &Gguf) -> Result<Facts, ModelError> {
        let architecture = architecture(file)?;
        Ok(Facts {
            name: file.optional_str("general.name")?.unwrap_or(architecture).to_owned(),
            architecture: architecture.to_owned(),
            quantisation: quantisation(file).name().to_owned(),
            context_length: file.u32(&format!("{architecture}.context_length"))?,
        })
    }

    /// Opens a model file.
    ///
    /// # Errors
    /// The file can't be read, breaks a rule, or isn't supported; the error
    /// names key or tensor.
    pub fn open(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Arc<Self>, ModelError> {
        Self::from_gguf(&Gguf::open(path)?, options)
    }

    /// Builds a model from an open file.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_gguf(file: &Gguf, options: &LoadOptions) -> Result<Arc<Self>, ModelError> {
        Self::build(file, options, || file.id())
    }

    fn build(
        file: &Gguf,
        options: &LoadOptions,
        id: impl FnOnce() -> [u8; 32] + Send,
    ) -> Result<Arc<Self>, ModelError> {
        let architecture = architecture(file)?;
        // What keys, shapes and vocabulary get wrong is said before memory is taken for them.
        Tokenizer::check(file)?;
        Transformer::estimate(file)?;
        check_rows(file)?;
        let (id, text, transformer) = thread::scope(|scope| {
            let id = scope.spawn(id);
            let text = scope.spawn(|| text_side(file));
            let transformer = Transformer::load(file, options);
            (joined(id), joined(text), transformer)
        });
        let ((tokenizer, template), transformer) = (text?, transformer?);
        Ok(Arc::new(Self {
            id: ModelId::from_bytes(id),
            name: file.optional_str("general.name")?.unwrap_or(architecture).to_owned(),
            architecture: architecture.to_owned(),
            quantisation: quantisation(file).name().to_owned(),
            tokenizer,
            template,
            transformer: Arc::new(transformer),
            masking: OnceLock::new(),
            pooling: pooling(file, architecture)?,
        }))
    }

    /// Builds a part of a model, from a file of which only that part need be there.
    /// `id` is taken on trust: whoever puts such a file together has checked every
    /// stretch of it.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn part(file: &Gguf, id: ModelId, part: Part) -> Result<Arc<Self>, ModelError> {
        let options = LoadOptions { part, ..LoadOptions::default() };
        Self::build(file, &options, || *id.as_bytes())
    }

    /// BLAKE3 of the file.
    #[must_use]
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// What the file calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which positions make an embedding, where an offer leaves it to the model or says it.
    #[must_use]
    pub fn pooling(&self, asked: Option<wire::Pooling>) -> Pooling {
        match asked {
            Some(wire::Pooling::Mean) => Pooling::Mean,
            Some(wire::Pooling::Last) => Pooling::Last,
            Some(wire::Pooling::Model) | None => self.pooling,
        }
    }

    /// The architecture, one of [`ARCHITECTURES`].
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The format that most of the layers' weights have, e.g. `Q4_1`.
    #[must_use]
    pub fn quantisation(&self) -> &str {
        &self.quantisation
    }

    /// Positions that prompt and answer share.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.transformer.context_length()
    }

    /// Logits a step; token ids lie below it.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.transformer.vocabulary()
    }

    /// The tokens that end an answer.
    #[must_use]
    pub fn end_tokens(&self) -> &[u32] {
        self.tokenizer.end_tokens()
    }

    /// The lowest-numbered token that ends an answer; 0 in a model without one.
    pub(crate) fn first_end(&self) -> u32 {
        self.end_tokens().first().copied().unwrap_or(0)
    }

    /// Begins to make what constrained answers need of the vocabulary, on a thread
    /// that lets others go first. Whoever needs it before it is made waits for the
    /// rest; without this, the first constrained answer has to wait for all of it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn prepare_constraints(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let model = Arc::clone(self);
        let make = move || {
            crate::pool::let_others_go_first();
            // What is wrong with it, each constrained request is told.
            let _ = model.masking();
        };
        thread::Builder::new().name("vocabulary".into()).spawn(make)
    }

    /// Whether what constrained answers need of the vocabulary is made.
    #[must_use]
    pub fn has_prepared_constraints(&self) -> bool {
        self.masking.get().is_some()
    }

    fn masking(&self) -> &Result<Arc<Vocabulary>, ConstraintError> {
        self.masking.get_or_init(|| Vocabulary::of(&self.tokenizer))
    }

    /// The masks of an answer's constraint, from its beginning, if it has one.
    pub(crate) fn masks(&self, sampling: &Sampling) -> Result<Option<Masks>, ConstraintError> {
        let Some(constraint) = &sampling.constraint else { return Ok(None) };
        let source = Arc::new(Source::new(constraint)?);
        let vocabulary = self.masking().clone()?;
        Masks::start(source, &vocabulary).map(Some)
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template.
    ///
    /// # Errors
    /// The model has none, as base models do, or one that can't be used.
    pub fn template(&self) -> Result<&ChatTemplate, PromptError> {
        match &self.template {
            Some(Ok(template)) => Ok(template),
            Some(Err(reason)) => Err(PromptError::BadTemplate { reason: reason.clone() }),
            None => Err(PromptError::NoTemplate),
        }
    }

    /// The weights.
    #[must_use]
    pub fn transformer(&self) -> &Arc<Transformer> {
        &self.transformer
    }

    /// The token ids of a prompt: a chat goes through the template, a text is
    /// tokenized as it stands (control tokens spelled in it are plain text), ids
    /// are checked.
    ///
    /// # Errors
    /// The prompt is empty, or isn't one for this model.
    pub fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<u32>, PromptError> {
        let tokens = match prompt {
            Prompt::Chat(messages) => {
                let template = self.template()?;
                if messages.is_empty() {
                    return Err(PromptError::Empty);
                }
                let borrowed = messages
                    .iter()
                    .map(|message| ChatMessage { role: &message.role, content: &message.content });
                template.tokens(&self.tokenizer, &borrowed.collect::<Vec<_>>(), true)?
            }
            Prompt::Text(text) => self.text_tokens(text)?,
            Prompt::Tokens(ids) => ids.clone(),
        };
        self.check_tokens(&tokens)?;
        Ok(tokens)
    }

    /// Whether a prompt is not empty, within the vocabulary, and leaves room for
    /// an answer of `max_tokens` in the context.
    ///
    /// # Errors
    /// It isn't.
    pub fn check_fit(&self, prompt: &[u32], max_tokens: u32) -> Result<(), PromptError> {
        self.check_tokens(prompt)?;
        let expected = self.context_length();
        if prompt.len().saturating_add(max_tokens as usize) > expected {
            let (prompt, answer) = (prompt.len(), max_tokens);
            return Err(PromptError::TooLong { expected, prompt, answer });
        }
        Ok(())
    }

    /// Whether the tokens of an answer are within the vocabulary.
    ///
    /// # Errors
    /// One isn't.
    pub fn check_resume(&self, tokens: &[u32]) -> Result<(), PromptError> {
        let expected = self.vocabulary();
        match self.beyond(tokens) {
            Some(index) => Err(PromptError::Resumed { index, expected, got: tokens[index] }),
            None => Ok(()),
        }
    }

    fn text_tokens(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        let bos = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos());
        let mut tokens: Vec<u32> = bos.into_iter().collect();
        tokens.extend(self.tokenizer.encode(text, Special::Plain)?);
        Ok(tokens)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), PromptError> {
        let expected = self.vocabulary();
        if tokens.is_empty() {
            return Err(PromptError::Empty);
        }
        match self.beyond(tokens) {
            Some(index) => Err(PromptError::Token { index, expected, got: tokens[index] }),
            None => Ok(()),
        }
    }

    fn beyond(&self, tokens: &[u32]) -> Option<usize> {
        tokens.iter().position(|&token| token as usize >= self.vocabulary())
    }
}

fn architecture(file: &Gguf) -> Result<&str, ModelError> {
    let architecture = file.str(KEY_ARCHITECTURE)?;
    if ARCHITECTURES.contains(&architecture) {
        return Ok(architecture);
    }
    Err(ModelError::Architecture {
        expected: ARCHITECTURES.join(", "),
        got: architecture.chars().take(80).collect(),
    })
}

/// `pooling_type` of the file: 3 is the last position; any other, or none, the mean.
fn pooling(file: &Gguf, architecture: &str) -> Result<Pooling, ModelError> {
    let named = file.optional_u32(&format!("{architecture}.pooling_type"))?;
    Ok(if named == Some(POOLING_LAST) { Pooling::Last } else { Pooling::Mean })
}

/// What turns texts and chats into tokens. A template that can't be used is no
/// reason to refuse the model: texts are completed without one.
fn text_side(
    file: &Gguf,
) -> Result<(Tokenizer, Option<Result<ChatTemplate, String>>), TokenizerError> {
    let tokenizer = Tokenizer::from_gguf(file)?;
    let template = ChatTemplate::from_gguf(file, &tokenizer).transpose();
    let template = template.map(|made| made.map_err(|error| error.to_string()));
    Ok((tokenizer, template))
}

/// Whether every token has a row in the embedding.
fn check_rows(file: &Gguf) -> Result<(), ModelError> {
    let expected = file.tensor("token_embd.weight")?.rows();
    let got = file.strings("tokenizer.ggml.tokens")?.len() as u64;
    if got > expected { Err(ModelError::Vocabulary { expected, got }) } else { Ok(()) }
}

fn joined<T>(job: thread::ScopedJoinHandle<'_, T>) -> T {
    job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The format of most elements outside embedding and norms.
fn quantisation(file: &Gguf) -> GgmlType {
    let mut totals: Vec<(u64, GgmlType)> = GgmlType::all().map(|kind| (0, kind)).collect();
    for tensor in file.tensors().filter(|t| t.name.starts_with("blk.") && t.dims.len() > 1) {
        totals[tensor.kind as usize].0 += tensor.elements();
    }
    totals.into_iter().max_by_key(|(total, _)| *total).map_or(GgmlType::F32, |(_, kind)| kind)
}
