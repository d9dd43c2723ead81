//! Disputes: a cell that does not hold is narrowed to one operation, with the help of
//! whoever is accused of it.
//!
//! [`answer_disputes`] is the accused's side: it computes the answer again, signs what
//! happened within the cell, and shows the pieces that are asked for. A provider that
//! computed what it committed to has nothing to fear from that: no operation of its trace
//! is wrong. [`dispute`] is the accuser's. Each round has its deadline; whoever is silent,
//! refuses, or signs something else ends the dispute, and the proof of the whole cell,
//! which needs nobody's help, is what is left (`spotting`).
//!
//! Deliberately absent: what differs and what it proves (`engine::dispute`).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerproof_engine::dispute::{Accuser, Next, Traced, TracedPart};
use peerproof_engine::spot::Checker;
use peerproof_identity::Keypair;
use peerproof_net::{FrameLimits, FrameStream, Handle, Incoming};
use peerproof_wire::audit::AuditFailure;
use peerproof_wire::{
    Case, Cell, CellOpening, DISPUTE_PROTOCOL, Digest, DisputeOpen, DisputeProof, DisputeReply,
    DisputeRequest, Message as _, Signed, Trace,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::auditing::Replays;
use super::fetching::Fetcher;
use super::spotting::{Guest, Guests, MAX_REQUESTS_A_PEER, check_request, load, recompute};

/// How long the accused may take to compute an answer again and to sign a trace.
const TRACING: Duration = Duration::from_secs(110);
/// How long it may take for every round behind the first.
const ROUND: Duration = Duration::from_secs(10);
/// How long reaching it may take.
const REACHING: Duration = Duration::from_secs(3);
/// Disputes that wait or run at once.
const MAX_DISPUTES: usize = 4;
/// What is asked in one dispute at most.
const MAX_ASKED: usize = 8;

/// Answers disputes about what `key` has signed, until `stop` turns true.
pub(super) async fn answer_disputes(
    key: Arc<Keypair>,
    replays: Arc<Replays>,
    mut incoming: Incoming,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_DISPUTES));
    let peers: Guests = Arc::new(Mutex::default());
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some((_, stream)) => {
                    let guest = Guest::enter(&peers, stream.peer());
                    let (replays, room) = (Arc::clone(&replays), Arc::clone(&room));
                    let key = Arc::clone(&key);
                    tasks.spawn(async move { answer(&key, &replays, &room, guest, stream).await });
                }
                None => return,
            },
            Some(_) = tasks.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// What a dispute is about, once it is open.
struct Desk {
    traced: Arc<Traced>,
    part: Option<TracedPart>,
    receipt_id: Digest,
    offer_id: Digest,
}

