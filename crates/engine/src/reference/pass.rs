//! The float pass: every family's formulas as their authors wrote them down, one
//! layer after the other over a whole text.
//!
//! Which of them a family uses is read from the same table as everywhere; every
//! number is computed here anew. Deliberately absent: a cache of keys and values,
//! and threads.

use std::sync::Arc;

use super::matmul::{Matrices, Weights, dot};
use super::rope::Rope;
use crate::architecture::{Activation, Architecture, Pairing};
use crate::gguf::{Gguf, GgufError};
use crate::transformer::Shape;
use crate::weights::LoadError;

/// A file and the sizes it says it has.
pub(super) struct Pass<'a> {
    matrices: Matrices<'a>,
    head: &'static str,
    family: &'static Architecture,
    shape: Shape,
    epsilon: f32,
    /// The length of windows; 0 without.
    window: usize,
    /// Every so many layers the last has no window; 0 where all have.
    period: usize,
    /// Soft caps of scores and logits; 0 without.
    caps: [f64; 2],
    /// Scores are divided by its root.
    divisor: f64,
    /// Of layers without a window, and of those with one.
    ropes: [Rope; 2],
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        gguf: &'a Gguf,
        shape: Shape,
        family: &'static Architecture,
    ) -> Result<Self, LoadError> {
        let key = |key: &str| format!("{}.{key}", family.name);
        let number = |name: &str, default: u32| {
            Ok::<_, GgufError>(gguf.optional_u32(&key(name))?.unwrap_or(default) as usize)
        };
        let defaults = family.caps.unwrap_or([0, 0]).map(f64::from);
        let cap = |name: &str, default: f64| {
            Ok::<_, GgufError>(gguf.optional_f32(&key(name))?.map_or(default, f64::from))
        };
        let layers = gguf.u32(&key("block_count"))? as usize;
        let own = gguf.optional_tensor("output.weight").is_some();
        let broad = family.broad == Some(layers);
        let divisor = if broad { shape.width / shape.heads } else { shape.head_dims };
        Ok(Self {
            matrices: Matrices::new(gguf),
            head: if own { "output.weight" } else { "token_embd.weight" },
            family,
            shape,
            epsilon: gguf.f32(&key("attention.layer_norm_rms_epsilon"))?,
            window: number("attention.sliding_window", family.windows.length)?,
            period: number("attention.sliding_window_pattern", family.windows.period)?,
            caps: [
                cap("attn_logit_softcapping", defaults[0])?,
                cap("final_logit_softcapping", defaults[1])?,
            ],
            divisor: divisor as f64,
            ropes: [Rope::read(gguf, &shape, family)?, Rope::local(gguf, &shape, family)?],
        })
    }

    /// Logits of rows that [`Pass::states`] gave.
    pub(super) fn logits(&self, rows: &[f32]) -> Result<Vec<f32>, LoadError> {
        let mut logits = self.matrices.read(self.head)?.multiply(rows);
        if self.caps[1] != 0.0 {
            logits.iter_mut().for_each(|logit| *logit = soft_cap(*logit, self.caps[1]));
        }
        Ok(logits)
    }

    /// Final states of all positions, normalised: what the head multiplies.
    pub(super) fn states(&self, tokens: &[u32]) -> Result<Vec<f32>, LoadError> {
        let width = self.shape.width;
        let embedding = self.matrices.read("token_embd.weight")?;
        let row = |&token: &u32| embedding.row(token as usize).to_vec();
        let mut x: Vec<f32> = tokens.iter().flat_map(row).collect();
        if self.family.scaled_embedding {
            let scale = (width as f32).sqrt();
            x.iter_mut().for_each(|x| *x *= scale);
        }
        for layer in 0..self.shape.layers {
            let mixed = self.attention(layer, &x)?;
            add(&mut x, &self.post(layer, "post_attention_norm", mixed)?);
            let fed = self.feed(layer, &x)?;
            add(&mut x, &self.post(layer, "post_ffw_norm", fed)?);
        }
        Ok(norm(&x, &self.matrices.read("output_norm.weight")?.values, self.epsilon))
    }

    fn read(&self, layer: usize, part: &str) -> Result<Arc<Weights>, LoadError> {
        self.matrices.read(&format!("blk.{layer}.{part}.weight"))
    }

    fn vector(&self, layer: usize, part: &str) -> Result<Arc<Weights>, LoadError> {
        self.matrices.read(&format!("blk.{layer}.{part}"))
    }

    fn norm(&self, layer: usize, part: &str, x: &[f32]) -> Result<Vec<f32>, LoadError> {
        Ok(norm(x, &self.vector(layer, &format!("{part}.weight"))?.values, self.epsilon))
    }

    fn post(&self, layer: usize, part: &str, x: Vec<f32>) -> Result<Vec<f32>, LoadError> {
        if self.family.post_norms { self.norm(layer, part, &x) } else { Ok(x) }
    }

    /// What attention gives, before it is added.
    fn attention(&self, layer: usize, x: &[f32]) -> Result<Vec<f32>, LoadError> {
        let shape = &self.shape;
        let (all, kv) = (shape.heads * shape.head_dims, shape.kv_heads * shape.head_dims);
        let input = self.norm(layer, "attn_norm", x)?;
        let one = |part: &str, first, rows| {
            let weights = if self.family.fused {
                Arc::new(self.read(layer, "attn_qkv")?.part(first, rows))
            } else {
                self.read(layer, &format!("attn_{part}"))?
            };
            let mut out = weights.multiply(&input);
            if self.family.biases {
                let bias = self.vector(layer, &format!("attn_{part}.bias"))?;
                let bias = &bias.values;
                out.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
            }
            if self.family.head_norms && part != "v" {
                out = self.norm(layer, &format!("attn_{part}_norm"), &out)?;
            }
            Ok::<_, LoadError>(out)
        };
        let (mut q, mut k) = (one("q", 0, all)?, one("k", all, kv)?);
        let v = one("v", all + kv, kv)?;
        let global = self.window == 0 || self.period != 0 && layer % self.period == self.period - 1;
        let rope = &self.ropes[usize::from(!global)];
        rotate(&mut q, shape, shape.heads, rope, self.family.pairing);
        rotate(&mut k, shape, shape.kv_heads, rope, self.family.pairing);
        let window = if global { usize::MAX } else { self.window };
        let mixed = self.mix(&q, &k, &v, window);
        Ok(self.read(layer, "attn_output")?.multiply(&mixed))
    }

    /// Causal attention over the whole text.
    fn mix(&self, q: &[f32], k: &[f32], v: &[f32], window: usize) -> Vec<f32> {
        let shape = &self.shape;
        let (dims, per) = (shape.head_dims, shape.heads / shape.kv_heads);
        let mut out = vec![0f32; q.len()];
        let scale = 1.0 / self.divisor.sqrt() as f32;
        for (at, (q, out)) in q.chunks_exact(dims).zip(out.chunks_exact_mut(dims)).enumerate() {
            let (position, head) = (at / shape.heads, at % shape.heads / per);
            let row = |x: usize| (x * shape.kv_heads + head) * dims..;
            let seen = || (0..=position).filter(|x| position - x < window);
            let score = |x: usize| soft_cap(dot(q, &k[row(x)][..dims]) * scale, self.caps[0]);
            let scores: Vec<f32> = seen().map(score).collect();
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f32 = weights.iter().sum();
            for (x, weight) in seen().zip(&weights) {
                for (out, v) in out.iter_mut().zip(&v[row(x)][..dims]) {
                    *out += weight / total * v;
                }
            }
        }
        out
    }

    /// What the feed-forward layer gives, before it is added.
    fn feed(&self, layer: usize, x: &[f32]) -> Result<Vec<f32>, LoadError> {
        let input = self.norm(layer, "ffn_norm", x)?;
        let feed = self.shape.feed;
        let (gate, up) = if self.family.fused {
            let both = self.read(layer, "ffn_up")?;
            (Arc::new(both.part(0, feed)), Arc::new(both.part(feed, feed)))
        } else {
            (self.read(layer, "ffn_gate")?, self.read(layer, "ffn_up")?)
        };
        let mut hidden = gate.multiply(&input);
        let up = up.multiply(&input);
        for (gate, up) in hidden.iter_mut().zip(&up) {
            *gate = match self.family.activation {
                Activation::Silu => *gate / (1.0 + (-*gate).exp()),
                Activation::Gelu => gelu(*gate),
            } * up;
        }
        Ok(self.read(layer, "ffn_down")?.multiply(&hidden))
    }
}

