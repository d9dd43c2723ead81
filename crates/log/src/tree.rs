//! The Merkle tree of RFC 6962: roots, inclusion proofs, consistency proofs.
//!
//! Leaves and nodes are SHA-256 with the prefixes 0x00 and 0x01, so a leaf can
//! never pass for a node. The tree keeps the hash of every complete subtree
//! (64 bytes an entry in all); roots and proofs of any earlier size cost a
//! logarithmic number of hashes. Absent: the entries themselves, which stay on
//! storage, and signatures, which belong to the checkpoint.

use sha2::{Digest as _, Sha256};

use crate::error::ProofError;

/// A SHA-256 digest: of a leaf, a node or a root.
pub type Hash = [u8; 32];

/// The hash of a leaf: `SHA-256(0x00 ‖ entry)` (RFC 6962, 2.1).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// The entry that stands in the tree for a payload: its SHA-256. Whoever copies
/// or witnesses a log sees entries; payloads are shown by their owner's choice.
pub fn entry_of(payload: &[u8]) -> Hash {
    Sha256::digest(payload).into()
}

/// The leaf of a payload's entry.
pub fn payload_leaf(payload: &[u8]) -> Hash {
    leaf_hash(&entry_of(payload))
}

/// The hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without leaves: `SHA-256("")`.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Where the hashes of complete subtrees come from: a tree in memory, or tiles
/// that were fetched.
pub trait Nodes {
    /// The number of leaves up to which there are nodes.
    fn size(&self) -> u64;

    /// The hash over the leaves `index · 2^level .. (index + 1) · 2^level`, all
    /// of them below [`Nodes::size`].
    ///
    /// # Errors
    /// [`ProofError`] if the source lacks it.
    fn node(&self, level: u32, index: u64) -> Result<Hash, ProofError>;

    /// The root over the first `size` leaves.
    ///
    /// # Errors
    /// [`ProofError::Size`] if there are fewer leaves, and as [`Nodes::node`].
    fn root(&self, size: u64) -> Result<Hash, ProofError> {
        self.check_size(size)?;
        if size == 0 { Ok(empty_root()) } else { self.range(0, size) }
    }

    /// The path of the leaf at `index` to the root over the first `size` leaves,
    /// lowest sibling first (RFC 6962, 2.1.1).
    ///
    /// # Errors
    /// [`ProofError::Size`] or [`ProofError::Index`] if there is no such leaf, and
    /// as [`Nodes::node`].
    fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
        self.check_size(size)?;
        if index >= size {
            return Err(ProofError::Index { index, size });
        }
        let (mut start, mut end) = (0, size);
        let mut path = Vec::new();
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// The proof that the tree over the first `from` leaves is a prefix of the
    /// tree over the first `to` leaves (RFC 6962, 2.1.2). Empty if either tree
    /// is empty or both are equal.
    ///
    /// # Errors
    /// [`ProofError::Size`] if the tree is smaller than `to`, or `to` than `from`,
    /// and as [`Nodes::node`].
    fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, ProofError> {
        self.check_size(to)?;
        if from > to {
            return Err(ProofError::Size { got: from, limit: to });
        }
        let mut path = Vec::new();
        if from == 0 {
            return Ok(path);
        }
        // The loop descends to the subtree whose end is `from`; while it has only
        // gone left, that subtree is the old tree itself and needs no hash.
        let (mut start, mut end) = (0, to);
        while from != end {
            let middle = start + split(end - start);
            if from <= middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        if start > 0 {
            path.push(self.range(start, end)?);
        }
        path.reverse();
        Ok(path)
    }

    /// Refuses sizes beyond [`Nodes::size`].
    ///
    /// # Errors
    /// [`ProofError::Size`].
    fn check_size(&self, size: u64) -> Result<(), ProofError> {
        if size > self.size() {
            return Err(ProofError::Size { got: size, limit: self.size() });
        }
        Ok(())
    }

    /// The hash over the leaves `start..end`, not empty, `start` a multiple of
    /// the largest power of two below the range's length.
    ///
    /// # Errors
    /// As [`Nodes::node`].
    fn range(&self, start: u64, end: u64) -> Result<Hash, ProofError> {
        let count = end - start;
        if count.is_power_of_two() {
            let level = count.trailing_zeros();
            return self.node(level, start >> level);
        }
        let middle = start + split(count);
        Ok(node_hash(&self.range(start, middle)?, &self.range(middle, end)?))
    }
}

/// An append-only Merkle tree held as the hashes of its complete subtrees.
///
/// ```
/// use peerproof_log::tree::{Nodes, Tree, leaf_hash, verify_inclusion};
/// let mut tree = Tree::default();
/// for entry in ["a", "b", "c"] {
///     tree.push(leaf_hash(entry.as_bytes()));
/// }
/// let path = tree.inclusion(1, 3)?;
/// verify_inclusion(&leaf_hash(b"b"), 1, 3, &path, &tree.root(3)?)?;
/// # Ok::<(), peerproof_log::ProofError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// `levels[k][i]` is the hash of the leaves `i·2^k .. (i+1)·2^k`.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The number of leaves.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Whether there are no leaves.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of the leaf at `index`.
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        let index = usize::try_from(index).ok()?;
        self.levels.first()?.get(index).copied()
    }

    /// Adds a leaf at the end.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            row.push(hash);
            if row.len() % 2 == 1 {
                return;
            }
            hash = node_hash(&row[row.len() - 2], &row[row.len() - 1]);
        }
    }

    /// Drops every leaf from `len` on.
    pub fn truncate(&mut self, len: u64) {
        for (level, row) in self.levels.iter_mut().enumerate() {
            let keep = len.checked_shr(level as u32).unwrap_or(0);
            row.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        }
    }

    /// The hashes `from..to` of a level, if the tree has them.
    pub(crate) fn row(&self, level: u32, range: std::ops::Range<u64>) -> Option<&[Hash]> {
        let index = |at: u64| usize::try_from(at).ok();
        self.levels.get(level as usize)?.get(index(range.start)?..index(range.end)?)
    }
}

