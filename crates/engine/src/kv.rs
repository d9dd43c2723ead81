//! The keys and values of one sequence.
//!
//! Sixteen-bit integers with an exponent per layer, head and position, laid out
//! as attention reads them (see `kernels/attend`). Memory is reserved for the
//! whole capacity but touched only as positions are written.

#![deny(clippy::float_arithmetic)]

use crate::transformer::{Shape, Transformer};

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
    pub(crate) keys: Vec<i16>,
    pub(crate) values: Vec<i16>,
    pub(crate) key_exponents: Vec<i16>,
    pub(crate) value_exponents: Vec<i16>,
    /// Positions there is room for, a multiple of 16.
    padded: usize,
    capacity: usize,
    position: usize,
    dims: usize,
    heads: usize,
    layers: usize,
}

impl Kv {
    /// A cache for up to `capacity` positions, at most the model's context.
    #[must_use]
    pub fn new(model: &Transformer, capacity: usize) -> Self {
        let Shape { layers, kv_heads: heads, head_dims: dims, .. } = *model.shape();
        let capacity = capacity.min(model.context_length());
        let padded = capacity.next_multiple_of(16);
        let rows = layers * heads * padded;
        Self {
            keys: vec![0; rows * dims],
            values: vec![0; rows * dims],
            key_exponents: vec![0; rows],
            value_exponents: vec![0; rows],
            padded,
            capacity,
            position: 0,
            dims,
            heads,
            layers,
        }
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
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.position += count;
    }

    /// Whether it was made for a model of this shape.
    pub(crate) fn fits(&self, shape: &Shape) -> bool {
        (self.layers, self.heads, self.dims) == (shape.layers, shape.kv_heads, shape.head_dims)
    }

    /// Where one head of one layer begins, in positions.
    pub(crate) fn head_start(&self, layer: usize, head: usize) -> usize {
        (layer * self.heads + head) * self.padded
    }

    pub(crate) fn dims(&self) -> usize {
        self.dims
    }

    /// Positions a head has room for.
    pub(crate) fn padded(&self) -> usize {
        self.padded
    }

    /// The key row of a position and its exponent, for inspection.
    #[must_use]
    pub fn key(&self, layer: usize, head: usize, position: usize) -> (Vec<i16>, i16) {
        let start = self.head_start(layer, head);
        let at = |d: usize| start * self.dims + key_offset(self.dims, position, d);
        let row = (0..self.dims).map(|d| self.keys[at(d)]).collect();
        (row, self.key_exponents[start + position])
    }

    /// The value row of a position and its exponent, for inspection.
    #[must_use]
    pub fn value(&self, layer: usize, head: usize, position: usize) -> (Vec<i16>, i16) {
        let start = self.head_start(layer, head);
        let at = |d: usize| start * self.dims + value_offset(self.dims, position, d);
        let row = (0..self.dims).map(|d| self.values[at(d)]).collect();
        (row, self.value_exponents[start + position])
    }
}

/// Where dimension `d` of a position's key lies within its head.
#[inline(always)]
pub(crate) fn key_offset(dims: usize, position: usize, d: usize) -> usize {
    position / 16 * 16 * dims + d / 2 * 32 + position % 16 * 2 + d % 2
}

/// Where dimension `d` of a position's value lies within its head.
#[inline(always)]
pub(crate) fn value_offset(dims: usize, position: usize, d: usize) -> usize {
    position / 2 * 2 * dims + d * 2 + position % 2
}
