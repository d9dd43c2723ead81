//! Prints what topics, address book and registrars do under attack:
//! `gates topics|eclipse|flood [--large]`.
//!
//! Without `--large` each takes a minute or less in a release build; with it the
//! sizes are those that figures in the documents are made with.

use std::process::ExitCode;

use peerproof_sim::{
    EclipsePlan, TOPIC_PLANS, eclipse_table, measure_eclipse, measure_flood, measure_topics,
    topics_table,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let large = words.iter().any(|word| word == "--large");
    match words.first().map(String::as_str) {
        Some("topics") => topics(large),
        Some("eclipse") => eclipse(large),
        Some("flood") => flood(large),
        _ => {
            eprintln!("gates topics|eclipse|flood [--large]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn topics(large: bool) {
    let size = if large { (20, 10_000, 50) } else { (2, 1_000, 20) };
    println!("{} networks of {} nodes, {} searches each", size.0, size.1, size.2);
    let rows = TOPIC_PLANS.map(|plan| (plan, measure_topics(&plan, size, 1)));
    print!("{}", topics_table(&rows));
}

fn eclipse(large: bool) {
    let plan = |percent| EclipsePlan {
        honest: if large { 10_000 } else { 1_500 },
        percent,
        told: if large { 1_000 } else { 100 },
        feelers: 720,
        worlds: if large { 10 } else { 2 },
        restarts: if large { 2_000 } else { 500 },
    };
    let rows = [10, 30, 50].map(|percent| {
        let plan = plan(percent);
        (plan, measure_eclipse(&plan, 1))
    });
    print!("{}", eclipse_table(&rows));
}

fn flood(large: bool) {
    let (per_second, seconds) = if large { (10_000, 60) } else { (2_000, 20) };
    let row = measure_flood(per_second, seconds, 1);
    println!(
        "{} registrations in {seconds} s from 256 /24s: {} passed the rates, {} held; \
         an honest stranger waits {} ms, without the flood {} ms",
        row.requests, row.admitted, row.held, row.flood_ms, row.calm_ms
    );
}
