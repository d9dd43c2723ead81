//! What of a file's tree stands beside the groups that were fetched.
//!
//! Every slice that was taken in brings the values of the subtrees beside it. They are
//! kept, each once, in memory and as records at the end of a file: first group and
//! number of groups (8 bytes each, little-endian), value. Records are believed to be
//! nothing: what is opened with them is verified against the model's id by who opens
//! it, and if that fails they are forgotten.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::ops::Range;
use std::path::Path;

use peerproof_proof::ranges::Shape;
use peerproof_wire::Digest;

const RECORD_BYTES: usize = 8 + 8 + 32;

/// Values of subtrees, by their groups.
#[derive(Debug)]
pub(super) struct Beside {
    /// `None` if it can't be written: what is known is then known until the end of the process.
    file: Option<File>,
    known: HashMap<(u64, u64), Digest>,
    /// A tree has no more nodes than this.
    most: usize,
}

impl Beside {
    /// Reads what an earlier process kept; a torn end, or what can't be of this file, is cut off.
    pub(super) fn open(path: &Path, shape: Shape) -> Beside {
        let most = usize::try_from(shape.groups().saturating_mul(2)).unwrap_or(usize::MAX);
        let opened =
            OpenOptions::new().create(true).truncate(false).read(true).append(true).open(path);
        let mut beside = Beside { file: opened.ok(), known: HashMap::new(), most };
        let mut bytes = Vec::new();
        if let Some(file) = &mut beside.file {
            let limit = most.saturating_mul(RECORD_BYTES) as u64;
            let _ = Read::take(file, limit).read_to_end(&mut bytes);
        }
        let (records, torn) = bytes.as_chunks::<RECORD_BYTES>();
        for record in records {
            let Some((first, count, value)) = parse(record, shape) else {
                beside.forget();
                return beside;
            };
            beside.known.insert((first, count), value);
        }
        let whole = (bytes.len() - torn.len()) as u64;
        if !torn.is_empty() && beside.file.as_ref().is_some_and(|file| file.set_len(whole).is_err())
        {
            beside.file = None;
        }
        beside
    }

    /// Takes in what stood beside a slice that was verified.
    pub(super) fn add<'a>(&mut self, values: impl Iterator<Item = (Range<u64>, &'a Digest)>) {
        let mut records = Vec::new();
        for (groups, value) in values {
            let place = (groups.start, groups.end - groups.start);
            // Another value than before is the right one: this one was verified.
            if self.known.len() >= self.most || self.known.insert(place, *value) == Some(*value) {
                continue;
            }
            records.extend(place.0.to_le_bytes());
            records.extend(place.1.to_le_bytes());
            records.extend(value.as_bytes());
        }
        if self.file.as_mut().is_some_and(|file| file.write_all(&records).is_err()) {
            self.file = None;
        }
    }

    /// The value of a subtree, if it stood beside something.
    pub(super) fn value(&self, groups: &Range<u64>) -> Option<Digest> {
        self.known.get(&(groups.start, groups.end - groups.start)).copied()
    }

    /// Nothing of it is of use.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        if self.file.as_ref().is_some_and(|file| file.set_len(0).is_err()) {
            self.file = None;
        }
    }
}

fn parse(record: &[u8; RECORD_BYTES], shape: Shape) -> Option<(u64, u64, Digest)> {
    let number = |at: usize| {
        record[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let (first, count) = (number(0), number(8));
    let end = first.checked_add(count).filter(|end| count > 0 && *end <= shape.groups());
    end.and_then(|_| Some((first, count, Digest::from_slice(&record[16..]).ok()?)))
}
