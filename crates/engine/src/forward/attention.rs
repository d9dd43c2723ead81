//! Attention within a layer: projections, rotation, the cache, the heads, and
//! the way back to the residual.

#![allow(unsafe_code, reason = "pieces of a phase write to disjoint parts of shared slices")]

use super::Runner;
use super::lanes::Lanes;
use super::scratch::Scratch;
use super::sinks::{self, Keep, Narrow, SharedActs};
use crate::arith::{RESIDUAL_BITS, bit_length, round_shift};
use crate::kernels::{Kernels, Query};
use crate::pool::Shared;
use crate::transformer::{Layer, Shape};

/// Fraction bits of cosines and sines.
const ANGLE_BITS: i32 = 14;

/// What a row's rotation needs.
struct Rotation<'a> {
    angles: &'a [(i16, i16)],
    /// Bits dropped first, so that the rotated sums fit: 0 up to 4096 columns.
    drop: u32,
}

impl Rotation<'_> {
    /// Rotates adjacent pairs; all values gain [`ANGLE_BITS`] fraction bits.
    fn turn(&self, head: &mut [i64]) {
        let (turned, rest) = head.split_at_mut(2 * self.angles.len());
        for (pair, &(cos, sin)) in turned.chunks_exact_mut(2).zip(self.angles) {
            let (a, b) = (round_shift(pair[0], self.drop), round_shift(pair[1], self.drop));
            let (cos, sin) = (i64::from(cos), i64::from(sin));
            pair[0] = a * cos - b * sin;
            pair[1] = a * sin + b * cos;
        }
        for value in rest {
            *value = round_shift(*value, self.drop) << ANGLE_BITS;
        }
    }

    fn exponent(&self) -> i32 {
        ANGLE_BITS - self.drop as i32
    }
}

/// Rows of the three projections, side by side.
fn raw_stride(shape: &Shape) -> usize {
    (shape.heads + 2 * shape.kv_heads) * shape.head_dims
}

impl Runner {
    /// Query, key and value rows.
    pub(super) fn project(&mut self, rows: usize, layer: &Layer) {
        let stride = raw_stride(self.model.shape());
        let Scratch { raw, inputs, .. } = &mut self.scratch;
        let (raw, inputs, kernels) = (Shared::new(raw), &*inputs, self.kernels);
        let matrices = [&layer.query, &layer.key, &layer.value];
        let all: usize = matrices.iter().map(|m| m.groups()).sum();
        sinks::split(&mut self.pool, all, &|_, groups| {
            let mut first = 0;
            for matrix in matrices {
                let last = first + matrix.groups();
                let (from, to) = (groups.start.max(first), groups.end.min(last));
                if from < to {
                    let mut sink = Keep { out: &raw, stride, offset: 16 * first };
                    kernels.sweep(matrix, inputs, 0..rows, from - first..to - first, &mut sink);
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
        let drop = (bit_length(shape.width as u64 - 1) - 12).max(0) as u32;
        let Scratch { raw, queries, query_exponents, inputs, places, angles, .. } =
            &mut self.scratch;
        let (raw, queries, query_exponents) =
            (Shared::new(raw), Shared::new(queries), Shared::new(query_exponents));
        let (places, angles, pairs) = (&*places, &*angles, shape.rope_dims / 2);
        self.pool.run(places.len(), &|_, row| {
            let (place, base) = (places[row], inputs.exponents[row]);
            let rotation = Rotation { angles: &angles[row * pairs..][..pairs], drop };
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
            let turned = base + rotation.exponent();
            for (head, row) in query_rows.chunks_exact_mut(dims).enumerate() {
                rotation.turn(row);
                let out = &mut queries[head * dims..][..dims];
                exponents[head] =
                    kernels.quantise(row, turned + layer.query.exponent(), out, &mut []);
            }
            let lanes = &lanes[place.sequence];
            let mut short = [0i16; crate::kernels::MAX_HEAD_DIMS];
            let short = &mut short[..dims];
            for (head, row) in key_rows.chunks_exact_mut(dims).enumerate() {
                rotation.turn(row);
                let exponent = kernels.quantise(row, turned + layer.key.exponent(), short, &mut []);
                lanes.write(true, head, place.position, short, exponent);
            }
            for (head, row) in value_rows.chunks_exact(dims).enumerate() {
                let exponent = kernels.quantise(row, base + layer.value.exponent(), short, &mut []);
                lanes.write(false, head, place.position, short, exponent);
            }
        });
    }

    /// Every head of every row over its sequence's cache.
    pub(super) fn attend(&mut self, lanes: &[Lanes<'_>]) {
        let (kernels, shape) = (self.kernels, *self.model.shape());
        let (dims, heads) = (shape.head_dims, shape.heads);
        let (scale, tables) = (self.model.score_scale, Self::tables());
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
                cap: None,
                tables,
            };
            let cache = lanes[place.sequence].cache(
                head / (heads / shape.kv_heads),
                dims,
                0,
                place.position + 1,
            );
            // SAFETY: a head of a row belongs to one piece, the scratch to one thread.
            let (out, exponent, scratch) = unsafe {
                (out.part(at * dims, dims), head_exponents.part(at, 1), threads.part(thread, 1))
            };
            exponent[0] = kernels.attend(&query, &cache, &mut scratch[0], out);
        });
    }

    /// The output projection, added to the residual.
    pub(super) fn add_attention(&mut self, rows: usize, layer: &Layer) {
        let (kernels, shape) = (self.kernels, *self.model.shape());
        let (dims, heads) = (shape.head_dims, shape.heads);
        let Scratch { heads: wide, head_exponents, mixed, residual, .. } = &mut self.scratch;
        {
            let (wide, out) = (Shared::new(wide), SharedActs::new(mixed));
            self.pool.run(rows, &|_, row| {
                let wide = out.lend(&wide, row, heads * dims);
                let exponents = &head_exponents[row * heads..][..heads];
                let exponent = align(wide, exponents, dims);
                out.quantise(kernels, row, wide, exponent);
            });
        }
        let (residual, mixed) = (Shared::new(residual), &*mixed);
        add_product(kernels, &mut self.pool, rows, &layer.output, mixed, &residual);
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

/// Adds a product to the residual rows.
pub(super) fn add_product(
    kernels: Kernels,
    pool: &mut crate::pool::Pool,
    rows: usize,
    matrix: &crate::weights::Matrix,
    acts: &crate::kernels::Acts,
    residual: &Shared<'_, i32>,
) {
    let base = matrix.exponent() - RESIDUAL_BITS;
    sinks::split(pool, matrix.groups(), &|_, groups| {
        let mut sink = Narrow {
            out: residual,
            stride: matrix.rows(),
            exponents: &acts.exponents,
            base,
            add: true,
        };
        kernels.sweep(matrix, acts, 0..rows, groups, &mut sink);
    });
}
