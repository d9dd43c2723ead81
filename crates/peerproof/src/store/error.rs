//! Why the store refuses.

use std::path::{Path, PathBuf};

use peerproof_log::{LogError, StorageError, StorageFault};

/// An operation on the node's files that did not succeed. What a person can do
/// about it is part of the text.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process writes this log. Nothing was changed.
    #[error(
        "{} is in use by another process; two writers would fork the log. Stop the other one, \
         or give this one a home of its own",
        dir.display()
    )]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// There is no log here.
    #[error("{} holds no log; a node begins one at its first start", dir.display())]
    NoLog {
        /// The directory.
        dir: PathBuf,
    },
    /// The checkpoint does not even say whose log this is.
    #[error("{} has no readable checkpoint; say whose log it is to read it", dir.display())]
    UnknownKey {
        /// The directory.
        dir: PathBuf,
    },
    /// The log, in this directory.
    #[error("log in {}: {source}", dir.display())]
    Log {
        /// The directory.
        dir: PathBuf,
        /// What the log says; it tells whether anything was written.
        source: Box<LogError>,
    },
    /// A file or directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An entry that is whole but that this version does not understand.
    #[error("log entry {index}: {message}; was it written by a newer version?")]
    Entry {
        /// Its position.
        index: u64,
        /// What the decoder says.
        message: String,
    },
    /// An entry that cannot be encoded. Nothing was written.
    #[error("log entry: {message}")]
    Unencodable {
        /// What the encoder says.
        message: String,
    },
    /// The writer has ended. Whether the entry was written is unknown.
    #[error("the log writer has stopped; start the node again")]
    Closed,
}

impl StoreError {
    pub(super) fn log(dir: &Path, source: LogError) -> Self {
        Self::Log { dir: dir.to_owned(), source: Box::new(source) }
    }
}

/// A storage error out of the system's.
pub(super) fn storage_error(
    operation: &'static str,
    path: &Path,
    error: &std::io::Error,
) -> StorageError {
    use std::io::ErrorKind as Kind;
    let fault = match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => StorageFault::Full,
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => StorageFault::Denied,
        _ => StorageFault::Failed,
    };
    StorageError { fault, operation, place: path.display().to_string(), message: error.to_string() }
}
