//! The activity history of a session.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::history::{in_range, parse_time};
use crate::domain::activity_history::{ActivityChange, HourOfActivity, MAX_CHANGES};
use crate::domain::{Invalid, Timestamp};

/// Which changes to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ActivityParams {
    /// Only changes at this time or later, in RFC 3339. Default: all that are kept, which are those of 7 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(format = DateTime)]
    pub since: Option<String>,
    /// The most changes to list, the oldest first. Default: 2000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 2000)]
    pub limit: Option<u32>,
}

impl ActivityParams {
    /// From when on, and how many.
    ///
    /// # Errors
    /// A parameter is invalid.
    pub fn validate(&self) -> Result<(Timestamp, usize), Invalid> {
        let since = self.since.as_deref().map(|at| parse_time("since", at)).transpose()?;
        let most = MAX_CHANGES as u32;
        let limit = in_range("limit", self.limit.unwrap_or(most), 1, most)?;
        Ok((since.unwrap_or(Timestamp::from_micros(i64::MIN)), limit))
    }
}

/// When a session changed what it does, in order of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivityHistoryBody {
    /// The session.
    pub instance_id: String,
    /// In order of time.
    pub changes: Vec<ActivityChangeBody>,
    /// The `since` that lists what follows; null if nothing does.
    pub next: Option<String>,
    /// When this was true; for a session of another machine, when central was read last.
    pub as_of: String,
}

/// What a session did from a time on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivityChangeBody {
    /// When it happened.
    pub at: String,
    /// `working`, `waiting`, `idle` or `failed`; null if nothing vouched for an activity from then on, as after the end
    /// of its process.
    pub activity: Option<String>,
    /// What it waited for: `permission`, `question`, `plan` or `input`; null unless it waited.
    pub waiting_for: Option<String>,
    /// The tool that waited for permission, the kind of the error, or how many background tasks ran.
    pub detail: Option<String>,
    /// How much of the context window was used then, in percent. Changes of this alone are listed at most once a minute.
    pub context_percent: u8,
}

/// What the sessions of all machines did in each hour of the last day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivityHoursBody {
    /// When the first hour begins; the last one is not over.
    pub from: String,
    /// By name.
    pub machines: Vec<MachineHoursBody>,
    /// When this was true.
    pub as_of: String,
}

/// What the sessions of a machine did in each hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineHoursBody {
    /// The machine.
    pub host_machine: String,
    /// One for each hour.
    pub hours: Vec<ActivitySecondsBody>,
}

/// How long sessions did what, in seconds, summed over sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivitySecondsBody {
    /// Working on a task.
    pub working: u64,
    /// Waiting for the user.
    pub waiting: u64,
    /// Without a task.
    pub idle: u64,
    /// After a turn that ended with an error.
    pub failed: u64,
}

impl From<&HourOfActivity> for ActivitySecondsBody {
    fn from(hour: &HourOfActivity) -> Self {
        let [working, waiting, idle, failed] = hour.spent.map(|spent| spent.as_secs());
        Self { working, waiting, idle, failed }
    }
}

impl From<ActivityChange> for ActivityChangeBody {
    fn from(change: ActivityChange) -> Self {
        Self {
            at: change.at.to_string(),
            activity: change.activity.map(|state| state.as_str().to_owned()),
            waiting_for: change.waiting_for.map(|what| what.as_str().to_owned()),
            detail: change.detail,
            context_percent: change.context_percent,
        }
    }
}
