//! One module a command; this one only chooses.

mod config;
mod keys;
mod models;

use std::process::ExitCode;

use crate::args::{Cli, Command};

pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { place, command } = cli;
    match command {
        Command::Models(command) => models::run(&place, command)?,
        Command::Keys(command) => keys::run(&place, command)?,
        Command::Config(command) => config::run(&place, &command)?,
        Command::Completions { shell } => config::completions(shell),
        _ => anyhow::bail!("not here yet"),
    }
    Ok(ExitCode::SUCCESS)
}
