//! Whole answers, models, errors, metrics.

use peerproof::client::{AskError, Outcome, Prompt};
use serde_json::{Value, json};

use crate::harness::{MODEL_ID, config, gateway, outcome, served, soon};

fn hello() -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
async fn a_chat_has_every_key_that_clients_read() {
    let gateway = gateway(config()).await;
    let script = async {
        let job = gateway.job().await;
        job.answer(&["Hel", "", "lo"]).await;
        job
    };
    let (answer, job) = tokio::join!(gateway.post("/v1/chat/completions", hello()), script);
    assert!(matches!(&job.spec.prompt, Prompt::Chat(turns) if turns[0].content == "hi"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-peerproof-receipt"), Some("aa"));
    assert_eq!(answer.header("x-peerproof-provider"), Some("12d3provider"));
    let body = answer.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "tiny");
    assert_eq!(body["system_fingerprint"], "fp_0011223344556677_z1");
    let request_id = answer.header("x-request-id").unwrap();
    assert_eq!(body["id"], format!("chatcmpl-{request_id}"));
    assert!(body["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(
        body["choices"],
        json!([{
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }])
    );
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10});
    assert_eq!(body["usage"], usage);
    let proof = &body["peerproof"];
    assert_eq!(proof["receipt_id"], "aa");
    assert_eq!(proof["model_id"], MODEL_ID);
    assert_eq!(proof["provider"], "12D3provider");
    assert_eq!(proof["verification"]["level"], "full");
    assert_eq!(proof["verification"]["audited"], true);
    assert_eq!(proof["trail"][0], "12D3other: too slow");
    assert_eq!((&proof["first_token_ms"], &proof["total_ms"]), (&json!(4), &json!(40)));
    let mut read_back: Outcome = serde_json::from_value(proof.clone()).unwrap();
    assert_eq!(read_back.trail.pop().unwrap(), "12D3other: too slow");
}

