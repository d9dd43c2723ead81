//! The model files this node holds, opened when they are first needed, within a memory budget.
//!
//! Whoever runs a model takes a [`Lease`]. A model that is not open is opened by
//! the first to ask, others wait for it; if the budget does not hold it beside
//! what is open, the idle model that was used longest ago is let go first. What
//! is leased is never let go: then the asker waits until something is. While it
//! waits, new leases queue behind it, so that a busy model cannot keep another
//! one out for ever. Whoever holds a lease takes no second one.
//! Deliberately absent: deadlines, which are the askers'.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerproof_engine::constraint::table_bytes;
use peerproof_engine::execute::Replayer;
use peerproof_engine::gguf::Gguf;
use peerproof_engine::model::Model;
use peerproof_engine::service::{Service, ServiceOptions};
use peerproof_engine::transformer::{Footprint, LoadOptions, Transformer};
use peerproof_wire::{Class, ModelId, ModelOffer};
use tokio::sync::{Mutex as Turns, Notify};

use super::NodeError;
use super::costs::Costs;
use crate::client::{EngineFigures, HeldModel};
use crate::models::Installed;

/// Memory of a tokenizer and of everything else that no figure names, roughly.
const OTHER_BYTES: u64 = 8 << 20;
/// Scratch memory of a model whose file's header can't be read, roughly.
const UNKNOWN_SCRATCH_BYTES: u64 = 24 << 20;
/// Least cache of a model that is served.
const MIN_CACHE_BYTES: u64 = 16 << 20;

/// One model file.
pub(crate) struct Held {
    pub(crate) installed: Installed,
    pub(crate) id: ModelId,
    options: LoadOptions,
    serves: bool,
    /// Absent where the file's header can't be read: opening it will say why.
    footprint: Option<Footprint>,
    /// What constrained answers need of the vocabulary.
    constraint_bytes: u64,
    /// What work with it has cost so far.
    pub(crate) costs: Costs,
}

/// What a model's caches may take.
#[derive(Clone, Copy, Debug)]
struct Caches {
    /// Of the answers that are made.
    serving: u64,
    /// Of what is recomputed and of embeddings, one at a time.
    replays: u64,
}

impl Held {
    fn new(installed: Installed, options: LoadOptions, serves: bool) -> Result<Held, NodeError> {
        let id = installed.id.parse().map_err(|_| NodeError::Model {
            name: installed.name.clone(),
            message: format!(
                "the recorded id {} is not one; run: peerproof models verify {}",
                installed.id, installed.name
            ),
        })?;
        let header = Gguf::open(&installed.path).ok();
        let constraint_bytes = header.as_ref().map_or(0, table_bytes);
        let footprint = header.and_then(|file| Transformer::estimate(&file).ok());
        let costs = Costs::default();
        Ok(Held { installed, id, options, serves, footprint, constraint_bytes, costs })
    }

    fn failed(&self, message: impl ToString) -> NodeError {
        NodeError::Model { name: self.installed.name.clone(), message: message.to_string() }
    }

    /// What packed weights take; without a header to tell, about as much as the file.
    fn weight_bytes(&self) -> u64 {
        let guess = self.installed.bytes + self.installed.bytes / 8;
        self.footprint.map_or(guess, |footprint| footprint.weights)
    }

    /// What the passes of the service and of the replayer work in.
    fn scratch_bytes(&self) -> u64 {
        let Some(Footprint { scratch, logits, .. }) = self.footprint else {
            return UNKNOWN_SCRATCH_BYTES;
        };
        let passes = 1 + u64::from(self.serves);
        OTHER_BYTES + passes * (scratch + logits)
    }

