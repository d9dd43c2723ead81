//! One digest for 20 prompts of 64 tokens: whatever the kernels, the threads and
//! the way tokens are fed, the leaves are those of `vectors/engine/golden/`, which
//! the implementation in `interop/engine/` computes as well.
//!
//! The default run covers every kernel path, one and two threads and every way of
//! feeding, the fast ones on whole answers and the portable one on the beginnings
//! of a few. Everything with everything takes many minutes:
//!
//! ```text
//! cargo test --release -p peerproof-engine --test golden -- --ignored every
//! cargo test --release -p peerproof-engine --test golden -- --ignored regenerate
//! PEERPROOF_EXPLAIN=smollm2-135m:3:70 cargo test -p peerproof-engine --test golden -- \
//!     --ignored explain --nocapture
//! ```
//!
//! PEERPROOF_MODEL names one model, if not all are meant. The second writes the
//! files again; the third prints the digests that the Python implementation prints
//! where it differs, at position 70 of prompt 3.

mod file;
mod honest;
mod prompts;
mod recipe;
mod runs;
mod shapes;
mod small;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use file::{Entry, Golden, TOKENS};
use peerproof_engine::forward::{Item, Output, Runner};
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::model::Model;
use peerproof_engine::service::{Service, ServiceOptions};
use peerproof_engine::transformer::LoadOptions;
use peerproof_proof::transcript::leaf_hash;
use peerproof_wire::{ARITHMETIC, LogitBias, Prompt, Sampling, Stop};
use runs::{Feed, Reader, Run};

/// How many prompts have every rule on.
const RULED: usize = 4;
/// The models with a golden file.
const MODELS: [&str; 2] = ["smollm2-135m", "gemma3-270m"];

fn model(name: &str) -> Arc<Model> {
    let path = match name {
        "gemma3-270m" => support::gemma(),
        _ => support::real_model(),
    };
    Model::open(path, &LoadOptions::default()).expect("a model")
}

/// The golden digests, if they are of this model and this arithmetic.
fn golden(name: &str, model: &Model) -> Golden {
    let golden = Golden::read(name);
    assert_eq!(golden.model, model.id().to_string(), "the digests are of another file");
    assert_eq!(golden.arithmetic, ARITHMETIC, "the digests are of another arithmetic");
    golden
}

fn run(feed: Feed, path: KernelPath, threads: usize, prompts: usize, tokens: usize) -> Run {
    Run { feed, path, threads, prompts, ruled: 0, tokens }
}

