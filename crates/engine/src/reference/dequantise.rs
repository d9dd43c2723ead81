//! Tensors as floats, straight from the definitions of their formats.
//!
//! Shares no code with the integer path, so that a misread format shows as a
//! difference between the two: here a block is walked byte by byte, in the
//! order of the file, and every weight is written to its column. Deliberately
//! absent: speed.

use crate::gguf::{GgmlType, Tensor};
use crate::weights::{LoadError, Matrix};

/// How far the integers of a tensor are from its floats: the largest difference,
/// in parts of the largest weight.
///
/// # Errors
/// The tensor holds infinities, or has scales out of bounds.
pub fn weight_error(tensor: &Tensor<'_>) -> Result<f64, LoadError> {
    let floats = dequantise(tensor)?;
    let (cols, rows) = (tensor.row_len() as usize, tensor.rows() as usize);
    // A vector is a matrix of one row.
    let dims = [cols as u64, rows as u64];
    let matrix = Matrix::pack(&Tensor { dims: &dims, ..*tensor }, cols, rows)?;
    let unit = 2f64.powi(-matrix.exponent());
    let (mut row, mut largest, mut error) = (vec![0; cols], 0f64, 0f64);
    for (at, floats) in floats.chunks_exact(cols).enumerate() {
        matrix.row(at, &mut row);
        for (&integer, &float) in row.iter().zip(floats) {
            largest = largest.max(f64::from(float).abs());
            error = error.max((f64::from(integer) * unit - f64::from(float)).abs());
        }
    }
    Ok(if largest > 0.0 { error / largest } else { error })
}

/// A tensor as `f32`.
pub(super) fn dequantise(tensor: &Tensor<'_>) -> Result<Vec<f32>, LoadError> {
    let columns = tensor.kind.block_elements() as usize;
    let blocks = tensor.data.chunks_exact(tensor.kind.block_bytes() as usize);
    let mut values = vec![0f32; blocks.len() * columns];
    for (b, y) in blocks.zip(values.chunks_exact_mut(columns)) {
        match tensor.kind {
            GgmlType::F32 => y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            GgmlType::F16 => y[0] = half(b),
            GgmlType::BF16 => y[0] = f32::from_bits(u32::from(b[0]) << 16 | u32::from(b[1]) << 24),
            GgmlType::Q4_0 => nibbles(&b[2..], |col, q| y[col] = half(b) * (q as f32 - 8.0)),
            GgmlType::Q4_1 => {
                nibbles(&b[4..], |col, q| y[col] = half(b) * q as f32 + half(&b[2..]))
            }
            GgmlType::Q5_0 => nibbles(&b[6..], |col, q| {
                y[col] = half(b) * ((q + 16 * bit(&b[2..], col)) as f32 - 16.0);
            }),
            GgmlType::Q5_1 => nibbles(&b[8..], |col, q| {
                y[col] = half(b) * (q + 16 * bit(&b[4..], col)) as f32 + half(&b[2..]);
            }),
            GgmlType::Q8_0 => {
                y.iter_mut().zip(&b[2..]).for_each(|(y, &q)| *y = half(b) * f32::from(q as i8));
            }
            GgmlType::Iq4Nl => nibbles(&b[2..], |col, q| y[col] = half(b) * UNEVEN[q as usize]),
            GgmlType::Q2K => q2_k(b, y),
            GgmlType::Q3K => q3_k(b, y),
            GgmlType::Q4K => q4_or_q5_k(b, &b[16..], None, y),
            GgmlType::Q5K => q4_or_q5_k(b, &b[48..], Some(&b[16..48]), y),
            GgmlType::Q6K => q6_k(b, y),
        }
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            Err(LoadError::NotFinite { tensor: tensor.name.to_owned(), block: at / columns })
        }
        None => Ok(values),
    }
}

/// What the nibbles of IQ4_NL stand for.
const UNEVEN: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// Bit `at` of a string of bits, the lowest of each byte first.
fn bit(bytes: &[u8], at: usize) -> u32 {
    u32::from(bytes[at / 8] >> (at % 8) & 1)
}

