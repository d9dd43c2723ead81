//! Where a receipt and a recomputation part, as narrowly as is known.
//!
//! Several things may be wrong at once. What is reported is the one at the
//! lowest position, because everything after it may be its consequence; at one
//! position, what comes first in the order of a leaf: the token read, the
//! state, the rows between layers, the logits, the random number, the token drawn, the ending.

use peerproof_wire::limits::MAX_MISMATCH_VALUE_BYTES;
use peerproof_wire::{Commitment, Difference, Digest, Leaf, Mismatch, Openings, Receipt};

use super::Recomputation;
use crate::planted::planted;
use crate::transcript::{Tree, leaf_hash, stop_code, verify_path};

/// The first thing known to differ; `None` if the receipt is right.
pub(super) fn compare(
    ours: &Recomputation,
    receipt: &Receipt,
    openings: Option<&Openings>,
) -> Option<Mismatch> {
    let tree = ours.tree();
    let found = [
        wrong_prompt(ours, receipt),
        wrong_token(ours).filter(|_| !planted("any token will do")),
        wrong_component(ours),
        wrong_ending(ours, receipt),
        wrong_leaves(ours, receipt),
        wrong_keys_and_values(ours, receipt),
    ];
    let found: Vec<Mismatch> = found.into_iter().flatten().collect();
    let root = tree.as_ref().map(Tree::root);
    if found.is_empty() && root == Some(receipt.transcript_root) {
        return None;
    }
    let narrowed = openings.and_then(|openings| narrow(ours, tree.as_ref(), receipt, openings));
    // The narrowed one first: of several at one position, `min_by_key` takes the first.
    narrowed.into_iter().chain(found).min_by_key(|mismatch| mismatch.position).or_else(|| {
        let expected = root.map_or(Vec::new(), |root| root.as_bytes().to_vec());
        let got = receipt.transcript_root.as_bytes().to_vec();
        Some(Mismatch { position: 0, what: Difference::Root, expected, got })
    })
}

/// The first answer token that is not the canonical draw.
fn wrong_token(ours: &Recomputation) -> Option<Mismatch> {
    let drawn = ours.leaves.iter().filter_map(|leaf| Some((leaf.position, leaf.drawn.as_ref()?)));
    drawn
        .zip(&ours.answer)
        .find(|((_, drawn), token)| drawn.next != **token)
        .map(|((position, drawn), token)| number(position, Difference::Token, drawn.next, *token))
}

/// The first component of an embedding that differs; all of them come from the last position.
fn wrong_component(ours: &Recomputation) -> Option<Mismatch> {
    let vector = ours.vector.as_ref()?;
    let (expected, got) = vector.iter().zip(&ours.answer).find(|(ours, theirs)| ours != theirs)?;
    Some(number(ours.prompt_tokens.saturating_sub(1), Difference::Token, *expected, *got))
}

/// Where the lengths of two prompts differ, the shorter one's last position
/// draws a token in one transcript and not in the other.
fn wrong_prompt(ours: &Recomputation, receipt: &Receipt) -> Option<Mismatch> {
    let (expected, got) = (ours.prompt_tokens, receipt.prompt_tokens);
    let position = expected.min(got).saturating_sub(1);
    (expected != got).then(|| number(position, Difference::Prompt, expected, got))
}

fn wrong_ending(ours: &Recomputation, receipt: &Receipt) -> Option<Mismatch> {
    let ending = &ours.ending;
    let position = (ours.prompt_tokens + ending.tokens).saturating_sub(1);
    if ending.tokens != receipt.output_tokens {
        return Some(number(position, Difference::Length, ending.tokens, receipt.output_tokens));
    }
    if ending.stop != Some(receipt.stop) {
        let expected = ending.stop.map_or(Vec::new(), |stop| vec![stop_code(stop)]);
        let got = vec![stop_code(receipt.stop)];
        return Some(Mismatch { position, what: Difference::Stop, expected, got });
    }
    let expected = ours.shown_hash();
    (expected != receipt.text_hash)
        .then(|| digest(position, Difference::Text, &expected, &receipt.text_hash))
}

/// The count of leaves, which the root of an honest tree would not give away.
fn wrong_leaves(ours: &Recomputation, receipt: &Receipt) -> Option<Mismatch> {
    let (expected, got) = (ours.leaves.len() as u32 + 1, receipt.leaves);
    let position = expected.min(got).saturating_sub(1);
    (expected != got).then(|| number(position, Difference::Length, expected, got))
}

/// Keys or values, at whatever position, where both sides read the same tokens.
fn wrong_keys_and_values(ours: &Recomputation, receipt: &Receipt) -> Option<Mismatch> {
    let (leaves, expected) = (ours.leaves.len() as u32 + 1, &ours.kv_root);
    (receipt.leaves == leaves && receipt.kv_root != *expected)
        .then(|| digest(leaves - 1, Difference::KeysValues, expected, &receipt.kv_root))
}

