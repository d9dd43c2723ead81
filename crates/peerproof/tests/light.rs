//! Light audits over the network, by a router that has nothing of the model and keeps nothing
//! but secret combinations of its rows.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use peerproof::client::{AskError, JobSpec, Level, Outcome, Prompt, Verification};
use peerproof::config::Config;
use peerproof::home::{Environment, Home};
use peerproof::{Node, Settings};
use std::ops::ControlFlow;
use tempfile::TempDir;

use support::model;

/// A node with a cache of its own, so that no model is installed.
fn settings(home: &TempDir, peers: Vec<String>) -> Settings {
    let mut config = Config::default();
    config.network.loopback = true;
    config.network.mdns = false;
    config.network.peers = peers;
    config.provide.threads = 1;
    config.provide.kv_mib = 256;
    config.ask.hedge = false;
    let cache = home.path().join("cache");
    let home = Home::find(Some(home.path()), Some(&cache), &Environment::read()).unwrap();
    Settings::new(home, config)
}

async fn provider(home: &TempDir, only_layers: Option<usize>) -> (Node, Vec<String>) {
    let serve = vec![model().clone()];
    let provider = Settings { serve, only_layers, ..settings(home, vec![]) };
    let provider = Node::start(provider).await.unwrap();
    let addresses = vec![provider.status().addresses[0].clone()];
    (provider, addresses)
}

async fn ask(router: &Node, max_tokens: u32) -> Result<Outcome, AskError> {
    let question = JobSpec {
        max_tokens: Some(max_tokens),
        verification: Verification { level: Level::Light, ..Verification::default() },
        ..JobSpec::new(model().id.clone(), Prompt::Text("The capital of France is".into()))
    };
    router.client().ask(question).await?.text().await.map(|(_, outcome)| outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_keeps_no_weights_checks_cells() {
    let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (provider, peers) = provider(&homes[0], None).await;
    let router = Node::start(settings(&homes[1], peers.clone())).await.unwrap();
    let outcome = ask(&router, 12).await.unwrap();
    let positions = outcome.prompt_tokens + outcome.output_tokens - 1;
    let all = positions * 30 + outcome.output_tokens;
    let detail = format!("light audit: 8 of {all} cells checked by their products, all hold");
    assert_eq!(outcome.verification.detail, detail);
    assert_eq!((outcome.verification.level, outcome.verification.audited), (Level::Light, false));
    // What is kept is for nobody else, and is little; of the file hardly more than its header is.
    let kept = homes[1].path().join("cache/sketches").join(format!("{}.sketches", model().id));
    let found = std::fs::metadata(&kept).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert!(found.len() < model().bytes / 40, "{}", found.len());
    let (have, whole) = router.client().held(&model().id).await.unwrap().unwrap();
    assert!(have < whole / 20, "{have} of {whole} bytes are here");
    let mut never = |_, _| ControlFlow::Continue(());
    let prepared = router.client().prepare(&model().id, &mut never).await.unwrap();
    assert_eq!((prepared.made, prepared.bytes, &prepared.path), (false, found.len(), &kept));
    router.shutdown().await;

    // Another process finds it; what was damaged is made anew, under another secret.
    let before = std::fs::read(&kept).unwrap();
    let router = Node::start(settings(&homes[1], peers.clone())).await.unwrap();
    let mut never = |_, _| ControlFlow::Continue(());
    let prepared = router.client().prepare(&model().id, &mut never).await.unwrap();
    assert!(!prepared.made);
    router.shutdown().await;
    // So is what others could read.
    let modes = |mode| std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(mode));
    modes(0o644).unwrap();
    let router = Node::start(settings(&homes[1], peers.clone())).await.unwrap();
    let mut never = |_, _| ControlFlow::Continue(());
    assert!(router.client().prepare(&model().id, &mut never).await.unwrap().made);
    router.shutdown().await;
    assert_ne!(std::fs::read(&kept).unwrap()[40..72], before[40..72]);
    let before = std::fs::read(&kept).unwrap();
    let mut damaged = before.clone();
    damaged[1_000_000] ^= 1;
    std::fs::write(&kept, &damaged).unwrap();
    let router = Node::start(settings(&homes[1], peers)).await.unwrap();
    let mut seen = Vec::new();
    let mut watch = |done, of| {
        seen.push((done, of));
        ControlFlow::Continue(())
    };
    let prepared = router.client().prepare(&model().id, &mut watch).await.unwrap();
    assert!(prepared.made && prepared.read_bytes > model().bytes / 2);
    assert!(seen.iter().all(|(done, of)| done <= of && *of == 31), "{seen:?}");
    let after = std::fs::read(&kept).unwrap();
    assert_eq!(after.len(), before.len());
    assert_ne!(after[40..72], before[40..72]);
    assert!(ask(&router, 4).await.unwrap().verification.detail.starts_with("light audit: 8 of"));
    router.shutdown().await;
    provider.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_fewer_layers_cannot_show_its_products() {
    let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (provider, peers) = provider(&homes[0], Some(28)).await;
    let router = Node::start(settings(&homes[1], peers)).await.unwrap();
    match ask(&router, 8).await {
        Err(AskError::Refused { reason, .. }) => {
            assert!(reason.contains("cell") || reason.contains("layer"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    router.shutdown().await;
    provider.shutdown().await;
}
