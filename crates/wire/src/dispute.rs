//! The dispute conversation, [`DISPUTE_PROTOCOL`](crate::DISPUTE_PROTOCOL), and the
//! small proof that may come of it.
//!
//! A provider that is accused of a wrong cell signs a [`Trace`]: digests of every row
//! that the cell goes through. Whoever accuses asks for the first row that differs from
//! its own, and for the piece of it that does; what is left is one operation, whose
//! inputs and output stand under signed digests (`docs/spec/proof.md`, section 15).
//! Absent: rows, operations, and whether anything that is signed is right.

use peerproof_identity::Domain;

use crate::audit::AuditFailure;
use crate::check::{self, at_most, count, not_empty, within};
use crate::codec::Codec;
use crate::shape::{self, Shape};
use crate::signed::Statement;
use crate::{
    ARITHMETIC, Case, Cell, Digest, Leaf, PROTOCOL, Receipt, Signed, WireError, limits, proto,
};

/// Where a tensor's numbers stand in a model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedTensor {
    /// Which one, as the proof's specification numbers them.
    pub name: u32,
    /// Its first byte in the file.
    pub start: u64,
    /// The file's number for its format.
    pub format: u32,
    /// The exponent of its integers.
    pub exponent: i32,
}

/// What a single operation takes of a model file's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceLayout {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Layers of the model.
    pub layers: u32,
    /// Integers of a residual row.
    pub width: u32,
    /// Query heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Dimensions of a head.
    pub head_dims: u32,
    /// Integers between gate and down.
    pub feed: u32,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// The bits of ε as a 32-bit float.
    pub epsilon: u32,
    /// Whether dimensions are rotated by halves, not by neighbours.
    pub halves: bool,
    /// Whether the gate goes through GELU.
    pub gelu: bool,
    /// What scores are multiplied with, at 2^-24.
    pub score_scale: u32,
    /// The limit of scores; 0 for none.
    pub score_cap: u32,
    /// The limit of logits; 0 for none.
    pub logit_cap: u32,
    /// What embeddings are multiplied with, at 2^-20; 0 for none.
    pub embedding_scale: u32,
    /// The first position whose keys and values the cell reads.
    pub first: u32,
    /// Cosine and sine of each rotated pair at the cell's position, 16 bits each.
    pub angles: Vec<u8>,
    /// The tensors that the cell takes, by name.
    pub tensors: Vec<TracedTensor>,
}

/// What a trace says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// Of its bytes.
    pub digest: Digest,
    /// Its exponent, if it has one of its own.
    pub exponent: i32,
    /// Which of its numbers is the extreme one, where that matters.
    pub index: u32,
}

/// One output of one head of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePart {
    /// The head.
    pub head: u32,
    /// The dimension.
    pub dim: u32,
}

/// What a provider says happened within a cell of an answer that it signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Id of the signed receipt.
    pub receipt_id: Digest,
    /// The cell.
    pub cell: Cell,
    /// The output of a head that the rows are of; `None` for the cell as a whole.
    pub part: Option<TracePart>,
    /// What was taken from the model file's header.
    pub layout: TraceLayout,
    /// The rows, in the order of the specification.
    pub rows: Vec<TraceRow>,
}

impl Statement for Trace {
    const DOMAIN: Domain = Domain::Trace;
}

/// Opens a dispute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisputeOpen {
    /// The answer.
    pub case: Case,
    /// The preimage of the offer's `client_nonce_hash`.
    pub client_nonce: [u8; 32],
    /// The cell that is said to be wrong.
    pub cell: Cell,
}

/// Asks for the first chunk of a row that differs from the asker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowRequest {
    /// The row.
    pub row: u32,
    /// Of the asker's own row: the first 8 bytes of the BLAKE3 of each 1024 bytes.
    pub chunks: Vec<u8>,
}

/// What is asked in a dispute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisputeRequest {
    /// For the trace of a cell; comes first.
    Open(DisputeOpen),
    /// For a piece of a row of the last trace.
    Row(RowRequest),
    /// For the trace of one output of a head.
    Part(TracePart),
}

