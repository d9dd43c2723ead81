//! `config` and `completions`.

use clap::CommandFactory;

use crate::args::{Cli, ConfigCommand, Place};

pub(crate) fn run(place: &Place, command: &ConfigCommand) -> anyhow::Result<()> {
    let file = place.config.clone().map_or_else(|| place.home().map(|h| h.config_file()), Ok)?;
    match command {
        ConfigCommand::Show => print!("{}", place.config(Vec::new())?.to_toml()),
        ConfigCommand::Check => {
            place.config(Vec::new())?;
            let state = if file.exists() { "is" } else { "does not exist; the defaults are" };
            println!("{} {state} fine", file.display());
        }
        ConfigCommand::Path => println!("{}", file.display()),
    }
    Ok(())
}

pub(crate) fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "peerproof", &mut std::io::stdout());
}
