//! What a node keeps: evidence of misbehaviour, and the entries of its log.
//!
//! Evidence stands alone, as a file or a log entry. That its signatures hold
//! is settled when it is decoded; whether it proves anything is for `proof`.

use peerproof_identity::PublicKey;

use crate::audit::{Case, Mismatch, Verdict};
use crate::check::{self, count, line};
use crate::codec::Codec;
use crate::job::{Opening, Receipt};
use crate::record::{AuditedBy, NetworkGroup, Note};
use crate::shape::{self, Shape};
use crate::signed::Signed;
use crate::{Digest, ModelId, WireError, limits, proto};

/// One piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A transcript that doesn't follow from the model. Anyone with the model can check it.
    WrongAnswer(WrongAnswer),
    /// Two receipts with one number under one key. Anyone can check it.
    Equivocation(Equivocation),
    /// Two checkpoints of one log that no single history has. Anyone can check it.
    Fork(Fork),
    /// A fraud proof, by its hash. Anyone who has the file can check it.
    Fraud(FraudClaim),
    /// What only this node saw. Nobody else can check it.
    Observation(Observation),
    /// A verdict that its case does not bear out. Anyone with the model can check it.
    FalseVerdict(FalseVerdict),
}

/// A verdict that a recomputation of its case does not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FalseVerdict {
    /// The job that was judged.
    pub case: Case,
    /// What the auditor signed.
    pub verdict: Signed<Verdict>,
}

/// A receipt that a recomputation contradicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongAnswer {
    /// The job.
    pub case: Case,
    /// Where it goes wrong.
    pub mismatch: Mismatch,
    /// The provider's own leaf at that position, if it opened it.
    pub opening: Option<Opening>,
    /// What auditors said of it.
    pub verdicts: Vec<Signed<Verdict>>,
}

/// Two receipts that an honest provider can't both sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// One.
    pub first: Signed<Receipt>,
    /// The other.
    pub second: Signed<Receipt>,
}

/// Two signed checkpoints that an honest log can't both have. Whether their
/// signatures hold and whether they exclude each other is for `log` to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Whose log it is.
    pub key: PublicKey,
    /// The signed note of the smaller one, or of either.
    pub first: String,
    /// The signed note of the other.
    pub second: String,
    /// What the second one holds of the first; empty if both have one size.
    pub path: Vec<Digest>,
}

/// Where a fraud proof is to be had: from whoever passes this on, by its hash. What it
/// says is worth nothing until the file was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FraudClaim {
    /// Whom the file convicts.
    pub accused: PublicKey,
    /// The job, by its offer's id.
    pub job: Digest,
    /// BLAKE3 of the whole file.
    pub file: Digest,
    /// Its length.
    pub bytes: u64,
}

/// Something that was seen and not signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Whom it concerns.
    pub provider: PublicKey,
    /// What happened: one line.
    pub reason: String,
    /// The job, if it came far enough.
    pub case: Option<Case>,
}

impl Observation {
    /// An observation; the reason is made one line and cut to its limit.
    pub fn new(provider: PublicKey, reason: impl AsRef<str>, case: Option<Case>) -> Self {
        Self { provider, reason: check::to_line(reason.as_ref(), limits::MAX_REASON_BYTES), case }
    }
}

/// One entry of a node's append-only log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When it was appended, by the node's clock.
    pub unix_ms: u64,
    /// What was appended.
    pub body: LogBody,
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogBody {
    /// A receipt this node issued.
    Receipt(Signed<Receipt>),
    /// A verdict this node issued.
    Verdict(Signed<Verdict>),
    /// Evidence this node holds.
    Evidence(Evidence),
    /// An answer this node checked.
    Accepted(AcceptedAnswer),
    /// What only this node's own arithmetic needs.
    Note(Note),
}

/// An answer that passed the checks its offer asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedAnswer {
    /// Id of the signed receipt.
    pub receipt_id: Digest,
    /// Who answered.
    pub provider: PublicKey,
    /// With which model.
    pub model_id: ModelId,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// From offer to first token.
    pub first_token_ms: u32,
    /// From offer to receipt.
    pub total_ms: u32,
    /// Whether every leaf was recomputed.
    pub audited: bool,
    /// Where the provider answered from.
    pub group: NetworkGroup,
    /// The other node that recomputed, if one did.
    pub auditor: Option<AuditedBy>,
}

