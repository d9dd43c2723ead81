//! Paths, and what liars make of them.

use super::*;
use crate::message::{Address, Contact};
use peerproof_identity::Keypair;

fn peer(number: u16) -> Arc<Located> {
    let mut seed = [4; 32];
    seed[..2].copy_from_slice(&number.to_le_bytes());
    let peer = Keypair::from_seed(&seed).public().peer_id();
    Located::new(Contact { peer, addresses: vec![Address::quic([20, 0, 0, 1].into(), 1)] })
}

fn sorted(count: u16, point: &Key) -> Vec<Arc<Located>> {
    let mut all: Vec<_> = (0..count).map(peer).collect();
    all.sort_by_key(|who| who.key().distance(point));
    all
}

fn point() -> Key {
    Key::of(b"point")
}

#[test]
fn no_peer_is_asked_by_two_paths() {
    let all = sorted(400, &point());
    let seeds: Vec<_> = all[100..132].to_vec();
    let mut walk = Walk::new(vec![point(); 8], seeds, Millis(0));
    let (mut asked, mut total) = (BTreeSet::new(), Vec::new());
    while !walk.is_over(Millis(1)) {
        for (at, who) in walk.poll(&mut asked, Millis(1)) {
            total.push(*who.key());
            walk.answered(at, &who, &all[..20], &asked);
        }
    }
    let distinct: BTreeSet<_> = total.iter().collect();
    assert_eq!(distinct.len(), total.len());
    let answered: usize = walk.reports().map(|report| report.answered.len()).sum();
    assert_eq!(answered, total.len());
    assert!(walk.reports().all(|report| report.calls > 0));
}

#[test]
fn one_path_has_one_question_in_flight() {
    let all = sorted(50, &point());
    let mut walk = Walk::new(vec![point(); 2], all[..8].to_vec(), Millis(0));
    let mut asked = BTreeSet::new();
    assert_eq!(walk.poll(&mut asked, Millis(0)).len(), 2);
    assert_eq!(walk.poll(&mut asked, Millis(0)).len(), 0);
    walk.failed(0);
    let next = walk.poll(&mut asked, Millis(0));
    assert_eq!(next.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0]);
}

#[test]
fn an_answer_gives_at_most_one_peer_a_bucket_and_only_closer_ones() {
    let all = sorted(400, &point());
    let from = all[60].clone();
    let mut walk = Walk::new(vec![point()], vec![from.clone()], Millis(0));
    let mut asked = BTreeSet::new();
    walk.poll(&mut asked, Millis(0));
    // Nineteen that are closer, many of them in one bucket, and one that is not.
    let mut told = all[20..39].to_vec();
    told.push(all[99].clone());
    walk.answered(0, &from, &told, &asked);
    let mut buckets = BTreeSet::new();
    let own = from.key().distance(&point());
    let mut taken = 0;
    while let [(at, who)] = &walk.poll(&mut asked, Millis(0))[..] {
        let distance = who.key().distance(&point());
        assert!(distance < own && buckets.insert(distance.leading_zeros()));
        taken += 1;
        walk.failed(*at);
    }
    assert!((1..=PATH_BEST).contains(&taken), "{taken}");
}

#[test]
fn a_list_that_contradicts_itself_is_not_followed() {
    let all = sorted(100, &point());
    let from = all[50].clone();
    for told in [vec![all[0].clone(), all[0].clone()], vec![all[0].clone(), from.clone()]] {
        let mut walk = Walk::new(vec![point()], vec![from.clone()], Millis(0));
        let mut asked = BTreeSet::new();
        walk.poll(&mut asked, Millis(0));
        walk.answered(0, &from, &told, &asked);
        assert!(walk.is_over(Millis(0)));
        assert_eq!(walk.reports().next().map(|report| report.contradictions), Some(1));
    }
}

#[test]
fn peers_that_name_each_other_in_a_circle_end_the_path() {
    let all = sorted(100, &point());
    let mut walk = Walk::new(vec![point()], vec![all[30].clone()], Millis(0));
    let (mut asked, mut calls) = (BTreeSet::new(), 0);
    while !walk.is_over(Millis(0)) {
        for (at, who) in walk.poll(&mut asked, Millis(0)) {
            calls += 1;
            let circle = [all[10].clone(), all[20].clone(), all[30].clone()];
            let others: Vec<_> = circle.into_iter().filter(|c| *c != who).collect();
            walk.answered(at, &who, &others, &asked);
        }
    }
    assert!(calls <= 3, "{calls}");
}

#[test]
fn endless_promises_end_with_the_calls_of_a_path() {
    // Each answer names somebody closer yet.
    let all = sorted(2_000, &point());
    let mut walk = Walk::new(vec![point()], vec![all[1_999].clone()], Millis(0));
    let (mut asked, mut calls, mut next) = (BTreeSet::new(), 0, 1_998);
    while !walk.is_over(Millis(0)) {
        for (at, who) in walk.poll(&mut asked, Millis(0)) {
            calls += 1;
            walk.answered(at, &who, &[all[next].clone()], &asked);
            next -= 1;
        }
    }
    assert_eq!(calls, MAX_PATH_CALLS);
}

#[test]
fn silence_ends_with_the_clock() {
    let mut walk = Walk::new(vec![point()], vec![peer(1)], Millis(0));
    let mut asked = BTreeSet::new();
    walk.poll(&mut asked, Millis(0));
    assert!(!walk.is_over(Millis(WALK_TIMEOUT_MS - 1)));
    assert!(walk.is_over(walk.deadline()));
    assert!(walk.poll(&mut asked, walk.deadline()).is_empty());
}
