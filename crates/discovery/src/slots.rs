//! Connection slots: who keeps a connection when there are more who want one.
//!
//! Eight connections of our own choice and two that only serve lookups, each in
//! a [`Group`] of its own, so that whoever wants to surround this node has to be
//! chosen ten times in ten networks. Ninety-six connections for others, a
//! quarter of them reserved for groups that are not here yet, at most four a
//! host and eight a [`Subnet`]. When they are full the worst one gives way, and
//! who has earned its place cannot be the worst: the protected sets are chosen by
//! what is hard to fake at once (Bitcoin Core's `AttemptToEvictConnection`,
//! after Heilman et al. 2015).
//!
//! A machine is told of what happens and answers; it closes nothing itself.
//! [`Exempt`] says for which addresses the caps a host, subnet and group do not
//! count: on one machine, or behind one home router, all nodes share them, and
//! whoever exempts them says so.
//!
//! Absent on purpose: dialling, sockets, and the reputation of peers.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use peerproof_identity::PeerId;

use crate::Millis;
use crate::places::{AsnMap, Group, Host, Reach, group_by};
use crate::subnet::Subnet;

/// Connections this node opens to take part.
pub const OUTBOUND: usize = 8;
/// Connections this node opens for lookups only.
pub const DISCOVERY: usize = 2;
/// Connections others open.
pub const INBOUND: usize = 96;
/// Of those, connections that only a group that isn't here yet can get.
pub const RESERVED: usize = INBOUND / 4;
/// Inbound connections of one host.
pub const MAX_PER_HOST: usize = 4;
/// Inbound connections of one /24 or /48.
pub const MAX_PER_SUBNET: usize = 8;
/// Groups that have been here before and are remembered.
const MAX_SEEN: usize = 4096;
/// Inbound peers each protected set holds.
const PROTECTED: usize = 8;

/// Addresses for which the caps a host, subnet and group do not count. Totals
/// count everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exempt {
    /// All processes of this machine.
    pub loopback: bool,
    /// Machines of private networks.
    pub private: bool,
}

impl Exempt {
    /// Whether an address is free of them.
    #[must_use]
    pub fn covers(self, ip: IpAddr) -> bool {
        match Reach::of(ip) {
            Reach::Loopback => self.loopback,
            Reach::Private => self.private,
            Reach::Public | Reach::Nowhere => false,
        }
    }
}

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`OUTBOUND`].
    pub outbound: usize,
    /// See [`DISCOVERY`].
    pub discovery: usize,
    /// See [`INBOUND`].
    pub inbound: usize,
    /// See [`RESERVED`].
    pub reserved: usize,
    /// See [`MAX_PER_HOST`].
    pub per_host: usize,
    /// See [`MAX_PER_SUBNET`].
    pub per_subnet: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outbound: OUTBOUND,
            discovery: DISCOVERY,
            inbound: INBOUND,
            reserved: RESERVED,
            per_host: MAX_PER_HOST,
            per_subnet: MAX_PER_SUBNET,
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// This node opened it, to take part.
    Outbound,
    /// This node opened it, for lookups.
    Discovery,
    /// Another opened it.
    Inbound,
}

/// Names a connection; whoever drives the machine gives them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// As many as there may be.
    #[error("all {limit} connections of this kind are taken")]
    All {
        /// How many there may be.
        limit: usize,
    },
    /// This node has a connection of its own into this group.
    #[error("there is a connection into {group} already")]
    Group {
        /// Which.
        group: Group,
    },
    /// The host has its share.
    #[error("one host has all {limit} connections it may have")]
    Host {
        /// How many it may have.
        limit: usize,
    },
    /// The subnet has its share.
    #[error("one /24 or /48 has all {limit} connections it may have")]
    Subnet {
        /// How many it may have.
        limit: usize,
    },
    /// What is left is for groups that aren't here yet.
    #[error("the last {limit} places are for networks that aren't connected yet")]
    Reserved {
        /// How many are kept.
        limit: usize,
    },
}

#[derive(Clone, Debug)]
struct Link {
    peer: PeerId,
    ip: IpAddr,
    group: Group,
    purpose: Purpose,
    since: Millis,
    /// Whether its group was new here when it came.
    pioneer: bool,
    rtt_ms: Option<u64>,
    /// When it was last of use: an answer, a proof passed on, a job done.
    useful: Option<Millis>,
}

