//! A positive number as a bettor's wealth: multiplied thousands of times, and the
//! same on every machine.
//!
//! [`Stake`] is a 31-bit mantissa and an exponent. Every operation rounds down,
//! so what a test needs to be called wealthy is never reached by rounding.
//! Deliberately absent: floats, negative numbers, and precision beyond the
//! mantissa.

/// Bits of a mantissa; the highest one is set.
const BITS: u32 = 31;
/// One, for factors.
pub(crate) const ONE_Q16: u64 = 1 << 16;
/// Wealth below 2^-this is as good as none, and above 2^this is held there.
const FURTHEST: i32 = 1 << 20;

/// A number of 31 significant bits, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stake {
    /// 0, or from 2^30 to 2^31 - 1.
    mantissa: u32,
    /// The value is `mantissa · 2^(exponent - 30)`.
    exponent: i32,
}

impl Stake {
    /// Nothing.
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0 };
    /// What every test begins with.
    pub const ONE: Self = Self { mantissa: 1 << (BITS - 1), exponent: 0 };

    /// `numerator / denominator`, rounded down; nothing for a denominator of 0.
    #[must_use]
    pub fn ratio(numerator: u64, denominator: u64) -> Self {
        match u128::from(numerator).checked_shl(62) {
            Some(wide) if denominator > 0 => Self::of(wide / u128::from(denominator), -62),
            _ => Self::ZERO,
        }
    }

    /// `value · 2^power`.
    fn of(value: u128, power: i32) -> Self {
        if value == 0 {
            return Self::ZERO;
        }
        let top = value.ilog2() as i32;
        let shift = top - (BITS as i32 - 1);
        let mantissa = if shift >= 0 { value >> shift } else { value << -shift };
        let exponent = top + power;
        if exponent < -FURTHEST {
            return Self::ZERO;
        }
        Self { mantissa: mantissa as u32, exponent: exponent.min(FURTHEST) }
    }

    /// Two numbers that name it; see [`from_parts`](Self::from_parts).
    #[must_use]
    pub fn parts(&self) -> (u32, u32) {
        (self.mantissa, self.exponent.wrapping_add(FURTHEST) as u32)
    }

    /// The stake with these parts; `None` if there is none, or they name it in another way.
    #[must_use]
    pub fn from_parts((mantissa, exponent): (u32, u32)) -> Option<Self> {
        let exponent = i64::from(exponent) - i64::from(FURTHEST);
        let limit = i64::from(FURTHEST);
        let whole = mantissa >> (BITS - 1) == 1 && (-limit..=limit).contains(&exponent);
        let stake = Self { mantissa, exponent: exponent as i32 };
        (whole || stake == Self::ZERO).then_some(stake)
    }

    /// Times a factor with 16 fractional bits.
    #[must_use]
    pub fn by_q16(self, factor: u64) -> Self {
        Self::of(u128::from(self.mantissa) * u128::from(factor), self.exponent - 30 - 16)
    }

    /// The product.
    #[must_use]
    pub fn by(self, other: Self) -> Self {
        let product = u128::from(self.mantissa) * u128::from(other.mantissa);
        Self::of(product, self.exponent + other.exponent - 60)
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (high, low) = if self.at_least(&other) { (self, other) } else { (other, self) };
        let apart = (high.exponent - low.exponent).min(96);
        if low.mantissa == 0 || apart > 64 {
            return high;
        }
        let sum = (u128::from(high.mantissa) << apart) + u128::from(low.mantissa);
        Self::of(sum, low.exponent - 30)
    }

    /// Whether it is not below another one.
    #[must_use]
    pub fn at_least(&self, other: &Self) -> bool {
        if self.mantissa == 0 || other.mantissa == 0 {
            return other.mantissa == 0;
        }
        (self.exponent, self.mantissa) >= (other.exponent, other.mantissa)
    }

    /// The logarithm to base 2, rounded down to a whole number; nothing has none.
    #[must_use]
    pub fn log2(&self) -> Option<i32> {
        (self.mantissa > 0).then_some(self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn float(stake: Stake) -> f64 {
        f64::from(stake.mantissa) * 2f64.powi(stake.exponent - 30)
    }

    #[test]
    fn simple_numbers_are_themselves() {
        assert_eq!(Stake::ratio(7, 7), Stake::ONE);
        assert_eq!(Stake::ONE.by_q16(ONE_Q16), Stake::ONE);
        assert_eq!(Stake::ONE.plus(Stake::ONE), Stake::ratio(2, 1));
        assert_eq!(Stake::ONE.by(Stake::ZERO), Stake::ZERO);
        assert_eq!(Stake::ZERO.plus(Stake::ONE), Stake::ONE);
        assert_eq!(Stake::ratio(1, 0), Stake::ZERO);
        assert_eq!(Stake::ratio(1_000_000, 1).log2(), Some(19));
        assert_eq!(Stake::ZERO.log2(), None);
        assert!(Stake::ONE.at_least(&Stake::ZERO) && Stake::ZERO.at_least(&Stake::ZERO));
        assert!(!Stake::ZERO.at_least(&Stake::ONE));
    }

    #[test]
    fn the_furthest_stay_where_they_are() {
        let mut low = Stake::ONE;
        let mut high = Stake::ONE;
        for _ in 0..200_000 {
            low = low.by_q16(1);
            high = high.by_q16(ONE_Q16 * ONE_Q16);
        }
        assert_eq!((low, high.log2()), (Stake::ZERO, Some(FURTHEST)));
        assert_eq!(high.by(high).log2(), Some(FURTHEST));
    }

    #[test]
    fn parts_that_name_none_are_refused() {
        for parts in [(1, 0), (1 << 31, 5), (1 << 30, u32::MAX), (0, 0), (u32::MAX, 0)] {
            assert_eq!(Stake::from_parts(parts), None, "{parts:?}");
        }
    }

    proptest! {
        #[test]
        fn near_what_floats_say_and_never_above(
            a in 1u64..u64::MAX, b in 1u64..u64::MAX, c in 1u64..u64::MAX, factor in 1u64..1 << 20,
        ) {
            let (x, y) = (Stake::ratio(a, b), Stake::ratio(c, a));
            let (fx, fy) = (a as f64 / b as f64, c as f64 / a as f64);
            let near = |got: Stake, exact: f64| {
                let got = float(got);
                got <= exact * (1.0 + 1e-14) && got >= exact * (1.0 - 1e-8)
            };
            prop_assert!(near(x, fx) && near(x.by(y), fx * fy) && near(x.plus(y), fx + fy));
            prop_assert!(near(x.by_q16(factor), fx * factor as f64 / 65536.0));
            prop_assert_eq!(Stake::from_parts(x.parts()), Some(x));
            prop_assert_eq!(x.plus(y), y.plus(x));
        }
    }
}
