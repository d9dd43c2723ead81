//! SentencePiece: pieces with scores, spaces among them, no words.
//!
//! A text is brought into the form that the pieces are written in (a space put
//! before it, runs of spaces joined, as the file says), then cut into pieces: by
//! merging neighbours ([`merge`]) or by the best sum of scores ([`unigram`]).
//! What no piece can spell becomes byte tokens, or the unknown token where the
//! vocabulary has no bytes. The algorithms, their order among equals and their
//! arithmetic are those of the SentencePiece library (Kudo and Richardson, 2018).
//!
//! Spaces stay spaces here: pieces had U+2581 undone when they were read, so the
//! same is done to a text that spells it.
//!
//! Deliberately absent: normalisation by a table of characters, which files with
//! a `precompiled_charsmap` ask for; no causal model is known to.

mod merge;
mod unigram;

use std::borrow::Cow;

use super::error::{TokenizerError, broken, unsupported};
use super::special::{Matcher, Part};
use super::vocabulary::{KEY_TOKENS, Kind, SPACE, Vocabulary};
use crate::gguf::Gguf;
use merge::Merger;
use unigram::Lattice;

/// The longest piece taken, in bytes.
const MAX_PIECE_BYTES: usize = 1_024;

const KEY_SCORES: &str = "tokenizer.ggml.scores";
const KEY_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const KEY_JOIN: &str = "tokenizer.ggml.remove_extra_whitespaces";
const KEY_SUFFIX: &str = "tokenizer.ggml.treat_whitespace_as_suffix";
const KEY_CHARACTERS: &str = "tokenizer.ggml.precompiled_charsmap";
const KEY_UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";

/// How a text is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Neighbours are merged, best score first.
    Merge,
    /// The cut with the best sum of scores.
    Unigram,
}

/// The half of a tokenizer that turns text into pieces.
#[derive(Debug)]
pub(super) struct SentencePiece {
    cutter: Cutter,
    /// The token of every byte.
    bytes: Option<Box<[u32; 256]>>,
    unknown: Option<u32>,
    space_first: bool,
    join_spaces: bool,
}

#[derive(Debug)]
enum Cutter {
    Merge(Merger),
    Unigram(Lattice),
}

impl SentencePiece {
    pub(super) fn read(
        file: &Gguf,
        vocabulary: &Vocabulary,
        method: Method,
    ) -> Result<Self, TokenizerError> {
        check_keys(file)?;
        let scores = scores(file, vocabulary.len())?.collect::<Result<Vec<f32>, _>>()?;
        let spellable = spellable(file, vocabulary)?;
        let cutter = match method {
            Method::Merge => Cutter::Merge(Merger::new(vocabulary, &spellable, &scores)?),
            Method::Unigram => Cutter::Unigram(Lattice::new(vocabulary, &spellable, scores)?),
        };
        let bytes = byte_tokens(vocabulary)?;
        let unknown = unknown(file, vocabulary)?;
        either(bytes.is_some(), unknown.is_some())?;
        Ok(Self {
            cutter,
            bytes,
            unknown,
            space_first: file.optional_bool(KEY_PREFIX)?.unwrap_or(method == Method::Merge),
            join_spaces: file.optional_bool(KEY_JOIN)?.unwrap_or(false),
        })
    }

    /// Appends the tokens of a text without control tokens; it begins after one,
    /// or begins the prompt.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        user_defined: &Matcher,
        text: &str,
        tokens: &mut Vec<u32>,
    ) {
        let text = self.normalise(text);
        let mut sink = Sink { of: self, tokens, unknown_before: false };
        match &self.cutter {
            Cutter::Merge(merger) => {
                let mut work = merge::Work::default();
                for part in user_defined.parts(&text) {
                    match part {
                        Part::Token(token) => sink.token(token),
                        Part::Text(text) => merger.encode(vocabulary, text, &mut work, &mut sink),
                    }
                }
            }
            Cutter::Unigram(lattice) => lattice.encode(vocabulary, &text, &mut sink),
        }
    }

    fn normalise<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if self.join_spaces {
            let words = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>();
            text = Cow::Owned(words.join(" ").trim_end_matches(SPACE).to_owned());
        }
        if text.contains(SPACE) {
            text = Cow::Owned(text.replace(SPACE, " "));
        }
        if self.space_first && !text.is_empty() {
            text = Cow::Owned([" ", &text].concat());
        }
        text
    }
}

/// Takes pieces in order, and turns what has none into bytes or the unknown token.
struct Sink<'a> {
    of: &'a SentencePiece,
    tokens: &'a mut Vec<u32>,
    unknown_before: bool,
}

impl Sink<'_> {
    fn token(&mut self, token: u32) {
        self.tokens.push(token);
        self.unknown_before = false;
    }

    /// A character without a piece. A run of them is one unknown token.
    fn unknown(&mut self, text: &[u8]) {
        match (&self.of.bytes, self.of.unknown) {
            (Some(bytes), _) => {
                self.tokens.extend(text.iter().map(|&byte| bytes[usize::from(byte)]));
            }
            (None, Some(unknown)) if !self.unknown_before => {
                self.tokens.push(unknown);
                self.unknown_before = true;
            }
            (None, _) => {}
        }
    }
}

