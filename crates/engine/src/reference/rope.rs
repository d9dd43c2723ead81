//! Rotation frequencies in floats, from the formulas of those who proposed each
//! way of stretching a context.
//!
//! Linear interpolation, YaRN (arXiv 2309.00071) and LongRoPE (arXiv 2402.13753)
//! as model files configure them. Deliberately absent: refusing anything, which
//! loading has done.

use std::f64::consts::TAU;

use super::dequantise::dequantise;
use crate::architecture::Architecture;
use crate::gguf::Gguf;
use crate::transformer::Shape;
use crate::weights::LoadError;

/// Radians a position of every pair, and what cosines and sines are multiplied with.
#[derive(Clone)]
pub(super) struct Rope {
    pub(super) frequencies: Vec<f64>,
    pub(super) magnitude: f64,
}

impl Rope {
    /// Of layers that see everything.
    pub(super) fn read(
        gguf: &Gguf,
        shape: &Shape,
        family: &Architecture,
    ) -> Result<Self, LoadError> {
        let key = |key: &str| format!("{}.rope.{key}", family.name);
        let float = |name: &str| Ok::<_, LoadError>(gguf.optional_f32(&key(name))?.map(f64::from));
        let base = float("freq_base")?.unwrap_or(10_000.0);
        let (n, mut rope) = (shape.rope_dims as f64, Self::plain(shape, base));
        let kind = gguf.optional_str(&key("scaling.type"))?;
        let original = gguf.optional_u32(&key("scaling.original_context_length"))?;
        let original = original.map_or(shape.context, |length| length as usize);
        let factors = if gguf.optional_tensor("rope_factors_long.weight").is_none() {
            "rope_freqs.weight"
        } else if shape.context > original {
            "rope_factors_long.weight"
        } else {
            "rope_factors_short.weight"
        };
        if let Some(tensor) = gguf.optional_tensor(factors) {
            let factors = dequantise(&tensor)?;
            rope.frequencies.iter_mut().zip(factors).for_each(|(f, x)| *f /= f64::from(x));
        }
        let factor = float("scaling.factor")?.unwrap_or(1.0);
        match kind {
            Some("yarn") => {
                let turning =
                    |turns: f64| n * (original as f64 / (turns * TAU)).ln() / (2.0 * base.ln());
                let fast = float("scaling.yarn_beta_fast")?.unwrap_or(32.0);
                let slow = float("scaling.yarn_beta_slow")?.unwrap_or(1.0);
                let low = turning(fast).floor().max(0.0);
                let high = turning(slow).ceil().min(n - 1.0);
                for (pair, f) in rope.frequencies.iter_mut().enumerate() {
                    let ramp = ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    *f = *f / factor * ramp + *f * (1.0 - ramp);
                }
                let own = 0.1 * factor.max(1.0).ln() + 1.0;
                rope.magnitude = float("scaling.yarn_attn_factor")?.unwrap_or(own);
            }
            None | Some("linear") => rope.frequencies.iter_mut().for_each(|f| *f /= factor),
            _ => {}
        }
        if matches!(kind, Some("yarn" | "longrope")) || factors.starts_with("rope_factors") {
            rope.magnitude *= float("scaling.attn_factor")?.unwrap_or(1.0);
        }
        Ok(rope)
    }

    /// Of layers with a window.
    pub(super) fn local(
        gguf: &Gguf,
        shape: &Shape,
        family: &Architecture,
    ) -> Result<Self, LoadError> {
        let Some(base) = family.windows.base else { return Self::read(gguf, shape, family) };
        let given = gguf.optional_f32(&format!("{}.rope.freq_base_swa", family.name))?;
        Ok(Self::plain(shape, given.map_or(f64::from(base), f64::from)))
    }

    fn plain(shape: &Shape, base: f64) -> Self {
        let n = shape.rope_dims;
        let frequency = |pair: usize| base.powf(-2.0 * pair as f64 / n as f64);
        Self { frequencies: (0..n / 2).map(frequency).collect(), magnitude: 1.0 }
    }
}
