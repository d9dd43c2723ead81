//! The node's log for monitors, and its desk as a witness: C2SP tlog-tiles and tlog-witness.
//!
//! `GET /log/checkpoint` and `GET /log/tile/…` hand out pieces of the log;
//! `POST /log/add-checkpoint` has another log's checkpoint cosigned. Everything
//! in a log's tree is a hash, so nothing here tells a payload. A tile never
//! changes and may be kept for ever; the checkpoint must be asked for again.
//! Errors are plain text, since those who call are no OpenAI clients.
//! Absent: whether a request is allowed at all (`guard`), and every judgement.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use peerproof::log::{MAX_ADD_CHECKPOINT_BYTES, Unreadable};

use crate::app::App;

const PREFIX: &str = "/log/";
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// A refusal that says which size was cosigned last.
const SIZE: &str = "text/x.tlog.size";
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";

/// `GET /log/checkpoint` and `GET /log/tile/…`.
pub(crate) async fn piece(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
    match app.backend.log_piece(path).await {
        Ok(Some(piece)) if piece.is_checkpoint => {
            answer(StatusCode::OK, TEXT, ASK_AGAIN, piece.bytes)
        }
        Ok(Some(piece)) => answer(StatusCode::OK, BYTES, FOR_EVER, piece.bytes),
        Ok(None) => plain(StatusCode::NOT_FOUND, "this log has no such piece, or not yet"),
        Err(busy @ Unreadable::TooFast) => later(StatusCode::TOO_MANY_REQUESTS, &busy.to_string()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// `POST /log/add-checkpoint`.
pub(crate) async fn add_checkpoint(State(app): State<Arc<App>>, request: Request) -> Response {
    let read = Bytes::from_request(request, &());
    let body = match tokio::time::timeout(app.config.body_timeout, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("expected at most {MAX_ADD_CHECKPOINT_BYTES} bytes");
            return plain(StatusCode::PAYLOAD_TOO_LARGE, &message);
        }
        Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the request body broke off"),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    match app.backend.add_checkpoint(&body).await {
        Ok(line) => answer(StatusCode::OK, TEXT, ASK_AGAIN, line.into_bytes()),
        Err(declined) => {
            let status = StatusCode::from_u16(declined.status);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            match (status, &declined.last) {
                (StatusCode::CONFLICT, Some((size, _))) => {
                    answer(status, SIZE, ASK_AGAIN, format!("{size}\n").into_bytes())
                }
                (StatusCode::CONFLICT, None) => answer(status, SIZE, ASK_AGAIN, b"0\n".to_vec()),
                (StatusCode::TOO_MANY_REQUESTS, _) => later(status, &declined.message),
                _ => plain(status, &declined.message),
            }
        }
    }
}

fn answer(status: StatusCode, kind: &'static str, cache: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn plain(status: StatusCode, message: &str) -> Response {
    answer(status, TEXT, ASK_AGAIN, format!("{message}\n").into_bytes())
}

fn later(status: StatusCode, message: &str) -> Response {
    let mut response = plain(status, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
