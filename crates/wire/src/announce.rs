//! The info conversation, [`INFO_PROTOCOL`](crate::INFO_PROTOCOL): a nonce, a
//! signed announcement back.
//!
//! The asker's nonce is in the announcement, so an old one can't be played
//! again. Who announces is the key that signed.

use peerproof_identity::{Domain, vrf};

use crate::check::{self, count, line, not_empty};
use crate::codec::Codec;
use crate::shape::{self, Shape};
use crate::signed::{Signed, Statement};
use crate::{ARITHMETIC, Class, ModelId, PROTOCOL, WireError, limits, proto};

/// What an answer costs who makes it, and its checks who makes them, as the announcer has
/// measured on its own work. 0 is not measured yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Microseconds to make one token of an answer.
    pub token_us: u32,
    /// Microseconds to recompute one position.
    pub replay_us: u32,
    /// Microseconds, for one position of an answer, to open cells of it.
    pub opening_us: u32,
    /// Bytes of an opened cell.
    pub cell_bytes: u32,
    /// The operator's terms for a million tokens, in `unit`.
    pub per_million: u64,
    /// The unit of that number, one line; empty without terms.
    pub unit: String,
}

/// A model that a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOffer {
    /// BLAKE3 of the file.
    pub model_id: ModelId,
    /// What people call it. A name proves nothing; the id does.
    pub name: String,
    /// Family, as the file says.
    pub architecture: String,
    /// Format of the weights.
    pub quantisation: String,
    /// Longest prompt and answer together, in tokens.
    pub context_length: u32,
    /// Size of the file.
    pub file_bytes: u64,
    /// How its answers come about.
    pub class: Class,
    /// What its provider says its hardware gives at most, in tokens a second of one answer; 0
    /// says nothing. Of the statistical class only.
    pub declared_tps: u32,
    /// What it costs, if anything is known of that.
    pub price: Option<Price>,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Models it answers with.
    pub serves: Vec<ModelOffer>,
    /// Models it audits with.
    pub audits: Vec<ModelOffer>,
    /// Jobs running.
    pub active_jobs: u32,
    /// Jobs waiting.
    pub queued_jobs: u32,
    /// Jobs it runs at once.
    pub max_jobs: u32,
    /// Its key for audit lotteries.
    pub vrf_key: vrf::Public,
    /// When it was signed, by its clock.
    pub issued_unix_ms: u64,
    /// The asker's nonce.
    pub nonce: [u8; 32],
    /// Name and version of its program.
    pub software: String,
}

/// Asks a node for its announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest {
    /// Fresh random bytes.
    pub nonce: [u8; 32],
}

/// The announcement, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoReply {
    /// What the node says of itself.
    pub announcement: Signed<Announcement>,
}

impl Statement for Announcement {
    const DOMAIN: Domain = Domain::Announcement;
}

impl Codec for Announcement {
    type Proto = proto::Announcement;
    const NAME: &'static str = "announcement";
    const MAX_BYTES: usize = limits::MAX_ANNOUNCEMENT_BYTES;
    const SHAPE: &'static Shape = &shape::ANNOUNCEMENT;

    fn to_proto(&self) -> proto::Announcement {
        proto::Announcement {
            protocol: PROTOCOL,
            arithmetic: ARITHMETIC,
            serves: self.serves.iter().map(ModelOffer::to_proto).collect(),
            audits: self.audits.iter().map(ModelOffer::to_proto).collect(),
            active_jobs: self.active_jobs,
            queued_jobs: self.queued_jobs,
            max_jobs: self.max_jobs,
            vrf_key: self.vrf_key.as_bytes().to_vec(),
            issued_unix_ms: self.issued_unix_ms,
            nonce: self.nonce.to_vec(),
            software: self.software.clone(),
        }
    }

