//! What a session works on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::SessionWork;
use crate::domain::activity::Activity;
use crate::domain::context::WorkDetails;
use crate::domain::work::WorkSnapshot;

/// The newest known state of a session's work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkBody {
    /// The session.
    pub instance_id: String,
    /// What the session does, or did last before it turned stale or was closed.
    pub last_activity: Option<LastActivity>,
    /// When this changed last; null if nothing was recorded.
    pub recorded_at: Option<String>,
    /// What was recorded; empty parts are null.
    #[serde(flatten)]
    pub work: WorkSnapshot,
}

/// The last activity that is known of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastActivity {
    /// `working`, `waiting`, `idle` or `failed`.
    pub activity: String,
    /// What it waits for: `permission`, `question`, `plan` or `input`; null unless it waits.
    pub waiting_for: Option<String>,
    /// The tool that waits for permission, the kind of the error, or how many background tasks run.
    pub activity_detail: Option<String>,
    /// Since when it does that, by the first report of it.
    pub activity_since: String,
    /// Who reported it: `hook`, `status_file` or `api`.
    pub activity_source: String,
}

impl WorkBody {
    /// The work of a session, if any was recorded.
    pub fn new(instance_id: &str, work: Option<SessionWork>) -> Self {
        let recorded_at = work.as_ref().map(|work| work.recorded_at.to_string());
        let (activity, work) = work.map(|work| (work.activity, work.snapshot)).unwrap_or_default();
        let last_activity = activity.as_ref().map(LastActivity::new);
        Self { instance_id: instance_id.to_owned(), last_activity, recorded_at, work }
    }

    /// The work as a reconstructed context has it.
    pub fn of_context(instance_id: &str, details: &WorkDetails) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            last_activity: details.last_activity.as_ref().map(LastActivity::new),
            recorded_at: details.newest().map(|at| at.to_string()),
            work: details.snapshot.clone(),
        }
    }
}

impl LastActivity {
    fn new(activity: &Activity) -> Self {
        Self {
            activity: activity.state.as_str().to_owned(),
            waiting_for: activity.waiting_for.map(|what| what.as_str().to_owned()),
            activity_detail: activity.detail.clone(),
            activity_since: activity.since.to_string(),
            activity_source: activity.source.as_str().to_owned(),
        }
    }
}
