//! The best cut: of all ways to spell a text in pieces, the one with the greatest
//! sum of scores (Viterbi, 1967), in one walk from left to right.
//!
//! Sums are 32-bit floats, rounded after every addition, as the SentencePiece
//! library does it; among equals the piece that begins first
//! stays. The scores are a model of language, no part of the arithmetic: nothing
//! but the choice of tokens follows from them.

use super::super::error::{TokenizerError, broken};
use super::super::index::NONE;
use super::super::vocabulary::{KEY_TOKENS, Kind, SPACE, Vocabulary};
use super::{KEY_SCORES, Sink};

/// What an unknown character costs beyond the worst piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The pieces, in an order in which all that begin alike stand together.
#[derive(Debug)]
pub(super) struct Lattice {
    /// Sorted by spelling.
    order: Vec<u32>,
    /// By token.
    scores: Vec<f32>,
    least: f32,
}

/// The best way to a place in the text.
#[derive(Clone, Copy, Debug)]
struct Way {
    score: f32,
    start: u32,
    /// [`NONE`] for an unknown character.
    token: u32,
}

/// Whether a piece may have that score.
pub(super) fn check_score(score: f32) -> Result<(), TokenizerError> {
    if score > 0.0 { Err(broken(KEY_SCORES, "scores of at most 0", score)) } else { Ok(()) }
}

impl Lattice {
    pub(super) fn new(
        vocabulary: &Vocabulary,
        spellable: &[u32],
        scores: Vec<f32>,
    ) -> Result<Self, TokenizerError> {
        let mut order = spellable.to_vec();
        order.sort_by_key(|&token| vocabulary.spelling(token));
        let alike = |pair: &&[u32]| vocabulary.spelling(pair[0]) == vocabulary.spelling(pair[1]);
        if let Some(pair) = order.windows(2).find(alike) {
            let got = format!("{} = {}", pair[0], pair[1]);
            return Err(broken(KEY_TOKENS, "every piece once", got));
        }
        let normal = || vocabulary.of_kind(Kind::Normal).map(|token| scores[token as usize]);
        let least = normal().fold(f32::MAX, f32::min);
        normal().try_for_each(check_score)?;
        Ok(Self { order, least, scores })
    }

    /// Gives the pieces of a text to `sink`.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, sink: &mut Sink<'_>) {
        let start = Way { score: 0.0, start: 0, token: NONE };
        let mut ways: Vec<Option<Way>> = vec![None; text.len() + 1];
        ways[0] = Some(start);
        for (at, char) in text.char_indices() {
            let score = ways[at].map_or(0.0, |way| way.score);
            let mut spelled = false;
            for (end, token) in self.pieces(vocabulary, text.as_bytes(), at) {
                let piece = self.score(vocabulary, token);
                offer(&mut ways[end], score, piece, Way { score, start: at as u32, token });
                spelled |= end - at == char.len_utf8();
            }
            if !spelled {
                let piece = self.least - UNKNOWN_PENALTY;
                let way = Way { score, start: at as u32, token: NONE };
                offer(&mut ways[at + char.len_utf8()], score, piece, way);
            }
        }
        self.give(text, &ways, sink);
    }

    /// User-defined pieces win over whatever else would spell them, for no other
    /// score is above zero; longer ones win over shorter ones.
    fn score(&self, vocabulary: &Vocabulary, token: u32) -> f32 {
        match vocabulary.kind(token) {
            Some(Kind::UserDefined) => {
                let spelling = vocabulary.spelling(token);
                let spaces = spelling.iter().filter(|&&byte| byte == b' ').count();
                let bytes = spelling.len() + (SPACE.len() - 1) * spaces;
                (0.1 * (bytes - 1) as f64) as f32
            }
            _ => self.scores[token as usize],
        }
    }

    /// The pieces that begin at a place, and where each ends.
    fn pieces<'a>(
        &'a self,
        vocabulary: &'a Vocabulary,
        text: &'a [u8],
        start: usize,
    ) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut alike = &self.order[..];
        (start..text.len())
            .map_while(move |at| {
                let (depth, byte) = (at - start, text[at]);
                let next = |&token: &u32| vocabulary.spelling(token).get(depth).copied();
                let from = alike.partition_point(|token| next(token) < Some(byte));
                let to = from + alike[from..].partition_point(|token| next(token) == Some(byte));
                alike = &alike[from..to];
                let &first = alike.first()?;
                let whole = vocabulary.spelling(first).len() == depth + 1;
                let usable = whole && vocabulary.kind(first) != Some(Kind::Unused);
                Some(usable.then_some((at + 1, first)))
            })
            .flatten()
    }

    fn give(&self, text: &str, ways: &[Option<Way>], sink: &mut Sink<'_>) {
        let mut cuts = Vec::new();
        let mut end = text.len();
        while let Some(way) = ways[end].filter(|_| end > 0) {
            cuts.push((way, end));
            end = way.start as usize;
        }
        for (way, end) in cuts.into_iter().rev() {
            match way.token {
                NONE => sink.unknown(&text.as_bytes()[way.start as usize..end]),
                token => sink.token(token),
            }
        }
    }
}

/// Takes a way if it is better than the one so far.
fn offer(best: &mut Option<Way>, before: f32, piece: f32, way: Way) {
    let score = before + piece;
    if best.is_none_or(|best| score > best.score) {
        *best = Some(Way { score, ..way });
    }
}
