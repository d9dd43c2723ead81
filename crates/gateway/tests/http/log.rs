//! The log for monitors and the witness: status codes, types, caches, sizes, keys.

use peerproof::log::MAX_ADD_CHECKPOINT_BYTES;
use peerproof_gateway::ApiKey;

use crate::harness::{Answer, Fixture, config, gateway};

async fn add(gateway: &Fixture, body: &str, headers: &str) -> Answer {
    let length = body.len();
    let head = "POST /log/add-checkpoint HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    gateway.send(&format!("{head}content-length: {length}\r\n{headers}\r\n{body}")).await
}

#[tokio::test]
async fn pieces_have_their_types_and_lives() {
    let gateway = gateway(config()).await;
    let (text, bytes) = ("text/plain; charset=utf-8", "application/octet-stream");
    let for_ever = "public, max-age=31536000, immutable";
    for (path, status, kind, cache) in [
        ("checkpoint", 200, text, "no-cache"),
        ("tile/0/000.p/1", 200, bytes, for_ever),
        ("tile/entries/x001/000", 200, bytes, for_ever),
        ("tile/0/001", 404, text, "no-cache"),
        ("tile/0/../../checkpoint", 404, text, "no-cache"),
        ("tile/0/000.p%2f1", 404, text, "no-cache"),
        ("tile/0/999", 429, text, "no-cache"),
        ("tile/0/998", 500, text, "no-cache"),
    ] {
        let answer = gateway.get(&format!("/log/{path}")).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
    }
    assert_eq!(gateway.get("/log/checkpoint").await.body, "a note\n");
    assert_eq!(gateway.get("/log/checkpoint?old=1").await.status, 200);
    assert_eq!(gateway.get("/log/tile/0/999").await.header("retry-after"), Some("1"));
    assert_eq!(gateway.get("/log/").await.status, 404);
    assert_eq!(gateway.get("/log/add-checkpoint").await.status, 405);
}

#[tokio::test]
async fn a_witness_answers_as_its_protocol_says() {
    let gateway = gateway(config()).await;
    let text = "text/plain; charset=utf-8";
    for (body, status, kind, wanted) in [
        ("200", 200, text, "a signature\n"),
        ("400", 400, text, "not this one\n"),
        ("403", 403, text, "not this one\n"),
        ("404", 404, text, "not this one\n"),
        ("409 17", 409, "text/x.tlog.size", "17\n"),
        ("409", 409, "text/x.tlog.size", "0\n"),
        ("422", 422, text, "not this one\n"),
        ("429", 429, text, "not this one\n"),
        ("503", 503, text, "not this one\n"),
    ] {
        let answer = add(&gateway, body, "").await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.header("content-type"), Some(kind), "{body}");
        assert_eq!(answer.body, wanted, "{body}");
    }
}

#[tokio::test]
async fn a_request_to_a_witness_is_small() {
    let gateway = gateway(config()).await;
    let most = "2".repeat(MAX_ADD_CHECKPOINT_BYTES);
    assert_eq!(add(&gateway, &most, "").await.status, 200);
    assert_eq!(add(&gateway, &format!("{most}2"), "").await.status, 413);
}

#[tokio::test]
async fn the_log_needs_the_key_unless_it_is_opened() {
    let key = "a-key-of-some-length";
    for (public_log, status) in [(false, 401), (true, 200)] {
        let mut config = config();
        config.api_key = Some(ApiKey::new(key).unwrap());
        config.public_log = public_log;
        let gateway = gateway(config).await;
        assert_eq!(gateway.get("/log/checkpoint").await.status, status);
        assert_eq!(gateway.get("/log/tile/0/000.p/1").await.status, status);
        assert_eq!(add(&gateway, "200", "").await.status, status);
        let shown = format!("authorization: Bearer {key}\r\n");
        assert_eq!(add(&gateway, "200", &shown).await.status, 200);
        for path in ["/v1/models", "/metrics", "/log", "/logs/checkpoint"] {
            assert_eq!(gateway.get(path).await.status, 401, "{path}");
        }
        let foreign =
            "GET /log/checkpoint HTTP/1.1\r\nhost: rebound.example\r\nconnection: close\r\n\r\n";
        assert_eq!(gateway.send(foreign).await.status, 403);
    }
}
