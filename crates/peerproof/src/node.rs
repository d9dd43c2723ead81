//! A running node: roles, network, log and models wired together.
//!
//! A node has two faces. As provider or auditor it speaks under its node key,
//! on a network of its own that others can find; as router it speaks under a
//! key that lives as long as this process, so that providers cannot tell users
//! apart over time. Both share the models, the log and what is remembered of
//! others. [`Node::start`] brings everything up in order (log first, because it
//! decides whether this process may sign at all), [`Node::shutdown`] takes it
//! down in the opposite one.
//!
//! The state machines are in `peerproof-job`, the checks in `peerproof-proof`;
//! here are the tasks around them: `serving`, `judging`, `asking`. `sharing` and
//! `fetching` move model files.

mod announcing;
mod archive;
mod asking;
mod auditing;
mod checks;
mod clock;
mod costs;
mod directory;
mod disputing;
mod docket;
mod fetching;
mod handle;
mod hearings;
mod holdings;
mod incidents;
mod judging;
mod ledger;
mod lighting;
mod logs;
mod pace;
mod proofs;
mod roles;
mod serving;
mod sharing;
mod spotting;
mod watching;
mod witnessing;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use peerproof_identity::{Keypair, PeerId};
use peerproof_job::Standing;
use peerproof_net::{Address, Events, Handle, NetConfig, NetError, Network, Scores};
use peerproof_wire::ModelId;
use peerproof_wire::evidence::LogEntry;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{AskError, HeldModel, NodeStatus, PeerPrice, ServedModel};
use crate::config::Config;
use crate::firewall::{FirewallError, Rules};
use crate::home::{Home, HomeError, session_key};
use crate::models::{Installed, KNOWN, Store};
use crate::store::{LogWriter, StoreError, WitnessStore};
use announcing::follow;
use archive::Archive;
use clock::Clock;
use directory::{Directory, Wanted};
use docket::Docket;
use holdings::Holdings;
use ledger::Ledger;
use roles::{Models, Opening};
use watching::Watch;

pub use fetching::FetchWatch;
pub use handle::Client;
pub(crate) use lighting::{Judged as Lit, judge as judge_lit_cells};
pub(crate) use spotting::{CELLS, Judged, judge as judge_cells, open as open_cells};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Folder or key.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sockets.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The operator's rules.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// An address in the configuration.
    #[error("{setting}: {address}: {message}")]
    Address {
        /// Which setting.
        setting: &'static str,
        /// As given.
        address: String,
        /// What is wrong with it.
        message: String,
    },
    /// A model.
    #[error("model {name}: {message}")]
    Model {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The receipts in the log are not one chain.
    #[error("the log in {dir} cannot be continued: {message}; run: peerproof log verify")]
    Book {
        /// The log's folder.
        dir: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The log is damaged; it can be read, and nothing is added to it.
    #[error(
        "the log in {dir} is damaged: {message}; nothing will be signed over it. Look at it with `peerproof log verify`, restore a backup, or begin anew under a new key with `peerproof keys rotate`"
    )]
    Fenced {
        /// The log's folder.
        dir: PathBuf,
        /// Where and how.
        message: String,
    },
    /// Others have seen more of the log than there is, or something else.
    #[error(
        "the log in {dir} is not the one that others have seen: {message}; nothing will be signed over it, since that would be a second history, which bars this key everywhere. Restore the newest copy of the folder, or begin anew under a new key with `peerproof keys rotate`"
    )]
    Behind {
        /// The log's folder.
        dir: PathBuf,
        /// What was expected and what is here.
        message: String,
    },
    /// A file that tells other commands about this node.
    #[error("{path}: {message}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its folders.
    pub home: Home,
    /// Its configuration.
    pub config: Config,
    /// Models it answers with.
    pub serve: Vec<Installed>,
    /// Models it audits with, for others.
    pub audit: Vec<Installed>,
    /// Models it may open to audit its own answers.
    pub hold: Vec<Installed>,
    /// Play a cheat: compute only so many layers of what is served.
    pub only_layers: Option<usize>,
}

