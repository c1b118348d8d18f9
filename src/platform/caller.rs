//! Resolves a pid given by a client to a process of this machine, and checks that the process is the client's.
//!
//! A pid is valid in the client's pid namespace. The kernel reports the client's own pid in this process's namespace, and
//! `NSpid` in /proc/PID/status lists a process's pids from this process's namespace inward. So a client in a container
//! has a list of several pids, and the process that it names has a list of the same length that ends with the given
//! pid, in the same namespace. Namespaces are compared by the links in /proc/PID/ns if those are readable, else by their
//! init processes, which are found among the ancestors.

use super::peer::PeerCredentials;
#[cfg(not(target_os = "linux"))]
use crate::domain::Process;

/// The user id used for the root of a container, which is not this machine's root.
pub const NOBODY: u32 = 65_534;

/// Why a pid does not name a process of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PidError {
    /// There is no such process.
    #[error("no process {0} runs on this machine")]
    NotRunning(i32),
    /// The process is another user's.
    #[error("process {pid} belongs to user {owner}")]
    NotOwned {
        /// The process.
        pid: i32,
        /// Its user.
        owner: u32,
    },
    /// The process is in a pid namespace that this process cannot see.
    #[error("process {0} is not visible to the daemon")]
    NotVisible(i32),
}

/// The user whose rights a client has. Uid 0 is root only in this process's own pid and user namespace. The kernel
/// translates uids between user namespaces, but a container without a user namespace has the same uid 0: it is
/// recognised by its pid namespace. A container that shares both is treated as the machine itself.
///
/// `None` for a uid 0 whose process has ended, such as a client that exited while its connection was queued: its
/// namespaces cannot be determined any more, and as either user it might get rights that it does not have.
pub fn effective_uid(peer: &PeerCredentials) -> Option<u32> {
    if peer.uid != 0 || shares_our_namespaces(peer) {
        return Some(peer.uid);
    }
    (!has_ended(peer)).then_some(NOBODY)
}

