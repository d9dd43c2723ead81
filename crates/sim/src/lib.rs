//! A virtual network in which the real machines run under faults and liars.
//!
//! The state machines of `job`, the proofs of `proof` and the log of `log` run
//! here as they do in a node; the network, the clocks, the disks and the entropy
//! are made up, all from one seed, and so is the model, a tiny one in integers.
//! A [`Scenario`] says who is there and what breaks, [`run`] plays it to the end
//! and holds the outcome against what must be true in any world: no honest node
//! barred, every proven liar barred everywhere, every audited answer the right
//! one, nothing acknowledged lost, every queue bounded. The same seed gives the
//! same world again, event by event: [`Run::trace`] is their hash.
//!
//! Absent on purpose: sockets, threads, clocks, and anything about the real
//! model's arithmetic, which the engine's own tests are about.
//!
//! ```
//! use peerproof_sim::{Scenario, Words, run};
//!
//! let scenario = Scenario::named("calm", 1).expect("a name that is known");
//! let first = run(&scenario, 1, Words::Hashed);
//! assert_eq!(first.violations, []);
//! assert_eq!(first.trace, run(&scenario, 1, Words::Hashed).trace);
//! ```

mod cheats;
mod check;
mod conduct;
mod disk;
mod eclipse;
mod facts;
mod finding;
mod net;
mod node;
mod random;
mod registering;
mod scenario;
mod toy;
mod trace;
mod work;
mod world;

pub use cheats::{CheatRow, measure, measure_all, table};
pub use check::Violation;
pub use conduct::{AuditorLie, Conduct, Consequence, ProviderLie, RouterLie};
pub use eclipse::{EclipsePlan, EclipseRow, eclipse_table, measure_eclipse};
pub use finding::{FindingRow, PLANS, Plan, Size, finding_table, measure_finding};
pub use net::Weather;
pub use registering::{
    FloodRow, TOPIC_PLANS, TopicPlan, TopicRow, measure_flood, measure_topics, topics_table,
};
pub use scenario::{Faults, JobPlan, NAMES, NodePlan, Scenario, conducts, name_of};
pub use trace::Words;
pub use world::{Figures, Run, run};
