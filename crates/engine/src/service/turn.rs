//! The loop's turns: admit, plan a batch, run it, clear up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerproof_wire::Digest;

use crate::forward::{ForwardError, Item, Output, Runner};
use crate::kv::{Kv, PAGE, Tally};
use crate::model::Model;

use super::pages::{Pages, link, root};
use super::run::Run;
use super::shares::shares;
use super::{Load, Queue, Refusal, ServiceOptions, Shared, Waiting, positions};

/// How long beginnings are kept while nobody asks anything.
const KEPT_IDLE: Duration = Duration::from_secs(300);

/// The loop: owns the runner and every active job.
pub(super) struct Loop {
    model: Arc<Model>,
    runner: Runner,
    options: ServiceOptions,
    shared: Arc<Shared>,
    /// Active jobs, the oldest first.
    active: Vec<Active>,
    pages: Pages,
    tally: Tally,
    /// Pages that fit the budget.
    max_pages: usize,
    batch: usize,
    passes: u64,
    computed: u64,
    reused: u64,
    preempted: u64,
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
    id: u64,
    kv: Kv,
    /// Names of its full pages.
    chain: Vec<Digest>,
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
        let page = crate::kv::page_bytes(model.transformer().shape());
        Self {
            model,
            runner,
            max_pages: options.kv_bytes / page,
            options,
            shared,
            active: Vec::new(),
            pages: Pages::default(),
            tally: Tally::default(),
            batch: 0,
            passes: 0,
            computed: 0,
            reused: 0,
            preempted: 0,
        }
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
            let left = std::mem::take(&mut queue.left);
            if !left.is_empty() {
                self.active.iter_mut().filter(|a| left.contains(&a.id)).for_each(|a| a.run.leave());
                self.active.retain(|active| !active.run.is_over());
            }
            if std::mem::take(&mut queue.forget) {
                while self.pages.evict() {}
            }
            let next = self.next(&queue).and_then(|at| queue.waiting.remove(at));
            queue.load = self.load();
            queue.load.active += usize::from(next.is_some());
            match next {
                Some(waiting) => {
                    drop(queue);
                    self.start(waiting);
                }
                None if !self.active.is_empty() => return true,
                None => {
                    let waited = shared.wake.wait_timeout(queue, KEPT_IDLE);
                    let (queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    drop(queue);
                    if timeout.timed_out() {
                        while self.pages.evict() {}
                    }
                }
            }
        }
    }

    /// Which waiting job comes next, if one may: the first of the client that
    /// has the fewest in the making. Beyond `max_active`, up to as many again,
    /// only clients that have none come in: a client's many jobs don't keep
    /// another's only one waiting.
    fn next(&self, queue: &Queue) -> Option<usize> {
        // Whoever was set back comes before anybody new.
        if self.active.iter().any(|active| active.kv.position() < active.run.told()) {
            return None;
        }
        let making = |salt: &Digest| self.active.iter().filter(|a| a.run.salt() == salt).count();
        let waiting = queue.waiting.iter().enumerate();
        let (count, at) = waiting.map(|(at, waiting)| (making(&waiting.job.salt), at)).min()?;
        let limit = self.options.max_active.max(1);
        let limit = if count == 0 && self.active.len() >= limit { 2 * limit } else { limit };
        let first = queue.waiting[at].job.prompt.len().div_ceil(PAGE);
        let fits =
            self.active.is_empty() || self.used() + first <= self.max_pages + self.pages.idle();
        (self.active.len() < limit && fits).then_some(at)
    }

    fn load(&self) -> Load {
        Load {
            active: self.active.len(),
            queued: 0,
            bytes: self.tally.bytes(),
            pages: self.used(),
            pages_idle: self.pages.idle(),
            max_pages: self.max_pages,
            batch: self.batch,
            passes: self.passes,
            computed: self.computed,
            reused: self.reused,
            evicted: self.pages.evicted,
            preempted: self.preempted,
        }
    }

    /// Pages there are: those of one job alone, and those that may be shared.
    fn used(&self) -> usize {
        self.active.iter().map(|active| active.kv.own_pages()).sum::<usize>() + self.pages.len()
    }

    fn start(&mut self, waiting: Waiting) {
        let id = waiting.id;
        let kv = Kv::with_states(
            self.model.transformer(),
            positions(waiting.job.prompt.len(), waiting.job.max_tokens),
            &self.tally,
        );
        let mut run = Run::new(waiting, self.model.first_end());
        run.begin();
        if !run.is_over() {
            self.active.push(Active { id, kv, chain: Vec::new(), run });
        }
    }

    /// One forward pass for everybody.
    fn turn(&mut self) -> Result<(), ForwardError> {
        self.reuse();
        let (items, places) = self.plan();
        (self.batch, self.passes) = (items.len(), self.passes + 1);
        self.computed += items.len() as u64;
        let tokenizer = self.model.tokenizer();
        let (mut kvs, runs): (Vec<_>, Vec<_>) = self
            .active
            .iter_mut()
            .map(|active| (&mut active.kv, Mutex::new(&mut active.run)))
            .unzip();
        // A job's positions are one thread's, so nobody waits for a lock.
        let run = |at: usize| runs[at].lock().unwrap_or_else(PoisonError::into_inner);
        let take = |at: usize, output: &Output<'_>| {
            let Place { sequence, position } = places[at];
            run(sequence).take(tokenizer, position, output);
        };
        let mut told = 0;
        self.runner.forward_apart(&mut kvs, &items, &take, &mut |items| {
            places[told..told + items].iter().for_each(|place| run(place.sequence).flush());
            told += items;
        })?;
        for Active { kv, run, .. } in &mut self.active {
            run.finish(|positions| kv.kv_root(positions));
        }
        Ok(())
    }

    /// Gives jobs that have read nothing the pages that begin as they do; their
    /// steps are made from the states kept in them.
    fn reuse(&mut self) {
        let tokenizer = self.model.tokenizer();
        for Active { kv, chain, run, .. } in &mut self.active {
            if kv.position() > 0 || run.is_over() {
                continue;
            }
            let mut name = root(run.salt(), &self.model.id());
            for at in 0..run.reusable() / PAGE {
                name = link(&name, &run.feed()[at * PAGE..][..PAGE]);
                let Some(page) = self.pages.find(&name) else { break };
                kv.adopt(page);
                chain.push(name);
                self.reused += PAGE as u64;
                for position in at * PAGE..(at + 1) * PAGE {
                    let (state, layers) = (kv.state(position), kv.layers(position));
                    run.take(
                        tokenizer,
                        position,
                        &Output { state, layers, entered: &[], logits: None },
                    );
                }
                run.flush();
            }
        }
    }

    /// The rows of the next pass. Answers in the making come first, so that
    /// their tokens are out before the prompts are read.
    fn plan(&mut self) -> (Vec<Item>, Vec<Place>) {
        let pending: Vec<_> = self
            .active
            .iter()
            .map(|a| (*a.run.salt(), a.run.pending(a.kv.position()).len()))
            .collect();
        let shares = self.make_room(shares(&pending, self.options.prefill_tokens));
        let mut order: Vec<usize> = (0..pending.len()).collect();
        order.sort_by_key(|&sequence| pending[sequence].1 > 1);
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

    /// Finds pages for what the jobs are to read, the oldest job first: free
    /// ones, then idle ones, then those of the youngest job, which is set back
    /// and reads its tokens again later. A job that finds none waits.
    ///
    /// The oldest always finds its pages, since no job is taken that would need
    /// more than all: so there is always one that gets on.
    fn make_room(&mut self, mut shares: Vec<usize>) -> Vec<usize> {
        let mut planned = 0;
        for at in 0..self.active.len() {
            let Active { kv, run, .. } = &self.active[at];
            let (position, has) = (kv.position(), kv.pages());
            let mut need = (position + shares[at]).div_ceil(PAGE).saturating_sub(has);
            // A job that begins takes nobody's pages, and waits for its prompt's.
            let begins = at > 0 && position == 0;
            let whole = if begins { run.feed().len().div_ceil(PAGE) } else { need };
            while self.used() + planned + whole > self.max_pages {
                if !(self.pages.evict() || !begins && self.set_back(at, &mut shares)) {
                    (need, shares[at]) = (0, if need > 0 { 0 } else { shares[at] });
                    break;
                }
            }
            planned += need;
        }
        shares
    }

    /// Takes the pages of the youngest job younger than `than`; false if none has any.
    fn set_back(&mut self, than: usize, shares: &mut [usize]) -> bool {
        let younger = (than + 1..self.active.len()).rev();
        let Some(at) = younger.into_iter().find(|&at| self.active[at].kv.pages() > 0) else {
            return false;
        };
        self.active[at].kv.truncate(0);
        self.active[at].chain.clear();
        shares[at] = 0;
        self.preempted += 1;
        true
    }

    /// Cuts back caches that read a wrong token, keeps full pages for others,
    /// and frees what is over.
    fn clear(&mut self) {
        for Active { kv, chain, run, .. } in &mut self.active {
            if let Some(position) = run.take_rewind() {
                kv.truncate(position);
                chain.truncate(position / PAGE);
            }
            for at in chain.len()..kv.position() / PAGE {
                let previous =
                    chain.last().copied().unwrap_or_else(|| root(run.salt(), &self.model.id()));
                let name = link(&previous, &run.feed()[at * PAGE..][..PAGE]);
                let there = self.pages.find(&name);
                let page = kv.share(at, there);
                self.pages.keep(&name, page);
                chain.push(name);
            }
        }
        self.active.retain(|active| !active.run.is_over());
        let load = self.load();
        self.shared.lock().load = load;
    }
}
