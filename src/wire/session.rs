//! Sessions and machines, and the requests that concern them.

use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

use super::ActivityReport;
use super::agent::valid_agent;
use crate::domain::activity::{ActivityEvent, ActivitySource};
use crate::domain::agent::AgentName;
use crate::domain::liveness::status_at;
use crate::domain::session::{valid_claude_path, valid_claude_uuid, valid_epic, valid_percent, valid_working_dir};
use crate::domain::{
    Heartbeat, InstanceId, InstanceType, Invalid, MachineName, Project, Registration, Session, Timestamp, WorkSummary,
};

/// Registers a session on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// Lower-case letters, digits and dashes; at most 22 characters, so that the id fits into 32.
    #[schema(min_length = 1, max_length = 22, pattern = "^[a-z0-9-]+$")]
    pub project: String,
    /// `PS`, a project supervisor, or `MS`, a meta supervisor. Default: `PS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(PS|MS)$")]
    pub instance_type: Option<String>,
    /// Default: the machine this daemon runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    pub host_machine: Option<String>,
    /// The epic that the session works on, of 1 to 256 characters. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub current_epic: Option<String>,
    /// How much of the context window is used, in percent. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub context_percent: Option<i64>,
    /// A running process on this host; when it ends, the session becomes stale at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2147483647)]
    pub pid: Option<i32>,
    /// Which agent runs it: `claude-code`, `codex`, `opencode`, `cursor`, `copilot`, `gemini` or `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(claude-code|codex|opencode|cursor|copilot|gemini|other)$")]
    pub agent: Option<String>,
    /// The agent's own id of its conversation, also that of another agent than Claude Code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub claude_session_uuid: Option<String>,
    /// The file of the conversation's transcript, on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub claude_session_path: Option<String>,
    /// The session's working directory, on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub working_dir: Option<String>,
}

impl RegisterRequest {
    /// The agent that it names.
    ///
    /// # Errors
    /// The name is not known.
    pub fn agent(&self) -> Result<Option<AgentName>, Invalid> {
        self.agent.as_deref().map(valid_agent).transpose()
    }

    /// The validated registration, on `this` machine unless it names another.
    ///
    /// # Errors
    /// A field is invalid.
    pub fn validate(&self, this: &MachineName) -> Result<Registration, Invalid> {
        self.agent()?;
        Ok(Registration {
            project: Project::parse(&self.project)?,
            instance_type: self.instance_type.as_deref().map_or(Ok(InstanceType::Ps), InstanceType::parse)?,
            host_machine: self.host_machine.as_deref().map_or_else(|| Ok(this.clone()), MachineName::parse)?,
            context_percent: self.context_percent.map_or(Ok(0), valid_percent)?,
            current_epic: self.current_epic.as_deref().map(valid_epic).transpose()?,
            claude_session_uuid: self.claude_session_uuid.as_deref().map(valid_claude_uuid).transpose()?,
            claude_session_path: self.claude_session_path.as_deref().map(valid_claude_path).transpose()?,
            resumed_from: None,
            working_dir: self.working_dir.as_deref().map(valid_working_dir).transpose()?,
        })
    }
}

/// A heartbeat. Fields that are left out stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// How much of the context window is used, in percent. Default: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub context_percent: Option<i64>,
    /// Null clears the epic.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub current_epic: Option<Option<String>>,
    /// What the session does now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(working|waiting|idle|failed)$")]
    pub activity: Option<String>,
    /// What it waits for; only with the activity `waiting`. Default: `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(permission|question|plan|input)$")]
    pub waiting_for: Option<String>,
    /// Such as the tool that waits for permission, or the kind of the error; only with an activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub activity_detail: Option<String>,
}

