//! What is typed by hand: every command that needs no second machine.

use serde_json::{Value, json};

use crate::support::{MODEL, Place, model_file, run_with_input, until};

#[test]
fn keys_are_shown_and_replaced() {
    let place = Place::new();
    let shown = place.run("home", &["keys", "show", "--json"]).json();
    let file = shown["file"].as_str().unwrap().to_owned();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(place.run("home", &["keys", "show", "--json"]).json(), shown, "the key stays");
    let rotated = place.run("home", &["keys", "rotate", "--json"]).json();
    assert_eq!(rotated["old"], shown["peer"]);
    assert_ne!(rotated["new"], shown["peer"]);
    assert_eq!(place.run("home", &["keys", "show", "--json"]).json()["peer"], rotated["new"]);
    let said = place.run("home", &["keys", "show"]).fine();
    assert!(said.contains(rotated["new"].as_str().unwrap()) && said.contains(&file), "{said}");
}

#[test]
fn models_are_pulled_listed_shown_checked_and_removed() {
    let place = Place::new();
    let cache = place.path("other").display().to_string();
    let models = |arguments: &[&str]| {
        place.run("home", &[&["--cache", &cache, "models"], arguments].concat())
    };
    assert_eq!(models(&["ls", "--json"]).json(), json!([]));
    let hint = models(&["ls"]).fine();
    assert!(hint.contains("peerproof models pull"), "{hint}");
    let file = model_file().display().to_string();
    let pulled = models(&["pull", &file, "--name", "mine"]).fine();
    let listed = models(&["ls", "--json"]).json();
    let id = listed[0]["id"].as_str().unwrap();
    assert!(pulled.contains(id) && listed[0]["name"] == json!("mine"), "{pulled} {listed}");
    let card = models(&["show", "mine", "--json"]).json();
    assert_eq!((card["id"].as_str(), card["architecture"].as_str()), (Some(id), Some("llama")));
    assert_eq!(models(&["show", &id[..8], "--json"]).json(), card);
    assert!(models(&["verify"]).fine().contains("is intact"));
    models(&["show", "yours"]).refused(&["yours", "mine", "peerproof models pull"]);
    models(&["pull", "nothing-known"]).refused(&["nothing-known", MODEL, "hub:"]);
    let wrong = "00".repeat(32);
    let named = ["pull", &file, "--name", "wrong", "--id", &wrong];
    models(&named).refused(&["expected BLAKE3 0000", id]);
    // One byte of the copy changes.
    let copy = place.path("other/models/mine.gguf");
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, bytes).unwrap();
    models(&["verify", "mine"]).refused(&["mine", id]);
    assert!(models(&["rm", "mine"]).fine().contains("removed mine"));
    assert_eq!(models(&["ls", "--json"]).json(), json!([]));
    assert!(!copy.exists());
}

#[test]
fn up_serves_the_default_model_alone() {
    let place = Place::new();
    let file = place.path("cache/models/another.gguf");
    std::os::unix::fs::symlink(model_file(), file).unwrap();
    let node = place.node("home", &["up"]);
    assert_eq!(node.json("/peerproof/status")["serves"], json!([MODEL]));
    let said = until("it says what it does not serve", || {
        let said = node.errors();
        (!said.is_empty()).then_some(said)
    });
    assert!(said.contains("not served: another") && said.contains("--model NAME"), "{said}");
}

#[test]
fn two_questions_at_once_in_one_home_are_both_answered() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let question = ["ask", "What is the capital of France?", "--max-tokens", "4", "--json"];
    let reach = ["--loopback", "--peer", &provider.address];
    let all = [&question[..], &reach].concat();
    std::thread::scope(|scope| {
        let asked = [(); 2].map(|()| scope.spawn(|| place.run("home", &all)));
        for ended in asked {
            assert!(ended.join().unwrap().json()["outcome"].is_object());
        }
    });
    log_holds(&place, "home", "answer", 2);
}

#[test]
fn the_configuration_is_shown_and_checked() {
    let place = Place::new();
    let fine = place.run("home", &["config", "check"]).fine();
    assert!(fine.contains("defaults are fine"), "{fine}");
    let shown = place.run("home", &["--set", "network.port=4001", "config", "show"]).fine();
    assert!(shown.contains("[network]\nport = 4001"), "{shown}");
    let file = place.run("home", &["config", "path"]).fine();
    std::fs::create_dir_all(place.path("home")).unwrap();
    std::fs::write(file.trim(), "version = 1\n[network]\nprot = 4001\n").unwrap();
    let check = place.run("home", &["config", "check"]);
    check.refused(&["unknown setting `network.prot`", "did you mean `network.port`?", file.trim()]);
    std::fs::write(file.trim(), "version = 1\n[network]\nport = 70000\n").unwrap();
    place.run("home", &["config", "check"]).refused(&["70000"]);
    std::fs::write(file.trim(), "version = 1\n[network\n").unwrap();
    place.run("home", &["config", "check"]).refused(&[file.trim(), "line 2"]);
    std::fs::write(file.trim(), shown).unwrap();
    let back = place.run("home", &["config", "show"]).fine();
    assert!(back.contains("port = 4001"), "what `config show` prints can be read back: {back}");
}

