//! Byte-level BPE: a text is cut into words by the rule that the file names, and
//! each word's bytes are merged by rank. The merging is the `tokenizers` crate's;
//! what it is fed (vocabulary, merges, split) comes from the file.
//!
//! Control tokens are kept out of the crate's vocabulary, so that no plain text
//! can become one. Bytes for which a vocabulary has no token (rare control
//! characters in some) are left out, as the reference implementations do.

use tokenizers::models::bpe::{BPE, Vocab};

use super::error::{TokenizerError, broken};
use super::split::Split;
use super::vocabulary::{KEY_TOKENS, Kind, Vocabulary};
use super::{KEY_MERGES, MAX_VOCABULARY};
use crate::gguf::{Gguf, Strings};

/// Splits and merges.
#[derive(Debug)]
pub(super) struct ByteLevel {
    inner: tokenizers::Tokenizer,
}

impl ByteLevel {
    pub(super) fn read(
        file: &Gguf,
        vocabulary: &Vocabulary,
        split: Split,
    ) -> Result<Self, TokenizerError> {
        Ok(Self { inner: split.build(merging(file, vocabulary, split)?) })
    }

    /// Appends the tokens of a text without control tokens.
    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        let failed =
            |reason: tokenizers::Error| TokenizerError::Encode { reason: reason.to_string() };
        let encoding = self.inner.encode_fast(text, false).map_err(failed)?;
        tokens.extend_from_slice(encoding.get_ids());
        Ok(())
    }
}

/// The merging half: vocabulary without control tokens, and the merges.
fn merging(file: &Gguf, vocabulary: &Vocabulary, split: Split) -> Result<BPE, TokenizerError> {
    let mut ids = Vocab::with_capacity_and_hasher(vocabulary.len(), Default::default());
    for (id, token) in (0u32..).zip(file.strings(KEY_TOKENS)?) {
        if vocabulary.kind(id) == Some(Kind::Normal) {
            let token = utf8(KEY_TOKENS, token)?.to_owned();
            if let Some(first) = ids.insert(token, id) {
                return Err(broken(KEY_TOKENS, "every token once", format!("{first} = {id}")));
            }
        }
    }
    let mut merges = Vec::with_capacity(file.strings(KEY_MERGES)?.len().min(MAX_VOCABULARY));
    for merge in merges_of(file)? {
        let (left, right) = halves(merge)?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(split.ignores_merges())
        .build()
        .map_err(|error| broken(KEY_MERGES, "merges of ordinary tokens", error))
}

/// The merges of a file, as it writes them.
pub(super) fn merges_of(file: &Gguf) -> Result<Strings<'_>, TokenizerError> {
    let strings = file.strings(KEY_MERGES)?;
    if strings.len() > MAX_VOCABULARY {
        return Err(broken(KEY_MERGES, "at most 2^20 merges", strings.len()));
    }
    Ok(strings)
}

/// What a merge brings together.
pub(super) fn halves(merge: &[u8]) -> Result<(&str, &str), TokenizerError> {
    let merge = utf8(KEY_MERGES, merge)?;
    let halves = merge.split_once(' ');
    halves.ok_or_else(|| broken(KEY_MERGES, "two tokens and a space", format!("{merge:?}")))
}

pub(super) fn utf8<'a>(key: &'static str, bytes: &'a [u8]) -> Result<&'a str, TokenizerError> {
    std::str::from_utf8(bytes).map_err(|_| broken(key, "UTF-8", String::from_utf8_lossy(bytes)))
}
