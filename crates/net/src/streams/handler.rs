//! The streams of one connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
};
use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::sync::{oneshot, watch};

use super::{Negotiated, Registry};
use crate::limits::{MAX_PENDING_OPENS, STREAM_NEGOTIATION_TIMEOUT};

/// Why a stream could not be opened on a connection.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The other side doesn't know the protocol.
    Unsupported,
    /// The negotiation took too long.
    TimedOut,
    /// Too many streams wait on this connection.
    Busy,
    /// The connection broke.
    Broken(String),
}

/// A wish for one outbound stream.
pub(crate) struct OpenRequest {
    pub(crate) protocol: StreamProtocol,
    pub(crate) reply: oneshot::Sender<Result<Negotiated, OpenFailure>>,
}

impl fmt::Debug for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenRequest").field(&self.protocol).finish()
    }
}

type Reply = oneshot::Sender<Result<Negotiated, OpenFailure>>;

pub(crate) struct Handler {
    peer: PeerId,
    registry: Arc<Registry>,
    requests: VecDeque<OpenRequest>,
    /// Requests handed to the connection and not yet answered.
    negotiating: usize,
    /// Held for its end: when it goes, the connection's streams know.
    lifeline: watch::Sender<()>,
}

impl Handler {
    pub(super) fn new(peer: PeerId, registry: Arc<Registry>) -> Self {
        Self {
            peer,
            registry,
            requests: VecDeque::new(),
            negotiating: 0,
            lifeline: watch::Sender::new(()),
        }
    }

    fn negotiated(&self, stream: Stream) -> Negotiated {
        Negotiated { stream, lifeline: self.lifeline.subscribe() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenRequest;
    type ToBehaviour = Infallible;
    type InboundProtocol = AnyOf;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(AnyOf(self.registry.protocols()), ())
            .with_timeout(STREAM_NEGOTIATION_TIMEOUT)
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Reply, Self::ToBehaviour>> {
        // Whoever no longer waits needs no stream.
        while let Some(request) = self.requests.pop_front() {
            if request.reply.is_closed() {
                continue;
            }
            self.negotiating += 1;
            let protocol =
                SubstreamProtocol::new(ReadyUpgrade::new(request.protocol), request.reply)
                    .with_timeout(STREAM_NEGOTIATION_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        if self.requests.len() + self.negotiating >= MAX_PENDING_OPENS {
            // A caller that is gone needs no answer.
            let _ = request.reply.send(Err(OpenFailure::Busy));
            return;
        }
        self.requests.push_back(request);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol, (), Reply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => {
                self.registry.admit(self.peer, &protocol, self.negotiated(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: reply,
            }) => {
                self.negotiating = self.negotiating.saturating_sub(1);
                let _ = reply.send(Ok(self.negotiated(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: reply, error }) => {
                self.negotiating = self.negotiating.saturating_sub(1);
                let _ = reply.send(Err(match error {
                    StreamUpgradeError::Timeout => OpenFailure::TimedOut,
                    StreamUpgradeError::NegotiationFailed => OpenFailure::Unsupported,
                    StreamUpgradeError::Io(error) => OpenFailure::Broken(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }
}

/// Accepts any of the registered protocols.
#[derive(Debug)]
pub(crate) struct AnyOf(Vec<StreamProtocol>);

impl UpgradeInfo for AnyOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
