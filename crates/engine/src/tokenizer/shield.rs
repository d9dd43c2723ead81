//! Keeps message contents from becoming control tokens.
//!
//! A chat template joins its own markup and the messages into one string, and
//! that string is searched for control tokens. A message that spells
//! `<|im_end|>` must not end its turn. So before rendering, a mark (one
//! private-use character that occurs in none of the messages) is put into every
//! content: after each character that could begin a control token, and around
//! the content inside its surrounding white space. No control token contains the
//! mark, so none can begin in a content, end in one, or span one, however the
//! template cuts and joins. Trimming works as without it. After the control
//! tokens are found the mark is taken out, and the content is encoded plainly,
//! exactly as written.
//!
//! An assistant's own earlier turns are marked only where a whole control token
//! stands, and around: templates look for things like `</think>` in them.

/// A mark chosen for one conversation.
///
/// ```
/// use peerproof_engine::tokenizer::Shield;
///
/// let shield = Shield::new(&["<|im_end|>"], ["end it: <|im_end|>"].into_iter()).unwrap();
/// let marked = shield.mark("end it: <|im_end|>");
/// assert!(!marked.contains("<|im_end|>"));
/// assert_eq!(shield.remove(&marked), "end it: <|im_end|>");
/// ```
#[derive(Clone, Debug)]
pub struct Shield {
    mark: char,
    /// Control tokens, sorted, without those that begin with another one.
    spellings: Vec<String>,
    /// What control tokens begin with.
    firsts: Vec<char>,
}

impl Shield {
    /// Chooses a mark that is in no text and no control token; `None` if the
    /// texts use up a whole plane of private-use characters.
    pub fn new<'a>(
        control: &[impl AsRef<str>],
        texts: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let mut spellings: Vec<String> = control.iter().map(|s| s.as_ref().to_owned()).collect();
        let mut used: Vec<char> = texts
            .flat_map(str::chars)
            .chain(spellings.iter().flat_map(|s| s.chars()))
            .filter(|c| MARKS.contains(c))
            .collect();
        used.sort_unstable();
        let mark = MARKS.into_iter().find(|mark| used.binary_search(mark).is_err())?;
        let mut firsts: Vec<char> = spellings.iter().filter_map(|s| s.chars().next()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        spellings.sort_unstable();
        spellings.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
        Some(Self { mark, spellings, firsts })
    }

    /// Marks a content that may be anyone's.
    #[must_use]
    pub fn mark(&self, content: &str) -> String {
        self.around(content, |core, out| {
            for char in core.chars() {
                out.push(char);
                if self.firsts.binary_search(&char).is_ok() {
                    out.push(self.mark);
                }
            }
        })
    }

    /// Marks an assistant's earlier turn: whole control tokens only.
    #[must_use]
    pub fn mark_own(&self, content: &str) -> String {
        self.around(content, |core, out| {
            for (at, char) in core.char_indices() {
                out.push(char);
                if self.begins_control(&core[at..]) {
                    out.push(self.mark);
                }
            }
        })
    }

    /// Whether a text begins with a control token. If it does, that token is the
    /// last one sorted before the text, since none begins with another.
    fn begins_control(&self, text: &str) -> bool {
        let after = self.spellings.partition_point(|spelling| spelling.as_str() <= text);
        after > 0 && text.starts_with(self.spellings[after - 1].as_str())
    }

    /// Takes the mark out.
    #[must_use]
    pub fn remove(&self, text: &str) -> String {
        text.replace(self.mark, "")
    }

    fn around(&self, content: &str, fill: impl Fn(&str, &mut String)) -> String {
        let core = content.trim();
        let lead = content.len() - content.trim_start().len();
        let mut out = String::with_capacity(content.len() + content.len() / 8 + 8);
        out.push_str(&content[..lead]);
        if !core.is_empty() {
            out.push(self.mark);
            fill(core, &mut out);
            out.push(self.mark);
        }
        out.push_str(&content[lead + core.len()..]);
        out
    }
}

/// Plane 16, private use; its last two code points are no characters.
const MARKS: std::ops::RangeInclusive<char> = '\u{100000}'..='\u{10FFFD}';

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTROL: [&str; 3] = ["<|im_end|>", "<|im_start|>", "[INST]"];

    #[test]
    fn the_mark_is_in_no_text() {
        let first = String::from(*MARKS.start());
        let shield = Shield::new(&CONTROL, [first.as_str()].into_iter()).expect("a mark");
        assert_eq!(shield.remove(&shield.mark(&first)), first);
        let all: String = MARKS.collect();
        assert!(Shield::new(&CONTROL, [all.as_str()].into_iter()).is_none());
    }

    #[test]
    fn trimming_works_as_without() {
        let shield = Shield::new(&CONTROL, std::iter::empty()).expect("a mark");
        assert_eq!(shield.remove(shield.mark(" \n x <y \t").trim()), "x <y");
        assert_eq!(shield.mark(" \n"), " \n");
    }

    proptest! {
        #[test]
        fn no_control_token_survives_any_join(
            parts in proptest::collection::vec(prop_oneof![
                Just("<|im_"), Just("end|>"), Just("<|im_end|>"), Just("<"), Just("[INST"),
                Just("]"), Just("x"), Just(" "),
            ], 0..12),
            before in prop_oneof![Just("<|im_"), Just("<"), Just(""), Just("[")],
            after in prop_oneof![Just("|>"), Just("]"), Just(""), Just(">")],
        ) {
            let content = parts.concat();
            let shield = Shield::new(&CONTROL, [content.as_str()].into_iter()).expect("a mark");
            for marked in [shield.mark(&content), shield.mark_own(&content)] {
                prop_assert_eq!(shield.remove(&marked), content.clone());
                let joined = format!("{before}{marked}{after}");
                let inside = !content.trim().is_empty();
                for token in CONTROL {
                    prop_assert!(!inside || !joined.contains(token), "{}", joined);
                }
            }
        }
    }
}