impl Settings {
    /// A router without models.
    #[must_use]
    pub fn new(home: Home, config: Config) -> Settings {
        Settings { home, config, serve: vec![], audit: vec![], hold: vec![], only_layers: None }
    }
}

/// A running node. [`Node::shutdown`] ends it in order; dropping it just ends it.
pub struct Node {
    inner: Arc<Inner>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    asking: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    failovers: AtomicU64,
    audits: AtomicU64,
    audit_ms: AtomicU64,
    tokens_in: AtomicU64,
}

pub(crate) struct Inner {
    home: Home,
    config: Config,
    clock: Clock,
    session: Arc<Keypair>,
    /// The router's network, under the session key.
    net: Handle,
    /// The network of provider and auditor, under the node key.
    public_net: Option<Handle>,
    /// The rules that both networks judge by.
    firewall: tokio::sync::Mutex<Rules>,
    directory: Directory,
    holdings: Arc<Holdings>,
    fetcher: fetching::Fetcher,
    spots: spotting::Spots,
    lights: lighting::Lights,
    audits: Arc<auditing::Audits>,
    checks: checks::Checks,
    ledger: Arc<Ledger>,
    archive: Arc<Archive>,
    watch: Arc<Watch>,
    /// Turns true when the node stops.
    stopped: watch::Receiver<bool>,
    counts: Counts,
    load: Arc<serving::Load>,
    serves: Vec<String>,
    roles: Vec<String>,
    addresses: Vec<String>,
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits until the node stops, holding nothing of the channel.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Node {
    /// The memory that each model of these settings will take, and the budget of
    /// all that are open at once. Reads headers only.
    ///
    /// # Errors
    /// A model's record or the budget is not valid.
    pub fn memory(settings: &Settings) -> Result<(Vec<HeldModel>, u64), NodeError> {
        let models = Models::new(settings)?;
        Ok((models.holdings.measured(), models.holdings.budget()))
    }

    /// Starts a node: log, networks, models, roles, in this order.
    ///
    /// # Errors
    /// Nothing is left running; the error says what to do.
    pub async fn start(settings: Settings) -> Result<Node, NodeError> {
        let clock = Clock::start();
        let key = Arc::new(settings.home.key()?);
        let (log, history) = open_log(&settings.home, &key).await?;
        let models = Models::new(&settings)?;
        let session = Arc::new(session_key());
        let (stop, stopped) = watch::channel(false);
        let ledger = Arc::new(Ledger::new(clock, &log, &history, &settings.config.reputation));
        let (docket, found) = Docket::new(Arc::clone(&ledger), settings.home.evidence(), &history);
        let archive = open_archive(&settings, clock, &key, &log, &docket).await?;
        let entrance = Entrance::new(&settings, &ledger)?;
        // Nobody hears of this node before it can answer: models first.
        let is_public = models.open().await?;
        let public = if is_public { Some(entrance.open(&key, true).await?) } else { None };
        let (net, events) = entrance.open(&session, false).await?;
        let watch = Watch::open(settings.home.seen(), Arc::clone(&docket), net.clone()).await;
        let directory = Directory::new(net.clone());
        let mut tasks = vec![tokio::spawn(follow(directory.clone(), events, stopped.clone()))];
        let (replays, load) = (models.replays(), Arc::<serving::Load>::default());
        let opening = Opening {
            settings: &settings,
            key: &key,
            clock,
            log: &log,
            ledger: &ledger,
            archive: &archive,
            watch: &watch,
            history: &history,
            load: &load,
            stopped: &stopped,
        };
        let (mut public_net, mut addresses) = (None, Vec::new());
        if let Some((public, events)) = public {
            addresses = full_addresses(&public).await?;
            tasks.extend(opening.public(&public, events, &models, &replays).await?);
            public_net = Some(public);
        }
        let nets = [public_net.as_ref(), Some(&net)];
        tasks.extend(proofs::pass_on(&docket, nets, found, settings.home.evidence(), &stopped)?);
        let own = public_net.as_ref().map(Handle::local_peer);
        let audits = opening.audits((&net, &directory), &session, replays, own);
        let fetcher = fetcher(&settings, &net, &directory, &ledger);
        let inner = Inner {
            clock,
            fetcher,
            spots: spotting::Spots::new(net.clone(), settings.home.evidence(), docket),
            lights: lighting::Lights::new(settings.home.sketches()),
            net,
            audits,
            checks: checks::Checks::default(),
            public_net,
            firewall: tokio::sync::Mutex::new(entrance.rules),
            session,
            directory,
            ledger,
            archive,
            watch,
            stopped,
            counts: Counts::default(),
            load,
            serves: settings.serve.iter().map(|m| m.name.clone()).collect(),
            roles: roles(&settings),
            addresses,
            holdings: models.holdings,
            home: settings.home,
            config: settings.config,
        };
        tasks.push(inner.follow_bars());
        Ok(Node { inner: Arc::new(inner), stop, tasks })
    }

    /// A handle to ask with.
    #[must_use]
    pub fn client(&self) -> Client {
        Client { inner: Arc::clone(&self.inner) }
    }

    /// What the node says about itself.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.inner.status(0, 0)
    }

