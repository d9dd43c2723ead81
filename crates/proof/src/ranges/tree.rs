//! The tree beside a string: the value of every group and of every parent.
//!
//! Built in one pass over the string ([`Builder`]). It is kept on disk as the
//! values of the groups alone, 32 bytes each; parents are computed when it is
//! loaded, and must lead to the string's hash.

use std::ops::Range;

use blake3::hazmat::HasherExt as _;
use peerproof_wire::Digest;

use super::{Group, MAX_SLICE_BYTES, Mode, RangeError, Shape, Slice};

/// First bytes of a stored tree.
const MAGIC: &[u8; 8] = b"PPTREE01";
/// Bytes before the values of a stored tree.
const HEADER_BYTES: usize = 8 + 1 + 1 + 8 + 32;

/// The values that openings of one string are made of.
///
/// ```
/// use peerproof_proof::ranges::{Builder, Group, Mode, RangeError};
///
/// let file = vec![1; 70_000];
/// let mut builder = Builder::new(Mode::Plain, Group::KIB_16);
/// file.chunks(1000).for_each(|piece| builder.update(piece));
/// let tree = builder.finish()?;
/// assert_eq!(tree.root().as_bytes(), blake3::hash(&file).as_bytes());
///
/// let slice = tree.open(20_000..20_001, |at, buffer| {
///     buffer.copy_from_slice(&file[at as usize..][..buffer.len()]);
///     Ok::<(), RangeError>(())
/// })?;
/// assert_eq!(slice.bytes.len(), 16_384);
/// # Ok::<(), RangeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    mode: Mode,
    shape: Shape,
    root: Digest,
    /// The groups' values, then those of pairs, and so on; the last level has
    /// one or two. A last node without a neighbour is on the next level too.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// Joins group values up to the root.
    ///
    /// # Errors
    /// Their number is not that of the shape.
    pub fn from_values(mode: Mode, shape: Shape, values: Vec<Digest>) -> Result<Tree, RangeError> {
        let got = values.len() as u64;
        if got != shape.groups() {
            return Err(RangeError::Group { expected: shape.groups(), got });
        }
        let mut levels = vec![values];
        loop {
            let (root, joined) = match levels.last().map_or(&[][..], Vec::as_slice) {
                [only] => (Some(*only), Vec::new()),
                [left, right] => (Some(mode.merge(left, right, true)), Vec::new()),
                level => (None, join(mode, level)),
            };
            match root {
                Some(root) => return Ok(Tree { mode, shape, root, levels }),
                None => levels.push(joined),
            }
        }
    }

    /// The string's hash.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The string's length and groups.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The value of each group, as [`Mode::group_value`] gives it.
    pub fn values(&self) -> &[Digest] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// Opens a range. `read` fills a buffer with the string's bytes from a place
    /// on; what it gives is compared with the tree, so a string that has changed
    /// since is noticed here and not by the other side.
    ///
    /// # Errors
    /// The range is empty, outside, or longer with its groups than
    /// [`MAX_SLICE_BYTES`]; `read` failed, or gave other bytes.
    pub fn open<E: From<RangeError>>(
        &self,
        range: Range<u64>,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Slice, E> {
        let cover = self.shape.cover(range.clone())?;
        let length = cover.end - cover.start;
        if length > MAX_SLICE_BYTES {
            return Err(RangeError::TooLong { expected: MAX_SLICE_BYTES, got: length }.into());
        }
        let covered = self.shape.covered(range)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        read(cover.start, &mut bytes)?;
        for index in covered.clone() {
            let place = self.shape.place(index)?;
            let part = (place.start - cover.start) as usize..(place.end - cover.start) as usize;
            let value = self.mode.value(self.shape, place.start, &bytes[part]);
            if self.value(index, 1) != Some(value) {
                return Err(RangeError::Changed { at: place.start }.into());
            }
        }
        let mut hashes = Vec::new();
        self.shape.beside(&covered, &mut |first, count| hashes.extend(self.value(first, count)));
        Ok(Slice { bytes, hashes })
    }

    /// The value of the subtree over `count` groups from `first` on: it stands on
    /// the level of the next power of two.
    fn value(&self, first: u64, count: u64) -> Option<Digest> {
        let level = count.next_power_of_two().trailing_zeros();
        let index = usize::try_from(first >> level).ok()?;
        self.levels.get(level as usize)?.get(index).copied()
    }

    /// The tree as it is stored: magic, mode (0 plain, 1 keyed), the groups' log₂,
    /// length as u64 little-endian, root, the groups' values. The key is not in it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.values().len() * 32);
        bytes.extend(MAGIC);
        bytes.extend([mode_byte(self.mode), self.shape.group().log2()]);
        bytes.extend(self.shape.length().to_le_bytes());
        bytes.extend(self.root.as_bytes());
        self.values().iter().for_each(|value| bytes.extend(value.as_bytes()));
        bytes
    }

    /// Loads the stored tree of a string whose hash and shape are known.
    ///
    /// # Errors
    /// A field or the number of bytes is another, or the values do not lead to
    /// the root.
    pub fn from_bytes(
        mode: Mode,
        root: &Digest,
        shape: Shape,
        bytes: &[u8],
    ) -> Result<Tree, RangeError> {
        let header: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or_else(|| stored("header bytes", HEADER_BYTES, bytes.len()))?;
        let mut expected = Vec::with_capacity(HEADER_BYTES);
        expected.extend(MAGIC);
        expected.extend([mode_byte(mode), shape.group().log2()]);
        expected.extend(shape.length().to_le_bytes());
        expected.extend(root.as_bytes());
        let fields = [("magic", 8), ("mode", 1), ("group", 1), ("length", 8), ("root", 32)];
        let mut at = 0;
        for (place, length) in fields {
            let (want, have) = (&expected[at..at + length], &header[at..at + length]);
            if want != have {
                return Err(stored(place, hex(want), hex(have)));
            }
            at += length;
        }
        let values = &bytes[HEADER_BYTES..];
        let length = shape.groups().saturating_mul(32);
        if values.len() as u64 != length {
            return Err(stored("bytes of values", length, values.len()));
        }
        let (values, _) = values.as_chunks::<32>();
        let values = values.iter().map(|value| Digest::from_bytes(*value)).collect();
        let tree = Self::from_values(mode, shape, values)?;
        if tree.root != *root {
            return Err(RangeError::Root { expected: *root, got: tree.root });
        }
        Ok(tree)
    }
}

