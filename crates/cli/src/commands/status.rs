//! `status` and `peers`: what the running node says.

use peerproof::client::{LogStatus, NodeStatus, PeerPrice, ServedModel};

use crate::api::{Api, short};
use crate::args::{ListArgs, Place};
use crate::output::{bytes as bytes_text, print_json};

pub(crate) fn status(place: &Place, args: &ListArgs) -> anyhow::Result<()> {
    let api = Api::require_running_node(place)?;
    let status: NodeStatus = serde_json::from_value(api.json("/peerproof/status")?)?;
    if args.json {
        return print_json(&status);
    }
    println!("peer       {}", status.peer);
    println!("roles      {}", status.roles.join(", "));
    for address in &status.addresses {
        println!("address    {address}");
    }
    println!(
        "serves     {}",
        if status.serves.is_empty() { "nothing".into() } else { status.serves.join(", ") }
    );
    for model in status.models.iter().filter(|model| model.serves || model.loaded_bytes.is_some()) {
        let state = match model.loaded_bytes {
            Some(bytes) => format!("open, {}", bytes_text(bytes)),
            None => format!("not open, needs {}", bytes_text(model.needs_bytes)),
        };
        println!("model      {}: {state}", model.name);
        if let Some(engine) = &model.engine {
            let free = engine.pages.saturating_sub(engine.pages_used + engine.pages_kept);
            println!(
                "           {} jobs, {} tokens in the last pass; cache pages: {} used, {} kept, {free} free of {} each",
                engine.jobs_active,
                engine.batch_tokens,
                engine.pages_used,
                engine.pages_kept,
                bytes_text(engine.page_bytes)
            );
        }
    }
    for served in prices(&api)? {
        println!("price      {served}");
    }
    println!("memory     {} for models", bytes_text(status.memory_budget_bytes));
    println!("peers      {}", status.peers);
    println!(
        "jobs       {} running, {} waiting, {} asked for",
        status.active_jobs, status.queued_jobs, status.asking
    );
    if status.shared_bytes > 0 {
        println!("shared     {} of model files", bytes_text(status.shared_bytes));
    }
    println!("log        {} entries{}", status.log_entries, vouched(&status.log));
    if let Some(fault) = &status.log.fault {
        println!("FENCED     {fault}; it signs nothing more");
    }
    println!("up         {} s", status.uptime_s);
    Ok(())
}

/// What others announce of their costs, a line a model and peer.
fn prices(api: &Api) -> anyhow::Result<Vec<String>> {
    let models: Vec<ServedModel> = serde_json::from_value(api.json("/peerproof/models")?)?;
    let line = |model: &ServedModel, offered: &PeerPrice| {
        let price = &offered.price;
        let known = |us: u32| match us {
            0 => "–".to_owned(),
            us => format!("{}.{:03} ms", us / 1000, us % 1000),
        };
        let terms = match price.per_million {
            0 => String::new(),
            number => format!(", {number} {} a million tokens", price.unit),
        };
        format!(
            "{} of {}: a token {}, recomputed {}, opened {}; a cell {}{terms}",
            model.name,
            short(&offered.peer),
            known(price.token_us),
            known(price.replay_us),
            known(price.opening_us),
            bytes_text(price.cell_bytes.into()),
        )
    };
    Ok(models.iter().flat_map(|m| m.prices.iter().map(move |p| line(m, p))).collect())
}

/// What witnesses say of the log, for a node that others take signatures from.
fn vouched(log: &LogStatus) -> String {
    match (log.cosigners.len(), log.asked_at_start) {
        (0, None) => String::new(),
        (0, Some(_)) => ", no witness: an older copy of it would go unnoticed".into(),
        (count, _) => format!(", {count} witnesses up to entry {}", log.cosigned_entries),
    }
}

pub(crate) fn peers(place: &Place, args: &ListArgs) -> anyhow::Result<()> {
    let peers = Api::require_running_node(place)?.peers()?;
    if args.json {
        return print_json(&peers);
    }
    for peer in &peers {
        let rtt =
            peer.rtt_us.map_or("–".into(), |us| format!("{}.{} ms", us / 1000, us % 1000 / 100));
        let state = peer.barred.as_ref().map_or(String::new(), |why| format!("  barred: {why}"));
        println!(
            "{}  {:5}{:>9}  {:7}  {:4}  {}  {}{state}",
            short(&peer.peer),
            peer.transport,
            rtt,
            peer.source,
            peer.reputation,
            peer.address,
            peer.serves.join(", ")
        );
    }
    if peers.is_empty() {
        println!("no peers; run: peerproof doctor");
    }
    Ok(())
}
