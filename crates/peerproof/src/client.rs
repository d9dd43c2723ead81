//! What a program asks with: a [`JobSpec`] in, an [`Answer`] out.
//!
//! A `Client` is a cheap handle on a running [`Node`](crate::Node) in the
//! router's role. `ask` returns as soon as the job is under way; the answer
//! then yields text as it arrives and ends with exactly one
//! [`AnswerEvent::Done`] or one error. Dropping the answer cancels the job, at
//! the provider too. There is no HTTP and no JSON here: the gateway turns those
//! into a `JobSpec` once.

use std::fmt;

pub use peerproof_engine::constraint::{
    ConstraintError, RULES as CONSTRAINT_RULES, verify as verify_constraint,
};
pub use peerproof_wire::{Constraint, Form, LogitBias, Sampling, TokenLogprobs};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::reputation::Record;

/// One request, in the terms of the network.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// A model id (64 hex digits) or a name that providers announce.
    pub model: String,
    /// What is asked.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens of the answer; `None` is the node's default.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer and are not part of it; at most 16 of at most 256 bytes.
    pub stop: Vec<String>,
    /// Makes the answer reproducible; `None` draws a fresh nonce.
    pub seed: Option<i64>,
    /// Which of several answers to one request, counted from 0: with one seed
    /// each has draws of its own.
    pub choice: u32,
    /// How the answer is checked.
    pub verification: Verification,
    /// Who may answer.
    pub preference: Preference,
    /// Asks for an embedding of the prompt instead of text. The answer's text is then its
    /// components in decimal, at 2^-22, with spaces between; `max_tokens` is the most of them,
    /// and `None` is all.
    pub embed: Option<Pooling>,
}

/// A component of an embedding is its integer divided by 2 to the power of this.
pub use peerproof_proof::embedding::{COMPONENT_BITS, components};
/// Which positions of the prompt an embedding is made from.
pub use peerproof_wire::job::Pooling;

impl JobSpec {
    /// A greedy request with every default.
    #[must_use]
    pub fn new(model: impl Into<String>, prompt: Prompt) -> JobSpec {
        JobSpec {
            model: model.into(),
            prompt,
            sampling: Sampling::GREEDY,
            max_tokens: None,
            stop: Vec::new(),
            seed: None,
            choice: 0,
            verification: Verification::default(),
            preference: Preference::default(),
            embed: None,
        }
    }
}

/// The three forms a prompt comes in.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A conversation, rendered by the model's own template.
    Chat(Vec<ChatMessage>),
    /// Text that is continued as it stands.
    Text(String),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// How an answer is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Which check.
    pub level: Level,
    /// For [`Level::KOfN`]: how many must agree, of how many asked.
    pub k_of_n: (u8, u8),
    /// The auditor to use, as a peer id, when this node does not hold the model.
    pub auditor: Option<String>,
    /// When the check is done, and what it rests on.
    pub mode: Mode,
}

/// When an answer is checked, and what the check rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The answer counts once its level's check is done.
    #[default]
    Merkle,
    /// The answer counts once its receipt is checked. What its level asks for follows at once, while
    /// the answer is used; who is found out then is barred, and the evidence kept.
    FraudProof,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Mode, String> {
        match name {
            "merkle" => Ok(Mode::Merkle),
            "fraud_proof" => Ok(Mode::FraudProof),
            "zk_snark" => Err("zk_snark is not offered: no provider makes such proofs".into()),
            other => Err(format!("expected merkle, fraud_proof or zk_snark, got {other}")),
        }
    }
}

pub use crate::price::{Cost, Price};

/// The levels of checking, weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Signatures and bindings.
    Receipt,
    /// As `Receipt`, and a full audit with a probability that falls with the provider's record.
    #[default]
    Sampled,
    /// A few cells that this node's secret nonce draws are opened by the provider and recomputed
    /// here. Takes single layers of the model, which are fetched; not the whole model.
    Spot,
    /// As `Spot`, but cells are checked by the products of their matrices, which the provider shows:
    /// nothing is kept of the model but secret combinations of its rows, made once.
    Light,
    /// Every leaf recomputed before the answer counts as verified.
    Full,
    /// Several providers, equality.
    KOfN,
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Level, String> {
        match name {
            "receipt" => Ok(Level::Receipt),
            "sampled" => Ok(Level::Sampled),
            "spot" => Ok(Level::Spot),
            "light" => Ok(Level::Light),
            "full" => Ok(Level::Full),
            "k_of_n" => Ok(Level::KOfN),
            other => {
                Err(format!("expected receipt, sampled, light, spot, full or k_of_n, got {other}"))
            }
        }
    }
}

