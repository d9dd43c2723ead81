//! Products with matrices of every format: blocks are written down from known
//! integers, so that what a product must be never depends on reading them.

use proptest::prelude::*;

use super::Random;
use crate::arith::half::Exact;
use crate::gguf::{GgmlType, Tensor};
use crate::kernels::{Acts, KernelPath, Kernels, Sink};
use crate::weights::{LoadError, Matrix};

/// What a block of a format is made of.
#[derive(Clone, Copy, Debug)]
struct Parts {
    kind: GgmlType,
    /// Columns that share a factor.
    stretch: usize,
    /// One above the largest integer as stored.
    codes: u32,
    /// What is subtracted from it.
    offset: i128,
    /// The smallest and the largest factor of the scale.
    scales: [i64; 2],
    /// The largest factor of the minimum: none, 1 to add it, else to subtract.
    minimums: i64,
    /// The largest weight is below two to this power.
    bits: u32,
}

const fn parts(kind: GgmlType, codes: u32, offset: i128, minimums: i64) -> Parts {
    Parts { kind, stretch: 32, codes, offset, scales: [1, 1], minimums, bits: 19 }
}

const fn super_parts(parts: Parts, stretch: usize, scales: [i64; 2]) -> Parts {
    Parts { stretch, scales, bits: 25, ..parts }
}

const QUANTISED: [Parts; 11] = [
    parts(GgmlType::Q4_0, 16, 8, 0),
    parts(GgmlType::Q4_1, 16, 0, 1),
    parts(GgmlType::Q5_0, 32, 16, 0),
    parts(GgmlType::Q5_1, 32, 0, 1),
    parts(GgmlType::Q8_0, 256, 128, 0),
    parts(GgmlType::Iq4Nl, 16, 0, 0),
    super_parts(parts(GgmlType::Q2K, 4, 0, 15), 16, [0, 15]),
    super_parts(parts(GgmlType::Q3K, 8, 4, 0), 16, [-32, 31]),
    super_parts(parts(GgmlType::Q4K, 16, 0, 63), 32, [0, 63]),
    super_parts(parts(GgmlType::Q5K, 32, 0, 63), 32, [0, 63]),
    super_parts(parts(GgmlType::Q6K, 64, 32, 0), 16, [-128, 127]),
];

const FLOATS: [GgmlType; 3] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];

/// A block as numbers.
struct Block {
    scale: u16,
    minimum: u16,
    scales: Vec<i64>,
    minimums: Vec<i64>,
    codes: Vec<u32>,
}

impl Block {
    /// Random, or with every number at an end of its range.
    fn make(parts: &Parts, extreme: bool, random: &mut Random) -> Self {
        let columns = parts.kind.block_elements() as usize;
        let stretches = columns / parts.stretch;
        let all = random.below(4);
        let mut between = |low: i64, high: i64| match (extreme, all) {
            (true, 0) => low,
            (true, 1) => high,
            (true, _) => [low, high][random.below(2) as usize],
            _ => low + random.below((high - low + 1) as u64) as i64,
        };
        let scales = (0..stretches).map(|_| between(parts.scales[0], parts.scales[1])).collect();
        let least = i64::from(parts.minimums == 1);
        let minimums = (0..stretches).map(|_| between(least, parts.minimums)).collect();
        let codes = (0..columns).map(|_| between(0, i64::from(parts.codes) - 1) as u32).collect();
        Self {
            scale: if extreme { 0x3c00 } else { random.half() },
            minimum: if extreme { 0xbc00 } else { random.half() },
            scales,
            minimums,
            codes,
        }
    }

