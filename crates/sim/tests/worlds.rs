//! Many worlds of every scenario, each run twice and held against what must be true.
//!
//! `PEERPROOF_SIM_SEEDS` sets how many seeds of each scenario are run. A failure
//! prints the one command that plays it again.
#![allow(clippy::disallowed_methods, reason = "the number of seeds comes from the environment")]

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};

use peerproof_sim::{Conduct, Scenario, Words, conducts, measure, name_of, run};

const SEEDS: u64 = 24;

/// Runs `check` on the numbers below `count`, on all processors.
fn on_all(count: u64, check: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            check(number);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

fn check_scenario(name: &str) {
    let seeds = std::env::var("PEERPROOF_SIM_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |count| count.parse().expect("a number of seeds"));
    on_all(seeds, |seed| check_seed(name, seed));
}

fn check_seed(name: &str, seed: u64) {
    let scenario = Scenario::named(name, seed).expect("a known scenario");
    let again = format!("cargo run -p peerproof-sim -- --scenario '{name}' --seed {seed} --trace");
    let first = run(&scenario, seed, Words::Hashed);
    assert!(first.violations.is_empty(), "{:#?}\n{again}", first.violations);
    assert!(first.figures.jobs > 0, "nothing was asked\n{again}");
    let second = run(&scenario, seed, Words::Hashed);
    assert_eq!(first.trace, second.trace, "two runs of one seed differ\n{again}");
    assert_eq!(first.figures, second.figures, "two runs of one seed differ\n{again}");
}

#[test]
fn calm_worlds_answer_everything() {
    check_scenario("calm");
}

#[test]
fn storms_lose_nothing_and_blame_nobody() {
    check_scenario("storm");
}

#[test]
fn power_cuts_in_the_middle_of_writes_lose_nothing() {
    check_scenario("cuts");
}

#[test]
fn liars_are_barred_and_nobody_else() {
    check_scenario("liars");
}

#[test]
fn liars_in_storms_are_barred_and_nobody_else() {
    check_scenario("soup");
}

#[test]
fn seeds_differ() {
    let trace = |seed| {
        let scenario = Scenario::named("calm", 1).expect("a known scenario");
        run(&scenario, seed, Words::Hashed).trace
    };
    assert_ne!(trace(1), trace(2));
}

#[test]
fn words_do_not_change_a_world() {
    let scenario = Scenario::named("soup", 3).expect("a known scenario");
    let (quiet, loud) = (run(&scenario, 3, Words::Hashed), run(&scenario, 3, Words::Kept));
    assert_eq!(quiet.trace, loud.trace);
    assert!(quiet.lines.is_empty() && !loud.lines.is_empty());
}

#[test]
fn every_cheat_comes_to_what_it_must_and_honest_nodes_stay_welcome() {
    let cheats: Vec<Conduct> = conducts();
    on_all(cheats.len() as u64, |index| {
        let cheat = cheats[index as usize];
        let row = measure(cheat, 3);
        assert!(row.trials > 0, "{} was never committed", name_of(cheat));
        assert_eq!(row.caught, row.trials, "{row:?}");
        assert_eq!(row.false_accusations, 0, "{row:?}");
    });
}
