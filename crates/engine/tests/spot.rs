//! Cells of real answers, opened and judged with a part of the model's file: honest
//! ones hold, and what a cheat commits to is found in the cell that shows it.

#[path = "support/cells.rs"]
mod served;
mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use peerproof_engine::model::Model;
use peerproof_engine::spot::{Checker, SpotError};
use peerproof_engine::transformer::LoadOptions;
use peerproof_proof::cells::{self, CellError, Exposure};
use peerproof_proof::state_digest;
use peerproof_wire::{Cell, CellOpening, Difference, Digest, Leaf, Sampling};
use served::{NONCE, answer, checker, commit, lent, offer, parts_of, replayer, serve};

fn check_model(path: &Path, prompt: &str, sampling: Sampling) {
    let replayer = replayer(path);
    let model = Arc::clone(replayer.model());
    let offer = offer(&model, sampling, prompt);
    let tokens = answer(&replayer, &offer);
    let layers = model.transformer().shape().layers as u32;
    let receipt = serve(&replayer, &offer, &tokens, &[]).case.receipt;
    let mut cells = cells::drawn(&NONCE, &offer, &receipt, layers, 8);
    let last = receipt.leaves - 2;
    cells.extend([
        Cell { position: 0, layer: 0 },
        Cell { position: last, layer: 0 },
        Cell { position: last, layer: layers - 1 },
        Cell { position: last, layer: layers },
    ]);
    let cells: Vec<Cell> = cells.into_iter().collect();
    let served = serve(&replayer, &offer, &tokens, &cells);
    let wanted: BTreeSet<u32> = cells.iter().map(|cell| cell.layer).collect();
    let checker = checker(path, model.id(), &Vec::from_iter(wanted));
    for (index, cell) in cells.iter().enumerate() {
        let opening = served.open(&checker, index);
        let judged = checker.judge(&served.case, &opening).expect("a judgement");
        assert_eq!(judged, None, "{cell:?}");
    }
}

#[test]
fn cells_of_an_honest_answer_hold() {
    let hot = Sampling { temperature_q16: 1 << 16, ..Sampling::GREEDY };
    check_model(&support::real_model(), &"Once upon a time, far away, ".repeat(12), hot);
}

#[test]
fn cells_hold_in_a_model_with_windows() {
    let rules = Sampling { presence_q16: 1 << 15, ..Sampling::GREEDY };
    check_model(
        &support::gemma(),
        &"All work and no play makes Jack a dull boy. ".repeat(50),
        rules,
    );
}

/// What a cheat changes of an honest exposure and its leaves.
type Cheat = fn(&mut [Leaf], &mut Exposure);

