//! Tensors as floats, straight from the definitions of their formats.
//!
//! Shares no code with the integer path, so that a misread format shows as a
//! difference between the two. Deliberately absent: speed.

use crate::gguf::{GgmlType, Tensor};
use crate::weights::LoadError;

/// A tensor as `f32`, straight from the format's definition.
pub(super) fn dequantise(tensor: &Tensor<'_>) -> Result<Vec<f32>, LoadError> {
    let blocks = tensor.data.chunks_exact(tensor.kind.block_bytes() as usize);
    let nibbles = |scale: f32, low: f32, bytes: &[u8]| -> Vec<f32> {
        let (first, second) = (bytes.iter().map(|b| b & 15), bytes.iter().map(|b| b >> 4));
        first.chain(second).map(|q| scale * f32::from(q) + low).collect()
    };
    let values = match tensor.kind {
        GgmlType::F32 => blocks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        GgmlType::F16 => blocks.map(half).collect(),
        GgmlType::Q4_0 => blocks.flat_map(|b| nibbles(half(b), -8.0 * half(b), &b[2..])).collect(),
        GgmlType::Q4_1 => blocks.flat_map(|b| nibbles(half(b), half(&b[2..]), &b[4..])).collect(),
        GgmlType::Q8_0 => {
            blocks.flat_map(|b| b[2..].iter().map(|&q| half(b) * f32::from(q as i8))).collect()
        }
        kind => return Err(LoadError::Format { tensor: tensor.name.to_owned(), kind }),
    };
    Ok(values)
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
