//! What must hold at the end of every world, whatever happened in it.
//!
//! Checkers know what the world knows: who is honest, what the right answer is,
//! what was acknowledged. They look at honest nodes only; what a liar does to
//! itself is its own business.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use peerproof_identity::PeerId;
use peerproof_job::Reputation;
use peerproof_job::router::{Auditor, Blame, Checked, End, Reason};
use peerproof_log::Log;
use peerproof_wire::{Digest, Evidence, Level, LogBody, LogEntry, Message as _, Outcome};

use crate::disk::Disk;
use crate::facts::JobFact;
use crate::node::Node;
use crate::work::Work;
use crate::world::World;

/// Rounds in which evidence must have reached every honest node.
pub(crate) const GOSSIP_ROUNDS: u64 = 10;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The world does not come to rest.
    Spins {
        /// How many events it took.
        events: u64,
    },
    /// A log does not open.
    NotOpened {
        /// Whose.
        node: usize,
        /// What it says.
        why: String,
    },
    /// A log is fenced although no disk broke a promise.
    Fenced {
        /// Whose.
        node: usize,
        /// What it says.
        why: String,
    },
    /// Acknowledged entries are gone.
    Lost {
        /// Whose.
        node: usize,
        /// Entries that were acknowledged.
        expected: u64,
        /// Entries that are there.
        got: u64,
    },
    /// An acknowledged entry is another one.
    Changed {
        /// Whose.
        node: usize,
        /// Which.
        index: u64,
    },
    /// A log refused an entry without a cause.
    NotAppended {
        /// Whose.
        node: usize,
        /// What it says.
        why: String,
    },
    /// A checkpoint that was shown is no beginning of the log.
    Fork {
        /// Whose.
        node: usize,
        /// The size it was shown for.
        size: u64,
    },
    /// The receipts of an honest provider are not one chain.
    Receipts {
        /// Whose.
        node: usize,
        /// What is wrong.
        why: String,
    },
    /// One offer has two receipts of one honest provider.
    AnsweredTwice {
        /// Whose.
        node: usize,
    },
    /// An offer was answered for somebody who did not sign it.
    AnsweredStranger {
        /// By whom.
        node: usize,
    },
    /// Leaves were opened for somebody without the offer's nonce.
    OpenedToStranger {
        /// By whom.
        node: usize,
    },
    /// A desk holds more jobs than it may.
    Overloaded {
        /// Whose.
        node: usize,
        /// The most jobs of one peer.
        most: usize,
        /// All jobs.
        all: usize,
    },
    /// A bench holds more audits than it may.
    Crowded {
        /// Whose.
        node: usize,
        /// How many.
        got: usize,
        /// How many at most.
        limit: usize,
    },
    /// A bench took more requests of one peer than its rate allows.
    Rate {
        /// Whose.
        node: usize,
        /// How many.
        got: u64,
        /// How many at most.
        allowed: u64,
    },
    /// Something is still held although nobody wants it any more.
    Leak {
        /// By whom.
        node: usize,
        /// What.
        what: &'static str,
        /// How many.
        got: usize,
    },
    /// What a client was passed on is not contiguous.
    Gap {
        /// Whose client.
        router: usize,
        /// Tokens before.
        expected: usize,
        /// Index of the next one.
        got: usize,
    },
    /// A job never ended.
    Unfinished {
        /// Whose.
        router: usize,
    },
    /// A job failed although nothing broke and enough honest providers are there.
    Unanswered {
        /// Whose.
        router: usize,
        /// How it ended.
        end: String,
    },
    /// An answer that was checked in full is not the right one.
    WrongAccepted {
        /// By whom.
        router: usize,
        /// How it was checked.
        checked: String,
    },
    /// Fewer answers agree than have to.
    ThinQuorum {
        /// Whose.
        router: usize,
        /// How many agree.
        equal: usize,
    },
    /// An audit was due and was neither done nor excused.
    Unaudited {
        /// Whose.
        router: usize,
        /// What was done instead.
        checked: String,
    },
    /// An honest node wrote something about an honest one that no network can cause.
    FalseAccusation {
        /// Who accuses.
        by: usize,
        /// Whom.
        accused: usize,
        /// Of what.
        code: String,
    },
    /// An honest node bars an honest one.
    HonestBarred {
        /// Who bars.
        by: usize,
        /// Whom.
        barred: usize,
    },
    /// A liar was convicted and an honest node does not bar it.
    Welcome {
        /// The liar.
        liar: usize,
        /// Who still takes it.
        by: usize,
    },
    /// A router that met a lie and checked it does not bar the liar.
    NotBarred {
        /// The liar.
        liar: usize,
        /// Who checked.
        by: usize,
    },
    /// A cheat that a world was made for did not come to what it must.
    GotAway {
        /// The cheat.
        cheat: &'static str,
    },
    /// An honest router asks an honest auditor no more.
    HonestDistrusted {
        /// Whose.
        by: usize,
        /// Whom.
        auditor: usize,
    },
    /// A verdict was taken for one on another receipt.
    OtherVerdict {
        /// By whom.
        by: usize,
        /// Whose verdict.
        auditor: usize,
    },
    /// A router opened a stream to a provider it bars.
    AskedBarred {
        /// The router.
        router: usize,
        /// The provider.
        provider: usize,
    },
    /// The records of a node are not those that its log gives.
    Record {
        /// Whose.
        node: usize,
        /// What differs.
        why: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Every rule that was broken by the end of a world.
pub(crate) fn verify(world: &World) -> Vec<Violation> {
    let mut found = Vec::new();
    for node in world.nodes.iter().filter(|node| node.conduct.is_honest()) {
        found.extend(verify_node(world, node));
    }
    for fact in &world.context.facts.jobs {
        if world.nodes[fact.router].conduct.is_honest() && !fact.lost {
            found.extend(verify_job(world, fact));
        }
    }
    found.extend(verify_bars(world));
    found
}

fn verify_node(world: &World, node: &Node) -> Vec<Violation> {
    let mut found = Vec::new();
    let index = node.index;
    for (what, got) in [("streams", node.desk().streams())] {
        if got > 0 {
            found.push(Violation::Leak { node: index, what, got });
        }
    }
    let Some(log) = node.log() else {
        found.push(Violation::NotOpened { node: index, why: "the node is down".into() });
        return found;
    };
    found.extend(verify_log(world, index, log));
    let entries: Vec<LogEntry> = (0..log.len())
        .filter_map(|index| log.entry(index).ok())
        .filter_map(|payload| LogEntry::decode(&payload).ok())
        .collect();
    found.extend(verify_receipts(index, &entries));
    found.extend(verify_record(world, node, &entries));
    found
}

fn verify_log(world: &World, node: usize, log: &Log<Disk>) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Err(error) = log.verify() {
        found.push(Violation::Fenced { node, why: error.to_string() });
    }
    let acknowledged = &world.context.facts.acknowledged[node];
    if log.len() < acknowledged.len() as u64 {
        let (expected, got) = (acknowledged.len() as u64, log.len());
        found.push(Violation::Lost { node, expected, got });
    }
    for (index, hash) in (0..).zip(acknowledged) {
        let held = log.entry(index).ok().map(|payload| *blake3::hash(&payload).as_bytes());
        if held.is_some_and(|held| held != *hash) {
            found.push(Violation::Changed { node, index });
        }
    }
    for (size, root) in &world.context.facts.shown[node] {
        if log.root(*size).ok().as_ref() != Some(root) {
            found.push(Violation::Fork { node, size: *size });
        }
    }
    found
}

