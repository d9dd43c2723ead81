//! Every limit of the network, by name, in one place.
//!
//! Two kinds live here. [`Limits`] is what an operator may tune; its default is
//! finite in every field. The constants below are part of how the crate works
//! and are not configurable. A queue, map or wait in this crate that is not
//! bounded by something in this file is a defect.

use std::time::Duration;

/// What an operator may tune. All fields are ceilings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Established connections that others opened to us.
    pub inbound_connections: u32,
    /// Established connections that we opened.
    pub outbound_connections: u32,
    /// Established connections with one peer, in both directions.
    pub connections_per_peer: u32,
    /// Inbound connections, established or in their handshake, from one IPv4
    /// address or one IPv6 /64. Loopback is exempt: there one address stands
    /// for every process of the machine.
    pub inbound_per_host: u32,
    /// Inbound connections in their handshake.
    pub pending_inbound: u32,
    /// Outbound connections in their handshake.
    pub pending_outbound: u32,
    /// Streams one peer may hold open towards us, over all protocols.
    pub inbound_streams_per_peer: usize,
    /// Accepted streams of one protocol that wait for [`crate::Incoming::next`].
    pub accept_queue: usize,
    /// Share of the machine's memory, in percent, above which this process
    /// takes no further connection.
    pub memory_percent: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inbound_connections: 128,
            outbound_connections: 64,
            connections_per_peer: 4,
            inbound_per_host: 16,
            pending_inbound: 64,
            pending_outbound: 32,
            inbound_streams_per_peer: 128,
            accept_queue: 128,
            memory_percent: 90,
        }
    }
}

/// Addresses a node listens on.
pub const MAX_LISTEN_ADDRESSES: usize = 16;
/// Bootstrap addresses a node is given.
pub const MAX_BOOTSTRAP: usize = 32;
/// Addresses taken from one name lookup.
pub const MAX_RESOLVED: usize = 4;
/// Peers in the address book. The stalest unconnected one makes room.
pub const MAX_KNOWN_PEERS: usize = 1024;
/// Addresses kept for one peer.
pub const MAX_ADDRESSES_PER_PEER: usize = 8;
/// Bans held at once.
pub const MAX_BANS: usize = 4096;
/// Peers remembered as speaking another protocol, so they aren't dialled again.
pub const MAX_FOREIGN: usize = 256;
/// Keys this node provides.
pub const MAX_PROVIDED_KEYS: usize = 256;
/// Distinct keys searched for at once.
pub const MAX_SEARCHES: usize = 128;
/// Callers waiting on one key's search.
pub const MAX_SEARCH_SINKS: usize = 256;
/// Providers reported for one search.
pub const MAX_PROVIDERS_PER_SEARCH: usize = 64;
/// Keys whose provider records this node stores for others.
pub const MAX_STORED_KEYS: usize = 8192;
/// Provider records stored under one key.
pub const MAX_PROVIDERS_PER_KEY: usize = 64;
/// Bytes of one Kademlia message.
pub const MAX_KAD_MESSAGE_BYTES: usize = 16 * 1024;
/// Commands waiting for the swarm task; callers wait when it is full.
pub const COMMAND_QUEUE: usize = 256;
/// Events waiting for the application; the rest are counted and dropped.
pub const EVENT_QUEUE: usize = 256;
/// Callers waiting for a connection to one peer.
pub const MAX_DIAL_WAITERS: usize = 256;
/// Outbound streams waiting for their negotiation on one connection.
pub const MAX_PENDING_OPENS: usize = 256;
/// Inbound streams in negotiation on one connection.
pub const MAX_NEGOTIATING_STREAMS: usize = 128;
/// Streams one connection carries at once, in each direction.
pub const MAX_STREAMS_PER_CONNECTION: u32 = 512;
/// Protocols one node accepts.
pub const MAX_PROTOCOLS: usize = 32;
/// Bytes of a protocol name.
pub const MAX_PROTOCOL_NAME_BYTES: usize = 64;
/// Characters kept of a peer's agent string.
pub const MAX_AGENT_CHARS: usize = 64;

/// Bytes a sender may have in flight on one stream before the reader consumes
/// them: the depth of the back-pressure.
pub const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// The same for one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes read from a stream at once.
pub const READ_CHUNK_BYTES: usize = 8 * 1024;

