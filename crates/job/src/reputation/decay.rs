//! Fading by halves, in integers.
//!
//! 2^-x for a fraction x is the product of the square roots 2^-1/2, 2^-1/4, …
//! that the binary digits of x select.

const DIGITS: usize = 16;

/// 2^-(1/2), 2^-(1/4), … with 32 fractional bits.
const ROOTS: [u64; DIGITS] = roots();

const fn roots() -> [u64; DIGITS] {
    let mut roots = [0; DIGITS];
    let mut value: u64 = 1 << 31;
    let mut digit = 0;
    while digit < DIGITS {
        value = (value << 32).isqrt();
        roots[digit] = value;
        digit += 1;
    }
    roots
}

/// What is left of `value` after `age` at this half-life, in the same unit. Rounds down, so
/// that the sum of what is left of parts is at most what is left of the sum.
pub(super) fn fade(value: u64, age: u64, half_life: u64) -> u64 {
    let half_life = half_life.max(1);
    let halvings = age / half_life;
    if halvings >= 64 {
        return 0;
    }
    let fraction = ((age % half_life) << DIGITS) / half_life;
    let mut factor = 1_u64 << 32;
    for (digit, root) in ROOTS.iter().enumerate() {
        if fraction >> (DIGITS - 1 - digit) & 1 == 1 {
            factor = (factor * root) >> 32;
        }
    }
    ((u128::from(value) * u128::from(factor)) >> (32 + halvings)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_every_half_life() {
        let value = 1 << 40;
        assert_eq!(fade(value, 0, 14), value);
        assert_eq!(fade(value, 14, 14), value / 2);
        assert_eq!(fade(value, 42, 14), value / 8);
        assert_eq!(fade(value, 64 * 14, 14), 0);
        assert_eq!(fade(u64::MAX, u64::from(u32::MAX), 1), 0);
    }

    #[test]
    fn little_that_is_left_does_not_grow_back() {
        assert!(fade(1 << 48, 475, 10) <= fade(1 << 48, 474, 10));
    }

    #[test]
    fn is_close_to_the_exponential_between() {
        for day in 0..60_u64 {
            let exact = (1_u64 << 40) as f64 * 0.5_f64.powf(day as f64 / 14.0);
            let error = (fade(1 << 40, day, 14) as f64 - exact).abs() / exact;
            assert!(error < 5e-5, "day {day}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parts_leave_no_more_than_the_whole(
            a in 0..1_u64 << 50, b in 0..1_u64 << 50, age in 0..500_u64, half in 1..400_u64,
        ) {
            prop_assert!(fade(a, age, half) + fade(b, age, half) <= fade(a + b, age, half));
            prop_assert!(fade(a, age + 1, half) <= fade(a, age, half));
        }
    }
}
