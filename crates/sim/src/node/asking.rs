//! The router's side: streams and checks around one [`Job`].

use std::collections::{BTreeMap, VecDeque};

use peerproof_identity::PeerId;
use peerproof_job::router::{
    BindingsQuestion, Broken, Closed, In, Job, LaneId, Options, Out, Outcome,
};
use peerproof_job::{Candidate, Entropy};
use peerproof_log::{Hash, SignedCheckpoint};
use peerproof_proof::audit::verify_case;
use peerproof_proof::challenge;
use peerproof_proof::receipt::{Answer, BindingError, Field, verify_bindings};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Challenge, LogBody, LogEntry, LogProof, Message as _, NetworkGroup, Offer, Openings, Prompt,
    ProviderFrame, Receipt, Sampling, Signed,
};

use crate::check::Violation;
use crate::facts::JobFact;
use crate::net::{End, Piece, Protocol, StreamNo};
use crate::scenario::JobPlan;
use crate::toy::{CONTEXT, MODEL};
use crate::world::{Context, Wake};

use super::errand::Owner;
use super::{Node, Opened};

/// How long until the providers of a model are known.
const SEARCH_MS: u64 = 40;

/// One job on its way.
pub(super) struct Asking {
    job: Job,
    offer: Signed<Offer>,
    lanes: BTreeMap<LaneId, StreamNo>,
    /// The number of the timer that counts.
    timer: u64,
    /// Providers that were barred when they were named.
    barred: Vec<PeerId>,
    /// Where the world keeps what the client saw.
    fact: usize,
}

impl Node {
    /// The next job of the plan starts.
    pub(super) fn ask(&mut self, context: &mut Context, plan: usize) {
        if !self.started.insert(plan) {
            return;
        }
        let wanted = self.plan.jobs[plan].clone();
        let nonce = self.random.bytes();
        let offer = self.offer(&wanted, client_nonce_hash(&nonce));
        let offer = Signed::sign(&self.session, offer).expect("an offer within its limits");
        let options = Options {
            challenge: wanted.challenge,
            audit_permille: wanted.audit_permille,
            ..Options::default()
        };
        let entropy = Entropy::new(self.random.bytes());
        let now = self.local(context.now);
        let (job, outs) = Job::start(offer.clone(), nonce, options, entropy, now);
        context.facts.jobs.push(JobFact {
            router: self.index,
            plan: wanted,
            offer: offer.clone(),
            tokens: Vec::new(),
            text: String::new(),
            outcome: None,
            lost: false,
        });
        let fact = context.facts.jobs.len() - 1;
        let (lanes, barred) = (BTreeMap::new(), Vec::new());
        self.jobs.insert(plan, Asking { job, offer, lanes, timer: 0, barred, fact });
        let mut inbox = VecDeque::new();
        for out in outs {
            self.job_out(context, plan, out, &mut inbox);
        }
        while let Some(event) = inbox.pop_front() {
            self.job_step(context, plan, event);
        }
    }

    fn offer(&mut self, wanted: &JobPlan, client_nonce_hash: peerproof_wire::Digest) -> Offer {
        let words = ["true", "up", "left", "charm", "odd", "five"];
        let count = self.random.between(1, 4);
        let prompt: Vec<&str> =
            (0..count).map(|_| words[self.random.below(words.len() as u64) as usize]).collect();
        Offer {
            model_id: MODEL,
            prompt: Prompt::Text(format!("what is {}?", prompt.join(" "))),
            sampling: Sampling {
                temperature_q16: if wanted.samples { 1 << 16 } else { 0 },
                ..Sampling::GREEDY
            },
            max_tokens: wanted.max_tokens,
            stop: if wanted.stops { vec!["ab".into(), "q".into()] } else { Vec::new() },
            level: wanted.level,
            public_nonce: self.random.bytes(),
            client_nonce_hash,
            deadline_ms: 60_000,
            pooling: None,
            class: peerproof_wire::Class::Exact,
        }
    }

    /// Tells a job something, and does what it says.
    pub(super) fn job_step(&mut self, context: &mut Context, plan: usize, event: In) {
        let mut inbox = VecDeque::from([event]);
        while let Some(event) = inbox.pop_front() {
            let now = self.local(context.now);
            let Some(asking) = self.jobs.get_mut(&plan) else { return };
            let outs = asking.job.handle(now, event);
            for out in outs {
                self.job_out(context, plan, out, &mut inbox);
            }
        }
    }

