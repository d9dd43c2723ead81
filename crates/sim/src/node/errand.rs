//! Having an answer recomputed: here, or by auditors that are asked in turn.
//!
//! One auditor's word is enough to accept. A failure counts when two auditors
//! found the same by themselves, or this node did; one alone refuses the answer and
//! bars nobody, since it could be a false accuser.
//! Nodes that hold the model also put receipts to auditors whose outcome they
//! know, and never ask again whoever got one wrong.

use peerproof_identity::{Keypair, PeerId};
use peerproof_job::auditor::CaseId;
use peerproof_job::router::{Audited, Auditor, In, LaneId};
use peerproof_proof::audit::{audit, recompute};
use peerproof_proof::receipt::output_hash;
use peerproof_proof::verdict;
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    AuditReply, AuditRequest, Case, Evidence, FalseVerdict, Level, LogBody, Message as _, Mismatch,
    Offer, Outcome, Prompt, Receipt, Sampling, Signed, Verdict, WrongAnswer,
};

use crate::check::Violation;
use crate::conduct::ProviderLie;
use crate::net::{End, Piece, Protocol, StreamNo};
use crate::toy::{MODEL, Toy};
use crate::work::Work;
use crate::world::{Context, Wake};

use super::judging::positions;
use super::{Node, Opened};

/// How long an auditor may take.
const VERDICT_MS: u64 = 35_000;
/// Auditors that are asked, one after the other.
const MAX_AUDITORS: usize = 4;

/// What an errand is told.
pub(crate) enum Errand {
    /// This node has recomputed the case.
    Local,
    /// An auditor had time enough.
    Late(StreamNo),
    /// It is time to test an auditor, with a receipt that is right or one that is not.
    Plant(usize, bool),
    /// This node's bench has had its replay.
    Judge(CaseId, Box<Case>),
}

/// Who wants to know.
pub(super) enum Owner {
    Job(usize, LaneId),
    /// A test of one auditor.
    Plant(usize),
    /// An accusation that came from others.
    Hearsay,
}

pub(super) struct AuditErrand {
    owner: Owner,
    case: Case,
    left: Vec<usize>,
    against: Vec<(PeerId, Signed<Verdict>)>,
    asked: Option<(StreamNo, usize)>,
}

impl Node {
    /// Has a case recomputed by somebody without a hand in it.
    pub(super) fn start_errand(
        &mut self,
        context: &mut Context,
        owner: Owner,
        case: Case,
        exclude: &[PeerId],
    ) {
        let id = self.next_errand;
        self.next_errand += 1;
        let auditors = context.scenario.nodes.iter().enumerate();
        let able = auditors.filter(|(index, node)| {
            node.audits
                && *index != self.index
                && !exclude.contains(&context.peers[*index])
                && !self.distrusted.contains(index)
        });
        let mut left: Vec<usize> = able.map(|(index, _)| index).collect();
        self.random.shuffle(&mut left);
        left.truncate(MAX_AUDITORS);
        if let Owner::Plant(auditor) = &owner {
            left = vec![*auditor];
        }
        let local = self.plan.holds && !matches!(owner, Owner::Plant(_));
        let wait = 5 + positions(&case) / 4;
        let errand = AuditErrand { owner, case, left, against: Vec::new(), asked: None };
        self.errands.insert(id, errand);
        if local {
            self.wake_after(context, wait, Wake::Errand(id, Errand::Local));
        } else {
            self.ask_next(context, id);
        }
    }

    pub(super) fn errand_step(&mut self, context: &mut Context, id: u64, what: Errand) {
        match what {
            Errand::Local => self.recomputed(context, id),
            Errand::Late(stream) => {
                let asked = self.errands.get(&id).and_then(|errand| errand.asked);
                if asked.is_some_and(|(asked, _)| asked == stream) {
                    self.opened.remove(&stream);
                    context.leave(stream, End::Opener);
                    self.ask_next(context, id);
                }
            }
            Errand::Plant(auditor, right) => self.plant(context, auditor, right),
            Errand::Judge(case_id, case) => self.judged(context, case_id, &case),
        }
    }

    fn recomputed(&mut self, context: &mut Context, id: u64) {
        let Some(errand) = self.errands.get(&id) else { return };
        context.facts.costs.positions += positions(&errand.case);
        let found = audit(&Toy::default(), &errand.case, None, &self.session.public());
        let by = Auditor::Local;
        let audited = match found.map(|findings| findings.outcome) {
            Ok(Outcome::Pass) => Audited::Passed { by },
            Ok(Outcome::Fail(mismatch)) => Audited::Failed { by, mismatch, verdicts: Vec::new() },
            Ok(Outcome::Tested(_)) => Audited::Unavailable("a test settles nothing here".into()),
            Err(error) => Audited::Unavailable(error.to_string()),
        };
        self.conclude(context, id, audited);
    }

