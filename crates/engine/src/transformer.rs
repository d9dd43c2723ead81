//! A model, loaded: hyperparameters and packed weights.
//!
//! [`Transformer::load`] checks every shape and bound, so that nothing after it can
//! fail or wrap, and packs all tensors on several threads. What a family of models
//! does its own way is a row of one table (`architecture.rs`); which tensors there
//! are follows from it, and a file with any other is refused. The result is
//! immutable and shared by any number of [`Runner`](crate::forward::Runner)s.
//! Deliberately absent: the tokenizer, and the computation itself.

#![deny(clippy::float_arithmetic)]

mod header;
mod plan;
mod rope;

use std::ops::Range;

use crate::architecture::{Activation, Architecture};
use crate::arith::cap::Cap;
use crate::arith::fixed;
use crate::arith::half::Exact;
use crate::arith::{LIMIT, RESIDUAL_BITS, rescale};
use crate::gguf::Gguf;
use crate::weights::{LoadError, Matrix, Piece, Vector, pack_all, packed_bytes};

use header::Header;
use plan::Plan;
pub(crate) use plan::{Place, Places, name};
pub(crate) use rope::Rope;

/// Fraction bits of the factor that embeddings are scaled with.
const SCALE_BITS: i32 = 20;

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Threads that pack weights.
    pub threads: usize,
    /// Compute the first so many layers only. What comes out is not the file's
    /// model any more, and any audit says so: it is what a cheat would do.
    pub only_layers: Option<usize>,
    /// What of the model to load.
    pub part: Part,
}

/// What of a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// One layer, for [`Runner::cell`](crate::forward::Runner::cell). Nothing else can be computed.
    Layer(usize),
    /// What makes embeddings and logits, without any layer.
    Ends,
    /// No weights, only what the header says. Nothing can be computed.
    Header,
}

impl Default for LoadOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, only_layers: None, part: Part::Whole }
    }
}

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shape {
    /// Transformer layers.
    pub layers: usize,
    /// Values in the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Dimensions of a head.
    pub head_dims: usize,
    /// Dimensions of a head that are rotated.
    pub rope_dims: usize,
    /// Values in the feed-forward layer.
    pub feed: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Positions the model was made for.
    pub context: usize,
}

/// The memory a model takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Footprint {
    /// Packed weights.
    pub weights: u64,
    /// Keys and values of one position of one sequence.
    pub kv_per_position: u64,
    /// Keys and values of one sequence of the longest context.
    pub kv_whole: u64,
    /// What one forward pass works in, apart from each thread's own share.
    pub scratch: u64,
    /// The logits of as many rows as a pass makes at most.
    pub logits: u64,
}

/// One transformer layer. What the family doesn't have is `None`.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vector,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    /// Added to queries, keys and values.
    pub(crate) biases: Option<[Vector; 3]>,
    /// Gains of each query and each key head.
    pub(crate) head_norms: Option<[Vector; 2]>,
    pub(crate) output: Matrix,
    pub(crate) post_attention: Option<Vector>,
    pub(crate) feed_norm: Vector,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
    pub(crate) post_feed: Option<Vector>,
    /// How many positions a query sees, its own included; `None` for all.
    pub(crate) window: Option<usize>,
    /// Which of the model's rotations is the layer's.
    pub(crate) rope: usize,
}

/// A loaded model.
#[derive(Debug)]
pub struct Transformer {
    shape: Shape,
    pub(crate) family: &'static Architecture,
    pub(crate) embedding: Matrix,
    /// `round(√width · 2^20)`, where embeddings are scaled.
    pub(crate) embedding_scale: Option<i64>,
    /// The head, where it isn't the embedding.
    output: Option<Matrix>,
    pub(crate) output_norm: Vector,
    pub(crate) layers: Vec<Layer>,
    /// What norms add to the mean square.
    pub(crate) epsilon: Exact,
    /// Its bits in the file.
    pub(crate) epsilon_bits: u32,
    /// One rotation, or two: the second for layers with a window.
    pub(crate) ropes: Vec<Rope>,
    /// `log2(e) / √head_dims` at 2^-24, or what the family has in its place.
    pub(crate) score_scale: i64,
    pub(crate) score_cap: Option<Cap>,
    pub(crate) logit_cap: Option<Cap>,
    /// Where everything stands in the file.
    pub(crate) places: Places,
}

