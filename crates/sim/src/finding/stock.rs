//! The anchor: Kademlia as it is usually built.
//!
//! Three questions at once; of all peers heard of, the twenty closest to the key are
//! kept and asked until all of them answered or failed. A record is written to those
//! twenty. A search ends with the first record that is validly signed (a quorum of one).
//! Full stores ignore newcomers. This is a model in a page, under the same tables,
//! delays and attackers as the machine beside it; it is not another project's code.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use peerproof_discovery::id::{Distance, Key};
use peerproof_discovery::message::{Kind, Message, Value};
use peerproof_discovery::record::Record;
use peerproof_discovery::table::Located;

use super::network::{Network, Who, size};
use super::{Publication, Trial};

const ALPHA: usize = 3;
const K: usize = 20;
const TIMEOUT_MS: u64 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
}

struct Search<'a> {
    network: &'a mut Network,
    from: usize,
    place: Key,
    name: &'a [u8],
    kind: Kind,
    peers: BTreeMap<Distance, (Arc<Located>, State)>,
    now: u64,
    trial: Trial,
    record: Option<Record>,
}

struct Reply {
    to: Arc<Located>,
    closer: Vec<Arc<Located>>,
    value: Option<Vec<u8>>,
}

/// Writes a record.
pub(super) fn put(network: &mut Network, from: usize, publication: &Publication) -> Trial {
    let record = &publication.new;
    let mut search = Search::new(network, from, record.name_bytes(), Kind::FindNode);
    search.run();
    let (mut trial, from_key) = (search.trial, search.from);
    let holders: Vec<Arc<Located>> = search
        .peers
        .values()
        .filter(|(_, state)| *state == State::Answered)
        .take(K)
        .map(|(who, _)| Arc::clone(who))
        .collect();
    trial.calls += holders.len() as u64;
    for holder in holders {
        if let Some(Who::Honest(_)) = network.reach(from_key, holder.key()) {
            trial.kept += u64::from(network.stock_put(holder.key(), record));
        }
    }
    trial
}

/// Looks for a record.
pub(super) fn get(network: &mut Network, from: usize, publication: &Publication) -> Trial {
    let name = publication.new.name_bytes();
    let mut search = Search::new(network, from, name, Kind::GetValue);
    search.run();
    let mut trial = search.trial;
    trial.found = search.record.as_ref() == Some(&publication.new);
    trial.done_ms = search.now;
    trial.first_ms = search.record.is_some().then_some(search.now);
    trial
}

impl<'a> Search<'a> {
    fn new(network: &'a mut Network, from: usize, name: &'a [u8], kind: Kind) -> Self {
        let place = Key::of(name);
        let seeds = network.stock_closest(from, &place);
        let mut search = Self {
            network,
            from,
            place,
            name,
            kind,
            peers: BTreeMap::new(),
            now: 0,
            trial: Trial::default(),
            record: None,
        };
        search.hear(seeds);
        search
    }

    fn hear(&mut self, peers: Vec<Arc<Located>>) {
        let own = *self.network.located(self.from).key();
        for who in peers.into_iter().filter(|who| *who.key() != own) {
            self.peers.entry(who.key().distance(&self.place)).or_insert((who, State::New));
        }
    }

    fn run(&mut self) {
        let mut pending: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let mut replies: BTreeMap<u64, (Distance, Option<Reply>)> = BTreeMap::new();
        let mut number = 0;
        while self.record.is_none() {
            while pending.len() < ALPHA {
                let Some((distance, to)) = self.next() else { break };
                let (reply, delay) = self.ask(&to);
                replies.insert(number, (distance, reply));
                pending.push(Reverse((self.now + delay, number)));
                number += 1;
            }
            let Some(Reverse((due, number))) = pending.pop() else { return };
            self.now = due;
            let Some((distance, reply)) = replies.remove(&number) else { return };
            let state = if reply.is_some() { State::Answered } else { State::Failed };
            if let Some(peer) = self.peers.get_mut(&distance) {
                peer.1 = state;
            }
            if let Some(reply) = reply {
                self.take(reply);
            }
        }
    }

    /// The closest of the twenty best that was not asked.
    fn next(&mut self) -> Option<(Distance, Arc<Located>)> {
        let alive = self.peers.iter_mut().filter(|(_, (_, state))| *state != State::Failed);
        let mut best = alive.take(K);
        let (distance, (who, state)) = best.find(|(_, (_, state))| *state == State::New)?;
        *state = State::Asked;
        Some((*distance, Arc::clone(who)))
    }

    fn ask(&mut self, to: &Arc<Located>) -> (Option<Reply>, u64) {
        self.trial.calls += 1;
        self.trial.bytes += size(&Message::new(self.kind, self.name));
        let trips = 2 * self.network.trip_ms(self.from, to.key());
        let Some(who) = self.network.reach(self.from, to.key()) else {
            return (None, TIMEOUT_MS);
        };
        let gets = self.kind == Kind::GetValue;
        let (closer, value) = match who {
            Who::Honest(at) => {
                let kept = self.network.stock.get(to.key()).and_then(|kept| kept.get(self.name));
                let value = kept.filter(|_| gets).map(|record| record.as_bytes().to_vec());
                (self.network.stock_closest(at, &self.place), value)
            }
            Who::Liar => {
                let liars = self.network.liars();
                let replays = gets && liars.replays();
                let value = replays.then(|| liars.replayed(self.name, false)).flatten();
                (liars.closest(&self.place, to.key()), value.map(|value| value.bytes))
            }
        };
        let answer = Message {
            closer: closer.iter().map(|who| who.contact().clone()).collect(),
            value: value.clone().map(|bytes| Value { name: self.name.to_vec(), bytes }),
            ..Message::new(self.kind, self.name)
        };
        self.trial.bytes += size(&answer);
        (Some(Reply { to: Arc::clone(to), closer, value }), trips)
    }

    fn take(&mut self, reply: Reply) {
        let mut seen = BTreeSet::from([*reply.to.key()]);
        let closer = reply.closer.into_iter().filter(|who| seen.insert(*who.key())).collect();
        self.hear(closer);
        let now_s = self.network.now_s();
        let record = reply.value.and_then(|bytes| Record::decode(&bytes).ok());
        self.record = record.filter(|record| record.check_time(now_s).is_ok());
    }
}
