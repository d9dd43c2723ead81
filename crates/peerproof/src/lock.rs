//! A lock on a file that ends with its holder.
//!
//! The system ties such a lock to the open file, and a child process that another thread is just
//! starting shares every open file until it runs its own program. Closing the file alone would
//! leave the lock with that child for a moment; so it is let go of by name.

use std::fs::{File, TryLockError};
use std::ops::{Deref, DerefMut};

/// An open file that nobody else has locked.
#[derive(Debug)]
pub(crate) struct LockedFile(File);

impl LockedFile {
    /// Locks it, unless somebody else holds it.
    pub(crate) fn try_new(file: File) -> Result<LockedFile, TryLockError> {
        file.try_lock()?;
        Ok(LockedFile(file))
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Closing the file lets go of the lock too, if this cannot.
        let _ = self.0.unlock();
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_holder_though_the_open_file_lives_on() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || File::create(dir.path().join("lock")).expect("a file");
        let held = LockedFile::try_new(open()).expect("nobody holds it");
        let childs = held.try_clone().expect("a second handle");
        assert!(matches!(LockedFile::try_new(open()), Err(TryLockError::WouldBlock)));
        drop(held);
        LockedFile::try_new(open()).expect("the holder has gone");
        drop(childs);
    }
}
