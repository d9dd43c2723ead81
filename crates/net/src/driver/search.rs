//! Finding: who provides a key.
//!
//! One search per key, however many callers. A search asks the routing table
//! at once, again as soon as a new neighbour joins it, and otherwise at
//! doubling intervals; each caller gets every provider once, as it is found,
//! until its own deadline. A provider's addresses go into the book at the
//! moment it is found, since libp2p forgets them with the query.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{GetProvidersOk, QueryId, QueryResult, RecordKey};
use libp2p::swarm::{ConnectionId, NetworkBehaviour};
use peerproof_identity::PeerId;
use tokio::sync::mpsc;

use super::Driver;
use crate::address::from_libp2p;
use crate::limits::{
    MAX_ADDRESSES_PER_PEER, MAX_PROVIDERS_PER_SEARCH, MAX_SEARCH_SINKS, MAX_SEARCHES, SEARCH_GAP,
    SEARCH_GAP_MAX, SEARCH_MORE_GAP,
};
use crate::metrics::count;
use crate::{Address, Event, NetError, Source};

type Key = [u8; 32];

#[derive(Debug)]
struct Search {
    sinks: Vec<(mpsc::Sender<PeerId>, Instant)>,
    found: Vec<PeerId>,
    /// Under way.
    query: Option<QueryId>,
    /// When to ask again, while nothing is under way.
    next: Instant,
    /// A neighbour joined while a query was under way.
    again: bool,
    asked: u32,
}

impl Search {
    /// Passes a provider on to everyone who hasn't heard of it.
    fn report(&mut self, peer: PeerId) -> bool {
        if self.found.len() >= MAX_PROVIDERS_PER_SEARCH || self.found.contains(&peer) {
            return false;
        }
        self.found.push(peer);
        // Each sink has room for all a search may find; a closed one is
        // removed at the next tick.
        for (sink, _) in &self.sinks {
            let _ = sink.try_send(peer);
        }
        true
    }

    fn round_ended(&mut self, now: Instant) {
        self.query = None;
        let first = if self.found.is_empty() { SEARCH_GAP } else { SEARCH_MORE_GAP };
        let gap = first.saturating_mul(1 << self.asked.min(8));
        self.asked += 1;
        self.next =
            if std::mem::take(&mut self.again) { now } else { now + gap.min(SEARCH_GAP_MAX) };
    }

    fn wake(&self) -> Option<Instant> {
        let ends = self.sinks.iter().map(|(_, until)| *until).min();
        let next = self.query.is_none().then_some(self.next);
        [ends, next].into_iter().flatten().min()
    }
}

/// All searches under way.
#[derive(Debug, Default)]
pub(super) struct Searches {
    by_key: HashMap<Key, Search>,
    by_query: HashMap<QueryId, Key>,
}

impl Searches {
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.by_key.values().filter_map(Search::wake).min()
    }

    /// Somebody new can be asked: don't wait for the next round.
    pub(super) fn neighbour_joined(&mut self, now: Instant) {
        for search in self.by_key.values_mut() {
            search.next = now;
            search.again = search.query.is_some();
        }
    }
}

impl Driver {
    /// Starts a search, or joins the one that is under way for this key.
    pub(super) fn find(
        &mut self,
        key: Key,
        until: Instant,
        sink: mpsc::Sender<PeerId>,
    ) -> Result<(), NetError> {
        let now = Instant::now();
        let full = self.searches.by_key.len() >= MAX_SEARCHES;
        if full && !self.searches.by_key.contains_key(&key) {
            return Err(NetError::Limit { what: "searches", limit: MAX_SEARCHES });
        }
        count(&self.counters.searches);
        let search = self.searches.by_key.entry(key).or_insert_with(|| Search {
            sinks: Vec::new(),
            found: Vec::new(),
            query: None,
            next: now,
            again: false,
            asked: 0,
        });
        if search.sinks.len() >= MAX_SEARCH_SINKS {
            return Err(NetError::Limit { what: "callers of one search", limit: MAX_SEARCH_SINKS });
        }
        for peer in &search.found {
            let _ = sink.try_send(*peer);
        }
        search.sinks.push((sink, until));
        self.tick_searches(now);
        Ok(())
    }

    /// Ends what nobody waits for, and asks again where it is time.
    pub(super) fn tick_searches(&mut self, now: Instant) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let by_query = &mut self.searches.by_query;
        self.searches.by_key.retain(|key, search| {
            search.sinks.retain(|(sink, until)| *until > now && !sink.is_closed());
            if search.sinks.is_empty() {
                if let Some(query) = search.query {
                    by_query.remove(&query);
                    if let Some(mut query) = kad.query_mut(&query) {
                        query.finish();
                    }
                }
                return false;
            }
            if search.query.is_none() && search.next <= now {
                let query = kad.get_providers(RecordKey::new(key));
                search.query = Some(query);
                by_query.insert(query, *key);
            }
            true
        });
    }

    pub(super) fn on_query(&mut self, id: QueryId, result: QueryResult, last: bool) {
        let QueryResult::GetProviders(result) = result else {
            return;
        };
        let Some(key) = self.searches.by_query.get(&id).copied() else {
            return;
        };
        if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
            for provider in providers.into_iter().take(MAX_PROVIDERS_PER_SEARCH) {
                self.on_provider(key, provider);
            }
        }
        if last {
            self.searches.by_query.remove(&id);
            if let Some(search) = self.searches.by_key.get_mut(&key) {
                search.round_ended(Instant::now());
            }
        }
    }

    fn on_provider(&mut self, key: Key, provider: libp2p::PeerId) {
        if provider == *self.swarm.local_peer_id() {
            return;
        }
        let Some(peer) = from_libp2p(&provider) else {
            return;
        };
        self.learn_provider(key, peer, provider);
        let Some(search) = self.searches.by_key.get_mut(&key) else {
            return;
        };
        if search.report(peer)
            && let Some(address) = self.book.addresses(&peer).first().cloned()
        {
            self.events.emit(Event::PeerFound { peer, address, source: Source::Kad });
        }
    }

    /// Copies a provider's addresses out of the query, the routing table and
    /// our own store into the book.
    fn learn_provider(&mut self, key: Key, peer: PeerId, provider: libp2p::PeerId) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        // The id is never used for a connection: this only asks what Kademlia
        // would dial.
        let asked = ConnectionId::new_unchecked(0);
        let mut told = kad
            .handle_pending_outbound_connection(asked, Some(provider), &[], Endpoint::Dialer)
            .unwrap_or_default();
        let stored = kad.store_mut().providers(&RecordKey::new(&key));
        let ours = stored.into_iter().filter(|r| r.provider == provider);
        told.extend(ours.flat_map(|record| record.addresses));
        let loopback = self.lives_on_loopback();
        for address in told
            .iter()
            .filter_map(|address| Address::from_peer(address, loopback))
            .take(MAX_ADDRESSES_PER_PEER)
        {
            self.book.learn(peer, address, Source::Kad);
        }
    }

    /// Whether addresses on this machine can be meant for us: we listen
    /// nowhere else, or have neighbours here.
    fn lives_on_loopback(&self) -> bool {
        let mut listening = self.listeners.iter().flat_map(|(_, l)| &l.addresses);
        let mut links = self.neighbours.values().flat_map(|n| &n.links);
        listening.all(Address::is_loopback) || links.any(|link| link.loopback)
    }
}
