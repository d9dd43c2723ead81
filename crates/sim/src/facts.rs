//! What the world itself knows, so that checkers need not believe any node.

use std::collections::{BTreeMap, BTreeSet};

use peerproof_job::router::{Checked, End, Outcome};
use peerproof_log::Hash;
use peerproof_wire::{Digest, Offer, Signed};

use crate::check::Violation;
use crate::scenario::JobPlan;
use crate::world::Figures;

/// One job, as the client of its router saw it.
#[derive(Clone, Debug)]
pub(crate) struct JobFact {
    pub(crate) router: usize,
    pub(crate) plan: JobPlan,
    pub(crate) offer: Signed<Offer>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) outcome: Option<Outcome>,
    /// The router died over it.
    pub(crate) lost: bool,
}

/// What checking cost those who checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Costs {
    /// Bytes of openings and verdicts that routers received.
    pub(crate) bytes: u64,
    /// Positions that were recomputed, by routers and auditors.
    pub(crate) positions: u64,
    /// Virtual time from receipts to the end of jobs.
    pub(crate) wait_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) violations: Vec<Violation>,
    /// Hash of every entry whose append returned, by node.
    pub(crate) acknowledged: Vec<Vec<[u8; 32]>>,
    /// Size and root of every checkpoint that left its node.
    pub(crate) shown: Vec<BTreeSet<(u64, Hash)>>,
    pub(crate) jobs: Vec<JobFact>,
    /// Lies that were told: by whom, in the answer to which offer.
    pub(crate) lies: BTreeSet<(usize, Digest)>,
    /// Who recorded evidence against whom that convinces others.
    pub(crate) convictions: BTreeMap<usize, BTreeSet<usize>>,
    /// Whom an honest node wrote anything bad about.
    pub(crate) marked: BTreeSet<usize>,
    /// Who caught which auditor.
    pub(crate) distrusted: BTreeSet<(usize, usize)>,
    /// Troublesome requests that were turned down, by the node that made them.
    pub(crate) turned_down: BTreeMap<usize, u64>,
    /// Troublesome requests that were made.
    pub(crate) troubles: BTreeMap<usize, u64>,
    pub(crate) costs: Costs,
    pub(crate) crashes: u64,
    gossips: u64,
    last_news: u64,
}

impl Facts {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            violations: Vec::new(),
            acknowledged: vec![Vec::new(); nodes],
            shown: vec![BTreeSet::new(); nodes],
            jobs: Vec::new(),
            lies: BTreeSet::new(),
            convictions: BTreeMap::new(),
            marked: BTreeSet::new(),
            distrusted: BTreeSet::new(),
            turned_down: BTreeMap::new(),
            troubles: BTreeMap::new(),
            costs: Costs::default(),
            crashes: 0,
            gossips: 0,
            last_news: 0,
        }
    }

    pub(crate) fn gossiped(&mut self) {
        self.gossips += 1;
    }

    /// Somebody knows something that others should.
    pub(crate) fn news(&mut self) {
        self.last_news = self.gossips;
    }

    /// How often any node told others since there was something new.
    pub(crate) fn gossip_rounds_since_last_news(&self) -> u64 {
        self.gossips - self.last_news
    }

    pub(crate) fn convict(&mut self, liar: usize, by: usize) {
        if self.convictions.entry(liar).or_default().insert(by) {
            self.news();
        }
    }

    pub(crate) fn violate(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    pub(crate) fn figures(&self) -> Figures {
        let outcomes = || self.jobs.iter().filter_map(|job| job.outcome.as_ref());
        let count = |wanted: fn(&Outcome) -> bool| {
            outcomes().filter(|outcome| wanted(outcome)).count() as u64
        };
        Figures {
            jobs: self.jobs.len() as u64,
            answered: count(|outcome| matches!(outcome.end, End::Answered(_))),
            audited: count(|outcome| matches!(outcome.verification.done, Checked::Audited { .. })),
            refuted: count(|outcome| outcome.verification.done == Checked::Refuted),
            crashes: self.crashes,
            steps: self.costs.positions,
            entries: self.acknowledged.iter().map(|entries| entries.len() as u64).sum(),
            ..Figures::default()
        }
    }
}