    /// Writes the API's address into the home, for other commands of the same user.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish_api(&self, url: &str) -> Result<(), NodeError> {
        let path = self.inner.home.api_file();
        let json = serde_json::json!({ "url": url, "pid": std::process::id() }).to_string();
        crate::store::write_atomic(&path, json.as_bytes(), 0o600)?;
        Ok(())
    }

    /// Ends every role and every job asked for, then closes the networks. The log is released
    /// when the last [`Client`] is dropped.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true);
        let jobs = async {
            while self.inner.counts.asking.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), jobs).await;
        let proofs = async {
            while self.inner.spots.is_proving() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(spotting::PROVING_AT_THE_END, proofs).await;
        for task in self.tasks {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), task).await;
        }
        let _ = std::fs::remove_file(self.inner.home.api_file());
        if let Some(public) = &self.inner.public_net {
            public.shutdown().await;
        }
        self.inner.net.shutdown().await;
    }
}

fn roles(settings: &Settings) -> Vec<String> {
    let mut roles = vec!["router".to_owned()];
    if !settings.serve.is_empty() {
        roles.push("provider".into());
    }
    if !settings.audit.is_empty() {
        roles.push("auditor".into());
    }
    roles
}

fn threads(config: &Config) -> usize {
    match config.provide.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads as usize,
    }
}

fn fetcher(
    settings: &Settings,
    net: &Handle,
    directory: &Directory,
    ledger: &Arc<Ledger>,
) -> fetching::Fetcher {
    let store = Store::new(settings.home.models(), &settings.config.models.hub);
    fetching::Fetcher::new(net.clone(), directory.clone(), Arc::clone(ledger), store)
}

/// Opens the log where blocking is allowed, with everything that is in it.
async fn open_log(
    home: &Home,
    key: &Arc<Keypair>,
) -> Result<(Arc<LogWriter>, Vec<LogEntry>), NodeError> {
    let (dir, key) = (home.log(&key.public().peer_id()), Arc::clone(key));
    let named = dir.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let mut history = Vec::new();
        let log = LogWriter::open_replaying(&dir, key, |_, entry| history.push(entry))?;
        Ok::<_, StoreError>((log, history))
    });
    let (log, history) = opening
        .await
        .map_err(|e| NodeError::Book { dir: named.clone(), message: e.to_string() })??;
    if let Some(damage) = log.damage() {
        if damage.kind.is_behind() {
            return Err(NodeError::Behind { dir: named, message: damage.to_string() });
        }
        return Err(NodeError::Fenced { dir: named, message: damage.to_string() });
    }
    Ok((Arc::new(log), history))
}

