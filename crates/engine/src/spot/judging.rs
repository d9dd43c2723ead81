//! Whether a cell follows from the model: what is compared, and in which order.
//!
//! The one definition for whoever has a layer's weights ([`Checker`]) and for
//! whoever is shown the products of its matrices (`light`): both are a [`Compute`].
//! Deliberately absent: the computation itself.

use peerproof_proof::audit::verify_case;
use peerproof_proof::cells::{self, Opened};
use peerproof_proof::{DrawnStep, sampling_seed};
use peerproof_wire::{Case, Cell, CellOpening, Difference, Mismatch, Offer, Signed};

use super::{Checker, SpotError, first_read};
use crate::constraint::ConstraintError;
use crate::draws::Draws;
use crate::execute::ReplayError;
use crate::forward::ForwardError;
use crate::kv::{Kv, PAGE};
use crate::transformer::{Shape, Transformer};

/// The largest magnitude of a key's or a value's integers.
const LARGEST: i16 = i16::MAX;
/// The least that the largest of them has, unless all are 0.
const LEAST: i16 = 1 << 14;
/// The exponent of a row of zeros.
const ZERO_EXPONENT: i16 = 127;

/// What a cell must give.
pub(crate) struct Recomputed {
    /// Its row of keys and values, as the transcript has it.
    kv_row: Vec<u8>,
    /// The row that leaves the layer.
    leaving: Vec<i32>,
}

impl Recomputed {
    /// What a pass over the last position of a cache of one layer has left.
    pub(crate) fn new(kv: &Kv, leaving: Vec<i32>) -> Self {
        let at = kv.position() - 1;
        let page = kv.kv_rows(at / PAGE, 0, at % PAGE + 1);
        let row = page.len() / (at % PAGE + 1);
        Self { kv_row: page[page.len() - row..].to_vec(), leaving }
    }

    pub(crate) fn into_rows(self) -> (Vec<u8>, Vec<i32>) {
        (self.kv_row, self.leaving)
    }
}

/// Keys and values that a cell reads.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a> {
    /// The first position whose rows they are.
    pub(crate) first: u32,
    /// Of that position and those behind it, up to the cell's.
    pub(crate) rows: &'a [u8],
}

impl Before<'_> {
    /// A cache of one layer that holds them, with room for the cell's own.
    pub(crate) fn cache(&self, model: &Transformer, position: u32) -> Kv {
        let mut kv = Kv::of_one_layer(model, position as usize + 1);
        kv.skip(self.first as usize);
        kv.extend(self.rows);
        kv
    }
}

/// Computes what cells must give.
pub(crate) trait Compute {
    /// How many positions a layer sees, if not all.
    fn window(&self, layer: u32) -> Result<Option<usize>, SpotError>;

    /// A layer at a position, from the row that enters it.
    fn cell(&self, cell: Cell, kv: Before<'_>, row: &[i32]) -> Result<Recomputed, SpotError>;

    /// The row that enters the first layer for a token of the vocabulary.
    fn embedding(&self, token: u32) -> Result<Vec<i32>, SpotError>;

    /// The logits of a state.
    fn logits(&self, state: &[i32]) -> Result<Vec<i32>, SpotError>;
}

/// The first position that a cell reads keys and values of, in a model of so many layers.
pub(crate) fn first_of(compute: &dyn Compute, layers: usize, cell: Cell) -> Result<u32, SpotError> {
    if cell.layer as usize == layers {
        return Ok(0);
    }
    Ok(first_read(cell.position, compute.window(cell.layer)?))
}

/// Judges one cell of a case by its opening: `None` if it holds, else what differs.
pub(crate) fn judge(
    checker: &Checker,
    compute: &dyn Compute,
    case: &Case,
    opening: &CellOpening,
) -> Result<Option<Mismatch>, SpotError> {
    let Case { offer, receipt, tokens } = case;
    let cell = opening.cell;
    verify_case(offer, receipt, tokens)?;
    let first = first_of(compute, checker.shape().layers, cell)?;
    let opened = cells::verify(receipt, &checker.dimensions(), cell, first, opening)?;
    let prompt = checker.text().prompt_tokens(&offer.prompt).map_err(ReplayError::from)?;
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
    let judging = Judging { checker, compute };
    if cell.layer as usize == checker.shape().layers {
        return judging.head(case, &prompt, &opened);
    }
    judging.layer(cell, first, &opened)
}

struct Judging<'a> {
    checker: &'a Checker,
    compute: &'a dyn Compute,
}

