//! A cap on bytes a second, shared by everybody who moves some.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time that may be saved up while nothing moves.
const SLACK: Duration = Duration::from_millis(100);

/// Whoever moves bytes takes them here first, and waits its turn.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_s: Option<u64>,
    /// When everything taken so far has moved.
    free: Mutex<Instant>,
}

impl Pace {
    /// `None` is no cap.
    pub(super) fn new(bytes_per_s: Option<u64>) -> Pace {
        Pace { bytes_per_s: bytes_per_s.filter(|rate| *rate > 0), free: Mutex::new(Instant::now()) }
    }

    pub(super) async fn take(&self, bytes: u64) {
        if let Some(until) = self.reserve(bytes, Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// When bytes that are taken now may move.
    fn reserve(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_s?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*free).max(now.checked_sub(SLACK).unwrap_or(now));
        let micros = bytes.saturating_mul(1_000_000) / rate;
        *free = start + Duration::from_micros(micros);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_adds_up_to_the_rate() {
        let pace = Pace::new(Some(1000));
        // Long after it was made.
        let now = Instant::now() + Duration::from_secs(1);
        assert!(pace.reserve(500, now).is_some_and(|at| at <= now));
        assert_eq!(pace.reserve(500, now), Some(now - SLACK + Duration::from_millis(500)));
        assert_eq!(pace.reserve(1, now), Some(now - SLACK + Duration::from_secs(1)));
        // A pause is not saved up, but for the slack.
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.reserve(500, later), Some(later - SLACK));
        assert_eq!(Pace::new(None).reserve(1 << 40, now), None);
        assert_eq!(Pace::new(Some(0)).reserve(1 << 40, now), None);
    }
}
