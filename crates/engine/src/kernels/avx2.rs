//! The inner loops in 256-bit vectors: eight rows a vector.

#![allow(unsafe_code, reason = "vector instructions read through raw pointers")]
#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays of lanes")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::attend::{self, Cache, Dots, Query};
use super::rows::{self, Normed, WideNormed};
use super::{Acts, Sink};
use crate::weights::{Matrix, Packing};

const Q4_0: u8 = 0;
const Q4_1: u8 = 1;
const Q8_0: u8 = 2;
const DENSE: u8 = 3;

/// How far ahead a single row asks for weights.
const PREFETCH_BYTES: usize = 4096;

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
pub(super) fn attend(
    query: &Query<'_>,
    cache: &Cache<'_>,
    scratch: &mut Vec<i32>,
    out: &mut [i64],
) -> i32 {
    attend::attend::<Avx2>(query, cache, scratch, out)
}

#[target_feature(enable = "avx2")]
pub(super) fn sweep<S: Sink>(
    matrix: &Matrix,
    acts: &Acts,
    rows: Range<usize>,
    groups: Range<usize>,
    sink: &mut S,
) {
    match matrix.packing() {
        Packing::Q4_0 => sweep_as::<S, Q4_0>(matrix, acts, rows, groups, sink),
        Packing::Q4_1 => sweep_as::<S, Q4_1>(matrix, acts, rows, groups, sink),
        Packing::Q8_0 => sweep_as::<S, Q8_0>(matrix, acts, rows, groups, sink),
        Packing::Dense => sweep_as::<S, DENSE>(matrix, acts, rows, groups, sink),
    }
}

/// Each group is read once from memory and stays in the nearest cache while all
/// rows pass over it, four at a time.
#[target_feature(enable = "avx2")]
fn sweep_as<S: Sink, const KIND: u8>(
    matrix: &Matrix,
    acts: &Acts,
    rows: Range<usize>,
    groups: Range<usize>,
    sink: &mut S,
) {
    for group in groups {
        let blocks = matrix.group(group);
        let mut row = rows.start;
        while row < rows.end {
            let taken = (rows.end - row).min(4);
            match taken {
                4 => tile::<S, KIND, 4>(blocks, acts, row, group, sink),
                3 => tile::<S, KIND, 3>(blocks, acts, row, group, sink),
                2 => tile::<S, KIND, 2>(blocks, acts, row, group, sink),
                _ => tile::<S, KIND, 1>(blocks, acts, row, group, sink),
            }
            row += taken;
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn tile<S: Sink, const KIND: u8, const T: usize>(
    blocks: &[u8],
    acts: &Acts,
    row: usize,
    group: usize,
    sink: &mut S,
) {
    let values: [&[i16]; T] =
        std::array::from_fn(|t| &acts.values[(row + t) * acts.width..][..acts.width]);
    let per_row = acts.width / 32;
    let sums: [&[i32]; T] = std::array::from_fn(|t| &acts.sums[(row + t) * per_row..][..per_row]);
    let mut out = [[0i64; 16]; T];
    half_tile::<KIND, T, 0>(blocks, &values, &sums, &mut out);
    half_tile::<KIND, T, 1>(blocks, &values, &sums, &mut out);
    for (t, out) in out.iter().enumerate() {
        sink.take(row + t, group, out);
    }
}

/// Rows `8 · HALF ..` of the group.
#[target_feature(enable = "avx2")]
#[inline]
fn half_tile<const KIND: u8, const T: usize, const HALF: usize>(
    blocks: &[u8],
    values: &[&[i16]; T],
    sums: &[&[i32]; T],
    out: &mut [[i64; 16]; T],
) {
    let bytes = match KIND {
        Q4_0 => 288,
        Q4_1 => 320,
        Q8_0 => 544,
        _ => 2048,
    };
    let mut acc = [[_mm256_setzero_si256(); 2]; T];
    for (at, block) in blocks.chunks_exact(bytes).enumerate() {
        // SAFETY: `block` has the `bytes` of its format, and every row has 32
        // values and one sum for each block of the group.
        unsafe {
            let base = block.as_ptr();
            if T == 1 && HALF == 0 {
                prefetch(base, bytes);
            }
            let a: [*const i32; T] =
                std::array::from_fn(|t| values[t].as_ptr().add(32 * at).cast());
            let sum: [i32; T] = std::array::from_fn(|t| *sums[t].get_unchecked(at));
            match KIND {
                Q4_0 | Q4_1 => {
                    let mut inner = nibbles::<T>(base.add(32 * HALF), &a);
                    if KIND == Q4_0 {
                        for t in 0..T {
                            inner[t] = _mm256_sub_epi32(inner[t], _mm256_set1_epi32(8 * sum[t]));
                        }
                    }
                    add_scaled(&inner, scales(base.add(256 + 16 * HALF)), &mut acc);
                    if KIND == Q4_1 {
                        let sums: [__m256i; T] = std::array::from_fn(|t| _mm256_set1_epi32(sum[t]));
                        add_scaled(&sums, scales(base.add(288 + 16 * HALF)), &mut acc);
                    }
                }
                Q8_0 => {
                    let mut inner = [_mm256_setzero_si256(); T];
                    for pair in 0..16 {
                        let w = _mm256_cvtepi8_epi16(_mm_loadu_si128(
                            base.add(32 * pair + 16 * HALF).cast(),
                        ));
                        add_pair(&mut inner, w, &a, pair);
                    }
                    add_scaled(&inner, scales(base.add(512 + 16 * HALF)), &mut acc);
                }
                _ => {
                    for (part, scale) in [(0, 1024), (1024, 1)] {
                        let mut inner = [_mm256_setzero_si256(); T];
                        for pair in 0..16 {
                            let w =
                                _mm256_loadu_si256(base.add(part + 64 * pair + 32 * HALF).cast());
                            add_pair(&mut inner, w, &a, pair);
                        }
                        add_scaled(&inner, _mm256_set1_epi32(scale), &mut acc);
                    }
                }
            }
        }
    }
    for (out, [even, odd]) in out.iter_mut().zip(acc) {
        let (mut e, mut o) = ([0i64; 4], [0i64; 4]);
        // SAFETY: both arrays have 32 bytes.
        unsafe {
            _mm256_storeu_si256(e.as_mut_ptr().cast(), even);
            _mm256_storeu_si256(o.as_mut_ptr().cast(), odd);
        }
        for lane in 0..4 {
            out[8 * HALF + 2 * lane] = e[lane];
            out[8 * HALF + 2 * lane + 1] = o[lane];
        }
    }
}

/// Asks for the memory a few blocks on: a single row of activations passes over
/// the weights faster than the processor foresees at page ends.
#[target_feature(enable = "avx2")]
#[inline]
fn prefetch(base: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // A hint; the address may lie beyond the matrix.
        _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(PREFETCH_BYTES + line).cast());
    }
}

/// Sums of 32 nibbles times activations.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn nibbles<const T: usize>(base: *const u8, a: &[*const i32; T]) -> [__m256i; T] {
    let mask = _mm256_set1_epi32(0x000f_000f);
    let mut inner = [_mm256_setzero_si256(); T];
    for word in 0..4 {
        // SAFETY: the caller's block holds four words for 16 rows.
        unsafe {
            let w = _mm256_loadu_si256(base.add(64 * word).cast());
            add_pair(&mut inner, _mm256_and_si256(w, mask), a, 4 * word);
            add_pair(&mut inner, _mm256_and_si256(_mm256_srli_epi32(w, 4), mask), a, 4 * word + 1);
            add_pair(&mut inner, _mm256_and_si256(_mm256_srli_epi32(w, 8), mask), a, 4 * word + 2);
            add_pair(&mut inner, _mm256_and_si256(_mm256_srli_epi32(w, 12), mask), a, 4 * word + 3);
        }
    }
    inner
}

