//! Finding records while many lie: attack plans, beside stock Kademlia.
//!
//! A [`Plan`] says who is there and what they do. [`measure_finding`] makes networks of honest
//! nodes with converged tables and attackers among them; publishers write records and
//! readers look for them through the real machine of `discovery`, over made-up delays
//! (round trips of 80 ms in the median, one more for a first contact). The same keys
//! under the same seed are then read and written by a plain model of Kademlia (three
//! questions at once, twenty peers kept, the twenty closest hold a record, the first
//! answer ends a search), so that the two columns differ in the method only.
//!
//! Everything follows from the seed. Nodes are made when somebody first speaks to them,
//! since most of ten thousand are never spoken to. Absent: joining, which would fill the
//! tables; they are drawn at random from who is there, as converged ones are.

mod attack;
mod network;
mod stock;
mod table;

use std::sync::Arc;

use peerproof_discovery::lookup::Goal;
use peerproof_identity::Keypair;

use network::Network;
pub use table::table as finding_table;

/// Who is there and what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: &'static str,
    /// Of a hundred nodes, so many collude: they name only each other, acknowledge
    /// writes and drop them, and hide records.
    pub random_percent: u64,
    /// Colluders with ids ground next to each key, closer than any honest node.
    pub ground: usize,
    /// Ground ids are spread over the region of the key instead.
    pub spread: bool,
    /// All colluders sit in so many /24s; 0 is no limit.
    pub subnets: u64,
    /// Colluders answer with an older record, and with one whose end is forged.
    pub replay: bool,
    /// Colluders name peers that don't exist, ground into the region asked for.
    pub ghosts: bool,
    /// Of a hundred honest nodes, so many leave between writing and reading, and tables
    /// still name them.
    pub churn_percent: u64,
    /// Records that attackers write to everybody in the region before the publisher does.
    pub flood: usize,
    /// Writing happens while one half of the network can't reach the other; half of the
    /// readers read then in the same half, the others in the other half when it healed.
    pub partition: bool,
}

const NONE: Plan = Plan {
    name: "none",
    random_percent: 0,
    ground: 0,
    spread: false,
    subnets: 0,
    replay: false,
    ghosts: false,
    churn_percent: 0,
    flood: 0,
    partition: false,
};

/// Every plan.
pub const PLANS: [Plan; 18] = [
    NONE,
    Plan { name: "random-10", random_percent: 10, ..NONE },
    Plan { name: "random-20", random_percent: 20, ..NONE },
    Plan { name: "random-30", random_percent: 30, ..NONE },
    Plan { name: "random-40", random_percent: 40, ..NONE },
    Plan { name: "random-50", random_percent: 50, ..NONE },
    Plan { name: "subnets-50", random_percent: 50, subnets: 256, ..NONE },
    Plan { name: "ground-20", ground: 20, ..NONE },
    Plan { name: "ground-45", ground: 45, ..NONE },
    Plan { name: "ground-200", ground: 200, ..NONE },
    Plan { name: "ground-200-spread", ground: 200, spread: true, ..NONE },
    Plan { name: "ground-45-random-20", ground: 45, random_percent: 20, ..NONE },
    Plan { name: "ground-200-random-20", ground: 200, random_percent: 20, ..NONE },
    Plan { name: "replay-30", random_percent: 30, replay: true, ..NONE },
    Plan { name: "ghosts-30", random_percent: 30, ghosts: true, ..NONE },
    Plan { name: "churn-20", churn_percent: 20, ..NONE },
    Plan { name: "flood", flood: 300, ..NONE },
    Plan { name: "partition", partition: true, ..NONE },
];

impl Plan {
    /// The plan of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PLANS.into_iter().find(|plan| plan.name == name)
    }
}

/// How much is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Honest nodes of a network.
    pub nodes: usize,
    /// Networks.
    pub networks: u64,
    /// Keys published in each.
    pub keys: u64,
    /// Readers of each key.
    pub readers: u64,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trial {
    pub(crate) found: bool,
    pub(crate) calls: u64,
    pub(crate) bytes: u64,
    /// Until a first valid record was there.
    pub(crate) first_ms: Option<u64>,
    /// Until the reader was done.
    pub(crate) done_ms: u64,
    pub(crate) alarm: bool,
    /// Honest nodes that kept what was written.
    pub(crate) kept: u64,
}

