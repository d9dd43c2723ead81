//! What an operation takes of a file's header: written down by whoever holds the model,
//! read by a referee who trusts none of it.

use peerproof_wire::limits;
use peerproof_wire::{Cell, TraceLayout, TracedTensor};

use super::DisputeError;
use crate::architecture::Pairing;
use crate::arith::cap::Cap;
use crate::arith::half::Exact;
use crate::gguf::GgmlType;
use crate::pack::Packing;
use crate::transformer::{Transformer, name};

/// The largest number that any size in a layout has.
const MAX_SIZE: u32 = 1 << 16;
/// The most tokens of a vocabulary.
const MAX_VOCABULARY: u32 = 1 << 24;

/// Writes down what operations of a cell take. `model` holds the layer at index `at`, or, for
/// a head cell, the ends; `ends` is given for cells of the first layer.
pub(super) fn write(
    model: &Transformer,
    at: usize,
    cell: Cell,
    ends: Option<&Transformer>,
) -> TraceLayout {
    let (shape, places) = (model.shape(), &model.places);
    let head = cell.layer as usize == places.layers.len();
    let mut layout = TraceLayout {
        file_bytes: places.file_bytes,
        layers: places.layers.len() as u32,
        width: shape.width as u32,
        heads: shape.heads as u32,
        kv_heads: shape.kv_heads as u32,
        head_dims: shape.head_dims as u32,
        feed: shape.feed as u32,
        vocabulary: shape.vocabulary as u32,
        epsilon: model.epsilon_bits,
        halves: model.family.pairing == Pairing::Halves,
        gelu: model.gelu(),
        score_scale: model.score_scale as u32,
        score_cap: model.score_cap.map_or(0, |cap| cap.limit() as u32),
        logit_cap: model.logit_cap.map_or(0, |cap| cap.limit() as u32),
        ..TraceLayout::default()
    };
    if head {
        layout.tensors = tensors(model, 0, &places.ends, |place| place != name::EMBEDDING);
        return layout;
    }
    let layer = &model.layers[at];
    let before = |window: usize| (cell.position as usize + 1).saturating_sub(window);
    layout.first = layer.window.map_or(0, before) as u32;
    let mut angles = vec![(0, 0); shape.rope_dims / 2];
    model.ropes[layer.rope].angles(cell.position as usize, &mut angles);
    layout.angles =
        angles.iter().flat_map(|(cos, sin)| [*cos, *sin]).flat_map(i16::to_le_bytes).collect();
    layout.tensors = tensors(model, at, &places.layers[cell.layer as usize], |_| true);
    if let Some(ends) = ends.filter(|_| cell.layer == 0) {
        layout.embedding_scale = ends.embedding_scale.unwrap_or(0) as u32;
        layout
            .tensors
            .extend(tensors(ends, 0, &ends.places.ends, |place| place == name::EMBEDDING));
    }
    layout
}

fn tensors(
    model: &Transformer,
    at: usize,
    places: &[crate::transformer::Place],
    is_of: impl Fn(u32) -> bool,
) -> Vec<TracedTensor> {
    let traced = |place: &crate::transformer::Place| TracedTensor {
        name: place.name,
        start: place.start,
        format: place.kind.number(),
        exponent: exponent(model, at, place.name),
    };
    places.iter().filter(|place| is_of(place.name)).map(traced).collect()
}

/// The exponent of a tensor's integers; 0 where the model has none.
fn exponent(model: &Transformer, at: usize, which: u32) -> i32 {
    match which {
        name::HEAD => return model.head().exponent(),
        name::LAST_NORM => return model.output_norm.exponent,
        name::EMBEDDING => return model.embedding.exponent(),
        _ => {}
    }
    let Some(layer) = model.layers.get(at) else { return 0 };
    let vector =
        |vector: &Option<crate::weights::Vector>| vector.as_ref().map_or(0, |it| it.exponent);
    let bias = |at: u32| layer.biases.as_ref().map_or(0, |all| all[at as usize].exponent);
    let norm = |at: u32| layer.head_norms.as_ref().map_or(0, |all| all[at as usize].exponent);
    match which {
        1..=7 => crate::trace::matrices(layer)[which as usize - 1].exponent(),
        name::ATTENTION_NORM => layer.attention_norm.exponent,
        name::FEED_NORM => layer.feed_norm.exponent,
        10..=12 => bias(which - name::BIASES),
        13..=14 => norm(which - name::HEAD_NORMS),
        name::POST_ATTENTION => vector(&layer.post_attention),
        _ => vector(&layer.post_feed),
    }
}

/// A layout whose numbers can be computed with.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) wire: TraceLayout,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) dims: usize,
    pub(super) feed: usize,
    pub(super) epsilon: Exact,
    pub(super) angles: Vec<(i16, i16)>,
    pub(super) score_cap: Option<Cap>,
    pub(super) logit_cap: Option<Cap>,
}

/// A tensor of a layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) start: u64,
    pub(super) kind: GgmlType,
    pub(super) exponent: i32,
}

