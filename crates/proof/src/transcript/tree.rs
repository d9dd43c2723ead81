//! The finished Merkle tree of a transcript, its paths and their check.
//!
//! Level by level, neighbours are hashed in pairs and a last one without a
//! neighbour moves up unchanged, which is the tree of RFC 6962 section 2.1.
//! A [`Tree`] keeps only leaf hashes (32 bytes a token) and computes inner
//! nodes when a path is asked for.

use peerproof_wire::limits::MAX_LEAVES;
use peerproof_wire::{Commitment, Digest};

use crate::hash::Tagged;
use crate::planted::planted;

/// Why a path does not lead from a leaf to a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The tree has no such leaf.
    #[error("leaf index: expected less than {expected}, got {got}")]
    Index {
        /// The number of leaves.
        expected: u32,
        /// The index asked for.
        got: u32,
    },
    /// A tree has at least one leaf and at most [`MAX_LEAVES`].
    #[error("leaf count: expected 1 to {expected}, got {got}")]
    Leaves {
        /// The most there may be.
        expected: u32,
        /// How many there are.
        got: usize,
    },
    /// Index and leaf count fix the length of a path.
    #[error("path of leaf {index}: expected {expected} nodes, got {got}")]
    Length {
        /// The leaf.
        index: u32,
        /// The length the shape of the tree demands.
        expected: usize,
        /// The length that came.
        got: usize,
    },
    /// The path ends at another root.
    #[error("path of leaf {index}: expected root {expected}, got {got}")]
    Root {
        /// The leaf.
        index: u32,
        /// The root that was committed to.
        expected: Digest,
        /// The root the path leads to.
        got: Digest,
    },
}

/// Hash of an inner node.
pub(super) fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Tagged::new("peerproof node v1").fixed(left.as_bytes()).fixed(right.as_bytes()).finish()
}

/// The root that is committed to: the top of the tree together with the number
/// of leaves. Without leaves there is no top, and 32 zero bytes stand for it.
pub(super) fn root_hash(leaves: u32, top: Option<&Digest>) -> Digest {
    Tagged::new("peerproof root v1")
        .u32(leaves)
        .fixed(top.unwrap_or(&Digest::from_bytes([0; 32])).as_bytes())
        .finish()
}

/// A closed transcript: the hash of every leaf, the closing one last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    hashes: Vec<Digest>,
    root: Digest,
}

impl Tree {
    /// Rebuilds a tree from the hashes of its leaves, the closing leaf's last.
    pub fn from_hashes(hashes: Vec<Digest>) -> Result<Self, PathError> {
        let leaves = match u32::try_from(hashes.len()) {
            Ok(leaves @ 1..=MAX_LEAVES) => leaves,
            _ => return Err(PathError::Leaves { expected: MAX_LEAVES, got: hashes.len() }),
        };
        let root = root_hash(leaves, Some(&top_of(&hashes)));
        Ok(Self { hashes, root })
    }

    /// A tree whose root the caller has computed already.
    pub(super) fn closed(hashes: Vec<Digest>, root: Digest) -> Self {
        Self { hashes, root }
    }

    /// The committed root.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root
    }

    /// How many leaves there are, the closing one included.
    #[must_use]
    pub fn leaves(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// Root and number of leaves together.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        Commitment { leaves: self.leaves(), root: self.root }
    }

    /// The hash of every leaf, in order.
    #[must_use]
    pub fn hashes(&self) -> &[Digest] {
        &self.hashes
    }

    /// The root this transcript had when it was `leaves` long: what a running
    /// commitment over that many leaves must say.
    pub fn root_at(&self, leaves: u32) -> Result<Digest, PathError> {
        match self.hashes.get(..leaves as usize) {
            None => Err(PathError::Leaves { expected: self.leaves(), got: leaves as usize }),
            Some([]) => Ok(root_hash(0, None)),
            Some(prefix) => Ok(root_hash(leaves, Some(&top_of(prefix)))),
        }
    }

    /// The path from one leaf to the root.
    pub fn open(&self, index: u32) -> Result<Vec<Digest>, PathError> {
        Ok(self.open_all(&[index])?.remove(0))
    }

    /// The paths of several leaves; the inner nodes are computed once.
    pub fn open_all(&self, indices: &[u32]) -> Result<Vec<Vec<Digest>>, PathError> {
        if let Some(&got) = indices.iter().find(|index| **index >= self.leaves()) {
            return Err(PathError::Index { expected: self.leaves(), got });
        }
        let mut paths = vec![Vec::new(); indices.len()];
        let mut level = self.hashes.clone();
        let mut depth = 0;
        while level.len() > 1 {
            for (path, index) in paths.iter_mut().zip(indices) {
                path.extend(level.get((*index as usize >> depth) ^ 1));
            }
            level = level_above(&level);
            depth += 1;
        }
        Ok(paths)
    }
}

fn level_above(level: &[Digest]) -> Vec<Digest> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node_hash(left, right),
            odd => odd[0],
        })
        .collect()
}

fn top_of(hashes: &[Digest]) -> Digest {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level_above(&level);
    }
    level[0]
}

/// Checks that the leaf with hash `leaf` stands at `index` of the tree behind `commitment`.
pub fn verify_path(
    commitment: &Commitment,
    index: u32,
    leaf: &Digest,
    path: &[Digest],
) -> Result<(), PathError> {
    let Commitment { leaves, root } = *commitment;
    if leaves > MAX_LEAVES {
        return Err(PathError::Leaves { expected: MAX_LEAVES, got: leaves as usize });
    }
    if index >= leaves {
        return Err(PathError::Index { expected: leaves, got: index });
    }
    let expected = path_len(index, leaves);
    if path.len() != expected {
        return Err(PathError::Length { index, expected, got: path.len() });
    }
    let got = root_hash(leaves, Some(&climb(index, leaves, leaf, path)));
    if got == root || planted("any root will do") {
        Ok(())
    } else {
        Err(PathError::Root { index, expected: root, got })
    }
}

