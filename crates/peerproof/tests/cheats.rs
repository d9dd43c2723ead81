//! Cheats of the computation on the real model, small: each is caught, and nobody else is.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use peerproof::bench::{Trying, cheats};

const TEXT: &str = "A river begins as a thin line of water between stones, and nobody who steps \
                    across it thinks of ships.";

#[test]
fn every_cheat_of_the_computation_is_caught() {
    let trying = Trying { shape: (8, 4), answers: 1, spots: 2_000, threads: 2 };
    let rows = cheats(&support::model().path, TEXT, trying, &mut |_| {}).unwrap();
    assert_eq!(rows.len(), 8);
    rows.iter().for_each(|row| assert!(row.is_good(), "{row:?}"));
    let wrong = |cheat: &str| rows.iter().find(|row| row.cheat == cheat).unwrap().wrong;
    let (positions, layers) = (11, 30);
    assert_eq!(wrong("none (honest)"), 0);
    assert_eq!(wrong("one layer at one position tampered"), 1);
    assert_eq!(wrong("last layers skipped"), 2 * positions);
    assert_eq!(wrong("truncated context"), (positions - 4) * layers);
    assert_eq!(wrong("another model of the same shape"), positions * layers);
    assert!((1..=4).contains(&wrong("another sampling")));
}
