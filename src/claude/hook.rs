//! Hooks: the events of Claude Code, and the report that each becomes.

use std::path::Path;

use serde_json::{Map, Value};

use super::input::Input;
use super::{JOB_DIR, activity, agent_kind, background_job, reporting_agent, variable, work};
use crate::domain::agent::AgentKind;
use crate::domain::work::Recording;
use crate::platform::default_paths::Env;
use crate::wire::AgentReport;

/// The fields of events that are read, besides those that identify other agents.
pub fn wanted() -> Vec<&'static str> {
    let own = ["session_id", "transcript_path", "cwd", "new_cwd", "source", "reason", "custom_instructions"];
    [&own[..], &activity::WANTED, &work::WANTED].concat()
}

/// An event of Claude Code that says more than that the agent lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// A conversation begins, or continues after a resume, /clear or compaction.
    SessionStart,
    /// The user sent a prompt.
    UserPromptSubmit,
    /// A tool is about to be used.
    PreToolUse,
    /// A tool waits for the user's permission.
    PermissionRequest,
    /// A tool was used.
    PostToolUse,
    /// A tool failed, or its use was interrupted.
    PostToolUseFailure,
    /// An MCP server asks the user.
    Elicitation,
    /// A turn ended.
    Stop,
    /// A turn ended with an error.
    StopFailure,
    /// The user's attention is asked for.
    Notification,
    /// The context is about to be compacted.
    PreCompact,
    /// The context was compacted.
    PostCompact,
    /// The conversation ended in this process.
    SessionEnd,
    /// A sub-agent ended.
    SubagentStop,
    /// The agent added a to-do.
    TaskCreated,
    /// The agent finished a to-do.
    TaskCompleted,
    /// The agent works in another folder from now on.
    CwdChanged,
    /// The user answered an MCP server.
    ElicitationResult,
    /// The user denied a permission.
    PermissionDenied,
    /// A sub-agent began.
    SubagentStart,
    /// A worktree was created for the conversation.
    WorktreeCreate,
    /// A worktree was removed.
    WorktreeRemove,
}

impl HookEvent {
    /// Those for which a hook is installed. What the others say follows from these, except for WorktreeCreate and
    /// WorktreeRemove: a hook of them replaces what Claude Code itself does.
    pub const INSTALLED: [Self; 17] = match Self::ALL.first_chunk() {
        Some(installed) => *installed,
        None => unreachable!(),
    };

    /// All of them; the installed ones first, in their order.
    pub const ALL: [Self; 22] = [
        Self::SessionStart,
        Self::UserPromptSubmit,
        Self::PreToolUse,
        Self::PermissionRequest,
        Self::PostToolUse,
        Self::PostToolUseFailure,
        Self::Elicitation,
        Self::Stop,
        Self::StopFailure,
        Self::Notification,
        Self::PreCompact,
        Self::PostCompact,
        Self::SessionEnd,
        Self::SubagentStop,
        Self::TaskCreated,
        Self::TaskCompleted,
        Self::CwdChanged,
        Self::ElicitationResult,
        Self::PermissionDenied,
        Self::SubagentStart,
        Self::WorktreeCreate,
        Self::WorktreeRemove,
    ];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// The name that Claude Code gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SessionStart => "SessionStart",
            Self::UserPromptSubmit => "UserPromptSubmit",
            Self::PreToolUse => "PreToolUse",
            Self::PermissionRequest => "PermissionRequest",
            Self::PostToolUse => "PostToolUse",
            Self::PostToolUseFailure => "PostToolUseFailure",
            Self::Elicitation => "Elicitation",
            Self::Stop => "Stop",
            Self::StopFailure => "StopFailure",
            Self::Notification => "Notification",
            Self::PreCompact => "PreCompact",
            Self::PostCompact => "PostCompact",
            Self::SessionEnd => "SessionEnd",
            Self::SubagentStop => "SubagentStop",
            Self::TaskCreated => "TaskCreated",
            Self::TaskCompleted => "TaskCompleted",
            Self::CwdChanged => "CwdChanged",
            Self::ElicitationResult => "ElicitationResult",
            Self::PermissionDenied => "PermissionDenied",
            Self::SubagentStart => "SubagentStart",
            Self::WorktreeCreate => "WorktreeCreate",
            Self::WorktreeRemove => "WorktreeRemove",
        }
    }

    /// The tools for which the hook is installed; `None`: all. The agent waits for a hook, so those that neither change
    /// anything nor are likely to wait for a permission, such as Read and Grep, have none.
    pub const fn matcher(self) -> Option<&'static str> {
        match self {
            Self::PreToolUse => Some("AskUserQuestion|ExitPlanMode"),
            Self::PostToolUse => Some(
                "Bash|PowerShell|Edit|Write|MultiEdit|NotebookEdit|TodoWrite|AskUserQuestion|ExitPlanMode|WebFetch|\
                 WebSearch|Skill|SlashCommand|mcp__.*",
            ),
            _ => None,
        }
    }

    /// The report of this event, without the work.
    pub fn report(self, input: &Input, env: Env<'_>) -> AgentReport {
        let folder = input.text("new_cwd").filter(|_| self == Self::CwdChanged).or_else(|| input.text("cwd"));
        let agent = reporting_agent(input, folder, env);
        let (sign, source) = match self {
            // A source that a later version introduces starts a session like any other.
            Self::SessionStart => ("start", input.text("source").and_then(known_source)),
            Self::SessionEnd => (end_sign(input.text("reason"), env), None),
            _ => ("beat", None),
        };
        // A new conversation is empty, and the status line reports that only after the first answer.
        let context_percent = (source.as_deref() == Some("clear")).then_some(0);
        let activity = activity::of(self, input);
        AgentReport { sign: sign.to_owned(), source, context_percent, activity, ..agent }
    }

    /// The record that it adds to the session's history; a record of less than everything has no text of the conversation.
    pub fn record(self, input: &Input, recording: Recording) -> Option<HookRecord> {
        let text = |name: &str| input.text(name).filter(|_| recording == Recording::Full);
        if recording == Recording::None {
            return None;
        }
        match self {
            Self::PreCompact => Some(HookRecord::Checkpoint(object_of([
                ("reason", Some("compact")),
                ("trigger", input.text("trigger")),
                ("custom_instructions", text("custom_instructions")),
                ("transcript", input.text("transcript_path")),
                ("working_dir", input.text("cwd")),
            ]))),
            Self::PostCompact => Some(HookRecord::ContextWindowUpdated(object_of([
                ("reason", Some("compact")),
                ("trigger", input.text("trigger")),
                ("compact_summary", text("compact_summary")),
            ]))),
            _ => None,
        }
    }
}

