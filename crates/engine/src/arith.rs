//! The integer arithmetic everything else is written in: rounding, canonical
//! exponents, roots, and the constants and tables of `docs/spec/arithmetic.md`.
//!
//! A real number is an integer and an exponent, `value · 2^-exponent`. Every
//! function here is total and defined on integers alone, so a second
//! implementation in any language gives the same result. Deliberately absent:
//! floats, and anything that depends on the processor.

#![deny(clippy::float_arithmetic)]

pub mod cap;
pub mod fixed;
pub mod half;
pub mod tables;
pub mod turns;

/// The version of the arithmetic, carried in every receipt.
pub const VERSION: u32 = 1;
/// The residual stream holds integers at 2^-`RESIDUAL_BITS`.
pub const RESIDUAL_BITS: i32 = 12;
/// Logits are integers at 2^-`LOGIT_BITS`.
pub const LOGIT_BITS: i32 = 10;
/// Attention scores are base-2 logarithms at 2^-`SCORE_BITS`.
pub const SCORE_BITS: i32 = 10;
/// Gate and up projections are integers at 2^-`GATE_BITS`.
pub const GATE_BITS: i32 = 18;
/// Values normalised by the root mean square are integers at 2^-`NORM_BITS`.
pub const NORM_BITS: i32 = 20;
/// Attention weights are carried with this many bits below [`tables::EXP_ONE`].
pub const WEIGHT_BITS: i32 = 9;
/// The exponent of a row of zeros.
pub const ZERO_EXPONENT: i32 = 127;
/// Residuals, gates and logits saturate at ± this.
pub const LIMIT: i64 = (1 << 31) - 1;
/// Scores saturate at ± this.
pub const SCORE_LIMIT: i64 = 1 << 30;

/// `floor(v / 2^s + 1/2)` for `|v| < 2^62`; `s = 0` leaves `v`, `s ≥ 63` gives 0.
#[inline(always)]
#[must_use]
pub const fn round_shift(v: i64, s: u32) -> i64 {
    match s {
        0 => v,
        // Equal to (v + 2^(s-1)) >> s, without the sum that could wrap.
        1..=63 => (v >> (s - 1)).wrapping_add(1) >> 1,
        _ => ((v >> 62) + 1) >> 1,
    }
}

/// `v · 2^-s`, rounded as [`round_shift`] for `s > 0`, exact for `s ≤ 0`,
/// saturating at ±`limit` (which is at most 2^62).
#[inline(always)]
#[must_use]
pub const fn rescale(v: i64, s: i32, limit: i64) -> i64 {
    let wide = if s >= 0 {
        round_shift(v, s as u32)
    } else {
        let up = s.unsigned_abs();
        if v == 0 {
            0
        } else if up > 62 || v > (limit >> up) || v < -(limit >> up) {
            if v > 0 { limit } else { -limit }
        } else {
            v << up
        }
    };
    if wide > limit {
        limit
    } else if wide < -limit {
        -limit
    } else {
        wide
    }
}

/// The number of bits of `v`: 0 for 0, else `floor(log2 v) + 1`.
#[inline(always)]
#[must_use]
pub const fn bit_length(v: u64) -> i32 {
    64 - v.leading_zeros() as i32
}

/// The shift that brings a largest magnitude `max > 0` into [16384, 32767]:
/// right where positive (rounding), left where negative (exact).
#[inline(always)]
#[must_use]
pub const fn canonical_shift(max: u64) -> i32 {
    let shift = bit_length(max) - 15;
    if shift > 0 && round_shift(max as i64, shift as u32) > 32_767 { shift + 1 } else { shift }
}

/// The reciprocal root of a mean square: `(r, k)` with
/// `r² · s ≤ n · 2^2k < (r + 1)² · s` and `n · 2^2k / s` in [2^60, 2^62), so
/// that `r` is below 2^31. Needs `s > 0` and `n < 2^60`.
#[must_use]
pub fn inverse_root(n: u64, s: u128) -> (u64, u32) {
    // The smallest k that reaches 2^60; the next k would be four times that.
    let have = 128 - u128::from(n).leading_zeros() as i32 - (128 - s.leading_zeros() as i32);
    let mut k = ((60 - have - 2).max(0) / 2) as u32;
    let mut quotient = scaled_quotient(n, 2 * k, s);
    while quotient < 1 << 60 {
        k += 1;
        quotient = scaled_quotient(n, 2 * k, s);
    }
    (isqrt(quotient) as u64, k)
}

/// What a norm adds to a sum of `n` squares at 2^-`bits`: `round(ε · n · 2^bits)`,
/// at least 1 and at most 2^100. Needs `ε` of 24 bits, 0 or more, and `n` up to
/// 2^16.
#[must_use]
pub const fn norm_epsilon(epsilon: half::Exact, n: usize, bits: i32) -> u128 {
    let wide = epsilon.mantissa.unsigned_abs() as u128 * n as u128;
    let up = epsilon.exponent + bits;
    let added = if wide == 0 || up < -127 {
        0
    } else if up < 0 {
        ((wide >> (-up - 1)) + 1) >> 1
    } else if up >= 100 || wide >= 1 << (100 - up) {
        1 << 100
    } else {
        wide << up
    };
    if added == 0 { 1 } else { added }
}

