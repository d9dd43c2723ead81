//! Every named intermediate row of one layer at one position.
//!
//! The forward pass keeps nothing of what happens within a layer. [`LayerTrace`] is
//! that: the rows that [`Runner::cell`](crate::forward::Runner::cell) goes through,
//! computed slowly and kept, from the row that enters the layer and the keys and
//! values of the positions before. [`HeadTrace`] goes one step further for one
//! output of one head of attention, whose sums are too long to show whole.
//!
//! Two parties that trace one cell and differ in what it gives differ first in one
//! row, and within it in one integer, which is a single operation's. The wide
//! products are also what Freivalds' check takes.
//! Deliberately absent: digests and signatures of the rows, and who is right.

#![deny(clippy::float_arithmetic)]

pub(crate) mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::arith::{GATE_BITS, bit_length};
use crate::forward::ForwardError;
use crate::kernels::{Acts, Kernels, Sink};
use crate::transformer::{Layer, Transformer};
use crate::weights::{Matrix, Vector};

pub use steps::{BLOCK, Short};
use steps::{Gain, Turn};

/// The names of a layer's matrices as files have them, in the order of
/// [`LayerTrace::products`].
pub const PRODUCTS: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// One product of a layer: what a matrix was multiplied with, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The matrix, one of [`PRODUCTS`].
    pub name: &'static str,
    /// The row it was multiplied with.
    pub input: &'a Short,
    /// The exact sums, a row's each.
    pub output: &'a [i64],
    /// Their exponent: the matrix's and the input's.
    pub exponent: i32,
}

/// What happened in one layer at one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerTrace {
    /// The row that entered.
    pub entering: Vec<i32>,
    /// It, normalised: what query, key and value are products of.
    pub attention_input: Short,
    /// The three products.
    pub query: Vec<i64>,
    /// As `query`.
    pub key: Vec<i64>,
    /// As `query`.
    pub value: Vec<i64>,
    /// Query heads, rotated, at 16 bits, each followed by its exponent.
    pub queries: Vec<i16>,
    /// The position's row of keys and values, as a transcript has it.
    pub own: Vec<i16>,
    /// What each head of attention gives, followed by its exponent.
    pub heads: Vec<i32>,
    /// The heads side by side.
    pub joined: Short,
    /// Its product.
    pub output: Vec<i64>,
    /// The residual row after attention.
    pub between: Vec<i32>,
    /// It, normalised: what gate and up are products of.
    pub feed_input: Short,
    /// The two products.
    pub gate: Vec<i64>,
    /// As `gate`.
    pub up: Vec<i64>,
    /// The gated row at 2^-36.
    pub hidden: Vec<i64>,
    /// It at 16 bits.
    pub fed: Short,
    /// Its product.
    pub down: Vec<i64>,
    /// The row that leaves.
    pub leaving: Vec<i32>,
    /// Exponents of the matrices, in the order of [`PRODUCTS`].
    pub exponents: [i32; 7],
}

/// The sums behind one output of one head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadTrace {
    /// Scores of the positions that the layer reads, from the first on.
    pub scores: Vec<i32>,
    /// Which of them is the largest, the first of them.
    pub largest: usize,
    /// The sum of weights up to the end of each block of [`BLOCK`] positions.
    pub totals: Vec<i64>,
    /// The smallest exponent of a value that carries weight.
    pub exponent: i32,
    /// The first position with a value of it, counted as scores are.
    pub coarsest: usize,
    /// The weighted sum of the values' integer up to the end of each block.
    pub sums: Vec<i64>,
}

/// Rows of keys and values as bytes, from the first that a layer reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) kv_heads: usize,
    pub(crate) dims: usize,
}

impl Rows<'_> {
    /// Bytes of one.
    pub(crate) fn stride(&self) -> usize {
        4 * self.kv_heads * (self.dims + 1)
    }

    pub(crate) fn count(&self) -> usize {
        self.bytes.len() / self.stride()
    }

    /// The key or the value of a head at a position, and its exponent.
    pub(crate) fn read(&self, at: usize, head: usize, key: bool, out: &mut Vec<i16>) -> i32 {
        let len = 2 * (self.dims + 1);
        let start = at * self.stride() + (2 * head + usize::from(!key)) * len;
        out.clear();
        let bytes = self.bytes[start..][..len].as_chunks().0;
        out.extend(bytes.iter().map(|bytes| i16::from_le_bytes(*bytes)));
        out.pop().map_or(0, i32::from)
    }
}

