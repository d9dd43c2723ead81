//! Traces beside the forward pass: on models of every family with numbers at the ends of
//! what formats say, and at every layer, both give the same integers.

use std::sync::Arc;

use proptest::prelude::*;

use super::{BLOCK, HeadTrace, LayerTrace, PRODUCTS, split, steps};
use crate::arith::WEIGHT_BITS;
use crate::forward::tests::{loaded, tokens};
use crate::forward::{Item, Runner};
use crate::kernels::KernelPath;
use crate::kv::{Kv, PAGE};

/// Rows of keys and values of a layer at `range`.
fn rows(kv: &Kv, layer: usize, range: std::ops::Range<usize>) -> Vec<u8> {
    let pages = (0..range.end.div_ceil(PAGE))
        .map(|page| kv.kv_rows(page, layer, (range.end - page * PAGE).min(PAGE)));
    let all: Vec<u8> = pages.flatten().collect();
    all[range.start * (all.len() / range.end.max(1))..].to_vec()
}

/// Traces the last position of a text in every layer, and compares what comes out.
fn compare(seed: u64) {
    let model = loaded(seed);
    let (shape, tokens) = (*model.shape(), tokens(&model, seed));
    let mut runner = Runner::new(Arc::clone(&model), 1, KernelPath::best()).expect("kernels");
    let mut kv = Kv::new(&model, tokens.len());
    let (mut entered, mut state) = (Vec::new(), Vec::new());
    let items: Vec<Item> =
        tokens.iter().map(|&token| Item { sequence: 0, token, logits: false }).collect();
    let mut take = |_, output: crate::forward::Output<'_>| {
        (entered, state) = (output.entered.to_vec(), output.state.to_vec());
    };
    runner.forward(&mut [&mut kv], &items, &mut take).expect("a pass");
    let position = tokens.len() - 1;
    for at in 0..shape.layers {
        let first =
            model.layers[at].window.map_or(0, |window| (position + 1).saturating_sub(window));
        let before = rows(&kv, at, first..position);
        let entering = &entered[at * shape.width..][..shape.width];
        let trace = LayerTrace::of(&model, at, position, entering, &before).expect("a trace");
        let own: Vec<u8> = trace.own.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(own == rows(&kv, at, position..position + 1), "keys and values of layer {at}");
        let leaving = entered.get((at + 1) * shape.width..).filter(|rest| !rest.is_empty());
        let leaving = leaving.map_or(&state[..], |rest| &rest[..shape.width]);
        assert!(trace.leaving == leaving, "layer {at}");
        heads_add_up(&model, &trace, &before);
    }
}

/// The blocks of a head's sums lead to what the head gives.
fn heads_add_up(model: &crate::transformer::Transformer, trace: &LayerTrace, before: &[u8]) {
    let (heads, dims) = (model.shape().heads, model.shape().head_dims);
    for (head, dim) in [(0, 0), (heads - 1, dims - 1)] {
        let sums = HeadTrace::of(model, trace, before, head, dim);
        let (values, exponent) = split(&trace.heads[head * (dims + 1)..][..=dims]);
        let last = (sums.sums.last(), sums.totals.last());
        let (Some(&sum), Some(&total)) = last else { panic!("no blocks") };
        assert_eq!(sums.totals.len(), sums.scores.len().div_ceil(BLOCK));
        assert_eq!(steps::blended(sum, total), Some(values[dim]));
        assert_eq!(sums.exponent + WEIGHT_BITS, exponent);
    }
}

#[test]
fn products_have_names_inputs_and_sums() {
    let model = loaded(3);
    let entering = vec![1 << 12; model.shape().width];
    let trace = LayerTrace::of(&model, 0, 0, &entering, &[]).expect("a trace");
    for (product, name) in trace.products().into_iter().zip(PRODUCTS) {
        assert_eq!(product.name, name);
        assert!(!product.output.is_empty() && !product.input.values.is_empty(), "{name}");
    }
    assert!(LayerTrace::of(&model, 0, model.shape().context, &entering, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_trace_gives_what_the_forward_pass_gives(seed: u64) {
        compare(seed);
    }
}
