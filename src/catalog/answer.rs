//! Answers that depend on nothing but the request.

use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::error::Refusal;
use super::route::Namespace;

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    (status, JSON, body.to_string()).into_response()
}

pub(super) fn ok(body: &Value) -> Response {
    json(StatusCode::OK, body)
}

pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// In the words of OAuth 2 (RFC 6749, section 5.2), as clients expect them there.
pub(super) fn no_tokens() -> Response {
    let body = json!({
        "error": "unsupported_grant_type",
        "error_description": "this catalog asks for no tokens and gives out none",
    });
    json(StatusCode::BAD_REQUEST, &body)
}

pub(super) fn namespace(namespace: &Namespace, method: &Method) -> Result<Response, Refusal> {
    namespace.existing()?;
    Ok(match *method {
        Method::HEAD => no_content(),
        _ => ok(&json!({"namespace": [super::NAMESPACE], "properties": {}})),
    })
}

pub(super) fn views(namespace: &Namespace) -> Result<Response, Refusal> {
    namespace.existing()?;
    Ok(ok(&json!({"identifiers": [], "next-page-token": null})))
}
