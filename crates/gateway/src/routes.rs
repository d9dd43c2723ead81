//! The endpoints: which path answers what, and the headers of the answers.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Extension, FromRequest, MatchedPath, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next as Inner, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use peerproof::client::{Outcome, ServedModel};
use peerproof::log::MAX_ADD_CHECKPOINT_BYTES;
use serde_json::{Value, json};

use crate::answer::{Next, Running};
use crate::app::{App, RequestId, unix_seconds};
use crate::error::ApiError;
use crate::reply::{Choice, Reply, Usage, fingerprint};
use crate::request::{Asked, Embed, Shape};
use crate::{checks, embeddings, firewall, guard, log, reputation, stream};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RECEIPT: HeaderName = HeaderName::from_static("x-peerproof-receipt");
const PROVIDER: HeaderName = HeaderName::from_static("x-peerproof-provider");
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const NO_SNIFFING: HeaderName = HeaderName::from_static("x-content-type-options");

const NOT_READY_RETRY_S: &str = "2";

/// All routes, with the layers around them.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(text))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/peerproof/status", get(status))
        .route("/peerproof/peers", get(peers))
        .route("/peerproof/reputation", post(reputation::decide))
        .route("/peerproof/firewall", get(firewall::list).post(firewall::change))
        .route("/peerproof/models", get(served))
        .route("/peerproof/checks/{job}", get(checks::check))
        .route("/log/checkpoint", get(log::piece))
        .route("/log/tile/{*piece}", get(log::piece))
        .route(
            "/log/add-checkpoint",
            post(log::add_checkpoint).layer(DefaultBodyLimit::max(MAX_ADD_CHECKPOINT_BYTES)),
        )
        .fallback(unknown_url)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(app.config.max_body_bytes))
        .layer(from_fn_with_state(Arc::clone(&app), guard::check))
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// Names, counts and logs every request; the outermost layer.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Inner) -> Response {
    let id = app.request_id();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let pattern = matched.as_ref().map_or("(none)", MatchedPath::as_str);
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    app.metrics.request(pattern, method.as_str(), status);
    tracing::debug!(request_id = id.0, %method, path = pattern, status, "http request");
    let headers = response.headers_mut();
    headers.insert(NO_SNIFFING, HeaderValue::from_static("nosniff"));
    insert(headers, REQUEST_ID, &id.0);
    response
}

