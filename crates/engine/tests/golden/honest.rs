//! Honest answers under full audits: providers and auditors that compute in different ways
//! never disagree, so nobody is ever accused wrongly.
//!
//! Each small file of `shapes.rs` (every family, every format, every rule of a header)
//! answers prompts that nobody has seen before, on one kernel path, with one number of
//! threads, a token at a time; its receipt is signed. An auditor recomputes it on
//! another path, with another number of threads and in pieces of another size, and
//! `proof::audit` compares every leaf. A step is one position that was compared. The
//! default run is short; the figure in `docs/benchmarks.md` is from
//!
//! ```text
//! PEERPROOF_HONEST_STEPS=1000000 cargo test -p peerproof-engine --test golden -- \
//!     honest --nocapture
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use peerproof_engine::forward::{ForwardError, Item, Output, Runner};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::kv::Kv;
use peerproof_engine::transformer::{LoadOptions, Transformer};
use peerproof_identity::Keypair;
use peerproof_proof::audit::audit;
use peerproof_proof::execute::Ending;
use peerproof_proof::receipt::{Answer, Place, build};
use peerproof_proof::{Execute, Step, Transcript, sampling_seed};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Case, Class, Digest, Level, ModelId, Offer, Outcome, Prompt, Sampling, Signed, Stop,
};

use super::file::Entry;
use super::runs::Reader;
use super::shapes;
use super::small::every_rule;

const PROMPT: u32 = 48;
const TOKENS: u32 = 80;
/// Steps of a run that nobody asked to be longer.
const STEPS: u64 = 12_000;

/// One way to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    path: KernelPath,
    threads: usize,
    /// Positions at a time.
    piece: usize,
}

/// Ways that take turns: every kernel path with one thread and with two, in pieces of all sizes.
fn ways() -> Vec<Way> {
    let pieces = [1, 7, 64, 200, 3, 33];
    let each = KernelPath::available().into_iter().flat_map(|path| [(path, 1), (path, 2)]);
    let ways = each.zip(pieces.into_iter().cycle());
    ways.map(|((path, threads), piece)| Way { path, threads, piece }).collect()
}

/// A small model that computes in one way.
struct Computer {
    model: Arc<Transformer>,
    id: ModelId,
    way: Way,
}

impl Computer {
    fn runner(&self) -> Runner {
        Runner::new(Arc::clone(&self.model), self.way.threads, self.way.path).expect("a runner")
    }

    /// Makes an answer, a token at a time.
    fn answer(&self, offer: &Signed<Offer>) -> (Vec<u32>, Vec<Step>, Digest) {
        let (mut reader, prompt) = read(offer, &offer.id(), &sampling_seed(offer));
        let (mut runner, mut next, mut answer) = (self.runner(), prompt.clone(), Vec::new());
        let mut kv = Kv::new(&self.model, (PROMPT + TOKENS) as usize);
        loop {
            for tokens in next.chunks(self.way.piece) {
                pass(&mut runner, &mut kv, &mut reader, tokens).expect("tokens that fit");
            }
            let drawn = reader.steps.last().and_then(|step| step.drawn.as_ref()).expect("a draw");
            answer.push(drawn.next);
            if answer.len() as u32 == offer.max_tokens {
                let root = kv.kv_root(kv.position());
                return (answer, reader.steps, root);
            }
            next = vec![drawn.next];
        }
    }
}

fn read(offer: &Offer, key: &Digest, seed: &Digest) -> (Reader, Vec<u32>) {
    let Prompt::Tokens(prompt) = &offer.prompt else { panic!("tokens were asked for") };
    let entry = Entry::asked(seed.to_string(), offer.sampling.clone(), prompt.clone());
    (Reader::new(key, &entry), prompt.clone())
}

fn pass(
    runner: &mut Runner,
    kv: &mut Kv,
    reader: &mut Reader,
    tokens: &[u32],
) -> Result<(), ForwardError> {
    let item = |&token| Item { sequence: 0, token, logits: true };
    let items: Vec<Item> = tokens.iter().map(item).collect();
    let mut sink = |at: usize, output: Output<'_>| reader.read(tokens[at], output);
    runner.forward(&mut [kv], &items, &mut sink)
}

impl Execute for Computer {
    type Error = ForwardError;

    fn model_id(&self) -> ModelId {
        self.id
    }

    fn vocabulary(&self) -> u32 {
        self.model.shape().vocabulary as u32
    }

    fn spelling(&self, _token: u32) -> &[u8] {
        &[]
    }

    fn prompt_tokens(&self, offer: &Offer) -> Result<Vec<u32>, ForwardError> {
        Ok(read(offer, &Digest::from_bytes([0; 32]), &Digest::from_bytes([0; 32])).1)
    }