/// Takes a product's rows, sixteen at a time.
struct Collect<'a>(&'a mut [i64]);

impl Sink for Collect<'_> {
    fn take(&mut self, _row: usize, group: usize, values: &[i64; 16]) {
        let out = &mut self.0[16 * group..];
        let count = out.len().min(16);
        out[..count].copy_from_slice(&values[..count]);
    }
}

/// The product of a matrix with a row.
pub(crate) fn product(kernels: Kernels, matrix: &Matrix, row: &Short) -> Vec<i64> {
    let mut acts = Acts::new(1, row.values.len());
    acts.values[..row.values.len()].copy_from_slice(&row.values);
    for (sum, block) in acts.sums.iter_mut().zip(acts.values.chunks_exact(16)) {
        *sum = block.iter().map(|&v| i32::from(v)).sum();
    }
    let mut out = vec![0; matrix.rows()];
    kernels.sweep(matrix, &acts, 0..1, 0..matrix.groups(), &mut Collect(&mut out));
    out
}

pub(crate) fn gain(vector: &Vector) -> Gain<'_> {
    Gain { values: &vector.values, exponent: vector.exponent }
}

impl LayerTrace {
    /// Traces a cell. `layer` is its index in `model`, which may hold that layer alone;
    /// `before` the rows of keys and values of the positions from the first that the layer
    /// reads at this one up to the one before it.
    ///
    /// # Errors
    /// [`ForwardError::Full`] if the model has no such position.
    ///
    /// # Panics
    /// Rows have other lengths than the model's, or there is no such layer.
    pub fn of(
        model: &Arc<Transformer>,
        layer: usize,
        position: usize,
        entering: &[i32],
        before: &[u8],
    ) -> Result<Self, ForwardError> {
        let (capacity, got) = (model.shape().context, position + 1);
        if got > capacity {
            return Err(ForwardError::Full { sequence: 0, capacity, got });
        }
        let mut trace = Self { entering: entering.to_vec(), ..Self::default() };
        let layer = &model.layers[layer];
        let kernels = Kernels::best();
        trace.attend(kernels, model, layer, position, before);
        trace.feed(kernels, model, layer);
        trace.exponents = matrices(layer).map(Matrix::exponent);
        Ok(trace)
    }

    fn attend(
        &mut self,
        kernels: Kernels,
        model: &Transformer,
        layer: &Layer,
        position: usize,
        before: &[u8],
    ) {
        let (shape, epsilon) = (*model.shape(), model.epsilon);
        self.attention_input = steps::norm(&self.entering, gain(&layer.attention_norm), epsilon);
        let input = &self.attention_input;
        self.query = product(kernels, &layer.query, input);
        self.key = product(kernels, &layer.key, input);
        self.value = product(kernels, &layer.value, input);
        let turns = Turns::new(model, layer, position, input.exponent);
        self.queries = turns.heads(model, 0, &self.query);
        let [keys, values] = [(1, &self.key), (2, &self.value)]
            .map(|(which, product)| turns.heads(model, which, product));
        let len = shape.head_dims + 1;
        let pairs = keys.chunks_exact(len).zip(values.chunks_exact(len));
        self.own = pairs.flat_map(|(key, value)| [key, value]).flatten().copied().collect();
        let rows = self.rows(before);
        let rows = Rows { bytes: &rows, kv_heads: shape.kv_heads, dims: shape.head_dims };
        let heads = (0..shape.heads).flat_map(|head| head_output(model, self, rows, head));
        self.heads = heads.collect();
        let heads: Vec<_> = self.heads.chunks_exact(len).map(split).collect();
        self.joined = steps::join(&heads);
        self.output = product(kernels, &layer.output, &self.joined);
        let exponent = layer.output.exponent() + self.joined.exponent;
        let post = layer.post_attention.as_ref();
        self.between = add(model, &self.entering, &self.output, exponent, post);
    }

