//! The levels of checking, and what becomes of a cheat.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{LONG, Node, PATIENCE, Place, lines, only, signal, text, until, wait};

const QUESTION: &str = "What is the capital of France?";

fn verified(answer: &Value) -> (&str, bool, &str) {
    let report = &answer["peerproof"]["verification"];
    let word = |name: &str| report[name].as_str().unwrap_or_else(|| panic!("{answer}"));
    (word("level"), report["audited"].as_bool().unwrap(), word("detail"))
}

#[test]
fn each_level_says_what_was_checked_and_by_whom() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let router = place.router(&provider, &["--set", "ask.audit_per_mille=1000"]);
    router.finds(&[&provider]);

    let receipt = router.ask(QUESTION, json!({ "verification": { "level": "receipt" } }));
    assert_eq!(verified(&receipt), ("receipt", false, "receipt checked"));
    let full = router.ask(QUESTION, json!({ "verification": { "level": "full" } }));
    assert_eq!(verified(&full), ("full", true, "audited by this node"));
    assert_eq!(text(&full), text(&receipt));
    let sampled = router.ask(QUESTION, json!({}));
    assert_eq!(verified(&sampled), ("sampled", true, "audited by this node"));

    let never = ["route", "--peer", &provider.address, "--set", "ask.audit_per_mille=0"];
    let never = place.node("never", &never);
    never.finds(&[&provider]);
    let sampled = never.ask(QUESTION, json!({}));
    let (level, audited, detail) = verified(&sampled);
    assert_eq!((level, audited), ("sampled", false));
    assert!(detail.contains("not drawn for an audit (0 in 1000)"), "{detail}");
}

#[test]
fn without_the_model_an_auditor_checks_or_nobody_does_and_the_answer_says_so() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let empty = place.path("empty").display().to_string();
    let router = place.router(&provider, &["--cache", &empty]);
    router.finds(&[&provider]);

    let full = json!({ "verification": { "level": "full" } });
    let nobody = router.ask(QUESTION, full.clone());
    let (level, audited, detail) = verified(&nobody);
    assert_eq!((level, audited), ("full", false));
    assert!(detail.starts_with("not audited: "), "{detail}");
    assert!(detail.contains("does not hold the model and found no auditor"), "{detail}");

    let auditor = place.node("auditor", &["audit", "--peer", &provider.address]);
    let by_auditor = format!("audited by {}", auditor.peer);
    let named = json!({ "verification": { "level": "full", "auditor": auditor.peer } });
    // The router may not have met the auditor yet.
    let answer = until("the router reaches the auditor", || {
        let answer = router.ask(QUESTION, named.clone());
        verified(&answer).1.then_some(answer)
    });
    assert_eq!(verified(&answer), ("full", true, &*by_auditor));
    let found = router.ask(QUESTION, full);
    assert_eq!(verified(&found), ("full", true, &*by_auditor));
    let log = place.run("auditor", &["log", "show"]).fine();
    assert!(log.contains("verdict"), "{log}");

    let gone = auditor.peer.clone();
    drop(auditor);
    let named = json!({ "verification": { "level": "full", "auditor": gone } });
    let answer = router.ask(QUESTION, named);
    assert!(!verified(&answer).1 && verified(&answer).2.starts_with("not audited: "), "{answer}");
}

