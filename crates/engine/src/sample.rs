//! From logits to a token, in integers: the rules that change logits, then a
//! greedy choice or a draw by temperature, top-k, top-p and min-p.
//!
//! The order is fixed: repetition, frequency and presence penalties, biases,
//! the mask of a constraint ([`adjust`]); then weights, top-k, top-p, min-p and
//! the draw ([`choose`], [`choose_adjusted`]). A draw is a 64-bit number that
//! follows from the job's seed and the step; nobody chooses it. The tokens that
//! may be chosen are found first, each with an integer weight; the draw then
//! falls into the cumulative table of the weights in the order of token numbers.
//! `docs/spec/arithmetic.md`, section 8, is the definition. Deliberately absent:
//! floats, state, randomness of our own, and what a constraint allows.

#![deny(clippy::float_arithmetic)]

use std::collections::BTreeMap;

pub use peerproof_wire::{LogitBias, Sampling};

use crate::arith::LOGIT_BITS;
use crate::arith::tables::tables;

/// `round(log2(e) · 2^48)`.
pub(crate) const LOG2_E_48: u64 = 0x1_7154_7652_B830;
/// Fraction bits of a weight's logarithm.
const STEP_BITS: u32 = 10;
/// Fraction bits of a logit that rules may have changed.
const RULE_BITS: u32 = 16;
/// 1 at 2^-16.
const ONE_Q16: u32 = 1 << 16;
/// How many of the best tokens are looked at first for top-p.
const FIRST_LOOK: usize = 64;
/// The adjusted logit of a token that must not be chosen.
pub const FORBIDDEN: i64 = i64::MIN;

/// The tokens that penalties look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How many times each token stands in the answer; 0 for tokens that stand
    /// in the prompt alone.
    times: BTreeMap<u32, u32>,
}

impl History {
    /// The history of an answer that has not begun.
    #[must_use]
    pub fn of_prompt(prompt: &[u32]) -> Self {
        Self { times: prompt.iter().map(|&token| (token, 0)).collect() }
    }

    /// A token of the answer.
    pub fn push(&mut self, token: u32) {
        *self.times.entry(token).or_default() += 1;
    }
}

/// Whether a penalty looks at the tokens so far.
#[must_use]
pub fn has_penalties(sampling: &Sampling) -> bool {
    let Sampling { repetition_q16, presence_q16, frequency_q16, .. } = *sampling;
    (repetition_q16, presence_q16, frequency_q16) != (0, 0, 0)
}

/// The logits at 2^-16 after penalties, biases and mask, into `out`. Bit `t` of
/// `allowed` (32 to a word, the lowest first) says whether token `t` may be
/// chosen; tokens beyond its end may not.
pub fn adjust(
    logits: &[i32],
    sampling: &Sampling,
    history: &History,
    allowed: Option<&[u32]>,
    out: &mut Vec<i64>,
) {
    out.clear();
    out.extend(logits.iter().map(|&logit| logit.at_rule_bits()));
    for (&token, &times) in &history.times {
        if let Some(logit) = out.get_mut(token as usize) {
            *logit = penalised(*logit, times, sampling);
        }
    }
    for LogitBias { token, bias_q16 } in &sampling.bias {
        if let Some(logit) = out.get_mut(*token as usize) {
            *logit += i64::from(*bias_q16);
        }
    }
    let Some(allowed) = allowed else { return };
    for (at, tokens) in out.chunks_mut(32).enumerate() {
        let bits = allowed.get(at).copied().unwrap_or(0);
        for (bit, logit) in tokens.iter_mut().enumerate() {
            if bits >> bit & 1 == 0 {
                *logit = FORBIDDEN;
            }
        }
    }
}

