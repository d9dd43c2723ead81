//! Power cuts and kills at every kind of moment, during recovery too.
//!
//! One seed is one life of a disk. At each death the power fails in sixteen
//! ways: the state of the disk at that moment is copied, each copy loses what
//! its own luck takes, and a log is opened on it and held against all that was
//! acknowledged and shown. Life then goes on from another such cut, or from a
//! kill that leaves the cache. A cut is counted once its recovery was checked,
//! or broken off by the next one.
#![allow(clippy::disallowed_methods, reason = "the number of seeds comes from the environment")]

use std::num::NonZero;
use std::ops::{AddAssign, Range};
use std::sync::atomic::{AtomicU64, Ordering};

use peerproof_log::{Hash, Log, LogError};

use crate::disk::{Disk, Event, Lie};
use crate::{Random, key};

/// Small, so that a run crosses many segments.
const SEGMENT_BYTES: u64 = 4096;
const DEATHS_A_SEED: u64 = 6;
/// Power cuts tried at the moment of each death.
const CUTS_A_DEATH: u64 = 16;
/// Power cuts of a run without a number of seeds.
const CUTS: u64 = 2_000_000;

/// What the world knows of the log: what was acknowledged, what was shown.
#[derive(Default)]
struct World {
    acknowledged: Vec<Vec<u8>>,
    checkpoints: Vec<(u64, Hash)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    power_cuts: u64,
    kills: u64,
    /// Of both, those that broke off a recovery.
    in_recovery: u64,
    entries: u64,
    kept_aside: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.power_cuts += other.power_cuts;
        self.kills += other.kills;
        self.in_recovery += other.in_recovery;
        self.entries += other.entries;
        self.kept_aside += other.kept_aside;
    }
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
        for (size, root) in &self.checkpoints {
            if log.len() < *size {
                return Err(format!("a checkpoint of {size} was shown, {} are left", log.len()));
            }
            if log.root(*size).map_err(|error| error.to_string())? != *root {
                return Err(format!("another root than was shown over {size}"));
            }
        }
        let checkpoint = log.checkpoint().ok_or("no checkpoint")?;
        (checkpoint.size() == log.len())
            .then_some(())
            .ok_or("a checkpoint over another size".into())
    }

    /// The same, as somebody sees it who has the checkpoints only.
    fn check_from_outside(&self, log: &Log<Disk>) -> Result<(), String> {
        let checkpoint = log.checkpoint().ok_or("no checkpoint")?;
        for (size, root) in &self.checkpoints {
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
    for _ in 0..DEATHS_A_SEED {
        world.show(&log)?;
        disk.schedule(random.below(25), Event::Death);
        append_until_death(&mut log, &mut world, &mut random, &disk)?;
        for _ in 0..CUTS_A_DEATH {
            let fork = disk.fork(random.next());
            let recovered = recover(&fork, true, &mut random, &mut count)?;
            world.check(&recovered)?;
        }
        let power_fails = random.one_in(2);
        log = recover(&disk, power_fails, &mut random, &mut count)?;
        world.check(&log)?;
        world.check_from_outside(&log)?;
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

/// Opens the log after a power cut or a kill, with more of them on the way.
fn recover(
    disk: &Disk,
    mut power_fails: bool,
    random: &mut Random,
    count: &mut Count,
) -> Result<Log<Disk>, String> {
    loop {
        if power_fails {
            disk.cut_power();
            count.power_cuts += 1;
        } else {
            disk.restart();
            count.kills += 1;
        }
        if random.one_in(3) {
            disk.schedule(random.below(20), Event::Death);
        }
        match open(disk) {
            // An unreadable record fences; the process that saw it is about to die.
            Ok(_) | Err(_) if disk.happened() => count.in_recovery += 1,
            Ok(log) => {
                disk.restart();
                return Ok(log);
            }
            Err(error) => return Err(format!("does not open: {error}")),
        }
        power_fails = !random.one_in(4);
    }
}

/// All lives, on as many threads as there are processors.
fn run_all(seeds: Range<u64>) -> Count {
    let next = AtomicU64::new(seeds.start);
    let live = || {
        let mut total = Count::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return total;
            }
            total += run(seed, Lie::None).unwrap_or_else(|broken| {
                panic!(
                    "{broken}\nPEERPROOF_LOG_SEED={seed} cargo test -p peerproof-log --test simulation"
                )
            });
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(live)).collect();
        let mut total = Count::default();
        for thread in threads {
            total += thread.join().expect("every life ends well");
        }
        total
    })
}

#[test]
fn no_power_cut_loses_or_forks_anything() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let default = CUTS.div_ceil(DEATHS_A_SEED * CUTS_A_DEATH);
    let seeds = match (number("PEERPROOF_LOG_SEED"), number("PEERPROOF_LOG_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(default),
    };
    let total = run_all(seeds.clone());
    println!("{} power cuts, each recovered from and checked: {total:?}", total.power_cuts);
    assert!(total.power_cuts >= (seeds.end - seeds.start) * DEATHS_A_SEED * CUTS_A_DEATH);
    assert!(total.in_recovery > 0 && total.kept_aside > 0 && total.entries > 0);
    if seeds == (0..default) {
        assert!(total.power_cuts >= CUTS, "{} power cuts", total.power_cuts);
        assert!(total.kills > 0);
    }
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
