//! How fast the pairs of a head turn: frequencies from the base, and what a file
//! does to them for contexts longer than those it was first trained on.
//!
//! A frequency is a fraction of a turn a position, at 2^-128, so that a position's
//! angle is one wrapping product. Models stretched by a changed base (what is
//! called NTK scaling) need nothing here: the file has the changed base. The
//! choice between the short and the long factors of LongRoPE is by the file's own
//! context alone; were it by the length of a text, a prompt's first positions
//! would change as it grows. Deliberately absent: the rotation itself.

#![deny(clippy::float_arithmetic)]

use super::Shape;
use super::header::{Header, MAX_CONTEXT};
use crate::arith::fixed::{self, ONE_60};
use crate::arith::half::Exact;
use crate::arith::turns;
use crate::pack::Packing;
use crate::weights::{LoadError, expect_shape};

const TYPE: &str = "rope.scaling.type";
const FACTOR: &str = "rope.scaling.factor";
const BASE: &str = "rope.freq_base";
const LOCAL_BASE: &str = "rope.freq_base_swa";
const ORIGINAL: &str = "rope.scaling.original_context_length";
const MAGNITUDE: &str = "rope.scaling.attn_factor";
const UNIT: Exact = Exact { mantissa: 1, exponent: 0 };

/// A rotation: what angles are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rope {
    /// Turns a position at 2^-128, one per rotated pair.
    pub(crate) frequencies: Vec<u128>,
    /// What cosine and sine are multiplied with, at 2^-60; below 2.
    pub(crate) magnitude: u64,
}

impl Rope {
    /// Cosine and sine of every pair at a position.
    pub(crate) fn angles(&self, position: usize, out: &mut [(i16, i16)]) {
        let turns = self.frequencies.iter().map(|&f| turns::angle(f, position));
        let angles = out.iter_mut().zip(turns);
        if self.magnitude == ONE_60 {
            angles.for_each(|(angle, turns)| *angle = fixed::cos_sin(turns));
        } else {
            angles.for_each(|(angle, turns)| {
                *angle = fixed::magnified_cos_sin(turns, self.magnitude);
            });
        }
    }

    /// The rotation of layers that see everything.
    pub(super) fn read(header: &Header<'_>, shape: &Shape) -> Result<Self, LoadError> {
        let base = base(header, BASE, 10_000)?;
        let long = header.gguf.optional_tensor("rope_factors_long.weight").is_some();
        let kind = header.optional_str(TYPE)?;
        if kind == Some("longrope") || (kind.is_none() && long) {
            return long_rope(header, shape, base);
        }
        if long {
            return Err(header.error(TYPE, "longrope beside long factors", kind.unwrap_or("none")));
        }
        let factors = factors(header, shape, "rope_freqs.weight")?;
        let factors = factors.unwrap_or_else(|| vec![UNIT; shape.rope_dims / 2]);
        match kind {
            Some("yarn") => yarn(header, shape, base, &factors),
            None | Some("none" | "linear") => {
                let linear = linear(header, kind)?;
                plain(header, shape, base, &factors, linear)
            }
            Some(other) => Err(header.error(TYPE, "none, linear, yarn or longrope", other)),
        }
    }

    /// The rotation of layers with a window, where it is another.
    pub(super) fn local(header: &Header<'_>, shape: &Shape) -> Result<Option<Self>, LoadError> {
        let Some(default) = header.family.windows.base else { return Ok(None) };
        let base = base(header, LOCAL_BASE, default)?;
        plain(header, shape, base, &vec![UNIT; shape.rope_dims / 2], UNIT).map(Some)
    }
}

/// A base: above 1, so that its powers fall.
fn base(header: &Header<'_>, key: &str, default: u32) -> Result<Exact, LoadError> {
    let base = header.optional_positive(key)?;
    let base = base.unwrap_or(Exact { mantissa: i64::from(default), exponent: 0 });
    match fixed::log2(base) {
        Some(log) if log > 0 => Ok(base),
        _ => Err(header.error(key, "a number above 1", "less")),
    }
}

/// What frequencies are divided by.
fn linear(header: &Header<'_>, kind: Option<&str>) -> Result<Exact, LoadError> {
    let factor = header.optional_positive(FACTOR)?;
    match (kind, factor) {
        (Some("none"), _) | (None, None) => Ok(UNIT),
        (_, Some(factor)) => Ok(factor),
        (_, None) => Err(header.error(FACTOR, "a positive number", "nothing")),
    }
}

/// The divisors of single frequencies, where there is such a tensor.
fn factors(
    header: &Header<'_>,
    shape: &Shape,
    name: &str,
) -> Result<Option<Vec<Exact>>, LoadError> {
    let Some(tensor) = header.gguf.optional_tensor(name) else { return Ok(None) };
    expect_shape(&tensor, &[shape.rope_dims as u64 / 2])?;
    if Packing::of(tensor.kind) != Packing::Dense {
        return Err(LoadError::Format { tensor: name.to_owned(), kind: tensor.kind });
    }
    let mut factors = Vec::with_capacity(shape.rope_dims / 2);
    for (block, factor) in crate::pack::floats(&tensor).enumerate() {
        let factor = factor.filter(|factor| factor.mantissa > 0);
        let tensor = || name.to_owned();
        factors.push(factor.ok_or_else(|| LoadError::NotFinite { tensor: tensor(), block })?);
    }
    Ok(Some(factors))
}

