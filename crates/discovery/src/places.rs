//! Where an address belongs: host, subnet, group, and whether it can be
//! reached from outside at all.
//!
//! An attacker has many keys for nothing, some addresses for little and
//! addresses in many places for a lot. So every share in this crate is counted
//! by place: a [`Host`] is what one machine has, a
//! [`Subnet`](crate::subnet::Subnet) what one customer has, a [`Group`] what one
//! operator has. A [`Reach`] says who can reach an
//! address, and a [`Policy`] which of them this node wants to hear of.
//!
//! An IPv4 address in IPv6 clothes counts as that IPv4 address everywhere.
//! Absent on purpose: names and DNS; where an ASN map comes from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What one machine has: an IPv4 address, or an IPv6 /64, since whoever has
/// one address of a /64 has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(IpAddr);

impl Host {
    /// The host of an address.
    ///
    /// ```
    /// use peerproof_discovery::places::Host;
    ///
    /// let host = |text: &str| Host::of(text.parse().expect("an address"));
    /// assert_eq!(host("2001:db8::1"), host("2001:db8::2"));
    /// assert_ne!(host("192.0.2.1"), host("192.0.2.2"));
    /// ```
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.into()),
            IpAddr::V6(v6) => Self(Ipv6Addr::from(u128::from(v6) >> 64 << 64).into()),
        }
    }
}

/// What one operator has: an autonomous system where a map is given, else an
/// IPv4 /16 or an IPv6 /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// This machine and private networks: one group, so that nobody fills a
    /// table with addresses that cost nothing.
    Local,
    /// The first 16 bits of an IPv4 address.
    V4([u8; 2]),
    /// The first 32 bits of an IPv6 address.
    V6([u8; 4]),
    /// An autonomous system.
    Asn(u32),
}

impl Group {
    /// The group of an address by its prefix alone.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let address = embedded(address);
        if Reach::of(address) != Reach::Public {
            return Self::Local;
        }
        match address {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.octets();
                Self::V6([a, b, c, d])
            }
        }
    }

    /// Bytes to hash: distinct for distinct groups.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 5] {
        match self {
            Self::Local => [0; 5],
            Self::V4([a, b]) => [4, a, b, 0, 0],
            Self::V6([a, b, c, d]) => [6, a, b, c, d],
            Self::Asn(asn) => {
                let [a, b, c, d] = asn.to_be_bytes();
                [1, a, b, c, d]
            }
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::V4([a, b]) => write!(f, "{a}.{b}.0.0/16"),
            Self::V6([a, b, c, d]) => {
                let (high, low) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                write!(f, "{}/32", Ipv6Addr::new(high, low, 0, 0, 0, 0, 0, 0))
            }
            Self::Asn(asn) => write!(f, "AS{asn}"),
        }
    }
}

/// Tells the autonomous system of an address, if it knows.
pub trait AsnMap {
    /// The number of the system that announces this address.
    fn asn_of(&self, address: IpAddr) -> Option<u32>;
}

/// No map: groups are prefixes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAsnMap;

impl AsnMap for NoAsnMap {
    fn asn_of(&self, _: IpAddr) -> Option<u32> {
        None
    }
}

/// The group of an address, by the map where it knows the address.
#[must_use]
pub fn group_by(map: &dyn AsnMap, address: IpAddr) -> Group {
    match Group::of(address) {
        Group::Local => Group::Local,
        prefix => map.asn_of(embedded(address)).map_or(prefix, Group::Asn),
    }
}

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// From everywhere.
    Public,
    /// From the same private network.
    Private,
    /// From the same machine.
    Loopback,
    /// From nowhere: multicast, unspecified, documentation, reserved.
    Nowhere,
}

impl Reach {
    /// From where an address can be reached, by the registries of special
    /// addresses (RFC 6890 and its successors).
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match embedded(address) {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        let shared = a == 100 && b & 0xc0 == 64;
        if address.is_loopback() {
            Self::Loopback
        } else if address.is_private() || address.is_link_local() || shared {
            Self::Private
        } else if a == 0
            || a >= 224
            || address.is_documentation()
            || (a == 192 && b == 0 && c == 0)
            || (a == 198 && b & 0xfe == 18)
        {
            Self::Nowhere
        } else {
            Self::Public
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let [first, second, ..] = address.segments();
        if address.is_loopback() {
            Self::Loopback
        } else if address.is_unique_local() || address.is_unicast_link_local() {
            Self::Private
        } else if first & 0xe000 != 0x2000 || (first == 0x2001 && second == 0x0db8) {
            // Outside 2000::/3 nothing is assigned to be routed; documentation.
            Self::Nowhere
        } else {
            Self::Public
        }
    }
}

/// The IPv4 address inside a mapped or 6to4 address; else the address itself.
/// A /32 of 6to4 addresses costs one IPv4 address.
fn embedded(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if v6.segments()[0] == 0x2002 => {
            let [_, _, a, b, c, d, ..] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        other => other,
    }
}

/// Which addresses a node takes from others. Addresses that can be reached
/// from nowhere are never taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Take addresses of the whole network.
    pub public: bool,
    /// Take addresses of private networks.
    pub private: bool,
    /// Take addresses of this machine; only sensible if the peers live here.
    pub loopback: bool,
}