/// Distinguishes null, `Some(None)`, from a field that is left out, `None`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl HeartbeatRequest {
    /// The validated heartbeat, which arrived at `now`.
    ///
    /// # Errors
    /// A field is invalid.
    pub fn validate(&self, now: Timestamp) -> Result<Heartbeat, Invalid> {
        let epic = |epic: &Option<String>| epic.as_deref().map(valid_epic).transpose();
        Ok(Heartbeat {
            context_percent: self.context_percent.map(valid_percent).transpose()?,
            current_epic: self.current_epic.as_ref().map(epic).transpose()?,
            activity: self.activity(now)?,
        })
    }

    fn activity(&self, now: Timestamp) -> Result<Option<ActivityEvent>, Invalid> {
        let Some(activity) = self.activity.clone() else {
            let lone = [("waiting_for", &self.waiting_for), ("activity_detail", &self.activity_detail)];
            return match lone.into_iter().find(|(_, value)| value.is_some()) {
                Some((field, _)) => Err(Invalid::new(field, "it requires `activity`")),
                None => Ok(None),
            };
        };
        let report = ActivityReport {
            activity,
            waiting_for: self.waiting_for.clone(),
            detail: self.activity_detail.clone(),
            source: Some(ActivitySource::Api.as_str().to_owned()),
            ..ActivityReport::default()
        };
        report.validate(now).map(Some)
    }
}

/// A session: the columns of supervisor_sessions under their own names, and its state on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionBody {
    /// `PROJECT-TYPE-HASH`, such as `odin-PS-8f4a2b`.
    pub instance_id: String,
    /// The project: lower-case letters, digits and dashes.
    pub project: String,
    /// `PS`, a project supervisor, or `MS`, a meta supervisor.
    pub instance_type: String,
    /// `active`, `stale` or `closed`, at the time of the response.
    pub status: String,
    /// How much of the context window is used, in percent, as of the last heartbeat.
    pub context_percent: u8,
    /// The epic that it works on; null if there is none.
    pub current_epic: Option<String>,
    /// RFC 3339 in UTC with microseconds, as all times here.
    pub last_heartbeat: String,
    /// When it was registered. Together with the id it identifies the session.
    pub created_at: String,
    /// When it was closed; null unless its status is `closed`.
    pub closed_at: Option<String>,
    /// The machine that it runs on.
    pub host_machine: String,
    /// Claude Code's id of the conversation; null if it was not reported.
    pub claude_session_uuid: Option<String>,
    /// The file of the conversation's transcript, on its machine; null if it was not reported.
    pub claude_session_path: Option<String>,
    /// The session that this one continues.
    #[serde(default)]
    pub resumed_from: Option<String>,
    /// The session's working directory, on its machine.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// Seconds since the last heartbeat.
    pub age_seconds: u64,
    /// Whether the session was registered on this host.
    pub local: bool,
    /// The time up to which this host knows the session's state.
    pub as_of: String,
    /// For another machine's session: `mirror`, if this host reads it ahead, or `central`, if it was read because somebody
    /// asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why the state is older than it could be. Reported for one session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Whether central has this state.
    pub synced: bool,
    /// Whether its own machine has this state; false while that machine's daemon or this one has no link to central.
    #[serde(default = "synced_by_default")]
    pub machine_synced: bool,
    /// For another machine's session: when its daemon last vouched for it; null where none does.
    #[serde(default)]
    pub alive_as_of: Option<String>,
    /// The id under which the session was registered, if central had another session with that id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_id: Option<String>,
    /// The context window is more than 80 % full and there is no checkpoint since then: make one. Reported by heartbeats.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint_suggested: bool,
    /// `claude-code`, `codex`, `opencode`, `cursor`, `copilot`, `gemini` or `other`; null: not known.
    #[serde(default)]
    pub agent: Option<String>,
    /// The agent's own id of its conversation, which continues it; also in claude_session_uuid, for earlier clients.
    #[serde(default)]
    pub agent_session_id: Option<String>,
    /// The version that the agent reported of itself.
    #[serde(default)]
    pub agent_version: Option<String>,
    /// How its agent runs: `interactive`, `headless` or `background`; null where that is not known.
    #[serde(default)]
    pub kind: Option<String>,
    /// What it does: `working`, `waiting`, `idle` or `failed`; null where nothing vouches for it.
    #[serde(default)]
    pub activity: Option<String>,
    /// What it waits for: `permission`, `question`, `plan` or `input`.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// The tool that waits for permission, the kind of the error, or how many background tasks run.
    #[serde(default)]
    pub activity_detail: Option<String>,
    /// Since when it does that, by the first report of it; null without an activity.
    #[serde(default)]
    pub activity_since: Option<String>,
    /// Who reported it: `hook`, `status_file` or `api`.
    #[serde(default)]
    pub activity_source: Option<String>,
    /// The agent's own title, or else the first line of the first prompt.
    #[serde(default)]
    pub title: Option<String>,
    /// The repository's remote without credentials, such as `github.com/team/app`.
    #[serde(default)]
    pub repository: Option<String>,
    /// The branch that is checked out; null on none, and where it is not known.
    #[serde(default)]
    pub branch: Option<String>,
    /// The top folder of the working tree, on its machine.
    #[serde(default)]
    pub worktree: Option<String>,
    /// The model's name, as the agent reports it.
    #[serde(default)]
    pub model: Option<String>,
    /// What it has cost so far, in US dollars.
    #[serde(default)]
    pub cost_usd: Option<f64>,
    /// Up to ten active sessions that share its working tree, branch or epic. Reported for one session, by
    /// heartbeats, agents' reports and lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts_with: Vec<String>,
}

