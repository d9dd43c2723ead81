//! Advertisements, tickets and waiting times, and finding through them.

use std::net::IpAddr;

use peerproof_identity::{Keypair, PeerId};
use proptest::prelude::*;

use super::advert::{Advert, AdvertError, Class, Offering, Query};
use super::client::{Advertiser, Classes, Search};
use super::registrar::{Answer, MAX_BOUNDS, Refusal, Registrar, Request, TICKET_BYTES};
use super::*;
use crate::addresses::{Carrier, Endpoint};
use crate::{Chance, Millis};

const NOW_S: u64 = 1_700_000_000;

fn key(n: u32) -> Keypair {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&n.to_le_bytes());
    Keypair::from_seed(&seed)
}

fn peer(n: u32) -> PeerId {
    key(n).public().peer_id()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An address unlike all others.
fn scattered(n: u32) -> IpAddr {
    let [a, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
    IpAddr::from([20 + a % 80, b, c, d])
}

fn topic() -> Topic {
    Topic::of("model", b"smollm2-135m")
}

fn offering() -> Offering {
    Offering {
        model: [7; 32],
        name: "SmolLM2-135M".into(),
        class: Class::Exact,
        context_length: 2048,
        price: 5,
        region: Some(*b"DE"),
        endpoints: vec![Endpoint { ip: ip("8.8.8.8"), port: 4001, carrier: Carrier::Quic }],
    }
}

fn advert_under(topic: Topic, n: u32) -> Advert {
    Advert::sign(&key(n), topic, offering(), (NOW_S, NOW_S + 7200)).expect("within limits")
}

fn advert(n: u32) -> Advert {
    advert_under(topic(), n)
}

fn registrar() -> Registrar {
    Registrar::new([3; 32], Chance::new([4; 32]), false)
}

/// Asks and comes back as told, until registered or tired; when that was.
fn persist(
    registrar: &mut Registrar,
    ad: &Advert,
    from: IpAddr,
    mut at: u64,
    most: u64,
) -> Option<u64> {
    let began = at;
    let mut ticket: Option<Vec<u8>> = None;
    while at - began <= most {
        let (topic, bytes) = (ad.topic(), ad.as_bytes());
        let request = Request { topic, advert: bytes, ticket: ticket.as_deref(), from };
        match registrar.register(&request, Millis(at), NOW_S).expect("no refusal") {
            Answer::Registered { .. } => return Some(at - began),
            Answer::Wait { ticket: next, wait_ms } => {
                ticket = Some(next);
                at += wait_ms;
            }
        }
    }
    None
}

/// A formula that puts nearly every node into one class fails here.
#[test]
fn classes_halve_towards_the_topic() {
    let mut seen = [0_usize; BUCKETS];
    for n in 0..(1_u32 << 17) {
        seen[topic().bucket(&Key::of(&n.to_le_bytes()))] += 1;
    }
    for (bucket, count) in seen.iter().enumerate() {
        let expected = f64::from(1 << 17) * 0.5_f64.powi((bucket as i32 + 1).min(15));
        let off = (*count as f64 - expected).abs();
        assert!(off < 6.0 * expected.sqrt() + 1.0, "{bucket}: {count}, expected {expected}");
    }
}

#[test]
fn an_advertisement_reads_back_and_fits() {
    let full = Offering {
        name: "n".repeat(64),
        endpoints: vec![offering().endpoints[0]; 4],
        ..offering()
    };
    let ad = Advert::sign(&key(1), topic(), full, (NOW_S, NOW_S + 7200)).expect("within limits");
    assert!(ad.as_bytes().len() <= 1000);
    assert_eq!(Advert::decode(topic(), ad.as_bytes()), Ok(ad.clone()));
    // Signed for one topic, it is nothing under another.
    let elsewhere = Advert::decode(Topic::of("tag", b"x"), ad.as_bytes());
    assert_eq!(elsewhere, Err(AdvertError::Topic));
    assert!(ad.check_time(NOW_S).is_ok() && ad.check_time(NOW_S + 7201).is_err());
    for place in 0..ad.as_bytes().len() {
        let mut changed = ad.as_bytes().to_vec();
        changed[place] ^= 1;
        assert!(Advert::decode(topic(), &changed).is_err(), "{place}");
    }
    let bad = [
        Offering { name: "n".repeat(65), ..offering() },
        Offering { name: "a\nb".into(), ..offering() },
        Offering { region: Some(*b"de"), ..offering() },
        Offering { endpoints: vec![offering().endpoints[0]; 5], ..offering() },
    ];
    for offering in bad {
        let signed = Advert::sign(&key(1), topic(), offering, (NOW_S, NOW_S + 1));
        assert!(matches!(signed, Err(AdvertError::Field { .. })), "{signed:?}");
    }
}

#[test]
fn a_query_leaves_out_what_does_not_suit() {
    let any = Query::default();
    let cases = [
        (any.clone(), true),
        (Query { model: Some([7; 32]), ..any.clone() }, true),
        (Query { model: Some([8; 32]), ..any.clone() }, false),
        (Query { name: Some("smolLM".into()), ..any.clone() }, true),
        (Query { name: Some("gemma".into()), ..any.clone() }, false),
        (Query { class: Some(Class::Statistical), ..any.clone() }, false),
        (Query { min_context: 2048, ..any.clone() }, true),
        (Query { min_context: 2049, ..any.clone() }, false),
        (Query { max_price: Some(5), ..any.clone() }, true),
        (Query { max_price: Some(4), ..any.clone() }, false),
        (Query { region: Some(*b"DE"), ..any.clone() }, true),
        (Query { region: Some(*b"FR"), ..any }, false),
    ];
    for (query, suits) in cases {
        assert_eq!(query.suits(&offering()), suits, "{query:?}");
    }
}

#[test]
fn a_lone_advertiser_is_in_at_once_and_out_after_its_time() {
    let mut registrar = registrar();
    assert_eq!(persist(&mut registrar, &advert(1), ip("8.8.8.8"), 0, 1000), Some(1));
    let found = registrar.answer(topic(), &Query::default(), Millis(10));
    assert_eq!(found, [advert(1)]);
    let other = Query { region: Some(*b"FR"), ..Query::default() };
    assert!(registrar.answer(topic(), &other, Millis(10)).is_empty());
    assert!(registrar.answer(Topic::of("tag", b"x"), &Query::default(), Millis(10)).is_empty());
    assert!(registrar.answer(topic(), &Query::default(), Millis(EXPIRY_MS + 1)).is_empty());
    assert!(registrar.is_empty());
}

#[test]
fn who_resembles_the_others_waits_and_a_stranger_does_not() {
    let mut registrar = registrar();
    for n in 0..40 {
        let waited =
            persist(&mut registrar, &advert(n), scattered(n), 1000 * u64::from(n), 900_000);
        assert!(waited.is_some_and(|ms| ms < 500_000), "{n}: {waited:?}");
    }
    let mut crowd = self::registrar();
    let mut neighbours = 0;
    for n in 0..40 {
        let from = ip(&format!("8.8.8.{n}"));
        neighbours += usize::from(persist(&mut crowd, &advert(n), from, 0, 100_000).is_some());
    }
    assert_eq!(neighbours, 1);
}

#[test]
fn a_ticket_is_good_here_for_this_advertisement_and_in_its_window() {
    let mut registrar = registrar();
    persist(&mut registrar, &advert(9), ip("9.9.9.9"), 0, 1000).expect("in");
    let (ad, from) = (advert(1), ip("9.9.9.8"));
    let first = Request { topic: topic(), advert: ad.as_bytes(), ticket: None, from };
    let Ok(Answer::Wait { ticket, wait_ms }) = registrar.register(&first, Millis(10), NOW_S) else {
        panic!("a neighbour waits");
    };
    assert!(wait_ms > 1000 && ticket.len() == TICKET_BYTES);
    let again = Request { ticket: Some(&ticket), ..first };
    let other = advert(2);
    for forged in [
        Request { advert: other.as_bytes(), ..again },
        Request { from: ip("9.9.9.7"), ..again },
        Request { topic: Topic::of("tag", b"x"), ..again },
        Request { ticket: Some(&ticket[1..]), ..again },
    ] {
        assert_eq!(registrar.register(&forged, Millis(10 + wait_ms), NOW_S), Err(Refusal::Ticket));
    }
    for place in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[place] ^= 1;
        let forged = Request { ticket: Some(&changed), ..again };
        assert_eq!(registrar.register(&forged, Millis(10 + wait_ms), NOW_S), Err(Refusal::Ticket));
    }
    // Early or late, it begins anew; in its window it is in.
    for at in [10 + wait_ms - 1, 10 + wait_ms + WINDOW_MS + 1] {
        let answer = registrar.register(&again, Millis(at), NOW_S);
        assert!(matches!(answer, Ok(Answer::Wait { .. })), "{answer:?}");
    }
    let answer = registrar.register(&again, Millis(10 + wait_ms + WINDOW_MS), NOW_S);
    assert_eq!(answer, Ok(Answer::Registered { for_ms: EXPIRY_MS }));
    let large = vec![0; 1001];
    let large = Request { advert: &large, ..first };
    assert!(matches!(registrar.register(&large, Millis(0), NOW_S), Err(Refusal::Size { .. })));
}

/// Whoever asks at every moment must not get in sooner than who asks once.
#[test]
fn asking_again_and_again_shortens_nothing() {
    let crowded = || {
        let mut registrar = registrar();
        for n in 0..8 {
            persist(&mut registrar, &advert(n), scattered(n), 100_000 * u64::from(n), 2_000_000);
        }
        assert!(registrar.len() >= 7, "{}", registrar.len());
        registrar
    };
    let (ad, from, began) = (advert(100), ip("8.8.8.8"), 880_000);
    let mut patient = crowded();
    persist(&mut patient, &advert(99), ip("8.8.8.9"), 860_000, 3_000_000);
    let first = Request { topic: topic(), advert: ad.as_bytes(), ticket: None, from };
    let told = |registrar: &mut Registrar, at| match registrar.register(&first, Millis(at), NOW_S) {
        Ok(Answer::Wait { wait_ms, .. }) => wait_ms,
        other => panic!("{other:?}"),
    };
    let mut greedy = crowded();
    let at_first = told(&mut greedy, began);
    // However the registrar empties meanwhile, what is told falls no faster than time passes.
    let mut last = (began, at_first);
    for at in (began..began + 800_000).step_by(5_000) {
        let now = told(&mut greedy, at);
        assert!(now + (at - last.0) + 2 >= last.1, "{at}: {now} after {last:?}");
        last = (at, now);
    }
}

#[test]
fn memory_is_bounded_under_a_flood() {
    let mut registrar = registrar();
    let ads: Vec<Advert> = (0..20).map(|n| advert_under(Topic::of("tag", &[n as u8]), n)).collect();
    for n in 0..30_000_u32 {
        let ad = &ads[n as usize % ads.len()];
        let topic = Topic::of("flood", &n.to_le_bytes());
        let request = Request { topic, advert: ad.as_bytes(), ticket: None, from: scattered(n) };
        let _ = registrar.register(&request, Millis(u64::from(n)), NOW_S);
        persist(&mut registrar, ad, scattered(n % 20), u64::from(n), 0);
    }
    let (topics, subnets) = registrar.bounds();
    assert!(topics <= MAX_BOUNDS && subnets <= MAX_BOUNDS, "{topics} {subnets}");
    assert!(registrar.len() <= CAPACITY);
}

/// Nodes of one network and their registrars.
struct Net {
    registrars: std::collections::BTreeMap<PeerId, Registrar>,
    ips: std::collections::BTreeMap<PeerId, IpAddr>,
}

impl Net {
    fn new(nodes: u32) -> Self {
        let named = (0..nodes).map(|n| (peer(10_000 + n), n));
        let registrars = named.clone().map(|(peer, _)| (peer, registrar())).collect();
        Self { registrars, ips: named.map(|(peer, n)| (peer, scattered(n))).collect() }
    }

    fn teach(&self, classes: &mut Classes) {
        for (peer, ip) in &self.ips {
            classes.learn(*peer, Some(*ip));
        }
    }
}

#[test]
fn what_is_advertised_is_found_by_its_signature() {
    let mut net = Net::new(400);
    let mut now = Millis(0);
    let ads: Vec<Advert> = (0..3).map(advert).collect();
    let mut advertisers: Vec<Advertiser> =
        (0..3).map(|n| Advertiser::new(topic(), Chance::new([n; 32]))).collect();
    advertisers.iter_mut().for_each(|advertiser| net.teach(advertiser.classes()));
    while now.0 < 600_000 {
        for (n, advertiser) in advertisers.iter_mut().enumerate() {
            for ask in advertiser.due(now) {
                let registrar = net.registrars.get_mut(&ask.registrar).expect("a node");
                let request = Request {
                    topic: topic(),
                    advert: ads[n].as_bytes(),
                    ticket: ask.ticket.as_deref(),
                    from: scattered(5_000 + n as u32),
                };
                let answer = registrar.register(&request, now, NOW_S).expect("no refusal");
                advertiser.answered(&ask.registrar, answer, now);
            }
        }
        let next = advertisers.iter().filter_map(Advertiser::next).min().expect("something");
        if next.0 >= 600_000 {
            break;
        }
        now = Millis(next.0.max(now.0 + 1));
    }
    // Five in each class that has nodes: 400 nodes fill about 9.
    let placed = advertisers.iter().map(|advertiser| advertiser.registered(now)).min();
    assert!(placed >= Some(30), "{placed:?}");

    let mut classes = Classes::new(topic());
    net.teach(&mut classes);
    let mut search = Search::new(classes, Query::default(), Chance::new([9; 32]));
    let mut liar_used = false;
    while !search.is_over() {
        for asked in search.due(3) {
            let registrar = net.registrars.get_mut(&asked).expect("a node");
            let found = registrar.answer(topic(), &Query::default(), now);
            let mut bytes: Vec<Vec<u8>> = found.iter().map(|ad| ad.as_bytes().to_vec()).collect();
            if !liar_used {
                liar_used = true;
                let mut forged = ads[0].as_bytes().to_vec();
                forged[10] ^= 1;
                bytes.push(forged);
            }
            search.answered(&asked, &bytes, NOW_S);
        }
    }
    assert_eq!(search.found().count(), 3);
    let (calls, lies) = search.calls();
    assert!(calls <= BUCKETS * K_LOOKUP && lies == 1, "{calls} {lies}");
    assert_eq!(search.answered(&peer(1), &[ads[0].as_bytes().to_vec()], NOW_S), 0);
}

#[test]
fn silent_and_refusing_registrars_are_replaced() {
    let mut advertiser = Advertiser::new(topic(), Chance::new([1; 32]));
    Net::new(100).teach(advertiser.classes());
    let first = advertiser.due(Millis(0));
    assert!(first.len() > 20 && advertiser.due(Millis(1)).is_empty());
    for ask in &first {
        advertiser.failed(&ask.registrar, true, Millis(2));
    }
    let second = advertiser.due(Millis(3));
    assert!(second.iter().all(|ask| !first.contains(ask)));
    for ask in &second {
        advertiser.failed(&ask.registrar, false, Millis(4));
    }
    let third = advertiser.due(Millis(5));
    assert!(third.is_empty(), "the silent are asked again first");
    assert_eq!(advertiser.next(), Some(Millis(60_004)));
    assert_eq!(advertiser.due(Millis(60_004)).len(), second.len());
}

#[test]
fn one_subnet_does_not_fill_a_class() {
    let mut classes = Classes::new(topic());
    for n in 0..2_000 {
        classes.learn(peer(n), Some(ip("8.8.8.8")));
    }
    for bucket in 0..BUCKETS {
        assert!(classes.held(bucket) <= client::CLASS_SUBNET_NODES);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Advert::decode(topic(), &bytes);
        let ticket = Request { topic: topic(), advert: &bytes, ticket: Some(&bytes), from: ip("8.8.8.8") };
        let _ = registrar().register(&ticket, Millis(0), NOW_S);
        let mut content = vec![1_u8];
        content.extend_from_slice(&bytes);
        let label = [b"ad".as_slice(), &topic().0].concat();
        let draft = crate::record::Draft { label: &label, sequence: 1, created_s: NOW_S, expires_s: NOW_S + 1 };
        if let Ok(record) = draft.sign(&key(1), &content) {
            let _ = Advert::decode(topic(), record.as_bytes());
        }
    }
}
