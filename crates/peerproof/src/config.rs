//! One typed configuration from four places: flag over environment over file over default.
//!
//! Every place is brought into the same tree of tables before anything is
//! typed, so each setting has one name everywhere: `network.port` is the key
//! `port` under `[network]`, the variable `PEERPROOF_NETWORK_PORT` and the flag
//! `--set network.port=…` (the common ones have flags of their own). Unknown
//! names are errors with a suggestion; nothing is ignored silently.

mod memory;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use peerproof_discovery::gate::{Rule, RuleError};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::client::{Level, Mode};

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, column and what was expected.
        message: String,
    },
    /// A name nobody knows.
    #[error("{place}: unknown setting `{name}`{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    Unknown {
        /// File, variable or flag.
        place: String,
        /// The name.
        name: String,
        /// The nearest known name.
        suggestion: Option<String>,
    },
    /// A value of the wrong kind or out of range.
    #[error("{name}: {message}")]
    Invalid {
        /// The setting.
        name: String,
        /// What was expected and what came.
        message: String,
    },
}

/// All settings of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Version of this format.
    pub version: u32,
    /// How peers are reached.
    pub network: Network,
    /// Who may connect.
    pub firewall: Firewall,
    /// What this node serves.
    pub provide: Provide,
    /// Model files for others.
    pub share: Share,
    /// The HTTP API.
    pub api: Api,
    /// This node's log, and those it witnesses.
    pub log: Log,
    /// Defaults of requests.
    pub ask: Ask,
    /// How others are judged.
    pub reputation: Reputation,
    /// Where models come from.
    pub models: Models,
}

/// How peers are reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// UDP (QUIC) and TCP port; 0 lets the system choose.
    pub port: u16,
    /// Stay on this machine: listen on 127.0.0.1 and leave mDNS off.
    pub loopback: bool,
    /// Find peers of the local network by multicast DNS.
    pub mdns: bool,
    /// Multiaddrs of peers to start from.
    pub peers: Vec<String>,
    /// Multiaddrs under which others reach this node from outside, for example behind a
    /// forwarded port.
    pub external: Vec<String>,
    /// Most connections at once.
    pub max_connections: u32,
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firewall {
    /// `allow WHO`, `deny WHO` or `rate N/m WHO`, where WHO is an address, a range such as
    /// 203.0.113.0/24, a peer id, `reputation<N`, or `any`. The first that matches decides; where
    /// none does, a peer may connect. Rules set by the command `firewall` come before these.
    pub rules: Vec<String>,
}

impl Firewall {
    /// The rules, read.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn parse(&self) -> Result<Vec<Rule>, RuleError> {
        self.rules.iter().map(|rule| rule.parse()).collect()
    }
}

/// What this node serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provide {
    /// Names of installed models, or paths of GGUF files.
    pub models: Vec<String>,
    /// Compute threads; 0 is one a core.
    pub threads: u32,
    /// Jobs computed together.
    pub max_jobs: u32,
    /// Jobs that wait.
    pub max_queued: u32,
    /// Memory of all KV caches of answers together, in MiB; replays and embeddings may take as
    /// much again.
    pub kv_mib: u32,
    /// Memory that open models may take together, with their caches: bytes, or a number with a
    /// unit such as `4GiB` or `800MB`. Empty is three quarters of the machine's.
    pub memory: String,
    /// What a million tokens cost here, in `price_unit`: announced and shown, and asked for by
    /// nobody. 0 is no terms.
    pub price_per_million: u64,
    /// The unit of that number, at most 32 bytes.
    pub price_unit: String,
}

impl Provide {
    /// The memory budget in bytes.
    ///
    /// # Errors
    /// If the setting is no number of bytes.
    pub fn memory_bytes(&self) -> Result<u64, ConfigError> {
        if self.memory.is_empty() {
            return Ok(memory::of_this_machine().map_or(u64::MAX, |bytes| bytes / 4 * 3));
        }
        memory::parse(&self.memory).ok_or_else(|| ConfigError::Invalid {
            name: "provide.memory".into(),
            message: format!(
                "expected bytes, or a number with KiB, MiB, GiB, TiB, kB, MB, GB or TB, got `{}`",
                self.memory
            ),
        })
    }
}

