//! Solutions and forgeries, and sieges of the doorman.

use super::*;
use crate::{Chance, Millis};

fn challenge(n: u8) -> Challenge {
    Challenge::new(&[n; 32], b"who", &[2; 32])
}

fn solved(n: u8) -> Solution {
    Birthday.solve(&challenge(n), 1, 0, 16).expect("about two a try")
}

#[test]
fn a_try_has_about_two_solutions_and_all_are_right() {
    let mut count = 0;
    for nonce in 0..12 {
        for indices in solutions(&challenge(1), nonce) {
            count += 1;
            let solution = Solution { effort: 0, nonce, indices };
            assert_eq!(Birthday.verify(&challenge(1), &solution), Ok(()));
        }
    }
    assert!((10..50).contains(&count), "{count}");
}

#[test]
fn every_changed_bit_is_noticed() {
    let solution = solved(1);
    let bytes = solution.to_bytes();
    assert_eq!(Solution::from_bytes(&bytes), Ok(solution));
    for bit in 32..SOLUTION_BYTES * 8 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = Solution::from_bytes(&changed).expect("the size is right");
        assert!(Birthday.verify(&challenge(1), &changed).is_err(), "{bit}");
    }
    assert!(Birthday.verify(&challenge(2), &solution).is_err());
    for length in [0, 4, 27, 29] {
        assert!(Solution::from_bytes(&vec![0; length]).is_err());
    }
}

#[test]
fn a_solution_is_not_worth_more_than_was_paid() {
    let greedy = (1..=40)
        .filter(|n| {
            let dear = Solution { effort: MAX_EFFORT, ..solved(*n) };
            Birthday.verify(&challenge(*n), &dear).is_ok()
        })
        .count();
    // Each has a chance of 4 in 10,000.
    assert!(greedy <= 1, "{greedy}");
    let beyond = Solution { effort: MAX_EFFORT + 1, ..solved(1) };
    let error = Birthday.verify(&challenge(1), &beyond);
    assert_eq!(error, Err(PuzzleError::Effort { limit: 10_000, got: 10_001 }));
    // Sixteen takes about two tries, and what is found verifies.
    let solution = Birthday.solve(&challenge(3), 16, 0, 64).expect("luck of one in e^-32");
    assert_eq!((solution.effort, Birthday.verify(&challenge(3), &solution)), (16, Ok(())));
}

#[test]
fn one_set_of_numbers_has_one_form() {
    let solution = solved(1);
    for (a, b) in [(0, 1), (0, 4), (2, 6), (3, 7)] {
        let mut swapped = solution;
        swapped.indices.swap(a, b);
        assert!(Birthday.verify(&challenge(1), &swapped).is_err());
    }
    let doubled = Solution { indices: [1, 1, 2, 2, 3, 3, 4, 4], ..solution };
    assert_eq!(Birthday.verify(&challenge(1), &doubled), Err(PuzzleError::Order));
}

#[test]
fn a_client_is_at_the_cap_after_few_steps() {
    let mut efforts = vec![0];
    while *efforts.last().expect("one") < MAX_EFFORT {
        efforts.push(raised(efforts[efforts.len() - 1]));
    }
    assert_eq!(efforts.len(), 18);
    assert_eq!(raised(MAX_EFFORT), MAX_EFFORT);
    assert!(efforts.windows(2).all(|two| two[0] < two[1]));
}

/// A registrar that serves 100 a second; honest clients, five new ones a second,
/// pay more each second until they are served; an attacker sends `attack`.
struct Siege {
    doorman: Doorman,
    waiting: std::collections::BTreeMap<u64, (u32, u64, u32)>,
    retry: Vec<(u32, u64, u32)>,
    next: u64,
    /// Seconds until served, and effort spent in all, of each honest client.
    done: Vec<(u64, u32)>,
    turned_away: usize,
    told: Vec<u32>,
}

impl Siege {
    fn run(seconds: u64, attack: impl Fn(u64) -> (usize, u32)) -> Self {
        let mut siege = Self {
            doorman: Doorman::new(),
            waiting: std::collections::BTreeMap::new(),
            retry: Vec::new(),
            next: 0,
            done: Vec::new(),
            turned_away: 0,
            told: Vec::new(),
        };
        let mut chance = Chance::new([1; 32]);
        for second in 0..seconds {
            siege.second(second, attack(second), &mut chance);
        }
        siege
    }