/// The report of an event that is not known here, as a later version has them: a heartbeat.
pub fn heartbeat(input: &Input, env: Env<'_>) -> AgentReport {
    AgentReport { sign: "beat".to_owned(), ..reporting_agent(input, input.text("cwd"), env) }
}

/// A record for the session's history.
#[derive(Clone, Debug, PartialEq)]
pub enum HookRecord {
    /// The work state of a checkpoint of type `context_window`.
    Checkpoint(Map<String, Value>),
    /// The data of an event `context_window_updated`.
    ContextWindowUpdated(Map<String, Value>),
}

/// The sign that the end of a conversation is for its session.
///
/// The reason `other` has several causes: a finished `claude -p` and `claude stop` of a background session end the session;
/// after a signal or a closed terminal it can be resumed.
fn end_sign(reason: Option<&str>, env: Env<'_>) -> &'static str {
    match (reason, agent_kind(env)) {
        (Some("clear" | "resume"), _) => "leave",
        (Some("prompt_input_exit" | "logout" | "exit"), _) => "end",
        (_, Some(AgentKind::Interactive)) => "gone",
        (_, Some(AgentKind::Background)) if job_continues(env) => "gone",
        _ => "end",
    }
}

fn job_continues(env: Env<'_>) -> bool {
    variable(env, JOB_DIR).and_then(|folder| background_job::continues(Path::new(&folder))).unwrap_or(false)
}

fn known_source(source: &str) -> Option<String> {
    crate::domain::agent::StartSource::parse(source).map(|source| source.as_str().to_owned())
}

/// The longest text in a record, in characters: the body of a request is bounded.
const MAX_TEXT_CHARS: usize = 8000;

/// The fields that have a text, without secrets, as an object.
fn object_of<const N: usize>(fields: [(&str, Option<&str>); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), cut(text?).into()))).collect()
}

