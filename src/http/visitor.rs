//! Who asks, as far as pages care: what they may do decides what is shown.

use crate::access::Role;

/// Who asks, as far as pages care.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visitor {
    pub(super) role: Role,
    /// Whether a session says so, which can be ended.
    pub(crate) by_session: bool,
}

impl Visitor {
    /// One who is shown what everybody may see.
    pub(crate) const NOBODY: Self = Self { role: Role::Metrics, by_session: false };

    /// Whether he may do something about jobs and types, or only look.
    pub(crate) fn may_act(self) -> bool {
        self.role >= Role::Operate
    }

    /// Whether he may end all jobs of a type.
    pub(crate) fn may_purge(self) -> bool {
        self.role >= Role::Admin
    }
}
