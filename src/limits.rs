//! Every bound of the house, with its unit and its reason. A bound that users may set has its default here too.

use std::time::Duration;

/// Longest job id or idempotency key that a caller may choose, in bytes.
pub const CHOSEN_ID_BYTES_MAX: usize = 128;
/// Longest name of a worker type, in bytes: it is a queue name, a label and a part of URLs.
pub const TYPE_NAME_BYTES_MAX: usize = 64;
/// Longest version label, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// Longest task name, in bytes.
pub const TASK_BYTES_MAX: usize = 256;
/// Longest tenant name, in bytes.
pub const TENANT_BYTES_MAX: usize = 128;
/// Highest priority; 0 is the lowest.
pub const PRIORITY_MAX: u8 = 9;
/// Priority of a job that names none.
pub const PRIORITY_DEFAULT: u8 = 5;
/// One pick in this many takes the oldest ready job whatever its priority, so that nothing starves.
pub const OLDEST_EVERY: u32 = 10;

/// Largest payload by default, in bytes of JSON.
pub const PAYLOAD_BYTES_MAX_DEFAULT: usize = 1 << 20;
/// Largest payload that may be configured: with its frame it must fit the largest frame.
pub const PAYLOAD_BYTES_MAX_MAX: usize = 3 << 20;
/// Largest result of a job by default, in bytes of JSON.
pub const RESULT_BYTES_MAX_DEFAULT: usize = 64 << 10;
/// Largest result that may be configured.
pub const RESULT_BYTES_MAX_MAX: usize = 1 << 20;
/// Longest error text that is kept for an attempt, in bytes; the end of it is kept.
pub const ERROR_BYTES_MAX: usize = 2048;
/// Longest error text that is kept for an attempt once its job is restated, or held in memory, in bytes.
pub const ERROR_BYTES_KEPT: usize = 256;
/// Attempts whose errors are held in memory for a live job: the latest ones.
pub const ATTEMPTS_KEPT: usize = 8;
/// Follow-up jobs of one completion.
pub const FOLLOW_UPS_MAX: usize = 1000;

/// So long the engine may wait for one write or sync of the disk and still count as one that makes progress, for whoever
/// supervises the process: a disk that has to repair itself may take tens of seconds.
pub const DISK_PATIENCE: Duration = Duration::from_secs(120);

/// A frame is filled to this size before it is written, in bytes.
pub const FRAME_BYTES_FULL: usize = 1 << 20;
/// Largest frame, in bytes: one command larger than a full frame has a frame of its own.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Segment size by default, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest segment that may be configured, in bytes: it holds a largest frame and its marks.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 20;
/// Largest segment that may be configured: offsets in a segment are 32 bits wide.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Share of its disk that stays free for new jobs to be taken, in percent.
pub const DISK_FREE_MIN_DEFAULT: u32 = 5;
/// Segments that `log.disk_max` has room for at least: the one that is written, the next one, and what is cleaned meanwhile.
pub const DISK_SEGMENTS_MIN: u64 = 4;
/// Bytes a second that reading the log again to check it takes at most, by default: a hundredth of a good disk.
pub const SCRUB_RATE_DEFAULT: u64 = 16 << 20;
/// History that is kept on disk beyond the live jobs by default, in bytes.
pub const RETAIN_BYTES_DEFAULT: u64 = 1 << 30;

/// How long each share of a ramp stays at least, by default.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(120);
/// First attempts that each share of a ramp waits for, by default.
pub const MIN_SAMPLES_DEFAULT: u32 = 100;
/// Shares of a ramp.
pub const RAMP_STEPS_MAX: usize = 20;
/// How long a draining version may finish what it holds, by default: a reload has an end.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
/// How long a drained version stays for a way back, by default: what goes wrong mostly shows by then.
pub const WARM_FOR_DEFAULT: Duration = Duration::from_secs(600);
/// Versions of one type that work at once, by default.
pub const LIVE_VERSIONS_DEFAULT: u32 = 3;
/// Versions of one type that may be configured to work at once.
pub const LIVE_VERSIONS_MAX: u32 = 10;

