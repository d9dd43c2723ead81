//! Text to token ids and back, as the model file defines it.
//!
//! Byte-level BPE: text is cut into words by the split rule the file names,
//! each word's bytes are merged by rank. The merging is the `tokenizers`
//! crate's; what it is fed (vocabulary, merges, split) comes from the file.
//! Control tokens (`<|im_end|>` and the like) are handled here and kept out of
//! the crate's vocabulary, so that no plain text can ever become one: they
//! are recognised only under [`Special::Parse`], which is for rendered chat
//! templates whose message contents went through [`Shield`].
//!
//! Out again come bytes, since a token may end in the middle of a character;
//! [`TextDecoder`] holds such a piece back until the rest arrives.
//!
//! Bytes for which a vocabulary has no token (rare control characters in some)
//! are left out, as the reference implementations do. Deliberately absent:
//! SentencePiece models and training.

mod bytes;
mod shield;
mod special;
mod split;
mod stream;

use tokenizers::models::bpe::{BPE, Vocab};

pub use shield::Shield;
pub use split::Split;
pub use stream::TextDecoder;

use crate::gguf::{Gguf, GgufError};
use special::{Matcher, Part};

/// The longest text taken, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// The largest vocabulary taken, in tokens; merges may be as many.
pub const MAX_VOCABULARY: usize = 1 << 20;
/// The longest token taken, in bytes as the file writes it.
pub const MAX_TOKEN_BYTES: usize = 4_096;

const KEY_MODEL: &str = "tokenizer.ggml.model";
const KEY_SPLIT: &str = "tokenizer.ggml.pre";
const KEY_TOKENS: &str = "tokenizer.ggml.tokens";
const KEY_KINDS: &str = "tokenizer.ggml.token_type";
const KEY_MERGES: &str = "tokenizer.ggml.merges";
const KEY_ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const KEY_BOS: &str = "tokenizer.ggml.bos_token_id";
const KEY_EOS: &str = "tokenizer.ggml.eos_token_id";
/// Keys that may name further tokens that end an answer.
const KEYS_END: [&str; 3] = [KEY_EOS, "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
/// Control tokens that end an answer whether or not a key names them.
const ENDS: [&[u8]; 7] = [
    b"<|im_end|>",
    b"<|endoftext|>",
    b"<|end_of_text|>",
    b"<|eot_id|>",
    b"<|eom_id|>",
    b"<|end|>",
    b"<end_of_turn>",
];

/// Whether control tokens written out in a text are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// They are: for text that a chat template rendered.
    Parse,
    /// They are not, they are encoded letter by letter: for text from a user.
    Plain,
}

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

/// How the file classes a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ordinary pieces.
    Normal,
    /// Structure, never text.
    Control,
    /// Whole strings recognised in any text.
    UserDefined,
    /// In the table only to fill it.
    Unused,
}

/// The tokenizer of one model file.
#[derive(Debug)]
pub struct Tokenizer {
    bpe: tokenizers::Tokenizer,
    matcher: Matcher,
    /// The text of every token, one after another.
    text: Vec<u8>,
    /// Where each token's text ends.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    /// Sorted.
    end_tokens: Vec<u32>,
}

impl Tokenizer {
    /// Builds the tokenizer that the file describes.
    ///
    /// # Errors
    /// A key is missing, a rule is broken, or the tokenizer is of a kind that
    /// isn't known here.
    pub fn from_gguf(file: &Gguf) -> Result<Self, TokenizerError> {
        let model = file.str(KEY_MODEL)?;
        if model != "gpt2" {
            return Err(unsupported(KEY_MODEL, "gpt2", model));
        }
        let name = file.optional_str(KEY_SPLIT)?.unwrap_or("default");
        let split =
            Split::from_name(name).ok_or_else(|| unsupported(KEY_SPLIT, &Split::names(), name))?;
        let kinds = kinds(file)?;
        let (text, ends) = table(file, &kinds)?;
        let mut tokenizer = Self {
            bpe: split.build(merging(file, &kinds, split)?),
            matcher: Matcher::default(),
            bos: token_id(file, KEY_BOS, kinds.len())?,
            eos: token_id(file, KEY_EOS, kinds.len())?,
            add_bos: file.optional_bool(KEY_ADD_BOS)?.unwrap_or(split.adds_bos()),
            end_tokens: Vec::new(),
            text,
            ends,
            kinds,
        };
        tokenizer.matcher = tokenizer.special_tokens();
        tokenizer.end_tokens = tokenizer.find_ends(file)?;
        Ok(tokenizer)
    }

