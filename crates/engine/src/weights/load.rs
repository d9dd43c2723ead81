//! All matrices of a model packed at once, into one stretch of memory.
//!
//! [`pack_all`] plans every matrix first (shape, format, bytes) and reads it to its
//! end, reserves the sum, then lets threads take the matrices one by one, the largest
//! first. The pages of the file that a thread has packed are handed back at once: as
//! the packed copy grows, the mapped file shrinks. Deliberately absent:
//! what the matrices are for; the caller lists names and shapes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Arena, LoadError, Matrix, Packed, expect_shape};
use crate::gguf::{Gguf, Tensor};

/// A matrix to pack: some rows of a tensor, or all of them.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The tensor.
    pub(crate) name: String,
    /// Columns and rows of the matrix.
    pub(crate) dims: [u64; 2],
    /// The tensor's rows before its first.
    pub(crate) skip: u64,
    /// Rows of the tensor.
    pub(crate) rows: u64,
}

impl Piece {
    /// The rows of the tensor that are the matrix.
    fn tensor<'a>(&'a self, gguf: &'a Gguf) -> Result<Tensor<'a>, LoadError> {
        let whole = gguf.tensor(&self.name)?;
        let [cols, rows] = self.dims;
        expect_shape(&whole, &[cols, self.rows])?;
        // Rows are whole blocks and equally long: the file's reader has checked it.
        let bytes = whole.data.len() / self.rows.max(1) as usize;
        let data = &whole.data[self.skip as usize * bytes..][..rows as usize * bytes];
        Ok(Tensor { dims: &self.dims, data, ..whole })
    }

    fn plan<'a>(&'a self, gguf: &'a Gguf) -> Result<(Tensor<'a>, Packed), LoadError> {
        let tensor = self.tensor(gguf)?;
        let packed = Packed::plan(&tensor, self.dims[0] as usize, self.dims[1] as usize)?;
        Ok((tensor, packed))
    }
}

impl Piece {
    /// The matrix without its weights.
    pub(crate) fn hollow(&self, gguf: &Gguf, exponent: i32) -> Result<Matrix, LoadError> {
        Matrix::hollow(&self.plan(gguf)?.1, exponent)
    }
}

/// Bytes the packed matrices will take.
pub(crate) fn packed_bytes(gguf: &Gguf, plan: &[Piece]) -> Result<u64, LoadError> {
    plan.iter().map(|piece| Ok(piece.plan(gguf)?.1.bytes().next_multiple_of(64) as u64)).sum()
}

/// One matrix on its way into the arena.
struct Slot<'a> {
    tensor: Tensor<'a>,
    packed: Packed,
    start: usize,
    out: &'a mut [u8],
}

/// Packs all matrices into one arena, each on the next free thread, the largest
/// first so that no thread is left with a large one at the end. All are read to their end
/// before any memory is taken: a file that must be refused costs none.
pub(crate) fn pack_all(
    gguf: &Gguf,
    plan: &[Piece],
    threads: usize,
) -> Result<Vec<Matrix>, LoadError> {
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(plan[at].dims.iter().product::<u64>()));
    let planned = plan.iter().map(|piece| piece.plan(gguf).map(Mutex::new));
    let planned = planned.collect::<Result<Vec<_>, LoadError>>()?;
    each(&planned, &order, threads, |(tensor, packed)| {
        *packed = packed.examined(tensor)?;
        Ok(())
    })?;
    let planned = planned.into_iter().map(Mutex::into_inner);
    let planned: Vec<_> =
        planned.map(|slot| slot.unwrap_or_else(PoisonError::into_inner)).collect();
    let sizes = planned.iter().map(|(_, packed)| packed.bytes().next_multiple_of(64));
    let mut memory = Arena::reserve(sizes.sum())?;
    let (mut rest, mut start) = (&mut memory[..], 0);
    let mut slots = Vec::with_capacity(plan.len());
    for (tensor, packed) in planned {
        let taken = packed.bytes().next_multiple_of(64);
        let (out, after) = rest.split_at_mut(taken);
        let out = &mut out[..packed.bytes()];
        slots.push(Mutex::new(Slot { tensor, packed, start, out }));
        (rest, start) = (after, start + taken);
    }
    each(&slots, &order, threads, |slot| {
        // The packed copy is what is read from then on.
        let read = |bytes: &[u8]| gguf.release(bytes);
        slot.packed.fill(&slot.tensor, slot.out, &read)
    })?;
    let done = slots.into_iter().map(|slot| {
        let slot = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        (slot.packed, slot.start)
    });
    let done: Vec<_> = done.collect();
    let arena = Arena::seal(memory)?;
    Ok(done.iter().map(|(packed, start)| Matrix::over(packed, &arena, *start)).collect())
}

/// Works through all slots in an order, in threads, until one fails.
fn each<T: Send>(
    slots: &[Mutex<T>],
    order: &[usize],
    threads: usize,
    work: impl Fn(&mut T) -> Result<(), LoadError> + Sync,
) -> Result<(), LoadError> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let run = || {
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut slot = slots[at].lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = work(&mut slot) {
                next.store(order.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, 64) {
            scope.spawn(run);
        }
        run();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