async fn answer(
    key: &Keypair,
    replays: &Replays,
    room: &Semaphore,
    guest: Guest,
    mut stream: FrameStream,
) {
    let mut desk = None;
    let Ok(_place) = room.try_acquire() else {
        let busy = AuditFailure { retry_after_ms: 1_000, ..AuditFailure::new("too many disputes") };
        // Read in any case: a stream that is dropped with bytes unread breaks, and the reply is lost.
        let _ = stream.recv().await;
        send(&mut stream, DisputeReply::Failure(busy)).await;
        return;
    };
    for _ in 0..MAX_ASKED {
        let Ok(Some(frame)) = stream.recv().await else { return };
        let reply = match DisputeRequest::decode(&frame) {
            Ok(request) if guest.count() <= MAX_REQUESTS_A_PEER => {
                reply(key, replays, &mut desk, request).await
            }
            Ok(_) => Err("this peer's other disputes come first".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let failed = reply.is_err();
        let failure = |why: String| DisputeReply::Failure(AuditFailure::new(why));
        if !send(&mut stream, reply.unwrap_or_else(failure)).await || failed {
            break;
        }
    }
    drop(stream.finish().await);
}

async fn send(stream: &mut FrameStream, reply: DisputeReply) -> bool {
    match reply.encode() {
        Ok(frame) => stream.send(&frame).await.is_ok(),
        Err(_) => false,
    }
}

async fn reply(
    key: &Keypair,
    replays: &Replays,
    desk: &mut Option<Desk>,
    request: DisputeRequest,
) -> Result<DisputeReply, String> {
    match (request, desk) {
        (DisputeRequest::Open(open), desk @ None) => {
            let opened = begin(key, replays, open).await?;
            let trace = opened.traced.statement(opened.receipt_id);
            *desk = Some(opened);
            signed(key, trace)
        }
        (DisputeRequest::Row(wanted), Some(desk)) => {
            let chunk = match &desk.part {
                Some(part) => part.chunk(&wanted),
                None => desk.traced.chunk(&desk.offer_id, &wanted),
            };
            chunk.map(DisputeReply::Chunk).ok_or_else(|| "no such row differs".to_owned())
        }
        (DisputeRequest::Part(wanted), Some(desk)) => {
            let traced = Arc::clone(&desk.traced);
            let part = tokio::task::spawn_blocking(move || traced.part(wanted)).await;
            let part = part.map_err(|e| e.to_string())?.ok_or("no such head")?;
            let trace = part.statement(&desk.traced, desk.receipt_id);
            desk.part = Some(part);
            signed(key, trace)
        }
        _ => Err("a dispute is opened once, and first".to_owned()),
    }
}

fn signed(key: &Keypair, trace: Trace) -> Result<DisputeReply, String> {
    Signed::sign(key, trace).map(DisputeReply::Trace).map_err(|e| e.to_string())
}

/// Computes the answer again and traces the cell.
async fn begin(key: &Keypair, replays: &Replays, open: DisputeOpen) -> Result<Desk, String> {
    let DisputeOpen { case, client_nonce, cell } = open;
    check_request(key.public(), &case, &client_nonce)?;
    let (receipt_id, offer_id) = (case.receipt.id(), case.offer.id());
    let model = case.offer.model_id;
    let traced = replays.replay(Arc::new(case), move |replayer, case| {
        trace(replayer, case, cell).map_err(|error| error.to_string())
    });
    match traced.await {
        Some(traced) => Ok(Desk { traced: Arc::new(traced?), part: None, receipt_id, offer_id }),
        None => Err(format!("model {model} is not held here")),
    }
}

/// A cell of an answer, traced by whoever holds the model.
fn trace(
    replayer: &peerproof_engine::execute::Replayer,
    case: &Case,
    cell: Cell,
) -> Result<Traced, Box<dyn std::error::Error>> {
    let (_, exposure, _) = recompute(replayer, case, &[cell])?;
    let exposed = exposure.exposed.first().ok_or("the answer has no such cell")?;
    Ok(Traced::exposed(replayer.model().transformer(), exposed)?)
}

/// What is disputed, and by what.
pub(super) struct Matter<'a> {
    pub(super) checker: &'a Arc<Checker>,
    pub(super) case: &'a Arc<Case>,
    pub(super) opening: &'a CellOpening,
    pub(super) client_nonce: [u8; 32],
}

/// Narrows a cell that does not hold to one operation, and gives the proof.
pub(super) async fn dispute(
    net: &Handle,
    fetcher: &Fetcher,
    matter: Matter<'_>,
) -> Result<DisputeProof, String> {
    let Matter { checker, case, opening, client_nonce } = matter;
    let cell = opening.cell;
    load(fetcher, checker, case, &[cell]).await?;
    let accusing = {
        let (checker, case) = (Arc::clone(checker), Arc::clone(case));
        let mut opening = opening.clone();
        opening.products.clear();
        tokio::task::spawn_blocking(move || checker.accuse(&case, &opening)).await
    };
    let mut accuser = accusing.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let limits = FrameLimits { read_timeout: TRACING, ..FrameLimits::default() };
    let peer = case.receipt.key().peer_id();
    let open = net.open(peer, DISPUTE_PROTOCOL, REACHING, limits);
    let mut stream = open.await.map_err(|e| format!("it takes no dispute: {e}"))?;
    let first = DisputeOpen { case: Case::clone(case), client_nonce, cell };
    let (operation, index) = narrow(&mut stream, &mut accuser, DisputeRequest::Open(first)).await?;
    let ranges = accuser.file_ranges(operation, index).map_err(|e| e.to_string())?;
    let weights = match ranges.is_empty() {
        true => Vec::new(),
        false => {
            let weights = fetcher.slices(case.offer.model_id, checker.file_bytes(), &ranges).await;
            weights.map_err(|e| e.to_string())?
        }
    };
    accuser.prove(operation, index, &weights).map_err(|e| e.to_string())
}

/// Round after round, up to the operation.
async fn narrow(
    stream: &mut FrameStream,
    accuser: &mut Accuser,
    first: DisputeRequest,
) -> Result<(peerproof_engine::dispute::Operation, u32), String> {
    let (mut request, mut deadline) = (first, TRACING);
    loop {
        let frame = request.encode().map_err(|e| e.to_string())?;
        stream.send(&frame).await.map_err(|e| e.to_string())?;
        let reply = tokio::time::timeout(deadline, stream.recv()).await;
        let reply = reply.map_err(|_| format!("no answer within {} s", deadline.as_secs()))?;
        let frame = reply.map_err(|e| e.to_string())?.ok_or("it closed the stream")?;
        let next = match (DisputeReply::decode(&frame).map_err(|e| e.to_string())?, &request) {
            (DisputeReply::Failure(failure), _) => return Err(failure.message),
            (DisputeReply::Trace(trace), DisputeRequest::Open(_)) => accuser.trace(trace),
            (DisputeReply::Trace(trace), DisputeRequest::Part(_)) => accuser.part(trace),
            (DisputeReply::Chunk(chunk), DisputeRequest::Row(row)) => accuser.chunk(chunk, row.row),
            _ => return Err("it answers something else".to_owned()),
        };
        deadline = ROUND;
        request = match next.map_err(|e| e.to_string())? {
            Next::Row(row) => DisputeRequest::Row(row),
            Next::Part(part) => DisputeRequest::Part(part),
            Next::Prove(operation, index) => return Ok((operation, index)),
        };
    }
}
