//! The operator's rules: who may connect, judged before a connection costs
//! anything.
//!
//! A [`RuleList`] is read from top to bottom and the first [`Rule`] that matches
//! decides; where none does, the peer is let in. A rule speaks of an address
//! range, a key, or a reputation. Only the address is known when somebody
//! knocks, so a [`Gate`] judges twice: [`Gate::knock`] before the handshake, and
//! [`Gate::identify`] right after it, when the key is known. A knock is refused
//! only if no key could change the verdict: below `allow 12D3…`, `deny any`
//! costs a handshake.
//!
//! Bytes in, verdicts out: rules are parsed from one line of text each, and
//! printed back the same way, so a file of rules, a configuration and a command
//! line share one form (`text`).
//!
//! Absent on purpose: the default limits on connections and hosts, which hold
//! with or without rules; where scores come from; closing connections.

mod text;

use std::fmt;
use std::net::IpAddr;

use peerproof_identity::PeerId;

use crate::Millis;
use crate::places::Host;
use crate::rates::{Buckets, Pace};

pub use text::RuleError;

/// Rules in one list.
pub const MAX_RULES: usize = 1024;
/// Hosts and peers whose pace is remembered for rules with a rate.
pub const MAX_PACED: usize = 16_384;

/// What a rule does with those it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let in, and out.
    Allow,
    /// Neither.
    Deny,
    /// Let in so often: each host, or each peer if the rule speaks of one.
    Rate(Frequency),
}

/// So many connections in a second, a minute or an hour; as many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frequency {
    /// How many; 1 to 1,000,000.
    pub count: u32,
    /// In which time.
    pub span: Span,
}

impl Frequency {
    fn pace(self) -> Pace {
        Pace::every(self.count, self.span.seconds() * 1_000_000, self.count)
    }
}

/// The time a frequency is counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// `s`
    Second,
    /// `m`
    Minute,
    /// `h`
    Hour,
}

impl Span {
    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

/// Whom a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everybody.
    Any,
    /// Who has this key.
    Peer(PeerId),
    /// Who comes from these addresses.
    Range(Range),
    /// Whose reputation, as this node computes it, is below this; 500 is a peer
    /// without a record. Does not match where no reputation is known.
    Below(u16),
}

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    base: IpAddr,
    bits: u8,
}

impl Range {
    /// The addresses that share the first `bits` bits with `base`; `None` if
    /// `base` has fewer bits, or bits of its own behind them.
    #[must_use]
    pub fn new(base: IpAddr, bits: u8) -> Option<Self> {
        let base = base.to_canonical();
        let range = Self { base, bits };
        (bits <= width(base) && masked(base, bits) == base).then_some(range)
    }

    /// One address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let base = address.to_canonical();
        Self { base, bits: width(base) }
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && masked(address, self.bits) == self.base
    }
}

const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with everything behind its first `bits` bits cleared.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            std::net::Ipv4Addr::from(u32::from(v4) & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            std::net::Ipv6Addr::from(u128::from(v6) & mask).into()
        }
    }
}

/// One line of the list.
///
/// ```
/// use peerproof_discovery::gate::Rule;
///
/// let rule: Rule = "rate 10/m 198.51.100.0/24".parse()?;
/// assert_eq!(rule.to_string(), "rate 10/m 198.51.100.0/24");
/// # Ok::<(), peerproof_discovery::gate::RuleError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What happens.
    pub action: Action,
    /// To whom.
    pub subject: Subject,
}

/// Rules, first match first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleList(Vec<Rule>);

impl RuleList {
    /// A list of at most [`MAX_RULES`].
    ///
    /// # Errors
    /// [`RuleError::TooMany`].
    pub fn new(rules: Vec<Rule>) -> Result<Self, RuleError> {
        if rules.len() > MAX_RULES {
            return Err(RuleError::TooMany { limit: MAX_RULES, got: rules.len() });
        }
        Ok(Self(rules))
    }

    /// The rules in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// Whether some rule asks for a reputation.
    #[must_use]
    pub fn asks_reputation(&self) -> bool {
        self.0.iter().any(|rule| matches!(rule.subject, Subject::Below(_)))
    }
}

/// What is known of somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Its key, once it was proven.
    pub peer: Option<PeerId>,
    /// Where its packets come from, or where it is called.
    pub address: Option<IpAddr>,
    /// Its reputation, if there is one.
    pub score: Option<u16>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let in, by a rule or for want of one.
    Admit(Option<usize>),
    /// Kept out, by the rule of this place in the list.
    Deny(usize),
    /// Kept out for so many milliseconds, by the rule of this place.
    Wait(usize, u64),
    /// Its key decides.
    Ask,
}