/// The default for responses of earlier versions, which knew only this host's sessions.
const fn synced_by_default() -> bool {
    true
}

/// A session as this host knows it, from which its body is made.
#[derive(Clone, Copy, Debug)]
pub struct SessionView<'a> {
    /// The session.
    pub session: &'a Session,
    /// Whether this host keeps it.
    pub local: bool,
    /// The time up to which its state is known here.
    pub as_of: Timestamp,
    /// Whether central has this state.
    pub synced: bool,
    /// Whether this is the state that its own machine has.
    pub machine_synced: bool,
    /// When the host that vouches for it last contacted central; none if no host does.
    pub alive_as_of: Option<Timestamp>,
    /// The id under which it was registered, if it was replaced.
    pub former_id: Option<&'a str>,
    /// Whether there is no checkpoint since its context window became nearly full.
    pub checkpoint_due: bool,
    /// The sessions that share its working tree, branch or epic.
    pub conflicts: &'a [InstanceId],
    /// What lists show of its work.
    pub work: Option<&'a WorkSummary>,
    /// Where another machine's session was read.
    pub source: Option<Source>,
}

/// Where this host has a session of another machine from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is read ahead.
    Mirror,
    /// It was read because somebody asked for it.
    Central,
}

impl Source {
    /// As it is in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Central => "central",
        }
    }
}