    fn from_proto(proto: proto::Announcement) -> Result<Self, WireError> {
        check::version("announcement.protocol", proto.protocol, PROTOCOL)?;
        check::version("announcement.arithmetic", proto.arithmetic, ARITHMETIC)?;
        let serves = proto.serves.into_iter().map(ModelOffer::from_proto);
        let audits = proto.audits.into_iter().map(ModelOffer::from_proto);
        Ok(Self {
            serves: serves.collect::<Result<_, _>>()?,
            audits: audits.collect::<Result<_, _>>()?,
            active_jobs: proto.active_jobs,
            queued_jobs: proto.queued_jobs,
            max_jobs: proto.max_jobs,
            vrf_key: check::vrf_key("announcement.vrf_key", &proto.vrf_key)?,
            issued_unix_ms: proto.issued_unix_ms,
            nonce: check::array("announcement.nonce", &proto.nonce)?,
            software: proto.software,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let limit = limits::MAX_ANNOUNCED_MODELS;
        count("announcement.serves", self.serves.len(), limit)?;
        count("announcement.audits", self.audits.len(), limit)?;
        line("announcement.software", &self.software, limits::MAX_SOFTWARE_BYTES)?;
        let mut models = self.serves.iter().chain(&self.audits);
        models.try_for_each(ModelOffer::check)
    }
}

impl Codec for ModelOffer {
    type Proto = proto::ModelOffer;
    const NAME: &'static str = "model offer";
    const MAX_BYTES: usize = limits::MAX_ANNOUNCEMENT_BYTES;
    const SHAPE: &'static Shape = &shape::MODEL_OFFER;

    fn to_proto(&self) -> proto::ModelOffer {
        proto::ModelOffer {
            model_id: self.model_id.as_bytes().to_vec(),
            name: self.name.clone(),
            architecture: self.architecture.clone(),
            quantisation: self.quantisation.clone(),
            context_length: self.context_length,
            file_bytes: self.file_bytes,
            class: self.class.to_proto().into(),
            declared_tps: self.declared_tps,
            price: self.price.as_ref().map(Price::to_proto),
        }
    }

    fn from_proto(proto: proto::ModelOffer) -> Result<Self, WireError> {
        Ok(Self {
            model_id: check::model_id("model_offer.model_id", &proto.model_id)?,
            name: proto.name,
            architecture: proto.architecture,
            quantisation: proto.quantisation,
            context_length: proto.context_length,
            file_bytes: proto.file_bytes,
            class: Class::from_proto("model_offer.class", proto.class)?,
            declared_tps: proto.declared_tps,
            price: proto.price.map(Price::from_proto).transpose()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.price.as_ref().map_or(Ok(()), Price::check)?;
        not_empty("model_offer.name", self.name.is_empty())?;
        line("model_offer.name", &self.name, limits::MAX_MODEL_NAME_BYTES)?;
        let limit = limits::MAX_MODEL_KIND_BYTES;
        line("model_offer.architecture", &self.architecture, limit)?;
        line("model_offer.quantisation", &self.quantisation, limit)?;
        if self.class == Class::Exact && self.declared_tps != 0 {
            return Err(WireError::Inconsistent {
                place: "model_offer.declared_tps",
                expected: "none of the exact class",
                got: self.declared_tps.into(),
            });
        }
        Ok(())
    }
}

impl Codec for Price {
    type Proto = proto::Price;
    const NAME: &'static str = "price";
    const MAX_BYTES: usize = limits::MAX_ANNOUNCEMENT_BYTES;
    const SHAPE: &'static Shape = &shape::PRICE;

    fn to_proto(&self) -> proto::Price {
        proto::Price {
            token_us: self.token_us,
            replay_us: self.replay_us,
            opening_us: self.opening_us,
            cell_bytes: self.cell_bytes,
            per_million: self.per_million,
            unit: self.unit.clone(),
        }
    }

    fn from_proto(proto: proto::Price) -> Result<Self, WireError> {
        Ok(Self {
            token_us: proto.token_us,
            replay_us: proto.replay_us,
            opening_us: proto.opening_us,
            cell_bytes: proto.cell_bytes,
            per_million: proto.per_million,
            unit: proto.unit,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        // Who knows nothing leaves the price out.
        not_empty("price", *self == Price::default())?;
        line("price.unit", &self.unit, limits::MAX_PRICE_UNIT_BYTES)
    }
}

impl Codec for InfoRequest {
    type Proto = proto::InfoRequest;
    const NAME: &'static str = "info request";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::INFO_REQUEST;

    fn to_proto(&self) -> proto::InfoRequest {
        proto::InfoRequest { nonce: self.nonce.to_vec() }
    }

    fn from_proto(proto: proto::InfoRequest) -> Result<Self, WireError> {
        Ok(Self { nonce: check::array("info_request.nonce", &proto.nonce)? })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

impl Codec for InfoReply {
    type Proto = proto::InfoReply;
    const NAME: &'static str = "info reply";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::INFO_REPLY;

    fn to_proto(&self) -> proto::InfoReply {
        proto::InfoReply { announcement: self.announcement.to_proto() }
    }

    fn from_proto(proto: proto::InfoReply) -> Result<Self, WireError> {
        let place = "info_reply.announcement";
        Ok(Self { announcement: Signed::from_proto(place, proto.announcement)? })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}
