//! The book's tables, tests, feelers and bytes.

use super::*;
use crate::places::NoAsnMap;
use peerproof_identity::Keypair;
use proptest::prelude::*;

fn peer(n: u32) -> PeerId {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&n.to_le_bytes());
    Keypair::from_seed(&seed).public().peer_id()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(text: &str, port: u16) -> Endpoint {
    Endpoint { ip: ip(text), port, carrier: Carrier::Quic }
}

/// A public address by its number.
fn public(n: u32) -> Endpoint {
    let [a, b, c, d] = n.to_be_bytes();
    at(&format!("{}.{b}.{c}.{d}", 11 + a % 80), 4001)
}

fn moment(s: u64) -> Moment {
    Moment { now: Millis(s * 1000), unix_s: 1_700_000_000 + s }
}

fn book_with(policy: Policy) -> AddressBook {
    AddressBook::new([7; 32], Chance::new([9; 32]), policy, Arc::new(NoAsnMap))
}

fn book() -> AddressBook {
    book_with(Policy::INTERNET)
}

#[test]
fn one_group_of_tellers_reaches_64_buckets_and_one_group_8_tried_ones() {
    let book = book();
    let (mut heard, mut tried) =
        (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for n in 0..20_000_u32 {
        heard.insert(book.new_slot(&public(n.wrapping_mul(65_537)), Group::V4([9, 9])).bucket());
        tried
            .insert(book.tried_slot(&at(&format!("8.8.{}.{}", n >> 8 & 255, n & 255), 1)).bucket());
    }
    assert!(heard.len() > 55 && heard.len() <= 64, "{}", heard.len());
    assert!(tried.len() <= 8, "{}", tried.len());
    // Another secret, other places.
    let other =
        AddressBook::new([8; 32], Chance::new([9; 32]), Policy::INTERNET, Arc::new(NoAsnMap));
    let moved = (0..100).filter(|n| other.tried_slot(&public(*n)) != book.tried_slot(&public(*n)));
    assert!(moved.count() > 95);
}

#[test]
fn a_slot_belongs_to_its_occupant_while_that_is_good() {
    let mut book = book();
    let flood: Vec<Intake> =
        (0..60_000).map(|n| book.take_in(public(n * 257), Group::V4([9, 9]), moment(0))).collect();
    let taken = flood.iter().filter(|intake| **intake == Intake::Taken).count();
    // However many one group tells, it fills its buckets and no more.
    assert!((3_000..=64 * 64).contains(&taken), "{taken}");
    assert_eq!(book.sizes(), (taken, 0));
    // What failed three times and never answered makes room; what was called just now waits.
    let (mine, home) = book.entries.iter().map(|(e, entry)| (*e, entry.home)).next().expect("some");
    for _ in 0..3 {
        book.failed(mine, moment(1));
    }
    assert!(!book.entries[&mine].is_spent(moment(2).unix_s));
    assert!(book.entries[&mine].is_spent(moment(100).unix_s));
    let rival = (0..u32::MAX).map(|n| public(n * 263 + 5)).find(|rival| {
        book.new_slot(rival, Group::V4([9, 9])) == home && !book.entries.contains_key(rival)
    });
    let rival = rival.expect("a rival for the slot");
    assert_eq!(book.take_in(rival, Group::V4([9, 9]), moment(2)), Intake::NoRoom);
    assert_eq!(book.take_in(rival, Group::V4([9, 9]), moment(100)), Intake::Taken);
    assert!(!book.entries.contains_key(&mine));
}

#[test]
fn a_teller_is_held_to_its_pace() {
    let (mut book, teller) = (book(), peer(1));
    let mut told = |n: u32, s| book.learn(public(n * 65_537), teller, ip("9.9.9.9"), moment(s));
    let first = (0..2_000).filter(|n| told(*n, 0) != Intake::TooMany).count();
    assert_eq!(first, 1_000);
    assert_eq!((2_000..2_100).filter(|n| told(*n, 100) != Intake::TooMany).count(), 10);
}

#[test]
fn a_host_has_two_endpoints_and_this_machine_as_many_as_it_likes() {
    let mut book = book_with(Policy { loopback: true, ..Policy::INTERNET });
    let mut told = |text: &str, port| book.take_in(at(text, port), Group::Local, moment(0));
    assert_eq!(told("8.8.8.8", 1), Intake::Taken);
    assert_eq!(told("8.8.8.8", 2), Intake::Taken);
    assert_eq!(told("8.8.8.8", 3), Intake::HostFull);
    assert_eq!(told("::ffff:8.8.8.8", 1), Intake::Known);
    let here = (1..50).filter(|port| told("127.0.0.1", *port) == Intake::Taken).count();
    assert!(here > 45, "{here}");
}

#[test]
fn what_cannot_be_reached_is_not_taken() {
    let mut book = book();
    for text in ["10.0.0.1", "127.0.0.1", "224.0.0.1", "0.0.0.0", "192.0.2.1", "fe80::1", "::1"] {
        let intake = book.learn(at(text, 1), peer(1), ip("9.9.9.9"), moment(0));
        assert_eq!(intake, Intake::Unwanted, "{text}");
    }
    assert_eq!(book.learn(at("8.8.8.8", 0), peer(1), ip("9.9.9.9"), moment(0)), Intake::Unwanted);
    assert_eq!(book.sizes(), (0, 0));
}

/// Two endpoints that want the same place of the second table.
fn rivals(book: &AddressBook) -> (Endpoint, Endpoint) {
    let first = public(1);
    let wants = book.tried_slot(&first);
    let second = (2..).map(|n| Endpoint {
        port: 4001,
        ..at(&format!("11.0.{}.{}", n >> 8 & 255, n & 255), 4001)
    });
    let mut rest = second.take(65_000).chain((1..9_000_000).map(|n| public(n * 101)));
    let second = rest.find(|other| *other != first && book.tried_slot(other) == wants);
    (first, second.expect("a rival"))
}

#[test]
fn an_occupant_is_called_before_it_gives_way() {
    for (answers, stays) in [(true, true), (false, false)] {
        let mut book = book();
        let (old, newer) = rivals(&book);
        book.connected(old, peer(1), moment(0));
        assert_eq!(book.sizes(), (0, 1));
        // A day later somebody else wants the place.
        let day = 86_400;
        book.connected(newer, peer(2), moment(day));
        assert_eq!(book.sizes(), (1, 1));
        let called = book.feeler(moment(day + 1)).expect("the occupant");
        assert_eq!((called.endpoint, called.tried), (old, true));
        if answers {
            book.connected(old, peer(1), moment(day + 2));
        } else {
            book.failed(old, moment(day + 2));
        }
        let _ = book.feeler(moment(day + 200));
        assert_eq!(book.entries[&old].home.is_tried(), stays);
        assert_eq!(book.entries[&newer].home.is_tried(), !stays);
        assert!(book.tests.is_empty());
    }
}

#[test]
fn a_fresh_occupant_stays_and_a_test_nobody_gets_to_ends() {
    let mut book = book();
    let (old, newer) = rivals(&book);
    book.connected(old, peer(1), moment(0));
    book.connected(newer, peer(2), moment(60));
    let _ = book.feeler(moment(61));
    assert!(book.tests.is_empty() && book.entries[&old].home.is_tried());
    book.connected(newer, peer(2), moment(5 * 3600));
    book.resolve_tests(moment(5 * 3600 + 60));
    assert_eq!(book.tests.len(), 1);
    book.resolve_tests(moment(6 * 3600));
    assert!(book.entries[&newer].home.is_tried() && !book.entries[&old].home.is_tried());
}

#[test]
fn feelers_keep_their_pause_and_turn_hearsay_into_knowledge() {
    let mut book = book();
    for n in 0..50 {
        book.seed(public(n * 65_537), moment(0));
    }
    let mut feelers = 0;
    for s in 0..3_600 {
        if let Some(pick) = book.feeler(moment(s)) {
            feelers += 1;
            assert!(!pick.tried);
            book.connected(pick.endpoint, peer(3), moment(s));
        }
    }
    assert_eq!(feelers, 30);
    assert_eq!(book.sizes(), (20, 30));
}

#[test]
fn outbound_calls_go_to_anchors_and_then_to_distinct_groups() {
    let mut book = book();
    for n in 0..200_u32 {
        // Half of everything is one group's.
        let endpoint = if n % 2 == 0 { at(&format!("8.8.{n}.1"), 1) } else { public(n << 16) };
        book.seed(endpoint, moment(0));
        book.connected(endpoint, peer(n), moment(0));
    }
    let anchors = [public(1 << 16), public(3 << 16), public(5 << 16)];
    book.set_anchors(&anchors);
    let picks = book.draw_outbound(10, moment(900));
    assert_eq!(picks.len(), 10);
    assert_eq!([picks[0].endpoint, picks[1].endpoint], anchors[..2]);
    assert_eq!(picks[0].peer, Some(peer(1)));
    let groups: std::collections::BTreeSet<Group> =
        picks.iter().map(|pick| book.group(pick.endpoint.ip)).collect();
    assert_eq!(groups.len(), 10);
}

#[test]
fn nobody_is_picked_from_an_empty_book() {
    let mut book = book();
    assert_eq!(book.pick(moment(0), &mut |_| true), None);
    assert_eq!(book.feeler(moment(0)), None);
    book.seed(public(1), moment(0));
    assert_eq!(book.pick(moment(0), &mut |_| false), None);
}

fn filled() -> AddressBook {
    let mut book = book();
    for n in 0..500_u32 {
        let carrier = if n % 2 == 0 { Carrier::Quic } else { Carrier::Tcp };
        let endpoint = match n % 5 {
            0 => Endpoint { carrier, ..at(&format!("2a00:{n:x}::1"), 4001) },
            _ => Endpoint { carrier, ..public(n * 65_537) },
        };
        book.take_in(endpoint, Group::V4([9, (n % 7) as u8]), moment(0));
        match n % 3 {
            0 => book.connected(endpoint, peer(n), moment(u64::from(n))),
            1 => book.failed(endpoint, moment(u64::from(n))),
            _ => {}
        }
    }
    book.set_anchors(&[public(3 * 65_537), at("2a00:5::1", 4001)]);
    book
}

fn read(bytes: &[u8]) -> Result<AddressBook, BookError> {
    AddressBook::from_bytes(bytes, Chance::new([1; 32]), Policy::INTERNET, Arc::new(NoAsnMap))
}

#[test]
fn a_written_book_reads_back() {
    let book = filled();
    let read = read(&book.to_bytes()).expect("a book");
    assert_eq!((read.sizes(), &read.entries), (book.sizes(), &book.entries));
    assert_eq!((read.anchors(), &read.hosts), (book.anchors(), &book.hosts));
    assert!(book.to_bytes().len() <= codec::MAX_BYTES);
    // On another network only what can be reached there is kept.
    let lan = AddressBook::from_bytes(
        &book.to_bytes(),
        Chance::new([1; 32]),
        Policy::LAN_ONLY,
        Arc::new(NoAsnMap),
    );
    assert_eq!(lan.expect("a book").sizes(), (0, 0));
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let mut book = book();
    book.connected(public(1), peer(1), moment(0));
    book.set_anchors(&[public(1)]);
    let bytes = book.to_bytes();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(read(&changed).is_err(), "{place}");
        assert!(read(&bytes[..place]).is_err(), "{place}");
    }
    assert!(matches!(read(&[0; 64]), Err(BookError::Magic)));
    let mut later = bytes.clone();
    later[7] = 2;
    assert!(matches!(read(&later), Err(BookError::Version { expected: 1, got: 2 })));
    assert!(matches!(read(&vec![0; codec::MAX_BYTES + 1]), Err(BookError::TooLong { .. })));
}

