//! The operator's rules about who may connect: where they are kept, and what
//! they say of somebody.
//!
//! Two places hold rules: the configuration (`[firewall] rules`), which a person
//! writes, and the file `firewall.rules` beside it, which the command `firewall`
//! writes. The command's are read first, the narrower before the wider and the
//! newer before the older, so that a word said today overrules what was set up
//! and a word about everybody undoes none about somebody; the first rule that
//! matches decides. The rules
//! themselves are judged in `peerproof-discovery`; a running node applies them in
//! `peerproof-net`.
//!
//! Absent on purpose: blocking a provider for what it did, which is `reputation`.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use peerproof_discovery::gate::{Action, Gate, MAX_RULES, Rule, RuleError, RuleList, Subject};
use peerproof_identity::PeerId;
use serde::{Deserialize, Serialize};

pub use peerproof_discovery::gate::{Verdict, Who};

use crate::config;
use crate::home::{Home, HomeError, make_private_dir};
use crate::store::{StoreError, write_atomic};

/// Bytes of a file with the most and longest rules.
const MAX_FILE_BYTES: u64 = (MAX_RULES * 257) as u64;

/// Why rules can't be read, changed or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// A rule of the configuration.
    #[error("firewall.rules: {0}")]
    Configured(RuleError),
    /// A rule of the file.
    #[error("{path}, line {line}: {source}; correct it, or move the file away")]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        source: RuleError,
    },
    /// The file can't be read.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// What was given is no rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// There is nothing to take back.
    #[error("no rule about `{subject}` was set by a command; `peerproof firewall list` shows all")]
    Unknown {
        /// Who it was to be about.
        subject: String,
    },
    /// A rule of the configuration is not the command's to change.
    #[error(
        "the rule about `{subject}` stands in {file}; take it out there, or overrule it with `peerproof firewall allow` or `deny`"
    )]
    InConfiguration {
        /// Who it is about.
        subject: String,
        /// The configuration.
        file: PathBuf,
    },
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The file can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A running network does not take them.
    #[error("the running node did not take the rules: {0}")]
    Net(#[from] peerproof_net::NetError),
}

/// Where a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// In the file that the command writes.
    Command,
    /// In the configuration.
    Configuration,
}

/// A rule, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// As it is written.
    pub rule: String,
    /// Where it stands.
    pub origin: Origin,
    /// Connections that others opened, or tried to, and it decided about, since the rules
    /// were last changed; none if no node runs.
    pub decided: Option<u64>,
}

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This rule comes before the command's others that are as wide; those about the same go.
    Put(Rule),
    /// The command's rules about this go.
    Remove(Subject),
}

impl Change {
    /// A change from its words: `put` and a rule, or `remove` and whom it is about.
    ///
    /// # Errors
    /// [`FirewallError::Rule`].
    pub fn parse(action: &str, text: &str) -> Result<Option<Change>, FirewallError> {
        Ok(match action {
            "put" => Some(Change::Put(text.parse()?)),
            "remove" => Some(Change::Remove(text.parse()?)),
            _ => None,
        })
    }
}

/// All rules of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    path: PathBuf,
    configuration: PathBuf,
    set: Vec<Rule>,
    configured: Vec<Rule>,
}

impl Rules {
    /// Reads both places.
    ///
    /// # Errors
    /// Each names the place, and what is wrong there.
    pub fn read(home: &Home, config: &config::Firewall) -> Result<Rules, FirewallError> {
        let path = home.firewall_file();
        let set = read_file(&path)?;
        let configured = config.parse().map_err(FirewallError::Configured)?;
        let rules = Rules { path, configuration: home.config_file(), set, configured };
        rules.list()?;
        Ok(rules)
    }

    /// In the order in which they are asked.
    ///
    /// # Errors
    /// There are too many.
    pub fn list(&self) -> Result<RuleList, FirewallError> {
        Ok(RuleList::new([&self.set[..], &self.configured].concat())?)
    }