impl Codec for Evidence {
    type Proto = proto::Evidence;
    const NAME: &'static str = "evidence";
    const MAX_BYTES: usize = limits::MAX_EVIDENCE_BYTES;
    const SHAPE: &'static Shape = &shape::EVIDENCE;

    fn to_proto(&self) -> proto::Evidence {
        use proto::evidence::Kind;
        let kind = match self {
            Self::WrongAnswer(wrong) => Kind::WrongAnswer(wrong.to_proto()),
            Self::Equivocation(both) => Kind::Equivocation(both.to_proto()),
            Self::Fork(fork) => Kind::Fork(fork.to_proto()),
            Self::Fraud(claim) => Kind::Fraud(claim.to_proto()),
            Self::Observation(seen) => Kind::Observation(seen.to_proto()),
            Self::FalseVerdict(said) => Kind::FalseVerdict(said.to_proto()),
        };
        proto::Evidence { kind: Some(kind) }
    }

    fn from_proto(proto: proto::Evidence) -> Result<Self, WireError> {
        use proto::evidence::Kind;
        Ok(match check::required("evidence", proto.kind)? {
            Kind::WrongAnswer(wrong) => Self::WrongAnswer(WrongAnswer::from_proto(wrong)?),
            Kind::Equivocation(both) => Self::Equivocation(Equivocation::from_proto(both)?),
            Kind::Fork(fork) => Self::Fork(Fork::from_proto(fork)?),
            Kind::Fraud(claim) => Self::Fraud(FraudClaim::from_proto(claim)?),
            Kind::Observation(seen) => Self::Observation(Observation::from_proto(seen)?),
            Kind::FalseVerdict(said) => Self::FalseVerdict(FalseVerdict::from_proto(said)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::WrongAnswer(wrong) => wrong.check(),
            Self::Equivocation(both) => both.check(),
            Self::Fork(fork) => fork.check(),
            Self::Fraud(claim) => claim.check(),
            Self::Observation(seen) => seen.check(),
            Self::FalseVerdict(said) => said.check(),
        }
    }
}

impl Codec for WrongAnswer {
    type Proto = proto::WrongAnswer;
    const NAME: &'static str = "wrong answer";
    const MAX_BYTES: usize = limits::MAX_EVIDENCE_BYTES;
    const SHAPE: &'static Shape = &shape::WRONG_ANSWER;

    fn to_proto(&self) -> proto::WrongAnswer {
        proto::WrongAnswer {
            case: Some(self.case.to_proto()),
            mismatch: Some(self.mismatch.to_proto()),
            opening: self.opening.as_ref().map(Opening::to_proto),
            verdicts: self.verdicts.iter().filter_map(Signed::to_proto).collect(),
        }
    }

    fn from_proto(proto: proto::WrongAnswer) -> Result<Self, WireError> {
        // Each verdict costs a signature check, so their number comes first.
        let place = "wrong_answer.verdicts";
        count(place, proto.verdicts.len(), limits::MAX_VERDICTS)?;
        let verdicts = proto.verdicts.into_iter();
        let verdicts = verdicts.map(|verdict| Signed::from_proto(place, Some(verdict)));
        Ok(Self {
            case: Case::from_proto(check::required("wrong_answer.case", proto.case)?)?,
            mismatch: Mismatch::from_proto(check::required(
                "wrong_answer.mismatch",
                proto.mismatch,
            )?)?,
            opening: proto.opening.map(Opening::from_proto).transpose()?,
            verdicts: verdicts.collect::<Result<_, _>>()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let place = "wrong_answer.verdicts";
        count(place, self.verdicts.len(), limits::MAX_VERDICTS)?;
        self.case.check()?;
        self.mismatch.check()?;
        self.opening.as_ref().map_or(Ok(()), Opening::check)
    }
}

impl Codec for Equivocation {
    type Proto = proto::Equivocation;
    const NAME: &'static str = "equivocation";
    const MAX_BYTES: usize = limits::MAX_EVIDENCE_BYTES;
    const SHAPE: &'static Shape = &shape::EQUIVOCATION;

    fn to_proto(&self) -> proto::Equivocation {
        proto::Equivocation { first: self.first.to_proto(), second: self.second.to_proto() }
    }

    fn from_proto(proto: proto::Equivocation) -> Result<Self, WireError> {
        Ok(Self {
            first: Signed::from_proto("equivocation.first", proto.first)?,
            second: Signed::from_proto("equivocation.second", proto.second)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

impl Codec for Fork {
    type Proto = proto::Fork;
    const NAME: &'static str = "fork";
    const MAX_BYTES: usize = limits::MAX_EVIDENCE_BYTES;
    const SHAPE: &'static Shape = &shape::FORK;

    fn to_proto(&self) -> proto::Fork {
        proto::Fork {
            key: self.key.as_bytes().to_vec(),
            first: self.first.clone(),
            second: self.second.clone(),
            path: check::join(&self.path),
        }
    }

    fn from_proto(proto: proto::Fork) -> Result<Self, WireError> {
        Ok(Self {
            key: check::public_key("fork.key", &proto.key)?,
            first: proto.first,
            second: proto.second,
            path: check::digests("fork.path", &proto.path, limits::MAX_PATH_HASHES)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check::not_empty("fork.first", self.first.is_empty())?;
        count("fork.first", self.first.len(), limits::MAX_CHECKPOINT_BYTES)?;
        check::not_empty("fork.second", self.second.is_empty())?;
        count("fork.second", self.second.len(), limits::MAX_CHECKPOINT_BYTES)?;
        count("fork.path", self.path.len(), limits::MAX_PATH_HASHES)
    }
}

impl Codec for FraudClaim {
    type Proto = proto::FraudClaim;
    const NAME: &'static str = "fraud claim";
    const MAX_BYTES: usize = limits::MAX_EVIDENCE_BYTES;
    const SHAPE: &'static Shape = &shape::FRAUD_CLAIM;

    fn to_proto(&self) -> proto::FraudClaim {
        proto::FraudClaim {
            accused: self.accused.as_bytes().to_vec(),
            job: self.job.as_bytes().to_vec(),
            file: self.file.as_bytes().to_vec(),
            bytes: self.bytes,
        }
    }

    fn from_proto(proto: proto::FraudClaim) -> Result<Self, WireError> {
        Ok(Self {
            accused: check::public_key("fraud_claim.accused", &proto.accused)?,
            job: check::digest("fraud_claim.job", &proto.job)?,
            file: check::digest("fraud_claim.file", &proto.file)?,
            bytes: proto.bytes,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check::not_empty("fraud_claim.bytes", self.bytes == 0)?;
        let most = limits::MAX_FRAUD_FILE_BYTES as u64;
        check::at_most("fraud_claim.bytes", self.bytes, most)
    }
}

impl Codec for Observation {
    type Proto = proto::Observation;
    const NAME: &'static str = "observation";
    const MAX_BYTES: usize = limits::MAX_EVIDENCE_BYTES;
    const SHAPE: &'static Shape = &shape::OBSERVATION;

    fn to_proto(&self) -> proto::Observation {
        proto::Observation {
            provider: self.provider.as_bytes().to_vec(),
            reason: self.reason.clone(),
            case: self.case.as_ref().map(Case::to_proto),
        }
    }

    fn from_proto(proto: proto::Observation) -> Result<Self, WireError> {
        Ok(Self {
            provider: check::public_key("observation.provider", &proto.provider)?,
            reason: proto.reason,
            case: proto.case.map(Case::from_proto).transpose()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check::not_empty("observation.reason", self.reason.is_empty())?;
        line("observation.reason", &self.reason, limits::MAX_REASON_BYTES)?;
        self.case.as_ref().map_or(Ok(()), Case::check)
    }
}

impl Codec for FalseVerdict {
    type Proto = proto::FalseVerdict;
    const NAME: &'static str = "false verdict";
    const MAX_BYTES: usize = limits::MAX_EVIDENCE_BYTES;
    const SHAPE: &'static Shape = &shape::FALSE_VERDICT;

    fn to_proto(&self) -> proto::FalseVerdict {
        proto::FalseVerdict { case: Some(self.case.to_proto()), verdict: self.verdict.to_proto() }
    }

    fn from_proto(proto: proto::FalseVerdict) -> Result<Self, WireError> {
        Ok(Self {
            case: Case::from_proto(check::required("false_verdict.case", proto.case)?)?,
            verdict: Signed::from_proto("false_verdict.verdict", proto.verdict)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.case.check()
    }
}

impl Codec for LogEntry {
    type Proto = proto::LogEntry;
    const NAME: &'static str = "log entry";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::LOG_ENTRY;

    fn to_proto(&self) -> proto::LogEntry {
        use proto::log_entry::Entry;
        let entry = match &self.body {
            LogBody::Receipt(receipt) => receipt.to_proto().map(Entry::Receipt),
            LogBody::Verdict(verdict) => verdict.to_proto().map(Entry::Verdict),
            LogBody::Evidence(evidence) => Some(Entry::Evidence(evidence.to_proto())),
            LogBody::Accepted(accepted) => Some(Entry::Accepted(accepted.to_proto())),
            LogBody::Note(_) => None,
        };
        let note = match &self.body {
            LogBody::Note(note) => Some(note.to_proto()),
            _ => None,
        };
        proto::LogEntry { entry, unix_ms: self.unix_ms, note }
    }

    fn from_proto(proto: proto::LogEntry) -> Result<Self, WireError> {
        use proto::log_entry::Entry;
        // An entry beside a note falls to the comparison with the re-encoding.
        if let Some(note) = proto.note {
            let body = LogBody::Note(Note::from_proto(note)?);
            return Ok(Self { unix_ms: proto.unix_ms, body });
        }
        let body = match check::required("log_entry.entry", proto.entry)? {
            Entry::Receipt(receipt) => {
                LogBody::Receipt(Signed::from_proto("log_entry.receipt", Some(receipt))?)
            }
            Entry::Verdict(verdict) => {
                LogBody::Verdict(Signed::from_proto("log_entry.verdict", Some(verdict))?)
            }
            Entry::Evidence(evidence) => LogBody::Evidence(Evidence::from_proto(evidence)?),
            Entry::Accepted(accepted) => LogBody::Accepted(AcceptedAnswer::from_proto(accepted)?),
        };
        Ok(Self { unix_ms: proto.unix_ms, body })
    }

    fn check(&self) -> Result<(), WireError> {
        match &self.body {
            LogBody::Receipt(_) | LogBody::Verdict(_) => Ok(()),
            LogBody::Evidence(evidence) => evidence.check(),
            LogBody::Accepted(accepted) => accepted.check(),
            LogBody::Note(note) => note.check(),
        }
    }
}

impl Codec for AcceptedAnswer {
    type Proto = proto::AcceptedAnswer;
    const NAME: &'static str = "accepted answer";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::ACCEPTED_ANSWER;

    fn to_proto(&self) -> proto::AcceptedAnswer {
        proto::AcceptedAnswer {
            receipt_id: self.receipt_id.as_bytes().to_vec(),
            provider: self.provider.as_bytes().to_vec(),
            model_id: self.model_id.as_bytes().to_vec(),
            output_tokens: self.output_tokens,
            first_token_ms: self.first_token_ms,
            total_ms: self.total_ms,
            audited: self.audited,
            group: self.group.to_bytes(),
            auditor: self.auditor.map(|by| by.auditor.as_bytes().to_vec()).unwrap_or_default(),
            auditor_group: self.auditor.map(|by| by.group.to_bytes()).unwrap_or_default(),
            drawn: self.auditor.is_some_and(|by| by.drawn),
        }
    }

    fn from_proto(proto: proto::AcceptedAnswer) -> Result<Self, WireError> {
        let auditor = match proto.auditor.is_empty() {
            // What speaks of an auditor without one falls to the comparison with the re-encoding.
            true => None,
            false => Some(AuditedBy {
                auditor: check::public_key("accepted_answer.auditor", &proto.auditor)?,
                group: NetworkGroup::from_bytes(
                    "accepted_answer.auditor_group",
                    &proto.auditor_group,
                )?,
                drawn: proto.drawn,
            }),
        };
        Ok(Self {
            receipt_id: check::digest("accepted_answer.receipt_id", &proto.receipt_id)?,
            provider: check::public_key("accepted_answer.provider", &proto.provider)?,
            model_id: check::model_id("accepted_answer.model_id", &proto.model_id)?,
            output_tokens: proto.output_tokens,
            first_token_ms: proto.first_token_ms,
            total_ms: proto.total_ms,
            audited: proto.audited,
            group: NetworkGroup::from_bytes("accepted_answer.group", &proto.group)?,
            auditor,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check::at_most(
            "accepted_answer.output_tokens",
            self.output_tokens.into(),
            limits::MAX_ANSWER_TOKENS.into(),
        )
    }
}
