//! How a provider says no.

use crate::check::{self, at_most, line};
use crate::codec::Codec;
use crate::shape::{self, Shape};
use crate::{WireError, limits, proto};

/// Ends a job without a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason, for a program.
    pub code: FailureCode,
    /// The reason, for a person: one line.
    pub message: String,
    /// When to try again; 0 gives no advice.
    pub retry_after_ms: u64,
}

impl Failure {
    /// A failure without advice. The message is made one line and cut to its limit.
    pub fn new(code: FailureCode, message: impl AsRef<str>) -> Self {
        Self {
            code,
            message: check::to_line(message.as_ref(), limits::MAX_FAILURE_MESSAGE_BYTES),
            retry_after_ms: 0,
        }
    }
}

impl Codec for Failure {
    type Proto = proto::Failure;
    const NAME: &'static str = "failure";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::FAILURE;

    fn to_proto(&self) -> proto::Failure {
        proto::Failure {
            code: self.code.to_proto().into(),
            message: self.message.clone(),
            retry_after_ms: self.retry_after_ms,
        }
    }

    fn from_proto(proto: proto::Failure) -> Result<Self, WireError> {
        Ok(Self {
            code: FailureCode::from_proto(proto.code)?,
            message: proto.message,
            retry_after_ms: proto.retry_after_ms,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check::not_empty("failure.message", self.message.is_empty())?;
        line("failure.message", &self.message, limits::MAX_FAILURE_MESSAGE_BYTES)?;
        at_most("failure.retry_after_ms", self.retry_after_ms, limits::MAX_RETRY_AFTER_MS)
    }
}

macro_rules! failure_codes {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a job ends without a receipt.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FailureCode {
            $($(#[$doc])* $name,)*
        }

        impl FailureCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn to_proto(self) -> proto::FailureCode {
                match self {
                    $(Self::$name => proto::FailureCode::$name,)*
                }
            }

            fn from_proto(number: i32) -> Result<Self, WireError> {
                match proto::FailureCode::try_from(number) {
                    $(Ok(proto::FailureCode::$name) => Ok(Self::$name),)*
                    Ok(proto::FailureCode::Unspecified) | Err(_) => {
                        Err(WireError::Unnamed { place: "failure.code", got: number })
                    }
                }
            }
        }
    };
}

failure_codes! {
    /// Malformed, forged, or not from this connection's key.
    BadOffer,
    /// The offer was seen before.
    Replayed,
    /// The provider doesn't hold the model.
    UnknownModel,
    /// Prompt and answer don't fit the model's context.
    ContextLength,
    /// The prompt has no token.
    EmptyPrompt,
    /// The queue is full; `retry_after_ms` says when to come back.
    Busy,
    /// Something the offer asks for isn't done here.
    Unsupported,
    /// The deadline passed.
    Deadline,
    /// The router cancelled.
    Cancelled,
    /// The provider broke.
    Internal,
    /// A challenge names a receipt that isn't kept.
    UnknownReceipt,
    /// A frame came where it can't.
    OutOfOrder,
    /// The constraint's rules are unknown here, or it can't be followed under them.
    Constraint,
    /// The job alone needs more memory than the provider has for all of them; another
    /// may have it. The message says both figures.
    Capacity,
}
