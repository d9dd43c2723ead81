//! The writing side: recovery, appends, fencing.
//!
//! An append writes the records, syncs them, writes a checkpoint that covers
//! them, and only then returns: what has returned is on the disk and signed. If
//! any step fails the log stops, and opening it again decides. Opening cuts what
//! lies behind the last checkpoint (nobody was told of it) and keeps it aside.
//! If anything up to the checkpoint is wrong the log is fenced: it reads, and
//! never signs again. Absent: threads, batching by time, the disk itself.

use std::ops::Range;
use std::sync::Arc;

use peerproof_identity::Keypair;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::damage::{Damage, DamageKind, Place};
use crate::error::{LogError, ProofError};
use crate::limits::{
    MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, MAX_ENTRIES, MAX_PAYLOAD_BYTES, MAX_SEGMENT_BYTES,
};
use crate::planted::planted;
use crate::reader::{Reader, Tail, Verified, batch_bytes};
use crate::record;
use crate::storage::{Segment, Storage, StorageError};
use crate::tiles::Resource;
use crate::tree::{Hash, Nodes as _, payload_leaf};
use crate::walk::Entry;
use crate::witness::AddCheckpoint;

/// An append-only signed log on some storage.
#[derive(Debug)]
pub struct Log<S> {
    reader: Reader<S>,
    key: Arc<Keypair>,
    chain: Hash,
    /// Where the next batch goes; `None` before the first segment exists.
    end: Option<Place>,
    stopped: Option<StorageError>,
    segment_bytes: u64,
}

impl<S: Storage> Log<S> {
    /// Opens the log of `key`, or begins one on empty storage.
    ///
    /// What lies behind the last checkpoint is cut and kept aside, and the
    /// checkpoint is made durable before anyone is shown it. A damaged log opens
    /// for reading only: see [`Log::damage`].
    ///
    /// # Errors
    /// [`LogError::Storage`] if storage fails; opening can be tried again.
    pub fn open(storage: S, key: Arc<Keypair>) -> Result<Self, LogError> {
        let (reader, tail) = Reader::open_with_walk(storage, &key.public())?;
        let mut log = Self {
            reader,
            key,
            chain: tail.chain,
            end: None,
            stopped: None,
            segment_bytes: MAX_SEGMENT_BYTES,
        };
        if log.reader.damage.is_none() {
            log.recover(&tail)?;
        }
        Ok(log)
    }

