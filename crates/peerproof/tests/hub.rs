//! Pulling from a model hub, against a server on this machine that misbehaves on request.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use peerproof::models::{ModelError, Progress, Source, Stage, Store};
use sha2::{Digest, Sha256};

/// What the server does; its log of requests is `METHOD PATH RANGE`.
#[derive(Clone, Default)]
struct Behaviour {
    body: Vec<u8>,
    announced_sha256: Option<String>,
    /// Bytes after which the connection is cut.
    cut_after: Option<usize>,
    status: Option<u16>,
    ignore_range: bool,
    /// Status of requests for the bytes alone.
    file_status: Option<u16>,
    /// Says nothing more, after what it sends, as long as this is held.
    silent: Option<Arc<Mutex<()>>>,
    /// Serves the file itself, under this tag, and says neither digest nor size.
    direct: Option<&'static str>,
}

struct Hub {
    url: String,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<Mutex<Vec<String>>>,
}

fn hub(behaviour: Behaviour) -> Hub {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let behaviour = Arc::new(Mutex::new(behaviour));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (shared, log) = (Arc::clone(&behaviour), Arc::clone(&requests));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let behaviour = shared.lock().unwrap().clone();
            serve(stream.unwrap(), &behaviour, &log);
        }
    });
    Hub { url, behaviour, requests }
}

fn serve(mut stream: TcpStream, behaviour: &Behaviour, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let (mut range, mut if_range) = (None, None);
    for line in lines.map(Result::unwrap).take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(from) = line.strip_prefix("range: bytes=") {
            range = Some(from.trim_end_matches('-').parse::<usize>().unwrap());
        }
        if let Some(tag) = line.strip_prefix("if-range: ") {
            if_range = Some(tag.to_owned());
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    log.lock().unwrap().push(format!("{method} {path} {range:?}"));
    if let Some(status) = behaviour.status {
        say(
            &mut stream,
            &format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        );
        return;
    }
    if let Some(tag) = behaviour.direct.filter(|_| method == "HEAD") {
        say(
            &mut stream,
            &format!("HTTP/1.1 200 OK\r\netag: \"{tag}\"\r\nconnection: close\r\n\r\n"),
        );
        return;
    }
    if method == "HEAD" || behaviour.direct.is_none() && !path.starts_with("/cdn") {
        let sha256 = behaviour.announced_sha256.clone().unwrap_or_else(|| sha256(&behaviour.body));
        say(
            &mut stream,
            &format!(
                "HTTP/1.1 302 Found\r\nlocation: /cdn{path}\r\nx-linked-etag: \"{sha256}\"\r\nx-linked-size: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                behaviour.body.len()
            ),
        );
        return;
    }
    let etag = format!("\"{}\"", sha256(&behaviour.body));
    let changed = if_range.is_some_and(|tag| tag != etag);
    let range = range.filter(|_| !behaviour.ignore_range && !changed);
    let refused = range.filter(|from| *from >= behaviour.body.len()).map(|_| 416);
    if let Some(status) = behaviour.file_status.or(refused) {
        say(
            &mut stream,
            &format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        );
        return;
    }
    let rest = &behaviour.body[range.unwrap_or(0)..];
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    say(
        &mut stream,
        &format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: {etag}\r\nconnection: close\r\n\r\n",
            rest.len()
        ),
    );
    let sent = &rest[..behaviour.cut_after.unwrap_or(rest.len()).min(rest.len())];
    let _ = stream.write_all(sent);
    if let Some(silent) = &behaviour.silent {
        drop(silent.lock().unwrap());
    }
}