impl Layout {
    /// Holds every number against what models may have.
    pub(super) fn read(wire: &TraceLayout) -> Result<Self, DisputeError> {
        let sizes = [wire.width, wire.heads, wire.kv_heads, wire.head_dims, wire.feed];
        if let Some(&got) = sizes.iter().find(|size| !(1..=MAX_SIZE).contains(*size)) {
            return Err(DisputeError::Layout { what: "size", got: got.into() });
        }
        let refused = |what, got: u32| Err(DisputeError::Layout { what, got: got.into() });
        if wire.vocabulary > MAX_VOCABULARY || wire.vocabulary == 0 {
            return refused("vocabulary", wire.vocabulary);
        }
        if wire.head_dims > 256 || !wire.heads.is_multiple_of(wire.kv_heads) {
            return refused("heads", wire.heads);
        }
        if wire.layers == 0 || wire.layers as usize > limits::MAX_LAYERS {
            return refused("layers", wire.layers);
        }
        if u64::from(wire.heads) * u64::from(wire.head_dims) > u64::from(MAX_SIZE) {
            return refused("heads", wire.heads);
        }
        let (pairs, rest) = wire.angles.as_chunks::<4>();
        if !rest.is_empty() || 2 * pairs.len() > wire.head_dims as usize {
            return refused("angles", wire.angles.len() as u32);
        }
        let epsilon = Exact::from_f32(wire.epsilon);
        let epsilon = epsilon.filter(|it| it.mantissa >= 0 && it.log2().unwrap_or(-1) < 0);
        let Some(epsilon) = epsilon else { return refused("epsilon", wire.epsilon) };
        let cap = |limit: u32| match (limit, Cap::new(limit.into())) {
            (0, _) => Ok(None),
            (_, Some(cap)) => Ok(Some(cap)),
            _ => Err(DisputeError::Layout { what: "cap", got: limit.into() }),
        };
        let half = |bytes: [u8; 2]| i16::from_le_bytes(bytes);
        Ok(Self {
            width: wire.width as usize,
            heads: wire.heads as usize,
            kv_heads: wire.kv_heads as usize,
            dims: wire.head_dims as usize,
            feed: wire.feed as usize,
            epsilon,
            angles: pairs.iter().map(|&[a, b, c, d]| (half([a, b]), half([c, d]))).collect(),
            score_cap: cap(wire.score_cap)?,
            logit_cap: cap(wire.logit_cap)?,
            wire: wire.clone(),
        })
    }

    pub(super) fn pairing(&self) -> Pairing {
        if self.wire.halves { Pairing::Halves } else { Pairing::Adjacent }
    }

    /// A tensor by its name, if the layout has it.
    pub(super) fn optional(&self, which: u32) -> Result<Option<Placed>, DisputeError> {
        let found = self.wire.tensors.iter().find(|tensor| tensor.name == which);
        let Some(&TracedTensor { start, format, exponent, .. }) = found else { return Ok(None) };
        let kind = GgmlType::from_number(format);
        let kind = kind.ok_or(DisputeError::Layout { what: "format", got: format.into() })?;
        Ok(Some(Placed { start, kind, exponent }))
    }

    pub(super) fn tensor(&self, which: u32) -> Result<Placed, DisputeError> {
        let found = self.optional(which)?;
        found.ok_or(DisputeError::Layout { what: "missing tensor", got: which.into() })
    }

    /// Columns and rows of a matrix.
    pub(super) fn dims_of(&self, which: u32) -> (usize, usize) {
        let (all, kv) = (self.heads * self.dims, self.kv_heads * self.dims);
        match which {
            1 => (self.width, all),
            2 | 3 => (self.width, kv),
            4 => (all, self.width),
            5 | 6 => (self.width, self.feed),
            7 => (self.feed, self.width),
            _ => (self.width, self.wire.vocabulary as usize),
        }
    }

    /// Bytes of a row of keys and values.
    pub(super) fn kv_row(&self) -> usize {
        4 * self.kv_heads * (self.dims + 1)
    }
}

impl Placed {
    /// Where `count` numbers from number `from` on stand in the file. They must be whole blocks.
    pub(super) fn range(
        &self,
        from: usize,
        count: usize,
    ) -> Result<std::ops::Range<u64>, DisputeError> {
        let (elements, bytes) = (self.kind.block_elements(), self.kind.block_bytes());
        let at = |number: usize| {
            let number = number as u64;
            let whole = number.is_multiple_of(elements).then_some(number / elements)?;
            self.start.checked_add(whole.checked_mul(bytes)?)
        };
        let range = at(from).zip(at(from + count)).map(|(start, end)| start..end);
        range.ok_or(DisputeError::Layout { what: "format", got: self.kind.number().into() })
    }

    /// Products with rows of this length are below two to this power.
    pub(super) fn product_bits(&self, width: usize) -> i32 {
        crate::trace::product_bits(width, Packing::of(self.kind).magnitude_bits())
    }
}
