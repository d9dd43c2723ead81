//! Matrices in `f32`, and products with them.
//!
//! A matrix is dequantised when it is first asked for and kept, as long as all
//! that is kept stays below [`MAX_KEPT_BYTES`]: a long text asks for each many
//! times. The products are `ndarray`'s, which are blocked and vectorised; how
//! they order their sums differs by processor, and only by rounding.
//! Deliberately absent: threads. Whoever has several texts runs them side by side.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

use super::dequantise::dequantise;
use crate::gguf::Gguf;
use crate::weights::LoadError;

/// Dequantised matrices beyond this are made again for every use.
const MAX_KEPT_BYTES: usize = 6 << 30;

/// A dequantised matrix.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) values: Vec<f32>,
    pub(super) cols: usize,
    pub(super) rows: usize,
}

impl Weights {
    fn read(gguf: &Gguf, name: &str) -> Result<Self, LoadError> {
        let tensor = gguf.tensor(name)?;
        let (cols, rows) = (tensor.row_len() as usize, tensor.rows() as usize);
        Ok(Self { values: dequantise(&tensor)?, cols, rows })
    }

    /// Row-major product of every input row with every weight row.
    pub(super) fn multiply(&self, inputs: &[f32]) -> Vec<f32> {
        let count = inputs.len() / self.cols;
        let mut out = vec![0f32; count * self.rows];
        let inputs = ArrayView2::from_shape((count, self.cols), inputs);
        let weights = ArrayView2::from_shape((self.rows, self.cols), &self.values);
        let product = ArrayViewMut2::from_shape((count, self.rows), &mut out);
        match (inputs, weights, product) {
            (Ok(inputs), Ok(weights), Ok(mut product)) => {
                general_mat_mul(1.0, &inputs, &weights.t(), 0.0, &mut product);
            }
            _ => unreachable!("a matrix has rows times columns values, inputs are whole rows"),
        }
        out
    }

    /// Only `rows` of them, from `first` on.
    pub(super) fn part(&self, first: usize, rows: usize) -> Self {
        let values = self.values[first * self.cols..][..rows * self.cols].to_vec();
        Self { values, rows, ..*self }
    }

    /// One row.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..][..self.cols]
    }
}

/// The matrices of a file, dequantised as they are asked for.
#[derive(Debug)]
pub(super) struct Matrices<'a> {
    gguf: &'a Gguf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    matrices: HashMap<String, Arc<Weights>>,
    bytes: usize,
}

impl<'a> Matrices<'a> {
    pub(super) fn new(gguf: &'a Gguf) -> Self {
        Self { gguf, kept: Mutex::default() }
    }

    /// The matrix of that name; a vector is a matrix of one row.
    pub(super) fn read(&self, name: &str) -> Result<Arc<Weights>, LoadError> {
        // What is kept is whole whatever a panic elsewhere did.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matrix) = kept.matrices.get(name) {
            return Ok(Arc::clone(matrix));
        }
        let matrix = Arc::new(Weights::read(self.gguf, name)?);
        let bytes = size_of_val(&matrix.values[..]);
        if kept.bytes + bytes <= MAX_KEPT_BYTES {
            kept.bytes += bytes;
            kept.matrices.insert(name.to_owned(), Arc::clone(&matrix));
        }
        Ok(matrix)
    }
}

/// A dot product in 16 lanes, so that it vectorises.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_one_dot_product_a_pair_of_rows() {
        // Small integers: every order of sums is exact.
        let value = |at: usize| (at * 7 % 23) as f32 - 11.0;
        let (cols, rows) = (37, 19);
        let weights = Weights { values: (0..cols * rows).map(value).collect(), cols, rows };
        for count in [1, 5] {
            let inputs: Vec<f32> = (0..count * cols).map(|at| value(3 * at + 1)).collect();
            let product = weights.multiply(&inputs);
            assert_eq!(product.len(), count * rows);
            for (at, &got) in product.iter().enumerate() {
                let (input, row) = (&inputs[at / rows * cols..][..cols], weights.row(at % rows));
                let want: f32 = input.iter().zip(row).map(|(a, b)| a * b).sum();
                assert_eq!(got, want, "{at}");
                assert_eq!(got, dot(input, row), "{at}");
            }
        }
    }
}
