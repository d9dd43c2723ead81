//! The tree in tiles (<https://c2sp.org/tlog-tiles>): what others copy of a log.
//!
//! A tile is up to 256 neighbouring hashes of every eighth level of the tree, an
//! entry bundle up to 256 entries; each has a path, and but for the right edge
//! never changes. [`crate::Reader::resource`] hands them out. At the other end
//! [`Tiles`] takes them in and makes the same proofs as the whole tree, from the
//! few tiles that a proof needs. A tile is not believed: what follows from it is
//! compared with a signed root. Absent: HTTP, compression, pruning.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::error::ProofError;
use crate::tree::{Hash, Nodes, node_hash};

/// Hashes or entries in a full tile.
pub const TILE_WIDTH: u64 = 256;

/// The longest path of a resource.
const MAX_PATH_BYTES: usize = 64;

/// Levels of the tree in a level of tiles.
const TILE_LEVELS: u32 = 8;

/// Which tile: one of those a tree has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    // INVARIANT: 1 to 256, and the tile ends below 2^64 leaves.
    width: u16,
}

impl Tile {
    /// The tile at `index` of a level, as wide as a tree of `size` leaves has it.
    /// `None` if the tree doesn't reach it.
    pub fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        let hashes = size.checked_shr(TILE_LEVELS * u32::from(level))?;
        let first = index.checked_mul(TILE_WIDTH)?;
        let width = hashes.checked_sub(first).filter(|&left| left > 0)?.min(TILE_WIDTH);
        Some(Self { level, index, width: width as u16 })
    }

    /// Its level: 0 for leaves.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Its place within the level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The hashes of its level that it holds.
    pub fn hashes(&self) -> std::ops::Range<u64> {
        let first = self.index * TILE_WIDTH;
        first..first + u64::from(self.width)
    }
}

/// What a log serves, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `checkpoint`: the signed note.
    Checkpoint,
    /// `tile/<level>/<index>`: hashes, 32 bytes each.
    Hashes(Tile),
    /// `tile/entries/<index>`: entries, each after its length as big-endian u16.
    Entries(Tile),
}

impl Resource {
    /// Reads a path. `None` for everything but the one spelling of a resource.
    pub fn parse(path: &str) -> Option<Self> {
        if path == "checkpoint" {
            return Some(Self::Checkpoint);
        }
        if path.len() > MAX_PATH_BYTES {
            return None;
        }
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse::<u16>().ok().filter(|&w| w < 256)?),
            None => (rest, TILE_WIDTH as u16),
        };
        let mut number = 0u64;
        for part in index.split('/') {
            let digits = part.strip_prefix('x').unwrap_or(part);
            number = number.checked_mul(1000)?.checked_add(digits.parse::<u16>().ok()?.into())?;
        }
        let whole = |level: u8| {
            let size = number.checked_mul(TILE_WIDTH)?.checked_add(width.into())?;
            // As large as a tree must be for this tile to be this wide.
            let size = size.checked_mul(1u64.checked_shl(TILE_LEVELS * u32::from(level))?)?;
            Tile::in_tree(level, number, size)
        };
        let resource = match level {
            "entries" => Self::Entries(whole(0)?),
            level => Self::Hashes(whole(level.parse().ok()?)?),
        };
        // Other spellings of the same numbers are no resources.
        (resource.to_string() == path).then_some(resource)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tile = match self {
            Self::Checkpoint => return f.write_str("checkpoint"),
            Self::Hashes(tile) => {
                write!(f, "tile/{}/", tile.level)?;
                tile
            }
            Self::Entries(tile) => {
                f.write_str("tile/entries/")?;
                tile
            }
        };
        let mut parts = Vec::new();
        let mut index = tile.index;
        while index >= 1000 {
            parts.push(index % 1000);
            index /= 1000;
        }
        parts.push(index);
        while let Some(part) = parts.pop() {
            if parts.is_empty() {
                write!(f, "{part:03}")?;
            } else {
                write!(f, "x{part:03}/")?;
            }
        }
        if u64::from(tile.width) < TILE_WIDTH { write!(f, ".p/{}", tile.width) } else { Ok(()) }
    }
}

