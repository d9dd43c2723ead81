//! Server-sent events, to the byte where it matters.

use std::time::Duration;

use peerproof::client::AskError;
use serde_json::{Value, json};

use crate::harness::{config, gateway, post, soon};

fn chat(extra: Value) -> Value {
    let mut body = json!({
        "model": "tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}],
    });
    let Value::Object(extra) = extra else { panic!("an object") };
    body.as_object_mut().unwrap().extend(extra);
    body
}

#[tokio::test]
async fn a_chat_stream_has_one_opening_pieces_one_finish_and_done() {
    let gateway = gateway(config()).await;
    let script = async { gateway.job().await.answer(&["Hel", "", "lo"]).await };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", chat(json!({}))), script);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let mut events = answer.events();
    assert_eq!(events.pop(), Some(json!("[DONE]")));
    assert!(answer.body.ends_with("data: [DONE]\n\n"));
    let first = events[0].clone();
    for event in &events {
        for key in ["id", "created", "model", "object", "system_fingerprint"] {
            assert_eq!(event[key], first[key], "{key} changed: {event}");
        }
        assert_eq!(event["object"], "chat.completion.chunk");
        assert!(event.get("usage").is_none(), "usage was not asked for");
        assert!(event["choices"][0]["logprobs"].is_null());
    }
    assert_eq!(first["system_fingerprint"], "fp_0011223344556677_z1");
    let deltas: Vec<Value> = events.iter().map(|e| e["choices"][0]["delta"].clone()).collect();
    assert_eq!(
        deltas,
        [
            json!({"role": "assistant", "content": "", "refusal": null}),
            json!({"content": "Hel"}),
            json!({"content": "lo"}),
            json!({}),
        ]
    );
    let reasons: Vec<Value> =
        events.iter().map(|e| e["choices"][0]["finish_reason"].clone()).collect();
    assert_eq!(reasons, [json!(null), json!(null), json!(null), json!("stop")]);
    assert_eq!(events[3]["peerproof"]["receipt_id"], "aa");
    assert!(events[..3].iter().all(|e| e.get("peerproof").is_none()));
}

