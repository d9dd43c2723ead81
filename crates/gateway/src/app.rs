//! What all handlers share: the node, the limits, the counters.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, watch};

use crate::backend::Backend;
use crate::config::GatewayConfig;
use crate::metrics::Metrics;

/// One per gateway, behind an `Arc`.
pub(crate) struct App {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: Metrics,
    /// One permit for each answer under way.
    pub(crate) slots: Arc<Semaphore>,
    /// Turns true when answers must end at once.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Unix seconds; what `/v1/models` gives as `created`.
    pub(crate) started: u64,
    ids: Ids,
}

impl App {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        config: GatewayConfig,
        stopping: watch::Receiver<bool>,
    ) -> App {
        App {
            backend,
            slots: Arc::new(Semaphore::new(config.max_in_flight)),
            config,
            metrics: Metrics::default(),
            stopping,
            started: unix_seconds(),
            ids: Ids::new(),
        }
    }

    /// An id that no other request of this or another run has.
    pub(crate) fn request_id(&self) -> RequestId {
        RequestId(self.ids.draw())
    }

    /// Answers under way.
    pub(crate) fn running(&self) -> usize {
        self.config.max_in_flight - self.slots.available_permits()
    }
}

/// Names one HTTP request, in its header, its log lines and its answer's `id`.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Unique, not secret: a number drawn at start, and a counter.
struct Ids {
    run: u64,
    next: AtomicU64,
}

impl Ids {
    fn new() -> Ids {
        Ids { run: RandomState::new().build_hasher().finish(), next: AtomicU64::new(1) }
    }

    fn draw(&self) -> String {
        format!("{:016x}{:08x}", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
