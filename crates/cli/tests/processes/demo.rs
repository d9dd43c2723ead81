//! `peerproof demo`: the whole product, and nothing left of it afterwards.

use std::process::Stdio;

use crate::support::{Place, lines, run, signal, until, wait};

fn nothing_is_left_of(place: &Place) {
    until("every process of the demonstration has ended", || {
        place.processes().is_empty().then_some(())
    });
    let left: Vec<_> = std::fs::read_dir(place.path("tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "left in the temporary folder: {left:?}");
}

#[test]
fn the_demonstration_answers_refuses_proves_and_tidies_up() {
    let place = Place::new();
    let mut command = place.command("home");
    command.args(["demo", "What is the capital of France?"]);
    let said = run(command).fine();
    for part in ["Paris", "audited by this node", "Refused:", "PROVEN", "is barred"] {
        assert!(said.contains(part), "expected {part:?} in:\n{said}");
    }
    nothing_is_left_of(&place);
}

#[test]
fn an_interrupted_demonstration_tidies_up() {
    // Once while nodes start, and once while the router looks for providers or answers.
    for moment in ["provider 1", "router"] {
        let place = Place::new();
        let mut command = place.command("home");
        command.arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = lines(child.stdout.take().unwrap());
        let errors = lines(child.stderr.take().unwrap());
        let seen = output.iter().find(|line| line.starts_with(moment));
        assert!(seen.is_some(), "{:?}", errors.iter().collect::<Vec<_>>());
        signal(child.id(), "INT");
        assert_eq!(wait(&mut child), Some(130), "{:?}", errors.iter().collect::<Vec<_>>());
        assert!(!output.iter().any(|line| line.contains("PROVEN")), "it went on to its end");
        nothing_is_left_of(&place);
    }
}
