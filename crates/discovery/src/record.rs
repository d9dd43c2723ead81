//! Records: what a key says of itself under a name.
//!
//! The name follows from the publisher's key and a label, so nobody else can write
//! under it, and two records of one name are ordered by sequence and creation: the
//! newest wins. A record expires at most 48 hours after it was made. The bytes have one
//! form: fixed fields, then the label and the content, then the signature; what follows
//! or is missing refuses them.
//!
//! A write carries besides the record a *grant*: the publisher's signature over the
//! record's hash, the node that shall keep it and that node's token for the writer. It
//! can't be replayed at another node, nor there once the token has turned.
//!
//! Absent: what the content means.

use peerproof_identity::{Domain, Keypair, PeerId, PublicKey, Signature};

use crate::limits::{CLOCK_TOLERANCE_S, MAX_LABEL_BYTES, MAX_LIFETIME_S, MAX_RECORD_BYTES};

const VERSION: u8 = 1;
/// Version, publisher, sequence, created, expires, length of the label.
const HEAD_BYTES: usize = 1 + 32 + 8 + 8 + 8 + 1;

/// Where a record is kept: 32 bytes, whose SHA-256 is its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub [u8; 32]);

impl Name {
    /// The name under which a publisher's records with this label stand.
    #[must_use]
    pub fn of(publisher: &PublicKey, label: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("peerproof discovery record name v1");
        hasher.update(publisher.as_bytes()).update(label);
        Self(*hasher.finalize().as_bytes())
    }
}

/// A signed record whose signature, name and sizes were checked.
///
/// ```
/// use peerproof_discovery::record::{Draft, Name, Record};
/// use peerproof_identity::Keypair;
///
/// let key = Keypair::from_seed(&[7; 32]);
/// let draft = Draft { label: b"home", sequence: 1, created_s: 1_000, expires_s: 4_600 };
/// let record = draft.sign(&key, b"what I say")?;
/// assert_eq!(record.name(), Name::of(&key.public(), b"home"));
/// assert_eq!(Record::decode(record.as_bytes())?, record);
/// record.check_time(2_000)?;
/// assert!(record.check_time(4_601).is_err());
/// # Ok::<(), peerproof_discovery::record::RecordError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    publisher: PublicKey,
    name: Name,
    sequence: u64,
    created_s: u64,
    expires_s: u64,
}

/// What a record will say besides its content. Times are seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Tells a publisher's names apart; at most [`MAX_LABEL_BYTES`].
    pub label: &'a [u8],
    /// Higher is newer.
    pub sequence: u64,
    /// When it is made.
    pub created_s: u64,
    /// When it ends; at most [`MAX_LIFETIME_S`] later.
    pub expires_s: u64,
}

impl Draft<'_> {
    /// Makes the record.
    pub fn sign(&self, key: &Keypair, content: &[u8]) -> Result<Record, RecordError> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(key.public().as_bytes());
        for number in [self.sequence, self.created_s, self.expires_s] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(u8::try_from(self.label.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(self.label);
        bytes.extend_from_slice(content);
        let signature = key.sign(Domain::Record, &bytes);
        bytes.extend_from_slice(signature.as_bytes());
        Record::decode(&bytes)
    }
}

