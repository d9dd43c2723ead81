//! Recomputing single cells: for whoever holds a part of a model's file.
//!
//! A cell is one layer at one position (`peerproof_proof::cells`). [`Checker`] is
//! made of a file's header, is given the stretches that single layers take, and
//! computes what a cell must give from what was opened. The head, that is logits and
//! choice of a token from a state, is the cell behind the last layer. [`expose`] is the other side: a holder of the
//! whole model computes an answer again and takes out what cells read and gave.
//!
//! Rows come from strangers. They are refused unless they are rows that the
//! arithmetic can make: whoever committed to others has not followed it.
//! Deliberately absent: whether what was opened was committed to, which is
//! `proof`'s to say, and where stretches of a file come from.

mod accusing;
mod judging;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use peerproof_proof::audit::AuditError;
use peerproof_proof::cells::{CellError, Dimensions, Exposed, Exposure, KV_PAGE, kv_layer};
use peerproof_proof::{Step, sampling_seed};
use peerproof_wire::{Case, Cell, CellOpening, Mismatch, ModelId, Offer, Signed};

use crate::dispute::DisputeError;
use crate::execute::{ReplayError, Replayer};
use crate::forward::{ForwardError, Item, Output, Runner};
use crate::gguf::Gguf;
use crate::kernels::KernelPath;
use crate::kv::Kv;
use crate::model::{Model, ModelError};
use crate::transformer::{LoadOptions, Part, Shape, Transformer};
use crate::weights::LoadError;

