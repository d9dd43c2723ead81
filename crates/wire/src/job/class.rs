//! How an answer comes about, and so how it can be judged.
//!
//! Offers, receipts and announced models carry a [`Class`]. A class is never
//! changed on the way: the receipt's is its offer's. Deliberately absent: how
//! either class is judged, which is for `peerproof-proof`.

use crate::{WireError, proto};

/// How an answer comes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// By the integer arithmetic: whoever recomputes it gets the same bits.
    #[default]
    Exact,
    /// By an engine of another kind: tested against the model file, and never
    /// shown to be right.
    Statistical,
}

impl Class {
    /// Its name, as people and programs read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Statistical => "statistical",
        }
    }

    pub(crate) fn to_proto(self) -> proto::Class {
        match self {
            Self::Exact => proto::Class::Unspecified,
            Self::Statistical => proto::Class::Statistical,
        }
    }

    pub(crate) fn from_proto(place: &'static str, number: i32) -> Result<Self, WireError> {
        match proto::Class::try_from(number) {
            Ok(proto::Class::Unspecified) => Ok(Self::Exact),
            Ok(proto::Class::Statistical) => Ok(Self::Statistical),
            Err(_) => Err(WireError::Unnamed { place, got: number }),
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
