//! The pieces of one fetch, shared by everybody who fetches some.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes asked for at once: whole groups, on a border that is a subtree's too, so that few
/// hashes come along.
pub(super) const PIECE_BYTES: u64 = 512 << 10;
/// A piece that is on its way for so long is given to a second source too, when nothing else is
/// left to do.
const SLOW: Duration = Duration::from_secs(2);

/// Pieces that wait, and those on their way.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Range<u64>>,
    /// By their first byte.
    out: HashMap<u64, Out>,
}

#[derive(Debug)]
struct Out {
    range: Range<u64>,
    since: Instant,
    /// How many fetch it.
    copies: u32,
}

/// A piece on its way. Dropped, it waits again unless another source has it too;
/// [`Piece::done`] ends it.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    queue: Arc<Queue>,
}

impl Piece {
    pub(super) fn done(self) {
        self.queue.lock().out.remove(&self.range.start);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        if let Some(out) = state.out.get_mut(&self.range.start) {
            out.copies -= 1;
            if out.copies == 0 {
                state.out.remove(&self.range.start);
                state.waiting.push_front(self.range.clone());
            }
        }
        drop(state);
        self.queue.changed.notify_waiters();
    }
}

impl Queue {
    pub(super) fn new(missing: &[Range<u64>]) -> Arc<Queue> {
        let waiting = missing.iter().cloned().flat_map(pieces).collect();
        let state = Mutex::new(State { waiting, out: HashMap::new() });
        Arc::new(Queue { state, changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece; waits while all are on their way, since some may come back. `None` when
    /// all are done.
    pub(super) async fn next(self: &Arc<Self>) -> Option<Piece> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if let Some(range) = state.take(Instant::now()) {
                    return Some(Piece { range, queue: Arc::clone(self) });
                }
                if state.out.is_empty() {
                    return None;
                }
            }
            // One that becomes slow is no change.
            let _ = tokio::time::timeout(SLOW / 2, changed).await;
        }
    }

    /// Returns when all are done.
    pub(super) async fn ended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_done() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.out.is_empty()
    }
}

impl State {
    fn take(&mut self, now: Instant) -> Option<Range<u64>> {
        if let Some(range) = self.waiting.pop_front() {
            let out = Out { range: range.clone(), since: now, copies: 1 };
            self.out.insert(range.start, out);
            return Some(range);
        }
        let slow = self.out.values_mut().filter(|out| out.copies == 1 && out.since + SLOW <= now);
        let slowest = slow.min_by_key(|out| out.since)?;
        slowest.copies += 1;
        Some(slowest.range.clone())
    }
}

/// A range in pieces that end on multiples of [`PIECE_BYTES`].
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = at;
        at = range.end.min((start / PIECE_BYTES + 1) * PIECE_BYTES);
        (start < range.end).then_some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_piece_that_is_lost_comes_again() {
        let queue = Queue::new(&[0..PIECE_BYTES + 5, 3 * PIECE_BYTES - 1..3 * PIECE_BYTES + 1]);
        let mut got = Vec::new();
        let lost = queue.next().await.expect("a piece");
        assert_eq!(lost.range, 0..PIECE_BYTES);
        for _ in 0..3 {
            let piece = queue.next().await.expect("a piece");
            got.push(piece.range.clone());
            piece.done();
        }
        let border = 3 * PIECE_BYTES;
        assert_eq!(got, [PIECE_BYTES..PIECE_BYTES + 5, border - 1..border, border..border + 1]);
        assert!(!queue.is_done());
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.next().await.map(|piece| piece.range.clone()) }
        });
        tokio::task::yield_now().await;
        drop(lost);
        assert_eq!(waiting.await.expect("ran"), Some(0..PIECE_BYTES));
        // The waiter dropped it in its turn.
        let last = queue.next().await.expect("again");
        assert!(!queue.is_done());
        last.done();
        queue.ended().await;
        assert!(queue.next().await.is_none());
    }

    #[test]
    fn a_slow_piece_is_given_to_one_more() {
        let now = Instant::now();
        let mut state = State { waiting: [0..5, 5..9].into(), out: HashMap::new() };
        assert_eq!(state.take(now), Some(0..5));
        assert_eq!(state.take(now + SLOW), Some(5..9), "what nobody has comes first");
        assert_eq!(state.take(now + SLOW), Some(0..5));
        assert_eq!(state.take(now + SLOW), None, "nobody else needs either");
        assert_eq!(state.take(now + SLOW + SLOW), Some(5..9));
    }

    #[tokio::test]
    async fn of_two_that_fetch_a_piece_one_is_enough() {
        let queue = Queue::new(std::slice::from_ref(&(0..5)));
        let first = queue.next().await.expect("a piece");
        queue.lock().out.get_mut(&0).expect("on its way").copies += 1;
        let second = Piece { range: 0..5, queue: Arc::clone(&queue) };
        drop(first);
        assert!(!queue.is_done() && queue.lock().waiting.is_empty(), "the other has it");
        second.done();
        assert!(queue.is_done());
    }
}
