//! What this node believes of others, as people and programs read it.
//!
//! Everything is computed from the node's own log, so a [`Book`] read from the
//! disk says the same as the running node. The arithmetic is in
//! `peerproof-job`; here are its words and numbers, the user's decisions, the
//! second look at accusations, and the export of evidence for strangers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use peerproof_identity::PeerId;
use peerproof_job::Reputation;
use peerproof_job::reputation::{AccountLine, Deterrence, Explanation, Points, Rules, account};
use peerproof_proof::audit::Recomputation;
use peerproof_proof::verdict::verify_work;
use peerproof_wire::evidence::{Evidence, LogBody, LogEntry, WrongAnswer};
use peerproof_wire::{Decision, Digest, FalseVerdict, NetworkGroup, Note, Refutation};
use serde::{Deserialize, Serialize};

use crate::evidence::{self, EvidenceFileError};
use crate::home::{Home, HomeError};
use crate::models::{ModelError, Store};
use crate::store::{self, LogWriter, StoreError};
use crate::verify::{self, VerifyError};

/// Why a record could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReputationError {
    /// Folder or key.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name is none.
    #[error("{text:?} is no peer id; `peerproof rep show` lists those this node knows")]
    Peer {
        /// As given.
        text: String,
    },
    /// Nothing is held against this peer that a stranger could check.
    #[error("the log holds no evidence about {peer} that another could check")]
    NoEvidence {
        /// Whom it was about.
        peer: PeerId,
    },
    /// The file could not be written.
    #[error(transparent)]
    Evidence(#[from] EvidenceFileError),
    /// A second look at an accusation was not possible.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The folder of models.
    #[error(transparent)]
    Models(#[from] ModelError),
}

/// A peer's record in figures, with the arithmetic in words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 0 to 1000; 500 without a record, 0 when barred.
    pub score: u32,
    /// `exact`: its answers can be recomputed bit for bit.
    pub class: String,
    /// Whether there is too little record to rely on.
    pub newcomer: bool,
    /// Chance in a thousand that a sampled answer is audited.
    pub audit_per_mille: u32,
    /// By this cheat, half of all cheats are caught at that rate.
    pub half_caught_by: Option<u32>,
    /// By this cheat, 99 of 100 are.
    pub most_caught_by: Option<u32>,
    /// Network group of its last answer.
    pub group: String,
    /// Answers that were accepted.
    pub answers: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Of those answers, the ones that were recomputed.
    pub audits: u64,
    /// Entries that count against it.
    pub faults: u64,
    /// Milliseconds to the first token, on average.
    pub first_token_ms: Option<u64>,
    /// Good points that count today.
    pub good: f64,
    /// Bad points today.
    pub bad: f64,
    /// Why it is never chosen, if it is barred.
    pub barred: Option<String>,
    /// 0 to 1000, if it was found out about as an auditor.
    pub auditor_score: Option<u32>,
    /// Why it is not asked as an auditor.
    pub auditor_barred: Option<String>,
    /// The arithmetic, line by line.
    pub reasons: Vec<String>,
}

impl Record {
    pub(crate) fn of(explained: &Explanation, group: NetworkGroup) -> Record {
        let standing = &explained.standing;
        let deterrence = Deterrence::at(standing.audit_permille);
        let volume = explained.volume;
        let auditor = explained.auditor.as_ref();
        Record {
            score: standing.score.into(),
            class: "exact".into(),
            newcomer: standing.newcomer,
            audit_per_mille: standing.audit_permille.into(),
            half_caught_by: deterrence.half,
            most_caught_by: deterrence.ninety_nine,
            group: group.to_string(),
            answers: volume.answers,
            tokens: volume.tokens,
            audits: volume.audits,
            faults: volume.faults,
            first_token_ms: volume.first_token_ms.checked_div(volume.answers),
            good: shown(explained.good),
            bad: shown(explained.bad),
            barred: standing.barred.clone(),
            auditor_score: auditor.map(|auditor| auditor.score.into()),
            auditor_barred: auditor.and_then(|auditor| auditor.barred.clone()),
            reasons: explained.to_string().lines().map(str::to_owned).collect(),
        }
    }
}

/// For people; the arithmetic itself is in integers.
fn shown(points: Points) -> f64 {
    points.0 as f64 / f64::from(1 << 16)
}

