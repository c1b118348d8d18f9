//! The sessions of one machine, counted.

use super::{MachineName, Timestamp};

/// One row of `active_sessions_by_machine`, and when the machine's daemon was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSummary {
    pub(crate) host_machine: MachineName,
    pub(crate) total_sessions: i64,
    pub(crate) active_sessions: i64,
    pub(crate) stale_sessions: i64,
    pub(crate) closed_sessions: i64,
    pub(crate) last_activity: Option<Timestamp>,
    /// The distinct projects, joined by ", " in order.
    pub projects: String,
    /// When its daemon last contacted central, by central's clock; none for a machine without a daemon.
    pub last_seen: Option<Timestamp>,
}
