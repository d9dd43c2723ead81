//! An answer as server-sent events.
//!
//! The response body pulls: each poll of the body asks the jobs for their next
//! event, so a slow client slows its own answer and nobody else's, and a body
//! that is dropped drops the jobs. Order of lines: one opening chunk for each
//! choice, pieces, one finishing chunk for each choice after its checks passed,
//! the token counts if they were asked for, `[DONE]`. A failure becomes one
//! error object and then the end, without `[DONE]`. There is no task and no
//! channel.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::Value;

use crate::answer::{Next, Running};
use crate::error::ApiError;
use crate::likelihood::Likelihood;
use crate::reply::{Reply, Usage};

/// Waits until every choice has a provider, for at most `patience`, so that an
/// early failure can still have its own status line. Returns what came in.
///
/// # Errors
/// What failed.
pub(crate) async fn head(running: &mut Running, patience: Duration) -> Result<Vec<Next>, ApiError> {
    let deadline = Instant::now() + patience;
    let mut early = Vec::new();
    let mut accepted = 0;
    while accepted < running.choices() {
        match running.next(deadline.saturating_duration_since(Instant::now())).await {
            Next::Failed(error) => return Err(error),
            Next::Silence => break,
            Next::Reading(..) => {}
            // A piece means that the provider is at work: the client should not wait.
            next @ Next::Text(..) => {
                early.push(next);
                break;
            }
            next => {
                accepted += 1;
                early.push(next);
            }
        }
    }
    Ok(early)
}

/// The body of a stream.
pub(crate) fn body(
    reply: Reply,
    running: Running,
    early: Vec<Next>,
    choices_per_prompt: usize,
    keep_alive: Duration,
) -> Body {
    let mut events = Sse {
        opened: vec![false; running.choices()],
        likelihoods: vec![Likelihood::new(reply.shape); running.choices()],
        reply,
        running: Some(running),
        lines: VecDeque::new(),
        usage: Usage::default(),
        choices_per_prompt,
        keep_alive,
    };
    early.into_iter().for_each(|next| events.write(next));
    Body::from_stream(stream::unfold(events, |mut events| async {
        let line = events.next().await?;
        Some((Ok::<Bytes, Infallible>(line), events))
    }))
}

struct Sse {
    reply: Reply,
    /// Gone once the last line is written.
    running: Option<Running>,
    opened: Vec<bool>,
    likelihoods: Vec<Likelihood>,
    lines: VecDeque<Bytes>,
    usage: Usage,
    choices_per_prompt: usize,
    keep_alive: Duration,
}

impl Sse {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let next = self.running.as_mut()?.next(self.keep_alive).await;
            self.write(next);
        }
    }

    fn write(&mut self, next: Next) {
        match next {
            Next::Started(index) => self.open(index),
            Next::Text(index, text, reports) => {
                self.open(index);
                let logprobs = self.likelihoods[index].next(&reports);
                self.data(&self.reply.piece(index, &text, logprobs));
            }
            Next::Done(index, outcome, reports) => {
                self.open(index);
                self.usage.add(index, self.choices_per_prompt, &outcome);
                let logprobs = self.likelihoods[index].next(&reports);
                self.data(&self.reply.finish(index, &outcome, logprobs));
                self.close_if_finished();
            }
            // A comment: for people who look, and for proxies that close what is silent.
            Next::Reading(read, of) => {
                let line = format!(": reading the prompt, {read} of {of} tokens\n\n");
                self.lines.push_back(Bytes::from(line));
            }
            Next::Silence => self.lines.push_back(Bytes::from_static(b": keep-alive\n\n")),
            Next::Failed(error) => {
                self.data(&error.to_json());
                self.running = None;
            }
        }
    }

    fn open(&mut self, index: usize) {
        if !std::mem::replace(&mut self.opened[index], true)
            && let Some(chunk) = self.reply.opening(index)
        {
            self.data(&chunk);
        }
    }

    fn close_if_finished(&mut self) {
        if self.running.as_ref().is_some_and(Running::finished) {
            if self.reply.include_usage {
                self.data(&self.reply.usage(self.usage));
            }
            self.lines.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
            self.running = None;
        }
    }

    fn data(&mut self, value: &Value) {
        self.lines.push_back(Bytes::from(format!("data: {value}\n\n")));
    }
}
