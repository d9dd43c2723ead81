//! `demo`: the whole product on one machine, as separate processes on loopback.
//!
//! An auditor, two honest providers and a cheating one start in homes of their
//! own; the providers know only the auditor's address. A router that knows no
//! provider's address finds them, answers, and checks. Then the question is
//! steered to the cheat, whose answer must be refused. Everything that was
//! started is stopped when [`Stage`] goes out of scope, and ends by itself if
//! this process dies, since each child watches its standard input.

use std::io::{BufRead, BufReader, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use peerproof::client::Outcome;
use peerproof::models::DEFAULT_MODEL;
use serde_json::{Value, json};

use super::models;
use crate::api::{Api, Piece, short, summary};
use crate::args::{DemoArgs, Place};

/// A node that is not ready by then won't be.
const READY: Duration = Duration::from_secs(30);
/// Providers that can't be found by then won't be.
const FOUND: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// Enough for a sentence or two.
const MAX_TOKENS: u32 = 64;

pub(crate) fn run(place: &Place, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    crate::output::stop_on_ctrl_c()?;
    models::ensure(&place.store()?, DEFAULT_MODEL)?;
    let mut stage = Stage::new(place, args.keep)?;
    let meeting_point = stage.start("auditor", &["audit"])?;
    let peer = meeting_point.address()?;
    let honest = [
        stage.start("provider 1", &["provide", "--peer", &peer])?,
        stage.start("provider 2", &["provide", "--peer", &peer])?,
    ];
    let cheat = stage.start("provider 3", &["provide", "--peer", &peer, "--cheat", "skip-layers"])?;
    let router = stage.start("router", &["route", "--peer", &peer])?;
    println!("Provider 3 secretly leaves out a third of the model's layers. The router knows only the auditor's address.\n");
    let api = Api::at(&router.api);
    let expected: Vec<&str> = honest.iter().chain([&cheat]).map(|node| node.peer.as_str()).collect();
    wait_for_providers(&api, &expected)?;
    let honest = [honest[0].peer.as_str(), honest[1].peer.as_str()];

    println!("\nQuestion: {}\nAnswer:   ", args.prompt);
    let (_, outcome) = ask(&api, &args.prompt, &honest)?;
    println!("{}\n", summary(&outcome));

    println!("The same question to provider 3 ({}):", short(&cheat.peer));
    let Err(refusal) = ask(&api, &args.prompt, &[&cheat.peer]) else {
        bail!("the cheat was not refused");
    };
    println!("\nRefused: {refusal}\n");
    let evidence = stage.evidence("router")?;
    println!("$ peerproof verify {}", evidence.display());
    let verified = stage.peerproof(&["verify", &evidence.display().to_string()])?;
    ensure!(verified, "the evidence was not confirmed");
    barred(&api, &cheat.peer)?;
    stage.stop();
    Ok(ExitCode::SUCCESS)
}

/// The first question names the honest providers only to keep the demonstration in its order.
fn ask(api: &Api, prompt: &str, providers: &[&str]) -> anyhow::Result<(String, Outcome)> {
    let request = json!({
        "model": DEFAULT_MODEL,
        "messages": [{ "role": "user", "content": prompt }],
        "stream": true,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "verification": { "level": "full" },
        "provider": { "only": providers },
    });
    let (mut text, mut done) = (String::new(), None);
    api.ask(&request, &mut |piece| {
        match piece {
            Piece::Text(piece) => {
                print!("{piece}");
                stdout().flush()?;
                text.push_str(&piece);
            }
            Piece::Done(outcome) => done = Some(serde_json::from_value(*outcome)?),
        }
        Ok(())
    })
    .inspect_err(|_| println!())?;
    println!();
    Ok((text, done.context("the answer has no receipt")?))
}

fn wait_for_providers(api: &Api, expected: &[&str]) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        let models = api.json("/peerproof/models")?;
        let found: Vec<&str> = models
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|model| model["providers"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        if expected.iter().all(|peer| found.contains(peer)) {
            println!("The router found {} providers after {} ms.", expected.len(), since.elapsed().as_millis());
            return Ok(());
        }
        ensure!(since.elapsed() < FOUND, "the router found {} of {} providers", found.len(), expected.len());
        std::thread::sleep(POLL);
    }
}

fn barred(api: &Api, cheat: &str) -> anyhow::Result<()> {
    let peers = api.peers()?;
    let reason = peers.iter().find(|peer| peer.peer == cheat).and_then(|peer| peer.barred.clone());
    let reason = reason.context("the cheat is not barred")?;
    println!("\nProvider 3 is barred ({reason}) and won't be asked again.");
    Ok(())
}

/// One running node.
struct Running {
    peer: String,
    api: String,
    addresses: Vec<String>,
}

impl Running {
    fn address(&self) -> anyhow::Result<String> {
        self.addresses.first().cloned().context("the node listens nowhere")
    }
}

/// Everything that the demonstration started.
struct Stage {
    program: PathBuf,
    cache: PathBuf,
    folder: Option<tempfile::TempDir>,
    children: Vec<(Child, Option<ChildStdin>)>,
    keep: bool,
}

impl Stage {
    fn new(place: &Place, keep: bool) -> anyhow::Result<Stage> {
        let models = place.home()?.models();
        Ok(Stage {
            program: std::env::current_exe()?,
            cache: models.parent().unwrap_or(Path::new(".")).to_owned(),
            folder: Some(tempfile::Builder::new().prefix("peerproof-demo-").tempdir()?),
            children: Vec::new(),
            keep,
        })
    }

    fn home(&self, name: &str) -> PathBuf {
        let folder = self.folder.as_ref().map_or(Path::new("."), tempfile::TempDir::path);
        folder.join(name.replace(' ', "-"))
    }

    fn command(&self, home: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(self.home(home)).arg("--cache").arg(&self.cache);
        command
    }

    fn start(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        let (node, rest) = arguments.split_first().context("no command")?;
        let mut child = self
            .command(name)
            .arg(node)
            .args(["--loopback", "--api", "127.0.0.1:0", "--json", "--with-parent"])
            .args(rest)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a node")?;
        let output = child.stdout.take().context("no standard output")?;
        let input = child.stdin.take();
        self.children.push((child, input));
        let ready = ready_line(output);
        let line = ready.recv_timeout(READY).with_context(|| format!("the {name} did not start"))?;
        let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let text = |key: &str| event[key].as_str().map(str::to_owned).context("no such field");
        let addresses = event["addresses"].as_array().into_iter().flatten();
        let running = Running {
            peer: text("peer")?,
            api: text("api")?,
            addresses: addresses.filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        };
        println!("{name:11} {}", running.peer);
        Ok(running)
    }

    /// Runs this program to its end, with its output on the screen.
    fn peerproof(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        Ok(self.command("verifier").args(arguments).status()?.success())
    }

    fn evidence(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.home(name).join("evidence");
        let mut files = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(files.next().context("no evidence file was left")??.path())
    }

    /// Closes every child's standard input, which ends it, and waits.
    fn stop(&mut self) {
        for (_, input) in &mut self.children {
            drop(input.take());
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        for (child, _) in &mut self.children {
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
        if let Some(folder) = self.folder.take().filter(|_| self.keep) {
            println!("The homes are kept in {}", folder.keep().display());
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop();
    }
}

fn ready_line(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}