    /// What is announced of it: read from the file's header, its weights stay on disk.
    pub(crate) fn offer(&self) -> Result<ModelOffer, NodeError> {
        let file = Gguf::open(&self.installed.path).map_err(|e| self.failed(e))?;
        let facts = Model::facts(&file).map_err(|e| self.failed(e))?;
        Ok(ModelOffer {
            model_id: self.id,
            name: self.installed.name.clone(),
            architecture: facts.architecture,
            quantisation: facts.quantisation,
            context_length: facts.context_length,
            file_bytes: self.installed.bytes,
            class: Class::Exact,
            declared_tps: 0,
            price: None,
        })
    }

    fn open(&self, terms: &Terms, caches: Caches) -> Result<Loaded, NodeError> {
        let model = Model::open(&self.installed.path, &self.options).map_err(|e| self.failed(e))?;
        if model.id() != self.id {
            return Err(self.failed(format!(
                "the file has changed since it was pulled: expected id {}, got {}; run: peerproof models pull {}",
                self.id,
                model.id(),
                self.installed.name
            )));
        }
        let room = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let options = ServiceOptions { kv_bytes: room(caches.serving), ..terms.service };
        let start = || Service::start(Arc::clone(&model), &options).map_err(|e| self.failed(e));
        let service = if self.serves { Some(start()?) } else { None };
        if self.serves
            && let Err(error) = model.prepare_constraints()
        {
            // The first constrained answer makes what it needs itself.
            tracing::warn!(%error, "no thread to prepare constraints on");
        }
        let replayer = Replayer::new(model, options.threads).map_err(|e| self.failed(e))?;
        let replayer = replayer.limited_to(room(caches.replays));
        Ok(Loaded { service, replayer, bytes: 0, users: AtomicUsize::new(0) })
    }
}

/// Under what terms models are opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Bytes that all open models may take together.
    pub(crate) budget: u64,
    /// Cache of all served models together, and at most that for all replays.
    pub(crate) cache_bytes: u64,
    /// Options of their services; the cache is shared out among them.
    pub(crate) service: ServiceOptions,
}

/// A model in memory, with what runs it.
pub(crate) struct Loaded {
    /// Makes answers; only of models that are served.
    pub(crate) service: Option<Service>,
    /// Recomputes answers.
    pub(crate) replayer: Replayer,
    bytes: u64,
    users: AtomicUsize,
}

impl Loaded {
    /// What its service does, if it has one.
    fn figures(&self) -> Option<EngineFigures> {
        let service = self.service.as_ref()?;
        let load = service.load();
        Some(EngineFigures {
            jobs_active: load.active as u64,
            jobs_waiting: load.queued as u64,
            batch_tokens: load.batch as u64,
            passes: load.passes,
            computed_tokens: load.computed,
            reused_tokens: load.reused,
            page_bytes: service.page_bytes() as u64,
            pages: load.max_pages as u64,
            pages_used: (load.pages - load.pages_idle) as u64,
            pages_kept: load.pages_idle as u64,
            pages_evicted: load.evicted,
            jobs_set_back: load.preempted,
        })
    }

    pub(crate) fn model(&self) -> &Arc<Model> {
        self.replayer.model()
    }
}

/// Keeps a model in memory.
pub(crate) struct Lease {
    loaded: Arc<Loaded>,
    freed: Arc<Notify>,
}

impl Deref for Lease {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        &self.loaded
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.loaded.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.freed.notify_one();
        }
    }
}

/// Every model file of this node, and those that are open.
pub(crate) struct Holdings {
    models: Vec<Arc<Held>>,
    terms: Terms,
    shelf: Mutex<Shelf>,
    /// Held by who opens a model.
    turn: Turns<()>,
    freed: Arc<Notify>,
}

#[derive(Default)]
struct Shelf {
    /// With the number of the lease that was taken last.
    open: HashMap<ModelId, (Arc<Loaded>, u64)>,
    leases: u64,
    /// Whether somebody waits for room.
    wanted: bool,
    evictions: u64,
}

impl Shelf {
    fn bytes(&self) -> u64 {
        self.open.values().map(|(loaded, _)| loaded.bytes).sum()
    }

