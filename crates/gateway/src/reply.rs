//! Outcomes out, as OpenAI's objects: whole bodies and stream chunks.
//!
//! A [`Reply`] holds what all objects of one answer share (`id`, `created`,
//! `model`), so that no chunk can differ from another. Keys that clients read
//! are always there, as explicit nulls where empty. Order, timing and the
//! framing of chunks are not decided here.

use peerproof::client::{Outcome, TokenLogprobs};
use serde_json::{Value, json};

use crate::likelihood::Likelihood;
use crate::request::Shape;

/// What every object of one answer has in common.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: Option<String>,
    pub(crate) shape: Shape,
    pub(crate) include_usage: bool,
    /// Whether peer ids and failover trails are shown.
    pub(crate) expose_peers: bool,
}

/// A choice in full.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) text: String,
    /// One a token, if they were asked for.
    pub(crate) reports: Vec<TokenLogprobs>,
    pub(crate) outcome: Outcome,
}

/// Token counts over all choices; each prompt counts once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
}

impl Usage {
    /// Adds the choice with this index.
    pub(crate) fn add(&mut self, index: usize, choices_per_prompt: usize, outcome: &Outcome) {
        if index.is_multiple_of(choices_per_prompt) {
            self.prompt_tokens += u64::from(outcome.prompt_tokens);
        }
        self.completion_tokens += u64::from(outcome.output_tokens);
    }

    fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        })
    }
}

impl Reply {
    /// The chunk that opens a choice; text completions have none.
    pub(crate) fn opening(&self, index: usize) -> Option<Value> {
        match self.shape {
            Shape::Chat => {
                let delta = json!({"role": "assistant", "content": "", "refusal": null});
                Some(self.chunk(json!([chat_delta(index, delta, Value::Null, None)])))
            }
            Shape::Text => None,
        }
    }

    /// A piece of text, and how likely its tokens were.
    pub(crate) fn piece(&self, index: usize, text: &str, logprobs: Value) -> Value {
        let choice = match self.shape {
            Shape::Chat => chat_delta(index, json!({ "content": text }), logprobs, None),
            Shape::Text => text_choice(index, text, logprobs, None),
        };
        self.chunk(json!([choice]))
    }

    /// The one chunk of a choice with a finish reason; it exists only after
    /// the checks passed and carries their report.
    pub(crate) fn finish(&self, index: usize, outcome: &Outcome, logprobs: Value) -> Value {
        let choice = match self.shape {
            Shape::Chat => chat_delta(index, json!({}), logprobs, Some(outcome)),
            Shape::Text => text_choice(index, "", logprobs, Some(outcome)),
        };
        let mut chunk = self.chunk(json!([choice]));
        chunk["peerproof"] = self.peerproof(index, outcome);
        chunk
    }

    /// The chunk with the token counts, after all choices have finished.
    pub(crate) fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = usage.to_json();
        chunk
    }

    /// The whole answer at once, choices in the order of their index.
    pub(crate) fn body(&self, choices: &[Choice], usage: Usage) -> Value {
        let choice = |(index, choice): (usize, &Choice)| {
            let logprobs = Likelihood::new(self.shape).next(&choice.reports);
            let Choice { text, outcome, .. } = choice;
            match self.shape {
                Shape::Chat => json!({
                    "index": index,
                    "message": {"role": "assistant", "content": text, "refusal": null},
                    "logprobs": logprobs,
                    "finish_reason": outcome.finish_reason,
                }),
                Shape::Text => text_choice(index, text, logprobs, Some(outcome)),
            }
        };
        let mut reports =
            choices.iter().enumerate().map(|(i, choice)| self.peerproof(i, &choice.outcome));
        let mut body = self.object(match self.shape {
            Shape::Chat => "chat.completion",
            Shape::Text => "text_completion",
        });
        body["choices"] = choices.iter().enumerate().map(choice).collect();
        body["usage"] = usage.to_json();
        body["peerproof"] = reports.next().unwrap_or(Value::Null);
        let others: Vec<Value> = reports.collect();
        if !others.is_empty() {
            body["peerproof"]["others"] = others.into();
        }
        body
    }

    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = self.object(match self.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Text => "text_completion",
        });
        chunk["choices"] = choices;
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn object(&self, object: &str) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        })
    }

    /// What this network adds to an answer: the node's own [`Outcome`], in its
    /// own words, and the choice it belongs to.
    fn peerproof(&self, index: usize, outcome: &Outcome) -> Value {
        let mut report = json!(outcome);
        report["index"] = json!(index);
        if !self.expose_peers {
            report["provider"] = json!("");
            report["trail"] = json!([]);
            report["verification"]["detail"] = json!("");
        }
        report
    }
}

/// The arithmetic that all providers of the network compute in; two answers
/// with the same fingerprint, prompt, sampling and seed are the same bits.
const ARITHMETIC: &str = "z1";

/// `system_fingerprint`: the model's bytes and the arithmetic.
pub(crate) fn fingerprint(model_id: &str) -> String {
    let short: String = model_id.chars().take(16).collect();
    format!("fp_{short}_{ARITHMETIC}")
}

fn chat_delta(index: usize, delta: Value, logprobs: Value, outcome: Option<&Outcome>) -> Value {
    json!({
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": outcome.map(|o| o.finish_reason),
    })
}

fn text_choice(index: usize, text: &str, logprobs: Value, outcome: Option<&Outcome>) -> Value {
    json!({
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": outcome.map(|o| o.finish_reason),
    })
}
