//! Claude Code: its hooks and status line as reports, its settings, its files of running agents, its installed versions.
//!
//! Versions of Claude Code differ: unknown fields are skipped, and missing or invalid ones are left out of a report. No
//! input makes a hook fail.

pub mod activity;
pub mod agent_process;
pub mod background_job;
pub mod hook;
pub mod input;
pub mod limits;
pub mod other_agents;
pub mod project;
pub mod running_agent;
pub mod session_cache;
pub mod settings;
pub mod statusline;
pub mod transcript;
pub mod versions;
pub mod work;

use crate::domain::InstanceId;
use crate::domain::agent::AgentKind;
use crate::domain::session::{valid_claude_path, valid_claude_uuid, valid_working_dir};
use crate::platform::default_paths::Env;
use crate::wire::AgentReport;
use input::Input;

/// Variables that newer versions of Claude Code set.
const SESSION_ID: &str = "CLAUDE_CODE_SESSION_ID";
const PROJECT_DIR: &str = "CLAUDE_PROJECT_DIR";
/// `cli` for a terminal, `sdk-cli` for `claude -p`, `sdk-py` and `sdk-ts` for the SDKs.
const ENTRYPOINT: &str = "CLAUDE_CODE_ENTRYPOINT";
/// `0` if no user can answer.
const ATTENDED: &str = "CLAUDE_CODE_SESSION_ATTENDED";
/// The folder of a background session's job.
const JOB_DIR: &str = "CLAUDE_JOB_DIR";
/// The session of the program that runs the agent; `sessiond exec` sets it.
const OUTER_ID: &str = "INSTANCE_ID";

fn variable(env: Env<'_>, name: &str) -> Option<String> {
    env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
}

/// The kind of session, by the agent's variables.
fn agent_kind(env: Env<'_>) -> Option<AgentKind> {
    let entrypoint = variable(env, ENTRYPOINT);
    if variable(env, JOB_DIR).is_some() {
        Some(AgentKind::Background)
    } else if entrypoint.as_deref().is_some_and(|name| name.starts_with("sdk"))
        || variable(env, ATTENDED).as_deref() == Some("0")
    {
        Some(AgentKind::Headless)
    } else {
        entrypoint.filter(|name| name == "cli").map(|_| AgentKind::Interactive)
    }
}

/// A report with the fields that describe the agent: from `input`, else from the environment. Invalid values are left out.
fn reporting_agent(input: &Input, folder: Option<&str>, env: Env<'_>) -> AgentReport {
    let uuid = input.text("session_id").map(str::to_owned).or_else(|| variable(env, SESSION_ID));
    let folder = folder.map(str::to_owned).or_else(|| variable(env, PROJECT_DIR)).or_else(|| {
        let here = std::env::current_dir().ok()?;
        here.into_os_string().into_string().ok()
    });
    AgentReport {
        claude_session_uuid: uuid.and_then(|uuid| valid_claude_uuid(&uuid).ok()),
        claude_session_path: input.text("transcript_path").and_then(|path| valid_claude_path(path).ok()),
        working_dir: folder.and_then(|folder| valid_working_dir(&folder).ok()),
        kind: agent_kind(env).map(|kind| kind.as_str().to_owned()),
        outer_id: variable(env, OUTER_ID).filter(|id| InstanceId::parse(id).is_ok()),
        ..AgentReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_is_known_by_variables() {
        let of = |variables: &[(&str, &str)]| {
            agent_kind(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(ENTRYPOINT, "cli")]), Some(AgentKind::Interactive));
        assert_eq!(of(&[(ENTRYPOINT, "cli"), (ATTENDED, "1")]), Some(AgentKind::Interactive));
        assert_eq!(of(&[(ENTRYPOINT, "sdk-cli")]), Some(AgentKind::Headless));
        assert_eq!(of(&[(ENTRYPOINT, "sdk-py")]), Some(AgentKind::Headless));
        assert_eq!(of(&[(ENTRYPOINT, "cli"), (ATTENDED, "0")]), Some(AgentKind::Headless), "inherited from a terminal");
        assert_eq!(of(&[(ENTRYPOINT, "cli"), (ATTENDED, "0"), (JOB_DIR, "/j")]), Some(AgentKind::Background));
        assert_eq!(of(&[(ENTRYPOINT, "claude-vscode")]), None);
    }
}
