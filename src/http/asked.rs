//! What a request asks for, beside its body: parts of its path, its query, its idempotency key. What cannot be read is refused
//! in the house's own way.

use axum::extract::{FromRequestParts, rejection};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::job::new::NewJob;
use crate::job::trace::TraceParent;
use crate::types::ChosenId;

/// The parts of the path that a route leaves open.
pub(crate) struct Path<T>(pub(crate) T);

/// The query.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(path)| Self(path))
            .map_err(|error: rejection::PathRejection| Problem::bad_request(format!("the path: {}", error.body_text())))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(query)| Self(query))
            .map_err(|error: rejection::QueryRejection| Problem::bad_request(error.body_text()))
    }
}

/// The name of the header by which a caller may give a job's idempotency key.
pub(super) const KEY_HEADER: &str = "idempotency-key";

/// The key that the `Idempotency-Key` header gives, with its quotes or without.
///
/// # Errors
/// It is none, or there is more than one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<ChosenId>, Problem> {
    let mut given = headers.get_all(KEY_HEADER).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::bad_request("the header Idempotency-Key is given twice"));
    }
    let text = value.to_str().map(str::trim).unwrap_or_default();
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let key =
        inner.parse().map_err(|bad| Problem::bad_request(format!("the header Idempotency-Key {inner:?} {bad}")))?;
    Ok(Some(key))
}

/// The header by which a caller says to which trace the jobs belong that name none.
const TRACE_HEADER: &str = "traceparent";

/// The trace that the header names.
///
/// # Errors
/// It is none, or there is more than one.
pub(super) fn trace(headers: &HeaderMap) -> Result<Option<TraceParent>, Problem> {
    let mut given = headers.get_all(TRACE_HEADER).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::bad_request("the header traceparent is given twice"));
    }
    let text = value.to_str().map(str::trim).unwrap_or_default();
    let trace = text.parse().map_err(|bad| Problem::bad_request(format!("the header traceparent {text:?} {bad}")))?;
    Ok(Some(trace))
}

/// Gives a job the key of the header; one that its body gives it, too, must be the same.
///
/// # Errors
/// They differ.
pub(super) fn set_key(job: &mut NewJob, key: Option<ChosenId>) -> Result<(), Problem> {
    let Some(key) = key else { return Ok(()) };
    match &job.idempotency_key {
        Some(other) if *other != key => {
            let (key, other) = (key.as_str(), other.as_str());
            let detail = format!(
                "the header Idempotency-Key says {key:?}, and the member idempotency_key {other:?}: give one of them"
            );
            Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail))
        }
        _ => {
            job.idempotency_key = Some(key);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn given(values: &[&'static str]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY_HEADER, HeaderValue::from_static(value));
        }
        key(&headers).map(|key| key.map(|key| key.as_str().to_owned())).map_err(|problem| problem.detail)
    }

    #[test]
    fn a_key_is_read_with_its_quotes_and_without() {
        assert_eq!(given(&[]), Ok(None));
        assert_eq!(given(&["order-17"]), Ok(Some("order-17".to_owned())));
        assert_eq!(given(&["\"order-17\""]), Ok(Some("order-17".to_owned())));
        for bad in [&["a", "a"][..], &[""], &["\"\""], &["a b"], &["\"a"]] {
            assert!(given(bad).unwrap_err().starts_with("the header Idempotency-Key "), "{bad:?}");
        }
    }
}