/// What a test run of a minute can hold, `whole` prompts in full: see the head of this file.
fn bounded(whole: usize) -> Vec<Run> {
    let best = KernelPath::best();
    let mut runs = vec![
        run(Feed::Whole, best, 2, whole, TOKENS),
        Run { ruled: 2, ..run(Feed::Service(5), best, 2, 3, TOKENS) },
        run(Feed::Chunks(7), best, 2, 2, TOKENS),
    ];
    for path in KernelPath::available() {
        let (prompts, tokens) = if path == KernelPath::Portable { (2, 4) } else { (4, 12) };
        runs.push(run(Feed::Whole, path, 2, prompts, tokens));
        runs.push(run(Feed::Chunks(1), path, 1, prompts.min(2), tokens));
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
    check("smollm2-135m", &bounded(12));
}

#[test]
fn gemma3_270m() {
    check("gemma3-270m", &bounded(4));
}

#[test]
#[ignore = "takes many minutes, most of them on the portable path"]
fn everything() {
    let mut runs = Vec::new();
    for path in KernelPath::available().into_iter().rev() {
        for threads in [1, 2] {
            for feed in [Feed::Chunks(1), Feed::Whole, Feed::Chunks(7), Feed::Service(5)] {
                runs.push(Run { ruled: RULED, ..run(feed, path, threads, 20, TOKENS) });
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
fn answer(service: &Service, golden: &Golden, cut: &prompts::Cut, number: usize) -> Option<Entry> {
    let text = Prompt::Text(cut.text.into());
    let prompt = service.model().prompt_tokens(&text).expect("a prompt");
    let prompt = prompt.get(..cut.tokens)?.to_vec();
    let mut entry = Entry::asked(named(&format!("seed {number}")), cut.sampling.clone(), prompt);
    let job = runs::job(golden, &entry, TOKENS as u32);
    let answer = service.generate(job).expect("an answer");
    if answer.stop != Stop::Length || service.model().end_tokens().contains(answer.tokens.last()?) {
        return None;
    }
    (entry.answer, entry.text) = (answer.tokens, answer.text);
    entry.settle(answer.steps, answer.kv_root);
    Some(entry)
}

/// The same for a cut that is made shorter until the model goes on.
fn entry(service: &Service, golden: &Golden, cut: prompts::Cut, number: usize) -> Entry {
    let shorter = (1..=cut.tokens).rev().map(|tokens| prompts::Cut { tokens, ..cut.clone() });
    let mut answers = shorter.filter_map(|cut| answer(service, golden, &cut, number));
    answers.next().expect("an answer that goes on")
}

/// The prompts with every rule on: text, tokens, top-k and biased tokens.
fn ruled() -> impl Iterator<Item = prompts::Cut> {
    let rules = [(20, 40, 300, 1000), (7, 0, 29, 500), (13, 200, 198, 31), (28, 1000, 260, 16)];
    prompts::cuts().skip(1).step_by(3).zip(rules).map(|(cut, (tokens, top_k, up, down))| {
        let sampling = small::every_rule(top_k, (up, 50_000), (down, -400_000));
        prompts::Cut {
            tokens,
            sampling: Sampling { bias: ascending(sampling.bias), ..sampling },
            ..cut
        }
    })
}

fn ascending(mut bias: Vec<LogitBias>) -> Vec<LogitBias> {
    bias.sort_by_key(|bias| bias.token);
    bias
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
            ruled: vec![],
        };
        let options = ServiceOptions { threads: 2, ..Default::default() };
        let service = Service::start(model, &options).expect("a service");
        for (at, cut) in prompts::cuts().enumerate() {
            golden.prompts.push(entry(&service, &golden, cut, at));
        }
        for (at, cut) in ruled().enumerate() {
            golden.ruled.push(entry(&service, &golden, cut, golden.prompts.len() + at));
        }
        golden.digest = file::of_entries(&golden.prompts);
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
    let parts: Vec<&str> = asked.split(':').collect();
    let &[name, prompt, position] = parts.as_slice() else { panic!("three parts, not {asked}") };
    let number = |part: &str| part.parse::<usize>().expect("a number");
    let (prompt, position) = (number(prompt), number(position));
    let model = model(name);
    let golden = golden(name, &model);
    let entry = golden.prompts.iter().chain(&golden.ruled).nth(prompt).expect("a prompt");
    let tokens: Vec<u32> = entry.prompt.iter().chain(&entry.answer).copied().collect();
    let item = |&token| Item { sequence: 0, token, logits: true };
    let items: Vec<Item> = tokens[..=position].iter().map(item).collect();
    let transformer = model.transformer();
    let mut runner = Runner::new(Arc::clone(transformer), 2, KernelPath::best()).expect("a runner");
    let mut kv = Kv::new(transformer, items.len());
    let mut reader = Reader::new(&golden.offer.parse().expect("the id of an offer"), entry);
    let mut sink = |at: usize, output: Output<'_>| reader.read(tokens[at], output);
    runner.forward(&mut [&mut kv], &items, &mut sink).expect("items that fit");
    let step = reader.steps.pop().expect("a position");
    println!("prompt {prompt}, position {position}: leaf {}", leaf_hash(&step.clone().into()));
    let shape = transformer.shape();
    for layer in 0..shape.layers {
        println!("keys of layer {layer} {}", keys(&kv, layer, shape.kv_heads, position));
    }
    println!("layers {}\nstate {}", step.layers, step.state);
    if let Some(drawn) = step.drawn {
        println!("logits {}\nnumber {}\nnext token {}", drawn.logits, drawn.draw, drawn.next);
    }
}
