//! Bits that flip, bytes that vanish, files that are swapped: all noticed, none signed over.

use peerproof_log::memory::MemoryStorage;
use peerproof_log::{DamageKind, Log, LogError, MAX_BATCH_ENTRIES, MAX_PAYLOAD_BYTES, Reader};

use crate::disk::{Disk, Lie};
use crate::{Random, key};

/// A log of `batches` batches over several segments.
fn written(batches: u8, longest: usize) -> MemoryStorage {
    let mut random = Random(u64::from(batches));
    let mut log = Log::open(MemoryStorage::default(), key()).unwrap().with_segment_bytes(1536);
    for _ in 0..batches {
        let mut payload = || {
            let count = 1 + random.up_to(longest);
            random.bytes(count)
        };
        log.append(&[payload(), payload()]).unwrap();
    }
    log.into_storage()
}

fn originals(storage: &MemoryStorage) -> Vec<Vec<u8>> {
    let reader = Reader::open(storage.clone(), &key().public()).unwrap();
    (0..reader.len()).map(|index| reader.entry(index).unwrap()).collect()
}

/// The log must open fenced, leave storage as it is, and read only what was written.
fn assert_fenced(storage: &MemoryStorage, originals: &[Vec<u8>], what: &str) -> DamageKind {
    let mut log = Log::open(storage.clone(), key()).unwrap();
    let damage = log.damage().unwrap_or_else(|| panic!("unnoticed: {what}")).clone();
    for index in 0..log.len() {
        let entry = log.entry(index).unwrap();
        // A root that differs means that any of the entries may be the wrong one.
        assert!(
            entry == originals[index as usize] || matches!(damage.kind, DamageKind::Root { .. })
        );
    }
    assert!(matches!(log.append(&["x"]), Err(LogError::Damaged(_))), "{what}");
    assert!(matches!(log.verify(), Err(LogError::Damaged(_))), "{what}");
    let left = log.into_storage();
    assert_eq!(left.segments, storage.segments, "{what}");
    assert_eq!(left.checkpoint, storage.checkpoint, "{what}");
    assert!(left.aside.is_empty(), "{what}");
    damage.kind
}

