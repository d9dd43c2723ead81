//! Every path against the definition, over random and extreme blocks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod products;

use super::*;
use crate::arith::cap::Cap;
use crate::arith::half::Exact;
use crate::arith::tables::tables;
use crate::arith::{ZERO_EXPONENT, inverse_root, norm_epsilon, rescale, round_shift};

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
            let (mut values, mut sums) = (vec![7i16; width], vec![7i32; width / 16]);
            let exponent = Kernels::new(path).unwrap().quantise(&row, 5, &mut values, &mut sums);
            assert_eq!(exponent, if max == 0 { ZERO_EXPONENT } else { 5 - shift }, "{path:?}");
            for (at, &value) in values.iter().enumerate() {
                let want = row.get(at).map_or(0, |&v| rescale(v, shift, i64::MAX >> 1));
                assert_eq!(i64::from(value), if max == 0 { 0 } else { want }, "{path:?} {at}");
            }
            let want: Vec<i32> =
                values.chunks(16).map(|b| b.iter().map(|&v| i32::from(v)).sum()).collect();
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

#[test]
fn wide_rows_are_normalised_by_their_definition_on_every_path() {
    let mut random = Random(8);
    let epsilon = Exact::from_f32(1e-6f32.to_bits()).unwrap();
    for (len, bits, exponent) in [
        (16usize, 61u32, 70),
        (64, 57, 33),
        (256, 31, 12),
        (256, 30, -40),
        (640, 12, 20),
        (640, 3, 9),
        (2048, 44, 127),
        (96, 1, 150),
    ] {
        let limit = 1i64 << bits;
        let mut row: Vec<i64> =
            (0..len).map(|_| random.next() as i64 % limit).map(|v| v - v % 3).collect();
        (row[0], row[1]) = (limit - 1, 1 - limit);
        let gain: Vec<i32> = (0..len).map(|_| random.below(1 << 20) as i32 - (1 << 19)).collect();
        let drop = (bits as i32 - 30).max(0);
        let shift = |v: i64, s: u32| if s == 0 { v } else { (v + (1 << (s - 1))) >> s };
        let x: Vec<i64> = row.iter().map(|&v| shift(v, drop as u32)).collect();
        let squares: u128 = x.iter().map(|&x| (i128::from(x) * i128::from(x)) as u128).sum();
        let added = norm_epsilon(epsilon, len, 2 * (exponent - drop));
        let (root, k) = inverse_root(len as u64, squares + added);
        let unit = |x: i64| (i128::from(x) * i128::from(root) + (1 << (k - 21))) >> (k - 20);
        let want: Vec<i64> =
            x.iter().zip(&gain).map(|(&x, &g)| unit(x) as i64 * i64::from(g)).collect();
        for path in KernelPath::available() {
            let mut got = row.clone();
            let normed = WideNormed { gain: &gain, epsilon };
            Kernels::new(path).unwrap().norm_wide(&mut got, exponent, &normed);
            assert!(got == want, "{path:?} {len} {bits} {exponent}");
        }
    }
    // A row of zeros stays one.
    let mut zeros = vec![0i64; 64];
    let normed = WideNormed { gain: &[1 << 18; 64], epsilon };
    Kernels::new(KernelPath::best()).unwrap().norm_wide(&mut zeros, 127, &normed);
    assert!(zeros.iter().all(|&v| v == 0));
}

/// The gate by the words of the specification.
fn gated_by_definition(x: i32, curve: &Curve) -> i128 {
    let (size, wide) = (i128::from(x).abs(), i128::from(x));
    let (i, r) = ((size / 4096) as usize, size % 4096);
    let fallen = |fall: i32| (i128::from(fall) * r + 2048) >> 12;
    let tail = curve.get(i).map_or(0, |&[point, fall]| i128::from(point) - fallen(fall));
    (wide * if x < 0 { tail } else { (1 << 24) - tail } + (1 << 23)) >> 24
}

