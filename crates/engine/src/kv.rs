//! The keys and values of one sequence, in pages.
//!
//! Sixteen-bit integers with an exponent per layer, head and position. A page
//! holds `PAGE` positions of all layers, each head as attention reads it (see
//! `kernels/attend`), and may hold the positions' states, from which digests are
//! made again. Beside them stand what the transcript commits to of the page: the
//! digest of each position's rows between layers and, once the page is full, of
//! each layer's keys and values. Pages are allocated as positions are written and given back when
//! they are cut off. A page that is full may be shared, read-only, by sequences
//! that begin with the same tokens. Deliberately absent: budgets, and finding
//! pages to share (`service/pages`).

#![deny(clippy::float_arithmetic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use peerproof_proof::cells::{KV_PAGE, kv_layer, kv_page, kv_root};
use peerproof_wire::Digest;

use crate::transformer::{Shape, Transformer};

/// Positions of a page, a multiple of 16.
pub(crate) const PAGE: usize = KV_PAGE;

/// The sizes a page follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    layers: usize,
    heads: usize,
    dims: usize,
    width: usize,
}

impl Layout {
    fn new(shape: &Shape) -> Self {
        let Shape { layers, kv_heads: heads, head_dims: dims, width, .. } = *shape;
        Self { layers, heads, dims, width }
    }

    /// Integers of one layer of a page.
    fn layer(&self) -> usize {
        self.heads * head_len(self.dims)
    }
}

/// Integers of one head of one layer of a page: keys, values, and an exponent
/// for each row of both.
#[inline(always)]
pub(crate) const fn head_len(dims: usize) -> usize {
    PAGE * (2 * dims + 2)
}

/// The bytes of a page that holds states.
pub(crate) fn page_bytes(shape: &Shape) -> usize {
    bare_page_bytes(shape) + 4 * PAGE * shape.width
}

/// The bytes of a page without states.
fn bare_page_bytes(shape: &Shape) -> usize {
    let layout = Layout::new(shape);
    let digests = size_of::<Digest>() * (PAGE + layout.layers);
    2 * layout.layers * layout.layer() + digests
}

/// The bytes of the pages of so many positions, without states.
pub(crate) fn bare_bytes(shape: &Shape, positions: usize) -> usize {
    positions.div_ceil(PAGE) * bare_page_bytes(shape)
}

/// The bytes of the pages of the longest sequence, without states.
pub(crate) fn whole_bytes(shape: &Shape) -> usize {
    bare_bytes(shape, shape.context)
}

/// Bytes of pages that are alive: counted where a page is made and dropped, by
/// the page itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<AtomicUsize>);

impl Tally {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Keys, values and states of [`PAGE`] positions.
#[derive(Debug)]
pub(crate) struct Page {
    rows: Vec<i16>,
    /// A row a position; empty where nobody asked for states.
    states: Vec<i32>,
    /// Of the rows that enter the layers, a digest a position.
    layers: Vec<Digest>,
    /// Of the keys and values, a digest a layer; empty until the page is full.
    kv: Vec<Digest>,
    tally: Tally,
}

impl Page {
    fn new(layout: &Layout, keeps_states: bool, tally: &Tally) -> Self {
        let states = if keeps_states { PAGE * layout.width } else { 0 };
        Self {
            rows: vec![0; layout.layers * layout.layer()],
            states: vec![0; states],
            layers: vec![Digest::from_bytes([0; 32]); PAGE],
            kv: Vec::with_capacity(layout.layers),
            tally: tally.clone(),
        }
        .counted()
    }

    /// What stands in a slot whose page is being moved.
    fn none(tally: &Tally) -> Self {
        let (rows, states, layers, kv) = Default::default();
        Self { rows, states, layers, kv, tally: tally.clone() }
    }

    fn counted(self) -> Self {
        self.tally.0.fetch_add(self.bytes(), Ordering::AcqRel);
        self
    }

    fn bytes(&self) -> usize {
        let digests = self.layers.len() + self.kv.capacity();
        size_of_val(&self.rows[..]) + size_of_val(&self.states[..]) + digests * size_of::<Digest>()
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        let mut kv = Vec::with_capacity(self.kv.capacity());
        kv.extend_from_slice(&self.kv);
        Self {
            rows: self.rows.clone(),
            states: self.states.clone(),
            layers: self.layers.clone(),
            kv,
            tally: self.tally.clone(),
        }
        .counted()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.tally.0.fetch_sub(self.bytes(), Ordering::AcqRel);
    }
}

#[derive(Debug)]
enum Slot {
    /// Written by this sequence alone.
    Own(Page),
    /// Full, and read by whoever has it.
    Common(Arc<Page>),
}

impl Slot {
    fn page(&self) -> &Page {
        match self {
            Self::Own(page) => page,
            Self::Common(page) => page,
        }
    }
}

/// One sequence's cache.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use peerproof_engine::{gguf::Gguf, kv::Kv, transformer::{Transformer, LoadOptions}};
/// let model = Transformer::load(&Gguf::open("model.gguf")?, &LoadOptions::default())?;
/// let kv = Kv::new(&model, 512);
/// assert_eq!(kv.position(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Kv {
    slots: Vec<Slot>,
    layout: Layout,
    keeps_states: bool,
    capacity: usize,
    position: usize,
    tally: Tally,
}

