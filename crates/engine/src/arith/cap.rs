//! The soft cap, `L · tanh(v / L)`, by the logistic table.
//!
//! `tanh(y) = 1 - 2 / (1 + e^2y)`, so one entry of the table and the fall to the
//! next give it. The same rule serves scores, whose unit is a binary logarithm,
//! and logits, whose unit is a natural one: only the limit's integer differs.
//! Deliberately absent: where a model keeps its caps.

#![deny(clippy::float_arithmetic)]

use super::fixed::LOG2_E;
use super::half::Exact;
use super::tables::{LOGISTIC_LEN, Tables};
use super::{LOGIT_BITS, SCORE_BITS, round_shift};

/// Steps of the logistic table in a unit of `2y`.
const STEPS: u32 = 6;
/// Fraction bits between two entries.
const FRACTION: u32 = 12;
/// Fraction bits of [`Cap::rate`].
const RATE: u32 = 24;

/// A soft cap at ±`limit`, in the unit of what is capped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    limit: i64,
    /// `floor(2^43 / limit)`: what takes `v` to table steps.
    rate: i64,
}

impl Cap {
    /// The least and the greatest limit: within them no product wraps.
    pub const LIMITS: (i64, i64) = (1 << 12, 1 << 30);

    /// A cap at ±`limit`; `None` beyond [`Cap::LIMITS`].
    #[must_use]
    pub const fn new(limit: i64) -> Option<Self> {
        if limit < Self::LIMITS.0 || limit > Self::LIMITS.1 {
            return None;
        }
        Some(Self { limit, rate: (1 << (RATE + FRACTION + STEPS + 1)) / limit })
    }

    /// A cap of attention scores, which the file gives in natural units:
    /// `round(cap · log2(e) · 2^10)`, log2(e) at 2^-62.
    #[must_use]
    pub const fn of_scores(cap: Exact) -> Option<Self> {
        // A mantissa has 24 bits and log2(e) 63: 88 bits with the sign.
        let product = cap.mantissa as i128 * LOG2_E as i128;
        let shift = 62 - SCORE_BITS - cap.exponent;
        match shift {
            1..=100 => match ((product >> (shift - 1)) + 1) >> 1 {
                limit if limit <= Self::LIMITS.1 as i128 => Self::new(limit as i64),
                _ => None,
            },
            _ => None,
        }
    }

    /// A cap of logits: `round(cap · 2^10)`.
    #[must_use]
    pub const fn of_logits(cap: Exact) -> Option<Self> {
        Self::new(cap.at(LOGIT_BITS, 1 << 62))
    }

    /// What values are capped at.
    #[must_use]
    pub const fn limit(self) -> i64 {
        self.limit
    }

    /// The capped value; `|v| < 2^31`.
    #[inline(always)]
    #[must_use]
    pub fn apply(self, v: i64, tables: &Tables) -> i64 {
        // Below 2^31 · 2^31.
        let x = round_shift(v.wrapping_abs().wrapping_mul(self.rate), RATE);
        let (step, rest) = ((x >> FRACTION) as usize, (x & ((1 << FRACTION) - 1)) as i32);
        let tail = if step < LOGISTIC_LEN {
            let [point, fall] = tables.logistic[step];
            i64::from(point).wrapping_sub(round_shift(i64::from(fall.wrapping_mul(rest)), FRACTION))
        } else {
            0
        };
        let size = round_shift(self.limit.wrapping_mul((1i64 << 24).wrapping_sub(2 * tail)), 24);
        if v < 0 { size.wrapping_neg() } else { size }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_arithmetic, reason = "tests compare with floats")]
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::arith::tables::tables;

    #[test]
    fn the_cap_is_close_to_the_function() {
        for cap in [4.0f32, 30.0, 50.0, 1000.0] {
            let exact = Exact::from_f32(cap.to_bits()).unwrap();
            let (scores, logits) = (Cap::of_scores(exact).unwrap(), Cap::of_logits(exact).unwrap());
            assert_eq!(logits.limit(), cap as i64 * 1024);
            let want = f64::from(cap) * std::f64::consts::LOG2_E * 1024.0;
            assert!((scores.limit() as f64 - want).abs() <= 0.5);
            for cap in [scores, logits] {
                let limit = cap.limit() as f64;
                for i in -4000i64..=4000 {
                    let v = i * cap.limit() / 700;
                    let got = cap.apply(v, tables());
                    let want = limit * (v as f64 / limit).tanh();
                    // Interpolation is good to 2 · 0.0962 / 8 · 2^-12 of the limit.
                    assert!((got as f64 - want).abs() <= 1.0 + limit * 6e-6, "{limit} {v}");
                    assert_eq!(cap.apply(-v, tables()), -got);
                    assert!(cap.apply(v + 1, tables()) >= got, "{limit} {v}");
                }
                for v in [(1i64 << 31) - 1, 1 << 30] {
                    assert!(cap.apply(v, tables()) <= cap.limit());
                }
            }
        }
    }

    #[test]
    fn caps_far_beyond_the_bounds_are_none_whatever_their_low_bits_are() {
        let mantissas = [1 << 23, (1 << 24) - 1, 0x00AB_CDEF, 0x0080_0001];
        for (mantissa, exponent) in
            mantissas.into_iter().flat_map(|m| (10..104).map(move |e| (m, e)))
        {
            assert_eq!(Cap::of_scores(Exact { mantissa, exponent }), None, "{mantissa} {exponent}");
        }
    }

    #[test]
    fn caps_beyond_the_bounds_are_none() {
        for cap in [0.0f32, -30.0, 1.0, 3e6, f32::MAX, 1e-30] {
            let exact = Exact::from_f32(cap.to_bits()).unwrap();
            assert!(Cap::of_scores(exact).is_none(), "{cap}");
            assert!(Cap::of_logits(exact).is_none(), "{cap}");
        }
    }
}
