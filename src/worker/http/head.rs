//! A job as a request: CloudEvents 1.0 in binary mode, with the headers of the Standard Webhooks scheme.
//!
//! Pure but for nothing: the time is told.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request};

use super::definition::Hook;
use super::sign::signatures;
use crate::types::UnixMs;
use crate::worker::Assignment;

/// The request for a run, signed at `now`.
///
/// # Errors
/// In words that follow the host's name; no job that was accepted leads to it.
pub(super) fn request(hook: &Hook, job: &Assignment, now: UnixMs) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(hook.target.path.as_str())
        .body(Full::new(job.payload.clone()))
        .map_err(|error| format!("cannot be sent a request: {error}"))?;
    let headers = request.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).map_err(|_| format!("cannot be sent the header {name}"))?;
        headers.insert(HeaderName::from_static(name), value);
        Ok::<_, String>(())
    };
    set("host", &hook.target.authority)?;
    set("user-agent", concat!("biotope/", env!("CARGO_PKG_VERSION")))?;
    set("content-type", "application/json")?;
    set("ce-specversion", "1.0")?;
    set("ce-id", &encoded(&job.id))?;
    set("ce-source", &format!("/biotope/{}", job.worker_type))?;
    set("ce-type", &job.worker_type)?;
    set("ce-time", &time(job.created_ms))?;
    set("ce-workerversion", &job.version)?;
    set("ce-attempt", &job.attempt.to_string())?;
    set("ce-maxattempts", &job.max_attempts.to_string())?;
    set("ce-fence", &job.lease.fence.as_number().to_string())?;
    set("ce-deadline", &time(job.deadline_ms))?;
    // An attribute that says nothing is left out, by the specification.
    if !job.task.is_empty() {
        set("ce-task", &encoded(&job.task))?;
    }
    if let Some(tenant) = job.tenant.as_deref().filter(|tenant| !tenant.is_empty()) {
        set("ce-tenant", &encoded(tenant))?;
    }
    let seconds = (now / 1000).to_string();
    set("webhook-id", &job.id)?;
    set("webhook-timestamp", &seconds)?;
    if !hook.secrets.is_empty() {
        set("webhook-signature", &signatures(&hook.secrets, &job.id, &seconds, &job.payload))?;
    }
    for (name, value) in &hook.headers {
        headers.insert(name, value.clone());
    }
    Ok(request)
}

fn time(at: UnixMs) -> String {
    let at = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A text as the CloudEvents binding writes it in a header: what is not plain ASCII, and space, quote and percent, as %XX.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_a_header_is_encoded_as_the_binding_says() {
        assert_eq!(encoded("resize-1/x"), "resize-1/x");
        assert_eq!(encoded("Euro € \"100 %\"\r\n"), "Euro%20%E2%82%AC%20%22100%20%25%22%0D%0A");
    }
}
