//! What nodes ask each other, in the bytes of libp2p's Kademlia.
//!
//! One protobuf message for questions and answers, as in libp2p's `dht.proto`, so that
//! a stock libp2p node under the same protocol name finds and stores here. Five fields
//! above 1000 are ours; protobuf readers that don't know them pass over them. Each
//! message travels behind a varint of its length.
//!
//! Decoding holds every length against a limit before memory is taken for it, passes
//! over unknown fields, and refuses what no honest sender makes: a known field with
//! another wire type, a truncated or overlong varint, more peers than a bucket holds.
//! A peer in a list that is no Ed25519 id, or has no address, is left out rather than
//! refused, since stock nodes pass on what they hear.
//!
//! Absent: what an answer means. `lookup` and `node` judge that.

mod protobuf;

use std::net::IpAddr;

use peerproof_identity::PeerId;

use crate::id::Key;
use crate::limits::{
    MAX_ADDRESS_BYTES, MAX_ADDRESSES_PER_CONTACT, MAX_KEY_BYTES, MAX_MESSAGE_BYTES,
    MAX_PEERS_PER_MESSAGE, MAX_VALUE_BYTES,
};
use protobuf::{Field, Reader, Wire, Writer};

/// The protocol under which these messages travel; never `/ipfs/kad/1.0.0`, since two
/// networks that share a name merge.
pub const PROTOCOL: &str = "/peerproof/kad/1.0.0";

/// What a message asks or answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Keep this record.
    #[default]
    PutValue,
    /// Give the record, and who is closer.
    GetValue,
    /// I provide this key. Has no answer.
    AddProvider,
    /// Who provides this key, and who is closer.
    GetProviders,
    /// Who is closer.
    FindNode,
    /// Sign this nonce.
    Ping,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::PutValue,
        Self::GetValue,
        Self::AddProvider,
        Self::GetProviders,
        Self::FindNode,
        Self::Ping,
    ];
}

/// A multiaddress as bytes; only its first part is read here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(Box<[u8]>);

/// Multiaddress codes of the parts that name a host.
const IP4: u64 = 4;
const IP6: u64 = 41;

impl Address {
    /// Takes the bytes if they are no more than an address has.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_ADDRESS_BYTES).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// An address that names a host and a UDP port under QUIC.
    #[must_use]
    pub fn quic(ip: IpAddr, port: u16) -> Self {
        let mut bytes = Vec::with_capacity(24);
        match ip {
            IpAddr::V4(v4) => {
                bytes.push(IP4 as u8);
                bytes.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                bytes.push(IP6 as u8);
                bytes.extend_from_slice(&v6.octets());
            }
        }
        // udp = 273, quic-v1 = 461, as varints.
        bytes.extend_from_slice(&[0x91, 0x02]);
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(&[0xcd, 0x03]);
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The host, where the address opens with one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let (&code, rest) = self.0.split_first()?;
        match u64::from(code) {
            IP4 => Some(IpAddr::from(<[u8; 4]>::try_from(rest.get(..4)?).ok()?)),
            IP6 => Some(IpAddr::from(<[u8; 16]>::try_from(rest.get(..16)?).ok()?)),
            _ => None,
        }
    }
}

/// A peer and where it may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub peer: PeerId,
    /// Where; at least one, at most [`MAX_ADDRESSES_PER_CONTACT`].
    pub addresses: Vec<Address>,
}

impl Contact {
    /// Where the peer stands in the key space.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of_peer(&self.peer)
    }

    /// The first host among its addresses.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.addresses.iter().find_map(Address::ip)
    }
}

/// A value under a name, as libp2p carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// The name.
    pub name: Vec<u8>,
    /// The bytes; here always those of a [`Record`](crate::record::Record).
    pub bytes: Vec<u8>,
}

