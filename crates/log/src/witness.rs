//! Witnesses: others who vouch that a log only grew.
//!
//! A log sends its checkpoint with the proof that it continues the last one the
//! witness saw ([`AddCheckpoint`], <https://c2sp.org/tlog-witness>); the witness
//! answers with a cosignature (<https://c2sp.org/tlog-cosignature>). A log that is
//! put back to an earlier state, or shows two people two histories, finds no
//! witness that goes along: [`Witness::consider`] refuses it, with a [`Fork`] where
//! two signed checkpoints prove it. What a witness saw is kept on disk by the
//! caller between `consider` and [`Witness::cosign`], never after. Absent: the
//! disk, the clock (the time is an argument), and which logs are worth witnessing.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use peerproof_identity::{Keypair, PeerId, PublicKey, Signature};

use crate::checkpoint::{CheckpointError, SignedCheckpoint, decimal};
use crate::error::{ProofError, hex};
use crate::limits::{MAX_ADD_CHECKPOINT_BYTES, MAX_WITNESSED_LOGS};
use crate::note::{NoteError, NoteSignature, key_hash_of};
use crate::tree::{Hash, prefix_root, verify_consistency};

/// The kind of signature: an Ed25519 cosignature with a time.
const COSIGNATURE: u8 = 0x04;

/// Hashes no consistency proof exceeds.
const MAX_PATH: usize = 63;

const NAME_PREFIX: &str = "peerproof.witness/";

/// The key name under which a peer cosigns.
pub fn name(peer: &PeerId) -> String {
    format!("{NAME_PREFIX}{peer}")
}

/// The peer whose cosignatures have this key name.
pub fn peer_of(key_name: &str) -> Option<PeerId> {
    let peer = key_name.strip_prefix(NAME_PREFIX)?.parse().ok()?;
    (name(&peer) == key_name).then_some(peer)
}

/// What a cosignature signs.
fn message(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// Cosigns the text of a checkpoint at `time`, in seconds since 1970.
fn sign(text: &str, time: u64, key: &Keypair) -> Result<NoteSignature, CheckpointError> {
    let signature =
        key.sign_note(message(text, time).as_bytes()).map_err(|_| NoteError::Characters)?;
    let public = key.public();
    let name = name(&public.peer_id());
    Ok(NoteSignature {
        key_hash: key_hash_of(&name, COSIGNATURE, &public),
        name,
        bytes: [time.to_be_bytes().as_slice(), signature.as_bytes()].concat(),
    })
}

/// The time at which `witness` cosigned the checkpoint, in seconds since 1970.
///
/// # Errors
/// [`NoteError`] if there is no cosignature of that witness, or one that does
/// not hold.
pub fn cosigned(checkpoint: &SignedCheckpoint, witness: &PublicKey) -> Result<u64, NoteError> {
    let name = name(&witness.peer_id());
    let hash = key_hash_of(&name, COSIGNATURE, witness);
    let lines = checkpoint.signatures()?;
    let mut own = lines.iter().filter(|line| line.name == name && line.key_hash == hash);
    let (Some(line), None) = (own.next(), own.next()) else {
        return Err(NoteError::Unsigned { name });
    };
    let Some((time, signature)) = line.bytes.split_first_chunk() else {
        return Err(NoteError::Unsigned { name });
    };
    let time = u64::from_be_bytes(*time);
    let signature = Signature::from_bytes(signature)?;
    witness.verify_note(message(&checkpoint.checkpoint().text(), time).as_bytes(), &signature)?;
    Ok(time)
}

/// A log's request to be cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Entries in the checkpoint that the witness cosigned last; 0 for none.
    pub old: u64,
    /// The proof that the checkpoint continues that one.
    pub path: Vec<Hash>,
    /// The signed note.
    pub checkpoint: Vec<u8>,
}

