//! The inner loops in 512-bit vectors: sixteen rows a vector.

#![allow(unsafe_code, reason = "vector instructions read through raw pointers")]
#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays of lanes")]

mod product;

use std::arch::x86_64::*;

use super::attend::{self, Cache, Dots, Query};
use super::rows::{self, Normed, WideNormed};

pub(super) use product::sweep;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn norm(x: &[i32], normed: &Normed<'_>, out: &mut [i64]) {
    rows::norm(x, normed, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn norm_wide(row: &mut [i64], exponent: i32, normed: &WideNormed<'_>) {
    rows::norm_wide(row, exponent, normed);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn quantise(row: &[i64], exponent: i32, values: &mut [i16], sums: &mut [i32]) -> i32 {
    rows::quantise(row, exponent, values, sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn attend(
    query: &Query<'_>,
    cache: &Cache<'_>,
    scratch: &mut Vec<i32>,
    out: &mut [i64],
) -> i32 {
    attend::attend::<Avx512>(query, cache, scratch, out)
}

/// The two products of attention.
pub(super) struct Avx512;

impl Dots for Avx512 {
    #[inline(always)]
    fn scores(high: &[i32], low: &[i32], keys: &[i16], out: &mut [i64; 16]) {
        // SAFETY: `attend` above, compiled for the features, is the only caller.
        unsafe { scores(high, low, keys, out) }
    }

    #[inline(always)]
    fn blend<const N: usize>(weights: [&[i32]; 3], values: &[i16], stride: usize, out: &mut [i64]) {
        // SAFETY: as above.
        unsafe { blend::<N>(weights, values, stride, out) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn scores(high: &[i32], low: &[i32], keys: &[i16], out: &mut [i64; 16]) {
    assert!(
        keys.len() >= 32 * high.len() && low.len() == high.len() && high.len().is_multiple_of(2)
    );
    // Two chains of sums for each part: a single one would wait for itself.
    let mut sums = [_mm512_setzero_si512(); 4];
    let pairs = high.chunks_exact(2).zip(low.chunks_exact(2));
    for ((high, low), keys) in pairs.zip(keys.chunks_exact(64)) {
        for chain in 0..2 {
            // SAFETY: `keys` holds 64 values.
            let k = unsafe { _mm512_loadu_si512(keys.as_ptr().add(32 * chain).cast()) };
            sums[chain] = _mm512_dpwssd_epi32(sums[chain], k, _mm512_set1_epi32(high[chain]));
            sums[2 + chain] =
                _mm512_dpwssd_epi32(sums[2 + chain], k, _mm512_set1_epi32(low[chain]));
        }
    }
    let high = store(_mm512_add_epi32(sums[0], sums[1]));
    let low = store(_mm512_add_epi32(sums[2], sums[3]));
    for lane in 0..16 {
        out[lane] = (i64::from(high[lane]) << 8).wrapping_add(i64::from(low[lane]));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn blend<const N: usize>(weights: [&[i32]; 3], values: &[i16], stride: usize, out: &mut [i64]) {
    let pairs = weights[0].len();
    assert!(weights[1].len() == pairs && weights[2].len() == pairs && out.len() >= 16 * N);
    assert!(pairs == 0 || values.len() >= stride * (pairs - 1) + 32 * N);
    let mut sums = [[_mm512_setzero_si512(); 3]; N];
    for at in 0..pairs {
        let weights =
            [weights[0][at], weights[1][at], weights[2][at]].map(|w| _mm512_set1_epi32(w));
        for n in 0..N {
            // SAFETY: the assertions above.
            let v = unsafe { _mm512_loadu_si512(values.as_ptr().add(stride * at + 32 * n).cast()) };
            for part in 0..3 {
                sums[n][part] = _mm512_dpwssd_epi32(sums[n][part], v, weights[part]);
            }
        }
    }
    for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(16)) {
        attend::join(&sums.map(|lanes| store(lanes)), out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn store(lanes: __m512i) -> [i32; 16] {
    let mut out = [0i32; 16];
    // SAFETY: one vector of 64 bytes fills the array.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), lanes) };
    out
}