/// Model files for others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Send pieces of the models that this node serves or audits with to peers that ask.
    pub enabled: bool,
    /// Most MiB a second to all of them together; 0 is no limit.
    pub max_rate_mib: u32,
    /// Requests worked on at once.
    pub max_requests: u32,
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Api {
    /// Address and port.
    pub listen: String,
    /// File with the key that clients must show; required off loopback.
    pub key_file: String,
    /// Requests at once.
    pub max_in_flight: u32,
    /// Host names, beside its address, under which browsers and proxies may call the API.
    pub hosts: Vec<String>,
    /// Web origins, such as `https://chat.example`, whose pages may call the API.
    pub origins: Vec<String>,
    /// Let anybody who reaches the API read this node's log and have theirs witnessed, under
    /// `/log/`, without a key.
    pub public_log: bool,
}

/// This node's log, and those it witnesses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// Peers that a provider or auditor has witness its log; 0 leaves it unwitnessed.
    pub witnesses: u32,
    /// Seconds between two rounds of having a growing log witnessed.
    pub witness_every_s: u32,
    /// Most logs of others that this node witnesses.
    pub max_witnessed: u32,
}

/// Defaults of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// How answers are checked: `receipt`, `sampled`, `spot`, `full` or `k_of_n`.
    #[serde(with = "by_name")]
    pub level: Level,
    /// When: `merkle`, before an answer counts, or `fraud_proof`, while it is used.
    #[serde(with = "by_name")]
    pub mode: Mode,
    /// Least share of answers that `sampled` audits, in per mille: a provider without a record is
    /// audited more often, down to 50 with a long one. 0 audits none.
    pub audit_per_mille: u32,
    /// Have a provider open the leaves that this node's secret nonce draws, of answers that
    /// are not audited. Costs the provider a replay.
    pub challenge: bool,
    /// Ask a second provider as well when the first is slow to begin; the identical answer
    /// that is there first is taken.
    pub hedge: bool,
    /// Tokens of an answer if the request does not say.
    pub max_tokens: u32,
    /// Milliseconds from asking to the receipt.
    pub deadline_ms: u64,
}

/// How others are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reputation {
    /// Days after which what was earned, and what was done wrong, counts half.
    pub half_life_days: u32,
    /// Most that all providers of one network group (/16 of IPv4, /32 of IPv6) have to their
    /// credit together, in answers.
    pub group_cap: u32,
    /// Least share of audits by others, in per mille, after which the auditor is given a receipt
    /// that is known to be wrong; one without a record gets more. 0 gives none.
    pub plant_per_mille: u32,
    /// Longest pause before that, in milliseconds.
    pub plant_delay_ms: u32,
}

impl Reputation {
    /// The rules that scores are computed by.
    #[must_use]
    pub fn rules(&self) -> peerproof_job::reputation::Rules {
        peerproof_job::reputation::Rules {
            half_life_days: self.half_life_days,
            group_cap: self.group_cap,
        }
    }
}

/// Where models come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// Base URL of the model hub.
    pub hub: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            version: 1,
            network: Network {
                port: 0,
                loopback: false,
                mdns: true,
                peers: Vec::new(),
                external: Vec::new(),
                max_connections: 256,
            },
            firewall: Firewall { rules: Vec::new() },
            provide: Provide {
                models: Vec::new(),
                threads: 0,
                max_jobs: 8,
                max_queued: 64,
                kv_mib: 1024,
                memory: String::new(),
                price_per_million: 0,
                price_unit: String::new(),
            },
            share: Share { enabled: true, max_rate_mib: 64, max_requests: 8 },
            api: Api {
                listen: "127.0.0.1:8311".into(),
                key_file: String::new(),
                max_in_flight: 128,
                hosts: Vec::new(),
                origins: Vec::new(),
                public_log: false,
            },
            log: Log { witnesses: 3, witness_every_s: 30, max_witnessed: 4096 },
            ask: Ask {
                level: Level::Sampled,
                mode: Mode::Merkle,
                audit_per_mille: 50,
                challenge: false,
                hedge: true,
                max_tokens: 512,
                deadline_ms: 300_000,
            },
            reputation: Reputation {
                half_life_days: 14,
                group_cap: 512,
                plant_per_mille: 30,
                plant_delay_ms: 20_000,
            },
            models: Models { hub: "https://huggingface.co".into() },
        }
    }
}