#[tokio::test]
async fn several_choices_keep_their_places_and_count_the_prompt_once() {
    let gateway = gateway(config()).await;
    let ask = json!({"model": "tiny", "prompt": ["a", "b"], "n": 2, "seed": 5});
    let script = async {
        let mut jobs = Vec::new();
        for _ in 0..4 {
            jobs.push(gateway.job().await);
        }
        // The last one finishes first.
        for (i, job) in jobs.iter().enumerate().rev() {
            job.answer(&[&format!("text {i}")]).await;
        }
        jobs.iter().map(|job| (job.spec.seed, job.spec.choice)).collect::<Vec<_>>()
    };
    let (answer, drawn) = tokio::join!(gateway.post("/v1/completions", ask), script);
    assert_eq!(drawn, [(Some(5), 0), (Some(5), 1), (Some(5), 0), (Some(5), 1)]);
    let body = answer.json();
    assert_eq!(body["object"], "text_completion");
    for i in 0..4 {
        assert_eq!(body["choices"][i]["index"], i);
        assert_eq!(body["choices"][i]["text"], format!("text {i}"));
        assert!(body["choices"][i]["logprobs"].is_null());
    }
    let usage = json!({"prompt_tokens": 14, "completion_tokens": 12, "total_tokens": 26});
    assert_eq!(body["usage"], usage);
    assert_eq!(answer.header("x-peerproof-receipt"), Some("aa, aa, aa, aa"));
    assert_eq!(body["peerproof"]["others"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn probabilities_of_a_whole_answer_are_in_its_choices() {
    let gateway = gateway(config()).await;
    let mut ask = hello();
    ask["logprobs"] = json!(true);
    ask["top_logprobs"] = json!(2);
    let script = async {
        let job = gateway.job().await;
        job.start().await;
        job.likely("Par", "").await;
        job.likely("is", "Paris").await;
        job.likely("<end>", "").await;
        job.done().await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", ask), script);
    let choice = answer.json()["choices"][0].clone();
    assert_eq!(choice["message"]["content"], "Paris");
    let content = choice["logprobs"]["content"].as_array().unwrap().clone();
    let tokens: Vec<&Value> = content.iter().map(|entry| &entry["token"]).collect();
    assert_eq!(tokens, ["Par", "is", "<end>"]);
    assert_eq!(content[1]["bytes"], json!([105, 115]));
    assert_eq!(content[1]["top_logprobs"][1]["token"], "?");
    assert_eq!(content[1]["top_logprobs"][1]["logprob"], -90_852.0 / 65_536.0);
}

#[tokio::test]
async fn a_failing_choice_fails_the_request_and_cancels_the_others() {
    let gateway = gateway(config()).await;
    let mut ask = hello();
    ask["n"] = json!(2);
    let script = async {
        let (one, two) = (gateway.job().await, gateway.job().await);
        one.start().await;
        two.fail(AskError::Failed { trail: vec!["12D3x: gone".into()] }).await;
        soon(one.events.closed()).await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", ask), script);
    assert_eq!(answer.error(), (502, "providers_failed".into()));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn a_refused_answer_shows_its_evidence_and_none_of_its_text() {
    let gateway = gateway(config()).await;
    let script = async {
        let job = gateway.job().await;
        job.start().await;
        job.text("a lie").await;
        let error = AskError::Refused {
            provider: "12D3liar".into(),
            reason: "leaf 7 differs".into(),
            evidence: "evidence/7.json".into(),
        };
        job.fail(error).await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", hello()), script);
    assert_eq!(answer.error(), (502, "verification_failed".into()));
    assert_eq!(answer.json()["error"]["evidence"], "evidence/7.json");
    assert!(!answer.body.contains("a lie"));
}

#[tokio::test]
async fn an_answer_that_ends_without_a_word_is_an_error() {
    let gateway = gateway(config()).await;
    let script = async {
        let job = gateway.job().await;
        job.start().await;
        job.text("half an ans").await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", hello()), script);
    assert_eq!(answer.error(), (502, "incomplete".into()));
}

#[tokio::test]
async fn errors_of_the_node_have_their_status_and_headers() {
    let gateway = gateway(config()).await;
    gateway.refuse_next(AskError::UnknownModel { model: "x".into(), available: "tiny".into() });
    let answer = gateway.post("/v1/chat/completions", hello()).await;
    assert_eq!(answer.error(), (404, "model_not_found".into()));
    gateway.refuse_next(AskError::ContextLength { limit: 2048, requested: 4000 });
    let answer = gateway.post("/v1/completions", json!({"model": "tiny", "prompt": "a"})).await;
    assert_eq!(answer.error(), (400, "context_length_exceeded".into()));
    assert_eq!(answer.json()["error"]["param"], "prompt");
    let said = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(said.starts_with("This model's maximum context length is 2048 tokens."), "{said}");
    gateway.refuse_next(AskError::Busy { retry_after_ms: 1500 });
    let answer = gateway.post("/v1/chat/completions", hello()).await;
    assert_eq!(answer.error(), (503, "providers_busy".into()));
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.header("retry-after-ms"), Some("1500"));
}

#[tokio::test]
async fn bad_requests_and_unknown_places_get_error_objects() {
    let gateway = gateway(config()).await;
    let mut ask = hello();
    ask["temperature"] = json!(3);
    let answer = gateway.post("/v1/chat/completions", ask).await;
    assert_eq!(answer.error(), (400, "invalid_value".into()));
    assert_eq!(answer.json()["error"]["param"], "temperature");
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(gateway.get("/v1/nothing").await.error(), (404, "unknown_url".into()));
    let answer = gateway.get("/v1/chat/completions").await;
    assert_eq!(answer.error(), (405, "method_not_allowed".into()));
    assert_eq!(answer.header("allow"), Some("post"));
}

#[tokio::test]
async fn models_are_listed_and_found_by_name_and_id() {
    let gateway = gateway(config()).await;
    gateway.set_models(vec![served("org/tiny", MODEL_ID)]);
    let list = gateway.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "org/tiny");
    assert_eq!(list["data"][0]["object"], "model");
    assert!(list["data"][0]["created"].is_u64());
    assert_eq!(list["data"][0]["owned_by"], "peerproof");
    for path in ["/v1/models/org/tiny", "/v1/models/org%2Ftiny", &format!("/v1/models/{MODEL_ID}")]
    {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json()["id"], "org/tiny");
    }
    for path in ["/v1/models/tiny", "/v1/models/%ff"] {
        assert_eq!(gateway.get(path).await.error(), (404, "model_not_found".into()), "{path}");
    }
}

#[tokio::test]
async fn two_models_of_one_name_are_told_apart_by_id() {
    let gateway = gateway(config()).await;
    gateway.set_models(vec![served("tiny", MODEL_ID), served("tiny", &"f".repeat(64))]);
    let list = gateway.get("/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], MODEL_ID);
    assert_eq!(list["data"][1]["id"], "f".repeat(64));
}

#[tokio::test]
async fn alive_is_not_ready() {
    let gateway = gateway(config()).await;
    assert_eq!(gateway.get("/ready").await.json(), json!({"ready": true, "models": ["tiny"]}));
    gateway.set_models(vec![]);
    let answer = gateway.get("/ready").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert!(answer.json()["reason"].as_str().unwrap().contains("doctor"));
    assert_eq!(gateway.get("/health").await.status, 200);
}

#[tokio::test]
async fn metrics_count_patterns_answers_tokens_and_the_nodes_own() {
    let gateway = gateway(config()).await;
    let script = async { gateway.job().await.answer(&["x"]).await };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", hello()), script);
    assert_eq!(answer.status, 200);
    for _ in 0..2 {
        gateway.get("/v1/models/some/thing").await;
    }
    gateway.get("/secret-path").await;
    let page = gateway.get("/metrics").await;
    assert!(page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        r#"peerproof_http_requests_total{path="/v1/chat/completions",method="POST",status="200"} 1"#,
        r#"peerproof_http_requests_total{path="/v1/models/{*id}",method="GET",status="404"} 2"#,
        r#"peerproof_http_requests_total{path="(none)",method="GET",status="404"} 1"#,
        r#"peerproof_answers_total{outcome="answered"} 1"#,
        r#"peerproof_verifications_total{level="full",outcome="audited"} 1"#,
        "peerproof_answers_in_flight 0",
        "peerproof_completion_tokens_total 3",
        "peerproof_time_to_first_token_seconds_count 1",
        "peerproof_failovers_total 3",
    ] {
        assert!(page.body.lines().any(|l| l == line), "{line} not in\n{}", page.body);
    }
    assert!(!page.body.contains("secret-path"));
}

#[tokio::test]
async fn the_nodes_own_state_is_for_its_operator() {
    let gateway = gateway(config()).await;
    let status = gateway.get("/peerproof/status").await;
    assert_eq!((status.status, &status.json()["peer"]), (200, &json!("12D3self")));
    let peers = gateway.get("/peerproof/peers").await;
    assert_eq!(peers.json()[0]["peer"], "12D3other");
}

#[tokio::test]
async fn the_operator_decides_about_peers() {
    let gateway = gateway(config()).await;
    let peer = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    let ask = |action: &str| {
        gateway.post(
            "/peerproof/reputation",
            json!({ "peer": peer, "action": action, "reason": "slow" }),
        )
    };
    let blocked = ask("block").await;
    assert_eq!(
        (blocked.status, &blocked.json()["barred"]),
        (200, &json!("blocked by the user: slow"))
    );
    assert_eq!(ask("unblock").await.json()["barred"], json!(null));
    assert_eq!(ask("recheck").await.json()["refuted"][0], "a receipt");
    assert_eq!(ask("praise").await.status, 400);
    let nobody = json!({ "peer": "nobody", "action": "block" });
    let nobody = gateway.post("/peerproof/reputation", nobody).await;
    assert_eq!((nobody.status, &nobody.json()["error"]["param"]), (400, &json!("peer")));
    assert_eq!(gateway.get("/peerproof/reputation").await.status, 405);
}

#[tokio::test]
async fn the_operator_sets_who_may_connect() {
    let gateway = gateway(config()).await;
    let listed = gateway.get("/peerproof/firewall").await.json();
    assert_eq!(listed["rules"][0]["rule"], "deny 192.0.2.0/24");
    assert_eq!(listed["rules"][0]["origin"], "command");
    let change = |action: &str, rule: &str| {
        gateway.post("/peerproof/firewall", json!({ "action": action, "rule": rule }))
    };
    let put = change("put", "deny 192.0.2.0/24").await;
    assert_eq!((put.status, &put.json()["ended"]), (200, &json!(2)));
    for (action, rule, param) in [
        ("remove", "192.0.2.0/24", "rule"),
        ("put", "deny nobody", "rule"),
        ("remove", "deny any", "rule"),
        ("shout", "deny any", "action"),
    ] {
        let refused = change(action, rule).await;
        let error = &refused.json()["error"]["param"];
        assert_eq!((refused.status, error), (400, &json!(param)), "{action} {rule}");
    }
}

#[tokio::test]
async fn peers_stay_unnamed_when_told_so() {
    let mut config = config();
    config.expose_peers = Some(false);
    let gateway = gateway(config).await;
    let script = async { gateway.job().await.answer(&["x"]).await };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", hello()), script);
    assert_eq!(answer.json()["peerproof"]["receipt_id"], outcome("aa").receipt_id);
    assert!(answer.header("x-peerproof-provider").is_none());
    assert!(!answer.body.contains("12D3"), "{}", answer.body);
    for path in ["/v1/models", "/peerproof/status", "/peerproof/peers", "/metrics", "/ready"] {
        assert!(!gateway.get(path).await.body.contains("12D3"), "{path}");
    }
}
