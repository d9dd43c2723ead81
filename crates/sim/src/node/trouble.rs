//! Routers that make trouble: floods, replays, borrowed offers, false cases, slander.

use std::collections::BTreeMap;

use peerproof_identity::Keypair;
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    AuditRequest, Case, Challenge, Difference, Equivocation, Evidence, Level, LogBody, LogEntry,
    Message as _, Mismatch, Observation, Offer, Prompt, ProviderFrame, Receipt, RouterFrame,
    Sampling, Signed, WrongAnswer,
};

use crate::conduct::RouterLie;
use crate::net::{End, Piece, Protocol, StreamNo};
use crate::toy::MODEL;
use crate::work::Work;
use crate::world::{Context, Event, Wake};

use super::errand::made_up;
use super::{Node, Opened};

const EVERY_MS: u64 = 400;
/// How often trouble is made.
const TIMES: u32 = 12;
/// Requests of one flood at once.
const FLOOD: usize = 12;

/// What a troublemaker has at hand.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    times: u32,
    /// What to write on each stream once it is open.
    letters: BTreeMap<StreamNo, Vec<u8>>,
    /// Offers behind streams, and the tokens that came.
    asked: BTreeMap<StreamNo, (Signed<Offer>, Vec<u32>)>,
    /// Answers it got, to misuse them.
    got: Vec<(Signed<Offer>, Signed<Receipt>, Vec<u32>)>,
    /// An offer that was answered, and by whom.
    answered: Option<(usize, Signed<Offer>)>,
}

impl Node {
    /// Makes some trouble, and plans the next.
    pub(super) fn make_trouble(&mut self, context: &mut Context) {
        let Some(lie) = self.conduct.router() else { return };
        self.trouble.times += 1;
        if self.trouble.times < TIMES {
            self.wake_after(context, EVERY_MS, Wake::Trouble);
        }
        let providers = self.others(context, |node| node.serves);
        let auditors = self.others(context, |node| node.audits);
        match lie {
            RouterLie::OfferFlood => {
                for provider in providers {
                    for _ in 0..FLOOD {
                        let offer = self.troublesome_offer(32);
                        self.send_offer(context, provider, offer);
                    }
                }
            }
            RouterLie::AuditFlood => {
                let key = Keypair::from_seed(&self.random.bytes());
                for auditor in auditors {
                    for _ in 0..FLOOD {
                        let offer = self.troublesome_offer(2);
                        let case = made_up(&key, &offer, &Work::honest(&offer));
                        self.send_case(context, auditor, case);
                    }
                }
            }
            RouterLie::Borrow => {
                let lender = Keypair::from_seed(&self.random.bytes());
                for provider in providers {
                    let offer = self.troublesome_offer(8).statement().clone();
                    let offer = Signed::sign(&lender, offer).expect("an offer within its limits");
                    self.send_offer(context, provider, offer);
                }
            }
            RouterLie::Replay | RouterLie::WrongNonce => {
                let again = self.trouble.answered.clone().filter(|_| lie == RouterLie::Replay);
                match (again, providers.first()) {
                    (Some((provider, offer)), _) => self.send_offer(context, provider, offer),
                    (None, Some(provider)) => {
                        let offer = self.troublesome_offer(8);
                        self.send_offer(context, *provider, offer);
                    }
                    (None, None) => {}
                }
            }
            RouterLie::FalseCase | RouterLie::Slander => {
                self.misuse(context, lie, &providers, &auditors);
            }
        }
    }

    /// Gets an honest answer first, then says things about it.
    fn misuse(
        &mut self,
        context: &mut Context,
        lie: RouterLie,
        providers: &[usize],
        auditors: &[usize],
    ) {
        let Some((offer, receipt, tokens)) = self.trouble.got.last().cloned() else {
            if let Some(provider) = providers.first() {
                let offer = self.troublesome_offer(8);
                self.send_offer(context, *provider, offer);
            }
            return;
        };
        let case = Case { offer, receipt, tokens };
        if lie == RouterLie::FalseCase {
            let mut tokens = case.tokens.clone();
            tokens[0] = crate::toy::another(tokens[0]);
            for auditor in auditors {
                let tokens = tokens.clone();
                self.send_case(context, *auditor, Case { tokens, ..case.clone() });
            }
            return;
        }
        for to in 0..context.peers.len() {
            for evidence in slanders(&case) {
                let body = LogBody::Evidence(evidence);
                let entry = LogEntry { unix_ms: self.unix_ms(context.now), body };
                let bytes = entry.encode().expect("an entry within its limits");
                *context.facts.troubles.entry(self.index).or_default() += 1;
                let at = context.now + context.net.delay();
                context.at(at, Event::News { to, from: self.index, bytes });
            }
        }
    }

