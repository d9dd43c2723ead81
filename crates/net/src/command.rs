//! What the [`crate::Handle`] asks of the swarm task.

use std::time::{Duration, Instant};

use libp2p::StreamProtocol;
use libp2p::gossipsub::MessageId;
use peerproof_identity::PeerId;
use tokio::sync::{mpsc, oneshot};

use crate::diagnose::Status;
use crate::gossip::{Heard, Judgement};
use crate::streams::{Negotiated, OpenFailure, OpenRequest};
use crate::{Address, DialError, NetError, RuleList, Source, Transport};

/// How the packets of a connection travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// From machine to machine.
    Direct,
    /// Through a third machine.
    Relayed,
}

impl PathKind {
    /// `direct` or `relayed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// A peer that is connected.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// Where it can be reached, best first.
    pub addresses: Vec<Address>,
    /// The path of the connection that streams use.
    pub path: PathKind,
    /// What carries that connection.
    pub transport: Transport,
    /// The latest measured round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// What the peer's program calls itself; unverified, printable characters only.
    pub agent: Option<String>,
    /// Since when the oldest connection stands.
    pub connected_for: Duration,
    /// How the peer became known.
    pub source: Source,
    /// Connections with this peer.
    pub connections: usize,
}

pub(crate) type Reply<T> = oneshot::Sender<T>;

/// Answers; a caller that has stopped waiting needs no answer.
pub(crate) fn answer<T>(reply: Reply<T>, value: T) {
    let _ = reply.send(value);
}

pub(crate) enum Command {
    /// Dial addresses that all belong to one node.
    Dial {
        addresses: Vec<Address>,
        reply: Reply<Result<PeerId, DialError>>,
    },
    /// Have a connection to a peer whose address is known or can be found.
    Connect {
        peer: PeerId,
        reply: Reply<Result<(), DialError>>,
    },
    /// Open a stream on the best connection; gives the request back if there
    /// is none.
    Open {
        peer: PeerId,
        request: OpenRequest,
    },
    /// Answer when the last connection to a peer has ended.
    Gone {
        peer: PeerId,
        reply: Reply<()>,
    },
    Provide {
        key: [u8; 32],
        reply: Reply<Result<(), NetError>>,
    },
    StopProviding {
        key: [u8; 32],
    },
    Find {
        key: [u8; 32],
        until: Instant,
        sink: mpsc::Sender<PeerId>,
        reply: Reply<Result<(), NetError>>,
    },
    Peers {
        reply: Reply<Vec<PeerInfo>>,
    },
    Rtt {
        peer: PeerId,
        reply: Reply<Option<Duration>>,
    },
    Ip {
        peer: PeerId,
        reply: Reply<Option<std::net::IpAddr>>,
    },
    Learn {
        peer: PeerId,
        address: Address,
    },
    Listening {
        reply: Reply<Vec<Address>>,
    },
    Ban {
        peer: PeerId,
        reply: Reply<Result<(), NetError>>,
    },
    Unban {
        peer: PeerId,
        reply: Reply<()>,
    },
    /// Listen to what peers pass on.
    Gossip {
        reply: Reply<Result<mpsc::Receiver<Heard>, NetError>>,
    },
    /// Say what becomes of a message.
    Judge {
        from: PeerId,
        id: MessageId,
        judgement: Judgement,
    },
    /// Send a message to all who listen.
    Publish {
        data: Vec<u8>,
        reply: Reply<Result<bool, NetError>>,
    },
    Score {
        peer: PeerId,
        reply: Reply<Option<f64>>,
    },
    /// Judge by other rules from here on; end what they don't allow.
    Firewall {
        rules: RuleList,
        reply: Reply<usize>,
    },
    Status {
        reply: Reply<Status>,
    },
    Shutdown {
        reply: Reply<()>,
    },
}

impl OpenRequest {
    pub(crate) fn new(
        protocol: StreamProtocol,
    ) -> (Self, oneshot::Receiver<Result<Negotiated, OpenFailure>>) {
        let (reply, answer) = oneshot::channel();
        (Self { protocol, reply }, answer)
    }
}
