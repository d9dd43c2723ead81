//! How much an address resembles those that are in a registrar.
//!
//! A binary tree of address bits with a count at each node (DISC-NG): on the way
//! down from the root, each bit at which more addresses lie than an even spread
//! would put there adds one point. Addresses that are spread have none, one
//! network's have many. IPv4 is followed for 32 bits, IPv6 for 64, since whoever
//! has one address of a /64 has them all; the two have a tree each.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A prefix: its first bits, and how many they are.
type Prefix = (u64, u8);

#[derive(Clone, Debug, Default)]
struct Tree {
    counts: BTreeMap<Prefix, u32>,
    total: u32,
}

/// The addresses of a registrar.
#[derive(Clone, Debug, Default)]
pub(super) struct Similarity {
    v4: Tree,
    v6: Tree,
}

/// The bits of an address from the top, and how many are followed.
fn bits_of(ip: IpAddr) -> (u64, u8) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => (u64::from(u32::from(v4)) << 32, 32),
        IpAddr::V6(v6) => ((u128::from(v6) >> 64) as u64, 64),
    }
}

fn prefixes(bits: u64, depth: u8) -> impl Iterator<Item = Prefix> {
    (1..=depth).map(move |length| (bits >> (64 - u32::from(length)), length))
}

impl Similarity {
    fn tree(&mut self, ip: IpAddr) -> &mut Tree {
        if ip.to_canonical().is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    pub(super) fn add(&mut self, ip: IpAddr) {
        let (bits, depth) = bits_of(ip);
        let tree = self.tree(ip);
        tree.total += 1;
        for prefix in prefixes(bits, depth) {
            *tree.counts.entry(prefix).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, ip: IpAddr) {
        let (bits, depth) = bits_of(ip);
        let tree = self.tree(ip);
        tree.total = tree.total.saturating_sub(1);
        for prefix in prefixes(bits, depth) {
            if let Some(count) = tree.counts.get_mut(&prefix) {
                *count -= 1;
                if *count == 0 {
                    tree.counts.remove(&prefix);
                }
            }
        }
    }

    /// 0 for an address unlike the others, 1 for one that is there already.
    pub(super) fn score(&self, ip: IpAddr) -> f64 {
        let (bits, depth) = bits_of(ip);
        let tree = if ip.to_canonical().is_ipv4() { &self.v4 } else { &self.v6 };
        let crowded = prefixes(bits, depth).filter(|prefix| {
            let count = f64::from(tree.counts.get(prefix).copied().unwrap_or(0));
            count > f64::from(tree.total) * 0.5_f64.powi(i32::from(prefix.1))
        });
        crowded.count() as f64 / f64::from(depth)
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.v4.counts.len() + self.v6.counts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn neighbours_resemble_each_other_and_strangers_do_not() {
        let mut seen = Similarity::default();
        assert!(seen.score(ip("8.8.8.8")) < 1e-9);
        for n in 0..=255_u8 {
            seen.add(ip(&format!("8.8.8.{n}")));
        }
        assert!(seen.score(ip("8.8.8.7")) > 0.99);
        assert!(seen.score(ip("8.8.9.7")) > 0.6);
        assert!(seen.score(ip("200.1.2.3")) < 1e-9);
        assert!(seen.score(ip("2a00::1")) < 1e-9);
        assert!((seen.score(ip("::ffff:8.8.8.8")) - seen.score(ip("8.8.8.8"))).abs() < 1e-9);
    }

    #[test]
    fn what_is_removed_leaves_nothing() {
        let mut seen = Similarity::default();
        let all = ["8.8.8.8", "8.8.4.4", "2a00::1", "2a00::2", "8.8.8.8"];
        all.iter().for_each(|text| seen.add(ip(text)));
        all.iter().for_each(|text| seen.remove(ip(text)));
        assert_eq!((seen.nodes(), seen.v4.total, seen.v6.total), (0, 0, 0));
    }
}
