//! Small made-up models of every supported format: loaded, refused, and the
//! same on every path; and close to the float reference.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/hollow.rs"]
mod hollow;
mod support;

use std::sync::Arc;

use peerproof_engine::forward::{Item, Runner};
use peerproof_engine::gguf::{GgmlType, Gguf};
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::reference::compare;
use peerproof_engine::transformer::{LoadOptions, Transformer};
use peerproof_engine::weights::LoadError;
use support::Writer;

const VOCABULARY: u64 = 37;
const CONTEXT: u32 = 256;

/// Values in the residual stream and in the feed-forward layer: whole blocks of
/// the format, and not a multiple of more than it needs.
fn sizes(kind: GgmlType) -> (u64, u64) {
    if kind.block_elements() == 256 { (256, 512) } else { (96, 160) }
}

/// Bytes of a tensor of small pseudo-random weights.
fn weights(kind: GgmlType, elements: u64, seed: &mut u64) -> Vec<u8> {
    let mut next = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as u32
    };
    let mut bytes = Vec::new();
    for _ in 0..elements / kind.block_elements() {
        let fraction = next() as u16 & 0x3ff;
        let sign = (next() as u16 & 1) << 15;
        // A 16-bit float from 2^n to 2^(n+1).
        let half = |n: i32| (((n + 15) as u16) << 10 | fraction).to_le_bytes();
        // Scale and minimum, where the minimum is half of all integers times the scale.
        let both = |n: i32, up: i32, sign: u16| {
            let minimum = (((n + up + 15) as u16) << 10 | fraction | sign).to_le_bytes();
            [half(n), minimum].concat()
        };
        let mut random = |count: usize| -> Vec<u8> { (0..count).map(|_| next() as u8).collect() };
        bytes.extend(match kind {
            GgmlType::F32 => {
                let low = u32::from_le_bytes([0, random(1)[0], random(1)[0], 0]);
                (0x3d00_0000 | low | u32::from(sign) << 16).to_le_bytes().to_vec()
            }
            GgmlType::F16 => (0x2800 | fraction | sign).to_le_bytes().to_vec(),
            GgmlType::BF16 => (0x3d00 | fraction & 0x7f | sign).to_le_bytes().to_vec(),
            GgmlType::Q4_0 => [half(-7).to_vec(), random(16)].concat(),
            GgmlType::Q4_1 => [both(-7, 3, 0x8000), random(16)].concat(),
            GgmlType::Q5_0 => [half(-8).to_vec(), random(20)].concat(),
            GgmlType::Q5_1 => [both(-8, 4, 0x8000), random(20)].concat(),
            GgmlType::Q8_0 => [half(-11).to_vec(), random(32)].concat(),
            GgmlType::Iq4Nl => [half(-11).to_vec(), random(16)].concat(),
            GgmlType::Q2K => [random(80), both(-8, 0, 0)].concat(),
            GgmlType::Q3K => [random(108), half(-10).to_vec()].concat(),
            GgmlType::Q4K => [both(-12, 3, 0), random(140)].concat(),
            GgmlType::Q5K => [both(-13, 4, 0), random(172)].concat(),
            GgmlType::Q6K => [random(208), half(-15).to_vec()].concat(),
            other => panic!("{other} has no block here"),
        });
    }
    bytes
}

/// A model of two layers; `head` adds an output matrix of its own.
fn model(kind: GgmlType, head: bool) -> Writer {
    let mut seed = 11 + u64::from(kind.number());
    let (width, feed) = sizes(kind);
    let mut writer = Writer::default()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .u32("llama.context_length", CONTEXT)
        .u32("llama.embedding_length", width as u32)
        .u32("llama.feed_forward_length", feed as u32)
        .u32("llama.attention.head_count", width as u32 / 16)
        .u32("llama.attention.head_count_kv", 2)
        .u32("llama.rope.dimension_count", 8)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    let mut add = |writer: Writer, name: &str, kind: GgmlType, dims: &[u64]| {
        let data = weights(kind, dims.iter().product(), &mut seed);
        writer.tensor(name, dims, kind.number(), &data)
    };
    writer = add(writer, "token_embd.weight", kind, &[width, VOCABULARY]);
    if head {
        writer = add(writer, "output.weight", kind, &[width, VOCABULARY]);
    }
    writer = add(writer, "output_norm.weight", GgmlType::F32, &[width]);
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        writer = add(writer, &name("attn_norm"), GgmlType::F32, &[width]);
        writer = add(writer, &name("ffn_norm"), GgmlType::F32, &[width]);
        for (part, cols, rows) in [
            ("attn_q", width, width),
            ("attn_k", width, 32),
            ("attn_v", width, 32),
            ("attn_output", width, width),
            ("ffn_gate", width, feed),
            ("ffn_up", width, feed),
            ("ffn_down", feed, width),
        ] {
            writer = add(writer, &name(part), kind, &[cols, rows]);
        }
    }
    writer
}

