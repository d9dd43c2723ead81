//! A model file of which only some groups are here, each verified before it was written.
//!
//! `ID.partial` is a sparse file of the model's length, `ID.partial-values` beside
//! it the value of every group that is there (32 bytes a group, zeros for one that
//! is not), after a header with id and length, and `ID.partial-beside` what of the
//! tree stood beside the slices, so that what was fetched can be opened to others. A group goes its way once: slice,
//! [`verify`], data, value. What an earlier process left is hashed against its
//! values before it is believed; a group that differs is missing, files that don't
//! fit each other are begun anew. So neither a kill nor a power cut needs care
//! about the order in which bytes reach the disk. When all groups are there, the
//! whole is hashed once more and becomes an installed model.
//!
//! Deliberately absent: where the groups come from.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use peerproof_proof::ranges::{Mode, RangeError, Shape, Slice, Tree, subtree_value, verify};
use peerproof_wire::{Digest, ModelId};
use serde::Serialize;

use super::claim::Claim;
use super::tree::{self, GROUP};
use super::{ModelError, Progress, Stage, Watch};
use beside::Beside;

/// First bytes of the values' file.
const MAGIC: &[u8; 8] = b"PPPART01";
/// Magic, log₂ of the group in chunks, length, id.
const HEADER_BYTES: u64 = 8 + 1 + 8 + 32;
/// Values read at once.
const VALUES_AT_ONCE: usize = 2048;

/// Why a slice was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// It is not the opening of that range of this file: whoever sent it is at fault.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] ModelError),
}

/// A model file in the making. One process has it at a time; its threads share it.
#[derive(Debug)]
pub struct Partial {
    id: ModelId,
    shape: Shape,
    files: Files,
    data: File,
    values: File,
    groups: Mutex<Groups>,
    beside: Mutex<Beside>,
    _claim: Claim,
}

/// A model file in the making, from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// Model id, 64 hex digits.
    pub id: String,
    /// Bytes that are here.
    pub have_bytes: u64,
    /// Bytes of the whole.
    pub bytes: u64,
}

/// Where a partial file lies.
#[derive(Clone, Debug)]
struct Files {
    data: PathBuf,
    values: PathBuf,
    beside: PathBuf,
}

impl Files {
    fn new(dir: &Path, id: ModelId) -> Files {
        Files {
            data: dir.join(format!("{id}.partial")),
            values: dir.join(format!("{id}.partial-values")),
            beside: dir.join(format!("{id}.partial-beside")),
        }
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.values);
        let _ = fs::remove_file(&self.beside);
        let _ = fs::remove_file(&self.data);
    }
}

/// One bit a group.
#[derive(Debug)]
struct Groups {
    /// A value stands in the file.
    there: Vec<bool>,
    /// This process has seen that value and bytes agree.
    checked: Vec<bool>,
    bytes: u64,
}

impl Partial {
    /// What an earlier process began; `None` if there is nothing that can be gone on with.
    ///
    /// # Errors
    /// Another process has it, or the files can't be read.
    pub fn open(dir: &Path, id: ModelId) -> Result<Option<Partial>, ModelError> {
        let files = Files::new(dir, id);
        if !files.values.is_file() {
            return Ok(None);
        }
        let claim = Claim::take(dir, &id.to_string())?;
        match read_header(&files, id)? {
            Some(shape) => Self::of(id, shape, files, claim).map(Some),
            None => {
                tracing::warn!(path = %files.values.display(), "damaged; the download begins anew");
                files.remove();
                Ok(None)
            }
        }
    }

