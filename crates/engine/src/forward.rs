//! The forward pass: tokens in, residual rows and logits out.
//!
//! A [`Runner`] takes a batch of [`Item`]s, of one sequence or many, cuts it
//! into chunks, and brings each chunk through all layers. Every row goes through
//! the same integer operations whatever stands beside it, so the bits don't
//! depend on batch, chunk, threads or kernel path. Deliberately absent: floats,
//! sampling, and any notion of when a sequence ends.

#![deny(clippy::float_arithmetic)]
#![allow(unsafe_code, reason = "pieces of a phase write to disjoint parts of shared slices")]

mod attention;
mod feed;
mod lanes;
mod products;
mod residual;
mod scratch;
mod sinks;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use peerproof_wire::Digest;

use crate::arith::{LOGIT_BITS, tables};
use crate::kernels::{KernelPath, Kernels};
use crate::kv::{Kv, PAGE};
use crate::pool::{Pool, Shared};
use crate::transformer::{Layer, Shape, Transformer};
use crate::weights::Matrix;

use lanes::{Lanes, View};
use products::Tap;
pub(crate) use products::{Products, Recorder};
use scratch::{Place, Scratch};
pub(crate) use scratch::{logits_bytes, scratch_bytes};
use sinks::Narrow;

/// Rows that go through the layers together: a group of weights is unpacked for
/// all of them, and their activations still fit the second cache.
const CHUNK: usize = 64;

/// One token to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which of the caches given to [`Runner::forward`] it continues.
    pub sequence: usize,
    /// The token.
    pub token: u32,
    /// Whether logits are wanted.
    pub logits: bool,
}

/// What comes out for one item.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// The residual row after the last layer, before the last norm.
    pub state: &'a [i32],
    /// Digest of the residual rows that entered the layers.
    pub layers: Digest,
    /// These rows, one after the other, where the pass that computed them gives the output.
    pub entered: &'a [i32],
    /// One logit per token of the vocabulary at 2^-10, if asked for.
    pub logits: Option<&'a [i32]>,
}

/// Why a batch can't be computed. Nothing has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// An item names a cache that wasn't given.
    #[error("item {item}: sequence {got}, but {expected} caches were given")]
    Sequence {
        /// Index of the item.
        item: usize,
        /// Caches given.
        expected: usize,
        /// The item's sequence.
        got: usize,
    },
    /// A cache was made for another model.
    #[error("cache {sequence} was made for a model of another shape")]
    Cache {
        /// Index of the cache.
        sequence: usize,
    },
    /// A sequence doesn't fit its cache.
    #[error("sequence {sequence}: {got} positions, the cache has room for {capacity}")]
    Full {
        /// Index of the cache.
        sequence: usize,
        /// Positions it has room for.
        capacity: usize,
        /// Positions asked for.
        got: usize,
    },
    /// A token isn't in the vocabulary.
    #[error("item {item}: token {got}, the vocabulary has {vocabulary}")]
    Token {
        /// Index of the item.
        item: usize,
        /// Size of the vocabulary.
        vocabulary: usize,
        /// The token.
        got: u32,
    },
    /// The kernel path asked for isn't available here.
    #[error("this processor cannot run the {} kernels", .0.name())]
    Path(KernelPath),
}

/// Threads, kernel path and scratch memory for one forward pass at a time.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use peerproof_engine::forward::{Item, Runner};
/// use peerproof_engine::kernels::KernelPath;
/// use peerproof_engine::{gguf::Gguf, kv::Kv, transformer::{Transformer, LoadOptions}};
/// let model = Arc::new(Transformer::load(&Gguf::open("model.gguf")?, &LoadOptions::default())?);
/// let mut runner = Runner::new(Arc::clone(&model), 2, KernelPath::best())?;
/// let mut kv = Kv::new(&model, 16);
/// let item = Item { sequence: 0, token: 1, logits: true };
/// runner.forward(&mut [&mut kv], &[item], &mut |_, output| {
///     println!("{:?}", output.logits.map(|logits| logits[0]));
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct Runner {
    model: Arc<Transformer>,
    kernels: Kernels,
    pool: Pool,
    scratch: Scratch,
    /// Rows that go through the layers together.
    rows: usize,
    hashing: Hashing,
}

/// How long a [`Runner`] has spent on what is committed to below the leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashing {
    /// Keeping and digesting the rows that enter the layers.
    pub rows: Duration,
    /// Digesting pages of keys and values that had become full.
    pub pages: Duration,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Runner({:?}, {} threads)", self.kernels, self.pool.threads())
    }
}

