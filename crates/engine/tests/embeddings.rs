//! Embeddings against the same formula in floats, on a small made-up model: pooled as asked for
//! or as the file says, with the leaves of the prompt's positions, and refused where they must be.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use peerproof_engine::execute::{ReplayError, Replayer};
use peerproof_engine::forward::{Item, Runner};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::model::{Model, PromptError};
use peerproof_engine::transformer::LoadOptions;
use peerproof_proof::embedding::{COMPONENT_BITS, component};
use peerproof_proof::{Execute, Step, state_digest};
use peerproof_wire::job::Pooling;
use peerproof_wire::{Digest, Level, ModelId, Offer, Prompt, Sampling};
use support::Writer;

const WIDTH: u64 = 64;
const CONTEXT: u32 = 48;
const F32: u32 = 0;
const EPSILON: f32 = 1e-5;

/// Pseudo-random floats around `middle`.
struct Random(u64);

impl Random {
    fn floats(&mut self, count: u64, middle: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            middle + (self.0 >> 52) as f32 / 8192.0 - 0.25
        };
        (0..count).map(|_| next()).collect()
    }
}

fn bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|float| float.to_le_bytes()).collect()
}

/// A model of one layer, and the gain of its output norm.
fn small(pooling: Option<u32>) -> (Arc<Model>, Vec<f32>) {
    let mut random = Random(5);
    let mut writer = Writer::default()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.context_length", CONTEXT)
        .u32("llama.embedding_length", WIDTH as u32)
        .u32("llama.feed_forward_length", WIDTH as u32)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .u32("llama.rope.dimension_count", 16)
        .f32("llama.attention.layer_norm_rms_epsilon", EPSILON)
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", &["a", "b", "c", "ab", "<s>"])
        .i32s("tokenizer.ggml.token_type", &[1, 1, 1, 1, 3])
        .strings("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.eos_token_id", 4);
    if let Some(number) = pooling {
        writer = writer.u32("llama.pooling_type", number);
    }
    let gain = random.floats(WIDTH, 1.0);
    writer = writer.tensor("output_norm.weight", &[WIDTH], F32, &bytes(&gain));
    for norm in ["blk.0.attn_norm", "blk.0.ffn_norm"] {
        let data = bytes(&random.floats(WIDTH, 1.0));
        writer = writer.tensor(&format!("{norm}.weight"), &[WIDTH], F32, &data);
    }
    for (matrix, rows) in [
        ("token_embd", 5),
        ("blk.0.attn_q", WIDTH),
        ("blk.0.attn_k", WIDTH / 2),
        ("blk.0.attn_v", WIDTH / 2),
        ("blk.0.attn_output", WIDTH),
        ("blk.0.ffn_gate", WIDTH),
        ("blk.0.ffn_up", WIDTH),
        ("blk.0.ffn_down", WIDTH),
    ] {
        let data = bytes(&random.floats(WIDTH * rows, 0.0));
        writer = writer.tensor(&format!("{matrix}.weight"), &[WIDTH, rows], F32, &data);
    }
    let file = Gguf::parse(writer.bytes()).unwrap();
    (Model::from_gguf(&file, &LoadOptions::default()).unwrap(), gain)
}

fn offer(model_id: ModelId, pooling: Pooling, components: u32) -> Offer {
    Offer {
        model_id,
        prompt: Prompt::Tokens(tokens()),
        sampling: Sampling::GREEDY,
        max_tokens: components,
        stop: vec![],
        level: Level::Full,
        public_nonce: [1; 32],
        client_nonce_hash: Digest::from_bytes([2; 32]),
        deadline_ms: 1_000,
        pooling: Some(pooling),
        class: peerproof_wire::Class::Exact,
    }
}

fn tokens() -> Vec<u32> {
    (0..CONTEXT).map(|at| at * at % 5).collect()
}

fn key() -> Digest {
    Digest::from_bytes([9; 32])
}

/// The vector, and the steps it was made in.
fn embed(model: &Arc<Model>, pooling: Pooling, components: u32) -> (Vec<i32>, Vec<Step>) {
    let replayer = Replayer::new(Arc::clone(model), 2).unwrap();
    let offer = offer(model.id(), pooling, components);
    let mut steps = Vec::new();
    let mut take = |step| steps.push(step);
    let (vector, _) = replayer.embed(&offer, &key(), &tokens(), &mut take).unwrap();
    (vector.into_iter().map(component).collect(), steps)
}

