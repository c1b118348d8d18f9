//! The command that goes on with a session where it ran.

use crate::domain::text::is_unsafe;
use crate::domain::{Session, Status};

/// No path in a command is longer, in bytes: that is PATH_MAX.
const LONGEST: usize = 4096;

/// Whether the one who asks has the session already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// It is only looked at, and would have to be resumed.
    NotYet,
    /// It has just been resumed: resuming it once more would be refused.
    Already,
}

/// What to type on this machine to go on there. `here`: the session ran on this machine. `None`: nothing is
/// known that could be continued.
pub fn go_on(session: &Session, here: bool, going: Going) -> Option<String> {
    let conversation = session.claude_session_uuid.as_deref().filter(|uuid| is_plain(uuid));
    let what = match (conversation, going) {
        (Some(uuid), _) => format!("claude --resume {}", quoted(uuid)),
        (None, Going::Already) => return None,
        (None, Going::NotYet) if session.status == Status::Closed => {
            format!("sessiond resume {} --closed", session.instance_id)
        }
        (None, Going::NotYet) => format!("sessiond resume {}", session.instance_id),
    };
    let folder = session.working_dir.as_deref().filter(|dir| dir.starts_with('/') && is_plain(dir));
    let there = folder.map_or(what.clone(), |dir| format!("cd {} && {what}", quoted(dir)));
    // A machine's name has no character that a shell knows.
    Some(if here { there } else { format!("ssh {} -t {}", session.host_machine, quoted(&there)) })
}

/// Neither an option in disguise nor anything that could not be shown; text of which a character was replaced names
/// nothing any more.
fn is_plain(text: &str) -> bool {
    let bad = |c: char| is_unsafe(c) || c == char::REPLACEMENT_CHARACTER;
    !text.is_empty() && !text.starts_with('-') && text.len() <= LONGEST && !text.contains(bad)
}

/// One word to any POSIX shell.
fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
