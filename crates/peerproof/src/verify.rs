//! Checking an evidence file or a checkpoint, with nothing but the file and, if it is here, the model.
//!
//! Without the model, signatures and the claims that follow from them are
//! checked; with it, the job is run again, which decides. The result says what
//! was proven and what could not be checked, never more.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use peerproof_engine::execute::Replayer;
use peerproof_engine::model::Model;
use peerproof_engine::transformer::LoadOptions;
use peerproof_log::{CheckpointError, ForkError, MAX_NOTE_BYTES, SignedCheckpoint};
use peerproof_proof::audit::{AuditError, Recomputation, describe, verify_case};
use peerproof_proof::evidence::{self as proof, EvidenceError, Finding, Proven, Unchecked};
use peerproof_wire::evidence::{Evidence, Fork, WrongAnswer};
use peerproof_wire::{Case, ModelId};
use serde::Serialize;

use crate::client::Cosigner;
use crate::dispute::DisputeFileError;
use crate::evidence::{EvidenceFileError, read, read_all};
use crate::fraud::FraudError;
use crate::log::cosigners;
use crate::models::{Installed, ModelError, Store};
use crate::papers::{self, PapersError};
use crate::portable;

/// Why a file could not be judged, or is worth nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The file.
    #[error(transparent)]
    File(#[from] EvidenceFileError),
    /// A fraud proof that proves nothing, or can't be read.
    #[error(transparent)]
    Fraud(#[from] FraudError),
    /// A proof of a dispute that proves nothing, or can't be read.
    #[error(transparent)]
    Dispute(#[from] DisputeFileError),
    /// Papers of an answer that can't be read, or whose parts don't belong together.
    #[error(transparent)]
    Papers(#[from] PapersError),
    /// Papers whose offer, receipt and tokens don't belong together.
    #[error("{path}: {source}")]
    Answer {
        /// The file.
        path: String,
        /// What is wrong.
        source: Box<AuditError>,
    },
    /// The model store.
    #[error(transparent)]
    Store(#[from] ModelError),
    /// The model file.
    #[error("model {name}: {message}")]
    Model {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The file is no checkpoint, or not signed by its log.
    #[error("{path}: {source}")]
    Checkpoint {
        /// The file.
        path: String,
        /// What is wrong.
        source: CheckpointError,
    },
    /// The file is no fork of a log.
    #[error("{path}: {source}")]
    Fork {
        /// The file.
        path: String,
        /// Why.
        source: ForkError,
    },
    /// The file proves nothing, or accuses falsely.
    #[error("{path}: {source}")]
    Worthless {
        /// The file.
        path: String,
        /// Why.
        source: EvidenceError,
    },
}

/// What a file proves.
#[derive(Clone, Debug, Serialize)]
pub struct Judgement {
    /// Peer id of the accused.
    pub accused: String,
    /// `wrong answer`, `equivocation`, `observation`, `false verdict`, `fork`, `fraud proof`,
    /// `fraud claim` or `dispute`.
    pub kind: &'static str,
    /// The model in question, if there is one.
    pub model_id: Option<String>,
    /// Whether something is proven beyond anyone's word.
    pub proven: bool,
    /// What is proven, or why nothing is.
    pub statement: String,
    /// What could not be checked here.
    pub unchecked: Vec<String>,
    /// Whether the job was run again for this.
    pub recomputed: bool,
}

/// What a checkpoint of a log says, with its signatures checked.
#[derive(Clone, Debug, Serialize)]
pub struct Vouched {
    /// Peer id of the log's node, whose signature holds.
    pub log: String,
    /// Entries it covers.
    pub entries: u64,
    /// Root over them, in hex.
    pub root: String,
    /// Witnesses whose signatures hold.
    pub cosigners: Vec<Cosigner>,
}

/// Judges a file that is a checkpoint of a log; `None` if it is something else.
///
/// # Errors
/// [`VerifyError::Checkpoint`] if it looks like one and is none, or is not signed by its log.
pub fn checkpoint(path: &Path) -> Result<Option<Vouched>, VerifyError> {
    let failed = |source| EvidenceFileError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_NOTE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if !bytes.starts_with(b"peerproof.log/") {
        return Ok(None);
    }
    let note = SignedCheckpoint::open(&bytes)
        .map_err(|source| VerifyError::Checkpoint { path: path.display().to_string(), source })?;
    let cosigners = cosigners(&note).into_iter();
    Ok(Some(Vouched {
        log: note.signer().peer_id().to_string(),
        entries: note.size(),
        root: note.root().iter().map(|byte| format!("{byte:02x}")).collect(),
        cosigners: cosigners
            .map(|(peer, unix_s)| Cosigner { peer: peer.to_string(), unix_s })
            .collect(),
    }))
}

/// What an answer's papers are worth.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerJudgement {
    /// The job.
    pub job_id: String,
    /// Peer id of who signed the answer.
    pub provider: String,
    /// The model.
    pub model_id: String,
    /// Whether the answer follows from the model; `None` if the model is not here.
    pub holds: Option<bool>,
    /// What was found, in words.
    pub statement: String,
}

/// Judges a file that is an answer's papers, running the job again if its model is in `store`;
/// `None` if it is something else. An answer that is wrong comes with the evidence of it.
///
/// # Errors
/// It can't be read, its parts don't belong together, or the model can't be run.
pub fn answer(
    path: &Path,
    store: &Store,
    model: Option<&Installed>,
) -> Result<Option<(AnswerJudgement, Option<Evidence>)>, VerifyError> {
    let Some(case) = papers::read(path)? else { return Ok(None) };
    let worthless =
        |source| VerifyError::Answer { path: path.display().to_string(), source: Box::new(source) };
    verify_case(&case.offer, &case.receipt, &case.tokens).map_err(worthless)?;
    let id = case.offer.model_id;
    let mut judged = AnswerJudgement {
        job_id: case.offer.id().to_string(),
        provider: case.receipt.key().peer_id().to_string(),
        model_id: id.to_string(),
        holds: None,
        statement: "signatures hold; the model is not here, so nothing was recomputed".into(),
    };
    let here = model.cloned().or_else(|| store.find(&id.to_string()).ok());
    let Some(here) = here else { return Ok(Some((judged, None))) };
    let mismatch = recompute(&here, &case)?.compare(&case.receipt, None);
    judged.holds = Some(mismatch.is_none());
    let evidence = mismatch.map(|mismatch| {
        judged.statement = format!("it does not follow from the model: {}", describe(&mismatch));
        let verdicts = Vec::new();
        Evidence::WrongAnswer(WrongAnswer { case, mismatch, opening: None, verdicts })
    });
    if evidence.is_none() {
        judged.statement = "every position was recomputed on this machine, and holds".into();
    }
    Ok(Some((judged, evidence)))
}

/// Judges a file, running the job again if the model it names is in `store`.
///
/// # Errors
/// [`VerifyError::Worthless`] if the file proves nothing; otherwise why it could not be judged.
pub fn verify(
    path: &Path,
    store: &Store,
    model: Option<&Installed>,
) -> Result<Judgement, VerifyError> {
    judge(&read(path)?, path, store, model)
}

/// Judges every piece of evidence in a file, which may be one piece or a bundle of them.
///
/// # Errors
/// The file could not be read; what is wrong with a single piece is its own result.
pub fn verify_all(
    path: &Path,
    store: &Store,
    model: Option<&Installed>,
) -> Result<Vec<Result<Judgement, VerifyError>>, VerifyError> {
    if crate::dispute::is_one(path).unwrap_or(false) {
        return Ok(vec![Ok(crate::dispute::judge(&crate::dispute::read(path)?)?)]);
    }
    if crate::fraud::is_one(path).unwrap_or(false) {
        return Ok(vec![Ok(crate::fraud::judge(&crate::fraud::read(path)?)?)]);
    }
    let all = read_all(path)?;
    Ok(all.iter().map(|evidence| judge(evidence, path, store, model)).collect())
}

/// Runs the job of a case again.
pub(crate) fn recompute(model: &Installed, case: &Case) -> Result<Recomputation, VerifyError> {
    let failed = |message: String| VerifyError::Model { name: model.name.clone(), message };
    peerproof_proof::audit::recompute(&replayer(model)?, &case.offer, &case.tokens)
        .map_err(|e| failed(e.to_string()))
}

fn judge(
    evidence: &Evidence,
    path: &Path,
    store: &Store,
    model: Option<&Installed>,
) -> Result<Judgement, VerifyError> {
    if let Evidence::Fork(fork) = evidence {
        return forked(path, fork);
    }
    let model_id = case(evidence).map(|case| case.offer.model_id);
    let here = match (model, model_id) {
        (Some(model), _) => Some(model.clone()),
        (None, Some(id)) => store.find(&id.to_string()).ok(),
        (None, None) => None,
    };
    let takes_the_model = matches!(evidence, Evidence::WrongAnswer(_) | Evidence::FalseVerdict(_));
    let recomputes = here.is_some() && takes_the_model;
    let finding = match here.filter(|_| recomputes) {
        Some(model) => proof::verify_with(evidence, &replayer(&model)?),
        None => proof::verify(evidence),
    };
    let worthless = |source| VerifyError::Worthless { path: path.display().to_string(), source };
    let finding = finding.map_err(worthless)?;
    // A receipt that breaks its offer convicts before anything is run.
    let recomputed = recomputes
        && matches!(finding.proven, Some(Proven::WrongAnswer(_) | Proven::FalseVerdict(_)));
    Ok(judgement(evidence, &finding, model_id, recomputed))
}

/// Two histories of one log: the checkpoints say it all.
fn forked(path: &Path, fork: &Fork) -> Result<Judgement, VerifyError> {
    let judged = portable::fork(fork);
    let judged =
        judged.map_err(|source| VerifyError::Fork { path: path.display().to_string(), source })?;
    let [first, second] = judged.checkpoints().map(SignedCheckpoint::size);
    let statement = match first == second {
        true => format!("it signed two different histories of {first} entries as its log"),
        false => format!(
            "it signed a history of {second} entries as its log that does not continue the one of \
             {first} entries it had signed"
        ),
    };
    Ok(Judgement {
        accused: judged.signer().peer_id().to_string(),
        kind: "fork",
        model_id: None,
        proven: true,
        statement,
        unchecked: Vec::new(),
        recomputed: false,
    })
}

fn case(evidence: &Evidence) -> Option<&Case> {
    match evidence {
        Evidence::WrongAnswer(wrong) => Some(&wrong.case),
        Evidence::Observation(seen) => seen.case.as_ref(),
        Evidence::FalseVerdict(said) => Some(&said.case),
        Evidence::Equivocation(_) | Evidence::Fork(_) | Evidence::Fraud(_) => None,
    }
}

fn replayer(model: &Installed) -> Result<Replayer, VerifyError> {
    let failed = |message: String| VerifyError::Model { name: model.name.clone(), message };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let opened =
        Model::open(&model.path, &LoadOptions::default()).map_err(|e| failed(e.to_string()))?;
    Replayer::new(opened, threads).map_err(|e| failed(e.to_string()))
}

fn judgement(
    evidence: &Evidence,
    finding: &Finding,
    model_id: Option<ModelId>,
    recomputed: bool,
) -> Judgement {
    let kind = match evidence {
        Evidence::WrongAnswer(_) => "wrong answer",
        Evidence::Equivocation(_) => "equivocation",
        Evidence::Observation(_) => "observation",
        Evidence::FalseVerdict(_) => "false verdict",
        Evidence::Fork(_) => "fork",
        Evidence::Fraud(_) => "fraud claim",
    };
    let mut unchecked: Vec<String> = finding
        .unchecked
        .iter()
        .map(|what| match what {
            Unchecked::Recomputation => {
                "whether the transcript follows from the model; pull the model and run this again"
                    .to_owned()
            }
            Unchecked::Verdicts => "what attached verdicts say of the model".to_owned(),
            Unchecked::File => "the fraud proof itself; run this with that file".to_owned(),
            Unchecked::Account => "the observer's own account, which nobody else signed".to_owned(),
            _ => "something this version does not know".to_owned(),
        })
        .collect();
    unchecked.extend(finding.idle_auditors.iter().map(|key| {
        format!("auditor {} signed a verdict that a recomputation does not give", key.peer_id())
    }));
    Judgement {
        accused: finding.accused.peer_id().to_string(),
        kind,
        model_id: model_id.map(|id| id.to_string()),
        proven: finding.proven.is_some(),
        statement: statement(evidence, finding.proven.as_ref()),
        unchecked,
        recomputed,
    }
}

fn statement(evidence: &Evidence, proven: Option<&Proven>) -> String {
    match (proven, evidence) {
        (Some(Proven::WrongAnswer(mismatch)), _) => format!(
            "it signed a transcript that does not follow from the model: {}",
            describe(mismatch)
        ),
        (Some(Proven::FalseVerdict(wrong)), _) => {
            format!("it signed a verdict that its case does not bear out: {wrong}")
        }
        (Some(Proven::Equivocation { number }), _) => {
            format!("it signed two different receipts with number {number}")
        }
        (Some(Proven::Terms(error)), _) => {
            format!("it signed a receipt that breaks its offer: {error}")
        }
        (Some(Proven::Leaf(error)), _) => {
            format!("a leaf it opened contradicts its receipt: {error}")
        }
        (Some(_), _) => "something this version does not know".to_owned(),
        (None, Evidence::Observation(seen)) => format!("claimed by the observer: {}", seen.reason),
        (None, Evidence::Fraud(claim)) => format!(
            "claimed: the fraud proof with the hash {} convicts it in job {}",
            claim.file, claim.job
        ),
        (None, _) => "all signatures hold; the claim itself was not checked".to_owned(),
    }
}
