//! The bytes of openings, beside those that the specification gives.
//!
//! `vectors/proof/ranges.json` is computed again by `vectors/proof/check.py`,
//! which has a BLAKE3 of its own. With `PEERPROOF_BLESS=1` this test writes it.

#![allow(clippy::disallowed_methods, reason = "a test reads and writes its vectors")]

use std::path::PathBuf;

use peerproof_proof::ranges::{Builder, Group, Mode, Shape, open_bytes, verify};
use serde_json::{Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Byte `i` of every string is `i mod 251`.
fn text(length: u64) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

fn opening(keyed: bool, length: u64, g: u8, start: u64, end: u64) -> Value {
    let mode = if keyed { Mode::Keyed([0x2a; 32]) } else { Mode::Plain };
    let group = Group::from_log2(g).expect("a group");
    let bytes = text(length);
    let root = mode.hash(&bytes);
    let slice = open_bytes(mode, &bytes, group, start..end).expect("an opening");
    let shape = Shape::new(length, group).expect("a length");
    let verified = verify(mode, &root, shape, start..end, &slice).expect("verified");
    let mut builder = Builder::new(mode, group);
    builder.update(&bytes);
    let tree = builder.finish().expect("a tree");
    json!({
        "keyed": keyed, "length": length, "g": g, "start": start, "end": end,
        "root": root.to_string(),
        "cover": [verified.cover.start, verified.cover.end],
        "hashes": slice.hashes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "values": verified.values.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stored_tree": hex(&tree.to_bytes()),
    })
}

fn openings() -> Vec<Value> {
    vec![
        opening(false, 0, 0, 0, 0),
        opening(true, 0, 4, 0, 0),
        opening(false, 1, 0, 0, 1),
        opening(false, 1024, 0, 1023, 1024),
        opening(false, 1025, 0, 0, 1),
        opening(false, 1025, 0, 1024, 1025),
        opening(true, 3000, 0, 1024, 2048),
        opening(false, 7168, 0, 3071, 4097),
        opening(true, 7169, 1, 5000, 5001),
        opening(false, 16_383, 4, 5, 6),
        opening(false, 16_385, 4, 0, 1),
        opening(false, 50_000, 4, 20_000, 40_000),
        opening(true, 50_000, 2, 49_999, 50_000),
    ]
}

#[test]
fn openings_are_those_of_the_specification() {
    let computed = json!({ "key": "2a".repeat(32), "openings": openings() });
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../vectors/proof/ranges.json"].iter().collect();
    if std::env::var_os("PEERPROOF_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&computed).expect("json");
        std::fs::write(&path, text + "\n").expect("written");
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("json");
    assert_eq!(computed, kept);
}
