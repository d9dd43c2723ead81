//! Which tokens an offer's constraint leaves: JSON mode and JSON schemas by
//! masking.
//!
//! A constraint's text becomes a grammar over bytes (`grammar`); the model's
//! vocabulary becomes a tree of the bytes of its tokens (`vocabulary`); walking
//! one along the other gives the tokens after which the text can still be
//! completed (`state`). That happens on a thread of its own for each job
//! (`worker`), while the forward pass computes the logits that the mask is for;
//! `Masks` is that thread's handle. A token that the job draws is told to it
//! at once, so the next mask is being made while the token is being read.
//!
//! A mask follows from the constraint and the tokens of the answer alone. To
//! keep it so where one of the limits is hit, too, every state is reached by the same
//! calls: a mask, a token, a mask, a token, from the beginning. The crate behind
//! the grammar defines what a schema means in every detail, so an offer names it
//! with its version ([`RULES`]); `docs/spec/arithmetic.md`, section 8, says the
//! rest. Deliberately absent: the choice among the tokens that are left, and
//! clocks: every limit counts steps.

mod grammar;
mod state;
mod vocabulary;
mod worker;

use std::sync::Arc;

use peerproof_wire::{Constraint, Form};

pub(crate) use grammar::Source;
pub use grammar::limits;
pub(crate) use vocabulary::Vocabulary;
pub use vocabulary::table_bytes;
pub(crate) use worker::Masks;

/// The rules that masks are made by: the library that reads schemas, its
/// version, and the number of the options and limits it is used with.
pub const RULES: &str = "llguidance-1.9.1/2";

/// Why a constraint can't be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// Other rules than those known here.
    #[error("constraint.rules: expected {RULES:?}, got {got:?}")]
    Rules {
        /// The offer's.
        got: String,
    },
    /// A form of constraint that these rules don't have.
    #[error("constraint.kind: {got} is not supported by {RULES:?}")]
    Form {
        /// What was asked for.
        got: &'static str,
    },
    /// A schema that isn't JSON, or not an object.
    #[error("json schema: expected a JSON object, got {got}")]
    Syntax {
        /// What is wrong.
        got: String,
    },
    /// A schema larger than may be.
    #[error("json schema: {what}: expected at most {expected}, got {got}")]
    Size {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        expected: usize,
        /// What the schema has; counting stops soon after the limit.
        got: usize,
    },
    /// A schema that no text satisfies, that uses a keyword that isn't known, or
    /// that would take more than the limits allow.
    #[error("json schema: {reason}")]
    Schema {
        /// What is wrong with it.
        reason: String,
    },
    /// The model's tokens can't be brought into a tree.
    #[error("constraints are not available for this model: {reason}")]
    Vocabulary {
        /// Why.
        reason: String,
    },
    /// A limit was hit while the answer was being made.
    #[error("the constraint takes too many steps after {tokens} tokens: {reason}")]
    Limit {
        /// Tokens of the answer so far.
        tokens: usize,
        /// Which limit.
        reason: String,
    },
    /// No token of the model leads any further.
    #[error("the constraint leaves no token after {tokens} tokens")]
    Stuck {
        /// Tokens of the answer so far.
        tokens: usize,
    },
    /// The system gives no thread, or the library broke.
    #[error("the constraint can't be followed: {reason}")]
    Broken {
        /// Why.
        reason: String,
    },
}

/// Whether the constraint can be followed, as far as can be known without a
/// model: its rules, its form, its size, that its schema has a meaning, and that
/// some text begins as it wants.
///
/// # Errors
/// It can't.
pub fn verify(constraint: &Constraint) -> Result<(), ConstraintError> {
    let source = Source::new(constraint)?;
    let mut masks = Masks::start(Arc::new(source), &Vocabulary::of_bytes()?)?;
    match masks.mask().trouble {
        Some(ConstraintError::Stuck { .. }) => {
            Err(ConstraintError::Schema { reason: "no text satisfies it".into() })
        }
        // A limit may be hit by these tokens and not by a model's.
        _ => Ok(()),
    }
}

/// The name of a form in errors.
fn name(form: &Form) -> &'static str {
    match form {
        Form::JsonObject => "json_object",
        Form::JsonSchema(_) => "json_schema",
        Form::Regex(_) => "regex",
    }
}

/// The tokens that may come next, and whether there is a reason to stop.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    /// Bit `t` is token `t`, 32 to a word, the lowest first.
    pub(crate) bits: Vec<u32>,
    /// Why nothing is left, if nothing is and the rules didn't mean it so.
    pub(crate) trouble: Option<ConstraintError>,
}

impl Mask {
    fn empty(trouble: Option<ConstraintError>) -> Self {
        Self { bits: Vec::new(), trouble }
    }

    fn has(&self, token: u32) -> bool {
        let word = self.bits.get(token as usize / 32).copied().unwrap_or(0);
        word >> (token % 32) & 1 == 1
    }
}

#[cfg(test)]
mod tests;
