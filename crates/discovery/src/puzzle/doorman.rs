//! Who is served next when more come than can be, and what the others are told.

use std::collections::BTreeMap;

use super::MAX_EFFORT;
use crate::Millis;

/// Requests that wait.
pub const QUEUE: usize = 256;
/// How often the effort that is told is thought over.
pub const PERIOD_MS: u64 = 10_000;
/// Efforts of a period that are remembered for their median.
const REMEMBERED: usize = 4096;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits.
    Waits,
    /// It waits; the one named gave way, having paid less.
    Instead(u64),
    /// Everybody here paid as much or more.
    Refused,
}

/// A queue by effort, and the effort that is told.
#[derive(Clone, Debug, Default)]
pub struct Doorman {
    /// By effort, then by order of arrival, last first.
    queue: BTreeMap<(u32, u64), u64>,
    arrivals: u64,
    told: u32,
    period_began: Millis,
    served: Vec<u32>,
    overrun: bool,
}

impl Doorman {
    /// Nobody waits, nothing is asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The effort that new clients are told.
    #[must_use]
    pub const fn told(&self) -> u32 {
        self.told
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Somebody comes with work that was verified.
    pub fn arrive(&mut self, request: u64, effort: u32) -> Queued {
        let effort = effort.min(MAX_EFFORT);
        // Among equals who came first is served first.
        self.arrivals += 1;
        let place = (effort, u64::MAX - self.arrivals);
        if self.queue.len() < QUEUE {
            self.queue.insert(place, request);
            return Queued::Waits;
        }
        self.overrun = true;
        let Some(least) = self.queue.first_key_value().map(|(place, _)| *place) else {
            return Queued::Refused;
        };
        if least.0 >= effort {
            return Queued::Refused;
        }
        let gone = self.queue.remove(&least);
        self.queue.insert(place, request);
        gone.map_or(Queued::Waits, Queued::Instead)
    }

    /// Who is served next: who paid most.
    pub fn serve(&mut self) -> Option<u64> {
        let ((effort, _), request) = self.queue.pop_last()?;
        if self.served.len() < REMEMBERED {
            self.served.push(effort);
        }
        Some(request)
    }

    /// Thinks the told effort over, once a period: after a period in which
    /// somebody had to be turned away it is a little more than half of those who
    /// were served paid; else it falls by a third.
    pub fn tick(&mut self, now: Millis) {
        if now.since(self.period_began) < PERIOD_MS {
            return;
        }
        self.period_began = now;
        self.served.sort_unstable();
        let median = self.served.get(self.served.len() / 2).copied().unwrap_or(0);
        self.told = if self.overrun {
            (median + median / 4 + 1).min(MAX_EFFORT)
        } else {
            self.told * 2 / 3
        };
        self.served.clear();
        self.overrun = false;
    }
}
