//! The application's side: a [`Handle`] to ask with, and what it gives back.
//!
//! Every call has a deadline, its own or one named in [`crate::limits`], and
//! fails with [`NetError::Stopped`] once the network has been shut down.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::gossipsub::MessageId;
use peerproof_identity::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{timeout, timeout_at};

use crate::command::{Command, PeerInfo, Reply};
use crate::diagnose::{Mdns, probe_interfaces};
use crate::firewall::Firewall;
use crate::frames::{FrameLimits, FrameStream};
use crate::gossip::{Gossip, Judgement};
use crate::limits::{DIAL_TIMEOUT, MAX_PROVIDERS_PER_SEARCH, SEARCH_SETTLE};
use crate::metrics::Counters;
use crate::seeds::Seeds;
use crate::streams::{Inbound, OpenFailure, OpenRequest, Registry, protocol_name};
use crate::{
    Address, Diagnosis, DialError, DialReason, Metrics, NetError, OpenError, RuleAtWork, RuleList,
};

/// What the application holds of a running network. Cheap to clone; the
/// network stops when the last handle is dropped, or at [`Handle::shutdown`].
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// What doesn't change while the network runs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) local_peer: PeerId,
    pub(crate) registry: Arc<Registry>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) seeds: Arc<Seeds>,
    pub(crate) firewall: Arc<Firewall>,
    pub(crate) mdns: Mdns,
    pub(crate) started: Instant,
    pub(crate) kad_server: bool,
    pub(crate) loopback_only: bool,
    pub(crate) accept_queue: usize,
}

/// A handle that doesn't keep the network running.
#[derive(Clone, Debug)]
pub(crate) struct WeakHandle {
    commands: mpsc::WeakSender<Command>,
    shared: Arc<Shared>,
}

impl WeakHandle {
    pub(crate) fn upgrade(&self) -> Result<Handle, NetError> {
        let commands = self.commands.upgrade().ok_or(NetError::Stopped)?;
        Ok(Handle { commands, shared: Arc::clone(&self.shared) })
    }
}