/// One question or one answer.
///
/// ```
/// use peerproof_discovery::message::{Kind, Message};
///
/// let question = Message::new(Kind::FindNode, b"a name");
/// assert_eq!(Message::decode(&question.encode())?, question);
/// # Ok::<(), peerproof_discovery::message::MessageError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it asks or answers.
    pub kind: Kind,
    /// The name it is about; its place is the SHA-256 of it, unless `point` says another.
    pub name: Vec<u8>,
    /// A value, where one is put or found.
    pub value: Option<Value>,
    /// Peers closer to the place asked for.
    pub closer: Vec<Contact>,
    /// Peers that provide the name.
    pub providers: Vec<Contact>,
    /// The place of the question itself: 32 bytes that need no preimage.
    pub point: Option<Key>,
    /// What the asked one shall sign.
    pub nonce: Option<[u8; 32]>,
    /// The signature that was asked for, or the writer's over its write.
    pub signature: Option<[u8; 64]>,
    /// The right to write here once more, from this address, for a while.
    pub token: Option<[u8; 16]>,
    /// In an answer: the one asked does not serve, or does not keep what was put.
    pub refused: bool,
}

impl Message {
    /// A message of that kind about a name.
    #[must_use]
    pub fn new(kind: Kind, name: &[u8]) -> Self {
        Self { kind, name: name.to_vec(), ..Self::default() }
    }

    /// The place in the key space this is about.
    #[must_use]
    pub fn place(&self) -> Key {
        self.point.unwrap_or_else(|| Key::of(&self.name))
    }

    /// The message as protobuf, fields in ascending order.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.number(1, self.kind as u64);
        out.bytes(2, &self.name);
        if let Some(value) = &self.value {
            let mut record = Writer::default();
            record.bytes(1, &value.name);
            record.bytes(2, &value.bytes);
            out.required(3, record.done());
        }
        for (number, contacts) in [(8, &self.closer), (9, &self.providers)] {
            for contact in contacts {
                out.required(number, encode_contact(contact));
            }
        }
        out.bytes(1001, self.point.as_ref().map_or(&[], |point| point.as_bytes()));
        out.bytes(1002, self.nonce.as_ref().map_or(&[], |nonce| nonce));
        out.bytes(1003, self.signature.as_ref().map_or(&[], |signature| signature));
        out.bytes(1004, self.token.as_ref().map_or(&[], |token| token));
        out.number(1005, u64::from(self.refused));
        out.done()
    }

    /// The message behind its length.
    #[must_use]
    pub fn encode_framed(&self) -> Vec<u8> {
        let bytes = self.encode();
        let mut out = Writer::default();
        out.varint(bytes.len() as u64);
        out.raw(&bytes);
        out.done()
    }

    /// Reads a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        at_most("message", MAX_MESSAGE_BYTES, bytes.len())?;
        let mut message = Self::default();
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.next()? {
            message.take(field)?;
        }
        Ok(message)
    }

    fn take(&mut self, field: Field<'_>) -> Result<(), MessageError> {
        match (field.number, field.wire) {
            (1, Wire::Number(kind)) => {
                let known = usize::try_from(kind).ok().and_then(|at| Kind::ALL.get(at));
                self.kind = *known.ok_or(MessageError::Kind { got: kind })?;
            }
            (2, Wire::Bytes(name)) => self.name = within("key", MAX_KEY_BYTES, name)?.to_vec(),
            (3, Wire::Bytes(record)) => self.value = Some(decode_value(record)?),
            (8, Wire::Bytes(contact)) => push_contact("closer peers", &mut self.closer, contact)?,
            (9, Wire::Bytes(contact)) => push_contact("providers", &mut self.providers, contact)?,
            (1001, Wire::Bytes(point)) => {
                self.point = Some(Key::from_bytes(exactly("point", point)?));
            }
            (1002, Wire::Bytes(nonce)) => self.nonce = Some(exactly("nonce", nonce)?),
            (1003, Wire::Bytes(bytes)) => self.signature = Some(exactly("signature", bytes)?),
            (1004, Wire::Bytes(token)) => self.token = Some(exactly("token", token)?),
            (1005, Wire::Number(refused)) => self.refused = refused != 0,
            (10, Wire::Number(_)) => {}
            (1..=3 | 8..=10 | 1001..=1005, _) => {
                return Err(MessageError::WireType { field: field.number });
            }
            _ => {}
        }
        Ok(())
    }
}

