//! The store on a real file system: locks, damage, permissions, killed writers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use peerproof_identity::{Keypair, PublicKey};
use peerproof_log::{DamageKind, Log, LogError, Storage as _};
use peerproof_wire::{AcceptedAnswer, Digest, LogBody, LogEntry, LogProof, ModelId, NetworkGroup};
use tempfile::TempDir;

use super::{DiskStorage, LogWriter, StoreError, read, read_of, write_atomic};

/// Where a child process of this test binary finds its log directory.
const CHILD_DIR: &str = "PEERPROOF_TEST_STORE_DIR";

fn key() -> Arc<Keypair> {
    Arc::new(Keypair::from_seed(&[11; 32]))
}

fn public() -> PublicKey {
    key().public()
}

fn entry(number: u32) -> LogEntry {
    let body = LogBody::Accepted(AcceptedAnswer {
        receipt_id: Digest::from_bytes([1; 32]),
        provider: public(),
        model_id: ModelId::from_bytes([2; 32]),
        output_tokens: number,
        first_token_ms: 3,
        total_ms: 4,
        audited: true,
        group: NetworkGroup::Local,
        auditor: None,
    });
    LogEntry { unix_ms: 1_700_000_000_000, body }
}

fn number(entry: &LogEntry) -> u32 {
    match &entry.body {
        LogBody::Accepted(accepted) => accepted.output_tokens,
        other => panic!("not an entry of this test: {other:?}"),
    }
}

async fn fill(dir: &Path, count: u32) {
    let writer = LogWriter::open(dir, key()).unwrap();
    for at in 0..count {
        assert_eq!(writer.append(&entry(at)).await.unwrap().index, u64::from(at));
    }
    writer.close().await;
}

#[tokio::test]
async fn what_is_appended_is_provable_and_read_back() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("a/log");
    let writer = LogWriter::open(&dir, key()).unwrap();
    for at in 0..5 {
        let appended = writer.append(&entry(at)).await.unwrap();
        let payload = peerproof_wire::Message::encode(&entry(at)).unwrap();
        appended.checkpoint.verify_entry(&payload, appended.index, &appended.path).unwrap();
        let proof = LogProof::from(appended.clone());
        assert_eq!(proof.checkpoint, appended.checkpoint.note());
        assert_eq!(proof.path.len(), appended.path.len());
    }
    let old = writer.prove(1).await.unwrap();
    assert_eq!((old.index, old.checkpoint.size()), (1, 5));
    assert_eq!(number(&writer.entry(3).await.unwrap()), 3);
    assert_eq!(writer.checkpoint().await.unwrap().unwrap().size(), 5);
    assert!(writer.entry(5).await.is_err());
    writer.close().await;

    let mut seen = Vec::new();
    let writer = LogWriter::open_replaying(&dir, key(), |index, entry| {
        seen.push((index, number(&entry)));
    });
    assert_eq!(seen, (0..5).map(|at| (u64::from(at), at)).collect::<Vec<_>>());
    assert_eq!(writer.unwrap().append(&entry(5)).await.unwrap().index, 5);
}

