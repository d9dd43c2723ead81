//! How the gateway listens and where its limits are.
//!
//! A [`GatewayConfig`] comes from a node's settings and is checked once by
//! [`GatewayConfig::check`], before a socket is opened. Every limit is finite.
//! The key is the one thing read from a file: a secret in a configuration or on
//! a command line would be seen by too many.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use peerproof::Settings;
use peerproof::client::Verification;
use peerproof::config::Config;
use subtle::ConstantTimeEq;

use crate::GatewayError;

/// A shared secret that clients present. Its text never shows in `Debug`.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; at least 16 visible ASCII characters.
    ///
    /// # Errors
    /// [`GatewayError::WeakKey`] for shorter keys and those that no header can carry.
    pub fn new(key: impl Into<String>) -> Result<ApiKey, GatewayError> {
        let key = key.into();
        let sendable = key.bytes().all(|b| b.is_ascii_graphic());
        if key.len() < MIN_KEY_BYTES || key.len() > MAX_KEY_BYTES || !sendable {
            return Err(GatewayError::WeakKey { least: MIN_KEY_BYTES, most: MAX_KEY_BYTES });
        }
        Ok(ApiKey(key))
    }

    /// Compares in time that depends on the lengths only.
    pub(crate) fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

const MIN_KEY_BYTES: usize = 16;
const MAX_KEY_BYTES: usize = 512;

/// Where to listen, whom to let in, and all limits.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Required from every client if set, and required to be set off loopback.
    pub api_key: Option<ApiKey>,
    /// Names in the `Host` header that are accepted beside `localhost` and
    /// loopback addresses, without port. Off loopback an empty list accepts any.
    pub allowed_hosts: Vec<String>,
    /// Web origins (`https://chat.example`) whose pages may call; `*` for all
    /// of them, which requires an API key.
    pub allowed_origins: Vec<String>,
    /// Whether `/log/` asks for no key.
    pub public_log: bool,
    /// Answers under way at once; more get status 429.
    pub max_in_flight: usize,
    /// Open connections; more wait in the operating system's backlog.
    pub max_connections: usize,
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// For the head of a request, and for a connection between two requests.
    pub header_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// For a client that has stopped reading.
    pub write_timeout: Duration,
    /// How long the status line waits for a provider to accept, so that an
    /// early failure has its own status; then the stream begins anyway.
    pub head_wait: Duration,
    /// Silence in a stream after which a comment line is sent.
    pub keep_alive: Duration,
    /// What running answers get to finish in after the order to stop.
    pub drain: Duration,
    /// How answers are checked when a request does not say.
    pub verification: Verification,
    /// Whether clients see peer ids, failover trails and paths of evidence
    /// files; `None` means on loopback only.
    pub expose_peers: Option<bool>,
}

impl GatewayConfig {
    /// The defaults, on `listen`.
    ///
    /// ```
    /// let config = peerproof_gateway::GatewayConfig::new(([127, 0, 0, 1], 8080).into());
    /// assert!(config.check().is_ok());
    /// ```
    pub fn new(listen: SocketAddr) -> GatewayConfig {
        GatewayConfig {
            listen,
            api_key: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            public_log: false,
            max_in_flight: 64,
            max_connections: 512,
            max_body_bytes: 4 << 20,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            head_wait: Duration::from_secs(10),
            keep_alive: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            verification: Verification::default(),
            expose_peers: None,
        }
    }

    /// What a node's settings say; the rest as in [`GatewayConfig::new`].
    ///
    /// # Errors
    /// An address that is none, a key file that cannot be read, a weak key.
    pub fn from_settings(settings: &Settings) -> Result<GatewayConfig, GatewayError> {
        GatewayConfig::from_config(&settings.config)
    }

    fn from_config(config: &Config) -> Result<GatewayConfig, GatewayError> {
        let api = &config.api;
        let listen =
            api.listen.parse().map_err(|_| GatewayError::Address { given: api.listen.clone() })?;
        let mut gateway = GatewayConfig::new(listen);
        gateway.api_key = match api.key_file.as_str() {
            "" => None,
            path => Some(read_key(Path::new(path))?),
        };
        gateway.max_in_flight = api.max_in_flight as usize;
        gateway.allowed_hosts.clone_from(&api.hosts);
        gateway.allowed_origins.clone_from(&api.origins);
        gateway.public_log = api.public_log;
        gateway.verification.level = config.ask.level;
        gateway.verification.mode = config.ask.mode;
        Ok(gateway)
    }

