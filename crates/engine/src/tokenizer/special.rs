//! Finds whole tokens in a text before anything is merged: leftmost first,
//! longest first among those that begin at the same place.
//!
//! One automaton looks for all of them at once (Aho and Corasick, 1975), so a
//! text takes as many steps as it has bytes, whatever the tokens are.

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::error::{TokenizerError, broken};
use super::vocabulary::{KEY_TOKENS, Vocabulary};

/// The most bytes that all control tokens may have together, and all
/// user-defined ones.
const MAX_SPECIAL_BYTES: usize = 1 << 20;

/// The tokens to find.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    /// `None` if there is nothing to find.
    automaton: Option<AhoCorasick>,
    /// In the automaton's order.
    tokens: Vec<u32>,
}

/// Bytes of tokens to find, counted against the limit.
#[derive(Debug, Default)]
pub(super) struct Total(usize);

impl Total {
    /// Counts a token, if it has the characters to be looked for.
    pub(super) fn add(&mut self, spelling: &[u8], shortest: usize) -> Result<(), TokenizerError> {
        if characters(spelling) >= shortest.max(1) {
            self.0 += spelling.len();
        }
        if self.0 > MAX_SPECIAL_BYTES {
            let expected = "at most 1 MiB of control tokens, and of user-defined ones";
            return Err(broken(KEY_TOKENS, expected, "more"));
        }
        Ok(())
    }
}

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

impl Matcher {
    /// For tokens in ascending order; of those that are spelled alike the first
    /// counts. Tokens that no text can spell, or of fewer characters than
    /// `shortest`, are left out.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        tokens: impl Iterator<Item = u32>,
        shortest: usize,
    ) -> Result<Self, TokenizerError> {
        let tokens: Vec<u32> =
            tokens.filter(|&t| characters(vocabulary.spelling(t)) >= shortest.max(1)).collect();
        let mut total = Total::default();
        tokens.iter().try_for_each(|&token| total.add(vocabulary.spelling(token), shortest))?;
        if tokens.is_empty() {
            return Ok(Self::default());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|&token| vocabulary.spelling(token)))
            .map_err(|error| broken(KEY_TOKENS, "tokens to search for", error))?;
        Ok(Self { automaton: Some(automaton), tokens })
    }

    /// The tokens that can be found.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Cuts a text at the tokens found in it.
    pub(super) fn parts<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Part<'a>> {
        let mut at = 0;
        let mut found: Option<u32> = None;
        std::iter::from_fn(move || {
            if let Some(token) = found.take() {
                return Some(Part::Token(token));
            }
            if at == text.len() {
                return None;
            }
            let start = at;
            let input = Input::new(text).range(start..);
            let Some(hit) = self.automaton.as_ref().and_then(|all| all.find(input)) else {
                at = text.len();
                return Some(Part::Text(&text[start..]));
            };
            at = hit.end();
            let token = self.tokens[hit.pattern().as_usize()];
            if hit.start() == start {
                return Some(Part::Token(token));
            }
            found = Some(token);
            Some(Part::Text(&text[start..hit.start()]))
        })
    }
}

/// The number of characters; 0 for what isn't UTF-8 and so never is in a text.
fn characters(spelling: &[u8]) -> usize {
    std::str::from_utf8(spelling).map_or(0, |text| text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftmost_then_longest() {
        use Part::{Text, Token};
        let vocabulary = Vocabulary::of_control(&["<a>", "<a>b", "§", "", "ab", "ab", "b§ü"]);
        let matcher = Matcher::new(&vocabulary, 0..7, 2).expect("a matcher");
        assert_eq!(matcher.tokens(), [0, 1, 4, 5, 6]);
        let parts = |text| matcher.parts(text).collect::<Vec<_>>();
        assert_eq!(parts("x<a>ab§"), [Text("x"), Token(0), Token(4), Text("§")]);
        assert_eq!(parts("<a>b<a>"), [Token(1), Token(0)]);
        assert_eq!(parts("größe"), [Text("größe")]);
        assert_eq!(parts("b§üß"), [Token(6), Text("ß")]);
        assert_eq!(parts(""), []);
        let nothing = Matcher::default();
        assert_eq!(nothing.parts("x").collect::<Vec<_>>(), [Text("x")]);
    }

    #[test]
    fn too_much_to_search_for_is_refused() {
        let long = "x".repeat(4_000);
        let vocabulary = Vocabulary::of_control(&vec![long.as_str(); 300]);
        assert!(Matcher::new(&vocabulary, 0..300, 1).is_err());
        assert!(Matcher::new(&vocabulary, 0..200, 1).is_ok());
    }
}
