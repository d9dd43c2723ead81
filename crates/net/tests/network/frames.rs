//! Frames between two nodes on loopback, well-behaved and not.

use std::time::Duration;

use super::common::{PROTOCOL, WAIT, address, node, soon};
use peerproof_net::{
    FrameError, FrameLimits, FrameStream, Handle, Incoming, OpenError, PathKind, Transport,
};

const SHORT: Duration = Duration::from_millis(200);

/// Two connected nodes and one stream between them.
struct Pair {
    asking: Handle,
    answering: Handle,
    incoming: Incoming,
    here: FrameStream,
    there: FrameStream,
}

async fn pair(transport: Transport, asking: FrameLimits, answering: FrameLimits) -> Pair {
    let (a, b) = (node().await, node().await);
    let mut incoming = b.accept(PROTOCOL, answering).unwrap();
    let peer = a.dial(address(&b, transport).await).await.unwrap();
    assert_eq!(peer, b.local_peer());
    let mut here = a.open(peer, PROTOCOL, WAIT, asking).await.unwrap();
    here.send(b"first").await.unwrap();
    let (from, mut there) = soon(incoming.next()).await.unwrap();
    assert_eq!(from, a.local_peer());
    assert_eq!(there.recv().await.unwrap().unwrap(), b"first");
    Pair { asking: a, answering: b, incoming, here, there }
}

async fn usual(transport: Transport) -> Pair {
    pair(transport, FrameLimits::default(), FrameLimits::default()).await
}

async fn exchange(transport: Transport) {
    let mut p = usual(transport).await;
    for size in [1, 127, 128, 70_000, FrameLimits::default().max_frame_bytes] {
        let frame: Vec<u8> = (0..size).map(|i| i as u8).collect();
        let (sent, got) = tokio::join!(p.there.send(&frame), p.here.recv());
        sent.unwrap();
        assert_eq!(got.unwrap().unwrap(), frame);
    }
    p.here.finish().await.unwrap();
    assert_eq!(p.there.recv().await.unwrap(), None);
    let peers = p.asking.peers().await.unwrap();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].transport, transport);
    assert_eq!(peers[0].path, PathKind::Direct);
    assert_eq!(p.asking.metrics().streams_opened, 1);
    assert_eq!(p.answering.metrics().streams_accepted, 1);
}

#[tokio::test]
async fn frames_cross_quic() {
    exchange(Transport::Quic).await;
}

#[tokio::test]
async fn frames_cross_tcp() {
    exchange(Transport::Tcp).await;
}

#[tokio::test]
async fn an_oversized_frame_is_refused_at_both_ends() {
    let narrow = FrameLimits { max_frame_bytes: 10_000, ..FrameLimits::default() };
    let mut p = pair(Transport::Quic, FrameLimits::default(), narrow).await;
    // The sender's own limit: nothing is written, the stream lives on.
    let huge = vec![0; FrameLimits::default().max_frame_bytes + 1];
    let refused = p.here.send(&huge).await.unwrap_err();
    assert!(matches!(refused, FrameError::TooLong { .. }), "{refused}");
    assert!(matches!(p.here.send(&[]).await, Err(FrameError::Empty)));
    p.here.send(&[7; 10_000]).await.unwrap();
    assert_eq!(p.there.recv().await.unwrap().unwrap(), [7; 10_000]);
    // The receiver's limit.
    p.here.send(&[7; 500_000]).await.unwrap();
    let refused = p.there.recv().await.unwrap_err();
    assert!(refused.is_violation(), "{refused}");
    assert!(
        matches!(refused, FrameError::TooLong { limit: 10_000, got } if got < 30_000),
        "{refused}"
    );
}

#[tokio::test]
async fn an_absurd_length_is_refused_before_its_bytes_come() {
    let mut p = usual(Transport::Quic).await;
    // Announces 256 MiB.
    p.here.send_raw(&[0x80, 0x80, 0x80, 0x80, 0x01]).await;
    let refused = p.there.recv().await.unwrap_err();
    assert!(matches!(refused, FrameError::Refused(_)), "{refused}");
}

#[tokio::test]
async fn a_cut_frame_is_noticed() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let mut p = usual(transport).await;
        p.here.send_raw(&[100, 1, 2, 3]).await;
        p.here.finish().await.unwrap();
        let error = p.there.recv().await.unwrap_err();
        assert!(matches!(error, FrameError::Truncated { got: 4 }), "{error}");
    }
}

#[tokio::test]
async fn a_silent_peer_costs_no_more_than_the_deadline() {
    let mut p = usual(Transport::Quic).await;
    p.here.set_read_timeout(SHORT);
    let error = soon(p.here.recv()).await.unwrap_err();
    assert!(matches!(error, FrameError::Idle { .. }), "{error}");
}