impl Record {
    /// Reads a record and checks everything that needs no clock.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong { limit: MAX_RECORD_BYTES, got: bytes.len() });
        }
        let cut = RecordError::Cut { got: bytes.len() };
        let (signed, signature) = bytes.split_last_chunk::<{ Signature::BYTES }>().ok_or(cut)?;
        let (head, rest) = signed.split_first_chunk::<HEAD_BYTES>().ok_or(cut)?;
        if head[0] != VERSION {
            return Err(RecordError::Version { expected: VERSION, got: head[0] });
        }
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let label_bytes = usize::from(head[HEAD_BYTES - 1]);
        if label_bytes > MAX_LABEL_BYTES {
            return Err(RecordError::Label { limit: MAX_LABEL_BYTES, got: label_bytes });
        }
        let label = rest.get(..label_bytes).ok_or(cut)?;
        let publisher = PublicKey::from_bytes(&head[1..33]).map_err(|_| RecordError::Publisher)?;
        let (created_s, expires_s) = (number(41), number(49));
        let lifetime = expires_s.checked_sub(created_s);
        if lifetime.is_none_or(|lifetime| lifetime > MAX_LIFETIME_S) {
            return Err(RecordError::Lifetime { limit_s: MAX_LIFETIME_S, created_s, expires_s });
        }
        let signature = Signature::from_bytes(signature).map_err(|_| RecordError::Signature)?;
        publisher.verify(Domain::Record, signed, &signature).map_err(|_| RecordError::Signature)?;
        let name = Name::of(&publisher, label);
        let sequence = number(33);
        Ok(Self { bytes: bytes.to_vec(), publisher, name, sequence, created_s, expires_s })
    }

    /// Whether it is neither over nor made in the future, by a clock in seconds since 1970.
    pub const fn check_time(&self, now_s: u64) -> Result<(), RecordError> {
        if self.expires_s <= now_s {
            return Err(RecordError::Expired { expired_s: self.expires_s, now_s });
        }
        if self.created_s > now_s.saturating_add(CLOCK_TOLERANCE_S) {
            return Err(RecordError::Future { created_s: self.created_s, now_s });
        }
        Ok(())
    }

    /// The record as it travels.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        let label = usize::from(self.bytes[HEAD_BYTES - 1]);
        &self.bytes[HEAD_BYTES + label..self.bytes.len() - Signature::BYTES]
    }

    /// Where it is kept.
    #[must_use]
    pub const fn name(&self) -> Name {
        self.name
    }

    /// The name as messages carry it.
    #[must_use]
    pub const fn name_bytes(&self) -> &[u8] {
        &self.name.0
    }

    /// Who says it.
    #[must_use]
    pub const fn publisher(&self) -> PublicKey {
        self.publisher
    }

    /// When it ends, in seconds since 1970.
    #[must_use]
    pub const fn expires_s(&self) -> u64 {
        self.expires_s
    }

    /// Its place in the order of the publisher's records.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether it replaces `other`. Ties are broken by the bytes, alike everywhere.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.sequence, self.created_s, &self.bytes)
            > (other.sequence, other.created_s, &other.bytes)
    }

    /// The publisher's permission to keep this record at `holder` under its `token`.
    #[must_use]
    pub fn grant(&self, key: &Keypair, holder: &PeerId, token: &[u8; 16]) -> [u8; 64] {
        *key.sign(Domain::Grant, &self.granted(holder, token)).as_bytes()
    }

    /// Checks a permission.
    pub fn verify_grant(
        &self,
        holder: &PeerId,
        token: &[u8; 16],
        grant: &[u8; 64],
    ) -> Result<(), RecordError> {
        let grant = Signature::from_bytes(grant).map_err(|_| RecordError::Grant)?;
        self.publisher
            .verify(Domain::Grant, &self.granted(holder, token), &grant)
            .map_err(|_| RecordError::Grant)
    }

    fn granted(&self, holder: &PeerId, token: &[u8; 16]) -> Vec<u8> {
        let mut bytes = self.name.0.to_vec();
        bytes.extend_from_slice(blake3::hash(&self.bytes).as_bytes());
        bytes.extend_from_slice(&holder.to_bytes());
        bytes.extend_from_slice(token);
        bytes
    }
}

