//! Who could do the job, and who has had a turn.

use peerproof_identity::PeerId;

use crate::entropy::Entropy;
use crate::limits::{MAX_ATTEMPTS_PER_PROVIDER, MAX_CANDIDATES};
use crate::select::{self, Candidate, Need};
use crate::time::Millis;

/// When a provider that was left may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Not in this job.
    Never,
    /// From this moment.
    From(Millis),
    /// From this moment, and it was no turn.
    Waiting(Millis),
}

struct Place {
    candidate: Candidate,
    busy: bool,
    again: Again,
    turns: u32,
}

impl Place {
    fn ready_at(&self) -> Option<Millis> {
        match self.again {
            Again::From(at) | Again::Waiting(at)
                if !self.busy && self.turns < MAX_ATTEMPTS_PER_PROVIDER =>
            {
                Some(at)
            }
            _ => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Roster {
    places: Vec<Place>,
    /// Who gets no further turn, whatever comes to be known of it.
    barred: Vec<PeerId>,
    rounds: u64,
}

impl Roster {
    /// Takes in newcomers and fresher figures; true if anybody is new.
    pub(super) fn merge(&mut self, candidates: Vec<Candidate>) -> bool {
        let mut grown = false;
        for candidate in candidates {
            if self.barred.contains(&candidate.peer) {
                continue;
            }
            let known = self.places.iter_mut().find(|place| place.candidate.peer == candidate.peer);
            if let Some(place) = known {
                place.candidate = candidate;
            } else if self.places.len() < MAX_CANDIDATES {
                let again = Again::From(Millis(0));
                self.places.push(Place { candidate, busy: false, again, turns: 0 });
                grown = true;
            }
        }
        grown
    }

    /// Gives the best provider that is free a turn.
    pub(super) fn pick(&mut self, now: Millis, need: Need, entropy: &Entropy) -> Option<Candidate> {
        let ready = |place: &Place| place.ready_at().is_some_and(|at| at <= now);
        let places: Vec<usize> =
            (0..self.places.len()).filter(|index| ready(&self.places[*index])).collect();
        let candidates: Vec<Candidate> =
            places.iter().map(|index| self.places[*index].candidate.clone()).collect();
        let chosen = select::pick(&candidates, need, entropy, self.rounds)?;
        self.rounds += 1;
        let place = &mut self.places[places[chosen]];
        place.busy = true;
        place.turns += 1;
        Some(place.candidate.clone())
    }

    /// Ends a provider's turn. Returns how many it has had.
    pub(super) fn leave(&mut self, peer: &PeerId, again: Again) -> u32 {
        let Some(place) = self.places.iter_mut().find(|place| place.candidate.peer == *peer) else {
            return 0;
        };
        place.busy = false;
        place.again = again;
        let turns = place.turns;
        if matches!(again, Again::Waiting(_)) {
            place.turns = place.turns.saturating_sub(1);
        }
        turns
    }

    /// Gives a provider no further turn.
    pub(super) fn bar(&mut self, peer: &PeerId) {
        if self.barred.len() < MAX_CANDIDATES && !self.barred.contains(peer) {
            self.barred.push(*peer);
        }
        self.places.retain(|place| place.busy || place.candidate.peer != *peer);
        if let Some(place) = self.places.iter_mut().find(|place| place.candidate.peer == *peer) {
            place.again = Again::Never;
        }
    }

    /// The next moment at which somebody who may be chosen becomes free.
    pub(super) fn next_ready(&self, need: Need) -> Option<Millis> {
        let able = self.places.iter().filter(|place| {
            place.candidate.standing.barred.is_none()
                && place.candidate.context_length >= need.context_length
        });
        able.filter_map(Place::ready_at).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use peerproof_identity::Keypair;

    use super::*;
    use crate::reputation::Standing;

    fn candidate(seed: u8) -> Candidate {
        Candidate {
            peer: Keypair::from_seed(&[seed; 32]).public().peer_id(),
            context_length: 128,
            active_jobs: 0,
            queued_jobs: 0,
            max_jobs: 1,
            rtt_ms: None,
            standing: Standing::stranger(),
            preferred: None,
            group: peerproof_wire::NetworkGroup::Local,
        }
    }

    #[test]
    fn a_turn_is_exclusive_and_turns_run_out() {
        let (mut roster, entropy, need) =
            (Roster::default(), Entropy::new([0; 32]), Need::default());
        assert!(roster.merge(vec![candidate(1)]));
        assert!(!roster.merge(vec![candidate(1)]), "known");
        for turn in 1..=MAX_ATTEMPTS_PER_PROVIDER {
            let peer = roster.pick(Millis(0), need, &entropy).unwrap().peer;
            assert!(roster.pick(Millis(0), need, &entropy).is_none(), "busy");
            assert_eq!(roster.leave(&peer, Again::From(Millis(0))), turn);
        }
        assert!(roster.pick(Millis(0), need, &entropy).is_none());
        assert_eq!(roster.next_ready(need), None);
    }

    #[test]
    fn cooling_takes_its_time_and_never_is_never() {
        let (mut roster, entropy, need) =
            (Roster::default(), Entropy::new([0; 32]), Need::default());
        roster.merge(vec![candidate(1)]);
        let peer = roster.pick(Millis(5), need, &entropy).unwrap().peer;
        roster.leave(&peer, Again::From(Millis(50)));
        assert!(roster.pick(Millis(49), need, &entropy).is_none());
        assert_eq!(roster.next_ready(need), Some(Millis(50)));
        assert!(roster.pick(Millis(50), need, &entropy).is_some());
        roster.leave(&peer, Again::Never);
        assert_eq!(roster.next_ready(need), None);
    }

    #[test]
    fn waiting_takes_no_turn() {
        let (mut roster, entropy, need) =
            (Roster::default(), Entropy::new([0; 32]), Need::default());
        roster.merge(vec![candidate(1)]);
        for _ in 0..2 * MAX_ATTEMPTS_PER_PROVIDER {
            let peer = roster.pick(Millis(9), need, &entropy).expect("ready").peer;
            roster.leave(&peer, Again::Waiting(Millis(9)));
        }
        assert_eq!(roster.next_ready(need), Some(Millis(9)));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut roster = Roster::default();
        let many = (0..=MAX_CANDIDATES as u8).map(candidate).collect();
        roster.merge(many);
        assert_eq!(roster.places.len(), MAX_CANDIDATES);
    }
}
