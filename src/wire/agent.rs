//! Reports of an agent's hooks and status line, and the response to them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ActivityReport, LimitsReport, SessionBody};
use crate::domain::agent::{
    AgentKind, AgentName, AgentSignal, StartSource, TypeRule, ValidReport, project_named, type_by,
};
use crate::domain::session::{valid_claude_path, valid_claude_uuid, valid_percent, valid_working_dir};
use crate::domain::work::WorkUpdate;
use crate::domain::{InstanceId, Invalid, Project, Timestamp};

const CLAUDE_CODE: &str = AgentName::ClaudeCode.as_str();

/// A report of an agent's start, heartbeat or end, which creates, resumes or ends its session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentReport {
    /// `start`: the agent starts or continues a conversation; `beat`: a heartbeat; `leave`: its process switches to
    /// another conversation; `end`: it ends with its work done; `gone`: its process ends with its work not done;
    /// `found`: its process was discovered (requires `pid`, a process of the client's); `exited`: the process with `pid`
    /// and `pid_started` removed its own file and ended.
    #[schema(pattern = "^(start|beat|leave|end|gone|found|exited)$")]
    pub sign: String,
    /// The cause of a `start`: `startup`, `resume`, `clear`, `compact` or `fork`. Default: `startup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(startup|resume|clear|compact|fork)$")]
    pub source: Option<String>,
    /// Which agent reports. Default: `claude-code` if the report names a conversation, else not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(claude-code|codex|opencode|cursor|copilot|gemini|other)$")]
    pub agent: Option<String>,
    /// The agent's own id of its conversation; it may change. Also accepted as `agent_session_id`.
    #[serde(alias = "agent_session_id", skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub claude_session_uuid: Option<String>,
    /// The file of the agent's transcript.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub claude_session_path: Option<String>,
    /// The agent's working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub working_dir: Option<String>,
    /// Default: derived from the name of the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 22, pattern = "^[a-z0-9-]+$")]
    pub project: Option<String>,
    /// The agent's process on this host; ignored if it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2147483647)]
    pub pid: Option<i32>,
    /// When that process started, in the system's own unit (on Linux, field 22 of /proc/PID/stat).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_started: Option<i64>,
    /// How much of the context window is used, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub context_percent: Option<i64>,
    /// The id that was given to the agent while the daemon did not respond; it becomes an alias of the session's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32, pattern = "^[a-z0-9-]+-(PS|MS)-[a-z0-9]{6}$")]
    pub promised_id: Option<String>,
    /// How the agent runs: `interactive`, `headless` (one prompt, such as `claude -p`) or `background`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(interactive|headless|background)$")]
    pub kind: Option<String>,
    /// The session of the program that started the agent (INSTANCE_ID). The agent uses that session unless another
    /// conversation runs in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32, pattern = "^[a-z0-9-]+-(PS|MS)-[a-z0-9]{6}$")]
    pub outer_id: Option<String>,
    /// When it happened, in RFC 3339. Default: when the report arrives.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// What the agent does from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<ActivityReport>,
    /// What it says about the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<WorkUpdate>,
    /// What it observed of its account's rate limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsReport>,
}

fn instance_id(field: &'static str, id: Option<&str>) -> Result<Option<InstanceId>, Invalid> {
    id.map(InstanceId::parse).transpose().map_err(|error| Invalid { field, ..error })
}

