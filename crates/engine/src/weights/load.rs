//! All matrices of a model packed at once, into one stretch of memory.
//!
//! [`pack_all`] plans every matrix first (shape, format, bytes), reserves the
//! sum, then lets threads take the matrices one by one, the largest first. The
//! pages of the file that a thread has read are handed back at once, so the
//! file and its packed copy are never in memory together. Deliberately absent:
//! what the matrices are for; the caller lists names and shapes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Arena, LoadError, Matrix, Packed};
use crate::gguf::{Gguf, Tensor};

/// One matrix on its way into the arena.
struct Slot<'a> {
    tensor: Tensor<'a>,
    packed: Packed,
    start: usize,
    out: &'a mut [u8],
    done: Option<Result<Packed, LoadError>>,
}

/// Packs all matrices into one arena, each on the next free thread, the largest
/// ones first.
pub(crate) fn pack_all(
    gguf: &Gguf,
    plan: &[(String, usize, usize)],
    threads: usize,
) -> Result<Vec<Matrix>, LoadError> {
    let mut planned = Vec::with_capacity(plan.len());
    let mut total = 0;
    for (name, cols, rows) in plan {
        let tensor = gguf.tensor(name)?;
        let packed = Packed::plan(&tensor, *cols, *rows)?;
        planned.push((tensor, packed, total));
        total += packed.bytes().next_multiple_of(64);
    }
    let mut memory = Arena::reserve(total)?;
    let mut rest = &mut memory[..];
    let mut slots = Vec::with_capacity(plan.len());
    for (tensor, packed, start) in planned {
        let (out, after) = rest.split_at_mut(packed.bytes().next_multiple_of(64));
        rest = after;
        slots.push(Mutex::new(Slot {
            tensor,
            packed,
            start,
            out: &mut out[..packed.bytes()],
            done: None,
        }));
    }
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(plan[at].1 * plan[at].2));
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut slot = slots[at].lock().unwrap_or_else(PoisonError::into_inner);
            let slot = &mut *slot;
            // The packed copy is what is read from then on.
            let read = |bytes: &[u8]| gguf.release(bytes);
            slot.done = Some(slot.packed.fill(&slot.tensor, slot.out, &read));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, 64) {
            scope.spawn(work);
        }
        work();
    });
    let done = slots.into_iter().map(|slot| {
        let slot = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Every slot has been filled: the scope ends when all threads have.
        Ok((slot.done.unwrap_or(Ok(slot.packed))?, slot.start))
    });
    let done = done.collect::<Result<Vec<_>, LoadError>>()?;
    let arena = Arena::seal(memory)?;
    Ok(done.iter().map(|(packed, start)| Matrix::over(packed, &arena, *start)).collect())
}
