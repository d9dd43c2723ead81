//! One layer of one sequence's cache, as the pieces of a phase share it.
//!
//! A phase that writes gives each position to one piece ([`Lanes`]); a phase
//! that reads has every page of the layer at hand ([`View`]). Deliberately
//! absent: what stands in the cache.

#![allow(unsafe_code, reason = "pieces of a phase write to disjoint parts of shared slices")]

use crate::kernels::Cache;
use crate::kv::{Kv, PAGE, head_len, key_offset, row_places, value_offset};
use crate::pool::Shared;

/// One layer of the pages of a cache that are being written.
pub(super) struct Lanes<'a> {
    pages: Vec<Shared<'a, i16>>,
    /// Index of the first of them.
    first: usize,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(kv: &'a mut Kv, layer: usize) -> Self {
        let (first, pages) = kv.layer_to_write(layer);
        Self { pages: pages.map(Shared::new).collect(), first }
    }

    /// Writes the key or value row of a position.
    pub(super) fn write(
        &self,
        key: bool,
        head: usize,
        position: usize,
        row: &[i16],
        exponent: i32,
    ) {
        let (dims, at) = (row.len(), position % PAGE);
        let page = &self.pages[position / PAGE - self.first];
        let head = head * head_len(dims);
        let (start, exponent_at) = row_places(dims, position, key);
        for (d, &value) in row.iter().enumerate() {
            let offset = if key { key_offset(dims, at, d) } else { value_offset(dims, at, d) };
            // SAFETY: a position belongs to one row of the chunk, so to one piece.
            unsafe { page.part(head + start + offset, 1)[0] = value };
        }
        // SAFETY: as above.
        unsafe { page.part(head + exponent_at, 1)[0] = exponent as i16 };
    }
}

/// One layer of all pages of a cache, for reading.
pub(super) struct View<'a> {
    pages: Vec<&'a [i16]>,
    dims: usize,
}

impl<'a> View<'a> {
    pub(super) fn new(kv: &'a Kv, layer: usize) -> Self {
        Self { pages: kv.layer(layer).collect(), dims: kv.dims() }
    }

    /// A head's positions from `first` up to `len`.
    pub(super) fn cache(&self, head: usize, first: usize, len: usize) -> Cache<'_> {
        Cache { pages: &self.pages, head, dims: self.dims, first, len }
    }
}
