//! The log as others read it: pieces of it, refusals, and entries in words and as JSON.

use peerproof_identity::PeerId;
pub use peerproof_log::MAX_ADD_CHECKPOINT_BYTES;
use peerproof_log::{SignedCheckpoint, witness};
use peerproof_wire::evidence::{Evidence, LogBody, LogEntry};
use peerproof_wire::{AuditorFinding, Note, Outcome, Stop};
use serde_json::{Value, json};

/// A piece of a log, as others copy it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// A signed note, hashes, or an entry bundle.
    pub bytes: Vec<u8>,
    /// Whether it is the checkpoint, which is text and grows old; all else is neither.
    pub is_checkpoint: bool,
}

/// Why a piece is not handed out at the moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// The asker asks too often.
    #[error("too many questions at once; ask again in a second")]
    TooFast,
    /// The log could not be read.
    #[error("{message}")]
    Failed {
        /// What the log says.
        message: String,
    },
}

/// Why a checkpoint is not cosigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Declined {
    /// The HTTP status that the protocol names for it.
    pub status: u16,
    /// In words.
    pub message: String,
    /// The last checkpoint of that log that was cosigned here: its size and the note.
    pub last: Option<(u64, String)>,
}

impl Declined {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Declined {
        Declined { status, message: message.into(), last: None }
    }
}

/// The witnesses whose cosignature on a checkpoint holds, with its time in seconds since 1970.
#[must_use]
pub fn cosigners(note: &SignedCheckpoint) -> Vec<(PeerId, u64)> {
    let lines = note.signatures().unwrap_or_default();
    let peers = lines.iter().filter_map(|line| witness::peer_of(&line.name));
    let mut all: Vec<(PeerId, u64)> = peers
        .filter_map(|peer| Some((peer, witness::cosigned(note, &peer.public_key()).ok()?)))
        .collect();
    all.dedup();
    all
}

/// One entry for a reader.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was appended, by the node's clock.
    pub unix_ms: u64,
    /// `receipt`, `verdict`, `evidence`, `answer`, `decision`, `refuted` or `auditor`.
    pub kind: &'static str,
    /// One line for a person.
    pub text: String,
    /// The same for a program.
    pub details: Value,
}

/// Puts an entry into words.
#[must_use]
pub fn describe(entry: &LogEntry) -> Line {
    let (kind, text, details) = match &entry.body {
        LogBody::Receipt(receipt) => {
            let stop = match receipt.stop {
                Stop::EndOfText => "end_of_text",
                Stop::Length => "length",
                Stop::StopString => "stop_string",
            };
            let text = format!(
                "no. {} for job {}: {} + {} tokens",
                receipt.number, receipt.offer_id, receipt.prompt_tokens, receipt.output_tokens
            );
            let details = json!({
                "receipt": receipt.id().to_string(),
                "number": receipt.number,
                "offer": receipt.offer_id.to_string(),
                "model": receipt.model_id.to_string(),
                "prompt_tokens": receipt.prompt_tokens,
                "output_tokens": receipt.output_tokens,
                "stop": stop,
                "root": receipt.transcript_root.to_string(),
            });
            ("receipt", text, details)
        }
        LogBody::Verdict(verdict) => {
            let passed = verdict.outcome == Outcome::Pass;
            let word = if passed { "passed" } else { "FAILED" };
            let provider = verdict.provider.peer_id().to_string();
            let text = format!("receipt {} of {provider} {word}", verdict.receipt_id);
            let details = json!({ "receipt": verdict.receipt_id.to_string(), "provider": provider, "passed": passed });
            ("verdict", text, details)
        }
        LogBody::Evidence(evidence) => {
            let (against, what) = match evidence {
                Evidence::WrongAnswer(wrong) => {
                    (wrong.case.receipt.key(), peerproof_proof::audit::describe(&wrong.mismatch))
                }
                Evidence::Equivocation(both) => {
                    (both.first.key(), format!("two receipts with number {}", both.first.number))
                }
                Evidence::Observation(seen) => (seen.provider, seen.reason.clone()),
                Evidence::Fork(fork) => (fork.key, "two histories of its log".to_owned()),
                Evidence::Fraud(claim) => (claim.accused, format!("fraud proof {}", claim.file)),
                Evidence::FalseVerdict(said) => {
                    (said.verdict.key(), "a verdict that its case does not bear out".to_owned())
                }
            };
            let against = against.peer_id().to_string();
            let text = format!("against {against}: {what}");
            ("evidence", text, json!({ "against": against, "what": what }))
        }
        LogBody::Accepted(answer) => {
            let provider = answer.provider.peer_id().to_string();
            let audited = if answer.audited { "audited" } else { "not audited" };
            let text = format!("{} tokens from {provider}, {audited}", answer.output_tokens);
            let details = json!({
                "receipt": answer.receipt_id.to_string(),
                "provider": provider,
                "model": answer.model_id.to_string(),
                "output_tokens": answer.output_tokens,
                "first_token_ms": answer.first_token_ms,
                "total_ms": answer.total_ms,
                "audited": answer.audited,
            });
            ("answer", text, details)
        }
        LogBody::Note(note) => note_in_words(note),
    };
    Line { unix_ms: entry.unix_ms, kind, text, details }
}

fn note_in_words(note: &Note) -> (&'static str, String, Value) {
    match note {
        Note::Decision(decision) => {
            let peer = decision.peer.peer_id().to_string();
            let word = if decision.blocked { "blocked" } else { "unblocked" };
            let text = format!("{peer} {word}: {}", decision.reason);
            let details = json!({
                "peer": peer,
                "blocked": decision.blocked,
                "reason": decision.reason,
            });
            ("decision", text, details)
        }
        Note::Refutation(refuted) => {
            let accused = refuted.accused.peer_id().to_string();
            let accuser = refuted.accuser.map(|key| key.peer_id().to_string());
            let text = format!("receipt {} of {accused} passes after all", refuted.receipt_id);
            let details = json!({
                "accused": accused,
                "receipt": refuted.receipt_id.to_string(),
                "accuser": accuser,
            });
            ("refuted", text, details)
        }
        Note::AuditorCheck(check) => {
            let auditor = check.auditor.peer_id().to_string();
            let (word, meaning) = match check.finding {
                AuditorFinding::Caught => ("caught", "failed a receipt known to be wrong"),
                AuditorFinding::Confirmed => ("confirmed", "gave the verdict that is right"),
                AuditorFinding::Disagreed => ("disagreed", "was contradicted by another auditor"),
                AuditorFinding::Undrawn => ("undrawn", "showed a draw that does not hold"),
            };
            let text = format!("{auditor} {meaning}");
            let details = json!({
                "auditor": auditor,
                "receipt": check.receipt_id.to_string(),
                "finding": word,
            });
            ("auditor", text, details)
        }
    }
}
