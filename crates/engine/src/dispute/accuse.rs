//! The accuser: from a signed trace to the operation that does not follow.
//!
//! What comes is compared with the accuser's own trace of the same cell, made of what
//! the accused committed to. Everything before the first difference is equal, so the
//! inputs of the operation that gave it are the accuser's own rows.

use std::ops::Range;

use peerproof_proof::cells::{KV_PAGE, Opened};
use peerproof_proof::ranges::{Group, Mode, RangeError, Shape, Slice, narrow, open_bytes};
use peerproof_wire::{
    CellOpening, DisputeProof, Receipt, RowChunk, RowRequest, Signed, Stretch, Trace, TracePart,
    WeightRange,
};

use super::operation::{Operation, Source};
use super::rows::Kind;
use super::traced::{chunk_range, marks};
use super::verify::Papers;
use super::{DisputeError, LOGITS, Traced, TracedPart};

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for a piece of a row.
    Row(RowRequest),
    /// Ask for the trace of one output of a head.
    Part(TracePart),
    /// Prove that an operation does not follow.
    Prove(Operation, u32),
}

/// Somebody who has recomputed a cell and found it wrong.
#[derive(Debug)]
pub struct Accuser {
    own: Traced,
    receipt: Signed<Receipt>,
    opening: CellOpening,
    opened: Opened,
    /// The row that the token enters with, where the layer is the first.
    embedding: Vec<i32>,
    trace: Option<Signed<Trace>>,
    /// Which number of the row of heads differs.
    output: u32,
    part: Option<(TracedPart, Signed<Trace>)>,
    /// Pieces that were shown.
    chunks: Vec<(Source, RowChunk)>,
}

impl Accuser {
    pub(crate) fn new(
        own: Traced,
        receipt: &Signed<Receipt>,
        opening: &CellOpening,
        opened: Opened,
        embedding: Vec<i32>,
    ) -> Self {
        Self {
            own,
            receipt: receipt.clone(),
            opening: opening.clone(),
            opened,
            embedding,
            trace: None,
            output: 0,
            part: None,
            chunks: Vec::new(),
        }
    }

    /// Takes the trace of the cell.
    ///
    /// # Errors
    /// It is another's or of something else; its layout is not the model's; or it leads to
    /// what was committed to.
    pub fn trace(&mut self, trace: Signed<Trace>) -> Result<Next, DisputeError> {
        if trace.layout != self.own.layout {
            return Err(DisputeError::Evaded("the layout that was signed is not the file's"));
        }
        if trace.cell != self.own.cell {
            return Err(DisputeError::Statement { what: "cell", of: "request" });
        }
        // Holds signer, receipt and the number of rows against what they must be.
        Papers::new(&self.receipt, &self.opening.leaf, &trace, None, (&[], &[]))?;
        let next = match self.own.logits.is_empty() {
            true => self.first_difference(&trace),
            false => self.first_difference_of_head(&trace),
        };
        self.trace = Some(trace);
        next.ok_or(DisputeError::Evaded("the trace leads to what was committed to"))
    }

    fn first_difference(&self, trace: &Trace) -> Option<Next> {
        use Operation as Op;
        let differ = |a: &[i32], b: &[i32]| a.iter().zip(b).position(|(a, b)| a != b);
        if !self.embedding.is_empty()
            && let Some(at) = differ(&self.embedding, &self.opened.entering)
        {
            return Some(Next::Prove(Op::Embedding, at as u32));
        }
        for (at, (own, signed)) in self.own.rows.iter().zip(&trace.rows).enumerate() {
            let same = own.digest() == signed.digest;
            let whole = match at {
                0 => Some(Op::AttentionNorm),
                6 => Some(Op::Join),
                9 => Some(Op::FeedNorm),
                _ => None,
            };
            if let Some(operation) = whole {
                if !same || own.exponent != signed.exponent {
                    return Some(Next::Prove(operation, 0));
                }
            } else if !same {
                return Some(self.ask(at as u32, &own.bytes));
            } else if at == 13
                && (own.exponent != signed.exponent || !self.is_largest(signed.index))
            {
                return Some(Next::Prove(Op::Fed, own.index));
            }
            if at == 4
                && let Some(next) = self.own_row()
            {
                return Some(next);
            }
        }
        let leaving = differ(&self.own.given.1, &self.opened.leaving);
        leaving.map(|at| Next::Prove(Op::Leaving, at as u32))
    }

