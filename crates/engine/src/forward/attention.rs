//! Attention within a layer: projections, rotation, the cache, the heads, and
//! the way back to the residual.

#![allow(unsafe_code, reason = "pieces of a phase write to disjoint parts of shared slices")]

use super::Runner;
use super::lanes::{Lanes, View};
use super::products::{self, Tap};
use super::residual::Source;
use super::scratch::Scratch;
use super::sinks::{self, Keep, SharedActs};
use crate::architecture::Pairing;
use crate::arith::half::Exact;
use crate::arith::{NORM_BITS, bit_length, rescale, round_shift};
use crate::kernels::{Kernels, Query, WideNormed};
use crate::pool::Shared;
use crate::transformer::{Layer, Shape};
use crate::weights::{Matrix, Vector};

/// Fraction bits of cosines and sines.
const ANGLE_BITS: i32 = 14;
/// Values below two to this power can be rotated, whatever the magnitude.
const TURN_BITS: i32 = 46;
/// Biases are at most two to this power.
const BIAS_BITS: i32 = 19;

/// A row's rotation.
#[derive(Clone, Copy)]
struct Rotation<'a> {
    angles: &'a [(i16, i16)],
    pairing: Pairing,
}

impl Rotation<'_> {
    /// Rotates the pairs of a head, less their last `drop` bits; all values gain
    /// [`ANGLE_BITS`] fraction bits.
    fn turn(&self, head: &mut [i64], drop: u32) {
        let pairs = self.angles.len();
        let turned = |a: i64, b: i64, (cos, sin): (i16, i16)| {
            let (a, b) = (round_shift(a, drop), round_shift(b, drop));
            let (cos, sin) = (i64::from(cos), i64::from(sin));
            (a * cos - b * sin, a * sin + b * cos)
        };
        let (rotated, rest) = head.split_at_mut(2 * pairs);
        match self.pairing {
            Pairing::Adjacent => {
                for (pair, &angle) in rotated.chunks_exact_mut(2).zip(self.angles) {
                    (pair[0], pair[1]) = turned(pair[0], pair[1], angle);
                }
            }
            Pairing::Halves => {
                let (first, second) = rotated.split_at_mut(pairs);
                for ((a, b), &angle) in first.iter_mut().zip(second).zip(self.angles) {
                    (*a, *b) = turned(*a, *b, angle);
                }
            }
        }
        for value in rest {
            *value = round_shift(*value, drop) << ANGLE_BITS;
        }
    }
}

/// One of the three projections, and what happens to its product.
#[derive(Clone, Copy)]
struct Projection<'a> {
    matrix: &'a Matrix,
    bias: Option<&'a Vector>,
    /// The gains of a head's norm, and ε.
    norm: Option<(&'a Vector, Exact)>,
    /// Products are below two to this power.
    bits: i32,
}

impl<'a> Projection<'a> {
    /// Query, key and value of a layer.
    fn all(layer: &'a Layer, width: usize, epsilon: Exact) -> [Self; 3] {
        let biases = layer.biases.as_ref().map_or([None; 3], |all| all.each_ref().map(Some));
        let norms = layer.head_norms.as_ref().map_or([None; 2], |all| all.each_ref().map(Some));
        let one = |matrix: &'a Matrix, bias, norm: Option<&'a Vector>| Self {
            matrix,
            bias,
            norm: norm.map(|gain| (gain, epsilon)),
            bits: bit_length(width as u64 - 1) + matrix.magnitude_bits() + 15,
        };
        [
            one(&layer.query, biases[0], norms[0]),
            one(&layer.key, biases[1], norms[1]),
            one(&layer.value, biases[2], None),
        ]
    }

