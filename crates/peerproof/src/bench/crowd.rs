//! Many requests to one service at once.
//!
//! All prompts are handed over before any is answered, as from so many clients;
//! each answer's events are timed as they come. Deliberately absent: the network.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use peerproof_engine::model::Model;
use peerproof_engine::service::{Event, Job, Service, ServiceOptions};
use peerproof_engine::tokenizer::Special;
use peerproof_engine::transformer::LoadOptions;
use peerproof_wire::{Digest, Sampling};

use super::{BenchError, engine};

/// A service for so many requests at once.
#[derive(Debug)]
pub struct Crowd {
    model: Arc<Model>,
    service: Service,
}

/// How all the requests together were served.
#[derive(Clone, Debug)]
pub struct Served {
    /// From the first request to the last token.
    pub whole: Duration,
    /// From the first request to each answer's first token, in no order.
    pub first_tokens: Vec<Duration>,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens of all answers; an answer that the model ends early has fewer.
    pub answer_tokens: usize,
}

impl Served {
    /// Prompt and answer tokens a second.
    #[must_use]
    pub fn total_rate(&self) -> f64 {
        (self.prompt_tokens + self.answer_tokens) as f64 / self.whole.as_secs_f64()
    }
}

/// What a sink says about its answer.
enum Told {
    Token { index: u32, at: Instant },
    Refused(String),
}

impl Crowd {
    /// Opens the model and starts a service for `requests` at once.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn open(path: &Path, threads: usize, requests: usize) -> Result<Crowd, BenchError> {
        let failed = |message: String| BenchError::Model { path: path.to_owned(), message };
        let model =
            Model::open(path, &LoadOptions::default()).map_err(|e| failed(e.to_string()))?;
        let options = ServiceOptions {
            threads,
            max_active: requests,
            max_queued: requests,
            ..ServiceOptions::default()
        };
        let service = Service::start(Arc::clone(&model), &options).map_err(engine("service"))?;
        Ok(Crowd { model, service })
    }

    /// Asks `requests` things at once, each a prompt of so many tokens from another place of
    /// `text`, for a greedy answer of at most so many.
    ///
    /// # Errors
    /// The text is too short, or the service refuses.
    pub fn ask(
        &self,
        text: &str,
        requests: usize,
        (prompt, answer): (usize, u32),
    ) -> Result<Served, BenchError> {
        let tokens = self.model.tokenizer().encode(text, Special::Plain).map_err(engine("text"))?;
        let expected = prompt + requests;
        if tokens.len() < expected {
            return Err(BenchError::Short { expected, got: tokens.len() });
        }
        let apart = (tokens.len() - prompt) / requests;
        let (sender, told) = mpsc::channel();
        let start = Instant::now();
        for request in 0..requests {
            let prompt = tokens[request * apart..][..prompt].to_vec();
            let sender = sender.clone();
            let tell = move |event| {
                let said = match event {
                    Event::Token { index, .. } => Told::Token { index, at: Instant::now() },
                    Event::Refused(refusal) => Told::Refused(refusal.to_string()),
                    _ => return ControlFlow::Continue(()),
                };
                sender.send(said).map_or(ControlFlow::Break(()), ControlFlow::Continue)
            };
            let job = job(request, prompt, answer);
            self.service.submit(job, Box::new(tell)).map_err(engine("answer"))?;
        }
        // The channel ends with the last answer.
        drop(sender);
        let mut served = Served {
            whole: Duration::ZERO,
            first_tokens: Vec::with_capacity(requests),
            prompt_tokens: requests * prompt,
            answer_tokens: 0,
        };
        for said in told {
            match said {
                Told::Token { index, at } => {
                    served.whole = served.whole.max(at - start);
                    served.answer_tokens += 1;
                    if index == 0 {
                        served.first_tokens.push(at - start);
                    }
                }
                Told::Refused(message) => return Err(engine("answer")(message)),
            }
        }
        Ok(served)
    }
}

fn job(request: usize, prompt: Vec<u32>, max_tokens: u32) -> Job {
    Job {
        key: Digest::from_bytes([request as u8; 32]),
        seed: Digest::from_bytes([2; 32]),
        prompt,
        resume: Vec::new(),
        sampling: Sampling::GREEDY,
        max_tokens,
        stop: Vec::new(),
        // Every request is a client of its own: none gains from another's prompt.
        salt: Digest::from_bytes([request as u8; 32]),
    }
}
