//! Embeddings over the network: verified as any answer, and a cheat's refused.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use std::path::Path;

use peerproof::client::{
    AskError, COMPONENT_BITS, JobSpec, Level, Outcome, Pooling, Prompt, Verification, components,
};
use peerproof::config::Config;
use peerproof::home::{Environment, Home};
use peerproof::models::Store;
use peerproof::verify::verify;
use peerproof::{Node, Settings};
use tempfile::TempDir;

use support::model;

/// Components of the default model's states.
const WIDTH: usize = 576;

fn settings(home: &TempDir, peers: Vec<String>) -> Settings {
    let mut config = Config::default();
    config.network.loopback = true;
    config.network.mdns = false;
    config.network.peers = peers;
    config.provide.threads = 1;
    config.provide.kv_mib = 256;
    let home = Home::find(Some(home.path()), None, &Environment::read()).unwrap();
    Settings::new(home, config)
}

/// A provider, and a router that has the model to check it.
struct Pair {
    provider: Node,
    router: Node,
    homes: [TempDir; 2],
}

impl Pair {
    async fn start(only_layers: Option<usize>) -> Pair {
        let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let serve = vec![model().clone()];
        let provider = Settings { serve, only_layers, ..settings(&homes[0], vec![]) };
        let provider = Node::start(provider).await.unwrap();
        let peers = vec![provider.status().addresses[0].clone()];
        let router = Settings { hold: vec![model().clone()], ..settings(&homes[1], peers) };
        Pair { provider, router: Node::start(router).await.unwrap(), homes }
    }

    async fn embed(
        &self,
        text: &str,
        pooling: Pooling,
        most: Option<u32>,
    ) -> Result<(Vec<i32>, Outcome), AskError> {
        let question = JobSpec {
            embed: Some(pooling),
            max_tokens: most,
            verification: Verification { level: Level::Full, ..Verification::default() },
            ..JobSpec::new("smollm2-135m", Prompt::Text(text.into()))
        };
        let (text, outcome) = self.router.client().ask(question).await?.text().await?;
        Ok((components(&text).unwrap(), outcome))
    }

    async fn stop(self) {
        self.router.shutdown().await;
        self.provider.shutdown().await;
    }
}

fn product(a: &[i32], b: &[i32]) -> f64 {
    let one = f64::from(1_u32 << COMPONENT_BITS);
    a.iter().zip(b).map(|(a, b)| f64::from(*a) / one * (f64::from(*b) / one)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedding_is_verified_and_means_something() {
    let pair = Pair::start(None).await;
    let (cat, outcome) =
        pair.embed("A cat sleeps on the warm sofa.", Pooling::Model, None).await.unwrap();
    assert!(outcome.verification.audited, "{}", outcome.verification.detail);
    assert_eq!((cat.len(), outcome.output_tokens), (WIDTH, WIDTH as u32));
    assert!((product(&cat, &cat) - 1.0).abs() < 1e-5);
    let (again, _) =
        pair.embed("A cat sleeps on the warm sofa.", Pooling::Mean, None).await.unwrap();
    assert_eq!(again, cat, "the file names no pooling, so the mean it is");
    let (last, _) =
        pair.embed("A cat sleeps on the warm sofa.", Pooling::Last, None).await.unwrap();
    assert_ne!(last, cat);
    let (kitten, _) =
        pair.embed("A kitten naps on a cosy couch.", Pooling::Mean, None).await.unwrap();
    let (law, _) =
        pair.embed("Section 4: the lessee shall pay.", Pooling::Mean, None).await.unwrap();
    let (near, far) = (product(&cat, &kitten), product(&cat, &law));
    assert!(near > far, "{near} {far}");
    let (short, _) =
        pair.embed("A cat sleeps on the warm sofa.", Pooling::Mean, Some(64)).await.unwrap();
    assert_eq!(short.len(), 64);
    assert!((product(&short, &short) - 1.0).abs() < 1e-5, "a part is of length one again");
    assert!(product(&short, &cat[..64]) > 0.0);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedding_of_a_model_with_fewer_layers_is_refused() {
    let pair = Pair::start(Some(26)).await;
    let error = pair.embed("Who goes there?", Pooling::Mean, None).await.unwrap_err();
    let AskError::Refused { evidence, .. } = &error else { panic!("{error}") };
    let nothing = Store::new(pair.homes[0].path().join("none"), "http://127.0.0.1:1");
    let judged = verify(Path::new(evidence), &nothing, Some(model())).unwrap();
    assert!(judged.proven && judged.recomputed, "{}", judged.statement);
    pair.stop().await;
}
