//! One layer of one sequence's cache, as the pieces of a phase share it.
//!
//! A phase that writes gives each position to one piece; a phase that reads
//! lends whole heads. Deliberately absent: what stands in the cache.

#![allow(unsafe_code, reason = "pieces of a phase write to disjoint parts of shared slices")]

use crate::kernels::Cache;
use crate::kv::{Kv, key_offset, value_offset};
use crate::pool::Shared;

/// One layer of one sequence's cache, shared by the pieces of a phase.
pub(super) struct Lanes<'a> {
    keys: Shared<'a, i16>,
    values: Shared<'a, i16>,
    key_exponents: Shared<'a, i16>,
    value_exponents: Shared<'a, i16>,
    padded: usize,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(kv: &'a mut Kv, layer: usize) -> Self {
        let (start, padded) = (kv.head_start(layer, 0), kv.padded());
        let len = kv.head_start(layer + 1, 0) - start;
        let dims = kv.dims();
        Self {
            keys: Shared::new(&mut kv.keys[start * dims..][..len * dims]),
            values: Shared::new(&mut kv.values[start * dims..][..len * dims]),
            key_exponents: Shared::new(&mut kv.key_exponents[start..][..len]),
            value_exponents: Shared::new(&mut kv.value_exponents[start..][..len]),
            padded,
        }
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
        let (rows, exponents) = if key {
            (&self.keys, &self.key_exponents)
        } else {
            (&self.values, &self.value_exponents)
        };
        let dims = row.len();
        let start = head * self.padded;
        for (d, &value) in row.iter().enumerate() {
            let offset =
                if key { key_offset(dims, position, d) } else { value_offset(dims, position, d) };
            // SAFETY: a position belongs to one row of the chunk, so to one piece.
            unsafe { rows.part(start * dims + offset, 1)[0] = value };
        }
        // SAFETY: as above.
        unsafe { exponents.part(start + position, 1)[0] = exponent as i16 };
    }

    /// A head's positions from `first` up to `len`, for reading.
    pub(super) fn cache(&self, head: usize, dims: usize, first: usize, len: usize) -> Cache<'_> {
        let (start, rows) = (head * self.padded, len.next_multiple_of(16));
        // SAFETY: nothing writes to the cache in a phase that reads it.
        unsafe {
            Cache {
                keys: self.keys.part(start * dims, rows * dims),
                values: self.values.part(start * dims, rows * dims),
                key_exponents: self.key_exponents.part(start, rows),
                value_exponents: self.value_exponents.part(start, rows),
                first,
                len,
            }
        }
    }
}
