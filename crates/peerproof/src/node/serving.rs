//! The provider's side: streams, engine and log around one [`Desk`].
//!
//! One task owns the desk. Each stream has a task that reads it and a task that
//! writes it; the engine reports from its own thread; everything becomes an
//! [`In`] of one bounded inbox, and every [`Out`] becomes work for one of them.
//! The engine's sink hashes leaves into the job's transcript right where they
//! come into being, so what travels between the tasks is tokens and roots.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use peerproof_engine::execute::ReplayError;
use peerproof_engine::model::{Model, PromptError};
use peerproof_engine::service::{self, Event, Refusal, Ticket};
use peerproof_identity::{Keypair, PeerId, PublicKey};
use peerproof_job::limits::COMMIT_EVERY;
use peerproof_job::provider::{Desk, Draft, Ended, In, LeavesQuestion, Out, Step, StreamId};
use peerproof_net::{FrameError, FrameReader, FrameWriter, Incoming};
use peerproof_proof::receipt::{output_hash, shown_hash};
use peerproof_proof::{Execute as _, Transcript, challenge, embedding, sampling_seed};
use peerproof_wire::evidence::{LogBody, LogEntry};
use peerproof_wire::{
    Digest, Failure, FailureCode, Leaf, LogProof, Message as _, ModelId, Offer, ProviderFrame,
    RouterFrame, Sampling, Signed, Stop, TokenLogprobs,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::clock::Clock;
use super::holdings::{Holdings, Lease};
use super::ledger::Change;
use super::sleep_until;
use crate::store::LogWriter;

/// What waits for the desk.
const INBOX: usize = 4096;
/// Frames that wait for one stream's writer; the desk keeps fewer in flight.
const OUTBOX: usize = 64;
/// Tokens of a prompt after which the desk is told that they were read.
const READ_EVERY: u32 = 8;
/// Engine events taken from one job at once.
const GATHER: usize = 64;
/// A router that says nothing for so long after it opened a stream is gone, as far as the
/// stream's reader is concerned; the desk has its own, shorter deadlines.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a router may keep its side of a stream open after ours was closed.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long an offer waits for its model before it is accepted; less than routers wait for that.
const PATIENCE_TO_ACCEPT: Duration = Duration::from_secs(8);
/// How long an accepted one waits; less than routers wait for a first token.
const PATIENCE_TO_RUN: Duration = Duration::from_secs(50);
/// When a router may come again that was told that memory is in use.
const RETRY_AFTER_MS: u64 = 2_000;

/// Figures that the announcement and the status show.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) active: AtomicU32,
    pub(crate) queued: AtomicU32,
    pub(crate) tokens_out: AtomicU64,
    /// Of model files.
    pub(crate) shared_bytes: AtomicU64,
}

/// What serving needs of the node.
pub(crate) struct Shop {
    pub(crate) key: Arc<Keypair>,
    pub(crate) clock: Clock,
    pub(crate) log: Arc<LogWriter>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) load: Arc<Load>,
    pub(crate) salts: Salts,
}

impl Shop {
    /// The model of an offer, opened if it is not; who waits longer than `patience` is told that
    /// the node is busy with other models.
    async fn lease(&self, model: ModelId, patience: Duration) -> Result<Lease, Failure> {
        match tokio::time::timeout(patience, self.holdings.lease(model)).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => {
                tracing::error!(%error, "a model could not be opened");
                Err(internal(&error.to_string()))
            }
            Err(_) => {
                let message = "the memory for this model is in use by others";
                let mut failure = Failure::new(FailureCode::Busy, message);
                failure.retry_after_ms = RETRY_AFTER_MS;
                Err(failure)
            }
        }
    }
}