impl Nodes for Tree {
    fn size(&self) -> u64 {
        self.len()
    }

    fn node(&self, level: u32, index: u64) -> Result<Hash, ProofError> {
        let size = self.len() >> level;
        let row = self.row(level, index..index.saturating_add(1));
        row.map(|row| row[0]).ok_or(ProofError::Index { index, size })
    }
}

/// The largest power of two smaller than `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// Checks that `leaf` stands at `index` of the tree of `size` leaves with `root`
/// (RFC 9162, 2.1.3.2).
///
/// # Errors
/// [`ProofError`] says whether position, path length or root is wrong.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return Err(ProofError::PathLength { got: path.len() });
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            skip_missing_siblings(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::PathLength { got: path.len() });
    }
    check_root(&hash, root)
}

/// Checks that the tree of `to` leaves with `to_root` continues the tree of
/// `from` leaves with `from_root` (RFC 9162, 2.1.4.2).
///
/// # Errors
/// [`ProofError`] says whether sizes, path length or a root is wrong.
pub fn verify_consistency(
    from: u64,
    from_root: &Hash,
    to: u64,
    to_root: &Hash,
    path: &[Hash],
) -> Result<(), ProofError> {
    if from > to {
        return Err(ProofError::Size { got: from, limit: to });
    }
    if from == 0 || from == to {
        if !path.is_empty() {
            return Err(ProofError::PathLength { got: path.len() });
        }
        let expected = if from == 0 { empty_root() } else { *to_root };
        return check_root(&expected, from_root);
    }
    let (first, siblings) = match path.split_first() {
        _ if from.is_power_of_two() => (from_root, path),
        Some((first, siblings)) => (first, siblings),
        None => return Err(ProofError::PathLength { got: path.len() }),
    };
    let (old, new) = climb(from, to, first, siblings)?;
    check_root(&old, from_root)?;
    check_root(&new, to_root)
}

/// The root over the first `from` leaves of the tree of `to` leaves with `to_root`,
/// where `0 < from < to`. The path is that of [`verify_consistency`], with the root
/// over `from` leaves in front of it if that number is a power of two.
///
/// # Errors
/// [`ProofError`] if the path does not lead to `to_root`.
pub fn prefix_root(from: u64, to: u64, to_root: &Hash, path: &[Hash]) -> Result<Hash, ProofError> {
    if from == 0 || from >= to {
        return Err(ProofError::Size { got: from, limit: to });
    }
    let Some((first, siblings)) = path.split_first() else {
        return Err(ProofError::PathLength { got: path.len() });
    };
    let (old, new) = climb(from, to, first, siblings)?;
    check_root(&new, to_root)?;
    Ok(old)
}

