//! Merging by score: of all neighbours that together spell a piece, the two
//! whose piece has the best score become one; among equals the leftmost; until
//! none are left.
//!
//! The candidates wait in a heap, so a text of `n` characters takes `n log n`
//! steps. Before that the text is cut wherever two characters meet that meet in
//! no piece: nothing merges across such a place, and what is merged on one side
//! makes no difference on the other. In ordinary vocabularies a cut falls before
//! nearly every word, so the heaps stay small.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::super::error::{TokenizerError, broken};
use super::super::index::{Index, NONE};
use super::super::vocabulary::{KEY_TOKENS, Kind, Vocabulary};
use super::Sink;

/// What merging needs to know of the vocabulary.
#[derive(Debug)]
pub(super) struct Merger {
    index: Index,
    /// By token; in the order of the scores.
    ranks: Vec<u32>,
    /// The tokens of ASCII characters.
    ascii: Box<[u32; 128]>,
    joints: Joints,
    /// The longest piece, in bytes.
    longest: usize,
}

/// A run of text that is, or may yet become, one token. Its place in the list is
/// the offset of its first byte.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    /// In bytes; 0 where no symbol begins.
    len: u32,
    /// Where the symbol before begins; [`NONE`] for the first.
    previous: u32,
    token: u32,
}

/// Two neighbours that spell a piece. The greatest is merged first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: Reverse<u32>,
    token: u32,
}

/// Memory that is used again from cut to cut.
#[derive(Debug, Default)]
pub(super) struct Work {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Candidate>,
    /// Unused tokens that came up, and the length of the left half of each.
    halves: HashMap<u32, usize>,
}

impl Merger {
    pub(super) fn new(
        vocabulary: &Vocabulary,
        spellable: &[u32],
        scores: &[f32],
    ) -> Result<Self, TokenizerError> {
        let mut index = Index::with_capacity(spellable.len());
        let mut joints = Joints::for_pieces(spellable.len());
        let mut longest = 0;
        for &token in spellable {
            if let Err(first) = index.insert(vocabulary, token) {
                let got = format!("{first} = {token}");
                return Err(broken(KEY_TOKENS, "every piece once", got));
            }
            let spelling = vocabulary.spelling(token);
            longest = longest.max(spelling.len());
            match vocabulary.kind(token) {
                Some(Kind::Normal) => joints.learn(spelling),
                // How an unused piece came about elsewhere in the text counts.
                Some(Kind::Unused) => joints.learn_all(),
                _ => {}
            }
        }
        let token = |code: usize| index.find(vocabulary, &[code as u8]).unwrap_or(NONE);
        let ascii = Box::new(std::array::from_fn(token));
        let ranks = scores.iter().map(|&score| rank(score)).collect();
        Ok(Self { index, ranks, ascii, joints, longest })
    }

    /// Gives the pieces of a text to `sink`.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        work: &mut Work,
        sink: &mut Sink<'_>,
    ) {
        let (mut start, mut before) = (0, None);
        for (at, char) in text.char_indices() {
            if before.is_some_and(|before| !self.joints.has(before, char)) {
                Run { of: self, vocabulary, text: &text[start..at] }.encode(work, sink);
                start = at;
            }
            before = Some(char);
        }
        Run { of: self, vocabulary, text: &text[start..] }.encode(work, sink);
    }
}

/// A text without a cut in it.
struct Run<'a> {
    of: &'a Merger,
    vocabulary: &'a Vocabulary,
    text: &'a str,
}

