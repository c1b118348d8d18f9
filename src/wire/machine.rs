//! Machines, and summaries of their sessions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{MachineSummary, Timestamp};

/// A machine, and a summary of its sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachineBody {
    /// The machine's name.
    pub host_machine: String,
    /// How many sessions it has; null for another machine whose sessions are not all in mirror.scope.
    pub(crate) total_sessions: Option<i64>,
    /// How many of them are active.
    pub(crate) active_sessions: Option<i64>,
    /// How many of them are stale.
    pub(crate) stale_sessions: Option<i64>,
    /// How many of them are closed.
    pub(crate) closed_sessions: Option<i64>,
    /// The most recent heartbeat of its sessions; null if it has none, and where the numbers
    /// are.
    pub(crate) last_activity: Option<String>,
    /// The distinct projects, joined by ", "; null where the numbers are.
    pub projects: Option<String>,
    /// Whether its daemon is connected to central, as far as this host knows; null for a machine without a daemon.
    pub reachable: Option<bool>,
    /// When its daemon last reported to central.
    pub last_seen: Option<String>,
    /// The time up to which this host knows the machine's state.
    pub as_of: String,
    /// The least headroom of the rate limits of the machine's accounts, in percent; null if none is known.
    #[serde(default)]
    pub headroom_percent: Option<f64>,
}

impl MachineBody {
    /// The JSON form. `as_of`: the time up to which the machine's state is known here. `is_complete`: all its sessions are.
    pub fn new(
        machine: &MachineSummary,
        reachable: Option<bool>,
        as_of: Timestamp,
        headroom_percent: Option<f64>,
        is_complete: bool,
    ) -> Self {
        Self {
            host_machine: machine.host_machine.to_string(),
            total_sessions: is_complete.then_some(machine.total_sessions),
            active_sessions: is_complete.then_some(machine.active_sessions),
            stale_sessions: is_complete.then_some(machine.stale_sessions),
            closed_sessions: is_complete.then_some(machine.closed_sessions),
            last_activity: machine.last_activity.filter(|_| is_complete).map(|at| at.to_string()),
            projects: is_complete.then(|| machine.projects.clone()),
            reachable,
            last_seen: machine.last_seen.map(|at| at.to_string()),
            as_of: as_of.to_string(),
            headroom_percent,
        }
    }
}
