//! A router that knows one peer finds the others.

use serde_json::json;

use crate::support::{Place, model_file, only, text};

const QUESTION: &str = "What is the capital of France?";

#[test]
fn providers_are_found_by_name_and_by_id_also_when_they_come_later() {
    let place = Place::new();
    // The only address that anybody is told; it serves nothing.
    let meeting_point = place.node("auditor", &["audit"]);
    let empty = place.path("empty").display().to_string();
    let router = place.router(&meeting_point, &["--cache", &empty]);
    assert_eq!(router.json("/peerproof/models"), json!([]), "nobody serves anything yet");
    let (status, refused) = router.try_ask(QUESTION, json!({}));
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("no_provider")), "{refused}");

    // A name that only its provider knows.
    let file = place.path("atlas.gguf");
    std::os::unix::fs::symlink(model_file(), &file).unwrap();
    let file = file.to_str().unwrap();
    let first = ["provide", "--peer", &meeting_point.address, "--model", file];
    let first = place.node("first", &first);
    router.finds(&[&first]);
    let by_name = router.ask(QUESTION, json!({ "model": "atlas" }));
    assert!(text(&by_name).contains("Paris"), "{by_name}");
    assert_eq!(by_name["peerproof"]["provider"], json!(first.peer));
    let id = by_name["peerproof"]["model_id"].as_str().unwrap();

    let later = place.node("later", &["provide", "--peer", &meeting_point.address]);
    router.finds(&[&later]);
    let by_id = router.ask(QUESTION, json!({ "model": id, "provider": only(&[&later]) }));
    assert_eq!(text(&by_id), text(&by_name));
    assert_eq!(by_id["peerproof"]["provider"], json!(later.peer));
    let models = router.json("/peerproof/models");
    assert_eq!(models[0]["providers"].as_array().unwrap().len(), 2, "{models}");

    // A router that starts now and searches, without having looked around.
    let hurried = place.run(
        "hurried",
        &[
            "ask",
            QUESTION,
            "--loopback",
            "--peer",
            &meeting_point.address,
            "--provider",
            &later.peer,
            "--max-tokens",
            "4",
            "--json",
        ],
    );
    assert_eq!(hurried.json()["outcome"]["provider"], json!(later.peer));
}
