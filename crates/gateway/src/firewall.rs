//! `/peerproof/firewall`: the operator's rules about who may connect.
//!
//! `GET` lists them. `POST` changes them: `{"action": "put", "rule": "deny
//! 203.0.113.0/24"}`, or `{"action": "remove", "rule": "203.0.113.0/24"}` with
//! whom the rules to take back are about. Only for the node's own operator: it is
//! there as long as peers are shown at all, and behind the same guards as
//! everything else here.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use peerproof::client::AskError;
use peerproof::firewall::{Change, FirewallError};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::routes::{json_response, read_body, unknown_url};

pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    if !app.config.exposes_peers() {
        return unknown_url(request).await.into_response();
    }
    json_response(StatusCode::OK, &json!({ "rules": app.backend.firewall().await }))
}

pub(crate) async fn change(State(app): State<Arc<App>>, request: Request) -> Response {
    if !app.config.exposes_peers() {
        return unknown_url(request).await.into_response();
    }
    let done = async {
        let body = read_body(&app, request).await?;
        act(&app, &body).await
    };
    match done.await {
        Ok(value) => json_response(StatusCode::OK, &value),
        Err(error) => error.into_response(),
    }
}

async fn act(app: &App, body: &[u8]) -> Result<Value, ApiError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("the body is no JSON object: {error}")))?;
    let text = |name: &str| body[name].as_str();
    let rule = text("rule").ok_or_else(|| ApiError::invalid("rule", "expected a rule"))?;
    let change = Change::parse(text("action").unwrap_or_default(), rule).map_err(refused)?;
    let change = change.ok_or_else(|| ApiError::invalid("action", "expected put or remove"))?;
    let ended = app.backend.change_firewall(&change).await.map_err(refused)?;
    Ok(json!({ "ended": ended, "rules": app.backend.firewall().await }))
}

fn refused(error: FirewallError) -> ApiError {
    match error {
        error @ (FirewallError::Rule(_)
        | FirewallError::Unknown { .. }
        | FirewallError::InConfiguration { .. }) => ApiError::invalid("rule", error.to_string()),
        error => ApiError::from_ask(&AskError::Unavailable(error.to_string()), true),
    }
}