    fn replay(
        &self,
        offer: &Offer,
        key: &Digest,
        seed: &Digest,
        prompt: &[u32],
        answer: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Digest, ForwardError> {
        let (mut reader, _) = read(offer, key, seed);
        let tokens = [prompt, &answer[..answer.len() - 1]].concat();
        let mut kv = Kv::new(&self.model, tokens.len());
        let mut runner = self.runner();
        for piece in tokens.chunks(self.way.piece) {
            pass(&mut runner, &mut kv, &mut reader, piece)?;
        }
        reader.steps.into_iter().for_each(on_step);
        Ok(kv.kv_root(tokens.len()))
    }

    fn embed(
        &self,
        _offer: &Offer,
        _key: &Digest,
        _prompt: &[u32],
        _on_step: &mut dyn FnMut(Step),
    ) -> Result<(Vec<u32>, Digest), ForwardError> {
        panic!("nobody asks for embeddings here")
    }

    fn ending(&self, _offer: &Offer, answer: &[u32]) -> Result<Ending, ForwardError> {
        let tokens = answer.len() as u32;
        Ok(Ending { text: String::new(), stop: Some(Stop::Length), tokens })
    }
}

/// A question that no other round asks.
fn offer(id: ModelId, vocabulary: u32, round: u64) -> Signed<Offer> {
    let hash = |at: u32| blake3::hash(format!("{id} {round} {at}").as_bytes());
    let token = |at| u32::from_le_bytes(*hash(at).as_bytes().first_chunk().expect("bytes"));
    let hot = Sampling { temperature_q16: 1 << 16, ..Sampling::GREEDY };
    let sampling = match round % 3 {
        0 => hot,
        1 => Sampling::GREEDY,
        _ => Sampling { logprobs: None, ..every_rule(20, (3, 1 << 17), (11, -(1 << 18))) },
    };
    let offer = Offer {
        model_id: id,
        prompt: Prompt::Tokens((0..PROMPT).map(|at| token(at) % vocabulary).collect()),
        sampling,
        max_tokens: TOKENS,
        stop: vec![],
        level: Level::Full,
        public_nonce: *hash(PROMPT).as_bytes(),
        client_nonce_hash: client_nonce_hash(&[7; 32]),
        deadline_ms: 60_000,
        pooling: None,
        class: Class::Exact,
    };
    Signed::sign(&Keypair::from_seed(&[3; 32]), offer).expect("an offer")
}

/// An honest answer with its receipt.
fn case(provider: &Computer, offer: Signed<Offer>) -> Case {
    let (tokens, steps, kv_root) = provider.answer(&offer);
    let mut transcript = Transcript::new();
    steps.into_iter().for_each(|step| transcript.push(&step.into()).expect("a leaf"));
    let tree = transcript.close(Stop::Length, TOKENS, "", &kv_root).expect("a tree");
    let answer = Answer { tokens: &tokens, text: "", logprobs: &[] };
    let receipt = build(&offer, answer, Stop::Length, (&tree, kv_root), Place::FIRST, 1);
    let receipt = Signed::sign(&Keypair::from_seed(&[4; 32]), receipt.expect("a receipt"));
    Case { offer, receipt: receipt.expect("a receipt"), tokens }
}

#[test]
fn honest_answers_are_never_accused() {
    let asked = std::env::var("PEERPROOF_HONEST_STEPS").ok();
    let wanted = asked.map_or(STEPS, |steps| steps.parse().expect("a number of steps"));
    let ways = ways();
    let files: Vec<_> = shapes::recipes()
        .into_iter()
        .map(|recipe| {
            let bytes = recipe.bytes();
            let id = ModelId::from_bytes(*blake3::hash(&bytes).as_bytes());
            let gguf = Gguf::parse(bytes).expect("a container");
            let model = Transformer::load(&gguf, &LoadOptions::default()).expect("a model");
            (recipe.name, Arc::new(model), id)
        })
        .collect();
    let auditor = Keypair::from_seed(&[5; 32]).public();
    let (mut steps, mut audits, mut accused) = (0, 0, Vec::new());
    let mut met: BTreeMap<(Way, Way), u64> = BTreeMap::new();
    for round in 0.. {
        for (at, (name, model, id)) in files.iter().enumerate() {
            if steps >= wanted {
                break;
            }
            // All pairs of ways come, for every file.
            let turn = round as usize + at;
            let (makes, checks) =
                (ways[turn % ways.len()], ways[(turn / ways.len() + turn + 1) % ways.len()]);
            let computer = |way| Computer { model: Arc::clone(model), id: *id, way };
            let vocabulary = model.shape().vocabulary as u32;
            let case = case(&computer(makes), offer(*id, vocabulary, round));
            let found = audit(&computer(checks), &case, None, &auditor).expect("an audit");
            if found.outcome != Outcome::Pass {
                accused.push(format!("{name}, {makes:?} by {checks:?}: {:?}", found.outcome));
            }
            steps += u64::from(case.receipt.leaves) - 1;
            audits += 1;
            *met.entry((makes, checks)).or_default() += 1;
        }
        if steps >= wanted {
            break;
        }
    }
    println!(
        "{steps} honest steps in {audits} answers of {} small models, {} ways of computing on \
         {} kernel paths, {} pairs of provider and auditor: {} false accusations",
        files.len(),
        ways.len(),
        KernelPath::available().len(),
        met.len(),
        accused.len()
    );
    assert!(accused.is_empty(), "{accused:#?}");
    assert!(met.keys().any(|(makes, checks)| makes != checks), "nobody computed otherwise");
}

/// The audit above would see one bit.
#[test]
fn an_answer_that_is_not_honest_is_accused() {
    let recipe = shapes::recipes().swap_remove(0);
    let bytes = recipe.bytes();
    let id = ModelId::from_bytes(*blake3::hash(&bytes).as_bytes());
    let gguf = Gguf::parse(bytes).expect("a container");
    let model = Arc::new(Transformer::load(&gguf, &LoadOptions::default()).expect("a model"));
    let computer = Computer { model, id, way: ways()[0] };
    let auditor = Keypair::from_seed(&[5; 32]).public();
    let mut case = case(&computer, offer(id, computer.vocabulary(), 1));
    assert_eq!(audit(&computer, &case, None, &auditor).expect("an audit").outcome, Outcome::Pass);
    let mut receipt = (*case.receipt).clone();
    receipt.transcript_root = Digest::from_bytes([9; 32]);
    case.receipt = Signed::sign(&Keypair::from_seed(&[4; 32]), receipt).expect("a receipt");
    let found = audit(&computer, &case, None, &auditor).expect("an audit");
    assert!(matches!(found.outcome, Outcome::Fail(_)));
}