/// Follows a path of the right length to the top of the tree.
fn climb(mut index: u32, mut width: u32, leaf: &Digest, path: &[Digest]) -> Digest {
    let mut siblings = path.iter();
    let mut top = *leaf;
    while width > 1 {
        if has_sibling(index, width)
            && let Some(sibling) = siblings.next()
        {
            top = if index.is_multiple_of(2) {
                node_hash(&top, sibling)
            } else {
                node_hash(sibling, &top)
            };
        }
        index /= 2;
        width = width.div_ceil(2);
    }
    top
}

/// How many nodes the path of leaf `index` has in a tree of `width` leaves.
fn path_len(mut index: u32, mut width: u32) -> usize {
    let mut length = 0;
    while width > 1 {
        length += usize::from(has_sibling(index, width));
        index /= 2;
        width = width.div_ceil(2);
    }
    length
}

fn has_sibling(index: u32, width: u32) -> bool {
    index ^ 1 < width
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashes(leaves: u32) -> Vec<Digest> {
        (0..leaves).map(|index| Tagged::new("test leaf").u32(index).finish()).collect()
    }

    /// RFC 6962, section 2.1, word for word: split at the largest power of two.
    fn reference_top(hashes: &[Digest]) -> Digest {
        if let [only] = hashes {
            return *only;
        }
        let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
        node_hash(&reference_top(left), &reference_top(right))
    }

    /// RFC 6962, section 2.1.1.
    fn reference_path(index: usize, hashes: &[Digest]) -> Vec<Digest> {
        if hashes.len() == 1 {
            return Vec::new();
        }
        let split = hashes.len().next_power_of_two() / 2;
        let (left, right) = hashes.split_at(split);
        let (mut path, sibling) = if index < split {
            (reference_path(index, left), reference_top(right))
        } else {
            (reference_path(index - split, right), reference_top(left))
        };
        path.push(sibling);
        path
    }

    #[test]
    fn shape_and_paths_are_those_of_rfc_6962() {
        for leaves in 1..=70 {
            let hashes = hashes(leaves);
            let tree = Tree::from_hashes(hashes.clone()).unwrap();
            assert_eq!(tree.root(), root_hash(leaves, Some(&reference_top(&hashes))));
            let paths = tree.open_all(&(0..leaves).collect::<Vec<_>>()).unwrap();
            for (index, path) in paths.iter().enumerate() {
                assert_eq!(*path, reference_path(index, &hashes), "leaf {index} of {leaves}");
            }
        }
    }

    #[test]
    fn a_tree_has_at_least_one_leaf_and_at_most_the_limit() {
        assert!(matches!(Tree::from_hashes(vec![]), Err(PathError::Leaves { got: 0, .. })));
        let got = MAX_LEAVES as usize + 1;
        let over = Tree::from_hashes(vec![Digest::from_bytes([0; 32]); got]);
        assert_eq!(over.unwrap_err(), PathError::Leaves { expected: MAX_LEAVES, got });
        let root = Commitment { leaves: u32::MAX, root: Digest::from_bytes([0; 32]) };
        let claimed = verify_path(&root, 0, &Digest::from_bytes([0; 32]), &[]);
        assert!(matches!(claimed, Err(PathError::Leaves { .. })));
    }

    #[test]
    fn earlier_roots_are_those_of_the_beginning() {
        let tree = Tree::from_hashes(hashes(37)).unwrap();
        for leaves in 1..=37 {
            let beginning = Tree::from_hashes(hashes(leaves)).unwrap();
            assert_eq!(tree.root_at(leaves), Ok(beginning.root()));
        }
        assert!(tree.root_at(38).is_err());
        assert_eq!(tree.open(37), Err(PathError::Index { expected: 37, got: 37 }));
    }

    proptest! {
        #[test]
        fn only_the_true_leaf_index_count_and_path_are_accepted(
            leaves in 1_u32..3_000,
            pick in any::<prop::sample::Index>(),
            altered_node in any::<prop::sample::Index>(),
            other_index in 0_u32..3_000,
            other_leaves in 1_u32..3_000,
        ) {
            let tree = Tree::from_hashes(hashes(leaves)).unwrap();
            let root = tree.commitment();
            let index = pick.index(leaves as usize) as u32;
            let leaf = tree.hashes()[index as usize];
            let path = tree.open(index).unwrap();
            prop_assert_eq!(verify_path(&root, index, &leaf, &path), Ok(()));
            prop_assert!(verify_path(&root, index, &root.root, &path).is_err());
            if other_index != index {
                prop_assert!(verify_path(&root, other_index, &leaf, &path).is_err());
            }
            if other_leaves != leaves {
                let claimed = Commitment { leaves: other_leaves, ..root };
                prop_assert!(verify_path(&claimed, index, &leaf, &path).is_err());
            }
            if !path.is_empty() {
                let mut altered = path.clone();
                altered[altered_node.index(path.len())] = root.root;
                prop_assert!(verify_path(&root, index, &leaf, &altered).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(
            leaves: u32,
            index: u32,
            leaf: [u8; 32],
            path in prop::collection::vec(any::<[u8; 32]>(), 0..40),
        ) {
            let path: Vec<Digest> = path.into_iter().map(Digest::from_bytes).collect();
            let root = Commitment { leaves, root: Digest::from_bytes(leaf) };
            prop_assert!(verify_path(&root, index, &Digest::from_bytes(leaf), &path).is_err());
        }
    }
}
