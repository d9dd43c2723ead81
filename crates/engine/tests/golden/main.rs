//! One digest for 20 prompts of 64 tokens: whatever the kernels, the threads and
//! the way tokens are fed, the leaves are those of `vectors/engine/golden/`, which
//! the implementation in `interop/engine/` computes as well.
//!
//! The default run covers every kernel path, one and two threads and every way of
//! feeding, the fast ones on whole answers and the portable one on the beginnings
//! of a few. Everything with everything takes many minutes:
//!
//! ```text
//! cargo test --release -p peerproof-engine --test golden -- --ignored everything
//! cargo test --release -p peerproof-engine --test golden -- --ignored regenerate
//! PEERPROOF_EXPLAIN=smollm2-135m:3:70 cargo test -p peerproof-engine --test golden -- \
//!     --ignored explain --nocapture
//! ```
//!
//! PEERPROOF_MODEL names one model, if not all are meant. The second writes the
//! files again; the third prints the digests that the Python implementation prints
//! where it differs, at position 70 of prompt 3.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod file;
mod prompts;
mod runs;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use file::{Entry, Golden, TOKENS};
use peerproof_engine::forward::{Item, Runner};
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::model::Model;
use peerproof_engine::service::{Service, ServiceOptions};
use peerproof_engine::transformer::LoadOptions;
use peerproof_proof::transcript::{Transcript, leaf_hash};
use peerproof_wire::{ARITHMETIC, Digest, Prompt, Stop};
use runs::{Feed, Run};

/// The models with a golden file.
const MODELS: [&str; 2] = ["smollm2-135m", "gemma3-270m"];

fn model(name: &str) -> Arc<Model> {
    let path = match name {
        "gemma3-270m" => support::gemma(),
        _ => support::real_model(),
    };
    Model::open(path, &LoadOptions::default()).unwrap()
}

/// The golden digests, if they are of this model and this arithmetic.
fn golden(name: &str, model: &Model) -> Golden {
    let golden = Golden::read(name);
    assert_eq!(golden.model, model.id().to_string(), "the digests are of another file");
    assert_eq!(golden.arithmetic, ARITHMETIC, "the digests are of another arithmetic");
    golden
}

fn run(feed: Feed, path: KernelPath, threads: usize, prompts: usize, tokens: usize) -> Run {
    Run { feed, path, threads, prompts, tokens }
}

/// What a test run of a minute can hold, `whole` prompts in full: see the head of this file.
fn bounded(whole: usize) -> Vec<Run> {
    let best = KernelPath::best();
    let mut runs = vec![
        run(Feed::Whole, best, 2, whole, TOKENS),
        run(Feed::Service(5), best, 2, 5, TOKENS),
        run(Feed::Chunks(1), best, 1, 2, TOKENS),
        run(Feed::Chunks(7), best, 2, 3, TOKENS),
    ];
    for path in KernelPath::available() {
        let (prompts, tokens) = if path == KernelPath::Portable { (2, 4) } else { (5, 16) };
        runs.push(run(Feed::Whole, path, 2, prompts, tokens));
        runs.push(run(Feed::Chunks(1), path, 2, prompts.min(2), tokens));
        runs.push(run(Feed::Chunks(7), path, 1, prompts, tokens));
        runs.push(run(Feed::Service(5), path, 2, prompts, tokens));
    }
    runs
}

fn check(name: &str, runs: &[Run]) {
    let model = model(name);
    let golden = golden(name, &model);
    for run in runs {
        let start = std::time::Instant::now();
        run.check(&model, &golden);
        println!("{name}: {run:?} in {:.1} s", start.elapsed().as_secs_f64());
    }
}

#[test]
fn smollm2_135m() {
    check("smollm2-135m", &bounded(20));
}

#[test]
fn gemma3_270m() {
    check("gemma3-270m", &bounded(8));
}

#[test]
#[ignore = "takes many minutes, most of them on the portable path"]
fn everything() {
    let mut runs = Vec::new();
    for path in KernelPath::available().into_iter().rev() {
        for threads in [1, 2] {
            for feed in [Feed::Chunks(1), Feed::Whole, Feed::Chunks(7), Feed::Service(5)] {
                runs.push(run(feed, path, threads, 20, TOKENS));
            }
        }
    }
    asked_for().for_each(|name| check(name, &runs));
}

/// All models, or the one that PEERPROOF_MODEL names.
fn asked_for() -> impl Iterator<Item = &'static str> {
    let only = std::env::var("PEERPROOF_MODEL").ok();
    MODELS.into_iter().filter(move |&name| only.as_deref().is_none_or(|only| only == name))
}

fn named(name: &str) -> String {
    blake3::hash(format!("peerproof golden {name}").as_bytes()).to_hex().to_string()
}

