//! `rep`: with a running node and without one, and what a stranger can check.

use serde_json::{Value, json};

use crate::support::{Node, Place, only, until};

const QUESTION: &str = "What is the capital of France?";

fn row(place: &Place, peer: &str) -> Value {
    let all = place.run("router", &["rep", "show", "--json"]).json();
    let found = all.as_array().expect("a list").iter().find(|row| row["peer"] == peer);
    found.cloned().unwrap_or_else(|| panic!("{peer} is not in {all}"))
}

fn ask(router: &Node, provider: &Node) -> (u16, Value) {
    let level = json!({ "verification": { "level": "full" }, "provider": only(&[provider]) });
    router.try_ask(QUESTION, level)
}

#[test]
fn scores_are_shown_explained_overruled_and_told() {
    let place = Place::new();
    let honest = place.node("honest", &["provide"]);
    let cheating = ["provide", "--peer", &honest.address, "--cheat", "skip-layers"];
    let cheat = place.node("cheat", &cheating);
    let router = place.router(&honest, &[]);
    router.finds(&[&honest, &cheat]);
    assert_eq!(ask(&router, &honest).0, 200);
    assert_ne!(ask(&router, &cheat).0, 200, "a wrong answer is refused");

    let known = row(&place, &honest.peer);
    assert_eq!((&known["audits"], &known["group"]), (&json!(1), &json!("local")), "{known}");
    let score = known["score"].as_u64().expect("a score");
    assert!(score > 700, "{known}");
    let told = row(&place, &cheat.peer)["barred"].clone();
    assert!(told.as_str().is_some_and(|why| why.starts_with("wrong-answer")), "{told}");
    let short = &honest.peer[honest.peer.len() - 8..];
    let text = place.run("router", &["rep", "explain", short]).fine();
    let sum = format!("score {score} = 1000 x");
    for part in ["#0", "audited here", "good 9", &sum, "half of all cheats"] {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }

    // The user's word, by the running node.
    let said = place.run("router", &["rep", "block", &honest.peer, "--reason", "slow"]).fine();
    assert!(said.contains("blocked by the user: slow"), "{said}");
    assert_ne!(ask(&router, &honest).0, 200, "a blocked provider is not asked");
    let peers = place.run("router", &["peers", "--json"]).json();
    let shown = peers.as_array().expect("a list").iter().find(|peer| peer["peer"] == honest.peer);
    let reasons = shown.map(|peer| peer["record"]["reasons"].to_string()).unwrap_or_default();
    assert!(reasons.contains("barred (blocked by the user: slow)"), "{peers}");

    // And without one.
    router.stop();
    let said = place.run("router", &["rep", "unblock", short, "--json"]).json();
    assert_eq!(
        (&said["record"]["barred"], &said["record"]["score"]),
        (&json!(null), &json!(score))
    );
    let lines = place.run("router", &["rep", "explain", &honest.peer, "--json"]).json();
    let texts: Vec<&str> = lines["entries"]
        .as_array()
        .expect("lines")
        .iter()
        .filter_map(|l| l["text"].as_str())
        .collect();
    assert!(texts.contains(&"blocked: slow"), "{texts:?}");
    let found = place.run("router", &["rep", "recheck", &cheat.peer, "--json"]).json();
    assert_eq!(found["confirmed"].as_array().map(Vec::len), Some(1), "{found}");

    // A stranger checks the file with nothing else than the model.
    let file = place.path("told.evidence").display().to_string();
    place.run("router", &["rep", "export", &cheat.peer, "--out", &file]).fine();
    let judged = place.run("stranger", &["verify", &file, "--json"]).json();
    assert_eq!((&judged["accused"], &judged["proven"]), (&json!(cheat.peer), &json!(true)));
    place
        .run("router", &["rep", "export", &honest.peer, "--out", &file])
        .refused(&["holds no evidence about", &honest.peer]);
    place.run("router", &["rep", "block", "nobody"]).refused(&["is no peer id", "rep show"]);
    let router = place.router(&honest, &[]);
    until("the unblocked provider answers", || (ask(&router, &honest).0 == 200).then_some(()));
}
