//! What Claude Code hands to its hooks and its status line, turned into reports. Versions of it differ: what is
//! unknown is passed over, what is missing is done without.

pub mod hook;
pub mod input;
pub mod known;
pub mod process;
pub mod project;
pub mod running;
pub mod settings;
pub mod statusline;

use crate::domain::session::{valid_claude_path, valid_claude_uuid, valid_working_dir};
use crate::platform::places::Env;
use crate::wire::AgentReport;
use input::Input;

/// The variables that newer versions set.
const SESSION_ID: &str = "CLAUDE_CODE_SESSION_ID";
const PROJECT_DIR: &str = "CLAUDE_PROJECT_DIR";

/// Who reports, by what `input` says, else by what the environment does. What is not valid is left out: a report
/// without it is better than none.
fn who(input: &Input, folder: Option<&str>, env: Env<'_>) -> AgentReport {
    let variable = |name| env(name).and_then(|value| value.into_string().ok());
    let uuid = input.text("session_id").map(str::to_owned).or_else(|| variable(SESSION_ID));
    let folder = folder.map(str::to_owned).or_else(|| variable(PROJECT_DIR)).or_else(|| {
        let here = std::env::current_dir().ok()?;
        here.into_os_string().into_string().ok()
    });
    AgentReport {
        claude_session_uuid: uuid.and_then(|uuid| valid_claude_uuid(&uuid).ok()),
        claude_session_path: input.text("transcript_path").and_then(|path| valid_claude_path(path).ok()),
        working_dir: folder.and_then(|folder| valid_working_dir(&folder).ok()),
        ..AgentReport::default()
    }
}
