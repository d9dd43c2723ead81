//! The single operations of a layer, one function each.
//!
//! A trace is made of them, and a referee recomputes just one: so they take and give
//! plain rows, know nothing of a loaded model, and are written from the arithmetic's
//! page, not from the forward pass, whose fast loops the tests compare them with.
//! Nothing here panics or overflows for wide integers below 2^58 and exponents of 18 bits.

use crate::architecture::Pairing;
use crate::arith::cap::Cap;
use crate::arith::half::Exact;
use crate::arith::tables::{EXP_LEN, LOGISTIC_LEN, tables};
use crate::arith::{
    GATE_BITS, LIMIT, LOGIT_BITS, NORM_BITS, RESIDUAL_BITS, SCORE_BITS, SCORE_LIMIT, WEIGHT_BITS,
    ZERO_EXPONENT, bit_length, canonical_shift, norm_epsilon, rescale, round_shift,
};
use crate::kernels::{Kernels, Normed, WideNormed};

/// Fraction bits of cosines and sines.
const ANGLE_BITS: i32 = 14;
/// Values below two to this power can be rotated, whatever the magnitude.
const TURN_BITS: i32 = 46;
/// Positions whose weights and weighted values are summed as one block.
pub const BLOCK: usize = 8;

/// A row at 16 bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Short {
    /// The integers, canonical.
    pub values: Vec<i16>,
    /// Their exponent.
    pub exponent: i32,
    /// The index of the first of the largest magnitude before rounding.
    pub largest: usize,
}

impl Short {
    /// `Q16` of the arithmetic.
    pub(crate) fn of(row: &[i64], exponent: i32) -> Self {
        let largest = (0..row.len()).rev().max_by_key(|&at| row[at].unsigned_abs()).unwrap_or(0);
        let shift = short_shift(row.get(largest).copied().unwrap_or(0));
        let values = row.iter().map(|&v| shorten(v, shift)).collect();
        let exponent = shift.map_or(ZERO_EXPONENT, |shift| exponent.saturating_sub(shift));
        Self { values, exponent, largest }
    }
}

/// How far a row with this largest integer is shifted to the right; `None` for zeros.
pub(crate) fn short_shift(largest: i64) -> Option<i32> {
    (largest != 0).then(|| canonical_shift(largest.unsigned_abs()))
}

/// One integer of a row that is brought to 16 bits.
pub(crate) fn shorten(v: i64, shift: Option<i32>) -> i16 {
    rescale(v, shift.unwrap_or(0), i64::from(i16::MAX)) as i16
}

/// Gains or biases: integers and their exponent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gain<'a> {
    pub(crate) values: &'a [i32],
    pub(crate) exponent: i32,
}

/// A residual row as products read it.
pub(crate) fn norm(x: &[i32], gain: Gain<'_>, epsilon: Exact) -> Short {
    let added = norm_epsilon(epsilon, x.len(), 2 * RESIDUAL_BITS);
    let mut wide = vec![0; x.len()];
    let normed = Normed { gain: gain.values, epsilon: added as u64 };
    Kernels::PORTABLE.norm(x, &normed, &mut wide);
    Short::of(&wide, NORM_BITS + gain.exponent)
}

/// A row of wide integers, normalised; its exponent is `20 +` the gain's.
fn norm_wide(row: &[i64], exponent: i32, gain: Gain<'_>, epsilon: Exact) -> Vec<i64> {
    let mut row = row.to_vec();
    Kernels::PORTABLE.norm_wide(&mut row, exponent, &WideNormed { gain: gain.values, epsilon });
    row
}

/// What a product of a query, key or value head becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    /// The product's exponent.
    pub(crate) exponent: i32,
    /// Products are below two to this power.
    pub(crate) bits: i32,
    /// The head's biases.
    pub(crate) bias: Option<Gain<'a>>,
    /// The gains of a head's norm, and ε.
    pub(crate) norm: Option<(Gain<'a>, Exact)>,
    /// Cosine and sine of each rotated pair; values are not rotated.
    pub(crate) angles: Option<(&'a [(i16, i16)], Pairing)>,
}

impl Turn<'_> {
    /// The head at 16 bits.
    pub(crate) fn apply(&self, product: &[i64]) -> Short {
        let (mut head, mut exponent, mut bits) = (product.to_vec(), self.exponent, self.bits);
        if let Some(bias) = self.bias {
            let common = exponent.min(bias.exponent + bits - 20);
            for (v, &b) in head.iter_mut().zip(bias.values) {
                let moved = rescale(i64::from(b), bias.exponent - common, 1 << bits.clamp(0, 60));
                *v = round_shift(*v, (exponent - common) as u32) + moved;
            }
            (exponent, bits) = (common, bits + 1);
        }
        if let Some((gain, epsilon)) = self.norm {
            head = norm_wide(&head, exponent, gain, epsilon);
            (exponent, bits) = (NORM_BITS + gain.exponent, 0);
        }
        let Some((angles, pairing)) = self.angles else { return Short::of(&head, exponent) };
        let drop = (bits - TURN_BITS).max(0);
        head.iter_mut().for_each(|v| *v = round_shift(*v, drop as u32));
        let pairs = angles.len();
        for (pair, &(cos, sin)) in angles.iter().enumerate() {
            let (first, second) = match pairing {
                Pairing::Adjacent => (2 * pair, 2 * pair + 1),
                Pairing::Halves => (pair, pair + pairs),
            };
            let (a, b) = (head[first], head[second]);
            let (cos, sin) = (i64::from(cos), i64::from(sin));
            head[first] = a.wrapping_mul(cos).wrapping_sub(b.wrapping_mul(sin));
            head[second] = a.wrapping_mul(sin).wrapping_add(b.wrapping_mul(cos));
        }
        head[2 * pairs..].iter_mut().for_each(|v| *v <<= ANGLE_BITS);
        Short::of(&head, exponent - drop + ANGLE_BITS)
    }
}

