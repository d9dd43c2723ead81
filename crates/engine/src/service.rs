//! The serving loop: many answers decoded together by one thread.
//!
//! [`Service::submit`] puts a [`Job`] into a bounded queue. The loop admits jobs,
//! clients in turn, and in every turn makes one forward pass of one token for
//! each answer in the making and a share of each prompt that is still being
//! read, so neither starves the other. Caches take pages as they grow; when the
//! budget is spent, idle pages go, then the youngest job is set back and reads
//! its tokens again later. A prompt that begins like an earlier one of the same
//! client takes over the pages of that beginning. Every position
//! becomes a [`Step`], every drawn token an [`Event`] to the job's sink; a sink
//! that answers `Break` is a client that left, and its memory is freed in the
//! same turn. Since the arithmetic is exact, what stands beside a job in a batch
//! never changes its answer.
//!
//! A job may resume an answer that another provider began: those tokens are
//! read at once, each compared with what the model draws, and where they differ
//! the model's own stream is followed.
//!
//! Deliberately absent: the network, deadlines, and hashing steps into a
//! commitment.

mod pages;
mod run;
mod shares;
mod turn;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use peerproof_proof::Step;
use peerproof_wire::{Digest, Fault, Sampling, Stop};

use crate::constraint::{ConstraintError, Masks};
use crate::forward::{ForwardError, Runner};
use crate::kernels::KernelPath;
use crate::kv::PAGE;
use crate::model::{Model, PromptError};

use turn::Loop;

/// The limits of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceOptions {
    /// Threads of the forward pass.
    pub threads: usize,
    /// Kernels of the forward pass.
    pub path: KernelPath,
    /// Answers made at once; up to as many again where a client would otherwise
    /// have none.
    pub max_active: usize,
    /// Jobs that wait.
    pub max_queued: usize,
    /// Bytes that all caches may take together, kept beginnings included.
    pub kv_bytes: usize,
    /// Prompt tokens read in one turn, all jobs together. While answers are being
    /// made, a turn's tokens are half as many, those of the answers among them.
    pub prefill_tokens: usize,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            threads: thread::available_parallelism().map_or(1, usize::from),
            path: KernelPath::best(),
            max_active: 16,
            max_queued: 64,
            kv_bytes: 2 << 30,
            prefill_tokens: 128,
        }
    }
}

/// One request, in tokens.
#[derive(Clone, Debug)]
pub struct Job {
    /// Keys the digests of its steps: the offer's id.
    pub key: Digest,
    /// Seeds its draws.
    pub seed: Digest,
    /// The prompt.
    pub prompt: Vec<u32>,
    /// Answer tokens that the client already has, from another provider.
    pub resume: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The longest answer.
    pub max_tokens: u32,
    /// Texts before which the answer ends.
    pub stop: Vec<String>,
    /// Whose job it is. Clients share turns equally, and only jobs of one salt
    /// share what was computed of a prompt, so no client can tell by the clock
    /// what another has asked.
    pub salt: Digest,
}

/// What happens to a job, in order: `Started`; a `Prompt` for every prompt
/// position but the last; a `Token` for every token of the answer; `Finished`.
/// `Refused` may come instead of any of them, and nothing comes after it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The job left the queue.
    Started,
    /// A prompt position was read.
    Prompt {
        /// What the model did there.
        step: Step,
    },
    /// A token of the answer, resumed ones included.
    Token {
        /// Its place in the answer, from 0.
        index: u32,
        /// The token.
        token: u32,
        /// Text that it settled; may be empty.
        text: String,
        /// The step that drew it: the position before its own.
        step: Step,
        /// Whether the client had it already.
        resumed: bool,
    },
    /// A token to resume from isn't what the model draws. The tokens that follow
    /// are the model's, from this index on.
    Diverged {
        /// The token's place in the answer.
        index: u32,
        /// What the model draws; `None` if the answer had ended before.
        expected: Option<u32>,
        /// What was to be resumed.
        got: u32,
    },
    /// The answer is complete.
    Finished {
        /// The rule that ended it.
        stop: Stop,
        /// Its number of tokens.
        tokens: u32,
        /// Its whole text.
        text: String,
        /// Root over the keys and values of all positions that were read.
        kv_root: Digest,
    },
    /// The job was given up by the service.
    Refused(Refusal),
}

