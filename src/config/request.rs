//! The keys of an http worker.
//!
//! Owns what they may say, and that a worker has the keys of one kind only. A secret's value never stands in the config:
//! it names where the value is.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::env::env_value;
use super::section::{Gathered, Section, Value};
use super::target::{Target, is_public};
use super::{EnvValue, HttpConfig, RequestTimeouts};

/// Keys that only an http worker has.
const OF_HTTP: [&str; 6] = ["headers", "secret", "ca", "allow_private", "connect_timeout", "first_byte_timeout"];
/// Keys that an http worker has no use for.
const NOT_OF_HTTP: [&str; 13] = [
    "mode",
    "env",
    "env_pass",
    "dir",
    "user",
    "umask",
    "limits",
    "batch",
    "batch_wait",
    "kill_after",
    "timeout_max",
    "start_timeout",
    "recycle",
];
/// Headers that biotope or the connection sets itself, and prefixes of such.
const OWN_HEADERS: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const OWN_PREFIXES: [&str; 2] = ["ce-", "webhook-"];
/// Secrets that sign at the same time: the new one and the old one, and one more.
const SECRETS_MAX: usize = 3;
/// Headers of one worker.
const HEADERS_MAX: usize = 32;

/// Reads the keys of an http worker; `None` without a URL that can be used.
pub(super) fn http(gathered: &mut Gathered, section: &mut Section<'_>) -> Option<HttpConfig> {
    let allow_private = section.flag(gathered, "allow_private", false);
    let headers = headers(gathered, section);
    let secrets = secrets(gathered, section, "secret");
    let ca = section.text(gathered, "ca").map(|(path, _)| PathBuf::from(path));
    let (url, span) = section.text(gathered, "http")?;
    let target = match Target::parse(&url) {
        Ok(target) => target,
        Err(help) => {
            gathered.add(span, format!("`{}` cannot be {url:?}", section.path_of("http")), help);
            return None;
        }
    };
    if let Some(address) = target.address().filter(|address| !allow_private && !is_public(*address)) {
        let message = format!("`{}` leads to {address}, which is no public address", section.path_of("http"));
        gathered.add(span, message, "set allow_private = true if this worker shall call it");
    }
    Some(HttpConfig { target, headers, secrets, ca, allow_private })
}

/// Reads how long a request may wait.
pub(super) fn timeouts(gathered: &mut Gathered, section: &mut Section<'_>) -> RequestTimeouts {
    let default = RequestTimeouts::default();
    let range = Duration::from_millis(10)..=Duration::from_secs(3600);
    RequestTimeouts {
        connect: section.duration(gathered, "connect_timeout", default.connect, range.clone()),
        first_byte: section.duration(gathered, "first_byte_timeout", default.first_byte, range),
    }
}

/// Every key that belongs to another kind than the worker's is a problem.
pub(super) fn foreign_keys(gathered: &mut Gathered, section: &mut Section<'_>, is_http: bool) {
    let foreign: &[&'static str] = if is_http { &NOT_OF_HTTP } else { &OF_HTTP };
    for key in foreign.iter().copied() {
        let Some(span) = section.get(gathered, key).map(toml::Spanned::span) else { continue };
        let (whose, help) = if is_http {
            ("is no key of an http worker", "leave it out: every job is a request of its own")
        } else {
            ("is a key of http workers only", "leave it out, or make it an http worker: http = \"https://…\"")
        };
        gathered.add(span, format!("`{}` {whose}", section.path_of(key)), help);
    }
}

fn headers(gathered: &mut Gathered, section: &mut Section<'_>) -> Vec<(String, EnvValue)> {
    let path = section.path_of("headers");
    let Some(value) = section.get(gathered, "headers") else { return Vec::new() };
    let Some(table) = value.get_ref().as_table() else {
        let help = "write headers = { Authorization = { from = \"VARIABLE\" } }";
        gathered.add(value.span(), format!("`{path}` is {}, not a table", super::section::kind(value)), help);
        return Vec::new();
    };
    if table.len() > HEADERS_MAX {
        gathered.add(value.span(), format!("`{path}` holds {} headers, the most is {HEADERS_MAX}", table.len()), "");
    }
    let mut headers = Vec::new();
    for (name, value) in table {
        let key = name.get_ref().to_ascii_lowercase();
        gathered.places.spans.insert(format!("{path}.{key}"), value.span());
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let own = OWN_HEADERS.contains(&key.as_str()) || OWN_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
        if key.is_empty() || !key.chars().all(token) || own {
            let help =
                "letters, digits and dashes; ce-…, webhook-… and those of the connection are set by biotope itself";
            gathered.add(name.span(), format!("{:?} cannot be a header here", name.get_ref()), help);
        } else if headers.iter().any(|(other, _)| *other == key) {
            gathered.add(name.span(), format!("header {:?} is given twice", name.get_ref()), "leave one of them");
        } else if let Some(read) = env_value(gathered, value, &format!("{path}.{key}")) {
            headers.push((key, read));
        }
    }
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// One secret, or a list of them.
pub(super) fn secrets(gathered: &mut Gathered, section: &mut Section<'_>, key: &'static str) -> Vec<EnvValue> {
    let path = section.path_of(key);
    let Some(value) = section.get(gathered, key) else { return Vec::new() };
    let DeValue::Array(list) = value.get_ref() else {
        return secret(gathered, value, &path).into_iter().collect();
    };
    if list.is_empty() || list.len() > SECRETS_MAX {
        let help = "write one secret, or a list of the new one and the old one";
        gathered.add(value.span(), format!("`{path}` holds {} secrets, not 1 to {SECRETS_MAX}", list.len()), help);
    }
    list.iter().filter_map(|one| secret(gathered, one, &path)).collect()
}

fn secret(gathered: &mut Gathered, value: Value<'_>, path: &str) -> Option<EnvValue> {
    if value.get_ref().as_table().is_none() {
        let help = "name where it is: { from = \"VARIABLE\" }, or { file = \"path\" }";
        gathered.add(value.span(), format!("`{path}` must not stand in the config itself"), help);
        return None;
    }
    env_value(gathered, value, path)
}
