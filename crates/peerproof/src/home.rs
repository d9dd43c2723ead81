//! Where a node keeps its things, and its key.
//!
//! Three roots, after the XDG base directory specification: configuration,
//! data (key, log, evidence: what must survive) and cache (models: what can be
//! fetched again). `--home DIR` puts configuration and data under one folder,
//! which is how several nodes live on one machine; the cache stays shared.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use peerproof_identity::{Keypair, PeerId};

/// Why the home or its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// Neither `HOME` nor the XDG variables are set.
    #[error("no home directory: set HOME, or name a folder with --home")]
    NoHome,
    /// A file or folder could not be used.
    #[error("{path}: {source}; check that it exists, is writable and that the disk is not full")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key file is not a key.
    #[error(
        "{path}: expected 64 hex digits, got {got} bytes; restore it from a backup, or move it away to start as a new node"
    )]
    BadKey {
        /// The key file.
        path: PathBuf,
        /// Its length.
        got: usize,
    },
    /// The key file can be read by others.
    #[error("{path}: mode is {mode:o}, others can read this key; run: chmod 600 {path}")]
    OpenKey {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// The folders of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
}

/// What a [`Home`] is found from: the variables of the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache_home: Option<PathBuf>,
}

impl Environment {
    /// Reads the process's environment. Relative XDG paths are ignored, as their specification says.
    #[must_use]
    pub fn read() -> Environment {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        Environment {
            home: absolute("HOME"),
            xdg_config_home: absolute("XDG_CONFIG_HOME"),
            xdg_data_home: absolute("XDG_DATA_HOME"),
            xdg_cache_home: absolute("XDG_CACHE_HOME"),
        }
    }
}

impl Home {
    /// Finds the folders; nothing is created. `home` and `cache` are the user's own choices.
    ///
    /// # Errors
    /// [`HomeError::NoHome`] when a folder can be derived from nothing.
    pub fn find(
        home: Option<&Path>,
        cache: Option<&Path>,
        environment: &Environment,
    ) -> Result<Home, HomeError> {
        let under = |xdg: &Option<PathBuf>, fallback: &str| {
            let base = match (xdg, &environment.home) {
                (Some(xdg), _) => xdg.clone(),
                (None, Some(home)) => home.join(fallback),
                (None, None) => return Err(HomeError::NoHome),
            };
            Ok(base.join("peerproof"))
        };
        let cache = match cache {
            Some(cache) => cache.to_owned(),
            None => under(&environment.xdg_cache_home, ".cache")?,
        };
        Ok(match home {
            Some(home) => Home { config: home.to_owned(), data: home.to_owned(), cache },
            None => Home {
                config: under(&environment.xdg_config_home, ".config")?,
                data: under(&environment.xdg_data_home, ".local/share")?,
                cache,
            },
        })
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The rules that the command `firewall` has set.
    #[must_use]
    pub fn firewall_file(&self) -> PathBuf {
        self.config.join("firewall.rules")
    }

    /// The models' folder.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.cache.join("models")
    }

    /// The folder of what light audits keep of models: secret, one file a model.
    #[must_use]
    pub fn sketches(&self) -> PathBuf {
        self.cache.join("sketches")
    }

    /// The log's folder of one key: a rotated key starts a new log.
    #[must_use]
    pub fn log(&self, key: &PeerId) -> PathBuf {
        self.data.join("log").join(key.to_string())
    }

    /// The folder of all logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.data.join("log")
    }

    /// What this node saw of other logs, as their witness under one key.
    #[must_use]
    pub fn witnessed(&self, key: &PeerId) -> PathBuf {
        self.data.join("witness").join(key.to_string())
    }

    /// What this node has seen others sign, to be compared.
    #[must_use]
    pub fn seen(&self) -> PathBuf {
        self.data.join("seen")
    }

    /// The folder of evidence files.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.data.join("evidence")
    }

    /// The folder of papers of answers whose checks are not done.
    #[must_use]
    pub fn papers(&self) -> PathBuf {
        self.data.join("papers")
    }

    /// The node key.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.data.join("keys").join("node.key")
    }

    /// The socket address file of the running node's API.
    #[must_use]
    pub fn api_file(&self) -> PathBuf {
        self.data.join("api.json")
    }

    /// Reads the node key, making it on the first start.
    ///
    /// # Errors
    /// When it cannot be read or written, is malformed, or is readable by others.
    pub fn key(&self) -> Result<Keypair, HomeError> {
        let path = self.key_file();
        match read_key(&path) {
            Err(HomeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create_key(&path)?;
                read_key(&path)
            }
            other => other,
        }
    }

    /// Puts a new key in place and keeps the old one under `keys/retired/`, so that what it
    /// signed can still be told apart. Returns the old and the new peer id.
    ///
    /// # Errors
    /// As [`Home::key`].
    pub fn rotate_key(&self) -> Result<(PeerId, PeerId), HomeError> {
        let old = self.key()?.public().peer_id();
        let path = self.key_file();
        let retired = path.with_file_name("retired");
        make_private_dir(&retired)?;
        let kept = retired.join(format!("{old}.key"));
        fs::copy(&path, &kept).map_err(|source| HomeError::Io { path: kept.clone(), source })?;
        let seed = random_seed();
        let fresh = beside(&path);
        write_key(&fresh, &seed)?;
        fs::rename(&fresh, &path).map_err(|source| HomeError::Io { path, source })?;
        Ok((old, Keypair::from_seed(&seed).public().peer_id()))
    }
}