#[tokio::test]
async fn many_callers_at_once_each_get_their_own_place() {
    let home = TempDir::new().unwrap();
    let writer = Arc::new(LogWriter::open(home.path(), key()).unwrap());
    let tasks: Vec<_> = (0..300)
        .map(|at| {
            let writer = Arc::clone(&writer);
            tokio::spawn(async move { (at, writer.append(&entry(at)).await.unwrap()) })
        })
        .collect();
    let mut places = Vec::new();
    for task in tasks {
        let (at, appended) = task.await.unwrap();
        assert_eq!(number(&writer.entry(appended.index).await.unwrap()), at);
        places.push(appended.index);
    }
    places.sort_unstable();
    assert_eq!(places, (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_writer_is_refused_and_a_reader_is_not() {
    let home = TempDir::new().unwrap();
    let writer = LogWriter::open(home.path(), key()).unwrap();
    writer.append(&entry(0)).await.unwrap();
    let refused = LogWriter::open(home.path(), key()).unwrap_err();
    assert!(matches!(&refused, StoreError::Locked { dir } if dir == home.path()));
    assert!(refused.to_string().contains(&home.path().display().to_string()));

    let contents = read(home.path()).unwrap();
    assert_eq!(contents.verified.as_ref().unwrap().entries, 1);
    assert_eq!(contents.peer, public().peer_id());
    let numbers: Vec<_> = contents.entries().map(|(_, entry)| number(&entry.unwrap())).collect();
    assert_eq!(numbers, [0]);
    // The reader has taken neither the lock nor the writer's place.
    assert_eq!(writer.append(&entry(1)).await.unwrap().index, 1);
    let mut storage = DiskStorage::open_read(home.path()).unwrap();
    assert!(storage.write_checkpoint(b"x").is_err());
    assert!(storage.append(0, 1024, b"x").is_err());
    assert!(storage.cut(0, 0).is_err());
}

#[tokio::test]
async fn a_damaged_log_is_fenced_names_the_place_and_stays_readable() {
    let home = TempDir::new().unwrap();
    fill(home.path(), 4).await;
    let segment = home.path().join("segment-00000000");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[2 * 512 + 60] ^= 1;
    fs::write(&segment, &bytes).unwrap();

    let before = fs::read(home.path().join("checkpoint")).unwrap();
    let writer = LogWriter::open(home.path(), key()).unwrap();
    let damage = writer.damage().unwrap().clone();
    assert_eq!((damage.entries_before, damage.place.offset), (2, 1024));
    assert!(matches!(damage.kind, DamageKind::Checksum { .. }));
    assert_eq!(number(&writer.entry(1).await.unwrap()), 1);
    let refused = writer.append(&entry(4)).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Log { source, .. } if matches!(**source, LogError::Damaged(_)))
    );
    assert!(refused.to_string().contains("backup"), "{refused}");
    writer.close().await;

    let contents = read(home.path()).unwrap();
    assert!(matches!(contents.verified, Err(LogError::Damaged(_))));
    assert_eq!(contents.len(), 2);
    assert_eq!(fs::read(&segment).unwrap(), bytes, "nothing was repaired");
    assert_eq!(fs::read(home.path().join("checkpoint")).unwrap(), before);
}

#[tokio::test]
async fn a_lost_or_foreign_checkpoint_fences() {
    let home = TempDir::new().unwrap();
    fill(home.path(), 3).await;
    let path = home.path().join("checkpoint");
    let note = fs::read(&path).unwrap();

    fs::remove_file(&path).unwrap();
    let writer = LogWriter::open(home.path(), key()).unwrap();
    assert_eq!(writer.damage().unwrap().kind, DamageKind::CheckpointMissing);
    writer.close().await;
    assert!(!path.exists());
    assert!(matches!(read(home.path()), Err(StoreError::UnknownKey { .. })));
    assert_eq!(read_of(home.path(), &public()).unwrap().len(), 3);

    fs::write(&path, &note).unwrap();
    let other = Arc::new(Keypair::from_seed(&[12; 32]));
    let writer = LogWriter::open(home.path(), other).unwrap();
    assert!(matches!(writer.damage().unwrap().kind, DamageKind::Checkpoint(_)));
    assert!(writer.append(&entry(3)).await.is_err());
    writer.close().await;

    fs::write(&path, "x".repeat(1 << 20)).unwrap();
    let writer = LogWriter::open(home.path(), key()).unwrap();
    assert!(matches!(writer.damage().unwrap().kind, DamageKind::Checkpoint(_)));
}

#[tokio::test]
async fn a_tail_behind_the_checkpoint_is_cut_and_kept_aside() {
    let home = TempDir::new().unwrap();
    fill(home.path(), 2).await;
    let segment = home.path().join("segment-00000000");
    let mut bytes = fs::read(&segment).unwrap();
    let whole = bytes.len();
    bytes.extend_from_slice(b"half a record");
    fs::write(&segment, &bytes).unwrap();

    let writer = LogWriter::open(home.path(), key()).unwrap();
    assert!(writer.damage().is_none());
    assert_eq!(fs::metadata(&segment).unwrap().len(), whole as u64);
    let aside: Vec<_> =
        fs::read_dir(home.path().join("cut")).unwrap().map(Result::unwrap).collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read(aside[0].path()).unwrap(), b"half a record");
    assert_eq!(writer.append(&entry(2)).await.unwrap().index, 2);
    writer.close().await;
    assert_eq!(read(home.path()).unwrap().verified.unwrap().entries, 3);
}

#[tokio::test]
async fn a_writer_that_finds_foreign_bytes_stops() {
    let home = TempDir::new().unwrap();
    let writer = LogWriter::open(home.path(), key()).unwrap();
    writer.append(&entry(0)).await.unwrap();
    let segment = home.path().join("segment-00000000");
    let mut bytes = fs::read(&segment).unwrap();
    bytes.push(7);
    fs::write(&segment, &bytes).unwrap();
    assert!(writer.append(&entry(1)).await.is_err());
    let refused = writer.append(&entry(1)).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Log { source, .. } if matches!(**source, LogError::Stopped(_)))
    );
    assert_eq!(writer.size().await.unwrap(), 1);
    writer.close().await;
    let writer = LogWriter::open(home.path(), key()).unwrap();
    assert_eq!(writer.append(&entry(1)).await.unwrap().index, 1);
}