impl Judging<'_> {
    fn layer(
        &self,
        cell: Cell,
        first: u32,
        opened: &Opened,
    ) -> Result<Option<Mismatch>, SpotError> {
        let shape = self.checker.shape();
        let differs = |what, expected: &[u8], got: &[u8]| {
            let [expected, got] = [expected, got].map(|it| blake3::hash(it).as_bytes().to_vec());
            Ok(Some(Mismatch { position: cell.position, what, expected, got }))
        };
        let bytes = |row: &[i32]| -> Vec<u8> { row.iter().flat_map(|v| v.to_le_bytes()).collect() };
        if cell.layer == 0 {
            let token = opened.leaf.token;
            if token as usize >= shape.vocabulary {
                // It is of the answer, since prompts have been checked: no model draws it.
                return differs(Difference::Layers, &[], &bytes(&opened.entering));
            }
            let row = self.compute.embedding(token)?;
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
            let last = cell.layer as usize + 1 == shape.layers;
            let what = if last { Difference::State } else { Difference::Layers };
            return differs(what, &bytes(&right.leaving), &bytes(&opened.leaving));
        }
        Ok(None)
    }

    fn head(
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
        let right = self.drawn(offer, prompt, &tokens[..index], &opened.leaving)?;
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
        let (capacity, got) = (self.checker.shape().context, cell.position as usize + 1);
        if got > capacity {
            return Err(ForwardError::Full { sequence: 0, capacity, got }.into());
        }
        let row = self.checker.dimensions().kv_row_bytes as usize;
        let shape = self.checker.shape();
        let possible = before.chunks_exact(row).all(|row| can_be(shape, row));
        if entering.contains(&i32::MIN) || !possible {
            return Ok(None);
        }
        self.compute.cell(cell, Before { first, rows: before }, entering).map(Some)
    }

    /// What is drawn from the state behind prompt and answer so far, by an offer's rules.
    fn drawn(
        &self,
        offer: &Signed<Offer>,
        prompt: &[u32],
        answer: &[u32],
        state: &[i32],
    ) -> Result<DrawnStep, SpotError> {
        let model = self.checker.text();
        let masks = model.masks(&offer.sampling).map_err(ReplayError::from)?;
        let (key, seed) = (offer.id(), sampling_seed(offer));
        let end = model.first_end();
        let mut draws = Draws::new(key, seed, &offer.sampling, prompt, masks, end);
        let logits = self.compute.logits(state)?;
        let drawn = draws.drawn_after(answer, &logits);
        match draws.trouble() {
            // This machine's trouble, which the provider need not have had.
            Some(error @ ConstraintError::Broken { .. }) => Err(ReplayError::from(error).into()),
            _ => Ok(drawn),
        }
    }
}

/// Whether a row of keys and values is canonical (section 1 of the arithmetic).
pub(super) fn can_be(shape: &Shape, row: &[u8]) -> bool {
    let numbers: Vec<i16> =
        row.as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    numbers.chunks_exact(shape.head_dims + 1).all(|part| {
        let Some((exponent, values)) = part.split_last() else { return false };
        let most = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        let canonical = LEAST.unsigned_abs()..=LARGEST.unsigned_abs();
        if most == 0 { *exponent == ZERO_EXPONENT } else { canonical.contains(&most) }
    })
}

fn number(position: u32, what: Difference, expected: u32, got: u32) -> Mismatch {
    let (expected, got) = (expected.to_le_bytes(), got.to_le_bytes());
    Mismatch { position, what, expected: expected.into(), got: got.into() }
}
