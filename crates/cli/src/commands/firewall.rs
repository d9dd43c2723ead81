//! `firewall`: who may connect to this node.
//!
//! Reading and trying rules needs no node. A change goes through the running node
//! if there is one, so that it holds at once, also for connections that stand;
//! without one it is written for the next start.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use peerproof::firewall::{Change, Judged, Line, Origin, Rules, Said, parse_who};
use peerproof::reputation::{Book, parse_peer};
use serde_json::{Value, json};

use super::rep::now_ms;
use crate::api::Api;
use crate::args::{FirewallCommand, Place};
use crate::output::print_json;

pub(crate) fn run(place: &Place, command: FirewallCommand) -> anyhow::Result<ExitCode> {
    match command {
        FirewallCommand::List(args) => list(place, args.json)?,
        FirewallCommand::Allow { who, rate: None, json } => {
            change(place, "put", &format!("allow {who}"), json)?;
        }
        FirewallCommand::Allow { who, rate: Some(rate), json } => {
            change(place, "put", &format!("rate {rate} {who}"), json)?;
        }
        FirewallCommand::Deny { who, json } => change(place, "put", &format!("deny {who}"), json)?,
        FirewallCommand::Remove { who, json } => change(place, "remove", &who, json)?,
        FirewallCommand::Test { who, peer, json } => return test(place, &who, peer, json),
    }
    Ok(ExitCode::SUCCESS)
}

fn rules(place: &Place) -> anyhow::Result<Rules> {
    Ok(Rules::read(&place.home()?, &place.config(Vec::new())?.firewall)?)
}

fn list(place: &Place, as_json: bool) -> anyhow::Result<()> {
    let running = Api::of_running_node(place)?;
    let lines: Vec<Line> = match &running {
        Some(api) => serde_json::from_value(api.json("/peerproof/firewall")?["rules"].clone())?,
        None => rules(place)?.lines(None),
    };
    if as_json {
        return print_json(&json!({ "rules": lines, "running": running.is_some() }));
    }
    show(&lines);
    Ok(())
}

fn show(lines: &[Line]) {
    for Line { rule, origin, decided } in lines {
        let place = match origin {
            Origin::Command => "set",
            Origin::Configuration => "configured",
        };
        let decided = decided.map(|count| format!("  decided {count}")).unwrap_or_default();
        println!("{rule:50}  {place:10}{decided}");
    }
    println!("otherwise: allowed");
}

fn change(place: &Place, action: &str, rule: &str, as_json: bool) -> anyhow::Result<()> {
    // Said here, so that a slip is the same with a node and without.
    let Some(change) = Change::parse(action, rule)? else { bail!("{action} is no change") };
    let (lines, ended): (Vec<Line>, Option<u64>) = match Api::of_running_node(place)? {
        Some(api) => {
            let body = json!({ "action": action, "rule": rule });
            let mut said = api.post("/peerproof/firewall", &body)?;
            let ended = said["ended"].as_u64().context("the node did not say what ended")?;
            (serde_json::from_value(said["rules"].take())?, Some(ended))
        }
        None => {
            let changed = rules(place)?.changed(&change)?;
            changed.save()?;
            (changed.lines(None), None)
        }
    };
    if as_json {
        let value = json!({ "rules": lines, "running": ended.is_some(), "ended": ended });
        return print_json(&value);
    }
    show(&lines);
    match ended {
        None => println!("no node is running in this home; the rules hold from the next start"),
        Some(0) => println!("the running node judges by them"),
        Some(1) => println!("the running node judges by them; 1 connection ended"),
        Some(n) => println!("the running node judges by them; {n} connections ended"),
    }
    Ok(())
}

fn test(
    place: &Place,
    text: &str,
    peer: Option<String>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut who = parse_who(text)?;
    if let Some(peer) = peer {
        who.peer = Some(parse_peer(&peer)?);
    }
    if let Some(peer) = &who.peer {
        let book = Book::read(&place.home()?, place.config(Vec::new())?.reputation.rules())?;
        who.score = u16::try_from(book.record(peer, now_ms()).score).ok();
    }
    let judged = rules(place)?.judge(&who)?;
    if as_json {
        let mut value: Value = json!(judged);
        value["who"] = json!(text);
        value["reputation"] = json!(who.score);
        print_json(&value)?;
    } else {
        println!("{text}: {}", sentence(&judged));
    }
    Ok(if judged.verdict == Said::Denied { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

fn sentence(judged: &Judged) -> String {
    let by = judged.line.as_ref().map_or_else(
        || "no rule speaks of it".to_owned(),
        |line| format!("by the rule `{}`", line.rule),
    );
    match (judged.verdict, judged.before_handshake) {
        (Said::Admitted, _) => format!("allowed, {by}"),
        (Said::Paced, _) => format!("allowed so often, {by}"),
        (Said::Denied, true) => format!("denied before the handshake, {by}"),
        (Said::Denied, false) => format!("denied once its key is known, {by}"),
        (Said::KeyDecides, _) => {
            "its key decides, after the handshake; name one with --peer".to_owned()
        }
    }
}
