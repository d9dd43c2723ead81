//! `doctor`: why peers or models can't be found.
//!
//! A router of its own starts for a few seconds, looks around as any router
//! would, and says what it saw and what to do about it. It runs beside a node
//! in the same home, since it writes nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use peerproof::client::PeerStatus;
use peerproof::config::Config;
use peerproof::net::{Diagnosis, Mdns};
use peerproof::{Node, Settings, home::Home};
use serde_json::json;

use crate::api::Api;
use crate::args::{DoctorArgs, Place};
use crate::output::print_json;

/// How long it looks around, unless the model is found before.
const LOOK: Duration = Duration::from_secs(6);
const POLL: Duration = Duration::from_millis(100);

/// One thing that was looked at.
struct Finding {
    fine: bool,
    what: String,
    /// What to do, if it is not fine.
    advice: Option<String>,
}

fn fine(what: String) -> Finding {
    Finding { fine: true, what, advice: None }
}

fn bad(what: String, advice: &str) -> Finding {
    Finding { fine: false, what, advice: Some(advice.into()) }
}

/// Exit code 1 if the model can't be found.
pub(crate) fn run(place: &Place, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let config = place.config(args.reach.overrides())?;
    let mut findings = local(place, &config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let found = runtime.block_on(look(config, &args.model, &mut findings))?;
    if args.json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({ "fine": f.fine, "what": f.what, "advice": f.advice }))
            .collect();
        print_json(&json!({ "model": args.model, "found": found, "findings": list }))?;
    } else {
        for finding in &findings {
            println!("{} {}", if finding.fine { "ok  " } else { "BAD " }, finding.what);
            if let Some(advice) = &finding.advice {
                println!("     {advice}");
            }
        }
    }
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn local(place: &Place, config: &Config) -> anyhow::Result<Vec<Finding>> {
    let home = place.home()?;
    let mut findings = Vec::new();
    findings.push(if home.key_file().exists() {
        match home.key() {
            Ok(key) => fine(format!("node key {}", key.public().peer_id())),
            Err(error) => bad(error.to_string(), "nothing works without a key"),
        }
    } else {
        fine("no node key yet: the first start makes one".into())
    });
    findings.push(fine(format!("{} kernels", peerproof::bench::kernels())));
    let models = place.store()?.list()?;
    let names: Vec<&str> = models.iter().map(|m| m.name.as_str()).collect();
    findings.push(if names.is_empty() {
        fine("no model is installed here: this node can ask, and others check for it".into())
    } else {
        fine(format!("models here: {}", names.join(", ")))
    });
    if Api::of_running_node(place)?.is_some() {
        findings.push(fine("a node is running in this home".into()));
    }
    if config.network.loopback {
        findings.push(fine("this node stays on loopback".into()));
    }
    Ok(findings)
}

/// Looks around with a router in a home of its own.
async fn look(config: Config, model: &str, findings: &mut Vec<Finding>) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    let home = Home::find(Some(folder.path()), Some(folder.path()), &Default::default())?;
    let node = Node::start(Settings::new(home, config.clone())).await?;
    let client = node.client();
    let since = Instant::now();
    let serves = |peers: &[PeerStatus]| {
        peers.iter().any(|peer| peer.serves.iter().any(|name| name == model))
    };
    let mut peers = client.peers().await;
    while since.elapsed() < LOOK && !serves(&peers) {
        tokio::time::sleep(POLL).await;
        peers = client.peers().await;
    }
    if !serves(&peers) {
        let _ = client.find(model).await;
        peers = client.peers().await;
    }
    if let Some(diagnosis) = client.diagnose().await {
        findings.extend(network(&diagnosis, &config));
    }
    findings.push(match peers.len() {
        0 => bad(
            "no peer answered".into(),
            "start a provider on this network, or name a peer with --peer MULTIADDR",
        ),
        n => fine(format!("{n} peers answer")),
    });
    let found = serves(&peers) || client.models().iter().any(|m| m.name == model);
    findings.push(if found {
        fine(format!("{model} is served, found within {} ms", since.elapsed().as_millis()))
    } else {
        bad(
            format!("nobody serves {model}"),
            "run `peerproof provide` on a machine these peers can reach, or ask for another model",
        )
    });
    node.shutdown().await;
    Ok(found)
}

fn network(diagnosis: &Diagnosis, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for listener in &diagnosis.listeners {
        findings.push(match &listener.error {
            None => fine(format!("listening on {}", listener.requested)),
            Some(error) => bad(
                format!("not listening on {}: {error}", listener.requested),
                "choose another port with --set network.port=…",
            ),
        });
    }
    findings.extend(mdns(&diagnosis.mdns));
    for seed in &diagnosis.bootstrap {
        findings.push(match (&seed.error, seed.connected) {
            (_, true) => fine(format!("peer {} answers", seed.address)),
            (Some(error), false) => bad(
                format!("peer {} does not answer: {error}", seed.address),
                "is the node there running, and is its port open (UDP for quic, TCP for tcp)?",
            ),
            (None, false) => bad(format!("peer {} was not reached yet", seed.address), "try again"),
        });
    }
    if diagnosis.bootstrap.is_empty() && config.network.loopback {
        findings.push(bad(
            "no peer to start from".into(),
            "on loopback, name one with --peer MULTIADDR",
        ));
    }
    for (reason, count) in &diagnosis.metrics.dial_failures {
        findings.push(fine(format!("{count} dials failed: {reason}")));
    }
    findings
}

fn mdns(state: &Mdns) -> Vec<Finding> {
    match state {
        Mdns::Off => {
            vec![fine("mDNS is off: peers of the local network are not found by themselves".into())]
        }
        Mdns::LoopbackOnly => vec![fine("mDNS does not work on loopback".into())],
        Mdns::Failed(error) => {
            vec![bad(format!("mDNS does not work: {error}"), "name a peer with --peer MULTIADDR")]
        }
        Mdns::On { interfaces } if interfaces.is_empty() => {
            vec![bad(
                "mDNS has no network interface".into(),
                "connect to a network, or name a peer with --peer MULTIADDR",
            )]
        }
        Mdns::On { interfaces } => interfaces
            .iter()
            .map(|interface| match &interface.error {
                None => fine(format!("mDNS on {}", interface.ip)),
                Some(error) => bad(
                    format!("no multicast on {}: {error}", interface.ip),
                    "a firewall or container may block it; name a peer with --peer MULTIADDR",
                ),
            })
            .collect(),
        _ => Vec::new(),
    }
}
