//! What this node knows of each provider, computed from its own log.
//!
//! There are no votes and no received scores: a record is the sum of entries
//! this node made or checked itself ([`LogEntry`]), so it can be computed again
//! at any start with [`Reputation::replay`]. Entries fade with a half-life of
//! 14 days; a bar does not fade.
//!
//! All arithmetic is in integers (16 fractional bits), so two nodes with the
//! same log agree on every score. Absent here: whether a piece of evidence is
//! true. The log holds only what was checked before it was written.

mod decay;
mod fault;

use std::collections::BTreeMap;
use std::fmt;

use peerproof_identity::PeerId;
use peerproof_wire::{Evidence, LogBody, LogEntry, Outcome};

pub use fault::Fault;

use crate::limits::{MAX_BARRED, MAX_REASON_BYTES, MAX_RECORDS};
use crate::planted::planted;
use crate::text::clip;

/// One whole entry, before it fades.
const ONE: u64 = 1 << 16;
/// How many answers an audit that was passed counts for.
const AUDIT_WEIGHT: u64 = 8;
/// Good entries every provider starts with, and as many bad ones.
const PRIOR: u64 = 4 * ONE;
/// Below this much good record a provider is new.
const NEWCOMER_BELOW: u64 = 24 * ONE;
/// Chance of an audit for a provider without a record.
const NEWCOMER_AUDIT_PERMILLE: u64 = 500;
/// Chance of an audit that no record lowers further.
const FLOOR_AUDIT_PERMILLE: u64 = 50;

/// What selection and sampling need to know of one provider.
///
/// ```
/// use peerproof_job::Standing;
///
/// let stranger = Standing::stranger();
/// assert_eq!(stranger.score, 500);
/// assert!(stranger.newcomer && stranger.barred.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// 0 to 1000; 500 without a record, 0 when barred.
    pub score: u16,
    /// Whether there is too little record to rely on.
    pub newcomer: bool,
    /// Chance in a thousand that a sampled answer is audited.
    pub audit_permille: u16,
    /// Why this provider is never chosen, if it is not.
    pub barred: Option<String>,
}

impl Standing {
    /// The standing of somebody without a record.
    #[must_use]
    pub fn stranger() -> Self {
        Record::default().standing(None)
    }
}

/// Entries about one provider, faded to `as_of_unix_ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    as_of_unix_ms: u64,
    answers: u64,
    audits: u64,
    bad: u64,
}

impl Record {
    fn faded(self, unix_ms: u64) -> Self {
        let age_ms = unix_ms.saturating_sub(self.as_of_unix_ms);
        Self {
            as_of_unix_ms: self.as_of_unix_ms.max(unix_ms),
            answers: decay::fade(self.answers, age_ms),
            audits: decay::fade(self.audits, age_ms),
            bad: decay::fade(self.bad, age_ms),
        }
    }

    fn good(&self) -> u64 {
        self.answers.saturating_add(self.audits.saturating_mul(AUDIT_WEIGHT))
    }

    fn score(&self) -> u16 {
        let good = u128::from(self.good()) + u128::from(PRIOR);
        let all = good + u128::from(self.bad) + u128::from(PRIOR);
        (1000 * good / all) as u16
    }

    fn audit_permille(&self) -> u16 {
        let record = self.good() / ONE;
        let falling = NEWCOMER_AUDIT_PERMILLE * AUDIT_WEIGHT / record.saturating_add(AUDIT_WEIGHT);
        let rate = if self.score() < 500 { NEWCOMER_AUDIT_PERMILLE } else { falling };
        rate.max(FLOOR_AUDIT_PERMILLE) as u16
    }

    fn standing(&self, barred: Option<&String>) -> Standing {
        Standing {
            score: if barred.is_some() { 0 } else { self.score() },
            newcomer: self.good() < NEWCOMER_BELOW,
            audit_permille: if barred.is_some() { 1000 } else { self.audit_permille() },
            barred: barred.cloned(),
        }
    }
}

/// The records of all providers this node has dealt with.
///
/// ```
/// use peerproof_identity::Keypair;
/// use peerproof_job::Reputation;
///
/// let reputation = Reputation::new();
/// let somebody = Keypair::from_seed(&[1; 32]).public().peer_id();
/// assert_eq!(reputation.standing(&somebody, 0).score, 500);
/// ```
#[derive(Clone, Debug)]
pub struct Reputation {
    records: BTreeMap<PeerId, Record>,
    barred: BTreeMap<PeerId, String>,
    max_records: usize,
    max_barred: usize,
}

impl Default for Reputation {
    fn default() -> Self {
        Self::new()
    }
}