    /// The number of tokens.
    #[must_use]
    pub fn vocabulary(&self) -> u32 {
        self.kinds.len() as u32
    }

    /// The token that begins a text, if the file names one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the file names one.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a bare text (not a rendered chat) begins with [`Tokenizer::bos`].
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// The tokens that end an answer, in ascending order.
    #[must_use]
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Whether `token` ends an answer.
    #[must_use]
    pub fn is_end(&self, token: u32) -> bool {
        self.end_tokens.binary_search(&token).is_ok()
    }

    /// Whether `token` is structure rather than text.
    #[must_use]
    pub fn is_control(&self, token: u32) -> bool {
        self.kinds.get(token as usize) == Some(&Kind::Control)
    }

    /// What a token adds to an answer's text: nothing for control tokens and
    /// ids outside the vocabulary. May be a part of a character.
    #[must_use]
    pub fn piece(&self, token: u32) -> &[u8] {
        if self.is_control(token) { &[] } else { self.spelling(token) }
    }

    /// How a token is written, control tokens included; empty for ids outside
    /// the vocabulary.
    #[must_use]
    pub fn spelling(&self, token: u32) -> &[u8] {
        let at = token as usize;
        let Some(&end) = self.ends.get(at) else { return &[] };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..end as usize]
    }

    /// The token written so, control tokens included.
    #[must_use]
    pub fn find(&self, spelling: &str) -> Option<u32> {
        (0..self.vocabulary()).find(|&token| self.spelling(token) == spelling.as_bytes())
    }

    /// The token ids of a text. No BOS is added.
    ///
    /// # Errors
    /// The text is longer than [`MAX_TEXT_BYTES`].
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, TokenizerError> {
        self.encode_shielded(text, special, None)
    }

    /// As [`Tokenizer::encode`]; `shield` is taken out of the text after the
    /// control tokens have been found, before anything else is encoded.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_shielded(
        &self,
        text: &str,
        special: Special,
        shield: Option<&Shield>,
    ) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TokenizerError::TooLong { expected: MAX_TEXT_BYTES, got: text.len() });
        }
        let mut tokens = Vec::with_capacity(text.len() / 3);
        for part in self.matcher.parts(text, special) {
            match (part, shield) {
                (Part::Token(token), _) => tokens.push(token),
                (Part::Text(text), Some(shield)) => {
                    self.merge(&shield.remove(text), &mut tokens)?
                }
                (Part::Text(text), None) => self.merge(text, &mut tokens)?,
            }
        }
        Ok(tokens)
    }

    /// The text of an answer: control tokens left out, broken UTF-8 replaced.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut decoder = TextDecoder::default();
        let mut text: String =
            tokens.iter().map(|&token| decoder.push(self.piece(token))).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// A shield against this tokenizer's control tokens for a conversation of
    /// these texts.
    ///
    /// # Errors
    /// The texts leave no character for a mark.
    pub fn shield<'a>(
        &self,
        texts: impl Iterator<Item = &'a str>,
    ) -> Result<Shield, TokenizerError> {
        let spelling = |token| std::str::from_utf8(self.spelling(token)).ok();
        let control: Vec<&str> = self.matcher.control().filter_map(spelling).collect();
        Shield::new(&control, texts).ok_or_else(|| TokenizerError::Encode {
            reason: "the messages use up all private-use characters".into(),
        })
    }

    fn merge(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        let failed =
            |reason: tokenizers::Error| TokenizerError::Encode { reason: reason.to_string() };
        let encoding = self.bpe.encode_fast(text, false).map_err(failed)?;
        tokens.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    fn special_tokens(&self) -> Matcher {
        let of = |kind: Kind| {
            let tokens = (0..self.vocabulary()).filter(move |&t| self.kinds[t as usize] == kind);
            tokens.map(|token| (self.spelling(token).to_vec(), token))
        };
        Matcher::new(of(Kind::Control), of(Kind::UserDefined))
    }

    fn find_ends(&self, file: &Gguf) -> Result<Vec<u32>, TokenizerError> {
        let mut ends = Vec::new();
        for key in KEYS_END {
            ends.extend(token_id(file, key, self.kinds.len())?);
        }
        let named = |&token: &u32| self.is_control(token) && ENDS.contains(&self.spelling(token));
        ends.extend((0..self.vocabulary()).filter(named));
        ends.sort_unstable();
        ends.dedup();
        Ok(ends)
    }
}

