//! The feed-forward half of a layer.

use super::Runner;
use super::products::{self, Tap};
use super::residual::Source;
use super::scratch::Scratch;
use super::sinks::{self, Narrow, SharedActs};
use crate::arith::GATE_BITS;
use crate::pool::Shared;
use crate::transformer::Layer;

impl Runner {
    /// `down(curve(gate(x)) · up(x))`, added to the residual.
    pub(super) fn feed(&mut self, rows: usize, layer: &Layer, tap: &mut Tap<'_>) {
        let (kernels, feed) = (self.kernels, self.model.shape().feed);
        let curve = if self.model.gelu() { &Self::tables().gelu } else { &Self::tables().logistic };
        let Scratch { inputs, gates, ups, hidden, fed, .. } = &mut self.scratch;
        {
            let (inputs, exponents) = (&*inputs, &inputs.exponents);
            let (gates, ups) = (Shared::new(gates), Shared::new(ups));
            let made = [&layer.gate, &layer.up].map(|it| products::made(tap, it, inputs));
            sinks::split(&mut self.pool, layer.gate.groups(), &|_, groups| {
                let both = [(&layer.gate, &gates), (&layer.up, &ups)];
                for ((matrix, out), made) in both.into_iter().zip(&made) {
                    let base = matrix.exponent() - GATE_BITS;
                    let mut sink = Narrow { out, stride: feed, exponents, base, add: false };
                    let groups = groups.clone();
                    products::sweep(kernels, made, matrix, inputs, 0..rows, groups, &mut sink);
                }
            });
        }
        {
            let (gates, ups) = (&*gates, &*ups);
            let (wide, out) = (Shared::new(hidden), SharedActs::new(fed));
            self.pool.run(rows, &|_, row| {
                let (wide, of) = (out.lend(&wide, row, feed), row * feed..(row + 1) * feed);
                kernels.gate(&gates[of.clone()], &ups[of], curve, wide);
                out.quantise(kernels, row, wide, 2 * GATE_BITS);
            });
        }
        self.add(rows, &layer.down, Source::Feed, layer.post_feed.as_ref(), tap);
    }
}
