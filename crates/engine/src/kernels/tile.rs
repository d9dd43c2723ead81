//! The product of a matrix with rows of activations, over vectors.
//!
//! Written once for every format and instruction set: a format is the constant
//! [`Layout`] of its packing, an instruction set is an implementation of
//! [`Lanes`]. A tile is one group of sixteen weight rows times up to
//! [`MAX_TILE`] activation rows: a block is unpacked once and multiplied with
//! each of them, and all sums stay in registers. Each group is read once from
//! memory and stays in the nearest cache while all rows pass over it.
//!
//! Inner sums are 32 bits, a stretch of columns long; each is multiplied by its
//! scale into sums of 64 bits. Deliberately absent: sums across lanes.

#![allow(unsafe_code, reason = "vector instructions read through raw pointers")]
#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays of rows")]

use super::Acts;
use crate::pack::{CHOICES, Layout, Levels, Packing};

/// [`CHOICES`] and the offset of their format, as bytes.
pub(super) const CHOSEN: [u8; 16] = {
    let mut chosen = [0; 16];
    let mut at = 0;
    while at < 16 {
        chosen[at] = (CHOICES[at] as i32 + Packing::Iq4Nl.layout().offset) as u8;
        at += 1;
    }
    chosen
};

/// The most activation rows of a tile.
pub(super) const MAX_TILE: usize = 8;

/// A product of one group with some activation rows from a given one on, and
/// whether to ask for weights ahead: the first tile of a group waits for memory.
pub(super) type Tile = unsafe fn(&[u8], &Acts, usize, bool, &mut [[i64; 16]; MAX_TILE]);

/// Sixteen rows' vectors in the registers of an instruction set.
///
/// # Safety
/// Every function needs the instruction set; those with pointers read as many
/// bytes there as they say.
pub(super) trait Lanes {
    /// Sixteen 32-bit lanes.
    type Words: Copy;
    /// Sixteen 64-bit sums, in any order.
    type Sums: Copy;

    unsafe fn splat(value: i32) -> Self::Words;
    /// 64 bytes.
    unsafe fn load(from: *const u8) -> Self::Words;
    /// 32 signed bytes, as pairs of 16 bits.
    unsafe fn load_pairs(from: *const u8) -> Self::Words;
    /// 16 signed bytes.
    unsafe fn load_bytes(from: *const u8) -> Self::Words;
    /// 16 words `m << 4 | s`, as `m · 2^s`.
    unsafe fn load_scales(from: *const u8) -> Self::Words;
    /// `(words >> right) & mask`, shifting in zeros; left where negative.
    unsafe fn field(words: Self::Words, right: i32, mask: i32) -> Self::Words;
    unsafe fn or(a: Self::Words, b: Self::Words) -> Self::Words;
    unsafe fn multiply(a: Self::Words, b: Self::Words) -> Self::Words;
    /// Each pair of 4-bit numbers replaced by its choice and the offset.
    unsafe fn choose(words: Self::Words) -> Self::Words;
    /// Adds to every row's sums `pairs` times the pair of activations `at` bytes
    /// on; reads 4 bytes there.
    unsafe fn multiply_add<const T: usize>(
        sums: &mut [Self::Words; T],
        pairs: Self::Words,
        values: &[*const u8; T],
        at: usize,
    );
    unsafe fn nothing() -> Self::Sums;
    /// `sums += words · scale`, in 64 bits.
    unsafe fn add_scaled(sums: Self::Sums, words: Self::Words, scale: Self::Words) -> Self::Sums;
    unsafe fn in_order(sums: Self::Sums) -> [i64; 16];
    /// Asks for `bytes` of memory some way beyond an address.
    unsafe fn prefetch(from: *const u8, bytes: usize);
}

/// Repeats a block with a constant from 0 to 3.
macro_rules! four_times {
    (|$at:ident| $body:block) => {
        four_times!(@ $at, $body, 0 1 2 3)
    };
    (@ $at:ident, $body:block, $($value:literal)*) => {
        $({
            const $at: usize = $value;
            $body
        })*
    };
}

