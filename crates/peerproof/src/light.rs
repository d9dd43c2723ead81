//! Preparing light audits: what is made of a model, once.
//!
//! [`Client::prepare`](crate::Client::prepare) reads a model's file a part at a time, from
//! disk or from peers, and keeps secret combinations of its rows, about a hundredth of the
//! file. An answer of the level `light` does it by itself if it was not done.
//! Deliberately absent: the work, which is the node's.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::client::AskError;

/// What is kept of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prepared {
    /// The model's id.
    pub model: String,
    /// Where it lies. Nobody else may read it.
    pub path: std::path::PathBuf,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many bytes of the model's file were read for it.
    pub read_bytes: u64,
    /// Whether it was made now; if not, it was there.
    pub made: bool,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// Why a model could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The name is known to nobody.
    #[error(transparent)]
    Unknown(#[from] AskError),
    /// Its file could not be read, or what was made not be written.
    #[error("light audits of model {model} could not be prepared: {reason}")]
    Failed {
        /// The model's id.
        model: String,
        /// In words.
        reason: String,
    },
    /// Whoever watched stopped it; what was made is lost.
    #[error("stopped; what was made is lost")]
    Stopped,
}

/// Told how many parts are done and of how many; may stop it.
pub type PrepareWatch<'a> = &'a mut (dyn FnMut(u32, u32) -> ControlFlow<()> + Send);