    fn ask_next(&mut self, context: &mut Context, id: u64) {
        let Some(errand) = self.errands.get_mut(&id) else { return };
        errand.asked = None;
        let Some(auditor) = errand.left.pop() else {
            let alone = errand.against.pop().map(|(by, verdict)| (by, Box::new(verdict)));
            let audited = match alone.map(|(by, verdict)| (by, verdict.outcome.clone(), verdict)) {
                Some((by, Outcome::Fail(mismatch), verdict)) => {
                    Audited::Accused { by, mismatch, verdict }
                }
                _ => Audited::Unavailable("no auditor gave a verdict".into()),
            };
            return self.conclude(context, id, audited);
        };
        let own = self.session.public().peer_id();
        let stream = context.open(Protocol::Audit, self.index, own, auditor);
        self.opened.insert(stream, Opened::Errand(id));
        if let Some(errand) = self.errands.get_mut(&id) {
            errand.asked = Some((stream, auditor));
        }
        self.wake_after(context, VERDICT_MS, Wake::Errand(id, Errand::Late(stream)));
    }

    pub(super) fn auditor_piece(
        &mut self,
        context: &mut Context,
        id: u64,
        stream: StreamNo,
        piece: Piece,
    ) {
        let Some(errand) = self.errands.get(&id) else { return };
        let Some((asked, auditor)) = errand.asked.filter(|(asked, _)| *asked == stream) else {
            return;
        };
        match piece {
            Piece::Ready => {
                let request = AuditRequest::Case(Box::new(errand.case.clone()));
                let bytes = request.encode().expect("a case within its limits");
                context.send(asked, End::Opener, bytes);
            }
            Piece::Frame(bytes) => {
                context.facts.costs.bytes += bytes.len() as u64;
                self.opened.remove(&stream);
                context.leave(stream, End::Opener);
                self.replied(context, id, auditor, &bytes);
            }
            Piece::Finished | Piece::Reset | Piece::Refused => {
                self.opened.remove(&stream);
                self.ask_next(context, id);
            }
            Piece::Opened => {}
        }
    }

    fn replied(&mut self, context: &mut Context, id: u64, auditor: usize, bytes: &[u8]) {
        let Some(errand) = self.errands.get_mut(&id) else { return };
        let peer = context.peers[auditor];
        let signed = match AuditReply::decode(bytes) {
            Ok(AuditReply::Verdict(signed)) => signed,
            Ok(_) | Err(_) => return self.ask_next(context, id),
        };
        let (offer, receipt) = (&errand.case.offer, &errand.case.receipt);
        let held = verdict::verify(&signed, &peer.public_key(), offer, receipt);
        if held.is_err() {
            self.distrust(context, auditor, "a verdict on something else");
            return self.ask_next(context, id);
        }
        if signed.receipt_id != receipt.id() {
            context.facts.violate(Violation::OtherVerdict { by: self.index, auditor });
        }
        let by = Auditor::Peer(peer);
        match (&signed.outcome, errand.against.is_empty()) {
            _ if matches!(errand.owner, Owner::Plant(_)) => {
                self.tested(context, id, auditor, &signed);
            }
            (Outcome::Pass, true) => self.conclude(context, id, Audited::Passed { by }),
            (Outcome::Pass, false) => {
                let why = "two auditors disagree".into();
                self.conclude(context, id, Audited::Unavailable(why));
            }
            (Outcome::Fail(mismatch), true) => {
                context.trace.note(
                    context.now,
                    format_args!("node {auditor} finds a fault at {}", mismatch.position),
                );
                errand.against.push((peer, signed));
                self.ask_next(context, id);
            }
            // Nobody here answers in the statistical class.
            (Outcome::Tested(_), _) => self.ask_next(context, id),
            // The same difference at the same place, or it is no second opinion.
            (Outcome::Fail(_), false) if errand.against[0].1.outcome != signed.outcome => {
                self.ask_next(context, id);
            }
            (Outcome::Fail(mismatch), false) => {
                let mismatch = mismatch.clone();
                let first = errand.against.remove(0).1;
                let verdicts = vec![first, signed];
                self.conclude(context, id, Audited::Failed { by, mismatch, verdicts });
            }
        }
    }

