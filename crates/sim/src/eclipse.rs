//! Whom a node connects to after a restart, when others have filled its address
//! book: table poisoning and slot hijack.
//!
//! An attacker has a share of all addresses, in 256 /24s of as many networks, and
//! is always up. Before anybody else it tells the node of its own endpoints, each
//! host under ever new ports, all of which answer, and of addresses that lead
//! nowhere, from tellers in all its networks. Then the node hears of everybody by gossip, tries
//! addresses out for a day, and connects; two of those connections are the anchors
//! of its restart. It is isolated if every connection it has after the restart is
//! the attacker's. Beside it the same is done with a plain list: everything heard
//! in one pool as large as the book, a newcomer takes a random place, calls go to
//! anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use peerproof_discovery::addresses::{AddressBook, Carrier, Endpoint, Moment};
use peerproof_discovery::places::{Group, NoAsnMap, Policy};
use peerproof_discovery::{Chance, Millis};
use peerproof_identity::{Keypair, PeerId};

use crate::random::Random;

/// Connections after a restart: those to take part, and those for lookups.
const OUTBOUND: usize =
    peerproof_discovery::slots::OUTBOUND + peerproof_discovery::slots::DISCOVERY;
/// Networks the attacker has a /24 in.
const SUBNETS: u64 = 256;
/// Places of the plain list: as many as the book has.
const LIST: usize = (1024 + 256) * 64;
/// Of a thousand honest hosts, so many are down at any moment.
const DOWN_PERMILLE: u64 = 200;

/// How large the test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EclipsePlan {
    /// Honest hosts.
    pub honest: u64,
    /// Of a hundred hosts, so many are the attacker's.
    pub percent: u64,
    /// Addresses that each of the attacker's networks tells.
    pub told: u64,
    /// Addresses the node tries out before.
    pub feelers: u64,
    /// Books that are made.
    pub worlds: u64,
    /// Restarts of each.
    pub restarts: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EclipseRow {
    /// Restarts in all.
    pub restarts: u64,
    /// Of those, after which every connection was the attacker's.
    pub isolated: u64,
    /// Connections that were the attacker's, in a thousand.
    pub hostile_permille: u64,
    /// Restarts after which the plain list was isolated.
    pub plain_isolated: u64,
    /// Its connections that were the attacker's, in a thousand.
    pub plain_hostile_permille: u64,
}

struct World {
    random: Random,
    honest: Vec<Endpoint>,
    hostile: BTreeSet<IpAddr>,
    up: BTreeMap<Endpoint, bool>,
    at: Moment,
}

fn public(random: &mut Random) -> IpAddr {
    let [a, b, c, d, ..] = random.next().to_be_bytes();
    IpAddr::from([11 + a % 80, b, c, d])
}

fn both(ip: IpAddr) -> [Endpoint; 2] {
    [Carrier::Quic, Carrier::Tcp].map(|carrier| Endpoint { ip, port: 4001, carrier })
}

fn teller(n: u64) -> PeerId {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    Keypair::from_seed(&seed).public().peer_id()
}

impl World {
    fn new(plan: &EclipsePlan, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let honest: Vec<Endpoint> =
            (0..plan.honest).flat_map(|_| both(public(&mut random))).collect();
        let hosts = plan.honest * plan.percent / (100 - plan.percent);
        let hostile = (0..hosts).map(|n| {
            let (subnet, host) = (n % SUBNETS, n / SUBNETS);
            own(subnet as u8, host as u8)
        });
        let hostile: BTreeSet<IpAddr> = hostile.collect();
        let up = honest.iter().map(|e| (*e, random.below(1000) >= DOWN_PERMILLE)).collect();
        let at = Moment { now: Millis(0), unix_s: 1_700_000_000 };
        Self { random, honest, hostile, up, at }
    }

    fn answers(&self, endpoint: &Endpoint) -> bool {
        self.hostile.contains(&endpoint.ip) || self.up.get(endpoint).copied().unwrap_or(false)
    }

    /// Everything that is told, in order: teller, where it is, address.
    fn gossip(&mut self, plan: &EclipsePlan) -> Vec<(u64, IpAddr, Endpoint)> {
        let mut told = Vec::new();
        let hostile: Vec<IpAddr> = self.hostile.iter().copied().collect();
        for network in 0..SUBNETS {
            let from = own(network as u8, 1);
            for n in 0..plan.told {
                let endpoint = match n % 2 {
                    0 => {
                        let ip = hostile[self.random.below(hostile.len() as u64) as usize];
                        let port = 1024 + self.random.below(60_000) as u16;
                        Endpoint { ip, port, carrier: Carrier::Quic }
                    }
                    _ => both(public(&mut self.random))[0],
                };
                told.push((network, from, endpoint));
            }
        }
        let mut all = self.honest.clone();
        all.extend(hostile.iter().flat_map(|ip| both(*ip)));
        for last in (1..all.len()).rev() {
            all.swap(last, self.random.below(last as u64 + 1) as usize);
        }
        for (n, endpoint) in all.into_iter().enumerate() {
            let n = n as u64 % 500;
            told.push((1000 + n, self.honest[(n as usize * 2) % self.honest.len()].ip, endpoint));
        }
        told
    }

    fn live(&mut self, book: &mut AddressBook, plan: &EclipsePlan, peer: PeerId) {
        for _ in 0..plan.feelers {
            self.at.now = self.at.now.after(120_000);
            self.at.unix_s += 120;
            let Some(pick) = book.feeler(self.at) else { continue };
            if self.answers(&pick.endpoint) {
                book.connected(pick.endpoint, peer, self.at);
            } else {
                book.failed(pick.endpoint, self.at);
            }
        }
        self.at.unix_s += 1200;
    }

