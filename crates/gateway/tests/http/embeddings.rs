//! `/v1/embeddings`: shapes of input and output, many inputs, refusals, and a client that leaves.

use peerproof::client::{AskError, Pooling, Prompt};
use serde_json::{Value, json};

use crate::harness::{Fixture, config, gateway, post, soon};

const PATH: &str = "/v1/embeddings";

fn ask(input: Value) -> Value {
    json!({ "model": "tiny", "input": input })
}

/// Answers `count` jobs with vectors of two components, the first of which is the job's number;
/// returns what the jobs asked for.
async fn answer(gateway: &Fixture, count: usize) -> Vec<String> {
    let mut prompts = Vec::new();
    for number in 0..count {
        let job = gateway.job().await;
        assert_eq!(job.spec.embed, Some(Pooling::Model));
        job.answer(&[&number.to_string(), " -2097152"]).await;
        prompts.push(format!("{:?}", job.spec.prompt));
    }
    prompts
}

#[tokio::test]
async fn texts_and_token_ids_become_vectors_in_their_order() {
    let gateway = gateway(config()).await;
    let texts = ["one", "two", "three"].map(|text| Prompt::Text(text.into()));
    let inputs = [
        (json!("one"), texts[..1].to_vec()),
        (json!(["one", "two", "three"]), texts.to_vec()),
        (json!([5, 6]), vec![Prompt::Tokens(vec![5, 6])]),
        (json!([[5, 6], [7]]), vec![Prompt::Tokens(vec![5, 6]), Prompt::Tokens(vec![7])]),
    ];
    for (input, expected) in inputs {
        let (got, prompts) =
            tokio::join!(gateway.post(PATH, ask(input)), answer(&gateway, expected.len()));
        assert_eq!((got.status, prompts.len()), (200, expected.len()), "{}", got.body);
        let asked = expected.iter().map(|prompt| format!("{prompt:?}"));
        assert_eq!(prompts, asked.collect::<Vec<_>>());
        let body = got.json();
        assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!("tiny")));
        let tokens = 7 * expected.len();
        assert_eq!(body["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
        for (number, one) in body["data"].as_array().unwrap().iter().enumerate() {
            let first = number as f64 / f64::from(1 << 22);
            let vector = json!([first, -0.5]);
            let expected = json!({ "object": "embedding", "index": number, "embedding": vector });
            assert_eq!(*one, expected);
        }
        let reports = body["peerproof"]["answers"].as_array().unwrap();
        assert_eq!(reports.len(), expected.len());
        assert_eq!(reports[0]["receipt_id"], "aa");
    }
}

#[tokio::test]
async fn numbers_can_be_asked_for_in_base64() {
    let gateway = gateway(config()).await;
    let mut body = ask(json!("one"));
    body["encoding_format"] = json!("base64");
    let (got, _) = tokio::join!(gateway.post(PATH, body), answer(&gateway, 1));
    // 0.0 and -0.5, little-endian.
    assert_eq!(got.json()["data"][0]["embedding"], "AAAAAAAAAL8=");
}

