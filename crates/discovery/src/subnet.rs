//! Which addresses count as one.
//!
//! Many addresses of one neighbourhood cost an attacker little, so caps are counted by
//! [`Subnet`] (a /24 of IPv4, a /48 of IPv6) and whole networks by [`Network`] (a /16, a
//! /32). An IPv4 address written as IPv6 counts as IPv4. Maps from addresses to
//! autonomous systems are no part of this.

use std::net::IpAddr;

/// A /24 of IPv4 or a /48 of IPv6.
///
/// ```
/// use peerproof_discovery::subnet::Subnet;
///
/// let of = |text: &str| Subnet::of(text.parse().expect("an address"));
/// assert_eq!(of("192.0.2.1"), of("192.0.2.200"));
/// assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.7"));
/// assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
/// assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:ffff::1"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subnet {
    /// The first three bytes.
    V4([u8; 3]),
    /// The first six bytes.
    V6([u8; 6]),
}

impl Subnet {
    /// The one an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// A /16 of IPv4 or a /32 of IPv6: one network, where no map of networks is given.
///
/// ```
/// use peerproof_discovery::subnet::Network;
///
/// let of = |text: &str| Network::of(text.parse().expect("an address"));
/// assert_eq!(of("192.0.2.1"), of("192.0.77.1"));
/// assert_ne!(of("192.0.2.1"), of("192.1.2.1"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// The first two bytes.
    V4([u8; 2]),
    /// The first four bytes.
    V6([u8; 4]),
}

impl Network {
    /// The one an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match Subnet::of(address) {
            Subnet::V4([a, b, _]) => Self::V4([a, b]),
            Subnet::V6([a, b, c, d, ..]) => Self::V6([a, b, c, d]),
        }
    }
}
