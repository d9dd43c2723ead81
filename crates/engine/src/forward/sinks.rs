//! Where products go: narrowed, kept wide, or through the gate.

#![allow(unsafe_code, reason = "pieces of a phase write to disjoint parts of shared slices")]

use std::ops::Range;

use crate::arith::cap::Cap;
use crate::arith::tables::{LOGISTIC_LEN, tables};
use crate::arith::{GATE_BITS, LIMIT, rescale, round_shift};
use crate::kernels::{Acts, Kernels, Sink};
use crate::pool::{Pool, Shared};

/// Pieces a thread gets on average: enough to even out, few enough to be cheap.
const PIECES_A_THREAD: usize = 4;

/// Runs `work(thread, groups)` over all groups in pieces.
pub(super) fn split(pool: &mut Pool, groups: usize, work: &(dyn Fn(usize, Range<usize>) + Sync)) {
    let threads = pool.threads();
    let pieces = if threads == 1 { 1 } else { (threads * PIECES_A_THREAD).min(groups) };
    pool.run(pieces, &|thread, piece| {
        work(thread, piece * groups / pieces..(piece + 1) * groups / pieces);
    });
}

/// Activation rows that pieces fill one row each.
pub(super) struct SharedActs<'a> {
    values: Shared<'a, i16>,
    sums: Shared<'a, i32>,
    exponents: Shared<'a, i32>,
    width: usize,
}

impl<'a> SharedActs<'a> {
    pub(super) fn new(acts: &'a mut Acts) -> Self {
        Self {
            width: acts.width,
            values: Shared::new(&mut acts.values),
            sums: Shared::new(&mut acts.sums),
            exponents: Shared::new(&mut acts.exponents),
        }
    }

    /// Row `row` of a buffer that pieces use one row each.
    #[allow(clippy::mut_from_ref, reason = "rows are disjoint, a piece a row")]
    pub(super) fn lend<'b>(
        &self,
        wide: &'b Shared<'_, i64>,
        row: usize,
        stride: usize,
    ) -> &'b mut [i64] {
        // SAFETY: each row belongs to one piece.
        unsafe { wide.part(row * stride, stride) }
    }

    /// Fills row `row` from wide values.
    pub(super) fn quantise(&self, kernels: Kernels, row: usize, wide: &[i64], exponent: i32) {
        let (width, blocks) = (self.width, self.width / 16);
        // SAFETY: each row belongs to one piece.
        let (values, sums, slot) = unsafe {
            (
                self.values.part(row * width, width),
                self.sums.part(row * blocks, blocks),
                self.exponents.part(row, 1),
            )
        };
        slot[0] = kernels.quantise(wide, exponent, values, sums);
    }
}

/// Keeps products as they are.
pub(super) struct Keep<'a> {
    pub(super) out: &'a Shared<'a, i64>,
    pub(super) stride: usize,
    pub(super) offset: usize,
}

impl Sink for Keep<'_> {
    #[inline(always)]
    fn take(&mut self, row: usize, group: usize, values: &[i64; 16]) {
        // SAFETY: each group of each row is taken once.
        let out = unsafe { self.out.part(row * self.stride + self.offset + 16 * group, 16) };
        out.copy_from_slice(values);
    }
}

/// Brings 16 products to 32 bits by one shift.
#[inline(always)]
fn narrow(values: &[i64; 16], shift: i32) -> [i32; 16] {
    let mut out = [0; 16];
    if (1..=63).contains(&shift) {
        let s = shift as u32 - 1;
        // As `rescale`, with the branches outside the loop.
        for (out, &v) in out.iter_mut().zip(values) {
            *out = ((v >> s).wrapping_add(1) >> 1).clamp(-LIMIT, LIMIT) as i32;
        }
    } else {
        for (out, &v) in out.iter_mut().zip(values) {
            *out = rescale(v, shift, LIMIT) as i32;
        }
    }
    out
}

/// Brings products to 32 bits at a fixed exponent, and stores or adds them.
pub(super) struct Narrow<'a> {
    pub(super) out: &'a Shared<'a, i32>,
    pub(super) stride: usize,
    /// The activation rows' exponents.
    pub(super) exponents: &'a [i32],
    /// The matrix's exponent less the target's.
    pub(super) base: i32,
    /// Adds to what is there, saturating, instead of replacing it.
    pub(super) add: bool,
}

