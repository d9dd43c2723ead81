//! Figures, printed: `cargo test --release -p peerproof-net --test network -- --ignored --nocapture figures`.

use std::time::{Duration, Instant};

use peerproof_net::{FrameLimits, Handle, Transport};

use super::common::{PROTOCOL, WAIT, address, node, node_knowing};

const ROUNDS: usize = 1_000;
const KEY: [u8; 32] = [0x77; 32];

fn print_percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{what}: p50 {:?}, p95 {:?}, of {}", at(50), at(95), times.len());
}

async fn echo(node: Handle) {
    let mut incoming = node.accept(PROTOCOL, FrameLimits::default()).unwrap();
    while let Some((_, mut stream)) = incoming.next().await {
        tokio::spawn(async move {
            while let Ok(Some(frame)) = stream.recv().await {
                if stream.send(&frame).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures, proves nothing"]
async fn frames_and_streams() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let (a, b) = (node().await, node().await);
        let echoing = tokio::spawn(echo(b.clone()));
        let began = Instant::now();
        let peer = a.dial(address(&b, transport).await).await.unwrap();
        println!("{transport} dial: {:?}", began.elapsed());
        let mut opens = Vec::new();
        let mut trips = Vec::new();
        for _ in 0..50 {
            let began = Instant::now();
            let open = a.open(peer, PROTOCOL, WAIT, FrameLimits::default());
            let mut stream = open.await.unwrap();
            stream.send(b"token").await.unwrap();
            stream.recv().await.unwrap().unwrap();
            opens.push(began.elapsed());
            for _ in 0..ROUNDS / 50 {
                let began = Instant::now();
                stream.send(&[1; 64]).await.unwrap();
                stream.recv().await.unwrap().unwrap();
                trips.push(began.elapsed());
            }
        }
        print_percentiles(&format!("{transport} open and first echo"), opens);
        print_percentiles(&format!("{transport} echo of 64 bytes"), trips);
        echoing.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures, proves nothing"]
async fn start_to_first_provider() {
    let hub = node().await;
    let provider = node_knowing(&hub).await;
    provider.provide(KEY).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let seeker = node_knowing(&hub).await;
        let mut search = seeker.search(KEY, WAIT).await.unwrap();
        search.next().await.unwrap();
        times.push(began.elapsed());
        seeker.shutdown().await;
    }
    print_percentiles("start to first provider", times);
}
