//! Comparing what providers sign: receipts by number, checkpoints by history.
//!
//! Receipts that reach this node, as a router or an auditor, are remembered by key and
//! number, a bounded number of them, in memory and in two files of which the older one
//! goes when the newer is full. A second receipt under a number is a proof. Of each
//! provider's log the newest checkpoint is remembered; a newer one must continue it,
//! which the provider's own tiles show: from them follows either the growth, or another
//! beginning, and that is a proof too. Nothing here judges answers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerproof_identity::PeerId;
use peerproof_log::{Fork, Hash, Nodes as _, ProofError, Resource, SignedCheckpoint, Tiles};
use peerproof_net::Handle;
use peerproof_proof::evidence::from_receipts;
use peerproof_wire::frame::{self, Decoder};
use peerproof_wire::{Envelope, LogReply, LogRequest, Message as _, Receipt, Signed};
use tokio::time::Instant;

use super::docket::Docket;
use super::logs::Talk;
use crate::portable;

/// Receipts remembered; at most twice as many are on disk.
const MAX_RECEIPTS: usize = 16_384;
/// Bytes of one file of receipts that are read again.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Logs whose newest checkpoint is remembered.
const MAX_LOGS: usize = 4096;
/// A provider's growth is looked at no more often.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

type Number = (PeerId, u64);

#[derive(Default)]
struct Seen {
    receipts: HashMap<Number, Signed<Receipt>>,
    /// Oldest first.
    order: VecDeque<Number>,
    logs: BTreeMap<PeerId, (SignedCheckpoint, Option<Instant>)>,
    /// The file being written, and how many receipts are in it.
    file: Option<(File, usize)>,
}

/// What a node has seen others sign.
pub(crate) struct Watch {
    folder: PathBuf,
    docket: Arc<Docket>,
    net: Handle,
    seen: Mutex<Seen>,
}

impl Watch {
    /// Reads what was remembered in `folder`; what can't be read is forgotten.
    pub(super) async fn open(folder: PathBuf, docket: Arc<Docket>, net: Handle) -> Arc<Watch> {
        let from = folder.clone();
        let seen = tokio::task::spawn_blocking(move || Seen::open(&from)).await;
        let seen = Mutex::new(seen.unwrap_or_default());
        Arc::new(Watch { folder, docket, net, seen })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares a receipt with the others of its key. A second one under its number is taken
    /// to the docket.
    pub(super) async fn receipt(&self, receipt: &Signed<Receipt>) {
        let proof = {
            let mut seen = self.seen();
            let other = seen.remember(receipt);
            if other.is_none() {
                seen.write(&self.folder, receipt);
            }
            other.and_then(|other| from_receipts(&other, receipt).ok())
        };
        if let Some(proof) = proof {
            self.docket.found(proof).await;
        }
    }

    /// Compares a provider's checkpoint with the one remembered, asking the provider for tiles
    /// where their sizes differ. A second history is taken to the docket.
    pub(super) async fn checkpoint(&self, note: &SignedCheckpoint) {
        let log = note.signer().peer_id();
        let known = {
            let mut seen = self.seen();
            match seen.logs.get_mut(&log) {
                None => {
                    if seen.logs.len() < MAX_LOGS {
                        seen.logs.insert(log, (note.bare(), None));
                    }
                    return;
                }
                Some((known, looked)) => {
                    let same_size = known.size() == note.size();
                    if !same_size && looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
                        return;
                    }
                    *looked = Some(Instant::now());
                    known.clone()
                }
            }
        };
        let (older, newer) =
            if known.size() <= note.size() { (&known, note) } else { (note, &known) };
        match compare(&self.net, older, newer).await {
            Ok(None) => {
                let mut seen = self.seen();
                seen.logs.insert(log, (newer.bare(), Some(Instant::now())));
            }
            Ok(Some(fork)) => {
                if let Some(proof) = portable::evidence(&fork) {
                    self.docket.found(proof).await;
                }
            }
            Err(reason) => tracing::debug!(%log, reason, "a log's growth could not be checked"),
        }
    }
}

