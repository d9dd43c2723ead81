//! The book as bytes: a header, anchors, entries, and a BLAKE3 over all of it.
//!
//! ```text
//! "ppbook" ‖ version u16 ‖ secret 32 ‖ anchors u8 ‖ endpoint 19 each
//! ‖ entries u32 ‖ each: endpoint 19 ‖ tried u8 ‖ source group 5 ‖ key flag u8 ‖ key 32
//!   ‖ seen, answered, called: u64 each ‖ failures u8
//! ‖ BLAKE3 of everything before, 32
//! ```
//!
//! Numbers are big-endian. Places are not written: they follow from the secret,
//! so a file can't put an address where it does not belong. An entry that finds
//! its place taken (a map of networks has changed) is left out.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use peerproof_identity::{PeerId, PublicKey};

use super::{
    ANCHORS, AddressBook, BUCKET_SLOTS, Carrier, Endpoint, Entry, NEW_BUCKETS, TRIED_BUCKETS,
};
use crate::Chance;
use crate::places::{AsnMap, Group, Policy};

const MAGIC: &[u8; 6] = b"ppbook";
const VERSION: u16 = 1;
const CHECKSUM_BYTES: usize = 32;
const ENTRY_BYTES: usize = 19 + 1 + 5 + 1 + 32 + 24 + 1;
const MAX_ENTRIES: usize = (NEW_BUCKETS + TRIED_BUCKETS) * BUCKET_SLOTS;
/// Bytes of the fullest book.
pub(super) const MAX_BYTES: usize =
    6 + 2 + 32 + 1 + ANCHORS * 19 + 4 + MAX_ENTRIES * ENTRY_BYTES + CHECKSUM_BYTES;

/// Why bytes are no book. Nothing of them is used then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// Longer than the fullest book.
    #[error("an address book has at most {limit} bytes, got {got}")]
    TooLong {
        /// The most.
        limit: usize,
        /// What there is.
        got: usize,
    },
    /// It ends too early, or goes on behind its end.
    #[error("the address book has {got} bytes, which does not fit what it says at byte {place}")]
    Length {
        /// Where reading stopped.
        place: usize,
        /// What there is.
        got: usize,
    },
    /// It does not begin as an address book does.
    #[error("this is no address book")]
    Magic,
    /// It is of another program version.
    #[error("the address book is of version {got}, expected {expected}")]
    Version {
        /// What is read here.
        expected: u16,
        /// What it says.
        got: u16,
    },
    /// Its bytes are not those that were written.
    #[error("the address book's checksum does not match: it was changed or cut")]
    Checksum,
    /// A field holds what none can hold.
    #[error("the address book holds an impossible {field} at byte {place}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Where.
        place: usize,
    },
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BookError> {
        let found = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let chunk = found.ok_or(BookError::Length { place: self.at, got: self.bytes.len() })?;
        self.at += N;
        Ok(*chunk)
    }

    fn byte(&mut self) -> Result<u8, BookError> {
        Ok(self.take::<1>()?[0])
    }

    fn wide(&mut self) -> Result<u64, BookError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn wrong(&self, field: &'static str) -> BookError {
        BookError::Field { field, place: self.at }
    }

    fn flag(&mut self, field: &'static str) -> Result<bool, BookError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong(field)),
        }
    }

    fn endpoint(&mut self) -> Result<Endpoint, BookError> {
        let ip = IpAddr::from(Ipv6Addr::from(self.take::<16>()?)).to_canonical();
        let port = u16::from_be_bytes(self.take()?);
        let tcp = self.flag("transport")?;
        let carrier = if tcp { Carrier::Tcp } else { Carrier::Quic };
        Ok(Endpoint { ip, port, carrier })
    }

    fn group(&mut self) -> Result<Group, BookError> {
        match self.take::<5>()? {
            [0, 0, 0, 0, 0] => Ok(Group::Local),
            [4, a, b, 0, 0] => Ok(Group::V4([a, b])),
            [6, a, b, c, d] => Ok(Group::V6([a, b, c, d])),
            [1, a, b, c, d] => Ok(Group::Asn(u32::from_be_bytes([a, b, c, d]))),
            _ => Err(self.wrong("network group")),
        }
    }

    fn peer(&mut self) -> Result<Option<PeerId>, BookError> {
        let known = self.flag("key flag")?;
        let key = self.take::<32>()?;
        if !known {
            return if key == [0; 32] { Ok(None) } else { Err(self.wrong("key")) };
        }
        PublicKey::from_bytes(&key).map(|key| Some(key.peer_id())).map_err(|_| self.wrong("key"))
    }
}