/// The bytes of an entry bundle.
pub(crate) fn bundle(entries: &[Hash]) -> Vec<u8> {
    let length = (size_of::<Hash>() as u16).to_be_bytes();
    entries.iter().flat_map(|entry| length.into_iter().chain(*entry)).collect()
}

/// Reads an entry bundle of one of our logs.
///
/// # Errors
/// [`TileError`] if it has another number of entries, or one that is not a hash.
pub fn open_bundle(tile: Tile, bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
    const ROW: usize = 2 + size_of::<Hash>();
    let expected = usize::from(tile.width) * ROW;
    if bytes.len() != expected {
        return Err(TileError::Length { expected, got: bytes.len() });
    }
    let entry = |(at, row): (usize, &[u8])| match row.split_first_chunk::<2>() {
        Some((length, entry)) if u16::from_be_bytes(*length) == size_of::<Hash>() as u16 => {
            entry.try_into().map_err(|_| TileError::Entry { at })
        }
        _ => Err(TileError::Entry { at }),
    };
    bytes.chunks_exact(ROW).enumerate().map(entry).collect()
}

/// Tiles of a tree of known size, as far as they were fetched.
///
/// Proofs made from it hold exactly if the tiles are the tree's; whoever takes
/// tiles from a stranger checks the proof against a signed root.
#[derive(Clone, Debug)]
pub struct Tiles {
    size: u64,
    hashes: BTreeMap<(u8, u64), Vec<Hash>>,
}

impl Tiles {
    /// No tiles yet of a tree of `size` leaves.
    pub fn new(size: u64) -> Self {
        Self { size, hashes: BTreeMap::new() }
    }

    /// The tiles that are not here yet and that `proof` asks for, for instance
    /// `|nodes| nodes.inclusion(index, size).map(drop)`.
    ///
    /// # Errors
    /// What `proof` returns for positions that the tree doesn't have.
    pub fn wanted(
        &self,
        proof: impl FnOnce(&dyn Nodes) -> Result<(), ProofError>,
    ) -> Result<Vec<Tile>, ProofError> {
        let wanted = Wanted { tiles: self, missing: RefCell::default() };
        proof(&wanted)?;
        Ok(wanted.missing.into_inner().into_iter().collect())
    }

    /// Takes in a tile.
    ///
    /// # Errors
    /// [`TileError`] if the tree has no such tile, or it is not as long.
    pub fn insert(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), TileError> {
        if Tile::in_tree(tile.level, tile.index, self.size) != Some(tile) {
            return Err(TileError::Foreign { tile, size: self.size });
        }
        let expected = usize::from(tile.width) * size_of::<Hash>();
        let (hashes, []) = bytes.as_chunks::<{ size_of::<Hash>() }>() else {
            return Err(TileError::Length { expected, got: bytes.len() });
        };
        if bytes.len() != expected {
            return Err(TileError::Length { expected, got: bytes.len() });
        }
        self.hashes.insert((tile.level, tile.index), hashes.to_vec());
        Ok(())
    }

    /// The tile in which a node's hashes are, and which of them.
    fn place(&self, level: u32, index: u64) -> Option<(Tile, std::ops::Range<usize>)> {
        let count = 1u64 << (level % TILE_LEVELS);
        let first = index.checked_mul(count)?;
        let tile_level = u8::try_from(level / TILE_LEVELS).ok()?;
        let tile = Tile::in_tree(tile_level, first / TILE_WIDTH, self.size)?;
        let from = first % TILE_WIDTH;
        let to = from + count;
        (to <= u64::from(tile.width)).then_some((tile, from as usize..to as usize))
    }
}

impl Nodes for Tiles {
    fn size(&self) -> u64 {
        self.size
    }

