//! Every family of models on small made-up files: the integers agree with the
//! float reference, and their bits don't depend on path, threads or chunks. What
//! a family doesn't know is refused by name.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/hollow.rs"]
mod hollow;
mod support;

use std::sync::Arc;

use peerproof_engine::forward::{Item, Runner};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::model::ARCHITECTURES;
use peerproof_engine::reference::{Quality, compare};
use peerproof_engine::transformer::{LoadOptions, Transformer};
use support::Writer;

const VOCABULARY: u64 = 41;
const Q8_0: u32 = 8;
const F32: u32 = 0;

/// A small model in the making.
#[derive(Clone)]
struct Small {
    family: &'static str,
    layers: u64,
    width: u64,
    heads: u64,
    kv_heads: u64,
    dims: u64,
    rotated: u64,
    feed: u64,
    context: u32,
    /// Keys without the family's name.
    numbers: Vec<(&'static str, u32)>,
    floats: Vec<(&'static str, f32)>,
    scaling: Option<&'static str>,
    /// Divisors of frequencies: the tensor and the largest.
    factors: Vec<(&'static str, f32)>,
}

fn small(family: &'static str) -> Small {
    Small {
        family,
        layers: 3,
        width: 96,
        heads: 6,
        kv_heads: 2,
        dims: 32,
        rotated: 32,
        feed: 160,
        context: 256,
        numbers: vec![],
        floats: vec![],
        scaling: None,
        factors: vec![],
    }
}

/// Pseudo-random numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as u32
    }

    /// From -1 to 1, in steps of 2^-12.
    fn unit(&mut self) -> f32 {
        (self.next() & 0x1fff) as f32 / 4096.0 - 1.0
    }

    /// `rows` rows of `cols` weights in blocks of 32: 8 bits and a scale.
    fn matrix(&mut self, cols: u64, rows: u64, scale: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..cols * rows / 32 {
            bytes.extend((scale | (self.next() as u16 & 0x3ff)).to_le_bytes());
            bytes.extend((0..32).map(|_| self.next() as u8));
        }
        bytes
    }

    fn vector(&mut self, len: u64, middle: f32, spread: f32) -> Vec<u8> {
        (0..len).flat_map(|_| (middle + spread * self.unit()).to_le_bytes()).collect()
    }
}

impl Small {
    fn header(&self) -> Writer {
        let key = |key: &str| format!("{}.{key}", self.family);
        let mut writer = Writer::default()
            .str("general.architecture", self.family)
            .u32(&key("block_count"), self.layers as u32)
            .u32(&key("context_length"), self.context)
            .u32(&key("embedding_length"), self.width as u32)
            .u32(&key("feed_forward_length"), self.feed as u32)
            .u32(&key("attention.head_count"), self.heads as u32)
            .u32(&key("attention.head_count_kv"), self.kv_heads as u32)
            .u32(&key("attention.key_length"), self.dims as u32)
            .u32(&key("attention.value_length"), self.dims as u32)
            .u32(&key("rope.dimension_count"), self.rotated as u32)
            .f32(&key("attention.layer_norm_rms_epsilon"), 1e-6);
        for (name, value) in &self.numbers {
            writer = writer.u32(&key(name), *value);
        }
        for (name, value) in &self.floats {
            writer = writer.f32(&key(name), *value);
        }
        match self.scaling {
            Some(kind) => writer.str(&key("rope.scaling.type"), kind),
            None => writer,
        }
    }

    /// A layer's matrices: name, columns, rows.
    fn matrices(&self) -> Vec<(&'static str, u64, u64)> {
        let (all, kv) = (self.heads * self.dims, self.kv_heads * self.dims);
        let first = if self.family == "phi3" {
            vec![("attn_qkv", self.width, all + 2 * kv), ("ffn_up", self.width, 2 * self.feed)]
        } else {
            vec![
                ("attn_q", self.width, all),
                ("attn_k", self.width, kv),
                ("attn_v", self.width, kv),
                ("ffn_gate", self.width, self.feed),
                ("ffn_up", self.width, self.feed),
            ]
        };
        let last = [("attn_output", all, self.width), ("ffn_down", self.feed, self.width)];
        first.into_iter().chain(last).collect()
    }

