//! A provider that computes otherwise and opens its own cells without a fault, against a
//! router that does not hold the model; and somebody who wants others' computing for nothing.

use std::sync::{Arc, Mutex, OnceLock};

use peerproof::client::{AskError, JobSpec, Level, Preference, Prompt, Verification};
use peerproof::home::{Environment, Home};
use peerproof::{Node, Settings, dispute, fraud};
use peerproof_engine::cheats::{Cheat, Cheater, Forged};
use peerproof_engine::dispute::Traced;
use peerproof_engine::model::Model;
use peerproof_engine::spot::dimensions;
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::Keypair;
use peerproof_net::{FrameLimits, Handle};
use peerproof_proof::ranges::{Builder, Group, Mode, RangeError, Slice};
use peerproof_proof::receipt::{Answer, Place, build};
use peerproof_proof::{Transcript, Tree, cells};
use peerproof_wire::{
    CELLS_PROTOCOL, Case, Cell, CellsPart, CellsReply, CellsRequest, DISPUTE_PROTOCOL, Digest,
    DisputeProof, DisputeReply, DisputeRequest, FraudProof, Message as _, Offer, RANGE_PROTOCOL,
    RangeReply, RangeRequest, RangeSlice, Signed, Tokens,
};

use super::fake::{self, Fake, Honest, Move, deliver, delivered, tokens};
use super::router::knows;
use super::stage::{PATIENCE, Provider, Router, model, random, runtime, settings};

/// Pretends to run the default model, with keys and values of 8 bits; or runs it.
fn cheater(cheats: bool) -> &'static (Arc<Model>, Cheater) {
    static CHEATERS: [OnceLock<(Arc<Model>, Cheater)>; 2] = [const { OnceLock::new() }; 2];
    CHEATERS[usize::from(cheats)].get_or_init(|| {
        let file = std::fs::read(&model().path).unwrap();
        let opened = Model::open(&model().path, &LoadOptions::default()).unwrap();
        let cheat = if cheats { Cheat::CoarseCache } else { Cheat::Honest };
        let cheater = Cheater::new(&file, Arc::clone(&opened), cheat);
        (opened, cheater.unwrap().unwrap())
    })
}

/// What a cheater commits to: its answer, the transcript, the root of keys and values.
type Committed = Arc<(Forged, Tree, Digest)>;

/// What the cheater commits to, computed once for each offer.
fn committed(cheats: bool, offer: &Signed<Offer>) -> Committed {
    static KEPT: Mutex<Vec<(bool, Digest, Committed)>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap();
    let known = kept.iter().find(|it| (it.0, it.1) == (cheats, offer.id()));
    if let Some((_, _, known)) = known {
        return Arc::clone(known);
    }
    let forged = cheater(cheats).1.answer(offer).unwrap();
    let mut transcript = Transcript::new();
    forged.leaves.iter().for_each(|leaf| transcript.push(leaf).unwrap());
    let kv_root = cells::kv_root(&forged.exposure().kv_layers);
    let count = forged.tokens.len() as u32;
    let tree = transcript.close(forged.stop, count, &forged.text, &kv_root).unwrap();
    let made = Arc::new((forged, tree, kv_root));
    kept.push((cheats, offer.id(), Arc::clone(&made)));
    made
}

fn answer(cheats: bool, honest: &Honest) -> Vec<Move> {
    let (forged, tree, kv_root) = &*committed(cheats, &honest.offer);
    let said = Answer { tokens: &forged.tokens, text: &forged.text, logprobs: &[] };
    let committed = (tree, *kv_root);
    let receipt =
        build(&honest.offer, said, forged.stop, committed, Place::FIRST, 1_700_000_000_000);
    let frame = Tokens {
        start: 0,
        tokens: forged.tokens.clone(),
        text: forged.text.clone(),
        commitment: None,
        logprobs: vec![],
    };
    vec![honest.accept(), tokens(frame), delivered(deliver(&honest.key, receipt.unwrap()))]
}

/// Opens whatever cells are asked for, as the cheater computed them, with products that it
/// computed or with others.
fn open_cells(net: &Handle, cheats: bool, products: bool) {
    let mut asked = net.accept(CELLS_PROTOCOL, FrameLimits::default()).unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = asked.next().await {
            let Ok(Some(frame)) = stream.recv().await else { continue };
            let request = CellsRequest::decode(&frame).unwrap();
            let opened = tokio::task::spawn_blocking(move || openings(&request, cheats, products));
            let opened = opened.await.unwrap();
            for bytes in opened {
                let part = CellsReply::Part(CellsPart { left: 0, bytes });
                stream.send(&part.encode().unwrap()).await.unwrap();
            }
            let _ = stream.finish().await;
        }
    });
}

