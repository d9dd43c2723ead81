//! How likely tokens were: logarithms of probabilities, in integers.
//!
//! [`report`] takes the logits of one position as the model made them, before
//! any rule changes them, and gives the negative natural logarithm of the
//! chosen token's probability and of the likeliest ones', at 2^-16. The sum
//! behind it is exact to about 2^-20 and the same everywhere, so whoever
//! replays a job compares for equality. `docs/spec/arithmetic.md`, section 8,
//! is the definition. Deliberately absent: floats, temperature, and text.

#![deny(clippy::float_arithmetic)]

use std::sync::LazyLock;

use peerproof_wire::TokenLogprobs;

use crate::arith::fixed::{LOG2_E, log2};
use crate::arith::half::Exact;
use crate::arith::round_shift;
use crate::arith::tables::tables;
use crate::sample::LOG2_E_48;

/// `log2(e)` at 2^-32, rounded down.
const LOG2_E_32: u64 = LOG2_E_48 >> 16;
/// A gap of 64 at 2^-10: no token this far behind weighs anything.
const FAR: u64 = 64 << 10;
/// The best token weighs 2^this.
const BEST_BITS: u32 = 43;

/// `round(2^24 · ln(1 + i/1024))` for i in 0..=1024.
#[must_use]
pub fn ln_table() -> &'static [u32] {
    static TABLE: LazyLock<Vec<u32>> = LazyLock::new(|| (0..=1024).map(ln_entry).collect());
    &TABLE
}

fn ln_entry(i: i64) -> u32 {
    // The logarithm of a positive number is always there.
    let log2 = log2(Exact { mantissa: 1024 + i, exponent: -10 }).unwrap_or(0);
    let ln = ((log2 as u128) << 62) / u128::from(LOG2_E);
    ((ln + (1 << 37)) >> 38) as u32
}

/// The chosen token's figure, and those of the `top` likeliest tokens: the
/// highest logit first, the lowest number first among equals. Spellings are the
/// tokenizer's to add.
#[must_use]
pub fn report(logits: &[i32], chosen: u32, top: usize) -> TokenLogprobs {
    let figures = Figures::of(logits);
    let likeliest = likeliest(logits, top);
    TokenLogprobs {
        chosen_q16: figures.figure(chosen),
        top: likeliest.into_iter().map(|token| (token, figures.figure(token))).collect(),
        spellings: Vec::new(),
    }
}

/// The figures of the chosen token, of the likeliest one, and of each token asked about.
#[must_use]
pub fn figures(logits: &[i32], chosen: u32, asked: &[u32]) -> (u32, u32, Vec<u32>) {
    let figures = Figures::of(logits);
    let of_asked = asked.iter().map(|&token| figures.figure(token)).collect();
    (figures.figure(chosen), figures.value(figures.best), of_asked)
}

/// The logits of one place, and what their probabilities are shares of.
struct Figures<'a> {
    logits: &'a [i32],
    best: i32,
    /// Logarithm of the sum of all shares.
    of_sum: u64,
}

impl<'a> Figures<'a> {
    fn of(logits: &'a [i32]) -> Self {
        let best = logits.iter().fold(i32::MIN, |best, &logit| best.max(logit));
        // Up to 2^20 shares fit 64 bits; all those of a vocabulary need not.
        let part =
            |logits: &[i32]| logits.iter().map(|&logit| share(behind(best, logit))).sum::<u64>();
        let sum: u128 = logits.chunks(1 << 20).map(|logits| u128::from(part(logits))).sum();
        Self { logits, best, of_sum: ln_of_sum(sum.max(1 << BEST_BITS)) }
    }

    fn value(&self, logit: i32) -> u32 {
        let wide = round_shift(((behind(self.best, logit) << 14) + self.of_sum) as i64, 8);
        u32::try_from(wide).unwrap_or(u32::MAX)
    }

    /// The figure of a token; the largest there is for an id that is none.
    fn figure(&self, token: u32) -> u32 {
        self.logits.get(token as usize).map_or(u32::MAX, |&logit| self.value(logit))
    }
}

fn behind(best: i32, logit: i32) -> u64 {
    (i64::from(best) - i64::from(logit)) as u64
}

