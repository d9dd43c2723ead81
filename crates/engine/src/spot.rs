//! Recomputing single cells: for whoever holds a part of a model's file.
//!
//! A cell is one layer at one position (`peerproof_proof::cells`). [`Checker`]
//! opens a file of which only some stretches need be there, loads a layer the
//! first time a cell asks for it, and computes what the cell must give from what
//! was opened. The head, that is logits and choice of a token from a state, is
//! the cell behind the last layer. [`expose`] is the other side: a holder of the
//! whole model computes an answer again and takes out what cells read and gave.
//!
//! Rows come from strangers. They are refused unless they are rows that the
//! arithmetic can make: whoever committed to others has not followed it.
//! Deliberately absent: whether what was opened was committed to, which is
//! `proof`'s to say, and where stretches of a file come from.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use peerproof_proof::cells::{Exposed, Exposure, KV_PAGE, kv_layer};
use peerproof_proof::{DrawnStep, Step, sampling_seed};
use peerproof_wire::{Cell, Digest, ModelId, Offer, Signed};

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

/// Why a cell could not be recomputed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpotError {
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
    /// The model has no such layer.
    #[error("cell of layer {got}: the model has {expected} layers")]
    Layer {
        /// Layers there are.
        expected: usize,
        /// The cell's.
        got: u32,
    },
    /// What was opened for the cell has another length than the model's rows.
    #[error("{what} of the cell: expected {expected} numbers, got {got}")]
    Length {
        /// What of it.
        what: &'static str,
        /// Numbers there must be.
        expected: usize,
        /// Numbers there are.
        got: usize,
    },
}

/// What a cell must give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recomputed {
    /// Its row of keys and values, as the transcript has it.
    pub kv_row: Vec<u8>,
    /// The row that leaves the layer.
    pub leaving: Vec<i32>,
}

/// A model's file, as far as it is there, and the layers loaded of it.
#[derive(Debug)]
pub struct Checker {
    file: Gguf,
    id: ModelId,
    shape: Shape,
    layers: Mutex<HashMap<u32, Arc<Transformer>>>,
    ends: Mutex<Option<Arc<Model>>>,
}

impl Checker {
    /// Opens a file whose header is there. `id` is taken on trust: whoever puts
    /// the file together has checked every stretch of it.
    ///
    /// # Errors
    /// The header can't be read or isn't of a model that this engine knows.
    pub fn open(path: &Path, id: ModelId) -> Result<Self, SpotError> {
        let file = Gguf::open(path).map_err(ModelError::from)?;
        let shape = Transformer::shape_of(&file)?;
        Ok(Self { file, id, shape, layers: Mutex::default(), ends: Mutex::default() })
    }

    /// The sizes of the model.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of the file before its first tensor's.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        self.file.header_bytes()
    }

    /// The stretches of the file that a cell of this layer takes; the head stands
    /// behind the last layer.
    ///
    /// # Errors
    /// There is no such layer.
    pub fn ranges(&self, layer: u32) -> Result<Vec<Range<u64>>, SpotError> {
        Ok(Transformer::part_ranges(&self.file, self.part(layer)?)?)
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
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = layers.get(&layer) {
            return Ok(Arc::clone(loaded));
        }
        let options = LoadOptions { part: self.part(layer)?, ..LoadOptions::default() };
        let loaded = Arc::new(Transformer::load(&self.file, &options)?);
        layers.insert(layer, Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Tokenizer, embedding and head.
    ///
    /// # Errors
    /// They can't be used.
    pub fn ends(&self) -> Result<Arc<Model>, SpotError> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = ends.as_ref() {
            return Ok(Arc::clone(loaded));
        }
        let loaded = Model::ends(&self.file, self.id)?;
        *ends = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// The first position that a cell reads keys and values of.
    ///
    /// # Errors
    /// There is no such layer.
    pub fn first_read(&self, cell: Cell) -> Result<u32, SpotError> {
        let layer = self.layer(cell.layer)?;
        Ok(first_read(cell.position, layer.layers.first().and_then(|layer| layer.window)))
    }

    /// Recomputes a layer at a position, from the row that enters it and the rows
    /// of keys and values of the positions before, those from `first` on.
    ///
    /// `None` if what is given is nothing that the arithmetic makes, so that
    /// whoever committed to it has not followed it.
    ///
    /// # Errors
    /// Lengths don't fit the model, or its weights can't be used.
    pub fn cell(
        &self,
        cell: Cell,
        entering: &[i32],
        first: u32,
        rows: &[u8],
    ) -> Result<Option<Recomputed>, SpotError> {
        let model = self.layer(cell.layer)?;
        let same = |what, expected, got| {
            if expected == got { Ok(()) } else { Err(SpotError::Length { what, expected, got }) }
        };
        let (width, row) = (self.shape.width, self.kv_row_bytes());
        same("entering row", width, entering.len())?;
        let before = cell.position.saturating_sub(first) as usize;
        same("keys and values", before * row, rows.len())?;
        if entering.contains(&i32::MIN) || !rows.chunks_exact(row).all(|row| self.can_be(row)) {
            return Ok(None);
        }
        let mut runner = Runner::new(Arc::clone(&model), 1, KernelPath::best())?;
        let mut kv = Kv::new(&model, cell.position as usize + 1);
        kv.skip(first.min(cell.position) as usize);
        kv.extend(rows);
        let leaving = runner.cell(&mut kv, entering)?;
        let at = cell.position as usize;
        let page = kv.kv_rows(at / PAGE, 0, at % PAGE + 1);
        Ok(Some(Recomputed { kv_row: page[page.len() - row..].to_vec(), leaving }))
    }

    /// Bytes of a layer's keys and values at one position.
    #[must_use]
    pub fn kv_row_bytes(&self) -> usize {
        self.shape.kv_heads * (self.shape.head_dims + 1) * 4
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
    ///
    /// # Errors
    /// The embedding can't be used, or has no such token.
    pub fn embedding(&self, token: u32) -> Result<Vec<i32>, SpotError> {
        let transformer = Arc::clone(self.ends()?.transformer());
        let mut runner = Runner::new(Arc::clone(&transformer), 1, KernelPath::best())?;
        let mut kv = Kv::new(&transformer, 1);
        let (items, mut row) = ([Item { sequence: 0, token, logits: false }], Vec::new());
        // Without layers, the embedding is the state.
        runner.forward(&mut [&mut kv], &items, &mut |_, output| row = output.state.to_vec())?;
        Ok(row)
    }

    /// What is drawn from the state at a position, by an offer's rules and the answer so far.
    ///
    /// # Errors
    /// The head can't be used, or the offer isn't one for this model.
    pub fn head(
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
        let same = self.shape.width == state.len();
        if !same {
            let (expected, got) = (self.shape.width, state.len());
            return Err(SpotError::Length { what: "state", expected, got });
        }
        let mut runner = Runner::new(Arc::clone(model.transformer()), 2, KernelPath::best())?;
        let logits = runner.head(state);
        let layers = Digest::from_bytes([0; 32]);
        let (last, read) = match answer.split_last() {
            Some((last, before)) => (*last, before),
            None => (prompt.last().copied().unwrap_or_default(), answer),
        };
        draws.follow_answer(read);
        let position = prompt.len() + answer.len() - 1;
        let output = Output { state, layers, entered: &[], logits: Some(&logits) };
        let Step { drawn, .. } = draws.step(position, last, &output);
        // The last position of prompt and answer so far always draws.
        drawn.ok_or(SpotError::Length { what: "prompt", expected: 1, got: 0 })
    }
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
