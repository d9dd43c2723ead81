//! Power cuts and kills at every kind of moment, during recovery too.
#![allow(clippy::disallowed_methods, reason = "the number of seeds comes from the environment")]

use peerproof_log::{Hash, Log, LogError};

use crate::disk::{Disk, Event, Lie};
use crate::{Random, key};

/// Small, so that a run crosses many segments.
const SEGMENT_BYTES: u64 = 4096;
const CRASHES_A_SEED: u64 = 12;
const DEFAULT_SEEDS: u64 = 1000;

/// What the world knows of the log: what was acknowledged, what was shown.
#[derive(Default)]
struct World {
    acknowledged: Vec<Vec<u8>>,
    checkpoints: Vec<(u64, Hash)>,
}

#[derive(Debug, Default)]
struct Count {
    crashes: u64,
    crashes_in_recovery: u64,
    entries: u64,
    kept_aside: u64,
}

impl World {
    /// Everyone who asks gets to see the checkpoint.
    fn show(&mut self, log: &Log<Disk>) -> Result<(), String> {
        let checkpoint = log.checkpoint().ok_or("no checkpoint")?;
        self.checkpoints.push((checkpoint.size(), *checkpoint.root()));
        Ok(())
    }

    /// Nothing that was promised is gone, nothing that was shown is contradicted.
    fn check(&self, log: &Log<Disk>) -> Result<(), String> {
        if let Some(damage) = log.damage() {
            return Err(format!("damaged: {damage}"));
        }
        if log.len() < self.acknowledged.len() as u64 {
            return Err(format!("{} of {} entries", log.len(), self.acknowledged.len()));
        }
        for (index, payload) in (0..).zip(&self.acknowledged) {
            if log.entry(index).map_err(|error| error.to_string())? != *payload {
                return Err(format!("entry {index} is another"));
            }
        }
        let checkpoint = log.checkpoint().ok_or("no checkpoint")?;
        for (size, root) in
            self.checkpoints.iter().chain([&(checkpoint.size(), *checkpoint.root())])
        {
            if log.len() < *size {
                return Err(format!("a checkpoint of {size} was shown, {} are left", log.len()));
            }
            let path = log.consistency(*size, log.len()).map_err(|error| error.to_string())?;
            peerproof_log::verify_consistency(
                *size,
                root,
                checkpoint.size(),
                checkpoint.root(),
                &path,
            )
            .map_err(|error| format!("fork at {size}: {error}"))?;
        }
        Ok(())
    }
}

/// One life of one disk. Errors say which promise was broken.
fn run(seed: u64, lie: Lie) -> Result<Count, String> {
    let mut random = Random(seed);
    let disk = Disk::new(random.next(), lie);
    let mut world = World::default();
    let mut count = Count::default();
    let mut log = open(&disk).map_err(|error| error.to_string())?;
    while count.crashes < CRASHES_A_SEED {
        world.show(&log)?;
        disk.schedule(random.below(25), Event::Death);
        append_until_death(&mut log, &mut world, &mut random, &disk)?;
        count.crashes += 1;
        log = reopen(&disk, &mut random, &mut count)?;
        world.check(&log)?;
        // What survived without having been acknowledged is part of the log.
        for index in world.acknowledged.len() as u64..log.len() {
            world.acknowledged.push(log.entry(index).map_err(|error| error.to_string())?);
        }
    }
    let batch = ["the log goes on"];
    log.append(&batch).map_err(|error| error.to_string())?;
    log.verify().map_err(|error| error.to_string())?;
    count.entries = log.len();
    count.kept_aside = disk.kept_aside() as u64;
    Ok(count)
}

fn open(disk: &Disk) -> Result<Log<Disk>, LogError> {
    Ok(Log::open(disk.clone(), key())?.with_segment_bytes(SEGMENT_BYTES))
}

fn append_until_death(
    log: &mut Log<Disk>,
    world: &mut World,
    random: &mut Random,
    disk: &Disk,
) -> Result<(), String> {
    while !disk.happened() {
        let batch: Vec<Vec<u8>> = (0..=random.below(3))
            .map(|_| {
                let longest = if random.one_in(4) { 1500 } else { 120 };
                let count = 1 + random.up_to(longest);
                random.bytes(count)
            })
            .collect();
        match log.append(&batch) {
            Ok(positions) if positions.start != world.acknowledged.len() as u64 => {
                return Err(format!("positions {positions:?} after {}", world.acknowledged.len()));
            }
            Ok(_) => {
                world.acknowledged.extend(batch);
                world.show(log)?;
            }
            Err(LogError::Storage(_)) if disk.happened() => {}
            Err(error) => return Err(format!("without cause: {error}")),
        }
    }
    Ok(())
}

/// Opens the log again after a kill or a power cut, with more of them on the way.
fn reopen(disk: &Disk, random: &mut Random, count: &mut Count) -> Result<Log<Disk>, String> {
    loop {
        if random.one_in(4) {
            disk.restart();
        } else {
            disk.cut_power();
        }
        if random.one_in(3) {
            disk.schedule(random.below(20), Event::Death);
        }
        match open(disk) {
            // An unreadable record fences; the process that saw it is about to die.
            Ok(_) | Err(_) if disk.happened() => count.crashes_in_recovery += 1,
            Ok(log) => {
                disk.restart();
                return Ok(log);
            }
            Err(error) => return Err(format!("does not open: {error}")),
        }
    }
}

#[test]
fn no_power_cut_loses_or_forks_anything() {
    let one = std::env::var("PEERPROOF_LOG_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let many = std::env::var("PEERPROOF_LOG_SEEDS").ok().map(|count| count.parse::<u64>().unwrap());
    let seeds = one.map_or(0..many.unwrap_or(DEFAULT_SEEDS), |seed| seed..seed + 1);
    let mut total = Count::default();
    for seed in seeds {
        let count = run(seed, Lie::None).unwrap_or_else(|broken| {
            panic!(
                "{broken}\nPEERPROOF_LOG_SEED={seed} cargo test -p peerproof-log --test simulation"
            )
        });
        total.crashes += count.crashes;
        total.crashes_in_recovery += count.crashes_in_recovery;
        total.entries += count.entries;
        total.kept_aside += count.kept_aside;
    }
    println!("{total:?}");
    assert!(total.crashes_in_recovery > 0 && total.kept_aside > 0 && total.entries > total.crashes);
}

#[test]
fn a_run_repeats_itself() {
    for seed in 0..3 {
        let (first, second) = (run(seed, Lie::None).unwrap(), run(seed, Lie::None).unwrap());
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}

#[test]
fn every_broken_promise_of_the_disk_is_noticed() {
    for lie in [Lie::Sync, Lie::Checkpoint, Lie::SameCheckpoint, Lie::Early] {
        let noticed = (0..200).filter(|seed| run(*seed, lie).is_err()).count();
        assert!(noticed > 0, "{lie:?}");
        println!("{lie:?}: {noticed} of 200 seeds");
    }
}
