//! Opening the public roles: what a node serves and audits with, and under what terms.

use std::sync::Arc;

use peerproof_engine::service::ServiceOptions;
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::{Keypair, PeerId};
use peerproof_job::auditor::{self, Bench};
use peerproof_job::provider::{self, Desk, Served};
use peerproof_net::{Events, FrameLimits, Handle};
use peerproof_wire::evidence::LogEntry;
use peerproof_wire::{
    AUDIT_PROTOCOL, CELLS_PROTOCOL, DISPUTE_PROTOCOL, JOB_PROTOCOL, ModelId, RANGE_PROTOCOL,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::archive::Archive;
use super::clock::Clock;
use super::directory::Directory;
use super::holdings::{Held, Holdings, Terms};
use super::ledger::Ledger;
use super::watching::Watch;
use super::{
    NodeError, Settings, addresses, announcing, auditing, disputing, judging, logs, serving,
    sharing, spotting, threads, witnessing,
};
use crate::config::Config;
use crate::home::random_seed;
use crate::store::{LogWriter, StoreError};

/// Every model of a node, by what it does with it.
pub(super) struct Models {
    pub(super) holdings: Arc<Holdings>,
    pub(super) serve: Vec<Arc<Held>>,
    pub(super) audit: Vec<Arc<Held>>,
}

impl Models {
    pub(super) fn new(settings: &Settings) -> Result<Models, NodeError> {
        let honest = LoadOptions::default();
        let served = LoadOptions { only_layers: settings.only_layers, ..honest };
        let mut holdings = Holdings::new(terms(&settings.config)?);
        let serve = holdings.add(&settings.serve, &served, true)?;
        let audit = holdings.add(&settings.audit, &honest, false)?;
        holdings.add(&settings.hold, &honest, false)?;
        Ok(Models { holdings: Arc::new(holdings), serve, audit })
    }

    /// What recomputes answers with them.
    pub(super) fn replays(&self) -> Arc<auditing::Replays> {
        Arc::new(auditing::Replays::new(Arc::clone(&self.holdings)))
    }

    /// Opens what is served and audited, as far as it fits; false if that is nothing.
    pub(super) async fn open(&self) -> Result<bool, NodeError> {
        let needed: Vec<Arc<Held>> = self.serve.iter().chain(&self.audit).cloned().collect();
        for held in &needed {
            self.holdings.check_fit(held)?;
        }
        self.holdings.open_while_they_fit(&needed).await?;
        Ok(!needed.is_empty())
    }
}

fn terms(config: &Config) -> Result<Terms, NodeError> {
    let provide = &config.provide;
    let budget = provide
        .memory_bytes()
        .map_err(|error| NodeError::Model { name: "budget".into(), message: error.to_string() })?;
    Ok(Terms {
        budget,
        cache_bytes: u64::from(provide.kv_mib) << 20,
        service: ServiceOptions {
            threads: threads(config),
            max_active: provide.max_jobs as usize,
            max_queued: (provide.max_jobs + provide.max_queued) as usize,
            ..ServiceOptions::default()
        },
    })
}

fn witnessing(config: &Config, net: &Handle, archive: &Arc<Archive>) -> witnessing::Witnessing {
    witnessing::Witnessing {
        net: net.clone(),
        archive: Arc::clone(archive),
        wanted: config.log.witnesses as usize,
        every: std::time::Duration::from_secs(config.log.witness_every_s.into()),
        mdns: config.network.mdns && !config.network.loopback,
    }
}

fn behind(log: &LogWriter, error: &StoreError) -> NodeError {
    match log.damage() {
        Some(damage) => {
            NodeError::Behind { dir: log.dir().to_owned(), message: damage.to_string() }
        }
        None => NodeError::Store(error.clone()),
    }
}

/// What the public roles are opened with.
pub(super) struct Opening<'a> {
    pub(super) settings: &'a Settings,
    pub(super) key: &'a Arc<Keypair>,
    pub(super) clock: Clock,
    pub(super) log: &'a Arc<LogWriter>,
    pub(super) ledger: &'a Arc<Ledger>,
    pub(super) archive: &'a Arc<Archive>,
    pub(super) watch: &'a Arc<Watch>,
    pub(super) history: &'a [LogEntry],
    pub(super) load: &'a Arc<serving::Load>,
    pub(super) stopped: &'a watch::Receiver<bool>,
}