/// The states of all positions, one at a time on the portable path.
fn states(model: &Arc<Model>) -> Vec<Vec<i32>> {
    let transformer = model.transformer();
    let mut runner = Runner::new(Arc::clone(transformer), 1, KernelPath::Portable).unwrap();
    let mut kv = Kv::new(transformer, CONTEXT as usize);
    let mut states = Vec::new();
    for token in tokens() {
        let item = Item { sequence: 0, token, logits: false };
        let mut take = |_, output: peerproof_engine::forward::Output<'_>| {
            states.push(output.state.to_vec());
        };
        runner.forward(&mut [&mut kv], &[item], &mut take).unwrap();
    }
    states
}

/// The vector by its definition, in floats.
fn by_floats(states: &[Vec<i32>], gain: &[f32], components: usize) -> Vec<f64> {
    let mut pool = vec![0.0; gain.len()];
    for state in states {
        let x: Vec<f64> = state.iter().map(|&x| f64::from(x) / 4096.0).collect();
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(EPSILON)).sqrt();
        for ((sum, x), gain) in pool.iter_mut().zip(&x).zip(gain) {
            *sum += x * scale * f64::from(*gain);
        }
    }
    pool.truncate(components);
    let length = pool.iter().map(|p| p * p).sum::<f64>().sqrt();
    pool.iter().map(|p| p / length).collect()
}

fn assert_close(vector: &[i32], expected: &[f64]) {
    assert_eq!(vector.len(), expected.len());
    for (got, expected) in vector.iter().zip(expected) {
        let got = f64::from(*got) / f64::from(1 << COMPONENT_BITS);
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
    }
}

#[test]
fn vectors_are_those_of_the_formula_in_floats() {
    let (model, gain) = small(None);
    let states = states(&model);
    let (mean, steps) = embed(&model, Pooling::Mean, 1_000);
    assert_close(&mean, &by_floats(&states, &gain, 64));
    let last = &states[states.len() - 1..];
    assert_close(&embed(&model, Pooling::Last, 1_000).0, &by_floats(last, &gain, 64));
    assert_close(&embed(&model, Pooling::Mean, 7).0, &by_floats(&states, &gain, 7));
    for (at, (step, state)) in steps.iter().zip(&states).enumerate() {
        assert_eq!((step.position as usize, step.token), (at, tokens()[at]));
        assert_eq!(step.state, state_digest(&key(), state));
        assert!(step.drawn.is_none());
    }
    assert_eq!(steps.len(), tokens().len());
}

#[test]
fn a_file_says_how_to_pool_where_the_offer_does_not() {
    for (number, same) in
        [(None, Pooling::Mean), (Some(1), Pooling::Mean), (Some(3), Pooling::Last)]
    {
        let (model, _) = small(number);
        let vector = embed(&model, Pooling::Model, 64).0;
        assert_eq!(vector, embed(&model, same, 64).0, "{number:?}");
        let other = if same == Pooling::Mean { Pooling::Last } else { Pooling::Mean };
        assert_ne!(vector, embed(&model, other, 64).0, "{number:?}");
    }
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let (model, _) = small(None);
    let replayer = Replayer::new(Arc::clone(&model), 1).unwrap();
    let asked = offer(model.id(), Pooling::Mean, 64);
    let embed = |offer: &Offer, prompt: &[u32]| {
        replayer.embed(offer, &key(), prompt, &mut |_| {}).unwrap_err()
    };
    let other = offer(ModelId::from_bytes([0; 32]), Pooling::Mean, 64);
    assert!(matches!(embed(&other, &[1]), ReplayError::Model { .. }));
    let long = vec![1; CONTEXT as usize + 1];
    assert!(matches!(embed(&asked, &long), ReplayError::Prompt(PromptError::TooLong { .. })));
    assert!(matches!(embed(&asked, &[]), ReplayError::Prompt(PromptError::Empty)));
    assert!(matches!(embed(&asked, &[5]), ReplayError::Prompt(_)));
}

#[test]
fn what_was_given_up_is_not_computed() {
    let (model, _) = small(None);
    let replayer = Replayer::new(Arc::clone(&model), 1).unwrap();
    let asked = offer(model.id(), Pooling::Mean, 64);
    let embed = |stop: bool| {
        let (stop, mut steps) = (AtomicBool::new(stop), 0);
        let vector = replayer.until(&stop).embed(&asked, &key(), &tokens(), &mut |_| steps += 1);
        (vector, steps)
    };
    let (stopped, steps) = embed(true);
    assert!(matches!(stopped, Err(ReplayError::Stopped { read: 0, tokens: 48 })));
    assert_eq!(steps, 0);
    let (vector, steps) = embed(false);
    assert_eq!((vector.unwrap().0.len(), steps), (64, 48));
}
