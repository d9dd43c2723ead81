//! The one thread that writes a node's log.
//!
//! Callers hand their entry over a bounded channel and wait. The thread takes
//! everything that has queued up while the last batch was being synced, appends
//! it as one batch, and answers each caller with its position, the checkpoint
//! and the inclusion path. So a lone entry waits for nobody, and a thousand at
//! once cost two syncs, not two thousand.
//!
//! After a full disk the thread opens the log again by itself, at most once a
//! second. After any other storage error it refuses until the node is started
//! again: what a device that failed a sync has kept, only a new start tells.
//! Dropping the future of an append does not take the entry back.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peerproof_identity::Keypair;
use peerproof_log::{
    AddCheckpoint, Damage, Hash, Log, LogError, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES,
    MAX_PAYLOAD_BYTES, ProofError, Resource, SignedCheckpoint,
};
use peerproof_wire::{Digest, LogEntry, LogProof, Message as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::cosigned;
use super::disk::{DiskStorage, may_pass};
use super::error::{StoreError, storage_error};
use super::read::decode_entry;

/// The most callers that wait in the queue; further ones wait for a place in it.
const MAX_QUEUED: usize = MAX_BATCH_ENTRIES;

/// How long a full disk is left alone before the log is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// Where an entry stands, provable to anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its position, from 0.
    pub index: u64,
    /// A checkpoint that covers it.
    pub checkpoint: SignedCheckpoint,
    /// The inclusion path from the entry to the checkpoint's root.
    pub path: Vec<Hash>,
}

impl From<Appended> for LogProof {
    fn from(appended: Appended) -> Self {
        Self {
            index: appended.index,
            checkpoint: appended.checkpoint.note().to_owned(),
            path: appended.path.into_iter().map(Digest::from_bytes).collect(),
        }
    }
}

