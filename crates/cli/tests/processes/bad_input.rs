//! What is wrong with requests, files, ports and disks, and that it is said in a sentence.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{MODEL, Node, Place, model_file, only, run, text, until};

const QUESTION: &str = "What is the capital of France?";

#[test]
fn a_wrong_request_is_refused_with_its_reason_and_the_node_goes_on() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let router = place.router(&provider, &[]);
    router.finds(&[&provider]);

    let code = |(status, body): (u16, Value)| {
        let error = &body["error"];
        let word = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (status, word("code"), word("message"))
    };
    let (status, said, message) = code(router.try_ask(QUESTION, json!({ "model": "unheard-of" })));
    assert_eq!((status, &*said), (404, "model_not_found"), "{message}");
    assert!(message.contains("unheard-of") && message.contains(MODEL), "{message}");

    let (status, said, message) = code(router.try_ask(&"word ".repeat(9000), json!({})));
    assert_eq!((status, &*said), (400, "context_length_exceeded"), "{message}");
    assert!(message.contains("maximum context length is"), "{message}");
    let (status, said, message) = code(router.try_ask(QUESTION, json!({ "max_tokens": 60_000 })));
    assert_eq!((status, &*said), (400, "context_length_exceeded"), "{message}");

    let empty = json!({ "model": MODEL, "prompt": "", "max_tokens": 4 });
    let (status, said, message) =
        code(router.post("/v1/completions", empty.to_string().as_bytes()));
    assert_eq!((status, &*said), (400, "invalid_value"), "{message}");
    let (status, _, message) = code(router.try_ask(QUESTION, json!({ "messages": [] })));
    assert_eq!(status, 400, "{message}");

    let invalid =
        b"{\"model\":\"smollm2-135m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}";
    let (status, said, message) = code(router.post("/v1/chat/completions", invalid));
    assert_eq!((status, &*said), (400, "invalid_json"), "{message}");
    let (status, said, message) = code(router.post("/v1/chat/completions", b"{\"model\":"));
    assert_eq!((status, &*said), (400, "invalid_json"), "{message}");

    let answer = router.ask(QUESTION, json!({}));
    assert!(text(&answer).contains("Paris"), "{answer}");
    assert_eq!(provider.errors(), "", "the provider complains about nothing");
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let api = refused_start(&place, "api", &["route", "--api", &address]);
    assert!(api.contains(&address) && api.contains("another port with --api"), "{api}");

    let port = taken.local_addr().unwrap().port();
    let _udp = UdpSocket::bind(("127.0.0.1", port));
    let port = port.to_string();
    let peers = refused_start(&place, "port", &["provide", "--port", &port]);
    assert!(peers.contains(&port) && peers.contains("port"), "{peers}");
}

/// A node that must not start: its error.
#[track_caller]
fn refused_start(place: &Place, home: &str, arguments: &[&str]) -> String {
    match place.try_node(home, arguments) {
        Ok(_) => panic!("it started"),
        Err(ended) => ended.refused(&["error: "]),
    }
}

#[test]
fn folders_that_cannot_be_written_are_named() {
    let place = Place::new();
    // Below a file nobody can make a folder, not even root.
    fs::write(place.path("file"), "").unwrap();
    let below = place.path("file/below").display().to_string();
    let home = refused_start(&place, "unused", &["route", "--home", &below]);
    assert!(home.contains(&below), "{home}");
    let file = model_file().display().to_string();
    let pull = place.run("home", &["models", "pull", &file, "--name", "mine", "--cache", &below]);
    pull.refused(&[&below]);
    let asked = place.run("unused", &["ask", QUESTION, "--loopback", "--home", &below]);
    asked.refused(&[&below]);
    let evidence = place.path("missing.evidence").display().to_string();
    place.run("home", &["verify", &evidence]).refused(&[&evidence]);
}

#[test]
fn a_question_that_fails_says_so_once() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let peer = &provider.address;
    let ask = ["ask", QUESTION, "--loopback", "--peer", peer, "--max-tokens", "60000"];
    let said = place.run("asking", &ask).refused(&["context"]);
    assert_eq!(said.matches("context length").count(), 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn one_home_is_one_node() {
    let place = Place::new();
    let first = place.node("home", &["route"]);
    let second = refused_start(&place, "home", &["route"]);
    assert!(second.contains("another process") || second.contains("running"), "{second}");
    assert_eq!(first.json("/peerproof/status")["roles"], json!(["router"]), "the first goes on");
    assert_eq!(first.stop(), Some(0));
    place.node("home", &["route"]);
}

#[test]
fn what_a_dead_node_left_neither_holds_up_nor_gets_the_key() {
    let place = Place::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    fs::create_dir(place.path("home")).unwrap();
    let key = place.path("key");
    fs::write(&key, "a-key-that-nobody-else-should-see").unwrap();
    let config = format!("version = 1\n[api]\nkey_file = {:?}\n", key.to_str().unwrap());
    fs::write(place.path("home/config.toml"), config).unwrap();
    let publish = |pid: u32| {
        let file = json!({ "url": url, "pid": pid }).to_string();
        fs::write(place.path("home/api.json"), file).unwrap();
    };
    // The process is gone: nothing connects.
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    publish(ended.id());
    place.run("home", &["status"]).refused(&["no node is running"]);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_err(), "a dead node's port was asked");
    // Its number is another process's: it is asked, in vain, and without the key.
    silent.set_nonblocking(false).unwrap();
    publish(std::process::id());
    place.run("home", &["status"]).refused(&["no node is running"]);
    let (mut stream, _) = silent.accept().unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("GET /health") && !said.contains("a-key"), "{said}");
}

