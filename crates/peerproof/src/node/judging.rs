//! The auditor's side: streams, replays and log around one [`Bench`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use peerproof_identity::Keypair;
use peerproof_job::auditor::{Bench, CaseId, In, Out, StreamId};
use peerproof_net::{FrameStream, Handle, Incoming};
use peerproof_proof::lottery::Ticket;
use peerproof_proof::verdict;
use peerproof_wire::evidence::LogBody;
use peerproof_wire::{
    AuditReply, AuditRequest, Case, DrawRequest, Message as _, NetworkGroup, Signed, Verdict,
    VrfDraw,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::auditing::Replays;
use super::clock::Clock;
use super::incidents::group_of;
use super::ledger::Ledger;
use super::watching::Watch;

/// What waits for the bench.
const INBOX: usize = 1024;
/// A router that asks for nothing within this time is gone.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than any audit waits and runs.
const LONGEST_AUDIT: Duration = Duration::from_secs(600);

/// What judging needs of the node.
pub(super) struct Court {
    pub(super) key: Arc<Keypair>,
    pub(super) clock: Clock,
    pub(super) ledger: Arc<Ledger>,
    pub(super) replays: Arc<Replays>,
    pub(super) net: Handle,
    pub(super) watch: Arc<Watch>,
}

/// Judges until `stop` turns true.
pub(super) async fn run(
    court: Court,
    bench: Bench,
    mut incoming: Incoming,
    mut stop: watch::Receiver<bool>,
) {
    let (inbox, mut events) = mpsc::channel(INBOX);
    let mut judging = Judging {
        court: Arc::new(court),
        bench,
        inbox,
        streams: HashMap::new(),
        audits: HashMap::new(),
        tasks: JoinSet::new(),
        timer: None,
        next_stream: 0,
    };
    loop {
        let timer = judging.timer;
        let event = tokio::select! {
            stream = incoming.next() => match stream {
                Some((peer, stream)) => {
                    let group = group_of(&judging.court.net, peer).await;
                    judging.opened(stream, group)
                }
                None => return,
            },
            Some(event) = events.recv() => event,
            () = super::sleep_until(timer) => {
                judging.timer = None;
                In::Timer
            }
            Some(_) = judging.tasks.join_next() => continue,
            () = super::stopping(&mut stop) => return,
        };
        judging.step(event);
    }
}

struct Judging {
    court: Arc<Court>,
    bench: Bench,
    inbox: mpsc::Sender<In>,
    streams: HashMap<StreamId, oneshot::Sender<AuditReply>>,
    audits: HashMap<CaseId, tokio::task::AbortHandle>,
    tasks: JoinSet<()>,
    timer: Option<tokio::time::Instant>,
    next_stream: u64,
}

impl Judging {
    fn opened(&mut self, stream: FrameStream, group: NetworkGroup) -> In {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let peer = stream.peer();
        let (reply, replied) = oneshot::channel();
        self.streams.insert(id, reply);
        self.tasks.spawn(converse(id, stream, replied, self.inbox.clone()));
        In::Opened { stream: id, peer, group }
    }

    fn step(&mut self, event: In) {
        if let In::Closed(stream) = event {
            self.streams.remove(&stream);
        }
        for out in self.bench.handle(self.court.clock.now(), event) {
            match out {
                Out::Draw(stream, request) => {
                    let drawn = draw(&self.court, &request);
                    if self.inbox.try_send(In::Drawn(stream, drawn)).is_err() {
                        tracing::warn!("too much waits for the auditor to draw");
                    }
                }
                Out::RunAudit { id, case, .. } => self.audit(id, *case),
                Out::StopAudit(id) => {
                    if let Some(task) = self.audits.remove(&id) {
                        task.abort();
                    }
                }
                Out::Reply(stream, reply) => {
                    if let Some(waiting) = self.streams.remove(&stream) {
                        let _ = waiting.send(reply);
                    }
                }
                Out::Close(stream) => {
                    self.streams.remove(&stream);
                }
                Out::SetTimer(at) => self.timer = Some(self.court.clock.instant(at)),
            }
        }
    }

    fn audit(&mut self, id: CaseId, case: Case) {
        let (court, inbox) = (Arc::clone(&self.court), self.inbox.clone());
        let task = self.tasks.spawn(async move {
            let verdict = judge(&court, Arc::new(case)).await;
            let _ = inbox.send(In::Done(id, verdict)).await;
        });
        self.audits.retain(|_, task| !task.is_finished());
        self.audits.insert(id, task);
    }
}

/// One request and its reply.
async fn converse(
    id: StreamId,
    mut stream: FrameStream,
    replied: oneshot::Receiver<AuditReply>,
    inbox: mpsc::Sender<In>,
) {
    let event = match stream.recv().await {
        Ok(Some(frame)) => match AuditRequest::decode(&frame) {
            Ok(AuditRequest::Case(case)) => In::Requested(id, case),
            Ok(AuditRequest::Tested(_)) => In::Unreadable(id, "not tested here".into()),
            Ok(AuditRequest::Draw(request)) => In::DrawRequested(id, request),
            Err(error) => In::Unreadable(id, error.to_string()),
        },
        Ok(None) => In::Closed(id),
        Err(error) => In::Unreadable(id, error.to_string()),
    };
    if inbox.send(event).await.is_err() {
        return;
    }
    stream.set_read_timeout(LONGEST_AUDIT);
    let reply = tokio::select! {
        reply = replied => reply,
        // Nothing more is expected: whatever comes, the asker is gone or out of line.
        _ = stream.recv() => {
            let _ = inbox.send(In::Closed(id)).await;
            return;
        }
    };
    if let Ok(reply) = reply
        && let Ok(bytes) = reply.encode()
        && stream.send(&bytes).await.is_ok()
    {
        let _ = stream.finish().await;
    }
}

/// What this auditor draws over a receipt it has not seen.
fn draw(court: &Court, request: &DrawRequest) -> Result<VrfDraw, String> {
    let vrf = court.key.vrf();
    let ticket = Ticket::draw_over(&vrf, &request.transcript_root, &request.offer_id);
    let ticket = ticket.map_err(|e| e.to_string())?;
    Ok(VrfDraw { key: *ticket.key(), proof: *ticket.proof() })
}

/// Recomputes, signs, logs. The lot is drawn over the receipt, so a reader can tell whether
/// this auditor was drawn for it.
async fn judge(court: &Court, case: Arc<Case>) -> Result<Signed<Verdict>, String> {
    court.watch.receipt(&case.receipt).await;
    let findings = match court.replays.audit(Arc::clone(&case), None, court.key.public()).await {
        Some(found) => found?,
        None => return Err(format!("model {} is not held here", case.offer.model_id)),
    };
    let ticket = Ticket::draw(&court.key.vrf(), &case.receipt).map_err(|e| e.to_string())?;
    let unix_ms = court.clock.unix_ms();
    let verdict = verdict::build(&court.key, &case, findings, Some(&ticket), unix_ms)
        .map_err(|e| e.to_string())?;
    let entry = court.ledger.remember(LogBody::Verdict(verdict.clone()));
    court.ledger.append(&entry).await.map_err(|e| e.to_string())?;
    Ok(verdict)
}
