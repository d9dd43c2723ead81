//! Opening leaves: which ones, how a provider answers, what the answer shows.
//!
//! The router hides a nonce behind its hash in the offer and reveals it once it
//! has the receipt. Nonce and root together draw the positions, so a provider
//! cannot know them before it is bound, and a router cannot choose them after.
//! Between strangers an auditor's VRF output takes the nonce's place.
//!
//! [`respond`] is the provider's side, [`verify_openings`] the other one. Every
//! answer opens the last position too, because its path always holds the
//! closing leaf, which is checked against the receipt.
//!
//! What openings show is that the provider committed to these leaves and that
//! the leaves fit the answer. Whether the model says so takes a recomputation;
//! a check without one is not an audit.

use std::collections::BTreeSet;

use peerproof_identity::vrf::Output;
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::limits::MAX_LEAF_HASHES;
use peerproof_wire::{
    Challenge, Commitment, Digest, Leaf, Offer, Opening, Openings, Prompt, Receipt, Signed,
};

use crate::hash::Tagged;
use crate::seed;
use crate::transcript::{PathError, Tree, closing_hash, leaf_hash, verify_path};

/// How many positions a challenge draws, beside the last one.
pub const DRAWN_POSITIONS: u32 = 16;

/// Why a challenge or its answer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// The challenge is about another receipt.
    #[error("challenge receipt id: expected {expected}, got {got}")]
    Receipt {
        /// The receipt at hand.
        expected: Digest,
        /// The receipt asked about.
        got: Digest,
    },
    /// The nonce is not the one hidden in the offer.
    #[error("challenge nonce: expected hash {expected}, got {got}")]
    Nonce {
        /// The hash in the offer.
        expected: Digest,
        /// The hash of the nonce shown.
        got: Digest,
    },
    /// The transcript has no such position.
    #[error("challenge position: expected less than {expected}, got {got}")]
    Position {
        /// Positions of the transcript.
        expected: u32,
        /// The position asked for.
        got: u32,
    },
    /// The answer opens more or fewer positions than asked for.
    #[error("openings: expected {expected}, got {got}")]
    Count {
        /// Positions asked for.
        expected: usize,
        /// Leaves opened.
        got: usize,
    },
    /// A leaf opened is not the one asked for at its place.
    #[error("opening {index}: expected position {expected}, got {got}")]
    Order {
        /// Place in the answer.
        index: usize,
        /// The position asked for.
        expected: u32,
        /// The position of the leaf.
        got: u32,
    },
    /// A leaf does not belong to the signed root.
    #[error("opening of position {position}: {source}")]
    Path {
        /// The position.
        position: u32,
        /// What is wrong with the path.
        source: PathError,
    },
    /// A leaf holds another token than prompt or answer.
    #[error("opened leaf {position} {what}: expected {expected}, got {got}")]
    Token {
        /// The position.
        position: u32,
        /// Which of the leaf's tokens.
        what: &'static str,
        /// The token of prompt or answer.
        expected: u32,
        /// The token of the leaf.
        got: u32,
    },
    /// A draw stands where none belongs, or is missing where one does.
    #[error("opened leaf {position} draw: expected present = {expected}, got {}", !expected)]
    Drawn {
        /// The position.
        position: u32,
        /// Whether it draws a token.
        expected: bool,
    },
    /// The random number is not the one that the offer's seed gives.
    #[error("opened leaf {position} random number: expected {expected}, got {got}")]
    Number {
        /// The position.
        position: u32,
        /// As the offer determines it; 0 when sampling is greedy.
        expected: u64,
        /// The number in the leaf.
        got: u64,
    },
    /// The closing leaf behind the root is not the receipt's.
    #[error("closing leaf: expected {expected}, got {got}")]
    Closing {
        /// As the receipt has it.
        expected: Digest,
        /// As the transcript has it.
        got: Digest,
    },
    /// The hashes of the leaves were asked for and did not come, or came unasked.
    #[error("leaf hashes: expected {expected}, got {got}")]
    HashCount {
        /// How many there should be.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// The hashes of the leaves lead to another root.
    #[error("leaf hashes: expected root {expected}, got {got}")]
    HashRoot {
        /// The signed root.
        expected: Digest,
        /// The root of the hashes.
        got: Digest,
    },
    /// A running commitment was not this transcript's.
    #[error("running commitment over {leaves} leaves: expected root {expected}, got {got}")]
    Commitment {
        /// Leaves it covers.
        leaves: u32,
        /// The root over as many leaves of this transcript.
        expected: Digest,
        /// The root that was sent.
        got: Digest,
    },
}

/// The positions that a revealed client nonce draws, ascending, the last one included.
///
/// `receipt` must have passed [`verify_terms`](crate::receipt::verify_terms).
#[must_use]
pub fn positions(nonce: &[u8; 32], receipt: &Receipt) -> BTreeSet<u32> {
    draw(Tagged::new("peerproof challenge v1").fixed(nonce), receipt)
}