    /// The block's bytes in a file.
    fn bytes(&self, kind: GgmlType) -> Vec<u8> {
        let (d, m) = (self.scale.to_le_bytes().to_vec(), self.minimum.to_le_bytes().to_vec());
        let q = &self.codes;
        let nibbles = || (0..16).map(|j| (q[j] & 15 | (q[j + 16] & 15) << 4) as u8).collect();
        let fifth = || (0..32).map(|j| (q[j] >> 4) << j).sum::<u32>().to_le_bytes().to_vec();
        match kind {
            GgmlType::Q4_0 | GgmlType::Iq4Nl => [d, nibbles()].concat(),
            GgmlType::Q4_1 => [d, m, nibbles()].concat(),
            GgmlType::Q5_0 => [d, fifth(), nibbles()].concat(),
            GgmlType::Q5_1 => [d, m, fifth(), nibbles()].concat(),
            GgmlType::Q8_0 => [d, q.iter().map(|&q| (q as u8) ^ 128).collect()].concat(),
            GgmlType::Q2K => {
                let both = self.scales.iter().zip(&self.minimums);
                [both.map(|(s, m)| (s | m << 4) as u8).collect(), self.quarters(), d, m].concat()
            }
            GgmlType::Q3K => [self.bits(2), self.quarters(), self.six_bit_scales(), d].concat(),
            GgmlType::Q4K => [d, m, self.twelve_bytes(), self.halves()].concat(),
            GgmlType::Q5K => [d, m, self.twelve_bytes(), self.bits(4), self.halves()].concat(),
            _ => self.q6_k(d),
        }
    }

    /// Two low bits: four columns, 32 apart, share a byte.
    fn quarters(&self) -> Vec<u8> {
        let column = |n: usize, j: usize, l: usize| self.codes[128 * n + 32 * j + l] & 3;
        let byte = |at: usize| (0..4).map(|j| column(at / 32, j, at % 32) << (2 * j)).sum::<u32>();
        (0..64).map(|at| byte(at) as u8).collect()
    }

    /// Four low bits: two columns, 32 apart, share a byte.
    fn halves(&self) -> Vec<u8> {
        let column = |c: usize, l: usize| self.codes[64 * c + l] & 15;
        let byte = |at: usize| column(at / 32, at % 32) | column(at / 32, at % 32 + 32) << 4;
        (0..128).map(|at| byte(at) as u8).collect()
    }

    /// Bit `bit` of all columns: eight, 32 apart, share a byte.
    fn bits(&self, bit: u32) -> Vec<u8> {
        let byte = |l: usize| (0..8).map(|s| (self.codes[32 * s + l] >> bit & 1) << s).sum::<u32>();
        (0..32).map(|l| byte(l) as u8).collect()
    }

    fn six_bit_scales(&self) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        for (at, scale) in self.scales.iter().enumerate() {
            let scale = (scale + 32) as u8;
            bytes[at % 8] |= (scale & 15) << (4 * (at / 8));
            bytes[8 + at % 4] |= (scale >> 4) << (2 * (at / 4));
        }
        bytes
    }

    fn twelve_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        for at in 0..8 {
            let (scale, minimum) = (self.scales[at] as u8, self.minimums[at] as u8);
            if at < 4 {
                bytes[at] |= scale;
                bytes[at + 4] |= minimum;
            } else {
                bytes[at + 4] = scale & 15 | (minimum & 15) << 4;
                bytes[at - 4] |= scale >> 4 << 6;
                bytes[at] |= minimum >> 4 << 6;
            }
        }
        bytes
    }

    fn q6_k(&self, d: Vec<u8>) -> Vec<u8> {
        let q = &self.codes;
        let low = |at: usize| {
            let first = at / 64 * 128 + at % 64;
            (q[first] & 15 | (q[first + 64] & 15) << 4) as u8
        };
        let high = |at: usize| {
            let column = |r: usize| q[at / 32 * 128 + 32 * r + at % 32] >> 4;
            (0..4).map(|r| column(r) << (2 * r)).sum::<u32>() as u8
        };
        let scales = self.scales.iter().map(|&s| s as i8 as u8);
        (0..128).map(low).chain((0..64).map(high)).chain(scales).chain(d).collect()
    }

    /// Its weights, each as scale, factor of it, minimum, factor of that.
    fn weights(&self, parts: &Parts) -> Vec<[i128; 4]> {
        let half = |bits: u16| i128::from(Exact::from_f16(bits).unwrap().at(40, i64::MAX >> 1));
        const UNEVEN: [i128; 16] =
            [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
        let sign = if parts.minimums > 1 { -1 } else { 1 };
        let weight = |(col, &code): (usize, &u32)| {
            let q = if parts.kind == GgmlType::Iq4Nl {
                UNEVEN[code as usize]
            } else {
                i128::from(code) - parts.offset
            };
            let stretch = col / parts.stretch;
            let minimum = sign * i128::from(self.minimums[stretch]);
            [half(self.scale), q * i128::from(self.scales[stretch]), half(self.minimum), minimum]
        };
        self.codes.iter().enumerate().map(weight).collect()
    }
}

