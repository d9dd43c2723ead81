//! One pull of a name at a time: a lock on a file beside the model's.
//!
//! The system lets go of the lock with the process, however it ends. The file is deleted by
//! whoever holds the lock; who locked it after it was deleted holds nothing, and tries again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::ModelError;
use crate::lock::LockedFile;

/// The right to make the files of one name.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    /// Holds the lock until the file is deleted.
    _file: LockedFile,
}

impl Claim {
    /// Takes it, or says that another process has it.
    pub(super) fn take(dir: &Path, name: &str) -> Result<Claim, ModelError> {
        let path = dir.join(format!(".{name}.lock"));
        let io = |source| ModelError::Io { path: path.clone(), source };
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(io)?;
            let file = match LockedFile::try_new(file) {
                Ok(file) => file,
                Err(TryLockError::WouldBlock) => {
                    return Err(ModelError::Busy { name: name.to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            };
            if is_at(&file, &path).map_err(io)? {
                return Ok(Claim { path, _file: file });
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the open file is the one that lies at the path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where open files cannot be deleted, the file that is locked is the one that is there.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}
