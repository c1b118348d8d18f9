//! Which process of this machine a caller means by a pid, and whether it is the caller's.
//!
//! A pid counts in the caller's pid namespace. The kernel reports the caller's own pid as this process sees it, and
//! `NSpid` in /proc/PID/status lists a process's pids from this process's namespace inward. So a caller in a container is
//! recognised by a list of several pids, and the process that it means has a list of the same length that ends with the
//! pid that it named, in the same namespace. The links in /proc/PID/ns say which namespace that is where they may be
//! read; elsewhere it is recognised by its first process, an ancestor of the others.

use super::peer::Peer;
#[cfg(not(target_os = "linux"))]
use crate::store::Process;

/// Who counts for the root of a container, who is not this machine's root.
pub const NOBODY: u32 = 65_534;

/// Why a pid leads to no process of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PidError {
    #[error("no process {0} runs on this machine")]
    NotRunning(i32),
    #[error("process {pid} belongs to user {owner}")]
    NotOwned { pid: i32, owner: u32 },
    /// The caller lives in a namespace in which this process cannot find it.
    #[error("process {0} cannot be seen from here")]
    NotVisible(i32),
}

/// The user whose rights a caller has. Uid 0 counts as root only in this process's own pid and user namespace. The
/// kernel translates uids between user namespaces, but a container without one of its own has the same uid 0: it is
/// recognised by its pid namespace. One that shares both cannot be told from the machine.
pub fn effective_uid(peer: &Peer) -> u32 {
    if peer.uid == 0 && !is_in_our_namespaces(peer) { NOBODY } else { peer.uid }
}

#[cfg(not(target_os = "linux"))]
fn is_in_our_namespaces(_peer: &Peer) -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
pub fn resolve(_peer: &Peer, pid: i32) -> Result<Process, PidError> {
    // The system shows nobody but root the processes of others.
    let started = super::process::started(pid).ok_or(PidError::NotRunning(pid))?;
    Ok(Process { pid, started })
}

#[cfg(not(target_os = "linux"))]
pub fn of_user(_uid: u32, pid: i32, started: i64) -> Option<Process> {
    Some(Process { pid, started })
}

#[cfg(target_os = "linux")]
pub use linux::{of_user, resolve};