/// A tensor's bytes and its real weights, products at 2^-40.
fn tensor(parts: &Parts, count: usize, extreme: bool, random: &mut Random) -> Made {
    let (mut bytes, mut exact) = (Vec::new(), Vec::new());
    for _ in 0..count / parts.kind.block_elements() as usize {
        let block = Block::make(parts, extreme, random);
        bytes.extend(block.bytes(parts.kind));
        exact.extend(block.weights(parts));
    }
    Made { bytes, exact, bits: parts.bits }
}

/// As [`tensor`], for elements that are floats.
fn float_tensor(kind: GgmlType, count: usize, random: &mut Random) -> Made {
    let (mut bytes, mut exact) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let half = random.half();
        // From 2^-7 to 2^8, either sign.
        let single =
            u32::from(half) << 16 & 0x8000_0000 | (0x3c00_0000 + random.below(1 << 26) as u32);
        let value = match kind {
            GgmlType::F16 => {
                bytes.extend(half.to_le_bytes());
                Exact::from_f16(half)
            }
            GgmlType::BF16 => {
                bytes.extend(&single.to_le_bytes()[2..]);
                Exact::from_f32(single & 0xffff_0000)
            }
            _ => {
                bytes.extend(single.to_le_bytes());
                Exact::from_f32(single)
            }
        };
        exact.push([i128::from(value.unwrap().at(40, i64::MAX >> 1)), 1, 0, 0]);
    }
    Made { bytes, exact, bits: 19 }
}

struct Made {
    bytes: Vec<u8>,
    exact: Vec<[i128; 4]>,
    bits: u32,
}

impl Made {
    /// Integer weights and exponent by the words of the specification.
    fn integers(&self) -> (Vec<i128>, i32) {
        let real = |[d, s, m, n]: [i128; 4]| d * s + m * n;
        let largest = self.exact.iter().map(|&parts| real(parts).abs()).max().unwrap();
        if largest == 0 {
            return (vec![0; self.exact.len()], 0);
        }
        let bits = self.bits as i32;
        let fits = |e: i32| {
            if e <= 40 { largest < 1 << (bits + 40 - e) } else { largest << (e - 40) < 1 << bits }
        };
        let exponent = (-100..100).rev().find(|&e| fits(e)).unwrap();
        let round = |v: i128| {
            if exponent >= 40 {
                v << (exponent - 40)
            } else {
                (v + (1 << (39 - exponent))) >> (40 - exponent)
            }
        };
        let integer = |&[d, s, m, n]: &[i128; 4]| round(d) * s + round(m) * n;
        (self.exact.iter().map(integer).collect(), exponent)
    }
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
    for (sum, block) in acts.sums.iter_mut().zip(acts.values.chunks_exact(16)) {
        *sum = block.iter().map(|&v| i32::from(v)).sum();
    }
    acts
}

