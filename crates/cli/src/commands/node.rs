//! `up`, `provide`, `route`, `audit`: a node that runs until it is told to stop.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use peerproof::models::{DEFAULT_MODEL, Installed, Store};
use peerproof::{Node, Settings};
use peerproof_gateway::GatewayError;
use serde_json::json;

use super::models::ensure;
use crate::args::{Cheat, NodeArgs, Place};
use crate::output::{bytes, print_json_line};

/// Layers that a cheating provider computes; the default model has 30.
const CHEATS_LAYERS: usize = 26;

/// Which command started the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Up,
    Provide,
    Route,
    Audit,
}

pub(crate) fn run(place: &Place, role: Role, args: &NodeArgs) -> anyhow::Result<ExitCode> {
    let config = place.config(overrides(role, args))?;
    let store = place.store()?;
    let named = chosen(role, &config.provide.models, &store)?;
    let mut settings = Settings::new(place.home()?, config);
    settings.hold = store.list()?;
    settings.only_layers = args.cheat.map(|Cheat::SkipLayers| CHEATS_LAYERS);
    match role {
        Role::Up | Role::Provide => settings.serve = named,
        Role::Audit => settings.audit = named,
        Role::Route => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings, args))
}

fn overrides(role: Role, args: &NodeArgs) -> Vec<peerproof::config::Override> {
    let mut flags = args.overrides();
    // Beside a router, the API of a pure provider or auditor is for its operator: any free port.
    if matches!(role, Role::Provide | Role::Audit) && args.api.is_none() {
        flags.push(crate::place::set("api.listen", "127.0.0.1:0"));
    }
    flags
}

/// The models a node works with: those named; otherwise the default one, which `up` uses only
/// if it is here already.
fn chosen(role: Role, named: &[String], store: &Store) -> anyhow::Result<Vec<Installed>> {
    if !named.is_empty() {
        return named.iter().map(|name| ensure(store, name)).collect();
    }
    Ok(match role {
        Role::Provide | Role::Audit => vec![ensure(store, DEFAULT_MODEL)?],
        Role::Up => default_alone(store.list()?),
        Role::Route => Vec::new(),
    })
}

/// The default model, if it is here; says what else is here and not served.
fn default_alone(here: Vec<Installed>) -> Vec<Installed> {
    let (default, others): (Vec<_>, Vec<_>) =
        here.into_iter().partition(|model| model.name == DEFAULT_MODEL);
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|model| model.name.as_str()).collect();
        eprintln!("installed and not served: {}; to serve one: --model NAME", names.join(", "));
    }
    default
}

async fn serve(settings: Settings, args: &NodeArgs) -> anyhow::Result<ExitCode> {
    let gateway = peerproof_gateway::GatewayConfig::from_settings(&settings)?;
    if !args.json {
        say_memory(&settings)?;
    }
    let node = Node::start(settings).await?;
    let bound = peerproof_gateway::Server::bind(node.client(), gateway).await;
    let server = bound.map_err(|error| match error {
        GatewayError::PortTaken { .. } => anyhow!("{error} with --api ADDR:PORT"),
        other => other.into(),
    })?;
    node.publish_api(&server.url())?;
    announce(&node, &server.url(), args.json)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    wait_for_end(args.with_parent).await?;
    if !args.json {
        eprintln!("stopping; press Ctrl-C again to stop at once");
    }
    let _ = stop.send(());
    // First who asks, then who answers: a job must not see its own node's network go away.
    let ending = async {
        let served = serving.await.context("the API server")?;
        node.shutdown().await;
        anyhow::Ok(served?)
    };
    tokio::select! {
        ended = ending => ended?,
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the models that are about to be loaded will take.
fn say_memory(settings: &Settings) -> anyhow::Result<()> {
    let (models, budget) = Node::memory(settings)?;
    let loaded =
        |name: &str| settings.serve.iter().chain(&settings.audit).any(|model| model.name == name);
    for model in models.iter().filter(|model| loaded(&model.name)) {
        eprintln!(
            "memory   {}: weights {}, cache up to {}, cache of replays up to {}, constraints {}, scratch {}; all models together {}",
            model.name,
            bytes(model.weights_bytes),
            bytes(model.cache_bytes),
            bytes(model.replay_cache_bytes),
            bytes(model.constraint_bytes),
            bytes(model.scratch_bytes),
            bytes(budget),
        );
    }
    Ok(())
}

fn announce(node: &Node, url: &str, as_json: bool) -> anyhow::Result<()> {
    let status = node.status();
    if as_json {
        return print_json_line(&json!({
            "event": "ready",
            "peer": status.peer,
            "addresses": status.addresses,
            "api": url,
            "serves": status.serves,
        }));
    }
    println!("peer     {}", status.peer);
    for address in &status.addresses {
        println!("address  {address}");
    }
    for model in &status.serves {
        println!("serves   {model}");
    }
    println!("api      {url}/v1");
    Ok(())
}

/// Ctrl-C, a termination signal, or the end of standard input if a parent holds it.
async fn wait_for_end(with_parent: bool) -> anyhow::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let (gone, parent_gone) = tokio::sync::oneshot::channel::<()>();
    if with_parent {
        std::thread::spawn(move || {
            let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
            let _ = gone.send(());
        });
        tokio::select! {
            _ = parent_gone => {}
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    } else {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    Ok(())
}
