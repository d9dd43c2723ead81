//! The doorkeeper: cheap checks before a connection costs anything.
//!
//! Adds what libp2p's connection limits lack: a cap per host, no peers whose
//! key isn't Ed25519, nothing beyond loopback where only loopback is allowed,
//! and the operator's rules ([`crate::firewall`]). Bans and total counts are
//! judged by the behaviours beside it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use peerproof_discovery::gate::Rule;

use crate::firewall::Firewall;

/// Why the gate stayed shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Shut {
    #[error("more than {limit} connections from one host")]
    Host { limit: u32 },
    #[error("the peer's key is not Ed25519")]
    Key,
    #[error("only loopback is allowed here")]
    Outside,
    #[error("the firewall's rule `{rule}` keeps it out")]
    Rule { rule: Rule },
}

pub(crate) struct Gate {
    per_host: u32,
    loopback_only: bool,
    firewall: Arc<Firewall>,
    /// Inbound connections, from their first packet to their end.
    inbound: HashMap<ConnectionId, IpAddr>,
    hosts: HashMap<IpAddr, u32>,
}

impl Gate {
    pub(crate) fn new(per_host: u32, loopback_only: bool, firewall: Arc<Firewall>) -> Self {
        let (inbound, hosts) = (HashMap::new(), HashMap::new());
        Self { per_host, loopback_only, firewall, inbound, hosts }
    }

    fn enter(&mut self, connection: ConnectionId, from: &Multiaddr) -> Result<(), Shut> {
        self.firewall.knock(from)?;
        let Some(ip) = ip_of(from) else { return Ok(()) };
        if ip.is_loopback() {
            return Ok(());
        }
        if self.loopback_only {
            return Err(Shut::Outside);
        }
        let host = host_of(ip);
        let count = self.hosts.entry(host).or_default();
        if *count >= self.per_host {
            return Err(Shut::Host { limit: self.per_host });
        }
        *count += 1;
        self.inbound.insert(connection, host);
        Ok(())
    }

    fn leave(&mut self, connection: ConnectionId) {
        let Some(host) = self.inbound.remove(&connection) else {
            return;
        };
        if let Some(count) = self.hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
    }
}

pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// What counts as one host: an IPv4 address, or an IPv6 /64, since whoever
/// has one address of a /64 has them all.
fn host_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let prefix = u128::from(ip) >> 64 << 64;
            std::net::Ipv6Addr::from(prefix).into()
        }
    }
}

fn key_of(peer: &PeerId) -> Result<peerproof_identity::PeerId, Shut> {
    crate::address::from_libp2p(peer).ok_or(Shut::Key)
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.enter(connection, from).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let judged = key_of(&peer).and_then(|peer| self.firewall.identify(peer, from));
        judged.map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        at: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let judged = key_of(&peer).and_then(|peer| self.firewall.judge_at(Some(peer), at));
        judged.map_err(ConnectionDenied::new)?;
        if self.loopback_only && !ip_of(at).is_some_and(|ip| ip.is_loopback()) {
            return Err(ConnectionDenied::new(Shut::Outside));
        }
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.leave(closed.connection_id),
            FromSwarm::ListenFailure(failed) => self.leave(failed.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn gate(per_host: u32, loopback_only: bool, rules: &[&str]) -> Gate {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let rules = peerproof_discovery::gate::RuleList::new(rules).unwrap();
        Gate::new(per_host, loopback_only, Firewall::new(rules, None))
    }

    #[test]
    fn a_host_gets_its_share_and_gets_it_back() {
        let mut gate = gate(2, false, &[]);
        let from = at("/ip4/192.0.2.1/tcp/1");
        let id = ConnectionId::new_unchecked;
        gate.enter(id(1), &from).unwrap();
        gate.enter(id(2), &from).unwrap();
        assert_eq!(gate.enter(id(3), &from), Err(Shut::Host { limit: 2 }));
        gate.enter(id(4), &at("/ip4/192.0.2.2/tcp/1")).unwrap();
        gate.leave(id(1));
        gate.enter(id(5), &from).unwrap();
        for i in 0..9 {
            gate.leave(id(i));
        }
        assert!(gate.hosts.is_empty() && gate.inbound.is_empty());
    }

    #[test]
    fn one_ipv6_network_is_one_host() {
        let mut gate = gate(1, false, &[]);
        let id = ConnectionId::new_unchecked;
        gate.enter(id(1), &at("/ip6/2001:db8::1/tcp/1")).unwrap();
        assert!(gate.enter(id(2), &at("/ip6/2001:db8::2/tcp/1")).is_err());
        gate.enter(id(3), &at("/ip6/2001:db8:0:1::1/tcp/1")).unwrap();
        // An IPv4 address in IPv6 clothes is that IPv4 address.
        gate.enter(id(4), &at("/ip4/192.0.2.9/tcp/1")).unwrap();
        let mapped = at("/ip6/::ffff:192.0.2.9/tcp/1");
        assert!(gate.enter(id(5), &mapped).is_err());
    }

    #[test]
    fn loopback_is_exempt_and_may_be_all_there_is() {
        let mut gate = gate(0, true, &[]);
        let id = ConnectionId::new_unchecked;
        gate.enter(id(1), &at("/ip4/127.0.0.1/tcp/1")).unwrap();
        assert_eq!(gate.enter(id(2), &at("/ip4/192.0.2.1/tcp/1")), Err(Shut::Outside));
    }

    #[test]
    fn rules_hold_on_loopback_too() {
        let mut gate = gate(4, false, &["allow 127.0.0.1", "deny 127.0.0.0/8"]);
        let id = ConnectionId::new_unchecked;
        gate.enter(id(1), &at("/ip4/127.0.0.1/tcp/1")).unwrap();
        let shut = gate.enter(id(2), &at("/ip4/127.0.0.2/tcp/1")).unwrap_err();
        assert!(shut.to_string().contains("`deny 127.0.0.0/8`"), "{shut}");
    }
}