/// Packs, reads back, and multiplies with 1 to `count` rows on every path.
fn check(kind: GgmlType, made: &Made, (cols, rows): (usize, usize), acts: &Acts, count: usize) {
    let dims = [cols as u64, rows as u64];
    let tensor = Tensor { name: "t", kind, dims: &dims, data: &made.bytes };
    let matrix = Matrix::pack(&tensor, cols, rows).unwrap();
    let (weights, exponent) = made.integers();
    assert_eq!(matrix.exponent(), exponent, "{kind}");
    assert_eq!(matrix.magnitude_bits() as u32, made.bits, "{kind}");
    let mut row = vec![0; cols];
    for (at, want) in weights.chunks_exact(cols).enumerate() {
        matrix.row(at, &mut row);
        assert!(row.iter().zip(want).all(|(&got, &want)| i128::from(got) == want), "{kind} {at}");
    }
    let product =
        |a: &[i16], w: &[i128]| -> i128 { w.iter().zip(a).map(|(w, &a)| w * i128::from(a)).sum() };
    let stride = 16 * matrix.groups();
    for path in KernelPath::available() {
        for taken in 1..=count {
            let mut sink = Collect { out: vec![0; count * stride], stride };
            let kernels = Kernels::new(path).unwrap();
            kernels.sweep(&matrix, acts, count - taken..count, 0..matrix.groups(), &mut sink);
            for row in count - taken..count {
                let a = &acts.values[row * acts.width..][..cols];
                for (r, weights) in weights.chunks_exact(cols).enumerate() {
                    let got = i128::from(sink.out[row * stride + r]);
                    assert_eq!(got, product(a, weights), "{matrix:?} {path:?} {taken} {row} {r}");
                }
            }
        }
    }
}

/// Shapes as columns (in blocks of 32, or of 256) and rows.
const SHAPES: [(usize, usize); 4] = [(1, 1), (2, 17), (3, 16), (18, 3)];

#[test]
fn products_equal_their_definition_on_every_path() {
    let mut random = Random(1);
    for parts in &QUANTISED {
        for (case, (blocks, rows)) in SHAPES.into_iter().enumerate() {
            let extreme = case % 2 == 1;
            let blocks = if parts.bits == 25 { blocks.min(5) } else { blocks };
            let cols = blocks * parts.kind.block_elements() as usize;
            let made = tensor(parts, cols * rows, extreme, &mut random);
            let acts = acts(11, cols, extreme, &mut random);
            check(parts.kind, &made, (cols, rows), &acts, 11);
        }
    }
}

