//! The tokens of a model as a tree of bytes, made once a model.
//!
//! In the tree are the tokens that add text to an answer. Left out are control
//! tokens and those that end an answer (they add none; the latter are allowed
//! where the text is complete), tokens longer than any that tokenizers have for
//! text, and tokens with a byte that text never begins with, which the library
//! keeps for itself. Deliberately absent: encoding text; nothing is forced on
//! the model that it didn't choose.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokRxInfo, TokTrie};

use super::ConstraintError;
use super::grammar::parser_limits;
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;

/// The longest token in the tree, in bytes.
const MAX_TOKEN_BYTES: usize = 1_000;
/// The most bytes of all tokens in the tree: its nodes are counted in 22 bits.
const MAX_BYTES: usize = (1 << 22) - 2;
/// The largest vocabulary: tokens are counted in 24 bits, one number is taken.
const MAX_TOKENS: usize = (1 << 24) - 2;

/// Trees that the library makes of one vocabulary: all tokens, and those of each
/// kind of text with and without what is part of another kind.
const TREES: u64 = 15;
/// Bytes of a token in every tree, whether it holds the token or not: where it
/// lies, how long it is, its place in the alphabet.
const TOKEN_BYTES: u64 = 12;
/// Bytes of nodes in all trees for a byte of text: of the 8 bytes a node a third,
/// since beginnings are shared, in the nine trees that hold most tokens.
const NODE_BYTES: u64 = 24;

/// Bytes that constrained answers of a file's model take once they are prepared,
/// roughly, found without building anything.
#[must_use]
pub fn table_bytes(file: &Gguf) -> u64 {
    let Ok(Some(tokens)) = file.optional_strings("tokenizer.ggml.tokens") else { return 0 };
    let count = tokens.len() as u64;
    let text: u64 = tokens.map(|token| token.len() as u64).sum();
    TREES * (TOKEN_BYTES * count + text) + NODE_BYTES * text
}

/// What makes parsers for a model's constraints.
pub(crate) struct Vocabulary {
    pub(super) factory: ParserFactory,
    /// Sorted.
    pub(super) ends: Vec<u32>,
    pub(super) tokens: usize,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// The tree of a model's tokens.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Result<Arc<Self>, ConstraintError> {
        let word = |token| {
            let bytes = tokenizer.piece(token);
            let left_out = tokenizer.is_end(token)
                || bytes.len() > MAX_TOKEN_BYTES
                || bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER);
            if left_out { Vec::new() } else { bytes.to_vec() }
        };
        let words: Vec<Vec<u8>> = (0..tokenizer.vocabulary()).map(word).collect();
        Self::build(&words, tokenizer.end_tokens(), &parser_limits())
    }

    /// A vocabulary of single bytes, for looking at constraints without a model.
    pub(crate) fn of_bytes() -> Result<Arc<Self>, ConstraintError> {
        static BYTES: OnceLock<Result<Arc<Vocabulary>, ConstraintError>> = OnceLock::new();
        let build = || {
            let mut words: Vec<Vec<u8>> = (0..=254).map(|byte| vec![byte]).collect();
            words.push(Vec::new());
            Self::build(&words, &[255], &parser_limits())
        };
        BYTES.get_or_init(build).clone()
    }

    pub(super) fn build(
        words: &[Vec<u8>],
        ends: &[u32],
        limits: &ParserLimits,
    ) -> Result<Arc<Self>, ConstraintError> {
        let refuse = |reason: String| Err(ConstraintError::Vocabulary { reason });
        let bytes: usize = words.iter().map(Vec::len).sum();
        if bytes > MAX_BYTES || words.len() > MAX_TOKENS {
            return refuse(format!("{} tokens of {bytes} bytes are too many", words.len()));
        }
        let Some(&end) = ends.first() else {
            return refuse("no token ends an answer".into());
        };
        let info = TokRxInfo::new(words.len() as u32, end);
        let factory = catch_unwind(AssertUnwindSafe(|| {
            let tree = TokTrie::from(&info, words).with_eos_tokens(ends);
            // One that isn't canonical: the library then never forces a token.
            let tokens: llguidance::toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(tree));
            let slices = SlicedBiasComputer::json_slices();
            ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)
        }));
        let mut factory = match factory {
            Ok(Ok(factory)) => factory,
            Ok(Err(error)) => return refuse(error.to_string()),
            Err(_) => return refuse("the library broke".into()),
        };
        factory.quiet();
        *factory.limits_mut() = limits.clone();
        Ok(Arc::new(Self { factory, ends: ends.to_vec(), tokens: words.len() }))
    }
}
