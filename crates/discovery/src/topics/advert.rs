//! What an advertisement says, as the content of a signed record.
//!
//! The record's label is `ad` and the topic, so the publisher's signature covers
//! where it stands; creation and end are the record's. The content has one form:
//!
//! ```text
//! version 1 ‖ model id 32 ‖ class u8 (0 exact, 1 statistical) ‖ context length u32
//! ‖ price u64 ‖ region 2 ‖ name length u8 ‖ name ‖ endpoints u8 ‖ each: ip 16 ‖ port u16 ‖ carrier u8
//! ```
//!
//! Or the one byte 2 and what only those can read who share a secret
//! ([`crate::private`]).
//!
//! Numbers are big-endian. The price is what the publisher asks for a million
//! tokens, in units of its own choice; 0 is nothing. The region is an ISO 3166
//! code in capitals, or two zero bytes. A query compares what is said; nothing here
//! is proven but who says it.

use std::net::{IpAddr, Ipv6Addr};

use peerproof_identity::{Keypair, PublicKey};

use super::Topic;
use crate::addresses::{Carrier, Endpoint};
use crate::record::{Draft, Name, Record, RecordError};

const VERSION: u8 = 1;
const SEALED: u8 = 2;
/// Bytes of a sealed content.
pub const MAX_SEALED_BYTES: usize = 800;
/// Bytes of a model's name.
pub const MAX_NAME_BYTES: usize = 64;
/// Endpoints of one advertisement.
pub const MAX_ENDPOINTS: usize = 4;
const ENDPOINT_BYTES: usize = 19;

/// How a provider computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Bit for bit as the specification says.
    Exact,
    /// By an engine of its own, judged by statistics.
    Statistical,
}

/// What a provider offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offering {
    /// BLAKE3 of the model's file.
    pub model: [u8; 32],
    /// What the model is called.
    pub name: String,
    /// How it is computed.
    pub class: Class,
    /// Tokens of prompt and answer together.
    pub context_length: u32,
    /// For a million tokens, in units of the provider's choice.
    pub price: u64,
    /// Two capital letters, if it says.
    pub region: Option<[u8; 2]>,
    /// Where it is reached.
    pub endpoints: Vec<Endpoint>,
}

/// Why bytes are no advertisement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertError {
    /// No record, or not signed by its publisher.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Signed for something else.
    #[error("advertisement: stands under another topic")]
    Topic,
    /// A field holds what none can hold.
    #[error("advertisement: impossible {field}")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// Longer or shorter than it says.
    #[error("advertisement: {got} bytes of content do not fit what they say")]
    Length {
        /// How many there are.
        got: usize,
    },
}

/// A signed advertisement whose signature, topic and form were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    record: Record,
    topic: Topic,
    said: Said,
}

/// What an advertisement says, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// To everybody.
    Open(Offering),
    /// To those who share a secret.
    Sealed(Vec<u8>),
}

fn label(topic: &Topic) -> [u8; 34] {
    let mut label = [0; 34];
    label[..2].copy_from_slice(b"ad");
    label[2..].copy_from_slice(&topic.0);
    label
}

impl Advert {
    /// Signs what is offered, under a topic.
    ///
    /// # Errors
    /// It does not fit the limits.
    pub fn sign(
        key: &Keypair,
        topic: Topic,
        offering: Offering,
        (created_s, expires_s): (u64, u64),
    ) -> Result<Self, AdvertError> {
        let content = offering.to_bytes()?;
        let draft = Draft { label: &label(&topic), sequence: created_s, created_s, expires_s };
        let record = draft.sign(key, &content)?;
        Ok(Self { record, topic, said: Said::Open(offering) })
    }

    /// Signs what is sealed, under a topic.
    ///
    /// # Errors
    /// It does not fit the limits.
    pub fn sign_sealed(
        key: &Keypair,
        topic: Topic,
        sealed: Vec<u8>,
        (created_s, expires_s): (u64, u64),
    ) -> Result<Self, AdvertError> {
        if sealed.len() > MAX_SEALED_BYTES {
            return Err(AdvertError::Field { field: "sealed content" });
        }
        let content = [&[SEALED], &sealed[..]].concat();
        let draft = Draft { label: &label(&topic), sequence: created_s, created_s, expires_s };
        let record = draft.sign(key, &content)?;
        Ok(Self { record, topic, said: Said::Sealed(sealed) })
    }

    /// Reads and checks everything that needs no clock.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(topic: Topic, bytes: &[u8]) -> Result<Self, AdvertError> {
        let record = Record::decode(bytes)?;
        if record.name() != Name::of(&record.publisher(), &label(&topic)) {
            return Err(AdvertError::Topic);
        }
        let said = match record.content().split_first() {
            Some((&SEALED, sealed)) if sealed.len() <= MAX_SEALED_BYTES => {
                Said::Sealed(sealed.to_vec())
            }
            _ => Said::Open(Offering::from_bytes(record.content())?),
        };
        Ok(Self { record, topic, said })
    }

    /// Whether it is neither over nor from the future.
    ///
    /// # Errors
    /// When it ended, or is said to begin.
    pub fn check_time(&self, unix_s: u64) -> Result<(), AdvertError> {
        Ok(self.record.check_time(unix_s)?)
    }

    /// As it travels.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.record.as_bytes()
    }

    /// Who says it.
    #[must_use]
    pub const fn publisher(&self) -> PublicKey {
        self.record.publisher()
    }

    /// What it is found under.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        self.topic
    }

    /// What it says.
    #[must_use]
    pub const fn said(&self) -> &Said {
        &self.said
    }
}

