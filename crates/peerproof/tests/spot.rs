//! Spot audits over the network, by a router that does not hold the model, and the
//! fraud proof that convinces whoever holds nothing at all.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use peerproof::client::{
    AskError, CheckState, JobSpec, Level, Mode, Outcome, Prompt, Verification,
};
use peerproof::config::Config;
use peerproof::fraud::{self, FraudError};
use peerproof::home::{Environment, Home};
use peerproof::models::Store;
use peerproof::verify::{self, VerifyError};
use peerproof::{Node, Settings, papers};
use peerproof_engine::execute::Replayer;
use peerproof_engine::model::Model;
use peerproof_engine::spot::{Checker, expose};
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::Keypair;
use peerproof_net::{FrameLimits, Handle, NetConfig, Network};
use peerproof_proof::cells;
use peerproof_proof::ranges::{self, Group, Slice, open_bytes};
use peerproof_proof::receipt::{Answer, Place, build};
use peerproof_proof::{Execute as _, Transcript, sampling_seed};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Case, Cell, Digest, Evidence, FraudClaim, FraudProof, Leaf, Message as _, Offer,
    PROOF_PROTOCOL, RangeReply, RangeRequest, RangeSlice, Sampling, Signed, Stop, WeightRange,
};
use tempfile::TempDir;
use tokio::sync::Notify;

use support::model;

fn settings(home: &TempDir, peers: Vec<String>) -> Settings {
    let mut config = Config::default();
    config.network.loopback = true;
    config.network.mdns = false;
    config.network.peers = peers;
    config.provide.threads = 1;
    config.provide.kv_mib = 256;
    config.ask.hedge = false;
    let home = Home::find(Some(home.path()), None, &Environment::read()).unwrap();
    Settings::new(home, config)
}