/// Why a job isn't done. Nothing of it remains.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The prompt isn't one for this model, or too long with the answer.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// An answer of no tokens.
    #[error("max_tokens: expected at least 1, got 0")]
    NoTokens,
    /// More tokens to resume from than the answer may have.
    #[error("resume: expected at most max_tokens {expected} tokens, got {got}")]
    Resume {
        /// The answer's longest length.
        expected: u32,
        /// Tokens to resume from.
        got: usize,
    },
    /// The cache would be larger than all caches together may be.
    #[error("the job may need {got} bytes of cache, all jobs together have {expected}")]
    CacheBudget {
        /// The budget.
        expected: usize,
        /// What the job needs.
        got: usize,
    },
    /// As many jobs wait as may.
    #[error("the queue is full: {limit} jobs are waiting")]
    QueueFull {
        /// The limit.
        limit: usize,
    },
    /// The constraint can't be followed, or not any further.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The service is being shut down.
    #[error("the service is shutting down")]
    Stopping,
    /// The forward pass failed.
    #[error("the engine failed: {0}")]
    Failed(#[from] ForwardError),
}

impl Refusal {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Prompt(_) | Self::NoTokens | Self::Resume { .. } | Self::Constraint(_) => {
                Fault::Theirs
            }
            _ => Fault::Ours,
        }
    }

    /// Whether the same job may be taken later.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::QueueFull { .. })
    }
}

/// Takes a job's events on the service's thread. It must not block; it answers
/// `Break` to end the job.
pub type Sink = Box<dyn FnMut(Event) -> ControlFlow<()> + Send>;

/// How busy a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Answers in the making.
    pub active: usize,
    /// Jobs that wait.
    pub queued: usize,
    /// Bytes of all pages that are alive.
    pub bytes: usize,
    /// Pages of caches there are.
    pub pages: usize,
    /// Those of them that no job uses: beginnings kept for the next one.
    pub pages_idle: usize,
    /// Pages there may be.
    pub max_pages: usize,
    /// Tokens that the last pass computed, of all jobs together.
    pub batch: usize,
    /// Forward passes made.
    pub passes: u64,
    /// Tokens that all passes computed.
    pub computed: u64,
    /// Positions that were taken over instead of computed.
    pub reused: u64,
    /// Pages given up for others.
    pub evicted: u64,
    /// Jobs that were set back to read their tokens again.
    pub preempted: u64,
}

/// A job that was submitted.
#[derive(Clone, Debug)]
pub struct Ticket {
    id: u64,
    shared: Weak<Shared>,
}

impl Ticket {
    /// Ends the job without a word: one that waits at once, one in the making
    /// before the next turn. Its sink and its memory go.
    pub fn cancel(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut queue = shared.lock();
        let waiting = queue.waiting.iter().position(|waiting| waiting.id == self.id);
        let sink = waiting.and_then(|at| queue.waiting.remove(at));
        if sink.is_none() && queue.load.active > 0 {
            queue.left.push(self.id);
        }
        // A sink may do anything when it is dropped: not with the queue locked.
        drop(queue);
        drop(sink);
    }
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Its text.
    pub text: String,
    /// The rule that ended it.
    pub stop: Stop,
    /// What the model did at each position.
    pub steps: Vec<Step>,
    /// Root over the keys and values of all positions that were read.
    pub kv_root: Digest,
}