/// The node's log, open for appending. Ends its thread when dropped, after the
/// entries already handed over are written.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    damage: Arc<OnceLock<Damage>>,
    size: watch::Receiver<u64>,
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Opens or begins the log of `key` in `dir`, checks all of it, and starts
    /// the thread. Reads the whole log: call it where blocking is allowed. A
    /// damaged log opens for reading only, see [`LogWriter::damage`].
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it, else what storage says.
    pub fn open(dir: &Path, key: Arc<Keypair>) -> Result<Self, StoreError> {
        Self::open_replaying(dir, key, |_, _| ())
    }

    /// As [`LogWriter::open`], and shows every readable entry, in order, to
    /// `replay`, so that what is derived from the log can be built again.
    ///
    /// # Errors
    /// As [`LogWriter::open`], and [`StoreError::Entry`] for an entry that this
    /// version does not understand.
    pub fn open_replaying(
        dir: &Path,
        key: Arc<Keypair>,
        mut replay: impl FnMut(u64, LogEntry),
    ) -> Result<Self, StoreError> {
        let storage = DiskStorage::open(dir)?;
        let in_dir = |error| StoreError::log(dir, error);
        let mut log = Log::open(storage.again(), Arc::clone(&key)).map_err(in_dir)?;
        if let Some(held) = cosigned::read(dir, &key.public())? {
            // An older copy is found to be damaged, which `damage` tells.
            let _ = log.confront(&held);
        }
        for index in 0..log.len() {
            let payload = log.entry(index).map_err(in_dir)?;
            replay(index, decode_entry(index, &payload)?);
        }
        let damage = Arc::new(OnceLock::new());
        if let Some(found) = log.damage() {
            let _ = damage.set(found.clone());
        }
        let (grown, size) = watch::channel(log.len());
        let (commands, queue) = mpsc::channel(MAX_QUEUED);
        let fence = Arc::clone(&damage);
        let worker = Worker { storage, key, log, queue, grown, fence, reopened: None };
        let thread = std::thread::Builder::new()
            .name("peerproof-log".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| storage_error("start a thread for", dir, &error))?;
        let commands = Some(commands);
        Ok(Self { dir: dir.to_owned(), damage, size, commands, thread: Some(thread) })
    }

    /// The log's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was found wrong when the log was opened, or when it was held against
    /// what others had seen of it. Such a log can be read and refuses every append.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.get()
    }

    /// The number of entries, and a word whenever it grows.
    pub fn growth(&self) -> watch::Receiver<u64> {
        self.size.clone()
    }

    /// Appends an entry and returns once it is durable and signed for.
    ///
    /// # Errors
    /// [`StoreError::Log`] if the log is damaged, stopped or full, or storage
    /// fails: the entry is then not acknowledged. [`StoreError::Closed`] if the
    /// thread has ended.
    pub async fn append(&self, entry: &LogEntry) -> Result<Appended, StoreError> {
        let payload = entry
            .encode()
            .map_err(|error| StoreError::Unencodable { message: error.to_string() })?;
        self.append_bytes(payload).await
    }

    /// As [`LogWriter::append`], of bytes that are encoded already.
    pub(super) async fn append_bytes(&self, payload: Vec<u8>) -> Result<Appended, StoreError> {
        let got = payload.len();
        if got == 0 || got > MAX_PAYLOAD_BYTES {
            return Err(self.in_dir(LogError::PayloadLength { limit: MAX_PAYLOAD_BYTES, got }));
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Append { payload, reply }).await?;
        let appended = answer.await.map_err(|_| StoreError::Closed)?;
        appended.map_err(|error| self.in_dir(error))
    }

    /// The number of entries.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if the thread has ended.
    pub async fn size(&self) -> Result<u64, StoreError> {
        self.ask(|log| log.len()).await
    }

    /// The checkpoint over all entries; `None` only if it is what is damaged.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if the thread has ended.
    pub async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, StoreError> {
        self.ask(|log| log.checkpoint().cloned()).await
    }

    /// The entry at `index`.
    ///
    /// # Errors
    /// [`StoreError::Log`] if there is none or it cannot be read,
    /// [`StoreError::Entry`] if this version does not understand it.
    pub async fn entry(&self, index: u64) -> Result<LogEntry, StoreError> {
        let payload = self.ask(move |log| log.entry(index)).await?;
        decode_entry(index, &payload.map_err(|error| self.in_dir(error))?)
    }

    /// Where the entry at `index` stands under the latest checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Log`] if there is no such entry, or the log is damaged.
    pub async fn prove(&self, index: u64) -> Result<Appended, StoreError> {
        let proved = self.ask(move |log| prove(log, index)).await?;
        proved.map_err(|error| self.in_dir(error))
    }

    /// The proof that the first `from` entries are the beginning of the first `to`.
    ///
    /// # Errors
    /// [`StoreError::Log`] if the sizes are out of order or beyond the log.
    pub async fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, StoreError> {
        let path = self.ask(move |log| log.consistency(from, to)).await?;
        path.map_err(|error| self.in_dir(error.into()))
    }

    /// What stands under a path of the log as others fetch it; `None` if there is no
    /// such thing, or not yet.
    ///
    /// # Errors
    /// [`StoreError::Log`] if it cannot be read.
    pub async fn resource(&self, resource: Resource) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.ask(move |log| log.resource(&resource)).await?;
        found.map_err(|error| self.in_dir(error))
    }

    /// The requests that ask witnesses to cosign the log as it is, one for each size that
    /// one of them cosigned last.
    ///
    /// # Errors
    /// [`StoreError::Log`] if the log is damaged or stopped, or has never been as large.
    pub async fn requests(&self, olds: Vec<u64>) -> Result<Vec<AddCheckpoint>, StoreError> {
        let made = self.ask(move |log| {
            olds.into_iter().map(|old| log.add_checkpoint(old)).collect::<Result<_, _>>()
        });
        made.await?.map_err(|error| self.in_dir(error))
    }

    /// Holds the log against a checkpoint of its own that somebody else kept; an older copy
    /// or a second history is fenced, for good: the checkpoint is kept beside it.
    ///
    /// # Errors
    /// [`StoreError::Log`] if it is so.
    pub async fn confront(&self, held: SignedCheckpoint) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let kept = held.clone();
        self.send(Command::Confront { held: Box::new(held), reply }).await?;
        let confronted = answer.await.map_err(|_| StoreError::Closed)?;
        if confronted.is_err() {
            cosigned::write(&self.dir, &kept)?;
        }
        confronted.map_err(|error| self.in_dir(error))
    }

    /// Writes what was handed over, ends the thread and releases the directory.
    pub async fn close(mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has shown itself already.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Log<DiskStorage>) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |log| {
            // Nobody waits any more if this fails.
            let _ = reply.send(question(log));
        });
        self.send(Command::Read(question)).await?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    async fn send(&self, command: Command) -> Result<(), StoreError> {
        let commands = self.commands.as_ref().ok_or(StoreError::Closed)?;
        commands.send(command).await.map_err(|_| StoreError::Closed)
    }

    fn in_dir(&self, source: LogError) -> StoreError {
        StoreError::log(&self.dir, source)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has shown itself already.
            let _ = thread.join();
        }
    }
}

