//! What a child is confined to: its user, its mask, its limits.
//!
//! Owns how they are looked up on this machine, and how a child takes them on. Users are those of `/etc/passwd`.

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit, umask};
use serde::{Deserialize, Serialize};

use super::definition::{Fields, Resolving};
use crate::config::{Confinement, Limits, units};

/// Where the machine's users are.
const USERS: &str = "/etc/passwd";

/// What a child is confined to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// Its user and that one's group, if they are not ours.
    pub user: Option<(u32, u32)>,
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
        Self { user, umask: wanted.umask, limits: wanted.limits }
    }

    /// Takes mask and limits on, for this process. Makes system calls and nothing else: for use between fork and exec.
    pub(super) fn take_on(&self) -> Result<(), Errno> {
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        for (_, resource, value) in each(&self.limits) {
            if value.is_some() {
                setrlimit(resource, Rlimit { current: value, maximum: value })?;
            }
        }
        Ok(())
    }

    /// Adds it to a definition's hash; nothing where nothing is said.
    pub(super) fn add_to(&self, fields: &mut Fields) {
        if let Some((user, group)) = self.user {
            fields.add(format!("user {user} {group}").as_bytes());
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
}