#[tokio::test]
async fn a_trickle_does_not_move_the_deadline() {
    let mut p = usual(Transport::Quic).await;
    p.there.set_read_timeout(SHORT);
    let mut drip = tokio::time::interval(SHORT / 10);
    let trickle = async {
        p.here.send_raw(&[120]).await;
        loop {
            drip.tick().await;
            p.here.send_raw(&[0]).await;
        }
    };
    let error = tokio::select! {
        result = soon(p.there.recv()) => result.unwrap_err(),
        () = trickle => unreachable!("the trickle never ends"),
    };
    assert!(matches!(error, FrameError::Idle { .. }), "{error}");
}

#[tokio::test]
async fn a_reader_that_never_reads_stops_the_sender() {
    let hasty = FrameLimits { write_timeout: SHORT, ..FrameLimits::default() };
    for transport in [Transport::Quic, Transport::Tcp] {
        let mut p = pair(transport, hasty, FrameLimits::default()).await;
        let frame = vec![0; 256 * 1024];
        let mut sent = 0;
        let error = loop {
            match p.here.send(&frame).await {
                Ok(()) => sent += frame.len(),
                Err(error) => break error,
            }
            assert!(sent < 64 << 20, "no back-pressure");
        };
        assert!(matches!(error, FrameError::Idle { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let mut p = usual(Transport::Quic).await;
    p.here.send_raw(&[3, 1]).await;
    let early = tokio::time::timeout(SHORT, p.there.recv()).await;
    assert!(early.is_err(), "the frame isn't whole");
    p.here.send_raw(&[2, 3]).await;
    assert_eq!(soon(p.there.recv()).await.unwrap().unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn both_directions_work_apart() {
    let p = usual(Transport::Tcp).await;
    let (mut reader, mut writer) = p.there.split();
    let (mut here_reader, mut here_writer) = p.here.split();
    let echo = tokio::spawn(async move {
        while let Some(frame) = reader.recv().await.unwrap() {
            writer.send(&frame).await.unwrap();
        }
        writer.finish().await.unwrap();
    });
    for i in 0..100u8 {
        here_writer.send(&[i]).await.unwrap();
        assert_eq!(here_reader.recv().await.unwrap().unwrap(), [i]);
    }
    here_writer.finish().await.unwrap();
    assert_eq!(here_reader.recv().await.unwrap(), None);
    soon(echo).await.unwrap();
}

#[tokio::test]
async fn an_unknown_protocol_is_named() {
    let (a, b) = (node().await, node().await);
    let peer = a.dial(address(&b, Transport::Quic).await).await.unwrap();
    let error = a.open(peer, "/peerproof/none/1", WAIT, FrameLimits::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::Unsupported { .. }), "{error}");
}

#[tokio::test]
async fn one_peer_gets_its_share_of_streams_and_no_more() {
    let mut config = peerproof_net::NetConfig::loopback();
    config.limits.inbound_streams_per_peer = 3;
    let (a, (b, _events)) = (node().await, super::common::start(config).await);
    let mut incoming = b.accept(PROTOCOL, FrameLimits::default()).unwrap();
    let peer = a.dial(address(&b, Transport::Quic).await).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        let open = a.open(peer, PROTOCOL, WAIT, FrameLimits::default());
        let mut here = open.await.unwrap();
        here.send(b"x").await.unwrap();
        held.push((here, soon(incoming.next()).await.unwrap().1));
    }
    let extra = a.open(peer, PROTOCOL, WAIT, FrameLimits::default());
    let mut extra = extra.await.unwrap();
    // Refused after the negotiation: the stream ends.
    let ended = soon(extra.recv()).await;
    assert!(matches!(ended, Ok(None) | Err(FrameError::Broken { .. })));
    assert_eq!(b.metrics().streams_refused, 1);
    // A place that is given back can be taken again.
    held.pop();
    let again = a.open(peer, PROTOCOL, WAIT, FrameLimits::default());
    let mut again = again.await.unwrap();
    again.send(b"y").await.unwrap();
    let (_, mut there) = soon(incoming.next()).await.unwrap();
    assert_eq!(there.recv().await.unwrap().unwrap(), b"y");
}

#[tokio::test]
async fn a_burst_of_streams_is_queued_not_dropped() {
    let p = usual(Transport::Quic).await;
    let mut incoming = p.incoming;
    let peer = p.answering.local_peer();
    let opening = (0..100).map(|_| p.asking.open(peer, PROTOCOL, WAIT, FrameLimits::default()));
    let streams = soon(futures::future::join_all(opening)).await;
    assert!(streams.iter().all(Result::is_ok));
    for _ in 0..100 {
        soon(incoming.next()).await.unwrap();
    }
    assert_eq!(p.answering.metrics().streams_refused, 0);
}
