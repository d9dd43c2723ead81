//! What a large vocabulary gets wrong, found before memory is taken for it.
//!
//! The parts of a tokenizer check what they are made of while they are made; of a
//! vocabulary near the limit that is after a hundred MiB or so. This goes through
//! the same rules with the file as it lies there, in one walk over the tokens and
//! one over scores or merges. What it keeps is a class and a hash for each token,
//! nine bytes, however long the token is. Whatever passes here, the parts take;
//! what they refuse later for all that is refused too, only less cheaply.
//! Deliberately absent: small vocabularies, which the parts alone refuse cheaply.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::byte_level::{halves, merges_of, utf8};
use super::error::{TokenizerError, broken};
use super::sentencepiece::{self, Method};
use super::special::Total;
use super::vocabulary::{self, Alphabet, KEY_TOKENS, Kind};
use super::{KEY_ADD_BOS, KEY_BOS, KEY_EOS, KEY_MERGES, KEYS_END, token_id};
use crate::gguf::Gguf;

/// Vocabularies up to here are refused by the parts, within a few MiB.
const SMALL: usize = 1 << 16;

/// Checks the vocabulary of a byte-level tokenizer.
pub(super) fn byte_level(file: &Gguf) -> Result<(), TokenizerError> {
    let Some(kinds) = large(file, Alphabet::Bytes)? else { return Ok(()) };
    token_ids(file, kinds.len())?;
    let words = Words::of(file, &kinds, Alphabet::Bytes, |kind, written| match kind {
        Kind::Normal => utf8(KEY_TOKENS, written).map(|_| true),
        _ => Ok(false),
    })?;
    let mut joined = Vec::new();
    for merge in merges_of(file)? {
        let (left, right) = halves(merge)?;
        joined.clear();
        joined.extend_from_slice(left.as_bytes());
        joined.extend_from_slice(right.as_bytes());
        if let Some(lacking) =
            [left.as_bytes(), right.as_bytes(), &joined].into_iter().find(|word| !words.have(word))
        {
            let got = format!("{:?}, which is none", String::from_utf8_lossy(lacking));
            return Err(broken(KEY_MERGES, "merges of ordinary tokens", got));
        }
    }
    Ok(())
}

/// Checks the vocabulary of a SentencePiece tokenizer.
pub(super) fn sentencepiece(file: &Gguf, method: Method) -> Result<(), TokenizerError> {
    let Some(kinds) = large(file, Alphabet::Spaces)? else { return Ok(()) };
    token_ids(file, kinds.len())?;
    sentencepiece::check_keys(file)?;
    sentencepiece::check_scores(file, &kinds, method)?;
    sentencepiece::check_bytes(file, &kinds)?;
    let fits = |kind, written: &[u8]| sentencepiece::is_spellable(kind, written);
    Words::of(file, &kinds, Alphabet::Spaces, fits).map(drop)
}

/// The classes of a vocabulary that is large.
fn large(file: &Gguf, alphabet: Alphabet) -> Result<Option<Vec<Kind>>, TokenizerError> {
    if file.strings(KEY_TOKENS)?.len() <= SMALL {
        return Ok(None);
    }
    vocabulary::kinds(file, alphabet).map(Some)
}

fn token_ids(file: &Gguf, count: usize) -> Result<(), TokenizerError> {
    for key in [KEY_BOS, KEY_EOS].into_iter().chain(KEYS_END) {
        token_id(file, key, count)?;
    }
    file.optional_bool(KEY_ADD_BOS)?;
    Ok(())
}

/// The hashes of all tokens that texts are made of, in ascending order.
struct Words {
    hashes: Vec<u64>,
    /// Keyed, so that no file can make two tokens look alike.
    state: RandomState,
}