impl Kv {
    /// A cache for up to `capacity` positions, at most the model's context.
    #[must_use]
    pub fn new(model: &Transformer, capacity: usize) -> Self {
        Self {
            slots: Vec::new(),
            layout: Layout::new(model.shape()),
            keeps_states: false,
            capacity: capacity.min(model.context_length()),
            position: 0,
            tally: Tally::default(),
        }
    }

    /// A cache for one of a model's layers.
    pub(crate) fn of_one_layer(model: &Transformer, capacity: usize) -> Self {
        let whole = Self::new(model, capacity);
        Self { layout: Layout { layers: 1, ..whole.layout }, ..whole }
    }

    /// A cache that keeps states beside keys and values, and whose pages are
    /// counted in `tally`.
    pub(crate) fn with_states(model: &Transformer, capacity: usize, tally: &Tally) -> Self {
        Self { keeps_states: true, tally: tally.clone(), ..Self::new(model, capacity) }
    }

    /// The position the next token takes.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// How many positions there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets positions from `position` on; does nothing if there are none.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
        self.slots.truncate(self.position.div_ceil(PAGE));
    }

    /// Pages it has.
    pub(crate) fn pages(&self) -> usize {
        self.slots.len()
    }

    /// Pages that nobody else may read.
    pub(crate) fn own_pages(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Own(_))).count()
    }

    /// Makes room to write up to position `end`. A common page that is cut in
    /// the middle is copied first.
    pub(crate) fn grow(&mut self, end: usize) {
        let at = self.position / PAGE;
        if !self.position.is_multiple_of(PAGE) && matches!(self.slots[at], Slot::Common(_)) {
            let page = self.slots[at].page().clone();
            self.slots[at] = Slot::Own(page);
        }
        if let Some(Slot::Own(page)) = self.slots.get_mut(at) {
            page.kv.clear();
        }
        while self.slots.len() < end.div_ceil(PAGE) {
            let page = Page::new(&self.layout, self.keeps_states, &self.tally);
            self.slots.push(Slot::Own(page));
        }
    }

    /// Counts the next position as written, with its state and the digest of the
    /// rows that entered its layers.
    pub(crate) fn advance(&mut self, state: &[i32], layers: Digest) {
        let at = self.position % PAGE;
        if let Slot::Own(page) = &mut self.slots[self.position / PAGE] {
            page.layers[at] = layers;
            if self.keeps_states {
                page.states[at * state.len()..][..state.len()].copy_from_slice(state);
            }
        }
        self.position += 1;
    }

    /// Full pages whose keys and values have no digest yet.
    pub(crate) fn unsealed(&self) -> impl Iterator<Item = usize> {
        let full = self.slots[..self.position / PAGE].iter().enumerate();
        full.filter(|(_, slot)| slot.page().kv.is_empty()).map(|(at, _)| at)
    }

    /// Keeps the digests of a full page's layers, made with [`Self::kv_digest`].
    pub(crate) fn seal(&mut self, at: usize, layers: &[Digest]) {
        if let Slot::Own(page) = &mut self.slots[at] {
            page.kv.extend_from_slice(layers);
        }
    }

    /// Digest of one layer's keys and values at the first `count` positions of page `at`.
    pub(crate) fn kv_digest(&self, at: usize, layer: usize, count: usize) -> Digest {
        kv_page(&self.kv_rows(at, layer, count))
    }

    /// One layer's rows of keys and values at the first `count` positions of page
    /// `at`, as the transcript has them.
    pub(crate) fn kv_rows(&self, at: usize, layer: usize, count: usize) -> Vec<u8> {
        let Layout { heads, dims, .. } = self.layout;
        let rows =
            &self.slots[at].page().rows[layer * self.layout.layer()..][..self.layout.layer()];
        let len = 4 * dims + 4;
        let mut out = vec![0; count * heads * len];
        for position in 0..count {
            for head in 0..heads {
                let from = &rows[head * head_len(dims)..][..head_len(dims)];
                let to = &mut out[(position * heads + head) * len..][..len];
                row_bytes(from, position, dims, to);
            }
        }
        out
    }

    /// Takes rows of keys and values of a model's only layer at the next positions,
    /// as [`Self::kv_rows`] gives them; whole rows that fit.
    pub(crate) fn extend(&mut self, rows: &[u8]) {
        let Layout { heads, dims, .. } = self.layout;
        let len = 2 * dims + 2;
        let numbers: Vec<i16> =
            rows.as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
        for row in numbers.chunks_exact(heads * len) {
            self.grow(self.position + 1);
            let at = self.position % PAGE;
            if let Slot::Own(page) = &mut self.slots[self.position / PAGE] {
                let parts = page.rows.chunks_exact_mut(head_len(dims));
                for (to, from) in parts.zip(row.chunks_exact(len)) {
                    let (key, value) = from.split_at(dims + 1);
                    scatter(to, at, dims, true, key);
                    scatter(to, at, dims, false, value);
                }
            }
            self.position += 1;
        }
    }

    /// Changes each key and each value of a position that this sequence alone has written.
    pub(crate) fn rewrite(
        &mut self,
        layer: usize,
        position: usize,
        change: &mut dyn FnMut(&mut [i16]),
    ) {
        let (dims, len, at) = (self.layout.dims, self.layout.layer(), position % PAGE);
        let Slot::Own(page) = &mut self.slots[position / PAGE] else { return };
        let mut row = vec![0; dims + 1];
        for head in page.rows[layer * len..][..len].chunks_exact_mut(head_len(dims)) {
            for key in [true, false] {
                gather(head, at, dims, key, &mut row);
                change(&mut row[..dims]);
                scatter(head, at, dims, key, &row);
            }
        }
    }

    /// Leaves out the next positions, which nothing will read.
    pub(crate) fn skip(&mut self, positions: usize) {
        self.grow(self.position + positions);
        self.position += positions;
    }

    /// Root over the keys and values of the first `positions` positions.
    ///
    /// Every full page of them must be sealed, as a pass leaves it.
    #[must_use]
    pub fn kv_root(&self, positions: usize) -> Digest {
        let layer = |layer: usize| {
            kv_layer(layer as u32, positions as u32, &self.page_digests(layer, positions))
        };
        kv_root(&(0..self.layout.layers).map(layer).collect::<Vec<_>>())
    }

    /// Digests of the pages of one layer's keys and values at the first `positions` positions.
    pub(crate) fn page_digests(&self, layer: usize, positions: usize) -> Vec<Digest> {
        let (full, rest) = (positions / PAGE, positions % PAGE);
        let sealed = self.slots[..full].iter().map(|slot| slot.page().kv[layer]);
        sealed.chain((rest > 0).then(|| self.kv_digest(full, layer, rest))).collect()
    }

    /// Digest of the rows that entered the layers at a position that was written.
    #[must_use]
    pub fn layers(&self, position: usize) -> Digest {
        self.slots[position / PAGE].page().layers[position % PAGE]
    }

    /// The state of a position that was written, where states are kept.
    pub(crate) fn state(&self, position: usize) -> &[i32] {
        let width = self.layout.width;
        &self.slots[position / PAGE].page().states[position % PAGE * width..][..width]
    }

    /// Takes over a full page that holds the next positions.
    pub(crate) fn adopt(&mut self, page: Arc<Page>) {
        debug_assert_eq!(self.position, PAGE * self.slots.len());
        self.slots.push(Slot::Common(page));
        self.position += PAGE;
    }

    /// Lets others read full page `at`: hands it out, and keeps `instead` in its
    /// place if there is an equal one.
    pub(crate) fn share(&mut self, at: usize, instead: Option<Arc<Page>>) -> Arc<Page> {
        let slot = &mut self.slots[at];
        let empty = Slot::Own(Page::none(&self.tally));
        let page = match (instead, std::mem::replace(slot, empty)) {
            (Some(page), _) | (None, Slot::Common(page)) => page,
            (None, Slot::Own(page)) => Arc::new(page),
        };
        *slot = Slot::Common(Arc::clone(&page));
        page
    }

    /// Whether it was made for a model of this shape.
    pub(crate) fn fits(&self, shape: &Shape) -> bool {
        self.layout == Layout::new(shape)
    }

    pub(crate) fn dims(&self) -> usize {
        self.layout.dims
    }

    /// One layer of every page, for reading.
    pub(crate) fn layer(&self, layer: usize) -> impl Iterator<Item = &[i16]> {
        let len = self.layout.layer();
        self.slots.iter().map(move |slot| &slot.page().rows[layer * len..][..len])
    }

    /// One layer of the pages that are still written, and which is the first.
    pub(crate) fn layer_to_write(
        &mut self,
        layer: usize,
    ) -> (usize, impl Iterator<Item = &mut [i16]>) {
        let (len, first) = (self.layout.layer(), self.position / PAGE);
        let slots = self.slots.iter_mut().skip(first);
        let pages = slots.map(move |slot| match slot {
            Slot::Own(page) => &mut page.rows[layer * len..][..len],
            // `grow` has left no common page where anything is to be written.
            Slot::Common(_) => &mut [],
        });
        (first, pages)
    }

    /// The key row of a position and its exponent, for inspection.
    #[must_use]
    pub fn key(&self, layer: usize, head: usize, position: usize) -> (Vec<i16>, i16) {
        self.row(layer, head, position, true)
    }

    /// The value row of a position and its exponent, for inspection.
    #[must_use]
    pub fn value(&self, layer: usize, head: usize, position: usize) -> (Vec<i16>, i16) {
        self.row(layer, head, position, false)
    }

    fn row(&self, layer: usize, head: usize, position: usize, key: bool) -> (Vec<i16>, i16) {
        let dims = self.layout.dims;
        let rows = &self.slots[position / PAGE].page().rows;
        let rows = &rows[layer * self.layout.layer() + head * head_len(dims)..][..head_len(dims)];
        let mut row = vec![0; dims + 1];
        gather(rows, position % PAGE, dims, key, &mut row);
        let exponent = row.pop().unwrap_or_default();
        (row, exponent)
    }
}

