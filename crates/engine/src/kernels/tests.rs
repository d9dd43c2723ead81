//! Every path against the definition, over random and extreme blocks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::arith::cap::Cap;
use crate::arith::half::Exact;
use crate::arith::tables::tables;
use crate::arith::{ZERO_EXPONENT, rescale, round_shift};
use crate::gguf::{GgmlType, Tensor};
use crate::weights::LoadError;

/// A small generator of test numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A finite 16-bit float between 2^-9 and 2^-1 in size, either sign.
    fn half(&mut self) -> u16 {
        let exponent = 6 + self.below(8) as u16;
        (self.next() as u16 & 0x83ff) | exponent << 10
    }
}

const KINDS: [GgmlType; 5] =
    [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q8_0, GgmlType::F16, GgmlType::F32];

/// The bytes of a tensor: random, or with every integer at an end of its range.
fn tensor_bytes(kind: GgmlType, elements: usize, extreme: bool, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..elements / kind.block_elements() as usize {
        match kind {
            GgmlType::F32 => {
                let bits = u32::from(random.half()) << 16 & 0x8000_0000
                    | (0x3c00_0000 + random.below(1 << 25) as u32);
                bytes.extend(bits.to_le_bytes());
            }
            GgmlType::F16 => bytes.extend(random.half().to_le_bytes()),
            _ => {
                let scale = if extreme { 0x3c00 } else { random.half() };
                bytes.extend(scale.to_le_bytes());
                if kind == GgmlType::Q4_1 {
                    bytes.extend(random.half().to_le_bytes());
                }
                let count = if kind == GgmlType::Q8_0 { 32 } else { 16 };
                let ends = if kind == GgmlType::Q8_0 { [0x80, 0x7f] } else { [0x00, 0xff] };
                let all = random.below(3);
                bytes.extend((0..count).map(|_| match (extreme, all) {
                    (true, 0) => ends[0],
                    (true, 1) => ends[1],
                    (true, _) => ends[random.below(2) as usize],
                    _ => random.next() as u8,
                }));
            }
        }
    }
    bytes
}

/// The real weights of one block, each as an exact multiple of 2^-40.
fn exact_weights(kind: GgmlType, block: &[u8]) -> Vec<(i128, i128, i128)> {
    let half = |at: usize| {
        let exact = Exact::from_f16(u16::from_le_bytes([block[at], block[at + 1]])).unwrap();
        i128::from(exact.at(40, i64::MAX >> 1))
    };
    let nibbles = |at: usize, less: i128| -> Vec<i128> {
        let bytes = &block[at..at + 16];
        let low = bytes.iter().map(|b| i128::from(b & 15) - less);
        low.chain(bytes.iter().map(|b| i128::from(b >> 4) - less)).collect()
    };
    let with = |d: i128, m: i128, q: Vec<i128>| q.into_iter().map(|q| (d, m, q)).collect();
    match kind {
        GgmlType::Q4_0 => with(half(0), 0, nibbles(2, 8)),
        GgmlType::Q4_1 => with(half(0), half(2), nibbles(4, 0)),
        GgmlType::Q8_0 => {
            with(half(0), 0, block[2..].iter().map(|&b| i128::from(b as i8)).collect())
        }
        GgmlType::F16 => vec![(half(0), 0, 1)],
        _ => {
            let bits = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            vec![(i128::from(Exact::from_f32(bits).unwrap().at(40, i64::MAX >> 1)), 0, 1)]
        }
    }
}

/// Integer weights and exponent by the words of the specification.
fn define(kind: GgmlType, bytes: &[u8]) -> (Vec<i128>, i32) {
    let blocks = bytes.chunks_exact(kind.block_bytes() as usize);
    let exact: Vec<_> = blocks.flat_map(|block| exact_weights(kind, block)).collect();
    let largest = exact.iter().map(|(d, m, q)| (d * q + m).abs()).max().unwrap();
    let fits =
        |e: i32| if e <= 40 { largest < 1 << (19 + 40 - e) } else { largest << (e - 40) < 1 << 19 };
    let exponent = (-100..100).rev().find(|&e| fits(e)).unwrap();
    let round = |v: i128| {
        if exponent >= 40 {
            v << (exponent - 40)
        } else {
            (v + (1 << (39 - exponent))) >> (40 - exponent)
        }
    };
    (exact.into_iter().map(|(d, m, q)| round(d) * q + round(m)).collect(), exponent)
}

