//! The agents that sessiond knows by name.

use serde::{Deserialize, Serialize};

/// Which program a session's agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentName {
    /// Anthropic's Claude Code.
    ClaudeCode,
    /// OpenAI's Codex CLI.
    Codex,
    /// opencode.
    Opencode,
    /// Cursor's CLI.
    Cursor,
    /// GitHub's Copilot CLI.
    Copilot,
    /// Google's Gemini CLI.
    Gemini,
    /// Any other program.
    Other,
}

impl AgentName {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::ClaudeCode, Self::Codex, Self::Opencode, Self::Cursor, Self::Copilot, Self::Gemini, Self::Other];

    /// The name in JSON, in central and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::Cursor => "cursor",
            Self::Copilot => "copilot",
            Self::Gemini => "gemini",
            Self::Other => "other",
        }
    }

    /// The agent with that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// The agent by a name that another machine uses: a later version may know more of them.
    pub fn from_foreign(name: &str) -> Self {
        Self::parse(name).unwrap_or(Self::Other)
    }

    /// The agent by the name of its program.
    pub fn of_program(program: &str) -> Self {
        match program {
            "claude" => Self::ClaudeCode,
            "codex" => Self::Codex,
            "opencode" => Self::Opencode,
            "cursor-agent" => Self::Cursor,
            "copilot" => Self::Copilot,
            "gemini" => Self::Gemini,
            _ => Self::Other,
        }
    }

    /// The program that a terminal runs; `None` where that is not known.
    pub const fn program(self) -> Option<&'static str> {
        Some(match self {
            Self::ClaudeCode => "claude",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::Cursor => "cursor-agent",
            Self::Copilot => "copilot",
            Self::Gemini => "gemini",
            Self::Other => return None,
        })
    }

    /// The command that continues a conversation, up to its id; `None` where no such command is known.
    pub const fn resume_prefix(self) -> Option<&'static str> {
        Some(match self {
            Self::ClaudeCode => "claude --resume ",
            Self::Codex => "codex resume ",
            Self::Opencode => "opencode --session ",
            Self::Cursor => "cursor-agent --resume ",
            Self::Copilot => "copilot --resume=",
            Self::Gemini => "gemini --resume ",
            Self::Other => return None,
        })
    }

    /// Whether one process of this agent runs several sessions, so that a process does not identify a session.
    pub const fn shares_process(self) -> bool {
        matches!(self, Self::Opencode)
    }
}

/// Identifies a conversation among those of all agents: two agents may give the same id to two conversations.
///
/// The ids of Claude Code are their own keys. Another agent's name and id are joined by a control character, which no id
/// contains.
pub fn conversation_key(agent: AgentName, session_id: &str) -> String {
    match agent {
        AgentName::ClaudeCode => session_id.to_owned(),
        other => format!("{}\u{1f}{session_id}", other.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let names = ["claude-code", "codex", "opencode", "cursor", "copilot", "gemini", "other"];
        assert_eq!(AgentName::ALL.map(AgentName::as_str), names);
        for name in AgentName::ALL {
            assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
            assert_eq!(AgentName::parse(name.as_str()), Some(name));
            assert!(name.program().is_none_or(|program| AgentName::of_program(program) == name));
        }
        assert_eq!(AgentName::parse("Codex"), None);
        assert_eq!(AgentName::from_foreign("of a later version"), AgentName::Other);
    }

    #[test]
    fn conversations_of_two_agents_have_two_keys() {
        let keys: Vec<_> = AgentName::ALL.into_iter().map(|name| conversation_key(name, "id")).collect();
        for (n, key) in keys.iter().enumerate() {
            assert!(!keys[n + 1..].contains(key), "{key:?}");
        }
        assert_eq!(conversation_key(AgentName::ClaudeCode, "id"), "id", "ids that are stored already are found");
    }
}