    /// The id and size of every file in the making in a folder, with how much of it is here,
    /// as the files say.
    pub(super) fn list(dir: &Path) -> Vec<Unfinished> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| {
            let path = entry.path();
            let named = path.extension().is_some_and(|e| e == "partial-values");
            named.then(|| path.file_stem()?.to_str()?.parse::<ModelId>().ok()).flatten()
        });
        let mut found: Vec<Unfinished> = ids.filter_map(|id| look(dir, id)).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Goes on with what is there, or begins a file of this length, which must be proven:
    /// an opening of its last byte proves it.
    ///
    /// # Errors
    /// Another process has it, or the files can't be written.
    pub fn create(dir: &Path, id: ModelId, length: u64) -> Result<Partial, ModelError> {
        if let Some(begun) = Self::open(dir, id)? {
            if begun.length() == length {
                return Ok(begun);
            }
            begun.discard();
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(at(dir))?;
        let claim = Claim::take(dir, &id.to_string())?;
        let files = Files::new(dir, id);
        let shape =
            Shape::new(length, GROUP).map_err(|error| at(&files.data)(io::Error::other(error)))?;
        let _ = fs::remove_file(&files.beside);
        let data = File::create(&files.data).map_err(at(&files.data))?;
        data.set_len(length).map_err(at(&files.data))?;
        let values = File::create(&files.values).map_err(at(&files.values))?;
        let begun = values
            .set_len(HEADER_BYTES + 32 * shape.groups())
            .and_then(|()| values.write_all_at(&header(id, shape), 0));
        if let Err(source) = begun {
            files.remove();
            return Err(at(&files.values)(source));
        }
        Self::of(id, shape, files, claim)
    }

    fn of(id: ModelId, shape: Shape, files: Files, claim: Claim) -> Result<Partial, ModelError> {
        let open = |path: &Path| {
            let opened = OpenOptions::new().read(true).write(true).open(path);
            opened.map_err(|source| ModelError::Io { path: path.to_owned(), source })
        };
        let (data, values) = (open(&files.data)?, open(&files.values)?);
        let (there, bytes) = read_values(&values, shape)
            .map_err(|source| ModelError::Io { path: files.values.clone(), source })?;
        let groups = Groups { checked: vec![false; there.len()], there, bytes };
        let (groups, beside) = (Mutex::new(groups), Mutex::new(Beside::open(&files.beside, shape)));
        Ok(Partial { id, shape, files, data, values, groups, beside, _claim: claim })
    }

    /// The model.
    #[must_use]
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.shape.length()
    }

    /// Bytes that are here.
    #[must_use]
    pub fn have_bytes(&self) -> u64 {
        self.groups().bytes
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of these ranges is not here, in whole groups, ascending, neighbours joined. Groups
    /// of an earlier process are hashed first, once.
    ///
    /// # Errors
    /// A range is empty or behind the file's end, the files can't be read, or `watch` stops it.
    pub fn missing(
        &self,
        ranges: &[Range<u64>],
        watch: Watch<'_>,
    ) -> Result<Vec<Range<u64>>, ModelError> {
        let mut wanted = Vec::new();
        for range in ranges {
            let covered = self.shape.covered(range.clone());
            wanted.extend(covered.map_err(|error| self.io(io::Error::other(error)))?);
        }
        wanted.sort_unstable();
        wanted.dedup();
        let total = Some(self.length());
        let (mut missing, mut done) = (Vec::<Range<u64>>::new(), 0);
        for index in wanted {
            let place = self.place(index);
            if !self.is_here(index)? {
                match missing.last_mut() {
                    Some(last) if last.end == place.start => last.end = place.end,
                    _ => missing.push(place),
                }
                continue;
            }
            done += place.end - place.start;
            let progress = Progress { stage: Stage::Hashing, done, total };
            if index % 64 == 0 && watch(progress).is_break() {
                return Err(ModelError::Cancelled);
            }
        }
        Ok(missing)
    }

    /// Whether a group is here and right.
    fn is_here(&self, index: u64) -> Result<bool, ModelError> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let (there, checked) = {
            let groups = self.groups();
            (groups.there[at], groups.checked[at])
        };
        if !there || checked {
            return Ok(there);
        }
        let mut bytes = vec![0; length_of(self.shape, at) as usize];
        let mut value = [0; 32];
        self.data.read_exact_at(&mut bytes, self.place(index).start).map_err(|e| self.io(e))?;
        self.values
            .read_exact_at(&mut value, HEADER_BYTES + 32 * index)
            .map_err(|source| ModelError::Io { path: self.files.values.clone(), source })?;
        let right =
            Mode::Plain.group_value(self.shape, index, &bytes) == Ok(Digest::from_bytes(value));
        let mut groups = self.groups();
        groups.checked[at] = right;
        if !right && groups.there[at] {
            tracing::warn!(model = %self.id, group = index, "damaged on disk; fetched again");
            groups.there[at] = false;
            groups.bytes -= length_of(self.shape, at);
        }
        Ok(right)
    }

    /// Takes in what somebody opened, if it is the opening of that range, and says how many
    /// bytes are new.
    ///
    /// # Errors
    /// It isn't, or it can't be written; a full disk leaves what was there before.
    pub fn insert(&self, range: Range<u64>, slice: &Slice) -> Result<u64, InsertError> {
        let root = tree::root(self.id);
        let verified = verify(Mode::Plain, &root, self.shape, range.clone(), slice)?;
        let places = self.shape.subtrees_beside(range)?;
        self.beside().add(places.into_iter().zip(&slice.hashes));
        self.data
            .write_all_at(&slice.bytes, verified.cover.start)
            .map_err(|source| self.io(source))?;
        let first = verified.cover.start / GROUP.bytes();
        let values: Vec<u8> = verified.values.iter().flat_map(|v| *v.as_bytes()).collect();
        self.values
            .write_all_at(&values, HEADER_BYTES + 32 * first)
            .map_err(|source| ModelError::Io { path: self.files.values.clone(), source })?;
        let mut groups = self.groups();
        let mut new = 0;
        for at in (first as usize..).take(verified.values.len()) {
            if !groups.there[at] {
                new += length_of(self.shape, at);
            }
            groups.there[at] = true;
            groups.checked[at] = true;
        }
        groups.bytes += new;
        Ok(new)
    }

    /// The bytes of a range, if all of its groups are here and right.
    ///
    /// # Errors
    /// The range is empty or behind the file's end, or the files can't be read.
    pub fn read(&self, range: Range<u64>) -> Result<Option<Vec<u8>>, ModelError> {
        let covered = self.shape.covered(range.clone());
        for index in covered.map_err(|error| self.io(io::Error::other(error)))? {
            if !self.is_here(index)? {
                return Ok(None);
            }
        }
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        self.data.read_exact_at(&mut bytes, range.start).map_err(|e| self.io(e))?;
        Ok(Some(bytes))
    }

    /// The opening of a range, if all of its groups are here and right, and so is what leads from
    /// them to the id: that is so for whatever was taken in.
    ///
    /// # Errors
    /// As [`Partial::read`].
    pub fn slice(&self, range: Range<u64>) -> Result<Option<Slice>, ModelError> {
        let wrong = |error: RangeError| self.io(io::Error::other(error));
        let cover = self.shape.cover(range.clone()).map_err(wrong)?;
        let Some(bytes) = self.read(cover)? else { return Ok(None) };
        let places = self.shape.subtrees_beside(range.clone()).map_err(wrong)?;
        let hashes: Option<Vec<Digest>> = {
            let beside = self.beside();
            let known = |groups: &Range<u64>| {
                let single = groups.end - groups.start == 1;
                beside.value(groups).or_else(|| self.value(groups.start).filter(|_| single))
            };
            places.iter().map(|place| subtree_value(Mode::Plain, place, &known)).collect()
        };
        let Some(hashes) = hashes else { return Ok(None) };
        let slice = Slice { bytes, hashes };
        // What stands in the files was not compared with the id since an earlier process did.
        let root = tree::root(self.id);
        if let Err(error) = verify(Mode::Plain, &root, self.shape, range, &slice) {
            tracing::warn!(model = %self.id, %error, "what leads to the id is damaged on disk");
            self.beside().forget();
            return Ok(None);
        }
        Ok(Some(slice))
    }

    /// The value of a group that is here.
    fn value(&self, index: u64) -> Option<Digest> {
        let there = *self.groups().there.get(usize::try_from(index).ok()?)?;
        let mut value = [0; 32];
        let read = self.values.read_exact_at(&mut value, HEADER_BYTES + 32 * index);
        (there && read.is_ok()).then(|| Digest::from_bytes(value))
    }

    fn beside(&self) -> MutexGuard<'_, Beside> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes the whole once more, makes it durable and gives it its path. The tree is kept
    /// beside it.
    ///
    /// # Errors
    /// Something is missing or damaged: the partial file then remains. Or `check` says that the
    /// whole is of no use: then it goes.
    pub(super) fn finish(
        self,
        path: &Path,
        check: impl FnOnce(&Path) -> Result<(), ModelError>,
        watch: Watch<'_>,
    ) -> Result<Tree, ModelError> {
        let tree = tree::build(&self.files.data, watch)?;
        if tree.root() != tree::root(self.id) {
            return Err(ModelError::Changed {
                path: self.files.data.clone(),
                expected: self.id.to_string(),
                got: tree.root().to_string(),
            });
        }
        // The bytes are right: what they are not now, they never become.
        check(&self.files.data).inspect_err(|_| self.files.remove())?;
        self.data.sync_all().map_err(|e| self.io(e))?;
        fs::rename(&self.files.data, path).map_err(|e| self.io(e))?;
        let _ = fs::remove_file(&self.files.values);
        let _ = fs::remove_file(&self.files.beside);
        tree::keep(path, &tree);
        Ok(tree)
    }

    /// Deletes what is here.
    pub fn discard(self) {
        self.files.remove();
    }

    fn place(&self, index: u64) -> Range<u64> {
        let start = index * GROUP.bytes();
        start..self.length().min(start + GROUP.bytes())
    }

    fn io(&self, source: io::Error) -> ModelError {
        ModelError::Io { path: self.files.data.clone(), source }
    }
}