/// Collects a product as rows of activations by rows of the matrix.
struct Collect {
    out: Vec<i64>,
    stride: usize,
}

impl Sink for Collect {
    fn take(&mut self, row: usize, group: usize, values: &[i64; 16]) {
        self.out[row * self.stride + 16 * group..][..16].copy_from_slice(values);
    }
}

fn acts(rows: usize, cols: usize, extreme: bool, random: &mut Random) -> Acts {
    let mut acts = Acts::new(rows, cols);
    for row in 0..rows {
        let sign = if random.below(2) == 0 { 32_767 } else { -32_767 };
        for col in 0..cols {
            let value = if extreme { sign } else { (random.next() as i16).max(-32_767) };
            acts.values[row * acts.width + col] = value;
        }
    }
    for (sum, block) in acts.sums.iter_mut().zip(acts.values.chunks_exact(32)) {
        *sum = block.iter().map(|&v| i32::from(v)).sum();
    }
    acts
}

#[test]
fn products_equal_their_definition_on_every_path() {
    let mut random = Random(1);
    for kind in KINDS {
        for (case, (cols, rows)) in
            [(32, 1), (32, 16), (64, 17), (576, 33), (1536, 16), (4096, 3)].into_iter().enumerate()
        {
            let extreme = case % 2 == 1;
            let bytes = tensor_bytes(kind, cols * rows, extreme, &mut random);
            let dims = [cols as u64, rows as u64];
            let tensor = Tensor { name: "t", kind, dims: &dims, data: &bytes };
            let matrix = Matrix::pack(&tensor, cols, rows).unwrap();
            let (weights, exponent) = define(kind, &bytes);
            assert_eq!(matrix.exponent(), exponent, "{kind}");
            let mut row = vec![0; cols];
            for (at, want) in weights.chunks_exact(cols).enumerate() {
                matrix.row(at, &mut row);
                assert!(
                    row.iter().zip(want).all(|(&got, &want)| i128::from(got) == want),
                    "{kind} row {at}"
                );
            }
            check_products(&matrix, &weights, (cols, rows), &acts(6, cols, extreme, &mut random));
        }
    }
}

fn check_products(matrix: &Matrix, weights: &[i128], (cols, rows): (usize, usize), acts: &Acts) {
    let stride = 16 * matrix.groups();
    for path in KernelPath::available() {
        for count in 1..=6 {
            let mut sink = Collect { out: vec![0; 6 * stride], stride };
            let kernels = Kernels::new(path).unwrap();
            kernels.sweep(matrix, acts, 6 - count..6, 0..matrix.groups(), &mut sink);
            for row in 6 - count..6 {
                let a = &acts.values[row * acts.width..][..cols];
                for r in 0..rows {
                    let want: i128 = weights[r * cols..][..cols]
                        .iter()
                        .zip(a)
                        .map(|(w, &a)| w * i128::from(a))
                        .sum();
                    assert_eq!(
                        i128::from(sink.out[row * stride + r]),
                        want,
                        "{matrix:?} {path:?} {row} {r}"
                    );
                }
            }
        }
    }
}

#[test]
fn unbounded_scales_and_infinities_are_refused_by_name() {
    let mut random = Random(2);
    let mut bytes = tensor_bytes(GgmlType::Q4_1, 64 * 16, false, &mut random);
    // A huge scale whose integers are all zero does not show in the largest weight.
    bytes[20 * 5..][..2].copy_from_slice(&0x7bffu16.to_le_bytes());
    bytes[20 * 5 + 4..][..16].fill(0);
    let dims = [64, 16];
    let refuse = |data: &[u8], cols, rows| {
        let tensor = Tensor { name: "blk.0.t", kind: GgmlType::Q4_1, dims: &dims, data };
        Matrix::pack(&tensor, cols, rows).unwrap_err()
    };
    let refused = refuse(&bytes, 64, 16);
    assert!(
        matches!(&refused, LoadError::Scale { tensor, block: 5, .. } if tensor == "blk.0.t"),
        "{refused}"
    );
    bytes[20 * 7..][..2].copy_from_slice(&0x7c00u16.to_le_bytes());
    let refused = refuse(&bytes, 64, 16);
    assert!(matches!(refused, LoadError::NotFinite { block: 7, .. }), "{refused}");
    let refused = refuse(&bytes, 32, 32);
    assert!(matches!(refused, LoadError::Shape { .. }), "{refused}");
}

