//! Recognises other agents that run the hooks of Claude Code's settings or inherit its variables. Their events are not
//! reported, except for Cursor's: the others have hooks of their own.

use super::input::Input;
use crate::platform::default_paths::Env;

/// Cursor, whose events are reported as its own.
pub const CURSOR: &str = "Cursor";

/// Fields that Claude Code does not send with these events, and the agents that do.
const FIELDS: &[(&str, &str)] = &[
    ("cursor_version", CURSOR),
    ("conversation_id", CURSOR),
    ("turn_id", "Codex"),
    ("thread-id", "Codex"),
    ("timestamp", "Gemini CLI or Copilot CLI"),
    ("sessionId", "Copilot CLI"),
    ("hookName", "Copilot CLI"),
    ("sessionID", "opencode"),
    ("event", "opencode"),
    ("input", "opencode"),
];

/// The folders of other agents' transcripts.
const FOLDERS: &[(&str, &str)] = &[
    (".codex", "Codex"),
    (".gemini", "Gemini CLI"),
    (".copilot", "Copilot CLI"),
    (".cursor", CURSOR),
    (".qwen", "Qwen Code"),
    (".factory", "Droid"),
    (".grok", "Grok"),
];

/// The programs of other agents.
const PROGRAMS: &[(&str, &str)] = &[
    ("codex", "Codex"),
    ("gemini", "Gemini CLI"),
    ("copilot", "Copilot CLI"),
    ("opencode", "opencode"),
    ("cursor-agent", CURSOR),
    ("Cursor", CURSOR),
    ("qwen", "Qwen Code"),
    ("droid", "Droid"),
    ("grok", "Grok"),
    ("devin", "Devin"),
];

/// Variables of other agents. A Claude Code that one of them runs inherits them.
const VARIABLES: &[(&str, &str)] = &[
    ("CURSOR_VERSION", CURSOR),
    ("CODEX_MANAGED_BY_NPM", "Codex"),
    ("CODEX_MANAGED_PACKAGE_ROOT", "Codex"),
    ("CODEX_THREAD_ID", "Codex"),
    ("GEMINI_SESSION_ID", "Gemini CLI"),
    ("GEMINI_CLI", "Gemini CLI"),
    ("COPILOT_CLI", "Copilot CLI"),
    ("OPENCODE", "opencode"),
    ("OPENCODE_PID", "opencode"),
];

/// Variables that every version of Claude Code sets, and no other agent.
const CLAUDE: &[&str] = &["CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SESSION_ID"];

/// All fields that are examined.
pub const WANTED: [&str; 13] = [
    "cursor_version",
    "conversation_id",
    "turn_id",
    "thread-id",
    "timestamp",
    "sessionId",
    "hookName",
    "sessionID",
    "event",
    "input",
    "session_id",
    "transcript_path",
    "hook_event_name",
];

/// The name of the other agent that sent `input`; `program` is the name of the nearest agent's process.
pub fn other_agent(input: &Input, program: Option<&str>, env: Env<'_>) -> Option<&'static str> {
    let field = FIELDS.iter().find(|(name, _)| input.at(&[name]).is_some());
    let path = input.text("transcript_path").unwrap_or_default();
    let folder = || FOLDERS.iter().find(|(folder, _)| path.split('/').any(|part| part == *folder));
    let process = || PROGRAMS.iter().find(|(name, _)| program == Some(name));
    let variable = || {
        let inside_claude = CLAUDE.iter().any(|name| env(name).is_some());
        VARIABLES.iter().find(|(name, _)| !inside_claude && env(name).is_some())
    };
    field.or_else(folder).or_else(process).or_else(variable).map(|(_, agent)| *agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str, program: Option<&str>, variables: &[&str]) -> Option<&'static str> {
        let input = Input::read(text.as_bytes(), &WANTED);
        other_agent(&input, program, &|name| variables.contains(&name).then(|| "1".into()))
    }

    #[test]
    fn fields_of_other_agents_are_read() {
        assert!(FIELDS.iter().all(|(name, _)| WANTED.contains(name)));
    }

    #[test]
    fn other_agents_are_recognised_by_json_process_and_environment() {
        let claude = r#"{"session_id": "s", "transcript_path": "/home/me/.claude/projects/-w/s.jsonl", "cwd": "/w"}"#;
        assert_eq!(from(claude, Some("claude"), &["CLAUDE_CODE_ENTRYPOINT"]), None);
        assert_eq!(from(claude, Some("node"), &[]), None);
        assert_eq!(from(claude, None, &["OPENCODE", "CLAUDE_CODE_ENTRYPOINT"]), None, "Claude Code inside of opencode");
        assert_eq!(from(claude, None, &["OPENCODE", "CLAUDE_PROJECT_DIR"]), Some("opencode"));
        assert_eq!(from(claude, None, &["COPILOT_CLI", "CLAUDE_PROJECT_DIR"]), Some("Copilot CLI"));
        assert_eq!(from(claude, Some("codex"), &["CLAUDE_CODE_ENTRYPOINT"]), Some("Codex"), "Codex inside of Claude");
        let cursor = r#"{"session_id": "s", "conversation_id": "s", "cursor_version": "2.1", "cwd": "/w"}"#;
        assert_eq!(from(cursor, Some("claude"), &["CLAUDE_CODE_ENTRYPOINT"]), Some(CURSOR));
        let codex = r#"{"session_id": "s", "transcript_path": "/home/me/.codex/sessions/rollout-s.jsonl"}"#;
        assert_eq!(from(codex, None, &[]), Some("Codex"));
    }
}