/// Bytes of one proof that is passed on.
pub const MAX_GOSSIP_BYTES: usize = 128 * 1024;
/// Proofs that wait for the application's judgement; further ones end here.
pub const MAX_GOSSIP_WAITING: usize = 64;
/// Senders of proofs whose pace is remembered.
pub const MAX_GOSSIP_SENDERS: usize = 1024;
/// Messages queued for one neighbour.
pub const GOSSIP_QUEUE: usize = 64;
/// Proofs one sender may pass on at once, and how many a second after that.
pub const GOSSIP_BURST: f64 = 16.0;
/// See [`GOSSIP_BURST`].
pub const GOSSIP_PER_SECOND: f64 = 0.5;
/// How long ids of messages, and the scores of peers that left, are remembered.
pub const GOSSIP_MEMORY: Duration = Duration::from_secs(600);

/// One handshake, QUIC or TCP+Noise+Yamux.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// One dial as the caller sees it, name lookup included.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A QUIC connection without a packet for this long is dead.
pub const QUIC_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// QUIC keep-alive: two may be lost before [`QUIC_IDLE_TIMEOUT`].
pub const QUIC_KEEP_ALIVE: Duration = Duration::from_millis(1_600);
/// Pause between pings, which measure the round trip and find dead TCP peers.
pub const PING_INTERVAL: Duration = Duration::from_secs(3);
/// Answering one ping.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A TCP connection on which no ping was answered for this long is dead. QUIC
/// connections have [`QUIC_IDLE_TIMEOUT`].
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(7);
/// A connection nobody uses is kept this long: a second request finds it open.
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// Negotiating one stream's protocol.
pub const STREAM_NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Saying goodbye to everyone at shutdown.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);
/// Waiting for the first address of every listener at start.
pub const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A name lookup.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// One Kademlia query.
pub const KAD_QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// One Kademlia request.
pub const KAD_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Life of a provider record.
pub const PROVIDER_TTL: Duration = Duration::from_secs(30 * 60);
/// Pause between two publications of the same record in a settled network.
pub const PUBLISH_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// First pause between publications triggered by new neighbours; doubles each
/// time up to [`PUBLISH_GAP_MAX`].
pub const PUBLISH_GAP: Duration = Duration::from_millis(100);
/// Longest pause between publications triggered by new neighbours.
pub const PUBLISH_GAP_MAX: Duration = Duration::from_secs(60);
/// First pause before an empty search asks again; doubles up to [`SEARCH_GAP_MAX`].
pub const SEARCH_GAP: Duration = Duration::from_millis(25);
/// Longest pause before an empty search asks again.
pub const SEARCH_GAP_MAX: Duration = Duration::from_secs(2);
/// First pause before a search that has found someone looks for more.
pub const SEARCH_MORE_GAP: Duration = Duration::from_millis(500);
/// [`crate::Handle::find_providers`] returns when no further provider came for
/// this long after one was found.
pub const SEARCH_SETTLE: Duration = Duration::from_millis(50);
/// First pause before a failed bootstrap address is tried again; doubles up to
/// [`BOOTSTRAP_GAP_MAX`].
pub const BOOTSTRAP_GAP: Duration = Duration::from_millis(250);
/// Longest pause before a failed bootstrap address is tried again.
pub const BOOTSTRAP_GAP_MAX: Duration = Duration::from_secs(60);
/// Pause between mDNS questions in a settled network; the first ones follow
/// each other within a second.
pub const MDNS_INTERVAL: Duration = Duration::from_secs(30);
/// Life of an mDNS answer.
pub const MDNS_TTL: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alives_fit_twice_into_the_idle_timeout() {
        assert!(QUIC_KEEP_ALIVE * 3 < QUIC_IDLE_TIMEOUT);
    }

    #[test]
    fn two_pings_fit_into_the_silence_timeout() {
        assert!(PING_INTERVAL * 2 < SILENCE_TIMEOUT);
    }

    #[test]
    fn records_outlive_two_missed_publications() {
        assert!(PUBLISH_INTERVAL * 2 < PROVIDER_TTL);
    }
}
