//! Which tensors a model has, in one order for packing and for taking them up.
//!
//! [`Plan::new`] lists every matrix and every vector that the family's row of the
//! table asks for and refuses a file with any other tensor; [`Plan::layers`] puts
//! the packed matrices where they belong. Deliberately absent: how a matrix is
//! packed.

#![deny(clippy::float_arithmetic)]

use crate::architecture::Architecture;
use crate::gguf::{GgmlType, Gguf};
use crate::weights::{LoadError, Matrix, Piece};

use super::header::Header;
use super::{Layer, Part, Shape, Vectors};

/// Matrices of a layer.
const LAYER_MATRICES: usize = 7;
/// Vectors that models may have beside the layers.
const ENDS: [&str; 3] = ["token_embd.weight", "output.weight", "output_norm.weight"];
/// What frequencies are divided by: one tensor, or a pair of which one is used.
const FREQUENCIES: [&str; 1] = ["rope_freqs.weight"];
const LONG_FREQUENCIES: [&str; 2] = ["rope_factors_long.weight", "rope_factors_short.weight"];
const ALL_FREQUENCIES: [&str; 3] = [FREQUENCIES[0], LONG_FREQUENCIES[0], LONG_FREQUENCIES[1]];

/// Everything a file of this shape must hold.
pub(super) struct Plan {
    family: &'static Architecture,
    shape: Shape,
    tied: bool,
    /// All matrices: embedding, head, then the layers'.
    pieces: Vec<Piece>,
}

impl Plan {
    /// Lists the matrices; refuses a file with tensors that would be left out.
    pub(super) fn new(header: &Header<'_>, shape: &Shape) -> Result<Self, LoadError> {
        let Header { gguf, family } = *header;
        refuse_unknown(gguf, family, shape)?;
        let tied = gguf.optional_tensor("output.weight").is_none();
        let whole = |name: &str, cols: usize, rows: usize| Piece {
            name: name.to_owned(),
            dims: [cols as u64, rows as u64],
            skip: 0,
            rows: rows as u64,
        };
        let mut pieces = vec![whole("token_embd.weight", shape.width, shape.vocabulary)];
        if !tied {
            pieces.push(whole("output.weight", shape.width, shape.vocabulary));
        }
        for layer in 0..shape.layers {
            pieces.extend(
                layer_pieces(family, shape)
                    .map(|piece| Piece { name: format!("blk.{layer}.{}", piece.name), ..piece }),
            );
        }
        Ok(Self { family, shape: *shape, tied, pieces })
    }

    /// The matrices of a part, in the order in which [`Plan::layers`] takes them.
    pub(super) fn pieces(&self, part: Part) -> &[Piece] {
        let ends = if self.tied { 1 } else { 2 };
        match part {
            Part::Whole => &self.pieces,
            Part::Ends => &self.pieces[..ends],
            Part::Header => &[],
            // None for a layer that the model doesn't have.
            Part::Layer(layer) => {
                let mut layers = self.pieces[ends..].chunks(LAYER_MATRICES);
                layers.nth(layer).unwrap_or_default()
            }
        }
    }

    /// Whether loading a part reads a tensor.
    pub(super) fn is_of(&self, part: Part, name: &str) -> bool {
        let frequencies = ALL_FREQUENCIES.contains(&name);
        match part {
            Part::Whole => true,
            Part::Layer(layer) => name.starts_with(&format!("blk.{layer}.")) || frequencies,
            Part::Ends => ENDS.contains(&name) || frequencies,
            Part::Header => frequencies,
        }
    }

    /// The vectors of a part with their lengths; not those that divide frequencies.
    pub(super) fn vectors(&self, part: Part) -> Vec<(String, usize)> {
        let Self { family, shape, .. } = self;
        let of = |layer: usize| {
            let named = move |(name, len)| (format!("blk.{layer}.{name}"), len);
            layer_vectors(family, shape).into_iter().map(named)
        };
        let end = || ("output_norm.weight".to_owned(), shape.width);
        match part {
            Part::Whole => std::iter::once(end()).chain((0..shape.layers).flat_map(of)).collect(),
            Part::Layer(layer) => of(layer).collect(),
            Part::Ends => vec![end()],
            Part::Header => Vec::new(),
        }
    }