impl Transformer {
    /// Loads and packs a model.
    ///
    /// # Errors
    /// The file's architecture isn't supported, it uses a format or variant that
    /// isn't, or holds numbers whose sums could not be bounded; the error names
    /// key or tensor.
    pub fn load(gguf: &Gguf, options: &LoadOptions) -> Result<Self, LoadError> {
        let keys = Keys::read(gguf)?;
        let packed = pack_all(gguf, keys.plan.pieces(options.part), options.threads)?;
        let vectors = |name: &str, len| Vector::read(&gguf.tensor(name)?, len);
        let mut model = keys.assemble(packed, &vectors, options.part)?;
        model.layers.truncate(options.only_layers.unwrap_or(model.layers.len()));
        model.shape.layers = model.layers.len();
        Ok(model)
    }

    /// A model without weights, of a file that has nothing but its header: all that stands
    /// between products can be computed. `exponents` are those of the matrices that
    /// [`Transformer::outline`] lists, `vectors` gives what it lists of those.
    pub(crate) fn hollow(
        gguf: &Gguf,
        exponents: &[i32],
        vectors: Vectors<'_>,
    ) -> Result<Self, LoadError> {
        let keys = Keys::read(gguf)?;
        let pieces = keys.plan.pieces(Part::Whole).iter();
        let matrices = pieces.zip(exponents).map(|(piece, exponent)| piece.hollow(gguf, *exponent));
        let matrices = matrices.collect::<Result<_, _>>()?;
        keys.assemble(matrices, vectors, Part::Whole)
    }

    /// What a part of a model is made of, from its header alone.
    pub(crate) fn outline(gguf: &Gguf, part: Part) -> Result<Outline, LoadError> {
        let header = Header::read(gguf)?;
        let plan = Plan::new(&header, &Shape::read(&header)?)?;
        let dims = |piece: &Piece| piece.dims.map(|dim| dim as usize);
        Ok(Outline {
            matrices: plan.pieces(part).iter().map(dims).collect(),
            vectors: plan.vectors(part),
        })
    }

    /// The matrices of a part that is there, in the order of [`Transformer::outline`].
    pub(crate) fn matrices(gguf: &Gguf, part: Part) -> Result<Vec<Matrix>, LoadError> {
        let header = Header::read(gguf)?;
        let plan = Plan::new(&header, &Shape::read(&header)?)?;
        pack_all(gguf, plan.pieces(part), LoadOptions::default().threads)
    }

