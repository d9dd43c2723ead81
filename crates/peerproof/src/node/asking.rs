//! The router's side: one task an answer, around one [`Job`].
//!
//! The job says what to do; this task does it: streams (a task each), hashes
//! and signatures (at once), searches and audits (tasks that report back). What
//! the client sees goes into a channel as wide as the longest answer, so a slow
//! client never makes a provider look slow.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_job::router::{
    BindingsQuestion, Broken, In, Job, LaneId, Notice, Out, Outcome as Ended,
};
use peerproof_job::{Candidate, Entropy, Standing};
use peerproof_log::SignedCheckpoint;
use peerproof_net::FrameLimits;
use peerproof_proof::audit::{describe, verify_case};
use peerproof_proof::challenge;
use peerproof_proof::receipt::{Answer as Whole, BindingError, Field, verify_bindings};
use peerproof_wire::evidence::{Evidence, LogBody, LogEntry};
use peerproof_wire::{
    AuditedBy, Challenge, Class, JOB_PROTOCOL, Level as WireLevel, LogProof, Message as _, ModelId,
    Receipt, RouterFrame, Signed,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::auditing::Question;
use super::directory::{Known, Wanted};
use super::incidents::group_of;
use super::{Inner, lighting, sleep_until, spotting};
use crate::client::{AnswerEvent, AskError, Preference};
use crate::evidence;
use crate::home::random_seed;

/// Events of one job that wait for it.
const INBOX: usize = 1024;
/// Frames that wait for one stream's writer; a job sends an offer, a challenge and a cancel.
const OUTBOX: usize = 8;
/// How long a search for providers may take.
const SEARCH: Duration = Duration::from_secs(5);
/// How long everybody waits for a provider that the user wants to be tried first.
const HOLD: Duration = Duration::from_secs(1);
/// How long opening a stream may take.
const OPEN: Duration = Duration::from_secs(5);
/// Longer than any silence a job tolerates.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

mod afterwards;
mod offer;
mod report;
mod streams;

pub(super) use offer::{Prepared, prepare};
use streams::converse;

pub(super) type Events = mpsc::Sender<Result<AnswerEvent, AskError>>;

/// Runs a job to its end. Dropping `cancel`'s other half cancels it.
pub(super) async fn run(
    inner: Arc<Inner>,
    prepared: Prepared,
    events: Events,
    cancel: oneshot::Receiver<()>,
) {
    inner.counts.asking.fetch_add(1, Ordering::Relaxed);
    let now = inner.clock.now();
    let entropy = Entropy::new(random_seed());
    let (job, outs) = Job::start(
        prepared.offer.clone(),
        prepared.client_nonce,
        prepared.options.clone(),
        entropy,
        now,
    );
    let (inbox, inputs) = mpsc::channel(INBOX);
    let asking = Asking {
        inner: Arc::clone(&inner),
        prepared,
        job,
        inbox,
        lanes: HashMap::new(),
        streams: JoinSet::new(),
        errands: JoinSet::new(),
        timer: None,
        events,
        searches: 0,
        found: HashMap::new(),
        judges: Arc::default(),
        begun: std::time::Instant::now(),
        ended: None,
    };
    asking.drive(outs, inputs, cancel).await;
    inner.counts.asking.fetch_sub(1, Ordering::Relaxed);
}

/// Evidence that bars a provider.
struct Found {
    /// The file, or why there is none.
    file: String,
    /// What differs, in words, if it was recomputed.
    mismatch: Option<String>,
}

struct Asking {
    inner: Arc<Inner>,
    prepared: Prepared,
    job: Job,
    inbox: mpsc::Sender<In>,
    lanes: HashMap<LaneId, mpsc::Sender<RouterFrame>>,
    /// One task a stream; they end by themselves when the job is over.
    streams: JoinSet<()>,
    /// Searches and audits; nobody waits for them when the job is over.
    errands: JoinSet<()>,
    timer: Option<tokio::time::Instant>,
    events: Events,
    searches: u32,
    /// What was found against whom.
    found: HashMap<PeerId, Found>,
    /// Other nodes that recomputed for this job, and how they were found.
    judges: Arc<Mutex<Vec<AuditedBy>>>,
    begun: std::time::Instant,
    ended: Option<Box<Ended>>,
}

impl Asking {
    async fn drive(
        mut self,
        outs: Vec<Out>,
        mut inputs: mpsc::Receiver<In>,
        mut cancel: oneshot::Receiver<()>,
    ) {
        let mut stopped = self.inner.stopped.clone();
        let mut bars = self.inner.ledger.bars();
        self.look_for_auditors();
        self.perform_all(outs).await;
        while self.ended.is_none() {
            let event = tokio::select! {
                Some(event) = inputs.recv() => event,
                Ok(change) = bars.recv() => match change.barred {
                    Some(why) => In::Barred(change.peer, why),
                    None => continue,
                },
                () = sleep_until(self.timer) => {
                    self.timer = None;
                    In::Timer
                }
                _ = &mut cancel => In::CancelledByUser,
                _ = stopped.wait_for(|stop| *stop) => {
                    let _ = self.events.try_send(Err(AskError::Unavailable("it is stopping".into())));
                    In::CancelledByUser
                }
            };
            let outs = self.job.handle(self.inner.clock.now(), event);
            self.perform_all(outs).await;
        }
        let answered = self.report().await;
        // Streams close by themselves once their outboxes are dropped; let them say goodbye.
        self.lanes.clear();
        while self.streams.join_next().await.is_some() {}
        if let (Some(case), Some(level)) = (answered, self.prepared.follows()) {
            let afterwards = afterwards::check(&self.inner, &self.prepared, case, level);
            tokio::select! {
                () = afterwards => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        }
    }

    async fn perform_all(&mut self, outs: Vec<Out>) {
        for out in outs {
            self.perform(out).await;
        }
    }

    async fn perform(&mut self, out: Out) {
        match out {
            Out::FindCandidates => self.find_candidates(),
            Out::OpenStream { lane, peer } => self.open(lane, peer),
            Out::Send(lane, frame) => {
                if let Some(outbox) = self.lanes.get(&lane) {
                    let _ = outbox.try_send(frame);
                }
            }
            Out::CloseStream(lane) => {
                self.lanes.remove(&lane);
            }
            Out::Emit { start, tokens, text, logprobs } => {
                self.inner.counts.tokens_in.fetch_add(tokens.len() as u64, Ordering::Relaxed);
                self.tell(AnswerEvent::Delta { text, start, tokens, logprobs });
            }
            Out::Notice(notice) => self.notice(notice),
            Out::CheckBindings(question) => {
                let event = In::BindingsChecked(question.lane, self.check_bindings(&question));
                self.answer(event);
            }
            Out::CheckLogProof { lane, receipt, proof } => {
                let checked = check_log_proof(&receipt, &proof);
                if let Ok(note) = &checked {
                    self.watch(receipt, note.clone());
                }
                self.answer(In::LogProofChecked(lane, checked.map(drop)));
            }
            Out::CheckOpenings { lane, receipt, tokens, openings, client_nonce } => {
                let challenge = Challenge {
                    receipt_id: receipt.id(),
                    client_nonce,
                    positions: Vec::new(),
                    leaf_hashes: false,
                };
                let checked = challenge::verify_openings(
                    &self.prepared.offer,
                    &receipt,
                    &tokens,
                    &[],
                    &challenge,
                    &openings,
                );
                self.answer(In::OpeningsChecked(lane, checked.map_err(|e| e.to_string())));
            }
            Out::Audit { lane, case, exclude, .. } => self.audit(lane, *case, exclude),
            Out::Record(body) => self.record(*body).await,
            Out::Keep(evidence) => {
                let accused = accused(&evidence);
                self.keep(accused, *evidence).await;
            }
            Out::SetTimer(at) => self.timer = Some(self.inner.clock.instant(at)),
            Out::Finish(outcome) => self.ended = Some(outcome),
        }
    }

    /// Compares what the provider signed with what it signed before; the answer does not wait.
    fn watch(&self, receipt: Signed<Receipt>, note: SignedCheckpoint) {
        let watch = Arc::clone(&self.inner.watch);
        tokio::spawn(async move {
            watch.receipt(&receipt).await;
            watch.checkpoint(&note).await;
        });
    }

    /// Reports the result of a check that took no time worth a task.
    fn answer(&mut self, event: In) {
        let inbox = self.inbox.clone();
        if let Err(mpsc::error::TrySendError::Full(event)) = inbox.try_send(event) {
            self.errands.spawn(async move {
                let _ = inbox.send(event).await;
            });
        }
    }

    /// The channel holds the longest answer, so this fails only if nobody listens any more.
    fn tell(&self, event: AnswerEvent) {
        let _ = self.events.try_send(Ok(event));
    }

    fn notice(&mut self, notice: Notice) {
        self.tell(match notice {
            // Room is for the answer: who does not listen misses this.
            Notice::Reading { .. } if self.events.capacity() < self.events.max_capacity() => return,
            Notice::Reading { read, of } => AnswerEvent::Reading { read, of },
            Notice::Started { provider, prompt_tokens } => {
                AnswerEvent::Started { provider: provider.to_string(), prompt_tokens }
            }
            Notice::Switched { provider, why } => {
                self.inner.counts.failovers.fetch_add(1, Ordering::Relaxed);
                AnswerEvent::Switched { provider: provider.to_string(), reason: why }
            }
            Notice::Checking => AnswerEvent::Checking,
        });
    }

    /// An auditor's lot is worth most if its key was known before the answer was.
    fn look_for_auditors(&mut self) {
        let model = self.prepared.offer.model_id;
        let level = self.prepared.offer.level;
        if level == WireLevel::Receipt
            || self.prepared.auditor.is_some()
            || self.inner.holdings.by_id(model).is_some()
        {
            return;
        }
        let directory = self.inner.directory.clone();
        self.errands.spawn(async move {
            let mut found = directory.search(Wanted::Audited(model), SEARCH, false);
            while found.recv().await.is_some() {}
        });
    }

    /// Those whose figures are fresh come together, so that the best of them is chosen; if the
    /// user named some to be tried first, all wait a moment for them.
    fn find_candidates(&mut self) {
        let (inner, inbox) = (Arc::clone(&self.inner), self.inbox.clone());
        let preference = self.prepared.preference.clone();
        let asked = (self.prepared.offer.model_id, self.prepared.offer.class);
        let wanted = Wanted::Served(asked.0);
        let widen = self.searches > 0
            || !preference.only.is_empty()
            || !preference.order.is_empty()
            || self.prepared.options.n > 1 && self.prepared.offer.level == WireLevel::KOfN;
        self.searches += 1;
        self.errands.spawn(async move {
            let mut found = inner.directory.search(wanted.clone(), SEARCH, widen);
            let mut first = Vec::new();
            for (peer, known) in inner.directory.fresh(&wanted) {
                first.extend(candidate(&inner, &preference, asked, peer, &known).await);
            }
            let hold = tokio::time::Instant::now() + HOLD;
            while !preference.order.iter().all(|peer| is_among(peer, &first))
                && let Ok(Some((peer, known))) = tokio::time::timeout_at(hold, found.recv()).await
            {
                first.extend(candidate(&inner, &preference, asked, peer, &known).await);
            }
            if !first.is_empty() && inbox.send(In::Candidates(first)).await.is_err() {
                return;
            }
            while let Some((peer, known)) = found.recv().await {
                if let Some(candidate) = candidate(&inner, &preference, asked, peer, &known).await
                    && inbox.send(In::Candidates(vec![candidate])).await.is_err()
                {
                    return;
                }
            }
            let _ = inbox.send(In::SearchOver).await;
        });
    }

    fn open(&mut self, lane: LaneId, peer: PeerId) {
        let (outbox, frames) = mpsc::channel(OUTBOX);
        self.lanes.insert(lane, outbox);
        let (inner, inbox) = (Arc::clone(&self.inner), self.inbox.clone());
        self.streams.spawn(async move {
            let limits = FrameLimits { read_timeout: READ_TIMEOUT, ..FrameLimits::default() };
            match inner.net.open(peer, JOB_PROTOCOL, OPEN, limits).await {
                Ok(stream) => {
                    if inbox.send(In::Opened(lane)).await.is_ok() {
                        converse(lane, stream, frames, inbox).await;
                    }
                }
                Err(error) => {
                    let _ = inbox.send(In::OpenFailed(lane, error.to_string())).await;
                }
            }
        });
    }

    fn check_bindings(&self, question: &BindingsQuestion) -> Result<(), Broken> {
        let whole = |detail: String| Broken { only_text: false, detail };
        if question.receipt.prompt_tokens != question.prompt_tokens {
            return Err(whole(format!(
                "receipt prompt_tokens: expected {}, as accepted, got {}",
                question.prompt_tokens, question.receipt.prompt_tokens
            )));
        }
        let (offer, receipt) = (&self.prepared.offer, &question.receipt);
        let Some(text) = &question.text else {
            let held = verify_case(offer, receipt, &question.tokens);
            held.map_err(|error| whole(error.to_string()))?;
            return Err(Broken { only_text: true, detail: "the text is not known in full".into() });
        };
        let answer = Whole { tokens: &question.tokens, text, logprobs: &question.logprobs };
        let provider = question.provider.public_key();
        verify_bindings(
            &self.prepared.offer,
            &question.receipt,
            &provider,
            answer,
            &question.commitments,
        )
        .map_err(|error| Broken {
            only_text: matches!(error, BindingError::Digest { field: Field::TextHash, .. }),
            detail: error.to_string(),
        })
    }

    fn audit(&mut self, lane: LaneId, case: peerproof_wire::Case, exclude: Vec<PeerId>) {
        let (inner, inbox, named) =
            (Arc::clone(&self.inner), self.inbox.clone(), self.prepared.auditor);
        let (judges, begun) = (Arc::clone(&self.judges), self.begun);
        let client_nonce = self.prepared.client_nonce;
        inner.counts.audits.fetch_add(1, Ordering::Relaxed);
        self.errands.spawn(async move {
            let since = std::time::Instant::now();
            let question = Question { case: Arc::new(case), exclude, named, begun };
            // Nobody opens cells of embeddings, which are recomputed whole.
            let offer = &question.case.offer;
            let cells = offer.pooling.is_none() && question.named.is_none();
            let (audited, judge) = match offer.level {
                WireLevel::Spot if cells => {
                    let audited = spotting::audit(&inner, &question.case, client_nonce).await;
                    (spotting::hold_to_account(&inner, &question.case, audited).await, None)
                }
                WireLevel::Light if cells => {
                    let audited = lighting::audit(&inner, &question.case, client_nonce).await;
                    (spotting::hold_to_account(&inner, &question.case, audited).await, None)
                }
                _ => inner.audits.run(&question).await,
            };
            if let Some(judge) = judge {
                judges.lock().unwrap_or_else(PoisonError::into_inner).push(judge);
            }
            let spent = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            inner.counts.audit_ms.fetch_add(spent, Ordering::Relaxed);
            let _ = inbox.send(In::AuditDone(lane, audited)).await;
        });
    }

    /// Remembers first, then makes it last: as a file, which is of use even if the log's disk is
    /// full, and in the log. What does not bar anybody is only logged.
    async fn record(&mut self, mut body: LogBody) {
        if let LogBody::Accepted(accepted) = &mut body
            && let Some(by) = &mut accepted.auditor
        {
            let judges = self.judges.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(judge) = judges.iter().find(|judge| judge.auditor == by.auditor) {
                *by = *judge;
            }
        }
        let entry = self.inner.ledger.remember(body);
        if let LogBody::Evidence(evidence) = &entry.body {
            let accused = accused(evidence);
            if self.inner.standing(&accused).barred.is_some() {
                self.keep(accused, evidence.clone()).await;
            }
        }
        let _ = self.inner.ledger.append(&entry).await;
    }

    async fn keep(&mut self, accused: PeerId, found: Evidence) {
        let mismatch = match &found {
            Evidence::WrongAnswer(wrong) => Some(describe(&wrong.mismatch)),
            _ => None,
        };
        let dir = self.inner.home.evidence();
        let written = tokio::task::spawn_blocking(move || evidence::write(&dir, &found)).await;
        let file = match written {
            Ok(Ok(path)) => path.display().to_string(),
            Ok(Err(error)) => format!("could not be written: {error}"),
            Err(error) => format!("could not be written: {error}"),
        };
        self.found.insert(accused, Found { file, mismatch });
    }
}

/// A provider as the job sees it; `None` if the user's preference rules it out.
async fn candidate(
    inner: &Inner,
    preference: &Preference,
    (id, class): (ModelId, Class),
    peer: PeerId,
    known: &Known,
) -> Option<Candidate> {
    let name = peer.to_string();
    let named = |list: &[String]| list.contains(&name);
    let place = preference.order.iter().position(|peer| *peer == name);
    let outside = !preference.only.is_empty() && !named(&preference.only)
        || !preference.order.is_empty() && place.is_none() && !preference.allow_fallbacks;
    if outside || named(&preference.ignore) {
        return None;
    }
    let said = &known.announcement;
    let model = said.serves.iter().find(|m| m.model_id == id && m.class == class)?;
    Some(Candidate {
        peer,
        context_length: model.context_length,
        active_jobs: said.active_jobs,
        queued_jobs: said.queued_jobs,
        max_jobs: said.max_jobs,
        rtt_ms: inner
            .directory
            .rtt(peer)
            .await
            .map(|rtt| u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX)),
        standing: sampled(inner.standing(&peer), inner.config.ask.audit_per_mille),
        preferred: place.and_then(|place| u16::try_from(place).ok()),
        group: group_of(&inner.net, peer).await,
    })
}

fn is_among(peer: &str, candidates: &[Candidate]) -> bool {
    candidates.iter().any(|candidate| candidate.peer.to_string() == peer)
}

/// The configured share is the least that is audited, and none is none.
fn sampled(standing: Standing, per_mille: u32) -> Standing {
    let least = u16::try_from(per_mille).unwrap_or(u16::MAX);
    let audit_permille = if least == 0 { 0 } else { standing.audit_permille.max(least) };
    Standing { audit_permille, ..standing }
}

/// A provider logs a receipt with the receipt's own time, so its log entry can be rebuilt.
fn check_log_proof(
    receipt: &Signed<Receipt>,
    proof: &LogProof,
) -> Result<SignedCheckpoint, String> {
    let checkpoint = SignedCheckpoint::open_of(proof.checkpoint.as_bytes(), &receipt.key())
        .map_err(|e| e.to_string())?;
    let entry =
        LogEntry { unix_ms: receipt.issued_unix_ms, body: LogBody::Receipt(receipt.clone()) };
    let payload = entry.encode().map_err(|e| e.to_string())?;
    let path: Vec<peerproof_log::Hash> = proof.path.iter().map(|hash| *hash.as_bytes()).collect();
    checkpoint.verify_entry(&payload, proof.index, &path).map_err(|e| e.to_string())?;
    Ok(checkpoint)
}

fn accused(evidence: &Evidence) -> PeerId {
    match evidence {
        Evidence::WrongAnswer(wrong) => wrong.case.receipt.key().peer_id(),
        Evidence::Equivocation(both) => both.first.key().peer_id(),
        Evidence::Observation(seen) => seen.provider.peer_id(),
        Evidence::FalseVerdict(said) => said.verdict.key().peer_id(),
        Evidence::Fork(fork) => fork.key.peer_id(),
        Evidence::Fraud(claim) => claim.accused.peer_id(),
    }
}