    /// Embedding, head where there is one, and layers, from a part's packed matrices.
    pub(super) fn layers(
        &self,
        vectors: Vectors<'_>,
        packed: Vec<Matrix>,
        part: Part,
    ) -> Result<(Matrix, Option<Matrix>, Vec<Layer>), LoadError> {
        let mut packed = packed.into_iter();
        let mut next = || {
            // As many are packed as were planned.
            packed.next().ok_or_else(|| LoadError::Header {
                key: format!("{}.block_count", self.family.name),
                expected: "a consistent plan".to_owned(),
                got: "fewer matrices".to_owned(),
            })
        };
        if let Part::Layer(layer) = part {
            return Ok((Matrix::none()?, None, vec![self.layer(vectors, layer, &mut next)?]));
        }
        if part == Part::Header {
            return Ok((Matrix::none()?, None, Vec::new()));
        }
        let embedding = next()?;
        let output = if self.tied { None } else { Some(next()?) };
        let count = if part == Part::Ends { 0 } else { self.shape.layers };
        let layers = (0..count).map(|layer| self.layer(vectors, layer, &mut next));
        Ok((embedding, output, layers.collect::<Result<_, _>>()?))
    }

    fn layer(
        &self,
        vectors: Vectors<'_>,
        layer: usize,
        next: &mut impl FnMut() -> Result<Matrix, LoadError>,
    ) -> Result<Layer, LoadError> {
        let Self { family, shape, .. } = self;
        let vector = |part: &str, len: usize| vectors(&format!("blk.{layer}.{part}"), len);
        let (all, kv) = (shape.heads * shape.head_dims, shape.kv_heads * shape.head_dims);
        let head = |part| vector(part, shape.head_dims);
        let biases = || {
            Ok::<_, LoadError>([
                vector("attn_q.bias", all)?,
                vector("attn_k.bias", kv)?,
                vector("attn_v.bias", kv)?,
            ])
        };
        let post = |part| family.post_norms.then(|| vector(part, shape.width)).transpose();
        Ok(Layer {
            attention_norm: vector("attn_norm.weight", shape.width)?,
            query: next()?,
            key: next()?,
            value: next()?,
            biases: family.biases.then(biases).transpose()?,
            head_norms: family
                .head_norms
                .then(|| {
                    Ok::<_, LoadError>([head("attn_q_norm.weight")?, head("attn_k_norm.weight")?])
                })
                .transpose()?,
            output: next()?,
            post_attention: post("post_attention_norm.weight")?,
            feed_norm: vector("ffn_norm.weight", shape.width)?,
            gate: next()?,
            up: next()?,
            down: next()?,
            post_feed: post("post_ffw_norm.weight")?,
            window: None,
            rope: 0,
        })
    }
}

/// Where a tensor, or the rows of it that are a matrix, stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// One of [`name`].
    pub(crate) name: u32,
    pub(crate) start: u64,
    pub(crate) kind: GgmlType,
}

/// How `docs/spec/proof.md` numbers tensors. Matrices of a layer are 1 to 7, in the order
/// of [`layer_pieces`].
pub(crate) mod name {
    pub(crate) const MATRICES: u32 = 1;
    pub(crate) const ATTENTION_NORM: u32 = 8;
    pub(crate) const FEED_NORM: u32 = 9;
    /// Of query, key and value.
    pub(crate) const BIASES: u32 = 10;
    /// Of query and key heads.
    pub(crate) const HEAD_NORMS: u32 = 13;
    pub(crate) const POST_ATTENTION: u32 = 15;
    pub(crate) const POST_FEED: u32 = 16;
    pub(crate) const HEAD: u32 = 17;
    pub(crate) const LAST_NORM: u32 = 18;
    pub(crate) const EMBEDDING: u32 = 19;
}

/// Places of everything in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) file_bytes: u64,
    /// Of each layer.
    pub(crate) layers: Vec<Vec<Place>>,
    /// Of head, last norm and embedding.
    pub(crate) ends: Vec<Place>,
}

impl Plan {
    /// Where everything stands.
    pub(super) fn places(&self, gguf: &Gguf) -> Result<Places, LoadError> {
        let place = |name: u32, tensor: &str, skip: u64, rows: u64| {
            let tensor = gguf.tensor(tensor)?;
            let range = gguf.range_of(&tensor);
            let start = range.start + skip * ((range.end - range.start) / rows.max(1));
            Ok::<_, LoadError>(Place { name, start, kind: tensor.kind })
        };
        let mut layers = Vec::with_capacity(self.shape.layers);
        for layer in 0..self.shape.layers {
            let mut places = Vec::new();
            for (name, piece) in (name::MATRICES..).zip(layer_pieces(self.family, &self.shape)) {
                let tensor = format!("blk.{layer}.{}", piece.name);
                places.push(place(name, &tensor, piece.skip, piece.rows)?);
            }
            for (tensor, _) in layer_vectors(self.family, &self.shape) {
                let full = format!("blk.{layer}.{tensor}");
                places.push(place(vector_name(tensor), &full, 0, 1)?);
            }
            places.sort_by_key(|place| place.name);
            layers.push(places);
        }
        let head = if self.tied { ENDS[0] } else { ENDS[1] };
        let ends = [(name::HEAD, head), (name::LAST_NORM, ENDS[2]), (name::EMBEDDING, ENDS[0])];
        let ends = ends.map(|(name, tensor)| place(name, tensor, 0, 1));
        let ends = ends.into_iter().collect::<Result<_, _>>()?;
        Ok(Places { file_bytes: gguf.bytes().len() as u64, layers, ends })
    }
}

