//! A job as a request: CloudEvents 1.0 in binary mode, with the headers of the Standard Webhooks scheme.
//!
//! Pure but for nothing: the time is told.

use std::fmt::Write;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request};

use super::definition::Hook;
use super::sign::signatures;
use crate::types::UnixMs;
use crate::worker::Assignment;

const CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const CE_ID: HeaderName = HeaderName::from_static("ce-id");
const CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
const CE_TYPE: HeaderName = HeaderName::from_static("ce-type");
const CE_TIME: HeaderName = HeaderName::from_static("ce-time");
const CE_WORKERVERSION: HeaderName = HeaderName::from_static("ce-workerversion");
const CE_ATTEMPT: HeaderName = HeaderName::from_static("ce-attempt");
const CE_MAXATTEMPTS: HeaderName = HeaderName::from_static("ce-maxattempts");
const CE_FENCE: HeaderName = HeaderName::from_static("ce-fence");
const CE_DEADLINE: HeaderName = HeaderName::from_static("ce-deadline");
const CE_TASK: HeaderName = HeaderName::from_static("ce-task");
const CE_TENANT: HeaderName = HeaderName::from_static("ce-tenant");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Headers for which there is room from the beginning: those above, and a few that the config adds.
const HEADERS: usize = 24;
/// Room for the values of a head, if task and tenant are no longer than usual.
const TEXT_BYTES: usize = 512;

/// Writes the heads of requests, one after the other: what does not change from one to the next is made once, and the
/// room of one serves the next.
#[derive(Default)]
pub(super) struct Writer {
    /// Empty; its room is of use.
    spare: HeaderMap,
    text: Text,
    of_version: Option<OfVersion>,
    created: Kept,
    deadline: Kept,
    sent: Kept,
}

/// What is the same for all jobs of a version.
struct OfVersion {
    worker_type: Arc<str>,
    version: Arc<str>,
    type_value: HeaderValue,
    source_value: HeaderValue,
    version_value: HeaderValue,
}

/// The value for a moment, as long as that is asked for again.
#[derive(Default)]
struct Kept(Option<(UnixMs, HeaderValue)>);

/// Room for values, used again once the requests that they were for are gone.
#[derive(Default)]
struct Text(BytesMut);

