//! How each format's integers lie in a packed matrix.
//!
//! Sixteen rows are a group, a vector lane is a row. A format is described by a
//! few numbers ([`Layout`]): how many bits of an integer lie in the low plane
//! and how many in the high one, what is subtracted from it, how many columns
//! share a scale. Packing, unpacking and every kernel read the same description,
//! so a format is added here and in [`blocks`](super::blocks) only.
//!
//! # A packed block
//! The planes come first, the low one before the high one. Column `2p` and
//! column `2p + 1` are pair `p`. In a plane of `b < 8` bits, word `k` of row `r`
//! lies at byte `4 (16 k + r)` and holds `16 / b` pairs: the even column of its
//! pair `i` at bits `b i ..`, the odd one at `16 + b i ..`. A plane of 8 bits
//! holds pair `p` of row `r` as two signed bytes at `2 (16 p + r)`. Floats are
//! integers of 20 bits in two parts: 1024 bytes of high parts, then 1024 of low
//! 10-bit parts, pair `p` of row `r` as two 16-bit integers at `4 (16 p + r)`.
//!
//! Scales follow: per stretch of columns 16 signed bytes (with minimums another
//! 16 each, after all scales; or both as nibbles of one byte), then 16 words of
//! the block's scale and, with minimums, 16 of its minimum. A word is
//! `m << 4 | s` and means `m · 2^s`.

/// How a packed matrix holds its integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// 20 bits in two parts of 10; from floats.
    Dense,
    /// 4 bits less 8, a scale per 32.
    Q4_0,
    /// 4 bits, a scale and a minimum per 32.
    Q4_1,
    /// 5 bits less 16, a scale per 32.
    Q5_0,
    /// 5 bits, a scale and a minimum per 32.
    Q5_1,
    /// 8 bits, a scale per 32.
    Q8_0,
    /// 4 bits that choose one of 16 integers, a scale per 32.
    Iq4Nl,
    /// 2 bits, a scale and a minimum per 16, both of two levels.
    Q2K,
    /// 3 bits less 4, a scale of two levels per 16.
    Q3K,
    /// 4 bits, a scale and a minimum per 32, both of two levels.
    Q4K,
    /// 5 bits, a scale and a minimum per 32, both of two levels.
    Q5K,
    /// 6 bits less 32, a scale of two levels per 16.
    Q6K,
}

/// The scales within a packed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    /// None: the integers are the weights.
    None,
    /// One for the whole block.
    One,
    /// A byte per stretch of columns (and one for its minimum) times the block's.
    Bytes,
    /// As `Bytes`, scale and minimum in the nibbles of one byte.
    Nibbles,
}

/// Where everything is in a packed block of 16 rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Columns of a block.
    pub(crate) columns: usize,
    /// Columns that share a scale.
    pub(crate) stretch: usize,
    /// Bits of an integer in the low plane.
    pub(crate) low: usize,
    /// Bits of an integer in the high plane.
    pub(crate) high: usize,
    /// What is subtracted from the unsigned integer.
    pub(crate) offset: i32,
    /// Whether the integer is looked up in [`CHOICES`].
    pub(crate) chosen: bool,
    /// Whether there are minimums.
    pub(crate) minimum: bool,
    pub(crate) levels: Levels,
}

