//! Giving pieces of model files to whoever asks, with what proves them.
//!
//! A node shares the models that it announces. A stream is a conversation of its
//! own: a request, its reply, the next. Three limits stand before the disk is
//! touched: streams, in all and of one peer; requests worked on at once; bytes a
//! second. A model's tree is made when its first range is asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_net::{FrameStream, Incoming};
use peerproof_proof::ranges::{RangeError, Slice, Tree};
use peerproof_wire::{
    Message as _, ModelId, RangeFailure, RangeRefusal, RangeReply, RangeRequest, RangeSlice,
};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::JoinSet;

use super::holdings::Held;
use super::pace::Pace;
use super::serving::Load;
use crate::config::Share;
use crate::models::{Installed, ModelError, tree};

/// A stream on which nothing is asked for so long is closed.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams at once.
const MAX_STREAMS: usize = 64;
/// Streams of one peer at once.
const MAX_STREAMS_PER_PEER: usize = 8;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for a tree in the making.
const TREE_PATIENCE: Duration = Duration::from_secs(5);
/// When to come again who did not get its turn.
const RETRY_AFTER_MS: u64 = 500;

/// Why a range could not be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One shared file.
struct Shared {
    id: ModelId,
    model: Installed,
    tree: OnceCell<Arc<Tree>>,
}

impl Shared {
    async fn tree(&self) -> Result<Arc<Tree>, ModelError> {
        let tree = self.tree.get_or_try_init(|| async {
            let (id, path) = (self.id, self.model.path.clone());
            tracing::info!(model = self.model.name, bytes = self.model.bytes, "sharing a model");
            let io = |source| ModelError::Io { path: self.model.path.clone(), source };
            let making = move || tree::of(&path, id, &mut |_| std::ops::ControlFlow::Continue(()));
            let made = tokio::task::spawn_blocking(making).await;
            made.map_err(|error| io(io::Error::other(error)))?.map(Arc::new)
        });
        tree.await.cloned()
    }
}

/// Everything that is shared, and under what limits.
pub(super) struct Library {
    files: Vec<Arc<Shared>>,
    requests: Semaphore,
    pace: Pace,
    load: Arc<Load>,
}

impl Library {
    pub(super) fn new(
        models: impl Iterator<Item = Arc<Held>>,
        terms: &Share,
        load: &Arc<Load>,
    ) -> Library {
        let mut files: Vec<Arc<Shared>> = Vec::new();
        for held in models {
            if !files.iter().any(|file| file.id == held.id) {
                let model = held.installed.clone();
                files.push(Arc::new(Shared { id: held.id, model, tree: OnceCell::new() }));
            }
        }
        Library {
            files,
            requests: Semaphore::new(terms.max_requests as usize),
            pace: Pace::new(Some(u64::from(terms.max_rate_mib) << 20)),
            load: Arc::clone(load),
        }
    }

    async fn answer(&self, request: &RangeRequest) -> RangeReply {
        match self.open(request).await {
            Ok(slice) => {
                let bytes = slice.bytes.len() as u64;
                self.pace.take(bytes).await;
                self.load.shared_bytes.fetch_add(bytes, Ordering::Relaxed);
                RangeReply::Slice(slice)
            }
            Err(failure) => RangeReply::Failure(failure),
        }
    }

    async fn open(&self, request: &RangeRequest) -> Result<RangeSlice, RangeFailure> {
        let refuse = |code, message: &str| RangeFailure::new(code, message);
        let file = self.files.iter().find(|file| file.id == request.model_id).cloned();
        let file =
            file.ok_or_else(|| refuse(RangeRefusal::NotHeld, "this model is not shared here"))?;
        let range = request.start..request.start.saturating_add(request.length);
        if range.end > file.model.bytes {
            let message = format!("the file has {} bytes", file.model.bytes);
            return Err(refuse(RangeRefusal::OutOfRange, &message));
        }
        let busy = || RangeFailure {
            retry_after_ms: RETRY_AFTER_MS,
            ..refuse(RangeRefusal::Busy, "others are being sent ranges")
        };
        let turn = tokio::time::timeout(PATIENCE, self.requests.acquire()).await;
        let _turn = turn.map_err(|_| busy())?;
        let broken = |error: &dyn std::fmt::Display| {
            tracing::error!(model = file.model.name, %error, "a range could not be opened");
            refuse(RangeRefusal::Broken, "the file could not be read, or has changed")
        };
        // Whoever goes away meanwhile does not end the making.
        let asked = Arc::clone(&file);
        let making = tokio::spawn(async move { asked.tree().await });
        let made = tokio::time::timeout(TREE_PATIENCE, making).await.map_err(|_| busy())?;
        let tree = made.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
        let (path, file_bytes) = (file.model.path.clone(), tree.shape().length());
        let opening = tokio::task::spawn_blocking(move || {
            let file = File::open(path)?;
            tree.open(range, |at, buffer| Ok::<_, OpenError>(file.read_exact_at(buffer, at)?))
        });
        let opened: Result<Slice, OpenError> = opening.await.map_err(|e| broken(&e))?;
        let Slice { bytes, hashes } = opened.map_err(|e| broken(&e))?;
        Ok(RangeSlice { file_bytes, bytes, hashes })
    }
}

/// Shares until `stop` turns true.
pub(super) async fn run(library: Library, mut incoming: Incoming, mut stop: watch::Receiver<bool>) {
    let library = Arc::new(library);
    let mut talks = JoinSet::new();
    let mut peers: HashMap<tokio::task::Id, PeerId> = HashMap::new();
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some((peer, stream)) => {
                    let held = peers.values().filter(|other| **other == peer).count();
                    if talks.len() < MAX_STREAMS && held < MAX_STREAMS_PER_PEER {
                        let talk = talks.spawn(converse(Arc::clone(&library), stream));
                        peers.insert(talk.id(), peer);
                    }
                }
                None => return,
            },
            Some(ended) = talks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                peers.remove(&id);
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Answers one stream's requests until one of them is none.
async fn converse(library: Arc<Library>, mut stream: FrameStream) {
    while let Ok(Some(frame)) = stream.recv().await {
        let Ok(request) = RangeRequest::decode(&frame) else { return };
        let Ok(reply) = library.answer(&request).await.encode() else { return };
        if stream.send(&reply).await.is_err() {
            return;
        }
    }
    let _ = stream.finish().await;
}
