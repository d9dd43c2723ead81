//! The binary `peerproof`.
//!
//! Arguments become one [`args::Command`]; its module in `commands` does the
//! work through the library and prints. Errors end here, as a sentence for a
//! person, with exit code 1 (2 for usage, by clap; 130 after Ctrl-C).
//! There is no protocol and no arithmetic in this crate.

mod api;
mod args;
mod commands;
mod output;
mod place;
mod stage;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match cli.command {
        // What goes wrong with the one question is the error below, said once.
        args::Command::Ask(_) => {
            output::start_log(&format!("{},{}=off", cli.place.log, peerproof_gateway::FAILURES));
        }
        _ => output::start_log(&cli.place.log),
    }
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The chain of causes, without those that an error has put into its own words already.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match said.as_str() {
            "" => cause,
            said if said.contains(&cause) => said.to_owned(),
            said => format!("{said}: {cause}"),
        }
    })
}
