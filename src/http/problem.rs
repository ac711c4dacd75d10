//! Refusals as answers: RFC 9457, with the house's stable code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::refusal::Refusal;

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// The code.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl Problem {
    /// A problem that is no refusal of the engine's.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// This house's own mistake.
    pub fn bug(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", detail)
    }

    /// A request that cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }
}

/// The status that a refusal is answered with.
pub fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::UnknownType { .. } | Refusal::UnknownVersion { .. } | Refusal::NotFound { .. } => {
            StatusCode::NOT_FOUND
        }
        Refusal::InvalidJson { .. } | Refusal::InvalidJob { .. } => StatusCode::BAD_REQUEST,
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::KeyConflict { .. }
        | Refusal::InvalidConfig { .. }
        | Refusal::NeedsRestart { .. }
        | Refusal::UpgradeRefused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::WrongState { .. } | Refusal::NoRollout { .. } => StatusCode::CONFLICT,
        Refusal::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Damaged { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Stopping | Refusal::Poisoned => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { status: status_of(&refusal), code: refusal.code(), detail: refusal.to_string() }
    }
}

/// A problem's members, in the order of the RFC.
#[derive(serde::Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Refused"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // For who shows it to people.
        response.extensions_mut().insert(self);
        response
    }
}
