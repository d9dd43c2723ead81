//! Why a tokenizer can't be made, or a text can't be encoded.

use crate::gguf::GgufError;

/// Why a tokenizer can't be made from a file, or a text can't be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key is missing or has the wrong type.
    #[error(transparent)]
    File(#[from] GgufError),
    /// A kind of tokenizer, or a split rule, that isn't known.
    #[error("key {key:?}: expected one of {expected}, got {got:?}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What is known.
        expected: String,
        /// What the file says.
        got: String,
    },
    /// The vocabulary or the merges break a rule.
    #[error("key {key:?}: expected {expected}, got {got}")]
    Vocabulary {
        /// The key.
        key: &'static str,
        /// The rule.
        expected: &'static str,
        /// What the file holds.
        got: String,
    },
    /// The text is too long.
    #[error("text: expected at most {expected} bytes, got {got}")]
    TooLong {
        /// The cap.
        expected: usize,
        /// The text's length.
        got: usize,
    },
    /// The text defeats the split rule or the merging.
    #[error("text can't be tokenized: {reason}")]
    Encode {
        /// The underlying reason.
        reason: String,
    },
}

pub(super) fn unsupported(key: &'static str, expected: &str, got: &str) -> TokenizerError {
    TokenizerError::Unsupported {
        key,
        expected: expected.into(),
        got: got.chars().take(80).collect(),
    }
}

pub(super) fn broken(
    key: &'static str,
    expected: &'static str,
    got: impl ToString,
) -> TokenizerError {
    let got = got.to_string();
    TokenizerError::Vocabulary { key, expected, got: got.chars().take(200).collect() }
}
