//! The golden prompts through the engine, in every way it can be fed.

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

use peerproof_engine::forward::{Item, Output, Runner};
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::model::Model;
use peerproof_engine::sample::{self, choose, draw};
use peerproof_engine::service::{Event, Generated, Job, Service, ServiceOptions};
use peerproof_proof::transcript::{leaf_hash, logits_digest, state_digest};
use peerproof_wire::{Digest, Drawn, Leaf, Stop};

use super::file::{self, Entry, Golden};

/// How prompt and answer reach the model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Feed {
    /// So many positions at a time.
    Chunks(usize),
    /// All positions in one batch.
    Whole,
    /// Through the service, so many answers at once.
    Service(usize),
}

/// One way to compute the first tokens of the first prompts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) feed: Feed,
    pub(crate) path: KernelPath,
    pub(crate) threads: usize,
    pub(crate) prompts: usize,
    pub(crate) tokens: usize,
}

impl Run {
    /// Panics where a leaf isn't the golden one.
    pub(crate) fn check(&self, model: &Arc<Model>, golden: &Golden) {
        let entries = &golden.prompts[..self.prompts.min(golden.prompts.len())];
        match self.feed {
            Feed::Service(batch) => self.serve(model, golden, entries, batch),
            Feed::Chunks(size) => self.force(model, golden, entries, size),
            Feed::Whole => self.force(model, golden, entries, usize::MAX),
        }
    }

    fn compare(&self, number: usize, entry: &Entry, leaves: &[Digest]) {
        assert_eq!(leaves.len(), entry.prompt.len() + self.tokens - 1);
        let (got, expected) = (file::short(leaves), &entry.leaves[..leaves.len() * 9 - 1]);
        let differs = got.split(' ').zip(expected.split(' ')).position(|(a, b)| a != b);
        assert_eq!(differs, None, "prompt {number}: first position that differs, {self:?}");
        if self.tokens == entry.answer.len() {
            assert_eq!(file::digest(leaves), entry.digest, "prompt {number}, {self:?}");
        }
    }

    fn serve(&self, model: &Arc<Model>, golden: &Golden, entries: &[Entry], batch: usize) {
        let options = ServiceOptions {
            threads: self.threads,
            path: self.path,
            max_active: batch,
            max_queued: entries.len(),
            ..Default::default()
        };
        let service = Service::start(Arc::clone(model), &options).unwrap();
        let jobs: Vec<_> = entries
            .iter()
            .map(|entry| submit(&service, job(golden, entry, self.tokens as u32)))
            .collect();
        for (number, (entry, events)) in entries.iter().zip(jobs).enumerate() {
            self.compare(number, entry, &leaves(events));
        }
    }

    fn force(&self, model: &Arc<Model>, golden: &Golden, entries: &[Entry], size: usize) {
        let transformer = model.transformer();
        let mut runner = Runner::new(Arc::clone(transformer), self.threads, self.path).unwrap();
        let key = golden.offer.parse().unwrap();
        for (number, entry) in entries.iter().enumerate() {
            let tokens = [&entry.prompt, &entry.answer[..self.tokens - 1]].concat();
            let mut kv = Kv::new(transformer, tokens.len());
            let mut leaves = Vec::new();
            for chunk in tokens.chunks(size.min(tokens.len())) {
                let first = leaves.len();
                let item = |(i, &token)| Item {
                    sequence: 0,
                    token,
                    logits: first + i + 1 >= entry.prompt.len(),
                };
                let items: Vec<Item> = chunk.iter().enumerate().map(item).collect();
                let mut sink = |at: usize, output: Output<'_>| {
                    leaves.push(leaf_hash(&leaf(&key, entry, first + at, chunk[at], output)));
                };
                runner.forward(&mut [&mut kv], &items, &mut sink).unwrap();
            }
            self.compare(number, entry, &leaves);
        }
    }
}

/// The leaf of one position, with the token that is drawn there.
pub(crate) fn leaf(
    key: &Digest,
    entry: &Entry,
    position: usize,
    token: u32,
    output: Output<'_>,
) -> Leaf {
    let seed: Digest = entry.seed.parse().unwrap();
    let drawn = output.logits.filter(|_| position + 1 >= entry.prompt.len()).map(|logits| {
        let step = position + 1 - entry.prompt.len();
        let sampling = sample::Sampling {
            temperature_q16: entry.sampling.temperature_q16,
            top_k: entry.sampling.top_k,
            top_p_q16: entry.sampling.top_p_q16,
            ..sample::Sampling::GREEDY
        };
        let draw = match sampling.temperature_q16 {
            0 => 0,
            _ => draw(seed.as_bytes(), step as u64),
        };
        let next = choose(logits, &sampling, draw);
        Drawn { logits: logits_digest(key, logits), draw, next }
    });
    let state = state_digest(key, output.state);
    Leaf { position: position as u32, token, state, drawn }
}

pub(crate) fn job(golden: &Golden, entry: &Entry, max_tokens: u32) -> Job {
    Job {
        key: golden.offer.parse().unwrap(),
        seed: entry.seed.parse().unwrap(),
        prompt: entry.prompt.clone(),
        resume: vec![],
        sampling: entry.sampling.into(),
        max_tokens,
        stop: vec![],
        salt: entry.seed.parse().unwrap(),
    }
}

fn submit(service: &Service, job: Job) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel();
    let sink = move |event| match sender.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    service.submit(job, Box::new(sink)).unwrap();
    receiver
}

fn leaves(events: mpsc::Receiver<Event>) -> Vec<Digest> {
    let mut leaves = Vec::new();
    for event in events {
        match event {
            Event::Started => {}
            Event::Prompt { step } | Event::Token { step, .. } => {
                leaves.push(leaf_hash(&step.into()));
            }
            Event::Finished { stop, .. } => assert_eq!(stop, Stop::Length),
            other => panic!("{other:?}"),
        }
    }
    leaves
}

/// The answer to a golden prompt, with its leaves.
pub(crate) fn generate(service: &Service, job: Job) -> (Generated, Vec<Digest>) {
    let answer = service.generate(job).unwrap();
    let leaves = answer.steps.iter().map(|step| leaf_hash(&step.clone().into())).collect();
    (answer, leaves)
}
