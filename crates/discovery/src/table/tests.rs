//! Caps, eviction, and what a table gives out.

use super::*;
use crate::message::Address;
use peerproof_identity::Keypair;

fn own() -> Key {
    Key::of(b"own")
}

fn at(number: u32, ip: [u8; 4]) -> Arc<Located> {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    let peer = Keypair::from_seed(&seed).public().peer_id();
    Located::new(Contact { peer, addresses: vec![Address::quic(ip.into(), 4001)] })
}

/// Peers of one bucket, each of a /24 of its own.
fn of_bucket(bucket: usize, count: usize) -> Vec<Arc<Located>> {
    let ip = |number: u32| [20, (number >> 8) as u8, number as u8, 1];
    let all = (0..).map(|number| at(number, ip(number)));
    all.filter(|who| own().distance(who.key()).bucket() == Some(bucket)).take(count).collect()
}

#[test]
fn a_subnet_has_two_places_in_a_bucket_and_ten_in_a_table() {
    let mut table = Table::new(own());
    let mut entered = [0_usize; 4];
    for number in 0..200 {
        let who = at(number, [20, 0, 0, number as u8]);
        let bucket = own().distance(who.key()).bucket().expect("another");
        if table.enter(who, Millis(0)) == Entered::Yes && bucket < 4 {
            entered[bucket] += 1;
        }
    }
    assert_eq!(entered, [2, 2, 2, 2]);
    assert!(table.len() <= MAX_PER_SUBNET_IN_TABLE, "{}", table.len());
    for number in 200..2_000 {
        table.enter(at(number, [20, 0, 0, number as u8]), Millis(0));
    }
    assert_eq!(table.len(), MAX_PER_SUBNET_IN_TABLE);
    let crowded = at(5_000, [20, 0, 0, 9]);
    assert_eq!(table.consider(&crowded), Considered::Crowded);
    assert_eq!(table.consider(&at(5_000, [20, 0, 1, 9])), Considered::Probe);
}

#[test]
fn a_private_network_is_not_capped() {
    let mut table = Table::new(own());
    let entered = (0..100)
        .filter(|number| table.enter(at(*number, [127, 0, 0, 1]), Millis(0)) == Entered::Yes);
    assert!(entered.count() > 60);
}

#[test]
fn a_full_bucket_gives_way_only_where_its_oldest_fails() {
    let peers = of_bucket(0, BUCKET_PEERS + 2);
    let fill = || {
        let mut table = Table::new(own());
        for (at, who) in peers[..BUCKET_PEERS].iter().enumerate() {
            assert_eq!(table.enter(who.clone(), Millis(at as u64)), Entered::Yes);
        }
        table
    };
    let (newcomer, late) = (&peers[BUCKET_PEERS], &peers[BUCKET_PEERS + 1]);
    let has = |table: &Table, who: &Arc<Located>| table.peers().any(|peer| peer == who);

    let mut table = fill();
    assert_eq!(table.enter(newcomer.clone(), Millis(50)), Entered::Test(peers[0].clone()));
    assert_eq!(table.enter(late.clone(), Millis(51)), Entered::No);
    assert_eq!(table.consider(late), Considered::Full);
    table.seen(peers[0].key(), Millis(52));
    assert!(!has(&table, newcomer) && has(&table, &peers[0]));
    // The next test is of the one that is now seen least recently.
    assert_eq!(table.enter(late.clone(), Millis(53)), Entered::Test(peers[1].clone()));
    table.failed(peers[1].key(), Millis(54));
    assert!(has(&table, late) && !has(&table, &peers[1]));
    assert_eq!(table.len(), BUCKET_PEERS);
}

#[test]
fn a_peer_that_fails_once_stays_and_goes_after_more() {
    let mut table = Table::new(own());
    let who = at(1, [20, 0, 0, 1]);
    table.enter(who.clone(), Millis(0));
    for _ in 1..MAX_STRIKES {
        table.failed(who.key(), Millis(1));
        assert_eq!(table.len(), 1);
    }
    table.seen(who.key(), Millis(2));
    for _ in 0..MAX_STRIKES {
        assert_eq!(table.len(), 1);
        table.failed(who.key(), Millis(3));
    }
    assert!(table.is_empty() && table.groups.is_empty());
}

#[test]
fn closest_is_what_sorting_all_gives() {
    let mut table = Table::new(own());
    for number in 0..500_u32 {
        table.enter(at(number, [20, (number >> 8) as u8, number as u8, 1]), Millis(0));
    }
    let place = Key::of(b"place");
    let mut all: Vec<_> = table.peers().cloned().collect();
    all.sort_by_key(|who| who.key().distance(&place));
    assert_eq!(table.closest(&place, 20), all[..20]);
    assert_eq!(table.closest(&place, 10_000).len(), table.len());
}

#[test]
fn seeds_come_from_the_whole_table() {
    let mut table = Table::new(own());
    for number in 0..300_u32 {
        table.enter(at(number, [20, (number >> 8) as u8, number as u8, 1]), Millis(0));
    }
    let mut chance = Chance::new([1; 32]);
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let seeds = table.seeds(24, &mut chance);
        let keys: std::collections::BTreeSet<_> = seeds.iter().map(|who| *who.key()).collect();
        assert_eq!(keys.len(), 24);
        drawn.extend(keys);
    }
    assert_eq!(drawn.len(), table.len(), "every peer is drawn at times");
    assert_eq!(table.seeds(9_999, &mut chance).len(), table.len());
}

#[test]
fn a_stale_bucket_is_refreshed_by_a_place_of_its_own() {
    let mut table = Table::new(own());
    let mut chance = Chance::new([2; 32]);
    for who in of_bucket(2, 3) {
        table.enter(who, Millis(0));
    }
    assert_eq!(table.refresh(Millis(REFRESH_AFTER_MS - 1), &mut chance), None);
    let mut buckets = Vec::new();
    while let Some(place) = table.refresh(Millis(REFRESH_AFTER_MS), &mut chance) {
        buckets.push(own().distance(&place).bucket().expect("another place"));
    }
    assert_eq!(buckets, [0, 1, 2]);
    for bucket in [0, 7, 8, 100, BITS - 1] {
        let place = place_in(&own(), bucket, &mut chance);
        assert_eq!(own().distance(&place).bucket(), Some(bucket));
    }
}
