//! The log's storage in a directory.
//!
//! Appends and syncs of a segment go through one file handle, because the
//! system reports a failed write-back to the handle that wrote. A writer holds
//! an exclusive lock for as long as any clone of it lives; the system lets go of
//! it when the process ends, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peerproof_log::{MAX_NOTE_BYTES, Segment, Storage, StorageError, StorageFault};

use super::atomic::{replace, sync_directory_of};
use super::error::{StoreError, storage_error};
use crate::lock::LockedFile;

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;
const SEGMENT_PREFIX: &str = "segment-";
const CHECKPOINT: &str = "checkpoint";
const CUT_DIR: &str = "cut";
const LOCK: &str = "lock";

/// The most files looked at in a log directory.
const MAX_DIRECTORY_ENTRIES: usize = 1 << 16;

/// A log's directory.
#[derive(Debug)]
pub struct DiskStorage {
    dir: PathBuf,
    /// Held by writers.
    lock: Option<Arc<LockedFile>>,
    /// The segment being written.
    active: Option<(u32, File)>,
}

impl DiskStorage {
    /// Opens the directory for writing, making it if need be, and locks it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process writes here,
    /// [`StoreError::Storage`] if the directory cannot be made or written.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        make_directory(dir)?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .open(&path)
            .map_err(|error| storage_error("open", &path, &error))?;
        let lock = match LockedFile::try_new(lock) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { dir: dir.to_owned() });
            }
            Err(TryLockError::Error(error)) => Err(storage_error("lock", &path, &error))?,
        };
        Ok(Self { dir: dir.to_owned(), lock: Some(Arc::new(lock)), active: None })
    }

    /// Opens the directory for reading only, whether or not a node writes to it.
    ///
    /// # Errors
    /// [`StoreError::NoLog`] if there is neither checkpoint nor segment.
    pub fn open_read(dir: &Path) -> Result<Self, StoreError> {
        let storage = Self { dir: dir.to_owned(), lock: None, active: None };
        let empty =
            !dir.is_dir() || (!dir.join(CHECKPOINT).exists() && storage.segments()?.is_empty());
        if empty {
            return Err(StoreError::NoLog { dir: dir.to_owned() });
        }
        Ok(storage)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same directory under the same lock, with no file open.
    pub(super) fn again(&self) -> Self {
        Self { dir: self.dir.clone(), lock: self.lock.clone(), active: None }
    }

    pub(super) fn segment_path(&self, segment: u32) -> PathBuf {
        self.dir.join(format!("{SEGMENT_PREFIX}{segment:08}"))
    }

    pub(super) fn checkpoint_path(&self) -> PathBuf {
        self.dir.join(CHECKPOINT)
    }

    fn check_writable(&self, operation: &'static str) -> Result<(), StorageError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let error = io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading");
        Err(storage_error(operation, &self.dir, &error))
    }

    /// The handle of the segment being written.
    fn active(&mut self, segment: u32) -> Result<&File, StorageError> {
        self.check_writable("append to")?;
        let file = match self.active.take() {
            Some((number, file)) if number == segment => file,
            _ => {
                let path = self.segment_path(segment);
                let opened = OpenOptions::new().write(true).open(&path);
                opened.map_err(|error| storage_error("open", &path, &error))?
            }
        };
        Ok(&self.active.insert((segment, file)).1)
    }

    /// Copies the end of a segment to a file named after its content, so that
    /// doing it twice keeps it once.
    fn keep_aside(&self, segment: u32, from: u64) -> Result<(), StorageError> {
        let aside = self.dir.join(CUT_DIR);
        make_directory(&aside)?;
        let source = self.segment_path(segment);
        let temporary = aside.join("new");
        let digest = copy_tail(&source, from, &temporary)
            .map_err(|error| storage_error("keep aside the end of", &source, &error))?;
        let name = format!("{SEGMENT_PREFIX}{segment:08}-from-{from}-{}", &digest.to_hex()[..16]);
        let path = aside.join(name);
        fs::rename(&temporary, &path).map_err(|error| storage_error("replace", &path, &error))?;
        sync_directory_of(&path)
    }
}