/// False for a process that exists but is hidden from this one.
fn has_ended(peer: &PeerCredentials) -> bool {
    let pid = peer.pid.and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

#[cfg(not(target_os = "linux"))]
fn shares_our_namespaces(_peer: &PeerCredentials) -> bool {
    true
}

/// The process with `pid`.
///
/// # Errors
/// The process does not exist, or is not visible to this process.
#[cfg(not(target_os = "linux"))]
pub fn resolve_pid(_peer: &PeerCredentials, pid: i32) -> Result<Process, PidError> {
    // The system shows the processes of other users only to root.
    let started = super::process::start_time(pid).ok_or(PidError::NotRunning(pid))?;
    Ok(Process { pid, started })
}

/// The process with `pid` that began at `started`; whose it is cannot be seen.
#[cfg(not(target_os = "linux"))]
pub fn process_of_user(_uid: u32, pid: i32, started: i64) -> Option<Process> {
    Some(Process { pid, started })
}

#[cfg(target_os = "linux")]
pub use linux::{process_of_user, resolve_pid};

#[cfg(target_os = "linux")]
use linux::shares_our_namespaces;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::PathBuf;

    use super::{PidError, effective_uid};
    use crate::domain::Process;
    use crate::platform::peer::PeerCredentials;
    use crate::platform::process::start_time;

    /// How many ancestors are searched for the init process of a namespace.
    const MAX_ANCESTORS: usize = 64;

    /// Fields of /proc/PID/status.
    #[derive(Debug, PartialEq, Eq)]
    struct ProcStatus {
        parent: i32,
        /// The real user id.
        uid: u32,
        /// Its pids, from this process's namespace inward.
        pids: Vec<i32>,
    }

    impl ProcStatus {
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

    pub(super) fn shares_our_namespaces(peer: &PeerCredentials) -> bool {
        let Some(pid) = peer.pid else { return false };
        let same_users = |own: String| fs::read_to_string(format!("/proc/{pid}/uid_map")).is_ok_and(|map| map == own);
        ProcStatus::of(pid).is_some_and(|status| status.depth() == 1)
            && fs::read_to_string("/proc/self/uid_map").is_ok_and(same_users)
    }

    /// The process with `pid` in the peer's pid namespace. Root may name any process, others only their own.
    ///
    /// # Errors
    /// The process does not exist, is another user's, or is not visible to this process.
    pub fn resolve_pid(peer: &PeerCredentials, pid: i32) -> Result<Process, PidError> {
        if pid <= 0 {
            return Err(PidError::NotRunning(pid));
        }
        let caller = peer.pid.and_then(ProcStatus::of).ok_or(PidError::NotVisible(pid))?;
        let found = match caller.depth() {
            1 => ProcStatus::of(pid).map(|status| (pid, status)).ok_or(PidError::NotRunning(pid))?,
            _ => find_processes(|found| found.depth() == caller.depth() && found.pids.last() == Some(&pid))
                .find(|(_, found)| share_namespace(found, &caller))
                .ok_or(PidError::NotVisible(pid))?,
        };
        let (here, status) = found;
        if status.uid != peer.uid && effective_uid(peer) != Some(0) {
            return Err(PidError::NotOwned { pid, owner: status.uid });
        }
        start_time(here).map(|started| Process { pid: here, started }).ok_or(PidError::NotRunning(pid))
    }

    /// The process with this pid and start time, given by a user in a spooled request; `None` if it is another user's.
    /// It may have ended.
    pub fn process_of_user(uid: u32, pid: i32, began: i64) -> Option<Process> {
        let is_owner = |status: &ProcStatus| uid == 0 || status.uid == uid;
        if start_time(pid) == Some(began) {
            return ProcStatus::of(pid).filter(is_owner).map(|_| Process { pid, started: began });
        }
        // The pid may be one in a container's namespace; the start time is the same in all namespaces.
        let inside = find_processes(|found| found.depth() > 1 && found.pids.last() == Some(&pid) && is_owner(found))
            .find(|(here, _)| start_time(*here) == Some(began));
        Some(Process { pid: inside.map_or(pid, |(here, _)| here), started: began })
    }

    /// The processes that match, by their pids here.
    fn find_processes(matches: impl Fn(&ProcStatus) -> bool) -> impl Iterator<Item = (i32, ProcStatus)> {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Some((pid, ProcStatus::of(pid)?))).filter(move |(_, status)| matches(status))
    }

    fn share_namespace(a: &ProcStatus, b: &ProcStatus) -> bool {
        match (link(a), link(b)) {
            (Some(a), Some(b)) => a == b,
            _ => init_process(a).is_some_and(|first| init_process(b) == Some(first)),
        }
    }

    fn link(status: &ProcStatus) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/ns/pid", status.pids.first()?)).ok()
    }

    /// The init process of a process's pid namespace, by its pid here.
    fn init_process(status: &ProcStatus) -> Option<i32> {
        let depth = status.depth();
        let mut here = *status.pids.first()?;
        for _ in 0..MAX_ANCESTORS {
            let found = ProcStatus::of(here).filter(|found| found.depth() == depth)?;
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

        fn peer(uid: u32) -> PeerCredentials {
            PeerCredentials { uid, gid: uid, pid: i32::try_from(std::process::id()).ok() }
        }

        #[test]
        fn parses_proc_status() {
            let text = "Name:\tsh\nPid:\t5012\nPPid:\t5000\nUid:\t1000\t1001\t1000\t1000\nNSpid:\t5012\t7\t2\n";
            assert_eq!(ProcStatus::parse(text), Some(ProcStatus { parent: 5000, uid: 1000, pids: vec![5012, 7, 2] }));
            for torn in ["", "PPid:\t1\n", "PPid:\t1\nUid:\t1\n", "PPid:\tx\nUid:\t1\nNSpid:\t1\n"] {
                assert_eq!(ProcStatus::parse(torn), None, "{torn}");
            }
        }

        #[test]
        fn a_user_can_name_only_own_processes() {
            let own = rustix::process::geteuid().as_raw();
            let me = i32::try_from(std::process::id()).unwrap();
            assert_eq!(resolve_pid(&peer(own), me).map(|process| process.pid), Ok(me));
            let stranger = peer(54_321);
            assert_eq!(resolve_pid(&stranger, me), Err(PidError::NotOwned { pid: me, owner: own }));
            for pid in [0, -1, i32::MAX] {
                assert_eq!(resolve_pid(&peer(own), pid), Err(PidError::NotRunning(pid)));
            }
            assert_eq!(resolve_pid(&PeerCredentials { pid: None, ..peer(own) }, me), Err(PidError::NotVisible(me)));
        }

        #[test]
        fn a_spooled_pid_is_the_users_own_or_has_ended() {
            let own = rustix::process::geteuid().as_raw();
            let me = i32::try_from(std::process::id()).unwrap();
            let began = start_time(me).unwrap();
            assert_eq!(process_of_user(own, me, began), Some(Process { pid: me, started: began }));
            assert_eq!(process_of_user(54_321, me, began), None);
            assert_eq!(
                process_of_user(54_321, me, began - 1),
                Some(Process { pid: me, started: began - 1 }),
                "one that ended"
            );
        }

        #[test]
        fn uid_0_is_root_only_in_our_namespaces() {
            assert_eq!(effective_uid(&PeerCredentials { pid: None, ..peer(0) }), Some(NOBODY));
            assert_eq!(effective_uid(&PeerCredentials { pid: Some(i32::MAX), ..peer(0) }), None, "it has ended");
            assert_eq!(effective_uid(&peer(0)), Some(0));
            assert_eq!(effective_uid(&PeerCredentials { pid: Some(i32::MAX), ..peer(1000) }), Some(1000));
        }
    }
}
