//! Products of matrices with rows, made by somebody else than the kernels.
//!
//! Everything between two products follows from them. Whoever keeps them ([`Recorder`])
//! can show a cell to somebody who has no weights; who is shown them puts them where the
//! kernels' would be (`light`). Either is a [`Products`] that a pass over one row is given.
//! Deliberately absent: whether what is given is right.

#![allow(unsafe_code, reason = "a group of a product is written by one piece")]

use std::ops::Range;

use super::sinks::Keep;
use crate::kernels::{Acts, Kernels, Sink};
use crate::pool::Shared;
use crate::weights::Matrix;

/// Makes products in the kernels' place, in the order in which a pass takes them.
pub(crate) trait Products {
    /// The product of a matrix with the first row of `acts`, with zeros up to a whole group
    /// of rows.
    fn product(&mut self, matrix: &Matrix, acts: &Acts) -> Vec<i64>;
}

/// Who makes the products of a pass over one row; `None`: the kernels.
pub(crate) type Tap<'a> = Option<&'a mut dyn Products>;

/// What the tap makes of a matrix and a row, if there is one.
pub(super) fn made(tap: &mut Tap<'_>, matrix: &Matrix, acts: &Acts) -> Option<Vec<i64>> {
    tap.as_mut().map(|products| products.product(matrix, acts))
}

/// Hands groups of a product to a sink: of one that was made, else as the kernels make it.
pub(super) fn sweep<S: Sink>(
    kernels: Kernels,
    made: &Option<Vec<i64>>,
    matrix: &Matrix,
    acts: &Acts,
    rows: Range<usize>,
    groups: Range<usize>,
    sink: &mut S,
) {
    let Some(made) = made else { return kernels.sweep(matrix, acts, rows, groups, sink) };
    for (group, values) in made.as_chunks().0.iter().enumerate() {
        if groups.contains(&group) {
            sink.take(0, group, values);
        }
    }
}

/// Makes products with the kernels and keeps them, one behind the other.
pub(crate) struct Recorder {
    kernels: Kernels,
    kept: Vec<i64>,
}

impl Recorder {
    pub(crate) fn new(kernels: Kernels) -> Self {
        Self { kernels, kept: Vec::new() }
    }

    /// All products so far, without the zeros behind each.
    pub(crate) fn into_kept(self) -> Vec<i64> {
        self.kept
    }
}

impl Products for Recorder {
    fn product(&mut self, matrix: &Matrix, acts: &Acts) -> Vec<i64> {
        let mut out = vec![0; 16 * matrix.groups()];
        let shared = Shared::new(&mut out);
        let mut sink = Keep { out: &shared, stride: 0, offset: 0 };
        self.kernels.sweep(matrix, acts, 0..1, 0..matrix.groups(), &mut sink);
        self.kept.extend_from_slice(&out[..matrix.rows()]);
        out
    }
}
