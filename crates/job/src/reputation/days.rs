//! Points by the day they were earned on, and what is left of them.
//!
//! A day is 86,400,000 ms of the node's wall clock since 1970. All that is
//! earned on one day fades alike, so a sum needs no order and few numbers.

use std::collections::BTreeMap;

use super::decay::fade;
use crate::limits::MAX_DAYS;

/// One point, before it fades.
pub(super) const ONE: u64 = 1 << 16;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

pub(super) type Day = u64;

pub(super) fn day(unix_ms: u64) -> Day {
    unix_ms / DAY_MS
}

/// The moment and the rules by which points are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) today: Day,
    pub(super) half_life_days: u64,
}

impl At {
    /// What is left of whole points of a day. A day to come counts as today.
    pub(super) fn left(&self, points: u64, day: Day) -> u64 {
        fade(points.saturating_mul(ONE), self.today.saturating_sub(day), self.half_life_days)
    }
}

/// Whole points by day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Days(BTreeMap<Day, u64>);

impl Days {
    pub(super) fn add(&mut self, day: Day, points: u64) {
        let sum = self.0.entry(day).or_default();
        *sum = sum.saturating_add(points);
        if self.0.len() > MAX_DAYS {
            self.0.pop_first();
        }
    }

    pub(super) fn subtract(&mut self, other: &Days) {
        for (day, points) in &other.0 {
            if let Some(sum) = self.0.get_mut(day) {
                *sum = sum.saturating_sub(*points);
            }
        }
        self.0.retain(|_, sum| *sum > 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn left(&self, at: At) -> u64 {
        self.0.iter().fold(0, |sum: u64, (day, points)| sum.saturating_add(at.left(*points, *day)))
    }
}
