//! One pass over every record of a log, from the first byte on.
//!
//! Opening a log, verifying it and reading it offline are all this pass. It
//! stops at the first thing that is wrong and says what; what came before is
//! whole and chained. Bounded: it never holds more than one record and one
//! read-ahead of a segment. Absent: any repair.

use crate::damage::{Damage, DamageKind, Place};
use crate::limits::{MAX_ENTRIES, MAX_SEGMENT_BYTES, READ_BYTES};
use crate::record::{self, SECTOR_BYTES, record_bytes};
use crate::storage::{Segment, Storage};
use crate::tree::{Hash, Tree, payload_leaf};

/// What a pass over the records found.
pub(crate) struct Walk {
    pub(crate) tree: Tree,
    /// Where the record of each entry starts, and its payload's length.
    pub(crate) places: Vec<Entry>,
    /// Hash of the last whole record.
    pub(crate) chain: Hash,
    /// Where the next batch belongs.
    pub(crate) end: Place,
    /// Why the pass ended early.
    pub(crate) damage: Option<Damage>,
}

/// Where an entry's record lies. Segments are far below 4 GiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) payload: u32,
}

/// Walks `segments` until `limit` entries are found, or to their end.
pub(crate) fn walk<S: Storage>(
    storage: &S,
    segments: &[Segment],
    chain: Hash,
    limit: Option<u64>,
) -> Walk {
    let mut walk = Walk {
        tree: Tree::default(),
        places: Vec::new(),
        chain,
        end: Place::default(),
        damage: None,
    };
    if let Err(kind) = walk.segments(storage, segments, limit.unwrap_or(u64::MAX)) {
        walk.damage = Some(walk.damage_here(kind));
    } else if let Some(expected) = limit
        && walk.tree.len() < expected
    {
        let got = walk.tree.len();
        walk.damage = Some(walk.damage_here(DamageKind::Missing { expected, got }));
    }
    walk
}

impl Walk {
    pub(crate) fn damage_here(&self, kind: DamageKind) -> Damage {
        Damage { place: self.end, entries_before: self.tree.len(), kind }
    }

    fn segments<S: Storage>(
        &mut self,
        storage: &S,
        segments: &[Segment],
        limit: u64,
    ) -> Result<(), DamageKind> {
        for (expected, segment) in (0u32..).zip(segments) {
            if self.tree.len() >= limit {
                return Ok(());
            }
            if segment.number != expected {
                return Err(DamageKind::Segment { expected, got: segment.number });
            }
            self.end = Place { segment: segment.number, offset: 0 };
            let mut cursor = Cursor::new(storage, *segment);
            while self.end.offset < segment.bytes && self.tree.len() < limit {
                self.step(&mut cursor)?;
            }
            self.padding(&mut cursor)?;
        }
        Ok(())
    }

    /// Passes over one record, or over the padding behind a batch.
    fn step<S: Storage>(&mut self, cursor: &mut Cursor<'_, S>) -> Result<(), DamageKind> {
        let mut first = [0; 4];
        first.copy_from_slice(cursor.bytes(self.end.offset, 4)?);
        match record::payload_bytes(first)? {
            0 if self.end.offset.is_multiple_of(SECTOR_BYTES) => Err(DamageKind::Padding),
            0 => self.padding(cursor),
            payload => self.record(cursor, payload),
        }
    }

    fn record<S: Storage>(
        &mut self,
        cursor: &mut Cursor<'_, S>,
        payload: usize,
    ) -> Result<(), DamageKind> {
        if self.tree.len() >= MAX_ENTRIES {
            return Err(DamageKind::TooMany { limit: MAX_ENTRIES });
        }
        let bytes = cursor.bytes(self.end.offset, record_bytes(payload))?;
        let (content, chain) = record::decode(bytes, self.tree.len(), &self.chain)?;
        self.tree.push(payload_leaf(content));
        self.places.push(Entry::at(self.end, payload)?);
        self.chain = chain;
        self.end.offset += bytes.len() as u64;
        Ok(())
    }

    /// Passes over zeros up to the next sector, if the end is not at one.
    fn padding<S: Storage>(&mut self, cursor: &mut Cursor<'_, S>) -> Result<(), DamageKind> {
        let bytes = self.end.offset.next_multiple_of(SECTOR_BYTES) - self.end.offset;
        if bytes > 0 && cursor.bytes(self.end.offset, bytes as usize)?.iter().any(|byte| *byte != 0)
        {
            return Err(DamageKind::Padding);
        }
        self.end.offset += bytes;
        Ok(())
    }
}

impl Entry {
    /// The record at `place`.
    ///
    /// # Errors
    /// [`DamageKind::Length`] if it starts beyond 4 GiB, where no segment of ours reaches.
    pub(crate) fn at(place: Place, payload: usize) -> Result<Self, DamageKind> {
        let too_far = DamageKind::Length { got: place.offset, limit: MAX_SEGMENT_BYTES };
        Ok(Self {
            segment: place.segment,
            offset: u32::try_from(place.offset).map_err(|_| too_far)?,
            payload: payload as u32,
        })
    }
}

/// Reads a segment forward through a read-ahead.
struct Cursor<'a, S> {
    storage: &'a S,
    segment: Segment,
    ahead: Vec<u8>,
    /// Offset in the segment of the first byte read ahead.
    start: u64,
}

impl<'a, S: Storage> Cursor<'a, S> {
    fn new(storage: &'a S, segment: Segment) -> Self {
        Self { storage, segment, ahead: Vec::new(), start: 0 }
    }

    /// The `count` bytes at `offset`; `count` is at most one record.
    fn bytes(&mut self, offset: u64, count: usize) -> Result<&[u8], DamageKind> {
        let left = self.segment.bytes.saturating_sub(offset);
        if left < count as u64 {
            return Err(DamageKind::Truncated { needed: count as u64, left });
        }
        let held =
            offset >= self.start && offset + count as u64 <= self.start + self.ahead.len() as u64;
        if !held {
            let read = left.min(READ_BYTES.max(count) as u64) as usize;
            self.ahead.resize(read, 0);
            self.start = offset;
            self.storage
                .read(self.segment.number, offset, &mut self.ahead)
                .map_err(DamageKind::Unreadable)?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.ahead[from..from + count])
    }
}
