//! Byte ranges of a hashed string, each with what leads from it to the hash.
//!
//! BLAKE3 is a tree over chunks of 1 KiB, so any piece of a byte string can be
//! shown to belong to the string's hash by the chaining values of the subtrees
//! beside it (the method of the Bao design by O'Connor, with chunk groups). A
//! model id is such a hash, and so are this crate's digests of rows, in keyed
//! mode: [`Mode`] says which.
//!
//! The way of the data: the holder streams the string once through a
//! [`Builder`] and keeps the [`Tree`], or has the string in memory and calls
//! [`open_bytes`]; either makes a [`Slice`] of a range widened to whole
//! [`Group`]s. Whoever knows the hash and the length calls [`verify`]. Exactly
//! one slice is right for a range. Byte layouts: `docs/spec/proof.md`, section 12.
//!
//! What a verified slice says: these bytes stand at this place of the string
//! with this hash. What it says of the **length**: a slice with the last group
//! proves it, since the last chunk's number and length are hashed with it;
//! [`Shape::last`] is the shortest such range. Any other slice proves only that
//! a string of the claimed length has the same path to these groups: of a string
//! of 5 to 8 groups, the first group opens alike under each of those lengths.
//!
//! Absent on purpose: files and sockets. Bytes are read through a closure.
//!
//! ```
//! use peerproof_proof::ranges::{Group, Mode, Shape, open_bytes, verify};
//!
//! let file = vec![7; 100_000];
//! let root = (*blake3::hash(&file).as_bytes()).into();
//! let shape = Shape::new(file.len() as u64, Group::KIB_16)?;
//!
//! let slice = open_bytes(Mode::Plain, &file, shape.group(), 40_000..40_010)?;
//! let verified = verify(Mode::Plain, &root, shape, 40_000..40_010, &slice)?;
//! assert_eq!(verified.cover, 32_768..49_152);
//! # Ok::<(), peerproof_proof::ranges::RangeError>(())
//! ```

use std::ops::Range;

use blake3::hazmat::{self, HasherExt as _};
use peerproof_wire::Digest;

mod error;
mod narrow;
mod shape;
mod tree;

pub use error::RangeError;
pub use narrow::narrow;
pub use shape::{Group, MAX_LENGTH, Shape};
pub use tree::{Builder, Tree};

/// The most bytes that are opened at once.
pub const MAX_SLICE_BYTES: u64 = 64 << 20;

/// How the string is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// BLAKE3 as it is: a file's id.
    Plain,
    /// BLAKE3 with a key: the digests of `docs/spec/proof.md`, section 3.
    Keyed([u8; 32]),
}

impl Mode {
    fn hasher(&self) -> blake3::Hasher {
        match self {
            Mode::Plain => blake3::Hasher::new(),
            Mode::Keyed(key) => blake3::Hasher::new_keyed(key),
        }
    }

    fn merging(&self) -> hazmat::Mode<'_> {
        match self {
            Mode::Plain => hazmat::Mode::Hash,
            Mode::Keyed(key) => hazmat::Mode::KeyedHash(key),
        }
    }

    /// The value of a parent node; the topmost one is the string's hash.
    fn merge(&self, left: &Digest, right: &Digest, top: bool) -> Digest {
        let (left, right) = (left.as_bytes(), right.as_bytes());
        Digest::from_bytes(if top {
            *hazmat::merge_subtrees_root(left, right, self.merging()).as_bytes()
        } else {
            hazmat::merge_subtrees_non_root(left, right, self.merging())
        })
    }

    /// The hash of a whole string.
    pub fn hash(&self, bytes: &[u8]) -> Digest {
        Digest::from_bytes(*self.hasher().update(bytes).finalize().as_bytes())
    }

    /// The value of one group: its chaining value, or the string's hash if it is
    /// the only group. Equal values mean equal bytes.
    ///
    /// # Errors
    /// There is no such group, or it has another length.
    pub fn group_value(
        &self,
        shape: Shape,
        index: u64,
        bytes: &[u8],
    ) -> Result<Digest, RangeError> {
        let place = shape.place(index)?;
        if bytes.len() as u64 != place.end - place.start {
            let expected = place.end - place.start;
            return Err(RangeError::Bytes { expected, got: bytes.len() as u64 });
        }
        Ok(self.value(shape, place.start, bytes))
    }

    /// The value of a group that is known to have its right length.
    fn value(&self, shape: Shape, start: u64, bytes: &[u8]) -> Digest {
        if shape.groups() == 1 {
            return self.hash(bytes);
        }
        let mut hasher = self.hasher();
        hasher.set_input_offset(start).update(bytes);
        Digest::from_bytes(hasher.finalize_non_root())
    }
}

