//! What a node notes beside evidence: where its peers are, what its user
//! decided, which accusations fell, and what became of auditors.
//!
//! These are parts of log entries. Nobody else can check them; they are there
//! so that a record can be computed again from the log alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use peerproof_identity::PublicKey;

use crate::check::{self, line};
use crate::codec::Codec;
use crate::shape::{self, Shape};
use crate::{Digest, WireError, limits, proto};

/// Bytes of the longest form of a network group.
pub(crate) const LONGEST_GROUP: usize = 5;

/// The part of the network that an address belongs to: what one operator is
/// likely to hold.
///
/// ```
/// use peerproof_wire::NetworkGroup;
///
/// let group = |text: &str| NetworkGroup::of(text.parse().expect("an address"));
/// assert_eq!(group("203.0.113.9"), group("203.0.7.1"));
/// assert_eq!(group("192.168.1.2"), NetworkGroup::Local);
/// assert_eq!(group("2001:db8:1::1").to_string(), "2001:db8::/32");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkGroup {
    /// Nobody knows.
    #[default]
    Unknown,
    /// This machine or a private network.
    Local,
    /// The first 16 bits of an IPv4 address.
    V4([u8; 2]),
    /// The first 32 bits of an IPv6 address.
    V6([u8; 4]),
}

impl NetworkGroup {
    /// The group of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [first, second, ..] = address.octets();
        let shared = first == 100 && second & 0xc0 == 64;
        let near = address.is_loopback()
            || address.is_private()
            || address.is_link_local()
            || address.is_unspecified();
        if near || shared { Self::Local } else { Self::V4([first, second]) }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if let Some(inner) = address.to_ipv4_mapped() {
            return Self::of_v4(inner);
        }
        let [a, b, c, d, e, f, ..] = address.octets();
        let near = address.is_loopback()
            || address.is_unspecified()
            || address.is_unique_local()
            || address.is_unicast_link_local();
        match (near, [a, b]) {
            (true, _) => Self::Local,
            (false, [0x20, 0x02]) => Self::of_v4(Ipv4Addr::new(c, d, e, f)),
            (false, _) => Self::V6([a, b, c, d]),
        }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Unknown => Vec::new(),
            Self::Local => vec![0],
            Self::V4([a, b]) => vec![4, a, b],
            Self::V6([a, b, c, d]) => vec![6, a, b, c, d],
        }
    }

    pub(crate) fn from_bytes(place: check::Place, bytes: &[u8]) -> Result<Self, WireError> {
        match *bytes {
            [] => Ok(Self::Unknown),
            [0] => Ok(Self::Local),
            [4, a, b] => Ok(Self::V4([a, b])),
            [6, a, b, c, d] => Ok(Self::V6([a, b, c, d])),
            _ => Err(WireError::Length { place, expected: LONGEST_GROUP, got: bytes.len() }),
        }
    }
}

impl fmt::Display for NetworkGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Local => f.write_str("local"),
            Self::V4([a, b]) => write!(f, "{a}.{b}.0.0/16"),
            Self::V6([a, b, c, d]) => {
                let (high, low) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                write!(f, "{}/32", Ipv6Addr::new(high, low, 0, 0, 0, 0, 0, 0))
            }
        }
    }
}

/// The other node that recomputed an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditedBy {
    /// Who.
    pub auditor: PublicKey,
    /// Where it was reached.
    pub group: NetworkGroup,
    /// Whether the lot fell on it; if not, the user named it.
    pub drawn: bool,
}

/// What a node's user decided about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// About whom.
    pub peer: PublicKey,
    /// Never to be chosen; if false, what stood against it before counts no longer as a bar.
    pub blocked: bool,
    /// Why: one line.
    pub reason: String,
}

impl Decision {
    /// A decision; the reason is made one line and cut to its limit.
    pub fn new(peer: PublicKey, blocked: bool, reason: impl AsRef<str>) -> Self {
        Self { peer, blocked, reason: check::to_line(reason.as_ref(), limits::MAX_REASON_BYTES) }
    }
}

/// A receipt that was said to be wrong and passed an audit here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refutation {
    /// Who signed the receipt.
    pub accused: PublicKey,
    /// The receipt.
    pub receipt_id: Digest,
    /// Who brought the accusation without a signed verdict, if that is known.
    pub accuser: Option<PublicKey>,
}

/// What can be found out about an auditor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditorFinding {
    /// It failed a receipt that was known to be wrong.
    Caught,
    /// A recomputation here gives its verdict, work digest included.
    Confirmed,
    /// Another auditor of the same receipt says otherwise.
    Disagreed,
    /// Its draw does not hold, or is not the one it drew before.
    Undrawn,
}

impl AuditorFinding {
    fn to_proto(self) -> proto::AuditorFinding {
        match self {
            Self::Caught => proto::AuditorFinding::Caught,
            Self::Confirmed => proto::AuditorFinding::Confirmed,
            Self::Disagreed => proto::AuditorFinding::Disagreed,
            Self::Undrawn => proto::AuditorFinding::Undrawn,
        }
    }

    fn from_proto(number: i32) -> Result<Self, WireError> {
        match proto::AuditorFinding::try_from(number) {
            Ok(proto::AuditorFinding::Caught) => Ok(Self::Caught),
            Ok(proto::AuditorFinding::Confirmed) => Ok(Self::Confirmed),
            Ok(proto::AuditorFinding::Disagreed) => Ok(Self::Disagreed),
            Ok(proto::AuditorFinding::Undrawn) => Ok(Self::Undrawn),
            Ok(proto::AuditorFinding::Unspecified) | Err(_) => {
                Err(WireError::Unnamed { place: "auditor_check.finding", got: number })
            }
        }
    }
}

