//! The table of tokens: what each stands for, and what kind it is.
//!
//! The texts lie one after another in one buffer, in the bytes that they add to
//! an answer: the alphabets that files write them in are undone here, once.

use super::error::{TokenizerError, broken};
use super::{MAX_TOKEN_BYTES, MAX_VOCABULARY, bytes};
use crate::gguf::Gguf;

pub(super) const KEY_TOKENS: &str = "tokenizer.ggml.tokens";
const KEY_KINDS: &str = "tokenizer.ggml.token_type";

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// How the file classes a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ordinary pieces.
    Normal,
    /// What stands for text that no piece can spell.
    Unknown,
    /// Structure, never text.
    Control,
    /// Whole strings recognised in any text.
    UserDefined,
    /// In the table only to fill it, or only on the way to longer pieces.
    Unused,
    /// One byte, written `<0x00>` to `<0xFF>`.
    Byte,
}

/// How the file writes ordinary tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Every byte as one printable character, as GPT-2 does.
    Bytes,
    /// As they are but for spaces, as SentencePiece does.
    Spaces,
}

/// All tokens of a file.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// The text of every token, one after another.
    text: Vec<u8>,
    /// Where each token's text ends.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    pub(super) fn read(file: &Gguf, alphabet: Alphabet) -> Result<Self, TokenizerError> {
        let kinds = kinds(file, alphabet)?;
        let mut text = Vec::with_capacity(8 * kinds.len());
        let mut ends = Vec::with_capacity(kinds.len());
        for (token, kind) in file.strings(KEY_TOKENS)?.zip(&kinds) {
            let start = text.len();
            append(&mut text, token, *kind, alphabet)?;
            ends.push(text_end(start as u32, text.len() - start)?);
        }
        Ok(Self { text, ends, kinds })
    }

    /// A vocabulary of control tokens.
    #[cfg(test)]
    pub(super) fn of_control(tokens: &[&str]) -> Self {
        let ends = tokens.iter().scan(0, |end, token| {
            *end += token.len() as u32;
            Some(*end)
        });
        Self {
            text: tokens.concat().into_bytes(),
            ends: ends.collect(),
            kinds: vec![Kind::Control; tokens.len()],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn kind(&self, token: u32) -> Option<Kind> {
        self.kinds.get(token as usize).copied()
    }

    /// The bytes of a token; none for ids outside the vocabulary.
    pub(super) fn spelling(&self, token: u32) -> &[u8] {
        let at = token as usize;
        let Some(&end) = self.ends.get(at) else { return &[] };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..end as usize]
    }

    /// All tokens of a kind, in ascending order.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.kinds).filter(move |(_, k)| **k == kind).map(|(token, _)| token)
    }
}

/// Appends the bytes that a token adds to an answer.
pub(super) fn append(
    text: &mut Vec<u8>,
    written: &[u8],
    kind: Kind,
    alphabet: Alphabet,
) -> Result<(), TokenizerError> {
    if written.len() > MAX_TOKEN_BYTES {
        return Err(broken(KEY_TOKENS, "tokens of at most 4096 bytes", written.len()));
    }
    match (alphabet, kind) {
        (Alphabet::Bytes, Kind::Normal) => bytes::append_decoded(text, written),
        (Alphabet::Spaces, Kind::Normal | Kind::UserDefined | Kind::Unused) => {
            append_spaced(text, written);
        }
        (_, Kind::Byte) => text.push(byte(written)?),
        _ => text.extend_from_slice(written),
    }
    Ok(())
}

/// Where the text of a token of `len` bytes ends that begins at `start`.
pub(super) fn text_end(start: u32, len: usize) -> Result<u32, TokenizerError> {
    // 2^20 tokens of 2^12 bytes are within 32 bits, but for the very last byte.
    let end = u32::try_from(len).ok().and_then(|len| start.checked_add(len));
    end.ok_or_else(|| broken(KEY_TOKENS, "less than 4 GiB of text", "more"))
}

/// The class of every token; its length is the vocabulary's.
pub(super) fn kinds(file: &Gguf, alphabet: Alphabet) -> Result<Vec<Kind>, TokenizerError> {
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
        .map(|number| match (number, alphabet) {
            (1, _) | (2 | 6, Alphabet::Bytes) => Ok(Kind::Normal),
            (2, Alphabet::Spaces) => Ok(Kind::Unknown),
            (3, _) => Ok(Kind::Control),
            (4, _) => Ok(Kind::UserDefined),
            (5, _) => Ok(Kind::Unused),
            (6, Alphabet::Spaces) => Ok(Kind::Byte),
            (got, _) => Err(broken(KEY_KINDS, "classes of 1 to 6", got)),
        })
        .collect()
}

/// Appends a token with spaces where it has [`SPACE`].
fn append_spaced(out: &mut Vec<u8>, mut token: &[u8]) {
    while let Some(at) = token.windows(SPACE.len()).position(|part| part == SPACE.as_bytes()) {
        out.extend_from_slice(&token[..at]);
        out.push(b' ');
        token = &token[at + SPACE.len()..];
    }
    out.extend_from_slice(token);
}

/// The byte that `<0x0A>` and the like stand for.
pub(super) fn byte(token: &[u8]) -> Result<u8, TokenizerError> {
    let digits = token.strip_prefix(b"<0x").and_then(|rest| rest.strip_suffix(b">"));
    digits
        .filter(|digits| digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit))
        .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
        .ok_or_else(|| {
            let expected = "byte tokens written <0x00> to <0xFF>";
            broken(KEY_TOKENS, expected, format!("{:?}", String::from_utf8_lossy(token)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_bytes_are_undone() {
        let mut out = b"x".to_vec();
        append_spaced(&mut out, "▁a▁▁b\u{2582}▁".as_bytes());
        assert_eq!(out, "x a  b\u{2582} ".as_bytes());
        assert_eq!((byte(b"<0x00>").ok(), byte(b"<0xfE>").ok()), (Some(0), Some(0xFE)));
        for bad in ["<0x>", "<0x0>", "<0x+1>", "0x00", "<0x000>", "<0xG0>"] {
            assert!(byte(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
