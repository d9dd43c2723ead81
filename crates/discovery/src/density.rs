//! How many peers there are, judged far away from whatever is looked up.
//!
//! Whoever grinds ids next to a key makes that neighbourhood look dense. So the size of
//! the network is the median over lookups of random places, and within a lookup the
//! median over its paths; a path's figure is the density that the peer closest to its
//! point reports (arXiv 2505.01139 measures regions likewise). Half of the lookups, or
//! half of the paths of most, have to lie to move it at will.

use std::collections::VecDeque;

use crate::id::Distance;
use crate::limits::{MAX_DENSITY_SAMPLES, MIN_DENSITY_SAMPLES, REGION_PEERS};
use crate::walk::PathReport;

/// Estimates the number of peers in the network.
///
/// ```
/// use peerproof_discovery::density::Density;
/// use peerproof_discovery::id::Distance;
///
/// let mut density = Density::default();
/// assert_eq!(density.region(), Distance::MAX, "nothing is known: everything is near");
/// for _ in 0..16 {
///     density.add(10_000);
/// }
/// assert_eq!(density.peers(), Some(10_000));
/// assert_eq!(density.region().top(), u128::MAX / 10_000 * 20);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Density {
    samples: VecDeque<u128>,
}

impl Density {
    /// Takes the figure of one lookup.
    pub fn add(&mut self, peers: u128) {
        if self.samples.len() >= MAX_DENSITY_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(peers.max(1));
    }

    /// Takes what the paths of a lookup of a random place saw.
    pub fn learn<'a>(&mut self, reports: impl Iterator<Item = &'a PathReport>) {
        let figures = reports.filter_map(|report| report.density).map(|(count, furthest)| {
            let unit = furthest.top().max(1);
            (u128::MAX / unit).saturating_mul(count as u128)
        });
        if let Some(median) = median(figures.collect()) {
            self.add(median);
        }
    }

    /// The number of peers; nothing while there are fewer than [`MIN_DENSITY_SAMPLES`].
    #[must_use]
    pub fn peers(&self) -> Option<u128> {
        if self.samples.len() < MIN_DENSITY_SAMPLES {
            return None;
        }
        median(self.samples.iter().copied().collect())
    }

    /// Lookups of random places that an estimate still needs.
    #[must_use]
    pub fn wanting(&self) -> usize {
        MIN_DENSITY_SAMPLES.saturating_sub(self.samples.len())
    }

    /// The distance from a key within which its records are kept: where twenty peers
    /// are expected, or everywhere while nothing is known.
    #[must_use]
    pub fn region(&self) -> Distance {
        match self.peers() {
            Some(peers) if peers > REGION_PEERS => {
                Distance::from_top(u128::MAX / peers * REGION_PEERS)
            }
            _ => Distance::MAX,
        }
    }
}

fn median(mut figures: Vec<u128>) -> Option<u128> {
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minority_of_liars_moves_nothing_far() {
        let mut density = Density::default();
        for at in 0..MAX_DENSITY_SAMPLES {
            density.add(if at % 5 < 2 { u128::MAX } else { 1_000 });
        }
        assert_eq!(density.peers(), Some(1_000));
    }

    #[test]
    fn old_samples_go() {
        let mut density = Density::default();
        (0..MAX_DENSITY_SAMPLES).for_each(|_| density.add(10));
        assert_eq!(density.region(), Distance::MAX, "all are near in a small network");
        (0..MAX_DENSITY_SAMPLES).for_each(|_| density.add(5_000));
        assert_eq!(density.peers(), Some(5_000));
    }

    #[test]
    fn few_samples_are_no_estimate() {
        let mut density = Density::default();
        (1..MIN_DENSITY_SAMPLES).for_each(|_| density.add(5_000));
        assert_eq!((density.peers(), density.wanting()), (None, 1));
        density.add(5_000);
        assert_eq!((density.peers(), density.wanting()), (Some(5_000), 0));
    }
}