/// Both roots that follow from the last whole subtree within the first `from`
/// leaves and the hashes beside it.
fn climb(from: u64, to: u64, first: &Hash, siblings: &[Hash]) -> Result<(Hash, Hash), ProofError> {
    let length = ProofError::PathLength { got: siblings.len() };
    let (mut node, mut last) = (from - 1, to - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (*first, *first);
    for sibling in siblings {
        if last == 0 {
            return Err(length);
        }
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            skip_missing_siblings(&mut node, &mut last);
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    Ok((old, new))
}

/// On the right edge a node without a sibling rises unchanged; climbs to the
/// level where the sibling just used stands.
fn skip_missing_siblings(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}

fn check_root(computed: &Hash, stated: &Hash) -> Result<(), ProofError> {
    if computed != stated {
        return Err(ProofError::Root { expected: *stated, got: *computed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
    use super::*;
    use crate::error::hex;

    /// The leaves of the test tree that Certificate Transparency implementations share.
    const LEAVES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];

    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    const A: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    const B: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
    const C: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
    const D: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
    const E: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
    const F: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";

    fn test_tree() -> Tree {
        let mut tree = Tree::default();
        LEAVES.iter().for_each(|leaf| tree.push(leaf_hash(leaf)));
        tree
    }

    fn hexes(path: &[Hash]) -> Vec<String> {
        path.iter().map(|hash| hex(hash)).collect()
    }

    /// A tree of `count` leaves made of their indexes.
    fn numbered(count: u64) -> Tree {
        let mut tree = Tree::default();
        (0..count).for_each(|index| tree.push(leaf_hash(&index.to_le_bytes())));
        tree
    }

    #[test]
    fn shared_vectors_agree() {
        let tree = test_tree();
        for (size, root) in ROOTS.iter().enumerate() {
            assert_eq!(hex(&tree.root(size as u64).unwrap()), *root);
        }
        let inclusions: [(u64, u64, &[&str]); 5] = [
            (0, 1, &[]),
            (0, 8, &[A, B, C]),
            (5, 8, &[D, E, ROOTS[4]]),
            (2, 3, &[ROOTS[2]]),
            (1, 5, &[ROOTS[1], B, D]),
        ];
        for (index, size, path) in inclusions {
            assert_eq!(hexes(&tree.inclusion(index, size).unwrap()), path);
        }
        let consistencies: [(u64, u64, &[&str]); 4] =
            [(1, 1, &[]), (1, 8, &[A, B, C]), (6, 8, &[F, E, ROOTS[4]]), (2, 5, &[B, D])];
        for (from, to, path) in consistencies {
            assert_eq!(hexes(&tree.consistency(from, to).unwrap()), path);
        }
    }

    #[test]
    fn every_proof_of_every_small_tree_verifies_and_tampering_is_refused() {
        const COUNT: u64 = 33;
        let tree = numbered(COUNT);
        for size in 1..=COUNT {
            let root = tree.root(size).unwrap();
            for index in 0..size {
                let path = tree.inclusion(index, size).unwrap();
                let leaf = tree.leaf(index).unwrap();
                verify_inclusion(&leaf, index, size, &path, &root).unwrap();
                tamper_inclusion(&leaf, index, size, &path, &root);
            }
            for from in 0..=size {
                let path = tree.consistency(from, size).unwrap();
                let old = tree.root(from).unwrap();
                verify_consistency(from, &old, size, &root, &path).unwrap();
                tamper_consistency(from, &old, size, &root, &path);
            }
        }
    }

    fn flipped(hash: &Hash) -> Hash {
        let mut hash = *hash;
        hash[7] ^= 4;
        hash
    }

    fn tamper_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) {
        let refused = |leaf: &Hash, index, size, path: &[Hash], root: &Hash| {
            verify_inclusion(leaf, index, size, path, root).unwrap_err();
        };
        refused(&flipped(leaf), index, size, path, root);
        refused(leaf, index, size, path, &flipped(root));
        refused(leaf, size, size, path, root);
        for other in (0..size).filter(|other| *other != index) {
            refused(leaf, other, size, path, root);
        }
        let mut longer = path.to_vec();
        longer.push(*root);
        refused(leaf, index, size, &longer, root);
        for at in 0..path.len() {
            let mut changed = path.to_vec();
            changed[at] = flipped(&changed[at]);
            refused(leaf, index, size, &changed, root);
            refused(leaf, index, size, &path[..at], root);
        }
    }

    fn tamper_consistency(from: u64, old: &Hash, to: u64, new: &Hash, path: &[Hash]) {
        let refused = |from, old: &Hash, to, new: &Hash, path: &[Hash]| {
            verify_consistency(from, old, to, new, path).unwrap_err();
        };
        refused(from, &flipped(old), to, new, path);
        refused(to + 1, old, to, new, path);
        if from > 0 {
            refused(from, old, to, &flipped(new), path);
        }
        let mut longer = path.to_vec();
        longer.push(*new);
        refused(from, old, to, new, &longer);
        for at in 0..path.len() {
            let mut changed = path.to_vec();
            changed[at] = flipped(&changed[at]);
            refused(from, old, to, new, &changed);
            refused(from, old, to, new, &path[..at]);
        }
    }

    #[test]
    fn truncation_undoes_pushes() {
        for len in 0..20 {
            let mut tree = numbered(20);
            tree.truncate(len);
            assert_eq!(tree.len(), len);
            (len..25).for_each(|index| tree.push(leaf_hash(&index.to_le_bytes())));
            assert_eq!(tree.root(25).unwrap(), numbered(25).root(25).unwrap());
        }
    }

    #[test]
    fn positions_beyond_the_tree_are_refused() {
        let tree = numbered(5);
        assert!(matches!(tree.root(6), Err(ProofError::Size { got: 6, limit: 5 })));
        assert!(matches!(tree.inclusion(5, 5), Err(ProofError::Index { index: 5, size: 5 })));
        assert!(matches!(tree.inclusion(0, u64::MAX), Err(ProofError::Size { .. })));
        assert!(matches!(tree.consistency(4, 3), Err(ProofError::Size { got: 4, limit: 3 })));
        let root = tree.root(5).unwrap();
        verify_inclusion(&root, 0, u64::MAX, &[], &root).unwrap_err();
        verify_inclusion(&root, u64::MAX - 1, u64::MAX, &vec![root; 64], &root).unwrap_err();
        verify_consistency(3, &root, u64::MAX, &root, &vec![root; 70]).unwrap_err();
    }
}
