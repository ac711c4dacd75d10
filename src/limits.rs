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
/// History that is kept on disk beyond the live jobs by default, in bytes.
pub const RETAIN_BYTES_DEFAULT: u64 = 1 << 30;

/// Retries of a job that names no number of attempts, and whose type names none.
pub const MAX_ATTEMPTS_DEFAULT: u16 = 4;
/// Most attempts that a job may be given.
pub const MAX_ATTEMPTS_MAX: u16 = 10_000;
/// Times that a job may be released after a pause (exit 75) before it is dead.
pub const DEFERRALS_MAX: u16 = 100;
/// Times that the process may end while a job runs before the job is dead.
pub const HOST_DEATHS_MAX: u8 = 3;
/// Delay of the first retry after its child was killed.
pub const KILLED_RETRY: Duration = Duration::from_millis(50);
/// Furthest that a job may be scheduled ahead.
pub const DELAY_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Most workers of one pool.
pub const CONCURRENCY_MAX: u32 = 1024;
/// Largest batch of a cycle.
pub const BATCH_MAX: u32 = 1000;
/// Most worker types in a config.
pub const TYPES_MAX: usize = 1000;
/// Jobs that one call of a listing returns at most.
pub const LIST_MAX: usize = 10_000;
/// Jobs that one call of a listing returns by default.
pub const LIST_DEFAULT: usize = 100;
/// Records of the log that one call of a listing reads at most.
pub const LIST_RECORDS_MAX: usize = 10_000;

/// Bytes of jobs that may be on their way in at once; more are refused as busy.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
