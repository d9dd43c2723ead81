//! What a liar changes of a trace before it signs it, for the cheat suite.
//!
//! A lie here is the smallest there is: one number, one exponent, one index. All else is
//! as computed, so that what convicts is the operation in question and never a careless
//! forgery. Deliberately absent: lies about the layout, which no operation shows.

use super::{Traced, TracedPart};

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
