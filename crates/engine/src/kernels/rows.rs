//! Loops over one row, written so that a compiler vectorises them; each path
//! compiles its own copy.

use crate::arith::half::Exact;
use crate::arith::tables::{Curve, LOGISTIC_LEN};
use crate::arith::{
    GATE_BITS, NORM_BITS, ZERO_EXPONENT, bit_length, canonical_shift, inverse_root, norm_epsilon,
    round_shift,
};

/// What root-mean-square normalisation needs besides the row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normed<'a> {
    /// One gain per value.
    pub(crate) gain: &'a [i32],
    /// `round(ε · n · 2^(2·RESIDUAL_BITS))`, at least 1.
    pub(crate) epsilon: u64,
}

/// `out_i = round_shift(x_i · R, k - 20) · g_i` with `R` the reciprocal root.
#[inline(always)]
pub(super) fn norm(x: &[i32], normed: &Normed<'_>, out: &mut [i64]) {
    let (root, k) = inverse_root(x.len() as u64, sum_of_squares(x) + u128::from(normed.epsilon));
    // k ≥ 22: sums are at least 1 and rows at most 2^16 long, so it is above NORM_BITS.
    let (root, shift) = (root as i64, k - NORM_BITS as u32);
    for ((out, &x), &gain) in out.iter_mut().zip(x).zip(normed.gain) {
        let unit = round_shift(i64::from(x).wrapping_mul(root), shift) as i32;
        *out = i64::from(unit) * i64::from(gain);
    }
}

/// What normalising a row of wide integers needs besides the row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WideNormed<'a> {
    /// One gain per value.
    pub(crate) gain: &'a [i32],
    /// ε itself: what it adds depends on the row's exponent.
    pub(crate) epsilon: Exact,
}

/// A row of integers below 2^62 at `exponent` becomes `unit_i · g_i`: brought to
/// at most 30 bits, then as [`norm`].
#[inline(always)]
pub(super) fn norm_wide(row: &mut [i64], exponent: i32, normed: &WideNormed<'_>) {
    let max = row.iter().fold(0u64, |max, &v| max.max(v.unsigned_abs()));
    let drop = (bit_length(max) - 30).max(0);
    if drop > 0 {
        let s = drop as u32 - 1;
        row.iter_mut().for_each(|v| *v = (*v >> s).wrapping_add(1) >> 1);
    }
    // Squares are below 2^60 + 1 and rows below 2^16 long: halves can't wrap.
    let (mut low, mut high) = (0u64, 0u64);
    for &v in &*row {
        let square = i64::from(v as i32).wrapping_mul(i64::from(v as i32)) as u64;
        low = low.wrapping_add(square & 0xffff_ffff);
        high = high.wrapping_add(square >> 32);
    }
    let bits = exponent.saturating_sub(drop).saturating_mul(2);
    let added = norm_epsilon(normed.epsilon, row.len(), bits);
    let sum = (u128::from(high) << 32) + u128::from(low) + added;
    let (root, k) = inverse_root(row.len() as u64, sum);
    let (root, shift) = (root as i32, k - NORM_BITS as u32);
    for (v, &gain) in row.iter_mut().zip(normed.gain) {
        let wide = i64::from(*v as i32).wrapping_mul(i64::from(root));
        *v = round_shift(wide, shift).wrapping_mul(i64::from(gain));
    }
}

#[inline(always)]
fn sum_of_squares(x: &[i32]) -> u128 {
    let all = x.iter().fold(0u32, |all, &x| all | x.unsigned_abs());
    if 2 * bit_length(u64::from(all)) + bit_length(x.len() as u64) < 63 {
        let square = |x: i32| (i64::from(x) * i64::from(x)) as u64;
        return u128::from(x.iter().fold(0u64, |sum, &x| sum.wrapping_add(square(x))));
    }
    x.iter().map(|&x| u128::from(x.unsigned_abs()).pow(2)).sum()
}

/// Brings a row of `i64` below 2^62 to 16 bits by its canonical shift, sums
/// blocks of 16, and returns the new exponent.
#[inline(always)]
pub(super) fn quantise(row: &[i64], exponent: i32, values: &mut [i16], sums: &mut [i32]) -> i32 {
    let max = row.iter().fold(0u64, |max, &v| max.max(v.unsigned_abs()));
    values[row.len()..].fill(0);
    if max == 0 {
        values.fill(0);
        sums.fill(0);
        return ZERO_EXPONENT;
    }
    let shift = canonical_shift(max);
    let values_of_row = &mut values[..row.len()];
    if shift > 0 {
        let s = shift as u32;
        for (out, &v) in values_of_row.iter_mut().zip(row) {
            *out = ((v >> (s - 1)).wrapping_add(1) >> 1) as i16;
        }
    } else {
        let s = shift.unsigned_abs();
        for (out, &v) in values_of_row.iter_mut().zip(row) {
            *out = (v << s) as i16;
        }
    }
    for (sum, block) in sums.iter_mut().zip(values.chunks_exact(16)) {
        *sum = block.iter().fold(0i32, |sum, &v| sum.wrapping_add(i32::from(v)));
    }
    exponent - shift
}

/// `x · (1 - tail(x)) · up` at twice 2^-18 for every gate `x`, the tail by
/// linear interpolation in its table and 0 beyond: with the logistic function's
/// tail `x · (1 - tail(x))` is SiLU.
#[inline(always)]
pub(super) fn gate(gates: &[i32], ups: &[i32], curve: &Curve, out: &mut [i64]) {
    const STEP_BITS: u32 = GATE_BITS as u32 - 6;
    for ((out, &x), &up) in out.iter_mut().zip(gates).zip(ups) {
        let size = x.unsigned_abs();
        let step = (size >> STEP_BITS) as usize;
        // Looked up wherever it is, so that a vector has no branch.
        let [point, fall] = curve[step.min(LOGISTIC_LEN - 1)];
        let rest = (size & ((1 << STEP_BITS) - 1)) as i32;
        let fallen = fall.wrapping_mul(rest).wrapping_add(1 << (STEP_BITS - 1)) >> STEP_BITS;
        let tail = if step < LOGISTIC_LEN { point.wrapping_sub(fallen) } else { 0 };
        let share = if x < 0 { tail } else { (1 << 24) - tail };
        let wide = i64::from(x).wrapping_mul(i64::from(share));
        let gated = (wide.wrapping_add(1 << 23) >> 24) as i32;
        *out = i64::from(gated).wrapping_mul(i64::from(up));
    }
}
