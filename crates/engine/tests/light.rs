//! Light audits of real answers: cells hold by the products of their matrices where they hold
//! by weights, what a cheat shows is refused, and what is kept is bound to its model.

#[path = "support/cells.rs"]
mod served;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use peerproof_engine::cheats::{Cheat, Cheater};
use peerproof_engine::execute::Replayer;
use peerproof_engine::light::{LightChecker, SketchError, Sketches, shown_products};
use peerproof_engine::model::Model;
use peerproof_engine::spot::{Checker, SpotError};
use peerproof_proof::cells::{self, Exposed};
use peerproof_wire::{Case, Cell, CellOpening, Mismatch, ModelId, Sampling};
use served::{NONCE, Served, answer, checker, commit, lent, offer, parts_of, replayer, serve};

const SECRET: [u8; 32] = [42; 32];

/// Everything of a model that a light audit keeps, made a part at a time.
fn light(path: &Path, id: ModelId) -> LightChecker {
    let checker = checker(path, id, &[]);
    let sketches = sketches_of(path, &checker);
    LightChecker::new(Arc::new(checker), sketches).expect("all parts")
}

/// Fetches the embeddings that cells take.
fn fetch_rows(light: &LightChecker, path: &Path, case: &Case, cells: &[Cell]) {
    for (token, range) in light.missing_rows(case, cells).expect("a prompt") {
        let parts = parts_of(path, std::slice::from_ref(&range));
        assert!(light.take_row(token, &parts[0].1[1..]).is_err());
        light.take_row(token, &parts[0].1).expect("a row");
    }
    assert!(light.missing_rows(case, cells).expect("a prompt").is_empty());
}

fn bytes(products: &[i64]) -> Vec<u8> {
    products.iter().flat_map(|it| it.to_le_bytes()).collect()
}

/// An opening with the products that the model gives what was committed to.
fn shown(replayer: &Replayer, served: &Served, checker: &Checker, index: usize) -> CellOpening {
    let model = replayer.model().transformer();
    let products = shown_products(model, &served.exposure.exposed[index]).expect("products");
    CellOpening { products: bytes(&products), ..served.open(checker, index) }
}

fn check_model(path: &Path, prompt: &str, sampling: Sampling) {
    let replayer = replayer(path);
    let model = Arc::clone(replayer.model());
    let offer = offer(&model, sampling, prompt);
    let tokens = answer(&replayer, &offer);
    let layers = model.transformer().shape().layers as u32;
    let receipt = serve(&replayer, &offer, &tokens, &[]).case.receipt;
    let mut cells = cells::drawn(&NONCE, &offer, &receipt, layers, 12);
    let last = receipt.leaves - 2;
    let all = [(0, 0), (last, 0), (last, layers - 1), (last, layers)];
    cells.extend(all.map(|(position, layer)| Cell { position, layer }));
    let cells: Vec<Cell> = cells.into_iter().collect();
    let served = serve(&replayer, &offer, &tokens, &cells);
    let light = light(path, model.id());
    let checker = light.checker();
    let kept = light.bytes() as u64;
    assert!(kept < checker.file_bytes() / 40, "{kept} bytes");
    let opening = shown(&replayer, &served, checker, 0);
    let early = light.judge(&served.case, &opening);
    assert!(matches!(early, Err(SpotError::NotLoaded { .. })), "{early:?}");
    fetch_rows(&light, path, &served.case, &cells);
    for (index, cell) in cells.iter().enumerate() {
        let opening = shown(&replayer, &served, checker, index);
        let judged = light.judge(&served.case, &opening).expect("a judgement");
        assert_eq!(judged, None, "{cell:?}");
        let mut other = opening.clone();
        let at = (7919 * index) % (other.products.len() / 8) * 8;
        other.products[at] ^= 1;
        let judged = light.judge(&served.case, &other);
        assert!(matches!(judged, Err(SpotError::Products { .. })), "{cell:?} {judged:?}");
        let bare = CellOpening { products: Vec::new(), ..opening };
        let judged = light.judge(&served.case, &bare);
        assert!(matches!(judged, Err(SpotError::Products { .. })), "{cell:?} {judged:?}");
    }
}

#[test]
fn cells_of_an_honest_answer_hold_by_their_products() {
    let hot = Sampling { temperature_q16: 1 << 16, ..Sampling::GREEDY };
    check_model(&support::real_model(), &"Once upon a time, far away, ".repeat(12), hot);
}

#[test]
fn cells_hold_by_their_products_in_a_model_with_windows() {
    let rules = Sampling { presence_q16: 1 << 15, ..Sampling::GREEDY };
    let prompt = "All work and no play makes Jack a dull boy. ".repeat(50);
    check_model(&support::gemma(), &prompt, rules);
}

/// Cells that a cheat lies in, and some that it doesn't.
fn cells_of(cheat: Cheat, layers: u32) -> Vec<Cell> {
    let mut cells = BTreeSet::new();
    for position in [0, 9, 20] {
        for layer in [0, 7, layers - 1] {
            cells.insert(Cell { position, layer });
        }
    }
    cells.extend([9, 20].map(|position| Cell { position, layer: layers }));
    if let Cheat::OneCell(cell) = cheat {
        cells.insert(cell);
    }
    cells.into_iter().collect()
}

