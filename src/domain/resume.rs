//! Going on from a session: taking it up again, or registering another that inherits from it.

use super::{MachineName, Registration, Session, Status};

/// Who goes on, and where.
#[derive(Clone, Debug)]
pub struct Successor {
    pub machine: MachineName,
    pub uid: u32,
    pub claude_session_uuid: Option<String>,
    pub claude_session_path: Option<String>,
    pub working_dir: Option<String>,
}

impl Successor {
    /// A session is taken up only on its own machine and by its own user. Another host keeps, and pushes, its own
    /// sessions itself; and what is closed stays closed.
    pub fn takes_up(&self, session: &Session, mirrored: bool, owner_uid: u32) -> bool {
        !mirrored && session.host_machine == self.machine && owner_uid == self.uid && session.status != Status::Closed
    }

    /// What is said anew counts from now on; the rest stays.
    pub fn settle_in(&self, session: &mut Session) {
        let replace = |old: &mut Option<String>, new: &Option<String>| {
            if new.is_some() {
                old.clone_from(new);
            }
        };
        replace(&mut session.claude_session_uuid, &self.claude_session_uuid);
        replace(&mut session.claude_session_path, &self.claude_session_path);
        replace(&mut session.working_dir, &self.working_dir);
    }

    /// The session that goes on from another one that stays as it is. A folder is inherited where it exists.
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
