//! Recomputing single cells: for whoever holds a part of a model's file.
//!
//! A cell is one layer at one position (`peerproof_proof::cells`). [`Checker`] is
//! made of a file's header, is given the stretches that single layers take, and
//! computes what a cell must give from what was opened. The head, that is logits and choice of a token from a state, is
//! the cell behind the last layer. [`expose`] is the other side: a holder of the
//! whole model computes an answer again and takes out what cells read and gave.
//!
//! Rows come from strangers. They are refused unless they are rows that the
//! arithmetic can make: whoever committed to others has not followed it.
//! Deliberately absent: whether what was opened was committed to, which is
//! `proof`'s to say, and where stretches of a file come from.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use peerproof_proof::audit::{AuditError, verify_case};
use peerproof_proof::cells::{
    self, CellError, Dimensions, Exposed, Exposure, KV_PAGE, Opened, kv_layer,
};
use peerproof_proof::{DrawnStep, Step, sampling_seed};
use peerproof_wire::{Case, Cell, CellOpening, Difference, Mismatch, ModelId, Offer, Signed};

use crate::constraint::ConstraintError;
use crate::draws::Draws;
use crate::execute::{ReplayError, Replayer};
use crate::forward::{ForwardError, Item, Output, Runner};
use crate::gguf::Gguf;
use crate::kernels::KernelPath;
use crate::kv::{Kv, PAGE};
use crate::model::{Model, ModelError};
use crate::transformer::{LoadOptions, Part, Shape, Transformer};
use crate::weights::LoadError;

/// The largest magnitude of a key's or a value's integers.
const LARGEST: i16 = i16::MAX;
/// The least that the largest of them has, unless all are 0.
const LEAST: i16 = 1 << 14;
/// The exponent of a row of zeros.
const ZERO_EXPONENT: i16 = 127;

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
    /// The answer is an embedding, which has no head, or is shorter than the position.
    #[error("cell of position {position}: no token is drawn there")]
    NotDrawn {
        /// The cell's.
        position: u32,
    },
}

