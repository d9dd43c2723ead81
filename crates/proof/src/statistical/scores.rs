//! From reported and recomputed figures to scores between 0 and 1.
//!
//! The difference of a token is the mean, over the token and the likeliest ones
//! reported, of how far the two logarithms are apart, each cut at one nat. A
//! token that the model does not know, or whose figures nobody could have
//! computed (the likeliest not in order, named twice, more likely together than
//! certain), differs as far as can be. Deliberately absent: bets.

use peerproof_wire::limits::MAX_TOP_LOGPROBS;
use peerproof_wire::{Offer, TokenLogprobs};

use super::Weighed;
use super::bets::{Growth, On};

/// Differences beyond this count no more: one nat.
const CAP_Q16: u32 = 1 << 16;
/// A greedy choice this far behind counts in full: half a nat.
const SLIP_CAP_Q16: u32 = 1 << 15;
/// 1 at 2^-16.
const ONE_Q16: u32 = 1 << 16;

/// What one token is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scores {
    /// How far figures are off, from 0 to 1 at 2^-16.
    pub difference_q16: u32,
    /// Where the token stands among those allowed; where it is chosen greedily, how far behind
    /// the best one it is.
    pub standing_q16: u32,
}

/// Whether a report is one that can be computed from anything.
fn is_sound(report: &TokenLogprobs) -> bool {
    let ordered = report.top.windows(2).all(|pair| pair[0].1 <= pair[1].1);
    let mut ids: Vec<u32> = report.top.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    let distinct = ids.windows(2).all(|pair| pair[0] != pair[1]);
    // Of n tokens the least likely has at most 1/n: ln n at 2^-16, less a little for rounding.
    let least = report.top.last().map_or(0, |(_, value)| *value);
    let floor = u32::try_from(report.top.len()).unwrap_or(0).checked_ilog2().unwrap_or(0);
    report.top.len() == MAX_TOP_LOGPROBS && ordered && distinct && least + 64 >= floor * 45_426
}

/// The scores of one token; `None` stands for a token that could not be read.
#[must_use]
pub fn scores(report: &TokenLogprobs, weighed: Option<&Weighed>, greedy: bool) -> Scores {
    let far = Scores { difference_q16: ONE_Q16, standing_q16: ONE_Q16 };
    let Some(weighed) = weighed.filter(|it| it.top_q16.len() == report.top.len()) else {
        return far;
    };
    let standing_q16 = if greedy {
        let behind = weighed.chosen_q16.saturating_sub(weighed.best_q16).min(SLIP_CAP_Q16);
        behind * (ONE_Q16 / SLIP_CAP_Q16)
    } else {
        weighed.standing_q16.min(ONE_Q16)
    };
    if !is_sound(report) {
        return Scores { standing_q16, ..far };
    }
    let apart = |said: u32, is: u32| u64::from(said.abs_diff(is).min(CAP_Q16));
    let top = report.top.iter().zip(&weighed.top_q16);
    let sum: u64 = top.map(|((_, said), is)| apart(*said, *is)).sum();
    let sum = sum + apart(report.chosen_q16, weighed.chosen_q16);
    let difference_q16 = (sum / (report.top.len() as u64 + 1)) as u32;
    Scores { difference_q16, standing_q16 }
}

/// What an answer multiplies the stakes by, and its mean scores.
#[must_use]
pub fn growth(offer: &Offer, reports: &[TokenLogprobs], weighed: &[Weighed]) -> (Growth, Scores) {
    let greedy = offer.sampling.temperature_q16 == 0;
    let mut growth = Growth::default();
    let mut sums = [0u64; 2];
    for (index, report) in reports.iter().enumerate() {
        let Scores { difference_q16, standing_q16 } = scores(report, weighed.get(index), greedy);
        sums[0] += u64::from(difference_q16);
        sums[1] += u64::from(standing_q16);
        growth.take(On::Difference, difference_q16);
        if greedy {
            growth.take(On::Slip, standing_q16);
        } else {
            growth.take(On::Standing, standing_q16);
            growth.take(On::Closeness, ONE_Q16 - standing_q16);
        }
    }
    let [difference_q16, standing_q16] = sums.map(|sum| (sum / reports.len().max(1) as u64) as u32);
    (growth, Scores { difference_q16, standing_q16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty tokens from one nat to three.
    fn report() -> TokenLogprobs {
        let top = (0..20).map(|at| (at, 65_536 + 7_000 * at)).collect();
        TokenLogprobs { chosen_q16: 65_536, top, spellings: vec![] }
    }

    fn weighed(off: u32) -> Weighed {
        Weighed {
            chosen_q16: 65_536 + off,
            best_q16: 65_536,
            top_q16: report().top.iter().map(|(_, value)| value + off).collect(),
            standing_q16: 30_000,
        }
    }

    #[test]
    fn equal_figures_do_not_differ_and_far_ones_are_cut() {
        let of = |off| scores(&report(), Some(&weighed(off)), false).difference_q16;
        assert_eq!((of(0), of(300), of(1 << 20)), (0, 300, ONE_Q16));
        assert_eq!(scores(&report(), Some(&weighed(0)), false).standing_q16, 30_000);
    }

    #[test]
    fn a_greedy_choice_is_measured_by_what_it_falls_behind() {
        let of = |off| scores(&report(), Some(&weighed(off)), true).standing_q16;
        assert_eq!((of(0), of(1 << 14), of(1 << 20)), (0, ONE_Q16 / 2, ONE_Q16));
    }

    #[test]
    fn figures_that_cannot_be_are_far_off() {
        let far = |change: fn(&mut TokenLogprobs)| {
            let mut report = report();
            change(&mut report);
            assert_eq!(scores(&report, Some(&weighed(0)), false).difference_q16, ONE_Q16);
        };
        far(|it| it.top.swap(0, 1));
        far(|it| it.top[1].0 = it.top[0].0);
        far(|it| it.top.iter_mut().for_each(|(_, value)| *value = 1));
        far(|it| it.top.truncate(19));
        assert_eq!(scores(&report(), None, true).standing_q16, ONE_Q16, "no such token");
    }
}