/// The positions that an auditor's VRF output draws, as [`positions`] does.
#[must_use]
pub fn positions_by_lot(output: &Output, receipt: &Receipt) -> BTreeSet<u32> {
    draw(Tagged::new("peerproof challenge by lot v1").fixed(output.as_bytes()), receipt)
}

/// Floyd's sampling: as many distinct positions as wanted in as many steps.
fn draw(seed: Tagged, receipt: &Receipt) -> BTreeSet<u32> {
    let positions = receipt.leaves.saturating_sub(1);
    let mut stream = seed.fixed(receipt.transcript_root.as_bytes()).u32(receipt.leaves).stream();
    let mut drawn = BTreeSet::new();
    for highest in positions.saturating_sub(DRAWN_POSITIONS)..positions {
        let mut word = [0; 8];
        stream.fill(&mut word);
        let product = u128::from(u64::from_le_bytes(word)) * (u128::from(highest) + 1);
        let candidate = (product >> 64) as u32;
        if !drawn.insert(candidate) {
            drawn.insert(highest);
        }
    }
    drawn.extend(positions.checked_sub(1));
    drawn
}

/// Every position a challenge asks to open: those its nonce draws and those it names.
pub fn asked(
    offer: &Offer,
    receipt: &Signed<Receipt>,
    challenge: &Challenge,
) -> Result<BTreeSet<u32>, ChallengeError> {
    if challenge.receipt_id != receipt.id() {
        return Err(ChallengeError::Receipt { expected: receipt.id(), got: challenge.receipt_id });
    }
    let got = client_nonce_hash(&challenge.client_nonce);
    if got != offer.client_nonce_hash {
        return Err(ChallengeError::Nonce { expected: offer.client_nonce_hash, got });
    }
    let end = receipt.leaves.saturating_sub(1);
    if let Some(&got) = challenge.positions.iter().find(|position| **position >= end) {
        return Err(ChallengeError::Position { expected: end, got });
    }
    let mut asked = positions(&challenge.client_nonce, receipt);
    asked.extend(&challenge.positions);
    Ok(asked)
}

/// A provider's answer to a challenge. `leaves` are all but the closing one.
pub fn respond(
    offer: &Offer,
    receipt: &Signed<Receipt>,
    leaves: &[Leaf],
    tree: &Tree,
    challenge: &Challenge,
) -> Result<Openings, ChallengeError> {
    let asked: Vec<u32> = asked(offer, receipt, challenge)?.into_iter().collect();
    let paths =
        tree.open_all(&asked).map_err(|source| ChallengeError::Path { position: 0, source })?;
    let mut openings = Vec::with_capacity(asked.len());
    for (position, path) in asked.into_iter().zip(paths) {
        let leaf = leaves
            .get(position as usize)
            .cloned()
            .ok_or(ChallengeError::Position { expected: leaves.len() as u32, got: position })?;
        openings.push(Opening { leaf, path });
    }
    let leaf_hashes =
        if hashes_due(receipt, challenge) { tree.hashes().to_vec() } else { Vec::new() };
    Ok(Openings { openings, leaf_hashes })
}

/// Checks a provider's answer to a challenge: every leaf asked for is there,
/// belongs to the signed root and fits offer, prompt length and answer; where
/// leaf hashes were asked for (and fit a frame), they have that root, and every running
/// commitment seen was a root on the way to it.
///
/// `receipt` and `tokens` must have passed [`verify_bindings`](crate::receipt::verify_bindings).
pub fn verify_openings(
    offer: &Offer,
    receipt: &Signed<Receipt>,
    tokens: &[u32],
    commitments: &[Commitment],
    challenge: &Challenge,
    answer: &Openings,
) -> Result<(), ChallengeError> {
    let asked = asked(offer, receipt, challenge)?;
    if answer.openings.len() != asked.len() {
        return Err(ChallengeError::Count { expected: asked.len(), got: answer.openings.len() });
    }
    for (index, (expected, opening)) in asked.iter().zip(&answer.openings).enumerate() {
        let got = opening.leaf.position;
        if got != *expected {
            return Err(ChallengeError::Order { index, expected: *expected, got });
        }
        verify_opening(receipt, opening)?;
        verify_leaf(offer, receipt, tokens, &opening.leaf)?;
    }
    let expected = if hashes_due(receipt, challenge) { receipt.leaves as usize } else { 0 };
    if answer.leaf_hashes.len() != expected {
        return Err(ChallengeError::HashCount { expected, got: answer.leaf_hashes.len() });
    }
    if hashes_due(receipt, challenge) {
        verify_leaf_hashes(receipt, commitments, &answer.leaf_hashes)?;
    }
    Ok(())
}

