//! The plain form of every inner loop: the definition the others are tested
//! against, and what runs on a processor without a form of its own.

use std::ops::Range;

use super::attend::{self, Cache, Dots, Query};
use super::rows::{self, Normed, WideNormed};
use super::{Acts, Sink};
use crate::weights::{Matrix, Packing};

pub(super) fn norm(x: &[i32], normed: &Normed<'_>, out: &mut [i64]) {
    rows::norm(x, normed, out);
}

pub(super) fn norm_wide(row: &mut [i64], exponent: i32, normed: &WideNormed<'_>) {
    rows::norm_wide(row, exponent, normed);
}

pub(super) fn quantise(row: &[i64], exponent: i32, values: &mut [i16], sums: &mut [i32]) -> i32 {
    rows::quantise(row, exponent, values, sums)
}

pub(super) fn attend(
    query: &Query<'_>,
    cache: &Cache<'_>,
    scratch: &mut Vec<i32>,
    out: &mut [i64],
) -> i32 {
    attend::attend::<Plain>(query, cache, scratch, out)
}

pub(super) fn sweep<S: Sink>(
    matrix: &Matrix,
    acts: &Acts,
    rows: Range<usize>,
    groups: Range<usize>,
    sink: &mut S,
) {
    let bytes = matrix.packing().block_bytes();
    for group in groups {
        let blocks = matrix.group(group);
        for row in rows.clone() {
            let mut out = [0i64; 16];
            let values = &acts.values[row * acts.width..][..acts.width];
            let sums = &acts.sums[row * acts.width / 32..][..acts.width / 32];
            for (at, block) in blocks.chunks_exact(bytes).enumerate() {
                let values = &values[32 * at..][..32];
                add_block(matrix.packing(), block, values, sums[at], &mut out);
            }
            sink.take(row, group, &out);
        }
    }
}

/// Adds the product of one block with 32 activations to 16 outputs.
fn add_block(packing: Packing, block: &[u8], a: &[i16], sum: i32, out: &mut [i64; 16]) {
    match packing {
        Packing::Q4_0 | Packing::Q4_1 => {
            let mut inner = [0i32; 16];
            for pair in 0..16 {
                let (words, shift) = (&block[64 * (pair / 4)..][..64], 4 * (pair % 4));
                for (inner, word) in inner.iter_mut().zip(words.chunks_exact(4)) {
                    let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) >> shift;
                    let (q0, q1) = ((word & 15) as i32, (word >> 16 & 15) as i32);
                    *inner = add_pair(*inner, q0, q1, a, pair);
                }
            }
            if packing == Packing::Q4_0 {
                inner.iter_mut().for_each(|inner| *inner -= 8 * sum);
                add_scaled(&inner, &block[256..288], out);
            } else {
                add_scaled(&inner, &block[256..288], out);
                add_scaled(&[sum; 16], &block[288..320], out);
            }
        }
        Packing::Q8_0 => {
            let mut inner = [0i32; 16];
            for pair in 0..16 {
                for (inner, q) in inner.iter_mut().zip(block[32 * pair..][..32].chunks_exact(2)) {
                    *inner =
                        add_pair(*inner, i32::from(q[0] as i8), i32::from(q[1] as i8), a, pair);
                }
            }
            add_scaled(&inner, &block[512..544], out);
        }
        Packing::Dense => {
            for (half, scale) in block.chunks_exact(1024).zip([1024i64, 1]) {
                let mut inner = [0i32; 16];
                for pair in 0..16 {
                    for (inner, q) in inner.iter_mut().zip(half[64 * pair..][..64].chunks_exact(4))
                    {
                        let q0 = i32::from(i16::from_le_bytes([q[0], q[1]]));
                        let q1 = i32::from(i16::from_le_bytes([q[2], q[3]]));
                        *inner = add_pair(*inner, q0, q1, a, pair);
                    }
                }
                for (out, &inner) in out.iter_mut().zip(&inner) {
                    *out = out.wrapping_add(scale * i64::from(inner));
                }
            }
        }
    }
}

/// INVARIANT: no product or sum here leaves i32: |q| ≤ 1023, |a| ≤ 32767, 32 terms.
#[inline(always)]
fn add_pair(inner: i32, q0: i32, q1: i32, a: &[i16], pair: usize) -> i32 {
    let (a0, a1) = (i32::from(a[2 * pair]), i32::from(a[2 * pair + 1]));
    inner.wrapping_add(q0.wrapping_mul(a0)).wrapping_add(q1.wrapping_mul(a1))
}

#[inline(always)]
fn add_scaled(inner: &[i32; 16], scales: &[u8], out: &mut [i64; 16]) {
    for ((out, &inner), scale) in out.iter_mut().zip(inner).zip(scales.chunks_exact(2)) {
        let word = i32::from(i16::from_le_bytes([scale[0], scale[1]]));
        let scale = (word >> 4) << (word & 15);
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
