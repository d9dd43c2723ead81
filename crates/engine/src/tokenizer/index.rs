//! From a text to the token that is spelled so.
//!
//! A hash table that holds ids only; the texts stay in the vocabulary. Its keyed
//! hash gives a file that knows of it no way to make it slow.

use std::hash::{BuildHasher, RandomState};

use super::vocabulary::Vocabulary;

/// No token has this id.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The hash's upper half, so that most others are told apart without a look
    /// at their texts.
    tag: u32,
    token: u32,
}

/// A set of tokens with different spellings.
#[derive(Debug)]
pub(super) struct Index {
    /// INVARIANT: a power of two, at least twice as many as tokens.
    slots: Vec<Slot>,
    tokens: usize,
    state: RandomState,
}

impl Index {
    /// Room for as many tokens.
    pub(super) fn with_capacity(tokens: usize) -> Self {
        let slots = vec![Slot { tag: 0, token: NONE }; (2 * tokens).next_power_of_two().max(2)];
        Self { slots, tokens, state: RandomState::new() }
    }

    /// Takes a token, or gives the one that is spelled as it is.
    pub(super) fn insert(&mut self, vocabulary: &Vocabulary, token: u32) -> Result<(), u32> {
        let (at, tag) = match self.probe(vocabulary, vocabulary.spelling(token)) {
            Ok(first) => return Err(first),
            Err(free) => free,
        };
        debug_assert!(self.tokens > 0, "more tokens than there was to be room for");
        self.tokens -= 1;
        self.slots[at] = Slot { tag, token };
        Ok(())
    }

    /// The token spelled so.
    pub(super) fn find(&self, vocabulary: &Vocabulary, text: &[u8]) -> Option<u32> {
        self.probe(vocabulary, text).ok()
    }

    /// The token spelled so, or the slot and tag it would get.
    fn probe(&self, vocabulary: &Vocabulary, text: &[u8]) -> Result<u32, (usize, u32)> {
        let hash = self.state.hash_one(text);
        let (mask, tag) = (self.slots.len() - 1, (hash >> 32) as u32);
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.token == NONE {
                return Err((at, tag));
            }
            if slot.tag == tag && vocabulary.spelling(slot.token) == text {
                return Ok(slot.token);
            }
            at = (at + 1) & mask;
        }
    }
}
