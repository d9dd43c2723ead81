//! What a provider commits to while it answers.
//!
//! A transcript has one leaf for every position the model read, then one
//! closing leaf, so a prompt of `p` tokens and an answer of `a` tokens give
//! `p + a` leaves (the last token of the answer is drawn but never read).
//! Leaves enter a binary Merkle tree of the RFC 6962 shape: an odd node is
//! carried upward as it stands, never paired with itself. The root also covers
//! the number of leaves, so one root cannot pass for a shorter or longer
//! transcript.
//!
//! The engine digests its integers with [`state_digest`] and [`logits_digest`],
//! the provider [`push`](Transcript::push)es a leaf per position, reads a
//! [`commitment`](Transcript::commitment) every [`COMMIT_EVERY`] tokens, and
//! [`close`](Transcript::close)s into a [`Tree`] whose root goes into the receipt.
//!
//! Absent here: any judgement whether a leaf is right. That is `audit`'s.

mod tree;

use peerproof_wire::limits::MAX_LEAVES;
use peerproof_wire::{Commitment, Digest, Drawn, Leaf, Stop};

pub use tree::{PathError, Tree, verify_path};

use crate::execute::{DrawnStep, Step};
use crate::hash::Tagged;
use crate::planted::planted;

/// A running commitment is due after this many tokens of the answer.
pub const COMMIT_EVERY: u32 = 32;

/// Integers digested per call of the hash function: 16 KiB, the widest stride
/// BLAKE3 has on any processor.
const STRIDE: usize = 4096;

/// Why a leaf was not taken. The transcript is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TranscriptError {
    /// Leaves come in order of their positions, without a gap.
    #[error("transcript leaf: expected position {expected}, got {got}")]
    Position {
        /// The next position.
        expected: u32,
        /// The position of the leaf.
        got: u32,
    },
    /// The transcript holds as many leaves as one may.
    #[error("transcript leaf: at most {expected} leaves, got one more")]
    Full {
        /// The most leaves a transcript holds.
        expected: u32,
    },
}

/// Digest of the residual stream after the last layer at one position, keyed by the offer's id.
#[must_use]
pub fn state_digest(key: &Digest, state: &[i32]) -> Digest {
    integers_digest(key, "peerproof state v1", state)
}

/// Digest of the int32 logits at one position, keyed by the offer's id.
#[must_use]
pub fn logits_digest(key: &Digest, logits: &[i32]) -> Digest {
    integers_digest(key, "peerproof logits v1", logits)
}

/// The tag and the length go into a key of their own, so that the integers
/// start on a chunk boundary and hash at full width.
fn integers_digest(key: &Digest, tag: &str, values: &[i32]) -> Digest {
    hash_integers(&row_key(key, tag, values.len() as u64), values)
}

/// The BLAKE3 key behind [`state_digest`] of so many integers, for opening parts of a row.
#[must_use]
pub fn state_key(key: &Digest, integers: u64) -> Digest {
    row_key(key, "peerproof state v1", integers)
}

/// The BLAKE3 key behind [`logits_digest`] of so many integers, for opening parts of a row.
#[must_use]
pub fn logits_key(key: &Digest, integers: u64) -> Digest {
    row_key(key, "peerproof logits v1", integers)
}

fn row_key(key: &Digest, tag: &str, integers: u64) -> Digest {
    let none = Digest::from_bytes([0; 32]);
    let key = if planted("digests without the offer") { &none } else { key };
    Tagged::keyed(key.as_bytes(), tag).u64(integers).finish()
}

/// BLAKE3 under a key, over the integers' little-endian bytes.
pub(crate) fn hash_integers(subkey: &Digest, values: &[i32]) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(subkey.as_bytes());
    let mut buffer = [0_u8; 4 * STRIDE];
    for stride in values.chunks(STRIDE) {
        let bytes = &mut buffer[..4 * stride.len()];
        for (word, value) in bytes.chunks_exact_mut(4).zip(stride) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(bytes);
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// Hash of one leaf as it enters the tree.
#[must_use]
pub fn leaf_hash(leaf: &Leaf) -> Digest {
    absorb_leaf(Tagged::new("peerproof leaf v2"), leaf).finish()
}

/// A leaf's fields in the order of the specification.
pub(crate) fn absorb_leaf(hash: Tagged, leaf: &Leaf) -> Tagged {
    let hash = hash
        .u32(leaf.position)
        .u32(leaf.token)
        .fixed(leaf.state.as_bytes())
        .fixed(leaf.layers.as_bytes());
    match &leaf.drawn {
        None => hash.u8(0),
        Some(drawn) => hash.u8(1).fixed(drawn.logits.as_bytes()).u64(drawn.draw).u32(drawn.next),
    }
}

/// Hash of the closing leaf: why the answer ended, how many tokens it has, its
/// [`text_hash`](crate::receipt::text_hash), and its [`kv_root`](crate::cells::kv_root).
#[must_use]
pub fn closing_hash(stop: Stop, tokens: u32, text_hash: &Digest, kv_root: &Digest) -> Digest {
    Tagged::new("peerproof closing v2")
        .u8(stop_code(stop))
        .u32(tokens)
        .fixed(text_hash.as_bytes())
        .fixed(kv_root.as_bytes())
        .finish()
}

/// The byte that stands for a stop reason inside hashes.
pub(crate) fn stop_code(stop: Stop) -> u8 {
    match stop {
        Stop::EndOfText => 1,
        Stop::Length => 2,
        Stop::StopString => 3,
    }
}

impl From<Step> for Leaf {
    fn from(step: Step) -> Self {
        Self {
            position: step.position,
            token: step.token,
            state: step.state,
            layers: step.layers,
            drawn: step.drawn.map(Drawn::from),
        }
    }
}

impl From<DrawnStep> for Drawn {
    fn from(drawn: DrawnStep) -> Self {
        Self { logits: drawn.logits, draw: drawn.draw, next: drawn.next }
    }
}

/// A transcript that is still growing: appending is O(1), a commitment O(log n).
///
/// ```
/// use peerproof_proof::cells::{kv_root, layers_digest};
/// use peerproof_proof::transcript::{Transcript, state_digest};
/// use peerproof_wire::{Digest, Leaf, Stop};
///
/// let offer_id = Digest::from_bytes([7; 32]);
/// let mut transcript = Transcript::new();
/// transcript.push(&Leaf {
///     position: 0,
///     token: 42,
///     state: state_digest(&offer_id, &[1, -2, 3]),
///     layers: layers_digest(&[4, 5, 6]),
///     drawn: None,
/// })?;
/// let tree = transcript.close(Stop::Length, 1, "", &kv_root(&[]))?;
/// assert_eq!(tree.commitment().leaves, 2);
/// # Ok::<(), peerproof_proof::transcript::TranscriptError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    hashes: Vec<Digest>,
    /// INVARIANT: roots of the perfect subtrees that `hashes.len()` splits into, widest first.
    frontier: Vec<Digest>,
}

