//! A node's disk: what a process sees, and what a power cut leaves of it.
//!
//! The log's own tests cut the power at every kind of moment; here the same
//! kind of disk lies under nodes that talk. At a cut an unsynced file ends
//! anywhere between what was synced and what was seen, and each of its unsynced
//! 512-byte sectors is kept, put back, zeroed or garbled by itself. A note that
//! was not confirmed is the old one or the new one. After a kill everything that
//! was seen is still there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use peerproof_log::{Segment, Storage, StorageError, StorageFault};

use crate::random::Random;

const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct File {
    seen: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug)]
struct State {
    files: BTreeMap<u32, File>,
    seen_note: Option<Vec<u8>>,
    synced_note: Option<Vec<u8>>,
    random: Random,
    /// Operations until the process dies in the middle of one.
    fuse: Option<u64>,
    dead: bool,
}

/// A handle; clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Rc<RefCell<State>>);

impl Disk {
    pub(crate) fn new(random: Random) -> Self {
        Self(Rc::new(RefCell::new(State {
            files: BTreeMap::new(),
            seen_note: None,
            synced_note: None,
            random,
            fuse: None,
            dead: false,
        })))
    }

    /// Lets the process die inside one of its next operations that write.
    pub(crate) fn light_fuse(&self, operations: u64) {
        self.0.borrow_mut().fuse = Some(operations);
    }

    /// Nothing dies any more.
    pub(crate) fn snuff_fuse(&self) {
        self.0.borrow_mut().fuse = None;
    }

    /// Whether the process died inside an operation.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.borrow().dead
    }

    /// The process is gone; after a power cut, so is what was not synced.
    pub(crate) fn crash(&self, power_cut: bool) {
        let state = &mut *self.0.borrow_mut();
        (state.dead, state.fuse) = (false, None);
        if !power_cut {
            return;
        }
        for file in state.files.values_mut() {
            let left = survive(file, &mut state.random);
            *file = File { seen: left.clone(), synced: left };
        }
        if state.random.one_in(2) {
            state.synced_note.clone_from(&state.seen_note);
        }
        state.seen_note.clone_from(&state.synced_note);
    }

    /// Does all of a change, or the part of it that comes before death.
    fn change(
        &self,
        operation: &'static str,
        whole: impl FnOnce(&mut State) -> Result<(), StorageError>,
        part: impl FnOnce(&mut State),
    ) -> Result<(), StorageError> {
        let state = &mut *self.0.borrow_mut();
        if state.dead {
            return Err(error(operation));
        }
        match &mut state.fuse {
            Some(0) => {
                part(state);
                state.dead = true;
                Err(error(operation))
            }
            Some(left) => {
                *left -= 1;
                whole(state)
            }
            None => whole(state),
        }
    }
}

impl State {
    fn file(&mut self, segment: u32) -> Result<&mut File, StorageError> {
        self.files.get_mut(&segment).ok_or_else(|| error("find"))
    }
}

fn survive(file: &File, random: &mut Random) -> Vec<u8> {
    let (seen, synced) = (&file.seen, &file.synced);
    let length = match seen.len().checked_sub(synced.len()) {
        Some(grown) => synced.len() + random.below(grown as u64 + 1) as usize,
        None if random.one_in(2) => seen.len(),
        None => synced.len(),
    };
    let mut left: Vec<u8> = Vec::with_capacity(length);
    for start in (0..length).step_by(SECTOR) {
        let end = length.min(start + SECTOR);
        let (new, old) = (seen.get(start..end), synced.get(start..end));
        let kept = new.or(old).map_or_else(|| vec![0; end - start], <[u8]>::to_vec);
        left.extend(match (new == old, random.below(4)) {
            (true, _) | (false, 0) => kept,
            (false, 1) => old.map_or(kept, <[u8]>::to_vec),
            (false, 2) => vec![0; end - start],
            (false, _) => (start..end).map(|_| random.next() as u8).collect(),
        });
    }
    left
}

fn error(operation: &'static str) -> StorageError {
    StorageError {
        fault: StorageFault::Failed,
        operation,
        place: "the virtual disk".to_owned(),
        message: "the process died".to_owned(),
    }
}

impl Storage for Disk {
    fn segments(&self) -> Result<Vec<Segment>, StorageError> {
        let state = self.0.borrow();
        let segment = |(number, file): (&u32, &File)| Segment {
            number: *number,
            bytes: file.seen.len() as u64,
        };
        Ok(state.files.iter().map(segment).collect())
    }

    fn read(&self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let mut state = self.0.borrow_mut();
        let file = state.file(segment)?;
        let bytes = file.seen.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or_else(|| error("read"))?);
        Ok(())
    }

    fn create_segment(&mut self, segment: u32) -> Result<(), StorageError> {
        let create = move |state: &mut State| {
            if state.files.contains_key(&segment) {
                return Err(error("create"));
            }
            state.files.insert(segment, File::default());
            Ok(())
        };
        self.change("create", create, |state| {
            if state.random.one_in(2) {
                let _ = create(state);
            }
        })
    }

    fn append(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let write = |state: &mut State, bytes: &[u8]| {
            let file = state.file(segment)?;
            if file.seen.len() as u64 != offset {
                return Err(error("append to"));
            }
            file.seen.extend_from_slice(bytes);
            Ok(())
        };
        self.change(
            "append to",
            |state| write(state, bytes),
            |state| {
                let part = state.random.below(bytes.len() as u64 + 1) as usize;
                let _ = write(state, &bytes[..part]);
            },
        )
    }

    fn sync(&mut self, segment: u32) -> Result<(), StorageError> {
        let sync = |state: &mut State| {
            let file = state.file(segment)?;
            file.synced.clone_from(&file.seen);
            Ok(())
        };
        self.change("sync", sync, |_| {})
    }

    fn cut(&mut self, segment: u32, keep_bytes: u64) -> Result<(), StorageError> {
        let cut = |state: &mut State| {
            let file = state.file(segment)?;
            file.seen.truncate(keep_bytes as usize);
            file.synced.clone_from(&file.seen);
            Ok(())
        };
        self.change("cut", cut, |state| {
            if state.random.one_in(2)
                && let Ok(file) = state.file(segment)
            {
                file.seen.truncate(keep_bytes as usize);
            }
        })
    }

    fn read_checkpoint(&self) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.borrow().seen_note.clone())
    }

    fn write_checkpoint(&mut self, note: &[u8]) -> Result<(), StorageError> {
        self.change(
            "write the checkpoint",
            |state| {
                state.seen_note = Some(note.to_vec());
                state.synced_note.clone_from(&state.seen_note);
                Ok(())
            },
            |state| {
                if state.random.one_in(2) {
                    state.seen_note = Some(note.to_vec());
                }
            },
        )
    }
}