impl AddCheckpoint {
    /// The body of the request.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("old {}\n", self.old);
        for hash in &self.path {
            head.push_str(&BASE64.encode(hash));
            head.push('\n');
        }
        head.push('\n');
        [head.as_bytes(), &self.checkpoint].concat()
    }

    /// Reads the body of a request; only what [`AddCheckpoint::to_bytes`] writes.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] names the line.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let wrong = |line| Refusal::Malformed { line };
        if body.len() > MAX_ADD_CHECKPOINT_BYTES {
            return Err(wrong(0));
        }
        let mut lines = body.split_inclusive(|&byte| byte == b'\n');
        let mut next = |at| {
            let line = lines.next().and_then(|line| line.strip_suffix(b"\n")).ok_or(wrong(at))?;
            std::str::from_utf8(line).map_err(|_| wrong(at))
        };
        let old = next(0)?.strip_prefix("old ").and_then(decimal).ok_or(wrong(0))?;
        let mut path = Vec::new();
        loop {
            let at = path.len() + 1;
            let line = next(at)?;
            if line.is_empty() {
                break;
            }
            let hash = BASE64.decode(line).ok().and_then(|hash| hash.try_into().ok());
            path.push(hash.filter(|_| path.len() < MAX_PATH).ok_or(wrong(at))?);
        }
        Ok(Self { old, path, checkpoint: lines.collect::<Vec<_>>().concat() })
    }
}

/// One who cosigns logs.
#[derive(Debug)]
pub struct Witness {
    key: Arc<Keypair>,
    seen: BTreeMap<PeerId, SignedCheckpoint>,
    limit: usize,
}

/// A checkpoint that continues what the witness saw: to be kept on disk, then
/// handed to [`Witness::cosign`].
#[derive(Debug)]
#[must_use = "nothing is cosigned until it was stored"]
pub struct Advance {
    old: u64,
    checkpoint: SignedCheckpoint,
}

impl Advance {
    /// The signed note to be kept.
    pub fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }
}

impl Witness {
    /// The witness of `key`, with the last checkpoint of each log it cosigned.
    pub fn new(key: Arc<Keypair>, seen: impl IntoIterator<Item = SignedCheckpoint>) -> Self {
        let seen = seen.into_iter().map(|seen| (seen.signer().peer_id(), seen)).collect();
        Self { key, seen, limit: MAX_WITNESSED_LOGS }
    }

    /// Follows at most so many logs; never more than [`MAX_WITNESSED_LOGS`].
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit.min(MAX_WITNESSED_LOGS);
        self
    }

    /// How many logs it follows.
    pub fn followed(&self) -> usize {
        self.seen.len()
    }

    /// The last checkpoint of a peer's log that was cosigned.
    pub fn last(&self, log: &PeerId) -> Option<&SignedCheckpoint> {
        self.seen.get(log)
    }

    /// Whether the checkpoint can be cosigned. Changes nothing.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn consider(&self, request: &AddCheckpoint) -> Result<Advance, Refusal> {
        let checkpoint =
            SignedCheckpoint::open(&request.checkpoint).map_err(|error| match error {
                CheckpointError::Origin { got } => Refusal::Unknown { origin: got },
                CheckpointError::Note(NoteError::Unsigned { .. } | NoteError::Signature(_)) => {
                    Refusal::Unsigned
                }
                other => Refusal::Checkpoint(other),
            })?;
        if request.old > checkpoint.size() {
            return Err(Refusal::Shrinks { old: request.old, size: checkpoint.size() });
        }
        let log = checkpoint.signer().peer_id();
        let last = self.seen.get(&log);
        if let Some(last) = last
            && let Some(fork) = Fork::between(last, &checkpoint)
        {
            return Err(Refusal::Fork(Box::new(fork)));
        }
        self.check_old(&log, request.old)?;
        if last.is_none() && self.seen.len() >= self.limit {
            return Err(Refusal::Full { limit: self.limit });
        }
        let empty = crate::tree::empty_root();
        let old_root = last.map_or(&empty, SignedCheckpoint::root);
        let size = checkpoint.size();
        verify_consistency(request.old, old_root, size, checkpoint.root(), &request.path)
            .map_err(Refusal::Inconsistent)?;
        Ok(Advance { old: request.old, checkpoint })
    }

    /// Cosigns at `time`, in seconds since 1970, what was stored.
    ///
    /// # Errors
    /// [`Refusal::Stale`] if another checkpoint of this log was cosigned since
    /// [`Witness::consider`].
    pub fn cosign(&mut self, advance: Advance, time: u64) -> Result<NoteSignature, Refusal> {
        let Advance { old, checkpoint } = advance;
        let log = checkpoint.signer().peer_id();
        self.check_old(&log, old)?;
        let line = sign(&checkpoint.checkpoint().text(), time, &self.key)?;
        self.seen.insert(log, checkpoint);
        Ok(line)
    }

    fn check_old(&self, log: &PeerId, old: u64) -> Result<(), Refusal> {
        let size = self.seen.get(log).map_or(0, SignedCheckpoint::size);
        if size == old { Ok(()) } else { Err(Refusal::Stale { size }) }
    }
}