impl Default for Verification {
    fn default() -> Self {
        Verification {
            level: Level::default(),
            k_of_n: (2, 3),
            auditor: None,
            mode: Mode::default(),
        }
    }
}

/// Who may answer, as peer ids.
#[derive(Clone, Debug)]
pub struct Preference {
    /// Tried first, in this order.
    pub order: Vec<String>,
    /// If not empty, nobody else.
    pub only: Vec<String>,
    /// Never these.
    pub ignore: Vec<String>,
    /// Whether somebody else may answer when those in `order` cannot.
    pub allow_fallbacks: bool,
}

impl Default for Preference {
    fn default() -> Self {
        Preference { order: vec![], only: vec![], ignore: vec![], allow_fallbacks: true }
    }
}

/// What happens while an answer arrives.
#[derive(Clone, Debug)]
pub enum AnswerEvent {
    /// A provider reads a long prompt; at most twice a second.
    Reading {
        /// Tokens read.
        read: u32,
        /// How many there are.
        of: u32,
    },
    /// A provider accepted.
    Started {
        /// Its peer id.
        provider: String,
        /// Tokens of the rendered prompt.
        prompt_tokens: u32,
    },
    /// Tokens, and the text they released (which may be empty).
    Delta {
        /// Text to append.
        text: String,
        /// Index in the answer of the first of `tokens`.
        start: u32,
        /// Token ids.
        tokens: Vec<u32>,
        /// How likely they were, one report a token, if
        /// [`Sampling::logprobs`] asks for that.
        logprobs: Vec<TokenLogprobs>,
    },
    /// Another provider continues, from the identical next token.
    Switched {
        /// Who answers from here on.
        provider: String,
        /// Why the one before was left.
        reason: String,
    },
    /// The text is complete and the receipt is being checked.
    Checking,
    /// The end.
    Done(Box<Outcome>),
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// End of text, or a stop string.
    Stop,
    /// The token limit.
    Length,
}

/// What is known about a finished answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Hash of the offer: the id of the job everywhere.
    pub job_id: String,
    /// Id of the receipt.
    pub receipt_id: String,
    /// Peer id of the provider that signed it.
    pub provider: String,
    /// Model id, 64 hex digits.
    pub model_id: String,
    /// Name of the model.
    pub model: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// What was checked, by whom, at what cost.
    pub verification: Report,
    /// Reputation of the provider after this answer, 0 to 1000.
    pub reputation: u32,
    /// Milliseconds from asking to the first token.
    pub first_token_ms: u32,
    /// Milliseconds from asking to the end, checks included.
    pub total_ms: u32,
    /// Providers that were tried and left, with reasons.
    pub trail: Vec<String>,
}

/// What a check did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What was asked for.
    pub level: Level,
    /// When the check was to be done.
    #[serde(default)]
    pub mode: Mode,
    /// Whether a check follows while the answer is used;
    /// [`Client::later_check`](crate::Client::later_check) tells what becomes of it.
    #[serde(default)]
    pub pending: bool,
    /// Whether every leaf was recomputed by somebody else than the provider.
    pub audited: bool,
    /// Who recomputed, or why nobody did, or who agreed.
    pub detail: String,
    /// Milliseconds that checking took.
    pub check_ms: u32,
    /// What this answer and its check cost by the prices that its provider announced, to be
    /// compared with `check_ms` and `total_ms`; absent if it announced none.
    #[serde(default)]
    pub priced: Option<Cost>,
}

/// The check of an answer that was used before it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterCheck {
    /// The job, as [`Outcome::job_id`].
    pub job_id: String,
    /// Peer id of who signed the answer.
    pub provider: String,
    /// What is checked.
    pub level: Level,
    /// How far it is.
    pub state: CheckState,
    /// What was found, or why nothing was.
    pub detail: String,
    /// The evidence, if the answer was refuted; the answer's papers, which `peerproof verify`
    /// takes, while it is not known to hold.
    pub file: Option<String>,
    /// Milliseconds that checking took, so far.
    pub check_ms: u32,
}