/// The integers that four bits of IQ4_NL choose from.
pub(crate) const CHOICES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Packing {
    /// Every packing, in the order of the enum.
    pub(crate) const ALL: [Self; 12] = [
        Self::Dense,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Iq4Nl,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// How its blocks are laid out.
    #[inline(always)]
    pub(crate) const fn layout(self) -> Layout {
        const PLAIN: Layout = Layout {
            columns: 32,
            stretch: 32,
            low: 4,
            high: 0,
            offset: 0,
            chosen: false,
            minimum: false,
            levels: Levels::One,
        };
        const SUPER: Layout = Layout { columns: 256, levels: Levels::Bytes, ..PLAIN };
        match self {
            Self::Dense => Layout { low: 32, levels: Levels::None, ..PLAIN },
            Self::Q4_0 => Layout { offset: 8, ..PLAIN },
            Self::Q4_1 => Layout { minimum: true, ..PLAIN },
            Self::Q5_0 => Layout { high: 1, offset: 16, ..PLAIN },
            Self::Q5_1 => Layout { high: 1, minimum: true, ..PLAIN },
            Self::Q8_0 => Layout { low: 8, ..PLAIN },
            // The integers chosen from, plus this, are unsigned bytes.
            Self::Iq4Nl => Layout { offset: 128, chosen: true, ..PLAIN },
            Self::Q2K => {
                Layout { stretch: 16, low: 2, minimum: true, levels: Levels::Nibbles, ..SUPER }
            }
            Self::Q3K => Layout { stretch: 16, low: 2, high: 1, offset: 4, ..SUPER },
            Self::Q4K => Layout { minimum: true, ..SUPER },
            Self::Q5K => Layout { high: 1, minimum: true, ..SUPER },
            Self::Q6K => Layout { stretch: 16, high: 2, offset: 32, ..SUPER },
        }
    }

    /// The largest weight of a tensor is brought below two to this power.
    #[inline(always)]
    pub(crate) const fn magnitude_bits(self) -> i32 {
        self.layout().magnitude_bits()
    }
}

// Kernels hold layouts as constants: inlined, all of these are constants as well.
impl Layout {
    /// The largest weight is brought below two to this power: a scale of two
    /// levels needs more bits, or the upper level would keep too few.
    #[inline(always)]
    pub(crate) const fn magnitude_bits(&self) -> i32 {
        if self.two_levels() { 25 } else { 19 }
    }

    #[inline(always)]
    pub(crate) const fn two_levels(&self) -> bool {
        matches!(self.levels, Levels::Bytes | Levels::Nibbles)
    }

    /// Stretches of a block.
    #[inline(always)]
    pub(crate) const fn stretches(&self) -> usize {
        self.columns / self.stretch
    }

    /// Where the high plane starts.
    #[inline(always)]
    pub(crate) const fn high_at(&self) -> usize {
        2 * self.columns * self.low
    }

    /// Where the scales of the stretches start, 16 bytes each.
    #[inline(always)]
    pub(crate) const fn stretches_at(&self) -> usize {
        self.high_at() + 2 * self.columns * self.high
    }

    /// Where the minimums of the stretches start, if they have bytes of their own.
    #[inline(always)]
    pub(crate) const fn stretch_minimums_at(&self) -> usize {
        match self.levels {
            Levels::None | Levels::One => self.stretches_at(),
            Levels::Bytes | Levels::Nibbles => self.stretches_at() + 16 * self.stretches(),
        }
    }

    /// Where the block's scales start.
    #[inline(always)]
    pub(crate) const fn scale_at(&self) -> usize {
        let separate = matches!(self.levels, Levels::Bytes) && self.minimum;
        self.stretch_minimums_at() + if separate { 16 * self.stretches() } else { 0 }
    }

    /// Where the block's minimums start, if it has them.
    #[inline(always)]
    pub(crate) const fn minimum_at(&self) -> usize {
        self.scale_at() + if matches!(self.levels, Levels::None) { 0 } else { 32 }
    }

    /// Bytes of a block.
    #[inline(always)]
    pub(crate) const fn bytes(&self) -> usize {
        self.minimum_at() + if self.minimum { 32 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_blocks_are_about_as_large_as_those_of_the_file() {
        let file = [0, 18, 20, 22, 24, 34, 18, 84, 110, 144, 176, 210].map(|bytes| 16 * bytes);
        for (at, packing) in Packing::ALL.into_iter().enumerate() {
            assert_eq!(packing as usize, at);
            let bytes = packing.layout().bytes();
            assert!(bytes.is_multiple_of(16), "{packing:?}");
            if packing != Packing::Dense {
                assert!((file[at]..=file[at] + file[at] / 20).contains(&bytes), "{packing:?}");
            }
        }
        assert_eq!(Packing::Dense.layout().bytes(), 2048);
    }
}
