//! Three statistics as bets, and what becomes of their stakes.
//!
//! A score between 0 and 1 is taken of every token. A bet that its mean, given
//! all that came before, is not above `m` multiplies its stake by
//! `1 + λ (score − m)`: if the bet's claim holds, the stake is not expected to
//! grow, however tokens depend on each other and whenever somebody looks, so it
//! passes `1/α` with a probability of α at most, ever (Ville's inequality). A
//! mean of stakes is such a stake again. [`Growth`] is what one answer
//! multiplies the stakes by; an [`Account`] adds up answers of one provider and
//! model.
//!
//! An account bets from every answer on: answer `n` opens new stakes of
//! `1 / (n (n + 1))`, which sum to one. So a provider that was honest for long
//! and then cheats is found nearly as soon as a new one. Deliberately absent:
//! what the scores are of (`scores`), and any penalty.

use super::stake::{ONE_Q16, Stake};

/// Stakes that grow if the figures are off, tokens implausible, or answers too fast.
pub(crate) const AGAINST: usize = 9;
/// All stakes: one more grows if the figures are close.
pub(crate) const STAKES: usize = AGAINST + 1;
/// Failed: against it stands one in a million.
pub const FAIL_AT: u64 = 1_000_000;
/// Passed: that its figures are as far off as those of another file has odds of one in a thousand.
pub const PASS_AT: u64 = 1_000;

/// Which score a bet is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// How far the reported figures are off.
    Difference,
    /// Where the token stands among those allowed.
    Standing,
    /// 1 less that.
    Closeness,
    /// How far behind the best token a greedy choice is.
    Slip,
    /// Whether the answer was faster than declared, once an answer.
    Pace,
}

/// A bet that the mean of a score is not above `mean_q16`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bet {
    pub(crate) on: On,
    mean_q16: u32,
    /// λ at 2^-16.
    lambda_q16: u32,
}

/// Means that an honest provider stays below, with room; `docs/spec/statistical.md` says by how
/// much.
const DIFFERENCE_Q16: u32 = 13_107;
const STANDING_Q16: u32 = 36_045;
const SLIP_Q16: u32 = 1_966;
const PACE_Q16: u32 = 6_554;
/// A mean of differences that another file does not stay below.
pub(crate) const OTHER_Q16: u32 = 19_661;

/// The share, in 64ths, of the largest λ there is (`1 / m`): a bet of all could be ruined by one
/// token.
const fn bet(on: On, mean_q16: u32, share: u32) -> Bet {
    let lambda = (1u64 << 32) * share as u64 / (64 * mean_q16 as u64);
    Bet { on, mean_q16, lambda_q16: lambda as u32 }
}

/// All bets against a provider, in the order of their stakes.
pub(crate) const BETS: [Bet; AGAINST] = [
    bet(On::Difference, DIFFERENCE_Q16, 12),
    bet(On::Difference, DIFFERENCE_Q16, 28),
    bet(On::Difference, DIFFERENCE_Q16, 52),
    bet(On::Standing, STANDING_Q16, 8),
    bet(On::Standing, STANDING_Q16, 24),
    bet(On::Closeness, STANDING_Q16, 8),
    bet(On::Closeness, STANDING_Q16, 24),
    bet(On::Slip, SLIP_Q16, 40),
    bet(On::Pace, PACE_Q16, 40),
];

impl Bet {
    /// What a score multiplies the stake by.
    fn factor(&self, score_q16: u32) -> u64 {
        let score = i64::from(score_q16.min(ONE_Q16 as u32));
        let gain = (score - i64::from(self.mean_q16)) * i64::from(self.lambda_q16);
        // Rounded down, also below zero.
        (ONE_Q16 as i64 + (gain >> 16)).max(0) as u64
    }
}

/// What the tokens of one answer multiply the stakes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    stakes: [Stake; STAKES],
}

impl Default for Growth {
    fn default() -> Self {
        Self { stakes: [Stake::ONE; STAKES] }
    }
}

impl Growth {
    /// Takes one score into account.
    pub(crate) fn take(&mut self, on: On, score_q16: u32) {
        for (stake, bet) in self.stakes.iter_mut().zip(BETS).filter(|(_, bet)| bet.on == on) {
            *stake = stake.by_q16(bet.factor(score_q16));
        }
        if on == On::Difference
            && let Some(close) = self.stakes.last_mut()
        {
            // The other way round: a bet that the mean is not below that of another file.
            let below = i64::from(OTHER_Q16) - i64::from(score_q16.min(ONE_Q16 as u32));
            let lambda = i64::from(CLOSE_LAMBDA_Q16);
            let factor = (ONE_Q16 as i64 + ((below * lambda) >> 16)).max(0);
            *close = close.by_q16(factor as u64);
        }
    }

    /// The same answer, of which it is known too whether it came faster than its provider's
    /// declared hardware gives.
    #[must_use]
    pub fn paced(mut self, fast: bool) -> Self {
        self.take(On::Pace, if fast { ONE_Q16 as u32 } else { 0 });
        self
    }

