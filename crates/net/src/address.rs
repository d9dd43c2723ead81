//! Where a peer can be reached.
//!
//! An [`Address`] is a multiaddr of one of the shapes this node dials:
//! `/ip4|ip6|dns|dns4|dns6/<host>` followed by `/udp/<port>/quic-v1` or
//! `/tcp/<port>`, optionally ending in `/p2p/<peer id>`. Parsing refuses
//! everything else, so later code never meets a shape it can't handle. Names
//! are resolved by the operating system, just before dialling; there is no
//! DNS client here, and no `/dnsaddr` indirection. Relayed addresses are not
//! dialled.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use peerproof_identity::PeerId;

use crate::limits::{MAX_RESOLVED, RESOLVE_TIMEOUT};

/// Longest text looked at: a DNS name of 253 bytes, a peer id, and the rest.
const MAX_TEXT_BYTES: usize = 512;

/// Where a peer can be reached, and perhaps which peer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Multiaddr);

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC v1 over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
}

impl Transport {
    /// `quic` or `tcp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is no [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Longer than any address.
    #[error("the address is {got} bytes long, at most {limit} are read")]
    TooLong {
        /// The most that is read.
        limit: usize,
        /// What came.
        got: usize,
    },
    /// No multiaddr at all.
    #[error(
        "`{text}` is no multiaddr ({detail}); write it like /ip4/192.0.2.7/udp/4001/quic-v1 or /dns4/example.org/tcp/4001"
    )]
    Syntax {
        /// What came.
        text: String,
        /// Where reading stopped.
        detail: String,
    },
    /// A multiaddr of a shape that isn't dialled.
    #[error(
        "`{text}` can't be dialled; use /ip4|ip6|dns4|dns6/<host>/udp/<port>/quic-v1 or …/tcp/<port>, with or without /p2p/<peer id>"
    )]
    Unsupported {
        /// What came.
        text: String,
    },
}

impl Address {
    /// QUIC at a socket address.
    pub fn quic(at: SocketAddr) -> Self {
        Self(Multiaddr::from(at.ip()).with(Protocol::Udp(at.port())).with(Protocol::QuicV1))
    }

    /// TCP at a socket address.
    pub fn tcp(at: SocketAddr) -> Self {
        Self(Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port())))
    }

    /// The peer that is expected there, if the address says.
    pub fn peer(&self) -> Option<PeerId> {
        match self.0.iter().last() {
            Some(Protocol::P2p(peer)) => from_libp2p(&peer),
            _ => None,
        }
    }

    /// The same place, naming who is expected there.
    pub fn with_peer(&self, peer: PeerId) -> Self {
        let mut address = self.without_peer();
        if let Some(peer) = to_libp2p(&peer) {
            address.0.push(Protocol::P2p(peer));
        }
        address
    }

    /// The same place without the peer.
    pub fn without_peer(&self) -> Self {
        let mut address = self.0.clone();
        if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
            address.pop();
        }
        Self(address)
    }

    /// What carries the bytes.
    pub fn transport(&self) -> Transport {
        match self.0.iter().nth(1) {
            Some(Protocol::Udp(_)) => Transport::Quic,
            _ => Transport::Tcp,
        }
    }

    /// The IP address, unless it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.0.iter().next() {
            Some(Protocol::Ip4(ip)) => Some(ip.into()),
            Some(Protocol::Ip6(ip)) => Some(ip.into()),
            _ => None,
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match self.0.iter().nth(1) {
            Some(Protocol::Udp(port) | Protocol::Tcp(port)) => port,
            _ => 0,
        }
    }

    /// Whether it stays on this machine.
    pub fn is_loopback(&self) -> bool {
        match self.0.iter().next() {
            Some(Protocol::Ip4(ip)) => ip.is_loopback(),
            Some(Protocol::Ip6(ip)) => ip.is_loopback(),
            Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => {
                name == "localhost"
            }
            _ => false,
        }
    }

    /// The addresses behind a name; itself if it is none. Of the many a name
    /// may have, the first few are taken.
    pub(crate) async fn resolve(&self) -> io::Result<Vec<Self>> {
        let (name, keep): (String, fn(&IpAddr) -> bool) = match self.0.iter().next() {
            Some(Protocol::Dns(name)) => (name.into_owned(), |_| true),
            Some(Protocol::Dns4(name)) => (name.into_owned(), IpAddr::is_ipv4),
            Some(Protocol::Dns6(name)) => (name.into_owned(), IpAddr::is_ipv6),
            _ => return Ok(vec![self.clone()]),
        };
        let lookup = tokio::net::lookup_host((name.as_str(), self.port()));
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, lookup)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let addresses: Vec<Self> = found
            .filter(|at| keep(&at.ip()))
            .take(MAX_RESOLVED)
            .map(|at| {
                let address = match self.transport() {
                    Transport::Quic => Self::quic(at),
                    Transport::Tcp => Self::tcp(at),
                };
                self.peer().map_or(address.clone(), |p| address.with_peer(p))
            })
            .collect();
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("`{name}` has no address of the wanted kind"),
            ));
        }
        Ok(addresses)
    }

    /// An address another peer tells about: a literal, specific IP address
    /// with a port. One that stays on the machine counts only when the peer
    /// itself was met on loopback; otherwise a stranger could point us at our
    /// own services.
    pub(crate) fn from_peer(address: &Multiaddr, met_on_loopback: bool) -> Option<Self> {
        let address = Self::from_multiaddr(address)?.without_peer();
        let ip = address.ip()?;
        let plausible = address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast();
        (plausible && (met_on_loopback || !ip.is_loopback())).then_some(address)
    }

    pub(crate) fn from_multiaddr(address: &Multiaddr) -> Option<Self> {
        is_dialable(address).then(|| Self(address.clone()))
    }

    pub(crate) const fn as_multiaddr(&self) -> &Multiaddr {
        &self.0
    }
}