impl Verdict {
    /// The rule that decided.
    #[must_use]
    pub const fn rule(self) -> Option<usize> {
        match self {
            Self::Admit(rule) => rule,
            Self::Deny(rule) | Self::Wait(rule, _) => Some(rule),
            Self::Ask => None,
        }
    }
}

/// Whether a rule matches somebody of whom not everything is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// It may, once the key is known.
    Perhaps,
}

impl Rule {
    /// How wide it is: where rules are said one after the other and nobody says
    /// their order, the narrower ones are to be asked first, so that a word about
    /// everybody does not undo one about somebody. Keys, then denials by
    /// reputation, then ranges from the smallest on, then other rules by
    /// reputation, then everybody.
    #[must_use]
    pub const fn width(&self) -> (u8, u8) {
        match (self.subject, self.action) {
            (Subject::Peer(_), _) => (0, 0),
            (Subject::Below(_), Action::Deny) => (1, 0),
            (Subject::Range(range), _) => (2, width(range.base) - range.bits),
            (Subject::Below(_), _) => (3, 0),
            (Subject::Any, _) => (4, 0),
        }
    }

    fn matches(&self, who: &Who) -> Match {
        let known = |yes| if yes { Match::Yes } else { Match::No };
        match self.subject {
            Subject::Any => Match::Yes,
            Subject::Range(range) => known(who.address.is_some_and(|ip| range.contains(ip))),
            Subject::Peer(peer) => who.peer.map_or(Match::Perhaps, |is| known(is == peer)),
            Subject::Below(score) => match who.peer {
                Some(_) => known(who.score.is_some_and(|has| has < score)),
                None => Match::Perhaps,
            },
        }
    }
}

/// Hosts are counted by address, peers by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Paced {
    Host(Host),
    Peer(PeerId),
    /// Somebody behind a relay.
    Nowhere,
}

/// A list at work: it counts what rules with a rate let in, and how often each
/// rule decided.
///
/// ```
/// use peerproof_discovery::Millis;
/// use peerproof_discovery::gate::{Gate, RuleList, Verdict};
///
/// let rules = vec!["deny 203.0.113.0/24".parse()?];
/// let mut gate = Gate::new(RuleList::new(rules)?);
/// let from = |text: &str| text.parse().expect("an address");
/// assert_eq!(gate.knock(from("203.0.113.9"), Millis(0)), Verdict::Deny(0));
/// assert_eq!(gate.knock(from("198.51.100.9"), Millis(0)), Verdict::Admit(None));
/// # Ok::<(), peerproof_discovery::gate::RuleError>(())
/// ```
#[derive(Debug)]
pub struct Gate {
    list: RuleList,
    paces: Buckets<(usize, Paced)>,
    decided: Vec<u64>,
}

impl Gate {
    /// Judges by a list.
    #[must_use]
    pub fn new(list: RuleList) -> Self {
        let decided = vec![0; list.rules().len()];
        Self { list, paces: Buckets::new(MAX_PACED), decided }
    }

    /// The list.
    #[must_use]
    pub const fn list(&self) -> &RuleList {
        &self.list
    }

    /// How often each rule decided about somebody who came.
    #[must_use]
    pub fn decided(&self) -> &[u64] {
        &self.decided
    }

    /// Somebody comes: judged by its address, before anything is answered.
    pub fn knock(&mut self, from: IpAddr, now: Millis) -> Verdict {
        self.admit(&Who { address: Some(from), ..Who::default() }, now)
    }

    /// Somebody who was not refused has proven its key. What was counted at the
    /// knock is not counted again.
    pub fn identify(&mut self, who: &Who, now: Millis) -> Verdict {
        let knocked = who.address.map(|_| self.judge(&Who { peer: None, score: None, ..*who }));
        match (knocked, self.judge(who)) {
            (Some(Verdict::Admit(before)), Verdict::Admit(after)) if before == after => {
                Verdict::Admit(after)
            }
            _ => self.admit(who, now),
        }
    }