impl Run<'_> {
    fn encode(&self, work: &mut Work, sink: &mut Sink<'_>) {
        self.split(work);
        while let Some(candidate) = work.heap.pop() {
            self.merge(candidate, work);
        }
        let mut at = 0;
        while let Some(&Symbol { len, token, .. }) = work.symbols.get(at) {
            let piece = (at, len as usize, token);
            self.give(piece, &work.halves, sink);
            at += piece.1;
        }
        work.halves.clear();
    }

    /// One symbol a character, and all candidates among them.
    fn split(&self, work: &mut Work) {
        work.symbols.clear();
        work.symbols.resize(self.text.len(), Symbol { len: 0, previous: NONE, token: NONE });
        let mut previous = NONE;
        for (at, char) in self.text.char_indices() {
            let len = char.len_utf8();
            let token = match self.of.ascii.get(char as usize) {
                Some(&token) => token,
                None => self.find(at, len).unwrap_or(NONE),
            };
            work.symbols[at] = Symbol { len: len as u32, previous, token };
            self.propose(previous, work);
            previous = at as u32;
        }
    }

    /// Merges a candidate, unless one of its halves has changed since: a symbol
    /// only ever grows or vanishes, so the length of both tells.
    fn merge(&self, candidate: Candidate, work: &mut Work) {
        let Reverse(left) = candidate.left;
        let Symbol { len, previous, .. } = work.symbols[left as usize];
        let right = left + len;
        if len == 0 || right as usize >= self.text.len() {
            return;
        }
        let both = len + work.symbols[right as usize].len;
        if both as usize != self.vocabulary.spelling(candidate.token).len() {
            return;
        }
        work.symbols[right as usize].len = 0;
        work.symbols[left as usize] = Symbol { len: both, previous, token: candidate.token };
        if let Some(after) = work.symbols.get_mut((left + both) as usize) {
            after.previous = left;
        }
        self.propose(previous, work);
        self.propose(left, work);
    }

    /// Puts the symbol at `left` and the next one on the heap, if they spell a
    /// piece.
    fn propose(&self, left: u32, work: &mut Work) {
        let Some(symbol) = work.symbols.get(left as usize) else { return };
        let Some(next) = work.symbols.get((left + symbol.len) as usize) else { return };
        let both = (symbol.len + next.len) as usize;
        if both > self.of.longest || next.len == 0 {
            return;
        }
        if let Some(token) = self.find(left as usize, both) {
            let rank = self.of.ranks[token as usize];
            work.heap.push(Candidate { rank, left: Reverse(left), token });
            if self.vocabulary.kind(token) == Some(Kind::Unused) {
                work.halves.insert(token, symbol.len as usize);
            }
        }
    }

    fn find(&self, at: usize, len: usize) -> Option<u32> {
        self.of.index.find(self.vocabulary, &self.text.as_bytes()[at..at + len])
    }

    /// Gives a symbol away; an unused token in the halves it was made of.
    fn give(&self, symbol: (usize, usize, u32), halves: &HashMap<u32, usize>, sink: &mut Sink<'_>) {
        let mut rest = Some(symbol);
        let mut later = Vec::new();
        while let Some((at, len, token)) = rest.take().or_else(|| later.pop()) {
            if token == NONE {
                sink.unknown(&self.text.as_bytes()[at..at + len]);
            } else if let Some(&half) = halves.get(&token) {
                let find = |at, len| (at, len, self.find(at, len).unwrap_or(NONE));
                later.push(find(at + half, len - half));
                rest = Some(find(at, half));
            } else {
                sink.token(token);
            }
        }
    }
}

/// A whole number in the order of a finite float; both zeros are one.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Which pairs of characters meet in some piece. May claim so of a few more.
#[derive(Debug)]
struct Joints {
    bits: Vec<u64>,
    shift: u32,
}

impl Joints {
    fn for_pieces(count: usize) -> Self {
        let bits = (32 * count).next_power_of_two().max(64);
        Self { bits: vec![0; bits / 64], shift: 64 - bits.trailing_zeros() }
    }

    fn place(&self, left: char, right: char) -> (usize, u64) {
        let pair = u64::from(left) << 32 | u64::from(right);
        let hash = pair.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift;
        ((hash / 64) as usize, 1 << (hash % 64))
    }

    fn learn(&mut self, spelling: &[u8]) {
        let Ok(text) = std::str::from_utf8(spelling) else { return };
        for (left, right) in text.chars().zip(text.chars().skip(1)) {
            let (word, bit) = self.place(left, right);
            self.bits[word] |= bit;
        }
    }

    /// From here on every pair is known.
    fn learn_all(&mut self) {
        self.bits.fill(u64::MAX);
    }

    fn has(&self, left: char, right: char) -> bool {
        let (word, bit) = self.place(left, right);
        self.bits[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_in_the_order_of_scores() {
        let scores = [f32::MIN, -2.5, -1.0, -f32::MIN_POSITIVE, 0.0, 1e-30, 3.0, f32::MAX];
        assert!(scores.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert_eq!(rank(-0.0), rank(0.0));
    }

    #[test]
    fn joints_know_what_they_learned() {
        let mut joints = Joints::for_pieces(2);
        joints.learn("abä".as_bytes());
        assert!(joints.has('a', 'b') && joints.has('b', 'ä'));
        let pairs = ('a'..='z').flat_map(|a| ('a'..='z').map(move |b| (a, b)));
        let claimed = pairs.filter(|&(a, b)| joints.has(a, b)).count();
        assert!(claimed < 100, "{claimed}");
        joints.learn_all();
        assert!(joints.has('x', 'y'));
    }
}