/// What becomes of somebody who came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// There is room.
    Free,
    /// There is, once this one has been closed.
    Instead(LinkId),
}

/// The slots.
pub struct Slots {
    limits: Limits,
    exempt: Exempt,
    asn: Arc<dyn AsnMap + Send + Sync>,
    secret: [u8; 32],
    links: BTreeMap<LinkId, Link>,
    seen: BTreeSet<Group>,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("links", &self.links.len()).finish()
    }
}

impl Slots {
    /// Empty. The secret decides which groups are protected, so that nobody can
    /// choose to be in one.
    #[must_use]
    pub fn new(
        limits: Limits,
        exempt: Exempt,
        asn: Arc<dyn AsnMap + Send + Sync>,
        secret: [u8; 32],
    ) -> Self {
        let (links, seen) = (BTreeMap::new(), BTreeSet::new());
        Self { limits, exempt, asn, secret, links, seen }
    }

    /// Connections of one kind.
    #[must_use]
    pub fn count(&self, purpose: Purpose) -> usize {
        self.of(purpose).count()
    }

    fn of(&self, purpose: Purpose) -> impl Iterator<Item = (&LinkId, &Link)> {
        self.links.iter().filter(move |(_, link)| link.purpose == purpose)
    }

    /// Whether this node may call there, for the purpose.
    ///
    /// # Errors
    /// [`Full`].
    pub fn may_call(&self, purpose: Purpose, ip: IpAddr) -> Result<(), Full> {
        let limit = match purpose {
            Purpose::Discovery => self.limits.discovery,
            _ => self.limits.outbound,
        };
        if self.count(purpose) >= limit {
            return Err(Full::All { limit });
        }
        let group = group_by(&*self.asn, ip);
        let own = self.links.values().filter(|link| link.purpose != Purpose::Inbound);
        if !self.exempt.covers(ip) && own.into_iter().any(|link| link.group == group) {
            return Err(Full::Group { group });
        }
        Ok(())
    }

    /// A connection that this node opened stands.
    ///
    /// # Errors
    /// [`Full`]: another call was faster; this one is to be closed.
    pub fn opened(
        &mut self,
        id: LinkId,
        purpose: Purpose,
        peer: PeerId,
        ip: IpAddr,
        now: Millis,
    ) -> Result<(), Full> {
        self.may_call(purpose, ip)?;
        self.add(id, purpose, peer, ip, now);
        Ok(())
    }

    /// Whether somebody may come, judged before anything is known of it but its
    /// address.
    ///
    /// # Errors
    /// [`Full`].
    pub fn may_come(&self, ip: IpAddr) -> Result<(), Full> {
        if self.exempt.covers(ip) {
            return Ok(());
        }
        let (host, subnet) = (Host::of(ip), Subnet::of(ip));
        let inbound = || self.of(Purpose::Inbound).map(|(_, link)| link.ip);
        let limit = self.limits.per_host;
        if inbound().filter(|other| Host::of(*other) == host).count() >= limit {
            return Err(Full::Host { limit });
        }
        let limit = self.limits.per_subnet;
        if inbound().filter(|other| Subnet::of(*other) == subnet).count() >= limit {
            return Err(Full::Subnet { limit });
        }
        Ok(())
    }

    /// A connection that another opened stands. It has a place, perhaps instead
    /// of another, which is then forgotten here and to be closed.
    ///
    /// # Errors
    /// [`Full`]: it is to be closed.
    pub fn came(
        &mut self,
        id: LinkId,
        peer: PeerId,
        ip: IpAddr,
        now: Millis,
    ) -> Result<Place, Full> {
        self.may_come(ip)?;
        let group = group_by(&*self.asn, ip);
        let (limits, taken) = (self.limits, self.count(Purpose::Inbound));
        let open = limits.inbound.saturating_sub(limits.reserved);
        let pioneer = self.is_new(group);
        let place = if taken < open || (pioneer && taken < limits.inbound) {
            Place::Free
        } else {
            let worst = self.worst(group).ok_or(if taken < limits.inbound {
                Full::Reserved { limit: limits.reserved }
            } else {
                Full::All { limit: limits.inbound }
            })?;
            self.links.remove(&worst);
            Place::Instead(worst)
        };
        self.add(id, Purpose::Inbound, peer, ip, now);
        if let Some(link) = self.links.get_mut(&id) {
            link.pioneer = pioneer;
        }
        Ok(place)
    }