    /// As they are shown, with how often each decided, if that is known.
    #[must_use]
    pub fn lines(&self, decided: Option<&[u64]>) -> Vec<Line> {
        let set = self.set.iter().map(|rule| (rule, Origin::Command));
        let configured = self.configured.iter().map(|rule| (rule, Origin::Configuration));
        let lines = set.chain(configured).enumerate();
        lines
            .map(|(place, (rule, origin))| Line {
                rule: rule.to_string(),
                origin,
                decided: decided.and_then(|counts| counts.get(place).copied()),
            })
            .collect()
    }

    /// The rules after a change. Nothing is written.
    ///
    /// # Errors
    /// There would be too many, or there is nothing to remove.
    pub fn changed(&self, change: &Change) -> Result<Rules, FirewallError> {
        let subject = match change {
            Change::Put(rule) => rule.subject,
            Change::Remove(subject) => *subject,
        };
        let mut rules = self.clone();
        rules.set.retain(|rule| rule.subject != subject);
        match change {
            Change::Put(rule) => {
                let place = rules.set.iter().position(|other| other.width() >= rule.width());
                rules.set.insert(place.unwrap_or(rules.set.len()), *rule);
            }
            Change::Remove(_) if rules.set.len() < self.set.len() => {}
            Change::Remove(_) => {
                let subject_is = |rule: &Rule| rule.subject == subject;
                let subject = subject.to_string();
                return Err(if self.configured.iter().any(subject_is) {
                    let file = self.configuration.clone();
                    FirewallError::InConfiguration { subject, file }
                } else {
                    FirewallError::Unknown { subject }
                });
            }
        }
        rules.list()?;
        Ok(rules)
    }

    /// Writes the command's rules, whole or not at all.
    ///
    /// # Errors
    /// When the file can't be written; the old one is there then.
    pub fn save(&self) -> Result<(), FirewallError> {
        let mut text = String::from(
            "# Written by `peerproof firewall`. The first rule that matches decides; these come\n# before `[firewall] rules` of the configuration.\n",
        );
        for rule in &self.set {
            text.push_str(&format!("{rule}\n"));
        }
        if let Some(folder) = self.path.parent() {
            make_private_dir(folder)?;
        }
        Ok(write_atomic(&self.path, text.as_bytes(), 0o600)?)
    }

    /// What the rules say of somebody, and the rule that says it.
    ///
    /// # Errors
    /// There are too many rules.
    pub fn judge(&self, who: &Who) -> Result<Judged, FirewallError> {
        let gate = Gate::new(self.list()?);
        // Behind a key that is not given there is anybody.
        let verdict = gate.judge(who);
        let line = verdict.rule().and_then(|place| self.lines(None).get(place).cloned());
        let rate = verdict.rule().and_then(|place| gate.list().rules().get(place));
        let rate = rate.is_some_and(|rule| matches!(rule.action, Action::Rate(_)));
        let verdict = match verdict {
            Verdict::Admit(_) if rate => Said::Paced,
            Verdict::Admit(_) => Said::Admitted,
            Verdict::Deny(_) | Verdict::Wait(..) => Said::Denied,
            Verdict::Ask => Said::KeyDecides,
        };
        let before_handshake = who.address.is_some_and(|_| {
            let knock = Who { peer: None, score: None, ..*who };
            matches!(gate.judge(&knock), Verdict::Deny(_))
        });
        Ok(Judged { verdict, before_handshake, line })
    }
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It may connect.
    Admitted,
    /// It may, so often.
    Paced,
    /// It may not.
    Denied,
    /// Its key decides, after the handshake.
    KeyDecides,
}

/// What the rules say of somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// What becomes of it.
    pub verdict: Said,
    /// Whether that is so before its connection costs a handshake.
    pub before_handshake: bool,
    /// The rule that decided; none if none matched.
    pub line: Option<Line>,
}

/// An address or a peer id, as somebody to be judged.
///
/// # Errors
/// It is neither.
pub fn parse_who(text: &str) -> Result<Who, FirewallError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Who { address: Some(address), ..Who::default() });
    }
    let peer = text.parse::<PeerId>().ok();
    peer.map(|peer| Who { peer: Some(peer), ..Who::default() })
        .ok_or_else(|| RuleError::Subject { text: text.chars().take(80).collect() }.into())
}

