//! Attention of one query head over one key-value head of the cache.
//!
//! The cache comes in pages. In each, keys lie as
//! `[position / 16][pair of dimensions][16 positions][2]`, values as
//! `[position / 2][dimension][2 positions]`: a lane is a position in the first
//! product, a dimension in the second. Sixteen-bit numbers times sixteen-bit
//! numbers don't fit 32-bit sums, so the query is split into two parts of 8 bits
//! and the weights into three, each summed in 32 bits and joined in 64.

use crate::arith::cap::Cap;
use crate::arith::tables::{EXP_LEN, Tables};
use crate::arith::{SCORE_BITS, SCORE_LIMIT, WEIGHT_BITS, bit_length, rescale, round_shift};
use crate::kv::{PAGE, head_len};

/// The most dimensions of a head: 255 · 32767 · 256 < 2^31.
pub(crate) const MAX_HEAD_DIMS: usize = 256;
/// Weighted values are summed in 32 bits page by page; the same bound.
const _: () = assert!(PAGE <= 256);

/// One query head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) values: &'a [i16],
    pub(crate) exponent: i32,
    /// `log2(e) / √d` at 2^-24.
    pub(crate) scale: i64,
    /// What scores are softly capped at.
    pub(crate) cap: Option<Cap>,
    pub(crate) tables: &'a Tables,
}

/// One key-value head of one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cache<'a> {
    /// The layer's part of each page.
    pub(crate) pages: &'a [&'a [i16]],
    pub(crate) head: usize,
    pub(crate) dims: usize,
    /// The first position to attend to.
    pub(crate) first: usize,
    /// The position after the last one, beyond `first`.
    pub(crate) len: usize,
}

/// Consecutive positions of one head within one page, whole blocks of 16.
struct Span<'a> {
    keys: &'a [i16],
    values: &'a [i16],
    key_exponents: &'a [i16],
    value_exponents: &'a [i16],
    /// Where its scores begin.
    at: usize,
    len: usize,
}

impl<'a> Cache<'a> {
    /// The position whose block is the first looked at, and the end of the last.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.first / 16 * 16, self.len.next_multiple_of(16))
    }

    /// The blocks from the window's first to its last, page by page.
    #[inline(always)]
    fn spans(&self) -> impl Iterator<Item = Span<'a>> {
        let Self { pages, head, dims, .. } = *self;
        let (start, end) = self.bounds();
        (start / PAGE..end.div_ceil(PAGE)).map(move |page| {
            let (from, to) = (start.max(page * PAGE), end.min((page + 1) * PAGE));
            let (skip, len) = (from % PAGE, to - from);
            let rows = &pages[page][head * head_len(dims)..][..head_len(dims)];
            let (keys, rest) = rows.split_at(PAGE * dims);
            let (values, exponents) = rest.split_at(PAGE * dims);
            let (key_exponents, value_exponents) = exponents.split_at(PAGE);
            Span {
                keys: &keys[skip * dims..][..len * dims],
                values: &values[skip * dims..][..len * dims],
                key_exponents: &key_exponents[skip..][..len],
                value_exponents: &value_exponents[skip..][..len],
                at: from - start,
                len,
            }
        })
    }
}

/// The two products, in a path's own instructions.
pub(super) trait Dots {
    /// Scores of 16 positions: `256 · (high · key) + low · key`.
    fn scores(high: &[i32], low: &[i32], keys: &[i16], out: &mut [i64; 16]);
    /// Adds the weighted values of `16 · N` dimensions over at most 256 positions;
    /// `stride` is the distance from one pair of positions to the next.
    fn blend<const N: usize>(weights: [&[i32]; 3], values: &[i16], stride: usize, out: &mut [i64]);
}