    fn admit(&mut self, who: &Who, now: Millis) -> Verdict {
        let verdict = self.judge(who);
        let Verdict::Admit(Some(rule)) = verdict else { return self.count(verdict) };
        let Some(Rule { action: Action::Rate(frequency), subject }) = self.list.0.get(rule) else {
            return self.count(verdict);
        };
        let paced = match (subject, who.peer, who.address) {
            (Subject::Peer(_) | Subject::Below(_), Some(peer), _) => Paced::Peer(peer),
            (_, _, Some(address)) => Paced::Host(Host::of(address)),
            (_, Some(peer), None) => Paced::Peer(peer),
            (_, None, None) => Paced::Nowhere,
        };
        match self.paces.take((rule, paced), frequency.pace(), now) {
            Ok(()) => self.count(verdict),
            Err(retry_ms) => self.count(Verdict::Wait(rule, retry_ms)),
        }
    }

    fn count(&mut self, verdict: Verdict) -> Verdict {
        let decided = verdict.rule().and_then(|rule| self.decided.get_mut(rule));
        decided.into_iter().for_each(|count| *count += 1);
        verdict
    }

    /// What the list says, without counting: for calls this node makes itself,
    /// for connections that stand when the list changes, and to explain. A rate
    /// admits here.
    #[must_use]
    pub fn judge(&self, who: &Who) -> Verdict {
        let mut open = false;
        for (place, rule) in self.list.0.iter().enumerate() {
            let denies = rule.action == Action::Deny;
            match (rule.matches(who), denies) {
                (Match::No, _) => {}
                // A key that this rule lets in may come.
                (Match::Perhaps, denies) => open |= !denies,
                (Match::Yes, true) if open => return Verdict::Ask,
                (Match::Yes, true) => return Verdict::Deny(place),
                (Match::Yes, false) if open && rule.action != Action::Allow => return Verdict::Ask,
                (Match::Yes, false) => return Verdict::Admit(Some(place)),
            }
        }
        Verdict::Admit(None)
    }
}

impl fmt::Display for RuleList {
    /// One rule a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerproof_identity::Keypair;

