//! Text to token ids and back, as the model file defines it.
//!
//! A text goes through three sieves: control tokens (`<|im_end|>` and the like)
//! are cut out where the caller allows it, then user-defined tokens, which count
//! in any text; what is left goes to the file's own kind of tokenizer, byte-level
//! BPE (`byte_level`) or SentencePiece (`sentencepiece`). Neither has control
//! tokens among its pieces, so no plain text can ever become one: they are
//! recognised only under [`Special::Parse`], which is for rendered chat templates
//! whose message contents went through [`Shield`].
//!
//! Out again come bytes, since a token may end in the middle of a character;
//! [`TextDecoder`] holds such a piece back until the rest arrives.
//!
//! The rules are written down in `docs/spec/tokenizer.md`. Deliberately absent:
//! training, and tokens that end a prompt.

mod byte_level;
mod bytes;
mod check;
mod error;
mod index;
mod sentencepiece;
mod shield;
mod special;
mod split;
mod stream;
mod vocabulary;

pub use error::TokenizerError;
pub use shield::Shield;
pub use split::Split;
pub use stream::TextDecoder;

use crate::gguf::Gguf;
use byte_level::ByteLevel;
use error::{broken, unsupported};
use sentencepiece::{Method, SentencePiece};
use special::{Matcher, Part};
use vocabulary::{Alphabet, Kind, Vocabulary};

/// The longest text taken, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// The largest vocabulary taken, in tokens; merges may be as many.
pub const MAX_VOCABULARY: usize = 1 << 20;
/// The longest token taken, in bytes as the file writes it.
pub const MAX_TOKEN_BYTES: usize = 4_096;

const KEY_MODEL: &str = "tokenizer.ggml.model";
const KEY_SPLIT: &str = "tokenizer.ggml.pre";
const KEY_MERGES: &str = "tokenizer.ggml.merges";
const KEY_ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const KEY_BOS: &str = "tokenizer.ggml.bos_token_id";
const KEY_EOS: &str = "tokenizer.ggml.eos_token_id";
/// Keys that may name further tokens that end an answer.
const KEYS_END: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
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

/// The tokenizer of one model file.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    coder: Coder,
    control: Matcher,
    user_defined: Matcher,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    /// Sorted.
    end_tokens: Vec<u32>,
}

/// What turns ordinary text into tokens.
#[derive(Debug)]
enum Coder {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(Box<SentencePiece>),
}

impl Tokenizer {
    /// Builds the tokenizer that the file describes.
    ///
    /// # Errors
    /// A key is missing, a rule is broken, or the tokenizer is of a kind that
    /// isn't known here.
    pub fn from_gguf(file: &Gguf) -> Result<Self, TokenizerError> {
        match file.str(KEY_MODEL)? {
            "gpt2" => Self::byte_level(file),
            "llama" => Self::sentencepiece(file, Method::Merge),
            "t5" => Self::sentencepiece(file, Method::Unigram),
            other => Err(unsupported(KEY_MODEL, "gpt2, llama, t5", other)),
        }
    }

    /// Whether the tokenizer that the file describes can be built, found within a few
    /// MiB of memory; of a small vocabulary only what is cheap to see, since
    /// [`Tokenizer::from_gguf`] sees the rest as cheaply.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`].
    pub fn check(file: &Gguf) -> Result<(), TokenizerError> {
        match file.str(KEY_MODEL)? {
            "gpt2" => split(file).and_then(|_| check::byte_level(file)),
            "llama" => check::sentencepiece(file, Method::Merge),
            "t5" => check::sentencepiece(file, Method::Unigram),
            other => Err(unsupported(KEY_MODEL, "gpt2, llama, t5", other)),
        }
    }

    fn byte_level(file: &Gguf) -> Result<Self, TokenizerError> {
        let split = split(file)?;
        let vocabulary = Vocabulary::read(file, Alphabet::Bytes)?;
        let coder = Coder::ByteLevel(Box::new(ByteLevel::read(file, &vocabulary, split)?));
        Self::assemble(file, vocabulary, coder, [None; 2], split.adds_bos())
    }

