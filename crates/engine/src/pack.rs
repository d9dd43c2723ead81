//! From a tensor's bytes in the file to the kernels' layout, and back.
//!
//! Two passes over the bytes: [`examine`] finds the largest magnitude exactly and
//! all there is to refuse, so that nothing is written for a file that can't be used;
//! [`fill`] writes. Both read scales as integers from their bits, and know a
//! format only by what [`blocks`] says of the file and [`layout`] of the packed
//! matrix. [`unpack`] reads rows back, for the embedding of tokens.

#![deny(clippy::float_arithmetic)]

mod blocks;
mod layout;

use crate::arith::half::Exact;
use crate::arith::{bit_length, rescale};
use crate::gguf::{GgmlType, Tensor};
use crate::weights::LoadError;

pub(crate) use layout::{CHOICES, Layout, Levels, Packing};

/// A bound no rounded value reaches.
const WIDE: i64 = 1 << 61;
/// About so many bytes of a tensor are packed before its reader may drop them.
const STRETCH_BYTES: usize = 1 << 20;
/// Scales and minimums of one level stay below this.
const SCALE_LIMIT: i64 = 1 << 22;
/// Scales of two levels, each level and their product, stay below this; so do
/// the block's minimums.
const SUPER_SCALE_LIMIT: i64 = 1 << 26;
/// Minimums of two levels stay below this as a product.
const SUPER_MINIMUM_LIMIT: i64 = 1 << 30;

/// Runs a call with the kind as a constant, so that each format is compiled alone.
macro_rules! with_constant_kind {
    ($kind:expr, |$constant:ident| $call:expr) => {
        with_constant_kind!(@ $kind, $constant, $call,
            F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K Iq4Nl)
    };
    (@ $kind:expr, $constant:ident, $call:expr, $($name:ident)*) => {
        match $kind {
            $(GgmlType::$name => {
                let $constant = GgmlType::$name;
                $call
            })*
        }
    };
}

impl Packing {
    /// How tensors of a format are packed.
    pub(crate) const fn of(kind: GgmlType) -> Self {
        match kind {
            GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => Self::Dense,
            GgmlType::Q4_0 => Self::Q4_0,
            GgmlType::Q4_1 => Self::Q4_1,
            GgmlType::Q5_0 => Self::Q5_0,
            GgmlType::Q5_1 => Self::Q5_1,
            GgmlType::Q8_0 => Self::Q8_0,
            GgmlType::Iq4Nl => Self::Iq4Nl,
            GgmlType::Q2K => Self::Q2K,
            GgmlType::Q3K => Self::Q3K,
            GgmlType::Q4K => Self::Q4K,
            GgmlType::Q5K => Self::Q5K,
            GgmlType::Q6K => Self::Q6K,
        }
    }
}

/// The largest exponent at which every weight stays below two to the packing's
/// magnitude, `bits - 1 - floor(log2 max|w|)`; 0 for a tensor of zeros. Refuses numbers
/// that aren't finite, and scales out of proportion.
pub(crate) fn examine(tensor: &Tensor<'_>, packing: Packing) -> Result<i32, LoadError> {
    let exponent = |log2: Option<i32>| log2.map_or(0, |log2| packing.magnitude_bits() - 1 - log2);
    if packing == Packing::Dense {
        return Ok(exponent(largest_float(tensor)?));
    }
    let extent = with_constant_kind!(tensor.kind, |kind| largest_quantised(kind, tensor)?);
    let exponent = exponent(extent.log2());
    if extent.may_exceed(packing.layout(), exponent) {
        let blocks = tensor.data.chunks_exact(tensor.kind.block_bytes() as usize);
        for (at, block) in blocks.enumerate() {
            scales(tensor.kind, block, exponent).map_err(|bad| refusal(tensor, at, bad))?;
        }
    }
    Ok(exponent)
}

fn not_finite(tensor: &Tensor<'_>, block: usize) -> LoadError {
    LoadError::NotFinite { tensor: tensor.name.to_owned(), block }
}