#[test]
fn fields_that_cannot_be_are_named_behind_a_right_checksum() {
    let mut book = book();
    book.connected(public(1), peer(1), moment(0));
    let bytes = book.to_bytes();
    let header = 6 + 2 + 32;
    let entry = header + 1 + 4;
    for (place, value, field) in [
        (header, 3, "number of anchors"),
        (entry + 18, 2, "transport"),
        (entry + 19, 2, "table"),
        (entry + 20, 9, "network group"),
        (entry + 25, 2, "key flag"),
        (entry + 25, 0, "key"),
    ] {
        let mut changed = bytes[..bytes.len() - 32].to_vec();
        changed[place] = value;
        let checksum = blake3::hash(&changed);
        changed.extend_from_slice(checksum.as_bytes());
        match read(&changed) {
            Err(BookError::Field { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let mut long = bytes[..bytes.len() - 32].to_vec();
    long[header + 1..header + 5].copy_from_slice(&u32::MAX.to_be_bytes());
    let checksum = blake3::hash(&long);
    long.extend_from_slice(checksum.as_bytes());
    assert!(matches!(read(&long), Err(BookError::Length { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), sealed in any::<bool>()) {
        let mut all = b"ppbook\0\x01".to_vec();
        all.extend_from_slice(&bytes);
        if sealed {
            let checksum = blake3::hash(&all);
            all.extend_from_slice(checksum.as_bytes());
        }
        let _ = read(&all);
        let _ = read(&bytes);
    }

    /// Whatever happens, tables, entries and hosts tell the same story.
    #[test]
    fn the_tables_and_the_entries_agree(steps in proptest::collection::vec((0..5_u8, 0..40_u32, 0..90_000_u64), 1..200)) {
        let mut book = book();
        let mut clock = 0;
        for (what, n, pause) in steps {
            clock += pause;
            let endpoint = public(((n % 40) << 14) | (n % 3));
            match what {
                0 | 1 => { book.take_in(endpoint, Group::V4([9, (n % 2) as u8]), moment(clock)); }
                2 => book.connected(endpoint, peer(n), moment(clock)),
                3 => book.failed(endpoint, moment(clock)),
                _ => { let _ = book.feeler(moment(clock)); }
            }
            let (new, tried) = book.sizes();
            prop_assert_eq!(new + tried, book.entries.len());
            prop_assert_eq!(book.hosts.values().sum::<usize>(), book.entries.len());
            for (endpoint, entry) in &book.entries {
                prop_assert_eq!(book.tables.at(entry.home), Some(*endpoint));
            }
        }
    }
}
