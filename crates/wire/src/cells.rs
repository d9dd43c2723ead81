//! The cells conversation, [`CELLS_PROTOCOL`](crate::CELLS_PROTOCOL), and the
//! fraud proof that may come of it.
//!
//! A cell is one layer at one position of an answer (`docs/spec/proof.md`,
//! section 13). Whoever holds the model can open it, since every integer of an
//! honest answer follows from the case. An opening may be larger than a frame,
//! so it travels in parts. Absent: whether anything that is opened is right.

use crate::audit::AuditFailure;
use crate::check::{self, at_most, count, not_empty, within};
use crate::codec::Codec;
use crate::shape::{self, Shape};
use crate::{Case, Digest, Leaf, RangeSlice, WireError, limits, proto};

/// One layer at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Counted from the first prompt token.
    pub position: u32,
    /// Counted from 0; the number of layers stands for the head.
    pub layer: u32,
}

/// Asks for the openings of cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellsRequest {
    /// The answer.
    pub case: Case,
    /// The preimage of the offer's `client_nonce_hash`.
    pub client_nonce: [u8; 32],
    /// Which cells, each once, ascending.
    pub cells: Vec<Cell>,
    /// Whether to show the products of the cells' matrices, too.
    pub products: bool,
}

/// What a cell read and gave, each with its way to the receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellOpening {
    /// Which one.
    pub cell: Cell,
    /// The leaf of its position.
    pub leaf: Leaf,
    /// Sibling hashes from the leaf upward.
    pub path: Vec<Digest>,
    /// The groups of the leaf's rows that hold the entering and, unless the layer
    /// is the last, the leaving row. Empty for the head.
    pub rows: Vec<u8>,
    /// The values beside these groups.
    pub rows_hashes: Vec<Digest>,
    /// The state, for the last layer and the head.
    pub state: Vec<u8>,
    /// Digest of each layer's keys and values. Empty for the head.
    pub kv_layers: Vec<Digest>,
    /// Digest of each page of this layer's.
    pub kv_pages: Vec<Digest>,
    /// Whole pages, from the first that the cell reads, up to the one before its own.
    pub pages: Vec<Vec<u8>>,
    /// The groups of the cell's page up to its own row.
    pub last: Vec<u8>,
    /// The values beside these groups.
    pub last_hashes: Vec<Digest>,
    /// Products of the cell's matrices, if they were asked for: little-endian integers of
    /// 64 bits. No digest covers them.
    pub products: Vec<u8>,
}

/// A part of an opening's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellsPart {
    /// Bytes of the opening that follow.
    pub left: u64,
    /// The part.
    pub bytes: Vec<u8>,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CellsReply {
    /// A part of the next opening.
    Part(CellsPart),
    /// Nothing more is opened.
    Failure(AuditFailure),
}

/// A stretch of a model file, with what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightRange {
    /// First byte.
    pub start: u64,
    /// How many.
    pub length: u64,
    /// The groups around them.
    pub slice: RangeSlice,
}

/// A cell that does not follow from the model, and the weights that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FraudProof {
    /// The answer.
    pub case: Case,
    /// What its provider committed to.
    pub opening: CellOpening,
    /// What of the model's file it takes to see that it is wrong.
    pub weights: Vec<WeightRange>,
}

impl Codec for Cell {
    type Proto = proto::Cell;
    const NAME: &'static str = "cell";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::CELL;

    fn to_proto(&self) -> proto::Cell {
        proto::Cell { position: self.position, layer: self.layer }
    }

    fn from_proto(proto: proto::Cell) -> Result<Self, WireError> {
        Ok(Self { position: proto.position, layer: proto.layer })
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("cell.position", self.position.into(), u64::from(limits::MAX_LEAVES) - 1)?;
        at_most("cell.layer", self.layer.into(), limits::MAX_LAYERS as u64)
    }
}

impl Codec for CellsRequest {
    type Proto = proto::CellsRequest;
    const NAME: &'static str = "cells request";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::CELLS_REQUEST;

    fn to_proto(&self) -> proto::CellsRequest {
        proto::CellsRequest {
            case: Some(self.case.to_proto()),
            client_nonce: self.client_nonce.to_vec(),
            cells: self.cells.iter().map(Cell::to_proto).collect(),
            products: self.products,
        }
    }

