//! How a command ends when it does not do what it should: a code by sysexits, and one readable message.

/// Why a command did not do what it should; printed on stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Wrong use of the command line.
pub(crate) const USAGE: u8 = 64;
/// Bad input.
pub(crate) const DATA: u8 = 65;
/// No biotope answers.
pub(crate) const UNAVAILABLE: u8 = 69;
/// The disk, or a file, failed.
pub(crate) const IO: u8 = 74;
/// In use, or not in time; the same may work later.
pub(crate) const TEMPORARY: u8 = 75;
/// The config.
pub(crate) const CONFIG: u8 = 78;
/// A reload was accepted, and a version of it was rejected.
pub(crate) const PARTIAL: u8 = 79;
/// Only a stop and a start can take over what is asked for.
pub(crate) const NEEDS_RESTART: u8 = 80;
/// A file that was named cannot be read.
pub(crate) const NO_INPUT: u8 = 66;
/// A bug.
pub(crate) const BUG: u8 = 70;
/// The operating system gave no thread, socket or the like.
pub(crate) const SYSTEM: u8 = 71;
/// Permission.
pub(crate) const PERMISSION: u8 = 77;
