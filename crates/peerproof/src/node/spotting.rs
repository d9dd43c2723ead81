//! Spot audits: cells of an answer, opened by who holds the model and recomputed
//! by who does not.
//!
//! [`open_cells`] answers requests of the cells protocol: it computes the answer
//! again and opens what is asked for. [`Spots`] is the router's side: it draws
//! cells by the nonce that was secret until the receipt came, asks the provider,
//! fetches the stretches of the model's file that the cells take from whoever
//! shares it, and recomputes. Only what is fetched once more than needed stays:
//! the partial file on disk.
//!
//! Deliberately absent: a judgement of the whole answer. What was not drawn may
//! be wrong.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerproof_engine::spot::{Checker, SpotError, expose};
use peerproof_identity::PeerId;
use peerproof_job::Fault;
use peerproof_job::router::{Audited, Auditor};
use peerproof_net::{FrameLimits, FrameStream, Handle, Incoming};
use peerproof_proof::cells;
use peerproof_proof::{Transcript, receipt};
use peerproof_wire::audit::AuditFailure;
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    CELLS_PROTOCOL, Case, Cell, CellOpening, CellsPart, CellsReply, CellsRequest, FraudProof, Leaf,
    Message as _, Mismatch, ModelId, RangeSlice, WeightRange, limits,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::auditing::Replays;
use super::fetching::Fetcher;

/// Cells that a spot audit draws.
pub(crate) const CELLS: u32 = 8;
/// A router that asks for nothing within this time is gone.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other side may take to compute an answer again.
const OPENING: Duration = Duration::from_secs(110);
/// How long reaching it may take.
const REACHING: Duration = Duration::from_secs(3);
/// Requests that wait or run at once.
const MAX_REQUESTS: usize = 16;
/// Of one peer.
const MAX_REQUESTS_A_PEER: usize = 2;
/// The first stretch of a file that is tried for its header.
const FIRST_HEADER_BYTES: u64 = 1 << 20;
/// The longest header that is fetched.
const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Opens cells for whoever asks, until `stop` turns true.
pub(super) async fn open_cells(
    replays: Arc<Replays>,
    mut incoming: Incoming,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_REQUESTS));
    let peers: Arc<Mutex<HashMap<PeerId, usize>>> = Arc::default();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some((_, stream)) => {
                    let guest = Guest::enter(&peers, stream.peer());
                    let (replays, room) = (Arc::clone(&replays), Arc::clone(&room));
                    tasks.spawn(async move { answer(&replays, &room, guest, stream).await });
                }
                None => return,
            },
            Some(_) = tasks.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// A peer's request, counted while it lasts.
struct Guest {
    peers: Arc<Mutex<HashMap<PeerId, usize>>>,
    peer: PeerId,
    /// How many of this peer's are there, this one included.
    count: usize,
}

impl Guest {
    fn enter(peers: &Arc<Mutex<HashMap<PeerId, usize>>>, peer: PeerId) -> Guest {
        let mut counts = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        *count += 1;
        Guest { peers: Arc::clone(peers), peer, count: *count }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}
