//! Jobs as state machines: who is asked, who answers, who is believed.
//!
//! - [`router::Job`]: one request from the first candidate to the outcome;
//! - [`provider::Desk`]: admission, frames, receipts, challenges;
//! - [`auditor::Bench`]: requests for verdicts;
//! - [`select`] and [`Reputation`]: whom to ask, by a record computed from this
//!   node's own log.
//!
//! Each machine is told what happened and says what is to be done; one `handle`
//! turns the one into the other. Time ([`Millis`]) and randomness ([`Entropy`])
//! come in as arguments, everything that is kept has a bound in [`limits`].
//!
//! Absent on purpose: sockets, clocks, disks, models, and every verification of
//! a hash or a proof. Whatever needs one is asked for by an event and answered
//! by an event.

pub mod auditor;
mod entropy;
pub mod limits;
#[cfg(all(feature = "planted-bugs", debug_assertions))]
pub mod planted;
#[cfg(not(all(feature = "planted-bugs", debug_assertions)))]
mod planted;
pub mod provider;
pub mod reputation;
pub mod router;
pub mod select;
mod text;
mod time;

pub use entropy::Entropy;
pub use reputation::{Fault, Reputation, Standing};
pub use select::Candidate;
pub use time::Millis;
