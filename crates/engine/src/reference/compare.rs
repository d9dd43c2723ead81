//! Both passes over a text: what each predicts, and how far they are apart.
//!
//! A [`Comparer`] holds the float pass and one integer runner. A context goes
//! through both, [`HEAD_ROWS`] positions of logits at a time, since a large
//! vocabulary's logits of a whole context would fill the memory. What is kept
//! is a [`Prediction`] a position; [`Quality`] is the summary of any of them.

use std::sync::Arc;

use super::Reference;
use crate::arith::LOGIT_BITS;
use crate::forward::{ForwardError, Item, Runner};
use crate::gguf::Gguf;
use crate::kernels::KernelPath;
use crate::kv::Kv;
use crate::transformer::Transformer;
use crate::weights::LoadError;

/// Positions whose logits exist at once.
const HEAD_ROWS: usize = 64;

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
    /// The summary of predictions; of none, every figure is NaN.
    #[must_use]
    pub fn of<'a>(predictions: impl Iterator<Item = &'a Prediction> + Clone) -> Self {
        let tokens = predictions.clone().count();
        let mean =
            |of: fn(&Prediction) -> f64| predictions.clone().map(of).sum::<f64>() / tokens as f64;
        Self {
            tokens,
            reference_perplexity: mean(|p| p.reference_loss).exp(),
            perplexity: mean(|p| p.loss).exp(),
            divergence: mean(|p| p.divergence),
            same_best: mean(|p| f64::from(u8::from(p.same_best))),
        }
    }

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

/// One prediction by both passes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Prediction {
    /// Surprise of the float pass at the token that comes, in nats.
    pub reference_loss: f64,
    /// Surprise of the integer pass at it, in nats.
    pub loss: f64,
    /// Kullback-Leibler divergence from the float pass, in nats.
    pub divergence: f64,
    /// Whether both find the same token most probable.
    pub same_best: bool,
}

impl Prediction {
    fn of(float: &[f32], integer: &[i32], target: usize) -> Self {
        let scale = 1.0 / f64::from(1u32 << LOGIT_BITS);
        let p = Softmax::of(float.iter().map(|&l| f64::from(l)));
        let q = Softmax::of(integer.iter().map(|&l| f64::from(l) * scale));
        // Sum of p (ln p - ln q), with the constants taken out of the sum.
        let sum: f64 = float
            .iter()
            .zip(integer)
            .map(|(&a, &b)| (f64::from(a), f64::from(b) * scale))
            .map(|(a, b)| (a - p.max).exp() * ((a - p.max) - (b - q.max)))
            .sum();
        Self {
            reference_loss: p.log_total - (f64::from(float[target]) - p.max),
            loss: q.log_total - (f64::from(integer[target]) * scale - q.max),
            divergence: sum / p.log_total.exp() + q.log_total - p.log_total,
            same_best: p.best == q.best,
        }
    }
}

/// What turns logits into logarithms of probabilities.
struct Softmax {
    max: f64,
    best: usize,
    /// Logarithm of the sum of `exp(logit - max)`.
    log_total: f64,
}

impl Softmax {
    fn of(logits: impl Iterator<Item = f64> + Clone) -> Self {
        let first = (0, f64::NEG_INFINITY);
        let (best, max) = logits
            .clone()
            .enumerate()
            .fold(first, |best, next| if next.1 > best.1 { next } else { best });
        let log_total = logits.map(|l| (l - max).exp()).sum::<f64>().ln();
        Self { max, best, log_total }
    }
}

/// Takes the float pass's logits of a position, in order.
pub type Watch<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// Both passes of one model, for one context after the other.
#[derive(Debug)]
pub struct Comparer<'a> {
    reference: &'a Reference<'a>,
    runner: Runner,
}

impl<'a> Comparer<'a> {
    /// A comparer whose integer pass has `threads` threads; the float pass has one.
    ///
    /// # Errors
    /// The head can't be read, or this processor lacks the kernel path.
    pub fn new(
        reference: &'a Reference<'a>,
        threads: usize,
        path: KernelPath,
    ) -> Result<Self, CompareError> {
        let runner = Runner::new(Arc::clone(&reference.model), threads, path)?;
        Ok(Self { reference, runner })
    }