    fn node(&self, level: u32, index: u64) -> Result<Hash, ProofError> {
        let (tile, range) =
            self.place(level, index).ok_or(ProofError::Index { index, size: self.size })?;
        let missing = ProofError::Tile { path: Resource::Hashes(tile).to_string() };
        let row = self.hashes.get(&(tile.level, tile.index)).ok_or(missing)?;
        let mut row = row[range].to_vec();
        while row.len() > 1 {
            row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        Ok(row[0])
    }
}

/// Notes which tiles a proof asks for, and makes no proof.
struct Wanted<'a> {
    tiles: &'a Tiles,
    missing: RefCell<BTreeSet<Tile>>,
}

impl Nodes for Wanted<'_> {
    fn size(&self) -> u64 {
        self.tiles.size
    }

    fn node(&self, level: u32, index: u64) -> Result<Hash, ProofError> {
        let size = self.tiles.size;
        let (tile, _) = self.tiles.place(level, index).ok_or(ProofError::Index { index, size })?;
        if !self.tiles.hashes.contains_key(&(tile.level, tile.index)) {
            self.missing.borrow_mut().insert(tile);
        }
        Ok(Hash::default())
    }
}

/// Why a tile or a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// Not a tile of this tree.
    #[error("{}: a tree of {size} entries has no such tile", Resource::Hashes(*tile))]
    Foreign {
        /// The tile.
        tile: Tile,
        /// The tree's size.
        size: u64,
    },
    /// Too short or too long.
    #[error("tile: expected {expected} bytes, got {got}")]
    Length {
        /// Bytes a tile of this width has.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// An entry that is not a hash.
    #[error("entry bundle: expected 32 bytes in entry {at}")]
    Entry {
        /// Counts the bundle's entries from 0.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
    use super::*;
    use crate::tree::{Tree, leaf_hash, verify_inclusion};
    use proptest::prelude::*;

    fn tile(level: u8, index: u64, width: u16) -> Tile {
        Tile { level, index, width }
    }

    #[test]
    fn paths_are_those_of_the_format() {
        for (path, resource) in [
            ("checkpoint", Resource::Checkpoint),
            ("tile/0/x001/x234/067", Resource::Hashes(tile(0, 1_234_067, 256))),
            ("tile/0/273.p/112", Resource::Hashes(tile(0, 273, 112))),
            ("tile/1/001.p/17", Resource::Hashes(tile(1, 1, 17))),
            ("tile/2/000.p/1", Resource::Hashes(tile(2, 0, 1))),
            ("tile/entries/x001/000", Resource::Entries(tile(0, 1000, 256))),
        ] {
            assert_eq!(resource.to_string(), path);
            assert_eq!(Resource::parse(path), Some(resource));
        }
    }

    #[test]
    fn other_spellings_are_no_resources() {
        for path in [
            "",
            "/checkpoint",
            "tile",
            "tile/0/",
            "tile/0/1",
            "tile/0/0001",
            "tile/00/001",
            "tile/+1/001",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001/x002",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/8/000.p/1",
            "tile/64/000",
            "tile/entries/001.p/",
            "tile/0/x018/x446/x744/x073/x709/x551/615",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/0/../../checkpoint",
        ] {
            assert_eq!(Resource::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_tree_has_the_tiles_of_the_format() {
        let widths = |level, size| -> Vec<_> {
            (0..).map_while(|index| Tile::in_tree(level, index, size)).map(|t| t.width).collect()
        };
        assert_eq!(widths(0, 70_000).len(), 274);
        assert_eq!(widths(0, 70_000)[273], 112);
        assert_eq!(widths(1, 70_000), [256, 17]);
        assert_eq!(widths(2, 70_000), [1]);
        assert_eq!(widths(3, 70_000), [0u16; 0]);
        assert_eq!((widths(0, 256), widths(1, 256)), (vec![256], vec![1]));
        assert_eq!(widths(0, 0), [0u16; 0]);
    }

    /// A tree and what it would serve.
    fn tree(size: u64) -> Tree {
        let mut tree = Tree::default();
        (0..size).for_each(|index| tree.push(leaf_hash(&index.to_le_bytes())));
        tree
    }

    fn fetch(tree: &Tree, tiles: &mut Tiles, wanted: Vec<Tile>) {
        for tile in wanted {
            let level = TILE_LEVELS * u32::from(tile.level);
            tiles.insert(tile, tree.row(level, tile.hashes()).unwrap().as_flattened()).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn tiles_make_the_proofs_of_the_tree(size in 1u64..70_000, at: u64, from: u64) {
            let tree = tree(size);
            let (index, from) = (at % size, from % (size + 1));
            let mut tiles = Tiles::new(size);
            let refused = matches!(tiles.inclusion(index, size), Err(ProofError::Tile { .. }));
            prop_assert!(refused || size == 1);
            let wanted = tiles.wanted(|nodes| nodes.inclusion(index, size).map(drop)).unwrap();
            prop_assert!(wanted.len() <= 6, "{wanted:?}");
            fetch(&tree, &mut tiles, wanted);
            prop_assert_eq!(tiles.inclusion(index, size), tree.inclusion(index, size));

            let wanted = tiles.wanted(|nodes| nodes.consistency(from, size).map(drop)).unwrap();
            fetch(&tree, &mut tiles, wanted);
            prop_assert_eq!(tiles.consistency(from, size), tree.consistency(from, size));
            let wanted = tiles.wanted(|nodes| nodes.root(size).map(drop)).unwrap();
            fetch(&tree, &mut tiles, wanted);
            prop_assert_eq!(tiles.root(size), tree.root(size));
        }
    }

    #[test]
    fn a_changed_tile_proves_nothing() {
        let (tree, size) = (tree(1000), 1000);
        let root = tree.root(size).unwrap();
        for victim in 0..4 {
            let mut tiles = Tiles::new(size);
            let mut wanted = tiles.wanted(|nodes| nodes.inclusion(700, size).map(drop)).unwrap();
            let turn = victim % wanted.len();
            wanted.rotate_left(turn);
            fetch(&tree, &mut tiles, wanted.clone());
            let mut bytes = tree
                .row(TILE_LEVELS * u32::from(wanted[0].level), wanted[0].hashes())
                .unwrap()
                .as_flattened()
                .to_vec();
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
            tiles.insert(wanted[0], &bytes).unwrap();
            let path = tiles.inclusion(700, size).unwrap();
            verify_inclusion(&tree.leaf(700).unwrap(), 700, size, &path, &root).unwrap_err();
        }
    }

    #[test]
    fn tiles_of_other_trees_and_lengths_are_refused() {
        let mut tiles = Tiles::new(300);
        let full = vec![0; 8192];
        tiles.insert(tile(0, 0, 256), &full).unwrap();
        for (other, bytes) in [
            (tile(0, 0, 255), 8160),
            (tile(0, 1, 256), 8192),
            (tile(0, 2, 1), 32),
            (tile(1, 0, 2), 64),
            (tile(9, 0, 1), 32),
        ] {
            let refused = tiles.insert(other, &full[..bytes]).unwrap_err();
            assert!(matches!(refused, TileError::Foreign { size: 300, .. }), "{refused}");
        }
        for bytes in [0, 31, 8160, 8191] {
            let refused = tiles.insert(tile(0, 0, 256), &full[..bytes]).unwrap_err();
            assert_eq!(refused, TileError::Length { expected: 8192, got: bytes });
        }
    }

    #[test]
    fn bundles_are_read_back_and_others_refused() {
        let entries: Vec<Hash> = (0..5).map(|byte| [byte; 32]).collect();
        let bytes = bundle(&entries);
        assert_eq!(bytes[..3], [0, 32, 0]);
        assert_eq!(open_bundle(tile(0, 0, 5), &bytes), Ok(entries));
        assert!(matches!(open_bundle(tile(0, 0, 4), &bytes), Err(TileError::Length { .. })));
        let mut other = bytes;
        other[34] = 1;
        assert_eq!(open_bundle(tile(0, 0, 5), &other), Err(TileError::Entry { at: 1 }));
    }
}