/// The fork of two checkpoints of one log, if they are one.
async fn compare(
    net: &Handle,
    older: &SignedCheckpoint,
    newer: &SignedCheckpoint,
) -> Result<Option<Fork>, String> {
    if older.size() == newer.size() {
        return Ok(Fork::between(older, newer));
    }
    let (from, to) = (older.size(), newer.size());
    if from == 0 {
        return Ok(None);
    }
    let mut tiles = Tiles::new(to);
    let wanted = tiles.wanted(|nodes| {
        nodes.root(from)?;
        nodes.consistency(from, to).map(drop)
    });
    let mut talk = Talk::open(net, newer.signer().peer_id()).await.map_err(|e| e.reason)?;
    for tile in wanted.map_err(|e| e.to_string())? {
        let path = Resource::Hashes(tile).to_string();
        match talk.ask(&LogRequest::Piece(path)).await.map_err(|e| e.reason)? {
            LogReply::Found(bytes) => tiles.insert(tile, &bytes).map_err(|e| e.to_string())?,
            LogReply::Refused(refusal) => return Err(refusal.message),
            LogReply::Held(_) => return Err("an answer to another question".into()),
        }
    }
    let path = prefix_path(&tiles, from, to).map_err(|e| e.to_string())?;
    match Fork::prove(older, newer, &path) {
        Ok(fork) => Ok(Some(fork)),
        Err(peerproof_log::ForkError::OneHistory { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What the first `from` leaves of a tree are, as a fork states it.
fn prefix_path(tiles: &Tiles, from: u64, to: u64) -> Result<Vec<Hash>, ProofError> {
    let mut path = tiles.consistency(from, to)?;
    if from.is_power_of_two() {
        path.insert(0, tiles.root(from)?);
    }
    Ok(path)
}

const NEWER: &str = "receipts";
const OLDER: &str = "receipts.old";

impl Seen {
    fn open(folder: &Path) -> Seen {
        let mut seen = Seen::default();
        for receipt in read(&folder.join(OLDER)).0 {
            seen.remember(&receipt);
        }
        let (receipts, is_whole) = read(&folder.join(NEWER));
        for receipt in &receipts {
            seen.remember(receipt);
        }
        // A torn end stays behind; what follows goes into a new file.
        if is_whole && !receipts.is_empty() {
            let file = OpenOptions::new().append(true).open(folder.join(NEWER));
            seen.file = file.ok().map(|file| (file, receipts.len()));
        }
        seen
    }

    /// Remembers a receipt; gives back another one under its number.
    fn remember(&mut self, receipt: &Signed<Receipt>) -> Option<Signed<Receipt>> {
        let number = (receipt.key().peer_id(), receipt.number);
        if let Some(known) = self.receipts.get(&number) {
            return (known.id() != receipt.id()).then(|| known.clone());
        }
        if self.order.len() >= MAX_RECEIPTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.receipts.remove(&oldest);
        }
        self.order.push_back(number);
        self.receipts.insert(number, receipt.clone());
        None
    }

    /// Notes it on disk. What a power cut takes is remembered no more, and proves nothing less.
    fn write(&mut self, folder: &Path, receipt: &Signed<Receipt>) {
        if self.file.as_ref().is_none_or(|(_, count)| *count >= MAX_RECEIPTS) {
            self.file = begin(folder).ok().map(|file| (file, 0));
        }
        if let (Some((file, count)), Ok(frame)) =
            (&mut self.file, frame::encode(&receipt.envelope()))
        {
            *count += 1;
            if let Err(error) = file.write_all(&frame) {
                tracing::warn!(%error, "a receipt is remembered until the next start only");
            }
        }
    }
}

/// Begins a file; the one before it becomes the older one.
fn begin(folder: &Path) -> std::io::Result<File> {
    if let Err(error) = crate::home::make_private_dir(folder) {
        return Err(std::io::Error::other(error));
    }
    let newer = folder.join(NEWER);
    if newer.exists() {
        fs::rename(&newer, folder.join(OLDER))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(newer)
}

/// The receipts in a file, up to the first that is none, and whether that is its end.
fn read(path: &Path) -> (Vec<Signed<Receipt>>, bool) {
    let (mut receipts, mut bytes) = (Vec::new(), Vec::new());
    let opened = File::open(path);
    if opened.and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)).is_err() {
        return (receipts, false);
    }
    let (mut decoder, mut rest) = (Decoder::default(), bytes.as_slice());
    while !rest.is_empty() && receipts.len() < MAX_RECEIPTS {
        let Ok(taken) = decoder.push(rest) else { break };
        let Some(frame) = decoder.poll_frame() else { break };
        let opened = Envelope::decode(&frame).and_then(Signed::open);
        let Ok(receipt) = opened else { break };
        rest = &rest[taken..];
        receipts.push(receipt);
    }
    let is_whole = rest.is_empty();
    (receipts, is_whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use peerproof_identity::Keypair;
    use peerproof_log::Log;
    use peerproof_log::memory::MemoryStorage;
    use peerproof_wire::{Digest, ModelId, Stop};

    use super::*;

    fn receipt(number: u64, what: u8) -> Signed<Receipt> {
        let digest = |byte| Digest::from_bytes([byte; 32]);
        let receipt = Receipt {
            offer_id: digest(what),
            model_id: ModelId::from_bytes([1; 32]),
            number,
            previous: (number > 1).then(|| digest(2)),
            prompt_tokens: 3,
            output_tokens: 1,
            stop: Stop::Length,
            output_hash: digest(3),
            text_hash: digest(4),
            transcript_root: digest(5),
            kv_root: digest(7),
            class: peerproof_wire::Class::Exact,
            leaves: 4,
            issued_unix_ms: 6,
        };
        Signed::sign(&Keypair::from_seed(&[9; 32]), receipt).unwrap()
    }

    #[test]
    fn a_second_receipt_is_found_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Seen::open(folder.path());
        for number in 1..=20 {
            assert!(seen.remember(&receipt(number, 1)).is_none());
            seen.write(folder.path(), &receipt(number, 1));
        }
        assert!(seen.remember(&receipt(7, 1)).is_none(), "the same one again");
        assert_eq!(seen.remember(&receipt(7, 2)), Some(receipt(7, 1)));

        let mut again = Seen::open(folder.path());
        again.write(folder.path(), &receipt(21, 1));
        assert_eq!(again.remember(&receipt(20, 2)), Some(receipt(20, 1)));

        // A torn or changed end loses what comes after it, and nothing before.
        let path = folder.path().join(NEWER);
        let bytes = fs::read(&path).unwrap();
        for length in (0..bytes.len()).step_by(211) {
            fs::write(&path, &bytes[..length]).unwrap();
            let found = read(&path).0.len();
            assert!(found <= 21 && (length < bytes.len() / 2 || found >= 9), "{length}: {found}");
        }
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let mut torn = Seen::open(folder.path());
        torn.write(folder.path(), &receipt(22, 1));
        assert_eq!(Seen::open(folder.path()).receipts.len(), 21, "20 whole ones, and one more");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        let first = receipt(1, 1);
        seen.remember(&first);
        for number in 0..MAX_RECEIPTS as u64 {
            let peer = first.key().peer_id();
            seen.order.push_back((peer, number + 2));
        }
        seen.order.truncate(MAX_RECEIPTS);
        seen.remember(&receipt(2, 1));
        assert_eq!(seen.order.len(), MAX_RECEIPTS);
        assert!(!seen.receipts.contains_key(&(first.key().peer_id(), 1)), "the oldest went");
    }

    #[test]
    fn another_beginning_is_proven_from_tiles_at_every_size() {
        let key = Arc::new(Keypair::from_seed(&[3; 32]));
        let log = |first: &str, count: u64| {
            let mut log = Log::open(MemoryStorage::default(), Arc::clone(&key)).unwrap();
            let rest: Vec<String> = (1..count).map(|n| format!("entry {n}")).collect();
            let mut all = vec![first.to_owned()];
            all.extend(rest);
            log.append(&all).unwrap();
            log
        };
        let (to, newer) = (300, log("one", 300));
        let tiles_of = |log: &Log<MemoryStorage>, from| {
            let mut tiles = Tiles::new(to);
            let wanted = tiles
                .wanted(|nodes| {
                    nodes.root(from)?;
                    nodes.consistency(from, to).map(drop)
                })
                .unwrap();
            for tile in wanted {
                let bytes = log.resource(&Resource::Hashes(tile)).unwrap().unwrap();
                tiles.insert(tile, &bytes).unwrap();
            }
            tiles
        };
        let second = newer.checkpoint().unwrap();
        for from in [1, 2, 3, 7, 8, 100, 255, 256, 257, 299] {
            let path = prefix_path(&tiles_of(&newer, from), from, to).unwrap();
            let honest = log("one", from);
            let error = Fork::prove(honest.checkpoint().unwrap(), second, &path).unwrap_err();
            assert!(
                matches!(error, peerproof_log::ForkError::OneHistory { .. }),
                "{from}: {error}"
            );
            let other = log("two", from);
            let first = other.checkpoint().unwrap();
            let fork = Fork::prove(first, second, &path).unwrap();
            let proof = portable::evidence(&fork).unwrap();
            assert_eq!(portable::accused(&proof).unwrap(), key.public(), "{from}");
            // A path that is not the second log's proves nothing.
            for at in 0..path.len() {
                let mut changed = path.clone();
                changed[at][5] ^= 1;
                assert!(Fork::prove(first, second, &changed).is_err(), "{from}: hash {at}");
                let short = [&path[..at], &path[at + 1..]].concat();
                assert!(Fork::prove(first, second, &short).is_err(), "{from}: without {at}");
            }
            assert!(Fork::prove(second, first, &path).is_err(), "the other way round");
        }
    }
}
