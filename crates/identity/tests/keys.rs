//! Keys and peer ids: what is accepted, what is refused, and agreement with libp2p.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use peerproof_identity::{
    Domain, KeyError, Keypair, NoteError, PeerId, PeerIdError, PublicKey, Signature,
    SignatureError, vrf,
};
use proptest::prelude::*;

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let bytes: Vec<u8> = (0..text.len() / 2)
        .map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

/// The eight points of low order.
const LOW_ORDER: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
];

/// Points with y = 3 and y = 18, written as y + p.
const NOT_CANONICAL: [&str; 2] = [
    "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// y = 2 gives no point.
const NO_POINT: &str = "0200000000000000000000000000000000000000000000000000000000000000";

#[test]
fn weak_and_ambiguous_keys_are_refused() {
    for text in LOW_ORDER {
        let bytes: [u8; 32] = hex(text);
        assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::LowOrder));
        assert_eq!(vrf::Public::from_bytes(&bytes), Err(KeyError::LowOrder));
    }
    for text in NOT_CANONICAL {
        let bytes: [u8; 32] = hex(text);
        assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::NotCanonical));
        assert_eq!(vrf::Public::from_bytes(&bytes), Err(KeyError::NotCanonical));
    }
    let none: [u8; 32] = hex(NO_POINT);
    assert_eq!(PublicKey::from_bytes(&none), Err(KeyError::NotAPoint));
    let length = KeyError::Length { expected: 32, got: 31 };
    assert_eq!(PublicKey::from_bytes(&none[1..]), Err(length));
}

/// RFC 8032, 7.1, the first two tests: key from seed.
#[test]
fn keys_grow_from_seeds_as_in_rfc_8032() {
    for (seed, public) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
    ] {
        let key = Keypair::from_seed(&hex(seed));
        assert_eq!(key.public().to_string(), public);
        assert_eq!(*key.seed(), hex::<32>(seed));
    }
}

#[test]
fn debug_output_holds_no_secret() {
    let seed = [0xa7; 32];
    let key = Keypair::from_seed(&seed);
    let text = format!("{key:?} {:?}", key.vrf());
    let secret: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!text.contains(&secret) && !text.contains("167, 167"));
    assert!(text.contains(&key.public().to_string()));
}

#[test]
fn a_signature_holds_in_its_own_domain_only() {
    let key = Keypair::from_seed(&[1; 32]);
    for signed in Domain::ALL {
        let signature = key.sign(signed, b"message");
        for checked in Domain::ALL {
            let result = key.public().verify(checked, b"message", &signature);
            assert_eq!(result.is_ok(), signed == checked, "{signed:?} as {checked:?}");
        }
        // Nor as a note, even over the very bytes that were signed.
        let bytes = signed.signed_bytes(b"message");
        assert!(key.public().verify_note(&bytes, &signature).is_err());
    }
}

#[test]
fn every_changed_bit_breaks_a_signature() {
    let key = Keypair::from_seed(&[1; 32]);
    let signature = key.sign(Domain::Offer, b"message");
    for bit in 0..64 * 8 {
        let mut bytes = *signature.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let changed = Signature::from_bytes(&bytes).unwrap();
        let result = key.public().verify(Domain::Offer, b"message", &changed);
        assert!(matches!(result, Err(SignatureError::Mismatch { .. })), "bit {bit}");
    }
    for (message, other) in [(&b"message "[..], 1), (b"massage", 1), (b"message", 2)] {
        let public = Keypair::from_seed(&[other; 32]).public();
        assert!(public.verify(Domain::Offer, message, &signature).is_err());
    }
}