impl Words {
    /// Walks over the tokens; `fits` says which of them are words.
    fn of(
        file: &Gguf,
        kinds: &[Kind],
        alphabet: Alphabet,
        fits: impl Fn(Kind, &[u8]) -> Result<bool, TokenizerError>,
    ) -> Result<Self, TokenizerError> {
        let mut words = Self { hashes: Vec::with_capacity(kinds.len()), state: RandomState::new() };
        let (mut control, mut user_defined) = (Total::default(), Total::default());
        let (mut text, mut bytes) = (Vec::new(), 0);
        for (written, &kind) in file.strings(KEY_TOKENS)?.zip(kinds) {
            text.clear();
            vocabulary::append(&mut text, written, kind, alphabet)?;
            bytes = vocabulary::text_end(bytes, text.len())?;
            match kind {
                Kind::Control => control.add(&text, 2)?,
                Kind::UserDefined => user_defined.add(&text, 1)?,
                _ => {}
            }
            if fits(kind, written)? {
                words.hashes.push(words.hash(word(written, &text, alphabet)));
            }
        }
        words.hashes.sort_unstable();
        let twice: Vec<u64> = words.twice().collect();
        for hash in twice {
            words.compare(file, kinds, alphabet, hash, &fits)?;
        }
        Ok(words)
    }

    fn hash(&self, word: &[u8]) -> u64 {
        self.state.hash_one(word)
    }

    /// Some of the hashes that two tokens have: a first one is enough, unless chance made it.
    fn twice(&self) -> impl Iterator<Item = u64> {
        let alike = |pair: &&[u64]| pair[0] == pair[1];
        self.hashes.windows(2).filter(alike).map(|pair| pair[0]).take(4)
    }

    /// Whether tokens of one hash are one word, as they all but certainly are.
    fn compare(
        &self,
        file: &Gguf,
        kinds: &[Kind],
        alphabet: Alphabet,
        hash: u64,
        fits: impl Fn(Kind, &[u8]) -> Result<bool, TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let mut first: Option<(u32, Vec<u8>)> = None;
        let mut text = Vec::new();
        for (token, (written, &kind)) in (0u32..).zip(file.strings(KEY_TOKENS)?.zip(kinds)) {
            text.clear();
            vocabulary::append(&mut text, written, kind, alphabet)?;
            let word = word(written, &text, alphabet);
            if !fits(kind, written)? || self.hash(word) != hash {
                continue;
            }
            match &first {
                Some((first, same)) if same == word => {
                    let got = format!("{first} = {token}");
                    return Err(broken(KEY_TOKENS, "every token once", got));
                }
                Some(_) => {}
                None => first = Some((token, word.to_vec())),
            }
        }
        Ok(())
    }

    /// Whether a token is spelled so. Hashes spread evenly, so where one would stand
    /// is known nearly.
    fn have(&self, word: &[u8]) -> bool {
        let (hash, len) = (self.hash(word), self.hashes.len());
        let guess = ((u128::from(hash) * len as u128) >> 64) as usize;
        let (mut low, mut high, mut step) = (guess, guess, 8);
        while low > 0 && self.hashes[low - 1] >= hash {
            (low, step) = (low.saturating_sub(step), 2 * step);
        }
        while high < len && self.hashes[high] < hash {
            (high, step) = ((high + step).min(len), 2 * step);
        }
        self.hashes[low..high.saturating_add(1).min(len)].binary_search(&hash).is_ok()
    }
}

/// What a token must not have in common with another: how it is written where
/// merges name it so, what it spells where pieces are found by that.
fn word<'a>(written: &'a [u8], text: &'a [u8], alphabet: Alphabet) -> &'a [u8] {
    match alphabet {
        Alphabet::Bytes => written,
        Alphabet::Spaces => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_among_many_and_others_are_not() {
        let state = RandomState::new();
        let name = |at: u32| at.to_le_bytes();
        for count in [0, 1, 2, 9, 1_000] {
            let mut hashes: Vec<u64> = (0..count).map(|at| state.hash_one(&name(at)[..])).collect();
            hashes.sort_unstable();
            let words = Words { hashes, state: state.clone() };
            for at in 0..2_000 {
                assert_eq!(words.have(&name(at)), at < count, "{at} of {count}");
            }
        }
        // Not spread at all: still found.
        let words = Words { hashes: vec![state.hash_one(&name(7)[..]); 99], state };
        assert!(words.have(&name(7)) && !words.have(&name(8)));
    }
}
