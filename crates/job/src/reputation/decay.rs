//! Fading by halves, in integers.
//!
//! 2^-x for a fraction x is the product of the square roots 2^-1/2, 2^-1/4, …
//! that the binary digits of x select.

/// After this long an entry counts half: 14 days.
pub(super) const HALF_LIFE_MS: u64 = 14 * 24 * 60 * 60 * 1000;

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

/// What is left of `value` after `age_ms`.
pub(super) fn fade(value: u64, age_ms: u64) -> u64 {
    let halvings = age_ms / HALF_LIFE_MS;
    if halvings >= 64 {
        return 0;
    }
    let fraction = ((age_ms % HALF_LIFE_MS) << DIGITS) / HALF_LIFE_MS;
    let mut left = u128::from(value >> halvings);
    for (digit, root) in ROOTS.iter().enumerate() {
        if fraction >> (DIGITS - 1 - digit) & 1 == 1 {
            left = (left * u128::from(*root)) >> 32;
        }
    }
    left as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_every_half_life() {
        let value = 1 << 40;
        assert_eq!(fade(value, 0), value);
        assert_eq!(fade(value, HALF_LIFE_MS), value / 2);
        assert_eq!(fade(value, 3 * HALF_LIFE_MS), value / 8);
        assert_eq!(fade(value, 64 * HALF_LIFE_MS), 0);
        assert_eq!(fade(u64::MAX, u64::MAX), 0);
    }

    #[test]
    fn is_close_to_the_exponential_between() {
        for tenth in 0..40_u64 {
            let age = tenth * HALF_LIFE_MS / 10;
            let exact = (1_u64 << 40) as f64 * 0.5_f64.powf(tenth as f64 / 10.0);
            let error = (fade(1 << 40, age) as f64 - exact).abs() / exact;
            assert!(error < 2e-5, "tenth {tenth}: {error}");
        }
    }
}
