//! Routers that lie to an auditor, and auditors that lie to a router.

use std::sync::Arc;

use peerproof::client::{AskError, JobSpec, Level, Outcome, Prompt};
use peerproof::{Node, Settings};
use peerproof_identity::Keypair;
use peerproof_net::{FrameLimits, Handle, NetConfig, Network};
use peerproof_proof::verdict;
use peerproof_wire::audit::{Difference, Mismatch, Outcome as Found};
use peerproof_wire::{
    AUDIT_PROTOCOL, AuditReply, AuditRequest, Case, Digest, Message as _, ModelId, Signed, Verdict,
};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::fake::{announce, compute};
use super::router::knows;
use super::stage::{PATIENCE, Provider, Router, model, random, runtime, settings};

/// A node that audits and does nothing else.
struct Auditor {
    node: Node,
    _home: tempfile::TempDir,
}

async fn victim() -> (MutexGuard<'static, ()>, &'static Auditor) {
    static TURN: Mutex<()> = Mutex::const_new(());
    static VICTIM: OnceCell<Auditor> = OnceCell::const_new();
    let turn = TURN.lock().await;
    let auditor = VICTIM.get_or_init(|| async {
        let home = tempfile::tempdir().unwrap();
        let settings = Settings { audit: vec![model().clone()], ..settings(&home, vec![]) };
        Auditor { node: Node::start(settings).await.unwrap(), _home: home }
    });
    (turn, auditor.await)
}

impl Auditor {
    async fn router(&self) -> Router {
        Router::dial(&self.node.status().addresses[0]).await
    }

    /// A newcomer's honest case still passes.
    async fn is_sound(&self, after: &str) {
        let router = self.router().await;
        let case = case(&router, |_| {});
        match ask(&router, &case).await {
            Ok(AuditReply::Verdict(verdict)) => {
                let key = router.peer.public_key();
                verdict::verify(&verdict, &key, &case.offer, &case.receipt).unwrap();
                assert_eq!(verdict.outcome, Found::Pass, "after {after}");
            }
            other => panic!("after {after}: {other:?}"),
        }
        router.net.shutdown().await;
    }
}

/// An honest case, but for what `change` does to the receipt.
fn case(router: &Router, change: impl FnOnce(&mut peerproof_wire::Receipt)) -> Case {
    let provider = Arc::new(Keypair::from_seed(&random()));
    let offer = router.offer(|_| {});
    let mut honest = compute(&provider, &offer, &[], offer.sampling.clone());
    change(&mut honest.receipt);
    let tokens = honest.frames.iter().flat_map(|f| f.tokens.clone()).collect();
    Case { offer, receipt: Signed::sign(&provider, honest.receipt).unwrap(), tokens }
}

async fn ask(router: &Router, case: &Case) -> Result<AuditReply, String> {
    let mut stream = router.stream_of(AUDIT_PROTOCOL).await?;
    let request = AuditRequest::Case(Box::new(case.clone())).encode();
    let request = request.map_err(|e| e.to_string())?;
    stream.send(&request).await.map_err(|e| e.to_string())?;
    let frame = stream.recv().await.map_err(|e| e.to_string())?.ok_or("closed")?;
    AuditReply::decode(&frame).map_err(|e| e.to_string())
}

fn failure(reply: Result<AuditReply, String>, name: &str) -> (String, u64) {
    match reply {
        Ok(AuditReply::Failure(failure)) => (failure.message, failure.retry_after_ms),
        other => panic!("{name}: expected a failure, got {other:?}"),
    }
}

