//! The bits don't depend on batch, chunk, threads or kernel path, on the real
//! model; and they are the bits pinned in `vectors/engine/`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use peerproof_engine::arith::{fixed, half::Exact, tables::tables, turns};
use peerproof_engine::forward::{Item, Runner};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::logprobs;
use peerproof_engine::sample::{
    History, LogitBias, Sampling, adjust, choose, choose_adjusted, draw,
};
use peerproof_engine::transformer::{LoadOptions, Transformer};
use support::real_model;

/// "The quick brown fox ..." and two turns of a chat, as token ids.
const TOKENS: [u32; 48] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407,
    19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531,
    198, 504, 3575, 282, 4649, 314, 7042, 30, 2, 198, 49151, 0,
];

static MODEL: LazyLock<Arc<Transformer>> = LazyLock::new(|| {
    Arc::new(
        Transformer::load(&Gguf::open(real_model()).unwrap(), &LoadOptions::default()).unwrap(),
    )
});

/// Digest of the state and logits of one position.
type Leaf = ([u8; 32], [u8; 32]);

fn digest(values: &[i32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    values.iter().for_each(|value| {
        hasher.update(&value.to_le_bytes());
    });
    *hasher.finalize().as_bytes()
}

/// Runs batches of items over fresh caches; leaves by sequence.
fn leaves(
    threads: usize,
    path: KernelPath,
    sequences: usize,
    batches: &[Vec<Item>],
) -> (Vec<Vec<Leaf>>, Vec<Kv>) {
    let mut runner = Runner::new(Arc::clone(&MODEL), threads, path).unwrap();
    let mut caches: Vec<Kv> = (0..sequences).map(|_| Kv::new(&MODEL, 64)).collect();
    let mut leaves = vec![Vec::new(); sequences];
    for items in batches {
        let mut kvs: Vec<&mut Kv> = caches.iter_mut().collect();
        let mut sink = |at: usize, output: peerproof_engine::forward::Output<'_>| {
            leaves[items[at].sequence].push((digest(output.state), digest(output.logits.unwrap())));
        };
        runner.forward(&mut kvs, items, &mut sink).unwrap();
    }
    (leaves, caches)
}

fn items(tokens: &[u32]) -> Vec<Item> {
    tokens.iter().map(|&token| Item { sequence: 0, token, logits: true }).collect()
}

static WHOLE: LazyLock<Vec<Leaf>> =
    LazyLock::new(|| leaves(2, KernelPath::best(), 1, &[items(&TOKENS)]).0.remove(0));

#[test]
fn decode_and_any_chunking_equal_prefill_on_any_number_of_threads() {
    for (threads, size) in [(1, 1), (2, 1), (1, 7), (2, 7), (3, 13), (1, 48)] {
        let batches: Vec<Vec<Item>> = TOKENS.chunks(size).map(items).collect();
        let (leaves, caches) = leaves(threads, KernelPath::best(), 1, &batches);
        assert_eq!(leaves[0], *WHOLE, "{threads} threads, chunks of {size}");
        assert_eq!(caches[0].position(), TOKENS.len());
    }
}

#[test]
fn every_kernel_path_gives_the_same_leaves() {
    for path in KernelPath::available() {
        let (leaves, _) = leaves(2, path, 1, &[items(&TOKENS[..24])]);
        assert_eq!(leaves[0], WHOLE[..24], "{path:?}");
    }
}

#[test]
fn sequences_in_one_batch_do_not_touch_each_other() {
    // Sequence 0 runs the text, sequences 1 and 2 run others, in uneven steps.
    let mut batches = Vec::new();
    let (mut at, mut step) = (0, 0);
    while at < TOKENS.len() {
        let count = [1, 5, 2, 9][step % 4].min(TOKENS.len() - at);
        let own = |(i, &token): (usize, &u32)| {
            let other = |sequence| Item { sequence, token: token / 2 + i as u32, logits: true };
            [other(1), Item { sequence: 0, token, logits: true }, other(2)]
        };
        batches.push(TOKENS[at..at + count].iter().enumerate().flat_map(own).collect());
        (at, step) = (at + count, step + 1);
    }
    let (leaves, _) = leaves(2, KernelPath::best(), 3, &batches);
    assert_eq!(leaves[0], *WHOLE);
    assert_ne!(leaves[1], leaves[0]);
    assert_eq!(leaves[1], leaves[2]);
}