/// Two checkpoints of one log that no single history has: proof, to anyone, that
/// its key keeps two. Either they have one size and different roots; or a path from
/// the second, larger one shows that it holds another beginning than the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    first: SignedCheckpoint,
    second: SignedCheckpoint,
    path: Vec<Hash>,
}

impl Fork {
    /// The fork that two checkpoints prove, if they do.
    pub fn between(first: &SignedCheckpoint, second: &SignedCheckpoint) -> Option<Self> {
        let same = first.signer() == second.signer() && first.size() == second.size();
        (same && first.root() != second.root()).then(|| Self {
            first: first.clone(),
            second: second.clone(),
            path: Vec::new(),
        })
    }

    /// The fork of two checkpoints, if `path` proves it: see [`prefix_root`], and none
    /// if both have one size.
    ///
    /// # Errors
    /// [`ForkError`] if they are of two logs, of one history, or the path is another's.
    pub fn prove(
        first: &SignedCheckpoint,
        second: &SignedCheckpoint,
        path: &[Hash],
    ) -> Result<Self, ForkError> {
        if first.signer() != second.signer() {
            let (expected, got) = (first.signer().peer_id(), second.signer().peer_id());
            return Err(CheckpointError::Key { expected, got }.into());
        }
        let (from, to) = (first.size(), second.size());
        let held = match from.cmp(&to) {
            std::cmp::Ordering::Equal if path.is_empty() => *second.root(),
            std::cmp::Ordering::Equal => {
                return Err(ProofError::PathLength { got: path.len() }.into());
            }
            _ => prefix_root(from, to, second.root(), path)?,
        };
        if held == *first.root() {
            return Err(ForkError::OneHistory { first: from, second: to });
        }
        Ok(Self { first: first.clone(), second: second.clone(), path: path.to_vec() })
    }

    /// What the second checkpoint holds of the first; empty if both have one size.
    pub fn path(&self) -> &[Hash] {
        &self.path
    }

    /// Whose log it is.
    pub fn signer(&self) -> PublicKey {
        self.first.signer()
    }

    /// The two checkpoints.
    pub fn checkpoints(&self) -> [&SignedCheckpoint; 2] {
        [&self.first, &self.second]
    }
}

/// Why two checkpoints are no fork.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForkError {
    /// One of them is no checkpoint, is not signed, or is another log's.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The path does not belong to the second one.
    #[error("path: {0}")]
    Path(#[from] ProofError),
    /// One history has both.
    #[error("expected two histories, got one: {first} entries, continued to {second}")]
    OneHistory {
        /// Entries of the first.
        first: u64,
        /// Entries of the second.
        second: u64,
    },
}

/// Why a checkpoint is not cosigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a request.
    #[error("line {line}: expected the old size, hashes, an empty line and a checkpoint")]
    Malformed {
        /// Counts lines from 0.
        line: usize,
    },
    /// Not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Not the log of a peer.
    #[error("log: expected a peer's, got {origin:?}")]
    Unknown {
        /// Its name.
        origin: String,
    },
    /// The log's key did not sign it.
    #[error("checkpoint: expected a signature by the log's key")]
    Unsigned,
    /// Smaller than what it is said to continue.
    #[error("checkpoint: expected at least the old size {old}, got {size}")]
    Shrinks {
        /// The size it should continue.
        old: u64,
        /// Its own.
        size: u64,
    },
    /// The last checkpoint that was cosigned has another size.
    #[error("old size: expected {size}, the last one cosigned")]
    Stale {
        /// The size cosigned last.
        size: u64,
    },
    /// The checkpoint does not continue the last one.
    #[error("the checkpoint does not continue the last one: {0}")]
    Inconsistent(ProofError),
    /// The log signed another root for the same size.
    #[error(
        "two histories: {} entries with root {} and with root {}",
        .0.first.size(), hex(.0.first.root()), hex(.0.second.root())
    )]
    Fork(Box<Fork>),
    /// No room for another log.
    #[error("this witness follows {limit} logs and takes no more")]
    Full {
        /// The most logs.
        limit: usize,
    },
}

impl Refusal {
    /// The HTTP status that the protocol names for it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed { .. } | Self::Checkpoint(_) | Self::Shrinks { .. } => 400,
            Self::Unsigned => 403,
            Self::Unknown { .. } => 404,
            Self::Stale { .. } | Self::Fork(_) => 409,
            Self::Inconsistent(_) => 422,
            Self::Full { .. } => 503,
        }
    }
}