impl Storage for DiskStorage {
    fn segments(&self) -> Result<Vec<Segment>, StorageError> {
        let failed = |error: io::Error| storage_error("list", &self.dir, &error);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)?.take(MAX_DIRECTORY_ENTRIES) {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(segment_number) else { continue };
            let bytes = entry.metadata().map_err(failed)?.len();
            segments.push(Segment { number, bytes });
        }
        segments.sort_by_key(|segment| segment.number);
        Ok(segments)
    }

    fn read(&self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let path = self.segment_path(segment);
        File::open(&path)
            .and_then(|file| file.read_exact_at(buffer, offset))
            .map_err(|error| storage_error("read", &path, &error))
    }

    fn create_segment(&mut self, segment: u32) -> Result<(), StorageError> {
        self.check_writable("create")?;
        let path = self.segment_path(segment);
        let failed = |error: io::Error| storage_error("create", &path, &error);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE_FILE)
            .open(&path)
            .map_err(failed)?;
        file.sync_all().map_err(failed)?;
        sync_directory_of(&path)?;
        self.active = Some((segment, file));
        Ok(())
    }

    fn append(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.segment_path(segment);
        let file = self.active(segment)?;
        let failed = |error: io::Error| storage_error("append to", &path, &error);
        let end = file.metadata().map_err(failed)?.len();
        if end != offset {
            let message = format!("its end is at byte {end}, expected {offset}");
            return Err(failed(io::Error::other(message)));
        }
        file.write_all_at(bytes, offset).map_err(failed)
    }

    fn sync(&mut self, segment: u32) -> Result<(), StorageError> {
        let path = self.segment_path(segment);
        self.active(segment)?.sync_data().map_err(|error| storage_error("sync", &path, &error))
    }

    fn cut(&mut self, segment: u32, keep_bytes: u64) -> Result<(), StorageError> {
        self.check_writable("cut")?;
        self.keep_aside(segment, keep_bytes)?;
        let path = self.segment_path(segment);
        self.active(segment)?
            .set_len(keep_bytes)
            .map_err(|error| storage_error("cut", &path, &error))?;
        self.active(segment)?.sync_all().map_err(|error| storage_error("sync", &path, &error))
    }

    fn read_checkpoint(&self) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.checkpoint_path();
        let failed = |error: io::Error| storage_error("read", &path, &error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        // One byte above the limit is enough for the parser to refuse it.
        let mut note = Vec::new();
        file.take(MAX_NOTE_BYTES as u64 + 1).read_to_end(&mut note).map_err(failed)?;
        Ok(Some(note))
    }

    fn write_checkpoint(&mut self, note: &[u8]) -> Result<(), StorageError> {
        self.check_writable("write the checkpoint in")?;
        let path = self.checkpoint_path();
        replace(&path, &self.dir.join("checkpoint.new"), note, PRIVATE_FILE)
    }
}

/// Makes a private directory and its name durable, unless it exists.
pub(super) fn make_directory(dir: &Path) -> Result<(), StorageError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(dir)
        .map_err(|error| storage_error("create", dir, &error))?;
    sync_directory_of(dir)
}

fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(SEGMENT_PREFIX)?;
    let plain = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn copy_tail(source: &Path, from: u64, to: &Path) -> io::Result<blake3::Hash> {
    let mut source = File::open(source)?;
    source.seek(SeekFrom::Start(from))?;
    let mut to =
        OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(to)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        io::Write::write_all(&mut to, &buffer[..count])?;
    }
    to.sync_data()?;
    Ok(hasher.finalize())
}

/// Whether opening the log again, in this process, can help.
pub(super) fn may_pass(error: &StorageError) -> bool {
    error.fault == StorageFault::Full
}
