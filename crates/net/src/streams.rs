//! Raw streams: a small libp2p behaviour of our own.
//!
//! The application names a protocol and a peer and gets a stream, or names a
//! protocol and gets the streams others open. Three properties decided against
//! the ready-made behaviour for this: a burst of inbound streams waits in a
//! queue instead of being dropped, no peer can hold more than its share, and
//! several outbound streams negotiate side by side on one connection.
//!
//! Outbound: [`Behaviour::open`] passes a request to the [`handler::Handler`]
//! of one connection; the negotiated stream returns through the request's
//! one-shot channel. Inbound: the handler asks the [`Registry`] for a
//! [`Permit`] and puts the stream into the protocol's queue. Choosing the
//! connection, dialling and framing happen elsewhere.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::{mpsc, watch};

use crate::NetError;
use crate::limits::{MAX_PROTOCOL_NAME_BYTES, MAX_PROTOCOLS};
use crate::metrics::{Counters, count};

mod handler;

pub(crate) use handler::{OpenFailure, OpenRequest};

/// A negotiated stream, and what tells that its connection has ended. Yamux
/// wakes no reader when the near side closes the connection, so a stream that
/// is waited on needs to be told.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) stream: Stream,
    pub(crate) lifeline: Lifeline,
}

/// Fails when the connection's handler is gone.
pub(crate) type Lifeline = watch::Receiver<()>;

/// An inbound stream with the right to exist.
pub(crate) type Inbound = (peerproof_identity::PeerId, Negotiated, Permit);

/// Who listens to what, and how much each peer holds. Shared by the handlers
/// of all connections and the application's side.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    per_peer: usize,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    acceptors: HashMap<StreamProtocol, mpsc::Sender<Inbound>>,
    held: HashMap<PeerId, usize>,
}

/// One stream's place in its peer's share; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Permit {
    registry: Arc<Registry>,
    peer: PeerId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if let Some(held) = state.held.get_mut(&self.peer) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.peer);
            }
        }
    }
}

impl Registry {
    pub(crate) fn new(per_peer: usize, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), per_peer, counters })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts taking streams of a protocol, until the receiver is dropped.
    pub(crate) fn accept(
        &self,
        protocol: &str,
        queue: usize,
    ) -> Result<mpsc::Receiver<Inbound>, NetError> {
        let name = protocol_name(protocol)?;
        let mut state = self.lock();
        state.acceptors.retain(|_, sender| !sender.is_closed());
        if state.acceptors.contains_key(&name) {
            return Err(NetError::Protocol {
                protocol: protocol.to_owned(),
                detail: "is already accepted by this node",
            });
        }
        if state.acceptors.len() >= MAX_PROTOCOLS {
            return Err(NetError::Limit { what: "protocols", limit: MAX_PROTOCOLS });
        }
        let (sender, receiver) = mpsc::channel(queue.max(1));
        state.acceptors.insert(name, sender);
        Ok(receiver)
    }

    fn protocols(&self) -> Vec<StreamProtocol> {
        let state = self.lock();
        state
            .acceptors
            .iter()
            .filter(|(_, sender)| !sender.is_closed())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Queues an inbound stream, or drops it and counts the refusal.
    fn admit(self: &Arc<Self>, peer: PeerId, protocol: &StreamProtocol, stream: Negotiated) {
        let taken = self.try_admit(peer, protocol, stream);
        count(if taken { &self.counters.streams_accepted } else { &self.counters.streams_refused });
    }

    fn try_admit(
        self: &Arc<Self>,
        peer: PeerId,
        protocol: &StreamProtocol,
        stream: Negotiated,
    ) -> bool {
        let Some(ours) = crate::address::from_libp2p(&peer) else {
            return false;
        };
        let (sender, permit) = {
            let mut state = self.lock();
            let Some(sender) = state.acceptors.get(protocol).cloned() else {
                return false;
            };
            let held = state.held.entry(peer).or_default();
            if *held >= self.per_peer {
                return false;
            }
            *held += 1;
            let permit = Permit { registry: Arc::clone(self), peer };
            (sender, permit)
        };
        // The lock is free here: a refused permit takes it when dropped.
        sender.try_send((ours, stream, permit)).is_ok()
    }
}

/// Checks a protocol's name.
pub(crate) fn protocol_name(protocol: &str) -> Result<StreamProtocol, NetError> {
    let refuse = |detail| NetError::Protocol {
        protocol: protocol.chars().take(MAX_PROTOCOL_NAME_BYTES).collect(),
        detail,
    };
    if protocol.len() > MAX_PROTOCOL_NAME_BYTES {
        return Err(refuse("is longer than 64 bytes"));
    }
    StreamProtocol::try_from_owned(protocol.to_owned())
        .map_err(|_| refuse("must start with a slash"))
}

/// The behaviour. One per node.
pub(crate) struct Behaviour {
    registry: Arc<Registry>,
    queue: VecDeque<(PeerId, ConnectionId, OpenRequest)>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, queue: VecDeque::new(), waker: None }
    }

    /// Asks for a stream on one connection. If the connection is gone, the
    /// request is dropped, which its receiver notices.
    pub(crate) fn open(&mut self, peer: PeerId, connection: ConnectionId, request: OpenRequest) {
        self.queue.push_back((peer, connection, request));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId) -> handler::Handler {
        handler::Handler::new(peer, Arc::clone(&self.registry))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = handler::Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, event)) = self.queue.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            });
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn registry() -> Arc<Registry> {
        Registry::new(2, Arc::default())
    }

    #[test]
    fn a_protocol_has_one_owner_at_a_time() {
        let registry = registry();
        let first = registry.accept("/a", 1).unwrap();
        assert!(registry.accept("/a", 1).is_err());
        drop(first);
        registry.accept("/a", 1).unwrap();
    }

    #[test]
    fn names_are_checked() {
        let registry = registry();
        assert!(registry.accept("a", 1).is_err());
        let long = format!("/{}", "a".repeat(MAX_PROTOCOL_NAME_BYTES));
        assert!(registry.accept(&long, 1).is_err());
    }

    #[test]
    fn protocols_are_finite() {
        let registry = registry();
        let held: Vec<_> =
            (0..MAX_PROTOCOLS).map(|i| registry.accept(&format!("/{i}"), 1).unwrap()).collect();
        assert!(matches!(registry.accept("/more", 1), Err(NetError::Limit { .. })));
        drop(held);
    }
}