/// In one piece, to a client that may have left: it follows a redirect before its head ends.
fn say(stream: &mut TcpStream, head: &str) {
    let _ = stream.write_all(head.as_bytes());
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A model file without keys or tensors, and bytes that belong to none.
fn body() -> Vec<u8> {
    let rest = (0..700_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    b"GGUF\x03\0\0\0".iter().copied().chain([0; 16]).chain(rest).collect()
}

/// As long, and different everywhere behind the header.
fn other_body() -> Vec<u8> {
    body().iter().enumerate().map(|(at, byte)| if at < 24 { *byte } else { !byte }).collect()
}

fn pull(hub: &Hub, store: &Store) -> Result<peerproof::models::Installed, ModelError> {
    let source: Source = "hub:owner/repo/sub/file.gguf@v2".parse().unwrap();
    assert!(hub.url.starts_with("http://127.0.0.1:"));
    store.pull(&source, None, None, &mut |_| ControlFlow::Continue(()))
}

fn store(hub: &Hub) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().to_owned(), &hub.url);
    (dir, store)
}

#[test]
fn a_file_arrives_whole_through_the_redirect() {
    let hub = hub(Behaviour { body: body(), ..Behaviour::default() });
    let (_dir, store) = store(&hub);
    let model = pull(&hub, &store).unwrap();
    assert_eq!(model.name, "file");
    assert_eq!(model.id, blake3::hash(&body()).to_hex().as_str());
    assert_eq!(std::fs::read(&model.path).unwrap(), body());
    let asked = hub.requests.lock().unwrap().clone();
    assert_eq!(asked[0], "HEAD /owner/repo/resolve/v2/sub/file.gguf None");
}

#[test]
fn a_cut_download_continues_where_it_stopped() {
    let hub = hub(Behaviour { body: body(), cut_after: Some(300_000), ..Behaviour::default() });
    let (_dir, store) = store(&hub);
    assert!(pull(&hub, &store).is_err());
    assert!(store.list().unwrap().is_empty(), "half a file has no name");
    hub.behaviour.lock().unwrap().cut_after = None;
    hub.requests.lock().unwrap().clear();
    let model = pull(&hub, &store).unwrap();
    assert_eq!(std::fs::read(&model.path).unwrap(), body());
    let asked = hub.requests.lock().unwrap().clone();
    let resumed = asked.last().unwrap().rsplit(' ').next().unwrap();
    assert_ne!(resumed, "None", "the second pull starts over: {asked:?}");
}

#[test]
fn another_file_of_the_same_name_is_not_glued_to_the_first() {
    let hub = hub(Behaviour { body: body(), cut_after: Some(300_000), ..Behaviour::default() });
    let (_dir, store) = store(&hub);
    assert!(pull(&hub, &store).is_err());
    let other = other_body();
    *hub.behaviour.lock().unwrap() = Behaviour { body: other.clone(), ..Behaviour::default() };
    assert_eq!(std::fs::read(pull(&hub, &store).unwrap().path).unwrap(), other);
}

#[test]
fn another_file_that_failed_at_first_is_not_glued_either() {
    let hub = hub(Behaviour { body: body(), cut_after: Some(300_000), ..Behaviour::default() });
    let (_dir, store) = store(&hub);
    assert!(pull(&hub, &store).is_err());
    let other = other_body();
    *hub.behaviour.lock().unwrap() =
        Behaviour { body: other.clone(), file_status: Some(500), ..Behaviour::default() };
    assert!(pull(&hub, &store).is_err(), "its tag is known, its bytes are not");
    hub.behaviour.lock().unwrap().file_status = None;
    assert_eq!(std::fs::read(pull(&hub, &store).unwrap().path).unwrap(), other);
}

#[test]
fn a_file_that_changes_under_its_tag_is_not_glued() {
    let direct = Some("old");
    let hub =
        hub(Behaviour { body: body(), cut_after: Some(300_000), direct, ..Behaviour::default() });
    let (_dir, store) = store(&hub);
    assert!(pull(&hub, &store).is_err());
    *hub.behaviour.lock().unwrap() =
        Behaviour { body: other_body(), direct, ..Behaviour::default() };
    assert_eq!(std::fs::read(pull(&hub, &store).unwrap().path).unwrap(), other_body());
    assert!(hub.requests.lock().unwrap().last().unwrap().contains("Some("), "a range was tried");
}

