//! A cell computed in full, by either side: what the accused signs, and what the accuser
//! compares it with.

use std::ops::Range;
use std::sync::Arc;

use peerproof_proof::cells::{Exposed, KV_PAGE};
use peerproof_proof::logits_key;
use peerproof_proof::ranges::{Group, Mode, open_bytes};
use peerproof_wire::{Cell, Digest, RowChunk, RowRequest, Trace, TraceLayout, TracePart, TraceRow};

use super::layout;
use super::rows::{self, Row};
use super::{CHUNK, DisputeError, LOGITS};
use crate::kernels::Kernels;
use crate::trace::{self, HeadTrace, LayerTrace, steps};
use crate::transformer::Transformer;

/// A cell, traced.
#[derive(Clone, Debug)]
pub struct Traced {
    pub(super) cell: Cell,
    pub(super) layout: TraceLayout,
    pub(super) rows: Vec<Row>,
    /// What a head's trace is made of; none for a head cell.
    layer: Option<Box<Layer>>,
    /// Of a head cell.
    pub(super) logits: Vec<u8>,
    /// The row of keys and values, or empty, and the row that leaves.
    pub(super) given: (Vec<u8>, Vec<i32>),
}

/// A layer's model, its trace, and the keys and values before the cell's own.
type Layer = (Arc<Transformer>, LayerTrace, Vec<u8>);

/// The sums behind one output of a head, traced.
#[derive(Clone, Debug)]
pub struct TracedPart {
    pub(super) part: TracePart,
    pub(super) rows: Vec<Row>,
}

impl Traced {
    /// Traces a layer: `model` holds it at index `at`, and `ends` the embedding if the layer is
    /// the first. `before` are the rows of keys and values that it reads, but its own.
    ///
    /// # Errors
    /// The rows are none that the arithmetic makes, or the model has no such position.
    pub fn layer(
        (model, at): (&Arc<Transformer>, usize),
        ends: Option<&Transformer>,
        cell: Cell,
        entering: &[i32],
        before: &[u8],
    ) -> Result<Self, DisputeError> {
        let layout = layout::write(model, at, cell, ends);
        let shape = model.shape();
        let row = 4 * shape.kv_heads * (shape.head_dims + 1);
        let reads = (cell.position - layout.first) as usize;
        if entering.len() != shape.width
            || before.len() != reads * row
            || entering.contains(&i32::MIN)
        {
            return Err(DisputeError::Bounds);
        }
        let trace = LayerTrace::of(model, at, cell.position as usize, entering, before)?;
        Ok(Self {
            cell,
            layout,
            rows: rows::of_layer(&trace),
            logits: Vec::new(),
            given: (rows::shorts(&trace.own), trace.leaving.clone()),
            layer: Some(Box::new((Arc::clone(model), trace, before.to_vec()))),
        })
    }

    /// Traces a head cell: from a state to logits. `model` holds the ends.
    ///
    /// # Errors
    /// The state is none that the arithmetic makes.
    pub fn head(model: &Transformer, cell: Cell, state: &[i32]) -> Result<Self, DisputeError> {
        if state.len() != model.shape().width || state.contains(&i32::MIN) {
            return Err(DisputeError::Bounds);
        }
        let input = steps::norm(state, trace::gain(&model.output_norm), model.epsilon);
        let exponent = model.head().exponent() + input.exponent;
        let products = trace::product(Kernels::best(), model.head(), &input);
        let logits = products.iter().map(|&v| steps::logit(v, exponent, model.logit_cap));
        let logits: Vec<i32> = logits.collect();
        Ok(Self {
            cell,
            layout: layout::write(model, 0, cell, None),
            rows: vec![rows::short(&input, false)],
            layer: None,
            logits: rows::words(&logits),
            given: (Vec::new(), state.to_vec()),
        })
    }

