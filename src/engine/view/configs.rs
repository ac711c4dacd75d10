//! What is shown of configs: what became of a reload, and of the last ones.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::WorkerType;

/// What became of a reload, when it is settled: every new version is up or rejected, every old one gone.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadVerdict {
    /// The generation that was made; the running one when nothing changed.
    pub generation: u64,
    /// `ok`, `unchanged`, or `partial`: at least one version could not start and its predecessor stays.
    pub verdict: &'static str,
    /// Keys beside those of types that have another value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// One line for each type that changed.
    pub types: Vec<ReloadTypeView>,
    /// How many types did not.
    pub unchanged: usize,
}

/// What a reload did to one type; in words by `Display`: `mail: rolled over from v1 to v2, changed live: timeout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadTypeView {
    /// Its name.
    #[serde(rename = "type")]
    pub worker_type: WorkerType,
    /// `added`, `removed`, `rolled_over`, `changed_live`, or `rejected`.
    pub change: Cow<'static, str>,
    /// The version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The version now, or the one that was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Its keys that have another value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Why it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl fmt::Display for ReloadTypeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |part: &Option<String>, before: &str| {
            part.as_ref().map(|part| format!("{before}{part}")).unwrap_or_default()
        };
        let (name, keys) = (&self.worker_type, self.keys.join(", "));
        match &*self.change {
            "changed_live" => return write!(f, "{name}: changed live: {keys}"),
            "rejected" => {
                let (to, from) = (of(&self.to, " "), of(&self.from, ", still "));
                write!(f, "{name}: rejected{to}{from}")?;
            }
            "added" | "removed" => write!(f, "{name}: {}{}{}", self.change, of(&self.from, " "), of(&self.to, " "))?,
            change => {
                let (from, to) = (of(&self.from, " from "), of(&self.to, " to "));
                write!(f, "{name}: {}{from}{to}", change.replace('_', " "))?;
            }
        }
        if !keys.is_empty() {
            write!(f, ", changed live: {keys}")?;
        }
        f.write_str(&of(&self.reason, ": "))
    }
}

/// What `GET /v1/generations` shows: configs, newest first.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationsView {
    /// The last ones that were accepted.
    pub generations: Vec<GenerationEntry>,
    /// The last ones that were not, since the process started.
    pub refused: Vec<RefusedView>,
}

/// A config that was accepted.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationEntry {
    /// Its number.
    pub number: u64,
    /// When it was accepted.
    pub accepted_at: String,
    /// When nothing of it was left to happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<String>,
    /// That of its reload; `rolling` until that is certain; `superseded` by the next one before it was; or `unknown`.
    pub verdict: String,
    /// Keys beside those of types that had another value than before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The types that it changed.
    pub types: Vec<ReloadTypeView>,
    /// How many more it changed than are remembered.
    #[serde(skip_serializing_if = "is_none")]
    pub left_out: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// A config that was not accepted.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedView {
    /// When.
    pub at: String,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_from_what_to_what_with_which_keys_and_why() {
        let lines = [
            (r#"{"type":"a","change":"added","to":"v1"}"#, "a: added v1"),
            (r#"{"type":"a","change":"removed","from":"v1"}"#, "a: removed v1"),
            (
                r#"{"type":"a","change":"rolled_over","from":"v1","to":"v2","keys":["timeout"]}"#,
                "a: rolled over from v1 to v2, changed live: timeout",
            ),
            (r#"{"type":"a","change":"changed_live","keys":["batch","timeout"]}"#, "a: changed live: batch, timeout"),
            (
                r#"{"type":"a","change":"rejected","from":"v1","to":"v2","reason":"no such file"}"#,
                "a: rejected v2, still v1: no such file",
            ),
        ];
        for (sent, line) in lines {
            let view: ReloadTypeView = serde_json::from_str(sent).unwrap();
            assert_eq!((view.to_string(), serde_json::to_string(&view).unwrap()), (line.to_owned(), sent.to_owned()));
        }
    }
}
