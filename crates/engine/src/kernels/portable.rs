//! The plain form of every inner loop: the definition the others are tested
//! against, and what runs on a processor without a form of its own.

use std::ops::Range;

use super::attend::{self, Cache, Dots, Query};
use super::rows::{self, Normed, WideNormed};
use super::{Acts, Sink};
use crate::arith::tables::Curve;
use crate::pack::{CHOICES, Layout, Levels, Packing};
use crate::weights::Matrix;

pub(super) fn norm(x: &[i32], normed: &Normed<'_>, out: &mut [i64]) {
    rows::norm(x, normed, out);
}

pub(super) fn norm_wide(row: &mut [i64], exponent: i32, normed: &WideNormed<'_>) {
    rows::norm_wide(row, exponent, normed);
}

pub(super) fn quantise(row: &[i64], exponent: i32, values: &mut [i16], sums: &mut [i32]) -> i32 {
    rows::quantise(row, exponent, values, sums)
}

pub(super) fn gate(gates: &[i32], ups: &[i32], curve: &Curve, out: &mut [i64]) {
    rows::gate(gates, ups, curve, out);
}

pub(super) fn attend(
    query: &Query<'_>,
    cache: &Cache<'_>,
    scratch: &mut Vec<i32>,
    out: &mut [i64],
) -> i32 {
    attend::attend::<Plain>(query, cache, scratch, out)
}

/// Rows of activations that share the decoding of a block.
const TILE: usize = 8;

/// The product of one group's blocks with as many activation rows as there is
/// room for sums, from a given one on.
type Tile = fn(&[u8], &Acts, usize, &mut [[i64; 16]]);

pub(super) fn sweep<S: Sink>(
    matrix: &Matrix,
    acts: &Acts,
    rows: Range<usize>,
    groups: Range<usize>,
    sink: &mut S,
) {
    let tile = tile_of(matrix.packing());
    for group in groups {
        let blocks = matrix.group(group);
        let mut first = rows.start;
        while first < rows.end {
            let count = (rows.end - first).min(TILE);
            let mut out = [[0i64; 16]; TILE];
            tile(blocks, acts, first, &mut out[..count]);
            for (row, out) in (first..).zip(&out[..count]) {
                sink.take(row, group, out);
            }
            first += count;
        }
    }
}

/// The tile of a packing, compiled for that packing alone: shifts and masks are
/// constants there.
fn tile_of(packing: Packing) -> Tile {
    match packing {
        Packing::Dense => |blocks, acts, row, out| {
            for (at, block) in blocks.chunks_exact(Packing::Dense.layout().bytes()).enumerate() {
                add_dense(block, acts, (row, 32 * at), out);
            }
        },
        Packing::Q4_0 => tile::<{ Packing::Q4_0 as usize }>,
        Packing::Q4_1 => tile::<{ Packing::Q4_1 as usize }>,
        Packing::Q5_0 => tile::<{ Packing::Q5_0 as usize }>,
        Packing::Q5_1 => tile::<{ Packing::Q5_1 as usize }>,
        Packing::Q8_0 => tile::<{ Packing::Q8_0 as usize }>,
        Packing::Iq4Nl => tile::<{ Packing::Iq4Nl as usize }>,
        Packing::Q2K => tile::<{ Packing::Q2K as usize }>,
        Packing::Q3K => tile::<{ Packing::Q3K as usize }>,
        Packing::Q4K => tile::<{ Packing::Q4K as usize }>,
        Packing::Q5K => tile::<{ Packing::Q5K as usize }>,
        Packing::Q6K => tile::<{ Packing::Q6K as usize }>,
    }
}

fn tile<const PACKING: usize>(blocks: &[u8], acts: &Acts, row: usize, out: &mut [[i64; 16]]) {
    let layout = const { Packing::ALL[PACKING].layout() };
    for (at, block) in blocks.chunks_exact(layout.bytes()).enumerate() {
        add_block(&layout, block, acts, (row, at * layout.columns), out);
    }
}