    /// A layer's vectors: name, length, middle, spread.
    fn vectors(&self) -> Vec<(&'static str, u64, f32, f32)> {
        let width = self.width;
        let (all, kv) = (self.heads * self.dims, self.kv_heads * self.dims);
        let mut names =
            vec![("attn_norm.weight", width, 1.0, 0.5), ("ffn_norm.weight", width, 1.0, 0.5)];
        match self.family {
            "qwen2" => names.extend([
                ("attn_q.bias", all, 0.0, 2.0),
                ("attn_k.bias", kv, 5.0, 40.0),
                ("attn_v.bias", kv, 0.0, 0.25),
            ]),
            "qwen3" | "gemma3" => names.extend([
                ("attn_q_norm.weight", self.dims, 1.0, 0.5),
                ("attn_k_norm.weight", self.dims, 1.0, 0.5),
            ]),
            _ => {}
        }
        if self.family.starts_with("gemma") {
            names.extend([
                ("post_attention_norm.weight", width, 1.0, 0.75),
                ("post_ffw_norm.weight", width, 1.0, 0.75),
            ]);
        }
        names
    }

    fn writer(&self) -> Writer {
        let mut random = Random(7);
        let matrix = |writer: Writer, random: &mut Random, name: &str, cols, rows| {
            writer.tensor(name, &[cols, rows], Q8_0, &random.matrix(cols, rows, 0x1000))
        };
        let mut writer =
            matrix(self.header(), &mut random, "token_embd.weight", self.width, VOCABULARY);
        let norm = random.vector(self.width, 1.0, 0.5);
        writer = writer.tensor("output_norm.weight", &[self.width], F32, &norm);
        for (name, largest) in &self.factors {
            let pairs = self.rotated / 2;
            let step = |pair| 1.0 + (largest - 1.0) * pair as f32 / pairs as f32;
            let data: Vec<u8> = (0..pairs).flat_map(|pair| step(pair).to_le_bytes()).collect();
            writer = writer.tensor(name, &[pairs], F32, &data);
        }
        for layer in 0..self.layers {
            for (name, cols, rows) in self.matrices() {
                let name = format!("blk.{layer}.{name}.weight");
                writer = matrix(writer, &mut random, &name, cols, rows);
            }
            for (name, len, middle, spread) in self.vectors() {
                let data = random.vector(len, middle, spread);
                writer = writer.tensor(&format!("blk.{layer}.{name}"), &[len], F32, &data);
            }
        }
        writer
    }
}

fn tokens() -> Vec<u32> {
    (0..120).map(|at| at * at % VOCABULARY as u32).collect()
}

/// State and logits of a position.
type Row = (Vec<i32>, Vec<i32>);

fn run(model: &Arc<Transformer>, path: KernelPath, threads: usize, size: usize) -> Vec<Row> {
    let mut runner = Runner::new(Arc::clone(model), threads, path).unwrap();
    let mut kv = Kv::new(model, 120);
    let mut rows = Vec::new();
    for chunk in tokens().chunks(size) {
        let items: Vec<Item> =
            chunk.iter().map(|&token| Item { sequence: 0, token, logits: true }).collect();
        let mut sink = |_: usize, output: peerproof_engine::forward::Output<'_>| {
            rows.push((output.state.to_vec(), output.logits.unwrap().to_vec()));
        };
        runner.forward(&mut [&mut kv], &items, &mut sink).unwrap();
    }
    rows
}

fn load(writer: &Writer) -> Result<Arc<Transformer>, String> {
    let options = LoadOptions { threads: 2, ..LoadOptions::default() };
    let gguf = Gguf::parse(writer.bytes()).unwrap();
    Transformer::load(&gguf, &options).map(Arc::new).map_err(|error| error.to_string())
}

