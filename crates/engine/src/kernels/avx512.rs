//! The inner loops in 512-bit vectors: sixteen rows a vector.

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

/// Sums of 32 integers, as 16 pairs, times activations.
macro_rules! pairs {
    ($inner:expr, $a:expr, $load:expr) => {{
        pairs!(@ $inner, $a, $load, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    }};
    (@ $inner:expr, $a:expr, $load:expr, $($pair:literal)*) => {{
        let (inner, a, load) = ($inner, $a, $load);
        $(add_pair::<T, $pair>(inner, load($pair), a);)*
    }};
}

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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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
    let bytes = match KIND {
        Q4_0 => 288,
        Q4_1 => 320,
        Q8_0 => 544,
        _ => 2048,
    };
    let mut acc = [[_mm512_setzero_si512(); 2]; T];
    for (at, block) in blocks.chunks_exact(bytes).enumerate() {
        // SAFETY: `block` has the `bytes` of its format, and every row has 32
        // values and one sum for each block of the group.
        unsafe {
            let base = block.as_ptr();
            if T == 1 {
                prefetch(base, bytes);
            }
            let a: [*const i32; T] =
                std::array::from_fn(|t| values[t].as_ptr().add(32 * at).cast());
            let sum: [i32; T] = std::array::from_fn(|t| *sums[t].get_unchecked(at));
            match KIND {
                Q4_0 | Q4_1 => {
                    let mut inner = nibbles::<T>(base, &a);
                    if KIND == Q4_0 {
                        for t in 0..T {
                            inner[t] = _mm512_sub_epi32(inner[t], _mm512_set1_epi32(8 * sum[t]));
                        }
                    }
                    add_scaled(&inner, scales(base.add(256)), &mut acc);
                    if KIND == Q4_1 {
                        let sums: [__m512i; T] = std::array::from_fn(|t| _mm512_set1_epi32(sum[t]));
                        add_scaled(&sums, scales(base.add(288)), &mut acc);
                    }
                }
                Q8_0 => {
                    let mut inner = [_mm512_setzero_si512(); T];
                    pairs!(&mut inner, &a, |pair: usize| {
                        _mm512_cvtepi8_epi16(_mm256_loadu_si256(base.add(32 * pair).cast()))
                    });
                    add_scaled(&inner, scales(base.add(512)), &mut acc);
                }
                _ => {
                    for (part, scale) in [(0, 1024), (1024, 1)] {
                        let mut inner = [_mm512_setzero_si512(); T];
                        pairs!(&mut inner, &a, |pair: usize| {
                            _mm512_loadu_si512(base.add(part + 64 * pair).cast())
                        });
                        add_scaled(&inner, _mm512_set1_epi32(scale), &mut acc);
                    }
                }
            }
        }
    }
    for (t, sums) in acc.into_iter().enumerate() {
        sink.take(row + t, group, &in_order(sums));
    }
}

/// The sixteen sums of a group, from the vectors of the even and the odd rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn in_order([even, odd]: [__m512i; 2]) -> [i64; 16] {
    let first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    let last = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    let mut out = [0i64; 16];
    // SAFETY: two vectors of 64 bytes fill the array.
    unsafe {
        let to = out.as_mut_ptr();
        _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi64(even, first, odd));
        _mm512_storeu_si512(to.add(8).cast(), _mm512_permutex2var_epi64(even, last, odd));
    }
    out
}

/// Asks for the memory a few blocks on: a single row of activations passes over
/// the weights faster than the processor foresees at page ends.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn prefetch(base: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // A hint; the address may lie beyond the matrix.
        _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(PREFETCH_BYTES + line).cast());
    }
}

/// Sums of 32 nibbles times activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn nibbles<const T: usize>(base: *const u8, a: &[*const i32; T]) -> [__m512i; T] {
    let mask = _mm512_set1_epi32(0x000f_000f);
    let mut inner = [_mm512_setzero_si512(); T];
    macro_rules! word {
        ($word:literal, $first:literal) => {
            let w = _mm512_loadu_si512(base.add(64 * $word).cast());
            add_pair::<T, $first>(&mut inner, _mm512_and_si512(w, mask), a);
            let next = _mm512_srli_epi32(w, 4);
            add_pair::<T, { $first + 1 }>(&mut inner, _mm512_and_si512(next, mask), a);
            let next = _mm512_srli_epi32(w, 8);
            add_pair::<T, { $first + 2 }>(&mut inner, _mm512_and_si512(next, mask), a);
            let next = _mm512_srli_epi32(w, 12);
            add_pair::<T, { $first + 3 }>(&mut inner, _mm512_and_si512(next, mask), a);
        };
    }
    // SAFETY: the caller's block holds four words for 16 rows.
    unsafe {
        word!(0, 0);
        word!(1, 4);
        word!(2, 8);
        word!(3, 12);
    }
    inner
}

/// INVARIANT: the sum of two products and all sums stay below 2^31: |q| ≤ 1023,
/// |a| ≤ 32767, 32 terms.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn add_pair<const T: usize, const PAIR: usize>(
    inner: &mut [__m512i; T],
    w: __m512i,
    a: &[*const i32; T],
) {
    for t in 0..T {
        // SAFETY: the caller's rows hold 16 pairs; the instruction reads one of
        // them and touches nothing else.
        unsafe {
            if T == 1 {
                let a = _mm512_set1_epi32(a[t].add(PAIR).read_unaligned());
                inner[t] = _mm512_dpwssd_epi32(inner[t], w, a);
            } else {
                // The compiler would split the intrinsic into a product and a sum:
                // shorter for one chain, twice the work where many run abreast.
                std::arch::asm!(
                    "vpdpwssd {sum}, {w}, dword ptr [{a} + {at}]{{1to16}}",
                    sum = inout(zmm_reg) inner[t],
                    w = in(zmm_reg) w,
                    a = in(reg) a[t],
                    at = const 4 * PAIR,
                    options(pure, readonly, nostack, preserves_flags)
                );
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn scales(base: *const u8) -> __m512i {
    // SAFETY: the caller's block holds sixteen scales here.
    let words = _mm512_cvtepi16_epi32(unsafe { _mm256_loadu_si256(base.cast()) });
    let shift = _mm512_and_si512(words, _mm512_set1_epi32(15));
    _mm512_sllv_epi32(_mm512_srai_epi32(words, 4), shift)
}

/// `acc += inner · scale` in 64 bits, even and odd lanes apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn add_scaled<const T: usize>(inner: &[__m512i; T], scale: __m512i, acc: &mut [[__m512i; 2]; T]) {
    let odd_scale = _mm512_srli_epi64(scale, 32);
    for (acc, &inner) in acc.iter_mut().zip(inner) {
        let odd = _mm512_srli_epi64(inner, 32);
        acc[0] = _mm512_add_epi64(acc[0], _mm512_mul_epi32(inner, scale));
        acc[1] = _mm512_add_epi64(acc[1], _mm512_mul_epi32(odd, odd_scale));
    }
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
