//! Disputes about cells of real answers: every lie about an operation is convicted by it,
//! no honest trace is, and a proof stands or falls with each of its bytes.

#[path = "support/cells.rs"]
mod served;
mod support;

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use peerproof_engine::dispute::{
    Accuser, DisputeError, Lie, Next, Operation, Traced, TracedPart, verify,
};
use peerproof_engine::execute::Replayer;
use peerproof_engine::spot::Checker;
use peerproof_identity::Keypair;
use peerproof_proof::cells::{self, Exposure};
use peerproof_proof::logits_digest;
use peerproof_proof::ranges::{Builder, Group, Mode, Tree};
use peerproof_wire::{
    Cell, DisputeProof, Leaf, Message as _, Offer, RangeSlice, Sampling, Signed, Trace, TracePart,
    WeightRange,
};
use proptest::prelude::*;
use served::{Served, answer, checker, commit, offer, replayer, serve};

/// What the provider in these tests signs with.
fn key() -> Keypair {
    Keypair::from_seed(&[4; 32])
}

/// A model, an answer of it, and whoever checks it.
struct Stage {
    file: PathBuf,
    tree: Tree,
    replayer: Replayer,
    checker: Checker,
    offer: Signed<Offer>,
    served: Served,
}

impl Stage {
    fn new(file: PathBuf, prompt: &str, cells: &[Cell]) -> Self {
        let replayer = replayer(&file);
        let model = Arc::clone(replayer.model());
        let offer = offer(&model, Sampling::GREEDY, prompt);
        let tokens = answer(&replayer, &offer);
        let served = serve(&replayer, &offer, &tokens, cells);
        let layers: Vec<u32> = cells.iter().map(|cell| cell.layer).collect();
        let checker = checker(&file, model.id(), &layers);
        let mut builder = Builder::new(Mode::Plain, Group::KIB_16);
        builder.update(&std::fs::read(&file).expect("a model"));
        let tree = builder.finish().expect("a tree");
        Self { file, tree, replayer, checker, offer, served }
    }

    fn accuser(&self, served: &Served, index: usize) -> Accuser {
        let opening = served.open(&self.checker, index);
        self.checker.accuse(&served.case, &opening).expect("an accuser")
    }

    fn traced(&self, served: &Served, index: usize) -> Traced {
        let model = self.replayer.model().transformer();
        Traced::exposed(model, &served.exposure.exposed[index]).expect("a trace")
    }

    /// Stretches of the file, as peers open them.
    fn weights(&self, accuser: &Accuser, operation: Operation, index: u32) -> Vec<WeightRange> {
        let mut file = File::open(&self.file).expect("a model");
        let ranges = accuser.file_ranges(operation, index).expect("ranges");
        let open = |range: std::ops::Range<u64>| {
            let read = |at: u64, buffer: &mut [u8]| {
                file.seek(SeekFrom::Start(at)).expect("a place");
                file.read_exact(buffer).expect("bytes");
                Ok::<(), peerproof_proof::ranges::RangeError>(())
            };
            let slice = self.tree.open(range.clone(), read).expect("a slice");
            let file_bytes = self.tree.shape().length();
            let (start, length) = (range.start, range.end - range.start);
            let slice = RangeSlice { file_bytes, bytes: slice.bytes, hashes: slice.hashes };
            WeightRange { start, length, slice }
        };
        ranges.into_iter().map(open).collect()
    }
}

fn sign(trace: Trace) -> Signed<Trace> {
    Signed::sign(&key(), trace).expect("a trace")
}

type PartLie<'a> = &'a dyn Fn(&mut TracedPart);

/// What a dispute came to: the operation, which output, how often somebody asked.
struct Ended {
    accuser: Accuser,
    operation: Operation,
    index: u32,
    rounds: usize,
    bytes: usize,
}

/// Both sides, until the accuser can prove something.
fn dispute(
    stage: &Stage,
    served: &Served,
    index: usize,
    accused: &Traced,
    lie: PartLie<'_>,
) -> Result<Ended, DisputeError> {
    let id = served.case.receipt.id();
    let mut accuser = stage.accuser(served, index);
    let trace = accused.statement(id);
    let (mut rounds, mut bytes) = (1, trace.encode().expect("a trace").len());
    let mut next = accuser.trace(sign(trace))?;
    let mut part = None::<TracedPart>;
    loop {
        next = match next {
            Next::Prove(operation, index) => {
                return Ok(Ended { accuser, operation, index, rounds, bytes });
            }
            Next::Row(request) => {
                bytes += request.encode().expect("a request").len();
                let chunk = match &part {
                    Some(part) => part.chunk(&request),
                    None => accused.chunk(&stage.offer.id(), &request),
                };
                let chunk = chunk.expect("a difference");
                bytes += chunk.encode().expect("a chunk").len();
                accuser.chunk(chunk, request.row)?
            }
            Next::Part(wanted) => {
                let mut sums = accused.part(wanted).expect("a head");
                lie(&mut sums);
                let trace = sums.statement(accused, id);
                bytes += trace.encode().expect("a trace").len();
                part = Some(sums);
                accuser.part(sign(trace))?
            }
        };
        rounds += 1;
    }
}

