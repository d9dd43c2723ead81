//! `bench`: what this machine makes of a model, measured with the code that serves.
//!
//! Each command takes its figures in turns, so that whatever else the machine
//! does hits all of them alike, and prints medians with their goals beside them.
//! The library measures durations; here they are repeated, ordered and compared.

mod cheats;
mod engine;
mod figures;
mod network;
mod proof;
mod quality;

use anyhow::Context as _;
use peerproof::models::Installed;

use super::models::ensure;
use crate::args::{BenchCommand, Place};
use figures::Report;

/// Prose of our own, long enough for prompts.
const TEXT: &str = include_str!("bench/text.txt");

pub(crate) fn run(place: &Place, command: BenchCommand) -> anyhow::Result<()> {
    let (report, json) = match command {
        BenchCommand::Engine { model, runs, speed_only, json } => {
            let model = installed(place, &model)?;
            (engine::run(&model, runs as usize, speed_only)?, json)
        }
        BenchCommand::Quality { model, text, tokens, chunk, skip, base, json } => {
            let model = installed(place, &model)?;
            let text = match text {
                Some(path) => {
                    std::fs::read_to_string(&path).with_context(|| path.display().to_string())?
                }
                None => peerproof::bench::novel(&place.home()?.models())?,
            };
            let part = quality::Part { tokens, context: chunk, skip };
            (quality::run(&model, &text, part, base.as_deref())?, json)
        }
        BenchCommand::Network { model, runs, providers, requests, json } => {
            let crowd = network::Crowd { providers, requests };
            (network::run(place, &model, &installed(place, &model)?, runs as usize, crowd)?, json)
        }
        BenchCommand::Proof { model, runs, sets, json } => {
            let model = installed(place, &model)?;
            (proof::run(&model, runs as usize, sets as usize)?, json)
        }
        BenchCommand::Cheats { trials, answers, model, json } => {
            let model = (answers > 0).then(|| installed(place, &model)).transpose()?;
            return cheats::run(trials, model.as_ref(), answers, json);
        }
        BenchCommand::Cold { file, threads } => return engine::cold(&file, threads),
    };
    if json { crate::output::print_json(&report) } else { print_table(&report) }
}

fn installed(place: &Place, model: &str) -> anyhow::Result<Installed> {
    ensure(&place.store()?, model)
}

fn print_table(report: &Report) -> anyhow::Result<()> {
    print!("{report}");
    Ok(())
}

/// One thread, and two where there are two cores.
fn thread_counts() -> Vec<usize> {
    if cores() > 1 { vec![1, 2] } else { vec![1] }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
