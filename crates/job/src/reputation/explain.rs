//! The arithmetic behind a score, for people and for programs.
//!
//! [`Explanation`] holds the sums and prints them; [`account`] goes through the
//! log once more and says of each entry about a peer what it counts today.

use std::fmt;

use peerproof_identity::PeerId;
use peerproof_wire::{LogEntry, NetworkGroup};

use super::auditors::AuditorStanding;
use super::days::{At, ONE, day};
use super::deterrence::Deterrence;
use super::effect::{Audit, Effect, Judged, effects};
use super::record::{OTHERS_AUDIT, OWN_AUDIT, Record, Volume};
use super::{FORGIVEN, PRIOR, Reputation, Rules, Standing};

/// Points with 16 fractional bits; prints with two decimals, rounded down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Points(pub u64);

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = u128::from(self.0) * 100 / u128::from(ONE);
        write!(f, "{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

/// What a peer earned from one network group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupShare {
    /// Which.
    pub group: NetworkGroup,
    /// Answers, 1 point each.
    pub answers: Points,
    /// Audits passed and done here, each once.
    pub own_audits: Points,
    /// Audits passed and done elsewhere that count, each once.
    pub others_audits: Points,
    /// All of these, weighted.
    pub earned: Points,
    /// What counts of it under the group's cap.
    pub counted: Points,
}

/// How a score came about; prints as a few lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The rules it was computed by.
    pub rules: Rules,
    /// What it comes to.
    pub standing: Standing,
    /// The same as an auditor; `None` if it never was one here.
    pub auditor: Option<AuditorStanding>,
    /// What was earned where.
    pub groups: Vec<GroupShare>,
    /// What counts of it.
    pub good: Points,
    /// What stands against it.
    pub bad: Points,
    /// Of that, charges that the user forgave.
    pub forgiven: Points,
    /// Totals that do not fade.
    pub volume: Volume,
}

impl Reputation {
    /// The arithmetic behind [`Reputation::standing`].
    #[must_use]
    pub fn explain(&self, peer: &PeerId, unix_ms: u64) -> Explanation {
        let at = self.at(unix_ms);
        let stranger = Record::default();
        let record = self.records.get(peer).unwrap_or(&stranger);
        let groups: Vec<GroupShare> =
            record.work.keys().map(|group| self.share(record, *group, at)).collect();
        let good = groups.iter().fold(0_u64, |sum, share| sum.saturating_add(share.counted.0));
        let charges = self.charges.get(peer);
        let days = charges.into_iter().flat_map(|charges| charges.forgiven(&self.refuted));
        let forgiven =
            days.fold(0_u64, |sum, at_ms| sum.saturating_add(at.left(FORGIVEN, day(at_ms))));
        let bad = record.bad.left(at).saturating_add(forgiven);
        Explanation {
            rules: self.rules,
            standing: Standing::of(good, bad, self.bar(peer)),
            auditor: self.auditors.contains_key(peer).then(|| self.auditor(peer, unix_ms)),
            groups,
            good: Points(good),
            bad: Points(bad),
            forgiven: Points(forgiven),
            volume: record.volume,
        }
    }

