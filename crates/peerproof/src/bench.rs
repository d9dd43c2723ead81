//! What this machine makes of a model: speed, the price of checking, quality.
//!
//! Everything here runs the code that serves and audits, on a model file, and
//! hands back durations as the clock gave them; a caller repeats, orders and
//! summarises. [`Subject`] is a model under test, [`InProcess`] asks its engine
//! without a network in between, [`Crowd`] asks it many things at once, and
//! [`quality()`] compares the integers with the float reference over a text such
//! as [`novel`]. Deliberately absent: statistics, goals and printing.

mod base;
mod cheating;
mod crowd;
mod disputing;
mod lighting;
mod proving;
mod quality;
mod text;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use peerproof_engine::execute::Replayer;
use peerproof_engine::forward::{Hashing, Item, Output, Runner};
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::model::Model;
use peerproof_engine::sample::greedy;
use peerproof_engine::service::{Event, Generated, Job, Service, ServiceOptions};
use peerproof_engine::tokenizer::Special;
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::Keypair;
use peerproof_job::provider::kept_bytes;
use peerproof_proof::receipt::{self, Place};
use peerproof_proof::transcript::COMMIT_EVERY;
use peerproof_proof::{Transcript, audit, logits_digest, sampling_seed, state_digest};
use peerproof_wire::{
    Case, Digest, Drawn, Leaf, Level, Message as _, Offer, Outcome, Prompt, Receipt, Sampling,
    Signed,
};

use crate::home::{random_seed, session_key};

pub use cheating::{Cheated, KINDS, Trying, cheats};
pub use crowd::{Crowd, Served};
pub use disputing::Disputed;
pub use lighting::{Lighted, LitCell};
pub use peerproof_engine::bench::{Batch, Speed};
pub use peerproof_engine::reference::Quality;
pub use proving::{Convicted, Proving, Spotted};
pub use quality::{Compared, Scope, quality};
pub use text::novel;

/// Receipts that a provider is taken to have signed before the one that is measured, so that
/// it is of an ordinary size.
const EARLIER_RECEIPTS: u64 = 100_000;
/// Any time will do, as long as it has as many digits as one today.
const ISSUED_UNIX_MS: u64 = 1_800_000_000_000;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The model file.
    #[error("{path}: {message}")]
    Model {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// These kernels can't run.
    #[error(
        "the {name} kernels can't run in this process: the processor lacks them, or others were chosen"
    )]
    Kernels {
        /// Their name.
        name: String,
    },
    /// There is no text to measure on.
    #[error("{message}")]
    Text {
        /// Why, and what to do.
        message: String,
    },
    /// The text is too short.
    #[error("the text has {got} tokens, {expected} are needed")]
    Short {
        /// Tokens needed.
        expected: usize,
        /// Tokens of the text.
        got: usize,
    },
    /// Every answer ended before it was long enough to measure.
    #[error("no answer reached {expected} tokens; the longest had {got}")]
    EndsEarly {
        /// Tokens wanted.
        expected: usize,
        /// Tokens of the longest answer.
        got: usize,
    },
    /// An audit found this machine's own answer wrong: a defect, and no figure is worth anything.
    #[error("the audit of an answer made here failed")]
    AuditFailed,
    /// The engine refused.
    #[error("{what}: {message}")]
    Engine {
        /// What was under way.
        what: &'static str,
        /// What it said.
        message: String,
    },
}

fn engine<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> BenchError {
    move |error| BenchError::Engine { what, message: error.to_string() }
}

/// The name of the kernels that this processor runs.
#[must_use]
pub fn kernels() -> &'static str {
    KernelPath::best().name()
}

/// Has everything that follows in this process run the kernels of that name.
///
/// # Errors
/// This processor lacks them, there are none of that name, or others have been chosen.
pub fn choose_kernels(name: &str) -> Result<(), BenchError> {
    let path = KernelPath::available().into_iter().find(|path| path.name() == name);
    match path {
        Some(path) if path.choose() => Ok(()),
        _ => Err(BenchError::Kernels { name: name.to_owned() }),
    }
}

/// A model under test.
#[derive(Debug)]
pub struct Subject {
    model: Arc<Model>,
}

/// What committing to every step costs, token by token.
#[derive(Clone, Debug, Default)]
pub struct Committing {
    /// Tokens without any digest.
    pub bare: Vec<Duration>,
    /// Tokens with all that a provider hashes: rows between layers, keys and values, state,
    /// logits, leaf and running commitment; tokens of both kinds alternate in one answer.
    pub committed: Vec<Duration>,
    /// The part of each of `committed` that went into hashing. Keys and values are hashed a
    /// page at a time, and each token has its share of the pages.
    pub hashing: Vec<Duration>,
}

