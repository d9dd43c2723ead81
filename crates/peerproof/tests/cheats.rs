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
    // Wrong cells, and the positions that the answer has: 8 of the prompt and all but the last
    // of up to 4 tokens, with 30 cells each, and as many heads as tokens.
    let of = |cheat: &str| {
        let row = rows.iter().find(|row| row.cheat == cheat).unwrap();
        (row.wrong, 7 + (row.cells - 7 * 30) / 31)
    };
    assert_eq!(of("none (honest)").0, 0);
    assert_eq!(of("one layer at one position tampered").0, 1);
    let (wrong, positions) = of("last layers skipped");
    assert_eq!(wrong, 2 * positions);
    let (wrong, positions) = of("truncated context");
    assert_eq!(wrong, 30 * (positions - 4));
    let (wrong, positions) = of("another model of the same shape");
    assert_eq!(wrong, 30 * positions);
    assert!((1..=4).contains(&of("another sampling").0));
}