    fn share(&self, record: &Record, group: NetworkGroup, at: At) -> GroupShare {
        let work = record.work.get(&group);
        let left = |points: Option<u64>| Points(points.unwrap_or_default());
        let earned = work.map(|work| work.left(at)).unwrap_or_default();
        let level = self.level(group, at).unwrap_or(u64::MAX);
        GroupShare {
            group,
            answers: left(work.map(|work| work.answers.left(at))),
            own_audits: left(work.map(|work| work.own_audits.left(at))),
            others_audits: left(work.map(|work| work.others_audits.left(at))),
            earned: Points(earned),
            counted: Points(earned.min(level)),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for share in &self.groups {
            write!(
                f,
                "from {}: {} = answers {} + {OWN_AUDIT} x audits here {} + {OTHERS_AUDIT} x audits elsewhere {}",
                share.group, share.earned, share.answers, share.own_audits, share.others_audits
            )?;
            if share.counted < share.earned {
                write!(
                    f,
                    "; counts {}, its share of the {} that the group may have",
                    share.counted, self.rules.group_cap
                )?;
            }
            writeln!(f)?;
        }
        write!(f, "good {}, bad {}", self.good, self.bad)?;
        if self.forgiven > Points(0) {
            write!(f, " ({} of it forgiven by the user)", self.forgiven)?;
        }
        writeln!(f, "; half-life {} days", self.rules.half_life_days)?;
        match &self.standing.barred {
            Some(why) => write!(f, "score 0: barred ({why})")?,
            None => {
                let (score, prior, both) = (self.standing.score, PRIOR / ONE, 2 * PRIOR / ONE);
                let sum = format!("1000 x (good + {prior}) / (good + bad + {both})");
                writeln!(f, "score {score} = {sum}")?;
                let rate = self.standing.audit_permille;
                let new = if self.standing.newcomer { ", new" } else { "" };
                write!(f, "audited with {rate} in 1000{new}: {}", deterrence(rate))?;
            }
        }
        if let Some(auditor) = &self.auditor {
            write!(f, "\nas an auditor: score {}", auditor.score)?;
            if let Some(why) = &auditor.barred {
                write!(f, ", not asked ({why})")?;
            }
        }
        Ok(())
    }
}

fn deterrence(permille: u16) -> String {
    let figures = Deterrence::at(permille);
    match (figures.half, figures.ninety_nine) {
        (Some(half), Some(most)) => {
            let ten = u64::from(figures.unseen_ppm(10)) / 10_000;
            format!(
                "half of all cheats are caught by no. {half}, 99 in 100 by no. {most}; 10 go unseen with {ten} %"
            )
        }
        _ => "no cheat is caught".to_owned(),
    }
}

/// What one entry counts today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountLine {
    /// Place of the entry in the log.
    pub index: u64,
    /// When it was appended.
    pub unix_ms: u64,
    /// What it says.
    pub text: String,
    /// Good points, before they fade.
    pub good: u64,
    /// Bad points, before they fade.
    pub bad: u64,
    /// What is left of either.
    pub left: Points,
}

/// Every entry about `peer`, in the order given, with what it counts at a wall-clock time
/// before any cap. The entries are those of the log, oldest first.
pub fn account<'a>(
    rules: Rules,
    peer: &PeerId,
    entries: impl IntoIterator<Item = (u64, &'a LogEntry)>,
    unix_ms: u64,
) -> Vec<AccountLine> {
    let at = At { today: day(unix_ms), half_life_days: rules.half_life_days.into() };
    let mut record = Record::default();
    let mut lines = Vec::new();
    for (index, entry) in entries {
        for effect in effects(&entry.body).into_iter().filter(|effect| effect.peer() == *peer) {
            let today = day(entry.unix_ms);
            let (text, good, bad) = in_words(&mut record, effect, today);
            let left = Points(at.left(good + bad, today));
            lines.push(AccountLine { index, unix_ms: entry.unix_ms, text, good, bad, left });
        }
    }
    lines
}

fn in_words(record: &mut Record, effect: Effect, today: u64) -> (String, u64, u64) {
    match effect {
        Effect::Answer { group, audit, figures, .. } => {
            let (_, points) = record.answer(group, audit, today, figures);
            let audited = match (audit, points) {
                (Audit::None, _) => String::new(),
                (Audit::Here, _) => ", audited here".into(),
                (Audit::Elsewhere(by), 1) => format!(", audited from {by}, which counts no more"),
                (Audit::Elsewhere(by), _) => format!(", audited from {by}"),
            };
            (format!("answer of {} tokens from {group}{audited}", figures.tokens), points, 0)
        }
        Effect::Bad { fault, .. } => (fault.to_string(), 0, fault.weight()),
        Effect::Charge { why, .. } => (format!("barred: {why}"), 0, 0),
        Effect::Decision { blocked: true, reason, .. } => (format!("blocked: {reason}"), 0, 0),
        Effect::Decision { reason, .. } => {
            (format!("unblocked: {reason}; bars before this count {FORGIVEN} bad each"), 0, 0)
        }
        Effect::Refuted { receipt, .. } => (format!("refuted: receipt {receipt} passes"), 0, 0),
        Effect::Auditor { judged, .. } => {
            let words = match judged {
                Judged::Right => "as an auditor: was right",
                Judged::Disagreed => "as an auditor: another one says otherwise",
                Judged::Undrawn => "as an auditor: its draw does not hold",
                Judged::False(_) => "as an auditor: signed what is not so",
            };
            (words.to_owned(), 0, 0)
        }
    }
}
