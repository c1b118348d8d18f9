//! The files in which running agents tell of themselves: `sessions/PID.json` in Claude Code's folder. They are not
//! documented, and one of a process that was killed stays behind.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::input::Input;
use super::project;
use crate::domain::Project;
use crate::domain::session::{valid_claude_path, valid_claude_uuid, valid_working_dir};

const WANTED: &[&str] = &["pid", "sessionId", "procStart", "cwd"];

/// No such file is larger, in bytes.
const MAX: u64 = 64 << 10;
/// Nor is there a host with more of them.
const MAX_FILES: usize = 1000;

/// An agent that says it runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Running {
    /// Who wrote the file.
    pub uid: u32,
    pub pid: i32,
    /// When the process started, as the platform counts; a file without it is believed.
    pub started: Option<i64>,
    pub session_id: String,
    pub cwd: Option<String>,
    pub transcript: Option<String>,
}

impl Running {
    /// The project of the folder that it works in.
    pub fn project(&self) -> Project {
        project::of(Path::new(self.cwd.as_deref().unwrap_or("/")))
    }
}

/// The folder of the files.
pub fn folder(home: &Path) -> PathBuf {
    home.join("sessions")
}

/// All that say they run; what cannot be read is passed over, it may be half written.
pub fn all(home: &Path) -> Vec<Running> {
    let entries = fs::read_dir(folder(home)).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    files.take(MAX_FILES).filter_map(|path| read(home, &path)).collect()
}

fn read(home: &Path, path: &Path) -> Option<Running> {
    let file = File::open(path).ok()?;
    let about = file.metadata().ok().filter(|about| about.is_file() && about.len() <= MAX)?;
    let input = Input::read(file.take(MAX), WANTED);
    let number = |name: &str| {
        let value = input.at(&[name])?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    };
    let session_id = valid_claude_uuid(input.text("sessionId")?).ok()?;
    let cwd = input.text("cwd").and_then(|cwd| valid_working_dir(cwd).ok());
    // A start that is told in a form that is not understood must not pass for one that is not told.
    let started = match input.at(&["procStart"]) {
        Some(value) if !value.is_null() => Some(number("procStart")?),
        _ => None,
    };
    Some(Running {
        uid: about.uid(),
        pid: number("pid").and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)?,
        started: started.filter(|_| cfg!(target_os = "linux")),
        transcript: cwd.as_deref().and_then(|cwd| transcript(home, cwd, &session_id)),
        session_id,
        cwd,
    })
}

fn transcript(home: &Path, cwd: &str, session_id: &str) -> Option<String> {
    let folder: String = cwd.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = home.join("projects").join(folder).join(format!("{session_id}.jsonl"));
    valid_claude_path(path.to_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_can_be_understood_count() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(dir.path()), []);
        fs::create_dir(folder(dir.path())).unwrap();
        let write = |name: &str, text: &str| fs::write(folder(dir.path()).join(name), text).unwrap();
        write("1.json", r#"{"pid": 7, "sessionId": "s", "procStart": "99", "cwd": "/My work", "status": "busy"}"#);
        for (name, text) in [
            ("2.json", ""),
            ("3.json", r#"{"pid": 7, "sessionId": "s", "procSta"#),
            ("4.json", r#"{"pid": -7, "sessionId": "s"}"#),
            ("5.json", r#"{"pid": 7, "sessionId": "s", "procStart": "Tue"}"#),
            ("6.json", r#"{"pid": 7, "sessionId": 8}"#),
            ("7.txt", r#"{"pid": 7, "sessionId": "s"}"#),
        ] {
            write(name, text);
        }
        fs::create_dir(folder(dir.path()).join("8.json")).unwrap();
        let found = all(dir.path());
        // The third breaks off within a key, after all that is needed.
        let found: Vec<_> = found.into_iter().filter(|running| running.cwd.is_some()).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].pid, found[0].session_id.as_str()), (7, "s"));
        assert_eq!(found[0].started, cfg!(target_os = "linux").then_some(99));
        assert!(found[0].transcript.as_deref().unwrap().ends_with("/projects/-My-work/s.jsonl"));
    }
}
