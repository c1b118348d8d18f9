//! Jobs of background sessions: `jobs/ID/state.json` in Claude Code's folder has the state of each.

use std::path::Path;

use super::input::Input;
use crate::platform::small_file;

/// The largest file that is read, in bytes.
const MAX: u64 = 1 << 20;

/// Whether a job continues, perhaps in another process; `None` if its state is unknown.
pub fn continues(folder: &Path) -> Option<bool> {
    let (_, reader) = small_file::open(&folder.join("state.json"), MAX)?;
    let input = Input::read(reader, &["state"]);
    let state = input.text("state")?;
    Some(matches!(state, "starting" | "working" | "running" | "resuming" | "crashed" | "idle" | "waiting"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn state_shows_whether_the_job_continues() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(continues(dir.path()), None);
        for (text, expected) in [
            (r#"{"detail": "stopped", "state": "stopped"}"#, Some(false)),
            (r#"{"state": "crashed", "detail": "SIGKILL (137); respawning"}"#, Some(true)),
            (r#"{"state": "resuming"}"#, Some(true)),
            (r#"{"state": "working"}"#, Some(true)),
            (r#"{"state": "running"}"#, Some(true)),
            ("{", None),
        ] {
            fs::write(dir.path().join("state.json"), text).unwrap();
            assert_eq!(continues(dir.path()), expected, "{text}");
        }
    }
}
