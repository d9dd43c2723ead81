//! Logs, witnesses and strangers who copy tiles: who grows is cosigned, who goes
//! back or shows two histories is found out.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]

use std::sync::Arc;

use peerproof_identity::Keypair;
use peerproof_log::memory::MemoryStorage;
use peerproof_log::witness::cosigned;
use peerproof_log::{
    AddCheckpoint, DamageKind, Fork, Log, LogError, Nodes, Refusal, Resource, SignedCheckpoint,
    Tiles, Witness, entry_of, payload_leaf, tiles, verify_consistency, verify_inclusion,
};

const NOON: u64 = 1_800_000_000;

fn key(seed: u8) -> Arc<Keypair> {
    Arc::new(Keypair::from_seed(&[seed; 32]))
}

fn log(entries: impl IntoIterator<Item = u64>) -> Log<MemoryStorage> {
    let mut log = Log::open(MemoryStorage::default(), key(1)).unwrap();
    append(&mut log, entries);
    log
}

fn append(log: &mut Log<MemoryStorage>, entries: impl IntoIterator<Item = u64>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| format!("entry {entry}")).collect();
    for batch in entries.chunks(1000) {
        log.append(batch).unwrap();
    }
}

fn witness() -> Witness {
    Witness::new(key(2), [])
}

/// Has the log cosigned as it stands.
fn follow(witness: &mut Witness, log: &Log<MemoryStorage>, old: u64) -> Result<String, Refusal> {
    let request = log.add_checkpoint(old).unwrap();
    let request = AddCheckpoint::parse(&request.to_bytes()).unwrap();
    let advance = witness.consider(&request)?;
    let line = witness.cosign(advance, NOON)?;
    let cosigned = log.checkpoint().unwrap().with_signatures(&[line]).unwrap();
    Ok(cosigned.note().to_owned())
}

fn last(witness: &Witness) -> SignedCheckpoint {
    witness.last(&key(1).public().peer_id()).unwrap().clone()
}

#[test]
fn a_growing_log_is_cosigned_at_every_step() {
    let (mut log, mut witness) = (log(0..0), witness());
    let mut old = 0;
    for size in [0, 1, 2, 5, 5, 300] {
        append(&mut log, old..size);
        let note = follow(&mut witness, &log, old).unwrap();
        let opened = SignedCheckpoint::open(note.as_bytes()).unwrap();
        assert_eq!((opened.size(), cosigned(&opened, &key(2).public())), (size, Ok(NOON)));
        cosigned(&opened, &key(3).public()).unwrap_err();
        old = size;
    }
    log.confront(&last(&witness)).unwrap();
}

#[test]
fn no_changed_byte_of_a_cosigned_note_is_accepted() {
    let (log, mut witness) = (log(0..3), witness());
    let note = follow(&mut witness, &log, 0).unwrap();
    for bit in 0..note.len() * 8 {
        let mut bytes = note.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let checked = SignedCheckpoint::open(&bytes)
            .ok()
            .and_then(|opened| cosigned(&opened, &key(2).public()).ok());
        assert_eq!(checked, None, "bit {bit}");
    }
}

#[test]
fn an_old_backup_is_fenced_before_it_signs() {
    let mut log = log(0..3);
    let backup = log.into_storage();
    log = Log::open(backup.clone(), key(1)).unwrap();
    append(&mut log, 3..5);
    let mut witness = witness();
    follow(&mut witness, &log, 0).unwrap();

    let mut restored = Log::open(backup, key(1)).unwrap();
    let refused = witness.consider(&restored.add_checkpoint(0).unwrap()).unwrap_err();
    assert_eq!((refused.clone(), refused.status()), (Refusal::Stale { size: 5 }, 409));
    let Err(LogError::Damaged(damage)) = restored.confront(&last(&witness)) else {
        panic!("an older copy was accepted")
    };
    assert_eq!(damage.kind, DamageKind::Older { expected: 5, got: 3 });
    assert!(matches!(restored.append(&["another fourth"]), Err(LogError::Damaged(_))));
    assert_eq!(restored.entry(2).unwrap(), b"entry 2");
}

#[test]
fn two_histories_are_proven_or_refused() {
    let backup = log(0..3).into_storage();
    let mut honest = Log::open(backup.clone(), key(1)).unwrap();
    append(&mut honest, 3..5);
    let mut witness = witness();
    follow(&mut witness, &honest, 0).unwrap();

    let mut other = Log::open(backup, key(1)).unwrap();
    append(&mut other, 13..15);
    let Err(Refusal::Fork(fork)) = follow(&mut witness, &other, 5) else {
        panic!("a fork was not seen")
    };
    assert_eq!(fork.signer(), key(1).public());
    let [first, second] = fork.checkpoints();
    let reread = |one: &SignedCheckpoint| SignedCheckpoint::open(one.note().as_bytes()).unwrap();
    assert_eq!(Fork::between(&reread(first), &reread(second)), Some(*fork.clone()));
    assert_eq!(Fork::between(first, first), None);

    append(&mut other, 15..17);
    let refused = follow(&mut witness, &other, 5).unwrap_err();
    assert!(matches!(refused, Refusal::Inconsistent(_)), "{refused}");
    assert_eq!(refused.status(), 422);
    assert_eq!(last(&witness).size(), 5);
    assert!(matches!(other.confront(&last(&witness)), Err(LogError::Damaged(_))));
}