/// A running service. Dropping it ends its jobs and its thread.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use peerproof_engine::{transformer::LoadOptions, model::Model, service::{Job, Service}};
/// use peerproof_wire::{Digest, Prompt, Sampling};
/// let model = Model::open("model.gguf", &LoadOptions::default())?;
/// let prompt = model.prompt_tokens(&Prompt::Text("Once upon a time".into()))?;
/// let service = Service::start(model, &Default::default())?;
/// let job = Job {
///     key: Digest::from_bytes([0; 32]), seed: Digest::from_bytes([0; 32]), prompt, resume: vec![],
///     sampling: Sampling::GREEDY, max_tokens: 16, stop: vec![],
///     salt: Digest::from_bytes([0; 32]),
/// };
/// println!("{}", service.generate(job)?.text);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Service {
    model: Arc<Model>,
    options: ServiceOptions,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Why a service doesn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The kernels can't be used.
    #[error(transparent)]
    Kernels(#[from] ForwardError),
    /// The system gives no thread.
    #[error("can't start the service's thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Service {
    /// Starts the loop on its own thread.
    ///
    /// # Errors
    /// The kernels can't be used, or the system gives no thread.
    pub fn start(model: Arc<Model>, options: &ServiceOptions) -> Result<Self, StartError> {
        let runner = Runner::new(Arc::clone(model.transformer()), options.threads, options.path)?;
        let shared = Arc::new(Shared::default());
        let serving = Loop::new(Arc::clone(&model), runner, *options, Arc::clone(&shared));
        let thread = thread::Builder::new().name("engine".into()).spawn(move || serving.run())?;
        Ok(Self { model, options: *options, shared, thread: Some(thread) })
    }

    /// The model served.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Its limits.
    #[must_use]
    pub fn options(&self) -> &ServiceOptions {
        &self.options
    }

    /// The bytes of a page: what caches grow by.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        crate::kv::page_bytes(self.model.transformer().shape())
    }

    /// How busy it is.
    #[must_use]
    pub fn load(&self) -> Load {
        let queue = self.shared.lock();
        Load { queued: queue.waiting.len(), ..queue.load }
    }

    /// Gives up the beginnings that are kept for later jobs, before the next turn.
    pub fn forget(&self) {
        self.shared.lock().forget = true;
        self.shared.wake.notify_one();
    }

    /// Queues a job; its events go to `sink`.
    ///
    /// # Errors
    /// The job can't be done, or not now; `sink` is dropped without an event.
    pub fn submit(&self, job: Job, sink: Sink) -> Result<Ticket, Refusal> {
        self.check(&job)?;
        self.check_room(&self.shared.lock())?;
        // Reading a schema takes a moment, in which the queue isn't held.
        let masks = self.model.masks(&job.sampling)?;
        let mut queue = self.shared.lock();
        self.check_room(&queue)?;
        let id = queue.next;
        queue.next += 1;
        queue.waiting.push_back(Waiting { id, job, sink, masks });
        drop(queue);
        self.shared.wake.notify_one();
        Ok(Ticket { id, shared: Arc::downgrade(&self.shared) })
    }

    /// Runs a job to its end and waits for it.
    ///
    /// # Errors
    /// The job is refused.
    pub fn generate(&self, job: Job) -> Result<Generated, Refusal> {
        // The events of one job: at most its positions, which the context bounds.
        let (sender, events) = mpsc::channel();
        let forward = move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        self.submit(job, Box::new(forward))?;
        collect(events.into_iter())
    }

    fn check_room(&self, queue: &Queue) -> Result<(), Refusal> {
        if queue.stopping {
            return Err(Refusal::Stopping);
        }
        if queue.waiting.len() >= self.options.max_queued {
            return Err(Refusal::QueueFull { limit: self.options.max_queued });
        }
        Ok(())
    }

    fn check(&self, job: &Job) -> Result<(), Refusal> {
        if job.max_tokens == 0 {
            return Err(Refusal::NoTokens);
        }
        self.model.check_fit(&job.prompt, job.max_tokens)?;
        if job.resume.len() > job.max_tokens as usize {
            return Err(Refusal::Resume { expected: job.max_tokens, got: job.resume.len() });
        }
        self.model.check_resume(&job.resume)?;
        self.check_capacity(job.prompt.len(), job.max_tokens)
    }

    /// Whether the cache of a job of so many tokens fits into what all caches may take.
    ///
    /// # Errors
    /// It doesn't, and never will.
    pub fn check_capacity(&self, prompt: usize, max_tokens: u32) -> Result<(), Refusal> {
        let got = positions(prompt, max_tokens).div_ceil(PAGE) * self.page_bytes();
        let expected = self.options.kv_bytes;
        if got > expected {
            return Err(Refusal::CacheBudget { expected, got });
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.wake.notify_one();
        // A sink may hold the last handle: the loop can't wait for itself, and needn't.
        let here = thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != here) {
            // A panic has already ended the jobs; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn collect(events: impl Iterator<Item = Event>) -> Result<Generated, Refusal> {
    let (mut tokens, mut steps) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Started | Event::Diverged { .. } => {}
            Event::Prompt { step } => steps.push(step),
            Event::Token { token, step, .. } => {
                tokens.push(token);
                steps.push(step);
            }
            Event::Finished { stop, text, kv_root, .. } => {
                return Ok(Generated { tokens, text, stop, steps, kv_root });
            }
            Event::Refused(refusal) => return Err(refusal),
        }
    }
    Err(Refusal::Stopping)
}

/// Positions a job's cache has room for; the last token is drawn, never read.
fn positions(prompt: usize, max_tokens: u32) -> usize {
    prompt.saturating_add(max_tokens as usize).saturating_sub(1)
}

/// What submitting threads and the loop share.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// The loop's state after its last turn.
    load: Load,
    /// The next job's number.
    next: u64,
    /// Jobs whose clients left since.
    left: Vec<u64>,
    /// Whether idle pages are to go.
    forget: bool,
    stopping: bool,
}

struct Waiting {
    id: u64,
    job: Job,
    sink: Sink,
    /// Of the offer's constraint, if it has one.
    masks: Option<Masks>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.job.fmt(f)
    }
}

impl Shared {
    /// The queue holds no half-made state, so a panic elsewhere doesn't spoil it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more jobs, and refuses those that wait.
    fn close(&self) {
        let mut queue = self.lock();
        queue.stopping = true;
        queue.load = Load::default();
        let left = std::mem::take(&mut queue.waiting);
        drop(queue);
        for mut waiting in left {
            // Nothing is left to stop, so what the sink answers doesn't matter.
            let _ = (waiting.sink)(Event::Refused(Refusal::Stopping));
        }
    }
}
