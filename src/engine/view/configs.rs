//! What is shown of configs: what became of a reload, and of the last ones.

use std::borrow::Cow;

use serde::Serialize;

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

/// What a reload did to one type.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadTypeView {
    /// Its name.
    #[serde(rename = "type")]
    pub worker_type: WorkerType,
    /// `added`, `removed`, `rolled_over`, `changed_live`, or `rejected`.
    pub change: Cow<'static, str>,
    /// The version before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The version now, or the one that was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Its keys that have another value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