/// One group times activation rows `row .. row + T`.
///
/// # Safety
/// The processor has the instruction set. It must be inlined into a function
/// that is compiled for it.
#[inline(always)]
pub(super) unsafe fn tile<L: Lanes, const PACKING: usize, const T: usize>(
    blocks: &[u8],
    acts: &Acts,
    row: usize,
    ahead: bool,
    out: &mut [[i64; 16]; MAX_TILE],
) {
    let layout = const { Packing::ALL[PACKING].layout() };
    let width = acts.width;
    assert!(T <= MAX_TILE && (row + T) * width <= acts.values.len());
    assert!((row + T) * (width / 16) <= acts.sums.len());
    assert!(blocks.len() / layout.bytes() * layout.columns <= width);
    // SAFETY: rows, sums and blocks are as long as asserted; every read below
    // stays within a block as its layout describes it, and within the columns
    // that the block has.
    unsafe {
        let mut rows = Rows {
            values: std::array::from_fn(|t| acts.values.as_ptr().add((row + t) * width).cast()),
            sums: std::array::from_fn(|t| acts.sums.as_ptr().add((row + t) * (width / 16))),
            out: [L::nothing(); T],
        };
        for (at, block) in blocks.chunks_exact(layout.bytes()).enumerate() {
            let base = block.as_ptr();
            if ahead {
                L::prefetch(base, layout.bytes());
            }
            if let Levels::None = layout.levels {
                add_dense::<L, T>(base, 32 * at, &mut rows);
                continue;
            }
            let scale = L::load_scales(base.add(layout.scale_at()));
            let minimum =
                if layout.minimum { L::load_scales(base.add(layout.minimum_at())) } else { scale };
            for chunk in 0..layout.columns / 32 {
                let column = at * layout.columns + 32 * chunk;
                add_chunk::<L, PACKING, T>(base, chunk, [scale, minimum], column, &mut rows);
            }
        }
        for t in 0..T {
            out[t] = L::in_order(rows.out[t]);
        }
    }
}

/// The activation rows of a tile and what they have summed up to.
struct Rows<L: Lanes, const T: usize> {
    values: [*const u8; T],
    sums: [*const i32; T],
    out: [L::Sums; T],
}

/// Adds 32 columns of a block: one stretch or two.
#[inline(always)]
unsafe fn add_chunk<L: Lanes, const PACKING: usize, const T: usize>(
    base: *const u8,
    chunk: usize,
    block_scales: [L::Words; 2],
    column: usize,
    rows: &mut Rows<L, T>,
) {
    let layout = const { Packing::ALL[PACKING].layout() };
    let per_chunk = 32 / layout.stretch;
    for part in 0..per_chunk {
        // SAFETY: as the caller's: a chunk within the block, columns within the rows.
        unsafe {
            let mut sum = [0i32; T];
            if layout.minimum || layout.offset != 0 {
                for t in 0..T {
                    let sums = rows.sums[t].add(column / 16 + part);
                    sum[t] =
                        if per_chunk == 1 { (*sums).wrapping_add(*sums.add(1)) } else { *sums };
                }
            }
            let mut inner = [L::splat(0); T];
            if layout.offset != 0 {
                for t in 0..T {
                    inner[t] = L::splat(sum[t].wrapping_mul(-layout.offset));
                }
            }
            let values = &rows.values;
            add_eight::<L, PACKING, T>(base, chunk, 2 * part, column, values, &mut inner);
            add_eight::<L, PACKING, T>(base, chunk, 2 * part + 1, column, values, &mut inner);
            if per_chunk == 1 {
                add_eight::<L, PACKING, T>(base, chunk, 2, column, values, &mut inner);
                add_eight::<L, PACKING, T>(base, chunk, 3, column, values, &mut inner);
            }
            let [scale, minimum] =
                stretch_scales::<L>(&layout, base, chunk * per_chunk + part, block_scales);
            for t in 0..T {
                rows.out[t] = L::add_scaled(rows.out[t], inner[t], scale);
            }
            if layout.minimum {
                for t in 0..T {
                    rows.out[t] = L::add_scaled(rows.out[t], L::splat(sum[t]), minimum);
                }
            }
        }
    }
}

/// Scale and minimum of a stretch.
#[inline(always)]
unsafe fn stretch_scales<L: Lanes>(
    layout: &Layout,
    base: *const u8,
    stretch: usize,
    [scale, minimum]: [L::Words; 2],
) -> [L::Words; 2] {
    // SAFETY: the block has 16 bytes for each stretch, twice with minimums.
    unsafe {
        match layout.levels {
            Levels::None | Levels::One => [scale, minimum],
            Levels::Nibbles => {
                let both = L::load_bytes(base.add(layout.stretches_at() + 16 * stretch));
                let [low, high] = [L::field(both, 0, 15), L::field(both, 4, 15)];
                [L::multiply(scale, low), L::multiply(minimum, high)]
            }
            Levels::Bytes => {
                let s = L::load_bytes(base.add(layout.stretches_at() + 16 * stretch));
                let scale = L::multiply(scale, s);
                if layout.minimum {
                    let m = L::load_bytes(base.add(layout.stretch_minimums_at() + 16 * stretch));
                    [scale, L::multiply(minimum, m)]
                } else {
                    [scale, minimum]
                }
            }
        }
    }
}

