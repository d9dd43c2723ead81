//! Why no peers are found: the facts a person needs, gathered in one place.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use peerproof_identity::PeerId;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Address, DialError, Metrics};

/// The port and group of multicast DNS (RFC 6762).
const MDNS_PORT: u16 = 5353;
const MDNS_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// What is known about this node's connection to the network.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// This node.
    pub local_peer: PeerId,
    /// Since the start.
    pub uptime: Duration,
    /// One entry for each address that was asked for.
    pub listeners: Vec<Listener>,
    /// The local network.
    pub mdns: Mdns,
    /// One entry for each bootstrap address.
    pub bootstrap: Vec<Seed>,
    /// Peers connected at this moment.
    pub connected_peers: usize,
    /// Peers with a known address.
    pub known_peers: usize,
    /// Peers in the routing table, which searches start from.
    pub routing_peers: usize,
    /// Whether this node answers other nodes' searches.
    pub kad_server: bool,
    /// Keys this node provides.
    pub provided_keys: usize,
    /// The counters, failed dials by reason among them.
    pub metrics: Metrics,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What was asked for.
    pub requested: Address,
    /// Where it can be reached at this moment.
    pub addresses: Vec<Address>,
    /// The latest trouble.
    pub error: Option<String>,
}

/// The state of local discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mdns {
    /// Switched off in the configuration.
    Off,
    /// Loopback has no multicast.
    LoopbackOnly,
    /// It could not be started.
    Failed(String),
    /// It runs, on these interfaces.
    On {
        /// One entry for each IPv4 address of this machine beyond loopback.
        interfaces: Vec<Interface>,
    },
}

/// Whether multicast works on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The interface's address.
    pub ip: IpAddr,
    /// What the system said when multicast was tried there.
    pub error: Option<String>,
}

/// How one bootstrap address fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The address.
    pub address: Address,
    /// Who answered there last.
    pub peer: Option<PeerId>,
    /// Whether the connection stands.
    pub connected: bool,
    /// Dials so far.
    pub attempts: u64,
    /// Why the latest dial failed, if it did.
    pub error: Option<DialError>,
}

/// The swarm task's part of a [`Diagnosis`].
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) connected_peers: usize,
    pub(crate) known_peers: usize,
    pub(crate) routing_peers: usize,
    pub(crate) provided_keys: usize,
}

impl Status {
    /// The machine's own IPv4 addresses beyond loopback, as listeners see them.
    pub(crate) fn interfaces(&self) -> Vec<Ipv4Addr> {
        let mut found: Vec<Ipv4Addr> = self
            .listeners
            .iter()
            .flat_map(|listener| &listener.addresses)
            .filter_map(|address| match address.ip() {
                Some(IpAddr::V4(ip)) if !ip.is_loopback() => Some(ip),
                _ => None,
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Tries what local discovery needs on an interface: the mDNS port, shared
/// with other programs, and the multicast group. Sends nothing.
pub(crate) fn probe_multicast(ip: Ipv4Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, MDNS_PORT)).into())?;
    socket.join_multicast_v4(&MDNS_GROUP, &ip)
}

pub(crate) fn probe_interfaces(interfaces: &[Ipv4Addr]) -> Vec<Interface> {
    interfaces
        .iter()
        .map(|ip| Interface {
            ip: (*ip).into(),
            error: probe_multicast(*ip).err().map(|error| error.to_string()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_ours_fails_the_probe() {
        // TEST-NET-1 belongs to nobody.
        let interfaces = probe_interfaces(&[Ipv4Addr::new(192, 0, 2, 1)]);
        assert!(interfaces[0].error.is_some());
    }
}