impl AddressBook {
    /// The book as bytes, to be written whole or not at all.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256 + self.entries.len() * ENTRY_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        bytes.push(self.anchors.len() as u8);
        for anchor in &self.anchors {
            bytes.extend_from_slice(&anchor.to_bytes());
        }
        bytes.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
        for (endpoint, entry) in &self.entries {
            bytes.extend_from_slice(&endpoint.to_bytes());
            bytes.push(u8::from(entry.home.is_tried()));
            bytes.extend_from_slice(&entry.source.to_bytes());
            bytes.push(u8::from(entry.peer.is_some()));
            let key = entry.peer.map_or([0; 32], |peer| *peer.public_key().as_bytes());
            bytes.extend_from_slice(&key);
            for number in [entry.seen_s, entry.answered_s, entry.called_s] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.push(entry.failures);
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// The book that was written.
    ///
    /// # Errors
    /// [`BookError`]: the file is to be set aside, and a book begun anew from
    /// anchors and seeds.
    pub fn from_bytes(
        bytes: &[u8],
        chance: Chance,
        policy: Policy,
        asn: Arc<dyn AsnMap + Send + Sync>,
    ) -> Result<Self, BookError> {
        if bytes.len() > MAX_BYTES {
            return Err(BookError::TooLong { limit: MAX_BYTES, got: bytes.len() });
        }
        let short = BookError::Length { place: 0, got: bytes.len() };
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(short)?;
        let mut reader = Reader { bytes: body, at: 0 };
        if reader.take()? != *MAGIC {
            return Err(BookError::Magic);
        }
        let version = u16::from_be_bytes(reader.take()?);
        if version != VERSION {
            return Err(BookError::Version { expected: VERSION, got: version });
        }
        if blake3::hash(body).as_bytes() != checksum {
            return Err(BookError::Checksum);
        }
        let secret = reader.take()?;
        let mut book = Self::new(secret, chance, policy, asn);
        let anchors = reader.byte()?;
        if usize::from(anchors) > ANCHORS {
            return Err(reader.wrong("number of anchors"));
        }
        for _ in 0..anchors {
            book.anchors.push(reader.endpoint()?);
        }
        let count = u32::from_be_bytes(reader.take()?) as usize;
        if body.len() - reader.at != count.saturating_mul(ENTRY_BYTES) {
            return Err(BookError::Length { place: reader.at, got: bytes.len() });
        }
        for _ in 0..count {
            book.restore(&mut reader)?;
        }
        Ok(book)
    }

    /// One entry. What the policy of this start does not want is left out.
    fn restore(&mut self, reader: &mut Reader<'_>) -> Result<(), BookError> {
        let endpoint = reader.endpoint()?;
        let tried = reader.flag("table")?;
        let source = reader.group()?;
        let peer = reader.peer()?;
        let (seen_s, answered_s, called_s) = (reader.wide()?, reader.wide()?, reader.wide()?);
        let failures = reader.byte()?;
        let home =
            if tried { self.tried_slot(&endpoint) } else { self.new_slot(&endpoint, source) };
        let wanted = self.policy.takes(endpoint.ip) && !self.is_host_full(endpoint.ip);
        let free = self.tables.at(home).is_none() && !self.entries.contains_key(&endpoint);
        if wanted && free {
            let entry = Entry { peer, source, seen_s, answered_s, called_s, failures, home };
            self.put(endpoint, entry);
        }
        Ok(())
    }
}
