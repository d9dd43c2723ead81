//! The one place where this crate reads clocks for the state machines below.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerproof_job::Millis;
use tokio::time::Instant;

/// A monotonic origin shared by all machines of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// Milliseconds since the origin; the wall clock has no say in it.
    pub(crate) fn now(self) -> Millis {
        Millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When a moment of [`Clock::now`] comes; never further than a day away.
    pub(crate) fn instant(self, at: Millis) -> Instant {
        const DAY_MS: u64 = 86_400_000;
        let wait = at.since(self.now()).min(DAY_MS);
        Instant::now() + Duration::from_millis(wait)
    }

    /// Milliseconds of the wall clock, for statements that people read.
    pub(crate) fn unix_ms(self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
