//! The price of spot audits and fraud proofs, and that honest cells hold.
//!
//! One answer is made as a provider makes it. Then cells of it are drawn by one
//! nonce after another, opened with the code that answers other nodes, and judged
//! with the code that a router runs, from the stretches of the file that a router
//! fetches. A fraud proof is made of a cell that was committed to wrongly, and
//! judged as `verify` does. Deliberately absent: the network, and cheats; what
//! cheats meet is `cheating`'s.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use peerproof_engine::dispute::Traced;
use peerproof_engine::execute::Replayer;
use peerproof_engine::service::{Service, ServiceOptions};
use peerproof_engine::spot::{Checker, expose};
use peerproof_identity::Keypair;
use peerproof_proof::cells::{self, KV_PAGE};
use peerproof_proof::ranges::{Group, Mode, open_bytes};
use peerproof_proof::receipt::{Answer, Place, build};
use peerproof_proof::{Step, Transcript};
use peerproof_wire::limits::MAX_RANGE_BYTES;
use peerproof_wire::range::RANGE_GROUP_BYTES;
use peerproof_wire::{
    Case, Cell, FraudProof, Leaf, Message as _, ModelId, RangeSlice, Signed, WeightRange,
};

use super::disputing::Accused;
use super::{BenchError, EARLIER_RECEIPTS, ISSUED_UNIX_MS, Subject, engine, generate, receipt_of};
use crate::fraud;
use crate::home::{random_seed, session_key};
use crate::node::{CELLS, Judged, judge_cells, open_cells};

/// The first stretch of a file that is tried for its header.
const FIRST_HEADER_BYTES: usize = 1 << 20;
/// Bytes of weights that travel together at most.
const PIECE_BYTES: u64 = MAX_RANGE_BYTES as u64 - RANGE_GROUP_BYTES;

/// An honest answer, its provider, and a router that has nothing but layers.
pub struct Proving {
    pub(super) file: Vec<u8>,
    pub(super) replayer: Replayer,
    checker: Checker,
    pub(super) case: Case,
    /// How long each layer took to load, from bytes in memory.
    pub loading: Vec<Duration>,
}

/// One spot audit.
#[derive(Clone, Copy, Debug)]
pub struct Spotted {
    /// The provider's part: computing the answer again and opening the cells.
    pub opening: Duration,
    /// Bytes of the openings.
    pub bytes: usize,
    /// The router's part, with the layers loaded.
    pub judging: Duration,
    /// Cells that were judged.
    pub cells: u32,
    /// Whether the honest provider was accused.
    pub accused: bool,
}

/// One fraud proof.
#[derive(Clone, Copy, Debug)]
pub struct Convicted {
    /// Bytes of the file.
    pub bytes: usize,
    /// Reading and judging them.
    pub judging: Duration,
}

impl Subject {
    /// Makes an answer of `answer` tokens to `prompt` tokens of `text`, and loads all layers of
    /// the file at `path` one by one, as a router would have after many audits.
    ///
    /// # Errors
    /// The file can't be used, the text is too short, or every answer ends early.
    pub fn proving(
        &self,
        path: &Path,
        threads: usize,
        text: &str,
        shape: (usize, u32),
    ) -> Result<Proving, BenchError> {
        let options = ServiceOptions { threads, ..ServiceOptions::default() };
        let service =
            Service::start(Arc::clone(&self.model), &options).map_err(engine("service"))?;
        let offer = self.long_answer(&service, text, shape)?;
        let (made, tree) = generate(&service, &self.model, &offer)?;
        let receipt = receipt_of(&offer, &made, &tree)?;
        let replayer =
            Replayer::new(Arc::clone(&self.model), threads).map_err(engine("replayer"))?;
        let file = std::fs::read(path).map_err(engine("model file"))?;
        let checker = checker(&file, self.model.id())?;
        let layers = 0..=checker.dimensions().layers;
        let loading = layers.map(|layer| load(&checker, &file, layer)).collect::<Result<_, _>>()?;
        let case = Case { offer, receipt, tokens: made.tokens };
        Ok(Proving { file, replayer, checker, case, loading })
    }
}

