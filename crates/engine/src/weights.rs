//! The weights of a model as integers, in the layout the kernels read.
//!
//! A tensor is packed once at load: its exponent is found from the exact values
//! in the file, every block's scale and minimum become integers at that
//! exponent, and the quantised integers are laid out for 16 rows at a time (see
//! [`kernels`](crate::kernels)). A packed tensor takes as many bytes as the
//! file's. Deliberately absent: floats; a scale is read from its bits.

#![deny(clippy::float_arithmetic)]

mod load;

use std::fmt;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use crate::arith::half::Exact;
use crate::gguf::{GgmlType, Gguf, GgufError, Tensor};
use crate::pack::{self, Packing};

pub(crate) use load::{Piece, pack_all, packed_bytes};

/// The most columns a matrix may have.
pub const MAX_COLUMNS: u64 = 1 << 16;
/// The most rows a matrix may have.
pub const MAX_ROWS: u64 = 1 << 24;
/// Why a file can't be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file misses something, or has it in another type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A tensor that must hold floats holds blocks.
    #[error("tensor {tensor}: its format is {kind}, expected F32, F16 or BF16")]
    Format {
        /// The tensor.
        tensor: String,
        /// Its format.
        kind: GgmlType,
    },
    /// A tensor has another shape than the header implies.
    #[error("tensor {tensor}: expected {expected:?} (row length first), the file has {got:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Row length, rows.
        expected: Vec<u64>,
        /// What the file says.
        got: Vec<u64>,
    },
    /// A tensor holds an infinity or something that isn't a number.
    #[error("tensor {tensor}: block {block} holds an infinite or undefined value")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The first such block (or element, in a float tensor).
        block: usize,
    },
    /// A block's scale is out of proportion to the tensor's values, so the
    /// widths of the sums could not be guaranteed.
    #[error("tensor {tensor}: block {block} has a scale of {got}, below {limit} is required")]
    Scale {
        /// The tensor.
        tensor: String,
        /// The block.
        block: usize,
        /// The scale or minimum as an integer.
        got: i64,
        /// The bound.
        limit: i64,
    },
    /// The system gave no memory for the weights.
    #[error("no memory for the weights: {0}")]
    Memory(#[source] std::io::Error),
    /// A number in the header is outside what this engine computes with.
    #[error("{key} is {got}, expected {expected}")]
    Header {
        /// The metadata key.
        key: String,
        /// What would do.
        expected: String,
        /// The file's value.
        got: String,
    },
    /// The file has a tensor that the architecture as understood here doesn't
    /// use: running without it would not be running this model.
    #[error("tensor {tensor} is not part of {family} models as this engine knows them")]
    Unknown {
        /// The tensor.
        tensor: String,
        /// The file's architecture.
        family: &'static str,
    },
}

/// How a tensor is to be packed, and then was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    packing: Packing,
    rows: usize,
    cols: usize,
    exponent: i32,
}

/// Reads every value's scale, as loading would, without making anything of it: a file that
/// fails here can't be loaded by anybody.
///
/// # Errors
/// A value is infinite or undefined.
pub fn check_values(gguf: &Gguf) -> Result<(), LoadError> {
    gguf.tensors().try_for_each(|tensor| pack::examine(&tensor, Packing::of(tensor.kind)).map(drop))
}

impl Packed {
    /// Checks a tensor's shape and format.
    pub(crate) fn plan(tensor: &Tensor<'_>, cols: usize, rows: usize) -> Result<Self, LoadError> {
        expect_shape(tensor, &[cols as u64, rows as u64])?;
        Ok(Self { packing: Packing::of(tensor.kind), rows, cols, exponent: 0 })
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let layout = self.packing.layout();
        layout.bytes() * self.cols.div_ceil(layout.columns) * self.rows.div_ceil(16)
    }

    /// Reads the whole tensor: finds its exponent, and whatever would be refused.
    pub(crate) fn examined(self, tensor: &Tensor<'_>) -> Result<Self, LoadError> {
        Ok(Self { exponent: pack::examine(tensor, self.packing)?, ..self })
    }

    /// Packs the tensor, examined before, into `out`, zeroed and of [`Packed::bytes`]
    /// bytes. Calls `done` with stretches of the tensor that won't be read again.
    pub(crate) fn fill(
        &self,
        tensor: &Tensor<'_>,
        out: &mut [u8],
        done: &dyn Fn(&[u8]),
    ) -> Result<(), LoadError> {
        pack::fill(tensor, self.packing, self.cols, self.exponent, out, done)
    }
}

/// A weight matrix: `rows` outputs of `cols` inputs, integers at 2^-`exponent`.
pub(crate) struct Matrix {
    packing: Packing,
    rows: usize,
    cols: usize,
    exponent: i32,
    arena: Arc<Arena>,
    start: usize,
    len: usize,
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packing, rows, cols, exponent, .. } = self;
        let bits = self.magnitude_bits();
        write!(f, "Matrix({packing:?} {rows}x{cols}, {bits} bits at 2^-{exponent})")
    }
}

impl Matrix {
    /// A matrix over bytes of the arena that [`Packed::fill`] has filled.
    pub(crate) fn over(packed: &Packed, arena: &Arc<Arena>, start: usize) -> Self {
        let Packed { packing, rows, cols, exponent } = *packed;
        Self { packing, rows, cols, exponent, arena: Arc::clone(arena), start, len: packed.bytes() }
    }

