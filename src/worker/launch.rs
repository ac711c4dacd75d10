//! A program, resolved: all that is needed to start it, and nothing that must still be looked up.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use super::StartError;
use super::confined::Confined;

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
    /// Its user, its mask and its limits.
    pub confined: Confined,
}

/// Bounds on what a worker gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// `[log] result_max`, bytes of JSON.
    pub result_max: usize,
    /// `[log] payload_max`, bytes of JSON: for follow-up jobs.
    pub payload_max: usize,
}

impl Launch {
    /// Checks, without starting anything, that the program and its directory are there.
    ///
    /// # Errors
    /// What is missing, by name.
    pub fn check(&self) -> Result<(), StartError> {
        use rustix::fs::{Access, FileType, access, stat};
        let name = &self.name;
        let program = self.program.display();
        let found = stat(&self.program)
            .map_err(|errno| StartError(format!("{name}: cannot find the program {program}: {}", text(errno))))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(StartError(format!("{name}: {program} is no file")));
        }
        access(&self.program, Access::EXEC_OK)
            .map_err(|errno| StartError(format!("{name}: {program} is not executable: {}", text(errno))))?;
        access(self.dir.join("."), Access::EXEC_OK).map_err(|errno| {
            StartError(format!("{name}: cannot enter the working directory {}: {}", self.dir.display(), text(errno)))
        })
    }

    /// Why the program was not started, in words that name it.
    pub(super) fn start_failure(&self, error: &io::Error) -> String {
        // When all that can be checked is there, "not found" can only mean what the kernel looks for itself.
        let why = match (self.check(), error.kind()) {
            (Err(StartError(why)), _) => return why,
            (Ok(()), io::ErrorKind::NotFound) => "its interpreter is missing".to_owned(),
            (Ok(()), _) => error.to_string(),
        };
        let why = self.confined.user.map_or_else(|| why.clone(), |(user, _)| format!("{why}, as user {user}"));
        format!("{}: cannot start {}: {why}", self.name, self.program.display())
    }
}

/// What the operating system says, without its number.
fn text(errno: rustix::io::Errno) -> String {
    let full = io::Error::from(errno).to_string();
    full.split(" (os error").next().unwrap_or_default().to_owned()
}
