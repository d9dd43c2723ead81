//! What is finite, and how the gateway ends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{config, gateway, post, soon};

fn ask(stream: bool) -> Value {
    json!({"model": "tiny", "prompt": "x", "stream": stream})
}

#[tokio::test]
async fn a_full_house_answers_429_and_has_room_again_afterwards() {
    let mut config = config();
    config.max_in_flight = 1;
    let gateway = gateway(config).await;
    let mut wire = gateway.open(&post("/v1/completions", &ask(true))).await;
    let job = gateway.job().await;
    let answer = gateway.post("/v1/completions", ask(false)).await;
    assert_eq!(answer.error(), (429, "rate_limit_exceeded".into()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    job.answer(&["x"]).await;
    assert!(wire.rest().await.body.contains("[DONE]"));
    let script = async { gateway.job().await.answer(&["x"]).await };
    let (answer, ()) = tokio::join!(gateway.post("/v1/completions", ask(false)), script);
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_large_body_is_refused_whether_announced_or_chunked() {
    let mut config = config();
    config.max_body_bytes = 1_000;
    let gateway = gateway(config).await;
    let mut large = ask(false);
    large["prompt"] = json!("x".repeat(2_000));
    let answer = gateway.post("/v1/completions", large).await;
    assert_eq!(answer.error(), (413, "body_too_large".into()));
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let answer = gateway.send(&format!("{head}{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(answer.error(), (413, "body_too_large".into()));
}

#[tokio::test]
async fn a_body_or_a_head_that_never_comes_is_not_awaited_for_ever() {
    let mut config = config();
    config.body_timeout = Duration::from_millis(1);
    config.header_timeout = Duration::from_millis(50);
    let gateway = gateway(config).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\
                connection: close\r\n\r\n";
    let answer = gateway.send(head).await;
    assert_eq!(answer.error(), (408, "body_timeout".into()));
    let answer = gateway.send("GET /v1/mod").await;
    assert!(matches!(answer.status, 0 | 408), "{answer:?}");
}

#[tokio::test]
async fn stopping_lets_answers_finish() {
    let mut gateway = gateway(config()).await;
    let mut wire = gateway.open(&post("/v1/completions", &ask(true))).await;
    let job = gateway.job().await;
    job.start().await;
    job.text("begun").await;
    wire.until("begun").await;
    let server = gateway.stop();
    job.text("more").await;
    job.done().await;
    assert!(wire.rest().await.body.ends_with("data: [DONE]\n\n"));
    soon(server).await.unwrap();
}

#[tokio::test]
async fn stopping_ends_what_does_not_finish_with_an_error() {
    let mut config = config();
    config.drain = Duration::from_millis(1);
    let mut gateway = gateway(config).await;
    let mut wire = gateway.open(&post("/v1/completions", &ask(true))).await;
    let job = gateway.job().await;
    job.start().await;
    job.text("begun").await;
    wire.until("begun").await;
    let server = gateway.stop();
    let answer = wire.rest().await;
    assert_eq!(answer.events().last().unwrap()["error"]["code"], "stopping");
    soon(job.events.closed()).await;
    soon(server).await.unwrap();
}
