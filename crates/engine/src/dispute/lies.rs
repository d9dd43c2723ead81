//! What a liar changes of a trace before it signs it, for the cheat suite.
//!
//! A lie here is the smallest there is: one number, one exponent, one index. All else is
//! as computed, so that what convicts is the operation in question and never a careless
//! forgery. Deliberately absent: lies about the layout, which no operation shows.

use super::{Operation, Traced, TracedPart};

impl Traced {
    /// Changes a number of a row in its lowest bit; behind the last row stands a head
    /// cell's row of logits.
    pub fn misstate(&mut self, row: usize, byte: usize) {
        let bytes = match self.rows.get_mut(row) {
            Some(row) => &mut row.bytes,
            None => &mut self.logits,
        };
        if let Some(byte) = bytes.get_mut(byte) {
            *byte ^= 1;
        }
    }

    /// The row of logits of a head cell.
    #[must_use]
    pub fn logits(&self) -> Vec<i32> {
        self.logits.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
    }

    /// Changes a row's exponent, and its index if it has one.
    pub fn misplace(&mut self, row: usize, exponent: i32, index: Option<u32>) {
        if let Some(row) = self.rows.get_mut(row) {
            row.exponent += exponent;
            row.index = index.unwrap_or(row.index);
        }
    }
}

impl TracedPart {
    /// As [`Traced::misstate`].
    pub fn misstate(&mut self, row: usize, byte: usize) {
        if let Some(byte) = self.rows.get_mut(row).and_then(|row| row.bytes.get_mut(byte)) {
            *byte ^= 1;
        }
    }

    /// As [`Traced::misplace`].
    pub fn misplace(&mut self, row: usize, exponent: i32, index: Option<u32>) {
        if let Some(row) = self.rows.get_mut(row) {
            row.exponent += exponent;
            row.index = index.unwrap_or(row.index);
        }
    }
}

/// A lie about one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie {
    /// What it is about.
    pub operation: Operation,
    /// The row of the cell's trace that is misstated, and the byte.
    row: (usize, usize),
    /// The same of the part of a head.
    part: Option<(usize, usize)>,
    /// What is said of the extreme number of a row of either, and of its exponent.
    place: Option<(usize, i32, Option<u32>)>,
}

impl Lie {
    /// Lies about every operation whose output a trace of a layer holds, in any model.
    #[must_use]
    pub fn all() -> Vec<Self> {
        use Operation as Op;
        let row =
            |operation, row, byte| Self { operation, row: (row, byte), part: None, place: None };
        // What a head gives must differ, too, or nobody would ask for its sums.
        let part = |operation, part| Self { part, ..row(operation, 5, 40) };
        let place = |operation, at, exponent, index| Self {
            place: Some((at, exponent, index)),
            ..part(operation, None)
        };
        let fed = |exponent, index| Self {
            row: (usize::MAX, 0),
            place: Some((13, exponent, index)),
            ..row(Op::Fed, 0, 0)
        };
        vec![
            row(Op::AttentionNorm, 0, 31),
            row(Op::Query, 1, 2000),
            row(Op::Key, 2, 1000),
            row(Op::Value, 3, 800),
            row(Op::QueryHead, 4, 300),
            part(Op::Score, Some((0, 8))),
            place(Op::Largest, 0, 0, Some(1)),
            place(Op::Largest, 0, 0, Some(u32::MAX)),
            part(Op::Weights, Some((1, 8))),
            place(Op::Coarsest, 2, 1, None),
            place(Op::Coarsest, 2, -1, None),
            part(Op::Sums, Some((2, 8))),
            part(Op::Blend, None),
            row(Op::Join, 6, 100),
            row(Op::Output, 7, 1234),
            row(Op::Between, 8, 56),
            row(Op::FeedNorm, 9, 7),
            row(Op::Gate, 10, 8000),
            row(Op::Up, 11, 0),
            row(Op::Hidden, 12, 4096),
            row(Op::Fed, 13, 1111),
            fed(1, None),
            fed(0, Some(u32::MAX)),
            row(Op::Down, 14, 4),
        ]
    }

    /// Tells it in the trace of a cell.
    pub fn tell(&self, traced: &mut Traced) {
        if self.row.0 < traced.rows.len() {
            traced.misstate(self.row.0, self.row.1);
        }
        if let Some((row, exponent, index)) = self.place.filter(|_| !self.operation.is_of_part()) {
            traced.misplace(row, exponent, index);
        }
    }

    /// Tells it in the part of a head, if it is about one.
    pub fn tell_of_head(&self, part: &mut TracedPart) {
        if let Some((row, byte)) = self.part {
            part.misstate(row, byte);
        }
        if let Some((row, exponent, index)) = self.place.filter(|_| self.operation.is_of_part()) {
            part.misplace(row, exponent, index);
        }
    }
}
