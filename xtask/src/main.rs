//! `cargo xtask test`: the models that tests use, then all tests.
//!
//! `cargo xtask tidy`: what the compiler and clippy don't check about this tree.
//!
//! * Every crate imports only what the table in `docs/architecture.md` allows it.
//! * The pure crates depend on nothing that has a clock, a file or a socket.
//! * Files and functions stay within the sizes that the table in `sizes` names;
//!   the figures are printed so that their trend can be seen.
//!
//! The latter reads files and `cargo metadata`, and changes nothing.

mod edges;
mod sizes;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

/// The models that tests run, by the names they are pulled by.
const MODELS: [&str; 2] = ["smollm2-135m", "gemma3-270m"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("test") => test(&arguments[1..]),
        Some("tidy") => tidy(),
        _ => Err(anyhow::anyhow!("usage: cargo xtask test [what cargo test takes] | tidy")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Brings the models that tests run, where they are not here yet, and runs every test
/// of the workspace.
fn test(more: &[String]) -> Result<()> {
    for model in MODELS {
        run(&["run", "--release", "--locked", "--quiet", "--", "models", "pull", model], &[])?;
    }
    run(&["test", "--workspace", "--locked", "--no-fail-fast"], more)
}

fn run(arguments: &[&str], more: &[String]) -> Result<()> {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    let status = command.args(arguments).args(more).current_dir(root()).status();
    if !status.context("cargo")?.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
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
