//! Who is on the other end of the socket, and who is let in.

use std::collections::BTreeSet;
use std::io;

use nix::unistd::{self, Gid, User};
use tokio::net::UnixStream;

/// The process on the other end, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    /// Unknown if the peer lives in a pid namespace that this process cannot see into.
    pub pid: Option<i32>,
}

impl Peer {
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid().filter(|&pid| pid > 0) })
    }
}

/// A group that is let in, looked up once: a lookup may ask a directory server, and no request waits for that.
/// Who joins the group later gets in after the next reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub gid: u32,
    /// The user ids of those named in the group's member list.
    pub members: BTreeSet<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    #[error("there is no group \"{0}\"; create it, or name another in socket.group")]
    Unknown(String),
    #[error("group \"{name}\" cannot be looked up: {source}")]
    Lookup { name: String, source: io::Error },
}

impl Group {
    /// Finds a group by its name, or by its number where no group bears that name. May block.
    ///
    /// # Errors
    /// There is no such group, or the system's user database cannot be read.
    pub fn resolve(name: &str) -> Result<Self, GroupError> {
        let failed = |errno: nix::Error| GroupError::Lookup { name: name.to_owned(), source: errno.into() };
        if let Some(group) = unistd::Group::from_name(name).map_err(failed)? {
            return Ok(Self::from(group));
        }
        // A number needs no entry in the database: files may belong to a group without a name.
        let gid = name.parse().map_err(|_| GroupError::Unknown(name.to_owned()))?;
        let group = unistd::Group::from_gid(Gid::from_raw(gid)).map_err(failed)?;
        Ok(group.map_or_else(|| Self { gid, members: BTreeSet::new() }, Self::from))
    }
}

impl From<unistd::Group> for Group {
    fn from(group: unistd::Group) -> Self {
        // A member that the user database does not know cannot connect either.
        let uid = |name: &String| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        Self { gid: group.gid.as_raw(), members: group.mem.iter().filter_map(uid).collect() }
    }
}

/// The group that a user's entry names. May block.
pub fn main_group(uid: u32) -> Option<u32> {
    User::from_uid(unistd::Uid::from_raw(uid)).ok().flatten().map(|user| user.gid.as_raw())
}

/// Is the process on the other end in this group? The kernel knows of all its groups, not just of the first:
/// somebody who joined lately need not wait until the user database is read anew.
#[cfg(target_os = "linux")]
pub fn has_group(stream: &UnixStream, gid: u32) -> bool {
    use std::os::fd::AsRawFd;
    // As many as the kernel allows: 65536 of them.
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

/// Elsewhere only the user database tells who else is in a group.
#[cfg(not(target_os = "linux"))]
pub fn has_group(_stream: &UnixStream, _gid: u32) -> bool {
    false
}

/// Lets in the socket's owner, root, and the members of the configured group.
pub fn may_enter(peer: &Peer, owner_uid: u32, group: Option<&Group>) -> bool {
    let in_group = |group: &Group| peer.gid == group.gid || group.members.contains(&peer.uid);
    peer.uid == owner_uid || peer.uid == 0 || group.is_some_and(in_group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_root_and_group_get_in() {
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
            let peer = Peer { uid, gid, pid: None };
            assert_eq!(may_enter(&peer, 1000, None), alone, "{peer:?}");
            assert_eq!(may_enter(&peer, 1000, Some(&group)), with_group, "{peer:?}");
        }
    }

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        let own = unistd::Group::from_gid(unistd::getgid()).unwrap().unwrap();
        let by_name = Group::resolve(&own.name).unwrap();
        assert_eq!(by_name.gid, own.gid.as_raw());
        assert_eq!(Group::resolve(&own.gid.to_string()).unwrap(), by_name);
        let nameless = Group::resolve("3999999999").unwrap();
        assert_eq!(nameless, Group { gid: 3_999_999_999, members: BTreeSet::new() });
    }

    #[test]
    fn an_unknown_group_is_named() {
        let error = Group::resolve("no-such-group").unwrap_err().to_string();
        assert_eq!(error, "there is no group \"no-such-group\"; create it, or name another in socket.group");
        assert!(Group::resolve("-1").is_err());
        assert!(Group::resolve("").is_err());
    }

    #[test]
    fn the_kernel_tells_who_is_there() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let peer = runtime.block_on(async {
            let (here, _there) = UnixStream::pair().unwrap();
            Peer::of(&here).unwrap()
        });
        let pid = i32::try_from(std::process::id()).unwrap();
        let [uid, gid] = [unistd::geteuid().as_raw(), unistd::getegid().as_raw()];
        assert_eq!(peer, Peer { uid, gid, pid: Some(pid) });
    }
}