/// Asks a provider of `only_layers` layers for an answer, without the model.
async fn ask(
    only_layers: Option<usize>,
    homes: &[TempDir; 2],
) -> Result<(String, Outcome), AskError> {
    let serve = vec![model().clone()];
    let provider = Settings { serve, only_layers, ..settings(&homes[0], vec![]) };
    let provider = Node::start(provider).await.unwrap();
    let peers = vec![provider.status().addresses[0].clone()];
    let router = Node::start(settings(&homes[1], peers)).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let question = JobSpec {
            max_tokens: Some(12),
            verification: Verification { level: Level::Spot, ..Verification::default() },
            ..JobSpec::new("smollm2-135m", Prompt::Text("The capital of France is".into()))
        };
        let answer = match router.client().ask(question).await {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        answers.push(answer);
    }
    router.shutdown().await;
    provider.shutdown().await;
    answers.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_without_the_model_recomputes_cells() {
    let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (text, outcome) = ask(None, &homes).await.unwrap();
    assert!(text.contains("Paris"), "{text}");
    let detail = &outcome.verification.detail;
    let positions = outcome.prompt_tokens + outcome.output_tokens - 1;
    let all = positions * 30 + outcome.output_tokens;
    assert_eq!(*detail, format!("spot audit: 8 of {all} cells recomputed, all hold"));
    assert!(!outcome.verification.audited, "some cells are not the answer");
}

/// A provider opens cells of two answers of one router at a time: it is asked again for the
/// others, and not blamed.
#[tokio::test(flavor = "multi_thread")]
async fn audits_at_once_wait_their_turn() {
    let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut provider = settings(&homes[0], vec![]);
    provider.serve = vec![model().clone()];
    let provider = Node::start(provider).await.unwrap();
    let peers = vec![provider.status().addresses[0].clone()];
    let router = Node::start(settings(&homes[1], peers)).await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..5 {
        let client = router.client();
        asking.spawn(async move {
            let question = JobSpec {
                max_tokens: Some(4),
                verification: Verification { level: Level::Spot, ..Verification::default() },
                ..JobSpec::new("smollm2-135m", Prompt::Text(format!("{number} and one is")))
            };
            client.ask(question).await?.text().await
        });
    }
    while let Some(answer) = asking.join_next().await {
        let (_, outcome) = answer.unwrap().unwrap();
        let detail = &outcome.verification.detail;
        assert!(detail.contains("cells recomputed, all hold"), "{detail}");
    }
    router.shutdown().await;
    provider.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_fewer_layers_cannot_open_its_cells() {
    let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    match ask(Some(28), &homes).await {
        Err(AskError::Refused { reason, .. }) => {
            assert!(reason.contains("cell") || reason.contains("layer"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_used_at_once_is_checked_all_the_same() {
    let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let serve = vec![model().clone()];
    let provider = Settings { serve, only_layers: Some(28), ..settings(&homes[0], vec![]) };
    let provider = Node::start(provider).await.unwrap();
    let peers = vec![provider.status().addresses[0].clone()];
    let router = Settings { hold: vec![model().clone()], ..settings(&homes[1], peers) };
    let router = Node::start(router).await.unwrap();
    let verification =
        Verification { level: Level::Full, mode: Mode::FraudProof, ..Verification::default() };
    let question = JobSpec {
        max_tokens: Some(8),
        verification,
        ..JobSpec::new("smollm2-135m", Prompt::Text("The capital of France is".into()))
    };
    let client = router.client();
    let (_, outcome) = client.ask(question.clone()).await.unwrap().text().await.unwrap();
    assert_eq!(outcome.verification.detail, "receipt checked; a full audit follows");
    assert_eq!((outcome.verification.level, outcome.verification.audited), (Level::Full, false));
    assert_eq!((outcome.verification.mode, outcome.verification.pending), (Mode::FraudProof, true));
    let check = client.later_check(&outcome.job_id, Duration::from_secs(60)).await.unwrap();
    assert_eq!((check.state, check.level), (CheckState::Refuted, Level::Full), "{check:?}");
    assert_eq!(check.provider, outcome.provider);
    let file = check.file.unwrap();
    assert!(
        verify::verify(Path::new(&file), &store(&homes[1]), None).unwrap().accused
            == check.provider
    );
    let papers = std::fs::read_dir(homes[1].path().join("papers")).unwrap().count();
    assert_eq!(papers, 0, "the evidence says more");
    assert!(client.later_check("another job", Duration::from_secs(60)).await.is_none());
    let refused = match client.ask(question).await {
        Ok(answer) => answer.text().await.map(|(text, _)| text),
        Err(error) => Err(error),
    };
    assert!(matches!(refused, Err(AskError::NoProvider { .. })), "{refused:?}");
    router.shutdown().await;
    provider.shutdown().await;
}

fn store(home: &TempDir) -> Store {
    Store::new(home.path().join("models"), "")
}

/// Has `bytes` for whoever asks for them by their hash; the hash, and when somebody has them.
fn hand_out(net: &Handle, bytes: Vec<u8>) -> (Digest, Arc<Notify>) {
    let mut builder = ranges::Builder::new(ranges::Mode::Plain, Group::KIB_16);
    builder.update(&bytes);
    let tree = builder.finish().unwrap();
    let root = tree.root();
    let mut asked = net.accept(PROOF_PROTOCOL, FrameLimits::default()).unwrap();
    let fetched = Arc::new(Notify::new());
    let told = Arc::clone(&fetched);
    tokio::spawn(async move {
        while let Some((_, mut stream)) = asked.next().await {
            while let Ok(Some(frame)) = stream.recv().await {
                let request = RangeRequest::decode(&frame).unwrap();
                let read = |at: u64, buffer: &mut [u8]| {
                    buffer.copy_from_slice(&bytes[at as usize..][..buffer.len()]);
                    Ok::<_, ranges::RangeError>(())
                };
                let range = request.start..request.start + request.length;
                let opened = tree.open(range, read).unwrap();
                let (file_bytes, hashes) = (bytes.len() as u64, opened.hashes);
                let slice = RangeSlice { file_bytes, bytes: opened.bytes, hashes };
                if stream.send(&RangeReply::Slice(slice).encode().unwrap()).await.is_err() {
                    break;
                }
            }
            told.notify_one();
        }
    });
    (root, fetched)
}

/// Peers that pass on claims of what is no proof, or of nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_believed_for_its_file_only_and_a_false_one_costs_who_passed_it_on() {
    let (guilty, innocent) = (forged(true), forged(false));
    let accused = guilty.case.receipt.key();
    let home = TempDir::new().unwrap();
    let node = Settings { audit: vec![model().clone()], ..settings(&home, vec![]) };
    let node = Node::start(node).await.unwrap();
    let address = node.status().addresses[0].clone();
    let log = || async { node.client().status().await.log };
    let junk = vec![7; 100_000];
    let slander = fraud::to_bytes(&innocent).unwrap();
    let proof = fraud::to_bytes(&guilty).unwrap();
    let other = Keypair::from_seed(&[88; 32]).public();
    // Who is accused, of what, whether the file is handed out, and what the log has after that:
    // the false accuser, and who is convicted.
    let cases: [(_, &[u8], bool, u64); 5] = [
        (accused, &proof, false, 0),
        (accused, &junk, true, 0),
        (other, &proof, true, 0),
        (accused, &slander, true, 1),
        (accused, &proof, true, 2),
    ];
    for (number, (accused, bytes, handed_out, entries)) in cases.into_iter().enumerate() {
        let key = Keypair::from_seed(&[90 + number as u8; 32]);
        let (net, _) = Network::start(&key, NetConfig::loopback()).await.unwrap();
        let file = Digest::from_bytes(*blake3::hash(bytes).as_bytes());
        let handed_out = handed_out.then(|| hand_out(&net, bytes.to_vec()));
        net.dial(address.parse().unwrap()).await.unwrap();
        let gossip = net.gossip().await.unwrap();
        let claim = FraudClaim { accused, job: file, file, bytes: bytes.len() as u64 };
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        while !gossip.publish(Evidence::Fraud(claim).encode().unwrap()).await.unwrap() {
            assert!(tokio::time::Instant::now() < until, "nobody listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some((root, fetched)) = handed_out {
            assert_eq!(root, file);
            tokio::time::timeout_at(until, fetched.notified()).await.expect("it is fetched");
        }
        while node.client().status().await.log_entries < entries {
            assert!(tokio::time::Instant::now() < until, "case {number} is not noted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if number < 4 {
            assert_eq!(log().await.convicted, 0, "case {number}");
            net.shutdown().await;
            continue;
        }
        while log().await.convicted == 0 {
            assert!(tokio::time::Instant::now() < until, "a true proof is not taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        net.shutdown().await;
    }
    let barred: Vec<_> =
        node.client().peers().await.into_iter().filter(|peer| peer.barred.is_some()).collect();
    assert_eq!(barred.len(), 1, "{barred:?}");
    assert_eq!(barred[0].peer, accused.peer_id().to_string());
    node.shutdown().await;
}

/// What is left of an answer whose check was cut off is judged by whoever has the model.
#[test]
fn papers_of_an_answer_are_judged_later() {
    let folder = TempDir::new().unwrap();
    let (empty, model) = (store(&folder), model());
    for lie in [false, true] {
        let case = forged(lie).case;
        let path = papers::write(folder.path(), &case).unwrap();
        let (judged, evidence) = verify::answer(&path, &empty, Some(model)).unwrap().unwrap();
        assert_eq!((judged.holds, evidence.is_some()), (Some(!lie), lie), "{judged:?}");
        assert_eq!(judged.provider, case.receipt.key().peer_id().to_string());
        let (unseen, evidence) = verify::answer(&path, &empty, None).unwrap().unwrap();
        assert_eq!((unseen.holds, evidence), (None, None), "nothing was recomputed");
        // Tokens of another answer don't belong to the receipt; a changed byte breaks a signature.
        let mut other = case.clone();
        other.tokens[0] ^= 1;
        let other = papers::write(folder.path(), &other).unwrap();
        assert!(matches!(verify::answer(&other, &empty, None), Err(VerifyError::Answer { .. })));
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (papers::MAGIC.len()..bytes.len()).step_by(41) {
            bytes[at] ^= 4;
            std::fs::write(&other, &bytes).unwrap();
            assert!(verify::answer(&other, &empty, None).is_err(), "byte {at}");
            bytes[at] ^= 4;
        }
        std::fs::write(&other, b"something else").unwrap();
        assert!(verify::answer(&other, &empty, None).unwrap().is_none());
    }
}

/// What of the file shows the cell, but for `hole`.
fn weights(checker: &Checker, file: &[u8], hole: &Range<u64>) -> Vec<WeightRange> {
    let length = file.len() as u64;
    let around = |range: Range<u64>| match range.start <= hole.start && hole.end <= range.end {
        true => [range.start..hole.start, hole.end..range.end],
        false => [range, 0..0],
    };
    let ranges = checker.evidence_ranges(11).unwrap().into_iter().flat_map(around);
    let weights = ranges.filter(|range| !range.is_empty()).flat_map(|range| {
        let pieces = (range.start..range.end).step_by(500_000);
        pieces.map(move |start| (start, range.end.min(start + 500_000) - start))
    });
    let opened = weights.map(|(start, bytes)| {
        let opened =
            open_bytes(ranges::Mode::Plain, file, Group::KIB_16, start..start + bytes).unwrap();
        let Slice { bytes: data, hashes } = opened;
        WeightRange {
            start,
            length: bytes,
            slice: RangeSlice { file_bytes: length, bytes: data, hashes },
        }
    });
    opened.collect()
}

/// An answer whose provider committed to a wrong row of keys in one cell, and the file
/// that shows it.
fn forged(lie: bool) -> FraudProof {
    forged_without(lie, |_| 0..0)
}

/// As [`forged`], less the groups of the file's header within `hole`.
fn forged_without(lie: bool, hole: fn(&[u8]) -> Range<u64>) -> FraudProof {
    let file = std::fs::read(&model().path).unwrap();
    let opened = Model::open(&model().path, &LoadOptions::default()).unwrap();
    let replayer = Replayer::new(Arc::clone(&opened), 2).unwrap();
    let offer = Offer {
        model_id: opened.id(),
        prompt: peerproof_wire::Prompt::Text("The capital of France is".into()),
        sampling: Sampling::GREEDY,
        max_tokens: 4,
        stop: vec![],
        level: peerproof_wire::Level::Spot,
        public_nonce: [1; 32],
        client_nonce_hash: client_nonce_hash(&[2; 32]),
        deadline_ms: 60_000,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    };
    let offer = Signed::sign(&Keypair::from_seed(&[3; 32]), offer).unwrap();
    let prompt = replayer.prompt_tokens(&offer).unwrap();
    let (mut tokens, seed) = (Vec::new(), sampling_seed(&offer));
    while tokens.len() < 4 {
        let mut next = None;
        let mut take = |step: peerproof_proof::Step| next = step.drawn.map(|drawn| drawn.next);
        let claimed = [&tokens[..], &[0]].concat();
        replayer.replay(&offer, &offer.id(), &seed, &prompt, &claimed, &mut take).unwrap();
        tokens.push(next.unwrap());
    }
    let ending = replayer.ending(&offer, &tokens).unwrap();
    let text = ending.text.as_str();
    let cell = Cell { position: 3, layer: 11 };
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut take = |step: peerproof_proof::Step| leaves.push(step.into());
    let stop = AtomicBool::new(false);
    let mut exposure = expose(&replayer, &stop, &offer, &tokens, &[cell], &mut take).unwrap();
    if lie {
        let exposed = &mut exposure.exposed[0];
        exposed.pages[0][3 * 780] ^= 1;
        exposed.page_digests[0] = cells::kv_page(&exposed.pages[0]);
        exposure.kv_layers[11] = cells::kv_layer(11, leaves.len() as u32, &exposed.page_digests);
    }
    let mut transcript = Transcript::new();
    leaves.iter().for_each(|leaf| transcript.push(leaf).unwrap());
    let kv_root = cells::kv_root(&exposure.kv_layers);
    let tree = transcript.close(Stop::Length, 4, text, &kv_root).unwrap();
    let answer = Answer { tokens: &tokens, text, logprobs: &[] };
    let receipt = build(&offer, answer, Stop::Length, (&tree, kv_root), Place::FIRST, 1).unwrap();
    let receipt = Signed::sign(&Keypair::from_seed(&[4; 32]), receipt).unwrap();
    let length = file.len() as u64;
    let needed = Checker::needed(length, &file[..8 << 20]).unwrap().unwrap();
    let header: Vec<(u64, &[u8])> = needed
        .iter()
        .map(|range| (range.start, &file[range.start as usize..range.end as usize]))
        .collect();
    let checker = Checker::open(length, opened.id(), &header).unwrap();
    let dimensions = checker.dimensions();
    let opening =
        cells::open(&tree, &leaves, &dimensions, &exposure, &exposure.exposed[0]).unwrap();
    let weights = weights(&checker, &file, &hole(&file));
    let case = Case { offer, receipt, tokens };
    FraudProof { case, opening, weights }
}

#[test]
fn a_fraud_proof_convicts_before_who_holds_nothing() {
    let proof = forged(true);
    let dir = TempDir::new().unwrap();
    let path = fraud::write(dir.path(), &proof).unwrap();
    assert!(fraud::is_one(&path).unwrap());
    let judged = fraud::judge(&fraud::read(&path).unwrap()).unwrap();
    assert!(judged.proven);
    assert_eq!(judged.accused, Keypair::from_seed(&[4; 32]).public().peer_id().to_string());
    assert!(judged.statement.contains("keys and values"), "{}", judged.statement);

    // Every part of it is bound: bytes in signatures, opening and weights.
    let bytes = proof.encode().unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let judged =
            FraudProof::decode(&altered).map_err(FraudError::from).and_then(|it| fraud::judge(&it));
        assert!(judged.is_err(), "byte {at} of {}", bytes.len());
    }
    let without = FraudProof { weights: proof.weights[..2].to_vec(), ..proof.clone() };
    assert!(fraud::judge(&without).is_err());
    let mut longer = proof.clone();
    longer.weights[1].slice.file_bytes += 1;
    assert!(matches!(fraud::judge(&longer), Err(FraudError::Length { .. })));
    let mut other = proof;
    other.opening.path[0] = Digest::from_bytes([0; 32]);
    assert!(matches!(fraud::judge(&other), Err(FraudError::Cell(_))));
}

#[test]
fn a_false_accusation_is_as_evident() {
    let error = fraud::judge(&forged(false)).unwrap_err();
    assert!(matches!(error, FraudError::Holds { position: 3, layer: 11 }), "{error}");
}

/// The kinds of a tokenizer's tokens, less a group at either end: numbers that may as well all
/// be 0, for all that whoever reads the header can tell.
fn kinds_of_tokens(file: &[u8]) -> Range<u64> {
    let key = b"tokenizer.ggml.token_type";
    let at = file.windows(key.len()).position(|it| it == key).unwrap() + key.len();
    let count = u64::from_le_bytes(file[at + 8..at + 16].try_into().unwrap());
    let (start, end) = (at as u64 + 16, at as u64 + 16 + 4 * count);
    let group = Group::KIB_16.bytes();
    start.next_multiple_of(group)..end / group * group
}

#[test]
fn an_accusation_by_half_a_header_proves_nothing() {
    let proof = forged_without(false, kinds_of_tokens);
    let error = fraud::judge(&proof).unwrap_err();
    assert!(matches!(error, FraudError::Missing { .. }), "{error}");
}
