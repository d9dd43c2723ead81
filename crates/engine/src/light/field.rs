//! The integers modulo `p = 2^61 - 1`, and secret coefficients in them.
//!
//! Products of a layer are integers below 2^57, so two different ones differ modulo `p`
//! as well. Deliberately absent: a general field; only sums of products are taken.

#![deny(clippy::float_arithmetic)]

use peerproof_wire::ModelId;

/// A prime above any difference of two products.
pub(super) const P: u64 = (1 << 61) - 1;
/// What an honest product stays below (section 9 of the arithmetic).
pub(super) const PRODUCT_LIMIT: i64 = 1 << 57;
/// Products of two numbers below [`P`] that fit 128 bits as a sum.
const TERMS: usize = 32;
/// Bytes that are taken of the stream of coefficients at once.
const STREAM_BYTES: usize = 1 << 12;

/// What the coefficients of all matrices of a model follow from. Whoever knows it makes
/// wrong products that pass, so it never leaves its owner.
pub(super) struct Secret(pub(super) [u8; 32]);

impl Secret {
    /// One coefficient for each row of a matrix, uniform below [`P`].
    pub(super) fn coefficients(&self, model: ModelId, part: u32, matrix: u8) -> Coefficients {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"peerproof secret coefficients v1\0").update(model.as_bytes());
        hasher.update(&part.to_le_bytes()).update(&[matrix]);
        let stream = hasher.finalize_xof();
        Coefficients { stream, buffer: [0; STREAM_BYTES], at: STREAM_BYTES }
    }
}

/// A matrix's coefficients, row by row.
pub(super) struct Coefficients {
    stream: blake3::OutputReader,
    buffer: [u8; STREAM_BYTES],
    at: usize,
}

impl Iterator for Coefficients {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            if self.at == STREAM_BYTES {
                self.stream.fill(&mut self.buffer);
                self.at = 0;
            }
            let bytes: &[u8; 8] = self.buffer[self.at..].first_chunk()?;
            self.at += 8;
            // 61 bits of eight bytes; the one value that isn't below p is left out.
            let drawn = u64::from_le_bytes(*bytes) >> 3;
            if drawn < P {
                return Some(drawn);
            }
        }
    }
}

/// `v mod p`.
#[inline(always)]
const fn reduce(v: u128) -> u64 {
    // 2^61 is 1: the sum of two parts of 61 bits and a rest of 6.
    let p = P as u128;
    let folded = (v & p) + (v >> 61 & p) + (v >> 122);
    (folded % p) as u64
}

/// `Σ r_i · v_i mod p`, for `|v_i| < 2^61 - 1`.
pub(super) fn combine(coefficients: &mut Coefficients, values: &[i64]) -> u64 {
    let mut total = 0;
    for values in values.chunks(TERMS) {
        let mut sum = 0u128;
        for (&value, r) in values.iter().zip(&mut *coefficients) {
            let size = value.unsigned_abs();
            let residue = if value < 0 { P - size } else { size };
            sum += u128::from(r) * u128::from(residue);
        }
        total = (total + reduce(sum)) % P;
    }
    total
}

/// `Σ s_i · a_i mod p`, for at most 2^16 of them.
pub(super) fn project(sketch: &[u64], values: &[i16]) -> u64 {
    let sum: i128 = sketch.iter().zip(values).map(|(&s, &a)| i128::from(s) * i128::from(a)).sum();
    sum.rem_euclid(i128::from(P)) as u64
}

/// Adds `r · w` to each column's sum.
pub(super) fn accumulate(sums: &mut [i128], r: u64, row: &[i32]) {
    let r = r as i64;
    for (sum, &w) in sums.iter_mut().zip(row) {
        *sum += i128::from(r) * i128::from(w);
    }
}