    /// Closes segments at `bytes` instead of [`MAX_SEGMENT_BYTES`]; for tests
    /// that want many segments. Larger values are lowered to the limit.
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.min(MAX_SEGMENT_BYTES);
        self
    }

    /// Appends a batch and returns the positions of its entries, once all of
    /// them are on storage under a durable checkpoint.
    ///
    /// # Errors
    /// On [`LogError::Storage`] the log stops and must be opened again; no entry
    /// of the batch is acknowledged. All other errors leave the log as it was.
    pub fn append<P: AsRef<[u8]>>(&mut self, batch: &[P]) -> Result<Range<u64>, LogError> {
        self.check_open()?;
        self.check_batch(batch)?;
        let from = self.len();
        if batch.is_empty() {
            return Ok(from..from);
        }
        match self.write(batch) {
            Ok(()) => Ok(from..self.len()),
            Err(error) => {
                self.reader.tree.truncate(from);
                self.reader.places.truncate(from as usize);
                if let LogError::Storage(error) = &error {
                    self.stopped = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// The number of entries.
    pub fn len(&self) -> u64 {
        self.reader.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// The checkpoint over all entries; `None` only if it is what is damaged.
    pub fn checkpoint(&self) -> Option<&SignedCheckpoint> {
        self.reader.checkpoint()
    }

    /// Why the log takes no entries, if it is damaged.
    pub fn damage(&self) -> Option<&Damage> {
        self.reader.damage()
    }

    /// The payload at `index`; see [`Reader::entry`].
    ///
    /// # Errors
    /// As [`Reader::entry`].
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, LogError> {
        self.reader.entry(index)
    }

    /// The root over the first `size` entries.
    ///
    /// # Errors
    /// [`ProofError::Size`] if there are fewer.
    pub fn root(&self, size: u64) -> Result<Hash, ProofError> {
        self.reader.root(size)
    }

    /// The path of the entry at `index` to the root over the first `size` entries.
    ///
    /// # Errors
    /// [`ProofError`] if there is no such entry or size.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
        self.reader.inclusion(index, size)
    }

    /// The proof that the first `from` entries are the beginning of the first `to`.
    ///
    /// # Errors
    /// [`ProofError`] if the sizes are out of order or beyond the log.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, ProofError> {
        self.reader.consistency(from, to)
    }

    /// Reads and checks everything again; see [`Reader::verify`].
    ///
    /// # Errors
    /// As [`Reader::verify`].
    pub fn verify(&self) -> Result<Verified, LogError> {
        self.reader.verify()
    }

    /// Whether the log takes entries.
    ///
    /// # Errors
    /// [`LogError::Damaged`] or [`LogError::Stopped`].
    pub fn check_open(&self) -> Result<(), LogError> {
        if let Some(damage) = &self.reader.damage {
            return Err(LogError::Damaged(damage.clone()));
        }
        match &self.stopped {
            Some(error) => Err(LogError::Stopped(error.clone())),
            None => Ok(()),
        }
    }

    /// Holds the log against a checkpoint of its own that somebody else kept. If
    /// they saw more entries, or others, this is an older copy of the log or a
    /// second history of it, and the log is fenced.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if it was so, or is; [`LogError::Checkpoint`] if the
    /// checkpoint is another log's.
    pub fn confront(&mut self, held: &SignedCheckpoint) -> Result<(), LogError> {
        if held.signer() != self.key.public() {
            let (expected, got) = (self.key.public().peer_id(), held.signer().peer_id());
            return Err(CheckpointError::Key { expected, got }.into());
        }
        let kind = match self.reader.root(held.size()) {
            Ok(root) if root == *held.root() => None,
            Ok(got) => Some(DamageKind::Other { size: held.size(), expected: *held.root(), got }),
            Err(_) => Some(DamageKind::Older { expected: held.size(), got: self.len() }),
        };
        if let (Some(kind), None) = (kind, &self.reader.damage) {
            let place = self.end.unwrap_or_default();
            self.reader.damage = Some(Damage { place, entries_before: self.len(), kind });
        }
        match &self.reader.damage {
            Some(damage) => Err(LogError::Damaged(damage.clone())),
            None => Ok(()),
        }
    }

    /// What stands under a path of the log as others fetch it; see
    /// [`Reader::resource`].
    ///
    /// # Errors
    /// As [`Reader::resource`].
    pub fn resource(&self, resource: &Resource) -> Result<Option<Vec<u8>>, LogError> {
        self.reader.resource(resource)
    }

    /// The request that asks a witness to cosign the log, whose last checkpoint
    /// covers `old` entries.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if there is no checkpoint, [`LogError::Proof`] if
    /// `old` is larger than the log.
    pub fn add_checkpoint(&self, old: u64) -> Result<AddCheckpoint, LogError> {
        self.check_open()?;
        let Some(checkpoint) = self.checkpoint() else {
            return Err(ProofError::Size { got: old, limit: 0 }.into());
        };
        let path = self.consistency(old, checkpoint.size())?;
        Ok(AddCheckpoint { old, path, checkpoint: checkpoint.note().as_bytes().to_vec() })
    }

    /// Gives the storage back, to open the log again.
    pub fn into_storage(self) -> S {
        self.reader.storage
    }

    /// Cuts the tail, last segment first, so that a power cut in between leaves
    /// nothing but a shorter tail; then makes the checkpoint durable. What is read
    /// may come from a cache that a power cut empties. A checkpoint that was shown
    /// to someone and then vanishes makes the next one a fork; and a tail that an
    /// earlier recovery has cut off, but not for good, comes back behind records
    /// that were written since. So where a tail may have been, it is synced.
    fn recover(&mut self, tail: &Tail) -> Result<(), LogError> {
        let keep = |segment: &Segment| match segment.number.cmp(&tail.end.segment) {
            std::cmp::Ordering::Less => segment.bytes,
            std::cmp::Ordering::Equal => tail.end.offset,
            std::cmp::Ordering::Greater => 0,
        };
        for segment in tail.segments.iter().rev() {
            if keep(segment) < segment.bytes {
                self.reader.storage.cut(segment.number, keep(segment))?;
            } else if segment.number >= tail.end.segment {
                self.reader.storage.sync(segment.number)?;
            }
        }
        self.end = tail
            .segments
            .last()
            .map(|segment| Place { segment: segment.number, offset: keep(segment) });
        let checkpoint = match &self.reader.checkpoint {
            Some(checkpoint) => checkpoint.clone(),
            None => SignedCheckpoint::sign(0, self.reader.root(0)?, &self.key)?,
        };
        self.reader.storage.write_checkpoint(checkpoint.note().as_bytes())?;
        self.reader.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn check_batch<P: AsRef<[u8]>>(&self, batch: &[P]) -> Result<(), LogError> {
        let over = |unit, limit, got| LogError::Batch { unit, limit, got };
        if batch.len() > MAX_BATCH_ENTRIES {
            return Err(over("entries", MAX_BATCH_ENTRIES, batch.len()));
        }
        let mut total = 0;
        for got in batch.iter().map(|payload| payload.as_ref().len()) {
            if got == 0 || got > MAX_PAYLOAD_BYTES {
                return Err(LogError::PayloadLength { limit: MAX_PAYLOAD_BYTES, got });
            }
            total += got;
        }
        if total > MAX_BATCH_BYTES {
            return Err(over("bytes", MAX_BATCH_BYTES, total));
        }
        if self.len() + batch.len() as u64 > MAX_ENTRIES {
            return Err(LogError::Full { limit: MAX_ENTRIES });
        }
        Ok(())
    }

    fn write<P: AsRef<[u8]>>(&mut self, batch: &[P]) -> Result<(), LogError> {
        let start = self.room(batch_bytes(batch.iter().map(|payload| payload.as_ref().len())))?;
        let mut bytes = Vec::new();
        let mut chain = self.chain;
        for payload in batch {
            let payload = payload.as_ref();
            let place = Place { segment: start.segment, offset: start.offset + bytes.len() as u64 };
            let entry = Entry::at(place, payload.len());
            self.reader.places.push(entry.map_err(|_| LogError::Full { limit: MAX_ENTRIES })?);
            chain = record::encode(self.reader.tree.len(), &chain, payload, &mut bytes);
            self.reader.tree.push(payload_leaf(payload));
        }
        record::pad(&mut bytes);

        let size = self.reader.tree.len();
        let root = self.reader.tree.root(size)?;
        let checkpoint = SignedCheckpoint::sign(size, root, &self.key)?;
        let storage = &mut self.reader.storage;
        storage.append(start.segment, start.offset, &bytes)?;
        if planted("signed before it is synced") {
            storage.write_checkpoint(checkpoint.note().as_bytes())?;
        }
        if !planted("acknowledged before it is synced") {
            storage.sync(start.segment)?;
        }
        storage.write_checkpoint(checkpoint.note().as_bytes())?;

        self.reader.checkpoint = Some(checkpoint);
        self.chain = chain;
        self.end =
            Some(Place { segment: start.segment, offset: start.offset + bytes.len() as u64 });
        Ok(())
    }

    /// The place for a batch of `bytes`: the end, or a new segment.
    fn room(&mut self, bytes: u64) -> Result<Place, LogError> {
        let next = match self.end {
            Some(end) if end.offset == 0 || end.offset + bytes <= self.segment_bytes => {
                return Ok(end);
            }
            Some(end) => end.segment.checked_add(1).ok_or(LogError::Full { limit: MAX_ENTRIES })?,
            None => 0,
        };
        self.reader.storage.create_segment(next)?;
        let end = Place { segment: next, offset: 0 };
        self.end = Some(end);
        Ok(end)
    }
}
