//! The pieces of one fetch, shared by everybody who fetches some.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bytes asked for at once: whole groups, on a border that is a subtree's too, so that few
/// hashes come along.
pub(super) const PIECE_BYTES: u64 = 512 << 10;

/// Pieces that wait, and how many are on their way.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Range<u64>>,
    out: usize,
}

/// A piece on its way. Dropped, it waits again; [`Piece::done`] ends it.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    queue: Arc<Queue>,
    done: bool,
}

impl Piece {
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.out -= 1;
        if !self.done {
            state.waiting.push_front(self.range.clone());
        }
        drop(state);
        self.queue.changed.notify_waiters();
    }
}

impl Queue {
    pub(super) fn new(missing: &[Range<u64>]) -> Arc<Queue> {
        let waiting = missing.iter().cloned().flat_map(pieces).collect();
        let state = Mutex::new(State { waiting, out: 0 });
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
                if let Some(range) = state.waiting.pop_front() {
                    state.out += 1;
                    return Some(Piece { range, queue: Arc::clone(self), done: false });
                }
                if state.out == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.out == 0
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
        queue.next().await.expect("again").done();
        assert!(queue.is_done());
        assert!(queue.next().await.is_none());
    }
}
