//! Light audits: cells checked without weights, by the products of their matrices.
//!
//! Whoever shows a cell shows, beside what it read and gave, the product of each of its
//! matrices with its row, as wide integers. [`LightChecker`] takes each product only if a
//! secret combination of its rows is that of the matrix's rows times the row (Freivalds,
//! 1977), and computes everything between the products itself: norms, rotation, attention,
//! curve, residual, logits and choice. A wrong product passes with probability below
//! `2^-60`; who is refused has learned that one coefficient vector in `2^61` is another.
//!
//! What is needed of the model is made once, part by part, and kept as [`Sketches`]: about
//! a hundredth of its file. [`shown_products`] is the other side.
//! Deliberately absent: evidence. Others don't know the secret, so a product that was
//! refused convinces nobody; the cell is then recomputed with its weights (`spot`).

mod field;
mod hollow;
mod sketch;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use peerproof_proof::cells::{Exposed, KV_PAGE};
use peerproof_wire::{Case, Cell, CellOpening, Mismatch, ModelId};

use crate::execute::ReplayError;
use crate::forward::{ForwardError, Recorder, Runner};
use crate::gguf::GgmlType;
use crate::kernels::{KernelPath, Kernels};
use crate::kv::Kv;
use crate::model::ModelError;
use crate::spot::{Before, Checker, Compute, Parts, Recomputed, SpotError, first_of, judge};
use crate::transformer::{Shape, Transformer};

pub use self::hollow::Hollow;
pub use self::sketch::{SketchError, Sketches};

/// The embedding's tensor.
const EMBEDDING: &str = "token_embd.weight";
/// Rows of the embedding that are kept.
const MAX_ROWS: usize = 1 << 12;

/// How many products a cell of a layer has; of the head, for the layer behind the last.
#[must_use]
pub fn products_of(shape: &Shape, layer: u32) -> u64 {
    if layer as usize >= shape.layers {
        return shape.vocabulary as u64;
    }
    let attention = (shape.heads + 2 * shape.kv_heads) * shape.head_dims;
    (attention + 2 * shape.feed + 2 * shape.width) as u64
}

/// The most products that a cell of this model has.
#[must_use]
pub fn most_products(shape: &Shape) -> u64 {
    products_of(shape, 0).max(products_of(shape, shape.layers as u32))
}

/// The products of a cell that was exposed, in the order of section 6 of the arithmetic:
/// what a provider shows. `before` of its pages is read, and the rows that entered.
///
/// # Errors
/// The model has no such layer, or the exposure isn't one of this model.
pub fn shown_products(model: &Arc<Transformer>, exposed: &Exposed) -> Result<Vec<i64>, SpotError> {
    let (cell, shape, path) = (exposed.cell, *model.shape(), KernelPath::best());
    let kernels = Kernels::new(path).ok_or(ForwardError::Path(path))?;
    let mut runner = Runner::of_one_row(Arc::clone(model), 1, path)?;
    let mut recorder = Recorder::new(kernels);
    if cell.layer as usize == shape.layers {
        runner.head(&exposed.state, &mut Some(&mut recorder));
        return Ok(recorder.into_kept());
    }
    let layer = cell.layer as usize;
    let entering = exposed.entered.chunks_exact(shape.width).nth(layer);
    let entering = entering.ok_or(SpotError::Layer { expected: shape.layers, got: cell.layer })?;
    let row = crate::spot::dimensions(&shape).kv_row_bytes as usize;
    let mut kv = Kv::of_one_layer(model, cell.position as usize + 1);
    let page = exposed.first as usize / KV_PAGE * KV_PAGE;
    kv.skip(page);
    for rows in &exposed.pages {
        let room = cell.position as usize - kv.position();
        kv.extend(&rows[..rows.len().min(room * row)]);
    }
    runner.cell_of(layer, &mut kv, entering, &mut Some(&mut recorder))?;
    Ok(recorder.into_kept())
}

/// A model of which nothing is kept but what light audits take.
#[derive(Debug)]
pub struct LightChecker {
    checker: Arc<Checker>,
    hollow: Hollow,
    table: Table,
    /// Rows that enter the first layer, of tokens that were asked for.
    rows: Mutex<HashMap<u32, Vec<i32>>>,
}

impl LightChecker {
    /// Begins to make what light audits of a model take. `secret` is 32 bytes that nobody
    /// else has or can guess.
    #[must_use]
    pub fn begin(checker: &Checker, secret: [u8; 32]) -> Sketches {
        Sketches::begin(checker.text().id(), checker.shape().layers, secret)
    }

    /// The stretches of the file that [`LightChecker::take`] reads of a part: a layer, or
    /// behind the last one embedding and head.
    ///
    /// # Errors
    /// There is no such part.
    pub fn ranges(checker: &Checker, at: u32) -> Result<Vec<Range<u64>>, SpotError> {
        let file = checker.header_file()?;
        Ok(Transformer::part_ranges(&file, checker.part(at)?)?)
    }

    /// Takes up a part of the model from these stretches, which were checked against its id.
    /// Nothing of them is kept.
    ///
    /// # Errors
    /// There is no such part, or its weights can't be used.
    pub fn take(
        checker: &Checker,
        sketches: &mut Sketches,
        at: u32,
        parts: Parts<'_>,
    ) -> Result<(), SpotError> {
        checker.part(at)?;
        sketches.take(&checker.file_with(parts)?, at)?;
        Ok(())
    }

