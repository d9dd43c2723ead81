//! The two tables: which slot holds what, and drawing from them.

use super::{BUCKET_SLOTS, Endpoint, NEW_BUCKETS, TRIED_BUCKETS};
use crate::Chance;

/// A slot of one of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    tried: bool,
    bucket: usize,
    slot: usize,
}

impl Home {
    pub(super) const fn new_at(bucket: usize, slot: usize) -> Self {
        Self { tried: false, bucket, slot }
    }

    pub(super) const fn tried_at(bucket: usize, slot: usize) -> Self {
        Self { tried: true, bucket, slot }
    }

    pub(super) const fn is_tried(self) -> bool {
        self.tried
    }

    #[cfg(test)]
    pub(super) const fn bucket(self) -> usize {
        self.bucket
    }
}

#[derive(Clone, Debug)]
struct Table {
    slots: Vec<Option<Endpoint>>,
    /// Occupants of each bucket.
    held: Vec<usize>,
    total: usize,
}

impl Table {
    fn new(buckets: usize) -> Self {
        Self { slots: vec![None; buckets * BUCKET_SLOTS], held: vec![0; buckets], total: 0 }
    }

    /// Each bucket that holds anybody with the same chance, then each occupant:
    /// whoever fills few buckets to the brim is not drawn more often for it.
    fn draw(&self, chance: &mut Chance) -> Option<Endpoint> {
        let inhabited = self.held.iter().filter(|held| **held > 0).count();
        let nth = chance.below(inhabited);
        let bucket = self.held.iter().enumerate().filter(|(_, held)| **held > 0).nth(nth)?.0;
        let place = chance.below(*self.held.get(bucket)?);
        let slots = self.slots.get(bucket * BUCKET_SLOTS..(bucket + 1) * BUCKET_SLOTS)?;
        slots.iter().flatten().nth(place).copied()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tables {
    new: Table,
    tried: Table,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self { new: Table::new(NEW_BUCKETS), tried: Table::new(TRIED_BUCKETS) }
    }

    pub(super) const fn sizes(&self) -> (usize, usize) {
        (self.new.total, self.tried.total)
    }

    pub(super) fn at(&self, home: Home) -> Option<Endpoint> {
        let table = if home.tried { &self.tried } else { &self.new };
        table.slots.get(home.bucket * BUCKET_SLOTS + home.slot).copied().flatten()
    }

    pub(super) fn set(&mut self, home: Home, occupant: Option<Endpoint>) {
        let table = if home.tried { &mut self.tried } else { &mut self.new };
        let Some(slot) = table.slots.get_mut(home.bucket * BUCKET_SLOTS + home.slot) else {
            return;
        };
        let (before, after) = (usize::from(slot.is_some()), usize::from(occupant.is_some()));
        *slot = occupant;
        if let Some(held) = table.held.get_mut(home.bucket) {
            *held = *held + after - before;
        }
        table.total = table.total + after - before;
    }

    pub(super) fn draw(&self, tried: bool, chance: &mut Chance) -> Option<Endpoint> {
        if tried { self.tried.draw(chance) } else { self.new.draw(chance) }
    }
}