/// Pairs of columns of sixteen rows, as 16-bit integers, even column first.
type Pairs = [[i16; 32]; 16];

/// Adds the product of one block with activation rows from `row` on, columns
/// from `start` on.
#[inline(always)]
fn add_block(
    layout: &Layout,
    block: &[u8],
    acts: &Acts,
    (row, start): (usize, usize),
    out: &mut [[i64; 16]],
) {
    let mut pairs: Pairs = [[0; 32]; 16];
    let stretches = layout.stretches();
    let scale = decode_scales(&block[layout.scale_at()..]);
    let minimum =
        if layout.minimum { decode_scales(&block[layout.minimum_at()..]) } else { [0; 16] };
    for stretch in 0..stretches {
        let pairs = &mut pairs[..layout.stretch / 2];
        decode(layout, block, stretch * layout.stretch / 2, pairs);
        let (scale, minimum) = factors(layout, block, stretch, &scale, &minimum);
        let column = start + stretch * layout.stretch;
        for (row, out) in (row..).zip(&mut *out) {
            let values = &acts.values[row * acts.width + column..][..layout.stretch];
            let sums = &acts.sums[(row * acts.width + column) / 16..][..layout.stretch / 16];
            let sum: i32 = sums.iter().sum();
            let inner = dot(pairs, values, sum.wrapping_mul(-layout.offset));
            add_scaled(&inner, &scale, out);
            if layout.minimum {
                add_scaled(&[sum; 16], &minimum, out);
            }
        }
    }
}

/// As [`add_block`], for weights in two parts without scales.
fn add_dense(block: &[u8], acts: &Acts, (row, start): (usize, usize), out: &mut [[i64; 16]]) {
    for (part, scale) in block.chunks_exact(1024).zip([1024, 1]) {
        let mut pairs: Pairs = [[0; 32]; 16];
        for (pair, bytes) in pairs.iter_mut().zip(part.chunks_exact(64)) {
            for (q, bytes) in pair.iter_mut().zip(bytes.chunks_exact(2)) {
                *q = i16::from_le_bytes([bytes[0], bytes[1]]);
            }
        }
        for (row, out) in (row..).zip(&mut *out) {
            let values = &acts.values[row * acts.width + start..][..32];
            add_scaled(&dot(&pairs, values, 0), &[scale; 16], out);
        }
    }
}

/// Reads the unsigned (or, of 8 bits, signed) integers of pairs from `first` on.
#[inline(always)]
fn decode(layout: &Layout, block: &[u8], first: usize, pairs: &mut [[i16; 32]]) {
    for (at, pair) in (first..).zip(pairs) {
        if layout.low == 8 {
            for (q, &byte) in pair.iter_mut().zip(&block[32 * at..][..32]) {
                *q = i16::from(byte as i8);
            }
            continue;
        }
        read_plane(block, layout.low, at, |lane, q| pair[lane] = q);
        if layout.high > 0 {
            let plane = &block[layout.high_at()..];
            read_plane(plane, layout.high, at, |lane, q| pair[lane] |= q << layout.low);
        }
        if layout.chosen {
            for q in pair {
                *q = i16::from(CHOICES[*q as usize & 15]) + layout.offset as i16;
            }
        }
    }
}

/// Hands out the 32 integers that pair `pair` has in a plane of `bits`.
#[inline(always)]
fn read_plane(plane: &[u8], bits: usize, pair: usize, mut take: impl FnMut(usize, i16)) {
    let (word, shift) = (pair * bits / 16, pair * bits % 16);
    for (lane, half) in plane[64 * word..][..64].chunks_exact(2).enumerate() {
        let half = u16::from_le_bytes([half[0], half[1]]);
        take(lane, (half >> shift & ((1 << bits) - 1)) as i16);
    }
}

