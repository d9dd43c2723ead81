//! The memory one forward pass works in, allocated once.

use peerproof_wire::Digest;

use super::CHUNK;
use crate::kernels::Acts;
use crate::transformer::Shape;

/// Where a row of the chunk stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) sequence: usize,
    pub(super) position: usize,
}

/// Bytes of [`Scratch`] but for logits and the threads' own.
pub(crate) fn scratch_bytes(shape: &Shape, ropes: usize) -> u64 {
    let all = shape.heads * shape.head_dims;
    let kv = shape.kv_heads * shape.head_dims;
    let acts = |cols: usize| {
        let width = cols.next_multiple_of(32);
        2 * width + 4 * (width / 16) + 4
    };
    let row = 2 * ropes * shape.rope_dims
        + (2 * 4 + 8) * shape.width
        + 8 * (all + 2 * kv)
        + (2 + 8) * all
        + 2 * 4 * shape.heads
        + 4 * shape.layers * shape.width
        + 32
        + (4 + 4 + 8) * shape.feed
        + acts(shape.width)
        + acts(all)
        + acts(shape.feed);
    (CHUNK * row) as u64
}

/// Bytes of the logits of a whole chunk.
pub(crate) fn logits_bytes(shape: &Shape) -> u64 {
    4 * (CHUNK * shape.vocabulary) as u64
}

/// Buffers for a chunk of rows.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) places: Vec<Place>,
    /// Cosine and sine of each row's rotated pairs, for each of the rotations.
    pub(super) angles: Vec<Vec<(i16, i16)>>,
    pub(super) residual: Vec<i32>,
    /// Of each row, the residual rows that entered the layers so far.
    pub(super) entered: Vec<i32>,
    /// Their digests.
    pub(super) layers: Vec<Digest>,
    /// The rows whose logits are wanted.
    pub(super) kept: Vec<i32>,
    /// A row of wide values before it is brought to 16 bits.
    pub(super) wide: Vec<i64>,
    /// Normalised rows.
    pub(super) inputs: Acts,
    /// Query, key and value rows as they leave their products.
    pub(super) raw: Vec<i64>,
    pub(super) queries: Vec<i16>,
    pub(super) query_exponents: Vec<i32>,
    /// Outputs of the heads and their exponents.
    pub(super) heads: Vec<i64>,
    pub(super) head_exponents: Vec<i32>,
    /// The heads' outputs, one row.
    pub(super) mixed: Acts,
    pub(super) gates: Vec<i32>,
    pub(super) ups: Vec<i32>,
    pub(super) hidden: Vec<i64>,
    pub(super) fed: Acts,
    pub(super) logits: Vec<i32>,
    /// Each thread's own memory for scores and weights.
    pub(super) threads: Vec<Vec<i32>>,
}

impl Scratch {
    pub(super) fn new(shape: &Shape, ropes: usize, threads: usize, chunk: usize) -> Self {
        let all = shape.heads * shape.head_dims;
        let kv = shape.kv_heads * shape.head_dims;
        Self {
            places: Vec::with_capacity(chunk),
            angles: vec![vec![(0, 0); chunk * shape.rope_dims / 2]; ropes],
            residual: vec![0; chunk * shape.width],
            entered: vec![0; chunk * shape.layers * shape.width],
            layers: vec![Digest::from_bytes([0; 32]); chunk],
            kept: vec![0; chunk * shape.width],
            wide: vec![0; chunk * shape.width],
            inputs: Acts::new(chunk, shape.width),
            raw: vec![0; chunk * (all + 2 * kv)],
            queries: vec![0; chunk * all],
            query_exponents: vec![0; chunk * shape.heads],
            heads: vec![0; chunk * all],
            head_exponents: vec![0; chunk * shape.heads],
            mixed: Acts::new(chunk, all),
            gates: vec![0; chunk * shape.feed],
            ups: vec![0; chunk * shape.feed],
            hidden: vec![0; chunk * shape.feed],
            fed: Acts::new(chunk, shape.feed),
            logits: Vec::new(),
            threads: vec![Vec::new(); threads],
        }
    }

    /// Bytes of all buffers but logits and the threads' own.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let acts = |acts: &Acts| {
            size_of_val(&acts.values[..])
                + size_of_val(&acts.sums[..])
                + size_of_val(&acts.exponents[..])
        };
        let angles: usize = self.angles.iter().map(|rows| size_of_val(&rows[..])).sum();
        let narrow = [&self.residual, &self.kept, &self.query_exponents, &self.head_exponents];
        let fed = [&self.gates, &self.ups];
        let wide = [&self.wide, &self.raw, &self.heads, &self.hidden];
        angles
            + narrow.into_iter().chain(fed).map(|rows| size_of_val(&rows[..])).sum::<usize>()
            + wide.into_iter().map(|rows| size_of_val(&rows[..])).sum::<usize>()
            + size_of_val(&self.queries[..])
            + size_of_val(&self.entered[..])
            + size_of_val(&self.layers[..])
            + [&self.inputs, &self.mixed, &self.fed].into_iter().map(acts).sum::<usize>()
    }

    /// Copies the wanted residual rows to the front of `kept`.
    pub(super) fn keep(&mut self, wanted: &[usize], width: usize) {
        for (to, &from) in self.kept.chunks_exact_mut(width).zip(wanted) {
            to.copy_from_slice(&self.residual[from * width..][..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_what_is_announced() {
        for (heads, kv_heads, head_dims, rope_dims, width, feed) in
            [(9, 3, 64, 64, 576, 1536), (4, 1, 256, 256, 640, 2048), (3, 3, 48, 32, 144, 208)]
        {
            let shape = Shape {
                layers: 1,
                width,
                heads,
                kv_heads,
                head_dims,
                rope_dims,
                feed,
                vocabulary: 8,
                context: 64,
            };
            for ropes in [1, 2] {
                let scratch = Scratch::new(&shape, ropes, 1, CHUNK);
                assert_eq!(scratch_bytes(&shape, ropes), scratch.bytes() as u64, "{shape:?}");
            }
        }
    }
}