/// The output of the head in `out`; returns its exponent.
#[inline(always)]
pub(super) fn attend<D: Dots>(
    query: &Query<'_>,
    cache: &Cache<'_>,
    scratch: &mut Vec<i32>,
    out: &mut [i64],
) -> i32 {
    let dims = query.values.len();
    // Blocks before the window are never looked at; positions of its first and
    // last block that lie beyond it weigh nothing.
    let (start, end) = cache.bounds();
    let (live_from, live_to) = (cache.first - start, cache.len - start);
    scratch.resize((end - start) / 2 * 5, 0);
    let (scores, weights) = scratch.split_at_mut(end - start);
    score::<D>(query, cache, scores);
    if let Some(cap) = query.cap {
        let live = &mut scores[live_from..live_to];
        live.iter_mut().for_each(|t| *t = cap.apply(i64::from(*t), query.tables) as i32);
    }
    let total = weigh(query.tables, &mut scores[live_from..live_to]);
    scores[..live_from].fill(0);
    scores[live_to..].fill(0);
    let coarsest = coarsest_exponent(scores, cache);
    split_weights(scores, cache, coarsest, weights);
    let (reciprocal, bits) = reciprocal(total);
    let pairs = (end - start) / 2;
    let mut sums = [0i64; MAX_HEAD_DIMS];
    let mut first = 0;
    while first < dims {
        // 64 dimensions at a time where there are as many, else 16.
        let count = if dims - first >= 64 { 64 } else { 16 };
        for span in cache.spans() {
            let part = |piece: usize| &weights[piece * pairs + span.at / 2..][..span.len / 2];
            let parts = [part(0), part(1), part(2)];
            let (values, sums) = (&span.values[2 * first..], &mut sums[first..first + count]);
            if count == 64 {
                D::blend::<4>(parts, values, 2 * dims, sums);
            } else {
                D::blend::<1>(parts, values, 2 * dims, sums);
            }
        }
        first += count;
    }
    for (out, &sum) in out.iter_mut().zip(&sums[..dims]) {
        *out = round_shift(round_shift(sum, bits - 7).wrapping_mul(reciprocal), 37);
    }
    coarsest + WEIGHT_BITS
}

/// Base-2 logarithms of the unnormalised weights, at 2^-10, of every position.
#[inline(always)]
fn score<D: Dots>(query: &Query<'_>, cache: &Cache<'_>, scores: &mut [i32]) {
    let dims = query.values.len();
    let (mut high, mut low) = ([0i32; MAX_HEAD_DIMS / 2], [0i32; MAX_HEAD_DIMS / 2]);
    for ((high, low), q) in high.iter_mut().zip(&mut low).zip(query.values.chunks_exact(2)) {
        *high = pair(q[0] >> 8, q[1] >> 8);
        *low = pair(q[0] & 255, q[1] & 255);
    }
    let (high, low) = (&high[..dims / 2], &low[..dims / 2]);
    for span in cache.spans() {
        let scores = scores[span.at..][..span.len].chunks_exact_mut(16);
        let keys = span.keys.chunks_exact(16 * dims);
        for ((scores, keys), exponents) in scores.zip(keys).zip(span.key_exponents.chunks_exact(16))
        {
            let mut raw = [0i64; 16];
            D::scores(high, low, keys, &mut raw);
            scale(query, &raw, exponents, scores);
        }
    }
}

/// Brings 16 raw scores to their exponent.
#[inline(always)]
fn scale(query: &Query<'_>, raw: &[i64; 16], exponents: &[i16], scores: &mut [i32]) {
    let exponents: &[i16; 16] = exponents.first_chunk().unwrap_or(&[0; 16]);
    let base = query.exponent + 24 - SCORE_BITS;
    let shifts = exponents.map(|e| base.wrapping_add(i32::from(e)));
    if shifts.iter().all(|s| (1..=63).contains(s)) {
        // As `rescale`, without branches.
        for ((score, &raw), &shift) in scores.iter_mut().zip(raw).zip(&shifts) {
            let v = raw.wrapping_mul(query.scale).wrapping_shr(shift.wrapping_sub(1) as u32);
            *score = (v.wrapping_add(1) >> 1).clamp(-SCORE_LIMIT, SCORE_LIMIT) as i32;
        }
    } else {
        for lane in 0..16 {
            let v = raw[lane].wrapping_mul(query.scale);
            scores[lane] = rescale(v, shifts[lane], SCORE_LIMIT) as i32;
        }
    }
}

