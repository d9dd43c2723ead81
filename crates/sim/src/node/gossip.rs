//! Telling others what convinces without trust, and checking what they tell.
//!
//! In each round a node tells two others of the evidence in its log and of the
//! receipts it holds. Evidence is believed after it was checked here, with the
//! model where that decides, and by auditors where the model is missing. Two
//! receipts of one key with one number meet this way and are evidence, and so do
//! two checkpoints of one size. What
//! somebody merely saw is not passed on, and not believed.

use peerproof_log::witness::Fork;
use peerproof_log::{Hash, SignedCheckpoint};
use peerproof_proof::evidence;
use peerproof_wire::{Equivocation, Evidence, LogBody, LogEntry, Message as _, Receipt, Signed};

use crate::toy::Toy;
use crate::world::{Context, Event, Wake};

use super::Node;
use super::errand::Owner;

const ROUND_MS: u64 = 2_000;
/// Evidence and receipts that are told in one round, the latest.
const MAX_TOLD: usize = 48;
/// News that were looked at.
const MAX_HEARD: usize = 4096;
/// Receipts that are remembered.
const MAX_RECEIPTS: usize = 256;

impl Node {
    /// Tells two others.
    pub(super) fn gossip(&mut self, context: &mut Context) {
        let wait = ROUND_MS + self.random.below(300);
        self.wake_after(context, wait, Wake::Gossip);
        context.facts.gossiped();
        // Liars keep what they know to themselves.
        if !self.conduct.is_honest() {
            return;
        }
        let nodes = context.peers.len();
        let round = (context.facts.gossip_rounds_since_last_news() as usize) % nodes;
        let any = self.random.below(nodes as u64) as usize;
        let news: Vec<Vec<u8>> = self.news.iter().cloned().collect();
        for to in [any, (self.index + round) % nodes] {
            if to == self.index || !context.net.reaches(self.index, to) || context.net.is_lost() {
                continue;
            }
            for bytes in &news {
                let at = context.now + context.net.delay();
                let news = Event::News { to, from: self.index, bytes: bytes.clone() };
                context.at(at, news);
            }
        }
    }

    /// Adds something to what is told, the oldest giving way.
    fn spread(&mut self, body: LogBody) {
        // Everybody's bytes for the same thing are the same.
        if let Ok(bytes) = (LogEntry { unix_ms: 0, body }).encode() {
            self.tell(bytes);
        }
    }

    fn tell(&mut self, bytes: Vec<u8>) {
        self.heard.insert(*blake3::hash(&bytes).as_bytes());
        self.news.push_back(bytes);
        if self.news.len() > MAX_TOLD {
            self.news.pop_front();
        }
    }

    /// Tells others of evidence that convinces.
    pub(super) fn spread_evidence(&mut self, evidence: &Evidence) {
        if !matches!(evidence, Evidence::Observation(_)) {
            self.spread(LogBody::Evidence(evidence.clone()));
        }
    }

    /// Something another node says.
    pub(crate) fn hear(&mut self, context: &mut Context, from: usize, bytes: &[u8]) {
        // What was looked at once is not looked at again.
        if self.heard.len() >= MAX_HEARD || !self.heard.insert(*blake3::hash(bytes).as_bytes()) {
            return;
        }
        if let Ok(checkpoint) = SignedCheckpoint::open(bytes) {
            return self.know_checkpoint(context, &checkpoint);
        }
        let Ok(entry) = LogEntry::decode(bytes) else { return };
        match entry.body {
            LogBody::Receipt(receipt) => self.know_receipt(context, &receipt),
            LogBody::Evidence(evidence) => self.weigh(context, from, &evidence),
            _ => {}
        }
    }