/// A named part of an opening.
type PartOf<T> = (&'static str, fn(&mut CellOpening) -> &mut Vec<T>);

#[test]
fn what_does_not_follow_is_found_where_it_is_opened() {
    let path = support::real_model();
    let replayer = replayer(&path);
    let model = Arc::clone(replayer.model());
    let offer = offer(&model, Sampling::GREEDY, "The capital of France is");
    let tokens = answer(&replayer, &offer);
    let cell = Cell { position: 9, layer: 7 };
    let head = Cell { position: 9, layer: 30 };
    let last = Cell { position: 9, layer: 29 };
    let first = Cell { position: 9, layer: 0 };
    let all = [first, cell, last, head];
    let honest = serve(&replayer, &offer, &tokens, &all);
    assert_eq!(honest.layers(), 30);
    let checker = checker(&path, model.id(), &[0, 7, 29, 30]);
    let width = 576;
    let cheats: [(&str, usize, Cheat, Difference); 6] = [
        ("leaving row", 1, |leaves, it| nudge_rows(leaves, it, 8 * 576), Difference::Layers),
        ("entering row", 1, |leaves, it| nudge_rows(leaves, it, 7 * 576 + 3), Difference::Layers),
        ("embedding", 0, |leaves, it| nudge_rows(leaves, it, 5), Difference::Layers),
        ("own keys", 1, |_, it| nudge_kv(it, 1, 9 * 780 + 2), Difference::KeysValues),
        ("keys before", 1, |_, it| nudge_kv(it, 1, 4 * 780 + 131), Difference::KeysValues),
        ("state", 2, nudge_state, Difference::State),
    ];
    assert_eq!(checker.dimensions().width, width);
    for (name, index, cheat, expected) in cheats {
        let (mut leaves, mut exposure) = (honest.leaves.clone(), honest.exposure.clone());
        cheat(&mut leaves, &mut exposure);
        let served = commit(&offer, &tokens, leaves, exposure);
        let judged = checker.judge(&served.case, &served.open(&checker, index));
        let mismatch = judged.expect("a judgement").unwrap_or_else(|| panic!("{name} passed"));
        // A key of another position changes what attention gives, not the cell's own keys.
        let expected = if name == "keys before" { Difference::Layers } else { expected };
        assert_eq!((mismatch.what, mismatch.position), (expected, 9), "{name}");
    }
    let mut drawn = honest.leaves.clone();
    drawn[9].drawn.as_mut().expect("a draw").logits = Digest::from_bytes([8; 32]);
    let served = commit(&offer, &tokens, drawn, honest.exposure.clone());
    let judged = checker.judge(&served.case, &served.open(&checker, 3)).expect("a judgement");
    assert_eq!(judged.expect("a mismatch").what, Difference::Logits);
    let mut other = tokens.clone();
    other[4] ^= 1;
    let served = serve(&replayer, &offer, &other, &[Cell { position: 8, layer: 30 }]);
    let judged = checker.judge(&served.case, &served.open(&checker, 0)).expect("a judgement");
    assert_eq!(judged.expect("a mismatch").what, Difference::Token);
}

/// Rows that no honest engine makes are a cheat's, not an error.
#[test]
fn rows_that_the_arithmetic_never_makes_are_found() {
    let path = support::real_model();
    let replayer = replayer(&path);
    let model = Arc::clone(replayer.model());
    let offer = offer(&model, Sampling::GREEDY, "The capital of France is");
    let tokens = answer(&replayer, &offer);
    let honest = serve(&replayer, &offer, &tokens, &[Cell { position: 9, layer: 7 }]);
    let checker = checker(&path, model.id(), &[7]);
    let cheats: [Cheat; 4] = [
        // i32::MIN in the entering row.
        |leaves, it| {
            it.exposed[0].entered[7 * 576] = i32::MIN;
            leaves[9].layers = cells::layers_digest(&it.exposed[0].entered);
        },
        // -32768 in a key; a key that is all small; zeros with another exponent.
        |_, it| set_kv(it, 3 * 780, &[0x00, 0x80]),
        |_, it| set_kv(it, 3 * 780, &[1; 128]),
        |_, it| set_kv(it, 3 * 780, &[0; 130]),
    ];
    for cheat in cheats {
        let (mut leaves, mut exposure) = (honest.leaves.clone(), honest.exposure.clone());
        cheat(&mut leaves, &mut exposure);
        let served = commit(&offer, &tokens, leaves, exposure);
        let judged = checker.judge(&served.case, &served.open(&checker, 0));
        assert!(judged.expect("a judgement").is_some());
    }
    // Any exponent is one that a key may have: it is computed with, and nothing overflows.
    for exponent in [i16::MIN, -300, 300, i16::MAX] {
        let (leaves, mut exposure) = (honest.leaves.clone(), honest.exposure.clone());
        set_kv(&mut exposure, 3 * 780 + 128, &exponent.to_le_bytes());
        set_kv(&mut exposure, 4 * 780 + 258, &exponent.to_le_bytes());
        let served = commit(&offer, &tokens, leaves, exposure);
        checker.judge(&served.case, &served.open(&checker, 0)).expect("a judgement");
    }
}

/// What only a cheat can commit to settles the case; it is no error of the judge's.
#[test]
fn tokens_and_states_that_no_model_gives_are_found() {
    let path = support::real_model();
    let replayer = replayer(&path);
    let model = Arc::clone(replayer.model());
    let offer = offer(&model, Sampling::GREEDY, "The capital of France is");
    let tokens = answer(&replayer, &offer);
    let cells = [Cell { position: 9, layer: 0 }, Cell { position: 9, layer: 30 }];
    let honest = serve(&replayer, &offer, &tokens, &cells);
    let checker = checker(&path, model.id(), &[0, 30]);
    let prompt = honest.leaves.len() + 1 - tokens.len();

    let (mut leaves, mut beyond) = (honest.leaves.clone(), tokens.clone());
    beyond[9 - prompt] = model.vocabulary() as u32;
    leaves[9].token = beyond[9 - prompt];
    let served = commit(&offer, &beyond, leaves, honest.exposure.clone());
    let judged = checker.judge(&served.case, &served.open(&checker, 0)).expect("a judgement");
    assert_eq!(judged.expect("a mismatch").what, Difference::Layers);

    let (mut leaves, mut exposure) = (honest.leaves.clone(), honest.exposure.clone());
    exposure.exposed[1].state[0] = i32::MIN;
    leaves[9].state = state_digest(&offer.id(), &exposure.exposed[1].state);
    let served = commit(&offer, &tokens, leaves, exposure);
    let judged = checker.judge(&served.case, &served.open(&checker, 1)).expect("a judgement");
    assert_eq!(judged.expect("a mismatch").what, Difference::State);

    // A head's opening has one form, too.
    let head = honest.open(&checker, 1);
    let digest = Digest::from_bytes([1; 32]);
    let changes: [fn(&mut CellOpening, Digest); 7] = [
        |it, digest| it.rows_hashes.push(digest),
        |it, digest| it.last_hashes.push(digest),
        |it, digest| it.kv_layers.push(digest),
        |it, digest| it.kv_pages.push(digest),
        |it, _| it.pages.push(vec![1]),
        |it, _| it.rows.push(1),
        |it, _| it.last.push(1),
    ];
    for change in changes {
        let mut padded = head.clone();
        change(&mut padded, digest);
        let judged = checker.judge(&honest.case, &padded);
        assert!(matches!(judged, Err(SpotError::Opening(_))), "{judged:?}");
    }
}

/// Whoever holds one layer has no use for as much memory as the whole file takes.
#[test]
fn a_file_may_be_longer_than_memory() {
    let path = support::real_model();
    let model = Model::open(&path, &LoadOptions::default()).expect("a model");
    let length = File::open(&path).and_then(|file| file.metadata()).expect("a model").len();
    let beginning = &parts_of(&path, std::slice::from_ref(&(0..length / 4)))[0].1;
    let needed = Checker::needed(1 << 43, beginning).expect("room").expect("a whole header");
    let header = parts_of(&path, &needed);
    let checker = Checker::open(1 << 43, model.id(), &lent(&header)).expect("room");
    let parts = parts_of(&path, &checker.ranges(3).expect("a layer"));
    checker.load(3, &lent(&parts)).expect("room");
}

#[test]
fn every_byte_of_an_opening_is_bound() {
    let path = support::real_model();
    let replayer = replayer(&path);
    let model = Arc::clone(replayer.model());
    let offer = offer(&model, Sampling::GREEDY, &"one two three ".repeat(24));
    let tokens = answer(&replayer, &offer);
    let cell = Cell { position: 70, layer: 29 };
    let served = serve(&replayer, &offer, &tokens, &[cell]);
    let checker = checker(&path, model.id(), &[29]);
    let honest = served.open(&checker, 0);
    assert!(!honest.pages.is_empty() && honest.kv_pages.len() > 1);
    let refused = |change: &dyn Fn(&mut CellOpening)| {
        let mut opening = honest.clone();
        change(&mut opening);
        matches!(checker.judge(&served.case, &opening), Err(SpotError::Opening(_)))
    };
    let parts: [PartOf<u8>; 4] = [
        ("rows", |it| &mut it.rows),
        ("state", |it| &mut it.state),
        ("page", |it| &mut it.pages[0]),
        ("last", |it| &mut it.last),
    ];
    for (name, part) in parts {
        let length = part(&mut honest.clone()).len();
        for at in (0..length).step_by(97).chain([length - 1]) {
            assert!(refused(&|it| part(it)[at] ^= 1), "{name} {at}");
        }
        assert!(refused(&|it| part(it).push(0)), "{name} longer");
        assert!(refused(&|it| part(it).truncate(length - 1)), "{name} shorter");
        assert!(refused(&|it| part(it).clear()), "{name} empty");
    }
    let lists: [PartOf<Digest>; 5] = [
        ("path", |it| &mut it.path),
        ("rows_hashes", |it| &mut it.rows_hashes),
        ("kv_layers", |it| &mut it.kv_layers),
        ("kv_pages", |it| &mut it.kv_pages),
        ("last_hashes", |it| &mut it.last_hashes),
    ];
    for (name, list) in lists {
        for at in 0..list(&mut honest.clone()).len() {
            assert!(refused(&|it| list(it)[at] = Digest::from_bytes([1; 32])), "{name} {at}");
        }
        assert!(refused(&|it| list(it).push(Digest::from_bytes([1; 32]))), "{name} longer");
        if !list(&mut honest.clone()).is_empty() {
            assert!(refused(&|it| drop(list(it).remove(0).to_string())), "{name} shorter");
        }
    }
    assert!(refused(&|it| it.leaf.position += 1));
    assert!(refused(&|it| it.leaf.token += 1));
    assert!(refused(&|it| it.leaf.layers = Digest::from_bytes([1; 32])));
    assert!(refused(&|it| it.cell.position -= 1));
    assert!(refused(&|it| it.pages.push(Vec::new())));
    assert!(refused(&|it| it.cell.layer = 30));
    let beyond = CellOpening { cell: Cell { position: 70, layer: 31 }, ..honest.clone() };
    assert!(matches!(checker.judge(&served.case, &beyond), Err(SpotError::Layer { .. })));
    let late = CellOpening { cell: Cell { position: 10_000, layer: 29 }, ..honest.clone() };
    let error = checker.judge(&served.case, &late).expect_err("no such position");
    assert!(matches!(error, SpotError::Opening(CellError::Absent { .. })), "{error}");
}

fn nudge_rows(leaves: &mut [Leaf], exposure: &mut Exposure, at: usize) {
    for exposed in &mut exposure.exposed {
        exposed.entered[at] ^= 1;
        leaves[9].layers = cells::layers_digest(&exposed.entered);
    }
}

fn nudge_state(leaves: &mut [Leaf], exposure: &mut Exposure) {
    for exposed in &mut exposure.exposed {
        exposed.state[100] ^= 1;
        let offer = offer_id();
        leaves[9].state = state_digest(&offer, &exposed.state);
    }
}

fn offer_id() -> Digest {
    let model = Model::open(support::real_model(), &LoadOptions::default()).expect("a model");
    offer(&model, Sampling::GREEDY, "The capital of France is").id()
}

fn nudge_kv(exposure: &mut Exposure, index: usize, at: usize) {
    let old = exposure.exposed[index].pages[0][at];
    set_kv_of(exposure, index, at, &[old ^ 1]);
}

fn set_kv(exposure: &mut Exposure, at: usize, bytes: &[u8]) {
    set_kv_of(exposure, 0, at, bytes);
}

/// Changes keys and values on one page, and every digest above.
fn set_kv_of(exposure: &mut Exposure, index: usize, at: usize, bytes: &[u8]) {
    let exposed = &mut exposure.exposed[index];
    exposed.pages[0][at..at + bytes.len()].copy_from_slice(bytes);
    exposed.page_digests[0] = cells::kv_page(&exposed.pages[0]);
    let (layer, positions) = (exposed.cell.layer, exposed.pages[0].len() / 780);
    exposure.kv_layers[layer as usize] =
        cells::kv_layer(layer, positions as u32, &exposed.page_digests);
}
