//! A registrar: who gets in, after how long, and what is answered.
//!
//! Waiting time = E · (1 − c/C)^−P_occ · (topic share + address similarity + G),
//! at most E. Who asks gets a ticket that says since when it has been waiting;
//! the registrar keeps nothing of it but the secret that seals tickets. When a
//! ticket comes back in its window, the waiting time is worked out anew and what
//! was waited counts towards it; once it covers it, the advertisement is verified
//! and taken.
//!
//! Waiting times have a lower bound, as in DISC-NG: what a topic and an address
//! had to wait once they have to wait for as long as that takes, less the time
//! that has passed. Otherwise whoever asks again and again gets the shortest
//! answer of all the moments at which advertisements have just expired.
//!
//! In order, cheap first: size, (rate and puzzle, by the caller,) ticket, waiting
//! time, signature. Memory is bounded by [`super::CAPACITY`] advertisements and
//! [`MAX_BOUNDS`] bounds.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use peerproof_identity::PublicKey;

use super::advert::{Advert, AdvertError, Query};
use super::similarity::Similarity;
use super::{CAPACITY, EXPIRY_MS, F_RETURN, G, P_OCC, Topic, WINDOW_MS};
use crate::limits::MAX_RECORD_BYTES;
use crate::places::{Host, Reach};
use crate::subnet::Subnet;
use crate::{Chance, Millis};

/// Topics, and subnets, whose lower bound is remembered.
pub const MAX_BOUNDS: usize = 4096;
/// Bytes of a ticket.
pub const TICKET_BYTES: usize = 8 + 8 + 8 + 32;

/// What becomes of a request to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is registered, for so many milliseconds.
    Registered {
        /// Until it ends.
        for_ms: u64,
    },
    /// It is to come back with this ticket after so long, and no later than
    /// [`WINDOW_MS`] after that.
    Wait {
        /// Sealed by the registrar.
        ticket: Vec<u8>,
        /// Until then.
        wait_ms: u64,
    },
}

/// Why a request is refused; nothing is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Too many bytes.
    #[error("an advertisement has at most {limit} bytes, got {got}")]
    Size {
        /// The most.
        limit: usize,
        /// How many came.
        got: usize,
    },
    /// The ticket was not sealed here, for this advertisement and address.
    #[error("the ticket is not one of this registrar for this advertisement and address")]
    Ticket,
    /// No advertisement, not signed, or over.
    #[error(transparent)]
    Advert(#[from] AdvertError),
}

/// A request to be registered.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Under which topic.
    pub topic: Topic,
    /// The advertisement.
    pub advert: &'a [u8],
    /// The ticket of the last answer, if this is not the first.
    pub ticket: Option<&'a [u8]>,
    /// Where the request comes from.
    pub from: IpAddr,
}

struct Held {
    advert: Advert,
    from: IpAddr,
    until: Millis,
}

/// When an advertisement ends, and which.
type End = (Millis, Topic, PublicKey);

/// A waiting time that was told, and when.
#[derive(Clone, Copy, Debug)]
struct Bound {
    wait_ms: f64,
    at: Millis,
}

impl Bound {
    fn left(self, now: Millis) -> f64 {
        self.wait_ms - now.since(self.at) as f64
    }
}

struct Ticket {
    /// When its holder first asked.
    since: Millis,
    /// When it was sealed.
    sealed: Millis,
    wait_ms: u64,
}

/// The registrar's state.
pub struct Registrar {
    secret: [u8; 32],
    chance: Chance,
    /// Loopback and private addresses resemble nobody: on one machine and in one
    /// home all are neighbours.
    exempt_near: bool,
    held: BTreeMap<Topic, BTreeMap<PublicKey, Held>>,
    /// Every advertisement that is held, first to end first.
    ends: VecDeque<End>,
    similarity: Similarity,
    topic_bounds: BTreeMap<Topic, Bound>,
    subnet_bounds: BTreeMap<Subnet, Bound>,
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registrar").field("held", &self.len()).finish()
    }
}

