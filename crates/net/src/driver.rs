//! The swarm task: the one place that holds libp2p.
//!
//! Commands come in from [`crate::Handle`]s, events from libp2p, and the time
//! of the next retry from the searches and publications; each is handled to
//! its end without waiting. Answers leave through one-shot channels, news
//! through the bounded event queue. Nothing in this task blocks on a reader.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, Swarm, identify, kad, mdns, ping};
use peerproof_identity::PeerId;
use peerproof_wire::{IDENTIFY_PROTOCOL, KAD_PROTOCOL};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use crate::address::{from_libp2p, to_libp2p};
use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::book::Book;
use crate::command::{Command, PathKind, PeerInfo, answer};
use crate::diagnose::{Listener, Status};
use crate::events::EventSink;
use crate::firewall::Firewall;
use crate::gossip::{self, Ear};
use crate::limits::{
    MAX_ADDRESSES_PER_PEER, MAX_AGENT_CHARS, MAX_BANS, MAX_FOREIGN, SHUTDOWN_TIMEOUT,
    SILENCE_TIMEOUT,
};
use crate::metrics::{Counters, count};
use crate::{Address, Event, NetError, RuleList, Source, Transport};

mod dials;
mod publish;
mod search;

use dials::Dials;
use publish::Publisher;
use search::Searches;

/// One connection.
#[derive(Debug)]
struct Link {
    id: ConnectionId,
    /// The other end, if it can be dialled.
    address: Option<Address>,
    loopback: bool,
    /// Where its packets come from; the relay's, if there is one between.
    ip: Option<std::net::IpAddr>,
    transport: Transport,
    path: PathKind,
    since: Instant,
    rtt: Option<std::time::Duration>,
    /// When the latest ping was answered; `None` if silence proves nothing
    /// here, because the peer answers no pings or QUIC watches itself.
    heard: Option<Instant>,
}

/// A connected peer.
#[derive(Debug, Default)]
struct Neighbour {
    links: Vec<Link>,
    agent: Option<String>,
    /// Told when the last link ends.
    mourners: Vec<oneshot::Sender<()>>,
}

impl Neighbour {
    /// The link for new streams: direct before relayed, QUIC before TCP, the
    /// newer before the older, since a peer that came again may have lost the
    /// old one without a word.
    fn best(&self) -> Option<&Link> {
        self.links.iter().min_by_key(|link| {
            (
                link.path == PathKind::Relayed,
                link.transport == Transport::Tcp,
                std::cmp::Reverse(link.since),
            )
        })
    }
}

pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    events: EventSink,
    counters: Arc<Counters>,
    listeners: Vec<(ListenerId, Listener)>,
    book: Book,
    neighbours: HashMap<PeerId, Neighbour>,
    /// Peers of other networks, not to be dialled again.
    foreign: HashSet<PeerId>,
    dials: Dials,
    searches: Searches,
    publisher: Publisher,
    ear: Ear,
    firewall: Arc<Firewall>,
}

