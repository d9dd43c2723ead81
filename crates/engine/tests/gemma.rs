//! Gemma 3 270M for real: it predicts as its floats do, says what a language model
//! should, and its bits don't depend on how they are computed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::{Arc, LazyLock};

use peerproof_engine::forward::{Item, Runner};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::reference::compare;
use peerproof_engine::sample::greedy;
use peerproof_engine::transformer::{LoadOptions, Transformer};
use support::gemma;

/// The text of `quality.rs` in this model's tokens, <bos> first.
const TEXT: [u32; 120] = [
    2, 818, 63937, 15032, 657, 506, 1345, 529, 496, 1440, 75789, 529, 6784, 236764, 532, 1418,
    9137, 506, 64222, 16393, 855, 531, 625, 607, 496, 41865, 532, 496, 2260, 236761, 1293, 1053,
    1676, 784, 529, 506, 6249, 528, 506, 9744, 684, 1299, 236764, 532, 1053, 22711, 1570, 607, 506,
    1171, 236761, 3026, 19916, 6915, 668, 7971, 1679, 910, 5618, 236764, 506, 7606, 532, 506, 6468,
    236764, 528, 496, 4886, 1526, 600, 914, 9800, 1093, 735, 43605, 236761, 53705, 1053, 3785,
    4733, 531, 1460, 1239, 15852, 236761, 19238, 236764, 580, 506, 1719, 506, 53676, 4408, 30494,
    1679, 607, 784, 529, 1061, 13009, 236764, 625, 691, 506, 64222, 236789, 236751, 73967, 600,
    4173, 506, 80487, 837, 17735, 1053, 1010, 657, 5442, 236761,
];

static FILE: LazyLock<Gguf> = LazyLock::new(|| Gguf::open(gemma()).unwrap());
static MODEL: LazyLock<Arc<Transformer>> =
    LazyLock::new(|| Arc::new(Transformer::load(&FILE, &LoadOptions::default()).unwrap()));

/// What is generated after `prompt`, greedily.
fn continued(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut runner = Runner::new(Arc::clone(&MODEL), 2, KernelPath::best()).unwrap();
    let mut kv = Kv::new(&MODEL, prompt.len() + count);
    let (mut read, mut answer) = (prompt.to_vec(), Vec::new());
    while answer.len() < count {
        let last = read.len() - 1;
        let item = |(at, &token)| Item { sequence: 0, token, logits: at == last };
        let items: Vec<Item> = read.iter().enumerate().map(item).collect();
        let mut sink = |_: usize, output: peerproof_engine::forward::Output<'_>| {
            answer.extend(output.logits.map(greedy));
        };
        runner.forward(&mut [&mut kv], &items, &mut sink).unwrap();
        read = answer[answer.len() - 1..].to_vec();
    }
    answer
}

/// Hash of the states and logits of a text, computed `size` rows at a time.
fn digest(tokens: &[u32], path: KernelPath, threads: usize, size: usize) -> blake3::Hash {
    let mut runner = Runner::new(Arc::clone(&MODEL), threads, path).unwrap();
    let mut kv = Kv::new(&MODEL, tokens.len());
    let mut hasher = blake3::Hasher::new();
    for (at, chunk) in tokens.chunks(size).enumerate() {
        let item = |(row, &token)| Item { sequence: 0, token, logits: (at * size + row) % 4 == 3 };
        let items: Vec<Item> = chunk.iter().enumerate().map(item).collect();
        let mut sink = |_: usize, output: peerproof_engine::forward::Output<'_>| {
            for value in output.state.iter().chain(output.logits.unwrap_or_default()) {
                hasher.update(&value.to_le_bytes());
            }
        };
        runner.forward(&mut [&mut kv], &items, &mut sink).unwrap();
    }
    hasher.finalize()
}

#[test]
fn integers_predict_as_well_as_floats() {
    let quality = compare(&FILE, &MODEL, &TEXT, 2).unwrap();
    // A text that the model knows how to continue: the float pass is right.
    assert!(quality.reference_perplexity < 40.0, "{quality:?}");
    assert!(quality.perplexity_change().abs() < 0.002, "{quality:?}");
    assert!(quality.divergence < 1e-4, "{quality:?}");
    assert!(quality.same_best >= 0.98, "{quality:?}");
}

#[test]
fn it_knows_a_capital_and_how_a_tale_begins() {
    // "The capital of France is", "Once upon a time, there was a".
    let capital = continued(&[2, 818, 5279, 529, 7001, 563], 8);
    let tale = continued(&[2, 14946, 3324, 496, 990, 236764, 993, 691, 496], 8);
    // " the capital of the country of France.", " little girl named Lily. She was a".
    assert_eq!(capital, [506, 5279, 529, 506, 2891, 529, 7001, 236761]);
    assert_eq!(tale, [2268, 3953, 7489, 60708, 236761, 2625, 691, 496]);
}

#[test]
fn any_way_of_computing_gives_the_same_bits() {
    let tokens = &TEXT[..20];
    let whole = digest(tokens, KernelPath::best(), 2, 20);
    for (threads, size) in [(1, 1), (2, 7)] {
        assert_eq!(digest(tokens, KernelPath::best(), threads, size), whole, "{size}");
    }
    for path in KernelPath::available() {
        let short = digest(&tokens[..6], path, 2, 6);
        assert_eq!(short, digest(&tokens[..6], KernelPath::best(), 1, 6), "{path:?}");
    }
}
