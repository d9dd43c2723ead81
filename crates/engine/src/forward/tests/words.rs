//! The forward pass by the words of `docs/spec/arithmetic.md`, sections 4 to 7:
//! one position after the other, in numbers so wide that nothing wraps.
//!
//! Weights, gains, angles and tables are taken from the loaded model; everything
//! between them is written down again, without regard to speed.

use super::Row;
use crate::architecture::{Activation, Pairing};
use crate::arith::cap::Cap;
use crate::arith::half::Exact;
use crate::arith::tables::{Curve, tables};
use crate::transformer::{Layer, Transformer};
use crate::weights::{Matrix, Vector};

const LIMIT: i128 = (1 << 31) - 1;

/// Integers and their exponent.
#[derive(Clone, Debug)]
struct Real {
    values: Vec<i128>,
    exponent: i32,
}

fn bits(v: i128) -> i32 {
    128 - v.leading_zeros() as i32
}

fn shift(v: i128, s: i32) -> i128 {
    match s {
        ..=0 => v << -s,
        1..120 => (v + (1 << (s - 1))) >> s,
        _ => 0,
    }
}

/// `shift` with a limit.
fn bounded(v: i128, s: i32, limit: i128) -> i128 {
    if s < -62 && v != 0 { v.signum() * limit } else { shift(v, s.max(-62)).clamp(-limit, limit) }
}

fn largest(values: &[i128]) -> i128 {
    values.iter().map(|v| v.abs()).max().unwrap()
}

fn q16(values: &[i128], exponent: i32) -> Real {
    let most = largest(values);
    assert!(most < 1 << 62, "wider than section 9 says");
    if most == 0 {
        return Real { values: values.to_vec(), exponent: 127 };
    }
    let mut t = bits(most) - 15;
    if t > 0 && shift(most, t) == 32_768 {
        t += 1;
    }
    Real { values: values.iter().map(|&v| shift(v, t)).collect(), exponent: exponent - t }
}

/// `E` of section 5.
fn added(epsilon: Exact, n: i128, twice: i32) -> i128 {
    let (wide, up) = (i128::from(epsilon.mantissa) * n, epsilon.exponent + twice);
    let sum = if wide == 0 {
        0
    } else if bits(wide) + up > 101 {
        1 << 100
    } else {
        shift(wide, -up)
    };
    sum.clamp(1, 1 << 100)
}

/// `UNIT` of section 5, at exponent 20.
fn unit(values: &[i128], exponent: i32, epsilon: Exact) -> Vec<i128> {
    let n = values.len() as i128;
    let s = values.iter().map(|v| v * v).sum::<i128>() + added(epsilon, n, 2 * exponent);
    let (mut quotient, mut rest, mut k) = (n / s, n % s, 0);
    while quotient < 1 << 60 {
        for _ in 0..2 {
            rest *= 2;
            quotient = 2 * quotient + i128::from(rest >= s);
            rest -= if rest >= s { s } else { 0 };
        }
        k += 1;
    }
    assert!(quotient < 1 << 62 && k >= 20);
    let root = (quotient as u128).isqrt() as i128;
    values.iter().map(|v| shift(v * root, k - 20)).collect()
}

fn wide_norm(row: &Real, gain: &Vector, epsilon: Exact) -> Real {
    let t = (bits(largest(&row.values)) - 30).max(0);
    let values: Vec<i128> = row.values.iter().map(|&v| shift(v, t)).collect();
    let values = unit(&values, row.exponent - t, epsilon);
    let values = values.iter().zip(&gain.values).map(|(u, &g)| u * i128::from(g)).collect();
    Real { values, exponent: 20 + gain.exponent }
}

fn norm(row: &[i128], gain: &Vector, epsilon: Exact) -> Real {
    let units = unit(row, 12, epsilon);
    let values: Vec<i128> =
        units.iter().zip(&gain.values).map(|(u, &g)| u * i128::from(g)).collect();
    q16(&values, 20 + gain.exponent)
}

/// A tail of section 6, between the points of its table.
fn tail(curve: &Curve, a: i128) -> i128 {
    let (i, r) = ((a / 4096) as usize, a % 4096);
    curve.get(i).map_or(0, |&[point, fall]| i128::from(point) - shift(i128::from(fall) * r, 12))
}

fn soft(v: i128, cap: Option<Cap>) -> i128 {
    let Some(limit) = cap.map(|cap| i128::from(cap.limit())) else { return v };
    let x = shift(v.abs() * ((1 << 43) / limit), 24);
    v.signum() * shift(limit * ((1 << 24) - 2 * tail(&tables().logistic, x)), 24)
}

/// A matrix as its integers.
struct Plain {
    rows: Vec<Vec<i32>>,
    exponent: i32,
    magnitude: i32,
}

