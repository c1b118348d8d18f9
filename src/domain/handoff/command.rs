//! The command that continues a session where it ran.

use std::borrow::Cow;

use crate::domain::agent::AgentName;
use crate::domain::text::is_unsafe;
use crate::domain::{Session, SessionLocation, Status};

/// The longest path in a command, in bytes: Linux' PATH_MAX.
const MAX_PATH: usize = 4096;

/// Whether the session was just resumed by the command that prints this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeProgress {
    /// It is only shown, and would have to be resumed.
    NotResumed,
    /// It was resumed: resuming it again would be rejected.
    Resumed,
}

/// The shell command that continues a session from this machine. `None` if the session was resumed already and no
/// conversation is known. `agent`: which one runs it; a conversation without a known agent is Claude Code's.
pub fn resume_command(
    session: &Session,
    agent: Option<AgentName>,
    place: &SessionLocation,
    progress: ResumeProgress,
) -> Option<String> {
    let conversation = session.claude_session_uuid.as_deref().filter(|id| is_plain(id));
    let known = conversation.zip(agent.unwrap_or(AgentName::ClaudeCode).resume_prefix());
    let what = match (known, progress) {
        (Some((id, prefix)), _) => format!("{prefix}{}", quoted(id)),
        (None, ResumeProgress::Resumed) => return None,
        (None, ResumeProgress::NotResumed) if session.status == Status::Closed => {
            format!("sessiond resume {} --closed", session.instance_id)
        }
        (None, ResumeProgress::NotResumed) => format!("sessiond resume {}", session.instance_id),
    };
    let folder = session.working_dir.as_deref().filter(|dir| dir.starts_with('/') && is_plain(dir));
    let there = folder.map_or(what.clone(), |dir| format!("cd {} && {what}", quoted(dir)));
    // Machine names contain no special characters of shells.
    Some(if place.here { there } else { format!("ssh {} -t {}", session.host_machine, quoted(&there)) })
}

/// Whether the text is safe as an argument: not an option, and without unsafe or replaced characters.
fn is_plain(text: &str) -> bool {
    let bad = |c: char| is_unsafe(c) || c == char::REPLACEMENT_CHARACTER;
    !text.is_empty() && !text.starts_with('-') && text.len() <= MAX_PATH && !text.contains(bad)
}

/// Quotes one word for a shell. A word with a NUL has no quoted form; [`is_plain`] rejects it before.
fn quoted(word: &str) -> Cow<'_, str> {
    shlex::try_quote(word).unwrap_or(Cow::Borrowed("''"))
}
