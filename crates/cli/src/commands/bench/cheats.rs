//! `bench cheats`: the cheat suite, in simulated worlds.
//!
//! Each cheat that is about the protocol is a scripted peer among honest ones; the
//! real state machines meet it. Absent here: cheats that are about the
//! computation of a real model.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::bail;
use indicatif::ProgressBar;
use peerproof_sim::{CheatRow, conducts, measure};
use serde_json::json;

/// Plays every cheat in `trials` worlds and prints what came of it.
///
/// # Errors
/// If a cheat was not caught or somebody honest was accused: the simulator's
/// own tests fail then, too.
pub(super) fn run(trials: u64, json: bool) -> anyhow::Result<()> {
    let rows = measure_on_all_cores(trials);
    if json {
        let rows: Vec<_> = rows.iter().map(row_json).collect();
        crate::output::print_json(&rows)?;
    } else {
        print!("{}", peerproof_sim::table(&rows));
    }
    let missed = rows.iter().filter(|row| !row.is_good()).count();
    if missed > 0 {
        bail!(
            "{missed} of {} cheats were not caught each time, or cost an honest node",
            rows.len()
        );
    }
    Ok(())
}

/// The rows in the order of the suite.
fn measure_on_all_cores(trials: u64) -> Vec<CheatRow> {
    let cheats = conducts();
    let progress = ProgressBar::new(cheats.len() as u64);
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(cheat) = cheats.get(index) else { return };
            let row = measure(*cheat, trials);
            rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, row));
            progress.inc(1);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    progress.finish_and_clear();
    let mut rows = rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn row_json(row: &CheatRow) -> serde_json::Value {
    json!({
        "cheat": row.cheat,
        "role": row.role,
        "trials": row.trials,
        "caught": row.caught,
        "false_accusations": row.false_accusations,
        "checker_bytes": row.checker_bytes,
        "checker_positions": row.checker_positions,
        "checker_ms": row.checker_ms,
    })
}