    /// Runs both passes over `tokens` as one context; a prediction for each but the first.
    ///
    /// # Errors
    /// The file can't be read, or the tokens don't fit the model.
    pub fn compare(
        &mut self,
        tokens: &[u32],
        watch: Watch<'_>,
    ) -> Result<Vec<Prediction>, CompareError> {
        let Some((_, targets)) = tokens.split_first().filter(|(_, rest)| !rest.is_empty()) else {
            return Err(CompareError::Short(tokens.len()));
        };
        let model = Arc::clone(&self.reference.model);
        let (vocabulary, width) = (model.vocabulary(), model.shape().width);
        let mut kv = Kv::new(&model, tokens.len());
        let items: Vec<Item> =
            tokens.iter().map(|&token| Item { sequence: 0, token, logits: true }).collect();
        let mut predictions = Vec::with_capacity(targets.len());
        // The integer pass goes first: it checks the tokens.
        let mut states = None;
        for (part, items) in items.chunks(HEAD_ROWS).enumerate() {
            let mut integer = Vec::with_capacity(items.len() * vocabulary);
            self.runner.forward(&mut [&mut kv], items, &mut |_, output| {
                integer.extend_from_slice(output.logits.unwrap_or_default());
            })?;
            if states.is_none() {
                states = Some(self.reference.pass.states(tokens)?);
            }
            let states = states.as_deref().unwrap_or_default();
            let first = part * HEAD_ROWS;
            let states = &states[first * width..][..items.len() * width];
            let float = self.reference.pass.logits(states)?;
            let rows = float.chunks_exact(vocabulary).zip(integer.chunks_exact(vocabulary));
            for (at, (float, integer)) in rows.enumerate() {
                let Some(&target) = targets.get(first + at) else { break };
                watch(first + at, float);
                predictions.push(Prediction::of(float, integer, target as usize));
            }
        }
        Ok(predictions)
    }
}

/// Runs both passes over `tokens` as one context and sums up.
///
/// # Errors
/// The file can't be read, or the tokens don't fit the model.
pub fn compare(
    gguf: &Gguf,
    model: &Arc<Transformer>,
    tokens: &[u32],
    threads: usize,
) -> Result<Quality, CompareError> {
    let reference = Reference::new(gguf, Arc::clone(model))?;
    let mut comparer = Comparer::new(&reference, threads, KernelPath::best())?;
    let predictions = comparer.compare(tokens, &mut |_, _| ())?;
    Ok(Quality::of(predictions.iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_measured_as_defined() {
        let float = [0.5f32, -1.25, 3.0, 0.0];
        let integer = [600, -1200, 3000, 2950];
        let got = Prediction::of(&float, &integer, 3);
        let shares = |logits: Vec<f64>| {
            let total: f64 = logits.iter().map(|l| l.exp()).sum();
            logits.iter().map(|l| l.exp() / total).collect::<Vec<f64>>()
        };
        let p = shares(float.iter().map(|&l| f64::from(l)).collect());
        let q = shares(integer.iter().map(|&l| f64::from(l) / 1024.0).collect());
        let divergence: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        assert!((got.divergence - divergence).abs() < 1e-12, "{got:?}, {divergence}");
        assert!((got.reference_loss + p[3].ln()).abs() < 1e-12);
        assert!((got.loss + q[3].ln()).abs() < 1e-12);
        assert!(got.same_best);
        assert!(!Prediction::of(&float, &[0, 0, 0, 1], 0).same_best);
    }

    #[test]
    fn a_summary_is_a_mean_over_predictions() {
        let one = |loss, divergence, same_best| Prediction {
            reference_loss: 1.0,
            loss,
            divergence,
            same_best,
        };
        let all = [one(1.0, 0.0, true), one(2.0, 0.5, false)];
        let quality = Quality::of(all.iter());
        assert_eq!((quality.tokens, quality.divergence, quality.same_best), (2, 0.25, 0.5));
        assert!((quality.perplexity_change() - (0.5f64.exp() - 1.0)).abs() < 1e-12);
    }
}