    /// Takes the idle model that was used longest ago off the shelf.
    fn take_idle(&mut self) -> Option<(ModelId, Arc<Loaded>)> {
        let idle =
            self.open.iter().filter(|(_, (loaded, _))| loaded.users.load(Ordering::Acquire) == 0);
        let id = idle.min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id)?;
        self.open.remove(&id).map(|(loaded, _)| (id, loaded))
    }
}

impl Holdings {
    pub(crate) fn new(terms: Terms) -> Holdings {
        Holdings {
            models: Vec::new(),
            terms,
            shelf: Mutex::default(),
            turn: Turns::default(),
            freed: Arc::default(),
        }
    }

    /// Adds files, each once; the first to add one says how it is opened.
    pub(crate) fn add(
        &mut self,
        models: &[Installed],
        options: &LoadOptions,
        serves: bool,
    ) -> Result<Vec<Arc<Held>>, NodeError> {
        let mut added = Vec::new();
        for model in models {
            let known = self.models.iter().find(|held| held.installed.id == model.id).cloned();
            let held = match known {
                Some(held) => held,
                None => {
                    let held = Arc::new(Held::new(model.clone(), *options, serves)?);
                    self.models.push(Arc::clone(&held));
                    held
                }
            };
            added.push(held);
        }
        Ok(added)
    }