impl Transcript {
    /// A transcript without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves it has.
    #[must_use]
    pub fn leaves(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// Appends the leaf of the next position.
    pub fn push(&mut self, leaf: &Leaf) -> Result<(), TranscriptError> {
        let expected = self.leaves();
        if leaf.position != expected {
            return Err(TranscriptError::Position { expected, got: leaf.position });
        }
        self.append(leaf_hash(leaf))
    }

    /// Appends a leaf of another form.
    pub(crate) fn push_hash(&mut self, hash: Digest) -> Result<(), TranscriptError> {
        self.append(hash)
    }

    /// The root over the leaves so far.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        let subtree = self
            .frontier
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| tree::node_hash(&left, &right));
        Commitment { leaves: self.leaves(), root: tree::root_hash(self.leaves(), subtree.as_ref()) }
    }

    /// Appends the closing leaf; `tokens` counts the answer. Nothing is reported
    /// of its probabilities.
    pub fn close(
        self,
        stop: Stop,
        tokens: u32,
        text: &str,
        kv_root: &Digest,
    ) -> Result<Tree, TranscriptError> {
        self.close_with(stop, tokens, &crate::receipt::text_hash(text), kv_root)
    }

    /// As [`close`](Self::close), with the hash of all that is shown, see
    /// [`shown_hash`](crate::receipt::shown_hash).
    pub fn close_with(
        mut self,
        stop: Stop,
        tokens: u32,
        shown: &Digest,
        kv_root: &Digest,
    ) -> Result<Tree, TranscriptError> {
        self.append(closing_hash(stop, tokens, shown, kv_root))?;
        let root = self.commitment().root;
        Ok(Tree::closed(self.hashes, root))
    }

    fn append(&mut self, hash: Digest) -> Result<(), TranscriptError> {
        if self.leaves() >= MAX_LEAVES {
            return Err(TranscriptError::Full { expected: MAX_LEAVES });
        }
        let merges = self.leaves().trailing_ones();
        let mut subtree = hash;
        for left in self.frontier.drain(self.frontier.len() - merges as usize..).rev() {
            subtree = tree::node_hash(&left, &subtree);
        }
        self.frontier.push(subtree);
        self.hashes.push(hash);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    fn leaf(position: u32) -> Leaf {
        let digest = Digest::from_bytes([3; 32]);
        Leaf { position, token: position, state: digest, layers: digest, drawn: None }
    }

    #[test]
    fn running_commitments_are_the_roots_of_a_tree_built_at_once() {
        let mut transcript = Transcript::new();
        let mut hashes = Vec::new();
        for position in 0..130 {
            transcript.push(&leaf(position)).unwrap();
            hashes.push(leaf_hash(&leaf(position)));
            let tree = Tree::from_hashes(hashes.clone()).unwrap();
            assert_eq!(transcript.commitment(), tree.commitment());
            let closed = transcript.clone().close(Stop::Length, 1, "x", &hashes[0]).unwrap();
            assert_eq!(closed, Tree::from_hashes(closed.hashes().to_vec()).unwrap());
        }
    }

    #[test]
    fn the_frontier_stays_logarithmic() {
        let mut transcript = Transcript::new();
        for position in 0..1_000 {
            transcript.push(&leaf(position)).unwrap();
            assert_eq!(transcript.frontier.len() as u32, transcript.leaves().count_ones());
        }
    }

    #[test]
    fn a_full_transcript_takes_no_more() {
        let full = Transcript {
            hashes: vec![Digest::from_bytes([0; 32]); MAX_LEAVES as usize],
            frontier: vec![],
        };
        let refused = full.close(Stop::Length, 1, "", &Digest::from_bytes([0; 32]));
        assert_eq!(refused.unwrap_err(), TranscriptError::Full { expected: MAX_LEAVES });
    }

    #[test]
    fn rows_are_told_apart_by_kind_key_length_and_every_value() {
        let key = Digest::from_bytes([1; 32]);
        let row: Vec<i32> = (0..10_000).collect();
        let base = state_digest(&key, &row);
        assert_ne!(base, logits_digest(&key, &row));
        assert_ne!(base, state_digest(&Digest::from_bytes([2; 32]), &row));
        assert_ne!(base, state_digest(&key, &row[..9_999]));
        for index in [0, 1, 4_095, 4_096, 8_191, 8_192, 9_999] {
            let mut altered = row.clone();
            altered[index] ^= i32::MIN;
            assert_ne!(base, state_digest(&key, &altered), "value {index}");
        }
    }
}