/// Whether an address has one of the shapes in the module's description.
fn is_dialable(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = matches!(
        parts.next(),
        Some(
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
        )
    );
    let carrier = match parts.next() {
        Some(Protocol::Udp(_)) => matches!(parts.next(), Some(Protocol::QuicV1)),
        Some(Protocol::Tcp(_)) => true,
        _ => false,
    };
    let peer = match parts.next() {
        None => true,
        Some(Protocol::P2p(peer)) => from_libp2p(&peer).is_some(),
        Some(_) => false,
    };
    host && carrier && peer && parts.next().is_none()
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(AddressError::TooLong { limit: MAX_TEXT_BYTES, got: text.len() });
        }
        let address: Multiaddr = text.parse().map_err(|error: libp2p::multiaddr::Error| {
            AddressError::Syntax { text: text.to_owned(), detail: error.to_string() }
        })?;
        Self::from_multiaddr(&address)
            .ok_or_else(|| AddressError::Unsupported { text: text.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ours to theirs. Every Ed25519 id has both forms, so `None` can't occur for
/// an id that was parsed; it is still no reason to panic.
pub(crate) fn to_libp2p(peer: &PeerId) -> Option<libp2p::PeerId> {
    libp2p::PeerId::from_bytes(&peer.to_bytes()).ok()
}

/// Theirs to ours; `None` for keys of another kind.
pub(crate) fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    PeerId::from_bytes(&peer.to_bytes()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn accepts_what_it_dials_and_prints_it_back() {
        let id = peerproof_identity::Keypair::from_seed(&[7; 32]).public().peer_id();
        for text in [
            "/ip4/127.0.0.1/udp/4001/quic-v1".to_owned(),
            "/ip6/::1/tcp/4001".to_owned(),
            "/dns4/example.org/tcp/4001".to_owned(),
            format!("/ip4/192.0.2.7/udp/4001/quic-v1/p2p/{id}"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.without_peer().with_peer(id).peer(), Some(id));
            assert_eq!(address.without_peer().peer(), None);
        }
    }

    #[test]
    fn refuses_other_shapes() {
        for text in [
            "",
            "127.0.0.1:4001",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/4001",
            "/ip4/127.0.0.1/udp/4001/quic",
            "/ip4/127.0.0.1/tcp/4001/ws",
            "/ip4/127.0.0.1/tcp/4001/p2p-circuit",
            "/dnsaddr/example.org",
            "/ip4/127.0.0.1/tcp/99999",
            "/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let long = format!("/dns4/{}/tcp/1", "a".repeat(MAX_TEXT_BYTES));
        assert!(matches!(long.parse::<Address>(), Err(AddressError::TooLong { .. })));
    }

    #[test]
    fn a_stranger_cannot_point_at_our_own_machine() {
        let own: Multiaddr = "/ip4/127.0.0.1/tcp/80".parse().unwrap();
        assert_eq!(Address::from_peer(&own, false), None);
        assert!(Address::from_peer(&own, true).is_some());
        for text in [
            "/ip4/0.0.0.0/tcp/80",
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/224.0.0.251/udp/5353/quic-v1",
            "/dns4/internal/tcp/80",
        ] {
            assert_eq!(Address::from_peer(&text.parse().unwrap(), true), None);
        }
    }

    #[tokio::test]
    async fn resolves_names_by_the_system() {
        let address: Address = "/dns4/localhost/udp/9/quic-v1".parse().unwrap();
        let found = address.resolve().await.unwrap();
        assert_eq!(found, vec!["/ip4/127.0.0.1/udp/9/quic-v1".parse().unwrap()]);
    }
}