#[test]
fn files_are_private_and_empty_directories_hold_no_log() {
    let home = TempDir::new().unwrap();
    assert!(matches!(read(home.path()), Err(StoreError::NoLog { .. })));
    assert!(matches!(read(&home.path().join("none")), Err(StoreError::NoLog { .. })));
    let dir = home.path().join("log");
    let mut log = Log::open(DiskStorage::open(&dir).unwrap(), key()).unwrap();
    log.append(&["x"]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for name in ["checkpoint", "segment-00000000", "lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
}

#[test]
fn an_atomic_write_replaces_whole_files_and_leaves_nothing_behind() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("config");
    write_atomic(&path, b"first", 0o644).unwrap();
    write_atomic(&path, b"second", 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);

    // A directory in the way: the error names it, and no temporary file stays.
    fs::create_dir(home.path().join("taken")).unwrap();
    let refused = write_atomic(&home.path().join("taken"), b"x", 0o600).unwrap_err();
    assert!(refused.to_string().contains("taken"));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    assert!(write_atomic(&home.path().join("none/file"), b"x", 0o600).is_err());
}

/// Fills what it may write, is given more, and goes on.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "the child process of a_full_disk_is_said_and_survived"]
fn child_meets_a_full_disk() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let writer = LogWriter::open(Path::new(&dir), key()).unwrap();
        let mut acknowledged = 0;
        let refused = loop {
            match writer.append(&entry(acknowledged)).await {
                Ok(_) => acknowledged += 1,
                Err(refused) => break refused.to_string(),
            }
        };
        assert!(acknowledged > 0);
        assert!(refused.contains("free some space"), "{refused}");
        assert_eq!(writer.size().await.unwrap(), u64::from(acknowledged));
        let raised = Command::new("prlimit")
            .args(["--fsize=unlimited", "--pid", &std::process::id().to_string()])
            .status();
        assert!(raised.expect("install util-linux for prlimit").success());
        // The same writer, no restart.
        let appended = writer.append(&entry(acknowledged)).await.unwrap();
        assert_eq!(appended.index, u64::from(acknowledged));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_survived() {
    let home = TempDir::new().unwrap();
    // A limit on the length of files is a full disk that needs no privileges.
    // This one falls inside a record, so that part of it is written.
    let script = "trap '' XFSZ; exec \"$0\" --exact \
        store::tests::child_meets_a_full_disk --ignored";
    let output = Command::new("prlimit")
        .args(["--fsize=8300:unlimited", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, home.path())
        .output()
        .expect("install util-linux for prlimit");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");

    let contents = read(home.path()).unwrap();
    assert_eq!(contents.verified.as_ref().unwrap().entries, contents.len());
    for (index, entry) in contents.entries() {
        assert_eq!(u64::from(number(&entry.unwrap())), index);
    }
    assert_eq!(fs::read_dir(home.path().join("cut")).unwrap().count(), 1);
}

/// Appends until it is killed, printing each position once it is acknowledged.
#[test]
#[ignore = "the child process of no_killed_writer_loses_an_acknowledged_entry"]
fn child_appends_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let writer = LogWriter::open(Path::new(&dir), key()).unwrap();
        let start = u32::try_from(writer.size().await.unwrap()).unwrap();
        for at in start.. {
            let appended = writer.append(&entry(at)).await.unwrap();
            // Straight to the pipe: the test harness would keep it back.
            let line = format!("acknowledged {}\n", appended.index);
            std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
        }
    });
}

#[test]
fn no_killed_writer_loses_an_acknowledged_entry() {
    const KILLS: u64 = 20;
    let home = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::child_appends_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD_DIR, home.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // The harness may print its own words on the line of the first one.
        let place = |line: &str| line.split_once("acknowledged ")?.1.parse::<u64>().ok();
        // A different number of entries each time, so that the kill falls anywhere.
        let mut seen: Vec<u64> =
            lines.by_ref().filter_map(|line| place(&line)).take(kill as usize % 7 + 1).collect();
        child.kill().unwrap();
        seen.extend(lines.filter_map(|line| place(&line)));
        child.wait().unwrap();
        assert!(!seen.is_empty());
        assert!(seen.is_sorted());
        acknowledged = seen.last().unwrap() + 1;

        let contents = read(home.path()).unwrap();
        assert!(contents.verified.is_ok(), "{:?}", contents.verified);
        assert!(contents.len() >= acknowledged, "kill {kill}");
        for (index, entry) in contents.entries() {
            assert_eq!(u64::from(number(&entry.unwrap())), index);
        }
    }
    assert!(acknowledged >= KILLS);
}
