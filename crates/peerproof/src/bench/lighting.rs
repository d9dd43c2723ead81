//! The price of light audits, and that honest cells hold by their products.
//!
//! What a router keeps of the model is made as it is made from fetched ranges. Cells of
//! an answer are drawn by one nonce after another, opened with products by the code
//! that answers other nodes, and judged one by one with the code that a router runs.
//! Deliberately absent: the network, and cheats.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peerproof_engine::light::LightChecker;
use peerproof_proof::cells;
use peerproof_wire::{Cell, CellOpening, Message as _, ModelId};

use super::proving::{Proving, checker, stretch};
use super::{BenchError, engine};
use crate::home::random_seed;
use crate::node::{CELLS, Lit, judge_lit_cells, open_cells};

/// A router that keeps sketches and no weights.
pub struct Lighted {
    light: LightChecker,
    /// How long they took to make, from a file in memory.
    pub preparing: Duration,
    /// What is kept of the model.
    pub kept_bytes: usize,
}

/// One cell, judged by its products.
#[derive(Clone, Copy, Debug)]
pub struct LitCell {
    /// Whether it is a head.
    pub head: bool,
    /// Everything a router does with it: decoding, paths, products, attention, comparison.
    pub judging: Duration,
    /// Bytes of its products.
    pub products: usize,
    /// Bytes of its opening, products included.
    pub bytes: usize,
    /// Whether the honest provider was accused.
    pub accused: bool,
}

/// What a router keeps of a file for light audits.
pub(super) fn light_of(file: &[u8], id: ModelId) -> Result<LightChecker, BenchError> {
    let checker = Arc::new(checker(file, id)?);
    let mut sketches = LightChecker::begin(&checker, random_seed());
    while let Some(at) = sketches.missing() {
        let ranges = LightChecker::ranges(&checker, at).map_err(engine("part"))?;
        let parts: Vec<(u64, &[u8])> =
            ranges.iter().map(|range| (range.start, stretch(file, range))).collect();
        LightChecker::take(&checker, &mut sketches, at, &parts).map_err(engine("part"))?;
    }
    LightChecker::new(checker, sketches).map_err(engine("sketches"))
}

impl Proving {
    /// Makes what light audits keep of the model.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn lighted(&self) -> Result<Lighted, BenchError> {
        let start = Instant::now();
        let light = light_of(&self.file, self.case.offer.model_id)?;
        let preparing = start.elapsed();
        Ok(Lighted { kept_bytes: light.bytes(), light, preparing })
    }

    /// One light audit, of cells that a nonce draws.
    ///
    /// # Errors
    /// Cells could not be opened or judged, which is a defect.
    pub fn light(&self, lighted: &Lighted) -> Result<Vec<LitCell>, BenchError> {
        let (Self { replayer, case, .. }, light) = (self, &lighted.light);
        let layers = light.checker().dimensions().layers;
        let drawn = cells::drawn(&random_seed(), &case.offer, &case.receipt, layers, CELLS);
        let cells: Vec<Cell> = drawn.into_iter().collect();
        let openings = open_cells(replayer, case, &cells, true).map_err(engine("openings"))?;
        for (token, range) in light.missing_rows(case, &cells).map_err(engine("rows"))? {
            light.take_row(token, stretch(&self.file, &range)).map_err(engine("rows"))?;
        }
        let judge = |(cell, opening): (&Cell, Vec<u8>)| {
            let (bytes, cell) = (opening.len(), std::slice::from_ref(cell));
            let read = CellOpening::decode(&opening).map_err(engine("opening"))?;
            let start = Instant::now();
            let judged = judge_lit_cells(light, case, cell, vec![opening]);
            let judging = start.elapsed();
            let accused = match judged {
                Lit::Hold(_) => false,
                Lit::Unable(why) => return Err(engine("cells")(why)),
                _ => true,
            };
            let (head, products) = (cell[0].layer == layers, read.products.len());
            Ok(LitCell { head, judging, products, bytes, accused })
        };
        cells.iter().zip(openings).map(judge).collect()
    }
}