impl Driver {
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        commands: mpsc::Receiver<Command>,
        events: EventSink,
        counters: Arc<Counters>,
        listeners: Vec<(ListenerId, Listener)>,
        firewall: Arc<Firewall>,
    ) -> Self {
        Self {
            swarm,
            commands,
            events,
            counters,
            listeners,
            book: Book::default(),
            neighbours: HashMap::new(),
            foreign: HashSet::new(),
            dials: Dials::default(),
            searches: Searches::default(),
            publisher: Publisher::default(),
            ear: Ear::default(),
            firewall,
        }
    }

    /// Waits until every listener in `wanted` has an address.
    pub(crate) async fn settle(&mut self, wanted: &[ListenerId]) {
        while self
            .listeners
            .iter()
            .any(|(id, l)| wanted.contains(id) && l.addresses.is_empty() && l.error.is_none())
        {
            let event = self.swarm.select_next_some().await;
            self.on_swarm_event(event);
        }
    }

    /// Runs until told to stop, or until no handle is left.
    pub(crate) async fn run(mut self) {
        let reply = loop {
            let wake = self.next_wake();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown { reply }) => break Some(reply),
                    Some(command) => self.on_command(command),
                    None => break None,
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {
                    self.on_tick();
                }
            }
        };
        self.commands.close();
        // Too slow a goodbye is cut short; the sockets close either way.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.say_goodbye()).await;
        drop(self);
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    async fn say_goodbye(&mut self) {
        let ids: Vec<_> = self.listeners.iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.swarm.remove_listener(id);
        }
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Already gone is as good as closed.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        while self.swarm.connected_peers().next().is_some() {
            self.swarm.select_next_some().await;
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let links = self.neighbours.values().flat_map(|n| &n.links);
        let silent = links.filter_map(|link| link.heard).min();
        let silent = silent.map(|heard| heard + SILENCE_TIMEOUT);
        [self.searches.next_wake(), self.publisher.next_wake(), silent].into_iter().flatten().min()
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.tick_searches(now);
        self.tick_publisher(now);
        self.drop_silent(now);
    }

    /// Closes connections whose peer has stopped answering. libp2p's ping
    /// forgives a first failure, which would take half a minute.
    fn drop_silent(&mut self, now: Instant) {
        for (peer, neighbour) in &mut self.neighbours {
            for link in &mut neighbour.links {
                if link.heard.is_some_and(|heard| heard + SILENCE_TIMEOUT <= now) {
                    tracing::debug!(%peer, "closing a connection that doesn't answer");
                    link.heard = None;
                    self.swarm.close_connection(link.id);
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { addresses, reply } => self.dial(&addresses, reply),
            Command::Connect { peer, reply } => self.connect(peer, reply),
            Command::Open { peer, request } => self.open(peer, request),
            Command::Gone { peer, reply } => match self.neighbours.get_mut(&peer) {
                Some(neighbour) => neighbour.mourners.push(reply),
                None => answer(reply, ()),
            },
            Command::Provide { key, reply } => answer(reply, self.provide(key)),
            Command::StopProviding { key } => self.stop_providing(key),
            Command::Find { key, until, sink, reply } => answer(reply, self.find(key, until, sink)),
            Command::Peers { reply } => answer(reply, self.peers()),
            Command::Rtt { peer, reply } => {
                let neighbour = self.neighbours.get(&peer);
                answer(reply, neighbour.and_then(|n| n.best()?.rtt));
            }
            Command::Ip { peer, reply } => {
                let neighbour = self.neighbours.get(&peer);
                answer(reply, neighbour.and_then(|n| n.best()?.ip));
            }
            Command::Learn { peer, address } => {
                self.book.learn(peer, address, Source::Given);
            }
            Command::Listening { reply } => answer(reply, self.listening()),
            Command::Ban { peer, reply } => answer(reply, self.ban(peer)),
            Command::Unban { peer, reply } => {
                if let Some(peer) = to_libp2p(&peer) {
                    self.swarm.behaviour_mut().bans.unblock_peer(peer);
                }
                answer(reply, ());
            }
            Command::Gossip { reply } => {
                let heard = self.ear.listen(&mut self.swarm.behaviour_mut().gossip);
                answer(reply, heard);
            }
            Command::Judge { from, id, judgement } => {
                if let Some(from) = to_libp2p(&from) {
                    let gossip = &mut self.swarm.behaviour_mut().gossip;
                    gossip::judge(gossip, &from, &id, judgement);
                }
            }
            Command::Publish { data, reply } => {
                let sent = gossip::publish(&mut self.swarm.behaviour_mut().gossip, data);
                answer(reply, sent);
            }
            Command::Score { peer, reply } => {
                let gossip = &self.swarm.behaviour().gossip;
                answer(reply, to_libp2p(&peer).and_then(|peer| gossip.peer_score(&peer)));
            }
            Command::Firewall { rules, reply } => answer(reply, self.set_firewall(rules)),
            Command::Status { reply } => {
                let status = self.status();
                answer(reply, status);
            }
            Command::Shutdown { reply } => answer(reply, ()),
        }
    }

    fn listening(&self) -> Vec<Address> {
        self.listeners.iter().flat_map(|(_, listener)| listener.addresses.iter().cloned()).collect()
    }

    fn ban(&mut self, peer: PeerId) -> Result<(), NetError> {
        let bans = &mut self.swarm.behaviour_mut().bans;
        if bans.blocked_peers().len() >= MAX_BANS {
            return Err(NetError::Limit { what: "bans", limit: MAX_BANS });
        }
        if let Some(peer) = to_libp2p(&peer) {
            bans.block_peer(peer);
        }
        Ok(())
    }

    /// Puts other rules in place and ends what they don't allow.
    fn set_firewall(&mut self, rules: RuleList) -> usize {
        self.firewall.replace(rules);
        let mut ended = 0;
        for (peer, neighbour) in &self.neighbours {
            for link in &neighbour.links {
                let ip = link.ip.filter(|_| link.path == PathKind::Direct);
                if let Err(shut) = self.firewall.judge(Some(*peer), ip) {
                    tracing::info!(%peer, %shut, "closing a connection");
                    self.swarm.close_connection(link.id);
                    ended += 1;
                }
            }
        }
        ended
    }

    fn status(&mut self) -> Status {
        let routing_peers =
            self.swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
        Status {
            listeners: self.listeners.iter().map(|(_, l)| l.clone()).collect(),
            connected_peers: self.neighbours.len(),
            known_peers: self.book.len(),
            routing_peers,
            provided_keys: self.publisher.len(),
        }
    }

    fn peers(&self) -> Vec<PeerInfo> {
        let mut peers: Vec<PeerInfo> = self
            .neighbours
            .iter()
            .filter_map(|(peer, neighbour)| {
                let best = neighbour.best()?;
                let oldest = neighbour.links.iter().map(|link| link.since).min()?;
                Some(PeerInfo {
                    peer: *peer,
                    addresses: self.book.addresses(peer).to_vec(),
                    path: best.path,
                    transport: best.transport,
                    rtt_ms: best.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                    agent: neighbour.agent.clone(),
                    connected_for: oldest.elapsed(),
                    source: self.book.source(peer).unwrap_or(Source::Inbound),
                    connections: neighbour.links.len(),
                })
            })
            .collect();
        peers.sort_unstable_by_key(|info| info.peer);
        peers
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint)
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.on_disconnected(peer_id, connection_id)
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "inbound connection refused");
                count(&self.counters.refused);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, connection_id, error } => {
                self.on_dial_failed(connection_id, peer_id, &error)
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.on_listen_address(listener_id, &address)
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                self.on_listen_address_lost(listener_id, &address)
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                let error = reason.err().map(|error| error.to_string());
                self.on_listener_trouble(listener_id, error.unwrap_or_else(|| "closed".to_owned()));
            }
            SwarmEvent::ListenerError { listener_id, error } => {
                self.on_listener_trouble(listener_id, error.to_string());
            }
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            }) => self.on_identified(peer_id, connection_id, info),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    self.on_mdns(peer, &address);
                }
            }
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Gossip(event) => {
                self.ear.on_event(&mut self.swarm.behaviour_mut().gossip, event)
            }
            _ => {}
        }
    }

    fn on_connected(
        &mut self,
        peer_id: libp2p::PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let Some(peer) = from_libp2p(&peer_id) else {
            return;
        };
        count(&self.counters.open);
        let remote = endpoint.get_remote_address();
        let address = Address::from_multiaddr(remote).map(|a| a.without_peer());
        count(if endpoint.is_dialer() { &self.counters.outbound } else { &self.counters.inbound });
        if let (true, Some(address)) = (endpoint.is_dialer(), &address) {
            let source = self.dials.source_of(connection);
            self.book.worked(peer, address.clone(), source);
        }
        let transport = transport_of(remote);
        let link = Link {
            id: connection,
            loopback: crate::gate::ip_of(remote).is_some_and(|ip| ip.is_loopback()),
            ip: crate::gate::ip_of(remote),
            transport,
            path: path_of(remote),
            since: Instant::now(),
            rtt: None,
            heard: (transport == Transport::Tcp).then(Instant::now),
            address: address.clone(),
        };
        let neighbour = self.neighbours.entry(peer).or_default();
        neighbour.links.push(link);
        if let (1, Some(address)) = (neighbour.links.len(), address) {
            self.events.emit(Event::PeerConnected { peer, address });
        }
        self.dials.succeeded(peer_id, peer, connection);
    }

    fn on_disconnected(&mut self, peer_id: libp2p::PeerId, connection: ConnectionId) {
        let Some(peer) = from_libp2p(&peer_id) else {
            return;
        };
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        let before = neighbour.links.len();
        neighbour.links.retain(|link| link.id != connection);
        if neighbour.links.len() < before {
            self.counters.open.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
        if neighbour.links.is_empty() {
            if let Some(gone) = self.neighbours.remove(&peer) {
                for mourner in gone.mourners {
                    answer(mourner, ());
                }
            }
            self.events.emit(Event::PeerDisconnected { peer });
        }
    }

    fn on_ping(&mut self, event: ping::Event) {
        let Some(peer) = from_libp2p(&event.peer) else {
            return;
        };
        let links = self.neighbours.get_mut(&peer).map(|n| n.links.iter_mut());
        let Some(link) = links.into_iter().flatten().find(|link| link.id == event.connection)
        else {
            return;
        };
        match event.result {
            Ok(rtt) => {
                link.rtt = Some(rtt);
                link.heard = link.heard.map(|_| Instant::now());
            }
            Err(ping::Failure::Unsupported) => link.heard = None,
            Err(error) => {
                tracing::debug!(%peer, %error, "closing a connection that doesn't answer");
                self.swarm.close_connection(event.connection);
            }
        }
    }

    /// A peer told what it is. Those of other networks are let go; the
    /// addresses of the others are worth knowing.
    fn on_identified(
        &mut self,
        peer_id: libp2p::PeerId,
        connection: ConnectionId,
        info: identify::Info,
    ) {
        let Some(peer) = from_libp2p(&peer_id) else {
            return;
        };
        if info.protocol_version != IDENTIFY_PROTOCOL {
            count(&self.counters.foreign);
            if self.foreign.len() < MAX_FOREIGN {
                self.foreign.insert(peer);
            }
            // Already gone is as good as closed.
            let _ = self.swarm.disconnect_peer_id(peer_id);
            return;
        }
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        let agent = info.agent_version.chars().filter(|c| !c.is_control());
        neighbour.agent = Some(agent.take(MAX_AGENT_CHARS).collect());
        let link = neighbour.links.iter().find(|link| link.id == connection);
        let on_loopback = link.is_some_and(|link| link.loopback);
        let source = match link {
            Some(link) if link.address.is_some() => Source::Kad,
            _ => Source::Inbound,
        };
        let answers = info.protocols.iter().any(|p| p.as_ref() == KAD_PROTOCOL);
        let told = info.listen_addrs.iter();
        for address in told
            .filter_map(|address| Address::from_peer(address, on_loopback))
            .take(MAX_ADDRESSES_PER_PEER)
        {
            let source = self.book.source(&peer).unwrap_or(source);
            self.book.learn(peer, address.clone(), source);
            if answers {
                let kad = &mut self.swarm.behaviour_mut().kad;
                kad.add_address(&peer_id, address.as_multiaddr().clone());
            }
        }
    }

    /// Somebody on the local network: connect, so that searches can ask them.
    fn on_mdns(&mut self, peer_id: libp2p::PeerId, address: &Multiaddr) {
        let (Some(peer), Some(address)) =
            (from_libp2p(&peer_id), Address::from_peer(address, false))
        else {
            return;
        };
        if self.foreign.contains(&peer) {
            return;
        }
        if self.book.learn(peer, address.clone(), Source::Mdns) {
            self.events.emit(Event::PeerFound {
                peer,
                address: address.clone(),
                source: Source::Mdns,
            });
        }
        let opts = DialOpts::peer_id(peer_id)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(vec![address.as_multiaddr().clone()])
            .extend_addresses_through_behaviour()
            .build();
        // Already connected, dialling, or over a limit: nothing to do.
        let _ = self.swarm.dial(opts);
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_query(id, result, step.last)
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => {
                let now = Instant::now();
                self.searches.neighbour_joined(now);
                self.publisher.neighbour_joined(now);
            }
            kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            } => self.store_record(record),
            _ => {}
        }
    }

    fn listener(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.iter_mut().find(|(known, _)| *known == id).map(|(_, listener)| listener)
    }

    fn on_listen_address(&mut self, id: ListenerId, address: &Multiaddr) {
        let Some(address) = Address::from_multiaddr(address) else {
            return;
        };
        if let Some(listener) = self.listener(id)
            && !listener.addresses.contains(&address)
        {
            listener.addresses.push(address.clone());
        }
        self.publisher.neighbour_joined(Instant::now());
        self.events.emit(Event::ListenAddress(address));
    }

    fn on_listen_address_lost(&mut self, id: ListenerId, address: &Multiaddr) {
        let Some(address) = Address::from_multiaddr(address) else {
            return;
        };
        if let Some(listener) = self.listener(id) {
            listener.addresses.retain(|known| *known != address);
        }
        self.events.emit(Event::ListenAddressLost(address));
    }

    fn on_listener_trouble(&mut self, id: ListenerId, error: String) {
        tracing::warn!(%error, "a listener reports trouble");
        if let Some(listener) = self.listener(id) {
            listener.error = Some(error);
        }
    }
}

fn transport_of(remote: &Multiaddr) -> Transport {
    let quic = remote.iter().any(|part| matches!(part, Protocol::QuicV1));
    if quic { Transport::Quic } else { Transport::Tcp }
}

fn path_of(remote: &Multiaddr) -> PathKind {
    let relayed = remote.iter().any(|part| matches!(part, Protocol::P2pCircuit));
    if relayed { PathKind::Relayed } else { PathKind::Direct }
}