/// The value of a subtree, of the values that are known: its own, or those of subtrees that
/// make it up. `groups` are those of a subtree as [`Shape::subtrees_beside`] names them, which
/// is never the whole. `None` if too little is known.
pub fn subtree_value(
    mode: Mode,
    groups: &Range<u64>,
    known: &impl Fn(&Range<u64>) -> Option<Digest>,
) -> Option<Digest> {
    if let Some(value) = known(groups) {
        return Some(value);
    }
    let count = groups.end.checked_sub(groups.start).filter(|count| *count >= 2)?;
    let middle = groups.start + shape::left(count);
    let left = subtree_value(mode, &(groups.start..middle), known)?;
    let right = subtree_value(mode, &(middle..groups.end), known)?;
    Some(mode.merge(&left, &right, false))
}

/// An opened range: whole groups, and what leads from them to the hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The bytes of [`Shape::cover`].
    pub bytes: Vec<u8>,
    /// The values of the largest subtrees that hold no covered group, from left
    /// to right; [`Shape::hashes`] says how many.
    pub hashes: Vec<Digest>,
}

/// What a slice was found to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where the slice's bytes stand in the string.
    pub cover: Range<u64>,
    /// The value of each covered group, as [`Mode::group_value`] gives it.
    pub values: Vec<Digest>,
}

impl Verified {
    /// The bytes of a range within the cover, out of the slice that was verified.
    pub fn part<'a>(&self, slice: &'a Slice, range: Range<u64>) -> Option<&'a [u8]> {
        let from = usize::try_from(range.start.checked_sub(self.cover.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.cover.start)?).ok()?;
        slice.bytes.get(from..to)
    }
}

/// Opens a range of bytes in memory.
///
/// # Errors
/// The range is empty or not within the bytes.
pub fn open_bytes(
    mode: Mode,
    bytes: &[u8],
    group: Group,
    range: Range<u64>,
) -> Result<Slice, RangeError> {
    let mut builder = Builder::new(mode, group);
    builder.update(bytes);
    builder.finish()?.open(range, |at, buffer| {
        let place = usize::try_from(at).ok().and_then(|at| bytes.get(at..at + buffer.len()));
        let place = place.ok_or(RangeError::Changed { at })?;
        buffer.copy_from_slice(place);
        Ok(())
    })
}

/// Checks that a slice is the opening of a range of the string with this hash
/// and, as far as the module's page says, this length.
///
/// Takes no memory but one digest a covered group. The cheap checks come first:
/// range, number of bytes, number of hashes.
///
/// # Errors
/// Each says what was expected and what came. Nothing of the slice may be used.
pub fn verify(
    mode: Mode,
    root: &Digest,
    shape: Shape,
    range: Range<u64>,
    slice: &Slice,
) -> Result<Verified, RangeError> {
    let cover = shape.cover(range.clone())?;
    let got = slice.bytes.len() as u64;
    if got != cover.end - cover.start {
        return Err(RangeError::Bytes { expected: cover.end - cover.start, got });
    }
    let expected = shape.hashes(range)?;
    if slice.hashes.len() != expected {
        return Err(RangeError::Hashes { expected, got: slice.hashes.len() });
    }
    let size = usize::try_from(shape.group().bytes()).unwrap_or(usize::MAX);
    let values: Vec<Digest> = if slice.bytes.is_empty() {
        vec![mode.value(shape, 0, &[])]
    } else {
        let starts = (cover.start..).step_by(size);
        let groups = starts.zip(slice.bytes.chunks(size));
        groups.map(|(start, bytes)| mode.value(shape, start, bytes)).collect()
    };
    let first = cover.start / shape.group().bytes();
    let covered = first..first + values.len() as u64;
    let mut given = Given { mode, values: values.iter(), hashes: slice.hashes.iter(), expected };
    let got = given.fold(0, shape.groups(), &covered, true)?;
    if got != *root {
        return Err(RangeError::Root { expected: *root, got });
    }
    Ok(Verified { cover, values })
}

/// The values a slice brings, in the order of the tree.
struct Given<'a> {
    mode: Mode,
    values: std::slice::Iter<'a, Digest>,
    hashes: std::slice::Iter<'a, Digest>,
    expected: usize,
}

impl Given<'_> {
    /// The value of the subtree over `count` groups from `first` on.
    fn fold(
        &mut self,
        first: u64,
        count: u64,
        covered: &Range<u64>,
        top: bool,
    ) -> Result<Digest, RangeError> {
        // INVARIANT: the counts were compared with the shape before; running out is our mistake.
        let short = RangeError::Hashes { expected: self.expected, got: 0 };
        if first >= covered.end || first + count <= covered.start {
            return self.hashes.next().copied().ok_or(short);
        }
        if count == 1 {
            return self.values.next().copied().ok_or(short);
        }
        let left_count = shape::left(count);
        let left = self.fold(first, left_count, covered, false)?;
        let right = self.fold(first + left_count, count - left_count, covered, false)?;
        Ok(self.mode.merge(&left, &right, top))
    }
}

#[cfg(test)]
mod tests;
