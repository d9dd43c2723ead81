//! One peer that sends pieces, over a few streams at once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_net::{FrameError, FrameLimits, FrameStream, Handle, OpenError};
use peerproof_proof::ranges::{Group, Mode, RangeError, Shape, Slice, verify};
use peerproof_wire::{
    Digest, Message as _, ModelId, RANGE_PROTOCOL, RangeFailure, RangeRefusal, RangeReply,
    RangeRequest, RangeSlice, WeightRange,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::queue::Queue;
use crate::models::{InsertError, ModelError, Partial};
use crate::node::pace::Pace;

/// Streams to one peer at once.
const STREAMS: usize = 3;
/// For a stream to open, connection included.
const OPEN: Duration = Duration::from_secs(8);
/// For one reply. At 64 KiB a second a piece takes half of it.
const REPLY: Duration = Duration::from_secs(16);
/// Streams that may break, or requests refused for the moment, before a peer is given up. A
/// piece that came sets it back.
const MAX_SETBACKS: u32 = 4;
/// First pause after a stream broke; doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause that a busy peer may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What is wrong with a peer, or with this machine.
#[derive(Debug)]
pub(in crate::node) enum Trouble {
    /// What came is not the model's, or no reply: nobody honest sends it.
    Corrupt(String),
    /// It will not send what is wanted.
    Refused(String),
    /// It may be there again in a moment.
    Passing(String, Duration),
    /// The disk.
    Ours(ModelError),
}

/// What a source reports.
#[derive(Debug)]
pub(super) enum Event {
    /// So many new bytes are here.
    Took(PeerId, u64),
    /// It ended: all is done, or what was wrong.
    Ended(PeerId, Option<Trouble>),
}

/// What all sources of one fetch share.
pub(super) struct Fetch {
    pub(super) net: Handle,
    pub(super) partial: Arc<Partial>,
    pub(super) queue: Arc<Queue>,
    pub(super) pace: Arc<Pace>,
    pub(super) events: mpsc::Sender<Event>,
}

/// Fetches pieces from a peer until there are none, or it is no good.
pub(super) async fn run(fetch: Arc<Fetch>, peer: PeerId) {
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        streams.spawn(pull(Arc::clone(&fetch), peer));
    }
    let mut ended = None;
    loop {
        tokio::select! {
            stream = streams.join_next() => match stream {
                Some(Ok(Err(trouble))) => {
                    // What one stream has met, the others meet too.
                    ended = Some(trouble);
                    break;
                }
                Some(_) => {}
                None => break,
            },
            // Whoever is slow need not be waited for.
            () = fetch.queue.ended() => break,
        }
    }
    streams.shutdown().await;
    let _ = fetch.events.send(Event::Ended(peer, ended)).await;
}

