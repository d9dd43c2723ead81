//! The specification page says what the code does: names and values can't drift apart.

use std::collections::BTreeSet;

use peerproof_identity::Domain;

use crate::shape;
use crate::*;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spec/wire.md"));

#[test]
fn limits_in_the_page_equal_the_code() {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `MAX_")?.split('|');
        let name = format!("MAX_{}", cells.next()?.trim().trim_end_matches('`'));
        let value = cells.next()?.trim().replace(' ', "");
        Some((name, value.parse().unwrap()))
    });
    let code = limits::ALL.iter();
    let code = code.map(|(name, value)| ((*name).to_owned(), *value));
    assert_eq!(rows.collect::<Vec<(String, u64)>>(), code.collect::<Vec<_>>());
}

/// Fields in the page, as `number name` under a heading with the message's
/// name, equal the schemas.
#[test]
fn messages_in_the_page_equal_the_schemas() {
    let names =
        ["statement", "job", "audit", "announce", "evidence", "range", "cells", "dispute", "log"];
    let schemas = protox::compile(names.map(|name| format!("{name}.proto")), ["proto"]).unwrap();
    let mut expected = BTreeSet::new();
    for message in schemas.file.iter().flat_map(|file| &file.message_type) {
        for field in &message.field {
            let number = field.number();
            expected.insert(format!("{} {number} {}", message.name(), field.name()));
        }
    }
    let mut message = "";
    let mut got = BTreeSet::new();
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            message = heading;
        } else if let Some(row) = line.strip_prefix("| ") {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            if let [number, name, ..] = cells[..]
                && number.parse::<u32>().is_ok()
            {
                got.insert(format!("{message} {number} {}", name.trim_matches('`')));
            }
        }
    }
    assert_eq!(got, expected);
    assert!(shape::ALL.len() > 30);
}

#[test]
fn the_page_names_every_protocol_and_tag() {
    let protocols = [
        JOB_PROTOCOL,
        AUDIT_PROTOCOL,
        INFO_PROTOCOL,
        RANGE_PROTOCOL,
        CELLS_PROTOCOL,
        DISPUTE_PROTOCOL,
        PROOF_PROTOCOL,
        LOG_PROTOCOL,
        EVIDENCE_TOPIC,
        KAD_PROTOCOL,
        IDENTIFY_PROTOCOL,
    ];
    for name in protocols.into_iter().chain(Domain::ALL.map(Domain::tag)) {
        assert!(PAGE.contains(&format!("`{name}`")), "{name}");
    }
    for version in [format!("protocol = {PROTOCOL}"), format!("arithmetic = {ARITHMETIC}")] {
        assert!(PAGE.contains(&version), "{version}");
    }
}
