//! The whole forward pass against the words of the specification, over small
//! models with weights at the ends of what their formats can say.
//!
//! A model is made from a seed: family, sizes, formats and numbers ([`model`]).
//! [`words`] computes it position by position in 128 bits, so that nothing wraps
//! there; every path, chunking, batch and number of threads must give the same.
//! Deliberately absent: whether a model makes sense, and rotation's own tables.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod model;
mod words;

use std::sync::Arc;

use proptest::prelude::*;

use super::{Item, Output, Runner};
use crate::gguf::Gguf;
use crate::kernels::KernelPath;
use crate::kv::Kv;
use crate::sample::{self, FORBIDDEN, History, LogitBias, Sampling};
use crate::transformer::{LoadOptions, Transformer};
use crate::weights::LoadError;

use model::Random;
use words::Words;

/// Positions: past a page of the cache and past a chunk.
const POSITIONS: usize = 67;

/// State and logits of a position.
type Row = (Vec<i32>, Vec<i32>);

fn load(seed: u64) -> Result<Transformer, LoadError> {
    let gguf = Gguf::parse(model::writer(&mut Random(seed)).bytes()).unwrap();
    Transformer::load(&gguf, &LoadOptions { threads: 1, ..LoadOptions::default() })
}

/// A model of that seed, or of one that follows from it: numbers out of all
/// proportion are refused.
pub(crate) fn loaded(seed: u64) -> Arc<Transformer> {
    let mut random = Random(seed);
    for _ in 0..60 {
        match load(random.next()) {
            Ok(model) => return Arc::new(model),
            Err(LoadError::Scale { .. } | LoadError::Header { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("nothing loads after {seed}");
}

pub(crate) fn tokens(model: &Transformer, seed: u64) -> Vec<u32> {
    let mut random = Random(seed);
    (0..POSITIONS).map(|_| random.below(model.vocabulary() as u64) as u32).collect()
}

fn row(output: Output<'_>) -> Row {
    (output.state.to_vec(), output.logits.unwrap().to_vec())
}

/// One sequence, `size` positions at a time.
fn run(runner: &mut Runner, tokens: &[u32], size: usize) -> Vec<Row> {
    let mut kv = Kv::new(runner.model(), POSITIONS);
    let mut rows = Vec::new();
    for chunk in tokens.chunks(size) {
        let item = |&token: &u32| Item { sequence: 0, token, logits: true };
        let items: Vec<Item> = chunk.iter().map(item).collect();
        runner.forward(&mut [&mut kv], &items, &mut |_, out| rows.push(row(out))).unwrap();
    }
    rows
}

/// Two sequences side by side in one batch; the rows of the first.
fn run_beside(runner: &mut Runner, tokens: &[u32], others: &[u32]) -> Vec<Row> {
    let [mut first, mut second] = [(); 2].map(|()| Kv::new(runner.model(), POSITIONS));
    let item = |sequence, token| Item { sequence, token, logits: sequence == 0 };
    let items: Vec<Item> =
        tokens.iter().zip(others).flat_map(|(&a, &b)| [item(1, b), item(0, a)]).collect();
    let mut rows = Vec::new();
    let mut sink = |at: usize, out: Output<'_>| {
        if items[at].sequence == 0 {
            rows.push(row(out));
        }
    };
    runner.forward(&mut [&mut first, &mut second], &items, &mut sink).unwrap();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn models_at_their_ends_are_computed_by_the_words_of_the_specification(seed in any::<u64>()) {
        let model = loaded(seed);
        let (tokens, others) = (tokens(&model, seed), tokens(&model, !seed));
        let mut words = Words::new(&model);
        let want: Vec<Row> = tokens.iter().map(|&token| words.read(token)).collect();
        for path in KernelPath::available() {
            for (threads, size) in [(1, POSITIONS), (2, 1), (3, 15), (2, 33)] {
                let mut runner = Runner::new(Arc::clone(&model), threads, path).unwrap();
                let got = run(&mut runner, &tokens, size);
                let differs = (0..POSITIONS).find(|&at| got[at] != want[at]);
                prop_assert_eq!(differs, None, "{:?} {} {}", path, threads, size);
            }
            let mut runner = Runner::new(Arc::clone(&model), 2, path).unwrap();
            prop_assert!(run_beside(&mut runner, &tokens, &others) == want, "{path:?} in a batch");
        }
    }

    #[test]
    fn rules_at_their_ends_choose_a_token_that_may_be_chosen(seed in any::<u64>()) {
        let mut random = Random(seed);
        let logits = model::logits(&mut random);
        let len = logits.len() as u64;
        let end = |random: &mut Random, max: u32| [0, 1, max / 2, max][random.below(4) as usize];
        let sampling = Sampling {
            temperature_q16: end(&mut random, 128 << 16),
            top_k: end(&mut random, 1 << 24),
            top_p_q16: end(&mut random, 1 << 16),
            min_p_q16: end(&mut random, 1 << 16),
            repetition_q16: end(&mut random, 16 << 16),
            presence_q16: [-131_072, 0, 131_072][random.below(3) as usize],
            frequency_q16: [-131_072, 0, 131_072][random.below(3) as usize],
            bias: (0..len as u32).step_by(3)
                .map(|token| LogitBias { token, bias_q16: -(100 << 16) })
                .collect(),
            ..Sampling::GREEDY
        };
        let mut history = History::of_prompt(&[0, 7, u32::MAX]);
        (0..40).for_each(|_| history.push(random.below(len) as u32));
        let mask: Vec<u32> = (0..len.div_ceil(32)).map(|_| random.next() as u32 & random.next() as u32).collect();
        let mut adjusted = Vec::new();
        for allowed in [None, Some(&mask[..])] {
            sample::adjust(&logits, &sampling, &history, allowed, &mut adjusted);
            for draw in [0, 1, u64::MAX / 2, u64::MAX, random.next()] {
                let any = adjusted.iter().any(|&logit| logit != FORBIDDEN);
                let chosen = sample::choose_adjusted(&adjusted, &sampling, draw);
                prop_assert_eq!(chosen.is_some(), any);
                if let Some(token) = chosen {
                    prop_assert!(adjusted[token as usize] != FORBIDDEN, "{token} {sampling:?}");
                }
            }
        }
        let report = crate::logprobs::report(&logits, 0, 20);
        prop_assert!(report.top.is_sorted_by_key(|&(_, value)| value));
    }
}