#[test]
fn completions_know_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run("home", &["completions", shell]).fine();
        assert!(script.contains("provide") && script.contains("doctor"), "{shell}");
    }
}

#[test]
fn a_running_node_is_asked_and_described_and_its_log_holds() {
    let place = Place::new();
    for command in [["status"], ["peers"]] {
        place.run("router", &command).refused(&["no node is running", "peerproof up"]);
    }
    let provider = place.node("provider", &["provide"]);
    let reach = ["--loopback", "--peer", &provider.address];

    let looked = place.run("own", &[&["doctor"], &reach[..]].concat()).fine();
    assert!(looked.contains(&format!("{MODEL} is served")), "{looked}");
    let alone = place.run("own", &["--kernels", "portable", "doctor", "--loopback", "--json"]);
    assert_eq!(alone.code, Some(1), "{alone:?}");
    let said: Value = serde_json::from_str(&alone.stdout).unwrap();
    assert_eq!(said["found"], json!(false));
    assert!(said["findings"].to_string().contains("--peer"), "{said}");
    assert!(said["findings"].to_string().contains("portable kernels"), "{said}");

    // Without a running node, one is made for the question.
    let question = ["ask", "What is the capital of France?", "--verify", "full"];
    let own = place.run("own", &[&question[..], &["--json"], &reach].concat()).json();
    assert!(own["text"].as_str().unwrap().contains("Paris"), "{own}");
    assert_eq!(own["outcome"]["verification"]["audited"], json!(true));
    let text = place.run("own", &[&question[..], &reach].concat()).fine();
    assert!(text.contains("Paris") && text.contains("audited by this node"), "{text}");

    sampled_answers_are_reproducible_and_reported(&place, &reach);

    // With one, it is asked, and the network's flags would be ignored: they are refused.
    let router = place.router(&provider, &[]);
    let through = place.run("router", &[&question[..], &["--json"]].concat()).json();
    assert_eq!(through["text"], own["text"]);
    place.run("router", &[&question[..], &reach].concat()).refused(&["--peer", "--home"]);
    let mut piped = place.command("router");
    piped.args(["ask", "-"]);
    let piped = run_with_input(piped, "What is the capital of France?");
    assert!(String::from_utf8_lossy(&piped.stdout).contains("Paris"), "{piped:?}");

    let peers = place.run("router", &["peers", "--json"]).json();
    let found = peers.as_array().unwrap().iter().find(|p| p["peer"] == json!(provider.peer));
    assert!(
        found
            .is_some_and(|p| p["serves"] == json!([MODEL]) && p["reputation"].as_u64() > Some(500)),
        "{peers}"
    );
    let listed = place.run("router", &["peers"]).fine();
    assert!(listed.contains(MODEL), "{listed}");
    let status = place.run("router", &["status", "--json"]).json();
    assert_eq!(status["roles"], json!(["router"]));
    assert_eq!(status["log_entries"], json!(2));
    assert!(place.run("provider", &["status"]).fine().contains(&provider.address));

    // Two alone, four sampled, two through the router.
    log_holds(&place, "provider", "receipt", 8);
    log_holds(&place, "router", "answer", 2);
    assert_eq!(router.stop(), Some(0));
    place.run("router", &["status"]).refused(&["no node is running"]);
    log_holds(&place, "router", "answer", 2);
}

fn sampled_answers_are_reproducible_and_reported(place: &Place, reach: &[&str]) {
    let sampled = [
        "ask",
        "What is the capital of France?",
        "--json",
        "--n",
        "2",
        "--seed",
        "5",
        "--temperature",
        "1",
        "--min-p",
        "0.05",
        "--frequency-penalty",
        "0.5",
        "--repetition-penalty",
        "1.1",
        "--logprobs=2",
        "--max-tokens",
        "6",
        "--verify",
        "full",
    ];
    let sampled = [&sampled[..], reach].concat();
    let first: Value = place.run("own", &sampled).json();
    let again: Value = place.run("own", &sampled).json();
    for index in 0..2 {
        assert_eq!(first[index]["text"], again[index]["text"], "a seed gives the same answers");
        let tokens = first[index]["logprobs"].as_array().map_or(0, Vec::len);
        assert_eq!(first[index]["outcome"]["output_tokens"], tokens, "one report a token");
        assert_eq!(first[index]["outcome"]["verification"]["audited"], true);
        assert_eq!(first[index]["logprobs"][0]["top_logprobs"].as_array().map_or(0, Vec::len), 2);
    }
    let receipt = |index: usize| first[index]["outcome"]["receipt_id"].clone();
    assert_ne!(receipt(0), receipt(1), "each answer has a receipt of its own");
}

fn log_holds(place: &Place, home: &str, kind: &str, entries: usize) {
    let shown = place.run(home, &["log", "show", "--json"]).fine();
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["kind"] == json!(kind)).count(), entries, "{shown}");
    let verified = place.run(home, &["log", "verify", "--json"]).json();
    assert_eq!(
        (verified["entries"].as_u64(), &verified["fault"]),
        (Some(entries as u64), &Value::Null)
    );
    assert_eq!(place.run(home, &["log", "show", "--last", "1"]).fine().lines().count(), 1);
}