struct Reader<'a>(&'a [u8], usize);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], AdvertError> {
        let (chunk, rest) =
            self.0.split_first_chunk::<N>().ok_or(AdvertError::Length { got: self.1 })?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn byte(&mut self) -> Result<u8, AdvertError> {
        Ok(self.take::<1>()?[0])
    }
}

impl Offering {
    fn check(&self) -> Result<(), AdvertError> {
        let wrong = |field| Err(AdvertError::Field { field });
        if self.name.len() > MAX_NAME_BYTES || self.name.chars().any(char::is_control) {
            return wrong("name");
        }
        if self.region.is_some_and(|region| !region.iter().all(u8::is_ascii_uppercase)) {
            return wrong("region");
        }
        if self.endpoints.len() > MAX_ENDPOINTS || self.endpoints.iter().any(|e| e.port == 0) {
            return wrong("endpoint");
        }
        Ok(())
    }

    fn to_bytes(&self) -> Result<Vec<u8>, AdvertError> {
        self.check()?;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.model);
        bytes.push(u8::from(self.class == Class::Statistical));
        bytes.extend_from_slice(&self.context_length.to_be_bytes());
        bytes.extend_from_slice(&self.price.to_be_bytes());
        bytes.extend_from_slice(&self.region.unwrap_or_default());
        bytes.push(self.name.len() as u8);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.push(self.endpoints.len() as u8);
        for endpoint in &self.endpoints {
            let ip = match endpoint.ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            bytes.extend_from_slice(&ip.octets());
            bytes.extend_from_slice(&endpoint.port.to_be_bytes());
            bytes.push(u8::from(endpoint.carrier == Carrier::Tcp));
        }
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, AdvertError> {
        let wrong = |field| AdvertError::Field { field };
        let mut reader = Reader(bytes, bytes.len());
        if reader.byte()? != VERSION {
            return Err(wrong("version"));
        }
        let model = reader.take()?;
        let class = match reader.byte()? {
            0 => Class::Exact,
            1 => Class::Statistical,
            _ => return Err(wrong("class")),
        };
        let context_length = u32::from_be_bytes(reader.take()?);
        let price = u64::from_be_bytes(reader.take()?);
        let region = Some(reader.take()?).filter(|region| *region != [0, 0]);
        let length = usize::from(reader.byte()?);
        let (name, rest) =
            reader.0.split_at_checked(length).ok_or(AdvertError::Length { got: bytes.len() })?;
        reader.0 = rest;
        let name = std::str::from_utf8(name).map_err(|_| wrong("name"))?.to_owned();
        let count = usize::from(reader.byte()?);
        if reader.0.len() != count * ENDPOINT_BYTES {
            return Err(AdvertError::Length { got: bytes.len() });
        }
        let mut endpoints = Vec::new();
        for _ in 0..count.min(MAX_ENDPOINTS + 1) {
            let ip = IpAddr::from(Ipv6Addr::from(reader.take::<16>()?)).to_canonical();
            let port = u16::from_be_bytes(reader.take()?);
            let carrier = match reader.byte()? {
                0 => Carrier::Quic,
                1 => Carrier::Tcp,
                _ => return Err(wrong("endpoint")),
            };
            endpoints.push(Endpoint { ip, port, carrier });
        }
        let offering = Self { model, name, class, context_length, price, region, endpoints };
        offering.check()?;
        Ok(offering)
    }
}

/// What is asked of an offering; what is left open suits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// This model and no other.
    pub model: Option<[u8; 32]>,
    /// A model whose name contains this, in any case.
    pub name: Option<String>,
    /// Computed like this.
    pub class: Option<Class>,
    /// For at least so many tokens.
    pub min_context: u32,
    /// For at most so much.
    pub max_price: Option<u64>,
    /// There.
    pub region: Option<[u8; 2]>,
}

impl Query {
    /// Whether an advertisement is what is asked for. Of a sealed one nothing is
    /// known, so it suits who asks for nothing in particular.
    #[must_use]
    pub fn admits(&self, advert: &Advert) -> bool {
        match advert.said() {
            Said::Open(offering) => self.suits(offering),
            Said::Sealed(_) => *self == Self::default(),
        }
    }

    /// Whether an offering is what is asked for.
    ///
    /// ```
    /// use peerproof_discovery::topics::advert::{Class, Offering, Query};
    ///
    /// let offering = Offering {
    ///     model: [1; 32],
    ///     name: "SmolLM2-135M".into(),
    ///     class: Class::Exact,
    ///     context_length: 2048,
    ///     price: 0,
    ///     region: Some(*b"DE"),
    ///     endpoints: vec![],
    /// };
    /// let query = Query { name: Some("smol".into()), min_context: 1024, ..Query::default() };
    /// assert!(query.suits(&offering));
    /// assert!(!Query { min_context: 4096, ..query }.suits(&offering));
    /// ```
    #[must_use]
    pub fn suits(&self, offering: &Offering) -> bool {
        let named = |part: &String| offering.name.to_lowercase().contains(&part.to_lowercase());
        self.model.is_none_or(|model| model == offering.model)
            && self.name.as_ref().is_none_or(named)
            && self.class.is_none_or(|class| class == offering.class)
            && offering.context_length >= self.min_context
            && self.max_price.is_none_or(|most| offering.price <= most)
            && self.region.is_none_or(|region| offering.region == Some(region))
    }
}