impl Handle {
    pub(crate) fn new(commands: mpsc::Sender<Command>, shared: Shared) -> Self {
        Self { commands, shared: Arc::new(shared) }
    }

    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle { commands: self.commands.downgrade(), shared: Arc::clone(&self.shared) }
    }

    async fn tell(&self, command: Command) -> Result<(), NetError> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| NetError::Stopped)
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, NetError> {
        let (reply, answer) = oneshot::channel();
        self.tell(make(reply)).await?;
        answer.await.map_err(|_| NetError::Stopped)
    }

    /// This node's name.
    pub fn local_peer(&self) -> PeerId {
        self.shared.local_peer
    }

    /// Where this node can be reached at this moment, without its name.
    pub async fn listen_addresses(&self) -> Result<Vec<Address>, NetError> {
        self.ask(|reply| Command::Listening { reply }).await
    }

    /// Connects to an address and says who answered. If the address names a
    /// peer, only that peer will do; if that peer is connected already, its
    /// connection is used.
    pub async fn dial(&self, address: Address) -> Result<PeerId, DialError> {
        let target = address.to_string();
        let failed = |reason, detail: String| DialError { target: target.clone(), reason, detail };
        if self.shared.loopback_only && !address.is_loopback() {
            let detail = "this node is set to loopback only".to_owned();
            return Err(self.count(failed(DialReason::BadAddress, detail)));
        }
        let dialling = async {
            let addresses = address
                .resolve()
                .await
                .map_err(|error| self.count(failed(DialReason::Unresolved, error.to_string())))?;
            self.dial_resolved(addresses, &failed).await
        };
        match timeout(DIAL_TIMEOUT, dialling).await {
            Ok(result) => result,
            Err(_) => {
                Err(self
                    .count(failed(DialReason::TimedOut, format!("nothing for {DIAL_TIMEOUT:?}"))))
            }
        }
    }

    /// Together if the peer is named, one after the other if it isn't: only
    /// then could different peers answer.
    async fn dial_resolved(
        &self,
        addresses: Vec<Address>,
        failed: &impl Fn(DialReason, String) -> DialError,
    ) -> Result<PeerId, DialError> {
        let named = addresses.first().is_some_and(|a| a.peer().is_some());
        let rounds: Vec<Vec<Address>> =
            if named { vec![addresses] } else { addresses.into_iter().map(|a| vec![a]).collect() };
        let mut result = Err(failed(DialReason::NoAddress, "no address".to_owned()));
        for addresses in rounds {
            let asked = self.ask(|reply| Command::Dial { addresses, reply }).await;
            result = asked
                .map_err(|stopped| failed(DialReason::Aborted, stopped.to_string()))
                .and_then(|answer| answer)
                // The name the caller gave, not what it resolved to.
                .map_err(|error| failed(error.reason, error.detail));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn count(&self, failure: DialError) -> DialError {
        self.shared.counters.dial_failed(failure.reason);
        failure
    }

    /// Sees to it that there is a connection to a peer, by any known address.
    pub async fn connect(&self, peer: PeerId) -> Result<(), DialError> {
        let failed =
            |reason, detail: String| DialError { target: peer.to_string(), reason, detail };
        let asking = self.ask(|reply| Command::Connect { peer, reply });
        match timeout(DIAL_TIMEOUT, asking).await {
            Ok(Ok(result)) => result,
            Ok(Err(stopped)) => Err(failed(DialReason::Aborted, stopped.to_string())),
            Err(_) => {
                Err(self
                    .count(failed(DialReason::TimedOut, format!("nothing for {DIAL_TIMEOUT:?}"))))
            }
        }
    }

    /// Notes where a peer can be reached, for a later [`Handle::connect`].
    pub async fn learn(&self, peer: PeerId, address: Address) -> Result<(), NetError> {
        self.tell(Command::Learn { peer, address }).await
    }

    /// Opens a stream to a peer, connecting first if need be, all within
    /// `deadline`.
    pub async fn open(
        &self,
        peer: PeerId,
        protocol: &str,
        deadline: Duration,
        limits: FrameLimits,
    ) -> Result<FrameStream, OpenError> {
        let opening = self.open_unhurried(peer, protocol, limits);
        match timeout(deadline, opening).await {
            Ok(result) => result,
            Err(_) => {
                Err(OpenError::TimedOut { peer, protocol: protocol.to_owned(), after: deadline })
            }
        }
    }

    async fn open_unhurried(
        &self,
        peer: PeerId,
        protocol: &str,
        limits: FrameLimits,
    ) -> Result<FrameStream, OpenError> {
        let name = protocol_name(protocol)?;
        self.connect(peer).await?;
        let (request, answer) = OpenRequest::new(name);
        self.tell(Command::Open { peer, request }).await?;
        let lost = |detail: String| OpenError::Lost { peer, protocol: protocol.to_owned(), detail };
        match answer.await {
            Ok(Ok(stream)) => Ok(FrameStream::new(peer, stream, limits, None)),
            Ok(Err(OpenFailure::Unsupported)) => {
                Err(OpenError::Unsupported { peer, protocol: protocol.to_owned() })
            }
            Ok(Err(OpenFailure::TimedOut)) => Err(lost("no answer to the request".to_owned())),
            Ok(Err(OpenFailure::Busy)) => Err(lost("too many streams wait on it".to_owned())),
            Ok(Err(OpenFailure::Broken(detail))) => Err(lost(detail)),
            Err(_) => Err(lost("the connection closed".to_owned())),
        }
    }

    /// Listens to proofs that peers pass on. Only one listener at a time.
    ///
    /// # Errors
    /// [`NetError::Protocol`] if there is one already.
    pub async fn gossip(&self) -> Result<Gossip, NetError> {
        let heard = self.ask(|reply| Command::Gossip { reply }).await??;
        Ok(Gossip::new(self.clone(), heard))
    }

    pub(crate) async fn judge(
        &self,
        from: PeerId,
        id: MessageId,
        judgement: Judgement,
    ) -> Result<(), NetError> {
        self.tell(Command::Judge { from, id, judgement }).await
    }

    pub(crate) async fn publish(&self, data: Vec<u8>) -> Result<bool, NetError> {
        self.ask(|reply| Command::Publish { data, reply }).await?
    }

    /// What a peer's conduct in passing on proofs is worth: 0 for nothing wrong, less for wrong
    /// messages; `None` for a peer that has not been met.
    pub async fn gossip_score(&self, peer: PeerId) -> Result<Option<f64>, NetError> {
        self.ask(|reply| Command::Score { peer, reply }).await
    }

    /// Takes the streams others open for a protocol. Only one taker per
    /// protocol; dropping it ends the acceptance.
    pub fn accept(&self, protocol: &str, limits: FrameLimits) -> Result<Incoming, NetError> {
        let queue = self.shared.accept_queue;
        let streams = self.shared.registry.accept(protocol, queue)?;
        Ok(Incoming { streams, limits })
    }

    /// Lets others find this node under a key, until
    /// [`Handle::stop_providing`].
    pub async fn provide(&self, key: [u8; 32]) -> Result<(), NetError> {
        self.ask(|reply| Command::Provide { key, reply }).await?
    }

    /// Stops publishing. Copies at other nodes expire within
    /// [`crate::limits::PROVIDER_TTL`].
    pub async fn stop_providing(&self, key: [u8; 32]) -> Result<(), NetError> {
        self.tell(Command::StopProviding { key }).await
    }

    /// Searches for the providers of a key until `deadline` and reports each
    /// as soon as it is found. This node itself is never reported.
    pub async fn search(&self, key: [u8; 32], deadline: Duration) -> Result<Providers, NetError> {
        let until = Instant::now() + deadline;
        let (sink, found) = mpsc::channel(MAX_PROVIDERS_PER_SEARCH);
        self.ask(|reply| Command::Find { key, until, sink, reply }).await??;
        Ok(Providers(found))
    }

    /// The providers of a key: everyone found until none was added for a
    /// moment, or nobody if `deadline` passes.
    pub async fn find_providers(
        &self,
        key: [u8; 32],
        deadline: Duration,
    ) -> Result<Vec<PeerId>, NetError> {
        let until = tokio::time::Instant::now() + deadline;
        let mut found = self.search(key, deadline).await?;
        let mut providers = Vec::new();
        loop {
            let wait = if providers.is_empty() {
                until
            } else {
                until.min(tokio::time::Instant::now() + SEARCH_SETTLE)
            };
            match timeout_at(wait, found.next()).await {
                Ok(Some(peer)) => providers.push(peer),
                Ok(None) | Err(_) => return Ok(providers),
            }
        }
    }

    /// The connected peers, in the order of their names.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NetError> {
        self.ask(|reply| Command::Peers { reply }).await
    }

    /// The latest round trip to a connected peer, once one was measured.
    pub async fn rtt(&self, peer: PeerId) -> Option<Duration> {
        let asked = self.ask(|reply| Command::Rtt { peer, reply }).await;
        asked.ok().flatten()
    }

    /// The address a connected peer's packets come from: what it is, not what it says. Of a
    /// relayed connection it is the relay's.
    pub async fn ip(&self, peer: PeerId) -> Option<IpAddr> {
        let asked = self.ask(|reply| Command::Ip { peer, reply }).await;
        asked.ok().flatten()
    }

    /// Ends all connections with a peer and refuses new ones, in both
    /// directions, until [`Handle::unban`] or the end of the process.
    pub async fn ban(&self, peer: PeerId) -> Result<(), NetError> {
        self.ask(|reply| Command::Ban { peer, reply }).await?
    }

    /// Lifts a ban.
    pub async fn unban(&self, peer: PeerId) -> Result<(), NetError> {
        self.ask(|reply| Command::Unban { peer, reply }).await
    }

    /// Judges by other rules from here on. Connections that they don't allow end;
    /// gives back how many. Rates and counts of rules begin anew.
    pub async fn set_firewall(&self, rules: RuleList) -> Result<usize, NetError> {
        self.ask(|reply| Command::Firewall { rules, reply }).await
    }

    /// The rules, and how often each decided.
    pub fn firewall(&self) -> Vec<RuleAtWork> {
        self.shared.firewall.rules()
    }

    /// The counters.
    pub fn metrics(&self) -> Metrics {
        self.shared.counters.snapshot()
    }

    /// What is known about this node's connection to the network. Tries
    /// multicast on each interface, which sends nothing.
    pub async fn diagnose(&self) -> Result<Diagnosis, NetError> {
        let status = self.ask(|reply| Command::Status { reply }).await?;
        let mdns = match &self.shared.mdns {
            Mdns::On { .. } => Mdns::On { interfaces: probe_interfaces(&status.interfaces()) },
            other => other.clone(),
        };
        Ok(Diagnosis {
            local_peer: self.shared.local_peer,
            uptime: self.shared.started.elapsed(),
            listeners: status.listeners,
            mdns,
            bootstrap: self.shared.seeds.snapshot(),
            connected_peers: status.connected_peers,
            known_peers: status.known_peers,
            routing_peers: status.routing_peers,
            kad_server: self.shared.kad_server,
            provided_keys: status.provided_keys,
            metrics: self.metrics(),
        })
    }

    /// Closes every connection and stops. Streams that are still open break.
    /// TCP ports are free on return, UDP ports when the last QUIC connection
    /// has drained, a moment later, or at the end of the process.
    pub async fn shutdown(&self) {
        // Stopped already is what was wanted.
        let _ = self.ask(|reply| Command::Shutdown { reply }).await;
    }

    /// Answers when the last connection to a peer has ended.
    pub(crate) async fn gone(&self, peer: PeerId) -> Result<oneshot::Receiver<()>, NetError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Gone { peer, reply }).await?;
        Ok(answer)
    }
}

/// The streams others open for one protocol.
#[derive(Debug)]
pub struct Incoming {
    streams: mpsc::Receiver<Inbound>,
    limits: FrameLimits,
}

impl Incoming {
    /// The next stream and who opened it; `None` after the network has stopped.
    pub async fn next(&mut self) -> Option<(PeerId, FrameStream)> {
        let (peer, stream, permit) = self.streams.recv().await?;
        let stream = FrameStream::new(peer, stream, self.limits, Some(permit));
        Some((peer, stream))
    }
}

/// Providers as they are found. Dropping it ends the search.
#[derive(Debug)]
pub struct Providers(mpsc::Receiver<PeerId>);

impl Providers {
    /// The next provider; `None` when the search's deadline has passed.
    pub async fn next(&mut self) -> Option<PeerId> {
        self.0.recv().await
    }
}
