//! The feed-forward half of a layer.

use super::Runner;
use super::residual::Source;
use super::scratch::Scratch;
use super::sinks::{self, Gated, Narrow, SharedActs};
use crate::arith::GATE_BITS;
use crate::pool::Shared;
use crate::transformer::Layer;

impl Runner {
    /// `down(curve(gate(x)) · up(x))`, added to the residual.
    pub(super) fn feed(&mut self, rows: usize, layer: &Layer) {
        let (kernels, feed) = (self.kernels, self.model.shape().feed);
        let curve = if self.model.gelu() { &Self::tables().gelu } else { &Self::tables().logistic };
        let Scratch { inputs, gates, hidden, fed, .. } = &mut self.scratch;
        {
            let (inputs, exponents) = (&*inputs, &inputs.exponents);
            let (gates, out) = (Shared::new(gates), Shared::new(hidden));
            sinks::split(&mut self.pool, layer.gate.groups(), &|_, groups| {
                let base = layer.gate.exponent() - GATE_BITS;
                let mut sink = Narrow { out: &gates, stride: feed, exponents, base, add: false };
                kernels.sweep(&layer.gate, inputs, 0..rows, groups.clone(), &mut sink);
                let base = layer.up.exponent() - GATE_BITS;
                let mut sink =
                    Gated { gates: &gates, out: &out, stride: feed, exponents, base, curve };
                kernels.sweep(&layer.up, inputs, 0..rows, groups, &mut sink);
            });
        }
        {
            let (wide, out) = (Shared::new(hidden), SharedActs::new(fed));
            self.pool.run(rows, &|_, row| {
                out.quantise(kernels, row, out.lend(&wide, row, feed), 2 * GATE_BITS);
            });
        }
        self.add(rows, &layer.down, Source::Feed, layer.post_feed.as_ref());
    }
}
