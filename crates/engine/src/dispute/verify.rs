//! The referee: one operation, from a proof alone.

use std::ops::Range;

use peerproof_proof::cells::{KV_PAGE, kv_key, kv_layer, kv_root, layers_key};
use peerproof_proof::challenge::verify_opening;
use peerproof_proof::ranges::{self, Group, Mode, RangeError, Shape, Slice};
use peerproof_proof::{logits_key, state_key};
use peerproof_wire::{
    Cell, Digest, DisputeProof, Leaf, Opening, Receipt, Signed, Trace, TracePart,
};

use super::DisputeError;
use super::layout::Layout;
use super::operation::{Context, Finding, Judged, Operation, Source};
use super::rows::{self, Kind, row_bytes};

/// What a proof shows of who signed its receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The cell.
    pub cell: Cell,
    /// The operation that does not follow.
    pub operation: Operation,
    /// Which of its outputs.
    pub index: u32,
    /// What differs.
    pub finding: Finding,
}

/// Checks a proof and recomputes its operation, with nothing but the proof. The signatures
/// in it hold: it could not have been decoded otherwise.
///
/// # Errors
/// It proves nothing; each error says why.
pub fn verify(proof: &DisputeProof) -> Result<Verdict, DisputeError> {
    let papers = Papers::read(proof)?;
    let operation = Operation::of(proof.operation);
    let operation = operation.ok_or(DisputeError::Operation { got: proof.operation })?;
    let context = papers.context(operation)?;
    let index = proof.index as usize;
    let needs = operation.needs(&context, index)?;
    papers.check_kv(&needs)?;
    if needs.len() != proof.stretches.len() {
        let (expected, got) = (needs.len(), proof.stretches.len());
        return Err(DisputeError::Stretches { expected, got });
    }
    let mut bytes = Vec::with_capacity(needs.len());
    for (at, ((source, range), stretch)) in needs.into_iter().zip(&proof.stretches).enumerate() {
        let slice = Slice { bytes: stretch.bytes.clone(), hashes: stretch.hashes.clone() };
        let opened = papers.open(source, range, &slice);
        bytes.push(opened.map_err(|source| DisputeError::Stretch { at, source })?);
    }
    let finding = match operation.judge(&context, index, &bytes)? {
        Judged::One(finding) => finding,
        Judged::Row(at, row) => {
            let row = rows::short(&row, false);
            let signed = &proof.trace.rows[at];
            let tell = |digest: &Digest, exponent: i32| format!("{digest} at exponent {exponent}");
            let differs = row.digest() != signed.digest || row.exponent != signed.exponent;
            differs.then(|| Finding {
                expected: tell(&row.digest(), row.exponent),
                got: tell(&signed.digest, signed.exponent),
            })
        }
    };
    let held = DisputeError::Holds { operation: operation.name(), index: proof.index };
    let cell = proof.trace.cell;
    let finding = finding.ok_or(held)?;
    Ok(Verdict { cell, operation, index: proof.index, finding })
}

/// The statements of a proof, which belong together.
pub(super) struct Papers<'a> {
    receipt: &'a Receipt,
    leaf: &'a Leaf,
    trace: &'a Trace,
    part: Option<&'a Trace>,
    kv_layers: &'a [Digest],
    kv_pages: &'a [Digest],
    layout: Layout,
    /// Exponent and index of each row.
    rows: Vec<(i32, u32)>,
    part_rows: Vec<(i32, u32)>,
}

impl<'a> Papers<'a> {
    fn read(proof: &'a DisputeProof) -> Result<Self, DisputeError> {
        let leaf = Opening { leaf: proof.leaf.clone(), path: proof.path.clone() };
        verify_opening(&proof.receipt, &leaf)?;
        let kv = (&proof.kv_layers[..], &proof.kv_pages[..]);
        Self::new(&proof.receipt, &proof.leaf, &proof.trace, proof.part.as_ref(), kv)
    }

    /// Statements whose signatures hold. The leaf is taken on trust.
    pub(super) fn new(
        receipt: &'a Signed<Receipt>,
        leaf: &'a Leaf,
        trace: &'a Signed<Trace>,
        part: Option<&'a Signed<Trace>>,
        (kv_layers, kv_pages): (&'a [Digest], &'a [Digest]),
    ) -> Result<Self, DisputeError> {
        let layout = Layout::read(&trace.layout)?;
        let cell = trace.cell;
        if cell.layer > layout.wire.layers || layout.wire.first > cell.position {
            return Err(DisputeError::Statement { what: "cell", of: "layout" });
        }
        if cell.position != leaf.position {
            return Err(DisputeError::Statement { what: "cell", of: "leaf" });
        }
        belongs(trace, receipt)?;
        let kind = if cell.layer == layout.wire.layers { Kind::Head } else { Kind::Layer };
        let rows = marks(trace, kind)?;
        let part_rows = match part {
            None => Vec::new(),
            Some(part) => {
                belongs(part, receipt)?;
                if part.cell != cell || part.layout != trace.layout {
                    return Err(DisputeError::Statement { what: "cell", of: "trace" });
                }
                let Some(TracePart { head, dim }) = part.part else {
                    return Err(DisputeError::Part);
                };
                if head >= layout.wire.heads || dim >= layout.wire.head_dims {
                    return Err(DisputeError::Part);
                }
                marks(part, Kind::Part)?
            }
        };
        if trace.part.is_some() {
            return Err(DisputeError::Part);
        }
        let (trace, part) = (trace.statement(), part.map(Signed::statement));
        Ok(Self { receipt, leaf, trace, part, kv_layers, kv_pages, layout, rows, part_rows })
    }

