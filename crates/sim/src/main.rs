//! Runs simulated worlds from the command line: `--scenario NAME --seed N [--trace]`,
//! `--seeds N` for many, `cheats [--trials N] [--json]` for the report of the cheat suite,
//! `finding` for lookups under attack, beside stock Kademlia.

use std::process::ExitCode;

use peerproof_sim::{
    CheatRow, NAMES, PLANS, Plan, Scenario, Size, Words, conducts, finding_table, measure_all,
    measure_finding, name_of, run, table,
};

const USAGE: &str = "peerproof-sim [--scenario NAME] [--seed N] [--seeds COUNT] [--trace]
peerproof-sim cheats [--trials COUNT] [--json]
peerproof-sim finding [--plan NAME] [--nodes N] [--networks N] [--keys N] [--readers N] [--seed N]
peerproof-sim list";

/// What was asked for.
#[derive(Debug)]
struct Asked {
    command: Option<String>,
    scenario: String,
    seed: u64,
    seeds: u64,
    trials: u64,
    trace: bool,
    json: bool,
    plan: Option<String>,
    size: Size,
}

fn main() -> ExitCode {
    let asked = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match asked.command.as_deref() {
        None => play(&asked),
        Some("cheats") => cheats(&asked),
        Some("finding") => finding(&asked),
        Some("list") => {
            let cheats =
                conducts().into_iter().map(|conduct| format!("cheat:{}", name_of(conduct)));
            NAMES.into_iter().map(String::from).chain(cheats).for_each(|name| println!("{name}"));
            ExitCode::SUCCESS
        }
        Some(other) => {
            eprintln!("{other:?} is no command\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked {
        command: None,
        scenario: "soup".into(),
        seed: 0,
        seeds: 1,
        trials: 20,
        trace: false,
        json: false,
        plan: None,
        size: Size { nodes: 1_000, networks: 2, keys: 5, readers: 5 },
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} takes a value"));
        let number =
            |value: String| value.parse::<u64>().map_err(|_| format!("{value:?} is no number"));
        match word.as_str() {
            "--scenario" => asked.scenario = value()?,
            "--seed" => asked.seed = number(value()?)?,
            "--seeds" => asked.seeds = number(value()?)?,
            "--trials" => asked.trials = number(value()?)?,
            "--plan" => asked.plan = Some(value()?),
            "--nodes" => asked.size.nodes = number(value()?)? as usize,
            "--networks" => asked.size.networks = number(value()?)?,
            "--keys" => asked.size.keys = number(value()?)?,
            "--readers" => asked.size.readers = number(value()?)?,
            "--trace" => asked.trace = true,
            "--json" => asked.json = true,
            _ if asked.command.is_none() && !word.starts_with('-') => asked.command = Some(word),
            _ => return Err(format!("{word:?} is no option")),
        }
    }
    Ok(asked)
}

fn play(asked: &Asked) -> ExitCode {
    let (mut failed, mut jobs, mut steps) = (0_u64, 0_u64, 0_u64);
    for seed in asked.seed..asked.seed.saturating_add(asked.seeds) {
        let Some(scenario) = Scenario::named(&asked.scenario, seed) else {
            eprintln!("{:?} is no scenario; `peerproof-sim list` shows all", asked.scenario);
            return ExitCode::from(2);
        };
        let words = if asked.trace { Words::Kept } else { Words::Hashed };
        let run = run(&scenario, seed, words);
        run.lines.iter().for_each(|line| println!("{line}"));
        let trace: String = run.trace[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{} seed {seed}: trace {trace}, {:?}", scenario.name, run.figures);
        for violation in &run.violations {
            println!("  BROKEN: {violation}");
        }
        jobs += run.figures.jobs;
        steps += run.figures.steps;
        failed += u64::from(!run.violations.is_empty());
    }
    println!(
        "{} worlds, {jobs} jobs, {steps} steps recomputed, {failed} worlds broken",
        asked.seeds
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cheats(asked: &Asked) -> ExitCode {
    let rows = measure_all(asked.trials);
    if asked.json {
        let rows: Vec<String> = rows.iter().map(json).collect();
        println!("[\n{}\n]", rows.join(",\n"));
    } else {
        print!("{}", table(&rows));
    }
    let good = rows.iter().all(CheatRow::is_good);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One plan or all, each by both methods.
fn finding(asked: &Asked) -> ExitCode {
    let plans = match asked.plan.as_deref().map(Plan::named) {
        None => PLANS.to_vec(),
        Some(Some(plan)) => vec![plan],
        Some(None) => {
            let names: Vec<&str> = PLANS.iter().map(|plan| plan.name).collect();
            eprintln!("no such plan; there are {}", names.join(", "));
            return ExitCode::from(2);
        }
    };
    for plan in plans {
        print!("{}", finding_table(&measure_finding(&plan, asked.size, asked.seed, &mut || {})));
    }
    ExitCode::SUCCESS
}

/// A row of the report; no field needs escaping.
fn json(row: &CheatRow) -> String {
    format!(
        "  {{\"cheat\": \"{}\", \"role\": \"{}\", \"trials\": {}, \"caught\": {}, \
         \"false_accusations\": {}, \"checker_bytes\": {}, \"checker_positions\": {}, \
         \"checker_ms\": {}}}",
        row.cheat,
        row.role,
        row.trials,
        row.caught,
        row.false_accusations,
        row.checker_bytes,
        row.checker_positions,
        row.checker_ms
    )
}