/// What a pass has left in scratch of a chunk's items.
struct Outputs<'a> {
    scratch: &'a Scratch,
    width: usize,
    vocabulary: usize,
    /// Length of the rows that entered all layers.
    entered: usize,
    /// Each item's row of logits.
    rows: Vec<Option<usize>>,
}

impl<'a> Outputs<'a> {
    fn new(model: &Transformer, scratch: &'a Scratch, items: &[Item]) -> Self {
        let (width, vocabulary) = (model.shape().width, model.shape().vocabulary);
        let entered = model.shape().layers * width;
        let mut next = 0..;
        let row = |item: &Item| if item.logits { next.next() } else { None };
        Self { scratch, width, vocabulary, entered, rows: items.iter().map(row).collect() }
    }

    fn of(&self, at: usize) -> Output<'a> {
        let Self { scratch, width, vocabulary, ref rows, .. } = *self;
        Output {
            state: &scratch.residual[at * width..][..width],
            layers: scratch.layers[at],
            entered: &scratch.entered[at * self.entered..][..self.entered],
            logits: rows[at].map(|row| &scratch.logits[row * vocabulary..][..vocabulary]),
        }
    }
}

impl Runner {
    /// A runner of `threads` threads (the caller's among them).
    ///
    /// # Errors
    /// [`ForwardError::Path`] if this processor lacks the path.
    pub fn new(
        model: Arc<Transformer>,
        threads: usize,
        path: KernelPath,
    ) -> Result<Self, ForwardError> {
        Self::of_rows(CHUNK, model, threads, path)
    }

    /// A runner with memory for one row at a time, made quickly.
    ///
    /// # Errors
    /// [`ForwardError::Path`] if this processor lacks the path.
    pub(crate) fn of_one_row(
        model: Arc<Transformer>,
        threads: usize,
        path: KernelPath,
    ) -> Result<Self, ForwardError> {
        Self::of_rows(1, model, threads, path)
    }

    fn of_rows(
        rows: usize,
        model: Arc<Transformer>,
        threads: usize,
        path: KernelPath,
    ) -> Result<Self, ForwardError> {
        let kernels = Kernels::new(path).ok_or(ForwardError::Path(path))?;
        let pool = Pool::new(threads);
        let scratch = Scratch::new(model.shape(), model.ropes.len(), pool.threads(), rows);
        Ok(Self { model, kernels, pool, scratch, rows, hashing: Hashing::default() })
    }

    /// What it has spent on hashing so far.
    #[must_use]
    pub fn hashing(&self) -> Hashing {
        self.hashing
    }

    /// The model it runs.
    #[must_use]
    pub fn model(&self) -> &Arc<Transformer> {
        &self.model
    }

