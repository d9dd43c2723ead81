//! `sim`: attack plans on finding, beside stock Kademlia.
//!
//! A plan comes by name or from a scenario file, which holds a plan and how much of it
//! is played. Absent here: the networks themselves, which `peerproof_sim` makes up.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use peerproof_sim::{FindingRow, PLANS, Plan, Size, finding_table, measure_finding};
use serde::Deserialize;
use serde_json::json;

use crate::args::SimArgs;

const LIST: &str = "list";
const ALL: &str = "all";

/// What a scenario file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    plan: String,
    nodes: Option<usize>,
    networks: Option<u64>,
    keys: Option<u64>,
    readers: Option<u64>,
    seed: Option<u64>,
}

pub(crate) fn run(args: &SimArgs) -> anyhow::Result<ExitCode> {
    let scenario = args.scenario.as_deref().map(read).transpose()?;
    let of_file = |figure: fn(&Scenario) -> Option<u64>| scenario.as_ref().and_then(figure);
    let name = match (&args.plan, &scenario) {
        (Some(name), None) => name.clone(),
        (None, Some(scenario)) => scenario.plan.clone(),
        _ => bail!("name a plan or a --scenario file; `peerproof sim list` shows the plans"),
    };
    if name == LIST {
        PLANS.iter().for_each(|plan| println!("{}", plan.name));
        return Ok(ExitCode::SUCCESS);
    }
    let plans = match (name.as_str(), Plan::named(&name)) {
        (ALL, _) => PLANS.to_vec(),
        (_, Some(plan)) => vec![plan],
        (_, None) => bail!("no plan is named {name:?}; `peerproof sim list` shows all"),
    };
    let nodes = scenario.as_ref().and_then(|scenario| scenario.nodes);
    let size = Size {
        nodes: args.nodes.or(nodes).unwrap_or(1_000),
        networks: args.networks.or(of_file(|file| file.networks)).unwrap_or(4),
        keys: args.keys.or(of_file(|file| file.keys)).unwrap_or(5),
        readers: args.readers.or(of_file(|file| file.readers)).unwrap_or(10),
    };
    let seed = args.seed.or(of_file(|file| file.seed)).unwrap_or(1);
    let rows = play(&plans, size, seed);
    if args.json {
        crate::output::print_json(&rows.iter().map(row_json).collect::<Vec<_>>())?;
    } else {
        print!("{}", finding_table(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Scenario> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| format!("{} is no scenario", path.display()))
}

fn play(plans: &[Plan], size: Size, seed: u64) -> Vec<FindingRow> {
    let progress = ProgressBar::new(plans.len() as u64 * size.networks);
    let mut rows = Vec::new();
    for plan in plans {
        rows.extend(measure_finding(plan, size, seed, &mut || progress.inc(1)));
    }
    progress.finish_and_clear();
    rows
}

fn row_json(row: &FindingRow) -> serde_json::Value {
    let pair = |[median, high]: [u64; 2]| json!({ "p50": median, "p95": high });
    json!({
        "plan": row.plan,
        "method": row.method,
        "lookups": row.lookups,
        "found": row.found,
        "calls": pair(row.calls),
        "bytes": pair(row.bytes),
        "first_ms": pair(row.first_ms),
        "done_ms": pair(row.done_ms),
        "write_calls": pair(row.write_calls),
        "kept": pair(row.kept),
        "alarms": row.alarms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_file_names_a_plan_and_every_plan_has_one() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios");
        let mut named = Vec::new();
        for file in std::fs::read_dir(folder).expect("a folder of scenarios") {
            let scenario = read(&file.expect("a file").path()).expect("a scenario");
            assert!(Plan::named(&scenario.plan).is_some(), "{}", scenario.plan);
            named.push(scenario.plan);
        }
        assert!(PLANS.iter().all(|plan| named.iter().any(|name| name == plan.name)));
    }

    #[test]
    fn a_scenario_with_an_unknown_field_is_refused() {
        assert!(toml::from_str::<Scenario>("plan = 'none'\nnodez = 3").is_err());
    }
}
