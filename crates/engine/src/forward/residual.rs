//! The residual rows: made of embeddings, normalised for what reads them, and
//! added to by what attention and feed-forward give.
//!
//! What is added either goes there straight from its product or, in families that
//! normalise it first, by way of a wide row. Deliberately absent: what is added.

#![allow(unsafe_code, reason = "pieces of a phase write to disjoint parts of shared slices")]

use std::time::Instant;

use peerproof_proof::cells::layers_digest;

use super::products::{self, Tap};
use super::scratch::Scratch;
use super::sinks::{self, Keep, Narrow};
use super::{Item, Runner};
use crate::arith::{LIMIT, NORM_BITS, RESIDUAL_BITS, norm_epsilon, rescale};
use crate::kernels::{Normed, WideNormed};
use crate::pool::Shared;
use crate::weights::{Matrix, Vector};

/// Which activation rows are multiplied and added.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// The heads' outputs.
    Heads,
    /// The feed-forward layer's.
    Feed,
}

impl Runner {
    /// Embedding rows at the residual's exponent.
    pub(super) fn embed(&mut self, items: &[Item]) {
        let table = &self.model.embedding;
        let rows = self.scratch.residual.chunks_exact_mut(self.model.shape().width);
        for (item, row) in items.iter().zip(rows) {
            table.row(item.token as usize, row);
            self.model.embed(row);
        }
    }

    /// Keeps the residual rows as those that enter a layer, and brings them to
    /// what its attention reads.
    pub(super) fn enter(&mut self, rows: usize, layer: usize, gain: &Vector) {
        let shape = self.model.shape();
        let (width, stride) = (shape.width, shape.layers * shape.width);
        let start = Instant::now();
        let Scratch { residual, entered, .. } = &mut self.scratch;
        let entered = Shared::new(entered);
        self.pool.run(rows, &|_, row| {
            // SAFETY: each row belongs to one piece.
            let to = unsafe { entered.part(row * stride + layer * width, width) };
            to.copy_from_slice(&residual[row * width..][..width]);
        });
        self.hashing.rows += start.elapsed();
        self.normalise(rows, gain);
    }

    /// Digests the rows that entered the layers.
    pub(super) fn digest_layers(&mut self, rows: usize) {
        let shape = self.model.shape();
        let stride = shape.layers * shape.width;
        let start = Instant::now();
        let Scratch { entered, layers, .. } = &mut self.scratch;
        let layers = Shared::new(layers);
        self.pool.run(rows, &|_, row| {
            // SAFETY: each row belongs to one piece.
            let to = unsafe { layers.part(row, 1) };
            to[0] = layers_digest(&entered[row * stride..][..stride]);
        });
        self.hashing.rows += start.elapsed();
    }

    /// Normalises and quantises the residual rows into `inputs`.
    pub(super) fn normalise(&mut self, rows: usize, gain: &Vector) {
        let (kernels, width) = (self.kernels, self.model.shape().width);
        let epsilon = norm_epsilon(self.model.epsilon, width, 2 * RESIDUAL_BITS);
        // Below 2^40: ε is below 1 and rows are at most 2^16 long.
        let normed = Normed { gain: &gain.values, epsilon: epsilon as u64 };
        let exponent = NORM_BITS + gain.exponent;
        let Scratch { residual, inputs, wide, .. } = &mut self.scratch;
        let wide = Shared::new(wide);
        let out = sinks::SharedActs::new(inputs);
        self.pool.run(rows, &|_, row| {
            let wide = out.lend(&wide, row, width);
            kernels.norm(&residual[row * width..][..width], &normed, wide);
            out.quantise(kernels, row, wide, exponent);
        });
    }

    /// Adds a matrix's product with the source's rows to the residual rows,
    /// normalised first if there is a gain to do it with.
    pub(super) fn add(
        &mut self,
        rows: usize,
        matrix: &Matrix,
        source: Source,
        gain: Option<&Vector>,
        tap: &mut Tap<'_>,
    ) {
        let kernels = self.kernels;
        let Scratch { mixed, fed, residual, wide, .. } = &mut self.scratch;
        let acts = match source {
            Source::Heads => &*mixed,
            Source::Feed => &*fed,
        };
        let exponents = &acts.exponents;
        let made = products::made(tap, matrix, acts);
        let Some(gain) = gain else {
            let (out, stride) = (Shared::new(residual), matrix.rows());
            let base = matrix.exponent() - RESIDUAL_BITS;
            sinks::split(&mut self.pool, matrix.groups(), &|_, groups| {
                let mut sink = Narrow { out: &out, stride, exponents, base, add: true };
                products::sweep(kernels, &made, matrix, acts, 0..rows, groups, &mut sink);
            });
            return;
        };
        let (wide, residual, width) = (Shared::new(wide), Shared::new(residual), matrix.rows());
        sinks::split(&mut self.pool, matrix.groups(), &|_, groups| {
            let mut sink = Keep { out: &wide, stride: width, offset: 0 };
            products::sweep(kernels, &made, matrix, acts, 0..rows, groups, &mut sink);
        });
        let normed = WideNormed { gain: &gain.values, epsilon: self.model.epsilon };
        let shift = NORM_BITS + gain.exponent - RESIDUAL_BITS;
        self.pool.run(rows, &|_, row| {
            // SAFETY: each row belongs to one piece.
            let (wide, out) =
                unsafe { (wide.part(row * width, width), residual.part(row * width, width)) };
            kernels.norm_wide(wide, matrix.exponent() + exponents[row], &normed);
            for (out, &added) in out.iter_mut().zip(&*wide) {
                let sum = i64::from(*out) + rescale(added, shift, LIMIT);
                *out = sum.clamp(-LIMIT, LIMIT) as i32;
            }
        });
    }
}