/// Serves until `stop` turns true; answers under way are then dropped.
pub(crate) async fn run(
    shop: Shop,
    desk: Desk,
    mut incoming: Incoming,
    mut bars: broadcast::Receiver<Change>,
    mut stop: watch::Receiver<bool>,
) {
    let (inbox, mut events) = mpsc::channel(INBOX);
    let mut serving = Serving {
        shop: Arc::new(shop),
        desk,
        inbox,
        streams: HashMap::new(),
        cancelled: HashMap::new(),
        tasks: JoinSet::new(),
        timer: None,
        next_stream: 0,
    };
    loop {
        let timer = serving.timer;
        let event = tokio::select! {
            stream = incoming.next() => match stream {
                Some((peer, stream)) => {
                    let (reader, writer) = stream.split();
                    serving.opened(peer, reader, writer)
                }
                None => return,
            },
            Some(event) = events.recv() => event,
            // Of one that is missed here, the network closes the connection.
            Ok(change) = bars.recv() => match change.barred {
                Some(_) => In::Barred(change.peer),
                None => continue,
            },
            () = sleep_until(timer) => {
                serving.timer = None;
                In::Timer
            }
            Some(_) = serving.tasks.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        serving.step(event);
    }
}

struct Serving {
    shop: Arc<Shop>,
    desk: Desk,
    inbox: mpsc::Sender<In>,
    streams: HashMap<StreamId, mpsc::Sender<Option<ProviderFrame>>>,
    cancelled: HashMap<StreamId, Arc<Cancel>>,
    tasks: JoinSet<()>,
    timer: Option<tokio::time::Instant>,
    next_stream: u64,
}

impl Serving {
    fn opened(&mut self, peer: PeerId, reader: FrameReader, writer: FrameWriter) -> In {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        let (frames, outbox) = mpsc::channel(OUTBOX);
        self.streams.insert(stream, frames);
        let (reading, done) = oneshot::channel::<()>();
        let inbox = self.inbox.clone();
        let reader = self.tasks.spawn(async move {
            let _reading = reading;
            read(stream, reader, inbox).await;
        });
        let inbox = self.inbox.clone();
        self.tasks.spawn(async move {
            write(stream, writer, outbox, inbox).await;
            // A stream is given back when both its directions are.
            let _ = tokio::time::timeout(GOODBYE, done).await;
            reader.abort();
        });
        In::Opened { stream, peer }
    }

    fn step(&mut self, event: In) {
        let gone = match event {
            In::Closed(stream) => Some(stream),
            _ => None,
        };
        let outs = self.desk.handle(self.shop.clock.now(), event);
        for out in outs {
            self.perform(out);
        }
        // The desk has nothing more to say about a stream that ended by itself.
        if let Some(stream) = gone {
            self.stop(stream);
            self.streams.remove(&stream);
        }
        let load = &self.shop.load;
        let now = self.desk.load();
        load.active.store(now.active, Ordering::Relaxed);
        load.queued.store(now.queued, Ordering::Relaxed);
    }

    fn perform(&mut self, out: Out) {
        match out {
            Out::Send(stream, frame) => {
                if let Some(outbox) = self.streams.get(&stream) {
                    let _ = outbox.try_send(Some(frame));
                }
            }
            Out::Close(stream) => {
                self.stop(stream);
                if let Some(outbox) = self.streams.remove(&stream) {
                    let _ = outbox.try_send(None);
                }
            }
            Out::Prepare { stream, offer } => self.prepare(stream, offer),
            Out::Run { stream, offer, resume } => self.compute(stream, &offer, resume),
            Out::Stop(stream) => self.stop(stream),
            Out::Issue { stream, draft } => self.issue(stream, draft),
            Out::OpenLeaves { stream, question } => self.open_leaves(stream, question),
            Out::SetTimer(at) => self.timer = Some(self.shop.clock.instant(at)),
        }
    }

    fn stop(&mut self, stream: StreamId) {
        if let Some(work) = self.cancelled.remove(&stream) {
            work.cancel();
        }
    }

    fn prepare(&mut self, stream: StreamId, offer: Signed<Offer>) {
        let (shop, inbox) = (Arc::clone(&self.shop), self.inbox.clone());
        self.tasks.spawn(async move {
            let event = match prepared(&shop, offer).await {
                Ok(count) => In::Prepared(stream, count),
                Err(failure) => In::Refused(stream, failure),
            };
            let _ = inbox.send(event).await;
        });
    }

    fn compute(&mut self, stream: StreamId, offer: &Signed<Offer>, resume: Vec<u32>) {
        let cancel = Arc::new(Cancel::default());
        self.cancelled.insert(stream, Arc::clone(&cancel));
        // At most one event a token, and a few more: the engine never finds it full.
        let (events, gathered) = mpsc::channel(offer.max_tokens as usize + 8);
        let (shop, inbox, offer) = (Arc::clone(&self.shop), self.inbox.clone(), offer.clone());
        self.tasks.spawn(gather(gathered, inbox));
        self.tasks.spawn(async move {
            let lease = match shop.lease(offer.model_id, PATIENCE_TO_RUN).await {
                Ok(lease) => lease,
                Err(failure) => {
                    let _ = events.try_send(In::Refused(stream, failure));
                    return;
                }
            };
            let starting = tokio::task::spawn_blocking(move || {
                let sink = Sink {
                    stream,
                    events: events.clone(),
                    cancel,
                    shop,
                    transcript: Transcript::new(),
                    tokens: Vec::new(),
                    logprobs: Vec::new(),
                    read: 0,
                    first: None,
                };
                let begin = if offer.pooling.is_some() { embed } else { start };
                if let Err(failure) = begin(lease, &offer, resume, sink) {
                    let _ = events.try_send(In::Refused(stream, failure));
                }
            });
            let _ = starting.await;
        });
    }

    fn issue(&mut self, stream: StreamId, draft: Draft) {
        let (shop, inbox) = (Arc::clone(&self.shop), self.inbox.clone());
        self.tasks.spawn(async move {
            let event = match sign_and_log(&shop, draft).await {
                Ok((receipt, proof)) => In::Logged { stream, receipt, proof },
                Err(why) => {
                    tracing::error!(why, "a receipt could not be logged");
                    In::LogFailed { stream, why }
                }
            };
            let _ = inbox.send(event).await;
        });
    }

    fn open_leaves(&mut self, stream: StreamId, question: Box<LeavesQuestion>) {
        let (shop, inbox) = (Arc::clone(&self.shop), self.inbox.clone());
        let cancel = Arc::new(Cancel::default());
        self.cancelled.insert(stream, Arc::clone(&cancel));
        self.tasks.spawn(async move {
            let opened = match shop.lease(question.offer.model_id, PATIENCE_TO_RUN).await {
                Ok(lease) => {
                    let opening =
                        tokio::task::spawn_blocking(move || open(&lease, &question, &cancel.told));
                    opening.await.unwrap_or_else(|_| Err("the replay failed".into()))
                }
                Err(failure) => Err(failure.message),
            };
            let _ = inbox.send(In::LeavesOpened(stream, opened)).await;
        });
    }
}

async fn read(stream: StreamId, mut reader: FrameReader, inbox: mpsc::Sender<In>) {
    loop {
        let event = match reader.recv().await {
            Ok(Some(frame)) => match RouterFrame::decode(&frame) {
                Ok(frame) => In::Frame(stream, frame),
                Err(error) => In::Unreadable(stream, error),
            },
            Ok(None) => In::Closed(stream),
            Err(FrameError::Refused(error)) => In::Unreadable(stream, error),
            Err(_) => In::Closed(stream),
        };
        let last = !matches!(event, In::Frame(..));
        if inbox.send(event).await.is_err() || last {
            return;
        }
    }
}

async fn write(
    stream: StreamId,
    mut writer: FrameWriter,
    mut outbox: mpsc::Receiver<Option<ProviderFrame>>,
    inbox: mpsc::Sender<In>,
) {
    while let Some(Some(frame)) = outbox.recv().await {
        let written = match frame.encode() {
            Ok(bytes) => writer.send(&bytes).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = written {
            tracing::debug!(?stream, error, "a frame could not be written");
            let _ = inbox.send(In::Closed(stream)).await;
            return;
        }
        if inbox.send(In::Sent(stream)).await.is_err() {
            return;
        }
    }
    let _ = writer.finish().await;
}

/// Passes engine events on, tokens that are ready together as one event.
async fn gather(mut events: mpsc::Receiver<In>, inbox: mpsc::Sender<In>) {
    let mut batch = Vec::with_capacity(GATHER);
    while events.recv_many(&mut batch, GATHER).await > 0 {
        let mut joined: Option<In> = None;
        for event in batch.drain(..) {
            match (&mut joined, event) {
                (
                    Some(In::Steps { start, steps, .. }),
                    In::Steps { start: next, steps: more, .. },
                ) if *start as usize + steps.len() == next as usize => {
                    steps.extend(more);
                }
                (_, event) => {
                    if let Some(ready) = joined.replace(event)
                        && inbox.send(ready).await.is_err()
                    {
                        return;
                    }
                }
            }
        }
        if let Some(ready) = joined
            && inbox.send(ready).await.is_err()
        {
            return;
        }
    }
}

/// How many tokens the prompt of an offer has.
async fn prepared(shop: &Shop, offer: Signed<Offer>) -> Result<u32, Failure> {
    let lease = shop.lease(offer.model_id, PATIENCE_TO_ACCEPT).await?;
    let counting = tokio::task::spawn_blocking(move || {
        let model = lease.model();
        let prompt = model.prompt_tokens(&offer.prompt).map_err(|e| prompt_failure(&e))?;
        check_biases(&offer.sampling, model.vocabulary())?;
        let answer = if offer.pooling.is_some() { 0 } else { offer.max_tokens };
        model.check_fit(&prompt, answer).map_err(|e| prompt_failure(&e))?;
        if offer.pooling.is_some() {
            lease.replayer.check_capacity(prompt.len()).map_err(|e| capacity(&e))?;
        } else if let Some(service) = &lease.service {
            service.check_capacity(prompt.len(), answer).map_err(|r| refusal(&r))?;
        }
        Ok(u32::try_from(prompt.len()).unwrap_or(u32::MAX))
    });
    counting.await.unwrap_or_else(|_| Err(internal("the prompt could not be read")))
}

/// A bias for a token that the model doesn't have asks for nothing: more likely it was meant
/// for another model.
fn check_biases(sampling: &Sampling, vocabulary: usize) -> Result<(), Failure> {
    match sampling.bias.iter().find(|bias| bias.token as usize >= vocabulary) {
        None => Ok(()),
        Some(bias) => Err(Failure::new(
            FailureCode::BadOffer,
            format!("logit_bias: expected token ids below {vocabulary}, got {}", bias.token),
        )),
    }
}

/// Engine-side half of one job: hashes leaves, reports tokens.
struct Sink {
    stream: StreamId,
    events: mpsc::Sender<In>,
    cancel: Arc<Cancel>,
    shop: Arc<Shop>,
    transcript: Transcript,
    tokens: Vec<u32>,
    /// One for each token, if the offer asks for them.
    logprobs: Vec<TokenLogprobs>,
    /// Positions read.
    read: u32,
    /// When its first token was there, and how many there were then.
    first: Option<(Instant, usize)>,
}

/// Gives a job to the engine; its model stays leased as long as the engine has the job.
fn start(
    lease: Lease,
    offer: &Signed<Offer>,
    mut resume: Vec<u32>,
    mut sink: Sink,
) -> Result<(), Failure> {
    let lease = Arc::new(lease);
    let service = lease.service.as_ref().ok_or_else(|| unknown(offer.model_id))?;
    let model = service.model();
    let prompt = model.prompt_tokens(&offer.prompt).map_err(|e| prompt_failure(&e))?;
    // An id that is no token cannot be read; what is drawn in its place shows that it is false.
    let tokens = resume.iter().take_while(|id| (**id as usize) < model.vocabulary()).count();
    resume.truncate(tokens);
    let job = service::Job {
        key: offer.id(),
        seed: sampling_seed(offer),
        prompt,
        resume,
        sampling: offer.sampling.clone(),
        max_tokens: offer.max_tokens,
        stop: offer.stop.clone(),
        salt: sink.shop.salts.of(&offer.key()),
    };
    let kept = Arc::clone(&lease);
    let cancel = Arc::clone(&sink.cancel);
    let sink = Box::new(move |event| sink.take(event, kept.model()));
    let ticket = service.submit(job, sink).map_err(|r| refusal(&r))?;
    cancel.ends(ticket);
    Ok(())
}

/// Computes an embedding, here and now: it is one pass over the prompt, and the replayer makes
/// one at a time.
fn embed(
    lease: Lease,
    offer: &Signed<Offer>,
    resume: Vec<u32>,
    mut sink: Sink,
) -> Result<(), Failure> {
    let model = lease.model();
    let prompt = model.prompt_tokens(&offer.prompt).map_err(|e| prompt_failure(&e))?;
    let cancel = Arc::clone(&sink.cancel);
    let mut pushed = Ok(());
    let mut on_step = |step: peerproof_proof::Step| {
        if pushed.is_ok() {
            pushed = sink.push(&step.into());
            if let Some(read) = sink.progress() {
                let _ = sink.events.try_send(read);
            }
        }
    };
    let replayer = lease.replayer.until(&cancel.told);
    let (vector, kv_root) = match replayer.embed(offer, &offer.id(), &prompt, &mut on_step) {
        Err(ReplayError::Stopped { .. }) => return Ok(()),
        Err(error @ ReplayError::CacheBudget { .. }) => return Err(capacity(&error)),
        embedded => embedded.map_err(|e| internal(&e.to_string()))?,
    };
    pushed?;
    // A client that has the beginning already gets the rest, from the first difference on.
    let same = vector.iter().zip(&resume).take_while(|(ours, theirs)| ours == theirs).count();
    let step = |(index, token): (usize, &u32)| Step {
        token: *token,
        text: embedding::piece(index, *token),
        commitment: None,
        logprobs: None,
    };
    let steps: Vec<Step> = vector.iter().enumerate().skip(same).map(step).collect();
    sink.shop.load.tokens_out.fetch_add(steps.len() as u64, Ordering::Relaxed);
    let (stream, start) = (sink.stream, same as u32);
    if !steps.is_empty() {
        let _ = sink.events.try_send(In::Steps { stream, start, steps });
    }
    sink.tokens = vector;
    let (tokens, text) = (sink.tokens.len() as u32, embedding::text(&sink.tokens));
    let end = Event::Finished { stop: Stop::EndOfText, tokens, text, kv_root };
    if let Some(ended) = sink.convert(end, model)? {
        let _ = sink.events.try_send(ended);
    }
    Ok(())
}

/// How work for a stream is given up, whatever it is at: an answer that waits, is
/// read, or is made, or a replay.
#[derive(Default)]
struct Cancel {
    told: AtomicBool,
    ticket: OnceLock<Ticket>,
}

impl Cancel {
    /// Gives it up; what the engine holds for it goes before its next turn.
    fn cancel(&self) {
        self.told.store(true, Ordering::SeqCst);
        if let Some(ticket) = self.ticket.get() {
            ticket.cancel();
        }
    }

    fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    /// Names the engine's job; one that was given up meanwhile ends here.
    fn ends(&self, ticket: Ticket) {
        let ticket = self.ticket.get_or_init(|| ticket);
        if self.is_told() {
            ticket.cancel();
        }
    }
}

/// Whose prompts may share what was computed of them: those of one key that signs
/// offers, on one run of this node.
pub(crate) struct Salts([u8; 32]);

impl Salts {
    /// Salts that nobody outside can compute: `secret` is random and never leaves
    /// the process.
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    fn of(&self, router: &PublicKey) -> Digest {
        Digest::from_bytes(*blake3::keyed_hash(&self.0, router.as_bytes()).as_bytes())
    }
}

impl Sink {
    fn take(&mut self, event: Event, model: &Model) -> ControlFlow<()> {
        if self.cancel.is_told() {
            return ControlFlow::Break(());
        }
        match self.convert(event, model) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(event)) => match self.events.try_send(event) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            },
            Err(failure) => {
                let _ = self.events.try_send(In::Refused(self.stream, failure));
                ControlFlow::Break(())
            }
        }
    }

    fn convert(&mut self, event: Event, model: &Model) -> Result<Option<In>, Failure> {
        let stream = self.stream;
        match event {
            Event::Prompt { step } => {
                self.push(&step.into())?;
                Ok(self.progress())
            }
            Event::Token { index, token, text, mut step, resumed } => {
                let logprobs = step.drawn.as_mut().and_then(|drawn| drawn.logprobs.take());
                let logprobs = logprobs.map(|report| self.report(token, report, model));
                self.push(&step.into())?;
                self.tokens.push(token);
                if resumed {
                    return Ok(self.progress());
                }
                self.shop.load.tokens_out.fetch_add(1, Ordering::Relaxed);
                self.first.get_or_insert_with(|| (Instant::now(), self.tokens.len()));
                let due = (index as usize + 1).is_multiple_of(COMMIT_EVERY);
                let commitment = due.then(|| self.transcript.commitment());
                let steps = vec![Step { token, text, commitment, logprobs }];
                Ok(Some(In::Steps { stream, start: index, steps }))
            }
            Event::Finished { stop, tokens, text, kv_root } => {
                if let Some((first, count)) = self.first
                    && let Some(more) =
                        self.tokens.len().checked_sub(count).filter(|more| *more > 0)
                    && let Some(held) = self.shop.holdings.by_id(model.id())
                {
                    held.costs.made(first.elapsed(), more as u64);
                }
                let transcript = std::mem::take(&mut self.transcript);
                let shown = shown_hash(&text, &self.logprobs);
                let tree = transcript
                    .close_with(stop, tokens, &shown, &kv_root)
                    .map_err(|e| internal(&e.to_string()))?;
                let ended = Ended {
                    tokens,
                    stop,
                    output_hash: output_hash(&self.tokens),
                    text_hash: shown,
                    kv_root,
                    transcript_root: tree.root(),
                    leaves: tree.leaves(),
                };
                Ok(Some(In::Finished(stream, ended)))
            }
            Event::Refused(refused) => Err(refusal(&refused)),
            _ => Ok(None),
        }
    }

    /// Says how far the prompt is read, where nothing else waits to be passed on: that has the
    /// room, and the desk, which keeps the pace, hears of it often enough.
    fn progress(&mut self) -> Option<In> {
        self.read += 1;
        let idle = self.events.capacity() == self.events.max_capacity();
        let due = idle && self.read.is_multiple_of(READ_EVERY);
        due.then_some(In::Read(self.stream, self.read))
    }

    /// Spells what the engine reports of a token, and keeps it for the receipt.
    fn report(&mut self, token: u32, mut report: TokenLogprobs, model: &Model) -> TokenLogprobs {
        report.spell(token, |token| model.tokenizer().spelling(token));
        self.logprobs.push(report.clone());
        report
    }

    fn push(&mut self, leaf: &Leaf) -> Result<(), Failure> {
        self.transcript.push(leaf).map_err(|e| internal(&e.to_string()))
    }
}

