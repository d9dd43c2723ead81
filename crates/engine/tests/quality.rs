//! The integers against the float reference, on the real model.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use peerproof_engine::gguf::Gguf;
use peerproof_engine::reference::{CompareError, compare};
use peerproof_engine::tokenizer::{Special, Tokenizer};
use peerproof_engine::transformer::{LoadOptions, Transformer};
use support::real_model;

const TEXT: &str = "The lighthouse stood at the end of a long spit of sand, and every evening the keeper walked \
out to it with a lantern and a book. He had read all of the books in the village by then, and had begun again with \
the first. When ships passed he wrote down their names, the weather and the hour, in a round hand that his teacher \
would have praised. Nobody had ever asked to see these lists. Still, on the day the harbour office burned down with \
all of its papers, it was the keeper's notebooks that told the insurers which vessels had been at sea.";

#[test]
fn integers_predict_as_well_as_floats() {
    let gguf = Gguf::open(real_model()).unwrap();
    let model = Arc::new(Transformer::load(&gguf, &LoadOptions::default()).unwrap());
    let mut tokens = Tokenizer::from_gguf(&gguf).unwrap().encode(TEXT, Special::Plain).unwrap();
    assert!(tokens.len() >= 110, "{}", tokens.len());
    tokens.truncate(128);
    let quality = compare(&gguf, &model, &tokens, 2).unwrap();
    assert_eq!(quality.tokens, tokens.len() - 1);
    // A text that the model knows how to continue: the float pass is right.
    assert!(quality.reference_perplexity < 40.0, "{quality:?}");
    assert!(quality.perplexity_change().abs() < 0.005, "{quality:?}");
    assert!(quality.same_best >= 0.98, "{quality:?}");
    assert!(quality.divergence < 1e-3, "{quality:?}");
    assert!(matches!(compare(&gguf, &model, &tokens[..1], 1), Err(CompareError::Short(1))));
}
