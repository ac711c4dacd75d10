//! Whether who comes is served: said once, to all who serve.

/// Whether requests are served, and what becomes of connections when they no longer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doors {
    /// They are.
    Open,
    /// Another image of the program goes on with connections on which nothing is under way.
    HandedOver,
    /// Nobody goes on with them: who was let in and has not been answered yet is.
    Closed,
}

impl Doors {
    /// Whether they are open no longer.
    pub(super) fn shut(&self) -> bool {
        *self != Self::Open
    }
}