/// One setting from a flag: a dotted name and a TOML value (a bare word is a string).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// For example `network.port`.
    pub name: String,
    /// For example `4001`.
    pub value: String,
}

impl Config {
    /// Merges default, file, environment and flags, in rising precedence.
    ///
    /// A file that does not exist is an error only if `required`.
    ///
    /// # Errors
    /// Each names the place, the setting and what to do.
    pub fn load(
        file: &Path,
        required: bool,
        environment: &BTreeMap<String, String>,
        flags: &[Override],
    ) -> Result<Config, ConfigError> {
        let mut tree = defaults();
        if let Some(table) = read_file(file, required)? {
            merge_known(&mut tree, table, "", &file.display().to_string())?;
        }
        for (name, value) in environment_settings(environment)? {
            set(&mut tree, &name, parse_value(&value), &variable(&name))?;
        }
        for Override { name, value } in flags {
            set(&mut tree, name, parse_value(value), "--set")?;
        }
        let config: Config = Value::Table(tree).try_into().map_err(|error: toml::de::Error| {
            ConfigError::Invalid { name: "configuration".into(), message: error.message().into() }
        })?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as TOML, every setting with its value.
    ///
    /// # Panics
    /// Never: every field has a TOML form, as the tests show.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every setting has a TOML form")
    }

    fn check(&self) -> Result<(), ConfigError> {
        let in_range = |name: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ConfigError::Invalid {
                name: name.into(),
                message: format!("expected {low} to {high}, got {value}"),
            })
        };
        in_range("version", self.version.into(), 1, 1)?;
        in_range("network.max_connections", self.network.max_connections.into(), 8, 10_000)?;
        self.firewall.parse().map_err(|error| ConfigError::Invalid {
            name: "firewall.rules".into(),
            message: error.to_string(),
        })?;
        in_range("provide.threads", self.provide.threads.into(), 0, 1024)?;
        in_range("provide.max_jobs", self.provide.max_jobs.into(), 1, 256)?;
        in_range("provide.max_queued", self.provide.max_queued.into(), 0, 4096)?;
        in_range("provide.kv_mib", self.provide.kv_mib.into(), 16, 1 << 20)?;
        self.provide.memory_bytes()?;
        let unit = &self.provide.price_unit;
        if unit.len() > 32 || unit.chars().any(char::is_control) {
            return Err(ConfigError::Invalid {
                name: "provide.price_unit".into(),
                message: format!("expected one line of at most 32 bytes, got {unit:?}"),
            });
        }
        in_range("share.max_rate_mib", self.share.max_rate_mib.into(), 0, 1 << 20)?;
        in_range("share.max_requests", self.share.max_requests.into(), 1, 1024)?;
        in_range("api.max_in_flight", self.api.max_in_flight.into(), 1, 10_000)?;
        in_range("log.witnesses", self.log.witnesses.into(), 0, 16)?;
        in_range("log.witness_every_s", self.log.witness_every_s.into(), 1, 86_400)?;
        in_range("log.max_witnessed", self.log.max_witnessed.into(), 0, 1 << 16)?;
        let judged = &self.reputation;
        in_range("reputation.half_life_days", judged.half_life_days.into(), 1, 365)?;
        in_range("reputation.group_cap", judged.group_cap.into(), 1, 1 << 20)?;
        in_range("reputation.plant_per_mille", judged.plant_per_mille.into(), 0, 1000)?;
        in_range("reputation.plant_delay_ms", judged.plant_delay_ms.into(), 0, 600_000)?;
        if (self.ask.mode, self.ask.level) == (Mode::FraudProof, Level::KOfN) {
            return Err(ConfigError::Invalid {
                name: "ask.mode".into(),
                message: "k_of_n compares answers before they count; its mode is merkle".into(),
            });
        }
        in_range("ask.audit_per_mille", self.ask.audit_per_mille.into(), 0, 1000)?;
        in_range("ask.max_tokens", self.ask.max_tokens.into(), 1, 1 << 17)?;
        in_range("ask.deadline_ms", self.ask.deadline_ms, 1000, 3_600_000)
    }
}

