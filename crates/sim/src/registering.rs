//! Topics under attack: registrars that collude, ids ground next to a topic, and
//! floods of advertisements.
//!
//! Honest providers advertise one topic through the real machines of `discovery`
//! for ten minutes; then readers search for it. Hostile nodes say that they
//! registered what they dropped, and answer every search with ten of the
//! attacker's own advertisements, all signed. A reader has reached the topic when
//! it holds an honest provider's advertisement; it tries what it found in random
//! order, since only trying tells an attacker's from an honest one, and has the
//! search go on while nothing it found is any good.
//!
//! Nodes of each distance class are drawn at random from who is there, as lookups
//! would find them. Ground ids are drawn from a thousand times as many keys, the
//! nearest taken: real keys, a thousandth of the work of arbitrary nearness.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use peerproof_discovery::id::Key;
use peerproof_discovery::rates::{Act, Rates};
use peerproof_discovery::topics::advert::{Advert, Class, Offering, Query};
use peerproof_discovery::topics::client::{Advertiser, Classes, Search};
use peerproof_discovery::topics::registrar::{Answer, Registrar, Request};
use peerproof_discovery::topics::{F_RETURN, Topic};
use peerproof_discovery::{Chance, Millis};
use peerproof_identity::{Keypair, PeerId};

use crate::random::Random;

const NOW_S: u64 = 1_700_000_000;
const ADVERTISE_MS: u64 = 600_000;
/// Honest providers of the topic.
const PROVIDERS: u64 = 10;
/// The attacker's advertisements that hostile registrars hand out.
const FALSE_ADVERTS: u64 = 120;
/// Registrars a search awaits at once.
const PARALLEL: usize = 3;

/// Who is there and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: &'static str,
    /// Of a hundred nodes, so many are hostile.
    pub percent: u64,
    /// Hostile nodes with ids near the topic.
    pub ground: u64,
    /// Hostile advertisers that flood honest registrars, in 256 /24s.
    pub flood: u64,
}

/// The plans that are known.
pub const TOPIC_PLANS: [TopicPlan; 8] = [
    TopicPlan { name: "none", percent: 0, ground: 0, flood: 0 },
    TopicPlan { name: "random-10", percent: 10, ground: 0, flood: 0 },
    TopicPlan { name: "random-20", percent: 20, ground: 0, flood: 0 },
    TopicPlan { name: "random-30", percent: 30, ground: 0, flood: 0 },
    TopicPlan { name: "random-50", percent: 50, ground: 0, flood: 0 },
    TopicPlan { name: "ground-45", percent: 0, ground: 45, flood: 0 },
    TopicPlan { name: "ground-200", percent: 0, ground: 200, flood: 0 },
    TopicPlan { name: "flood-256", percent: 0, ground: 0, flood: 256 },
];

/// What came of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicRow {
    /// Searches in all.
    pub searches: u64,
    /// Those that held an honest provider when they first rested.
    pub at_rest: u64,
    /// Those that held one in the end.
    pub reached: u64,
    /// Registrars asked, of all searches.
    pub asked: u64,
    /// Advertisers tried until an honest one, of all that reached one.
    pub tried: u64,
    /// Honest registrars that held an honest advertisement when searching began.
    pub placed: u64,
}

struct Node {
    peer: PeerId,
    ip: IpAddr,
    /// None if it is hostile.
    registrar: Option<Registrar>,
}

struct Network {
    random: Random,
    topic: Topic,
    nodes: BTreeMap<PeerId, Node>,
    false_adverts: Vec<Advert>,
}

fn key(random: &mut Random) -> Keypair {
    let mut seed = [0; 32];
    for chunk in seed.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes());
    }
    Keypair::from_seed(&seed)
}

fn chance(random: &mut Random) -> Chance {
    Chance::new(*blake3::hash(&random.next().to_le_bytes()).as_bytes())
}

fn scattered(random: &mut Random) -> IpAddr {
    let [a, b, c, d, ..] = random.next().to_be_bytes();
    IpAddr::from([11 + a % 80, b, c, d])
}

/// An address in one of the attacker's 256 /24s.
fn crowded(random: &mut Random) -> IpAddr {
    let [subnet, host, ..] = random.next().to_be_bytes();
    IpAddr::from([92 + subnet % 4, subnet, 7, host])
}

