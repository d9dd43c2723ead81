//! Which provider gets the job.
//!
//! [`pick`] scores everybody who can do the job with a sum of four plain terms
//! (evidence, load, distance, a little chance among equals) and takes the best.
//! Now and then the best *newcomer* is taken instead, so that a record can
//! begin: of a network group drawn by chance, so that many newcomers from one
//! place get no more of these turns than one of them would. The same candidates and the same entropy give the same choice;
//! [`explain`] prints the sum.
//!
//! Absent here: how candidates are found or measured, and what a record is made of.

use std::fmt;

use peerproof_identity::PeerId;
use peerproof_wire::NetworkGroup;

use crate::entropy::Entropy;
use crate::reputation::Standing;

/// Chance in a thousand that a newcomer is tried although others rank higher.
const EXPLORE_PERMILLE: u16 = 60;
/// What a full house costs, in points of evidence.
const FULL_HOUSE_POINTS: i64 = 300;
/// The most that load can cost.
const MAX_LOAD_POINTS: i64 = 900;
/// The most that distance can cost.
const MAX_DISTANCE_POINTS: i64 = 500;
/// Round trip that is assumed of somebody not measured yet.
pub(crate) const UNKNOWN_RTT_MS: u32 = 100;
/// Differences below this are decided by chance, which spreads load among equals.
const CHANCE_POINTS: u64 = 32;

/// A provider that announces the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerId,
    /// Most tokens of prompt and answer together.
    pub context_length: u32,
    /// Jobs it runs.
    pub active_jobs: u32,
    /// Jobs that wait there.
    pub queued_jobs: u32,
    /// Jobs it runs at once.
    pub max_jobs: u32,
    /// Measured round trip, if any.
    pub rtt_ms: Option<u32>,
    /// Its record with this node.
    pub standing: Standing,
    /// Place in the user's own order, 0 first; `None` if the user named others or nobody.
    pub preferred: Option<u16>,
    /// The part of the network it is reached in.
    pub group: NetworkGroup,
}

/// What a job needs of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Tokens the context must hold at the least.
    pub context_length: u32,
}

/// The terms of one candidate's rank. Higher [`points`](Rank::points) win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Who.
    pub peer: PeerId,
    /// Place in the user's own order; any place beats none.
    pub preferred: Option<u16>,
    /// The record: 0 to 1000.
    pub evidence: i64,
    /// Cost of the jobs it already has.
    pub load: i64,
    /// Cost of the round trip.
    pub distance: i64,
    /// Chance among equals.
    pub chance: i64,
    /// Whether it has no record to rely on.
    pub newcomer: bool,
    /// Why it cannot be chosen, if it cannot.
    pub excluded: Option<String>,
    /// The part of the network it is reached in.
    pub group: NetworkGroup,
}

impl Rank {
    /// The sum.
    #[must_use]
    pub fn points(&self) -> i64 {
        self.evidence - self.load - self.distance + self.chance
    }

    /// Preferred ones in the user's order, then by points, then by key so that no tie is left.
    fn order(&self) -> (std::cmp::Reverse<u16>, i64, std::cmp::Reverse<PeerId>) {
        use std::cmp::Reverse;
        (Reverse(self.preferred.unwrap_or(u16::MAX)), self.points(), Reverse(self.peer))
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.excluded {
            return write!(f, "{}: not chosen ({why})", self.peer);
        }
        write!(
            f,
            "{}: {} = evidence {} - load {} - distance {} + chance {}",
            self.peer,
            self.points(),
            self.evidence,
            self.load,
            self.distance,
            self.chance
        )?;
        match self.preferred {
            Some(place) => write!(f, ", your choice no. {}", u32::from(place) + 1),
            None => Ok(()),
        }
    }
}

/// Index of the candidate to ask, or `None` if nobody can do the job.
///
/// `round` counts the choices made with this entropy, so that each has its own chance.
#[must_use]
pub fn pick(candidates: &[Candidate], need: Need, entropy: &Entropy, round: u64) -> Option<usize> {
    let ranks = explain(candidates, need, entropy, round);
    let best_where = |wanted: &dyn Fn(&Rank) -> bool| {
        let able =
            ranks.iter().enumerate().filter(|(_, rank)| rank.excluded.is_none() && wanted(rank));
        able.max_by_key(|(_, rank)| rank.order()).map(|(index, _)| index)
    };
    let anybody_preferred =
        ranks.iter().any(|rank| rank.excluded.is_none() && rank.preferred.is_some());
    let exploring = !anybody_preferred && entropy.lucky("explore", round, EXPLORE_PERMILLE);
    let place = exploring.then(|| explored(&ranks, entropy, round)).flatten();
    let newcomer = place.and_then(|group| best_where(&|rank| rank.newcomer && rank.group == group));
    newcomer.or_else(|| best_where(&|_| true))
}

/// The network group whose best newcomer is tried: each that has one is as likely.
fn explored(ranks: &[Rank], entropy: &Entropy, round: u64) -> Option<NetworkGroup> {
    let able = ranks.iter().filter(|rank| rank.newcomer && rank.excluded.is_none());
    let lot = |group: &NetworkGroup| entropy.number(&format!("explore {group}"), round);
    able.map(|rank| rank.group).max_by_key(|group| (lot(group), *group))
}

/// The rank of every candidate, in the order given.
#[must_use]
pub fn explain(candidates: &[Candidate], need: Need, entropy: &Entropy, round: u64) -> Vec<Rank> {
    candidates.iter().map(|candidate| rank(candidate, need, entropy, round)).collect()
}

