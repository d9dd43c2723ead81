//! From libp2p's dial errors to reasons a person understands.
//!
//! The transports box their errors several layers deep, so the reason is found
//! by walking down the chain of sources to the operating system's error or to
//! the QUIC layer's.

use std::error::Error;
use std::io::{self, ErrorKind};

use libp2p::core::transport::TransportError;
use libp2p::swarm::DialError as SwarmError;
use libp2p::{allow_block_list, connection_limits, memory_connection_limits, quic};

use crate::gate::Shut;
use crate::{Address, DialError, DialReason};

/// Links followed down a chain of sources.
const MAX_DEPTH: usize = 16;

pub(crate) fn dial_error(target: &str, error: &SwarmError) -> DialError {
    let (reason, detail) = match error {
        SwarmError::Transport(attempts) => transport_failure(attempts),
        SwarmError::WrongPeerId { obtained, .. } => {
            (DialReason::WrongPeer, format!("{obtained} is there"))
        }
        SwarmError::LocalPeerId { address } => (DialReason::Myself, address.to_string()),
        SwarmError::NoAddresses => (DialReason::NoAddress, "none known".to_owned()),
        SwarmError::Denied { cause } => (denial(cause), cause_text(cause)),
        SwarmError::Aborted | SwarmError::DialPeerConditionFalse(_) => {
            (DialReason::Aborted, error.to_string())
        }
    };
    DialError { target: target.to_owned(), reason, detail }
}

/// Of several attempts, the reason that says most; the details of all.
fn transport_failure(
    attempts: &[(libp2p::Multiaddr, TransportError<io::Error>)],
) -> (DialReason, String) {
    let mut reasons = Vec::new();
    let mut details = Vec::new();
    for (address, error) in attempts {
        let (reason, detail) = match error {
            TransportError::MultiaddrNotSupported(_) => {
                (DialReason::BadAddress, "not supported".to_owned())
            }
            TransportError::Other(error) => classify(error),
        };
        let at = Address::from_multiaddr(address)
            .map_or_else(|| address.to_string(), |a| a.without_peer().to_string());
        details.push(format!("{at}: {detail}"));
        reasons.push(reason);
    }
    let reason = reasons.iter().min_by_key(|r| rank(**r)).copied();
    (reason.unwrap_or(DialReason::NoAddress), details.join("; "))
}

/// Lower says more about what to do.
const fn rank(reason: DialReason) -> u8 {
    match reason {
        DialReason::Handshake => 0,
        DialReason::Refused => 1,
        DialReason::Unreachable => 2,
        DialReason::TimedOut => 3,
        _ => 4,
    }
}

fn classify(error: &io::Error) -> (DialReason, String) {
    let mut innermost = error.to_string();
    for link in chain(error) {
        innermost = link.to_string();
        if link.is::<Shut>() {
            return (DialReason::Firewall, innermost);
        }
        let reason = match link.downcast_ref::<io::Error>() {
            Some(io) => by_kind(io.kind()),
            None => {
                matches!(link.downcast_ref::<quic::Error>(), Some(quic::Error::HandshakeTimedOut))
                    .then_some(DialReason::TimedOut)
            }
        };
        if let Some(reason) = reason {
            return (reason, innermost);
        }
    }
    // The QUIC layer's innermost error is not public; its words are.
    let reason = if innermost.contains("timed out") || innermost.contains("Timeout") {
        DialReason::TimedOut
    } else {
        DialReason::Handshake
    };
    (reason, innermost)
}

/// Whether an error says that a port is taken, under however many layers.
pub(crate) fn is_port_taken(error: &io::Error) -> bool {
    chain(error)
        .filter_map(|link| link.downcast_ref::<io::Error>())
        .any(|io| io.kind() == ErrorKind::AddrInUse)
}

/// An error and what it wraps, outermost first. Follows what
/// [`Error::source`] skips: the inside of an [`io::Error`], and of QUIC's own.
fn chain<'a>(error: &'a io::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut link: Option<&'a (dyn Error + 'static)> = Some(error);
    std::iter::from_fn(move || {
        let current = link?;
        link = if let Some(io) = current.downcast_ref::<io::Error>() {
            io.get_ref().map(|inner| inner as &(dyn Error + 'static))
        } else if let Some(quic::Error::Io(io)) = current.downcast_ref::<quic::Error>() {
            Some(io)
        } else {
            current.source()
        };
        Some(current)
    })
    .take(MAX_DEPTH)
}

fn by_kind(kind: ErrorKind) -> Option<DialReason> {
    Some(match kind {
        ErrorKind::ConnectionRefused => DialReason::Refused,
        ErrorKind::TimedOut => DialReason::TimedOut,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::NetworkDown => {
            DialReason::Unreachable
        }
        ErrorKind::AddrNotAvailable | ErrorKind::InvalidInput => DialReason::BadAddress,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::UnexpectedEof
        | ErrorKind::BrokenPipe => DialReason::Handshake,
        _ => return None,
    })
}

fn denial(cause: &libp2p::swarm::ConnectionDenied) -> DialReason {
    if cause.downcast_ref::<allow_block_list::Blocked>().is_some() {
        DialReason::Banned
    } else if matches!(cause.downcast_ref::<Shut>(), Some(Shut::Outside)) {
        DialReason::BadAddress
    } else if matches!(cause.downcast_ref::<Shut>(), Some(Shut::Key)) {
        DialReason::Handshake
    } else if matches!(cause.downcast_ref::<Shut>(), Some(Shut::Rule { .. })) {
        DialReason::Firewall
    } else if cause.downcast_ref::<connection_limits::Exceeded>().is_some()
        || cause.downcast_ref::<memory_connection_limits::MemoryUsageLimitExceeded>().is_some()
    {
        DialReason::Limit
    } else {
        DialReason::Aborted
    }
}

fn cause_text(cause: &libp2p::swarm::ConnectionDenied) -> String {
    cause.source().map_or_else(|| cause.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: io::Error, expected: DialReason) {
        assert_eq!(classify(&error).0, expected, "{error}");
    }

    #[test]
    fn the_reason_is_found_under_the_wrapping() {
        let refused = || io::Error::from(ErrorKind::ConnectionRefused);
        check(refused(), DialReason::Refused);
        check(io::Error::other(refused()), DialReason::Refused);
        check(io::Error::other(io::Error::other(quic::Error::Io(refused()))), DialReason::Refused);
        check(io::Error::other(quic::Error::HandshakeTimedOut), DialReason::TimedOut);
        check(io::Error::other("something else"), DialReason::Handshake);
    }

    #[test]
    fn a_taken_port_is_found_under_the_wrapping() {
        let taken = || io::Error::from(ErrorKind::AddrInUse);
        assert!(is_port_taken(&taken()));
        assert!(is_port_taken(&io::Error::other(quic::Error::Io(taken()))));
        assert!(!is_port_taken(&io::Error::other("address in use")));
    }

    #[test]
    fn of_two_attempts_the_telling_one_counts() {
        let at = libp2p::Multiaddr::empty();
        let attempts = [
            (at.clone(), TransportError::Other(ErrorKind::TimedOut.into())),
            (at, TransportError::Other(ErrorKind::ConnectionRefused.into())),
        ];
        assert_eq!(transport_failure(&attempts).0, DialReason::Refused);
    }
}