#[test]
fn cases_that_do_not_hang_together() {
    runtime().block_on(async {
        let (_turn, auditor) = victim().await;
        let router = auditor.router().await;
        let good = case(&router, |_| {});
        let other = case(&router, |_| {});
        let mut tokens = good.clone();
        tokens.tokens[1] ^= 1;
        let mut swapped = good.clone();
        swapped.receipt = other.receipt.clone();
        let foreign = router.offer(|offer| offer.model_id = ModelId::from_bytes([3; 32]));
        let foreign = Case { offer: foreign, ..good.clone() };
        for (name, case) in
            [("other tokens", tokens), ("another receipt", swapped), ("another model", foreign)]
        {
            failure(ask(&router, &case).await, name);
        }
        for (name, bytes) in [
            ("a length of 2 MiB", &[0x80u8, 0x80, 0x80, 0x01][..]),
            ("an empty frame", &[0]),
            ("garbage", &[3, 1, 2, 3]),
            ("a frame cut short", &[0x7f, 0x0a]),
        ] {
            let mut stream = router.stream_of(AUDIT_PROTOCOL).await.unwrap();
            stream.send_raw(bytes).await;
            stream.finish().await.unwrap();
            if let Ok(Some(frame)) = stream.recv().await {
                failure(AuditReply::decode(&frame).map_err(|e| e.to_string()), name);
            }
        }
        // Whoever brought those pays for them; another key is not touched.
        let router = auditor.router().await;
        // A false root is judged, and does not become the verdict on the true receipt.
        let forged = case(&router, |r| r.transcript_root = Digest::from_bytes([1; 32]));
        match ask(&router, &forged).await.unwrap() {
            AuditReply::Verdict(verdict) => assert!(matches!(verdict.outcome, Found::Fail(_))),
            other => panic!("{other:?}"),
        }
        // The same question has the same answer, to the byte.
        let (first, again) =
            (ask(&router, &good).await.unwrap(), ask(&router, &good).await.unwrap());
        assert_eq!(first, again);
        assert!(matches!(first, AuditReply::Verdict(v) if v.outcome == Found::Pass));
        auditor.is_sound("false cases").await;
    });
}

#[test]
fn a_flood_of_cases() {
    runtime().block_on(async {
        let (_turn, auditor) = victim().await;
        let router = auditor.router().await;
        let good = case(&router, |_| {});
        let mut refused = 0;
        for round in 0..24 {
            // Each is another question, and costs the auditor next to nothing.
            let case = Case { tokens: vec![round], ..good.clone() };
            let (message, retry_after_ms) = failure(ask(&router, &case).await, "a flood");
            if message.contains("too many") {
                assert!(retry_after_ms > 0);
                refused += 1;
            }
        }
        assert!(refused >= 4, "only {refused} of 24 were refused");
        auditor.is_sound("a flood of cases").await;
    });
}

#[test]
fn streams_that_ask_nothing() {
    runtime().block_on(async {
        let (_turn, auditor) = victim().await;
        let router = auditor.router().await;
        // More than one peer may hold at once, each closed without a question.
        for round in 0..160 {
            let mut stream = router.stream_of(AUDIT_PROTOCOL).await.unwrap();
            stream.finish().await.unwrap_or_else(|e| panic!("stream {round}: {e}"));
            assert_eq!(stream.recv().await.unwrap_or_else(|e| panic!("stream {round}: {e}")), None);
        }
        auditor.is_sound("silent streams").await;
    });
}

type Judge = Arc<dyn Fn(&Arc<Keypair>, Case) -> AuditReply + Send + Sync>;

/// An auditor made by hand.
async fn fake(judge: Judge) -> (Handle, String) {
    let key = Arc::new(Keypair::from_seed(&random()));
    let (net, _) = Network::start(&key, NetConfig::loopback()).await.unwrap();
    announce(&net, &key, false, true);
    let mut requests = net.accept(AUDIT_PROTOCOL, FrameLimits::default()).unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = requests.next().await {
            let Ok(Some(frame)) = stream.recv().await else { continue };
            let AuditRequest::Case(case) = AuditRequest::decode(&frame).unwrap() else { continue };
            let reply = judge(&key, *case).encode().unwrap();
            let _ = stream.send(&reply).await;
            let _ = stream.finish().await;
        }
    });
    let addresses = net.listen_addresses().await.unwrap();
    let address = addresses[0].with_peer(net.local_peer()).to_string();
    (net, address)
}

/// A verdict on this case that nobody computed.
pub(super) fn invented(case: &Case, outcome: Found) -> Verdict {
    Verdict {
        receipt_id: case.receipt.id(),
        offer_id: case.offer.id(),
        model_id: case.offer.model_id,
        provider: case.receipt.key(),
        outcome,
        work: Digest::from_bytes([5; 32]),
        draw: None,
        issued_unix_ms: 0,
    }
}

/// A provider that all these tests share.
pub(super) async fn honest() -> &'static Provider {
    static HONEST: OnceCell<Provider> = OnceCell::const_new();
    HONEST.get_or_init(Provider::start).await
}

