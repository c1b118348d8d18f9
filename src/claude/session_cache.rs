//! A cache of agents' sessions, from which hooks and the status line answer while no daemon does: a file for each agent in
//! `agents/` of the user's state folder, replaced atomically. A damaged file is as good as none.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::domain::footer::{FooterForm, footer};
use crate::domain::{InstanceId, InstanceType, MachineName, Project, Registration, Session, Timestamp};
use crate::platform::files::{WriteDurability, make_private_folder, write_atomically};
use crate::wire::SessionBody;

const FOLDER: &str = "agents";
/// Files of killed agents are removed after this time.
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);

/// What a hook or the status line knows of its session while no daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedSession {
    pub(crate) instance_id: String,
    pub(crate) host_machine: String,
    /// When it was registered, as far as is known here: microseconds since 1970-01-01T00:00Z.
    pub created_at: i64,
    pub(crate) current_epic: Option<String>,
    pub(crate) context_percent: u8,
    /// The agent's process, and when it started.
    pub process: Option<(i32, i64)>,
    /// The sessions at the same place of which the agent was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told_conflicts: Vec<String>,
    /// Identifies the rate limits that its status line showed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_limits: Option<u64>,
}

impl CachedSession {
    /// The session of the daemon's answer.
    pub fn from_body(session: &SessionBody, process: Option<(i32, i64)>) -> Self {
        let began = chrono::DateTime::parse_from_rfc3339(&session.created_at);
        Self {
            instance_id: session.instance_id.clone(),
            host_machine: session.host_machine.clone(),
            created_at: began.map_or(0, |at| at.timestamp_micros()),
            current_epic: session.current_epic.clone(),
            context_percent: session.context_percent,
            process,
            told_conflicts: Vec::new(),
            shown_limits: None,
        }
    }

    /// The footer by the cached state; `None` if the state is damaged.
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
        Some(footer(&session, now, FooterForm::Plain))
    }
}

/// The cached sessions of a user's agents.
#[derive(Clone, Debug)]
pub struct SessionCache {
    dir: PathBuf,
}

impl SessionCache {
    pub(crate) fn in_folder(state_dir: &Path) -> Self {
        Self { dir: state_dir.join(FOLDER) }
    }

    pub(crate) fn get(&self, uuid: &str) -> Option<CachedSession> {
        read(&self.path(uuid))
    }

    /// The session of this process, under any id of the agent.
    pub fn find_by_process(&self, process: (i32, i64)) -> Option<CachedSession> {
        let paths = fs::read_dir(&self.dir).ok()?.flatten().map(|entry| entry.path());
        paths.filter_map(|path| read(&path)).find(|known| known.process == Some(process))
    }

    /// Whether an agent has this session.
    pub fn has_instance(&self, instance_id: &str) -> bool {
        let paths = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        paths.filter_map(|path| read(&path)).any(|known| known.instance_id == instance_id)
    }

    /// Stores a session, unless it is stored already.
    pub fn store(&self, uuid: &str, known: &CachedSession) -> io::Result<()> {
        if self.get(uuid).as_ref() == Some(known) {
            return Ok(());
        }
        if !self.dir.is_dir() {
            self.dir.parent().map_or(Ok(()), make_private_folder)?;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        }
        let path = self.path(uuid);
        write_atomically(&path, &serde_json::to_vec(known)?, 0o600, WriteDurability::Unsynced)
    }

    pub(crate) fn remove(&self, uuid: &str) {
        let _ = fs::remove_file(self.path(uuid));
    }

    /// Removes files that are older than `MAX_AGE`.
    pub fn remove_expired(&self, now: SystemTime) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let age =
                entry.metadata().and_then(|about| about.modified()).ok().and_then(|at| now.duration_since(at).ok());
            if age.is_some_and(|age| age > MAX_AGE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The file of an agent: characters of its id that a file name must not have are escaped.
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

fn read(path: &Path) -> Option<CachedSession> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_session_is_found_by_id_and_by_process() {
        let dir = tempfile::tempdir().unwrap();
        let cache = SessionCache::in_folder(dir.path());
        let known = CachedSession {
            instance_id: "my-app-PS-8f4a2b".into(),
            host_machine: "odin3".into(),
            created_at: 0,
            current_epic: Some("003".into()),
            context_percent: 42,
            process: Some((7, 99)),
            told_conflicts: vec!["my-app-PS-8f4a2c".into()],
            shown_limits: Some(u64::MAX),
        };
        assert_eq!(cache.get("../x"), None);
        cache.store("../x", &known).unwrap();
        cache.store("../x", &known).unwrap();
        assert_eq!(cache.get("../x").as_ref(), Some(&known));
        assert_eq!(cache.find_by_process((7, 99)).as_ref(), Some(&known));
        assert_eq!(cache.find_by_process((7, 98)), None);
        let line = known.footer(Timestamp::from_micros(3_600_000_000)).unwrap();
        assert!(line.starts_with("Instance: my-app-PS-8f4a2b@odin3 | Epic: 003 | Context: 42% | Active: 1h"), "{line}");
        cache.remove_expired(SystemTime::now());
        assert!(cache.get("../x").is_some());
        cache.remove_expired(SystemTime::now() + MAX_AGE + Duration::from_secs(60));
        assert_eq!(cache.get("../x"), None);
    }
}
