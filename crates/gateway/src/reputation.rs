//! `POST /peerproof/reputation`: the user's decisions about a peer.
//!
//! The body names a peer and what to do: `{"peer": "12D3…", "action": "block",
//! "reason": "…"}`, or `unblock`, or `recheck` (look again at what it is accused
//! of). Only for the node's own operator: it is there as long as peers are
//! shown at all, and behind the same guards as everything else here.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use peerproof::client::AskError;
use peerproof::reputation::ReputationError;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::routes::{json_response, read_body, unknown_url};

pub(crate) async fn decide(State(app): State<Arc<App>>, request: Request) -> Response {
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
    let peer = text("peer").ok_or_else(|| ApiError::invalid("peer", "expected a peer id"))?;
    let reason = text("reason").unwrap_or_default();
    let backend = &app.backend;
    match text("action") {
        Some(action @ ("block" | "unblock")) => {
            let decided = backend.decide(peer, action == "block", reason).await;
            decided.map(|record| json!(record)).map_err(refused)
        }
        Some("recheck") => {
            let found = backend.recheck(peer).await;
            found.map(|found| json!(found)).map_err(refused)
        }
        _ => Err(ApiError::invalid("action", "expected block, unblock or recheck")),
    }
}

fn refused(error: ReputationError) -> ApiError {
    match error {
        error @ ReputationError::Peer { .. } => ApiError::invalid("peer", error.to_string()),
        error => ApiError::from_ask(&AskError::Unavailable(error.to_string()), true),
    }
}
