//! The blocks of the quantised formats as they lie in a file.
//!
//! Every format is read through the same four questions: what are a block's
//! scale and minimum, what are those of a stretch of its columns, what are the
//! unsigned integers of eight neighbouring columns, and what does such an
//! integer stand for. All functions are inlined where the format is a constant.
//! Deliberately absent: floats, and how blocks are packed.

use crate::arith::half::Exact;
use crate::gguf::GgmlType;

use super::layout::CHOICES;

/// A scale that any 16-bit float can be at 2^-24 exactly.
pub(super) const HALF_BITS: i32 = 24;
/// A bound no 16-bit float reaches at 2^-24.
const WIDE: i64 = 1 << 61;

/// Scale and minimum of a block at 2^-24, exact, as the file has them; the
/// minimum is 0 where the format has none. `None` where not finite.
#[inline(always)]
pub(super) fn scales(kind: GgmlType, block: &[u8]) -> Option<(i64, i64)> {
    let half = |at: usize| {
        let bits = u16::from_le_bytes([block[at], block[at + 1]]);
        Some(Exact::from_f16(bits)?.at(HALF_BITS, WIDE))
    };
    match kind {
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K => {
            Some((half(0)?, half(2)?))
        }
        GgmlType::Q2K => Some((half(80)?, half(82)?)),
        GgmlType::Q3K => Some((half(108)?, 0)),
        GgmlType::Q6K => Some((half(208)?, 0)),
        _ => Some((half(0)?, 0)),
    }
}

/// What the block's scale and minimum are multiplied with in a stretch: a
/// weight is `scale · s · q + minimum · m`.
#[inline(always)]
pub(super) fn factors(kind: GgmlType, block: &[u8], stretch: usize) -> (i64, i64) {
    match kind {
        GgmlType::Q2K => (i64::from(block[stretch] & 15), -i64::from(block[stretch] >> 4)),
        GgmlType::Q3K => {
            let bytes = &block[96..108];
            let low = bytes[stretch % 8] >> (4 * (stretch / 8)) & 15;
            let high = bytes[8 + stretch % 4] >> (2 * (stretch / 4)) & 3;
            (i64::from(low | high << 4) - 32, 0)
        }
        GgmlType::Q4K | GgmlType::Q5K => {
            let bytes = &block[4..16];
            let (scale, minimum) = if stretch < 4 {
                (bytes[stretch] & 63, bytes[stretch + 4] & 63)
            } else {
                let low = bytes[stretch + 4];
                (low & 15 | bytes[stretch - 4] >> 6 << 4, low >> 4 | bytes[stretch] >> 6 << 4)
            };
            (i64::from(scale), -i64::from(minimum))
        }
        GgmlType::Q6K => (i64::from(block[192 + stretch] as i8), 0),
        _ => (1, 1),
    }
}

/// The unsigned integers of columns `8 · eight ..`, a byte each, the first one
/// lowest. Those of Q8_0 have 128 added.
#[inline(always)]
pub(super) fn codes(kind: GgmlType, block: &[u8], eight: usize) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let read = |at: usize| {
        let b = &block[at..at + 8];
        u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    };
    // Columns 0..16 of 32 are the low nibbles of 16 bytes, columns 16.. the high ones.
    let halves = |at: usize| read(at + 8 * (eight % 2)) >> (4 * (eight / 2)) & (15 * ONES);
    // Of 32 bytes, which 32 columns share a half, a quarter or an eighth of each.
    let (run, within) = (eight / 4, 8 * (eight % 4));
    match kind {
        GgmlType::Q4_1 => halves(4),
        GgmlType::Q5_0 => halves(6) | spread(block[2 + eight]) << 4,
        GgmlType::Q5_1 => halves(8) | spread(block[4 + eight]) << 4,
        GgmlType::Q8_0 => read(2 + 8 * eight) ^ (128 * ONES),
        GgmlType::Q2K => read(16 + 32 * (run / 4) + within) >> (2 * (run % 4)) & (3 * ONES),
        GgmlType::Q3K => {
            let low = read(32 + 32 * (run / 4) + within) >> (2 * (run % 4)) & (3 * ONES);
            low | (read(within) >> run & ONES) << 2
        }
        GgmlType::Q4K => read(16 + 32 * (run / 2) + within) >> (4 * (run % 2)) & (15 * ONES),
        GgmlType::Q5K => {
            let low = read(48 + 32 * (run / 2) + within) >> (4 * (run % 2)) & (15 * ONES);
            low | (read(16 + within) >> run & ONES) << 4
        }
        GgmlType::Q6K => {
            let (side, quarter) = (run / 4, run % 4);
            let low = read(64 * side + 32 * (quarter % 2) + within) >> (4 * (quarter / 2));
            let high = read(128 + 32 * side + within) >> (2 * quarter) & (3 * ONES);
            low & (15 * ONES) | high << 4
        }
        // Q4_0 and IQ4_NL.
        _ => halves(2),
    }
}

/// The bits of a byte as eight bytes of 0 or 1, the lowest bit first.
#[inline(always)]
fn spread(bits: u8) -> u64 {
    let each = u64::from(bits).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    // A byte is zero or one power of two: adding 127 carries into its top bit.
    ((each + 0x7f7f_7f7f_7f7f_7f7f) | each) >> 7 & 0x0101_0101_0101_0101
}

/// What an unsigned integer stands for; a larger one never stands for less.
#[inline(always)]
pub(super) fn value(kind: GgmlType, code: u8) -> i64 {
    let offset = match kind {
        GgmlType::Iq4Nl => return i64::from(CHOICES[usize::from(code & 15)]),
        GgmlType::Q4_0 => 8,
        GgmlType::Q5_0 => 16,
        GgmlType::Q8_0 => 128,
        GgmlType::Q3K => 4,
        GgmlType::Q6K => 32,
        _ => 0,
    };
    i64::from(code) - offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_spread_in_order() {
        for bits in 0..=255u8 {
            let bytes = spread(bits).to_le_bytes();
            for (at, byte) in bytes.into_iter().enumerate() {
                assert_eq!(byte, bits >> at & 1, "{bits}");
            }
        }
    }
}
