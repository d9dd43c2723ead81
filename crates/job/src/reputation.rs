//! What this node knows of each peer, computed from its own log.
//!
//! There are no votes and no received scores: a record is a function of the
//! entries this node made or checked itself ([`LogEntry`]), so it can be
//! computed again at any start with [`Reputation::replay`], and the order of
//! entries does not matter. Entries fade with a half-life of 14 days
//! ([`Rules`]); a bar does not fade. What the peers of one network group earn
//! together is capped, whatever they do: keys are cheap, addresses less so.
//!
//! All arithmetic is in integers (16 fractional bits), so two nodes with the
//! same log agree on every score. Data passes through `effect` once: an entry
//! becomes a few effects, those go into records by group and day, into charges,
//! and into what is known of auditors. Absent here: whether a piece of evidence
//! is true. The log holds only what was checked before it was written.

mod auditors;
mod charges;
mod days;
mod decay;
mod deterrence;
mod effect;
mod explain;
mod fault;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use peerproof_identity::PeerId;
use peerproof_wire::{Digest, LogEntry, NetworkGroup};

pub use auditors::AuditorStanding;
pub use deterrence::Deterrence;
pub use explain::{AccountLine, Explanation, GroupShare, Points, account};
pub use fault::Fault;
pub use record::Volume;

use crate::limits::{MAX_AUDITOR_RECORDS, MAX_BARRED, MAX_RECORDS, MAX_REFUTED};
use auditors::AuditorRecord;
use charges::{Charges, Place};
use days::{At, Days, ONE, day};
use effect::{Effect, effects};
use record::Record;

/// Good points every provider starts with, and as many bad ones.
const PRIOR: u64 = 4 * ONE;
/// Below this much good record a provider is new.
const NEWCOMER_BELOW: u64 = 24 * ONE;
/// Chance of an audit for a provider without a record.
const NEWCOMER_AUDIT_PERMILLE: u64 = 500;
/// Good points at which that chance is halved.
const HALVING: u64 = 8;
/// Chance of an audit that no record lowers further.
const FLOOR_AUDIT_PERMILLE: u64 = 50;
/// Bad points of a charge that the user forgave.
const FORGIVEN: u64 = 16;

/// Everybody whose record an entry changes.
#[must_use]
pub fn concerned(entry: &LogEntry) -> BTreeSet<PeerId> {
    effects(&entry.body).iter().map(Effect::peer).collect()
}

/// A node's own choices in the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// After so many days points count half; at least 1.
    pub half_life_days: u32,
    /// Most good points that the peers of one network group have together.
    pub group_cap: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { half_life_days: 14, group_cap: 512 }
    }
}

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
        Self::of(0, 0, None)
    }

    /// `good` and `bad` with 16 fractional bits.
    fn of(good: u64, bad: u64, barred: Option<String>) -> Self {
        let raised = u128::from(good) + u128::from(PRIOR);
        let score = (1000 * raised / (raised + u128::from(bad) + u128::from(PRIOR))) as u16;
        let falling = NEWCOMER_AUDIT_PERMILLE * HALVING / (good / ONE).saturating_add(HALVING);
        let rate = if score < 500 { NEWCOMER_AUDIT_PERMILLE } else { falling };
        Self {
            score: if barred.is_some() { 0 } else { score },
            newcomer: good < NEWCOMER_BELOW,
            audit_permille: match barred {
                Some(_) => 1000,
                None => rate.max(FLOOR_AUDIT_PERMILLE) as u16,
            },
            barred,
        }
    }
}

