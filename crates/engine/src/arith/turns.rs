//! How far pairs of dimensions turn: frequencies so fine that the angle of a
//! position is good to 2^-64 of a turn even a million positions on.
//!
//! An angle is a product of frequency and position, so an error of the frequency
//! grows with the position. What [`fixed`](super::fixed) does at 2^-62 is done
//! here at 2^-126. Deliberately absent: sine and cosine.

use std::sync::LazyLock;

use super::half::Exact;

/// Fraction bits of numbers from 0 to 2.
const BITS: u32 = 126;
const ONE: u128 = 1 << BITS;
/// Fraction bits of logarithms: 7 whole bits, times an index of 8.
const LOG_BITS: u32 = 104;
/// `round(log2(2π) · 2^104)`.
const LOG2_TWO_PI: i128 = 0x2A6_C873_498D_DF75_B0DB_2E4F_080B;

/// A frequency in turns a position at 2^-128: `base^(-2i/d) / (2π · factors)`.
/// `None` where `base` or a factor is not positive, or the result is a turn or
/// more.
#[must_use]
pub fn frequency(base: Exact, index: u32, dims: u32, factors: &[Exact]) -> Option<u128> {
    let mut y = log2(base)? * i128::from(2 * index) / i128::from(dims) + LOG2_TWO_PI;
    for &factor in factors {
        y += log2(factor)?;
    }
    // base^0 / 2π is below a fifth of a turn; a factor below 1 could lift it.
    let y = u128::try_from(y).ok().filter(|&y| y > 0)?;
    if y >> LOG_BITS >= 128 {
        return Some(0);
    }
    // At 2^-126: two bits more reach 2^-128.
    exp2_neg(y).checked_mul(4)
}

/// The angle at a position, in turns at 2^-64.
#[inline]
#[must_use]
pub const fn angle(frequency: u128, position: usize) -> u64 {
    (frequency.wrapping_mul(position as u128) >> 64) as u64
}

/// `a · b` at 2^-126, rounded down, where it is below four.
const fn mul(a: u128, b: u128) -> u128 {
    const HALF: u128 = (1 << 64) - 1;
    let ([a1, a0], [b1, b0]) = ([a >> 64, a & HALF], [b >> 64, b & HALF]);
    let (low, first, second) = (a0 * b0, a1 * b0, a0 * b1);
    let middle = (low >> 64) + (first & HALF) + (second & HALF);
    let high = a1 * b1 + (first >> 64) + (second >> 64) + (middle >> 64);
    let low = middle << 64 | low & HALF;
    high << (128 - BITS) | low >> BITS
}

/// 2^-(1/2), 2^-(1/4), 2^-(1/8), ..., each the root of the one before.
static ROOTS: LazyLock<[u128; LOG_BITS as usize]> = LazyLock::new(|| {
    let mut square = ONE >> 1;
    std::array::from_fn(|_| {
        square = root(square);
        square
    })
});

/// `√v` for a `v` from a half to one, good to some 2^-125: half of its bits by an
/// exact root, the others by a step of Newton's method.
const fn root(v: u128) -> u128 {
    let near = v.isqrt();
    (near << 63) + ((v - near * near) << 62) / near
}

/// `2^-y` for `y` at 2^-104, below 128.
fn exp2_neg(y: u128) -> u128 {
    let bits = ROOTS.iter().enumerate();
    let set = bits.filter(|(at, _)| y >> (LOG_BITS as usize - 1 - at) & 1 == 1);
    set.fold(ONE, |product, (_, &root)| mul(product, root)) >> (y >> LOG_BITS)
}

/// `log2(x)` at 2^-104, rounded down, by repeated squaring. `None` unless `x` is
/// positive.
fn log2(x: Exact) -> Option<i128> {
    let whole = x.log2().filter(|_| x.mantissa > 0)?;
    let mut v = (x.mantissa as u128) << (BITS as i32 - (whole - x.exponent)); // from 1 to 2
    let mut fraction = 0i128;
    for _ in 0..LOG_BITS {
        v = mul(v, v);
        fraction <<= 1;
        if v >= ONE << 1 {
            v >>= 1;
            fraction |= 1;
        }
    }
    Some((i128::from(whole) << LOG_BITS) + fraction)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_arithmetic, reason = "tests compare with floats")]
    use super::*;
    use crate::arith::fixed::cos_sin;

    fn exact(x: f32) -> Exact {
        Exact::from_f32(x.to_bits()).unwrap()
    }

    #[test]
    fn frequencies_are_powers_of_the_base() {
        for i in 0..32 {
            let got = frequency(exact(100_000.0), i, 64, &[exact(1.0)]).unwrap() as f64;
            let want = 100_000f64.powf(-f64::from(2 * i) / 64.0) / std::f64::consts::TAU;
            assert!((got / 2f64.powi(128) / want - 1.0).abs() < 1e-14, "{i} {got} {want}");
        }
        let [large, tiny] = [f32::MAX, f32::from_bits(1)].map(exact);
        assert_eq!(frequency(large, 127, 256, &[large]), Some(0));
        assert_eq!(frequency(large, 127, 256, &[tiny]), None);
        assert_eq!(frequency(exact(-1.0), 0, 256, &[]), None);
    }

    #[test]
    fn roots_and_logarithms_are_good_to_their_last_bits() {
        for v in [ONE >> 1, ONE, ONE / 3 * 2, ONE - 1, (ONE >> 1) + 1] {
            let root = root(v);
            assert!(mul(root, root).abs_diff(v) <= 8, "{v}");
        }
        // log2(3) and 2^-log2(3) = 1/3.
        let log = log2(exact(3.0)).unwrap();
        assert_eq!(log, 0x195_C01A_39FB_D687_9FA0_0B12_0A06);
        let third = exp2_neg(log as u128);
        assert!(third.abs_diff(ONE / 3) < 1 << 24, "{third}");
    }

    /// Entries of a table whose exact value lies near a tie, far into a context.
    #[test]
    fn angles_are_exact_a_million_positions_on() {
        for (pair, position, want) in
            [(8, 865_282, (-16_153, 2740)), (19, 993_883, (-13_607, 9125))]
        {
            let frequency = frequency(exact(1e6), pair, 256, &[]).unwrap();
            assert_eq!(cos_sin(angle(frequency, position)), want, "{pair}");
        }
    }
}
