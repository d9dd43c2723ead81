//! Network groups, and properties of every log.

use peerproof_wire::{AuditedBy, Decision, Note};
use proptest::prelude::*;

use super::*;

const CAP: u64 = 512 * ONE;

fn answer(seed: u8, group: NetworkGroup, audit: Audited) -> LogBody {
    let LogBody::Accepted(mut answer) = accepted(seed, audit != Audited::No) else {
        unreachable!("an answer");
    };
    answer.group = group;
    answer.auditor = match audit {
        Audited::By(group) => Some(AuditedBy { auditor: public(90), group, drawn: true }),
        _ => None,
    };
    LogBody::Accepted(answer)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Audited {
    No,
    Here,
    By(NetworkGroup),
}

const CITY: NetworkGroup = NetworkGroup::V4([203, 0]);
const TOWN: NetworkGroup = NetworkGroup::V4([198, 51]);

fn good(reputation: &Reputation, seed: u8, unix_ms: u64) -> u64 {
    reputation.explain(&peer(seed), unix_ms).good.0
}

#[test]
fn auditors_of_one_group_vouch_once_a_day_and_never_for_their_own() {
    let points = |audits: &[(u64, NetworkGroup)]| {
        let entry = |(day, group): &(u64, NetworkGroup)| {
            at(day * DAY_MS, answer(1, CITY, Audited::By(*group)))
        };
        let entries: Vec<LogEntry> = audits.iter().map(entry).collect();
        // What is dated ahead has not faded.
        good(&Reputation::replay(&entries), 1, 0) / ONE
    };
    assert_eq!(points(&[(0, TOWN)]), 5);
    assert_eq!(points(&[(0, TOWN), (0, TOWN)]), 6);
    assert_eq!(points(&[(0, TOWN), (1, TOWN)]), 10);
    assert_eq!(points(&[(0, TOWN), (0, NetworkGroup::V4([9, 9]))]), 10);
    assert_eq!(points(&[(0, CITY)]), 1, "an auditor next door");
    let local = NetworkGroup::Local;
    assert_eq!(points(&[(0, local), (0, local)]), 10, "the user's own machines");
}

#[test]
fn a_group_shares_its_cap_and_the_small_keep_theirs() {
    let mut entries: Vec<LogEntry> = Vec::new();
    entries.extend((0..1000).map(|_| at(0, answer(1, CITY, Audited::Here))));
    entries.extend((0..1000).map(|_| at(0, answer(2, CITY, Audited::No))));
    entries.extend((0..10).map(|_| at(0, answer(3, CITY, Audited::No))));
    entries.extend((0..1000).map(|_| at(0, answer(4, TOWN, Audited::No))));
    let reputation = Reputation::replay(&entries);
    assert_eq!(good(&reputation, 3, 0), 10 * ONE, "a small one next to large ones");
    assert_eq!((good(&reputation, 1, 0), good(&reputation, 2, 0)), (251 * ONE, 251 * ONE));
    assert_eq!(good(&reputation, 4, 0), CAP, "another group has its own");
    let text = reputation.explain(&peer(1), 0).to_string();
    assert!(text.contains("counts 251.00, its share of the 512"), "{text}");
    // Machines of the user's own network don't limit each other.
    let home =
        |seed| (0..1000).map(move |_| at(0, answer(seed, NetworkGroup::Local, Audited::Here)));
    let reputation = Reputation::replay(&home(1).chain(home(2)).collect::<Vec<_>>());
    assert_eq!((good(&reputation, 1, 0), good(&reputation, 2, 0)), (9000 * ONE, 9000 * ONE));
}

#[test]
fn rules_are_the_nodes_own() {
    let entries = [at(0, accepted(1, true))];
    let week = Rules { half_life_days: 7, ..Rules::default() };
    assert_eq!(Reputation::replay_with(week, &entries).standing(&peer(1), 7 * DAY_MS).score, 680);
    let poor = Rules { group_cap: 4, ..Rules::default() };
    assert_eq!(Reputation::replay_with(poor, &entries).standing(&peer(1), 0).score, 666);
}

fn group() -> impl Strategy<Value = NetworkGroup> {
    prop_oneof![
        Just(NetworkGroup::Unknown),
        Just(NetworkGroup::Local),
        (0..4_u8).prop_map(|at| NetworkGroup::V4([at, 0])),
        (0..2_u8).prop_map(|at| NetworkGroup::V6([0x20, at, 0, 0])),
    ]
}

fn any_audit() -> impl Strategy<Value = Audited> {
    prop_oneof![Just(Audited::No), Just(Audited::Here), group().prop_map(Audited::By)]
}

/// What a log can hold about a few peers, but for the signed statements, which cost time.
fn body() -> impl Strategy<Value = LogBody> {
    let reasons: Vec<&str> = fault::ALL.iter().map(|fault| fault.code()).collect();
    prop_oneof![
        8 => (1..8_u8, group(), any_audit())
            .prop_map(|(seed, group, audit)| answer(seed, group, audit)),
        2 => (1..8_u8, prop::sample::select(reasons)).prop_map(|(seed, why)| observed(seed, why)),
        1 => (1..8_u8, any::<bool>()).prop_map(|(seed, blocked)| {
            let decision = Decision::new(public(seed), blocked, "because");
            LogBody::Note(Note::Decision(decision))
        }),
        1 => (1..8_u8, 0..4_u8).prop_map(|(seed, finding)| incidents::checked(seed, finding)),
    ]
}

fn log() -> impl Strategy<Value = Vec<LogEntry>> {
    let entry = (0..60 * DAY_MS, body()).prop_map(|(unix_ms, body)| at(unix_ms, body));
    prop::collection::vec(entry, 0..60)
}

fn all(reputation: &Reputation, unix_ms: u64) -> Vec<String> {
    let each = |seed| {
        let auditor = reputation.auditor(&peer(seed), unix_ms);
        format!("{:?} {auditor:?}", reputation.explain(&peer(seed), unix_ms))
    };
    (0..9).map(each).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_replay_gives_the_same_in_any_order(entries in log(), shift in 0..60_usize, now in 0..90_u64) {
        let reputation = Reputation::replay(&entries);
        let mut other = Reputation::new();
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.rotate_left(shift.min(entries.len()));
        order.reverse();
        for index in order {
            other.note_at(index as u64, &entries[index]);
        }
        prop_assert_eq!(all(&reputation, now * DAY_MS), all(&other, now * DAY_MS));
        let barred: Vec<_> = reputation.barred().collect();
        prop_assert_eq!(barred, other.barred().collect::<Vec<_>>());
    }

    #[test]
    fn nobody_has_a_score_without_evidence(entries in log(), now in 0..90_u64) {
        let reputation = Reputation::replay(&entries);
        prop_assert_eq!(reputation.standing(&peer(60), now * DAY_MS), Standing::stranger());
        for seed in 1..8 {
            let mine = reputation.explain(&peer(seed), now * DAY_MS);
            let lines = account(Rules::default(), &peer(seed), (0..).zip(&entries), now * DAY_MS);
            if lines.iter().all(|line| line.good == 0) {
                prop_assert!(mine.standing.score <= 500);
            }
            if lines.is_empty() {
                prop_assert_eq!(mine.standing, Standing::stranger());
            }
        }
    }

    #[test]
    fn no_group_has_more_than_its_cap(
        group in (0..3_u8).prop_map(|at| NetworkGroup::V4([at, 0])),
        shares in prop::collection::vec((1..12_u8, 1..400_usize, any_audit(), 0..20_u64), 1..12),
        now in 0..40_u64,
    ) {
        let mut reputation = Reputation::new();
        for (seed, count, audit, day) in &shares {
            for _ in 0..*count {
                reputation.note(&at(day * DAY_MS, answer(*seed, group, *audit)));
            }
        }
        let all: u64 = (0..13).map(|seed| good(&reputation, seed, now * DAY_MS)).sum();
        prop_assert!(all <= CAP, "{}", Points(all));
        let earned: u64 = (0..13)
            .flat_map(|seed| reputation.explain(&peer(seed), now * DAY_MS).groups)
            .map(|share| share.earned.0)
            .sum();
        // What the cap does not take is not lost either, but for rounding.
        prop_assert!(all + 13 >= earned.min(CAP), "{} of {}", Points(all), Points(earned));
    }
}
