//! A model without weights, computed with products that somebody shows.
//!
//! [`Hollow`] runs the same pass as everybody; where it comes to a matrix it takes the next
//! of the products shown, if the matrix's sketch agrees. The first that doesn't ends the
//! check: the rest is computed with zeros and thrown away.
//! Deliberately absent: what a cell must give, and whose fault anything is.

use std::sync::Arc;

use peerproof_wire::{Cell, ModelId};

use super::field::{PRODUCT_LIMIT, combine, project};
use super::sketch::{PartSketch, Sketches};
use super::{EMBEDDING, products_of};
use crate::forward::{Products, Runner};
use crate::gguf::{GgmlType, Gguf, Tensor};
use crate::kernels::{Acts, KernelPath};
use crate::spot::{Before, Recomputed, SpotError};
use crate::transformer::Transformer;
use crate::weights::{LoadError, Matrix, row_of};

/// The matrices of a layer, in the order in which their products are shown.
const MATRICES: [&str; 7] = ["query", "key", "value", "attention output", "gate", "up", "down"];

/// A model of which sketches are left in the place of weights.
#[derive(Debug)]
pub struct Hollow {
    sketches: Sketches,
    transformer: Arc<Transformer>,
}

impl Hollow {
    /// Of a file's header and all sketches of its model.
    ///
    /// # Errors
    /// Some are missing.
    pub fn new(header: &Gguf, sketches: Sketches) -> Result<Self, SpotError> {
        let layer = sketches.missing().unwrap_or_default();
        let transformer = sketches.hollow(header)?.ok_or(SpotError::NotLoaded { layer })?;
        Ok(Self { sketches, transformer: Arc::new(transformer) })
    }

    /// Of a file that is here as a whole. `secret` is 32 bytes that nobody else has or can
    /// guess.
    ///
    /// # Errors
    /// The model can't be used.
    pub fn of_file(file: &Gguf, id: ModelId, secret: [u8; 32]) -> Result<Self, SpotError> {
        let mut sketches = Sketches::begin(id, Transformer::shape_of(file)?.layers, secret);
        while let Some(at) = sketches.missing() {
            sketches.take(file, at)?;
        }
        Self::new(file, sketches)
    }

    pub(super) fn sketches(&self) -> &Sketches {
        &self.sketches
    }

    /// How many positions a layer sees, if not all.
    pub(super) fn window(&self, layer: u32) -> Result<Option<usize>, SpotError> {
        let found = self.transformer.layers.get(layer as usize);
        let expected = self.transformer.layers.len();
        Ok(found.ok_or(SpotError::Layer { expected, got: layer })?.window)
    }

    /// The row that enters the first layer, from the stretch of the file that is its token's
    /// row of the embedding, of `row_bytes` in the format `kind`.
    pub(super) fn embedding(
        &self,
        kind: GgmlType,
        row_bytes: u64,
        bytes: &[u8],
    ) -> Result<Vec<i32>, LoadError> {
        let (name, got) = (EMBEDDING, bytes.len() as u64);
        if row_bytes != got {
            let (expected, got) = (vec![row_bytes], vec![got]);
            return Err(LoadError::Shape { tensor: name.to_owned(), expected, got });
        }
        let table = &self.transformer.embedding;
        let dims = [table.cols() as u64, 1];
        let mut row = row_of(&Tensor { name, kind, dims: &dims, data: bytes }, table.exponent())?;
        self.transformer.embed(&mut row);
        Ok(row)
    }

    /// What a layer gives at a position: its row of keys and values, and the row that leaves it.
    /// `rows` are keys and values of the positions from `first` on, `entering` the row that
    /// enters, `products` little-endian integers of 64 bits, matrix by matrix.
    ///
    /// # Errors
    /// There is no such layer, or ([`SpotError::Products`]) the products are not its
    /// matrices'.
    pub fn layer(
        &self,
        cell: Cell,
        (first, rows): (u32, &[u8]),
        entering: &[i32],
        products: &[u8],
    ) -> Result<(Vec<u8>, Vec<i32>), SpotError> {
        self.window(cell.layer)?;
        self.cell(cell, Before { first, rows }, entering, products).map(Recomputed::into_rows)
    }

    pub(super) fn cell(
        &self,
        cell: Cell,
        kv: Before<'_>,
        row: &[i32],
        products: &[u8],
    ) -> Result<Recomputed, SpotError> {
        self.run(cell, 0, products, |runner, products| {
            let mut kv = kv.cache(&self.transformer, cell.position);
            let layer = cell.layer as usize;
            let leaving = runner.cell_of(layer, &mut kv, row, &mut Some(products))?;
            Ok(Recomputed::new(&kv, leaving))
        })
    }

