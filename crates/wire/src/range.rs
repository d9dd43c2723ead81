//! The range conversation, [`RANGE_PROTOCOL`](crate::RANGE_PROTOCOL): pieces of a
//! model file, each with what proves it.
//!
//! A stream carries any number of requests, each answered before the next is
//! read. Ranges are widened to whole groups of [`RANGE_GROUP_BYTES`]; what comes
//! back is checked with `proof::ranges`, so it does not matter who sent it. The
//! file's length in a reply is the sender's word until the last group is opened.

use crate::check::{self, at_most, count, line, not_empty, within};
use crate::codec::Codec;
use crate::shape::{self, Shape};
use crate::{Digest, ModelId, WireError, limits, proto};

/// Model files are opened in groups of 16 KiB.
pub const RANGE_GROUP_BYTES: u64 = 16 << 10;

/// Asks for a piece of a model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// BLAKE3 of the file.
    pub model_id: ModelId,
    /// First byte.
    pub start: u64,
    /// How many; with the groups around them at most
    /// [`MAX_RANGE_BYTES`](limits::MAX_RANGE_BYTES).
    pub length: u64,
}

/// An opened range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSlice {
    /// The file's length, as the sender says.
    pub file_bytes: u64,
    /// The groups the range touches.
    pub bytes: Vec<u8>,
    /// The values beside them.
    pub hashes: Vec<Digest>,
}

/// Why a range is not sent, for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeRefusal {
    /// The file isn't here, or isn't shared.
    NotHeld,
    /// The file ends before the range does.
    OutOfRange,
    /// Too much is asked for at once; `retry_after_ms` says when to come back.
    Busy,
    /// The file can't be read, or has changed.
    Broken,
}

/// Says no to one request; the stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeFailure {
    /// The reason, for a program.
    pub code: RangeRefusal,
    /// The reason, for a person: one line.
    pub message: String,
    /// When to try again; 0 gives no advice.
    pub retry_after_ms: u64,
}

impl RangeFailure {
    /// A failure without advice. The message is made one line and cut to its limit.
    pub fn new(code: RangeRefusal, message: impl AsRef<str>) -> Self {
        let message = check::to_line(message.as_ref(), limits::MAX_FAILURE_MESSAGE_BYTES);
        Self { code, message, retry_after_ms: 0 }
    }
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeReply {
    /// The range.
    Slice(RangeSlice),
    /// Why not.
    Failure(RangeFailure),
}

impl Codec for RangeRequest {
    type Proto = proto::RangeRequest;
    const NAME: &'static str = "range request";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::RANGE_REQUEST;

    fn to_proto(&self) -> proto::RangeRequest {
        proto::RangeRequest {
            model_id: self.model_id.as_bytes().to_vec(),
            start: self.start,
            length: self.length,
        }
    }

