//! One module a command; this one only chooses.

mod ask;
mod bench;
mod config;
mod demo;
mod doctor;
mod firewall;
mod keys;
mod log;
mod models;
mod node;
mod prepare;
mod rep;
mod sim;
mod status;
mod verify;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use node::Role;

pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { place, kernels, command } = cli;
    if let Some(kernels) = kernels {
        peerproof::bench::choose_kernels(kernels.name())?;
    }
    match command {
        Command::Demo(args) => return demo::run(&place, &args),
        Command::Up(args) => return node::run(&place, Role::Up, &args),
        Command::Provide(args) => return node::run(&place, Role::Provide, &args),
        Command::Route(args) => return node::run(&place, Role::Route, &args),
        Command::Audit(args) => return node::run(&place, Role::Audit, &args),
        Command::Ask(args) => return ask::run(&place, *args),
        Command::Verify(args) => return verify::run(&place, &args),
        Command::Doctor(args) => return doctor::run(&place, &args),
        Command::Log(command) => return log::run(&place, command),
        Command::Rep(command) => return rep::run(&place, command),
        Command::Sim(args) => return sim::run(&args),
        Command::Firewall(command) => return firewall::run(&place, command),
        Command::Models(command) => models::run(&place, command)?,
        Command::Peers(args) => status::peers(&place, &args)?,
        Command::Keys(command) => keys::run(&place, command)?,
        Command::Status(args) => status::status(&place, &args)?,
        Command::Config(command) => config::run(&place, &command)?,
        Command::Bench(command) => bench::run(&place, command)?,
        Command::Completions { shell } => config::completions(shell),
    }
    Ok(ExitCode::SUCCESS)
}
