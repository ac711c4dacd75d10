//! The shapes of what is sent and answered, member by member; a test compares answers of a running biotope with them.

use serde_json::{Map, Value, json};

/// Members of an object: name, with `?` behind it where it may be left out, and kind, as [`kind`] reads it.
type Members = &'static [(&'static str, &'static str)];

const JOB_STATES: &str = "enum:ready,delayed,reserved,parked,dead,completed,cancelled,expired,discarded";

/// All of them, by name.
pub(super) fn schemas() -> Value {
    let mut all: Map<String, Value> =
        OBJECTS.iter().map(|(name, says, members)| ((*name).to_owned(), object(says, members))).collect();
    all.insert("NewJob".to_owned(), new_job());
    Value::Object(all)
}

fn object(says: &str, members: Members) -> Value {
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let properties: Map<String, Value> =
        members.iter().map(|(name, of)| (name.trim_end_matches('?').to_owned(), kind(of))).collect();
    json!({
        "type": "object",
        "description": says,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// `string`, `integer`, `number`, `boolean`, `any`, `time` (RFC 3339), `list:KIND`, `null:KIND` (or null), `enum:A,B`; every other
/// word is the name of a schema.
fn kind(of: &str) -> Value {
    if let Some(of) = of.strip_prefix("list:") {
        return json!({ "type": "array", "items": kind(of) });
    }
    if let Some(of) = of.strip_prefix("null:") {
        return json!({ "anyOf": [kind(of), { "type": "null" }] });
    }
    if let Some(words) = of.strip_prefix("enum:") {
        return json!({ "enum": words.split(',').collect::<Vec<_>>() });
    }
    match of {
        "any" => json!({}),
        "time" => json!({ "type": "string", "format": "date-time" }),
        "string" | "integer" | "number" | "boolean" => json!({ "type": of }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

/// What [`crate::types::ChosenId`] takes.
const CHOSEN_ID: &str = r"^[!$&(-,0->@-\[\]-~][!$&(-.0->@-\[\]-~]{0,127}$";

/// A job as it is sent.
fn new_job() -> Value {
    let name = json!({ "type": ["string", "null"], "pattern": CHOSEN_ID });
    let time = json!({ "type": ["string", "null"], "format": "date-time" });
    json!({
        "type": "object",
        "description": "A job to be enqueued. A member that is null counts as left out. `type` may be left out where the query has it.",
        "additionalProperties": false,
        "properties": {
            "type": { "type": ["string", "null"], "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$" },
            "task": { "type": ["string", "null"], "maxLength": 256 },
            "payload": { "description": "Any JSON, `log.payload_max` bytes at most." },
            "id": name,
            "priority": { "type": ["integer", "null"], "minimum": 0, "maximum": 9, "default": 5 },
            "tenant": { "type": ["string", "null"], "maxLength": 128 },
            "run_at": time,
            "delay": { "type": ["string", "null"], "pattern": "^[0-9]+(ms|s|m|h|d)$" },
            "expires_at": time,
            "max_attempts": { "type": ["integer", "null"], "minimum": 1, "maximum": 10000 },
            "min_version": { "type": ["string", "null"], "pattern": "^[A-Za-z0-9_+][A-Za-z0-9._+-]{0,63}$" },
            "idempotency_key": name,
            "traceparent": { "type": ["string", "null"], "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$" },
        },
    })
}

/// Name, description, members.
const OBJECTS: &[(&str, &str, Members)] = &[
    (
        "Problem",
        "A refusal (RFC 9457). `code` stays the same; `detail` is for people.",
        &[("type", "string"), ("title", "string"), ("status", "integer"), ("code", "string"), ("detail", "string")],
    ),
    (
        "Pushed",
        "A job that was enqueued.",
        &[("id", "string"), ("type", "string"), ("state", JOB_STATES), ("duplicate?", "boolean")],
    ),
    ("JobPage", "Jobs, and where the next page begins.", &[("jobs", "list:Job"), ("next_cursor", "null:string")]),
    (
        "Job",
        "A job.",
        &[
            ("id", "string"),
            ("type", "string"),
            ("state", JOB_STATES),
            ("why?", "string"),
            ("task", "string"),
            ("payload?", "any"),
            ("priority", "integer"),
            ("tenant?", "string"),
            ("idempotency_key?", "string"),
            ("attempts", "integer"),
            ("max_attempts", "integer"),
            ("min_version?", "string"),
            ("interrupts", "integer"),
            ("deferrals", "integer"),
            ("host_deaths", "integer"),
            ("created_at", "time"),
            ("ready_at?", "time"),
            ("expires_at?", "time"),
            ("ended_at?", "time"),
            ("version?", "string"),
            ("progress?", "Progress"),
            ("extended_until?", "time"),
            ("result?", "any"),
            ("error?", "string"),
            ("parent?", "string"),
            ("traceparent?", "string"),
            ("failures?", "list:Failure"),
        ],
    ),
    (
        "Progress",
        "How far a run is, by its worker's word.",
        &[("fraction?", "number"), ("text?", "string"), ("at", "time"), ("age_ms", "integer")],
    ),
    (
        "Failure",
        "A failed attempt; attempt 0 cost none.",
        &[("attempt", "integer"), ("at", "time"), ("version?", "string"), ("worker?", "integer"), ("error", "string")],
    ),
    (
        "Timeline",
        "What became of a job, as far as the log says; `whole`: that is all of it.",
        &[("steps", "list:Step"), ("whole", "boolean"), ("enqueued", "list:string")],
    ),
    (
        "Step",
        "A step of a job's life. The worker is named by its number within its version's pool, where it has one.",
        &[
            (
                "what",
                "enum:accepted,running,completed,failed,failed_uncharged,died,given_back,deferred,not_started,lost,redriven,cancelled,expired,discarded",
            ),
            ("at_ms", "integer"),
            ("version?", "string"),
            ("worker?", "integer"),
            ("took_ms?", "integer"),
            ("says?", "string"),
            ("until_ms?", "integer"),
        ],
    ),
    (
        "Why",
        "Why a job is not running now.",
        &[
            ("id", "string"),
            ("state", JOB_STATES),
            (
                "reason",
                "enum:behind,turn,not_due,paused,parked,not_up,no_workers,disk_full,stopping,reserved,dead,ended",
            ),
            ("why", "string"),
        ],
    ),
    ("Purged", "How many jobs ended.", &[("type", "string"), ("purged", "integer")]),
    ("Retried", "How many jobs may run again.", &[("type", "string"), ("failed_on", "string"), ("retried", "integer")]),
    (
        "PausedType",
        "Whether a type is paused, and since when.",
        &[("type", "string"), ("paused", "boolean"), ("since_ms", "null:integer")],
    ),
    (
        "Rollout",
        "What somebody's word about a rollover led to.",
        &[
            ("type", "string"),
            ("done", "enum:paused,resumed,promoted,withdrawn,rolled back,started"),
            ("trial?", "Trial"),
            ("versions", "list:Version"),
        ],
    ),
    (
        "Ecosystem",
        "Everything that lives here.",
        &[
            ("types", "list:Type"),
            ("log", "Log"),
            ("history", "History"),
            ("generation", "Generation"),
            ("started_at_ms", "integer"),
            ("stopping", "boolean"),
            ("binary?", "Binary"),
        ],
    ),
    (
        "Type",
        "A worker type and its queue.",
        &[
            ("type", "string"),
            ("ready", "integer"),
            ("delayed", "integer"),
            ("reserved", "integer"),
            ("parked", "integer"),
            ("dead", "integer"),
            ("enqueued", "integer"),
            ("completed", "integer"),
            ("failed", "integer"),
            ("cancelled", "integer"),
            ("expired", "integer"),
            ("discarded", "integer"),
            ("oldest_ms", "integer"),
            ("retries_held_ms", "integer"),
            ("paused", "boolean"),
            ("configured", "boolean"),
            ("run_ms?", "Shares"),
            ("wait_ms?", "Shares"),
            ("per_second", "number"),
            ("failures_per_second", "number"),
            ("scale?", "Scale"),
            ("trial?", "Trial"),
            ("storm?", "boolean"),
            ("versions", "list:Version"),
        ],
    ),
    (
        "Shares",
        "What half, 95 and 99 of 100 took at most, in ms.",
        &[("p50", "number"), ("p95", "number"), ("p99", "number")],
    ),
    (
        "Scale",
        "How many workers a type shall have, and why.",
        &[
            ("min", "integer"),
            ("max", "integer"),
            ("target_wait_ms", "integer"),
            ("workers", "integer"),
            ("reason", "string"),
        ],
    ),
    (
        "Trial",
        "A version on trial beside the one before (docs/rollover.md).",
        &[
            ("version", "string"),
            ("baseline", "string"),
            ("state", "enum:first_jobs,ramp,probation,suspected"),
            ("percent", "integer"),
            ("steps", "list:integer"),
            ("paused", "boolean"),
            ("held_for_ms?", "integer"),
            ("samples", "integer"),
            ("samples_missing", "integer"),
            ("says", "string"),
            ("slower?", "string"),
            ("evidence", "Evidence"),
        ],
    ),
    (
        "Evidence",
        "What speaks for and against it.",
        &[("incoming", "Arm"), ("baseline", "Arm"), ("before", "any"), ("e_value", "number"), ("needed", "number")],
    ),
    (
        "Arm",
        "First attempts on a version.",
        &[
            ("attempts", "integer"),
            ("failed_then_passed", "integer"),
            ("failed_twice", "integer"),
            ("left_out", "integer"),
        ],
    ),
    (
        "Version",
        "A version of a type (docs/health.md).",
        &[
            ("version", "string"),
            ("state", "enum:starting,gating,ramping,current,draining,warm,retired,rejected,quarantined"),
            ("configured", "boolean"),
            ("pool_size", "integer"),
            ("busy", "integer"),
            ("percent", "integer"),
            ("run_ms?", "Shares"),
            ("wait_ms?", "Shares"),
            ("per_second", "number"),
            ("failures_per_second", "number"),
            ("reason?", "string"),
            ("drifted?", "string"),
            ("failing?", "Failing"),
            ("restarts", "integer"),
            ("last_restart?", "Restart"),
            ("drain?", "Drain"),
            ("warm_for_ms?", "integer"),
            ("rss_bytes?", "integer"),
            ("workers?", "list:Worker"),
        ],
    ),
    (
        "Failing",
        "Why its workers break, or cannot be started.",
        &[
            ("reason", "string"),
            ("since_ms", "integer"),
            ("tries", "integer"),
            ("next_try_ms?", "integer"),
            ("none_up", "boolean"),
        ],
    ),
    ("Restart", "A worker was started again.", &[("at_ms", "integer"), ("reason", "string")]),
    (
        "Drain",
        "How a version that takes nothing new comes to its end.",
        &[
            ("in_flight", "integer"),
            ("since_ms", "integer"),
            ("cut_off_in_ms?", "integer"),
            ("eta_ms?", "integer"),
            ("held_up_by?", "Held"),
        ],
    ),
    (
        "Worker",
        "A worker.",
        &[
            ("number?", "integer"),
            ("state", "enum:starting,idle,working,backing_off"),
            ("for_ms", "integer"),
            ("beat_ms", "integer"),
            ("stuck?", "boolean"),
            ("reason?", "string"),
            ("next_try_ms?", "integer"),
            ("pid?", "integer"),
            ("rss_bytes?", "integer"),
            ("holds", "integer"),
            ("jobs?", "list:Held"),
        ],
    ),
    ("Held", "A job in a worker's hands.", &[("id", "string"), ("age_ms", "integer")]),
    (
        "Log",
        "The log's health.",
        &[
            ("sync", "string"),
            ("head_segment", "integer"),
            ("active_segment", "integer"),
            ("durable_up_to", "integer"),
            ("disk_bytes", "integer"),
            ("live_bytes", "integer"),
            ("epoch", "integer"),
            ("commits", "integer"),
            ("written_bytes", "integer"),
            ("last_sync_us", "integer"),
            ("full?", "string"),
            ("damaged", "list:Damaged"),
            ("scrubbed_at_ms?", "integer"),
        ],
    ),
    (
        "Damaged",
        "A place of the log that does not hold what was written there.",
        &[("segment", "integer"), ("offset", "integer"), ("seq", "integer"), ("what", "string")],
    ),
    (
        "History",
        "How it stands with the index of ended jobs.",
        &[("state", "enum:ok,catching_up,degraded,off"), ("behind", "integer"), ("reason?", "string")],
    ),
    (
        "Generation",
        "The config that was accepted last.",
        &[
            ("number", "integer"),
            ("accepted_at_ms", "integer"),
            ("state", "enum:running,ok,partial"),
            ("last_error?", "string"),
            ("last_error_at_ms?", "integer"),
        ],
    ),
    (
        "Binary",
        "The program that runs, and what became of replacing it.",
        &[
            ("version", "string"),
            ("file_id?", "string"),
            ("state", "enum:serving,checking,draining"),
            ("attempts", "integer"),
            ("replaced", "integer"),
            ("last_error?", "string"),
            ("last_error_at_ms?", "integer"),
        ],
    ),
    (
        "Reload",
        "What became of a reload.",
        &[
            ("generation", "integer"),
            ("verdict", "enum:ok,unchanged,partial"),
            ("keys?", "list:string"),
            ("types", "list:ReloadType"),
            ("unchanged", "integer"),
        ],
    ),
    (
        "ReloadType",
        "What a reload did to one type.",
        &[
            ("type", "string"),
            ("change", "string"),
            ("from?", "string"),
            ("to?", "string"),
            ("keys?", "list:string"),
            ("reason?", "string"),
        ],
    ),
    ("Generations", "The last configs.", &[("generations", "list:Accept"), ("refused", "list:Refused")]),
    (
        "Accept",
        "A config that was accepted.",
        &[
            ("number", "integer"),
            ("accepted_at", "time"),
            ("settled_at?", "time"),
            ("verdict", "string"),
            ("keys?", "list:string"),
            ("types", "list:ReloadType"),
            ("left_out?", "integer"),
        ],
    ),
    ("Refused", "A config that was not.", &[("at", "time"), ("reason", "string")]),
    ("Accepted", "It is under way.", &[("accepted", "boolean")]),
    (
        "Upgrade",
        "Which program takes over from which.",
        &[("attempt", "integer"), ("from", "string"), ("to", "string")],
    ),
    ("Health", "How it is.", &[("status", "enum:ok,ready")]),
];
