//! The machine of `discovery` and stock libp2p-kad, over real streams.
//!
//! libp2p's own Kademlia is the oracle of the wire format: its nodes store and find
//! through our machine, and our messages are understood by theirs.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use libp2p::kad::{self, GetProvidersOk, GetRecordOk, QueryResult, store::MemoryStore};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder};
use peerproof_discovery::message::{Kind, Message, PROTOCOL};
use peerproof_discovery::node::{Config, Effect, Event};
use peerproof_discovery::record::{Draft, Record};
use peerproof_discovery::{Discovery, Millis};
use peerproof_identity::{Keypair, PeerId};
use peerproof_net::{FrameLimits, Handle, NetConfig, Network, Transport};

use super::common::{WAIT, address, keypair, soon};

const NOW_S: u64 = 1_800_000_000;
const NOW: Millis = Millis(1_000_000);

type Stock = Swarm<kad::Behaviour<MemoryStore>>;

/// A node whose machine answers whoever asks under the protocol.
async fn serving() -> Handle {
    let key = keypair();
    let (handle, _events) = Network::start(&key, NetConfig::loopback()).await.unwrap();
    let config = Config { stable_ms: 0, stock_writes: true, ..Config::default() };
    let machine = Discovery::new(Arc::new(key), config, [1; 32], NOW);
    let machine = Arc::new(Mutex::new(machine));
    let mut incoming = handle.accept(PROTOCOL, FrameLimits::default()).unwrap();
    tokio::spawn(async move {
        while let Some((from, mut stream)) = incoming.next().await {
            let machine = Arc::clone(&machine);
            tokio::spawn(async move {
                while let Ok(Some(frame)) = stream.recv().await {
                    let message = Message::decode(&frame).unwrap();
                    let ip = [127, 0, 0, 1].into();
                    let asked = Event::Asked { request: 0, from, ip, message };
                    let effects = machine.lock().unwrap().handle(asked, NOW, NOW_S);
                    for effect in effects {
                        if let Effect::Answer(_, answer) = effect {
                            stream.send(&answer.encode()).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    handle
}

/// A stock node, and the key it has in our words.
async fn stock(seed: u8) -> (Stock, Keypair, Multiaddr) {
    let keypair = libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    let behaviour = |key: &libp2p::identity::Keypair| {
        let peer = key.public().to_peer_id();
        let config = kad::Config::new(StreamProtocol::new(PROTOCOL));
        let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
        kad.set_mode(Some(kad::Mode::Server));
        kad
    };
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_quic()
        .with_behaviour(behaviour)
        .unwrap()
        .build();
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    let listens = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(listens.clone());
    (swarm, Keypair::from_seed(&[seed; 32]), listens)
}

async fn introduce(stock: &mut Stock, node: &Handle) {
    let peer = libp2p::PeerId::from_bytes(&node.local_peer().to_bytes()).unwrap();
    let text = address(node, Transport::Quic).await.to_string();
    stock.behaviour_mut().add_address(&peer, text.parse().unwrap());
}

/// Runs a stock node until a query ends the way it is looked for.
async fn result<T>(stock: &mut Stock, wanted: impl Fn(QueryResult) -> Option<T>) -> T {
    soon(async {
        loop {
            let event = stock.select_next_some().await;
            if let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed { result, .. }) = event
                && let Some(got) = wanted(result)
            {
                return got;
            }
        }
    })
    .await
}

fn record(key: &Keypair) -> Record {
    let draft = Draft { label: b"", sequence: 1, created_s: NOW_S, expires_s: NOW_S + 600 };
    draft.sign(key, b"where I am").unwrap()
}

#[tokio::test]
async fn a_stock_node_stores_and_another_finds() {
    let node = serving().await;
    let (mut writer, key, _) = stock(201).await;
    let (mut reader, ..) = stock(202).await;
    introduce(&mut writer, &node).await;
    introduce(&mut reader, &node).await;

    let record = record(&key);
    let name = kad::RecordKey::new(&record.name().0);
    let stored = kad::Record::new(name.clone(), record.as_bytes().to_vec());
    writer.behaviour_mut().put_record(stored, kad::Quorum::One).unwrap();
    let put = result(&mut writer, |result| match result {
        QueryResult::PutRecord(put) => Some(put),
        _ => None,
    });
    put.await.unwrap();

    reader.behaviour_mut().get_record(name);
    let found = result(&mut reader, |result| match result {
        QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => Some(found.record.value),
        QueryResult::GetRecord(Err(error)) => panic!("{error}"),
        _ => None,
    });
    assert_eq!(Record::decode(&found.await), Ok(record));
}

#[tokio::test]
async fn what_is_no_record_is_refused_to_a_stock_node() {
    let node = serving().await;
    let (mut writer, ..) = stock(203).await;
    introduce(&mut writer, &node).await;
    let stored = kad::Record::new(kad::RecordKey::new(b"any name"), b"anything".to_vec());
    writer.behaviour_mut().put_record(stored, kad::Quorum::One).unwrap();
    let put = result(&mut writer, |result| match result {
        QueryResult::PutRecord(put) => Some(put),
        _ => None,
    });
    assert!(put.await.is_err());
}

#[tokio::test]
async fn a_stock_provider_is_found_by_another() {
    let node = serving().await;
    let (mut provider, key, listens) = stock(204).await;
    let (mut seeker, ..) = stock(205).await;
    introduce(&mut provider, &node).await;
    introduce(&mut seeker, &node).await;

    let name = kad::RecordKey::new(b"a model");
    provider.behaviour_mut().start_providing(name.clone()).unwrap();
    let provided = result(&mut provider, |result| match result {
        QueryResult::StartProviding(provided) => Some(provided),
        _ => None,
    });
    provided.await.unwrap();

    // ADD_PROVIDER has no answer: ask until the machine has read it.
    let expected = libp2p::PeerId::from_bytes(&key.public().peer_id().to_bytes()).unwrap();
    loop {
        seeker.behaviour_mut().get_providers(name.clone());
        let found = result(&mut seeker, |result| match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                Some(providers.contains(&expected))
            }
            QueryResult::GetProviders(Ok(_)) => Some(false),
            QueryResult::GetProviders(Err(error)) => panic!("{error}"),
            _ => None,
        });
        let (found, _) = soon(async { tokio::join!(found, drive_briefly(&mut provider)) }).await;
        if found {
            break;
        }
    }
    assert!(listens.to_string().contains("127.0.0.1"));
}

/// Lets a swarm send what it still has to.
async fn drive_briefly(stock: &mut Stock) {
    for _ in 0..20 {
        tokio::select! {
            _ = stock.select_next_some() => {}
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test]
async fn our_questions_are_answered_by_a_stock_node() {
    let node = serving().await;
    let (mut answerer, key, listens) = stock(206).await;
    let (_other, other, other_listens) = stock(207).await;
    let other_id = libp2p::PeerId::from_bytes(&other.public().peer_id().to_bytes()).unwrap();
    answerer.behaviour_mut().add_address(&other_id, other_listens);
    let asked = async {
        let target: PeerId = key.public().peer_id();
        let whole = format!("{listens}/p2p/{target}");
        node.dial(whole.parse().unwrap()).await.unwrap();
        let limits = FrameLimits::default();
        let mut stream = node.open(target, PROTOCOL, WAIT, limits).await.unwrap();
        let question = Message::new(Kind::FindNode, b"somewhere");
        stream.send(&question.encode()).await.unwrap();
        Message::decode(&stream.recv().await.unwrap().unwrap()).unwrap()
    };
    let answer = soon(async {
        tokio::pin!(asked);
        loop {
            tokio::select! {
                answer = &mut asked => return answer,
                _ = answerer.select_next_some() => {}
            }
        }
    })
    .await;
    assert_eq!(answer.kind, Kind::FindNode);
    let peers: Vec<PeerId> = answer.closer.iter().map(|contact| contact.peer).collect();
    assert!(peers.contains(&other.public().peer_id()), "{answer:?}");
}
