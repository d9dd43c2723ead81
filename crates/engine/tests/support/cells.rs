//! Answers with everything their provider needs to open cells, and checkers of parts of a file.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary includes this module and uses a part of it"
)]

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use peerproof_engine::execute::Replayer;
use peerproof_engine::model::Model;
use peerproof_engine::service::{Job, Service, ServiceOptions};
use peerproof_engine::spot::{Checker, expose};
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::Keypair;
use peerproof_proof::cells::{self, Exposure};
use peerproof_proof::receipt::{Answer, Place, build};
use peerproof_proof::{Step, Transcript, Tree, sampling_seed};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Case, Cell, CellOpening, Digest, Leaf, Level, Offer, Prompt, Sampling, Signed, Stop,
};

pub const NONCE: [u8; 32] = [5; 32];
pub const TOKENS: usize = 24;

/// An answer with everything its provider needs to open cells.
pub struct Served {
    pub case: Case,
    pub leaves: Vec<Leaf>,
    pub tree: Tree,
    pub exposure: Exposure,
}

pub fn offer(model: &Model, sampling: Sampling, prompt: &str) -> Signed<Offer> {
    let offer = Offer {
        model_id: model.id(),
        prompt: Prompt::Text(prompt.into()),
        sampling,
        max_tokens: TOKENS as u32,
        stop: vec![],
        level: Level::Full,
        public_nonce: [1; 32],
        client_nonce_hash: client_nonce_hash(&NONCE),
        deadline_ms: 60_000,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    };
    Signed::sign(&Keypair::from_seed(&[3; 32]), offer).expect("an offer")
}

pub fn answer(replayer: &Replayer, offer: &Signed<Offer>) -> Vec<u32> {
    let model = replayer.model();
    let service = Service::start(Arc::clone(model), &ServiceOptions::default()).expect("a service");
    let job = Job {
        key: offer.id(),
        seed: sampling_seed(offer),
        prompt: model.prompt_tokens(&offer.prompt).expect("a prompt"),
        resume: vec![],
        sampling: offer.sampling.clone(),
        max_tokens: offer.max_tokens,
        stop: vec![],
        salt: Digest::from_bytes([0; 32]),
    };
    service.generate(job).expect("an answer").tokens
}

pub fn serve(replayer: &Replayer, offer: &Signed<Offer>, tokens: &[u32], cells: &[Cell]) -> Served {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut take = |step: Step| leaves.push(step.into());
    let stop = AtomicBool::new(false);
    let exposure = expose(replayer, &stop, offer, tokens, cells, &mut take).expect("an exposure");
    commit(offer, tokens, leaves, exposure)
}

/// Signs whatever it is given.
pub fn commit(
    offer: &Signed<Offer>,
    tokens: &[u32],
    leaves: Vec<Leaf>,
    exposure: Exposure,
) -> Served {
    let mut transcript = Transcript::new();
    leaves.iter().for_each(|leaf| transcript.push(leaf).expect("a leaf"));
    let kv_root = cells::kv_root(&exposure.kv_layers);
    let tree =
        transcript.close(Stop::Length, tokens.len() as u32, "text", &kv_root).expect("a tree");
    let answer = Answer { tokens, text: "text", logprobs: &[] };
    let receipt =
        build(offer, answer, Stop::Length, (&tree, kv_root), Place::FIRST, 1).expect("a receipt");
    let receipt = Signed::sign(&Keypair::from_seed(&[4; 32]), receipt).expect("a receipt");
    let case = Case { offer: offer.clone(), receipt, tokens: tokens.to_vec() };
    Served { case, leaves, tree, exposure }
}

impl Served {
    pub fn open(&self, checker: &Checker, index: usize) -> CellOpening {
        let exposed = &self.exposure.exposed[index];
        cells::open(&self.tree, &self.leaves, &checker.dimensions(), &self.exposure, exposed)
            .expect("an opening")
    }

    pub fn layers(&self) -> u32 {
        self.exposure.kv_layers.len() as u32
    }
}

/// Stretches of a file.
pub fn parts_of(whole: &Path, ranges: &[Range<u64>]) -> Vec<(u64, Vec<u8>)> {
    let mut from = File::open(whole).expect("a model");
    let read = |range: &Range<u64>| {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        from.seek(SeekFrom::Start(range.start)).expect("a place");
        from.read_exact(&mut bytes).expect("bytes");
        (range.start, bytes)
    };
    ranges.iter().map(read).collect()
}

pub fn lent(parts: &[(u64, Vec<u8>)]) -> Vec<(u64, &[u8])> {
    parts.iter().map(|(start, bytes)| (*start, &bytes[..])).collect()
}

pub fn replayer(path: &Path) -> Replayer {
    let model = Model::open(path, &LoadOptions::default()).expect("a model");
    Replayer::new(Arc::clone(&model), 2).expect("kernels")
}

/// A checker that has the header, and what `layers` take.
pub fn checker(whole: &Path, id: peerproof_wire::ModelId, layers: &[u32]) -> Checker {
    let length = File::open(whole).and_then(|file| file.metadata()).expect("a model").len();
    let mut beginning = 1 << 12;
    let needed = loop {
        let parts = parts_of(whole, std::slice::from_ref(&(0..beginning)));
        match Checker::needed(length, &parts[0].1).expect("a header") {
            Some(needed) => break needed,
            None => beginning = (2 * beginning).min(length),
        }
    };
    assert!(needed[0].end <= beginning && beginning < length / 2);
    let checker = Checker::open(length, id, &lent(&parts_of(whole, &needed))).expect("a header");
    for layer in layers {
        let parts = parts_of(whole, &checker.ranges(*layer).expect("a layer"));
        checker.load(*layer, &lent(&parts)).expect("weights");
        assert!(checker.has(*layer));
    }
    checker
}
