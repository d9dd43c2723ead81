//! Nodes of this program as separate processes on loopback, in temporary homes, for as long as
//! a [`Stage`] lives.
//!
//! Each child says in one line of JSON that it is ready, and ends by itself if this process
//! dies, since it watches its standard input. Deliberately absent: what the nodes are for.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::args::Place;
use crate::output::stopped;

/// A node that is not ready by then won't be.
const READY: Duration = Duration::from_secs(30);
/// Between two looks at something that changes elsewhere.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// One running node.
pub(crate) struct Running {
    pub(crate) peer: String,
    pub(crate) api: String,
    addresses: Vec<String>,
}

impl Running {
    /// Where others reach it.
    pub(crate) fn address(&self) -> anyhow::Result<String> {
        self.addresses.first().cloned().context("the node listens nowhere")
    }
}

/// Everything that was started; dropping it stops all of it.
pub(crate) struct Stage {
    program: PathBuf,
    cache: PathBuf,
    folder: Option<tempfile::TempDir>,
    children: Vec<(Child, Option<ChildStdin>)>,
    keep: bool,
}

impl Stage {
    pub(crate) fn new(place: &Place, keep: bool) -> anyhow::Result<Stage> {
        let models = place.home()?.models();
        Ok(Stage {
            program: std::env::current_exe()?,
            cache: models.parent().unwrap_or(Path::new(".")).to_owned(),
            folder: Some(tempfile::Builder::new().prefix("peerproof-").tempdir()?),
            children: Vec::new(),
            keep,
        })
    }

    fn home(&self, name: &str) -> PathBuf {
        let folder = self.folder.as_ref().map_or(Path::new("."), tempfile::TempDir::path);
        folder.join(name.replace(' ', "-"))
    }

    /// This program, in the named home.
    pub(crate) fn command(&self, home: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(self.home(home)).arg("--cache").arg(&self.cache);
        command
    }

    /// Starts a node with the given name, command and arguments, and waits until it is ready.
    pub(crate) fn start(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        let (node, rest) = arguments.split_first().context("no command")?;
        let mut child = self
            .command(name)
            .arg(node)
            .args([
                "--loopback",
                "--api",
                "127.0.0.1:0",
                "--json",
                "--with-parent",
                "--log",
                "error",
            ])
            .args(rest)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a node")?;
        let output = child.stdout.take().context("no standard output")?;
        let input = child.stdin.take();
        self.children.push((child, input));
        let line = first_line(&ready_line(output), name)?;
        let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let text = |key: &str| event[key].as_str().map(str::to_owned).context("no such field");
        let addresses = event["addresses"].as_array().into_iter().flatten();
        Ok(Running {
            peer: text("peer")?,
            api: text("api")?,
            addresses: addresses.filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        })
    }

    /// Runs this program to its end, with its output on the screen.
    pub(crate) fn peerproof(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        Ok(self.command("verifier").args(arguments).status()?.success())
    }

    pub(crate) fn evidence(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.home(name).join("evidence");
        let mut files = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(files.next().context("no evidence file was left")??.path())
    }

    /// Closes every child's standard input, which ends it, and waits.
    pub(crate) fn stop(&mut self) {
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

fn first_line(lines: &Receiver<String>, name: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + READY;
    loop {
        ensure!(!stopped(), "interrupted");
        match lines.recv_timeout(POLL) {
            Ok(line) => return Ok(line),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
            Err(_) => bail!("the {name} did not start"),
        }
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
