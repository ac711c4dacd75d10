//! What a child is confined to: its user, its mask, its limits.
//!
//! Owns how they are looked up on this machine, and how a child takes them on. Users are those of `/etc/passwd`, and are in the
//! groups that `/etc/group` says.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, chdir, geteuid, getrlimit, setrlimit, umask};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use serde::{Deserialize, Serialize};

use super::definition::{Fields, Resolving};
use crate::config::{Confinement, Limits, units};

/// Where the machine's users are.
const USERS: &str = "/etc/passwd";
/// And their groups.
const GROUPS: &str = "/etc/group";
/// Groups of one user; the kernel takes no more.
const GROUPS_MAX: usize = 65_536;

/// Files that a child may have open if its config says nothing, where this process may have more by now. Set once, before
/// anything is started.
static OPEN_FILES: OnceLock<u64> = OnceLock::new();

/// Has children start with this limit on open files, which the kernel lets them raise again, where their config says nothing.
#[cfg(feature = "daemon")]
pub(crate) fn give_back_open_files(soft: u64) {
    OPEN_FILES.get_or_init(|| soft);
}

/// The limit that children start with, if it is another one than this process has.
#[cfg(feature = "daemon")]
pub(crate) fn open_files_of_children() -> Option<u64> {
    OPEN_FILES.get().copied()
}

/// What a child is confined to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// Its user and that one's group, if they are not ours.
    pub user: Option<(u32, u32)>,
    /// All groups that this user is in, that one among them; in order.
    pub groups: Vec<u32>,
    /// Permissions that its files do not get.
    pub umask: Option<u32>,
    /// What it may use.
    pub limits: Limits,
}

impl Confined {
    /// Looks up what the config says, and notes what cannot be had.
    pub(super) fn resolve(resolving: &mut Resolving<'_>, wanted: &Confinement) -> Self {
        let user = wanted.user.as_ref().and_then(|name| match user(name) {
            Ok(ids) => ids,
            Err((message, help)) => {
                resolving.problem("user", message, help);
                None
            }
        });
        for (key, resource, value) in each(&wanted.limits) {
            if let (Some(value), Some(most)) = (value, getrlimit(resource).maximum)
                && value > most
            {
                let unit = if is_size(resource) { units::show_size(most) } else { most.to_string() };
                let message = format!("biotope itself was started with a limit of {unit} here");
                resolving.problem(&format!("limits.{key}"), message, "lower it, or start biotope with a higher limit");
            }
        }
        let groups = match (&wanted.user, user) {
            (Some(name), Some((_, group))) => groups(name, group).unwrap_or_else(|(message, help)| {
                resolving.problem("user", message, help);
                Vec::new()
            }),
            (Some(_) | None, _) => Vec::new(),
        };
        Self { user, groups, umask: wanted.umask, limits: wanted.limits }
    }

    /// Makes ready all that a child in this directory needs to take it on.
    ///
    /// # Errors
    /// The directory's name cannot be one.
    pub(super) fn prepare(&self, dir: &Path) -> io::Result<Taking> {
        Ok(Taking {
            user: self.user.map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group))),
            groups: self.groups.iter().copied().map(Gid::from_raw).collect(),
            dir: CString::new(dir.as_os_str().as_bytes())?,
            umask: self.umask,
            limits: self.limits,
            open_files: OPEN_FILES.get().copied().filter(|_| self.limits.open_files.is_none()),
        })
    }

    /// Adds it to a definition's hash; nothing where nothing is said.
    pub(super) fn add_to(&self, fields: &mut Fields) {
        if let Some((user, group)) = self.user {
            fields.add(format!("user {user} {group}").as_bytes());
            for other in self.groups.iter().filter(|other| **other != group) {
                fields.add(format!("group {other}").as_bytes());
            }
        }
        if let Some(mask) = self.umask {
            fields.add(format!("umask {mask:o}").as_bytes());
        }
        for (key, _, value) in each(&self.limits) {
            if let Some(value) = value {
                fields.add(format!("limit {key} {value}").as_bytes());
            }
        }
    }
}

/// What a child takes on; nothing of it has to be allocated any more.
pub(super) struct Taking {
    user: Option<(Uid, Gid)>,
    groups: Vec<Gid>,
    dir: CString,
    umask: Option<u32>,
    limits: Limits,
    /// Open files that it may have at first.
    open_files: Option<u64>,
}