    fn second(&mut self, now: u64, (count, effort): (usize, u32), chance: &mut Chance) {
        let mut honest: Vec<(u32, u64, u32)> =
            (0..5).map(|_| (self.doorman.told(), now, 0)).collect();
        honest.append(&mut self.retry);
        let mut arrivals: Vec<Option<(u32, u64, u32)>> = honest.into_iter().map(Some).collect();
        arrivals.extend((0..count).map(|_| None));
        chance.shuffle(&mut arrivals);
        let per_slot = arrivals.len().div_ceil(100).max(1);
        let mut refused = Vec::new();
        for slot in arrivals.chunks(per_slot) {
            for who in slot {
                self.next += 1;
                let paid = who.map_or(effort, |(effort, _, _)| effort);
                match self.doorman.arrive(self.next, paid) {
                    Queued::Refused => refused.extend(*who),
                    queued => {
                        who.iter().for_each(|who| {
                            self.waiting.insert(self.next, *who);
                        });
                        if let Queued::Instead(gone) = queued {
                            refused.extend(self.waiting.remove(&gone));
                        }
                    }
                }
            }
            self.served(now);
        }
        while self.doorman.waiting() > 0 && arrivals.len() < 100 {
            self.served(now);
        }
        // Who is still in the queue stays there; who was refused pays more.
        for (effort, since, spent) in refused {
            self.turned_away += 1;
            self.retry.push((raised(effort), since, spent + effort));
        }
        self.doorman.tick(Millis(1000 * (now + 1)));
        self.told.push(self.doorman.told());
    }

    fn served(&mut self, now: u64) {
        let served = self.doorman.serve().and_then(|request| self.waiting.remove(&request));
        self.done.extend(served.map(|(effort, since, spent)| (now - since, spent + effort)));
    }
}

#[test]
fn calm_costs_nothing() {
    let calm = Siege::run(60, |_| (20, 0));
    assert_eq!((calm.done.len(), calm.turned_away), (300, 0));
    assert!(calm.told.iter().all(|told| *told == 0));
    assert!(calm.done.iter().all(|done| *done == (0, 0)));
}

#[test]
fn a_flood_that_pays_nothing_delays_nobody_for_long() {
    let flood = Siege::run(60, |_| (10_000, 0));
    let slow = flood.done.iter().filter(|(seconds, _)| *seconds > 3).count();
    assert!(slow == 0 && flood.done.len() > 280, "{slow} of {}", flood.done.len());
    let most = flood.done.iter().map(|(_, spent)| *spent).max();
    assert!(most <= Some(8), "{most:?}");
    assert!(flood.doorman.waiting() <= QUEUE);
}

/// For ten seconds somebody fills the queue at the highest effort; afterwards
/// nobody is told to pay for it for long, and everybody is served.
#[test]
fn a_difficulty_pump_fades() {
    let pump = Siege::run(240, |second| if second < 10 { (400, MAX_EFFORT) } else { (0, 0) });
    assert!(pump.told.iter().any(|told| *told > 5_000), "the pump works while it is paid for");
    let quiet = pump.told.iter().rposition(|told| *told > 100).expect("it was told");
    assert!(quiet < 140, "{quiet}");
    assert_eq!(pump.done.len(), 1200);
    // A single dear request among cheap ones raises nothing.
    let lone = Siege::run(60, |second| (if second % 10 == 0 { 1 } else { 0 }, MAX_EFFORT));
    assert!(lone.told.iter().all(|told| *told == 0));
}

#[test]
fn what_is_told_never_exceeds_the_cap() {
    let mut doorman = Doorman::new();
    for period in 1..50 {
        for request in 0..2 * QUEUE as u64 {
            doorman.arrive(request, u32::MAX);
        }
        while doorman.serve().is_some() {}
        doorman.tick(Millis(period * PERIOD_MS));
        assert!(doorman.told() <= MAX_EFFORT);
    }
}