/// Numbers without a gap, each naming the one before, and no offer twice.
fn verify_receipts(node: usize, entries: &[LogEntry]) -> Vec<Violation> {
    let mut found = Vec::new();
    let (mut number, mut previous) = (0, None);
    let mut offers: BTreeSet<Digest> = BTreeSet::new();
    for entry in entries {
        let LogBody::Receipt(receipt) = &entry.body else { continue };
        number += 1;
        if receipt.number != number || receipt.previous != previous {
            let why = format!("number {} after {}", receipt.number, number - 1);
            found.push(Violation::Receipts { node, why });
        }
        previous = Some(receipt.id());
        if !offers.insert(receipt.offer_id) {
            found.push(Violation::AnsweredTwice { node });
        }
    }
    found
}

/// The record of each provider is the sum of what the log says, counted here
/// once more and otherwise.
fn verify_record(world: &World, node: &Node, entries: &[LogEntry]) -> Vec<Violation> {
    let mut found = Vec::new();
    let (mut good, mut bad) = (BTreeMap::new(), BTreeMap::new());
    let mut barred: BTreeSet<PeerId> = BTreeSet::new();
    for entry in entries {
        match &entry.body {
            LogBody::Accepted(accepted) => {
                let worth = match (accepted.audited, accepted.auditor) {
                    (false, _) => 1,
                    (true, None) => 9,
                    (true, Some(_)) => 5,
                };
                *good.entry(accepted.provider.peer_id()).or_insert(0) += worth;
            }
            LogBody::Verdict(verdict) if verdict.outcome != Outcome::Pass => {
                barred.insert(verdict.provider.peer_id());
            }
            LogBody::Evidence(Evidence::WrongAnswer(wrong)) => {
                barred.insert(wrong.case.receipt.key().peer_id());
            }
            LogBody::Evidence(Evidence::Equivocation(two)) => {
                barred.insert(two.first.key().peer_id());
            }
            LogBody::Evidence(Evidence::FalseVerdict(said)) => {
                *bad.entry(said.verdict.key().peer_id()).or_insert(0) += 16;
            }
            LogBody::Evidence(Evidence::Fork(fork)) => drop(barred.insert(fork.key.peer_id())),
            LogBody::Evidence(Evidence::Fraud(claim)) => {
                barred.insert(claim.accused.peer_id());
            }
            LogBody::Evidence(Evidence::Observation(seen)) => {
                match weight(seen.reason.split(':').next().unwrap_or_default()) {
                    None => drop(barred.insert(seen.provider.peer_id())),
                    Some(weight) => *bad.entry(seen.provider.peer_id()).or_insert(0) += weight,
                }
            }
            _ => {}
        }
    }
    let held: BTreeSet<PeerId> = node.barred().collect();
    let replayed: BTreeSet<PeerId> =
        Reputation::replay(entries).barred().map(|(peer, _)| peer).collect();
    if held != barred || replayed != barred {
        let why = format!("barred {held:?} and {replayed:?}, the log says {barred:?}");
        found.push(Violation::Record { node: node.index, why });
    }
    let unix_ms = node.unix_ms(world.context.now);
    for peer in &world.context.peers {
        let standing = node.reputation().standing(peer, unix_ms);
        let (good, bad) =
            (good.get(peer).copied().unwrap_or(0) + 4, bad.get(peer).copied().unwrap_or(0) + 4);
        // Minutes pass, of a half-life of days.
        let expected = if barred.contains(peer) { 0 } else { 1000 * good / (good + bad) };
        if standing.score.abs_diff(expected as u16) > 2 {
            let why = format!("score {} of {peer}, expected {expected}", standing.score);
            found.push(Violation::Record { node: node.index, why });
        }
    }
    found
}

