//! A model file from a hub: `BASE/OWNER/REPOSITORY/resolve/REVISION/FILE`.
//!
//! A first request without following redirects reads what the hub says of the
//! file (SHA-256 in `x-linked-etag`, size in `x-linked-size`); the second
//! fetches it, from where an earlier attempt stopped if the hub still has the
//! same file. `NAME.part-of` says of which file the part is: the hub's tag, and
//! the `etag` under which the bytes came. No credentials are sent.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use peerproof_wire::ModelId;
use sha2::{Digest as _, Sha256};

use super::{ModelError, Progress, Stage, Watch};

const CONNECT: Duration = Duration::from_secs(15);
const RESPONSE: Duration = Duration::from_secs(30);
/// A body that yields nothing for so long is given up; the next pull continues it.
const STALL: Duration = Duration::from_secs(30);
/// In silence whoever watches is asked so often whether to go on.
const ASK: Duration = Duration::from_millis(100);
/// Larger files are refused before a byte of them is stored.
const MAX_FILE_BYTES: u64 = 1 << 40;

/// What the hub says of a file before it sends it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    sha256: Option<String>,
    size: Option<u64>,
    etag: Option<String>,
}

pub(super) fn fetch(
    base: &str,
    repository: &str,
    file: &str,
    revision: &str,
    part: &Path,
    watch: Watch<'_>,
) -> Result<ModelId, ModelError> {
    let url = format!("{base}/{repository}/resolve/{revision}/{file}");
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(RESPONSE))
        .http_status_as_error(false)
        .user_agent(concat!("peerproof/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let facts = ask(&agent, &url)?;
    let tag_file = part.with_extension("part-of");
    let tag = facts.sha256.clone().or_else(|| facts.etag.clone()).unwrap_or_default();
    let begun = begun(part, &tag_file, &tag)?;
    if facts.size.is_none_or(|size| begun.have < size) {
        download(&agent, &url, &facts, &begun, part, watch)?;
    }
    let id = check(&url, &facts, part, watch);
    if !matches!(id, Err(ModelError::WrongSize { .. } | ModelError::Cancelled)) {
        let _ = fs::remove_file(&tag_file);
    }
    id
}

/// What an earlier attempt left.
struct Begun {
    have: u64,
    /// `etag` of the response the bytes came with; empty if it had none that can be compared.
    etag: String,
    tag: String,
    tag_file: PathBuf,
}

impl Begun {
    /// Notes whose bytes the part holds from here on.
    fn note(&self, etag: &str) -> Result<(), ModelError> {
        fs::write(&self.tag_file, format!("{}\n{etag}", self.tag))
            .map_err(|source| ModelError::Io { path: self.tag_file.clone(), source })
    }
}

/// The part, if it is of the file that `tag` stands for; otherwise it is gone before the tag is
/// written, so that a tag never stands beside another file's bytes.
fn begun(part: &Path, tag_file: &Path, tag: &str) -> Result<Begun, ModelError> {
    let noted = fs::read_to_string(tag_file).unwrap_or_default();
    let (noted, etag) = noted.split_once('\n').unwrap_or((&noted, ""));
    let same = !tag.is_empty() && noted == tag;
    let mut begun =
        Begun { have: 0, etag: etag.into(), tag: tag.into(), tag_file: tag_file.into() };
    if same {
        begun.have = fs::metadata(part).map_or(0, |m| m.len());
        return Ok(begun);
    }
    match fs::remove_file(part) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(ModelError::Io { path: part.to_owned(), source });
        }
        _ => {}
    }
    begun.note("")?;
    Ok(begun)
}

fn ask(agent: &ureq::Agent, url: &str) -> Result<Facts, ModelError> {
    let response = agent
        .head(url)
        .config()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .call()
        .map_err(|e| failed(url, e.to_string()))?;
    let status = response.status().as_u16();
    let header = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.trim_start_matches("W/").trim_matches('"').to_owned())
    };
    match status {
        200..=399 => {}
        401 | 403 => {
            return Err(failed(
                url,
                format!(
                    "status {status}: this repository needs a login; download the file yourself and pull it by its path"
                ),
            ));
        }
        404 => return Err(failed(url, "status 404: no such repository, revision or file".into())),
        _ => return Err(failed(url, format!("status {status}"))),
    }
    let sha256 = header("x-linked-etag")
        .filter(|t| t.len() == 64 && t.bytes().all(|b| b.is_ascii_hexdigit()));
    let size = header("x-linked-size")
        .or_else(|| header("content-length").filter(|_| status == 200))
        .and_then(|size| size.parse().ok());
    if let Some(size) = size.filter(|size| *size > MAX_FILE_BYTES) {
        return Err(failed(url, format!("{size} bytes are more than {MAX_FILE_BYTES}")));
    }
    Ok(Facts { sha256, size, etag: header("etag") })
}