/// `s` plus the group order signs the same under a lenient verifier.
#[test]
fn malleable_signatures_are_refused() {
    let key = Keypair::from_seed(&[1; 32]);
    let signature = key.sign(Domain::Offer, b"message");
    let order: [u8; 32] = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut bytes = *signature.as_bytes();
    let mut carry = 0;
    for (byte, add) in bytes[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let second = Signature::from_bytes(&bytes).unwrap();
    assert!(key.public().verify(Domain::Offer, b"message", &second).is_err());
}

#[test]
fn only_notes_are_signed_as_notes() {
    let key = Keypair::from_seed(&[1; 32]);
    let note = b"peerproof.example/log\n7\nAAAA\n";
    let signature = key.sign_note(note).unwrap();
    assert!(key.public().verify_note(note, &signature).is_ok());
    assert!(key.public().verify_note(b"peerproof.example/log\n8\nAAAA\n", &signature).is_err());

    let statement = Domain::Receipt.signed_bytes(b"message\n");
    let refused = NoteError::ControlCharacter { place: 20, got: 0 };
    assert_eq!(key.sign_note(&statement), Err(refused));
    let not_utf8 = NoteError::NotUtf8 { place: 2 };
    assert_eq!(key.sign_note(b"ab\xff\n"), Err(not_utf8));
    assert_eq!(key.sign_note(b"ab"), Err(NoteError::NoFinalNewline));
    assert_eq!(key.sign_note(b""), Err(NoteError::NoFinalNewline));
}

#[test]
fn other_kinds_of_peer_id_are_refused() {
    let check = |text: &str, expected| assert_eq!(text.parse::<PeerId>(), Err(expected), "{text}");
    let length = |got| PeerIdError::Length { expected: 38, got };
    // An RSA id, as bootstrap nodes of other networks have it.
    check("QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN", length(34));
    check("", length(0));
    check("12D3KooW", length(6));
    check("0OIl", PeerIdError::NotBase58);
    check("12D3KooWé", PeerIdError::NotBase58);
    let long = "1".repeat(53);
    check(&long, PeerIdError::TextTooLong { limit: 52, got: 53 });

    let id = Keypair::from_seed(&[1; 32]).public().peer_id();
    let mut secp256k1 = id.to_bytes();
    secp256k1[3] = 2;
    assert_eq!(PeerId::from_bytes(&secp256k1), Err(PeerIdError::NotEd25519));
    let mut weak = id.to_bytes();
    weak[6..].copy_from_slice(&hex::<32>(LOW_ORDER[0]));
    assert_eq!(PeerId::from_bytes(&weak), Err(PeerIdError::Key(KeyError::LowOrder)));
}

proptest! {
    #[test]
    fn peer_ids_equal_those_of_libp2p(seed: [u8; 32]) {
        let mut copy = seed;
        let theirs = libp2p_identity::Keypair::ed25519_from_bytes(&mut copy).unwrap();
        let ours = Keypair::from_seed(&seed).public().peer_id();
        prop_assert_eq!(ours.to_string(), theirs.public().to_peer_id().to_base58());
        prop_assert_eq!(ours.to_bytes().to_vec(), theirs.public().to_peer_id().to_bytes());
        prop_assert_eq!(ours.to_string().parse::<PeerId>().unwrap(), ours);
        prop_assert!(ours.to_string().starts_with("12D3KooW"));
    }

    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100), text: String) {
        let _ = PublicKey::from_bytes(&bytes);
        let _ = PeerId::from_bytes(&bytes);
        let _ = Signature::from_bytes(&bytes);
        let _ = vrf::Public::from_bytes(&bytes);
        let _ = vrf::Proof::from_bytes(&bytes);
        let _ = text.parse::<PeerId>();
    }

    #[test]
    fn wrong_bytes_of_the_right_length_never_panic(key: [u8; 32], proof: [u8; 32], signature: [u8; 32]) {
        let signature = Signature::from_bytes(&[signature, proof].concat()).unwrap();
        if let Ok(key) = PublicKey::from_bytes(&key) {
            prop_assert!(key.verify(Domain::Offer, b"", &signature).is_err());
            let id = key.peer_id();
            prop_assert_eq!(PeerId::from_bytes(&id.to_bytes()).unwrap().public_key(), key);
        }
        let bytes = [&key[..], &proof[..16], signature.as_bytes()[..32].as_ref()].concat();
        if let (Ok(key), Ok(proof)) = (vrf::Public::from_bytes(&key), vrf::Proof::from_bytes(&bytes)) {
            prop_assert!(key.verify(b"", &proof).is_err());
        }
    }
}