#[test]
fn two_requests_at_once_do_not_roll_a_log_back() {
    let (mut log, mut witness) = (log(0..2), witness());
    let early = witness.consider(&log.add_checkpoint(0).unwrap()).unwrap();
    append(&mut log, 2..9);
    let late = witness.consider(&log.add_checkpoint(0).unwrap()).unwrap();
    witness.cosign(late, NOON).unwrap();
    assert_eq!(witness.cosign(early, NOON).unwrap_err(), Refusal::Stale { size: 9 });
    assert_eq!(last(&witness).size(), 9);
}

#[test]
fn a_witness_goes_on_where_it_stopped() {
    let (mut log, mut first) = (log(0..4), witness());
    follow(&mut first, &log, 0).unwrap();
    let kept = last(&first).note().to_owned();
    let mut second = Witness::new(key(2), [SignedCheckpoint::open(kept.as_bytes()).unwrap()]);
    append(&mut log, 4..6);
    assert_eq!(follow(&mut second, &log, 0).unwrap_err(), Refusal::Stale { size: 4 });
    follow(&mut second, &log, 4).unwrap();
}

#[test]
fn requests_that_are_not_as_the_protocol_says_are_refused() {
    let (log, mut witness) = (log(0..7), witness());
    let good = log.add_checkpoint(3).unwrap().to_bytes();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // Read as something else, it is at least spelled in the one way.
        if let Ok(read) = AddCheckpoint::parse(&bytes) {
            assert_eq!(read.to_bytes(), bytes, "bit {bit}");
            witness.consider(&read).unwrap_err();
        }
    }
    for cut in 0..good.len() {
        let refused = AddCheckpoint::parse(&good[..cut]).and_then(|r| witness.consider(&r));
        refused.unwrap_err();
    }
    let mut request = log.add_checkpoint(7).unwrap();
    request.old = 8;
    let refused = witness.consider(&request).unwrap_err();
    assert_eq!((refused.clone(), refused.status()), (Refusal::Shrinks { old: 8, size: 7 }, 400));
    request.old = 0;
    request.path = vec![[0; 32]; 63];
    let refused = witness.consider(&request).unwrap_err();
    assert!(matches!(refused, Refusal::Inconsistent(_)), "{refused}");
    request.path.push([0; 32]);
    assert!(matches!(
        AddCheckpoint::parse(&request.to_bytes()),
        Err(Refusal::Malformed { line: 64 })
    ));
    follow(&mut witness, &log, 0).unwrap();
}

#[test]
fn forged_and_foreign_checkpoints_are_refused() {
    let (log, witness) = (log(0..2), witness());
    let request = |note: String| AddCheckpoint { old: 0, path: vec![], checkpoint: note.into() };
    let note = log.checkpoint().unwrap().note();
    let (text, _) = note.split_once("\n\n").unwrap();
    let mallory = Log::open(MemoryStorage::default(), key(9)).unwrap();
    let line = mallory.checkpoint().unwrap().note().split_once("\n\n").unwrap().1.to_owned();
    let refused = witness.consider(&request(format!("{text}\n\n{line}"))).unwrap_err();
    assert_eq!(refused.status(), 403, "{refused}");
    let foreign = note.replace("peerproof.log/", "example.com/");
    let refused = witness.consider(&request(foreign)).unwrap_err();
    assert_eq!(refused.status(), 404, "{refused}");
    let refused = witness.consider(&request("no checkpoint".to_owned())).unwrap_err();
    assert_eq!(refused.status(), 400, "{refused}");
}

#[test]
fn a_stranger_checks_a_log_from_its_tiles_alone() {
    let log = log(0..70_000);
    let fetch = |resource: Resource| {
        let resource = Resource::parse(&resource.to_string()).unwrap();
        log.resource(&resource).unwrap().unwrap_or_else(|| panic!("{resource} is not there"))
    };
    let checkpoint = SignedCheckpoint::open(&fetch(Resource::Checkpoint)).unwrap();
    let (size, root) = (checkpoint.size(), checkpoint.root());
    let mut copy = Tiles::new(size);
    for (index, old) in [(0, 1), (255, 256), (65_535, 65_536), (65_536, 65_537), (69_999, 300)] {
        let proofs = |nodes: &dyn Nodes| {
            nodes.inclusion(index, size)?;
            nodes.consistency(old, size).map(drop)
        };
        for tile in copy.wanted(proofs).unwrap() {
            copy.insert(tile, &fetch(Resource::Hashes(tile))).unwrap();
        }
        let path = copy.inclusion(index, size).unwrap();
        let payload = log.entry(index).unwrap();
        verify_inclusion(&payload_leaf(&payload), index, size, &path, root).unwrap();
        checkpoint.verify_entry(&payload, index, &path).unwrap();
        let (old_root, path) = (log.root(old).unwrap(), copy.consistency(old, size).unwrap());
        verify_consistency(old, &old_root, size, root, &path).unwrap();

        let tile = tiles::Tile::in_tree(0, index / tiles::TILE_WIDTH, size).unwrap();
        let entries = tiles::open_bundle(tile, &fetch(Resource::Entries(tile))).unwrap();
        assert_eq!(entries[(index % tiles::TILE_WIDTH) as usize], entry_of(&payload));
    }
    for beyond in ["tile/0/274", "tile/0/273.p/113", "tile/entries/273.p/113", "tile/2/000.p/2"] {
        assert_eq!(log.resource(&Resource::parse(beyond).unwrap()).unwrap(), None, "{beyond}");
    }
}