/// Opens what others read of the log, and the desk where theirs are witnessed.
async fn open_archive(
    settings: &Settings,
    clock: Clock,
    key: &Arc<Keypair>,
    log: &Arc<LogWriter>,
    docket: &Arc<Docket>,
) -> Result<Arc<Archive>, NodeError> {
    let dir = settings.home.witnessed(&key.public().peer_id());
    let limit = settings.config.log.max_witnessed as usize;
    let (key, log, named) = (Arc::clone(key), Arc::clone(log), dir.clone());
    let docket = Arc::clone(docket);
    let opening = tokio::task::spawn_blocking(move || {
        let witness = Arc::new(WitnessStore::open(&dir, Arc::clone(&key), limit)?);
        Archive::new(clock, key.public(), log, witness, docket)
    });
    let opened =
        opening.await.map_err(|e| NodeError::Book { dir: named, message: e.to_string() })??;
    Ok(Arc::new(opened))
}

/// The configuration of one of the two networks.
fn net_config(config: &Config, public: bool) -> Result<NetConfig, NodeError> {
    let network = &config.network;
    let port = if public { network.port } else { 0 };
    let mut net = match (network.loopback, public) {
        (true, _) => NetConfig { listen: loopback(port), ..NetConfig::loopback() },
        (false, true) => NetConfig::at_port(port),
        (false, false) => NetConfig::default(),
    };
    net.mdns = network.mdns && !network.loopback;
    net.kad_server = public;
    net.limits.inbound_connections = network.max_connections;
    net.limits.outbound_connections = network.max_connections;
    net.bootstrap = addresses("network.peers", &network.peers)?;
    if public {
        net.external = addresses("network.external", &network.external)?;
    }
    Ok(net)
}

/// What stands before both networks: the operator's rules, and what they need to know of peers.
struct Entrance {
    config: Config,
    rules: Rules,
    scores: Scores,
}

impl Entrance {
    fn new(settings: &Settings, ledger: &Arc<Ledger>) -> Result<Entrance, NodeError> {
        let rules = Rules::read(&settings.home, &settings.config.firewall)?;
        // A network's tasks may outlive the node for a moment, and its log must not.
        let ledger = Arc::downgrade(ledger);
        let score = move |peer: &PeerId| ledger.upgrade().map(|it| it.standing(peer).score);
        let scores = Scores::new(move |peer| score(peer).unwrap_or_default());
        Ok(Entrance { config: settings.config.clone(), rules, scores })
    }

    /// Starts the public network, or the router's, behind them.
    async fn open(&self, key: &Keypair, public: bool) -> Result<(Handle, Events), NodeError> {
        let mut net = net_config(&self.config, public)?;
        (net.firewall, net.scores) = (self.rules.list()?, Some(self.scores.clone()));
        Ok(Network::start(key, net).await?)
    }
}

fn addresses(setting: &'static str, list: &[String]) -> Result<Vec<Address>, NodeError> {
    let parse = |address: &String| {
        let wrong = |message| NodeError::Address { setting, address: address.clone(), message };
        address.parse().map_err(|e: peerproof_net::AddressError| wrong(e.to_string()))
    };
    list.iter().map(parse).collect()
}

fn loopback(port: u16) -> Vec<Address> {
    let at = (std::net::Ipv4Addr::LOCALHOST, port).into();
    vec![Address::quic(at), Address::tcp(at)]
}

async fn full_addresses(net: &Handle) -> Result<Vec<String>, NodeError> {
    let addresses = net.listen_addresses().await?;
    let peer = net.local_peer();
    Ok(addresses.iter().map(|address| address.with_peer(peer).to_string()).collect())
}

impl Inner {
    /// Whoever is barred is refused on both networks from then on.
    fn follow_bars(&self) -> JoinHandle<()> {
        let nets = self.nets().cloned().collect();
        let (ledger, stopped) = (Arc::clone(&self.ledger), self.stopped.clone());
        let hearings = Arc::clone(&self.spots.hearings);
        tokio::spawn(incidents::follow(ledger, nets, hearings, stopped))
    }

    /// Both networks, or the one there is.
    fn nets(&self) -> impl Iterator<Item = &Handle> {
        self.public_net.iter().chain([&self.net])
    }

    fn standing(&self, peer: &PeerId) -> Standing {
        self.ledger.standing(peer)
    }