/// A sum modulo `p`.
pub(super) fn residue(sum: i128) -> u64 {
    sum.rem_euclid(i128::from(P)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret() -> Secret {
        Secret([7; 32])
    }

    #[test]
    fn coefficients_differ_by_secret_model_part_and_matrix_and_lie_below_p() {
        let id = |byte| ModelId::from_bytes([byte; 32]);
        let first = |secret: &Secret, model, part, matrix| -> Vec<u64> {
            secret.coefficients(model, part, matrix).take(1_000).collect()
        };
        let base = first(&secret(), id(1), 2, 3);
        assert!(base.iter().all(|r| *r < P));
        assert!(base.iter().any(|r| *r > P / 2) && base.iter().any(|r| *r < P / 2));
        let others = [
            first(&Secret([8; 32]), id(1), 2, 3),
            first(&secret(), id(2), 2, 3),
            first(&secret(), id(1), 3, 3),
            first(&secret(), id(1), 2, 4),
        ];
        assert!(others.iter().all(|other| other[0] != base[0] && *other != base));
    }

    proptest! {
        #[test]
        fn a_product_passes_and_another_one_does_not(
            seed: [u8; 32],
            rows in 1usize..70,
            cols in 1usize..40,
            numbers in prop::collection::vec(-(1i32 << 26)..1 << 26, 70 * 40),
            row in prop::collection::vec(i16::MIN..=i16::MAX, 40),
            place in 0usize..70,
            change in 1i64..1 << 58,
        ) {
            let secret = Secret(seed);
            let stream = || secret.coefficients(ModelId::from_bytes([1; 32]), 0, 0);
            let matrix: Vec<&[i32]> = numbers.chunks_exact(cols).take(rows).collect();
            let mut sums = vec![0i128; cols];
            for (weights, r) in matrix.iter().zip(stream()) {
                accumulate(&mut sums, r, weights);
            }
            let sketch: Vec<u64> = sums.into_iter().map(residue).collect();
            let product = |weights: &&[i32]| -> i64 {
                weights.iter().zip(&row).map(|(&w, &a)| i64::from(w) * i64::from(a)).sum()
            };
            let mut out: Vec<i64> = matrix.iter().map(product).collect();
            let expected = project(&sketch, &row[..cols]);
            prop_assert_eq!(combine(&mut stream(), &out), expected);
            let count = out.len();
            let (here, next) = (place % count, (place + 1) % count);
            out[here] += change;
            prop_assert_ne!(combine(&mut stream(), &out), expected);
            if next != here {
                // Changes whose plain sum cancels.
                out[next] -= change;
                prop_assert_ne!(combine(&mut stream(), &out), expected);
                out[next] += change;
                out[here] -= change;
                out.swap(here, next);
                prop_assert_eq!(combine(&mut stream(), &out) == expected, out[here] == out[next]);
            }
        }
    }

    /// A matrix with weights and a row at their bounds, as `vectors/proof/light.json` has it.
    fn vector(layer: u32, matrix: u8, rows: usize, cols: usize) -> serde_json::Value {
        let (secret, model) = (Secret([layer as u8 + 1; 32]), ModelId::from_bytes([9; 32]));
        let stream = || secret.coefficients(model, layer, matrix);
        let mut next = 1u64;
        let mut random = |bits: u32| {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (next >> (64 - bits)) as i64 - (1 << (bits - 1))
        };
        let mut weights: Vec<Vec<i32>> = vec![vec![0; cols]; rows];
        weights.iter_mut().flatten().for_each(|weight| *weight = random(26) as i32);
        weights[0][0] = -(1 << 25);
        let mut row: Vec<i16> = (0..cols).map(|_| random(16) as i16).collect();
        (row[0], row[1]) = (i16::MAX, -i16::MAX);
        let mut sums = vec![0i128; cols];
        for (weights, r) in weights.iter().zip(stream()) {
            accumulate(&mut sums, r, weights);
        }
        let sketch: Vec<u64> = sums.into_iter().map(residue).collect();
        let product = |weights: &Vec<i32>| -> i64 {
            weights.iter().zip(&row).map(|(&w, &a)| i64::from(w) * i64::from(a)).sum()
        };
        let products: Vec<i64> = weights.iter().map(product).collect();
        let changed = |at: usize, by: i64| -> Vec<i64> {
            products.iter().enumerate().map(|(i, it)| it + if i == at { by } else { 0 }).collect()
        };
        let mut swapped = products.clone();
        swapped.swap(0, 1);
        let refused = vec![changed(rows - 1, 1), changed(0, P as i64), swapped, vec![0; rows]];
        let expected = project(&sketch, &row);
        assert_eq!(combine(&mut stream(), &products), expected);
        let within = |it: &&Vec<i64>| it.iter().all(|it| it.abs() <= PRODUCT_LIMIT);
        for wrong in refused.iter().filter(within) {
            assert_ne!(combine(&mut stream(), wrong), expected);
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        serde_json::json!({
            "secret": hex(&secret.0), "model": hex(model.as_bytes()), "layer": layer,
            "matrix": matrix, "coefficients": stream().take(rows).collect::<Vec<_>>(),
            "weights": weights, "sketch": sketch, "row": row, "products": products,
            "refused": refused,
        })
    }

    #[test]
    fn sketches_and_checks_are_those_of_the_vectors() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/proof/light.json");
        let matrices = [vector(0, 0, 3, 2), vector(7, 5, 40, 5), vector(30, 1, 2, 33)];
        let made = serde_json::json!({ "matrices": matrices });
        if std::env::var_os("PEERPROOF_WRITE_VECTORS").is_some() {
            std::fs::write(path, format!("{made}\n")).expect("the vectors' folder");
        }
        let kept = std::fs::read_to_string(path).expect("vectors/proof/light.json");
        let kept: serde_json::Value = serde_json::from_str(&kept).expect("JSON");
        assert_eq!(kept, made);
    }

    #[test]
    fn sums_of_the_largest_terms_do_not_wrap() {
        let mut coefficients = secret().coefficients(ModelId::from_bytes([1; 32]), 0, 0);
        let slow = |values: &[i64]| {
            let stream = secret().coefficients(ModelId::from_bytes([1; 32]), 0, 0);
            let sum = stream.zip(values).fold(0i128, |sum, (r, &v)| {
                (sum + i128::from(r) * i128::from(v)).rem_euclid(i128::from(P))
            });
            sum as u64
        };
        for value in [P as i64 - 1, 1 - P as i64, PRODUCT_LIMIT, -1] {
            let values = vec![value; 100];
            assert_eq!(combine(&mut coefficients, &values), slow(&values));
            coefficients = secret().coefficients(ModelId::from_bytes([1; 32]), 0, 0);
        }
        assert_eq!(reduce(u128::MAX), (u128::MAX % u128::from(P)) as u64);
        let most = vec![P - 1; 1 << 16];
        let expected = (i128::from(P - 1) * -32768 * (1 << 16)).rem_euclid(i128::from(P)) as u64;
        assert_eq!(project(&most, &vec![i16::MIN; 1 << 16]), expected);
    }
}