/// How far a check is that follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Nothing is known yet.
    Running,
    /// What was checked holds.
    Held,
    /// The answer is wrong, or its provider would not have it checked.
    Refuted,
    /// One auditor calls it wrong, and nobody could confirm that.
    Doubted,
    /// Nobody could check it, or it was not drawn.
    Unchecked,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody announces the model.
    #[error("no provider of {model} was found: {reason}")]
    NoProvider {
        /// As asked for.
        model: String,
        /// What was tried, and what to do next.
        reason: String,
    },
    /// The model name is known nowhere.
    #[error("model {model} is unknown; available: {available}")]
    UnknownModel {
        /// As asked for.
        model: String,
        /// Comma-separated names, or "none".
        available: String,
    },
    /// The prompt and the limit do not fit the model's context.
    #[error(
        "This model's maximum context length is {limit} tokens. However, you requested {requested} tokens. Please reduce the length of the messages or completion."
    )]
    ContextLength {
        /// Tokens the model can hold.
        limit: u32,
        /// Tokens asked for.
        requested: u32,
    },
    /// No provider that was asked has the memory for prompt and answer.
    #[error(
        "the request is too large for every provider of {model} that was asked: {message}; shorten the prompt, ask for fewer tokens, or find a provider with more cache (provide.kv_mib)"
    )]
    TooLarge {
        /// As asked for.
        model: String,
        /// What the last of them said: what the job needs, and what it has.
        message: String,
    },
    /// The request itself is wrong.
    #[error("{parameter}: {message}")]
    Invalid {
        /// Which parameter.
        parameter: String,
        /// What is wrong with it.
        message: String,
    },
    /// Every provider is at its limit.
    #[error("every provider is busy; try again in {retry_after_ms} ms")]
    Busy {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// Providers were found but none could finish.
    #[error("no provider finished the answer: {}", trail.join("; "))]
    Failed {
        /// Each attempt with its reason.
        trail: Vec<String>,
    },
    /// An answer came and did not survive its check.
    #[error("the answer of {provider} was refused: {reason}; evidence: {evidence}")]
    Refused {
        /// Peer id.
        provider: String,
        /// What differs.
        reason: String,
        /// Path of the evidence file.
        evidence: String,
    },
    /// The deadline passed.
    #[error("the deadline of {deadline_ms} ms passed")]
    Deadline {
        /// The deadline.
        deadline_ms: u64,
    },
    /// This node is stopping or its disk failed.
    #[error("this node cannot take the job: {0}")]
    Unavailable(String),
}

/// An answer under way.
pub struct Answer {
    events: mpsc::Receiver<Result<AnswerEvent, AskError>>,
    _cancel: oneshot::Sender<()>,
}

impl Answer {
    /// An answer that yields what is sent into `events` and drops `cancel` when it is dropped.
    pub(crate) fn new(
        events: mpsc::Receiver<Result<AnswerEvent, AskError>>,
        cancel: oneshot::Sender<()>,
    ) -> Answer {
        Answer { events, _cancel: cancel }
    }

    /// The next event; `None` after [`AnswerEvent::Done`] or an error.
    pub async fn next(&mut self) -> Option<Result<AnswerEvent, AskError>> {
        self.events.recv().await
    }

    /// Collects the whole text.
    ///
    /// # Errors
    /// As the job ends; text that arrived before a failed check is not returned.
    pub async fn text(mut self) -> Result<(String, Outcome), AskError> {
        let mut text = String::new();
        while let Some(event) = self.next().await {
            match event? {
                AnswerEvent::Delta { text: piece, .. } => text.push_str(&piece),
                AnswerEvent::Done(outcome) => return Ok((text, *outcome)),
                _ => {}
            }
        }
        Err(AskError::Unavailable("the node stopped".into()))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// A model that can be asked for now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServedModel {
    /// Model id, 64 hex digits.
    pub id: String,
    /// Name that providers announce.
    pub name: String,
    /// Most tokens of prompt and answer together.
    pub context_length: u32,
    /// Peer ids of those who serve it.
    pub providers: Vec<String>,
    /// Peer ids of those who audit it.
    pub auditors: Vec<String>,
    /// What they announce of its costs, those who announce anything.
    #[serde(default)]
    pub prices: Vec<PeerPrice>,
}

/// What a peer announces of a model's costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPrice {
    /// Its peer id.
    pub peer: String,
    /// What it has measured on its own work.
    #[serde(flatten)]
    pub price: Price,
}

/// A peer this node knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Peer id.
    pub peer: String,
    /// Where it was reached.
    pub address: String,
    /// `quic` or `tcp`.
    pub transport: String,
    /// Round trip in microseconds, once measured.
    pub rtt_us: Option<u64>,
    /// How it was found.
    pub source: String,
    /// Names of the models it serves.
    pub serves: Vec<String>,
    /// 0 to 1000.
    pub reputation: u32,
    /// Why it is never chosen, if it is barred.
    pub barred: Option<String>,
    /// What is known of it, and the arithmetic behind that.
    #[serde(default)]
    pub record: Record,
}