    fn peer(n: u8) -> PeerId {
        Keypair::from_seed(&[n; 32]).public().peer_id()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn gate(rules: &[&str]) -> Gate {
        let rules = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        Gate::new(RuleList::new(rules).expect("few rules"))
    }

    fn met(n: u8, from: &str, score: u16) -> Who {
        Who { peer: Some(peer(n)), address: Some(ip(from)), score: Some(score) }
    }

    #[test]
    fn ranges_contain_what_shares_their_bits() {
        let cases = [
            ("10.0.0.0", 8, "10.255.0.1", true),
            ("10.0.0.0", 8, "11.0.0.1", false),
            ("0.0.0.0", 0, "203.0.113.1", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("2001:db8::", 32, "2001:db8:ffff::1", true),
            ("2001:db8::", 32, "2001:db9::1", false),
            ("::", 0, "2001:db8::1", true),
            ("192.0.2.1", 32, "192.0.2.1", true),
            ("192.0.2.1", 32, "192.0.2.0", false),
            ("192.0.2.0", 24, "::ffff:192.0.2.9", true),
        ];
        for (base, bits, address, expected) in cases {
            let range = Range::new(ip(base), bits).expect("a range");
            assert_eq!(range.contains(ip(address)), expected, "{base}/{bits} {address}");
        }
        assert_eq!(Range::new(ip("10.0.0.1"), 8), None);
        assert_eq!(Range::new(ip("10.0.0.0"), 33), None);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let mut gate = gate(&["allow 192.0.2.7", "deny 192.0.2.0/24", "allow any"]);
        let now = Millis(0);
        assert_eq!(gate.knock(ip("192.0.2.7"), now), Verdict::Admit(Some(0)));
        assert_eq!(gate.knock(ip("192.0.2.8"), now), Verdict::Deny(1));
        assert_eq!(gate.knock(ip("198.51.100.1"), now), Verdict::Admit(Some(2)));
        assert_eq!(gate.decided(), [1, 1, 1]);
    }

    #[test]
    fn a_knock_is_refused_only_if_no_key_could_change_it() {
        let friend = format!("allow {}", peer(1));
        let foe = format!("deny {}", peer(2));
        let mut only_friends = gate(&[&friend, "deny any"]);
        assert_eq!(only_friends.knock(ip("192.0.2.7"), Millis(0)), Verdict::Ask);
        let identified = |gate: &mut Gate, n| gate.identify(&met(n, "192.0.2.7", 500), Millis(0));
        assert_eq!(identified(&mut only_friends, 1), Verdict::Admit(Some(0)));
        assert_eq!(identified(&mut only_friends, 3), Verdict::Deny(1));
        // A key that is denied cannot make a denied address welcome.
        let mut foes = gate(&[&foe, "deny 192.0.2.0/24"]);
        assert_eq!(foes.knock(ip("192.0.2.7"), Millis(0)), Verdict::Deny(1));
        // And one from elsewhere is found out when its key is known.
        assert_eq!(foes.knock(ip("198.51.100.7"), Millis(0)), Verdict::Admit(None));
        assert_eq!(foes.identify(&met(2, "198.51.100.7", 500), Millis(0)), Verdict::Deny(0));
    }

    #[test]
    fn reputation_counts_where_it_is_known() {
        let mut gate = gate(&["deny reputation<300"]);
        for (score, expected) in [
            (Some(299), Verdict::Deny(0)),
            (Some(300), Verdict::Admit(None)),
            (None, Verdict::Admit(None)),
        ] {
            let who = Who { score, ..met(1, "192.0.2.1", 0) };
            assert_eq!(gate.identify(&who, Millis(0)), expected, "{score:?}");
        }
    }

    #[test]
    fn a_rate_counts_each_host_once_a_connection() {
        let mut gate = gate(&["rate 3/m 192.0.2.0/24"]);
        for _ in 0..3 {
            assert_eq!(gate.knock(ip("192.0.2.1"), Millis(0)), Verdict::Admit(Some(0)));
            let met = met(1, "192.0.2.1", 500);
            assert_eq!(gate.identify(&met, Millis(0)), Verdict::Admit(Some(0)));
        }
        assert_eq!(gate.knock(ip("192.0.2.1"), Millis(0)), Verdict::Wait(0, 20_000));
        assert_eq!(gate.knock(ip("192.0.2.2"), Millis(0)), Verdict::Admit(Some(0)));
        assert_eq!(gate.knock(ip("192.0.2.1"), Millis(20_000)), Verdict::Admit(Some(0)));
        assert_eq!(gate.knock(ip("198.51.100.1"), Millis(0)), Verdict::Admit(None));
    }

    #[test]
    fn a_rate_below_a_key_counts_when_the_key_is_known() {
        let friend = format!("allow {}", peer(1));
        let mut gate = gate(&[&friend, "rate 1/h any"]);
        for n in [1, 2, 1, 2, 1] {
            assert_eq!(gate.knock(ip("192.0.2.1"), Millis(0)), Verdict::Ask, "{n}");
        }
        let mut identified = |n| gate.identify(&met(n, "192.0.2.1", 500), Millis(0));
        assert_eq!(identified(2), Verdict::Admit(Some(1)));
        assert!(matches!(identified(2), Verdict::Wait(1, _)));
        assert_eq!(identified(1), Verdict::Admit(Some(0)));
    }

    #[test]
    fn who_is_behind_a_relay_is_judged_by_its_key() {
        let foe = format!("deny {}", peer(2));
        let mut gate = gate(&[&foe, "deny 0.0.0.0/0", "rate 1/h any"]);
        let relayed = |n| Who { peer: Some(peer(n)), ..Who::default() };
        assert_eq!(gate.identify(&relayed(2), Millis(0)), Verdict::Deny(0));
        assert_eq!(gate.identify(&relayed(1), Millis(0)), Verdict::Admit(Some(2)));
        assert!(matches!(gate.identify(&relayed(1), Millis(0)), Verdict::Wait(2, _)));
    }

    #[test]
    fn a_word_about_somebody_is_narrower_than_one_about_everybody() {
        let friend = format!("allow {}", peer(1));
        let widening = [
            &*friend,
            "deny reputation<300",
            "allow 192.0.2.7",
            "deny 192.0.2.0/24",
            "deny 0.0.0.0/0",
            "rate 1/m reputation<600",
            "rate 30/m any",
        ];
        let widths = widening.map(|rule| rule.parse::<Rule>().expect("a rule").width());
        assert!(widths.is_sorted() && widths[0] < widths[6], "{widths:?}");
        assert!(widths.windows(2).all(|two| two[0] < two[1]), "{widths:?}");
    }

    #[test]
    fn paces_take_bounded_memory() {
        let mut gate = gate(&["rate 1/h any"]);
        for n in 0..40_000_u32 {
            gate.knock(std::net::Ipv4Addr::from(n).into(), Millis(0));
        }
        assert_eq!(gate.paces.len(), MAX_PACED);
    }
}