#[cfg(target_os = "linux")]
use linux::is_in_our_namespaces;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::PathBuf;

    use super::{PidError, effective_uid};
    use crate::platform::peer::Peer;
    use crate::platform::process::started;
    use crate::store::Process;

    /// How far up the first process of a namespace is looked for.
    const ANCESTORS: usize = 64;

    /// What /proc/PID/status says of a process.
    #[derive(Debug, PartialEq, Eq)]
    struct Status {
        parent: i32,
        /// The real user id.
        uid: u32,
        /// Its pids, from this process's namespace inward.
        pids: Vec<i32>,
    }

    impl Status {
        fn of(pid: i32) -> Option<Self> {
            Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
        }

        fn parse(text: &str) -> Option<Self> {
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let pids = field("NSpid")?.split_whitespace().map(|pid| pid.parse().ok()).collect::<Option<Vec<i32>>>()?;
            Some(Self {
                parent: field("PPid")?.trim().parse().ok()?,
                uid: field("Uid")?.split_whitespace().next()?.parse().ok()?,
                pids,
            })
        }

        fn depth(&self) -> usize {
            self.pids.len()
        }
    }

    pub(super) fn is_in_our_namespaces(peer: &Peer) -> bool {
        let Some(pid) = peer.pid else { return false };
        let same_users = |own: String| fs::read_to_string(format!("/proc/{pid}/uid_map")).is_ok_and(|map| map == own);
        Status::of(pid).is_some_and(|status| status.depth() == 1)
            && fs::read_to_string("/proc/self/uid_map").is_ok_and(same_users)
    }

    /// The process that the peer means by `pid`. Root may name any process, others only their own.
    ///
    /// # Errors
    /// There is none, it is another user's, or it cannot be found from here.
    pub fn resolve(peer: &Peer, pid: i32) -> Result<Process, PidError> {
        if pid <= 0 {
            return Err(PidError::NotRunning(pid));
        }
        let caller = peer.pid.and_then(Status::of).ok_or(PidError::NotVisible(pid))?;
        let found = match caller.depth() {
            1 => Status::of(pid).map(|status| (pid, status)).ok_or(PidError::NotRunning(pid))?,
            _ => search(|found| found.depth() == caller.depth() && found.pids.last() == Some(&pid))
                .find(|(_, found)| share_namespace(found, &caller))
                .ok_or(PidError::NotVisible(pid))?,
        };
        let (here, status) = found;
        if status.uid != peer.uid && effective_uid(peer) != 0 {
            return Err(PidError::NotOwned { pid, owner: status.uid });
        }
        started(here).map(|started| Process { pid: here, started }).ok_or(PidError::NotRunning(pid))
    }

    /// The process with this pid and start, named by a user who is not there any more; none if it is another user's. The
    /// same pair names a process that has ended, too.
    pub fn of_user(uid: u32, pid: i32, began: i64) -> Option<Process> {
        let is_owner = |status: &Status| uid == 0 || status.uid == uid;
        if started(pid) == Some(began) {
            return Status::of(pid).filter(is_owner).map(|_| Process { pid, started: began });
        }
        // A pid of a container: the start is the same in all of them.
        let inside = search(|found| found.depth() > 1 && found.pids.last() == Some(&pid) && is_owner(found))
            .find(|(here, _)| started(*here) == Some(began));
        Some(Process { pid: inside.map_or(pid, |(here, _)| here), started: began })
    }

    /// The processes that fit.
    fn search(fits: impl Fn(&Status) -> bool) -> impl Iterator<Item = (i32, Status)> {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Some((pid, Status::of(pid)?))).filter(move |(_, status)| fits(status))
    }

    fn share_namespace(a: &Status, b: &Status) -> bool {
        match (link(a), link(b)) {
            (Some(a), Some(b)) => a == b,
            _ => first_of(a).is_some_and(|first| first_of(b) == Some(first)),
        }
    }

    fn link(status: &Status) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/ns/pid", status.pids.first()?)).ok()
    }

    /// The first process of a process's namespace, by its pid here.
    fn first_of(status: &Status) -> Option<i32> {
        let depth = status.depth();
        let mut here = *status.pids.first()?;
        for _ in 0..ANCESTORS {
            let found = Status::of(here).filter(|found| found.depth() == depth)?;
            if found.pids.last() == Some(&1) {
                return Some(here);
            }
            here = found.parent;
        }
        None
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::platform::caller::NOBODY;

        fn peer(uid: u32) -> Peer {
            Peer { uid, gid: uid, pid: i32::try_from(std::process::id()).ok() }
        }

        #[test]
        fn a_status_is_parsed() {
            let text = "Name:\tsh\nPid:\t5012\nPPid:\t5000\nUid:\t1000\t1001\t1000\t1000\nNSpid:\t5012\t7\t2\n";
            assert_eq!(Status::parse(text), Some(Status { parent: 5000, uid: 1000, pids: vec![5012, 7, 2] }));
            for torn in ["", "PPid:\t1\n", "PPid:\t1\nUid:\t1\n", "PPid:\tx\nUid:\t1\nNSpid:\t1\n"] {
                assert_eq!(Status::parse(torn), None, "{torn}");
            }
        }

        #[test]
        fn a_pid_belongs_to_its_owner() {
            let own = rustix::process::geteuid().as_raw();
            let me = i32::try_from(std::process::id()).unwrap();
            assert_eq!(resolve(&peer(own), me).map(|process| process.pid), Ok(me));
            let stranger = peer(54_321);
            assert_eq!(resolve(&stranger, me), Err(PidError::NotOwned { pid: me, owner: own }));
            for pid in [0, -1, i32::MAX] {
                assert_eq!(resolve(&peer(own), pid), Err(PidError::NotRunning(pid)));
            }
            assert_eq!(resolve(&Peer { pid: None, ..peer(own) }, me), Err(PidError::NotVisible(me)));
        }

        #[test]
        fn a_spooled_pid_is_its_owners_or_dead() {
            let own = rustix::process::geteuid().as_raw();
            let me = i32::try_from(std::process::id()).unwrap();
            let began = started(me).unwrap();
            assert_eq!(of_user(own, me, began), Some(Process { pid: me, started: began }));
            assert_eq!(of_user(54_321, me, began), None);
            assert_eq!(of_user(54_321, me, began - 1), Some(Process { pid: me, started: began - 1 }), "one that ended");
        }

        #[test]
        fn a_root_that_cannot_be_seen_is_nobody() {
            assert_eq!(effective_uid(&Peer { pid: None, ..peer(0) }), NOBODY);
            assert_eq!(effective_uid(&Peer { pid: Some(i32::MAX), ..peer(0) }), NOBODY);
            assert_eq!(effective_uid(&peer(0)), 0);
            assert_eq!(effective_uid(&Peer { pid: None, ..peer(1000) }), 1000);
        }
    }
}
