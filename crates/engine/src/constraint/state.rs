//! Where in the grammar an answer stands: tokens in, masks out, in turns.
//!
//! Deliberately absent: threads, and going back; who needs another past begins
//! anew.

use llguidance::TokenParser;
use llguidance::api::StopReason;

use super::grammar::Source;
use super::{ConstraintError, Mask, Vocabulary};

/// The longest reason quoted from the library, in characters: so many of its
/// beginning, so many of its end.
const REASON: [usize; 2] = [80, 220];

#[cfg_attr(test, derive(Clone))]
pub(super) struct State {
    parser: TokenParser,
    ends: Vec<u32>,
    tokens: usize,
    /// Whether nothing is allowed any more.
    over: bool,
}

impl State {
    pub(super) fn new(source: &Source, vocabulary: &Vocabulary) -> Result<Self, ConstraintError> {
        let made = vocabulary.factory.create_parser(source.grammar());
        let mut parser =
            made.map_err(|error| ConstraintError::Schema { reason: reason(&error.to_string()) })?;
        parser.start_without_prompt();
        Ok(Self { parser, ends: vocabulary.ends.clone(), tokens: 0, over: false })
    }

    /// The tokens that may come now.
    pub(super) fn mask(&mut self) -> Mask {
        if self.over {
            return Mask::empty(None);
        }
        match self.parser.compute_mask() {
            Ok(allowed) => Mask { bits: allowed.as_slice().to_vec(), trouble: None },
            Err(error) => {
                self.over = true;
                Mask::empty(Some(self.trouble(&error.to_string())))
            }
        }
    }

    /// Takes the token that came, which `mask` was made for.
    pub(super) fn push(&mut self, token: u32, mask: &Mask) -> Option<ConstraintError> {
        self.over |= self.ends.contains(&token) || !mask.has(token);
        self.tokens += 1;
        if self.over {
            return None;
        }
        let error = self.parser.consume_token(token).err()?;
        self.over = true;
        Some(self.trouble(&error.to_string()))
    }

    /// Steps of the lexer and of the parser so far.
    #[cfg(test)]
    pub(super) fn cost(&self) -> (u64, usize) {
        let stats = self.parser.parser_stats();
        (stats.lexer_cost, stats.all_items)
    }

    fn trouble(&self, error: &str) -> ConstraintError {
        match self.parser.stop_reason() {
            StopReason::NoExtension | StopReason::NoExtensionBias => {
                ConstraintError::Stuck { tokens: self.tokens }
            }
            _ => ConstraintError::Limit { tokens: self.tokens, reason: reason(error) },
        }
    }
}

/// What the library says, in one line of bounded length.
pub(super) fn reason(error: &str) -> String {
    if error.contains("oneOf constraints are not supported") {
        return "oneOf needs branches that exclude each other; use anyOf".into();
    }
    let first = error.split("<backtrace>").next().unwrap_or_default();
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let letters: Vec<char> = line.chars().collect();
    let [head, tail] = REASON;
    if letters.len() <= head + tail {
        return line;
    }
    let (head, tail) = (&letters[..head], &letters[letters.len() - tail..]);
    head.iter().chain(&[' ', '…', ' ']).chain(tail).collect()
}
