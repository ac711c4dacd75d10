//! What can be called: method, path, what is sent, what is answered.

/// A parameter beside those of the path.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `query` or `header`.
    pub(super) place: &'static str,
    pub(super) required: bool,
    /// Its JSON schema.
    pub(super) schema: &'static str,
    pub(super) says: &'static str,
}

/// Kinds of content, each with the name of its schema.
type Content = &'static [(&'static str, &'static str)];

/// One call.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Content,
    pub(super) answers: &'static [(u16, &'static str, Content)],
    /// Refusals beside those that any call may meet.
    pub(super) problems: &'static [u16],
}

const fn query(name: &'static str, schema: &'static str, says: &'static str) -> Parameter {
    Parameter { name, place: "query", required: false, schema, says }
}

const TEXT: &str = r#"{"type":"string"}"#;
const TRUTH: &str = r#"{"type":"boolean"}"#;
const TYPE: &str = r#"{"type":"string","pattern":"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"}"#;
const STATES: &str =
    r#"{"enum":["ready","delayed","reserved","parked","dead","completed","cancelled","expired","discarded"]}"#;

const TRACE: &str = r#"{"type":"string","pattern":"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"}"#;

const WAIT: Parameter = query("wait", TRUTH, "Answer only when it is settled.");

/// One without parameters or a body.
const fn call(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    answers: &'static [(u16, &'static str, Content)],
    problems: &'static [u16],
) -> Operation {
    Operation { method, path, id, tag, summary, parameters: &[], body: &[], answers, problems }
}