/// One answer, made and audited.
#[derive(Clone, Copy, Debug)]
pub struct Audited {
    /// Making it, prompt and transcript included.
    pub generation: Duration,
    /// Auditing it in full.
    pub audit: Duration,
    /// Bytes of the receipt without key and signature.
    pub receipt_bytes: usize,
    /// Bytes of the receipt as it travels.
    pub signed_bytes: usize,
    /// Bytes that its provider keeps of it, a token of prompt and answer.
    pub kept_bytes: f64,
}

impl Subject {
    /// Opens a model file.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn open(path: &Path) -> Result<Subject, BenchError> {
        let model = Model::open(path, &LoadOptions::default());
        let failed = |message: String| BenchError::Model { path: path.to_owned(), message };
        Ok(Subject { model: model.map_err(|e| failed(e.to_string()))? })
    }

    /// Computes a prompt, then decodes one token after the other.
    ///
    /// # Errors
    /// The tokens don't fit the model.
    pub fn speed(&self, threads: usize, prompt: usize, decode: usize) -> Result<Speed, BenchError> {
        let path = KernelPath::best();
        peerproof_engine::bench::speed(self.model.transformer(), threads, path, prompt, decode)
            .map_err(engine("speed"))
    }

    /// Computes `sequences` prompts and then an answer of each, a token of all at a time.
    ///
    /// # Errors
    /// The tokens don't fit the model.
    pub fn batch(
        &self,
        threads: usize,
        sequences: usize,
        prompt: usize,
        answer: usize,
    ) -> Result<Batch, BenchError> {
        let (model, path) = (self.model.transformer(), KernelPath::best());
        peerproof_engine::bench::batch(model, (threads, path), sequences, (prompt, answer))
            .map_err(engine("batch"))
    }

    /// Decodes twice `pairs` tokens after a prompt of `prompt` tokens, every second one with
    /// all that a provider hashes.
    ///
    /// # Errors
    /// The tokens don't fit the model.
    pub fn committing(
        &self,
        threads: usize,
        prompt: usize,
        pairs: usize,
    ) -> Result<Committing, BenchError> {
        let llama = self.model.transformer();
        let mut runner = Runner::new(Arc::clone(llama), threads, KernelPath::best())
            .map_err(engine("kernels"))?;
        let mut kv = Kv::new(llama, prompt + 2 * pairs);
        let token = |at: usize| (at * 7919 % llama.vocabulary()) as u32;
        let item = |at| Item { sequence: 0, token: token(at), logits: false };
        let items: Vec<Item> = (0..prompt).map(item).collect();
        runner.forward(&mut [&mut kv], &items, &mut |_, _| ()).map_err(engine("prompt"))?;
        let mut measured = Committing::default();
        let first = runner.hashing();
        let mut before = first;
        let mut committer = Committer::new();
        let mut next = token(prompt);
        for at in 0..2 * pairs {
            let (item, mut spent) = (Item { sequence: 0, token: next, logits: true }, None);
            let start = Instant::now();
            let mut sink = |_, output: Output<'_>| {
                next = output.logits.map_or(0, greedy);
                if at % 2 == 1 {
                    let start = Instant::now();
                    committer.commit(item.token, next, &output);
                    spent = Some(start.elapsed());
                }
            };
            runner.forward(&mut [&mut kv], &[item], &mut sink).map_err(engine("decode"))?;
            let whole = start.elapsed();
            let Hashing { rows, pages } = runner.hashing();
            let (rows, pages) = (rows - before.rows, pages - before.pages);
            before = runner.hashing();
            match spent {
                // Below the leaves, a pass hashes whoever asks for it.
                None => measured.bare.push(whole.saturating_sub(rows + pages)),
                Some(spent) => {
                    measured.committed.push(whole.saturating_sub(pages));
                    measured.hashing.push(spent + rows);
                }
            }
        }
        let tokens = u32::try_from(2 * pairs).unwrap_or(u32::MAX);
        let share = (before.pages - first.pages) / tokens.max(1);
        measured.committed.iter_mut().for_each(|token| *token += share);
        measured.hashing.iter_mut().for_each(|token| *token += share);
        Ok(measured)
    }

    /// Finds `prompt` tokens of `text` that the model continues by `answer` tokens without
    /// ending, then makes and audits that answer `runs` times.
    ///
    /// # Errors
    /// The text is too short, every answer ends early, or an audit fails.
    pub fn audited(
        &self,
        threads: usize,
        text: &str,
        (prompt, answer): (usize, u32),
        runs: usize,
    ) -> Result<Vec<Audited>, BenchError> {
        let options = ServiceOptions { threads, ..ServiceOptions::default() };
        let service =
            Service::start(Arc::clone(&self.model), &options).map_err(engine("service"))?;
        let replayer =
            Replayer::new(Arc::clone(&self.model), threads).map_err(engine("replayer"))?;
        let offer = self.long_answer(&service, text, (prompt, answer))?;
        (0..runs).map(|_| self.audit_once(&service, &replayer, &offer)).collect()
    }

    /// An offer whose prompt is `prompt` tokens of `text` that the model continues by `answer`
    /// tokens without ending.
    fn long_answer(
        &self,
        service: &Service,
        text: &str,
        (prompt, answer): (usize, u32),
    ) -> Result<Signed<Offer>, BenchError> {
        let tokens = self.encode(text)?;
        if tokens.len() < prompt {
            return Err(BenchError::Short { expected: prompt, got: tokens.len() });
        }
        let mut longest = 0;
        for prompt in tokens.chunks_exact(prompt) {
            let offer = self.offer(Prompt::Tokens(prompt.to_vec()), answer)?;
            let got = generate(service, &self.model, &offer)?.0.tokens.len();
            longest = longest.max(got);
            if got == answer as usize {
                return Ok(offer);
            }
        }
        Err(BenchError::EndsEarly { expected: answer as usize, got: longest })
    }

    fn audit_once(
        &self,
        service: &Service,
        replayer: &Replayer,
        offer: &Signed<Offer>,
    ) -> Result<Audited, BenchError> {
        let start = Instant::now();
        let (made, tree) = generate(service, &self.model, offer)?;
        let generation = start.elapsed();
        let receipt = receipt_of(offer, &made, &tree)?;
        let positions = (receipt.prompt_tokens + receipt.output_tokens) as f64;
        let kept_bytes = kept_bytes(offer, &receipt, made.tokens.len()) as f64 / positions;
        let envelope = receipt.envelope();
        let signed_bytes = envelope.encode().map_err(engine("receipt"))?.len();
        let receipt_bytes = envelope.payload.len();
        let case = Case { offer: offer.clone(), receipt, tokens: made.tokens };
        let start = Instant::now();
        let findings =
            audit(replayer, &case, None, &session_key().public()).map_err(engine("audit"))?;
        let audit = start.elapsed();
        if findings.outcome != Outcome::Pass {
            return Err(BenchError::AuditFailed);
        }
        Ok(Audited { generation, audit, receipt_bytes, signed_bytes, kept_bytes })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, BenchError> {
        self.model.tokenizer().encode(text, Special::Plain).map_err(engine("text"))
    }

    fn offer(&self, prompt: Prompt, max_tokens: u32) -> Result<Signed<Offer>, BenchError> {
        let key: Keypair = session_key();
        let offer = Offer {
            model_id: self.model.id(),
            prompt,
            sampling: Sampling::GREEDY,
            max_tokens,
            stop: Vec::new(),
            level: Level::Full,
            public_nonce: random_seed(),
            client_nonce_hash: Digest::from_bytes(random_seed()),
            deadline_ms: 60_000,
            pooling: None,
            class: peerproof_wire::Class::Exact,
        };
        Signed::sign(&key, offer).map_err(engine("offer"))
    }
}

