//! The node's log on a disk, and files that are replaced whole.
//!
//! [`LogWriter`] is what a running node holds: one thread that appends in
//! batches and acknowledges each caller after the sync. [`read`] opens a log
//! beside or without such a node and changes nothing. [`write_atomic`] is for
//! every other small file that must never be half written. A log directory holds
//!
//! ```text
//! checkpoint          signed note over everything acknowledged
//! segment-00000000    records, numbered from 0; only the last one grows
//! cosigned            the newest checkpoint that others cosigned or showed
//! cut/                what recovery took from the end, kept for a person to look at
//! lock                held by the one process that may write
//! ```
//!
//! [`WitnessStore`] keeps what this node saw of other nodes' logs.
//!
//! The rules of the log itself stand in `peerproof-log`. Absent: indexes and
//! anything else derived; deletion.

mod atomic;
pub mod cosigned;
mod disk;
mod error;
mod read;
#[cfg(test)]
mod tests;
mod witness;
mod writer;

pub use atomic::write_atomic;
pub use disk::DiskStorage;
pub use error::StoreError;
pub use read::{Contents, read, read_of};
pub use witness::{WitnessError, WitnessStore};
pub use writer::{Appended, LogWriter};