/// What the provider's own leaves add. Openings and hashes that do not lead to
/// the signed root prove nothing and are passed over.
fn narrow(
    ours: &Recomputation,
    tree: Option<&Tree>,
    receipt: &Receipt,
    openings: &Openings,
) -> Option<Mismatch> {
    let committed = Commitment { leaves: receipt.leaves, root: receipt.transcript_root };
    let opened = openings.openings.iter().filter(|opening| {
        let hash = leaf_hash(&opening.leaf);
        verify_path(&committed, opening.leaf.position, &hash, &opening.path).is_ok()
    });
    let opened = opened.filter_map(|opening| {
        let leaf = ours.leaves.get(opening.leaf.position as usize)?;
        wrong_leaf(ours, leaf, &opening.leaf)
    });
    let hashed = wrong_hash(ours, tree, &committed, &openings.leaf_hashes);
    opened.chain(hashed).min_by_key(|mismatch| mismatch.position)
}

/// The first leaf whose hash differs.
fn wrong_hash(
    ours: &Recomputation,
    tree: Option<&Tree>,
    committed: &Commitment,
    hashes: &[Digest],
) -> Option<Mismatch> {
    let theirs = Tree::from_hashes(hashes.to_vec()).ok()?;
    if theirs.commitment() != *committed {
        return None;
    }
    let ours = match tree {
        Some(tree) => tree.hashes().to_vec(),
        None => ours.leaves.iter().map(leaf_hash).collect(),
    };
    let index = ours.iter().zip(hashes).position(|(ours, theirs)| ours != theirs)?;
    Some(digest(index as u32, Difference::Leaf, &ours[index], &hashes[index]))
}

/// The first field in which two leaves of one position differ.
fn wrong_leaf(ours: &Recomputation, expected: &Leaf, got: &Leaf) -> Option<Mismatch> {
    let position = expected.position;
    if expected.token != got.token {
        let in_prompt = position < ours.prompt_tokens;
        let what = if in_prompt { Difference::Prompt } else { Difference::Token };
        return Some(number(position, what, expected.token, got.token));
    }
    if expected.state != got.state {
        return Some(digest(position, Difference::State, &expected.state, &got.state));
    }
    if expected.layers != got.layers {
        return Some(digest(position, Difference::Layers, &expected.layers, &got.layers));
    }
    let logits = |leaf: &Leaf| leaf.drawn.as_ref().map(|drawn| drawn.logits);
    if logits(expected) != logits(got) {
        let bytes = |leaf| logits(leaf).map_or(Vec::new(), |digest| digest.as_bytes().to_vec());
        let (expected, got) = (bytes(expected), bytes(got));
        return Some(Mismatch { position, what: Difference::Logits, expected, got });
    }
    let (expected, got) = (expected.drawn.as_ref()?, got.drawn.as_ref()?);
    if expected.draw != got.draw {
        let (expected, got) = (expected.draw.to_le_bytes(), got.draw.to_le_bytes());
        let what = Difference::Draw;
        return Some(Mismatch { position, what, expected: expected.into(), got: got.into() });
    }
    (expected.next != got.next)
        .then(|| number(position, Difference::Token, expected.next, got.next))
}

fn number(position: u32, what: Difference, expected: u32, got: u32) -> Mismatch {
    let (expected, got) = (expected.to_le_bytes(), got.to_le_bytes());
    Mismatch { position, what, expected: expected.into(), got: got.into() }
}

fn digest(position: u32, what: Difference, expected: &Digest, got: &Digest) -> Mismatch {
    let (expected, got) = (expected.as_bytes(), got.as_bytes());
    Mismatch { position, what, expected: expected.into(), got: got.into() }
}

/// A mismatch in words: where, what was recomputed, what was committed.
///
/// ```
/// use peerproof_wire::{Difference, Mismatch};
///
/// let mismatch = Mismatch {
///     position: 17,
///     what: Difference::Token,
///     expected: vec![42, 0, 0, 0],
///     got: vec![7, 0, 0, 0],
/// };
/// assert_eq!(
///     peerproof_proof::audit::describe(&mismatch),
///     "position 17, token: expected 42, got 7"
/// );
/// ```
#[must_use]
pub fn describe(mismatch: &Mismatch) -> String {
    let what = match mismatch.what {
        Difference::Root => "transcript root",
        Difference::Prompt => "prompt",
        Difference::Token => "token",
        Difference::State => "state",
        Difference::Logits => "logits",
        Difference::Draw => "random number",
        Difference::Text => "hash of text and reported probabilities",
        Difference::Stop => "stop",
        Difference::Length => "length of the answer",
        Difference::Leaf => "leaf hash",
        Difference::Layers => "rows between layers",
        Difference::KeysValues => "keys and values",
    };
    let (expected, got) = (value(&mismatch.expected), value(&mismatch.got));
    let place = match mismatch.what {
        Difference::Root => String::new(),
        _ => format!("position {}, ", mismatch.position),
    };
    format!("{place}{what}: expected {expected}, got {got}")
}

/// A value by its length, since what it is follows from that.
fn value(bytes: &[u8]) -> String {
    if let Ok(bytes) = bytes.try_into() {
        return u32::from_le_bytes(bytes).to_string();
    }
    if let Ok(bytes) = bytes.try_into() {
        return u64::from_le_bytes(bytes).to_string();
    }
    match bytes {
        [] => "none".into(),
        [1] => "end of text".into(),
        [2] => "length".into(),
        [3] => "stop string".into(),
        other => {
            let shown = other.iter().take(MAX_MISMATCH_VALUE_BYTES);
            shown.map(|byte| format!("{byte:02x}")).collect()
        }
    }
}