#[test]
fn a_whole_part_of_unknown_size_is_fetched_again_once() {
    let hub = hub(Behaviour { body: body(), direct: Some("t"), ..Behaviour::default() });
    let (_dir, store) = store(&hub);
    let source: Source = "hub:owner/repo/sub/file.gguf@v2".parse().unwrap();
    let stopped = store.pull(&source, None, None, &mut |p: Progress| {
        if p.stage == Stage::Hashing { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(ModelError::Cancelled)));
    hub.requests.lock().unwrap().clear();
    assert_eq!(std::fs::read(pull(&hub, &store).unwrap().path).unwrap(), body());
    let asked = hub.requests.lock().unwrap().clone();
    assert!(
        asked.len() == 3 && asked[1].contains("Some(") && asked[2].ends_with("None"),
        "{asked:?}"
    );
}

#[test]
fn a_server_without_ranges_starts_over() {
    let hub = hub(Behaviour { body: body(), cut_after: Some(300_000), ..Behaviour::default() });
    let (_dir, store) = store(&hub);
    assert!(pull(&hub, &store).is_err());
    {
        let mut behaviour = hub.behaviour.lock().unwrap();
        behaviour.cut_after = None;
        behaviour.ignore_range = true;
    }
    assert_eq!(std::fs::read(pull(&hub, &store).unwrap().path).unwrap(), body());
}

#[test]
fn a_wrong_digest_is_refused_and_discarded() {
    let announced_sha256 = Some(sha256(b"something else"));
    let hub = hub(Behaviour { body: body(), announced_sha256, ..Behaviour::default() });
    let (dir, store) = store(&hub);
    let error = pull(&hub, &store).unwrap_err();
    assert!(matches!(error, ModelError::WrongDigest { algorithm: "SHA-256", .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn refusals_say_why() {
    for (status, expected) in
        [(404, "no such repository"), (401, "needs a login"), (500, "status 500")]
    {
        let hub = hub(Behaviour { status: Some(status), ..Behaviour::default() });
        let (_dir, store) = store(&hub);
        let error = pull(&hub, &store).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_hub_that_is_not_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().to_owned(), &url);
    let source: Source = "hub:o/r/f.gguf".parse().unwrap();
    let error = store.pull(&source, None, None, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().starts_with(&url), "{error}");
}

#[test]
fn stopping_keeps_what_arrived() {
    let hub = hub(Behaviour { body: body(), ..Behaviour::default() });
    let (_dir, store) = store(&hub);
    let source: Source = "hub:owner/repo/sub/file.gguf@v2".parse().unwrap();
    let mut stop_late = |p: Progress| {
        if p.stage == Stage::Fetching && p.done > 200_000 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let stopped = store.pull(&source, None, None, &mut stop_late);
    assert!(matches!(stopped, Err(ModelError::Cancelled)));
    pull(&hub, &store).unwrap();
    assert!(hub.requests.lock().unwrap().last().unwrap().contains("Some("));
}

#[test]
fn a_silent_server_can_be_left_and_what_arrived_stays() {
    let silence = Arc::new(Mutex::new(()));
    let held = silence.lock().unwrap();
    let cut_after = Some(300_000);
    let silent = Some(Arc::clone(&silence));
    let hub = hub(Behaviour { body: body(), cut_after, silent, ..Behaviour::default() });
    let (dir, store) = store(&hub);
    let source: Source = "hub:owner/repo/sub/file.gguf@v2".parse().unwrap();
    let mut reports = Vec::new();
    let mut stop_in_silence = |p: Progress| {
        reports.push(p.done);
        match reports[..] {
            [.., a, b] if a == b => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    let stopped = store.pull(&source, None, None, &mut stop_in_silence);
    assert!(matches!(stopped, Err(ModelError::Cancelled)));
    let part = std::fs::metadata(dir.path().join("file.gguf.part")).unwrap();
    assert_eq!(part.len(), 300_000);
    *hub.behaviour.lock().unwrap() = Behaviour { body: body(), ..Behaviour::default() };
    drop(held);
    pull(&hub, &store).unwrap();
    assert!(hub.requests.lock().unwrap().last().unwrap().ends_with("Some(300000)"));
}