/// Compares with floats, and every way of running with one another.
fn check(small: &Small) -> (Vec<Row>, Quality) {
    let gguf = Gguf::parse(small.writer().bytes()).unwrap();
    let model = load(&small.writer()).unwrap();
    let whole = run(&model, KernelPath::Portable, 1, 120);
    for path in KernelPath::available() {
        for (threads, size) in [(1, 1), (2, 7), (2, 120)] {
            let rows = run(&model, path, threads, size);
            assert!(rows == whole, "{} {path:?} {threads} {size}", small.family);
        }
    }
    let quality = compare(&gguf, &model, &tokens(), 2).unwrap();
    let name = (small.family, small.scaling);
    assert!(quality.perplexity_change().abs() < 0.002, "{name:?} {quality:?}");
    assert!(quality.divergence < 2e-4, "{name:?} {quality:?}");
    // A model that has nothing to say agrees with anything.
    assert!((quality.reference_perplexity - VOCABULARY as f64).abs() > 2.0, "{name:?} {quality:?}");
    (whole, quality)
}

/// Both files differ in what they compute after position `from`, and not before.
fn differ_from(a: &Small, b: &Small, from: usize) {
    let (a, b) = (check(a).0, check(b).0);
    assert!(a[..from] == b[..from]);
    // What leaves the window first may have weighed nothing.
    assert!(a[from..] != b[from..]);
}

#[test]
fn every_family_agrees_with_floats_and_gives_one_set_of_bits() {
    let families = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"];
    assert_eq!(families, ARCHITECTURES);
    for family in families {
        check(&small(family));
    }
    // Heads that are not width / heads wide, as in Mistral's; partly rotated ones.
    check(&Small { dims: 48, rotated: 48, ..small("llama") });
    check(&Small { rotated: 24, ..small("phi3") });
    check(&Small { dims: 256, rotated: 256, kv_heads: 1, heads: 2, ..small("gemma3") });
}

#[test]
fn every_family_is_checked_by_products_alone() {
    for family in ARCHITECTURES {
        hollow::check(small(family).writer().bytes());
    }
    let caps = vec![("final_logit_softcapping", 5.0), ("attn_logit_softcapping", 4.0)];
    let numbers = vec![("attention.sliding_window", 20)];
    hollow::check(Small { floats: caps, numbers, ..small("gemma2") }.writer().bytes());
}

#[test]
fn windows_end_where_they_should() {
    let window = |family, length, period: Option<u32>| {
        let mut numbers = vec![("attention.sliding_window", length)];
        numbers.extend(period.map(|period| ("attention.sliding_window_pattern", period)));
        Small { numbers, ..small(family) }
    };
    // A window of 20 reaches from position 19 back to 0, and from 20 not.
    for family in ["llama", "phi3"] {
        differ_from(&window(family, 20, None), &window(family, 0, None), 20);
    }
    differ_from(&window("gemma2", 20, None), &small("gemma2"), 20);
    // Of three layers the last sees everything, or the second.
    differ_from(&window("gemma2", 20, Some(3)), &window("gemma2", 20, Some(2)), 20);
    // In Gemma 3 layers with a window also rotate otherwise.
    differ_from(&window("gemma3", 20, Some(3)), &window("gemma3", 0, None), 1);
    // A period of one leaves no layer a window.
    let [all, none] = [window("gemma3", 20, Some(1)), window("gemma3", 0, None)];
    assert!(check(&all).0 == check(&none).0);
}