/// Scores become weights; returns their sum.
#[inline(always)]
fn weigh(tables: &Tables, scores: &mut [i32]) -> u64 {
    let best = scores.iter().fold(i32::MIN, |best, &t| best.max(t));
    let Some(table) = tables.exp.first_chunk::<{ EXP_LEN + 1 }>() else { return 0 };
    let mut total = 0u64;
    for score in scores {
        let below = best.wrapping_sub(*score) as u32 as usize;
        *score = table[below.min(EXP_LEN)];
        total = total.wrapping_add(*score as u64);
    }
    total
}

/// The smallest exponent among values that carry weight.
#[inline(always)]
fn coarsest_exponent(weights: &[i32], cache: &Cache<'_>) -> i32 {
    let mut coarsest = i16::MAX;
    for span in cache.spans() {
        for (&weight, &exponent) in weights[span.at..].iter().zip(span.value_exponents) {
            if weight > 0 {
                coarsest = coarsest.min(exponent);
            }
        }
    }
    i32::from(coarsest)
}

/// Brings weights to the coarsest value's exponent and splits them into three
/// parts of 8 bits, two positions a word.
#[inline(always)]
fn split_weights(scores: &[i32], cache: &Cache<'_>, coarsest: i32, weights: &mut [i32]) {
    let pairs = scores.len() / 2;
    let (first, rest) = weights.split_at_mut(pairs);
    let (second, third) = rest.split_at_mut(pairs);
    // Values without weight may be coarser; their weight is 0 anyway.
    let aligned = |score: i32, exponent: i16| {
        let shift = i32::from(exponent).wrapping_sub(coarsest).clamp(0, 31) as u32;
        // `round_shift(w << 9, shift)`; a shift of 26 and more leaves 0.
        (score << (WEIGHT_BITS + 1)).wrapping_shr(shift).wrapping_add(1) >> 1
    };
    for span in cache.spans() {
        let inputs = scores[span.at..].chunks_exact(2).zip(span.value_exponents.chunks_exact(2));
        let outputs = first[span.at / 2..].iter_mut().zip(&mut second[span.at / 2..]);
        let outputs = outputs.zip(&mut third[span.at / 2..]);
        for ((scores, exponents), ((first, second), third)) in inputs.zip(outputs) {
            let (a, b) = (aligned(scores[0], exponents[0]), aligned(scores[1], exponents[1]));
            *first = (a & 255) | (b & 255) << 16;
            *second = (a >> 8 & 255) | (b >> 8 & 255) << 16;
            *third = (a >> 16) | (b >> 16) << 16;
        }
    }
}

/// `floor(2^(b + 30) / z)` and `b`, the number of bits of `z`.
#[inline(always)]
fn reciprocal(z: u64) -> (i64, u32) {
    let bits = bit_length(z) as u32;
    (((1u128 << (bits + 30)) / u128::from(z)) as i64, bits)
}

/// Two 16-bit numbers in one word, the first in the lower half.
#[inline(always)]
fn pair(a: i16, b: i16) -> i32 {
    i32::from(a as u16) | i32::from(b) << 16
}

/// `sum + a_0 b_0 + a_1 b_1`, the `a` in one word.
#[inline(always)]
pub(super) fn dot_pair(sum: i32, a: i32, b: &[i16]) -> i32 {
    let (a0, a1) = (i32::from(a as i16), a >> 16);
    sum.wrapping_add(a0.wrapping_mul(i32::from(b[0])))
        .wrapping_add(a1.wrapping_mul(i32::from(b[1])))
}

/// Adds the three partial sums, at 1, 2^8 and 2^16.
#[inline(always)]
pub(super) fn join(sums: &[[i32; 16]; 3], out: &mut [i64]) {
    for (lane, out) in out[..16].iter_mut().enumerate() {
        let upper = (i64::from(sums[1][lane]) << 8).wrapping_add(i64::from(sums[2][lane]) << 16);
        *out = out.wrapping_add(i64::from(sums[0][lane])).wrapping_add(upper);
    }
}
