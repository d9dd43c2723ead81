//! A whole small model, for tests that spoil it.

#![allow(unreachable_pub, reason = "each test binary includes this module as its own")]

use peerproof_engine::gguf::GgmlType;

use super::support::Writer;

/// Sizes of a model of one layer and one key-value head.
pub struct Sizes {
    pub width: u64,
    pub heads: u64,
    /// Values of a head.
    pub dims: u64,
    pub feed: u64,
}

/// A whole model whose embedding, query, key, value, output, gate and up, and down
/// have these formats. Every byte of their weights is 0x11, a scale in any format.
pub fn small_model(sizes: &Sizes, family: &str, kinds: &[GgmlType; 7]) -> Writer {
    let &Sizes { width, heads, dims, feed } = sizes;
    let key = |key: &str| format!("{family}.{key}");
    let tokens = ["a", "b", "ab", "Ġ", "<s>", "</s>", "c", "d"];
    let mut writer = Writer::default()
        .str("general.architecture", family)
        .u32(&key("block_count"), 1)
        .u32(&key("context_length"), 64)
        .u32(&key("embedding_length"), width as u32)
        .u32(&key("feed_forward_length"), feed as u32)
        .u32(&key("attention.head_count"), heads as u32)
        .u32(&key("attention.head_count_kv"), 1)
        .u32(&key("rope.dimension_count"), dims as u32)
        .f32(&key("rope.freq_base"), 10_000.0)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "qwen2")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &[1, 1, 1, 1, 3, 3, 1, 4])
        .strings("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.eos_token_id", 5)
        .str("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}");
    let mut matrices = vec![
        ("token_embd", width, tokens.len() as u64, 0),
        ("blk.0.attn_output", heads * dims, width, 4),
        ("blk.0.ffn_down", feed, width, 6),
    ];
    if family == "phi3" {
        matrices.push(("blk.0.attn_qkv", width, (heads + 2) * dims, 1));
        matrices.push(("blk.0.ffn_up", width, 2 * feed, 5));
    } else {
        matrices.extend([
            ("blk.0.attn_q", width, heads * dims, 1),
            ("blk.0.attn_k", width, dims, 2),
            ("blk.0.attn_v", width, dims, 3),
            ("blk.0.ffn_gate", width, feed, 5),
            ("blk.0.ffn_up", width, feed, 5),
        ]);
    }
    for (name, columns, rows, kind) in matrices {
        let kind = kinds[kind];
        let bytes = columns * rows / kind.block_elements() * kind.block_bytes();
        let data = vec![0x11; bytes as usize];
        writer = writer.tensor(&format!("{name}.weight"), &[columns, rows], kind.number(), &data);
    }
    let mut vectors = vec![
        ("output_norm.weight", width),
        ("blk.0.attn_norm.weight", width),
        ("blk.0.ffn_norm.weight", width),
    ];
    if family == "qwen2" {
        vectors.extend([("blk.0.attn_q.bias", heads * dims), ("blk.0.attn_k.bias", dims)]);
        vectors.push(("blk.0.attn_v.bias", dims));
    }
    if matches!(family, "qwen3" | "gemma3") {
        vectors.extend([("blk.0.attn_q_norm.weight", dims), ("blk.0.attn_k_norm.weight", dims)]);
    }
    if matches!(family, "gemma2" | "gemma3") {
        vectors.push(("blk.0.post_attention_norm.weight", width));
        vectors.push(("blk.0.post_ffw_norm.weight", width));
    }
    for (name, len) in vectors {
        let data = 1f32.to_le_bytes().repeat(len as usize);
        writer = writer.tensor(name, &[len], GgmlType::F32.number(), &data);
    }
    writer
}
