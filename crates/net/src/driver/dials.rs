//! Dialling, and who waits for which connection.

use std::collections::HashMap;

use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError as SwarmError};
use peerproof_identity::PeerId;

use super::Driver;
use crate::address::to_libp2p;
use crate::command::{Reply, answer};
use crate::failure::dial_error;
use crate::limits::MAX_DIAL_WAITERS;
use crate::metrics::count;
use crate::streams::OpenRequest;
use crate::{Address, DialError, DialReason, Source};

/// Who waits for which connection. Bounded by the pending outbound
/// connections times the waiters of each.
#[derive(Debug, Default)]
pub(super) struct Dials {
    /// Dials to a given address.
    given: HashMap<ConnectionId, Given>,
    /// Wishes to be connected to a peer, by whatever address.
    wanted: HashMap<libp2p::PeerId, Wanted>,
}

#[derive(Debug)]
struct Given {
    target: String,
    reply: Reply<Result<PeerId, DialError>>,
}

#[derive(Debug)]
struct Wanted {
    /// Our own dial; `None` while one of libp2p's behaviours is dialling.
    ours: Option<ConnectionId>,
    replies: Vec<Reply<Result<(), DialError>>>,
}

impl Dials {
    /// Whether a person named the address of this connection.
    pub(super) fn source_of(&self, connection: ConnectionId) -> Source {
        if self.given.contains_key(&connection) { Source::Given } else { Source::Kad }
    }

    pub(super) fn succeeded(
        &mut self,
        peer_id: libp2p::PeerId,
        peer: PeerId,
        connection: ConnectionId,
    ) {
        if let Some(given) = self.given.remove(&connection) {
            answer(given.reply, Ok(peer));
        }
        if let Some(wanted) = self.wanted.remove(&peer_id) {
            for reply in wanted.replies {
                answer(reply, Ok(()));
            }
        }
    }
}

impl Driver {
    /// Dials addresses that a person or a configuration gave.
    pub(super) fn dial(&mut self, addresses: &[Address], reply: Reply<Result<PeerId, DialError>>) {
        let Some(first) = addresses.first() else {
            return;
        };
        let target = first.to_string();
        let expected = first.peer();
        if let Some(peer) = expected.filter(|peer| self.neighbours.contains_key(peer)) {
            answer(reply, Ok(peer));
            return;
        }
        let opts = match expected.as_ref().and_then(to_libp2p) {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(addresses.iter().map(|a| a.as_multiaddr().clone()).collect())
                .build(),
            None => DialOpts::unknown_peer_id().address(first.as_multiaddr().clone()).build(),
        };
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dials.given.insert(connection, Given { target, reply });
            }
            // libp2p leaves out the addresses we listen on.
            Err(SwarmError::NoAddresses) => {
                self.counters.dial_failed(DialReason::Myself);
                let detail = "this node listens there".to_owned();
                answer(reply, Err(DialError { target, reason: DialReason::Myself, detail }));
            }
            Err(error) => answer(reply, Err(self.failed(&target, &error))),
        }
    }

    /// Sees to it that there is a connection to a peer.
    pub(super) fn connect(&mut self, peer: PeerId, reply: Reply<Result<(), DialError>>) {
        if self.neighbours.contains_key(&peer) {
            answer(reply, Ok(()));
            return;
        }
        let Some(peer_id) = to_libp2p(&peer) else {
            return;
        };
        if let Some(wanted) = self.dials.wanted.get_mut(&peer_id) {
            if wanted.replies.len() < MAX_DIAL_WAITERS {
                wanted.replies.push(reply);
            } else {
                answer(
                    reply,
                    Err(DialError {
                        target: peer.to_string(),
                        reason: DialReason::Limit,
                        detail: format!("{MAX_DIAL_WAITERS} callers wait for it"),
                    }),
                );
            }
            return;
        }
        match self.dial_peer(peer, peer_id) {
            Ok(ours) => {
                let replies = vec![reply];
                self.dials.wanted.insert(peer_id, Wanted { ours, replies });
            }
            Err(error) => answer(reply, Err(self.failed(&peer.to_string(), &error))),
        }
    }

    /// Dials every known address of a peer; `None` if somebody does already.
    fn dial_peer(
        &mut self,
        peer: PeerId,
        peer_id: libp2p::PeerId,
    ) -> Result<Option<ConnectionId>, SwarmError> {
        let known = self.book.addresses(&peer).iter();
        let opts = DialOpts::peer_id(peer_id)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(known.map(|a| a.as_multiaddr().clone()).collect())
            .extend_addresses_through_behaviour()
            .build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => Ok(Some(connection)),
            Err(SwarmError::DialPeerConditionFalse(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn on_dial_failed(
        &mut self,
        connection: ConnectionId,
        peer_id: Option<libp2p::PeerId>,
        error: &SwarmError,
    ) {
        let given = self.dials.given.remove(&connection);
        let target = match (&given, peer_id) {
            (Some(given), _) => given.target.clone(),
            (None, Some(peer)) => peer.to_string(),
            (None, None) => "unknown".to_owned(),
        };
        let failure = self.failed(&target, error);
        tracing::debug!(%failure, "dial failed");
        if let Some(given) = given {
            answer(given.reply, Err(failure.clone()));
        }
        if let Some(peer_id) = peer_id {
            self.wanted_failed(peer_id, connection, failure);
        }
    }

    /// A dial to a peer that somebody waits for has failed. If it wasn't ours
    /// the addresses may have been others, so we try with what we know.
    fn wanted_failed(
        &mut self,
        peer_id: libp2p::PeerId,
        connection: ConnectionId,
        failure: DialError,
    ) {
        let Some(wanted) = self.dials.wanted.get(&peer_id) else {
            return;
        };
        let verdict = match wanted.ours {
            Some(ours) if ours != connection => return,
            Some(_) => failure,
            None => {
                let Some(peer) = crate::address::from_libp2p(&peer_id) else {
                    return;
                };
                match self.dial_peer(peer, peer_id) {
                    Ok(ours) => {
                        if let Some(wanted) = self.dials.wanted.get_mut(&peer_id) {
                            wanted.ours = ours;
                        }
                        return;
                    }
                    Err(error) => self.failed(&failure.target, &error),
                }
            }
        };
        if let Some(wanted) = self.dials.wanted.remove(&peer_id) {
            for reply in wanted.replies {
                answer(reply, Err(verdict.clone()));
            }
        }
    }

    fn failed(&self, target: &str, error: &SwarmError) -> DialError {
        let failure = dial_error(target, error);
        if !matches!(error, SwarmError::DialPeerConditionFalse(_)) {
            self.counters.dial_failed(failure.reason);
        }
        failure
    }

    /// Opens a stream on the best connection. Without one the request is
    /// dropped, which its owner notices.
    pub(super) fn open(&mut self, peer: PeerId, request: OpenRequest) {
        let link = self.neighbours.get(&peer).and_then(|n| n.best());
        let (Some(link), Some(peer_id)) = (link, to_libp2p(&peer)) else {
            return;
        };
        let id = link.id;
        count(&self.counters.streams_opened);
        self.swarm.behaviour_mut().streams.open(peer_id, id, request);
    }
}
