//! The bytes in `vectors/wire/` are the format. A change here is a new version
//! of the protocol; `PEERPROOF_WRITE_VECTORS=1` writes the files anew.
#![allow(clippy::disallowed_methods, reason = "a test reads and writes its vectors")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::shape;
use crate::*;

use super::samples;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/wire")
}

/// Compares with the file, or writes it when asked to.
fn check_file(name: &str, content: &str) {
    let path = folder().join(name);
    if std::env::var_os("PEERPROOF_WRITE_VECTORS").is_some() {
        fs::write(&path, content).unwrap();
    }
    let golden = fs::read_to_string(&path);
    let golden = golden.unwrap_or_else(|error| panic!("vectors/wire/{name}: {error}"));
    assert_eq!(content, golden, "vectors/wire/{name}");
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.trim().as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn every_message_has_its_golden_bytes() {
    for sample in samples::all() {
        let file = format!("{}.hex", sample.name);
        check_file(&file, &format!("{}\n", to_hex(&sample.bytes)));
        let golden = from_hex(&fs::read_to_string(folder().join(&file)).unwrap());
        let (debug, bytes) = (sample.decode)(&golden).unwrap();
        assert_eq!(debug, sample.debug, "{file}: another value");
        assert_eq!(bytes, golden, "{file}: another encoding");
    }
}

/// A shape that no sample reaches would go untested.
#[test]
fn every_shape_has_a_sample() {
    fn reach(shape: &'static shape::Shape, reached: &mut BTreeSet<&'static str>) {
        reached.insert(shape.name);
        for (_, _, kind) in shape.fields {
            if let shape::Kind::One(inner) | shape::Kind::Many(_, inner) = kind {
                reach(inner, reached);
            }
        }
    }
    let mut reached = BTreeSet::new();
    for sample in samples::all() {
        reach(sample.shape, &mut reached);
    }
    let all = shape::ALL.iter().map(|(_, shape)| shape.name).collect();
    assert_eq!(reached, all);
}

/// Key, id and signature of each statement, for other implementations.
#[test]
fn statements_have_their_golden_ids() {
    fn row<T: Statement>(name: &str, signed: &Signed<T>) -> String {
        let envelope = signed.envelope();
        let signature = to_hex(envelope.signature.as_bytes());
        format!("{name} {} {} {signature}\n", signed.key(), signed.id())
    }
    let fail = Outcome::Fail(samples::mismatch());
    let rows = [
        "# file (payload), key, id, signature\n".to_owned(),
        row("offer", &samples::signed_offer()),
        row("receipt", &samples::signed_receipt()),
        row("verdict-fail", &samples::signed_verdict(fail)),
        row("announcement", &samples::signed_announcement()),
        row("trace", &samples::signed_trace()),
    ];
    check_file("statements.txt", &rows.concat());
}

#[test]
fn a_receipt_is_small() {
    let largest = Receipt {
        number: u64::MAX,
        prompt_tokens: limits::MAX_PROMPT_TOKENS,
        output_tokens: limits::MAX_ANSWER_TOKENS,
        leaves: limits::MAX_LEAVES,
        issued_unix_ms: u64::MAX,
        class: Class::Statistical,
        ..samples::receipt()
    };
    assert_eq!(largest.encode().unwrap().len(), 281);
}
