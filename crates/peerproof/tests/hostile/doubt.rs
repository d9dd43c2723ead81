//! Auditors that are drawn and lie, accusations that fall, and the user's own decisions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peerproof::client::{AnswerEvent, AskError, JobSpec, Level, Outcome, PeerStatus, Prompt};
use peerproof::models::Store;
use peerproof::reputation::{self, Book, Record};
use peerproof::{Client, Node, Settings};
use peerproof_identity::Keypair;
use peerproof_net::{FrameLimits, Handle, NetConfig, Network};
use peerproof_proof::lottery::Ticket;
use peerproof_wire::evidence::{Evidence, LogBody};
use peerproof_wire::{
    AUDIT_PROTOCOL, AuditReply, AuditRequest, Case, Difference, Digest, Message as _, Mismatch,
    Outcome as Found, Receipt, Signed, Verdict, VrfDraw, WrongAnswer,
};
use tempfile::TempDir;

use super::auditor::{honest, invented};
use super::fake::{announce, compute};
use super::router::knows;
use super::stage::{PATIENCE, model, plain_offer, random, runtime, settings};

/// How a made-up auditor plays.
#[derive(Clone, Copy)]
struct Play {
    outcome: fn() -> Found,
    /// Draws with a key that it did not announce.
    other_key: bool,
    /// Shows one draw and signs without any.
    forgets_draw: bool,
}

const LAZY: Play = Play { outcome: || Found::Pass, other_key: false, forgets_draw: false };
const SPITEFUL: Play = Play { outcome: fault, ..LAZY };

fn fault() -> Found {
    let (expected, got) = (vec![1, 0, 0, 0], vec![2, 0, 0, 0]);
    Found::Fail(Mismatch { position: 5, what: Difference::Token, expected, got })
}

struct Auditor {
    net: Handle,
    address: String,
}

impl Auditor {
    async fn start(play: Play) -> Auditor {
        let key = Arc::new(Keypair::from_seed(&random()));
        let (net, _) = Network::start(&key, NetConfig::loopback()).await.expect("a network");
        announce(&net, &key, false, true);
        let mut requests = net.accept(AUDIT_PROTOCOL, FrameLimits::default()).expect("a protocol");
        tokio::spawn(async move {
            while let Some((_, mut stream)) = requests.next().await {
                let Ok(Some(frame)) = stream.recv().await else { continue };
                let request = AuditRequest::decode(&frame).expect("a request");
                let reply = answer(&key, play, request).encode().expect("a reply");
                let _ = stream.send(&reply).await;
                let _ = stream.finish().await;
            }
        });
        let addresses = net.listen_addresses().await.expect("addresses");
        let address = addresses[0].with_peer(net.local_peer()).to_string();
        Auditor { net, address }
    }

    fn peer(&self) -> String {
        self.net.local_peer().to_string()
    }
}

fn answer(key: &Keypair, play: Play, request: AuditRequest) -> AuditReply {
    let other = Keypair::from_seed(&[99; 32]);
    let vrf = if play.other_key { other.vrf() } else { key.vrf() };
    let drawn = |root: &Digest, offer: &Digest| {
        let ticket = Ticket::draw_over(&vrf, root, offer).expect("a draw");
        VrfDraw { key: *ticket.key(), proof: *ticket.proof() }
    };
    match request {
        AuditRequest::Draw(over) => AuditReply::Draw(drawn(&over.transcript_root, &over.offer_id)),
        AuditRequest::Tested(_) => panic!("nobody answers in that class"),
        AuditRequest::Case(case) => {
            let receipt = &case.receipt;
            let draw = drawn(&receipt.transcript_root, &receipt.offer_id);
            let draw = (!play.forgets_draw).then_some(draw);
            let verdict = Verdict { draw, ..invented(&case, (play.outcome)()) };
            AuditReply::Verdict(Signed::sign(key, verdict).expect("a verdict"))
        }
    }
}

struct Asker {
    node: Node,
    home: TempDir,
}

