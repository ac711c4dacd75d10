//! A program, resolved: all that is needed to start it, and nothing that must still be looked up.

use std::ffi::OsString;
use std::path::PathBuf;

/// What a child process is started with. Nothing else reaches it: no inherited environment, only descriptors 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// The program's name as written in the config: its `argv[0]`, and what messages call it.
    pub name: String,
    /// Arguments after the program.
    pub args: Vec<String>,
    /// The whole environment, in order of name; what biotope sets for each job comes on top.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory, absolute.
    pub dir: PathBuf,
}

/// Bounds on what a worker gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// `[log] result_max`, bytes of JSON.
    pub result_max: usize,
    /// `[log] payload_max`, bytes of JSON: for follow-up jobs.
    pub payload_max: usize,
}
