//! Golden digests of the small files of `shapes.rs`: every family, format and
//! rule of a header, with every rule of sampling somewhere among them.

use std::fs;
use std::sync::Arc;

use peerproof_engine::forward::{Item, Output, Runner};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::transformer::{LoadOptions, Transformer};
use peerproof_wire::{ARITHMETIC, LogitBias, Sampling};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::file::{self, Entry};
use super::named;
use super::recipe::Recipe;
use super::runs::{Feed, Reader, Run};
use super::shapes;

/// Tokens of every prompt and of every answer.
const PROMPT: u32 = 32;
const TOKENS: usize = 16;
const NAME: &str = "small";

/// The golden file.
#[derive(Serialize, Deserialize)]
struct Golden {
    arithmetic: u32,
    offer: String,
    tokens: usize,
    /// BLAKE3 of the digests of all files' prompts.
    digest: String,
    files: Vec<Made>,
}

/// A file and the digests of one prompt.
#[derive(Serialize, Deserialize)]
struct Made {
    recipe: Recipe,
    /// BLAKE3 of the file.
    model: String,
    prompt: Entry,
}

fn golden() -> Golden {
    let bytes = fs::read(file::path(NAME)).expect("the golden file");
    let golden: Golden = serde_json::from_slice(&bytes).expect("golden digests");
    assert_eq!(golden.arithmetic, ARITHMETIC, "the digests are of another arithmetic");
    let entries = golden.files.iter().map(|made| &made.prompt);
    assert_eq!(golden.digest, file::of_entries(entries), "the file's own digest");
    golden
}

fn load(bytes: Vec<u8>) -> Arc<Transformer> {
    let gguf = Gguf::parse(bytes).expect("a container");
    Arc::new(Transformer::load(&gguf, &LoadOptions::default()).expect("a model"))
}

/// Compares every file with its digests, in so many ways.
fn check(runs: &[Run]) {
    let golden = golden();
    for made in &golden.files {
        let bytes = made.recipe.bytes();
        let id = blake3::hash(&bytes).to_hex().to_string();
        assert_eq!(id, made.model, "{}: the recipe makes another file", made.recipe.name);
        let model = load(bytes);
        for run in runs {
            // Shown where the run differs.
            println!("{}", made.recipe.name);
            run.force(&model, &golden.offer, &[&made.prompt]);
        }
    }
}

fn run(feed: Feed, path: KernelPath, threads: usize) -> Run {
    Run { feed, path, threads, prompts: 1, ruled: 0, tokens: TOKENS }
}

#[test]
fn small_files_in_every_way() {
    let mut runs = Vec::new();
    for path in KernelPath::available() {
        for threads in [1, 2] {
            let feeds = [Feed::Chunks(1), Feed::Whole, Feed::Chunks(7), Feed::Batch(5)];
            runs.extend(feeds.map(|feed| run(feed, path, threads)));
        }
    }
    check(&runs);
}

#[test]
fn every_shape_has_its_digests() {
    let recipes: Vec<Recipe> = golden().files.into_iter().map(|made| made.recipe).collect();
    assert_eq!(recipes, shapes::recipes());
}

/// The rules that files take turns with.
fn rules(at: usize) -> Sampling {
    let hot = Sampling { temperature_q16: 1 << 16, ..Sampling::GREEDY };
    match at % 5 {
        0 => hot,
        1 => Sampling::GREEDY,
        2 => every_rule(20, (3, 1 << 17), (11, -(1 << 18))),
        3 => Sampling { top_k: 12, top_p_q16: 58_000, min_p_q16: 2_000, ..hot },
        _ => Sampling {
            repetition_q16: 60_000,
            presence_q16: -20_000,
            frequency_q16: 30_000,
            bias: vec![LogitBias { token: 7, bias_q16: 90_000 }],
            logprobs: Some(0),
            ..Sampling::GREEDY
        },
    }
}

/// All rules at once.
pub(crate) fn every_rule(top_k: u32, up: (u32, i32), down: (u32, i32)) -> Sampling {
    let bias = |(token, bias_q16)| LogitBias { token, bias_q16 };
    Sampling {
        temperature_q16: 80_000,
        top_k,
        top_p_q16: 62_000,
        min_p_q16: 1_300,
        repetition_q16: 75_000,
        presence_q16: 15_000,
        frequency_q16: 9_000,
        bias: vec![bias(up), bias(down)],
        logprobs: Some(5),
        ..Sampling::GREEDY
    }
}

fn answer(at: usize, model: &Arc<Transformer>, offer: &str) -> Entry {
    let vocabulary = model.shape().vocabulary as u32;
    let prompt = (0..PROMPT).map(|i| (i * i * 3 + i + at as u32) % vocabulary).collect();
    let mut entry = Entry::asked(named(&format!("small seed {at}")), rules(at), prompt);
    let mut reader = Reader::new(&offer.parse().expect("the id of an offer"), &entry);
    let mut runner = Runner::new(Arc::clone(model), 2, KernelPath::best()).expect("a runner");
    let mut kv = Kv::new(model, PROMPT as usize + TOKENS);
    let mut next = entry.prompt.clone();
    while entry.answer.len() < TOKENS {
        let item = |&token| Item { sequence: 0, token, logits: true };
        let items: Vec<Item> = next.iter().map(item).collect();
        let mut sink = |at: usize, output: Output<'_>| reader.read(next[at], output);
        runner.forward(&mut [&mut kv], &items, &mut sink).expect("items that fit");
        let drawn = reader.steps.last().and_then(|step| step.drawn.as_ref()).expect("a draw");
        next = vec![drawn.next];
        entry.answer.push(drawn.next);
    }
    entry.settle(reader.steps, kv.kv_root(kv.position()));
    entry
}

#[test]
#[ignore = "writes the golden file"]
fn regenerate_small_files() {
    let offer = named("offer");
    let made = |(at, recipe): (usize, Recipe)| {
        let bytes = recipe.bytes();
        let model = blake3::hash(&bytes).to_hex().to_string();
        let prompt = answer(at, &load(bytes), &offer);
        Made { recipe, model, prompt }
    };
    let files: Vec<Made> = shapes::recipes().into_iter().enumerate().map(made).collect();
    let digest = file::of_entries(files.iter().map(|made| &made.prompt));
    let head = json!({
        "arithmetic": ARITHMETIC, "offer": offer, "tokens": TOKENS, "digest": digest,
    });
    file::write(NAME, &head, &[("files", file::lines(&files))]);
}
