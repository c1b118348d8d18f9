//! A session and its state transitions.
//!
//! ```text
//! registered -> active <-> stale          active, stale -> closed (permanently)
//! ```

use std::time::Duration;

use super::activity::ActivityEvent;
use super::liveness::status_at;
use super::text::safe_line;
use super::{InstanceId, InstanceType, Invalid, MachineName, Project, Timestamp};

/// One row of supervisor_sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id, unique in central.
    pub instance_id: InstanceId,
    /// Its project, which its id names too.
    pub project: Project,
    /// Its type, which its id names too.
    pub instance_type: InstanceType,
    /// As last recorded; [`Session::status_at`] says what it is worth now.
    pub status: Status,
    /// 0 to 100.
    pub context_percent: u8,
    /// The epic that it works on.
    pub current_epic: Option<String>,
    /// The time of its newest heartbeat.
    pub last_heartbeat: Timestamp,
    /// When it was registered. Together with the id it identifies the session.
    pub created_at: Timestamp,
    /// When it was closed; `None` unless its status is `Closed`.
    pub closed_at: Option<Timestamp>,
    /// The machine that it runs on.
    pub host_machine: MachineName,
    /// Claude Code's id of the conversation.
    pub claude_session_uuid: Option<String>,
    /// The file of the conversation's transcript, on its machine.
    pub claude_session_path: Option<String>,
    /// The session that this one continues.
    pub resumed_from: Option<InstanceId>,
    /// The folder in which it runs, on its machine.
    pub working_dir: Option<String>,
}

/// The recorded status of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It had a heartbeat, and its process is not known to have ended.
    Active,
    /// Its process ended, or it had no heartbeat for `stale_after`; it can be resumed.
    Stale,
    /// It was closed, permanently.
    Closed,
}

impl Status {
    /// # Errors
    /// `status` is none of the three.
    pub fn parse(status: &str) -> Result<Self, Invalid> {
        match status {
            "active" => Ok(Self::Active),
            "stale" => Ok(Self::Stale),
            "closed" => Ok(Self::Closed),
            _ => Err(Invalid::new("status", "it must be active, stale or closed")),
        }
    }

    /// The name in JSON and in central.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stale => "stale",
            Self::Closed => "closed",
        }
    }
}

/// The fields with which a client registers a session; all are valid.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The project, from which the id is made.
    pub project: Project,
    /// The type, from which the id is made.
    pub instance_type: InstanceType,
    /// The machine that it runs on.
    pub host_machine: MachineName,
    /// 0 to 100.
    pub context_percent: u8,
    /// The epic that it works on.
    pub current_epic: Option<String>,
    /// Claude Code's id of the conversation.
    pub claude_session_uuid: Option<String>,
    /// The file of the conversation's transcript.
    pub claude_session_path: Option<String>,
    /// The session that it continues.
    pub resumed_from: Option<InstanceId>,
    /// The folder in which it runs.
    pub working_dir: Option<String>,
}

/// The fields that a heartbeat changes, beside its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// 0 to 100; `None` leaves it.
    pub context_percent: Option<u8>,
    /// `None` leaves the epic, `Some(None)` clears it.
    pub current_epic: Option<Option<String>>,
    /// What its agent does now; `None` leaves it.
    pub activity: Option<ActivityEvent>,
}