/// The integers of a stretch of whole blocks, as the file has them, at an exponent that
/// anybody may have written; `None` where a scale is not finite.
pub(crate) fn integers(kind: GgmlType, bytes: &[u8], exponent: i32) -> Option<Vec<i128>> {
    let blocks = bytes.chunks_exact(kind.block_bytes() as usize);
    if Packing::of(kind) == Packing::Dense {
        return blocks.map(|block| Some(float(kind, block)?.at(exponent, WIDE).into())).collect();
    }
    let layout = Packing::of(kind).layout();
    let at = |scale: i64| i128::from(rescale(scale, blocks::HALF_BITS - exponent, WIDE));
    let mut integers = Vec::new();
    for block in blocks {
        let (scale, minimum) = blocks::scales(kind, block)?;
        let (scale, minimum) = (at(scale), at(minimum));
        for eight in 0..layout.columns / 8 {
            let (s, m) = blocks::factors(kind, block, 8 * eight / layout.stretch);
            for code in blocks::codes(kind, block, eight).to_le_bytes() {
                let q = i128::from(blocks::value(kind, code));
                integers.push(scale * i128::from(s) * q + minimum * i128::from(m));
            }
        }
    }
    Some(integers)
}

/// One element of a float format, `None` where not finite.
#[inline(always)]
fn float(kind: GgmlType, bytes: &[u8]) -> Option<Exact> {
    match kind {
        GgmlType::F16 => Exact::from_f16(u16::from_le_bytes([bytes[0], bytes[1]])),
        GgmlType::BF16 => Exact::from_bf16(u16::from_le_bytes([bytes[0], bytes[1]])),
        _ => Exact::from_f32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
    }
}

/// The elements of a float tensor, `None` where not finite.
pub(crate) fn floats<'a>(tensor: &Tensor<'a>) -> impl Iterator<Item = Option<Exact>> + 'a {
    let kind = tensor.kind;
    tensor.data.chunks_exact(kind.block_bytes() as usize).map(move |bytes| float(kind, bytes))
}

/// `floor(log2)` of the largest magnitude.
fn largest_float(tensor: &Tensor<'_>) -> Result<Option<i32>, LoadError> {
    let mut largest = None;
    for (at, value) in floats(tensor).enumerate() {
        largest = largest.max(value.ok_or_else(|| not_finite(tensor, at))?.log2());
    }
    Ok(largest)
}

/// The largest magnitudes of a tensor in blocks, before any exponent.
#[derive(Default)]
struct Extent {
    weight: i64,
    scale: i64,
    minimum: i64,
    /// Of scales and minimums times a stretch's.
    products: [i64; 2],
}

impl Extent {
    fn log2(&self) -> Option<i32> {
        let weight = self.weight;
        (weight > 0).then(|| bit_length(weight as u64) - 1 - blocks::HALF_BITS)
    }

    /// Whether some scale may reach a limit at an exponent.
    fn may_exceed(&self, layout: Layout, exponent: i32) -> bool {
        let at = |value| rescale(value, blocks::HALF_BITS - exponent, WIDE);
        // A factor of 8 bits multiplies what rounding a scale does.
        let product = |value| at(value) + 256;
        let [scale, minimum] = self.products.map(product);
        let two = scale >= SUPER_SCALE_LIMIT || minimum >= SUPER_MINIMUM_LIMIT;
        let limit = scale_limit(&layout);
        at(self.scale) >= limit || at(self.minimum) >= limit || layout.two_levels() && two
    }
}

#[inline(always)]
fn largest_quantised(kind: GgmlType, tensor: &Tensor<'_>) -> Result<Extent, LoadError> {
    let layout = Packing::of(kind).layout();
    let mut extent = Extent::default();
    for (at, block) in tensor.data.chunks_exact(kind.block_bytes() as usize).enumerate() {
        let (scale, minimum) = blocks::scales(kind, block).ok_or_else(|| not_finite(tensor, at))?;
        extent.scale = extent.scale.max(scale.abs());
        extent.minimum = extent.minimum.max(minimum.abs());
        for stretch in 0..layout.stretches() {
            let (s, m) = blocks::factors(kind, block, stretch);
            let [scaled, lowered] = [scale * s, minimum * m];
            for (most, product) in extent.products.iter_mut().zip([scaled, lowered]) {
                *most = (*most).max(product.abs());
            }
            // A weight is linear in its integer: the ends are the largest.
            for q in extremes(kind, block, stretch * layout.stretch / 8, layout.stretch / 8) {
                extent.weight = extent.weight.max((scaled * q + lowered).abs());
            }
        }
    }
    Ok(extent)
}

