//! The shape of the tree: it follows from the length alone.
//!
//! A subtree over more than one group splits at the largest power of two of
//! groups below its size, which is BLAKE3's own rule in units of groups. A
//! group, a power of two of chunks, is therefore a subtree itself.

use std::ops::Range;

use super::RangeError;

/// The longest string that is opened, in bytes.
pub const MAX_LENGTH: u64 = 1 << 60;

/// The smallest piece that is opened: 2ᵍ chunks of 1 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u8);

impl Group {
    /// Single chunks.
    pub const KIB_1: Group = Group(0);
    /// What model files are opened in: their tree is 0.2 % of the file, and the
    /// hash of a group fills the widest vector units.
    pub const KIB_16: Group = Group(4);
    /// The largest `g`: groups of 1 MiB.
    pub const MAX_LOG2: u8 = 10;

    /// Groups of 2ᵍ chunks; `None` for `g` above [`Group::MAX_LOG2`].
    pub fn from_log2(g: u8) -> Option<Group> {
        (g <= Self::MAX_LOG2).then_some(Group(g))
    }

    /// The `g` of 2ᵍ.
    pub fn log2(self) -> u8 {
        self.0
    }

    /// Bytes of a whole group.
    pub fn bytes(self) -> u64 {
        1024 << self.0
    }
}

/// A string's length and the groups it is opened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    length: u64,
    group: Group,
}

impl Shape {
    /// The shape of a string of `length` bytes.
    ///
    /// # Errors
    /// The length is above [`MAX_LENGTH`].
    pub fn new(length: u64, group: Group) -> Result<Shape, RangeError> {
        if length > MAX_LENGTH {
            return Err(RangeError::Length { got: length });
        }
        Ok(Shape { length, group })
    }

    /// Bytes of the string.
    pub fn length(self) -> u64 {
        self.length
    }

    /// The groups.
    pub fn group(self) -> Group {
        self.group
    }

    /// How many groups there are; an empty string has one, without bytes.
    pub fn groups(self) -> u64 {
        self.length.div_ceil(self.group.bytes()).max(1)
    }

    /// The bytes of one group.
    ///
    /// # Errors
    /// There is no such group.
    pub fn place(self, index: u64) -> Result<Range<u64>, RangeError> {
        let expected = self.groups();
        if index >= expected {
            return Err(RangeError::Group { expected, got: index });
        }
        let start = index * self.group.bytes();
        Ok(start..self.length.min(start + self.group.bytes()))
    }

    /// The last byte's range, whose opening proves the length. Empty for an
    /// empty string.
    pub fn last(self) -> Range<u64> {
        self.length.saturating_sub(1)..self.length
    }

    /// A range widened to whole groups, cut at the string's end.
    ///
    /// # Errors
    /// The range is empty (unless the string is, and the range is all of it) or
    /// ends behind the string.
    pub fn cover(self, range: Range<u64>) -> Result<Range<u64>, RangeError> {
        let groups = self.covered(range)?;
        let bytes = self.group.bytes();
        Ok(groups.start * bytes..self.length.min(groups.end * bytes))
    }

    /// The groups a range touches.
    ///
    /// # Errors
    /// As [`Shape::cover`].
    pub fn covered(self, range: Range<u64>) -> Result<Range<u64>, RangeError> {
        let whole_of_nothing = self.length == 0 && range == (0..0);
        if (range.start >= range.end && !whole_of_nothing) || range.end > self.length {
            let (start, end) = (range.start, range.end);
            return Err(RangeError::Range { length: self.length, start, end });
        }
        let bytes = self.group.bytes();
        Ok(range.start / bytes..range.end.div_ceil(bytes).max(1))
    }

    /// How many hashes the opening of a range has.
    ///
    /// # Errors
    /// As [`Shape::cover`].
    pub fn hashes(self, range: Range<u64>) -> Result<usize, RangeError> {
        let covered = self.covered(range)?;
        let mut count = 0;
        self.beside(&covered, &mut |_, _| count += 1);
        Ok(count)
    }

    /// The groups of the subtrees whose values the opening of a range has, in its order.
    ///
    /// # Errors
    /// As [`Shape::cover`].
    pub fn subtrees_beside(self, range: Range<u64>) -> Result<Vec<Range<u64>>, RangeError> {
        let covered = self.covered(range)?;
        let mut places = Vec::new();
        self.beside(&covered, &mut |first, count| places.push(first..first + count));
        Ok(places)
    }

    /// Visits the largest subtrees without a covered group, left to right, as
    /// (first group, number of groups).
    pub(super) fn beside(self, covered: &Range<u64>, visit: &mut impl FnMut(u64, u64)) {
        beside(0, self.groups(), covered, visit);
    }
}

/// Groups in the left part of a subtree of `count` ≥ 2 groups.
pub(super) fn left(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

fn beside(first: u64, count: u64, covered: &Range<u64>, visit: &mut impl FnMut(u64, u64)) {
    if first >= covered.end || first + count <= covered.start {
        return visit(first, count);
    }
    // All covered, or one group: nothing stands beside it in here.
    if covered.start <= first && first + count <= covered.end {
        return;
    }
    let left_count = left(count);
    beside(first, left_count, covered, visit);
    beside(first + left_count, count - left_count, covered, visit);
}
