//! High-precision fixed point, from which every table is built: exponentials,
//! powers, sine and cosine by integer multiplication and square roots alone.
//!
//! Numbers in [0, 1] are held at 2^-62. Each function is good to better than
//! 2^-48, so a table entry of 14 to 31 bits is the exactly rounded one unless
//! the true value lies within 2^-48 of a tie; the digests in `vectors/` pin
//! what comes out.

use std::sync::LazyLock;

use super::{half::Exact, isqrt};

/// One, at 2^-62.
pub const ONE: u64 = 1 << 62;
/// `round(log2(e) · 2^62)`.
pub const LOG2_E: u64 = 0x5C55_1D94_AE0B_F85E;
/// One, at 2^-60.
pub const ONE_60: u64 = 1 << 60;
/// `round(ln(2) · 2^62)`.
const LN_2: u64 = 0x2C5C_85FD_F473_DE6B;
/// `round(2√(2/π) · log2(e) · 2^60)`.
const GELU_1: u64 = 0x24D5_D843_79CE_B297;
/// `round(0.044715 · 2√(2/π) · log2(e) · 2^60)`.
const GELU_3: u64 = 0x01A5_A7CF_7572_A979;
/// `round(2π · 2^60)`.
const TWO_PI_60: u64 = 0x6487_ED51_10B4_611A;

/// `a · b` at 2^-62, rounded down.
#[inline]
#[must_use]
pub const fn mul(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) >> 62) as u64
}

/// 2^-(1/2), 2^-(1/4), 2^-(1/8), ... at 2^-62, each the root of the one before.
static ROOTS: LazyLock<[u64; 62]> = LazyLock::new(|| {
    let mut root = ONE >> 1;
    std::array::from_fn(|_| {
        root = isqrt(u128::from(root) << 62) as u64;
        root
    })
});

/// `2^-(y / 2^62)` for `y` at 2^-62 below 64 (so `y` takes up to 68 bits).
#[must_use]
pub fn exp2_neg(y: u128) -> u64 {
    let whole = (y >> 62) as u32;
    let fraction = (y & u128::from(ONE - 1)) as u64;
    let mut result = ONE;
    for (at, &root) in ROOTS.iter().enumerate() {
        if fraction >> (61 - at) & 1 == 1 {
            result = mul(result, root);
        }
    }
    if whole > 63 { 0 } else { result >> whole }
}

/// `log2(x)` at 2^-62 (as a signed number), by repeated squaring. `None` unless
/// `x` is positive.
#[must_use]
pub fn log2(x: Exact) -> Option<i128> {
    let whole = x.log2()?;
    if x.mantissa < 0 {
        return None;
    }
    let mut v = (x.mantissa as u64) << (62 - (whole - x.exponent)); // in [1, 2)
    let mut fraction = 0u64;
    for _ in 0..62 {
        v = mul(v, v);
        fraction <<= 1;
        if v >= ONE << 1 {
            v >>= 1;
            fraction |= 1;
        }
    }
    Some((i128::from(whole) << 62) + i128::from(fraction))
}

/// `round(√n · 2^20)`.
#[must_use]
pub const fn root_20(n: u64) -> u64 {
    (isqrt((n as u128) << 42) as u64 + 1) >> 1
}

/// Where a pair of `dims` rotated dimensions turns `turns` times in `context`
/// positions, `dims · log2(context / (2π · turns)) / (2 · log2(base))`: rounded
/// down, and up. `None` unless all are positive and `base` is above 1.
#[must_use]
pub fn turning_pair(base: Exact, dims: u32, context: i64, turns: Exact) -> Option<(i64, i64)> {
    let two_pi = Exact { mantissa: TWO_PI_60 as i64, exponent: -60 };
    let context = Exact { mantissa: context, exponent: 0 };
    let wide = log2(context)? - log2(turns)? - log2(two_pi)?;
    let below = 2 * log2(base).filter(|&log| log > 0)?;
    let wide = wide * i128::from(dims);
    let floor = i64::try_from(wide.div_euclid(below)).ok()?;
    Some((floor, floor + i64::from(wide.rem_euclid(below) > 0)))
}

