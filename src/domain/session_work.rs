//! What a session does and works on, as its machine shares it with the others.

use serde::{Deserialize, Serialize};

use super::activity::{Activity, MAX_DETAIL};
use super::activity_history::ActivityChange;
use super::agent::{AgentKind, AgentName};
use super::text::safe_line;
use super::work::WorkSnapshot;
use super::{InstanceId, Status, Timestamp};

/// What a session does and works on.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionWork {
    /// The session.
    pub instance_id: InstanceId,
    /// The newest activity.
    pub activity: Option<Activity>,
    /// What did it ended: a process died, or it was silent. A session that is resumed does not do it any more.
    pub activity_ended: bool,
    /// How its agent runs.
    pub kind: Option<AgentKind>,
    /// Which agent runs it, as far as it was reported.
    pub agent: Option<AgentName>,
    /// What it works on.
    pub snapshot: WorkSnapshot,
    /// When it changed last. An older one never replaces a newer one.
    pub recorded_at: Timestamp,
    /// Changes of its activity, on their way between machines only; in no order.
    pub changes: Vec<ActivityChange>,
}

impl SessionWork {
    /// What lists show of it.
    pub fn summary(&self) -> WorkSummary {
        let repository = self.snapshot.repository.as_ref().map(|repository| &repository.value);
        let of_repository =
            |part: fn(&super::work::Repository) -> &Option<String>| repository.and_then(|r| part(r).clone());
        WorkSummary {
            activity: self.activity.clone(),
            activity_ended: self.activity_ended,
            kind: self.kind,
            agent: self.agent,
            agent_version: self.snapshot.agent_version.as_ref().map(|version| version.value.clone()),
            title: self.snapshot.title.as_ref().map(|title| title.value.text.clone()),
            repository: repository.map(|repository| repository.name.clone()),
            branch: of_repository(|repository| &repository.branch),
            worktree: of_repository(|repository| &repository.worktree),
            model: self.snapshot.model.as_ref().map(|model| model.value.clone()),
            cost_usd: self.snapshot.cost_usd.as_ref().map(|cost| cost.value),
        }
    }

    /// The same with every text from another machine safe to show. The snapshot is so already.
    pub fn with_safe_text(mut self) -> Self {
        if let Some(activity) = &mut self.activity {
            activity.detail = activity.detail.take().map(|detail| safe_line(detail, MAX_DETAIL));
        }
        self.changes = self.changes.into_iter().map(ActivityChange::with_safe_text).collect();
        self
    }

    /// Its size on the way to central, in bytes, roughly.
    pub fn size(&self) -> usize {
        self.snapshot.to_json().len() + 200 + self.changes.iter().map(ActivityChange::size).sum::<usize>()
    }
}

/// What lists show of a session's work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkSummary {
    /// The newest one; see [`Self::current_activity`].
    pub activity: Option<Activity>,
    pub(crate) activity_ended: bool,
    pub(crate) kind: Option<AgentKind>,
    /// Which agent runs it, as far as it was reported.
    pub agent: Option<AgentName>,
    /// The version of the agent's program.
    pub agent_version: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) repository: Option<String>,
    pub(crate) branch: Option<String>,
    /// The top folder of the working tree, on the session's machine.
    pub worktree: Option<String>,
    pub(crate) model: Option<String>,
    /// In US dollars.
    pub cost_usd: Option<f64>,
}

impl WorkSummary {
    /// What the session does now: nothing is claimed of one that is not active, or whose activity ended.
    pub fn current_activity(&self, status: Status) -> Option<&Activity> {
        self.activity.as_ref().filter(|_| status == Status::Active && !self.activity_ended)
    }
}
