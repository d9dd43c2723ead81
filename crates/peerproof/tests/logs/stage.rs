//! Auditors with homes of their own, peers made by hand, and logs filled from outside.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peerproof::client::NodeStatus;
use peerproof::config::Config;
use peerproof::home::{Environment, Home};
use peerproof::store::LogWriter;
use peerproof::{Node, NodeError, Settings};
use peerproof_identity::{Keypair, PeerId};
use peerproof_log::memory::MemoryStorage;
use peerproof_log::{AddCheckpoint, Log};
use peerproof_net::{FrameLimits, FrameStream, Handle, NetConfig, Network};
use peerproof_wire::{
    LOG_PROTOCOL, LogBody, LogEntry, LogReply, LogRequest, Message as _, Observation,
};
use tempfile::TempDir;

use crate::support::model;

/// Longer than anything these tests wait for; reaching it is a failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A home on disk whose node can be started again and again.
pub(super) struct House {
    pub(super) dir: TempDir,
    pub(super) config: Config,
}

impl House {
    pub(super) fn new(peers: &[&Node]) -> House {
        let mut config = Config::default();
        config.network.loopback = true;
        config.network.mdns = false;
        config.network.peers = peers.iter().map(|node| address(node)).collect();
        config.provide.threads = 1;
        config.provide.kv_mib = 64;
        config.log.witness_every_s = 1;
        House { dir: tempfile::tempdir().unwrap(), config }
    }

    pub(super) fn home(&self) -> Home {
        Home::find(Some(self.dir.path()), None, &Environment::read()).unwrap()
    }

    pub(super) fn key(&self) -> Arc<Keypair> {
        Arc::new(self.home().key().unwrap())
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.home().log(&self.key().public().peer_id())
    }

    pub(super) async fn start(&self) -> Result<Node, NodeError> {
        let settings = Settings::new(self.home(), self.config.clone());
        Node::start(Settings { audit: vec![model().clone()], ..settings }).await
    }

    /// A node without models, which only asks.
    pub(super) async fn route(&self) -> Node {
        Node::start(Settings::new(self.home(), self.config.clone())).await.unwrap()
    }

    /// Why the node does not start.
    pub(super) async fn refused(&self) -> NodeError {
        match self.start().await {
            Ok(_) => panic!("the node starts"),
            Err(error) => error,
        }
    }

    /// Adds entries that say `what` to the log, while no node has it open.
    pub(super) async fn fill(&self, count: u64, what: &str) {
        let log = LogWriter::open(&self.log_dir(), self.key()).unwrap();
        for entry in entries(count, what) {
            log.append(&entry).await.unwrap();
        }
        log.close().await;
    }

    /// A copy of the log's folder as it is.
    pub(super) fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.log_dir()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        copy
    }

    /// Puts a copy in the place of the log's folder.
    pub(super) fn put_back(&self, copy: &TempDir) {
        let dir = self.log_dir();
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::create_dir(&dir).unwrap();
        for file in std::fs::read_dir(copy.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
        }
    }
}

fn entries(count: u64, what: &str) -> impl Iterator<Item = LogEntry> {
    let somebody = Keypair::from_seed(&[77; 32]).public();
    (0..count).map(move |number| LogEntry {
        unix_ms: number,
        body: LogBody::Evidence(peerproof_wire::Evidence::Observation(Observation::new(
            somebody,
            format!("dropped: {what} {number}"),
            None,
        ))),
    })
}

pub(super) fn address(node: &Node) -> String {
    node.status().addresses[0].clone()
}

pub(super) fn peer(node: &Node) -> PeerId {
    node.status().peer.parse().unwrap()
}

/// Waits until the node's status is as wanted.
pub(super) async fn until(node: &Node, what: &str, wanted: impl Fn(&NodeStatus) -> bool) {
    let since = Instant::now();
    loop {
        let status = node.client().status().await;
        if wanted(&status) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A peer made by hand, with a log in memory.
pub(super) struct Peer {
    pub(super) net: Handle,
    pub(super) key: Arc<Keypair>,
    pub(super) log: Log<MemoryStorage>,
    to: PeerId,
}

impl Peer {
    pub(super) async fn of(node: &Node) -> Peer {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let key = Keypair::from_seed(&seed);
        let config = NetConfig { kad_server: false, ..NetConfig::loopback() };
        let (net, _) = Network::start(&key, config).await.unwrap();
        let to = net.dial(address(node).parse().unwrap()).await.unwrap();
        let key = Arc::new(key);
        let log = Log::open(MemoryStorage::default(), Arc::clone(&key)).unwrap();
        Peer { net, key, log, to }
    }

    pub(super) async fn stream(&self) -> FrameStream {
        let limits = FrameLimits { read_timeout: PATIENCE, ..FrameLimits::default() };
        self.net.open(self.to, LOG_PROTOCOL, PATIENCE, limits).await.unwrap()
    }

    pub(super) async fn ask(&self, request: &LogRequest) -> LogReply {
        self.try_ask(request).await.unwrap()
    }

    /// `None` if the node hangs up instead of an answer.
    pub(super) async fn try_ask(&self, request: &LogRequest) -> Option<LogReply> {
        let mut stream = self.stream().await;
        stream.send(&request.encode().unwrap()).await.unwrap();
        let frame = stream.recv().await.ok().flatten()?;
        Some(LogReply::decode(&frame).unwrap())
    }

    pub(super) async fn add(&self, request: &AddCheckpoint) -> LogReply {
        self.ask(&LogRequest::AddCheckpoint(request.to_bytes())).await
    }
}

/// The status of a refusal.
pub(super) fn status(reply: &LogReply) -> u32 {
    match reply {
        LogReply::Refused(refusal) => refusal.status,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
