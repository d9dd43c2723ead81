//! Refusing a bad file must stay cheap. A counting allocator holds the peak.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(unsafe_code, reason = "a global allocator is unsafe by nature")]

#[path = "support/small.rs"]
mod small;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use peerproof_engine::constraint::table_bytes;
use peerproof_engine::gguf::{GgmlType, Gguf, MAX_KEYS, MAX_TENSORS};
use peerproof_engine::model::Model;
use peerproof_engine::template::{ChatMessage, ChatTemplate, MAX_LIVE_BYTES};
use peerproof_engine::transformer::LoadOptions;
use small::{Sizes, small_model};
use support::{ARRAY, F32, I32, STR, U8, Writer, string, words};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), SeqCst) + layout.size();
        PEAK.fetch_max(live, SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMIT: usize = 16 << 20;

/// The most bytes alive while `bytes` is refused, above what was alive before.
fn peak_while_refusing(name: &str, bytes: &[u8]) -> usize {
    let shared: std::sync::Arc<[u8]> = bytes.into();
    let before = LIVE.load(SeqCst);
    PEAK.store(before, SeqCst);
    let outcome = Gguf::parse(shared);
    let peak = PEAK.load(SeqCst).saturating_sub(before);
    assert!(outcome.is_err(), "{name} was taken");
    peak
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn refusing_takes_at_most_16_mib() {
    what_the_reader_refuses();
    what_loading_refuses();
    scales_that_are_no_numbers();
    what_a_template_is_stopped_at();
    what_constraints_take();
}

/// What is announced of the memory for constraints is about what it is.
fn what_constraints_take() {
    let file = Gguf::open(support::real_model()).expect("the default model");
    let model = Model::from_gguf(&file, &LoadOptions::default()).expect("a model");
    let before = LIVE.load(SeqCst);
    model.prepare_constraints().expect("a thread").join().expect("a vocabulary");
    let took = (LIVE.load(SeqCst) - before) as u64;
    let known = table_bytes(&file);
    assert!((took..took * 3 / 2).contains(&known), "announced {known}, took {took}");
}

/// Loads a file that reads well; gives the refusal and the most bytes alive.
fn peak_while_loading(writer: &Writer) -> (Option<String>, usize) {
    let file = Gguf::parse(writer.bytes()).expect("a readable file");
    let options = LoadOptions { threads: 1, ..LoadOptions::default() };
    let before = LIVE.load(SeqCst);
    PEAK.store(before, SeqCst);
    let outcome = Model::from_gguf(&file, &options).map(drop);
    let peak = PEAK.load(SeqCst).saturating_sub(before);
    (outcome.err().map(|error| error.to_string()), peak)
}

const SIZES: Sizes = Sizes { width: 256, heads: 4, dims: 64, feed: 256 };

/// Every family that files name.
const FAMILIES: [&str; 6] = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"];

/// The small model with all weights but the norms in one format.
fn model(kind: GgmlType) -> Writer {
    small_model(&SIZES, "llama", &[kind; 7])
}

/// Headers and vocabularies that read well and lie.
fn what_loading_refuses() {
    FAMILIES.into_iter().for_each(what_headers_are_refused);
    what_vocabularies_are_refused();
    what_the_largest_vocabularies_are_refused_for();
}

fn what_headers_are_refused(family: &str) {
    let model = || small_model(&SIZES, family, &[GgmlType::Q8_0; 7]);
    let (refusal, _) = peak_while_loading(&model());
    assert_eq!(refusal, None, "{family}");
    // A key named twice is refused by the reader, so lies replace what is true.
    let most = u32::MAX;
    for (key, value) in [
        ("block_count", most),
        ("block_count", 0),
        ("block_count", 2),
        ("context_length", 0),
        ("embedding_length", most),
        ("embedding_length", 0),
        ("embedding_length", 257),
        ("feed_forward_length", most),
        ("feed_forward_length", 0),
        ("attention.head_count", most),
        ("attention.head_count", 0),
        ("attention.head_count", 3),
        ("attention.head_count_kv", most),
        ("attention.head_count_kv", 0),
        ("rope.dimension_count", most),
        ("rope.dimension_count", 63),
    ] {
        let writer = model().changed(&format!("{family}.{key}"), value);
        let (refusal, peak) = peak_while_loading(&writer);
        assert!(refusal.is_some(), "{family}.{key} of {value} was taken");
        assert!(peak <= LIMIT, "{family}.{key} of {value}: {peak} bytes");
    }
}

fn what_vocabularies_are_refused() {
    let pieces: Vec<String> = (0..200_000).map(|at| format!("p{at}")).collect();
    let base = || Writer::default().str("general.architecture", "llama");
    let gpt2 = || base().str("tokenizer.ggml.model", "gpt2");
    let llama = || base().str("tokenizer.ggml.model", "llama");
    let zeros = |count: usize| vec![0; 4 * count];
    for (name, writer) in [
        (
            "no classes for all",
            gpt2()
                .strings("tokenizer.ggml.tokens", &pieces)
                .i32s("tokenizer.ggml.token_type", &[1]),
        ),
        ("no merges", gpt2().strings("tokenizer.ggml.tokens", &pieces)),
        ("no scores", llama().strings("tokenizer.ggml.tokens", &pieces)),
        (
            "scores for some",
            llama().strings("tokenizer.ggml.tokens", &pieces).array(
                "tokenizer.ggml.scores",
                F32,
                9,
                &zeros(9),
            ),
        ),
        (
            "one piece again and again",
            llama().strings("tokenizer.ggml.tokens", &vec!["p"; 200_000]).array(
                "tokenizer.ggml.scores",
                F32,
                200_000,
                &zeros(200_000),
            ),
        ),
        (
            "a template of 3 MiB",
            llama()
                .strings("tokenizer.ggml.tokens", &["a", "<unk>"])
                .i32s("tokenizer.ggml.token_type", &[1, 2])
                .array("tokenizer.ggml.scores", F32, 2, &zeros(2))
                .str("tokenizer.chat_template", &"x".repeat(3 << 20)),
        ),
    ] {
        let (refusal, peak) = peak_while_loading(&writer);
        assert!(refusal.is_some() && peak <= LIMIT, "{name}: {refusal:?}, {peak} bytes");
    }
}

/// As many tokens as may be, all as they should be: what each spells and its class
/// as the file writes them.
#[derive(Clone)]
struct Large {
    tokens: Vec<u8>,
    classes: Vec<u8>,
}

const LARGEST: usize = 1 << 20;

impl Large {
    fn new() -> Self {
        let entry = |at: usize| match at {
            // Two that merge, and what they become.
            0 => string(b"000"),
            1 => string(b"0000"),
            2 => string(b"0000000"),
            _ => string(format!("{at:07x}").as_bytes()),
        };
        Self {
            tokens: (0..LARGEST).flat_map(entry).collect(),
            classes: 1u32.to_le_bytes().repeat(LARGEST),
        }
    }

    /// The last token spelled otherwise, in as many bytes.
    fn spelled(mut self, last: &[u8; 7]) -> Self {
        let at = self.tokens.len() - last.len();
        self.tokens[at..].copy_from_slice(last);
        self
    }

    /// The last `count` tokens, of that class.
    fn classed(mut self, count: usize, class: u32) -> Self {
        let classes = class.to_le_bytes().repeat(count);
        let from = self.classes.len() - classes.len();
        self.classes[from..].copy_from_slice(&classes);
        self
    }

    fn writer(&self, model: &str) -> Writer {
        Writer::default()
            .str("general.architecture", "llama")
            .str("tokenizer.ggml.model", model)
            .array("tokenizer.ggml.tokens", STR, LARGEST as u64, &self.tokens)
            .array("tokenizer.ggml.token_type", I32, LARGEST as u64, &self.classes)
    }

    /// With scores of zero, but for the last.
    fn scored(&self, model: &str, last: f32) -> Writer {
        let mut scores = vec![0; 4 * (LARGEST - 1)];
        scores.extend(last.to_le_bytes());
        let writer = self.writer(model).u32("tokenizer.ggml.unknown_token_id", 0);
        writer.array("tokenizer.ggml.scores", F32, LARGEST as u64, &scores)
    }

    /// With one merge again and again, and then another.
    fn merged(&self, merge: &str, last: &[u8]) -> Writer {
        let mut merges = string(merge.as_bytes()).repeat(LARGEST - 1);
        merges.extend(string(last));
        self.writer("gpt2").array("tokenizer.ggml.merges", STR, LARGEST as u64, &merges)
    }
}

/// Vocabularies at the limit that are wrong in one place, the last.
fn what_the_largest_vocabularies_are_refused_for() {
    let base = Large::new();
    let large = || base.clone();
    let sound = "000 0000";
    let long = [b'x'; 4_097];
    for (name, said, writer) in [
        ("a token twice", "= 1048575", large().spelled(b"0000007").merged(sound, b"a b")),
        ("bytes that are no text", "UTF-8", large().spelled(b"\xff345678").merged(sound, b"a b")),
        ("a merge of what is none", "merges of ordinary", large().merged(sound, b"a b")),
        ("a merge of one", "a space", large().merged(sound, b"0000000")),
        ("a merge of one thing", "a space", large().merged(sound, &long)),
        ("a class that is none", "classes", large().classed(1, 9).scored("llama", 0.0)),
        ("a piece twice", "= 1048575", large().spelled(b"0000007").scored("llama", 0.0)),
        ("a score that is none", "finite", large().scored("llama", f32::NAN)),
        ("a score above zero", "at most 0", large().scored("t5", 1.0)),
        ("a byte that is none", "byte tokens", large().classed(1, 6).scored("llama", 0.0)),
        ("many control tokens", "1 MiB", large().classed(200_000, 3).scored("llama", 0.0)),
        ("many user-defined ones", "1 MiB", large().classed(200_000, 4).scored("llama", 0.0)),
        (
            "an end that is no token",
            "eos_token_id",
            large().scored("llama", 0.0).u32("tokenizer.ggml.eos_token_id", LARGEST as u32),
        ),
        ("nothing else wrong", "embedding_length", large().scored("llama", 0.0)),
    ] {
        let (refusal, peak) = peak_while_loading(&writer);
        let refusal = refusal.unwrap_or_default();
        assert!(refusal.contains(said), "{name}: {refusal}");
        assert!(peak <= LIMIT, "{name}: {peak} bytes");
    }
}

/// In every format: what isn't a number is refused by the tensor's name, zeros are
/// numbers.
fn scales_that_are_no_numbers() {
    for kind in GgmlType::all() {
        let (refusal, _) = peak_while_loading(&model(kind).filled("blk.0.attn_q.weight", &[0]));
        assert_eq!(refusal, None, "{kind}");
        let infinite: &[u8] = match kind {
            GgmlType::F32 => &[0, 0, 0x80, 0x7f],
            GgmlType::BF16 => &[0x80, 0x7f],
            _ => &[0, 0x7c],
        };
        for pattern in [&[0xff], infinite] {
            let writer = model(kind).filled("blk.0.attn_q.weight", pattern);
            let (refusal, peak) = peak_while_loading(&writer);
            let refusal = refusal.unwrap_or_default();
            assert!(refusal.contains("blk.0.attn_q.weight"), "{kind}: {refusal:?}");
            assert!(peak <= LIMIT, "{kind}: {peak} bytes");
        }
    }
}

/// What a template holds when it is stopped is what it may hold.
fn what_a_template_is_stopped_at() {
    let head = "{% set n = namespace(x='x', l=[]) %}{% for i in range(9999) %}";
    for step in [
        "{% set n.x = n.x ~ n.x %}",
        "{% set n.x = n.x | replace('x', 'xxxxxxxx') %}",
        "{% set n.l = n.l + ['x' * 99999] %}",
        "{% set n.l = [n.l, n.l] | list + n.l %}",
        "{% set n.l = (n.l + [1]) * 9 %}",
        "{{ 'x' * 4000000 }}",
    ] {
        let source = format!("{head}{step}{{% endfor %}}{{{{ n.l | string }}}}");
        let template = ChatTemplate::new(&source, "", "").expect("a template");
        let before = LIVE.load(SeqCst);
        PEAK.store(before, SeqCst);
        let messages = [ChatMessage { role: "user", content: "x" }];
        assert!(template.render(&messages, true).is_err(), "{step} ended");
        let peak = PEAK.load(SeqCst).saturating_sub(before);
        // What is counted, and as much for what is being made.
        assert!(peak <= 2 * MAX_LIVE_BYTES, "{step}: {peak} bytes");
    }
}

fn what_the_reader_refuses() {
    let mut many_keys = Writer::default();
    for index in 1..MAX_KEYS {
        many_keys = many_keys.raw(format!("key.{index}"), U8, &[0]);
    }
    let mut many_tensors = many_keys.clone();
    for index in 0..MAX_TENSORS {
        many_tensors = many_tensors.info(format!("tensor.{index}"), &[1], 0, 32 * index);
    }
    let vocabulary = string(b"piece").repeat(2_000_000);
    let big_vocabulary =
        Writer::default().array("tokens", STR, 2_000_000, &vocabulary).info("t", &[1], 0, 0);
    let hollow = [words(&[U8]), vec![0; 8]].concat().repeat(1_000_000);
    let hollow = Writer::default().array("hollow", ARRAY, 1_000_000, &hollow).u32("hollow", 1);
    let mut lying = Writer::default().array("a", STR, 1 << 24, &[0; 64]);
    lying.key_count = Some(MAX_KEYS);
    lying.tensor_count = Some(MAX_TENSORS);
    for (name, writer) in [
        ("a key twice among many", many_keys.clone().u32("key.1", 1)),
        ("tensors beyond the file", many_tensors),
        ("a big vocabulary, then a bad tensor", big_vocabulary),
        ("hollow arrays, then a key twice", hollow),
        ("lying counts", lying),
    ] {
        let peak = peak_while_refusing(name, &writer.bytes());
        assert!(peak <= LIMIT, "{name}: {peak} bytes");
    }
    // The measure measures: what is recorded of that many keys isn't free.
    let measured = peak_while_refusing("keys", &many_keys.u32("key.1", 1).bytes());
    assert!(measured > 64 * MAX_KEYS as usize, "{measured} bytes");
}
