//! Opening the public roles: what a node serves and audits with, and under what terms.

use std::collections::HashMap;
use std::sync::Arc;

use peerproof_engine::execute::Replayer;
use peerproof_engine::service::{Service, ServiceOptions};
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::Keypair;
use peerproof_job::auditor::{self, Bench};
use peerproof_job::provider::{self, Desk, Served};
use peerproof_net::{FrameLimits, Handle};
use peerproof_wire::evidence::LogEntry;
use peerproof_wire::{AUDIT_PROTOCOL, JOB_PROTOCOL, ModelId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::clock::Clock;
use super::holdings::{Held, Holdings};
use super::ledger::Ledger;
use super::{NodeError, Settings, announcing, auditing, judging, serving, threads};
use crate::store::LogWriter;

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
        let mut holdings = Holdings::default();
        let serve = holdings.add(&settings.serve, &served)?;
        let audit = holdings.add(&settings.audit, &honest)?;
        holdings.add(&settings.hold, &honest)?;
        Ok(Models { holdings: Arc::new(holdings), serve, audit })
    }

    /// Opens what is served and audited; false if that is nothing.
    pub(super) async fn open(&self) -> Result<bool, NodeError> {
        for held in self.serve.iter().chain(&self.audit) {
            held.open().await?;
        }
        Ok(!self.serve.is_empty() || !self.audit.is_empty())
    }
}

/// What the public roles are opened with.
pub(super) struct Opening<'a> {
    pub(super) settings: &'a Settings,
    pub(super) key: &'a Arc<Keypair>,
    pub(super) clock: Clock,
    pub(super) log: &'a Arc<LogWriter>,
    pub(super) ledger: &'a Arc<Ledger>,
    pub(super) history: &'a [LogEntry],
    pub(super) load: &'a Arc<serving::Load>,
    pub(super) stopped: &'a watch::Receiver<bool>,
}

impl Opening<'_> {
    pub(super) async fn roles(
        &self,
        net: &Handle,
        models: &Models,
        replays: &Arc<auditing::Replays>,
    ) -> Result<Vec<JoinHandle<()>>, NodeError> {
        let mut tasks = Vec::new();
        if !models.serve.is_empty() {
            tasks.push(self.provider(net, models).await?);
        }
        if !models.audit.is_empty() {
            tasks.push(self.auditor(net, models, replays)?);
        }
        let card =
            announcing::Card::new(self.key, self.clock, self.load, self.settings, models).await?;
        for key in card.keys() {
            net.provide(key).await?;
        }
        tasks.push(tokio::spawn(announcing::answer(net.clone(), card, self.stopped.clone())));
        Ok(tasks)
    }

    async fn provider(&self, net: &Handle, models: &Models) -> Result<JoinHandle<()>, NodeError> {
        let provide = &self.settings.config.provide;
        let (mut counters, mut served) = (HashMap::new(), Vec::new());
        for held in &models.serve {
            let counter = self.counter(held, models.serve.len()).await?;
            let context_length = counter.service.model().context_length();
            served.push(Served {
                model_id: held.id,
                context_length: u32::try_from(context_length).unwrap_or(u32::MAX),
            });
            counters.insert(held.id, Arc::new(counter));
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
            counters,
            load: Arc::clone(self.load),
        };
        let limits = FrameLimits { read_timeout: serving::READ_TIMEOUT, ..FrameLimits::default() };
        let incoming = net.accept(JOB_PROTOCOL, limits)?;
        Ok(tokio::spawn(serving::run(shop, desk, incoming, self.stopped.clone())))
    }

    async fn counter(
        &self,
        held: &Arc<Held>,
        models: usize,
    ) -> Result<serving::Counter, NodeError> {
        let provide = &self.settings.config.provide;
        let model = held.open().await?;
        let threads = threads(&self.settings.config);
        let options = ServiceOptions {
            threads,
            max_active: provide.max_jobs as usize,
            max_queued: (provide.max_jobs + provide.max_queued) as usize,
            kv_bytes: (provide.kv_mib as usize) * (1 << 20) / models.max(1),
            ..ServiceOptions::default()
        };
        let failed =
            |message: String| NodeError::Model { name: held.installed.name.clone(), message };
        let service =
            Service::start(Arc::clone(&model), &options).map_err(|e| failed(e.to_string()))?;
        let replayer = Replayer::new(model, threads).map_err(|e| failed(e.to_string()))?;
        Ok(serving::Counter { service, replayer })
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
        };
        let limits = FrameLimits { read_timeout: judging::READ_TIMEOUT, ..FrameLimits::default() };
        let incoming = net.accept(AUDIT_PROTOCOL, limits)?;
        let bench = Bench::new(auditor::Config::default(), holds);
        Ok(tokio::spawn(judging::run(court, bench, incoming, self.stopped.clone())))
    }
}
