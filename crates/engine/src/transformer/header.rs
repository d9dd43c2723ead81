//! The keys of a model file: sizes read and checked, and nothing left unread.
//!
//! A key that begins with the family's name changes what the model computes, so
//! one that isn't understood here is refused by name, as a tensor is.
//! Deliberately absent: keys of the tokenizer, and what keys mean for rotation
//! ([`super::rope`]).

#![deny(clippy::float_arithmetic)]

use crate::architecture::{Architecture, NAMES};
use crate::arith::half::Exact;
use crate::gguf::Gguf;
use crate::kernels::MAX_HEAD_DIMS;
use crate::weights::{LoadError, MAX_COLUMNS, MAX_ROWS};

use super::Shape;

/// The most layers a model may have.
const MAX_LAYERS: u64 = 1024;
/// The longest context, in positions.
pub(super) const MAX_CONTEXT: u64 = 1 << 20;
const FAMILY: &str = "general.architecture";

/// Keys that are read, without the family's name.
const READ: [&str; 25] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "expert_count",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "pooling_type",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];
/// Keys that change nothing that is computed.
const IDLE: [&str; 5] = [
    "vocab_size",
    "expert_used_count",
    "tensor_data_layout",
    "rope.scaling.finetuned",
    "mm.tokens_per_image",
];
/// Read where layers with a window have a base of their own.
const LOCAL_BASE: &str = "rope.freq_base_swa";

/// A file's keys under its family's name.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) family: &'static Architecture,
}

impl<'a> Header<'a> {
    /// Finds the family and refuses keys that are not understood.
    pub(super) fn read(gguf: &'a Gguf) -> Result<Self, LoadError> {
        let name = gguf.str(FAMILY)?;
        let family = Architecture::named(name).ok_or_else(|| LoadError::Header {
            key: FAMILY.to_owned(),
            expected: format!("one of {}", NAMES.join(", ")),
            got: name.chars().take(80).collect(),
        })?;
        let header = Self { gguf, family };
        for (key, _) in gguf.keys() {
            let Some(rest) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            let local = family.windows.base.is_some() && rest == LOCAL_BASE;
            if !local && !READ.contains(&rest) && !IDLE.contains(&rest) {
                return Err(header.error(rest, "only keys this engine knows", "a key it doesn't"));
            }
        }
        Ok(header)
    }

    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.family.name)
    }

    /// That the value of a key won't do.
    pub(super) fn error(
        &self,
        key: &str,
        expected: impl ToString,
        got: impl ToString,
    ) -> LoadError {
        LoadError::Header {
            key: self.key(key),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    pub(super) fn optional_u32(&self, key: &str) -> Result<Option<u32>, LoadError> {
        Ok(self.gguf.optional_u32(&self.key(key))?)
    }

    pub(super) fn optional_str(&self, key: &str) -> Result<Option<&'a str>, LoadError> {
        Ok(self.gguf.optional_str(&self.key(key))?)
    }

    /// A number of which an exact one is made, zero or more.
    pub(super) fn optional_exact(&self, key: &str) -> Result<Option<Exact>, LoadError> {
        let Some(value) = self.gguf.optional_f32(&self.key(key))? else { return Ok(None) };
        let exact = Exact::from_f32(value.to_bits()).filter(|exact| exact.mantissa >= 0);
        exact.map(Some).ok_or_else(|| self.error(key, "a finite number of 0 or more", value))
    }

    /// As [`Header::optional_exact`], above zero.
    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<Exact>, LoadError> {
        let exact = self.optional_exact(key)?;
        match exact {
            Some(Exact { mantissa: 0, .. }) => Err(self.error(key, "a positive number", 0)),
            exact => Ok(exact),
        }
    }

    fn within(&self, key: &str, value: u32, max: u64, multiple: u32) -> Result<usize, LoadError> {
        if value == 0 || u64::from(value) > max || !value.is_multiple_of(multiple) {
            let expected = format!("a multiple of {multiple} from {multiple} to {max}");
            return Err(self.error(key, expected, value));
        }
        Ok(value as usize)
    }

    fn size(&self, key: &str, max: u64, multiple: u32) -> Result<usize, LoadError> {
        self.within(key, self.gguf.u32(&self.key(key))?, max, multiple)
    }

    /// Sliding windows: their length in positions and their period.
    pub(super) fn windows(&self) -> Result<Option<(usize, usize)>, LoadError> {
        let windows = self.family.windows;
        let length = self.optional_u32("attention.sliding_window")?.unwrap_or(windows.length);
        let period = self.optional_u32("attention.sliding_window_pattern")?;
        let period = period.unwrap_or(windows.period);
        Ok((length > 0).then_some((length as usize, period as usize)))
    }
}

impl Shape {
    /// Reads and checks the sizes.
    pub(super) fn read(header: &Header<'_>) -> Result<Self, LoadError> {
        const HEADS: &str = "attention.head_count";
        const KV_HEADS: &str = "attention.head_count_kv";
        let width = header.size("embedding_length", MAX_COLUMNS, 16)?;
        let heads = header.size(HEADS, MAX_COLUMNS, 1)?;
        let kv_heads = match header.optional_u32(KV_HEADS)? {
            Some(value) => header.within(KV_HEADS, value, heads as u64, 1)?,
            None => heads,
        };
        if heads % kv_heads != 0 {
            return Err(header.error(KV_HEADS, "a divisor of head_count", kv_heads));
        }
        let (head_dims, rope_dims) = head_sizes(header, width / heads)?;
        if heads * head_dims > MAX_COLUMNS as usize {
            return Err(header.error(HEADS, "fewer heads", heads));
        }
        let experts = header.optional_u32("expert_count")?.unwrap_or(0);
        if experts > 0 {
            return Err(header.error("expert_count", "0", experts));
        }
        let vocabulary = header.gguf.tensor("token_embd.weight")?.rows();
        if vocabulary == 0 || vocabulary > MAX_ROWS {
            return Err(header.error("vocab_size", format!("1 to {MAX_ROWS}"), vocabulary));
        }
        Ok(Self {
            layers: header.size("block_count", MAX_LAYERS, 1)?,
            width,
            heads,
            kv_heads,
            head_dims,
            rope_dims,
            feed: header.size("feed_forward_length", MAX_COLUMNS, 16)?,
            vocabulary: vocabulary as usize,
            context: header.size("context_length", MAX_CONTEXT, 1)?,
        })
    }
}

/// Dimensions of a head, and how many of them are rotated.
fn head_sizes(header: &Header<'_>, default: usize) -> Result<(usize, usize), LoadError> {
    const KEY: &str = "attention.key_length";
    const VALUE: &str = "attention.value_length";
    const ROTATED: &str = "rope.dimension_count";
    let dims = header.optional_u32(KEY)?.unwrap_or(default as u32);
    let dims = header.within(KEY, dims, MAX_HEAD_DIMS as u64, 16)?;
    let values = header.optional_u32(VALUE)?.unwrap_or(dims as u32);
    if values as usize != dims {
        return Err(header.error(VALUE, "the key length", values));
    }
    let rotated = header.optional_u32(ROTATED)?.unwrap_or(dims as u32);
    Ok((dims, header.within(ROTATED, rotated, dims as u64, 2)?))
}