fn defaults() -> Table {
    match Value::try_from(Config::default()) {
        Ok(Value::Table(table)) => table,
        _ => unreachable!("the default configuration is a table"),
    }
}

fn read_file(path: &Path, required: bool) -> Result<Option<Table>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
        Err(source) => return Err(ConfigError::Io { path: path.to_owned(), source }),
    };
    let table = text.parse::<Table>().map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    if !table.contains_key("version") {
        return Err(ConfigError::Invalid {
            name: "version".into(),
            message: format!("{} must begin with `version = 1`", path.display()),
        });
    }
    Ok(Some(table))
}

fn merge_known(into: &mut Table, from: Table, path: &str, place: &str) -> Result<(), ConfigError> {
    for (key, value) in from {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(table)) => {
                merge_known(inner, table, &name, place)?;
            }
            (Some(known), value) => assign(known, value, &name)?,
            (None, _) => return Err(unknown(&name, place)),
        }
    }
    Ok(())
}

fn set(tree: &mut Table, name: &str, value: Value, place: &str) -> Result<(), ConfigError> {
    let known = match name.split_once('.') {
        Some((section, key)) => {
            tree.get_mut(section).and_then(Value::as_table_mut).and_then(|t| t.get_mut(key))
        }
        None => tree.get_mut(name).filter(|value| !value.is_table()),
    };
    match known {
        Some(known) => assign(known, value, name),
        None => Err(unknown(name, place)),
    }
}

fn assign(known: &mut Value, value: Value, name: &str) -> Result<(), ConfigError> {
    let value = match (&known, value) {
        (Value::Array(_), Value::String(list)) => split_list(&list),
        (Value::String(_), value @ (Value::Integer(_) | Value::Boolean(_))) => {
            Value::String(value.to_string())
        }
        (_, value) => value,
    };
    if !known.same_type(&value) {
        return Err(ConfigError::Invalid {
            name: name.into(),
            message: format!("expected {}, got {} `{value}`", known.type_str(), value.type_str()),
        });
    }
    *known = value;
    Ok(())
}

fn split_list(list: &str) -> Value {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.into())).collect())
}

/// A flag's or variable's text: TOML if it is TOML, otherwise a string.
fn parse_value(text: &str) -> Value {
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.into()))
}

const PREFIX: &str = "PEERPROOF_";
/// Variables with the prefix that are no settings: they choose folders or serve the tests.
const NOT_SETTINGS: [&str; 5] = [
    "PEERPROOF_HOME",
    "PEERPROOF_CACHE",
    "PEERPROOF_CONFIG",
    "PEERPROOF_LOG",
    "PEERPROOF_TEST_MODEL",
];

fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "_").to_uppercase())
}

fn environment_settings(
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let names: BTreeMap<String, String> =
        known_names().into_iter().map(|name| (variable(&name), name)).collect();
    let ours = environment
        .iter()
        .filter(|(key, _)| key.starts_with(PREFIX) && !NOT_SETTINGS.contains(&key.as_str()));
    ours.map(|(key, value)| match names.get(key) {
        Some(name) => Ok((name.clone(), value.clone())),
        None => Err(ConfigError::Unknown {
            place: "environment".into(),
            name: key.clone(),
            suggestion: nearest(key, names.keys()),
        }),
    })
    .collect()
}

/// Every setting's dotted name.
#[must_use]
pub fn known_names() -> Vec<String> {
    let mut names = Vec::new();
    for (section, value) in defaults() {
        match value {
            Value::Table(table) => {
                names.extend(table.keys().map(|key| format!("{section}.{key}")));
            }
            _ => names.push(section),
        }
    }
    names
}

