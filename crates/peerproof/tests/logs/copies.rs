//! A log that is not the one its witnesses saw signs nothing more.

use peerproof::NodeError;
use peerproof::log::cosigners;
use peerproof_log::SignedCheckpoint;

use super::stage::{House, peer, until};

fn assert_behind(error: &NodeError, what: &str) {
    let NodeError::Behind { message, .. } = error else { panic!("{error}") };
    assert!(message.contains(what), "{message}");
    assert!(error.to_string().contains("peerproof keys rotate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_is_refused_before_the_first_signature_and_a_second_history_too() {
    let at_the_witness = House::new(&[]);
    let witness = at_the_witness.start().await.unwrap();
    let mut house = House::new(&[&witness]);
    house.fill(3, "first").await;
    let old = house.copy();
    house.fill(2, "more").await;

    let node = house.start().await.unwrap();
    until(&node, "a cosignature", |status| status.log.cosigned_entries == 5).await;
    let status = node.client().status().await;
    assert_eq!(status.log.asked_at_start, Some(1));
    assert_eq!(status.log.cosigners[0].peer, peer(&witness).to_string());
    let piece = node.client().log_piece("checkpoint").await.unwrap().unwrap();
    let note = SignedCheckpoint::open_of(&piece.bytes, &house.key().public()).unwrap();
    assert_eq!(cosigners(&note)[0].0, peer(&witness));
    node.shutdown().await;

    // The very log goes on.
    let node = house.start().await.unwrap();
    node.shutdown().await;
    let newest = house.copy();

    house.put_back(&old);
    let before = std::fs::read(house.log_dir().join("checkpoint")).unwrap();
    assert_behind(&house.refused().await, "expected 5");
    let after = std::fs::read(house.log_dir().join("checkpoint")).unwrap();
    assert_eq!(before, after, "nothing is signed");
    // It stays so where no witness is in reach.
    house.config.network.peers.clear();
    assert_behind(&house.refused().await, "expected 5");

    // The same number of entries, and others.
    house.put_back(&old);
    house.fill(2, "other").await;
    let alone = house.start().await.unwrap();
    assert_eq!(alone.client().status().await.log.asked_at_start, Some(0), "nobody to ask");
    alone.shutdown().await;
    house.config.network.peers = vec![super::stage::address(&witness)];
    assert_behind(&house.refused().await, "second history");

    // The newest copy is welcome again.
    house.put_back(&newest);
    house.start().await.unwrap().shutdown().await;
    witness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_comes_later_fences_a_running_node() {
    let mut at_the_witness = House::new(&[]);
    let witness = at_the_witness.start().await.unwrap();
    let house = House::new(&[&witness]);
    house.fill(3, "first").await;
    let old = house.copy();
    house.fill(1, "more").await;
    let node = house.start().await.unwrap();
    until(&node, "a cosignature", |status| status.log.cosigned_entries == 4).await;
    node.shutdown().await;
    witness.shutdown().await;

    house.put_back(&old);
    let node = house.start().await.unwrap();
    assert_eq!(node.client().status().await.log.asked_at_start, Some(0));
    at_the_witness.config.network.peers = vec![super::stage::address(&node)];
    let witness = at_the_witness.start().await.unwrap();
    until(&node, "the fence", |status| status.log.fault.is_some()).await;
    node.shutdown().await;
    witness.shutdown().await;
    assert_behind(&house.refused().await, "expected 4");
}
