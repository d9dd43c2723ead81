//! The cheat suite: each liar in worlds of its own, and how often it got away.

use crate::check::{self, Violation};
use crate::conduct::{AuditorLie, Conduct, Consequence};
use crate::scenario::{Scenario, conducts, name_of};
use crate::trace::Words;
use crate::world::World;

/// What came of one cheat in a number of worlds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheatRow {
    /// The cheat.
    pub cheat: &'static str,
    /// `provider`, `auditor` or `router`.
    pub role: &'static str,
    /// Worlds in which the cheat was committed.
    pub trials: u64,
    /// Worlds in which it came to what it must come to.
    pub caught: u64,
    /// Honest nodes barred or accused by honest ones, over all worlds.
    pub false_accusations: u64,
    /// Bytes of openings and verdicts a checker received, for each job.
    pub checker_bytes: u64,
    /// Positions that were recomputed, for each job.
    pub checker_positions: u64,
    /// Virtual milliseconds from the receipt to the end, for each job.
    pub checker_ms: u64,
}

impl CheatRow {
    /// Whether the cheat was caught each time and cost nobody honest anything.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.caught == self.trials && self.false_accusations == 0
    }
}

/// Rows as a person reads them.
#[must_use]
pub fn table(rows: &[CheatRow]) -> String {
    let line = |cells: [&str; 8]| {
        let [cheat, role, trials, caught, accused, bytes, positions, ms] = cells;
        format!(
            "{cheat:<42} {role:<9} {trials:>7} {caught:>7} {accused:>6} {bytes:>10} {positions:>10} {ms:>7}\n"
        )
    };
    let mut table =
        line(["cheat", "role", "trials", "caught", "false", "bytes/job", "steps/job", "ms/job"]);
    for row in rows {
        let numbers = [
            row.trials,
            row.caught,
            row.false_accusations,
            row.checker_bytes,
            row.checker_positions,
            row.checker_ms,
        ]
        .map(|number| number.to_string());
        let [trials, caught, accused, bytes, positions, ms] = &numbers;
        table += &line([row.cheat, row.role, trials, caught, accused, bytes, positions, ms]);
    }
    table
}

/// Puts every cheat to the test in `trials` worlds each.
#[must_use]
pub fn measure_all(trials: u64) -> Vec<CheatRow> {
    conducts().into_iter().map(|conduct| measure(conduct, trials)).collect()
}

/// Puts one cheat to the test in `trials` worlds.
#[must_use]
pub fn measure(conduct: Conduct, trials: u64) -> CheatRow {
    let role = match conduct {
        Conduct::Auditor(_) => "auditor",
        Conduct::Router(_) => "router",
        Conduct::Provider(_) | Conduct::Honest => "provider",
    };
    let mut row = CheatRow {
        cheat: name_of(conduct),
        role,
        trials: 0,
        caught: 0,
        false_accusations: 0,
        checker_bytes: 0,
        checker_positions: 0,
        checker_ms: 0,
    };
    let mut jobs = 0;
    for seed in 0..trials {
        let (world, violations) = World::play(&Scenario::cheat(conduct, seed), seed, Words::Hashed);
        let violations = violations.into_iter().chain(check::verify(&world));
        row.false_accusations += violations
            .filter(|violation| {
                matches!(
                    violation,
                    Violation::HonestBarred { .. } | Violation::FalseAccusation { .. }
                )
            })
            .count() as u64;
        if let Some(caught) = caught(&world, conduct) {
            row.trials += 1;
            row.caught += u64::from(caught);
        }
        let costs = world.context.facts.costs;
        jobs += world.context.facts.jobs.len() as u64;
        row.checker_bytes += costs.bytes;
        row.checker_positions += costs.positions;
        row.checker_ms += costs.wait_ms;
    }
    for cost in [&mut row.checker_bytes, &mut row.checker_positions, &mut row.checker_ms] {
        *cost = cost.checked_div(jobs).unwrap_or(0);
    }
    row
}

/// Whether a world's only liar got away with it.
pub(crate) fn got_away(world: &World) -> Option<Violation> {
    let scenario = &world.context.scenario;
    let conduct = scenario.nodes.last().map(|node| node.conduct).unwrap_or_default();
    let alone = scenario.name.starts_with("cheat:");
    (alone && caught(world, conduct) == Some(false))
        .then(|| Violation::GotAway { cheat: name_of(conduct) })
}

/// Whether the cheat came to what it must; `None` if it was not committed.
fn caught(world: &World, conduct: Conduct) -> Option<bool> {
    let facts = &world.context.facts;
    let liar = world.nodes.len() - 1;
    let peer = world.context.peers[liar];
    let barred = || {
        let honest = world.nodes.iter().filter(|node| node.conduct.is_honest());
        honest.filter(|node| node.barred().any(|known| known == peer)).count()
    };
    match conduct {
        Conduct::Honest => None,
        Conduct::Provider(lie) => {
            // One receipt has to be followed by another.
            let least = if lie.needs_two() { 2 } else { 1 };
            let lied = facts.lies.iter().filter(|(by, _)| *by == liar).count();
            (lied >= least).then(|| match lie.consequence() {
                Consequence::Barred => barred() > 0,
                Consequence::Marked => facts.marked.contains(&liar),
            })
        }
        // Silence is no lie; the jobs have to be answered all the same.
        Conduct::Auditor(AuditorLie::Silent) => Some(facts.jobs.iter().all(|job| {
            job.outcome.as_ref().is_some_and(|outcome| {
                matches!(outcome.end, peerproof_job::router::End::Answered(_))
            })
        })),
        Conduct::Auditor(_) => Some(facts.distrusted.iter().any(|(_, auditor)| *auditor == liar)),
        Conduct::Router(_) => {
            let made = facts.troubles.get(&liar).copied().unwrap_or(0);
            (made > 0).then(|| facts.turned_down.get(&liar).copied().unwrap_or(0) > 0)
        }
    }
}
