//! The provider's side: streams, engine and log around one [`Desk`].

use std::collections::BTreeMap;

use peerproof_identity::{Keypair, PeerId};
use peerproof_job::provider::{Config, Desk, Draft, In, LeavesQuestion, Out, StreamId};
use peerproof_log::Log;
use peerproof_log::memory::MemoryStorage;
use peerproof_proof::challenge;
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Delivered, Digest, LogBody, LogEntry, LogProof, Message as _, Offer, Openings, ProviderFrame,
    Receipt, RouterFrame, Signed,
};

use crate::check::Violation;
use crate::conduct::ProviderLie;
use crate::net::{End, Piece, StreamNo};
use crate::work::Work;
use crate::world::{Context, Wake};

use super::Node;

/// How long a token takes.
const TOKEN_MS: u64 = 20;
/// Tokens a liar sends before it goes away or falls silent.
const BEGINNING: usize = 2;

/// A desk and what runs for it.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) desk: Desk,
    /// The number of the timer that counts.
    pub(super) timer: u64,
    /// Engine work that was not stopped.
    running: BTreeMap<StreamId, u64>,
    runs: u64,
    /// Whose jobs wait or run, as the desk said.
    jobs: BTreeMap<StreamId, PeerId>,
    peers: BTreeMap<StreamId, PeerId>,
    /// Offers behind the streams.
    offers: BTreeMap<StreamId, Signed<Offer>>,
}

impl Serving {
    pub(super) fn new(desk: Desk) -> Self {
        Self {
            desk,
            timer: 0,
            running: BTreeMap::new(),
            runs: 0,
            jobs: BTreeMap::new(),
            peers: BTreeMap::new(),
            offers: BTreeMap::new(),
        }
    }

    fn forget(&mut self, stream: StreamId) {
        self.jobs.remove(&stream);
        self.peers.remove(&stream);
        self.offers.remove(&stream);
        self.running.remove(&stream);
    }
}

/// Small, so that a flood reaches every limit.
pub(super) fn config() -> Config {
    Config {
        max_running: 2,
        max_queued: 8,
        max_per_peer: 4,
        open_ms: 3_000,
        linger_ms: 3_000,
        challenge_ms: 10_000,
        ..Config::default()
    }
}

impl Node {
    /// Something came out of a stream that a router opened.
    pub(crate) fn serve(
        &mut self,
        context: &mut Context,
        stream: StreamNo,
        peer: PeerId,
        piece: Piece,
    ) {
        let id = StreamId(stream.0);
        let event = match piece {
            Piece::Opened => {
                self.serving.peers.insert(id, peer);
                In::Opened { stream: id, peer }
            }
            Piece::Frame(bytes) => match RouterFrame::decode(&bytes) {
                Ok(RouterFrame::Challenge(_))
                    if self.conduct.provider() == Some(ProviderLie::OpeningsWithheld) =>
                {
                    return;
                }
                Ok(frame) => In::Frame(id, frame),
                Err(error) => In::Unreadable(id, error),
            },
            Piece::Finished | Piece::Reset => In::Closed(id),
            Piece::Ready | Piece::Refused => return,
        };
        let gone = matches!(event, In::Closed(_));
        self.desk_step(context, event);
        if gone {
            context.leave(stream, End::Acceptor);
            self.serving.forget(id);
        }
    }

    pub(super) fn desk_step(&mut self, context: &mut Context, event: In) {
        if let In::Finished(stream, _) = &event {
            self.serving.jobs.remove(stream);
        }
        let now = self.local(context.now);
        let outs = self.serving.desk.handle(now, event);
        for out in outs {
            self.desk_out(context, out);
        }
        self.check_load(context);
    }

    /// No peer has more than its share, and all of them no more than there is.
    fn check_load(&self, context: &mut Context) {
        let config = config();
        let of = |peer: &PeerId| self.serving.jobs.values().filter(|known| *known == peer).count();
        let most = self.serving.jobs.values().map(of).max().unwrap_or(0);
        let all = self.serving.jobs.len();
        let limit = config.max_running + config.max_queued;
        if most > config.max_per_peer || all > limit {
            context.facts.violate(Violation::Overloaded { node: self.index, most, all });
        }
    }