    fn from_proto(proto: proto::CellsRequest) -> Result<Self, WireError> {
        Ok(Self {
            case: Case::from_proto(check::required("cells_request.case", proto.case)?)?,
            client_nonce: check::array("cells_request.client_nonce", &proto.client_nonce)?,
            cells: proto.cells.into_iter().map(Cell::from_proto).collect::<Result<_, _>>()?,
            products: proto.products,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.case.check()?;
        not_empty("cells_request.cells", self.cells.is_empty())?;
        count("cells_request.cells", self.cells.len(), limits::MAX_CELLS)?;
        self.cells.iter().try_for_each(Cell::check)?;
        match self.cells.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => Err(WireError::Inconsistent {
                place: "cells_request.cells",
                expected: "cells in ascending order, each once",
                got: pair[1].position.into(),
            }),
            None => Ok(()),
        }
    }
}

impl Codec for CellOpening {
    type Proto = proto::CellOpening;
    const NAME: &'static str = "cell opening";
    const MAX_BYTES: usize = limits::MAX_CELL_BYTES;
    const SHAPE: &'static Shape = &shape::CELL_OPENING;

    fn to_proto(&self) -> proto::CellOpening {
        proto::CellOpening {
            cell: Some(self.cell.to_proto()),
            leaf: Some(self.leaf.to_proto()),
            path: check::join(&self.path),
            rows: self.rows.clone(),
            rows_hashes: check::join(&self.rows_hashes),
            state: self.state.clone(),
            kv_layers: check::join(&self.kv_layers),
            kv_pages: check::join(&self.kv_pages),
            pages: self.pages.clone(),
            last: self.last.clone(),
            last_hashes: check::join(&self.last_hashes),
            products: self.products.clone(),
        }
    }