#[test]
fn a_model_file_that_lies_is_refused_by_name() {
    let place = Place::new();
    let whole = fs::read(model_file()).unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let file = place.path(name);
        fs::write(&file, bytes).unwrap();
        refused_start(&place, "home", &["provide", "--model", file.to_str().unwrap()])
    };
    let truncated = refused("truncated.gguf", &whole[..whole.len() - 4096]);
    assert!(truncated.contains("tensor") && truncated.contains(".weight"), "{truncated}");
    let short = refused("short.gguf", &whole[..100]);
    assert!(short.contains("short"), "{short}");
    let text = refused("text.gguf", b"this is no model");
    assert!(text.contains("GGUF"), "{text}");
    // The number of tensors follows the magic and the version, that of keys the one of tensors.
    for (name, at) in [("tensors.gguf", 8), ("keys.gguf", 16)] {
        let mut bytes = whole[..1 << 20].to_vec();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let said = refused(name, &bytes);
        assert!(said.contains("18446744073709551615"), "{said}");
    }
    // The type of the first key's value; the key's name is between them.
    let mut bytes = whole[..1 << 20].to_vec();
    let name = u64::from_le_bytes(whole[24..32].try_into().unwrap()) as usize;
    let key = String::from_utf8(whole[32..32 + name].to_vec()).unwrap();
    bytes[32 + name] = 0xee;
    let said = refused("type.gguf", &bytes);
    assert!(said.contains(&key), "{said}");

    // No figures of a file that can't be read.
    let text = place.path("text.gguf");
    let audit = ["audit", "--loopback", "--model", text.to_str().unwrap()];
    let ended = place.run("home", &audit);
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("memory"), "{ended:?}");

    // The header is sound, the scales at the end of the last tensor are undefined.
    let mut bytes = whole;
    let end = bytes.len() - 4096;
    bytes[end..].fill(0xff);
    let file = place.path("undefined.gguf");
    fs::write(&file, bytes).unwrap();
    let pull = place.run("home", &["models", "pull", file.to_str().unwrap()]);
    pull.refused(&["infinite or undefined", "undefined.gguf"]);
}

#[test]
fn a_damaged_log_is_fenced_and_says_so() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let router = place.router(&provider, &[]);
    for _ in 0..3 {
        router.ask(QUESTION, json!({ "max_tokens": 1 }));
    }
    assert_eq!(router.stop(), Some(0));
    assert_eq!(provider.stop(), Some(0));
    assert_eq!(place.run("provider", &["log", "verify"]).code, Some(0));
    let log = largest_file(&place.path("provider/log"));
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let verified = place.run("provider", &["log", "verify"]);
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.stdout.contains("DAMAGED"), "{verified:?}");
    let said = refused_start(&place, "provider", &["provide"]);
    for part in ["damaged", "log verify", "backup", "keys rotate"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(fs::read(&log).unwrap(), bytes, "a damaged log is not touched");
    // The advice works.
    place.run("provider", &["keys", "rotate"]).fine();
    place.node("provider", &["provide"]);
}

fn largest_file(folder: &Path) -> std::path::PathBuf {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.into_iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap()
}

/// A limit on the length of files is a full disk that needs no privileges.
#[test]
fn a_provider_with_a_full_disk_delivers_no_receipt_and_others_answer() {
    let place = Place::new();
    let healthy = place.node("healthy", &["provide"]);
    let full = with_full_disk(&place, &healthy);
    let router = place.router(&healthy, &[]);
    router.finds(&[&healthy]);
    let alone = json!({ "max_tokens": 4, "provider": only(&[&full]) });
    let (status, said) = until("the disk is full", || {
        let (status, body) = router.try_ask(QUESTION, alone.clone());
        (status != 200).then_some((status, body))
    });
    assert!(status >= 500, "{said}");
    // It is noted, and proves nothing: a full disk is no fraud.
    for file in router.evidence() {
        let judged = place.run("judge", &["verify", file.to_str().unwrap()]);
        assert_eq!(judged.code, Some(3), "{judged:?}");
    }
    let peers = router.json("/peerproof/peers");
    let listed = peers.as_array().unwrap().iter().find(|p| p["peer"] == json!(full.peer));
    assert!(listed.is_some_and(|peer| peer["barred"].is_null()), "{peers}");
    let more = json!({ "provider": { "order": [full.peer] } });
    let answer = router.ask(QUESTION, more);
    assert!(text(&answer).contains("Paris"), "{answer}");
    assert_eq!(answer["peerproof"]["provider"], json!(healthy.peer));
    assert_eq!(place.run("full", &["log", "verify"]).code, Some(0), "what was logged holds");
}

#[test]
fn a_model_that_does_not_fit_on_the_disk_is_not_installed() {
    let place = Place::new();
    let cache = place.path("other").display().to_string();
    let file = model_file().display().to_string();
    let mut pull = limited(&place, "home", 1 << 20);
    pull.args(["--cache", &cache, "models", "pull", &file, "--name", "mine"]);
    run(pull).refused(&["mine.gguf.part"]);
    let listed = place.run("home", &["--cache", &cache, "models", "ls", "--json"]).json();
    assert_eq!(listed, json!([]));
}

/// The binary, unable to write files longer than so many bytes.
fn limited(place: &Place, home: &str, bytes: u64) -> Command {
    let inner = place.command(home);
    let mut command = Command::new("prlimit");
    command.arg(format!("--fsize={bytes}:{bytes}"));
    command.args(["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    command.arg(inner.get_program());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn with_full_disk(place: &Place, peer: &Node) -> Node {
    // Some receipts fit.
    let mut command = limited(place, "full", 9000);
    command.args(["provide", "--peer", &peer.address]);
    place.start(command, "full").unwrap_or_else(|ended| panic!("{ended:?}"))
}
