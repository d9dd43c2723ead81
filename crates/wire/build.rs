//! Compiles the schemas in `proto/` to Rust, without a system `protoc`.

use std::error::Error;

const SCHEMAS: [&str; 9] = [
    "statement.proto",
    "job.proto",
    "audit.proto",
    "announce.proto",
    "evidence.proto",
    "range.proto",
    "cells.proto",
    "dispute.proto",
    "log.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let schemas = protox::compile(SCHEMAS, ["proto"])?;
    prost_build::Config::new().skip_source_info().compile_fds(schemas)?;
    Ok(())
}
