//! The operator's rules, put where connections begin.
//!
//! `peerproof-discovery` judges ([`peerproof_discovery::gate`]); here the judge
//! gets what it needs: a clock, the address packets come from, the reputation of
//! a key. It is asked at four places: when somebody knocks and when its key is
//! known (by [`crate::gate`]), before this node dials ([`Guarded`]), and for every
//! connection that stands when the rules change (by the driver).
//!
//! Over TCP a knock is refused before a byte is read or written. The QUIC library
//! hands a newcomer over after it has read the first packet, so one flight of
//! the handshake may have left; the connection never stands.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::Multiaddr;
use libp2p::core::Transport;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use peerproof_discovery::Millis;
use peerproof_discovery::gate::{Gate, Rule, RuleList, Verdict, Who};
use peerproof_identity::PeerId;

use crate::gate::{Shut, ip_of};

/// Tells the reputation of a peer, 0 to 1000, for rules that ask. Called in the
/// swarm task: it must not wait.
#[derive(Clone)]
pub struct Scores(Arc<dyn Fn(&PeerId) -> u16 + Send + Sync>);

impl Scores {
    /// By this function.
    pub fn new(score: impl Fn(&PeerId) -> u16 + Send + Sync + 'static) -> Self {
        Self(Arc::new(score))
    }
}

impl fmt::Debug for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scores(…)")
    }
}

impl PartialEq for Scores {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Scores {}

/// One rule at work, and how often it decided since it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleAtWork {
    /// The rule.
    pub rule: Rule,
    /// Connections that others opened, or tried to open, and it decided about.
    pub decided: u64,
}

#[derive(Debug)]
pub(crate) struct Firewall {
    gate: Mutex<Gate>,
    scores: Option<Scores>,
    started: Instant,
}

impl Firewall {
    pub(crate) fn new(rules: RuleList, scores: Option<Scores>) -> Arc<Self> {
        Arc::new(Self { gate: Mutex::new(Gate::new(rules)), scores, started: Instant::now() })
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Rates begin anew, and so do the counts.
    pub(crate) fn replace(&self, rules: RuleList) {
        *self.gate() = Gate::new(rules);
    }

    pub(crate) fn rules(&self) -> Vec<RuleAtWork> {
        let gate = self.gate();
        let rules = gate.list().rules().iter().zip(gate.decided());
        rules.map(|(rule, decided)| RuleAtWork { rule: *rule, decided: *decided }).collect()
    }

    fn who(&self, peer: Option<PeerId>, address: Option<IpAddr>) -> Who {
        let asked = self.gate().list().asks_reputation();
        let scores = self.scores.as_ref().filter(|_| asked);
        let score = peer.and_then(|peer| scores.map(|scores| scores.0(&peer)));
        Who { peer, address, score }
    }

    fn passed(&self, verdict: Verdict) -> Result<(), Shut> {
        match verdict {
            Verdict::Admit(_) | Verdict::Ask => Ok(()),
            Verdict::Deny(place) | Verdict::Wait(place, _) => {
                let rule = self.gate().list().rules().get(place).copied();
                rule.map_or(Ok(()), |rule| Err(Shut::Rule { rule }))
            }
        }
    }

    /// Somebody comes from an address.
    pub(crate) fn knock(&self, from: &Multiaddr) -> Result<(), Shut> {
        let Some(ip) = direct_ip(from) else { return Ok(()) };
        let verdict = self.gate().knock(ip, self.now());
        self.passed(verdict)
    }

    /// Somebody who came has proven its key.
    pub(crate) fn identify(&self, peer: PeerId, from: &Multiaddr) -> Result<(), Shut> {
        let who = self.who(Some(peer), direct_ip(from));
        let verdict = self.gate().identify(&who, self.now());
        self.passed(verdict)
    }

    /// What the rules say of a connection this node opens, or has.
    pub(crate) fn judge(&self, peer: Option<PeerId>, address: Option<IpAddr>) -> Result<(), Shut> {
        let who = self.who(peer, address);
        let verdict = self.gate().judge(&who);
        self.passed(verdict)
    }

    /// The same, by the address that is dialled.
    pub(crate) fn judge_at(&self, peer: Option<PeerId>, at: &Multiaddr) -> Result<(), Shut> {
        self.judge(peer, direct_ip(at))
    }
}

/// Where a peer's own packets come from; unknown behind a relay.
fn direct_ip(address: &Multiaddr) -> Option<IpAddr> {
    let relayed = address.iter().any(|part| matches!(part, Protocol::P2pCircuit));
    if relayed { None } else { ip_of(address) }
}

/// A transport that dials only where the rules allow. It sees every dial,
/// whichever part of libp2p wants it.
pub(crate) struct Guarded<T> {
    inner: Boxed<T>,
    firewall: Arc<Firewall>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(inner: Boxed<T>, firewall: Arc<Firewall>) -> Self {
        Self { inner, firewall }
    }
}

impl<T: 'static> Transport for Guarded<T> {
    type Output = T;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<T> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<T> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        at: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, at)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        at: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let peer = at.iter().last().and_then(|part| match part {
            Protocol::P2p(peer) => crate::address::from_libp2p(&peer),
            _ => None,
        });
        self.firewall
            .judge_at(peer, &at)
            .map_err(|shut| TransportError::Other(io::Error::other(shut)))?;
        self.inner.dial(at, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(context)
    }
}