/// Reads a message behind its length: the message and the bytes it took, or nothing
/// while it is incomplete.
pub fn decode_framed(bytes: &[u8]) -> Result<Option<(Message, usize)>, MessageError> {
    let Some((length, prefix)) = protobuf::leading_varint(bytes)? else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    at_most("message", MAX_MESSAGE_BYTES, length)?;
    let Some(body) = bytes.get(prefix..prefix + length) else { return Ok(None) };
    Ok(Some((Message::decode(body)?, prefix + length)))
}

fn encode_contact(contact: &Contact) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(1, &contact.peer.to_bytes());
    for address in &contact.addresses {
        out.required(2, address.as_bytes().to_vec());
    }
    // CONNECTED: an entry was dialled by the sender itself.
    out.number(3, 1);
    out.done()
}

fn decode_value(bytes: &[u8]) -> Result<Value, MessageError> {
    let mut value = Value::default();
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next()? {
        match (field.number, field.wire) {
            (1, Wire::Bytes(name)) => value.name = within("key", MAX_KEY_BYTES, name)?.to_vec(),
            (2, Wire::Bytes(bytes)) => {
                value.bytes = within("value", MAX_VALUE_BYTES, bytes)?.to_vec();
            }
            (1 | 2, _) => return Err(MessageError::WireType { field: field.number }),
            _ => {}
        }
    }
    Ok(value)
}

/// Adds a contact that can be used; leaves out one that can't.
fn push_contact(
    what: &'static str,
    contacts: &mut Vec<Contact>,
    bytes: &[u8],
) -> Result<(), MessageError> {
    at_most(what, MAX_PEERS_PER_MESSAGE, contacts.len() + 1)?;
    let (mut peer, mut addresses) = (None, Vec::new());
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next()? {
        match (field.number, field.wire) {
            (1, Wire::Bytes(id)) => peer = PeerId::from_bytes(id).ok(),
            (2, Wire::Bytes(bytes)) if addresses.len() < MAX_ADDRESSES_PER_CONTACT => {
                addresses.extend(Address::from_bytes(bytes));
            }
            (2, Wire::Bytes(_)) | (3, Wire::Number(_)) => {}
            (1..=3, _) => return Err(MessageError::WireType { field: field.number }),
            _ => {}
        }
    }
    let usable = peer.filter(|_| !addresses.is_empty());
    contacts.extend(usable.map(|peer| Contact { peer, addresses }));
    Ok(())
}

const fn at_most(what: &'static str, limit: usize, got: usize) -> Result<(), MessageError> {
    if got > limit { Err(MessageError::TooMany { what, limit, got }) } else { Ok(()) }
}

fn within<'a>(what: &'static str, limit: usize, bytes: &'a [u8]) -> Result<&'a [u8], MessageError> {
    at_most(what, limit, bytes.len()).map(|()| bytes)
}

fn exactly<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], MessageError> {
    bytes.try_into().map_err(|_| MessageError::Length { what, expected: N, got: bytes.len() })
}

/// Why bytes are no message. All of these are the sender's fault; nothing is kept of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// More than the limit.
    #[error("discovery message: at most {limit} of {what}, got {got}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Most that is taken.
        limit: usize,
        /// What came.
        got: usize,
    },
    /// A field of fixed length has another.
    #[error("discovery message: {what} has {expected} bytes, got {got}")]
    Length {
        /// The field.
        what: &'static str,
        /// Bytes it has.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A kind nobody knows.
    #[error("discovery message: kinds are 0 to 5, got {got}")]
    Kind {
        /// The number that came.
        got: u64,
    },
    /// A known field, encoded as another type.
    #[error("discovery message: field {field} has another wire type than it must")]
    WireType {
        /// Its number.
        field: u64,
    },
    /// No protobuf at all.
    #[error("discovery message: no protobuf at byte {at}: {what}")]
    Protobuf {
        /// Where.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

#[cfg(test)]
mod tests;
