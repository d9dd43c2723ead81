//! The price of disputes, operation by operation.
//!
//! A provider that committed to a wrong cell is made to lie about each operation in turn,
//! both sides exchange what they would over the network, and the proof that comes of it is
//! judged as `verify` does. Deliberately absent: the network, and the accused's replay, which
//! is that of a spot audit.

use std::time::{Duration, Instant};

use peerproof_engine::dispute::{Lie, Next, Operation, Traced, TracedPart};
use peerproof_identity::Keypair;
use peerproof_proof::ranges::{Group, Mode, open_bytes};
use peerproof_wire::{
    Case, CellOpening, DisputeProof, Message as _, RangeSlice, RowChunk, RowRequest, Signed, Trace,
    TracePart, WeightRange,
};

use super::proving::Proving;
use super::{BenchError, engine};
use crate::dispute;
use crate::home::session_key;

/// How often each proof is judged.
const JUDGED: usize = 21;

/// One dispute.
#[derive(Clone, Copy, Debug)]
pub struct Disputed {
    /// The operation that it ended in.
    pub operation: Operation,
    /// How often the accuser asked.
    pub rounds: usize,
    /// Bytes that both sides sent, but for the case.
    pub bytes: usize,
    /// Bytes of the file.
    pub proof: usize,
    /// Judging it: the median of several times. Reading checks the signatures, too.
    pub judging: Duration,
    /// Reading it, signatures included: the median as well.
    pub reading: Duration,
}

impl Proving {
    /// A dispute about an output of every operation that a trace of a layer holds.
    ///
    /// # Errors
    /// A lie is not convicted, which is a defect.
    pub fn disputes(&self) -> Result<Vec<Disputed>, BenchError> {
        let key = session_key();
        let accused = self.disputed(&key)?;
        let mut disputed: Vec<Disputed> = Vec::new();
        for lie in Lie::all() {
            if disputed.iter().all(|one| one.operation != lie.operation) {
                disputed.push(self.dispute(&key, &accused, &lie)?);
            }
        }
        Ok(disputed)
    }

    /// One lie, narrowed and proven.
    fn dispute(
        &self,
        key: &Keypair,
        (case, opening, honest): &Accused,
        lie: &Lie,
    ) -> Result<Disputed, BenchError> {
        let mut liar = Liar { key, case, traced: honest.clone(), part: None, lie };
        lie.tell(&mut liar.traced);
        let mut accuser = self.checker().accuse(case, opening).map_err(engine("accuser"))?;
        let trace = liar.traced.statement(case.receipt.id());
        let (mut rounds, mut bytes) = (1, size(&trace)?);
        let mut next = accuser.trace(liar.sign(trace)?).map_err(engine("dispute"))?;
        let (operation, index) = loop {
            next = match next {
                Next::Prove(operation, index) => break (operation, index),
                Next::Row(row) => {
                    let chunk = liar.chunk(&row)?;
                    bytes += size(&row)? + size(&chunk)?;
                    accuser.chunk(chunk, row.row).map_err(engine("dispute"))?
                }
                Next::Part(part) => {
                    let trace = liar.show(part)?;
                    bytes += size(&part)? + size(trace.statement())?;
                    accuser.part(trace).map_err(engine("dispute"))?
                }
            };
            rounds += 1;
        };
        let ranges = accuser.file_ranges(operation, index).map_err(engine("dispute"))?;
        let weights = ranges.into_iter().map(|range| self.weight(range));
        let weights = weights.collect::<Result<Vec<_>, _>>()?;
        let proof = accuser.prove(operation, index, &weights).map_err(engine("dispute"))?;
        judged(&proof, operation, (rounds, bytes))
    }

    fn weight(&self, range: std::ops::Range<u64>) -> Result<WeightRange, BenchError> {
        let (start, length) = (range.start, range.end - range.start);
        let file = self.file();
        let slice =
            open_bytes(Mode::Plain, file, Group::KIB_16, range).map_err(engine("weights"))?;
        let file_bytes = file.len() as u64;
        let slice = RangeSlice { file_bytes, bytes: slice.bytes, hashes: slice.hashes };
        Ok(WeightRange { start, length, slice })
    }
}

/// Who signs a lie and shows what it is asked for.
struct Liar<'a> {
    key: &'a Keypair,
    case: &'a Case,
    traced: Traced,
    part: Option<TracedPart>,
    lie: &'a Lie,
}

impl Liar<'_> {
    fn sign(&self, trace: Trace) -> Result<Signed<Trace>, BenchError> {
        Signed::sign(self.key, trace).map_err(engine("trace"))
    }

    fn chunk(&self, row: &RowRequest) -> Result<RowChunk, BenchError> {
        let chunk = match &self.part {
            Some(part) => part.chunk(row),
            None => self.traced.chunk(&self.case.offer.id(), row),
        };
        chunk.ok_or_else(|| engine("dispute")("no such row"))
    }

    fn show(&mut self, part: TracePart) -> Result<Signed<Trace>, BenchError> {
        let sums = self.traced.part(part);
        let mut sums = sums.ok_or_else(|| engine("dispute")("no such head"))?;
        self.lie.tell_of_head(&mut sums);
        let trace = self.sign(sums.statement(&self.traced, self.case.receipt.id()))?;
        self.part = Some(sums);
        Ok(trace)
    }
}

/// Judges a proof as often as it takes to say how long it takes.
fn judged(
    proof: &DisputeProof,
    operation: Operation,
    (rounds, bytes): (usize, usize),
) -> Result<Disputed, BenchError> {
    let encoded = proof.encode().map_err(engine("proof"))?;
    let (mut reading, mut judging) = (Vec::new(), Vec::new());
    for _ in 0..JUDGED {
        let start = Instant::now();
        let read = DisputeProof::decode(&encoded).map_err(engine("proof"))?;
        reading.push(start.elapsed());
        let start = Instant::now();
        dispute::judge(&read).map_err(engine("proof"))?;
        judging.push(start.elapsed());
    }
    reading.sort();
    judging.sort();
    let proof = dispute::MAGIC.len() + encoded.len();
    let (judging, reading) = (judging[JUDGED / 2], reading[JUDGED / 2]);
    Ok(Disputed { operation, rounds, bytes, proof, judging, reading })
}

fn size(message: &impl peerproof_wire::Message) -> Result<usize, BenchError> {
    message.encode().map(|bytes| bytes.len()).map_err(engine("message"))
}

/// What an accused has of its cell.
pub(super) type Accused = (Case, CellOpening, Traced);