/// The smallest and the largest integer of `count` times eight columns.
#[inline(always)]
fn extremes(kind: GgmlType, block: &[u8], first: usize, count: usize) -> [i64; 2] {
    let (mut low, mut high) = ([255u8; 8], [0u8; 8]);
    for eight in first..first + count {
        let codes = blocks::codes(kind, block, eight).to_le_bytes();
        for (at, code) in codes.into_iter().enumerate() {
            low[at] = low[at].min(code);
            high[at] = high[at].max(code);
        }
    }
    let low = low.into_iter().fold(255, u8::min);
    let high = high.into_iter().fold(0, u8::max);
    [low, high].map(|code| blocks::value(kind, code))
}

/// Writes all groups of the tensor to `out`, which is zeroed; tells `done` about
/// every stretch of rows once it is written.
pub(crate) fn fill(
    tensor: &Tensor<'_>,
    packing: Packing,
    cols: usize,
    exponent: i32,
    out: &mut [u8],
    done: &dyn Fn(&[u8]),
) -> Result<(), LoadError> {
    let kind = tensor.kind;
    let layout = packing.layout();
    let row_bytes = cols / kind.block_elements() as usize * kind.block_bytes() as usize;
    let group_bytes = layout.bytes() * cols.div_ceil(layout.columns);
    if row_bytes == 0 {
        return Ok(());
    }
    let stretch = (STRETCH_BYTES / row_bytes).max(1);
    for (at, rows) in tensor.data.chunks(stretch * row_bytes).enumerate() {
        for (row, bytes) in (at * stretch..).zip(rows.chunks_exact(row_bytes)) {
            let group = &mut out[row / 16 * group_bytes..][..group_bytes];
            if packing == Packing::Dense {
                fill_dense_row(kind, bytes, exponent, row % 16, group);
            } else {
                let filled = with_constant_kind!(kind, |kind| fill_quantised_row(
                    kind, exponent, row, bytes, group
                ));
                filled.map_err(|(block, bad)| refusal(tensor, block, bad))?;
            }
        }
        done(rows);
    }
    Ok(())
}

/// Why a block can't be packed.
enum Bad {
    /// A scale or minimum isn't finite.
    NotFinite,
    /// A scale or minimum, or its product with a stretch's, reaches the limit.
    Scale { got: i64, limit: i64 },
}

fn refusal(tensor: &Tensor<'_>, block: usize, bad: Bad) -> LoadError {
    match bad {
        Bad::NotFinite => not_finite(tensor, block),
        Bad::Scale { got, limit } => {
            LoadError::Scale { tensor: tensor.name.to_owned(), block, got, limit }
        }
    }
}

/// Writes one row of quantised blocks; fails with the number of a block.
#[inline(always)]
fn fill_quantised_row(
    kind: GgmlType,
    exponent: i32,
    row: usize,
    bytes: &[u8],
    group: &mut [u8],
) -> Result<(), (usize, Bad)> {
    let layout = Packing::of(kind).layout();
    let source = bytes.chunks_exact(kind.block_bytes() as usize);
    let first = row * source.len();
    for (at, (block, out)) in source.zip(group.chunks_exact_mut(layout.bytes())).enumerate() {
        fill_scales(kind, block, exponent, row % 16, out).map_err(|bad| (first + at, bad))?;
        fill_planes(kind, block, row % 16, out);
    }
    Ok(())
}

/// A block's scale and minimum at an exponent, once they and their products with those of
/// stretches are known to be within bounds.
#[inline(always)]
fn scales(kind: GgmlType, block: &[u8], exponent: i32) -> Result<(i64, i64), Bad> {
    let layout = Packing::of(kind).layout();
    let (scale, minimum) = blocks::scales(kind, block).ok_or(Bad::NotFinite)?;
    let scale = rescale(scale, blocks::HALF_BITS - exponent, WIDE);
    let minimum = rescale(minimum, blocks::HALF_BITS - exponent, WIDE);
    let limit = scale_limit(&layout);
    within(scale, limit)?;
    within(minimum, limit)?;
    if layout.two_levels() {
        for stretch in 0..layout.stretches() {
            let (s, m) = blocks::factors(kind, block, stretch);
            within(scale * s, SUPER_SCALE_LIMIT)?;
            within(minimum * m, SUPER_MINIMUM_LIMIT)?;
        }
    }
    Ok((scale, minimum))
}