/// The number of one of [`layer_vectors`].
fn vector_name(tensor: &str) -> u32 {
    match tensor {
        "attn_norm.weight" => name::ATTENTION_NORM,
        "ffn_norm.weight" => name::FEED_NORM,
        "attn_q.bias" => name::BIASES,
        "attn_k.bias" => name::BIASES + 1,
        "attn_v.bias" => name::BIASES + 2,
        "attn_q_norm.weight" => name::HEAD_NORMS,
        "attn_k_norm.weight" => name::HEAD_NORMS + 1,
        "post_attention_norm.weight" => name::POST_ATTENTION,
        _ => name::POST_FEED,
    }
}

/// The matrices of a layer, in the order in which [`Plan::layers`] takes them.
fn layer_pieces(family: &Architecture, shape: &Shape) -> [Piece; LAYER_MATRICES] {
    let (width, feed) = (shape.width, shape.feed);
    let (all, kv) = (shape.heads * shape.head_dims, shape.kv_heads * shape.head_dims);
    let piece = |name: &str, cols: usize, skip: usize, take: usize, rows: usize| Piece {
        name: name.to_owned(),
        dims: [cols as u64, take as u64],
        skip: skip as u64,
        rows: rows as u64,
    };
    let whole = |name, cols, rows| piece(name, cols, 0, rows, rows);
    let [query, key, value] = if family.fused {
        let rows = all + 2 * kv;
        [(0, all), (all, kv), (all + kv, kv)]
            .map(|(skip, take)| piece("attn_qkv.weight", width, skip, take, rows))
    } else {
        [("attn_q.weight", all), ("attn_k.weight", kv), ("attn_v.weight", kv)]
            .map(|(name, rows)| whole(name, width, rows))
    };
    let [gate, up] = if family.fused {
        [0, feed].map(|skip| piece("ffn_up.weight", width, skip, feed, 2 * feed))
    } else {
        ["ffn_gate.weight", "ffn_up.weight"].map(|name| whole(name, width, feed))
    };
    let (output, down) =
        (whole("attn_output.weight", all, width), whole("ffn_down.weight", feed, width));
    [query, key, value, output, gate, up, down]
}

/// The vectors of a layer with their lengths.
fn layer_vectors(family: &Architecture, shape: &Shape) -> Vec<(&'static str, usize)> {
    let (all, kv) = (shape.heads * shape.head_dims, shape.kv_heads * shape.head_dims);
    let mut vectors = vec![("attn_norm.weight", shape.width), ("ffn_norm.weight", shape.width)];
    if family.biases {
        vectors.extend([("attn_q.bias", all), ("attn_k.bias", kv), ("attn_v.bias", kv)]);
    }
    if family.head_norms {
        vectors
            .extend(["attn_q_norm.weight", "attn_k_norm.weight"].map(|it| (it, shape.head_dims)));
    }
    if family.post_norms {
        let names = ["post_attention_norm.weight", "post_ffw_norm.weight"];
        vectors.extend(names.map(|name| (name, shape.width)));
    }
    vectors
}

/// Refuses a file with tensors that would be left out of the computation.
fn refuse_unknown(
    gguf: &Gguf,
    family: &'static Architecture,
    shape: &Shape,
) -> Result<(), LoadError> {
    let (pieces, vectors) = (layer_pieces(family, shape), layer_vectors(family, shape));
    let long = LONG_FREQUENCIES.map(|name| gguf.optional_tensor(name).is_some()) == [true; 2];
    let frequencies: &[&str] = if long { &LONG_FREQUENCIES } else { &FREQUENCIES };
    let known = |name: &str| {
        let Some(rest) = name.strip_prefix("blk.") else {
            return ENDS.contains(&name) || frequencies.contains(&name);
        };
        let Some((layer, part)) = rest.split_once('.') else { return false };
        // A number has one spelling: a tensor of any other is never looked up.
        layer.parse::<usize>().is_ok_and(|at| at < shape.layers && at.to_string() == layer)
            && (pieces.iter().any(|piece| piece.name == part)
                || vectors.iter().any(|(name, _)| *name == part))
    };
    match gguf.tensors().find(|tensor| !known(tensor.name)) {
        Some(tensor) => {
            Err(LoadError::Unknown { tensor: tensor.name.to_owned(), family: family.name })
        }
        None => Ok(()),
    }
}