/// Disputes a lie, and has its operation convicted.
fn convict(
    stage: &Stage,
    served: &Served,
    index: usize,
    accused: &Traced,
    lie: PartLie<'_>,
) -> DisputeProof {
    let ended = dispute(stage, served, index, accused, lie).expect("a dispute");
    let weights = stage.weights(&ended.accuser, ended.operation, ended.index);
    let proof = ended.accuser.prove(ended.operation, ended.index, &weights);
    let proof = proof.unwrap_or_else(|error| panic!("{:?}: {error}", ended.operation));
    let size = proof.encode().expect("a proof that fits").len();
    let begun = std::time::Instant::now();
    let verdict = verify(&proof).expect("a verdict");
    let took = begun.elapsed();
    println!(
        "{:<28} {} rounds {:>6} B in the dispute {size:>6} B in the proof {took:?}",
        verdict.operation.name(),
        ended.rounds,
        ended.bytes,
    );
    assert!(ended.rounds <= 4 && ended.bytes + size <= 64 << 10);
    assert_eq!((verdict.operation, verdict.index), (ended.operation, ended.index));
    if !accused_of_a_layer(&proof) && std::env::var_os("PEERPROOF_WRITE_VECTORS").is_some() {
        keep("committed", proof.operation as usize, &proof);
    }
    proof
}

/// Whether the operation's output stands in the trace of a layer, not in the receipt.
fn accused_of_a_layer(proof: &DisputeProof) -> bool {
    Lie::all().iter().any(|lie| lie.operation as u32 == proof.operation)
}

fn nothing(_: &mut TracedPart) {}

/// Every lie about one cell of a model is convicted by the operation it is about.
fn convict_all(stage: &Stage, index: usize) -> Vec<DisputeProof> {
    let honest = stage.traced(&stage.served, index);
    let mut proofs = Vec::new();
    for lie in Lie::all() {
        let mut accused = honest.clone();
        lie.tell(&mut accused);
        let of_head = |part: &mut TracedPart| lie.tell_of_head(part);
        let proof = convict(stage, &stage.served, index, &accused, &of_head);
        assert_eq!(Operation::of(proof.operation), Some(lie.operation), "{lie:?}");
        proofs.push(proof);
    }
    proofs
}

const CELLS: [Cell; 4] = [
    Cell { position: 20, layer: 7 },
    Cell { position: 20, layer: 0 },
    Cell { position: 20, layer: 29 },
    Cell { position: 20, layer: 30 },
];

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let prompt = "The capital of France is a city on a river, and the capital of England";
        Stage::new(support::real_model(), prompt, &CELLS)
    })
}

#[test]
fn every_lie_is_convicted_by_its_operation() {
    let proofs = convict_all(stage(), 0);
    convict_all(stage(), 2);
    // For implementations in other languages; `PEERPROOF_WRITE_VECTORS=1` writes them anew.
    if std::env::var_os("PEERPROOF_WRITE_VECTORS").is_some() {
        proofs.iter().enumerate().for_each(|(at, proof)| keep("layer", at, proof));
    }
}

/// Writes a proof beside those that other implementations check.
#[allow(clippy::disallowed_methods, reason = "a test writes its vectors")]
fn keep(name: &str, at: usize, proof: &DisputeProof) {
    let bytes = proof.encode().expect("a proof");
    let path = vectors().join(format!("{name}-{at:02}.proof"));
    std::fs::write(path, [b"peerproof dispute proof v1\n", &bytes[..]].concat()).expect("a file");
}

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/dispute")
}

