//! Fraud proofs from peer to peer: a small claim travels, the file is fetched, then judged.
//!
//! A fraud proof has mebibytes, a gossiped message has kilobytes. What is passed on is a
//! [`FraudClaim`]: whom a file accuses, its hash, its length. Nobody believes a claim.
//! Whoever hears one fetches the file from who passed it on, in ranges that are verified
//! against the hash as they come ([`PROOF_PROTOCOL`] speaks as the range protocol does),
//! judges it alone, keeps it, and only then passes the claim on: so the one who passed it
//! on to this node holds it, and answers for it.
//!
//! Cheap checks come first: what is known, the sender's budget, the length, a place among
//! those being fetched; one file is judged at a time. Absent: what a proof says ([`fraud`]),
//! and what follows from it (the docket).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_net::{FrameLimits, FrameStream, Handle, Incoming, NetError};
use peerproof_proof::ranges::{Builder, Group, Mode, RangeError, Slice, Tree};
use peerproof_wire::evidence::Evidence;
use peerproof_wire::range::RANGE_GROUP_BYTES;
use peerproof_wire::{
    Digest, FraudClaim, Message as _, ModelId, PROOF_PROTOCOL, RangeFailure, RangeRefusal,
    RangeReply, RangeRequest, RangeSlice, limits,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::docket::{self, Docket};
use super::fetching::{Trouble, open_all};
use crate::fraud::{self, FraudError};

/// The longest file that is fetched from others.
const MAX_BYTES: u64 = 32 << 20;
/// Files fetched at once.
const MAX_FETCHES: usize = 4;
/// For one file to come.
const FETCHING: Duration = Duration::from_secs(120);
/// Claims of one sender that are looked into at once, and how long each takes to grow back.
const BURST: f64 = 8.0;
const PER_SECOND: f64 = 1.0 / 60.0;
/// Senders whose budgets are remembered.
const MAX_SENDERS: usize = 1024;
/// How long whoever asks for a file may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams on which files are asked for.
const MAX_STREAMS: usize = 16;
/// Bytes a second that are sent, to all who ask together.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// What came of a claim.
#[derive(Debug)]
pub(super) enum Looked {
    /// The file convicts whom the claim names, and is kept.
    Convicts,
    /// It was not looked into, or the file did not come; nobody is to blame.
    Unseen(String),
    /// Whoever passed it on sent what is no proof of it.
    False(String),
    /// The file is whole, and what it accuses of is right.
    Slander(String),
}

/// Fraud proofs that are kept, and the way to those of others.
pub(super) struct Proofs {
    net: Handle,
    folder: PathBuf,
    fetching: Semaphore,
    judging: Arc<Semaphore>,
    budgets: Mutex<HashMap<PeerId, (f64, Instant)>>,
}

impl Proofs {
    pub(super) fn new(net: Handle, folder: PathBuf) -> Proofs {
        Proofs {
            net,
            folder,
            fetching: Semaphore::new(MAX_FETCHES),
            judging: Arc::new(Semaphore::new(1)),
            budgets: Mutex::default(),
        }
    }

    /// Whether a sender has a claim left that is looked into.
    fn admit(&self, from: PeerId, now: Instant) -> bool {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.len() >= MAX_SENDERS && !budgets.contains_key(&from) {
            let rested = budgets.iter().min_by_key(|(_, (_, at))| *at).map(|(peer, _)| *peer);
            if let Some(rested) = rested {
                budgets.remove(&rested);
            }
        }
        let (left, at) = budgets.entry(from).or_insert((BURST, now));
        let since = now.saturating_duration_since(*at).as_secs_f64();
        *left = (*left + since * PER_SECOND).min(BURST);
        *at = now;
        let admitted = *left >= 1.0;
        *left -= if admitted { 1.0 } else { 0.0 };
        admitted
    }

    /// Fetches the file of a claim from who passed it on, and judges it.
    pub(super) async fn look(&self, from: PeerId, claim: &FraudClaim) -> Looked {
        if claim.bytes > MAX_BYTES {
            return Looked::Unseen(format!("a file of {} bytes is not fetched", claim.bytes));
        }
        if !self.admit(from, Instant::now()) {
            return Looked::Unseen("its sender's claims come too fast".into());
        }
        let Ok(_place) = self.fetching.try_acquire() else {
            return Looked::Unseen("other proofs are being fetched".into());
        };
        let bytes = match tokio::time::timeout(FETCHING, self.fetch(from, claim)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(Trouble::Corrupt(why))) => return Looked::False(why),
            Ok(Err(Trouble::Refused(why) | Trouble::Passing(why, _))) => {
                return Looked::Unseen(why);
            }
            Ok(Err(Trouble::Ours(error))) => return Looked::Unseen(error.to_string()),
            Err(_) => return Looked::Unseen("the file did not come in time".into()),
        };
        let Ok(turn) = Arc::clone(&self.judging).acquire_owned().await else {
            return Looked::Unseen("this node stops".into());
        };
        let (folder, claim) = (self.folder.clone(), *claim);
        let judged = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            judge(&folder, &claim, &bytes)
        });
        judged.await.unwrap_or_else(|error| Looked::Unseen(error.to_string()))
    }

    /// The bytes of a file, which have the claimed hash and length.
    async fn fetch(&self, from: PeerId, claim: &FraudClaim) -> Result<Vec<u8>, Trouble> {
        let most = limits::MAX_RANGE_BYTES as u64 / RANGE_GROUP_BYTES * RANGE_GROUP_BYTES;
        let starts = (0..claim.bytes).step_by(most as usize);
        let pieces: Vec<_> = starts.map(|at| at..claim.bytes.min(at + most)).collect();
        let id = ModelId::from_bytes(*claim.file.as_bytes());
        let opened = open_all(&self.net, PROOF_PROTOCOL, from, id, claim.bytes, &pieces).await?;
        Ok(opened.into_iter().flat_map(|piece| piece.slice.bytes).collect())
    }
}

