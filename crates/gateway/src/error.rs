//! What a client sees when there is no answer: OpenAI's error object and the
//! status that its client libraries act on.
//!
//! Every failure of this crate that reaches a client is an [`ApiError`]; it is
//! built either by the request parser or from an [`AskError`]. The same object
//! is a response body before a stream begins and a `data:` line after it began.
//! Retrying is decided here in one place: the node has tried every candidate
//! before it gives up, so such errors say `x-should-retry: false`, and only
//! errors that pass by themselves carry `Retry-After`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use peerproof::client::AskError;
use serde_json::{Value, json};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

const NO_PROVIDER_RETRY_MS: u64 = 3_000;
const UNAVAILABLE_RETRY_MS: u64 = 1_000;

/// A busy provider says itself how long it will be; no client should wait for ever.
const MOST_RETRY_MS: u64 = 60_000;

/// An error as a client gets it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
    param: Option<String>,
    evidence: Option<String>,
    retry: Retry,
}

/// What the client library should do about the error.
#[derive(Clone, Copy, Debug)]
enum Retry {
    AfterMs(u64),
    Never,
    Unsaid,
}

impl ApiError {
    /// The request is wrong; `param` is the path of the wrong value.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::bad_request("invalid_value", Some(param.into()), message.into())
    }

    /// The body is not a JSON object.
    pub(crate) fn malformed(message: impl Into<String>) -> ApiError {
        ApiError::bad_request("invalid_json", None, message.into())
    }

    /// A parameter that would change the answer and that the engine cannot honour.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::bad_request("unsupported_parameter", Some(param.into()), message.into())
    }

    fn bad_request(code: &'static str, param: Option<String>, message: String) -> ApiError {
        let mut error = ApiError::new(StatusCode::BAD_REQUEST, code, message);
        error.0.param = param;
        error
    }

    fn new(status: StatusCode, code: &'static str, message: String) -> ApiError {
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let retry = Retry::Unsaid;
        ApiError(Box::new(Parts {
            status,
            kind,
            code,
            message,
            param: None,
            evidence: None,
            retry,
        }))
    }

    fn retry(mut self, retry: Retry) -> ApiError {
        self.0.retry = retry;
        self
    }

    pub(crate) fn unknown_model(message: String) -> ApiError {
        let mut error = ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message);
        error.0.param = Some("model".into());
        error
    }

    pub(crate) fn unknown_check() -> ApiError {
        let message =
            "no check of such a job is remembered; only an answer in mode fraud_proof has one";
        ApiError::new(StatusCode::NOT_FOUND, "unknown_check", message.into())
    }

    pub(crate) fn unknown_url(method: &str, path: &str) -> ApiError {
        let message = format!("no such endpoint: {method} {path}; see docs/openai.md for the list");
        ApiError::new(StatusCode::NOT_FOUND, "unknown_url", message)
    }

    pub(crate) fn method_not_allowed(method: &str, path: &str) -> ApiError {
        let message = format!("{path} does not answer {method}");
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(crate) fn invalid_api_key() -> ApiError {
        let message =
            "the API key is missing or wrong; send `Authorization: Bearer KEY` or `x-api-key: KEY`";
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message.into())
    }

    pub(crate) fn forbidden(code: &'static str, message: String) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(crate) fn body_too_large(limit_bytes: usize) -> ApiError {
        let message = format!("the request body is larger than {limit_bytes} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    pub(crate) fn body_timeout() -> ApiError {
        let message = "the request body did not arrive in time";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message.into())
            .retry(Retry::Never)
    }

    pub(crate) fn too_many(limit: usize, retry_after_ms: u64) -> ApiError {
        let message = format!("{limit} answers are under way here already; try again shortly");
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
            .retry(Retry::AfterMs(retry_after_ms))
    }

    pub(crate) fn stopping() -> ApiError {
        let message = "this node is stopping; the answer is cut off here";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message.into())
            .retry(Retry::AfterMs(UNAVAILABLE_RETRY_MS))
    }

    /// The node dropped a job without a word.
    pub(crate) fn silent_end() -> ApiError {
        let message = "the answer ended without a receipt and counts as failed";
        ApiError::new(StatusCode::BAD_GATEWAY, "incomplete", message.into()).retry(Retry::Never)
    }

    /// The error of a job. Without `expose`, peer ids and file paths stay here.
    pub(crate) fn from_ask(error: &AskError, expose: bool) -> ApiError {
        let said = error.to_string();
        match error {
            AskError::NoProvider { model, .. } => {
                let hidden = || format!("no provider of {model} was found");
                let message = if expose { said } else { hidden() };
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_provider", message)
                    .retry(Retry::AfterMs(NO_PROVIDER_RETRY_MS))
            }
            AskError::UnknownModel { .. } => ApiError::unknown_model(said),
            AskError::ContextLength { .. } => {
                ApiError::bad_request("context_length_exceeded", Some("messages".into()), said)
            }
            AskError::TooLarge { .. } => {
                ApiError::bad_request("context_length_exceeded", Some("messages".into()), said)
            }
            AskError::Invalid { parameter, message } => {
                ApiError::invalid(parameter.clone(), message.clone())
            }
            AskError::Busy { retry_after_ms } => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "providers_busy", said)
                    .retry(Retry::AfterMs((*retry_after_ms).min(MOST_RETRY_MS)))
            }
            AskError::Failed { .. } => {
                let hidden = "no provider finished the answer".into();
                let message = if expose { said } else { hidden };
                ApiError::new(StatusCode::BAD_GATEWAY, "providers_failed", message)
                    .retry(Retry::Never)
            }
            AskError::Refused { evidence, .. } => ApiError::refused(said, evidence, expose),
            AskError::Deadline { .. } => {
                ApiError::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", said)
                    .retry(Retry::Never)
            }
            _ => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", said)
                .retry(Retry::AfterMs(UNAVAILABLE_RETRY_MS)),
        }
    }

    fn refused(said: String, evidence: &str, expose: bool) -> ApiError {
        let hidden = "the answer did not survive its check and was refused".into();
        let message = if expose { said } else { hidden };
        let mut error = ApiError::new(StatusCode::BAD_GATEWAY, "verification_failed", message)
            .retry(Retry::Never);
        error.0.evidence = expose.then(|| evidence.to_owned());
        error
    }

    /// Names `param` as the place where a long context came in.
    pub(crate) fn at_prompt(mut self, param: &str) -> ApiError {
        if self.0.code == "context_length_exceeded" {
            self.0.param = Some(param.to_owned());
        }
        self
    }

    /// `{"error": …}`, the same in a body and in a stream.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = json!({
            "message": self.0.message,
            "type": self.0.kind,
            "param": self.0.param,
            "code": self.0.code,
        });
        if let Some(evidence) = &self.0.evidence {
            error["evidence"] = json!(evidence);
        }
        json!({ "error": error })
    }

    /// The stable word for this error, for logs and metrics.
    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.0.status, self.to_json().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        match self.0.retry {
            Retry::AfterMs(ms) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
                headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
            }
            Retry::Never => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Retry::Unsaid => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> AskError {
        AskError::Refused {
            provider: "12D3liar".into(),
            reason: "leaf 7 differs".into(),
            evidence: "/home/u/evidence/7.json".into(),
        }
    }

    #[test]
    fn each_failure_has_its_status_and_code() {
        let check = |error: AskError, status: u16, code: &str| {
            let api = ApiError::from_ask(&error, true);
            assert_eq!((api.0.status.as_u16(), api.0.code), (status, code), "{error}");
        };
        let text = String::new;
        check(AskError::NoProvider { model: text(), reason: text() }, 503, "no_provider");
        check(AskError::UnknownModel { model: text(), available: text() }, 404, "model_not_found");
        let (model, message) = ("m".into(), "needs 2, has 1".into());
        check(AskError::TooLarge { model, message }, 400, "context_length_exceeded");
        check(AskError::ContextLength { limit: 1, requested: 2 }, 400, "context_length_exceeded");
        check(AskError::Invalid { parameter: text(), message: text() }, 400, "invalid_value");
        check(AskError::Busy { retry_after_ms: 5 }, 503, "providers_busy");
        check(AskError::Failed { trail: vec![] }, 502, "providers_failed");
        check(refused(), 502, "verification_failed");
        check(AskError::Deadline { deadline_ms: 1 }, 504, "deadline_exceeded");
        check(AskError::Unavailable(text()), 503, "unavailable");
    }

    #[test]
    fn retry_after_rounds_up_and_is_never_zero_nor_for_ever() {
        for (ms, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (u64::MAX, "60")] {
            let error = ApiError::from_ask(&AskError::Busy { retry_after_ms: ms }, true);
            assert_eq!(error.into_response().headers()[RETRY_AFTER], seconds);
        }
    }

    #[test]
    fn a_final_failure_asks_not_to_be_retried() {
        let response = ApiError::from_ask(&refused(), true).into_response();
        assert_eq!(response.headers()[SHOULD_RETRY], "false");
        assert!(response.headers().get(RETRY_AFTER).is_none());
    }

    #[test]
    fn peers_and_paths_stay_inside_unless_exposed() {
        let open = ApiError::from_ask(&refused(), true).to_json().to_string();
        assert!(open.contains("12D3liar") && open.contains("evidence/7.json"));
        let closed = ApiError::from_ask(&refused(), false).to_json().to_string();
        assert!(!closed.contains("12D3liar") && !closed.contains("evidence/7.json"));
    }

    #[test]
    fn param_is_null_when_no_parameter_is_to_blame() {
        let json = ApiError::invalid_api_key().to_json();
        assert!(json["error"]["param"].is_null());
        assert_eq!(json["error"]["code"], "invalid_api_key");
    }
}
