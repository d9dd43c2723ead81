//! `rep`: whom this node believes, why, and the user's own decisions.
//!
//! Reading is always from the log on the disk, beside a running node or without
//! one: the arithmetic is the same. What changes the log goes through the
//! running node if there is one, since only one process may write it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use peerproof::home::Home;
use peerproof::reputation::{self, Book, Line, Rechecked, Record, parse_peer};
use serde_json::{Value, json};

use super::log::time;
use crate::api::{Api, short};
use crate::args::{Place, RepCommand};
use crate::output::print_json;

pub(crate) fn run(place: &Place, command: RepCommand) -> anyhow::Result<ExitCode> {
    match command {
        RepCommand::Show(args) => show(place, args.json)?,
        RepCommand::Explain { peer, json } => explain(place, &peer, json)?,
        RepCommand::Block { peer, reason, json } => decide(place, &peer, true, &reason, json)?,
        RepCommand::Unblock { peer, reason, json } => decide(place, &peer, false, &reason, json)?,
        RepCommand::Recheck { peer, json } => return recheck(place, &peer, json),
        RepCommand::Export { peer, out, json } => export(place, &peer, out, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn book(place: &Place) -> anyhow::Result<(Home, Book)> {
    let home = place.home()?;
    let rules = place.config(Vec::new())?.reputation.rules();
    let book = Book::read(&home, rules)?;
    Ok((home, book))
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn show(place: &Place, as_json: bool) -> anyhow::Result<()> {
    let (_, book) = book(place)?;
    let records = book.records(now_ms());
    if as_json {
        let with_peer = |(peer, record): &(_, Record)| -> Value {
            let mut value = json!(record);
            value["peer"] = json!(ToString::to_string(peer as &dyn std::fmt::Display));
            value
        };
        return print_json(&records.iter().map(with_peer).collect::<Vec<_>>());
    }
    if records.is_empty() {
        println!("no record of anybody: this node has asked for nothing yet");
        return Ok(());
    }
    println!("peer      score  class  answers   tokens  audits  faults  audited  group");
    for (peer, record) in &records {
        let peer = peer.to_string();
        print!(
            "{}  {:5}  {:5}  {:7}  {:7}  {:6}  {:6}  {:4} ‰   {}",
            short(&peer),
            record.score,
            record.class,
            record.answers,
            record.tokens,
            record.audits,
            record.faults,
            record.audit_per_mille,
            record.group,
        );
        if let Some(why) = &record.barred {
            print!("  barred: {why}");
        }
        if let Some(score) = record.auditor_score {
            print!("  auditor: {score}");
        }
        if let Some(why) = &record.auditor_barred {
            print!(" (not asked: {why})");
        }
        println!();
    }
    Ok(())
}

/// A whole id, or the end of one that only one known peer has.
fn named(book: &Book, text: &str) -> anyhow::Result<peerproof::PeerId> {
    if let Ok(peer) = parse_peer(text) {
        return Ok(peer);
    }
    let known = book.records(0).into_iter().map(|(peer, _)| peer);
    let mut ends = known.filter(|peer| text.len() >= 6 && peer.to_string().ends_with(text));
    match (ends.next(), ends.next()) {
        (Some(peer), None) => Ok(peer),
        _ => Ok(parse_peer(text)?),
    }
}

fn explain(place: &Place, peer: &str, as_json: bool) -> anyhow::Result<()> {
    let (_, book) = book(place)?;
    let (peer, now) = (named(&book, peer)?, now_ms());
    let (record, lines) = (book.record(&peer, now), book.lines(&peer, now));
    if as_json {
        let peer = peer.to_string();
        return print_json(&json!({ "peer": peer, "record": record, "entries": lines }));
    }
    println!("{peer}");
    for Line { index, unix_ms, text, good, bad, left } in &lines {
        let counts = match (good, bad) {
            (0, 0) => String::new(),
            (good, 0) => format!("good {good}, today {left:.2}"),
            (_, bad) => format!("bad {bad}, today {left:.2}"),
        };
        println!("#{index:<6} {}  {counts:24} {text}", time(*unix_ms));
    }
    if lines.is_empty() {
        println!("the log says nothing of it");
    }
    for reason in &record.reasons {
        println!("{reason}");
    }
    Ok(())
}

fn decide(
    place: &Place,
    peer: &str,
    blocked: bool,
    reason: &str,
    as_json: bool,
) -> anyhow::Result<()> {
    let (home, book) = book(place)?;
    let peer = named(&book, peer)?;
    let record: Record = match Api::of_running_node(place)? {
        Some(api) => {
            let action = if blocked { "block" } else { "unblock" };
            let body = json!({ "peer": peer.to_string(), "action": action, "reason": reason });
            serde_json::from_value(api.post("/peerproof/reputation", &body)?)?
        }
        None => {
            let body = reputation::decision(&peer, blocked, reason);
            wait(reputation::append(&home, vec![body], now_ms()))??;
            self::book(place)?.1.record(&peer, now_ms())
        }
    };
    if as_json {
        return print_json(&json!({ "peer": peer.to_string(), "record": record }));
    }
    match &record.barred {
        Some(why) => println!("{peer} is barred: {why}"),
        None => println!("{peer} is not barred; score {}", record.score),
    }
    Ok(())
}

/// Exit code 0 if every accusation could be looked at again, 3 if not.
fn recheck(place: &Place, peer: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let (home, book) = book(place)?;
    let peer = named(&book, peer)?;
    let found: Rechecked = match Api::of_running_node(place)? {
        Some(api) => {
            let body = json!({ "peer": peer.to_string(), "action": "recheck" });
            serde_json::from_value(api.post("/peerproof/reputation", &body)?)?
        }
        None => {
            let (found, bodies) = reputation::recheck(&book, &peer, &place.store()?)?;
            wait(reputation::append(&home, bodies, now_ms()))??;
            found
        }
    };
    if as_json {
        print_json(&found)?;
    } else {
        for id in &found.refuted {
            println!("refuted    receipt {id} passes: it no longer counts");
        }
        for id in &found.confirmed {
            println!("confirmed  receipt {id} is wrong");
        }
        for why in &found.unchecked {
            println!("unchecked  receipt {why}");
        }
        if found == Rechecked::default() {
            println!("{peer} is accused of no wrong answer");
        }
    }
    Ok(if found.unchecked.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn export(place: &Place, peer: &str, out: Option<PathBuf>, as_json: bool) -> anyhow::Result<()> {
    let (_, book) = book(place)?;
    let peer = named(&book, peer)?;
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{peer}.evidence")));
    let pieces = book.export(&peer, &out)?;
    if as_json {
        return print_json(&json!({ "peer": peer.to_string(), "file": out, "pieces": pieces }));
    }
    let noun = if pieces == 1 { "piece" } else { "pieces" };
    println!("{pieces} {noun} of evidence about {peer} in {}", out.display());
    println!("anyone checks them with: peerproof verify {}", out.display());
    Ok(())
}

fn wait<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    Ok(runtime.context("no runtime")?.block_on(work))
}