/// A checker of a file's header.
pub(super) fn checker(file: &[u8], id: ModelId) -> Result<Checker, BenchError> {
    let mut wanted = FIRST_HEADER_BYTES.min(file.len());
    let needed = loop {
        let beginning = &file[..wanted];
        match Checker::needed(file.len() as u64, beginning).map_err(engine("header"))? {
            Some(needed) => break needed,
            None => wanted = (2 * wanted).min(file.len()),
        }
    };
    let parts: Vec<(u64, &[u8])> =
        needed.iter().map(|range| (range.start, stretch(file, range))).collect();
    Checker::open(file.len() as u64, id, &parts).map_err(engine("header"))
}

/// Loads one layer of a file, and gives the time it took.
pub(super) fn load(checker: &Checker, file: &[u8], layer: u32) -> Result<Duration, BenchError> {
    let start = Instant::now();
    let ranges = checker.ranges(layer).map_err(engine("layer"))?;
    let parts: Vec<(u64, &[u8])> =
        ranges.iter().map(|range| (range.start, stretch(file, range))).collect();
    checker.load(layer, &parts).map_err(engine("layer"))?;
    Ok(start.elapsed())
}

pub(super) fn stretch<'a>(file: &'a [u8], range: &std::ops::Range<u64>) -> &'a [u8] {
    &file[range.start as usize..range.end as usize]
}

impl Proving {
    /// One spot audit, of cells that a nonce draws.
    ///
    /// # Errors
    /// Cells could not be opened or judged, which is a defect.
    pub fn spot(&self) -> Result<Spotted, BenchError> {
        let Self { replayer, checker, case, .. } = self;
        let layers = checker.dimensions().layers;
        let drawn = cells::drawn(&random_seed(), &case.offer, &case.receipt, layers, CELLS);
        let cells: Vec<Cell> = drawn.into_iter().collect();
        let start = Instant::now();
        let openings = open_cells(replayer, case, &cells, false).map_err(engine("openings"))?;
        let opening = start.elapsed();
        let bytes = openings.iter().map(Vec::len).sum();
        let start = Instant::now();
        let judged = judge_cells(checker, case, &cells, openings);
        let judging = start.elapsed();
        let accused = match judged {
            Judged::Hold(_) => false,
            Judged::Differs(..) | Judged::Refused(_) => true,
            Judged::Unable(why) => return Err(engine("cells")(why)),
        };
        Ok(Spotted { opening, bytes, judging, cells: cells.len() as u32, accused })
    }

    /// Makes and judges a fraud proof against who commits to a wrong key in a cell of a
    /// layer between the first and the last.
    ///
    /// # Errors
    /// It proves nothing, which is a defect.
    pub fn convict(&self) -> Result<Convicted, BenchError> {
        let positions = self.case.receipt.leaves - 1;
        let layers = self.checker.dimensions().layers;
        let [a, b, ..] = random_seed();
        let layer = (1 + u32::from(a) % layers.saturating_sub(2).max(1)).min(layers - 1);
        let cell = Cell { position: u32::from(b) * positions / 256, layer };
        let proof = self.forge(cell)?;
        let bytes = proof.encode().map_err(engine("fraud proof"))?;
        let start = Instant::now();
        let read = FraudProof::decode(&bytes).map_err(engine("fraud proof"))?;
        fraud::judge(&read).map_err(engine("fraud proof"))?;
        Ok(Convicted { bytes: fraud::MAGIC.len() + bytes.len(), judging: start.elapsed() })
    }

    /// A cell of the answer in the middle of the model, as one signs it who has all of it.
    pub(super) fn disputed(&self, key: &Keypair) -> Result<Accused, BenchError> {
        let Self { replayer, checker, case, .. } = self;
        let Case { offer, receipt, tokens } = case;
        let cell = Cell { position: receipt.leaves - 2, layer: checker.dimensions().layers / 2 };
        let (never, mut leaves) = (AtomicBool::new(false), Vec::<Leaf>::new());
        let mut take = |step: Step| leaves.push(step.into());
        let exposure = expose(replayer, &never, offer, tokens, &[cell], &mut take)
            .map_err(engine("exposure"))?;
        let exposed = &exposure.exposed[0];
        let traced = Traced::exposed(replayer.model().transformer(), exposed);
        let traced = traced.map_err(engine("trace"))?;
        let mut transcript = Transcript::new();
        leaves.iter().try_for_each(|leaf| transcript.push(leaf)).map_err(engine("transcript"))?;
        let kv_root = cells::kv_root(&exposure.kv_layers);
        let (text, stop) = ("", receipt.stop);
        let tree = transcript
            .close(stop, receipt.output_tokens, text, &kv_root)
            .map_err(engine("transcript"))?;
        let answer = Answer { tokens, text, logprobs: &[] };
        let place = Place::after(EARLIER_RECEIPTS, offer.id());
        let receipt = build(offer, answer, stop, (&tree, kv_root), place, ISSUED_UNIX_MS)
            .map_err(engine("receipt"))?;
        let receipt = Signed::sign(key, receipt).map_err(engine("receipt"))?;
        let opening = cells::open(&tree, &leaves, &checker.dimensions(), &exposure, exposed)
            .map_err(engine("opening"))?;
        let case = Case { offer: offer.clone(), receipt, tokens: tokens.clone() };
        Ok((case, opening, traced))
    }