async fn sign_and_log(
    shop: &Shop,
    draft: Draft,
) -> Result<(Signed<peerproof_wire::Receipt>, LogProof), String> {
    let unix_ms = shop.clock.unix_ms();
    let receipt = Signed::sign(&shop.key, draft.receipt(unix_ms)).map_err(|e| e.to_string())?;
    // A reader rebuilds the entry from the receipt alone, so both carry one time.
    let entry = LogEntry { unix_ms, body: LogBody::Receipt(receipt.clone()) };
    let appended = shop.log.append(&entry).await.map_err(|e| e.to_string())?;
    Ok((receipt, appended.into()))
}

fn open(
    lease: &Lease,
    question: &LeavesQuestion,
    given_up: &AtomicBool,
) -> Result<peerproof_wire::Openings, String> {
    let LeavesQuestion { offer, receipt, tokens, challenge } = question;
    let replayer = lease.replayer.until(given_up);
    let recomputed =
        peerproof_proof::audit::recompute(&replayer, offer, tokens).map_err(|e| e.to_string())?;
    let tree = recomputed.tree().ok_or("the answer has another end")?;
    challenge::respond(offer, receipt, recomputed.leaves(), &tree, challenge)
        .map_err(|e| e.to_string())
}

fn unknown(model: ModelId) -> Failure {
    Failure::new(FailureCode::UnknownModel, format!("model {model} is not served here"))
}