fn join(mode: Mode, level: &[Digest]) -> Vec<Digest> {
    let (pairs, odd) = level.as_chunks::<2>();
    let joined = pairs.iter().map(|[left, right]| mode.merge(left, right, false));
    joined.chain(odd.iter().copied()).collect()
}

fn mode_byte(mode: Mode) -> u8 {
    match mode {
        Mode::Plain => 0,
        Mode::Keyed(_) => 1,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stored(place: &'static str, expected: impl ToString, got: impl ToString) -> RangeError {
    RangeError::Stored { place, expected: expected.to_string(), got: got.to_string() }
}

/// Makes a [`Tree`] of a string that comes in pieces of any size. Keeps 32 bytes
/// a group.
#[derive(Debug)]
pub struct Builder {
    mode: Mode,
    group: Group,
    values: Vec<Digest>,
    /// The group in the making; it is closed when the next one begins.
    current: blake3::Hasher,
    length: u64,
}

impl Builder {
    /// A builder that has read nothing.
    pub fn new(mode: Mode, group: Group) -> Builder {
        Builder { mode, group, values: Vec::new(), current: mode.hasher(), length: 0 }
    }

    /// Reads on.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let start = self.values.len() as u64 * self.group.bytes();
            let room = start + self.group.bytes() - self.length;
            if room == 0 {
                self.values.push(Digest::from_bytes(self.current.finalize_non_root()));
                self.current = self.mode.hasher();
                self.current.set_input_offset(self.length);
                continue;
            }
            let take = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            self.current.update(&bytes[..take]);
            self.length += take as u64;
            bytes = &bytes[take..];
        }
    }

    /// The tree over what was read.
    ///
    /// # Errors
    /// The string is longer than [`super::MAX_LENGTH`].
    pub fn finish(mut self) -> Result<Tree, RangeError> {
        let shape = Shape::new(self.length, self.group)?;
        self.values.push(Digest::from_bytes(if self.values.is_empty() {
            *self.current.finalize().as_bytes()
        } else {
            self.current.finalize_non_root()
        }));
        Tree::from_values(self.mode, shape, self.values)
    }
}
