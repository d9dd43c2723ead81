//! The golden bytes in `vectors/log/`: one log, as every implementation must write it.
//!
//! `PEERPROOF_BLESS=1` writes them anew.
#![allow(clippy::disallowed_methods, reason = "a test reads and writes its vectors")]

use std::fs;
use std::path::{Path, PathBuf};

use peerproof_log::memory::MemoryStorage;
use peerproof_log::{Log, Reader, record};

use crate::key;

/// The entries of the golden log, by batch.
const BATCHES: [&[&str]; 3] = [&["first"], &["second entry", "third"], &["fourth"]];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/log")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(name: &str, bytes: &[u8]) {
    let path = folder().join(name);
    if std::env::var_os("PEERPROOF_BLESS").is_some() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(golden == bytes, "{name} differs from what is written");
}

fn golden() -> Log<MemoryStorage> {
    let mut log = Log::open(MemoryStorage::default(), key()).unwrap();
    for batch in BATCHES {
        log.append(batch).unwrap();
    }
    log
}

#[test]
fn the_golden_log_is_written_byte_by_byte() {
    let log = golden();
    let proofs = (0..4)
        .map(|index| {
            let path = log.inclusion(index, 4).unwrap();
            let path: Vec<_> = path.iter().map(|hash| hex(hash)).collect();
            format!("inclusion {index} 4 {}\n", path.join(" "))
        })
        .chain((1..4).map(|from| {
            let path = log.consistency(from, 4).unwrap();
            let path: Vec<_> = path.iter().map(|hash| hex(hash)).collect();
            format!("consistency {from} 4 {}\n", path.join(" "))
        }));
    let mut text = format!("root 4 {}\n", hex(log.checkpoint().unwrap().root()));
    text.extend(proofs);
    check("proofs.txt", text.as_bytes());
    let storage = log.into_storage();
    check("checkpoint", storage.checkpoint.as_ref().unwrap());
    check("segment-00000000", &storage.segments[&0]);
    let mut one = Vec::new();
    record::encode(0, &record::chain_start("peerproof.log/example"), b"first", &mut one);
    check("record.bin", &one);
}

#[test]
fn the_golden_log_is_read() {
    let storage = MemoryStorage {
        segments: [(0, fs::read(folder().join("segment-00000000")).unwrap())].into(),
        checkpoint: Some(fs::read(folder().join("checkpoint")).unwrap()),
        ..MemoryStorage::default()
    };
    let reader = Reader::open(storage, &key().public()).unwrap();
    assert_eq!(reader.verify().unwrap().entries, 4);
    for (index, entry) in (0..).zip(BATCHES.concat()) {
        assert_eq!(reader.entry(index).unwrap(), entry.as_bytes());
    }
}