impl Opening<'_> {
    /// What has answers recomputed.
    pub(super) fn audits(
        &self,
        (net, directory): (&Handle, &Directory),
        session: &Arc<Keypair>,
        replays: Arc<auditing::Replays>,
        own: Option<PeerId>,
    ) -> Arc<auditing::Audits> {
        Arc::new(auditing::Audits {
            replays,
            directory: directory.clone(),
            net: net.clone(),
            session: Arc::clone(session),
            own,
            ledger: Arc::clone(self.ledger),
            clock: self.clock,
            manner: auditing::Manner::of(self.settings),
            stopped: self.stopped.clone(),
        })
    }

    /// The log first: nothing is signed before it was held against what others saw of it.
    pub(super) async fn public(
        &self,
        net: &Handle,
        events: Events,
        models: &Models,
        replays: &Arc<auditing::Replays>,
    ) -> Result<Vec<JoinHandle<()>>, NodeError> {
        let (shown, stop) = (Arc::clone(self.archive), self.stopped.clone());
        let mut tasks = vec![tokio::spawn(logs::answer(net.clone(), shown, stop))];
        let config = &self.settings.config;
        let witnessing = witnessing(config, net, self.archive);
        let seeds = addresses("network.peers", &config.network.peers)?;
        let asked = witnessing.before_signing(seeds).await;
        asked.map_err(|error| behind(self.log, &error))?;
        let run = witnessing::run(witnessing, events, self.stopped.clone());
        tasks.push(tokio::spawn(run));
        tasks.extend(self.roles(net, models, replays).await?);
        Ok(tasks)
    }

    async fn roles(
        &self,
        net: &Handle,
        models: &Models,
        replays: &Arc<auditing::Replays>,
    ) -> Result<Vec<JoinHandle<()>>, NodeError> {
        let mut tasks = Vec::new();
        if !models.serve.is_empty() {
            tasks.push(self.provider(net, models)?);
        }
        if !models.audit.is_empty() {
            tasks.push(self.auditor(net, models, replays)?);
        }
        if self.settings.config.share.enabled {
            tasks.push(self.sharer(net, models)?);
        }
        if !models.serve.is_empty() {
            tasks.push(self.opener(net, replays)?);
            tasks.push(self.disputant(net, replays)?);
        }
        let card = announcing::Card::new(self.key, self.clock, self.load, self.settings, models)?;
        for key in card.keys() {
            net.provide(key).await?;
        }
        tasks.push(tokio::spawn(announcing::answer(net.clone(), card, self.stopped.clone())));
        Ok(tasks)
    }

    fn provider(&self, net: &Handle, models: &Models) -> Result<JoinHandle<()>, NodeError> {
        let provide = &self.settings.config.provide;
        let mut served = Vec::new();
        for held in &models.serve {
            let context_length = held.offer()?.context_length;
            served.push(Served {
                model_id: held.id,
                context_length,
                class: peerproof_wire::Class::Exact,
            });
        }
        let config = provider::Config {
            max_running: provide.max_jobs as usize,
            max_queued: provide.max_queued as usize,
            ..provider::Config::default()
        };
        let desk = Desk::restore(config, served, self.history).map_err(|e| NodeError::Book {
            dir: self.log.dir().to_owned(),
            message: e.to_string(),
        })?;
        let shop = serving::Shop {
            key: Arc::clone(self.key),
            clock: self.clock,
            log: Arc::clone(self.log),
            holdings: Arc::clone(&models.holdings),
            load: Arc::clone(self.load),
            salts: serving::Salts::new(random_seed()),
        };
        let limits = FrameLimits { read_timeout: serving::READ_TIMEOUT, ..FrameLimits::default() };
        let incoming = net.accept(JOB_PROTOCOL, limits)?;
        let bars = self.ledger.bars();
        Ok(tokio::spawn(serving::run(shop, desk, incoming, bars, self.stopped.clone())))
    }

    fn opener(
        &self,
        net: &Handle,
        replays: &Arc<auditing::Replays>,
    ) -> Result<JoinHandle<()>, NodeError> {
        let limits = FrameLimits { read_timeout: spotting::READ_TIMEOUT, ..FrameLimits::default() };
        let incoming = net.accept(CELLS_PROTOCOL, limits)?;
        let replays = Arc::clone(replays);
        Ok(tokio::spawn(spotting::open_cells(
            self.key.public(),
            replays,
            incoming,
            self.stopped.clone(),
        )))
    }

    fn disputant(
        &self,
        net: &Handle,
        replays: &Arc<auditing::Replays>,
    ) -> Result<JoinHandle<()>, NodeError> {
        let limits = FrameLimits { read_timeout: spotting::READ_TIMEOUT, ..FrameLimits::default() };
        let incoming = net.accept(DISPUTE_PROTOCOL, limits)?;
        let (key, replays) = (Arc::clone(self.key), Arc::clone(replays));
        let stopped = self.stopped.clone();
        Ok(tokio::spawn(disputing::answer_disputes(key, replays, incoming, stopped)))
    }

    fn sharer(&self, net: &Handle, models: &Models) -> Result<JoinHandle<()>, NodeError> {
        let announced = models.serve.iter().chain(&models.audit).cloned();
        let library = sharing::Library::new(announced, &self.settings.config.share, self.load);
        let limits = FrameLimits { read_timeout: sharing::READ_TIMEOUT, ..FrameLimits::default() };
        let incoming = net.accept(RANGE_PROTOCOL, limits)?;
        Ok(tokio::spawn(sharing::run(library, incoming, self.stopped.clone())))
    }

    fn auditor(
        &self,
        net: &Handle,
        models: &Models,
        replays: &Arc<auditing::Replays>,
    ) -> Result<JoinHandle<()>, NodeError> {
        let holds: Vec<ModelId> = models.audit.iter().map(|held| held.id).collect();
        let court = judging::Court {
            key: Arc::clone(self.key),
            clock: self.clock,
            ledger: Arc::clone(self.ledger),
            replays: Arc::clone(replays),
            net: net.clone(),
            watch: Arc::clone(self.watch),
        };
        let limits = FrameLimits { read_timeout: judging::READ_TIMEOUT, ..FrameLimits::default() };
        let incoming = net.accept(AUDIT_PROTOCOL, limits)?;
        let bench = Bench::new(auditor::Config::default(), holds);
        Ok(tokio::spawn(judging::run(court, bench, incoming, self.stopped.clone())))
    }
}
