//! How fast a model runs here: prefill and decode, in tokens per second.

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
