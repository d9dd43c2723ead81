//! Who gets a slot, who gives way, and who doesn't.

use super::*;
use crate::places::NoAsnMap;
use peerproof_identity::Keypair;

fn peer(n: u64) -> PeerId {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    Keypair::from_seed(&seed).public().peer_id()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An address of a group by number; `n` tells addresses of it apart.
fn of(group: u64, n: u64) -> IpAddr {
    IpAddr::from([20 + (group >> 8) as u8, group as u8, n as u8, (n >> 8) as u8])
}

fn slots(exempt: Exempt) -> Slots {
    Slots::new(Limits::default(), exempt, Arc::new(NoAsnMap), [5; 32])
}

fn come(slots: &mut Slots, id: u64, from: IpAddr, s: u64) -> Result<Place, Full> {
    slots.came(LinkId(id), peer(id), from, Millis(s * 1000))
}

#[test]
fn own_connections_are_in_distinct_groups() {
    let mut slots = slots(Exempt::default());
    for n in 0..8 {
        let from = of(n, 1);
        slots.opened(LinkId(n), Purpose::Outbound, peer(n), from, Millis(n)).expect("room");
        let again = slots.may_call(Purpose::Discovery, of(n, 2));
        assert!(matches!(again, Err(Full::Group { .. })), "{again:?}");
    }
    assert_eq!(slots.may_call(Purpose::Outbound, of(9, 1)), Err(Full::All { limit: 8 }));
    for n in 10..12 {
        slots.opened(LinkId(n), Purpose::Discovery, peer(n), of(n, 1), Millis(n)).expect("room");
    }
    assert_eq!(slots.may_call(Purpose::Discovery, of(13, 1)), Err(Full::All { limit: 2 }));
    assert_eq!(slots.concentration(), (3, 10));
    let anchors: Vec<PeerId> = slots.anchors(2).into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(anchors, [peer(0), peer(1)]);
    slots.closed(LinkId(3));
    assert_eq!(slots.may_call(Purpose::Outbound, of(3, 7)), Ok(()));
}

#[test]
fn a_host_and_a_subnet_have_their_shares() {
    let mut slots = slots(Exempt::default());
    for id in 0..4 {
        assert_eq!(come(&mut slots, id, ip("8.8.8.8"), id), Ok(Place::Free));
    }
    assert_eq!(come(&mut slots, 4, ip("8.8.8.8"), 4), Err(Full::Host { limit: 4 }));
    assert_eq!(slots.may_come(ip("::ffff:8.8.8.8")), Err(Full::Host { limit: 4 }));
    for id in 5..9 {
        assert_eq!(come(&mut slots, id, ip(&format!("8.8.8.{}", id + 20)), id), Ok(Place::Free));
    }
    assert_eq!(come(&mut slots, 9, ip("8.8.8.99"), 9), Err(Full::Subnet { limit: 8 }));
    assert_eq!(come(&mut slots, 10, ip("8.8.9.99"), 9), Ok(Place::Free));
    slots.closed(LinkId(0));
    assert_eq!(come(&mut slots, 11, ip("8.8.8.8"), 10), Ok(Place::Free));
}

#[test]
fn one_machine_and_one_home_are_exempt_by_choice_only() {
    let many = |exempt, text: &str| {
        let mut slots = slots(exempt);
        (0..60).filter(|id| come(&mut slots, *id, ip(text), 0).is_ok()).count()
    };
    assert_eq!(many(Exempt::default(), "127.0.0.1"), 4);
    assert_eq!(many(Exempt { loopback: true, private: false }, "127.0.0.1"), 60);
    assert_eq!(many(Exempt { loopback: true, private: false }, "192.168.1.2"), 4);
    assert_eq!(many(Exempt { loopback: true, private: true }, "192.168.1.2"), 60);
    let mut slots = slots(Exempt { loopback: true, private: true });
    for id in 0..8 {
        let to = ip("127.0.0.1");
        slots.opened(LinkId(id), Purpose::Outbound, peer(id), to, Millis(0)).expect("room");
    }
}

#[test]
fn a_quarter_waits_for_groups_that_were_never_here() {
    let mut slots = slots(Exempt::default());
    // One group, many subnets: it gets what is open, and no reserved place.
    let got =
        (0..200).filter(|id| matches!(come(&mut slots, *id, of(1, *id), *id), Ok(Place::Free)));
    assert_eq!(got.count(), 72);
    assert_eq!(come(&mut slots, 500, of(1, 250), 500), Err(Full::Reserved { limit: 24 }));
    for group in 2..26 {
        assert_eq!(come(&mut slots, 1000 + group, of(group, 1), 600), Ok(Place::Free));
    }
    assert_eq!(slots.count(Purpose::Inbound), 96);
    // From here on the large group gives way, to others and not to its own.
    let place = come(&mut slots, 2000, of(30, 1), 700).expect("a place");
    assert!(matches!(place, Place::Instead(LinkId(id)) if id < 200), "{place:?}");
    assert_eq!(come(&mut slots, 2001, of(1, 251), 701), Err(Full::All { limit: 96 }));
    assert_eq!(slots.count(Purpose::Inbound), 96);
}

#[test]
fn a_flood_from_many_groups_leaves_the_deserving_in_place() {
    let mut slots = slots(Exempt::default());
    for id in 0..40 {
        come(&mut slots, id, of(id, 1), id).expect("room");
        slots.measured(LinkId(id), if id < 8 { 5 } else { 80 });
        if (8..16).contains(&id) {
            slots.was_useful(LinkId(id), Millis(50_000));
        }
    }
    // An attacker with 256 groups comes again and again, from ever new hosts.
    let mut evicted = BTreeSet::new();
    for n in 0..5_000 {
        let id = 10_000 + n;
        if let Ok(Place::Instead(gone)) = come(&mut slots, id, of(1000 + n % 256, n / 256), 100 + n)
        {
            evicted.insert(gone);
            assert!(slots.count(Purpose::Inbound) <= 96);
        }
        slots.measured(LinkId(id), 60);
    }
    assert!(evicted.len() > 100, "{}", evicted.len());
    let honest_gone: Vec<u64> = evicted.iter().map(|id| id.0).filter(|id| *id < 40).collect();
    assert!(honest_gone.is_empty(), "{honest_gone:?}");
    assert!(slots.seen.len() <= MAX_SEEN);
}