/// Copies a position's key and value with their exponents, as bytes, out of a head's
/// part of a page: [`gather`] of both, in the steps in which they lie.
fn row_bytes(from: &[i16], position: usize, dims: usize, to: &mut [u8]) {
    let (key, value) = to.split_at_mut(2 * dims + 2);
    let (start, exponent) = row_places(dims, position, true);
    let block = &from[start + key_offset(dims, position, 0)..];
    let (pairs, own) = key.split_at_mut(2 * dims);
    for (to, pair) in pairs.chunks_mut(4).zip(block.chunks(32)) {
        for (to, value) in to.chunks_exact_mut(2).zip(pair) {
            to.copy_from_slice(&value.to_le_bytes());
        }
    }
    own.copy_from_slice(&from[exponent].to_le_bytes());
    let (start, exponent) = row_places(dims, position, false);
    let block = &from[start + value_offset(dims, position, 0)..];
    let (values, own) = value.split_at_mut(2 * dims);
    for (to, value) in values.as_chunks_mut().0.iter_mut().zip(block.iter().step_by(2)) {
        *to = value.to_le_bytes();
    }
    own.copy_from_slice(&from[exponent].to_le_bytes());
}

/// Copies a position's key or value and its exponent out of a head's part of a page.
fn gather(from: &[i16], position: usize, dims: usize, key: bool, to: &mut [i16]) {
    let (start, exponent) = row_places(dims, position, key);
    let offset = if key { key_offset } else { value_offset };
    for (d, value) in to[..dims].iter_mut().enumerate() {
        *value = from[start + offset(dims, position, d)];
    }
    to[dims] = from[exponent];
}