impl Asker {
    /// A router without the model, that knows the honest provider and these auditors.
    async fn start(auditors: &[&Auditor], change: impl FnOnce(&mut Settings)) -> Asker {
        let honest = honest().await;
        let home = tempfile::tempdir().expect("a folder");
        let mut peers = vec![honest.address()];
        peers.extend(auditors.iter().map(|auditor| auditor.address.clone()));
        let mut settings = settings(&home, peers);
        settings.config.reputation.plant_per_mille = 0;
        change(&mut settings);
        let node = Node::start(settings).await.expect("a node");
        let mut known: Vec<String> = auditors.iter().map(|auditor| auditor.peer()).collect();
        known.push(honest.peer().to_string());
        knows(&node.client(), &known).await;
        Asker { node, home }
    }

    fn client(&self) -> Client {
        self.node.client()
    }

    async fn ask(&self) -> Result<(String, Outcome), AskError> {
        let mut spec = JobSpec::new(&model().id, Prompt::Text("The capital of France is".into()));
        spec.verification.level = Level::Full;
        spec.max_tokens = Some(4);
        let answer = self.client().ask(spec).await?;
        tokio::time::timeout(PATIENCE, answer.text()).await.expect("it hangs")
    }

    async fn record(&self, peer: &str) -> Record {
        let known = self.client().peers().await;
        let found = known.into_iter().find(|known: &PeerStatus| known.peer == peer);
        found.map(|known| known.record).unwrap_or_default()
    }

