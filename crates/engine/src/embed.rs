//! An embedding: the states of a prompt's positions, pooled and of length one, in integers.
//!
//! Rows of the residual stream come in one by one; each is normalised with the
//! output norm and added to the sum (or, for the last position alone, takes its
//! place). At the end the first components are scaled to a vector of length one.
//! `docs/spec/arithmetic.md` defines every integer of it. Deliberately absent:
//! the forward pass that makes the states, and how a vector travels.

#![deny(clippy::float_arithmetic)]

use crate::arith::{
    LIMIT, NORM_BITS, RESIDUAL_BITS, bit_length, inverse_root, isqrt, norm_epsilon, rescale,
    round_shift,
};
use crate::transformer::Transformer;

/// Exponent of the rows that are summed.
const ROW_BITS: i32 = 16;
/// Exponent of a component: `peerproof_proof::embedding::COMPONENT_BITS`.
const COMPONENT_BITS: u32 = peerproof_proof::embedding::COMPONENT_BITS;
/// The sum is brought to this many bits before its length is taken.
const SUM_BITS: i32 = 30;
/// Exponent of the length, beside the sum's own.
const LENGTH_BITS: u32 = 10;

/// Which positions make the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// All of them.
    Mean,
    /// The last one.
    Last,
}

/// The vector in the making.
pub(crate) struct Embedder<'a> {
    model: &'a Transformer,
    pooling: Pooling,
    sum: Vec<i64>,
}

impl<'a> Embedder<'a> {
    pub(crate) fn new(model: &'a Transformer, pooling: Pooling) -> Self {
        Self { model, pooling, sum: vec![0; model.shape().width] }
    }

    /// Takes the state of the next position.
    pub(crate) fn push(&mut self, state: &[i32]) {
        if self.pooling == Pooling::Last {
            self.sum.fill(0);
        }
        let gain = &self.model.output_norm;
        let squares: u128 =
            state.iter().map(|&x| u128::from((i64::from(x) * i64::from(x)) as u64)).sum();
        let epsilon = norm_epsilon(self.model.epsilon, state.len(), 2 * RESIDUAL_BITS);
        let (root, k) = inverse_root(state.len() as u64, squares + epsilon);
        let narrow = NORM_BITS + gain.exponent - ROW_BITS;
        for ((sum, &x), &g) in self.sum.iter_mut().zip(state).zip(&gain.values) {
            let u = rescale(i64::from(x) * root as i64, k as i32 - NORM_BITS, i64::MAX >> 1);
            *sum += rescale(u * i64::from(g), narrow, LIMIT);
        }
    }

    /// The first `dimensions` components, as a vector of length one.
    pub(crate) fn finish(&self, dimensions: usize) -> Vec<i32> {
        unit(&self.sum[..dimensions.min(self.sum.len())])
    }
}

/// A vector of length one in the direction of `sum`; zero stays zero.
fn unit(sum: &[i64]) -> Vec<i32> {
    let most = sum.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
    if most == 0 {
        return vec![0; sum.len()];
    }
    let shift = bit_length(most) - SUM_BITS;
    let scaled: Vec<i64> = sum
        .iter()
        .map(|&v| if shift > 0 { round_shift(v, shift as u32) } else { v << -shift })
        .collect();
    let squares: u128 = scaled.iter().map(|&v| u128::from((v * v) as u64)).sum();
    let length = isqrt(squares << (2 * LENGTH_BITS)) as i128;
    let component = |v: i64| {
        let wide = i128::from(v) << (COMPONENT_BITS + LENGTH_BITS + 1);
        (wide + length).div_euclid(2 * length) as i32
    };
    scaled.into_iter().map(component).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_vector_has_length_one_and_the_sums_direction() {
        let one = 1 << COMPONENT_BITS;
        assert_eq!(unit(&[0, 0, 0]), [0, 0, 0]);
        assert_eq!(unit(&[]), [0; 0]);
        assert_eq!(unit(&[7]), [one]);
        assert_eq!(unit(&[-(1 << 60), 0]), [-one, 0]);
        // 3, 4, 5: 0.6 and 0.8 at 2^-22, rounded.
        assert_eq!(unit(&[3, -4]), [2_516_582, -3_355_443]);
        assert_eq!(unit(&[3 << 50, -4 << 50]), [2_516_582, -3_355_443]);
        let wide: Vec<i64> = (0..65_536).map(|i| (i * 7919 % 2003 - 1001) << 30).collect();
        let squares: i64 = unit(&wide).iter().map(|&v| i64::from(v) * i64::from(v)).sum();
        assert!((squares - (1 << 44)).abs() < 1 << 32, "{squares}");
    }
}
