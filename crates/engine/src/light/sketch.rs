//! What stays of a model for light audits: for each matrix one secret combination of its
//! rows, and what is no matrix.
//!
//! A [`Part`] at a time is put in, each from verified stretches of the model's file, and
//! its weights are let go. [`Sketches::to_bytes`] is the form on disk: every length follows
//! from the file's header, so whoever reads it needs the header too. The coefficients are
//! made again from their secret whenever a product is checked.
//! Deliberately absent: where stretches and the secret come from, files.

#![deny(clippy::float_arithmetic)]

use std::collections::HashMap;
use std::fmt;

use peerproof_wire::ModelId;

use super::field::{self, Secret};
use crate::gguf::Gguf;
use crate::transformer::{Outline, Part, Transformer};
use crate::weights::{LoadError, Matrix, Vector};

const MAGIC: &[u8; 8] = b"PPLIGHT1";
/// Magic, model id and secret before the parts.
const HEAD_BYTES: usize = 72;
const DIGEST_BYTES: usize = 32;

/// Why kept sketches can't be used. They are made anew then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SketchError {
    /// They are of another length than the model's header gives.
    #[error("sketches: expected {expected} bytes, got {got}")]
    Length {
        /// Bytes there must be.
        expected: usize,
        /// Bytes there are.
        got: usize,
    },
    /// They are no sketches, or another model's.
    #[error("sketches: expected those of model {expected}")]
    Model {
        /// The model.
        expected: ModelId,
    },
    /// They are not as they were written.
    #[error("sketches: damaged")]
    Damaged,
}

/// What stays of one matrix.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct MatrixSketch {
    pub(super) exponent: i32,
    /// `Σ_r c_r · W_rc mod p` for each column, with the secret coefficients `c`.
    pub(super) columns: Vec<u64>,
}

/// What stays of a part.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PartSketch {
    pub(super) matrices: Vec<MatrixSketch>,
    /// In the order of the outline.
    vectors: Vec<(Vec<i32>, i32)>,
}

/// Sketches of a model in the making, and then of all of it. They are as secret as what they
/// were made with: who knows them and the weights can compute it.
pub struct Sketches {
    model: ModelId,
    secret: Secret,
    /// Embedding and head, then each layer.
    parts: Vec<Option<PartSketch>>,
}

/// What a part is called: the layer's number, and one more than the last layer's for
/// embedding and head.
fn part_of(at: usize, layers: usize) -> Part {
    if at == layers { Part::Ends } else { Part::Layer(at) }
}

impl fmt::Debug for Sketches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sketches({}, {} layers)", self.model, self.layers())
    }
}