fn read_file(path: &Path) -> Result<Vec<Rule>, FirewallError> {
    let failed = |message: String| FirewallError::File { path: path.to_owned(), message };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(format!("expected at most {MAX_FILE_BYTES} bytes")));
    }
    let mut rules = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        rules.push(line.parse().map_err(|source| FirewallError::Line {
            path: path.to_owned(),
            line: number + 1,
            source,
        })?);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Environment;

    fn rules(folder: &Path, configured: &[&str]) -> Result<Rules, FirewallError> {
        let home = Home::find(Some(folder), Some(folder), &Environment::default()).expect("a home");
        let rules = configured.iter().map(|rule| (*rule).to_owned()).collect();
        Rules::read(&home, &config::Firewall { rules })
    }

    fn put(rule: &str) -> Change {
        Change::parse("put", rule).expect("a rule").expect("an action")
    }

    fn shown(rules: &Rules) -> Vec<String> {
        rules.lines(None).into_iter().map(|line| line.rule).collect()
    }

    #[test]
    fn the_narrower_and_then_the_newer_word_comes_first_and_survives() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = || rules(folder.path(), &["deny any"]).expect("rules");
        for rule in ["allow 192.0.2.1", "deny 192.0.2.0/24", "rate 5/m 192.0.2.1", "rate 9/m any"] {
            read().changed(&put(rule)).expect("room").save().expect("a disk");
        }
        // The later word about the same address replaced the earlier.
        let kept = ["rate 5/m 192.0.2.1", "deny 192.0.2.0/24", "rate 9/m any", "deny any"];
        assert_eq!(shown(&read()), kept);
        let remove = Change::parse("remove", "192.0.2.1").expect("a subject").expect("an action");
        read().changed(&remove).expect("it is there").save().expect("a disk");
        assert_eq!(shown(&read()), ["deny 192.0.2.0/24", "rate 9/m any", "deny any"]);
        assert!(matches!(read().changed(&remove), Err(FirewallError::Unknown { .. })));
        let any = Change::Remove(Subject::Any);
        read().changed(&any).expect("it is there").save().expect("a disk");
        let error = read().changed(&any).expect_err("not the command's");
        assert!(error.to_string().contains("config.toml"), "{error}");
    }

    #[test]
    fn a_broken_line_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("firewall.rules");
        std::fs::write(&path, "# mine\n\ndeny 192.0.2.0/33\n").expect("a disk");
        let error = rules(folder.path(), &[]).expect_err("no rule").to_string();
        assert!(error.contains("firewall.rules, line 3") && error.contains("32 bits"), "{error}");
        std::fs::write(&path, [0xff; 9]).expect("a disk");
        assert!(matches!(rules(folder.path(), &[]), Err(FirewallError::File { .. })));
        std::fs::write(&path, "# a\n".repeat(200_000)).expect("a disk");
        assert!(matches!(rules(folder.path(), &[]), Err(FirewallError::File { .. })));
        std::fs::remove_file(&path).expect("a disk");
        let error = rules(folder.path(), &["dney any"]).expect_err("no rule").to_string();
        assert!(error.starts_with("firewall.rules: `dney any`"), "{error}");
    }

    #[test]
    fn a_verdict_names_its_rule_and_when_it_falls() {
        let folder = tempfile::tempdir().expect("a folder");
        let peer = peerproof_identity::Keypair::from_seed(&[7; 32]).public().peer_id();
        let friend = format!("allow {peer}");
        let all = ["deny 198.51.100.0/24", &friend, "rate 1/m 203.0.113.0/24", "deny any"];
        let rules = rules(folder.path(), &all).expect("rules");
        let judge = |text: &str| rules.judge(&parse_who(text).expect("somebody")).expect("few");
        let judged = judge("198.51.100.7");
        assert_eq!((judged.verdict, judged.before_handshake), (Said::Denied, true));
        assert_eq!(judged.line.expect("a rule").rule, all[0]);
        assert_eq!(judge("192.0.2.1").verdict, Said::KeyDecides);
        assert_eq!(judge(&peer.to_string()).verdict, Said::Admitted);
        let known = Who { peer: Some(peer), address: Some([192, 0, 2, 1].into()), score: None };
        assert_eq!(rules.judge(&known).expect("few").verdict, Said::Admitted);
        assert!(parse_who("example.org").is_err());
    }
}
