//! Real nodes to attack, and the honest router whose job must succeed after every attack.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use peerproof::config::Config;
use peerproof::home::{Environment, Home};
use peerproof::{Node, Settings};
use peerproof_identity::{Keypair, PeerId};
use peerproof_net::{Address, FrameLimits, FrameStream, Handle, NetConfig, Network};
use peerproof_proof::receipt::{Answer, verify_bindings};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Delivered, JOB_PROTOCOL, Level, Message as _, ModelId, Offer, Prompt, ProviderFrame,
    RouterFrame, Sampling, Signed,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(super) use crate::support::model;

/// Longer than anything these tests wait for; reaching it is a failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes outlive single tests, so all tests share one runtime.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

pub(super) fn model_id() -> ModelId {
    model().id.parse().unwrap()
}

/// Settings of a node on loopback with its own home.
pub(super) fn settings(home: &TempDir, peers: Vec<String>) -> Settings {
    let mut config = Config::default();
    config.network.loopback = true;
    config.network.mdns = false;
    config.network.peers = peers;
    config.provide.threads = 1;
    config.provide.max_jobs = 2;
    config.provide.kv_mib = 256;
    config.ask.max_tokens = 8;
    config.ask.deadline_ms = 40_000;
    // The liar is to be heard, however slow this machine is.
    config.ask.hedge = false;
    let home = Home::find(Some(home.path()), None, &Environment::read()).unwrap();
    Settings::new(home, config)
}

/// A node that serves the model, and what reaches it.
pub(super) struct Provider {
    pub(super) node: Node,
    pub(super) home: TempDir,
}

impl Provider {
    pub(super) async fn start() -> Provider {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(super) async fn start_in(home: TempDir) -> Provider {
        let settings = Settings { serve: vec![model().clone()], ..settings(&home, vec![]) };
        Provider { node: Node::start(settings).await.unwrap(), home }
    }

    pub(super) fn address(&self) -> String {
        self.node.status().addresses[0].clone()
    }

    pub(super) fn peer(&self) -> PeerId {
        self.node.status().peer.parse().unwrap()
    }

    /// Waits until nothing runs and nothing waits.
    pub(super) async fn idle(&self, after: &str) {
        let since = Instant::now();
        loop {
            let status = self.node.status();
            if (status.active_jobs, status.queued_jobs) == (0, 0) {
                return;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "after {after}: {} jobs run and {} wait",
                status.active_jobs,
                status.queued_jobs
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The provider still does honest work, and holds nothing of the attack.
    pub(super) async fn is_sound(&self, after: &str) {
        let router = Router::to(self).await;
        let offer = router.offer(|_| {});
        let mut stream = router.stream().await;
        router.open(&mut stream, &offer, &[]).await;
        let served = collect(&mut stream).await.unwrap_or_else(|e| panic!("after {after}: {e}"));
        let answer = Answer { tokens: &served.tokens, text: &served.text, logprobs: &[] };
        let provider = self.peer().public_key();
        verify_bindings(&offer, &served.delivered.receipt, &provider, answer, &[])
            .unwrap_or_else(|e| panic!("after {after}: {e}"));
        drop(stream);
        router.net.shutdown().await;
        self.idle(after).await;
    }
}

/// An answer as it came over a stream.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) tokens: Vec<u32>,
    pub(super) text: String,
    pub(super) delivered: Delivered,
}

/// Reads a job stream to its receipt.
pub(super) async fn collect(stream: &mut FrameStream) -> Result<Served, String> {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        match receive(stream).await? {
            ProviderFrame::Accepted(_) | ProviderFrame::Progress(_) => {}
            ProviderFrame::Tokens(frame) => {
                tokens.truncate(frame.start as usize);
                tokens.extend(frame.tokens);
                text.push_str(&frame.text);
            }
            ProviderFrame::Delivered(delivered) => return Ok(Served { tokens, text, delivered }),
            other => return Err(format!("{other:?}")),
        }
    }
}

/// The next frame of a provider.
pub(super) async fn receive(stream: &mut FrameStream) -> Result<ProviderFrame, String> {
    let frame = stream.recv().await.map_err(|e| e.to_string())?.ok_or("the stream was closed")?;
    ProviderFrame::decode(&frame).map_err(|e| e.to_string())
}

/// A router made by hand: it can send what it likes.
pub(super) struct Router {
    pub(super) key: Keypair,
    pub(super) net: Handle,
    pub(super) peer: PeerId,
}

impl Router {
    pub(super) async fn to(provider: &Provider) -> Router {
        Self::dial(&provider.address()).await
    }

    pub(super) async fn dial(address: &str) -> Router {
        let key = Keypair::from_seed(&random());
        let config = NetConfig { kad_server: false, ..NetConfig::loopback() };
        let (net, _) = Network::start(&key, config).await.unwrap();
        let peer = net.dial(address.parse::<Address>().unwrap()).await.unwrap();
        Router { key, net, peer }
    }

    pub(super) async fn stream(&self) -> FrameStream {
        self.stream_of(JOB_PROTOCOL).await.unwrap()
    }

    pub(super) async fn stream_of(&self, protocol: &str) -> Result<FrameStream, String> {
        let limits = FrameLimits { read_timeout: PATIENCE, ..FrameLimits::default() };
        let open = self.net.open(self.peer, protocol, PATIENCE, limits);
        open.await.map_err(|e| e.to_string())
    }

    /// A short honest offer, but for what `change` does to it.
    pub(super) fn offer(&self, change: impl FnOnce(&mut Offer)) -> Signed<Offer> {
        let mut offer = plain_offer();
        change(&mut offer);
        Signed::sign(&self.key, offer).unwrap()
    }

    pub(super) async fn open(
        &self,
        stream: &mut FrameStream,
        offer: &Signed<Offer>,
        resume: &[u32],
    ) {
        let open = RouterFrame::Open { offer: offer.clone(), resume: resume.to_vec() };
        send(stream, &open).await;
    }
}

/// The nonce behind the challenge hash of [`plain_offer`].
pub(super) const NONCE: [u8; 32] = [9; 32];

/// A short greedy request; the same every time but for its public nonce.
pub(super) fn plain_offer() -> Offer {
    Offer {
        model_id: model_id(),
        prompt: Prompt::Text("The capital of France is".into()),
        sampling: Sampling::GREEDY,
        max_tokens: 3,
        stop: vec![],
        level: Level::Receipt,
        public_nonce: random(),
        client_nonce_hash: client_nonce_hash(&NONCE),
        deadline_ms: 40_000,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    }
}

pub(super) async fn send(stream: &mut FrameStream, frame: &RouterFrame) {
    stream.send(&frame.encode().unwrap()).await.unwrap();
}

pub(super) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
