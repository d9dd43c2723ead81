//! Proofs against a key: found by one node, known to all, kept.

use std::sync::Arc;

use peerproof::Node;
use peerproof_identity::{Keypair, PeerId};
use peerproof_log::{AddCheckpoint, Log, memory::MemoryStorage};
use peerproof_net::{Gossip, NetConfig, Network};
use peerproof_wire::{
    Digest, Equivocation, Evidence, HeldFrom, LogReply, LogRequest, Message as _, ModelId,
    Observation, Receipt, Signed, Stop,
};

use super::stage::{House, PATIENCE, Peer, address, status};

async fn until_barred(node: &Node, peer: PeerId) {
    let since = std::time::Instant::now();
    let name = peer.to_string();
    while !node.client().peers().await.iter().any(|p| p.peer == name && p.barred.is_some()) {
        assert!(since.elapsed() < PATIENCE, "{peer} is not barred");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn receipt(key: &Keypair, number: u64, what: u8) -> Signed<Receipt> {
    let digest = |byte| Digest::from_bytes([byte; 32]);
    let receipt = Receipt {
        offer_id: digest(what),
        model_id: ModelId::from_bytes([1; 32]),
        number,
        previous: (number > 1).then(|| digest(2)),
        prompt_tokens: 3,
        output_tokens: 1,
        stop: Stop::Length,
        output_hash: digest(3),
        text_hash: digest(4),
        transcript_root: digest(5),
        kv_root: digest(7),
        class: peerproof_wire::Class::Exact,
        leaves: 4,
        issued_unix_ms: 6,
    };
    Signed::sign(key, receipt).unwrap()
}

fn equivocation(key: &Keypair) -> Evidence {
    let (first, second) = (receipt(key, 1, 1), receipt(key, 1, 2));
    Evidence::Equivocation(Equivocation { first, second })
}

fn fresh() -> Keypair {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    Keypair::from_seed(&seed)
}

async fn publish(gossip: &Gossip, data: Vec<u8>) {
    let since = std::time::Instant::now();
    while !gossip.publish(data.clone()).await.unwrap() {
        assert!(since.elapsed() < PATIENCE, "nobody listens");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn history(key: &Arc<Keypair>, entries: &[&str]) -> AddCheckpoint {
    let mut log = Log::open(MemoryStorage::default(), Arc::clone(key)).unwrap();
    log.append(entries).unwrap();
    log.add_checkpoint(0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forked_log_is_refused_and_its_key_barred_everywhere_and_for_ever() {
    let house = House::new(&[]);
    let witness = house.start().await.unwrap();
    let second_house = House::new(&[&witness]);
    let second = second_house.start().await.unwrap();
    // A router that knows the second node only.
    let third_house = House::new(&[&second]);
    let third = third_house.route().await;

    let liar = Peer::of(&witness).await;
    let key = Arc::clone(&liar.key);
    assert!(matches!(liar.add(&history(&key, &["one", "two"])).await, LogReply::Found(_)));
    let other = LogRequest::AddCheckpoint(history(&key, &["one", "other"]).to_bytes());
    // The connection of a convicted key is dropped, maybe before the answer is out.
    let refused = liar.try_ask(&other).await;
    assert!(refused.is_none_or(|reply| status(&reply) == 409));
    let accused = key.public().peer_id();
    for node in [&witness, &second, &third] {
        until_barred(node, accused).await;
    }
    assert_eq!(second.client().status().await.log.convicted, 1);
    second.shutdown().await;
    third.shutdown().await;

    // It is in the log, as a file, and known again after a restart.
    let second = second_house.start().await.unwrap();
    until_barred(&second, accused).await;
    second.shutdown().await;
    witness.shutdown().await;
    let files = std::fs::read_dir(house.home().evidence()).unwrap();
    let file = files.map(|file| file.unwrap().path()).next().unwrap();
    let store = peerproof::models::Store::new(house.home().models(), "");
    let judged = peerproof::verify::verify(&file, &store, None).unwrap();
    assert!(judged.proven && judged.kind == "fork", "{judged:?}");
    assert_eq!(judged.accused, accused.to_string());
    // No changed byte proves anything.
    let bytes = std::fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(&file, &changed).unwrap();
        let judged = peerproof::verify::verify(&file, &store, None);
        assert!(judged.is_err(), "byte {at} of {}: {judged:?}", bytes.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_are_taken_from_anybody_once_checked_and_handed_to_who_comes_later() {
    let house = House::new(&[]);
    let node = house.start().await.unwrap();
    let (net, _) = Network::start(&fresh(), NetConfig::loopback()).await.unwrap();
    net.dial(address(&node).parse().unwrap()).await.unwrap();
    let gossip = net.gossip().await.unwrap();

    let (liar, innocent) = (fresh(), fresh());
    publish(&gossip, equivocation(&liar).encode().unwrap()).await;
    until_barred(&node, liar.public().peer_id()).await;

    // What proves nothing by itself bars nobody.
    let claim = Observation::new(innocent.public(), "wrong-answer: trust me", None);
    publish(&gossip, Evidence::Observation(claim).encode().unwrap()).await;
    let second = fresh();
    publish(&gossip, equivocation(&second).encode().unwrap()).await;
    until_barred(&node, second.public().peer_id()).await;
    let innocent = innocent.public().peer_id().to_string();
    let peers = node.client().peers().await;
    assert!(!peers.iter().any(|p| p.peer == innocent && p.barred.is_some()));

    // Many proofs against one key are one.
    let again = Equivocation { first: receipt(&liar, 7, 3), second: receipt(&liar, 7, 4) };
    publish(&gossip, Evidence::Equivocation(again).encode().unwrap()).await;

    // Whoever comes later asks.
    let stranger = Peer::of(&node).await;
    let (mut index, mut held) = (0, 0);
    while let LogReply::Held(proof) = stranger.ask(&LogRequest::Held(HeldFrom { index })).await {
        peerproof::portable::accused(&proof.evidence).unwrap();
        (index, held) = (proof.index + 1, held + 1);
    }
    assert_eq!(held, 2);
    let late_house = House::new(&[&node]);
    let late = late_house.start().await.unwrap();
    until_barred(&late, liar.public().peer_id()).await;
    until_barred(&late, second.public().peer_id()).await;
    late.shutdown().await;
    node.shutdown().await;
}