#[test]
fn rows_are_quantised_by_their_definition_on_every_path() {
    let mut random = Random(3);
    let mut rows: Vec<Vec<i64>> =
        vec![vec![0; 64], vec![1; 64], vec![-1; 32], vec![(1 << 62) - 1; 96]];
    rows.push(vec![-65_535 << 20; 32]);
    rows.extend((0..60).map(|bits| (0..80).map(|_| (random.next() as i64) >> 2 >> bits).collect()));
    for row in rows {
        let max = row.iter().map(|v| v.unsigned_abs()).max().unwrap();
        let shift = (-20..60)
            .find(|&s| max == 0 || rescale(max as i64, s, i64::MAX >> 1) <= 32_767)
            .unwrap();
        for path in KernelPath::available() {
            let width = row.len().next_multiple_of(32);
            let (mut values, mut sums) = (vec![7i16; width], vec![7i32; width / 32]);
            let exponent = Kernels::new(path).unwrap().quantise(&row, 5, &mut values, &mut sums);
            assert_eq!(exponent, if max == 0 { ZERO_EXPONENT } else { 5 - shift }, "{path:?}");
            for (at, &value) in values.iter().enumerate() {
                let want = row.get(at).map_or(0, |&v| rescale(v, shift, i64::MAX >> 1));
                assert_eq!(i64::from(value), if max == 0 { 0 } else { want }, "{path:?} {at}");
            }
            let want: Vec<i32> =
                values.chunks(32).map(|b| b.iter().map(|&v| i32::from(v)).sum()).collect();
            assert_eq!(sums, want);
        }
    }
}

#[test]
fn normalisation_is_the_same_on_every_path_at_any_size() {
    let mut random = Random(4);
    for bits in 0..31 {
        let x: Vec<i32> = (0..576).map(|_| (random.next() as i32).max(-i32::MAX) >> bits).collect();
        let gain: Vec<i32> = (0..576).map(|_| (random.next() as i32) >> 12).collect();
        let normed = Normed { gain: &gain, epsilon: 96_636 };
        let sum: u128 = x.iter().map(|&x| (i128::from(x) * i128::from(x)) as u128).sum();
        let (root, k) = crate::arith::inverse_root(576, sum + 96_636);
        for path in KernelPath::available() {
            let mut out = vec![0; 576];
            Kernels::new(path).unwrap().norm(&x, &normed, &mut out);
            for at in 0..576 {
                let unit = round_shift(i64::from(x[at]) * root as i64, k - 20);
                assert_eq!(out[at], unit * i64::from(gain[at]), "{path:?} {bits}");
            }
        }
    }
}

/// `limit · tanh(v / limit)` by the words of the specification.
fn soft_cap_by_definition(v: i64, limit: i64) -> i64 {
    let shift = |v: i128, s: u32| (v + (1 << (s - 1))) >> s;
    let x = shift(i128::from(v.abs()) * ((1i128 << 43) / i128::from(limit)), 24);
    let (i, r) = ((x / 4096) as usize, x % 4096);
    let tail = tables()
        .logistic
        .get(i)
        .map_or(0, |&[point, fall]| i128::from(point) - shift(i128::from(fall) * r, 12));
    v.signum() * shift(i128::from(limit) * ((1 << 24) - 2 * tail), 24) as i64
}