/// Signs what happened within the cells it is accused of: what it was, from what it had
/// committed to.
fn take_disputes(liar: &Fake, cheats: bool) {
    let mut asked = liar.net.accept(DISPUTE_PROTOCOL, FrameLimits::default()).unwrap();
    let key = Arc::clone(&liar.key);
    tokio::spawn(async move {
        while let Some((_, mut stream)) = asked.next().await {
            let Ok(Some(frame)) = stream.recv().await else { continue };
            let DisputeRequest::Open(open) = DisputeRequest::decode(&frame).unwrap() else {
                panic!("a dispute begins with its case")
            };
            let key = Arc::clone(&key);
            let traced = tokio::task::spawn_blocking(move || {
                let (forged, _, _) = &*committed(cheats, &open.case.offer);
                let exposed = forged.exposed(open.cell, 0);
                let model = cheater(cheats).0.transformer();
                let trace = Traced::exposed(model, &exposed).unwrap();
                Signed::sign(&key, trace.statement(open.case.receipt.id())).unwrap()
            });
            let reply = DisputeReply::Trace(traced.await.unwrap());
            stream.send(&reply.encode().unwrap()).await.unwrap();
            let _ = stream.finish().await;
        }
    });
}

fn openings(request: &CellsRequest, cheats: bool, products: bool) -> Vec<Vec<u8>> {
    let (forged, tree, _) = &*committed(cheats, &request.case.offer);
    let (model, cheater) = cheater(cheats);
    let (sizes, exposure) = (dimensions(model.transformer().shape()), forged.exposure());
    let open = |cell: &Cell| {
        let exposed = forged.exposed(*cell, 0);
        let opening = cells::open(tree, &forged.leaves, &sizes, &exposure, &exposed);
        let mut opening = opening.unwrap();
        if request.products {
            let mut shown = cheater.products(&exposed).unwrap();
            shown[17] += i64::from(!products);
            opening.products = shown.iter().flat_map(|it| it.to_le_bytes()).collect();
        }
        opening.encode().unwrap()
    };
    request.cells.iter().map(open).collect()
}