/// Judges a file alone, and keeps it if it convicts.
fn judge(folder: &Path, claim: &FraudClaim, bytes: &[u8]) -> Looked {
    let judged = match fraud::judge_bytes(bytes) {
        Ok(judged) => judged,
        Err(error @ FraudError::Holds { .. }) => return Looked::Slander(error.to_string()),
        Err(error) => return Looked::False(error.to_string()),
    };
    let accused = claim.accused.peer_id().to_string();
    if judged.accused != accused {
        return Looked::False(format!("accused: expected {accused}, got {}", judged.accused));
    }
    match fraud::write_bytes(folder, bytes) {
        Ok(_) => Looked::Convicts,
        Err(error) => Looked::Unseen(error.to_string()),
    }
}

/// A kept file, as it is opened to others.
struct Kept {
    bytes: Vec<u8>,
    tree: Tree,
}

impl Kept {
    fn read(folder: &Path, file: &Digest) -> io::Result<Kept> {
        let bytes = fraud::read_bytes(&fraud::path_of(folder, file)).map_err(io::Error::other)?;
        let mut builder = Builder::new(Mode::Plain, Group::KIB_16);
        builder.update(&bytes);
        let tree = builder.finish().map_err(io::Error::other)?;
        match tree.root() == *file {
            true => Ok(Kept { bytes, tree }),
            false => Err(io::Error::other("the file has changed")),
        }
    }

    fn open(&self, request: &RangeRequest) -> Result<RangeSlice, RangeFailure> {
        let range = request.start..request.start.saturating_add(request.length);
        let opened = self.tree.open(range, |at, buffer| {
            let from = usize::try_from(at).unwrap_or(usize::MAX);
            let piece = self.bytes.get(from..).and_then(|rest| rest.get(..buffer.len()));
            buffer.copy_from_slice(piece.ok_or(RangeError::Changed { at })?);
            Ok::<_, RangeError>(())
        });
        let Slice { bytes, hashes } =
            opened.map_err(|e| RangeFailure::new(RangeRefusal::OutOfRange, e.to_string()))?;
        Ok(RangeSlice { file_bytes: self.bytes.len() as u64, bytes, hashes })
    }
}

/// Takes proofs in and passes them on in every network, and shows their files in the public
/// one, if this node has one: the first.
///
/// # Errors
/// The files' protocol is taken already.
pub(super) fn pass_on(
    docket: &Arc<Docket>,
    nets: [Option<&Handle>; 2],
    found: mpsc::Receiver<Evidence>,
    folder: PathBuf,
    stop: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<()>>, NetError> {
    docket.watch_over(nets.into_iter().flatten());
    let Some(face) = nets.into_iter().flatten().next() else { return Ok(vec![]) };
    let files = start(face, folder, stop.clone())?;
    let passing = docket::run(Arc::clone(docket), face.clone(), found, stop.clone());
    Ok(vec![files, tokio::spawn(passing)])
}

/// Begins to open kept proofs to others.
fn start(
    net: &Handle,
    folder: PathBuf,
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, NetError> {
    let limits = FrameLimits { read_timeout: READ_TIMEOUT, ..FrameLimits::default() };
    Ok(tokio::spawn(serve(folder, net.accept(PROOF_PROTOCOL, limits)?, stop)))
}

/// Opens kept proofs to whoever asks for them by their hash, until `stop` turns true.
async fn serve(folder: PathBuf, mut incoming: Incoming, mut stop: watch::Receiver<bool>) {
    let folder = Arc::new(folder);
    let pace = Arc::new(super::pace::Pace::new(Some(BYTES_PER_SECOND)));
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some((_, stream)) if streams.len() < MAX_STREAMS => {
                    streams.spawn(converse(Arc::clone(&folder), Arc::clone(&pace), stream));
                }
                Some(_) => {}
                None => return,
            },
            Some(_) = streams.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// One stream asks for one file.
async fn converse(folder: Arc<PathBuf>, pace: Arc<super::pace::Pace>, mut stream: FrameStream) {
    let mut kept: Option<(ModelId, Arc<Kept>)> = None;
    while let Ok(Some(frame)) = stream.recv().await {
        let Ok(request) = RangeRequest::decode(&frame) else { return };
        let known = kept.clone().filter(|(id, _)| *id == request.model_id);
        let reply = match known {
            Some((_, file)) => file.open(&request),
            None => {
                let (folder, file) =
                    (Arc::clone(&folder), Digest::from_bytes(*request.model_id.as_bytes()));
                let read = tokio::task::spawn_blocking(move || Kept::read(&folder, &file)).await;
                match read {
                    Ok(Ok(file)) => {
                        let file = Arc::new(file);
                        kept = Some((request.model_id, Arc::clone(&file)));
                        file.open(&request)
                    }
                    _ => {
                        Err(RangeFailure::new(RangeRefusal::NotHeld, "this proof is not kept here"))
                    }
                }
            }
        };
        let reply = match reply {
            Ok(slice) => {
                pace.take(slice.bytes.len() as u64).await;
                RangeReply::Slice(slice)
            }
            Err(failure) => RangeReply::Failure(failure),
        };
        let Ok(reply) = reply.encode() else { return };
        if stream.send(&reply).await.is_err() {
            return;
        }
    }
    let _ = stream.finish().await;
}
