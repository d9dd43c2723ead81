//! Light checks of a made-up model: what is shown of honest cells is taken and gives what
//! the whole model gives; what is changed in it is refused, and named.

#![allow(unreachable_pub, reason = "each test binary includes this module as its own")]

use std::sync::Arc;

use peerproof_engine::forward::{Item, Output, Runner};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::light::{Hollow, products_of, shown_products};
use peerproof_engine::spot::SpotError;
use peerproof_engine::transformer::{LoadOptions, Transformer};
use peerproof_proof::cells::{Exposed, KV_PAGE};
use peerproof_wire::{Cell, ModelId};

const POSITIONS: usize = 70;

/// What a cell gives: its row of keys and values, and the row that leaves it.
type Ran = Result<(Vec<u8>, Vec<i32>), SpotError>;

/// Rows of keys and values as a transcript has them, read one number at a time.
fn rows(kv: &Kv, model: &Transformer, layer: usize, positions: std::ops::Range<usize>) -> Vec<u8> {
    let mut rows = Vec::new();
    for position in positions {
        for head in 0..model.shape().kv_heads {
            for (row, exponent) in [kv.key(layer, head, position), kv.value(layer, head, position)]
            {
                rows.extend(row.iter().chain([&exponent]).flat_map(|it| it.to_le_bytes()));
            }
        }
    }
    rows
}

fn bytes(products: &[i64]) -> Vec<u8> {
    products.iter().flat_map(|it| it.to_le_bytes()).collect()
}

/// Checks cells of a run of the model in `file`.
pub fn check(file: Vec<u8>) {
    let file = Gguf::parse(file).expect("a model");
    let model = Transformer::load(&file, &LoadOptions::default()).expect("a model");
    let model = Arc::new(model);
    let hollow = Hollow::of_file(&file, ModelId::from_bytes([9; 32]), [7; 32]).expect("sketches");
    let shape = *model.shape();
    let mut runner = Runner::new(Arc::clone(&model), 1, KernelPath::best()).expect("a path");
    let mut kv = Kv::new(&model, POSITIONS);
    let items: Vec<Item> = (0..POSITIONS)
        .map(|at| Item { sequence: 0, token: (at * at % shape.vocabulary) as u32, logits: true })
        .collect();
    let (mut entered, mut states, mut logits) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        let mut take = |_: usize, output: Output<'_>| {
            entered.push(output.entered.to_vec());
            states.push(output.state.to_vec());
            logits.push(output.logits.expect("logits").to_vec());
        };
        runner.forward(&mut [&mut kv], &[item], &mut take).expect("room");
    }
    for position in [0, 5, 63, POSITIONS - 1] {
        for layer in 0..=shape.layers {
            let cell = Cell { position: position as u32, layer: layer as u32 };
            let mut exposed = Exposed::empty(cell);
            exposed.entered.clone_from(&entered[position]);
            exposed.state.clone_from(&states[position]);
            if layer < shape.layers {
                let page = |at: usize| {
                    rows(&kv, &model, layer, at * KV_PAGE..(POSITIONS).min((at + 1) * KV_PAGE))
                };
                exposed.pages = (0..=position / KV_PAGE).map(page).collect();
            }
            let products = shown_products(&model, &exposed).expect("products");
            assert_eq!(products.len() as u64, products_of(&shape, cell.layer));
            let before = || rows(&kv, &model, layer, 0..position);
            let own = || rows(&kv, &model, layer, position..position + 1);
            let row = |layer: usize| &entered[position][layer * shape.width..][..shape.width];
            let run = |products: &[i64]| -> Ran {
                if layer == shape.layers {
                    let made = hollow.logits(cell.position, &states[position], &bytes(products));
                    return Ok((Vec::new(), made?));
                }
                hollow.layer(cell, (0, &before()), row(layer), &bytes(products))
            };
            let (kv_row, leaving) = run(&products).expect("honest products");
            if layer == shape.layers {
                assert_eq!(leaving, logits[position]);
            } else {
                assert_eq!(kv_row, own());
                let next = layer + 1;
                let right = if next == shape.layers { &states[position] } else { row(next) };
                assert_eq!(leaving, right);
            }
            refused(&products, &run);
        }
    }
}

/// Changes products, each matrix's among them, and expects a refusal.
fn refused(products: &[i64], run: &dyn Fn(&[i64]) -> Ran) {
    let expect = |changed: &[i64], how: &str| match run(changed) {
        Err(SpotError::Products { .. }) => {}
        other => panic!("{how}: {other:?}"),
    };
    let last = products.len() - 1;
    for at in (0..products.len()).step_by(products.len().div_ceil(9)).chain([last]) {
        for change in [1, -1, 1 << 40] {
            let mut changed = products.to_vec();
            changed[at] += change;
            expect(&changed, "one");
            // Two whose plain sum is as before.
            changed[(at + 1) % products.len()] -= change;
            expect(&changed, "two that cancel");
        }
    }
    if let Some(at) = (0..last).find(|at| products[*at] != products[at + 1]) {
        let mut changed = products.to_vec();
        changed.swap(at, at + 1);
        expect(&changed, "swapped");
    }
    expect(&products[..last], "shorter");
    expect(&[products, &[0]].concat(), "longer");
    expect(&vec![0; products.len()], "nothing");
    let mut changed = products.to_vec();
    // As before modulo p.
    changed[0] = changed[0].wrapping_add((1 << 61) - 1);
    expect(&changed, "p more");
    changed[0] = i64::MIN;
    expect(&changed, "the smallest");
}
