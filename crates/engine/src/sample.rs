//! From logits to a token, in integers: greedy, or a draw by temperature, top-k
//! and top-p.
//!
//! A draw is a 64-bit number that follows from the job's seed and the step;
//! nobody chooses it. The tokens that may be chosen are found first, each with
//! an integer weight; the draw then falls into the cumulative table of the
//! weights in the order of token numbers. Deliberately absent: floats, state,
//! randomness of our own.

#![deny(clippy::float_arithmetic)]

use crate::arith::LOGIT_BITS;
use crate::arith::tables::tables;

/// `round(log2(e) · 2^48)`.
const LOG2_E_48: u64 = 0x1_7154_7652_B830;
/// Fraction bits of a weight's logarithm.
const STEP_BITS: u32 = 10;
/// 1 at 2^-16.
const ONE_Q16: u32 = 1 << 16;
/// How many of the best tokens are looked at first for top-p.
const FIRST_LOOK: usize = 64;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// Temperature at 2^-16; 0 chooses greedily.
    pub temperature_q16: u32,
    /// Only the `top_k` best tokens; 0 for all.
    pub top_k: u32,
    /// Only the best tokens that together reach this share, at 2^-16; 0 and
    /// 65,536 and more for all.
    pub top_p_q16: u32,
}

/// The draw of a step: the first 8 bytes, little-endian, of BLAKE3 over the
/// seed and the step (8 bytes, little-endian).
#[must_use]
pub fn draw(seed: &[u8; 32], step: u64) -> u64 {
    let mut bytes = [0; 8];
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed).update(&step.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The token with the highest logit, the lowest number among equals.
#[must_use]
pub fn greedy(logits: &[i32]) -> u32 {
    let best = highest(logits);
    logits.iter().position(|&logit| logit == best).unwrap_or(0) as u32
}

/// The chosen token. `draw` is not looked at when choosing greedily.
#[must_use]
pub fn choose(logits: &[i32], sampling: &Sampling, draw: u64) -> u32 {
    if sampling.temperature_q16 == 0 || logits.is_empty() {
        return greedy(logits);
    }
    let scale = u128::from(LOG2_E_48 / u64::from(sampling.temperature_q16));
    let best = highest(logits);
    let mut kept: Vec<Candidate> = Vec::with_capacity(logits.len());
    for (token, &logit) in logits.iter().enumerate() {
        let weight = weight((i64::from(best) - i64::from(logit)) as u64, scale);
        if weight > 0 {
            kept.push(Candidate { logit, token: token as u32, weight });
        }
    }
    keep_top_k(&mut kept, sampling.top_k as usize);
    keep_top_p(&mut kept, sampling.top_p_q16);
    kept.sort_unstable_by_key(|candidate| candidate.token);
    pick(&kept, draw)
}

fn highest(logits: &[i32]) -> i32 {
    logits.iter().fold(i32::MIN, |best, &logit| best.max(logit))
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: i32,
    token: u32,
    weight: u32,
}

impl Candidate {
    /// The best first, the lowest number first among equals.
    fn rank(&self) -> (std::cmp::Reverse<i32>, u32) {
        (std::cmp::Reverse(self.logit), self.token)
    }
}

/// `2^31 · 2^-(gap · log2(e) / temperature)`, by the table of powers.
#[inline(always)]
fn weight(gap: u64, scale: u128) -> u32 {
    // scale is log2(e) / temperature at 2^-32, gap at 2^-10: so are the steps.
    const { assert!(LOGIT_BITS == STEP_BITS as i32) };
    let steps = (u128::from(gap) * scale) >> 32;
    if steps >= 32 << STEP_BITS {
        return 0;
    }
    let steps = steps as usize;
    tables().wide_exp[steps & ((1 << STEP_BITS) - 1)] >> (steps >> STEP_BITS)
}

fn keep_top_k(kept: &mut Vec<Candidate>, top_k: usize) {
    if top_k > 0 && top_k < kept.len() {
        kept.select_nth_unstable_by_key(top_k - 1, Candidate::rank);
        kept.truncate(top_k);
    }
}

/// Keeps the shortest prefix, best first, whose weights reach the share.
fn keep_top_p(kept: &mut Vec<Candidate>, top_p_q16: u32) {
    if top_p_q16 == 0 || top_p_q16 >= ONE_Q16 {
        return;
    }
    let sum = |part: &[Candidate]| part.iter().map(|c| u64::from(c.weight)).sum::<u64>();
    let wanted = u128::from(sum(kept)) * u128::from(top_p_q16);
    let reached = |weights: u64| u128::from(weights) << 16 >= wanted;
    // Only as many of the best as needed are sorted out.
    let mut looked = FIRST_LOOK.min(kept.len());
    while looked < kept.len() {
        kept.select_nth_unstable_by_key(looked - 1, Candidate::rank);
        if reached(sum(&kept[..looked])) {
            break;
        }
        looked = (4 * looked).min(kept.len());
    }
    kept.truncate(looked);
    kept.sort_unstable_by_key(Candidate::rank);
    let mut so_far = 0;
    let end = kept.iter().position(|c| {
        so_far += u64::from(c.weight);
        reached(so_far)
    });
    kept.truncate(end.map_or(kept.len(), |end| end + 1));
}

/// The candidate into whose weight `floor(draw · total / 2^64)` falls.
fn pick(kept: &[Candidate], draw: u64) -> u32 {
    let total: u64 = kept.iter().map(|c| u64::from(c.weight)).sum();
    let mut rest = ((u128::from(draw) * u128::from(total)) >> 64) as u64;
    for candidate in kept {
        if rest < u64::from(candidate.weight) {
            return candidate.token;
        }
        rest -= u64::from(candidate.weight);
    }
    kept.last().map_or(0, |candidate| candidate.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(n: usize, spread: i32) -> Vec<i32> {
        let mut state = 7u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as i32
        };
        (0..n).map(|_| next() % spread).collect()
    }

    /// The definition, with a full sort.
    fn plain(logits: &[i32], sampling: &Sampling, draw: u64) -> u32 {
        let scale = u128::from(LOG2_E_48 / u64::from(sampling.temperature_q16));
        let best = highest(logits);
        let mut all: Vec<Candidate> = (0u32..)
            .zip(logits)
            .map(|(token, &logit)| Candidate {
                logit,
                token,
                weight: weight((best - logit) as u64, scale),
            })
            .collect();
        all.sort_by_key(Candidate::rank);
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k as usize);
        }
        let total: u128 = all.iter().map(|c| u128::from(c.weight)).sum();
        if sampling.top_p_q16 > 0 && sampling.top_p_q16 < ONE_Q16 {
            let mut sum = 0u128;
            let end = all.iter().position(|c| {
                sum += u128::from(c.weight);
                sum << 16 >= total * u128::from(sampling.top_p_q16)
            });
            all.truncate(end.map_or(all.len(), |end| end + 1));
        }
        all.sort_by_key(|c| c.token);
        pick(&all, draw)
    }

    #[test]
    fn partial_selection_equals_the_full_sort() {
        let logits = logits(5_000, 9_000);
        for temperature_q16 in [1, 20_000, 65_536, 200_000] {
            for top_k in [0, 1, 2, 40, 4_999, 9_999] {
                for top_p_q16 in [0, 1, 30_000, 62_259, 65_535, 65_536] {
                    let sampling = Sampling { temperature_q16, top_k, top_p_q16 };
                    for step in 0..4 {
                        let draw = draw(&[3; 32], step);
                        assert_eq!(
                            choose(&logits, &sampling, draw),
                            plain(&logits, &sampling, draw),
                            "{sampling:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(greedy(&[1, 5, 5, 2]), 1);
        assert_eq!(greedy(&[i32::MIN, i32::MIN]), 0);
        assert_eq!(choose(&[1, 5, 5, 2], &Sampling::default(), u64::MAX), 1);
    }

    #[test]
    fn draws_are_the_hash_of_seed_and_step() {
        let mut input = [9u8; 40];
        input[32..].copy_from_slice(&5u64.to_le_bytes());
        let hash = blake3::hash(&input);
        assert_eq!(draw(&[9; 32], 5).to_le_bytes(), hash.as_bytes()[..8]);
    }

    #[test]
    fn frequencies_follow_the_weights() {
        // Two tokens a natural logarithm of 2 apart: one third and two thirds.
        let sampling = Sampling { temperature_q16: ONE_Q16, ..Sampling::default() };
        let picks = (0..30_000)
            .filter(|&step| choose(&[710, 0], &sampling, draw(&[1; 32], step)) == 0)
            .count();
        assert!((19_600..20_400).contains(&picks), "{picks}");
        // The ends of the range of draws reach the ends of the table.
        assert_eq!(choose(&[710, 0], &sampling, 0), 0);
        assert_eq!(choose(&[710, 0], &sampling, u64::MAX), 1);
    }
}