#[test]
fn contexts_are_stretched_as_the_file_says() {
    let plain = check(&small("llama")).0;
    let long = vec![("rope_factors_long.weight", 30.0), ("rope_factors_short.weight", 2.0)];
    let original = |length| vec![("rope.scaling.original_context_length", length)];
    let cases = [
        Small {
            scaling: Some("linear"),
            floats: vec![("rope.scaling.factor", 4.0)],
            ..small("llama")
        },
        Small {
            scaling: Some("yarn"),
            floats: vec![("rope.scaling.factor", 8.0)],
            numbers: original(64),
            ..small("llama")
        },
        Small {
            scaling: Some("yarn"),
            floats: vec![
                ("rope.scaling.factor", 4.0),
                ("rope.scaling.yarn_beta_fast", 16.0),
                ("rope.scaling.yarn_beta_slow", 2.0),
                ("rope.scaling.yarn_attn_factor", 1.25),
                ("rope.freq_base", 1_000_000.0),
            ],
            numbers: original(256),
            ..small("qwen2")
        },
        Small { factors: vec![("rope_freqs.weight", 8.0)], ..small("llama") },
        Small { floats: vec![("rope.freq_base", 500_000.0)], ..small("llama") },
        Small {
            factors: long.clone(),
            floats: vec![("rope.scaling.attn_factor", 1.19)],
            numbers: original(128),
            ..small("phi3")
        },
        Small { factors: long, scaling: Some("longrope"), numbers: original(256), ..small("phi3") },
        Small {
            scaling: Some("linear"),
            floats: vec![("rope.scaling.factor", 8.0), ("rope.freq_base_swa", 20_000.0)],
            numbers: vec![
                ("attention.sliding_window", 16),
                ("attention.sliding_window_pattern", 2),
            ],
            ..small("gemma3")
        },
    ];
    let mut seen = vec![plain];
    for case in cases {
        let rows = check(&case).0;
        assert!(!seen.contains(&rows), "{:?} {:?}", case.scaling, case.floats);
        seen.push(rows);
    }
}

#[test]
fn soft_caps_bound_logits() {
    for family in ["llama", "gemma2", "gemma3"] {
        let floats = vec![("final_logit_softcapping", 5.0), ("attn_logit_softcapping", 4.0)];
        let capped = Small { floats, ..small(family) };
        let (rows, _) = check(&capped);
        assert!(rows.iter().flat_map(|row| &row.1).all(|logit| logit.abs() <= 5 * 1024));
    }
    // Gemma 2 has caps even where the file doesn't say so.
    let rows = check(&small("gemma2")).0;
    assert!(rows.iter().flat_map(|row| &row.1).all(|logit| logit.abs() <= 30 * 1024));
}