/// `1 + ln(factor) / 10` at 2^-60, and 1 for factors below 1; `None` from a
/// factor of 2^16 on.
#[must_use]
pub fn yarn_magnitude(factor: Exact) -> Option<u64> {
    let log = u128::try_from(log2(factor)?).unwrap_or(0);
    if log >> 62 >= 16 {
        return None;
    }
    let natural = (log * u128::from(LN_2)) >> 62;
    Some(ONE_60 + (natural / 40) as u64)
}

/// `x · factor` of an `x` at 2^-60, rounded; `None` for negative factors and from
/// four on.
#[must_use]
pub fn scale_60(x: u64, factor: Exact) -> Option<u64> {
    let wide = u128::from(x) * u128::try_from(factor.mantissa).ok()?;
    let wide = match factor.exponent {
        0..=30 => wide << factor.exponent,
        -120..0 => ((wide >> (-factor.exponent - 1)) + 1) >> 1,
        ..-120 => 0,
        _ => return None,
    };
    u64::try_from(wide).ok().filter(|&scaled| scaled < 4 * ONE_60)
}

/// `2^62 / (1 + e^(2√(2/π) · (x + 0.044715 x³)))` at `x = i / 64`, for `i` up to
/// 2^12.
#[must_use]
pub fn gelu_tail(i: u64) -> u64 {
    let i = u128::from(i);
    // At 2^-66 and 2^-78, both brought to 2^-62.
    let power = ((i * u128::from(GELU_1)) >> 4) + ((i.pow(3) * u128::from(GELU_3)) >> 16);
    logistic_tail(power)
}

/// `2^62 / (1 + 2^y)` for `y` at 2^-62.
#[must_use]
pub fn logistic_tail(y: u128) -> u64 {
    let power = exp2_neg(y);
    ((u128::from(power) << 62) / u128::from(ONE + power)) as u64
}

/// Cosine and sine of `turns / 2^64` turns, at 2^-14, rounded half up.
#[inline]
#[must_use]
pub fn cos_sin(turns: u64) -> (i16, i16) {
    let (cos, sin) = (cosine(turns), cosine(turns.wrapping_sub(1 << 62)));
    (round_to_14(cos), round_to_14(sin))
}

/// As [`cos_sin`], times a `magnitude` at 2^-60 below 2.
#[must_use]
pub fn magnified_cos_sin(turns: u64, magnitude: u64) -> (i16, i16) {
    let times = |v: i64| ((i128::from(v) * i128::from(magnitude)) >> 60) as i64;
    let (cos, sin) = (cosine(turns), cosine(turns.wrapping_sub(1 << 62)));
    (round_to_14(times(cos)), round_to_14(times(sin)))
}

#[inline]
const fn round_to_14(v: i64) -> i16 {
    super::round_shift(v, 46) as i16
}

/// Cosine of `turns / 2^64` turns, at 2^-60.
fn cosine(turns: u64) -> i64 {
    // cos is even, and cos(π - x) = -cos x: fold into the first quarter.
    let half = if turns > 1 << 63 { turns.wrapping_neg() } else { turns };
    let (quarter, negative) = if half > 1 << 62 { ((1 << 63) - half, true) } else { (half, false) };
    // Below an eighth of a turn the cosine, above it the sine of the rest.
    let value = if quarter <= 1 << 61 {
        series(radians(quarter), 0)
    } else {
        series(radians((1 << 62) - quarter), 1)
    };
    if negative { -value } else { value }
}

/// An angle of at most an eighth of a turn, in radians at 2^-60.
#[inline]
const fn radians(turns: u64) -> i64 {
    ((turns as u128 * TWO_PI_60 as u128) >> 64) as i64
}

