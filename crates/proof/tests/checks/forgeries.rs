//! Each attack on the proof of an answer, by name, and what it meets.

use peerproof_proof::audit::recompute;
use peerproof_proof::challenge::{ChallengeError, positions};
use peerproof_proof::receipt::BindingError;
use peerproof_proof::transcript::{PathError, verify_path};
use peerproof_proof::{Tree, leaf_hash};
use peerproof_wire::{Challenge, Commitment, Difference, Digest, Leaf, Message, Offer, Openings};

use crate::attacks::{bound, caught, challenged, opened};
use crate::support::{Served, Toy, commit, long_offer, provider, serve, sign};

#[test]
fn closing_leaf_swapped() {
    // A tree closed with another text than the receipt states, at lengths that
    // put the closing leaf at every height.
    for max_tokens in 1..=20 {
        let offer = sign(Offer { max_tokens, ..long_offer() });
        let honest = serve(&Toy::default(), &offer);
        let other = commit(
            &provider(),
            &offer,
            honest.leaves.clone(),
            honest.tokens.clone(),
            "something else",
            honest.stop,
        );
        let swapped = other.with_receipt(|receipt| receipt.text_hash = honest.receipt.text_hash);
        let swapped = Served { text: honest.text.clone(), ..swapped };
        assert_eq!(bound(&swapped), Ok(()));
        let challenge = swapped.challenge(false);
        let openings = swapped.respond(&challenge);
        assert!(matches!(
            opened(&swapped, &challenge, &openings),
            Err(ChallengeError::Closing { .. })
        ));
        assert_eq!(caught(&swapped, None), (0, Difference::Root));
        let hashes = Openings { openings: vec![], leaf_hashes: swapped.tree.hashes().to_vec() };
        assert_eq!(caught(&swapped, Some(&hashes)), (swapped.receipt.leaves - 1, Difference::Leaf));
    }
}

#[test]
fn opening_under_a_wrong_index() {
    let served = serve(&Toy::default(), &sign(long_offer()));
    let root = served.tree.commitment();
    for index in 0..root.leaves - 1 {
        let hash = leaf_hash(&served.leaves[index as usize]);
        let path = served.tree.open(index).unwrap();
        assert_eq!(verify_path(&root, index, &hash, &path), Ok(()));
        for wrong in (0..root.leaves).filter(|wrong| *wrong != index) {
            assert!(verify_path(&root, wrong, &hash, &path).is_err(), "{index} as {wrong}");
        }
        // A leaf says itself which position it is.
        let moved = Leaf { position: index + 1, ..served.leaves[index as usize].clone() };
        assert!(matches!(
            verify_path(&root, index, &leaf_hash(&moved), &path),
            Err(PathError::Root { .. })
        ));
    }
}

fn tree_of(leaves: u32) -> Tree {
    let hash = |index: u32| Digest::from_bytes([index as u8; 32]);
    Tree::from_hashes((0..leaves).map(hash).collect()).unwrap()
}

#[test]
fn root_passed_off_as_a_longer_or_shorter_transcript() {
    for leaves in 1..=20 {
        let tree = tree_of(leaves);
        for index in 0..leaves {
            let path = tree.open(index).unwrap();
            let leaf = &tree.hashes()[index as usize];
            for claimed in (1..=40).filter(|claimed| *claimed != leaves) {
                let root = Commitment { leaves: claimed, root: tree.root() };
                assert!(verify_path(&root, index, leaf, &path).is_err(), "{leaves} as {claimed}");
            }
        }
    }
}

#[test]
fn odd_leaf_duplicated() {
    for leaves in (1..=21).step_by(2) {
        let mut hashes = tree_of(leaves).hashes().to_vec();
        hashes.extend(hashes.last().copied());
        let doubled = Tree::from_hashes(hashes).unwrap();
        let odd = tree_of(leaves);
        assert_ne!(odd.root(), doubled.root());
        // Nor does a path that pairs the odd leaf with itself lead anywhere.
        let last = leaves - 1;
        let mut path = odd.open(last).unwrap();
        path.insert(0, odd.hashes()[last as usize]);
        let hash = odd.hashes()[last as usize];
        assert!(matches!(
            verify_path(&odd.commitment(), last, &hash, &path),
            Err(PathError::Length { .. })
        ));
        let claimed = Commitment { leaves: leaves + 1, root: odd.root() };
        assert!(verify_path(&claimed, leaves, &hash, &path).is_err());
    }
}

#[test]
fn second_preimage_an_inner_node_as_a_leaf() {
    // The four inner nodes over eight leaves, presented as a transcript of four.
    let tree = tree_of(8);
    let node = |index: u32| tree.open(index ^ 2).unwrap()[1];
    let nodes: Vec<Digest> = [0, 2, 4, 6].map(node).to_vec();
    let short = Tree::from_hashes(nodes.clone()).unwrap();
    assert_ne!(short.root(), tree.root());
    for (index, node) in (0..).zip(&nodes) {
        let path = &tree.open(2 * index).unwrap()[1..];
        for leaves in [4, 8] {
            for index in [index, 2 * index] {
                let root = Commitment { leaves, root: tree.root() };
                assert!(verify_path(&root, index, node, path).is_err());
            }
        }
    }
}

