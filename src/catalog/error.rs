//! Refusals, as the specification words them: `{"error": {"message", "type", "code"}}`.

use std::fmt;

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer;
use super::route::Namespace;

/// Names in messages are cut here.
const NAME_MAX: usize = 300;

/// Why a request is not answered.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    /// The name of the exception that clients make of it.
    kind: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl fmt::Display) -> Self {
        Self {
            status,
            kind,
            message: message.to_string(),
        }
    }

    pub(super) fn bad_request(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    pub(super) fn too_large() -> Self {
        let message = "the body of the request is too long";
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BadRequestException",
            message,
        )
    }

    pub(super) fn no_resource() -> Self {
        let message = "the catalog has no such resource";
        Self::new(StatusCode::NOT_FOUND, "NotFoundException", message)
    }

    pub(super) fn no_namespace(namespace: &Namespace) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NoSuchNamespaceException",
            format_args!(
                "Namespace does not exist: {}",
                Shown(&namespace.to_string())
            ),
        )
    }

    pub(super) fn no_table(namespace: &Namespace, name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NoSuchTableException",
            format_args!(
                "Table does not exist: {}",
                Shown(&format!("{namespace}.{name}"))
            ),
        )
    }

    pub(super) fn no_view(namespace: &Namespace, name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NoSuchViewException",
            format_args!(
                "View does not exist: {}",
                Shown(&format!("{namespace}.{name}"))
            ),
        )
    }

    /// 403 is what the specification lists for every operation that changes something, and what
    /// clients report with its message.
    pub(super) fn read_only(method: &Method) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "ForbiddenException",
            format_args!(
                "{method}: the catalog is for reading; tables are what topics have become"
            ),
        )
    }

    pub(super) fn method(method: &Method) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UnsupportedOperationException",
            format_args!("{method} means nothing here"),
        )
    }

    /// The quorum or the store does not answer now.
    pub(super) fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailableException",
            message,
        )
    }

    /// The store does not hold what it should.
    pub(super) fn damaged(message: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            message,
        )
    }

    /// Whether it is the cluster's fault and not the client's.
    pub(super) fn is_ours(&self) -> bool {
        self.status.is_server_error()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": {
            "message": self.message,
            "type": self.kind,
            "code": self.status.as_u16(),
        }});
        let mut response = answer::json(self.status, &body);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

/// A name that a client chose, cut if it is long.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(NAME_MAX) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}