impl Policy {
    /// A node among strangers: what another says of private networks means
    /// that other's network, not ours.
    pub const INTERNET: Self = Self { public: true, private: false, loopback: false };
    /// A node that also has neighbours on its own network.
    pub const INTERNET_AND_LAN: Self = Self { public: true, private: true, loopback: false };
    /// A node that stays within its own network.
    pub const LAN_ONLY: Self = Self { public: false, private: true, loopback: false };
    /// Many nodes on one machine.
    pub const LOOPBACK_ONLY: Self = Self { public: false, private: false, loopback: true };

    /// Whether an address is taken.
    #[must_use]
    pub fn takes(self, address: IpAddr) -> bool {
        match Reach::of(address) {
            Reach::Public => self.public,
            Reach::Private => self.private,
            Reach::Loopback => self.loopback,
            Reach::Nowhere => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_nest() {
        assert_eq!(Host::of(ip("::ffff:192.0.2.1")), Host::of(ip("192.0.2.1")));
        assert_eq!(Group::of(ip("8.8.8.8")).to_string(), "8.8.0.0/16");
        assert_eq!(Group::of(ip("2a00:1450:1::1")).to_string(), "2a00:1450::/32");
        // 6to4: the /16 of the address inside, or every holder of one IPv4
        // address would have a group of its own.
        assert_eq!(Group::of(ip("2002:0808:0808::1")), Group::V4([8, 8]));
    }

    #[test]
    fn what_costs_nothing_is_one_group() {
        for text in ["127.0.0.1", "10.1.2.3", "192.168.7.7", "169.254.1.1", "100.64.0.1", "fd00::1"]
        {
            assert_eq!(Group::of(ip(text)), Group::Local, "{text}");
        }
    }

    #[test]
    fn a_map_names_the_operator_and_never_a_private_network() {
        struct Map;
        impl AsnMap for Map {
            fn asn_of(&self, address: IpAddr) -> Option<u32> {
                (address != ip("9.9.9.9")).then_some(64_500)
            }
        }
        assert_eq!(group_by(&Map, ip("8.8.8.8")), Group::Asn(64_500));
        assert_eq!(group_by(&Map, ip("9.9.9.9")), Group::V4([9, 9]));
        assert_eq!(group_by(&Map, ip("10.0.0.1")), Group::Local);
        assert_ne!(Group::Asn(4).to_bytes(), Group::V4([0, 0]).to_bytes());
    }

    #[test]
    fn reach_follows_the_registries() {
        let cases = [
            ("8.8.8.8", Reach::Public),
            ("2a00:1450::1", Reach::Public),
            ("10.0.0.1", Reach::Private),
            ("172.31.255.255", Reach::Private),
            ("172.32.0.1", Reach::Public),
            ("100.127.0.1", Reach::Private),
            ("fe80::1", Reach::Private),
            ("127.5.5.5", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("0.0.0.0", Reach::Nowhere),
            ("::", Reach::Nowhere),
            ("224.0.0.251", Reach::Nowhere),
            ("255.255.255.255", Reach::Nowhere),
            ("240.0.0.1", Reach::Nowhere),
            ("192.0.2.1", Reach::Nowhere),
            ("198.19.0.1", Reach::Nowhere),
            ("ff02::1", Reach::Nowhere),
            ("2001:db8::1", Reach::Nowhere),
            ("2002:7f00:1::1", Reach::Loopback),
            ("::ffff:10.0.0.1", Reach::Private),
        ];
        for (text, expected) in cases {
            assert_eq!(Reach::of(ip(text)), expected, "{text}");
        }
    }

    #[test]
    fn nobody_takes_what_cannot_be_reached() {
        for policy in
            [Policy::INTERNET, Policy::INTERNET_AND_LAN, Policy::LAN_ONLY, Policy::LOOPBACK_ONLY]
        {
            assert!(!policy.takes(ip("224.0.0.1")) && !policy.takes(ip("0.0.0.0")));
        }
        assert!(!Policy::INTERNET.takes(ip("192.168.0.1")));
        assert!(Policy::INTERNET_AND_LAN.takes(ip("192.168.0.1")));
        assert!(!Policy::LAN_ONLY.takes(ip("8.8.8.8")));
        assert!(Policy::LOOPBACK_ONLY.takes(ip("127.0.0.1")));
    }
}