/// Taylor's series of cosine (`odd` = 0) or sine (`odd` = 1) at 2^-60.
#[inline]
fn series(x: i64, odd: i64) -> i64 {
    let mul = |a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 60) as i64;
    let square = mul(x, x);
    let mut term = if odd == 1 { x } else { 1 << 60 };
    let mut sum = term;
    for i in 1..=10 {
        let n = 2 * i + odd;
        term = -mul(term, square) / (n * (n - 1));
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_arithmetic, reason = "tests compare with floats")]
    use super::*;

    #[test]
    fn exponentials_and_logarithms_agree_with_floats() {
        for i in 0..200u64 {
            let y = f64::from(i as u32) / 7.0;
            let got = exp2_neg((u128::from(i) << 62) / 7) as f64 / ONE as f64;
            assert!((got - (-y).exp2()).abs() < 1e-15, "{i}");
        }
        for bits in [100_000f32, 1.0, 10_000.0, 1e6, 0.37, 3.0].map(f32::to_bits) {
            let got = log2(Exact::from_f32(bits).unwrap()).unwrap() as f64 / ONE as f64;
            assert!((got - f64::from(f32::from_bits(bits)).log2()).abs() < 1e-14);
        }
    }

    #[test]
    fn circle_agrees_with_floats() {
        for i in 0..5_000u64 {
            let turns = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let angle = turns as f64 / 2f64.powi(64) * std::f64::consts::TAU;
            let (cos, sin) = cos_sin(turns);
            assert!((f64::from(cos) - angle.cos() * 16_384.0).abs() <= 0.500_001);
            assert!((f64::from(sin) - angle.sin() * 16_384.0).abs() <= 0.500_001);
        }
        assert_eq!(cos_sin(0), (16_384, 0));
        assert_eq!(cos_sin(1 << 62), (0, 16_384));
        assert_eq!(cos_sin(1 << 63), (-16_384, 0));
        assert_eq!(cos_sin(3 << 62), (0, -16_384));
    }

    #[test]
    fn magnitudes_and_bounds_of_stretched_contexts_agree_with_floats() {
        let exact = |x: f32| Exact::from_f32(x.to_bits()).unwrap();
        for factor in [0.5f32, 1.0, 1.5, 4.0, 8.0, 40.0, 8000.0] {
            let got = yarn_magnitude(exact(factor)).unwrap() as f64 / ONE_60 as f64;
            assert!((got - (1.0 + f64::from(factor.max(1.0)).ln() / 10.0)).abs() < 1e-15);
            let scaled = scale_60(ONE_60, exact(factor));
            assert_eq!(scaled.is_some(), factor < 4.0);
        }
        assert_eq!(scale_60(3 << 58, exact(1.5)), Some(9 << 57));
        assert_eq!(scale_60(ONE_60, exact(f32::MIN_POSITIVE)), Some(0));
        assert_eq!(scale_60(ONE_60, exact(f32::MAX)), None);
        for (base, context, turns) in
            [(10_000f32, 4096, 32f32), (1e6, 32_768, 1.0), (500_000.0, 8192, 0.7), (1e4, 1, 900.0)]
        {
            let (floor, ceil) = turning_pair(exact(base), 96, context, exact(turns)).unwrap();
            let turns = std::f64::consts::TAU * f64::from(turns);
            let want = 96.0 * (context as f64 / turns).ln() / (2.0 * f64::from(base).ln());
            assert_eq!((floor as f64, ceil as f64), (want.floor(), want.ceil()));
        }
        assert_eq!(turning_pair(exact(1.0), 96, 4096, exact(1.0)), None);
        for i in 0..100 {
            let turns = i * 0x0234_5678_9ABC_DEF1;
            assert_eq!(magnified_cos_sin(turns, ONE_60), cos_sin(turns));
            let (cos, _) = magnified_cos_sin(turns, 3 << 59);
            assert!((f64::from(cos) - 1.5 * f64::from(cos_sin(turns).0)).abs() <= 1.5);
        }
    }
}
