//! What every test here is made of: nodes as processes of the real binary on loopback, in
//! folders that go away, asked over HTTP.
//!
//! Nothing outlives a test: dropping a [`Node`] kills it, stopped or not, and a node ends by
//! itself with this process, since it watches its standard input. Every wait has a deadline.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const MODEL: &str = "smollm2-135m";
/// Anything that should happen, on a slow and busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// A prompt whose greedy answer is longer than 200 tokens.
pub(crate) const LONG: &str = "Write a long story about a dragon who lives in the mountains.";

/// The model from `PEERPROOF_TEST_MODEL`, or from the user's cache.
pub(crate) fn model_file() -> PathBuf {
    let path = std::env::var_os("PEERPROOF_TEST_MODEL").map_or_else(cached_model, PathBuf::from);
    assert!(path.is_file(), "run `cargo run --release -- models pull {MODEL}` first");
    path.canonicalize().unwrap()
}

fn cached_model() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).expect("HOME is set");
    cache.join("peerproof").join("models").join(format!("{MODEL}.gguf"))
}

/// Looks until there is something to see.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// A folder with the homes of one test and a cache that holds the model.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        let models = place.path("cache/models");
        std::fs::create_dir_all(&models).unwrap();
        std::os::unix::fs::symlink(model_file(), models.join(format!("{MODEL}.gguf"))).unwrap();
        std::fs::create_dir(place.path("tmp")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary in the named home, untouched by this process's environment.
    pub(crate) fn command(&self, home: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peerproof"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PEERPROOF_") || name.starts_with("XDG_") {
                command.env_remove(&*name);
            }
        }
        command
            .env("HOME", self.path("nobody"))
            .env("TMPDIR", self.path("tmp"))
            .env("PEERPROOF_HOME", self.path(home))
            .env("PEERPROOF_CACHE", self.path("cache"))
            .env("PEERPROOF_LOG", "error")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that ends by itself.
    pub(crate) fn run(&self, home: &str, arguments: &[&str]) -> Ended {
        let mut command = self.command(home);
        command.args(arguments);
        run(command)
    }

    /// A node, ready. Compute threads are limited, so that several share two cores.
    pub(crate) fn node(&self, home: &str, arguments: &[&str]) -> Node {
        self.try_node(home, arguments).unwrap_or_else(|ended| panic!("{home}: {ended:?}"))
    }

    /// A node, or how it ended before it was ready.
    pub(crate) fn try_node(&self, home: &str, arguments: &[&str]) -> Result<Node, Ended> {
        let mut command = self.command(home);
        command.args(arguments);
        self.start(command, home)
    }

    /// As `try_node`, from a command of the caller's making.
    pub(crate) fn start(&self, mut command: Command, home: &str) -> Result<Node, Ended> {
        command.args(["--loopback", "--threads", "1", "--json", "--with-parent"]);
        command.env("PEERPROOF_API_LISTEN", "127.0.0.1:0");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let input = child.stdin.take();
        let output = lines(child.stdout.take().unwrap());
        let errors = lines(child.stderr.take().unwrap());
        let mut node = Node {
            child,
            input,
            errors,
            peer: String::new(),
            api: String::new(),
            address: String::new(),
            home: self.path(home),
        };
        match output.recv_timeout(PATIENCE) {
            Ok(line) => {
                let ready: Value = serde_json::from_str(&line).expect("a line of JSON");
                assert_eq!(ready["event"], "ready", "{line}");
                node.peer = ready["peer"].as_str().unwrap().into();
                node.api = ready["api"].as_str().unwrap().into();
                node.address = ready["addresses"][0].as_str().unwrap_or_default().into();
                Ok(node)
            }
            Err(_) => {
                let _ = node.child.kill();
                let code = node.child.wait().unwrap().code();
                let errors = node.errors.iter().collect::<Vec<_>>().join("\n");
                Err(Ended { code, stdout: String::new(), stderr: errors })
            }
        }
    }

    /// A router that knows one address; its own answers are audited only as `arguments` say.
    pub(crate) fn router(&self, peer: &Node, arguments: &[&str]) -> Node {
        let all = [&["route", "--peer", peer.address.as_str()], arguments].concat();
        self.node("router", &all)
    }

    /// Processes, other than this one, that name this folder in their command line or
    /// environment.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let needle = self.folder.path().to_str().unwrap().as_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let said = [read("cmdline"), read("environ")].concat();
            if pid != std::process::id() && said.windows(needle.len()).any(|part| part == needle) {
                found.push(pid);
            }
        }
        found
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn fine(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.fine();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// It failed with code 1 and a sentence that has every part of `said` in it; gives it back.
    #[track_caller]
    pub(crate) fn refused(self, said: &[&str]) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        for part in said {
            assert!(self.stderr.contains(part), "expected {part:?} in {self:?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self.stderr
    }
}

/// Runs a command to its end, and kills it if that doesn't come.
pub(crate) fn run(mut command: Command) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = whole(child.stdout.take().unwrap());
    let stderr = whole(child.stderr.take().unwrap());
    let code = wait(&mut child);
    let text = |from: Receiver<String>| from.recv_timeout(PATIENCE).expect("its output ends");
    Ended { code, stdout: text(stdout), stderr: text(stderr) }
}