    /// Connections after a restart with these anchors.
    fn connect(&mut self, book: &mut AddressBook, anchors: &[Endpoint]) -> Vec<Endpoint> {
        let group = |endpoint: &Endpoint| Group::of(endpoint.ip);
        let mut groups = BTreeSet::new();
        let mut called = BTreeSet::new();
        let mut connected: Vec<Endpoint> =
            anchors.iter().copied().filter(|anchor| self.answers(anchor)).collect();
        connected.retain(|anchor| groups.insert(group(anchor)));
        for _ in 0..2_000 {
            if connected.len() >= OUTBOUND {
                break;
            }
            let fresh = |e: &Endpoint| !groups.contains(&group(e)) && !called.contains(e);
            let Some(pick) = book.pick(self.at, &mut { fresh }) else { break };
            called.insert(pick.endpoint);
            if self.answers(&pick.endpoint) {
                groups.insert(group(&pick.endpoint));
                connected.push(pick.endpoint);
            }
        }
        connected
    }

    fn connect_plainly(&mut self, list: &[Endpoint]) -> Vec<Endpoint> {
        let mut connected = Vec::new();
        for _ in 0..20_000 {
            if connected.len() >= OUTBOUND || list.is_empty() {
                break;
            }
            let endpoint = list[self.random.below(list.len() as u64) as usize];
            if self.answers(&endpoint) && !connected.contains(&endpoint) {
                connected.push(endpoint);
            }
        }
        connected
    }

    fn hostile_of(&self, connected: &[Endpoint]) -> u64 {
        connected.iter().filter(|endpoint| self.hostile.contains(&endpoint.ip)).count() as u64
    }
}

/// A host of one of the attacker's /24s, each in a /16 of its own.
fn own(subnet: u8, host: u8) -> IpAddr {
    IpAddr::from([92 + subnet % 4, subnet, 7, host])
}

fn plain_list(told: &[(u64, IpAddr, Endpoint)], random: &mut Random) -> Vec<Endpoint> {
    let (mut list, mut known) = (Vec::new(), BTreeSet::new());
    for (_, _, endpoint) in told {
        if !known.insert(*endpoint) {
            continue;
        }
        if list.len() < LIST {
            list.push(*endpoint);
        } else {
            list[random.below(LIST as u64) as usize] = *endpoint;
        }
    }
    list
}

/// Plays the plan.
#[must_use]
pub fn measure_eclipse(plan: &EclipsePlan, seed: u64) -> EclipseRow {
    let mut row = EclipseRow::default();
    let (mut met, mut hostile, mut plain_met, mut plain_hostile) = (0, 0, 0, 0);
    let tellers: BTreeMap<u64, PeerId> =
        (0..SUBNETS).chain(1000..1500).map(|n| (n, teller(n))).collect();
    for number in 0..plan.worlds {
        let seed = seed.wrapping_add(number);
        let mut world = World::new(plan, seed);
        let secret = *blake3::hash(&seed.to_le_bytes()).as_bytes();
        let map = Arc::new(NoAsnMap);
        let mut book = AddressBook::new(secret, Chance::new(secret), Policy::INTERNET, map);
        let told = world.gossip(plan);
        for (number, from, endpoint) in &told {
            if let Some(teller) = tellers.get(number) {
                book.learn(*endpoint, *teller, *from, world.at);
            }
        }
        let list = plain_list(&told, &mut world.random);
        world.live(&mut book, plan, teller(0));
        for _ in 0..plan.restarts {
            let before = world.connect(&mut book, &[]);
            let after = world.connect(&mut book, &before[..before.len().min(2)]);
            let ours = world.hostile_of(&after);
            row.isolated += u64::from(!after.is_empty() && ours == after.len() as u64);
            (met, hostile) = (met + after.len() as u64, hostile + ours);
            let plain = world.connect_plainly(&list);
            let theirs = world.hostile_of(&plain);
            row.plain_isolated += u64::from(theirs == plain.len() as u64);
            (plain_met, plain_hostile) = (plain_met + plain.len() as u64, plain_hostile + theirs);
        }
        row.restarts += plan.restarts;
    }
    row.hostile_permille = (hostile * 1000).checked_div(met).unwrap_or(0);
    row.plain_hostile_permille = (plain_hostile * 1000).checked_div(plain_met).unwrap_or(0);
    row
}

/// The rows as a table.
#[must_use]
pub fn eclipse_table(rows: &[(EclipsePlan, EclipseRow)]) -> String {
    let mut text = String::from(
        "attacker  restarts  isolated  hostile connections  plain list: isolated  hostile\n",
    );
    for (plan, row) in rows {
        let _ = writeln!(
            text,
            "{:6} %  {:8}  {:8}  {:17} ‰  {:20}  {:5} ‰",
            plan.percent,
            row.restarts,
            row.isolated,
            row.hostile_permille,
            row.plain_isolated,
            row.plain_hostile_permille,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisoned_book_does_not_isolate() {
        let plan = EclipsePlan {
            honest: 1_500,
            percent: 30,
            told: 60,
            feelers: 250,
            worlds: 1,
            restarts: 400,
        };
        let row = measure_eclipse(&plan, 1);
        assert_eq!((row.restarts, row.isolated), (400, 0), "{row:?}");
        assert!((100..480).contains(&row.hostile_permille), "{row:?}");
        assert!(row.plain_hostile_permille > row.hostile_permille + 100, "{row:?}");
        assert_eq!(row, measure_eclipse(&plan, 1));
    }
}