    /// The stakes as numbers, two each.
    #[must_use]
    pub fn parts(&self) -> Vec<u32> {
        self.stakes.iter().flat_map(|stake| <[u32; 2]>::from(stake.parts())).collect()
    }

    /// The growth with these numbers; `None` if there is none.
    #[must_use]
    pub fn from_parts(parts: &[u32]) -> Option<Self> {
        let (pairs, rest) = parts.as_chunks::<2>();
        let stakes: Option<Vec<Stake>> =
            pairs.iter().map(|&[a, b]| Stake::from_parts((a, b))).collect();
        let stakes = stakes?.try_into().ok().filter(|_| rest.is_empty())?;
        Some(Self { stakes })
    }
}

/// λ of the bet that figures are not close.
const CLOSE_LAMBDA_Q16: u32 = 2 * ONE_Q16 as u32;

/// What can be said of a provider and a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its figures are close to the model file's, closer than another file's.
    Pass,
    /// Not enough was seen.
    Inconclusive,
    /// The answers are not the model file's; that an honest provider looks so has odds of one in
    /// a million, whenever one looks.
    Fail,
}

impl Judgement {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }
}

/// All that was seen of one provider and one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    answers: u32,
    stakes: [Stake; STAKES],
}

impl Default for Account {
    fn default() -> Self {
        Self { answers: 0, stakes: [Stake::ZERO; STAKES] }
    }
}

impl Account {
    /// How many answers were seen.
    #[must_use]
    pub fn answers(&self) -> u32 {
        self.answers
    }

    /// Takes one more answer into account.
    pub fn take(&mut self, growth: &Growth) {
        self.answers = self.answers.saturating_add(1);
        let number = u64::from(self.answers);
        let opened = Stake::ratio(1, number * (number + 1));
        for (stake, grown) in self.stakes.iter_mut().zip(growth.stakes) {
            *stake = stake.plus(opened).by(grown);
        }
    }