    /// The stretches of the file that loading a part reads, beside its header.
    /// In the order of the file; neighbours are joined.
    ///
    /// # Errors
    /// As [`Transformer::load`], as far as keys and shapes tell.
    pub fn part_ranges(gguf: &Gguf, part: Part) -> Result<Vec<Range<u64>>, LoadError> {
        let header = Header::read(gguf)?;
        let plan = Plan::new(&header, &Shape::read(&header)?)?;
        let tensors = gguf.tensors().filter(|tensor| plan.is_of(part, tensor.name));
        let mut ranges: Vec<Range<u64>> = tensors.map(|tensor| gguf.range_of(&tensor)).collect();
        ranges.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match joined.last_mut().filter(|last| last.end == range.start) {
                Some(last) => last.end = range.end,
                None => joined.push(range),
            }
        }
        Ok(joined)
    }

    /// The sizes of the model in a file, from its header alone.
    ///
    /// # Errors
    /// As [`Transformer::load`], as far as keys tell.
    pub fn shape_of(gguf: &Gguf) -> Result<Shape, LoadError> {
        Shape::read(&Header::read(gguf)?)
    }

    /// The memory a file's model would take, found without loading it.
    ///
    /// # Errors
    /// As [`Transformer::load`], as far as keys and shapes tell.
    pub fn estimate(gguf: &Gguf) -> Result<Footprint, LoadError> {
        let Keys { shape, plan, ropes, .. } = Keys::read(gguf)?;
        let weights = packed_bytes(gguf, plan.pieces(Part::Whole))?;
        Ok(Footprint { weights, ..shape.footprint(ropes.len()) })
    }

    /// The sizes of the model.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Tokens in the vocabulary: logits a row.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.shape.vocabulary
    }

    /// Positions the model was made for.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.shape.context
    }

    /// Bytes of packed weights.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let layer = |l: &Layer| {
            let all = [&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down];
            all.iter().map(|matrix| matrix.bytes()).sum::<usize>()
        };
        let ends = self.embedding.bytes() + self.output.as_ref().map_or(0, Matrix::bytes);
        ends + self.layers.iter().map(layer).sum::<usize>()
    }

    /// The memory the model takes.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let weights = self.weight_bytes() as u64;
        Footprint { weights, ..self.shape.footprint(self.ropes.len()) }
    }

    /// The matrix that makes logits.
    pub(crate) fn head(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Brings a row of the embedding to what enters the first layer.
    pub(crate) fn embed(&self, row: &mut [i32]) {
        let (scale, bits) = self.embedding_scale.map_or((1, 0), |scale| (scale, SCALE_BITS));
        let shift = self.embedding.exponent() + bits - RESIDUAL_BITS;
        for value in row {
            *value = rescale(i64::from(*value) * scale, shift, LIMIT) as i32;
        }
    }

    /// Whether the gate goes through GELU instead of SiLU.
    pub(crate) fn gelu(&self) -> bool {
        self.family.activation == Activation::Gelu
    }
}

/// What gives a vector by its name and length.
pub(crate) type Vectors<'a> = &'a dyn Fn(&str, usize) -> Result<Vector, LoadError>;

/// What a part of a model is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Columns and rows of each matrix.
    pub(crate) matrices: Vec<[usize; 2]>,
    /// Each vector's name and length.
    pub(crate) vectors: Vec<(String, usize)>,
}

/// Everything that a file's keys and its tensors' shapes say, checked.
struct Keys {
    family: &'static Architecture,
    shape: Shape,
    plan: Plan,
    ropes: Vec<Rope>,
    /// Of scores, and of logits.
    caps: [Option<Cap>; 2],
    epsilon: (Exact, u32),
    places: Places,
    windows: Option<(usize, usize)>,
    scaled_dims: usize,
}

impl Keys {
    fn read(gguf: &Gguf) -> Result<Self, LoadError> {
        let header = Header::read(gguf)?;
        let shape = Shape::read(&header)?;
        let plan = Plan::new(&header, &shape)?;
        let local = Rope::local(&header, &shape)?;
        Ok(Self {
            family: header.family,
            shape,
            ropes: std::iter::once(Rope::read(&header, &shape)?).chain(local).collect(),
            caps: caps(&header)?,
            epsilon: epsilon(&header)?,
            windows: header.windows()?,
            scaled_dims: scaled_dims(&header, &shape)?,
            // What is wrong with the header is said before what is wrong with tensors.
            places: plan.places(gguf)?,
            plan,
        })
    }
}

impl Keys {
    /// A model of a part's matrices and vectors.
    fn assemble(
        self,
        matrices: Vec<Matrix>,
        vectors: Vectors<'_>,
        part: Part,
    ) -> Result<Transformer, LoadError> {
        let Self { shape, ropes, .. } = &self;
        let (embedding, output, mut layers) = self.plan.layers(vectors, matrices, part)?;
        let first = if let Part::Layer(layer) = part { layer } else { 0 };
        for (at, layer) in (first..).zip(&mut layers) {
            let local = |&(_, period): &(usize, usize)| period == 0 || at % period + 1 < period;
            layer.window = self.windows.filter(local).map(|(length, _)| length);
            layer.rope = if layer.window.is_some() { ropes.len() - 1 } else { 0 };
        }
        let root = fixed::root_20(shape.width as u64) as i64;
        let [score_cap, logit_cap] = self.caps;
        Ok(Transformer {
            shape: Shape { layers: layers.len(), ..*shape },
            family: self.family,
            embedding,
            embedding_scale: self.family.scaled_embedding.then_some(root),
            output,
            output_norm: vectors("output_norm.weight", shape.width)?,
            layers,
            epsilon: self.epsilon.0,
            epsilon_bits: self.epsilon.1,
            ropes: self.ropes,
            score_scale: score_scale(self.scaled_dims),
            score_cap,
            logit_cap,
            places: self.places,
        })
    }
}