/// Whatever a cheat shows: by the right products its cell is judged as by weights, by any
/// others it is refused.
#[test]
fn what_cheats_commit_to_is_judged_as_by_weights() {
    let path = support::real_model();
    let replayer = replayer(&path);
    let model = Arc::clone(replayer.model());
    let layers = model.transformer().shape().layers as u32;
    let file = std::fs::read(&path).expect("a model");
    let light = light(&path, model.id());
    let checker = checker(&path, model.id(), &[0, 7, layers - 1, layers]);
    let hot = Sampling { temperature_q16: 1 << 16, ..Sampling::GREEDY };
    let offer = offer(&model, hot, "The capital of France is");
    let cheats = [
        Cheat::Honest,
        Cheat::OtherModel,
        Cheat::FewerLayers(20),
        Cheat::CoarseWeights,
        Cheat::CoarseCache,
        Cheat::OneCell(Cell { position: 9, layer: 7 }),
        Cheat::ShortContext(3),
        Cheat::OtherDraws,
    ];
    for cheat in cheats {
        let cheater = Cheater::new(&file, Arc::clone(&model), cheat).expect("a model");
        let Some(cheater) = cheater else { panic!("{cheat:?} needs another format") };
        let forged = cheater.answer(&offer).expect("an answer");
        let served = commit(&offer, &forged.tokens, forged.leaves.clone(), forged.exposure());
        let cells = cells_of(cheat, layers);
        fetch_rows(&light, &path, &served.case, &cells);
        let mut found = 0;
        for cell in cells {
            let exposed = forged.exposed(cell, light.first_read(cell).expect("a layer"));
            let (expected, lies) =
                (judge(&checker, &served, &exposed), cheat.lies_in(cell, layers));
            let own = cheater.products(&exposed).expect("products");
            let right = shown_products(model.transformer(), &exposed).expect("products");
            let by = |products: &[i64]| {
                let opening =
                    CellOpening { products: bytes(products), ..open(&checker, &served, &exposed) };
                light.judge(&served.case, &opening)
            };
            assert_eq!(by(&right).expect("a judgement"), expected, "{cheat:?} {cell:?}");
            match by(&own) {
                Ok(judged) => assert_eq!(judged, expected, "{cheat:?} {cell:?}"),
                Err(SpotError::Products { .. }) => {
                    assert!(lies && own != right, "{cheat:?} {cell:?}")
                }
                Err(error) => panic!("{cheat:?} {cell:?}: {error}"),
            }
            assert!(lies || expected.is_none());
            found += u32::from(expected.is_some());
        }
        assert_eq!(found == 0, cheat == Cheat::Honest, "{cheat:?}");
    }
}

fn open(checker: &Checker, served: &Served, exposed: &Exposed) -> CellOpening {
    let (tree, leaves) = (&served.tree, &served.leaves);
    cells::open(tree, leaves, &checker.dimensions(), &served.exposure, exposed).expect("an opening")
}

fn judge(checker: &Checker, served: &Served, exposed: &Exposed) -> Option<Mismatch> {
    checker.judge(&served.case, &open(checker, served, exposed)).expect("a judgement")
}

#[test]
fn what_is_kept_is_bound_to_its_model_and_to_every_byte() {
    let path = support::real_model();
    let model = Model::open(&path, &Default::default()).expect("a model");
    let light = light(&path, model.id());
    let checker = Arc::clone(light.checker());
    let kept = |sketches: &[u8]| {
        LightChecker::load(Arc::clone(&checker), sketches).expect("a header").map(|it| it.bytes())
    };
    let bytes = sketches_of(&path, &checker).to_bytes().expect("all parts");
    assert_eq!(kept(&bytes), Ok(light.bytes()));
    for at in (40..bytes.len()).step_by(bytes.len() / 50).chain([40, 71, 72, bytes.len() - 1]) {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert_eq!(kept(&other), Err(SketchError::Damaged), "{at}");
    }
    for at in [0, 7, 8, 39] {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert_eq!(kept(&other), Err(SketchError::Model { expected: model.id() }), "{at}");
    }
    for other in [&bytes[..bytes.len() - 1], &[], &[&bytes[..], &[0]].concat()] {
        assert!(matches!(kept(other), Err(SketchError::Length { .. })));
    }
    assert!(format!("{:?}", sketches_of(&path, &checker)).len() < 100, "more than a name is shown");
    let absent = LightChecker::ranges(&checker, 31);
    assert!(matches!(absent, Err(SpotError::Layer { expected: 30, got: 31 })));
}

fn sketches_of(path: &Path, checker: &Checker) -> Sketches {
    let mut sketches = LightChecker::begin(checker, SECRET);
    while let Some(at) = sketches.missing() {
        let parts = parts_of(path, &LightChecker::ranges(checker, at).expect("a part"));
        LightChecker::take(checker, &mut sketches, at, &lent(&parts)).expect("weights");
    }
    sketches
}