/// All of them.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        parameters: &[
            query("type", TYPE, "The worker type of jobs that name none."),
            Parameter {
                name: "Idempotency-Key",
                place: "header",
                required: false,
                schema: r#"{"type":"string"}"#,
                says: "The job's idempotency key, with quotes or without; for one job.",
            },
            Parameter {
                name: "traceparent",
                place: "header",
                required: false,
                schema: TRACE,
                says: "The trace (W3C) of jobs that name none.",
            },
        ],
        body: &[("application/json", "NewJob"), ("application/x-ndjson", "text")],
        ..call(
            "post",
            "/v1/jobs",
            "enqueue",
            "Jobs",
            "Enqueues one job, or one a line",
            &[
                (
                    200,
                    "It was enqueued before, with an equal body; or, of many, a line for each.",
                    &[("application/json", "Pushed"), ("application/x-ndjson", "text")],
                ),
                (201, "It is enqueued, and durable.", &[("application/json", "Pushed")]),
            ],
            &[404, 408, 413, 415, 422, 429, 507],
        )
    },
    Operation {
        parameters: &[
            query("type", TYPE, "Only of this worker type."),
            query("state", STATES, "Only in this state."),
            query("tenant", r#"{"type":"string","maxLength":128}"#, "Only of this tenant."),
            query("error", r#"{"type":"string","minLength":1,"maxLength":256}"#, "Only with this in the last error."),
            query(
                "since",
                TEXT,
                "Only ended, or failed last, since then: RFC 3339, or an age like `15m`, `2h` or `7d`.",
            ),
            query("limit", r#"{"type":"integer","minimum":1,"maximum":10000,"default":100}"#, "So many at most."),
            query("cursor", TEXT, "Where an earlier page ended: its `next_cursor`."),
        ],
        ..call(
            "get",
            "/v1/jobs",
            "listJobs",
            "Jobs",
            "Lists jobs, newest last change first",
            &[(200, "A page of them.", &[("application/json", "JobPage")])],
            &[404],
        )
    },
    call(
        "get",
        "/v1/jobs/{id}",
        "showJob",
        "Jobs",
        "Shows a job with everything known about it",
        &[(200, "The job.", &[("application/json", "Job")])],
        &[404],
    ),
    call(
        "get",
        "/v1/jobs/{id}/why",
        "whyJob",
        "Jobs",
        "Says in one sentence why a job is not running now",
        &[(200, "Why.", &[("application/json", "Why")])],
        &[404],
    ),
    call(
        "get",
        "/v1/jobs/{id}/timeline",
        "timelineOfJob",
        "Jobs",
        "Tells step by step what became of a job: each attempt with its version, worker, duration and error",
        &[(200, "Its steps.", &[("application/json", "Timeline")])],
        &[404],
    ),
    call(
        "post",
        "/v1/jobs/{id}/{action}",
        "actOnJob",
        "Jobs",
        "Retries a dead or delayed job, cancels one that waits or runs, or discards a dead one",
        &[(200, "The job as it is now.", &[("application/json", "Job")])],
        &[404, 409, 429],
    ),
    call(
        "post",
        "/v1/types/{type}/purge",
        "purgeType",
        "Types",
        "Cancels all waiting jobs of a type, and discards its dead ones",
        &[(200, "How many.", &[("application/json", "Purged")])],
        &[404],
    ),
    Operation {
        parameters: &[Parameter {
            name: "failed_on",
            place: "query",
            required: true,
            schema: r#"{"type":"string","minLength":1}"#,
            says: "The version on which they failed last.",
        }],
        ..call(
            "post",
            "/v1/types/{type}/retry",
            "retryFailed",
            "Types",
            "Gives dead jobs that failed last on a version all their attempts again",
            &[(200, "How many.", &[("application/json", "Retried")])],
            &[404],
        )
    },
    call(
        "post",
        "/v1/types/{type}/pause",
        "pauseType",
        "Types",
        "Lets the jobs of a type wait until it is resumed",
        &[(200, "It is paused.", &[("application/json", "PausedType")])],
        &[404],
    ),
    call(
        "post",
        "/v1/types/{type}/resume",
        "resumeType",
        "Types",
        "Has the jobs of a paused type worked on again",
        &[(200, "It is not paused.", &[("application/json", "PausedType")])],
        &[404],
    ),
    call(
        "post",
        "/v1/types/{type}/rollback",
        "rollBack",
        "Types",
        "Goes back to the version that was there before",
        &[(200, "What was done.", &[("application/json", "Rollout")])],
        &[404, 409],
    ),
    call(
        "post",
        "/v1/types/{type}/rollout/{word}",
        "steerRollout",
        "Types",
        "Steers how the new version of a type takes over",
        &[(200, "What was done.", &[("application/json", "Rollout")])],
        &[404, 409],
    ),
    call(
        "get",
        "/v1/ecosystem",
        "showEcosystem",
        "Ecosystem",
        "Shows everything that lives here",
        &[(200, "All of it, at one moment.", &[("application/json", "Ecosystem")])],
        &[],
    ),
    Operation {
        parameters: &[WAIT],
        ..call(
            "post",
            "/v1/reload",
            "reload",
            "Ecosystem",
            "Has the config file taken over",
            &[
                (200, "What became of it.", &[("application/json", "Reload")]),
                (202, "It will be, if it passes.", &[("application/json", "Accepted")]),
            ],
            &[422, 504],
        )
    },
    call(
        "get",
        "/v1/generations",
        "listGenerations",
        "Ecosystem",
        "Lists the last configs: what they changed, what became of them",
        &[(200, "The last of them.", &[("application/json", "Generations")])],
        &[],
    ),
    Operation {
        parameters: &[WAIT],
        ..call(
            "post",
            "/v1/upgrade",
            "upgrade",
            "Ecosystem",
            "Replaces the running program by the file that lies where it was started from",
            &[
                (200, "The new file can take over, and does.", &[("application/json", "Upgrade")]),
                (202, "It will, if it can.", &[("application/json", "Accepted")]),
            ],
            &[422],
        )
    },
    Operation {
        parameters: &[Parameter {
            name: "Last-Event-ID",
            place: "header",
            required: false,
            schema: r#"{"type":"string","pattern":"^[0-9]+-[0-9]+$"}"#,
            says: "The id of the last event that was read: what came after it is told first.",
        }],
        ..call(
            "get",
            "/v1/events",
            "watch",
            "Ecosystem",
            "Tells what changes, as server-sent events: `ecosystem` with everything, then `change` with what is new",
            &[(200, "A stream without end.", &[("text/event-stream", "text")])],
            &[429],
        )
    },
    call(
        "post",
        "/v1/backup",
        "backup",
        "Ecosystem",
        "Sends all that is acknowledged up to now, for `biotope backup`",
        &[(200, "A stream.", &[("application/octet-stream", "any")])],
        &[429],
    ),
    call(
        "get",
        "/v1/openapi.json",
        "describe",
        "Ecosystem",
        "Tells what is written here",
        &[(200, "This.", &[("application/json", "any")])],
        &[],
    ),
    call(
        "get",
        "/metrics",
        "metrics",
        "Health",
        "Tells figures to a monitoring system (docs/monitoring.md)",
        &[(200, "The figures.", &[("text/plain", "text"), ("application/openmetrics-text", "text")])],
        &[],
    ),
    call(
        "get",
        "/healthz",
        "isAlive",
        "Health",
        "Says whether the process answers",
        &[(200, "It does.", &[("application/json", "Health")])],
        &[],
    ),
    call(
        "get",
        "/readyz",
        "isReady",
        "Health",
        "Says whether jobs are taken, and the log is sound",
        &[(200, "They are, and it is.", &[("application/json", "Health")])],
        &[507],
    ),
];
