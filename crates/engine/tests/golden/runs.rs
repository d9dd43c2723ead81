//! The golden prompts through the engine, in every way it can be fed.

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

use peerproof_engine::forward::{Item, Output, Runner};
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::logprobs;
use peerproof_engine::model::Model;
use peerproof_engine::sample::{History, Sampling, adjust, choose_adjusted, draw};
use peerproof_engine::service::{Event, Job, Service, ServiceOptions};
use peerproof_engine::transformer::Transformer;
use peerproof_proof::transcript::{leaf_hash, logits_digest, state_digest};
use peerproof_proof::{DrawnStep, Step};
use peerproof_wire::{Digest, Stop};

use super::file::{self, Entry, Golden};

/// How prompt and answer reach the model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Feed {
    /// So many positions at a time.
    Chunks(usize),
    /// All positions in one batch.
    Whole,
    /// So many copies of one text side by side, each at its own pace.
    Batch(usize),
    /// Through the service, so many answers at once.
    Service(usize),
}

/// One way to compute the first tokens of some prompts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) feed: Feed,
    pub(crate) path: KernelPath,
    pub(crate) threads: usize,
    /// How many prompts, from the first on.
    pub(crate) prompts: usize,
    /// How many of the prompts with every rule on.
    pub(crate) ruled: usize,
    pub(crate) tokens: usize,
}

impl Run {
    /// Panics where a leaf isn't the golden one.
    pub(crate) fn check(&self, model: &Arc<Model>, golden: &Golden) {
        let ruled = golden.ruled.iter().take(self.ruled);
        let entries: Vec<&Entry> = golden.prompts.iter().take(self.prompts).chain(ruled).collect();
        match self.feed {
            Feed::Service(batch) => self.serve(model, golden, &entries, batch),
            _ => self.force(model.transformer(), &golden.offer, &entries),
        }
    }

    fn compare(&self, number: usize, entry: &Entry, (steps, kv_root): &(Vec<Step>, Digest)) {
        let leaves: Vec<Digest> =
            steps.iter().map(|step| leaf_hash(&step.clone().into())).collect();
        assert_eq!(leaves.len(), entry.prompt.len() + self.tokens - 1);
        let (got, expected) = (file::short(&leaves), &entry.leaves[..leaves.len() * 9 - 1]);
        let differs = got.split(' ').zip(expected.split(' ')).position(|(a, b)| a != b);
        assert_eq!(differs, None, "prompt {number}: first position that differs, {self:?}");
        let reported: Vec<String> = steps.iter().filter_map(file::reported).collect();
        let expected = &entry.reported[..reported.len()];
        assert_eq!(reported, expected, "prompt {number}, {self:?}");
        if self.tokens == entry.answer.len() {
            assert_eq!(kv_root.to_string(), entry.kv_root, "prompt {number}, {self:?}");
            assert_eq!(file::of_run(&leaves, kv_root), entry.digest, "prompt {number}, {self:?}");
            assert_eq!(reported.len(), entry.reported.len(), "prompt {number}, {self:?}");
        }
    }

    fn serve(&self, model: &Arc<Model>, golden: &Golden, entries: &[&Entry], batch: usize) {
        let options = ServiceOptions {
            threads: self.threads,
            path: self.path,
            max_active: batch,
            max_queued: entries.len(),
            ..Default::default()
        };
        let service = Service::start(Arc::clone(model), &options).expect("a service");
        let submitted = |entry: &&Entry| submit(&service, job(golden, entry, self.tokens as u32));
        let jobs: Vec<_> = entries.iter().map(submitted).collect();
        for (number, (entry, events)) in entries.iter().zip(jobs).enumerate() {
            self.compare(number, entry, &steps(events));
        }
    }

    /// Reads prompts with their golden answers.
    pub(crate) fn force(&self, model: &Arc<Transformer>, offer: &str, entries: &[&Entry]) {
        let mut runner = Runner::new(Arc::clone(model), self.threads, self.path).expect("a runner");
        let key = offer.parse().expect("the id of an offer");
        for (number, entry) in entries.iter().enumerate() {
            for run in self.read(&mut runner, &key, entry) {
                self.compare(number, entry, &run);
            }
        }
    }