fn cut(text: &str) -> String {
    work::without_secrets(text).chars().take(MAX_TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(event: HookEvent, text: &str) -> AgentReport {
        event.report(&Input::read(text.as_bytes(), &wanted()), &|_| None)
    }

    #[test]
    fn each_event_has_its_signal() {
        let sign = |event: HookEvent, rest: &str| {
            let text = format!(r#"{{"session_id": "s", "transcript_path": "/t", "cwd": "/w"{rest}}}"#);
            let report = report(event, &text);
            assert_eq!(report.claude_session_uuid.as_deref(), Some("s"));
            assert_eq!(report.claude_session_path.as_deref(), Some("/t"));
            assert_eq!(report.working_dir.as_deref(), Some("/w"));
            (report.sign, report.source.unwrap_or_default())
        };
        let is = |sign: &str, source: &str| (sign.to_owned(), source.to_owned());
        assert_eq!(sign(HookEvent::SessionStart, r#", "source": "resume""#), is("start", "resume"));
        assert_eq!(sign(HookEvent::SessionStart, r#", "source": "tomorrow's""#), is("start", ""));
        assert_eq!(sign(HookEvent::SessionStart, r#", "source": 7"#), is("start", ""));
        for event in [
            HookEvent::UserPromptSubmit,
            HookEvent::Stop,
            HookEvent::Notification,
            HookEvent::PreCompact,
            HookEvent::PostCompact,
        ] {
            assert_eq!(sign(event, r#", "prompt": "p""#), is("beat", ""), "{event:?}");
        }
        assert_eq!(sign(HookEvent::SessionEnd, r#", "reason": "clear""#), is("leave", ""));
        assert_eq!(sign(HookEvent::SessionEnd, r#", "reason": "resume""#), is("leave", ""));
        assert_eq!(sign(HookEvent::SessionEnd, r#", "reason": "other""#), is("end", ""));
        assert_eq!(sign(HookEvent::SessionEnd, ""), is("end", ""));
    }

    #[test]
    fn end_depends_on_its_reason_and_the_kind_of_session() {
        let jobs = tempfile::tempdir().unwrap();
        let sign = |reason: &str, entrypoint: &str, job: Option<&str>| {
            if let Some(state) = job {
                std::fs::write(jobs.path().join("state.json"), format!(r#"{{"state": "{state}"}}"#)).unwrap();
            }
            let env = |name: &str| match name {
                "CLAUDE_CODE_ENTRYPOINT" => Some(entrypoint.into()),
                "CLAUDE_JOB_DIR" => job.map(|_| jobs.path().into()),
                _ => None,
            };
            let input = Input::read(format!(r#"{{"reason": "{reason}"}}"#).as_bytes(), &wanted());
            HookEvent::SessionEnd.report(&input, &env).sign
        };
        for reason in ["other", "bypass_permissions_disabled", "of a later version"] {
            assert_eq!(sign(reason, "cli", None), "gone", "{reason}");
            assert_eq!(sign(reason, "sdk-cli", None), "end", "{reason}");
            assert_eq!(sign(reason, "cli", Some("stopped")), "end", "{reason}");
            assert_eq!(sign(reason, "cli", Some("crashed")), "gone", "{reason}");
        }
        for entrypoint in ["cli", "sdk-cli"] {
            assert_eq!(sign("prompt_input_exit", entrypoint, None), "end");
            assert_eq!(sign("logout", entrypoint, None), "end");
            assert_eq!(sign("clear", entrypoint, None), "leave");
        }
    }

    #[test]
    fn context_of_a_cleared_conversation_is_zero() {
        let percent = |source: &str| {
            report(HookEvent::SessionStart, &format!(r#"{{"session_id": "s", "source": "{source}"}}"#)).context_percent
        };
        assert_eq!(percent("clear"), Some(0));
        for source in ["startup", "resume", "compact", "fork"] {
            assert_eq!(percent(source), None, "{source}");
        }
    }

    #[test]
    fn environment_replaces_missing_fields() {
        let env = |name: &str| match name {
            "CLAUDE_CODE_SESSION_ID" => Some("s".into()),
            "CLAUDE_PROJECT_DIR" => Some("/w".into()),
            _ => None,
        };
        for text in ["", "{", r#"{"session_id": 7, "cwd": ["x"]}"#, r#"{"session_id": "", "cwd": ""}"#] {
            let input = Input::read(text.as_bytes(), &wanted());
            let report = HookEvent::Stop.report(&input, &env);
            assert_eq!(report.claude_session_uuid.as_deref(), Some("s"), "{text}");
            assert_eq!(report.working_dir.as_deref(), Some("/w"), "{text}");
        }
    }

    #[test]
    fn invalid_fields_are_left_out() {
        let long = "x".repeat(5000);
        let report = report(
            HookEvent::Stop,
            &format!(r#"{{"session_id": "{long}", "transcript_path": "a\nb", "cwd": "/\u0000"}}"#),
        );
        assert_eq!((report.claude_session_uuid, report.claude_session_path), (None, None));
    }

    #[test]
    fn compacting_records_a_checkpoint() {
        let input = Input::read(
            br#"{"trigger": "auto", "custom_instructions": "keep", "transcript_path": "/t"}"#.as_slice(),
            &wanted(),
        );
        let Some(HookRecord::Checkpoint(state)) = HookEvent::PreCompact.record(&input, Recording::Full) else {
            panic!()
        };
        assert_eq!((&state["trigger"], &state["custom_instructions"]), (&Value::from("auto"), &Value::from("keep")));
        assert_eq!(HookEvent::Stop.record(&input, Recording::Full), None);
    }
}
