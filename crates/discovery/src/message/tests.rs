//! Round trips, golden bytes, and what strangers' bytes may do.

use super::*;
use peerproof_identity::Keypair;
use proptest::prelude::*;

fn contact(seed: u8) -> Contact {
    Contact {
        peer: Keypair::from_seed(&[seed; 32]).public().peer_id(),
        addresses: vec![Address::quic(IpAddr::from([192, 0, 2, seed]), 4001)],
    }
}

fn full() -> Message {
    Message {
        kind: Kind::GetValue,
        name: vec![7; 32],
        value: Some(Value { name: vec![7; 32], bytes: vec![9; 200] }),
        closer: (1..=20).map(contact).collect(),
        providers: vec![contact(30)],
        point: Some(Key::of(b"point")),
        nonce: Some([1; 32]),
        signature: Some([2; 64]),
        token: Some([3; 16]),
        refused: true,
    }
}

#[test]
fn a_message_comes_back_as_it_went() {
    let mut messages = vec![full(), Message::default()];
    messages.extend(Kind::ALL.map(|kind| Message::new(kind, b"name")));
    for message in messages {
        assert_eq!(Message::decode(&message.encode()), Ok(message.clone()));
        let mut framed = message.encode_framed();
        let length = framed.len();
        for cut in 0..length {
            assert_eq!(decode_framed(&framed[..cut]), Ok(None), "{cut}");
        }
        framed.push(0);
        assert_eq!(decode_framed(&framed), Ok(Some((message, length))));
    }
}

/// FIND_NODE for "ab" as any protobuf encoder writes it: field 1 = 4, field 2 = 2 bytes.
#[test]
fn the_bytes_are_those_of_libp2p() {
    let question = Message::new(Kind::FindNode, b"ab");
    assert_eq!(question.encode(), [0x08, 4, 0x12, 2, b'a', b'b']);
    // libp2p writes clusterLevelRaw (field 10) as well.
    assert_eq!(Message::decode(&[0x08, 4, 0x12, 2, b'a', b'b', 0x50, 10]), Ok(question));
    let put = Message {
        value: Some(Value { name: b"k".to_vec(), bytes: b"v".to_vec() }),
        ..Message::new(Kind::PutValue, b"k")
    };
    assert_eq!(put.encode(), [0x12, 1, b'k', 0x1a, 6, 0x0a, 1, b'k', 0x12, 1, b'v']);
}

#[test]
fn an_address_names_its_host() {
    let v4 = IpAddr::from([192, 0, 2, 1]);
    let v6: IpAddr = "2001:db8::1".parse().expect("an address");
    for ip in [v4, v6] {
        assert_eq!(Address::quic(ip, 9).ip(), Some(ip));
    }
    assert_eq!(Address::from_bytes(&[4, 1, 2]).and_then(|address| address.ip()), None);
    assert_eq!(Address::from_bytes(&[54, 1, b'a']).and_then(|address| address.ip()), None);
    assert_eq!(Address::from_bytes(&[]), None);
    assert_eq!(Address::from_bytes(&[4; MAX_ADDRESS_BYTES + 1]), None);
}

#[test]
fn every_limit_holds() {
    let peers =
        |count| Message { closer: vec![contact(1); count], ..Message::new(Kind::FindNode, b"x") };
    assert!(Message::decode(&peers(MAX_PEERS_PER_MESSAGE).encode()).is_ok());
    let too_many = Message::decode(&peers(MAX_PEERS_PER_MESSAGE + 1).encode());
    assert!(matches!(too_many, Err(MessageError::TooMany { what: "closer peers", .. })));
    let long_key = Message::new(Kind::FindNode, &[0; MAX_KEY_BYTES + 1]);
    assert!(matches!(
        Message::decode(&long_key.encode()),
        Err(MessageError::TooMany { what: "key", .. })
    ));
    let value = Some(Value { name: vec![1], bytes: vec![0; MAX_VALUE_BYTES + 1] });
    let long_value = Message { value, ..Message::new(Kind::PutValue, b"x") };
    assert!(matches!(
        Message::decode(&long_value.encode()),
        Err(MessageError::TooMany { what: "value", .. })
    ));
    assert!(matches!(
        Message::decode(&vec![0; MAX_MESSAGE_BYTES + 1]),
        Err(MessageError::TooMany { what: "message", .. })
    ));
    let mut announced = Writer::default();
    announced.varint(MAX_MESSAGE_BYTES as u64 + 1);
    assert!(decode_framed(&announced.done()).is_err(), "refused before a byte of it came");
    let mut many = contact(1);
    many.addresses = vec![many.addresses[0].clone(); MAX_ADDRESSES_PER_CONTACT + 5];
    let message = Message { closer: vec![many], ..peers(0) };
    let read = Message::decode(&message.encode()).expect("a message");
    assert_eq!(read.closer[0].addresses.len(), MAX_ADDRESSES_PER_CONTACT);
}

#[test]
fn the_largest_honest_message_fits() {
    let mut wide = contact(1);
    wide.addresses = vec![
        Address::from_bytes(&[4; MAX_ADDRESS_BYTES]).expect("an address");
        MAX_ADDRESSES_PER_CONTACT
    ];
    let message = Message {
        value: Some(Value { name: vec![0; MAX_KEY_BYTES], bytes: vec![0; MAX_VALUE_BYTES] }),
        closer: vec![wide.clone(); MAX_PEERS_PER_MESSAGE],
        providers: vec![wide; MAX_PEERS_PER_MESSAGE],
        ..full()
    };
    assert!(message.encode().len() <= MAX_MESSAGE_BYTES, "{}", message.encode().len());
}

#[test]
fn what_nobody_honest_sends_is_refused() {
    let refused: [(&str, &[u8]); 9] = [
        ("an unknown kind", &[0x08, 6]),
        ("a kind as bytes", &[0x0a, 0]),
        ("a key as a number", &[0x10, 1]),
        ("a cut field", &[0x12, 5, 1]),
        ("a cut number", &[0x08, 0x80]),
        ("a long number", &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
        ("a group", &[0x0b]),
        ("field zero", &[0x02, 0]),
        ("a short token", &[0xe2, 0x3e, 1, 0]),
    ];
    for (what, bytes) in refused {
        assert!(Message::decode(bytes).is_err(), "{what}");
    }
}

#[test]
fn a_peer_that_cannot_be_used_is_left_out() {
    let mut message = full();
    message.closer[3].addresses.clear();
    let read = Message::decode(&message.encode()).expect("a message");
    assert_eq!(read.closer.len(), 19);
    // A peer id of another kind of key (a SHA-256 multihash).
    let mut other = vec![0x0a, 34, 0x12, 32];
    other.extend_from_slice(&[5; 32]);
    other.extend_from_slice(&[0x12, 1, 4]);
    let mut bytes = vec![0x42, other.len() as u8];
    bytes.extend_from_slice(&other);
    assert_eq!(Message::decode(&bytes).map(|read| read.closer.len()), Ok(0));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode_framed(&bytes);
        if let Ok(message) = Message::decode(&bytes) {
            // What was understood means the same once more.
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(at in 0_usize..2_000, byte in any::<u8>()) {
        let mut bytes = full().encode();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert!(message.closer.len() <= MAX_PEERS_PER_MESSAGE);
        }
    }
}
