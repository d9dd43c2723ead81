//! C2SP signed notes with Ed25519 signatures (<https://c2sp.org/signed-note>).
//!
//! A note is a text, an empty line, and lines `— <name> <base64>` whose bytes
//! are a four-byte key hash and the signature over the text. Notes come from
//! peers, so everything is bounded, and only the one canonical spelling of a
//! note is accepted. Absent: other kinds of signature; they are kept as bytes
//! and passed over, as the format asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use peerproof_identity::{Keypair, PublicKey, Signature, SignatureError};
use sha2::{Digest as _, Sha256};

use crate::limits::{MAX_NOTE_BYTES, MAX_NOTE_SIGNATURES};

/// The kind of signature that is made and checked here.
const ED25519: u8 = 0x01;

/// What a signature line opens with: an em dash and a space.
const MARK: &str = "\u{2014} ";

/// A parsed note. Its signatures are unchecked until [`Note::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The first bytes of a hash over name, kind and key.
    pub key_hash: [u8; 4],
    /// The signature itself.
    pub bytes: Vec<u8>,
}

impl Note {
    /// Signs `text`, which ends in a newline, under the key name `name`.
    ///
    /// # Errors
    /// [`NoteError`] if text or name do not fit the format.
    pub fn sign(text: String, name: &str, key: &Keypair) -> Result<Self, NoteError> {
        check_name(name)?;
        if text.contains("\n\n") || text.starts_with('\n') {
            return Err(NoteError::Text);
        }
        let signature = key.sign_note(text.as_bytes()).map_err(|_| NoteError::Text)?;
        let signature = NoteSignature {
            name: name.to_owned(),
            key_hash: key_hash(name, &key.public()),
            bytes: signature.as_bytes().to_vec(),
        };
        Ok(Self { text, signatures: vec![signature] })
    }

    /// Parses the bytes of a note.
    ///
    /// # Errors
    /// [`NoteError`] names the part that is not as the format says.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(NoteError::Length { limit: MAX_NOTE_BYTES, got: bytes.len() });
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Characters)?;
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::Characters);
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Text)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::SignatureLine { line: 0 })?;
        let count = lines.split('\n').count();
        if count > MAX_NOTE_SIGNATURES {
            return Err(NoteError::Signatures { limit: MAX_NOTE_SIGNATURES, got: count });
        }
        let signatures = lines
            .split('\n')
            .enumerate()
            .map(|(line, text)| parse_signature(text).ok_or(NoteError::SignatureLine { line }))
            .collect::<Result<_, _>>()?;
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// Checks that `key` under `name` signed the text.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] if there is no signature by that key, more than
    /// one, or one that does not hold.
    pub fn verify(&self, name: &str, key: &PublicKey) -> Result<(), NoteError> {
        let hash = key_hash(name, key);
        let mut own =
            self.signatures.iter().filter(|line| line.name == name && line.key_hash == hash);
        let (Some(line), None) = (own.next(), own.next()) else {
            return Err(NoteError::Unsigned { name: name.to_owned() });
        };
        let signature = Signature::from_bytes(&line.bytes)?;
        Ok(key.verify_note(self.text.as_bytes(), &signature)?)
    }

    /// The signed text with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines in order, unchecked.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl std::fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = [self.key_hash.as_slice(), &self.bytes].concat();
        write!(f, "{MARK}{} {}", self.name, BASE64.encode(bytes))
    }
}

impl std::str::FromStr for NoteSignature {
    type Err = NoteError;

    /// Reads one line, without its newline.
    fn from_str(line: &str) -> Result<Self, NoteError> {
        parse_signature(line).ok_or(NoteError::SignatureLine { line: 0 })
    }
}

/// The key hash of an Ed25519 key: the first four bytes of
/// `SHA-256(name ‖ "\n" ‖ 0x01 ‖ key)`.
pub fn key_hash(name: &str, key: &PublicKey) -> [u8; 4] {
    key_hash_of(name, ED25519, key)
}

/// The key hash of a key that signs in another way, by its number in the format.
pub fn key_hash_of(name: &str, kind: u8, key: &PublicKey) -> [u8; 4] {
    let digest = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', kind])
        .chain_update(key.as_bytes())
        .finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

fn check_name(name: &str) -> Result<(), NoteError> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+' || c.is_control()) {
        return Err(NoteError::Name);
    }
    Ok(())
}

fn parse_signature(line: &str) -> Option<NoteSignature> {
    let (name, base64) = line.strip_prefix(MARK)?.split_once(' ')?;
    check_name(name).ok()?;
    let bytes = BASE64.decode(base64).ok()?;
    let (hash, signature) = bytes.split_first_chunk::<4>()?;
    if signature.is_empty() {
        return None;
    }
    Some(NoteSignature { name: name.to_owned(), key_hash: *hash, bytes: signature.to_vec() })
}