/// Scale and minimum of a stretch for sixteen rows.
#[inline(always)]
fn factors(
    layout: &Layout,
    block: &[u8],
    stretch: usize,
    scale: &[i32; 16],
    minimum: &[i32; 16],
) -> ([i32; 16], [i32; 16]) {
    let bytes = |at: usize| &block[at + 16 * stretch..][..16];
    let times = |of: &[i32; 16], by: &dyn Fn(usize) -> i32| std::array::from_fn(|r| of[r] * by(r));
    let first = match layout.levels {
        Levels::None | Levels::One => return (*scale, *minimum),
        Levels::Bytes | Levels::Nibbles => bytes(layout.stretches_at()),
    };
    if layout.levels == Levels::Nibbles {
        let low = |lane: usize| i32::from(first[lane] & 15);
        let high = |lane: usize| i32::from(first[lane] >> 4);
        (times(scale, &low), times(minimum, &high))
    } else if layout.minimum {
        let second = bytes(layout.stretch_minimums_at());
        let byte = |bytes: &[u8], lane: usize| i32::from(bytes[lane]);
        (times(scale, &|lane| byte(first, lane)), times(minimum, &|lane| byte(second, lane)))
    } else {
        (times(scale, &|lane| i32::from(first[lane] as i8)), *minimum)
    }
}

/// INVARIANT: no product or sum here leaves i32: |q| ≤ 1023, |a| ≤ 32767, at most
/// 32 terms, and a start below 2^27.
#[inline(always)]
fn dot(pairs: &[[i16; 32]], values: &[i16], start: i32) -> [i32; 16] {
    let mut inner = [start; 16];
    for (pair, a) in pairs.iter().zip(values.chunks_exact(2)) {
        let (a0, a1) = (i32::from(a[0]), i32::from(a[1]));
        for (inner, q) in inner.iter_mut().zip(pair.chunks_exact(2)) {
            let even = i32::from(q[0]).wrapping_mul(a0);
            *inner = inner.wrapping_add(even).wrapping_add(i32::from(q[1]).wrapping_mul(a1));
        }
    }
    inner
}

fn decode_scales(bytes: &[u8]) -> [i32; 16] {
    std::array::from_fn(|lane| {
        let word = i32::from(i16::from_le_bytes([bytes[2 * lane], bytes[2 * lane + 1]]));
        (word >> 4) << (word & 15)
    })
}

#[inline(always)]
fn add_scaled(inner: &[i32; 16], scale: &[i32; 16], out: &mut [i64; 16]) {
    for ((out, &inner), &scale) in out.iter_mut().zip(inner).zip(scale) {
        *out = out.wrapping_add(i64::from(scale).wrapping_mul(i64::from(inner)));
    }
}

/// The two products of attention.
pub(super) struct Plain;

impl Dots for Plain {
    #[inline(always)]
    fn scores(high: &[i32], low: &[i32], keys: &[i16], out: &mut [i64; 16]) {
        let (mut top, mut bottom) = ([0i32; 16], [0i32; 16]);
        for ((&high, &low), keys) in high.iter().zip(low).zip(keys.chunks_exact(32)) {
            for lane in 0..16 {
                top[lane] = attend::dot_pair(top[lane], high, &keys[2 * lane..]);
                bottom[lane] = attend::dot_pair(bottom[lane], low, &keys[2 * lane..]);
            }
        }
        for lane in 0..16 {
            out[lane] = 256 * i64::from(top[lane]) + i64::from(bottom[lane]);
        }
    }

    #[inline(always)]
    fn blend<const N: usize>(weights: [&[i32]; 3], values: &[i16], stride: usize, out: &mut [i64]) {
        for (at, out) in out.chunks_exact_mut(16).enumerate().take(N) {
            let mut sums = [[0i32; 16]; 3];
            for (sums, weights) in sums.iter_mut().zip(weights) {
                for (&weight, values) in weights.iter().zip(values[32 * at..].chunks(stride)) {
                    for lane in 0..16 {
                        sums[lane] = attend::dot_pair(sums[lane], weight, &values[2 * lane..]);
                    }
                }
            }
            attend::join(&sums, out);
        }
    }
}