impl Sketches {
    /// Of a model of so many layers, under a secret of 32 bytes that nobody else has or can
    /// guess.
    #[must_use]
    pub fn begin(model: ModelId, layers: usize, secret: [u8; 32]) -> Self {
        Self { model, secret: Secret(secret), parts: vec![None; layers + 1] }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// Layers of the model.
    pub(super) fn layers(&self) -> usize {
        self.parts.len() - 1
    }

    /// The first layer that is missing; the number behind the last stands for embedding and
    /// head. `None` if all are there.
    #[must_use]
    pub fn missing(&self) -> Option<u32> {
        self.parts.iter().position(Option::is_none).map(|at| at as u32)
    }

    /// Takes up a part, from a file of which that part is there.
    pub(super) fn take(&mut self, file: &Gguf, at: u32) -> Result<(), LoadError> {
        let part = part_of(at as usize, self.parts.len() - 1);
        let matrices = Transformer::matrices(file, part)?;
        let sketched = (0..).zip(&matrices).map(|(index, matrix)| self.sketch(matrix, at, index));
        let matrices = sketched.collect();
        let vector = |(name, len): &(String, usize)| {
            let Vector { values, exponent } = Vector::read(&file.tensor(name)?, *len)?;
            Ok((values, exponent))
        };
        let vectors = Transformer::outline(file, part)?.vectors;
        let vectors = vectors.iter().map(vector).collect::<Result<_, LoadError>>()?;
        if let Some(slot) = self.parts.get_mut(at as usize) {
            *slot = Some(PartSketch { matrices, vectors });
        }
        Ok(())
    }

    fn sketch(&self, matrix: &Matrix, part: u32, index: u8) -> MatrixSketch {
        let mut sums = vec![0i128; matrix.cols()];
        let mut row = vec![0i32; matrix.cols()];
        let coefficients = self.secret.coefficients(self.model, part, index);
        for (at, coefficient) in (0..matrix.rows()).zip(coefficients) {
            matrix.row(at, &mut row);
            field::accumulate(&mut sums, coefficient, &row);
        }
        let columns = sums.into_iter().map(field::residue).collect();
        MatrixSketch { exponent: matrix.exponent(), columns }
    }

    /// What is kept of a part, if it is there.
    pub(super) fn part(&self, at: u32) -> Option<&PartSketch> {
        self.parts.get(at as usize)?.as_ref()
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The model without its weights, if nothing is missing.
    pub(super) fn hollow(&self, header: &Gguf) -> Result<Option<Transformer>, LoadError> {
        let layers = self.parts.len() - 1;
        let mut named = HashMap::new();
        let mut exponents = Vec::new();
        // Embedding and head stand before the layers in a whole model.
        for at in std::iter::once(layers).chain(0..layers) {
            let Some(part) = &self.parts[at] else { return Ok(None) };
            let outline = Transformer::outline(header, part_of(at, layers))?;
            let names = outline.vectors.into_iter().map(|(name, _)| name);
            named.extend(names.zip(&part.vectors));
            exponents.extend(part.matrices.iter().map(|matrix| matrix.exponent));
        }
        let vector = |name: &str, _| {
            // Both sides follow from one outline.
            let (values, exponent) = named.get(name).map_or((vec![], 0), |it| (it.0.clone(), it.1));
            Ok(Vector { values, exponent })
        };
        Transformer::hollow(header, &exponents, &vector).map(Some)
    }

    /// The form on disk, if nothing is missing. It holds the secret: nobody else may read it.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(self.model.as_bytes());
        bytes.extend_from_slice(&self.secret.0);
        for part in &self.parts {
            let part = part.as_ref()?;
            for matrix in &part.matrices {
                bytes.extend(matrix.exponent.to_le_bytes());
                bytes.extend(matrix.columns.iter().flat_map(|column| column.to_le_bytes()));
            }
            for (values, exponent) in &part.vectors {
                bytes.extend(exponent.to_le_bytes());
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        Some(bytes)
    }

    /// Reads what [`Sketches::to_bytes`] wrote, for the model of this header.
    pub(super) fn from_bytes(
        header: &Gguf,
        model: ModelId,
        layers: usize,
        bytes: &[u8],
    ) -> Result<Result<Self, SketchError>, LoadError> {
        let outlines = (0..=layers).map(|at| Transformer::outline(header, part_of(at, layers)));
        let outlines = outlines.collect::<Result<Vec<_>, _>>()?;
        Ok(Self::read(&outlines, model, bytes))
    }

    fn read(outlines: &[Outline], model: ModelId, bytes: &[u8]) -> Result<Self, SketchError> {
        let body: usize = outlines.iter().map(part_bytes).sum();
        let (expected, got) = (HEAD_BYTES + body + DIGEST_BYTES, bytes.len());
        if expected != got {
            return Err(SketchError::Length { expected, got });
        }
        let (bytes, digest) = bytes.split_at(got - DIGEST_BYTES);
        let (head, body) = bytes.split_at(HEAD_BYTES);
        if head[..8] != *MAGIC || head[8..40] != *model.as_bytes() {
            return Err(SketchError::Model { expected: model });
        }
        if blake3::hash(bytes).as_bytes() != digest {
            return Err(SketchError::Damaged);
        }
        let mut secret = [0; 32];
        secret.copy_from_slice(&head[40..]);
        let mut rest = body;
        let parts = outlines.iter().map(|outline| read_part(outline, &mut rest));
        let parts = parts.map(|part| part.ok_or(SketchError::Damaged).map(Some));
        Ok(Self { model, secret: Secret(secret), parts: parts.collect::<Result<_, _>>()? })
    }
}

fn part_bytes(outline: &Outline) -> usize {
    let matrices = outline.matrices.iter().map(|[cols, _]| 4 + 8 * cols);
    let vectors = outline.vectors.iter().map(|(_, len)| 4 + 4 * len);
    matrices.sum::<usize>() + vectors.sum::<usize>()
}

fn read_part(outline: &Outline, rest: &mut &[u8]) -> Option<PartSketch> {
    let mut take = |len: usize| {
        let (taken, after) = rest.split_at_checked(len)?;
        *rest = after;
        Some(taken)
    };
    let exponent = |bytes: &[u8]| Some(i32::from_le_bytes(*bytes.first_chunk()?));
    let mut matrices = Vec::with_capacity(outline.matrices.len());
    for [cols, _] in &outline.matrices {
        let exponent = exponent(take(4)?)?;
        let columns = take(8 * cols)?.as_chunks().0.iter().map(|it| u64::from_le_bytes(*it));
        let columns: Vec<u64> = columns.collect();
        if columns.iter().any(|column| *column >= field::P) {
            return None;
        }
        matrices.push(MatrixSketch { exponent, columns });
    }
    let mut vectors = Vec::with_capacity(outline.vectors.len());
    for (_, len) in &outline.vectors {
        let exponent = exponent(take(4)?)?;
        let values = take(4 * len)?.as_chunks().0.iter().map(|it| i32::from_le_bytes(*it));
        vectors.push((values.collect(), exponent));
    }
    Some(PartSketch { matrices, vectors })
}