fn advert(key: &Keypair, topic: Topic) -> Option<Advert> {
    let offering = Offering {
        model: [7; 32],
        name: "model".into(),
        class: Class::Exact,
        context_length: 2048,
        price: 0,
        region: None,
        endpoints: vec![],
    };
    Advert::sign(key, topic, offering, (NOW_S, NOW_S + 7200)).ok()
}

impl Network {
    fn new(plan: &TopicPlan, nodes: u64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let topic = Topic::of("model", &random.next().to_le_bytes());
        let mut all = BTreeMap::new();
        for n in 0..nodes {
            let (peer, ip) = (key(&mut random).public().peer_id(), scattered(&mut random));
            let hostile = n * 100 < nodes * plan.percent;
            let secret = *blake3::hash(&random.next().to_le_bytes()).as_bytes();
            let registrar = (!hostile).then(|| Registrar::new(secret, chance(&mut random), false));
            all.insert(peer, Node { peer, ip, registrar });
        }
        let mut near: Vec<PeerId> =
            (0..plan.ground * 1000).map(|_| key(&mut random).public().peer_id()).collect();
        near.sort_by_cached_key(|peer| topic.key().distance(&Key::of_peer(peer)));
        near.truncate(plan.ground as usize);
        for peer in near {
            all.insert(peer, Node { peer, ip: crowded(&mut random), registrar: None });
        }
        let hostile = plan.percent > 0 || plan.ground > 0;
        let false_adverts = (0..if hostile { FALSE_ADVERTS } else { 0 })
            .filter_map(|_| advert(&key(&mut random), topic))
            .collect();
        Self { random, topic, nodes: all, false_adverts }
    }

    /// Teaches whoever looks for nodes some of each class.
    fn teach(&mut self, classes: &mut Classes) {
        let mut all: Vec<(PeerId, IpAddr)> =
            self.nodes.values().map(|node| (node.peer, node.ip)).collect();
        for last in (1..all.len()).rev() {
            all.swap(last, self.random.below(last as u64 + 1) as usize);
        }
        all.into_iter().for_each(|(peer, ip)| {
            classes.learn(peer, Some(ip));
        });
    }

    fn advertise(&mut self, advertisers: &mut [(Advertiser, Advert, IpAddr)]) -> Millis {
        let mut now = Millis(0);
        loop {
            for (advertiser, advert, from) in advertisers.iter_mut() {
                for ask in advertiser.due(now) {
                    let request = Request {
                        topic: self.topic,
                        advert: advert.as_bytes(),
                        ticket: ask.ticket.as_deref(),
                        from: *from,
                    };
                    let node = self.nodes.get_mut(&ask.registrar);
                    match node.and_then(|node| node.registrar.as_mut()) {
                        // A hostile one says so and forgets it.
                        None => {
                            let lie = Answer::Registered { for_ms: u64::MAX };
                            advertiser.answered(&ask.registrar, lie, now);
                        }
                        Some(registrar) => match registrar.register(&request, now, NOW_S) {
                            Ok(answer) => advertiser.answered(&ask.registrar, answer, now),
                            Err(_) => advertiser.failed(&ask.registrar, true, now),
                        },
                    }
                }
            }
            let next = advertisers.iter().filter_map(|(a, ..)| a.next()).min();
            match next.filter(|next| next.0 < ADVERTISE_MS) {
                Some(next) => now = Millis(next.0.max(now.0 + 1)),
                None => return Millis(ADVERTISE_MS),
            }
        }
    }

    fn asked(&mut self, peer: &PeerId, now: Millis) -> Vec<Vec<u8>> {
        let registrar = self.nodes.get_mut(peer).and_then(|node| node.registrar.as_mut());
        let adverts = match registrar {
            Some(registrar) => registrar.answer(self.topic, &Query::default(), now),
            None => (0..F_RETURN)
                .filter_map(|_| {
                    let at = self.random.below(self.false_adverts.len() as u64) as usize;
                    self.false_adverts.get(at).cloned()
                })
                .collect(),
        };
        adverts.iter().map(|advert| advert.as_bytes().to_vec()).collect()
    }