#[test]
fn a_truncated_cache_continues_as_if_nothing_had_followed() {
    let mut runner = Runner::new(Arc::clone(&MODEL), 1, KernelPath::best()).unwrap();
    let mut kv = Kv::new(&MODEL, 64);
    runner.forward(&mut [&mut kv], &items(&TOKENS[..30]), &mut |_, _| ()).unwrap();
    let key = kv.key(3, 1, 10);
    kv.truncate(11);
    runner.forward(&mut [&mut kv], &items(&[5, 6, 7]), &mut |_, _| ()).unwrap();
    kv.truncate(11);
    let mut leaves = Vec::new();
    let mut sink = |_: usize, output: peerproof_engine::forward::Output<'_>| {
        leaves.push((digest(output.state), digest(output.logits.unwrap())));
    };
    runner.forward(&mut [&mut kv], &items(&TOKENS[11..30]), &mut sink).unwrap();
    assert_eq!(leaves, WHOLE[11..30]);
    assert_eq!(kv.key(3, 1, 10), key);
}

#[test]
fn items_that_do_not_fit_are_refused_and_change_nothing() {
    use peerproof_engine::forward::ForwardError;
    let mut runner = Runner::new(Arc::clone(&MODEL), 1, KernelPath::best()).unwrap();
    let mut kv = Kv::new(&MODEL, 4);
    let mut run = |kv: &mut Kv, items: &[Item]| {
        runner.forward(&mut [kv], items, &mut |_, _| panic!("no output"))
    };
    let refused = run(&mut kv, &items(&[1, 2, 3, 4, 5])).unwrap_err();
    assert_eq!(refused, ForwardError::Full { sequence: 0, capacity: 4, got: 5 });
    let refused = run(&mut kv, &items(&[1, 49_152])).unwrap_err();
    assert_eq!(refused, ForwardError::Token { item: 1, vocabulary: 49_152, got: 49_152 });
    let refused = run(&mut kv, &[Item { sequence: 1, token: 0, logits: false }]).unwrap_err();
    assert_eq!(refused, ForwardError::Sequence { item: 0, expected: 1, got: 1 });
    assert_eq!(kv.position(), 0);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lines of `vectors/engine/<name>`; rewritten where `PEERPROOF_BLESS` is set.
fn check_vector(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/engine").join(name);
    if std::env::var_os("PEERPROOF_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, got).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), got, "{}", path.display());
}

#[test]
fn leaves_are_the_pinned_ones() {
    let mut lines =
        "# SmolLM2-135M-Instruct Q4_1: token, BLAKE3 of state, BLAKE3 of logits\n".to_owned();
    for (token, (state, logits)) in TOKENS.iter().zip(&*WHOLE) {
        lines += &format!("{token} {} {}\n", hex(state), hex(logits));
    }
    check_vector("smollm2-135m-leaves.txt", &lines);
}

#[test]
fn tables_are_the_pinned_ones() {
    let tables = tables();
    let line = |name: &str, bytes: Vec<u8>| format!("{name} {}\n", blake3::hash(&bytes).to_hex());
    let mut lines =
        "# BLAKE3 of each table, entries little-endian; see docs/spec/arithmetic.md\n".to_owned();
    lines += &line("exp", tables.exp.iter().flat_map(|v| v.to_le_bytes()).collect());
    lines += &line("wide-exp", tables.wide_exp.iter().flat_map(|v| v.to_le_bytes()).collect());
    lines += &line("logistic", tables.logistic.iter().flat_map(|v| v[0].to_le_bytes()).collect());
    lines += &line("gelu", tables.gelu.iter().flat_map(|v| v[0].to_le_bytes()).collect());
    let ln = logprobs::ln_table().iter().flat_map(|v| v.to_le_bytes()).collect();
    lines += &line("ln", ln);
    for base in [10_000f32, 100_000.0, 500_000.0, 1_000_000.0] {
        let base_exact = Exact::from_f32(base.to_bits()).unwrap();
        let frequency = |i| turns::frequency(base_exact, i, 64, &[]).unwrap();
        let frequencies: Vec<u128> = (0..32).map(frequency).collect();
        let angles = (0..8192)
            .flat_map(|p| frequencies.iter().map(move |&f| fixed::cos_sin(turns::angle(f, p))));
        let bytes =
            angles.flat_map(|(cos, sin)| [cos.to_le_bytes(), sin.to_le_bytes()].concat()).collect();
        lines += &line(&format!("rope-{base}-64-8192"), bytes);
    }
    check_vector("tables.txt", &lines);
}

#[test]
fn choices_are_the_pinned_ones() {
    let logits: Vec<i32> = (0..4096i32).map(|i| (i * 7919) % 10_007 - (i % 13) * 300).collect();
    let mut lines =
        "# temperature, top-k, top-p (all at 2^-16 but top-k): tokens of steps 0..8\n".to_owned();
    for (temperature_q16, top_k, top_p_q16) in
        [(0, 0, 0), (65_536, 0, 0), (52_429, 40, 62_259), (131_072, 0, 32_768)]
    {
        let sampling = Sampling { temperature_q16, top_k, top_p_q16, ..Sampling::GREEDY };
        let tokens: Vec<String> = (0..8)
            .map(|step| choose(&logits, &sampling, draw(&[7; 32], step)).to_string())
            .collect();
        lines += &format!("{temperature_q16} {top_k} {top_p_q16}: {}\n", tokens.join(" "));
    }
    lines += &ruled_choices(&logits);
    check_vector("choices.txt", &lines);
}

/// Rules in turn, then all of them; the last two are for a mask.
fn rules() -> Vec<Sampling> {
    let bias = |pairs: &[(u32, i32)]| -> Vec<LogitBias> {
        pairs.iter().map(|&(token, bias_q16)| LogitBias { token, bias_q16 }).collect()
    };
    let (hot, off) = (Sampling { temperature_q16: 65_536, ..Sampling::GREEDY }, Sampling::GREEDY);
    let mut rules = vec![
        Sampling { repetition_q16: 72_090, ..off.clone() },
        Sampling { repetition_q16: 45_000, ..off.clone() },
        Sampling { presence_q16: 131_072, ..off.clone() },
        Sampling { frequency_q16: 20_000, ..off.clone() },
        Sampling { frequency_q16: -3_000, ..off.clone() },
        Sampling { bias: bias(&[(17, 655_360), (1040, -6_553_600)]), ..off },
        Sampling { min_p_q16: 19_661, ..hot.clone() },
        Sampling { min_p_q16: 65_536, ..hot.clone() },
        Sampling {
            repetition_q16: 85_197,
            presence_q16: 32_768,
            frequency_q16: 6_554,
            ..hot.clone()
        },
        Sampling {
            temperature_q16: 98_304,
            top_k: 50,
            top_p_q16: 60_000,
            min_p_q16: 3_277,
            repetition_q16: 70_000,
            presence_q16: -5_000,
            frequency_q16: 9_999,
            bias: bias(&[(0, 400_000), (17, 300_001), (4095, -7)]),
            ..hot.clone()
        },
    ];
    let hot = Sampling { repetition_q16: 70_000, presence_q16: 9_000, ..hot };
    rules.push(hot.clone());
    rules.push(Sampling { top_k: 30, bias: bias(&[(10, 500_000)]), ..hot });
    rules
}

/// Choices under every rule, the chosen tokens joining the answer; and what
/// would be reported of the raw logits.
fn ruled_choices(logits: &[i32]) -> String {
    let mut lines = "# temperature top-k top-p min-p repetition presence frequency bias(token:value,...): \
         tokens of steps 0..12, prompt 1040 2617 17, answer so far 2459 2459, each token joining it\n"
        .to_owned();
    // Every seventh token from the third on may be chosen.
    let words: Vec<u32> = (0..128u32)
        .map(|word| {
            (0..32).filter(|bit| (word * 32 + bit) % 7 == 3).fold(0, |set, bit| set | 1 << bit)
        })
        .collect();
    for (at, sampling) in rules().into_iter().enumerate() {
        let mask = (at >= 10).then_some(&words[..]);
        if at == 10 {
            lines += "# the same where only tokens that are 3 modulo 7 may be chosen\n";
        }
        let mut history = History::of_prompt(&[1040, 2617, 17]);
        history.push(2459);
        history.push(2459);
        let mut adjusted = Vec::new();
        let tokens: Vec<String> = (0..12)
            .map(|step| {
                adjust(logits, &sampling, &history, mask, &mut adjusted);
                let token = choose_adjusted(&adjusted, &sampling, draw(&[7; 32], step)).unwrap();
                history.push(token);
                token.to_string()
            })
            .collect();
        let marked = if mask.is_some() { "3mod7 " } else { "" };
        let Sampling { temperature_q16, top_k, top_p_q16, min_p_q16, .. } = sampling;
        let Sampling { repetition_q16, presence_q16, frequency_q16, ref bias, .. } = sampling;
        let pairs: Vec<String> =
            bias.iter().map(|b| format!("{}:{}", b.token, b.bias_q16)).collect();
        let pairs = if pairs.is_empty() { "-".to_owned() } else { pairs.join(",") };
        lines += &format!(
            "{marked}{temperature_q16} {top_k} {top_p_q16} {min_p_q16} {repetition_q16} \
             {presence_q16} {frequency_q16} {pairs}: {}\n",
            tokens.join(" ")
        );
    }
    lines += "# token: its reported value, then the likeliest tokens with theirs\n";
    for token in [0, 17, 1040, 4095] {
        let report = logprobs::report(logits, token, 5);
        let top: Vec<String> = report.top.iter().map(|(t, value)| format!("{t}:{value}")).collect();
        lines += &format!("{token}: {} {}\n", report.chosen_q16, top.join(" "));
    }
    lines
}
