//! Constrained answers over the network: held to their schema and audited in full,
//! and given up with the reason where following the schema takes too much.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use peerproof::client::{
    AskError, CONSTRAINT_RULES, Constraint, Form, JobSpec, Level, Outcome, Prompt, Verification,
    verify_constraint,
};
use peerproof::config::Config;
use peerproof::home::{Environment, Home};
use peerproof::{Node, Settings};
use serde_json::Value;
use tempfile::TempDir;

use support::model;

const PLACE: &str = r#"{
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome", "Oslo"]},
        "capital": {"type": "boolean"},
        "people": {"type": "integer", "minimum": 1, "maximum": 99}
    },
    "required": ["city", "capital", "people"],
    "additionalProperties": false
}"#;

/// A few tokens in, a text in which every vowel may be the last letter but thirty:
/// each token leaves another set of those, more than anybody keeps.
const ENDLESS: &str = r#"{
    "type": "object",
    "properties": {"kind": {"const": "note"}, "note": {"type": "string", "pattern": "^[a-z ]*[aeiou][a-z ]{30}$"}},
    "required": ["kind", "note"],
    "additionalProperties": false
}"#;

fn settings(home: &TempDir, peers: Vec<String>) -> Settings {
    let mut config = Config::default();
    config.network.loopback = true;
    config.network.mdns = false;
    config.network.peers = peers;
    config.provide.threads = 1;
    config.provide.kv_mib = 256;
    let home = Home::find(Some(home.path()), None, &Environment::read()).unwrap();
    Settings::new(home, config)
}

/// A provider, and a router that has the model to check it.
struct Pair {
    provider: Node,
    router: Node,
    _homes: [TempDir; 2],
}

impl Pair {
    async fn start() -> Pair {
        let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let serve = vec![model().clone()];
        let provider = Settings { serve, ..settings(&homes[0], vec![]) };
        let provider = Node::start(provider).await.unwrap();
        let peers = vec![provider.status().addresses[0].clone()];
        let router = Settings { hold: vec![model().clone()], ..settings(&homes[1], peers) };
        Pair { provider, router: Node::start(router).await.unwrap(), _homes: homes }
    }

    async fn ask(&self, schema: &str) -> Result<(String, Outcome), AskError> {
        let constraint = constraint(schema);
        verify_constraint(&constraint).unwrap();
        let mut question = JobSpec {
            max_tokens: Some(48),
            verification: Verification { level: Level::Full, ..Verification::default() },
            ..JobSpec::new("smollm2-135m", Prompt::Text("A place, as JSON:".into()))
        };
        question.sampling.constraint = Some(constraint);
        self.router.client().ask(question).await?.text().await
    }

    async fn stop(self) {
        self.router.shutdown().await;
        self.provider.shutdown().await;
    }
}

fn constraint(schema: &str) -> Constraint {
    Constraint { rules: CONSTRAINT_RULES.into(), form: Form::JsonSchema(schema.into()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constrained_answer_is_held_to_its_schema_and_audited() {
    let pair = Pair::start().await;
    let (text, outcome) = pair.ask(PLACE).await.unwrap();
    assert!(outcome.verification.audited, "{}", outcome.verification.detail);
    let place: Value = serde_json::from_str(&text).unwrap();
    assert!(["Paris", "Rome", "Oslo"].contains(&place["city"].as_str().unwrap()), "{text}");
    assert!(place["capital"].is_boolean(), "{text}");
    assert!((1..=99).contains(&place["people"].as_u64().unwrap()), "{text}");
    assert_eq!(place.as_object().unwrap().len(), 3, "{text}");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_takes_too_much_ends_its_answer_and_nothing_else() {
    let pair = Pair::start().await;
    let error = pair.ask(ENDLESS).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("too many steps after"), "{said}");
    assert!(!said.contains("after 0 tokens"), "{said}");
    // The provider did what was asked as far as anybody can: it is asked again, and answers.
    let (_, outcome) = pair.ask(PLACE).await.unwrap();
    assert!(outcome.verification.audited, "{}", outcome.verification.detail);
    pair.stop().await;
}