    fn search(&mut self, honest: &[Advert], now: Millis, row: &mut TopicRow) {
        let mut classes = Classes::new(self.topic);
        self.teach(&mut classes);
        let mut search = Search::new(classes, Query::default(), chance(&mut self.random));
        row.searches += 1;
        let mut rested = false;
        let is_honest =
            |advert: &Advert| honest.iter().any(|h| h.publisher() == advert.publisher());
        loop {
            while !search.is_over() {
                for peer in search.due(PARALLEL) {
                    let adverts = self.asked(&peer, now);
                    search.answered(&peer, &adverts, NOW_S);
                }
            }
            let found = search.found().any(is_honest);
            row.at_rest += u64::from(found && !rested);
            rested = true;
            let before = search.calls().0;
            if found {
                row.reached += 1;
                let good = search.found().filter(|advert| is_honest(advert)).count() as u64;
                let all = search.found().count() as u64;
                // Tried in random order, without repetition.
                row.tried += (all + 1).div_ceil(good + 1);
                break;
            }
            search.go_on();
            let more = search.due(PARALLEL);
            if more.is_empty() && search.calls().0 == before {
                break;
            }
            for peer in more {
                let adverts = self.asked(&peer, now);
                search.answered(&peer, &adverts, NOW_S);
            }
        }
        row.asked += search.calls().0 as u64;
    }
}

/// Plays a plan in so many networks of so many nodes, with so many searches each.
#[must_use]
pub fn measure_topics(
    plan: &TopicPlan,
    (networks, nodes, searches): (u64, u64, u64),
    seed: u64,
) -> TopicRow {
    let mut row = TopicRow::default();
    for number in 0..networks {
        let mut network = Network::new(plan, nodes, seed.wrapping_add(number));
        let mut honest = Vec::new();
        let mut advertisers = Vec::new();
        for n in 0..PROVIDERS + plan.flood {
            let Some(advert) = advert(&key(&mut network.random), network.topic) else { continue };
            // The flood is first in line.
            let floods = n < plan.flood;
            let from =
                if floods { crowded(&mut network.random) } else { scattered(&mut network.random) };
            let mut advertiser = Advertiser::new(network.topic, chance(&mut network.random));
            network.teach(advertiser.classes());
            if !floods {
                honest.push(advert.clone());
            }
            advertisers.push((advertiser, advert, from));
        }
        let now = network.advertise(&mut advertisers);
        let topic = network.topic;
        for registrar in network.nodes.values_mut().filter_map(|node| node.registrar.as_mut()) {
            let held = registrar.answer(topic, &Query::default(), now);
            let any = held.iter().any(|a| honest.iter().any(|h| h.publisher() == a.publisher()));
            row.placed += u64::from(any);
        }
        for _ in 0..searches {
            network.search(&honest, now, &mut row);
        }
    }
    row
}

/// The rows as a table.
#[must_use]
pub fn topics_table(rows: &[(TopicPlan, TopicRow)]) -> String {
    let mut text = String::from(
        "plan         searches  at rest  reached  registrars asked  advertisers tried  holding registrars\n",
    );
    for (plan, row) in rows {
        let each = |total: u64| total as f64 / row.searches.max(1) as f64;
        let _ = writeln!(
            text,
            "{:12} {:8}  {:6.1}%  {:6.1}%  {:16.1}  {:17.1}  {:18}",
            plan.name,
            row.searches,
            100.0 * each(row.at_rest),
            100.0 * each(row.reached),
            each(row.asked),
            row.tried as f64 / row.reached.max(1) as f64,
            row.placed,
        );
    }
    text
}

/// What a flood of registrations does to an honest one at the same registrar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodRow {
    /// Requests of the flood.
    pub requests: u64,
    /// Those that rates let through.
    pub admitted: u64,
    /// Advertisements of the flood that were held in the end.
    pub held: u64,
    /// Milliseconds until the honest one was held, without the flood.
    pub calm_ms: u64,
    /// The same with it.
    pub flood_ms: u64,
}

/// So many registrations a second for so many seconds, from 256 /24s; an honest
/// stranger comes in the middle of it.
#[must_use]
pub fn measure_flood(per_second: u64, seconds: u64, seed: u64) -> FloodRow {
    let mut row = FloodRow {
        calm_ms: flooded(0, seconds, seed, &mut FloodRow::default()),
        ..FloodRow::default()
    };
    row.flood_ms = flooded(per_second, seconds, seed, &mut row);
    row
}