fn unsupported(key: &'static str, expected: &str, got: &str) -> TokenizerError {
    TokenizerError::Unsupported {
        key,
        expected: expected.into(),
        got: got.chars().take(80).collect(),
    }
}

fn broken(key: &'static str, expected: &'static str, got: impl ToString) -> TokenizerError {
    TokenizerError::Vocabulary { key, expected, got: got.to_string() }
}

/// A token id that some key names.
fn token_id(file: &Gguf, key: &'static str, count: usize) -> Result<Option<u32>, TokenizerError> {
    match file.optional_u32(key)? {
        Some(id) if id as usize >= count => Err(broken(key, "a token of the vocabulary", id)),
        id => Ok(id),
    }
}

/// The class of every token; its length is the vocabulary's.
fn kinds(file: &Gguf) -> Result<Vec<Kind>, TokenizerError> {
    let count = file.strings(KEY_TOKENS)?.len();
    if count == 0 || count > MAX_VOCABULARY {
        return Err(broken(KEY_TOKENS, "between 1 and 2^20 tokens", count));
    }
    if !file.has(KEY_KINDS) {
        return Ok(vec![Kind::Normal; count]);
    }
    let kinds = file.i32s(KEY_KINDS)?;
    if kinds.len() != count {
        return Err(broken(KEY_KINDS, "a class for every token", kinds.len()));
    }
    kinds
        .map(|number| match number {
            1 | 2 | 6 => Ok(Kind::Normal),
            3 => Ok(Kind::Control),
            4 => Ok(Kind::UserDefined),
            5 => Ok(Kind::Unused),
            got => Err(broken(KEY_KINDS, "classes of 1 to 6", got)),
        })
        .collect()
}

/// All tokens' texts in one piece, and where each ends.
fn table(file: &Gguf, kinds: &[Kind]) -> Result<(Vec<u8>, Vec<u32>), TokenizerError> {
    let mut text = Vec::with_capacity(8 * kinds.len());
    let mut ends = Vec::with_capacity(kinds.len());
    for (token, kind) in file.strings(KEY_TOKENS)?.zip(kinds) {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(broken(KEY_TOKENS, "tokens of at most 4096 bytes", token.len()));
        }
        match kind {
            Kind::Normal => bytes::append_decoded(&mut text, token),
            _ => text.extend_from_slice(token),
        }
        // 2^20 tokens of 2^12 bytes are within 32 bits, but for the very last byte.
        ends.push(
            u32::try_from(text.len())
                .map_err(|_| broken(KEY_TOKENS, "less than 4 GiB of text", text.len()))?,
        );
    }
    Ok((text, ends))
}

/// The merging half: vocabulary without control tokens, and the merges.
fn merging(file: &Gguf, kinds: &[Kind], split: Split) -> Result<BPE, TokenizerError> {
    let mut vocabulary = Vocab::with_capacity_and_hasher(kinds.len(), Default::default());
    for (id, (token, kind)) in file.strings(KEY_TOKENS)?.zip(kinds).enumerate() {
        if *kind == Kind::Normal {
            let token = utf8(KEY_TOKENS, token)?.to_owned();
            if let Some(first) = vocabulary.insert(token, id as u32) {
                return Err(broken(KEY_TOKENS, "every token once", format!("{first} = {id}")));
            }
        }
    }
    let strings = file.strings(KEY_MERGES)?;
    if strings.len() > MAX_VOCABULARY {
        return Err(broken(KEY_MERGES, "at most 2^20 merges", strings.len()));
    }
    let mut merges = Vec::with_capacity(strings.len());
    for merge in strings {
        let merge = utf8(KEY_MERGES, merge)?;
        let (left, right) = merge
            .split_once(' ')
            .ok_or_else(|| broken(KEY_MERGES, "two tokens and a space", format!("{merge:?}")))?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .ignore_merges(split.ignores_merges())
        .build()
        .map_err(|error| broken(KEY_MERGES, "merges of ordinary tokens", error))
}

fn utf8<'a>(key: &'static str, bytes: &'a [u8]) -> Result<&'a str, TokenizerError> {
    std::str::from_utf8(bytes).map_err(|_| broken(key, "UTF-8", String::from_utf8_lossy(bytes)))
}
