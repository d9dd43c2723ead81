//! The inner loops in 512-bit vectors: sixteen rows a vector.

#![allow(unsafe_code, reason = "vector instructions read through raw pointers")]
#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays of lanes")]

mod product;

use std::arch::x86_64::*;

use super::attend::{self, Cache, Dots, Query};
use super::rows::{self, Normed, WideNormed};
use crate::arith::GATE_BITS;
use crate::arith::tables::{Curve, LOGISTIC_LEN};

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
pub(super) fn gate(gates: &[i32], ups: &[i32], curve: &Curve, out: &mut [i64]) {
    let (sixteens, rest) = gates.as_chunks::<16>();
    let (ups, more_ups) = ups.split_at(gates.len() - rest.len());
    let (wide, more) = out.split_at_mut(gates.len() - rest.len());
    let (wide, _) = wide.as_chunks_mut::<16>();
    let (ups, _) = ups.as_chunks::<16>();
    for ((out, gates), ups) in wide.iter_mut().zip(sixteens).zip(ups) {
        gate_sixteen(gates, ups, curve, out);
    }
    rows::gate(rest, more_ups, curve, more);
}

/// As [`rows::gate`]: a compiler would look the points up one by one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn gate_sixteen(gates: &[i32; 16], ups: &[i32; 16], curve: &Curve, out: &mut [i64; 16]) {
    const LAST: i32 = LOGISTIC_LEN as i32 - 1;
    // SAFETY: both arrays have 64 bytes.
    let [x, up] = [gates, ups].map(|of| unsafe { _mm512_loadu_si512(of.as_ptr().cast()) });
    let size = _mm512_abs_epi32(x);
    let step = _mm512_srli_epi32(size, GATE_BITS as u32 - 6);
    let last = _mm512_set1_epi32(LAST);
    let inside = _mm512_cmple_epu32_mask(step, last);
    let index = _mm512_min_epu32(step, last);
    let table: *const i32 = curve.as_ptr().cast();
    // SAFETY: the table has pairs of 32 bits up to the last index.
    let [point, fall] = unsafe {
        [
            _mm512_i32gather_epi32::<8>(index, table),
            _mm512_i32gather_epi32::<8>(index, table.add(1)),
        ]
    };
    let rest = _mm512_and_si512(size, _mm512_set1_epi32((1 << (GATE_BITS - 6)) - 1));
    let half = _mm512_set1_epi32(1 << (GATE_BITS - 7));
    let fallen = _mm512_add_epi32(_mm512_mullo_epi32(fall, rest), half);
    let fallen = _mm512_srai_epi32(fallen, GATE_BITS as u32 - 6);
    let tail = _mm512_maskz_sub_epi32(inside, point, fallen);
    let negative = _mm512_movepi32_mask(x);
    let one = _mm512_set1_epi32(1 << 24);
    let share = _mm512_mask_mov_epi32(_mm512_sub_epi32(one, tail), negative, tail);
    for half in 0..2 {
        let part = |v: __m512i| {
            let v = if half == 0 {
                _mm512_castsi512_si256(v)
            } else {
                _mm512_extracti64x4_epi64::<1>(v)
            };
            _mm512_cvtepi32_epi64(v)
        };
        let wide = _mm512_mul_epi32(part(x), part(share));
        let wide = _mm512_add_epi64(wide, _mm512_set1_epi64(1 << 23));
        let gated = _mm512_srai_epi64(wide, 24);
        // SAFETY: half the array has 64 bytes.
        unsafe {
            let to = out.as_mut_ptr().add(8 * half);
            _mm512_storeu_si512(to.cast(), _mm512_mul_epi32(gated, part(up)));
        }
    }
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
