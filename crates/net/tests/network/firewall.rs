//! The operator's rules, over real sockets: by address before the handshake, by
//! key right after it, for calls of one's own, and while connections stand.

use super::common::{PROTOCOL, WAIT, address, keypair, node, soon, start};
use peerproof_net::{
    DialReason, Event, FrameLimits, Handle, NetConfig, Network, RuleList, Scores, Transport,
};
use tokio::io::AsyncReadExt;

fn rules(lines: &[&str]) -> RuleList {
    RuleList::new(lines.iter().map(|line| line.parse().unwrap()).collect()).unwrap()
}

async fn guarded(lines: &[&str]) -> Handle {
    start(NetConfig { firewall: rules(lines), ..NetConfig::loopback() }).await.0
}

async fn refused(node: &Handle, at_least: u64) {
    let refused = async {
        while node.metrics().connections_refused < at_least {
            tokio::task::yield_now().await;
        }
    };
    soon(refused).await;
}

#[tokio::test]
async fn a_denied_address_gets_no_handshake() {
    let host = guarded(&["deny 127.0.0.0/8"]).await;
    // A bare socket sees every byte: the host says nothing, not even which
    // protocol it speaks, and hangs up.
    let at = address(&host, Transport::Tcp).await;
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", at.port())).await.unwrap();
    let mut said = Vec::new();
    let _ = soon(socket.read_to_end(&mut said)).await;
    assert!(said.is_empty(), "{said:?}");
    refused(&host, 1).await;
    for transport in [Transport::Tcp, Transport::Quic] {
        let guest = node().await;
        let dialled = guest.dial(address(&host, transport).await).await;
        // A QUIC client may have heard the first flight before the end.
        if transport == Transport::Tcp {
            assert_eq!(dialled.unwrap_err().reason, DialReason::Handshake);
        }
        refused(&host, 2).await;
        assert_eq!(host.metrics().connections_inbound, 0);
        assert!(host.peers().await.unwrap().is_empty());
    }
    assert!(host.firewall()[0].decided >= 3);
}

#[tokio::test]
async fn a_denied_key_is_put_out_when_it_is_known() {
    let (key, friend) = (keypair(), keypair());
    let deny = format!("deny {}", key.public().peer_id());
    for transport in [Transport::Tcp, Transport::Quic] {
        let host = guarded(&[&deny]).await;
        let target = address(&host, transport).await;
        let (foe, mut events) = Network::start(&key, NetConfig::loopback()).await.unwrap();
        // The foe's side may stand for a moment; it never lasts.
        if foe.dial(target.clone()).await.is_ok() {
            let put_out = async {
                while let Some(event) = events.next().await {
                    if matches!(event, Event::PeerDisconnected { .. }) {
                        return;
                    }
                }
            };
            soon(put_out).await;
        }
        refused(&host, 1).await;
        assert!(host.peers().await.unwrap().is_empty());
        assert_eq!(host.firewall()[0].decided, 1);
        let (friend, _) = Network::start(&friend, NetConfig::loopback()).await.unwrap();
        friend.dial(target).await.unwrap();
        foe.shutdown().await;
        friend.shutdown().await;
    }
}

#[tokio::test]
async fn only_friends_means_that_their_keys_decide() {
    let friend = keypair();
    let allow = format!("allow {}", friend.public().peer_id());
    let host = guarded(&[&allow, "deny any"]).await;
    let _incoming = host.accept(PROTOCOL, FrameLimits::default()).unwrap();
    let target = address(&host, Transport::Quic).await;
    let (friend, _) = Network::start(&friend, NetConfig::loopback()).await.unwrap();
    friend.dial(target.clone()).await.unwrap();
    friend.open(host.local_peer(), PROTOCOL, WAIT, FrameLimits::default()).await.unwrap();
    let stranger = node().await;
    let _ = stranger.dial(target).await;
    refused(&host, 1).await;
    assert_eq!(host.peers().await.unwrap().len(), 1);
}

#[tokio::test]
async fn this_node_does_not_call_whom_it_denies() {
    let (caller, there) = (guarded(&["deny 127.0.0.0/8"]).await, node().await);
    for transport in [Transport::Tcp, Transport::Quic] {
        let error = caller.dial(address(&there, transport).await).await.unwrap_err();
        assert_eq!(error.reason, DialReason::Firewall, "{error}");
        assert!(error.to_string().contains("deny 127.0.0.0/8"), "{error}");
    }
    assert_eq!(there.metrics().connections_inbound + there.metrics().connections_refused, 0);
    let deny = format!("deny {}", there.local_peer());
    let caller = guarded(&[&deny]).await;
    for target in [address(&there, Transport::Tcp).await, address(&there, Transport::Quic).await] {
        let named = caller.dial(target.clone()).await.unwrap_err();
        assert_eq!(named.reason, DialReason::Firewall, "{named}");
        // Whoever is there is known only once it has answered.
        let unnamed = caller.dial(target.without_peer()).await.unwrap_err();
        assert_eq!(unnamed.reason, DialReason::Firewall, "{unnamed}");
    }
}

#[tokio::test]
async fn rules_reach_a_running_node_and_what_stands() {
    let (host, (guest, mut events)) = (node().await, start(NetConfig::loopback()).await);
    let target = address(&host, Transport::Quic).await;
    guest.dial(target.clone()).await.unwrap();
    assert_eq!(host.set_firewall(rules(&["allow any"])).await.unwrap(), 0);
    let deny = format!("deny {}", guest.local_peer());
    assert_eq!(host.set_firewall(rules(&[&deny])).await.unwrap(), 1);
    let put_out = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::PeerDisconnected { .. }) {
                return;
            }
        }
    };
    soon(put_out).await;
    host.set_firewall(RuleList::default()).await.unwrap();
    guest.dial(target).await.unwrap();
}

#[tokio::test]
async fn a_rate_and_a_reputation_are_kept_to() {
    let doubtful = keypair();
    let peer = doubtful.public().peer_id();
    let scores = Scores::new(move |who| if *who == peer { 200 } else { 500 });
    let config = NetConfig {
        firewall: rules(&["deny reputation<300", "rate 2/h any"]),
        scores: Some(scores),
        ..NetConfig::loopback()
    };
    let (host, _) = start(config).await;
    let target = address(&host, Transport::Tcp).await;
    let (doubtful, _) = Network::start(&doubtful, NetConfig::loopback()).await.unwrap();
    let _ = doubtful.dial(target.clone()).await;
    refused(&host, 1).await;
    // That one has used up one of the host's two.
    node().await.dial(target.clone()).await.unwrap();
    let error = node().await.dial(target).await.unwrap_err();
    assert_eq!(error.reason, DialReason::Handshake, "{error}");
    let decided: Vec<u64> = host.firewall().iter().map(|rule| rule.decided).collect();
    assert_eq!(decided[0], 1, "{decided:?}");
}