    /// Whether no number of the gated row is larger than this one.
    fn is_largest(&self, index: u32) -> bool {
        let number = |index: u32| -> Option<u64> {
            let bytes = self.own.rows[12].bytes.get(8 * index as usize..)?.first_chunk()?;
            Some(i64::from_le_bytes(*bytes).unsigned_abs())
        };
        number(index).is_some_and(|it| Some(it) == number(self.own.rows[13].index))
    }

    /// What differs in the position's keys and values.
    fn own_row(&self) -> Option<Next> {
        let (own, committed) = (&self.own.given.0, &self.opened.own);
        let at = own.iter().zip(committed).position(|(a, b)| a != b)? / 2;
        let len = self.own.layout.head_dims as usize + 1;
        let (row, place) = (at / len, at % len);
        let operation = if row % 2 == 0 { Operation::KeyHead } else { Operation::ValueHead };
        Some(Next::Prove(operation, (row / 2 * len + place) as u32))
    }

    fn first_difference_of_head(&self, trace: &Trace) -> Option<Next> {
        let (own, signed) = (&self.own.rows[0], &trace.rows[0]);
        if own.digest() != signed.digest || own.exponent != signed.exponent {
            return Some(Next::Prove(Operation::HeadNorm, 0));
        }
        let integers: Vec<i32> =
            self.own.logits.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
        let right = peerproof_proof::logits_digest(&self.receipt.offer_id, &integers);
        let committed = self.opened.leaf.drawn.as_ref()?.logits;
        (right != committed).then(|| self.ask(LOGITS, &self.own.logits))
    }

    fn ask(&self, row: u32, own: &[u8]) -> Next {
        Next::Row(RowRequest { row, chunks: marks(own) })
    }

    /// Takes a piece of a row.
    ///
    /// # Errors
    /// It does not lead to what was signed, or does not differ.
    pub fn chunk(&mut self, chunk: RowChunk, row: u32) -> Result<Next, DisputeError> {
        let source = match (&self.part, self.own.logits.is_empty()) {
            (Some(_), _) => Source::Part(row as usize),
            (None, true) => Source::Row(row as usize),
            (None, false) => Source::Logits,
        };
        let evaded = DisputeError::Evaded("the piece of the row that was shown does not differ");
        let own = self.own_bytes(source).ok_or(DisputeError::Part)?;
        let bytes = own.len();
        if chunk.chunk as usize >= bytes.div_ceil(super::CHUNK) {
            return Err(evaded);
        }
        let range = chunk_range(chunk.chunk as usize, bytes);
        let slice = Slice { bytes: chunk.bytes.clone(), hashes: chunk.hashes.clone() };
        let got = self.papers()?.open(source, range.clone(), &slice);
        let got = got.map_err(|source| DisputeError::Stretch { at: 0, source })?;
        let own = &own[range.start as usize..range.end as usize];
        let at = own.iter().zip(&got).position(|(a, b)| a != b).ok_or(evaded)?;
        let kind = match source {
            Source::Part(_) => Kind::Part,
            Source::Logits => Kind::Head,
            _ => Kind::Layer,
        };
        let index = ((range.start as usize + at) / kind.element(row as usize)) as u32;
        self.chunks.push((source, chunk));
        self.after_chunk(source, index)
    }

    fn after_chunk(&mut self, source: Source, index: u32) -> Result<Next, DisputeError> {
        use Operation as Op;
        let operation = match source {
            Source::Logits => Op::Logit,
            Source::Part(0) => Op::Score,
            Source::Part(1) => Op::Weights,
            Source::Part(_) => Op::Sums,
            Source::Row(5) => {
                self.output = index;
                let len = self.own.layout.head_dims + 1;
                let dim = if index % len == len - 1 { 0 } else { index % len };
                return Ok(Next::Part(TracePart { head: index / len, dim }));
            }
            Source::Row(row) => match row {
                1 => Op::Query,
                2 => Op::Key,
                3 => Op::Value,
                4 => Op::QueryHead,
                7 => Op::Output,
                8 => Op::Between,
                10 => Op::Gate,
                11 => Op::Up,
                12 => Op::Hidden,
                13 => Op::Fed,
                _ => Op::Down,
            },
            _ => return Err(DisputeError::Part),
        };
        Ok(Next::Prove(operation, index))
    }