/// Damaged segments that are kept once nothing lives in them; one that is found when there are so many is used again.
pub const SET_ASIDE_MAX: usize = 3;

/// Openings that a restored or salvaged log skips: so many may have followed in the log that it is a copy of, and a fence
/// that one of them gave out must not be given again.
pub const RESTORE_EPOCHS: u32 = 1000;

/// Retries of a job that names no number of attempts, and whose type names none.
pub const MAX_ATTEMPTS_DEFAULT: u16 = 4;
/// Most attempts that a job may be given.
pub const MAX_ATTEMPTS_MAX: u16 = 10_000;
/// Times that a job may be released after a pause (exit 75) before it is dead.
pub const DEFERRALS_MAX: u16 = 100;
/// Times that what runs a job, biotope or its helper, may end while it does before the job is dead.
pub const HOST_DEATHS_MAX: u8 = 3;
/// Delay of the first retry after its child was killed.
pub const KILLED_RETRY: Duration = Duration::from_millis(50);
/// Share of a type's runs that may be retries by default, in percent: after an outage, what failed is done in as long again.
pub const RETRY_SHARE_DEFAULT: u32 = 50;
/// Retries of a type that may come a second in any case, by default.
pub const RETRIES_PER_SECOND_DEFAULT: u32 = 10;
/// Most such retries that may be configured.
pub const RETRIES_PER_SECOND_MAX: u32 = 1_000_000;
/// Furthest that a job may be scheduled ahead.
pub const DELAY_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Most workers of one pool.
pub const CONCURRENCY_MAX: u32 = 1024;
/// Workers of all types together by default; more where the types need more at least.
pub const WORKERS_MAX_DEFAULT: u32 = 1024;
/// Most workers of all types together that may be configured: all that all types may have.
pub const WORKERS_MAX_MAX: u32 = 1_024_000;
/// Within this time what waits shall be begun, by default, where the number of workers follows the queue.
pub const TARGET_WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// A run may be extended to so many times its timeout by default.
pub const TIMEOUT_MAX_FACTOR: u32 = 10;
/// Longest text of a progress, in bytes; the front of it is kept.
pub const PROGRESS_TEXT_BYTES_MAX: usize = 256;
/// Runs of one pool of which something is known beside their jobs, such as their progress; of more than these, less is.
pub const NOTES_MAX: usize = 20_000;
/// Longest line that a worker has written to the log, in bytes; the front of it is kept.
pub const LOG_LINE_BYTES_MAX: usize = 2048;
/// Lines that one run of a program, or one cycle of one that stays, may have written to the log.
pub const LOG_LINES_MAX: u32 = 1000;
/// Largest batch of a cycle.
pub const BATCH_MAX: u32 = 1000;
/// Largest config, in bytes: its text is in the log, and there again in each segment.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Largest probe of a type, in bytes of JSON.
pub const PROBE_BYTES_MAX: usize = 64 << 10;
/// Files that the patterns of one `watch` may match.
pub const WATCHED_FILES_MAX: usize = 1000;
/// Bytes that these files may have together.
pub const WATCHED_BYTES_MAX: u64 = 64 << 20;
/// Accepted configs that are remembered: when, what changed, and what became of it. Of as many older ones the text is, if
/// nothing newer says what a version is that serves yet.
pub const GENERATIONS_KEPT: usize = 20;
/// Bytes of the texts of accepted configs that are kept together, but for the newest one.
pub const GENERATION_TEXTS_BYTES_MAX: usize = 3 << 19;
/// Bytes of what is remembered of one reload: which types it changed, and how.
pub const SETTLED_BYTES_MAX: usize = 8 << 10;
/// Configs that were refused and are shown, since the process started.
pub const REFUSED_SHOWN_MAX: usize = 20;
/// Most worker types in a config.
pub const TYPES_MAX: usize = 1000;
/// Workers of a version that are shown at most, those first that need a look.
pub const WORKERS_SHOWN_MAX: usize = 32;
/// Jobs that are shown of what one worker holds.
pub const HELD_SHOWN_MAX: usize = 8;
/// Jobs that one call of a listing returns at most.
pub const LIST_MAX: usize = 10_000;
/// Jobs that one call of a listing returns by default.
pub const LIST_DEFAULT: usize = 100;
/// Records of the log that one call of a listing reads at most.
pub const LIST_RECORDS_MAX: usize = 10_000;
/// Bytes of what one call of a listing returns, as far as it is more than one job: payloads, results and errors, and
/// `LIST_JOB_BYTES` for the rest of each job.
pub const LIST_BYTES_MAX: usize = 8 << 20;
/// What a job of a listing counts beside its payload, result and errors, in bytes: so little that a page of the most jobs
/// has room for some of each.
pub const LIST_JOB_BYTES: usize = 512;
const _: () = assert!(LIST_MAX * LIST_JOB_BYTES < LIST_BYTES_MAX);