    /// A checker with all sketches of its model.
    ///
    /// # Errors
    /// Some are missing.
    pub fn new(checker: Arc<Checker>, sketches: Sketches) -> Result<Self, SpotError> {
        let file = checker.header_file()?;
        let hollow = Hollow::new(&file, sketches)?;
        let tensor = file.tensor(EMBEDDING).map_err(ModelError::from)?;
        let Range { start, end } = file.range_of(&tensor);
        let row_bytes = (end - start) / (checker.shape().vocabulary as u64).max(1);
        let table = Table { start, row_bytes, kind: tensor.kind };
        Ok(Self { checker, hollow, table, rows: Mutex::default() })
    }

    /// As [`LightChecker::new`], from what [`Sketches::to_bytes`] gave.
    ///
    /// # Errors
    /// The header can't be used; within, the bytes can't be.
    pub fn load(
        checker: Arc<Checker>,
        bytes: &[u8],
    ) -> Result<Result<Self, SketchError>, SpotError> {
        let (file, layers) = (checker.header_file()?, checker.shape().layers);
        match Sketches::from_bytes(&file, checker.text().id(), layers, bytes)? {
            Ok(sketches) => Self::new(checker, sketches).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.hollow.sketches().model()
    }

    /// Header, tokenizer and sizes of the model.
    #[must_use]
    pub fn checker(&self) -> &Arc<Checker> {
        &self.checker
    }

    /// The most products that a cell of the model is shown with.
    #[must_use]
    pub fn most_products(&self) -> u64 {
        most_products(self.checker.shape())
    }

    /// Bytes that are kept of the model's weights.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.hollow.sketches().to_bytes().map_or(0, |bytes| bytes.len())
    }

    /// The tokens whose embeddings these cells take and that are not here, each with its
    /// stretch of the file.
    ///
    /// # Errors
    /// The offer's prompt is none for this model.
    pub fn missing_rows(
        &self,
        case: &Case,
        cells: &[Cell],
    ) -> Result<Vec<(u32, Range<u64>)>, SpotError> {
        let firsts = || cells.iter().filter(|cell| cell.layer == 0);
        if firsts().next().is_none() {
            return Ok(Vec::new());
        }
        let prompt = self.checker.text().prompt_tokens(&case.offer.prompt);
        let prompt = prompt.map_err(ReplayError::from)?;
        let token = |cell: &Cell| prompt.iter().chain(&case.tokens).nth(cell.position as usize);
        let mut tokens: Vec<u32> = firsts().filter_map(token).copied().collect();
        tokens.sort_unstable();
        tokens.dedup();
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let vocabulary = self.checker.shape().vocabulary;
        tokens.retain(|token| (*token as usize) < vocabulary && !rows.contains_key(token));
        let Table { start, row_bytes, .. } = self.table;
        let range = |token: u32| {
            let start = start + u64::from(token) * row_bytes;
            (token, start..start + row_bytes)
        };
        Ok(tokens.into_iter().map(range).collect())
    }

    /// Takes the row of a token from its stretch of the file, which was checked against the
    /// model's id.
    ///
    /// # Errors
    /// It is no row of the embedding.
    pub fn take_row(&self, token: u32, bytes: &[u8]) -> Result<(), SpotError> {
        let Table { row_bytes, kind, .. } = self.table;
        let row = self.hollow.embedding(kind, row_bytes, bytes)?;
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() >= MAX_ROWS {
            rows.clear();
        }
        rows.insert(token, row);
        Ok(())
    }

    /// Judges one cell of a case by its opening and the products in it: `None` if it follows
    /// from the model, else what differs. The rows of [`LightChecker::missing_rows`] must
    /// have been taken.
    ///
    /// # Errors
    /// As [`Checker::judge`]; and [`SpotError::Products`] if the products are not the
    /// matrices', whatever the cell is.
    pub fn judge(&self, case: &Case, opening: &CellOpening) -> Result<Option<Mismatch>, SpotError> {
        let shown = Shown { light: self, cell: opening.cell, products: &opening.products };
        judge(&self.checker, &shown, case, opening)
    }

    /// The first position that a cell reads keys and values of.
    ///
    /// # Errors
    /// There is no such layer.
    pub fn first_read(&self, cell: Cell) -> Result<u32, SpotError> {
        let shown = Shown { light: self, cell, products: &[] };
        first_of(&shown, self.checker.shape().layers, cell)
    }
}

/// Where the embedding's rows lie in the file, and how.
#[derive(Clone, Copy, Debug)]
struct Table {
    start: u64,
    row_bytes: u64,
    kind: GgmlType,
}

/// A cell's computation with products that were shown.
struct Shown<'a> {
    light: &'a LightChecker,
    cell: Cell,
    products: &'a [u8],
}

impl Compute for Shown<'_> {
    fn window(&self, layer: u32) -> Result<Option<usize>, SpotError> {
        self.light.hollow.window(layer)
    }

    fn cell(&self, cell: Cell, kv: Before<'_>, row: &[i32]) -> Result<Recomputed, SpotError> {
        self.light.hollow.cell(cell, kv, row, self.products)
    }

    fn embedding(&self, token: u32) -> Result<Vec<i32>, SpotError> {
        let rows = self.light.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.get(&token).cloned().ok_or(SpotError::NotLoaded { layer: 0 })
    }

    fn logits(&self, state: &[i32]) -> Result<Vec<i32>, SpotError> {
        self.light.hollow.logits(self.cell.position, state, self.products)
    }
}