    /// Takes the trace of one output of a head.
    ///
    /// # Errors
    /// As for [`Accuser::trace`].
    pub fn part(&mut self, trace: Signed<Trace>) -> Result<Next, DisputeError> {
        use Operation as Op;
        let wrong = DisputeError::Statement { what: "part", of: "request" };
        let Some(part) = trace.part else { return Err(wrong) };
        let len = self.own.layout.head_dims + 1;
        let own = self.own.part(part).filter(|_| part.head == self.output / len);
        let Some(own) = own else { return Err(wrong) };
        let whole = self.trace.as_ref().ok_or(DisputeError::Part)?;
        Papers::new(&self.receipt, &self.opening.leaf, whole, Some(&trace), (&[], &[]))?;
        let rows: Vec<_> = own.rows.iter().zip(&trace.rows).collect();
        let [scores, totals, sums] = rows[..] else { return Err(wrong) };
        let count = scores.0.bytes.len() as u32 / 4;
        let score = |at: u32| scores.0.bytes.get(4 * at as usize..).and_then(|it| it.first_chunk());
        let score = |at: u32| score(at).map(|bytes| i32::from_le_bytes(*bytes));
        let next = if scores.0.digest() != scores.1.digest {
            self.ask(0, &scores.0.bytes)
        } else if score(scores.1.index) != score(scores.0.index) {
            Next::Prove(Op::Largest, scores.0.index)
        } else if totals.0.digest() != totals.1.digest {
            self.ask(1, &totals.0.bytes)
        } else if sums.1.index >= count || sums.1.exponent > sums.0.exponent {
            Next::Prove(Op::Coarsest, sums.0.index)
        } else if sums.1.exponent < sums.0.exponent {
            Next::Prove(Op::Coarsest, sums.1.index)
        } else if sums.0.digest() != sums.1.digest {
            self.ask(2, &sums.0.bytes)
        } else {
            Next::Prove(Op::Blend, self.output)
        };
        self.part = Some((own, trace));
        Ok(next)
    }

    /// The stretches of the model's file that a proof of an operation takes.
    ///
    /// # Errors
    /// There is no trace yet, or no such operation in this cell.
    pub fn file_ranges(
        &self,
        operation: Operation,
        index: u32,
    ) -> Result<Vec<Range<u64>>, DisputeError> {
        let papers = self.papers_of(operation)?;
        let needs = operation.needs(&papers.context(operation)?, index as usize)?;
        let file = needs.into_iter().filter(|need| need.0 == Source::File);
        Ok(file.map(|need| need.1).collect())
    }

    /// Makes the proof. `weights` are [`Accuser::file_ranges`], in groups of 16 KiB.
    ///
    /// # Errors
    /// Something is missing or does not lead where it should, or the operation holds.
    pub fn prove(
        &self,
        operation: Operation,
        index: u32,
        weights: &[WeightRange],
    ) -> Result<DisputeProof, DisputeError> {
        let proof = self.assemble(operation, index, weights)?;
        super::verify(&proof)?;
        Ok(proof)
    }

    /// All that a proof of an operation would hold, whether or not it proves anything.
    ///
    /// # Errors
    /// Something is missing or does not lead where it should.
    pub fn assemble(
        &self,
        operation: Operation,
        index: u32,
        weights: &[WeightRange],
    ) -> Result<DisputeProof, DisputeError> {
        let papers = self.papers_of(operation)?;
        let needs = operation.needs(&papers.context(operation)?, index as usize)?;
        let (mut weights, mut stretches) = (weights.iter(), Vec::new());
        let mut reads_pages = false;
        for (at, (source, range)) in needs.into_iter().enumerate() {
            let wrong = |source| DisputeError::Stretch { at, source };
            reads_pages |= matches!(source, Source::Page(_));
            let weight = if source == Source::File { weights.next() } else { None };
            let slice = self.supply(&papers, source, range, weight).map_err(wrong)?;
            stretches.push(Stretch { bytes: slice.bytes, hashes: slice.hashes });
        }
        let Self { receipt, opening, trace, part, .. } = self;
        let trace = trace.clone().ok_or(DisputeError::Part)?;
        let part = part.as_ref().filter(|_| operation.is_of_part()).map(|it| it.1.clone());
        let kv = |digests: &Vec<_>| if reads_pages { digests.clone() } else { Vec::new() };
        let proof = DisputeProof {
            receipt: receipt.clone(),
            leaf: opening.leaf.clone(),
            path: opening.path.clone(),
            trace,
            part,
            operation: operation as u32,
            index,
            kv_layers: kv(&opening.kv_layers),
            kv_pages: kv(&opening.kv_pages),
            stretches,
        };
        Ok(proof)
    }

