//! Offers that were taken, so that none is answered twice.

use std::collections::{BTreeSet, VecDeque};

use peerproof_wire::Digest;

use crate::limits::MAX_REMEMBERED_OFFERS;

/// The last [`MAX_REMEMBERED_OFFERS`] offers, oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: BTreeSet<Digest>,
    order: VecDeque<Digest>,
}

impl Seen {
    pub(super) fn insert(&mut self, id: Digest) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_REMEMBERED_OFFERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, id: &Digest) {
        if self.ids.remove(id) {
            // The job is recent, so it stands near the end.
            let at = self.order.iter().rposition(|known| known == id);
            at.and_then(|at| self.order.remove(at));
        }
    }

    pub(super) fn contains(&self, id: &Digest) -> bool {
        self.ids.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Digest::from_bytes(bytes)
    }

    #[test]
    fn forgets_the_oldest() {
        let mut seen = Seen::default();
        (0..=MAX_REMEMBERED_OFFERS).for_each(|number| seen.insert(id(number)));
        assert!(!seen.contains(&id(0)));
        assert!(seen.contains(&id(1)) && seen.contains(&id(MAX_REMEMBERED_OFFERS)));
        assert_eq!(seen.order.len(), MAX_REMEMBERED_OFFERS);
    }

    #[test]
    fn forgets_on_request() {
        let mut seen = Seen::default();
        seen.insert(id(1));
        seen.insert(id(1));
        seen.remove(&id(1));
        assert!(!seen.contains(&id(1)) && seen.order.is_empty());
    }
}