    /// Traces a cell that was taken out of a recomputation by the whole model.
    ///
    /// # Errors
    /// As the other two.
    pub fn exposed(model: &Arc<Transformer>, exposed: &Exposed) -> Result<Self, DisputeError> {
        let (cell, shape) = (exposed.cell, model.shape());
        if cell.layer as usize == shape.layers {
            return Self::head(model, cell, &exposed.state);
        }
        let row = 4 * shape.kv_heads * (shape.head_dims + 1);
        let all = exposed.pages.concat();
        let first = exposed.first as usize % KV_PAGE * row;
        let end = first + (cell.position - exposed.first) as usize * row;
        let at = cell.layer as usize;
        let entering = exposed.entered.get(at * shape.width..(at + 1) * shape.width);
        let (Some(before), Some(entering)) = (all.get(first..end), entering) else {
            return Err(DisputeError::Bounds);
        };
        Self::layer((model, at), Some(model), cell, entering, before)
    }

    /// The layout that its operations follow.
    #[must_use]
    pub fn layout(&self) -> &TraceLayout {
        &self.layout
    }

    /// What is signed of it.
    #[must_use]
    pub fn statement(&self, receipt_id: Digest) -> Trace {
        statement(self, receipt_id, None, &self.rows)
    }

    /// The sums behind one output of a head; `None` if the cell has no such head.
    #[must_use]
    pub fn part(&self, part: TracePart) -> Option<TracedPart> {
        let (model, trace, before) = self.layer.as_deref()?;
        let (head, dim) = (part.head as usize, part.dim as usize);
        let shape = model.shape();
        if head >= shape.heads || dim >= shape.head_dims {
            return None;
        }
        let sums = HeadTrace::of(model, trace, before, head, dim);
        Some(TracedPart { part, rows: rows::of_part(&sums) })
    }

    /// The first chunk in which a row differs from the asker's, with the chunk before it;
    /// `None` if there is none.
    #[must_use]
    pub fn chunk(&self, offer_id: &Digest, request: &RowRequest) -> Option<RowChunk> {
        if let Some(row) = self.rows.get(request.row as usize) {
            return chunk(&row.bytes, rows::mode(), &request.chunks);
        }
        let is_logits = request.row == LOGITS && !self.logits.is_empty();
        let key = logits_key(offer_id, self.layout.vocabulary.into());
        let mode = Mode::Keyed(*key.as_bytes());
        if is_logits { chunk(&self.logits, mode, &request.chunks) } else { None }
    }
}

/// The first chunk of a row that differs from the asker's, and the one before it.
fn chunk(bytes: &[u8], mode: Mode, marks: &[u8]) -> Option<RowChunk> {
    let differs = |(at, chunk): (usize, &[u8])| {
        let mark = marks.get(8 * at..8 * at + 8);
        mark != Some(&blake3::hash(chunk).as_bytes()[..8])
    };
    let chunk = bytes.chunks(CHUNK).enumerate().position(differs)?;
    let slice = open_bytes(mode, bytes, Group::KIB_1, chunk_range(chunk, bytes.len())).ok()?;
    Some(RowChunk { chunk: chunk as u32, bytes: slice.bytes, hashes: slice.hashes })
}

/// A chunk with the one before it, if there is one.
pub(super) fn chunk_range(chunk: usize, bytes: usize) -> Range<u64> {
    let end = ((chunk + 1) * CHUNK).min(bytes);
    (chunk.saturating_sub(1) * CHUNK) as u64..end as u64
}

impl TracedPart {
    /// What is signed of it.
    #[must_use]
    pub fn statement(&self, cell: &Traced, receipt_id: Digest) -> Trace {
        statement(cell, receipt_id, Some(self.part), &self.rows)
    }

    /// As [`Traced::chunk`].
    #[must_use]
    pub fn chunk(&self, request: &RowRequest) -> Option<RowChunk> {
        let row = self.rows.get(request.row as usize)?;
        chunk(&row.bytes, rows::mode(), &request.chunks)
    }
}

fn statement(cell: &Traced, receipt_id: Digest, part: Option<TracePart>, rows: &[Row]) -> Trace {
    let row =
        |row: &Row| TraceRow { digest: row.digest(), exponent: row.exponent, index: row.index };
    let rows = rows.iter().map(row).collect();
    Trace { receipt_id, cell: cell.cell, part, layout: cell.layout.clone(), rows }
}

/// What stands for the chunks of a row in a request.
pub(super) fn marks(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(CHUNK).flat_map(|chunk| blake3::hash(chunk).as_bytes()[..8].to_vec()).collect()
}
