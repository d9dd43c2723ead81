//! The libp2p half of a node: transports and behaviours, put together once.
//!
//! QUIC carries TLS 1.3 with rustls and aws-lc-rs, which offers the hybrid
//! post-quantum exchange X25519MLKEM768 first; TCP carries Noise XX, which is
//! X25519 alone. Both prove the peer's Ed25519 key. Dials rank QUIC before TCP
//! and IPv6 before IPv4, and give the better one a head start.

use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, StreamProtocol, Swarm, Transport as _, allow_block_list, connection_limits, identify,
    kad, mdns, memory_connection_limits, noise, ping, quic, tcp, yamux,
};
use peerproof_wire::{IDENTIFY_PROTOCOL, KAD_PROTOCOL};

use crate::firewall::{Firewall, Guarded};
use crate::gate::Gate;
use crate::gossip::{self, Gossipsub};
use crate::limits::{
    CONNECTION_WINDOW_BYTES, HANDSHAKE_TIMEOUT, IDLE_CONNECTION_TIMEOUT, KAD_QUERY_TIMEOUT,
    KAD_REQUEST_TIMEOUT, MAX_KAD_MESSAGE_BYTES, MAX_NEGOTIATING_STREAMS, MAX_PROVIDERS_PER_KEY,
    MAX_STORED_KEYS, MAX_STREAMS_PER_CONNECTION, MDNS_INTERVAL, MDNS_TTL, PING_INTERVAL,
    PING_TIMEOUT, PROVIDER_TTL, PUBLISH_INTERVAL, QUIC_IDLE_TIMEOUT, QUIC_KEEP_ALIVE,
    STREAM_WINDOW_BYTES,
};
use crate::streams::{self, Registry};
use crate::{Limits, NetConfig, NetError};

/// How many lookup paths a search follows at once, sharing no peer.
const LOOKUP_PATHS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
/// Addresses of one peer dialled at once.
const DIAL_CONCURRENCY: NonZeroU8 = NonZeroU8::MIN.saturating_add(3);

/// Everything that reacts to connections. The order is the order in which a
/// connection is judged: bans and counts first, protocols last.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) bans: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    gate: Gate,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    pub(crate) gossip: Gossipsub,
    pub(crate) streams: streams::Behaviour,
}

/// Why mDNS doesn't run, if it should.
pub(crate) type MdnsFailure = Option<String>;

pub(crate) fn build_swarm(
    keypair: &Keypair,
    config: &NetConfig,
    registry: Arc<Registry>,
    firewall: &Arc<Firewall>,
) -> Result<(Swarm<Behaviour>, MdnsFailure), NetError> {
    let local = keypair.public().to_peer_id();
    let (mdns, mdns_failure) = mdns(local, config);
    let behaviour = Behaviour {
        bans: allow_block_list::Behaviour::default(),
        limits: connection_limits::Behaviour::new(connection_limits(&config.limits)),
        memory: memory_connection_limits::Behaviour::with_max_percentage(
            f64::from(config.limits.memory_percent) / 100.0,
        ),
        gate: Gate::new(config.limits.inbound_per_host, config.loopback_only, Arc::clone(firewall)),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        identify: identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), keypair.public())
                .with_agent_version(config.agent.clone())
                .with_push_listen_addr_updates(true)
                .with_cache_size(0),
        ),
        mdns,
        kad: kademlia(local, config),
        gossip: gossip::behaviour()?,
        streams: streams::Behaviour::new(registry),
    };
    let swarm_config = libp2p::swarm::Config::with_tokio_executor()
        .with_smart_dial()
        .with_dial_concurrency_factor(DIAL_CONCURRENCY)
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING_STREAMS)
        .with_idle_connection_timeout(IDLE_CONNECTION_TIMEOUT);
    let transport = Guarded::new(transport(keypair)?, Arc::clone(firewall)).boxed();
    let swarm = Swarm::new(transport, behaviour, local, swarm_config);
    Ok((swarm, mdns_failure))
}