#[test]
fn paths_too_short_and_too_long() {
    let tree = tree_of(11);
    for index in 0..11 {
        let path = tree.open(index).unwrap();
        let hash = &tree.hashes()[index as usize];
        for cut in 0..path.len() {
            assert!(matches!(
                verify_path(&tree.commitment(), index, hash, &path[..cut]),
                Err(PathError::Length { .. })
            ));
        }
        let long = [&path[..], &[tree.root()]].concat();
        assert!(matches!(
            verify_path(&tree.commitment(), index, hash, &long),
            Err(PathError::Length { .. })
        ));
    }
    let beyond = verify_path(&tree.commitment(), 11, &tree.root(), &[]);
    assert_eq!(beyond, Err(PathError::Index { expected: 11, got: 11 }));
}

#[test]
fn challenge_ground_before_the_nonce_is_known() {
    let served = serve(&Toy::default(), &sign(long_offer()));
    let mut receipt = served.receipt.statement().clone();
    receipt.leaves = 4_000;
    // A forger that knows the root and re-rolls junk leaves meets a fresh draw
    // with each nonce: over many nonces no position is spared and none favoured.
    let mut hits = vec![0_u32; 4_000];
    for nonce in 0..4_000_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&nonce.to_le_bytes());
        let drawn = positions(&bytes, &receipt);
        assert!(drawn.len() == 16 || drawn.len() == 17);
        for position in drawn {
            hits[position as usize] += 1;
        }
    }
    assert_eq!(hits[3_999], 0, "the closing leaf has no position");
    assert_eq!(hits[3_998], 4_000, "the last position is always opened");
    // 16 expected with a spread of 4: nothing honest comes near 0 or 45.
    assert!(hits[..3_998].iter().all(|count| (1..45).contains(count)));
    // And one nonce draws anew for each root.
    let first = positions(&[1; 32], &receipt);
    receipt.transcript_root = Digest::from_bytes([1; 32]);
    assert_ne!(first, positions(&[1; 32], &receipt));
    // A nonce chosen after the fact is not the one the offer hides.
    let challenge = Challenge { client_nonce: [9; 32], ..served.challenge(false) };
    let openings = served.respond(&served.challenge(false));
    assert!(matches!(opened(&served, &challenge, &openings), Err(ChallengeError::Nonce { .. })));
}

#[test]
fn openings_withheld_doubled_or_out_of_order() {
    let served = serve(&Toy::default(), &sign(long_offer()));
    let challenge = served.challenge(true);
    let full = served.respond(&challenge);
    let alter = |change: fn(&mut Openings)| {
        let mut altered = full.clone();
        change(&mut altered);
        opened(&served, &challenge, &altered).unwrap_err()
    };
    assert!(matches!(alter(|all| drop(all.openings.pop())), ChallengeError::Count { .. }));
    assert!(matches!(alter(|all| all.openings.clear()), ChallengeError::Count { .. }));
    assert!(matches!(
        alter(|all| all.openings[1] = all.openings[0].clone()),
        ChallengeError::Order { index: 1, .. }
    ));
    assert!(matches!(alter(|all| all.openings.swap(0, 1)), ChallengeError::Order { .. }));
    assert!(matches!(alter(|all| all.leaf_hashes.clear()), ChallengeError::HashCount { .. }));
    assert!(matches!(
        alter(|all| all.leaf_hashes[3] = Digest::from_bytes([0; 32])),
        ChallengeError::HashRoot { .. }
    ));
    let unasked = opened(&served, &served.challenge(false), &full).unwrap_err();
    assert!(matches!(unasked, ChallengeError::HashCount { expected: 0, .. }));
}

#[test]
fn a_transcript_too_long_for_its_hashes_is_opened_by_position() {
    let leaf = |position: u32| Leaf {
        position,
        token: 1,
        state: Digest::from_bytes([0; 32]),
        layers: Digest::from_bytes([0; 32]),
        drawn: None,
    };
    let offer = sign(Offer { max_tokens: 1, ..long_offer() });
    let mut leaves: Vec<Leaf> = (0..30_000).map(leaf).collect();
    let honest = serve(&Toy::default(), &offer);
    let drawn = honest.leaves.last().unwrap().drawn.clone();
    leaves.last_mut().unwrap().drawn = drawn;
    let served = commit(&provider(), &offer, leaves, honest.tokens, &honest.text, honest.stop);
    let challenge = served.challenge(true);
    let openings = served.respond(&challenge);
    assert_eq!(openings.leaf_hashes, []);
    assert_eq!(opened(&served, &challenge, &openings), Ok(()));
    let size = openings.encode().unwrap().len();
    assert!(size < 16 << 10, "{size} bytes");
}

#[test]
fn running_commitment_to_another_history() {
    let mut served = serve(&Toy::default(), &sign(long_offer()));
    served.commitments[0].root = Digest::from_bytes([0; 32]);
    assert_eq!(bound(&served), Ok(()));
    assert!(matches!(challenged(&served), Err(ChallengeError::Commitment { .. })));
    let recomputation = recompute(&Toy::default(), &served.offer, &served.tokens).unwrap();
    let wrong = recomputation.first_wrong_commitment(&served.commitments);
    assert_eq!(wrong, Some(&served.commitments[0]));
}

#[test]
fn running_commitments_out_of_order_or_beyond_the_receipt() {
    let mut served = serve(&Toy::default(), &sign(long_offer()));
    served.commitments.swap(0, 1);
    assert!(matches!(bound(&served), Err(BindingError::Commitment { index: 1, .. })));
    served.commitments[0].leaves = served.receipt.leaves;
    assert!(matches!(bound(&served), Err(BindingError::Commitment { index: 0, .. })));
}