/// GELU by its approximation with the hyperbolic tangent.
fn gelu(x: f32) -> f32 {
    let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

/// `cap · tanh(x / cap)`; 0 caps nothing.
fn soft_cap(x: f32, cap: f64) -> f32 {
    if cap == 0.0 { x } else { (cap * (f64::from(x) / cap).tanh()) as f32 }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Rows of as many values as there are gains, normalised.
fn norm(x: &[f32], gain: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(gain.len()) {
        let square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / gain.len() as f64;
        let scale = 1.0 / (square + f64::from(epsilon)).sqrt();
        out.extend(row.iter().zip(gain).map(|(&x, &g)| (f64::from(x) * scale) as f32 * g));
    }
    out
}

/// Rotates the pairs of every head.
fn rotate(rows: &mut [f32], shape: &Shape, heads: usize, rope: &Rope, pairing: Pairing) {
    let pairs = rope.frequencies.len();
    for (position, row) in rows.chunks_exact_mut(heads * shape.head_dims).enumerate() {
        for head in row.chunks_exact_mut(shape.head_dims) {
            for (pair, frequency) in rope.frequencies.iter().enumerate() {
                let (x, y) = match pairing {
                    Pairing::Adjacent => (2 * pair, 2 * pair + 1),
                    Pairing::Halves => (pair, pair + pairs),
                };
                let (sin, cos) = (frequency * position as f64).sin_cos();
                let (a, b) = (f64::from(head[x]), f64::from(head[y]));
                head[x] = (rope.magnitude * (a * cos - b * sin)) as f32;
                head[y] = (rope.magnitude * (a * sin + b * cos)) as f32;
            }
        }
    }
}