/// The files that other implementations check, checked here: no model is needed.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test reads its vectors")]
fn the_vectors_convict() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(vectors()).expect("vectors") {
        let path = entry.expect("a file").path();
        if path.extension().is_none_or(|it| it != "proof") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let body = bytes.strip_prefix(b"peerproof dispute proof v1\n").expect("a first line");
        let proof = DisputeProof::decode(body).expect("a proof");
        seen.push(verify(&proof).unwrap_or_else(|error| panic!("{path:?}: {error}")).operation);
    }
    let missing: Vec<_> = Operation::ALL.iter().filter(|it| !seen.contains(it)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Norms of heads, norms behind products, another curve, windows, pages before the last.
#[test]
fn every_lie_is_convicted_in_a_model_of_another_family() {
    let cells = [Cell { position: 130, layer: 3 }];
    let stage = Stage::new(support::gemma(), &"All work and no play. ".repeat(22), &cells);
    convict_all(&stage, 0);
}

/// A lie in what was committed to, and none in the trace.
fn committed(
    index: usize,
    change: impl Fn(&mut [Leaf], &mut Exposure),
) -> (&'static Stage, Served, Traced) {
    let stage = stage();
    let (mut leaves, mut exposure) = (stage.served.leaves.clone(), stage.served.exposure.clone());
    change(&mut leaves, &mut exposure);
    let served = commit(&stage.offer, &stage.served.case.tokens, leaves, exposure);
    // Who lies about what came out traces what went in.
    let traced = stage.traced(&served, index);
    (stage, served, traced)
}

fn nudge_row(position: usize, at: usize) -> impl Fn(&mut [Leaf], &mut Exposure) {
    move |leaves, exposure| {
        for exposed in &mut exposure.exposed {
            exposed.entered[at] ^= 1;
            leaves[position].layers = cells::layers_digest(&exposed.entered);
        }
    }
}

#[test]
fn what_was_committed_to_is_an_operations_output_too() {
    use Operation as Op;
    let (stage, served, traced) = committed(0, nudge_row(20, 8 * 576 + 5));
    let proof = convict(stage, &served, 0, &traced, &nothing);
    assert_eq!(Operation::of(proof.operation), Some(Op::Leaving));
    let (stage, served, traced) = committed(1, nudge_row(20, 9));
    let proof = convict(stage, &served, 1, &traced, &nothing);
    assert_eq!(Operation::of(proof.operation), Some(Op::Embedding));
    for (at, operation) in [(20 * 780 + 4, Op::KeyHead), (20 * 780 + 130 + 129, Op::ValueHead)] {
        let (stage, served, traced) = committed(0, |leaves, exposure| {
            let exposed = &mut exposure.exposed[0];
            exposed.pages[0][at] ^= 1;
            exposed.page_digests[0] = cells::kv_page(&exposed.pages[0]);
            let positions = leaves.len() as u32;
            exposure.kv_layers[7] = cells::kv_layer(7, positions, &exposed.page_digests);
        });
        let proof = convict(stage, &served, 0, &traced, &nothing);
        assert_eq!(Operation::of(proof.operation), Some(operation));
    }
}

#[test]
fn lies_about_logits_and_states_are_convicted() {
    let stage = stage();
    let mut traced = stage.traced(&stage.served, 3);
    traced.misstate(0, 6);
    let proof = convict(stage, &stage.served, 3, &traced, &nothing);
    assert_eq!(Operation::of(proof.operation), Some(Operation::HeadNorm));
    // The logits that the leaf has are the liar's.
    let mut traced = stage.traced(&stage.served, 3);
    traced.misstate(1, 4 * 40_000);
    let logits = traced.logits();
    let (stage, served, _) = committed(3, |leaves, _| {
        let drawn = leaves[20].drawn.as_mut().expect("a draw");
        drawn.logits = logits_digest(&stage.offer.id(), &logits);
    });
    let proof = convict(stage, &served, 3, &traced, &nothing);
    assert_eq!(Operation::of(proof.operation), Some(Operation::Logit));
}

#[test]
fn an_honest_trace_leads_to_what_was_committed_to() {
    for index in 0..CELLS.len() {
        let honest = stage().traced(&stage().served, index);
        let ended = dispute(stage(), &stage().served, index, &honest, &nothing);
        assert!(matches!(ended, Err(DisputeError::Evaded(_))), "{index}");
    }
}

/// Whoever evades is not convicted here: the proof of the whole cell serves.
#[test]
fn a_false_layout_or_another_statement_leads_nowhere() {
    let stage = stage();
    let id = stage.served.case.receipt.id();
    let mut accused = stage.traced(&stage.served, 0);
    accused.misstate(7, 0);
    let honest = accused.statement(id);
    let changes: [fn(&mut Trace); 5] = [
        |it| it.layout.tensors[3].exponent += 1,
        |it| it.cell.position += 1,
        |it| it.receipt_id = peerproof_wire::Digest::from_bytes([1; 32]),
        |it| it.part = Some(TracePart { head: 0, dim: 0 }),
        |it| it.rows.truncate(14),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut trace = honest.clone();
        change(&mut trace);
        let mut accuser = stage.accuser(&stage.served, 0);
        assert!(accuser.trace(sign(trace)).is_err(), "{at}");
    }
    let other = Signed::sign(&Keypair::from_seed(&[9; 32]), honest).expect("a trace");
    assert!(stage.accuser(&stage.served, 0).trace(other).is_err());
}

/// An honest trace, with all of it shown: what any accuser could have.
fn honest_proofs() -> &'static Vec<(Operation, DisputeProof)> {
    static PROOFS: OnceLock<Vec<(Operation, DisputeProof)>> = OnceLock::new();
    PROOFS.get_or_init(|| {
        let stage = stage();
        let id = stage.served.case.receipt.id();
        let mut proofs = Vec::new();
        for (cell, operations) in [(0, 1..=23), (3, 24..=25), (1, 26..=26)] {
            let honest = stage.traced(&stage.served, cell);
            let mut accuser = stage.accuser(&stage.served, cell);
            let evaded = accuser.trace(sign(honest.statement(id)));
            assert!(evaded.is_err());
            for operation in operations.filter_map(Operation::of) {
                for index in [0, 1] {
                    if operation.is_of_part() {
                        let sums = honest.part(TracePart { head: 0, dim: index });
                        let sums = sums.expect("a head").statement(&honest, id);
                        let _ = accuser.part(sign(sums));
                    }
                    if accuser.file_ranges(operation, index).is_ok() {
                        let weights = stage.weights(&accuser, operation, index);
                        let proof = accuser.assemble(operation, index, &weights);
                        proofs.push((operation, proof.expect("a proof of nothing")));
                    }
                }
            }
        }
        proofs
    })
}