/// INVARIANT: the sum of two products and all sums stay below 2^31: |q| ≤ 1023,
/// |a| ≤ 32767, 32 terms.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn add_pair<const T: usize>(
    inner: &mut [__m256i; T],
    w: __m256i,
    a: &[*const i32; T],
    pair: usize,
) {
    for t in 0..T {
        // SAFETY: the caller's rows hold 16 pairs.
        let a = _mm256_set1_epi32(unsafe { a[t].add(pair).read_unaligned() });
        inner[t] = _mm256_add_epi32(inner[t], _mm256_madd_epi16(w, a));
    }
}

#[target_feature(enable = "avx2")]
#[inline]
unsafe fn scales(base: *const u8) -> __m256i {
    // SAFETY: the caller's block holds eight scales here.
    let words = _mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(base.cast()) });
    let shift = _mm256_and_si256(words, _mm256_set1_epi32(15));
    _mm256_sllv_epi32(_mm256_srai_epi32(words, 4), shift)
}

/// `acc += inner · scale` in 64 bits, even and odd lanes apart.
#[target_feature(enable = "avx2")]
#[inline]
fn add_scaled<const T: usize>(inner: &[__m256i; T], scale: __m256i, acc: &mut [[__m256i; 2]; T]) {
    let odd_scale = _mm256_srli_epi64(scale, 32);
    for (acc, &inner) in acc.iter_mut().zip(inner) {
        let odd = _mm256_srli_epi64(inner, 32);
        acc[0] = _mm256_add_epi64(acc[0], _mm256_mul_epi32(inner, scale));
        acc[1] = _mm256_add_epi64(acc[1], _mm256_mul_epi32(odd, odd_scale));
    }
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
