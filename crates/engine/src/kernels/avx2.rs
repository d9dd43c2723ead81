//! The inner loops in 256-bit vectors: eight rows a vector.

#![allow(unsafe_code, reason = "vector instructions read through raw pointers")]
#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays of lanes")]

mod product;

use std::arch::x86_64::*;

use super::attend::{self, Cache, Dots, Query};
use super::rows::{self, Normed, WideNormed};
use crate::arith::tables::Curve;

pub(super) use product::sweep;

#[target_feature(enable = "avx2")]
pub(super) fn norm(x: &[i32], normed: &Normed<'_>, out: &mut [i64]) {
    rows::norm(x, normed, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn norm_wide(row: &mut [i64], exponent: i32, normed: &WideNormed<'_>) {
    rows::norm_wide(row, exponent, normed);
}

#[target_feature(enable = "avx2")]
pub(super) fn quantise(row: &[i64], exponent: i32, values: &mut [i16], sums: &mut [i32]) -> i32 {
    rows::quantise(row, exponent, values, sums)
}

#[target_feature(enable = "avx2")]
pub(super) fn gate(gates: &[i32], ups: &[i32], curve: &Curve, out: &mut [i64]) {
    rows::gate(gates, ups, curve, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn attend(
    query: &Query<'_>,
    cache: &Cache<'_>,
    scratch: &mut Vec<i32>,
    out: &mut [i64],
) -> i32 {
    attend::attend::<Avx2>(query, cache, scratch, out)
}

/// The two products of attention.
pub(super) struct Avx2;

impl Dots for Avx2 {
    #[inline(always)]
    fn scores(high: &[i32], low: &[i32], keys: &[i16], out: &mut [i64; 16]) {
        // SAFETY: `attend` above, compiled for the feature, is the only caller.
        unsafe { scores(high, low, keys, out) }
    }

    #[inline(always)]
    fn blend<const N: usize>(weights: [&[i32]; 3], values: &[i16], stride: usize, out: &mut [i64]) {
        // SAFETY: as above.
        unsafe { blend::<N>(weights, values, stride, out) }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn scores(high: &[i32], low: &[i32], keys: &[i16], out: &mut [i64; 16]) {
    assert!(keys.len() >= 32 * high.len() && low.len() == high.len());
    let mut sums = [[_mm256_setzero_si256(); 2]; 2];
    for (at, (&high, &low)) in high.iter().zip(low).enumerate() {
        let (high, low) = (_mm256_set1_epi32(high), _mm256_set1_epi32(low));
        for half in 0..2 {
            // SAFETY: the assertion above.
            let k = unsafe { _mm256_loadu_si256(keys.as_ptr().add(32 * at + 16 * half).cast()) };
            sums[0][half] = _mm256_add_epi32(sums[0][half], _mm256_madd_epi16(k, high));
            sums[1][half] = _mm256_add_epi32(sums[1][half], _mm256_madd_epi16(k, low));
        }
    }
    let [high, low] = sums.map(|lanes| store(lanes));
    for lane in 0..16 {
        out[lane] = (i64::from(high[lane]) << 8).wrapping_add(i64::from(low[lane]));
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn blend<const N: usize>(weights: [&[i32]; 3], values: &[i16], stride: usize, out: &mut [i64]) {
    let pairs = weights[0].len();
    assert!(weights[1].len() == pairs && weights[2].len() == pairs && out.len() >= 16 * N);
    assert!(pairs == 0 || values.len() >= stride * (pairs - 1) + 32 * N);
    // Sixteen dimensions at a time: more sums than that don't fit the registers.
    for n in 0..N {
        let mut sums = [[_mm256_setzero_si256(); 2]; 3];
        for at in 0..pairs {
            let weights =
                [weights[0][at], weights[1][at], weights[2][at]].map(|w| _mm256_set1_epi32(w));
            for half in 0..2 {
                // SAFETY: the assertions above.
                let v = unsafe {
                    _mm256_loadu_si256(values.as_ptr().add(stride * at + 32 * n + 16 * half).cast())
                };
                for part in 0..3 {
                    sums[part][half] =
                        _mm256_add_epi32(sums[part][half], _mm256_madd_epi16(v, weights[part]));
                }
            }
        }
        attend::join(&sums.map(|lanes| store(lanes)), &mut out[16 * n..]);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(halves: [__m256i; 2]) -> [i32; 16] {
    let mut lanes = [0i32; 16];
    // SAFETY: two vectors of 32 bytes fill the array.
    unsafe {
        _mm256_storeu_si256(lanes.as_mut_ptr().cast(), halves[0]);
        _mm256_storeu_si256(lanes.as_mut_ptr().add(8).cast(), halves[1]);
    }
    lanes
}
