//! What the small files are: one for each family, each format, and each rule of
//! a header that changes what is computed.

use super::recipe::{Recipe, Tensor, Value};

/// A file in the making.
#[derive(Clone)]
struct Small {
    name: &'static str,
    family: &'static str,
    layers: u64,
    width: u64,
    heads: u64,
    kv_heads: u64,
    dims: u64,
    feed: u64,
    vocabulary: u64,
    context: u32,
    /// The format of matrices, but for those named in `mix`.
    format: &'static str,
    mix: &'static [(&'static str, &'static str)],
    /// The format of gains and biases.
    gains: &'static str,
    /// An output matrix of its own.
    head: bool,
    numbers: Vec<(&'static str, u32)>,
    floats: Vec<(&'static str, f64)>,
    scaling: Option<&'static str>,
    /// Divisors of frequencies: the tensor, around what, and how far.
    factors: Vec<(&'static str, f64, f64)>,
}

fn small(name: &'static str, family: &'static str) -> Small {
    Small {
        name,
        family,
        layers: 2,
        width: 96,
        heads: 6,
        kv_heads: 2,
        dims: 32,
        feed: 160,
        vocabulary: 41,
        context: 256,
        format: "Q8_0",
        mix: &[],
        gains: "F32",
        head: false,
        numbers: vec![],
        floats: vec![],
        scaling: None,
        factors: vec![],
    }
}

impl Small {
    fn recipe(&self) -> Recipe {
        Recipe {
            name: self.name.to_owned(),
            keys: self.keys(),
            tensors: self.whole(),
            layers: self.layers,
            layer: self.layer(),
        }
    }

    fn keys(&self) -> Vec<(String, Value)> {
        let key = |name: &str| format!("{}.{name}", self.family);
        let text = |value: &str| Value::String(value.to_owned());
        let mut keys = vec![("general.architecture".to_owned(), text(self.family))];
        let sizes = [
            ("block_count", self.layers as u32),
            ("context_length", self.context),
            ("embedding_length", self.width as u32),
            ("feed_forward_length", self.feed as u32),
            ("attention.head_count", self.heads as u32),
        ];
        // What a file need not say is said only where it isn't so.
        let defaults = [
            ("attention.head_count_kv", self.kv_heads, self.heads),
            ("attention.key_length", self.dims, self.width / self.heads),
            ("attention.value_length", self.dims, self.width / self.heads),
        ];
        let told = defaults.into_iter().filter(|(_, value, default)| value != default);
        let told = told.map(|(name, value, _)| (name, value as u32));
        let numbers = sizes.into_iter().chain(told).chain(self.numbers.iter().copied());
        keys.extend(numbers.map(|(name, value)| (key(name), Value::U32(value))));
        let epsilon = ("attention.layer_norm_rms_epsilon", 1e-6);
        let floats = std::iter::once(&epsilon).chain(&self.floats);
        keys.extend(floats.map(|&(name, value)| (key(name), Value::F32(value))));
        keys.extend(self.scaling.map(|kind| (key("rope.scaling.type"), text(kind))));
        keys
    }

    fn matrix(&self, name: &str, cols: u64, rows: u64) -> Tensor {
        let own = self.mix.iter().find(|(part, _)| *part == name);
        Tensor {
            name: format!("{name}.weight"),
            dims: vec![cols, rows],
            format: own.map_or(self.format, |(_, format)| format).to_owned(),
            around: None,
        }
    }

    fn vector(&self, name: &str, len: u64, middle: f64, spread: f64) -> Tensor {
        Tensor {
            name: name.to_owned(),
            dims: vec![len],
            format: self.gains.to_owned(),
            around: (self.gains == "F32").then_some((middle, spread)),
        }
    }

    fn whole(&self) -> Vec<Tensor> {
        let mut tensors = vec![self.matrix("token_embd", self.width, self.vocabulary)];
        tensors.extend(self.head.then(|| self.matrix("output", self.width, self.vocabulary)));
        tensors.push(self.vector("output_norm.weight", self.width, 1.0, 0.5));
        let turned = self.numbers.iter().find(|(name, _)| *name == "rope.dimension_count");
        let pairs = turned.map_or(self.dims, |&(_, count)| u64::from(count)) / 2;
        tensors.extend(self.factors.iter().map(|&(name, middle, spread)| Tensor {
            format: "F32".to_owned(),
            around: Some((middle, spread)),
            ..self.vector(name, pairs, middle, spread)
        }));
        tensors
    }

    fn layer(&self) -> Vec<Tensor> {
        let (width, feed) = (self.width, self.feed);
        let (all, kv) = (self.heads * self.dims, self.kv_heads * self.dims);
        let mut tensors = vec![self.vector("attn_norm.weight", width, 1.0, 0.5)];
        if self.family == "phi3" {
            tensors.push(self.matrix("attn_qkv", width, all + 2 * kv));
        } else {
            let parts = [("attn_q", all), ("attn_k", kv), ("attn_v", kv)];
            tensors.extend(parts.map(|(name, rows)| self.matrix(name, width, rows)));
        }
        if self.family == "qwen2" {
            let biases = [("attn_q.bias", all, 0.0, 2.0), ("attn_k.bias", kv, 5.0, 40.0)];
            tensors.extend(biases.map(|(name, len, m, s)| self.vector(name, len, m, s)));
            tensors.push(self.vector("attn_v.bias", kv, 0.0, 0.25));
        }
        if ["qwen3", "gemma3"].contains(&self.family) {
            let names = ["attn_q_norm.weight", "attn_k_norm.weight"];
            tensors.extend(names.map(|name| self.vector(name, self.dims, 1.0, 0.5)));
        }
        tensors.push(self.matrix("attn_output", all, width));
        tensors.push(self.vector("ffn_norm.weight", width, 1.0, 0.5));
        if self.family == "phi3" {
            tensors.push(self.matrix("ffn_up", width, 2 * feed));
        } else {
            tensors.extend(["ffn_gate", "ffn_up"].map(|name| self.matrix(name, width, feed)));
        }
        tensors.push(self.matrix("ffn_down", feed, width));
        if self.family.starts_with("gemma") {
            let names = ["post_attention_norm.weight", "post_ffw_norm.weight"];
            tensors.extend(names.map(|name| self.vector(name, width, 1.0, 0.75)));
        }
        tensors
    }
}

/// A file for each format of matrices.
fn formats() -> Vec<Small> {
    let wide = |name, format| Small {
        format,
        width: 256,
        heads: 8,
        feed: 256,
        head: true,
        ..small(name, "llama")
    };
    vec![
        // Rows that are whole blocks of nothing.
        Small {
            format: "F32",
            width: 80,
            heads: 5,
            kv_heads: 1,
            dims: 16,
            feed: 112,
            ..small("f32", "llama")
        },
        Small {
            format: "F16",
            gains: "F16",
            width: 112,
            heads: 7,
            kv_heads: 7,
            dims: 16,
            feed: 48,
            head: true,
            ..small("f16", "llama")
        },
        Small {
            format: "BF16",
            gains: "BF16",
            width: 144,
            heads: 9,
            kv_heads: 3,
            dims: 48,
            feed: 80,
            ..small("bf16", "qwen2")
        },
        Small { format: "Q4_0", head: true, ..small("q4_0", "llama") },
        Small { format: "Q4_1", ..small("q4_1", "llama") },
        Small { format: "Q5_0", head: true, ..small("q5_0", "llama") },
        Small { format: "Q5_1", ..small("q5_1", "llama") },
        Small { format: "Q8_0", head: true, ..small("q8_0", "llama") },
        Small { format: "IQ4_NL", ..small("iq4_nl", "llama") },
        wide("q2_k", "Q2_K"),
        wide("q3_k", "Q3_K"),
        wide("q4_k", "Q4_K"),
        wide("q5_k", "Q5_K"),
        wide("q6_k", "Q6_K"),
        // As files of few bits mix them.
        Small {
            mix: &[
                ("token_embd", "Q8_0"),
                ("attn_q", "Q5_0"),
                ("attn_v", "Q6_K"),
                ("ffn_down", "IQ4_NL"),
                ("attn_k", "F16"),
            ],
            ..wide("mixed", "Q4_K")
        },
        Small { family: "phi3", head: false, ..wide("fused-q5_k", "Q5_K") },
        Small { family: "gemma3", mix: &[("ffn_down", "Q6_K")], ..wide("gemma3-q3_k", "Q3_K") },
    ]
}

/// A file for each family, and for what its header may say of attention.
fn families() -> Vec<Small> {
    let window = |length| vec![("attention.sliding_window", length)];
    let periodic = |length, period| {
        vec![("attention.sliding_window", length), ("attention.sliding_window_pattern", period)]
    };
    let caps = vec![("attn_logit_softcapping", 4.0), ("final_logit_softcapping", 5.0)];
    let broad = |name, family, layers| Small {
        layers,
        width: 64,
        heads: 2,
        kv_heads: 2,
        dims: 16,
        feed: 32,
        ..small(name, family)
    };
    vec![
        // Heads that aren't width / heads wide, and a window, as Mistral has them.
        Small { dims: 48, numbers: window(20), head: true, ..small("llama-window", "llama") },
        Small { floats: caps.clone(), ..small("llama-caps", "llama") },
        Small { numbers: vec![("rope.dimension_count", 24)], ..small("llama-partial", "llama") },
        Small { heads: 2, kv_heads: 1, dims: 256, ..small("llama-broad-heads", "llama") },
        small("qwen2", "qwen2"),
        Small { head: true, ..small("qwen3", "qwen3") },
        Small { layers: 3, numbers: window(20), ..small("gemma2", "gemma2") },
        Small {
            layers: 3,
            numbers: periodic(16, 3),
            floats: caps,
            ..small("gemma2-caps", "gemma2")
        },
        Small { layers: 3, numbers: periodic(16, 3), ..small("gemma3", "gemma3") },
        Small { numbers: periodic(16, 1), ..small("gemma3-no-window", "gemma3") },
        small("phi3", "phi3"),
        Small {
            numbers: vec![("rope.dimension_count", 24), ("attention.sliding_window", 20)],
            ..small("phi3-partial-window", "phi3")
        },
        broad("gemma2-46-layers", "gemma2", 46),
        broad("gemma3-62-layers", "gemma3", 62),
    ]
}

/// A file for each way of stretching a context.
fn rotations() -> Vec<Small> {
    let original = |length| vec![("rope.scaling.original_context_length", length)];
    let long =
        vec![("rope_factors_long.weight", 16.0, 15.0), ("rope_factors_short.weight", 1.5, 0.5)];
    let scaled = |name, family, kind, factor| Small {
        scaling: Some(kind),
        floats: vec![("rope.scaling.factor", factor)],
        ..small(name, family)
    };
    let yarn = |name, family, factor, more: &[(&'static str, f64)], length| {
        let mut small = scaled(name, family, "yarn", factor);
        small.floats.extend(more);
        Small { numbers: original(length), ..small }
    };
    let betas = [
        ("rope.scaling.yarn_beta_fast", 16.0),
        ("rope.scaling.yarn_beta_slow", 2.0),
        ("rope.scaling.yarn_attn_factor", 1.25),
        ("rope.freq_base", 1_000_000.0),
    ];
    let attention = ("rope.scaling.attn_factor", 1.19);
    vec![
        scaled("rope-linear", "llama", "linear", 4.0),
        scaled("rope-none", "llama", "none", 4.0),
        Small { scaling: None, ..scaled("rope-factor", "qwen3", "none", 2.5) },
        Small { floats: vec![("rope.freq_base", 500_000.0)], ..small("rope-ntk", "llama") },
        Small { factors: vec![("rope_freqs.weight", 4.5, 3.5)], ..small("rope-llama3", "llama") },
        yarn("rope-yarn", "llama", 8.0, &[], 64),
        yarn("rope-yarn-betas", "qwen2", 4.0, &betas, 256),
        yarn(
            "rope-yarn-slow",
            "qwen3",
            16.0,
            &[("rope.scaling.yarn_beta_slow", 0.001), attention],
            128,
        ),
        Small {
            factors: long.clone(),
            floats: vec![attention],
            numbers: original(128),
            ..small("rope-long", "phi3")
        },
        Small {
            factors: long,
            scaling: Some("longrope"),
            numbers: original(256),
            ..small("rope-short", "phi3")
        },
        Small {
            layers: 3,
            floats: vec![("rope.scaling.factor", 8.0), ("rope.freq_base_swa", 20_000.0)],
            numbers: vec![
                ("attention.sliding_window", 16),
                ("attention.sliding_window_pattern", 2),
            ],
            ..scaled("rope-windows", "gemma3", "linear", 8.0)
        },
    ]
}

/// Every small file.
pub(crate) fn recipes() -> Vec<Recipe> {
    [formats(), families(), rotations()].iter().flatten().map(Small::recipe).collect()
}