impl Shape {
    /// Everything but the weights, which the sizes don't tell.
    fn footprint(&self, ropes: usize) -> Footprint {
        // A key and a value row of 16 bits each, and their exponents.
        let head = 4 * self.head_dims + 4;
        Footprint {
            weights: 0,
            kv_per_position: (self.layers * self.kv_heads * head) as u64,
            kv_whole: crate::kv::whole_bytes(self) as u64,
            scratch: crate::forward::scratch_bytes(self, ropes),
            logits: crate::forward::logits_bytes(self),
        }
    }
}

/// The dimensions whose root scores are divided by: those of a head, but for the
/// one size of a family that takes `width / heads`. With 16 or more of them no
/// score leaves 62 bits.
fn scaled_dims(header: &Header<'_>, shape: &Shape) -> Result<usize, LoadError> {
    if header.family.broad != Some(shape.layers) {
        return Ok(shape.head_dims);
    }
    let (dims, most) = (shape.width / shape.heads, shape.width / 16);
    if dims < 16 {
        let expected = format!("at most {most}: 16 values of a row for each");
        return Err(header.error("attention.head_count", expected, shape.heads));
    }
    Ok(dims)
}

/// The soft caps of scores and of logits.
fn caps(header: &Header<'_>) -> Result<[Option<Cap>; 2], LoadError> {
    const KEYS: [&str; 2] = ["attn_logit_softcapping", "final_logit_softcapping"];
    let mut caps = [None; 2];
    for (at, key) in KEYS.into_iter().enumerate() {
        let default =
            header.family.caps.map(|caps| Exact { mantissa: caps[at].into(), exponent: 0 });
        let given = header.optional_exact(key)?.or(default);
        let Some(given) = given.filter(|cap| cap.mantissa > 0) else { continue };
        let cap = if at == 0 { Cap::of_scores(given) } else { Cap::of_logits(given) };
        caps[at] = Some(cap.ok_or_else(|| header.error(key, "0, or 4 to 700000", "neither"))?);
    }
    Ok(caps)
}

/// The ε of every norm: below 1.
fn epsilon(header: &Header<'_>) -> Result<(Exact, u32), LoadError> {
    const KEY: &str = "attention.layer_norm_rms_epsilon";
    let value = header.gguf.f32(&header.key(KEY))?;
    let exact = Exact::from_f32(value.to_bits()).filter(|exact| exact.mantissa >= 0 && value < 1.0);
    let exact = exact.map(|exact| (exact, value.to_bits()));
    exact.ok_or_else(|| header.error(KEY, "from 0 to 1", value))
}

/// `round_shift(isqrt(floor(L² / d)), 38)` with `L = round(log2(e) · 2^62)`.
fn score_scale(dims: usize) -> i64 {
    let log = u128::from(fixed::LOG2_E);
    let root = crate::arith::isqrt(log * log / dims as u128);
    crate::arith::round_shift(root as i64, 38)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_arithmetic, reason = "tests compare with floats")]
    use super::*;

    #[test]
    fn score_scale_is_the_rounded_quotient() {
        for dims in [16usize, 32, 64, 80, 96, 128, 256] {
            let want = std::f64::consts::LOG2_E / (dims as f64).sqrt() * 2f64.powi(24);
            assert!((score_scale(dims) as f64 - want).abs() <= 0.5, "{dims}");
        }
    }
}