/// Puts a position's key or value and its exponent into a head's part of a page.
fn scatter(to: &mut [i16], position: usize, dims: usize, key: bool, from: &[i16]) {
    let (start, exponent) = row_places(dims, position, key);
    let offset = if key { key_offset } else { value_offset };
    for (d, value) in from[..dims].iter().enumerate() {
        to[start + offset(dims, position, d)] = *value;
    }
    to[exponent] = from[dims];
}

/// Where a head's keys or values begin in its part of a page, and where a
/// position's exponent lies.
#[inline(always)]
pub(crate) fn row_places(dims: usize, position: usize, key: bool) -> (usize, usize) {
    let at = position % PAGE;
    let exponents = 2 * PAGE * dims;
    if key { (0, exponents + at) } else { (PAGE * dims, exponents + PAGE + at) }
}

/// Where dimension `d` of a page's position lies within its head's keys.
#[inline(always)]
pub(crate) fn key_offset(dims: usize, position: usize, d: usize) -> usize {
    position / 16 * 16 * dims + d / 2 * 32 + position % 16 * 2 + d % 2
}

/// Where dimension `d` of a page's position lies within its head's values.
#[inline(always)]
pub(crate) fn value_offset(dims: usize, position: usize, d: usize) -> usize {
    position / 2 * 2 * dims + d * 2 + position % 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_out_as_its_parts_are() {
        for dims in [16, 48, 64, 80, 256] {
            let page: Vec<i16> = (0..head_len(dims)).map(|at| (at * 7919) as i16).collect();
            for position in 0..PAGE {
                let mut parts = vec![0; 2 * dims + 2];
                let (key, value) = parts.split_at_mut(dims + 1);
                gather(&page, position, dims, true, key);
                gather(&page, position, dims, false, value);
                let mut bytes = vec![0; 4 * dims + 4];
                row_bytes(&page, position, dims, &mut bytes);
                let expected: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
                assert_eq!(bytes, expected, "{dims} {position}");
            }
        }
    }
}