/// The receipt of an answer that was just made, signed by a key of its own.
fn receipt_of(
    offer: &Signed<Offer>,
    made: &Generated,
    tree: &peerproof_proof::Tree,
) -> Result<Signed<Receipt>, BenchError> {
    let answer = receipt::Answer { tokens: &made.tokens, text: &made.text, logprobs: &[] };
    let place = Place::after(EARLIER_RECEIPTS, offer.id());
    let built =
        receipt::build(offer, answer, made.stop, (tree, made.kv_root), place, ISSUED_UNIX_MS)
            .map_err(engine("receipt"))?;
    Signed::sign(&session_key(), built).map_err(engine("receipt"))
}

/// What a provider's transcript takes at every token.
struct Committer {
    key: Digest,
    transcript: Transcript,
}

impl Committer {
    fn new() -> Committer {
        Committer { key: Digest::from_bytes(random_seed()), transcript: Transcript::new() }
    }

    fn commit(&mut self, token: u32, next: u32, output: &Output<'_>) {
        let logits = logits_digest(&self.key, output.logits.unwrap_or_default());
        let leaf = Leaf {
            position: self.transcript.leaves(),
            token,
            state: state_digest(&self.key, output.state),
            layers: output.layers,
            drawn: Some(Drawn { logits, draw: 0, next }),
        };
        // A transcript takes leaves in order, and far more than a context has positions.
        let _ = self.transcript.push(&leaf);
        if self.transcript.leaves().is_multiple_of(COMMIT_EVERY) {
            std::hint::black_box(self.transcript.commitment());
        }
    }
}

