//! What an agent is doing: working, waiting for its user, idle or failed.
//!
//! Hooks, the agent's own status file and the API report events. They may arrive in another order than they happened in:
//! the process of one hook is slower than that of the next, or a report waits in the spool. Each event says when it
//! happened, and [`ActivityTracker::after`] is the only place that decides what it changes.
//!
//! **Invariants**
//! - An event that happened before the newest applied one changes nothing; of two at the same time the later arrival counts.
//! - A stored time in the future says that the clock was set back since; it blocks no event.
//! - A sub-agent changes only its own wait: it neither makes an idle session work nor a working one idle.
//! - The status file only settles what no hook reports, such as an interrupt: it never replaces a failure, background
//!   work, or a wait whose details a hook reported.
//!
//! An activity counts only while its session is active; for a stale or closed session it is what the agent did last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Invalid, Timestamp};

/// The longest detail, in characters.
pub const MAX_DETAIL: usize = 200;
/// The longest id of an actor or a prompt, in bytes.
pub const MAX_ID: usize = 64;

/// How long after a permission request its notification may come. Claude Code 2.1.332 sends it after 6 seconds.
const NOTIFICATION_DELAY: Duration = Duration::from_secs(10);

/// What the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivityState {
    /// It works on its task.
    Working,
    /// Its user has to do something, see [`WaitingFor`].
    Waiting,
    /// It is done, and its user may give it the next task.
    Idle,
    /// Its turn ended with an error.
    Failed,
}

impl ActivityState {
    pub(crate) const ALL: [Self; 4] = [Self::Working, Self::Waiting, Self::Idle, Self::Failed];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Waiting => "waiting",
            Self::Idle => "idle",
            Self::Failed => "failed",
        }
    }

    /// # Errors
    /// `text` is none of the four.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let unknown = || Invalid::new("activity", "it must be working, waiting, idle or failed");
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(unknown)
    }
}

/// What a waiting agent waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// To be allowed to use a tool.
    Permission,
    /// An answer to its question.
    Question,
    /// Approval of its plan.
    Plan,
    /// Any other input.
    Input,
}

impl WaitingFor {
    pub(crate) const ALL: [Self; 4] = [Self::Permission, Self::Question, Self::Plan, Self::Input];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Question => "question",
            Self::Plan => "plan",
            Self::Input => "input",
        }
    }

    /// # Errors
    /// `text` is none of the four.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let unknown = || Invalid::new("waiting_for", "it must be permission, question, plan or input");
        Self::ALL.into_iter().find(|what| what.as_str() == text).ok_or_else(unknown)
    }
}

/// Who reports an activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivitySource {
    /// A hook of the agent.
    Hook,
    /// The agent's own file, such as Claude Code's `sessions/PID.json`.
    StatusFile,
    /// A client of the API, with a heartbeat.
    Api,
}

impl ActivitySource {
    pub(crate) const ALL: [Self; 3] = [Self::Hook, Self::StatusFile, Self::Api];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::StatusFile => "status_file",
            Self::Api => "api",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// An event that says what the agent does from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityEvent {
    pub(crate) state: ActivityState,
    /// Only while waiting.
    pub waiting_for: Option<WaitingFor>,
    /// The tool that waits for permission, the kind of the error, or how many background tasks run.
    pub detail: Option<String>,
    /// When it happened.
    pub at: Timestamp,
    pub(crate) source: ActivitySource,
    /// Which agent of the session the event is about.
    pub actor: Actor,
    /// The turn is over, but tasks in the background go on: the status file says idle then.
    pub in_background: bool,
    /// A request for permission or its notification, which comes seconds later.
    pub permission: Option<PermissionEvent>,
}

/// The agent of a session that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// All of them, as at the begin and the end of a turn.
    Session,
    /// The main agent, which used a tool.
    Main,
    /// A sub-agent, by its id.
    Subagent(String),
}

/// How an event belongs to a request for permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionEvent {
    pub(crate) is_notification: bool,
    /// The agent's id of the user's prompt, if it has one.
    pub prompt_id: Option<String>,
}

/// The newest request for permission, by which its late notification is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRequest {
    pub(crate) at: Timestamp,
    pub(crate) prompt_id: Option<String>,
}

