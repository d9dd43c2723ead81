//! Monotonic time as an argument.
//!
//! No state machine of this crate reads a clock. Whoever drives one says what
//! time it is, counted from any fixed moment that suits the driver; only
//! differences matter. All arithmetic saturates, so a driver with a wild clock
//! gets early or late timers, never a panic.

use std::fmt;

/// A moment, in milliseconds since an origin the driver chose. Never goes back.
///
/// ```
/// use peerproof_discovery::Millis;
///
/// let start = Millis(1_000);
/// assert_eq!(start.after(250), Millis(1_250));
/// assert_eq!(start.after(250).since(start), 250);
/// assert_eq!(start.since(start.after(250)), 0, "saturates");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