fn download(
    agent: &ureq::Agent,
    url: &str,
    facts: &Facts,
    begun: &Begun,
    part: &Path,
    watch: Watch<'_>,
) -> Result<(), ModelError> {
    let call = |request: ureq::RequestBuilder<_>| {
        request.call().map_err(|error| failed(url, error.to_string()))
    };
    let mut response = call(if begun.have == 0 {
        agent.get(url)
    } else if begun.etag.is_empty() {
        agent.get(url).header("range", format!("bytes={}-", begun.have))
    } else {
        let range = format!("bytes={}-", begun.have);
        agent.get(url).header("range", range).header("if-range", &begun.etag)
    })?;
    // Nothing lies behind what is here: it may be whole or another file's, so start over.
    if begun.have > 0 && response.status().as_u16() == 416 {
        response = call(agent.get(url))?;
    }
    let mut done = match response.status().as_u16() {
        206 if begun.have > 0 => begun.have,
        200 => 0,
        status => return Err(failed(url, format!("status {status}"))),
    };
    let io = |source| ModelError::Io { path: part.to_owned(), source };
    let mut file = OpenOptions::new()
        .create(true)
        .append(done > 0)
        .write(true)
        .truncate(done == 0)
        .open(part)
        .map_err(io)?;
    if done == 0 {
        // Only a strong one promises the same bytes.
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        begun.note(etag.filter(|etag| etag.starts_with('"')).unwrap_or_default())?;
    }
    let limit = facts.size.unwrap_or(MAX_FILE_BYTES).saturating_sub(done);
    let chunks = read_ahead(response.into_body().into_reader().take(limit + 1));
    let mut silent = Duration::ZERO;
    loop {
        let chunk = match chunks.recv_timeout(ASK) {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(error)) => {
                return Err(failed(url, format!("{error}; run the command again to continue")));
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if silent < STALL => {
                silent += ASK;
                Vec::new()
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(failed(
                    url,
                    format!(
                        "nothing arrived for {} s; run the command again to continue",
                        STALL.as_secs()
                    ),
                ));
            }
        };
        if !chunk.is_empty() {
            silent = Duration::ZERO;
        }
        file.write_all(&chunk).map_err(io)?;
        done += chunk.len() as u64;
        if watch(Progress { stage: Stage::Fetching, done, total: facts.size }).is_break() {
            return Err(ModelError::Cancelled);
        }
    }
    file.sync_all().map_err(io)
}

/// Reads in a thread of its own, so that a silent server can be noticed.
fn read_ahead(mut body: impl Read + Send + 'static) -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 17];
        loop {
            let chunk = match body.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => Ok(buffer[..n].to_vec()),
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            if sender.send(chunk).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

fn check(url: &str, facts: &Facts, part: &Path, watch: Watch<'_>) -> Result<ModelId, ModelError> {
    let io = |source| ModelError::Io { path: part.to_owned(), source };
    let mut file = File::open(part).map_err(io)?;
    let total = file.metadata().map_err(io)?.len();
    if let Some(expected) = facts.size.filter(|size| *size != total) {
        if total > expected {
            let _ = fs::remove_file(part);
        }
        return Err(ModelError::WrongSize { what: url.into(), expected, got: total });
    }
    let (mut id, mut sha256) = (blake3::Hasher::new(), Sha256::new());
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    loop {
        let n = file.read(&mut buffer).map_err(io)?;
        if n == 0 {
            break;
        }
        id.update(&buffer[..n]);
        sha256.update(&buffer[..n]);
        done += n as u64;
        if watch(Progress { stage: Stage::Hashing, done, total: Some(total) }).is_break() {
            return Err(ModelError::Cancelled);
        }
    }
    let got = hex(&sha256.finalize());
    if let Some(expected) =
        facts.sha256.as_ref().filter(|expected| !expected.eq_ignore_ascii_case(&got))
    {
        let _ = fs::remove_file(part);
        return Err(ModelError::WrongDigest {
            what: url.into(),
            algorithm: "SHA-256",
            expected: expected.clone(),
            got,
        });
    }
    Ok(ModelId::from(*id.finalize().as_bytes()))
}

fn failed(url: &str, message: String) -> ModelError {
    ModelError::Hub { url: url.to_owned(), message }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a path or revision can stand in a URL as it is.
pub(super) fn is_plain(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '+');
    !path.is_empty()
        && path.len() <= 512
        && path.chars().all(plain)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}