/// What one entry of the log counts today.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Place in the log.
    pub index: u64,
    /// When it was appended, by the node's clock.
    pub unix_ms: u64,
    /// What it says.
    pub text: String,
    /// Good points before they fade.
    pub good: u64,
    /// Bad points before they fade.
    pub bad: u64,
    /// What is left of either today.
    pub left: f64,
}

impl From<AccountLine> for Line {
    fn from(line: AccountLine) -> Line {
        let AccountLine { index, unix_ms, text, good, bad, left } = line;
        Line { index, unix_ms, text, good, bad, left: shown(left) }
    }
}

/// One log, read once.
#[derive(Debug)]
pub struct Book {
    rules: Rules,
    entries: Vec<(u64, LogEntry)>,
    reputation: Reputation,
}

impl Book {
    /// Reads the log of a home, beside a running node or without one. A log that was never
    /// begun is empty.
    ///
    /// # Errors
    /// The key or the log cannot be read.
    pub fn read(home: &Home, rules: Rules) -> Result<Book, ReputationError> {
        let key = home.key()?.public();
        let dir = home.log(&key.peer_id());
        let mut entries = Vec::new();
        if dir.exists() {
            for (index, entry) in store::read_of(&dir, &key)?.entries() {
                entries.push((index, entry?));
            }
        }
        Ok(Book::of(rules, entries))
    }

    /// A book of these entries.
    #[must_use]
    pub fn of(rules: Rules, entries: Vec<(u64, LogEntry)>) -> Book {
        let mut reputation = Reputation::with(rules);
        for (index, entry) in &entries {
            reputation.note_at(*index, entry);
        }
        Book { rules, entries, reputation }
    }

    /// Everybody the log speaks of, with their records at a wall-clock time.
    #[must_use]
    pub fn records(&self, unix_ms: u64) -> Vec<(PeerId, Record)> {
        let mut all: Vec<(PeerId, Record)> = self
            .reputation
            .peers()
            .into_iter()
            .map(|peer| (peer, self.record(&peer, unix_ms)))
            .collect();
        all.sort_by(|(a, left), (b, right)| right.score.cmp(&left.score).then(a.cmp(b)));
        all
    }

    /// One record.
    #[must_use]
    pub fn record(&self, peer: &PeerId, unix_ms: u64) -> Record {
        Record::of(&self.reputation.explain(peer, unix_ms), self.reputation.last_group(peer))
    }

    /// Every entry about a peer, with what it counts at a wall-clock time, before any cap.
    #[must_use]
    pub fn lines(&self, peer: &PeerId, unix_ms: u64) -> Vec<Line> {
        let entries = self.entries.iter().map(|(index, entry)| (*index, entry));
        account(self.rules, peer, entries, unix_ms).into_iter().map(Line::from).collect()
    }

    /// Writes all evidence about a peer that signatures or a recomputation prove into one file.
    ///
    /// # Errors
    /// There is none, or the file cannot be written.
    pub fn export(&self, peer: &PeerId, to: &Path) -> Result<usize, ReputationError> {
        let about = |evidence: &Evidence| match evidence {
            Evidence::WrongAnswer(wrong) => wrong.case.receipt.key().peer_id() == *peer,
            Evidence::Equivocation(both) => both.first.key().peer_id() == *peer,
            Evidence::Fork(fork) => fork.key.peer_id() == *peer,
            Evidence::Fraud(claim) => claim.accused.peer_id() == *peer,
            Evidence::FalseVerdict(said) => said.verdict.key().peer_id() == *peer,
            // A stranger has only this node's word for it, but may find its case of use.
            Evidence::Observation(seen) => seen.provider.peer_id() == *peer && seen.case.is_some(),
        };
        let bodies = self.entries.iter().map(|(_, entry)| &entry.body);
        let found: Vec<&Evidence> = bodies
            .filter_map(|body| match body {
                LogBody::Evidence(evidence) if about(evidence) => Some(evidence),
                _ => None,
            })
            .collect();
        if found.is_empty() {
            return Err(ReputationError::NoEvidence { peer: *peer });
        }
        Ok(evidence::write_bundle(to, &found)?)
    }