type Reply = oneshot::Sender<Result<Appended, LogError>>;

type Question = Box<dyn FnOnce(&Log<DiskStorage>) + Send>;

enum Command {
    Append { payload: Vec<u8>, reply: Reply },
    Confront { held: Box<SignedCheckpoint>, reply: oneshot::Sender<Result<(), LogError>> },
    Read(Question),
}

/// What lives on the thread.
struct Worker {
    storage: DiskStorage,
    key: Arc<Keypair>,
    log: Log<DiskStorage>,
    queue: mpsc::Receiver<Command>,
    grown: watch::Sender<u64>,
    fence: Arc<OnceLock<Damage>>,
    /// When the log was last opened again after a full disk.
    reopened: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let (mut payloads, mut replies, mut questions) = (Vec::new(), Vec::new(), Vec::new());
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Append { payload, reply } => {
                        bytes += payload.len();
                        payloads.push(payload);
                        replies.push(reply);
                    }
                    Command::Confront { held, reply } => {
                        // The log is fenced before anything that waits is appended.
                        let _ = reply.send(self.confront(&held));
                    }
                    Command::Read(question) => questions.push(question),
                }
                let room = payloads.len() < MAX_BATCH_ENTRIES
                    && questions.len() < MAX_QUEUED
                    && bytes + MAX_PAYLOAD_BYTES <= MAX_BATCH_BYTES;
                next = if room { self.queue.try_recv().ok() } else { None };
            }
            self.append(&payloads, replies);
            questions.into_iter().for_each(|question| question(&self.log));
        }
    }

    fn confront(&mut self, held: &SignedCheckpoint) -> Result<(), LogError> {
        let confronted = self.log.confront(held);
        if let Some(found) = self.log.damage() {
            let _ = self.fence.set(found.clone());
        }
        confronted
    }

    fn append(&mut self, payloads: &[Vec<u8>], replies: Vec<Reply>) {
        if payloads.is_empty() {
            return;
        }
        let appended = self.revive().and_then(|()| self.log.append(payloads));
        self.grown.send_if_modified(|size| {
            let grew = *size != self.log.len();
            *size = self.log.len();
            grew
        });
        if let Err(error) = &appended {
            tracing::error!(dir = %self.storage.dir().display(), %error, "log append refused");
        }
        for (offset, reply) in (0u64..).zip(replies) {
            let answer = match &appended {
                Ok(positions) => prove(&self.log, positions.start + offset),
                Err(error) => Err(error.clone()),
            };
            // A caller that has gone away keeps its entry all the same.
            let _ = reply.send(answer);
        }
    }

    /// Opens the log again if it stopped for want of space.
    fn revive(&mut self) -> Result<(), LogError> {
        match self.log.check_open() {
            Err(LogError::Stopped(error)) if may_pass(&error) && self.rested() => {
                self.reopened = Some(Instant::now());
                self.log = Log::open(self.storage.again(), Arc::clone(&self.key))?;
                self.log.check_open()
            }
            other => other,
        }
    }

    fn rested(&self) -> bool {
        self.reopened.is_none_or(|last| last.elapsed() >= REOPEN_PAUSE)
    }
}

fn prove(log: &Log<DiskStorage>, index: u64) -> Result<Appended, LogError> {
    let checkpoint = match (log.checkpoint(), log.damage()) {
        (Some(checkpoint), None) => checkpoint.clone(),
        (_, Some(damage)) => return Err(LogError::Damaged(damage.clone())),
        (None, None) => return Err(ProofError::Index { index, size: 0 }.into()),
    };
    let path = log.inclusion(index, checkpoint.size())?;
    Ok(Appended { index, checkpoint, path })
}