impl Plain {
    fn new(matrix: &Matrix, cols: usize) -> Self {
        let row = |row| {
            let mut out = vec![0; cols];
            matrix.row(row, &mut out);
            out
        };
        let rows = (0..matrix.rows()).map(row).collect();
        Self { rows, exponent: matrix.exponent(), magnitude: matrix.magnitude_bits() }
    }

    fn times(&self, a: &Real) -> Real {
        let dot = |row: &Vec<i32>| row.iter().zip(&a.values).map(|(&w, a)| i128::from(w) * a).sum();
        Real { values: self.rows.iter().map(dot).collect(), exponent: self.exponent + a.exponent }
    }
}

/// The matrices of a layer and what its heads have kept.
struct Stored {
    query: Plain,
    key: Plain,
    value: Plain,
    output: Plain,
    gate: Plain,
    up: Plain,
    down: Plain,
    /// By position, then by head.
    keys: Vec<Vec<Real>>,
    values: Vec<Vec<Real>>,
}

/// A model in the reading.
pub(super) struct Words<'a> {
    model: &'a Transformer,
    embedding: Plain,
    head: Plain,
    layers: Vec<Stored>,
    position: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(model: &'a Transformer) -> Self {
        let shape = model.shape();
        let (width, all) = (shape.width, shape.heads * shape.head_dims);
        let stored = |layer: &Layer| Stored {
            query: Plain::new(&layer.query, width),
            key: Plain::new(&layer.key, width),
            value: Plain::new(&layer.value, width),
            output: Plain::new(&layer.output, all),
            gate: Plain::new(&layer.gate, width),
            up: Plain::new(&layer.up, width),
            down: Plain::new(&layer.down, shape.feed),
            keys: Vec::new(),
            values: Vec::new(),
        };
        Self {
            model,
            embedding: Plain::new(&model.embedding, width),
            head: Plain::new(model.head(), width),
            layers: model.layers.iter().map(stored).collect(),
            position: 0,
        }
    }

    /// State and logits after the next token.
    pub(super) fn read(&mut self, token: u32) -> Row {
        let model = self.model;
        let row = self.embedding.rows[token as usize].iter().map(|&w| i128::from(w));
        let exponent = self.embedding.exponent;
        let mut x: Vec<i128> = match model.embedding_scale {
            Some(scale) => {
                row.map(|w| bounded(w * i128::from(scale), exponent + 8, LIMIT)).collect()
            }
            None => row.map(|w| bounded(w, exponent - 12, LIMIT)).collect(),
        };
        for at in 0..self.layers.len() {
            self.attention(at, &mut x);
            self.feed(at, &mut x);
        }
        self.position += 1;
        let y = norm(&x, &model.output_norm, model.epsilon);
        let logits = self.head.times(&y);
        let logit =
            |&v: &i128| soft(bounded(v, logits.exponent - 10, LIMIT), model.logit_cap) as i32;
        (x.iter().map(|&v| v as i32).collect(), logits.values.iter().map(logit).collect())
    }

    fn add(&self, x: &mut [i128], out: Real, gain: Option<&Vector>) {
        let out = gain.map_or(out.clone(), |gain| wide_norm(&out, gain, self.model.epsilon));
        for (x, &v) in x.iter_mut().zip(&out.values) {
            *x = (*x + bounded(v, out.exponent - 12, LIMIT)).clamp(-LIMIT, LIMIT);
        }
    }

    fn attention(&mut self, at: usize, x: &mut [i128]) {
        let model = self.model;
        let (layer, shape) = (&model.layers[at], model.shape());
        let y = norm(x, &layer.attention_norm, model.epsilon);
        let stored = &self.layers[at];
        let bias = |which: usize| layer.biases.as_ref().map(|all| &all[which]);
        let gain = |which: usize| layer.head_norms.as_ref().map(|all| &all[which]);
        let queries = self.heads(&stored.query, &y, bias(0), Some((gain(0), layer.rope)));
        let keys = self.heads(&stored.key, &y, bias(1), Some((gain(1), layer.rope)));
        let values = self.heads(&stored.value, &y, bias(2), None);
        let stored = &mut self.layers[at];
        stored.keys.push(keys);
        stored.values.push(values);
        let stored = &self.layers[at];
        let first = layer.window.map_or(0, |w| (self.position + 1).saturating_sub(w));
        let outputs: Vec<Real> = queries
            .iter()
            .enumerate()
            .map(|(j, query)| {
                let head = j * shape.kv_heads / shape.heads;
                let keys = stored.keys[first..].iter().map(|all| &all[head]).collect::<Vec<_>>();
                let values =
                    stored.values[first..].iter().map(|all| &all[head]).collect::<Vec<_>>();
                self.attend(query, &keys, &values)
            })
            .collect();
        let least = outputs.iter().map(|head| head.exponent).min().unwrap();
        let aligned = outputs
            .iter()
            .flat_map(|head| head.values.iter().map(|&v| shift(v, head.exponent - least)))
            .collect::<Vec<_>>();
        let out = stored.output.times(&q16(&aligned, least));
        self.add(x, out, layer.post_attention.as_ref());
    }

    /// The heads of a projection; queries and keys with their gain and rotation.
    fn heads(
        &self,
        matrix: &Plain,
        y: &Real,
        bias: Option<&Vector>,
        turned: Option<(Option<&Vector>, usize)>,
    ) -> Vec<Real> {
        let shape = self.model.shape();
        let mut out = matrix.times(y);
        let mut p = bits(shape.width as i128 - 1) + matrix.magnitude + 15;
        if let Some(bias) = bias {
            let common = out.exponent.min(bias.exponent + p - 20);
            for (v, &b) in out.values.iter_mut().zip(&bias.values) {
                *v =
                    shift(*v, out.exponent - common) + shift(i128::from(b), bias.exponent - common);
            }
            (out.exponent, p) = (common, p + 1);
        }
        let head = |values: &[i128]| {
            let head = Real { values: values.to_vec(), exponent: out.exponent };
            let Some((gain, rope)) = turned else { return q16(&head.values, head.exponent) };
            let (head, p) = match gain {
                Some(gain) => (wide_norm(&head, gain, self.model.epsilon), 0),
                None => (head, p),
            };
            let turned = self.turn(&head, rope, (p - 46).max(0));
            q16(&turned.values, turned.exponent)
        };
        out.values.chunks(shape.head_dims).map(head).collect()
    }

    fn turn(&self, head: &Real, rope: usize, w: i32) -> Real {
        let pairs = self.model.shape().rope_dims / 2;
        let mut angles = vec![(0, 0); pairs];
        self.model.ropes[rope].angles(self.position, &mut angles);
        let moved: Vec<i128> = head.values.iter().map(|&v| shift(v, w)).collect();
        let mut out: Vec<i128> = moved.iter().map(|v| v << 14).collect();
        for (i, &(cos, sin)) in angles.iter().enumerate() {
            let [first, second] = match self.model.family.pairing {
                Pairing::Adjacent => [2 * i, 2 * i + 1],
                Pairing::Halves => [i, i + pairs],
            };
            let (a, b) = (moved[first], moved[second]);
            let (cos, sin) = (i128::from(cos), i128::from(sin));
            (out[first], out[second]) = (a * cos - b * sin, a * sin + b * cos);
        }
        Real { values: out, exponent: head.exponent - w + 14 }
    }

    fn attend(&self, query: &Real, keys: &[&Real], values: &[&Real]) -> Real {
        let scale = i128::from(self.model.score_scale);
        let score = |key: &&Real| {
            let dot: i128 = query.values.iter().zip(&key.values).map(|(q, k)| q * k).sum();
            assert!((dot * scale).abs() < 1 << 62, "wider than section 9 says");
            let t = bounded(dot * scale, query.exponent + key.exponent + 14, 1 << 30);
            soft(t, self.model.score_cap)
        };
        let scores: Vec<i128> = keys.iter().map(score).collect();
        let best = *scores.iter().max().unwrap();
        let weight = |t: &i128| i128::from(tables().exp[(best - t).min(16_384) as usize]);
        let weights: Vec<i128> = scores.iter().map(weight).collect();
        let z: i128 = weights.iter().sum();
        let (b, inverse) = (bits(z), (1 << (bits(z) + 30)) / z);
        let carried = weights.iter().zip(values).filter(|(e, _)| **e > 0);
        let least = carried.map(|(_, v)| v.exponent).min().unwrap();
        let factor = |(&e, v): (&i128, &&Real)| {
            if e == 0 { 0 } else { shift(e << 9, v.exponent - least) }
        };
        let factors: Vec<i128> = weights.iter().zip(values).map(factor).collect();
        let out = |d: usize| {
            let sum: i128 = factors.iter().zip(values).map(|(f, v)| f * v.values[d]).sum();
            shift(shift(sum, b - 7) * inverse, 37)
        };
        Real { values: (0..query.values.len()).map(out).collect(), exponent: least + 9 }
    }

    fn feed(&self, at: usize, x: &mut [i128]) {
        let model = self.model;
        let (layer, stored) = (&model.layers[at], &self.layers[at]);
        let curve = match model.family.activation {
            Activation::Silu => &tables().logistic,
            Activation::Gelu => &tables().gelu,
        };
        let y = norm(x, &layer.feed_norm, model.epsilon);
        let (gate, up) = (stored.gate.times(&y), stored.up.times(&y));
        let hidden = gate.values.iter().zip(&up.values).map(|(&g, &u)| {
            let g = bounded(g, gate.exponent - 18, LIMIT);
            let u = bounded(u, up.exponent - 18, LIMIT);
            let t = tail(curve, g.abs());
            shift(g * if g < 0 { t } else { (1 << 24) - t }, 24) * u
        });
        let hidden = q16(&hidden.collect::<Vec<_>>(), 36);
        self.add(x, stored.down.times(&hidden), layer.post_feed.as_ref());
    }
}