    pub(super) fn checker(&self) -> &Checker {
        &self.checker
    }

    pub(super) fn file(&self) -> &[u8] {
        &self.file
    }

    /// The answer as one who commits to a wrong key in a cell would sign it, and the proof.
    fn forge(&self, cell: Cell) -> Result<FraudProof, BenchError> {
        let Self { replayer, checker, case, .. } = self;
        let Case { offer, receipt, tokens } = case;
        let (never, mut leaves) = (AtomicBool::new(false), Vec::<Leaf>::new());
        let mut take = |step: Step| leaves.push(step.into());
        let mut exposure = expose(replayer, &never, offer, tokens, &[cell], &mut take)
            .map_err(engine("exposure"))?;
        let (dimensions, exposed) = (checker.dimensions(), &mut exposure.exposed[0]);
        let (page, row) = (cell.position as usize / KV_PAGE, cell.position as usize % KV_PAGE);
        if let Some(rows) = exposed.pages.last_mut() {
            rows[row * dimensions.kv_row_bytes as usize] ^= 1;
            exposed.page_digests[page] = cells::kv_page(rows);
        }
        exposure.kv_layers[cell.layer as usize] =
            cells::kv_layer(cell.layer, leaves.len() as u32, &exposed.page_digests);
        let mut transcript = Transcript::new();
        leaves.iter().try_for_each(|leaf| transcript.push(leaf)).map_err(engine("transcript"))?;
        let kv_root = cells::kv_root(&exposure.kv_layers);
        let (text, stop) = ("", receipt.stop);
        let tree = transcript
            .close(stop, receipt.output_tokens, text, &kv_root)
            .map_err(engine("transcript"))?;
        let answer = Answer { tokens, text, logprobs: &[] };
        let place = Place::after(EARLIER_RECEIPTS, offer.id());
        let receipt = build(offer, answer, stop, (&tree, kv_root), place, ISSUED_UNIX_MS)
            .map_err(engine("receipt"))?;
        let receipt = Signed::sign(&session_key(), receipt).map_err(engine("receipt"))?;
        let opening = cells::open(&tree, &leaves, &dimensions, &exposure, &exposure.exposed[0])
            .map_err(engine("opening"))?;
        let case = Case { offer: offer.clone(), receipt, tokens: tokens.clone() };
        Ok(FraudProof { case, opening, weights: self.weights(cell.layer)? })
    }

    /// The stretches of the file that a cell of a layer takes, with their paths.
    fn weights(&self, layer: u32) -> Result<Vec<WeightRange>, BenchError> {
        let ranges = self.checker.evidence_ranges(layer).map_err(engine("layer"))?;
        let cut = |range: std::ops::Range<u64>| {
            let pieces = (range.start..range.end).step_by(PIECE_BYTES as usize);
            pieces.map(move |start| start..range.end.min(start + PIECE_BYTES))
        };
        let open = |range: std::ops::Range<u64>| {
            let (start, length) = (range.start, range.end - range.start);
            let slice = open_bytes(Mode::Plain, &self.file, Group::KIB_16, range)
                .map_err(engine("weights"))?;
            let file_bytes = self.file.len() as u64;
            let slice = RangeSlice { file_bytes, bytes: slice.bytes, hashes: slice.hashes };
            Ok(WeightRange { start, length, slice })
        };
        ranges.into_iter().flat_map(cut).map(open).collect()
    }
}