impl SessionView<'_> {
    /// Its JSON form. `stale_after`: a session without a heartbeat for this long is stale.
    pub fn body(&self, now: Timestamp, stale_after: Duration) -> SessionBody {
        let s = self.session;
        let status = status_at(s.status, s.last_heartbeat, self.alive_as_of, now, stale_after);
        let work = self.work.cloned().unwrap_or_default();
        let activity = work.current_activity(status).cloned();
        SessionBody {
            instance_id: s.instance_id.to_string(),
            project: s.project.to_string(),
            instance_type: s.instance_type.to_string(),
            status: status.as_str().to_owned(),
            context_percent: s.context_percent,
            current_epic: s.current_epic.clone(),
            last_heartbeat: s.last_heartbeat.to_string(),
            created_at: s.created_at.to_string(),
            closed_at: s.closed_at.map(|at| at.to_string()),
            host_machine: s.host_machine.to_string(),
            claude_session_uuid: s.claude_session_uuid.clone(),
            claude_session_path: s.claude_session_path.clone(),
            resumed_from: s.resumed_from.as_ref().map(ToString::to_string),
            working_dir: s.working_dir.clone(),
            age_seconds: now.since(s.last_heartbeat).as_secs(),
            local: self.local,
            as_of: self.as_of.to_string(),
            source: self.source.map(|source| source.as_str().to_owned()),
            note: None,
            synced: self.synced,
            machine_synced: self.machine_synced,
            alive_as_of: self.alive_as_of.map(|at| at.to_string()),
            former_id: self.former_id.map(str::to_owned),
            checkpoint_suggested: self.checkpoint_due,
            agent: work.agent.map(|agent| agent.as_str().to_owned()),
            agent_session_id: s.claude_session_uuid.clone(),
            agent_version: work.agent_version,
            kind: work.kind.map(|kind| kind.as_str().to_owned()),
            activity: activity.as_ref().map(|activity| activity.state.as_str().to_owned()),
            waiting_for: activity.as_ref().and_then(|activity| Some(activity.waiting_for?.as_str().to_owned())),
            activity_since: activity.as_ref().map(|activity| activity.since.to_string()),
            activity_source: activity.as_ref().map(|activity| activity.source.as_str().to_owned()),
            activity_detail: activity.and_then(|activity| activity.detail),
            title: work.title,
            repository: work.repository,
            branch: work.branch,
            worktree: work.worktree,
            model: work.model,
            cost_usd: work.cost_usd,
            conflicts_with: self.conflicts.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Which sessions to list. A filter that is left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only sessions of this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 22, pattern = "^[a-z0-9-]+$")]
    pub project: Option<String>,
    /// Only sessions of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 64, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    pub machine: Option<String>,
    /// `active`, `stale` or `closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^(active|stale|closed)$")]
    pub status: Option<String>,
    /// Only active sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_only: Option<bool>,
    /// Only active sessions with this activity: `working`, `waiting`, `idle` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^(working|waiting|idle|failed)$")]
    pub activity: Option<String>,
    /// Only this host's sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// Also sessions that were closed longer ago than `sessions.keep_closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// The most sessions to list. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 256)]
    pub after: Option<String>,
}

/// The most sessions on one page.
pub const MAX_SESSIONS_PER_PAGE: u32 = 1000;

/// Which sessions to watch. A filter that is left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// Only sessions of this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 22, pattern = "^[a-z0-9-]+$")]
    pub project: Option<String>,
    /// Only sessions of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 64, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    pub machine: Option<String>,
    /// Only this host's sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// The id of the last event received, for clients that cannot send `Last-Event-ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Sessions by project, most recent heartbeat first, and their numbers by status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// By project, most recent heartbeat first.
    pub(crate) instances: Vec<SessionBody>,
    /// How many sessions match.
    pub(crate) total_count: u64,
    /// How many of them are active.
    pub(crate) active_count: u64,
    /// How many of them are stale.
    pub(crate) stale_count: u64,
    /// The time of the answer, at which each session's status was decided.
    pub(crate) as_of: String,
    /// The `after` of the next page; null on the last one. The counts are those of all pages.
    #[serde(default)]
    pub next: Option<String>,
    /// `central`, if central was asked for sessions that this host does not read ahead and answered; else `mirror`.
    #[serde(default)]
    pub source: String,
    /// What the list lacks, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The sessions that match a prefix: up to ten, most recent heartbeat first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Matches {
    /// Up to ten sessions, the one with the most recent heartbeat first.
    pub(crate) matches: Vec<SessionBody>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_clears_the_epic_and_absence_keeps_it() {
        let parse = |text: &str| serde_json::from_str::<HeartbeatRequest>(text).unwrap().current_epic;
        assert_eq!(parse("{}"), None);
        assert_eq!(parse(r#"{"current_epic": null}"#), Some(None));
        assert_eq!(parse(r#"{"current_epic": "003"}"#), Some(Some("003".into())));
    }

    #[test]
    fn a_heartbeat_round_trips_through_json() {
        let clear =
            HeartbeatRequest { context_percent: Some(3), current_epic: Some(None), ..HeartbeatRequest::default() };
        let text = serde_json::to_string(&clear).unwrap();
        assert_eq!(serde_json::from_str::<HeartbeatRequest>(&text).unwrap(), clear);
    }
}
