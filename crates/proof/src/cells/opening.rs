//! Opening a cell, and checking that an opening is what the receipt commits to.
//!
//! The holder of the model computes the answer again, keeps what the wanted cells
//! read and gave as [`Exposed`], and [`open`]s each. Whoever has the receipt and
//! the model's sizes checks with [`verify`] that every byte leads to the signed
//! root, and gets the integers back as [`Opened`]: what the cell read, and what
//! its provider says it gave.
//!
//! Absent here: the cell's arithmetic. An opening that holds shows what was
//! committed to; that it follows from the model takes one layer's weights.

use peerproof_wire::{Cell, CellOpening, Digest, Leaf, Opening, Receipt};

use super::{KV_PAGE, kv_key, kv_layer, kv_root, layers_key};
use crate::challenge::{ChallengeError, verify_opening};
use crate::ranges::{self, Group, Mode, RangeError, Shape, Slice};
use crate::transcript::{PathError, Tree, state_digest};

/// The sizes of a model that openings follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions {
    /// Layers.
    pub layers: u32,
    /// Integers of a residual row.
    pub width: u32,
    /// Bytes of one layer's keys and values at one position.
    pub kv_row_bytes: u32,
}

/// What a recomputation keeps of one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// Which one.
    pub cell: Cell,
    /// The rows that entered all layers at its position.
    pub entered: Vec<i32>,
    /// The row that left the last layer.
    pub state: Vec<i32>,
    /// The first position whose keys and values the cell reads.
    pub first: u32,
    /// Pages of its layer's keys and values from that position's up to its own.
    pub pages: Vec<Vec<u8>>,
    /// Digest of each page of its layer.
    pub page_digests: Vec<Digest>,
}

impl Exposed {
    /// Of which nothing is known yet.
    #[must_use]
    pub fn empty(cell: Cell) -> Self {
        let (entered, state, pages, page_digests) = Default::default();
        Self { cell, entered, state, first: 0, pages, page_digests }
    }
}

/// What a recomputation keeps for opening cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Digest of each layer's keys and values.
    pub kv_layers: Vec<Digest>,
    /// The cells.
    pub exposed: Vec<Exposed>,
}

/// What was committed to of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The leaf of its position.
    pub leaf: Leaf,
    /// The row that enters the layer; empty for the head.
    pub entering: Vec<i32>,
    /// The row that leaves it; for the head, the state that it reads.
    pub leaving: Vec<i32>,
    /// Rows of keys and values of the positions before, from the first that the cell reads.
    pub before: Vec<u8>,
    /// Its own.
    pub own: Vec<u8>,
}

