//! A provider that computes otherwise and opens its own cells without a fault, against a
//! router that does not hold the model; and somebody who wants others' computing for nothing.

use std::sync::{Arc, OnceLock};

use peerproof::client::{AskError, JobSpec, Level, Preference, Prompt, Verification};
use peerproof::{Node, fraud};
use peerproof_engine::cheats::{Cheat, Cheater, Forged};
use peerproof_engine::model::Model;
use peerproof_engine::spot::dimensions;
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::Keypair;
use peerproof_net::{FrameLimits, Handle};
use peerproof_proof::receipt::{Answer, Place, build};
use peerproof_proof::{Transcript, Tree, cells};
use peerproof_wire::{
    CELLS_PROTOCOL, Case, Cell, CellsPart, CellsReply, CellsRequest, Digest, Message as _, Offer,
    Signed, Tokens,
};

use super::fake::{self, Fake, Honest, Move, deliver, delivered, tokens};
use super::router::knows;
use super::stage::{Provider, Router, model, random, runtime, settings};

/// Pretends to run the default model, with keys and values of 8 bits.
fn cheater() -> &'static (Arc<Model>, Cheater) {
    static CHEATER: OnceLock<(Arc<Model>, Cheater)> = OnceLock::new();
    CHEATER.get_or_init(|| {
        let file = std::fs::read(&model().path).unwrap();
        let opened = Model::open(&model().path, &LoadOptions::default()).unwrap();
        let cheater = Cheater::new(&file, Arc::clone(&opened), Cheat::CoarseCache);
        (opened, cheater.unwrap().unwrap())
    })
}

/// What the cheater commits to. It computes the same again whenever it is asked.
fn committed(offer: &Signed<Offer>) -> (Forged, Tree, Digest) {
    let forged = cheater().1.answer(offer).unwrap();
    let mut transcript = Transcript::new();
    forged.leaves.iter().for_each(|leaf| transcript.push(leaf).unwrap());
    let kv_root = cells::kv_root(&forged.exposure().kv_layers);
    let count = forged.tokens.len() as u32;
    let tree = transcript.close(forged.stop, count, &forged.text, &kv_root).unwrap();
    (forged, tree, kv_root)
}

fn answer(honest: Honest) -> Vec<Move> {
    let (forged, tree, kv_root) = committed(&honest.offer);
    let said = Answer { tokens: &forged.tokens, text: &forged.text, logprobs: &[] };
    let committed = (&tree, kv_root);
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

/// Opens whatever cells are asked for, as the cheater computed them.
fn open_cells(net: &Handle) {
    let mut asked = net.accept(CELLS_PROTOCOL, FrameLimits::default()).unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = asked.next().await {
            let Ok(Some(frame)) = stream.recv().await else { continue };
            let request = CellsRequest::decode(&frame).unwrap();
            let opened = tokio::task::spawn_blocking(move || openings(&request)).await.unwrap();
            for bytes in opened {
                let part = CellsReply::Part(CellsPart { left: 0, bytes });
                stream.send(&part.encode().unwrap()).await.unwrap();
            }
            let _ = stream.finish().await;
        }
    });
}

fn openings(request: &CellsRequest) -> Vec<Vec<u8>> {
    let (forged, tree, _) = committed(&request.case.offer);
    let (sizes, exposure) = (dimensions(cheater().0.transformer().shape()), forged.exposure());
    let open = |cell: &Cell| {
        let exposed = forged.exposed(*cell, 0);
        let opening = cells::open(&tree, &forged.leaves, &sizes, &exposure, &exposed);
        opening.unwrap().encode().unwrap()
    };
    request.cells.iter().map(open).collect()
}

#[test]
fn a_cell_that_does_not_follow_convicts_its_provider_by_a_file() {
    runtime().block_on(async {
        let liar = Fake::start(Arc::new(answer)).await;
        open_cells(&liar.net);
        // Who has the weights, since the liar shares none.
        let sharer = Provider::start().await;
        let home = tempfile::tempdir().unwrap();
        let settings = settings(&home, vec![liar.address().await, sharer.address()]);
        let evidence = settings.home.evidence();
        let router = Node::start(settings).await.unwrap();
        let preference = Preference { only: vec![liar.peer.to_string()], ..Preference::default() };
        let spec = JobSpec {
            max_tokens: Some(6),
            verification: Verification { level: Level::Spot, ..Verification::default() },
            preference,
            ..JobSpec::new(model().id.clone(), Prompt::Text("The capital of France is".into()))
        };
        let client = router.client();
        knows(&client, &[liar.peer.to_string(), sharer.peer().to_string()]).await;
        let asked = match client.ask(spec).await {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        let Err(AskError::Refused { provider, .. }) = asked else { panic!("{asked:?}") };
        assert_eq!(provider, liar.peer.to_string());
        // A node that stops waits for the proof.
        router.shutdown().await;
        let files = std::fs::read_dir(evidence).unwrap().map(|file| file.unwrap().path());
        let proofs: Vec<_> = files.filter(|path| fraud::is_one(path).unwrap()).collect();
        assert_eq!(proofs.len(), 1, "{proofs:?}");
        let judged = fraud::judge(&fraud::read(&proofs[0]).unwrap()).unwrap();
        assert!(judged.proven);
        assert_eq!(judged.accused, liar.peer.to_string());
        sharer.node.shutdown().await;
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
