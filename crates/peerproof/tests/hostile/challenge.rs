//! Leaves that a secret nonce draws, opened by a real provider to a real router.

use peerproof::client::{JobSpec, Level, Prompt, Verification};
use peerproof::{Node, Settings};

use super::stage::{Provider, model, runtime, settings};

async fn ask(challenge: bool) -> String {
    let provider = Provider::start().await;
    let home = tempfile::tempdir().unwrap();
    let mut settings: Settings = settings(&home, vec![provider.address()]);
    settings.config.ask.challenge = challenge;
    let router = Node::start(settings).await.unwrap();
    let verification = Verification { level: Level::Receipt, ..Verification::default() };
    let prompt = Prompt::Text("One, two, three,".into());
    let spec = JobSpec { verification, ..JobSpec::new(model().id.clone(), prompt) };
    let (_, outcome) = router.client().ask(spec).await.unwrap().text().await.unwrap();
    router.shutdown().await;
    provider.node.shutdown().await;
    outcome.verification.detail
}

#[test]
fn drawn_leaves_are_opened_if_the_router_wants_them() {
    runtime().block_on(async {
        assert_eq!(ask(true).await, "receipt checked, drawn leaves opened");
        assert_eq!(ask(false).await, "receipt checked");
    });
}

#[test]
fn a_node_that_stops_ends_its_answers_and_blames_nobody() {
    runtime().block_on(async {
        let provider = Provider::start().await;
        let home = tempfile::tempdir().unwrap();
        let mut settings = settings(&home, vec![provider.address()]);
        settings.config.ask.max_tokens = 2000;
        let paths = settings.home.clone();
        let key = paths.key().unwrap().public();
        let router = Node::start(settings).await.unwrap();
        let client = router.client();
        let spec = JobSpec::new(model().id.clone(), Prompt::Text("Once upon a time".into()));
        let mut answer = client.ask(spec).await.unwrap();
        assert!(answer.next().await.unwrap().is_ok(), "the answer has begun");
        router.shutdown().await;
        let mut last = None;
        while let Some(event) = answer.next().await {
            last = Some(event);
        }
        let error = last.unwrap().unwrap_err().to_string();
        assert!(error.contains("stopping"), "{error}");
        drop((answer, client));
        let log = peerproof::store::read_of(&paths.log(&key.peer_id()), &key).unwrap();
        assert_eq!(log.len(), 0, "{:?}", log.entry(0));
        provider.idle("a router that stopped").await;
        provider.node.shutdown().await;
    });
}
