//! The reading side of a log: entries, proofs, the full check.
//!
//! A reader walks the log once, compares it with its checkpoint, and keeps 80
//! bytes an entry to answer from. It never writes, so it can stand beside the
//! process that does: bytes behind the checkpoint are not looked at. A damaged
//! log is readable up to the damage.

use peerproof_identity::PublicKey;

use crate::checkpoint::{SignedCheckpoint, origin};
use crate::damage::{Damage, DamageKind};
use crate::error::{LogError, ProofError};
use crate::planted::planted;
use crate::record::{self, chain_start, record_bytes};
use crate::storage::{Segment, Storage, StorageError};
use crate::tiles::{Resource, bundle};
use crate::tree::{Hash, Nodes as _, Tree, entry_of};
use crate::walk::{Entry, Walk, walk};

/// A log opened for reading.
#[derive(Debug)]
pub struct Reader<S> {
    pub(crate) storage: S,
    pub(crate) tree: Tree,
    pub(crate) places: Vec<Entry>,
    pub(crate) checkpoint: Option<SignedCheckpoint>,
    pub(crate) damage: Option<Damage>,
    key: PublicKey,
}

/// What a full check went over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Entries, all of them under the checkpoint.
    pub entries: u64,
    /// Bytes of records and padding.
    pub bytes: u64,
    /// The Merkle root over the entries.
    pub root: Hash,
}

impl<S: Storage> Reader<S> {
    /// Reads the log of `key` from `storage`. A damaged log opens too:
    /// [`Reader::damage`] tells.
    ///
    /// # Errors
    /// [`LogError::Storage`] if segments or checkpoint cannot be found out.
    pub fn open(storage: S, key: &PublicKey) -> Result<Self, LogError> {
        let (reader, _) = Self::open_with_walk(storage, key)?;
        Ok(reader)
    }

    pub(crate) fn open_with_walk(storage: S, key: &PublicKey) -> Result<(Self, Tail), LogError> {
        let (checkpoint, walk, segments) = examine(&storage, key)?;
        let tail = Tail { chain: walk.chain, end: walk.end, segments };
        let Walk { tree, places, damage, .. } = walk;
        let reader = Self { storage, tree, places, checkpoint, damage, key: *key };
        Ok((reader, tail))
    }

    /// The number of readable entries.
    pub fn len(&self) -> u64 {
        self.tree.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The last checkpoint. `None` if the log was never written, or if its
    /// checkpoint is what is damaged.
    pub fn checkpoint(&self) -> Option<&SignedCheckpoint> {
        self.checkpoint.as_ref()
    }

    /// What is wrong with the log, if anything.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// The payload at `index`, read from storage and compared with its leaf hash.
    ///
    /// # Errors
    /// [`LogError::Proof`] if there is none, [`LogError::Storage`] if it cannot be
    /// read, [`LogError::Changed`] if its bytes are no longer what they were.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let size = self.len();
        let missing = ProofError::Index { index, size };
        let (Some(leaf), Some(entry)) =
            (self.tree.leaf(index), usize::try_from(index).ok().and_then(|at| self.places.get(at)))
        else {
            return Err(missing.into());
        };
        let mut payload = vec![0; entry.payload as usize];
        let start = u64::from(entry.offset) + record::HEADER_BYTES as u64;
        self.storage.read(entry.segment, start, &mut payload)?;
        let got = crate::tree::payload_leaf(&payload);
        if got != leaf {
            let place = crate::Place { segment: entry.segment, offset: entry.offset.into() };
            let kind = DamageKind::Root { expected: leaf, got };
            return Err(LogError::Changed(Damage { place, entries_before: index, kind }));
        }
        Ok(payload)
    }

    /// What stands under a path of the log as others fetch it; `None` if there
    /// is no such thing, or not yet. Entry bundles are made from the payloads.
    ///
    /// # Errors
    /// As [`Reader::entry`].
    pub fn resource(&self, resource: &Resource) -> Result<Option<Vec<u8>>, LogError> {
        Ok(match resource {
            Resource::Checkpoint => {
                self.checkpoint.as_ref().map(|checkpoint| checkpoint.note().as_bytes().to_vec())
            }
            Resource::Hashes(tile) => {
                let hashes = self.tree.row(8 * u32::from(tile.level()), tile.hashes());
                hashes.map(|hashes| hashes.as_flattened().to_vec())
            }
            Resource::Entries(tile) if tile.hashes().end > self.len() => None,
            Resource::Entries(tile) => {
                let entries: Result<Vec<Hash>, LogError> =
                    tile.hashes().map(|index| Ok(entry_of(&self.entry(index)?))).collect();
                Some(bundle(&entries?))
            }
        })
    }

