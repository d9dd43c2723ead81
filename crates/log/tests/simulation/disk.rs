//! A disk that keeps its promises and nothing beyond them.
//!
//! Each file has bytes that a process sees and bytes that a power cut leaves.
//! At a cut, an unsynced file ends anywhere between its synced and its visible
//! length, and every 512-byte sector that holds an unsynced byte is, each by
//! itself, kept, zeroed or garbled, synced bytes in it included. After a failed
//! sync the system believes unwritten bytes to be clean: later syncs of them
//! succeed and write nothing. A checkpoint that was not confirmed may be the old
//! one or the new one after the cut, whichever was seen before it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use peerproof_log::{Segment, Storage, StorageError, StorageFault};

use crate::Random;

const SECTOR: usize = 512;

/// What happens at one operation, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The process dies somewhere inside the operation.
    Death,
    /// The operation fails, in part or in whole.
    Fault(StorageFault),
}

/// A promise the disk breaks, to show that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// Syncs of segments do nothing.
    Sync,
    /// Checkpoints are confirmed before they are durable.
    Checkpoint,
    /// As `Checkpoint`, only where the bytes are those already visible.
    SameCheckpoint,
    /// A checkpoint becomes durable before the records under it are synced.
    Early,
}

#[derive(Clone, Debug, Default)]
struct File {
    visible: Vec<u8>,
    durable: Vec<u8>,
    /// A sync failed: the system takes unsynced bytes for written.
    forgotten: bool,
}

#[derive(Clone, Debug)]
struct State {
    files: BTreeMap<u32, File>,
    visible_checkpoint: Option<Vec<u8>>,
    durable_checkpoint: Option<Vec<u8>>,
    aside: usize,
    random: Random,
    dead: bool,
    lie: Lie,
}

/// A handle; clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    state: Rc<RefCell<State>>,
    operations: Rc<Cell<u64>>,
    event: Rc<Cell<Option<(u64, Event)>>>,
}

impl Disk {
    pub(crate) fn new(seed: u64, lie: Lie) -> Self {
        let state = State {
            files: BTreeMap::new(),
            visible_checkpoint: None,
            durable_checkpoint: None,
            aside: 0,
            random: Random(seed),
            dead: false,
            lie,
        };
        Self {
            state: Rc::new(RefCell::new(state)),
            operations: Rc::default(),
            event: Rc::default(),
        }
    }

    /// Another disk in the same state, whose luck is `seed`'s.
    pub(crate) fn fork(&self, seed: u64) -> Self {
        let state = State { random: Random(seed), ..self.state.borrow().clone() };
        Self {
            state: Rc::new(RefCell::new(state)),
            operations: Rc::default(),
            event: Rc::default(),
        }
    }

    /// Lets `event` happen after `operations` more operations.
    pub(crate) fn schedule(&self, operations: u64, event: Event) {
        self.event.set(Some((self.operations.get() + operations, event)));
    }

    pub(crate) fn operations(&self) -> u64 {
        self.operations.get()
    }

    /// Whether the scheduled event has happened.
    pub(crate) fn happened(&self) -> bool {
        self.event.get().is_some_and(|(at, _)| self.operations.get() > at)
    }

    /// The process is started again: files are as the last one saw them.
    pub(crate) fn restart(&self) {
        self.event.set(None);
        self.state.borrow_mut().dead = false;
    }

    /// The power fails and comes back.
    pub(crate) fn cut_power(&self) {
        self.restart();
        let state = &mut *self.state.borrow_mut();
        for file in state.files.values_mut() {
            let left = survive(file, &mut state.random);
            *file = File { visible: left.clone(), durable: left, forgotten: false };
        }
        if state.random.one_in(2) {
            state.durable_checkpoint.clone_from(&state.visible_checkpoint);
        }
        state.visible_checkpoint.clone_from(&state.durable_checkpoint);
    }

    /// A bit decays under a running process.
    pub(crate) fn flip(&self, segment: u32, bit: usize) {
        let mut state = self.state.borrow_mut();
        let byte = state.files.get_mut(&segment).and_then(|file| file.visible.get_mut(bit / 8));
        *byte.expect("a byte of the segment") ^= 1 << (bit % 8);
    }

    /// Someone copies another log over this one.
    pub(crate) fn become_copy_of(&self, other: &Self) {
        let (mut state, other) = (self.state.borrow_mut(), other.state.borrow());
        state.files.clone_from(&other.files);
        state.visible_checkpoint.clone_from(&other.visible_checkpoint);
        state.durable_checkpoint.clone_from(&other.durable_checkpoint);
    }

    /// How often bytes were kept aside.
    pub(crate) fn kept_aside(&self) -> usize {
        self.state.borrow().aside
    }

    /// Counts an operation; `Some` if it is the one that does not go through.
    fn count(&self) -> Option<Event> {
        let now = self.operations.get();
        self.operations.set(now + 1);
        self.event.get().filter(|(at, _)| *at == now).map(|(_, event)| event)
    }

    /// For operations that change nothing.
    fn look(&self, operation: &'static str) -> Result<(), StorageError> {
        let event = self.count();
        let mut state = self.state.borrow_mut();
        match event {
            Some(event) => Err(state.break_off(event, operation)),
            None if state.dead => Err(error(StorageFault::Failed, operation)),
            None => Ok(()),
        }
    }

