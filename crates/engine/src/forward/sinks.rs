//! Where products go: narrowed or kept wide.

#![allow(unsafe_code, reason = "pieces of a phase write to disjoint parts of shared slices")]

use std::ops::Range;

use crate::arith::cap::Cap;
use crate::arith::tables::tables;
use crate::arith::{LIMIT, rescale};
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
