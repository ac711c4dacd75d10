//! What a service's answer means for its job.
//!
//! Owns the bound of what is read of it, and how long `Retry-After` may have a job wait.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Response, StatusCode};

use super::connect::{Connection, in_full};
use super::definition::Hook;
use crate::limits::ERROR_BYTES_MAX;
use crate::types::UnixMs;
use crate::worker::Outcome;
use crate::worker::answer::done;
use crate::worker::output::{error_text, front, result_of};

/// Longest pause that a service may ask for by `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// Content type of an answer that may hold follow-up jobs.
const WITH_FOLLOW_UPS: &str = "application/vnd.biotope+json";

/// An answer, as far as it was read.
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Whether the body was read to its end.
    whole: bool,
}

impl Answer {
    /// Reads a response; of a body that is larger than is of use, only the front.
    ///
    /// # Errors
    /// It broke off; in words that follow the host's name.
    pub(super) async fn read(
        response: Response<Incoming>,
        connection: &mut Connection,
        result_max: usize,
    ) -> Result<Self, String> {
        let (parts, mut body) = response.into_parts();
        // A text result of the largest size may have a newline at its end.
        let most = if parts.status.is_success() { result_max.saturating_add(1) } else { ERROR_BYTES_MAX };
        let mut answer = Self { status: parts.status, headers: parts.headers, body: Vec::new(), whole: true };
        while let Some(frame) = connection.until(body.frame()).await {
            let data = match frame {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                // What is known of a failure is worth more than that its explanation broke off.
                Err(_) if !answer.status.is_success() => {
                    answer.whole = false;
                    break;
                }
                Err(error) => return Err(format!("answered {}, and broke off: {}", parts.status, in_full(&error))),
            };
            let room = most.saturating_sub(answer.body.len());
            answer.body.extend_from_slice(data.get(..room).unwrap_or(&data));
            if data.len() > room {
                answer.whole = false;
                break;
            }
        }
        Ok(answer)
    }

    /// Whether the body was read to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Its headers, when nothing of them is needed any more.
    pub(super) fn into_headers(self) -> HeaderMap {
        self.headers
    }

    /// The outcome that it stands for. Few need to know what time it is.
    pub(super) fn outcome(&self, hook: &Hook, now: &dyn Fn() -> UnixMs) -> Outcome {
        let error = || {
            let said = String::from_utf8_lossy(&self.body);
            error_text(&format!("{} answered {}", hook.target.host, self.status), front(&said, ERROR_BYTES_MAX))
        };
        match self.status.as_u16() {
            200..=299 => self.done(hook, now),
            408 | 425 | 429 | 500..=599 => Outcome::Defer { error: error(), after: self.retry_after(now) },
            400..=499 => Outcome::Dead { error: error() },
            300..=399 => Outcome::Fail { error: format!("{}; redirects are not followed", error()), killed: false },
            _ => Outcome::Fail { error: error(), killed: false },
        }
    }

    fn done(&self, hook: &Hook, now: &dyn Fn() -> UnixMs) -> Outcome {
        let limits = hook.limits;
        let taken = if !self.whole {
            Err(format!("with more than {} bytes (`result_max`)", limits.result_max))
        } else if self.may_hold_follow_ups() {
            serde_json::from_slice(&self.body)
                .map_err(|error| error.to_string())
                .and_then(|answer| done(answer, limits, now()))
                .map_err(|why| format!("but its {WITH_FOLLOW_UPS} cannot be taken: {why}"))
        } else {
            result_of(&self.body, limits.result_max)
                .map(|result| (result, Vec::new()))
                .map_err(|why| format!("but {why}"))
        };
        match taken {
            Ok((result, enqueue)) => Outcome::Done { result, enqueue },
            Err(why) => Outcome::Fail {
                error: error_text(&format!("{} answered {}, {why}", hook.target.host, self.status), ""),
                killed: false,
            },
        }
    }

    fn may_hold_follow_ups(&self) -> bool {
        let given = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(WITH_FOLLOW_UPS)
    }

    /// The pause that the service asks for: seconds, or a date. None where that is now or past: at once it would ask again.
    fn retry_after(&self, now: &dyn Fn() -> UnixMs) -> Option<Duration> {
        let given = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let pause = Self::pause(given, now)?;
        (!pause.is_zero()).then(|| pause.min(RETRY_AFTER_MAX))
    }

    fn pause(given: &str, now: &dyn Fn() -> UnixMs) -> Option<Duration> {
        if !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than fit are longer than the longest pause, too.
            return Some(given.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs));
        }
        let at = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(given).ok()?;
        let at = u64::try_from(at.as_millisecond()).unwrap_or_default();
        Some(Duration::from_millis(at.saturating_sub(now())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(given: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, given.parse().unwrap())]);
        let answer = Answer { status: StatusCode::TOO_MANY_REQUESTS, headers, body: Vec::new(), whole: true };
        // Sun, 06 Nov 1994 08:49:37 GMT.
        answer.retry_after(&|| 784_111_777_000)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        // It would be asked again at once, a hundred times.
        assert_eq!((after("0"), after("Sun, 06 Nov 1994 08:49:37 GMT")), (None, None));
        assert_eq!(after("99999999999999999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Sun, 06 Nov 1994 08:40:00 GMT"), None);
        assert_eq!(after("Sun, 06 Nov 2094 08:49:37 GMT"), Some(RETRY_AFTER_MAX));
        for nonsense in ["", "soon", "-1", "1.5", "Sun"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
    }
}
