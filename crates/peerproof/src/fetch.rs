//! Model files from peers: what is asked for and what came of it.
//!
//! [`Client::pull`](crate::Client::pull) makes an installed model of what several
//! peers hold, [`Client::ranges`](crate::Client::ranges) fetches single pieces and
//! keeps them for the next time. Every byte is checked against the model's id
//! before it is written, so it does not matter who sent it.

use serde::Serialize;

use crate::client::AskError;
use crate::models::{Installed, ModelError};

/// A model to be pulled from peers.
#[derive(Clone, Debug, Default)]
pub struct PullSpec {
    /// Its id, or a name that peers announce.
    pub model: String,
    /// Name to install it under; the one that peers announce if there is none.
    pub name: Option<String>,
    /// Most bytes a second.
    pub max_bytes_per_s: Option<u64>,
}

/// What a pull brought.
#[derive(Clone, Debug, Serialize)]
pub struct Pulled {
    /// The model.
    pub model: Installed,
    /// Who sent how much.
    pub sources: Vec<SentBy>,
    /// Who was given up, and why.
    pub dropped: Vec<Dropped>,
    /// Bytes that were here before.
    pub resumed_bytes: u64,
    /// Bytes that came.
    pub fetched_bytes: u64,
    /// How long they took, in milliseconds.
    pub fetch_ms: u64,
}

/// A peer that sent verified bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentBy {
    /// Who.
    pub peer: String,
    /// How many of them were needed.
    pub bytes: u64,
}

/// A peer that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Who.
    pub peer: String,
    /// Whether it sent what is not the model's; if not, it went away or refused.
    pub corrupt: bool,
    /// What happened.
    pub reason: String,
}

/// Why bytes could not be fetched. What came is kept; the next attempt goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The name is known to nobody.
    #[error(transparent)]
    Unknown(#[from] AskError),
    /// Nobody announces the model.
    #[error("nobody who has model {model} was found: {hint}")]
    Nobody {
        /// Its id.
        model: String,
        /// What to do.
        hint: String,
    },
    /// Everybody who had it was given up.
    #[error("{have} of {total} bytes are here, and no peer is left to ask for the rest: {}; run the command again to go on", said(.dropped))]
    NoneLeft {
        /// Bytes that are here.
        have: u64,
        /// Bytes of the file, if any peer has proven them; else 0.
        total: u64,
        /// Who was asked.
        dropped: Vec<Dropped>,
    },
    /// The disk, or somebody who stopped it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A range that the file does not have.
    #[error("range {start}..{end}: the model file has {length} bytes")]
    Range {
        /// First byte.
        start: u64,
        /// First byte after it.
        end: u64,
        /// The file's length.
        length: u64,
    },
}

fn said(dropped: &[Dropped]) -> String {
    let each: Vec<String> = dropped.iter().map(|d| format!("{}: {}", d.peer, d.reason)).collect();
    if each.is_empty() { "nobody answered".into() } else { each.join("; ") }
}