impl Sink for Narrow<'_> {
    #[inline(always)]
    fn take(&mut self, row: usize, group: usize, values: &[i64; 16]) {
        let len = (self.stride - 16 * group).min(16);
        // SAFETY: each group of each row is taken once.
        let out = unsafe { self.out.part(row * self.stride + 16 * group, len) };
        let narrowed = narrow(values, self.base + self.exponents[row]);
        if self.add {
            for (out, &value) in out.iter_mut().zip(&narrowed) {
                *out = (i64::from(*out) + i64::from(value)).clamp(-LIMIT, LIMIT) as i32;
            }
        } else {
            out.copy_from_slice(&narrowed[..len]);
        }
    }
}

/// Caps logits softly, those that the same piece has just brought to 32 bits.
pub(super) fn cap(
    logits: &Shared<'_, i32>,
    stride: usize,
    rows: Range<usize>,
    groups: Range<usize>,
    cap: Cap,
) {
    let (first, last) = (16 * groups.start, (16 * groups.end).min(stride));
    for row in rows {
        // SAFETY: groups belong to one piece, the one that wrote them.
        let part = unsafe { logits.part(row * stride + first, last - first) };
        for logit in part {
            *logit = cap.apply(i64::from(*logit), tables()) as i32;
        }
    }
}

/// Multiplies the up projection with what the gate's curve makes of the gate.
pub(super) struct Gated<'a> {
    pub(super) gates: &'a Shared<'a, i32>,
    pub(super) out: &'a Shared<'a, i64>,
    pub(super) stride: usize,
    pub(super) exponents: &'a [i32],
    pub(super) base: i32,
    /// The tail of SiLU's or GELU's curve: points and falls.
    pub(super) curve: &'a [[i32; 2]],
}

impl Sink for Gated<'_> {
    #[inline(always)]
    fn take(&mut self, row: usize, group: usize, values: &[i64; 16]) {
        let at = row * self.stride + 16 * group;
        // SAFETY: each group of each row is taken once, by the piece that wrote its gates.
        let (gates, out) = unsafe { (self.gates.part(at, 16), self.out.part(at, 16)) };
        let up = narrow(values, self.base + self.exponents[row]);
        for ((out, &up), &gate) in out.iter_mut().zip(&up).zip(&*gates) {
            *out = i64::from(gated(gate, self.curve)).wrapping_mul(i64::from(up));
        }
    }
}

/// `x · (1 - tail(x))` at 2^-18, the tail by linear interpolation in its table:
/// with the logistic function's tail it is SiLU.
#[inline(always)]
pub(super) fn gated(x: i32, curve: &[[i32; 2]]) -> i32 {
    const STEP_BITS: u32 = GATE_BITS as u32 - 6;
    let size = x.unsigned_abs();
    let step = (size >> STEP_BITS) as usize;
    let tail = if step < LOGISTIC_LEN {
        let [point, fall] = curve[step];
        let rest = (size & ((1 << STEP_BITS) - 1)) as i32;
        point.wrapping_sub(fall.wrapping_mul(rest).wrapping_add(1 << (STEP_BITS - 1)) >> STEP_BITS)
    } else {
        0
    };
    let share = if x < 0 { tail } else { (1 << 24) - tail };
    round_shift(i64::from(x).wrapping_mul(i64::from(share)), 24) as i32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_arithmetic, reason = "tests compare with floats")]
    use super::*;

    fn check(curve: &[[i32; 2]], function: impl Fn(f64) -> f64) {
        for i in -60_000..60_000i32 {
            let x = f64::from(i) / 3000.0;
            let fixed = (x * 262_144.0).round() as i32;
            let (want, got) = (function(x), f64::from(gated(fixed, curve)) / 262_144.0);
            assert!((got - want).abs() < 1e-5 + want.abs() * 1e-5, "{x} {got} {want}");
        }
        assert_eq!(gated(i32::MAX, curve), i32::MAX);
        assert_eq!(gated(-i32::MAX, curve), 0);
        assert_eq!(gated(0, curve), 0);
    }

    #[test]
    fn curves_are_close_to_their_functions() {
        check(&tables().logistic, |x| x / (1.0 + (-x).exp()));
        let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
        check(&tables().gelu, |x| x / 2.0 * (1.0 + inner(x).tanh()));
    }
}
