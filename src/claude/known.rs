//! What was last known of an agent's session, for the times when no daemon can be asked: a small file each, in
//! the state folder of the user.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::domain::footer::footer;
use crate::domain::{InstanceId, InstanceType, MachineName, Project, Registration, Session, Timestamp};
use crate::platform::files::{WriteDurability, make_private_folder, write_atomically};
use crate::wire::SessionBody;

const FOLDER: &str = "agents";
/// Agents that were killed leave their files behind; nobody asks for them after so long.
const KEEP: Duration = Duration::from_secs(7 * 86_400);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub instance_id: String,
    pub host_machine: String,
    /// When it began, as far as is known here: microseconds since 1970 in UTC.
    pub created_at: i64,
    pub current_epic: Option<String>,
    pub context_percent: u8,
    /// The agent's process, and when it started.
    pub process: Option<(i32, i64)>,
}

impl Known {
    /// What the daemon said of a session.
    pub fn told(session: &SessionBody, process: Option<(i32, i64)>) -> Self {
        let began = chrono::DateTime::parse_from_rfc3339(&session.created_at);
        Self {
            instance_id: session.instance_id.clone(),
            host_machine: session.host_machine.clone(),
            created_at: began.map_or(0, |at| at.timestamp_micros()),
            current_epic: session.current_epic.clone(),
            context_percent: session.context_percent,
            process,
        }
    }

    /// The footer as it would be if nothing else had happened; nothing if what is known is damaged.
    pub fn footer(&self, now: Timestamp) -> Option<String> {
        let instance_id = InstanceId::parse(&self.instance_id).ok()?;
        let project = instance_id.as_str().rsplitn(3, '-').nth(2).and_then(|name| Project::parse(name).ok())?;
        let what = Registration {
            project,
            instance_type: InstanceType::Ps,
            host_machine: MachineName::parse(&self.host_machine).ok()?,
            context_percent: self.context_percent.min(100),
            current_epic: self.current_epic.clone(),
            claude_session_uuid: None,
            claude_session_path: None,
            resumed_from: None,
            working_dir: None,
        };
        let session = Session::register(instance_id, what, Timestamp::from_micros(self.created_at)).with_safe_text();
        Some(footer(&session, now, false))
    }
}

/// The files of all agents of a user.
#[derive(Clone, Debug)]
pub struct Notes {
    dir: PathBuf,
}

impl Notes {
    pub fn in_folder(state_dir: &Path) -> Self {
        Self { dir: state_dir.join(FOLDER) }
    }

    pub fn of(&self, uuid: &str) -> Option<Known> {
        read(&self.path(uuid))
    }

    /// The session of this process, whatever the agent's own id of it is now.
    pub fn of_process(&self, process: (i32, i64)) -> Option<Known> {
        let paths = fs::read_dir(&self.dir).ok()?.flatten().map(|entry| entry.path());
        paths.filter_map(|path| read(&path)).find(|known| known.process == Some(process))
    }

    /// Whether a conversation is known to have this session.
    pub fn has_instance(&self, instance_id: &str) -> bool {
        let paths = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        paths.filter_map(|path| read(&path)).any(|known| known.instance_id == instance_id)
    }

    /// Notes what is known; nothing is written where nothing is new.
    pub fn note(&self, uuid: &str, known: &Known) -> io::Result<()> {
        if self.of(uuid).as_ref() == Some(known) {
            return Ok(());
        }
        if !self.dir.is_dir() {
            self.dir.parent().map_or(Ok(()), make_private_folder)?;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        }
        let path = self.path(uuid);
        write_atomically(&path, &serde_json::to_vec(known)?, 0o600, WriteDurability::Unsynced)
    }

    pub fn forget(&self, uuid: &str) {
        let _ = fs::remove_file(self.path(uuid));
    }

    /// Removes what was left behind long ago.
    pub fn tidy(&self, now: SystemTime) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let age =
                entry.metadata().and_then(|about| about.modified()).ok().and_then(|at| now.duration_since(at).ok());
            if age.is_some_and(|age| age > KEEP) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The agent's id may be anything; a file's name may not.
    fn path(&self, uuid: &str) -> PathBuf {
        let name: String = uuid
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
                _ => format!("_{byte:02x}"),
            })
            .collect();
        self.dir.join(format!("{name}.json"))
    }
}

fn read(path: &Path) -> Option<Known> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_found_by_id_and_by_process() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::in_folder(dir.path());
        let known = Known {
            instance_id: "my-app-PS-8f4a2b".into(),
            host_machine: "odin3".into(),
            created_at: 0,
            current_epic: Some("003".into()),
            context_percent: 42,
            process: Some((7, 99)),
        };
        assert_eq!(notes.of("../x"), None);
        notes.note("../x", &known).unwrap();
        notes.note("../x", &known).unwrap();
        assert_eq!(notes.of("../x").as_ref(), Some(&known));
        assert_eq!(notes.of_process((7, 99)).as_ref(), Some(&known));
        assert_eq!(notes.of_process((7, 98)), None);
        let line = known.footer(Timestamp::from_micros(3_600_000_000)).unwrap();
        assert!(line.starts_with("Instance: my-app-PS-8f4a2b@odin3 | Epic: 003 | Context: 42% | Active: 1h"), "{line}");
        notes.tidy(SystemTime::now());
        assert!(notes.of("../x").is_some());
        notes.tidy(SystemTime::now() + KEEP + Duration::from_secs(60));
        assert_eq!(notes.of("../x"), None);
    }
}