/// The exit code of a process that should end by itself.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("a process did not end within {PATIENCE:?}");
        }
        std::thread::sleep(POLL);
    }
}

/// As [`run`], with something on standard input.
pub(crate) fn run_with_input(mut command: Command, input: &str) -> Output {
    use std::io::Write as _;
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn whole(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

pub(crate) fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Sends a signal by name: `STOP`, `CONT`, `INT`, `KILL`.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success(), "kill -{name} {pid}");
}

/// A running node.
pub(crate) struct Node {
    child: Child,
    input: Option<ChildStdin>,
    errors: Receiver<String>,
    pub(crate) peer: String,
    pub(crate) api: String,
    /// Where others reach it, with its peer id; empty for a pure router.
    pub(crate) address: String,
    pub(crate) home: PathBuf,
}

impl Node {
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Ends it as its parent's end would, and waits; gives back its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        drop(self.input.take());
        wait(&mut self.child)
    }

    /// What it has said on standard error so far.
    pub(crate) fn errors(&self) -> String {
        self.errors.try_iter().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        let mut response = agent().get(format!("{}{path}", self.api)).call().unwrap();
        serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// Status and body of a request that may be anything.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let mut response = self.send(path, body);
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn send(&self, path: &str, body: &[u8]) -> ureq::http::Response<ureq::Body> {
        let request = agent().post(format!("{}{path}", self.api));
        request.header("content-type", "application/json").send(body).unwrap()
    }

    /// Asks a question with more members in its request, and waits for the whole answer.
    #[track_caller]
    pub(crate) fn ask(&self, prompt: &str, more: Value) -> Value {
        let (status, body) = self.try_ask(prompt, more);
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) fn try_ask(&self, prompt: &str, more: Value) -> (u16, Value) {
        self.post("/v1/chat/completions", question(prompt, more).to_string().as_bytes())
    }

    /// Asks and gives back the answer while it arrives.
    pub(crate) fn stream(&self, prompt: &str, more: Value) -> Stream {
        let mut request = question(prompt, more);
        request["stream"] = true.into();
        let response = self.send("/v1/chat/completions", request.to_string().as_bytes());
        assert_eq!(response.status().as_u16(), 200);
        Stream { lines: BufReader::new(response.into_body().into_reader()), text: String::new() }
    }

    /// Waits until this router has found these providers; asking for one makes it search.
    pub(crate) fn finds(&self, providers: &[&Node]) {
        for provider in providers {
            let more = json!({
                "max_tokens": 1,
                "provider": only(&[provider]),
                "verification": { "level": "receipt" },
            });
            until("the router finds the provider", || {
                (self.knows(provider) || self.try_ask("Hi", more.clone()).0 == 200).then_some(())
            });
        }
    }

    fn knows(&self, provider: &Node) -> bool {
        let models = self.json("/peerproof/models");
        let lists = models.as_array().unwrap().iter().map(|model| &model["providers"]);
        lists.flat_map(|list| list.as_array().unwrap()).any(|peer| *peer == json!(provider.peer))
    }

    pub(crate) fn evidence(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.home.join("evidence")) else { return vec![] };
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(2 * PATIENCE))
        .http_status_as_error(false)
        .build()
        .into()
}

fn question(prompt: &str, more: Value) -> Value {
    let mut request = json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": prompt }],
        "temperature": 0,
        "max_tokens": 16,
    });
    for (name, value) in more.as_object().expect("an object") {
        request[name] = value.clone();
    }
    request
}

/// An answer that arrives. Dropping it closes the connection.
pub(crate) struct Stream {
    lines: BufReader<ureq::BodyReader<'static>>,
    pub(crate) text: String,
}

impl Stream {
    /// The next piece of text, or how it ended.
    pub(crate) fn next(&mut self) -> Piece {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("the stream goes on") == 0 {
                panic!("the stream broke off after {:?}", self.text);
            }
            let Some(data) = line.trim_end().strip_prefix("data: ") else { continue };
            let chunk: Value = serde_json::from_str(data).expect("a chunk of JSON");
            if chunk["peerproof"].is_object() || chunk["error"].is_object() {
                return Piece::End(chunk);
            }
            if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str()
                && !text.is_empty()
            {
                self.text.push_str(text);
                return Piece::Text;
            }
        }
    }

    /// Reads so many pieces, which must not be all.
    pub(crate) fn pieces(&mut self, count: usize) {
        for _ in 0..count {
            assert!(matches!(self.next(), Piece::Text), "the answer is too short for this test");
        }
    }

    /// Reads to the end.
    pub(crate) fn end(&mut self) -> Value {
        loop {
            if let Piece::End(chunk) = self.next() {
                return chunk;
            }
        }
    }
}

pub(crate) enum Piece {
    Text,
    End(Value),
}

/// The text of an answer that came whole.
pub(crate) fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().expect("an answer has text")
}

/// Only these may answer.
pub(crate) fn only(providers: &[&Node]) -> Value {
    let peers: Vec<&str> = providers.iter().map(|node| node.peer.as_str()).collect();
    json!({ "only": peers })
}
