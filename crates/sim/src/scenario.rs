//! What a world is made of: nodes, their conduct, their jobs, and what breaks.

use peerproof_wire::Level;

use crate::conduct::{AuditorLie, Conduct, ProviderLie, RouterLie};
use crate::net::Weather;
use crate::random::Random;

/// One job that a router asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPlan {
    /// When, after the start of the world.
    pub at_ms: u64,
    /// How it is checked.
    pub level: Level,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// Whether tokens are drawn, or the likeliest taken.
    pub samples: bool,
    /// Whether the answer may end at a stop string.
    pub stops: bool,
    /// Whether an answer that is not audited is challenged.
    pub challenge: bool,
    /// Providers in the order in which the user wants them; else the record decides.
    pub order: Vec<usize>,
    /// Chance in a thousand of an audit at [`Level::Sampled`].
    pub audit_permille: Option<u16>,
}

impl JobPlan {
    /// A job that is audited in full.
    #[must_use]
    pub fn full(at_ms: u64) -> Self {
        Self {
            at_ms,
            level: Level::Full,
            max_tokens: 40,
            samples: true,
            stops: false,
            challenge: false,
            order: Vec::new(),
            audit_permille: None,
        }
    }
}

/// What a node is and does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// How it behaves.
    pub conduct: Conduct,
    /// Whether it serves the model.
    pub serves: bool,
    /// Whether it recomputes for others.
    pub audits: bool,
    /// Whether it holds the model, and recomputes for itself.
    pub holds: bool,
    /// Whether it tests auditors with receipts it knows to be false.
    pub plants: bool,
    /// What it asks.
    pub jobs: Vec<JobPlan>,
    /// How far its wall clock is off, in milliseconds.
    pub skew_ms: i64,
    /// How much faster its clock runs than it should, in parts per million.
    pub drift_ppm: i64,
}

/// What breaks, and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Deaths of nodes, half of them in the middle of a write.
    pub crashes: u32,
    /// Power cuts of nodes, each in the middle of a write.
    pub power_cuts: u32,
    /// Times at which a part of the nodes is cut off.
    pub partitions: u32,
    /// After this nothing breaks any more.
    pub until_ms: u64,
}

/// A world before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// Who is there.
    pub nodes: Vec<NodePlan>,
    /// What the network does.
    pub weather: Weather,
    /// What breaks.
    pub faults: Faults,
}

/// The scenarios that a name stands for.
pub const NAMES: [&str; 5] = ["calm", "storm", "cuts", "liars", "soup"];

impl Scenario {
    /// The scenario of this name, as the seed fills it in; `None` for a name that is none.
    ///
    /// Beside [`NAMES`] there is one scenario for each cheat, named `cheat:` and its name.
    #[must_use]
    pub fn named(name: &str, seed: u64) -> Option<Self> {
        let mut random = Random::new(seed).fork(77);
        let rough = storm(&mut random.fork(5));
        let scenario = match name {
            "calm" => Self::mixed("calm", &mut random, 0, Weather::CALM, Faults::default()),
            "storm" => Self::mixed("storm", &mut random, 0, rough, faults()),
            "cuts" => {
                let faults = Faults { power_cuts: 20, until_ms: 20_000, ..Faults::default() };
                Self::mixed("cuts", &mut random, 0, Weather::CALM, faults)
            }
            "liars" => Self::mixed("liars", &mut random, 3, Weather::CALM, Faults::default()),
            "soup" => Self::mixed("soup", &mut random, 3, rough, faults()),
            _ => {
                let cheat = name.strip_prefix("cheat:")?;
                let conduct = conducts().into_iter().find(|conduct| name_of(*conduct) == cheat)?;
                Self::cheat(conduct, seed)
            }
        };
        Some(scenario)
    }

