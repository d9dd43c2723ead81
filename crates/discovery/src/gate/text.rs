//! Rules as text: `allow SUBJECT`, `deny SUBJECT`, `rate N/s|m|h SUBJECT`.
//!
//! A subject is `any`, a peer id, an address, a range such as
//! `203.0.113.0/24`, or `reputation<N`. What is printed parses to the same.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Action, Frequency, Range, Rule, Span, Subject, width};

/// Longest line that is looked at.
const MAX_TEXT_BYTES: usize = 256;
/// Most connections a rate may allow.
const MAX_COUNT: u32 = 1_000_000;
/// Highest reputation there is.
const MAX_SCORE: u16 = 1000;

/// Why a text is no rule, or rules are no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Not of the form of a rule.
    #[error(
        "`{text}` is no rule; write `allow`, `deny` or `rate N/m`, then an address, a range such as 203.0.113.0/24, a peer id, `reputation<N`, or `any`"
    )]
    Form {
        /// What came, shortened.
        text: String,
    },
    /// A subject nobody knows.
    #[error(
        "`{text}` names nobody; expected an address, a range such as 203.0.113.0/24, a peer id, `reputation<N`, or `any`"
    )]
    Subject {
        /// What came, shortened.
        text: String,
    },
    /// A range with bits behind its prefix, or a prefix that is too long.
    #[error("`{text}` is no range; {hint}")]
    Range {
        /// What came.
        text: String,
        /// What may have been meant.
        hint: String,
    },
    /// No frequency.
    #[error(
        "`{text}` is no rate; expected a count from 1 to {MAX_COUNT} a second, minute or hour, such as 10/m"
    )]
    Rate {
        /// What came, shortened.
        text: String,
    },
    /// A list too long to be kept.
    #[error("{got} rules; at most {limit} are kept, ranges may stand for many addresses")]
    TooMany {
        /// The most.
        limit: usize,
        /// How many there were.
        got: usize,
    },
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let form = || RuleError::Form { text: shortened(text) };
        if text.len() > MAX_TEXT_BYTES {
            return Err(form());
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let (action, subject) = match words[..] {
            ["allow", subject] => (Action::Allow, subject),
            ["deny", subject] => (Action::Deny, subject),
            ["rate", rate, subject] => (Action::Rate(rate.parse()?), subject),
            _ => return Err(form()),
        };
        Ok(Self { action, subject: subject.parse()? })
    }
}

impl FromStr for Subject {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let nobody = || RuleError::Subject { text: shortened(text) };
        if text.len() > MAX_TEXT_BYTES {
            return Err(nobody());
        }
        if text == "any" {
            return Ok(Self::Any);
        }
        if let Some(score) = text.strip_prefix("reputation<") {
            let score = score.parse().ok().filter(|score| (1..=MAX_SCORE).contains(score));
            return score.map(Self::Below).ok_or_else(nobody);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Range(Range::of(address)));
        }
        if text.contains('/') {
            return text.parse().map(Self::Range);
        }
        text.parse().map(Self::Peer).map_err(|_| nobody())
    }
}

impl FromStr for Range {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let refused = |hint: &str| RuleError::Range { text: shortened(text), hint: hint.into() };
        let parsed = text.split_once('/').and_then(|(base, bits)| {
            Some((base.parse::<IpAddr>().ok()?.to_canonical(), bits.parse::<u8>().ok()?))
        });
        let (base, bits) = parsed.ok_or_else(|| refused("expected ADDRESS/BITS"))?;
        if bits > width(base) {
            return Err(refused(&format!("such an address has {} bits", width(base))));
        }
        let meant = super::masked(base, bits);
        Self::new(base, bits).ok_or_else(|| refused(&format!("was {meant}/{bits} meant?")))
    }
}

impl FromStr for Frequency {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let refused = || RuleError::Rate { text: shortened(text) };
        let (count, span) = text.split_once('/').ok_or_else(refused)?;
        let span = match span {
            "s" => Span::Second,
            "m" => Span::Minute,
            "h" => Span::Hour,
            _ => return Err(refused()),
        };
        let count = count.parse().ok().filter(|count| (1..=MAX_COUNT).contains(count));
        Ok(Self { count: count.ok_or_else(refused)?, span })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Allow => write!(f, "allow {}", self.subject),
            Action::Deny => write!(f, "deny {}", self.subject),
            Action::Rate(rate) => write!(f, "rate {rate} {}", self.subject),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Peer(peer) => peer.fmt(f),
            Self::Range(range) => range.fmt(f),
            Self::Below(score) => write!(f, "reputation<{score}"),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == width(self.base) {
            return self.base.fmt(f);
        }
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = match self.span {
            Span::Second => "s",
            Span::Minute => "m",
            Span::Hour => "h",
        };
        write!(f, "{}/{span}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_printed_parses_to_the_same() {
        let peer = peerproof_identity::Keypair::from_seed(&[7; 32]).public().peer_id();
        for text in [
            "allow any",
            "deny 203.0.113.0/24",
            "deny 203.0.113.7",
            "deny 2001:db8::/32",
            "allow ::1",
            "rate 10/m 198.51.100.0/24",
            "rate 1/h any",
            "rate 1000000/s 0.0.0.0/0",
            "deny reputation<300",
            &format!("allow {peer}"),
        ] {
            let rule: Rule = text.parse().expect(text);
            assert_eq!(rule.to_string(), text);
        }
        let loose: Rule = "  deny   ::ffff:203.0.113.7 ".parse().expect("a rule");
        assert_eq!(loose.to_string(), "deny 203.0.113.7");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", "is no rule"),
            ("block any", "is no rule"),
            ("allow", "is no rule"),
            ("allow any any", "is no rule"),
            ("deny example.org", "names nobody"),
            ("deny reputation<0", "names nobody"),
            ("deny reputation<1001", "names nobody"),
            ("deny 203.0.113.7/24", "was 203.0.113.0/24 meant?"),
            ("deny 203.0.113.0/33", "has 32 bits"),
            ("deny 2001:db8::/129", "has 128 bits"),
            ("deny 203.0.113.0/x", "expected ADDRESS/BITS"),
            ("rate 0/m any", "is no rate"),
            ("rate 10 any", "is no rate"),
            ("rate 10/d any", "is no rate"),
            ("rate 1000001/s any", "is no rate"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Rule>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let long = format!("deny {}", "a".repeat(1 << 20));
        assert!(long.parse::<Rule>().expect_err("too long").to_string().len() < 400);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_back(text in ".{0,80}", tail in "[0-9a-f:./<]{0,40}") {
            for text in [text, format!("deny {tail}"), format!("rate {tail} any")] {
                if let Ok(rule) = text.parse::<Rule>() {
                    prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
                }
            }
        }
    }
}