/// The weight of a token this far behind the best, at 2^-43.
#[inline(always)]
fn share(gap: u64) -> u64 {
    if gap >= FAR {
        return 0;
    }
    // Base-2 logarithm at 2^-22: whole, 10 bits of table, 12 bits between entries.
    let steps = (gap * LOG2_E_32) >> 20;
    let wide = &tables().wide_exp;
    let at = (steps >> 12) as usize & 1023;
    let here = u64::from(wide[at]);
    let next = wide.get(at + 1).map_or(1 << 30, |&next| u64::from(next));
    let value = here - (((here - next) * (steps & 4095)) >> 12);
    (value << 12).checked_shr((steps >> 22) as u32).unwrap_or(0)
}

/// The natural logarithm, at 2^-24, of a sum of shares that holds the best one.
fn ln_of_sum(sum: u128) -> u64 {
    let whole = sum.ilog2();
    let rest = (sum >> (whole - 24)) as u64 - (1 << 24);
    let table = ln_table();
    let at = (rest >> 14) as usize;
    let (here, next) = (u64::from(table[at]), u64::from(table[at + 1]));
    let between = ((next - here) * (rest & 16_383)) >> 14;
    u64::from(whole - BEST_BITS) * u64::from(table[1024]) + here + between
}

/// The first `count` tokens in rank.
fn likeliest(logits: &[i32], count: usize) -> Vec<u32> {
    let mut ranked: Vec<(i32, u32)> = Vec::with_capacity(count + 1);
    for (token, &logit) in (0u32..).zip(logits) {
        if ranked.len() == count && ranked.last().is_none_or(|&(least, _)| logit <= least) {
            continue;
        }
        // Later tokens go behind equal ones.
        let at = ranked.partition_point(|&(other, _)| other >= logit);
        ranked.insert(at, (logit, token));
        ranked.truncate(count);
    }
    ranked.into_iter().map(|(_, token)| token).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_arithmetic, reason = "tests compare with floats")]
    use super::*;
    use proptest::prelude::*;

    /// The same in floats.
    fn float(logits: &[i32], token: usize) -> f64 {
        let real = |logit: i32| f64::from(logit) / 1024.0;
        let best = logits.iter().copied().max().expect("a vocabulary");
        let sum: f64 = logits.iter().map(|&l| (real(l) - real(best)).exp()).sum();
        real(best) - real(logits[token]) + sum.ln()
    }

    #[test]
    fn the_table_is_exactly_rounded() {
        for (i, &entry) in ln_table().iter().enumerate() {
            let want = 2f64.powi(24) * (i as f64 / 1024.0).ln_1p();
            assert!((f64::from(entry) - want).abs() <= 0.5 + 1e-6, "{i}");
        }
    }

    #[test]
    fn certainty_and_evenness() {
        let sure = report(&[100_000, 0, 0], 0, 2);
        assert_eq!(sure.top, [(0, 0), (1, 6_400_000)]);
        assert_eq!(sure.chosen_q16, 0);
        let even = report(&[5; 4], 3, 3);
        assert_eq!(even.chosen_q16, 90_852, "ln 4 at 2^-16");
        assert_eq!(even.top, [(0, 90_852), (1, 90_852), (2, 90_852)]);
        assert_eq!(report(&[i32::MAX, -i32::MAX], 1, 0).chosen_q16, u32::MAX);
        assert_eq!(report(&[1, 2], 7, 5).chosen_q16, u32::MAX, "no such token");
    }

    #[test]
    fn a_large_vocabulary_of_equals_is_even() {
        // More shares of 2^43 than 64 bits hold.
        let figure = report(&vec![-7; 1 << 22], 3, 0).chosen_q16;
        assert_eq!(figure, 999_374, "22 ln 2 at 2^-16");
    }

    proptest! {
        #[test]
        fn figures_are_those_of_floats(
            logits in prop::collection::vec(-40_000i32..40_000, 1..400),
            top in 0usize..8,
        ) {
            let got = report(&logits, 0, top);
            let near = |got: u32, token: usize| {
                (f64::from(got) / 65_536.0 - float(&logits, token)).abs() < 1.2 / 65_536.0
            };
            prop_assert!(near(got.chosen_q16, 0));
            let mut ranked: Vec<usize> = (0..logits.len()).collect();
            ranked.sort_by_key(|&token| (-logits[token], token));
            prop_assert_eq!(got.top.len(), top.min(logits.len()));
            for (&(token, value), expected) in got.top.iter().zip(ranked) {
                prop_assert_eq!(token as usize, expected);
                prop_assert!(near(value, expected));
            }
        }
    }
}