    /// What an operation takes of them.
    pub(super) fn context(&self, operation: Operation) -> Result<Context<'_>, DisputeError> {
        let cell = self.trace.cell;
        let head = cell.layer == self.layout.wire.layers;
        let fits = operation.is_of_head() == head
            && (operation != Operation::Embedding || cell.layer == 0);
        if !fits {
            return Err(DisputeError::Operation { got: operation as u32 });
        }
        if operation.is_of_part() != self.part.is_some() {
            return Err(DisputeError::Part);
        }
        let part = self.part.and_then(|part| part.part);
        let part = part.map(|it| ((it.head as usize, it.dim as usize), &self.part_rows[..]));
        Ok(Context {
            layout: &self.layout,
            position: cell.position,
            layer: cell.layer,
            token: self.leaf.token,
            rows: &self.rows,
            part,
        })
    }

    /// That the pages lead to the receipt, if any is read; else there are none.
    fn check_kv(&self, needs: &[(Source, Range<u64>)]) -> Result<(), DisputeError> {
        let reads = needs.iter().any(|need| matches!(need.0, Source::Page(_)));
        let positions = self.receipt.leaves.saturating_sub(1);
        let pages = (positions as usize).div_ceil(KV_PAGE);
        let expected = if reads { (self.layout.wire.layers as usize, pages) } else { (0, 0) };
        if (self.kv_layers.len(), self.kv_pages.len()) != expected {
            let got = self.kv_layers.len() + self.kv_pages.len();
            return Err(DisputeError::Stretches { expected: expected.0 + expected.1, got });
        }
        if !reads {
            return Ok(());
        }
        let root = kv_root(self.kv_layers);
        same("keys and values", self.receipt.kv_root, root)?;
        let layer = self.trace.cell.layer;
        let committed = self.kv_layers.get(layer as usize).copied();
        let committed = committed.ok_or(DisputeError::Operation { got: layer })?;
        same("layer's keys and values", committed, kv_layer(layer, positions, self.kv_pages))
    }

    /// How a source is hashed, to what, and how many bytes it has.
    pub(super) fn place(&self, source: Source) -> Option<(Mode, Digest, u64)> {
        let (it, leaf) = (&self.layout, self.leaf);
        let keyed = |key: Digest| Mode::Keyed(*key.as_bytes());
        let width = it.width as u64;
        let position = self.trace.cell.position;
        let offer = &self.receipt.offer_id;
        Some(match source {
            Source::Rows => {
                (keyed(layers_key()), leaf.layers, 4 * width * u64::from(it.wire.layers))
            }
            Source::State => (keyed(state_key(offer, width)), leaf.state, 4 * width),
            Source::Logits => {
                let integers = u64::from(it.wire.vocabulary);
                let digest = leaf.drawn.as_ref()?.logits;
                (keyed(logits_key(offer, integers)), digest, 4 * integers)
            }
            Source::Page(page) => {
                let positions = self.receipt.leaves.saturating_sub(1) as usize;
                let rows = positions.checked_sub(page * KV_PAGE)?.min(KV_PAGE);
                (keyed(kv_key()), *self.kv_pages.get(page)?, (rows * it.kv_row()) as u64)
            }
            Source::Row(row) => {
                let head = self.trace.cell.layer == it.wire.layers;
                let kind = if head { Kind::Head } else { Kind::Layer };
                let bytes = row_bytes(it, kind, position, row);
                (rows::mode(), self.trace.rows.get(row)?.digest, bytes as u64)
            }
            Source::Part(row) => {
                let bytes = row_bytes(it, Kind::Part, position, row);
                (rows::mode(), self.part?.rows.get(row)?.digest, bytes as u64)
            }
            Source::File => {
                let id = Digest::from_bytes(*self.receipt.model_id.as_bytes());
                (Mode::Plain, id, it.wire.file_bytes)
            }
        })
    }

    /// The bytes of a stretch, which lead to their digest.
    pub(super) fn open(
        &self,
        source: Source,
        range: Range<u64>,
        slice: &Slice,
    ) -> Result<Vec<u8>, RangeError> {
        let outside = RangeError::Range { length: 0, start: range.start, end: range.end };
        let Some((mode, root, length)) = self.place(source) else { return Err(outside) };
        let shape = Shape::new(length, Group::KIB_1)?;
        let verified = ranges::verify(mode, &root, shape, range.clone(), slice)?;
        verified.part(slice, range).map(<[u8]>::to_vec).ok_or(outside)
    }
}

/// That a trace is of this receipt, by who signed it.
fn belongs(trace: &Signed<Trace>, receipt: &Signed<Receipt>) -> Result<(), DisputeError> {
    let wrong = |what| Err(DisputeError::Statement { what, of: "receipt" });
    if trace.key() != receipt.key() {
        return wrong("signer");
    }
    if trace.receipt_id != receipt.id() {
        return wrong("id");
    }
    if trace.cell.position >= receipt.leaves.saturating_sub(1) {
        return wrong("cell");
    }
    Ok(())
}

fn marks(trace: &Trace, kind: Kind) -> Result<Vec<(i32, u32)>, DisputeError> {
    let (expected, got) = (kind.rows(), trace.rows.len());
    if expected != got {
        return Err(DisputeError::Rows { expected, got });
    }
    Ok(trace.rows.iter().map(|row| (row.exponent, row.index)).collect())
}

fn same(what: &'static str, expected: Digest, got: Digest) -> Result<(), DisputeError> {
    if expected == got { Ok(()) } else { Err(DisputeError::Digest { what, expected, got }) }
}