    pub(super) fn job_timer(&mut self, context: &mut Context, plan: usize, set: u64) {
        if self.jobs.get(&plan).is_some_and(|asking| asking.timer == set) {
            self.job_step(context, plan, In::Timer);
        }
    }

    fn job_out(&mut self, context: &mut Context, plan: usize, out: Out, inbox: &mut VecDeque<In>) {
        let Some(asking) = self.jobs.get_mut(&plan) else { return };
        match out {
            Out::FindCandidates => self.find_candidates(context, plan),
            Out::OpenStream { lane, peer } => self.open_lane(context, plan, lane, peer),
            Out::Send(lane, frame) => {
                if let Some(stream) = asking.lanes.get(&lane) {
                    let bytes = frame.encode().expect("frames keep their limits");
                    context.send(*stream, End::Opener, bytes);
                }
            }
            Out::CloseStream(lane) => {
                if let Some(stream) = asking.lanes.remove(&lane) {
                    self.opened.remove(&stream);
                    context.leave(stream, End::Opener);
                }
            }
            Out::Emit { start, tokens, text, .. } => {
                let fact = &mut context.facts.jobs[asking.fact];
                if start as usize != fact.tokens.len() {
                    let (expected, got) = (fact.tokens.len(), start as usize);
                    context.facts.violate(Violation::Gap { router: self.index, expected, got });
                    return;
                }
                fact.tokens.extend(tokens);
                fact.text.push_str(&text);
            }
            Out::Notice(notice) => {
                context.trace.note(context.now, format_args!("node {} {notice:?}", self.index));
            }
            Out::CheckBindings(question) => {
                let checked = check_bindings(&asking.offer, &question);
                inbox.push_back(In::BindingsChecked(question.lane, checked));
            }
            Out::CheckLogProof { lane, receipt, proof } => {
                let checked = check_log_proof(&receipt, &proof);
                let held = checked.as_ref().ok().cloned();
                inbox.push_back(In::LogProofChecked(lane, checked.map(drop)));
                if let Some(checkpoint) = held {
                    self.know_checkpoint(context, &checkpoint);
                }
            }
            Out::CheckOpenings { lane, receipt, tokens, openings, client_nonce } => {
                let offer = asking.offer.clone();
                context.facts.costs.positions += openings.openings.len() as u64;
                let checked = check_openings(&offer, &receipt, &tokens, &openings, client_nonce);
                inbox.push_back(In::OpeningsChecked(lane, checked));
            }
            Out::Audit { lane, case, exclude, .. } => {
                self.start_errand(context, Owner::Job(plan, lane), *case, &exclude);
            }
            Out::Record(body) => self.record(context, *body),
            // A file beside the log, for people.
            Out::Keep(_) => {}
            Out::SetTimer(at) => {
                asking.timer += 1;
                let set = asking.timer;
                self.wake_at(context, at, Wake::JobTimer(plan, set));
            }
            Out::Finish(outcome) => self.finish_job(context, plan, *outcome),
        }
    }

    fn finish_job(&mut self, context: &mut Context, plan: usize, outcome: Outcome) {
        let Some(asking) = self.jobs.remove(&plan) else { return };
        context.trace.note(
            context.now,
            format_args!(
                "node {} job {plan}: {:?}, {}",
                self.index, outcome.end, outcome.verification.done
            ),
        );
        for attempt in &outcome.trail {
            context.trace.note(context.now, format_args!("  left {attempt}"));
        }
        context.facts.costs.wait_ms += outcome.verification.cost_ms;
        if let Some(receipt) = &outcome.receipt {
            self.know_receipt(context, receipt);
        }
        let fact = &mut context.facts.jobs[asking.fact];
        // Whoever dies writing down how a job ended has not told its client.
        fact.lost = self.disk.is_dead();
        fact.outcome = Some(outcome);
    }

    fn find_candidates(&mut self, context: &mut Context, plan: usize) {
        let order = &self.plan.jobs[plan].order;
        let unix_ms = self.unix_ms(context.now);
        let mut candidates = Vec::new();
        for (index, node) in context.scenario.nodes.iter().enumerate() {
            if !node.serves || index == self.index {
                continue;
            }
            let peer = context.peers[index];
            let place = order.iter().position(|wanted| *wanted == index);
            candidates.push(Candidate {
                peer,
                context_length: CONTEXT,
                active_jobs: 0,
                queued_jobs: 0,
                max_jobs: 2,
                rtt_ms: Some(context.scenario.weather.most_ms as u32),
                standing: self.reputation.standing(&peer, unix_ms),
                preferred: place.map(|place| place as u16),
                group: NetworkGroup::Local,
            });
        }
        let barred: Vec<PeerId> = self.barred().collect();
        if let Some(asking) = self.jobs.get_mut(&plan) {
            asking.barred = barred;
        }
        let found = Wake::Job(plan, Box::new(In::Candidates(candidates)));
        self.wake_after(context, SEARCH_MS, found);
        self.wake_after(context, SEARCH_MS + 60, Wake::Job(plan, Box::new(In::SearchOver)));
    }

