//! The byte-level alphabet: every byte is written as one printable character.
//!
//! Defined by GPT-2's released encoder: the printable bytes of Latin-1 stand
//! for themselves, the 68 others, in order, for the characters from U+0100 on.

/// Whether a byte stands for itself.
const fn itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The characters' bytes, by code point.
const BYTES: [Option<u8>; 324] = {
    let mut bytes = [None; 324];
    let (mut code, mut other) = (0, 256);
    while code < 256 {
        let byte = code as u8;
        if itself(byte) {
            bytes[code] = Some(byte);
        } else {
            bytes[other] = Some(byte);
            other += 1;
        }
        code += 1;
    }
    bytes
};

/// Appends the bytes that a token stands for; a token with a character outside
/// the alphabet stands for itself.
pub(super) fn append_decoded(out: &mut Vec<u8>, token: &[u8]) {
    let start = out.len();
    let Ok(text) = std::str::from_utf8(token) else {
        out.extend_from_slice(token);
        return;
    };
    for char in text.chars() {
        match BYTES.get(char as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(token);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_the_one_of_the_merging_crate() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut seen = [false; 256];
        for char in alphabet {
            let byte = BYTES[char as usize].expect("a character without a byte");
            assert!(!std::mem::replace(&mut seen[byte as usize], true));
        }
        assert_eq!(seen, [true; 256]);
    }

    #[test]
    fn tokens_stand_for_bytes_or_for_themselves() {
        for (token, expected) in [
            ("Ġthe", &b" the"[..]),
            ("Ċ", b"\n"),
            ("Ã¶", "ö".as_bytes()),
            ("<|x|>", b"<|x|>"),
            ("Ġ日", "Ġ日".as_bytes()),
        ] {
            let mut out = b"before".to_vec();
            append_decoded(&mut out, token.as_bytes());
            assert_eq!(out, [b"before", expected].concat());
        }
    }
}