/// A chunk of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChunk {
    /// Which one, from 0.
    pub chunk: u32,
    /// Its bytes, after those of the one before it if there is one.
    pub bytes: Vec<u8>,
    /// The values beside them.
    pub hashes: Vec<Digest>,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisputeReply {
    /// A trace.
    Trace(Signed<Trace>),
    /// A piece of a row.
    Chunk(RowChunk),
    /// Nothing more is shown.
    Failure(AuditFailure),
}

/// Bytes out of something whose digest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Whole groups.
    pub bytes: Vec<u8>,
    /// The values beside them.
    pub hashes: Vec<Digest>,
}

/// One operation that does not follow, with all that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisputeProof {
    /// The receipt of the accused.
    pub receipt: Signed<Receipt>,
    /// The leaf of the cell's position.
    pub leaf: Leaf,
    /// Sibling hashes from the leaf upward.
    pub path: Vec<Digest>,
    /// What the accused signed of the cell.
    pub trace: Signed<Trace>,
    /// What it signed of one output of a head, where that is the matter.
    pub part: Option<Signed<Trace>>,
    /// The operation, as the specification numbers them.
    pub operation: u32,
    /// Which of its outputs.
    pub index: u32,
    /// Digest of each layer's keys and values, where some are opened.
    pub kv_layers: Vec<Digest>,
    /// Digest of each page of this layer's.
    pub kv_pages: Vec<Digest>,
    /// What the operation reads and gave, in the order of the specification.
    pub stretches: Vec<Stretch>,
}

impl Codec for TracedTensor {
    type Proto = proto::TracedTensor;
    const NAME: &'static str = "traced tensor";
    const MAX_BYTES: usize = limits::MAX_TRACE_BYTES;
    const SHAPE: &'static Shape = &shape::TRACED_TENSOR;

    fn to_proto(&self) -> proto::TracedTensor {
        let Self { name, start, format, exponent } = *self;
        proto::TracedTensor { name, start, format, exponent }
    }

    fn from_proto(proto: proto::TracedTensor) -> Result<Self, WireError> {
        let proto::TracedTensor { name, start, format, exponent } = proto;
        Ok(Self { name, start, format, exponent })
    }

    fn check(&self) -> Result<(), WireError> {
        let names = limits::MAX_TRACED_TENSORS as u64;
        within("trace.layout.tensors.name", self.name.into(), 1, names)?;
        at_most("trace.layout.tensors.start", self.start, limits::MAX_FILE_BYTES)?;
        exponent("trace.layout.tensors.exponent", self.exponent)
    }
}

impl Codec for TraceLayout {
    type Proto = proto::TraceLayout;
    const NAME: &'static str = "trace layout";
    const MAX_BYTES: usize = limits::MAX_TRACE_BYTES;
    const SHAPE: &'static Shape = &shape::TRACE_LAYOUT;

    fn to_proto(&self) -> proto::TraceLayout {
        proto::TraceLayout {
            file_bytes: self.file_bytes,
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dims: self.head_dims,
            feed: self.feed,
            vocabulary: self.vocabulary,
            epsilon: self.epsilon,
            halves: self.halves,
            gelu: self.gelu,
            score_scale: self.score_scale,
            score_cap: self.score_cap,
            logit_cap: self.logit_cap,
            embedding_scale: self.embedding_scale,
            first: self.first,
            angles: self.angles.clone(),
            tensors: self.tensors.iter().map(TracedTensor::to_proto).collect(),
        }
    }