fn internal(message: &str) -> Failure {
    Failure::new(FailureCode::Internal, message)
}

/// Others may have the memory that is short here.
fn capacity(error: &impl std::fmt::Display) -> Failure {
    Failure::new(FailureCode::Capacity, error.to_string())
}

fn prompt_failure(error: &PromptError) -> Failure {
    let code = match error {
        PromptError::Empty => FailureCode::EmptyPrompt,
        PromptError::TooLong { .. } => FailureCode::ContextLength,
        _ => FailureCode::BadOffer,
    };
    Failure::new(code, error.to_string())
}

fn refusal(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::Prompt(error) => prompt_failure(error),
        Refusal::QueueFull { .. } => Failure::new(FailureCode::Busy, refusal.to_string()),
        Refusal::NoTokens | Refusal::Resume { .. } => {
            Failure::new(FailureCode::BadOffer, refusal.to_string())
        }
        Refusal::Constraint(_) => Failure::new(FailureCode::Constraint, refusal.to_string()),
        Refusal::CacheBudget { .. } => capacity(refusal),
        _ => Failure::new(FailureCode::Internal, refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use peerproof_wire::LogitBias;

    use super::*;

    #[test]
    fn a_salt_is_of_one_router_on_one_run() {
        let router = |seed: u8| Keypair::from_seed(&[seed; 32]).public();
        let salts = Salts::new([7; 32]);
        let salt = salts.of(&router(1));
        assert_eq!(salt, salts.of(&router(1)));
        assert_ne!(salt, salts.of(&router(2)));
        assert_ne!(salt, Salts::new([8; 32]).of(&router(1)), "another run");
        assert_ne!(salt.as_bytes(), router(1).as_bytes());
    }

    #[test]
    fn a_bias_is_for_a_token_of_the_vocabulary() {
        let biased = |token| {
            let bias = [3, token].map(|token| LogitBias { token, bias_q16: 1 });
            Sampling { bias: bias.to_vec(), ..Sampling::GREEDY }
        };
        assert_eq!(check_biases(&Sampling::GREEDY, 1), Ok(()));
        assert_eq!(check_biases(&biased(99), 100), Ok(()));
        let refused = check_biases(&biased(100), 100).expect_err("no such token");
        assert_eq!(refused.code, FailureCode::BadOffer);
        assert!(refused.message.contains("below 100, got 100"), "{}", refused.message);
    }

    #[test]
    fn what_was_given_up_stays_given_up() {
        let cancel = Cancel::default();
        assert!(!cancel.is_told());
        cancel.cancel();
        cancel.cancel();
        assert!(cancel.is_told());
    }
}