/// What a block's scale and minimum stay below.
fn scale_limit(layout: &Layout) -> i64 {
    if layout.two_levels() { SUPER_SCALE_LIMIT } else { SCALE_LIMIT }
}

/// Writes the scales of one row of a block.
#[inline(always)]
fn fill_scales(
    kind: GgmlType,
    block: &[u8],
    exponent: i32,
    lane: usize,
    out: &mut [u8],
) -> Result<(), Bad> {
    let layout = Packing::of(kind).layout();
    let (scale, mut minimum) = scales(kind, block, exponent)?;
    let limit = scale_limit(&layout);
    if layout.two_levels() {
        for stretch in 0..layout.stretches() {
            let (s, m) = blocks::factors(kind, block, stretch);
            let at = 16 * stretch + lane;
            if layout.levels == Levels::Nibbles {
                out[layout.stretches_at() + at] = (s | -m << 4) as u8;
            } else {
                out[layout.stretches_at() + at] = s as i8 as u8;
                if layout.minimum {
                    out[layout.stretch_minimums_at() + at] = -m as u8;
                }
            }
        }
        // A minimum of two levels is subtracted; kernels only add.
        minimum = -minimum;
    }
    let scale = encode_scale(scale, limit)?;
    out[layout.scale_at() + 2 * lane..][..2].copy_from_slice(&scale.to_le_bytes());
    if layout.minimum {
        let minimum = encode_scale(minimum, limit)?;
        out[layout.minimum_at() + 2 * lane..][..2].copy_from_slice(&minimum.to_le_bytes());
    }
    Ok(())
}

fn within(got: i64, limit: i64) -> Result<(), Bad> {
    if got.abs() < limit { Ok(()) } else { Err(Bad::Scale { got, limit }) }
}

/// Writes the integers of one row of a block.
#[inline(always)]
fn fill_planes(kind: GgmlType, block: &[u8], lane: usize, out: &mut [u8]) {
    let layout = Packing::of(kind).layout();
    for eight in 0..layout.columns / 8 {
        let codes = blocks::codes(kind, block, eight);
        match layout.low {
            8 => {
                let signed = (codes ^ 0x8080_8080_8080_8080).to_le_bytes();
                for (pair, q) in (4 * eight..).zip(signed.chunks_exact(2)) {
                    out[32 * pair + 2 * lane..][..2].copy_from_slice(q);
                }
            }
            4 => fill_plane::<4>(codes, eight, lane, out),
            _ => fill_plane::<2>(codes, eight, lane, out),
        }
        let (high, out) = (codes >> layout.low, &mut out[layout.high_at()..]);
        match layout.high {
            0 => (),
            1 => fill_plane::<1>(high, eight, lane, out),
            _ => fill_plane::<2>(high, eight, lane, out),
        }
    }
}

/// Writes the lowest `BITS` of eight bytes to a plane.
#[inline(always)]
fn fill_plane<const BITS: usize>(codes: u64, eight: usize, lane: usize, out: &mut [u8]) {
    // Even columns lie in the lower halves of 16 bits.
    let squeeze = |codes: u64| {
        let mask = (1u64 << BITS) - 1;
        let v = codes & (mask | mask << 16 | mask << 32 | mask << 48);
        let v = v | v >> (16 - BITS) | v >> (32 - 2 * BITS) | v >> (48 - 3 * BITS);
        v as u32 & ((1u32 << (4 * BITS)) - 1)
    };
    // Eight columns fill a quarter of a word's bits for each bit of the plane.
    let (word, shift) = (eight * BITS / 4, eight * BITS % 4 * 4);
    let slot = &mut out[64 * word + 4 * lane..][..4];
    let packed = (squeeze(codes) | squeeze(codes >> 8) << 16) << shift;
    let have = u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]);
    slot.copy_from_slice(&(have | packed).to_le_bytes());
}