    /// For operations that change something: `whole` does all of it, `part` what
    /// may be done when it breaks off.
    fn change(
        &self,
        operation: &'static str,
        whole: impl FnOnce(&mut State) -> Result<(), StorageError>,
        part: impl FnOnce(&mut State),
    ) -> Result<(), StorageError> {
        let event = self.count();
        let state = &mut *self.state.borrow_mut();
        if state.dead {
            return Err(error(StorageFault::Failed, operation));
        }
        match event {
            Some(event) => {
                part(state);
                Err(state.break_off(event, operation))
            }
            None => whole(state),
        }
    }
}

impl State {
    fn break_off(&mut self, event: Event, operation: &'static str) -> StorageError {
        match event {
            Event::Death => {
                self.dead = true;
                error(StorageFault::Failed, operation)
            }
            Event::Fault(fault) => error(fault, operation),
        }
    }

    fn file(&mut self, segment: u32) -> Result<&mut File, StorageError> {
        self.files.get_mut(&segment).ok_or_else(|| error(StorageFault::Failed, "find"))
    }
}

/// What a power cut leaves of a file.
fn survive(file: &File, random: &mut Random) -> Vec<u8> {
    let (visible, durable) = (&file.visible, &file.durable);
    let length = match visible.len().checked_sub(durable.len()) {
        Some(grown) => durable.len() + random.up_to(grown),
        // Shortened and not synced: either length.
        None if random.one_in(2) => visible.len(),
        None => durable.len(),
    };
    let mut left: Vec<u8> = Vec::with_capacity(length);
    for start in (0..length).step_by(SECTOR) {
        let end = length.min(start + SECTOR);
        let (new, old) = (visible.get(start..end), durable.get(start..end));
        let kept = new.or(old).map_or_else(|| vec![0; end - start], <[u8]>::to_vec);
        left.extend(match (new == old, random.below(4)) {
            (true, _) | (false, 0) => kept,
            (false, 1) => old.map_or(kept, <[u8]>::to_vec),
            (false, 2) => vec![0; end - start],
            (false, _) => random.bytes(end - start),
        });
    }
    left
}

fn error(fault: StorageFault, operation: &'static str) -> StorageError {
    StorageError {
        fault,
        operation,
        place: "the simulated disk".to_owned(),
        message: "as scheduled".to_owned(),
    }
}

impl Storage for Disk {
    fn segments(&self) -> Result<Vec<Segment>, StorageError> {
        self.look("list")?;
        let state = self.state.borrow();
        let segment = |(number, file): (&u32, &File)| Segment {
            number: *number,
            bytes: file.visible.len() as u64,
        };
        Ok(state.files.iter().map(segment).collect())
    }

    fn read(&self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.look("read")?;
        let mut state = self.state.borrow_mut();
        let file = state.file(segment)?;
        let bytes = file.visible.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or_else(|| error(StorageFault::Failed, "read"))?);
        Ok(())
    }

    fn create_segment(&mut self, segment: u32) -> Result<(), StorageError> {
        let create = move |state: &mut State| {
            if state.files.contains_key(&segment) {
                return Err(error(StorageFault::Failed, "create"));
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
            if file.visible.len() as u64 != offset {
                return Err(error(StorageFault::Failed, "append to"));
            }
            file.visible.extend_from_slice(bytes);
            Ok(())
        };
        self.change(
            "append to",
            |state| write(state, bytes),
            |state| {
                let part = state.random.up_to(bytes.len());
                let _ = write(state, &bytes[..part]);
            },
        )
    }

    fn sync(&mut self, segment: u32) -> Result<(), StorageError> {
        self.change(
            "sync",
            |state| {
                let lie = matches!(state.lie, Lie::Sync | Lie::Early);
                let file = state.file(segment)?;
                if !lie && !file.forgotten {
                    file.durable.clone_from(&file.visible);
                }
                Ok(())
            },
            |state| {
                // Only bytes can be taken for written; a file that was cut is still to be cut.
                if let Ok(file) = state.file(segment) {
                    file.forgotten |= !file.durable.starts_with(&file.visible);
                }
            },
        )
    }

    fn cut(&mut self, segment: u32, keep_bytes: u64) -> Result<(), StorageError> {
        self.change(
            "cut",
            |state| {
                state.aside += 1;
                let file = state.file(segment)?;
                file.visible.truncate(keep_bytes as usize);
                file.durable.clone_from(&file.visible);
                file.forgotten = false;
                Ok(())
            },
            |state| {
                if state.random.one_in(2)
                    && let Ok(file) = state.file(segment)
                {
                    file.visible.truncate(keep_bytes as usize);
                    // Nothing is left of the bytes that were taken for written.
                    file.forgotten = false;
                }
            },
        )
    }

    fn read_checkpoint(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.look("read")?;
        Ok(self.state.borrow().visible_checkpoint.clone())
    }

    fn write_checkpoint(&mut self, note: &[u8]) -> Result<(), StorageError> {
        self.change(
            "write the checkpoint",
            |state| {
                let same = state.visible_checkpoint.as_deref() == Some(note);
                state.visible_checkpoint = Some(note.to_vec());
                let lie =
                    state.lie == Lie::Checkpoint || (state.lie == Lie::SameCheckpoint && same);
                if !lie {
                    state.durable_checkpoint.clone_from(&state.visible_checkpoint);
                }
                if state.lie == Lie::Early {
                    state
                        .files
                        .values_mut()
                        .for_each(|file| file.durable.clone_from(&file.visible));
                }
                Ok(())
            },
            |state| {
                if state.random.one_in(2) {
                    state.visible_checkpoint = Some(note.to_vec());
                    // The new name may reach the disk with nothing behind it synced.
                    if state.lie == Lie::Early {
                        state.durable_checkpoint.clone_from(&state.visible_checkpoint);
                    }
                }
            },
        )
    }
}
