//! Starting a network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use libp2p::Swarm;
use libp2p::core::transport::{ListenerId, TransportError};
use peerproof_identity::Keypair;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::behaviour::{Behaviour, build_swarm};
use crate::diagnose::{Listener, Mdns};
use crate::driver::Driver;
use crate::failure::is_port_taken;
use crate::firewall::Firewall;
use crate::handle::Shared;
use crate::limits::{COMMAND_QUEUE, LISTEN_TIMEOUT};
use crate::metrics::Counters;
use crate::seeds::{self, Seeds};
use crate::streams::Registry;
use crate::{Address, Events, Handle, NetConfig, NetError, Transport};

/// The variable by which TLS libraries are told to write their secrets to a
/// file.
const KEY_LOG_VARIABLE: &str = "SSLKEYLOGFILE";

/// A network that can be started.
#[derive(Debug)]
pub struct Network;

impl Network {
    /// Starts listening and searching. Returns when every listener has its
    /// address, so that [`Handle::listen_addresses`] is complete.
    ///
    /// Must be called within a tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// [`NetError::PortTaken`] and [`NetError::Listen`] for the address that
    /// can't be had (a machine without IPv6 is no error), [`NetError::Config`],
    /// [`NetError::KeyLogging`], [`NetError::Setup`]. Nothing runs on then.
    pub async fn start(keypair: &Keypair, config: NetConfig) -> Result<(Handle, Events), NetError> {
        config.check()?;
        if std::env::var_os(KEY_LOG_VARIABLE).is_some() {
            return Err(NetError::KeyLogging);
        }
        let counters = Arc::new(Counters::default());
        let per_peer = config.limits.inbound_streams_per_peer;
        let registry = Registry::new(per_peer, Arc::clone(&counters));
        let key = libp2p_keypair(keypair)?;
        let firewall = Firewall::new(config.firewall.clone(), config.scores.clone());
        let (mut swarm, mdns_failure) =
            build_swarm(&key, &config, Arc::clone(&registry), &firewall)?;
        let listeners = listen(&mut swarm, &config.listen)?;
        for address in &config.external {
            swarm.add_external_address(address.without_peer().as_multiaddr().clone());
        }

        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        let (sink, events) = crate::events::channel(Arc::clone(&counters));
        let awaited: Vec<ListenerId> = listeners
            .iter()
            .filter(|(_, listener)| !is_ipv6(&listener.requested))
            .map(|(id, _)| *id)
            .collect();
        let mut driver =
            Driver::new(swarm, inbox, sink, Arc::clone(&counters), listeners, firewall.clone());
        // An interface that comes up later is reported as an event.
        let _ = timeout(LISTEN_TIMEOUT, driver.settle(&awaited)).await;

        let seeds = Seeds::new(&config.bootstrap);
        let shared = Shared {
            local_peer: keypair.public().peer_id(),
            registry,
            counters,
            seeds: Arc::clone(&seeds),
            firewall,
            mdns: mdns_state(&config, mdns_failure),
            started: Instant::now(),
            kad_server: config.kad_server,
            loopback_only: config.loopback_only,
            accept_queue: config.limits.accept_queue,
        };
        let handle = Handle::new(commands, shared);
        seeds::spawn(&seeds, config.bootstrap, &handle.downgrade());
        tokio::spawn(driver.run());
        Ok((handle, events))
    }
}

fn libp2p_keypair(keypair: &Keypair) -> Result<libp2p::identity::Keypair, NetError> {
    let mut seed = keypair.seed();
    libp2p::identity::Keypair::ed25519_from_bytes(&mut seed[..])
        .map_err(|error| NetError::Setup { detail: error.to_string() })
}

fn mdns_state(config: &NetConfig, failure: Option<String>) -> Mdns {
    if !config.mdns {
        Mdns::Off
    } else if config.loopback_only {
        Mdns::LoopbackOnly
    } else {
        failure.map_or_else(|| Mdns::On { interfaces: Vec::new() }, Mdns::Failed)
    }
}

fn is_ipv6(address: &Address) -> bool {
    address.ip().is_some_and(|ip| ip.is_ipv6())
}

/// Starts all listeners or none. Every IPv6 interface is a wish, since many
/// machines have none; every other address is an order.
fn listen(
    swarm: &mut Swarm<Behaviour>,
    addresses: &[Address],
) -> Result<Vec<(ListenerId, Listener)>, NetError> {
    let mut listeners = Vec::new();
    for requested in addresses {
        let requested = requested.without_peer();
        let started = probe(&requested)
            .map_err(TransportError::Other)
            .and_then(|()| swarm.listen_on(requested.as_multiaddr().clone()));
        let (id, error) = match started {
            Ok(id) => (id, None),
            Err(TransportError::Other(error)) if !is_port_taken(&error) && is_wish(&requested) => {
                (ListenerId::next(), Some(error.to_string()))
            }
            Err(error) => return Err(refusal(requested, error)),
        };
        let listener = Listener { requested, addresses: Vec::new(), error };
        listeners.push((id, listener));
    }
    Ok(listeners)
}

fn is_wish(address: &Address) -> bool {
    is_ipv6(address) && address.ip().is_some_and(|ip| ip.is_unspecified())
}

/// libp2p's TCP listeners share their port with any other program that shares
/// its own, so two nodes could start on one port and each get half of the
/// connections. A plain bind tells.
fn probe(address: &Address) -> io::Result<()> {
    let (Some(ip), port) = (address.ip(), address.port()) else {
        return Ok(());
    };
    if address.transport() != Transport::Tcp || port == 0 {
        return Ok(());
    }
    let domain = socket2::Domain::for_address(SocketAddr::new(ip, port));
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A connection of a node that has just stopped doesn't occupy the port.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(ip, port).into())
}

fn refusal(address: Address, error: TransportError<io::Error>) -> NetError {
    match error {
        TransportError::Other(error) if is_port_taken(&error) => NetError::PortTaken { address },
        TransportError::Other(error) => NetError::Listen { address, detail: error.to_string() },
        TransportError::MultiaddrNotSupported(_) => NetError::Listen {
            address,
            detail: "no transport listens on such an address".to_owned(),
        },
    }
}