    /// Accusations of wrong answers that stand against a peer, with what they hold.
    #[must_use]
    pub fn accusations(&self, peer: &PeerId) -> Vec<&WrongAnswer> {
        let standing = self.reputation.accused_receipts(peer);
        let of = |(_, entry): &'_ (u64, LogEntry)| accusation(&entry.body, &standing).is_some();
        let all = self.entries.iter().filter(|entry| of(entry));
        all.filter_map(|(_, entry)| accusation(&entry.body, &standing)).collect()
    }
}

/// The wrong answer that a log entry holds, if it is about one of these receipts.
pub(crate) fn accusation<'a>(body: &'a LogBody, receipts: &[Digest]) -> Option<&'a WrongAnswer> {
    match body {
        LogBody::Evidence(Evidence::WrongAnswer(wrong))
            if receipts.contains(&wrong.case.receipt.id()) =>
        {
            Some(wrong)
        }
        _ => None,
    }
}

/// What is to be logged if an accused receipt passes after all: that it does, and that the
/// verdicts against it are false. Empty if it fails.
pub(crate) fn refuting(wrong: &WrongAnswer, recomputed: &Recomputation) -> Vec<LogBody> {
    let receipt = &wrong.case.receipt;
    if recomputed.compare(receipt, None).is_some() {
        return Vec::new();
    }
    let refuted = Refutation {
        accused: receipt.key(),
        receipt_id: receipt.id(),
        // Only files from others have no verdict, and who brought them is not in them.
        accuser: None,
    };
    let lies = wrong.verdicts.iter().filter(|said| verify_work(said, receipt, recomputed).is_err());
    let told = lies.map(|verdict| {
        let said = FalseVerdict { case: wrong.case.clone(), verdict: verdict.clone() };
        LogBody::Evidence(Evidence::FalseVerdict(said))
    });
    std::iter::once(LogBody::Note(Note::Refutation(refuted))).chain(told).collect()
}

/// What a second look at the accusations against a peer found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rechecked {
    /// Receipts that pass after all; their bars are lifted.
    pub refuted: Vec<String>,
    /// Receipts that fail again.
    pub confirmed: Vec<String>,
    /// Receipts that could not be recomputed, with the reason.
    pub unchecked: Vec<String>,
}

/// A peer id from text.
///
/// # Errors
/// It is none.
pub fn parse_peer(text: &str) -> Result<PeerId, ReputationError> {
    text.parse().map_err(|_| ReputationError::Peer { text: text.into() })
}

/// The entry that a user's decision makes.
#[must_use]
pub fn decision(peer: &PeerId, blocked: bool, reason: &str) -> LogBody {
    let reason = if reason.trim().is_empty() { "no reason given" } else { reason };
    LogBody::Note(Note::Decision(Decision::new(peer.public_key(), blocked, reason)))
}

/// Appends entries to the log of a home in which no node runs.
///
/// # Errors
/// The log cannot be opened, for example because a node holds it.
pub async fn append(
    home: &Home,
    bodies: Vec<LogBody>,
    unix_ms: u64,
) -> Result<(), ReputationError> {
    let key = Arc::new(home.key()?);
    let dir: PathBuf = home.log(&key.public().peer_id());
    let log = LogWriter::open(&dir, key)?;
    for body in bodies {
        log.append(&LogEntry { unix_ms, body }).await?;
    }
    log.close().await;
    Ok(())
}

/// Recomputes everything a peer is accused of, with the models that are installed. What is
/// found is given back as entries to log.
///
/// # Errors
/// A model could not be opened.
pub fn recheck(
    book: &Book,
    peer: &PeerId,
    store: &Store,
) -> Result<(Rechecked, Vec<LogBody>), ReputationError> {
    let (mut found, mut bodies) = (Rechecked::default(), Vec::new());
    for wrong in book.accusations(peer) {
        let id = wrong.case.receipt.id().to_string();
        let Ok(model) = store.find(&wrong.case.offer.model_id.to_string()) else {
            let model = wrong.case.offer.model_id;
            found
                .unchecked
                .push(format!("{id}: model {model} is not here; run: peerproof models pull"));
            continue;
        };
        let recomputed = verify::recompute(&model, &wrong.case)?;
        let entries = refuting(wrong, &recomputed);
        if entries.is_empty() { &mut found.confirmed } else { &mut found.refuted }.push(id);
        bodies.extend(entries);
    }
    Ok((found, bodies))
}
