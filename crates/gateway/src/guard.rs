//! Who may call: the `Host` and `Origin` allow-lists, CORS, and the API key.
//!
//! A server on loopback is within reach of every page in the user's browser.
//! Two rules close that: a request names this server by address or by a name on
//! the list, so a foreign name that resolves to loopback (DNS rebinding) is
//! refused; and a request that a page of another origin sends is refused unless
//! the origin is listed. Sessions and cookies do not exist here.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

use crate::app::App;
use crate::config::GatewayConfig;
use crate::error::ApiError;

const EXPOSED: &str = "x-request-id, x-peerproof-receipt, x-peerproof-provider, retry-after";
const PREFLIGHT_SECONDS: &str = "600";

/// The layer that every request passes before its route.
pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let host = match check_host(&app.config, &request) {
        Ok(host) => host,
        Err(error) => return error.into_response(),
    };
    let origin = match check_origin(&app.config, request.headers(), &host) {
        Ok(origin) => origin,
        Err(error) => return error.into_response(),
    };
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &origin {
        Some(_) if preflight => allow_preflight(request.headers()),
        _ => match check_key(&app.config, &request) {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        },
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// The name this server was called by, with port, if it is one of its own.
fn check_host(config: &GatewayConfig, request: &Request) -> Result<String, ApiError> {
    let refuse = |why: String| Err(ApiError::forbidden("host_not_allowed", why));
    let named = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => sole(request.headers(), HOST.as_str()),
    };
    let Some(named) = named else { return refuse("one Host header is required".into()) };
    let name = without_port(named);
    if host_is_ours(config, name) {
        return Ok(named.to_ascii_lowercase());
    }
    refuse("this server does not go by that name; add it to the allowed hosts".into())
}

/// A literal address cannot be rebound; a name has to be known.
fn host_is_ours(config: &GatewayConfig, name: &str) -> bool {
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    literal.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || config.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
        || (!config.on_loopback() && config.allowed_hosts.is_empty())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// The origin to be named in the answer, if the caller is a web page at all.
fn check_origin(
    config: &GatewayConfig,
    headers: &HeaderMap,
    host: &str,
) -> Result<Option<HeaderValue>, ApiError> {
    if !headers.contains_key(ORIGIN) {
        return Ok(None);
    }
    let listed = |origin: &str| {
        config.allowed_origins.iter().any(|o| o == "*" || o.eq_ignore_ascii_case(origin))
    };
    let own = |origin: &str| {
        origin.strip_prefix("http://").is_some_and(|named| named.eq_ignore_ascii_case(host))
    };
    match sole(headers, ORIGIN.as_str()) {
        Some(origin) if listed(origin) || own(origin) => Ok(headers.get(ORIGIN).cloned()),
        _ => {
            let why = "pages of this origin may not call; add it to the allowed origins";
            Err(ApiError::forbidden("origin_not_allowed", why.into()))
        }
    }
}

fn allow_preflight(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let out = response.headers_mut();
    out.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        out.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

/// Without a configured key any key or none will do, as on loopback.
fn check_key(config: &GatewayConfig, request: &Request) -> Result<(), ApiError> {
    let Some(key) = &config.api_key else { return Ok(()) };
    let path = request.uri().path();
    if matches!(path, "/health" | "/ready") || config.public_log && path.starts_with("/log/") {
        return Ok(());
    }
    match presented(request.headers()) {
        Some(presented) if key.matches(presented.as_bytes()) => Ok(()),
        _ => Err(ApiError::invalid_api_key()),
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = sole(headers, AUTHORIZATION.as_str()) {
        let (scheme, key) = value.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| key.trim());
    }
    sole(headers, "x-api-key")
}

/// The value of a header that stands exactly once.
fn sole<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test states what must hold")]
mod tests {
    use super::*;

    fn config(listen: &str, hosts: &[&str], origins: &[&str]) -> GatewayConfig {
        let mut config = GatewayConfig::new(listen.parse().unwrap());
        config.allowed_hosts = hosts.iter().map(|&h| h.to_owned()).collect();
        config.allowed_origins = origins.iter().map(|&o| o.to_owned()).collect();
        config
    }

    #[test]
    fn only_own_names_and_literal_addresses_are_hosts() {
        let check = |config: &GatewayConfig, host: &str, wanted: bool| {
            assert_eq!(host_is_ours(config, without_port(host)), wanted, "{host}");
        };
        let local = config("127.0.0.1:0", &["box.lan"], &[]);
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:80", "[::1]", "box.lan"]
        {
            check(&local, host, true);
        }
        for host in ["evil.example", "localhost.evil.example:80", "", ":80", "127.0.0.1.nip.io"] {
            check(&local, host, false);
        }
        let open = config("0.0.0.0:0", &[], &[]);
        check(&open, "any.example", true);
        let narrow = config("0.0.0.0:0", &["api.example"], &[]);
        check(&narrow, "any.example", false);
        check(&narrow, "api.example:443", true);
    }

    #[test]
    fn pages_call_from_listed_origins_or_from_here() {
        let check = |config: &GatewayConfig, origin: &str, wanted: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().unwrap());
            let allowed = check_origin(config, &headers, "localhost:8080").is_ok();
            assert_eq!(allowed, wanted, "{origin}");
        };
        let listed = config("127.0.0.1:0", &[], &["https://chat.example"]);
        for origin in ["https://chat.example", "http://localhost:8080"] {
            check(&listed, origin, true);
        }
        for origin in [
            "http://chat.example",
            "https://chat.example.evil",
            "null",
            "http://localhost:8081",
            "https://localhost:8080",
            "*",
        ] {
            check(&listed, origin, false);
        }
        check(&config("127.0.0.1:0", &[], &["*"]), "https://anything.example", true);
    }

    #[test]
    fn the_key_comes_as_bearer_or_in_its_own_header() {
        let check = |name: &'static str, value: &str, wanted: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(presented(&headers), wanted, "{name}: {value}");
        };
        check("authorization", "Bearer k", Some("k"));
        check("authorization", "bearer  k", Some("k"));
        check("authorization", "Basic k", None);
        check("authorization", "k", None);
        check("x-api-key", "k", Some("k"));
        let mut twice = HeaderMap::new();
        twice.append("x-api-key", HeaderValue::from_static("a"));
        twice.append("x-api-key", HeaderValue::from_static("b"));
        assert_eq!(presented(&twice), None);
    }
}
