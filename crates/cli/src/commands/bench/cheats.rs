//! `bench cheats`: the cheat suite, in simulated worlds and with a real model.
//!
//! Each cheat that is about the protocol is a scripted peer among honest ones; the
//! real state machines meet it. Each cheat that is about the computation is a
//! provider that runs the model otherwise and opens what it committed to; full and
//! spot audits meet it. Absent here: both themselves, and the network.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::bail;
use indicatif::ProgressBar;
use peerproof::bench::{Cheated, KINDS, Trying, cheats};
use peerproof::models::Installed;
use peerproof_sim::{CheatRow, conducts, measure};
use serde_json::json;

use super::figures::{ms, percent};

/// Prompt and answer of the cheats of the computation.
const SHAPE: (usize, u32) = (24, 24);
/// Spot audits of each.
const SPOTS: u32 = 10_000;

/// Plays every cheat, in `trials` worlds or with `answers` of the model, and prints what came of it.
///
/// # Errors
/// If a cheat was not caught or somebody honest was accused: the tests fail then, too.
pub(super) fn run(
    trials: u64,
    model: Option<&Installed>,
    answers: u32,
    json: bool,
) -> anyhow::Result<()> {
    let rows = measure_on_all_cores(trials);
    let computed = model.map_or(Ok(Vec::new()), |model| compute(model, answers))?;
    if json {
        let rows = rows.iter().map(row_json).chain(computed.iter().map(computed_json));
        crate::output::print_json(&rows.collect::<Vec<_>>())?;
    } else {
        print!("{}", peerproof_sim::table(&rows));
        if !computed.is_empty() {
            print!("\n{}", table(&computed));
        }
    }
    let missed = rows.iter().filter(|row| !row.is_good()).count()
        + computed.iter().filter(|row| !row.is_good()).count();
    if missed > 0 {
        bail!(
            "{missed} of {} cheats were not caught each time, or cost an honest node",
            rows.len() + computed.len()
        );
    }
    Ok(())
}

fn compute(model: &Installed, answers: u32) -> anyhow::Result<Vec<Cheated>> {
    let trying = Trying { shape: SHAPE, answers, spots: SPOTS, threads: super::cores() };
    let progress = ProgressBar::new(u64::from(KINDS));
    let rows = cheats(&model.path, super::TEXT, trying, &mut |_| progress.inc(1))?;
    progress.finish_and_clear();
    Ok(rows)
}

/// Rows as a person reads them.
fn table(rows: &[Cheated]) -> String {
    let line = |cells: [&str; 11]| {
        let [cheat, answers, caught, wrong, lit, spots, odds, accused, full, spot, bytes] = cells;
        format!(
            "{cheat:<36} {answers:>7} {caught:>7} {wrong:>8} {lit:>8} {spots:>9} {odds:>9} {accused:>6} \
             {full:>8} {spot:>8} {bytes:>9}\n"
        )
    };
    let mut table = line([
        "computation",
        "answers",
        "full",
        "wrong %",
        "light %",
        "8 cells %",
        "must be %",
        "false",
        "full ms",
        "8 in ms",
        "8 in KiB",
    ]);
    for row in rows {
        let spotted = percent(row.spotted.into(), row.spots.into());
        let texts = [
            row.answers.to_string(),
            row.caught.to_string(),
            format!("{:.2}", percent(row.wrong.into(), row.cells.into())),
            format!("{:.2}", percent(row.lit.into(), row.cells.into())),
            format!("{spotted:.2}"),
            format!("{:.2}", 100.0 * row.odds()),
            row.false_accusations.to_string(),
            format!("{:.1}", ms(row.full)),
            format!("{:.1}", ms(row.spot)),
            format!("{:.0}", row.spot_bytes as f64 / 1024.0),
        ];
        let [answers, caught, wrong, lit, spots, odds, accused, full, spot, bytes] = &texts;
        table += &line([
            row.cheat, answers, caught, wrong, lit, spots, odds, accused, full, spot, bytes,
        ]);
    }
    table
}

fn computed_json(row: &Cheated) -> serde_json::Value {
    json!({
        "cheat": row.cheat,
        "role": "provider",
        "trials": row.answers,
        "caught": row.caught,
        "false_accusations": row.false_accusations,
        "checker_ms": ms(row.full),
        "cells": row.cells,
        "wrong_cells": row.wrong,
        "wrong_cells_refused_by_products": row.lit,
        "spot_audits": row.spots,
        "spot_audits_caught": row.spotted,
        "spot_audits_expected": row.odds(),
        "spot_audit_ms": ms(row.spot),
        "spot_audit_bytes": row.spot_bytes,
    })
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