    fn desk_out(&mut self, context: &mut Context, out: Out) {
        match out {
            Out::Send(stream, frame) => self.send_frame(context, stream, frame),
            Out::Close(stream) => {
                self.serving.forget(stream);
                context.leave(StreamNo(stream.0), End::Acceptor);
            }
            Out::Prepare { stream, offer } => {
                if let Some(peer) = self.serving.peers.get(&stream) {
                    self.serving.jobs.insert(stream, *peer);
                }
                self.serving.offers.insert(stream, offer.clone());
                let count = Work::of(&offer, self.conduct.provider()).prompt_tokens;
                let wait = self.random.between(1, 10);
                self.wake_after(context, wait, Wake::Desk(In::Prepared(stream, count)));
            }
            Out::Run { stream, offer, resume } => self.compute(context, stream, &offer, &resume),
            Out::Stop(stream) => {
                self.serving.running.remove(&stream);
                self.serving.jobs.remove(&stream);
            }
            Out::Issue { stream, draft } => {
                let wait = self.random.between(1, 15);
                self.wake_after(context, wait, Wake::Issue(stream, Box::new(draft)));
            }
            Out::OpenLeaves { stream, question } => {
                if client_nonce_hash(&question.challenge.client_nonce)
                    != question.offer.client_nonce_hash
                {
                    context.facts.violate(Violation::OpenedToStranger { node: self.index });
                }
                let opened = self.open_leaves(&question);
                let wait = u64::from(question.receipt.leaves) / 2 + 1;
                self.wake_after(context, wait, Wake::Desk(In::LeavesOpened(stream, opened)));
            }
            Out::SetTimer(at) => {
                self.serving.timer += 1;
                self.wake_at(context, at, Wake::DeskTimer(self.serving.timer));
            }
        }
    }

    fn compute(
        &mut self,
        context: &mut Context,
        stream: StreamId,
        offer: &Signed<Offer>,
        resume: &[u32],
    ) {
        if self.serving.peers.get(&stream).is_some_and(|peer| *peer != offer.key().peer_id()) {
            context.facts.violate(Violation::AnsweredStranger { node: self.index });
        }
        let lie = self.conduct.provider();
        let work = Work::of(offer, lie);
        // What is shown a second time may be right; that it is shown is the lie.
        let cached = lie == Some(ProviderLie::CachedAnswer);
        if cached || lie.is_some() && work.differs(&Work::honest(offer)) {
            context.facts.lies.insert((self.index, offer.id()));
        }
        self.serving.runs += 1;
        let run = self.serving.runs;
        self.serving.running.insert(stream, run);
        let same = work.tokens.iter().zip(resume).take_while(|(ours, theirs)| ours == theirs);
        let mut start = same.count();
        let mut wait = 5 + u64::from(work.prompt_tokens) / 4;
        let breaks_off = matches!(
            lie,
            Some(ProviderLie::Stalls | ProviderLie::Leaves | ProviderLie::FalseBeginning)
        );
        let mut steps = work.steps(start);
        if breaks_off {
            steps.truncate(BEGINNING);
            context.facts.lies.insert((self.index, offer.id()));
        }
        while !steps.is_empty() {
            let some = (self.random.between(1, 3) as usize).min(steps.len());
            let rest = steps.split_off(some);
            wait += TOKEN_MS * some as u64 + self.random.below(TOKEN_MS);
            let event = In::Steps { stream, start: start as u32, steps };
            self.wake_after(context, wait, Wake::Engine { stream, run, event: Box::new(event) });
            start += some;
            steps = rest;
        }
        let event = match lie {
            Some(ProviderLie::Stalls) => return,
            // How a liar goes away is decided when the moment has come.
            _ if breaks_off => In::Closed(stream),
            _ => In::Finished(stream, work.ended),
        };
        self.wake_after(context, wait + 2, Wake::Engine { stream, run, event: Box::new(event) });
    }

    /// Work that was not stopped goes on.
    pub(super) fn engine(&mut self, context: &mut Context, stream: StreamId, run: u64, event: In) {
        if self.serving.running.get(&stream) != Some(&run) {
            return;
        }
        if matches!(event, In::Closed(_)) {
            context.reset(StreamNo(stream.0));
        }
        self.desk_step(context, event);
    }

    /// Signs a receipt and logs it; the desk hears of it when it is safe.
    pub(super) fn issue(&mut self, context: &mut Context, stream: StreamId, draft: Draft) {
        let unix_ms = self.unix_ms(context.now);
        let mut receipt = draft.receipt(unix_ms);
        if self.conduct.provider() == Some(ProviderLie::OverBilledAnswer) {
            (receipt.output_tokens, receipt.leaves) =
                (receipt.output_tokens + 3, receipt.leaves + 3);
            context.facts.lies.insert((self.index, receipt.offer_id));
        }
        let receipt = Signed::sign(&self.key, receipt).expect("a receipt within its limits");
        let entry = LogEntry { unix_ms, body: LogBody::Receipt(receipt.clone()) };
        if let Some(proof) = self.append(context, &entry) {
            self.desk_step(context, In::Logged { stream, receipt, proof });
        } else if self.is_up() && !self.disk.is_dead() {
            self.desk_step(context, In::LogFailed { stream, why: "the log".into() });
        }
    }

    fn send_frame(&mut self, context: &mut Context, stream: StreamId, frame: ProviderFrame) {
        let number = StreamNo(stream.0);
        for bytes in self.outgoing(context, stream, frame) {
            context.send(number, End::Acceptor, bytes);
        }
        let wait = self.random.below(3);
        self.wake_after(context, wait, Wake::Desk(In::Sent(stream)));
    }

