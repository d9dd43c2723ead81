//! Signed checkpoints of the log (<https://c2sp.org/tlog-checkpoint>).
//!
//! The text of a checkpoint is three lines: the log's origin, the number of
//! entries, the root in base64. It is signed as a note under the origin as key
//! name. Since the origin holds the peer id, and that the public key, a
//! checkpoint says itself which key must have signed it. Signatures of others
//! are carried; [`crate::witness`] judges those of witnesses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use peerproof_identity::{Keypair, PeerId, PublicKey};

use crate::error::ProofError;
use crate::limits::MAX_EXTENSION_LINES;
use crate::note::{Note, NoteError, NoteSignature};
use crate::tree::{Hash, payload_leaf, verify_consistency, verify_inclusion};

const ORIGIN_PREFIX: &str = "peerproof.log/";

/// The origin line of a peer's log.
pub fn origin(peer: &PeerId) -> String {
    format!("{ORIGIN_PREFIX}{peer}")
}

/// The peer whose log an origin line names.
pub fn peer_of(line: &str) -> Option<PeerId> {
    let peer = line.strip_prefix(ORIGIN_PREFIX)?.parse().ok()?;
    (origin(&peer) == line).then_some(peer)
}

/// What a checkpoint states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name: `peerproof.log/` and the peer id.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Hash,
    /// Lines of other software after the root. Our own logs write none.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Parses a text; only the spelling that [`Checkpoint::text`] writes is accepted.
    ///
    /// # Errors
    /// [`CheckpointError::Line`] names the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let line = |line| CheckpointError::Line { line };
        let mut lines = text.strip_suffix('\n').ok_or(line(0))?.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or(line(0))?;
        let size = lines.next().and_then(decimal).ok_or(line(1))?;
        let root = lines.next().and_then(|root| BASE64.decode(root).ok()).ok_or(line(2))?;
        let root = Hash::try_from(root).map_err(|_| line(2))?;
        let mut extensions = Vec::new();
        for (index, extension) in lines.enumerate() {
            if index == MAX_EXTENSION_LINES || extension.is_empty() {
                return Err(line(3 + index));
            }
            extensions.push(extension.to_owned());
        }
        Ok(Self { origin: origin.to_owned(), size, root, extensions })
    }
}

/// A decimal number without sign or leading zero.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    canonical.then(|| text.parse().ok()).flatten()
}

/// A checkpoint whose signature by its log's key has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    signer: PublicKey,
    note: String,
}

impl SignedCheckpoint {
    /// Signs the state of the log of `key`.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] if the note cannot be made.
    pub fn sign(size: u64, root: Hash, key: &Keypair) -> Result<Self, CheckpointError> {
        let signer = key.public();
        let origin = origin(&signer.peer_id());
        let checkpoint = Checkpoint { origin, size, root, extensions: Vec::new() };
        let note = Note::sign(checkpoint.text(), &checkpoint.origin, key)?.to_string();
        Ok(Self { checkpoint, signer, note })
    }

    /// Parses a note and checks that the key named in its origin signed it.
    ///
    /// # Errors
    /// [`CheckpointError`] says what is wrong.
    pub fn open(note: &[u8]) -> Result<Self, CheckpointError> {
        let parsed = Note::parse(note)?;
        let checkpoint = Checkpoint::parse(parsed.text())?;
        let signer = peer_of(&checkpoint.origin)
            .ok_or_else(|| CheckpointError::Origin { got: checkpoint.origin.clone() })?
            .public_key();
        parsed.verify(&checkpoint.origin, &signer)?;
        Ok(Self { checkpoint, signer, note: parsed.to_string() })
    }

    /// As [`SignedCheckpoint::open`], and checks that it is `key`'s log.
    ///
    /// # Errors
    /// [`CheckpointError::Key`] if it is another's.
    pub fn open_of(note: &[u8], key: &PublicKey) -> Result<Self, CheckpointError> {
        let opened = Self::open(note)?;
        if opened.signer != *key {
            return Err(CheckpointError::Key {
                expected: key.peer_id(),
                got: opened.signer.peer_id(),
            });
        }
        Ok(opened)
    }

    /// The number of entries.
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The Merkle root.
    pub fn root(&self) -> &Hash {
        &self.checkpoint.root
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.checkpoint.origin
    }

    /// The key whose log this is.
    pub fn signer(&self) -> PublicKey {
        self.signer
    }

    /// The statement.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed note, as it is sent and kept.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The signatures on the note, the log's own among them; unchecked.
    ///
    /// # Errors
    /// None that [`SignedCheckpoint::open`] would not have found.
    pub fn signatures(&self) -> Result<Vec<NoteSignature>, NoteError> {
        Ok(Note::parse(self.note.as_bytes())?.signatures().to_vec())
    }

    /// The same with signatures of others added, such as witnesses'; unchecked.
    ///
    /// # Errors
    /// [`CheckpointError`] if a note can't hold them.
    pub fn with_signatures(&self, more: &[NoteSignature]) -> Result<Self, CheckpointError> {
        let lines: String = more.iter().map(|line| format!("{line}\n")).collect();
        Self::open(format!("{}{lines}", self.note).as_bytes())
    }

    /// The same with the log's own signature alone.
    pub fn bare(&self) -> Self {
        let text = self.note.split("\n\n").next().unwrap_or_default();
        let own = Note::parse(self.note.as_bytes()).ok().and_then(|note| {
            let hash = crate::note::key_hash_of(self.origin(), 1, &self.signer);
            let mut lines = note.signatures().iter();
            lines.find(|line| line.name == self.origin() && line.key_hash == hash).cloned()
        });
        let note = own.map_or_else(|| self.note.clone(), |line| format!("{text}\n\n{line}\n"));
        Self { note, ..self.clone() }
    }

