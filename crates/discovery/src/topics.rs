//! Who serves this model, this capability, this tag: advertisements at
//! registrars.
//!
//! A topic is a point of the key space. Advertisers place their advertisement at
//! five nodes of every distance class (16 of them, halving towards the topic),
//! whoever searches asks up to ten of every class, from far to near, until it has
//! thirty. Nobody who grinds identities next to a topic owns it: most classes are
//! whole halves, quarters, eighths of the network. A [`registrar`] takes an
//! advertisement after a waiting time that grows with how full it is, how much of
//! it the topic has, and how much the address resembles those that are in it, so
//! a flood waits and a lone honest advertiser does not. Method and parameters:
//! DISC-NG (2025) and its libp2p form, Logos specification 107.
//!
//! - [`advert`]: what an advertisement says, and queries that filter by it;
//! - [`registrar`]: admission, tickets, waiting times, answers;
//! - [`client`]: where to advertise, and whom to ask.
//!
//! Absent on purpose: finding nodes of a distance class (lookups do), sockets and
//! clocks.

pub mod advert;
pub mod client;
pub mod registrar;
mod similarity;
#[cfg(test)]
mod tests;

use crate::id::Key;

/// Distance classes.
pub const BUCKETS: usize = 16;
/// Registrars of each class that hold an advertisement.
pub const K_REGISTER: usize = 5;
/// Registrars of each class that a search asks.
pub const K_LOOKUP: usize = 10;
/// Advertisers after which a search is content.
pub const F_LOOKUP: usize = 30;
/// Advertisements in one answer.
pub const F_RETURN: usize = 10;
/// Life of an advertisement at a registrar.
pub const EXPIRY_MS: u64 = 900_000;
/// Advertisements a registrar holds.
pub const CAPACITY: usize = 1_000;
/// How steeply waiting grows with occupancy.
pub const P_OCC: i32 = 10;
/// What everybody waits a share of, so that no waiting time is zero.
pub const G: f64 = 1e-7;
/// How long after its waiting time a ticket is good.
pub const WINDOW_MS: u64 = 1_000;

/// What advertisements are found under.
///
/// ```
/// use peerproof_discovery::topics::Topic;
///
/// assert_eq!(Topic::of("model", b"7f3a"), Topic::of("model", b"7f3a"));
/// assert_ne!(Topic::of("model", b"7f3a"), Topic::of("tag", b"7f3a"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(pub [u8; 32]);

impl Topic {
    /// The topic of a name of some kind: `model`, `capability`, `tag`.
    #[must_use]
    pub fn of(kind: &str, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("peerproof discovery topic v1");
        hasher.update(&(kind.len() as u64).to_le_bytes()).update(kind.as_bytes()).update(name);
        Self(*hasher.finalize().as_bytes())
    }

    /// Its point of the key space.
    #[must_use]
    pub const fn key(&self) -> Key {
        Key::from_bytes(self.0)
    }

    /// The distance class of a node: common leading bits, the last class taking
    /// all that is nearer.
    #[must_use]
    pub fn bucket(&self, node: &Key) -> usize {
        self.key().distance(node).leading_zeros().min(BUCKETS - 1)
    }
}
