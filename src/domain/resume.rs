//! Resuming a session: in place, or by registering a successor that inherits from it.

use super::{MachineName, Registration, Session, Status};

/// Who resumes a session, and where.
#[derive(Clone, Debug)]
pub struct Successor {
    pub(crate) machine: MachineName,
    pub(crate) uid: u32,
    pub(crate) claude_session_uuid: Option<String>,
    pub(crate) claude_session_path: Option<String>,
    pub(crate) working_dir: Option<String>,
}

impl Successor {
    /// Whether the session is resumed in place: only on its own machine and by its own user, and never if it is closed.
    /// Sessions of other hosts are written by those hosts only.
    pub fn can_adopt(&self, session: &Session, mirrored: bool, owner_uid: u32) -> bool {
        !mirrored && session.host_machine == self.machine && owner_uid == self.uid && session.status != Status::Closed
    }

    /// Replaces the fields of a session resumed in place; those that are not given stay.
    pub fn apply_to(&self, session: &mut Session) {
        let replace = |old: &mut Option<String>, new: &Option<String>| {
            if new.is_some() {
                old.clone_from(new);
            }
        };
        replace(&mut session.claude_session_uuid, &self.claude_session_uuid);
        replace(&mut session.claude_session_path, &self.claude_session_path);
        replace(&mut session.working_dir, &self.working_dir);
    }

    /// The registration of a session that continues `from`, which is not changed. The folder is inherited only on the same
    /// machine.
    pub fn registration(self, from: &Session) -> Registration {
        let folder = from.working_dir.clone().filter(|_| from.host_machine == self.machine);
        Registration {
            project: from.project.clone(),
            instance_type: from.instance_type,
            host_machine: self.machine,
            context_percent: 0,
            current_epic: from.current_epic.clone(),
            claude_session_uuid: self.claude_session_uuid,
            claude_session_path: self.claude_session_path,
            resumed_from: Some(from.instance_id.clone()),
            working_dir: self.working_dir.or(folder),
        }
    }
}