    pub(crate) fn by_id(&self, id: ModelId) -> Option<&Arc<Held>> {
        self.models.iter().find(|held| held.id == id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Held>> {
        self.models.iter().find(|held| held.installed.name == name)
    }

    /// Whether the budget holds a model, alone.
    pub(crate) fn check_fit(&self, held: &Held) -> Result<(), NodeError> {
        let (budget, weights, caches) = (self.terms.budget, held.weight_bytes(), self.caches(held));
        let needed = self.need(held);
        if needed <= budget {
            return Ok(());
        }
        Err(held.failed(format!(
            "needs {} of memory (weights {}, cache {}, cache of replays {}, constraints {}, scratch {}), and provide.memory allows {}",
            mib(needed),
            mib(weights),
            mib(caches.serving),
            mib(caches.replays),
            mib(held.constraint_bytes),
            mib(held.scratch_bytes()),
            mib(budget)
        )))
    }

    /// Opens models in this order while they fit beside each other.
    pub(crate) async fn open_while_they_fit(&self, models: &[Arc<Held>]) -> Result<(), NodeError> {
        for held in models {
            let room = self.terms.budget.saturating_sub(self.lock().bytes());
            if self.need(held) <= room {
                self.lease(held.id).await?;
            }
        }
        Ok(())
    }

    /// A model, opened if it is not; waits for room if all of it is in use.
    ///
    /// # Errors
    /// The model cannot be opened, or is larger than the budget.
    pub(crate) async fn lease(&self, id: ModelId) -> Result<Lease, NodeError> {
        if !self.lock().wanted
            && let Some(lease) = self.at_hand(id)
        {
            return Ok(lease);
        }
        let _turn = self.turn.lock().await;
        self.lock().wanted = false;
        if let Some(lease) = self.at_hand(id) {
            return Ok(lease);
        }
        let held = self.by_id(id).cloned().ok_or_else(|| NodeError::Model {
            name: id.to_string(),
            message: "is not held here".into(),
        })?;
        self.check_fit(&held)?;
        let (need, caches) = (self.need(&held), self.caches(&held));
        self.make_room(need).await;
        let name = held.installed.name.clone();
        let (weights, scratch) = (mib(held.weight_bytes()), mib(held.scratch_bytes()));
        let (cache, replays) = (mib(caches.serving), mib(caches.replays));
        let constraints = mib(held.constraint_bytes);
        tracing::info!(
            model = name,
            weights,
            cache,
            replays,
            constraints,
            scratch,
            "opening a model"
        );
        let (terms, opened) = (self.terms, Arc::clone(&held));
        let opening = tokio::task::spawn_blocking(move || opened.open(&terms, caches));
        let mut loaded = opening.await.map_err(|e| held.failed(e))??;
        let packed = loaded.model().transformer().weight_bytes() as u64;
        loaded.bytes = need - held.weight_bytes() + packed;
        tracing::info!(model = name, bytes = loaded.bytes, "a model is open");
        self.lock().open.insert(id, (Arc::new(loaded), 0));
        self.at_hand(id).ok_or_else(|| held.failed("went away while it was opened"))
    }

    fn at_hand(&self, id: ModelId) -> Option<Lease> {
        let mut shelf = self.lock();
        shelf.leases += 1;
        let now = shelf.leases;
        let (loaded, used) = shelf.open.get_mut(&id)?;
        *used = now;
        loaded.users.fetch_add(1, Ordering::AcqRel);
        Some(Lease { loaded: Arc::clone(loaded), freed: Arc::clone(&self.freed) })
    }

    async fn make_room(&self, need: u64) {
        loop {
            let idle = {
                let mut shelf = self.lock();
                if shelf.bytes() + need <= self.terms.budget {
                    shelf.wanted = false;
                    return;
                }
                let idle = shelf.take_idle();
                shelf.wanted = idle.is_none();
                shelf.evictions += u64::from(idle.is_some());
                idle
            };
            match idle {
                Some((id, loaded)) => {
                    tracing::info!(model = %id, bytes = loaded.bytes, "a model is let go");
                    // Its service ends its thread, and its memory is back, before another is opened.
                    let _ = tokio::task::spawn_blocking(move || drop(loaded)).await;
                }
                None => self.freed.notified().await,
            }
        }
    }

    /// What the status says of each model.
    pub(crate) fn states(&self) -> Vec<HeldModel> {
        let shelf = self.lock();
        let state = |held: &Arc<Held>| HeldModel {
            name: held.installed.name.clone(),
            id: held.installed.id.clone(),
            serves: held.serves,
            needs_bytes: self.need(held),
            weights_bytes: held.weight_bytes(),
            cache_bytes: self.caches(held).serving,
            replay_cache_bytes: self.caches(held).replays,
            constraint_bytes: held.constraint_bytes,
            scratch_bytes: held.scratch_bytes(),
            loaded_bytes: shelf.open.get(&held.id).map(|(loaded, _)| loaded.bytes),
            engine: shelf.open.get(&held.id).and_then(|(loaded, _)| loaded.figures()),
        };
        self.models.iter().map(state).collect()
    }

    /// As [`Holdings::states`], without models whose files can't be read: of those there are
    /// guesses only.
    pub(crate) fn measured(&self) -> Vec<HeldModel> {
        let mut states = self.states();
        states.retain(|state| {
            self.models.iter().any(|held| held.installed.id == state.id && held.footprint.is_some())
        });
        states
    }

    pub(crate) fn budget(&self) -> u64 {
        self.terms.budget
    }

    /// Models let go since the start.
    pub(crate) fn evictions(&self) -> u64 {
        self.lock().evictions
    }

    fn need(&self, held: &Held) -> u64 {
        let Caches { serving, replays } = self.caches(held);
        let fixed = held.weight_bytes() + held.constraint_bytes + held.scratch_bytes();
        fixed + serving + replays
    }

    /// Each served model has an equal share of the cache, and at most a quarter of the budget;
    /// replays of each model as much again, and at most an eighth, but no more than its longest
    /// context takes.
    fn caches(&self, held: &Held) -> Caches {
        let share = |of: usize, part: u64| {
            let equal = self.terms.cache_bytes / of.max(1) as u64;
            equal.min(self.terms.budget / part).max(MIN_CACHE_BYTES)
        };
        let served = self.models.iter().filter(|held| held.serves).count();
        let whole = held.footprint.map_or(u64::MAX, |footprint| footprint.kv_whole);
        Caches {
            serving: if held.serves { share(served, 4) } else { 0 },
            replays: share(self.models.len(), 8).min(whole),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