    /// Adds the biases to the product of an activation row with `exponent`;
    /// returns the sum's exponent, at which both fit.
    fn add_bias(&self, row: &mut [i64], exponent: i32) -> i32 {
        let exponent = exponent + self.matrix.exponent();
        let Some(bias) = self.bias else { return exponent };
        let common = exponent.min(bias.exponent + self.bits - BIAS_BITS - 1);
        let (dropped, moved) = ((exponent - common) as u32, bias.exponent - common);
        for (value, &bias) in row.iter_mut().zip(&bias.values) {
            *value = round_shift(*value, dropped) + rescale(i64::from(bias), moved, 1 << self.bits);
        }
        common
    }

    /// Normalises a head where the model does, rotates it; returns its exponent.
    fn turn(
        &self,
        kernels: Kernels,
        rotation: &Rotation<'_>,
        head: &mut [i64],
        exponent: i32,
    ) -> i32 {
        let (exponent, bits) = match self.norm {
            Some((gain, epsilon)) => {
                kernels.norm_wide(head, exponent, &WideNormed { gain: &gain.values, epsilon });
                (NORM_BITS + gain.exponent, 0)
            }
            None => (exponent, self.bits + i32::from(self.bias.is_some())),
        };
        let drop = (bits - TURN_BITS).max(0);
        rotation.turn(head, drop as u32);
        exponent + ANGLE_BITS - drop
    }
}

/// Rows of the three projections, side by side.
fn raw_stride(shape: &Shape) -> usize {
    (shape.heads + 2 * shape.kv_heads) * shape.head_dims
}

impl Runner {
    /// Query, key and value rows.
    pub(super) fn project(&mut self, rows: usize, layer: &Layer, tap: &mut Tap<'_>) {
        let stride = raw_stride(self.model.shape());
        let Scratch { raw, inputs, .. } = &mut self.scratch;
        let (raw, inputs, kernels) = (Shared::new(raw), &*inputs, self.kernels);
        let matrices = [&layer.query, &layer.key, &layer.value];
        let made = matrices.map(|matrix| products::made(tap, matrix, inputs));
        let all: usize = matrices.iter().map(|m| m.groups()).sum();
        sinks::split(&mut self.pool, all, &|_, groups| {
            let mut first = 0;
            for (matrix, made) in matrices.into_iter().zip(&made) {
                let last = first + matrix.groups();
                let (from, to) = (groups.start.max(first), groups.end.min(last));
                if from < to {
                    let mut sink = Keep { out: &raw, stride, offset: 16 * first };
                    let groups = from - first..to - first;
                    products::sweep(kernels, made, matrix, inputs, 0..rows, groups, &mut sink);
                }
                first = last;
            }
        });
    }

