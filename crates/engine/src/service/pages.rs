//! Full pages that wait for another prompt with the same beginning.
//!
//! A page is found by the hash of everything its integers follow from (model,
//! tokens from the first on) and of the salt of the client it was made for. A
//! client can only hit pages made for itself, so how fast a prompt is read tells
//! nothing about the prompts of others. Pages in use by a sequence stay; of the
//! rest the one unused for longest goes first. Deliberately absent: the budget,
//! which the loop keeps.

use std::collections::HashMap;
use std::sync::Arc;

use peerproof_wire::{Digest, ModelId};

use crate::kv::Page;

struct Entry {
    page: Arc<Page>,
    /// When it was last asked for.
    used: u64,
}

#[derive(Default)]
pub(super) struct Pages {
    entries: HashMap<[u8; 32], Entry>,
    tick: u64,
    pub(super) evicted: u64,
}

/// What the first page's hash is chained to.
pub(super) fn root(salt: &Digest, model: &ModelId) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("peerproof pages v1");
    hasher.update(salt.as_bytes()).update(model.as_bytes());
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// The name of the page of `tokens` that follows the page `previous`.
pub(super) fn link(previous: &Digest, tokens: &[u32]) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(previous.as_bytes());
    tokens.iter().for_each(|token| {
        hasher.update(&token.to_le_bytes());
    });
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

impl Pages {
    /// How many pages there are, those in use included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them nobody uses.
    pub(super) fn idle(&self) -> usize {
        self.entries.values().filter(|entry| Arc::strong_count(&entry.page) == 1).count()
    }

    pub(super) fn find(&mut self, name: &Digest) -> Option<Arc<Page>> {
        self.tick += 1;
        let entry = self.entries.get_mut(name.as_bytes())?;
        entry.used = self.tick;
        Some(Arc::clone(&entry.page))
    }

    pub(super) fn keep(&mut self, name: &Digest, page: Arc<Page>) {
        self.tick += 1;
        self.entries.insert(*name.as_bytes(), Entry { page, used: self.tick });
    }

    /// Lets the idle page go that is unused for longest; false if there is none.
    pub(super) fn evict(&mut self) -> bool {
        let idle = self.entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.page) == 1);
        let Some(name) = idle.min_by_key(|(_, entry)| entry.used).map(|(name, _)| *name) else {
            return false;
        };
        self.entries.remove(&name);
        self.evicted += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_depend_on_salt_model_place_and_tokens() {
        let of = |salt: u8, model: u8| {
            root(&Digest::from_bytes([salt; 32]), &ModelId::from_bytes([model; 32]))
        };
        let names = [
            link(&of(0, 0), &[1, 2]),
            link(&of(1, 0), &[1, 2]),
            link(&of(0, 1), &[1, 2]),
            link(&of(0, 0), &[2, 1]),
            link(&link(&of(0, 0), &[1, 2]), &[1, 2]),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{at}");
        }
        assert_eq!(names[0], link(&of(0, 0), &[1, 2]));
    }
}
