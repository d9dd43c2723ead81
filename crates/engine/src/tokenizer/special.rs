//! Finds whole tokens in a text before anything is merged: leftmost first,
//! longest first among those that begin at the same place.

use super::Special;

/// The tokens to find, by their first byte.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    /// Sorted by spelling.
    tokens: Vec<Entry>,
    /// For each first byte the range in `tokens`.
    ranges: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Entry {
    spelling: Vec<u8>,
    token: u32,
    control: bool,
}

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

impl Matcher {
    /// Control tokens of one character are left out: they couldn't be told from
    /// that character in a message, so they are never recognised in text.
    pub(super) fn new(
        control: impl Iterator<Item = (Vec<u8>, u32)>,
        user_defined: impl Iterator<Item = (Vec<u8>, u32)>,
    ) -> Self {
        let entry =
            |control| move |(spelling, token): (Vec<u8>, u32)| Entry { spelling, token, control };
        let mut tokens: Vec<Entry> = control
            .filter(|(spelling, _)| characters(spelling) >= 2)
            .map(entry(true))
            .chain(user_defined.filter(|(s, _)| characters(s) >= 1).map(entry(false)))
            .collect();
        tokens.sort_by(|a, b| a.spelling.cmp(&b.spelling).then(a.token.cmp(&b.token)));
        let bound = |byte: usize| {
            tokens.partition_point(|entry| usize::from(entry.spelling[0]) < byte) as u32
        };
        let ranges = (0..256).map(|byte| (bound(byte), bound(byte + 1))).collect();
        Self { tokens, ranges }
    }

    /// The control tokens that can be recognised.
    pub(super) fn control(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().filter(|entry| entry.control).map(|entry| entry.token)
    }

    /// Cuts a text at the tokens found in it.
    pub(super) fn parts<'a>(
        &'a self,
        text: &'a str,
        special: Special,
    ) -> impl Iterator<Item = Part<'a>> {
        let mut rest = text;
        let mut found: Option<u32> = None;
        std::iter::from_fn(move || {
            if let Some(token) = found.take() {
                return Some(Part::Token(token));
            }
            if rest.is_empty() {
                return None;
            }
            let (before, token, after) = self.next(rest, special);
            rest = after;
            if before.is_empty() {
                return token.map(Part::Token);
            }
            found = token;
            Some(Part::Text(before))
        })
    }

    /// The text before the next token, that token, and what comes after it.
    fn next<'a>(&self, text: &'a str, special: Special) -> (&'a str, Option<u32>, &'a str) {
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            let (from, to) = self.ranges.get(usize::from(byte)).copied().unwrap_or_default();
            let candidates = &self.tokens[from as usize..to as usize];
            let here = &text.as_bytes()[at..];
            let longest = candidates
                .iter()
                .filter(|entry| special == Special::Parse || !entry.control)
                .filter(|entry| here.starts_with(&entry.spelling))
                .max_by_key(|entry| entry.spelling.len());
            if let Some(entry) = longest {
                return (&text[..at], Some(entry.token), &text[at + entry.spelling.len()..]);
            }
        }
        (text, None, "")
    }
}

/// The number of characters; 0 for what isn't UTF-8 and so never is in a text.
fn characters(spelling: &[u8]) -> usize {
    std::str::from_utf8(spelling).map_or(0, |text| text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher() -> Matcher {
        let own = |pairs: &[(&str, u32)]| {
            pairs.iter().map(|(s, t)| (s.as_bytes().to_vec(), *t)).collect::<Vec<_>>().into_iter()
        };
        Matcher::new(own(&[("<a>", 1), ("<a>b", 2), ("§", 3), ("", 4)]), own(&[("ab", 5)]))
    }

    #[test]
    fn leftmost_then_longest() {
        use Part::{Text, Token};
        let matcher = matcher();
        let parts = |text, special| matcher.parts(text, special).collect::<Vec<_>>();
        assert_eq!(parts("x<a>ab§", Special::Parse), [Text("x"), Token(1), Token(5), Text("§")]);
        assert_eq!(parts("<a>b<a>", Special::Parse), [Token(2), Token(1)]);
        assert_eq!(parts("<a>ab", Special::Plain), [Text("<a>"), Token(5)]);
        assert_eq!(parts("größe", Special::Parse), [Text("größe")]);
        assert_eq!(parts("", Special::Parse), []);
    }
}
