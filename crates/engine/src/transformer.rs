//! A model of the Llama family, loaded: hyperparameters and packed weights.
//!
//! [`Transformer::load`] checks every shape and bound, so that nothing after it can
//! fail or wrap, and packs all tensors on several threads. The result is
//! immutable and shared by any number of [`Runner`](crate::forward::Runner)s.
//! Deliberately absent: the tokenizer, and the computation itself.

#![deny(clippy::float_arithmetic)]

use crate::arith::half::Exact;
use crate::arith::{RESIDUAL_BITS, fixed};
use crate::gguf::Gguf;
use crate::kernels::MAX_HEAD_DIMS;
use crate::weights::{LoadError, MAX_COLUMNS, MAX_ROWS, Matrix, Vector, pack_all};

/// The most layers a model may have.
const MAX_LAYERS: u32 = 1024;
/// The longest context, in positions.
const MAX_CONTEXT: u32 = 1 << 20;

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Threads that pack weights.
    pub threads: usize,
    /// Compute the first so many layers only. What comes out is not the file's
    /// model any more, and any audit says so: it is what a cheat would do.
    pub only_layers: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, only_layers: None }
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

/// One transformer layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vector,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    pub(crate) output: Matrix,
    pub(crate) feed_norm: Vector,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// A loaded model.
#[derive(Debug)]
pub struct Transformer {
    shape: Shape,
    pub(crate) embedding: Matrix,
    /// The head, where it isn't the embedding.
    output: Option<Matrix>,
    pub(crate) output_norm: Vector,
    pub(crate) layers: Vec<Layer>,
    /// `round(ε · width · 2^(2·RESIDUAL_BITS))`, at least 1.
    pub(crate) epsilon: u64,
    /// Turns a position at 2^-64, one per rotated pair.
    pub(crate) frequencies: Vec<u64>,
    /// `log2(e) / √head_dims` at 2^-24.
    pub(crate) score_scale: i64,
}

impl Transformer {
    /// Loads and packs a model.
    ///
    /// # Errors
    /// The file isn't a Llama model, uses a format or variant that isn't
    /// supported, or holds numbers whose sums could not be bounded; the error
    /// names key or tensor.
    pub fn load(gguf: &Gguf, options: &LoadOptions) -> Result<Self, LoadError> {
        let shape = Shape::read(gguf)?;
        let tied = gguf.optional_tensor("output.weight").is_none();
        refuse_unknown(gguf, &shape)?;
        let frequencies = frequencies(gguf, &shape)?;
        let epsilon = epsilon(gguf, shape.width)?;
        let mut packed = pack_all(gguf, &plan(&shape, tied), options.threads)?.into_iter();
        let mut next = || {
            // `plan` and the calls here list the same matrices in the same order.
            packed.next().ok_or_else(|| header("llama.block_count", "a consistent plan", "fewer"))
        };
        let embedding = next()?;
        let output = if tied { None } else { Some(next()?) };
        let vector = |name: &str| Vector::read(&gguf.tensor(name)?, shape.width);
        let mut layers = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            layers.push(Layer {
                attention_norm: vector(&format!("blk.{layer}.attn_norm.weight"))?,
                query: next()?,
                key: next()?,
                value: next()?,
                output: next()?,
                feed_norm: vector(&format!("blk.{layer}.ffn_norm.weight"))?,
                gate: next()?,
                up: next()?,
                down: next()?,
            });
        }
        layers.truncate(options.only_layers.unwrap_or(shape.layers));
        let shape = Shape { layers: layers.len(), ..shape };
        Ok(Self {
            shape,
            embedding,
            output,
            output_norm: vector("output_norm.weight")?,
            layers,
            epsilon,
            frequencies,
            score_scale: score_scale(shape.head_dims),
        })
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

    /// The matrix that makes logits.
    pub(crate) fn head(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}

impl Shape {
    /// Reads and checks the sizes.
    fn read(gguf: &Gguf) -> Result<Self, LoadError> {
        let architecture = gguf.str("general.architecture")?;
        if architecture != "llama" {
            return Err(header("general.architecture", "llama", architecture));
        }
        let within = |key: &'static str, value: u32, max: u64, multiple: u32| {
            if value == 0 || u64::from(value) > max || !value.is_multiple_of(multiple) {
                let expected = format!("a multiple of {multiple} from {multiple} to {max}");
                return Err(header(key, expected, value));
            }
            Ok(value as usize)
        };
        let read =
            |key: &'static str, max: u64, multiple: u32| within(key, gguf.u32(key)?, max, multiple);
        let width = read("llama.embedding_length", MAX_COLUMNS, 16)?;
        let heads = read("llama.attention.head_count", MAX_COLUMNS, 1)?;
        let kv_heads = match gguf.optional_u32("llama.attention.head_count_kv")? {
            Some(value) => within("llama.attention.head_count_kv", value, heads as u64, 1)?,
            None => heads,
        };
        if heads % kv_heads != 0 {
            return Err(header(
                "llama.attention.head_count_kv",
                "a divisor of head_count",
                kv_heads,
            ));
        }
        let head_dims =
            gguf.optional_u32("llama.attention.key_length")?.unwrap_or((width / heads) as u32);
        let head_dims = within("llama.attention.key_length", head_dims, MAX_HEAD_DIMS as u64, 16)?;
        let value_dims =
            gguf.optional_u32("llama.attention.value_length")?.unwrap_or(head_dims as u32);
        if value_dims as usize != head_dims {
            return Err(header("llama.attention.value_length", "the key length", value_dims));
        }
        let rope_dims =
            gguf.optional_u32("llama.rope.dimension_count")?.unwrap_or(head_dims as u32);
        let experts = gguf.optional_u32("llama.expert_count")?.unwrap_or(0);
        if experts > 0 {
            return Err(header("llama.expert_count", "0", experts));
        }
        if heads * head_dims > MAX_COLUMNS as usize {
            return Err(header("llama.attention.head_count", "fewer heads", heads));
        }
        let vocabulary = gguf.tensor("token_embd.weight")?.rows();
        if vocabulary == 0 || vocabulary > MAX_ROWS {
            return Err(header("llama.vocab_size", format!("1 to {MAX_ROWS}"), vocabulary));
        }
        Ok(Self {
            layers: read("llama.block_count", u64::from(MAX_LAYERS), 1)?,
            width,
            heads,
            kv_heads,
            head_dims,
            rope_dims: within("llama.rope.dimension_count", rope_dims, head_dims as u64, 2)?,
            feed: read("llama.feed_forward_length", MAX_COLUMNS, 16)?,
            vocabulary: vocabulary as usize,
            context: read("llama.context_length", u64::from(MAX_CONTEXT), 1)?,
        })
    }
}