    /// Checks that `payload` stands at `index` of this log.
    ///
    /// # Errors
    /// [`ProofError`] if the path does not prove it.
    pub fn verify_entry(
        &self,
        payload: &[u8],
        index: u64,
        path: &[Hash],
    ) -> Result<(), ProofError> {
        verify_inclusion(&payload_leaf(payload), index, self.size(), path, self.root())
    }

    /// Checks that `later` continues this state of the same log.
    ///
    /// # Errors
    /// [`CheckpointError::Key`] for another's log, [`CheckpointError::Proof`] if
    /// the path does not prove it.
    pub fn verify_growth(&self, later: &Self, path: &[Hash]) -> Result<(), CheckpointError> {
        if later.signer != self.signer {
            let (expected, got) = (self.signer.peer_id(), later.signer.peer_id());
            return Err(CheckpointError::Key { expected, got });
        }
        Ok(verify_consistency(self.size(), self.root(), later.size(), later.root(), path)?)
    }
}

/// Why a checkpoint is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A line that is not as the format says.
    #[error("checkpoint line {line}: expected origin, size, root in base64, extensions")]
    Line {
        /// Counts lines from 0.
        line: usize,
    },
    /// Not the name of a peer's log.
    #[error("checkpoint origin: expected {ORIGIN_PREFIX}<peer id>, got {got:?}")]
    Origin {
        /// The name found.
        got: String,
    },
    /// The log of another key.
    #[error("checkpoint: expected the log of {expected}, got that of {got}")]
    Key {
        /// Whose log it must be.
        expected: PeerId,
        /// Whose it is.
        got: PeerId,
    },
    /// Not a continuation.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
    use super::*;
    use crate::tree::{Nodes as _, Tree};

    fn key() -> Keypair {
        Keypair::from_seed(&[5; 32])
    }

    #[test]
    fn a_checkpoint_round_trips() {
        let signed = SignedCheckpoint::sign(17, [9; 32], &key()).unwrap();
        let opened = SignedCheckpoint::open_of(signed.note().as_bytes(), &key().public()).unwrap();
        assert_eq!(opened, signed);
        assert_eq!((opened.size(), opened.root()), (17, &[9; 32]));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let signed = SignedCheckpoint::sign(17, [9; 32], &key()).unwrap();
        for bit in 0..signed.note().len() * 8 {
            let mut bytes = signed.note().as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SignedCheckpoint::open_of(&bytes, &key().public()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_log_of_another_key_is_refused() {
        let other = Keypair::from_seed(&[6; 32]);
        let signed = SignedCheckpoint::sign(1, [1; 32], &other).unwrap();
        assert!(matches!(
            SignedCheckpoint::open_of(signed.note().as_bytes(), &key().public()),
            Err(CheckpointError::Key { .. })
        ));
        // Another's key under our name: the signature is not by the key the name holds.
        let checkpoint = Checkpoint {
            origin: origin(&key().public().peer_id()),
            size: 1,
            root: [1; 32],
            extensions: Vec::new(),
        };
        let forged = Note::sign(checkpoint.text(), &checkpoint.origin, &other).unwrap().to_string();
        assert!(matches!(
            SignedCheckpoint::open(forged.as_bytes()),
            Err(CheckpointError::Note(NoteError::Unsigned { .. }))
        ));
    }

    #[test]
    fn only_one_spelling_of_a_text_is_accepted() {
        let root = BASE64.encode([1; 32]);
        let accepted =
            |text: &str| Checkpoint::parse(text).map(|parsed| assert_eq!(parsed.text(), text));
        accepted(&format!("o\n0\n{root}\n")).unwrap();
        accepted(&format!("o\n18446744073709551615\n{root}\nextension\n")).unwrap();
        let many = "x\n".repeat(MAX_EXTENSION_LINES + 1);
        for text in [
            String::new(),
            format!("\n0\n{root}\n"),
            format!("o\n00\n{root}\n"),
            format!("o\n+1\n{root}\n"),
            format!("o\n-1\n{root}\n"),
            format!("o\n18446744073709551616\n{root}\n"),
            format!("o\n1 \n{root}\n"),
            format!("o\n1\n{root}"),
            format!("o\n1\n{root}\n\n"),
            format!("o\n1\n{}\n", BASE64.encode([1; 31])),
            format!("o\n1\n{}\n", root.trim_end_matches('=')),
            format!("o\n1\n{root}\n{many}"),
        ] {
            assert!(matches!(accepted(&text), Err(CheckpointError::Line { .. })), "{text:?}");
        }
    }

    #[test]
    fn entries_and_growth_are_proven_between_checkpoints() {
        let mut tree = Tree::default();
        (0..5u8).for_each(|byte| tree.push(payload_leaf(&[byte])));
        let at = |size| SignedCheckpoint::sign(size, tree.root(size).unwrap(), &key()).unwrap();
        let (old, new) = (at(3), at(5));
        new.verify_entry(&[4], 4, &tree.inclusion(4, 5).unwrap()).unwrap();
        new.verify_entry(&[3], 4, &tree.inclusion(4, 5).unwrap()).unwrap_err();
        let path = tree.consistency(3, 5).unwrap();
        old.verify_growth(&new, &path).unwrap();
        assert!(matches!(old.verify_growth(&new, &path[1..]), Err(CheckpointError::Proof(_))));
        let other = SignedCheckpoint::sign(5, *new.root(), &Keypair::from_seed(&[6; 32])).unwrap();
        assert!(matches!(old.verify_growth(&other, &path), Err(CheckpointError::Key { .. })));
    }
}
