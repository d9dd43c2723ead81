//! IEEE 754 bits read as exact integers: no float is ever computed with.

/// A finite number as `mantissa · 2^exponent`, exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    /// Signed mantissa, at most 24 bits.
    pub mantissa: i64,
    /// Power of two.
    pub exponent: i32,
}

impl Exact {
    /// The number with these binary16 bits; `None` for infinities and NaN.
    #[inline]
    #[must_use]
    pub const fn from_f16(bits: u16) -> Option<Self> {
        Self::decode(bits as u32, 5, 10)
    }

    /// The number with these binary32 bits; `None` for infinities and NaN.
    #[inline]
    #[must_use]
    pub const fn from_f32(bits: u32) -> Option<Self> {
        Self::decode(bits, 8, 23)
    }

    /// The number with these bits, the upper half of binary32 ones; `None` for
    /// infinities and NaN.
    #[inline]
    #[must_use]
    pub const fn from_bf16(bits: u16) -> Option<Self> {
        Self::decode((bits as u32) << 16, 8, 23)
    }

    #[inline]
    const fn decode(bits: u32, exponent_bits: u32, mantissa_bits: u32) -> Option<Self> {
        let top = (1u32 << exponent_bits) - 1;
        let field = (bits >> mantissa_bits) & top;
        if field == top {
            return None;
        }
        let fraction = (bits & ((1 << mantissa_bits) - 1)) as i64;
        let (mantissa, field) =
            if field == 0 { (fraction, 1) } else { (fraction | 1 << mantissa_bits, field) };
        let negative = (bits >> (mantissa_bits + exponent_bits)) & 1 == 1;
        let bias = (1 << (exponent_bits - 1)) - 1 + mantissa_bits as i32;
        Some(Self {
            mantissa: if negative { -mantissa } else { mantissa },
            exponent: field as i32 - bias,
        })
    }

    /// `floor(log2 |x|)`, `None` for zero.
    #[inline]
    #[must_use]
    pub const fn log2(self) -> Option<i32> {
        if self.mantissa == 0 {
            return None;
        }
        Some(super::bit_length(self.mantissa.unsigned_abs()) - 1 + self.exponent)
    }

    /// `round(x · 2^bits)`, half up, saturating at ±`limit`.
    #[inline]
    #[must_use]
    pub const fn at(self, bits: i32, limit: i64) -> i64 {
        super::rescale(self.mantissa, -(self.exponent + bits), limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_become_the_number_they_mean() {
        let one = Exact::from_f32(0x3f80_0000).map(|x| x.at(0, 1 << 40));
        assert_eq!(one, Some(1));
        assert_eq!(Exact::from_f16(0x3c00).map(|x| x.at(4, 1 << 40)), Some(16));
        assert_eq!(Exact::from_f16(0xc500).map(|x| x.at(1, 1 << 40)), Some(-10));
        assert_eq!(Exact::from_bf16(0xc040).map(|x| x.at(1, 1 << 40)), Some(-6));
        assert_eq!(Exact::from_bf16(0x7f80), None);
        // The smallest subnormal of each width.
        assert_eq!(Exact::from_f16(1).and_then(Exact::log2), Some(-24));
        assert_eq!(Exact::from_f32(1).and_then(Exact::log2), Some(-149));
        assert_eq!(Exact::from_f16(0x7c00), None);
        assert_eq!(Exact::from_f32(0x7fc0_0000), None);
        assert_eq!(Exact::from_f16(0x8000).and_then(Exact::log2), None);
    }

    #[test]
    fn halves_round_up() {
        // 2.5 and -2.5
        assert_eq!(Exact::from_f16(0x4100).map(|x| x.at(0, 1 << 40)), Some(3));
        assert_eq!(Exact::from_f16(0xc100).map(|x| x.at(0, 1 << 40)), Some(-2));
    }
}
