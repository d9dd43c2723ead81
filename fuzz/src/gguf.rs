//! A file: read, asked for everything it holds, loaded as a model, and run.

use std::sync::Arc;

use peerproof_engine::forward::{Item, Runner};
use peerproof_engine::gguf::{GgmlType, Gguf};
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::model::Model;
use peerproof_engine::transformer::LoadOptions;

use super::Outcome;
use super::small::{Sizes, small_model};
use super::support::Writer;

/// Words of the format and of its keys.
pub(crate) const WORDS: &[&[u8]] = &[
    b"GGUF\x03\0\0\0",
    b"general.alignment",
    b"general.architecture",
    b"gemma3",
    b"phi3",
    b"qwen2",
    b"\x08\0\0\0",
    b"\x09\0\0\0\x09\0\0\0",
    b"\x05\0\0\0\x02\0\0\0\0\0\0\0",
    b"\0\0\xc0\x7f",
    b"\0\0\x80\x7f",
    b"\0\x7c\xff\xff",
    b"tokenizer.ggml.pre",
    b"llama.rope.scaling.type",
    b"yarn",
];
/// Larger models are loaded, but not run.
const MAX_RUN_BYTES: usize = 4 << 20;

pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let Ok(file) = Gguf::parse(bytes) else { return Outcome::Refused };
    touch(&file);
    let options = LoadOptions { threads: 1, ..LoadOptions::default() };
    let _ = Model::facts(&file).map(drop);
    let Ok(model) = Model::from_gguf(&file, &options) else { return Outcome::Refused };
    let transformer = model.transformer();
    if transformer.weight_bytes() <= MAX_RUN_BYTES && model.context_length() >= 2 {
        // Widths were proved when the weights were packed: nothing may overflow.
        let runner = Runner::new(Arc::clone(transformer), 1, KernelPath::Portable);
        let Ok(mut runner) = runner else { return Outcome::Taken };
        let mut kv = Kv::new(transformer, 2);
        let last = model.vocabulary() as u32 - 1;
        let items = [0, last].map(|token| Item { sequence: 0, token, logits: true });
        runner.forward(&mut [&mut kv], &items, &mut |_, _| {}).expect("room for two tokens");
    }
    Outcome::Taken
}

/// Whatever was read can be asked for.
fn touch(file: &Gguf) {
    for (key, _) in file.keys() {
        let _ = (file.u32(key), file.f32(key), file.str(key), file.bool(key));
        let _ = file.strings(key).map(|strings| strings.map(<[u8]>::len).sum::<usize>());
        let _ = file.i32s(key).map(Iterator::count);
        let _ = file.u32s(key).map(Iterator::count);
        let _ = file.f32s(key).map(Iterator::count);
    }
    for tensor in file.tensors() {
        let again = file.tensor(tensor.name).expect("a tensor it has");
        assert_eq!(again.data.len(), tensor.data.len());
        assert_eq!(tensor.row_len() * tensor.rows(), tensor.elements());
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    use GgmlType::*;
    let small = Sizes { width: 32, heads: 2, dims: 16, feed: 32 };
    let wide = Sizes { width: 256, heads: 4, dims: 64, feed: 256 };
    let seeds = [
        small_model(&small, "llama", &[Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, F16, F32]),
        small_model(&small, "qwen2", &[F32, F16, BF16, Iq4Nl, Q8_0, Q4_0, Q4_0]),
        small_model(&small, "qwen3", &[Q8_0; 7]),
        small_model(&small, "gemma2", &[Q8_0; 7]),
        small_model(&small, "gemma3", &[Q4_0; 7]),
        small_model(&small, "phi3", &[Q4_1; 7]),
        small_model(&wide, "llama", &[Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K, Iq4Nl]),
    ];
    seeds.iter().map(Writer::bytes).collect()
}
