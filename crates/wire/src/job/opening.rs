//! Looking behind a receipt: leaves, and the request to open them.

use crate::check::{self, at_most, count, not_empty};
use crate::codec::Codec;
use crate::shape::{self, Shape};
use crate::{Digest, WireError, limits, proto};

/// Asks a provider to open leaves behind its receipt. Showing the nonce is
/// what fixes the drawn positions; before, nobody can know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Id of the signed receipt.
    pub receipt_id: Digest,
    /// The preimage of the offer's `client_nonce_hash`.
    pub client_nonce: [u8; 32],
    /// Positions to open beside the drawn ones.
    pub positions: Vec<u32>,
    /// Whether to send the hash of every leaf.
    pub leaf_hashes: bool,
}

/// One position of a transcript, as committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Counted from the first prompt token.
    pub position: u32,
    /// The token that stands there.
    pub token: u32,
    /// Keyed digest of the residual stream after the last layer.
    pub state: Digest,
    /// Digest of the residual rows that enter the layers, one after the other.
    pub layers: Digest,
    /// How the next token was chosen, where the position yields one of the answer.
    pub drawn: Option<Drawn>,
}

/// How one token was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Keyed digest of the int32 logits.
    pub logits: Digest,
    /// The random number; 0 when sampling is greedy.
    pub draw: u64,
    /// The token chosen.
    pub next: u32,
}

/// A leaf with its path to the transcript's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The leaf.
    pub leaf: Leaf,
    /// Sibling hashes from the leaf upward.
    pub path: Vec<Digest>,
}

/// The reply to a challenge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openings {
    /// The opened leaves.
    pub openings: Vec<Opening>,
    /// Hash of every leaf in order, if asked for.
    pub leaf_hashes: Vec<Digest>,
}

impl Codec for Challenge {
    type Proto = proto::Challenge;
    const NAME: &'static str = "challenge";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::CHALLENGE;

    fn to_proto(&self) -> proto::Challenge {
        proto::Challenge {
            receipt_id: self.receipt_id.as_bytes().to_vec(),
            client_nonce: self.client_nonce.to_vec(),
            positions: self.positions.clone(),
            leaf_hashes: self.leaf_hashes,
        }
    }

    fn from_proto(proto: proto::Challenge) -> Result<Self, WireError> {
        Ok(Self {
            receipt_id: check::digest("challenge.receipt_id", &proto.receipt_id)?,
            client_nonce: check::array("challenge.client_nonce", &proto.client_nonce)?,
            positions: proto.positions,
            leaf_hashes: proto.leaf_hashes,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let place = "challenge.positions";
        count(place, self.positions.len(), limits::MAX_CHALLENGE_POSITIONS)?;
        self.positions
            .iter()
            .try_for_each(|&position| check_position("challenge.positions[]", position))
    }
}

fn check_position(place: check::Place, position: u32) -> Result<(), WireError> {
    at_most(place, position.into(), u64::from(limits::MAX_LEAVES) - 1)
}

impl Codec for Opening {
    type Proto = proto::Opening;
    const NAME: &'static str = "opening";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::OPENING;

    fn to_proto(&self) -> proto::Opening {
        proto::Opening { leaf: Some(self.leaf.to_proto()), path: check::join(&self.path) }
    }

    fn from_proto(proto: proto::Opening) -> Result<Self, WireError> {
        Ok(Self {
            leaf: Leaf::from_proto(check::required("opening.leaf", proto.leaf)?)?,
            path: check::digests("opening.path", &proto.path, limits::MAX_PATH_HASHES)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.leaf.check()?;
        count("opening.path", self.path.len(), limits::MAX_PATH_HASHES)
    }
}

impl Codec for Leaf {
    type Proto = proto::Leaf;
    const NAME: &'static str = "leaf";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::LEAF;

    fn to_proto(&self) -> proto::Leaf {
        proto::Leaf {
            position: self.position,
            token: self.token,
            state: self.state.as_bytes().to_vec(),
            layers: self.layers.as_bytes().to_vec(),
            drawn: self.drawn.as_ref().map(|drawn| proto::Drawn {
                logits: drawn.logits.as_bytes().to_vec(),
                draw: drawn.draw,
                next: drawn.next,
            }),
        }
    }

    fn from_proto(proto: proto::Leaf) -> Result<Self, WireError> {
        let drawn = proto.drawn.map(|drawn| {
            Ok::<_, WireError>(Drawn {
                logits: check::digest("leaf.drawn.logits", &drawn.logits)?,
                draw: drawn.draw,
                next: drawn.next,
            })
        });
        Ok(Self {
            position: proto.position,
            token: proto.token,
            state: check::digest("leaf.state", &proto.state)?,
            layers: check::digest("leaf.layers", &proto.layers)?,
            drawn: drawn.transpose()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_position("leaf.position", self.position)?;
        check::token("leaf.token", self.token)?;
        match &self.drawn {
            Some(drawn) => check::token("leaf.drawn.next", drawn.next),
            None => Ok(()),
        }
    }
}

impl Codec for Openings {
    type Proto = proto::Openings;
    const NAME: &'static str = "openings";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::OPENINGS;

    fn to_proto(&self) -> proto::Openings {
        proto::Openings {
            openings: self.openings.iter().map(Opening::to_proto).collect(),
            leaf_hashes: check::join(&self.leaf_hashes),
        }
    }

    fn from_proto(proto: proto::Openings) -> Result<Self, WireError> {
        let place = "openings.leaf_hashes";
        let openings = proto.openings.into_iter().map(Opening::from_proto);
        Ok(Self {
            openings: openings.collect::<Result<_, _>>()?,
            leaf_hashes: check::digests(place, &proto.leaf_hashes, limits::MAX_LEAF_HASHES)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let is_empty = self.openings.is_empty() && self.leaf_hashes.is_empty();
        not_empty("openings", is_empty)?;
        count("openings.openings", self.openings.len(), limits::MAX_OPENINGS)?;
        count("openings.leaf_hashes", self.leaf_hashes.len(), limits::MAX_LEAF_HASHES)?;
        self.openings.iter().try_for_each(Opening::check)
    }
}