    fn sentencepiece(file: &Gguf, method: Method) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::read(file, Alphabet::Spaces)?;
        let coder = SentencePiece::read(file, &vocabulary, method)?;
        let coder = Coder::SentencePiece(Box::new(coder));
        // Where files of this kind name no BOS and EOS, these are they.
        let control = |token| Some(token).filter(|&t| vocabulary.kind(t) == Some(Kind::Control));
        let merges = method == Method::Merge;
        let usual = if merges { [control(1), control(2)] } else { [None, control(1)] };
        Self::assemble(file, vocabulary, coder, usual, merges)
    }

    fn assemble(
        file: &Gguf,
        vocabulary: Vocabulary,
        coder: Coder,
        [bos, eos]: [Option<u32>; 2],
        add_bos: bool,
    ) -> Result<Self, TokenizerError> {
        let count = vocabulary.len();
        // A control token of one character couldn't be told from that character in
        // a message, so it is never recognised in text.
        let control = Matcher::new(&vocabulary, vocabulary.of_kind(Kind::Control), 2)?;
        let user_defined = Matcher::new(&vocabulary, vocabulary.of_kind(Kind::UserDefined), 1)?;
        let mut tokenizer = Self {
            coder,
            control,
            user_defined,
            bos: token_id(file, KEY_BOS, count)?.or(bos),
            eos: token_id(file, KEY_EOS, count)?.or(eos),
            add_bos: file.optional_bool(KEY_ADD_BOS)?.unwrap_or(add_bos),
            end_tokens: Vec::new(),
            vocabulary,
        };
        tokenizer.end_tokens = tokenizer.find_ends(file)?;
        Ok(tokenizer)
    }

    /// The number of tokens.
    #[must_use]
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary.len() as u32
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
        matches!(self.vocabulary.kind(token), Some(Kind::Control | Kind::Unknown))
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
        self.vocabulary.spelling(token)
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
        if special == Special::Plain {
            self.encode_plain(text, shield, &mut tokens)?;
            return Ok(tokens);
        }
        for part in self.control.parts(text) {
            match part {
                Part::Token(token) => tokens.push(token),
                Part::Text(text) => self.encode_plain(text, shield, &mut tokens)?,
            }
        }
        Ok(tokens)
    }

    /// Appends the tokens of a text without control tokens in it.
    fn encode_plain(
        &self,
        text: &str,
        shield: Option<&Shield>,
        tokens: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let bare = shield.map(|shield| shield.remove(text));
        let text = bare.as_deref().unwrap_or(text);
        match &self.coder {
            Coder::ByteLevel(coder) => {
                for part in self.user_defined.parts(text) {
                    match part {
                        Part::Token(token) => tokens.push(token),
                        Part::Text(text) => coder.encode(text, tokens)?,
                    }
                }
            }
            Coder::SentencePiece(coder) => {
                coder.encode(&self.vocabulary, &self.user_defined, text, tokens);
            }
        }
        Ok(())
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
        let control: Vec<&str> =
            self.control.tokens().iter().filter_map(|&token| spelling(token)).collect();
        Shield::new(&control, texts).ok_or_else(|| TokenizerError::Encode {
            reason: "the messages use up all private-use characters".into(),
        })
    }

    fn find_ends(&self, file: &Gguf) -> Result<Vec<u32>, TokenizerError> {
        let mut ends: Vec<u32> = self.eos.into_iter().collect();
        for key in KEYS_END {
            ends.extend(token_id(file, key, self.vocabulary.len())?);
        }
        let named = |token: &u32| ENDS.contains(&self.spelling(*token));
        ends.extend(self.vocabulary.of_kind(Kind::Control).filter(named));
        ends.sort_unstable();
        ends.dedup();
        Ok(ends)
    }
}

/// The rule by which the file has texts cut into words.
fn split(file: &Gguf) -> Result<Split, TokenizerError> {
    let name = file.optional_str(KEY_SPLIT)?.unwrap_or("default");
    Split::from_name(name).ok_or_else(|| unsupported(KEY_SPLIT, &Split::names(), name))
}

/// A token id that some key names.
fn token_id(file: &Gguf, key: &'static str, count: usize) -> Result<Option<u32>, TokenizerError> {
    match file.optional_u32(key)? {
        Some(id) if id as usize >= count => Err(broken(key, "a token of the vocabulary", id)),
        id => Ok(id),
    }
}