    /// Waits until a peer's record is as it should be.
    async fn until(&self, peer: &str, what: &str, is: impl Fn(&Record) -> bool) {
        let since = Instant::now();
        while !is(&self.record(peer).await) {
            let record = self.record(peer).await;
            assert!(since.elapsed() < PATIENCE, "never {what}: {record:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) -> TempDir {
        self.node.shutdown().await;
        self.home
    }
}

fn evidence_files(home: &TempDir, ending: &str) -> Vec<std::path::PathBuf> {
    let Ok(files) = std::fs::read_dir(home.path().join("evidence")) else { return vec![] };
    let paths = files.map(|file| file.expect("a file").path());
    paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

#[test]
fn a_lazy_auditor_is_found_out_by_a_planted_receipt() {
    runtime().block_on(async {
        let lazy = Auditor::start(LAZY).await;
        let asker = Asker::start(&[&lazy], |settings| {
            settings.config.reputation.plant_per_mille = 1000;
            settings.config.reputation.plant_delay_ms = 0;
        })
        .await;
        let (_, outcome) = asker.ask().await.expect("an answer");
        assert!(outcome.verification.audited, "its word was taken once");
        asker.until(&lazy.peer(), "found out", |record| record.auditor_barred.is_some()).await;
        let (_, outcome) = asker.ask().await.expect("an answer");
        assert!(!outcome.verification.audited, "{:?}", outcome.verification);
        let home = asker.end().await;
        // Anyone who holds the model can see it.
        let files = evidence_files(&home, "-false-verdict.evidence");
        let store = Store::new(home.path().join("models"), "https://models.example");
        let judged = peerproof::verify::verify(&files[0], &store, Some(model())).expect("a file");
        assert_eq!((judged.accused, judged.kind), (lazy.peer(), "false verdict"));
        assert!(judged.proven && judged.recomputed, "{}", judged.statement);
        lazy.net.shutdown().await;
    });
}

#[test]
fn one_auditor_alone_bars_nobody() {
    runtime().block_on(async {
        let spiteful = Auditor::start(SPITEFUL).await;
        let asker = Asker::start(&[&spiteful], |_| {}).await;
        match asker.ask().await {
            Err(AskError::Refused { reason, evidence, .. }) => {
                assert!(reason.contains("nobody is barred"), "{reason}");
                assert!(!evidence.is_empty());
            }
            other => panic!("an accused answer must not be used: {other:?}"),
        }
        let provider = honest().await.peer().to_string();
        let record = asker.record(&provider).await;
        assert!(record.barred.is_none() && record.score > 400, "{record:?}");
        // The accusation is kept; whoever holds the model sees that it is false.
        let home = asker.end().await;
        let files = evidence_files(&home, "-wrong-answer.evidence");
        let store = Store::new(home.path().join("models"), "https://models.example");
        let judged = peerproof::verify::verify(&files[0], &store, Some(model()));
        let refused = judged.expect_err("it accuses falsely").to_string();
        assert!(refused.contains("false accusation"), "{refused}");
        spiteful.net.shutdown().await;
    });
}

#[test]
fn an_auditor_that_was_not_drawn_is_not_heard() {
    runtime().block_on(async {
        for play in [
            Play { other_key: true, ..LAZY },
            Play { forgets_draw: true, ..LAZY },
            Play { forgets_draw: true, ..SPITEFUL },
        ] {
            let undrawn = Auditor::start(play).await;
            let asker = Asker::start(&[&undrawn], |_| {}).await;
            let (_, outcome) = asker.ask().await.expect("an answer");
            assert!(!outcome.verification.audited, "{:?}", outcome.verification);
            let detail = &outcome.verification.detail;
            assert!(detail.contains("draw") || detail.contains("drew"), "{detail}");
            let record = asker.record(&undrawn.peer()).await;
            assert!(record.auditor_barred.is_some(), "{record:?}");
            asker.end().await;
            undrawn.net.shutdown().await;
        }
    });
}

#[test]
fn two_auditors_that_disagree_settle_nothing_and_both_are_noted() {
    runtime().block_on(async {
        let (lazy, spiteful) = (Auditor::start(LAZY).await, Auditor::start(SPITEFUL).await);
        let asker = Asker::start(&[&lazy, &spiteful], |_| {}).await;
        // Whoever draws less is asked first; a "passed" needs no second word.
        let mut disagreed = false;
        for _ in 0..24 {
            let (_, outcome) = asker.ask().await.expect("an answer");
            if !outcome.verification.audited {
                let detail = &outcome.verification.detail;
                assert!(detail.contains("two auditors disagree"), "{detail}");
                disagreed = true;
                break;
            }
        }
        assert!(disagreed, "the lot never fell on the one that accuses");
        for auditor in [&lazy, &spiteful] {
            let record = asker.record(&auditor.peer()).await;
            assert!(record.auditor_score.is_some_and(|score| score < 500), "{record:?}");
        }
        let provider = honest().await.peer().to_string();
        assert!(asker.record(&provider).await.barred.is_none());
        asker.end().await;
        lazy.net.shutdown().await;
        spiteful.net.shutdown().await;
    });
}

#[test]
fn a_router_that_holds_the_model_sees_through_the_auditor_its_user_named() {
    runtime().block_on(async {
        let spiteful = Auditor::start(SPITEFUL).await;
        let held = |settings: &mut Settings| settings.hold = vec![model().clone()];
        let asker = Asker::start(&[&spiteful], held).await;
        let mut spec = JobSpec::new(&model().id, Prompt::Text("The capital of France is".into()));
        spec.verification.level = Level::Full;
        spec.verification.auditor = Some(spiteful.peer());
        spec.max_tokens = Some(4);
        let answer = asker.client().ask(spec).await.expect("a job");
        let (_, outcome) = answer.text().await.expect("an answer");
        assert!(outcome.verification.detail.contains("its verdict is false"), "{outcome:?}");
        let record = asker.record(&spiteful.peer()).await;
        assert!(record.auditor_barred.is_some(), "{record:?}");
        asker.end().await;
        spiteful.net.shutdown().await;
    });
}

#[test]
fn the_user_blocks_in_the_middle_of_an_answer_and_unblocks() {
    runtime().block_on(async {
        let provider = honest().await.peer().to_string();
        let asker = Asker::start(&[], |_| {}).await;
        let mut spec = JobSpec::new(&model().id, Prompt::Text("Once upon a time".into()));
        spec.max_tokens = Some(400);
        spec.verification.level = Level::Receipt;
        let mut answer = asker.client().ask(spec).await.expect("a job");
        loop {
            match answer.next().await.expect("an event").expect("a token") {
                AnswerEvent::Delta { .. } => break,
                AnswerEvent::Done(_) => panic!("it was over before it began"),
                _ => {}
            }
        }
        let record = asker.client().decide(&provider, true, "enough").await.expect("logged");
        assert_eq!(record.barred.as_deref(), Some("blocked by the user: enough"));
        let failed = tokio::time::timeout(PATIENCE, answer.text()).await.expect("it hangs");
        assert!(failed.is_err(), "a blocked provider answered: {failed:?}");
        honest().await.idle("a block").await;
        assert!(matches!(asker.ask().await, Err(AskError::NoProvider { .. })));
        let record = asker.client().decide(&provider, false, "again").await.expect("logged");
        assert!(record.barred.is_none());
        let since = Instant::now();
        while let Err(error) = asker.ask().await {
            assert!(since.elapsed() < PATIENCE, "never welcome again: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        asker.end().await;
    });
}

/// An honest case, but for what `change` does to the receipt.
fn case(change: impl FnOnce(&mut Receipt)) -> Case {
    let (router, provider) = (Keypair::from_seed(&random()), Keypair::from_seed(&random()));
    let (provider, offer) = (Arc::new(provider), Signed::sign(&router, plain_offer()));
    let offer = offer.expect("an offer");
    let mut honest = compute(&provider, &offer, &[], offer.sampling.clone());
    change(&mut honest.receipt);
    let tokens = honest.frames.iter().flat_map(|f| f.tokens.clone()).collect();
    let receipt = Signed::sign(&provider, honest.receipt).expect("a receipt");
    Case { offer, receipt, tokens }
}

/// What a log holds after two auditors accused.
fn accused(case: Case) -> LogBody {
    let auditor = Keypair::from_seed(&[55; 32]);
    let verdict = Signed::sign(&auditor, invented(&case, fault())).expect("a verdict");
    let Found::Fail(mismatch) = fault() else { unreachable!("a fault") };
    let wrong = WrongAnswer { case, mismatch, opening: None, verdicts: vec![verdict] };
    LogBody::Evidence(Evidence::WrongAnswer(wrong))
}

#[test]
fn a_refuted_accusation_rolls_back_and_a_true_one_stands() {
    runtime().block_on(async {
        let home = tempfile::tempdir().expect("a folder");
        let mut settings = settings(&home, vec![]);
        settings.hold = vec![model().clone()];
        let (framed, guilty) =
            (case(|_| {}), case(|receipt| receipt.transcript_root = Digest::from_bytes([1; 32])));
        let (innocent, liar) = (framed.receipt.key().peer_id(), guilty.receipt.key().peer_id());
        let bodies = vec![accused(framed), accused(guilty)];
        reputation::append(&settings.home, bodies, 1_790_000_000_000).await.expect("a log");
        let node = Node::start(settings.clone()).await.expect("a node");
        let client = node.client();
        let barred = |peers: Vec<PeerStatus>| -> Vec<String> {
            peers.into_iter().filter(|peer| peer.barred.is_some()).map(|peer| peer.peer).collect()
        };
        assert_eq!(barred(client.peers().await).len(), 2);
        let found = client.recheck(&innocent.to_string()).await.expect("a second look");
        assert_eq!((found.refuted.len(), found.confirmed.len()), (1, 0), "{found:?}");
        let found = client.recheck(&liar.to_string()).await.expect("a second look");
        assert_eq!((found.refuted.len(), found.confirmed.len()), (0, 1), "{found:?}");
        assert_eq!(barred(client.peers().await), [liar.to_string()]);
        node.shutdown().await;
        drop(client);
        // The same from the log on the disk.
        let rules = settings.config.reputation.rules();
        let book = Book::read(&settings.home, rules).expect("a log");
        let (record, now) = (book.record(&innocent, 0), 1_790_000_000_000);
        assert!(record.barred.is_none() && record.score == 500, "{record:?}");
        let accuser = Keypair::from_seed(&[55; 32]).public().peer_id();
        let record = book.record(&accuser, now);
        assert!(record.auditor_barred.is_some() && record.score < 500, "{record:?}");
        // What is left to tell goes into one file, which a stranger checks.
        let file = home.path().join("told.evidence");
        assert_eq!(book.export(&liar, &file).expect("a file"), 1);
        let store = Store::new(home.path().join("models"), "https://models.example");
        let all = peerproof::verify::verify_all(&file, &store, Some(model())).expect("a bundle");
        assert!(all.iter().all(|one| one.as_ref().is_ok_and(|one| one.proven)), "{all:?}");
        let strange = book.export(&Keypair::from_seed(&[1; 32]).public().peer_id(), &file);
        assert!(strange.is_err(), "nothing is known of it");
    });
}