/// What an agent does, as all machines know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// What the agent does.
    pub state: ActivityState,
    /// Only while waiting.
    pub waiting_for: Option<WaitingFor>,
    /// The tool, the error's kind or the number of background tasks; one line.
    pub detail: Option<String>,
    /// When it began.
    pub since: Timestamp,
    /// Who reported it.
    pub source: ActivitySource,
}

/// An activity, and what its own machine remembers to place the next event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityTracker {
    pub(crate) activity: Activity,
    /// When the newest event happened, whether it changed anything or not.
    reported_at: Timestamp,
    /// Who waits.
    actor: Actor,
    in_background: bool,
    last_request: Option<PermissionRequest>,
}

impl ActivityTracker {
    /// The activity after `event`, which arrived at `now`. `None`: the event is older than the newest one.
    pub fn after(before: Option<&Self>, event: ActivityEvent, now: Timestamp) -> Option<Self> {
        let event = ActivityEvent { at: event.at.min(now), ..event };
        let Some(before) = before else { return Some(Self::begun(event, None)) };
        let clock_was_set_back = before.reported_at > now;
        if event.at < before.reported_at && !clock_was_set_back {
            return None;
        }
        let last_request = event.request().or_else(|| before.last_request.clone());
        if before.stands_against(&event) {
            return Some(Self { reported_at: event.at, last_request, ..before.clone() });
        }
        let mut changed = Self::begun(event, last_request);
        if changed.activity.continues(&before.activity) {
            changed.activity.since = before.activity.since.min(changed.activity.since);
            changed.activity.source = before.activity.source;
        }
        Some(changed)
    }

    fn begun(event: ActivityEvent, last_request: Option<PermissionRequest>) -> Self {
        let last_request = event.request().or(last_request);
        let activity = Activity {
            waiting_for: event.waiting_for.filter(|_| event.state == ActivityState::Waiting),
            state: event.state,
            detail: event.detail,
            since: event.at,
            source: event.source,
        };
        let ActivityEvent { at, actor, in_background, .. } = event;
        Self { activity, reported_at: at, actor, in_background, last_request }
    }

    /// Whether a newer event leaves this activity as it is.
    fn stands_against(&self, event: &ActivityEvent) -> bool {
        let waits = self.activity.state == ActivityState::Waiting;
        match (&event.actor, event.state) {
            (Actor::Subagent(_), ActivityState::Working) => !(waits && self.actor == event.actor),
            (Actor::Subagent(_), ActivityState::Idle | ActivityState::Failed) => true,
            (Actor::Main, ActivityState::Working) if waits && matches!(self.actor, Actor::Subagent(_)) => true,
            (_, ActivityState::Waiting) if self.confirms(event) => true,
            _ if event.source == ActivitySource::StatusFile => self.is_known_better(event.state),
            _ => false,
        }
    }

    /// Whether the event is the notification of a request that is known: its wait goes on, or is over.
    fn confirms(&self, event: &ActivityEvent) -> bool {
        let Some(PermissionEvent { is_notification: true, prompt_id }) = &event.permission else { return false };
        if self.activity.state == ActivityState::Waiting {
            return true;
        }
        self.last_request.as_ref().is_some_and(|request| {
            let same_prompt = request.prompt_id.is_none() || prompt_id.is_none() || request.prompt_id == *prompt_id;
            same_prompt && event.at.since(request.at) <= NOTIFICATION_DELAY
        })
    }

    /// Whether what is known says more than the status file's newer state.
    fn is_known_better(&self, state: ActivityState) -> bool {
        match state {
            ActivityState::Idle => self.activity.state == ActivityState::Failed || self.in_background,
            ActivityState::Waiting | ActivityState::Working => self.activity.state == state,
            ActivityState::Failed => false,
        }
    }
}

impl Activity {
    /// Whether it is the same activity as the one before, and began with that. A wait for another tool is another wait.
    fn continues(&self, before: &Self) -> bool {
        let is_by_detail = matches!(self.state, ActivityState::Waiting | ActivityState::Failed);
        self.state == before.state
            && self.waiting_for == before.waiting_for
            && (!is_by_detail || self.detail == before.detail)
    }
}

impl ActivityEvent {
    fn request(&self) -> Option<PermissionRequest> {
        let permission = self.permission.as_ref().filter(|permission| !permission.is_notification)?;
        Some(PermissionRequest { at: self.at, prompt_id: permission.prompt_id.clone() })
    }
}

#[cfg(test)]
mod tests;