    fn conclude(&mut self, context: &mut Context, id: u64, audited: Audited) {
        let Some(errand) = self.errands.remove(&id) else { return };
        match (errand.owner, audited) {
            (Owner::Job(plan, lane), audited) => {
                self.job_step(context, plan, In::AuditDone(lane, audited));
            }
            (Owner::Hearsay, Audited::Failed { mismatch, verdicts, .. }) => {
                self.believe(context, errand.case, mismatch, verdicts);
            }
            // Whoever tells it again gets another hearing.
            (Owner::Hearsay, _) => self.heard.clear(),
            (Owner::Plant(_), _) => {}
        }
    }

    /// An accusation that came from others turned out to be true.
    fn believe(
        &mut self,
        context: &mut Context,
        case: Case,
        mismatch: Mismatch,
        verdicts: Vec<Signed<Verdict>>,
    ) {
        let wrong = WrongAnswer { case, mismatch, opening: None, verdicts };
        self.record(context, LogBody::Evidence(Evidence::WrongAnswer(wrong)));
    }

    /// Tests every auditor, with receipts that are right and with some that are not.
    pub(super) fn plan_plants(&mut self, context: &mut Context) {
        let nodes = context.scenario.nodes.iter().enumerate();
        let auditors: Vec<usize> = nodes
            .filter(|(index, node)| node.audits && *index != self.index)
            .map(|(index, _)| index)
            .collect();
        for auditor in auditors {
            for right in [true, false, true, false] {
                let wait = self.random.below(6_000);
                self.wake_after(context, wait, Wake::Errand(0, Errand::Plant(auditor, right)));
            }
        }
    }

    /// Puts a receipt to an auditor whose outcome is known here.
    fn plant(&mut self, context: &mut Context, auditor: usize, right: bool) {
        let provider = Keypair::from_seed(&self.random.bytes());
        let offer = Offer {
            model_id: MODEL,
            prompt: Prompt::Text("what is planted?".into()),
            sampling: Sampling { temperature_q16: 1 << 16, ..Sampling::GREEDY },
            max_tokens: 24,
            stop: Vec::new(),
            level: Level::Full,
            public_nonce: self.random.bytes(),
            client_nonce_hash: client_nonce_hash(&self.random.bytes()),
            deadline_ms: 60_000,
            pooling: None,
            class: peerproof_wire::Class::Exact,
        };
        let offer = Signed::sign(&self.session, offer).expect("an offer within its limits");
        let lie = (!right).then_some(ProviderLie::AlteredToken);
        let case = made_up(&provider, &offer, &Work::of(&offer, lie));
        self.start_errand(context, Owner::Plant(auditor), case, &[]);
    }

    fn tested(&mut self, context: &mut Context, id: u64, auditor: usize, signed: &Signed<Verdict>) {
        let Some(errand) = self.errands.remove(&id) else { return };
        let case = errand.case;
        let recomputed = recompute(&Toy::default(), &case.offer, &case.tokens);
        let held = recomputed.map_err(|error| error.to_string()).and_then(|recomputed| {
            verdict::verify_work(signed, &case.receipt, &recomputed)
                .map_err(|error| error.to_string())
        });
        if let Err(why) = held {
            self.distrust(context, auditor, &why);
            let said = FalseVerdict { case, verdict: signed.clone() };
            self.record(context, LogBody::Evidence(Evidence::FalseVerdict(said)));
        }
    }

    pub(super) fn distrust(&mut self, context: &mut Context, auditor: usize, why: &str) {
        self.distrusted.insert(auditor);
        context.trace.note(
            context.now,
            format_args!("node {} asks auditor {auditor} no more: {why}", self.index),
        );
        if self.conduct.is_honest() {
            context.facts.distrusted.insert((self.index, auditor));
        }
    }
}

/// A case of a provider that exists on paper only.
pub(super) fn made_up(provider: &Keypair, offer: &Signed<Offer>, work: &Work) -> Case {
    let receipt = Receipt {
        offer_id: offer.id(),
        model_id: offer.model_id,
        number: 1,
        previous: None,
        prompt_tokens: work.prompt_tokens,
        output_tokens: work.ended.tokens,
        stop: work.ended.stop,
        output_hash: output_hash(&work.tokens),
        text_hash: work.ended.text_hash,
        transcript_root: work.ended.transcript_root,
        kv_root: work.ended.kv_root,
        class: offer.class,
        leaves: work.ended.leaves,
        issued_unix_ms: 1,
    };
    let receipt = Signed::sign(provider, receipt).expect("a receipt within its limits");
    Case { offer: offer.clone(), receipt, tokens: work.tokens.clone() }
}
