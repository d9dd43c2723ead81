//! The official Python client against a real node: a provider and a router
//! with the real model, on loopback, in front of them the gateway, and
//! `interop/openai/conformance.py` as the one who asks.

#![allow(clippy::unwrap_used, reason = "a test states what must hold")]

mod python;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peerproof::client::{JobSpec, Prompt};
use peerproof::config::Config;
use peerproof::home::{Environment, Home};
use peerproof::models::{DEFAULT_MODEL, Installed, hash_file};
use peerproof::{Node, Settings};
use peerproof_gateway::{GatewayConfig, GatewayError, Server};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// All checks together, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// How many of the model's 30 layers a cheat computes.
const CHEATS_LAYERS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_finds_what_the_documentation_says() {
    let network = Network::start(false).await;
    let mut hello = JobSpec::new(DEFAULT_MODEL, Prompt::Text("Hello".into()));
    hello.max_tokens = Some(1);
    let answer = network.router.client().ask(hello).await.unwrap();
    answer.text().await.expect("the provider is found and answers");
    network.check(&["--full"]).await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_is_told_of_a_cheat() {
    let network = Network::start(true).await;
    let cheat = network.provider.status().peer;
    network.check(&["--cheat", &cheat]).await;
    network.stop().await;
}

/// A provider, a router that can recompute its answers, and the gateway.
struct Network {
    provider: Node,
    router: Node,
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), GatewayError>>,
    _homes: TempDir,
}

impl Network {
    async fn start(cheat: bool) -> Network {
        let model = installed_model();
        let homes = tempfile::tempdir().unwrap();
        let mut provider = settings(&homes.path().join("provider"), vec![]);
        provider.serve = vec![model.clone()];
        provider.only_layers = cheat.then_some(CHEATS_LAYERS);
        let provider = Node::start(provider).await.unwrap();
        let mut router = settings(&homes.path().join("router"), provider.status().addresses);
        router.hold = vec![model];
        let gateway = GatewayConfig::from_settings(&router).unwrap();
        let router = Node::start(router).await.unwrap();
        let server = Server::bind(router.client(), gateway).await.unwrap();
        let url = format!("{}/v1", server.url());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.run(async { drop(stopped.await) }));
        Network { provider, router, url, stop, serving, _homes: homes }
    }

    /// Runs the script; what it prints says what is wrong.
    async fn check(&self, options: &[&str]) {
        let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/openai");
        let python = python::interpreter(&interop.join("requirements.txt"));
        let script = Command::new(python)
            .arg(interop.join("conformance.py"))
            .args([&self.url, "--model", DEFAULT_MODEL])
            .args(options)
            .kill_on_drop(true)
            .status();
        let status =
            tokio::time::timeout(PATIENCE, script).await.expect("the checks take too long");
        assert!(status.unwrap().success(), "the line that begins with FAILED says what is wrong");
    }

    async fn stop(self) {
        drop(self.stop);
        self.serving.await.unwrap().unwrap();
        self.router.shutdown().await;
        self.provider.shutdown().await;
    }
}

/// A node of its own, on loopback, that starts from `peers`.
fn settings(home: &Path, peers: Vec<String>) -> Settings {
    let home = Home::find(Some(home), Some(home), &Environment::default()).unwrap();
    let mut config = Config::default();
    config.network.loopback = true;
    config.network.peers = peers;
    config.api.listen = "127.0.0.1:0".into();
    Settings::new(home, config)
}

/// The model from `PEERPROOF_TEST_MODEL`, or from the user's cache.
fn installed_model() -> Installed {
    let path = std::env::var_os("PEERPROOF_TEST_MODEL").map_or_else(cached_model, PathBuf::from);
    let bytes = match path.metadata() {
        Ok(file) => file.len(),
        Err(_) => panic!("run `cargo run --release -- models pull {DEFAULT_MODEL}` first"),
    };
    let id = hash_file(&path, &mut |_| ControlFlow::Continue(())).unwrap().to_string();
    Installed { name: DEFAULT_MODEL.into(), id, bytes, source: "test".into(), path }
}

fn cached_model() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).expect("HOME is set");
    cache.join("peerproof").join("models").join(format!("{DEFAULT_MODEL}.gguf"))
}
