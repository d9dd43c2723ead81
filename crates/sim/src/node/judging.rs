//! The auditor's side: requests, replays and log around one [`Bench`].

use std::collections::{BTreeMap, BTreeSet};

use peerproof_identity::PeerId;
use peerproof_job::auditor::{Bench, CaseId, Config, In, Out, StreamId};
use peerproof_job::limits::MAX_QUEUED_AUDITS;
use peerproof_proof::audit::{Findings, audit};
use peerproof_proof::lottery::Ticket;
use peerproof_proof::verdict;
use peerproof_wire::{
    AuditReply, AuditRequest, Case, Difference, LogBody, Message as _, Mismatch, NetworkGroup,
    Outcome, Signed, Verdict,
};

use crate::check::Violation;
use crate::conduct::AuditorLie;
use crate::net::{End, Piece, StreamNo};
use crate::toy::Toy;
use crate::world::{Context, Wake};

use super::Node;

/// A bench and what runs for it.
#[derive(Debug)]
pub(super) struct Judging {
    pub(super) bench: Bench,
    /// The number of the timer that counts.
    pub(super) timer: u64,
    running: BTreeSet<CaseId>,
    peers: BTreeMap<StreamId, PeerId>,
    /// When each peer's requests were taken, to hold against its rate.
    taken: BTreeMap<PeerId, Vec<u64>>,
    /// What an auditor shows that would rather not work.
    old: Option<Signed<Verdict>>,
}

impl Judging {
    pub(super) fn new(bench: Bench) -> Self {
        Self {
            bench,
            timer: 0,
            running: BTreeSet::new(),
            peers: BTreeMap::new(),
            taken: BTreeMap::new(),
            old: None,
        }
    }
}

pub(super) fn config() -> Config {
    Config { open_ms: 3_000, audit_ms: 30_000, ..Config::default() }
}

impl Node {
    /// Something came out of a stream that somebody opened for a verdict.
    pub(crate) fn judge(
        &mut self,
        context: &mut Context,
        stream: StreamNo,
        peer: PeerId,
        piece: Piece,
    ) {
        let id = StreamId(stream.0);
        let event = match piece {
            Piece::Opened => {
                self.judging.peers.insert(id, peer);
                In::Opened { stream: id, peer, group: NetworkGroup::Local }
            }
            Piece::Frame(bytes) => match AuditRequest::decode(&bytes) {
                Ok(AuditRequest::Case(case)) => In::Requested(id, case),
                // Nobody here draws lots apart from verdicts.
                Ok(_) => In::Unreadable(id, "not a case".into()),
                Err(error) => In::Unreadable(id, error.to_string()),
            },
            Piece::Finished | Piece::Reset => In::Closed(id),
            Piece::Ready | Piece::Refused => return,
        };
        if matches!(event, In::Closed(_)) {
            context.leave(stream, End::Acceptor);
            self.judging.peers.remove(&id);
        }
        let before = self.judging.bench.audits();
        let asked = matches!(event, In::Requested(..));
        self.bench_step(context, event);
        if asked && self.judging.bench.audits() > before {
            self.check_rate(context, peer);
        }
        let (got, limit) = (self.judging.bench.audits(), MAX_QUEUED_AUDITS + config().max_running);
        if got > limit {
            context.facts.violate(Violation::Crowded { node: self.index, got, limit });
        }
    }

    /// No peer has more audits done than its rate allows.
    fn check_rate(&mut self, context: &mut Context, peer: PeerId) {
        let config = config();
        let now = self.local(context.now).0;
        let taken = self.judging.taken.entry(peer).or_default();
        taken.push(now);
        let first = taken.first().copied().unwrap_or(now);
        // What a key gets that has brought nothing but sound cases.
        let most = config.known;
        let allowed = u64::from(most.burst) + (now - first) / most.refill_ms + 1;
        if taken.len() as u64 > allowed {
            let got = taken.len() as u64;
            context.facts.violate(Violation::Rate { node: self.index, got, allowed });
        }
    }

    pub(super) fn bench_step(&mut self, context: &mut Context, event: In) {
        let now = self.local(context.now);
        for out in self.judging.bench.handle(now, event) {
            match out {
                Out::RunAudit { id, case, .. } => {
                    self.judging.running.insert(id);
                    let event = super::Errand::Judge(id, case.clone());
                    let wait = 5 + positions(&case) / 4;
                    self.wake_after(context, wait, Wake::Errand(0, event));
                }
                // Draws are not asked for here.
                Out::Draw(..) => {}
                Out::StopAudit(id) => {
                    self.judging.running.remove(&id);
                }
                Out::Reply(stream, reply) => {
                    let bytes = reply.encode().expect("replies keep their limits");
                    if let AuditReply::Failure(_) = reply {
                        self.turned_down(context, stream);
                    }
                    context.send(StreamNo(stream.0), End::Acceptor, bytes);
                }
                Out::Close(stream) => {
                    self.judging.peers.remove(&stream);
                    context.leave(StreamNo(stream.0), End::Acceptor);
                }
                Out::SetTimer(at) => {
                    self.judging.timer += 1;
                    self.wake_at(context, at, Wake::BenchTimer(self.judging.timer));
                }
            }
        }
    }

    fn turned_down(&self, context: &mut Context, stream: StreamId) {
        if let Some(known) = context.net.get(StreamNo(stream.0)) {
            *context.facts.turned_down.entry(known.opener).or_default() += 1;
        }
    }

    /// An audit is done: sign, log, answer.
    pub(super) fn judged(&mut self, context: &mut Context, id: CaseId, case: &Case) {
        if !self.judging.running.remove(&id) {
            return;
        }
        let verdict = match self.conduct.auditor() {
            Some(AuditorLie::Silent) => return,
            lie => self.verdict(context, case, lie),
        };
        if !self.disk.is_dead() {
            self.bench_step(context, In::Done(id, verdict));
        }
    }

    fn verdict(
        &mut self,
        context: &mut Context,
        case: &Case,
        lie: Option<AuditorLie>,
    ) -> Result<Signed<Verdict>, String> {
        context.facts.costs.positions += positions(case);
        let mut findings = audit(&Toy::default(), case, None, &self.key.public())
            .map_err(|error| error.to_string())?;
        match lie {
            Some(AuditorLie::Echo) => {
                findings = Findings { outcome: Outcome::Pass, work: case.receipt.transcript_root };
            }
            Some(AuditorLie::Colluder) => findings.outcome = Outcome::Pass,
            Some(AuditorLie::FalseAccuser) => {
                findings.outcome = Outcome::Fail(Mismatch {
                    // Accusers who have not met do not say the same.
                    position: self.index as u32,
                    what: Difference::State,
                    expected: vec![1; 32],
                    got: vec![2; 32],
                });
            }
            _ => {}
        }
        let ticket =
            Ticket::draw(&self.key.vrf(), &case.receipt).map_err(|error| error.to_string())?;
        let unix_ms = self.unix_ms(context.now);
        let verdict = verdict::build(&self.key, case, findings, Some(&ticket), unix_ms)
            .map_err(|error| error.to_string())?;
        if lie == Some(AuditorLie::OldVerdict) {
            return Ok(self.judging.old.get_or_insert(verdict).clone());
        }
        self.record(context, LogBody::Verdict(verdict.clone()));
        Ok(verdict)
    }
}

/// How much there is to recompute.
pub(super) fn positions(case: &Case) -> u64 {
    u64::from(case.receipt.prompt_tokens) + case.tokens.len() as u64
}