fn transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let mut quic_config = quic::Config::new(keypair);
    quic_config.handshake_timeout = HANDSHAKE_TIMEOUT;
    quic_config.max_idle_timeout = millis(QUIC_IDLE_TIMEOUT);
    quic_config.keep_alive_interval = QUIC_KEEP_ALIVE;
    quic_config.max_concurrent_stream_limit = MAX_STREAMS_PER_CONNECTION;
    quic_config.max_stream_data = STREAM_WINDOW_BYTES;
    quic_config.max_connection_data = CONNECTION_WINDOW_BYTES;
    let quic = quic::tokio::Transport::new(quic_config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();

    let noise = noise::Config::new(keypair)
        .map_err(|error| NetError::Setup { detail: error.to_string() })?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS_PER_CONNECTION as usize);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map_err(Socket)
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .timeout(HANDSHAKE_TIMEOUT)
        .boxed();

    Ok(quic
        .or_transport(tcp)
        .map(|either, _| either.into_inner())
        .map_err(|either| either.into_inner())
        .boxed())
}

/// A socket's error, dressed so that it survives the layers above: some of
/// them pass on what their error wraps and drop the error itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Socket(#[source] std::io::Error);

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn connection_limits(limits: &Limits) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.pending_inbound))
        .with_max_pending_outgoing(Some(limits.pending_outbound))
        .with_max_established_incoming(Some(limits.inbound_connections))
        .with_max_established_outgoing(Some(limits.outbound_connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
}

/// Our own protocol name, so that no other network's tables mix with ours.
/// Value records are refused (nobody stores data here), provider records pass
/// through the driver before they are stored, lookups follow paths that share
/// no peer.
fn kademlia(local: PeerId, config: &NetConfig) -> kad::Behaviour<MemoryStore> {
    let store = MemoryStore::with_config(
        local,
        MemoryStoreConfig {
            max_records: 0,
            max_value_bytes: 0,
            max_providers_per_key: MAX_PROVIDERS_PER_KEY,
            max_provided_keys: MAX_STORED_KEYS,
        },
    );
    let mut settings = kad::Config::new(StreamProtocol::new(KAD_PROTOCOL));
    settings
        .set_query_timeout(KAD_QUERY_TIMEOUT)
        .set_substreams_timeout(KAD_REQUEST_TIMEOUT)
        .set_max_packet_size(MAX_KAD_MESSAGE_BYTES)
        .set_parallelism(LOOKUP_PATHS)
        .disjoint_query_paths(true)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        .set_provider_publication_interval(Some(PUBLISH_INTERVAL))
        .set_caching(kad::Caching::Disabled);
    let mut behaviour = kad::Behaviour::with_config(local, store, settings);
    behaviour.set_mode(Some(if config.kad_server { kad::Mode::Server } else { kad::Mode::Client }));
    behaviour
}

fn mdns(local: PeerId, config: &NetConfig) -> (Toggle<mdns::tokio::Behaviour>, MdnsFailure) {
    if !config.mdns || config.loopback_only {
        return (None.into(), None);
    }
    let settings =
        mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_INTERVAL, enable_ipv6: false };
    match mdns::tokio::Behaviour::new(settings, local) {
        Ok(behaviour) => (Some(behaviour).into(), None),
        Err(error) => (None.into(), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[tokio::test]
    async fn a_swarm_can_be_built() {
        let keypair = Keypair::ed25519_from_bytes([3; 32]).unwrap();
        let registry = Registry::new(1, Arc::default());
        let firewall = Firewall::new(Default::default(), None);
        let (swarm, mdns) =
            build_swarm(&keypair, &NetConfig::loopback(), registry, &firewall).unwrap();
        assert!(mdns.is_none());
        assert!(!swarm.behaviour().mdns.is_enabled());
    }

    #[test]
    fn quic_prefers_the_post_quantum_exchange() {
        let keypair = Keypair::ed25519_from_bytes([3; 32]).unwrap();
        let config = libp2p_tls::make_client_config(&keypair, None).unwrap();
        let preferred = config.crypto_provider().kx_groups[0].name();
        assert_eq!(format!("{preferred:?}"), "X25519MLKEM768");
    }

    #[test]
    fn a_frame_passes_in_few_windows() {
        let frame = peerproof_wire::limits::MAX_FRAME_BYTES;
        assert!(frame as u64 <= 4 * u64::from(STREAM_WINDOW_BYTES));
    }
}