#[test]
fn the_two_broad_sizes_scale_their_scores_by_width() {
    for (family, layers) in [("gemma2", 46), ("gemma3", 62)] {
        let broad = Small {
            layers,
            width: 96,
            heads: 2,
            kv_heads: 2,
            dims: 16,
            rotated: 16,
            feed: 32,
            ..small(family)
        };
        check(&broad);
        // Nothing to divide scores by, or so little that they would leave 62 bits.
        for heads in [8, 128] {
            let narrow = Small { heads, kv_heads: heads, ..broad.clone() };
            let data = vec![0; 4 * 96 * VOCABULARY as usize];
            let rows = narrow.header().tensor("token_embd.weight", &[96, VOCABULARY], F32, &data);
            let known = Transformer::estimate(&Gguf::parse(rows.bytes()).unwrap());
            for error in [load(&rows).unwrap_err(), known.unwrap_err().to_string()] {
                assert!(
                    error.contains("attention.head_count is ") && error.contains("at most 6"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn memory_is_known_before_loading() {
    for family in ARCHITECTURES {
        let writer = small(family).writer();
        let gguf = Gguf::parse(writer.bytes()).unwrap();
        let (known, model) = (Transformer::estimate(&gguf).unwrap(), load(&writer).unwrap());
        assert_eq!(known.kv_per_position, 3 * 2 * (2 * 2 * 32 + 4));
        assert_eq!(known.kv_per_position, model.footprint().kv_per_position);
        // Matrices begin at multiples of 64 bytes.
        let packed = model.footprint().weights;
        assert!((packed..packed + 64 * 30).contains(&known.weights), "{family}");
        assert_eq!(known.scratch, model.footprint().scratch);
        assert!(known.scratch > 0);
    }
}

#[test]
fn what_a_family_does_not_know_is_refused_by_name() {
    let refused = |writer: Writer, words: &[&str]| {
        let error = load(&writer).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let vector = |len: u64| vec![0; 4 * len as usize];
    let extra = |family: &'static str, name: &str, len: u64| {
        small(family).writer().tensor(name, &[len], F32, &vector(len))
    };
    refused(extra("llama", "blk.1.attn_q.bias", 192), &["blk.1.attn_q.bias", "llama"]);
    refused(extra("qwen2", "blk.1.attn_output.bias", 96), &["blk.1.attn_output.bias"]);
    refused(extra("qwen3", "blk.0.post_ffw_norm.weight", 96), &["post_ffw_norm"]);
    refused(extra("gemma2", "blk.0.attn_q_norm.weight", 32), &["attn_q_norm"]);
    refused(extra("phi3", "blk.0.ffn_gate.weight", 96), &["ffn_gate"]);
    refused(extra("phi3", "rope_factors_long.weight", 16), &["rope_factors_long"]);
    refused(extra("gemma3", "blk.0.ffn_gate_inp.weight", 96), &["ffn_gate_inp"]);
    refused(extra("llama", "blk.01.attn_norm.weight", 96), &["blk.01.attn_norm"]);
    refused(extra("llama", "blk.+1.attn_norm.weight", 96), &["blk.+1.attn_norm"]);
    // Divisors of frequencies are floats, as gains are: blocks have fewer numbers.
    for (family, name) in [("llama", "rope_freqs"), ("phi3", "rope_factors_short")] {
        let wide = Small { dims: 64, rotated: 64, ..small(family) };
        let mut writer = wide.writer();
        for name in ["rope_freqs", "rope_factors_long", "rope_factors_short"] {
            if (family == "phi3") == name.contains("factors") {
                writer = writer.tensor(&format!("{name}.weight"), &[32], Q8_0, &[0x3f; 34]);
            }
        }
        refused(writer, &[name, "Q8_0"]);
    }
    // What a family has, a file of it must have.
    let missing = |family: &'static str, keys: &str| {
        let mut other = small("llama").writer().bytes();
        let name = b"llama";
        assert_eq!(family.len(), name.len());
        let places: Vec<usize> =
            (0..other.len() - 5).filter(|&at| other[at..].starts_with(name)).collect();
        places.iter().for_each(|&at| other[at..at + 5].copy_from_slice(family.as_bytes()));
        let error = Transformer::load(&Gguf::parse(other).unwrap(), &LoadOptions::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(keys), "{error}");
    };
    missing("qwen2", "attn_q.bias");
    missing("qwen3", "attn_q_norm.weight");
    let with = |family: &'static str, floats: Vec<(&'static str, f32)>, scaling| {
        Small { floats, scaling, ..small(family) }.writer()
    };
    refused(with("qwen3", vec![], Some("dynamic")), &["qwen3.rope.scaling.type", "dynamic"]);
    refused(with("phi3", vec![], Some("longrope")), &["phi3.rope.scaling.type"]);
    refused(with("llama", vec![], Some("yarn")), &["llama.rope.scaling.factor"]);
    refused(with("llama", vec![], Some("linear")), &["llama.rope.scaling.factor"]);
    refused(with("llama", vec![("rope.freq_base", 1.0)], None), &["llama.rope.freq_base"]);
    refused(with("llama", vec![("rope.scaling.factor", 0.01)], None), &["llama.rope.freq_base"]);
    let large = vec![("rope.scaling.factor", 4.0), ("rope.scaling.attn_factor", 1.9)];
    refused(with("llama", large, Some("yarn")), &["llama.rope.scaling.attn_factor"]);
    refused(
        with("gemma2", vec![("attn_logit_softcapping", 1.0)], None),
        &["attn_logit_softcapping"],
    );
    refused(with("gemma2", vec![("rope.freq_base_swa", 1e4)], None), &["rope.freq_base_swa"]);
    refused(with("gemma3", vec![("rope.freq_base_swa", -1.0)], None), &["rope.freq_base_swa"]);
    refused(with("qwen3", vec![("attention.scale", 0.5)], None), &["qwen3.attention.scale"]);
}