/// `floor(n · 2^bits / s)` by long division, where the result fits 64 bits.
fn scaled_quotient(n: u64, bits: u32, s: u128) -> u128 {
    let n = u128::from(n);
    if bits < n.leading_zeros() {
        return (n << bits) / s;
    }
    let (mut quotient, mut rest) = (n / s, n % s);
    for _ in 0..bits {
        rest <<= 1;
        quotient <<= 1;
        if rest >= s {
            rest -= s;
            quotient |= 1;
        }
    }
    quotient
}

/// `floor(√v)`.
#[must_use]
pub const fn isqrt(v: u128) -> u128 {
    v.isqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_up_on_both_sides() {
        let cases = [(5, 1, 3), (-5, 1, -2), (-6, 2, -1), (6, 2, 2), (7, 0, 7)];
        for (v, s, want) in cases {
            assert_eq!(round_shift(v, s), want, "{v} {s}");
        }
        for s in 63..200 {
            for v in [(1 << 62) - 1, -((1 << 62) - 1), 1, -1, 0] {
                assert_eq!(round_shift(v, s), 0, "{v} {s}");
            }
        }
        assert_eq!(round_shift((1 << 62) - 1, 1), 1 << 61);
    }

    #[test]
    fn rescaling_saturates_instead_of_wrapping() {
        assert_eq!(rescale(3, -2, LIMIT), 12);
        assert_eq!(rescale(i64::MAX >> 1, -5, LIMIT), LIMIT);
        assert_eq!(rescale(-9, -62, LIMIT), -LIMIT);
        assert_eq!(rescale(-9, -90, LIMIT), -LIMIT);
        assert_eq!(rescale(0, -90, LIMIT), 0);
        assert_eq!(rescale(1 << 40, 3, LIMIT), LIMIT);
    }

    #[test]
    fn canonical_shift_lands_in_range() {
        for max in (1..70_000u64).chain([u64::MAX >> 2, (1 << 40) - 1, 1 << 40, 65_535 << 20]) {
            let shift = canonical_shift(max);
            let got = rescale(max as i64, shift, i64::MAX >> 1);
            assert!((16_384..=32_767).contains(&got), "{max} {shift} {got}");
        }
    }

    #[test]
    fn inverse_root_meets_its_definition() {
        let cases: [(u64, u128); 7] = [
            (576, 1),
            (576, 6040),
            (1, 1),
            (65_536, 3),
            (576, 123_456_789_012_345),
            (2048, 2048 << 62),
            (65_535, 65_535 << 62),
        ];
        for (n, s) in cases {
            let (r, k) = inverse_root(n, s);
            assert!((1 << 30..1 << 31).contains(&r), "{n} {s} {r} {k}");
            // Both sides of the definition, divided by s, floor for floor.
            let q = scaled_quotient(n, 2 * k, s);
            let r = u128::from(r);
            assert!(r * r <= q && q < (r + 1) * (r + 1));
            assert!(k == 0 || scaled_quotient(n, 2 * (k - 1), s) < 1 << 60);
        }
    }

    #[test]
    fn epsilons_saturate_on_both_sides() {
        let epsilon = half::Exact::from_f32(1e-6f32.to_bits())
            .unwrap_or(half::Exact { mantissa: 0, exponent: 0 });
        assert_eq!(norm_epsilon(epsilon, 640, 24), 10_737);
        assert_eq!(norm_epsilon(epsilon, 640, -400), 1);
        assert_eq!(norm_epsilon(epsilon, 640, 5), 1);
        assert_eq!(norm_epsilon(epsilon, 640, 111), 1 << 100);
        assert_eq!(norm_epsilon(epsilon, 640, 1 << 20), 1 << 100);
        assert_eq!(norm_epsilon(half::Exact { mantissa: 0, exponent: 4 }, 640, 500), 1);
        for bits in -300..300 {
            let more = norm_epsilon(epsilon, 256, bits + 1);
            let twice = 2 * norm_epsilon(epsilon, 256, bits);
            let close = more.abs_diff(twice) <= 1;
            assert!(close || more == 1 || more == 1 << 100, "{bits}");
        }
    }

    #[test]
    fn long_and_short_division_agree() {
        for bits in 0..60 {
            let (n, s) = (576u64, 0x1_2345_6789_abcd_u128);
            let (mut quotient, mut rest) = (u128::from(n) / s, u128::from(n) % s);
            for _ in 0..bits {
                rest <<= 1;
                quotient = (quotient << 1) | u128::from(rest >= s);
                if rest >= s {
                    rest -= s;
                }
            }
            assert_eq!(scaled_quotient(n, bits, s), quotient);
        }
    }
}