/// Sixteen bytes: low nibbles are columns 0 to 15, high ones 16 to 31.
fn nibbles(bytes: &[u8], mut take: impl FnMut(usize, u32)) {
    for (at, &byte) in bytes.iter().enumerate() {
        take(at, u32::from(byte % 16));
        take(at + 16, u32::from(byte / 16));
    }
}

/// Each byte holds four columns, 32 apart; sixteen columns share a scale and a
/// minimum of four bits.
fn q2_k(b: &[u8], y: &mut [f32]) {
    let (d, low) = (half(&b[80..]), half(&b[82..]));
    for (at, &byte) in b[16..80].iter().enumerate() {
        for quarter in 0..4 {
            let col = at / 32 * 128 + quarter * 32 + at % 32;
            let q = f32::from(byte >> (2 * quarter) & 3);
            let factors = b[col / 16];
            y[col] = d * f32::from(factors % 16) * q - low * f32::from(factors / 16);
        }
    }
}

/// As [`q2_k`], with a third bit (where it is 0, 4 is subtracted) and a scale of
/// six bits less 32.
fn q3_k(b: &[u8], y: &mut [f32]) {
    let d = half(&b[108..]);
    let mut scales = [0f32; 16];
    for (at, &byte) in b[96..104].iter().enumerate() {
        for (scale, low) in [(at, byte % 16), (at + 8, byte / 16)] {
            let upper = b[104 + scale % 4] >> (scale / 4 * 2) & 3;
            scales[scale] = f32::from(low) + 16.0 * f32::from(upper) - 32.0;
        }
    }
    for (at, &byte) in b[32..96].iter().enumerate() {
        for quarter in 0..4 {
            let col = at / 32 * 128 + quarter * 32 + at % 32;
            let third = b[at % 32] >> (col / 32) & 1 == 1;
            let q = f32::from(byte >> (2 * quarter) & 3) - if third { 0.0 } else { 4.0 };
            y[col] = d * scales[col / 16] * q;
        }
    }
}

/// Each byte holds two columns, 32 apart; 32 columns share a scale and a minimum
/// of six bits, packed in twelve bytes. A fifth bit may lie elsewhere.
fn q4_or_q5_k(b: &[u8], quants: &[u8], fifth: Option<&[u8]>, y: &mut [f32]) {
    let (d, low) = (half(b), half(&b[2..]));
    let packed = &b[4..16];
    let (mut scales, mut minimums) = ([0f32; 8], [0f32; 8]);
    for at in 0..4 {
        // Six bits here, the two above them belong four further on.
        scales[at] = f32::from(packed[at] % 64);
        minimums[at] = f32::from(packed[at + 4] % 64);
        scales[at + 4] = f32::from(packed[at + 8] % 16) + 16.0 * f32::from(packed[at] / 64);
        minimums[at + 4] = f32::from(packed[at + 8] / 16) + 16.0 * f32::from(packed[at + 4] / 64);
    }
    for (at, &byte) in quants[..128].iter().enumerate() {
        for (part, nibble) in [(0, byte % 16), (1, byte / 16)] {
            let (group, within) = (at / 32 * 2 + part, at % 32);
            let upper = fifth.map_or(0, |bits| bits[within] >> group & 1);
            let q = f32::from(nibble) + 16.0 * f32::from(upper);
            y[32 * group + within] = d * scales[group] * q - low * minimums[group];
        }
    }
}

/// Low nibbles hold two columns 64 apart, the upper bits four columns 32 apart;
/// sixteen columns share a signed scale.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let d = half(&b[208..]);
    for (at, &byte) in b[..128].iter().enumerate() {
        for (part, nibble) in [(0, byte % 16), (1, byte / 16)] {
            let col = at / 64 * 128 + part * 64 + at % 64;
            let upper = b[128 + col / 128 * 32 + col % 32] >> (col % 128 / 32 * 2) & 3;
            let q = f32::from(nibble) + 16.0 * f32::from(upper) - 32.0;
            y[col] = d * f32::from(b[192 + col / 16] as i8) * q;
        }
    }
}

/// The 16-bit float at the front of `bytes`.
fn half(bytes: &[u8]) -> f32 {
    let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 => f32::INFINITY,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}