/// Why an opening was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// Another cell was opened than asked for.
    #[error("cell opened: expected position {}, layer {}, got position {}, layer {}",
        expected.position, expected.layer, got.position, got.layer)]
    Cell {
        /// The one asked for.
        expected: Cell,
        /// The one opened.
        got: Cell,
    },
    /// The transcript or the model has no such cell.
    #[error("cell: expected a position below {positions} and a layer up to {layers}, got position {}, layer {}",
        got.position, got.layer)]
    Absent {
        /// Positions of the answer.
        positions: u32,
        /// Layers of the model.
        layers: u32,
        /// The cell.
        got: Cell,
    },
    /// The leaf isn't one of the receipt's.
    #[error("cell's leaf: {0}")]
    Leaf(#[from] ChallengeError),
    /// The tree has no such leaf.
    #[error("cell's path: {0}")]
    Path(#[from] PathError),
    /// Rows do not lead to their digest.
    #[error("cell's {what}: {source}")]
    Range {
        /// Which ones.
        what: &'static str,
        /// Why.
        source: RangeError,
    },
    /// Something opened has another digest than was committed to.
    #[error("cell's {what}: expected {expected}, got {got}")]
    Digest {
        /// What.
        what: &'static str,
        /// As committed.
        expected: Digest,
        /// As opened.
        got: Digest,
    },
    /// Something opened has another length than the model's sizes give.
    #[error("cell's {what}: expected {expected}, got {got}")]
    Length {
        /// What.
        what: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
}

/// Opens one cell. `tree` is the closed transcript, `leaves` all of its leaves but the closing one.
///
/// # Errors
/// The exposure isn't one of this transcript.
pub fn open(
    tree: &Tree,
    leaves: &[Leaf],
    dimensions: &Dimensions,
    exposure: &Exposure,
    exposed: &Exposed,
) -> Result<CellOpening, CellError> {
    let cell = exposed.cell;
    let positions = leaves.len() as u32;
    let absent = CellError::Absent { positions, layers: dimensions.layers, got: cell };
    let leaf = leaves.get(cell.position as usize).cloned().ok_or(absent)?;
    let mut opening = CellOpening {
        cell,
        leaf,
        path: tree.open(cell.position)?,
        rows: Vec::new(),
        rows_hashes: Vec::new(),
        state: Vec::new(),
        kv_layers: Vec::new(),
        kv_pages: Vec::new(),
        pages: Vec::new(),
        last: Vec::new(),
        last_hashes: Vec::new(),
        products: Vec::new(),
    };
    if cell.layer + 1 >= dimensions.layers {
        opening.state = bytes_of(&exposed.state);
    }
    if cell.layer == dimensions.layers {
        return Ok(opening);
    }
    let range = dimensions.rows_of(cell);
    let slice = ranges::open_bytes(
        Mode::Keyed(*layers_key().as_bytes()),
        &bytes_of(&exposed.entered),
        Group::KIB_1,
        range,
    );
    let slice = slice.map_err(|source| CellError::Range { what: "rows", source })?;
    (opening.rows, opening.rows_hashes) = (slice.bytes, slice.hashes);
    opening.kv_layers.clone_from(&exposure.kv_layers);
    opening.kv_pages.clone_from(&exposed.page_digests);
    let Some((last, before)) = exposed.pages.split_last() else { return Ok(opening) };
    opening.pages = before.to_vec();
    let mode = Mode::Keyed(*kv_key().as_bytes());
    let slice = ranges::open_bytes(mode, last, Group::KIB_1, 0..dimensions.up_to(cell));
    let slice = slice.map_err(|source| CellError::Range { what: "last page", source })?;
    (opening.last, opening.last_hashes) = (slice.bytes, slice.hashes);
    Ok(opening)
}

/// Checks an opening against the receipt, and gives what was committed to.
/// `first` is the first position whose keys and values the cell reads.
///
/// # Errors
/// The opening is not the one form that leads to the receipt. Nothing is shown then.
pub fn verify(
    receipt: &Receipt,
    dimensions: &Dimensions,
    cell: Cell,
    first: u32,
    opening: &CellOpening,
) -> Result<Opened, CellError> {
    if opening.cell != cell {
        return Err(CellError::Cell { expected: cell, got: opening.cell });
    }
    let (positions, layers) = (receipt.leaves.saturating_sub(1), dimensions.layers);
    if cell.position >= positions || cell.layer > layers || first > cell.position {
        return Err(CellError::Absent { positions, layers, got: cell });
    }
    if opening.leaf.position != cell.position {
        let got = Cell { position: opening.leaf.position, ..cell };
        return Err(CellError::Cell { expected: cell, got });
    }
    let leaf = Opening { leaf: opening.leaf.clone(), path: opening.path.clone() };
    verify_opening(receipt, &leaf)?;
    let state = verify_state(receipt, dimensions, cell, opening)?;
    if cell.layer == layers {
        let (bytes, pages) = (opening.rows.len() + opening.last.len(), opening.pages.len());
        let lists = [&opening.rows_hashes, &opening.kv_layers, &opening.kv_pages];
        let digests = lists.map(Vec::len).into_iter().sum::<usize>() + opening.last_hashes.len();
        length("head's other parts", 0, bytes + pages + digests)?;
        let (entering, before, own) = Default::default();
        return Ok(Opened { leaf: leaf.leaf, entering, leaving: state, before, own });
    }
    let rows = verify_rows(dimensions, cell, opening)?;
    let width = dimensions.width as usize;
    let (entering, after) = rows.split_at(width);
    let leaving = if cell.layer + 1 == layers { state } else { after.to_vec() };
    let (before, own) = verify_kv(receipt, dimensions, cell, first, opening)?;
    Ok(Opened { leaf: leaf.leaf, entering: entering.to_vec(), leaving, before, own })
}

/// The state, where a cell has one: behind the last layer, and before the head.
fn verify_state(
    receipt: &Receipt,
    dimensions: &Dimensions,
    cell: Cell,
    opening: &CellOpening,
) -> Result<Vec<i32>, CellError> {
    if cell.layer + 1 < dimensions.layers {
        length("state", 0, opening.state.len())?;
        return Ok(Vec::new());
    }
    length("state", 4 * dimensions.width as usize, opening.state.len())?;
    let state = integers_of(&opening.state);
    same("state", opening.leaf.state, state_digest(&receipt.offer_id, &state))?;
    Ok(state)
}

/// The rows that enter and, unless the layer is the last, leave it.
fn verify_rows(
    dimensions: &Dimensions,
    cell: Cell,
    opening: &CellOpening,
) -> Result<Vec<i32>, CellError> {
    let wrong = |source| CellError::Range { what: "rows", source };
    let whole = 4 * u64::from(dimensions.width) * u64::from(dimensions.layers);
    let shape = Shape::new(whole, Group::KIB_1).map_err(wrong)?;
    let range = dimensions.rows_of(cell);
    let slice = Slice { bytes: opening.rows.clone(), hashes: opening.rows_hashes.clone() };
    let mode = Mode::Keyed(*layers_key().as_bytes());
    let verified =
        ranges::verify(mode, &opening.leaf.layers, shape, range.clone(), &slice).map_err(wrong)?;
    Ok(integers_of(verified.part(&slice, range).unwrap_or_default()))
}

/// The rows of keys and values before the cell's own, and that one.
fn verify_kv(
    receipt: &Receipt,
    dimensions: &Dimensions,
    cell: Cell,
    first: u32,
    opening: &CellOpening,
) -> Result<(Vec<u8>, Vec<u8>), CellError> {
    let positions = (receipt.leaves - 1) as usize;
    let (row, page_rows) = (dimensions.kv_row_bytes as usize, KV_PAGE);
    length("layers of keys and values", dimensions.layers as usize, opening.kv_layers.len())?;
    same("keys and values", receipt.kv_root, kv_root(&opening.kv_layers))?;
    length("pages of keys and values", positions.div_ceil(page_rows), opening.kv_pages.len())?;
    let layer = opening.kv_layers[cell.layer as usize];
    same(
        "layer's keys and values",
        layer,
        kv_layer(cell.layer, positions as u32, &opening.kv_pages),
    )?;
    let (first_page, own_page) = (first as usize / page_rows, cell.position as usize / page_rows);
    length("whole pages", own_page - first_page, opening.pages.len())?;
    let mut rows = Vec::new();
    for (at, page) in (first_page..).zip(&opening.pages) {
        length("page", page_rows * row, page.len())?;
        same("page", opening.kv_pages[at], super::kv_page(page))?;
        rows.extend_from_slice(page);
    }
    let wrong = |source| CellError::Range { what: "last page", source };
    let whole = (positions - own_page * page_rows).min(page_rows) * row;
    let shape = Shape::new(whole as u64, Group::KIB_1).map_err(wrong)?;
    let slice = Slice { bytes: opening.last.clone(), hashes: opening.last_hashes.clone() };
    let mode = Mode::Keyed(*kv_key().as_bytes());
    let range = 0..dimensions.up_to(cell);
    let verified = ranges::verify(mode, &opening.kv_pages[own_page], shape, range.clone(), &slice)
        .map_err(wrong)?;
    rows.extend_from_slice(verified.part(&slice, range).unwrap_or_default());
    let own = rows.split_off(rows.len() - row);
    Ok((rows.split_off((first as usize - first_page * page_rows) * row), own))
}

impl Dimensions {
    /// Where the entering and the leaving row stand among those of the position.
    fn rows_of(&self, cell: Cell) -> std::ops::Range<u64> {
        let bytes = 4 * u64::from(self.width);
        let end = (cell.layer + 2).min(self.layers);
        u64::from(cell.layer) * bytes..u64::from(end) * bytes
    }

    /// Bytes of the cell's page up to its own row.
    fn up_to(&self, cell: Cell) -> u64 {
        (u64::from(cell.position) % KV_PAGE as u64 + 1) * u64::from(self.kv_row_bytes)
    }
}

fn same(what: &'static str, expected: Digest, got: Digest) -> Result<(), CellError> {
    if expected == got { Ok(()) } else { Err(CellError::Digest { what, expected, got }) }
}

fn length(what: &'static str, expected: usize, got: usize) -> Result<(), CellError> {
    if expected == got { Ok(()) } else { Err(CellError::Length { what, expected, got }) }
}

fn bytes_of(row: &[i32]) -> Vec<u8> {
    row.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn integers_of(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
}