fn flooded(per_second: u64, seconds: u64, seed: u64, row: &mut FloodRow) -> u64 {
    let mut random = Random::new(seed);
    let topic = Topic::of("model", b"flooded");
    let mut registrar = Registrar::new([3; 32], chance(&mut random), false);
    let mut rates = Rates::new(false);
    let settled: Vec<(Advert, IpAddr)> = (0..30)
        .filter_map(|_| Some((advert(&key(&mut random), topic)?, scattered(&mut random))))
        .collect();
    for (advert, from) in &settled {
        persist(&mut registrar, (topic, advert, *from), 0, u64::MAX);
    }
    let begin = 900_000 / 2;
    let attackers: Vec<(PeerId, Advert, IpAddr)> = (0..1024)
        .filter_map(|_| {
            let key = key(&mut random);
            Some((key.public().peer_id(), advert(&key, topic)?, crowded(&mut random)))
        })
        .collect();
    let mut tickets: BTreeMap<usize, (u64, Vec<u8>)> = BTreeMap::new();
    let honest = advert(&key(&mut random), topic);
    let (from, comes) = (scattered(&mut random), begin + seconds * 500);
    let mut visit: Option<(u64, Option<Vec<u8>>)> = Some((comes, None));
    let mut held_after = u64::MAX;
    let mut at = begin;
    let step = 1000 / per_second.clamp(1, 1000);
    let burst = per_second.div_ceil(1000);
    while held_after == u64::MAX && at < begin + 2 * 900_000 {
        let flooding = per_second > 0 && at < begin + seconds * 1000;
        for _ in 0..if flooding { burst } else { 0 } {
            row.requests += 1;
            let who = random.below(attackers.len() as u64) as usize;
            let (peer, advert, from) = &attackers[who];
            if rates.admit(Act::Register, *peer, *from, Millis(at)).is_err() {
                continue;
            }
            row.admitted += 1;
            let ticket = tickets.get(&who).filter(|(due, _)| *due <= at).map(|(_, t)| t.clone());
            let request = Request {
                topic,
                advert: advert.as_bytes(),
                ticket: ticket.as_deref(),
                from: *from,
            };
            if let Ok(Answer::Wait { ticket, wait_ms }) =
                registrar.register(&request, Millis(at), NOW_S)
                && tickets.get(&who).is_none_or(|(due, _)| *due <= at)
            {
                tickets.insert(who, (at + wait_ms, ticket));
            }
        }
        if let (Some((due, ticket)), Some(honest)) = (&visit, &honest)
            && *due <= at
        {
            let request =
                Request { topic, advert: honest.as_bytes(), ticket: ticket.as_deref(), from };
            match registrar.register(&request, Millis(at), NOW_S) {
                Ok(Answer::Registered { .. }) => held_after = at - comes,
                Ok(Answer::Wait { ticket, wait_ms }) => visit = Some((at + wait_ms, Some(ticket))),
                Err(_) => visit = None,
            }
        }
        at += if flooding { step } else { 1 };
    }
    row.held = (registrar.len() as u64).saturating_sub(settled.len() as u64);
    held_after
}

/// Comes back as told until it is held.
fn persist(
    registrar: &mut Registrar,
    (topic, advert, from): (Topic, &Advert, IpAddr),
    mut at: u64,
    most: u64,
) {
    let mut ticket: Option<Vec<u8>> = None;
    while at < most {
        let request = Request { topic, advert: advert.as_bytes(), ticket: ticket.as_deref(), from };
        match registrar.register(&request, Millis(at), NOW_S) {
            Ok(Answer::Wait { ticket: next, wait_ms }) => {
                (ticket, at) = (Some(next), at + wait_ms);
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> TopicPlan {
        TOPIC_PLANS.into_iter().find(|plan| plan.name == name).expect("a plan")
    }

    #[test]
    fn a_third_of_liars_does_not_hide_a_topic() {
        let size = (1, 200, 4);
        let honest = measure_topics(&plan("none"), size, 1);
        assert_eq!((honest.at_rest, honest.reached), (4, 4), "{honest:?}");
        let lying = measure_topics(&plan("random-30"), size, 1);
        assert_eq!(lying.reached, 4, "{lying:?}");
        assert!(lying.tried > honest.tried, "{lying:?}");
        assert_eq!(lying, measure_topics(&plan("random-30"), size, 1));
    }

    #[test]
    fn a_flood_does_not_keep_a_stranger_out() {
        let row = measure_flood(1_000, 4, 1);
        assert!(row.requests >= 2_000 && row.calm_ms > 0, "{row:?}");
        assert!(row.flood_ms <= 2 * row.calm_ms + 2_000, "{row:?}");
    }
}