impl Taking {
    /// Takes all of it on, for this process, and goes into the directory as its user may. Makes system calls and nothing else, for the
    /// thread that calls: for use between fork and exec, where there is no other.
    pub(super) fn take_on(&self) -> Result<(), Errno> {
        if let Some((user, group)) = self.user {
            // The user last: it may not do the rest.
            set_thread_groups(&self.groups)?;
            set_thread_gid(group)?;
            set_thread_uid(user)?;
        }
        chdir(&self.dir)?;
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if let Some(files) = self.open_files {
            let maximum = getrlimit(Resource::Nofile).maximum;
            let current = Some(maximum.map_or(files, |most| files.min(most)));
            setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
        }
        for (_, resource, value) in each(&self.limits) {
            if value.is_some() {
                setrlimit(resource, Rlimit { current: value, maximum: value })?;
            }
        }
        Ok(())
    }
}

/// The limits by their keys.
fn each(limits: &Limits) -> [(&'static str, Resource, Option<u64>); 6] {
    [
        ("memory", Resource::As, limits.memory),
        ("open_files", Resource::Nofile, limits.open_files),
        ("processes", Resource::Nproc, limits.processes),
        ("cpu", Resource::Cpu, limits.cpu),
        ("file_size", Resource::Fsize, limits.file_size),
        ("core", Resource::Core, limits.core),
    ]
}

fn is_size(resource: Resource) -> bool {
    [Resource::As, Resource::Fsize, Resource::Core].contains(&resource)
}

/// The numbers of a user and its group; `None` if it is ours anyhow. `Err`: what is wrong, and what helps.
fn user(name: &str) -> Result<Option<(u32, u32)>, (String, &'static str)> {
    let users =
        std::fs::read_to_string(USERS).map_err(|e| (format!("{USERS} cannot be read: {e}"), "mend its mode"))?;
    let missing = || (format!("there is no user {name:?} in {USERS}"), "make it first: useradd --system …");
    let (user, group) = ids(&users, name).ok_or_else(missing)?;
    let ours = geteuid();
    match (ours.is_root(), user == ours.as_raw()) {
        (_, true) => Ok(None),
        (true, false) => Ok(Some((user, group))),
        (false, false) => {
            let message = format!("only root may start programs as {name}, and biotope runs as user {}", ours.as_raw());
            Err((message, "leave it out, or start biotope as root"))
        }
    }
}

/// Finds a user: `name:password:user:group:…` in each line.
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        is_it.then_some((user, group))
    })
}

/// The numbers of all groups of a user, in order, its own among them. `Err`: what is wrong, and what helps.
fn groups(name: &str, own: u32) -> Result<Vec<u32>, (String, &'static str)> {
    let groups = match std::fs::read_to_string(GROUPS) {
        // A machine with nothing but users.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|e| (format!("{GROUPS} cannot be read: {e}"), "mend its mode"))?,
    };
    let mut found = members(&groups, name);
    found.push(own);
    found.sort_unstable();
    found.dedup();
    // Setting more is an error of the kernel's.
    if found.len() > GROUPS_MAX {
        return Err((format!("{name} is in more than {GROUPS_MAX} groups"), "take it out of some"));
    }
    Ok(found)
}

/// Finds the groups that name a user: `name:password:group:user,user,…` in each line.
fn members(groups: &str, name: &str) -> Vec<u32> {
    let group = |line: &str| {
        let mut fields = line.split(':');
        let number = fields.nth(2)?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == name).then_some(number)
    };
    groups.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\n+::::::\nbroken:x:a:b\nweb:x:33:34::/:/bin/false\n";
        assert_eq!(ids(users, "web"), Some((33, 34)));
        assert_eq!(ids(users, "root"), Some((0, 0)));
        for none in ["we", "webb", "broken", "+", ""] {
            assert_eq!(ids(users, none), None, "{none}");
        }
    }

    #[test]
    fn groups_are_those_that_name_the_user() {
        let groups = "root:x:0:\nssl:x:103:web,mail\nmail:x:8:mail\nold:x:9:webb, web\nbroken:x:a:web\nshort:x:7\n";
        assert_eq!(members(groups, "web"), [103, 9]);
        assert_eq!(members(groups, "mail"), [103, 8]);
        for none in ["we", "root", "ssl"] {
            assert_eq!(members(groups, none), [0; 0], "{none}");
        }
    }
}
