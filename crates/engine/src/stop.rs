//! When an answer ends, and which text it has: one rule book for the provider
//! that streams, the auditor that replays, and anyone who asks later.
//!
//! [`Answer`] takes tokens one by one. After each, the rules are tried in this
//! order: an end token ends the answer and adds no text; a stop string that is
//! complete ends it before that string; `max_tokens` ends it as it stands. Among
//! several stop strings the one that is complete first counts, and of those
//! complete at once the longest. Text that may yet turn out to be the beginning
//! of a stop string, or of a character, is held back until that is settled, so
//! what has been streamed is never taken back.

use peerproof_wire::Stop;

use crate::tokenizer::{TextDecoder, Tokenizer};

/// The text and the end of an answer in the making.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use peerproof_engine::{gguf::Gguf, stop::Answer, tokenizer::Tokenizer};
/// let tokenizer = Tokenizer::from_gguf(&Gguf::open("model.gguf")?)?;
/// let mut answer = Answer::new(["\n\n"], 64);
/// let piece = answer.push(&tokenizer, 1234);
/// print!("{}", piece.text);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Answer {
    decoder: TextDecoder,
    stops: StopStrings,
    max_tokens: u32,
    tokens: u32,
    text: String,
    stop: Option<Stop>,
}

/// What one token brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text that is settled by this token; may be empty.
    pub text: String,
    /// The rule that ends the answer here, if one does.
    pub stop: Option<Stop>,
}

impl Answer {
    /// An empty answer under these rules. Empty stop strings are left out.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>, max_tokens: u32) -> Self {
        Self {
            decoder: TextDecoder::default(),
            stops: StopStrings::new(stops),
            max_tokens,
            tokens: 0,
            text: String::new(),
            stop: None,
        }
    }

    /// Takes the next token. After the end nothing changes any more.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Piece {
        if self.stop.is_some() {
            return Piece { text: String::new(), stop: self.stop };
        }
        self.tokens += 1;
        let is_end = tokenizer.is_end(token);
        let decoded =
            if is_end { String::new() } else { self.decoder.push(tokenizer.piece(token)) };
        let mut text = self.take(&decoded);
        if self.stop.is_none() {
            self.stop = match (is_end, self.tokens >= self.max_tokens) {
                (true, _) => Some(Stop::EndOfText),
                (false, true) => Some(Stop::Length),
                (false, false) => None,
            };
            if self.stop.is_some() {
                text.push_str(&self.rest());
            }
        }
        self.text.push_str(&text);
        Piece { text, stop: self.stop }
    }

    /// Tokens so far, the one that ended the answer among them.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// The text that is settled so far; all of it once the answer has ended.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rule that ended the answer, if one did.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// All text so far as if the answer ended here, held-back text included.
    #[must_use]
    pub fn text_if_ended(&self) -> String {
        if self.stop.is_some() {
            return self.text.clone();
        }
        let mut copy = self.clone();
        let rest = copy.rest();
        copy.text + &rest
    }

    /// Lets text through the stop strings.
    fn take(&mut self, decoded: &str) -> String {
        let (text, hit) = self.stops.push(decoded);
        if hit {
            self.stop = Some(Stop::StopString);
        }
        text
    }

    /// What is held back, at an end that no stop string made. A broken character
    /// may still complete one, but it is the earlier rule that counts.
    fn rest(&mut self) -> String {
        let last = self.decoder.finish();
        self.stops.finish() + &last
    }
}

/// Finds stop strings in text that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text not given out yet. INVARIANT: the beginning of some stop string.
    held: String,
}

impl StopStrings {
    /// Looks for these; empty ones are left out.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new() }
    }

    /// Takes text; gives what is settled, and whether a stop string is complete,
    /// in which case the rest of the text is dropped.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop)?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = found.min() {
            let mut out = std::mem::take(&mut self.held);
            out.truncate(start);
            return (out, true);
        }
        let kept = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let settled = self.held.len() - kept;
        (self.held.drain(..settled).collect(), false)
    }

    /// Gives what is held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The length of the longest end of `text` that `stop` begins with.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let ends = |&length: &usize| text.as_bytes().ends_with(&stop.as_bytes()[..length]);
    (1..=longest).rev().find(ends).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut finder = StopStrings::new(stops.iter().copied());
        let mut out = Vec::new();
        for piece in pieces {
            let (text, hit) = finder.push(piece);
            out.push(text);
            if hit {
                return (out, true);
            }
        }
        out.push(finder.finish());
        (out, false)
    }

    #[test]
    fn text_is_held_only_while_it_must_be() {
        for (stops, pieces, expected, hit) in [
            (&["END"][..], &["a", "E", "N", "x"][..], &["a", "", "", "ENx", ""][..], false),
            (&["END"], &["aE", "ND", "b"], &["a", ""], true),
            (&["END"], &["aE"], &["a", "E"], false),
            (&["aab"], &["aa", "ab"], &["", "a"], true),
            (&["abc", "b"], &["xabc"], &["xa"], true),
            (&["bc", "abc"], &["xabc"], &["x"], true),
            (&["abcd", "b"], &["ab"], &["a"], true),
            (&["öß"], &["xö", "s"], &["x", "ös", ""], false),
            (&["é"], &["ê"], &["ê", ""], false),
            (&[""], &["x"], &["x", ""], false),
            (&[], &["x", "y"], &["x", "y", ""], false),
        ] {
            let (texts, was_hit) = stream(stops, pieces);
            assert_eq!((texts, was_hit), (expected.iter().map(|s| s.to_string()).collect(), hit));
        }
    }

    /// The rule read off the page: character by character, the first complete.
    fn by_the_book(stops: &[String], text: &str) -> (String, bool) {
        for (end, char) in text.char_indices() {
            let seen = &text[..end + char.len_utf8()];
            let complete = stops.iter().filter(|stop| seen.ends_with(stop.as_str()));
            if let Some(stop) = complete.max_by_key(|stop| stop.len()) {
                return (seen[..seen.len() - stop.len()].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            stops in proptest::collection::vec("[abö]{1,4}", 0..4),
            pieces in proptest::collection::vec("[abcö]{0,3}", 0..12),
        ) {
            let borrowed: Vec<&str> = stops.iter().map(String::as_str).collect();
            let all: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (texts, hit) = stream(&borrowed, &all);
            prop_assert_eq!((texts.concat(), hit), by_the_book(&stops, &pieces.concat()));
        }
    }
}