    /// The logits of a state, from the product of the matrix that makes them.
    ///
    /// # Errors
    /// [`SpotError::Products`] if it is another.
    pub fn logits(
        &self,
        position: u32,
        state: &[i32],
        products: &[u8],
    ) -> Result<Vec<i32>, SpotError> {
        let cell = Cell { position, layer: self.transformer.layers.len() as u32 };
        // The head is the last matrix of its part: the only one, where it is the embedding.
        let part = self.sketches.part(cell.layer);
        let index = part.map_or(0, |part| part.matrices.len().saturating_sub(1));
        self.run(cell, index as u8, products, |runner, products| {
            Ok(runner.head(state, &mut Some(products)))
        })
    }

    /// Runs a computation with products, the first of which is of matrix `index` of the cell's
    /// part, and says which was refused.
    fn run<T>(
        &self,
        cell: Cell,
        index: u8,
        products: &[u8],
        compute: impl FnOnce(&mut Runner, &mut dyn Products) -> Result<T, SpotError>,
    ) -> Result<T, SpotError> {
        let integers = self.integers(cell, products)?;
        let part = self.sketches.part(cell.layer);
        let part = part.ok_or(SpotError::NotLoaded { layer: cell.layer })?;
        let sketches = &self.sketches;
        let mut taken = Taken { sketches, part, cell, rest: &integers, index, refused: None };
        let transformer = Arc::clone(&self.transformer);
        let mut runner = Runner::of_one_row(transformer, 1, KernelPath::best())?;
        let result = compute(&mut runner, &mut taken)?;
        match taken.refused {
            Some(what) => Err(SpotError::Products { cell, what }),
            None => Ok(result),
        }
    }

    /// The products as integers, if there are as many as there must be and each is one that a
    /// product can be.
    fn integers(&self, cell: Cell, products: &[u8]) -> Result<Vec<i64>, SpotError> {
        let refused = |what: String| SpotError::Products { cell, what };
        let expected = 8 * products_of(self.transformer.shape(), cell.layer);
        let got = products.len() as u64;
        if expected != got {
            return Err(refused(format!("products take {expected} bytes, got {got}")));
        }
        let integers: Vec<i64> =
            products.as_chunks().0.iter().map(|it| i64::from_le_bytes(*it)).collect();
        match integers.iter().position(|it| !(-PRODUCT_LIMIT..=PRODUCT_LIMIT).contains(it)) {
            Some(at) => Err(refused(format!("product {at} is beyond what a product can be"))),
            None => Ok(integers),
        }
    }
}

/// Products that were shown, each taken only if it is the matrix's.
struct Taken<'a> {
    sketches: &'a Sketches,
    part: &'a PartSketch,
    cell: Cell,
    rest: &'a [i64],
    /// Of the next matrix, within its part.
    index: u8,
    /// What was wrong with the first that was refused.
    refused: Option<String>,
}

impl Taken<'_> {
    /// Whether a product is that of matrix `index` with a row.
    fn holds(&self, index: u8, product: &[i64], row: &[i16]) -> bool {
        let Some(sketch) = self.part.matrices.get(usize::from(index)) else { return false };
        let Self { sketches, cell, .. } = self;
        let secret = sketches.secret();
        let mut coefficients = secret.coefficients(sketches.model(), cell.layer, index);
        combine(&mut coefficients, product) == project(&sketch.columns, row)
    }
}

impl Products for Taken<'_> {
    fn product(&mut self, matrix: &Matrix, acts: &Acts) -> Vec<i64> {
        let index = self.index;
        self.index += 1;
        let (product, rest) = self.rest.split_at(self.rest.len().min(matrix.rows()));
        self.rest = rest;
        let mut out = vec![0; 16 * matrix.groups()];
        // Behind a refusal nothing is computed with what was shown: zeros overflow nothing.
        if self.refused.is_some() {
            return out;
        }
        if product.len() == matrix.rows() && self.holds(index, product, &acts.values) {
            out[..product.len()].copy_from_slice(product);
            return out;
        }
        let layers = self.sketches.layers();
        let name = if self.cell.layer as usize == layers {
            "vocabulary"
        } else {
            MATRICES[usize::from(index) % MATRICES.len()]
        };
        self.refused = Some(format!("product shown of {name} is another"));
        out
    }
}
