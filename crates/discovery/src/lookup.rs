//! One lookup: eight paths into a region, then everybody in it.
//!
//! A record lives at every peer of the region around its key. So reader and writer walk
//! to eight points spread over the region rather than to the key itself: ids that were
//! ground next to the key swallow the path of one part and leave seven. Peers that the
//! paths find there are asked in turn by teller (`crowd`), and name their neighbours.
//! Peers outside the region are shown a point of it, not the name.
//!
//! A region with three times the peers it should have raises the alarm and is widened,
//! for reader and writer alike. A reader ends early once it has a record and answers
//! from many parts of the region; it keeps the newest it saw. A writer gives each peer
//! the record together with the publisher's permission for that peer and its token.
//!
//! Absent: sending, timeouts of calls, and signatures of the network (`node` and the
//! driver see to these).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peerproof_identity::Keypair;

use crate::crowd::Crowd;
use crate::id::{Distance, Key};
use crate::limits::{
    CROWD_FACTOR, ENOUGH_ANSWERS, LOOKUP_TIMEOUT_MS, MAX_PROVIDERS_FOUND, MAX_SWEPT, MAX_WALKS,
    PATHS, REGION_PEERS, SEEDS_PER_PATH, SWEEP_CALLS, WIDE_FACTOR,
};
use crate::message::{Contact, Kind, Message, Value};
use crate::record::Record;
use crate::table::{Located, Table};
use crate::walk::{PathReport, Walk, contradicts_itself};
use crate::{Chance, Millis};

/// What a lookup is for.
#[derive(Debug)]
pub enum Goal {
    /// The peers closest to a place.
    Locate(Key),
    /// The newest record of a name.
    Get(Vec<u8>),
    /// Have a record kept.
    Put(Box<Record>, Arc<Keypair>),
    /// Who provides a name.
    Providers(Vec<u8>),
    /// Be named as a provider of a name.
    Provide(Vec<u8>, Contact),
}

impl Goal {
    fn name(&self) -> &[u8] {
        match self {
            Self::Locate(_) => &[],
            Self::Get(name) | Self::Providers(name) | Self::Provide(name, _) => name,
            Self::Put(record, _) => record.name_bytes(),
        }
    }

    fn place(&self) -> Key {
        match self {
            Self::Locate(place) => *place,
            _ => Key::of(self.name()),
        }
    }

    /// What is asked of a peer within the region on the way.
    const fn question(&self) -> Kind {
        match self {
            Self::Get(_) => Kind::GetValue,
            Self::Providers(_) => Kind::GetProviders,
            _ => Kind::FindNode,
        }
    }
}

/// What came of a lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The newest record seen, if one was looked for.
    pub record: Option<Record>,
    /// Providers named.
    pub providers: Vec<Contact>,
    /// Peers that said they keep what was written.
    pub kept: usize,
    /// Peers of the region that answered.
    pub answered: usize,
    /// Peers that were named within the region.
    pub named: usize,
    /// The region held far more peers than it should: somebody may be crowding it.
    pub crowded: bool,
    /// Answers that carried a record which is none, or is not for here and now.
    pub invalid: usize,
    /// Answers that carried an older record than the newest.
    pub stale: usize,
    /// Questions and writes sent.
    pub calls: u32,
    /// Those without an answer.
    pub failed: u32,
    /// Answers that contradicted themselves.
    pub contradictions: u32,
    /// What each path of each walk saw.
    pub paths: Vec<PathReport>,
}

/// A message that a lookup wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// To whom.
    pub to: Arc<Located>,
    /// What.
    pub message: Message,
    /// Whether an answer is expected; `ADD_PROVIDER` has none.
    pub answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Path(usize),
    Sweep,
    Write { again: bool },
}

/// A lookup under way.
#[derive(Debug)]
pub struct Lookup {
    goal: Goal,
    own: Key,
    place: Key,
    crowd: Crowd,
    walk: Walk,
    walks: u32,
    asked: BTreeSet<Key>,
    asking: BTreeMap<Key, (Arc<Located>, Step)>,
    /// Peers of the region with their tokens, to be written to.
    writes: Vec<(Arc<Located>, Option<[u8; 16]>, bool)>,
    written: BTreeSet<Key>,
    swept: usize,
    deadline: Millis,
    outcome: Outcome,
}

impl Lookup {
    /// Starts from peers of the table. `region` is the distance within which records are
    /// kept.
    #[must_use]
    pub fn new(
        goal: Goal,
        table: &Table,
        region: Distance,
        chance: &mut Chance,
        now: Millis,
    ) -> Self {
        let place = goal.place();
        let crowd = Crowd::new(place, region);
        let mut lookup = Self {
            goal,
            own: *table.own(),
            place,
            crowd,
            walk: Walk::new(Vec::new(), Vec::new(), now),
            walks: 0,
            asked: BTreeSet::from([*table.own()]),
            asking: BTreeMap::new(),
            writes: Vec::new(),
            written: BTreeSet::new(),
            swept: 0,
            deadline: now.after(LOOKUP_TIMEOUT_MS),
            outcome: Outcome::default(),
        };
        lookup.start_walk(table, chance, now);
        lookup
    }

