//! From a tensor's bytes in the file to the kernels' layout, and back.
//!
//! Two passes over the bytes: [`exponent`] finds the largest magnitude exactly,
//! [`fill`] writes. Both read scales as integers from their bits.

#![deny(clippy::float_arithmetic)]

use crate::arith::half::Exact;
use crate::arith::rescale;
use crate::gguf::{GgmlType, Tensor};
use crate::weights::{LoadError, Packing, SCALE_LIMIT, WEIGHT_MAGNITUDE_BITS};

/// A scale that any 16-bit float can be at 2^-24 exactly.
const HALF_BITS: i32 = 24;
/// A bound no rounded value reaches.
const WIDE: i64 = 1 << 61;
/// About so many bytes of a tensor are packed before its reader may drop them.
const STRETCH_BYTES: usize = 1 << 20;

/// The largest exponent at which every weight stays below 2^19 in magnitude,
/// `18 - floor(log2 max|w|)`; 0 for a tensor of zeros.
pub(crate) fn exponent(tensor: &Tensor<'_>) -> Result<i32, LoadError> {
    let log2 = match tensor.kind {
        GgmlType::F32 | GgmlType::F16 => largest_float(tensor)?,
        _ => largest_quantised(tensor)?,
    };
    Ok(log2.map_or(0, |log2| WEIGHT_MAGNITUDE_BITS - 1 - log2))
}

fn not_finite(tensor: &Tensor<'_>, block: usize) -> LoadError {
    LoadError::NotFinite { tensor: tensor.name.to_owned(), block }
}

/// The elements of a float tensor, `None` where not finite.
pub(crate) fn floats<'a>(tensor: &Tensor<'a>) -> Box<dyn Iterator<Item = Option<Exact>> + 'a> {
    if tensor.kind == GgmlType::F16 {
        let read = |b: &[u8]| Exact::from_f16(u16::from_le_bytes([b[0], b[1]]));
        Box::new(tensor.data.chunks_exact(2).map(read))
    } else {
        let read = |b: &[u8]| Exact::from_f32(u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Box::new(tensor.data.chunks_exact(4).map(read))
    }
}

/// `floor(log2)` of the largest magnitude.
fn largest_float(tensor: &Tensor<'_>) -> Result<Option<i32>, LoadError> {
    let mut largest = None;
    for (at, value) in floats(tensor).enumerate() {
        largest = largest.max(value.ok_or_else(|| not_finite(tensor, at))?.log2());
    }
    Ok(largest)
}

/// Scale and minimum of a block at 2^-24, exact; the minimum is 0 where the
/// format has none. `None` where not finite.
#[inline(always)]
fn scales(kind: GgmlType, block: &[u8]) -> Option<(i64, i64)> {
    let read = |at: usize| {
        Some(Exact::from_f16(u16::from_le_bytes([block[at], block[at + 1]]))?.at(HALF_BITS, WIDE))
    };
    Some((read(0)?, if kind == GgmlType::Q4_1 { read(2)? } else { 0 }))
}

fn largest_quantised(tensor: &Tensor<'_>) -> Result<Option<i32>, LoadError> {
    let kind = tensor.kind;
    let mut largest = 0i64;
    for (at, block) in tensor.data.chunks_exact(kind.block_bytes() as usize).enumerate() {
        let (scale, minimum) = scales(kind, block).ok_or_else(|| not_finite(tensor, at))?;
        let (low, high) = extremes(kind, block);
        largest = largest.max((scale * low + minimum).abs()).max((scale * high + minimum).abs());
    }
    Ok((largest > 0).then(|| crate::arith::bit_length(largest as u64) - 1 - HALF_BITS))
}

/// The smallest and the largest integer of a block.
#[inline(always)]
fn extremes(kind: GgmlType, block: &[u8]) -> (i64, i64) {
    if kind == GgmlType::Q8_0 {
        let signed = block[2..34].iter().map(|&q| q as i8);
        let (low, high) =
            signed.fold((i8::MAX, i8::MIN), |(low, high), q| (low.min(q), high.max(q)));
        return (i64::from(low), i64::from(high));
    }
    let (start, offset) = if kind == GgmlType::Q4_1 { (4, 0) } else { (2, 8) };
    let nibbles = &block[start..start + 16];
    let (low, high) = nibbles.iter().fold((15u8, 0u8), |(low, high), &q| {
        (low.min(q & 15).min(q >> 4), high.max(q & 15).max(q >> 4))
    });
    (i64::from(low) - offset, i64::from(high) - offset)
}

/// Writes all groups of the tensor to `out`; tells `done` about every stretch of
/// rows once it is written.
pub(crate) fn fill(
    tensor: &Tensor<'_>,
    packing: Packing,
    cols: usize,
    exponent: i32,
    out: &mut [u8],
    done: &dyn Fn(&[u8]),
) -> Result<(), LoadError> {
    let kind = tensor.kind;
    let row_bytes = cols / kind.block_elements() as usize * kind.block_bytes() as usize;
    let group_bytes = packing.block_bytes() * cols.div_ceil(32);
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
                fill_quantised_row(tensor, packing, exponent, (row, bytes), group)?;
            }
        }
        done(rows);
    }
    Ok(())
}

