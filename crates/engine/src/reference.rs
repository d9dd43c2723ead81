//! A plain float forward pass of the same file, and what the integers cost
//! against it.
//!
//! The only module of the forward pass that computes with floats: every tensor
//! is dequantised to `f32`, products are summed in `f32` by lanes and the rest
//! in `f64`, one layer after the other over the whole text at once. It is slow,
//! simple, and shares no code with the integer pass. [`compare`] runs both over
//! a text and reports perplexity, divergence and agreement.

mod dequantise;

use std::sync::Arc;

use crate::arith::LOGIT_BITS;
use crate::forward::{ForwardError, Item, Runner};
use crate::gguf::Gguf;
use crate::kernels::KernelPath;
use crate::kv::Kv;
use crate::transformer::{Shape, Transformer};
use crate::weights::LoadError;

use dequantise::dequantise;

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
/// The file can't be read as a Llama model, or the tokens don't fit.
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
    let float = states(gguf, model, tokens, threads)?;
    let head = Weights::read(
        gguf,
        if gguf.optional_tensor("output.weight").is_some() {
            "output.weight"
        } else {
            "token_embd.weight"
        },
    )?;
    let chunk = 16;
    for (at, items) in items.chunks(chunk).enumerate() {
        whole.clear();
        runner.forward(&mut [&mut kv], items, &mut |_, output| {
            whole.push(output.logits.map(<[i32]>::to_vec).unwrap_or_default());
        })?;
        let width = model.shape().width;
        let rows = &float[at * chunk * width..][..items.len() * width];
        let logits = head.multiply(rows, threads);
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

/// A dequantised matrix.
struct Weights {
    values: Vec<f32>,
    cols: usize,
    rows: usize,
}

impl Weights {
    fn read(gguf: &Gguf, name: &str) -> Result<Self, LoadError> {
        let tensor = gguf.tensor(name)?;
        let (cols, rows) = (tensor.row_len() as usize, tensor.rows() as usize);
        Ok(Self { values: dequantise(&tensor)?, cols, rows })
    }

    /// Row-major product of every input row with every weight row.
    fn multiply(&self, inputs: &[f32], threads: usize) -> Vec<f32> {
        let count = inputs.len() / self.cols;
        let mut out = vec![0f32; count * self.rows];
        let share = self.rows.div_ceil(threads.max(1));
        let parts: Vec<(usize, Vec<f32>)> = std::thread::scope(|scope| {
            let work = |first: usize| {
                let rows = first..(first + share).min(self.rows);
                let product = rows.flat_map(|row| {
                    let weights = &self.values[row * self.cols..][..self.cols];
                    inputs.chunks_exact(self.cols).map(move |input| dot(weights, input))
                });
                (first, product.collect())
            };
            let handles: Vec<_> = (0..self.rows)
                .step_by(share)
                .map(|first| scope.spawn(move || work(first)))
                .collect();
            handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
        });
        for (first, part) in parts {
            for (row, values) in part.chunks_exact(count).enumerate() {
                for (at, &value) in values.iter().enumerate() {
                    out[at * self.rows + first + row] = value;
                }
            }
        }
        out
    }
}

/// A dot product in 16 lanes, so that it vectorises.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Final states of all positions, normalised: what the head multiplies.
fn states(
    gguf: &Gguf,
    model: &Transformer,
    tokens: &[u32],
    threads: usize,
) -> Result<Vec<f32>, LoadError> {
    let shape = *model.shape();
    let embedding = Weights::read(gguf, "token_embd.weight")?;
    let row =
        |&token: &u32| embedding.values[token as usize * shape.width..][..shape.width].to_vec();
    let mut x: Vec<f32> = tokens.iter().flat_map(row).collect();
    drop(embedding);
    let epsilon = gguf.f32("llama.attention.layer_norm_rms_epsilon")?;
    let gain = |name: &str| dequantise(&gguf.tensor(name)?);
    for layer in 0..shape.layers {
        let read = |part: &str| Weights::read(gguf, &format!("blk.{layer}.{part}.weight"));
        let input = norm(&x, &gain(&format!("blk.{layer}.attn_norm.weight"))?, epsilon);
        let mut q = read("attn_q")?.multiply(&input, threads);
        let mut k = read("attn_k")?.multiply(&input, threads);
        let v = read("attn_v")?.multiply(&input, threads);
        rotate(&mut q, &shape, shape.heads, &model.frequencies);
        rotate(&mut k, &shape, shape.kv_heads, &model.frequencies);
        add(&mut x, &read("attn_output")?.multiply(&attention(&q, &k, &v, &shape), threads));
        let input = norm(&x, &gain(&format!("blk.{layer}.ffn_norm.weight"))?, epsilon);
        let mut hidden = read("ffn_gate")?.multiply(&input, threads);
        let up = read("ffn_up")?.multiply(&input, threads);
        for (gate, up) in hidden.iter_mut().zip(&up) {
            *gate = *gate / (1.0 + (-*gate).exp()) * up;
        }
        add(&mut x, &read("ffn_down")?.multiply(&hidden, threads));
    }
    Ok(norm(&x, &gain("output_norm.weight")?, epsilon))
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn norm(x: &[f32], gain: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(gain.len()) {
        let square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / gain.len() as f64;
        let scale = 1.0 / (square + f64::from(epsilon)).sqrt();
        out.extend(row.iter().zip(gain).map(|(&x, &g)| (f64::from(x) * scale) as f32 * g));
    }
    out
}

/// Rotates adjacent pairs; the frequencies are turns a position at 2^-64.
fn rotate(rows: &mut [f32], shape: &Shape, heads: usize, frequencies: &[u64]) {
    for (position, row) in rows.chunks_exact_mut(heads * shape.head_dims).enumerate() {
        for head in row.chunks_exact_mut(shape.head_dims) {
            for (pair, &frequency) in head.chunks_exact_mut(2).zip(frequencies) {
                let turns = frequency as f64 / 2f64.powi(64) * position as f64;
                let (sin, cos) = (turns * std::f64::consts::TAU).sin_cos();
                let (a, b) = (f64::from(pair[0]), f64::from(pair[1]));
                (pair[0], pair[1]) = ((a * cos - b * sin) as f32, (a * sin + b * cos) as f32);
            }
        }
    }
}

/// Causal attention over the whole text.
fn attention(q: &[f32], k: &[f32], v: &[f32], shape: &Shape) -> Vec<f32> {
    let (dims, per) = (shape.head_dims, shape.heads / shape.kv_heads);
    let mut out = vec![0f32; q.len()];
    let scale = 1.0 / (dims as f32).sqrt();
    for (at, (q, out)) in q.chunks_exact(dims).zip(out.chunks_exact_mut(dims)).enumerate() {
        let (position, head) = (at / shape.heads, at % shape.heads / per);
        let row =
            |x: usize| (x * shape.kv_heads + head) * dims..(x * shape.kv_heads + head + 1) * dims;
        let scores: Vec<f32> = (0..=position).map(|x| dot(q, &k[row(x)]) * scale).collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
        let total: f32 = weights.iter().sum();
        for (x, weight) in weights.iter().enumerate() {
            for (out, v) in out.iter_mut().zip(&v[row(x)]) {
                *out += weight / total * v;
            }
        }
    }
    out
}
