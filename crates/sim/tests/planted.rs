//! Mistakes in the machines, the proofs and the log: do the checkers find them?
//!
//! Each mistake is switched on for one thread and worlds are played until a
//! checker complains. The same worlds without mistakes break no rule, which
//! `worlds.rs` holds.
#![cfg(debug_assertions)]

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use peerproof_sim::{Scenario, Words, conducts, name_of, run};

/// Seeds of each scenario that are tried.
const SEEDS: u64 = 4;
/// How many of the mistakes have to be found.
const FOUND: usize = 19;

/// What makes a mistake, and makes none.
type Plant = fn(Option<&'static str>);

fn bugs() -> Vec<(&'static str, Plant)> {
    let job = peerproof_job::planted::BUGS.map(|bug| (bug, peerproof_job::planted::plant as Plant));
    let log = peerproof_log::planted::BUGS.map(|bug| (bug, peerproof_log::planted::plant as Plant));
    let proof =
        peerproof_proof::planted::BUGS.map(|bug| (bug, peerproof_proof::planted::plant as Plant));
    job.into_iter().chain(log).chain(proof).collect()
}

/// Scenarios in the order in which they are tried.
fn scenarios() -> Vec<String> {
    let cheats = conducts().into_iter().map(|conduct| format!("cheat:{}", name_of(conduct)));
    ["storm", "cuts", "soup"].into_iter().map(String::from).chain(cheats).collect()
}

/// The first world in which a checker complains, and about what.
fn find() -> Option<(String, u64, String)> {
    for seed in 0..SEEDS {
        for name in scenarios() {
            let scenario = Scenario::named(&name, seed).expect("a known scenario");
            let violations = run(&scenario, seed, Words::Hashed).violations;
            if let Some(first) = violations.first() {
                return Some((name, seed, first.to_string()));
            }
        }
    }
    None
}

#[test]
fn planted_bugs_are_found() {
    let bugs = bugs();
    assert_eq!(bugs.len(), 20);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((bug, plant)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            plant(Some(bug));
            let complaint = find();
            plant(None);
            let mut found = found.lock().expect("no thread panics with it");
            match complaint {
                Some((scenario, seed, violation)) => {
                    println!("{bug}: {scenario} seed {seed}: {violation}");
                    found.push(*bug);
                }
                None => println!("{bug}: NOT FOUND in {SEEDS} seeds of each scenario"),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let found = found.into_inner().expect("no thread panicked");
    assert!(found.len() >= FOUND, "{} of {} found", found.len(), bugs.len());
}
