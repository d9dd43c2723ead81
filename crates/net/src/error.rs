//! What can go wrong, one type per family of operations.
//!
//! Every error names the place (address, peer or protocol). [`DialReason`] is
//! also the label under which failures are counted, so the counters of
//! [`crate::Metrics`] and the words a person reads are the same.

use std::fmt;
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_wire::WireError;

use crate::Address;

/// Starting or steering a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Another program listens there.
    #[error(
        "{address} is already in use; stop the program that listens there, or choose another port (0 picks a free one)"
    )]
    PortTaken {
        /// The address that was asked for.
        address: Address,
    },
    /// The operating system refuses to listen there.
    #[error("can't listen on {address}: {detail}")]
    Listen {
        /// The address that was asked for.
        address: Address,
        /// The system's words.
        detail: String,
    },
    /// The configuration contradicts itself or exceeds a limit.
    #[error("{setting}: {detail}")]
    Config {
        /// Which setting.
        setting: &'static str,
        /// What is wrong and what to do.
        detail: String,
    },
    /// `SSLKEYLOGFILE` is set, which would write the keys of every QUIC
    /// connection to a file.
    #[error(
        "SSLKEYLOGFILE is set, so the secrets of every connection would be written to a file; unset it and start again"
    )]
    KeyLogging,
    /// The key can't be used with libp2p, or a transport can't be built.
    #[error("can't set up the transports: {detail}")]
    Setup {
        /// What the library says.
        detail: String,
    },
    /// A ceiling of [`crate::limits`] is reached; nothing changed.
    #[error("at most {limit} {what} at once")]
    Limit {
        /// What there would be too many of.
        what: &'static str,
        /// The ceiling.
        limit: usize,
    },
    /// A protocol name that can't be used, or one that is already accepted.
    #[error("protocol `{protocol}`: {detail}")]
    Protocol {
        /// The name.
        protocol: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// The network has been shut down.
    #[error("the network has been shut down")]
    Stopped,
}

/// Why a dial failed. Also the label it is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DialReason {
    /// Somebody is there and said no: the port is closed.
    Refused,
    /// Nothing answered in time: switched off, a wrong address, or a firewall.
    TimedOut,
    /// The network has no way there.
    Unreachable,
    /// The name could not be looked up.
    Unresolved,
    /// Somebody else answered.
    WrongPeer,
    /// We answered ourselves.
    Myself,
    /// The other side speaks no transport of ours or another protocol.
    Handshake,
    /// A ban, ours.
    Banned,
    /// A rule of our firewall.
    Firewall,
    /// One of our own limits.
    Limit,
    /// No address of that peer is known.
    NoAddress,
    /// The address can't be used here.
    BadAddress,
    /// The dial was called off.
    Aborted,
}

impl DialReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Unresolved,
        Self::WrongPeer,
        Self::Myself,
        Self::Handshake,
        Self::Banned,
        Self::Firewall,
        Self::Limit,
        Self::NoAddress,
        Self::BadAddress,
        Self::Aborted,
    ];

    /// A short label, as metrics and `--json` print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Unresolved => "unresolved",
            Self::WrongPeer => "wrong_peer",
            Self::Myself => "myself",
            Self::Handshake => "handshake",
            Self::Banned => "banned",
            Self::Firewall => "firewall",
            Self::Limit => "limit",
            Self::NoAddress => "no_address",
            Self::BadAddress => "bad_address",
            Self::Aborted => "aborted",
        }
    }

    /// What it means, for a person.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Refused => "the port is closed there; is the node running?",
            Self::TimedOut => {
                "nothing answered; the node is off, the address wrong, or a firewall drops the packets"
            }
            Self::Unreachable => "this machine has no route there",
            Self::Unresolved => "the name could not be looked up",
            Self::WrongPeer => "another peer answered at that address",
            Self::Myself => "that address is this node",
            Self::Handshake => "somebody answered, but not with this protocol",
            Self::Banned => "that peer is banned here",
            Self::Firewall => "a rule of this node's firewall forbids it",
            Self::Limit => "a connection limit of this node is reached",
            Self::NoAddress => "no address of that peer is known",
            Self::BadAddress => "that address can't be used here",
            Self::Aborted => "the attempt was called off",
        }
    }
}

impl fmt::Display for DialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explain())
    }
}

/// A connection could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't reach {target}: {reason} ({detail})")]
pub struct DialError {
    /// The address or the peer that was meant.
    pub target: String,
    /// The class of the failure.
    pub reason: DialReason,
    /// The words of the layer that failed.
    pub detail: String,
}

/// A stream could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer doesn't speak that protocol.
    #[error("{peer} doesn't speak {protocol}")]
    Unsupported {
        /// Whom we asked.
        peer: PeerId,
        /// For what.
        protocol: String,
    },
    /// The connection ended meanwhile.
    #[error("the connection to {peer} ended while {protocol} was being opened: {detail}")]
    Lost {
        /// Whom we asked.
        peer: PeerId,
        /// For what.
        protocol: String,
        /// What is known.
        detail: String,
    },
    /// It took longer than the caller wanted to wait.
    #[error("{peer} didn't open {protocol} within {after:?}")]
    TimedOut {
        /// Whom we asked.
        peer: PeerId,
        /// For what.
        protocol: String,
        /// How long we waited.
        after: Duration,
    },
    /// Too many streams wait on that connection, or the name is unusable.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// A frame could not be sent or received. The stream is of no further use,
/// save after [`FrameError::TooLong`] or [`FrameError::Empty`] on sending, which
/// write nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is above what this stream carries.
    #[error("a frame of at least {got} bytes; this stream carries at most {limit}")]
    TooLong {
        /// The most this stream carries.
        limit: usize,
        /// How much was there when it was refused.
        got: usize,
    },
    /// A frame has at least one byte.
    #[error("an empty frame")]
    Empty,
    /// The frame's length is malformed, or beyond what any frame may have.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {got} bytes of it")]
    Truncated {
        /// What had come of the frame, its length included.
        got: usize,
    },
    /// The other side was silent, or took nothing, for too long.
    #[error("the peer {doing} nothing for {after:?}")]
    Idle {
        /// `sent` or `took`.
        doing: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// The connection or the stream broke.
    #[error("the stream broke: {detail}")]
    Broken {
        /// The transport's words.
        detail: String,
    },
}

impl FrameError {
    /// Whether the other side broke the rules, as opposed to vanishing.
    pub const fn is_violation(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::Refused(_) | Self::Truncated { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_label() {
        let labels: HashSet<_> = DialReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(labels.len(), DialReason::ALL.len());
    }
}
