//! The rows of a trace: their numbers, their bytes, and what is signed of them.

use peerproof_proof::ranges::Mode;
use peerproof_wire::Digest;

use super::layout::Layout;
use super::operation::Context;
use crate::trace::{BLOCK, HeadTrace, LayerTrace};

/// What a trace is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A layer at a position.
    Layer,
    /// From a state to logits.
    Head,
    /// One output of a head of attention.
    Part,
}

/// Bytes of a number of each row of a layer.
const LAYER: [usize; 15] = [2, 8, 8, 8, 2, 4, 2, 8, 4, 2, 8, 8, 8, 2, 8];
/// Of a head of attention.
const PART: [usize; 3] = [4, 8, 8];

impl Kind {
    pub(super) fn of_cell(at: &Context<'_>) -> Self {
        if at.layer == at.layout.wire.layers { Self::Head } else { Self::Layer }
    }

    /// How many rows there are.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Layer => LAYER.len(),
            Self::Head => 1,
            Self::Part => PART.len(),
        }
    }

    /// Bytes of a number of a row. The head's row behind the last is the one of logits.
    pub(super) fn element(self, row: usize) -> usize {
        match self {
            Self::Layer => LAYER.get(row).copied().unwrap_or(1),
            Self::Head => {
                if row == 0 {
                    2
                } else {
                    4
                }
            }
            Self::Part => PART.get(row).copied().unwrap_or(1),
        }
    }
}

/// Bytes of a row.
pub(super) fn row_bytes(it: &Layout, kind: Kind, position: u32, row: usize) -> usize {
    let (all, kv) = (it.heads * it.dims, it.kv_heads * it.dims);
    let heads = it.heads * (it.dims + 1);
    let count = match kind {
        Kind::Head if row == 0 => it.width,
        Kind::Head => it.wire.vocabulary as usize,
        Kind::Part => {
            let reads = (position + 1).saturating_sub(it.wire.first) as usize;
            if row == 0 { reads } else { reads.div_ceil(BLOCK) }
        }
        Kind::Layer => match row {
            1 | 6 => all,
            2 | 3 => kv,
            4 | 5 => heads,
            10..=13 => it.feed,
            _ => it.width,
        },
    };
    kind.element(row) * count
}

/// How rows are hashed.
pub(super) fn mode() -> Mode {
    let key = blake3::Hasher::new().update(b"peerproof trace row v1\0").finalize();
    Mode::Keyed(*key.as_bytes())
}

/// One row, as it is signed and opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) bytes: Vec<u8>,
    pub(super) exponent: i32,
    pub(super) index: u32,
}

impl Row {
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, exponent: 0, index: 0 }
    }

    pub(super) fn digest(&self) -> Digest {
        mode().hash(&self.bytes)
    }
}

pub(super) fn shorts(row: &[i16]) -> Vec<u8> {
    row.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(super) fn words(row: &[i32]) -> Vec<u8> {
    row.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn longs(row: &[i64]) -> Vec<u8> {
    row.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A row at 16 bits. Which number is the largest is signed only where it is looked up.
pub(super) fn short(row: &crate::trace::Short, with_largest: bool) -> Row {
    let index = if with_largest { row.largest as u32 } else { 0 };
    Row { bytes: shorts(&row.values), exponent: row.exponent, index }
}

/// The rows of a layer's trace.
pub(super) fn of_layer(trace: &LayerTrace) -> Vec<Row> {
    vec![
        short(&trace.attention_input, false),
        Row::of(longs(&trace.query)),
        Row::of(longs(&trace.key)),
        Row::of(longs(&trace.value)),
        Row::of(shorts(&trace.queries)),
        Row::of(words(&trace.heads)),
        short(&trace.joined, false),
        Row::of(longs(&trace.output)),
        Row::of(words(&trace.between)),
        short(&trace.feed_input, false),
        Row::of(longs(&trace.gate)),
        Row::of(longs(&trace.up)),
        Row::of(longs(&trace.hidden)),
        short(&trace.fed, true),
        Row::of(longs(&trace.down)),
    ]
}

/// The rows of a head's.
pub(super) fn of_part(trace: &HeadTrace) -> Vec<Row> {
    let scores = Row { index: trace.largest as u32, ..Row::of(words(&trace.scores)) };
    let sums = Row {
        exponent: trace.exponent,
        index: trace.coarsest as u32,
        ..Row::of(longs(&trace.sums))
    };
    vec![scores, Row::of(longs(&trace.totals)), sums]
}
