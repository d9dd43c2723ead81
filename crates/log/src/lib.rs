//! A node's append-only log: what it signed, checked and holds against others.
//!
//! Payloads go in as bytes, in batches. They become chained records in
//! segments, leaves of an RFC 6962 Merkle tree, and, at the end of every batch,
//! one checkpoint signed by the node's key. What [`Log::append`] has returned is
//! durable; what was damaged is noticed at the next opening and never signed
//! over. Strangers check an entry with [`SignedCheckpoint::verify_entry`] and
//! growth with [`SignedCheckpoint::verify_growth`].
//!
//! | Module | Holds |
//! |---|---|
//! | [`tree`] | hashes, roots, inclusion and consistency proofs |
//! | [`tiles`] | the tree as others fetch it |
//! | [`witness`] | cosignatures of others, and proofs of two histories |
//! | [`note`], [`checkpoint`] | C2SP signed notes and checkpoints |
//! | [`record`] | the bytes of one record |
//! | [`storage`] | what is asked of a disk |
//! | [`reader`], [`log`] | reading and verifying; recovery, appending, fencing |
//!
//! Absent: files, threads, clocks, and the meaning of the payloads. The bytes
//! are specified in `docs/spec/log.md`.
//!
//! ```
//! use std::sync::Arc;
//! use peerproof_identity::Keypair;
//! use peerproof_log::{Log, memory::MemoryStorage};
//!
//! let key = Arc::new(Keypair::from_seed(&[7; 32]));
//! let mut log = Log::open(MemoryStorage::default(), key)?;
//! let positions = log.append(&["first", "second"])?;
//! assert_eq!(positions, 0..2);
//!
//! let checkpoint = log.checkpoint().ok_or("no checkpoint")?;
//! checkpoint.verify_entry(b"second", 1, &log.inclusion(1, 2)?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod checkpoint;
mod damage;
mod error;
pub mod limits;
pub mod log;
pub mod memory;
pub mod note;
#[cfg(all(feature = "planted-bugs", debug_assertions))]
pub mod planted;
#[cfg(not(all(feature = "planted-bugs", debug_assertions)))]
mod planted;
pub mod reader;
pub mod record;
pub mod storage;
pub mod tiles;
pub mod tree;
mod walk;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, origin};
pub use damage::{Damage, DamageKind, Place};
pub use error::{LogError, ProofError};
pub use limits::*;
pub use log::Log;
pub use note::{Note, NoteError, NoteSignature};
pub use reader::{Reader, Verified};
pub use storage::{Segment, Storage, StorageError, StorageFault};
pub use tiles::{Resource, Tile, TileError, Tiles};
pub use tree::{
    Hash, Nodes, Tree, entry_of, leaf_hash, payload_leaf, prefix_root, verify_consistency,
    verify_inclusion,
};
pub use witness::{AddCheckpoint, Fork, ForkError, Refusal, Witness};