/// The session is closed, so the heartbeat is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl Session {
    /// The approximate size of its row, in bytes.
    pub fn size(&self) -> usize {
        const FIXED: usize = 160;
        let texts = [&self.current_epic, &self.claude_session_uuid, &self.claude_session_path, &self.working_dir];
        FIXED + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// The session of a registration.
    pub fn register(instance_id: InstanceId, what: Registration, at: Timestamp) -> Self {
        Self {
            instance_id,
            project: what.project,
            instance_type: what.instance_type,
            status: Status::Active,
            context_percent: what.context_percent,
            current_epic: what.current_epic,
            last_heartbeat: at,
            created_at: at,
            closed_at: None,
            host_machine: what.host_machine,
            claude_session_uuid: what.claude_session_uuid,
            claude_session_path: what.claude_session_path,
            resumed_from: what.resumed_from,
            working_dir: what.working_dir,
        }
    }

    /// The session with its free text made safe to show, as any client of central may have written the row. Empty text
    /// becomes none.
    pub fn with_safe_text(self) -> Self {
        let safe =
            |text: Option<String>, longest| text.filter(|text| !text.is_empty()).map(|text| safe_line(text, longest));
        Self {
            current_epic: safe(self.current_epic, EPIC),
            claude_session_uuid: safe(self.claude_session_uuid, CLAUDE_UUID),
            claude_session_path: safe(self.claude_session_path, PATH),
            working_dir: safe(self.working_dir, PATH),
            ..self
        }
    }

    /// Records a heartbeat, by the session or by the daemon that watches its process. A stale session becomes active again.
    ///
    /// # Errors
    /// The session is closed.
    pub fn heartbeat(&mut self, heartbeat: &Heartbeat, at: Timestamp, stale_after: Duration) -> Result<(), Closed> {
        if self.status == Status::Closed {
            return Err(Closed);
        }
        self.status = Status::Active;
        self.last_heartbeat = later_heartbeat(self.last_heartbeat, at, stale_after);
        if let Some(percent) = heartbeat.context_percent {
            self.context_percent = percent;
        }
        if let Some(epic) = &heartbeat.current_epic {
            self.current_epic.clone_from(epic);
        }
        Ok(())
    }

    /// Closes the session. Returns whether that changed it; a second close does not.
    pub fn close(&mut self, at: Timestamp) -> bool {
        if self.status == Status::Closed {
            return false;
        }
        self.status = Status::Closed;
        self.closed_at = Some(at.max(self.created_at));
        true
    }

    /// The status at `now` by its heartbeat alone, as no host vouches for it: a session recorded as active is stale if its
    /// last heartbeat is older than `stale_after`.
    pub fn status_at(&self, now: Timestamp, stale_after: Duration) -> Status {
        status_at(self.status, self.last_heartbeat, None, now, stale_after)
    }
}

/// Whether a heartbeat is recent enough for an active session. One far in the future is not: a wrong clock, which has been
/// corrected since, recorded it.
pub fn fresh(heartbeat: Timestamp, now: Timestamp, stale_after: Duration) -> bool {
    now.since(heartbeat) < stale_after && heartbeat.since(now) < stale_after
}

/// The heartbeat never moves back, except from a time so far in the future that a wrong clock must have recorded it.
fn later_heartbeat(recorded: Timestamp, at: Timestamp, stale_after: Duration) -> Timestamp {
    if recorded.since(at) < stale_after { recorded.max(at) } else { at }
}

/// The longest epic, agent's session id, and path, in characters.
const EPIC: usize = 256;
const CLAUDE_UUID: usize = 64;
const PATH: usize = 4096;

/// Checks an epic: 1 to 256 characters, none of them a control character.
pub fn valid_epic(epic: &str) -> Result<String, Invalid> {
    bounded("current_epic", epic, EPIC)
}

/// Checks the agent's own session id: 1 to 64 characters.
pub fn valid_claude_uuid(uuid: &str) -> Result<String, Invalid> {
    bounded("claude_session_uuid", uuid, CLAUDE_UUID)
}

/// Checks the path of the agent's transcript: 1 to 4,096 characters.
pub fn valid_claude_path(path: &str) -> Result<String, Invalid> {
    bounded("claude_session_path", path, PATH)
}

/// Checks the folder in which a session runs: an absolute path of 1 to 4,096 characters.
pub fn valid_working_dir(dir: &str) -> Result<String, Invalid> {
    match bounded("working_dir", dir, PATH)? {
        dir if dir.starts_with('/') => Ok(dir),
        _ => Err(Invalid::new("working_dir", "it must be an absolute path")),
    }
}

/// Checks a share of the context window: a whole number from 0 to 100.
pub fn valid_percent(percent: i64) -> Result<u8, Invalid> {
    u8::try_from(percent)
        .ok()
        .filter(|p| *p <= 100)
        .ok_or_else(|| Invalid::new("context_percent", format!("{percent} is not a whole number from 0 to 100")))
}

