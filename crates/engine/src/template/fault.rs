//! Why a template can't be compiled, or stops.

/// What is wrong with a template's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Counted from 1.
    pub(super) line: u32,
    pub(super) reason: String,
}

/// Why a running template stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A limit is reached.
    Limit { place: &'static str, expected: u64, unit: &'static str },
    /// The template called `raise_exception`.
    Refused(String),
    /// An operation that can't be done. Line 0 stands for a place not known yet.
    Failed { line: u32, reason: String },
}

impl Fault {
    /// Says where, if nothing further in has.
    pub(super) fn at(self, place: u32) -> Self {
        match self {
            Self::Failed { line: 0, reason } => Self::Failed { line: place, reason },
            other => other,
        }
    }
}

/// An operation that can't be done.
pub(super) fn failed<T>(reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Failed { line: 0, reason: reason.into() })
}