impl Writer {
    /// The request for a run, signed at `now`.
    ///
    /// # Errors
    /// In words that follow the host's name; no job that was accepted leads to it.
    pub(super) fn request(
        &mut self,
        hook: &Hook,
        job: &Assignment,
        now: UnixMs,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::new(Full::new(job.payload.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hook.uri.clone();
        let mut headers = std::mem::take(&mut self.spare);
        if headers.capacity() == 0 {
            headers.reserve(HEADERS);
        }
        self.text.0.reserve(TEXT_BYTES);
        self.write(&mut headers, hook, job, now)
            .map_err(|InvalidIn(name)| format!("cannot be sent the header {name}"))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Takes the headers of an answer: their room serves the next request.
    pub(super) fn take_back(&mut self, mut headers: HeaderMap) {
        headers.clear();
        self.spare = headers;
    }

    fn write(&mut self, headers: &mut HeaderMap, hook: &Hook, job: &Assignment, now: UnixMs) -> Result<(), InvalidIn> {
        headers.insert(HOST, hook.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("biotope/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CE_SPECVERSION, HeaderValue::from_static("1.0"));
        let of_version = of_version(&mut self.of_version, job)?;
        headers.insert(CE_SOURCE, of_version.source_value.clone());
        headers.insert(CE_TYPE, of_version.type_value.clone());
        headers.insert(CE_WORKERVERSION, of_version.version_value.clone());
        let text = &mut self.text;
        headers.insert(CE_TIME, self.created.of(job.created_ms, || value(&CE_TIME, time(job.created_ms)))?);
        headers.insert(CE_DEADLINE, self.deadline.of(job.deadline_ms, || value(&CE_DEADLINE, time(job.deadline_ms)))?);
        headers.insert(CE_ATTEMPT, text.value(&CE_ATTEMPT, job.attempt)?);
        headers.insert(CE_MAXATTEMPTS, text.value(&CE_MAXATTEMPTS, job.max_attempts)?);
        headers.insert(CE_FENCE, text.value(&CE_FENCE, job.lease.fence.as_number())?);
        // An attribute that says nothing is left out, by the specification.
        if !job.task.is_empty() {
            headers.insert(CE_TASK, text.value(&CE_TASK, Encoded(&job.task))?);
        }
        if let Some(tenant) = job.tenant.as_deref().filter(|tenant| !tenant.is_empty()) {
            headers.insert(CE_TENANT, text.value(&CE_TENANT, Encoded(tenant))?);
        }
        if let Some(trace) = job.traceparent {
            headers.insert(TRACEPARENT, text.value(&TRACEPARENT, trace)?);
        }
        let id = text.value(&WEBHOOK_ID, &*job.id)?;
        headers.insert(CE_ID, if is_plain(&job.id) { id.clone() } else { text.value(&CE_ID, Encoded(&job.id))? });
        headers.insert(WEBHOOK_ID, id);
        let seconds = now / 1000;
        let sent = self.sent.of(seconds, || value(&WEBHOOK_TIMESTAMP, seconds.to_string()))?;
        if !hook.secrets.is_empty() {
            let signed = signatures(&hook.secrets, &job.id, sent.as_bytes(), &job.payload);
            headers.insert(WEBHOOK_SIGNATURE, value(&WEBHOOK_SIGNATURE, signed)?);
        }
        headers.insert(WEBHOOK_TIMESTAMP, sent);
        for (name, value) in &hook.headers {
            headers.insert(name, value.clone());
        }
        Ok(())
    }
}

/// The header whose value cannot stand in a head.
struct InvalidIn(HeaderName);

fn value(name: &HeaderName, text: String) -> Result<HeaderValue, InvalidIn> {
    HeaderValue::from_maybe_shared(Bytes::from(text)).map_err(|_| InvalidIn(name.clone()))
}

/// The values of the version that runs the job.
fn of_version<'a>(kept: &'a mut Option<OfVersion>, job: &Assignment) -> Result<&'a OfVersion, InvalidIn> {
    let (worker_type, version) = (&job.worker_type, &job.version);
    let known = kept.take().filter(|kept| kept.worker_type == *worker_type && kept.version == *version);
    let known = match known {
        Some(known) => known,
        None => OfVersion {
            worker_type: Arc::clone(worker_type),
            version: Arc::clone(version),
            type_value: value(&CE_TYPE, worker_type.to_string())?,
            source_value: value(&CE_SOURCE, format!("/biotope/{worker_type}"))?,
            version_value: value(&CE_WORKERVERSION, version.to_string())?,
        },
    };
    Ok(kept.insert(known))
}

impl Kept {
    fn of(
        &mut self,
        moment: UnixMs,
        make: impl FnOnce() -> Result<HeaderValue, InvalidIn>,
    ) -> Result<HeaderValue, InvalidIn> {
        if let Some((_, value)) = self.0.as_ref().filter(|(of, _)| *of == moment) {
            return Ok(value.clone());
        }
        let value = make()?;
        self.0 = Some((moment, value.clone()));
        Ok(value)
    }
}

impl Text {
    fn value(&mut self, name: &HeaderName, shown: impl std::fmt::Display) -> Result<HeaderValue, InvalidIn> {
        let invalid = |_| InvalidIn(name.clone());
        write!(self.0, "{shown}").map_err(invalid)?;
        HeaderValue::from_maybe_shared(self.0.split().freeze()).map_err(|_| InvalidIn(name.clone()))
    }
}

fn time(at: UnixMs) -> String {
    let at = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A text as the CloudEvents binding writes it in a header: what is not plain ASCII, and space, quote and percent, as %XX.
struct Encoded<'a>(&'a str);

impl std::fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if is_plain(self.0) {
            return f.write_str(self.0);
        }
        for byte in self.0.bytes() {
            if is_plain_byte(byte) {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// Whether a text is written as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(is_plain_byte)
}

fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_a_header_is_encoded_as_the_binding_says() {
        assert_eq!(Encoded("resize-1/x").to_string(), "resize-1/x");
        assert_eq!(Encoded("Euro € \"100 %\"\r\n").to_string(), "Euro%20%E2%82%AC%20%22100%20%25%22%0D%0A");
    }
}
