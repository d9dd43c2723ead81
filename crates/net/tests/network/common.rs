//! What the tests share: nodes on loopback, each with its own key.

use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use peerproof_identity::Keypair;
use peerproof_net::{Address, Events, Handle, NetConfig, Network, Transport};

/// Longer than anything here takes; only a hang reaches it.
pub(crate) const WAIT: Duration = Duration::from_secs(20);
pub(crate) const PROTOCOL: &str = "/peerproof/test/1";

static NEXT: AtomicU8 = AtomicU8::new(1);

pub(crate) fn keypair() -> Keypair {
    Keypair::from_seed(&[NEXT.fetch_add(1, Ordering::Relaxed); 32])
}

pub(crate) async fn start(config: NetConfig) -> (Handle, Events) {
    Network::start(&keypair(), config).await.unwrap()
}

pub(crate) async fn node() -> Handle {
    start(NetConfig::loopback()).await.0
}

/// Where a node listens, with its name.
pub(crate) async fn address(node: &Handle, transport: Transport) -> Address {
    let addresses = node.listen_addresses().await.unwrap();
    let address = addresses.iter().find(|a| a.transport() == transport);
    address.unwrap().with_peer(node.local_peer())
}

/// A node that knows one other.
pub(crate) async fn node_knowing(other: &Handle) -> Handle {
    let config = NetConfig {
        bootstrap: vec![address(other, Transport::Quic).await],
        ..NetConfig::loopback()
    };
    start(config).await.0
}

/// Fails the test instead of hanging it.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future).await.unwrap()
}