/// Why a note is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Longer than any note.
    #[error("note: expected at most {limit} bytes, got {got}")]
    Length {
        /// The longest note.
        limit: usize,
        /// The length that came.
        got: usize,
    },
    /// Not UTF-8, or a control character.
    #[error("note: expected UTF-8 without control characters")]
    Characters,
    /// No text, or text that a note cannot hold.
    #[error("note: expected a text of whole lines, then an empty line, then signatures")]
    Text,
    /// A key name that the format excludes.
    #[error("note: expected a key name without space or plus sign")]
    Name,
    /// A line that is no signature.
    #[error("note: expected a signature in line {line} after the empty line")]
    SignatureLine {
        /// Counts the signature lines from 0.
        line: usize,
    },
    /// More signatures than are read.
    #[error("note: expected at most {limit} signatures, got {got}")]
    Signatures {
        /// The most signatures.
        limit: usize,
        /// How many came.
        got: usize,
    },
    /// Not exactly one signature by the key asked for.
    #[error("note: expected one signature by {name}, got none or several")]
    Unsigned {
        /// The key's name.
        name: String,
    },
    /// A signature that does not hold.
    #[error("note: {0}")]
    Signature(#[from] SignatureError),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
    use super::*;

    /// The example in the documentation of Go's note package, which C2SP took over.
    const EXAMPLE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const EXAMPLE_KEY: &str = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    fn example_key() -> PublicKey {
        PublicKey::from_bytes(&BASE64.decode(EXAMPLE_KEY).unwrap()[1..]).unwrap()
    }

    #[test]
    fn a_foreign_note_verifies() {
        let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
        note.verify("PeterNeumann", &example_key()).unwrap();
        assert_eq!(key_hash("PeterNeumann", &example_key()), [0xc7, 0x4f, 0x20, 0xa3]);
        assert_eq!(note.to_string(), EXAMPLE);
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let key = example_key();
        for bit in 0..EXAMPLE.len() * 8 {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = Note::parse(&bytes).and_then(|note| note.verify("PeterNeumann", &key));
            assert!(refused.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn parsing_never_accepts_a_second_spelling() {
        for (from, to) in [
            ("\u{2014} ", "- "),
            ("PeterNeumann ", "Peter+Neumann "),
            ("PeterNeumann ", " "),
            ("AM=\n", "AM\n"),
            ("AM=\n", "AN=\n"),
            ("AM=\n", "AM="),
            ("AM=\n", "AM= \n"),
            ("AM=\n", "AM=\n\n"),
            (" x08go", "  x08go"),
            ("\n\n", "\n"),
            ("then", "\tthen"),
        ] {
            let changed = EXAMPLE.replace(from, to);
            assert_ne!(changed, EXAMPLE);
            assert!(Note::parse(changed.as_bytes()).is_err(), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn unknown_signatures_are_passed_over_and_doubles_refused() {
        let key = Keypair::from_seed(&[3; 32]);
        let note = Note::sign("a\ntext\n".to_owned(), "some.log/name", &key).unwrap();
        let own = note.to_string();
        let line = own.rsplit_once("\n\n").unwrap().1.to_owned();
        let foreign = EXAMPLE.rsplit_once("\n\n").unwrap().1;
        let verify =
            |text: String| Note::parse(text.as_bytes())?.verify("some.log/name", &key.public());
        verify(own.clone()).unwrap();
        verify(format!("{own}{foreign}")).unwrap();
        assert!(matches!(verify(format!("{own}{line}")), Err(NoteError::Unsigned { .. })));
        let many = line.repeat(MAX_NOTE_SIGNATURES);
        assert!(matches!(verify(format!("{own}{many}")), Err(NoteError::Signatures { .. })));
    }

    #[test]
    fn texts_and_names_outside_the_format_are_not_signed() {
        let key = Keypair::from_seed(&[3; 32]);
        for text in ["", "no newline", "two\n\nparts\n", "\nempty first\n", "tab\t\n"] {
            assert_eq!(Note::sign(text.to_owned(), "name", &key), Err(NoteError::Text), "{text:?}");
        }
        for name in ["", "a b", "a+b", "a\u{2003}b", "a\nb"] {
            assert_eq!(Note::sign("text\n".to_owned(), name, &key), Err(NoteError::Name));
        }
        let long = vec![b'a'; MAX_NOTE_BYTES + 1];
        assert!(matches!(Note::parse(&long), Err(NoteError::Length { .. })));
    }
}