/// Asks an honest provider, and has the answer judged by a liar.
async fn judged_by(judge: Judge) -> Result<(String, Outcome), AskError> {
    let honest = honest().await;
    let (net, address) = fake(judge).await;
    let home = tempfile::tempdir().unwrap();
    let node = Node::start(settings(&home, vec![honest.address(), address])).await.unwrap();
    let liar = net.local_peer().to_string();
    knows(&node.client(), &[honest.peer().to_string(), liar.clone()]).await;
    let mut spec = JobSpec::new(&model().id, Prompt::Text("The capital of France is".into()));
    spec.verification.level = Level::Full;
    spec.verification.auditor = Some(liar);
    spec.max_tokens = Some(4);
    let answer = node.client().ask(spec).await.unwrap();
    let result = tokio::time::timeout(PATIENCE, answer.text()).await.expect("it hangs");
    node.shutdown().await;
    net.shutdown().await;
    result
}

#[test]
fn verdicts_that_prove_nothing() {
    runtime().block_on(async {
        let attacks: Vec<(&str, Judge)> = vec![
            (
                "about another receipt",
                Arc::new(|key, case| {
                    let receipt_id = Digest::from_bytes([1; 32]);
                    let verdict = Verdict { receipt_id, ..invented(&case, Found::Pass) };
                    AuditReply::Verdict(Signed::sign(key, verdict).unwrap())
                }),
            ),
            (
                "about another offer",
                Arc::new(|key, case| {
                    let offer_id = Digest::from_bytes([1; 32]);
                    let verdict = Verdict { offer_id, ..invented(&case, Found::Pass) };
                    AuditReply::Verdict(Signed::sign(key, verdict).unwrap())
                }),
            ),
            (
                "about another provider",
                Arc::new(|key, case| {
                    let provider = key.public();
                    let verdict = Verdict { provider, ..invented(&case, Found::Pass) };
                    AuditReply::Verdict(Signed::sign(key, verdict).unwrap())
                }),
            ),
            (
                "another auditor's",
                Arc::new(|_, case| {
                    let other = Keypair::from_seed(&[66; 32]);
                    AuditReply::Verdict(Signed::sign(&other, invented(&case, Found::Pass)).unwrap())
                }),
            ),
            (
                "a fault beyond the transcript",
                Arc::new(|key, case| {
                    let what = Difference::Token;
                    let wrong = Mismatch { position: 196_607, what, expected: vec![], got: vec![] };
                    AuditReply::Verdict(
                        Signed::sign(key, invented(&case, Found::Fail(wrong))).unwrap(),
                    )
                }),
            ),
            (
                "a refusal",
                Arc::new(|_, _| {
                    AuditReply::Failure(peerproof_wire::AuditFailure::new("not today\u{1b}[2J"))
                }),
            ),
        ];
        for (name, judge) in attacks {
            let (_, outcome) = judged_by(judge).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            let checked = outcome.verification;
            assert!(!checked.audited, "{name}: called audited");
            assert!(checked.detail.starts_with("not audited: "), "{name}: {}", checked.detail);
            assert!(!checked.detail.contains('\u{1b}'), "{name}: {:?}", checked.detail);
        }
    });
}

/// A router without the model cannot see through these; the report names whose word it took.
#[test]
fn the_word_of_a_named_auditor_is_taken() {
    runtime().block_on(async {
        let pass: Judge = Arc::new(|key, case| {
            AuditReply::Verdict(Signed::sign(key, invented(&case, Found::Pass)).unwrap())
        });
        let (_, outcome) = judged_by(pass).await.unwrap();
        assert!(outcome.verification.audited);
        assert!(outcome.verification.detail.starts_with("audited by 12D3KooW"));
        let fail: Judge = Arc::new(|key, case| {
            let (expected, got) = (vec![1, 0, 0, 0], vec![2, 0, 0, 0]);
            let wrong = Mismatch { position: 5, what: Difference::Token, expected, got };
            AuditReply::Verdict(Signed::sign(key, invented(&case, Found::Fail(wrong))).unwrap())
        });
        assert!(matches!(judged_by(fail).await, Err(AskError::Refused { .. })));
    });
}