async fn pull(fetch: Arc<Fetch>, peer: PeerId) -> Result<(), Trouble> {
    let mut setbacks = 0;
    loop {
        match pull_on_one_stream(&fetch, peer, &mut setbacks).await {
            Ok(()) => return Ok(()),
            Err(Trouble::Passing(why, pause)) => {
                setbacks += 1;
                if setbacks > MAX_SETBACKS {
                    return Err(Trouble::Passing(why, pause));
                }
                tracing::debug!(%peer, why, "a range did not come; asking again");
                tokio::time::sleep(pause.max(PAUSE * (1 << setbacks))).await;
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

async fn pull_on_one_stream(
    fetch: &Arc<Fetch>,
    peer: PeerId,
    setbacks: &mut u32,
) -> Result<(), Trouble> {
    // Nobody waits for a piece while a connection is made.
    let mut stream = open(&fetch.net, RANGE_PROTOCOL, peer).await?;
    while let Some(piece) = fetch.queue.next().await {
        let range = piece.range.clone();
        fetch.pace.take(range.end - range.start).await;
        let length = range.end - range.start;
        let request = RangeRequest { model_id: fetch.partial.id(), start: range.start, length };
        let slice = exchange(&mut stream, &request).await?;
        check_length(fetch.partial.length(), &slice)?;
        let partial = Arc::clone(&fetch.partial);
        let slice = Slice { bytes: slice.bytes, hashes: slice.hashes };
        let taking = tokio::task::spawn_blocking(move || partial.insert(range, &slice));
        let new = match taking.await {
            Ok(Ok(new)) => new,
            Ok(Err(InsertError::Range(error))) => return Err(Trouble::Corrupt(error.to_string())),
            Ok(Err(InsertError::Store(error))) => return Err(Trouble::Ours(error)),
            Err(error) => return Err(passing(&error)),
        };
        piece.done();
        *setbacks = 0;
        if fetch.events.send(Event::Took(peer, new)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Asks a peer for the last byte of a file of this length, whose opening proves the length.
pub(super) async fn prove_length(
    net: &Handle,
    peer: PeerId,
    model_id: ModelId,
    length: u64,
) -> Result<Slice, Trouble> {
    let Some(start) = length.checked_sub(1) else {
        return Err(Trouble::Corrupt("announces a model file without bytes".into()));
    };
    let mut stream = open(net, RANGE_PROTOCOL, peer).await?;
    let request = RangeRequest { model_id, start, length: 1 };
    let slice = exchange(&mut stream, &request).await?;
    check_length(length, &slice)?;
    Ok(Slice { bytes: slice.bytes, hashes: slice.hashes })
}

/// Pieces of a file of this length as a peer opens them, each of which is the model's.
pub(in crate::node) async fn open_all(
    net: &Handle,
    protocol: &'static str,
    peer: PeerId,
    model_id: ModelId,
    length: u64,
    pieces: &[Range<u64>],
) -> Result<Vec<WeightRange>, Trouble> {
    let corrupt = |error: RangeError| Trouble::Corrupt(error.to_string());
    let shape = Shape::new(length, Group::KIB_16).map_err(corrupt)?;
    let root = Digest::from_bytes(*model_id.as_bytes());
    let mut stream = open(net, protocol, peer).await?;
    let mut opened = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (start, bytes) = (piece.start, piece.end - piece.start);
        let request = RangeRequest { model_id, start, length: bytes };
        let got = exchange(&mut stream, &request).await?;
        check_length(length, &got)?;
        let slice = Slice { bytes: got.bytes, hashes: got.hashes };
        verify(Mode::Plain, &root, shape, piece.clone(), &slice).map_err(corrupt)?;
        let Slice { bytes: data, hashes } = slice;
        let slice = RangeSlice { file_bytes: length, bytes: data, hashes };
        opened.push(WeightRange { start, length: bytes, slice });
    }
    Ok(opened)
}

fn check_length(expected: u64, slice: &RangeSlice) -> Result<(), Trouble> {
    if slice.file_bytes == expected {
        return Ok(());
    }
    let got = slice.file_bytes;
    Err(Trouble::Corrupt(format!("length of the file: expected {expected} bytes, got {got}")))
}

async fn open(net: &Handle, protocol: &'static str, peer: PeerId) -> Result<FrameStream, Trouble> {
    let limits = FrameLimits { read_timeout: REPLY, ..FrameLimits::default() };
    net.open(peer, protocol, OPEN, limits).await.map_err(|error| match error {
        OpenError::Unsupported { .. } => Trouble::Refused("does not share model files".into()),
        other => passing(&other),
    })
}

/// One request and its reply.
async fn exchange(stream: &mut FrameStream, request: &RangeRequest) -> Result<RangeSlice, Trouble> {
    let bytes = request.encode().map_err(|e| Trouble::Corrupt(e.to_string()))?;
    stream.send(&bytes).await.map_err(|e| passing(&e))?;
    let frame = match stream.recv().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(passing(&"it closed the stream")),
        Err(error @ (FrameError::TooLong { .. } | FrameError::Refused(_))) => {
            return Err(Trouble::Corrupt(error.to_string()));
        }
        Err(error) => return Err(passing(&error)),
    };
    match RangeReply::decode(&frame).map_err(|e| Trouble::Corrupt(e.to_string()))? {
        RangeReply::Slice(slice) => Ok(slice),
        RangeReply::Failure(RangeFailure { code: RangeRefusal::Busy, message, retry_after_ms }) => {
            Err(Trouble::Passing(
                format!("busy: {message}"),
                Duration::from_millis(retry_after_ms).min(MAX_PAUSE),
            ))
        }
        RangeReply::Failure(failure) => Err(Trouble::Refused(failure.message)),
    }
}

fn passing(why: &dyn std::fmt::Display) -> Trouble {
    Trouble::Passing(why.to_string(), Duration::ZERO)
}