#[tokio::test]
async fn more_inputs_than_slots_take_turns_in_those_of_the_request() {
    let mut config = config();
    config.max_in_flight = 2;
    let gateway = gateway(config).await;
    let ask_many = gateway.post(PATH, ask(json!(["a", "b", "c", "d", "e"])));
    let script = async {
        let (one, two) = (gateway.job().await, gateway.job().await);
        let other = gateway.post(PATH, ask(json!("late"))).await;
        assert_eq!(other.error(), (429, "rate_limit_exceeded".into()));
        one.answer(&["1"]).await;
        two.answer(&["2"]).await;
        for text in ["3", "4", "5"] {
            gateway.job().await.answer(&[text]).await;
        }
    };
    let (got, ()) = tokio::join!(ask_many, script);
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.json()["data"].as_array().unwrap().len(), 5);
    let (after, _) = tokio::join!(gateway.post(PATH, ask(json!("now"))), answer(&gateway, 1));
    assert_eq!(after.status, 200);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let gateway = gateway(config()).await;
    let many = vec!["x"; 2_049];
    let bodies = [
        (json!({ "model": "tiny" }), "input"),
        (ask(json!([])), "input"),
        (ask(json!("")), "input"),
        (ask(json!([[]])), "input[0]"),
        (ask(json!(["a", ""])), "input[1]"),
        (ask(json!([1, -2])), "input[1]"),
        (ask(json!({ "text": "a" })), "input"),
        (ask(json!(many)), "input"),
        (json!({ "input": "a" }), "model"),
        (json!({ "model": "tiny", "input": "a", "encoding_format": "int8" }), "encoding_format"),
        (json!({ "model": "tiny", "input": "a", "dimensions": 0 }), "dimensions"),
        (
            json!({ "model": "tiny", "input": "a", "verification": { "lvl": 1 } }),
            "verification.lvl",
        ),
    ];
    for (body, param) in bodies {
        let got = gateway.post(PATH, body).await;
        assert_eq!(got.status, 400, "{param}: {}", got.body);
        assert_eq!(got.json()["error"]["param"], param, "{}", got.body);
    }
    assert_eq!(gateway.get(PATH).await.status, 405);
}

#[tokio::test]
async fn dimensions_are_those_asked_for_or_an_error() {
    let gateway = gateway(config()).await;
    for (dimensions, status) in [(2, 200), (3, 400)] {
        let body = json!({ "model": "tiny", "input": "a", "dimensions": dimensions });
        let script = async {
            let job = gateway.job().await;
            assert_eq!(job.spec.max_tokens, Some(dimensions));
            job.answer(&["1", " 2"]).await;
        };
        let (got, ()) = tokio::join!(gateway.post(PATH, body), script);
        assert_eq!(got.status, status, "{}", got.body);
        if status == 400 {
            assert_eq!(got.json()["error"]["param"], "dimensions");
        }
    }
}

#[tokio::test]
async fn a_refused_embedding_shows_evidence_and_cancels_the_others() {
    let gateway = gateway(config()).await;
    let script = async {
        let (one, two) = (gateway.job().await, gateway.job().await);
        one.start().await;
        two.fail(AskError::Refused {
            provider: "12D3liar".into(),
            reason: "component 7 differs".into(),
            evidence: "evidence/7.json".into(),
        })
        .await;
        soon(one.events.closed()).await;
    };
    let (got, ()) = tokio::join!(gateway.post(PATH, ask(json!(["a", "b"]))), script);
    assert_eq!(got.error(), (502, "verification_failed".into()));
    assert_eq!(got.json()["error"]["evidence"], "evidence/7.json");
}

#[tokio::test]
async fn a_closed_socket_cancels_what_runs_and_starts_no_more() {
    let mut config = config();
    config.max_in_flight = 1;
    let gateway = gateway(config).await;
    let wire = gateway.open(&post(PATH, &ask(json!(["a", "b"])))).await;
    let job = gateway.job().await;
    job.start().await;
    drop(wire);
    soon(job.events.closed()).await;
    let cancelled = r#"peerproof_answers_total{outcome="cancelled"} 1"#;
    soon(async {
        while !gateway.get("/metrics").await.body.contains(cancelled) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (got, prompts) = tokio::join!(gateway.post(PATH, ask(json!("c"))), answer(&gateway, 1));
    assert_eq!((got.status, &*prompts[0]), (200, r#"Text("c")"#));
}

#[tokio::test]
async fn peers_stay_unnamed_when_told_so() {
    let mut config = config();
    config.expose_peers = Some(false);
    let gateway = gateway(config).await;
    let (got, _) = tokio::join!(gateway.post(PATH, ask(json!("a"))), answer(&gateway, 1));
    assert_eq!(got.json()["peerproof"]["answers"][0]["verification"]["audited"], true);
    assert!(!got.body.contains("12D3"), "{}", got.body);
}