fn load(writer: &Writer) -> Result<Transformer, LoadError> {
    Transformer::load(
        &Gguf::parse(writer.bytes()).unwrap(),
        &LoadOptions { threads: 2, ..LoadOptions::default() },
    )
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|at| at * at % VOCABULARY as u32).collect()
}

/// States and logits of all positions, computed `size` at a time.
fn run(
    model: &Arc<Transformer>,
    path: KernelPath,
    threads: usize,
    size: usize,
) -> Vec<(Vec<i32>, Vec<i32>)> {
    let mut runner = Runner::new(Arc::clone(model), threads, path).unwrap();
    let mut kv = Kv::new(model, 200);
    let mut rows = Vec::new();
    for chunk in tokens(200).chunks(size) {
        let items: Vec<Item> =
            chunk.iter().map(|&token| Item { sequence: 0, token, logits: true }).collect();
        runner
            .forward(&mut [&mut kv], &items, &mut |_, output| {
                rows.push((output.state.to_vec(), output.logits.unwrap().to_vec()));
            })
            .unwrap();
    }
    rows
}

#[test]
fn every_format_gives_one_set_of_bits_across_chunks_and_paths() {
    for (at, kind) in GgmlType::all().enumerate() {
        let head = at % 2 == 1;
        let model = Arc::new(load(&model(kind, head)).unwrap());
        let whole = run(&model, KernelPath::Portable, 1, 200);
        assert_eq!(whole.len(), 200);
        assert_eq!(whole[0].1.len(), VOCABULARY as usize);
        assert!(whole[0] != whole[3], "{kind}: outputs must depend on the tokens");
        for path in KernelPath::available() {
            for (threads, size) in [(1, 1), (2, 65), (2, 200)] {
                assert!(
                    run(&model, path, threads, size) == whole,
                    "{kind} {path:?} {threads} {size}"
                );
            }
        }
    }
}

#[test]
fn every_format_is_checked_by_products_alone() {
    for (at, kind) in GgmlType::all().enumerate() {
        hollow::check(model(kind, at % 2 == 0).bytes());
    }
}

#[test]
fn every_format_agrees_with_the_float_reference() {
    for (at, kind) in GgmlType::all().enumerate() {
        let head = at % 2 == 0;
        let gguf = Gguf::parse(model(kind, head).bytes()).unwrap();
        let model = Arc::new(Transformer::load(&gguf, &LoadOptions::default()).unwrap());
        let quality = compare(&gguf, &model, &tokens(150), 2).unwrap();
        assert!(quality.perplexity_change().abs() < 0.002, "{kind} {quality:?}");
        assert!(quality.divergence < 1e-4, "{kind} {quality:?}");
    }
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let plain = || model(GgmlType::Q8_0, false);
    let check = |writer: Writer, words: &str| {
        let refused = load(&writer).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    };
    check(plain().tensor("blk.0.attn_q.bias", &[96], 0, &[0; 384]), "blk.0.attn_q.bias");
    check(plain().tensor("blk.2.attn_norm.weight", &[96], 0, &[0; 384]), "blk.2.attn_norm.weight");
    check(plain().str("llama.rope.scaling.type", "dynamic"), "llama.rope.scaling.type");
    check(plain().u32("llama.attention.causal", 1), "llama.attention.causal");
    check(plain().u32("llama.expert_count", 8), "llama.expert_count");
    check(plain().u32("llama.attention.key_length", 24), "llama.attention.key_length");
    check(plain().f32("llama.rope.freq_base", 0.0), "llama.rope.freq_base");
    check(Writer::default().str("general.architecture", "gemma"), "gemma");
    check(Writer::default().str("general.architecture", "llama"), "llama.embedding_length");
    // Infinite and undefined gains, and a matrix of another shape.
    check(plain().tensor("output.weight", &[64, 37], 8, &[0; 34 * 2 * 37]), "output.weight");
    let (width, _) = sizes(GgmlType::F16);
    let mut bad = weights(GgmlType::F16, width * VOCABULARY, &mut 5);
    bad[2 * 40..][..2].copy_from_slice(&0x7c00u16.to_le_bytes());
    check(plain().tensor("output.weight", &[width, VOCABULARY], 1, &bad), "output.weight");
    bad[2 * 40..][..2].copy_from_slice(&0x7f80u16.to_le_bytes());
    check(plain().tensor("output.weight", &[width, VOCABULARY], 30, &bad), "output.weight");
}

#[test]
fn a_model_of_zeros_stays_zero() {
    // All scales zero: every width and exponent at its edge.
    let mut bytes = model(GgmlType::Q8_0, false).bytes();
    let gguf = Gguf::parse(bytes.clone()).unwrap();
    let data =
        bytes.len() - gguf.tensors().map(|t| t.data.len().next_multiple_of(32)).sum::<usize>();
    drop(gguf);
    bytes[data..].fill(0);
    let model =
        Arc::new(Transformer::load(&Gguf::parse(bytes).unwrap(), &LoadOptions::default()).unwrap());
    for path in KernelPath::available() {
        for (state, logits) in run(&model, path, 1, 7) {
            assert!(state.iter().chain(&logits).all(|&value| value == 0), "{path:?}");
        }
    }
}