    fn from_proto(proto: proto::CellOpening) -> Result<Self, WireError> {
        let beside = limits::MAX_RANGE_HASHES;
        Ok(Self {
            cell: Cell::from_proto(check::required("cell_opening.cell", proto.cell)?)?,
            leaf: Leaf::from_proto(check::required("cell_opening.leaf", proto.leaf)?)?,
            path: check::digests("cell_opening.path", &proto.path, limits::MAX_PATH_HASHES)?,
            rows: proto.rows,
            rows_hashes: check::digests("cell_opening.rows_hashes", &proto.rows_hashes, beside)?,
            state: proto.state,
            kv_layers: check::digests(
                "cell_opening.kv_layers",
                &proto.kv_layers,
                limits::MAX_LAYERS,
            )?,
            kv_pages: check::digests(
                "cell_opening.kv_pages",
                &proto.kv_pages,
                limits::MAX_KV_PAGES,
            )?,
            pages: proto.pages,
            last: proto.last,
            last_hashes: check::digests("cell_opening.last_hashes", &proto.last_hashes, beside)?,
            products: proto.products,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let beside = limits::MAX_RANGE_HASHES;
        self.cell.check()?;
        self.leaf.check()?;
        count("cell_opening.path", self.path.len(), limits::MAX_PATH_HASHES)?;
        count("cell_opening.rows", self.rows.len(), limits::MAX_CELL_ROWS_BYTES)?;
        count("cell_opening.rows_hashes", self.rows_hashes.len(), beside)?;
        count("cell_opening.state", self.state.len(), limits::MAX_CELL_ROWS_BYTES)?;
        count("cell_opening.kv_layers", self.kv_layers.len(), limits::MAX_LAYERS)?;
        count("cell_opening.kv_pages", self.kv_pages.len(), limits::MAX_KV_PAGES)?;
        count("cell_opening.pages", self.pages.len(), limits::MAX_KV_PAGES)?;
        for page in &self.pages {
            not_empty("cell_opening.pages[]", page.is_empty())?;
            count("cell_opening.pages[]", page.len(), limits::MAX_KV_PAGE_BYTES)?;
        }
        count("cell_opening.last", self.last.len(), limits::MAX_KV_PAGE_BYTES)?;
        count("cell_opening.last_hashes", self.last_hashes.len(), beside)?;
        count("cell_opening.products", self.products.len(), limits::MAX_CELL_PRODUCTS_BYTES)
    }
}

impl Codec for CellsPart {
    type Proto = proto::CellsPart;
    const NAME: &'static str = "cells part";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::CELLS_PART;

    fn to_proto(&self) -> proto::CellsPart {
        proto::CellsPart { left: self.left, bytes: self.bytes.clone() }
    }

    fn from_proto(proto: proto::CellsPart) -> Result<Self, WireError> {
        Ok(Self { left: proto.left, bytes: proto.bytes })
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("cells_part.left", self.left, limits::MAX_CELL_BYTES as u64)?;
        not_empty("cells_part.bytes", self.bytes.is_empty())?;
        count("cells_part.bytes", self.bytes.len(), limits::MAX_CELLS_PART_BYTES)
    }
}

impl Codec for CellsReply {
    type Proto = proto::CellsReply;
    const NAME: &'static str = "cells reply";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::CELLS_REPLY;

    fn to_proto(&self) -> proto::CellsReply {
        use proto::cells_reply::Reply;
        let reply = match self {
            Self::Part(part) => Reply::Part(part.to_proto()),
            Self::Failure(failure) => Reply::Failure(failure.to_proto()),
        };
        proto::CellsReply { reply: Some(reply) }
    }

    fn from_proto(proto: proto::CellsReply) -> Result<Self, WireError> {
        use proto::cells_reply::Reply;
        Ok(match check::required("cells reply", proto.reply)? {
            Reply::Part(part) => Self::Part(CellsPart::from_proto(part)?),
            Reply::Failure(failure) => Self::Failure(AuditFailure::from_proto(failure)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Part(part) => part.check(),
            Self::Failure(failure) => failure.check(),
        }
    }
}

impl Codec for WeightRange {
    type Proto = proto::WeightRange;
    const NAME: &'static str = "weight range";
    const MAX_BYTES: usize = limits::MAX_FRAME_BYTES;
    const SHAPE: &'static Shape = &shape::WEIGHT_RANGE;

    fn to_proto(&self) -> proto::WeightRange {
        let (start, length) = (self.start, self.length);
        proto::WeightRange { start, length, slice: Some(self.slice.to_proto()) }
    }

    fn from_proto(proto: proto::WeightRange) -> Result<Self, WireError> {
        let slice = check::required("weight_range.slice", proto.slice)?;
        let slice = RangeSlice::from_proto(slice)?;
        Ok(Self { start: proto.start, length: proto.length, slice })
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("weight_range.start", self.start, limits::MAX_FILE_BYTES)?;
        within("weight_range.length", self.length, 1, limits::MAX_RANGE_BYTES as u64)?;
        self.slice.check()
    }
}

impl Codec for FraudProof {
    type Proto = proto::FraudProof;
    const NAME: &'static str = "fraud proof";
    const MAX_BYTES: usize = limits::MAX_FRAUD_PROOF_BYTES;
    const SHAPE: &'static Shape = &shape::FRAUD_PROOF;

    fn to_proto(&self) -> proto::FraudProof {
        proto::FraudProof {
            case: Some(self.case.to_proto()),
            opening: Some(self.opening.to_proto()),
            weights: self.weights.iter().map(WeightRange::to_proto).collect(),
        }
    }

    fn from_proto(proto: proto::FraudProof) -> Result<Self, WireError> {
        let opening = check::required("fraud_proof.opening", proto.opening)?;
        let weights = proto.weights.into_iter().map(WeightRange::from_proto);
        Ok(Self {
            case: Case::from_proto(check::required("fraud_proof.case", proto.case)?)?,
            opening: CellOpening::from_proto(opening)?,
            weights: weights.collect::<Result<_, _>>()?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.case.check()?;
        self.opening.check()?;
        // No digest covers them: a file with them would have many forms.
        if !self.opening.products.is_empty() {
            return Err(WireError::Inconsistent {
                place: "fraud_proof.opening",
                expected: "an opening without products",
                got: self.opening.products.len() as u64,
            });
        }
        not_empty("fraud_proof.weights", self.weights.is_empty())?;
        count("fraud_proof.weights", self.weights.len(), limits::MAX_WEIGHT_RANGES)?;
        self.weights.iter().try_for_each(WeightRange::check)
    }
}
