//! Proofs from peer to peer: what is accepted travels, what is rejected costs its sender.

use std::time::Duration;

use peerproof_net::limits::MAX_GOSSIP_BYTES;
use peerproof_net::{Gossip, Handle, Judgement};

use super::common::{WAIT, node, node_knowing, soon};

/// Sends once somebody listens.
async fn publish(gossip: &Gossip, data: &[u8]) {
    soon(async {
        while !gossip.publish(data.to_vec()).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Judges everything as `judgement` and hands on what came, until the network stops.
fn judge_all(
    mut gossip: Gossip,
    judgement: Judgement,
) -> tokio::sync::mpsc::UnboundedReceiver<Vec<u8>> {
    let (heard, all) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = gossip.next().await {
            gossip.judge(&message, judgement).await.unwrap();
            let _ = heard.send(message.data);
        }
    });
    all
}

async fn row() -> (Handle, Handle, Handle) {
    let first = node().await;
    let second = node_knowing(&first).await;
    let third = node_knowing(&second).await;
    (first, second, third)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_travels_on() {
    let (first, second, third) = row().await;
    let from = first.gossip().await.unwrap();
    let mut middle = judge_all(second.gossip().await.unwrap(), Judgement::Accept);
    let mut end = judge_all(third.gossip().await.unwrap(), Judgement::Accept);
    publish(&from, b"a proof").await;
    assert_eq!(soon(middle.recv()).await.unwrap(), b"a proof");
    assert_eq!(soon(end.recv()).await.unwrap(), b"a proof");
    assert!(first.gossip().await.is_err(), "one listener");
    let long = vec![0; MAX_GOSSIP_BYTES + 1];
    assert!(from.publish(long).await.is_err(), "too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_messages_end_where_they_are_judged_and_silence_their_sender() {
    let (first, second, third) = row().await;
    let from = first.gossip().await.unwrap();
    let mut middle = judge_all(second.gossip().await.unwrap(), Judgement::Reject);
    let mut end = judge_all(third.gossip().await.unwrap(), Judgement::Accept);
    let sender = first.local_peer();
    for number in 0..2u8 {
        publish(&from, &[number]).await;
        soon(middle.recv()).await.unwrap();
    }
    soon(async {
        while second.gossip_score(sender).await.unwrap().is_none_or(|score| score > -60.0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Nothing of that sender is heard now; what another one sends is.
    from.publish(vec![9]).await.unwrap();
    let other = node_knowing(&second).await;
    let honest = other.gossip().await.unwrap();
    publish(&honest, b"from another").await;
    assert_eq!(soon(middle.recv()).await.unwrap(), b"from another");
    assert!(end.try_recv().is_err(), "nothing rejected travels");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_bounded_at_the_first_neighbour() {
    let first = node().await;
    let second = node_knowing(&first).await;
    let from = first.gossip().await.unwrap();
    let mut heard = judge_all(second.gossip().await.unwrap(), Judgement::Accept);
    publish(&from, b"the first").await;
    soon(heard.recv()).await.unwrap();
    for number in 0..500u32 {
        let _ = from.publish(number.to_le_bytes().to_vec()).await.unwrap();
    }
    // Whoever keeps to the pace is heard all the while.
    let honest = node_knowing(&second).await;
    publish(&honest.gossip().await.unwrap(), b"the last").await;
    let mut count = 0;
    let deadline = tokio::time::Instant::now() + WAIT;
    while let Ok(Some(data)) = tokio::time::timeout_at(deadline, heard.recv()).await {
        if data == b"the last" {
            break;
        }
        count += 1;
    }
    assert!(count <= 40, "{count} of 500 were heard");
}
