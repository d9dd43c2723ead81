//! JSON in, [`JobSpec`]s out: the one place where a request is parsed.
//!
//! A body is read into a JSON object once; each parameter is then taken by
//! name, checked, and turned into the network's terms. Three rules decide what
//! happens to a parameter: what the engine honours is honoured exactly; what
//! would change the answer and is not honoured is refused by name
//! ([`refused`]); what cannot change the answer is ignored. `null` means
//! absent. Nothing here looks at the network or at a clock.

mod chat;
mod completion;
mod embedding;
mod fields;
mod format;
mod options;
mod refused;
mod sampling;

use peerproof::client::{JobSpec, Preference, Prompt, Sampling, Verification};
use serde_json::{Map, Value};

use crate::error::ApiError;
use fields::Fields;

pub(crate) use embedding::Embed;

/// Most choices one request may ask for, over all its prompts.
pub(crate) const MAX_CHOICES: usize = 8;

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
const MAX_MODEL_BYTES: usize = 256;

/// Which of the two endpoints, hence which object names and shapes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// A request in the network's terms.
#[derive(Debug)]
pub(crate) struct Asked {
    /// One job for each choice, in the order of `index`.
    pub(crate) jobs: Vec<JobSpec>,
    /// Choices that share one prompt and stand together in `jobs`.
    pub(crate) choices_per_prompt: usize,
    /// The model as the client named it.
    pub(crate) model: String,
    pub(crate) shape: Shape,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl Asked {
    /// Parses a body for one of the two endpoints; `default` is how to check
    /// an answer when the body does not say.
    ///
    /// # Errors
    /// Status 400, naming the parameter.
    pub(crate) fn parse(
        shape: Shape,
        body: &[u8],
        default: &Verification,
    ) -> Result<Asked, ApiError> {
        let object: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
            ApiError::malformed(format!("the body is not a JSON object: {error}"))
        })?;
        let fields = Fields::top(&object);
        refused::check(shape, &object)?;
        let prompts = match shape {
            Shape::Chat => vec![Prompt::Chat(chat::messages(&fields)?)],
            Shape::Text => completion::prompts(&fields, "prompt", MAX_CHOICES)?,
        };
        let choices_per_prompt =
            fields.unsigned("n", 1..=MAX_CHOICES as u64)?.unwrap_or(1) as usize;
        if prompts.len() * choices_per_prompt > MAX_CHOICES {
            let message = format!("at most {MAX_CHOICES} choices over all prompts");
            return Err(ApiError::invalid("n", message));
        }
        let common = Common::parse(shape, &fields, default)?;
        let stream_options = fields.object("stream_options")?;
        let include_usage = match stream_options {
            Some(options) => options.boolean("include_usage")?.unwrap_or(false),
            None => false,
        };
        Ok(Asked {
            model: common.model.clone(),
            jobs: common.jobs(prompts, choices_per_prompt),
            choices_per_prompt,
            shape,
            stream: fields.boolean("stream")?.unwrap_or(false),
            include_usage,
        })
    }

    /// The parameter that holds the prompt, for error messages.
    pub(crate) fn prompt_param(&self) -> &'static str {
        match self.shape {
            Shape::Chat => "messages",
            Shape::Text => "prompt",
        }
    }
}

/// What both endpoints share.
struct Common {
    model: String,
    sampling: Sampling,
    max_tokens: Option<u32>,
    stop: Vec<String>,
    seed: Option<i64>,
    verification: Verification,
    preference: Preference,
}

impl Common {
    fn parse(
        shape: Shape,
        fields: &Fields<'_>,
        default: &Verification,
    ) -> Result<Common, ApiError> {
        Ok(Common {
            model: model(fields)?,
            sampling: sampling::parse(shape, fields)?,
            max_tokens: max_tokens(fields)?,
            stop: stop(fields)?,
            seed: fields.integer("seed")?,
            verification: options::verification(fields, default)?,
            preference: options::preference(fields)?,
        })
    }

    /// One job for each choice. Choices of one prompt share a seed and differ
    /// in their number: the first is what the same request with `n: 1` gives.
    fn jobs(self, prompts: Vec<Prompt>, choices_per_prompt: usize) -> Vec<JobSpec> {
        let mut jobs = Vec::with_capacity(prompts.len() * choices_per_prompt);
        for prompt in prompts {
            for choice in 0..choices_per_prompt {
                jobs.push(JobSpec {
                    model: self.model.clone(),
                    prompt: prompt.clone(),
                    sampling: self.sampling.clone(),
                    max_tokens: self.max_tokens,
                    stop: self.stop.clone(),
                    seed: self.seed,
                    choice: choice as u32,
                    verification: self.verification.clone(),
                    preference: self.preference.clone(),
                    embed: None,
                });
            }
        }
        jobs
    }
}

fn model(fields: &Fields<'_>) -> Result<String, ApiError> {
    match fields.string("model")? {
        None | Some("") => {
            Err(ApiError::invalid("model", "a model is required; GET /v1/models lists them"))
        }
        Some(name) if name.len() > MAX_MODEL_BYTES => {
            Err(ApiError::invalid("model", format!("at most {MAX_MODEL_BYTES} bytes")))
        }
        Some(name) => Ok(name.to_owned()),
    }
}

fn max_tokens(fields: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    let range = 1..=u64::from(u32::MAX);
    let old = fields.unsigned("max_tokens", range.clone())?;
    let new = fields.unsigned("max_completion_tokens", range)?;
    match (old, new) {
        (Some(a), Some(b)) if a != b => {
            let message = format!("differs from max_completion_tokens: {a} and {b}");
            Err(ApiError::invalid("max_tokens", message))
        }
        (old, new) => Ok(old.or(new).map(|limit| limit as u32)),
    }
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let stops = match fields.present("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(one)) => vec![one.clone()],
        Some(_) => fields.strings("stop", MAX_STOPS)?,
    };
    for (i, text) in stops.iter().enumerate() {
        if text.is_empty() || text.len() > MAX_STOP_BYTES {
            let message = format!("a stop string has 1 to {MAX_STOP_BYTES} bytes");
            return Err(ApiError::invalid(format!("stop[{i}]"), message));
        }
    }
    Ok(stops)
}

#[cfg(test)]
mod tests;