    /// Rotates queries and keys, brings all to 16 bits, fills the cache.
    pub(super) fn rotate(&mut self, lanes: &[Lanes<'_>], layer: &Layer) {
        let (kernels, shape) = (self.kernels, *self.model.shape());
        let (dims, heads, kv_heads) = (shape.head_dims, shape.heads, shape.kv_heads);
        let stride = raw_stride(&shape);
        let [query, key, value] = Projection::all(layer, shape.width, self.model.epsilon);
        let pairing = self.model.family.pairing;
        let Scratch { raw, queries, query_exponents, inputs, places, angles, .. } =
            &mut self.scratch;
        let (raw, queries, query_exponents) =
            (Shared::new(raw), Shared::new(queries), Shared::new(query_exponents));
        let (places, angles, pairs) = (&*places, &angles[layer.rope], shape.rope_dims / 2);
        self.pool.run(places.len(), &|_, row| {
            let (place, base) = (places[row], inputs.exponents[row]);
            let rotation = Rotation { angles: &angles[row * pairs..][..pairs], pairing };
            // SAFETY: each row belongs to one piece.
            let (raw, queries, exponents) = unsafe {
                (
                    raw.part(row * stride, stride),
                    queries.part(row * heads * dims, heads * dims),
                    query_exponents.part(row * heads, heads),
                )
            };
            let (query_rows, rest) = raw.split_at_mut(heads * dims);
            let (key_rows, value_rows) = rest.split_at_mut(kv_heads * dims);
            let base_of = |part: &Projection<'_>, rows: &mut [i64]| part.add_bias(rows, base);
            let exponent = base_of(&query, query_rows);
            for (head, row) in query_rows.chunks_exact_mut(dims).enumerate() {
                let exponent = query.turn(kernels, &rotation, row, exponent);
                let out = &mut queries[head * dims..][..dims];
                exponents[head] = kernels.quantise(row, exponent, out, &mut []);
            }
            let lanes = &lanes[place.sequence];
            let mut short = [0i16; crate::kernels::MAX_HEAD_DIMS];
            let short = &mut short[..dims];
            let exponent = base_of(&key, key_rows);
            for (head, row) in key_rows.chunks_exact_mut(dims).enumerate() {
                let exponent = key.turn(kernels, &rotation, row, exponent);
                let exponent = kernels.quantise(row, exponent, short, &mut []);
                lanes.write(true, head, place.position, short, exponent);
            }
            let exponent = base_of(&value, value_rows);
            for (head, row) in value_rows.chunks_exact(dims).enumerate() {
                let exponent = kernels.quantise(row, exponent, short, &mut []);
                lanes.write(false, head, place.position, short, exponent);
            }
        });
    }

    /// Every head of every row over its sequence's cache.
    pub(super) fn attend(&mut self, views: &[View<'_>], layer: &Layer) {
        let (kernels, shape) = (self.kernels, *self.model.shape());
        let (dims, heads) = (shape.head_dims, shape.heads);
        let (scale, tables) = (self.model.score_scale, Self::tables());
        let (cap, window) = (self.model.score_cap, layer.window);
        let Scratch {
            queries, query_exponents, heads: out, head_exponents, threads, places, ..
        } = &mut self.scratch;
        let (queries, query_exponents, places) = (&*queries, &*query_exponents, &*places);
        let (out, head_exponents, threads) =
            (Shared::new(out), Shared::new(head_exponents), Shared::new(threads));
        self.pool.run(places.len() * heads, &|thread, at| {
            let (place, head) = (places[at / heads], at % heads);
            let query = Query {
                values: &queries[at * dims..][..dims],
                exponent: query_exponents[at],
                scale,
                cap,
                tables,
            };
            let len = place.position + 1;
            let cache = views[place.sequence].cache(
                head / (heads / shape.kv_heads),
                window.map_or(0, |window| len.saturating_sub(window)),
                len,
            );
            // SAFETY: a head of a row belongs to one piece, the scratch to one thread.
            let (out, exponent, scratch) = unsafe {
                (out.part(at * dims, dims), head_exponents.part(at, 1), threads.part(thread, 1))
            };
            exponent[0] = kernels.attend(&query, &cache, &mut scratch[0], out);
        });
    }

    /// The output projection, added to the residual.
    pub(super) fn add_attention(&mut self, rows: usize, layer: &Layer, tap: &mut Tap<'_>) {
        let (kernels, shape) = (self.kernels, *self.model.shape());
        let (dims, heads) = (shape.head_dims, shape.heads);
        let Scratch { heads: wide, head_exponents, mixed, .. } = &mut self.scratch;
        {
            let (wide, out) = (Shared::new(wide), SharedActs::new(mixed));
            self.pool.run(rows, &|_, row| {
                let wide = out.lend(&wide, row, heads * dims);
                let exponents = &head_exponents[row * heads..][..heads];
                let exponent = align(wide, exponents, dims);
                out.quantise(kernels, row, wide, exponent);
            });
        }
        self.add(rows, &layer.output, Source::Heads, layer.post_attention.as_ref(), tap);
    }
}

/// Brings all heads of a row to the smallest of their exponents.
fn align(row: &mut [i64], exponents: &[i32], dims: usize) -> i32 {
    let smallest = exponents.iter().copied().min().unwrap_or(0);
    for (head, &exponent) in row.chunks_exact_mut(dims).zip(exponents) {
        let shift = (exponent - smallest) as u32;
        if shift > 0 {
            head.iter_mut().for_each(|value| *value = round_shift(*value, shift));
        }
    }
    smallest
}