    fn from_proto(proto: proto::TraceLayout) -> Result<Self, WireError> {
        let tensors = proto.tensors.into_iter().map(TracedTensor::from_proto);
        Ok(Self {
            file_bytes: proto.file_bytes,
            layers: proto.layers,
            width: proto.width,
            heads: proto.heads,
            kv_heads: proto.kv_heads,
            head_dims: proto.head_dims,
            feed: proto.feed,
            vocabulary: proto.vocabulary,
            epsilon: proto.epsilon,
            halves: proto.halves,
            gelu: proto.gelu,
            score_scale: proto.score_scale,
            score_cap: proto.score_cap,
            logit_cap: proto.logit_cap,
            embedding_scale: proto.embedding_scale,
            first: proto.first,
            angles: proto.angles,
            tensors: tensors.collect::<Result<_, _>>()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("trace.layout.file_bytes", self.file_bytes, limits::MAX_FILE_BYTES)?;
        count("trace.layout.angles", self.angles.len(), limits::MAX_ANGLES_BYTES)?;
        count("trace.layout.tensors", self.tensors.len(), limits::MAX_TRACED_TENSORS)?;
        self.tensors.iter().try_for_each(TracedTensor::check)
    }
}

impl Codec for TraceRow {
    type Proto = proto::TraceRow;
    const NAME: &'static str = "trace row";
    const MAX_BYTES: usize = limits::MAX_TRACE_BYTES;
    const SHAPE: &'static Shape = &shape::TRACE_ROW;

    fn to_proto(&self) -> proto::TraceRow {
        let Self { digest, exponent, index } = *self;
        proto::TraceRow { digest: digest.as_bytes().to_vec(), exponent, index }
    }

    fn from_proto(proto: proto::TraceRow) -> Result<Self, WireError> {
        let digest = check::digest("trace.rows.digest", &proto.digest)?;
        Ok(Self { digest, exponent: proto.exponent, index: proto.index })
    }

    fn check(&self) -> Result<(), WireError> {
        exponent("trace.rows.exponent", self.exponent)
    }
}

impl Codec for TracePart {
    type Proto = proto::TracePart;
    const NAME: &'static str = "trace part";
    const MAX_BYTES: usize = limits::MAX_TRACE_BYTES;
    const SHAPE: &'static Shape = &shape::TRACE_PART;

    fn to_proto(&self) -> proto::TracePart {
        proto::TracePart { head: self.head, dim: self.dim }
    }

    fn from_proto(proto: proto::TracePart) -> Result<Self, WireError> {
        Ok(Self { head: proto.head, dim: proto.dim })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

impl Codec for Trace {
    type Proto = proto::Trace;
    const NAME: &'static str = "trace";
    const MAX_BYTES: usize = limits::MAX_TRACE_BYTES;
    const SHAPE: &'static Shape = &shape::TRACE;

    fn to_proto(&self) -> proto::Trace {
        proto::Trace {
            protocol: PROTOCOL,
            arithmetic: ARITHMETIC,
            receipt_id: self.receipt_id.as_bytes().to_vec(),
            cell: Some(self.cell.to_proto()),
            part: self.part.map(|part| part.to_proto()),
            layout: Some(self.layout.to_proto()),
            rows: self.rows.iter().map(TraceRow::to_proto).collect(),
        }
    }

    fn from_proto(proto: proto::Trace) -> Result<Self, WireError> {
        check::version("trace.protocol", proto.protocol, PROTOCOL)?;
        check::version("trace.arithmetic", proto.arithmetic, ARITHMETIC)?;
        let layout = check::required("trace.layout", proto.layout)?;
        Ok(Self {
            receipt_id: check::digest("trace.receipt_id", &proto.receipt_id)?,
            cell: Cell::from_proto(check::required("trace.cell", proto.cell)?)?,
            part: proto.part.map(TracePart::from_proto).transpose()?,
            layout: TraceLayout::from_proto(layout)?,
            rows: proto.rows.into_iter().map(TraceRow::from_proto).collect::<Result<_, _>>()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.cell.check()?;
        self.layout.check()?;
        not_empty("trace.rows", self.rows.is_empty())?;
        count("trace.rows", self.rows.len(), limits::MAX_TRACE_ROWS)?;
        self.rows.iter().try_for_each(TraceRow::check)
    }
}

impl Codec for DisputeOpen {
    type Proto = proto::DisputeOpen;
    const NAME: &'static str = "dispute open";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::DISPUTE_OPEN;

    fn to_proto(&self) -> proto::DisputeOpen {
        proto::DisputeOpen {
            case: Some(self.case.to_proto()),
            client_nonce: self.client_nonce.to_vec(),
            cell: Some(self.cell.to_proto()),
        }
    }

    fn from_proto(proto: proto::DisputeOpen) -> Result<Self, WireError> {
        Ok(Self {
            case: Case::from_proto(check::required("dispute_open.case", proto.case)?)?,
            client_nonce: check::array("dispute_open.client_nonce", &proto.client_nonce)?,
            cell: Cell::from_proto(check::required("dispute_open.cell", proto.cell)?)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.case.check()?;
        self.cell.check()
    }
}

impl Codec for RowRequest {
    type Proto = proto::RowRequest;
    const NAME: &'static str = "row request";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::ROW_REQUEST;

    fn to_proto(&self) -> proto::RowRequest {
        proto::RowRequest { row: self.row, chunks: self.chunks.clone() }
    }

    fn from_proto(proto: proto::RowRequest) -> Result<Self, WireError> {
        Ok(Self { row: proto.row, chunks: proto.chunks })
    }

    fn check(&self) -> Result<(), WireError> {
        not_empty("row_request.chunks", self.chunks.is_empty())?;
        count("row_request.chunks", self.chunks.len(), limits::MAX_ROW_CHUNKS_BYTES)
    }
}

impl Codec for DisputeRequest {
    type Proto = proto::DisputeRequest;
    const NAME: &'static str = "dispute request";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::DISPUTE_REQUEST;

    fn to_proto(&self) -> proto::DisputeRequest {
        use proto::dispute_request::Request;
        let request = match self {
            Self::Open(open) => Request::Open(open.to_proto()),
            Self::Row(row) => Request::Row(row.to_proto()),
            Self::Part(part) => Request::Part(part.to_proto()),
        };
        proto::DisputeRequest { request: Some(request) }
    }

    fn from_proto(proto: proto::DisputeRequest) -> Result<Self, WireError> {
        use proto::dispute_request::Request;
        Ok(match check::required("dispute request", proto.request)? {
            Request::Open(open) => Self::Open(DisputeOpen::from_proto(open)?),
            Request::Row(row) => Self::Row(RowRequest::from_proto(row)?),
            Request::Part(part) => Self::Part(TracePart::from_proto(part)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Open(open) => open.check(),
            Self::Row(row) => row.check(),
            Self::Part(part) => part.check(),
        }
    }
}

impl Codec for RowChunk {
    type Proto = proto::RowChunk;
    const NAME: &'static str = "row chunk";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::ROW_CHUNK;

    fn to_proto(&self) -> proto::RowChunk {
        let (chunk, bytes) = (self.chunk, self.bytes.clone());
        proto::RowChunk { chunk, bytes, hashes: check::join(&self.hashes) }
    }

    fn from_proto(proto: proto::RowChunk) -> Result<Self, WireError> {
        let beside = limits::MAX_RANGE_HASHES;
        let hashes = check::digests("row_chunk.hashes", &proto.hashes, beside)?;
        Ok(Self { chunk: proto.chunk, bytes: proto.bytes, hashes })
    }

    fn check(&self) -> Result<(), WireError> {
        not_empty("row_chunk.bytes", self.bytes.is_empty())?;
        count("row_chunk.bytes", self.bytes.len(), limits::MAX_ROW_CHUNK_BYTES)?;
        count("row_chunk.hashes", self.hashes.len(), limits::MAX_RANGE_HASHES)
    }
}

impl Codec for DisputeReply {
    type Proto = proto::DisputeReply;
    const NAME: &'static str = "dispute reply";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::DISPUTE_REPLY;

    fn to_proto(&self) -> proto::DisputeReply {
        use proto::dispute_reply::Reply;
        let reply = match self {
            Self::Trace(trace) => trace.to_proto().map(Reply::Trace),
            Self::Chunk(chunk) => Some(Reply::Chunk(chunk.to_proto())),
            Self::Failure(failure) => Some(Reply::Failure(failure.to_proto())),
        };
        proto::DisputeReply { reply }
    }

    fn from_proto(proto: proto::DisputeReply) -> Result<Self, WireError> {
        use proto::dispute_reply::Reply;
        Ok(match check::required("dispute reply", proto.reply)? {
            Reply::Trace(trace) => {
                Self::Trace(Signed::from_proto("dispute_reply.trace", Some(trace))?)
            }
            Reply::Chunk(chunk) => Self::Chunk(RowChunk::from_proto(chunk)?),
            Reply::Failure(failure) => Self::Failure(AuditFailure::from_proto(failure)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            // An envelope is opened as it is decoded.
            Self::Trace(_) => Ok(()),
            Self::Chunk(chunk) => chunk.check(),
            Self::Failure(failure) => failure.check(),
        }
    }
}

impl Codec for Stretch {
    type Proto = proto::Stretch;
    const NAME: &'static str = "stretch";
    const MAX_BYTES: usize = limits::MAX_DISPUTE_PROOF_BYTES;
    const SHAPE: &'static Shape = &shape::STRETCH;

    fn to_proto(&self) -> proto::Stretch {
        proto::Stretch { bytes: self.bytes.clone(), hashes: check::join(&self.hashes) }
    }

    fn from_proto(proto: proto::Stretch) -> Result<Self, WireError> {
        let (place, beside) = ("dispute_proof.stretches.hashes", limits::MAX_RANGE_HASHES);
        Ok(Self { bytes: proto.bytes, hashes: check::digests(place, &proto.hashes, beside)? })
    }

    fn check(&self) -> Result<(), WireError> {
        not_empty("dispute_proof.stretches.bytes", self.bytes.is_empty())?;
        let most = limits::MAX_DISPUTE_PROOF_BYTES;
        count("dispute_proof.stretches.bytes", self.bytes.len(), most)?;
        count("dispute_proof.stretches.hashes", self.hashes.len(), limits::MAX_RANGE_HASHES)
    }
}

impl Codec for DisputeProof {
    type Proto = proto::DisputeProof;
    const NAME: &'static str = "dispute proof";
    const MAX_BYTES: usize = limits::MAX_DISPUTE_PROOF_BYTES;
    const SHAPE: &'static Shape = &shape::DISPUTE_PROOF;

    fn to_proto(&self) -> proto::DisputeProof {
        proto::DisputeProof {
            receipt: self.receipt.to_proto(),
            leaf: Some(self.leaf.to_proto()),
            path: check::join(&self.path),
            trace: self.trace.to_proto(),
            part: self.part.as_ref().and_then(Signed::to_proto),
            operation: self.operation,
            index: self.index,
            kv_layers: check::join(&self.kv_layers),
            kv_pages: check::join(&self.kv_pages),
            stretches: self.stretches.iter().map(Stretch::to_proto).collect(),
        }
    }

    fn from_proto(proto: proto::DisputeProof) -> Result<Self, WireError> {
        let part = |part| Signed::from_proto("dispute_proof.part", Some(part));
        let (layers, pages) = (limits::MAX_LAYERS, limits::MAX_KV_PAGES);
        let stretches = proto.stretches.into_iter().map(Stretch::from_proto);
        Ok(Self {
            receipt: Signed::from_proto("dispute_proof.receipt", proto.receipt)?,
            leaf: Leaf::from_proto(check::required("dispute_proof.leaf", proto.leaf)?)?,
            path: check::digests("dispute_proof.path", &proto.path, limits::MAX_PATH_HASHES)?,
            trace: Signed::from_proto("dispute_proof.trace", proto.trace)?,
            part: proto.part.map(part).transpose()?,
            operation: proto.operation,
            index: proto.index,
            kv_layers: check::digests("dispute_proof.kv_layers", &proto.kv_layers, layers)?,
            kv_pages: check::digests("dispute_proof.kv_pages", &proto.kv_pages, pages)?,
            stretches: stretches.collect::<Result<_, _>>()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.leaf.check()?;
        count("dispute_proof.path", self.path.len(), limits::MAX_PATH_HASHES)?;
        count("dispute_proof.kv_layers", self.kv_layers.len(), limits::MAX_LAYERS)?;
        count("dispute_proof.kv_pages", self.kv_pages.len(), limits::MAX_KV_PAGES)?;
        count("dispute_proof.stretches", self.stretches.len(), limits::MAX_STRETCHES)?;
        self.stretches.iter().try_for_each(Stretch::check)
    }
}

fn exponent(place: check::Place, exponent: i32) -> Result<(), WireError> {
    at_most(place, exponent.unsigned_abs().into(), limits::MAX_TRACE_EXPONENT.into())
}