    /// A world around one liar, who is made to meet whoever can catch it.
    #[must_use]
    pub fn cheat(conduct: Conduct, seed: u64) -> Self {
        let mut random = Random::new(seed).fork(78);
        let mut nodes = vec![
            // A router without the model, one with it, and one that tests auditors.
            NodePlan::default(),
            NodePlan { holds: true, ..NodePlan::default() },
            NodePlan { holds: true, plants: true, ..NodePlan::default() },
            NodePlan { serves: true, holds: true, ..NodePlan::default() },
            NodePlan { serves: true, holds: true, ..NodePlan::default() },
            NodePlan { audits: true, holds: true, ..NodePlan::default() },
            NodePlan { audits: true, holds: true, ..NodePlan::default() },
        ];
        let liar = nodes.len();
        nodes.push(NodePlan {
            conduct,
            serves: conduct.provider().is_some(),
            audits: conduct.auditor().is_some(),
            holds: true,
            ..NodePlan::default()
        });
        let order = if conduct.provider().is_some() { vec![liar] } else { Vec::new() };
        for (router, node) in nodes.iter_mut().enumerate().take(2) {
            for count in 0..3 {
                let mut job = random_job(&mut random, 2_000 * count + 700 * router as u64);
                let lie = conduct.provider();
                let challenged = lie.is_some_and(ProviderLie::needs_challenge);
                // What is found by comparing must be in two hands.
                let compared = lie.is_some_and(ProviderLie::needs_two);
                job.level = if challenged || compared { Level::Receipt } else { Level::Full };
                job.challenge = challenged;
                job.max_tokens = random.between(24, 80) as u32;
                job.samples = true;
                job.order.clone_from(&order);
                node.jobs.push(job);
            }
        }
        let name = format!("cheat:{}", name_of(conduct));
        let faults = Faults { until_ms: 8_000, ..Faults::default() };
        Self { name, nodes, weather: Weather::CALM, faults }
    }

    /// Routers, providers and auditors in numbers that chance decides.
    fn mixed(
        name: &str,
        random: &mut Random,
        liars: u64,
        weather: Weather,
        faults: Faults,
    ) -> Self {
        let mut nodes = Vec::new();
        for index in 0..random.between(2, 3) {
            let holds = index > 0 && random.one_in(2);
            let mut jobs: Vec<JobPlan> = Vec::new();
            for _ in 0..random.between(2, 4) {
                let at_ms = random.below(12_000);
                jobs.push(random_job(random, at_ms));
            }
            nodes.push(NodePlan { holds, plants: holds, jobs, ..NodePlan::default() });
        }
        for _ in 0..random.between(2, 3) {
            let audits = random.one_in(3);
            nodes.push(NodePlan { serves: true, holds: true, audits, ..NodePlan::default() });
        }
        for _ in 0..2 {
            nodes.push(NodePlan { audits: true, holds: true, ..NodePlan::default() });
        }
        let conducts = conducts();
        for _ in 0..random.between(liars.min(1), liars) {
            let conduct = conducts[random.below(conducts.len() as u64) as usize];
            nodes.push(NodePlan {
                conduct,
                serves: conduct.provider().is_some(),
                audits: conduct.auditor().is_some(),
                holds: true,
                ..NodePlan::default()
            });
        }
        for node in &mut nodes {
            node.skew_ms = random.below(1_200_000) as i64 - 600_000;
            node.drift_ppm = random.below(400) as i64 - 200;
        }
        Self { name: name.into(), nodes, weather, faults }
    }
}

fn storm(random: &mut Random) -> Weather {
    let most_ms = random.between(5, 400);
    Weather { least_ms: 1, most_ms, loss_permille: random.below(20) }
}

fn faults() -> Faults {
    Faults { crashes: 4, partitions: 2, until_ms: 20_000, ..Faults::default() }
}

fn random_job(random: &mut Random, at_ms: u64) -> JobPlan {
    let level = match random.below(6) {
        0 => Level::Receipt,
        1 => Level::Sampled,
        2 => Level::KOfN,
        _ => Level::Full,
    };
    JobPlan {
        at_ms,
        level,
        max_tokens: random.between(1, 80) as u32,
        samples: !random.one_in(4),
        stops: random.one_in(3),
        challenge: random.one_in(2),
        order: Vec::new(),
        audit_permille: random.one_in(2).then_some(1000),
    }
}

/// Every dishonest conduct.
#[must_use]
pub fn conducts() -> Vec<Conduct> {
    let providers = ProviderLie::ALL.into_iter().map(Conduct::Provider);
    let auditors = AuditorLie::ALL.into_iter().map(Conduct::Auditor);
    let routers = RouterLie::ALL.into_iter().map(Conduct::Router);
    providers.chain(auditors).chain(routers).collect()
}

/// The words that stand for a conduct in reports and on the command line.
#[must_use]
pub const fn name_of(conduct: Conduct) -> &'static str {
    match conduct {
        Conduct::Honest => "honest",
        Conduct::Provider(lie) => lie.name(),
        Conduct::Auditor(lie) => lie.name(),
        Conduct::Router(lie) => lie.name(),
    }
}