/// The base-2 logarithm of the weight that a query gives a position, at 2^-10.
pub(crate) fn score(
    (query, query_exponent): (&[i16], i32),
    (key, key_exponent): (&[i16], i32),
    scale: i64,
    cap: Option<Cap>,
) -> i32 {
    let product = |(&q, &k): (&i16, &i16)| i64::from(q) * i64::from(k);
    let dot: i64 = query.iter().zip(key).map(product).sum();
    let shift = query_exponent + key_exponent + 24 - SCORE_BITS;
    let t = rescale(dot.wrapping_mul(scale), shift, SCORE_LIMIT);
    cap.map_or(t, |cap| cap.apply(t, tables())) as i32
}

/// The weight of a position before all are divided by their sum.
pub(crate) fn weight(score: i32, largest: i32) -> i64 {
    let below = i64::from(largest) - i64::from(score);
    let table = &tables().exp;
    table.get(below.clamp(0, EXP_LEN as i64) as usize).map_or(0, |&weight| i64::from(weight))
}

/// A position's weight times one of its values, all at the coarsest value's exponent.
pub(crate) fn weighted(weight: i64, value: i16, exponent: i32, coarsest: i32) -> i64 {
    if weight == 0 {
        return 0;
    }
    // A weight is below 2^15: beyond 26 places nothing is left of it.
    let shift = (exponent - coarsest).clamp(0, 63) as u32;
    round_shift(weight << WEIGHT_BITS, shift) * i64::from(value)
}

/// One output of a head from its two sums; its exponent is `9 +` the coarsest value's.
/// `None` where no sum of weights is so small.
pub(crate) fn blended(sum: i64, total: i64) -> Option<i32> {
    let bits = bit_length(u64::try_from(total).ok()?);
    let reciprocal =
        ((1u128 << (bits + 30)) / u128::try_from(total).ok().filter(|t| *t > 0)?) as i64;
    let wide = round_shift(sum, u32::try_from(bits - 7).ok()?);
    Some(round_shift(wide.wrapping_mul(reciprocal), 37) as i32)
}

/// The heads side by side, as the product reads them: `(output, exponent)` of each.
pub(crate) fn join(heads: &[(&[i32], i32)]) -> Short {
    let smallest = heads.iter().map(|head| head.1).min().unwrap_or(0);
    let aligned = heads.iter().flat_map(|(head, exponent)| {
        head.iter()
            .map(move |&v| round_shift(i64::from(v), exponent.saturating_sub(smallest) as u32))
    });
    Short::of(&aligned.collect::<Vec<_>>(), smallest)
}

/// One value of a residual row after something was added to it: a product at `exponent`.
pub(crate) fn add(x: i32, product: i64, exponent: i32) -> i32 {
    let sum = i64::from(x) + rescale(product, exponent - RESIDUAL_BITS, LIMIT);
    sum.clamp(-LIMIT, LIMIT) as i32
}

/// What is added to a residual row where a product is normalised first, and its exponent.
pub(crate) fn post_norm(
    product: &[i64],
    exponent: i32,
    gain: Gain<'_>,
    epsilon: Exact,
) -> (Vec<i64>, i32) {
    (norm_wide(product, exponent, gain, epsilon), NORM_BITS + gain.exponent)
}

/// One value between the gate and up products, whose exponents are given, and the product
/// down; at twice 2^-18.
pub(crate) fn gated(
    (gate, gate_exponent): (i64, i32),
    (up, up_exponent): (i64, i32),
    gelu: bool,
) -> i64 {
    let narrow = |v, exponent: i32| rescale(v, exponent - GATE_BITS, LIMIT);
    let (g, u) = (narrow(gate, gate_exponent), narrow(up, up_exponent));
    let (step, rest) = (g.unsigned_abs() as usize >> 12, g.abs() & 4095);
    let curve = if gelu { &tables().gelu } else { &tables().logistic };
    let tail = match curve.get(step).filter(|_| step < LOGISTIC_LEN) {
        Some(&[point, fall]) => i64::from(point) - round_shift(i64::from(fall) * rest, 12),
        None => 0,
    };
    let share = if g < 0 { tail } else { (1 << 24) - tail };
    round_shift(g * share, 24).wrapping_mul(u)
}

/// The exponent of what [`gated`] gives.
pub(crate) const HIDDEN_BITS: i32 = 2 * GATE_BITS;

/// A logit from its product, below 2^62.
pub(crate) fn logit(product: i64, exponent: i32, cap: Option<Cap>) -> i32 {
    let logit = rescale(product, exponent - LOGIT_BITS, LIMIT);
    cap.map_or(logit, |cap| cap.apply(logit, tables())) as i32
}

/// A number of the row that a token enters the first layer with, from its weight;
/// `scale` at 2^-20, 0 for none.
pub(crate) fn embedded(weight: i128, exponent: i32, scale: u32) -> i32 {
    let weight = weight.clamp(-(1 << 30), 1 << 30) as i64;
    let (scale, bits) = if scale == 0 { (1, 0) } else { (i64::from(scale), 20) };
    rescale(weight * scale, exponent + bits - RESIDUAL_BITS, LIMIT) as i32
}
