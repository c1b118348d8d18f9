//! The process at the other end of a socket, and whether its user may connect.

use std::collections::BTreeSet;
use std::io;

use nix::unistd::{self, Gid, User};
use tokio::net::UnixStream;

/// The process at the other end, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// `None` if the peer is in a pid namespace that this process cannot see.
    pub pid: Option<i32>,
}

impl PeerCredentials {
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid().filter(|&pid| pid > 0) })
    }
}

/// A group whose members may connect. It is looked up once, because a lookup may need a directory server and must not
/// delay requests; users who join the group later may connect after the next reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub(crate) gid: u32,
    /// The user ids of the group's member list.
    pub members: BTreeSet<u32>,
}

/// Why a group cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There is no such group.
    #[error("there is no group \"{0}\"; create it, or name another in socket.group")]
    Unknown(String),
    /// The system's user database cannot be read.
    #[error("group \"{name}\" cannot be looked up: {source}")]
    Lookup {
        /// The group.
        name: String,
        /// What failed.
        source: io::Error,
    },
}

impl Group {
    /// Finds a group by its name, or by its number if no group has that name. May block.
    ///
    /// # Errors
    /// There is no such group, or the system's user database cannot be read.
    pub fn resolve(name: &str) -> Result<Self, GroupError> {
        let failed = |errno: nix::Error| GroupError::Lookup { name: name.to_owned(), source: errno.into() };
        if let Some(group) = unistd::Group::from_name(name).map_err(failed)? {
            return Ok(Self::from(group));
        }
        // A group's number is valid without an entry in the database.
        let gid = name.parse().map_err(|_| GroupError::Unknown(name.to_owned()))?;
        let group = unistd::Group::from_gid(Gid::from_raw(gid)).map_err(failed)?;
        Ok(group.map_or_else(|| Self { gid, members: BTreeSet::new() }, Self::from))
    }
}

impl From<unistd::Group> for Group {
    fn from(group: unistd::Group) -> Self {
        // A member without an entry in the user database cannot connect.
        let uid = |name: &String| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        Self { gid: group.gid.as_raw(), members: group.mem.iter().filter_map(uid).collect() }
    }
}

/// The primary group of a user. May block.
pub fn main_group(uid: u32) -> Option<u32> {
    User::from_uid(unistd::Uid::from_raw(uid)).ok().flatten().map(|user| user.gid.as_raw())
}

/// Whether the process at the other end is in this group. The kernel knows all its groups, so that a user who joined the
/// group recently can connect before the user database is read again.
#[cfg(target_os = "linux")]
pub fn has_group(stream: &UnixStream, gid: u32) -> bool {
    use std::os::fd::AsRawFd;
    // The kernel's maximum (NGROUPS_MAX).
    let mut groups = vec![0_u32; 1 << 16];
    let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or(0);
    // SAFETY: the kernel writes at most `bytes` bytes into `groups`, which has as many, and says how many it wrote.
    #[allow(unsafe_code)]
    let failed = unsafe {
        let into = groups.as_mut_ptr().cast();
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, into, &raw mut bytes) != 0
    };
    let count = if failed { 0 } else { bytes as usize / size_of::<u32>() };
    groups.iter().take(count).any(|group| *group == gid)
}

/// Other systems do not report a peer's further groups.
#[cfg(not(target_os = "linux"))]
pub fn has_group(_stream: &UnixStream, _gid: u32) -> bool {
    false
}

/// Whether a user may connect: the socket's owner, root, and the members of the configured group may.
pub fn is_allowed(peer: &PeerCredentials, owner_uid: u32, group: Option<&Group>) -> bool {
    let in_group = |group: &Group| peer.gid == group.gid || group.members.contains(&peer.uid);
    peer.uid == owner_uid || peer.uid == 0 || group.is_some_and(in_group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_root_and_group_may_connect() {
        let group = Group { gid: 50, members: [1003].into() };
        let cases = [
            // uid, gid, without the group, with it
            (1000, 1000, true, true),
            (0, 0, true, true),
            (1001, 1001, false, false),
            (1002, 50, false, true),
            (1003, 1003, false, true),
            (1004, 0, false, false),
        ];
        for (uid, gid, alone, with_group) in cases {
            let peer = PeerCredentials { uid, gid, pid: None };
            assert_eq!(is_allowed(&peer, 1000, None), alone, "{peer:?}");
            assert_eq!(is_allowed(&peer, 1000, Some(&group)), with_group, "{peer:?}");
        }
    }

    #[test]
    fn finds_groups_by_name_and_by_number() {
        let own = unistd::Group::from_gid(unistd::getgid()).unwrap().unwrap();
        let by_name = Group::resolve(&own.name).unwrap();
        assert_eq!(by_name.gid, own.gid.as_raw());
        assert_eq!(Group::resolve(&own.gid.to_string()).unwrap(), by_name);
        let nameless = Group::resolve("3999999999").unwrap();
        assert_eq!(nameless, Group { gid: 3_999_999_999, members: BTreeSet::new() });
    }

    #[test]
    fn the_error_names_an_unknown_group() {
        let error = Group::resolve("no-such-group").unwrap_err().to_string();
        assert_eq!(error, "there is no group \"no-such-group\"; create it, or name another in socket.group");
        assert!(Group::resolve("-1").is_err());
        assert!(Group::resolve("").is_err());
    }

    #[test]
    fn the_kernel_reports_the_peer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let peer = runtime.block_on(async {
            let (here, _there) = UnixStream::pair().unwrap();
            PeerCredentials::of(&here).unwrap()
        });
        let pid = i32::try_from(std::process::id()).unwrap();
        let [uid, gid] = [unistd::geteuid().as_raw(), unistd::getegid().as_raw()];
        assert_eq!(peer, PeerCredentials { uid, gid, pid: Some(pid) });
    }
}
