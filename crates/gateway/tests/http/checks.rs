//! What became of a check that follows an answer.

use crate::harness::{config, gateway};

#[tokio::test]
async fn a_check_is_told_to_who_knows_its_job() {
    let gateway = gateway(config()).await;
    let answer = gateway.get("/peerproof/checks/job?wait_ms=700").await;
    let check: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &check["state"]), (200, &"held".into()), "{check}");
    assert_eq!((&check["level"], &check["check_ms"]), (&"spot".into(), &9.into()));
    assert_eq!(
        (&check["detail"], &check["provider"]),
        (&"waited 700 ms".into(), &"12D3provider".into())
    );
    assert_eq!(gateway.get("/peerproof/checks/job").await.status, 200);
    for (path, status, code) in [
        ("another", 404, "unknown_check"),
        ("job?wait_ms=30001", 400, "invalid_value"),
        ("job?wait_ms=-1", 400, "invalid_value"),
        ("job/more", 404, "unknown_url"),
        ("%ff", 404, "unknown_check"),
    ] {
        let answer = gateway.get(&format!("/peerproof/checks/{path}")).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.body.contains(code), "{path}: {}", answer.body);
    }

    let mut hiding = config();
    hiding.expose_peers = Some(false);
    let hiding = crate::harness::gateway(hiding).await;
    let hidden = hiding.get("/peerproof/checks/job").await.body;
    assert!(
        hidden.contains("held") && !hidden.contains("12D3") && !hidden.contains("/papers"),
        "{hidden}"
    );
}