/// A logit of a token that stands in the prompt, or `times` times in the answer.
fn penalised(logit: i64, times: u32, sampling: &Sampling) -> i64 {
    // |logit| < 2^38; the quotient stays below 2^54, the product below 2^59.
    let logit = match i64::from(sampling.repetition_q16) {
        0 => logit,
        penalty if logit > 0 => (logit << 16).div_euclid(penalty),
        penalty => (logit * penalty) >> 16,
    };
    let present = if times > 0 { i64::from(sampling.presence_q16) } else { 0 };
    logit - present - i64::from(times) * i64::from(sampling.frequency_q16)
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

/// The chosen token where no rule changes logits. `draw` is not looked at when
/// choosing greedily.
#[must_use]
pub fn choose(logits: &[i32], sampling: &Sampling, draw: u64) -> u32 {
    choose_from(logits, sampling, draw).unwrap_or(0)
}

/// The chosen token of logits made by [`adjust`]; `None` if all are forbidden.
#[must_use]
pub fn choose_adjusted(adjusted: &[i64], sampling: &Sampling, draw: u64) -> Option<u32> {
    choose_from(adjusted, sampling, draw)
}

fn choose_from<L: Logit>(logits: &[L], sampling: &Sampling, draw: u64) -> Option<u32> {
    let first = *logits.first()?;
    let best = logits.iter().fold(first, |best, &logit| best.max(logit));
    if best.at_rule_bits() == FORBIDDEN {
        return None;
    }
    if sampling.temperature_q16 == 0 {
        return logits.iter().position(|&logit| logit == best).map(|token| token as u32);
    }
    let mut kept = kept(logits, best, sampling);
    kept.sort_unstable_by_key(|candidate| candidate.token);
    Some(pick(&kept, draw))
}

/// Where `token` stands among those that may be chosen where no rule changes logits, from 0 to
/// 1 at 2^-16: what all tokens before it in rank weigh, and half of what it weighs itself. So
/// the mean over tokens that are drawn by these rules is one half. 1 for a token that may not be
/// chosen, and for any that is not the best when choosing greedily; 0 for that one.
#[must_use]
pub fn standing(logits: &[i32], sampling: &Sampling, token: u32) -> u32 {
    let Some(&own) = logits.get(token as usize) else { return ONE_Q16 };
    let best = highest(logits);
    if sampling.temperature_q16 == 0 {
        return if own == best { 0 } else { ONE_Q16 };
    }
    let kept = kept(logits, best, sampling);
    let Some(own) = kept.iter().find(|candidate| candidate.token == token) else { return ONE_Q16 };
    let total: u64 = kept.iter().map(|c| u64::from(c.weight)).sum();
    let before = kept.iter().filter(|c| c.rank() < own.rank());
    let before: u64 = before.map(|c| u64::from(c.weight)).sum();
    let twice = u128::from(2 * before + u64::from(own.weight)) << 16;
    (twice / u128::from(2 * total.max(1))) as u32
}

/// The tokens that may be chosen at a temperature above 0, in no order.
fn kept<L: Logit>(logits: &[L], best: L, sampling: &Sampling) -> Vec<Candidate> {
    let scale = u128::from(LOG2_E_48 / u64::from(sampling.temperature_q16.max(1)));
    let mut kept: Vec<Candidate> = Vec::with_capacity(logits.len());
    for (token, &logit) in logits.iter().enumerate() {
        let logit = logit.at_rule_bits();
        if logit == FORBIDDEN {
            continue;
        }
        let weight = weight((best.at_rule_bits() - logit) as u64, scale);
        if weight > 0 {
            kept.push(Candidate { logit, token: token as u32, weight });
        }
    }
    keep_top_k(&mut kept, sampling.top_k as usize);
    keep_top_p(&mut kept, sampling.top_p_q16);
    // The best token weighs 2^31.
    let least = u64::from(sampling.min_p_q16) << 15;
    kept.retain(|candidate| u64::from(candidate.weight) >= least);
    kept
}

fn highest(logits: &[i32]) -> i32 {
    logits.iter().fold(i32::MIN, |best, &logit| best.max(logit))
}

/// A logit of either fineness.
trait Logit: Copy + Ord {
    /// At 2^-16.
    fn at_rule_bits(self) -> i64;
}

impl Logit for i32 {
    #[inline(always)]
    fn at_rule_bits(self) -> i64 {
        const { assert!(LOGIT_BITS <= RULE_BITS as i32) };
        i64::from(self) << (RULE_BITS as i32 - LOGIT_BITS)
    }
}

impl Logit for i64 {
    #[inline(always)]
    fn at_rule_bits(self) -> i64 {
        self
    }
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: i64,
    token: u32,
    weight: u32,
}

impl Candidate {
    /// The best first, the lowest number first among equals.
    fn rank(&self) -> (std::cmp::Reverse<i64>, u32) {
        (std::cmp::Reverse(self.logit), self.token)
    }
}

/// `2^31 · 2^-(gap · log2(e) / temperature)`, by the table of powers.
#[inline(always)]
fn weight(gap: u64, scale: u128) -> u32 {
    // scale is log2(e) / temperature at 2^-32, gap at 2^-16, the steps at 2^-10.
    let steps = (u128::from(gap) * scale) >> (32 + RULE_BITS - STEP_BITS);
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
                logit: logit.at_rule_bits(),
                token,
                weight: weight((best - logit) as u64 * 64, scale),
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
        let most = all.iter().map(|c| u64::from(c.weight)).max().expect("a candidate");
        let share = u64::from(sampling.min_p_q16);
        all.retain(|c| u64::from(c.weight) * 65_536 >= most * share);
        all.sort_by_key(|c| c.token);
        pick(&all, draw)
    }

    #[test]
    fn standings_of_drawn_tokens_have_one_half_as_their_mean() {
        let logits = logits(500, 4_000);
        for (top_k, top_p_q16, min_p_q16) in [(0, 65_536, 0), (40, 60_000, 0), (0, 65_536, 9_000)] {
            let sampling = Sampling {
                temperature_q16: 52_429,
                top_k,
                top_p_q16,
                min_p_q16,
                ..Sampling::GREEDY
            };
            let draws = (0..20_000u64).map(|n| n * (u64::MAX / 20_000));
            let sum: u64 = draws
                .map(|draw| {
                    u64::from(standing(&logits, &sampling, choose(&logits, &sampling, draw)))
                })
                .sum();
            let mean = sum / 20_000;
            assert!((32_700..=32_836).contains(&mean), "{mean} at top-k {top_k}");
        }
        let only = Sampling { temperature_q16: 65_536, top_k: 1, ..Sampling::GREEDY };
        let best = greedy(&logits);
        assert_eq!(standing(&logits, &only, best), ONE_Q16 / 2);
        assert_eq!(standing(&logits, &only, (best + 1) % 500), ONE_Q16, "may not be chosen");
        assert_eq!(standing(&logits, &only, 500), ONE_Q16, "is no token");
        assert_eq!(standing(&logits, &Sampling::GREEDY, best), 0);
    }

    #[test]
    fn partial_selection_equals_the_full_sort() {
        let logits = logits(5_000, 9_000);
        for temperature_q16 in [1, 20_000, 65_536, 200_000] {
            for top_k in [0, 1, 2, 40, 4_999, 9_999] {
                for (top_p_q16, min_p_q16) in [
                    (0, 0),
                    (1, 65_536),
                    (30_000, 0),
                    (62_259, 3_277),
                    (65_535, 20_000),
                    (65_536, 1),
                    (65_536, 65_536),
                ] {
                    let sampling = Sampling {
                        temperature_q16,
                        top_k,
                        top_p_q16,
                        min_p_q16,
                        ..Sampling::GREEDY
                    };
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

    fn adjusted(logits: &[i32], sampling: &Sampling, prompt: &[u32], answer: &[u32]) -> Vec<i64> {
        let mut history = History::of_prompt(prompt);
        answer.iter().for_each(|&token| history.push(token));
        let mut out = Vec::new();
        adjust(logits, sampling, &history, None, &mut out);
        out
    }

    #[test]
    fn penalties_are_taken_in_their_order() {
        let logits = [1024, -1024, 512, 7];
        let none = adjusted(&logits, &Sampling::GREEDY, &[0], &[1, 1]);
        assert_eq!(none, [65_536, -65_536, 32_768, 448]);
        // Halved if positive, doubled if negative, wherever the token stood.
        let repetition = Sampling { repetition_q16: 2 << 16, ..Sampling::GREEDY };
        assert_eq!(adjusted(&logits, &repetition, &[0], &[1, 1]), [32_768, -131_072, 32_768, 448]);
        // Toward minus infinity on either side.
        let third = Sampling { repetition_q16: 3 << 16, ..Sampling::GREEDY };
        assert_eq!(adjusted(&[1, -1], &third, &[0, 1], &[]), [21, -192]);
        let odd = Sampling { repetition_q16: 65_537, ..Sampling::GREEDY };
        assert_eq!(adjusted(&[1, -1], &odd, &[0, 1], &[]), [63, -65]);
        // Presence and frequency know the answer only.
        let all = Sampling { presence_q16: 100, frequency_q16: 10, ..repetition };
        assert_eq!(adjusted(&logits, &all, &[0], &[1, 1]), [32_768, -131_192, 32_768, 448]);
        let bias = vec![LogitBias { token: 1, bias_q16: 7 }, LogitBias { token: 99, bias_q16: 1 }];
        let biased = Sampling { bias, ..all };
        assert_eq!(adjusted(&logits, &biased, &[0, 9], &[1, 1]), [32_768, -131_185, 32_768, 448]);
    }

    #[test]
    fn extreme_rules_stay_within_their_width() {
        for repetition_q16 in [1, 1 << 20] {
            for (logit, penalty) in [(i32::MAX, -131_072), (-i32::MAX, 131_072)] {
                let (presence_q16, frequency_q16) = (penalty, penalty);
                let rules =
                    Sampling { repetition_q16, presence_q16, frequency_q16, ..Sampling::GREEDY };
                let changed = penalised(logit.at_rule_bits(), u32::MAX, &rules);
                assert!(changed.unsigned_abs() < 1 << 60, "{changed}");
                let sampling = Sampling { temperature_q16: 1, ..rules };
                assert_eq!(
                    choose_adjusted(&[changed, -changed], &sampling, 5),
                    Some(u32::from(changed < 0))
                );
            }
        }
    }

    #[test]
    fn a_mask_leaves_what_it_allows() {
        let logits = logits(100, 9_000);
        let mut out = Vec::new();
        let sampling = Sampling { temperature_q16: 1 << 22, ..Sampling::GREEDY };
        let mask = [1 << 7, 0, 1 << 3];
        adjust(&logits, &sampling, &History::default(), Some(&mask), &mut out);
        let seen: std::collections::BTreeSet<_> =
            (0..64).map(|step| choose_adjusted(&out, &sampling, draw(&[4; 32], step))).collect();
        assert_eq!(seen, [Some(7), Some(67)].into());
        for none in [&[][..], &[0, 0, 0]] {
            adjust(&logits, &sampling, &History::default(), Some(none), &mut out);
            assert_eq!(choose_adjusted(&out, &sampling, 1), None);
            assert_eq!(choose_adjusted(&out, &Sampling::GREEDY, 1), None);
        }
    }

    /// Without a rule, both roads lead to the same token.
    #[test]
    fn rules_that_are_off_change_nothing() {
        let logits = logits(3_000, 9_000);
        for temperature_q16 in [0, 1, 40_000, 1 << 23] {
            for top_p_q16 in [1, 60_000, 65_536] {
                let sampling = Sampling { temperature_q16, top_p_q16, ..Sampling::GREEDY };
                for step in 0..8 {
                    let draw = draw(&[8; 32], step);
                    let other =
                        choose_adjusted(&adjusted(&logits, &sampling, &[1], &[2]), &sampling, draw);
                    assert_eq!(other, Some(choose(&logits, &sampling, draw)));
                }
            }
        }
    }
}