/// Leaf hashes are sent if asked for, and if they fit a frame.
fn hashes_due(receipt: &Receipt, challenge: &Challenge) -> bool {
    challenge.leaf_hashes && receipt.leaves as usize <= MAX_LEAF_HASHES
}

/// Checks that an opened leaf belongs to the root a receipt signs and, where the
/// path shows the closing leaf, that this is the receipt's.
pub fn verify_opening(receipt: &Receipt, opening: &Opening) -> Result<(), ChallengeError> {
    let position = opening.leaf.position;
    let committed = Commitment { leaves: receipt.leaves, root: receipt.transcript_root };
    verify_path(&committed, position, &leaf_hash(&opening.leaf), &opening.path)
        .map_err(|source| ChallengeError::Path { position, source })?;
    let expected = closing_of(receipt);
    match closing_place(position, receipt.leaves).and_then(|place| opening.path.get(place)) {
        Some(got) if *got != expected => Err(ChallengeError::Closing { expected, got: *got }),
        _ => Ok(()),
    }
}

/// The closing leaf that a receipt stands for.
fn closing_of(receipt: &Receipt) -> Digest {
    closing_hash(receipt.stop, receipt.output_tokens, &receipt.text_hash, &receipt.kv_root)
}

/// Where the path of `position` shows the closing leaf: at the last position, at
/// the height to which the closing leaf rises before it meets a neighbour.
fn closing_place(position: u32, leaves: u32) -> Option<usize> {
    let closing = leaves.checked_sub(1)?;
    (position.checked_add(1)? == closing).then_some(closing.trailing_zeros() as usize)
}

/// Checks what a leaf says about tokens and random number against offer and answer.
pub fn verify_leaf(
    offer: &Offer,
    receipt: &Receipt,
    tokens: &[u32],
    leaf: &Leaf,
) -> Result<(), ChallengeError> {
    let position = leaf.position;
    let same = |what, expected: Option<&u32>, got: u32| match expected {
        Some(&expected) if expected != got => {
            Err(ChallengeError::Token { position, what, expected, got })
        }
        _ => Ok(()),
    };
    let read = match (position.checked_sub(receipt.prompt_tokens), &offer.prompt) {
        (Some(index), _) => tokens.get(index as usize),
        (None, Prompt::Tokens(ids)) => ids.get(position as usize),
        (None, Prompt::Chat(_) | Prompt::Text(_)) => None,
    };
    same("token", read, leaf.token)?;
    let index = position.saturating_add(1).checked_sub(receipt.prompt_tokens);
    let index = index.filter(|_| offer.pooling.is_none());
    match (&leaf.drawn, index) {
        (None, None) => Ok(()),
        (Some(drawn), Some(index)) => {
            verify_number(offer, position, index, drawn.draw)?;
            same("next token", tokens.get(index as usize), drawn.next)
        }
        _ => Err(ChallengeError::Drawn { position, expected: index.is_some() }),
    }
}

fn verify_number(offer: &Offer, position: u32, index: u32, got: u64) -> Result<(), ChallengeError> {
    let expected = match offer.sampling.temperature_q16 {
        0 => 0,
        _ => seed::draw(&seed::sampling_seed(offer), index.into()),
    };
    if expected == got { Ok(()) } else { Err(ChallengeError::Number { position, expected, got }) }
}

/// Checks that leaf hashes have the signed root and the receipt's closing leaf,
/// and that running commitments were roots over their beginnings.
pub fn verify_leaf_hashes(
    receipt: &Receipt,
    commitments: &[Commitment],
    hashes: &[Digest],
) -> Result<Tree, ChallengeError> {
    let expected = receipt.leaves as usize;
    let got = hashes.len();
    let tree = match Tree::from_hashes(hashes.to_vec()) {
        Ok(tree) if got == expected => tree,
        _ => return Err(ChallengeError::HashCount { expected, got }),
    };
    if tree.root() != receipt.transcript_root {
        return Err(ChallengeError::HashRoot {
            expected: receipt.transcript_root,
            got: tree.root(),
        });
    }
    let expected = closing_of(receipt);
    match hashes.last() {
        Some(got) if *got != expected => {
            return Err(ChallengeError::Closing { expected, got: *got });
        }
        _ => {}
    }
    for commitment in commitments {
        verify_commitment(&tree, commitment)?;
    }
    Ok(tree)
}

fn verify_commitment(tree: &Tree, commitment: &Commitment) -> Result<(), ChallengeError> {
    let leaves = commitment.leaves;
    match tree.root_at(leaves) {
        Ok(expected) if expected != commitment.root => {
            Err(ChallengeError::Commitment { leaves, expected, got: commitment.root })
        }
        Ok(_) => Ok(()),
        Err(_) => Err(ChallengeError::Position { expected: tree.leaves(), got: leaves }),
    }
}