    /// A group that was never here. When more have been here than are remembered,
    /// only those count as known that are connected.
    fn is_new(&self, group: Group) -> bool {
        let connected = self.links.values().any(|link| link.group == group);
        !connected && !self.seen.contains(&group)
    }

    fn add(&mut self, id: LinkId, purpose: Purpose, peer: PeerId, ip: IpAddr, now: Millis) {
        let group = group_by(&*self.asn, ip);
        if self.seen.len() < MAX_SEEN {
            self.seen.insert(group);
        }
        let (since, pioneer, rtt_ms, useful) = (now, false, None, None);
        let link = Link { peer, ip, group, purpose, since, pioneer, rtt_ms, useful };
        self.links.insert(id, link);
    }

    /// A connection ended.
    pub fn closed(&mut self, id: LinkId) {
        self.links.remove(&id);
    }

    /// The shortest round trip that was measured.
    pub fn measured(&mut self, id: LinkId, rtt_ms: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.rtt_ms = Some(link.rtt_ms.map_or(rtt_ms, |known| known.min(rtt_ms)));
        }
    }

    /// A connection was of use.
    pub fn was_useful(&mut self, id: LinkId, now: Millis) {
        if let Some(link) = self.links.get_mut(&id) {
            link.useful = Some(now);
        }
    }

    /// Who gives way to a newcomer, if anybody does: the youngest of the group
    /// that has most connections, once everybody who is protected is left out.
    /// Nobody gives way to one more of the largest group.
    fn worst(&self, newcomer: Group) -> Option<LinkId> {
        let mut left: Vec<(&LinkId, &Link)> = self.of(Purpose::Inbound).collect();
        // By a secret order of groups, by round trip, by use, by age: an attacker
        // who is better in one of them is not in the others.
        protect(&mut left, |(_, link)| {
            let mut hasher = blake3::Hasher::new_keyed(&self.secret);
            hasher.update(&link.group.to_bytes());
            *hasher.finalize().as_bytes()
        });
        protect(&mut left, |(_, link)| link.rtt_ms.unwrap_or(u64::MAX));
        protect(&mut left, |(_, link)| std::cmp::Reverse(link.useful));
        let pioneers = left.iter().filter(|(_, link)| link.pioneer).count().min(PROTECTED);
        left.sort_by_key(|(_, link)| (!link.pioneer, link.since));
        left.drain(..pioneers);
        left.sort_by_key(|(_, link)| link.since);
        left.drain(..left.len() / 2);
        let mut groups: BTreeMap<Group, (usize, Millis, LinkId)> = BTreeMap::new();
        for (id, link) in left {
            let worst = groups.entry(link.group).or_insert((0, link.since, *id));
            worst.0 += 1;
            if link.since >= worst.1 {
                (worst.1, worst.2) = (link.since, *id);
            }
        }
        let all =
            |group: &Group| self.of(Purpose::Inbound).filter(|(_, l)| l.group == *group).count();
        let (group, worst) =
            groups.iter().max_by_key(|(group, (count, since, _))| (*count, all(group), *since))?;
        let makes_it_worse = *group == newcomer || all(&newcomer) > all(group);
        (!makes_it_worse).then_some(worst.2)
    }

    /// Those that are connected longest by this node's own choice: to be called
    /// first after a restart.
    #[must_use]
    pub fn anchors(&self, count: usize) -> Vec<(PeerId, IpAddr)> {
        let mut own: Vec<&Link> = self.of(Purpose::Outbound).map(|(_, link)| link).collect();
        own.sort_by_key(|link| link.since);
        own.into_iter().take(count).map(|link| (link.peer, link.ip)).collect()
    }

    /// How concentrated this node's own connections are: how many of them the
    /// three largest groups have, of how many. More than half is a reason to warn.
    #[must_use]
    pub fn concentration(&self) -> (usize, usize) {
        let mut groups: BTreeMap<Group, usize> = BTreeMap::new();
        let own = self.links.values().filter(|link| link.purpose != Purpose::Inbound);
        own.for_each(|link| *groups.entry(link.group).or_default() += 1);
        let mut counts: Vec<usize> = groups.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        (counts.iter().take(3).sum(), counts.iter().sum())
    }
}

/// Leaves out the first few by some order.
fn protect<K: Ord>(left: &mut Vec<(&LinkId, &Link)>, by: impl FnMut(&(&LinkId, &Link)) -> K) {
    left.sort_by_cached_key(by);
    left.drain(..PROTECTED.min(left.len()));
}