    fn feed(&mut self, kernels: Kernels, model: &Transformer, layer: &Layer) {
        self.feed_input = steps::norm(&self.between, gain(&layer.feed_norm), model.epsilon);
        self.gate = product(kernels, &layer.gate, &self.feed_input);
        self.up = product(kernels, &layer.up, &self.feed_input);
        let [gate, up] =
            [&layer.gate, &layer.up].map(|it| it.exponent() + self.feed_input.exponent);
        let pairs = self.gate.iter().zip(&self.up);
        let gated = |(&g, &u): (&i64, &i64)| steps::gated((g, gate), (u, up), model.gelu());
        self.hidden = pairs.map(gated).collect();
        self.fed = Short::of(&self.hidden, steps::HIDDEN_BITS);
        self.down = product(kernels, &layer.down, &self.fed);
        let exponent = layer.down.exponent() + self.fed.exponent;
        self.leaving = add(model, &self.between, &self.down, exponent, layer.post_feed.as_ref());
    }

    /// Rows of keys and values, the own one last.
    pub(crate) fn rows(&self, before: &[u8]) -> Vec<u8> {
        let own = self.own.iter().flat_map(|v| v.to_le_bytes());
        before.iter().copied().chain(own).collect()
    }

    /// The seven products, in the order of [`PRODUCTS`].
    #[must_use]
    pub fn products(&self) -> [Product<'_>; 7] {
        let all: [(&Short, &[i64]); 7] = [
            (&self.attention_input, &self.query),
            (&self.attention_input, &self.key),
            (&self.attention_input, &self.value),
            (&self.joined, &self.output),
            (&self.feed_input, &self.gate),
            (&self.feed_input, &self.up),
            (&self.fed, &self.down),
        ];
        std::array::from_fn(|at| {
            let (input, output) = all[at];
            let exponent = self.exponents[at] + input.exponent;
            Product { name: PRODUCTS[at], input, output, exponent }
        })
    }
}

impl HeadTrace {
    /// The sums behind output `dim` of a head in a traced cell.
    ///
    /// # Panics
    /// The model has no such head, or `before` is not what the cell was traced with.
    #[must_use]
    pub fn of(
        model: &Transformer,
        cell: &LayerTrace,
        before: &[u8],
        head: usize,
        dim: usize,
    ) -> Self {
        let shape = model.shape();
        let bytes = cell.rows(before);
        let rows = Rows { bytes: &bytes, kv_heads: shape.kv_heads, dims: shape.head_dims };
        let mut trace = scored(model, cell, rows, head);
        let (mut row, mut total, mut sum) = (Vec::new(), 0, 0);
        let kv_head = head / (shape.heads / shape.kv_heads);
        let largest = trace.scores[trace.largest];
        for at in 0..rows.count() {
            let weight = steps::weight(trace.scores[at], largest);
            let exponent = rows.read(at, kv_head, false, &mut row);
            total += weight;
            sum += steps::weighted(weight, row[dim], exponent, trace.exponent);
            if at % BLOCK == BLOCK - 1 || at + 1 == rows.count() {
                trace.totals.push(total);
                trace.sums.push(sum);
            }
        }
        trace
    }
}

/// The matrices of a layer, in the order of [`PRODUCTS`].
pub(crate) fn matrices(layer: &Layer) -> [&Matrix; 7] {
    let Layer { query, key, value, output, gate, up, down, .. } = layer;
    [query, key, value, output, gate, up, down]
}

/// A head followed by its exponent.
pub(crate) fn split(head: &[i32]) -> (&[i32], i32) {
    head.split_last().map_or((&[], 0), |(exponent, head)| (head, *exponent))
}

/// How the three products of a layer at a position become heads.
pub(crate) struct Turns<'a> {
    layer: &'a Layer,
    angles: Vec<(i16, i16)>,
    exponent: i32,
}

impl<'a> Turns<'a> {
    pub(crate) fn new(
        model: &Transformer,
        layer: &'a Layer,
        position: usize,
        exponent: i32,
    ) -> Self {
        let mut angles = vec![(0, 0); model.shape().rope_dims / 2];
        model.ropes[layer.rope].angles(position, &mut angles);
        Self { layer, angles, exponent }
    }