/// Checks text of one line. Central counts characters, not bytes, and rejects NUL; a line break would break tables. Other
/// unsafe characters are replaced rather than rejected, as they are rarely intended.
pub(super) fn bounded(field: &'static str, value: &str, max: usize) -> Result<String, Invalid> {
    let length = value.chars().count();
    if length == 0 {
        return Err(Invalid::new(field, "it must not be empty; leave it out, or give null to clear it"));
    }
    if length > max {
        return Err(Invalid::new(field, format!("{length} characters are too long; at most {max}")));
    }
    if value.chars().any(char::is_control) {
        return Err(Invalid::new(field, "it must not contain control characters"));
    }
    Ok(safe_line(value.to_owned(), max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE_AFTER: Duration = Duration::from_secs(120);
    const DAY: Duration = Duration::from_secs(86_400);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_769_774_400_000_000 + seconds * 1_000_000)
    }

    fn session() -> Session {
        let project = Project::parse("odin").unwrap();
        let what = Registration {
            instance_type: InstanceType::Ps,
            host_machine: MachineName::guess(),
            context_percent: 0,
            current_epic: Some("003".into()),
            claude_session_uuid: None,
            claude_session_path: None,
            resumed_from: None,
            working_dir: None,
            project: project.clone(),
        };
        Session::register(InstanceId::generate(&project, InstanceType::Ps, 7), what, at(0))
    }

    #[test]
    fn heartbeat_keeps_sets_or_clears_the_epic() {
        let mut s = session();
        s.heartbeat(&Heartbeat { context_percent: Some(42), ..Heartbeat::default() }, at(1), STALE_AFTER).unwrap();
        assert_eq!((s.context_percent, s.current_epic.as_deref()), (42, Some("003")));
        s.heartbeat(&Heartbeat { current_epic: Some(Some("004".into())), ..Heartbeat::default() }, at(2), STALE_AFTER)
            .unwrap();
        assert_eq!((s.context_percent, s.current_epic.as_deref()), (42, Some("004")));
        s.heartbeat(&Heartbeat { current_epic: Some(None), ..Heartbeat::default() }, at(3), STALE_AFTER).unwrap();
        assert_eq!(s.current_epic, None);
    }

    #[test]
    fn close_is_permanent() {
        let mut s = session();
        assert!(s.close(at(5)));
        assert!(!s.close(at(6)));
        assert_eq!(s.closed_at, Some(at(5)));
        assert_eq!(s.heartbeat(&Heartbeat::default(), at(7), STALE_AFTER), Err(Closed));
        assert_eq!(s.status_at(at(900), STALE_AFTER), Status::Closed);
    }

    #[test]
    fn silence_makes_stale_and_heartbeat_makes_active() {
        let mut s = session();
        assert_eq!(s.status_at(at(119), STALE_AFTER), Status::Active);
        assert_eq!(s.status_at(at(120), STALE_AFTER), Status::Stale);
        s.status = Status::Stale;
        s.heartbeat(&Heartbeat::default(), at(130), STALE_AFTER).unwrap();
        assert_eq!(s.status_at(at(131), STALE_AFTER), Status::Active);
    }

    #[test]
    fn heartbeat_moves_back_only_from_a_wrong_future() {
        let mut s = session();
        s.heartbeat(&Heartbeat::default(), at(10), STALE_AFTER).unwrap();
        s.heartbeat(&Heartbeat::default(), at(4), STALE_AFTER).unwrap();
        assert_eq!(s.last_heartbeat, at(10));

        s.heartbeat(&Heartbeat::default(), at(10).plus(DAY), STALE_AFTER).unwrap();
        assert_eq!(s.status_at(at(20), STALE_AFTER), Status::Stale, "a heartbeat far in the future does not count");
        s.heartbeat(&Heartbeat::default(), at(21), STALE_AFTER).unwrap();
        assert_eq!(s.last_heartbeat, at(21));
    }

    #[test]
    fn text_is_bounded_in_characters() {
        assert!(valid_epic(&"ä".repeat(256)).is_ok());
        assert!(valid_epic(&"ä".repeat(257)).unwrap_err().to_string().contains("at most 256"));
        assert!(valid_epic("").is_err());
        assert!(valid_epic("a\0b").is_err());
        assert!(valid_percent(101).is_err());
        assert!(valid_percent(-1).is_err());
        assert_eq!(valid_percent(100), Ok(100));
    }
}
