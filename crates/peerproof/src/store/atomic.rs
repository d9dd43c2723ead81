//! Replacing a file as a whole, durably.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use peerproof_log::StorageError;

use super::error::{StoreError, storage_error};

/// Sets this process's temporary files apart from each other.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `path` so that at any moment, power cuts included, the old
/// or the new content is there whole. `mode` is the file's permissions, `0o600`
/// for anything private. The directory must exist.
///
/// # Errors
/// [`StoreError::Storage`] if the new content is not certain to be in place; the
/// old content is then still there unless the last step, making the new name
/// durable, failed.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = sibling(path, &format!(".{}-{count}.tmp", std::process::id()));
    Ok(replace(path, &temporary, bytes, mode)?)
}

/// As [`write_atomic`], by way of a file that the caller names.
pub(super) fn replace(
    path: &Path,
    temporary: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<(), StorageError> {
    let placed = write_new(temporary, bytes, mode).and_then(|()| {
        fs::rename(temporary, path).map_err(|error| storage_error("replace", path, &error))
    });
    if placed.is_err() {
        // Best effort: the space may be what is missing.
        let _ = fs::remove_file(temporary);
    }
    placed?;
    sync_directory_of(path)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StorageError> {
    let failed = |operation| move |error| storage_error(operation, path, &error);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(failed("create"))?;
    // A file left by a killed process keeps its own mode.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
    file.write_all(bytes).map_err(failed("write"))?;
    file.sync_data().map_err(failed("sync"))
}

/// Makes the names in the directory of `path` durable.
pub(super) fn sync_directory_of(path: &Path) -> Result<(), StorageError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| storage_error("sync directory", dir, &error))
}

/// The path with `suffix` behind its file name.
pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}
