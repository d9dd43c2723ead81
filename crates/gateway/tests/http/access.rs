//! Who is let in: keys, hosts, origins.

use peerproof_gateway::{ApiKey, GatewayError, Server};
use serde_json::json;

use crate::harness::{Answer, Fixture, config, gateway, post};

const KEY: &str = "a-key-of-some-length";

async fn models_with(gateway: &Fixture, headers: &str) -> Answer {
    gateway.send(&format!("GET /v1/models HTTP/1.1\r\n{headers}connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn a_configured_key_is_required_in_one_of_two_headers() {
    let mut config = config();
    config.api_key = Some(ApiKey::new(KEY).unwrap());
    let gateway = gateway(config).await;
    for (header, status) in [
        (format!("authorization: Bearer {KEY}\r\n"), 200),
        (format!("x-api-key: {KEY}\r\n"), 200),
        (format!("authorization: Bearer {KEY}x\r\n"), 401),
        (format!("authorization: Basic {KEY}\r\n"), 401),
        (String::new(), 401),
    ] {
        let answer = models_with(&gateway, &format!("host: localhost\r\n{header}")).await;
        assert_eq!(answer.status, status, "{header}");
        if status == 401 {
            assert_eq!(answer.error().1, "invalid_api_key");
            assert_eq!(answer.header("www-authenticate"), Some("bearer"));
        }
    }
    assert_eq!(gateway.get("/health").await.status, 200);
    assert_eq!(gateway.get("/ready").await.status, 200);
    assert_eq!(gateway.get("/metrics").await.status, 401);
}

#[tokio::test]
async fn on_loopback_any_key_or_none_will_do() {
    let gateway = gateway(config()).await;
    for header in ["", "authorization: Bearer anything\r\n", "x-api-key: x\r\n"] {
        let answer = models_with(&gateway, &format!("host: localhost\r\n{header}")).await;
        assert_eq!(answer.status, 200, "{header}");
    }
}

#[tokio::test]
async fn a_foreign_name_for_this_machine_is_refused() {
    let gateway = gateway(config()).await;
    for (host, status) in [
        ("host: 127.0.0.1\r\n", 200),
        ("host: LocalHost:1234\r\n", 200),
        ("host: rebound.example\r\n", 403),
        ("host: localhost\r\nhost: rebound.example\r\n", 403),
        ("", 403),
    ] {
        assert_eq!(models_with(&gateway, host).await.status, status, "{host:?}");
    }
}

#[tokio::test]
async fn a_foreign_page_cannot_start_a_job() {
    let mut config = config();
    config.allowed_origins = vec!["https://chat.example".into()];
    let gateway = gateway(config).await;
    let body = json!({"model": "tiny", "prompt": "x"});
    let request = post("/v1/completions", &body)
        .replace("host: localhost", "host: localhost\r\norigin: https://evil.example");
    assert_eq!(gateway.send(&request).await.error(), (403, "origin_not_allowed".into()));
    let request = request.replace("https://evil.example", "https://chat.example");
    let script = async { gateway.job().await.answer(&["x"]).await };
    let (answer, ()) = tokio::join!(gateway.send(&request), script);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://chat.example"));
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_key() {
    let mut config = config();
    config.api_key = Some(ApiKey::new(KEY).unwrap());
    config.allowed_origins = vec!["https://chat.example".into()];
    let gateway = gateway(config).await;
    let preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\
        origin: https://chat.example\r\naccess-control-request-method: POST\r\n\
        access-control-request-headers: authorization, x-stainless-os\r\nconnection: close\r\n\r\n";
    let answer = gateway.send(preflight).await;
    assert_eq!(answer.status, 204);
    let allowed = answer.header("access-control-allow-headers");
    assert_eq!(allowed, Some("authorization, x-stainless-os"));
    let foreign = preflight.replace("chat.example", "evil.example");
    assert_eq!(gateway.send(&foreign).await.status, 403);
}

#[tokio::test]
async fn a_taken_port_says_what_to_do() {
    let first = gateway(config()).await;
    let mut second = config();
    second.listen = first.address;
    let error = Server::bind(first.backend(), second).await.unwrap_err();
    assert!(matches!(error, GatewayError::PortTaken { .. }));
    assert!(error.to_string().contains("choose another port"));
}
