//! Small networks: what must hold, and that stock Kademlia does not hold it.

use super::*;

const SMALL: Size = Size { nodes: 400, networks: 2, keys: 2, readers: 5 };

fn play(name: &str, size: Size) -> [FindingRow; 2] {
    let plan = Plan::named(name).expect("a plan");
    let rows = measure_finding(&plan, size, 1, &mut || {});
    println!("{}", finding_table(&rows));
    rows
}

#[test]
fn everybody_finds_where_nobody_lies() {
    let [ours, stock] = play("none", SMALL);
    assert_eq!((ours.found, ours.lookups, ours.alarms), (20, 20, 0));
    assert_eq!(stock.found, 20);
    assert!(ours.kept[0] >= 10, "{ours:?}");
}

#[test]
fn two_hundred_ground_ids_blind_stock_kademlia_only() {
    let [ours, stock] = play("ground-200", SMALL);
    assert_eq!(ours.found, 20, "{ours:?}");
    assert!(ours.alarms > 0, "a crowd is noticed");
    assert!(stock.found <= 2, "{stock:?}");
}

#[test]
fn three_liars_of_ten_hide_nothing() {
    let [ours, _] = play("random-30", SMALL);
    assert_eq!(ours.found, 20, "{ours:?}");
}

#[test]
fn old_records_and_invented_peers_change_nothing() {
    let [ours, stock] = play("replay-30", SMALL);
    assert_eq!(ours.found, 20, "{ours:?}");
    assert!(stock.found < 20, "the first answer may be an old record: {stock:?}");
    let [ours, _] = play("ghosts-30", SMALL);
    assert_eq!(ours.found, 20, "{ours:?}");
}

#[test]
fn who_leaves_or_is_cut_off_is_done_without() {
    for name in ["churn-20", "partition"] {
        let [ours, _] = play(name, SMALL);
        assert_eq!(ours.found, 20, "{ours:?}");
    }
}

#[test]
fn a_flood_does_not_push_a_record_out() {
    let [ours, stock] = play("flood", Size { networks: 1, keys: 1, ..SMALL });
    assert_eq!((ours.found, ours.lookups), (5, 5), "{ours:?}");
    assert_eq!(stock.found, 0, "{stock:?}");
}

#[test]
fn a_seed_plays_the_same_again() {
    let size = Size { nodes: 150, networks: 1, keys: 1, readers: 3 };
    assert_eq!(play("random-50", size), play("random-50", size));
}

#[test]
fn plans_have_names_of_their_own() {
    let names: std::collections::BTreeSet<&str> = PLANS.iter().map(|plan| plan.name).collect();
    assert_eq!(names.len(), PLANS.len());
    assert_eq!(Plan::named("no such"), None);
}