impl Registrar {
    /// Empty, with a secret to seal tickets with.
    #[must_use]
    pub fn new(secret: [u8; 32], chance: Chance, exempt_near: bool) -> Self {
        Self {
            secret,
            chance,
            exempt_near,
            held: BTreeMap::new(),
            ends: VecDeque::new(),
            similarity: Similarity::default(),
            topic_bounds: BTreeMap::new(),
            subnet_bounds: BTreeMap::new(),
        }
    }

    /// Advertisements that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Somebody wants to be registered.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn register(
        &mut self,
        request: &Request<'_>,
        now: Millis,
        unix_s: u64,
    ) -> Result<Answer, Refusal> {
        let (limit, got) = (MAX_RECORD_BYTES, request.advert.len());
        if got > limit {
            return Err(Refusal::Size { limit, got });
        }
        let ticket = request.ticket.map(|bytes| self.open(bytes, request)).transpose()?;
        // Too early and too late both begin anew.
        let ticket = ticket.filter(|ticket| {
            let waited = now.since(ticket.sealed);
            (ticket.wait_ms..=ticket.wait_ms.saturating_add(WINDOW_MS)).contains(&waited)
        });
        self.expire(now);
        let since = ticket.as_ref().map_or(now, |ticket| ticket.since);
        let wait_ms = self.waiting_ms(request, now);
        let left = wait_ms - now.since(since) as f64;
        let full = self.len() >= CAPACITY;
        if ticket.is_none() || left > 0.0 || full {
            let mut wait_ms = left.clamp(1.0, EXPIRY_MS as f64) as u64;
            if full {
                let first = self.ends.front().map_or(now, |(until, _, _)| *until);
                wait_ms = wait_ms.max(first.since(now)).max(1);
            }
            let ticket = self.seal(&Ticket { since, sealed: now, wait_ms }, request);
            return Ok(Answer::Wait { ticket, wait_ms });
        }
        self.take(request, now, unix_s)
    }

    fn take(&mut self, request: &Request<'_>, now: Millis, unix_s: u64) -> Result<Answer, Refusal> {
        let advert = Advert::decode(request.topic, request.advert)?;
        advert.check_time(unix_s)?;
        let (publisher, until) = (advert.publisher(), now.after(EXPIRY_MS));
        let topic = self.held.entry(request.topic).or_default();
        if let Some(held) = topic.get(&publisher) {
            // One place a publisher and topic; it ends when it ends.
            return Ok(Answer::Registered { for_ms: held.until.since(now) });
        }
        topic.insert(publisher, Held { advert, from: request.from, until });
        self.ends.push_back((until, request.topic, publisher));
        if !self.is_exempt(request.from) {
            self.similarity.add(request.from);
        }
        Ok(Answer::Registered { for_ms: EXPIRY_MS })
    }

    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.exempt_near && matches!(Reach::of(ip), Reach::Loopback | Reach::Private)
    }

    fn expire(&mut self, now: Millis) {
        while let Some((_, topic, publisher)) =
            self.ends.pop_front_if(|(until, _, _)| *until <= now)
        {
            let Some(held) = self.held.get_mut(&topic) else { continue };
            let gone = held.remove(&publisher);
            if held.is_empty() {
                self.held.remove(&topic);
            }
            if let Some(from) = gone.map(|gone| gone.from).filter(|from| !self.is_exempt(*from)) {
                self.similarity.remove(from);
            }
        }
    }

    /// The waiting time of this topic and address now, which becomes the bound of
    /// what they are told next.
    fn waiting_ms(&mut self, request: &Request<'_>, now: Millis) -> f64 {
        let (expiry, capacity) = (EXPIRY_MS as f64, CAPACITY as f64);
        let free = 1.0 - self.len() as f64 / capacity;
        let crowding = if free <= 0.0 { f64::INFINITY } else { expiry * free.powi(-P_OCC) };
        let share = self.held.get(&request.topic).map_or(0, BTreeMap::len) as f64 / capacity;
        let near = self.is_exempt(request.from);
        let alike = if near { 0.0 } else { self.similarity.score(request.from) };
        let subnet = Subnet::of(request.from);
        let by_topic =
            bounded(&mut self.topic_bounds, request.topic, (crowding * share).min(expiry), now);
        let by_address = if near {
            0.0
        } else {
            bounded(&mut self.subnet_bounds, subnet, (crowding * alike).min(expiry), now)
        };
        (by_topic + by_address + crowding * G).min(expiry)
    }

    /// Advertisements of a topic that suit a query, by chance, at most
    /// [`F_RETURN`].
    pub fn answer(&mut self, topic: Topic, query: &Query, now: Millis) -> Vec<Advert> {
        self.expire(now);
        let held = self.held.get(&topic).into_iter().flat_map(BTreeMap::values);
        let mut suiting: Vec<Advert> =
            held.map(|held| &held.advert).filter(|advert| query.admits(advert)).cloned().collect();
        self.chance.shuffle(&mut suiting);
        suiting.truncate(F_RETURN);
        suiting
    }

    fn mark(&self, head: &[u8], request: &Request<'_>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(head).update(&request.topic.0);
        hasher.update(blake3::hash(request.advert).as_bytes());
        hasher.update(format!("{:?}", Host::of(request.from)).as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn seal(&self, ticket: &Ticket, request: &Request<'_>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TICKET_BYTES);
        for number in [ticket.since.0, ticket.sealed.0, ticket.wait_ms] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let mark = self.mark(&bytes, request);
        bytes.extend_from_slice(&mark);
        bytes
    }

    fn open(&self, bytes: &[u8], request: &Request<'_>) -> Result<Ticket, Refusal> {
        let (head, mark) = bytes.split_last_chunk::<32>().ok_or(Refusal::Ticket)?;
        if head.len() + 32 != TICKET_BYTES {
            return Err(Refusal::Ticket);
        }
        // `blake3::Hash` compares in constant time.
        if blake3::Hash::from_bytes(self.mark(head, request)) != blake3::Hash::from_bytes(*mark) {
            return Err(Refusal::Ticket);
        }
        let number = |at: usize| {
            let chunk = head.get(at..).and_then(|rest| rest.first_chunk::<8>());
            chunk.map(|chunk| u64::from_be_bytes(*chunk)).ok_or(Refusal::Ticket)
        };
        let (since, sealed) = (Millis(number(0)?), Millis(number(8)?));
        Ok(Ticket { since, sealed, wait_ms: number(16)? })
    }

    #[cfg(test)]
    pub(super) fn bounds(&self) -> (usize, usize) {
        (self.topic_bounds.len(), self.subnet_bounds.len())
    }
}

/// The larger of what is worked out and what is left of what was told, which is
/// what is told next.
fn bounded<K: Ord + Copy>(
    bounds: &mut BTreeMap<K, Bound>,
    key: K,
    wait_ms: f64,
    now: Millis,
) -> f64 {
    let left = bounds.get(&key).map_or(0.0, |bound| bound.left(now));
    let wait_ms = wait_ms.max(left);
    if wait_ms <= 0.0 {
        bounds.remove(&key);
        return 0.0;
    }
    if bounds.len() >= MAX_BOUNDS && !bounds.contains_key(&key) {
        bounds.retain(|_, bound| bound.left(now) > 0.0);
        if bounds.len() >= MAX_BOUNDS {
            let least = bounds.iter().min_by(|a, b| a.1.left(now).total_cmp(&b.1.left(now)));
            if let Some(least) = least.map(|(key, _)| *key) {
                bounds.remove(&least);
            }
        }
    }
    bounds.insert(key, Bound { wait_ms, at: now });
    wait_ms
}