#[test]
fn every_operation_of_an_honest_trace_holds() {
    let proofs = honest_proofs();
    assert!(Operation::ALL.iter().all(|all| proofs.iter().any(|(it, _)| it == all)));
    for (operation, proof) in proofs {
        let judged = verify(proof);
        assert!(matches!(judged, Err(DisputeError::Holds { .. })), "{operation:?} {judged:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The accuser writes everything that the accused has not signed.
    #[test]
    fn no_tampering_turns_an_honest_trace_into_a_proof(
        which in 0_usize..1000,
        other in 0_usize..1000,
        at in 0_usize..1 << 16,
        bit in 0_u8..8,
        kind in 0..6,
        index in 0_u32..2000,
    ) {
        let proofs = honest_proofs();
        let (_, proof) = &proofs[which % proofs.len()];
        let (_, other) = &proofs[other % proofs.len()];
        let mut proof = proof.clone();
        match kind {
            0 => {
                let count = proof.stretches.len();
                let bytes = &mut proof.stretches[at % count].bytes;
                let place = at % bytes.len();
                bytes[place] ^= 1 << bit;
            }
            1 => proof.index = index,
            2 => proof.operation = index % 28,
            3 => proof.stretches.clone_from(&other.stretches),
            4 => proof.part.clone_from(&other.part),
            _ => {
                proof.trace.clone_from(&other.trace);
                proof.leaf.clone_from(&other.leaf);
                proof.path.clone_from(&other.path);
            }
        }
        prop_assert!(verify(&proof).is_err());
    }
}

#[test]
fn a_proof_stands_or_falls_with_each_of_its_bytes() {
    let mut accused = stage().traced(&stage().served, 0);
    accused.misstate(7, 1234);
    let sums = |it: &mut TracedPart| it.misstate(2, 8);
    let output = convict(stage(), &stage().served, 0, &accused, &nothing);
    let mut accused = stage().traced(&stage().served, 0);
    accused.misstate(5, 400);
    let blend = convict(stage(), &stage().served, 0, &accused, &sums);
    for proof in [output, blend] {
        let right = verify(&proof).expect("a verdict");
        let bytes = proof.encode().expect("a proof");
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << (at % 8);
            let Ok(altered) = DisputeProof::decode(&altered) else { continue };
            if let Ok(verdict) = verify(&altered) {
                assert_eq!(verdict, right, "byte {at}");
            }
        }
        for change in fields() {
            let mut altered = proof.clone();
            change(&mut altered);
            assert!(altered == proof || verify(&altered).is_err());
        }
    }
}

/// Every field, changed.
fn fields() -> Vec<fn(&mut DisputeProof)> {
    vec![
        |it| it.leaf.position += 1,
        |it| it.leaf.token += 1,
        |it| it.path.truncate(1),
        |it| it.operation += 1,
        |it| it.operation = 200,
        |it| it.index = u32::MAX,
        |it| it.kv_layers.push(it.receipt.kv_root),
        |it| it.kv_pages.push(it.receipt.kv_root),
        |it| drop(it.stretches.pop()),
        |it| it.stretches.push(it.stretches[0].clone()),
        |it| it.stretches.reverse(),
        |it| it.stretches[0].hashes.push(it.receipt.kv_root),
        |it| it.stretches[0].bytes.push(0),
        |it| it.part = if it.part.is_some() { None } else { Some(it.trace.clone()) },
    ]
}
