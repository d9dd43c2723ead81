//! A log in memory, for tests, examples and simulations without faults.

use std::collections::BTreeMap;

use crate::storage::{Segment, Storage, StorageError, StorageFault};

/// Storage that forgets everything when dropped.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    /// The bytes of each segment.
    pub segments: BTreeMap<u32, Vec<u8>>,
    /// The checkpoint.
    pub checkpoint: Option<Vec<u8>>,
    /// What was cut, in order: segment, offset, bytes.
    pub aside: Vec<(u32, u64, Vec<u8>)>,
}

impl MemoryStorage {
    fn segment(&self, number: u32) -> Result<&Vec<u8>, StorageError> {
        self.segments.get(&number).ok_or_else(|| error("read", number, "no such segment"))
    }

    fn segment_mut(&mut self, number: u32) -> Result<&mut Vec<u8>, StorageError> {
        self.segments.get_mut(&number).ok_or_else(|| error("append to", number, "no such segment"))
    }
}

impl Storage for MemoryStorage {
    fn segments(&self) -> Result<Vec<Segment>, StorageError> {
        let segment = |(number, bytes): (&u32, &Vec<u8>)| Segment {
            number: *number,
            bytes: bytes.len() as u64,
        };
        Ok(self.segments.iter().map(segment).collect())
    }

    fn read(&self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.segment(segment).ok()?.get(start..)?.get(..buffer.len()))
            .ok_or_else(|| error("read", segment, "no such bytes"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn create_segment(&mut self, segment: u32) -> Result<(), StorageError> {
        if self.segments.insert(segment, Vec::new()).is_some() {
            return Err(error("create", segment, "it exists"));
        }
        Ok(())
    }

    fn append(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let held = self.segment_mut(segment)?;
        if held.len() as u64 != offset {
            return Err(error("append to", segment, "the end is elsewhere"));
        }
        held.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, segment: u32) -> Result<(), StorageError> {
        self.segment(segment).map(drop)
    }

    fn cut(&mut self, segment: u32, keep_bytes: u64) -> Result<(), StorageError> {
        let held = self.segment_mut(segment)?;
        let keep = held.len().min(usize::try_from(keep_bytes).unwrap_or(usize::MAX));
        let tail = held.split_off(keep);
        self.aside.push((segment, keep_bytes, tail));
        Ok(())
    }

    fn read_checkpoint(&self) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.checkpoint.clone())
    }

    fn write_checkpoint(&mut self, note: &[u8]) -> Result<(), StorageError> {
        self.checkpoint = Some(note.to_vec());
        Ok(())
    }
}

fn error(operation: &'static str, segment: u32, message: &str) -> StorageError {
    StorageError {
        fault: StorageFault::Failed,
        operation,
        place: format!("segment {segment}"),
        message: message.to_owned(),
    }
}