/// The records of all peers this node has dealt with.
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
    rules: Rules,
    records: BTreeMap<PeerId, Record>,
    /// All points earned in a group, capped or not, and by whom.
    groups: BTreeMap<NetworkGroup, (Days, BTreeSet<PeerId>)>,
    charges: BTreeMap<PeerId, Charges>,
    refuted: BTreeSet<Digest>,
    auditors: BTreeMap<PeerId, AuditorRecord>,
    next_index: u64,
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
        Self::with(Rules::default())
    }

    /// No records, and other rules than the default ones.
    #[must_use]
    pub fn with(rules: Rules) -> Self {
        Self::bounded(MAX_RECORDS, MAX_BARRED).ruled(rules)
    }

    /// No records, with other bounds than [`MAX_RECORDS`] and [`MAX_BARRED`].
    #[must_use]
    pub fn bounded(max_records: usize, max_barred: usize) -> Self {
        Self {
            rules: Rules::default(),
            records: BTreeMap::new(),
            groups: BTreeMap::new(),
            charges: BTreeMap::new(),
            refuted: BTreeSet::new(),
            auditors: BTreeMap::new(),
            next_index: 0,
            max_records,
            max_barred,
        }
    }

    fn ruled(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Computes all records again from a log, oldest entry first.
    #[must_use]
    pub fn replay<'a>(entries: impl IntoIterator<Item = &'a LogEntry>) -> Self {
        Self::replay_with(Rules::default(), entries)
    }

    /// As [`Reputation::replay`], by other rules.
    #[must_use]
    pub fn replay_with<'a>(rules: Rules, entries: impl IntoIterator<Item = &'a LogEntry>) -> Self {
        let mut reputation = Self::with(rules);
        for entry in entries {
            reputation.note(entry);
        }
        reputation
    }

    /// Takes one more entry of this node's log into account.
    pub fn note(&mut self, entry: &LogEntry) {
        self.note_at(self.next_index, entry);
    }

    /// Takes the entry with this index into account. Entries may come in any order.
    pub fn note_at(&mut self, index: u64, entry: &LogEntry) {
        self.next_index = self.next_index.max(index.saturating_add(1));
        let place = (entry.unix_ms, index);
        for effect in effects(&entry.body) {
            self.apply(place, effect);
        }
    }

    fn apply(&mut self, place: Place, effect: Effect) {
        let today = day(place.0);
        match effect {
            Effect::Answer { provider, group, audit, figures } => {
                let Some(record) = self.record(provider, place.0) else { return };
                let (group, points) = record.answer(group, audit, today, figures);
                record.last_group = group;
                let (sum, members) = self.groups.entry(group).or_default();
                sum.add(today, points);
                members.insert(provider);
            }
            Effect::Bad { peer, fault } => {
                let Some(record) = self.record(peer, place.0) else { return };
                record.bad.add(today, fault.weight());
                record.volume.faults += 1;
            }
            Effect::Charge { peer, receipt, why } => {
                if let Some(charges) = self.charges_of(peer) {
                    charges.charge(place, receipt, &why);
                }
            }
            Effect::Decision { peer, blocked, reason } => {
                if let Some(charges) = self.charges_of(peer) {
                    charges.decide(place, blocked, &reason);
                }
            }
            Effect::Refuted { receipt, .. } => {
                if self.refuted.len() < MAX_REFUTED {
                    self.refuted.insert(receipt);
                }
            }
            Effect::Auditor { auditor, judged } => self.auditor_of(auditor).judge(place, judged),
        }
    }

    /// The record of a peer, made if there is none; the longest idle one gives way.
    fn record(&mut self, peer: PeerId, unix_ms: u64) -> Option<&mut Record> {
        if !self.records.contains_key(&peer) && self.records.len() >= self.max_records {
            let idle = self.records.iter().min_by_key(|(_, record)| record.last_ms);
            let idle = idle.map(|(peer, _)| *peer)?;
            self.forget(&idle);
        }
        let record = self.records.entry(peer).or_default();
        record.last_ms = record.last_ms.max(unix_ms);
        Some(record)
    }

    fn forget(&mut self, peer: &PeerId) {
        let Some(record) = self.records.remove(peer) else { return };
        for (group, work) in &record.work {
            let Some((sum, members)) = self.groups.get_mut(group) else { continue };
            sum.subtract(&work.points);
            members.remove(peer);
            if sum.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// What is brought against a peer; nobody is forgotten in favour of another.
    fn charges_of(&mut self, peer: PeerId) -> Option<&mut Charges> {
        let known = self.charges.len() < self.max_barred || self.charges.contains_key(&peer);
        known.then(|| self.charges.entry(peer).or_default())
    }

    fn auditor_of(&mut self, auditor: PeerId) -> &mut AuditorRecord {
        let known = self.auditors.contains_key(&auditor);
        if !known && self.auditors.len() >= MAX_AUDITOR_RECORDS {
            let idle = self.auditors.iter().min_by_key(|(_, record)| record.last_ms);
            if let Some(idle) = idle.map(|(peer, _)| *peer) {
                self.auditors.remove(&idle);
            }
        }
        self.auditors.entry(auditor).or_default()
    }

    fn at(&self, unix_ms: u64) -> At {
        At { today: day(unix_ms), half_life_days: self.rules.half_life_days.into() }
    }

    /// What is known of `provider` at a wall-clock time.
    #[must_use]
    pub fn standing(&self, provider: &PeerId, unix_ms: u64) -> Standing {
        self.explain(provider, unix_ms).standing
    }

    /// What is known of `auditor` at a wall-clock time. Whoever is barred does not audit either.
    #[must_use]
    pub fn auditor(&self, auditor: &PeerId, unix_ms: u64) -> AuditorStanding {
        let charges = self.charges.get(auditor);
        let lifted = charges.and_then(Charges::lifted);
        let unknown = AuditorRecord::default();
        let record = self.auditors.get(auditor).unwrap_or(&unknown);
        let standing = record.standing(self.at(unix_ms), lifted);
        AuditorStanding { barred: self.bar(auditor).or(standing.barred), ..standing }
    }

    fn bar(&self, peer: &PeerId) -> Option<String> {
        self.charges.get(peer).and_then(|charges| charges.bar(&self.refuted))
    }

    /// Everybody who is barred, with the reason.
    pub fn barred(&self) -> impl Iterator<Item = (PeerId, String)> + '_ {
        self.charges.keys().filter_map(|peer| Some((*peer, self.bar(peer)?)))
    }

    /// Everybody an entry speaks of.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<PeerId> {
        let all = self.records.keys().chain(self.charges.keys()).chain(self.auditors.keys());
        all.copied().collect()
    }

    /// Receipts of a peer that are said to be wrong and not refuted.
    #[must_use]
    pub fn accused_receipts(&self, peer: &PeerId) -> Vec<Digest> {
        self.charges.get(peer).map(|charges| charges.receipts(&self.refuted)).unwrap_or_default()
    }

    /// Where a peer's last answer came from.
    #[must_use]
    pub fn last_group(&self, peer: &PeerId) -> NetworkGroup {
        self.records.get(peer).map(|record| record.last_group).unwrap_or_default()
    }

    /// How many peers have a record that is not a bar.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is known of anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.charges.is_empty() && self.auditors.is_empty()
    }

    /// The most good points that each peer of a group may have at a time, so that all
    /// together keep the cap: whoever has less keeps all of it, the others have equal shares.
    fn level(&self, group: NetworkGroup, at: At) -> Option<u64> {
        if group == NetworkGroup::Local {
            return None;
        }
        let (sum, members) = self.groups.get(&group)?;
        let cap = u64::from(self.rules.group_cap).saturating_mul(ONE);
        if sum.left(at) <= cap {
            return None;
        }
        let earned = members.iter().filter_map(|peer| self.records.get(peer)?.work.get(&group));
        let mut earned: Vec<u64> = earned.map(|work| work.left(at)).collect();
        earned.sort_unstable();
        let (mut rest, mut others) = (cap, earned.len() as u64);
        for points in earned {
            let share = rest / others.max(1);
            if points > share {
                return Some(share);
            }
            rest -= points;
            others -= 1;
        }
        None
    }
}

#[cfg(test)]
mod tests;