    /// A matrix of nothing, where a part of a model leaves one out.
    pub(crate) fn none() -> Result<Self, LoadError> {
        let (packing, arena) = (Packing::Dense, Arena::seal(Arena::reserve(0)?)?);
        Ok(Self { packing, rows: 0, cols: 0, exponent: 0, arena, start: 0, len: 0 })
    }

    /// A matrix of which only shape, format and exponent are there.
    pub(crate) fn hollow(packed: &Packed, exponent: i32) -> Result<Self, LoadError> {
        let Packed { packing, rows, cols, .. } = *packed;
        Ok(Self { packing, rows, cols, exponent, ..Self::none()? })
    }

    /// A matrix with memory of its own.
    pub(crate) fn pack(tensor: &Tensor<'_>, cols: usize, rows: usize) -> Result<Self, LoadError> {
        let packed = Packed::plan(tensor, cols, rows)?.examined(tensor)?;
        let mut memory = Arena::reserve(packed.bytes())?;
        packed.fill(tensor, &mut memory, &|_| ())?;
        Ok(Self::over(&packed, &Arena::seal(memory)?, 0))
    }

    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, rounded up to a multiple of 32: to whole blocks.
    pub(crate) fn width(&self) -> usize {
        self.cols.next_multiple_of(32)
    }

    /// Groups of 16 rows.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(16)
    }

    pub(crate) fn exponent(&self) -> i32 {
        self.exponent
    }

    /// Weights are integers of about so many bits: `|W| < 2^(magnitude_bits + 1)`.
    pub(crate) fn magnitude_bits(&self) -> i32 {
        self.packing.magnitude_bits()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.len
    }

    /// The packed blocks of one group.
    #[inline(always)]
    pub(crate) fn group(&self, group: usize) -> &[u8] {
        let layout = self.packing.layout();
        let bytes = layout.bytes() * (self.width() / layout.columns);
        &self.arena.0[self.start..self.start + self.len][group * bytes..][..bytes]
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Writes the integers of one row, `cols` of them.
    pub(crate) fn row(&self, row: usize, out: &mut [i32]) {
        let layout = self.packing.layout();
        let blocks = self.group(row / 16).chunks_exact(layout.bytes());
        for (block, out) in blocks.zip(out.chunks_mut(layout.columns)) {
            pack::unpack(self.packing, block, row % 16, out);
        }
    }
}

/// The integers of a tensor of one row, at the exponent of the tensor that it is a row of.
pub(crate) fn row_of(row: &Tensor<'_>, exponent: i32) -> Result<Vec<i32>, LoadError> {
    let cols = row.dims.first().map_or(0, |cols| *cols as usize);
    let packed = Packed { exponent, ..Packed::plan(row, cols, 1)? };
    let mut memory = Arena::reserve(packed.bytes())?;
    pack::fill(row, packed.packing, packed.cols, exponent, &mut memory, &|_| ())?;
    let mut integers = vec![0; packed.cols];
    Matrix::over(&packed, &Arena::seal(memory)?, 0).row(0, &mut integers);
    Ok(integers)
}

/// A tensor of the given shape, or an error that names it.
pub(crate) fn expect_shape(tensor: &Tensor<'_>, expected: &[u64]) -> Result<(), LoadError> {
    if tensor.dims == expected {
        return Ok(());
    }
    Err(LoadError::Shape {
        tensor: tensor.name.to_owned(),
        expected: expected.to_vec(),
        got: tensor.dims.to_vec(),
    })
}

/// A vector of gains: integers at 2^-`exponent`.
#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) values: Vec<i32>,
    pub(crate) exponent: i32,
}

impl Vector {
    /// Reads a tensor of `len` floats.
    pub(crate) fn read(tensor: &Tensor<'_>, len: usize) -> Result<Self, LoadError> {
        expect_shape(tensor, &[len as u64])?;
        if Packing::of(tensor.kind) != Packing::Dense {
            return Err(LoadError::Format { tensor: tensor.name.to_owned(), kind: tensor.kind });
        }
        let exponent = pack::examine(tensor, Packing::Dense)?;
        let values = pack::floats(tensor)
            .map(|value| {
                value.unwrap_or(Exact { mantissa: 0, exponent: 0 }).at(exponent, 1 << 30) as i32
            })
            .collect();
        Ok(Self { values, exponent })
    }
}

#[cfg(test)]
thread_local! {
    /// Bytes of all arenas that this thread has reserved.
    pub(crate) static RESERVED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The memory all packed weights of a model lie in: one mapping, in large pages
/// where the system has them, because a forward pass streams through all of it.
#[derive(Debug)]
pub(crate) struct Arena(Mmap);

impl Arena {
    /// Zeroed memory of `len` bytes, to be filled and then sealed.
    pub(crate) fn reserve(len: usize) -> Result<MmapMut, LoadError> {
        #[cfg(test)]
        RESERVED.with(|reserved| reserved.set(reserved.get() + len));
        let memory = MmapMut::map_anon(len.max(1)).map_err(LoadError::Memory)?;
        // Only a hint: without large pages everything works, more slowly.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(memory)
    }

    /// Makes filled memory read-only.
    pub(crate) fn seal(memory: MmapMut) -> Result<Arc<Self>, LoadError> {
        Ok(Arc::new(Self(memory.make_read_only().map_err(LoadError::Memory)?)))
    }
}