/// Why bytes are no record, or not one for here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// More bytes than a record has.
    #[error("record: at most {limit} bytes, got {got}")]
    TooLong {
        /// Most bytes.
        limit: usize,
        /// Bytes that came.
        got: usize,
    },
    /// It ends too early.
    #[error("record: ends within a field, after {got} bytes")]
    Cut {
        /// Bytes that came.
        got: usize,
    },
    /// Another form.
    #[error("record: expected version {expected}, got {got}")]
    Version {
        /// The one that is read.
        expected: u8,
        /// The one that came.
        got: u8,
    },
    /// The label is too long.
    #[error("record: a label has at most {limit} bytes, got {got}")]
    Label {
        /// Most bytes.
        limit: usize,
        /// Bytes that came.
        got: usize,
    },
    /// The publisher's key is none.
    #[error("record: the publisher's key is no Ed25519 key")]
    Publisher,
    /// It lives too long, or ends before it was made.
    #[error("record: may live {limit_s} s, was made at {created_s} and ends at {expires_s}")]
    Lifetime {
        /// Longest life.
        limit_s: u64,
        /// When it was made.
        created_s: u64,
        /// When it ends.
        expires_s: u64,
    },
    /// Not signed by its publisher.
    #[error("record: the signature is not its publisher's")]
    Signature,
    /// It stands under another name than its own.
    #[error("record: belongs under another name")]
    Name,
    /// It is over.
    #[error("record: ended at {expired_s}, now it is {now_s}")]
    Expired {
        /// When it ended.
        expired_s: u64,
        /// The clock here.
        now_s: u64,
    },
    /// It was made later than now.
    #[error("record: made at {created_s}, now it is {now_s}")]
    Future {
        /// When it says it was made.
        created_s: u64,
        /// The clock here.
        now_s: u64,
    },
    /// The permission is not for this record, holder and token.
    #[error("record: the publisher did not permit this write here")]
    Grant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn key() -> Keypair {
        Keypair::from_seed(&[7; 32])
    }

    fn draft(sequence: u64) -> Draft<'static> {
        Draft { label: b"home", sequence, created_s: NOW, expires_s: NOW + 3_600 }
    }

    fn record(sequence: u64) -> Record {
        draft(sequence).sign(&key(), b"content").expect("a record")
    }

    #[test]
    fn a_record_comes_back_and_says_what_it_said() {
        let record = record(3);
        assert_eq!(Record::decode(record.as_bytes()), Ok(record.clone()));
        assert_eq!((record.content(), record.sequence()), (&b"content"[..], 3));
        assert_eq!(record.name(), Name::of(&key().public(), b"home"));
        assert_ne!(record.name(), Name::of(&key().public(), b"away"));
    }

    #[test]
    fn every_changed_byte_refuses_it() {
        let record = record(3);
        for at in 0..record.as_bytes().len() {
            let mut bytes = record.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(Record::decode(&bytes).is_err(), "byte {at}");
        }
        let mut longer = record.as_bytes().to_vec();
        longer.push(0);
        assert_eq!(Record::decode(&longer), Err(RecordError::Signature));
    }

    #[test]
    fn sizes_are_held() {
        let most = MAX_RECORD_BYTES - HEAD_BYTES - 4 - Signature::BYTES;
        assert!(draft(1).sign(&key(), &vec![0; most]).is_ok());
        let over = draft(1).sign(&key(), &vec![0; most + 1]);
        assert!(matches!(over, Err(RecordError::TooLong { .. })));
        let label = [b'x'; MAX_LABEL_BYTES + 1];
        let over = Draft { label: &label, ..draft(1) }.sign(&key(), b"");
        assert!(matches!(over, Err(RecordError::Label { .. })));
    }

    #[test]
    fn a_forged_expiry_is_refused() {
        let over = Draft { expires_s: NOW + MAX_LIFETIME_S + 1, ..draft(1) };
        assert!(matches!(over.sign(&key(), b""), Err(RecordError::Lifetime { .. })));
        let backwards = Draft { expires_s: NOW - 1, ..draft(1) };
        assert!(matches!(backwards.sign(&key(), b""), Err(RecordError::Lifetime { .. })));
        let endless = Draft { created_s: 0, expires_s: u64::MAX, ..draft(1) };
        assert!(matches!(endless.sign(&key(), b""), Err(RecordError::Lifetime { .. })));
    }

    #[test]
    fn clocks_may_differ_by_minutes_and_not_by_a_day() {
        let record = record(1);
        assert!(record.check_time(NOW).is_ok());
        assert!(record.check_time(NOW - CLOCK_TOLERANCE_S).is_ok());
        assert!(matches!(record.check_time(NOW - 86_400), Err(RecordError::Future { .. })));
        assert!(matches!(record.check_time(NOW + 86_400), Err(RecordError::Expired { .. })));
        assert!(matches!(record.check_time(u64::MAX), Err(RecordError::Expired { .. })));
        assert!(matches!(record.check_time(0), Err(RecordError::Future { .. })));
    }

    #[test]
    fn the_newest_wins_alike_everywhere() {
        assert!(record(2).is_newer_than(&record(1)));
        assert!(!record(1).is_newer_than(&record(2)));
        assert!(!record(1).is_newer_than(&record(1)));
        let other = draft(1).sign(&key(), b"other").expect("a record");
        assert_ne!(other.is_newer_than(&record(1)), record(1).is_newer_than(&other));
    }

    #[test]
    fn a_grant_is_for_one_record_holder_and_token() {
        let holder = |seed| Keypair::from_seed(&[seed; 32]).public().peer_id();
        let (record, token) = (record(1), [5; 16]);
        let grant = record.grant(&key(), &holder(1), &token);
        assert!(record.verify_grant(&holder(1), &token, &grant).is_ok());
        assert!(record.verify_grant(&holder(2), &token, &grant).is_err());
        assert!(record.verify_grant(&holder(1), &[6; 16], &grant).is_err());
        let other = draft(2).sign(&key(), b"content").expect("a record");
        assert!(other.verify_grant(&holder(1), &token, &grant).is_err());
        let stranger = record.grant(&Keypair::from_seed(&[8; 32]), &holder(1), &token);
        assert!(record.verify_grant(&holder(1), &token, &stranger).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1_100)) {
            prop_assert!(Record::decode(&bytes).is_err());
        }
    }
}