    /// All heads of a product (0 query, 1 key, 2 value), each followed by its exponent.
    fn heads(&self, model: &Transformer, which: usize, product: &[i64]) -> Vec<i16> {
        let Self { layer, angles, exponent } = self;
        let dims = model.shape().head_dims;
        let matrix = [&layer.query, &layer.key, &layer.value][which];
        let norms = layer.head_norms.as_ref().and_then(|norms| norms.get(which));
        let bias = layer.biases.as_ref().map(|biases| gain(&biases[which]));
        let mut out = Vec::with_capacity(product.len() / dims * (dims + 1));
        for (head, product) in product.chunks_exact(dims).enumerate() {
            let turn = Turn {
                exponent: matrix.exponent() + exponent,
                bits: product_bits(model.shape().width, matrix.magnitude_bits()),
                bias: bias.map(|bias| Gain { values: &bias.values[head * dims..][..dims], ..bias }),
                norm: norms.map(|norm| (gain(norm), model.epsilon)),
                angles: (which < 2).then_some((&angles[..], model.family.pairing)),
            };
            let short = turn.apply(product);
            out.extend(&short.values);
            out.push(short.exponent as i16);
        }
        out
    }
}

/// Products of rows of this length, of weights of so many bits, are below two to this power.
pub(crate) fn product_bits(width: usize, magnitude_bits: i32) -> i32 {
    bit_length(width as u64 - 1) + magnitude_bits + 15
}

/// Scores of a head, and what follows from them alone.
fn scored(model: &Transformer, cell: &LayerTrace, rows: Rows<'_>, head: usize) -> HeadTrace {
    let shape = model.shape();
    let query = &cell.queries[head * (shape.head_dims + 1)..][..=shape.head_dims];
    let (exponent, query) = query.split_last().map_or((0, query), |(e, q)| (i32::from(*e), q));
    let kv_head = head / (shape.heads / shape.kv_heads);
    let mut row = Vec::new();
    let mut one = |at| {
        let key_exponent = rows.read(at, kv_head, true, &mut row);
        let (scale, cap) = (model.score_scale, model.score_cap);
        steps::score((query, exponent), (&row, key_exponent), scale, cap)
    };
    let scores: Vec<i32> = (0..rows.count()).map(&mut one).collect();
    let largest = (0..scores.len()).rev().max_by_key(|&at| scores[at]).unwrap_or(0);
    let exponent_of = |at: usize| rows.read(at, kv_head, false, &mut Vec::new());
    let heavy = (0..scores.len()).filter(|&at| steps::weight(scores[at], scores[largest]) > 0);
    let coarsest = heavy.min_by_key(|&at| exponent_of(at)).unwrap_or(largest);
    let exponent = exponent_of(coarsest);
    HeadTrace { scores, largest, exponent, coarsest, ..HeadTrace::default() }
}

/// What a head gives, and its exponent.
fn head_output(model: &Transformer, cell: &LayerTrace, rows: Rows<'_>, head: usize) -> Vec<i32> {
    let shape = model.shape();
    let trace = scored(model, cell, rows, head);
    let largest = trace.scores[trace.largest];
    let kv_head = head / (shape.heads / shape.kv_heads);
    let (mut row, mut total, mut sums) = (Vec::new(), 0, vec![0i64; shape.head_dims]);
    for (at, score) in trace.scores.iter().enumerate() {
        let weight = steps::weight(*score, largest);
        let exponent = rows.read(at, kv_head, false, &mut row);
        total += weight;
        for (sum, &value) in sums.iter_mut().zip(&row) {
            *sum += steps::weighted(weight, value, exponent, trace.exponent);
        }
    }
    // The largest score's weight is in the total: it is never too small.
    let one = |&sum: &i64| steps::blended(sum, total).unwrap_or(0);
    sums.iter().map(one).chain([trace.exponent + crate::arith::WEIGHT_BITS]).collect()
}

/// A residual row with a product added, normalised first where there is a gain to do it with.
fn add(
    model: &Transformer,
    row: &[i32],
    product: &[i64],
    exponent: i32,
    post: Option<&Vector>,
) -> Vec<i32> {
    let normed = post.map(|post| steps::post_norm(product, exponent, gain(post), model.epsilon));
    let (added, exponent) =
        normed.as_ref().map_or((product, exponent), |(row, exponent)| (row, *exponent));
    row.iter().zip(added).map(|(&x, &v)| steps::add(x, v, exponent)).collect()
}

const _: () = assert!(steps::HIDDEN_BITS == 2 * GATE_BITS);