fn header(key: &'static str, expected: impl ToString, got: impl ToString) -> LoadError {
    LoadError::Header { key, expected: expected.to_string(), got: got.to_string() }
}

/// The matrices of a layer: name, columns, rows.
fn layer_matrices(shape: &Shape) -> [(&'static str, usize, usize); 7] {
    let (width, all, kv) =
        (shape.width, shape.heads * shape.head_dims, shape.kv_heads * shape.head_dims);
    [
        ("attn_q", width, all),
        ("attn_k", width, kv),
        ("attn_v", width, kv),
        ("attn_output", all, width),
        ("ffn_gate", width, shape.feed),
        ("ffn_up", width, shape.feed),
        ("ffn_down", shape.feed, width),
    ]
}

/// Every matrix in load order: name, columns, rows.
fn plan(shape: &Shape, tied: bool) -> Vec<(String, usize, usize)> {
    let mut plan = vec![("token_embd.weight".to_owned(), shape.width, shape.vocabulary)];
    if !tied {
        plan.push(("output.weight".to_owned(), shape.width, shape.vocabulary));
    }
    for layer in 0..shape.layers {
        let name = |(name, cols, rows)| (format!("blk.{layer}.{name}.weight"), cols, rows);
        plan.extend(layer_matrices(shape).map(name));
    }
    plan
}

/// Refuses a file with tensors that would be left out of the computation.
fn refuse_unknown(gguf: &Gguf, shape: &Shape) -> Result<(), LoadError> {
    let known = |name: &str| {
        let ends =
            ["token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight"];
        let Some(rest) = name.strip_prefix("blk.") else { return ends.contains(&name) };
        let Some((layer, rest)) = rest.split_once('.') else { return false };
        let Some(part) = rest.strip_suffix(".weight") else { return false };
        layer.parse::<usize>().is_ok_and(|layer| layer < shape.layers)
            && (layer_matrices(shape).iter().any(|m| m.0 == part)
                || part == "attn_norm"
                || part == "ffn_norm")
    };
    match gguf.tensors().find(|tensor| !known(tensor.name)) {
        Some(tensor) => Err(LoadError::Unknown { tensor: tensor.name.to_owned() }),
        None => Ok(()),
    }
}

/// `round(ε · n · 2^(2·RESIDUAL_BITS))`, at least 1.
fn epsilon(gguf: &Gguf, width: usize) -> Result<u64, LoadError> {
    const KEY: &str = "llama.attention.layer_norm_rms_epsilon";
    let value = gguf.f32(KEY)?;
    let exact = Exact::from_f32(value.to_bits()).filter(|exact| exact.mantissa >= 0 && value < 1.0);
    let exact = exact.ok_or_else(|| header(KEY, "from 0 to 1", value))?;
    let scaled = Exact { mantissa: exact.mantissa * width as i64, exponent: exact.exponent };
    Ok(scaled.at(2 * RESIDUAL_BITS, 1 << 62).max(1) as u64)
}

/// Turns a position of every rotated pair.
fn frequencies(gguf: &Gguf, shape: &Shape) -> Result<Vec<u64>, LoadError> {
    const SCALING: &str = "llama.rope.scaling.type";
    const FACTOR: &str = "llama.rope.scaling.factor";
    const BASE: &str = "llama.rope.freq_base";
    let exact = |key: &'static str, value: f32| {
        Exact::from_f32(value.to_bits())
            .filter(|x| x.mantissa > 0)
            .ok_or_else(|| header(key, "a positive number", value))
    };
    let linear = match gguf.optional_str(SCALING)? {
        None | Some("none") => Exact { mantissa: 1, exponent: 0 },
        Some("linear") => exact(FACTOR, gguf.f32(FACTOR)?)?,
        Some(other) => return Err(header(SCALING, "none or linear", other)),
    };
    let base = exact(BASE, gguf.optional_f32(BASE)?.unwrap_or(10_000.0))?;
    let factors = match gguf.optional_tensor("rope_freqs.weight") {
        Some(tensor) => {
            crate::weights::expect_shape(&tensor, &[shape.rope_dims as u64 / 2])?;
            crate::pack::floats(&tensor).collect::<Option<Vec<_>>>()
        }
        None => Some(vec![Exact { mantissa: 1, exponent: 0 }; shape.rope_dims / 2]),
    };
    let turns = |(index, factor): (usize, Exact)| {
        fixed::frequency(base, index as u32, shape.rope_dims as u32, &[linear, factor])
    };
    let all = factors
        .and_then(|factors| factors.into_iter().enumerate().map(turns).collect::<Option<Vec<_>>>());
    all.ok_or_else(|| header(BASE, "frequencies of less than a turn a position", "something else"))
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