/// A model that a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldModel {
    /// Short name.
    pub name: String,
    /// Model id, 64 hex digits.
    pub id: String,
    /// Whether it is served; if not, answers are recomputed with it.
    pub serves: bool,
    /// Bytes it takes when it is open, as far as its file's header tells.
    pub needs_bytes: u64,
    /// Those of its weights.
    pub weights_bytes: u64,
    /// Those that keys and values of all its jobs may take; 0 if it isn't served.
    pub cache_bytes: u64,
    /// Those that keys and values of one replay or embedding may take; there is one at a time.
    pub replay_cache_bytes: u64,
    /// Those that constrained answers need of the vocabulary.
    pub constraint_bytes: u64,
    /// Those that forward passes work in.
    pub scratch_bytes: u64,
    /// Bytes it takes; absent while it is not open.
    pub loaded_bytes: Option<u64>,
    /// What its engine does; absent while it is not open, or if it isn't served.
    pub engine: Option<EngineFigures>,
}

/// What the engine of a served model does. Counts are since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFigures {
    /// Answers in the making.
    pub jobs_active: u64,
    /// Jobs that wait for the engine.
    pub jobs_waiting: u64,
    /// Tokens of the last forward pass, of all jobs together.
    pub batch_tokens: u64,
    /// Forward passes.
    pub passes: u64,
    /// Tokens computed.
    pub computed_tokens: u64,
    /// Tokens taken over from the same client's earlier jobs.
    pub reused_tokens: u64,
    /// Bytes of a page of the cache.
    pub page_bytes: u64,
    /// Pages there may be.
    pub pages: u64,
    /// Pages in use.
    pub pages_used: u64,
    /// Pages kept for later jobs of the same clients; given up when room is needed.
    pub pages_kept: u64,
    /// Kept pages that were given up.
    pub pages_evicted: u64,
    /// Jobs that gave their pages to older ones and read their tokens again.
    pub jobs_set_back: u64,
}

/// What a node says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// This run's peer id.
    pub peer: String,
    /// `provider`, `router`, `auditor`.
    pub roles: Vec<String>,
    /// Listen addresses with the peer id.
    pub addresses: Vec<String>,
    /// Names of models served here.
    pub serves: Vec<String>,
    /// Models held here, open or not.
    pub models: Vec<HeldModel>,
    /// Bytes that all open models may take together.
    pub memory_budget_bytes: u64,
    /// Times a model was let go to make room for another.
    pub evictions: u64,
    /// Connected peers.
    pub peers: usize,
    /// Jobs running here as a provider.
    pub active_jobs: u32,
    /// Jobs waiting here as a provider.
    pub queued_jobs: u32,
    /// Jobs under way as a router.
    pub asking: u32,
    /// Bytes of model files sent to others since the start.
    #[serde(default)]
    pub shared_bytes: u64,
    /// Entries of the log.
    pub log_entries: u64,
    /// What others vouch for of it, and what this node vouches for of others.
    #[serde(default)]
    pub log: LogStatus,
    /// Seconds since start.
    pub uptime_s: u64,
}

/// What witnesses say of a node's log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogStatus {
    /// Entries in the newest checkpoint that others cosigned or showed; 0 if there is none.
    pub cosigned_entries: u64,
    /// Who cosigned it.
    pub cosigners: Vec<Cosigner>,
    /// How many peers could be asked before the first signature what they saw of this log; none
    /// for a node that others take no receipts or verdicts from.
    pub asked_at_start: Option<u32>,
    /// Logs of others that this node follows as their witness.
    pub witnessed: usize,
    /// Keys that proofs in this log convict: found here, or passed on by others.
    pub convicted: usize,
    /// Why the log takes no more entries, if it does not.
    pub fault: Option<String>,
}

/// A witness's signature under a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cosigner {
    /// Who.
    pub peer: String,
    /// When, in seconds since 1970, by its own clock.
    pub unix_s: u64,
}

/// Counters of a node since its start, for metrics.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// Jobs asked for, by end: answered.
    pub answered: u64,
    /// Jobs that ended in an error other than a refusal.
    pub failed: u64,
    /// Answers refused by a check.
    pub refused: u64,
    /// Times another provider continued.
    pub failovers: u64,
    /// Audits done or ordered.
    pub audits: u64,
    /// Milliseconds spent in audits.
    pub audit_ms: u64,
    /// Tokens received.
    pub tokens_in: u64,
    /// Tokens served as a provider.
    pub tokens_out: u64,
    /// Dial failures.
    pub dial_failures: u64,
}