fn unknown(name: &str, place: &str) -> ConfigError {
    let known = known_names();
    let sections = known.iter().filter_map(|name| name.split_once('.')).map(|(section, _)| section);
    let mut candidates: Vec<String> = sections.map(str::to_owned).collect();
    candidates.extend(known.iter().cloned());
    ConfigError::Unknown {
        place: place.into(),
        name: name.into(),
        suggestion: nearest(name, candidates.iter()),
    }
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    let limit = (name.len() / 3).max(2);
    known
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate.clone())
}

/// Levenshtein distance in characters.
#[must_use]
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Values that are written as their names.
mod by_name {
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }

    pub(super) fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
    where
        T: FromStr<Err = String>,
        D: Deserializer<'de>,
    {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]
    use super::*;

    fn load(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        let environment =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let flags: Vec<_> = flags
            .iter()
            .map(|(name, value)| Override { name: (*name).into(), value: (*value).into() })
            .collect();
        Config::load(&path, true, &environment, &flags)
    }

    #[test]
    fn precedence_is_flag_environment_file_default() {
        let file =
            "version = 1\n[network]\nport = 1\n[ask]\nmax_tokens = 1\n[provide]\nthreads = 1";
        let environment = [("PEERPROOF_NETWORK_PORT", "2"), ("PEERPROOF_ASK_MAX_TOKENS", "2")];
        let config = load(file, &environment, &[("network.port", "3")]).unwrap();
        assert_eq!(config.network.port, 3);
        assert_eq!(config.ask.max_tokens, 2);
        assert_eq!(config.provide.threads, 1);
        assert_eq!(config.ask.deadline_ms, Config::default().ask.deadline_ms);
    }

    #[test]
    fn unknown_names_are_refused_with_a_suggestion() {
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Pairs<'_>, Pairs<'_>, &str); 5] = [
            ("version = 1\n[network]\nprot = 1", &[], &[], "did you mean `network.port`?"),
            ("version = 1\n[netwrok]\nport = 1", &[], &[], "did you mean `network`?"),
            (
                "version = 1",
                &[("PEERPROOF_NETWORK_PROT", "1")],
                &[],
                "did you mean `PEERPROOF_NETWORK_PORT`?",
            ),
            ("version = 1", &[], &[("ask.levl", "full")], "did you mean `ask.level`?"),
            ("version = 1\nxyzzy = 1", &[], &[], "unknown setting `xyzzy`"),
        ];
        for (file, environment, flags, expected) in cases {
            let message = load(file, environment, flags).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn wrong_kinds_and_ranges_are_refused() {
        let cases = [
            ("version = 1\n[network]\nport = \"x\"", "network.port: expected integer, got string"),
            ("version = 2", "version: expected 1 to 1, got 2"),
            ("version = 1\n[firewall]\nrules = [\"deny me\"]", "firewall.rules: `me` names nobody"),
            ("[network]\nport = 1", "must begin with `version = 1`"),
            ("version = 1\n[provide]\nmax_jobs = 0", "provide.max_jobs: expected 1 to 256, got 0"),
            (
                "version = 1\n[ask]\nlevel = \"some\"",
                "expected receipt, sampled, light, spot, full or k_of_n",
            ),
            ("version = 1\n[network\n", "config.toml"),
        ];
        for (file, expected) in cases {
            let message = load(file, &[], &[]).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn lists_and_words_come_from_flags_as_people_write_them() {
        let flags =
            [("network.peers", "/ip4/127.0.0.1/tcp/1,/ip4/127.0.0.1/tcp/2"), ("ask.level", "full")];
        let config = load("version = 1", &[], &flags).unwrap();
        assert_eq!(config.network.peers.len(), 2);
        assert_eq!(config.ask.level, Level::Full);
    }

    #[test]
    fn the_written_form_reads_back() {
        let text = Config::default().to_toml();
        assert_eq!(load(&text, &[], &[]).unwrap(), Config::default());
    }

    #[test]
    fn a_missing_file_matters_only_if_named() {
        let none = Path::new("/nonexistent/config.toml");
        assert!(Config::load(none, false, &BTreeMap::new(), &[]).is_ok());
        assert!(matches!(
            Config::load(none, true, &BTreeMap::new(), &[]),
            Err(ConfigError::Io { .. })
        ));
    }
}