/// What an observation counts; `None` if it bars.
fn weight(code: &str) -> Option<u64> {
    match code {
        "refused" | "accused" => Some(1),
        "unreachable" => Some(2),
        "dropped" | "stalled" => Some(4),
        "bindings" | "log-proof" | "openings" | "false-prefix" | "wrong-answer"
        | "equivocation" | "fork" => None,
        _ => Some(16),
    }
}

fn verify_job(world: &World, fact: &JobFact) -> Vec<Violation> {
    let mut found = Vec::new();
    let router = fact.router;
    let Some(outcome) = &fact.outcome else { return vec![Violation::Unfinished { router }] };
    let honest = Work::honest(&fact.offer);
    let right = fact.tokens == honest.tokens && fact.text == honest.text;
    let done = &outcome.verification.done;
    let checked = || done.to_string();
    if matches!(outcome.end, End::Answered(_)) {
        let believed = match done {
            Checked::Audited { by: Auditor::Local } => true,
            Checked::Audited { by: Auditor::Peer(peer) } => is_honest(world, peer),
            Checked::Agreed { equal, .. } => {
                if *equal < 2 {
                    found.push(Violation::ThinQuorum { router, equal: *equal });
                }
                false
            }
            _ => false,
        };
        if believed && !right {
            found.push(Violation::WrongAccepted { router, checked: checked() });
        }
        let due = match fact.plan.level {
            Level::Full => true,
            Level::Sampled => fact.plan.audit_permille == Some(1000),
            _ => false,
        };
        if due && !matches!(done, Checked::Audited { .. } | Checked::NotAudited { .. }) {
            found.push(Violation::Unaudited { router, checked: checked() });
        }
        if fact.plan.challenge
            && matches!(done, Checked::Receipt)
            && !outcome.verification.opened
            && fact.plan.level != Level::KOfN
        {
            found.push(Violation::Unaudited { router, checked: "no openings".into() });
        }
        // One liar finds nobody to agree with.
        let liars = world.nodes.iter().filter(|node| !node.conduct.is_honest()).count();
        if matches!(done, Checked::Agreed { .. }) && liars < 2 && !right {
            found.push(Violation::WrongAccepted { router, checked: checked() });
        }
        // Nobody lied in this world, so nothing can be wrong with it.
        if nobody_lies(world) && !right {
            found.push(Violation::WrongAccepted { router, checked: checked() });
        }
    } else if is_calm(world) && nobody_lies(world) {
        found.push(Violation::Unanswered { router, end: format!("{:?}", outcome.end) });
    }
    found
}