#[test]
fn a_cheat_is_outvoted_refused_proven_and_barred_for_good() {
    let place = Place::new();
    let honest = place.node("honest", &["provide"]);
    let peer = ["provide", "--peer", &honest.address];
    let other = place.node("other", &peer);
    let cheat = place.node("cheat", &[&peer[..], &["--cheat", "skip-layers"]].concat());

    // A router that could not recompute anything: two against one.
    let empty = place.path("empty").display().to_string();
    let voter = place.node("voter", &["route", "--peer", &honest.address, "--cache", &empty]);
    voter.finds(&[&honest, &other, &cheat]);
    let vote = json!({ "verification": { "level": "k_of_n", "k": 2, "n": 3 } });
    let (status, answer) = voter.try_ask(QUESTION, vote);
    if status == 200 {
        assert!(text(&answer).contains("Paris"), "{answer}");
        let (level, _, detail) = verified(&answer);
        assert_eq!((level, detail), ("k_of_n", "2 of 3 providers agree"));
    } else {
        // The cheat was the fastest, its tokens were passed on, and the others took that back.
        assert_eq!(answer["error"]["code"], json!("verification_failed"), "{answer}");
        let said = answer["error"]["message"].as_str().unwrap();
        assert!(said.contains(&cheat.peer), "{said}");
    }
    let log = place.run("voter", &["log", "show", "--json"]).fine();
    assert!(log.contains(&cheat.peer), "the odd one is not recorded: {log}");

    // A router that holds the model.
    let router = place.router(&honest, &[]);
    router.finds(&[&honest, &other, &cheat]);
    let to_cheat = json!({ "provider": only(&[&cheat]), "verification": { "level": "full" } });
    let (status, refused) = router.try_ask(QUESTION, to_cheat.clone());
    assert_eq!(
        (status, &refused["error"]["code"]),
        (502, &json!("verification_failed")),
        "{refused}"
    );
    let said = refused["error"]["message"].as_str().unwrap();
    assert!(said.contains(&cheat.peer) && said.contains("expected"), "{said}");
    let files = router.evidence();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(said.contains(files[0].to_str().unwrap()), "{said}");
    proves(&place, &files[0], &cheat);

    stays_barred(&router, &cheat, &to_cheat);
    assert_eq!(router.stop(), Some(0));
    let router = place.router(&honest, &[]);
    router.finds(&[&honest, &other]);
    stays_barred(&router, &cheat, &to_cheat);
    let peers = place.run("router", &["peers", "--json"]).json();
    let listed = peers.as_array().unwrap().iter().find(|p| p["peer"] == json!(cheat.peer));
    assert!(listed.is_some_and(|peer| peer["barred"].is_string()), "{peers}");
    let answer = router.ask(QUESTION, json!({}));
    assert_ne!(answer["peerproof"]["provider"], json!(cheat.peer));
}

fn stays_barred(router: &Node, cheat: &Node, to_cheat: &Value) {
    let (status, refused) = router.try_ask(QUESTION, to_cheat.clone());
    assert_ne!(status, 200, "the cheat {} answered again: {refused}", cheat.peer);
    assert_eq!(refused["error"]["code"], json!("no_provider"), "{refused}");
    assert_eq!(router.evidence().len(), 1, "it was asked again");
}

/// The file convicts with the model; without it, or changed anywhere, it does not.
fn proves(place: &Place, file: &Path, cheat: &Node) {
    let path = file.to_str().unwrap();
    let said = place.run("judge", &["verify", path]).fine();
    assert!(said.contains("PROVEN") && said.contains(&cheat.peer), "{said}");
    let empty = place.path("empty").display().to_string();
    let unproven = place.run("judge", &["verify", path, "--cache", &empty]);
    assert_eq!(unproven.code, Some(3), "{unproven:?}");
    assert!(unproven.stdout.contains("not proven"), "{unproven:?}");

    let bytes = std::fs::read(file).unwrap();
    let changed = place.path("changed.evidence");
    let (mut tried, mut refused) = (0, 0);
    for at in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        tried += 1;
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&changed, bytes).unwrap();
        let judged = place.run("judge", &["verify", changed.to_str().unwrap()]);
        // What the accuser wrote down unsigned may change: the recomputation speaks instead.
        if (judged.code, &judged.stdout) != (Some(0), &said) {
            assert!(judged.code == Some(1) || judged.code == Some(3), "byte {at}: {judged:?}");
            assert!(!judged.stdout.contains("PROVEN"), "byte {at}: {judged:?}");
            refused += 1;
        }
        assert!(!judged.stderr.contains("panicked"), "byte {at}: {judged:?}");
    }
    assert!(refused + 1 >= tried, "only the accuser's note, {refused} of {tried}");
    std::fs::write(&changed, &bytes[..bytes.len() / 2]).unwrap();
    place.run("judge", &["verify", changed.to_str().unwrap()]).refused(&["changed.evidence"]);
}