    /// Why a search found nobody, and what to do.
    fn why_nobody(&self) -> String {
        let peers = self.directory.all().len();
        let network = &self.config.network;
        if peers == 0 && network.peers.is_empty() && network.loopback {
            "this node stays on loopback and was given no --peer to start from".into()
        } else if peers == 0 {
            "no peer answered; run `peerproof doctor`, or name one with --peer".into()
        } else {
            format!("{peers} peers are known and none of them can answer; run `peerproof peers`")
        }
    }

    fn status(&self, peers: usize, log_entries: u64) -> NodeStatus {
        let named = self.public_net.as_ref().unwrap_or(&self.net);
        NodeStatus {
            peer: named.local_peer().to_string(),
            roles: self.roles.clone(),
            addresses: self.addresses.clone(),
            serves: self.serves.clone(),
            models: self.holdings.states(),
            memory_budget_bytes: self.holdings.budget(),
            evictions: self.holdings.evictions(),
            peers,
            active_jobs: self.load.active.load(Ordering::Relaxed),
            queued_jobs: self.load.queued.load(Ordering::Relaxed),
            asking: u32::try_from(self.counts.asking.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            shared_bytes: self.load.shared_bytes.load(Ordering::Relaxed),
            log_entries,
            log: self.archive.status(),
            uptime_s: self.clock.now().0 / 1000,
        }
    }

    /// The id a request means: an id; the name of a file that is here; a name this program
    /// pins; or what most peers announce under the name.
    async fn resolve(&self, model: &str) -> Result<(ModelId, String), AskError> {
        if let Ok(id) = model.parse::<ModelId>() {
            let name = self.holdings.by_id(id).map(|held| held.installed.name.clone());
            return Ok((id, name.unwrap_or_else(|| model.to_owned())));
        }
        if let Some(held) = self.holdings.by_name(model) {
            return Ok((held.id, model.to_owned()));
        }
        if let Some(id) = KNOWN.iter().find(|k| k.name == model).and_then(|k| k.id.parse().ok()) {
            return Ok((id, model.to_owned()));
        }
        let wanted = Wanted::Named(model.to_owned());
        let mut found = self.directory.search(wanted, std::time::Duration::from_secs(3), true);
        let mut votes: HashMap<ModelId, usize> = HashMap::new();
        while let Some((_, known)) = found.recv().await {
            for offer in
                known.announcement.serves.iter().filter(|m| m.name.eq_ignore_ascii_case(model))
            {
                *votes.entry(offer.model_id).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(id, count)| (*count, std::cmp::Reverse(*id)));
        most.map(|(id, _)| (id, model.to_owned())).ok_or_else(|| self.unknown_model(model))
    }

    fn unknown_model(&self, model: &str) -> AskError {
        let mut names: Vec<String> = self.served().into_iter().map(|m| m.name).collect();
        names.dedup();
        let available = if names.is_empty() { "none".into() } else { names.join(", ") };
        AskError::UnknownModel { model: model.into(), available }
    }

    fn served(&self) -> Vec<ServedModel> {
        let mut models: HashMap<ModelId, ServedModel> = HashMap::new();
        for (peer, known) in self.directory.all() {
            let said = known.announcement;
            let serves = said.serves.iter().map(|m| (m, true));
            for (offer, serves) in serves.chain(said.audits.iter().map(|m| (m, false))) {
                let model = models.entry(offer.model_id).or_insert_with(|| ServedModel {
                    id: offer.model_id.to_string(),
                    name: offer.name.clone(),
                    context_length: offer.context_length,
                    providers: Vec::new(),
                    auditors: Vec::new(),
                    prices: Vec::new(),
                });
                if let Some(price) = &offer.price {
                    let price = PeerPrice { peer: peer.to_string(), price: price.into() };
                    if !model.prices.contains(&price) {
                        model.prices.push(price);
                    }
                }
                if serves { &mut model.providers } else { &mut model.auditors }
                    .push(peer.to_string());
            }
        }
        let mut models: Vec<ServedModel> =
            models.into_values().filter(|m| !m.providers.is_empty()).collect();
        models.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        models
    }
}
