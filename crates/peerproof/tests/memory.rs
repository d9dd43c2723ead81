//! Several models in one node whose memory holds one of them.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::path::{Path, PathBuf};

use peerproof::client::{AskError, JobSpec, Level, NodeStatus, Prompt, Verification};
use peerproof::config::Config;
use peerproof::home::{Environment, Home};
use peerproof::models::Installed;
use peerproof::{Node, NodeError, Settings};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::transformer::Transformer;
use tempfile::TempDir;

/// Holds the default model with its cache, and no second one.
const BUDGET: u64 = 260 << 20;

fn cached() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    cache.join("peerproof/models/smollm2-135m.gguf")
}

/// The default model and a twin of it: the same weights in a file that calls itself otherwise,
/// which is another model to everybody.
fn twins(dir: &Path) -> [Installed; 2] {
    let path = std::env::var_os("PEERPROOF_TEST_MODEL").map_or_else(cached, PathBuf::from);
    let mut bytes =
        std::fs::read(&path).expect("run `cargo run --release -- models pull smollm2-135m` first");
    let installed = |name: &str, bytes: &[u8], path: PathBuf| Installed {
        name: name.into(),
        id: blake3::hash(bytes).to_hex().to_string(),
        bytes: bytes.len() as u64,
        source: "test".into(),
        path,
    };
    let first = installed("first", &bytes, path);
    let key = b"general.name";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    // The key, the type of its value, the length of the text; then the text.
    bytes[at + key.len() + 4 + 8] ^= 1;
    let twin = dir.join("twin.gguf");
    std::fs::write(&twin, &bytes).unwrap();
    let second = installed("second", &bytes, twin);
    assert_ne!(first.id, second.id);
    [first, second]
}

fn settings(home: &TempDir, budget: u64, peers: Vec<String>) -> Settings {
    let mut config = Config::default();
    config.network.loopback = true;
    config.network.mdns = false;
    config.network.peers = peers;
    config.provide.threads = 1;
    config.provide.kv_mib = 128;
    config.provide.memory = budget.to_string();
    let home = Home::find(Some(home.path()), None, &Environment::read()).unwrap();
    Settings::new(home, config)
}

fn loaded(status: &NodeStatus) -> u64 {
    status.models.iter().filter_map(|model| model.loaded_bytes).sum()
}

fn question(model: &str) -> JobSpec {
    JobSpec {
        max_tokens: Some(4),
        verification: Verification { level: Level::Full, ..Verification::default() },
        ..JobSpec::new(model, Prompt::Text("The capital of France is".into()))
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// The cache of one job of some 900 tokens is larger than a small provider's for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_cache_holds_is_refused_with_the_providers_figures() {
    let (home, asking, files) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let [model, _] = twins(files.path());
    let mut small = Settings { serve: vec![model.clone()], ..settings(&home, BUDGET, vec![]) };
    small.config.provide.kv_mib = 16;
    let provider = Node::start(small).await.unwrap();
    let peers = vec![provider.status().addresses[0].clone()];
    let router = Settings { hold: vec![model], ..settings(&asking, BUDGET, peers) };
    let router = Node::start(router).await.unwrap();
    let long = JobSpec {
        verification: Verification { level: Level::Receipt, ..Verification::default() },
        prompt: Prompt::Text("word ".repeat(900)),
        ..question("first")
    };
    let refused = router.client().ask(long).await.unwrap().text().await.unwrap_err();
    assert!(matches!(refused, AskError::TooLarge { .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains(&(16 << 20).to_string()) && said.contains("provide.kv_mib"), "{said}");
    assert!(!said.contains("context length"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_models_take_turns_where_one_fits() {
    let (home, asking, files) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let models = twins(files.path());
    let provider = Settings { serve: models.to_vec(), ..settings(&home, BUDGET, vec![]) };
    let provider = Node::start(provider).await.unwrap();
    let peers = vec![provider.status().addresses[0].clone()];
    let router = Settings { hold: models.to_vec(), ..settings(&asking, BUDGET, peers) };
    let router = Node::start(router).await.unwrap();
    let at_start = provider.status();
    assert!(at_start.models.iter().all(|model| model.serves), "both are announced");
    assert_eq!(at_start.models.iter().filter(|m| m.loaded_bytes.is_some()).count(), 1);
    assert_eq!(at_start.memory_budget_bytes, BUDGET);

    let mut texts = Vec::new();
    for model in ["first", "second", "first", "second"] {
        let answer = router.client().ask(question(model)).await.unwrap();
        let (text, outcome) = answer.text().await.unwrap();
        assert!(outcome.verification.audited, "{}", outcome.verification.detail);
        assert_eq!(outcome.model, model);
        assert!(loaded(&provider.status()) <= BUDGET && loaded(&router.status()) <= BUDGET);
        texts.push(text);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "the weights are the same");
    assert!(provider.status().evictions >= 3, "{}", provider.status().evictions);
    // Two nodes in this process, and half a budget for everything that is no model.
    assert!(resident_bytes() < BUDGET * 5 / 2, "{}", resident_bytes());

    // Who serves says what its engine did; nothing is in use any more.
    let engines = || provider.status().models.into_iter().filter_map(|model| model.engine);
    let engine = engines().next().unwrap();
    assert!(engine.passes > 0 && engine.computed_tokens > 4 && engine.page_bytes > 0, "{engine:?}");
    assert!(engine.pages_used + engine.pages_kept <= engine.pages, "{engine:?}");

    // All at once: whoever finds the memory in use waits for it.
    let asked = ["first", "second", "second", "first"].map(|model| {
        let client = router.client();
        tokio::spawn(async move { client.ask(question(model)).await?.text().await })
    });
    for answer in asked {
        let (text, outcome) = answer.await.unwrap().unwrap();
        assert!(outcome.verification.audited, "{}", outcome.verification.detail);
        assert_eq!(text, texts[0]);
    }
    assert!(loaded(&provider.status()) <= BUDGET);
    router.shutdown().await;
    provider.shutdown().await;
}

#[tokio::test]
async fn a_model_that_never_fits_is_refused_with_the_figures() {
    let (home, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let [model, _] = twins(files.path());
    let file = Gguf::open(&model.path).unwrap();
    let weights = Transformer::estimate(&file).unwrap().weights.div_ceil(1 << 20);
    let start = Settings { serve: vec![model], ..settings(&home, 100 << 20, vec![]) };
    let (models, budget) = Node::memory(&start).unwrap();
    let [first] = &models[..] else { panic!("{models:?}") };
    assert_eq!((first.weights_bytes.div_ceil(1 << 20), budget), (weights, 100 << 20));
    let Err(error) = Node::start(start).await else { panic!("100 MiB do not hold the model") };
    assert!(matches!(error, NodeError::Model { .. }));
    let said = error.to_string();
    assert!(
        said.contains(&format!("weights {weights} MiB")) && said.contains("allows 100 MiB"),
        "{said}"
    );
}