/// Records of the log that one look at what became of a job reads at most.
pub const TIMELINE_RECORDS_MAX: usize = 100_000;

/// Threads of one pool that may be abandoned in runs past their deadline; with so many the pool takes nothing more.
pub const ABANDONED_MAX: u32 = 4;
/// Callers who may wait for the end of a job at once.
pub const AWAITED_MAX: usize = 100_000;
/// Bytes of jobs that may be on their way in at once; more are refused as busy.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Records of the log that one call of a listing reads at most for the errors of ended jobs, where their index does not know
/// them; a job that took more of the log from its home to its end counts as one without an error.
pub const LIST_ERROR_RECORDS_MAX: usize = 100_000;

/// Entries of the index of ended jobs that one call of a listing looks at most through: about a tenth of a second.
pub const HISTORY_KEYS_MAX: usize = 100_000;
/// Records of the log that the index takes in at once: a search waits for that long at most.
pub const HISTORY_BATCH_RECORDS: usize = 10_000;
/// How long the index gathers before it takes in what is new.
pub const HISTORY_REST: Duration = Duration::from_millis(100);
/// How often the index is synced while there is something to sync; what is lost with a crash is read again.
pub const HISTORY_SYNC_EVERY: Duration = Duration::from_secs(15);
/// Ended jobs of one directory of the index; after so many a new one begins.
pub const HISTORY_SLICE_KEYS: u64 = 1_000_000;
/// Bytes that the index takes on disk at most; the oldest directory gives way.
pub const HISTORY_BYTES_MAX: u64 = 4 << 30;
/// The index grows only while this much is free where it lies, in bytes: space is the log's first.
pub const HISTORY_FREE_MIN: u64 = 64 << 20;
/// How long a search waits for the index before it reads the log instead.
pub const HISTORY_ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long the index may be busy with one thing before it counts as hanging.
pub const HISTORY_HANGS_AFTER: Duration = Duration::from_secs(10);
/// Bytes of the index that a stop reads once more, newest first, so that the next start knows what was damaged since.
pub const HISTORY_SEAL_BYTES: u64 = 512 << 20;
/// How long a stop of the process waits for the index.
pub const HISTORY_STOP_MAX: Duration = Duration::from_secs(2);
/// Pause before the index is tried again after trouble; doubled each time.
pub const HISTORY_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
pub const HISTORY_RETRY_MAX: Duration = Duration::from_secs(60);
/// Times that the index is begun anew in the life of a process.
pub const HISTORY_STRIKES_MAX: u32 = 20;
/// Failures of a job whose places the index remembers.
pub const HISTORY_PLACES_KEPT: usize = 64;
/// Longest text that is looked for in errors, in bytes.
pub const ERROR_SEARCH_BYTES_MAX: usize = 256;