fn fill_dense_row(kind: GgmlType, bytes: &[u8], exponent: i32, lane: usize, group: &mut [u8]) {
    for (col, element) in bytes.chunks_exact(kind.block_bytes() as usize).enumerate() {
        // Every element is finite: `examine` has looked at each.
        let weight = float(kind, element).map_or(0, |exact| exact.at(exponent, 1 << 20)) as i32;
        let at = 2048 * (col / 32) + 64 * (col % 32 / 2) + 4 * lane + 2 * (col % 2);
        group[at..at + 2].copy_from_slice(&((weight >> 10) as i16).to_le_bytes());
        group[at + 1024..at + 1026].copy_from_slice(&((weight & 1023) as i16).to_le_bytes());
    }
}

/// A scale as `mantissa << 4 | shift`, 12 bits and 4. The rounded 11-bit mantissa
/// of a 16-bit float below the limit always fits.
fn encode_scale(scale: i64, limit: i64) -> Result<i16, Bad> {
    let (mut mantissa, mut shift) = (scale, 0);
    while mantissa.abs() > 2047 {
        if mantissa & 1 == 1 {
            return Err(Bad::Scale { got: scale, limit });
        }
        mantissa >>= 1;
        shift += 1;
    }
    Ok((mantissa << 4 | shift) as i16)
}

fn decode_scale(bytes: &[u8]) -> i32 {
    let word = i32::from(i16::from_le_bytes([bytes[0], bytes[1]]));
    (word >> 4) << (word & 15)
}

/// Writes the integer weights of one lane of a packed block, from the first
/// column on.
pub(crate) fn unpack(packing: Packing, block: &[u8], lane: usize, out: &mut [i32]) {
    let layout = packing.layout();
    if packing == Packing::Dense {
        for (col, out) in out.iter_mut().enumerate() {
            let at = 64 * (col / 2) + 4 * lane + 2 * (col % 2);
            let part = |at: usize| i32::from(i16::from_le_bytes([block[at], block[at + 1]]));
            *out = part(at) * 1024 + part(at + 1024);
        }
        return;
    }
    let scale = decode_scale(&block[layout.scale_at() + 2 * lane..]);
    let minimum =
        if layout.minimum { decode_scale(&block[layout.minimum_at() + 2 * lane..]) } else { 0 };
    for (stretch, out) in out.chunks_mut(layout.stretch).enumerate() {
        let byte = |at: usize| block[at + 16 * stretch + lane];
        let (s, m) = match layout.levels {
            Levels::Nibbles => {
                let both = byte(layout.stretches_at());
                (i32::from(both & 15), i32::from(both >> 4))
            }
            Levels::Bytes if layout.minimum => (
                i32::from(byte(layout.stretches_at())),
                i32::from(byte(layout.stretch_minimums_at())),
            ),
            Levels::Bytes => (i32::from(byte(layout.stretches_at()) as i8), 0),
            _ => (1, 1),
        };
        for (col, out) in (layout.stretch * stretch..).zip(out) {
            *out = scale * s * integer(&layout, block, lane, col) + minimum * m;
        }
    }
}

/// The integer of a column of a packed block.
fn integer(layout: &Layout, block: &[u8], lane: usize, col: usize) -> i32 {
    let (pair, odd) = (col / 2, col % 2);
    if layout.low == 8 {
        return i32::from(block[32 * pair + 2 * lane + odd] as i8);
    }
    let plane = |start: usize, bits: usize| {
        let per_word = 16 / bits;
        let at = start + 64 * (pair / per_word) + 4 * lane + 2 * odd;
        let half = u16::from_le_bytes([block[at], block[at + 1]]);
        i32::from(half >> (bits * (pair % per_word)) & ((1 << bits) - 1))
    };
    let low = plane(0, layout.low);
    let high = if layout.high > 0 { plane(layout.high_at(), layout.high) } else { 0 };
    let code = low | high << layout.low;
    if layout.chosen { i32::from(CHOICES[code as usize]) } else { code - layout.offset }
}
