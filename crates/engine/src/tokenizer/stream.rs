//! Bytes in, whole characters out.

/// Joins the pieces of an answer into text as they come. A character that is
/// not complete is held back; bytes that can't become one are replaced by
/// U+FFFD, so the text is always valid.
///
/// ```
/// let mut decoder = peerproof_engine::tokenizer::TextDecoder::default();
/// assert_eq!(decoder.push(b"gr\xC3"), "gr");
/// assert_eq!(decoder.push(b"\xB6\xC3\x9Fe"), "öße");
/// assert_eq!(decoder.finish(), "");
/// ```
#[derive(Clone, Debug, Default)]
pub struct TextDecoder {
    /// INVARIANT: at most the first three bytes of a character.
    held: Vec<u8>,
}

impl TextDecoder {
    /// Takes a piece; gives the text that is certain.
    pub fn push(&mut self, piece: &[u8]) -> String {
        self.held.extend_from_slice(piece);
        let mut text = String::with_capacity(self.held.len());
        let mut certain = 0;
        for chunk in self.held.utf8_chunks() {
            let (valid, broken) = (chunk.valid(), chunk.invalid());
            text.push_str(valid);
            certain += valid.len();
            let at_the_end = certain + broken.len() == self.held.len();
            if at_the_end && may_continue(broken) {
                break;
            }
            if !broken.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                certain += broken.len();
            }
        }
        self.held.drain(..certain);
        text
    }

    /// Gives what is still held back: U+FFFD, or nothing.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

/// Whether bytes are the beginning of a character rather than an error.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_cut_gives_the_same_text(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(0xF0), Just(0x9F), Just(0x98), Just(0x80)], 0..40),
            cut in 1usize..6,
        ) {
            let mut decoder = TextDecoder::default();
            let mut text: String = bytes.chunks(cut).map(|piece| decoder.push(piece)).collect();
            text += &decoder.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        /// Each character of one to four bytes, cut at each of its borders.
        #[test]
        fn a_character_comes_whole_wherever_it_is_cut(
            text in "[a-zß-ɏ一-十\u{1F600}-\u{1F64F}]{1,8}",
        ) {
            let bytes = text.as_bytes();
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let mut decoder = TextDecoder::default();
                    let mut out = String::new();
                    for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                        out += &decoder.push(piece);
                        // Whatever is complete is out, and nothing else.
                        prop_assert!(text.starts_with(&out));
                    }
                    prop_assert_eq!(&out, &text);
                    prop_assert_eq!(decoder.finish(), "");
                }
                let mut decoder = TextDecoder::default();
                let out = decoder.push(&bytes[..first]);
                prop_assert_eq!(out, &text[..text.floor_char_boundary(first)]);
            }
        }

        #[test]
        fn whole_text_is_never_held(text in any::<String>()) {
            prop_assert_eq!(TextDecoder::default().push(text.as_bytes()), text);
        }
    }
}
