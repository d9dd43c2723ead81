//! A small pool of threads that claim pieces of work from one counter.
//!
//! A forward pass is some hundred short phases. In each, pieces are claimed one
//! by one, so a thread that the operating system has put aside costs nothing
//! but the piece it holds; which thread does a piece never changes a bit,
//! because pieces write to disjoint places and integers add in any order.
//! Threads look for the next phase for a short while, then sleep.
//!
//! Work beside the pool says so with [`let_others_go_first`].
//!
//! Deliberately absent: work stealing, priorities among pieces, nested phases.

#![allow(unsafe_code, reason = "lending a closure to other threads, and disjoint writes, need it")]

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How often a waiting worker looks before it sleeps (some 100 µs).
const LOOKS_BEFORE_SLEEP: u32 = 20_000;
/// How often the caller looks before it lets others run.
const LOOKS_BEFORE_YIELD: u32 = 2_000;
/// The most pieces a phase may have.
const MAX_PIECES: usize = 0xffff;

/// How far a thread that lets others go first stands back: where all cores are
/// busy it has a third of what each of the others has.
#[cfg(target_os = "linux")]
const PATIENCE: i32 = 5;

/// Makes the calling thread stand back behind others that have work to do, where
/// the system has such a thing.
pub(crate) fn let_others_go_first() {
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            fn setpriority(which: i32, who: u32, priority: i32) -> i32;
        }
        // SAFETY: takes numbers only. 0 is PRIO_PROCESS, which with nobody named is
        // the calling thread on Linux; a refusal changes nothing.
        let _ = unsafe { setpriority(0, 0, PATIENCE) };
    }
}

/// What a phase does with (thread, piece).
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The fat pointer to a phase's closure, behind a thin one.
struct Phase(*const Work<'static>);

#[derive(Default)]
struct State {
    /// phase (32 bits) | pieces (16) | next piece (16).
    ticket: AtomicU64,
    finished: AtomicUsize,
    phase: AtomicPtr<Phase>,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// The pool; the thread that calls [`Pool::run`] works too.
pub(crate) struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    number: u32,
}

impl Pool {
    /// A pool of `threads` threads in all, at least one: the caller's.
    pub(crate) fn new(threads: usize) -> Self {
        let state = Arc::new(State::default());
        let spawn = |index| {
            let state = Arc::clone(&state);
            std::thread::Builder::new()
                .name(format!("engine-{index}"))
                .spawn(move || state.serve(index))
        };
        // A thread the system refuses ends the list: fewer helpers, not an error. None
        // is left out, since a thread's number is its place in what it is lent.
        let workers = (1..threads.max(1)).map_while(|index| spawn(index).ok()).collect();
        Self { state, workers, number: 0 }
    }

    /// How many threads work.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(thread, piece)` once for each piece below `pieces`.
    pub(crate) fn run(&mut self, pieces: usize, work: &Work<'_>) {
        if self.workers.is_empty() || pieces <= 1 {
            (0..pieces).for_each(|piece| work(0, piece));
            return;
        }
        for start in (0..pieces).step_by(MAX_PIECES) {
            let count = (pieces - start).min(MAX_PIECES);
            self.run_some(count, &|thread, piece| work(thread, start + piece));
        }
    }

    fn run_some(&mut self, pieces: usize, work: &Work<'_>) {
        let wide: *const Work<'_> = work;
        // SAFETY: only the lifetime changes. `run_some` returns after every piece
        // is finished, and no thread calls the closure without holding a piece.
        let mut phase =
            Phase(unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(wide) });
        let state = &*self.state;
        state.finished.store(0, Ordering::Relaxed);
        state.phase.store(&raw mut phase, Ordering::Release);
        self.number = self.number.wrapping_add(1);
        let ticket = u64::from(self.number) << 32 | (pieces as u64) << 16;
        state.ticket.store(ticket, Ordering::SeqCst);
        if state.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = state.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            state.wake.notify_all();
        }
        // Even if a piece panics here the others are done before `work` goes.
        let mut panic = None;
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| state.work(0))) {
            panic = Some(payload);
        }
        let mut looks = 0u32;
        while state.finished.load(Ordering::Acquire) < pieces {
            looks += 1;
            if looks.is_multiple_of(LOOKS_BEFORE_YIELD) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        let panicked = state.panicked.swap(false, Ordering::Relaxed);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
        assert!(!panicked, "a worker thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        {
            let _guard = self.state.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.state.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// Counts a piece as finished even if its work panics.
struct Finish<'a>(&'a State);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::Relaxed);
        }
        self.0.finished.fetch_add(1, Ordering::Release);
    }
}