/// A choice's reports come with its text; those that no text follows come with its end.
#[tokio::test]
async fn probabilities_come_with_their_text_by_choice() {
    let gateway = gateway(config()).await;
    let ask = chat(json!({"logprobs": true, "top_logprobs": 2, "n": 2}));
    let script = async {
        let (first, second) = (gateway.job().await, gateway.job().await);
        assert_eq!(first.spec.sampling.logprobs, Some(2));
        first.start().await;
        second.start().await;
        first.likely("Hel", "").await;
        first.likely("lo", "Hello").await;
        second.likely("Bye", "Bye").await;
        first.likely("<end>", "").await;
        first.done().await;
        second.done().await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", ask), script);
    let events = answer.events();
    let of = |index: u32| events.iter().filter(move |e| e["choices"][0]["index"] == index);
    let words = |index: u32| -> Vec<(Value, Vec<String>)> {
        let told = of(index).map(|event| {
            let content = event["choices"][0]["logprobs"]["content"].as_array();
            let tokens = content.into_iter().flatten();
            let tokens = tokens.map(|entry| entry["token"].as_str().unwrap().to_owned());
            (event["choices"][0]["delta"]["content"].clone(), tokens.collect())
        });
        told.collect()
    };
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let opening = (json!(""), vec![]);
    let first =
        [opening.clone(), (json!("Hello"), list(&["Hel", "lo"])), (json!(null), list(&["<end>"]))];
    assert_eq!(words(0), first);
    assert_eq!(words(1), [opening, (json!("Bye"), list(&["Bye"])), (json!(null), vec![])]);
    assert!(of(0).chain(of(1)).filter(|e| e["choices"][0]["logprobs"].is_null()).count() == 3);
}

#[tokio::test]
async fn offsets_of_a_streamed_completion_go_on() {
    let gateway = gateway(config()).await;
    let ask = json!({"model": "tiny", "stream": true, "prompt": "Once", "logprobs": 1});
    let script = async {
        let job = gateway.job().await;
        job.start().await;
        job.likely(" upon", " upon").await;
        job.likely(" a", " a").await;
        job.done().await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/v1/completions", ask), script);
    let events = answer.events();
    assert_eq!(events[0]["choices"][0]["logprobs"]["text_offset"], json!([0]));
    assert_eq!(events[1]["choices"][0]["logprobs"]["text_offset"], json!([5]));
    assert_eq!(events[1]["choices"][0]["logprobs"]["tokens"], json!([" a"]));
    assert!(events[2]["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn usage_comes_once_at_the_end_and_only_if_asked_for() {
    let gateway = gateway(config()).await;
    let ask = chat(json!({"stream_options": {"include_usage": true}}));
    let script = async { gateway.job().await.answer(&["x"]).await };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", ask), script);
    let events = answer.events();
    let (last, before) = events[..events.len() - 1].split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10});
    assert_eq!(last["usage"], usage);
    for event in before {
        assert!(event.as_object().unwrap().contains_key("usage") && event["usage"].is_null());
    }
}

#[tokio::test]
async fn a_text_stream_has_text_and_no_roles() {
    let gateway = gateway(config()).await;
    let ask = json!({"model": "tiny", "prompt": "once", "stream": true});
    let script = async { gateway.job().await.answer(&[" upon", " a"]).await };
    let (answer, ()) = tokio::join!(gateway.post("/v1/completions", ask), script);
    let events = answer.events();
    let texts: Vec<&Value> = events[..3].iter().map(|e| &e["choices"][0]["text"]).collect();
    assert_eq!(texts, [" upon", " a", ""]);
    assert_eq!(events[2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[2]["object"], "text_completion");
    assert_eq!(events[3], "[DONE]");
}

#[tokio::test]
async fn each_choice_opens_once_and_finishes_once() {
    let gateway = gateway(config()).await;
    let script = async {
        let (one, two) = (gateway.job().await, gateway.job().await);
        one.start().await;
        two.answer(&["b"]).await;
        one.text("a").await;
        one.done().await;
    };
    let ask = chat(json!({"n": 2, "stream_options": {"include_usage": true}}));
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", ask), script);
    let events = answer.events();
    let count = |index: usize, test: &dyn Fn(&Value) -> bool| {
        let of_index = |e: &&Value| e["choices"][0]["index"] == index && test(&e["choices"][0]);
        events.iter().filter(of_index).count()
    };
    for index in 0..2 {
        assert_eq!(count(index, &|c| c["delta"].get("role").is_some()), 1);
        assert_eq!(count(index, &|c| !c["finish_reason"].is_null()), 1);
    }
    let usage = &events[events.len() - 2]["usage"];
    assert_eq!(usage["prompt_tokens"], 7);
    assert_eq!(usage["completion_tokens"], 6);
}

#[tokio::test]
async fn a_failure_before_the_stream_has_its_own_status() {
    let gateway = gateway(config()).await;
    let script = async {
        let job = gateway.job().await;
        job.fail(AskError::NoProvider { model: "tiny".into(), reason: "nobody".into() }).await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", chat(json!({}))), script);
    assert_eq!(answer.error(), (503, "no_provider".into()));
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_failure_within_the_stream_is_its_last_event() {
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
    let (answer, ()) = tokio::join!(gateway.post("/v1/chat/completions", chat(json!({}))), script);
    assert_eq!(answer.status, 200);
    let events = answer.events();
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["error"]["code"], "verification_failed");
    assert_eq!(last["error"]["evidence"], "evidence/7.json");
    assert!(before.iter().all(|e| e["choices"][0]["finish_reason"].is_null()));
    assert!(!answer.body.contains("[DONE]"));
}

#[tokio::test]
async fn silence_is_filled_with_comments_and_the_head_does_not_wait_for_ever() {
    let mut config = config();
    config.head_wait = Duration::from_millis(1);
    config.keep_alive = Duration::from_millis(1);
    let gateway = gateway(config).await;
    let mut wire = gateway.open(&post("/v1/chat/completions", &chat(json!({})))).await;
    let job = gateway.job().await;
    wire.until(": keep-alive\n\n").await;
    job.answer(&["x"]).await;
    let answer = wire.rest().await;
    assert_eq!(answer.status, 200);
    let events: Vec<Value> = answer.events().into_iter().filter(|e| *e != ": keep-alive").collect();
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
}

#[tokio::test]
async fn a_closed_socket_cancels_the_job_in_every_phase() {
    let gateway = gateway(config()).await;
    let whole = json!({"model": "tiny", "prompt": "once"});
    for (path, body, text) in [
        ("/v1/completions", whole, false),
        ("/v1/chat/completions", chat(json!({})), false),
        ("/v1/chat/completions", chat(json!({})), true),
    ] {
        let mut wire = gateway.open(&post(path, &body)).await;
        let job = gateway.job().await;
        if text {
            job.start().await;
            job.text("some").await;
            wire.until("some").await;
        }
        drop(wire);
        soon(job.events.closed()).await;
    }
    // The jobs are counted on another task than the one that saw them end.
    let cancelled = r#"peerproof_answers_total{outcome="cancelled"} 3"#;
    soon(async {
        while !gateway.get("/metrics").await.body.contains(cancelled) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