/// The answer to the first so many tokens of a text; `None` if the model ends it
/// before its 64th token.
fn entry(service: &Service, golden: &Golden, cut: &prompts::Cut, tokens: usize) -> Option<Entry> {
    let prompt = service.model().prompt_tokens(&Prompt::Text(cut.text.into())).unwrap();
    let prompt = prompt.get(..tokens)?;
    let mut entry = Entry {
        seed: named(&format!("seed {}", golden.prompts.len())),
        sampling: cut.sampling.clone().into(),
        prompt: prompt.to_vec(),
        answer: vec![],
        text: String::new(),
        leaves: String::new(),
        digest: String::new(),
        root: String::new(),
    };
    let (answer, leaves) = runs::generate(service, runs::job(golden, &entry, TOKENS as u32));
    if answer.stop != Stop::Length || service.model().end_tokens().contains(answer.tokens.last()?) {
        return None;
    }
    let mut transcript = Transcript::new();
    for step in answer.steps {
        transcript.push(&step.into()).unwrap();
    }
    let tree = transcript.close(Stop::Length, TOKENS as u32, &answer.text).unwrap();
    (entry.answer, entry.text) = (answer.tokens, answer.text);
    (entry.leaves, entry.digest) = (file::short(&leaves), file::digest(&leaves));
    entry.root = tree.commitment().root.to_string();
    Some(entry)
}

#[test]
#[ignore = "writes the golden files"]
fn regenerate() {
    for name in asked_for() {
        let model = model(name);
        let mut golden = Golden {
            model: model.id().to_string(),
            arithmetic: ARITHMETIC,
            offer: named("offer"),
            tokens: TOKENS,
            digest: String::new(),
            prompts: vec![],
        };
        let options = ServiceOptions { threads: 2, ..Default::default() };
        let service = Service::start(model, &options).unwrap();
        for cut in prompts::cuts() {
            let mut shorter = (1..=cut.tokens).rev();
            let entry = shorter.find_map(|tokens| entry(&service, &golden, &cut, tokens));
            golden.prompts.push(entry.expect("an answer that goes on"));
        }
        let digests: Vec<Digest> =
            golden.prompts.iter().map(|entry| entry.digest.parse().unwrap()).collect();
        golden.digest = file::digest(&digests);
        golden.write(name);
    }
}

/// The digest of a position's keys, all heads of a layer: rows, then exponents.
fn keys(kv: &Kv, layer: usize, heads: usize, position: usize) -> blake3::Hash {
    let keys: Vec<_> = (0..heads).map(|head| kv.key(layer, head, position)).collect();
    let rows = keys.iter().flat_map(|(row, _)| row.iter().copied());
    let exponents = keys.iter().map(|&(_, exponent)| exponent);
    blake3::hash(&rows.chain(exponents).flat_map(i16::to_le_bytes).collect::<Vec<u8>>())
}

/// The token and digests of one position, as `check.py` prints them.
#[test]
#[ignore = "prints what PEERPROOF_EXPLAIN asks for"]
fn explain() {
    let asked =
        std::env::var("PEERPROOF_EXPLAIN").expect("PEERPROOF_EXPLAIN=model:prompt:position");
    let [name, prompt, position] = asked.split(':').collect::<Vec<_>>().try_into().unwrap();
    let (prompt, position): (usize, usize) = (prompt.parse().unwrap(), position.parse().unwrap());
    let model = model(name);
    let golden = golden(name, &model);
    let entry = &golden.prompts[prompt];
    let tokens: Vec<u32> = entry.prompt.iter().chain(&entry.answer).copied().collect();
    let item = |&token| Item { sequence: 0, token, logits: true };
    let items: Vec<Item> = tokens[..=position].iter().map(item).collect();
    let mut runner = Runner::new(Arc::clone(model.transformer()), 2, KernelPath::best()).unwrap();
    let mut kv = Kv::new(model.transformer(), items.len());
    let key = golden.offer.parse().unwrap();
    let mut leaf = None;
    let mut sink = |at: usize, output: peerproof_engine::forward::Output<'_>| {
        leaf = Some(runs::leaf(&key, entry, at, tokens[at], output));
    };
    runner.forward(&mut [&mut kv], &items, &mut sink).unwrap();
    let leaf = leaf.unwrap();
    println!("prompt {prompt}, position {position}: leaf {}", leaf_hash(&leaf));
    let shape = model.transformer().shape();
    for layer in 0..shape.layers {
        println!("keys of layer {layer} {}", keys(&kv, layer, shape.kv_heads, position));
    }
    println!("state {}", leaf.state);
    if let Some(drawn) = leaf.drawn {
        println!("logits {}\nnumber {}\nnext token {}", drawn.logits, drawn.draw, drawn.next);
    }
}