#[test]
fn gates_are_the_same_on_every_path() {
    let mut random = Random(6);
    let mut gates: Vec<i32> = (-60_000..60_000).map(|x| 87 * x).collect();
    let ends = [0, 1, -1, 4095, 4096, -4096, (16 << 18) - 1, 16 << 18, -(16 << 18), i32::MAX];
    gates.extend(ends.into_iter().chain([-i32::MAX]));
    gates.extend((0..31).flat_map(|bits| [random.next() as i32 >> bits; 3]));
    let ups: Vec<i32> = gates.iter().map(|_| (random.next() as i32).max(-i32::MAX)).collect();
    for curve in [&*tables().logistic, &*tables().gelu] {
        for path in KernelPath::available() {
            let mut out = vec![7; gates.len()];
            Kernels::new(path).unwrap().gate(&gates, &ups, curve, &mut out);
            for ((&got, &x), &up) in out.iter().zip(&gates).zip(&ups) {
                let want = gated_by_definition(x, curve) * i128::from(up);
                assert_eq!(i128::from(got), want, "{path:?} {x} {up}");
            }
        }
    }
}

#[test]
#[allow(clippy::float_arithmetic, reason = "the functions are given in floats")]
fn curves_are_close_to_their_functions() {
    fn check(curve: &Curve, function: impl Fn(f64) -> f64) {
        for i in -60_000..60_000i32 {
            let x = f64::from(i) / 3000.0;
            let fixed = (x * 262_144.0).round() as i32;
            let got = gated_by_definition(fixed, curve) as f64 / 262_144.0;
            let want = function(x);
            assert!((got - want).abs() < 1e-5 + want.abs() * 1e-5, "{x} {got} {want}");
        }
        assert_eq!(gated_by_definition(i32::MAX, curve), i128::from(i32::MAX));
    }
    check(&tables().logistic, |x| x / (1.0 + (-x).exp()));
    let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    check(&tables().gelu, |x| x / 2.0 * (1.0 + inner(x).tanh()));
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
    exponents: [&[i16]; 2],
    cache: &Cache<'_>,
) -> (Vec<i64>, i32) {
    let dims = query.values.len();
    let scores: Vec<i64> = (cache.first..cache.len)
        .map(|p| {
            let raw: i64 =
                (0..dims).map(|d| i64::from(query.values[d]) * i64::from(keys[p][d])).sum();
            let score = rescale(
                raw * query.scale,
                query.exponent + i32::from(exponents[0][p]) + 14,
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
    let coarsest = carried.map(|p| i32::from(exponents[1][p])).min().unwrap();
    let out = (0..dims).map(|d| {
        let term = |p: usize| {
            let shift = i32::from(exponents[1][p]) - coarsest;
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

/// Pages of one layer of two heads, of which the second holds these rows.
fn paged(keys: &[Vec<i16>], values: &[Vec<i16>], exponents: [&[i16]; 2]) -> Vec<Vec<i16>> {
    use crate::kv::{PAGE, head_len, key_offset, row_places, value_offset};
    let dims = keys[0].len();
    let mut pages = vec![vec![-1; 2 * head_len(dims)]; keys.len().div_ceil(PAGE)];
    for (p, (key, value)) in keys.iter().zip(values).enumerate() {
        let head = &mut pages[p / PAGE][head_len(dims)..];
        for d in 0..dims {
            head[row_places(dims, p, true).0 + key_offset(dims, p % PAGE, d)] = key[d];
            head[row_places(dims, p, false).0 + value_offset(dims, p % PAGE, d)] = value[d];
        }
        head[row_places(dims, p, true).1] = exponents[0][p];
        head[row_places(dims, p, false).1] = exponents[1][p];
    }
    pages
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
            let mut exponents = |spread: u64| -> Vec<i16> {
                (0..padded).map(|_| 9 + random.below(spread) as i16).collect()
            };
            let (key_exponents, value_exponents) = (exponents(5), exponents(30));
            let exponents = [&key_exponents[..], &value_exponents[..]];
            let pages = paged(&keys, &values, exponents);
            let pages: Vec<&[i16]> = pages.iter().map(Vec::as_slice).collect();
            let exponent = if extreme { -20 } else { 13 + case as i32 % 3 };
            for (first, cap) in
                [(0, None), (first, None), (0, Cap::new(9_000)), (first, Cap::new(4_096))]
            {
                let cache = Cache { pages: &pages, head: 1, dims, first, len };
                let query = Query { values: &q, exponent, scale: 3_025_507, cap, tables: tables() };
                let want = attend_by_definition(&query, &keys, &values, exponents, &cache);
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