impl Reputation {
    /// No records.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(MAX_RECORDS, MAX_BARRED)
    }

    /// No records, with other bounds than [`MAX_RECORDS`] and [`MAX_BARRED`].
    #[must_use]
    pub fn bounded(max_records: usize, max_barred: usize) -> Self {
        Self { records: BTreeMap::new(), barred: BTreeMap::new(), max_records, max_barred }
    }

    /// Computes all records again from a log, oldest entry first.
    #[must_use]
    pub fn replay<'a>(entries: impl IntoIterator<Item = &'a LogEntry>) -> Self {
        let mut reputation = Self::new();
        for entry in entries {
            reputation.note(entry);
        }
        reputation
    }

    /// Takes one more entry of this node's log into account.
    pub fn note(&mut self, entry: &LogEntry) {
        let at = entry.unix_ms;
        match &entry.body {
            LogBody::Receipt(_) | LogBody::Note(_) => {}
            LogBody::Verdict(verdict) => {
                let provider = PeerId::from(verdict.provider);
                match &verdict.outcome {
                    // Anybody can have any answer audited here, a provider its own ones too.
                    Outcome::Pass => {}
                    Outcome::Fail(mismatch) => {
                        let why = format!("{}: {:?}", Fault::WrongAnswer, mismatch.what);
                        self.bar(provider, &why);
                    }
                }
            }
            LogBody::Evidence(evidence) => self.note_evidence(evidence, at),
            LogBody::Accepted(accepted) => {
                let twice = u64::from(planted("an audit counts twice"));
                let audited = u64::from(accepted.audited) * (1 + twice);
                self.add(PeerId::from(accepted.provider), at, |record| {
                    record.answers = record.answers.saturating_add(ONE);
                    record.audits = record.audits.saturating_add(audited * ONE);
                });
            }
        }
    }

    fn note_evidence(&mut self, evidence: &Evidence, at: u64) {
        match evidence {
            Evidence::WrongAnswer(_) if planted("a wrong answer bars nobody") => {}
            Evidence::WrongAnswer(wrong) => {
                let why = format!("{}: {:?}", Fault::WrongAnswer, wrong.mismatch.what);
                self.bar(PeerId::from(wrong.case.receipt.key()), &why);
            }
            Evidence::Equivocation(two) => {
                self.bar(PeerId::from(two.first.key()), Fault::Equivocation.code());
            }
            Evidence::FalseVerdict(_) => {}
            Evidence::Fork(fork) => self.bar(PeerId::from(fork.key), Fault::Fork.code()),
            Evidence::Observation(seen) => {
                let provider = PeerId::from(seen.provider);
                let fault = Fault::of_reason(&seen.reason).unwrap_or(Fault::Garbage);
                if fault.bars() {
                    self.bar(provider, &seen.reason);
                } else {
                    self.add(provider, at, |record| {
                        record.bad = record.bad.saturating_add(fault.weight() * ONE);
                    });
                }
            }
        }
    }

    fn add(&mut self, provider: PeerId, at: u64, change: impl FnOnce(&mut Record)) {
        if !self.records.contains_key(&provider) && self.records.len() >= self.max_records {
            let idle = self.records.iter().min_by_key(|(_, record)| record.as_of_unix_ms);
            let Some(idle) = idle.map(|(peer, _)| *peer) else { return };
            self.records.remove(&idle);
        }
        let record = self.records.entry(provider).or_default();
        *record = record.faded(at);
        change(record);
    }

    /// Bars a provider for good. Whoever is barred stays barred, and for the first reason.
    fn bar(&mut self, provider: PeerId, why: &str) {
        if self.barred.len() < self.max_barred {
            self.barred.entry(provider).or_insert_with(|| clip(why, MAX_REASON_BYTES));
        }
    }

    /// What is known of `provider` at a wall-clock time.
    #[must_use]
    pub fn standing(&self, provider: &PeerId, unix_ms: u64) -> Standing {
        let record = self.records.get(provider).copied().unwrap_or_default();
        record.faded(unix_ms).standing(self.barred.get(provider))
    }

    /// The arithmetic behind [`Reputation::standing`], for people.
    #[must_use]
    pub fn explain(&self, provider: &PeerId, unix_ms: u64) -> Explanation {
        let record = self.records.get(provider).copied().unwrap_or_default();
        let faded = record.faded(unix_ms);
        Explanation { record: faded, standing: self.standing(provider, unix_ms) }
    }

    /// Everybody who is barred, with the reason.
    pub fn barred(&self) -> impl Iterator<Item = (&PeerId, &str)> {
        self.barred.iter().map(|(peer, why)| (peer, why.as_str()))
    }

    /// How many providers have a record that is not a bar.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is known of anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.barred.is_empty()
    }
}

/// How a score came about; prints as a few lines.
#[derive(Clone, Debug)]
pub struct Explanation {
    record: Record,
    standing: Standing,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |value: u64| value as f64 / ONE as f64;
        let record = &self.record;
        if let Some(why) = &self.standing.barred {
            return write!(f, "score 0: barred ({why})");
        }
        writeln!(
            f,
            "good {:.2} = answers {:.2} + {AUDIT_WEIGHT} x audits passed {:.2}",
            whole(record.good()),
            whole(record.answers),
            whole(record.audits)
        )?;
        writeln!(f, "bad {:.2}", whole(record.bad))?;
        writeln!(
            f,
            "score {} = 1000 x (good + {prior}) / (good + bad + {both})",
            self.standing.score,
            prior = PRIOR / ONE,
            both = 2 * PRIOR / ONE
        )?;
        write!(
            f,
            "audited with {} in 1000{}",
            self.standing.audit_permille,
            if self.standing.newcomer { ", new" } else { "" }
        )
    }
}

#[cfg(test)]
mod tests;
