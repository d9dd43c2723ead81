//! A smaller opening out of a larger one.
//!
//! Whoever was sent a slice holds its bytes and the values beside them, which is all
//! that the slice of any range within takes, in smaller groups too: values of what is
//! left out follow from the bytes.

use std::ops::Range;

use peerproof_wire::Digest;

use super::{Group, Mode, RangeError, Shape, Slice, shape};

/// The opening of a range within the cover of one that was verified, in groups as large
/// or smaller. `wide` is the shape, the range and the slice that were given to
/// [`verify`](super::verify).
///
/// # Errors
/// The range is not within the cover, or the slice was not verified for this.
pub fn narrow(
    mode: Mode,
    wide: (Shape, Range<u64>, &Slice),
    group: Group,
    range: Range<u64>,
) -> Result<Slice, RangeError> {
    let (shape, wide_range, slice) = wide;
    let cover = shape.cover(wide_range)?;
    let fine = Shape::new(shape.length(), group)?;
    let inner = fine.cover(range.clone())?;
    let place = |at: u64| usize::try_from(at.checked_sub(cover.start)?).ok();
    let bytes = place(inner.start).zip(place(inner.end));
    let bytes = bytes.and_then(|(from, to)| slice.bytes.get(from..to));
    let outside = RangeError::Range { length: cover.end, start: inner.start, end: inner.end };
    let bytes = bytes.filter(|_| group.log2() <= shape.group().log2()).ok_or(outside)?.to_vec();
    let mut walk = Walk {
        mode,
        fine,
        known: &slice.bytes,
        cover,
        beside: slice.hashes.iter(),
        wanted: fine.covered(range)?,
        hashes: Vec::new(),
    };
    let expected = slice.hashes.len();
    walk.value(0, fine.groups(), true).ok_or(RangeError::Hashes { expected, got: 0 })?;
    Ok(Slice { bytes, hashes: walk.hashes })
}

/// One pass over the tree, left to right.
struct Walk<'a> {
    mode: Mode,
    fine: Shape,
    known: &'a [u8],
    cover: Range<u64>,
    beside: std::slice::Iter<'a, Digest>,
    wanted: Range<u64>,
    hashes: Vec<Digest>,
}

impl Walk<'_> {
    /// The value of the subtree over `count` fine groups; kept if it is one of the largest
    /// without a wanted group, which `keep` says of those it is part of.
    fn value(&mut self, first: u64, count: u64, keep: bool) -> Option<Digest> {
        let size = self.fine.group().bytes();
        let (start, end) = (first * size, ((first + count) * size).min(self.fine.length()));
        let beside = first >= self.wanted.end || first + count <= self.wanted.start;
        let value = if start >= self.cover.end || end <= self.cover.start {
            self.beside.next().copied()?
        } else if count == 1 {
            let from = usize::try_from(start.checked_sub(self.cover.start)?).ok()?;
            let bytes = self.known.get(from..from + (end - start) as usize)?;
            self.mode.value(self.fine, start, bytes)
        } else {
            let left = shape::left(count);
            let inner = keep && !beside;
            let one = self.value(first, left, inner)?;
            let other = self.value(first + left, count - left, inner)?;
            self.mode.merge(&one, &other, false)
        };
        if keep && beside {
            self.hashes.push(value);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{open_bytes, verify};
    use super::*;

    #[test]
    fn what_is_narrowed_is_what_is_opened() {
        for length in [1_usize, 1000, 1024, 5000, 16_384, 70_000, 131_072, 200_001] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
            for mode in [Mode::Plain, Mode::Keyed([4; 32])] {
                let end = length as u64;
                for wide in [0..end, end / 3..end / 3 + 1, end / 2..end, end - 1..end] {
                    for group in [Group::KIB_1, Group::KIB_16] {
                        compare(mode, &bytes, group, wide.clone());
                    }
                }
            }
        }
    }

    fn compare(mode: Mode, bytes: &[u8], group: Group, wide: Range<u64>) {
        let shape = Shape::new(bytes.len() as u64, group).expect("a shape");
        let slice = open_bytes(mode, bytes, group, wide.clone()).expect("a slice");
        let fine = Shape::new(bytes.len() as u64, Group::KIB_1).expect("a shape");
        for range in [wide.clone(), wide.start..wide.start + 1, wide.end - 1..wide.end] {
            let narrowed = narrow(mode, (shape, wide.clone(), &slice), Group::KIB_1, range.clone());
            let narrowed = narrowed.expect("a smaller slice");
            let opened = open_bytes(mode, bytes, Group::KIB_1, range.clone());
            assert_eq!(narrowed, opened.expect("a slice"), "{} {wide:?} {range:?}", bytes.len());
            verify(mode, &mode.hash(bytes), fine, range, &narrowed).expect("a proof");
        }
        let cover = shape.cover(wide.clone()).expect("a cover");
        if cover.end < bytes.len() as u64 {
            let beyond = cover.end..cover.end + 1;
            assert!(narrow(mode, (shape, wide, &slice), Group::KIB_1, beyond).is_err());
        }
    }
}
