//! Which crate may import which: the table of `docs/architecture.md` against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What the table says of one crate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// `None` beside the house.
    floor: Option<u8>,
    imports: BTreeSet<String>,
}

/// Crates of these floors are pure; anything else they use is listed here, with nothing that does I/O.
const PURE_FLOORS: std::ops::RangeInclusive<u8> = 0..=1;
const PURE_DEPENDENCIES: [&str; 14] = [
    "base64",
    "blake3",
    "bs58",
    "chacha20poly1305",
    "crc32c",
    "curve25519-dalek",
    "ed25519-dalek",
    "prost",
    "prost-build",
    "protox",
    "sha2",
    "thiserror",
    "vrf-rfc9381",
    "zeroize",
];

/// Reads rows of the form ``| 1 | `log` | … | identity, wire |`` (floor, crate, …, imports);
/// the floor of a crate beside the house is `beside`.
pub(crate) fn parse_table(page: &str) -> Result<BTreeMap<String, Row>> {
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (Some(floor), Some(name), Some(imports)) = (cells.first(), cells.get(1), cells.last())
        else {
            continue;
        };
        let floor = match (*floor, floor.parse()) {
            ("beside", _) => None,
            (_, Ok(floor)) => Some(floor),
            (_, Err(_)) => continue,
        };
        let imports = imports.split(',').map(str::trim).filter(|i| !i.is_empty() && *i != "–");
        let row = Row { floor, imports: imports.map(str::to_owned).collect() };
        if rows.insert(name.trim_matches('`').to_owned(), row).is_some() {
            bail!("{name} stands twice in the table of crates");
        }
    }
    if rows.is_empty() {
        bail!("docs/architecture.md has no table of crates");
    }
    Ok(rows)
}

/// Every edge that the table does not allow, and every crate that it does not name.
pub(crate) fn check(table: &BTreeMap<String, Row>, metadata: &Value) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = short(package["name"].as_str().context("name")?);
        if matches!(name, "xtask" | "fuzz") {
            continue;
        }
        seen.insert(name.to_owned());
        let Some(row) = table.get(name) else {
            faults.push(format!("crate {name} is missing from the table in docs/architecture.md"));
            continue;
        };
        faults.extend(check_package(name, row, package)?);
    }
    let absent = table.keys().filter(|name| !seen.contains(*name));
    faults
        .extend(absent.map(|name| format!("docs/architecture.md names {name}, which is no crate")));
    Ok(faults)
}

fn check_package(name: &str, row: &Row, package: &Value) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for dependency in package["dependencies"].as_array().context("dependencies")? {
        let full = dependency["name"].as_str().context("name")?;
        if dependency["kind"] == "dev" {
            continue;
        }
        let mut features = dependency["features"].as_array().into_iter().flatten();
        if features.any(|feature| feature == "planted-bugs") {
            faults.push(format!("{name} enables planted bugs of {full} outside its tests"));
        }
        if dependency["path"].is_string() {
            if !row.imports.contains(short(full)) {
                faults.push(format!(
                    "{name} imports {}, which the table does not allow",
                    short(full)
                ));
            }
        } else if row.floor.is_some_and(|floor| PURE_FLOORS.contains(&floor))
            && !PURE_DEPENDENCIES.contains(&full)
        {
            faults.push(format!("{name} is pure and may not depend on {full}"));
        }
    }
    Ok(faults)
}

fn short(package: &str) -> &str {
    package.strip_prefix("peerproof-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]
    use super::*;
    use serde_json::json;

    const PAGE: &str = "\
| Floor | Crate | Purpose | May import |
|---|---|---|---|
| 0 | `identity` | keys | – |
| 1 | `log` | a log | identity |
";

    fn package(name: &str, dependencies: Value) -> Value {
        json!({ "packages": [{ "name": name, "dependencies": dependencies }] })
    }

    fn faults(name: &str, dependencies: Value) -> Vec<String> {
        let table = parse_table(PAGE).unwrap();
        let all = check(&table, &package(name, dependencies)).unwrap();
        all.into_iter().filter(|fault| !fault.contains("which is no crate")).collect()
    }

    #[test]
    fn allowed_edges_pass() {
        let edge = json!([{ "name": "peerproof-identity", "kind": null, "path": "x" }]);
        assert!(faults("peerproof-log", edge).is_empty());
    }

    #[test]
    fn forbidden_edges_are_named() {
        let edge = json!([{ "name": "peerproof-log", "kind": null, "path": "x" }]);
        assert_eq!(faults("peerproof-identity", edge).len(), 1);
        let edge = json!([{ "name": "tokio", "kind": null }]);
        assert_eq!(faults("peerproof-log", edge), ["log is pure and may not depend on tokio"]);
        assert_eq!(faults("peerproof-stray", json!([])).len(), 1);
    }

    #[test]
    fn planted_bugs_stay_in_tests() {
        let edge = |kind: Value| {
            json!([{
                "name": "peerproof-identity", "kind": kind, "path": "x",
                "features": ["planted-bugs"],
            }])
        };
        assert_eq!(faults("peerproof-log", edge(Value::Null)).len(), 1);
        assert!(faults("peerproof-log", edge(json!("dev"))).is_empty());
    }

    #[test]
    fn a_crate_beside_the_house_keeps_to_its_row() {
        let page = format!("{PAGE}| beside | `sim` | a world | log |\n");
        let edges = |name: &str| json!([{ "name": name, "kind": null, "path": "x" }]);
        let check = |name| {
            let table = parse_table(&page).unwrap();
            let all = check(&table, &package("peerproof-sim", edges(name))).unwrap();
            all.into_iter().filter(|fault| !fault.contains("which is no crate")).count()
        };
        assert_eq!((check("peerproof-log"), check("peerproof-identity")), (0, 1));
    }

    #[test]
    fn tests_may_use_anything() {
        let edge = json!([{ "name": "tokio", "kind": "dev" }]);
        assert!(faults("peerproof-log", edge).is_empty());
    }

    #[test]
    fn a_page_without_a_table_is_refused() {
        assert!(parse_table("# nothing").is_err());
    }
}