    /// Remembers a receipt; another one with its number is evidence.
    pub(super) fn know_receipt(&mut self, context: &mut Context, receipt: &Signed<Receipt>) {
        let place = (receipt.key(), receipt.number);
        if let Some(known) = self.receipts.get(&place) {
            if known.id() != receipt.id() {
                let two = Equivocation { first: known.clone(), second: receipt.clone() };
                self.weigh(context, self.index, &Evidence::Equivocation(two));
            }
            return;
        }
        if self.receipts.len() < MAX_RECEIPTS {
            self.receipts.insert(place, receipt.clone());
            self.spread(LogBody::Receipt(receipt.clone()));
            context.facts.news();
        }
    }

    /// Remembers a checkpoint of another log; another root at its size is evidence.
    pub(super) fn know_checkpoint(&mut self, context: &mut Context, shown: &SignedCheckpoint) {
        let place = (shown.signer(), shown.size());
        if let Some(known) = self.checkpoints.get(&place).cloned() {
            let accused = shown.signer().peer_id();
            if self.barred().all(|peer| peer != accused) && Fork::prove(&known, shown, &[]).is_ok()
            {
                let (key, path) = (shown.signer(), Vec::new());
                let (first, second) = (known.note().to_owned(), shown.note().to_owned());
                let fork = peerproof_wire::evidence::Fork { key, first, second, path };
                self.record(context, LogBody::Evidence(Evidence::Fork(fork)));
            }
            return;
        }
        if self.checkpoints.len() < MAX_RECEIPTS {
            self.checkpoints.insert(place, shown.clone());
            self.tell(shown.note().as_bytes().to_vec());
            context.facts.news();
        }
    }

    /// Believes evidence that holds.
    fn weigh(&mut self, context: &mut Context, from: usize, evidence: &Evidence) {
        let accused = match evidence {
            Evidence::WrongAnswer(wrong) => wrong.case.receipt.key(),
            Evidence::Equivocation(two) => two.first.key(),
            Evidence::FalseVerdict(said) => said.verdict.key(),
            // Somebody's word; and checkpoints, which nobody compares in this world.
            Evidence::Observation(_) => return self.turn_down(context, from),
            // Its file is in nobody's hands here.
            Evidence::Fraud(_) => return self.turn_down(context, from),
            Evidence::Fork(fork) => fork.key,
        };
        if self.barred().any(|peer| peer == accused.peer_id()) {
            return;
        }
        if let Evidence::Fork(fork) = evidence {
            return match holds(fork) {
                true => self.record(context, LogBody::Evidence(evidence.clone())),
                false => self.turn_down(context, from),
            };
        }
        let found = if self.plan.holds {
            evidence::verify_with(evidence, &Toy::default())
        } else {
            evidence::verify(evidence)
        };
        match (found, evidence) {
            (Ok(found), Evidence::FalseVerdict(_)) => {
                let auditor = self.node_of(context, accused.peer_id());
                if let Some(auditor) = auditor
                    && found.proven.is_some()
                    && !self.distrusted.contains(&auditor)
                {
                    self.distrust(context, auditor, "a false verdict");
                    self.record(context, LogBody::Evidence(evidence.clone()));
                }
            }
            (Ok(found), _) if found.proven.is_some() => {
                self.record(context, LogBody::Evidence(evidence.clone()));
            }
            (Ok(_), Evidence::WrongAnswer(wrong)) => {
                let exclude = [accused.peer_id()];
                self.start_errand(context, Owner::Hearsay, wrong.case.clone(), &exclude);
            }
            (Ok(_), _) | (Err(_), _) => self.turn_down(context, from),
        }
    }

    fn turn_down(&self, context: &mut Context, from: usize) {
        *context.facts.turned_down.entry(from).or_default() += 1;
    }
}

/// Whether two checkpoints are of one key and of two histories.
fn holds(fork: &peerproof_wire::evidence::Fork) -> bool {
    let open = |note: &str| SignedCheckpoint::open_of(note.as_bytes(), &fork.key);
    let path: Vec<Hash> = fork.path.iter().map(|hash| *hash.as_bytes()).collect();
    match (open(&fork.first), open(&fork.second)) {
        (Ok(first), Ok(second)) => Fork::prove(&first, &second, &path).is_ok(),
        _ => false,
    }
}
