//! A message of discovery: read, written again, and the record and addresses in it.

use peerproof_discovery::limits::{
    MAX_ADDRESSES_PER_CONTACT, MAX_PEERS_PER_MESSAGE, MAX_VALUE_BYTES,
};
use peerproof_discovery::message::{Address, Contact, Kind, Message, Value, decode_framed};
use peerproof_discovery::record::{Draft, Record};
use peerproof_identity::Keypair;

use super::Outcome;

pub(crate) const WORDS: &[&[u8]] = &[
    &[0x08, 0],
    &[0x08, 4],
    &[0x12, 32],
    &[0x1a, 0xff, 0x07],
    &[0x42, 60],
    &[0x4a, 60],
    &[0x0a, 38, 0x00, 0x24, 0x08, 0x01, 0x12, 0x20],
    &[0x12, 11, 4, 192, 0, 2, 1, 0x91, 0x02],
    &[0xca, 0x3e, 32],
    &[0xda, 0x3e, 64],
    &[0xe2, 0x3e, 16],
    &[0xe8, 0x3e, 1],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let key = Keypair::from_seed(&[7; 32]);
    let draft = Draft { label: b"home", sequence: 1, created_s: 1_000, expires_s: 4_600 };
    let record = draft.sign(&key, b"content").expect("within limits");
    let contact = |seed| Contact {
        peer: Keypair::from_seed(&[seed; 32]).public().peer_id(),
        addresses: vec![Address::quic([192, 0, 2, seed].into(), 4001)],
    };
    let name = record.name().0;
    let value = Value { name: name.to_vec(), bytes: record.as_bytes().to_vec() };
    let messages = [
        Message::new(Kind::FindNode, &name),
        Message {
            closer: (1..=20).map(contact).collect(),
            token: Some([4; 16]),
            point: Some(contact(3).key()),
            ..Message::new(Kind::FindNode, &[])
        },
        Message {
            value: Some(value),
            signature: Some([5; 64]),
            token: Some([4; 16]),
            ..Message::new(Kind::PutValue, &name)
        },
        Message {
            providers: vec![contact(9)],
            refused: true,
            ..Message::new(Kind::GetProviders, b"a model")
        },
        Message { nonce: Some([6; 32]), ..Message::new(Kind::Ping, &[]) },
    ];
    messages.iter().map(Message::encode).collect()
}

pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let _ = decode_framed(bytes);
    let _ = Record::decode(bytes);
    let Ok(message) = Message::decode(bytes) else { return Outcome::Refused };
    // What was understood is within the limits and means the same once more.
    assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    for contact in message.closer.iter().chain(&message.providers) {
        assert!((1..=MAX_ADDRESSES_PER_CONTACT).contains(&contact.addresses.len()));
        let _ = contact.ip();
    }
    assert!(message.closer.len().max(message.providers.len()) <= MAX_PEERS_PER_MESSAGE);
    if let Some(value) = &message.value {
        assert!(value.bytes.len() <= MAX_VALUE_BYTES);
        if let Ok(record) = Record::decode(&value.bytes) {
            assert_eq!(record.as_bytes(), value.bytes);
            let _ = (record.content(), record.check_time(2_000));
        }
    }
    Outcome::Taken
}