/// Writes one row of quantised blocks.
fn fill_quantised_row(
    tensor: &Tensor<'_>,
    packing: Packing,
    exponent: i32,
    (row, bytes): (usize, &[u8]),
    group: &mut [u8],
) -> Result<(), LoadError> {
    let kind = tensor.kind;
    let source = bytes.chunks_exact(kind.block_bytes() as usize);
    let first = row * source.len();
    for (at, (block, out)) in source.zip(group.chunks_exact_mut(packing.block_bytes())).enumerate()
    {
        let number = first + at;
        fill_block(kind, block, exponent, row % 16, out).map_err(|bad| match bad {
            Some(got) => LoadError::Scale {
                tensor: tensor.name.to_owned(),
                block: number,
                got,
                limit: SCALE_LIMIT,
            },
            None => not_finite(tensor, number),
        })?;
    }
    Ok(())
}

/// Writes one row of one quantised block; fails with a scale too large, or with
/// nothing where a scale isn't finite.
#[inline(always)]
fn fill_block(
    kind: GgmlType,
    block: &[u8],
    exponent: i32,
    lane: usize,
    out: &mut [u8],
) -> Result<(), Option<i64>> {
    let (scale, minimum) = scales(kind, block).ok_or(None)?;
    let scale = encode_scale(rescale(scale, HALF_BITS - exponent, WIDE))?;
    let scales_at = if kind == GgmlType::Q8_0 { 512 } else { 256 };
    out[scales_at + 2 * lane..][..2].copy_from_slice(&scale.to_le_bytes());
    if kind == GgmlType::Q4_1 {
        let minimum = encode_scale(rescale(minimum, HALF_BITS - exponent, WIDE))?;
        out[288 + 2 * lane..][..2].copy_from_slice(&minimum.to_le_bytes());
    }
    if kind == GgmlType::Q8_0 {
        for (pair, q) in block[2..34].chunks_exact(2).enumerate() {
            out[32 * pair + 2 * lane..][..2].copy_from_slice(q);
        }
        return Ok(());
    }
    let nibbles = &block[block.len() - 16..];
    for word in 0..4 {
        // Columns 0..16 are the low nibbles of bytes 0..16, columns 16.. the high ones.
        let half = &nibbles[8 * (word % 2)..][..8];
        let bytes = u64::from_le_bytes([
            half[0], half[1], half[2], half[3], half[4], half[5], half[6], half[7],
        ]);
        let packed = gather_nibbles(bytes >> (4 * (word / 2)));
        out[64 * word + 4 * lane..][..4].copy_from_slice(&packed.to_le_bytes());
    }
    Ok(())
}

/// The low nibbles of 8 bytes: even bytes in the lower half, odd ones above.
#[inline(always)]
fn gather_nibbles(bytes: u64) -> u32 {
    let squeeze = |v: u64| {
        let v = v & 0x000f_000f_000f_000f;
        ((v | v >> 12 | v >> 24 | v >> 36) & 0xffff) as u32
    };
    squeeze(bytes) | squeeze(bytes >> 8) << 16
}

fn fill_dense_row(kind: GgmlType, bytes: &[u8], exponent: i32, lane: usize, group: &mut [u8]) {
    let size = kind.block_bytes() as usize;
    for (col, element) in bytes.chunks_exact(size).enumerate() {
        let exact = if size == 2 {
            Exact::from_f16(u16::from_le_bytes([element[0], element[1]]))
        } else {
            Exact::from_f32(u32::from_le_bytes([element[0], element[1], element[2], element[3]]))
        };
        // Every element is finite: `exponent` has looked at each.
        let weight = exact.map_or(0, |exact| exact.at(exponent, 1 << 20)) as i32;
        let at = 2048 * (col / 32) + 64 * (col % 32 / 2) + 4 * lane + 2 * (col % 2);
        group[at..at + 2].copy_from_slice(&((weight >> 10) as i16).to_le_bytes());
        group[at + 1024..at + 1026].copy_from_slice(&((weight & 1023) as i16).to_le_bytes());
    }
}

/// A scale as `mantissa << 4 | shift`, 12 bits and 4. A rounded 11-bit mantissa
/// always fits; a scale beyond the limit is handed back.
pub(crate) fn encode_scale(scale: i64) -> Result<i16, Option<i64>> {
    if scale.abs() >= SCALE_LIMIT {
        return Err(Some(scale));
    }
    let (mut mantissa, mut shift) = (scale, 0);
    while mantissa.abs() > 2047 {
        if mantissa & 1 == 1 {
            return Err(Some(scale));
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

/// The 32 integer weights of one lane of a packed block.
pub(crate) fn unpack(packing: Packing, block: &[u8], lane: usize) -> [i32; 32] {
    std::array::from_fn(|col| {
        let (pair, odd) = (col / 2, col % 2);
        let word = |at: usize| i32::from(i16::from_le_bytes([block[at], block[at + 1]]));
        match packing {
            Packing::Q4_0 | Packing::Q4_1 => {
                let half = word(64 * (pair / 4) + 4 * lane + 2 * odd);
                let q = half >> (4 * (pair % 4)) & 15;
                let scale = decode_scale(&block[256 + 2 * lane..]);
                match packing {
                    Packing::Q4_0 => scale * (q - 8),
                    _ => scale * q + decode_scale(&block[288 + 2 * lane..]),
                }
            }
            Packing::Q8_0 => {
                i32::from(block[32 * pair + 2 * lane + odd] as i8)
                    * decode_scale(&block[512 + 2 * lane..])
            }
            Packing::Dense => {
                let at = 64 * pair + 4 * lane + 2 * odd;
                word(at) * 1024 + word(at + 1024)
            }
        }
    })
}