/// Adds columns `8 · eight ..` of a chunk to the inner sums.
#[inline(always)]
unsafe fn add_eight<L: Lanes, const PACKING: usize, const T: usize>(
    base: *const u8,
    chunk: usize,
    eight: usize,
    column: usize,
    values: &[*const u8; T],
    inner: &mut [L::Words; T],
) {
    let layout = const { Packing::ALL[PACKING].layout() };
    // SAFETY: as the caller's.
    unsafe {
        four_times!(|AT| {
            let pair = 4 * eight + AT;
            let q = if layout.low == 8 {
                L::load_pairs(base.add(512 * chunk + 32 * pair))
            } else {
                let low = plane::<L>(base, layout.low, chunk, pair, 0);
                if layout.high > 0 {
                    let high = base.add(layout.high_at());
                    L::or(low, plane::<L>(high, layout.high, chunk, pair, layout.low))
                } else if layout.chosen {
                    L::choose(low)
                } else {
                    low
                }
            };
            L::multiply_add(inner, q, values, 2 * column + 4 * pair);
        });
    }
}

/// What a pair of a chunk has in a plane, `up` bits up.
#[inline(always)]
unsafe fn plane<L: Lanes>(
    plane: *const u8,
    bits: usize,
    chunk: usize,
    pair: usize,
    up: usize,
) -> L::Words {
    let (word, shift) = (pair * bits / 16, pair * bits % 16);
    let mask = ((1 << bits) - 1) << up;
    // SAFETY: a chunk has `bits` words of 64 bytes in a plane.
    unsafe {
        let words = L::load(plane.add(64 * bits * chunk + 64 * word));
        L::field(words, shift as i32 - up as i32, mask | mask << 16)
    }
}

/// Adds 32 columns of weights in two parts.
#[inline(always)]
unsafe fn add_dense<L: Lanes, const T: usize>(
    base: *const u8,
    column: usize,
    rows: &mut Rows<L, T>,
) {
    for (part, scale) in [(0, 1024), (1024, 1)] {
        // SAFETY: the block has two parts of 16 pairs; the rows have the columns.
        unsafe {
            let mut inner = [L::splat(0); T];
            for pair in 0..16 {
                let q = L::load(base.add(part + 64 * pair));
                L::multiply_add(&mut inner, q, &rows.values, 2 * column + 4 * pair);
            }
            let scale = L::splat(scale);
            for t in 0..T {
                rows.out[t] = L::add_scaled(rows.out[t], inner[t], scale);
            }
        }
    }
}

/// Defines, in a path's module, `sweep` and the tiles it calls: of as many
/// activation rows as listed, 1 being the last.
macro_rules! define_sweep {
    ($lanes:ty, $features:literal, $widths:tt) => {
        #[target_feature(enable = $features)]
        fn tile<const PACKING: usize, const T: usize>(
            blocks: &[u8],
            acts: &Acts,
            row: usize,
            ahead: bool,
            out: &mut [[i64; 16]; MAX_TILE],
        ) {
            use $crate::kernels::tile::tile;
            // SAFETY: this function is compiled for the features.
            unsafe { tile::<$lanes, PACKING, T>(blocks, acts, row, ahead, out) }
        }

        /// The tiles of a packing, each with its activation rows, the widest first.
        fn tiles(packing: Packing) -> [(usize, Tile); 4] {
            define_sweep!(@ packing, $widths, Dense Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Iq4Nl Q2K Q3K Q4K Q5K Q6K)
        }

        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn sweep<S: Sink>(
            matrix: &Matrix,
            acts: &Acts,
            rows: Range<usize>,
            groups: Range<usize>,
            sink: &mut S,
        ) {
            let tiles = tiles(matrix.packing());
            for group in groups {
                let blocks = matrix.group(group);
                let mut row = rows.start;
                while row < rows.end {
                    let left = rows.end - row;
                    let [.., narrowest] = tiles;
                    let fitting = tiles.into_iter().find(|tile| tile.0 <= left);
                    let (count, tile) = fitting.unwrap_or(narrowest);
                    let mut out = [[0i64; 16]; MAX_TILE];
                    // SAFETY: the tiles are compiled for this function's features.
                    unsafe { tile(blocks, acts, row, row == rows.start, &mut out) };
                    for (t, out) in out[..count].iter().enumerate() {
                        sink.take(row + t, group, out);
                    }
                    row += count;
                }
            }
        }
    };
    (@ $packing:expr, $widths:tt, $($name:ident)*) => {
        match $packing {
            $(Packing::$name => define_sweep!(@@ $name, $widths),)*
        }
    };
    (@@ $name:ident, [$($width:literal)*]) => {
        [$(($width, tile::<{ Packing::$name as usize }, $width>),)*]
    };
}
pub(super) use define_sweep;