#[test]
fn products_of_floats_equal_their_definition_on_every_path() {
    let mut random = Random(2);
    for kind in FLOATS {
        for (cols, rows) in [(32, 1), (64, 17), (40, 16), (576, 3)] {
            let made = float_tensor(kind, cols * rows, &mut random);
            let acts = acts(11, cols, cols == 40, &mut random);
            check(kind, &made, (cols, rows), &acts, 11);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn products_are_exact_for_any_blocks(
        seed: u64,
        at in 0..QUANTISED.len(),
        blocks in 1..4usize,
        rows in 1..36usize,
        count in 1..10usize,
        extremes in (any::<bool>(), any::<bool>()),
    ) {
        let mut random = Random(seed);
        let cols = blocks * QUANTISED[at].kind.block_elements() as usize;
        let made = tensor(&QUANTISED[at], cols * rows, extremes.0, &mut random);
        let acts = acts(count, cols, extremes.1, &mut random);
        check(QUANTISED[at].kind, &made, (cols, rows), &acts, count);
    }
}

/// The widest row the arithmetic allows, everything at an end of its range.
#[test]
fn the_widest_rows_stay_in_bounds() {
    let mut random = Random(3);
    let cols = 1 << 16;
    for parts in &QUANTISED {
        let mut made = tensor(parts, cols, true, &mut random);
        // Every block as the first one, so that all products add up.
        let bytes = made.bytes[..parts.kind.block_bytes() as usize].to_vec();
        let exact = made.exact[..parts.kind.block_elements() as usize].to_vec();
        made.bytes = bytes.repeat(cols / exact.len());
        made.exact = exact.repeat(cols / exact.len());
        if made.exact.iter().all(|&[d, s, m, n]| d * s + m * n == 0) {
            continue;
        }
        let mut acts = acts(2, cols, true, &mut random);
        let (weights, _) = made.integers();
        for (col, weight) in weights.iter().enumerate() {
            acts.values[col] = if *weight < 0 { -32_767 } else { 32_767 };
        }
        for (sum, block) in acts.sums.iter_mut().zip(acts.values.chunks_exact(16)) {
            *sum = block.iter().map(|&v| i32::from(v)).sum();
        }
        check(parts.kind, &made, (cols, 1), &acts, 2);
    }
}

/// What a changed block is refused with.
fn refused(parts: &Parts, number: usize, change: impl Fn(&mut Block)) -> LoadError {
    let mut random = Random(4);
    let columns = parts.kind.block_elements() as usize;
    let mut bytes = Vec::new();
    for at in 0..32 {
        let mut block = Block::make(parts, false, &mut random);
        if at == number {
            change(&mut block);
        }
        bytes.extend(block.bytes(parts.kind));
    }
    let dims = [2 * columns as u64, 16];
    let tensor = Tensor { name: "blk.0.t", kind: parts.kind, dims: &dims, data: &bytes };
    Matrix::pack(&tensor, 2 * columns, 16).unwrap_err()
}

#[test]
fn infinities_and_undefined_numbers_are_refused_by_name() {
    for parts in &QUANTISED {
        for bits in [0x7c00, 0xfc00, 0x7e01] {
            let error = refused(parts, 7, |block| block.scale = bits);
            let expected =
                matches!(&error, LoadError::NotFinite { tensor, block: 7 } if tensor == "blk.0.t");
            assert!(expected, "{} {error}", parts.kind);
            if parts.minimums > 0 {
                let error = refused(parts, 9, |block| block.minimum = bits);
                assert!(matches!(error, LoadError::NotFinite { block: 9, .. }), "{error}");
            }
        }
    }
    for (kind, bits) in
        [(GgmlType::F16, 0x7c00u16), (GgmlType::BF16, 0x7f80), (GgmlType::BF16, 0xffc0)]
    {
        let mut data = float_tensor(kind, 32 * 16, &mut Random(5)).bytes;
        data[2 * 100..][..2].copy_from_slice(&bits.to_le_bytes());
        let tensor = Tensor { name: "blk.0.t", kind, dims: &[32, 16], data: &data };
        let error = Matrix::pack(&tensor, 32, 16).unwrap_err();
        assert!(matches!(error, LoadError::NotFinite { block: 100, .. }), "{error}");
    }
}

#[test]
fn scales_out_of_proportion_are_refused_by_name() {
    for parts in &QUANTISED {
        let is_scale = |error: &LoadError| matches!(error, LoadError::Scale { tensor, block: 5, .. } if tensor == "blk.0.t");
        // A huge scale does not show in the largest weight where it meets zeros:
        // of the integers, or of the factors.
        if parts.kind != GgmlType::Iq4Nl {
            let error = refused(parts, 5, |block| {
                block.scale = 0x7bff;
                block.minimum = 0;
                block.codes.fill(parts.offset as u32);
            });
            assert!(is_scale(&error), "{} {error}", parts.kind);
        }
        if parts.bits == 25 {
            let error = refused(parts, 5, |block| {
                block.scale = 0x7bff;
                block.minimum = 0;
                block.scales.fill(0);
            });
            assert!(is_scale(&error), "{} {error}", parts.kind);
        }
        // Scale and minimum that cancel out.
        if parts.minimums > 0 {
            let error = refused(parts, 5, |block| {
                block.scale = 0x7bff;
                block.minimum = if parts.bits == 25 { 0x7bff } else { 0xfbff };
                block.scales.fill(1);
                block.minimums.fill(1);
                block.codes.fill(1);
            });
            assert!(is_scale(&error), "{} {error}", parts.kind);
        }
    }
}

#[test]
fn a_tensor_of_zeros_has_exponent_zero() {
    for kind in GgmlType::all() {
        let columns = kind.block_elements().max(32);
        let data = vec![0; (columns / kind.block_elements() * kind.block_bytes() * 3) as usize];
        let tensor = Tensor { name: "t", kind, dims: &[columns, 3], data: &data };
        let matrix = Matrix::pack(&tensor, columns as usize, 3).unwrap();
        assert_eq!(matrix.exponent(), 0, "{kind}");
        let mut row = vec![7; columns as usize];
        matrix.row(2, &mut row);
        assert!(row.iter().all(|&weight| weight == 0), "{kind}");
    }
}