    /// What all of it amounts to.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        if self.against().at_least(&Stake::ratio(FAIL_AT, 1)) {
            return Judgement::Fail;
        }
        let close = self.stakes[AGAINST];
        if close.at_least(&Stake::ratio(PASS_AT, 1)) {
            return Judgement::Pass;
        }
        Judgement::Inconclusive
    }

    /// The mean of the stakes against the provider: 10^6 fails it.
    #[must_use]
    pub fn against(&self) -> Stake {
        let sum = self.stakes[..AGAINST].iter().fold(Stake::ZERO, |sum, stake| sum.plus(*stake));
        sum.by(Stake::ratio(1, AGAINST as u64))
    }

    /// What it is kept as: the number of answers, then the stakes.
    #[must_use]
    pub fn parts(&self) -> Vec<u32> {
        let stakes = Growth { stakes: self.stakes };
        std::iter::once(self.answers).chain(stakes.parts()).collect()
    }

    /// The account kept as these numbers; `None` if there is none.
    #[must_use]
    pub fn from_parts(parts: &[u32]) -> Option<Self> {
        let (answers, stakes) = parts.split_first()?;
        Some(Self { answers: *answers, stakes: Growth::from_parts(stakes)?.stakes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(of: impl IntoIterator<Item = Growth>) -> Account {
        let mut account = Account::default();
        of.into_iter().for_each(|growth| account.take(&growth));
        account
    }

    fn answer(tokens: usize, difference_q16: u32) -> Growth {
        let mut growth = Growth::default();
        for _ in 0..tokens {
            growth.take(On::Difference, difference_q16);
            growth.take(On::Standing, ONE_Q16 as u32 / 2);
            growth.take(On::Closeness, ONE_Q16 as u32 / 2);
        }
        growth
    }

    /// At its claimed mean a stake is expected to stay: half the tokens at 0, half at twice it.
    #[test]
    fn no_bet_is_expected_to_grow_where_its_claim_holds() {
        for bet in BETS {
            let (low, high) = (bet.factor(0), bet.factor(2 * bet.mean_q16));
            assert!(low > 0, "{bet:?}: one token ruins it");
            if 2 * u64::from(bet.mean_q16) <= ONE_Q16 {
                assert!(low + high <= 2 * ONE_Q16, "{bet:?}");
            }
            assert!(bet.factor(bet.mean_q16) <= ONE_Q16 && bet.factor(ONE_Q16 as u32) > ONE_Q16);
        }
    }

    #[test]
    fn an_answer_far_off_fails_within_a_dozen_tokens() {
        let first =
            (1..64).find(|n| account([answer(*n, ONE_Q16 as u32)]).judgement() == Judgement::Fail);
        assert_eq!(first, Some(12));
    }

    #[test]
    fn close_figures_pass_and_honest_ones_never_fail() {
        // What a server of the same file is measured to be off by.
        let honest = answer(64, 5_800);
        assert_eq!(account([honest]).judgement(), Judgement::Pass);
        assert_eq!(account([answer(8, 5_800)]).judgement(), Judgement::Inconclusive);
        assert_eq!(account(std::iter::repeat_n(honest, 10_000)).judgement(), Judgement::Pass);
    }

    #[test]
    fn who_cheats_after_a_thousand_honest_answers_is_found_nearly_as_soon() {
        let needed = |honest: usize| {
            let mut account = account(std::iter::repeat_n(answer(64, 5_800), honest));
            let cheat = answer(8, 40_000);
            (1..100).find(|_| {
                account.take(&cheat);
                account.judgement() == Judgement::Fail
            })
        };
        let (at_once, later) = (needed(0).expect("found"), needed(1_000).expect("found"));
        assert!(at_once <= 3 && later <= at_once + 2, "{at_once}, then {later}");
    }

    #[test]
    fn answers_faster_than_declared_fail_when_nearly_all_of_them_are() {
        let of = |fast: bool| account((0..20).map(|_| answer(64, 5_800).paced(fast))).judgement();
        assert_eq!((of(false), of(true)), (Judgement::Pass, Judgement::Fail));
    }

    #[test]
    fn implausible_tokens_fail_though_their_figures_are_right() {
        let skewed = |standing_q16: u32| {
            let mut growth = Growth::default();
            for _ in 0..600 {
                growth.take(On::Difference, 5_000);
                growth.take(On::Standing, standing_q16);
                growth.take(On::Closeness, ONE_Q16 as u32 - standing_q16);
            }
            account([growth]).judgement()
        };
        assert_eq!(skewed(32_768), Judgement::Pass);
        assert_eq!(skewed(45_000), Judgement::Fail, "likelier ones were passed over");
        assert_eq!(skewed(20_000), Judgement::Fail, "only the likeliest are chosen");
    }

    /// 32 quantiles of the differences of 919 tokens of llama.cpp's server with the file it
    /// claims: SmolLM2 135M, its Q8_0, Gemma 3 270M.
    const HONEST: [u32; 32] = [
        2563, 2991, 3262, 3558, 3738, 3917, 4055, 4181, 4294, 4451, 4580, 4743, 4866, 5028, 5155,
        5263, 5426, 5627, 5776, 5981, 6136, 6410, 6723, 6986, 7180, 7527, 7932, 8537, 9080, 9880,
        11917, 16142,
    ];
    /// The same of 139 tokens of a Q4_0 that is served as the Q8_0.
    const Q4_AS_Q8: [u32; 32] = [
        21713, 26881, 28516, 30662, 35093, 36984, 37882, 39990, 40670, 42075, 42766, 43051, 44401,
        44908, 45316, 46832, 47384, 48942, 49850, 51396, 53168, 53717, 54844, 55907, 57186, 57687,
        58539, 59207, 59332, 60409, 62902, 65536,
    ];

    /// Numbers that follow from a seed.
    fn stream(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        }
    }

    /// One answer of recorded differences, its tokens drawn by the rules.
    fn drawn(next: &mut impl FnMut() -> u64, of: &[u32; 32], tokens: usize) -> Growth {
        let mut growth = Growth::default();
        for _ in 0..tokens {
            growth.take(On::Difference, of[next() as usize % 32]);
            let standing = (next() & 0xffff) as u32;
            growth.take(On::Standing, standing);
            growth.take(On::Closeness, ONE_Q16 as u32 - standing);
        }
        growth
    }

    #[test]
    fn recorded_honest_answers_never_fail_and_pass_by_the_second() {
        let mut next = stream(1);
        for provider in 0..200 {
            let mut account = Account::default();
            for answer in 0..20 {
                account.take(&drawn(&mut next, &HONEST, 48));
                let judgement = account.judgement();
                assert_ne!(judgement, Judgement::Fail, "provider {provider}, answer {answer}");
                if answer > 0 {
                    assert_eq!(judgement, Judgement::Pass, "provider {provider}, answer {answer}");
                }
            }
        }
    }

    #[test]
    fn a_q4_that_is_served_as_a_q8_fails_within_its_first_answer() {
        let mut next = stream(2);
        let needed = |tokens: usize, next: &mut _| {
            let fails = |_: &usize| {
                account([drawn(next, &Q4_AS_Q8, tokens)]).judgement() == Judgement::Fail
            };
            (0..200usize).filter(fails).count()
        };
        let (at_16, at_24) = (needed(16, &mut next), needed(24, &mut next));
        println!("of 200, found by 16 tokens: {at_16}, by 24: {at_24}");
        assert!(at_16 >= 100 && at_24 == 200, "{at_16}, {at_24}");
    }

    proptest! {
        #[test]
        fn accounts_survive_being_kept(
            answers in prop::collection::vec((1usize..40, 0u32..65_537), 0..6),
        ) {
            let account = account(answers.iter().map(|&(n, d)| answer(n, d)));
            prop_assert_eq!(Account::from_parts(&account.parts()), Some(account));
            let mut longer = account.parts();
            longer.push(0);
            prop_assert_eq!(Account::from_parts(&longer), None);
        }
    }
}