fn rank(candidate: &Candidate, need: Need, entropy: &Entropy, round: u64) -> Rank {
    let jobs = i64::from(candidate.active_jobs) + i64::from(candidate.queued_jobs);
    let places = i64::from(candidate.max_jobs.max(1));
    let rtt_ms = i64::from(candidate.rtt_ms.unwrap_or(UNKNOWN_RTT_MS));
    Rank {
        peer: candidate.peer,
        preferred: candidate.preferred,
        evidence: i64::from(candidate.standing.score),
        load: (jobs * FULL_HOUSE_POINTS / places).min(MAX_LOAD_POINTS),
        distance: rtt_ms.min(MAX_DISTANCE_POINTS),
        chance: chance(candidate, entropy, round),
        newcomer: candidate.standing.newcomer,
        excluded: excluded(candidate, need),
        group: candidate.group,
    }
}

fn chance(candidate: &Candidate, entropy: &Entropy, round: u64) -> i64 {
    let label = format!("rank {}", candidate.peer);
    (entropy.number(&label, round) % CHANCE_POINTS) as i64
}

fn excluded(candidate: &Candidate, need: Need) -> Option<String> {
    if let Some(why) = &candidate.standing.barred {
        return Some(format!("barred: {why}"));
    }
    (candidate.context_length < need.context_length).then(|| {
        format!("context of {} tokens, {} needed", candidate.context_length, need.context_length)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use peerproof_identity::Keypair;

    use super::*;

    fn candidate(seed: u8, score: u16) -> Candidate {
        Candidate {
            peer: Keypair::from_seed(&[seed; 32]).public().peer_id(),
            context_length: 2048,
            active_jobs: 0,
            queued_jobs: 0,
            max_jobs: 2,
            rtt_ms: Some(1),
            standing: Standing { score, newcomer: score == 500, audit_permille: 50, barred: None },
            preferred: None,
            group: NetworkGroup::Local,
        }
    }

    fn shares(candidates: &[Candidate]) -> Vec<usize> {
        let entropy = Entropy::new([1; 32]);
        let mut counts = vec![0; candidates.len()];
        for round in 0..1000 {
            counts[pick(candidates, Need::default(), &entropy, round).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn equals_share_the_load() {
        let counts = shares(&[candidate(1, 900), candidate(2, 900), candidate(3, 900)]);
        assert!(counts.iter().all(|count| *count > 250), "{counts:?}");
    }

    #[test]
    fn the_better_record_wins_but_newcomers_get_their_share() {
        let counts = shares(&[candidate(1, 950), candidate(2, 700), candidate(3, 500)]);
        assert_eq!(counts[1], 0);
        assert!((20..120).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn many_newcomers_of_one_place_get_the_turns_of_one() {
        let at = |seed: u8, group| Candidate { group, ..candidate(seed, 500) };
        let crowd = (10..40).map(|seed| at(seed, NetworkGroup::V4([203, 0])));
        let single = at(2, NetworkGroup::V4([198, 51]));
        let all: Vec<Candidate> = [candidate(1, 950), single].into_iter().chain(crowd).collect();
        let counts = shares(&all);
        let crowd: usize = counts[2..].iter().sum();
        assert!((10..60).contains(&counts[1]) && (10..60).contains(&crowd), "{counts:?}");
    }

    #[test]
    fn load_and_distance_count() {
        let mut loaded = candidate(1, 900);
        loaded.active_jobs = 2;
        assert_eq!(shares(&[loaded, candidate(2, 900)]), [0, 1000]);
        let mut far = candidate(1, 900);
        far.rtt_ms = Some(200);
        assert_eq!(shares(&[far, candidate(2, 900)]), [0, 1000]);
    }

    #[test]
    fn barred_and_too_small_are_never_picked() {
        let entropy = Entropy::new([1; 32]);
        let mut barred = candidate(1, 1000);
        barred.standing.barred = Some("wrong-answer".into());
        barred.preferred = Some(0);
        let need = Need { context_length: 4096 };
        assert_eq!(pick(&[barred.clone(), candidate(2, 900)], need, &entropy, 0), None);
        assert_eq!(pick(&[barred, candidate(2, 100)], Need::default(), &entropy, 0), Some(1));
        assert_eq!(pick(&[], Need::default(), &entropy, 0), None);
    }

    #[test]
    fn the_users_order_comes_first() {
        let (mut second, mut first) = (candidate(1, 900), candidate(2, 100));
        second.preferred = Some(1);
        first.preferred = Some(0);
        assert_eq!(shares(&[second, first, candidate(3, 1000)]), [0, 1000, 0]);
    }

    #[test]
    fn extreme_announcements_do_not_overflow() {
        let mut wild = candidate(1, 1000);
        (wild.active_jobs, wild.queued_jobs, wild.max_jobs) = (u32::MAX, u32::MAX, 0);
        wild.rtt_ms = Some(u32::MAX);
        let rank = &explain(&[wild], Need::default(), &Entropy::new([0; 32]), 0)[0];
        assert_eq!(rank.load, MAX_LOAD_POINTS);
        assert_eq!(rank.distance, MAX_DISTANCE_POINTS);
    }

    #[test]
    fn the_explanation_adds_up() {
        let ranks = explain(&[candidate(1, 900)], Need::default(), &Entropy::new([0; 32]), 0);
        let sum = ranks[0].evidence - ranks[0].load - ranks[0].distance + ranks[0].chance;
        assert_eq!(ranks[0].points(), sum);
        assert!(ranks[0].to_string().contains(&format!("{sum} = evidence 900")), "{}", ranks[0]);
    }
}
