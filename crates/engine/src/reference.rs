//! A plain float forward pass of the same file, and what the integers cost
//! against it.
//!
//! The only module of the forward pass that computes with floats: every tensor
//! is dequantised to `f32`, products are summed in `f32` by lanes and the rest
//! in `f64`, one layer after the other over the whole text at once. It is slow,
//! simple, and shares no code with the integer pass. [`compare`] runs both over
//! a text and reports perplexity, divergence and agreement.

mod dequantise;
mod pass;
mod rope;

use std::sync::Arc;

use crate::arith::LOGIT_BITS;
use crate::forward::{ForwardError, Item, Runner};
use crate::gguf::Gguf;
use crate::kernels::KernelPath;
use crate::kv::Kv;
use crate::transformer::Transformer;
use crate::weights::LoadError;

use pass::Pass;

pub use dequantise::weight_error;

/// What the integer pass costs against the float one, over one text.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Quality {
    /// Tokens predicted.
    pub tokens: usize,
    /// Perplexity of the float pass.
    pub reference_perplexity: f64,
    /// Perplexity of the integer pass.
    pub perplexity: f64,
    /// Mean Kullback-Leibler divergence from the float pass, in nats.
    pub divergence: f64,
    /// Share of positions with the same most probable token.
    pub same_best: f64,
}

impl Quality {
    /// Relative change of the perplexity; positive is worse.
    #[must_use]
    pub fn perplexity_change(&self) -> f64 {
        self.perplexity / self.reference_perplexity - 1.0
    }
}

/// Why a comparison failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A tensor is missing or has another shape or format.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The text doesn't fit the model.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Too few tokens to predict one.
    #[error("a comparison needs at least 2 tokens, got {0}")]
    Short(usize),
}

/// Runs both passes over `tokens` and compares every prediction.
///
/// # Errors
/// A tensor can't be read as floats, or the tokens don't fit.
pub fn compare(
    gguf: &Gguf,
    model: &Arc<Transformer>,
    tokens: &[u32],
    threads: usize,
) -> Result<Quality, CompareError> {
    if tokens.len() < 2 {
        return Err(CompareError::Short(tokens.len()));
    }
    // The integer pass goes first: it checks the tokens.
    let mut runner = Runner::new(Arc::clone(model), threads, KernelPath::best())?;
    let mut kv = Kv::new(model, tokens.len());
    let items: Vec<Item> =
        tokens.iter().map(|&token| Item { sequence: 0, token, logits: true }).collect();
    let mut measured = Vec::with_capacity(tokens.len());
    let mut whole = Vec::new();
    let pass = Pass::new(gguf, *model.shape(), model.family, threads)?;
    let float = pass.states(tokens)?;
    let head = pass.head()?;
    let chunk = 16;
    for (at, items) in items.chunks(chunk).enumerate() {
        whole.clear();
        runner.forward(&mut [&mut kv], items, &mut |_, output| {
            whole.push(output.logits.map(<[i32]>::to_vec).unwrap_or_default());
        })?;
        let width = model.shape().width;
        let rows = &float[at * chunk * width..][..items.len() * width];
        let logits = pass.logits(&head, rows);
        for (row, (integer, float)) in whole.iter().zip(logits.chunks_exact(head.rows)).enumerate()
        {
            let Some(&target) = tokens.get(at * chunk + row + 1) else { break };
            let scale = f64::from(1u32 << LOGIT_BITS);
            let integer: Vec<f64> = integer.iter().map(|&l| f64::from(l) / scale).collect();
            let float: Vec<f64> = float.iter().map(|&l| f64::from(l)).collect();
            measured.push(Point::of(&float, &integer, target as usize));
        }
    }
    Ok(summary(&measured))
}

/// One prediction by both passes.
struct Point {
    reference_loss: f64,
    loss: f64,
    divergence: f64,
    same: bool,
}

impl Point {
    fn of(float: &[f64], integer: &[f64], target: usize) -> Self {
        let (p, q) = (log_softmax(float), log_softmax(integer));
        Self {
            reference_loss: -p[target],
            loss: -q[target],
            divergence: p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum(),
            same: best(float) == best(integer),
        }
    }
}

fn summary(points: &[Point]) -> Quality {
    let n = points.len() as f64;
    let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / n;
    Quality {
        tokens: points.len(),
        reference_perplexity: mean(|p| p.reference_loss).exp(),
        perplexity: mean(|p| p.loss).exp(),
        divergence: mean(|p| p.divergence),
        same_best: mean(|p| f64::from(u8::from(p.same))),
    }
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log = logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln() + max;
    logits.iter().map(|l| l - log).collect()
}

fn best(logits: &[f64]) -> usize {
    (0..logits.len()).fold(0, |best, at| if logits[at] > logits[best] { at } else { best })
}