/// What a cell must give.
struct Recomputed {
    /// Its row of keys and values, as the transcript has it.
    kv_row: Vec<u8>,
    /// The row that leaves the layer.
    leaving: Vec<i32>,
}

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
        let header = self.header.iter().map(|(start, bytes)| (*start, &bytes[..]));
        let parts: Vec<(u64, &[u8])> = header.chain(parts.iter().copied()).collect();
        let file = Gguf::sparse(self.length, &parts).map_err(ModelError::from)?;
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
    fn header_file(&self) -> Result<Gguf, SpotError> {
        let header: Vec<(u64, &[u8])> =
            self.header.iter().map(|(start, bytes)| (*start, &bytes[..])).collect();
        Ok(Gguf::sparse(self.length, &header).map_err(ModelError::from)?)
    }

    fn part(&self, layer: u32) -> Result<Part, SpotError> {
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
        if cell.layer as usize == self.shape.layers {
            return Ok(0);
        }
        let layer = self.layer(cell.layer)?;
        Ok(first_read(cell.position, layer.layers.first().and_then(|layer| layer.window)))
    }

    /// Judges one cell of a case by its opening: `None` if it follows from the
    /// model, else what differs. The stretches of [`Checker::ranges`] must be there.
    ///
    /// # Errors
    /// Nothing can be judged: the papers don't belong together, the opening does not
    /// lead to the receipt, or the weights can't be used.
    pub fn judge(&self, case: &Case, opening: &CellOpening) -> Result<Option<Mismatch>, SpotError> {
        let Case { offer, receipt, tokens } = case;
        let cell = opening.cell;
        verify_case(offer, receipt, tokens)?;
        let first = self.first_read(cell)?;
        let opened = cells::verify(receipt, &self.dimensions(), cell, first, opening)?;
        let prompt = self.text.prompt_tokens(&offer.prompt).map_err(ReplayError::from)?;
        let (expected, got) = (prompt.len() as u32, receipt.prompt_tokens);
        if expected != got {
            let position = expected.min(got).saturating_sub(1);
            return Ok(Some(number(position, Difference::Prompt, expected, got)));
        }
        let position = cell.position;
        let index = position as usize;
        let read = prompt.get(index).or_else(|| tokens.get(index - prompt.len()));
        if let Some(expected) = read.filter(|expected| **expected != opened.leaf.token) {
            let what = if index < prompt.len() { Difference::Prompt } else { Difference::Token };
            return Ok(Some(number(position, what, *expected, opened.leaf.token)));
        }
        if cell.layer as usize == self.shape.layers {
            return self.judge_head(case, &prompt, &opened);
        }
        self.judge_layer(cell, first, &opened)
    }

    fn judge_layer(
        &self,
        cell: Cell,
        first: u32,
        opened: &Opened,
    ) -> Result<Option<Mismatch>, SpotError> {
        let differs = |what, expected: &[u8], got: &[u8]| {
            let [expected, got] = [expected, got].map(|it| blake3::hash(it).as_bytes().to_vec());
            Ok(Some(Mismatch { position: cell.position, what, expected, got }))
        };
        let bytes = |row: &[i32]| -> Vec<u8> { row.iter().flat_map(|v| v.to_le_bytes()).collect() };
        if cell.layer == 0 {
            let token = opened.leaf.token;
            if token as usize >= self.shape.vocabulary {
                // It is of the answer, since prompts have been checked: no model draws it.
                return differs(Difference::Layers, &[], &bytes(&opened.entering));
            }
            let row = self.embedding(token)?;
            if row != opened.entering {
                return differs(Difference::Layers, &bytes(&row), &bytes(&opened.entering));
            }
        }
        let Some(right) = self.cell(cell, &opened.entering, first, &opened.before)? else {
            let got = [bytes(&opened.entering), opened.before.clone()].concat();
            return differs(Difference::Layers, &[], &got);
        };
        if right.kv_row != opened.own {
            return differs(Difference::KeysValues, &right.kv_row, &opened.own);
        }
        if right.leaving != opened.leaving {
            let last = cell.layer as usize + 1 == self.shape.layers;
            let what = if last { Difference::State } else { Difference::Layers };
            return differs(what, &bytes(&right.leaving), &bytes(&opened.leaving));
        }
        Ok(None)
    }

    fn judge_head(
        &self,
        case: &Case,
        prompt: &[u32],
        opened: &Opened,
    ) -> Result<Option<Mismatch>, SpotError> {
        let Case { offer, tokens, .. } = case;
        let position = opened.leaf.position;
        let index = (position as usize + 1).checked_sub(prompt.len());
        let index = index.filter(|index| *index < tokens.len() && offer.pooling.is_none());
        let index = index.ok_or(SpotError::NotDrawn { position })?;
        if opened.leaving.contains(&i32::MIN) {
            let got = opened.leaf.state.as_bytes().to_vec();
            return Ok(Some(Mismatch { position, what: Difference::State, expected: vec![], got }));
        }
        let right = self.head(offer, prompt, &tokens[..index], &opened.leaving)?;
        let Some(got) = &opened.leaf.drawn else {
            let (expected, got) = (right.next.to_le_bytes().to_vec(), Vec::new());
            return Ok(Some(Mismatch { position, what: Difference::Token, expected, got }));
        };
        let mismatch = |what, expected: &[u8], got: &[u8]| {
            Some(Mismatch { position, what, expected: expected.to_vec(), got: got.to_vec() })
        };
        if right.logits != got.logits {
            let (expected, got) = (right.logits.as_bytes(), got.logits.as_bytes());
            return Ok(mismatch(Difference::Logits, expected, got));
        }
        if right.draw != got.draw {
            let (expected, got) = (right.draw.to_le_bytes(), got.draw.to_le_bytes());
            return Ok(mismatch(Difference::Draw, &expected, &got));
        }
        let wrong = [got.next, tokens[index]].into_iter().find(|next| *next != right.next);
        Ok(wrong.map(|wrong| number(position, Difference::Token, right.next, wrong)))
    }

    /// Recomputes a layer at a position; `None` if what is given is nothing that the
    /// arithmetic makes, so that whoever committed to it has not followed it. Lengths
    /// are those that [`cells::verify`] has checked.
    fn cell(
        &self,
        cell: Cell,
        entering: &[i32],
        first: u32,
        before: &[u8],
    ) -> Result<Option<Recomputed>, SpotError> {
        let model = self.layer(cell.layer)?;
        let (capacity, got) = (self.shape.context, cell.position as usize + 1);
        if got > capacity {
            return Err(ForwardError::Full { sequence: 0, capacity, got }.into());
        }
        let row = self.dimensions().kv_row_bytes as usize;
        if entering.contains(&i32::MIN) || !before.chunks_exact(row).all(|row| self.can_be(row)) {
            return Ok(None);
        }
        let mut runner = Runner::of_one_row(Arc::clone(&model), 1, KernelPath::best())?;
        let mut kv = Kv::new(&model, cell.position as usize + 1);
        kv.skip(first as usize);
        kv.extend(before);
        let leaving = runner.cell(&mut kv, entering)?;
        let at = cell.position as usize;
        let page = kv.kv_rows(at / PAGE, 0, at % PAGE + 1);
        Ok(Some(Recomputed { kv_row: page[page.len() - row..].to_vec(), leaving }))
    }

    /// Whether a row of keys and values is canonical (section 1 of the arithmetic).
    fn can_be(&self, row: &[u8]) -> bool {
        let numbers: Vec<i16> =
            row.as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
        numbers.chunks_exact(self.shape.head_dims + 1).all(|part| {
            let Some((exponent, values)) = part.split_last() else { return false };
            let most = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
            let canonical = LEAST.unsigned_abs()..=LARGEST.unsigned_abs();
            if most == 0 { *exponent == ZERO_EXPONENT } else { canonical.contains(&most) }
        })
    }

    /// The row that enters the first layer for a token.
    fn embedding(&self, token: u32) -> Result<Vec<i32>, SpotError> {
        let transformer = Arc::clone(self.ends()?.transformer());
        let mut runner = Runner::of_one_row(Arc::clone(&transformer), 1, KernelPath::best())?;
        let mut kv = Kv::new(&transformer, 1);
        let (items, mut row) = ([Item { sequence: 0, token, logits: false }], Vec::new());
        // Without layers, the embedding is the state.
        runner.forward(&mut [&mut kv], &items, &mut |_, output| row = output.state.to_vec())?;
        Ok(row)
    }

    /// What is drawn from the state behind prompt and answer so far, by an offer's rules.
    fn head(
        &self,
        offer: &Signed<Offer>,
        prompt: &[u32],
        answer: &[u32],
        state: &[i32],
    ) -> Result<DrawnStep, SpotError> {
        let model = self.ends()?;
        let masks = model.masks(&offer.sampling).map_err(ReplayError::from)?;
        let (key, seed) = (offer.id(), sampling_seed(offer));
        let end = model.first_end();
        let mut draws = Draws::new(key, seed, &offer.sampling, prompt, masks, end);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let transformer = Arc::clone(model.transformer());
        let mut runner = Runner::of_one_row(transformer, threads, KernelPath::best())?;
        let logits = runner.head(state);
        let drawn = draws.drawn_after(answer, &logits);
        match draws.trouble() {
            // This machine's trouble, which the provider need not have had.
            Some(error @ ConstraintError::Broken { .. }) => Err(ReplayError::from(error).into()),
            _ => Ok(drawn),
        }
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

fn number(position: u32, what: Difference, expected: u32, got: u32) -> Mismatch {
    let (expected, got) = (expected.to_le_bytes(), got.to_le_bytes());
    Mismatch { position, what, expected: expected.into(), got: got.into() }
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