    fn read(&self, runner: &mut Runner, key: &Digest, entry: &Entry) -> Vec<(Vec<Step>, Digest)> {
        let tokens = [&entry.prompt, &entry.answer[..self.tokens - 1]].concat();
        let paces = match self.feed {
            Feed::Chunks(size) => vec![size],
            Feed::Batch(copies) => (1..=copies).collect(),
            Feed::Whole | Feed::Service(_) => vec![tokens.len()],
        };
        let mut readers: Vec<Reader> = paces.iter().map(|_| Reader::new(key, entry)).collect();
        let new = |_| Kv::new(runner.model(), tokens.len());
        let mut caches: Vec<Kv> = paces.iter().map(new).collect();
        while caches[0].position() < tokens.len() {
            let mut items = Vec::new();
            for (sequence, (cache, pace)) in caches.iter().zip(&paces).enumerate() {
                let next = tokens.iter().enumerate().skip(cache.position()).take(*pace);
                items.extend(next.map(|(at, &token)| {
                    let logits = at + 1 >= entry.prompt.len();
                    Item { sequence, token, logits }
                }));
            }
            let mut kvs: Vec<&mut Kv> = caches.iter_mut().collect();
            let mut sink = |at: usize, output: Output<'_>| {
                let Item { sequence, token, .. } = items[at];
                readers[sequence].read(token, output);
            };
            runner.forward(&mut kvs, &items, &mut sink).expect("items that fit");
        }
        let roots = caches.iter().map(|cache| cache.kv_root(tokens.len()));
        readers.into_iter().map(|reader| reader.steps).zip(roots).collect()
    }
}

/// What one text's outputs become.
pub(crate) struct Reader {
    key: Digest,
    seed: Digest,
    sampling: Sampling,
    prompt: usize,
    history: History,
    adjusted: Vec<i64>,
    pub(crate) steps: Vec<Step>,
}

impl Reader {
    pub(crate) fn new(key: &Digest, entry: &Entry) -> Self {
        Self {
            key: *key,
            seed: entry.seed.parse().expect("a seed"),
            sampling: (&entry.sampling).into(),
            prompt: entry.prompt.len(),
            history: History::of_prompt(&entry.prompt),
            adjusted: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Takes the output at the next position, where `token` was read.
    pub(crate) fn read(&mut self, token: u32, output: Output<'_>) {
        let position = self.steps.len();
        if position >= self.prompt {
            self.history.push(token);
        }
        let drawing = output.logits.filter(|_| position + 1 >= self.prompt);
        let drawn = drawing.map(|logits| self.draw(position + 1 - self.prompt, logits));
        let (state, layers) = (state_digest(&self.key, output.state), output.layers);
        self.steps.push(Step { position: position as u32, token, state, layers, drawn });
    }

    fn draw(&mut self, step: usize, logits: &[i32]) -> DrawnStep {
        let draw = match self.sampling.temperature_q16 {
            0 => 0,
            _ => draw(self.seed.as_bytes(), step as u64),
        };
        adjust(logits, &self.sampling, &self.history, None, &mut self.adjusted);
        let next = choose_adjusted(&self.adjusted, &self.sampling, draw).expect("a token");
        let report = |top| logprobs::report(logits, next, top as usize);
        DrawnStep {
            logits: logits_digest(&self.key, logits),
            draw,
            next,
            logprobs: self.sampling.logprobs.map(report),
        }
    }
}

pub(crate) fn job(golden: &Golden, entry: &Entry, max_tokens: u32) -> Job {
    Job {
        key: golden.offer.parse().expect("the id of an offer"),
        seed: entry.seed.parse().expect("a seed"),
        prompt: entry.prompt.clone(),
        resume: vec![],
        sampling: (&entry.sampling).into(),
        max_tokens,
        stop: vec![],
        salt: entry.seed.parse().expect("a digest"),
    }
}

fn submit(service: &Service, job: Job) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel();
    let sink = move |event| match sender.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    service.submit(job, Box::new(sink)).expect("room for a job");
    receiver
}

fn steps(events: mpsc::Receiver<Event>) -> (Vec<Step>, Digest) {
    let (mut steps, mut root) = (Vec::new(), None);
    for event in events {
        match event {
            Event::Started => {}
            Event::Prompt { step } | Event::Token { step, .. } => steps.push(step),
            Event::Finished { stop, kv_root, .. } => {
                assert_eq!(stop, Stop::Length);
                root = Some(kv_root);
            }
            other => panic!("{other:?}"),
        }
    }
    (steps, root.expect("an end"))
}