    fn open_lane(&mut self, context: &mut Context, plan: usize, lane: LaneId, peer: PeerId) {
        let Some(to) = self.node_of(context, peer) else { return };
        if self.jobs.get(&plan).is_some_and(|asking| asking.barred.contains(&peer)) {
            context.facts.violate(Violation::AskedBarred { router: self.index, provider: to });
        }
        let own = self.session.public().peer_id();
        let stream = context.open(Protocol::Job, self.index, own, to);
        self.opened.insert(stream, Opened::Lane { job: plan, lane });
        if let Some(asking) = self.jobs.get_mut(&plan) {
            asking.lanes.insert(lane, stream);
        }
    }

    pub(super) fn lane_piece(
        &mut self,
        context: &mut Context,
        plan: usize,
        lane: LaneId,
        stream: StreamNo,
        piece: Piece,
    ) {
        let gone = |why: &str| In::Closed(lane, Closed::Gone(why.into()));
        let event = match piece {
            Piece::Ready => In::Opened(lane),
            Piece::Refused => In::OpenFailed(lane, "nobody is there".into()),
            Piece::Frame(bytes) => match ProviderFrame::decode(&bytes) {
                Ok(frame) => {
                    if matches!(frame, ProviderFrame::Openings(_)) {
                        context.facts.costs.bytes += bytes.len() as u64;
                    }
                    In::Frame(lane, frame)
                }
                Err(error) => {
                    context.leave(stream, End::Opener);
                    In::Closed(lane, Closed::Garbage(error.to_string()))
                }
            },
            Piece::Finished => gone("the provider closed the stream"),
            Piece::Reset => gone("the stream was reset"),
            Piece::Opened => return,
        };
        self.job_step(context, plan, event);
    }
}

/// The same questions that `peerproof` asks of a receipt.
fn check_bindings(offer: &Signed<Offer>, question: &BindingsQuestion) -> Result<(), Broken> {
    let whole = |detail: String| Broken { only_text: false, detail };
    if question.receipt.prompt_tokens != question.prompt_tokens {
        return Err(whole(format!(
            "receipt prompt_tokens: expected {}, as accepted, got {}",
            question.prompt_tokens, question.receipt.prompt_tokens
        )));
    }
    let Some(text) = &question.text else {
        verify_case(offer, &question.receipt, &question.tokens)
            .map_err(|error| whole(error.to_string()))?;
        return Err(Broken { only_text: true, detail: "the text is not known in full".into() });
    };
    let answer = Answer { tokens: &question.tokens, text, logprobs: &question.logprobs };
    let provider = question.provider.public_key();
    verify_bindings(offer, &question.receipt, &provider, answer, &question.commitments).map_err(
        |error| Broken {
            only_text: matches!(error, BindingError::Digest { field: Field::TextHash, .. }),
            detail: error.to_string(),
        },
    )
}

fn check_log_proof(
    receipt: &Signed<Receipt>,
    proof: &LogProof,
) -> Result<SignedCheckpoint, String> {
    let checkpoint = SignedCheckpoint::open_of(proof.checkpoint.as_bytes(), &receipt.key())
        .map_err(|error| error.to_string())?;
    let entry =
        LogEntry { unix_ms: receipt.issued_unix_ms, body: LogBody::Receipt(receipt.clone()) };
    let payload = entry.encode().map_err(|error| error.to_string())?;
    let path: Vec<Hash> = proof.path.iter().map(|hash| *hash.as_bytes()).collect();
    checkpoint.verify_entry(&payload, proof.index, &path).map_err(|error| error.to_string())?;
    Ok(checkpoint)
}

fn check_openings(
    offer: &Signed<Offer>,
    receipt: &Signed<Receipt>,
    tokens: &[u32],
    openings: &Openings,
    client_nonce: [u8; 32],
) -> Result<(), String> {
    let challenge = Challenge {
        receipt_id: receipt.id(),
        client_nonce,
        positions: Vec::new(),
        leaf_hashes: false,
    };
    challenge::verify_openings(offer, receipt, tokens, &[], &challenge, openings)
        .map_err(|error| error.to_string())
}
