//! How fast a model runs here: prefill, decode and batches, in tokens per second.
//!
//! Only the forward pass runs: no queue, no sampling, no hashing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::forward::{ForwardError, Item, Runner};
use crate::kernels::KernelPath;
use crate::kv::Kv;
use crate::transformer::Transformer;

/// What [`speed`] measured.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Prompt tokens computed at once.
    pub prompt_tokens: usize,
    /// How long they took.
    pub prompt: Duration,
    /// Tokens computed one by one after them.
    pub decode_tokens: usize,
    /// How long those took.
    pub decode: Duration,
}

impl Speed {
    /// Prompt tokens per second.
    #[must_use]
    pub fn prompt_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prompt.as_secs_f64()
    }

    /// Decoded tokens per second.
    #[must_use]
    pub fn decode_rate(&self) -> f64 {
        self.decode_tokens as f64 / self.decode.as_secs_f64()
    }
}

/// Runs a prompt of `prompt_tokens`, then decodes `decode_tokens` greedily.
///
/// # Errors
/// The processor lacks the path, or the tokens don't fit the context.
pub fn speed(
    model: &Arc<Transformer>,
    threads: usize,
    path: KernelPath,
    prompt_tokens: usize,
    decode_tokens: usize,
) -> Result<Speed, ForwardError> {
    let mut runner = Runner::new(Arc::clone(model), threads, path)?;
    let mut kv = Kv::new(model, prompt_tokens + decode_tokens + 1);
    // Any tokens do: the arithmetic takes as long for each.
    let token = |at: usize| (at * 7919 % model.vocabulary()) as u32;
    let item = |at: usize, logits| Item { sequence: 0, token: token(at), logits };
    runner.forward(&mut [&mut kv], &[item(0, true)], &mut |_, _| ())?;
    kv.truncate(0);
    let items: Vec<Item> = (0..prompt_tokens).map(|at| item(at, at + 1 == prompt_tokens)).collect();
    let mut next = 0;
    let mut greedy = |_, output: crate::forward::Output<'_>| {
        if let Some(logits) = output.logits {
            next = crate::sample::greedy(logits);
        }
    };
    let start = Instant::now();
    runner.forward(&mut [&mut kv], &items, &mut greedy)?;
    let prompt = start.elapsed();
    let start = Instant::now();
    for _ in 0..decode_tokens {
        let mut chosen = next;
        let item = Item { sequence: 0, token: next, logits: true };
        runner.forward(&mut [&mut kv], &[item], &mut |_, output| {
            if let Some(logits) = output.logits {
                chosen = crate::sample::greedy(logits);
            }
        })?;
        next = chosen;
    }
    Ok(Speed { prompt_tokens, prompt, decode_tokens, decode: start.elapsed() })
}

/// What [`batch`] measured.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Sequences computed together.
    pub sequences: usize,
    /// Prompt tokens of all.
    pub prompt_tokens: usize,
    /// How long they took.
    pub prompt: Duration,
    /// Answer tokens of all.
    pub answer_tokens: usize,
    /// How long those took.
    pub answer: Duration,
}

impl Batch {
    /// Prompt and answer tokens per second.
    #[must_use]
    pub fn total_rate(&self) -> f64 {
        let tokens = self.prompt_tokens + self.answer_tokens;
        tokens as f64 / (self.prompt + self.answer).as_secs_f64()
    }

    /// Answer tokens per second, while answers are made.
    #[must_use]
    pub fn answer_rate(&self) -> f64 {
        self.answer_tokens as f64 / self.answer.as_secs_f64()
    }
}

/// Runs `sequences` prompts, then decodes an answer of each, a token of all sequences at a time.
///
/// # Errors
/// The processor lacks the path, or the tokens don't fit the context.
pub fn batch(
    model: &Arc<Transformer>,
    (threads, path): (usize, KernelPath),
    sequences: usize,
    (prompt, answer): (usize, usize),
) -> Result<Batch, ForwardError> {
    let mut runner = Runner::new(Arc::clone(model), threads, path)?;
    let mut caches: Vec<Kv> = (0..sequences).map(|_| Kv::new(model, prompt + answer)).collect();
    let mut caches: Vec<&mut Kv> = caches.iter_mut().collect();
    // Each sequence has tokens of its own.
    let token =
        |sequence: usize, at: usize| ((at * 7919 + sequence * 104_729) % model.vocabulary()) as u32;
    runner.forward(&mut caches, &[Item { sequence: 0, token: 0, logits: true }], &mut |_, _| ())?;
    caches[0].truncate(0);
    let items = |sequence| {
        (0..prompt).map(move |at| Item {
            sequence,
            token: token(sequence, at),
            logits: at + 1 == prompt,
        })
    };
    let items: Vec<Item> = (0..sequences).flat_map(items).collect();
    let mut next = Vec::with_capacity(sequences);
    let start = Instant::now();
    runner.forward(&mut caches, &items, &mut |_, output| {
        next.extend(output.logits.map(crate::sample::greedy));
    })?;
    let prompt_time = start.elapsed();
    let start = Instant::now();
    for _ in 0..answer {
        let item = |(sequence, &token): (usize, &u32)| Item { sequence, token, logits: true };
        let items: Vec<Item> = next.iter().enumerate().map(item).collect();
        next.clear();
        runner.forward(&mut caches, &items, &mut |_, output| {
            next.extend(output.logits.map(crate::sample::greedy));
        })?;
    }
    Ok(Batch {
        sequences,
        prompt_tokens: sequences * prompt,
        prompt: prompt_time,
        answer_tokens: sequences * answer,
        answer: start.elapsed(),
    })
}