/// `ask` has an answer out at once and stays until it was checked; what a cheat said is then
/// called wrong, and the command fails.
#[test]
fn an_answer_may_be_out_before_its_check_and_the_command_says_what_came_of_it() {
    let place = Place::new();
    let honest = place.node("honest", &["provide"]);
    let reach =
        ["--loopback", "--peer", &honest.address, "--max-tokens", "4", "--mode", "fraud_proof"];
    let full = [&["ask", QUESTION, "--verify", "full"], &reach[..]].concat();
    let asked = place.run("alone", &full);
    assert!(asked.stderr.contains("a full audit of it is under way"), "{asked:?}");
    let said = asked.fine();
    assert!(said.contains("receipt checked; a full audit follows"), "{said}");
    assert!(said.contains("checked · audited by this node: every position holds"), "{said}");
    let receipt = [&["ask", QUESTION, "--verify", "receipt", "--json"], &reach[..]].concat();
    let answer = place.run("alone", &receipt).json();
    assert!(answer["check"].is_null(), "nothing follows: {answer}");
    let zk = place.run("alone", &["ask", QUESTION, "--mode", "zk_snark"]);
    assert!(zk.code == Some(2) && zk.stderr.contains("zk_snark is not offered"), "{zk:?}");

    let cheat = place.node("cheat", &["provide", "--cheat", "skip-layers"]);
    let reach = ["--loopback", "--peer", &cheat.address, "--max-tokens", "4", "--json"];
    let set = ["--set", "ask.mode=fraud_proof", "--set", "ask.level=full"];
    let asked = place.run("victim", &[&["ask", QUESTION], &reach[..], &set[..]].concat());
    assert_eq!(asked.code, Some(1), "{asked:?}");
    let answer: Value = serde_json::from_str(&asked.stdout).unwrap_or_else(|_| panic!("{asked:?}"));
    assert_eq!(answer["check"]["state"], "refuted", "{answer}");
    assert_eq!(answer["outcome"]["verification"]["pending"], json!(true));
    assert!(asked.stderr.contains("the answer above is WRONG"), "{asked:?}");
    assert!(asked.stderr.contains(&cheat.peer), "{asked:?}");
    proves(&place, Path::new(answer["check"]["file"].as_str().unwrap()), &cheat);
}

/// Whoever leaves before the check is done is told where the papers are, and they are judged.
#[test]
fn who_leaves_before_the_check_keeps_the_papers() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let mut command = place.command("alone");
    command.args(["ask", LONG, "--text", "--verify", "full", "--mode", "fraud_proof"]);
    command.args(["--loopback", "--peer", &provider.address, "--max-tokens", "300"]);
    command.args(["--set", "provide.threads=1"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let errors = lines(child.stderr.take().unwrap());
    let heard = |wanted: &str| {
        let line = errors.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|_| panic!("expected {wanted:?}"));
        assert!(line.contains(wanted), "{line}");
        line
    };
    heard("a full audit of it is under way");
    let file = heard("its papers are in ");
    let file = file.split("in ").nth(1).unwrap().split(" until").next().unwrap().to_owned();
    signal(child.id(), "INT");
    assert_eq!(wait(&mut child), Some(130));
    let said = errors.iter().collect::<Vec<_>>().join("\n");
    assert!(said.contains("NOT CHECKED") && said.contains(&format!("verify {file}")), "{said}");
    let judged = place.run("alone", &["verify", &file]).fine();
    assert!(judged.contains("HOLDS") && judged.contains(&provider.peer), "{judged}");
}