/// Why a cell could not be judged. It is never a verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpotError {
    /// The opening does not lead to the receipt.
    #[error(transparent)]
    Opening(#[from] CellError),
    /// The file's header or weights can't be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A layer's weights can't be used.
    #[error(transparent)]
    Weights(#[from] LoadError),
    /// The forward pass refuses.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The offer or the prompt isn't one for this model.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The cell can't be narrowed.
    #[error(transparent)]
    Dispute(#[from] DisputeError),
    /// Offer, receipt and tokens don't belong together.
    #[error(transparent)]
    Case(#[from] AuditError),
    /// The model has no such layer.
    #[error("cell of layer {got}: the model has {expected} layers")]
    Layer {
        /// Layers there are.
        expected: usize,
        /// The cell's.
        got: u32,
    },
    /// What cells of a layer take was not loaded.
    #[error("cell of layer {layer}: its weights are not loaded")]
    NotLoaded {
        /// The layer.
        layer: u32,
    },
    /// The products shown with a cell are not those of the model's matrices. Nothing is said of the
    /// cell: whoever showed them is at fault, and the cell is to be recomputed with weights.
    #[error("cell of position {}, layer {}: the {what}", cell.position, cell.layer)]
    Products {
        /// The cell.
        cell: Cell,
        /// What is wrong with them.
        what: String,
    },
    /// The answer is an embedding, which has no head, or is shorter than the position.
    #[error("cell of position {position}: no token is drawn there")]
    NotDrawn {
        /// The cell's.
        position: u32,
    },
}

pub(crate) use judging::{Before, Compute, Recomputed, first_of, judge};

/// Stretches of a file: where each begins, and its bytes.
pub type Parts<'a> = &'a [(u64, &'a [u8])];

/// A model of which some layers are loaded.
#[derive(Debug)]
pub struct Checker {
    length: u64,
    header: Vec<(u64, Vec<u8>)>,
    text: Arc<Model>,
    shape: Shape,
    layers: Mutex<HashMap<u32, Arc<Transformer>>>,
    ends: OnceLock<Arc<Model>>,
}

impl Checker {
    /// The stretches of a file of `length` bytes that [`Checker::open`] takes, found in
    /// the file's beginning; `None` if the beginning is too short to tell.
    ///
    /// # Errors
    /// The header isn't of a model that this engine knows.
    pub fn needed(length: u64, beginning: &[u8]) -> Result<Option<Vec<Range<u64>>>, SpotError> {
        let file = match Gguf::sparse(length, &[(0, beginning)]) {
            Ok(file) if file.header_bytes() <= beginning.len() as u64 => file,
            Err(error) if beginning.len() as u64 >= length => {
                return Err(ModelError::from(error).into());
            }
            _ => return Ok(None),
        };
        Ok(Some(header_ranges(&file)?))
    }

    /// The stretches of a file of `length` bytes that [`Checker::open`] takes, as the header
    /// among `parts` has it. If `parts` do not hold all of what this gives, the header isn't
    /// the file's: what is missing was read as zeros.
    ///
    /// # Errors
    /// The header isn't of a model that this engine knows.
    pub fn header_ranges(length: u64, parts: Parts<'_>) -> Result<Vec<Range<u64>>, SpotError> {
        header_ranges(&Gguf::sparse(length, parts).map_err(ModelError::from)?)
    }

    /// Opens a file by its header. `id` is taken on trust, here and wherever stretches
    /// are given: whoever gives them has checked each against the id.
    ///
    /// # Errors
    /// The header isn't of a model that this engine knows.
    pub fn open(length: u64, id: ModelId, header: Parts<'_>) -> Result<Self, SpotError> {
        let file = Gguf::sparse(length, header).map_err(ModelError::from)?;
        let shape = Transformer::shape_of(&file)?;
        let text = Model::part(&file, id, Part::Header)?;
        let header = header.iter().map(|(start, bytes)| (*start, bytes.to_vec())).collect();
        let (layers, ends) = Default::default();
        Ok(Self { length, header, text, shape, layers, ends })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.length
    }

    /// Whether cells of this layer can be judged; the head stands behind the last layer.
    #[must_use]
    pub fn has(&self, layer: u32) -> bool {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let head = layer as usize == self.shape.layers;
        (head || layers.contains_key(&layer))
            && (self.ends.get().is_some() || !needs_ends(self, layer))
    }

    /// Loads what cells of a layer take, from the stretches of [`Checker::ranges`].
    ///
    /// # Errors
    /// There is no such layer, or its weights can't be used.
    pub fn load(&self, layer: u32, parts: Parts<'_>) -> Result<(), SpotError> {
        let file = self.file_with(parts)?;
        if needs_ends(self, layer) && self.ends.get().is_none() {
            let ends = Model::part(&file, self.text.id(), Part::Ends)?;
            let _ = self.ends.set(ends);
        }
        let part = self.part(layer)?;
        if part != Part::Ends {
            let options = LoadOptions { part, ..LoadOptions::default() };
            let loaded = Arc::new(Transformer::load(&file, &options)?);
            let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
            layers.insert(layer, loaded);
        }
        Ok(())
    }

    /// The sizes that openings follow from.
    #[must_use]
    pub fn dimensions(&self) -> Dimensions {
        dimensions(&self.shape)
    }

    /// All stretches of the file that whoever has nothing of it takes to judge a cell
    /// of a layer: [`Checker::needed`] and [`Checker::ranges`].
    ///
    /// # Errors
    /// There is no such layer.
    pub fn evidence_ranges(&self, layer: u32) -> Result<Vec<Range<u64>>, SpotError> {
        let file = self.header_file()?;
        let mut ranges = header_ranges(&file)?;
        ranges.extend(self.ranges(layer)?);
        Ok(ranges)
    }

    /// The stretches of the file that cells of a layer take, beside the header.
    ///
    /// # Errors
    /// There is no such layer.
    pub fn ranges(&self, layer: u32) -> Result<Vec<Range<u64>>, SpotError> {
        let file = self.header_file()?;
        let part = self.part(layer)?;
        let mut ranges = Transformer::part_ranges(&file, part)?;
        if part != Part::Ends && needs_ends(self, layer) {
            ranges.extend(Transformer::part_ranges(&file, Part::Ends)?);
        }
        Ok(ranges)
    }

    /// The file with nothing but what the checker was opened with.
    pub(crate) fn header_file(&self) -> Result<Gguf, SpotError> {
        self.file_with(&[])
    }

    /// The file with the header and these stretches.
    pub(crate) fn file_with(&self, parts: Parts<'_>) -> Result<Gguf, SpotError> {
        let header = self.header.iter().map(|(start, bytes)| (*start, &bytes[..]));
        let parts: Vec<(u64, &[u8])> = header.chain(parts.iter().copied()).collect();
        Ok(Gguf::sparse(self.length, &parts).map_err(ModelError::from)?)
    }

    /// Which part of the model a layer's number stands for.
    pub(crate) fn part(&self, layer: u32) -> Result<Part, SpotError> {
        let expected = self.shape.layers;
        match layer as usize {
            layer if layer < expected => Ok(Part::Layer(layer)),
            layer if layer == expected => Ok(Part::Ends),
            _ => Err(SpotError::Layer { expected, got: layer }),
        }
    }

    fn layer(&self, layer: u32) -> Result<Arc<Transformer>, SpotError> {
        self.part(layer)?;
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.get(&layer).cloned().ok_or(SpotError::NotLoaded { layer })
    }

    /// Embedding and head.
    fn ends(&self) -> Result<&Arc<Model>, SpotError> {
        self.ends.get().ok_or(SpotError::NotLoaded { layer: self.shape.layers as u32 })
    }

    /// The first position that a cell reads keys and values of.
    ///
    /// # Errors
    /// There is no such layer.
    pub fn first_read(&self, cell: Cell) -> Result<u32, SpotError> {
        judging::first_of(self, self.shape.layers, cell)
    }

    /// Judges one cell of a case by its opening: `None` if it follows from the
    /// model, else what differs. The stretches of [`Checker::ranges`] must be there.
    ///
    /// # Errors
    /// Nothing can be judged: the papers don't belong together, the opening does not
    /// lead to the receipt, or the weights can't be used.
    pub fn judge(&self, case: &Case, opening: &CellOpening) -> Result<Option<Mismatch>, SpotError> {
        judging::judge(self, self, case, opening)
    }

    /// Tokenizer and template, without weights.
    pub(crate) fn text(&self) -> &Model {
        &self.text
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }
}

impl Compute for Checker {
    fn window(&self, layer: u32) -> Result<Option<usize>, SpotError> {
        Ok(self.layer(layer)?.layers.first().and_then(|layer| layer.window))
    }

    fn cell(&self, cell: Cell, kv: Before<'_>, row: &[i32]) -> Result<Recomputed, SpotError> {
        let model = self.layer(cell.layer)?;
        let mut runner = Runner::of_one_row(Arc::clone(&model), 1, KernelPath::best())?;
        let mut kv = kv.cache(&model, cell.position);
        let leaving = runner.cell(&mut kv, row)?;
        Ok(Recomputed::new(&kv, leaving))
    }

    fn embedding(&self, token: u32) -> Result<Vec<i32>, SpotError> {
        let transformer = Arc::clone(self.ends()?.transformer());
        let mut runner = Runner::of_one_row(Arc::clone(&transformer), 1, KernelPath::best())?;
        let mut kv = Kv::new(&transformer, 1);
        let (items, mut row) = ([Item { sequence: 0, token, logits: false }], Vec::new());
        // Without layers, the embedding is the state.
        runner.forward(&mut [&mut kv], &items, &mut |_, output| row = output.state.to_vec())?;
        Ok(row)
    }

    fn logits(&self, state: &[i32]) -> Result<Vec<i32>, SpotError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let transformer = Arc::clone(self.ends()?.transformer());
        let mut runner = Runner::of_one_row(transformer, threads, KernelPath::best())?;
        Ok(runner.head(state, &mut None))
    }
}

/// The row that enters the first layer is an embedding; behind the last stands the head.
fn needs_ends(checker: &Checker, layer: u32) -> bool {
    layer == 0 || layer as usize >= checker.shape.layers
}

/// The stretches that every checker is opened with: all that is read of a file before any
/// layer. Which they are is read in the first of them alone, so whoever has them for certain
/// has the file's own.
fn header_ranges(file: &Gguf) -> Result<Vec<Range<u64>>, SpotError> {
    let mut ranges = Transformer::part_ranges(file, Part::Header)?;
    ranges.insert(0, 0..file.header_bytes());
    Ok(ranges)
}

/// The sizes that openings of a model's cells follow from.
#[must_use]
pub fn dimensions(shape: &Shape) -> Dimensions {
    let Shape { layers, width, kv_heads, head_dims, .. } = *shape;
    let kv_row_bytes = (kv_heads * (head_dims + 1) * 4) as u32;
    Dimensions { layers: layers as u32, width: width as u32, kv_row_bytes }
}

/// The first position that one reads keys and values of, in a layer with or without a window.
fn first_read(position: u32, window: Option<usize>) -> u32 {
    let before = |window| (position + 1).saturating_sub(window);
    window.and_then(|window| u32::try_from(window).ok()).map_or(0, before)
}

/// Computes an answer again and takes out what the cells read and gave. Gives
/// every step to `on_step`, and what is exposed at the end.
///
/// # Errors
/// The offer isn't one for this model, a cell isn't one of this answer, or `stop` turned true.
pub fn expose(
    replayer: &Replayer,
    stop: &AtomicBool,
    offer: &Signed<Offer>,
    answer: &[u32],
    cells: &[Cell],
    on_step: &mut dyn FnMut(Step),
) -> Result<Exposure, SpotError> {
    let model = replayer.model();
    let shape = *model.transformer().shape();
    if let Some(cell) = cells.iter().find(|cell| cell.layer as usize > shape.layers) {
        return Err(SpotError::Layer { expected: shape.layers, got: cell.layer });
    }
    let mut exposed: Vec<Exposed> = cells.iter().map(|cell| Exposed::empty(*cell)).collect();
    let mut watch = |position: u32, output: &Output<'_>| {
        for one in exposed.iter_mut().filter(|one| one.cell.position == position) {
            one.entered = output.entered.to_vec();
            one.state = output.state.to_vec();
        }
    };
    let prompt = model.prompt_tokens(&offer.prompt).map_err(ReplayError::from)?;
    let (key, seed) = (offer.id(), sampling_seed(offer));
    let kv = replayer.until(stop).replay_watched(
        offer,
        (&key, &seed),
        (&prompt, answer),
        &mut watch,
        on_step,
    )?;
    let positions = kv.position();
    for one in &mut exposed {
        let Cell { position, layer } = one.cell;
        let Some(window) = model.transformer().layers.get(layer as usize).map(|it| it.window)
        else {
            continue;
        };
        one.first = first_read(position, window);
        let pages = one.first as usize / KV_PAGE..=position as usize / KV_PAGE;
        let count = |page: usize| (positions - page * KV_PAGE).min(KV_PAGE);
        one.pages = pages.map(|page| kv.kv_rows(page, layer as usize, count(page))).collect();
        one.page_digests = kv.page_digests(layer as usize, positions);
    }
    let layer =
        |layer: usize| kv_layer(layer as u32, positions as u32, &kv.page_digests(layer, positions));
    Ok(Exposure { kv_layers: (0..shape.layers).map(layer).collect(), exposed })
}
