//! The loop's turns: admit, plan a batch, run it, clear up.

use std::sync::{Arc, PoisonError};

use crate::forward::{ForwardError, Item, Runner};
use crate::kv::Kv;
use crate::model::Model;

use super::run::Run;
use super::{Event, Refusal, ServiceOptions, Shared, Waiting, cache_bytes, positions};

/// The loop: owns the runner and every active job.
pub(super) struct Loop {
    model: Arc<Model>,
    runner: Runner,
    options: ServiceOptions,
    shared: Arc<Shared>,
    active: Vec<Active>,
    /// Bytes of all active jobs' caches.
    kv_bytes: usize,
}

/// Closes the queue when the loop ends, also by a panic: nobody waits for a
/// loop that is gone.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Active {
    kv: Kv,
    kv_bytes: usize,
    run: Run,
}

/// One row of a batch: whose it is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    sequence: usize,
    position: usize,
}

impl Loop {
    pub(super) fn new(
        model: Arc<Model>,
        runner: Runner,
        options: ServiceOptions,
        shared: Arc<Shared>,
    ) -> Self {
        Self { model, runner, options, shared, active: Vec::new(), kv_bytes: 0 }
    }

    pub(super) fn run(mut self) {
        let closing = Closing(Arc::clone(&self.shared));
        while self.admit() {
            if let Err(error) = self.turn() {
                // Every job was checked on admission: this is a defect, not a bad job.
                self.active.iter_mut().for_each(|a| a.run.refuse(Refusal::Failed(error.clone())));
            }
            self.clear();
        }
        self.active.iter_mut().for_each(|active| active.run.refuse(Refusal::Stopping));
        drop(closing);
    }

    /// Takes jobs from the queue while they fit, and waits if there is nothing
    /// to do at all. False when the service stops. No sink is called with the
    /// queue locked, so a sink may ask the service anything.
    fn admit(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut queue = shared.lock();
            if queue.stopping {
                return false;
            }
            let next = queue.waiting.pop_front_if(|next| self.fits(next));
            queue.active = self.active.len() + usize::from(next.is_some());
            match next {
                Some(waiting) => {
                    drop(queue);
                    self.start(waiting);
                }
                None if !self.active.is_empty() => return true,
                None => drop(shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)),
            }
        }
    }

    fn fits(&self, next: &Waiting) -> bool {
        let bytes = cache_bytes(self.model.transformer(), &next.job);
        self.active.len() < self.options.max_active.max(1)
            && self.kv_bytes + bytes <= self.options.kv_bytes
    }

    fn start(&mut self, waiting: Waiting) {
        let Waiting { job, sink } = waiting;
        let kv_bytes = cache_bytes(self.model.transformer(), &job);
        let kv = Kv::new(self.model.transformer(), positions(&job));
        let mut run = Run::new(job, sink);
        run.tell(Event::Started);
        if !run.is_over() {
            self.kv_bytes += kv_bytes;
            self.active.push(Active { kv, kv_bytes, run });
        }
    }

    /// One forward pass for everybody.
    fn turn(&mut self) -> Result<(), ForwardError> {
        let (items, places) = self.plan();
        let tokenizer = self.model.tokenizer();
        let (mut kvs, mut runs): (Vec<_>, Vec<_>) =
            self.active.iter_mut().map(|active| (&mut active.kv, &mut active.run)).unzip();
        self.runner.forward(&mut kvs, &items, &mut |at, output| {
            let Place { sequence, position } = places[at];
            runs[sequence].take(tokenizer, position, &output);
        })
    }

    /// The rows of the next pass. Answers in the making come first, so that
    /// their tokens are out before the prompts are read.
    fn plan(&self) -> (Vec<Item>, Vec<Place>) {
        let pending: Vec<usize> =
            self.active.iter().map(|a| a.run.pending(a.kv.position()).len()).collect();
        let shares = shares(&pending, self.options.prefill_tokens);
        let mut order: Vec<usize> = (0..pending.len()).collect();
        order.sort_by_key(|&sequence| pending[sequence] > 1);
        let mut items = Vec::new();
        let mut places = Vec::new();
        for sequence in order {
            let Active { kv, run, .. } = &self.active[sequence];
            let start = kv.position();
            for (at, &token) in run.pending(start)[..shares[sequence]].iter().enumerate() {
                let position = start + at;
                items.push(Item { sequence, token, logits: run.draws(position) });
                places.push(Place { sequence, position });
            }
        }
        (items, places)
    }

    /// Cuts back caches that read a wrong token, and frees what is over.
    fn clear(&mut self) {
        for active in &mut self.active {
            if let Some(position) = active.run.take_rewind() {
                active.kv.truncate(position);
            }
        }
        self.active.retain(|active| !active.run.is_over());
        self.kv_bytes = self.active.iter().map(|active| active.kv_bytes).sum();
    }
}

/// How many tokens each job reads in the next pass: one for an answer in the
/// making; an equal share of `prefill` (of half of it, while answers are being
/// made) for a prompt, at least one, what a short one leaves over going to the
/// next.
fn shares(pending: &[usize], prefill: usize) -> Vec<usize> {
    let decoding = pending.contains(&1);
    let mut budget = if decoding { prefill / 2 } else { prefill };
    let mut prompts = pending.iter().filter(|&&tokens| tokens > 1).count();
    let mut order: Vec<usize> = (0..pending.len()).collect();
    order.sort_by_key(|&at| pending[at]);
    let mut shares = vec![0; pending.len()];
    for at in order {
        let tokens = pending[at];
        if tokens <= 1 {
            shares[at] = tokens;
            continue;
        }
        shares[at] = tokens.min((budget / prompts).max(1));
        budget = budget.saturating_sub(shares[at]);
        prompts -= 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn every_job_moves_in_every_turn() {
        for (pending, prefill, expected) in [
            (&[][..], 128, &[][..]),
            (&[1, 1], 128, &[1, 1]),
            (&[500], 128, &[128]),
            (&[1, 500], 128, &[1, 64]),
            (&[500, 10, 500], 128, &[59, 10, 59]),
            (&[1, 9, 500, 1], 128, &[1, 9, 55, 1]),
            (&[9, 9, 9], 1, &[1, 1, 1]),
            (&[2], 0, &[1]),
        ] {
            assert_eq!(shares(pending, prefill), expected, "{pending:?}");
        }
    }
}