/// What came of a plan, by one method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindingRow {
    /// The plan.
    pub plan: &'static str,
    /// `peerproof` or `stock`.
    pub method: &'static str,
    /// Lookups that were made.
    pub lookups: u64,
    /// Those that ended with the newest record.
    pub found: u64,
    /// Calls of a lookup: median and 95th of a hundred.
    pub calls: [u64; 2],
    /// Bytes of a lookup, asked and answered.
    pub bytes: [u64; 2],
    /// Until a first valid record, in ms, of those that found one.
    pub first_ms: [u64; 2],
    /// Until the reader was done.
    pub done_ms: [u64; 2],
    /// Calls of a publication.
    pub write_calls: [u64; 2],
    /// Honest nodes that kept the record.
    pub kept: [u64; 2],
    /// Lookups that said that the region is crowded.
    pub alarms: u64,
}

impl FindingRow {
    fn of(plan: &Plan, method: &'static str, reads: &[Trial], writes: &[Trial]) -> Self {
        let of = |trials: &[Trial], figure: &dyn Fn(&Trial) -> Option<u64>| {
            let mut all: Vec<u64> = trials.iter().filter_map(figure).collect();
            all.sort_unstable();
            let at = |percent: usize| all.get(all.len() * percent / 100).copied();
            [at(50).unwrap_or(0), at(95).or(all.last().copied()).unwrap_or(0)]
        };
        Self {
            plan: plan.name,
            method,
            lookups: reads.len() as u64,
            found: reads.iter().filter(|trial| trial.found).count() as u64,
            calls: of(reads, &|trial| Some(trial.calls)),
            bytes: of(reads, &|trial| Some(trial.bytes)),
            first_ms: of(reads, &|trial| trial.first_ms),
            done_ms: of(reads, &|trial| Some(trial.done_ms)),
            write_calls: of(writes, &|trial| Some(trial.calls)),
            kept: of(writes, &|trial| Some(trial.kept)),
            alarms: reads.iter().filter(|trial| trial.alarm).count() as u64,
        }
    }

    /// Lookups of ten thousand that found the newest record.
    #[must_use]
    pub fn per_myriad(&self) -> u64 {
        self.found * 10_000 / self.lookups.max(1)
    }
}

/// Plays a plan by both methods; `done` is called after each network.
#[must_use]
pub fn measure_finding(
    plan: &Plan,
    size: Size,
    seed: u64,
    done: &mut dyn FnMut(),
) -> [FindingRow; 2] {
    let mut ours = (Vec::new(), Vec::new());
    let mut stock = (Vec::new(), Vec::new());
    for number in 0..size.networks {
        let mut network = Network::new(plan, size, seed.wrapping_mul(1_000_003) + number);
        for key in 0..size.keys {
            play(&mut network, plan, size, key, &mut ours, &mut stock);
        }
        done();
    }
    [
        FindingRow::of(plan, "peerproof", &ours.0, &ours.1),
        FindingRow::of(plan, "stock", &stock.0, &stock.1),
    ]
}

type Trials = (Vec<Trial>, Vec<Trial>);

fn play(
    network: &mut Network,
    plan: &Plan,
    size: Size,
    key: u64,
    ours: &mut Trials,
    stock: &mut Trials,
) {
    let publication = network.publication(key);
    network.set_split(plan.partition);
    network.flood(&publication, plan.flood);
    let writer = network.somebody(plan.partition.then_some(0));
    for record in [&publication.old, &publication.new] {
        let goal = Goal::Put(Box::new(record.clone()), Arc::clone(&publication.key));
        let mut trial = network.run(writer, goal).0;
        trial.kept = network.keepers(record);
        if record.sequence() == publication.new.sequence() {
            ours.1.push(trial);
        }
    }
    stock.1.push(stock::put(network, writer, &publication));
    network.kill(plan.churn_percent);
    for reader in 0..size.readers {
        let late = plan.partition && reader % 2 == 1;
        network.set_split(plan.partition && !late);
        let reader = network.somebody(plan.partition.then_some(u64::from(late)));
        let goal = Goal::Get(publication.new.name_bytes().to_vec());
        let (mut trial, outcome) = network.run(reader, goal);
        trial.found = outcome.record.as_ref() == Some(&publication.new);
        ours.0.push(trial);
        stock.0.push(stock::get(network, reader, &publication));
    }
    network.revive();
}

/// A key with an older and a newer record.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) key: Arc<Keypair>,
    pub(crate) old: peerproof_discovery::record::Record,
    pub(crate) new: peerproof_discovery::record::Record,
}

#[cfg(test)]
mod tests;