    /// A record that is known already, such as one kept here.
    pub fn know(&mut self, record: Record) {
        self.outcome.record = Some(record);
    }

    /// The newest record seen so far.
    #[must_use]
    pub const fn record(&self) -> Option<&Record> {
        self.outcome.record.as_ref()
    }

    /// Whether it was for a place only, drawn by chance or not.
    #[must_use]
    pub const fn is_for_place(&self) -> bool {
        matches!(self.goal, Goal::Locate(_))
    }

    fn start_walk(&mut self, table: &Table, chance: &mut Chance, now: Millis) {
        let points = match self.goal {
            Goal::Locate(place) => vec![place; PATHS],
            _ => self.crowd.points(chance),
        };
        let mut seeds = table.seeds(table.len(), chance);
        seeds.retain(|who| !self.asked.contains(who.key()));
        seeds.truncate(PATHS * SEEDS_PER_PATH);
        self.outcome.paths.extend(self.walk.reports().cloned());
        self.walk = Walk::new(points, seeds, now);
        self.walks += 1;
    }

    /// What to send now. Call again after every answer and failure, and at
    /// [`next_wake`](Self::next_wake).
    pub fn poll(&mut self, table: &Table, chance: &mut Chance, now: Millis) -> Vec<Ask> {
        let mut asks = Vec::new();
        loop {
            for (at, who) in self.walk.poll(&mut self.asked, now) {
                let message = self.question(&who, self.walk.point(at));
                self.send(who, message, Step::Path(at), &mut asks);
            }
            self.poll_writes(&mut asks);
            if !self.walk.is_over(now) || matches!(self.goal, Goal::Locate(_)) {
                return asks;
            }
            if self.must_widen() {
                self.start_walk(table, chance, now);
                continue;
            }
            self.poll_sweep(&mut asks);
            if self.asking.is_empty() && self.may_try_again(table, now) {
                self.start_walk(table, chance, now);
                continue;
            }
            return asks;
        }
    }

    /// Widens a region that is crowded, once, and says whether it did.
    fn must_widen(&mut self) -> bool {
        let expected = usize::try_from(REGION_PEERS).unwrap_or(usize::MAX);
        if self.outcome.crowded || self.crowd.radius() == Distance::MAX {
            return false;
        }
        if self.crowd.len() <= CROWD_FACTOR * expected {
            return false;
        }
        self.outcome.crowded = true;
        let wide = self.crowd.radius().top().saturating_mul(WIDE_FACTOR);
        self.crowd.widen(Distance::from_top(wide));
        !self.has_enough()
    }

    fn may_try_again(&self, table: &Table, now: Millis) -> bool {
        let looks = matches!(self.goal, Goal::Get(_) | Goal::Providers(_));
        let found = self.outcome.record.is_some() || !self.outcome.providers.is_empty();
        looks
            && !found
            && self.walks < MAX_WALKS
            && now < self.deadline
            && table.peers().any(|who| !self.asked.contains(who.key()))
    }

    fn poll_sweep(&mut self, asks: &mut Vec<Ask>) {
        while self.asking.len() < SWEEP_CALLS && self.swept < MAX_SWEPT && !self.has_enough() {
            let Some(who) = self.crowd.next(&self.asked) else { return };
            self.asked.insert(*who.key());
            self.swept += 1;
            // Asked for its own place, a peer names its neighbours.
            let message = self.question(&who, Some(*who.key()));
            self.send(who, message, Step::Sweep, asks);
        }
    }

    fn poll_writes(&mut self, asks: &mut Vec<Ask>) {
        while self.asking.len() < SWEEP_CALLS {
            let Some((who, token, again)) = self.writes.pop() else { return };
            let Some(message) = self.write(&who, token) else { return };
            if message.kind == Kind::AddProvider {
                self.outcome.calls += 1;
                self.outcome.kept += 1;
                asks.push(Ask { to: who, message, answered: false });
            } else {
                self.send(who, message, Step::Write { again }, asks);
            }
        }
    }

    fn send(&mut self, to: Arc<Located>, message: Message, step: Step, asks: &mut Vec<Ask>) {
        self.outcome.calls += 1;
        self.asking.insert(*to.key(), (Arc::clone(&to), step));
        asks.push(Ask { to, message, answered: true });
    }

    fn question(&self, who: &Located, point: Option<Key>) -> Message {
        let (kind, name) = if self.crowd.holds(who.key()) {
            (self.goal.question(), self.goal.name())
        } else {
            (Kind::FindNode, &[][..])
        };
        Message { point, ..Message::new(kind, name) }
    }

