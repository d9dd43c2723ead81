//! What members read and strangers don't.

use std::collections::BTreeSet;

use super::*;
use crate::topics::advert::{Class, Query};
use crate::topics::registrar::{Answer, Registrar, Request};
use crate::{Chance, Millis};

const NOW_S: u64 = 1_700_000_000;
const TIMES: (u64, u64) = (NOW_S, NOW_S + 7200);

fn node(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

fn epoch(secret: u8, number: u64) -> Epoch {
    GroupSecret::new([secret; 32]).epoch(number, &Beacon([9; 32]))
}

fn offering(name: &str) -> Offering {
    let (model, class, name) = ([7; 32], Class::Exact, name.to_owned());
    Offering { model, name, class, context_length: 2048, price: 0, region: None, endpoints: vec![] }
}

fn sealed(n: u8) -> Advert {
    epoch(1, 3).seal(&node(n), offering("ours"), TIMES, [n; 12]).expect("short")
}

#[test]
fn members_read_who_offers_what_and_others_nothing() {
    let advert = sealed(5);
    let opened = epoch(1, 3).open(&advert, NOW_S).expect("a member's");
    assert_eq!(opened, Opened { publisher: node(5).public(), offering: offering("ours") });
    assert_ne!(advert.publisher(), node(5).public());
    for other in [epoch(2, 3), epoch(1, 4), GroupSecret::new([1; 32]).epoch(3, &Beacon([8; 32]))] {
        assert_eq!(other.open(&advert, NOW_S), Err(PrivateError::Sealed));
    }
    // Nothing of it stands in the bytes.
    let bytes = advert.as_bytes();
    for part in [&node(5).public().as_bytes()[..], b"ours", &[7; 32]] {
        assert!(!bytes.windows(part.len()).any(|window| window == part));
    }
}

#[test]
fn epochs_have_nothing_in_common_that_a_stranger_sees() {
    let epochs: Vec<Epoch> = (0..50).map(|number| epoch(1, number)).collect();
    let topics: BTreeSet<Topic> = epochs.iter().map(Epoch::topic).collect();
    let keys: BTreeSet<PublicKey> = epochs.iter().map(|e| e.publisher(&node(5)).public()).collect();
    assert_eq!((topics.len(), keys.len()), (50, 50));
    // Two groups of one node can't be linked either.
    assert_ne!(epoch(2, 0).publisher(&node(5)).public(), epochs[0].publisher(&node(5)).public());
    let lengths: BTreeSet<usize> = ["", "a name", "a name that is a good deal longer"]
        .iter()
        .map(|name| epochs[0].seal(&node(5), offering(name), TIMES, [1; 12]).expect("short"))
        .map(|advert| advert.as_bytes().len())
        .collect();
    assert_eq!(lengths.len(), 1);
    assert!(lengths.iter().all(|length| *length <= 1000));
}

#[test]
fn one_epoch_follows_another_with_an_overlap() {
    let mut both = 0;
    for s in (10 * EPOCH_S..12 * EPOCH_S).step_by(60) {
        let (number, before) = epochs_at(s);
        assert_eq!(number, s / EPOCH_S);
        both += u64::from(before.is_some());
        assert!(before.is_none_or(|before| before + 1 == number));
    }
    assert_eq!(both * 60, 2 * OVERLAP_S);
    assert_eq!(epochs_at(0), (0, None));
}

#[test]
fn a_certificate_is_for_one_key_in_one_epoch() {
    // A member that has read another's certificate seals it under a key of its own.
    let (ours, thief) = (epoch(1, 3), node(6));
    let Said::Sealed(bytes) = sealed(5).said().clone() else { panic!("it is sealed") };
    let blinded = ours.publisher(&node(5)).public();
    let mut text = bytes[12..bytes.len() - 16].to_vec();
    let tag = Tag::from_slice(&bytes[bytes.len() - 16..]);
    ours.cipher(&blinded)
        .decrypt_in_place_detached(
            Nonce::from_slice(&bytes[..12]),
            blinded.as_bytes(),
            &mut text,
            tag,
        )
        .expect("a member reads it");
    let own = ours.publisher(&thief);
    let tag = ours
        .cipher(&own.public())
        .encrypt_in_place_detached(Nonce::from_slice(&[1; 12]), own.public().as_bytes(), &mut text)
        .expect("short");
    let stolen = [&[1; 12][..], &text, &tag].concat();
    let stolen = Advert::sign_sealed(&own, ours.topic(), stolen, TIMES).expect("short");
    assert_eq!(ours.open(&stolen, NOW_S), Err(PrivateError::Certificate(AdvertError::Topic)));
    // Over is over, and what is open is not private.
    assert!(matches!(ours.open(&sealed(5), NOW_S + 7201), Err(PrivateError::Certificate(_))));
    let open = Advert::sign(&own, ours.topic(), offering("ours"), TIMES).expect("short");
    assert_eq!(ours.open(&open, NOW_S), Err(PrivateError::Open));
}

#[test]
fn every_changed_byte_is_noticed() {
    let advert = sealed(5);
    let Said::Sealed(bytes) = advert.said().clone() else { panic!("it is sealed") };
    let blinded = epoch(1, 3).publisher(&node(5));
    for place in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        let changed = Advert::sign_sealed(&blinded, advert.topic(), changed, TIMES).expect("short");
        assert_eq!(epoch(1, 3).open(&changed, NOW_S), Err(PrivateError::Sealed), "{place}");
        let cut = bytes[..place].to_vec();
        let cut = Advert::sign_sealed(&blinded, advert.topic(), cut, TIMES).expect("short");
        assert_eq!(epoch(1, 3).open(&cut, NOW_S), Err(PrivateError::Sealed), "{place}");
    }
}

/// A registrar takes and gives what it can't read.
#[test]
fn registrars_carry_what_they_cannot_read() {
    let mut registrar = Registrar::new([3; 32], Chance::new([4; 32]), true);
    let advert = sealed(5);
    let from = "127.0.0.1".parse().expect("an address");
    let first = Request { topic: advert.topic(), advert: advert.as_bytes(), ticket: None, from };
    let Ok(Answer::Wait { ticket, wait_ms }) = registrar.register(&first, Millis(0), NOW_S) else {
        panic!("there is always a ticket first");
    };
    let again = Request { ticket: Some(&ticket), ..first };
    let answer = registrar.register(&again, Millis(wait_ms), NOW_S);
    assert!(matches!(answer, Ok(Answer::Registered { .. })), "{answer:?}");
    let found = registrar.answer(advert.topic(), &Query::default(), Millis(10));
    assert_eq!(epoch(1, 3).open(&found[0], NOW_S).expect("ours").publisher, node(5).public());
    let picky = Query { min_context: 1, ..Query::default() };
    assert!(registrar.answer(advert.topic(), &picky, Millis(10)).is_empty());
}
