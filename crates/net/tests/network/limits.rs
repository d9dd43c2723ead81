//! Ceilings, bans, failures and what they are called.

use super::common::{PROTOCOL, WAIT, address, keypair, node, soon, start};
use peerproof_identity::Keypair;
use peerproof_net::{
    Address, DialReason, Event, FrameError, FrameLimits, NetConfig, NetError, Network, OpenError,
    Transport,
};

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = node().await;
    for transport in [Transport::Quic, Transport::Tcp] {
        let taken = address(&first, transport).await.without_peer();
        let config = NetConfig { listen: vec![taken.clone()], ..NetConfig::loopback() };
        let error = Network::start(&keypair(), config).await.unwrap_err();
        assert!(
            matches!(&error, NetError::PortTaken { address } if *address == taken),
            "{error:?}"
        );
        assert!(error.to_string().contains("already in use"));
    }
}

#[tokio::test]
async fn a_port_is_free_again_after_shutdown() {
    let first = node().await;
    let tcp = address(&first, Transport::Tcp).await.without_peer();
    let second = node().await;
    second.dial(tcp.clone()).await.unwrap();
    soon(first.shutdown()).await;
    let config = NetConfig { listen: vec![tcp], ..NetConfig::loopback() };
    start(config).await;
    assert!(matches!(first.listen_addresses().await, Err(NetError::Stopped)));
}

#[tokio::test]
async fn dial_failures_have_reasons() {
    let (a, b) = (node().await, node().await);
    let closed: Address = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Address::tcp(socket.local_addr().unwrap())
    };
    let stranger = Keypair::from_seed(&[0xEE; 32]).public().peer_id();
    let outside: Address = "/ip4/192.0.2.1/tcp/9".parse().unwrap();
    let cases = [
        (closed, DialReason::Refused),
        (address(&b, Transport::Quic).await.with_peer(stranger), DialReason::WrongPeer),
        (address(&b, Transport::Tcp).await.with_peer(stranger), DialReason::WrongPeer),
        (outside, DialReason::BadAddress),
        (address(&a, Transport::Quic).await, DialReason::Myself),
        (address(&a, Transport::Tcp).await.without_peer(), DialReason::Myself),
        ("/dns4/localhost/tcp/1".parse().unwrap(), DialReason::Refused),
    ];
    for (target, expected) in cases {
        let error = soon(a.dial(target.clone())).await.unwrap_err();
        assert_eq!(error.reason, expected, "{error}");
        assert!(error.to_string().contains(&target.to_string()));
        assert!(a.metrics().dial_failures[&expected] > 0);
    }
    let error = soon(a.connect(stranger)).await.unwrap_err();
    assert_eq!(error.reason, DialReason::NoAddress, "{error}");
}

#[tokio::test]
async fn a_program_that_speaks_something_else_is_called_that() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Address::tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 No\r\n\r\n").await.unwrap();
    });
    let error = soon(node().await.dial(target)).await.unwrap_err();
    assert_eq!(error.reason, DialReason::Handshake, "{error}");
}

#[tokio::test]
async fn inbound_connections_stay_under_their_ceiling() {
    let mut config = NetConfig::loopback();
    config.limits.inbound_connections = 3;
    let (full, _events) = start(config).await;
    let target = address(&full, Transport::Quic).await;
    let mut guests = Vec::new();
    for _ in 0..8 {
        let guest = node().await;
        // Those that are turned away learn it during or just after the handshake.
        let _ = guest.dial(target.clone()).await;
        guests.push(guest);
        assert!(full.metrics().connections_open <= 3);
        assert!(full.peers().await.unwrap().len() <= 3);
    }
    let refused = async {
        while full.metrics().connections_refused < 5 {
            tokio::task::yield_now().await;
        }
    };
    soon(refused).await;
    assert_eq!(full.peers().await.unwrap().len(), 3);
    // Those inside are served all the same.
    let _incoming = full.accept(PROTOCOL, FrameLimits::default()).unwrap();
    let opened = guests[0].open(full.local_peer(), PROTOCOL, WAIT, FrameLimits::default()).await;
    assert!(opened.is_ok());
}

#[tokio::test]
async fn a_banned_peer_is_put_out_and_kept_out() {
    let (host, (guest, mut events)) = (node().await, start(NetConfig::loopback()).await);
    let _incoming = host.accept(PROTOCOL, FrameLimits::default()).unwrap();
    let target = address(&host, Transport::Quic).await;
    let peer = guest.dial(target.clone()).await.unwrap();
    host.ban(guest.local_peer()).await.unwrap();
    let put_out = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::PeerDisconnected { .. }) {
                return;
            }
        }
    };
    soon(put_out).await;
    let open = guest.open(peer, PROTOCOL, WAIT, FrameLimits::default());
    assert!(open.await.is_err());
    // The host doesn't call either.
    host.learn(guest.local_peer(), address(&guest, Transport::Quic).await).await.unwrap();
    let error = host.connect(guest.local_peer()).await.unwrap_err();
    assert_eq!(error.reason, DialReason::Banned, "{error}");
    // And forgives.
    host.unban(guest.local_peer()).await.unwrap();
    host.connect(guest.local_peer()).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_leaves_breaks_its_streams_at_once() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let (here, there) = (node().await, node().await);
        let mut incoming = there.accept(PROTOCOL, FrameLimits::default()).unwrap();
        let peer = here.dial(address(&there, transport).await).await.unwrap();
        let patient = FrameLimits { read_timeout: 10 * WAIT, ..FrameLimits::default() };
        let mut stream = here.open(peer, PROTOCOL, WAIT, patient).await.unwrap();
        stream.send(b"x").await.unwrap();
        let _held = soon(incoming.next()).await.unwrap();
        there.shutdown().await;
        // Sooner than any timeout of the stream itself.
        let ended = soon(stream.recv()).await;
        assert!(matches!(ended, Ok(None) | Err(FrameError::Broken { .. })), "{ended:?}");
    }
}

#[tokio::test]
async fn a_ban_breaks_the_streams_that_are_open() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let (here, there) = (node().await, node().await);
        let _incoming = there.accept(PROTOCOL, FrameLimits::default()).unwrap();
        let peer = here.dial(address(&there, transport).await).await.unwrap();
        let patient = FrameLimits { read_timeout: 10 * WAIT, ..FrameLimits::default() };
        let mut stream = here.open(peer, PROTOCOL, WAIT, patient).await.unwrap();
        here.ban(peer).await.unwrap();
        let error = soon(stream.recv()).await.unwrap_err();
        assert!(matches!(error, FrameError::Broken { .. }), "{error}");
    }
}

#[tokio::test]
async fn after_shutdown_every_call_says_so() {
    let (node, mut events) = start(NetConfig::loopback()).await;
    let mut incoming = node.accept(PROTOCOL, FrameLimits::default()).unwrap();
    node.shutdown().await;
    node.shutdown().await;
    assert!(matches!(node.peers().await, Err(NetError::Stopped)));
    assert!(matches!(node.provide([0; 32]).await, Err(NetError::Stopped)));
    let peer = keypair().public().peer_id();
    let open = node.open(peer, PROTOCOL, WAIT, FrameLimits::default());
    assert!(matches!(open.await, Err(OpenError::Dial(_))));
    let drained = async { while events.next().await.is_some() {} };
    soon(drained).await;
    drop(node);
    let _ = &mut incoming;
}
