//! `cargo xtask tidy`: what the compiler and clippy don't check about this tree.
//!
//! * Every crate imports only what the table in `docs/architecture.md` allows it.
//! * The pure crates depend on nothing that has a clock, a file or a socket.
//! * Files and functions stay within the sizes that the table in `sizes` names;
//!   the figures are printed so that their trend can be seen.
//!
//! It reads files and `cargo metadata`, and changes nothing.

mod edges;
mod sizes;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("tidy") => tidy(),
        _ => Err(anyhow::anyhow!("usage: cargo xtask tidy")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tidy() -> Result<()> {
    let root = root();
    let table = std::fs::read_to_string(root.join("docs/architecture.md"))
        .context("docs/architecture.md")?;
    let mut faults = edges::check(&edges::parse_table(&table)?, &metadata()?)?;
    faults.extend(sizes::check(&root)?);
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() {
        println!("tidy");
        return Ok(());
    }
    bail!("{} faults", faults.len())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn metadata() -> Result<serde_json::Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