    /// What goes onto the wire for a frame: a liar's script may have its say here.
    fn outgoing(
        &mut self,
        context: &mut Context,
        stream: StreamId,
        frame: ProviderFrame,
    ) -> Vec<Vec<u8>> {
        let encode = |frame: &ProviderFrame| frame.encode().expect("frames keep their limits");
        let Some(lie) = self.conduct.provider() else { return vec![encode(&frame)] };
        let offer = self.serving.offers.get(&stream).map(Signed::id);
        let mut tell = |lied: bool| {
            if let (Some(offer), true) = (offer, lied) {
                context.facts.lies.insert((self.index, offer));
            }
        };
        match (lie, frame) {
            (ProviderLie::TextInFlight, ProviderFrame::Tokens(mut tokens)) => {
                tell(!tokens.text.is_empty());
                tokens.text = tokens.text.to_uppercase();
                vec![encode(&ProviderFrame::Tokens(tokens))]
            }
            (ProviderLie::SaysTwice, frame @ ProviderFrame::Tokens(_)) => {
                tell(true);
                vec![encode(&frame), encode(&frame)]
            }
            (ProviderLie::Garbage, ProviderFrame::Tokens(_)) => {
                tell(true);
                vec![vec![0xff; 40]]
            }
            (ProviderLie::NoCommitments, ProviderFrame::Tokens(mut tokens)) => {
                let end = tokens.start as usize + tokens.tokens.len();
                tell(end >= peerproof_job::limits::COMMIT_EVERY);
                tokens.commitment = None;
                vec![encode(&ProviderFrame::Tokens(tokens))]
            }
            (_, ProviderFrame::Delivered(delivered)) => {
                let (delivered, lied) = self.falsify(lie, delivered);
                tell(lied);
                vec![encode(&ProviderFrame::Delivered(delivered))]
            }
            (_, ProviderFrame::Openings(openings)) => {
                let openings = falsify_openings(lie, openings);
                vec![encode(&ProviderFrame::Openings(openings))]
            }
            (_, frame) => vec![encode(&frame)],
        }
    }

    fn falsify(&self, lie: ProviderLie, delivered: Delivered) -> (Delivered, bool) {
        let Delivered { receipt, mut log } = delivered;
        match lie {
            ProviderLie::TwoReceipts if receipt.number > 1 => {
                let first = Receipt { number: 1, previous: None, ..receipt.statement().clone() };
                (sign_aside(&self.key, first), true)
            }
            ProviderLie::TwoHistories => (sign_aside(&self.key, receipt.statement().clone()), true),
            ProviderLie::OthersReceipt => {
                let accomplice = Keypair::from_seed(&[0xac; 32]);
                (sign_aside(&accomplice, receipt.statement().clone()), true)
            }
            ProviderLie::ForgedLogProof => {
                log.index += 1;
                (Delivered { receipt, log }, true)
            }
            // These show when leaves are opened.
            ProviderLie::ForgedPath | ProviderLie::ForgedLeaf | ProviderLie::OpeningsWithheld => {
                (Delivered { receipt, log }, true)
            }
            _ => (Delivered { receipt, log }, false),
        }
    }

    fn open_leaves(&self, question: &LeavesQuestion) -> Result<Openings, String> {
        let LeavesQuestion { offer, receipt, challenge, .. } = question;
        let work = Work::of(offer, self.conduct.provider());
        challenge::respond(offer, receipt, &work.leaves, &work.tree, challenge)
            .map_err(|error| error.to_string())
    }
}

/// Signs a receipt and gives it a place in a log made for the purpose.
fn sign_aside(key: &Keypair, receipt: Receipt) -> Delivered {
    let receipt = Signed::sign(key, receipt).expect("a receipt within its limits");
    let entry =
        LogEntry { unix_ms: receipt.issued_unix_ms, body: LogBody::Receipt(receipt.clone()) };
    let payload = entry.encode().expect("an entry within its limits");
    let key = std::sync::Arc::new(Keypair::from_seed(&key.seed()));
    let mut log = Log::open(MemoryStorage::default(), key).expect("memory does not fail");
    log.append(&[payload]).expect("memory does not fail");
    let checkpoint = log.checkpoint().map_or_else(String::new, |note| note.note().to_owned());
    Delivered { receipt, log: LogProof { index: 0, checkpoint, path: Vec::new() } }
}

fn falsify_openings(lie: ProviderLie, mut openings: Openings) -> Openings {
    match (lie, openings.openings.first_mut()) {
        (ProviderLie::ForgedPath, Some(first)) => {
            if let Some(node) = first.path.first_mut() {
                *node = Digest::from_bytes([9; 32]);
            }
        }
        (ProviderLie::ForgedLeaf, Some(first)) => first.leaf.state = Digest::from_bytes([9; 32]),
        _ => {}
    }
    openings
}