    fn papers(&self) -> Result<Papers<'_>, DisputeError> {
        let trace = self.trace.as_ref().ok_or(DisputeError::Part)?;
        let kv = (&self.opening.kv_layers[..], &self.opening.kv_pages[..]);
        let part = self.part.as_ref().map(|part| &part.1);
        Papers::new(&self.receipt, &self.opening.leaf, trace, part, kv)
    }

    fn papers_of(&self, operation: Operation) -> Result<Papers<'_>, DisputeError> {
        if operation.is_of_part() {
            return self.papers();
        }
        let trace = self.trace.as_ref().ok_or(DisputeError::Part)?;
        let kv = (&self.opening.kv_layers[..], &self.opening.kv_pages[..]);
        Papers::new(&self.receipt, &self.opening.leaf, trace, None, kv)
    }

    fn own_bytes(&self, source: Source) -> Option<&[u8]> {
        match source {
            Source::Row(row) => self.own.rows.get(row).map(|row| &row.bytes[..]),
            Source::Part(row) => self.part.as_ref()?.0.rows.get(row).map(|row| &row.bytes[..]),
            Source::Logits => Some(&self.own.logits),
            _ => None,
        }
    }

    /// Opens a stretch out of what is at hand.
    fn supply(
        &self,
        papers: &Papers<'_>,
        source: Source,
        range: Range<u64>,
        weight: Option<&WeightRange>,
    ) -> Result<Slice, RangeError> {
        let outside = || RangeError::Range { length: 0, start: range.start, end: range.end };
        let (mode, _, length) = papers.place(source).ok_or_else(outside)?;
        let shape = Shape::new(length, Group::KIB_1)?;
        let opening = &self.opening;
        let within = |bytes: &[u8], hashes: &[_], wide: Range<u64>| {
            let slice = Slice { bytes: bytes.to_vec(), hashes: hashes.to_vec() };
            narrow(mode, (shape, wide, &slice), Group::KIB_1, range.clone())
        };
        if let Some((_, chunk)) = self.chunks.iter().find(|(shown, _)| *shown == source) {
            let wide = chunk_range(chunk.chunk as usize, length as usize);
            return within(&chunk.bytes, &chunk.hashes, wide);
        }
        match source {
            Source::Row(_) | Source::Part(_) | Source::Logits => {
                let bytes = self.own_bytes(source).ok_or_else(outside)?;
                open_bytes(mode, bytes, Group::KIB_1, range)
            }
            Source::Rows => {
                let bytes = 4 * u64::from(self.own.layout.width);
                let layer = u64::from(opening.cell.layer);
                let end = (layer + 2).min(self.own.layout.layers.into());
                within(&opening.rows, &opening.rows_hashes, layer * bytes..end * bytes)
            }
            Source::State => open_bytes(mode, &opening.state, Group::KIB_1, range),
            Source::Page(page) => {
                let first = self.own.layout.first as usize / KV_PAGE;
                match page.checked_sub(first).and_then(|at| opening.pages.get(at)) {
                    Some(page) => open_bytes(mode, page, Group::KIB_1, range),
                    None => {
                        let row = 4 * self.own.layout.kv_heads * (self.own.layout.head_dims + 1);
                        let rows = u64::from(opening.cell.position) % KV_PAGE as u64 + 1;
                        let wide = 0..rows * u64::from(row);
                        within(&opening.last, &opening.last_hashes, wide)
                    }
                }
            }
            Source::File => {
                let weight = weight.ok_or_else(outside)?;
                let wide = weight.start..weight.start + weight.length;
                let coarse = Shape::new(weight.slice.file_bytes, Group::KIB_16)?;
                let slice = Slice {
                    bytes: weight.slice.bytes.clone(),
                    hashes: weight.slice.hashes.clone(),
                };
                narrow(Mode::Plain, (coarse, wide, &slice), Group::KIB_1, range)
            }
        }
    }
}
