//! Finding each other, on loopback, by way of one known node.

use std::time::{Duration, Instant};

use super::common::{PROTOCOL, WAIT, address, node, node_knowing, soon, start};
use peerproof_net::{Event, FrameLimits, Mdns, NetConfig, Source, Transport};

const KEY: [u8; 32] = [0xA5; 32];
/// Long enough for a search that finds nothing to have asked.
const BRIEFLY: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_provider_is_found_by_way_of_one_known_node() {
    let hub = node().await;
    let provider = node_knowing(&hub).await;
    provider.provide(KEY).await.unwrap();
    let mut incoming = provider.accept(PROTOCOL, FrameLimits::default()).unwrap();
    let began = Instant::now();
    let seeker = node_knowing(&hub).await;
    let found = seeker.find_providers(KEY, WAIT).await.unwrap();
    println!("start to first provider: {:?}", began.elapsed());
    assert_eq!(found, [provider.local_peer()]);
    // Found means reachable: the seeker was never told this address.
    let open = seeker.open(found[0], PROTOCOL, WAIT, FrameLimits::default());
    let mut stream = open.await.unwrap();
    println!("start to first stream: {:?}", began.elapsed());
    stream.send(b"hello").await.unwrap();
    let (from, mut there) = soon(incoming.next()).await.unwrap();
    assert_eq!(from, seeker.local_peer());
    assert_eq!(there.recv().await.unwrap().unwrap(), b"hello");
    let peers = seeker.peers().await.unwrap();
    let info = peers.iter().find(|p| p.peer == found[0]).unwrap();
    assert_eq!(info.source, Source::Kad);
    assert_eq!(info.transport, Transport::Quic, "QUIC goes first");
}

#[tokio::test]
async fn a_seeker_that_was_there_first_finds_who_comes_later() {
    let hub = node().await;
    let seeker = node_knowing(&hub).await;
    let mut search = seeker.search(KEY, WAIT).await.unwrap();
    let provider = node_knowing(&hub).await;
    provider.provide(KEY).await.unwrap();
    assert_eq!(soon(search.next()).await, Some(provider.local_peer()));
}

#[tokio::test]
async fn every_provider_is_reported_once_to_every_caller() {
    let hub = node().await;
    let mut providers = Vec::new();
    for _ in 0..4 {
        let provider = node_knowing(&hub).await;
        provider.provide(KEY).await.unwrap();
        providers.push(provider);
    }
    let seeker = node_knowing(&hub).await;
    let mut expected: Vec<_> = providers.iter().map(|p| p.local_peer()).collect();
    expected.sort_unstable();
    for _ in 0..2 {
        let mut search = seeker.search(KEY, WAIT).await.unwrap();
        let mut found = Vec::new();
        while found.len() < expected.len() {
            found.push(soon(search.next()).await.unwrap());
        }
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn who_only_seeks_is_no_server_and_still_finds() {
    let hub = node().await;
    let provider = node_knowing(&hub).await;
    provider.provide(KEY).await.unwrap();
    let config = NetConfig {
        bootstrap: vec![address(&hub, Transport::Tcp).await],
        listen: Vec::new(),
        kad_server: false,
        ..NetConfig::loopback()
    };
    let (seeker, _events) = start(config).await;
    let found = seeker.find_providers(KEY, WAIT).await.unwrap();
    assert_eq!(found, [provider.local_peer()]);
}

#[tokio::test]
async fn a_search_for_nothing_ends_at_its_deadline() {
    let hub = node().await;
    let seeker = node_knowing(&hub).await;
    let found = soon(seeker.find_providers([1; 32], BRIEFLY)).await.unwrap();
    assert!(found.is_empty());
}

#[tokio::test]
async fn nobody_finds_itself() {
    let hub = node().await;
    let provider = node_knowing(&hub).await;
    provider.provide(KEY).await.unwrap();
    let found = soon(provider.find_providers(KEY, BRIEFLY)).await.unwrap();
    assert!(found.is_empty());
    provider.stop_providing(KEY).await.unwrap();
    assert_eq!(provider.diagnose().await.unwrap().provided_keys, 0);
}

#[tokio::test]
async fn a_bootstrap_node_that_comes_late_is_still_used() {
    // A port that is free at this moment, for the hub to come.
    let reserved = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = reserved.local_addr().unwrap().port();
    let later: peerproof_net::Address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let config = NetConfig { bootstrap: vec![later.clone()], ..NetConfig::loopback() };
    let (early, mut events) = start(config).await;
    // The first dial has failed, with a reason.
    let failed = async {
        loop {
            let seeds = early.diagnose().await.unwrap().bootstrap;
            if let Some(error) = &seeds[0].error {
                break error.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let error = soon(failed).await;
    assert_eq!(error.reason.name(), "refused", "{error}");
    let (hub, _) = start(NetConfig { listen: vec![later], ..NetConfig::loopback() }).await;
    let connected = async {
        while let Some(event) = events.next().await {
            if let Event::PeerConnected { peer, .. } = event {
                return peer;
            }
        }
        unreachable!("the network runs")
    };
    assert_eq!(soon(connected).await, hub.local_peer());
}

#[tokio::test]
async fn the_diagnosis_tells_what_is_known() {
    let hub = node().await;
    let other = node_knowing(&hub).await;
    other.dial(address(&hub, Transport::Quic).await).await.unwrap();
    let facts = other.diagnose().await.unwrap();
    assert_eq!(facts.local_peer, other.local_peer());
    assert_eq!(facts.connected_peers, 1);
    assert_eq!(facts.listeners.len(), 2);
    assert!(facts.listeners.iter().all(|l| l.addresses.len() == 1));
    assert_eq!(facts.mdns, Mdns::Off);
    assert_eq!(facts.bootstrap.len(), 1);
}