fn is_honest(world: &World, peer: &PeerId) -> bool {
    let node = world.context.peers.iter().position(|known| known == peer);
    node.is_some_and(|node| world.nodes[node].conduct.is_honest())
}

fn nobody_lies(world: &World) -> bool {
    world.nodes.iter().all(|node| node.conduct.is_honest())
}

fn is_calm(world: &World) -> bool {
    let faults = &world.context.scenario.faults;
    faults.crashes == 0
        && faults.power_cuts == 0
        && faults.partitions == 0
        && world.context.scenario.weather == crate::net::Weather::CALM
}

fn verify_bars(world: &World) -> Vec<Violation> {
    let mut found = Vec::new();
    let honest: Vec<&Node> = world.nodes.iter().filter(|node| node.conduct.is_honest()).collect();
    for node in &honest {
        for peer in node.barred() {
            let Some(barred) = world.context.peers.iter().position(|known| *known == peer) else {
                continue;
            };
            if world.nodes[barred].conduct.is_honest() {
                found.push(Violation::HonestBarred { by: node.index, barred });
            }
        }
    }
    for (by, auditor) in &world.context.facts.distrusted {
        if world.nodes[*auditor].conduct.is_honest() {
            found.push(Violation::HonestDistrusted { by: *by, auditor: *auditor });
        }
    }
    for liar in world.context.facts.convictions.keys() {
        let peer = world.context.peers[*liar];
        for node in honest.iter().filter(|node| !node.barred().any(|known| known == peer)) {
            found.push(Violation::Welcome { liar: *liar, by: node.index });
        }
    }
    found.extend(verify_caught(world));
    found
}

/// Who signed a wrong answer that was recomputed by somebody honest is barred.
fn verify_caught(world: &World) -> Vec<Violation> {
    let facts = &world.context.facts;
    let mut found = Vec::new();
    for fact in facts.jobs.iter().filter(|fact| !fact.lost) {
        let router = &world.nodes[fact.router];
        let Some(outcome) = fact.outcome.as_ref() else { continue };
        let (Some(receipt), true) = (&outcome.receipt, router.conduct.is_honest()) else {
            continue;
        };
        let signer = receipt.key().peer_id();
        let Some(liar) = world.context.peers.iter().position(|known| *known == signer) else {
            continue;
        };
        // What a network could have caused, or equality alone, bars nobody.
        let blamed = match &outcome.end {
            End::Failed { reason: Reason::Check { fault, .. }, blame: Blame::Provider(peer) } => {
                *peer == signer && fault.bars() && fact.plan.level != Level::KOfN
            }
            _ => false,
        };
        let refuted = blamed && facts.lies.contains(&(liar, fact.offer.id()));
        let marked = world.nodes[liar]
            .conduct
            .provider()
            .is_some_and(|lie| lie.consequence() != crate::conduct::Consequence::Barred);
        if refuted && !marked && !router.barred().any(|known| known == signer) {
            found.push(Violation::NotBarred { liar, by: fact.router });
        }
    }
    found
}
