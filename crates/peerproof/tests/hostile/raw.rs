//! Messages put together byte by byte, past every check of the codec.

use peerproof_identity::{Domain, Keypair};

/// A varint in its shortest form.
pub(super) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field with a length.
pub(super) fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint(number << 3 | 2);
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

/// A field with a number.
pub(super) fn number_field(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// An envelope of any three byte strings.
pub(super) fn envelope(payload: &[u8], key: &[u8], signature: &[u8]) -> Vec<u8> {
    [field(1, payload), field(2, key), field(3, signature)].concat()
}

/// `RouterFrame.open` around an envelope.
pub(super) fn open(envelope: &[u8], resume: &[u32]) -> Vec<u8> {
    let ids: Vec<u8> = resume.iter().flat_map(|id| varint(u64::from(*id))).collect();
    let resume = if ids.is_empty() { vec![] } else { field(2, &ids) };
    field(1, &[field(1, envelope), resume].concat())
}

/// `RouterFrame.open` around any payload, signed as an offer by `key`.
pub(super) fn open_signed(key: &Keypair, payload: &[u8]) -> Vec<u8> {
    let signature = key.sign(Domain::Offer, payload);
    open(&envelope(payload, key.public().as_bytes(), signature.as_bytes()), &[])
}