/// A key that lives as long as this process: what a router shows to providers.
#[must_use]
pub fn session_key() -> Keypair {
    Keypair::from_seed(&random_seed())
}

/// 32 bytes from the operating system.
///
/// # Panics
/// If the system has no entropy source: nothing a node does would be safe without one.
#[must_use]
pub fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system provides random bytes");
    seed
}

/// Makes a folder that only its owner can enter, with its parents.
///
/// # Errors
/// What the system says.
pub fn make_private_dir(path: &Path) -> Result<(), HomeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| HomeError::Io { path: path.to_owned(), source })
}

fn read_key(path: &Path) -> Result<Keypair, HomeError> {
    let io = |source| HomeError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(HomeError::OpenKey { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let bad = |got| HomeError::BadKey { path: path.to_owned(), got };
    Read::by_ref(&mut file).take(129).read_to_string(&mut text).map_err(|_| bad(0))?;
    let seed = parse_seed(text.trim_end()).ok_or(bad(text.len()))?;
    Ok(Keypair::from_seed(&seed))
}

/// Whole or not at all: two first starts at once agree on one key.
fn create_key(path: &Path) -> Result<(), HomeError> {
    let fresh = beside(path);
    write_key(&fresh, &random_seed())?;
    let linked = fs::hard_link(&fresh, path);
    let _ = fs::remove_file(&fresh);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| HomeError::Io { path: path.to_owned(), source }),
    }
}

/// A name that nobody else uses, in the same folder.
fn beside(path: &Path) -> PathBuf {
    let unique: String = random_seed().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    path.with_extension(unique)
}

fn write_key(path: &Path, seed: &[u8; 32]) -> Result<(), HomeError> {
    if let Some(parent) = path.parent() {
        make_private_dir(parent)?;
    }
    let io = |source| HomeError::Io { path: path.to_owned(), source };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    file.write_all(hex.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(io)?;
    file.sync_all().map_err(io)
}

fn parse_seed(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut seed = [0; 32];
    for (byte, digits) in seed.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]
    use super::*;

    fn home(dir: &Path) -> Home {
        Home::find(Some(dir), Some(dir), &Environment::default()).unwrap()
    }

    #[test]
    fn key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let first = home.key().unwrap().public();
        assert_eq!(home.key().unwrap().public(), first);
        let mode = fs::metadata(home.key_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn first_starts_at_once_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..8).map(|_| scope.spawn(|| home.key().unwrap().public())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(fs::read_dir(home.key_file().parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn key_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        home.key().unwrap();
        fs::set_permissions(home.key_file(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(home.key(), Err(HomeError::OpenKey { mode: 0o640, .. })));
    }

    #[test]
    fn garbage_in_place_of_a_key_is_kept_and_refused() {
        for garbage in ["", "zz", &"g".repeat(64), &"a".repeat(200), "é".repeat(32).as_str()] {
            let dir = tempfile::tempdir().unwrap();
            let home = home(dir.path());
            home.key().unwrap();
            fs::write(home.key_file(), garbage).unwrap();
            assert!(matches!(home.key(), Err(HomeError::BadKey { .. })), "{garbage:?}");
            assert_eq!(fs::read_to_string(home.key_file()).unwrap(), garbage);
        }
    }

    #[test]
    fn rotation_keeps_the_old_key() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let before = home.key().unwrap().public().peer_id();
        let (old, new) = home.rotate_key().unwrap();
        assert_eq!(old, before);
        assert_ne!(old, new);
        assert_eq!(home.key().unwrap().public().peer_id(), new);
        let kept = home.key_file().with_file_name("retired").join(format!("{old}.key"));
        assert_eq!(read_key(&kept).unwrap().public().peer_id(), old);
    }

    #[test]
    fn folders_follow_xdg() {
        let environment = Environment {
            home: Some("/h".into()),
            xdg_data_home: Some("/d".into()),
            ..Environment::default()
        };
        let home = Home::find(None, None, &environment).unwrap();
        assert_eq!(home.config_file(), Path::new("/h/.config/peerproof/config.toml"));
        assert_eq!(home.evidence(), Path::new("/d/peerproof/evidence"));
        assert_eq!(home.models(), Path::new("/h/.cache/peerproof/models"));
        assert!(matches!(Home::find(None, None, &Environment::default()), Err(HomeError::NoHome)));
    }
}
