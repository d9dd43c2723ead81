//! `GET /peerproof/checks/{job}`: what became of the check of an answer that was used at once.
//!
//! With `?wait_ms=` the reply waits for the check's end, so that nobody has to ask
//! again and again. Whoever knows a job's id may ask, since only who asked knows it;
//! who answered and where files lie is shown as long as peers are shown at all.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::error::ApiError;
use crate::routes::json_response;

/// The longest that one reply waits.
const MAX_WAIT_MS: u64 = 30_000;

pub(crate) async fn check(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response {
    let patience = match patience(query.as_deref().unwrap_or_default()) {
        Ok(patience) => patience,
        Err(error) => return error.into_response(),
    };
    let found = match &path {
        Ok(Path(job)) => app.backend.later_check(job, patience).await,
        Err(_) => None,
    };
    let Some(mut check) = found else {
        return ApiError::unknown_check().into_response();
    };
    if !app.config.exposes_peers() {
        check.provider.clear();
        check.detail.clear();
        check.file = None;
    }
    json_response(StatusCode::OK, &json!(check))
}

fn patience(query: &str) -> Result<Duration, ApiError> {
    let named = query.split('&').find_map(|pair| pair.strip_prefix("wait_ms="));
    let wait_ms = match named {
        None => Some(0),
        Some(value) => value.parse().ok().filter(|ms| *ms <= MAX_WAIT_MS),
    };
    let message = format!("expected milliseconds, at most {MAX_WAIT_MS}");
    wait_ms.map(Duration::from_millis).ok_or_else(|| ApiError::invalid("wait_ms", message))
}