/// What this node found out about an auditor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditorCheck {
    /// About whom.
    pub auditor: PublicKey,
    /// The receipt it judged.
    pub receipt_id: Digest,
    /// What came out.
    pub finding: AuditorFinding,
}

/// What a node notes for its own arithmetic, and nobody else can check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// What this node's user decided about a peer.
    Decision(Decision),
    /// An accusation that an audit here contradicts.
    Refutation(Refutation),
    /// What this node found out about an auditor.
    AuditorCheck(AuditorCheck),
}

impl Codec for Note {
    type Proto = proto::Note;
    const NAME: &'static str = "note";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::NOTE;

    fn to_proto(&self) -> proto::Note {
        use proto::note::Note;
        let note = match self {
            Self::Decision(decision) => Note::Decision(decision.to_proto()),
            Self::Refutation(refuted) => Note::Refutation(refuted.to_proto()),
            Self::AuditorCheck(check) => Note::AuditorCheck(check.to_proto()),
        };
        proto::Note { note: Some(note) }
    }

    fn from_proto(proto: proto::Note) -> Result<Self, WireError> {
        use proto::note::Note;
        Ok(match check::required("note", proto.note)? {
            Note::Decision(decision) => Self::Decision(Decision::from_proto(decision)?),
            Note::Refutation(refuted) => Self::Refutation(Refutation::from_proto(refuted)?),
            Note::AuditorCheck(check) => Self::AuditorCheck(AuditorCheck::from_proto(check)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Decision(decision) => decision.check(),
            Self::Refutation(refuted) => refuted.check(),
            Self::AuditorCheck(check) => check.check(),
        }
    }
}

impl Codec for Decision {
    type Proto = proto::Decision;
    const NAME: &'static str = "decision";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::DECISION;

    fn to_proto(&self) -> proto::Decision {
        proto::Decision {
            peer: self.peer.as_bytes().to_vec(),
            blocked: self.blocked,
            reason: self.reason.clone(),
        }
    }

    fn from_proto(proto: proto::Decision) -> Result<Self, WireError> {
        Ok(Self {
            peer: check::public_key("decision.peer", &proto.peer)?,
            blocked: proto.blocked,
            reason: proto.reason,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check::not_empty("decision.reason", self.reason.is_empty())?;
        line("decision.reason", &self.reason, limits::MAX_REASON_BYTES)
    }
}

impl Codec for Refutation {
    type Proto = proto::Refutation;
    const NAME: &'static str = "refutation";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::REFUTATION;

    fn to_proto(&self) -> proto::Refutation {
        proto::Refutation {
            accused: self.accused.as_bytes().to_vec(),
            receipt_id: self.receipt_id.as_bytes().to_vec(),
            accuser: self.accuser.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        }
    }

    fn from_proto(proto: proto::Refutation) -> Result<Self, WireError> {
        let accuser = (!proto.accuser.is_empty())
            .then(|| check::public_key("refutation.accuser", &proto.accuser));
        Ok(Self {
            accused: check::public_key("refutation.accused", &proto.accused)?,
            receipt_id: check::digest("refutation.receipt_id", &proto.receipt_id)?,
            accuser: accuser.transpose()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

impl Codec for AuditorCheck {
    type Proto = proto::AuditorCheck;
    const NAME: &'static str = "auditor check";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::AUDITOR_CHECK;

    fn to_proto(&self) -> proto::AuditorCheck {
        proto::AuditorCheck {
            auditor: self.auditor.as_bytes().to_vec(),
            receipt_id: self.receipt_id.as_bytes().to_vec(),
            finding: self.finding.to_proto().into(),
        }
    }

    fn from_proto(proto: proto::AuditorCheck) -> Result<Self, WireError> {
        Ok(Self {
            auditor: check::public_key("auditor_check.auditor", &proto.auditor)?,
            receipt_id: check::digest("auditor_check.receipt_id", &proto.receipt_id)?,
            finding: AuditorFinding::from_proto(proto.finding)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_what_one_operator_is_likely_to_hold() {
        let group = |text: &str| NetworkGroup::of(text.parse().expect("an address"));
        for near in [
            "127.0.0.1",
            "10.9.8.7",
            "172.31.0.1",
            "192.168.0.9",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.9.9",
            "0.0.0.0",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "2002:c0a8:1::1",
        ] {
            assert_eq!(group(near), NetworkGroup::Local, "{near}");
        }
        assert_eq!(group("100.128.0.1"), NetworkGroup::V4([100, 128]));
        assert_eq!(group("::ffff:198.51.100.7"), group("198.51.0.1"));
        assert_eq!(group("2002:c633:6407::1"), group("198.51.0.1"));
        assert_eq!(group("2001:db8:aaaa::1"), group("2001:db8:bbbb::9"));
        assert_ne!(group("2001:db8::1"), group("2001:db9::1"));
        assert_eq!(group("198.51.100.7").to_string(), "198.51.0.0/16");
    }

    #[test]
    fn groups_have_one_form() {
        use NetworkGroup::{Local, Unknown, V4, V6};
        for group in [Unknown, Local, V4([1, 2]), V6([1, 2, 3, 4])] {
            assert_eq!(NetworkGroup::from_bytes("group", &group.to_bytes()), Ok(group));
        }
        for bytes in [&[1][..], &[4, 1], &[6, 1, 2], &[5, 1, 2], &[0, 0], &[4, 1, 2, 3]] {
            assert!(NetworkGroup::from_bytes("group", bytes).is_err(), "{bytes:?}");
        }
    }
}