    /// The root over the first `size` entries.
    ///
    /// # Errors
    /// [`ProofError::Size`] if there are fewer.
    pub fn root(&self, size: u64) -> Result<Hash, ProofError> {
        self.tree.root(size)
    }

    /// The path of the entry at `index` to the root over the first `size` entries.
    ///
    /// # Errors
    /// [`ProofError`] if there is no such entry or size.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
        let other = u64::from(planted("a path of another entry") && index > 0);
        self.tree.inclusion(index - other, size)
    }

    /// The proof that the first `from` entries are the beginning of the first `to`.
    ///
    /// # Errors
    /// [`ProofError`] if the sizes are out of order or beyond the log.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, ProofError> {
        self.tree.consistency(from, to)
    }

    /// Reads everything again, record by record, and holds it against the
    /// checkpoint on storage and against what was found when the log was opened.
    ///
    /// # Errors
    /// [`LogError::Damaged`] with the first thing wrong, [`LogError::Storage`] if
    /// segments or checkpoint cannot be found out.
    pub fn verify(&self) -> Result<Verified, LogError> {
        if let Some(damage) = &self.damage {
            return Err(LogError::Damaged(damage.clone()));
        }
        let (_, walk, segments) = examine(&self.storage, &self.key)?;
        if let Some(damage) = walk.damage {
            return Err(LogError::Damaged(damage));
        }
        if walk.tree.len() < self.len() {
            let (expected, got) = (self.len(), walk.tree.len());
            return Err(LogError::Damaged(walk.damage_here(DamageKind::Missing { expected, got })));
        }
        let (expected, got) = (self.root(self.len())?, walk.tree.root(self.len())?);
        if expected != got {
            return Err(LogError::Damaged(walk.damage_here(DamageKind::Root { expected, got })));
        }
        let whole = segments.iter().filter(|segment| segment.number < walk.end.segment);
        let bytes = whole.map(|segment| segment.bytes).sum::<u64>() + walk.end.offset;
        Ok(Verified { entries: walk.tree.len(), bytes, root: walk.tree.root(walk.tree.len())? })
    }

    /// Where the log lies.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.storage
    }
}

/// What only a writer needs of a walk.
pub(crate) struct Tail {
    pub(crate) chain: Hash,
    pub(crate) end: crate::Place,
    pub(crate) segments: Vec<Segment>,
}

/// Reads checkpoint and records and compares them. The checkpoint is read
/// first: a writer beside us can then only add to what it covers.
fn examine<S: Storage>(
    storage: &S,
    key: &PublicKey,
) -> Result<(Option<SignedCheckpoint>, Walk, Vec<Segment>), StorageError> {
    let note = storage.read_checkpoint()?;
    let segments = storage.segments()?;
    let chain = chain_start(&origin(&key.peer_id()));
    let opened = note.map(|note| SignedCheckpoint::open_of(&note, key));
    let (checkpoint, wrong) = match opened {
        None if segments.is_empty() => (None, None),
        None => (None, Some(DamageKind::CheckpointMissing)),
        Some(Err(error)) => (None, Some(DamageKind::Checkpoint(error))),
        Some(Ok(checkpoint)) => (Some(checkpoint), None),
    };
    let limit = checkpoint.as_ref().map(SignedCheckpoint::size);
    let mut walk = walk(storage, &segments, chain, limit);
    if let Some(kind) = wrong {
        walk.damage = Some(walk.damage_here(kind));
    }
    if let (Some(checkpoint), None) = (&checkpoint, &walk.damage) {
        let expected = *checkpoint.root();
        if let Ok(got) = walk.tree.root(checkpoint.size())
            && got != expected
        {
            walk.damage = Some(walk.damage_here(DamageKind::Root { expected, got }));
        }
    }
    Ok((checkpoint, walk, segments))
}

/// How many bytes a batch of payloads takes in a segment, with its padding.
pub(crate) fn batch_bytes(payloads: impl Iterator<Item = usize>) -> u64 {
    let records: u64 = payloads.map(|payload| record_bytes(payload) as u64).sum();
    records.next_multiple_of(record::SECTOR_BYTES)
}
