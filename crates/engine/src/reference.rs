//! A plain float forward pass of the same file, and what the integers cost
//! against it.
//!
//! The only module of the forward pass that computes with floats: every tensor
//! is dequantised to `f32`, products are summed in `f32` and the rest in `f64`,
//! one layer after the other over a whole context at once. It is simple, and
//! shares no code with the integer pass. [`Comparer`] runs both over a text and
//! says what each predicts; [`Quality`] sums that up as perplexity, divergence
//! and agreement.

mod compare;
mod dequantise;
mod matmul;
mod pass;
mod rope;

use std::sync::Arc;

use crate::gguf::Gguf;
use crate::transformer::Transformer;
use crate::weights::LoadError;

pub use compare::{CompareError, Comparer, Prediction, Quality, Watch, compare};
pub use dequantise::weight_error;
use pass::Pass;

/// The float pass over one file. Several threads may use it at once.
pub struct Reference<'a> {
    model: Arc<Transformer>,
    pass: Pass<'a>,
}

impl<'a> Reference<'a> {
    /// The float pass of `model`, which was loaded from `gguf`.
    ///
    /// # Errors
    /// A key of the file can't be read.
    pub fn new(gguf: &'a Gguf, model: Arc<Transformer>) -> Result<Self, LoadError> {
        let pass = Pass::new(gguf, *model.shape(), model.family)?;
        Ok(Self { model, pass })
    }
}

impl std::fmt::Debug for Reference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reference({:?})", self.model.shape())
    }
}
