//! A full disk or a failing device, at every single operation in turn.

use peerproof_log::{Log, LogError, StorageFault};

use crate::disk::{Disk, Event, Lie};
use crate::key;

/// Appends in a fixed order, up to the first error; returns what was acknowledged.
fn work(disk: &Disk) -> (Vec<Vec<u8>>, Result<(), LogError>) {
    let mut acknowledged = Vec::new();
    let mut log = match Log::open(disk.clone(), key()) {
        Ok(log) => log.with_segment_bytes(2048),
        Err(error) => return (acknowledged, Err(error)),
    };
    for round in 0..6u8 {
        let batch = vec![vec![round; 300 + usize::from(round)], vec![round; 40]];
        match log.append(&batch) {
            Ok(_) => acknowledged.extend(batch),
            Err(error) => {
                // The log stays stopped, whatever it is asked next, and it stays readable.
                let again = log.append(&[b"more"]).unwrap_err();
                assert!(matches!(again, LogError::Stopped(_) | LogError::Damaged(_)), "{again}");
                assert_eq!(log.len(), acknowledged.len() as u64);
                check(&log, &acknowledged);
                return (acknowledged, Err(error));
            }
        }
    }
    (acknowledged, Ok(()))
}

fn check(log: &Log<Disk>, acknowledged: &[Vec<u8>]) {
    for (index, payload) in (0..).zip(acknowledged) {
        assert_eq!(log.entry(index).unwrap(), *payload);
    }
}

fn operations_of_a_whole_run() -> u64 {
    let disk = Disk::new(0, Lie::None);
    work(&disk).1.unwrap();
    disk.operations()
}

#[test]
fn a_failed_operation_is_never_acknowledged_and_the_log_goes_on_afterwards() {
    let operations = operations_of_a_whole_run();
    assert!(operations > 20);
    for fault in [StorageFault::Full, StorageFault::Failed] {
        for at in 0..operations {
            // Seeds decide how much of the failing operation was done.
            for seed in 0..8 {
                for power_cut in [false, true] {
                    fail_once(seed, at, fault, power_cut);
                }
            }
        }
    }
}

fn fail_once(seed: u64, at: u64, fault: StorageFault, power_cut: bool) {
    let place = format!("{fault:?} at operation {at}, seed {seed}, power cut {power_cut}");
    let disk = Disk::new(seed, Lie::None);
    disk.schedule(at, Event::Fault(fault));
    let (acknowledged, outcome) = work(&disk);
    assert!(outcome.is_err(), "{place}");
    if power_cut {
        disk.cut_power();
    } else {
        disk.restart();
    }
    // The next opening meets the same trouble at each of its own operations.
    for again in 0..3 {
        disk.schedule(again, Event::Fault(fault));
        let _ = Log::open(disk.clone(), key());
        disk.restart();
    }
    let mut log = Log::open(disk.clone(), key()).unwrap();
    assert!(log.damage().is_none(), "{place}: {:?}", log.damage());
    assert!(log.len() >= acknowledged.len() as u64, "{place}");
    check(&log, &acknowledged);
    let before = log.len();
    assert_eq!(log.append(&["after the trouble"]).unwrap(), before..before + 1, "{place}");
    disk.cut_power();
    let log = Log::open(disk, key()).unwrap();
    assert!(log.damage().is_none(), "{place}: {:?}", log.damage());
    assert_eq!(log.len(), before + 1, "{place}");
    check(&log, &acknowledged);
}
