//! Writes a client's request to the spool.
//!
//! A later heartbeat of a session replaces an earlier one that is not imported yet, so that the spool grows with sessions,
//! not with heartbeats. The new file is written before the old one is unlinked, so that no heartbeat is lost if the daemon
//! or another client works in the folder at the same time.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, unlinkat};

use super::folder::open_folder;
use super::{EXTENSION, MAX_FILE_SIZE, MAX_FILES, Spool, SpooledRequest};
use crate::platform::files::{self, WriteDurability};

/// How long, in microseconds, an equal heartbeat is not written again: agents draw their status line several times a
/// second.
const MIN_REWRITE_AGE: i64 = 5_000_000;

/// The modes of a request's file. In the shared spool the folder's group, to which the daemon belongs, may read it.
const PRIVATE_FILE: u32 = 0o600;
const SHARED_FILE: u32 = 0o640;

#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY;

impl Spool {
    /// Writes a request; when this returns it is on the disk. `random` makes its name unique.
    ///
    /// # Errors
    /// The folder cannot be created or written, or holds too many requests.
    pub fn write(&self, request: &SpooledRequest, random: u64) -> io::Result<()> {
        self.make()?;
        let folder = open_folder(self.dir(), if self.is_shared() { SEARCH } else { OFlags::RDONLY })?;
        let mut request = request.clone();
        request.redact();
        let earlier = self.earlier_heartbeat(&folder, &request)?;
        if let Some((_, earlier)) = &earlier {
            request.write = request.write.merged_with(earlier.write.clone());
            if request.write.says_the_same_as(&earlier.write)
                && (0..MIN_REWRITE_AGE).contains(&(request.at - earlier.at))
            {
                return Ok(());
            }
        }
        let tag = request.write.heartbeat_tag();
        let name = format!("{:020}-{random:016x}{tag}{EXTENSION}", request.at.max(0));
        // The daemon must be able to read the file, regardless of the client's umask. The shared folder cannot be synced.
        let mode = if self.is_shared() { SHARED_FILE } else { PRIVATE_FILE };
        let content = serde_json::to_vec(&request)?;
        files::write_atomically_in(folder.as_fd(), &name, &content, mode, WriteDurability::ContentAndName)?;
        if let Some((earlier, _)) = earlier {
            let _ = unlinkat(&folder, &earlier, AtFlags::empty());
        }
        self.record_name(&tag, &name);
        Ok(())
    }

    /// The spooled heartbeat that `request` replaces, with its file's name.
    fn earlier_heartbeat(
        &self,
        folder: &OwnedFd,
        request: &SpooledRequest,
    ) -> io::Result<Option<(String, SpooledRequest)>> {
        let tag = request.write.heartbeat_tag();
        let candidate = if self.is_shared() {
            self.name_file(&tag).and_then(|file| fs::read_to_string(file).ok())
        } else {
            let names = self.names()?;
            let found = names.iter().rev().find(|name| !tag.is_empty() && name.contains(&tag)).cloned();
            if found.is_none() && names.len() >= MAX_FILES {
                return Err(io::Error::other(format!("it holds {MAX_FILES} requests already")));
            }
            found
        };
        let Some(name) = candidate.filter(|name| !name.contains('/') && !tag.is_empty() && name.contains(&tag)) else {
            return Ok(None);
        };
        let earlier = read_own(folder, &name)
            .filter(|earlier| request.write.replaces(&earlier.write) && earlier.sockets == request.sockets);
        Ok(earlier.map(|earlier| (name, earlier)))
    }

    /// The file that holds the name of the last heartbeat with this tag.
    fn name_file(&self, tag: &str) -> Option<PathBuf> {
        self.spooled_names.as_ref().filter(|_| !tag.is_empty()).map(|dir| dir.join(tag.trim_start_matches('-')))
    }

    /// Records the name of a heartbeat's file, for a folder that cannot be listed. If that fails, the next heartbeat does
    /// not replace this one.
    fn record_name(&self, tag: &str, name: &str) {
        let Some((name_file, dir)) = self.name_file(tag).zip(self.spooled_names.as_ref()) else { return };
        let created = dir.parent().map_or(Ok(()), files::make_private_folder).and_then(|()| {
            fs::create_dir(dir)
                .or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
        });
        if created.is_ok() {
            let mut file = files::private_file();
            let _ = file
                .create(true)
                .truncate(true)
                .write(true)
                .open(name_file)
                .and_then(|mut f| f.write_all(name.as_bytes()));
        }
    }
}

/// Reads an earlier request of this user.
fn read_own(folder: &OwnedFd, name: &str) -> Option<SpooledRequest> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut content = Vec::new();
    File::from(file).take(MAX_FILE_SIZE).read_to_end(&mut content).ok()?;
    serde_json::from_slice(&content).ok()
}