    fn write(&self, who: &Located, token: Option<[u8; 16]>) -> Option<Message> {
        match &self.goal {
            Goal::Put(record, key) => {
                let token = token.unwrap_or_default();
                let name = record.name_bytes().to_vec();
                Some(Message {
                    value: Some(Value { name: name.clone(), bytes: record.as_bytes().to_vec() }),
                    signature: Some(record.grant(key, &who.contact().peer, &token)),
                    token: Some(token),
                    ..Message::new(Kind::PutValue, &name)
                })
            }
            Goal::Provide(name, own) => Some(Message {
                providers: vec![own.clone()],
                ..Message::new(Kind::AddProvider, name)
            }),
            _ => None,
        }
    }

    /// Takes an answer. `closer` are the peers it names, placed; `now_s` is the clock
    /// that records are held against. Answers that were not asked for are passed over.
    pub fn answered(
        &mut self,
        from: &Key,
        message: &Message,
        closer: &[Arc<Located>],
        chance: &mut Chance,
        now_s: u64,
    ) {
        let Some((who, step)) = self.asking.remove(from) else { return };
        if let Step::Write { again } = step {
            self.wrote(who, message, again);
            return;
        }
        let closer: Vec<Arc<Located>> =
            closer.iter().filter(|peer| *peer.key() != self.own).cloned().collect();
        if let Step::Path(at) = step {
            self.walk.answered(at, &who, &closer, &self.asked);
        }
        if contradicts_itself(&who, &closer) {
            self.outcome.contradictions += 1;
        } else {
            self.crowd.told(&closer, &self.own, chance);
        }
        if self.crowd.holds(from) {
            self.outcome.answered += 1;
            self.crowd.answered(from);
            self.take_value(message, now_s);
            self.take_providers(message);
            let writes = matches!(self.goal, Goal::Put(..) | Goal::Provide(..));
            if writes && !message.refused && self.written.insert(*from) {
                self.writes.push((who, message.token, false));
            }
        }
    }

    fn take_value(&mut self, message: &Message, now_s: u64) {
        let (Goal::Get(name), Some(value)) = (&self.goal, &message.value) else { return };
        let record = Record::decode(&value.bytes).ok();
        let record =
            record.filter(|record| record.name_bytes() == name && record.check_time(now_s).is_ok());
        match (record, &self.outcome.record) {
            (None, _) => self.outcome.invalid += 1,
            (Some(record), Some(held)) if !record.is_newer_than(held) => {
                self.outcome.stale += usize::from(record != *held);
            }
            (Some(record), held) => {
                self.outcome.stale += usize::from(held.is_some());
                self.outcome.record = Some(record);
            }
        }
    }

    fn take_providers(&mut self, message: &Message) {
        if !matches!(self.goal, Goal::Providers(_)) {
            return;
        }
        for provider in &message.providers {
            let known = self.outcome.providers.iter().any(|known| known.peer == provider.peer);
            if !known && self.outcome.providers.len() < MAX_PROVIDERS_FOUND {
                self.outcome.providers.push(provider.clone());
            }
        }
    }

    /// A writer's token may have turned; the refusal then carries the next.
    fn wrote(&mut self, who: Arc<Located>, message: &Message, again: bool) {
        if !message.refused {
            self.outcome.kept += 1;
        } else if message.token.is_some() && !again {
            self.writes.push((who, message.token, true));
        }
    }

    /// A question was not answered.
    pub fn failed(&mut self, to: &Key) {
        let Some((_, step)) = self.asking.remove(to) else { return };
        self.outcome.failed += 1;
        match step {
            Step::Path(at) => self.walk.failed(at),
            Step::Sweep => self.crowd.failed(to),
            Step::Write { .. } => {}
        }
    }

    /// A reader that has what it wants and heard many parts of the region needs no more.
    fn has_enough(&self) -> bool {
        let found = match self.goal {
            Goal::Get(_) => self.outcome.record.is_some(),
            Goal::Providers(_) => !self.outcome.providers.is_empty(),
            _ => false,
        };
        found && self.crowd.spread_answers() >= ENOUGH_ANSWERS
    }

    /// Whether it is over. Check after [`poll`](Self::poll).
    #[must_use]
    pub fn is_over(&self, now: Millis) -> bool {
        now >= self.deadline
            || self.has_enough()
            || (self.asking.is_empty() && self.writes.is_empty() && self.walk.is_over(now))
    }

    /// When to poll again at the latest.
    #[must_use]
    pub fn next_wake(&self, now: Millis) -> Millis {
        let walk = self.walk.deadline();
        if walk > now { walk.min(self.deadline) } else { self.deadline }
    }

    /// What came of it.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        self.outcome.paths.extend(self.walk.reports().cloned());
        self.outcome.named = self.crowd.len();
        self.outcome
    }

    /// Where it is headed.
    #[must_use]
    pub const fn place(&self) -> &Key {
        &self.place
    }
}

#[cfg(test)]
mod tests;