    fn from_proto(proto: proto::RangeRequest) -> Result<Self, WireError> {
        Ok(Self {
            model_id: check::model_id("range_request.model_id", &proto.model_id)?,
            start: proto.start,
            length: proto.length,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("range_request.start", self.start, limits::MAX_FILE_BYTES)?;
        within("range_request.length", self.length, 1, limits::MAX_RANGE_BYTES as u64)?;
        let end = self.start + self.length;
        at_most("range_request.start", end, limits::MAX_FILE_BYTES)?;
        let first = self.start / RANGE_GROUP_BYTES;
        let covered = (end.div_ceil(RANGE_GROUP_BYTES) - first) * RANGE_GROUP_BYTES;
        at_most("range_request.length", covered, limits::MAX_RANGE_BYTES as u64)
    }
}

impl Codec for RangeSlice {
    type Proto = proto::RangeSlice;
    const NAME: &'static str = "range slice";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::RANGE_SLICE;

    fn to_proto(&self) -> proto::RangeSlice {
        proto::RangeSlice {
            file_bytes: self.file_bytes,
            bytes: self.bytes.clone(),
            hashes: check::join(&self.hashes),
        }
    }

    fn from_proto(proto: proto::RangeSlice) -> Result<Self, WireError> {
        let limit = limits::MAX_RANGE_HASHES;
        Ok(Self {
            file_bytes: proto.file_bytes,
            bytes: proto.bytes,
            hashes: check::digests("range_slice.hashes", &proto.hashes, limit)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        within("range_slice.file_bytes", self.file_bytes, 1, limits::MAX_FILE_BYTES)?;
        not_empty("range_slice.bytes", self.bytes.is_empty())?;
        count("range_slice.bytes", self.bytes.len(), limits::MAX_RANGE_BYTES)?;
        count("range_slice.hashes", self.hashes.len(), limits::MAX_RANGE_HASHES)
    }
}

impl RangeRefusal {
    /// Every code, in the order of their numbers.
    pub const ALL: &[Self] = &[Self::NotHeld, Self::OutOfRange, Self::Busy, Self::Broken];

    fn to_proto(self) -> proto::RangeRefusal {
        match self {
            Self::NotHeld => proto::RangeRefusal::NotHeld,
            Self::OutOfRange => proto::RangeRefusal::OutOfRange,
            Self::Busy => proto::RangeRefusal::Busy,
            Self::Broken => proto::RangeRefusal::Broken,
        }
    }

    fn from_proto(number: i32) -> Result<Self, WireError> {
        match proto::RangeRefusal::try_from(number) {
            Ok(proto::RangeRefusal::NotHeld) => Ok(Self::NotHeld),
            Ok(proto::RangeRefusal::OutOfRange) => Ok(Self::OutOfRange),
            Ok(proto::RangeRefusal::Busy) => Ok(Self::Busy),
            Ok(proto::RangeRefusal::Broken) => Ok(Self::Broken),
            Ok(proto::RangeRefusal::Unspecified) | Err(_) => {
                Err(WireError::Unnamed { place: "range_failure.code", got: number })
            }
        }
    }
}

impl Codec for RangeFailure {
    type Proto = proto::RangeFailure;
    const NAME: &'static str = "range failure";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::RANGE_FAILURE;

    fn to_proto(&self) -> proto::RangeFailure {
        proto::RangeFailure {
            code: self.code.to_proto().into(),
            message: self.message.clone(),
            retry_after_ms: self.retry_after_ms,
        }
    }

    fn from_proto(proto: proto::RangeFailure) -> Result<Self, WireError> {
        Ok(Self {
            code: RangeRefusal::from_proto(proto.code)?,
            message: proto.message,
            retry_after_ms: proto.retry_after_ms,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        not_empty("range_failure.message", self.message.is_empty())?;
        line("range_failure.message", &self.message, limits::MAX_FAILURE_MESSAGE_BYTES)?;
        at_most("range_failure.retry_after_ms", self.retry_after_ms, limits::MAX_RETRY_AFTER_MS)
    }
}

impl Codec for RangeReply {
    type Proto = proto::RangeReply;
    const NAME: &'static str = "range reply";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::RANGE_REPLY;

    fn to_proto(&self) -> proto::RangeReply {
        use proto::range_reply::Reply;
        let reply = match self {
            Self::Slice(slice) => Reply::Slice(slice.to_proto()),
            Self::Failure(failure) => Reply::Failure(failure.to_proto()),
        };
        proto::RangeReply { reply: Some(reply) }
    }

    fn from_proto(proto: proto::RangeReply) -> Result<Self, WireError> {
        use proto::range_reply::Reply;
        Ok(match check::required("range reply", proto.reply)? {
            Reply::Slice(slice) => Self::Slice(RangeSlice::from_proto(slice)?),
            Reply::Failure(failure) => Self::Failure(RangeFailure::from_proto(failure)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Slice(slice) => slice.check(),
            Self::Failure(failure) => failure.check(),
        }
    }
}