/// `base^(-2i / n) / (linear · factor_i)`.
fn plain(
    header: &Header<'_>,
    shape: &Shape,
    base: Exact,
    factors: &[Exact],
    linear: Exact,
) -> Result<Rope, LoadError> {
    let turn = |(index, &factor): (usize, &Exact)| {
        frequency(header, shape, base, index, &[linear, factor])
    };
    let frequencies = factors.iter().enumerate().map(turn).collect::<Result<_, _>>()?;
    Ok(Rope { frequencies, magnitude: ONE_60 })
}

fn frequency(
    header: &Header<'_>,
    shape: &Shape,
    base: Exact,
    index: usize,
    divisors: &[Exact],
) -> Result<u128, LoadError> {
    turns::frequency(base, index as u32, shape.rope_dims as u32, divisors).ok_or_else(|| {
        header.error(BASE, "frequencies of less than a turn a position", "something else")
    })
}

/// LongRoPE: divisors for the file's context, and a magnitude.
fn long_rope(header: &Header<'_>, shape: &Shape, base: Exact) -> Result<Rope, LoadError> {
    let original = original_context(header, shape)?;
    let name = if shape.context > original {
        "rope_factors_long.weight"
    } else {
        "rope_factors_short.weight"
    };
    let Some(factors) = factors(header, shape, name)? else {
        return Err(header.error(TYPE, format!("a tensor {name} beside it"), "none"));
    };
    let rope = plain(header, shape, base, &factors, UNIT)?;
    Ok(Rope { magnitude: magnitude(header, ONE_60)?, ..rope })
}

fn original_context(header: &Header<'_>, shape: &Shape) -> Result<usize, LoadError> {
    match header.optional_u32(ORIGINAL)? {
        Some(0) => Err(header.error(ORIGINAL, "at least 1", 0)),
        Some(length) if u64::from(length) > MAX_CONTEXT => {
            Err(header.error(ORIGINAL, format!("at most {MAX_CONTEXT}"), length))
        }
        original => Ok(original.map_or(shape.context, |length| length as usize)),
    }
}

/// YaRN: slow pairs are slowed further by the factor, fast ones are not, and
/// between two bounds they change over.
fn yarn(
    header: &Header<'_>,
    shape: &Shape,
    base: Exact,
    factors: &[Exact],
) -> Result<Rope, LoadError> {
    let Some(factor) = header.optional_positive(FACTOR)? else {
        return Err(header.error(FACTOR, "a positive number", "nothing"));
    };
    let extent = header.optional_exact("rope.scaling.yarn_ext_factor")?.unwrap_or(UNIT);
    if extent.at(60, 1 << 62) != 1 << 60 {
        return Err(header.error("rope.scaling.yarn_ext_factor", 1, "another number"));
    }
    let original = original_context(header, shape)? as i64;
    let pairs = shape.rope_dims;
    let bound = |key: &str, default: i64| {
        let turns = header.optional_positive(key)?;
        let turns = turns.unwrap_or(Exact { mantissa: default, exponent: 0 });
        fixed::turning_pair(base, pairs as u32, original, turns)
            .ok_or_else(|| header.error(key, "a positive number", "something else"))
    };
    let low = bound("rope.scaling.yarn_beta_fast", 32)?.0.max(0);
    let high = bound("rope.scaling.yarn_beta_slow", 1)?.1.min(pairs as i64 - 1);
    let span = (high - low).max(1);
    let mut frequencies = Vec::with_capacity(factors.len());
    for (index, &own) in factors.iter().enumerate() {
        let fast = frequency(header, shape, base, index, &[own])?;
        let slow = frequency(header, shape, base, index, &[own, factor])?;
        let slowed = (index as i64 - low).clamp(0, span) as u128;
        // A span is below 2^8, so sixteen bits less leave room for the products.
        let mixed = (fast >> 16) * (span as u128 - slowed) + (slow >> 16) * slowed;
        frequencies.push((mixed / span as u128) << 16);
    }
    let own = match header.optional_positive("rope.scaling.yarn_attn_factor")? {
        Some(given) => magnitude_of(header, ONE_60, given)?,
        None => fixed::yarn_magnitude(factor).ok_or_else(|| too_large(header))?,
    };
    Ok(Rope { frequencies, magnitude: magnitude(header, own)? })
}

/// A magnitude times the file's `attn_factor`.
fn magnitude(header: &Header<'_>, own: u64) -> Result<u64, LoadError> {
    magnitude_of(header, own, header.optional_positive(MAGNITUDE)?.unwrap_or(UNIT))
}

/// `own · factor`, which must leave cosines below 2 at 2^-14.
fn magnitude_of(header: &Header<'_>, own: u64, factor: Exact) -> Result<u64, LoadError> {
    let product = fixed::scale_60(own, factor).filter(|&product| product < 2 * ONE_60 - (1 << 46));
    product.ok_or_else(|| too_large(header))
}

fn too_large(header: &Header<'_>) -> LoadError {
    header.error(MAGNITUDE, "a magnitude of cosines below 2", "more")
}
