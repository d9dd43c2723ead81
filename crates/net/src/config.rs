//! How a network is to be set up.

use crate::limits::{MAX_BOOTSTRAP, MAX_LISTEN_ADDRESSES};
use crate::{Address, Limits, NetError, RuleList, Scores};

/// How a network is to be set up. [`NetConfig::default`] is what a node on a
/// real network uses, [`NetConfig::loopback`] what a demo or a test uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Where to listen. `0.0.0.0` and `::` stand for every interface, port 0
    /// for any free port. May be empty: such a node only dials.
    pub listen: Vec<Address>,
    /// Addresses at which others reach this node although it can't see them
    /// itself, such as a forwarded port of a router.
    pub external: Vec<Address>,
    /// Nodes to ask first. Tried at once, and again for as long as they fail.
    pub bootstrap: Vec<Address>,
    /// Look for nodes on the local network.
    pub mdns: bool,
    /// Answer other nodes' searches and keep provider records for them. Nodes
    /// that provide should; a node that only asks needn't.
    pub kad_server: bool,
    /// Refuse every address that isn't loopback, in both directions. Turns
    /// mDNS off, since loopback has no multicast.
    pub loopback_only: bool,
    /// What this program calls itself towards others, e.g. `peerproof/0.1.0`.
    pub agent: String,
    /// The ceilings.
    pub limits: Limits,
    /// The operator's rules. They hold on loopback too.
    pub firewall: RuleList,
    /// What rules that ask for a reputation go by; without it they match nobody.
    pub scores: Option<Scores>,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            listen: wildcard(0),
            external: Vec::new(),
            bootstrap: Vec::new(),
            mdns: true,
            kad_server: true,
            loopback_only: false,
            agent: concat!("peerproof/", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits::default(),
            firewall: RuleList::default(),
            scores: None,
        }
    }
}

/// QUIC and TCP on every IPv4 and IPv6 interface.
fn wildcard(port: u16) -> Vec<Address> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let v4 = (Ipv4Addr::UNSPECIFIED, port).into();
    let v6 = (Ipv6Addr::UNSPECIFIED, port).into();
    vec![Address::quic(v4), Address::tcp(v4), Address::quic(v6), Address::tcp(v6)]
}

impl NetConfig {
    /// Everything on 127.0.0.1, at free ports, and nothing beyond.
    pub fn loopback() -> Self {
        let at = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        Self {
            listen: vec![Address::quic(at), Address::tcp(at)],
            mdns: false,
            loopback_only: true,
            ..Self::default()
        }
    }

    /// Every interface at a fixed port, for QUIC and TCP alike.
    pub fn at_port(port: u16) -> Self {
        Self { listen: wildcard(port), ..Self::default() }
    }

    pub(crate) fn check(&self) -> Result<(), NetError> {
        let too_many = |setting, limit: usize| NetError::Config {
            setting,
            detail: format!("at most {limit} addresses"),
        };
        if self.listen.len() > MAX_LISTEN_ADDRESSES {
            return Err(too_many("listen", MAX_LISTEN_ADDRESSES));
        }
        if self.external.len() > MAX_LISTEN_ADDRESSES {
            return Err(too_many("external", MAX_LISTEN_ADDRESSES));
        }
        if self.bootstrap.len() > MAX_BOOTSTRAP {
            return Err(too_many("bootstrap", MAX_BOOTSTRAP));
        }
        if let Some(named) = self.listen.iter().find(|a| a.ip().is_none()) {
            return Err(NetError::Config {
                setting: "listen",
                detail: format!("{named} is a name; listening needs an IP address"),
            });
        }
        if self.loopback_only {
            let lists = [
                ("listen", &self.listen),
                ("external", &self.external),
                ("bootstrap", &self.bootstrap),
            ];
            for (setting, addresses) in lists {
                if let Some(outside) = addresses.iter().find(|a| !a.is_loopback()) {
                    return Err(NetError::Config {
                        setting,
                        detail: format!(
                            "{outside} is outside this machine, but only loopback is allowed"
                        ),
                    });
                }
            }
        }
        if !(1..=100).contains(&self.limits.memory_percent) {
            return Err(NetError::Config {
                setting: "memory_percent",
                detail: format!("{} is not between 1 and 100", self.limits.memory_percent),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn loopback_only_refuses_the_outside() {
        let mut config = NetConfig::loopback();
        config.check().unwrap();
        config.bootstrap.push("/ip4/192.0.2.1/tcp/4001".parse().unwrap());
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("bootstrap"), "{error}");
    }

    #[test]
    fn names_and_excess_are_refused() {
        let named = NetConfig {
            listen: vec!["/dns4/localhost/tcp/0".parse().unwrap()],
            ..NetConfig::default()
        };
        assert!(named.check().is_err());
        let seed: Address = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let many = NetConfig { bootstrap: vec![seed; MAX_BOOTSTRAP + 1], ..NetConfig::default() };
        assert!(many.check().is_err());
        NetConfig::default().check().unwrap();
    }
}
