//! The VRF against RFC 9381, and against tampering.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use peerproof_identity::Keypair;
use peerproof_identity::vrf::{Proof, Public, Secret, VrfError};

const VECTORS: &str = include_str!("../../../vectors/identity/rfc9381-tai.txt");

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
        .collect()
}

/// The fields of each block: sk, pk, alpha, pi, beta.
fn examples() -> Vec<[Vec<u8>; 5]> {
    VECTORS
        .split("\n\n")
        .skip(1)
        .map(|block| {
            let mut lines = block.lines();
            ["sk", "pk", "alpha", "pi", "beta"].map(|name| {
                let line = lines.next().unwrap();
                hex(line.strip_prefix(name).unwrap().trim())
            })
        })
        .collect()
}

#[test]
fn the_examples_of_the_rfc_hold() {
    let examples = examples();
    assert_eq!(examples.len(), 3);
    for [sk, pk, alpha, pi, beta] in examples {
        let secret = Secret::from_seed(&sk.try_into().unwrap());
        assert_eq!(secret.public().as_bytes(), &pk[..]);
        let (output, proof) = secret.prove(&alpha).unwrap();
        assert_eq!(proof.as_bytes(), &pi[..]);
        assert_eq!(output.as_bytes(), &beta[..]);
        let public = Public::from_bytes(&pk).unwrap();
        let proof = Proof::from_bytes(&pi).unwrap();
        assert_eq!(public.verify(&alpha, &proof).unwrap(), output);
    }
}

#[test]
fn every_changed_bit_breaks_a_proof() {
    let [_, pk, alpha, pi, _] = examples().remove(2);
    let public = Public::from_bytes(&pk).unwrap();
    for bit in 0..Proof::BYTES * 8 {
        let mut changed = pi.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let result = Proof::from_bytes(&changed).and_then(|proof| public.verify(&alpha, &proof));
        assert!(result.is_err(), "bit {bit}");
    }
}

#[test]
fn a_proof_fits_one_input_and_one_key() {
    let [_, pk, alpha, pi, _] = examples().remove(2);
    let proof = Proof::from_bytes(&pi).unwrap();
    let public = Public::from_bytes(&pk).unwrap();
    let mismatch = Err(VrfError::Mismatch { key: public });
    assert_eq!(public.verify(b"another input", &proof), mismatch);
    let other = Keypair::from_seed(&[9; 32]).vrf().public();
    let mismatch = Err(VrfError::Mismatch { key: other });
    assert_eq!(other.verify(&alpha, &proof), mismatch);
}

/// RFC 9381, 5.4.4: a proof whose `s` is not below the group order is invalid;
/// otherwise one draw would have two proofs.
#[test]
fn a_second_encoding_of_a_proof_is_refused() {
    let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let [_, _, _, mut pi, _] = examples().remove(0);
    let mut carry = 0;
    for (byte, add) in pi[48..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert_eq!(Proof::from_bytes(&pi), Err(VrfError::NotCanonical));
    let length = VrfError::Length { expected: 80, got: 79 };
    assert_eq!(Proof::from_bytes(&pi[1..]), Err(length));
}

/// The derivation is part of the format: a node's VRF key must not change with
/// the program.
#[test]
fn a_nodes_vrf_key_follows_from_its_seed() {
    let vrf = Keypair::from_seed(&[7; 32]).vrf();
    assert_eq!(
        vrf.public().to_string(),
        "dbc6990e9dcbc6c41ceac9ffef19b52fa8a6a9b2d001c612f428395dff6d87c0"
    );
    assert_ne!(vrf.public().as_bytes(), Keypair::from_seed(&[7; 32]).public().as_bytes());
}
