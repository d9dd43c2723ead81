//! The tables of the forward pass, built once from [`fixed`](super::fixed):
//! powers of two for attention, powers of two for sampling, the logistic
//! function for SiLU and soft caps, and the curve of GELU.

use std::sync::LazyLock;

use super::fixed::{LOG2_E, exp2_neg, gelu_tail, logistic_tail};

/// The attention weight of the best score.
pub const EXP_ONE: i64 = 32_767;
/// Entries of the attention table; a score this far below the best weighs 0.
pub const EXP_LEN: usize = 16 << 10;
/// Steps of the logistic table; beyond it the function is 0.
pub const LOGISTIC_LEN: usize = 16 << 6;

/// A curve's points, each with the fall to the next one.
pub type Curve = [[i32; 2]; LOGISTIC_LEN];

/// All tables. They are small and shared by every model in the process.
#[derive(Debug)]
pub struct Tables {
    /// `round(32767 · 2^(-i/1024))`, with a final 0 at `EXP_LEN`.
    pub exp: Vec<i32>,
    /// `round(2^31 · 2^(-i/1024))` for i in 0..1024.
    pub wide_exp: Vec<u32>,
    /// `n(i) = round(2^24 / (1 + e^(i/64)))` and `n(i) - n(i+1)`.
    pub logistic: Box<Curve>,
    /// The same of `round(2^24 / (1 + e^(2√(2/π)(x + 0.044715 x³))))`, `x = i / 64`.
    pub gelu: Box<Curve>,
}

/// The tables of this arithmetic version.
#[must_use]
pub fn tables() -> &'static Tables {
    static TABLES: LazyLock<Tables> = LazyLock::new(Tables::build);
    &TABLES
}

impl Tables {
    fn build() -> Self {
        let fractions: Vec<u64> = (0..1024u128).map(|i| exp2_neg(i << 52)).collect();
        let exp = (0..EXP_LEN)
            .map(|i| {
                rounded(fractions[i & 1023] as u128 * EXP_ONE as u128, 62 + (i as u32 >> 10)) as i32
            })
            .chain([0])
            .collect();
        let wide_exp = fractions.iter().map(|&f| rounded(u128::from(f), 31) as u32).collect();
        let log2_e = u128::from(LOG2_E);
        let logistic = steps(|i| logistic_tail((u128::from(i) * log2_e) >> 6));
        Self { exp, wide_exp, logistic, gelu: steps(gelu_tail) }
    }
}

/// Points of a tail at 2^-24, each with the fall to the next one.
fn steps(tail: impl Fn(u64) -> u64) -> Box<Curve> {
    let point = |i| rounded(u128::from(tail(i)), 38) as i32;
    let points: Vec<i32> = (0..=LOGISTIC_LEN as u64).map(point).collect();
    Box::new(std::array::from_fn(|at| [points[at], points[at] - points[at + 1]]))
}

/// `floor(v / 2^s + 1/2)` of a wide number.
const fn rounded(v: u128, s: u32) -> u64 {
    ((v + (1 << (s - 1))) >> s) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_arithmetic, reason = "tests compare with floats")]
    use super::*;

    #[test]
    fn entries_are_exactly_rounded() {
        let t = tables();
        assert_eq!(
            (t.exp.len(), t.wide_exp.len(), t.logistic.len()),
            (EXP_LEN + 1, 1024, LOGISTIC_LEN)
        );
        for (i, &e) in t.exp.iter().enumerate().take(EXP_LEN) {
            let want = 32_767.0 * (-(i as f64) / 1024.0).exp2();
            assert!((f64::from(e) - want).abs() <= 0.5 + 1e-9, "{i}");
        }
        for (i, &e) in t.wide_exp.iter().enumerate() {
            let want = 2f64.powi(31) * (-(i as f64) / 1024.0).exp2();
            assert!((f64::from(e) - want).abs() <= 0.5 + 1e-5, "{i}");
        }
        for (i, &[n, _]) in t.logistic.iter().enumerate() {
            let want = 2f64.powi(24) / (1.0 + (i as f64 / 64.0).exp());
            assert!((f64::from(n) - want).abs() <= 0.5 + 1e-6, "{i}");
        }
        for (i, &[n, _]) in t.gelu.iter().enumerate() {
            let x = i as f64 / 64.0;
            let inner = (8.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            let want = 2f64.powi(24) / (1.0 + inner.exp());
            assert!((f64::from(n) - want).abs() <= 0.5 + 1e-6, "{i}");
        }
        assert_eq!(t.exp[EXP_LEN], 0);
    }
}