/// What can be said of a file in the making without taking it.
fn look(dir: &Path, id: ModelId) -> Option<Unfinished> {
    let files = Files::new(dir, id);
    let shape = read_header(&files, id).ok()??;
    let (_, have_bytes) = read_values(&File::open(&files.values).ok()?, shape).ok()?;
    Some(Unfinished { id: id.to_string(), have_bytes, bytes: shape.length() })
}

/// Which groups have a value, and their bytes.
fn read_values(values: &File, shape: Shape) -> io::Result<(Vec<bool>, u64)> {
    let count = usize::try_from(shape.groups()).unwrap_or(usize::MAX);
    let mut there = Vec::with_capacity(count);
    let mut buffer = vec![0; 32 * VALUES_AT_ONCE];
    while there.len() < count {
        let part = &mut buffer[..32 * VALUES_AT_ONCE.min(count - there.len())];
        values.read_exact_at(part, HEADER_BYTES + 32 * there.len() as u64)?;
        there.extend(part.as_chunks::<32>().0.iter().map(|value| *value != [0; 32]));
    }
    let held = there.iter().enumerate().filter(|(_, there)| **there);
    let bytes = held.map(|(index, _)| length_of(shape, index)).sum();
    Ok((there, bytes))
}

fn length_of(shape: Shape, index: usize) -> u64 {
    let start = index as u64 * GROUP.bytes();
    shape.length().min(start + GROUP.bytes()) - start
}

fn header(id: ModelId, shape: Shape) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.push(GROUP.log2());
    header.extend(shape.length().to_le_bytes());
    header.extend(id.as_bytes());
    header
}

/// The shape the files were begun with, if they belong together.
fn read_header(files: &Files, id: ModelId) -> Result<Option<Shape>, ModelError> {
    let io = |source| ModelError::Io { path: files.values.clone(), source };
    let values = File::open(&files.values).map_err(io)?;
    let mut found = [0; HEADER_BYTES as usize];
    if values.read_exact_at(&mut found, 0).is_err() {
        return Ok(None);
    }
    let length = found[9..17].iter().rev().fold(0, |length, byte| length << 8 | u64::from(*byte));
    let Ok(shape) = Shape::new(length, GROUP) else {
        return Ok(None);
    };
    let whole = values.metadata().map_err(io)?.len() == HEADER_BYTES + 32 * shape.groups();
    let data = fs::metadata(&files.data).is_ok_and(|data| data.len() == length);
    Ok((found[..] == header(id, shape)[..] && whole && data).then_some(shape))
}

mod beside;
#[cfg(test)]
mod tests;