    fn others(
        &self,
        context: &Context,
        wanted: fn(&crate::scenario::NodePlan) -> bool,
    ) -> Vec<usize> {
        let nodes = context.scenario.nodes.iter().enumerate();
        nodes
            .filter(|(index, node)| {
                *index != self.index && node.conduct.is_honest() && wanted(node)
            })
            .map(|(index, _)| index)
            .collect()
    }

    fn troublesome_offer(&mut self, max_tokens: u32) -> Signed<Offer> {
        let offer = Offer {
            model_id: MODEL,
            prompt: Prompt::Text("what is mine?".into()),
            sampling: Sampling::GREEDY,
            max_tokens,
            stop: Vec::new(),
            level: Level::Receipt,
            public_nonce: self.random.bytes(),
            client_nonce_hash: client_nonce_hash(&self.random.bytes()),
            deadline_ms: 20_000,
            pooling: None,
            class: peerproof_wire::Class::Exact,
        };
        Signed::sign(&self.session, offer).expect("an offer within its limits")
    }

    fn send_offer(&mut self, context: &mut Context, provider: usize, offer: Signed<Offer>) {
        let open = RouterFrame::Open { offer: offer.clone(), resume: Vec::new() };
        let letter = open.encode().expect("a frame within its limits");
        let stream = self.send_letter(context, Protocol::Job, provider, letter);
        self.trouble.asked.insert(stream, (offer, Vec::new()));
    }

    fn send_case(&mut self, context: &mut Context, auditor: usize, case: Case) {
        let letter = AuditRequest::Case(Box::new(case)).encode().expect("a case within its limits");
        self.send_letter(context, Protocol::Audit, auditor, letter);
    }

    fn send_letter(
        &mut self,
        context: &mut Context,
        protocol: Protocol,
        to: usize,
        letter: Vec<u8>,
    ) -> StreamNo {
        let own = self.session.public().peer_id();
        let stream = context.open(protocol, self.index, own, to);
        self.opened.insert(stream, Opened::Trouble);
        self.trouble.letters.insert(stream, letter);
        *context.facts.troubles.entry(self.index).or_default() += 1;
        stream
    }

    pub(super) fn trouble_piece(&mut self, context: &mut Context, stream: StreamNo, piece: Piece) {
        match piece {
            Piece::Ready => {
                if let Some(letter) = self.trouble.letters.remove(&stream) {
                    context.send(stream, End::Opener, letter);
                }
            }
            Piece::Frame(bytes) => {
                if let Ok(frame) = ProviderFrame::decode(&bytes) {
                    self.trouble_frame(context, stream, frame);
                }
            }
            Piece::Finished | Piece::Reset | Piece::Refused => {
                self.opened.remove(&stream);
                self.trouble.asked.remove(&stream);
                context.leave(stream, End::Opener);
            }
            Piece::Opened => {}
        }
    }

    fn trouble_frame(&mut self, context: &mut Context, stream: StreamNo, frame: ProviderFrame) {
        let Some((offer, tokens)) = self.trouble.asked.get_mut(&stream) else { return };
        match frame {
            ProviderFrame::Tokens(more) => tokens.extend(more.tokens),
            ProviderFrame::Delivered(delivered) => {
                let (offer, tokens) = (offer.clone(), tokens.clone());
                let provider = context.net.get(stream).map(|known| known.acceptor);
                self.trouble.answered = provider.map(|provider| (provider, offer.clone()));
                if self.conduct.router() == Some(RouterLie::WrongNonce) {
                    let challenge = Challenge {
                        receipt_id: delivered.receipt.id(),
                        client_nonce: [1; 32],
                        positions: Vec::new(),
                        leaf_hashes: false,
                    };
                    let frame = RouterFrame::Challenge(challenge);
                    let bytes = frame.encode().expect("a frame within its limits");
                    context.send(stream, End::Opener, bytes);
                }
                self.trouble.got.push((offer, delivered.receipt, tokens));
            }
            ProviderFrame::Failure(_) => {
                *context.facts.turned_down.entry(self.index).or_default() += 1;
            }
            ProviderFrame::Accepted(_)
            | ProviderFrame::Progress(_)
            | ProviderFrame::Openings(_) => {}
        }
    }
}

/// False accusations of every kind against the signer of a receipt that is right.
fn slanders(case: &Case) -> [Evidence; 3] {
    let mismatch =
        Mismatch { position: 2, what: Difference::State, expected: vec![1; 32], got: vec![2; 32] };
    let wrong = WrongAnswer { case: case.clone(), mismatch, opening: None, verdicts: Vec::new() };
    let twice = Equivocation { first: case.receipt.clone(), second: case.receipt.clone() };
    let key = case.receipt.key();
    let seen = Observation::new(key, "bindings: I saw it", Some(case.clone()));
    [Evidence::WrongAnswer(wrong), Evidence::Equivocation(twice), Evidence::Observation(seen)]
}
