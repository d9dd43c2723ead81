//! The log conversation: questions about logs between nodes.
//!
//! [`answer`] serves the node's own log and its witness desk to whoever is
//! connected; a [`Talk`] asks another node. One request at a time on a stream, a
//! deadline on each. Every rule on what is handed out is `archive`'s.

use std::sync::Arc;
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_net::{FrameLimits, FrameStream, Handle, OpenError};
use peerproof_wire::limits::MAX_CHECKPOINT_BYTES;
use peerproof_wire::{HeldProof, LOG_PROTOCOL, LogRefusal, LogReply, LogRequest, Message as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::archive::{Archive, Asker};
use crate::log::{Declined, Unreadable};

/// A peer that asks nothing for so long is done.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Opening a stream, and each answer.
const TALK: Duration = Duration::from_secs(10);
/// Requests on one stream.
const MAX_REQUESTS: usize = 4096;
/// Streams served at once; more are closed unanswered.
const MAX_TALKS: usize = 256;

/// Answers questions until `stop` turns true.
pub(super) async fn answer(net: Handle, archive: Arc<Archive>, mut stop: watch::Receiver<bool>) {
    let limits = FrameLimits { read_timeout: READ_TIMEOUT, ..FrameLimits::default() };
    let mut incoming = match net.accept(LOG_PROTOCOL, limits) {
        Ok(incoming) => incoming,
        Err(error) => {
            tracing::error!(%error, "this node cannot show its log");
            return;
        }
    };
    let mut talks = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some((peer, stream)) if talks.len() < MAX_TALKS => {
                    let archive = Arc::clone(&archive);
                    talks.spawn(async move {
                        if let Err(reason) = converse(&archive, peer, stream).await {
                            tracing::debug!(%peer, reason, "a talk about logs broke off");
                        }
                    });
                }
                Some(_) => {}
                None => return,
            },
            Some(_) = talks.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn converse(archive: &Archive, peer: PeerId, mut stream: FrameStream) -> Result<(), String> {
    for _ in 0..MAX_REQUESTS {
        let Some(frame) = stream.recv().await.map_err(|e| e.to_string())? else { break };
        let request = LogRequest::decode(&frame).map_err(|e| e.to_string())?;
        let reply = reply(archive, peer, request).await;
        let bytes = reply.encode().map_err(|e| e.to_string())?;
        stream.send(&bytes).await.map_err(|e| e.to_string())?;
    }
    stream.finish().await.map_err(|e| e.to_string())
}

async fn reply(archive: &Archive, peer: PeerId, request: LogRequest) -> LogReply {
    let asker = Asker::Peer(peer);
    let none = || LogReply::Refused(LogRefusal::new(404, "there is none"));
    let unreadable = |error: &Unreadable| {
        let status = if *error == Unreadable::TooFast { 429 } else { 500 };
        LogReply::Refused(LogRefusal::new(status, error.to_string()))
    };
    match request {
        LogRequest::Piece(path) => match archive.read(asker, &path).await {
            Ok(Some(piece)) => LogReply::Found(piece.bytes),
            Ok(None) => none(),
            Err(error) => unreadable(&error),
        },
        LogRequest::Cosigned(key) => match archive.last_seen(asker, &key.peer_id()) {
            Ok(Some(note)) => LogReply::Found(note.into_bytes()),
            Ok(None) => none(),
            Err(error) => unreadable(&error),
        },
        LogRequest::AddCheckpoint(body) => match archive.add_checkpoint(asker, &body).await {
            Ok(line) => LogReply::Found(line.into_bytes()),
            Err(declined) => LogReply::Refused(refusal(declined)),
        },
        LogRequest::Held(from) => match archive.held(asker, from.index).await {
            Ok(Some((index, evidence))) => LogReply::Held(Box::new(HeldProof { index, evidence })),
            Ok(None) => none(),
            Err(error) => unreadable(&error),
        },
    }
}

fn refusal(declined: Declined) -> LogRefusal {
    let last = declined.last.map(|(_, note)| note);
    let last = last.filter(|note| note.len() <= MAX_CHECKPOINT_BYTES).unwrap_or_default();
    LogRefusal { last, ..LogRefusal::new(declined.status.into(), declined.message) }
}

/// Why a peer gave no answer.
#[derive(Debug)]
pub(super) struct Trouble {
    /// It doesn't speak this protocol, and won't in a minute.
    pub(super) is_foreign: bool,
    pub(super) reason: String,
}

impl From<String> for Trouble {
    fn from(reason: String) -> Trouble {
        Trouble { is_foreign: false, reason }
    }
}

/// Questions to one peer.
pub(super) struct Talk {
    stream: FrameStream,
}

impl Talk {
    /// Opens a stream.
    pub(super) async fn open(net: &Handle, peer: PeerId) -> Result<Talk, Trouble> {
        let limits = FrameLimits { read_timeout: TALK, ..FrameLimits::default() };
        let opened = net.open(peer, LOG_PROTOCOL, TALK, limits).await;
        let stream = opened.map_err(|error| Trouble {
            is_foreign: matches!(error, OpenError::Unsupported { .. }),
            reason: error.to_string(),
        })?;
        Ok(Talk { stream })
    }

    pub(super) async fn ask(&mut self, request: &LogRequest) -> Result<LogReply, Trouble> {
        Ok(self.try_ask(request).await?)
    }

    async fn try_ask(&mut self, request: &LogRequest) -> Result<LogReply, String> {
        let bytes = request.encode().map_err(|e| e.to_string())?;
        self.stream.send(&bytes).await.map_err(|e| e.to_string())?;
        let frame = self.stream.recv().await.map_err(|e| e.to_string())?.ok_or("closed")?;
        LogReply::decode(&frame).map_err(|e| e.to_string())
    }
}
