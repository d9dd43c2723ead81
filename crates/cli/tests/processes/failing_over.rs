//! Providers that die, freeze or are no longer wanted in the middle of an answer.

use serde_json::{Value, json};

use crate::support::{LONG, Node, Place, Stream, text, until};

const MAX_TOKENS: u32 = 200;

/// Asks one provider first, breaks it after so many pieces, and reads the answer to its end.
fn broken_after(
    pieces: usize,
    router: &Node,
    first: &Node,
    break_it: impl FnOnce(),
) -> (Stream, Value) {
    let mut stream = router.stream(LONG, preferring(first));
    stream.pieces(pieces);
    break_it();
    let end = stream.end();
    (stream, end)
}

fn preferring(first: &Node) -> Value {
    json!({
        "max_tokens": MAX_TOKENS,
        "provider": { "order": [first.peer] },
        "verification": { "level": "full" },
        "stream_options": { "include_usage": true },
    })
}

#[track_caller]
fn continued(stream: &Stream, end: &Value, expected: &str, left: &Node) {
    assert_eq!(stream.text, expected, "{end}");
    let about = &end["peerproof"];
    assert_eq!(about["output_tokens"], json!(MAX_TOKENS), "{end}");
    assert_ne!(about["provider"], json!(left.peer), "{end}");
    assert!(about["trail"].to_string().contains(&left.peer), "{end}");
    assert_eq!(about["verification"]["audited"], json!(true), "{end}");
}

#[test]
fn an_answer_goes_on_elsewhere_with_the_identical_next_token() {
    let place = Place::new();
    let steady = place.node("steady", &["provide"]);
    let provide = ["provide", "--peer", &steady.address];
    let killed = place.node("killed", &provide);
    let frozen = place.node("frozen", &provide);
    let router = place.router(&steady, &[]);
    router.finds(&[&steady, &frozen, &killed]);

    let undisturbed = router.ask(LONG, preferring(&steady));
    let expected = text(&undisturbed);
    assert_eq!(undisturbed["usage"]["completion_tokens"], json!(MAX_TOKENS));
    assert_eq!(undisturbed["peerproof"]["trail"], json!([]));

    let (stream, end) = broken_after(1, &router, &frozen, || frozen.signal("STOP"));
    continued(&stream, &end, expected, &frozen);
    frozen.signal("CONT");

    let (stream, end) = broken_after(120, &router, &killed, || killed.signal("KILL"));
    continued(&stream, &end, expected, &killed);

    // Two in one answer: the second one too leaves in the middle.
    let killed = place.node("killed again", &provide);
    router.finds(&[&killed]);
    let mut more = preferring(&killed);
    more["provider"] = json!({ "order": [killed.peer, frozen.peer] });
    let mut stream = router.stream(LONG, more);
    stream.pieces(30);
    killed.signal("KILL");
    stream.pieces(60);
    frozen.signal("STOP");
    let end = stream.end();
    continued(&stream, &end, expected, &killed);
    continued(&stream, &end, expected, &frozen);
}

#[test]
fn closing_the_connection_stops_the_provider() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let router = place.router(&provider, &[]);
    router.finds(&[&provider]);
    let active = || provider.json("/peerproof/status")["active_jobs"].as_u64().unwrap();
    // An answer so long that it can't have ended by itself when the provider is seen idle.
    let more = json!({ "max_tokens": 1900, "verification": { "level": "receipt" } });
    let mut stream = router.stream(LONG, more);
    stream.pieces(3);
    assert_eq!(active(), 1);
    drop(stream);
    until("the provider stops computing", || (active() == 0).then_some(()));
    // A receipt would say that the answer ran to its end.
    let log = place.run("provider", &["log", "show", "--json"]).fine();
    assert!(log.lines().all(|line| line.contains("\"output_tokens\":1,")), "{log}");
    assert_eq!(router.json("/peerproof/status")["asking"], json!(0));
}