impl State {
    /// Claims and does pieces of the present phase until none is left.
    fn work(&self, thread: usize) {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        while (ticket & 0xffff) < (ticket >> 16 & 0xffff) {
            let phase = self.phase.load(Ordering::Acquire);
            // INVARIANT: a phase is replaced only after all its pieces are claimed
            // and finished, so if the exchange succeeds, `phase` belongs to `ticket`.
            match self.ticket.compare_exchange_weak(
                ticket,
                ticket + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    let _finish = Finish(self);
                    // SAFETY: this thread holds an unfinished piece, so `run_some` has
                    // not returned and both pointers are alive.
                    let work = unsafe { &*(*phase).0 };
                    work(thread, (ticket & 0xffff) as usize);
                }
                Err(now) => {
                    ticket = now;
                    continue;
                }
            }
            ticket = self.ticket.load(Ordering::Acquire);
        }
    }

    /// A worker's life: work, look, sleep.
    fn serve(&self, thread: usize) {
        let mut seen = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let mut looks = 0;
            while self.ticket.load(Ordering::Acquire) >> 32 == seen && looks < LOOKS_BEFORE_SLEEP {
                std::hint::spin_loop();
                looks += 1;
            }
            if self.ticket.load(Ordering::Acquire) >> 32 == seen {
                self.doze(seen);
            }
            seen = self.ticket.load(Ordering::Acquire) >> 32;
            // `Finish` has noted the panic; the caller of `run` reports it.
            while catch_unwind(AssertUnwindSafe(|| self.work(thread))).is_err() {}
        }
    }

    /// Sleeps until a phase other than `seen` begins or the pool ends.
    fn doze(&self, seen: u64) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.ticket.load(Ordering::SeqCst) >> 32 == seen && !self.stop.load(Ordering::SeqCst)
        {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A slice that the pieces of a phase write to at disjoint places.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lent: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `Shared::part`, whose callers promise disjointness.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lent: PhantomData }
    }

    /// `len` elements from `start`; panics if they aren't there.
    ///
    /// # Safety
    /// No two parts that overlap may be alive at once.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the point of the type; see Safety")]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part beyond the slice");
        // SAFETY: within bounds by the check above; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(threads);
            for pieces in [0, 1, 2, 7, 1000, 70_000] {
                let mut counts = vec![0u8; pieces];
                let shared = Shared::new(&mut counts);
                pool.run(pieces, &|thread, piece| {
                    assert!(thread < threads);
                    // SAFETY: each piece has an element of its own.
                    unsafe { shared.part(piece, 1)[0] += 1 };
                });
                assert!(counts.iter().all(|&n| n == 1), "{threads} {pieces}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "panicked")]
    fn a_panic_reaches_the_caller() {
        let mut pool = Pool::new(2);
        pool.run(2, &|_, piece| assert!(piece != 1, "panicked on purpose"));
    }

    #[test]
    fn a_panic_is_told_once() {
        let mut pool = Pool::new(2);
        let caller = AtomicBool::new(false);
        // The caller gets a piece for certain, and panics in it.
        let work = |thread: usize, _: usize| {
            if thread == 0 {
                caller.store(true, Ordering::Release);
                resume_unwind(Box::new("on purpose"));
            }
            while !caller.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        };
        assert!(catch_unwind(AssertUnwindSafe(|| pool.run(2, &work))).is_err());
        pool.run(2, &|_, _| ());
    }
}