    /// Refuses what would open the machine to strangers or answer nobody.
    ///
    /// # Errors
    /// The first rule that is broken. Nothing is changed.
    pub fn check(&self) -> Result<(), GatewayError> {
        if !self.on_loopback() && self.api_key.is_none() {
            return Err(GatewayError::KeyRequired { listen: self.listen });
        }
        if self.api_key.is_none() && self.allowed_origins.iter().any(|o| o == "*") {
            return Err(GatewayError::OriginsRequireKey);
        }
        let limits = [
            ("max_in_flight", self.max_in_flight),
            ("max_connections", self.max_connections),
            ("max_body_bytes", self.max_body_bytes),
        ];
        for (limit, value) in limits {
            if value == 0 || value > MAX_LIMIT {
                return Err(GatewayError::Limit { limit, value, most: MAX_LIMIT });
            }
        }
        Ok(())
    }

    pub(crate) fn on_loopback(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    pub(crate) fn exposes_peers(&self) -> bool {
        self.expose_peers.unwrap_or_else(|| self.on_loopback())
    }
}

/// The first line of a small file.
fn read_key(path: &Path) -> Result<ApiKey, GatewayError> {
    let failed = |source| GatewayError::KeyFile { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_KEY_BYTES as u64 + 2).read_to_string(&mut text).map_err(failed)?;
    ApiKey::new(text.trim())
}

/// Above this a limit limits nothing.
const MAX_LIMIT: usize = 1 << 28;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test states what must hold")]
mod tests {
    use peerproof::client::Level;

    use super::*;

    fn on(listen: &str) -> GatewayConfig {
        GatewayConfig::new(listen.parse().unwrap())
    }

    #[test]
    fn strangers_need_a_key() {
        for listen in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:0"] {
            assert!(on(listen).check().is_ok(), "{listen}");
        }
        for listen in ["0.0.0.0:0", "192.168.1.2:80", "[::]:0", "[::ffff:127.0.0.1]:0"] {
            let mut config = on(listen);
            assert!(matches!(config.check(), Err(GatewayError::KeyRequired { .. })), "{listen}");
            config.api_key = Some(ApiKey::new("sixteen-letters!").unwrap());
            assert!(config.check().is_ok(), "{listen}");
        }
    }

    #[test]
    fn every_website_may_call_only_with_a_key() {
        let mut config = on("127.0.0.1:0");
        config.allowed_origins = vec!["*".into()];
        assert!(matches!(config.check(), Err(GatewayError::OriginsRequireKey)));
    }

    #[test]
    fn limits_are_finite_and_not_zero() {
        for value in [0, usize::MAX] {
            let mut config = on("127.0.0.1:0");
            config.max_in_flight = value;
            assert!(matches!(config.check(), Err(GatewayError::Limit { .. })));
        }
    }

    #[test]
    fn keys_are_long_and_silent() {
        for weak in ["", "fifteen-letters", "with a space in it", "sixteen\nletters!"] {
            assert!(ApiKey::new(weak).is_err(), "{weak:?}");
        }
        let key = ApiKey::new("sixteen-letters!").unwrap();
        assert!(!format!("{key:?}").contains("sixteen"));
        assert!(key.matches(b"sixteen-letters!"));
        assert!(!key.matches(b"sixteen-letters?"));
        assert!(!key.matches(b""));
    }

    #[test]
    fn a_nodes_configuration_is_taken_over() {
        let key_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(key_file.path(), "sixteen-letters!\n").unwrap();
        let mut config = Config::default();
        config.api.key_file = key_file.path().to_str().unwrap().into();
        config.api.max_in_flight = 3;
        config.ask.level = Level::Full;
        let gateway = GatewayConfig::from_config(&config).unwrap();
        assert_eq!(gateway.listen, config.api.listen.parse().unwrap());
        assert!(gateway.api_key.unwrap().matches(b"sixteen-letters!"));
        assert_eq!(gateway.max_in_flight, 3);
        assert_eq!(gateway.verification.level, Level::Full);
    }

    #[test]
    fn a_configuration_that_cannot_be_served_says_which_setting() {
        let check = |change: fn(&mut Config), wanted: &str| {
            let mut config = Config::default();
            change(&mut config);
            let said = GatewayConfig::from_config(&config).unwrap_err().to_string();
            assert!(said.starts_with(wanted), "{said}");
        };
        check(|config| config.api.listen = "nowhere".into(), "api.listen");
        check(|config| config.api.key_file = "/nonexistent/key".into(), "api.key_file");
        check(|config| config.api.key_file = "/dev/null".into(), "an API key has");
    }
}