/// One answer as a provider makes it: tokens, and the transcript's tree.
fn generate(
    service: &Service,
    model: &Model,
    offer: &Signed<Offer>,
) -> Result<(Generated, peerproof_proof::Tree), BenchError> {
    let prompt = model.prompt_tokens(&offer.prompt).map_err(engine("prompt"))?;
    let job = Job {
        key: offer.id(),
        seed: sampling_seed(offer),
        prompt,
        resume: Vec::new(),
        sampling: offer.sampling.clone(),
        max_tokens: offer.max_tokens,
        stop: Vec::new(),
        // Nothing made before is to be taken over.
        salt: Digest::from_bytes(random_seed()),
    };
    let made = service.generate(job).map_err(engine("answer"))?;
    let mut transcript = Transcript::new();
    for step in made.steps.iter().cloned() {
        transcript.push(&step.into()).map_err(engine("transcript"))?;
    }
    let tokens = u32::try_from(made.tokens.len()).unwrap_or(u32::MAX);
    let tree = transcript
        .close(made.stop, tokens, &made.text, &made.kv_root)
        .map_err(engine("transcript"))?;
    Ok((made, tree))
}

/// When the tokens of an answer came.
#[derive(Clone, Debug)]
pub struct Timed {
    /// From asking to the first token.
    pub first_token: Duration,
    /// From the first token to the last.
    pub rest: Duration,
    /// The tokens.
    pub tokens: Vec<u32>,
}

impl Timed {
    /// Time a token after the first.
    #[must_use]
    pub fn per_token(&self) -> Duration {
        let more = u32::try_from(self.tokens.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.rest / more.max(1)
    }
}

/// The engine's service, asked by a function call.
#[derive(Debug)]
pub struct InProcess {
    model: Arc<Model>,
    service: Service,
}

impl InProcess {
    /// Opens the model and starts its service.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn open(path: &Path, threads: usize) -> Result<InProcess, BenchError> {
        let Subject { model } = Subject::open(path)?;
        let options = ServiceOptions { threads, ..ServiceOptions::default() };
        let service = Service::start(Arc::clone(&model), &options).map_err(engine("service"))?;
        Ok(InProcess { model, service })
    }

    /// Asks for the greedy continuation of a text.
    ///
    /// # Errors
    /// The service refuses.
    pub fn ask(&self, text: &str, max_tokens: u32) -> Result<Timed, BenchError> {
        let start = Instant::now();
        let prompt =
            self.model.prompt_tokens(&Prompt::Text(text.to_owned())).map_err(engine("prompt"))?;
        let job = Job {
            key: Digest::from_bytes([1; 32]),
            seed: Digest::from_bytes([2; 32]),
            prompt,
            resume: Vec::new(),
            sampling: Sampling::GREEDY,
            max_tokens,
            stop: Vec::new(),
            // Nothing made before is to be taken over.
            salt: Digest::from_bytes(random_seed()),
        };
        let (sender, events) = mpsc::channel();
        let sink = move |event| match sender.send(event) {
            Ok(()) => std::ops::ControlFlow::Continue(()),
            Err(_) => std::ops::ControlFlow::Break(()),
        };
        self.service.submit(job, Box::new(sink)).map_err(engine("answer"))?;
        let mut timed =
            Timed { first_token: Duration::ZERO, rest: Duration::ZERO, tokens: Vec::new() };
        for event in events {
            match event {
                Event::Token { token, .. } => {
                    let at = start.elapsed();
                    if timed.tokens.is_empty() {
                        timed.first_token = at;
                    }
                    timed.rest = at - timed.first_token;
                    timed.tokens.push(token);
                }
                Event::Refused(refusal) => return Err(engine("answer")(refusal)),
                _ => {}
            }
        }
        Ok(timed)
    }
}