/// Sends ranges of the true file to whoever asks.
fn share_weights(net: &Handle) {
    let file = Arc::new(std::fs::read(&model().path).unwrap());
    let mut builder = Builder::new(Mode::Plain, Group::KIB_16);
    builder.update(&file);
    let tree = Arc::new(builder.finish().unwrap());
    let mut asked = net.accept(RANGE_PROTOCOL, FrameLimits::default()).unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = asked.next().await {
            let (file, tree) = (Arc::clone(&file), Arc::clone(&tree));
            tokio::spawn(async move {
                while let Ok(Some(frame)) = stream.recv().await {
                    let request = RangeRequest::decode(&frame).unwrap();
                    let range = request.start..request.start + request.length;
                    let read = |at: u64, buffer: &mut [u8]| {
                        buffer.copy_from_slice(&file[at as usize..][..buffer.len()]);
                        Ok::<_, RangeError>(())
                    };
                    let Slice { bytes, hashes } = tree.open(range, read).unwrap();
                    let file_bytes = file.len() as u64;
                    let reply = RangeReply::Slice(RangeSlice { file_bytes, bytes, hashes });
                    if stream.send(&reply.encode().unwrap()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn a_cell_that_does_not_follow_convicts_its_provider_by_a_file() {
    convicted_by_a_file(Level::Spot, true, false);
}

/// What the router has verified is all that the proof takes.
#[test]
fn who_alone_holds_the_model_is_convicted_all_the_same() {
    convicted_by_a_file(Level::Spot, true, true);
}

#[test]
fn a_cell_that_does_not_follow_from_its_products_convicts_its_provider_by_a_file() {
    convicted_by_a_file(Level::Light, true, false);
}

/// The router can't show others why it refuses products; it judges the cell by its weights.
#[test]
fn products_that_are_refused_lead_to_the_cell_that_convicts() {
    convicted_by_a_file(Level::Light, false, false);
}

#[test]
fn products_of_another_matrix_are_refused_though_the_cell_holds() {
    let (reason, proofs, ..) = asked(Level::Light, (false, false), false);
    assert!(reason.contains("product shown of"), "{reason}");
    assert!(reason.contains("by its weights the cell holds"), "{reason}");
    assert!(proofs.is_empty());
    let (reason, proofs, ..) = asked(Level::Light, (false, true), false);
    assert_eq!((reason.as_str(), proofs.len()), ("", 0));
}

fn convicted_by_a_file(level: Level, products: bool, only_holder: bool) {
    let (reason, proofs, liar, disputes) = asked(level, (true, products), only_holder);
    assert!(!reason.is_empty());
    assert_eq!(proofs.len(), 1);
    let judged = fraud::judge(&proofs[0]).unwrap();
    assert!(judged.proven);
    assert_eq!(judged.accused, liar);
    // The liar signed what happened in the cell, and its row of keys and values is another.
    assert_eq!(disputes.len(), 1);
    let judged = dispute::judge(&disputes[0]).unwrap();
    assert!(judged.proven);
    assert_eq!(judged.accused, liar);
    assert!(judged.statement.contains("head\""), "{}", judged.statement);
}

/// Why an answer was refused, the proofs that are left, the provider, and what came of disputes.
type Left = (String, Vec<FraudProof>, String, Vec<DisputeProof>);

/// Asks one who `cheats` or not, and shows its `products` or others. Gives why the answer was
/// refused, if it was, and the proofs that are left; and the provider.
fn asked(level: Level, (cheats, products): (bool, bool), only_holder: bool) -> Left {
    // Nobody waits for it to be loaded.
    cheater(cheats);
    runtime().block_on(async {
        let liar = Fake::start(Arc::new(move |honest| answer(cheats, &honest))).await;
        open_cells(&liar.net, cheats, products);
        take_disputes(&liar, cheats);
        // Who has the weights: somebody else, or the liar alone.
        let sharer = match only_holder {
            true => None,
            false => Some(Provider::start().await),
        };
        if only_holder {
            share_weights(&liar.net);
        }
        let home = tempfile::tempdir().unwrap();
        let mut peers = vec![liar.address().await];
        peers.extend(sharer.as_ref().map(Provider::address));
        let mut settings = settings(&home, peers);
        // Nothing of the model is here.
        let cache = home.path().join("cache");
        settings.home = Home::find(Some(home.path()), Some(&cache), &Environment::read()).unwrap();
        let evidence = settings.home.evidence();
        let router = Node::start(settings).await.unwrap();
        let preference = Preference { only: vec![liar.peer.to_string()], ..Preference::default() };
        let spec = JobSpec {
            max_tokens: Some(6),
            verification: Verification { level, ..Verification::default() },
            preference,
            ..JobSpec::new(model().id.clone(), Prompt::Text("The capital of France is".into()))
        };
        let client = router.client();
        let mut known = vec![liar.peer.to_string()];
        known.extend(sharer.as_ref().map(|sharer| sharer.peer().to_string()));
        knows(&client, &known).await;
        let asked = match client.ask(spec).await {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        let reason = match asked {
            Ok(_) => String::new(),
            Err(AskError::Refused { provider, reason, .. }) => {
                assert_eq!(provider, liar.peer.to_string());
                reason
            }
            Err(error) => panic!("{error:?}"),
        };
        // A node that stops waits for the proof.
        router.shutdown().await;
        let files = std::fs::read_dir(evidence).into_iter().flatten();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        let disputes = files.iter().filter(|path| dispute::is_one(path).unwrap());
        let disputes = disputes.map(|path| dispute::read(path).unwrap()).collect();
        let proofs = files.iter().filter(|path| fraud::is_one(path).unwrap());
        let proofs = proofs.map(|path| fraud::read(path).unwrap()).collect();
        if let Some(sharer) = sharer {
            sharer.node.shutdown().await;
        }
        (reason, proofs, liar.peer.to_string(), disputes)
    })
}

/// Nobody has the weights but the provider, which keeps them to itself: the answer says that it
/// was not checked, and it counts against the provider.
#[test]
fn who_sends_no_ranges_of_its_model_is_not_believed() {
    cheater(false);
    runtime().block_on(async {
        let miser = Fake::start(Arc::new(|honest| answer(false, &honest))).await;
        open_cells(&miser.net, false, true);
        let home = tempfile::tempdir().unwrap();
        let mut settings = settings(&home, vec![miser.address().await]);
        let cache = home.path().join("cache");
        settings.home = Home::find(Some(home.path()), Some(&cache), &Environment::read()).unwrap();
        let router = Node::start(settings).await.unwrap();
        let spec = JobSpec {
            max_tokens: Some(4),
            verification: Verification { level: Level::Spot, ..Verification::default() },
            ..JobSpec::new(model().id.clone(), Prompt::Text("The capital of France is".into()))
        };
        let client = router.client();
        knows(&client, &[miser.peer.to_string()]).await;
        let (_, outcome) = client.ask(spec).await.unwrap().text().await.unwrap();
        let said = &outcome.verification.detail;
        assert!(said.starts_with("not audited: ") && said.contains("sends no ranges"), "{said}");
        let peers = client.peers().await;
        let known = peers.iter().find(|peer| peer.peer == miser.peer.to_string()).unwrap();
        assert_eq!((known.record.faults, known.barred.as_ref()), (1, None), "{known:?}");
        assert!(known.reputation < 500, "{known:?}");
        router.shutdown().await;
    });
}

/// The file goes from who found it to who holds nothing, and on from there.
#[test]
fn a_fraud_proof_travels_and_convicts_where_nobody_asked() {
    runtime().block_on(async {
        cheater(true);
        let liar = Fake::start(Arc::new(|honest| answer(true, &honest))).await;
        open_cells(&liar.net, true, true);
        let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        // Both are in a public role, so that others find them; the last one only routes.
        let public =
            |home, peers| Settings { audit: vec![model().clone()], ..settings(home, peers) };
        let finder = public(&homes[0], vec![liar.address().await]);
        let finder = Node::start(finder).await.unwrap();
        let second = public(&homes[1], vec![finder.status().addresses[0].clone()]);
        let second = Node::start(second).await.unwrap();
        let third = settings(&homes[2], vec![second.status().addresses[0].clone()]);
        let evidence = third.home.evidence();
        let third = Node::start(third).await.unwrap();

        let spec = JobSpec {
            max_tokens: Some(6),
            verification: Verification { level: Level::Spot, ..Verification::default() },
            preference: Preference { only: vec![liar.peer.to_string()], ..Preference::default() },
            ..JobSpec::new(model().id.clone(), Prompt::Text("The capital of France is".into()))
        };
        let client = finder.client();
        knows(&client, &[liar.peer.to_string()]).await;
        let asked = match client.ask(spec).await {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        assert!(matches!(asked, Err(AskError::Refused { .. })), "{asked:?}");
        for node in [&finder, &second, &third] {
            let since = std::time::Instant::now();
            while node.client().status().await.log.convicted == 0 {
                assert!(since.elapsed() < 4 * PATIENCE, "it does not arrive");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        let peers = third.client().peers().await;
        let barred = peers.iter().find(|peer| peer.peer == liar.peer.to_string()).unwrap();
        assert!(
            barred.barred.as_deref().is_some_and(|why| why.contains("fraud-proof")),
            "{barred:?}"
        );
        let files = std::fs::read_dir(&evidence).unwrap().map(|file| file.unwrap().path());
        let files: Vec<_> = files.collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let judged = fraud::judge_bytes(&fraud::read_bytes(&files[0]).unwrap()).unwrap();
        assert_eq!((judged.proven, judged.accused), (true, liar.peer.to_string()));
        third.shutdown().await;

        // What was convicted stays so after a restart, and is handed to who comes later.
        let third = Node::start(settings(&homes[2], vec![])).await.unwrap();
        assert_eq!(third.client().status().await.log.convicted, 1);
        third.shutdown().await;
        finder.shutdown().await;
        let late = tempfile::tempdir().unwrap();
        let late = settings(&late, vec![second.status().addresses[0].clone()]);
        let late = Node::start(late).await.unwrap();
        let since = std::time::Instant::now();
        while late.client().status().await.log.convicted == 0 {
            assert!(since.elapsed() < 4 * PATIENCE, "who comes later is not told");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        late.shutdown().await;
        second.shutdown().await;
    });
}

#[test]
fn nobody_opens_what_another_has_signed() {
    runtime().block_on(async {
        let provider = Provider::start().await;
        let stranger = Router::dial(&provider.address()).await;
        let offer = stranger.offer(|offer| offer.max_tokens = 2);
        let key = Arc::new(Keypair::from_seed(&random()));
        let made = fake::compute(&key, &offer, &[], offer.sampling.clone());
        let receipt = Signed::sign(&key, made.receipt).unwrap();
        let tokens = made.frames.iter().flat_map(|frame| frame.tokens.clone()).collect();
        let request = CellsRequest {
            products: false,
            case: Case { offer, receipt, tokens },
            client_nonce: [0; 32],
            cells: vec![Cell { position: 0, layer: 0 }],
        };
        let mut stream = stranger.stream_of(CELLS_PROTOCOL).await.unwrap();
        stream.send(&request.encode().unwrap()).await.unwrap();
        let frame = stream.recv().await.unwrap().unwrap();
        let CellsReply::Failure(failure) = CellsReply::decode(&frame).unwrap() else {
            panic!("cells of a stranger's answer were opened")
        };
        assert_eq!(failure.message, "only answers that this node has signed are opened");
        provider.is_sound("a stranger's answer").await;
        provider.node.shutdown().await;
    });
}
