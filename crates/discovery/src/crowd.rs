//! The peers of a region, as many tellers name them.
//!
//! A region is everything within a distance of a key. Whoever is asked names peers; each
//! teller's list is followed in turn, one peer at a time, so that a thousand invented
//! names of one liar cost no more attention than the twenty of an honest peer. A teller
//! whose peers turn out not to answer is not followed further.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::Chance;
use crate::id::{Distance, Key};
use crate::limits::{CELLS, MAX_ANSWERS_PER_CELL, MAX_SWEPT, MAX_TELLER_STRIKES};
use crate::table::Located;

#[derive(Debug, Default)]
struct Teller {
    told: Vec<Arc<Located>>,
    strikes: u8,
}

/// Who is said to be in a region, and who was found there.
#[derive(Debug)]
pub(crate) struct Crowd {
    place: Key,
    radius: Distance,
    /// Peers named within the region, each once.
    known: BTreeSet<Key>,
    tellers: Vec<Teller>,
    turns: VecDeque<usize>,
    /// Who named a peer that is being asked.
    named_by: BTreeMap<Key, usize>,
    /// Answers by distance from the key.
    answers: [usize; CELLS],
}

impl Crowd {
    pub(crate) const fn new(place: Key, radius: Distance) -> Self {
        Self {
            place,
            radius,
            known: BTreeSet::new(),
            tellers: Vec::new(),
            turns: VecDeque::new(),
            named_by: BTreeMap::new(),
            answers: [0; CELLS],
        }
    }

    pub(crate) const fn radius(&self) -> Distance {
        self.radius
    }

    /// Another radius; counted answers are of the old parts and are forgotten.
    pub(crate) const fn widen(&mut self, radius: Distance) {
        self.radius = radius;
        self.answers = [0; CELLS];
    }

    pub(crate) fn holds(&self, key: &Key) -> bool {
        key.distance(&self.place) <= self.radius
    }

    /// Peers named so far.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// One teller's list; peers outside the region are passed over.
    pub(crate) fn told(&mut self, peers: &[Arc<Located>], own: &Key, chance: &mut Chance) {
        let within = peers.iter().filter(|who| self.holds(who.key()) && who.key() != own);
        let mut told: Vec<Arc<Located>> = within.cloned().collect();
        if told.is_empty() || self.tellers.len() >= 2 * MAX_SWEPT {
            return;
        }
        self.known.extend(told.iter().map(|who| *who.key()));
        chance.shuffle(&mut told);
        self.turns.push_back(self.tellers.len());
        self.tellers.push(Teller { told, strikes: 0 });
    }

    /// The next peer to ask: one of each teller in turn.
    pub(crate) fn next(&mut self, asked: &BTreeSet<Key>) -> Option<Arc<Located>> {
        while let Some(turn) = self.turns.pop_front() {
            let teller = &mut self.tellers[turn];
            if teller.strikes >= MAX_TELLER_STRIKES {
                continue;
            }
            let next = loop {
                match teller.told.pop() {
                    Some(who) if asked.contains(who.key()) => {}
                    other => break other,
                }
            };
            if let Some(who) = next {
                self.turns.push_back(turn);
                self.named_by.insert(*who.key(), turn);
                return Some(who);
            }
        }
        None
    }

    /// A peer that was asked did not answer.
    pub(crate) fn failed(&mut self, key: &Key) {
        if let Some(turn) = self.named_by.remove(key) {
            self.tellers[turn].strikes = self.tellers[turn].strikes.saturating_add(1);
        }
    }

    /// A peer of the region answered.
    pub(crate) fn answered(&mut self, key: &Key) {
        self.answers[self.cell(key)] += 1;
    }

    /// Answers, of which each part of the region counts only a few: a crowd next to the
    /// key fills no more than its own part.
    pub(crate) fn spread_answers(&self) -> usize {
        self.answers.iter().map(|count| (*count).min(MAX_ANSWERS_PER_CELL)).sum()
    }

    fn cell(&self, key: &Key) -> usize {
        let unit = (self.radius.top() / CELLS as u128).max(1);
        usize::try_from(key.distance(&self.place).top() / unit)
            .map_or(CELLS - 1, |cell| cell.min(CELLS - 1))
    }

    /// Points spread over the region, one a part.
    pub(crate) fn points(&self, chance: &mut Chance) -> Vec<Key> {
        let unit = self.radius.top() / CELLS as u128;
        let point = |cell: usize| {
            let within = u128::from(chance.number()) << 64 | u128::from(chance.number());
            let top = unit.saturating_mul(cell as u128) + within.checked_rem(unit).unwrap_or(0);
            self.place.at(Distance::from_top(top))
        };
        (0..CELLS).map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Address, Contact};
    use peerproof_identity::Keypair;

    fn peer(number: u16) -> Arc<Located> {
        let mut seed = [4; 32];
        seed[..2].copy_from_slice(&number.to_le_bytes());
        let peer = Keypair::from_seed(&seed).public().peer_id();
        Located::new(Contact { peer, addresses: vec![Address::quic([20, 0, 0, 1].into(), 1)] })
    }

    fn crowd(radius: Distance) -> (Crowd, Chance, Key) {
        (Crowd::new(Key::of(b"place"), radius), Chance::new([6; 32]), Key::of(b"own"))
    }

    #[test]
    fn tellers_have_their_turn_alike() {
        let (mut crowd, mut chance, own) = crowd(Distance::MAX);
        let liar: Vec<_> = (0..20).map(peer).collect();
        let honest: Vec<_> = (100..103).map(peer).collect();
        crowd.told(&liar, &own, &mut chance);
        crowd.told(&honest, &own, &mut chance);
        let mut asked = BTreeSet::new();
        for _ in 0..6 {
            let who = crowd.next(&asked).expect("somebody");
            asked.insert(*who.key());
        }
        assert!(honest.iter().all(|who| asked.contains(who.key())));
        assert_eq!(crowd.len(), 23);
    }

    #[test]
    fn who_names_the_dead_is_not_followed() {
        let (mut crowd, mut chance, own) = crowd(Distance::MAX);
        crowd.told(&(0..20).map(peer).collect::<Vec<_>>(), &own, &mut chance);
        let mut asked = BTreeSet::new();
        while let Some(who) = crowd.next(&asked) {
            asked.insert(*who.key());
            crowd.failed(who.key());
        }
        assert_eq!(asked.len(), usize::from(MAX_TELLER_STRIKES));
    }

    #[test]
    fn only_the_region_counts_and_never_oneself() {
        let (mut crowd, mut chance, _) = crowd(Distance::reach(3));
        let all: Vec<_> = (0..200).map(peer).collect();
        let inside: Vec<_> = all.iter().filter(|who| crowd.holds(who.key())).collect();
        assert!((10..45).contains(&inside.len()), "{}", inside.len());
        crowd.told(&all, inside[0].key(), &mut chance);
        assert_eq!(crowd.len(), inside.len() - 1);
    }

    #[test]
    fn a_crowd_in_one_part_counts_for_one_part() {
        let (mut crowd, mut chance, _) = crowd(Distance::reach(8));
        for _ in 0..200 {
            crowd.answered(&Key::of(b"place"));
        }
        assert_eq!(crowd.spread_answers(), MAX_ANSWERS_PER_CELL);
        let points = crowd.points(&mut chance);
        assert!(points.iter().all(|point| crowd.holds(point)));
        points.iter().for_each(|point| crowd.answered(point));
        assert_eq!(crowd.spread_answers(), MAX_ANSWERS_PER_CELL + CELLS - 1, "one a part");
    }
}