async fn chat(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    answer(app, Shape::Chat, id, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn text(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    answer(app, Shape::Text, id, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Response {
    let answered = async {
        let body = read_body(&app, request).await?;
        let asked = Embed::parse(&body, &app.config.verification)?;
        drop(body);
        embeddings::respond(Arc::clone(&app), asked).await
    };
    answered.await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    app: Arc<App>,
    shape: Shape,
    id: RequestId,
    request: Request,
) -> Result<Response, ApiError> {
    let body = read_body(&app, request).await?;
    let asked = Asked::parse(shape, &body, &app.config.verification)?;
    drop(body);
    let prefix = match shape {
        Shape::Chat => "chatcmpl",
        Shape::Text => "cmpl",
    };
    let reply = Reply {
        id: format!("{prefix}-{}", id.0),
        created: unix_seconds(),
        model: asked.model.clone(),
        fingerprint: None,
        shape,
        include_usage: asked.include_usage,
        expose_peers: app.config.exposes_peers(),
    };
    if asked.stream { streamed(app, asked, reply).await } else { whole(app, asked, reply).await }
}

pub(crate) async fn read_body(app: &App, request: Request) -> Result<Bytes, ApiError> {
    let read = Bytes::from_request(request, &());
    match tokio::time::timeout(app.config.body_timeout, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ApiError::body_too_large(app.config.max_body_bytes))
        }
        Ok(Err(_)) => Err(ApiError::malformed("the request body broke off")),
        Err(_) => Err(ApiError::body_timeout()),
    }
}

async fn streamed(app: Arc<App>, asked: Asked, mut reply: Reply) -> Result<Response, ApiError> {
    reply.fingerprint = resolve(&app, &asked.model).await;
    let (keep_alive, patience) = (app.config.keep_alive, app.config.head_wait);
    let (prompt_param, choices_per_prompt) = (asked.prompt_param(), asked.choices_per_prompt);
    let mut running = Running::start(app, asked.jobs, prompt_param).await?;
    let early = stream::head(&mut running, patience).await?;
    let body = stream::body(reply, running, early, choices_per_prompt, keep_alive);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(NO_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The fingerprint of the model that a name stands for, if it is only one.
async fn resolve(app: &App, name: &str) -> Option<String> {
    let models = app.backend.models().await;
    let mut ids = models.iter().filter(|m| m.id == name || m.name == name).map(|m| &m.id);
    match (ids.next(), ids.next()) {
        (Some(id), None) => Some(fingerprint(id)),
        _ => None,
    }
}

async fn whole(app: Arc<App>, asked: Asked, mut reply: Reply) -> Result<Response, ApiError> {
    let patience = app.config.keep_alive;
    let (prompt_param, choices_per_prompt) = (asked.prompt_param(), asked.choices_per_prompt);
    let mut running = Running::start(app, asked.jobs, prompt_param).await?;
    let mut texts = vec![String::new(); running.choices()];
    let mut reports = vec![Vec::new(); running.choices()];
    let mut outcomes: Vec<Option<Outcome>> = vec![None; running.choices()];
    while !running.finished() {
        match running.next(patience).await {
            Next::Text(index, piece, more) => {
                texts[index].push_str(&piece);
                reports[index].extend(more);
            }
            Next::Done(index, outcome, more) => {
                reports[index].extend(more);
                outcomes[index] = Some(*outcome);
            }
            Next::Failed(error) => return Err(error),
            Next::Reading(..) | Next::Started(_) | Next::Silence => {}
        }
    }
    let all = texts.into_iter().zip(reports).zip(outcomes.into_iter().flatten());
    let choices: Vec<Choice> =
        all.map(|((text, reports), outcome)| Choice { text, reports, outcome }).collect();
    let mut usage = Usage::default();
    for (index, choice) in choices.iter().enumerate() {
        usage.add(index, choices_per_prompt, &choice.outcome);
    }
    reply.fingerprint = choices.first().map(|choice| fingerprint(&choice.outcome.model_id));
    let mut response = json_response(StatusCode::OK, &reply.body(&choices, usage));
    let headers = response.headers_mut();
    insert(headers, RECEIPT, &joined(&choices, |outcome| &outcome.receipt_id));
    if reply.expose_peers {
        insert(headers, PROVIDER, &joined(&choices, |outcome| &outcome.provider));
    }
    Ok(response)
}

fn joined(choices: &[Choice], of: fn(&Outcome) -> &String) -> String {
    let values: Vec<&str> = choices.iter().map(|choice| of(&choice.outcome).as_str()).collect();
    values.join(", ")
}

/// Leaves a header out rather than fail on a value that cannot be one.
fn insert(headers: &mut axum::http::HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

async fn models(State(app): State<Arc<App>>) -> Response {
    let served = app.backend.models().await;
    let data: Vec<Value> = served.iter().map(|m| model_json(&app, &served, m)).collect();
    json_response(StatusCode::OK, &json!({"object": "list", "data": data}))
}

async fn model(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(id)) = path else {
        return ApiError::unknown_model("the model's name is not valid UTF-8".into())
            .into_response();
    };
    let served = app.backend.models().await;
    match served.iter().find(|m| m.id == id || m.name == id) {
        Some(found) => json_response(StatusCode::OK, &model_json(&app, &served, found)),
        None => {
            let shown: String = id.chars().take(128).collect();
            let message = format!("the model {shown} is not served here; GET /v1/models lists all");
            ApiError::unknown_model(message).into_response()
        }
    }
}

/// A model goes by its name, or by its id where two share the name.
fn model_json(app: &App, served: &[ServedModel], model: &ServedModel) -> Value {
    let shared = served.iter().filter(|other| other.name == model.name).count() > 1;
    let id = if shared || model.name.is_empty() { &model.id } else { &model.name };
    let mut about = json!({
        "model_id": model.id,
        "name": model.name,
        "provider_count": model.providers.len(),
        "auditor_count": model.auditors.len(),
    });
    if !model.prices.is_empty() && app.config.exposes_peers() {
        about["prices"] = json!(model.prices);
    }
    if app.config.exposes_peers() {
        about["providers"] = json!(model.providers);
        about["auditors"] = json!(model.auditors);
    }
    json!({
        "id": id,
        "object": "model",
        "created": app.started,
        "owned_by": "peerproof",
        "context_length": model.context_length,
        "max_model_len": model.context_length,
        "peerproof": about,
    })
}

/// Alive: this process answers.
async fn health() -> Response {
    json_response(StatusCode::OK, &json!({"status": "ok"}))
}

/// Ready: somebody would answer a prompt at this moment.
async fn ready(State(app): State<Arc<App>>) -> Response {
    let names: Vec<String> = app.backend.models().await.into_iter().map(|m| m.name).collect();
    if !names.is_empty() {
        return json_response(StatusCode::OK, &json!({"ready": true, "models": names}));
    }
    let peers = app.backend.status().await.peers;
    let reason = match peers {
        0 => "no peer is connected; `peerproof doctor` says why",
        _ => "no connected peer serves a model",
    };
    let body = json!({"ready": false, "models": [], "peers": peers, "reason": reason});
    let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(NOT_READY_RETRY_S));
    response
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let status = app.backend.status().await;
    let counters = app.backend.counters().await;
    let mut response =
        Response::new(Body::from(app.metrics.render(app.running(), &status, &counters)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The node's own state, for its operator: as long as peers are shown at all.
async fn status(State(app): State<Arc<App>>, request: Request) -> Response {
    if !app.config.exposes_peers() {
        return unknown_url(request).await.into_response();
    }
    json_response(StatusCode::OK, &json!(app.backend.status().await))
}

/// The peers this node knows, on the same condition.
async fn peers(State(app): State<Arc<App>>, request: Request) -> Response {
    if !app.config.exposes_peers() {
        return unknown_url(request).await.into_response();
    }
    json_response(StatusCode::OK, &json!(app.backend.peers().await))
}

/// The models that peers serve and audit, with those peers, on the same condition.
async fn served(State(app): State<Arc<App>>, request: Request) -> Response {
    if !app.config.exposes_peers() {
        return unknown_url(request).await.into_response();
    }
    json_response(StatusCode::OK, &json!(app.backend.models().await))
}

pub(crate) async fn unknown_url(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(128).collect();
    ApiError::unknown_url(request.method().as_str(), &path)
}

async fn method_not_allowed(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(128).collect();
    ApiError::method_not_allowed(request.method().as_str(), &path)
}

pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = (status, value.to_string()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
