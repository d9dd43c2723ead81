//! What this node saw of other nodes' logs, as their witness.
//!
//! One file for each log, named after its peer: the last checkpoint that was
//! cosigned. It is replaced and synced before the cosignature is given out, so
//! after any power cut the witness knows at least what it has vouched for. A
//! file that can't be read has lost that: its log is refused from then on,
//! rather than cosigned anew from nothing. Absent: networks, rates, and which
//! logs are worth following.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerproof_identity::{Keypair, PeerId};
use peerproof_log::{AddCheckpoint, MAX_NOTE_BYTES, NoteSignature, Refusal};
use peerproof_log::{SignedCheckpoint, Witness};

use super::atomic::write_atomic;
use super::disk::make_directory;
use super::error::{StoreError, storage_error};

/// Why a checkpoint was not cosigned here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The protocol refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What was seen of the log before can't be read any more.
    #[error("this witness has lost what it saw of the log of {log}")]
    Lost {
        /// Whose log.
        log: PeerId,
    },
    /// What would be vouched for could not be kept. Nothing was cosigned.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A witness with its folder.
#[derive(Debug)]
pub struct WitnessStore {
    dir: PathBuf,
    witness: Mutex<Witness>,
    lost: BTreeSet<PeerId>,
}

impl WitnessStore {
    /// Opens or begins the folder of the witness of `key`, which follows at most `limit` logs.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the folder can't be made or listed.
    pub fn open(dir: &Path, key: Arc<Keypair>, limit: usize) -> Result<Self, StoreError> {
        make_directory(dir)?;
        let failed = |error: std::io::Error| storage_error("list", dir, &error);
        let (mut seen, mut lost) = (Vec::new(), BTreeSet::new());
        for entry in fs::read_dir(dir).map_err(failed)?.take(2 * limit) {
            let entry = entry.map_err(failed)?;
            // Files that a killed process left half written have another name.
            let Some(log) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match read(&entry.path(), &log) {
                Ok(note) => seen.push(note),
                Err(error) => {
                    tracing::error!(%log, error, "a witnessed checkpoint is lost");
                    lost.insert(log);
                }
            }
        }
        let witness = Witness::new(key, seen).with_limit(limit.saturating_sub(lost.len()));
        Ok(Self { dir: dir.to_owned(), witness: Mutex::new(witness), lost })
    }

    fn lock(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last checkpoint of a log that was cosigned here.
    pub fn last(&self, log: &PeerId) -> Option<SignedCheckpoint> {
        self.lock().last(log).cloned()
    }

    /// How many logs are followed.
    pub fn followed(&self) -> usize {
        self.lock().followed()
    }

    /// Judges a request, keeps the checkpoint, and cosigns it at `unix_s`. Waits for the disk.
    ///
    /// # Errors
    /// [`WitnessError`] says why not; what was seen before stays as it was.
    pub fn cosign(
        &self,
        request: &AddCheckpoint,
        unix_s: u64,
    ) -> Result<NoteSignature, WitnessError> {
        let mut witness = self.lock();
        let advance = witness.consider(request)?;
        let log = advance.checkpoint().signer().peer_id();
        if self.lost.contains(&log) {
            return Err(WitnessError::Lost { log });
        }
        let path = self.dir.join(log.to_string());
        write_atomic(&path, advance.checkpoint().note().as_bytes(), 0o600)?;
        Ok(witness.cosign(advance, unix_s)?)
    }
}

fn read(path: &Path, log: &PeerId) -> Result<SignedCheckpoint, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_NOTE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    SignedCheckpoint::open_of(&bytes, &log.public_key()).map_err(|error| error.to_string())
}