    /// How many threads work.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Computes all items; consecutive items of a sequence take consecutive
    /// positions. `sink` gets each item's index and output, in order.
    ///
    /// # Errors
    /// An item or a cache doesn't fit; no cache has changed then.
    pub fn forward(
        &mut self,
        kvs: &mut [&mut Kv],
        items: &[Item],
        sink: &mut dyn FnMut(usize, Output<'_>),
    ) -> Result<(), ForwardError> {
        let mut first = 0;
        self.chunks(kvs, items, &mut |runner, chunk| {
            let outputs = Outputs::new(&runner.model, &runner.scratch, chunk);
            for at in 0..chunk.len() {
                sink(first + at, outputs.of(at));
            }
            first += chunk.len();
        })
    }

    /// As [`forward`](Self::forward), but the threads share what is to be done
    /// with the outputs: `each` gets every item's index and output, those of one
    /// sequence in order and from one thread. After each chunk of items `done`
    /// gets their number, on the caller's thread.
    pub(crate) fn forward_apart(
        &mut self,
        kvs: &mut [&mut Kv],
        items: &[Item],
        each: &(dyn Fn(usize, &Output<'_>) + Sync),
        done: &mut dyn FnMut(usize),
    ) -> Result<(), ForwardError> {
        let sequences = kvs.len();
        let mut first = 0;
        self.chunks(kvs, items, &mut |runner, chunk| {
            let mut owned = vec![Vec::new(); sequences];
            for (at, item) in chunk.iter().enumerate() {
                owned[item.sequence].push(at);
            }
            owned.retain(|items| !items.is_empty());
            let Self { pool, scratch, model, .. } = runner;
            let outputs = Outputs::new(model, scratch, chunk);
            pool.run(owned.len(), &|_, piece| {
                for &at in &owned[piece] {
                    each(first + at, &outputs.of(at));
                }
            });
            done(chunk.len());
            first += chunk.len();
        })
    }

    /// Computes all items chunk by chunk; `taker` finds each one's outputs in scratch.
    fn chunks(
        &mut self,
        kvs: &mut [&mut Kv],
        items: &[Item],
        taker: &mut dyn FnMut(&mut Self, &[Item]),
    ) -> Result<(), ForwardError> {
        let shape = *self.model.shape();
        self.check(&shape, kvs, items)?;
        for chunk in items.chunks(self.rows) {
            let mut counts = vec![0; kvs.len()];
            chunk.iter().for_each(|item| counts[item.sequence] += 1);
            for (kv, count) in kvs.iter_mut().zip(counts) {
                kv.grow(kv.position() + count);
            }
            self.chunk(kvs, chunk);
            let states = self.scratch.residual.chunks_exact(self.model.shape().width);
            for ((item, state), layers) in chunk.iter().zip(states).zip(&self.scratch.layers) {
                kvs[item.sequence].advance(state, *layers);
            }
            let start = Instant::now();
            kvs.iter_mut().for_each(|kv| self.seal(kv));
            self.hashing.pages += start.elapsed();
            self.make_logits(chunk, &mut None);
            taker(self, chunk);
        }
        Ok(())
    }

    fn check(&self, shape: &Shape, kvs: &[&mut Kv], items: &[Item]) -> Result<(), ForwardError> {
        if let Some(sequence) = kvs.iter().position(|kv| !kv.fits(shape)) {
            return Err(ForwardError::Cache { sequence });
        }
        let mut positions: Vec<usize> = kvs.iter().map(|kv| kv.position()).collect();
        for (item, &Item { sequence, token, .. }) in items.iter().enumerate() {
            if sequence >= kvs.len() {
                return Err(ForwardError::Sequence { item, expected: kvs.len(), got: sequence });
            }
            if token as usize >= shape.vocabulary {
                return Err(ForwardError::Token { item, vocabulary: shape.vocabulary, got: token });
            }
            positions[sequence] += 1;
        }
        for (sequence, (&got, kv)) in positions.iter().zip(kvs).enumerate() {
            if got > kv.capacity() {
                return Err(ForwardError::Full { sequence, capacity: kv.capacity(), got });
            }
        }
        Ok(())
    }

    /// Brings one chunk through all layers; the residual rows stay in scratch.
    fn chunk(&mut self, kvs: &mut [&mut Kv], items: &[Item]) {
        let model = Arc::clone(&self.model);
        self.place(kvs, items);
        self.embed(items);
        self.run_layers(&model, kvs, items);
        self.digest_layers(items.len());
    }

    /// Computes one layer at one position: the runner's model must be that layer
    /// ([`Part::Layer`](crate::transformer::Part)), and `kv` hold its keys and values of
    /// the positions before. Takes the row that enters it, gives the row that leaves it; its
    /// keys and values are in `kv` then.
    ///
    /// # Errors
    /// The cache is another model's or full; nothing has changed then.
    ///
    /// # Panics
    /// `entering` has another length than the model's rows.
    pub fn cell(&mut self, kv: &mut Kv, entering: &[i32]) -> Result<Vec<i32>, ForwardError> {
        self.cell_of(0, kv, entering, &mut None)
    }

    /// As [`cell`](Self::cell), of any of the model's layers; `kv` is of one layer
    /// ([`Kv::of_one_layer`]). `tap` makes the products, if there is one.
    pub(crate) fn cell_of(
        &mut self,
        layer: usize,
        kv: &mut Kv,
        entering: &[i32],
        tap: &mut Tap<'_>,
    ) -> Result<Vec<i32>, ForwardError> {
        let items = [Item { sequence: 0, token: 0, logits: false }];
        let one = Shape { layers: 1, ..*self.model.shape() };
        self.check(&one, &[&mut *kv], &items)?;
        kv.grow(kv.position() + 1);
        let model = Arc::clone(&self.model);
        let kvs = &mut [&mut *kv];
        self.place(kvs, &items);
        self.scratch.residual[..entering.len()].copy_from_slice(entering);
        self.run_layer(&model.layers[layer], 0, kvs, items.len(), tap);
        let leaving = self.scratch.residual[..model.shape().width].to_vec();
        kv.advance(&leaving, Digest::from_bytes([0; 32]));
        Ok(leaving)
    }

    /// The logits of one state, which must have the model's width. `tap` makes the product,
    /// if there is one.
    pub(crate) fn head(&mut self, state: &[i32], tap: &mut Tap<'_>) -> Vec<i32> {
        self.scratch.residual[..state.len()].copy_from_slice(state);
        self.make_logits(&[Item { sequence: 0, token: 0, logits: true }], tap);
        self.scratch.logits[..self.model.shape().vocabulary].to_vec()
    }

    /// Brings the residual rows through all layers.
    fn run_layers(&mut self, model: &Transformer, kvs: &mut [&mut Kv], items: &[Item]) {
        for (at, layer) in model.layers.iter().enumerate() {
            self.run_layer(layer, at, kvs, items.len(), &mut None);
        }
    }

    /// Brings the residual rows through one layer, whose keys and values are layer `at` of the
    /// caches.
    fn run_layer(
        &mut self,
        layer: &Layer,
        at: usize,
        kvs: &mut [&mut Kv],
        rows: usize,
        tap: &mut Tap<'_>,
    ) {
        self.enter(rows, at, &layer.attention_norm);
        self.project(rows, layer, tap);
        let lanes: Vec<Lanes<'_>> = kvs.iter_mut().map(|kv| Lanes::new(kv, at)).collect();
        self.rotate(&lanes, layer);
        let views: Vec<View<'_>> = kvs.iter().map(|kv| View::new(kv, at)).collect();
        self.attend(&views, layer);
        self.add_attention(rows, layer, tap);
        self.normalise(rows, &layer.feed_norm);
        self.feed(rows, layer, tap);
    }

    /// Digests the keys and values of pages that have become full.
    fn seal(&mut self, kv: &mut Kv) {
        let layers = self.model.shape().layers;
        for page in kv.unsealed().collect::<Vec<_>>() {
            let mut digests = vec![Digest::from_bytes([0; 32]); layers];
            let shared = Shared::new(&mut digests);
            self.pool.run(layers, &|_, layer| {
                // SAFETY: each layer belongs to one piece.
                unsafe { shared.part(layer, 1)[0] = kv.kv_digest(page, layer, PAGE) };
            });
            kv.seal(page, &digests);
        }
    }

    /// Finds each row's position and angles.
    fn place(&mut self, kvs: &[&mut Kv], items: &[Item]) {
        let mut next: Vec<usize> = kvs.iter().map(|kv| kv.position()).collect();
        self.scratch.places.clear();
        for item in items {
            self.scratch
                .places
                .push(Place { sequence: item.sequence, position: next[item.sequence] });
            next[item.sequence] += 1;
        }
        let Scratch { places, angles, .. } = &mut self.scratch;
        for (rope, angles) in self.model.ropes.iter().zip(angles) {
            let rows = angles.chunks_exact_mut(rope.frequencies.len());
            for (place, angles) in places.iter().zip(rows) {
                rope.angles(place.position, angles);
            }
        }
    }

    /// The logits of a chunk's items, where asked for, one row after another.
    fn make_logits(&mut self, items: &[Item], tap: &mut Tap<'_>) {
        let width = self.model.shape().width;
        let wanted: Vec<usize> = (0..items.len()).filter(|&at| items[at].logits).collect();
        if wanted.is_empty() {
            return;
        }
        self.scratch.keep(&wanted, width);
        let model = Arc::clone(&self.model);
        // The rows wanted are moved to the front of a copy; the states stay.
        std::mem::swap(&mut self.scratch.residual, &mut self.scratch.kept);
        self.normalise(wanted.len(), &model.output_norm);
        std::mem::swap(&mut self.scratch.residual, &mut self.scratch.kept);
        self.logits(wanted.len(), model.head(), tap);
    }

    fn logits(&mut self, rows: usize, head: &Matrix, tap: &mut Tap<'_>) {
        let vocabulary = head.rows();
        self.scratch.logits.resize(rows * vocabulary, 0);
        let Scratch { logits, inputs, .. } = &mut self.scratch;
        let logits = Shared::new(logits);
        let made = products::made(tap, head, inputs);
        let (kernels, cap, exponents) = (self.kernels, self.model.logit_cap, &inputs.exponents);
        let base = head.exponent() - LOGIT_BITS;
        sinks::split(&mut self.pool, head.groups(), &|_, groups| {
            let mut sink = Narrow { out: &logits, stride: vocabulary, exponents, base, add: false };
            products::sweep(kernels, &made, head, inputs, 0..rows, groups.clone(), &mut sink);
            if let Some(cap) = cap {
                sinks::cap(&logits, vocabulary, 0..rows, groups, cap);
            }
        });
    }

    /// The tables every head shares.
    fn tables() -> &'static tables::Tables {
        tables::tables()
    }
}