/// Attention by the words of the specification, position by position.
fn attend_by_definition(
    query: &Query<'_>,
    keys: &[Vec<i16>],
    values: &[Vec<i16>],
    cache: &Cache<'_>,
) -> (Vec<i64>, i32) {
    let dims = query.values.len();
    let scores: Vec<i64> = (cache.first..cache.len)
        .map(|p| {
            let raw: i64 =
                (0..dims).map(|d| i64::from(query.values[d]) * i64::from(keys[p][d])).sum();
            let score = rescale(
                raw * query.scale,
                query.exponent + i32::from(cache.key_exponents[p]) + 14,
                1 << 30,
            );
            query.cap.map_or(score, |cap| soft_cap_by_definition(score, cap.limit()))
        })
        .collect();
    let best = scores.iter().max().unwrap();
    let weight = |t: &i64| i64::from(tables().exp[((best - t) as usize).min(16_384)]);
    let before = std::iter::repeat_n(0, cache.first);
    let weights: Vec<i64> = before.chain(scores.iter().map(weight)).collect();
    let total: i64 = weights.iter().sum();
    let bits = 64 - (total as u64).leading_zeros();
    let reciprocal = (1i128 << (bits + 30)) / i128::from(total);
    let carried = (0..cache.len).filter(|&p| weights[p] > 0);
    let coarsest = carried.map(|p| i32::from(cache.value_exponents[p])).min().unwrap();
    let out = (0..dims).map(|d| {
        let term = |p: usize| {
            let shift = i32::from(cache.value_exponents[p]) - coarsest;
            if weights[p] == 0 {
                0
            } else {
                round_shift(weights[p] << 9, shift as u32) * i64::from(values[p][d])
            }
        };
        let sum: i64 = (0..cache.len).map(term).sum();
        round_shift((i128::from(round_shift(sum, bits - 7)) * reciprocal) as i64, 37)
    });
    (out.collect(), coarsest + 9)
}

#[test]
fn attention_equals_its_definition_on_every_path() {
    let mut random = Random(5);
    for (case, (dims, len, first)) in [
        (64usize, 1usize, 0),
        (64, 2, 1),
        (64, 15, 0),
        (64, 16, 15),
        (64, 257, 1),
        (256, 600, 88),
        (16, 33, 32),
        (80, 300, 257),
    ]
    .into_iter()
    .enumerate()
    {
        for extreme in [false, true] {
            let padded = len.next_multiple_of(16);
            let mut value = |_| if extreme { 32_767 } else { (random.next() as i16).max(-32_767) };
            let q: Vec<i16> = (0..dims).map(&mut value).collect();
            let keys: Vec<Vec<i16>> =
                (0..padded).map(|_| (0..dims).map(&mut value).collect()).collect();
            let values: Vec<Vec<i16>> =
                (0..padded).map(|_| (0..dims).map(&mut value).collect()).collect();
            let (mut k, mut v) = (vec![0; padded * dims], vec![0; padded * dims]);
            for p in 0..padded {
                for d in 0..dims {
                    k[crate::kv::key_offset(dims, p, d)] = keys[p][d];
                    v[crate::kv::value_offset(dims, p, d)] = values[p][d];
                }
            }
            let mut exponents = |spread: u64| -> Vec<i16> {
                (0..padded).map(|_| 9 + random.below(spread) as i16).collect()
            };
            let (key_exponents, value_exponents) = (exponents(5), exponents(30));
            let exponent = if extreme { -20 } else { 13 + case as i32 % 3 };
            for (first, cap) in
                [(0, None), (first, None), (0, Cap::new(9_000)), (first, Cap::new(4_096))]
            {
                let cache = Cache {
                    keys: &k,
                    values: &v,
                    key_exponents: &key_exponents,
                    value_exponents: &value_exponents,
                    first,
                    len,
                };
                let query = Query { values: &q, exponent, scale: 3_025_507, cap, tables: tables() };
                let want = attend_by_definition(&query, &keys, &values, &cache);
                for path in KernelPath::available() {
                    let mut out = vec![0; dims];
                    let kernels = Kernels::new(path).unwrap();
                    // Scratch that held something else before.
                    let mut scratch = vec![7; 5_000];
                    let exponent = kernels.attend(&query, &cache, &mut scratch, &mut out);
                    assert_eq!((out, exponent), want, "{path:?} {dims} {first} {len} {extreme}");
                }
            }
        }
    }
}