impl AgentReport {
    /// The validated report, which arrived at `now`; `rules` determine the type of the session that it may create.
    ///
    /// # Errors
    /// A field is invalid.
    pub fn validate(&self, rules: &[TypeRule], now: Timestamp) -> Result<ValidReport, Invalid> {
        if self.pid.is_some_and(|pid| pid < 1) {
            return Err(Invalid::new("pid", "it must be 1 or more"));
        }
        let working_dir = self.working_dir.as_deref().map(valid_working_dir).transpose()?;
        let folder_name = working_dir.as_deref().and_then(|dir| dir.rsplit('/').find(|name| !name.is_empty()));
        let project = match &self.project {
            Some(project) => Project::parse(project)?,
            None => project_named(folder_name.unwrap_or_default()),
        };
        let not_a_time = || Invalid::new("at", "it must be a time in RFC 3339, such as 2026-01-30T12:00:00Z");
        let at = self.at.as_deref().map(|at| Timestamp::parse(at).ok_or_else(not_a_time)).transpose()?;
        let at = at.map_or(now, |at| at.min(now));
        Ok(ValidReport {
            at,
            activity: self.activity.as_ref().map(|activity| activity.validate(at)).transpose()?,
            work: self
                .work
                .clone()
                .map(|update| update.without_secrets().sanitized())
                .filter(|update| !update.is_empty()),
            limits: self.limits.as_ref().map(|limits| limits.validate(at)).transpose()?,
            sign: self.sign()?,
            agent: self.agent()?,
            claude_session_uuid: self.claude_session_uuid.as_deref().map(valid_claude_uuid).transpose()?,
            claude_session_path: self.claude_session_path.as_deref().map(valid_claude_path).transpose()?,
            instance_type: type_by(rules, &project, working_dir.as_deref()),
            project,
            working_dir,
            context_percent: self.context_percent.map(valid_percent).transpose()?,
            kind: self.kind()?,
            promised_id: instance_id("promised_id", self.promised_id.as_deref())?,
            outer_id: instance_id("outer_id", self.outer_id.as_deref())?,
        })
    }

    /// The report as versions that know no activity have it; `None` if it is such a one, or of an agent that these
    /// versions would take for Claude Code.
    pub fn without_work(&self) -> Option<Self> {
        let would_be_claude =
            self.claude_session_uuid.is_some() && self.agent.as_deref().is_some_and(|name| name != CLAUDE_CODE);
        let earlier = Self { agent: None, at: None, activity: None, work: None, limits: None, ..self.clone() };
        (!would_be_claude && earlier != *self).then_some(earlier)
    }

    fn agent(&self) -> Result<Option<AgentName>, Invalid> {
        let unnamed = self.claude_session_uuid.as_ref().map(|_| AgentName::ClaudeCode);
        self.agent.as_deref().map(valid_agent).transpose().map(|named| named.or(unnamed))
    }

    fn kind(&self) -> Result<Option<AgentKind>, Invalid> {
        let unknown = || Invalid::new("kind", "it must be interactive, headless or background");
        self.kind.as_deref().map(|kind| AgentKind::parse(kind).ok_or_else(unknown)).transpose()
    }

    fn sign(&self) -> Result<AgentSignal, Invalid> {
        let source = self.source.as_deref().map_or(Some(StartSource::Startup), StartSource::parse);
        let source =
            source.ok_or_else(|| Invalid::new("source", "it must be startup, resume, clear, compact or fork"))?;
        match self.sign.as_str() {
            "start" => Ok(AgentSignal::Start(source)),
            "beat" => Ok(AgentSignal::Heartbeat),
            "leave" => Ok(AgentSignal::Leave),
            "end" => Ok(AgentSignal::End),
            "gone" => Ok(AgentSignal::Interrupted),
            "found" => Ok(AgentSignal::Found),
            "exited" => Ok(AgentSignal::Exited),
            _ => Err(Invalid::new("sign", "it must be start, beat, leave, end, gone, found or exited")),
        }
    }
}

/// # Errors
/// It is none of the known names.
pub(super) fn valid_agent(name: &str) -> Result<AgentName, Invalid> {
    AgentName::parse(name).ok_or_else(|| {
        Invalid::new("agent", "it must be claude-code, codex, opencode, cursor, copilot, gemini or other")
    })
}

/// The session that a report belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentBody {
    /// The session after the report.
    pub session: SessionBody,
    /// The line that the agent prints under its answers.
    pub footer: String,
    /// Whether this report created the session.
    pub created: bool,
}