fn flip(storage: &mut MemoryStorage, segment: u32, bit: usize) {
    storage.segments.get_mut(&segment).unwrap()[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn every_flipped_bit_of_a_small_log_fences_it() {
    let storage = written(3, 60);
    let originals = originals(&storage);
    for (segment, bytes) in &storage.segments {
        for bit in 0..bytes.len() * 8 {
            let mut changed = storage.clone();
            flip(&mut changed, *segment, bit);
            assert_fenced(&changed, &originals, &format!("segment {segment} bit {bit}"));
        }
    }
    let note = storage.checkpoint.clone().unwrap();
    for bit in 0..note.len() * 8 {
        let mut changed = storage.clone();
        changed.checkpoint.as_mut().unwrap()[bit / 8] ^= 1 << (bit % 8);
        assert_fenced(&changed, &originals, &format!("checkpoint bit {bit}"));
    }
}

#[test]
fn flipped_bits_of_a_larger_log_fence_it() {
    let storage = written(100, 3000);
    let originals = originals(&storage);
    let mut random = Random(5);
    for _ in 0..300 {
        let segment = random.up_to(storage.segments.len() - 1) as u32;
        let bit = random.up_to(storage.segments[&segment].len() * 8 - 1);
        let mut changed = storage.clone();
        flip(&mut changed, segment, bit);
        assert_fenced(&changed, &originals, &format!("segment {segment} bit {bit}"));
    }
}

#[test]
fn every_missing_end_and_every_missing_or_swapped_segment_fences() {
    let storage = written(4, 300);
    let originals = originals(&storage);
    let numbers: Vec<u32> = storage.segments.keys().copied().collect();
    assert!(numbers.len() >= 2);
    for number in &numbers {
        for length in 0..storage.segments[number].len() {
            let mut changed = storage.clone();
            changed.segments.get_mut(number).unwrap().truncate(length);
            assert_fenced(&changed, &originals, &format!("segment {number} ends at {length}"));
        }
        let mut changed = storage.clone();
        changed.segments.remove(number);
        assert_fenced(&changed, &originals, &format!("segment {number} is gone"));
    }
    let mut changed = storage.clone();
    let (first, second) = (storage.segments[&0].clone(), storage.segments[&1].clone());
    changed.segments.insert(0, second);
    changed.segments.insert(1, first);
    assert!(matches!(
        assert_fenced(&changed, &originals, "segments swapped"),
        DamageKind::Sequence { expected: 0, .. }
    ));
    let mut changed = storage;
    changed.checkpoint = None;
    let kind = assert_fenced(&changed, &originals, "no checkpoint");
    assert_eq!(kind, DamageKind::CheckpointMissing);
}

/// Records rewritten with right checksums and chain, which only the signed root gives away.
#[test]
fn a_forged_history_is_given_away_by_the_root() {
    let storage = written(2, 50);
    let mut forged = Log::open(MemoryStorage::default(), key()).unwrap();
    for index in 0..4u8 {
        forged.append(&[[index]]).unwrap();
    }
    let mut forged = forged.into_storage();
    forged.checkpoint.clone_from(&storage.checkpoint);
    let log = Log::open(forged, key()).unwrap();
    assert!(matches!(log.damage().unwrap().kind, DamageKind::Root { .. }));
}

#[test]
fn the_segments_of_another_key_do_not_pass() {
    let other = std::sync::Arc::new(peerproof_identity::Keypair::from_seed(&[22; 32]));
    let mut foreign = Log::open(MemoryStorage::default(), other).unwrap();
    foreign.append(&["theirs"]).unwrap();
    let mut storage = foreign.into_storage();
    let mut own = Log::open(MemoryStorage::default(), key()).unwrap();
    own.append(&["theirs"]).unwrap();
    storage.checkpoint = own.into_storage().checkpoint;
    let log = Log::open(storage, key()).unwrap();
    assert_eq!(log.damage().unwrap().kind, DamageKind::Chain);
}

#[test]
fn damage_after_opening_is_noticed_by_reads_and_by_verification() {
    let disk = Disk::new(0, Lie::None);
    let mut log = Log::open(disk.clone(), key()).unwrap();
    log.append(&["first", "second"]).unwrap();
    log.append(&["third"]).unwrap();
    let verified = log.verify().unwrap();
    assert_eq!((verified.entries, verified.bytes), (3, 1024));
    assert_eq!(verified.root, *log.checkpoint().unwrap().root());

    disk.flip(0, 44 * 8);
    assert!(matches!(log.entry(0), Err(LogError::Changed(_))));
    assert_eq!(log.entry(1).unwrap(), b"second");
    assert!(matches!(log.verify(), Err(LogError::Damaged(_))));
    disk.flip(0, 44 * 8);
    assert_eq!(log.verify().unwrap(), verified);

    // A history that is whole in itself, and not the one this process has seen.
    let mut elsewhere = Log::open(Disk::new(0, Lie::None), key()).unwrap();
    elsewhere.append(&["another"]).unwrap();
    disk.become_copy_of(&elsewhere.into_storage());
    assert!(matches!(log.verify(), Err(LogError::Damaged(_))));
}

#[test]
fn batches_outside_the_limits_are_refused_and_leave_the_log_open() {
    let mut log = Log::open(MemoryStorage::default(), key()).unwrap();
    let many = vec![[1u8]; MAX_BATCH_ENTRIES + 1];
    assert!(matches!(log.append(&many), Err(LogError::Batch { unit: "entries", .. })));
    assert!(matches!(log.append(&[""]), Err(LogError::PayloadLength { got: 0, .. })));
    let long = vec![0; MAX_PAYLOAD_BYTES + 1];
    assert!(matches!(log.append(&[&long]), Err(LogError::PayloadLength { .. })));
    let longest = &long[1..];
    assert!(matches!(log.append(&[longest; 5]), Err(LogError::Batch { unit: "bytes", .. })));
    assert_eq!(log.append::<&str>(&[]).unwrap(), 0..0);
    assert_eq!(log.append(&[longest; 4]).unwrap(), 0..4);
    assert_eq!(log.entry(3).unwrap(), longest);
    let log = Log::open(log.into_storage(), key()).unwrap();
    assert_eq!(log.verify().unwrap().entries, 4);
}