/// What is asked for beside pieces: nothing that isn't known here.
pub(super) fn check_keys(file: &Gguf) -> Result<(), TokenizerError> {
    if file.optional_bool(KEY_SUFFIX)?.unwrap_or(false) {
        return Err(unsupported(KEY_SUFFIX, "false", "true"));
    }
    if file.has(KEY_CHARACTERS) {
        return Err(unsupported(KEY_CHARACTERS, "no such key", "a table of characters"));
    }
    file.optional_bool(KEY_PREFIX)?;
    file.optional_bool(KEY_JOIN)?;
    Ok(())
}

/// The score of every token, finite.
fn scores(
    file: &Gguf,
    count: usize,
) -> Result<impl Iterator<Item = Result<f32, TokenizerError>>, TokenizerError> {
    let scores = file.f32s(KEY_SCORES)?;
    if scores.len() != count {
        return Err(broken(KEY_SCORES, "a score for every token", scores.len()));
    }
    Ok(scores.enumerate().map(|(at, score)| match score.is_finite() {
        true => Ok(score),
        false => Err(broken(KEY_SCORES, "finite numbers", format!("{score} of token {at}"))),
    }))
}

/// Checks the scores as they are checked when they are kept.
pub(super) fn check_scores(
    file: &Gguf,
    kinds: &[Kind],
    method: Method,
) -> Result<(), TokenizerError> {
    for (score, &kind) in scores(file, kinds.len())?.zip(kinds) {
        let score = score?;
        if method == Method::Unigram && kind == Kind::Normal {
            unigram::check_score(score)?;
        }
    }
    Ok(())
}

/// Checks that every character can be spelled somehow: there are tokens of all
/// bytes, or one for what is unknown.
pub(super) fn check_bytes(file: &Gguf, kinds: &[Kind]) -> Result<(), TokenizerError> {
    let (mut seen, mut count) = ([false; 256], 0);
    for (written, _) in file.strings(KEY_TOKENS)?.zip(kinds).filter(|(_, k)| **k == Kind::Byte) {
        seen[usize::from(super::vocabulary::byte(written)?)] = true;
        count += 1;
    }
    let named = super::token_id(file, KEY_UNKNOWN, kinds.len())?;
    let unknown = named.is_some() || kinds.contains(&Kind::Unknown);
    either(all_or_none(count, seen.contains(&false))?, unknown)
}

/// Whether there is a token for every byte; a part of them won't do.
fn all_or_none(count: usize, missing: bool) -> Result<bool, TokenizerError> {
    match count {
        0 => Ok(false),
        256 if !missing => Ok(true),
        _ => Err(broken(KEY_TOKENS, "a token for every byte once, or none", count)),
    }
}

fn either(bytes: bool, unknown: bool) -> Result<(), TokenizerError> {
    if bytes || unknown {
        return Ok(());
    }
    Err(broken(KEY_UNKNOWN, "an unknown token, or byte tokens", "neither"))
}

/// The tokens that may be found in a text by their spelling, user-defined ones
/// among them. A piece that spells a space as such isn't: no text has one where
/// pieces are looked for.
fn spellable(file: &Gguf, vocabulary: &Vocabulary) -> Result<Vec<u32>, TokenizerError> {
    let mut tokens = Vec::with_capacity(vocabulary.len());
    for (token, written) in (0u32..).zip(file.strings(KEY_TOKENS)?) {
        if vocabulary.kind(token).map_or(Ok(false), |kind| is_spellable(kind, written))? {
            tokens.push(token);
        }
    }
    Ok(tokens)
}

/// Whether a token is found by its spelling.
pub(super) fn is_spellable(kind: Kind, written: &[u8]) -> Result<bool, TokenizerError> {
    let fits = match kind {
        Kind::Normal | Kind::Unused => !written.contains(&b' '),
        Kind::UserDefined => true,
        _ => false,
    };
    if fits && written.len() > MAX_PIECE_BYTES {
        return Err(broken(KEY_TOKENS, "pieces of at most 1024 bytes", written.len()));
    }
    Ok(fits && !written.is_empty())
}

/// The tokens of all bytes, or of none.
fn byte_tokens(vocabulary: &Vocabulary) -> Result<Option<Box<[u32; 256]>>, TokenizerError> {
    let mut bytes = Box::new([super::index::NONE; 256]);
    let mut count = 0;
    for token in vocabulary.of_kind(Kind::Byte) {
        for &byte in vocabulary.spelling(token) {
            bytes[usize::from(byte)] = token;
        }
        count += 1;
    }
    let missing = bytes.contains(&super::index::NONE);
    Ok(all_or_none(count, missing)?.then_some(bytes))
}

/// The token for what can't be spelled: the one the file names, or classes so.
fn unknown(file: &Gguf, vocabulary: &Vocabulary) -> Result<Option<u32>, TokenizerError> {
    let named = super::token_id(file, KEY_UNKNOWN, vocabulary.len())?;
    Ok(named.or_else(|| vocabulary.of_kind(Kind::Unknown).next()))
}
